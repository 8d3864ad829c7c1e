// The connection to a target as the account of the session: dialled by us, the host key checked before
// anything is sent that matters, one login with the one secret that was injected. Nothing of the client
// decides where it goes or as whom. What the target says during its login is for operators: it names the
// account (J14).
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import type { Clock } from '../../clock.ts'
import { SallyportError } from '../../errors.ts'
import type { ErrorCode } from '../../errors.ts'
import type { Certify, Injectable } from '../../jit/plugin.ts'
import type { ChannelKind, Upstreaming } from '../../session/front.ts'
import type { Judge } from '../../session/judge.ts'
import { WireError } from '../../wire/error.ts'
import { SshReader, sshFields, sshUint32 } from '../../wire/ssh/data.ts'
import { blobOf, fingerprintOf, typeOf } from '../../wire/ssh/key.ts'
import { ecdsaSignature } from '../../wire/ssh/signature.ts'
import { plainAddress } from '../source.ts'
import { offerOf, targetHostKeys } from './algorithms.ts'
import { askHome } from './home.ts'
import { loginMessage } from './login.ts'
import { Mailbox } from './mailbox.ts'
import { readPrivateKey } from './ssh2.ts'
import type { PrivateKey } from './ssh2.ts'
import { ProtocolBreach, Transport, disconnectReason, transportMessage } from './transport.ts'
import type { TransportEvents } from './transport.ts'

/**
 * Connecting, key exchange and login each have their own limit: a mute target costs no more than their sum.
 */
export interface TargetTimeouts {
  connectMs: number
  handshakeMs: number
  loginMs: number
}

export interface Target {
  transport: Transport
  /** Messages that came before somebody listened. */
  early: readonly Buffer[]
  /** What may be done there. */
  channels: readonly ChannelKind[]
  /** Copies of transferred files are kept. */
  copyFiles: boolean
  /** What the grant's rules say; undefined: it has none. */
  judge?: Judge | undefined
  /** Where relative paths begin, where rules are about files; undefined: not known. */
  home?: string | undefined
}

/**
 * What a session over SSH goes to: a server, or the bytes of a TCP target; nothing for a client that left.
 */
export type SshUpstream = Target | TcpUpstream | undefined

export interface TcpUpstream {
  tcp: Upstreaming
}

const keepAliveMs = 15_000
/** Banners and questions before a login is through; more are a target that plays for time. */
const messagesMax = 64

/**
 * Connects and logs in.
 * @throws SallyportError `target-unreachable`, `target-untrusted`, `target-refused`, `target-violation`, or
 *   the signal's reason
 */
export async function connectTarget(
  upstreaming: Upstreaming, timeouts: TargetTimeouts, clock: Clock, signal: AbortSignal
): Promise<Target> {
  const { target, username, secret } = upstreaming
  const attempt = new Attempt(clock, signal)
  try {
    const socket = await attempt.dial(target.host, target.port, timeouts.connectMs)
    const transport = attempt.open(socket, target.name, target.hostKeys ?? [])
    await attempt.within(timeouts.handshakeMs, attempt.ready, 'the key exchange')
    await attempt.within(timeouts.loginMs, attempt.login(username, secret), 'the login')
    const { channels, copyFiles, judge } = upstreaming
    const needsHome = judge?.file !== undefined && channels.some(each => each === 'sftp' || each === 'exec')
    const { loginMs } = timeouts
    const home = needsHome
      ? await attempt.within(loginMs, attempt.home(loginMs / 2), 'the look for the home folder')
      : undefined
    return { transport, early: attempt.finish(), channels, copyFiles, judge, home }
  } catch (thrown) {
    throw attempt.abandon(thrown)
  }
}

