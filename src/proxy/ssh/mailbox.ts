// Messages of a peer that are waited for one by one, while it is a stranger: during its login, and during
// ours at a target. Bounded: whoever sends faster than it is answered breaks the protocol.
import { SallyportError } from '../../errors.ts'
import type { ErrorCode } from '../../errors.ts'

/** OpenSSH asks once and waits; a pipelining client sends a handful. */
const messagesMax = 32

export class Mailbox {
  readonly #code: ErrorCode
  #messages: Buffer[] = []
  #failure: SallyportError | undefined
  #waiting: { resolve: (message: Buffer) => void, reject: (error: SallyportError) => void } | undefined

  /** `code`: what it is called when the peer does not wait. */
  constructor(code: ErrorCode) {
    this.#code = code
  }

  get failure(): SallyportError | undefined {
    return this.#failure
  }

  /** Takes a message; it is copied. */
  push(message: Uint8Array): void {
    if (this.#failure !== undefined) return
    const waiting = this.#waiting
    if (waiting !== undefined) {
      this.#waiting = undefined
      waiting.resolve(Buffer.from(message))
    } else if (this.#messages.length >= messagesMax) {
      const detail = 'messages faster than they are answered'
      this.fail(new SallyportError(this.#code, { detail }))
    } else {
      this.#messages.push(Buffer.from(message))
    }
  }

  /** Ends the wait that is under way, and every later one. */
  fail(error: SallyportError): void {
    this.#failure ??= error
    this.#waiting?.reject(this.#failure)
    this.#waiting = undefined
  }

  /** Everything that has come and was not waited for. */
  take(): Buffer[] {
    const messages = this.#messages
    this.#messages = []
    return messages
  }

  /** @throws SallyportError what `fail` was given */
  next(): Promise<Buffer> {
    const message = this.#messages.shift()
    if (message !== undefined) return Promise.resolve(message)
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    return new Promise((resolve, reject) => { this.#waiting = { resolve, reject } })
  }
}
