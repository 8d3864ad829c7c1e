// Where the bytes of a read go. All plain connections read into one shared buffer: a read costs no
// allocation, and an idle session holds none. The price is that its bytes must be copied before the next read
// of anybody, wherever a write has not taken them at once. A direction that reads much gets a buffer of its
// own, which can be lent to the write without a copy, and gives it back when it has become quiet. What breaks
// if this is changed carelessly: one session's bytes in another session's stream.

/** One read of the kernel's default; a connection that fills it is in the middle of something large. */
const sharedBytes = 64 * 1024

/** Reads from this size on are worth a buffer of their own: the copy would cost more than the change. */
const largeReadBytes = 4 * 1024

/**
 * Sizes of own buffers: the next one when a read came back full. 1 MiB takes 25–40 % less CPU for each GB.
 */
const ownSizes = [64 * 1024, 256 * 1024, 1024 * 1024] as const

/** Own buffers that wait to be used again, of each size: 8 × 1.3 MiB at most. */
const spareMax = 8

const shared = Buffer.allocUnsafeSlow(sharedBytes)
const spares: Buffer[][] = ownSizes.map(() => [])

function take(size: number): Buffer {
  return spares[size]!.pop() ?? Buffer.allocUnsafeSlow(ownSizes[size]!)
}

function giveBack(size: number, buffer: Buffer): void {
  if (spares[size]!.length < spareMax) spares[size]!.push(buffer)
}

/** The buffer of one connection's reads. */
export class ReadBuffer {
  #own: Buffer | undefined
  #size = 0

  /** For `onread`: the buffer of the next read. */
  readonly next = (): Buffer => this.#own ?? shared

  /** Reads go to an own buffer, which a write may hold. */
  get large(): boolean {
    return this.#own !== undefined
  }

  /**
   * True for a chunk in the shared buffer: its bytes must be written or copied before anybody reads again.
   */
  isShared(chunk: Buffer): boolean {
    return chunk === shared
  }

  /**
   * The first `bytes` of what was read, safe to be written: a copy when the buffer is the shared one. What is
   * none of ours (TLS makes a buffer for each read) is safe as it is.
   */
  safe(chunk: Buffer, bytes: number): Buffer {
    if (chunk !== shared) return bytes === chunk.length ? chunk : chunk.subarray(0, bytes)
    const copy = Buffer.allocUnsafe(bytes)
    chunk.copy(copy, 0, 0, bytes)
    return copy
  }

  /**
   * Chooses the buffer of the next read; called within the present one, when its bytes have been written.
   * `pending`: the write has not taken them yet; `stopped`: nothing is read until it has; `quiet`: the stream
   * stands between two messages.
   */
  settle(chunk: Buffer, bytes: number, pending: boolean, stopped: boolean, quiet: boolean): void {
    const busy = bytes >= largeReadBytes && !quiet
    if (chunk === shared) {
      if (busy) this.#own = take(this.#size = 0)
    } else if (chunk === this.#own) {
      if (pending) {
        // While nothing is read the write may keep it; otherwise it is the write's for good.
        if (!stopped || !busy) this.#own = undefined
      } else if (!busy) {
        giveBack(this.#size, chunk)
        this.#own = undefined
      } else if (bytes === chunk.length && this.#size + 1 < ownSizes.length) {
        giveBack(this.#size, chunk)
        this.#own = take(++this.#size)
      }
    }
  }
}
