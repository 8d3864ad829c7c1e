// Cuts a stream of bytes into frames. It never throws: a recording that a crash, a power cut or a hand has
// spoiled is read to its last good frame, and what follows is described (`tail`) instead of being an error.
// Memory: one frame (1 MiB at most) and the chunk that was fed.
import { frameHeadBytes, readFrameHead } from './format.ts'
import type { Frame } from './format.ts'

/** What is left behind the last whole frame. */
export interface Tail {
  /** Where the last whole frame ends. */
  offset: number
  bytes: number
  /**
   * `none`: nothing is left. `short`: a frame that was cut. `zeros`: space that the file system had promised
   * and never filled. `garbage`: bytes that are no frame.
   */
  kind: 'none' | 'short' | 'zeros' | 'garbage'
}

function isZero(bytes: Uint8Array): boolean {
  for (const byte of bytes) if (byte !== 0) return false
  return true
}

export class FrameScanner {
  #offset: number
  #carry: Buffer = Buffer.alloc(0)
  #lastAt = 0
  #broken = false
  // Bytes seen behind the break, and whether all of them were zero: counted, not kept.
  #brokenBytes = 0
  #brokenZeros = true

  /** `offset` is where in the file the first byte lies that will be fed; it must be the start of a frame. */
  constructor(offset: number) {
    this.#offset = offset
  }

  /** Offset of the first byte that is not part of a returned frame. */
  get offset(): number {
    return this.#offset
  }

  /** True once the bytes stopped making sense: no more frames will come. */
  get broken(): boolean {
    return this.#broken
  }

  /**
   * The frames that are whole now. Bodies are views of `chunk` (or of a copy): keep them only if the chunk
   * is not used again.
   */
  feed(chunk: Buffer): Frame[] {
    if (this.#broken) {
      this.#countBroken(chunk)
      return []
    }
    const bytes = this.#carry.length === 0 ? chunk : Buffer.concat([this.#carry, chunk])
    const frames: Frame[] = []
    let at = 0
    while (bytes.length - at >= frameHeadBytes) {
      const head = readFrameHead(bytes, at)
      if (head === undefined || head.atMicroseconds < this.#lastAt) {
        this.#broken = true
        break
      }
      const end = at + frameHeadBytes + head.length
      if (end > bytes.length) break
      this.#lastAt = head.atMicroseconds
      const { kind, lane, atMicroseconds } = head
      const body = bytes.subarray(at + frameHeadBytes, end)
      frames.push({ offset: this.#offset, kind, lane, atMicroseconds, body })
      this.#offset += end - at
      at = end
    }
    // Copied: `chunk` may be a buffer that the caller fills again.
    this.#carry = this.#broken || at === bytes.length ? Buffer.alloc(0) : Buffer.from(bytes.subarray(at))
    if (this.#broken) this.#countBroken(bytes.subarray(at))
    return frames
  }

  /** To be asked at the end of the file. */
  tail(): Tail {
    if (this.#broken) {
      return { offset: this.#offset, bytes: this.#brokenBytes, kind: this.#brokenZeros ? 'zeros' : 'garbage' }
    }
    const bytes = this.#carry.length
    const kind = bytes === 0 ? 'none' : isZero(this.#carry) ? 'zeros' : 'short'
    return { offset: this.#offset, bytes, kind }
  }

  #countBroken(bytes: Uint8Array): void {
    this.#brokenBytes += bytes.length
    this.#brokenZeros &&= isZero(bytes)
  }
}
