// Runs hooks: one plugin action against one target, within its limits, judged by looking. The ledger says
// what it wants; the answer says what is known afterwards, never more: `done` only when a look at the target
// showed it, `unknown` when the answer was lost and the look did not settle it. Removals are always judged
// over a fresh connection. No secret passes through here into a message: every text is redacted before it
// leaves.
import type { Clock } from '../clock.ts'
import { SallyportError, asSallyportError } from '../errors.ts'
import type { ErrorCode } from '../errors.ts'
import type {
  Access, AccountRef, Action, HookContext, Injectable, Made, Outcome, Owned, Plugin, Probe, Residue,
  TargetAddress, Variables, Verified
} from './plugin.ts'
import { createRedactor, secretsOf } from './redact.ts'
import type { Redactor } from './redact.ts'
import type { Shelf } from './shelf.ts'
import { TargetQueue } from './target-queue.ts'
import type { QueueLimits, TargetHealth } from './target-queue.ts'
import type { Template } from './template.ts'

export interface HookLimits extends QueueLimits {
  connectMs: number
  statementMs: number
  /** A whole action, its waiting for the queue excluded; the ledger's claim must outlast it. */
  actionMs: number
  /** A look at the target. */
  verifyMs: number
  /** After its limit an action is told to stop; how long it may take to obey before it is left alone. */
  graceMs: number
}

export const hookLimits: HookLimits = {
  connectMs: 5000,
  statementMs: 10_000,
  actionMs: 30_000,
  verifyMs: 10_000,
  graceMs: 1000,
  parallel: 8,
  waitingMax: 20_000,
  failuresMax: 3,
  pauseMs: 1000,
  // A target that came back is noticed within this time and one connection limit (R3: 10 s).
  pauseMaxMs: 4000
}

export interface HookJob {
  action: Action
  pluginId: string
  /** As pinned when the session opened. */
  template: Template
  account: AccountRef
  access: Access
  /** The credential's values, `expires_at`, and what `mint` gave. `username` is filled in here. */
  variables: Variables
  /** What the session will present: known here only to keep it out of messages. */
  inject?: Injectable | undefined
  /**
   * Monotonic instant (of the same clock) at which the ledger's claim lapses; without one, the action's
   * limit.
   */
  claimEndsMs?: number | undefined
  signal?: AbortSignal | undefined
}

export interface HookResult {
  /**
   * done: a look showed the wanted state. conflict: the account is not ours, nothing was touched. refused:
   * definitely not done, perhaps in part. unknown: it may have happened, now or until the claim lapses.
   */
  state: 'done' | 'conflict' | 'refused' | 'unknown'
  changed: boolean
  /** For the client and the audit; undefined when done. */
  code?: ErrorCode | undefined
  failedStep?: string | undefined
  error?: string | undefined
  /** Trying again as it is may succeed. */
  retryable: boolean
  residue: readonly Residue[]
  /** How the account stood when it was last looked at; absent when nobody could look. */
  seen?: Verified | undefined
  /** It exists but cannot log in and has no session: harmless until it can be removed. */
  quarantined: boolean
  /** What the service drew; only with `done`, and in no message. */
  made?: Made
  tookMs: number
}

export interface Hooks {
  /** Never throws. */
  run(job: HookJob): Promise<HookResult>
  /** Looks at the target. @throws SallyportError when it cannot */
  verify(job: HookJob): Promise<Verified>
  probe(pluginId: string, access: Access, variables?: Variables): Promise<Probe>
  listOwned(pluginId: string, access: Access): Promise<readonly Owned[]>
  /** Targets with something to say: busy, waiting or failing. For metrics and `doctor`. */
  health(): readonly TargetHealth[]
  close(): void
}

export interface HookOptions {
  shelf: Shelf
  clock: Clock
  limits?: Partial<HookLimits> | undefined
  /** One line for the operator, redacted. */
  log(line: string): void
  /** A target that could not be reached answers again: its waiting removals may be tried now. */
  onRecovered?: ((target: string) => void) | undefined
}

