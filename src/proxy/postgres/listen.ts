// The PostgreSQL listener: one front for each connection, one clock for its login, and the answer to cancel
// requests. A connection becomes a session (`onSession`) only when its startup packet has been read; until
// then it costs a socket and a timer, and what it does wrong is answered and counted here.
import type { AddressInfo } from 'node:net'
import type { Clock } from '../../clock.ts'
import { SallyportError, asSallyportError } from '../../errors.ts'
import { listenTcp } from '../listen.ts'
import type { Arrival } from '../listen.ts'
import { createPenalties } from '../penalties.ts'
import { createTurnAway } from '../turn-away.ts'
import type { FrontLog } from '../turn-away.ts'
import { createCancelKeys } from './cancels.ts'
import { Client } from './client.ts'
import { PostgresFront } from './front.ts'
import type { FrontSetting } from './front.ts'
import { makeTlsSetting } from './opening.ts'
import type { TlsFiles } from './opening.ts'
import { fatal } from './words.ts'

export interface ListenLimits {
  /** Sockets at once, logged in or not. */
  connectionsMax: number
  /**
   * Sockets of one address that have not logged in: strangers wait behind each other, not in front of users.
   */
  unauthenticatedPerAddressMax: number
  /** The same for all addresses: what a distributed flood can hold. */
  unauthenticatedMax: number
  /** From accept to the end of authentication, TLS included. */
  loginGraceMs: number
  /** Failed logins and broken protocols of one address in a minute, before it has to wait. */
  loginFailuresPerMinuteMax: number
  /** Wrong cancel keys of one address in a minute, after which its cancel requests are dropped unread. */
  cancelFailuresPerMinuteMax: number
  /** Each step towards a target. */
  connectMs: number
  tlsMs: number
  loginMs: number
}

/** Each with its reason above; the names of `limits` in the configuration. */
export const defaultLimits: ListenLimits = {
  connectionsMax: 10_000,
  unauthenticatedPerAddressMax: 100,
  unauthenticatedMax: 1000,
  loginGraceMs: 30_000,
  loginFailuresPerMinuteMax: 30,
  cancelFailuresPerMinuteMax: 10,
  connectMs: 5000,
  tlsMs: 5000,
  loginMs: 10_000
}

export interface PostgresListenOptions {
  host: string
  /** 0: any free one. */
  port: number
  /** PEM texts; without it no client gets TLS. */
  tls?: TlsFiles | undefined
  limits?: Partial<ListenLimits> | undefined
  clock: Clock
  log: FrontLog
  /** Runs the session; must not reject. */
  onSession(front: PostgresFront): Promise<unknown>
  /** For clients without SCRAM. Inside TLS the password itself is asked for; off unless set. */
  cleartextInTls?: boolean | undefined
  /** `stream`: leaves the sockets as Node made them; for comparison, and should Node's inside change. */
  readMode?: 'shared' | 'stream' | undefined
}

export interface PostgresListener {
  readonly address: AddressInfo
  stats(): { connections: number, unauthenticated: number, cancelKeys: number }
  /**
   * Takes no new connections and sends strangers away; running sessions go on, the registry drains them.
   * Idempotent.
   */
  close(): Promise<void>
}

/** Rejects when the address cannot be had or key and certificate are no pair. */
export async function listenPostgres(options: PostgresListenOptions): Promise<PostgresListener> {
  const limits: ListenLimits = { ...defaultLimits, ...options.limits }
  const { clock } = options
  const setting: FrontSetting = {
    clock,
    tls: options.tls === undefined ? undefined : makeTlsSetting(options.tls),
    cancelKeys: createCancelKeys(),
    penalties: createPenalties(clock, limits.loginFailuresPerMinuteMax),
    timeouts: { connectMs: limits.connectMs, tlsMs: limits.tlsMs, loginMs: limits.loginMs },
    cleartextInTls: options.cleartextInTls ?? false,
    readMode: options.readMode ?? 'shared'
  }
  const door = new Door(options, limits, setting)
  const listener = await listenTcp({
    host: options.host, port: options.port, limits, penalties: setting.penalties,
    arrive: arrival => door.arrive(arrival),
    turnAway: createTurnAway(clock, options.log, fatal),
    onError: ({ message }) => options.log.warn({ detail: message }, 'accepting a connection failed')
  })
  return {
    address: listener.address,
    stats: () => ({
      connections: listener.admission.connections,
      unauthenticated: listener.admission.unauthenticated,
      cancelKeys: setting.cancelKeys.size
    }),
    close: async () => {
      await listener.close()
      door.close()
    }
  }
}

class Door {
  readonly #options: PostgresListenOptions
  readonly #limits: ListenLimits
  readonly #setting: FrontSetting
  readonly #cancelPenalties: ReturnType<typeof createPenalties>
  /** Connections that have not logged in. */
  readonly #strangers = new Set<Client>()

  constructor(options: PostgresListenOptions, limits: ListenLimits, setting: FrontSetting) {
    this.#options = options
    this.#limits = limits
    this.#setting = setting
    this.#cancelPenalties = createPenalties(options.clock, limits.cancelFailuresPerMinuteMax)
  }

  arrive({ socket, address, ticket }: Arrival): void {
    const { clock } = this.#options
    const client = new Client(socket, address, clock, () => {
      stopGrace()
      this.#strangers.delete(client)
      ticket.leave()
    })
    this.#strangers.add(client)
    const late = (): void => client.fail(new SallyportError('auth-timeout'))
    const stopGrace = clock.after(this.#limits.loginGraceMs, late)
    const front = new PostgresFront(client, this.#setting, {
      spoke: () => ticket.spoke(),
      authenticated: () => {
        stopGrace()
        this.#strangers.delete(client)
        ticket.authenticated()
      }
    })
    void this.#serve(front, client)
  }

  /** Never rejects. Apart from `arrive`: what is named there would stay in memory as long as the session. */
  async #serve(front: PostgresFront, client: Client): Promise<void> {
    try {
      const opening = await front.open()
      if (opening.kind === 'startup') await this.#options.onSession(front)
      else this.#cancel(client, opening)
    } catch (thrown) {
      const error = asSallyportError(thrown)
      this.#logRefusal(error, client.address)
      await front.refuse(error)
    }
  }

  close(): void {
    for (const stranger of this.#strangers) stranger.fail(new SallyportError('shutting-down'))
  }

  /** The answer to a cancel request is the same whatever becomes of it: the connection is closed. */
  #cancel(client: Client, { pid, key }: { pid: number, key: Buffer }): void {
    const { address } = client
    if (!this.#cancelPenalties.throttled(address) && !this.#setting.cancelKeys.cancel(pid, key)) {
      this.#cancelPenalties.failed(address)
      this.#options.log.info({ address, pid }, 'cancel request with a wrong key')
    }
    void client.close()
  }

  #logRefusal(error: SallyportError, address: string): void {
    // Health checks and port scans come and go; a line for each would bury the rest.
    if (error.code === 'client-closed') return
    const { code, reference, detail } = error
    this.#options.log.info({ address, code, reference, detail }, 'connection refused')
  }
}
