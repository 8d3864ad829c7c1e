// The data path of a TCP target, whatever the person's side is (a channel of `ssh -L`, a connection of
// `sallyport connect`): each connection of the person's is one to the target, dialled by us, and a lane of
// the session's recording. Bytes pass as they are, each direction at the pace of its slower end; an end of
// one direction is passed on and the other goes on. Nothing is delivered before the recorder has it. There is
// no idle limit: databases wait for hours, a peer that vanished is found out by keep-alive, and the session's
// own time is limited.
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import type { Duplex, Readable, Writable } from 'node:stream'
import { finished } from 'node:stream/promises'
import type { Clock } from '../../clock.ts'
import { SallyportError, asSallyportError } from '../../errors.ts'
import type { TargetAddress } from '../../jit/plugin.ts'
import { frameKind } from '../../recording/recording.ts'
import type { Recording } from '../../recording/recording.ts'
import { Veil } from './veil.ts'

/** As towards every other target: a peer that vanished is found out within 25 s. */
const keepAliveMs = 15_000
/** Connections of one session at once: a pool of a tool has some ten; each holds buffers on both sides. */
export const connectionsMax = 64
/** The recording has 15 bits for channels. */
const lanesMax = 0x7fff
/** What a client says of itself is put on record no longer than this. */
const fromCharactersMax = 100

export interface TunnelSetting {
  target: Pick<TargetAddress, 'name' | 'host' | 'port'>
  recording: Recording
  clock: Clock
  connectMs: number
  /** A password that is not to be on the tape. */
  password: string | undefined
}

/** Waits until the person's side can take more; for sides that do not say it themselves. */
export type Room = () => Promise<void> | undefined

/** A connection to the target that waits for its other side. */
export interface Dialled {
  /** Carries bytes until both directions are over. Never rejects. */
  carry(client: Duplex, room?: Room): Promise<void>
  /** Nobody came for it. */
  abandon(): void
}

interface Lane {
  number: number
  socket: Socket
  sentBytes: number
  receivedBytes: number
  /** Ends both sides at once. */
  cut(): void
}

export class Tunnel {
  readonly #setting: TunnelSetting
  readonly #lanes = new Map<number, Lane>()
  #lastLane = 0
  #over = false

  constructor(setting: TunnelSetting) {
    this.#setting = setting
  }

  /**
   * One more connection; `from`: where the person's side says that it comes from.
   * @throws SallyportError `too-many-connections`, `target-unreachable`, `target-closed`
   */
  async dial(from: string): Promise<Dialled> {
    if (this.#over) throw new SallyportError('target-closed', { detail: 'the session has ended' })
    if (this.#lanes.size >= connectionsMax) throw new SallyportError('too-many-connections')
    const { target } = this.#setting
    const socket = connect({
      host: target.host, port: target.port, noDelay: true, keepAlive: true,
      keepAliveInitialDelay: keepAliveMs, allowHalfOpen: true
    })
    socket.on('error', ignore)
    // Its place is taken at once: many may be asked for while the first is dialled.
    const lane: Lane = {
      number: this.#freeLane(), socket, sentBytes: 0, receivedBytes: 0, cut: () => socket.destroy()
    }
    this.#lanes.set(lane.number, lane)
    this.event(lane.number, { type: 'channel-open', to: target.name, from: from.slice(0, fromCharactersMax) })
    try {
      await this.#connected(socket)
    } catch (thrown) {
      const error = asSallyportError(thrown)
      this.#leave(lane, `${error.code} ${error.reference}`)
      throw error
    }
    return {
      carry: (client, room) => this.#carry(lane, client, room),
      abandon: () => this.#leave(lane, 'abandoned')
    }
  }

  /** Cuts every connection, and those that are still dialled; nothing is on record after it. */
  end(): void {
    this.#over = true
    for (const lane of this.#lanes.values()) {
      lane.cut()
      this.#leave(lane, 'cut')
    }
  }

  event(lane: number, event: Record<string, unknown>): void {
    this.#setting.recording.append(frameKind.event, lane, Buffer.from(JSON.stringify(event)))
  }

  async #connected(socket: Socket): Promise<void> {
    const { clock, connectMs } = this.#setting
    const stop = clock.after(connectMs, () => socket.destroy(new Error('connecting took too long')))
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once('connect', resolve)
        socket.once('close', () => reject(new Error('it was closed')))
        socket.once('error', reject)
      })
    } catch (cause) {
      const { name } = this.#setting.target
      const detail = `${name}: ${cause instanceof Error ? cause.message : String(cause)}`
      throw new SallyportError('target-unreachable', { detail, cause })
    } finally {
      stop()
    }
    if (this.#over) throw new SallyportError('target-closed', { detail: 'the session ended' })
  }

  async #carry(lane: Lane, client: Duplex, room: Room = () => undefined): Promise<void> {
    const { socket } = lane
    lane.cut = () => {
      client.destroy()
      socket.destroy()
    }
    client.on('error', ignore)
    if (this.#over) lane.cut()
    let how = 'closed'
    try {
      await Promise.all([
        this.#pass(lane, client, socket, 'input', () => undefined),
        this.#pass(lane, socket, client, 'output', room)
      ])
    } catch (thrown) {
      how = thrown instanceof Error ? thrown.message : String(thrown)
    }
    lane.cut()
    this.#leave(lane, how)
  }

  async #pass(
    lane: Lane, from: Readable, to: Writable, direction: 'input' | 'output', room: Room
  ): Promise<void> {
    const { recording, password } = this.#setting
    const veil = password === undefined ? undefined : new Veil(password)
    // The other direction of the same socket may go on.
    for await (const chunk of from.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      if (this.#over) return
      recording.append(frameKind[direction], lane.number, veil?.hide(chunk) ?? chunk)
      const committed = recording.commit()
      if (committed !== true) await committed
      await room()
      if (direction === 'input') lane.sentBytes += chunk.length
      else lane.receivedBytes += chunk.length
      if (!to.writable) throw new Error('the other side is gone')
      if (!to.write(chunk)) await drained(to)
    }
    to.end()
    // Both are closed when both directions are over: only once the last bytes have been taken.
    await finished(to, { readable: false })
  }

  #leave(lane: Lane, how: string): void {
    if (!this.#lanes.delete(lane.number)) return
    lane.socket.destroy()
    const { number, sentBytes, receivedBytes } = lane
    this.event(number, { type: 'channel-close', how, sentBytes, receivedBytes })
  }

  /** In turn, so that a number is used again as late as possible. */
  #freeLane(): number {
    do this.#lastLane = this.#lastLane % lanesMax + 1
    while (this.#lanes.has(this.#lastLane))
    return this.#lastLane
  }
}

/** Rejects when it will never be. */
function drained(stream: Writable): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (act: () => void) => (): void => {
      stream.off('drain', onDrain).off('close', onClose)
      act()
    }
    const onDrain = settle(resolve)
    const onClose = settle(() => reject(new Error('the other side is gone')))
    if (stream.destroyed) return onClose()
    stream.on('drain', onDrain).on('close', onClose)
  })
}

// 'close' follows every error, and is what counts.
function ignore(): void {
  return undefined
}
