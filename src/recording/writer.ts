// Writes one recording. The hot path is `append` (copy into a small buffer) and `commit` (one write(2), on
// the spot, at an explicit offset). When the disk is slow the same bytes go through the thread pool and
// `commit` is a promise: that is the back-pressure (F18). What breaks if this is changed carelessly: a frame
// must be in the file before `commit` says so (R4), and a failed write or sync is never tried again (F16,
// F17: the kernel may have dropped the page, and a retry would succeed without the data).
import { close, fdatasync } from 'node:fs'
import { promisify } from 'node:util'
import { ChainBuffer } from './chain.ts'
import type { Clock } from '../clock.ts'
import { SallyportError } from '../errors.ts'
import { writeAll, writeAllPooled, writeRange } from './disk.ts'
import type { Disk, Shared } from './disk.ts'
import { bodyBytesMax } from './format.ts'
import { frameKind } from './recording.ts'
import type { Ending, FrameKind, Recording, SealSummary, Signer } from './recording.ts'

const fdatasyncPooled = promisify(fdatasync)
const closePooled = promisify(close)

/** A busy recording hashes in pieces of this size: the call is free, and it is still in the cache. */
const gatherBytesMax = 32 * 1024
/** Bodies from this size on go to the file without a copy. */
const directBytesMin = 16 * 1024
/** More than this waiting in one buffer is handed to the disk, whoever commits: memory stays bounded. */
const waitingBytesMax = 1024 * 1024
/**
 * On a slow disk a recording holds no more than this; then it writes on the spot, however long (F18: 4 MiB).
 */
const heldBytesMax = 3 * 1024 * 1024
/** A signed checkpoint at least so often: 50 us of signing for 4 MiB is one per cent of a fast transfer. */
const checkpointBytes = 4 * 1024 * 1024
/** Kept free below the size limit, so that a full recording can still be closed and sealed. */
const endingBytes = 64 * 1024
/** A disk that does not answer must not hold the removal of an account back for longer than this. */
const sealMsMax = 10_000

export interface WriterSetting {
  clock: Clock
  signer: Signer
  disk: Disk
  /**
   * `strict`: a failure ends the session. `best-effort`: the session goes on unrecorded and `onLost` says so.
   */
  mode: 'strict' | 'best-effort'
  recordingBytesMax: number
  onLost: (session: string, error: SallyportError) => void
}

export interface WriterFile {
  session: string
  /** Relative to the recordings folder. */
  path: string
  descriptor: number
  /** The random id in the file's head: part of every signature. */
  id: Buffer
  /** The file's head, still to be written. */
  head: Buffer
  /** Makes the names durable; called once, with the first sync. */
  syncFolders: () => Promise<void>
  /** Takes away the note that this recording is open; called when the seal is durable. */
  forget: () => void
  /** Called when the file is closed, sealed or not. */
  closed: () => void
}

interface Waiter {
  upTo: number
  resolve: () => void
  reject: (error: SallyportError) => void
}

// `full`: the size limit was reached; it can still be sealed. `lost`: nothing more is written, ever.
type State = 'open' | 'full' | 'lost' | 'sealed'

export class FileRecording implements Recording, Shared {
  readonly session: string
  readonly #setting: WriterSetting
  readonly #file: WriterFile
  readonly #startedMs: number
  readonly #tape: ChainBuffer
  #state: State = 'open'
  #error: SallyportError | undefined
  #abort: AbortController | undefined
  // Bytes in the hands of the thread pool, and who waits for what to be written.
  #heldBytes = 0
  #waiters: Waiter[] = []
  #draining: Promise<void> | undefined
  #syncing: Promise<void> | undefined
  #sealing: Promise<SealSummary> | undefined
  #flushQueued = false
  #syncQueued = false
  #foldersSynced = false

  constructor(file: WriterFile, setting: WriterSetting) {
    this.session = file.session
    this.#file = file
    this.#setting = setting
    this.#startedMs = setting.clock.monotonicMs()
    this.#tape = new ChainBuffer(file.head)
  }

  /** Made when it is first asked for: an idle recording is small. */
  get failed(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController()
      if (this.#error !== undefined && this.#setting.mode === 'strict') this.#abort.abort(this.#error)
    }
    return this.#abort.signal
  }

  /** Bytes appended and not yet in the file. */
  get waitingBytes(): number {
    return this.#tape.pendingBytes + this.#heldBytes
  }

