// Removal: the closing hook, the look, the receipt, and what is next. The same code serves the end of a
// session, the worklist, recovery and the looks after a takeover; whoever comes holds a claim on (account,
// epoch), and what was found counts only as long as the claim does. A removal that fails comes again, for
// ever.
import { SallyportError, asSallyportError } from '../errors.ts'
import type { HookResult } from '../jit/hook.ts'
import type { Injectable, Minted, Variables } from '../jit/plugin.ts'
import { backoffMs } from './backoff.ts'
import type { Context, Held } from './context.ts'
import { unpack } from './keep.ts'
import { createPace } from './pace.ts'
import type { AccountSpec, HookWork } from './ports.ts'
import { bounded, draftReceipts, judge } from './receipt.ts'
import type { ReceiptState, Verdict } from './receipt.ts'
import type { Claim, RemovalResult, Task } from './store-port.ts'

export interface Remover {
  /**
   * Begins what a claim gives the right to; resolves when it is through, one way or the other. Never throws.
   */
  start(act: Task['act'], held: Held): Promise<void>
  /** The removal that this node is at for an account, if any. */
  running(accountId: string): Promise<void> | undefined
  /** How many may be begun now, for each target where some are running or were a moment ago. */
  room(): Readonly<Record<string, number>>
  /** How many are running. */
  readonly load: number
  /** Resolves when none is running. */
  idle(): Promise<void>
}

export function createRemover(context: Context): Remover {
  const running = new Map<string, Promise<void>>()
  const pace = createPace(context)

  const track = async (target: string, work: Promise<void>): Promise<void> => {
    pace.began(target)
    try {
      await work
    } catch (thrown) {
      // The claim lapses and the account is taken up again.
      const { code, detail, reference } = asSallyportError(thrown)
      context.options.log.error(
        { code, detail, reference, target }, 'ledger: a removal was not brought to its end'
      )
    } finally {
      pace.ended(target)
    }
  }

  return {
    start(act, held) {
      const { accountId, target } = held.claim
      const work = track(target, act === 'assert' ? assertOn(context, held) : remove(context, act, held))
      running.set(accountId, work)
      return work.finally(() => {
        if (running.get(accountId) === work) running.delete(accountId)
      })
    },
    running: accountId => running.get(accountId),
    room: () => pace.room(),
    get load() { return pace.load },
    async idle() {
      while (running.size > 0) await Promise.all(running.values())
    }
  }
}

/** What a hook must know of a claim. */
export interface Claimed {
  claim: Pick<Claim, 'spec' | 'accountId' | 'name' | 'epoch' | 'kind'>
  claimEndsMs: number
  /** End of the longest lifetime of the account. */
  endsAt?: Date | undefined
}

/** The work of one hook on an account. `minted` adds what the target needs to know of a secret. */
export function hookWork(
  {
    claim: { spec, accountId, name, epoch, kind }, claimEndsMs, endsAt
  }: Claimed, action: 'open' | 'close', expiresAt: Date,
  minted?: Minted, own?: Injectable
): HookWork {
  return {
    spec, template: spec[action], account: {
      name, accountId, epoch, kind
    }, claimEndsMs, own, inject: minted?.inject,
    variables: variablesOf(spec, { accountId, name, epoch }, { expiresAt, endsAt }, minted)
  }
}

// What is ours goes last: a credential cannot pass off a variable of its own as the account's name or
// verifier.
function variablesOf(
  { variables }: AccountSpec, { accountId, name, epoch }: { accountId: string, name: string, epoch: number },
  { expiresAt, endsAt }: { expiresAt: Date, endsAt: Date | undefined }, minted: Minted | undefined
): Variables {
  return {
    ...variables, ...minted?.variables,
    username: name, account_id: accountId, lease: accountId, epoch, expires_at: expiresAt.toISOString(),
    ends_at: endsAt?.toISOString()
  }
}

async function remove(context: Context, act: Task['act'], held: Held): Promise<void> {
  const { options: { clock } } = context
  const started = clock.monotonicMs()
  const { claim } = held
  const endsAt = endOf(claim)
  const work = hookWork({ ...held, endsAt }, 'close', clock.now(), undefined, await ownSecret(context, claim))
  const looked = act === 'look' && claim.kind === 'create' ? await lookGone(
    context, work, started
  ) : undefined
  const verdict = looked ?? judge(claim, await runHook(context, work))
  // A disabling whose answer was lost may land after the next session has switched the account on.
  const lost = verdict.state === 'unreachable' && claim.kind === 'enable'
  await conclude(context, held, verdict, {
    looked: act === 'look' && (looked !== undefined || claim.kind === 'enable'),
    verifyLeft: lost ? Math.max(1, claim.verifyLeft) : claim.verifyLeft
  })
}