class Attempt {
  readonly #clock: Clock
  readonly #signal: AbortSignal
  readonly #mailbox = new Mailbox('target-violation')
  readonly #giveUp: () => void
  #socket: Socket | undefined
  /** Our address of this connection, as the target sees it unless somebody translates it. */
  #source = ''
  #transport: Transport | undefined
  readonly #early: Buffer[] = []
  #ready: () => void = () => undefined
  /** Why the host key was not believed. */
  #untrusted: string | undefined
  readonly ready = new Promise<void>(resolve => { this.#ready = resolve })

  constructor(clock: Clock, signal: AbortSignal) {
    this.#clock = clock
    this.#signal = signal
    this.#giveUp = () => this.#broken(failure('internal', 'the session ended'))
    signal.addEventListener('abort', this.#giveUp, { once: true })
  }

  dial(host: string, port: number, limitMs: number): Promise<Socket> {
    const socket = this.#socket = connect({
      host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: keepAliveMs, allowHalfOpen: true
    })
    const connected = new Promise<Socket>((resolve, reject) => {
      socket.once('connect', () => {
        // Asked for now: later the socket may have given its handle to the transport.
        this.#source = plainAddress(socket.localAddress)
        resolve(socket)
      })
      socket.once('error', error => reject(failure('target-unreachable', error.message)))
    })
    return this.within(limitMs, connected, 'the connection')
  }

  /** `pinned`: the only host keys that are believed. */
  open(socket: Socket, name: string, pinned: readonly string[]): Transport {
    const verify = (blob: Buffer): boolean => {
      const believed = pinned.some(line => blobOf(line).equals(blob))
      if (!believed) {
        this.#untrusted = `${name} showed the host key ${typeOf(blob)} ${fingerprintOf(blob)}: not its own`
      }
      return believed
    }
    const offer = offerOf(kindsOf(pinned))
    const transport = this.#transport = new Transport(
      { socket, side: { kind: 'client', verify }, offer, clock: this.#clock, readMode: 'shared' },
      this.#events()
    )
    socket.pause()
    transport.start()
    return transport
  }

  async within<Value>(limitMs: number, work: Promise<Value>, what: string): Promise<Value> {
    const broken = new Promise<never>((_resolve, reject) => {
      if (this.#mailbox.failure !== undefined) reject(this.#mailbox.failure)
      this.#onBroken = reject
    })
    const late = new Promise<never>((_resolve, reject) => {
      this.#stop = this.#clock.after(limitMs, () =>
        reject(failure('target-unreachable', `${what} took too long`)))
    })
    try {
      return await Promise.race([work, broken, late])
    } finally {
      this.#stop()
      this.#onBroken = () => undefined
    }
  }

  #stop: () => void = () => undefined
  #onBroken: (error: SallyportError) => void = () => undefined

  /** RFC 4252 from the client's side: exactly one way, the one that the secret is for. */
  async login(username: string, secret: Injectable | undefined): Promise<void> {
    this.#send(transportMessage.serviceRequest, sshFields('ssh-userauth'))
    await this.#answer(username, [transportMessage.serviceAccept])
    if (secret?.kind === 'private-key') {
      return await this.#withKey(username, secret.privateKey.expose(), secret.certify)
    }
    if (secret?.kind === 'password') return await this.#withPassword(username, secret.password.expose())
    throw failure('target-refused', 'these keys open no SSH login')
  }

  async #withKey(username: string, file: string, certify: Certify | undefined): Promise<void> {
    const key = readPrivateKey(file)
    const algorithm = key.type === 'ssh-rsa' ? 'rsa-sha2-512' : key.type
    const blob = await certify?.(this.#source) ?? key.getPublicSSH()
    // What a certificate is used under is its own type; the signature stays that of the key.
    const name = certify === undefined ? algorithm : typeOf(blob)
    const request = Buffer.concat([
      Buffer.of(loginMessage.request), sshFields(username, 'ssh-connection', 'publickey', true, name, blob)
    ])
    const data = Buffer.concat([sshFields(this.#transport!.sessionId), request])
    const signature = sshFields(algorithm, signed(key, algorithm, data))
    this.#transport!.send(Buffer.concat([request, sshFields(signature)]))
    const what = certify === undefined ? 'the login' : 'the certificate'
    await this.#answer(username, [loginMessage.success], what)
  }

  async #withPassword(username: string, password: string): Promise<void> {
    const request = (method: string, ...rest: (string | boolean)[]): void =>
      this.#send(loginMessage.request, sshFields(username, 'ssh-connection', method, ...rest))
    request('password', false, password)
    const [type, reader] = await this.#answer(username, [loginMessage.success, loginMessage.failure])
    if (type === loginMessage.success) return
    const goesOn = reader.names().includes('keyboard-interactive')
    // Partial success: it took the password and wants something else as well.
    if (!goesOn || reader.boolean()) throw refused(username, 'the password')
    request('keyboard-interactive', '', '')
    for (let asked = 0; ;) {
      const [next, question] = await this.#answer(username, [loginMessage.success, loginMessage.question])
      if (next === loginMessage.success) return
      question.text()
      question.text()
      question.text()
      const prompts = question.uint32()
      // Whatever asks for more than the password, once, wants something that we do not have.
      asked += prompts
      if (asked > 1) throw refused(username, 'the answers')
      const answers = prompts === 0 ? [] : [password]
      this.#send(loginMessage.answer, Buffer.concat([sshUint32(prompts), sshFields(...answers)]))
    }
  }

  /** The next message that is one of these; banners in between are the target's talk. */
  async #answer(
    username: string, expected: readonly number[], what = 'the login'
  ): Promise<[number, SshReader]> {
    for (let count = 0; count < messagesMax; count++) {
      const reader = new SshReader(await this.#mailbox.next())
      const type = reader.byte()
      if (expected.includes(type)) return [type, reader]
      if (type === loginMessage.failure) throw refused(username, what)
      if (type !== loginMessage.banner && type !== transportMessage.extInfo) {
        throw failure('target-violation', `message ${type} during the login`)
      }
    }
    throw failure('target-violation', 'no end of messages during the login')
  }

  /** `enoughMs`: of a target that says nothing it is not known. */
  async home(enoughMs: number): Promise<string | undefined> {
    const enough = new AbortController()
    const cancel = this.#clock.after(enoughMs, () => enough.abort())
    try {
      const { path, others } = await askHome({
        send: message => this.#transport!.send(message), next: () => this.#mailbox.next(),
        enough: enough.signal
      })
      this.#early.push(...others)
      return path
    } catch (thrown) {
      throw thrown instanceof WireError ? failure('target-violation', thrown.message) : thrown
    } finally {
      cancel()
    }
  }

  #send(type: number, body: Buffer): void {
    this.#transport!.send(Buffer.concat([Buffer.of(type), body]))
  }

  #events(): TransportEvents {
    return {
      ready: () => this.#ready(),
      message: payload => this.#mailbox.push(payload),
      room: () => true,
      refused: () => undefined,
      drain: () => undefined,
      closed: error => {
        this.#broken(this.#brokenBy(error))
      }
    }
  }

  #brokenBy(error: Error | undefined): SallyportError {
    if (this.#untrusted !== undefined) return failure('target-untrusted', this.#untrusted)
    const detail = error?.message ?? 'the target closed the connection'
    if (!(error instanceof ProtocolBreach)) return failure('target-unreachable', detail)
    // ssh2's words for a target that cannot prove that the key is its own, or has none that we believe.
    const unproved = /signature|host key/i.test(detail)
    return failure(unproved ? 'target-untrusted' : 'target-violation', detail)
  }

  #broken(error: SallyportError): void {
    this.#mailbox.fail(error)
    this.#onBroken(error)
  }

