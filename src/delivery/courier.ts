// Brings the audit log to a receiver elsewhere (a SIEM), in order and at least once. The log in the store is
// the queue: what was delivered is a position there, moved only after the receiver took it, so that a
// receiver that is away, or a restart of ours, loses nothing and nothing piles up in memory. An event that
// it refuses while it takes others (pieces.ts) is kept aside, tried again for days and then given up, on
// record; the others go on. No session ever waits for any of this. Of several nodes one has the claim on a
// receiver; the others take over when it falls silent.
import { randomInt } from 'node:crypto'
import type { Clock } from '../clock.ts'
import { sleep } from '../clock.ts'
import { inPieces, wasRefused } from './pieces.ts'

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
  /**
   * Moves the position behind these, and keeps aside those of them that were refused. False when another
   * process has the claim meanwhile.
   */
  delivered(
    receiver: string, events: readonly AuditEvent[], refused: readonly AuditEvent[]
  ): Promise<boolean>
  /** What was refused, the oldest first. */
  aside(receiver: string): Promise<readonly AsideEvent[]>
  /** This one is aside no more: it was taken, or is given up. False as with `delivered`. */
  settled(receiver: string, event: AuditEvent, how: 'taken' | 'given-up'): Promise<boolean>
  /** Since when it refuses all that it is sent; written when it begins, and forgotten when it takes some. */
  refusing(receiver: string): Promise<Date>
  release(): Promise<void>
}

export interface AsideEvent {
  event: AuditEvent
  /** When it was refused first. */
  since: Date
}

export interface CourierOptions {
  clock: Clock
  outbox: Outbox
  receiver: Receiver
  /** Told when it begins to fail, and when it is over. */
  alarm(kind: 'receiver-failing' | 'receiver-recovered', why: string): Promise<void>
  /** This one is refused, and tried again later: the others go on without it. */
  refused(event: AuditEvent, why: string): Promise<void>
  /** This one was never taken, and is given up. */
  givenUp(event: AuditEvent, why: string): Promise<void>
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
  /** How long an event that the receiver refuses is tried before it is given up. */
  refusedMs: number
  /** Between two looks at what was refused. */
  asideMs: number
}

export const courierTiming: CourierTiming = {
  pollMs: 1000, standbyMs: 10_000, retryMs: 1000, retryMaxMs: 5 * 60_000, refusedMs: 3 * 86_400_000,
  asideMs: 60_000
}

/** Events of one receiver that are kept aside: of more, the oldest is given up before its time. */
export const asideMax = 100
/** So many of them are tried at one look: what is new waits meanwhile. */
const asideAtOnce = 10

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
  /** When what is aside is looked at next, from which on, and how many there may be. */
  asideDueMs: number
  asideFrom: number
  asides: number
}

/** What every step needs. */
interface Round extends CourierOptions {
  timing: CourierTiming
  state: State
  stop: AbortSignal
}

