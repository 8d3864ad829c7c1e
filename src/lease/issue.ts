// Issuing: the intent is durable before the first byte goes to the target, the effect follows, its outcome
// counts only for the epoch that it was claimed with. Nothing is handed out unless the store has said
// `active`. A refusal is undone at once; a lost answer means "perhaps done"; whatever goes wrong here, the
// account is on the books with a claim that lapses, so that somebody will look.
import { randomUUID } from 'node:crypto'
import { sleep } from '../clock.ts'
import { SallyportError, asSallyportError } from '../errors.ts'
import type { HookResult } from '../jit/hook.ts'
import type { Injectable, Made, Minted } from '../jit/plugin.ts'
import { waitAtMost } from './context.ts'
import type { Context, IssueRequest } from './context.ts'
import { pack, unpack } from './keep.ts'
import { deadManGraceMs, hookWork, runHook } from './remove.ts'
import type { Remover } from './remove.ts'
import type { Audited, Claimant, Intent, Intended, Term } from './store-port.ts'

/** What was issued, before it becomes a lease that can be released. */
export interface Issued {
  request: IssueRequest
  holdId: string
  accountId: string
  accountName: string
  epoch: number
  inject: Injectable
  /** What the target drew, for the holder alone; undefined where all was minted here. */
  made?: Made
  term: Term
  /** Monotonic instant at which `term` was true at the latest. */
  asOfMs: number
}

/** An opening under way: what must be cleaned up when it does not come to its end. */
interface Opening {
  request: IssueRequest
  intent: Intent
  claimant: Claimant
  accountId: string
  epoch: number
  term: Term
  claimEndsMs: number
}

/**
 * @throws SallyportError: `store-unavailable`, `hook-failed`, `hook-timeout`, `account-conflict`,
 * `lease-lost` …
 */
export async function issue(context: Context, remover: Remover, request: IssueRequest): Promise<Issued> {
  const problems = requestProblems(request)
  if (problems.length > 0) throw new SallyportError('invalid', { detail: 'lease', problems })
  return request.kind === 'create' ? issueNew(
    context, remover, request
  ) : issueShared(context, remover, request)
}

function requestProblems({ ttlSeconds, maxTtlSeconds, kind, accountName }: IssueRequest): readonly string[] {
  const problems: string[] = []
  if (!Number.isSafeInteger(ttlSeconds) || ttlSeconds <= 0) {
    problems.push('ttlSeconds: must be a positive whole number')
  }
  if (!Number.isSafeInteger(maxTtlSeconds) || maxTtlSeconds < ttlSeconds) {
    problems.push('maxTtlSeconds: must be a whole number, not below ttlSeconds')
  }
  if (kind === 'enable' && accountName === undefined) {
    problems.push('accountName: enable-disable needs the account')
  }
  return problems
}

function intentOf(context: Context, request: IssueRequest, accountName: string): Intent {
  const { owner, actor, address, kind, target, credential, spec, ttlSeconds, maxTtlSeconds } = request
  const maxTtlMs = maxTtlSeconds * 1000
  return {
    claimant: context.claimant, accountId: randomUUID(), holdId: randomUUID(), kind, target, accountName,
    credential, spec: { ...spec, lifeSeconds: maxTtlSeconds }, leaseName: request.name ?? credential, owner,
    actor, address, ttlMs: ttlSeconds * 1000, maxTtlMs,
    deadManMs: deadManGraceMs(context.limits, kind, maxTtlMs), claimMs: context.limits.claimMs
  }
}

// ---- creation-deletion: a new account for each hold

async function issueNew(context: Context, remover: Remover, request: IssueRequest): Promise<Issued> {
  const { options: { hooks, mintName, clock }, limits } = context
  const minted = await hooks.mint(request.spec.plugin, request.form)
  for (let attempt = 0; attempt < limits.namesMax; attempt++) {
    const intent = intentOf(context, request, mintName(request, attempt))
    const claimEndsMs = clock.monotonicMs() + intent.claimMs
    const intended = await writeIntent(context, { ...intent, audited: intentEvent(intent) })
    if (intended.state === 'name-taken') continue
    if (intended.state === 'fenced') throw nodeFenced()
    const { claimant } = intent
    const { accountId, epoch, term } = intended
    return open(context, remover, { request, intent, claimant, accountId, epoch, term, claimEndsMs }, minted)
  }
  throw new SallyportError(
    'hook-failed', { detail: `no new account name was found in ${limits.namesMax} attempts` }
  )
}

