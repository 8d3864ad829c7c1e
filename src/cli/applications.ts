// `applications`: the tokens of machine identities. A token is printed once, alone on standard output, so
// that it can go straight into a secret of the machine that needs it.
import type { ApplicationTokenJson, FreshApplicationTokenJson } from '../api/client-types.ts'
import { pathOf } from './client.ts'
import { exit } from './command.ts'
import type { Invocation, Run } from './command.ts'
import { clientOf, text } from './connect.ts'
import { shortTime } from './output.ts'

export const tokens: Run = async call => {
  const client = await clientOf(call)
  const path = pathOf`/applications/${call.args[0]!}/tokens`
  const { tokens: all } = await client.get<{ tokens: ApplicationTokenJson[] }>(path)
  if (call.json) call.out.json(all)
  else call.out.table(['ID', 'CREATED', 'BY', 'EXPIRES', 'LAST USED'], all.map(token => [
    token.id, shortTime(token.createdAt), token.createdBy, shortTime(token.expiresAt),
    shortTime(token.lastUsedAt)
  ]), 'no tokens')
  return exit.ok
}

export const make: Run = async call => {
  const client = await clientOf(call)
  const path = pathOf`/applications/${call.args[0]!}/tokens`
  printToken(call, await client.post<FreshApplicationTokenJson>(path, { ttl: text(call, 'ttl') }))
  return exit.ok
}

export const rotate: Run = async call => {
  const client = await clientOf(call)
  const [name, id] = call.args
  const path = pathOf`/applications/${name!}/tokens/${id!}/rotate`
  const wish = { ttl: text(call, 'ttl'), overlap: text(call, 'overlap') }
  printToken(call, await client.post<FreshApplicationTokenJson>(path, wish))
  return exit.ok
}

function printToken(call: Invocation, fresh: FreshApplicationTokenJson): void {
  if (call.json) return call.out.json(fresh)
  call.out.line(fresh.token)
  call.out.aside(`token ${fresh.id} until ${shortTime(fresh.expiresAt) ?? ''}; it is not shown again`)
}

export const revoke: Run = async call => {
  const client = await clientOf(call)
  const [name, id] = call.args
  await client.delete(pathOf`/applications/${name!}/tokens/${id!}`)
  if (call.json) call.out.json({ application: name, id, revoked: true })
  else call.out.line(`token ${id} of ${name} is worthless from now on`)
  return exit.ok
}
