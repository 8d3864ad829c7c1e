// Runs hooks: one plugin action against one target, within its limits, judged by looking. The ledger says
// what it wants; the answer says what is known afterwards, never more: `done` only when a look at the target
// showed it, `unknown` when the answer was lost and the look did not settle it. Removals are always judged
// over a fresh connection. No secret passes through here into a message: every text is redacted before it
// leaves.
import type { Clock } from '../clock.ts'
import { SallyportError, asSallyportError } from '../errors.ts'
import type { HookJob, HookResult, Hooks } from './hook.ts'
import { conflict, isOpening, isSettled, judge, needsLook } from './judge.ts'
import type { Judged } from './judge.ts'
import { Keeper } from './kept.ts'
import type { KeepLimits } from './kept.ts'
import type {
  Access, HookContext, Outcome, Owned, Plugin, Probe, TargetAddress, Variables, Verified
} from './plugin.ts'
import { createPlaces } from './places.ts'
import { createRedactor, redacted, redactorOf, secretsOf } from './redact.ts'
import type { Redactor } from './redact.ts'
import type { Shelf } from './shelf.ts'
import { TargetQueue } from './target-queue.ts'
import type { QueueLimits, TargetHealth, Ticket } from './target-queue.ts'

export interface HookLimits extends QueueLimits, KeepLimits {
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
  togetherMax: 64,
  groupsMax: 4,
  // Longer than a visit takes on a busy machine: side by side groups are small, and dearer in all.
  groupAloneMs: 500,
  // Two proofs in three are spared where many come (1 ms: 12 in a group instead of 5; 5 ms: 16, but later).
  gatherMs: 1,
  busyMs: 250,
  // As many as run at once; a target counts its connections, and rights that it took back should end soon.
  keptMax: 8,
  keptIdleMs: 15_000,
  keptLifeMs: 60_000,
  keptUsesMax: 1000,
  failuresMax: 3,
  pauseMs: 1000,
  // A target that came back is noticed within this time and one connection limit (R3: 10 s).
  pauseMaxMs: 4000
}

/** Looks, for those of a group that nobody could see together; each is a connection. */
const looksAtOnceMax = 4

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

/** What belongs to one target's address: whose turn it is, and the connections that wait for theirs. */
interface Gate {
  queue: TargetQueue
  keeper: Keeper
}

/** A job of a group, with what is kept out of its messages. */
interface Companion {
  job: HookJob
  redact: Redactor
  /** May be told before the others of its group. */
  tell(judged: Judged): void
}

export function createHooks(options: HookOptions): Hooks {
  return new HookRunner(options)
}

