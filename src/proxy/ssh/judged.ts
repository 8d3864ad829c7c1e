// What a session over SSH has to ask where its grant has rules: a command before it is passed on, a line at a
// terminal before its end is, a file before it is touched. While others are asked about a command, what the
// client says on that channel waits behind it; the other channels go on. A client that closes the channel or
// interrupts the command does not wait any more: others are asked no longer. The end of its input is none
// of these: most commands are given no input at all. Without rules there is none of this.
import { frameKind } from '../../recording/recording.ts'
import type { Recording } from '../../recording/recording.ts'
import { SallyportError } from '../../errors.ts'
import type { FileDirection, Judge, Verdict } from '../../session/judge.ts'
import { WireError } from '../../wire/error.ts'
import { dataHeadBytes, recipientOf, sshMessage } from '../../wire/ssh/connection.ts'
import { parseChannelRequest } from '../../wire/ssh/request.ts'
import type { RequestPurpose } from '../../wire/ssh/request.ts'
import type { AllowFile, FileOperation } from '../../wire/ssh/sftp.ts'
import type { Channel, ChannelTable } from './channels.ts'
import { TypedLines } from '../../wire/ssh/typed-lines.ts'

/** Messages of one channel that wait behind a command. */
const waitingMax = 4096
/** All that waits in one session: one window of OpenSSH is 2 MiB. */
const waitingBytesMax = 4 * 1024 * 1024
/** What keeping a message costs beside its bytes: half a million empty ones would be 100 MiB. */
const messageBytes = 256

/** Of a command that does not pass so much is kept. */
const commandMax = 32 * 1024

/**
 * Ctrl-C at a terminal that is not the target's yet. OpenSSH's sshd gives a channel no window before its
 * command runs, so that no client may send it then, and a person leaves with `~.`; other servers do.
 */
const interruptByte = 3
/** What ends a command by its signal. */
const ending = new Set(['INT', 'TERM', 'HUP', 'QUIT', 'KILL'])

/** What waits behind a command. */
interface Behind {
  payloads: Buffer[]
  bytes: number
  leaving: AbortController
}

/** The relay, as far as verdicts need it. */
export interface JudgedRelay {
  channels: ChannelTable
  /** On the standard error of this channel; without one, of any that is open. */
  tell(line: string, channel?: Channel): void
  end(error: SallyportError): void
  /** Looks at a message of the client that has waited. */
  again(payload: Buffer): void
}

export class Judged {
  readonly #judge: Judge
  readonly #recording: Recording
  readonly #home: string | undefined
  #relay: JudgedRelay | undefined
  /** What waits behind a command, by the number that the client knows the channel by. */
  readonly #waiting = new Map<number, Behind>()
  #waitingBytes = 0
  readonly #decided = new WeakMap<Buffer, Verdict>()
  readonly #typed = new WeakMap<Channel, TypedLines>()
  readonly #leaving = new AbortController()

  /** `home`: where the target's relative paths begin. */
  constructor(judge: Judge, recording: Recording, home?: string) {
    this.#judge = judge
    this.#recording = recording
    this.#home = home
    if (home !== undefined) {
      recording.append(frameKind.event, 0, Buffer.from(JSON.stringify({ type: 'home', path: home })))
    }
  }

  attach(relay: JudgedRelay): void {
    this.#relay = relay
  }

  /** Nobody waits any more. */
  stop(): void {
    this.#leaving.abort(new SallyportError('client-closed'))
  }

  /** True: the message waits behind a command that is not decided yet. */
  holds(payload: Buffer): boolean {
    if (this.#waiting.size === 0 || !isOfChannel(payload)) return false
    const number = recipientOf(payload)
    const behind = this.#waiting.get(number)
    if (behind === undefined) return false
    const reason = new SallyportError('client-closed', { detail: 'left while others were asked' })
    if (payload[0] === sshMessage.close) {
      // The command never was: the target hears only that its channel is closed.
      this.#release(number, behind)
      behind.leaving.abort(reason)
      return false
    }
    const bytes = payload.length + messageBytes
    this.#waitingBytes += bytes
    behind.bytes += bytes
    if (behind.payloads.length >= waitingMax || this.#waitingBytes > waitingBytesMax) {
      throw new WireError('too much waits for a verdict')
    }
    behind.payloads.push(Buffer.from(payload))
    if (this.#interrupts(payload)) behind.leaving.abort(reason)
    return true
  }

  #interrupts(payload: Buffer): boolean {
    if (payload[0] === sshMessage.data) {
      const hasTerminal = this.#relay?.channels.find('client', recipientOf(payload))?.pty === true
      return hasTerminal && payload.subarray(dataHeadBytes).includes(interruptByte)
    }
    const signal = signalOf(payload)
    return signal !== undefined && ending.has(signal)
  }

  #release(number: number, behind: Behind): void {
    this.#waiting.delete(number)
    this.#waitingBytes -= behind.bytes
  }

