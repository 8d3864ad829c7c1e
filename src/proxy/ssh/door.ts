// The front of one session on a connection whose person has proved who they are: chosen from the menu, the
// only one that is open, or reached through `ssh -J` or a page of the console. Its claim is known; what the
// client says while the account is made waits here for the relay.
import type { Recording, Ending } from '../../recording/recording.ts'
import { SallyportError } from '../../errors.ts'
import type { Challenge, Claim, Front, Proof, Upstreaming } from '../../session/front.ts'
import { Judged } from './judged.ts'
import type { DoorSetting } from './setting.ts'
import { Relay } from './relay.ts'
import type { Adopted, ClientLine } from './relay.ts'
import { connectTarget } from './target.ts'
import type { SshUpstream } from './target.ts'
import { disconnectReason } from './transport.ts'

/** A client that waits for its shell types ahead; its windows bound that, and this bounds the windows. */
const aheadBytesMax = 4 * 1024 * 1024

export interface DoorOptions {
  transport: ClientLine
  setting: DoorSetting
  claim: Claim
  /** Messages that the client has sent and that the target shall get. */
  ahead: readonly Buffer[]
  /** A session channel that we answered while the person chose. */
  adopted?: Adopted | undefined
  /** The client's connection is closed. */
  gone(): void
  /** One line for the person while there is no target. */
  tell(line: string): void
}

export class DoorFront implements Front<SshUpstream> {
  readonly #options: DoorOptions
  readonly #ahead: Buffer[]
  #aheadBytes = 0
  #relay: Relay | undefined
  #onLeft: (() => void) | undefined

  constructor(options: DoorOptions) {
    this.#options = options
    this.#ahead = [...options.ahead]
  }

  async claim(): Promise<Claim> {
    return this.#options.claim
  }

  /** Proved already, on this very connection. */
  async prove(_challenge: Challenge): Promise<Proof | undefined> {
    return { method: 'proved before' }
  }

  /** A message of the client that comes before the target is there. */
  wait(payload: Buffer): void {
    this.#ahead.push(Buffer.from(payload))
    this.#aheadBytes += payload.length
    if (this.#aheadBytes > aheadBytesMax) {
      const detail = 'too much before the target is there'
      const error = new SallyportError('protocol-violation', { detail })
      this.#options.transport.disconnect(disconnectReason.protocolError, error.clientMessage)
    }
  }

  tell(line: string): void {
    if (this.#relay === undefined) this.#options.tell(line)
    else this.#relay.tell(line)
  }

  onLeft(act: () => void): () => void {
    this.#onLeft = act
    if (this.#options.transport.closed) act()
    return () => { this.#onLeft = undefined }
  }

  /** The client's connection is closed. */
  leave(): void {
    this.#onLeft?.()
  }

  async refuse(error: SallyportError): Promise<void> {
    const { transport } = this.#options
    if (error.code === 'client-closed' || this.#relay !== undefined) return transport.end()
    transport.disconnect(disconnectReason.byApplication, error.clientMessage)
  }

  /** Undefined when the client went away meanwhile: then no connection is opened. */
  async connect(upstreaming: Upstreaming, signal: AbortSignal): Promise<SshUpstream> {
    const { transport, setting } = this.#options
    if (transport.closed) return undefined
    return connectTarget(upstreaming, setting.timeouts, setting.clock, signal)
  }

  async relay(target: SshUpstream, recording: Recording, signal: AbortSignal): Promise<Ending> {
    if (target === undefined || 'tcp' in target) return { how: 'ended', reason: 'client-closed' }
    const { transport, setting, adopted, gone } = this.#options
    const judged = target.judge && new Judged(target.judge, recording, target.home)
    this.#relay = new Relay({
      client: transport, target, recording, signal, channels: target.channels, adopted, gone, judged,
      ahead: this.#ahead, tape: setting.tapeOf(recording, target, judged),
      refused: (what, right) => setting.refused(recording.session, what, right)
    })
    return this.#relay.run()
  }
}
