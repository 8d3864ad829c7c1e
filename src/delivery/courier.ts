// Brings the audit log to a receiver elsewhere (a SIEM), in order and at least once. The log in the store is
// the queue: what was delivered is a position there, moved only after the receiver took it, so that a
// receiver that is away, or a restart of ours, loses nothing and nothing piles up in memory. No session ever
// waits for any of this. Of several nodes one has the claim on a receiver; the others take over when it
// falls silent.
import { randomInt } from 'node:crypto'
import type { Clock } from '../clock.ts'
import { sleep } from '../clock.ts'

/** An event as it is in the log. */
export interface AuditEvent {
  chain: string
  seq: number
  at: string
  kind: string
  actor: string
  subject: string
  detail: unknown
  prev: string
  hash: string
}

/** What was not taken. `refused`: the receiver answered, and does not want these very events. */
export class NotDelivered extends Error {
  readonly refused: boolean

  constructor(why: string, refused = false) {
    super(why)
    this.name = 'NotDelivered'
    this.refused = refused
  }
}

export interface Receiver {
  readonly name: string
  /** Events at once. */
  readonly eventsMax: number
  wants(kind: string): boolean
  /** Resolves when the receiver has them; throws NotDelivered or an Error of the system. */
  send(events: readonly AuditEvent[]): Promise<void>
  close(): void
}

/** Positions, in the store. Each throws `store-unavailable`. */
export interface Outbox {
  /** True for the one process that may send now, for a while. A receiver that is new begins with now. */
  claim(receiver: string): Promise<boolean>
  /** The next events after its position, in the order of each chain. */
  next(receiver: string, limit: number): Promise<readonly AuditEvent[]>
  /** Moves the position behind these. False when another process has the claim meanwhile. */
  delivered(receiver: string, events: readonly AuditEvent[]): Promise<boolean>
  /** Since when it fails; written at the first failure. */
  failing(receiver: string): Promise<Date>
  release(): Promise<void>
}

export interface CourierOptions {
  clock: Clock
  outbox: Outbox
  receiver: Receiver
  /** Told when it begins to fail, and when it is over. */
  alarm(kind: 'receiver-failing' | 'receiver-recovered', why: string): Promise<void>
  /** These were never taken, and are left out now. */
  skipped(events: readonly AuditEvent[], why: string): Promise<void>
  timing?: Partial<CourierTiming> | undefined
}

export interface CourierTiming {
  /** Between two looks at the log when nothing is new. */
  pollMs: number
  /** Until a claim of another node is looked at again. */
  standbyMs: number
  /** First and longest pause after a failure. */
  retryMs: number
  retryMaxMs: number
  /** How long events that the receiver refuses are tried before they are left out. */
  refusedMs: number
}

export const courierTiming: CourierTiming = {
  pollMs: 1000, standbyMs: 10_000, retryMs: 1000, retryMaxMs: 5 * 60_000, refusedMs: 3 * 86_400_000
}

export interface Courier {
  readonly receiver: string
  /** Why it fails; undefined: it does not. */
  failure(): string | undefined
  close(): Promise<void>
}

interface State {
  failure: string | undefined
  /** In a row, those of the store among them. */
  failures: number
}

/** Begins at once and goes on until it is closed. */
export function startCourier(options: CourierOptions): Courier {
  const { receiver, clock } = options
  const timing = { ...courierTiming, ...options.timing }
  const stop = new AbortController()
  const state: State = { failure: undefined, failures: 0 }
  const run = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      const pauseMs = await round(options, timing, state, stop.signal)
      if (pauseMs > 0) await sleep(clock, pauseMs, stop.signal).catch(() => undefined)
    }
  }
  const running = run()
  return {
    receiver: receiver.name,
    failure: () => state.failure,
    async close() {
      stop.abort(new Error('closed'))
      // What hangs in a send ends with its connection.
      receiver.close()
      await running
    }
  }
}

/** One look and one delivery; how long to rest after it. Never throws. */
async function round(
  options: CourierOptions, timing: CourierTiming, state: State, stop: AbortSignal
): Promise<number> {
  const { outbox, receiver } = options
  try {
    if (!await outbox.claim(receiver.name)) return timing.standbyMs
    const events = await outbox.next(receiver.name, receiver.eventsMax)
    if (events.length === 0) return timing.pollMs
    const failed = await attempt(options, timing, events)
    // What was cut by our own stop is no failure of the receiver.
    if (stop.aborted && failed !== undefined) return 0
    if (failed === undefined) {
      const wasFailing = state.failure !== undefined
      Object.assign(state, { failure: undefined, failures: 0 })
      if (!await outbox.delivered(receiver.name, events)) return timing.standbyMs
      if (wasFailing) await options.alarm('receiver-recovered', '')
      return events.length < receiver.eventsMax ? timing.pollMs : 0
    }
    const isFirst = state.failure === undefined
    state.failure = failed
    if (isFirst) await options.alarm('receiver-failing', failed)
  } catch {
    // The store is away: whoever watches that hears of it.
  }
  state.failures++
  const pauseMs = Math.min(timing.retryMaxMs, timing.retryMs * 2 ** Math.min(state.failures - 1, 20))
  // Not all nodes and receivers at once.
  return pauseMs * randomInt(50, 100) / 100
}

/** Sends what the receiver wants. Why it could not, or undefined. */
async function attempt(
  { receiver, outbox, clock, skipped }: CourierOptions, timing: CourierTiming, events: readonly AuditEvent[]
): Promise<string | undefined> {
  const wanted = events.filter(({ kind }) => receiver.wants(kind))
  if (wanted.length === 0) return undefined
  try {
    await receiver.send(wanted)
    return undefined
  } catch (thrown) {
    const why = thrown instanceof Error ? thrown.message : String(thrown)
    const since = await outbox.failing(receiver.name)
    const isRefused = thrown instanceof NotDelivered && thrown.refused
    if (!isRefused || clock.now().getTime() - since.getTime() < timing.refusedMs) return why
    await skipped(wanted, why)
    return undefined
  }
}