/** Begins at once and goes on until it is closed. */
export function startCourier(options: CourierOptions): Courier {
  const { receiver, clock } = options
  const stop = new AbortController()
  const state: State = { failure: undefined, failures: 0, asideDueMs: 0, asideFrom: 0, asides: 0 }
  const round = { ...options, timing: { ...courierTiming, ...options.timing }, state, stop: stop.signal }
  const run = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      const pauseMs = await turn(round)
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
async function turn(round: Round): Promise<number> {
  const { outbox, receiver, timing, state, stop, alarm } = round
  try {
    if (!await outbox.claim(receiver.name)) return timing.standbyMs
    const events = await outbox.next(receiver.name, receiver.eventsMax)
    const failed = await attempt(round, events)
    // What was cut by our own stop is no failure of the receiver.
    if (stop.aborted && failed !== undefined) return 0
    if (failed === lost) return timing.standbyMs
    if (failed === undefined) {
      if (events.length > 0) await recovered(round)
      await retryAside(round)
      return events.length < receiver.eventsMax ? timing.pollMs : 0
    }
    const isFirst = state.failure === undefined
    state.failure = failed
    if (isFirst) await alarm('receiver-failing', failed)
  } catch {
    // The store is away: whoever watches that hears of it.
  }
  state.failures++
  const pauseMs = Math.min(timing.retryMaxMs, timing.retryMs * 2 ** Math.min(state.failures - 1, 20))
  // Not all nodes and receivers at once.
  return pauseMs * randomInt(50, 100) / 100
}

async function recovered({ state, alarm }: Round): Promise<void> {
  const wasFailing = state.failure !== undefined
  Object.assign(state, { failure: undefined, failures: 0 })
  if (wasFailing) await alarm('receiver-recovered', '')
}

/** Another process has the claim. */
const lost = 'another node delivers now'

/** Sends what the receiver wants, and moves the position. Why it could not, or undefined. */
async function attempt(round: Round, events: readonly AuditEvent[]): Promise<string | undefined> {
  const { receiver, outbox, clock, timing, state, stop, refused, givenUp } = round
  if (events.length === 0) return undefined
  let from = 0
  /** Refused, while nothing has shown yet that the receiver takes others. */
  let doubtful: { event: AuditEvent, why: string }[] = []
  const move = async (upTo: number): Promise<boolean> => {
    const asides = doubtful
    if (!await outbox.delivered(receiver.name, events.slice(from, upTo), asides.map(({ event }) => event))) {
      return false
    }
    [from, doubtful] = [upTo, []]
    state.asides += asides.length
    for (const { event, why } of asides) await refused(event, why)
    return true
  }
  let takesOthers = false
  for await (const piece of inPieces(receiver, events)) {
    if (stop.aborted) return 'closed'
    if (piece.refused !== undefined) {
      doubtful.push(...piece.events.map(event => ({ event, why: piece.refused! })))
      // Many slow refusals take longer than the claim.
      if (!takesOthers) {
        if (!await outbox.claim(receiver.name)) return lost
        continue
      }
    } else if (piece.failed !== undefined) return piece.failed
    else if (piece.sent) takesOthers = true
    else if (doubtful.length > 0) continue
    if (!await move(piece.end)) return lost
  }
  if (from === events.length) return undefined
  // None of them was taken: it may be the receiver, and not what they are.
  const since = await outbox.refusing(receiver.name)
  const [{ why = '' } = {}] = doubtful
  if (clock.now().getTime() - since.getTime() < timing.refusedMs) return why
  const ended = doubtful
  if (!await move(events.length)) return lost
  for (const { event } of ended) {
    if (!await outbox.settled(receiver.name, event, 'given-up')) return lost
    await givenUp(event, why)
  }
  return undefined
}

/** What was refused is tried again, each by itself; what was refused for too long is given up. */
async function retryAside(round: Round): Promise<void> {
  const { receiver, outbox, clock, timing, state, stop, givenUp } = round
  if (clock.monotonicMs() < state.asideDueMs && state.asides <= asideMax) return
  state.asideDueMs = clock.monotonicMs() + timing.asideMs
  const asides = await outbox.aside(receiver.name)
  state.asides = asides.length
  const start = state.asideFrom < asides.length ? state.asideFrom : 0
  const tried = asides.slice(start, start + asideAtOnce)
  state.asideFrom = start + tried.length
  for (const [place, { event, since }] of asides.entries()) {
    const isSurplus = place < asides.length - asideMax
    if (!isSurplus && !tried.some(each => each.event === event)) continue
    if (stop.aborted || !await outbox.claim(receiver.name)) return
    // The configuration may name other kinds by now.
    const failed = !receiver.wants(event.kind) ? undefined
      : await receiver.send([event]).then(() => undefined, (thrown: unknown) => thrown)
    const isOld = clock.now().getTime() - since.getTime() >= timing.refusedMs
    if (failed === undefined) await outbox.settled(receiver.name, event, 'taken')
    // It is away: the next round says so.
    else if (!wasRefused(failed)) return
    else if ((isOld || isSurplus) && await outbox.settled(receiver.name, event, 'given-up')) {
      state.asides--
      await givenUp(event, failed.message)
    }
  }
}
