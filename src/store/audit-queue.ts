// Events on their way to the store: collected for up to five milliseconds, written in groups, so that a
// burst costs one commit. What the store does not take stays, in order, and is tried again; whoever waits
// for it hears so at once. A group whose answer was lost is looked up before it is written again: no event
// twice.
import type { Cancel, Clock } from '../clock.ts'
import { SallyportError, asSallyportError } from '../errors.ts'
import type { AuditEntry, AuditRow } from './audit-chain.ts'
import type { ChainHead } from './audit-head.ts'
import { isWritten } from './audit-head.ts'
import type { Database } from './database.ts'

export interface AuditQueue {
  /** Resolves when the event is durable; rejects with `store-unavailable` when it has to wait. */
  put(entry: AuditEntry): Promise<void>
  waiting(): number
  /** Writes what waits, or says in a notice what could not be written. Takes nothing more. Never throws. */
  close(): Promise<void>
}

interface QueueOptions {
  database: Database
  clock: Clock
  head: ChainHead
  /** An event that says how many were lost because too many waited. */
  lostEntry(events: number): AuditEntry
  onNotice(line: string): void
}

interface Waiting {
  entry: AuditEntry
  done(): void
  failed(error: SallyportError): void
}

// A burst becomes at most 200 commits a second; an event that comes alone does not wait.
const groupMsMax = 5
const groupEventsMin = 100
// One statement of about 500 kB; larger groups gain little (measured: 32,000/s with 100, 47,000/s with
// 1,000).
const groupEventsMax = 1_000
// While the store is away, events wait here: a busy hour of one node, some 25 MB.
export const waitingEventsMax = 50_000
const retryMs = 1_000

export function createAuditQueue({ database, clock, head, lostEntry, onNotice }: QueueOptions): AuditQueue {
  const waiting: Waiting[] = []
  let doubtful: readonly AuditRow[] = []
  let flushing: Promise<void> | undefined
  let flushedAtMs = -groupMsMax
  let cancelTimer: Cancel | undefined
  let storeAway = false
  let lost = 0
  let closed = false

  const settle = (count: number): void => {
    doubtful = []
    for (const { done } of waiting.splice(0, count)) done()
    if (storeAway) onNotice('audit: the store takes events again')
    storeAway = false
    if (lost === 0) return
    const events = lost
    lost = 0
    put(lostEntry(events)).catch(() => {})
  }

  const writeGroup = async (): Promise<void> => {
    if (await isWritten(database, doubtful)) return settle(doubtful.length)
    const entries = waiting.slice(0, groupEventsMax).map(({ entry }) => entry)
    await database.transaction(tx => {
      database.beforeCommit(tx, head.step(entries, rows => { doubtful = rows }))
      return Promise.resolve()
    })
    settle(entries.length)
  }

  const flush = async (): Promise<void> => {
    try {
      while (waiting.length > 0) {
        flushedAtMs = clock.monotonicMs()
        await writeGroup()
      }
    } catch (thrown) {
      keep(asSallyportError(thrown))
    }
  }

  const keep = ({ code, detail }: SallyportError): void => {
    if (!storeAway) onNotice(`audit: ${waiting.length} events wait for the store: ${detail ?? code}`)
    storeAway = true
    for (const { failed } of waiting) failed(away(detail ?? code))
    cancelTimer?.()
    if (!closed) cancelTimer = clock.after(retryMs, start)
  }

  // Detached: the caller of `put` may be inside of a transaction by accident, the group never is.
  const start = (): void => {
    cancelTimer?.()
    cancelTimer = undefined
    flushing ??= database.detached(flush).finally(() => {
      flushing = undefined
      if (waiting.length > 0 && !storeAway) schedule()
    })
  }

  const schedule = (): void => {
    if (flushing !== undefined || (storeAway && cancelTimer !== undefined)) return
    if (waiting.length >= groupEventsMin) return start()
    const restMs = flushedAtMs + groupMsMax - clock.monotonicMs()
    cancelTimer ??= database.detached(() => clock.after(Math.max(0, restMs), start))
  }

  const put = (entry: AuditEntry): Promise<void> => {
    if (closed || waiting.length >= waitingEventsMax) {
      lost++
      return Promise.reject(away(closed ? 'the audit log is closed' : 'too many audit events wait'))
    }
    return new Promise<void>((resolve, reject) => {
      waiting.push({ entry, done: resolve, failed: reject })
      if (storeAway) reject(away('the audit event waits for the store'))
      schedule()
    })
  }

  return {
    put,
    waiting: () => waiting.length,
    async close() {
      closed = true
      cancelTimer?.()
      await flushing
      await database.detached(flush)
      if (waiting.length > 0) onNotice(`audit: ${waiting.length} events could not be written before the stop`)
    }
  }
}

function away(detail: string): SallyportError {
  return new SallyportError('store-unavailable', { detail })
}
