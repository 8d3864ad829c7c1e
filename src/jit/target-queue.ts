// One queue and one circuit breaker for each target, so that a target that hangs holds up nobody but itself.
// At most a few actions run at once on a target, and one at a time on an account. Actions that can go
// together take one turn: whoever waits while one such group is under way is in the next. Openings (somebody
// waits at a prompt) and closings (an account must go) take turns, so neither starves under a flood of the
// other.
// After some connection failures in a row nothing is tried for a moment; then one trial, and its success lets
// the others through.
import type { Cancel, Clock } from '../clock.ts'
import { SallyportError } from '../errors.ts'

export interface QueueLimits {
  /**
   * Actions at once on one target: below PostgreSQL's reserve of connections, above what one slow action
   * blocks.
   */
  parallel: number
  /** Actions that may wait for one target; the ledger asks again. */
  waitingMax: number
  /** Actions in one group: what it holds up when it fails, and one transaction on the target. */
  togetherMax: number
  /** Groups of one kind at once, when one of them takes long. */
  groupsMax: number
  /**
   * For so long the last group is the only one of its kind, until the next is full: who comes meanwhile makes
   * it larger.
   */
  groupAloneMs: number
  /** Where another of its kind began a moment ago (`busyMs`), a group waits so long for more to join it. */
  gatherMs: number
  busyMs: number
  /** Connection failures in a row until the breaker opens. */
  failuresMax: number
  /** First and longest pause of an open breaker, milliseconds. */
  pauseMs: number
  pauseMaxMs: number
}

export interface TargetHealth {
  target: string
  breaker: 'closed' | 'open' | 'half-open'
  /** Connection failures in a row. */
  failures: number
  lastError?: string | undefined
  running: number
  waiting: number
}

export interface Ticket {
  account: string
  /** True for create and enable. */
  opening: boolean
  signal?: AbortSignal | undefined
}

export interface Door {
  /** True when something listens at the target's address. */
  knock(): Promise<boolean>
  /** It answers again. */
  onRecovered(): void
}

interface Waiting extends Ticket {
  /** Those of the same kind may start together. */
  group?: string | undefined
  /** Monotonic instant at which it came; of those that may go together. */
  sinceMs?: number
  /** Told to the first; `all` are those that start together, itself among them. */
  start(all: readonly Waiting[]): void
  refuse(error: SallyportError): void
}

interface Member<J, R> extends Waiting {
  job: J
  done(result: R): void
  failed(error: Error): void
}

export class TargetQueue {
  readonly #target: string
  readonly #limits: QueueLimits
  readonly #clock: Clock
  readonly #door: Door
  #openings: Waiting[] = []
  #closings: Waiting[] = []
  #openingsTurn = true
  readonly #busyAccounts = new Set<string>()
  /** Kinds of groups that run, or began a moment ago. */
  readonly #groups = new Map<string, { running: number, startedMs: number }>()
  /** The next look at who may begin, if time alone decides. */
  #look: { atMs: number, cancel: Cancel } | undefined
  #running = 0
  #failures = 0
  #lastError: string | undefined
  /** Monotonic instant until which an open breaker refuses; undefined when closed. */
  #openUntilMs: number | undefined
  #trial = false
  #cancelKnock: Cancel | undefined
  #closed = false

  constructor(target: string, limits: QueueLimits, clock: Clock, door: Door) {
    this.#target = target
    this.#limits = limits
    this.#clock = clock
    this.#door = door
  }

  get idle(): boolean {
    return this.#running === 0 && this.#openings.length + this.#closings.length === 0 && this.#failures === 0
  }

  health(): TargetHealth {
    const open = this.#openUntilMs !== undefined
    const resting = open && this.#clock.monotonicMs() < (this.#openUntilMs ?? 0)
    return {
      target: this.#target,
      breaker: !open ? 'closed' : resting ? 'open' : 'half-open',
      failures: this.#failures,
      lastError: this.#lastError,
      running: this.#running,
      waiting: this.#openings.length + this.#closings.length
    }
  }

  /**
   * Runs `act` when its turn comes. `act` reports how the connection fared by throwing 'target-unreachable',
   * or anything else.
   * @throws SallyportError('target-unreachable') at once while the breaker is open; the signal's reason
   */
  async run<T>(ticket: Ticket, act: () => Promise<T>): Promise<T> {
    await this.#turn(ticket)
    return await this.#taken([ticket], undefined, act)
  }