  append(kind: FrameKind, lane: number, ...parts: readonly Uint8Array[]): void {
    if (this.#state !== 'open') return
    let length = 0
    for (const part of parts) length += part.length
    if (this.#tape.end + length > this.#setting.recordingBytesMax - endingBytes) return this.#fill()
    if (length > bodyBytesMax) return this.#appendPieces(kind, lane, parts)
    const onTheSpot = this.#draining === undefined && !this.#setting.disk.slow
    if (onTheSpot && length >= directBytesMin) this.#writeThrough(kind, lane, parts, length)
    else {
      if (onTheSpot && this.#tape.length + length > gatherBytesMax) this.#emptyBuffer()
      this.#tape.put(kind, lane, parts, length, this.#nowMicroseconds())
      if (!onTheSpot) this.#boundMemory()
    }
    if (!this.#flushQueued || !this.#syncQueued) this.#wake()
  }

  commit(): true | Promise<void> {
    if (this.#state === 'open') {
      if (this.#draining !== undefined || this.#setting.disk.slow) return this.#commitSlowly()
      if (this.#tape.pendingBytes > 0) this.#writeNow()
    }
    if (this.#stateNow() === 'open' || this.#setting.mode === 'best-effort') return true
    throw this.#error ?? new SallyportError('recorder-failed', { detail: 'the recording is sealed already' })
  }

  seal(ending: Ending): Promise<SealSummary> {
    this.#sealing ??= this.#sealInTime(ending)
    return this.#sealing
  }

  flushNow(): void {
    this.#flushQueued = false
    if (this.#state !== 'open' || this.#tape.pendingBytes === 0) return
    try {
      const done = this.commit()
      // A failure is told through `failed`; nobody waits for this promise.
      if (done !== true) done.catch(() => undefined)
    } catch {
      // Told through `failed`.
    }
  }

  syncNow(): Promise<void> {
    this.#syncQueued = false
    if (this.#state !== 'open') return Promise.resolve()
    if (this.#syncing === undefined) {
      this.#syncing = this.#sync().finally(() => { this.#syncing = undefined })
    } else {
      // One at a time: a disk that cannot keep up gets fewer syncs, not a queue of them.
      this.#syncQueued = true
      this.#setting.disk.syncSoon(this)
    }
    return this.#syncing
  }

  // ---- appending

  #nowMicroseconds(): number {
    return Math.floor((this.#setting.clock.monotonicMs() - this.#startedMs) * 1000)
  }

  /** A body above the limit becomes several frames: in a stream frame borders mean nothing. */
  #appendPieces(kind: FrameKind, lane: number, parts: readonly Uint8Array[]): void {
    for (const part of parts) {
      for (let at = 0; at < part.length; at += bodyBytesMax) {
        this.append(kind, lane, part.subarray(at, at + bodyBytesMax))
      }
    }
  }

  #writeThrough(kind: FrameKind, lane: number, parts: readonly Uint8Array[], length: number): void {
    const head = this.#tape.headOf(kind, lane, length, this.#nowMicroseconds())
    this.#write([head, ...parts])
    this.#tape.empty()
    this.#tape.passed([head, ...parts])
    this.#checkpointWhenDue()
  }

  #emptyBuffer(): void {
    if (this.#tape.pendingBytes > 0) this.#writeNow()
    this.#tape.empty()
    this.#checkpointWhenDue()
  }

  /** For a relay that goes on appending while a commit waits: first start the disk, then block. */
  #boundMemory(): void {
    if (this.#tape.pendingBytes > waitingBytesMax) this.#draining ??= this.#drain()
    if (this.waitingBytes <= heldBytesMax) return
    this.#writeNow()
    this.#tape.empty()
  }

  #wake(): void {
    if (this.#state !== 'open') return
    if (!this.#flushQueued) {
      this.#flushQueued = true
      this.#setting.disk.flushSoon(this)
    }
    if (!this.#syncQueued) {
      this.#syncQueued = true
      this.#setting.disk.syncSoon(this)
    }
  }

  // ---- the fast way to the file

  #writeNow(): void {
    this.#write(undefined)
    this.#tape.markWritten()
  }

  /** What waits, with `more` behind it. */
  #write(more: readonly Uint8Array[] | undefined): void {
    const { clock, disk } = this.#setting
    const { descriptor } = this.#file
    const tape = this.#tape
    const startedMs = clock.monotonicMs()
    try {
      // For each statement: without a view, which would cost more than what is in it.
      if (more === undefined) writeRange(descriptor, tape.bytes, tape.written, tape.length, tape.position)
      else writeAll(descriptor, [tape.pending(), ...more], tape.position)
    } catch (thrown) {
      this.#lose(thrown)
    }
    disk.wrote(clock.monotonicMs() - startedMs)
  }

  // ---- the slow way: through the thread pool, one write of this recording at a time

  #commitSlowly(): true | Promise<void> {
    if (this.waitingBytes === 0) return true
    const upTo = this.#tape.end
    return new Promise((resolve, reject) => {
      this.#waiters.push({ upTo, resolve, reject })
      this.#draining ??= this.#drain()
    })
  }

  /** Never rejects: a failure is told through `failed` and to those who wait. */
  async #drain(): Promise<void> {
    try {
      while (this.#state !== 'lost' && this.#tape.pendingBytes > 0) {
        const position = this.#tape.position
        const chunk = this.#tape.handOver()
        this.#heldBytes = chunk.length
        await this.#setting.disk.write(() => writeAllPooled(this.#file.descriptor, chunk, position))
        this.#heldBytes = 0
        this.#settle()
        this.#checkpointWhenDue()
      }
    } catch (thrown) {
      this.#heldBytes = 0
      this.#lose(thrown)
    } finally {
      this.#draining = undefined
    }
  }

  #settle(): void {
    const waiters = this.#waiters
    const writtenUpTo = this.#tape.position
    this.#waiters = waiters.filter(waiter => waiter.upTo > writtenUpTo)
    for (const waiter of waiters) if (waiter.upTo <= writtenUpTo) waiter.resolve()
  }

  async #allWritten(): Promise<void> {
    while (this.#stateNow() !== 'lost' && this.waitingBytes > 0) {
      if (this.#draining !== undefined) await this.#draining
      else if (!this.#setting.disk.slow) this.#writeNow()
      else await (this.#draining = this.#drain())
    }
  }

  // ---- syncing, checkpoints, the seal, the loss

  async #sync(): Promise<void> {
    try {
      this.#seal(false, 0)
      await this.#allWritten()
      await this.#syncFile()
    } catch (thrown) {
      this.#lose(thrown)
    }
    // Idle again: keep no more than the bytes that the chain still needs.
    if (!this.#syncQueued && this.#tape.pendingBytes === 0) this.#tape.shrink()
  }

  async #syncFile(): Promise<void> {
    if (this.#state === 'lost') return
    await this.#setting.disk.sync(() => fdatasyncPooled(this.#file.descriptor))
    if (this.#foldersSynced) return
    await this.#file.syncFolders()
    this.#foldersSynced = true
  }

  #seal(final: boolean, closeOffset: number): void {
    this.#tape.seal(final, closeOffset, this.#nowMicroseconds(), this.#file.id, this.#setting.signer)
  }

  #checkpointWhenDue(): void {
    if (this.#state !== 'open' || this.#tape.end - this.#tape.sealOffset < checkpointBytes) return
    try {
      this.#seal(false, 0)
    } catch (thrown) {
      this.#lose(thrown)
    }
  }

  /** The size limit: the session ends as if the recorder had failed, but the recording is closed properly. */
  #fill(): void {
    const { recordingBytesMax } = this.#setting
    this.#fail('full', `the recording reached its limit of ${recordingBytesMax} bytes`, undefined)
  }

  #lose(thrown: unknown): void {
    if (this.#state === 'lost') return
    const detail = thrown instanceof Error ? thrown.message : String(thrown)
    this.#fail('lost', `recording ${this.session}: ${detail}`, thrown)
    this.#tape.drop()
  }

  #fail(state: 'full' | 'lost', detail: string, cause: unknown): void {
    this.#state = state
    const error = this.#error ??= new SallyportError('recorder-failed', { detail, cause })
    const strict = this.#setting.mode === 'strict'
    if (strict) this.#abort?.abort(error)
    this.#setting.onLost(this.session, error)
    if (state === 'full') return
    const waiters = this.#waiters
    this.#waiters = []
    for (const waiter of waiters) {
      if (strict) waiter.reject(error)
      else waiter.resolve()
    }
  }

  async #sealInTime(ending: Ending): Promise<SealSummary> {
    let giveUp = (): void => undefined
    const late = new Promise<SealSummary>(resolve => {
      giveUp = this.#setting.clock.after(sealMsMax, () => resolve(this.#summary(ending, false)))
    })
    try {
      return await Promise.race([this.#sealNow(ending), late])
    } finally {
      giveUp()
    }
  }

  async #sealNow(ending: Ending): Promise<SealSummary> {
    try {
      if (this.#state !== 'lost') {
        const full = this.#state === 'full'
        // From here on nothing is appended any more, and a commit throws.
        this.#state = 'sealed'
        const endedAt = this.#setting.clock.now().toISOString()
        const body = Buffer.from(JSON.stringify({ ...ending, endedAt, ...full && { full } }))
        const closeOffset = this.#tape.end
        this.#tape.put(frameKind.close, 0, [body], body.length, this.#nowMicroseconds())
        this.#seal(true, closeOffset)
      }
      await this.#allWritten()
      await this.#syncing
      await this.#syncFile()
    } catch (thrown) {
      this.#lose(thrown)
    }
    const summary = this.#summary(ending, this.#stateNow() === 'sealed')
    await this.#closeFile(summary.sealed)
    return summary
  }

  async #closeFile(sealed: boolean): Promise<void> {
    try {
      // Nobody may still hold the descriptor: its number would soon belong to another file.
      await this.#draining
      await this.#syncing
      await closePooled(this.#file.descriptor)
      if (sealed) this.#file.forget()
    } catch {
      // The seal is durable; a note that stays is taken away by recovery.
    }
    this.#tape.drop()
    this.#file.closed()
  }

  /** Asked after calls that may have changed it, where the compiler still believes the earlier check. */
  #stateNow(): State {
    return this.#state
  }

  #summary(ending: Ending, sealed: boolean): SealSummary {
    const { session, path } = this.#file
    const { end: bytes, frames, headHash } = this.#tape
    return { session, sealed, path, bytes, frames, headHash: sealed ? headHash : '', ending }
  }
}
