// `applications`: the tokens of machine identities. A token is printed once, alone on standard output, so
// that it can go straight into a secret of the machine that needs it.
import type { FreshApplicationTokenJson } from '../api/client-types.ts'
import { exit } from './command.ts'
import type { Invocation, Run } from './command.ts'
import { clientOf, text } from './connect.ts'
import { shortTime } from './output.ts'

export const tokens: Run = async call => {
  const client = await clientOf(call)
  const { tokens: all } = await client.get('/applications/{name}/tokens', { params: { name: call.args[0]! } })
  if (call.json) call.out.json(all)
  else call.out.table(['ID', 'CREATED', 'BY', 'EXPIRES', 'LAST USED'], all.map(token => [
    token.id, shortTime(token.createdAt), token.createdBy, shortTime(token.expiresAt),
    shortTime(token.lastUsedAt)
  ]), 'no tokens')
  return exit.ok
}

export const make: Run = async call => {
  const client = await clientOf(call)
  printToken(call, await client.post('/applications/{name}/tokens', {
    params: { name: call.args[0]! }, body: { ttl: text(call, 'ttl') }
  }))
  return exit.ok
}

export const rotate: Run = async call => {
  const client = await clientOf(call)
  const [name, id] = call.args
  printToken(call, await client.post('/applications/{name}/tokens/{id}/rotate', {
    params: { name: name!, id: id! }, body: { ttl: text(call, 'ttl'), overlap: text(call, 'overlap') }
  }))
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
  await client.delete('/applications/{name}/tokens/{id}', { params: { name: name!, id: id! } })
  if (call.json) call.out.json({ application: name, id, revoked: true })
  else call.out.line(`token ${id} of ${name} is worthless from now on`)
  return exit.ok
}
