// Routes over the ledger: leases (S4–S6) with their whole history, and orphans, which are accounts on a
// target that carry our mark and that nobody wants. Whoever owns a lease sees it, prolongs it (as long as
// they may still have its secret) and gives it back; only admins do that to the leases of others, and reap.
import { z } from 'zod'
import { SallyportError } from '../errors.ts'
import { quote } from '../input.ts'
import { leasesListedMax } from '../lease/states.ts'
import { authoriseSecret, readSecretPath } from '../policy/secrets.ts'
import type { Declared, Role } from '../policy/types.ts'
import { actorOf } from '../secrets/secrets.ts'
import { limit } from './pages.ts'
import type { ApiPorts } from './ports.ts'
import type { LeaseRow, OrphanReport } from './ports-records.ts'
import { admins, everyone, holders, route, watchers } from './route.ts'
import type { Caller } from './route.ts'
import { holderOf, ttl } from './routes-secrets.ts'
import { done, leaseEventShape, leaseJson, leaseShape, orphansShape } from './shapes.ts'

const id = z.string().regex(/^[0-9A-Za-z_-]{4,64}$/, 'expected a lease id')
const params = z.object({ id })
const eventId = z.string().regex(/^\d{1,15}$/, 'expected the id of an event').transform(Number)
// A base secret is a target of its own, under its path.
const target = z.string().max(255).transform(name => readSecretPath(name) ?? name).optional()
const owners: readonly Role[] = [...everyone, 'application']

export function leaseRoutes(ports: ApiPorts) {
  return [
    route({
      method: 'get', path: '/leases', roles: owners,
      summary: 'Leases, newest first; users and applications see their own.',
      query: z.strictObject({
        target, secret: z.string().max(255).optional(), owner: z.string().optional(),
        status: z.enum(['active', 'expired', 'revoked', 'revoking', 'failed']).optional(),
        before: id.optional(),
        limit: z.coerce.number<number>().int().min(1).max(leasesListedMax).default(leasesListedMax)
      }),
      response: z.object({ leases: z.array(leaseShape) }),
      run: async ({ query: { secret, ...query }, caller }) => {
        const { kind, name } = holderOf(caller)
        const own = isWatcher(caller) ? {} : { ownerKind: kind, owner: name }
        const credential = secret === undefined ? undefined : readSecretPath(secret) ?? secret
        return { leases: (await ports.leases.list({ ...query, credential, ...own })).map(leaseJson) }
      }
    }),
    route({
      method: 'get', path: '/leases/{id}', roles: owners, summary: 'One lease.', params,
      response: leaseShape,
      run: async ({ params: { id: lease }, caller }) => leaseJson(await leaseOf(ports, lease, caller))
    }),
    route({
      method: 'get', path: '/leases/{id}/history', roles: owners,
      summary: 'Everything that happened to a lease and its account, in order.', params,
      query: z.strictObject({ after: eventId.optional(), limit }),
      response: z.object({ events: z.array(leaseEventShape) }),
      run: async ({ params: { id: wanted }, query, caller }) => {
        const { id: lease } = await leaseOf(ports, wanted, caller)
        const events = await ports.leases.history(lease, query)
        return {
          events: events.map(event => ({ ...event, id: String(event.id), at: event.at.toISOString() }))
        }
      }
    }),
    route({
      method: 'post', path: '/leases/{id}/renew', roles: holders,
      summary: 'Adds a time to the expiry, up to the maximum; not after expiry or revocation.', params,
      body: z.strictObject({ ttl }),
      issues: ({ id: lease, expiresAt }) => `lease ${lease} until ${expiresAt}`,
      response: leaseShape,
      run: async ({ params: { id: lease }, body, caller, address }) => {
        const row = await leaseOf(ports, lease, caller, admins)
        const latest = latestEnd(await ports.policy.declared(), row, caller, ports.clock.now())
        const actor = actorOf(holderOf(caller))
        return leaseJson(await ports.leases.renew(lease, body.ttl, actor, address, latest))
      }
    }),
    route({
      method: 'post', path: '/leases/{id}/revoke', roles: holders,
      summary: 'Ends a lease at once, with its live connections; `done` is false when it had ended already.',
      params,
      response: done,
      run: async ({ params: { id: lease }, caller, address }) => {
        await leaseOf(ports, lease, caller, admins)
        return { done: await ports.leases.revoke(lease, actorOf(holderOf(caller)), address) }
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

/** A lease of the caller, or any for those with one of the roles. */
async function leaseOf(
  ports: ApiPorts, lease: string, caller: Caller, roles: readonly Role[] = watchers
): Promise<LeaseRow> {
  const row = await ports.leases.show(lease)
  const { kind, name } = holderOf(caller)
  const isOwn = row?.ownerKind === kind && row.owner === name
  if (row !== undefined && (isOwn || caller.roles.some(role => roles.includes(role)))) return row
  throw new SallyportError('not-found', { detail: `no lease ${quote(lease)}` })
}

/**
 * The end of what gives a caller the secret, beside the lease's own end. Throws `not-found` without a grant.
 */
function latestEnd(
  declared: Declared, { credential }: LeaseRow, caller: Caller, now: Date
): Date | undefined {
  if (caller.roles.includes('admin')) return undefined
  const grantMs = authoriseSecret(declared, holderOf(caller), credential, now)
  return grantMs === Infinity ? undefined : new Date(grantMs)
}

async function checkTarget(ports: ApiPorts, name: string | undefined): Promise<void> {
  const kind = name?.includes('/') === true ? 'secret' : 'target'
  if (name === undefined || await ports.resources.get(kind, name) !== undefined) return
  throw new SallyportError('not-found', { detail: `no target ${quote(name)}` })
}

function orphansJson({ orphans, unreachable }: OrphanReport): z.output<typeof orphansShape> {
  return { orphans: orphans.map(each => ({ ...each })), unreachable: unreachable.map(each => ({ ...each })) }
}
