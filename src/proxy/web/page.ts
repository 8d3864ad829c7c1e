// One WebSocket of a page of the console: text messages are words (JSON with a `type`), binary ones the bytes
// of a terminal. Whoever is at the other end has logged in, and is believed no further: messages are bounded,
// a page that does not answer a ping is gone, and what is wrong ends in a close with a code, 4000 and the
// status that the table of errors has for it. A page that comes again begins anew: a connection that was cut
// has ended its session, whose account is on its way out.
import type { RawData, WebSocket } from 'ws'
import type { Cancel, Clock } from '../../clock.ts'
import { SallyportError, errorTable } from '../../errors.ts'

/** Longest message of a page: a statement that somebody pasted. */
export const messageBytesMax = 1024 * 1024
/** A page that is there answers at once; one that is not is found out within twice this. */
export const pingMs = 15_000
/** A last word is waited for so long. */
const farewellMs = 1000
/** RFC 6455: what a close says of its reason. */
const closeReasonBytesMax = 123
/** Output that a page has not taken; from here on its source waits. */
const queuedBytesMax = 1024 * 1024
const [closedInOrder, closedByUs, violation] = [1000, 4000, 4400]

/** What a page says: words are not believed before they are looked at. */
export type Words = Readonly<Record<string, unknown>> & { readonly type: string }

export interface PageEvents {
  words(words: Words): void
  bytes(bytes: Buffer): void
  /** The last one: the page has gone, or was sent away. */
  closed(): void
}

export class Page {
  readonly #socket: WebSocket
  readonly #clock: Clock
  #events: PageEvents | undefined
  #answers = true
  #stopPing: Cancel
  #stopFarewell: Cancel | undefined
  #isOver = false
  #drained: (() => void) | undefined
  #draining: (() => void)[] = []

  constructor(socket: WebSocket, clock: Clock) {
    this.#socket = socket
    this.#clock = clock
    socket.on('message', (data, isBinary) => this.#message(data, isBinary))
    socket.on('pong', () => { this.#answers = true })
    // A message that is too long, text that is none, a frame that breaks the rules: ws closes with its code.
    socket.on('error', () => undefined)
    socket.on('close', () => this.#closed())
    this.#stopPing = clock.after(pingMs, () => this.#ping())
  }

  /** Nothing of it is listened to any more, or it is gone. */
  get over(): boolean {
    return this.#isOver || this.#socket.readyState !== this.#socket.OPEN
  }

  get queuedBytes(): number {
    return this.#socket.bufferedAmount
  }

  listen(events: PageEvents): void {
    this.#events = events
    if (this.#socket.readyState === this.#socket.CLOSED) events.closed()
  }

  /** `drained` is called whenever something has left; for sources that wait. */
  onDrained(drained: () => void): void {
    this.#drained = drained
  }

  say(words: Words): void {
    this.pass(JSON.stringify(words))
  }

  /** Words that are written already. */
  pass(text: string): void {
    if (!this.over) this.#socket.send(text, this.#left)
  }

  send(bytes: Uint8Array): void {
    if (!this.over) this.#socket.send(bytes, this.#left)
  }

  /** Resolves when the page has taken what it was sent, or never will. */
  async drain(): Promise<void> {
    while (!this.over && this.queuedBytes > queuedBytesMax) {
      await new Promise<void>(resolve => this.#draining.push(resolve))
    }
  }

  /** Stops reading; the rest waits in the kernel. */
  pause(): void {
    if (!this.over) this.#socket.pause()
  }

  resume(): void {
    if (!this.over) this.#socket.resume()
  }

  /** The session is over in order. */
  leave(): void {
    this.#close(closedInOrder, '')
  }

  /** Says why it is over, in a sentence with its code, and closes. */
  fail(error: SallyportError, more: Record<string, unknown> = {}): void {
    this.end(error.clientMessage, 4000 + errorTable[error.code].http, more)
  }

  /** The same with a sentence that others made. */
  end(text: string, code: number = closedByUs, more: Record<string, unknown> = {}): void {
    this.say({ ...more, type: 'end', text })
    this.#close(code, text)
  }

  /** Something that no page of ours says. */
  breach(detail: string): void {
    const { clientMessage } = new SallyportError('protocol-violation', { detail })
    this.end(`${clientMessage} ${detail}`, violation)
  }

  destroy(): void {
    this.#socket.terminate()
  }

  readonly #left = (): void => {
    this.#drained?.()
    const waiting = this.#draining
    this.#draining = []
    for (const wake of waiting) wake()
  }

  #message(data: RawData, isBinary: boolean): void {
    this.#answers = true
    if (this.#isOver) return
    const bytes = data as Buffer
    if (isBinary) return this.#events?.bytes(bytes)
    const words = wordsOf(bytes)
    if (words === undefined) this.breach('words that are none')
    else this.#events?.words(words)
  }

  #ping(): void {
    // What we do not read cannot be an answer; then the kernel finds out.
    if (!this.#answers && !this.#socket.isPaused) return this.destroy()
    this.#answers = false
    if (this.#socket.readyState === this.#socket.OPEN) this.#socket.ping()
    this.#stopPing = this.#clock.after(pingMs, () => this.#ping())
  }

  #close(code: number, reason: string): void {
    if (this.#isOver) return
    this.#isOver = true
    // Its answer must be read.
    this.#socket.resume()
    this.#socket.close(code, cut(reason))
    this.#stopFarewell = this.#clock.after(farewellMs, () => this.destroy())
  }

  #closed(): void {
    this.#isOver = true
    this.#stopPing()
    this.#stopFarewell?.()
    this.#events?.closed()
    this.#left()
  }
}

/** As long as a close may be, and whole characters only. */
function cut(reason: string): string {
  const bytes = Buffer.from(reason)
  return bytes.length <= closeReasonBytesMax
    ? reason
    : bytes.subarray(0, closeReasonBytesMax - 3).toString('utf8').replace(/\ufffd$/, '')
}

function wordsOf(bytes: Buffer): Words | undefined {
  try {
    const words = JSON.parse(bytes.toString('utf8')) as unknown
    const isOurs = typeof words === 'object' && words !== null && 'type' in words
      && typeof words.type === 'string'
    return isOurs ? words as Words : undefined
  } catch {
    return undefined
  }
}

/** A whole number within bounds; undefined for everything else. */
export function numberIn(value: unknown, least: number, most: number): number | undefined {
  return Number.isSafeInteger(value) && value as number >= least && value as number <= most
    ? value as number
    : undefined
}
