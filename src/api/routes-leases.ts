// Routes over the ledger: leases (S4–S6) with their whole history, and orphans, which are accounts on a
// target that carry our mark and that nobody wants. Only admins prolong, revoke and reap; a user sees their
// own leases.
import { z } from 'zod'
import { SallyportError } from '../errors.ts'
import { duration, quote } from '../input.ts'
import type { ApiPorts, LeaseRow, OrphanReport } from './ports.ts'
import { admins, everyone, route, watchers } from './route.ts'
import type { Caller, Route } from './route.ts'
import { done, leaseEventShape, leaseJson, leaseShape, orphansShape } from './shapes.ts'

const leasesPerAnswerMax = 10_000
const id = z.string().regex(/^[0-9A-Za-z_-]{4,64}$/, 'expected a lease id')
const params = z.object({ id })
const target = z.string().max(63).optional()

export function leaseRoutes(ports: ApiPorts): Route[] {
  return [
    route({
      method: 'get', path: '/leases', roles: everyone,
      summary: 'Leases, newest first; a user sees their own.',
      query: z.strictObject({
        target, owner: z.string().optional(),
        status: z.enum(['active', 'expired', 'revoked', 'revoking', 'failed']).optional(),
        limit: z.coerce.number().int().min(1).max(leasesPerAnswerMax).default(1000)
      }),
      response: z.object({ leases: z.array(leaseShape) }),
      run: async ({ query, caller }) => {
        const owner = isWatcher(caller) ? query.owner : caller.name
        return { leases: (await ports.leases.list({ ...query, owner })).map(leaseJson) }
      }
    }),
    route({
      method: 'get', path: '/leases/{id}', roles: watchers, summary: 'One lease.', params,
      response: leaseShape,
      run: async call => leaseJson(await leaseOf(ports, call.params.id))
    }),
    route({
      method: 'get', path: '/leases/{id}/history', roles: watchers,
      summary: 'Everything that happened to a lease and its account, in order.', params,
      response: z.object({ events: z.array(leaseEventShape) }),
      run: async call => {
        const { id: lease } = await leaseOf(ports, call.params.id)
        const events = await ports.leases.history(lease)
        return { events: events.map(event => ({ ...event, at: event.at.toISOString() })) }
      }
    }),
    route({
      method: 'post', path: '/leases/{id}/renew', roles: admins,
      summary: 'Adds a time to the expiry, up to the maximum; not after expiry or revocation.', params,
      body: z.strictObject({ ttl: duration }),
      response: leaseShape,
      run: async ({ params: { id: lease }, body: { ttl }, caller }) => {
        await leaseOf(ports, lease)
        return leaseJson(await ports.leases.renew(lease, ttl, caller.name))
      }
    }),
    route({
      method: 'post', path: '/leases/{id}/revoke', roles: admins,
      summary: 'Ends a lease at once, with its live connections; `done` is false when it had ended already.',
      params,
      response: done,
      run: async ({ params: { id: lease }, caller }) => {
        await leaseOf(ports, lease)
        return { done: await ports.leases.revoke(lease, caller.name) }
      }
    }),
    route({
      method: 'get', path: '/orphans', roles: watchers,
      summary: 'Looks on the targets for accounts of ours that the ledger does not want. Reads only.',
      query: z.strictObject({ target }),
      response: orphansShape,
      run: async ({ query, signal }) => {
        await checkTarget(ports, query.target)
        return orphansJson(await ports.orphans.scan(query.target, signal))
      }
    }),
    route({
      method: 'post', path: '/orphans/reap', roles: admins,
      summary: 'Removes the accounts that a scan calls orphans, with proof; never one without our mark.',
      body: z.strictObject({ target }),
      response: orphansShape,
      run: async ({ body, caller, signal }) => {
        await checkTarget(ports, body.target)
        await ports.audit.append('orphans.reaping', caller.name, body.target ?? '*', {})
        return orphansJson(await ports.orphans.reap(body.target, caller.name, signal))
      }
    })
  ]
}

function isWatcher(caller: Caller): boolean {
  return caller.roles.some(role => watchers.includes(role))
}

async function leaseOf(ports: ApiPorts, lease: string): Promise<LeaseRow> {
  const row = await ports.leases.show(lease)
  if (row !== undefined) return row
  throw new SallyportError('not-found', { detail: `no lease ${quote(lease)}` })
}

async function checkTarget(ports: ApiPorts, name: string | undefined): Promise<void> {
  if (name === undefined || await ports.resources.get('target', name) !== undefined) return
  throw new SallyportError('not-found', { detail: `no target ${quote(name)}` })
}

function orphansJson({ orphans, unreachable }: OrphanReport): z.output<typeof orphansShape> {
  return { orphans: orphans.map(each => ({ ...each })), unreachable: unreachable.map(each => ({ ...each })) }
}