interface LimitedContext extends HookContext {
  stop(): void
}

/** What is known of an action, before it is told to others. */
type Judged = Omit<HookResult, 'tookMs' | 'quarantined'>

export function createHooks(options: HookOptions): Hooks {
  return new HookRunner(options)
}

/** Whether what was seen is what the action wanted. */
export function isSettled(action: Action, template: Template, seen: Verified): boolean {
  switch (action) {
    case 'create': return seen.exists && seen.ours && seen.enabled
    case 'enable': return seen.exists && seen.enabled
    case 'delete': return !seen.exists && seen.sessions === 0
    case 'disable': {
      const quiet = template.proof === 'privileges' || seen.sessions === 0
      return !seen.exists || (!seen.enabled && quiet)
    }
  }
}

class HookRunner implements Hooks {
  readonly #options: HookOptions
  readonly #limits: HookLimits
  readonly #queues = new Map<string, TargetQueue>()

  constructor(options: HookOptions) {
    this.#options = options
    this.#limits = { ...hookLimits, ...options.limits }
  }

  async run(job: HookJob): Promise<HookResult> {
    const startedMs = this.#options.clock.monotonicMs()
    const redact = redactorOf(job)
    let result: Judged
    try {
      const plugin = this.#options.shelf.plugin(job.pluginId)
      const ticket = { account: job.account.name, opening: isOpening(job.action), signal: job.signal }
      result = await this.#queue(plugin, job.access.target).run(ticket, () => this.#act(plugin, job, redact))
    } catch (error) {
      // Nothing was sent: the login failed, the queue refused, or the template could not be rendered.
      const known = asSallyportError(error)
      const retryable = known.code !== 'invalid' && known.code !== 'not-found'
      result = {
        state: 'refused', changed: false, code: known.code, error: known.detail, retryable, residue: []
      }
    }
    const seen = result.seen
    const quarantined = seen !== undefined && seen.exists && !seen.enabled && seen.sessions === 0
    const tookMs = this.#options.clock.monotonicMs() - startedMs
    const error = result.error === undefined ? undefined : redact(result.error)
    const hide = redactorOf({ ...job, variables: { ...job.variables, ...result.made } })
    const residue = result.residue.map(one => ({ ...one, name: hide(one.name) }))
    return { ...result, error, residue, quarantined, tookMs }
  }

