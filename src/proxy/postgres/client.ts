// The connection of one client: first read message by message, while it is a stranger, later handed to the
// relay. Nothing is consumed from the socket that TLS should see, so that plain bytes stuffed behind a
// request for TLS are found (CVE-2021-23214), and what waits unread is bounded by the socket. A failure of
// ours (grace time over) ends the read that is under way; after that every read fails.
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { SecureContext } from 'node:tls'
import type { Clock } from '../../clock.ts'
import { SallyportError } from '../../errors.ts'
import type { ReadBuffer } from '../buffers.ts'
import { readShared } from '../takeover.ts'

/** A refusal or a last message is waited for so long; then the client is not reading. */
const farewellMs = 1000

/** Nobody waits longer than this for a stranger to close its side. */
const strangerLingerMs = 1000

export type Receive = (chunk: Buffer, bytes: number) => boolean

const nothing = Buffer.alloc(0)

export class Client {
  readonly address: string
  readonly #clock: Clock
  #socket: Socket
  #inbox: Buffer = nothing
  #failure: SallyportError | undefined
  #waiting: { wake: () => void, fail: (error: SallyportError) => void } | undefined
  #onGone: (() => void) | undefined
  #onLeft: (() => void) | undefined
  #encrypted = false

  constructor(socket: Socket, address: string, clock: Clock, onGone: () => void) {
    this.address = address
    this.#clock = clock
    this.#onGone = onGone
    this.#socket = socket
    this.#follow(socket)
  }

  get socket(): Socket {
    return this.#socket
  }

  get encrypted(): boolean {
    return this.#encrypted
  }

  /** ALPN protocol of the TLS connection; undefined without. */
  get alpn(): string | undefined {
    const protocol = this.#socket instanceof TLSSocket ? this.#socket.alpnProtocol : false
    return protocol === false || protocol === null ? undefined : protocol
  }

  /** True when the client has closed its side or the connection is gone. */
  get gone(): boolean {
    return this.#socket.destroyed || this.#socket.readableEnded
  }

  /** What has come and was not taken yet. */
  get inbox(): Buffer {
    return this.#inbox
  }

  take(bytes: number): Buffer {
    const taken = this.#inbox.subarray(0, bytes)
    this.#inbox = bytes === this.#inbox.length ? nothing : this.#inbox.subarray(bytes)
    return taken
  }