class HookRunner implements Hooks {
  readonly #options: HookOptions
  readonly #limits: HookLimits
  readonly #gates = new Map<string, Gate>()
  /** Templates and logins, numbered as they come: what is not the very same does not go together. */
  readonly #numbers = new WeakMap<object, number>()
  #numbered = 0

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
      const gate = this.#gate(plugin, job.access.target)
      result = await this.#together(plugin, gate, job, redact)
        ?? await gate.queue.run(ticketOf(job), () => this.#act(plugin, gate, job, redact))
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
    const { queue } = this.#gate(plugin, job.access.target)
    return await redacted(
      redact, () => queue.run(ticketOf(job), () => this.#look(plugin, job, redact))
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
    return [...this.#gates.values()].map(({ queue }) => queue.health())
  }

  close(): void {
    for (const { queue, keeper } of this.#gates.values()) {
      queue.close()
      keeper.close()
    }
  }

  /** One action in its turn: look where the plugin does not fence, run, look again. */
  async #act(plugin: Plugin, { keeper }: Gate, job: HookJob, redact: Redactor): Promise<Judged> {
    let before: Verified | undefined
    if (!plugin.fences) {
      before = await this.#look(plugin, job, redact)
      const foreign = before.exists && !before.ours && job.account.kind === 'create'
      if (foreign) return conflict(`an account ${job.account.name} exists and is not ours`, before)
      if (!isOpening(job.action) && isSettled(job.action, job.template, before)) {
        return { state: 'done', changed: false, retryable: false, residue: before.residue, seen: before }
      }
    }
    const limitMs = this.#leftMs(job)
    if (limitMs <= 0) throw lapsed()
    const outcome = await this.#limited(limitMs, redact, job.signal, context =>
      plugin.run(job.access, job.template, job.account, valuesOf(job), { ...context, kept: keeper, before }))
    return await judge(job, outcome, () => this.#look(plugin, job, redact))
  }

  /**
   * The same in one visit with others of its kind, where the plugin can; undefined where it has to run by
   * itself.
   */
  async #together(
    plugin: Plugin, { queue, keeper }: Gate, job: HookJob, redact: Redactor
  ): Promise<Judged | undefined> {
    const { action, access, template, account, signal, claimEndsMs } = job
    const goes = plugin.fences && plugin.runTogether !== undefined && signal === undefined
      && (action === 'create' || action === 'delete') && account.kind === 'create'
    if (!goes) return undefined
    const group = `${plugin.id} ${action} ${this.#numberOf(template)} ${this.#numberOf(access)}`
    const ticket = { account: account.name, opening: isOpening(action) }
    if (this.#leftMs({ claimEndsMs }) <= 0) throw lapsed()
    const { promise: early, resolve: tell } = Promise.withResolvers<Judged>()
    const one = { job, redact, tell }
    return await Promise.race([
      early, queue.together(ticket, group, one, all => this.#actTogether(plugin, keeper, all))
    ])
  }

  async #actTogether(
    plugin: Plugin, keeper: Keeper, all: readonly Companion[]
  ): Promise<readonly (Judged | undefined)[]> {
    // Whose claim has lapsed while it waited hears so by itself.
    const here = all.filter(({ job }) => this.#leftMs(job) > 0)
    const [first] = here
    if (first === undefined) return all.map(() => undefined)
    const { access, template } = first.job
    const errands = here.map(({ job }) => ({ account: job.account, variables: valuesOf(job) }))
    const limitMs = Math.min(...here.map(({ job }) => this.#leftMs(job)))
    const redact: Redactor = text => here.reduce((said, each) => each.redact(said), text)
    const result = await redacted(redact, () => this.#limited(limitMs, redact, undefined,
      async context => await plugin.runTogether?.(access, template, errands, { ...context, kept: keeper })
        ?? []))
    const outcomes = Array.isArray(result) ? result : here.map(() => result)
    // Nothing more happens to them in this visit: the connection of the look is opened after all of it.
    const look = this.#lookTogether(plugin, here.filter((one, index) => {
      const outcome = outcomes[index]
      return outcome !== undefined && needsLook(one.job, outcome)
    }), redact)
    look.catch(() => {})
    const judged = new Map<Companion, Judged>()
    const endsMs = this.#options.clock.monotonicMs() + this.#limits.actionMs
    const places = createPlaces(looksAtOnceMax)
    await Promise.all(here.map(async (one, index) => {
      const outcome = outcomes[index]
      if (outcome === undefined) return
      const said = await judge(one.job, outcome, async () => (await look).get(one) ?? await places(() => {
        if (this.#leftMs(one.job) <= 0 || this.#options.clock.monotonicMs() >= endsMs) throw lapsed('look')
        return this.#look(plugin, one.job, redact)
      }))
      // A message may speak of any of them.
      const known = said.error === undefined ? said : { ...said, error: redact(said.error) }
      judged.set(one, known)
      one.tell(known)
    }))
    return all.map(one => judged.get(one))
  }

  /**
   * What one connection, opened now, shows of each; those that are missing are looked at by themselves.
   * @throws SallyportError when nothing could be seen
   */
  async #lookTogether(
    plugin: Plugin, those: readonly Companion[], redact: Redactor
  ): Promise<ReadonlyMap<Companion, Verified>> {
    const [first] = those
    const seen = new Map<Companion, Verified>()
    if (first === undefined || plugin.verifyTogether === undefined) return seen
    const { access, template } = first.job
    const errands = those.map(({ job }) => ({ account: job.account, variables: job.variables }))
    const { keeper } = this.#gate(plugin, access.target)
    const context = this.#context(this.#limits.verifyMs, redact, undefined, keeper)
    try {
      const looks = await this.#raced(
        plugin.verifyTogether(access, template, errands, context), context.signal)
      for (const [index, one] of those.entries()) {
        const look = looks[index]
        if (look !== undefined) seen.set(one, look)
      }
    } finally {
      context.stop()
    }
    return seen
  }