  async verify(job: HookJob): Promise<Verified> {
    const plugin = this.#options.shelf.plugin(job.pluginId)
    const redact = redactorOf(job)
    const ticket = { account: job.account.name, opening: isOpening(job.action), signal: job.signal }
    return await this.#redacted(
      redact, () => this.#queue(plugin, job.access.target).run(ticket, () => this.#look(plugin, job, redact))
    )
  }

  async probe(pluginId: string, access: Access, variables?: Variables): Promise<Probe> {
    const plugin = this.#options.shelf.plugin(pluginId)
    return await this.#aside(plugin, access, context => plugin.probe(access, context, variables))
  }

  async listOwned(pluginId: string, access: Access): Promise<readonly Owned[]> {
    const plugin = this.#options.shelf.plugin(pluginId)
    return await this.#aside(plugin, access, context => plugin.listOwned(access, context))
  }

  health(): readonly TargetHealth[] {
    return [...this.#queues.values()].map(queue => queue.health())
  }

  close(): void {
    for (const queue of this.#queues.values()) queue.close()
  }

  /** One action in its turn: look where the plugin does not fence, run, look again. */
  async #act(plugin: Plugin, job: HookJob, redact: Redactor): Promise<Judged> {
    let before: Verified | undefined
    if (!plugin.fences) {
      before = await this.#look(plugin, job, redact)
      const foreign = before.exists && !before.ours && job.account.kind === 'create'
      if (foreign) return conflict(`an account ${job.account.name} exists and is not ours`, before)
      if (!isOpening(job.action) && isSettled(job.action, job.template, before)) {
        return { state: 'done', changed: false, retryable: false, residue: before.residue, seen: before }
      }
    }
    const variables = { ...job.variables, username: job.account.name }
    const limitMs = Math.min(
      this.#limits.actionMs, (job.claimEndsMs ?? Infinity) - this.#options.clock.monotonicMs()
    )
    if (limitMs <= 0) {
      throw new SallyportError('hook-timeout', { detail: 'the claim lapsed before the action began' })
    }
    const outcome = await this.#limited(limitMs, redact, job.signal, context =>
      plugin.run(job.access, job.template, job.account, variables, { ...context, before }))
    return await this.#judge(plugin, job, redact, outcome)
  }

  async #judge(plugin: Plugin, job: HookJob, redact: Redactor, outcome: Outcome): Promise<Judged> {
    if (outcome.state === 'conflict') return conflict(outcome.reason)
    const residue = outcome.state === 'unknown' ? [] : outcome.residue
    // An opening that was refused rolled back or will be removed: the person waits, so nobody looks now.
    const look = outcome.state !== 'refused' || !isOpening(job.action)
    const early = outcome.state === 'done' && isOpening(job.action) ? outcome.seen : undefined
    let seen: Verified | undefined
    let blind = ''
    try {
      seen = early ?? (look ? await this.#look(plugin, job, redact) : undefined)
    } catch (error) {
      blind = asSallyportError(error).detail ?? 'no answer'
    }
    const settled = seen !== undefined && isSettled(job.action, job.template, seen)
    const all = withoutRepeats([...residue, ...seen?.residue ?? []])
    // After a lost answer, only our own epoch in the marker shows that it was this very action that took
    // effect.
    const proven = settled && (
      outcome.state !== 'unknown' || !isOpening(job.action) || seen?.epoch === job.account.epoch
    )
    if (proven && outcome.state !== 'refused') {
      const changed = outcome.state === 'unknown' || outcome.changed
      const made = outcome.state === 'done' ? outcome.made : undefined
      return { state: 'done', changed, retryable: false, residue: all, seen, made }
    }
    if (outcome.state === 'refused') {
      if (settled && !isOpening(job.action)) {
        return { state: 'done', changed: true, retryable: false, residue: all, seen }
      }
      const { failedStep, error, retryable } = outcome
      const known = { code: 'hook-failed', failedStep, error, retryable, residue: all, seen } as const
      return { state: 'refused', changed: false, ...known }
    }
    if (outcome.state === 'unknown') {
      const { failedStep, error } = outcome
      const known = { code: 'hook-timeout', failedStep, error, retryable: true, residue: all, seen } as const
      return { state: 'unknown', changed: true, ...known }
    }
    const state = seen === undefined ? 'unknown' : 'refused'
    const found = seen === undefined ? `nobody could look: ${blind}` : `the look says ${described(seen)}`
    const known = { code: 'hook-failed', failedStep: 'verify', retryable: true, residue: all, seen } as const
    return { state, changed: true, ...known, error: `done, but ${found}` }
  }

  async #look(plugin: Plugin, job: HookJob, redact: Redactor): Promise<Verified> {
    const context = this.#context(this.#limits.verifyMs, redact, job.signal)
    const pinned = { template: job.template, variables: job.variables }
    try {
      return await this.#raced(plugin.verify(job.access, job.account, context, pinned), context.signal)
    } finally {
      context.stop()
    }
  }

  async #aside<T>(plugin: Plugin, access: Access, act: (context: HookContext) => Promise<T>): Promise<T> {
    const redact = createRedactor(secretsOf({}, access.secret))
    const queue = this.#queue(plugin, access.target)
    return await this.#redacted(redact, () => queue.run({ account: '', opening: true }, async () => {
      const context = this.#context(this.#limits.actionMs, redact, undefined)
      try {
        return await this.#raced(act(context), context.signal)
      } finally {
        context.stop()
      }
    }))
  }

  /** Runs a plugin within a limit; one that does not come back leaves its outcome unknown. */
  async #limited(
    limitMs: number, redact: Redactor, signal: AbortSignal | undefined,
    act: (context: HookContext) => Promise<Outcome>
  ): Promise<Outcome> {
    const context = this.#context(limitMs, redact, signal)
    try {
      return await this.#raced(act(context), context.signal)
    } catch (error) {
      const known = asSallyportError(error)
      if (!['internal', 'hook-timeout'].includes(known.code)) throw known
      return { state: 'unknown', failedStep: 'run', error: known.detail ?? known.code }
    } finally {
      context.stop()
    }
  }

  #context(limitMs: number, redact: Redactor, signal: AbortSignal | undefined): LimitedContext {
    const { clock, log } = this.#options
    const endsMs = clock.monotonicMs() + limitMs
    const limit = new AbortController()
    const reason = new SallyportError(
      'hook-timeout', { detail: `not finished after ${Math.round(limitMs)} ms` }
    )
    const stop = clock.after(limitMs, () => limit.abort(reason))
    return {
      signal: signal === undefined ? limit.signal : AbortSignal.any([signal, limit.signal]),
      connectTimeoutMs: this.#limits.connectMs,
      statementTimeoutMs: this.#limits.statementMs,
      remainingMs: () => endsMs - clock.monotonicMs(),
      now: () => clock.now(),
      log: line => log(redact(line)),
      stop
    }
  }

  /** The promise, or the signal's reason once it was aborted and the grace is over. */
  async #raced<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
    let leave = (): void => undefined
    const left = new Promise<never>((_resolve, reject) => {
      const giveUp = (): void => {
        leave = this.#options.clock.after(
          this.#limits.graceMs, () => reject(asSallyportError(signal.reason, 'hook-timeout'))
        )
      }
      if (signal.aborted) giveUp()
      else signal.addEventListener('abort', giveUp, { once: true })
    })
    try {
      return await Promise.race([promise, left])
    } finally {
      leave()
    }
  }

  async #redacted<T>(redact: Redactor, act: () => Promise<T>): Promise<T> {
    try {
      return await act()
    } catch (error) {
      const known = asSallyportError(error)
      throw new SallyportError(
        known.code, { detail: redact(known.detail ?? known.code), problems: known.problems.map(redact) }
      )
    }
  }

  #queue(plugin: Plugin, target: TargetAddress): TargetQueue {
    // An edited address is another door: what failed at the old one says nothing about it.
    const key = `${target.name} ${target.host} ${target.port}`
    const known = this.#queues.get(key)
    if (known !== undefined) return known
    for (const [other, queue] of this.#queues) if (queue.idle) this.#queues.delete(other)
    const made = new TargetQueue(target.name, this.#limits, this.#options.clock, {
      knock: () => plugin.knock(target, this.#limits.connectMs),
      onRecovered: () => this.#options.onRecovered?.(target.name)
    })
    this.#queues.set(key, made)
    return made
  }
}

function redactorOf({ variables, access, inject }: HookJob): Redactor {
  return createRedactor(secretsOf(variables, access.secret, ...inject === undefined ? [] : [inject]))
}

function isOpening(action: Action): boolean {
  return action === 'create' || action === 'enable'
}

/** What the plugin listed, the look may have met again. */
function withoutRepeats(residue: readonly Residue[]): Residue[] {
  return [...new Map(residue.map(one => [JSON.stringify(one), one])).values()]
}

function conflict(reason: string, seen?: Verified): Judged {
  const known = { code: 'account-conflict', error: reason, retryable: false, residue: [], seen } as const
  return { state: 'conflict', changed: false, ...known }
}

function described({ exists, enabled, ours, sessions, endsAt }: Verified): string {
  if (!exists) return 'it does not exist'
  if (endsAt !== undefined) return `it cannot be taken away and ends by itself at ${endsAt.toISOString()}`
  const login = enabled ? 'can' : 'cannot'
  return `it exists, ${login} log in, is ${ours ? '' : 'not '}ours and has ${sessions} sessions`
}
