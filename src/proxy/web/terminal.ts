// The client's end of an SSH session whose screen is a page: it speaks the connection protocol (RFC 4254) as
// ssh does, one channel with a terminal and a shell, and leaves out only what two ends of one process need
// not: keys and ciphers. So the relay, the tape and the rights are those of every SSH session. Nothing is
// buffered here beyond a window: the target may send what the page has acknowledged, and the page is read
// when the target has room.
import { SallyportError } from '../../errors.ts'
import {
  channelData, channelOpen, channelRequest, channelSignal, dataHeadBytes, extendedDataHeadBytes, openFailure,
  openFailureReason, parseChannelOpen, parseGlobalRequest, parseOpenConfirmation, parseOpenFailure,
  sshMessage, windowAdjust, windowAdjustBytes
} from '../../wire/ssh/connection.ts'
import { encodeTerminalModes, parseChannelRequest } from '../../wire/ssh/request.ts'
import type { Gate } from '../ssh/outbox.ts'
import type { ClientLine } from '../ssh/relay.ts'
import type { TransportEvents } from '../ssh/transport.ts'
import { numberIn } from './page.ts'
import type { Page, Words } from './page.ts'

/** What the target may send before the page has shown any of it. */
export const windowBytes = 256 * 1024
const packetBytes = 32 * 1024
/** What the page may type while the target does not read; from here on the page is not read either. */
const typedBytesMax = 256 * 1024
export const columnsMax = 1000
export const rowsMax = 500
/** Our one channel. */
const ours = 0
/** IUTF8 (RFC 8160): the target's terminal erases whole characters. */
const terminalModes = encodeTerminalModes(new Map([[42, 1]]))
const terminalName = 'xterm-256color'

export interface Size {
  columns: number
  rows: number
}

/** Undefined for what is no terminal's size. */
export function sizeOf({ columns, rows }: Words): Size | undefined {
  const size = { columns: numberIn(columns, 1, columnsMax), rows: numberIn(rows, 1, rowsMax) }
  return size.columns === undefined || size.rows === undefined ? undefined : size as Size
}

export class Terminal implements ClientLine {
  readonly #page: Page
  readonly #left: () => void
  #size: Size
  #events: TransportEvents | undefined
  #gate: Gate | undefined
  /** From the relay, until the recorder has it. */
  #waiting: Buffer[] = []
  #flushing = Promise.resolve()
  #isScheduled = false
  /** The target's number of our channel, what it takes, and what it takes at once. */
  #channel: { number: number, room: number, packetBytesMax: number } | undefined
  #typed: Buffer[] = []
  #typedBytes = 0
  #unseenBytes = 0
  #asked: ('terminal' | 'shell')[] = []
  #shellRefused = false
  #exit: { status?: number, signal?: string } = {}

