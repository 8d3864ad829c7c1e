// The SSH listener: one front for each connection, one clock for its login. What a stranger does wrong is
// answered and counted here; a connection becomes a session (`onSession`) as soon as it is there, since its
// first words are part of the login.
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Clock } from '../../clock.ts'
import { SallyportError } from '../../errors.ts'
import type { ChannelKind } from '../../session/front.ts'
import { listenTcp } from '../listen.ts'
import type { Arrival } from '../listen.ts'
import { createPenalties } from '../penalties.ts'
import { createTurnAway } from '../turn-away.ts'
import type { FrontLog } from '../turn-away.ts'
import { clientKeyExchanges, offerOf, userSignatures } from './algorithms.ts'
import type { CopyLimits } from './file-copies.ts'
import { SshFront } from './front.ts'
import type { DoorSetting, FrontSetting } from './setting.ts'
import { readHostKey } from './ssh2.ts'
import type { HostKey } from './ssh2.ts'
import { fileRights } from './rights.ts'
import { SshTape } from './tape.ts'
import { Transport, certifiedType } from './transport.ts'
import type { TransportEvents } from './transport.ts'

export interface SshListenLimits {
  connectionsMax: number
  unauthenticatedPerAddressMax: number
  unauthenticatedMax: number
  /** From accept to the end of authentication. */
  loginGraceMs: number
  loginFailuresPerMinuteMax: number
  /** Channels of one session: OpenSSH has 10 for each connection, browsers open some hundred forwards. */
  channelsMax: number
  connectMs: number
  handshakeMs: number
  loginMs: number
}

export const defaultSshLimits: SshListenLimits = {
  connectionsMax: 10_000,
  unauthenticatedPerAddressMax: 100,
  unauthenticatedMax: 1000,
  loginGraceMs: 30_000,
  loginFailuresPerMinuteMax: 30,
  channelsMax: 1024,
  connectMs: 5000,
  handshakeMs: 5000,
  loginMs: 10_000
}

/** What recordings keep beside the screen. */
export interface SshEvidence {
  hashes?: boolean | undefined
  outputKeptBytesMax?: number | undefined
  outputBytesPerSecond?: number | undefined
  /** Of grants that ask for copies. */
  copies?: CopyLimits | undefined
}

export const defaultCopies: CopyLimits = {
  fileBytesMax: 16 * 1024 * 1024, sessionBytesMax: 256 * 1024 * 1024
}

export interface SshListenOptions {
  host: string
  /** 0: any free one. */
  port: number
  /** Private keys as files of OpenSSH, one for each kind; one of them ed25519. */
  hostKeys: readonly string[]
  /** A certificate of our ed25519 key for the host of that name, as `ssh -J` shows it. */
  certify(host: string): Uint8Array
  limits?: Partial<SshListenLimits> | undefined
  clock: Clock
  log: FrontLog
  /** Runs the session; must not reject. */
  onSession(front: SshFront): Promise<unknown>
  /** Something that a grant does not allow was asked for in a session. */
  onRefused(session: string, what: string, right: ChannelKind | undefined): void
  /** What of the sessions is kept; default: as written in kept-output.ts and below. */
  evidence?: SshEvidence | undefined
  /** `stream`: leaves the sockets as Node made them; for comparison, and should Node's inside change. */
  readMode?: 'shared' | 'stream' | undefined
}

export interface SshListener {
  readonly address: AddressInfo
  stats(): { connections: number, unauthenticated: number }
  /** Takes no new connections and sends strangers away; running sessions go on. Idempotent. */
  close(): Promise<void>
}

/** Rejects when the address cannot be had or a host key cannot be read. */
export async function listenSsh(options: SshListenOptions): Promise<SshListener> {
  const limits = { ...defaultSshLimits, ...options.limits }
  const { clock, log } = options
  const penalties = createPenalties(clock, limits.loginFailuresPerMinuteMax)
  const door: Door = new Door(options, limits, {
    ...doorSetting(options), penalties,
    openInner: (stream, host, events) => door.openInner(stream, host, events)
  })
  const listener = await listenTcp({
    host: options.host, port: options.port, limits, penalties,
    arrive: arrival => door.arrive(arrival),
    // Before its identification a server may say lines of text (RFC 4253 section 4.2); clients show them.
    turnAway: createTurnAway(clock, log, error => Buffer.from(`${error.clientMessage}\r\n`)),
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

/** What every session has, however its person comes. */
export function doorSetting(
  { clock, limits: given, evidence: { copies = defaultCopies, ...evidence } = {}, onRefused }:
  Pick<SshListenOptions, 'clock' | 'limits' | 'evidence' | 'onRefused'>
): DoorSetting {
  const { channelsMax, connectMs, handshakeMs, loginMs } = { ...defaultSshLimits, ...given }
  return {
    clock,
    tapeOf: (recording, { channels, copyFiles }, judged) => new SshTape(recording, {
      clock, allowFile: fileRights(channels, judged?.file), channelsMax, ...evidence,
      copies: copyFiles ? copies : undefined
    }),
    timeouts: { connectMs, handshakeMs, loginMs },
    refused: onRefused
  }
}

class Door {
  readonly #options: SshListenOptions
  readonly #limits: SshListenLimits
  readonly #setting: FrontSetting
  readonly #hostKeys: Record<string, HostKey> = {}
  /** Connections that have not logged in. */
  readonly #strangers = new Set<SshFront>()

  constructor(options: SshListenOptions, limits: SshListenLimits, setting: FrontSetting) {
    this.#options = options
    this.#limits = limits
    this.#setting = setting
    for (const file of options.hostKeys) {
      const key = readHostKey(file)
      const names = key.type === 'ssh-rsa' ? ['rsa-sha2-512', 'rsa-sha2-256'] : [key.type]
      for (const name of names) this.#hostKeys[name] = key
    }
  }

  arrive(arrival: Arrival): void {
    const { socket, address, ticket } = arrival
    const { clock, readMode = 'shared' } = this.#options
    const late = clock.after(this.#limits.loginGraceMs, () => front.fail(new SallyportError('auth-timeout')))
    const settle = (): void => {
      late()
      this.#strangers.delete(front)
    }
    const open = (events: TransportEvents): Transport => {
      const transport = new Transport({
        socket, clock, readMode, offer: offerOf(Object.keys(this.#hostKeys), clientKeyExchanges),
        side: { kind: 'server', hostKeys: this.#hostKeys, signatures: userSignatures }
      }, events)
      arrival.evict = () => transport.destroy()
      return transport
    }
    const front = new SshFront(address, open, this.#setting, {
      spoke: () => ticket.spoke(),
      authenticated: () => {
        settle()
        ticket.authenticated()
      },
      gone: () => {
        settle()
        ticket.leave()
      }
    })
    this.#strangers.add(front)
    void this.#options.onSession(front)
  }

  openInner(socket: Duplex, host: string, events: TransportEvents): Transport {
    const { clock, certify } = this.#options
    return new Transport({
      socket, clock, readMode: 'stream',
      offer: offerOf([certifiedType, ...Object.keys(this.#hostKeys)], clientKeyExchanges),
      side: {
        kind: 'server', hostKeys: this.#hostKeys, signatures: userSignatures, certificate: certify(host)
      }
    }, events)
  }

  close(): void {
    for (const stranger of this.#strangers) stranger.fail(new SallyportError('shutting-down'))
  }
}
