// Renewing a lease, and how long one may live today (S9). A definition whose maximum was shortened or raised
// counts from the next renewal on; where it is gone, what the lease was made with counts. The target keeps an
// end of the account too (the dead man's switch), set by the old maximum: it is moved first, so that no lease
// is prolonged beyond what its account lives, and where it cannot be moved the maximum stays what it was.
import { SallyportError } from '../errors.ts'
import type { Context, MaximumOf } from './context.ts'
import { deadManOf, hookWork } from './remove.ts'
import { renewal } from './renew.ts'
import type { Renewable, Renewal } from './renew.ts'
import type { LeaseRecord, LeaseRow, Renewed } from './store-port.ts'
import { shown } from './view.ts'

/** Where somebody sits, as details of an event. */
export type From = { address?: string }

/** The end of a lease's whole lifetime, as it is today. */
export type EndOf = (record: LeaseRecord) => Date

export async function endsToday({ options: { maximums, hooks } }: Context): Promise<EndOf> {
  const maximumOf: MaximumOf = await maximums()
  return record => {
    const { accountKind, holdState, maxAt, plugin } = record
    if (holdState !== 'active') return maxAt
    const today = maximumOf(record)
    if (today <= maxAt) return today
    // A shared account is switched on and off by others as well: its end is not one lease's to move.
    return accountKind === 'create' && hooks.prolongs(plugin) ? today : maxAt
  }
}

/** `latest`: a limit beside the lease's own. @throws SallyportError `invalid` with the reason, `not-found` */
export async function renew(
  context: Context, holdId: string, seconds: number, actor: string, from: From, latest: Date | undefined
): Promise<LeaseRow> {
  const { store, audit } = context.options
  const endOf = await endsToday(context)
  const attempt = async (): Promise<{ renewed: Renewed, isStale: boolean }> => {
    const record = await existing(context, holdId)
    const today = new Date(Math.min(endOf(record).getTime(), latest?.getTime() ?? Infinity))
    const decide = (end: Date) => (lease: Renewable, nowMs: number): Renewal =>
      renewal({ ...lease, maxAtMs: end.getTime() }, seconds, nowMs)
    // Where this renewal alone needs no later end, another at the same moment must not make it need one.
    const isStale = today > record.maxAt && !await moveEnd(context, record, decide(today), today)
    const end = isStale ? record.maxAt : today
    const renewed = await store.renew(holdId, actor, decide(end), { seconds, ...from }, end)
    if (renewed === undefined) throw noLease(holdId)
    return { renewed, isStale }
  }
  let { renewed, isStale } = await attempt()
  // Others renewed it in between.
  if (!renewed.renewed && isStale) ({ renewed, isStale } = await attempt())
  if (!renewed.renewed) {
    throw new SallyportError('invalid', { detail: renewed.reason, problems: [renewed.reason] })
  }
  await audit.append(
    'lease.renewed', actor, holdId, { seconds, expiresAt: renewed.term.expiresAt.toISOString(), ...from }
  )
  return shown(await existing(context, holdId), endOf)
}

/**
 * On the target, if this renewal goes beyond what it was told. False where it does not, and so the end stays.
 * @throws SallyportError when that failed
 */
async function moveEnd(
  context: Context, record: LeaseRecord, decide: (lease: Renewable, nowMs: number) => Renewal, maxAt: Date
): Promise<boolean> {
  const { options: { store, hooks, clock }, limits: { claimMs } } = context
  const { id, holdState: state, expiresAt, asOf } = record
  const lease = { state, expiresAtMs: expiresAt.getTime(), maxAtMs: record.maxAt.getTime() }
  const verdict = decide(lease, asOf.getTime())
  // What is refused today stays refused, with today's reason.
  if (!verdict.renewed) return true
  if (verdict.expiresAtMs <= lease.maxAtMs) return false
  const claim = await store.accountOf(id)
  if (claim === undefined) throw noLease(id)
  // No claim is taken: a removal that begins meanwhile raises the epoch in the marker, and an end that is
  // moved on an account which is shut opens nothing.
  const until = deadManOf(context, 'create', maxAt, 0)
  const claimEndsMs = clock.monotonicMs() + claimMs
  const { state: done, code, error } = await hooks.prolong(hookWork({ claim, claimEndsMs }, 'open', until))
  if (done !== 'done') throw new SallyportError(code ?? 'hook-failed', { detail: error })
  return true
}

async function existing({ options: { store } }: Context, holdId: string): Promise<LeaseRecord> {
  const record = await store.show(holdId)
  if (record === undefined) throw noLease(holdId)
  return record
}

function noLease(holdId: string): SallyportError {
  return new SallyportError('not-found', { detail: `lease ${holdId}` })
}
