// The newest bytes of one recording and the hash chain over all of them. Pure bookkeeping: nothing is written
// here. The buffer serves the file (what still waits to be written) and the chain (what still waits to be
// hashed), because hashing each small frame alone would cost more than writing it. What breaks if this is
// changed carelessly: the chain must see every byte exactly once, in file order.
import { createHash } from 'node:crypto'
import type { Hash } from 'node:crypto'
import { encodeSealFrame, frameHeadBytes, sealFrameBytes, writeFrameHead } from './format.ts'
import type { Signer } from './recording.ts'

/** The first buffer of a recording that was idle: a few statements. */
const bufferBytesMin = 1024

const nothing = Buffer.alloc(0)

export class ChainBuffer {
  // buffer[0, filled) are the newest bytes of the file, from offset `base` on. Up to `written` they are in
  // the file or handed to somebody who writes them; up to `hashed` they are in the chain.
  #buffer: Buffer
  #filled: number
  #written = 0
  #hashed = 0
  #base = 0
  #hash: Hash | undefined
  #lastAt = 0
  /** Frames so far. */
  frames = 0
  /** Offset of the newest seal: where the open block begins. */
  sealOffset = 0
  /** Hex of the newest seal's hash. */
  headHash = ''

  constructor(fileHead: Buffer) {
    this.#buffer = Buffer.allocUnsafeSlow(bufferBytesMin)
    fileHead.copy(this.#buffer)
    this.#filled = fileHead.length
  }

  /** Length of the file when all of this is written. */
  get end(): number {
    return this.#base + this.#filled
  }

  /** Bytes that are held here, written or not. */
  get length(): number {
    return this.#filled
  }

  /** Where `pending` belongs in the file. */
  get position(): number {
    return this.#base + this.#written
  }

  get pendingBytes(): number {
    return this.#filled - this.#written
  }

  /** What is held; `[written, length)` of it waits to be written. Valid as long as `pending`. */
  get bytes(): Buffer {
    return this.#buffer
  }

  get written(): number {
    return this.#written
  }

  /** What waits to be written: a view, valid until the next call that changes the buffer. */
  pending(): Buffer {
    return this.#buffer.subarray(this.#written, this.#filled)
  }

  markWritten(): void {
    this.#written = this.#filled
  }

  /** `length` is that of all parts together. */
  put(
    kind: number, lane: number, parts: readonly Uint8Array[], length: number, atMicroseconds: number
  ): void {
    if (this.#filled + frameHeadBytes + length > this.#buffer.length) this.#grow(frameHeadBytes + length)
    writeFrameHead(this.#buffer, this.#filled, length, kind, lane, this.#monotone(atMicroseconds))
    let at = this.#filled + frameHeadBytes
    for (const part of parts) {
      this.#buffer.set(part, at)
      at += part.length
    }
    this.#filled = at
    this.frames++
  }

  /** A frame's header for a body that goes to the file without passing through here; follow with `passed`. */
  headOf(kind: number, lane: number, length: number, atMicroseconds: number): Buffer {
    const head = Buffer.allocUnsafe(frameHeadBytes)
    writeFrameHead(head, 0, length, kind, lane, this.#monotone(atMicroseconds))
    return head
  }

  /** Takes a frame into the chain that was written round the buffer, which must be empty. */
  passed(pieces: readonly Uint8Array[]): void {
    this.#hash ??= createHash('sha256')
    for (const piece of pieces) {
      this.#hash.update(piece)
      this.#base += piece.length
    }
    this.frames++
  }

  /** Starts anew. The caller has written what waited. */
  empty(): void {
    this.#hashBuffer()
    this.#base += this.#filled
    this.#filled = 0
    this.#written = 0
    this.#hashed = 0
  }

  /** Gives what waits to somebody who writes it, and starts anew with another buffer. */
  handOver(): Buffer {
    const chunk = this.pending()
    this.empty()
    this.#buffer = nothing
    return chunk
  }

  /** Closes the block of the chain; the next block begins with this seal. Throws what the signer throws. */
  seal(final: boolean, closeOffset: number, atMicroseconds: number, id: Buffer, signer: Signer): void {
    if (this.#filled + sealFrameBytes > this.#buffer.length) this.#grow(sealFrameBytes)
    this.#hashBuffer()
    const head = (this.#hash ?? createHash('sha256')).digest()
    this.#hash = undefined
    const at = this.#monotone(atMicroseconds)
    const seal = { final, offset: this.end, frames: this.frames, closeOffset, atMicroseconds: at, head }
    const frame = encodeSealFrame(id, seal, signer)
    this.sealOffset = seal.offset
    this.headHash = head.toString('hex')
    this.#buffer.set(frame, this.#filled)
    this.#filled += frame.length
    this.frames++
  }

  /** Keeps no more memory than the bytes that are held. */
  shrink(): void {
    if (this.#buffer.length === this.#filled) return
    const rest = Buffer.allocUnsafeSlow(this.#filled)
    this.#buffer.copy(rest, 0, 0, this.#filled)
    this.#buffer = rest
  }

  /** Lets everything go: the recording is closed or lost. */
  drop(): void {
    this.#base += this.#filled
    this.#buffer = nothing
    this.#filled = this.#written = this.#hashed = 0
    this.#hash = undefined
  }

  /** Times of frames never go backwards, whatever the machine's clock does (F19). */
  #monotone(atMicroseconds: number): number {
    if (atMicroseconds > this.#lastAt) this.#lastAt = atMicroseconds
    return this.#lastAt
  }

  #grow(need: number): void {
    let size = Math.max(bufferBytesMin, this.#buffer.length)
    while (size < this.#filled + need) size *= 2
    const larger = Buffer.allocUnsafeSlow(size)
    this.#buffer.copy(larger, 0, 0, this.#filled)
    this.#buffer = larger
  }

  #hashBuffer(): void {
    if (this.#hashed === this.#filled) return
    this.#hash ??= createHash('sha256')
    this.#hash.update(this.#buffer.subarray(this.#hashed, this.#filled))
    this.#hashed = this.#filled
  }
}
