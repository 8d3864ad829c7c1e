// `secrets`: what there is, and the values of one. A generated value is in the answer to `generate` and
// nowhere else, so it is printed whole; who looks over a shoulder sees it once.
import { allOf } from '../api/calling.ts'
import type { ReadingJson, SecretJson } from '../api/client-types.ts'
import { UsageError, exit } from './command.ts'
import type { Invocation, Run } from './command.ts'
import { clientOf, flag, number, text } from './connect.ts'
import { shortTime } from './output.ts'

export const list: Run = async call => {
  const client = await clientOf(call)
  const environment = text(call, 'environment')
  printSecrets(call, await allOf(async page =>
    (await client.get('/secrets', { query: { environment, ...page } })).secrets, ({ path }) => path))
  return exit.ok
}

export const search: Run = async call => {
  const query = text(call, 'query')
  if (query === undefined) throw new UsageError('--query is missing')
  const client = await clientOf(call)
  const wanted = { query, links: `${flag(call, 'search-links')}` as const }
  printSecrets(call, await allOf(async page =>
    (await client.get('/secrets/search', { query: { ...wanted, ...page } })).secrets, ({ path }) => path))
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
  const params = { path: call.args[0]! }
  printReading(call, await client.post('/secrets/{path}/read', { params, body: { version } }))
  return exit.ok
}

export const generate: Run = async call => {
  const client = await clientOf(call)
  printReading(call, await client.post('/secrets/{path}/generate', {
    params: { path: call.args[0]! }, body: { ttl: text(call, 'ttl'), name: text(call, 'name') }
  }))
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
  await client.delete('/secrets/{path}', {
    params: { path }, query: { revokeActiveLeases: `${flag(call, 'revoke-active-leases')}` }
  })
  if (call.json) call.out.json({ path, deleted: true })
  else call.out.line(`deleted ${path}`)
  return exit.ok
}

export const versions: Run = async call => {
  const client = await clientOf(call)
  const params = { path: call.args[0]! }
  const all = await allOf(async ({ after, limit }) => {
    const query = { limit, after: after === undefined ? undefined : Number(after) }
    return (await client.get('/secrets/{path}/versions', { params, query })).versions
  }, ({ version }) => String(version))
  if (call.json) call.out.json(all)
  else {
    const rows = all.map(({ version, state, createdAt, createdBy, lease }) =>
      [version, state, shortTime(createdAt), createdBy, lease])
    call.out.table(['VERSION', 'STATE', 'CREATED', 'BY', 'LEASE'], rows, 'no versions')
  }
  return exit.ok
}

function versionIn(given: string): number {
  const version = Number(given)
  if (Number.isInteger(version) && version > 0) return version
  throw new UsageError(`${JSON.stringify(given)} is no version`)
}

export const compare: Run = async call => {
  const client = await clientOf(call)
  const [path, from, to] = call.args
  const compared = await client.get('/secrets/{path}/compare', {
    params: { path: path! }, query: { from: versionIn(from!), to: versionIn(to!) }
  })
  if (call.json) call.out.json(compared)
  else call.out.table(['KEY', 'IS'], compared.keys.map(({ key, is }) => [key, is]), 'no values')
  return exit.ok
}