/** When an account of a hook that hands out what nobody can take back is over, whoever still has it. */
function endOf({ createdAt, spec: { lifeSeconds } }: Claim): Date | undefined {
  return lifeSeconds === undefined ? undefined : new Date(createdAt.getTime() + lifeSeconds * 1000)
}

/** Undefined when the account is there after all, or nobody could look: then it is removed once more. */
async function lookGone(context: Context, work: HookWork, started: number): Promise<Verdict | undefined> {
  try {
    const seen = await context.options.hooks.verify(work)
    if (seen.exists || seen.sessions > 0) return undefined
    const tookMs = context.options.clock.monotonicMs() - started
    return { state: 'gone', error: undefined, residue: bounded(seen.residue), seen, tookMs }
  } catch {
    return undefined
  }
}

/** Runs a hook that must not throw, and takes one that does for an answer that was lost. */
export async function runHook(context: Context, work: HookWork): Promise<HookResult> {
  const started = context.options.clock.monotonicMs()
  try {
    return await context.options.hooks.run(work)
  } catch (thrown) {
    const { code, detail } = asSallyportError(thrown)
    const tookMs = context.options.clock.monotonicMs() - started
    return {
      state: 'unknown', changed: true, code, error: detail, retryable: true, residue: [], quarantined: false,
      tookMs
    }
  }
}

// Only a credential that authenticates its own hooks needs it (J7).
async function ownSecret(
  context: Context, { kind, spec, credential, secret }: Claim
): Promise<Injectable | undefined> {
  if (kind !== 'enable' || secret === undefined || spec.authenticationCredential !== credential) {
    return undefined
  }
  return unpack(await context.options.secrets.open(secret)).inject
}

async function conclude(
  context: Context, held: Held, verdict: Verdict, { looked, verifyLeft }: {
    looked: boolean, verifyLeft: number
  }
): Promise<void> {
  const { limits, options: { store, signer, clock, node, secrets } } = context
  const { claim, claimant } = held
  const left = looked && verdict.state === 'gone' ? verifyLeft - 1 : verifyLeft
  const calm = verdict.state === 'gone' || verdict.state === 'expires'
  const attempts = calm ? claim.attempts : claim.attempts + 1
  const { state, receiptState } = next(verdict, left)
  // A retry that found what was found before, and a look that leaves another look to do, say nothing new.
  const news = calm ? state === 'proved-gone' || !looked : state !== claim.state
  const receipt = news
    ? draftReceipts(
      claim, verdict, { state: receiptState, node, attempt: attempts, verifiedAt: clock.now() }, signer
    )
    : undefined
  const outcome = await store.finish(claimant, claim, {
    state, attempts, verifyLeft: Math.max(0, left), error: verdict.error,
    nextInMs: verdict.state === 'expires'
      ? endsInMs(context, verdict.seen?.endsAt)
      : nextInMs(context, state, attempts),
    receipts: receipt?.drafts ?? [],
    event: {
      kind: state === 'removing' ? receiptState : state,
      detail: {
        epoch: claim.epoch, tookMs: Math.round(verdict.tookMs), residue: verdict.residue.length,
        ...verdict.error === undefined ? {} : { error: verdict.error, attempt: attempts },
        ...receipt === undefined ? {} : { receipt: receipt.drafts[0]?.id }
      }
    },
    audited: receipt === undefined ? undefined : {
      kind: 'account.receipt',
      detail: {
        receipt: receipt.drafts[0]?.id, sha256: receipt.sha256, state: receiptState, target: claim.target,
        account: claim.name
      }
    }
  })
  if (outcome === 'fenced') {
    // Somebody took over while we were at it. A deletion that lands late deletes nothing else; a switch-off
    // may have hit the next session, whose account is asserted at once.
    if (claim.kind === 'enable') await store.late(claim.accountId, 'system', 'a switch-off was overtaken')
    return
  }
  if (state === 'proved-gone' && claim.secret !== undefined) await quietly(secrets.forget(claim.secret))
  if (claim.state === 'unreachable' && verdict.state !== 'unreachable') {
    await quietly(store.wake(claim.target, limits.wakeSpreadMs))
  }
  if (!calm && news) await alarm(context, claim, receiptState, verdict.error ?? '')
}