// The event and the rows are durable together, before the target hears anything.
async function writeIntent(context: Context, intent: Intent): Promise<Intended> {
  try {
    return await context.options.store.intend(intent)
  } catch (thrown) {
    const { holdId, accountId, claimant } = intent
    context.debts.add(
      () => abandon(context, undefined, { accountId, epoch: 1, holdId, claimant }, 'the intent failed', true)
    )
    throw asSallyportError(thrown, 'store-unavailable')
  }
}

function intentEvent(intent: Intent): Audited {
  const {
    accountId, accountName, actor, target, credential, owner, holdId, kind, spec: { open: on, close: off }
  } = intent
  const detail = {
    account: accountName, target, credential, kind, lease: holdId, owner: `${owner.kind} ${owner.id}`,
    open: `${on.id} v${on.version}`, close: `${off.id} v${off.version}`
  }
  return { kind: 'account.intended', actor, subject: accountId, detail }
}

// ---- enable-disable: one account, many holds

async function issueShared(context: Context, remover: Remover, request: IssueRequest): Promise<Issued> {
  const { options: { store, hooks, clock }, limits } = context
  const intent = intentOf(context, request, request.accountName ?? '')
  const { claimant, holdId } = intent
  const giveUpMs = clock.monotonicMs() + limits.joinWaitMs
  const { kind, actor, subject, detail } = intentEvent(intent)
  const asked = context.options.audit.append(kind, actor, subject, detail)
  // It is awaited below, but not while the first answer of the store is.
  asked.catch(() => {})
  try {
    for (let round = 0; ; round++) {
      const asOfMs = clock.monotonicMs()
      const joined = await store.join(intent)
      await asked
      switch (joined.state) {
        case 'claimed': {
          const { accountId, epoch, term } = joined
          const claimEndsMs = asOfMs + intent.claimMs
          return await open(context, remover, {
            request, intent, claimant, accountId, epoch, term, claimEndsMs
          }, request.standing === undefined
            ? await hooks.mint(request.spec.plugin, request.form)
            : { inject: request.standing, variables: {} })
        }
        case 'joined': {
          const { accountId, epoch, term } = joined
          const inject = await keptSecret(context, joined.secret, request.standing)
          return { request, holdId, accountId, accountName: intent.accountName, epoch, inject, term, asOfMs }
        }
        case 'wait':
          if (clock.monotonicMs() > giveUpMs) {
            throw new SallyportError(
              'hook-timeout', { detail: 'the shared account is being switched on or off' }
            )
          }
          if (round === 0) request.tell(`waiting for account ${intent.accountName} on ${request.target}`)
          await sleep(
            clock, Math.min(limits.joinPollMs * 2 ** Math.min(round, 4), giveUpMs - clock.monotonicMs() + 1)
          )
          continue
        case 'withdrawn': throw new SallyportError(
          'lease-lost', { detail: 'the lease was ended while it waited' }
        )
        case 'name-taken':
          throw new SallyportError(
            'account-conflict', { detail: `${intent.accountName} is one that we made and removed` }
          )
        case 'fenced': throw nodeFenced()
      }
    }
  } catch (thrown) {
    // Nothing of this hold remains; where `open` cleaned up, this finds it ended.
    await endOrOwe(context, remover, holdId, claimant, asSallyportError(thrown).code)
    throw thrown
  }
}

async function keptSecret(
  { options: { secrets } }: Context, id: string | undefined, standing: Injectable | undefined
): Promise<Injectable> {
  if (id === undefined) {
    if (standing !== undefined) return standing
    throw new SallyportError('seal-broken', { detail: 'a shared account is on without a kept secret' })
  }
  return unpack(await secrets.open(id)).inject
}

function nodeFenced(): SallyportError {
  return new SallyportError(
    'store-unavailable', { detail: 'this node was declared dead and is registering anew' }
  )
}

// ---- the effect and its outcome

async function open(context: Context, remover: Remover, opening: Opening, minted: Minted): Promise<Issued> {
  const { request, intent, accountId, epoch, term, claimEndsMs } = opening
  const { accountName, kind } = intent
  request.tell(`${kind === 'create' ? 'making' : 'switching on'} account ${accountName} on ${request.target}`)
  const expiresAt = new Date(term.maxAt.getTime() + intent.deadManMs)
  const claim = { accountId, name: accountName, epoch, kind, spec: intent.spec }
  const work = hookWork(
    { claim, claimEndsMs, endsAt: term.maxAt }, 'open', expiresAt, minted, minted.inject
  )
  const result = await runHook(context, work)
  if (result.state !== 'done') throw await undo(context, remover, opening, result)
  return handOut(context, remover, opening, minted, result.made)
}

