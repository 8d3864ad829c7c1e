// One SSH connection as messages (RFC 4253): bytes of a socket in, whole payloads out, and back. Key
// exchange, ciphers and integrity are ssh2's (ssh2.ts); what a message means is not known here, and nothing
// of ssh2 answers one. Messages are gathered and written once for each turn of the event loop, in one piece,
// encrypted where they lie; keys are changed after a gibibyte or an hour. A payload that is handed out is a
// view of the read buffer: it is valid until the handler returns.
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Cancel, Clock } from '../../clock.ts'
import { SallyportError } from '../../errors.ts'
import { sshFields, sshUint32 } from '../../wire/ssh/data.ts'
import { ReadBuffer } from '../buffers.ts'
import { readShared, readStream } from '../takeover.ts'
import { Identification } from './identification.ts'
import { Outbox, writeTo } from './outbox.ts'
import type { Gate } from './outbox.ts'
import { ssh2 } from './ssh2.ts'
import type { HostKey, Negotiated, Offer, Protocol } from './ssh2.ts'

export const transportMessage = {
  disconnect: 1, ignore: 2, unimplemented: 3, debug: 4, serviceRequest: 5, serviceAccept: 6, extInfo: 7,
  kexInit: 20, ping: 192, pong: 193
} as const

/** Reasons of SSH_MSG_DISCONNECT (RFC 4253 section 11.1). */
export const disconnectReason = {
  protocolError: 2, byApplication: 11, noMoreAuthMethods: 14
} as const

/** Clients send `eow` and `no-more-sessions` only to peers whose name begins so. */
const ident = 'OpenSSH_Sallyport_0.1'

/** RFC 4253 section 9: keys are good for a gigabyte or an hour. */
const rekeyBytesDefault = 1024 * 1024 * 1024
const rekeyMs = 3_600_000

/** Of a certificate for an ed25519 key (PROTOCOL.certkeys). */
export const certifiedType = 'ssh-ed25519-cert-v01@openssh.com'

/**
 * How often a peer may ask for new keys: one exchange costs a millisecond of everybody's time. So many at
 * once, then one a second and one for so many bytes.
 */
const rekeysMax = 64
const rekeyPaidBytes = 64 * 1024
const rekeyPaidMs = 1000
/** While keys are exchanged everything waits: not longer than this. */
const rekeyGraceMs = 30_000

/** A thousand strangers may hold a packet each. */
const strangerPacketBytesMax = 35_000

/** A peer's last words are believed no further. */
const reasonCharactersMax = 200

/** Whoever was told goodbye has so long to close. */
const lingerMs = 500

export type Side =
  | {
      kind: 'server', hostKeys: Readonly<Record<string, HostKey>>, signatures: readonly string[]
      /** Shown instead of the plain ed25519 key to clients that know certificates. */
      certificate?: Uint8Array | undefined
    }
  /** `verify` sees the target's host key before anything is sent that matters. */
  | { kind: 'client', verify(blob: Buffer): boolean }

/** The peer did what the protocol does not allow: unlike a connection that broke. */
export class ProtocolBreach extends Error {
  /** What a client hears of it, and the log under the same reference. */
  readonly refusal: SallyportError

  constructor(detail: string) {
    super(detail)
    this.refusal = new SallyportError('protocol-violation', { detail })
  }
}

export interface TransportSetting {
  socket: Duplex
  side: Side
  offer: Offer
  clock: Clock
  /** `shared`: reads without an allocation each (takeover.ts); for sockets that we accepted. */
  readMode: 'shared' | 'stream'
  /** After so many bytes of both directions keys are changed; default: a gibibyte. */
  rekeyBytes?: number | undefined
}

export interface TransportEvents {
  /** The first key exchange is done: messages may be sent. */
  ready(negotiated: Negotiated): void
  /** A message of a service: 5–7 and from 50 on. */
  message(payload: Buffer): void
  /** A read was handed out; false stops reading until `resume`. */
  room(): boolean
  /** The gate threw (`guard`): nothing was delivered, and nothing will be. */
  refused(thrown: unknown): void
  /** What was waiting has been written, or keys were exchanged: whoever was stopped may go on. */
  drain(): void
  /** The last event. `error`: not in order; its text is the peer's in part, so it is for operators. */
  closed(error: Error | undefined): void
}

