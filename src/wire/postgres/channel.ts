// A socket towards a target, read message by message during logins and hooks. What has arrived waits in one
// buffer that stops the socket when nobody asks for more, so a target that floods us fills its own send
// queue. Failures come in two kinds: ours (time-out, abort) end every read at once; the peer's end is told
// only after everything that it sent before has been read, or the reason in its last ErrorResponse would be
// lost.
import type { Socket } from 'node:net'
import { UpstreamError, WireError } from '../error.ts'
import { frameLengthMax, headerBytes, readFrame, readLength } from './frame.ts'

/** Unread bytes at which the socket is stopped while nobody reads: four reads of 64 KiB. */
const unreadBytesMax = 256 * 1024

const storeBytes = 4096

/** setTimeout overflows above it and would fire at once. */
const timerMsMax = 0x7fffffff

export interface Message {
  tag: number
  /** A copy: it stays what it is. */
  body: Buffer
}

/** Takes bytes that came from the target; false stops the socket until `resume`. */
export type Receive = (chunk: Buffer, bytes: number) => boolean

interface Listeners {
  socket: Socket
  remove(): void
}

export class Channel {
  // Not of the shared pool: logins would use that up, and what is kept of it keeps all of it.
  #store = Buffer.allocUnsafeSlow(storeBytes)
  #from = 0
  #to = 0
  #failure: Error | undefined
  #ended: Error | undefined
  #waiting: { wake: () => void, fail: (error: Error) => void } | undefined
  #stopped = false
  #listeners: Listeners | undefined
  #receive: Receive | undefined

  /** The socket of the moment: the TLS one once TLS is through. */
  get socket(): Socket {
    if (this.#listeners === undefined) throw new UpstreamError('unreachable', 'not connected')
    return this.#listeners.socket
  }

  /** Nothing more comes: it failed, or the peer has closed it. */
  get isOver(): boolean {
    return this.#failure !== undefined || this.#ended !== undefined
  }

  /** Bytes that have come and have not been read. */
  get unread(): number {
    return this.#to - this.#from
  }

  /**
   * Follows a socket. `flowing`: its bytes come by 'data'; otherwise its owner passes them to `accept`
   * (`onread`). `explain` names an error of the socket.
   */
  attach(socket: Socket, flowing: boolean, explain: (error: Error) => UpstreamError): void {
    this.detach()
    const onEnd = (): void => this.#end(new UpstreamError('unreachable', 'the target closed the connection'))
    const onError = (error: Error): void => this.#end(explain(error))
    const onData = (chunk: Buffer): void => {
      if (!this.accept(chunk, chunk.length)) socket.pause()
    }
    socket.on('error', onError).on('end', onEnd).on('close', onEnd)
    if (flowing) socket.on('data', onData)
    this.#listeners = {
      socket,
      remove: () => {
        // An error without a listener would end the process; 'close' follows it and is what the next owner
        // sees.
        socket.on('error', () => undefined)
        socket.off('error', onError).off('end', onEnd).off('close', onEnd).off('data', onData)
      }
    }
  }

  detach(): void {
    this.#listeners?.remove()
    this.#listeners = undefined
  }

