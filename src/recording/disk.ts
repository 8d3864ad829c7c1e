// What all recordings of one folder share: the two timers (frames that nobody committed, and syncing), the
// count of input/output under way in the thread pool, and the judgement whether this disk is slow. A write
// that hits the page cache takes microseconds and is done on the spot; a disk that stalls would stall every
// session with it, so that after one slow write all recordings write through the pool until the disk is quick
// again.
import { write, writeSync, writevSync } from 'node:fs'
import { promisify } from 'node:util'
import type { Cancel, Clock } from '../clock.ts'

const writePooled = promisify(write)

/** A write on the spot that took longer marks the disk as slow: far above a page cache, below a keystroke. */
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

/**
 * Writes `bytes[from, to)` at this offset, at once. Throws what the system says; a part may be in the file
 * then.
 */
export function writeRange(
  descriptor: number, bytes: Uint8Array, from: number, to: number, position: number
): void {
  let at = from
  // Again after a short write: a quota, a signal, or a disk that is getting full; the next one says which.
  while (at < to) {
    const written = writeSync(descriptor, bytes, at, to - at, position + at - from)
    if (written === 0) throw nothingWritten()
    at += written
  }
}

/** The same with several pieces, one after the other. */
export function writeAll(descriptor: number, pieces: readonly Uint8Array[], position: number): void {
  let length = 0
  for (const piece of pieces) length += piece.length
  if (length === 0) return
  const done = writevSync(descriptor, pieces, position)
  if (done < length) writeRange(descriptor, Buffer.concat(pieces), done, length, position + done)
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
  readonly #queue: (() => void)[] = []
  #toFlush: Shared[] = []
  #flushTimer: Cancel | undefined
  #toSync: Shared[] = []
  // Those whose second is over, and how many of them are being synced.
  #due: Shared[] = []
  #syncing = 0
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
    return this.#queue.length + this.#due.length
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
    const tookMs = await this.#run(act)
    this.#quickInRow = tookMs < slowWriteMs ? this.#quickInRow + 1 : 0
    if (this.#quickInRow >= quickWritesNeeded) this.#slow = false
  }

  /** A sync through the pool. */
  async sync(act: () => Promise<void>): Promise<void> {
    await this.#run(act)
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
      this.#due = this.#due.concat(this.#toSync)
      this.#toSync = []
      this.#syncDue()
    })
  }

  close(): void {
    this.#flushTimer?.()
    this.#syncTimer?.()
    this.#toFlush = []
    this.#toSync = []
    this.#due = []
  }

  /** A few at a time: a thousand signatures at once would hold up every session for a tenth of a second. */
  #syncDue(): void {
    while (this.#syncing < atOnceMax) {
      const next = this.#due.shift()
      if (next === undefined) return
      this.#syncing++
      void next.syncNow().finally(() => {
        this.#syncing--
        this.#syncDue()
      })
    }
  }

  async #run(act: () => Promise<void>): Promise<number> {
    if (this.#busy >= atOnceMax) await new Promise<void>(resolve => this.#queue.push(resolve))
    else this.#busy++
    const startedMs = this.#clock.monotonicMs()
    try {
      await act()
      return this.#clock.monotonicMs() - startedMs
    } finally {
      const tookMs = this.#clock.monotonicMs() - startedMs
      if (tookMs > this.slowestMs) this.slowestMs = tookMs
      // The place is handed over, so that nobody can slip in between.
      const next = this.#queue.shift()
      if (next === undefined) this.#busy--
      else next()
    }
  }
}