  /**
   * Runs `act` for this job and those of the same group that wait as well when its turn comes; results in the
   * order of the jobs. Groups cannot be given up while they wait.
   * @throws as `run`; what `act` throws, each of them
   */
  together<J, R>(
    ticket: Omit<Ticket, 'signal'>, group: string, job: J, act: (jobs: readonly J[]) => Promise<readonly R[]>
  ): Promise<R> {
    const noEntry = this.#noEntry()
    if (noEntry !== undefined) return Promise.reject(noEntry)
    return new Promise((resolve, reject) => {
      const member: Member<J, R> = {
        ...ticket, group, sinceMs: this.#clock.monotonicMs(), job, done: resolve, failed: reject,
        refuse: reject,
        start: all => void this.#goTogether(all as readonly Member<J, R>[], group, act)
      }
      this.#wait(member)
    })
  }

  async #goTogether<J, R>(
    members: readonly Member<J, R>[], group: string, act: (jobs: readonly J[]) => Promise<readonly R[]>
  ): Promise<void> {
    try {
      const results = await this.#taken(members, group, () => act(members.map(({ job }) => job)))
      for (const [index, { done }] of members.entries()) done(results[index]!)
    } catch (error) {
      for (const { failed } of members) failed(error as Error)
    }
  }

  async #taken<T>(
    tickets: readonly Ticket[], group: string | undefined, act: () => Promise<T>
  ): Promise<T> {
    try {
      const result = await act()
      this.#succeeded()
      return result
    } catch (error) {
      if (error instanceof SallyportError && error.code === 'target-unreachable') this.#failed(error)
      else this.#succeeded()
      throw error
    } finally {
      this.#running--
      for (const { account } of tickets) this.#busyAccounts.delete(account)
      if (group !== undefined) this.#endGroup(group)
      this.#next()
    }
  }

  #endGroup(group: string): void {
    const known = this.#groups.get(group)
    if (known !== undefined) known.running--
  }

  /** Stops knocking, and refuses who still waits and who comes later. */
  close(): void {
    this.#closed = true
    this.#cancelKnock?.()
    this.#look?.cancel()
    for (const waiting of [...this.#openings, ...this.#closings]) {
      waiting.refuse(new SallyportError('shutting-down'))
    }
    this.#openings = []
    this.#closings = []
  }

  #turn(ticket: Ticket): Promise<void> {
    const noEntry = this.#noEntry()
    if (noEntry !== undefined) return Promise.reject(noEntry)
    return new Promise((resolve, reject) => {
      const giveUp = (): void => {
        this.#openings = this.#openings.filter(other => other !== waiting)
        this.#closings = this.#closings.filter(other => other !== waiting)
        const reason: unknown = ticket.signal?.reason
        if (reason instanceof Error) reject(reason)
        else reject(new SallyportError('hook-timeout', { detail: 'aborted while waiting' }))
      }
      const done = (): void => ticket.signal?.removeEventListener('abort', giveUp)
      const waiting: Waiting = {
        ...ticket,
        start: () => { done(); resolve() },
        refuse: error => { done(); reject(error) }
      }
      if (ticket.signal?.aborted === true) return giveUp()
      ticket.signal?.addEventListener('abort', giveUp, { once: true })
      this.#wait(waiting)
    })
  }

  /** Why nobody may wait here. */
  #noEntry(): SallyportError | undefined {
    if (this.#closed) return new SallyportError('shutting-down')
    if (this.#openings.length + this.#closings.length < this.#limits.waitingMax) return undefined
    return new SallyportError('target-unreachable', { detail: `${this.#target}: too many actions wait` })
  }

  #wait(waiting: Waiting): void {
    ;(waiting.opening ? this.#openings : this.#closings).push(waiting)
    this.#next()
  }

  /** Starts whoever may start. */
  #next(): void {
    while (this.#running < this.#limits.parallel) {
      const taken = this.#take()
      const [first] = taken
      if (first === undefined) return
      const refusal = this.#refusal()
      if (refusal !== undefined) {
        for (const { refuse } of taken) refuse(refusal)
        continue
      }
      this.#trial = this.#openUntilMs !== undefined
      this.#running++
      for (const { account } of taken) this.#busyAccounts.add(account)
      if (first.group !== undefined) this.#beginGroup(first.group)
      first.start(taken)
    }
  }

  /** The next one that may start, with those that go with it; openings and closings in turn. */
  #take(): readonly Waiting[] {
    const opening = this.#openingsTurn
    for (const isOpening of [opening, !opening]) {
      const queue = isOpening ? this.#openings : this.#closings
      const first = queue.find(({ account, group, sinceMs }) =>
        !this.#busyAccounts.has(account)
        && (group === undefined || this.#mayBegin(group, sinceMs ?? 0, queue.length)))
      if (first === undefined) continue
      this.#openingsTurn = !isOpening
      const taken = this.#withCompanions(first, queue)
      const left = queue.filter(waiting => taken.get(waiting.account) !== waiting)
      if (isOpening) this.#openings = left
      else this.#closings = left
      return [...taken.values()]
    }
    return []
  }

  /** `sinceMs`: when the first of them came. `waiting`: how many there are, of any kind. */
  #mayBegin(group: string, sinceMs: number, waiting: number): boolean {
    const known = this.#groups.get(group)
    if (known === undefined) return true
    const { groupsMax, groupAloneMs, gatherMs, busyMs, togetherMax } = this.#limits
    if (known.running >= groupsMax) return false
    if (waiting >= togetherMax) return true
    const nowMs = this.#clock.monotonicMs()
    const isBusy = nowMs < known.startedMs + busyMs
    const fromMs = known.running > 0 ? known.startedMs + groupAloneMs : isBusy ? sinceMs + gatherMs : nowMs
    if (fromMs > nowMs) this.#lookAt(fromMs)
    return fromMs <= nowMs
  }

  #lookAt(atMs: number): void {
    if (this.#look !== undefined && this.#look.atMs <= atMs) return
    this.#look?.cancel()
    const cancel = this.#clock.after(Math.ceil(atMs - this.#clock.monotonicMs()), () => {
      this.#look = undefined
      this.#next()
    })
    this.#look = { atMs, cancel }
  }

  #beginGroup(group: string): void {
    const nowMs = this.#clock.monotonicMs()
    const running = (this.#groups.get(group)?.running ?? 0) + 1
    for (const [other, { running: still, startedMs }] of this.#groups) {
      if (still === 0 && nowMs >= startedMs + this.#limits.busyMs) this.#groups.delete(other)
    }
    this.#groups.set(group, { running, startedMs: nowMs })
  }

  /** By account: no two actions on one account go together. */
  #withCompanions(first: Waiting, queue: readonly Waiting[]): ReadonlyMap<string, Waiting> {
    const taken = new Map([[first.account, first]])
    if (first.group === undefined) return taken
    for (const waiting of queue) {
      if (taken.size >= this.#limits.togetherMax) break
      const fits = waiting.group === first.group && !this.#busyAccounts.has(waiting.account)
      if (fits && !taken.has(waiting.account)) taken.set(waiting.account, waiting)
    }
    return taken
  }

  #refusal(): SallyportError | undefined {
    if (this.#openUntilMs === undefined) return undefined
    const resting = this.#clock.monotonicMs() < this.#openUntilMs
    if (!resting && !this.#trial) return undefined
    return new SallyportError('target-unreachable', {
      detail: `${this.#target}: not tried, ${this.#failures} connections failed: ${this.#lastError ?? ''}`
    })
  }

  #succeeded(): void {
    this.#failures = 0
    this.#lastError = undefined
    this.#openUntilMs = undefined
    this.#trial = false
    this.#cancelKnock?.()
    this.#cancelKnock = undefined
  }

  #failed(error: SallyportError): void {
    this.#failures++
    this.#lastError = error.detail ?? error.code
    this.#trial = false
    if (this.#failures >= this.#limits.failuresMax) this.#open()
  }

  #open(): void {
    const over = Math.min(this.#failures - this.#limits.failuresMax, 16)
    const pauseMs = Math.min(this.#limits.pauseMs * 2 ** over, this.#limits.pauseMaxMs)
    this.#openUntilMs = this.#clock.monotonicMs() + pauseMs
    this.#cancelKnock?.()
    const untilMs = this.#openUntilMs
    this.#cancelKnock = this.#clock.after(pauseMs, () => void this.#knockAgain(untilMs))
  }

  /**
   * After the pause: when somebody opens the door, those who wait for the target are told, else another
   * pause.
   */
  async #knockAgain(untilMs: number): Promise<void> {
    const answered = await this.#door.knock().catch(() => false)
    // Another pause has begun meanwhile, or a success has ended them.
    if (this.#closed || this.#openUntilMs !== untilMs) return
    if (!answered) return this.#open()
    // Timers may fire a moment early; whoever hears of it may come at once.
    this.#openUntilMs = Math.min(untilMs, this.#clock.monotonicMs())
    this.#door.onRecovered()
  }
}
