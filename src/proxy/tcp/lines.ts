// The words of the TCP listener, inside TLS: a client says short lines (its ticket, `connection`, a one-time
// code), we say one JSON object a line. Behind `open` come raw bytes, and the stream is given back as it is:
// not a byte more was taken from it.
import type { Duplex } from 'node:stream'
import { SallyportError } from '../../errors.ts'

/** A ticket has 50 characters. */
const lineBytesMax = 256
/** Lines that came and were not waited for: a client that does not wait breaks the protocol. */
const linesMax = 64
const newline = 0x0a

/** What we say. */
export type Said =
  /** A one-time code is wanted. */
  | { type: 'code' }
  | { type: 'notice', text: string }
  /** The session is open; the password is there once, where one was made. */
  | { type: 'ready', target: string, username: string, password: string | null }
  /** For one more connection. */
  | { type: 'ticket', ticket: string }
  /** … there is none now; the session goes on. */
  | { type: 'refused', text: string }
  /** From here on bytes of the target. */
  | { type: 'open' }
  /** It is over; the sentence has its code. */
  | { type: 'end', text: string }

export class Lines {
  readonly #stream: Duplex
  #inbox = Buffer.alloc(0)
  #failure: SallyportError | undefined
  #onFailure: (() => void) | undefined
  #waiting: { resolve: (line: string) => void, reject: (error: SallyportError) => void } | undefined
  #draining: { resolve: () => void, reject: (error: SallyportError) => void } | undefined

  constructor(stream: Duplex) {
    this.#stream = stream
    stream.on('readable', this.#read).on('drain', this.#drained)
      .on('end', this.#ended).on('close', this.#ended)
  }

  /** The next line. @throws SallyportError `client-closed`, `protocol-violation`, or what `fail` was given */
  next(): Promise<string> {
    const line = this.#failure === undefined ? this.#line() : undefined
    if (line !== undefined) return Promise.resolve(line)
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    return new Promise((resolve, reject) => { this.#waiting = { resolve, reject } })
  }

  /** Ends the wait that is under way, and every later one. */
  fail(error: SallyportError): void {
    this.#failure ??= error
    this.#waiting?.reject(this.#failure)
    this.#draining?.reject(this.#failure)
    this.#waiting = this.#draining = undefined
    this.#onFailure?.()
  }

  /** Calls `act` when the client goes away or breaks the protocol, or has; returns how to stop. */
  onFailure(act: () => void): () => void {
    this.#onFailure = act
    if (this.#failure !== undefined) act()
    return () => { this.#onFailure = undefined }
  }

  /** Waits until what was said has been taken: whoever asks must read as well. @throws as `next` */
  async drained(): Promise<void> {
    if (!this.#stream.writableNeedDrain) return
    if (this.#failure !== undefined) throw this.#failure
    await new Promise<void>((resolve, reject) => { this.#draining = { resolve, reject } })
  }

  say(said: Said): void {
    if (this.#stream.writable) this.#stream.write(`${JSON.stringify(said)}\n`)
  }

  /** Says the last word and closes; the caller bounds how long that may take. */
  end(said?: Said): void {
    this.#stop()
    // Unread bytes would turn the close into a reset, and the last word would be lost.
    this.#stream.resume()
    this.#stream.end(said === undefined ? '' : `${JSON.stringify(said)}\n`)
  }

  /** Nothing is read from here on; what came behind the last line is the stream's again. */
  release(): void {
    this.#stop()
    if (this.#inbox.length > 0) this.#stream.unshift(this.#inbox)
    this.#inbox = Buffer.alloc(0)
  }

  #stop(): void {
    this.#stream.off('readable', this.#read).off('drain', this.#drained)
      .off('end', this.#ended).off('close', this.#ended)
  }

  readonly #read = (): void => {
    for (let chunk = this.#stream.read() as Buffer | null; chunk !== null;
      chunk = this.#stream.read() as Buffer | null) {
      this.#inbox = Buffer.concat([this.#inbox, chunk])
      if (this.#inbox.length > linesMax * lineBytesMax) {
        return this.fail(new SallyportError('protocol-violation', { detail: 'lines nobody asked for' }))
      }
    }
    const waiting = this.#waiting
    if (waiting === undefined) return
    const line = this.#line()
    if (line === undefined) return
    this.#waiting = undefined
    waiting.resolve(line)
  }

  readonly #drained = (): void => {
    this.#draining?.resolve()
    this.#draining = undefined
  }

  readonly #ended = (): void => this.fail(new SallyportError('client-closed'))

  #line(): string | undefined {
    const at = this.#inbox.indexOf(newline)
    if (at > lineBytesMax || (at < 0 && this.#inbox.length > lineBytesMax)) {
      this.fail(new SallyportError('protocol-violation', { detail: 'a line that is too long' }))
      return undefined
    }
    if (at < 0) return undefined
    const line = this.#inbox.toString('utf8', 0, at).replace(/\r$/, '')
    this.#inbox = this.#inbox.subarray(at + 1)
    return line
  }
}
