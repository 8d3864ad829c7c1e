// The evidence of one SSH session: every message of the connection protocol passes through here, in the order
// of its direction, before it is forwarded. Channels, commands, sizes, signals and refusals become events;
// data goes to the content of its channel (content.ts). What is not marked here is not on record.
// recordings/README.md tells readers what they find.
import { systemClock } from '../../clock.ts'
import type { Clock } from '../../clock.ts'
import { frameKind } from '../../recording/recording.ts'
import type { Recording } from '../../recording/recording.ts'
import { WireError } from '../../wire/error.ts'
import {
  channelData, dataBytes, dataHeadBytes, extendedDataBytes, extendedDataHeadBytes, extendedDataType,
  parseChannelOpen, parseGlobalRequest, parseOpenConfirmation, parseOpenFailure, recipientOf, sshMessage,
  stderrType, windowAdjustBytes
} from '../../wire/ssh/connection.ts'
import { isStarting, parseChannelRequest, terminalMode } from '../../wire/ssh/request.ts'
import type { ChannelRequest, RequestPurpose, Starting } from '../../wire/ssh/request.ts'
import { EarlyBudget } from '../../wire/ssh/sequence.ts'
import type { AllowFile } from '../../wire/ssh/sftp.ts'
import { ChannelTable, otherSide, stderrLane } from './channels.ts'
import type { Asked, Channel, Side } from './channels.ts'
import { commandOf } from './command.ts'
import { BulkContent, CommandContent, TerminalContent, UnknownContent } from './content.ts'
import type { Content, ContentSetting, InputPolicy } from './content.ts'
import { FileCopies } from './file-copies.ts'
import type { CopyLimits } from './file-copies.ts'
import { FileContent, isVague } from './files.ts'
import type { FileSetting, Transfer } from './files.ts'
import { KeptOutput, outputBytesPerSecond, outputKeptBytesMax } from './kept-output.ts'

const channelsMaxDefault = 4096
/** The beginning of a transfer that has no decoder: enough to see whether it is what it says. */
const bulkKeptBytes = 4096
/** Of a text that a peer chose so much goes into an event. */
const eventTextMax = 32 * 1024
/** Global requests of one side that wait for their reply. */
const globalRepliesMax = 1024
/** Where the name of a channel request begins: number, channel, length. */
const requestNameAt = 9
/** Noise of every session: not recorded. */
const quietRequests = new Set([
  'keepalive@openssh.com', 'hostkeys-00@openssh.com', 'hostkeys-prove-00@openssh.com',
  'no-more-sessions@openssh.com'
])

export interface SshTapeOptions {
  /**
   * `echoed` (default): lines typed at a terminal are kept when they came back on the screen, and what a
   * shell without a terminal is fed with. `all`: passwords too. `none`: counted only.
   */
  input?: InputPolicy | undefined
  channelsMax?: number | undefined
  /** Forwarded connections are hashed too, not only counted. */
  hashForwards?: boolean | undefined
  /**
   * Judges what is done to files over SFTP and scp, before it is done. Without it nothing of a transfer is
   * held back or put together anew. rsync, git and commands are not asked for here: refuse them as requests.
   */
  allowFile?: AllowFile | undefined
  /** Of the output of a command so much is kept at once (kept-output.ts). A shell's is kept whole. */
  outputKeptBytesMax?: number | undefined
  outputBytesPerSecond?: number | undefined
  /** Default: what is not kept is hashed. */
  hashes?: boolean | undefined
  /** Copies of transferred files are kept, within these limits. */
  copies?: CopyLimits | undefined
  clock?: Clock | undefined
}

/** The file transfer that a request begins. */
function transferOf(purpose: RequestPurpose): Transfer | undefined {
  if (purpose.kind === 'subsystem') return purpose.name === 'sftp' ? { kind: 'sftp' } : undefined
  if (purpose.kind !== 'exec') return undefined
  const command = commandOf(purpose.command)
  return command.kind === 'sftp' || command.kind === 'scp' ? command : undefined
}

function clipped(text: string): string {
  return text.length > eventTextMax ? `${text.slice(0, eventTextMax)}…` : text
}

export class SshTape {
  readonly #recording: Recording
  readonly #input: InputPolicy
  readonly #hashForwards: boolean
  /** Every channel, for whoever decides about them. */
  readonly channels: ChannelTable
  readonly #allowFile: AllowFile | undefined
  readonly #files: FileSetting
  readonly #outputMax: number
  readonly #outputPerSecond: number
  readonly #hashes: boolean
  readonly #clock: Clock
  readonly #globals: Record<Side, Asked[]> = { client: [], target: [] }

