// One queue and one circuit breaker for each target, so that a target that hangs holds up nobody but itself.
// At most a few actions run at once on a target, and one at a time on an account. Openings (somebody waits at
// a prompt) and closings (an account must go) take turns, so neither starves under a flood of the other.
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
  start(): void
  refuse(error: SallyportError): void
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
      this.#busyAccounts.delete(ticket.account)
      this.#next()
    }
  }

  /** Stops knocking and refuses who still waits. */
  close(): void {
    this.#closed = true
    this.#cancelKnock?.()
    for (const waiting of [...this.#openings, ...this.#closings]) {
      waiting.refuse(new SallyportError('shutting-down'))
    }
    this.#openings = []
    this.#closings = []
  }

  #turn(ticket: Ticket): Promise<void> {
    if (this.#openings.length + this.#closings.length >= this.#limits.waitingMax) {
      return Promise.reject(
        new SallyportError('target-unreachable', { detail: `${this.#target}: too many actions wait` })
      )
    }
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
      ;(ticket.opening ? this.#openings : this.#closings).push(waiting)
      this.#next()
    })
  }

  /** Starts whoever may start. */
  #next(): void {
    while (this.#running < this.#limits.parallel) {
      const waiting = this.#take()
      if (waiting === undefined) return
      const refusal = this.#refusal()
      if (refusal !== undefined) {
        waiting.refuse(refusal)
        continue
      }
      this.#trial = this.#openUntilMs !== undefined
      this.#running++
      this.#busyAccounts.add(waiting.account)
      waiting.start()
    }
  }

  /** The next one whose account is free, openings and closings in turn. */
  #take(): Waiting | undefined {
    const queues = this.#openingsTurn ? [this.#openings, this.#closings] : [this.#closings, this.#openings]
    for (const queue of queues) {
      const index = queue.findIndex(waiting => !this.#busyAccounts.has(waiting.account))
      if (index === -1) continue
      this.#openingsTurn = queue !== this.#openings
      return queue.splice(index, 1)[0]
    }
    return undefined
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
