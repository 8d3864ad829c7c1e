// A channel as a stream, for the one case in which we are its other end: `ssh -J` talks SSH inside a channel
// of the connection to us. Windows are kept on both sides: we grant what has been read, and send what was
// granted.
import { Duplex } from 'node:stream'
import {
  channelData, channelSignal, dataBytes, dataHeadBytes, sshMessage, windowAdjust, windowAdjustBytes
} from '../../wire/ssh/connection.ts'
import type { ChannelOpen } from '../../wire/ssh/connection.ts'
import { WireError } from '../../wire/error.ts'

/** As OpenSSH has it: what a peer may send before we have read. */
export const streamWindowBytes = 2 * 1024 * 1024
export const streamPacketBytes = 32 * 1024

export class ChannelStream extends Duplex {
  readonly #send: (payload: Uint8Array) => void
  readonly #peer: number
  readonly #packetBytesMax: number
  #room: number
  #granted = streamWindowBytes
  #read = 0
  #waiting: { rest: Buffer, done: () => void } | undefined
  #closed = false

  constructor(open: ChannelOpen, send: (payload: Uint8Array) => void) {
    super({ allowHalfOpen: true })
    this.#send = send
    this.#peer = open.sender
    this.#room = open.window
    this.#packetBytesMax = Math.min(open.packetBytesMax, streamPacketBytes)
  }

  /** A message of the peer for this channel. @throws WireError */
  receive(payload: Buffer): void {
    switch (payload[0]) {
      case sshMessage.data: return this.#data(payload)
      case sshMessage.windowAdjust:
        this.#room += windowAdjustBytes(payload)
        return this.#flush()
      case sshMessage.eof: return void this.push(null)
      case sshMessage.close:
        this.#closed = true
        this.push(null)
        this.destroy()
        return
      // Requests in such a channel do not exist.
      default: throw new WireError(`message ${payload[0]} in a forwarded channel`)
    }
  }

  override _read(): void {
    if (this.#read < streamWindowBytes / 2) return
    this.#send(windowAdjust(this.#peer, this.#read))
    this.#granted += this.#read
    this.#read = 0
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#waiting = { rest: chunk, done }
    this.#flush()
  }

  override _final(done: () => void): void {
    if (!this.#closed) this.#send(channelSignal(sshMessage.eof, this.#peer))
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#waiting = undefined
    this.#send(channelSignal(sshMessage.close, this.#peer))
    done(error)
  }

  #data(payload: Buffer): void {
    const bytes = dataBytes(payload)
    if (bytes > this.#granted) throw new WireError('data beyond the window')
    this.#granted -= bytes
    this.#read += bytes
    this.push(Buffer.from(payload.subarray(dataHeadBytes)))
  }

  #flush(): void {
    const waiting = this.#waiting
    if (waiting === undefined) return
    while (waiting.rest.length > 0 && this.#room > 0) {
      const bytes = Math.min(waiting.rest.length, this.#room, this.#packetBytesMax)
      this.#send(channelData(this.#peer, waiting.rest.subarray(0, bytes)))
      this.#room -= bytes
      waiting.rest = waiting.rest.subarray(bytes)
    }
    if (waiting.rest.length > 0) return
    this.#waiting = undefined
    waiting.done()
  }
}