  constructor(recording: Recording, options: SshTapeOptions = {}) {
    this.#recording = recording
    this.#input = options.input ?? 'echoed'
    this.#hashForwards = options.hashForwards ?? false
    this.#allowFile = options.allowFile
    const copies = options.copies && new FileCopies(options.copies)
    this.#files = { allow: options.allowFile, budget: new EarlyBudget(), copies }
    this.#outputMax = options.outputKeptBytesMax ?? outputKeptBytesMax
    this.#outputPerSecond = options.outputBytesPerSecond ?? outputBytesPerSecond
    this.#hashes = options.hashes ?? true
    this.#clock = options.clock ?? systemClock
    this.channels = new ChannelTable(options.channelsMax ?? channelsMaxDefault)
  }

  /** No more channels may be opened: refuse a CHANNEL_OPEN without showing it here, or the session ends. */
  get full(): boolean {
    return this.channels.full
  }

  /**
   * A message of the client, before it is forwarded. `refused` says why the target will not get it as it is:
   * a request that is made useless before it is passed on, a channel that is not opened.
   * Returns what is to be forwarded in its place; undefined: the message itself.
   * @throws WireError the message is malformed: end the session
   */
  fromClient(payload: Buffer, refused?: string): Buffer[] | undefined {
    return this.#message('client', payload, refused)
  }

  /** The same for a message of the target. What it returns is always forwarded as it is afterwards. */
  fromTarget(payload: Buffer, refused?: string): Buffer[] | undefined {
    return this.#message('target', payload, refused)
  }

  /** The session is over: what is still open is put on record. Once, before the recording is sealed. */
  end(): void {
    for (const channel of this.channels.all()) this.#closed(channel, 'session')
  }