export class Transport {
  readonly #setting: TransportSetting
  readonly #protocol: Protocol
  readonly #outbox: Outbox
  readonly #buffer = new ReadBuffer()
  #socket: Duplex
  #events: TransportEvents
  #isReady = false
  #isStranger = true
  #closed = false
  #error: Error | undefined
  #bytes = 0
  /** Read since the beginning. */
  #bytesAll = 0
  #identification: Identification | undefined
  #rekeys = { left: rekeysMax, at: 0, bytes: 0 }
  #stopRekey: Cancel | undefined
  #stopGrace: Cancel | undefined
  #lingering: Cancel | undefined

  constructor(setting: TransportSetting, events: TransportEvents) {
    this.#setting = setting
    this.#events = events
    this.#socket = setting.socket
    const { side, offer } = setting
    this.#identification = new Identification(side.kind === 'client')
    this.#protocol = ssh2().makeProtocol({
      server: side.kind === 'server', ident, offer, messageHandlers: {},
      ...side.kind === 'server'
        ? { hostKeys: this.#hostKeysOf(side) }
        : { hostVerifier: blob => side.verify(blob) },
      onWrite: bytes => this.#outbox.pass(bytes),
      onError: error => this.#fail(error),
      onHandshakeComplete: () => undefined
    })
    this.#outbox = new Outbox(
      this.#protocol, (bytes, done) => writeTo(this.#socket, bytes, done),
      thrown => this.#events.refused(thrown)
    )
    this.#protocol._onPayload = payload => this.#payload(payload)
    this.#watchHandshakes()
  }

  /** RFC 4253 section 7.2: the hash of the first key exchange; what people's signatures are bound to. */
  get sessionId(): Buffer {
    return this.#protocol._kex?.sessionID ?? Buffer.alloc(0)
  }

  get negotiated(): Negotiated | undefined {
    return this.#protocol._kex?.negotiated
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Bytes that wait for the peer to read; Infinity while keys are exchanged, when everything waits. */
  get waitingBytes(): number {
    if (this.#protocol._kexinit !== undefined) return Infinity
    return this.queuedBytes
  }

  /** The same without the exception: what is held for the peer. */
  get queuedBytes(): number {
    return this.#socket.writableLength + this.#outbox.waitingBytes
  }

  /** Speaks first and begins to read. */
  start(): void {
    const { readMode, clock } = this.#setting
    if (this.#socket.destroyed) return this.#close()
    const socket = this.#socket
    if (readMode === 'shared' && socket instanceof Socket) {
      this.#socket = readShared(socket, this.#receive, this.#buffer)
    } else {
      readStream(socket, this.#receive)
    }
    this.#socket.on('error', error => { this.#error ??= error })
    this.#socket.on('drain', () => this.#events.drain())
    // Ended twice it would make an error for nobody, stack and all.
    this.#socket.on('end', () => this.#socket.writableEnded || this.#socket.end())
    this.#socket.on('close', () => this.#close())
    this.#stopRekey = clock.after(rekeyMs, () => this.#rekey())
    this.#protocol.start()
    this.#socket.resume()
  }

  /** Whoever comes after the login listens from now on; the peer is no stranger any more. */
  listen(events: TransportEvents): void {
    this.#events = events
    this.#isStranger = false
  }

  /** From now on nothing leaves before `gate` says so. */
  guard(gate: Gate): void {
    this.#outbox.guard(gate)
  }

  /** Sends one message; it is copied. Dropped when the connection is over. */
  send(payload: Uint8Array): void {
    if (this.#usable) this.#outbox.send(payload)
  }

  /** Drops what has not left; from now on only a last word is sent. Closes when that would be garbled. */
  release(): void {
    if (!this.#outbox.release()) this.destroy()
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    if (!this.#closed) this.#socket.resume()
  }

  /** Tells the peer why, in words that its user sees, and closes. Idempotent. */
  disconnect(reason: number, text: string): void {
    if (this.#usable && this.#isReady) {
      this.send(Buffer.concat([
        Buffer.of(transportMessage.disconnect), sshUint32(reason), sshFields(text, '')
      ]))
      this.#outbox.flush()
    }
    this.end()
  }

  /** Closes once what was sent is written; a peer that does not close its side is cut. */
  end(): void {
    if (this.#closed || this.#lingering !== undefined) return
    this.#outbox.flush()
    if (!this.#socket.writableEnded) this.#socket.end()
    this.#socket.resume()
    this.#lingering = this.#setting.clock.after(lingerMs, () => this.#socket.destroy())
  }

  destroy(error?: Error): void {
    this.#error ??= error
    this.#socket.destroy()
  }

  // ---- reading

  /** False once freed: a cipher of the native binding must not be touched then. */
  get #usable(): boolean {
    return !this.#closed && this.#protocol._destruct !== undefined
  }

  readonly #receive = (chunk: Buffer, bytes: number): boolean => {
    if (!this.#usable || this.#lingering !== undefined) return true
    try {
      if (this.#identification !== undefined) return this.#identify(chunk.subarray(0, bytes))
      // While keys are exchanged ssh2 keeps views of what it was given.
      const kept = this.#protocol._kexinit !== undefined || !this.#isReady
      // Its ciphers take a read that lies within one packet whole, whatever end they are told: so no more is
      // shown.
      const read = bytes === chunk.length ? chunk : chunk.subarray(0, bytes)
      const readable = kept ? Buffer.from(read) : read
      this.#protocol.parse(readable, 0, bytes)
      this.#keepPart(readable)
      this.#boundStranger()
    } catch (thrown) {
      this.#fail(thrown instanceof Error ? thrown : new Error(String(thrown)))
      return true
    }
    this.#buffer.settle(chunk, bytes, false, false, false)
    this.#count(bytes)
    return this.#events.room()
  }

  #identify(chunk: Uint8Array): boolean {
    const whole = this.#identification?.take(chunk)
    if (whole === undefined) return true
    this.#identification = undefined
    this.#protocol.parse(whole, 0, whole.length)
    this.#boundStranger()
    return true
  }

  /** RFC 4253 section 6.1 asks for 35,000 bytes; more is for people who have logged in. */
  #boundStranger(): void {
    const bytes = this.#protocol._decipher?._len ?? 0
    if (!this.#isStranger || bytes <= strangerPacketBytesMax) return
    throw new ProtocolBreach(`a packet of ${bytes} bytes`)
  }

  /** A packet that is not whole yet may lie in the buffer that the next read overwrites. */
  #keepPart(chunk: Buffer): void {
    const decipher = this.#protocol._decipher
    const part = decipher?._packet
    if (decipher !== undefined && part?.buffer === chunk.buffer) decipher._packet = Buffer.from(part)
  }

  #payload(payload: Buffer): unknown {
    const type = payload[0]
    if (type === undefined) return
    if (type >= 50 && type < transportMessage.ping) return this.#events.message(payload)
    switch (type) {
      case transportMessage.serviceRequest:
      case transportMessage.serviceAccept:
      case transportMessage.extInfo: return this.#events.message(payload)
      case transportMessage.ignore:
      case transportMessage.unimplemented:
      case transportMessage.debug: return
      case transportMessage.disconnect: return this.#left(payload)
      case transportMessage.kexInit: return this.#kexInit(payload)
      case transportMessage.ping: return this.#pong(payload)
      default: throw new Error(`message ${type} where none is expected`)
    }
  }

  #kexInit(payload: Buffer): void {
    if (this.#protocol._kexinit === undefined) this.#payRekey()
    this.#awaitKeys()
    this.#outbox.seal()
    ssh2().handleKexInit(this.#protocol, Buffer.from(payload))
    const decipher = this.#protocol._decipher
    if (decipher === undefined) return
    // What follows may come in the same read, and is kept until the keys are changed.
    const inner = decipher._onPayload
    decipher._onPayload = next => inner(Buffer.from(next))
  }

  /** OpenSSH's answer to typing in rhythm: clients hide keystrokes among these. */
  #pong(payload: Buffer): void {
    const answer = Buffer.from(payload)
    answer[0] = transportMessage.pong
    this.send(answer)
  }

  #left(payload: Buffer): void {
    const length = payload.length >= 9 ? payload.readUInt32BE(5) : 0
    const said = payload.toString('utf8', 9, 9 + Math.min(length, reasonCharactersMax))
    const code = payload.length >= 5 ? payload.readUInt32BE(1) : 0
    if (code !== disconnectReason.byApplication) this.#error ??= new Error(`the peer left: ${code} ${said}`)
    this.#socket.destroy()
  }

  // ---- key exchange

  #hostKeysOf(side: Extract<Side, { kind: 'server' }>): Readonly<Record<string, HostKey>> {
    const { hostKeys, certificate } = side
    const plain = hostKeys['ssh-ed25519']
    if (certificate === undefined || plain === undefined) return hostKeys
    const blob = Buffer.from(certificate)
    const certified: HostKey = {
      type: plain.type,
      getPublicSSH: () => blob,
      sign: data => {
        // The signature is named after the key, not after the certificate; ssh2 names it after what was
        // agreed.
        const negotiated = this.#protocol._kex?.negotiated
        if (negotiated !== undefined) negotiated.serverHostKey = plain.type
        return plain.sign(data)
      }
    }
    return { ...hostKeys, [certifiedType]: certified }
  }

  #watchHandshakes(): void {
    const complete = this.#protocol._onHandshakeComplete
    this.#protocol._onHandshakeComplete = negotiated => {
      const kex = this.#protocol._kex
      const wantsExtensions = kex?.remoteExtInfoEnabled === true
      // ssh2's own list of signatures lacks a comma and has what we do not take.
      if (kex !== undefined) kex.remoteExtInfoEnabled = false
      complete(negotiated)
      this.#outbox.deferredBytes = 0
      this.#stopGrace?.()
      this.#stopGrace = undefined
      const first = !this.#isReady
      this.#isReady = true
      if (first && wantsExtensions) this.#sendExtensions()
      if (first) this.#events.ready(negotiated)
      else this.#events.drain()
    }
  }

  #sendExtensions(): void {
    const { side } = this.#setting
    if (side.kind !== 'server') return
    const head = Buffer.concat([Buffer.of(transportMessage.extInfo), sshUint32(2)])
    this.send(Buffer.concat([
      head, sshFields('server-sig-algs', side.signatures.join(','), 'ping@openssh.com', '0')
    ]))
  }

  #count(bytes: number): void {
    this.#bytes += bytes
    this.#bytesAll += bytes
    const { rekeyBytes = rekeyBytesDefault } = this.#setting
    if (this.#bytes + this.#outbox.bytes >= rekeyBytes) this.#rekey()
  }

  #rekey(): void {
    if (!this.#usable || !this.#isReady || this.#protocol._kexinit !== undefined) return
    this.#bytes = this.#outbox.bytes = 0
    this.#stopRekey?.()
    this.#stopRekey = this.#setting.clock.after(rekeyMs, () => this.#rekey())
    this.#outbox.seal()
    this.#awaitKeys()
    this.#protocol.rekey()
  }

  /** The peer wants new keys. */
  #payRekey(): void {
    const { left, at, bytes } = this.#rekeys
    const [now, all] = [this.#setting.clock.monotonicMs(), this.#bytesAll]
    const paid = (now - at) / rekeyPaidMs + (all - bytes) / rekeyPaidBytes
    this.#rekeys = { left: Math.min(rekeysMax, left + paid) - 1, at: now, bytes: all }
    if (this.#rekeys.left < 0) throw new Error('new keys are asked for too often')
  }

  #awaitKeys(): void {
    this.#stopGrace ??= this.#setting.clock.after(rekeyGraceMs, () =>
      this.#fail(new Error('new keys were not exchanged in time')))
  }

  // ---- the end

  #fail(error: Error): void {
    const breach = new ProtocolBreach(error.message)
    this.#error ??= breach
    const isServer = this.#setting.side.kind === 'server'
    if (this.#usable && this.#isReady) {
      this.disconnect(disconnectReason.protocolError, isServer ? breach.refusal.clientMessage : '')
    } else if (isServer) this.end()
    else {
      // Whoever waits for a target shall hear at once what is wrong with it.
      this.#outbox.flush()
      this.#socket.destroy()
    }
  }

  #close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#stopRekey?.()
    this.#stopGrace?.()
    this.#lingering?.()
    this.#outbox.close()
    this.#protocol.cleanup()
    this.#events.closed(this.#error)
  }
}
