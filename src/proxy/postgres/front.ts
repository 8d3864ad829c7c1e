// The PostgreSQL front end: puts the steps of a session into the words of the protocol and decides nothing
// (see session/session.ts for the order). It is a stranger's connection until `prove`, a person's connection
// without a target until `connect`, and a pair of streams in `relay`.
import type { Clock } from '../../clock.ts'
import { SallyportError, asSallyportError } from '../../errors.ts'
import type { Ending, Recording } from '../../recording/recording.ts'
import type { Challenge, Claim, Front, Proof, Upstreaming } from '../../session/front.ts'
import { inConsole } from '../../session/confirm.ts'
import { WireError } from '../../wire/error.ts'
import { authenticationOk } from '../../wire/postgres/messages.ts'
import type { Report } from '../../wire/postgres/messages.ts'
import type { StartupWishes } from '../../wire/postgres/startup.ts'
import type { Penalties } from '../penalties.ts'
import type { CancelKeys } from './cancels.ts'
import type { Client } from './client.ts'
import { readOpening } from './opening.ts'
import type { Opening, TlsSetting } from './opening.ts'
import { provePassword, proveScram } from './proof.ts'
import { Relay } from './relay.ts'
import { connectTarget } from './target.ts'
import type { Target, TargetTimeouts } from './target.ts'
import { fatal, notice } from './words.ts'

/** What all sessions of a listener share. */
export interface FrontSetting {
  clock: Clock
  tls: TlsSetting | undefined
  cancelKeys: CancelKeys
  penalties: Penalties
  timeouts: TargetTimeouts
  /** Asks for the password itself instead of SCRAM, inside TLS only. */
  cleartextInTls: boolean
  readMode: 'shared' | 'stream'
}

/** What the connection means to the listener. */
export interface FrontEvents {
  /** A startup packet is there: it is a client, not a silent socket. */
  spoke(): void
  /** The client proved who it is: the grace time is over. */
  authenticated(): void
}

type Startup = Extract<Opening, { kind: 'startup' }>

export class PostgresFront implements Front<Target | undefined> {
  readonly #client: Client
  readonly #setting: FrontSetting
  readonly #events: FrontEvents
  #opening: Promise<Opening> | undefined
  #startup: Startup | undefined
  #authenticated = false
  #relay: Relay | undefined
  /** What the target said during its login, e.g. that a collation changed. */
  readonly #greetings: Report[] = []

  constructor(client: Client, setting: FrontSetting, events: FrontEvents) {
    this.#client = client
    this.#setting = setting
    this.#events = events
  }

  get address(): string {
    return this.#client.address
  }

  /** Reads what kind of connection this is; the listener asks, and keeps cancel requests to itself. */
  open(): Promise<Opening> {
    this.#opening ??= this.#open()
    return this.#opening
  }

  async claim(): Promise<Claim> {
    await this.open()
    const { user, database, replication } = this.#wishes
    return {
      protocol: 'postgres',
      login: user ?? '',
      database,
      replication: replication !== 'none',
      address: this.#client.address,
      tls: this.#client.encrypted
    }
  }

  async prove({ verifier, inConsole: isElsewhere = false }: Challenge): Promise<Proof | undefined> {
    const { cleartextInTls, tls, penalties } = this.#setting
    const client = this.#client
    // There is no password to ask for, and a notice is seen only once the login is through.
    if (isElsewhere) return this.#proved(inConsole)
    const inClear = cleartextInTls && client.encrypted
    const admit = (): void => {
      const { address } = client
      if (penalties.throttled(address)) throw new SallyportError('auth-throttled', { detail: address })
    }
    const proved = await this.#strictly(() => inClear
      ? provePassword(client, verifier, admit)
      : proveScram(client, verifier, tls?.channelBinding, admit))
    if (!proved) {
      penalties.failed(client.address)
      return undefined
    }
    return this.#proved(inClear ? 'password' : 'scram-sha-256')
  }

  #proved(method: string): Proof {
    this.#authenticated = true
    this.#events.authenticated()
    this.#client.write(authenticationOk())
    this.#client.watch()
    return { method }
  }

  tell(line: string): void {
    if (this.#relay !== undefined) this.#relay.tell(line)
    else if (this.#authenticated) this.#client.write(notice(line))
  }

  onLeft(act: () => void): () => void {
    return this.#client.onLeft(act)
  }

  async refuse(error: SallyportError): Promise<void> {
    // Nobody is there to hear it; or the relay has said it.
    if (error.code === 'client-closed' || this.#relay !== undefined) return this.#client.destroy()
    await this.#client.close(fatal(error))
  }

  /** Undefined when the client went away meanwhile: then no connection is opened. */
  async connect(upstreaming: Upstreaming, signal: AbortSignal): Promise<Target | undefined> {
    if (this.#client.gone) return undefined
    const { timeouts } = this.#setting
    // Kept for the relay: the person would see them without us, but only after the recorder (D3).
    const keep = (report: Report): void => { this.#greetings.push(report) }
    return connectTarget(upstreaming, this.#wishes, timeouts, signal, keep)
  }

  async relay(target: Target | undefined, recording: Recording, signal: AbortSignal): Promise<Ending> {
    if (target === undefined) {
      this.#client.destroy()
      return { how: 'ended', reason: 'client-closed' }
    }
    const { clock, cancelKeys, readMode } = this.#setting
    const minor = this.#startup?.minor ?? 0
    // Sessions are many and long: what was read and used needs no place any more.
    this.#opening = this.#startup = undefined
    this.#relay = new Relay({
      client: this.#client, target, recording, signal, clock, cancelKeys, minor, readMode,
      greetings: this.#greetings
    })
    return this.#relay.run()
  }

  get #wishes(): StartupWishes {
    if (this.#startup === undefined) throw new SallyportError('internal', { detail: 'no startup packet yet' })
    return this.#startup.wishes
  }

  async #open(): Promise<Opening> {
    const opening = await this.#strictly(() => readOpening(this.#client, this.#setting.tls))
    if (opening.kind === 'startup') {
      this.#startup = opening
      this.#events.spoke()
    }
    return opening
  }

  /** What breaks the protocol before the login is a stranger's doing, and is counted. */
  async #strictly<Value>(read: () => Promise<Value>): Promise<Value> {
    try {
      return await read()
    } catch (thrown) {
      const error = asSallyportError(thrown, thrown instanceof WireError ? 'protocol-violation' : 'internal')
      if (error.code === 'protocol-violation') this.#setting.penalties.failed(this.#client.address)
      throw error
    }
  }
}