function next(verdict: Verdict, verifyLeft: number): {
  state: RemovalResult['state'], receiptState: ReceiptState
} {
  switch (verdict.state) {
    case 'gone':
      return verifyLeft > 0
        ? { state: 'removing', receiptState: 'removed' }
        : { state: 'proved-gone', receiptState: 'proved-gone' }
    case 'expires': return { state: 'removing', receiptState: 'expires' }
    case 'stuck': return { state: 'stuck', receiptState: 'failed' }
    case 'quarantined': return { state: 'quarantined', receiptState: 'quarantined' }
    case 'unreachable': return { state: 'unreachable', receiptState: 'unreachable' }
  }
}

function nextInMs({ limits }: Context, state: RemovalResult['state'], attempts: number): number {
  if (state === 'proved-gone') return limits.claimMs
  return state === 'removing' ? limits.lateCheckMs : backoffMs(attempts, limits.retry)
}

/** A moment after its end: then a look finds it gone. Targets' clocks and ours may differ a little. */
function endsInMs({ options: { clock }, limits }: Context, endsAt: Date | undefined): number {
  return limits.tickMs + Math.max(0, (endsAt ?? clock.now()).getTime() - clock.now().getTime())
}

// At the first failure (J16), and whenever it fails in another way.
async function alarm(
  { options: { log, audit } }: Context, claim: Claim, state: string, error: string
): Promise<void> {
  const detail = { target: claim.target, account: claim.name, state, error }
  log.error(
    { ...detail, accountId: claim.accountId }, 'ledger: an account could not be removed; it is tried for ever'
  )
  await audit.append('account.alarm', 'system', claim.accountId, detail)
}

/**
 * A shared account that is wanted on: after a takeover a late switch-off may have landed, or the dead-man's
 * switch must be moved for somebody who joined. Looks, and switches it on again with the secret that its
 * sessions were given.
 */
async function assertOn(context: Context, held: Held): Promise<void> {
  const { limits, options: { store } } = context
  const { claim, claimant } = held
  let error: string | undefined
  let deadManAt: string | undefined
  try {
    deadManAt = await switchOnAgain(context, held)
  } catch (thrown) {
    error = asSallyportError(thrown).message
  }
  const againInMs = error === undefined ? undefined : backoffMs(claim.attempts + 1, limits.retry)
  const outcome = await store.asserted(claimant, claim, { againInMs, error, deadManAt })
  // The account was switched off, or taken over, while we switched it on: whoever did it must look again.
  if (outcome === 'fenced') await store.late(claim.accountId, 'system', 'a re-assertion was overtaken')
}

/** The dead-man's switch, if it was moved; undefined when there was nothing to do. */
async function switchOnAgain(context: Context, held: Held): Promise<string | undefined> {
  const { options: { hooks, secrets, log, clock } } = context
  const { claim } = held
  const minted = claim.secret === undefined ? undefined : unpack(await secrets.open(claim.secret))
  const wanted = claim.wantedUntil ?? clock.now()
  const until = deadManOf(context, 'enable', wanted, wanted.getTime() - clock.now().getTime())
  const work = hookWork(held, 'open', until, minted, minted?.inject)
  const seen = await hooks.verify(work)
  const on = seen.exists && seen.enabled
  if (on && Date.parse(claim.spec.deadManAt ?? '') >= wanted.getTime()) return undefined
  if (!on) {
    const fields = { target: claim.target, account: claim.name }
    log.warn(fields, 'ledger: a shared account was off while sessions use it; it is switched on again')
  }
  const { state, error, code } = await runHook(context, work)
  if (state === 'done') return until.toISOString()
  throw new SallyportError(code ?? 'hook-failed', { detail: error })
}

/**
 * When the target itself is to end an account that we could not: a while after the end of its lifetime. A
 * shared account gets a second lifetime on top, so that those who join do not move it every time.
 */
export function deadManOf({ limits }: Context, kind: Claim['kind'], maxAt: Date, lifeMs: number): Date {
  return new Date(maxAt.getTime() + deadManGraceMs(limits, kind, lifeMs))
}

export function deadManGraceMs(
  { deadManMs }: Context['limits'], kind: Claim['kind'], lifeMs: number
): number {
  return kind === 'create' ? deadManMs : deadManMs + Math.max(0, lifeMs)
}

async function quietly(work: Promise<unknown>): Promise<void> {
  try {
    await work
  } catch {
    // Worth a try, not worth failing a removal that is on record already.
  }
}

/** What an opening throws when its claim on the account was lost. */
export function fenced(detail: string): SallyportError {
  return new SallyportError('lease-lost', { detail })
}