  #leftMs({ claimEndsMs = Infinity }: Pick<HookJob, 'claimEndsMs'>): number {
    return Math.min(this.#limits.actionMs, claimEndsMs - this.#options.clock.monotonicMs())
  }

  #numberOf(thing: object): number {
    const number = this.#numbers.get(thing) ?? ++this.#numbered
    this.#numbers.set(thing, number)
    return number
  }

  async #look(plugin: Plugin, job: HookJob, redact: Redactor): Promise<Verified> {
    const { keeper } = this.#gate(plugin, job.access.target)
    const context = this.#context(this.#limits.verifyMs, redact, job.signal, keeper)
    const pinned = { template: job.template, variables: job.variables }
    try {
      return await this.#raced(plugin.verify(job.access, job.account, context, pinned), context.signal)
    } finally {
      context.stop()
    }
  }

  async #aside<T>(plugin: Plugin, access: Access, act: (context: HookContext) => Promise<T>): Promise<T> {
    const redact = createRedactor(secretsOf({}, access.secret))
    const { queue } = this.#gate(plugin, access.target)
    return await redacted(redact, () => queue.run({ account: '', opening: true }, async () => {
      const context = this.#context(this.#limits.actionMs, redact, undefined)
      try {
        return await this.#raced(act(context), context.signal)
      } finally {
        context.stop()
      }
    }))
  }

  /** Runs a plugin within a limit; one that does not come back leaves its outcome unknown. */
  async #limited<T>(
    limitMs: number, redact: Redactor, signal: AbortSignal | undefined,
    act: (context: HookContext) => Promise<T>
  ): Promise<T | Outcome> {
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

  #context(
    limitMs: number, redact: Redactor, signal: AbortSignal | undefined, kept?: Keeper
  ): LimitedContext {
    const { clock, log } = this.#options
    const endsMs = clock.monotonicMs() + limitMs
    const limit = new AbortController()
    const late = (): SallyportError =>
      new SallyportError('hook-timeout', { detail: `not finished after ${Math.round(limitMs)} ms` })
    const stop = clock.after(limitMs, () => limit.abort(late()))
    return {
      signal: signal === undefined ? limit.signal : AbortSignal.any([signal, limit.signal]),
      connectTimeoutMs: this.#limits.connectMs,
      statementTimeoutMs: this.#limits.statementMs,
      remainingMs: () => endsMs - clock.monotonicMs(),
      now: () => clock.now(),
      kept,
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

  #gate(plugin: Plugin, target: TargetAddress): Gate {
    // An edited address is another door: what failed at the old one says nothing about it.
    const key = `${target.name} ${target.host} ${target.port}`
    const known = this.#gates.get(key)
    if (known !== undefined) return known
    for (const [other, { queue, keeper }] of this.#gates) {
      if (queue.idle && keeper.isEmpty) this.#gates.delete(other)
    }
    const queue = new TargetQueue(target.name, this.#limits, this.#options.clock, {
      knock: () => plugin.knock(target, this.#limits.connectMs),
      onRecovered: () => this.#options.onRecovered?.(target.name)
    })
    const made = { queue, keeper: new Keeper(this.#limits, this.#options.clock) }
    this.#gates.set(key, made)
    return made
  }
}

function ticketOf({ account, action, signal }: HookJob): Ticket {
  return { account: account.name, opening: isOpening(action), signal }
}

function valuesOf({ variables, account }: HookJob): Variables {
  return { ...variables, username: account.name }
}

function lapsed(what = 'action'): SallyportError {
  return new SallyportError('hook-timeout', { detail: `the claim lapsed before the ${what} began` })
}
