// The janitor: what happens without anybody asking. Every second it looks at the worklist: leases past their
// expiry, removals that are due, openers that died. Every few seconds it says that this node is alive and
// takes over from nodes that are not. Beside it runs a guard that never waits for the store: it cuts what is
// past its time on this node's own monotonic clock, and everything when this node may have been declared
// dead. No lease has a timer of its own: a thirty-day timer would overflow, and a timer dies with its
// process.
import { randomUUID } from 'node:crypto'
import type { Cancel } from '../clock.ts'
import { SallyportError, asSallyportError } from '../errors.ts'
import { cutLease, waitAtMost } from './context.ts'
import type { Context, LocalLease } from './context.ts'
import type { Remover } from './remove.ts'
import type { EndedHold } from './store-port.ts'

export interface Janitor {
  /** Registers this process and begins. Throws `store-unavailable`. */
  start(): Promise<void>
  /** Stops looking; what is running goes on. */
  stop(): void
  /** One look at the worklist, now. Never throws. */
  pass(): Promise<void>
  /** Says that this node is alive; false when it could not or is not. */
  beat(): Promise<boolean>
}

export function createJanitor(context: Context, remover: Remover): Janitor {
  const { clock } = context.options
  const { limits } = context
  const timers = new Set<Cancel>()
  let passing: Promise<void> | undefined
  let again = false
  let askedMs = 0
  let probedMs = 0
  let beating: Promise<boolean> | undefined

  const repeat = (everyMs: number, act: () => void): void => {
    let cancel: Cancel
    const arm = (): void => {
      cancel = clock.after(everyMs, () => {
        timers.delete(cancel)
        if (context.stopped) return
        arm()
        act()
      })
      timers.add(cancel)
    }
    arm()
  }

  const since = (thenMs: number): number => clock.monotonicMs() - thenMs

  const beat = (): Promise<boolean> => {
    beating ??= beatOnce(context).finally(() => { beating = undefined })
    return beating
  }

  const steps = async (): Promise<void> => {
    await payDebts(context)
    if (context.local.size > 0 && since(askedMs) >= limits.askMs) {
      askedMs = clock.monotonicMs()
      await askAfterLeases(context)
    }
    if (since(probedMs) >= limits.probeMs) {
      probedMs = clock.monotonicMs()
      await context.options.store.probe()
    }
    await work(context, remover, () => {
      if (!context.stopped) void pass()
    })
  }

  const passes = async (): Promise<void> => {
    while (again) {
      again = false
      try {
        await steps()
      } catch (thrown) {
        complain(context, 'ledger: the worklist could not be read', thrown)
      }
    }
    // In the same moment as the look at `again`: a pass that is asked for later begins anew.
    passing = undefined
  }

  const pass = (): Promise<void> => {
    again = true
    passing ??= passes()
    return passing
  }

  return {
    async start() {
      await register(context, context.options.boot)
      // What the previous boot held: released and removed now, not when its claims lapse.
      await sweepAll(context)
      repeat(limits.tickMs, () => {
        guard(context, remover)
        void pass()
      })
      repeat(limits.beatMs, () => void beat())
      void pass()
    },
    stop() {
      for (const cancel of timers) cancel()
      timers.clear()
    },
    pass,
    beat
  }
}

async function register(context: Context, boot: string): Promise<void> {
  const { store, node, clock } = context.options
  const claimant = { node, boot }
  const asOfMs = clock.monotonicMs()
  await store.boot(claimant)
  context.claimant = claimant
  context.beatenMs = asOfMs
  context.beatingSinceMs = asOfMs
}

// Nobody is declared dead by a node that itself could not reach the store a moment ago: after an outage of
// the store all nodes are late, and each must have the time to say that it lives.
async function beatOnce(context: Context): Promise<boolean> {
  const { options: { store, clock, log }, limits: { nodeTtlMs } } = context
  const asOfMs = clock.monotonicMs()
  const declare = asOfMs - context.beatingSinceMs >= nodeTtlMs
  try {
    const { alive, peers, declared } = await store.beat(
      { claimant: context.claimant, ttlMs: nodeTtlMs, declare }
    )
    if (!alive) {
      await beginAnew(context)
      return false
    }
    if (asOfMs - context.beatenMs > nodeTtlMs) context.beatingSinceMs = asOfMs
    context.beatenMs = asOfMs
    context.peers = peers
    for (const node of declared) {
      log.warn(
        { node }, 'ledger: a node was declared dead; its sessions are over and their accounts are removed'
      )
      await context.options.audit.append('node.dead', 'system', node, {})
    }
    await sweepAll(context)
    return true
  } catch (thrown) {
    context.beatingSinceMs = clock.monotonicMs()
    complain(context, 'ledger: this node could not say that it is alive', thrown)
    return false
  }
}

/** Another node declared this one dead: nothing of the old boot counts any more. */
async function beginAnew(context: Context): Promise<void> {
  context.options.log.error(
    { node: context.options.node }, 'ledger: this node was declared dead; its sessions are cut'
  )
  cutAll(context, 'this node was declared dead')
  const boot = randomUUID()
  await register(context, boot)
  context.options.onBoot(boot)
  // Those that began meanwhile are on the books under the old boot.
  cutAll(context, 'this node was declared dead')
  await sweepAll(context)
}