  /** What came behind the end of the login, for whoever takes over. */
  finish(): Buffer[] {
    this.#signal.removeEventListener('abort', this.#giveUp)
    return [...this.#early, ...this.#mailbox.take()]
  }

  /** Nothing of a login that failed is left open. */
  abandon(thrown: unknown): SallyportError {
    this.#signal.removeEventListener('abort', this.#giveUp)
    this.#transport?.disconnect(disconnectReason.byApplication, '')
    if (this.#transport === undefined) this.#socket?.destroy()
    if (this.#signal.reason instanceof SallyportError) return this.#signal.reason
    if (thrown instanceof SallyportError) return thrown
    return failure('target-violation', thrown instanceof Error ? thrown.message : String(thrown))
  }
}

/** With pinned keys only their kinds are asked for, or the target would show another one. */
function kindsOf(pinned: readonly string[]): string[] {
  const types = new Set(pinned.map(line => typeOf(blobOf(line))))
  return targetHostKeys.filter(kind => types.has(kind.startsWith('rsa-') ? 'ssh-rsa' : kind))
}

function signed(key: PrivateKey, algorithm: string, data: Buffer): Buffer {
  const signature = key.sign(data, algorithm === 'rsa-sha2-512' ? 'sha512' : undefined)
  if (signature instanceof Error) throw failure('target-refused', 'the private key cannot sign')
  return key.type.startsWith('ecdsa-') ? ecdsaSignature(signature) : signature
}

function refused(username: string, what: string): SallyportError {
  return failure('target-refused', `the target refused ${what} of ${username}`)
}

function failure(code: ErrorCode, detail: string): SallyportError {
  return new SallyportError(code, { detail })
}