async function handOut(
  context: Context, remover: Remover, opening: Opening, minted: Minted, made: Made
): Promise<Issued> {
  const { options: { store, secrets, clock }, limits } = context
  const { request, intent, claimant, accountId, epoch } = opening
  const { holdId, kind, claimMs, accountName } = intent
  try {
    const shared = kind === 'enable'
    const fresh = shared && request.standing === undefined
    const secret = fresh ? await secrets.put(pack(minted)) : undefined
    const asOfMs = clock.monotonicMs()
    const terms = { claimMs, reassertMs: limits.lateCheckMs, secret }
    const settled = await store.settle(claimant, accountId, epoch, holdId, terms)
    if (settled.state === 'active') {
      return {
        request, holdId, accountId, accountName, epoch, inject: minted.inject, made, term: settled.term,
        asOfMs
      }
    }
    if (secret !== undefined) await secrets.forget(secret).catch(() => {})
    if (settled.state === 'fenced') {
      await store.late(accountId, 'system', 'the opening was overtaken')
    } else if (settled.claim !== undefined) {
      void remover.start('remove', { claim: settled.claim, claimant, claimEndsMs: asOfMs + claimMs })
    }
  } catch (thrown) {
    // On the target, but not on the books as active: it is given up as soon as the store answers.
    owe(context, remover, opening, 'the outcome could not be written', false)
    throw asSallyportError(thrown, 'store-unavailable')
  }
  throw new SallyportError(
    'lease-lost', { detail: 'the lease was ended or overtaken while its account was prepared' }
  )
}

/** Undoes what a failed hook may have left; returns what to throw. */
async function undo(
  context: Context, remover: Remover, opening: Opening, { state, code, failedStep, error }: HookResult
): Promise<SallyportError> {
  const { options: { store, clock, audit }, limits } = context
  const { intent, claimant, accountId, epoch } = opening
  const where = failedStep === undefined ? '' : `step "${failedStep}": `
  const failure = new SallyportError(code ?? 'hook-failed', { detail: `${where}${error ?? state}` })
  const asOfMs = clock.monotonicMs()
  try {
    const { claimMs, holdId, actor } = intent
    const claim = await store.fail(claimant, accountId, epoch, holdId, {
      claimMs, untouched: state === 'conflict', late: state === 'unknown', error: failure.message
    })
    await audit.append('account.failed', actor, accountId, {
      account: intent.accountName, target: intent.target, code: failure.code, reference: failure.reference,
      detail: failure.detail
    })
    if (claim !== undefined) {
      const undone = remover.start('remove', { claim, claimant, claimEndsMs: asOfMs + claimMs })
      // After a lost answer the target is slow or away: the person has waited long enough.
      if (state === 'refused') await waitAtMost(clock, undone, limits.undoWaitMs)
    } else if (state !== 'conflict') {
      await store.late(accountId, 'system', 'a failed opening was overtaken')
    }
  } catch {
    owe(context, remover, opening, failure.message, state === 'conflict')
  }
  return failure
}

// ---- what the store must still be told

type Abandoned = Pick<Intent, 'accountId' | 'holdId' | 'claimant'> & { epoch: number }

function owe(context: Context, remover: Remover, opening: Opening, why: string, untouched: boolean): void {
  const { accountId, epoch, claimant, intent: { holdId } } = opening
  context.debts.add(() => abandon(context, remover, { accountId, epoch, claimant, holdId }, why, untouched))
}

/**
 * Takes an opening back whose last word from the store is unknown: it may be anything from not written to
 * active.
 */
async function abandon(
  context: Context, remover: Remover | undefined, {
    accountId, epoch, holdId, claimant
  }: Abandoned, why: string,
  untouched: boolean
): Promise<void> {
  const { options: { store, clock }, limits: { claimMs } } = context
  const claimEndsMs = clock.monotonicMs() + claimMs
  const claim = await store.fail(
    claimant, accountId, epoch, holdId, { claimMs, untouched, late: false, error: why }
  )
  const ended = claim === undefined
    ? await store.end(
      { holdId, as: 'failed', actor: 'system', detail: { why }, claimant, claimMs }
    )
    : undefined
  const last = claim ?? ended?.claim
  if (last !== undefined && remover !== undefined) {
    void remover.start('remove', { claim: last, claimant, claimEndsMs })
  }
}

async function endOrOwe(
  context: Context, remover: Remover, holdId: string, claimant: Claimant, why: string
): Promise<void> {
  const { options: { store, clock }, limits: { claimMs } } = context
  const end = async (): Promise<void> => {
    const claimEndsMs = clock.monotonicMs() + claimMs
    const { claim } = await store.end({
      holdId, as: 'failed', actor: 'system', detail: { why }, claimant, claimMs
    })
    if (claim !== undefined) void remover.start('remove', { claim, claimant, claimEndsMs })
  }
  try {
    await end()
  } catch {
    context.debts.add(end)
  }
}