async function sweepAll(context: Context): Promise<void> {
  const { store, log } = context.options
  for (;;) {
    const { accounts, more } = await store.sweep(context.limits.sweepBatch)
    if (accounts > 0) log.info({ accounts }, 'ledger: took over from a process that is gone')
    if (!more) break
  }
  try {
    await context.options.sessions.closeFenced()
  } catch (thrown) {
    // The next beat does it; the accounts are what matters.
    complain(context, 'ledger: the sessions of a process that is gone could not be closed', thrown)
  }
}

// While the store is away the first debt says so and the others wait with it; one that fails in any other way
// would fail for ever, and its account has a claim that lapses.
async function payDebts(context: Context): Promise<void> {
  for (const debt of [...context.debts]) {
    try {
      await debt()
    } catch (thrown) {
      if (asSallyportError(thrown).code === 'store-unavailable') throw thrown
      complain(context, 'ledger: something owed to the store could not be written', thrown)
    }
    context.debts.delete(debt)
  }
}

/** Leases of this node that were ended elsewhere: revoked, or expired by another node. */
async function askAfterLeases(context: Context): Promise<void> {
  const ended = await context.options.store.endedOf([...context.local.keys()])
  for (const { id, state } of ended) cutLease(context, id, endedError(state))
}

function endedError(state: EndedHold['state']): SallyportError {
  return state === 'expired'
    ? new SallyportError('session-expired', { detail: 'the lease expired' })
    : new SallyportError('lease-lost', { detail: `the lease was ${state}` })
}

/**
 * Ends what is expired, then takes what is due as long as there is room; `more` is told when there is again.
 */
async function work(context: Context, remover: Remover, more: () => void): Promise<void> {
  const { options: { store, clock }, limits } = context
  const { expired, due } = await store.pending()
  for (let hasMore = expired; hasMore;) {
    const ended = await store.expire(limits.sweepBatch)
    for (const { id, state } of ended) cutLease(context, id, endedError(state))
    hasMore = ended.length > 0
  }
  for (let hasMore = due || expired; hasMore;) {
    const limit = limits.inAll - remover.load
    if (limit <= 0) return
    const claimEndsMs = clock.monotonicMs() + limits.claimMs
    const { claimant } = context
    const tasks = await store.due({
      claimant, claimMs: limits.claimMs, limit, perTarget: limits.perTarget, room: remover.room()
    })
    for (const { act, claim } of tasks) {
      // Where one ends there is room for the next: a herd that expires together does not wait for the clock.
      void remover.start(act, { claim, claimant, claimEndsMs }).then(more)
    }
    hasMore = tasks.length > 0
  }
}

/** Cuts on this node's own clock; waits for nobody. */
function guard(context: Context, remover: Remover): void {
  const { options: { clock, log }, limits: { nodeTtlMs, nodeMarginMs } } = context
  const nowMs = clock.monotonicMs()
  // Alone, there is nobody who could have taken over: the sessions go on while the store is away (F13).
  if (context.peers > 0 && nowMs - context.beatenMs > nodeTtlMs - nodeMarginMs) {
    const sessions = cutAll(context, 'this node could not reach the store and others may take over')
    const line = 'ledger: this node is cut off from the store; its sessions are cut'
    if (sessions > 0) log.error({ sessions }, line)
  }
  for (const lease of context.local.values()) {
    if (lease.deadlineMs <= nowMs && !lease.asking) void timeIsUp(context, remover, lease)
  }
}

// The store is asked, since another node may have renewed the lease; its clock is not: by this node's
// monotonic clock the time is up, and a wall clock that was set back does not prolong anything (F19).
async function timeIsUp(context: Context, remover: Remover, lease: LocalLease): Promise<void> {
  const { options: { store, clock }, limits, claimant } = context
  lease.asking = true
  const claimEndsMs = clock.monotonicMs() + limits.claimMs
  const asked = store.end({
    holdId: lease.holdId, as: 'expired', actor: 'system', detail: {}, claimant,
    claimMs: limits.claimMs,
    ifExpiresBy: lease.expiresAt
  })
  try {
    const inTime = await waitAtMost(clock, asked, limits.expiryAskMs)
    if (!inTime) throw new SallyportError('store-unavailable')
    const { renewed, claim } = await asked
    if (renewed !== undefined) {
      lease.deadlineMs += renewed.expiresAt.getTime() - lease.expiresAt.getTime()
      lease.expiresAt = renewed.expiresAt
      lease.asking = false
      return
    }
    if (claim !== undefined) void remover.start('remove', { claim, claimant, claimEndsMs })
  } catch {
    asked.catch(() => {})
    // The session's release repeats what the store was not told.
  }
  cutLease(context, lease.holdId, endedError('expired'))
}

function cutAll(context: Context, detail: string): number {
  const ids = [...context.local.keys()]
  for (const id of ids) cutLease(context, id, new SallyportError('lease-lost', { detail }))
  return ids.length + context.options.sessions.cutAll(new SallyportError('lease-lost', { detail }))
}

function complain({ options: { log }, stopped }: Context, message: string, thrown: unknown): void {
  if (stopped) return
  const { code, detail, reference } = asSallyportError(thrown)
  log.warn({ code, detail, reference }, message)
}
