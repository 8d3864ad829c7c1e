// The first line of a peer, `SSH-2.0-…` (RFC 4253 section 4.2), gathered until it is whole. ssh2 forgets what
// came between the first and the last piece of a line, so that a line in three pieces is refused, and it
// takes one without an end for as long as its pieces are small.
import { WireError } from '../../wire/error.ts'

/** RFC 4253: 255 with the line's end. */
const lineBytesMax = 255
/** A server may greet before it says who it is. */
const greetingBytesMax = 16 * 1024
const [newline, beginning] = [10, Buffer.from('SSH-')]

export class Identification {
  readonly #mayGreet: boolean
  #bytes: Buffer = Buffer.alloc(0)

  /** `mayGreet`: the peer is a server. */
  constructor(mayGreet: boolean) {
    this.#mayGreet = mayGreet
  }

  /** Everything that has come, once the line is whole; it is a copy. @throws WireError */
  take(chunk: Uint8Array): Buffer | undefined {
    this.#bytes = Buffer.concat([this.#bytes, chunk])
    for (let start = 0; ;) {
      const end = this.#bytes.indexOf(newline, start)
      const line = this.#bytes.subarray(start, end < 0 ? undefined : end)
      const shared = Math.min(line.length, beginning.length)
      const isOurs = line.subarray(0, shared).equals(beginning.subarray(0, shared))
      if (!isOurs && !this.#mayGreet) throw new WireError('the peer does not speak SSH')
      if (isOurs && line.length >= lineBytesMax) throw new WireError('an SSH identification that is too long')
      if (end < 0) break
      if (isOurs && shared === beginning.length) {
        if (line.includes(0)) throw new WireError('an SSH identification with a zero byte')
        return this.#bytes
      }
      if (!this.#mayGreet) throw new WireError('the peer does not speak SSH')
      start = end + 1
    }
    if (this.#bytes.length > greetingBytesMax) throw new WireError('a greeting without an end')
    return undefined
  }
}
