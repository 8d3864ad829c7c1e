// What the recorder does with the bytes of one SSH channel. A terminal is kept, and the output of commands
// (kept-output.ts says how much of it); of forwarded connections and file transfers it is enough to know how
// much there was and what it hashes to. Each message of data is at most one frame; nothing is gathered.
import { createHash } from 'node:crypto'
import type { Hash } from 'node:crypto'
import { frameKind } from '../../recording/recording.ts'
import type { Recording } from '../../recording/recording.ts'
import { EchoedInput } from './echo.ts'

/** What is kept of what people type and commands are fed with. */
export type InputPolicy = 'none' | 'echoed' | 'all'

/** Numbers of a channel for its close event. */
export type Facts = Record<string, unknown>

/** What one channel carries. Data is a view, valid during the call. */
export interface Content {
  readonly kind: string
  /** Pieces to forward in place of these bytes; undefined: the bytes as they are (now). */
  fromClient(data: Buffer): Buffer[] | undefined
  fromTarget(data: Buffer): void
  /** The client has no more to say. Pieces to forward before that. */
  clientEnd(): Buffer[] | undefined
  /** The channel is closed. */
  end(): Facts
}

/** What becomes of a command's output. */
export interface Output {
  add(data: Buffer): void
  /** No more comes. */
  end(): Facts
}

export interface ContentSetting {
  recording: Recording
  lane: number
  /** What is not kept is hashed at least. */
  hashes: boolean
  /** Writes an event on the channel's lane. */
  event: (event: Record<string, unknown>) => void
}

/** Counts bytes, and hashes them when asked. SHA-256 runs at 1 to 2 GB/s where the processor has it. */
export class Meter {
  bytes = 0
  readonly #hash: Hash | undefined

  constructor(hashes: boolean) {
    this.#hash = hashes ? createHash('sha256') : undefined
  }

  add(data: Uint8Array): void {
    this.bytes += data.length
    this.#hash?.update(data)
  }

  /** To be asked once. */
  facts(): Facts {
    const sha256 = this.#hash?.digest('hex')
    return { bytes: this.bytes, ...sha256 !== undefined && { sha256 } }
  }
}

/** Before the first request: nothing may come yet. What comes all the same is kept. */
export class UnknownContent implements Content {
  readonly kind: string = 'unknown'
  readonly #setting: ContentSetting

  constructor(setting: ContentSetting) {
    this.#setting = setting
  }

  fromClient(data: Buffer): undefined {
    this.#setting.recording.append(frameKind.input, this.#setting.lane, data)
  }

  fromTarget(data: Buffer): void {
    this.#setting.recording.append(frameKind.output, this.#setting.lane, data)
  }

  clientEnd(): undefined {}

  end(): Facts {
    return {}
  }
}

/** A terminal: all output; of the input what the policy says. */
export class TerminalContent implements Content {
  readonly kind = 'terminal'
  readonly #recording: Recording
  readonly #lane: number
  readonly #input: InputPolicy
  readonly #echo: EchoedInput
  #typedBytes = 0
  #droppedBytes = 0
  #outputBytes = 0

