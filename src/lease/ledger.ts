// The ledger: every account that Sallyport makes or switches on, from the intent to the proof that it is
// gone. The account is the saga, a lease is a hold on it, and the wanted state is derived from live holds,
// never counted: an account is wanted exactly while one exists. issue, release, renew and revoke are the four
// verbs; the janitor does the rest. What is written here survives this process; what was not written has not
// been sent.
import { SallyportError } from '../errors.ts'
import type { Injectable, Made, Verified } from '../jit/plugin.ts'
import { cutLease, waitAtMost } from './context.ts'
import type { Context, IssueRequest, LedgerOptions } from './context.ts'
import { issue } from './issue.ts'
import type { Issued } from './issue.ts'
import { createJanitor } from './janitor.ts'
import type { Janitor } from './janitor.ts'
import { ledgerLimits } from './limits.ts'
import { endsToday, renew } from './prolong.ts'
import type { From } from './prolong.ts'
import { createRemover, hookWork, runHook } from './remove.ts'
import type { Remover } from './remove.ts'
import { asked, shown } from './view.ts'
import type {
  Claim, Claimant, EndRequest, HistoryPage, Known, LeaseEventRow, LeaseFilter, LeaseRow, LeasesOf,
  LedgerGauges, Owner
} from './store-port.ts'

export interface Lease extends AsyncDisposable {
  readonly holdId: string
  readonly accountId: string
  readonly accountName: string
  readonly inject: Injectable
  /** What the target itself drew (an access key, a token): shown once, kept nowhere. */
  readonly made?: Made
  /** As issued; a renewal moves it in the store. */
  readonly expiresAt: Date
  /**
   * Sessions: aborts with `session-expired` or `lease-lost` when the lease has ended or this node was fenced.
   * Leases of people and applications outlive the process; theirs never aborts.
   */
  readonly signal: AbortSignal
  /** Gives the account back and waits a while for its removal, which goes on in any case. Never throws. */
  release(reason: string): Promise<void>
}

export interface Ledger {
  /**
   * Registers this node under a new boot, takes over from its previous one, begins. Throws
   * `store-unavailable`.
   */
  start(): Promise<void>
  /**
   * Stops; waits up to `waitMs` for removals that are running. Holds stay as they are: the next start takes
   * over.
   */
  stop(waitMs?: number): Promise<void>
  /**
   * Makes or switches on an account. Throws SallyportError: `invalid`, `store-unavailable`, `shutting-down`,
   * `hook-failed`, `hook-timeout`, `target-unreachable` and its kin, `account-conflict`, `lease-lost`.
   */
  issue(request: IssueRequest): Promise<Lease>
  list(filter: LeaseFilter): Promise<readonly LeaseRow[]>
  show(holdId: string): Promise<LeaseRow | undefined>
  history(holdId: string, page?: HistoryPage): Promise<readonly LeaseEventRow[]>
  /**
   * Adds to the current expiry (S5). `address`: where the actor sits, for the history. `latest`: a limit
   * beside the lease's own. Throws `invalid` with the reason, `not-found`.
   */
  renew(holdId: string, seconds: number, actor: string, address?: string, latest?: Date): Promise<LeaseRow>
  /** Ends a lease and removes its account now (S6). False when it had ended before. Throws `not-found`. */
  revoke(holdId: string, actor: string, address?: string): Promise<boolean>
  /** Ends every live lease of a target or a credential; resolves with their number once all are revoked. */
  revokeAll(where: LeasesOf, actor: string): Promise<number>
  /** Who holds live leases outside sessions, and on what. */
  holders(): Promise<readonly { owner: Owner, credential: string }[]>
  /** What the ledger knows of names found on a target; names that it never used are absent (F36). */
  known(target: string, names: readonly string[]): Promise<readonly Known[]>
  /** Those of these accounts that are not proved gone: one server may be declared under several names. */
  standing(accountIds: readonly string[]): Promise<readonly string[]>
  /**
   * Has an account removed again that was found on its target though nobody wants it. False when it is
   * unknown.
   */
  reap(accountId: string, actor: string): Promise<boolean>
  /** How the account of a lease stands on its target. Throws when nobody could look, and `not-found`. */
  look(holdId: string): Promise<Verified>
  /** What still needs this target or credential: one sentence each. */
  dependants(kind: 'target' | 'credential', name: string): Promise<readonly string[]>
  gauges(): Promise<LedgerGauges>
  /** A target that was away answers again: its accounts are removed now. Never throws. */
  recovered(target: string): Promise<void>
  /** One look at the worklist, now, beside the regular ones. Never throws. */
  pass(): Promise<void>
  /** Resolves when no removal is running on this node. */
  idle(): Promise<void>
}