  #message(side: Side, payload: Buffer, refused: string | undefined): Buffer[] | undefined {
    switch (payload[0]) {
      case sshMessage.data: return this.#data(side, payload)
      case sshMessage.extendedData: return this.#extendedData(side, payload)
      case sshMessage.windowAdjust: return this.#windowAdjust(side, payload)
      case sshMessage.channelRequest: return this.#requested(side, payload, refused)
      case sshMessage.channelSuccess: return this.#reply(side, payload, true)
      case sshMessage.channelFailure: return this.#reply(side, payload, false)
      case sshMessage.channelOpen: return this.#open(side, payload, refused)
      case sshMessage.openConfirmation: return this.#confirm(side, payload)
      case sshMessage.openFailure: return this.#openFailed(side, payload)
      case sshMessage.eof: return this.#eof(side, payload)
      case sshMessage.close: return this.#close(side, payload)
      case sshMessage.globalRequest: return this.#global(side, payload, refused)
      case sshMessage.requestSuccess: return void this.#globals[otherSide(side)].shift()
      case sshMessage.requestFailure: return this.#globalFailed(side)
      default: throw new WireError(`SSH message ${payload[0]} is not allowed here`)
    }
  }

  #event(lane: number, event: Record<string, unknown>): undefined {
    this.#recording.append(frameKind.event, lane, Buffer.from(JSON.stringify(event)))
  }

  // ---- data

  /** A channel may be gone when it comes: then it means nothing. */
  #windowAdjust(side: Side, payload: Buffer): undefined {
    const bytes = windowAdjustBytes(payload)
    const channel = this.channels.find(side, recipientOf(payload))
    if (channel !== undefined) this.channels.grant(side, channel, bytes)
  }

  #data(side: Side, payload: Buffer): Buffer[] | undefined {
    const bytes = dataBytes(payload)
    const recipient = recipientOf(payload)
    const channel = this.channels.get(side, recipient)
    this.channels.spend(side, channel, bytes)
    const data = payload.subarray(dataHeadBytes)
    if (side === 'target') return void channel.content.fromTarget(data)
    if (this.#allowFile !== undefined && channel.content.kind === 'unknown') {
      throw new WireError('SSH data before anybody knows what it is')
    }
    return channel.content.fromClient(data)?.map(piece => channelData(recipient, piece))
  }

  #extendedData(side: Side, payload: Buffer): undefined {
    const bytes = extendedDataBytes(payload)
    const channel = this.channels.get(side, recipientOf(payload))
    this.channels.spend(side, channel, bytes)
    const type = extendedDataType(payload)
    if (side === 'client' || type !== stderrType) throw new WireError('SSH data of a type that nobody sends')
    this.#recording.append(
      frameKind.output, channel.lane | stderrLane, payload.subarray(extendedDataHeadBytes))
  }

  #eof(side: Side, payload: Buffer): Buffer[] | undefined {
    const recipient = this.#exactly(payload)
    const channel = this.channels.get(side, recipient)
    if (side === 'target') return undefined
    return withBefore(recipient, channel.content.clientEnd(), payload)
  }

  /** A message that is a number and a channel. */
  #exactly(payload: Buffer): number {
    if (payload.length !== 5) throw new WireError('an SSH channel message of a wrong length')
    return recipientOf(payload)
  }

  // ---- channels

  #open(side: Side, payload: Buffer, refused: string | undefined): undefined {
    const open = parseChannelOpen(payload)
    const { kind, ...purpose } = open.purpose
    const what = { channel: clipped(open.type), by: side, ...purpose }
    if (refused !== undefined) {
      return this.#event(0, { type: 'channel-refused', ...what, reason: refused })
    }
    const channel = this.channels.open(side, open, lane => kind === 'session'
      ? new UnknownContent(this.#settingOf(lane))
      : new BulkContent(
        this.#settingOf(lane), open.type, this.#hashForwards, kind === 'unknown' ? Infinity : 0))
    const reused = this.channels.wrapped ? { reused: true } : {}
    this.#event(channel.lane, { type: 'channel-open', ...what, ...reused })
  }

  #confirm(side: Side, payload: Buffer): undefined {
    const { recipient, sender, window } = parseOpenConfirmation(payload)
    this.channels.confirm(side, recipient, sender, window)
  }

  #openFailed(side: Side, payload: Buffer): undefined {
    const { recipient, reason, description } = parseOpenFailure(payload)
    const channel = this.channels.fail(side, recipient)
    const { type: asked } = channel.open
    this.#event(channel.lane, {
      type: 'channel-failed', channel: asked, by: side, reason, description: clipped(description)
    })
  }

  #close(side: Side, payload: Buffer): Buffer[] | undefined {
    const recipient = this.#exactly(payload)
    const channel = this.channels.get(side, recipient)
    const before = side === 'client' ? channel.content.clientEnd() : undefined
    if (this.channels.close(side, channel)) this.#closed(channel, otherSide(side))
    return withBefore(recipient, before, payload)
  }

  /** `by`: who closed it first. */
  #closed(channel: Channel, by: Side | 'session'): void {
    const { kind } = channel.content
    this.#event(channel.lane, { type: 'channel-close', content: kind, by, ...channel.content.end() })
  }

  // ---- requests

  #requested(side: Side, payload: Buffer, refused: string | undefined): undefined {
    const request = parseChannelRequest(payload)
    if (refused !== undefined || side === 'target' || !this.#refusesTransfer(request)) {
      return this.#request(side, request, refused)
    }
    this.#request(side, request, 'file transfer')
    // A name that no server knows: it says no itself, in the order of its answers.
    payload.fill('x', requestNameAt, requestNameAt + Buffer.byteLength(request.type))
  }

  /**
   * An scp is one direction and one path, so it is judged as a whole. A transfer through a terminal, or one
   * that may not be the first thing on its channel, could not be judged.
   */
  #refusesTransfer({ recipient, purpose }: ChannelRequest): boolean {
    if (this.#allowFile === undefined) return false
    const { pty, started, open } = this.channels.get('client', recipient)
    // What was begun before may be a transfer: it stays with its decoder.
    if (started === 'asked' && open.purpose.kind === 'session' && isStarting(purpose)) return true
    const transfer = transferOf(purpose)
    if (transfer === undefined) return false
    if (pty) return true
    if (transfer.kind !== 'scp') return false
    return !this.#allowFile(transfer.direction, transfer.path, { isVague: isVague(transfer) })
  }

  #request(side: Side, request: ChannelRequest, refused: string | undefined): undefined {
    const channel = this.channels.get(side, request.recipient)
    const type = clipped(request.type)
    const starts = refused === undefined && side === 'client' && this.#begin(channel, request)
    if (request.wantReply) this.channels.ask(side, channel, { type, refused, starts })
    const facts = requestFacts(request)
    if (refused !== undefined) {
      const why = { type: 'request-refused', request: type, by: 'policy', reason: refused }
      return this.#event(channel.lane, { ...facts, ...why })
    }
    if (facts !== undefined) this.#event(channel.lane, facts)
  }

  /**
   * The first shell, command or subsystem decides what the channel carries. One that comes while nobody knows
   * whether the first was begun could be the real one: then everything is kept.
   */
  #begin(channel: Channel, { purpose }: ChannelRequest): boolean {
    if (channel.open.purpose.kind !== 'session' || channel.started === 'yes') return false
    if (purpose.kind === 'pty-req') channel.pty = true
    if (!isStarting(purpose)) return false
    const setting = this.#settingOf(channel.lane)
    if (channel.started === 'asked') {
      this.#event(channel.lane, { type: 'restart', ...channel.content.end() })
      channel.content = this.#plain(setting, channel.pty, purpose.kind, false)
    } else {
      channel.content = this.#content(setting, channel.pty, purpose)
    }
    channel.started = 'asked'
    return true
  }

  #settingOf(lane: number): ContentSetting {
    return {
      recording: this.#recording, lane, hashes: this.#hashes, event: event => this.#event(lane, event)
    }
  }

  #content(setting: ContentSetting, pty: boolean, purpose: Starting): Content {
    const isLimited = purpose.kind !== 'shell'
    if (pty) return this.#plain(setting, pty, purpose.kind, isLimited)
    const transfer = transferOf(purpose)
    if (transfer !== undefined) return new FileContent(setting, transfer, this.#input, this.#files)
    const command = purpose.kind === 'exec' ? commandOf(purpose.command) : undefined
    if (command?.kind === 'bulk') return new BulkContent(setting, command.program, true, bulkKeptBytes)
    return this.#plain(setting, pty, purpose.kind, isLimited)
  }

  /** A terminal's output is kept whole. */
  #plain(setting: ContentSetting, pty: boolean, kind: Starting['kind'], isLimited: boolean): Content {
    if (pty) return new TerminalContent(setting, this.#input)
    if (!isLimited) return new CommandContent(setting, kind, this.#input)
    const output = new KeptOutput(setting, this.#clock, this.#outputMax, this.#outputPerSecond)
    return new CommandContent(setting, kind, this.#input, output)
  }

  #reply(side: Side, payload: Buffer, yes: boolean): undefined {
    const channel = this.channels.get(side, this.#exactly(payload))
    const asked = channel.waiting[otherSide(side)].shift()
    if (asked === undefined) return
    if (asked.starts && channel.started === 'asked') {
      channel.started = yes ? 'yes' : 'no'
      // With a judge, what was sent in advance stays with whoever judges it.
      if (!yes && this.#allowFile === undefined) {
        channel.content = new UnknownContent(this.#settingOf(channel.lane))
      }
    }
    if (yes || asked.refused !== undefined) return
    if (asked.type === 'pty-req') channel.pty = false
    this.#event(channel.lane, { type: 'request-refused', request: asked.type, by: side })
  }

  // ---- the whole connection

  #global(side: Side, payload: Buffer, refused: string | undefined): undefined {
    const { type: request, wantReply, purpose } = parseGlobalRequest(payload)
    if (wantReply) {
      const waiting = this.#globals[side]
      if (waiting.length >= globalRepliesMax) throw new WireError('too many SSH requests without a reply')
      waiting.push({ type: request, refused, starts: false })
    }
    if (quietRequests.has(request)) return
    const { kind: _, ...facts } = purpose
    const type = refused === undefined ? 'request' : 'request-refused'
    const why = refused === undefined ? {} : { by: 'policy', reason: refused }
    this.#event(0, { type, request: clipped(request), ...facts, ...why })
  }

  #globalFailed(side: Side): undefined {
    const asked = this.#globals[otherSide(side)].shift()
    if (asked === undefined || asked.refused !== undefined || quietRequests.has(asked.type)) return
    this.#event(0, { type: 'request-refused', request: asked.type, by: side })
  }
}

function withBefore(recipient: number, before: Buffer[] | undefined, payload: Buffer): Buffer[] | undefined {
  if (before === undefined || before.length === 0) return undefined
  return [...before.map(piece => channelData(recipient, piece)), payload]
}

/** The event of a request; undefined for what is noise. */
function requestFacts({ type: request, purpose }: ChannelRequest): Record<string, unknown> | undefined {
  switch (purpose.kind) {
    case 'pty-req': {
      const { columns, rows } = purpose.size
      const echo = purpose.modes.get(terminalMode.echo) !== 0
      return { type: 'pty', term: purpose.term, columns, rows, echo }
    }
    case 'window-change': return { type: 'resize', columns: purpose.size.columns, rows: purpose.size.rows }
    case 'shell': return { type: 'shell' }
    case 'exec': {
      const { length: bytes } = purpose.command
      return { type: 'exec', command: clipped(purpose.command.toString('utf8')), bytes }
    }
    case 'subsystem': return { type: 'subsystem', name: purpose.name }
    case 'env': return { type: 'env', name: clipped(purpose.name), value: clipped(purpose.value) }
    case 'signal': return { type: 'signal', signal: purpose.signal }
    case 'exit-status': return { type: 'exit', status: purpose.status }
    case 'exit-signal': {
      const { signal, coreDumped, message } = purpose
      return { type: 'exit', signal, coreDumped, message: clipped(message) }
    }
    case 'break': return { type: 'break' }
    // Flow control and "I have read enough" say nothing about what was done.
    case 'xon-xoff':
    case 'eow': return undefined
    case 'auth-agent-req':
    case 'x11-req':
    case 'unknown': return { type: 'request', request: clipped(request) }
  }
}
