// `leases` and `orphans`: what the ledger holds, how it got there, and what is on the targets that nobody
// wants.
import { allOf } from '../api/calling.ts'
import type { LeaseJson, OrphansJson } from '../api/client-types.ts'
import { UsageError, exit } from './command.ts'
import type { Invocation, Run } from './command.ts'
import { clientOf, number, oneOf, text } from './connect.ts'
import type { Words } from './connect.ts'
import { shortTime } from './output.ts'

const statuses: Words<LeaseJson['status']> = {
  active: true, expired: true, revoked: true, revoking: true, failed: true
}

export const list: Run = async call => {
  const client = await clientOf(call)
  const { leases } = await client.get('/leases', {
    query: {
      target: text(call, 'target'), secret: text(call, 'secret'), owner: text(call, 'owner'),
      status: oneOf(call, 'status', statuses), before: text(call, 'before'),
      limit: number(call, 'limit', 100, 1)
    }
  })
  if (call.json) call.out.json(leases)
  else call.out.table(['ID', 'NAME', 'STATUS', 'ACCOUNT', 'STATE', 'TARGET', 'OWNER', 'CREATED', 'EXPIRES'],
    leases.map(({ id, name, status, account, target, ownerKind, owner, createdAt, expiresAt }) =>
      [id, name, status, account.name, account.state, target, `${ownerKind} ${owner}`, shortTime(createdAt),
        shortTime(expiresAt)]), 'no leases')
  return exit.ok
}

export const show: Run = async call => {
  const client = await clientOf(call)
  printLease(call, await client.get('/leases/{id}', { params: { id: call.args[0]! } }))
  return exit.ok
}

function printLease(call: Invocation, lease: LeaseJson): void {
  if (call.json) return call.out.json(lease)
  call.out.list([
    ['id', lease.id], ['name', lease.name], ['status', lease.status], ['account', lease.account.name],
    ['account state', lease.account.state], ['account id', lease.account.id], ['target', lease.target],
    lease.secret === null ? ['credential', lease.credential] : ['secret', lease.secret],
    ['owner', `${lease.ownerKind} ${lease.owner}`],
    ['created', shortTime(lease.createdAt)], ['expires', shortTime(lease.expiresAt)],
    ['not beyond', shortTime(lease.maxAt)], ['renewals', lease.renewals],
    ['can be prolonged by', `${lease.renewableSeconds}s`], ['ended', shortTime(lease.endedAt)],
    ['last error', lease.lastError]
  ])
}

export const renew: Run = async call => {
  const ttl = text(call, 'ttl')
  if (ttl === undefined) throw new UsageError('--ttl is missing')
  const client = await clientOf(call)
  printLease(call, await client.post('/leases/{id}/renew', { params: { id: call.args[0]! }, body: { ttl } }))
  return exit.ok
}

export const revoke: Run = async call => {
  const client = await clientOf(call)
  const id = call.args[0]!
  const { done } = await client.post('/leases/{id}/revoke', { params: { id } })
  if (call.json) call.out.json({ id, revoked: done })
  else call.out.line(done ? `revoked ${id}` : `${id} had ended already`)
  return exit.ok
}

export const history: Run = async call => {
  const client = await clientOf(call)
  const params = { id: call.args[0]! }
  const events = await allOf(async page =>
    (await client.get('/leases/{id}/history', { params, query: page })).events, ({ id }) => id)
  if (call.json) call.out.json(events)
  else call.out.table(['AT', 'WHAT', 'BY', 'DETAIL'], events.map(({ at, kind, actor, detail }) =>
    [shortTime(at), kind, actor, JSON.stringify(detail)]), 'no events')
  return exit.ok
}

export const scan: Run = async call => {
  const client = await clientOf(call)
  const report = await client.get('/orphans', { query: { target: text(call, 'target') } })
  printOrphans(call, report, 'no orphans')
  // Found something, or could not look everywhere: neither is what the person hopes for.
  return report.orphans.length === 0 && report.unreachable.length === 0 ? exit.ok : exit.failed
}

export const reap: Run = async call => {
  const client = await clientOf(call)
  const target = text(call, 'target')
  const report = await client.post('/orphans/reap', { body: target === undefined ? {} : { target } })
  printOrphans(call, report, 'nothing to reap')
  // `removing`: it is gone, and the ledger owes it a second look (a late effect could bring it back once
  // more).
  const left = report.orphans.filter(({ verdict }) => verdict !== 'proved-gone' && verdict !== 'removing')
  return left.length === 0 && report.unreachable.length === 0 ? exit.ok : exit.failed
}

function printOrphans(call: Invocation, report: OrphansJson, empty: string): void {
  if (call.json) return call.out.json(report)
  const { orphans, unreachable } = report
  const rows = orphans.map(({ target, name, verdict, detail }) => [target, name, verdict, detail])
  call.out.table(['TARGET', 'ACCOUNT', 'VERDICT', 'DETAIL'], rows, empty)
  for (const { target, reason } of unreachable) call.out.aside(`${target} was not looked at: ${reason}`)
}