  constructor({ recording, lane }: ContentSetting, input: InputPolicy) {
    this.#recording = recording
    this.#lane = lane
    this.#input = input
    this.#echo = new EchoedInput({
      kept: line => recording.append(frameKind.input, lane, line),
      dropped: bytes => { this.#droppedBytes += bytes }
    })
  }

  fromClient(data: Buffer): undefined {
    this.#typedBytes += data.length
    if (this.#input === 'all') this.#recording.append(frameKind.input, this.#lane, data)
    else if (this.#input === 'echoed') this.#echo.typed(data)
    else this.#droppedBytes += data.length
  }

  fromTarget(data: Buffer): void {
    this.#outputBytes += data.length
    this.#echo.shown(data)
    this.#recording.append(frameKind.output, this.#lane, data)
  }

  clientEnd(): undefined {}

  end(): Facts {
    this.#echo.end()
    return {
      inputBytes: this.#typedBytes, inputNotKept: this.#droppedBytes, outputBytes: this.#outputBytes
    }
  }
}

/** Output that is kept, all of it. */
class WholeOutput implements Output {
  readonly #setting: ContentSetting
  #bytes = 0

  constructor(setting: ContentSetting) {
    this.#setting = setting
  }

  add(data: Buffer): void {
    this.#bytes += data.length
    this.#setting.recording.append(frameKind.output, this.#setting.lane, data)
  }

  end(): Facts {
    return { outputBytes: this.#bytes }
  }
}

/** Of the input of a shell without a terminal so much is kept: a script, not an archive. */
const shellInputBytesMax = 1024 * 1024

/**
 * A command, or a shell without a terminal: its output. What a command is fed with is counted and hashed; a
 * shell is fed with commands, which are kept.
 */
export class CommandContent implements Content {
  readonly kind: 'shell' | 'exec' | 'subsystem'
  readonly #recording: Recording
  readonly #lane: number
  readonly #event: ContentSetting['event']
  readonly #input: Meter
  readonly #output: Output
  readonly #keptMax: number
  #keptBytes = 0
  #ended = false

  constructor(
    setting: ContentSetting, kind: 'shell' | 'exec' | 'subsystem', input: InputPolicy,
    output: Output = new WholeOutput(setting)
  ) {
    const { recording, lane, event, hashes } = setting
    this.kind = kind
    this.#input = new Meter(hashes)
    this.#output = output
    this.#recording = recording
    this.#lane = lane
    this.#event = event
    const shellMax = input === 'echoed' && kind === 'shell' ? shellInputBytesMax : 0
    this.#keptMax = input === 'all' ? Infinity : shellMax
  }

  fromClient(data: Buffer): undefined {
    this.#input.add(data)
    const room = this.#keptMax - this.#keptBytes
    if (room <= 0) return
    const kept = data.length > room ? data.subarray(0, room) : data
    this.#keptBytes += kept.length
    this.#recording.append(frameKind.input, this.#lane, kept)
  }

  fromTarget(data: Buffer): void {
    this.#output.add(data)
  }

  clientEnd(): undefined {
    if (this.#ended) return
    this.#ended = true
    if (this.#input.bytes > 0) this.#event({ type: 'stdin', ...this.#input.facts() })
  }

  end(): Facts {
    this.clientEnd()
    const { bytes } = this.#input
    return { inputBytes: bytes, inputNotKept: bytes - this.#keptBytes, ...this.#output.end() }
  }
}

/**
 * Counted and hashed: forwarded connections, rsync, git. The beginning is kept, so that a stream that is not
 * what it says can be seen, and somebody who runs SSH inside a forwarded connection is told of.
 */
export class BulkContent implements Content {
  readonly kind: string
  readonly #setting: ContentSetting
  readonly #meters: Record<'client' | 'target', Meter>
  readonly #keptMax: number

  constructor(setting: ContentSetting, kind: string, hashes: boolean, keptBytesMax: number) {
    this.kind = kind
    this.#setting = setting
    const meter = (): Meter => new Meter(hashes && setting.hashes)
    this.#meters = { client: meter(), target: meter() }
    this.#keptMax = keptBytesMax
  }

  fromClient(data: Buffer): undefined {
    this.#take('client', data)
  }

  fromTarget(data: Buffer): void {
    this.#take('target', data)
  }

  clientEnd(): undefined {}

  end(): Facts {
    const [input, output] = [this.#meters.client.facts(), this.#meters.target.facts()]
    return {
      inputBytes: input['bytes'], inputSha256: input['sha256'],
      outputBytes: output['bytes'], outputSha256: output['sha256']
    }
  }

  #take(side: 'client' | 'target', data: Buffer): void {
    const meter = this.#meters[side]
    const { recording, lane, event } = this.#setting
    if (meter.bytes === 0 && data.subarray(0, sshBanner.length).equals(sshBanner)) {
      event({ type: 'ssh-inside', from: side })
    }
    const room = this.#keptMax - meter.bytes
    meter.add(data)
    if (room <= 0) return
    const kind = side === 'client' ? frameKind.input : frameKind.output
    recording.append(kind, lane, data.length > room ? data.subarray(0, room) : data)
  }
}

const sshBanner = Buffer.from('SSH-')
