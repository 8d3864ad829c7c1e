// Takes the `statement` frames of one lane apart into the messages of the client. A message may run over many
// frames and be 16 MiB long; only its beginning is kept in memory, which is enough to show it.
// The limits are those that the tape was made with (src/wire/postgres/frame.ts): a message above
// `tapeBytesMax` has only so many bytes there.
import { headerBytes, tapeBytesMax } from '../wire/postgres/frame.ts'
import type { TapedFrame } from '../wire/postgres/frame.ts'

/** Of one message so much is gathered; behind that it is shown as cut. */
export const gatherBytesMax = 1024 * 1024

export class ClientTape {
  readonly #head = Buffer.alloc(headerBytes)
  #headHave = 0
  #bodyBytes = 0
  // Bytes of the body that are still to come on the tape, and how many of them are gathered.
  #left = 0
  #parts: Buffer[] = []
  #gathered = 0
  #broken = false

  /** No more messages will come: a length was wrong. */
  get broken(): boolean {
    return this.#broken
  }

  /** The messages that are whole now. Bodies may be views of `bytes`. */
  feed(bytes: Buffer): TapedFrame[] {
    const frames: TapedFrame[] = []
    let at = 0
    while (at < bytes.length && !this.#broken) {
      if (this.#headHave < headerBytes) {
        const taken = bytes.copy(this.#head, this.#headHave, at, at + headerBytes - this.#headHave)
        this.#headHave += taken
        at += taken
        if (this.#headHave < headerBytes) break
        this.#open()
      }
      at += this.#take(bytes, at)
      if (this.#left === 0 && !this.#broken) frames.push(this.#close())
    }
    return frames
  }

  /** What there is of a message whose end never came. */
  end(): TapedFrame | undefined {
    if (this.#broken || this.#headHave < headerBytes) return undefined
    return { ...this.#close(), complete: false }
  }

  #open(): void {
    const length = this.#head.readInt32BE(1)
    this.#broken = length < 4
    this.#bodyBytes = Math.max(0, length - 4)
    this.#left = Math.min(1 + length, tapeBytesMax) - headerBytes
  }

  #take(bytes: Buffer, at: number): number {
    const here = Math.min(this.#left, bytes.length - at)
    const kept = Math.min(here, gatherBytesMax - this.#gathered)
    if (kept > 0) {
      const part = bytes.subarray(at, at + kept)
      // A message that goes on in the next frame must not hold this frame's whole chunk in memory.
      this.#parts.push(here === this.#left ? part : Buffer.from(part))
      this.#gathered += kept
    }
    this.#left -= here
    return here
  }

  #close(): TapedFrame {
    const [first] = this.#parts
    const body = this.#parts.length === 1 && first !== undefined ? first : Buffer.concat(this.#parts)
    const bodyBytes = this.#bodyBytes
    const frame = { tag: this.#head[0] ?? 0, body, bodyBytes, complete: body.length === bodyBytes }
    this.#headHave = 0
    this.#parts = []
    this.#gathered = 0
    return frame
  }
}
