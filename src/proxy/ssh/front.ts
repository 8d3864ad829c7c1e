// The SSH front end: puts the steps of a session into the words of the protocol and decides nothing (see
// session/session.ts for the order). A connection is a stranger's until `prove`. The client hears that it is
// logged in only when the target is ready (`relay`), so that progress and refusals have a place in every
// client: banners, and the text of the disconnect.
import { SallyportError, asSallyportError } from '../../errors.ts'
import type { Ending, Recording } from '../../recording/recording.ts'
import type { Challenge, Claim, Doors, Front, Proof, Upstreaming } from '../../session/front.ts'
import { WireError } from '../../wire/error.ts'
import { Hub, claimOf } from './hub.ts'
import { Judged } from './judged.ts'
import { Login, bannerOf, loginMessage } from './login.ts'
import { Mailbox } from './mailbox.ts'
import { Relay } from './relay.ts'
import type { FrontSetting } from './setting.ts'
import { connectTarget } from './target.ts'
import type { SshUpstream, Target } from './target.ts'
import { ProtocolBreach, disconnectReason } from './transport.ts'
import type { Transport, TransportEvents } from './transport.ts'
import { SshTunnel } from './tunnel.ts'
import { Tunnel } from '../tcp/tunnel.ts'
import { loginWords } from '../tcp/words.ts'

/** What the connection means to the listener. */
export interface FrontEvents {
  /** Keys were exchanged: it is a client, not a silent socket. */
  spoke(): void
  /** The client proved who it is: the grace time is over. */
  authenticated(): void
  gone(): void
}

/** Whoever comes through an outer connection (`ssh -J`) has proved who they are there. */
export interface Through {
  user: string
  target: string
}

/** Answers that a stranger did not read, before nothing more of it is read. */
const unreadBytesMax = 64 * 1024

export class SshFront implements Front<SshUpstream> {
  readonly address: string
  readonly #transport: Transport
  readonly #setting: FrontSetting
  readonly #events: FrontEvents
  readonly #mailbox = new Mailbox('protocol-violation')
  readonly #login: Login
  #claim: Claim | undefined
  readonly #through: Through | undefined
  #isProved: boolean
  /** What the client did between its login and the session. */
  #violation: SallyportError | undefined
  #relay: Relay | SshTunnel | undefined
  #onLeft: (() => void) | undefined

