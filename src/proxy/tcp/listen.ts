// The listener of TCP targets: TLS, one line with a ticket, and then either a session's first connection (its
// front, run by the pipeline) or one more connection of a session that is open. Until the ticket was good a
// connection is a stranger's: counted, bounded in time, and penalised for a wrong one.
import type { AddressInfo, Socket } from 'node:net'
import { constants } from 'node:crypto'
import { TLSSocket, createSecureContext } from 'node:tls'
import type { SecureContext } from 'node:tls'
import type { Clock } from '../../clock.ts'
import { SallyportError, asSallyportError } from '../../errors.ts'
import { listenerTls } from '../../listener-tls.ts'
import { listenTcp } from '../listen.ts'
import type { Arrival } from '../listen.ts'
import { createPenalties } from '../penalties.ts'
import { createTurnAway } from '../turn-away.ts'
import type { FrontLog } from '../turn-away.ts'
import { TcpFront } from './front.ts'
import type { FrontSetting } from './front.ts'
import { Lines } from './lines.ts'
import type { Bearer, Tickets } from './tickets.ts'

/** A last word is waited for so long; then the client is not reading. */
const farewellMs = 1000

export interface TcpTargetLimits {
  connectionsMax: number
  unauthenticatedPerAddressMax: number
  unauthenticatedMax: number
  /** From accept to the end of authentication, TLS included. */
  loginGraceMs: number
  loginFailuresPerMinuteMax: number
  connectMs: number
}

export const defaultTcpLimits: TcpTargetLimits = {
  connectionsMax: 10_000,
  unauthenticatedPerAddressMax: 100,
  unauthenticatedMax: 1000,
  loginGraceMs: 30_000,
  loginFailuresPerMinuteMax: 30,
  connectMs: 5000
}

export interface TcpTargetListenOptions {
  host: string
  /** 0: any free one. */
  port: number
  /** PEM texts. */
  tls: { key: string, cert: string }
  limits?: Partial<TcpTargetLimits> | undefined
  clock: Clock
  log: FrontLog
  tickets: Tickets
  /** Runs the session; must not reject. */
  onSession(front: TcpFront): Promise<unknown>
}

export interface TcpTargetListener {
  readonly address: AddressInfo
  stats(): { connections: number, unauthenticated: number }
  /** Takes no new connections and sends strangers away; running sessions go on. Idempotent. */
  close(): Promise<void>
}

/** Rejects when the address cannot be had or key and certificate are no pair. */
export async function listenTcpTargets(options: TcpTargetListenOptions): Promise<TcpTargetListener> {
  const limits = { ...defaultTcpLimits, ...options.limits }
  const { clock, log, tls, tickets } = options
  const context = createSecureContext({
    ...tls, ...listenerTls,
    // A client could make us do handshakes for ever over one connection.
    secureOptions: constants.SSL_OP_NO_RENEGOTIATION
  })
  const penalties = createPenalties(clock, limits.loginFailuresPerMinuteMax)
  const setting = { clock, penalties, tickets, connectMs: limits.connectMs }
  const door = new Door(options, limits, setting, context)
  const listener = await listenTcp({
    host: options.host, port: options.port, limits, penalties,
    arrive: arrival => door.arrive(arrival),
    // Before TLS there are no words that a client would understand.
    turnAway: createTurnAway(clock, log, () => Buffer.alloc(0)),
    onError: ({ message }) => log.warn({ detail: message }, 'accepting a connection failed')
  })
  return {
    address: listener.address,
    stats: () => ({
      connections: listener.admission.connections, unauthenticated: listener.admission.unauthenticated
    }),
    close: async () => {
      await listener.close()
      door.close()
    }
  }
}

interface Guest {
  stream: TLSSocket
  lines: Lines
  address: string
  port: number
  /** It has proved who it is. */
  admitted(): void
}

class Door {
  readonly #options: TcpTargetListenOptions
  readonly #limits: TcpTargetLimits
  readonly #setting: FrontSetting
  readonly #context: SecureContext
  readonly #strangers = new Set<Lines>()

  constructor(
    options: TcpTargetListenOptions, limits: TcpTargetLimits, setting: FrontSetting, context: SecureContext
  ) {
    this.#options = options
    this.#limits = limits
    this.#setting = setting
    this.#context = context
  }

  arrive(arrival: Arrival): void {
    const { socket, address, ticket } = arrival
    const port = socket.remotePort ?? 0
    const stream = this.#secured(socket)
    const lines = new Lines(stream)
    const late = (): void => lines.fail(new SallyportError('auth-timeout'))
    const stopGrace = this.#options.clock.after(this.#limits.loginGraceMs, late)
    this.#strangers.add(lines)
    const settle = (): void => {
      stopGrace()
      this.#strangers.delete(lines)
    }
    arrival.evict = () => stream.destroy()
    stream.once('secure', () => ticket.spoke())
    stream.once('close', () => {
      settle()
      ticket.leave()
    })
    void this.#serve({
      stream, lines, address, port,
      admitted: () => {
        settle()
        ticket.authenticated()
      }
    })
  }

  #secured(socket: Socket): TLSSocket {
    socket.on('error', ignore)
    const stream = new TLSSocket(socket, { isServer: true, secureContext: this.#context })
    stream.on('error', ignore)
    // After the handshake Node would drop such errors, and the connection would hang.
    stream.on('_tlsError', () => stream.destroy())
    return stream
  }

  /** Never rejects. */
  async #serve(guest: Guest): Promise<void> {
    const { lines, address } = guest
    try {
      const taken = this.#options.tickets.take(await lines.next())
      if (taken?.kind === 'lane') return await this.#join(guest, taken)
      const bearer = taken?.kind === 'session' ? taken : undefined
      await this.#options.onSession(new TcpFront(this.#setting, {
        lines, address, bearer, authenticated: guest.admitted, close: error => this.#close(guest, error)
      }))
    } catch (thrown) {
      const error = asSallyportError(thrown)
      if (error.code === 'protocol-violation') this.#setting.penalties.failed(address)
      if (error.code !== 'client-closed') {
        const { code, reference, detail } = error
        this.#options.log.info({ address, code, reference, detail }, 'connection refused')
      }
      this.#close(guest, error)
    }
  }

  async #join({ stream, lines, address, port, admitted }: Guest, bearer: Extract<Bearer, { kind: 'lane' }>) {
    admitted()
    const dialled = await bearer.dial(`${address}:${port}`)
    if (stream.destroyed) return dialled.abandon()
    lines.say({ type: 'open' })
    lines.release()
    await dialled.carry(stream)
  }

  #close({ stream, lines }: Guest, error: SallyportError | undefined): void {
    const stop = this.#options.clock.after(farewellMs, () => stream.destroy())
    stream.once('close', stop)
    stream.once('end', () => stream.destroy())
    const isHeard = error !== undefined && error.code !== 'client-closed'
    lines.end(isHeard ? { type: 'end', text: error.clientMessage } : undefined)
  }

  close(): void {
    for (const stranger of this.#strangers) stranger.fail(new SallyportError('shutting-down'))
  }
}

// 'close' follows every error, and is what counts.
function ignore(): void {
  return undefined
}
