// `secrets`: what there is, and the values of one. A generated value is in the answer to `generate` and
// nowhere else, so it is printed whole; who looks over a shoulder sees it once.
import type { ComparedJson, ReadingJson, SecretJson, SecretVersionJson } from '../api/client-types.ts'
import { pathOf } from './client.ts'
import { UsageError, exit } from './command.ts'
import type { Invocation, Run } from './command.ts'
import { clientOf, flag, number, text } from './connect.ts'
import { shortTime } from './output.ts'

export const list: Run = async call => {
  const client = await clientOf(call)
  const environment = text(call, 'environment')
  printSecrets(call, (await client.get<{ secrets: SecretJson[] }>('/secrets', { environment })).secrets)
  return exit.ok
}

export const search: Run = async call => {
  const query = text(call, 'query')
  if (query === undefined) throw new UsageError('--query is missing')
  const client = await clientOf(call)
  const links = flag(call, 'search-links')
  const found = await client.get<{ secrets: SecretJson[] }>('/secrets/search', { query, links })
  printSecrets(call, found.secrets)
  return exit.ok
}

function printSecrets(call: Invocation, secrets: readonly SecretJson[]): void {
  if (call.json) return call.out.json(secrets)
  call.out.table(['PATH', 'TYPE', 'FROM', 'TARGET', 'TTL', 'MOST', 'STATUS'], secrets.map(secret => {
    const { path, type, provider, profile, linkedSecret, target, ttlSeconds, maxTtlSeconds, status } = secret
    const from = linkedSecret ?? profile ?? provider
    return [path, type, from, target, inSeconds(ttlSeconds), inSeconds(maxTtlSeconds), status]
  }), 'no secrets')
}

function inSeconds(seconds: number | null): string | undefined {
  return seconds === null ? undefined : `${seconds}s`
}

export const read: Run = async call => {
  const client = await clientOf(call)
  const version = text(call, 'version') === undefined ? undefined : number(call, 'version', 1, 1)
  printReading(call, await client.post<ReadingJson>(pathOf`/secrets/${call.args[0]!}/read`, { version }))
  return exit.ok
}

export const generate: Run = async call => {
  const client = await clientOf(call)
  const wish = { ttl: text(call, 'ttl'), name: text(call, 'name') }
  printReading(call, await client.post<ReadingJson>(pathOf`/secrets/${call.args[0]!}/generate`, wish))
  return exit.ok
}

function printReading(call: Invocation, reading: ReadingJson): void {
  if (call.json) return call.out.json(reading)
  const { lease, values } = reading
  call.out.list(Object.entries(values))
  if (lease !== null) {
    const until = shortTime(lease.expiresAt) ?? ''
    call.out.aside(`lease ${lease.id} until ${until}; the values are not shown again`)
  }
}

export const remove: Run = async call => {
  const client = await clientOf(call)
  const path = call.args[0]!
  const revoke = flag(call, 'revoke-active-leases')
  await client.delete(`${pathOf`/secrets/${path}`}?revokeActiveLeases=${revoke}`)
  if (call.json) call.out.json({ path, deleted: true })
  else call.out.line(`deleted ${path}`)
  return exit.ok
}

export const versions: Run = async call => {
  const client = await clientOf(call)
  const path = pathOf`/secrets/${call.args[0]!}/versions`
  const { versions: all } = await client.get<{ versions: SecretVersionJson[] }>(path)
  if (call.json) call.out.json(all)
  else {
    const rows = all.map(({ version, state, createdAt, createdBy, lease }) =>
      [version, state, shortTime(createdAt), createdBy, lease])
    call.out.table(['VERSION', 'STATE', 'CREATED', 'BY', 'LEASE'], rows, 'no versions')
  }
  return exit.ok
}

export const compare: Run = async call => {
  const client = await clientOf(call)
  const [path, from, to] = call.args
  const compared = await client.get<ComparedJson>(pathOf`/secrets/${path!}/compare`, { from, to })
  if (call.json) call.out.json(compared)
  else call.out.table(['KEY', 'IS'], compared.keys.map(({ key, is }) => [key, is]), 'no values')
  return exit.ok
}
