// A PostgreSQL target that does what a script says: it can log a client in properly, up to any point, and
// then lie. Without such a peer the promises about hostile targets rest on a server that never breaks a rule.
// It listens on a free loopback port, keeps every byte that came in clear (to look for passwords in), and
// counts what it could send.
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { tlsServerEndPoint } from '../../src/wire/postgres/channel-binding.ts'
import {
  authenticationOk, authenticationSasl, authenticationSaslContinue, authenticationSaslFinal, backendKeyData,
  parameterStatus, readyForQuery
} from '../../src/wire/postgres/messages.ts'
import { parseSaslInitialResponse } from '../../src/wire/postgres/statements.ts'
import { ScramServer } from '../../src/wire/postgres/scram.ts'
import { selfSignedCertificate, type SelfSigned } from '../../src/wire/x509.ts'

export type Script = (peer: Peer) => Promise<void> | void

export interface Target extends AsyncDisposable {
  readonly port: number
  /** Everything that came in clear, over all connections. */
  readonly received: Buffer[]
  /** Peers in the order of their coming. */
  readonly peers: Peer[]
  close(): Promise<void>
}

export interface Lies {
  /** Takes the place of the first SCRAM message; `mine` is what an honest server would say. */
  challenge?: (mine: string, clientFirst: string) => string
  /** Takes the place of the final SCRAM message. */
  signature?: (mine: string) => string
}

export const cancelPid = 4711
export const cancelKey = Buffer.from('c0ffee11', 'hex')

/** A self-signed certificate for 127.0.0.1 and localhost; expired or for other names on request. */
export function certificateFor(
  names: readonly string[] = ['127.0.0.1', 'localhost'], { expired = false }: { expired?: boolean } = {}
): SelfSigned {
  const day = 86_400_000
  const until = Date.now() + (expired ? -day : 10 * day)
  return selfSignedCertificate({
    commonName: 'target', names, validFrom: new Date(until - 20 * day), validUntil: new Date(until)
  })
}

/** Bytes from hex; blanks are for the eye. */
export function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(' ', ''), 'hex')
}

/**
 * Starts a target; `script` runs for each connection. A script that fails because the client left is over.
 */
