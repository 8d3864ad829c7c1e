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

/** Where events wait to be written in groups. */
export function createAuditQueue(options: QueueOptions): AuditQueue {
  return new GroupQueue(options)
}

function away(detail: string): SallyportError {
  return new SallyportError('store-unavailable', { detail })
}

class GroupQueue implements AuditQueue {
  readonly #options: QueueOptions
  readonly #waiting: Waiting[] = []
  /** The rows of a group whose answer was lost, or that did not get so far. */
  #doubtful: readonly AuditRow[] = []
  #flushing: Promise<void> | undefined
  #flushedAtMs = -groupMsMax
  #cancelTimer: Cancel | undefined
  #storeAway = false
  #lost = 0
  #closed = false

  constructor(options: QueueOptions) {
    this.#options = options
  }

  waiting(): number {
    return this.#waiting.length
  }

  put(entry: AuditEntry): Promise<void> {
    if (this.#closed || this.#waiting.length >= waitingEventsMax) {
      this.#lost++
      return Promise.reject(away(this.#closed ? 'the audit log is closed' : 'too many audit events wait'))
    }
    return new Promise<void>((resolve, reject) => {
      this.#waiting.push({ entry, done: resolve, failed: reject })
      if (this.#storeAway) reject(away('the audit event waits for the store'))
      this.#schedule()
    })
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#cancelTimer?.()
    await this.#flushing
    await this.#options.database.detached(() => this.#flush())
    const left = this.#waiting.length
    if (left > 0) this.#options.onNotice(`audit: ${left} events could not be written before the stop`)
  }

  #schedule(): void {
    if (this.#flushing !== undefined || (this.#storeAway && this.#cancelTimer !== undefined)) return
    if (this.#waiting.length >= groupEventsMin) return this.#start()
    const { database, clock } = this.#options
    const restMs = Math.max(0, this.#flushedAtMs + groupMsMax - clock.monotonicMs())
    this.#cancelTimer ??= database.detached(() => clock.after(restMs, () => this.#start()))
  }

  #start(): void {
    this.#cancelTimer?.()
    this.#cancelTimer = undefined
    this.#flushing ??= this.#options.database.detached(() => this.#flush()).finally(() => {
      this.#flushing = undefined
      if (this.#waiting.length > 0 && !this.#storeAway) this.#schedule()
    })
  }

  async #flush(): Promise<void> {
    try {
      while (this.#waiting.length > 0) {
        this.#flushedAtMs = this.#options.clock.monotonicMs()
        await this.#writeGroup()
      }
    } catch (thrown) {
      this.#keep(asSallyportError(thrown))
    }
  }

  async #writeGroup(): Promise<void> {
    const { database, head } = this.#options
    if (await isWritten(database, this.#doubtful)) return this.#settle(this.#doubtful.length)
    const entries = this.#waiting.slice(0, groupEventsMax).map(({ entry }) => entry)
    await database.transaction(tx => {
      database.beforeCommit(tx, head.step(entries, rows => { this.#doubtful = rows }))
      return Promise.resolve()
    })
    this.#settle(entries.length)
  }

  #settle(count: number): void {
    this.#doubtful = []
    for (const { done } of this.#waiting.splice(0, count)) done()
    if (this.#storeAway) this.#options.onNotice('audit: the store takes events again')
    this.#storeAway = false
    if (this.#lost === 0) return
    const events = this.#lost
    this.#lost = 0
    this.put(this.#options.lostEntry(events)).catch(() => {})
  }

  #keep({ code, detail = code }: SallyportError): void {
    const { clock, onNotice } = this.#options
    if (!this.#storeAway) onNotice(`audit: ${this.#waiting.length} events wait for the store: ${detail}`)
    this.#storeAway = true
    for (const { failed } of this.#waiting) failed(away(detail))
    this.#cancelTimer?.()
    if (!this.#closed) this.#cancelTimer = clock.after(retryMs, () => this.#start())
  }
}