  /** Takes the first `bytes` of `chunk`, by copy. False when the socket is to be stopped. */
  accept(chunk: Uint8Array, bytes: number): boolean {
    if (this.#receive !== undefined) return this.#receive(chunk as Buffer, bytes)
    if (this.#failure !== undefined) return false
    this.#reserve(bytes)
    this.#store.set(bytes === chunk.length ? chunk : chunk.subarray(0, bytes), this.#to)
    this.#to += bytes
    if (this.#waiting !== undefined) this.#waiting.wake()
    else if (this.unread > unreadBytesMax) this.#stopped = true
    return !this.#stopped
  }

  /** Ends every read, now and later, with this error. The socket stays open: `destroy` is the caller's. */
  fail(error: Error): void {
    this.#failure ??= error
    this.#waiting?.fail(this.#failure)
  }

  /** Fails when the caller's signal says so, until the returned function is called. */
  follow(signal: AbortSignal | undefined): () => void {
    const abort = (): void => {
      this.fail(new UpstreamError('aborted', 'the connection was given up', { cause: signal?.reason }))
    }
    if (signal?.aborted === true) abort()
    signal?.addEventListener('abort', abort, { once: true })
    return () => signal?.removeEventListener('abort', abort)
  }

  /** Fails after `ms` unless the returned function is called first. */
  limit(ms: number, step: string): () => void {
    const giveUp = (): void => this.fail(new UpstreamError('timeout', `${step} took longer than ${ms} ms`))
    const timer = setTimeout(giveUp, Math.min(ms, timerMsMax))
    return () => clearTimeout(timer)
  }

  write(bytes: Uint8Array): void {
    if (this.#failure !== undefined) throw this.#failure
    this.socket.write(bytes)
  }

  /** One byte: the answer to a request for TLS. */
  async byte(): Promise<number> {
    while (this.unread === 0) await this.#more()
    this.#check()
    return this.#store[this.#from++]!
  }

  /** The next `count` bytes, by copy: for protocols with headers of their own. The caller bounds `count`. */
  async bytes(count: number): Promise<Buffer> {
    while (this.unread < count) await this.#more()
    this.#check()
    this.#from += count
    return Buffer.from(this.#store.subarray(this.#from - count, this.#from))
  }

  /** The bytes before the next CR LF, which is taken too. @throws WireError above `bytesMax` */
  async line(bytesMax: number): Promise<Buffer> {
    for (let searched = 0; ;) {
      this.#check()
      const end = this.#store.subarray(this.#from, this.#to).indexOf('\r\n', searched)
      if (end > bytesMax || (end === -1 && this.unread > bytesMax + 1)) {
        throw new WireError(`a line is longer than ${bytesMax} bytes`)
      }
      if (end !== -1) return (await this.bytes(end + 2)).subarray(0, end)
      searched = Math.max(0, this.unread - 1)
      await this.#more()
    }
  }

  /** The next message. @throws WireError for a bad length or a body above `bodyBytesMax` */
  async message(bodyBytesMax: number): Promise<Message> {
    for (;;) {
      const message = this.messageAtHand(bodyBytesMax)
      if (message !== undefined) return message
      await this.#more()
    }
  }

  /** The next message if it is here already. @throws as `message` */
  messageAtHand(bodyBytesMax: number): Message | undefined {
    this.#check()
    if (this.unread < headerBytes) return undefined
    const length = readLength(this.#store, this.#from + 1, frameLengthMax)
    if (length - 4 > bodyBytesMax) throw new WireError(`message of ${length} bytes is above the limit`)
    const frame = readFrame(this.#store, this.#from, this.#to)
    if (frame === undefined) return undefined
    this.#from = frame.end
    return { tag: frame.tag, body: Buffer.from(this.#store.subarray(frame.bodyStart, frame.end)) }
  }

  /** Waits for what `start` announces; rejects when the channel fails or the peer ends first. */
  during<T>(start: (done: (value: T) => void) => void): Promise<T> {
    return new Promise((resolve, reject) => {
      const settle = (act: () => void): void => {
        this.#waiting = undefined
        act()
      }
      const error = this.#failure ?? this.#ended
      if (error !== undefined) return reject(error)
      this.#waiting = { wake: () => undefined, fail: reason => settle(() => reject(reason)) }
      start(value => settle(() => resolve(value)))
    })
  }

  /** Takes what has come and not been read, and stops the socket: the bytes behind it wait in the kernel. */
  takeRest(): Buffer {
    const rest = Buffer.from(this.#store.subarray(this.#from, this.#to))
    this.#from = this.#to = 0
    this.#stopped = true
    this.socket.pause()
    return rest
  }

  /** Passes all later bytes to `receive`, starts the socket, and lets go of it. */
  redirect(receive: Receive): void {
    const socket = this.socket
    if (this.#ended !== undefined) throw this.#ended
    if (socket.destroyed) throw new UpstreamError('unreachable', 'the connection was closed')
    const flowing = socket.listenerCount('data') > 0
    this.detach()
    this.#receive = receive
    // Nothing is kept here any more, and sessions are many and long.
    this.#store = Buffer.alloc(0)
    if (flowing) {
      socket.on('data', (chunk: Buffer) => {
        if (!receive(chunk, chunk.length)) socket.pause()
      })
    }
    socket.resume()
  }

  destroy(): void {
    this.fail(new UpstreamError('unreachable', 'the connection was closed'))
    const socket = this.#listeners?.socket
    this.detach()
    socket?.destroy()
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure
  }

  #end(error: Error): void {
    this.#ended ??= error
    this.#waiting?.fail(this.#ended)
  }

  async #more(): Promise<void> {
    this.#check()
    if (this.#ended !== undefined) throw this.#ended
    if (this.#stopped) {
      this.#stopped = false
      this.socket.resume()
    }
    await new Promise<void>((resolve, reject) => {
      this.#waiting = {
        wake: () => {
          this.#waiting = undefined
          resolve()
        },
        fail: error => {
          this.#waiting = undefined
          reject(error)
        }
      }
    })
  }

  #reserve(bytes: number): void {
    if (this.unread === 0) {
      this.#from = this.#to = 0
      // A large answer is over: give its room back.
      if (this.#store.length > unreadBytesMax) this.#store = Buffer.allocUnsafe(Math.max(storeBytes, bytes))
    }
    if (this.#to + bytes <= this.#store.length) return
    const needed = this.unread + bytes
    const fits = needed <= this.#store.length / 2
    const target = fits ? this.#store : Buffer.allocUnsafe(Math.max(needed, this.#store.length * 2))
    this.#store.copy(target, 0, this.#from, this.#to)
    this.#to -= this.#from
    this.#from = 0
    this.#store = target
  }
}