export async function startTarget(script: Script, certificate?: SelfSigned): Promise<Target> {
  const received: Buffer[] = []
  const peers: Peer[] = []
  const server: Server = createServer(socket => {
    socket.on('data', chunk => received.push(chunk))
    const peer = new Peer(socket, certificate)
    peers.push(peer)
    void (async () => script(peer))().catch((error: unknown) => {
      if (!peer.closed) peer.broke = error
      socket.destroy()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const close = async (): Promise<void> => {
    for (const peer of peers) peer.destroy()
    await new Promise(resolve => server.close(resolve))
  }
  return { port, received, peers, close, [Symbol.asyncDispose]: close }
}

/** One connection, seen from the target. */
export class Peer {
  socket: Socket
  closed = false
  /** A script that failed for another reason than the client's leaving: a mistake in the test. */
  broke: unknown
  bytesSent = 0
  /** The login mechanism that the client chose. */
  mechanism = ''
  readonly #certificate: SelfSigned | undefined
  #have = Buffer.alloc(0)
  #wake: () => void = () => undefined

  constructor(socket: Socket, certificate: SelfSigned | undefined) {
    this.socket = socket
    this.#certificate = certificate
    this.#follow(socket)
  }

  #follow(socket: Socket): void {
    this.socket = socket
    socket.setNoDelay(true)
    socket.on('error', () => undefined)
    socket.on('data', chunk => {
      if (this.socket !== socket) return
      this.#have = Buffer.concat([this.#have, chunk])
      this.#wake()
    })
    socket.on('close', () => {
      if (this.socket !== socket) return
      this.closed = true
      this.#wake()
    })
  }

  async read(bytes: number): Promise<Buffer> {
    while (this.#have.length < bytes) {
      if (this.closed) throw new Error('the client left')
      await new Promise<void>(resolve => { this.#wake = resolve })
    }
    const taken = this.#have.subarray(0, bytes)
    this.#have = this.#have.subarray(bytes)
    return taken
  }

  /** A packet without a tag: its body. */
  async packet(): Promise<Buffer> {
    const length = (await this.read(4)).readInt32BE(0)
    return this.read(length - 4)
  }

  async message(): Promise<{ tag: string, body: Buffer }> {
    const tag = (await this.read(1)).toString('latin1')
    return { tag, body: await this.packet() }
  }

  send(...parts: readonly (Uint8Array | string)[]): void {
    for (const part of parts) {
      const bytes = typeof part === 'string' ? hex(part) : part
      this.bytesSent += bytes.length
      this.socket.write(bytes)
    }
  }

  /** Answers SSLRequest with S and speaks TLS from then on. */
  async startTls(): Promise<void> {
    await this.packet()
    this.send(Buffer.from('S'))
    this.followTls()
  }

  followTls(): void {
    const { certificate: cert, privateKey: key } = this.#certificate ?? certificateFor()
    this.#follow(new TLSSocket(this.socket, { isServer: true, cert, key, ALPNProtocols: ['postgresql'] }))
  }

  get #binding(): Buffer | undefined {
    if (!(this.socket instanceof TLSSocket) || this.#certificate === undefined) return undefined
    return tlsServerEndPoint(new X509Certificate(this.#certificate.certificate).raw)
  }

  /** The exchange from the list of mechanisms to the final message; AuthenticationOk is not sent. */
  async scram(verifier: string, lies: Lies = {}): Promise<void> {
    const scram = new ScramServer({ verifier, channelBinding: this.#binding })
    this.send(authenticationSasl(scram.mechanisms))
    const { mechanism, data } = parseSaslInitialResponse((await this.message()).body)
    this.mechanism = mechanism
    const mine = scram.begin(mechanism, data).toString('latin1')
    const challenge = lies.challenge?.(mine, data.toString('latin1')) ?? mine
    this.send(authenticationSaslContinue(Buffer.from(challenge, 'latin1')))
    const final = scram.finish((await this.message()).body)
    if (final === undefined) throw new Error('the client gave a wrong proof')
    this.send(authenticationSaslFinal(Buffer.from(lies.signature?.(final.toString('latin1')) ?? final)))
  }

  /** What an honest server says after the proof. */
  settled(): Buffer {
    return Buffer.concat([
      authenticationOk(), parameterStatus('server_version', '15.0'),
      parameterStatus('client_encoding', 'UTF8'), backendKeyData(cancelPid, cancelKey), readyForQuery('I')
    ])
  }

  /** Startup packet to ReadyForQuery. */
  async login(verifier: string): Promise<void> {
    await this.packet()
    await this.scram(verifier)
    this.send(this.settled())
  }

  /** Reads up to Sync; the SQL of the Parse message. */
  async statement(): Promise<string> {
    let sql = ''
    for (;;) {
      const { tag, body } = await this.message()
      if (tag === 'P') sql = body.subarray(1, body.indexOf(0, 1)).toString('utf8')
      if (tag === 'S') return sql
    }
  }

  /** Sends `bytes` again and again until the client leaves, as fast as it takes them. */
  async flood(bytes: Uint8Array): Promise<void> {
    while (!this.closed) {
      this.bytesSent += bytes.length
      if (!this.socket.write(bytes)) {
        const ended = once(this.socket, 'close')
        await Promise.race([once(this.socket, 'drain'), ended]).catch(() => undefined)
      } else {
        await new Promise(setImmediate)
      }
    }
  }

  /** Sends one byte each time the clock ticks. */
  async drip(bytes: Uint8Array, everyMs: number): Promise<void> {
    for (const byte of bytes) {
      if (this.closed) return
      this.send(Buffer.from([byte]))
      await new Promise(resolve => setTimeout(resolve, everyMs))
    }
  }

  /** Does nothing until the client leaves. */
  async mute(): Promise<void> {
    while (!this.closed) await new Promise<void>(resolve => { this.#wake = resolve })
  }

  end(): void {
    this.socket.end()
  }

  reset(): void {
    this.socket.resetAndDestroy()
  }

  destroy(): void {
    this.socket.destroy()
  }
}
