// The front end of `sallyport connect`: puts the steps of a session into lines and decides nothing (see
// session/session.ts for the order). The ticket is the claim and its proof in one; a person with a second
// factor is asked for the code. When the session is open, its login is said, once, and then each `connection`
// is answered with a ticket for one more connection. The session lives as long as this first one.
import type { Clock } from '../../clock.ts'
import { SallyportError, asSallyportError } from '../../errors.ts'
import type { Ending, Recording } from '../../recording/recording.ts'
import type { Challenge, Claim, Front, Proof, Upstreaming } from '../../session/front.ts'
import type { Penalties } from '../penalties.ts'
import type { Lines, Said } from './lines.ts'
import type { Bearer, Tickets } from './tickets.ts'
import { Tunnel } from './tunnel.ts'

/** People mistype; somebody else guesses. */
const codesMax = 3
/** The one thing that a client asks for. */
const wantsConnection = 'connection'

/** What all sessions of a listener share. */
export interface FrontSetting {
  clock: Clock
  penalties: Penalties
  tickets: Tickets
  connectMs: number
}

export interface FrontOptions {
  lines: Lines
  address: string
  /** Undefined: the ticket was none. */
  bearer: Extract<Bearer, { kind: 'session' }> | undefined
  /** The client proved who it is: the grace time is over. */
  authenticated(): void
  /** Says the last word, if there is one, and closes. */
  close(error: SallyportError | undefined): void
}

export class TcpFront implements Front<Upstreaming> {
  readonly #setting: FrontSetting
  readonly #options: FrontOptions
  #isProved = false

  constructor(setting: FrontSetting, options: FrontOptions) {
    this.#setting = setting
    this.#options = options
  }

  async claim(): Promise<Claim> {
    const { bearer, address } = this.#options
    return { protocol: 'tcp', login: bearer?.login ?? '', replication: false, address, tls: true }
  }

  async prove({ name, secondFactor }: Challenge): Promise<Proof | undefined> {
    const { bearer, address, authenticated } = this.#options
    const { penalties } = this.#setting
    if (bearer === undefined || bearer.user !== name) {
      penalties.failed(address)
      return undefined
    }
    let method = 'ticket'
    if (secondFactor !== undefined) {
      if (!await this.#hasCode(secondFactor)) return undefined
      method = 'ticket, one-time code'
    }
    this.#isProved = true
    authenticated()
    return { method }
  }

  tell(line: string): void {
    if (this.#isProved) this.#options.lines.say({ type: 'notice', text: line })
  }

  onLeft(act: () => void): () => void {
    return this.#options.lines.onFailure(act)
  }

  async refuse(error: SallyportError): Promise<void> {
    this.#options.close(error)
  }

  /** Dialled for each connection that the client asks for. */
  async connect(upstreaming: Upstreaming): Promise<Upstreaming> {
    return upstreaming
  }

  async relay(
    { target, username, handOver }: Upstreaming, recording: Recording, signal: AbortSignal
  ): Promise<Ending> {
    const { clock, connectMs } = this.#setting
    const { lines, close } = this.#options
    const login = handOver?.take()
    const tunnel = new Tunnel({ target, recording, clock, connectMs, password: login?.password })
    const aborted = (): void => lines.fail(asSallyportError(signal.reason))
    signal.addEventListener('abort', aborted, { once: true })
    try {
      if (signal.aborted) aborted()
      lines.say({ type: 'ready', target: target.name, username, password: login?.password ?? null })
      return await this.#serve(tunnel, recording)
    } catch (thrown) {
      const error = asSallyportError(thrown)
      const { code: reason, reference, detail } = error
      if (reason === 'client-closed') {
        close(undefined)
        return { how: 'ended', reason }
      }
      close(error)
      return { how: 'cut', reason, reference, detail }
    } finally {
      signal.removeEventListener('abort', aborted)
      tunnel.end()
    }
  }

  /** Until the client goes or the signal aborts. @throws SallyportError always, with the reason */
  async #serve(tunnel: Tunnel, recording: Recording): Promise<never> {
    const { lines } = this.#options
    for (;;) {
      const line = await lines.next()
      if (line !== wantsConnection) {
        throw new SallyportError('protocol-violation', { detail: 'an unknown word' })
      }
      lines.say(this.#ticket(tunnel, recording))
      await lines.drained()
    }
  }

  #ticket(tunnel: Tunnel, { session }: Recording): Said {
    try {
      const lane = { kind: 'lane' as const, dial: (from: string) => tunnel.dial(from) }
      return { type: 'ticket', ticket: this.#setting.tickets.issue(session, lane).ticket }
    } catch (thrown) {
      return { type: 'refused', text: asSallyportError(thrown).clientMessage }
    }
  }

  async #hasCode({ check }: NonNullable<Challenge['secondFactor']>): Promise<boolean> {
    const { lines, address } = this.#options
    const { penalties } = this.#setting
    const admit = (): void => {
      if (penalties.throttled(address)) throw new SallyportError('auth-throttled', { detail: address })
    }
    for (let asked = 0; asked < codesMax; asked++) {
      lines.say({ type: 'code' })
      const code = await lines.next()
      admit()
      const isRight = await check(code)
      // Again: many guesses, each over a connection of its own, may have come at the same moment.
      admit()
      if (isRight) return true
      penalties.failed(address)
    }
    return false
  }
}