// Revocations at once: each is two transactions and a hook, and the target's queue orders them anyway.
const revokingMax = 16
// A shutdown waits for removals that are running, as a release does.
const stopWaitMsDefault = 10_000

/** Puts the ledger together; nothing happens before `start`. */
export function createLedger(options: LedgerOptions): Ledger {
  const context: Context = {
    options, limits: { ...ledgerLimits, ...options.limits },
    claimant: { node: options.node, boot: options.boot },
    beatenMs: -Infinity, beatingSinceMs: -Infinity, peers: 0, stopped: false, local: new Map(),
    debts: new Set()
  }
  const remover = createRemover(context)
  const janitor = createJanitor(context, remover)
  const { store } = options
  return {
    start: () => janitor.start(),
    async stop(waitMs = stopWaitMsDefault) {
      context.stopped = true
      janitor.stop()
      await waitAtMost(options.clock, remover.idle(), waitMs)
    },
    async issue(request) {
      await standing(context, janitor)
      return leaseOf(context, remover, await issue(context, remover, request))
    },
    async list(filter) {
      const endOf = await endsToday(context)
      return (await store.list(asked(filter))).map(record => shown(record, endOf))
    },
    async show(holdId) {
      const record = await store.show(holdId)
      return record === undefined ? undefined : shown(record, await endsToday(context))
    },
    history: (holdId, page) => store.history(holdId, page),
    renew: (holdId, seconds, actor, address, latest) =>
      renew(context, holdId, seconds, actor, fromOf(address), latest),
    revoke: (holdId, actor, address) => revoke(context, remover, holdId, actor, fromOf(address)),
    holders: () => store.holders(),
    revokeAll: (where, actor) => revokeAll(context, remover, where, actor),
    known: (target, names) => store.known(target, names),
    standing: accountIds => store.standing(accountIds),
    async reap(accountId, actor) {
      await options.audit.append('account.reap', actor, accountId, {})
      const known = await store.late(accountId, actor, 'found on the target though nobody wants it')
      if (known) await janitor.pass()
      return known
    },
    look: holdId => look(context, holdId),
    dependants: (kind, name) => store.dependants(kind, name),
    gauges: () => store.gauges(),
    async recovered(target) {
      try {
        await store.wake(target, context.limits.wakeSpreadMs)
        await janitor.pass()
      } catch {
        // The worklist has them; they come a little later.
      }
    },
    pass: () => janitor.pass(),
    idle: () => remover.idle()
  }
}

// A process that stood still (or a node that was cut off) may have been declared dead meanwhile: it asks
// before it begins anything new.
async function standing(context: Context, janitor: Janitor): Promise<void> {
  const { options: { clock }, limits: { nodeTtlMs, nodeMarginMs } } = context
  if (context.stopped) throw new SallyportError('shutting-down')
  if (clock.monotonicMs() - context.beatenMs <= nodeTtlMs - nodeMarginMs) return
  if (await janitor.beat()) return
  throw new SallyportError('store-unavailable', { detail: 'this node could not confirm that it is alive' })
}

function leaseOf(context: Context, remover: Remover, issued: Issued): Lease {
  const { holdId, accountId, accountName, inject, made, term, request: { owner }, asOfMs } = issued
  const controller = new AbortController()
  if (owner.kind === 'session') {
    context.local.set(holdId, {
      holdId, accountId, owner, expiresAt: term.expiresAt, deadlineMs: asOfMs + term.leftMs, asking: false,
      controller
    })
  }
  let released: Promise<void> | undefined
  const release = (reason: string): Promise<void> => {
    released ??= giveBack(context, remover, issued, reason)
    return released
  }
  return {
    holdId, accountId, accountName, inject, made, expiresAt: term.expiresAt, signal: controller.signal,
    release,
    [Symbol.asyncDispose]: () => release('disposed')
  }
}