  /** Undefined where no rule is concerned; `waits`: it comes again with its verdict. */
  request(payload: Buffer, channel: Channel, purpose: RequestPurpose): Verdict | 'waits' | undefined {
    const decided = this.#decided.get(payload)
    if (decided !== undefined) return decided
    const { command } = this.#judge
    const text = commandOf(purpose)
    if (command === undefined || text === undefined) return undefined
    const tell = (line: string): void => this.#relay?.tell(line, channel)
    const leaving = new AbortController()
    const left = AbortSignal.any([this.#leaving.signal, leaving.signal])
    const verdict = command(text, { tell, left }, bytesOf(purpose))
    const note = (found: Verdict): void =>
      this.#note(channel.lane, found, found.passes ? {} : { command: text.slice(0, commandMax) })
    if (!(verdict instanceof Promise)) {
      note(verdict)
      return verdict
    }
    const kept = Buffer.from(payload)
    const number = recipientOf(payload)
    const behind: Behind = { payloads: [], bytes: 0, leaving }
    this.#waiting.set(number, behind)
    void verdict.then(found => {
      if (this.#leaving.signal.aborted) return
      note(found)
      if (this.#waiting.get(number) !== behind) return
      this.#release(number, behind)
      this.#decided.set(kept, found)
      // A command that never was is not fed or interrupted: its stand-in says how it ended.
      const rest = found.passes ? behind.payloads : behind.payloads.filter(each => !isForCommand(each))
      for (const each of [kept, ...rest]) this.#relay?.again(each)
    })
    return 'waits'
  }

  /** True: a line ended the session, and is not passed on. */
  stops(payload: Buffer): boolean {
    const { typed } = this.#judge
    if (typed === undefined) return false
    const channel = this.#relay?.channels.find('client', recipientOf(payload))
    const kind = channel?.content.kind
    if (channel === undefined || (kind !== 'terminal' && kind !== 'shell')) return false
    const lines = this.#typed.get(channel) ?? new TypedLines()
    this.#typed.set(channel, lines)
    for (const line of lines.feed(payload.subarray(dataHeadBytes))) {
      const verdict = typed(line, words => this.#relay?.tell(words, channel))
      this.#note(channel.lane, verdict, { typed: true })
      if (verdict.passes) continue
      if (verdict.error !== undefined) this.#relay?.end(verdict.error)
      return true
    }
    return false
  }

  /** Undefined where no rule is about files. */
  get file(): AllowFile | undefined {
    const { file } = this.#judge
    return file && ((op, path, { isSource = false, isTree, isVague } = {}) => {
      const tell = (line: string): void => this.#relay?.tell(line)
      const place = { home: this.#home, isTree, isVague }
      const change = file(directionOf(op), path, tell, place)
      const verdict = change.passes && isSource ? file('download', path, tell, place) : change
      if (verdict !== change) this.#note(0, change, { op, path })
      this.#note(0, verdict, { op, path })
      const { error, ends } = verdict
      // The tape is in the middle of this message: the session ends behind it.
      if (ends && error !== undefined) queueMicrotask(() => this.#relay?.end(error))
      return verdict.passes
    })
  }

  #note(lane: number, { note }: Verdict, more: Record<string, unknown> = {}): void {
    if (note === undefined) return
    this.#recording.append(frameKind.event, lane, Buffer.from(JSON.stringify({ ...note, ...more })))
  }
}

function isOfChannel(payload: Buffer): boolean {
  const type = payload[0] ?? 0
  return type >= sshMessage.windowAdjust && type <= sshMessage.channelFailure
}

function signalOf(payload: Buffer): string | undefined {
  if (payload[0] !== sshMessage.channelRequest) return undefined
  const { purpose } = parseChannelRequest(payload)
  return purpose.kind === 'signal' ? purpose.signal : undefined
}

function isForCommand(payload: Buffer): boolean {
  return payload[0] === sshMessage.data || signalOf(payload) !== undefined
}

/** A subsystem is a command by another name; `sftp` is judged by its files. */
function commandOf(purpose: RequestPurpose): string | undefined {
  if (purpose.kind === 'exec') return purpose.command.toString('utf8')
  return purpose.kind === 'subsystem' && purpose.name !== 'sftp' ? purpose.name : undefined
}

/** Bytes that are no text look alike as one. */
function bytesOf(purpose: RequestPurpose): Buffer | undefined {
  return purpose.kind === 'exec' ? purpose.command : undefined
}

function directionOf(op: FileOperation): FileDirection {
  if (op === 'download') return 'download'
  return op === 'list' || op === 'open' ? 'look' : 'upload'
}