  constructor(
    address: string, open: (events: TransportEvents) => Transport, setting: FrontSetting, events: FrontEvents,
    through?: Through
  ) {
    this.#through = through
    this.#isProved = false
    this.address = address
    this.#setting = setting
    this.#events = events
    const transport = this.#transport = open(this.#transportEvents())
    const { penalties, clock } = setting
    this.#login = new Login({
      mailbox: this.#mailbox, address,
      send: payload => transport.send(payload),
      sessionId: () => transport.sessionId,
      now: () => clock.now(),
      admit: () => {
        if (penalties.throttled(address)) throw new SallyportError('auth-throttled', { detail: address })
      },
      failed: () => penalties.failed(address)
    })
    transport.start()
  }

  /** Ends a login that is under way. */
  fail(error: SallyportError): void {
    this.#mailbox.fail(error)
  }

  async claim(): Promise<Claim> {
    if (this.#claim === undefined) {
      const login = await this.#strictly(() => this.#login.claim())
      this.#isProved = this.#through !== undefined
      this.#claim = claimOf(this.#through === undefined ? login : within(this.#through, login), this.address)
    }
    return this.#claim
  }

  async prove(challenge: Challenge): Promise<Proof | undefined> {
    const proof = await this.#strictly(() => this.#login.prove(challenge))
    if (proof === undefined) return undefined
    this.#isProved = true
    // What came behind the proof came before its answer.
    for (const message of this.#mailbox.take()) this.#outOfTurn(message)
    this.#events.authenticated()
    return proof
  }

  receive(doors: Doors, enter: (inner: Front<SshUpstream>) => Promise<Ending>): Promise<Ending> {
    const { address } = this
    const setting = this.#setting
    const nothing = (): void => undefined
    return new Hub({
      transport: this.#transport, setting, doors, address, enter, gone: () => this.#events.gone(),
      serve: (stream, target) => enter(new SshFront(
        address, events => setting.openInner(stream, target, events), setting,
        { spoke: nothing, authenticated: nothing, gone: nothing }, { user: doors.user, target }))
    }).run()
  }

  tell(line: string): void {
    if (this.#relay !== undefined) this.#relay.tell(line)
    else if (this.#isProved) {
      this.#transport.send(bannerOf(line))
    }
  }

  onLeft(act: () => void): () => void {
    this.#onLeft = act
    if (this.#transport.closed || this.#violation !== undefined) act()
    return () => { this.#onLeft = undefined }
  }

  async refuse(error: SallyportError): Promise<void> {
    // Nobody is there to hear it; or the relay has said it.
    if (error.code === 'client-closed' || this.#relay !== undefined) return this.#transport.end()
    const { byApplication, noMoreAuthMethods, protocolError } = disconnectReason
    const reason = error.code === 'auth-failed'
      ? noMoreAuthMethods
      : error.code === 'protocol-violation' ? protocolError : byApplication
    this.#transport.disconnect(reason, error.clientMessage)
  }

  /** Undefined when the client went away meanwhile: then no connection is opened. */
  async connect(upstreaming: Upstreaming, signal: AbortSignal): Promise<SshUpstream> {
    this.#expectNoViolation()
    if (this.#transport.closed) return undefined
    // Dialled for each connection that the client opens.
    if (upstreaming.target.protocol === 'tcp') return { tcp: upstreaming }
    const { timeouts, clock } = this.#setting
    const target = await connectTarget(upstreaming, timeouts, clock, signal)
    try {
      this.#expectNoViolation()
      return target
    } catch (thrown) {
      target.transport.disconnect(disconnectReason.byApplication, '')
      throw thrown
    }
  }

  async relay(target: SshUpstream, recording: Recording, signal: AbortSignal): Promise<Ending> {
    if (target === undefined) return { how: 'ended', reason: 'client-closed' }
    const ending = 'tcp' in target
      ? this.#carry(target.tcp, recording, signal)
      : this.#pass(target, recording, signal)
    this.#transport.send(Buffer.of(loginMessage.success))
    return ending
  }

  #pass(target: Target, recording: Recording, signal: AbortSignal): Promise<Ending> {
    const { tapeOf, refused } = this.#setting
    const judged = target.judge && new Judged(target.judge, recording, target.home)
    const relay = this.#relay = new Relay({
      client: this.#transport, target, recording, signal, channels: target.channels, judged,
      tape: tapeOf(recording, target, judged), gone: () => this.#events.gone(),
      refused: (what, right) => refused(recording.session, what, right)
    })
    return relay.run()
  }

  #carry(upstreaming: Upstreaming, recording: Recording, signal: AbortSignal): Promise<Ending> {
    const { clock, timeouts: { connectMs }, refused } = this.#setting
    const { target, handOver } = upstreaming
    const login = handOver?.take()
    // The last banner: every client shows it before its login is through.
    this.tell(loginWords(upstreaming, login))
    const tunnel = new Tunnel({ target, recording, clock, connectMs, password: login?.password })
    const relay = this.#relay = new SshTunnel({
      client: this.#transport, target, tunnel, recording, signal, gone: () => this.#events.gone(),
      refused: what => refused(recording.session, what, undefined)
    })
    return relay.run()
  }

  #transportEvents(): TransportEvents {
    return {
      ready: () => this.#events.spoke(),
      message: payload => {
        if (!this.#isProved) return this.#mailbox.push(payload)
        this.#outOfTurn(payload)
      },
      room: () => this.#transport.queuedBytes <= unreadBytesMax,
      refused: () => undefined,
      drain: () => this.#transport.resume(),
      closed: error => {
        if (error instanceof ProtocolBreach) this.#violation ??= error.refusal
        const failure = this.#violation ?? new SallyportError('client-closed', { detail: error?.message })
        this.#mailbox.fail(failure)
        this.#onLeft?.()
        this.#events.gone()
      }
    }
  }

  /** @throws SallyportError what the client did since its login */
  #expectNoViolation(): void {
    if (this.#violation !== undefined) throw this.#violation
  }

  /** Nothing is answered before the login is through: whoever goes on talking is no client. */
  #outOfTurn(message: Buffer): void {
    this.#violation ??= new SallyportError('protocol-violation', { detail: `message ${message[0]}` })
    this.#transport.disconnect(disconnectReason.protocolError, this.#violation.clientMessage)
  }

  /** What breaks the protocol before the login is a stranger's doing, and is counted. */
  async #strictly<Value>(read: () => Promise<Value>): Promise<Value> {
    try {
      return await read()
    } catch (thrown) {
      const error = asSallyportError(thrown, thrown instanceof WireError ? 'protocol-violation' : 'internal')
      if (error.code === 'protocol-violation') this.#setting.penalties.failed(this.address)
      throw error
    }
  }
}

/**
 * Who is meant by the name in `ssh -J proxy NAME@target`: an account or a credential there. A client that
 * was told no name sends its own user's, which is taken for none.
 */
function within({ user, target }: Through, name: string): string {
  return name === user ? `${user}+${target}` : `${user}+${name}@${target}`
}