async function giveBack(context: Context, remover: Remover, issued: Issued, reason: string): Promise<void> {
  const { options: { clock }, limits: { releaseWaitMs } } = context
  const { holdId, accountId, request: { kind, actor } } = issued
  context.local.delete(holdId)
  const end = (): Promise<unknown> => endAndRemove(context, remover, {
    holdId, as: 'released', actor, detail: { reason }
  })
  try {
    await end()
  } catch {
    // F13: told again when the store is back. The account of a session is wanted by nobody else, so it goes
    // now.
    context.debts.add(async () => void await end())
    if (kind === 'create') await waitAtMost(clock, removeUnrecorded(context, issued), releaseWaitMs)
  }
  await waitAtMost(clock, remover.running(accountId) ?? Promise.resolve(), releaseWaitMs)
}

/**
 * The effect without the store: it only makes an account gone sooner that the books will have removed anyway.
 */
async function removeUnrecorded(context: Context, issued: Issued): Promise<void> {
  const { options: { clock }, limits: { claimMs } } = context
  const { accountId, accountName: name, epoch, request: { spec, kind } } = issued
  const claim = { accountId, name, epoch: epoch + 1, kind, spec }
  await runHook(
    context, hookWork({ claim, claimEndsMs: clock.monotonicMs() + claimMs, endsAt: issued.term.maxAt },
      'close', clock.now())
  )
}

type Ending = Omit<EndRequest, 'claimant' | 'claimMs' | 'ifExpiresBy'>

/** Ends a hold; begins the removal when it was the last one. Throws `store-unavailable`, `not-found`. */
async function endAndRemove(
  context: Context, remover: Remover, ending: Ending
): Promise<{ ended: boolean, accountId: string }> {
  const { options: { store, clock }, limits: { claimMs }, claimant } = context
  const claimEndsMs = clock.monotonicMs() + claimMs
  const { ended, claim, hold } = await store.end({ ...ending, claimant, claimMs })
  if (hold === undefined) throw new SallyportError('not-found', { detail: `lease ${ending.holdId}` })
  if (claim !== undefined) begin(remover, claim, claimant, claimEndsMs)
  return { ended, accountId: hold.accountId }
}

function begin(remover: Remover, claim: Claim, claimant: Claimant, claimEndsMs: number): void {
  void remover.start('remove', { claim, claimant, claimEndsMs })
}

function fromOf(address: string | undefined): From {
  return address === undefined ? {} : { address }
}

// The session is cut first, then the account is removed: a removal alone does not end what is logged in
// already.
async function revoke(
  context: Context, remover: Remover, holdId: string, actor: string, from: From
): Promise<boolean> {
  const { options: { clock }, limits: { releaseWaitMs } } = context
  const audited = { kind: 'lease.revoked', actor, subject: holdId, detail: { ...from } }
  const ending = { holdId, as: 'revoked', actor, detail: from, audited } as const
  const { ended, accountId } = await endAndRemove(context, remover, ending)
  if (!ended) return false
  cutLease(context, holdId, new SallyportError('lease-lost', { detail: `the lease was revoked by ${actor}` }))
  const removal = remover.running(accountId)
  if (removal !== undefined) await waitAtMost(clock, removal, releaseWaitMs)
  return true
}

async function look(context: Context, holdId: string): Promise<Verified> {
  const { options: { store, hooks, clock }, limits: { claimMs } } = context
  const account = await store.accountOf(holdId)
  if (account === undefined) throw new SallyportError('not-found', { detail: `lease ${holdId}` })
  const claimed = { claim: account, claimEndsMs: clock.monotonicMs() + claimMs }
  return hooks.verify(hookWork(claimed, 'close', clock.now()))
}

async function revokeAll(
  context: Context, remover: Remover, where: LeasesOf, actor: string
): Promise<number> {
  const ids = [...await context.options.store.liveHolds(where)]
  let revoked = 0
  const worker = async (): Promise<void> => {
    for (let id = ids.pop(); id !== undefined; id = ids.pop()) {
      if (await revoke(context, remover, id, actor, {})) revoked++
    }
  }
  await Promise.all(Array.from({ length: revokingMax }, worker))
  return revoked
}