  /** `left`: the page has gone before there was a target. */
  constructor(page: Page, size: Size, left: () => void) {
    this.#page = page
    this.#size = size
    this.#left = left
    page.listen({
      words: words => this.#heard(words), bytes: bytes => this.#type(bytes), closed: () => this.#closed()
    })
    page.onDrained(() => this.#events?.drain())
  }

  /** What an SSH client says first. */
  get opening(): Buffer[] {
    return [channelOpen('session', ours, windowBytes, packetBytes)]
  }

  /** The grant has no shell: the target's answer will only say that it failed. */
  refuseShell(): void {
    this.#shellRefused = true
  }

  // ---- as the relay sees a client

  get closed(): boolean {
    return this.#page.over
  }

  get waitingBytes(): number {
    return this.#page.queuedBytes
  }

  get queuedBytes(): number {
    return this.#page.queuedBytes
  }

  listen(events: TransportEvents): void {
    this.#events = events
  }

  guard(gate: Gate): void {
    this.#gate = gate
  }

  send(payload: Uint8Array): void {
    this.#waiting.push(Buffer.from(payload))
    if (this.#isScheduled) return
    this.#isScheduled = true
    this.#flushing = this.#flushing.then(() => this.#flush())
  }

  resume(): void {
    if (this.#typedBytes <= typedBytesMax) this.#page.resume()
  }

  release(): void {
    this.#waiting = []
    this.#gate = undefined
  }

  disconnect(_reason: number, text: string): void {
    void this.#flushing.then(() => this.#page.end(text))
  }

  end(): void {
    void this.#flushing.then(() => this.#page.leave())
  }

  async #flush(): Promise<void> {
    this.#isScheduled = false
    const gate = this.#gate
    try {
      const committed = gate?.() ?? true
      if (committed !== true) await committed
    } catch (thrown) {
      this.#waiting = []
      return this.#events?.refused(thrown)
    }
    // The recorder has failed meanwhile, and nothing leaves any more.
    if (gate !== this.#gate) return
    const payloads = this.#waiting
    this.#waiting = []
    for (const payload of payloads) this.#take(payload)
  }

  // ---- what the target says

  #take(payload: Buffer): void {
    switch (payload[0]) {
      case sshMessage.openConfirmation: return this.#opened(payload)
      case sshMessage.openFailure: {
        const { description } = parseOpenFailure(payload)
        return this.#page.fail(new SallyportError('target-refused', { detail: description }))
      }
      case sshMessage.data: return this.#show(payload.subarray(dataHeadBytes))
      case sshMessage.extendedData: return this.#show(payload.subarray(extendedDataHeadBytes))
      case sshMessage.windowAdjust:
        if (this.#channel !== undefined) this.#channel.room += windowAdjustBytes(payload)
        return this.#pour()
      case sshMessage.channelSuccess: return void this.#asked.shift()
      case sshMessage.channelFailure: return this.#failed()
      case sshMessage.channelRequest: return this.#told(payload)
      case sshMessage.close: return this.#over()
      case sshMessage.globalRequest:
        if (parseGlobalRequest(payload).wantReply) this.#say(Buffer.of(sshMessage.requestFailure))
        return
      case sshMessage.channelOpen: {
        const { sender } = parseChannelOpen(payload)
        return this.#say(openFailure(sender, openFailureReason.administrativelyProhibited, ''))
      }
    }
  }

  #opened(payload: Buffer): void {
    const { sender, window, packetBytesMax } = parseOpenConfirmation(payload)
    this.#channel = { number: sender, room: window, packetBytesMax: Math.min(packetBytesMax, packetBytes) }
    const { columns, rows } = this.#size
    this.#asked = ['terminal', 'shell']
    this.#say(channelRequest(sender, 'pty-req', true, terminalName, columns, rows, 0, 0, terminalModes))
    this.#say(channelRequest(sender, 'env', false, 'LANG', 'C.UTF-8'))
    this.#say(channelRequest(sender, 'shell', true))
    this.#pour()
  }

  #failed(): void {
    const what = this.#asked.shift()
    if (what === undefined) return
    const code = what === 'shell' && this.#shellRefused ? 'not-allowed' : 'target-refused'
    this.#page.fail(new SallyportError(code, { detail: `no ${what}` }))
  }

  #told(payload: Buffer): void {
    const { purpose, wantReply } = parseChannelRequest(payload)
    if (purpose.kind === 'exit-status') this.#exit = { status: purpose.status }
    if (purpose.kind === 'exit-signal') this.#exit = { signal: purpose.signal }
    if (wantReply) this.#say(channelSignal(sshMessage.channelFailure, this.#channel?.number ?? 0))
  }

  #show(bytes: Uint8Array): void {
    this.#unseenBytes += bytes.length
    this.#page.send(bytes)
  }

  #over(): void {
    this.#say(channelSignal(sshMessage.close, this.#channel?.number ?? 0))
    this.#page.say({ type: 'exit', ...this.#exit })
    this.#page.leave()
  }

  // ---- what the page says

  #heard(words: Words): void {
    if (words.type === 'ack') {
      const bytes = numberIn(words['bytes'], 1, this.#unseenBytes)
      if (bytes === undefined) return this.#page.breach('bytes that it was not sent')
      this.#unseenBytes -= bytes
      if (this.#channel !== undefined) this.#say(windowAdjust(this.#channel.number, bytes))
    } else if (words.type === 'size') {
      const size = sizeOf(words)
      if (size === undefined) return this.#page.breach('no size of a terminal')
      this.#size = size
      if (this.#channel === undefined) return
      const { columns, rows } = size
      this.#say(channelRequest(this.#channel.number, 'window-change', false, columns, rows, 0, 0))
    } else {
      this.#page.breach('words that no terminal says')
    }
  }

  #type(bytes: Buffer): void {
    this.#typed.push(bytes)
    this.#typedBytes += bytes.length
    this.#pour()
    if (this.#typedBytes > typedBytesMax) this.#page.pause()
  }

  /** As much of what was typed as the target takes. */
  #pour(): void {
    const channel = this.#channel
    if (channel === undefined || this.#events === undefined) return
    const wasFull = this.#typedBytes > typedBytesMax
    while (channel.room > 0 && this.#typed.length > 0 && !this.#page.over) {
      const first = this.#typed[0]!
      const bytes = Math.min(first.length, channel.room, channel.packetBytesMax)
      if (bytes === first.length) this.#typed.shift()
      else this.#typed[0] = first.subarray(bytes)
      this.#typedBytes -= bytes
      channel.room -= bytes
      this.#say(channelData(channel.number, first.subarray(0, bytes)))
    }
    if (wasFull && this.#typedBytes <= typedBytesMax) this.#page.resume()
  }

  /** To the target, as if it had come over a wire. */
  #say(payload: Buffer): void {
    if (this.#events === undefined) return
    this.#events.message(payload)
    if (!this.#events.room()) this.#page.pause()
  }

  #closed(): void {
    this.#left()
    this.#events?.closed(undefined)
  }
}
