// Keeps a one-time password out of the recording of a protocol that sends it in clear: where it stands, the
// tape has asterisks. It may come in pieces: a piece that could be its beginning is covered as well, and what
// follows if it was. The bytes that are passed on are not touched. What it cannot see is a password that
// travels encoded (base64, hashes) or encrypted; that needs no cover, or is evidence of the protocol.

/** Of a password that is cut by the end of a read, so few characters may stay readable. */
const readableMax = 3
const cover = '*'

/** One direction of one connection. */
export class Veil {
  readonly #secret: Buffer
  /** How much of the secret the last bytes were. */
  #begun = 0

  constructor(secret: string) {
    this.#secret = Buffer.from(secret)
  }

  /** The bytes as they may be recorded: the same buffer, or a covered copy. */
  hide(chunk: Buffer): Buffer {
    const secret = this.#secret
    let shown = chunk
    const hide = (start: number, end: number): void => {
      if (shown === chunk) shown = Buffer.from(chunk)
      shown.fill(cover, start, end)
    }
    const rest = secret.subarray(this.#begun)
    const length = Math.min(rest.length, chunk.length)
    if (this.#begun > 0 && chunk.subarray(0, length).equals(rest.subarray(0, length))) {
      hide(0, length)
      if (length < rest.length) {
        this.#begun += length
        return shown
      }
    }
    for (let at = chunk.indexOf(secret); at >= 0; at = chunk.indexOf(secret, at + secret.length)) {
      hide(at, at + secret.length)
    }
    this.#begun = this.#tail(chunk)
    if (this.#begun > readableMax) hide(chunk.length - this.#begun, chunk.length)
    return shown
  }

  /** The length of the longest beginning of the secret that the chunk ends with. */
  #tail(chunk: Buffer): number {
    for (let length = Math.min(this.#secret.length - 1, chunk.length); length > 0; length--) {
      if (chunk.subarray(chunk.length - length).equals(this.#secret.subarray(0, length))) return length
    }
    return 0
  }
}