  /**
   * Resolves when more bytes are in the inbox. @throws SallyportError `client-closed`, or what `fail` was
   * given
   */
  async more(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    const before = this.#inbox.length
    this.#read()
    if (this.#inbox.length === before) await this.#wait()
  }

  /** Ends the read that is under way, and every later one. */
  fail(error: SallyportError): void {
    this.#failure ??= error
    this.#waiting?.fail(this.#failure)
    this.#onLeft?.()
  }

  /** Calls `act` when the client goes away before `takeOver`, or is gone already; returns how to stop. */
  onLeft(act: () => void): () => void {
    this.#onLeft = act
    if (this.#failure !== undefined || this.gone) act()
    return () => { this.#onLeft = undefined }
  }

  /** Watches the client while nobody reads, so that its going away is noticed. */
  watch(): void {
    this.#socket.read(0)
  }

  write(bytes: Uint8Array): void {
    if (this.#socket.writable) this.#socket.write(bytes)
  }

  /**
   * Speaks TLS from here on, as its server; resolves after the handshake. @throws SallyportError
   * `client-closed`
   */
  async startTls(context: SecureContext): Promise<void> {
    const plain = this.#socket
    this.#unfollow(plain)
    // A client that speaks TLS at once: its hello was looked at and belongs to TLS.
    if (this.#inbox.length > 0) plain.unshift(this.#inbox)
    this.#inbox = nothing
    const socket = new TLSSocket(plain, {
      isServer: true, secureContext: context, ALPNProtocols: ['postgresql']
    })
    // After the handshake Node would drop such errors, and the connection would hang.
    socket.on('_tlsError', () => socket.destroy())
    this.#socket = socket
    this.#encrypted = true
    const secured = new Promise<void>((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure)
      this.#waiting = { wake: () => undefined, fail: reject }
      socket.once('secure', resolve)
    })
    this.#follow(socket)
    await secured.finally(() => { this.#waiting = undefined })
  }

  /**
   * From now on `receive` gets what the client sends, first of all what it has sent already; when it returns
   * false the socket is stopped until `resume`. 'end', 'close', 'error' and 'drain' of `socket` are the
   * receiver's. `buffer`: reads without allocation, on plain connections.
   */
  takeOver(receive: Receive, buffer: ReadBuffer | undefined): void {
    this.#read()
    this.#unfollow(this.#socket)
    if (buffer !== undefined && !this.#encrypted) {
      this.#socket = readShared(this.#socket, receive, buffer)
    } else {
      const socket = this.#socket
      socket.on('data', (chunk: Buffer) => {
        if (!receive(chunk, chunk.length)) socket.pause()
      })
    }
    const socket = this.#socket
    socket.once('close', () => this.#leave())
    const waiting = this.take(this.#inbox.length)
    if (waiting.length > 0 && !receive(waiting, waiting.length)) socket.pause()
    else socket.resume()
  }

  /**
   * Says `last` and closes. Resolves when that has been sent, or after a second; a client that does not close
   * its side is cut after `lingerMs`. Never throws.
   */
  async close(last: Uint8Array = nothing, lingerMs: number = strangerLingerMs): Promise<void> {
    const socket = this.#socket
    if (socket.destroyed) return
    // What the client still sends is thrown away: unread bytes would turn our close into a reset, and the
    // last message would be lost.
    socket.off('readable', this.#onReadable)
    socket.resume()
    const cut = this.#clock.after(lingerMs, () => socket.destroy())
    socket.once('close', cut)
    await new Promise<void>(resolve => {
      const stop = this.#clock.after(farewellMs, resolve)
      const done = (): void => {
        stop()
        resolve()
      }
      socket.once('close', done)
      if (socket.writableEnded) socket.once('finish', done)
      else socket.end(last, done)
    })
    if (socket.readableEnded) socket.destroy()
    else socket.once('end', () => socket.destroy())
  }

  destroy(): void {
    this.#socket.destroy()
  }

  // ---- reading while the client is a stranger

  readonly #onReadable = (): void => {
    if (this.#waiting === undefined) {
      // Nothing is taken, but an end of the stream is noticed.
      this.#socket.read(0)
      return
    }
    this.#read()
    if (this.#inbox.length > 0) this.#waiting.wake()
  }

  readonly #onClose = (): void => {
    this.fail(new SallyportError('client-closed'))
    this.#leave()
  }

  readonly #onEnd = (): void => this.fail(new SallyportError('client-closed'))

  #leave(): void {
    this.#onGone?.()
    this.#onGone = undefined
  }

  #follow(socket: Socket): void {
    socket.on('error', ignore)
    socket.on('readable', this.#onReadable).on('close', this.#onClose).on('end', this.#onEnd)
  }

  #unfollow(socket: Socket): void {
    socket.off('readable', this.#onReadable).off('close', this.#onClose).off('end', this.#onEnd)
  }

  #read(): void {
    const chunk = this.#socket.read() as Buffer | null
    if (chunk !== null) this.#inbox = this.#inbox.length === 0 ? chunk : Buffer.concat([this.#inbox, chunk])
  }

  #wait(): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (act: () => void): void => {
        this.#waiting = undefined
        act()
      }
      this.#waiting = {
        wake: () => settle(resolve),
        fail: error => settle(() => reject(error))
      }
    })
  }
}

// 'close' follows every error and is what counts.
function ignore(): void {
  return undefined
}
