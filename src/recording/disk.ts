// What all recordings of one folder share: the two timers (frames that nobody committed, and syncing), the
// count of input/output under way in the thread pool, and the judgement whether this disk is slow.
// A write that hits the page cache takes microseconds and is done on the spot; a disk that stalls would stall
// every session with it, so that after one slow write all recordings write through the pool until the disk is
// quick again.
import { write, writeSync, writevSync } from 'node:fs'
import { promisify } from 'node:util'
import type { Cancel, Clock } from '../clock.ts'

const writePooled = promisify(write)

/**
 * A write on the spot that took longer than this marks the disk as slow. Far above any page cache, below a
 * keystroke.
 */
export const slowWriteMs = 20
/** So many quick writes in a row make it quick again: one stall costs few writes through the pool. */
const quickWritesNeeded = 8
/** How long a frame may wait for a commit (R4: a cut must follow a failed write within 250 ms). */
export const flushDelayMs = 20
/** How much of a session a power cut may take (R6: 1 s). */
export const syncDelayMs = 1000
/** Of the four threads of the pool at most two: the others serve key derivation and name lookups. */
const atOnceMax = 2

export interface Shared {
  /** Puts what was appended into the file. Never throws. */
  flushNow(): void
  /** Checkpoints and syncs. Never rejects. */
  syncNow(): Promise<void>
}

function nothingWritten(): Error {
  return Object.assign(new Error('write(2) wrote nothing'), { code: 'EIO' })
}

/** Writes all of it at this offset, at once. Throws what the system says; a part may be in the file then. */
export function writeAll(descriptor: number, pieces: readonly Uint8Array[], position: number): void {
  let length = 0
  for (const piece of pieces) length += piece.length
  if (length === 0) return
  const [first] = pieces
  let done = pieces.length === 1 && first !== undefined
    ? writeSync(descriptor, first, 0, length, position)
    : writevSync(descriptor, pieces, position)
  if (done === length) return
  // A short write: a quota, a signal, or a disk that is just getting full; the next one says which.
  const rest = pieces.length === 1 && first !== undefined ? first : Buffer.concat(pieces)
  while (done < length) {
    const more = writeSync(descriptor, rest, done, length - done, position + done)
    if (more === 0) throw nothingWritten()
    done += more
  }
}

/** The same through the thread pool. */
export async function writeAllPooled(descriptor: number, bytes: Uint8Array, position: number): Promise<void> {
  let done = 0
  while (done < bytes.length) {
    const { bytesWritten } = await writePooled(descriptor, bytes, done, bytes.length - done, position + done)
    if (bytesWritten === 0) throw nothingWritten()
    done += bytesWritten
  }
}

export class Disk {
  readonly #clock: Clock
  #slow = false
  #quickInRow = 0
  #busy = 0
  #turn = 0
  // What a session waits for (a commit, its seal), and the regular syncs, of which there may be thousands.
  readonly #urgent: (() => void)[] = []
  readonly #regular: (() => void)[] = []
  #toFlush: Shared[] = []
  #flushTimer: Cancel | undefined
  #toSync: Shared[] = []
  #syncTimer: Cancel | undefined
  /** The longest write or sync so far, for the operator. */
  slowestMs = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get slow(): boolean {
    return this.#slow
  }

  /** Operations that wait for a thread of the pool. */
  get waiting(): number {
    return this.#urgent.length + this.#regular.length
  }

  /** Tells how long a write on the spot took. */
  wrote(tookMs: number): void {
    if (tookMs > this.slowestMs) this.slowestMs = tookMs
    if (tookMs < slowWriteMs) return
    this.#slow = true
    this.#quickInRow = 0
  }

  /** A write through the pool; how long it took says whether the disk is quick again. */
  async write(act: () => Promise<void>): Promise<void> {
    const tookMs = await this.#run(this.#urgent, act)
    this.#quickInRow = tookMs < slowWriteMs ? this.#quickInRow + 1 : 0
    if (this.#quickInRow >= quickWritesNeeded) this.#slow = false
  }

  /** A sync through the pool. `urgent`: somebody waits for it. */
  async sync(act: () => Promise<void>, urgent: boolean): Promise<void> {
    await this.#run(urgent ? this.#urgent : this.#regular, act)
  }

  /** One timer for all recordings, armed only while one of them needs it. */
  flushSoon(recording: Shared): void {
    this.#toFlush.push(recording)
    this.#flushTimer ??= this.#clock.after(flushDelayMs, () => {
      this.#flushTimer = undefined
      const due = this.#toFlush
      this.#toFlush = []
      for (const each of due) each.flushNow()
    })
  }

  syncSoon(recording: Shared): void {
    this.#toSync.push(recording)
    this.#syncTimer ??= this.#clock.after(syncDelayMs, () => {
      this.#syncTimer = undefined
      const due = this.#toSync
      this.#toSync = []
      for (const each of due) void each.syncNow()
    })
  }

  close(): void {
    this.#flushTimer?.()
    this.#syncTimer?.()
    this.#toFlush = []
    this.#toSync = []
  }

  async #run(queue: (() => void)[], act: () => Promise<void>): Promise<number> {
    if (this.#busy >= atOnceMax) await new Promise<void>(resolve => queue.push(resolve))
    else this.#busy++
    const startedMs = this.#clock.monotonicMs()
    try {
      await act()
      return this.#clock.monotonicMs() - startedMs
    } finally {
      const tookMs = this.#clock.monotonicMs() - startedMs
      if (tookMs > this.slowestMs) this.slowestMs = tookMs
      // The place is handed over, so that nobody can slip in between.
      const next = this.#next()
      if (next === undefined) this.#busy--
      else next()
    }
  }

  /** Urgent ones first, but every fourth turn is a regular one's: the promise of one second holds for all. */
  #next(): (() => void) | undefined {
    this.#turn++
    return this.#turn % 4 === 0
      ? this.#regular.shift() ?? this.#urgent.shift()
      : this.#urgent.shift() ?? this.#regular.shift()
  }
}
