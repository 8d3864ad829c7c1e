// One end of an SSH connection that says what it is told, in any phase: a client or a server of ssh2's packet
// protocol with nothing above it. Tests write whole payloads, before, during and after the key exchange, and
// read every payload that came back. For peers that lie; it checks nothing.
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { offerOf, targetHostKeys } from '../../src/proxy/ssh/algorithms.ts'
import { ssh2 } from '../../src/proxy/ssh/ssh2.ts'
import type { HostKey, Offer, Protocol } from '../../src/proxy/ssh/ssh2.ts'
import { SshReader } from '../../src/wire/ssh/data.ts'

export interface PeerSetting {
  /** Present: a server with these keys. */
  hostKeys?: Readonly<Record<string, HostKey>>
  offer?: Partial<Offer>
  ident?: string
  /** Told of every payload, before it is queued. */
  heard?: (payload: Buffer) => void
}

const [disconnectMessage, kexInitMessage] = [1, 20]

export class SshPeer {
  readonly socket: Socket
  readonly #protocol: Protocol
  readonly #heard: ((payload: Buffer) => void) | undefined
  readonly inbox: Buffer[] = []
  #wake: () => void = () => undefined
  /** The other end's last words. */
  farewell: { reason: number, text: string } | undefined
  closed = false
  isReady = false
  handshakes = 0
  /** Set: keeps no payloads. */
  deaf = false

  constructor(socket: Socket, { hostKeys, offer, ident = 'OpenSSH_test', heard }: PeerSetting = {}) {
    this.socket = socket
    this.#heard = heard
    const common = offerOf(hostKeys === undefined ? targetHostKeys : Object.keys(hostKeys))
    this.#protocol = ssh2().makeProtocol({
      server: hostKeys !== undefined, ident, offer: { ...common, ...offer }, messageHandlers: {},
      ...hostKeys === undefined ? { hostVerifier: () => true } : { hostKeys },
      onWrite: bytes => { if (!socket.destroyed) socket.write(bytes) },
      onError: () => socket.destroy(),
      onHandshakeComplete: () => {
        this.isReady = true
        this.handshakes++
        this.#wake()
      }
    })
    this.#protocol._onPayload = payload => this.#payload(payload)
    socket.on('error', () => undefined)
    socket.on('data', (chunk: Buffer) => this.#parse(chunk))
    socket.on('end', () => socket.end())
    socket.on('close', () => {
      this.closed = true
      this.#protocol.cleanup()
      this.#wake()
    })
  }

  start(): this {
    this.#protocol.start()
    return this
  }

  get sessionId(): Buffer {
    return this.#protocol._kex?.sessionID ?? Buffer.alloc(0)
  }

  /** What was ready is sent in the order of the calls; while keys are exchanged it waits. */
  send(...payloads: readonly Uint8Array[]): this {
    for (const payload of payloads) {
      if (this.#protocol._destruct === undefined || this.socket.destroyed) return this
      const { write } = this.#protocol._packetRW
      const packet = write.alloc(payload.length)
      packet.set(payload, write.allocStart)
      ssh2().sendPacket(this.#protocol, write.finalize(packet))
    }
    return this
  }

  /** Sends at once, even where only messages of the key exchange may stand. */
  sendNow(payload: Uint8Array): this {
    const held = this.#protocol._kexinit
    const { write } = this.#protocol._packetRW as unknown as { write: {
      allocStartKEX: number, alloc(bytes: number, force: boolean): Buffer
      finalize(packet: Buffer, force: boolean): Buffer
    } }
    const packet = write.alloc(payload.length, true)
    packet.set(payload, write.allocStartKEX)
    const { _cipher } = this.#protocol as unknown as { _cipher: { encrypt(packet: Buffer): void } }
    _cipher.encrypt(write.finalize(packet, true))
    if (held !== undefined) this.#protocol._kexinit = held
    return this
  }

  rekey(): void {
    this.#protocol.rekey()
  }

  /** The next payload; undefined when the connection is closed. */
  async next(): Promise<Buffer | undefined> {
    while (this.inbox.length === 0 && !this.closed) await this.#more()
    return this.inbox.shift()
  }

  /** The next payload of one of these numbers; what comes before is dropped. */
  async until(...types: readonly number[]): Promise<Buffer | undefined> {
    for (;;) {
      const payload = await this.next()
      if (payload === undefined || types.includes(payload[0]!)) return payload
    }
  }

  /** Keys are exchanged, or the connection is closed. */
  async ready(): Promise<this> {
    while (!this.isReady && !this.closed) await this.#more()
    return this
  }

  async end(): Promise<void> {
    while (!this.closed) await this.#more()
  }

  #more(): Promise<void> {
    return new Promise(resolve => {
      const before = this.#wake
      this.#wake = () => {
        this.#wake = () => undefined
        before()
        resolve()
      }
    })
  }

  #parse(chunk: Buffer): void {
    try {
      if (this.#protocol._destruct !== undefined) this.#protocol.parse(chunk, 0, chunk.length)
    } catch {
      this.socket.destroy()
    }
  }

  #payload(payload: Buffer): void {
    const type = payload[0]
    if (type === kexInitMessage) return ssh2().handleKexInit(this.#protocol, Buffer.from(payload))
    this.#heard?.(payload)
    if (type === disconnectMessage) {
      const reader = new SshReader(payload, 1)
      this.farewell = { reason: reader.uint32(), text: reader.text() }
    } else if (!this.deaf) {
      this.inbox.push(Buffer.from(payload))
    }
    this.#wake()
  }
}

export async function dial(port: number, from = '127.0.0.1'): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port, localAddress: from, noDelay: true, allowHalfOpen: true })
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', reject)
  })
  return socket
}

/** A client that has exchanged keys. */
export async function sshPeer(port: number, setting: PeerSetting = {}, from?: string): Promise<SshPeer> {
  return new SshPeer(await dial(port, from), setting).start().ready()
}
