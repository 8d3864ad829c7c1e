// The data path: every message of the connection protocol is looked at, put on record and passed on with the
// same channel numbers; windows are the two ends' own, so nothing is buffered here beyond what a socket
// takes. What the grant does not allow is refused: an opening by us, a request by the target, which is sent
// one whose name means nothing, so that its answer comes in its place among the others. Nothing leaves
// before the recorder has it. Whatever ends the session, both connections are closed and the account is on
// its way out.
import type { Clock } from '../../clock.ts'
import { SallyportError, asSallyportError } from '../../errors.ts'
import type { ErrorCode } from '../../errors.ts'
import type { Ending, Recording } from '../../recording/recording.ts'
import type { ChannelKind } from '../../session/front.ts'
import { WireError } from '../../wire/error.ts'
import { SshReader, sshFields, sshUint32 } from '../../wire/ssh/data.ts'
import {
  clientChannels, globalRights, message, passedVariables, rightsOf, targetChannels
} from './channels.ts'
import type { Tape } from './tape-port.ts'
import type { Target } from './target.ts'
import type { Transport, TransportEvents } from './transport.ts'
import { disconnectReason } from './transport.ts'

/**
 * What may wait for a peer that does not read; two windows of OpenSSH. A window adjust must still get
 * through.
 */
const waitingBytesMax = 4 * 1024 * 1024
/** … and so little must be left before its source is read again. */
const waitingBytesLow = 1024 * 1024
/** OpenSSH has 10 sessions for each connection, browsers open some hundred forwards. */
const channelsMax = 1024
/** Requests whose answer is still out, for each direction. */
const requestsMax = 1024
const administrativelyProhibited = 1
const stderr = 1

export interface RelaySetting {
  client: Transport
  target: Target
  recording: Recording
  tape: Tape
  signal: AbortSignal
  clock: Clock
  channels: readonly ChannelKind[]
  /** Something was refused: for the audit. */
  refused(what: string, right: ChannelKind | undefined): void
}

/** A channel, by the numbers that the two ends gave it. */
interface Channel {
  type: string
  /** Undefined until that side has confirmed. */
  client: number | undefined
  target: number | undefined
  clientClosed: boolean
  targetClosed: boolean
  /** Bytes of ours that went to the client, and are taken off what it grants the target next. */
  debtBytes: number
}

export class Relay {
  readonly #setting: RelaySetting
  readonly #allowed: ReadonlySet<string>
  /** By the number of the side that a message is for. */
  readonly #byTarget = new Map<number, Channel>()
  readonly #byClient = new Map<number, Channel>()
  /** Asked for by the client: answers of the target without a question are not passed on. */
  #fromClientAsked = 0
  #fromTargetAsked = 0
  #over = false
  #done: (ending: Ending) => void = () => undefined

  constructor(setting: RelaySetting) {
    this.#setting = setting
    this.#allowed = new Set(setting.channels)
  }

  /** Runs until a side ends or the signal aborts. Never rejects. */
  run(): Promise<Ending> {
    return new Promise(resolve => {
      this.#done = resolve
      const { client, target: { transport, early }, recording, signal } = this.#setting
      signal.addEventListener('abort', this.#aborted)
      recording.failed.addEventListener('abort', this.#recorderFailed)
      if (signal.aborted) return this.#aborted()
      if (recording.failed.aborted) return this.#recorderFailed()
      const gate = (): true | Promise<void> => recording.commit()
      client.guard(gate)
      transport.guard(gate)
      client.listen(this.#events(client, transport, payload => this.#fromClient(payload), 'client-closed'))
      transport.listen(this.#events(transport, client, payload => this.#fromTarget(payload), 'target-closed'))
      for (const payload of early) this.#handle(payload, each => this.#fromTarget(each), 'target-violation')
      if (client.closed) this.#gone('client-closed', undefined)
      else if (transport.closed) this.#gone('target-closed', undefined)
    })
  }

  /** One line for the person, on the standard error of a session that is open; dropped when there is none. */
  tell(line: string): void {
    const channel = [...this.#byClient.values()].find(({ type, clientClosed, targetClosed }) =>
      type === 'session' && !clientClosed && !targetClosed)
    if (this.#over || channel?.client === undefined || channel.target === undefined) return
    const text = Buffer.from(`sallyport: ${line}\r\n`)
    this.#setting.tape.event({ type: 'notice', text: line })
    channel.debtBytes += text.length
    this.#setting.client.send(Buffer.concat([
      Buffer.of(message.extendedData), sshUint32(channel.client), sshUint32(stderr), sshFields(text)
    ]))
  }

  #events(
    from: Transport, to: Transport, handle: (payload: Buffer) => void, gone: 'client-closed' | 'target-closed'
  ): TransportEvents {
    const broken = gone === 'client-closed' ? 'protocol-violation' : 'target-violation'
    return {
      ready: () => undefined,
      message: payload => this.#handle(payload, handle, broken),
      room: () => to.waitingBytes <= waitingBytesMax,
      refused: thrown => this.#cut(asSallyportError(thrown, 'recorder-failed')),
      drain: () => {
        // What waits for `from` has been written: the other side may be read again.
        if (from.waitingBytes <= waitingBytesLow) to.resume()
      },
      closed: error => this.#gone(gone, error)
    }
  }

  #handle(payload: Buffer, handle: (payload: Buffer) => void, broken: ErrorCode): void {
    if (this.#over) return
    try {
      handle(payload)
    } catch (thrown) {
      this.#end(asSallyportError(thrown, thrown instanceof SallyportError ? undefined : broken), true)
    }
  }

  // ---- what the client says

  #fromClient(payload: Buffer): void {
    const { target: { transport }, tape } = this.#setting
    const type = payload[0]
    switch (type) {
      case message.globalRequest: this.#clientAsks(payload); break
      case message.requestSuccess:
      case message.requestFailure:
        if (this.#fromTargetAsked === 0) return
        this.#fromTargetAsked--
        break
      case message.open:
        if (!this.#clientOpens(payload)) return
        break
      case message.openConfirmation: this.#clientConfirms(payload); break
      case message.openFailure: this.#forget(payload, this.#byTarget); break
      case message.request: this.#sessionRequest(payload); break
      case message.windowAdjust: this.#settle(payload); break
      case message.close: this.#closes(payload, this.#byTarget, 'clientClosed'); break
      case message.data:
      case message.extendedData:
      case message.eof:
      case message.success:
      case message.failure: this.#channelOf(payload, this.#byTarget); break
      default: throw violation(`message ${type}`)
    }
    tape.fromClient(payload)
    transport.send(payload)
  }

  /** False: it was refused, and the client has heard it. */
  #clientOpens(payload: Buffer): boolean {
    const reader = new SshReader(payload, 1)
    const type = reader.text()
    const number = reader.uint32()
    const right = clientChannels[type]
    const isKnown = Object.hasOwn(clientChannels, type)
    if (isKnown && (right === undefined || this.#allowed.has(right)) && this.#byClient.size < channelsMax) {
      if (this.#byClient.has(number)) throw twice('protocol-violation')
      this.#byClient.set(number, newChannel(type, number, undefined))
      return true
    }
    this.#refuse(`${type}`, right)
    this.#setting.client.send(openFailure(number, `${type} is not allowed here`))
    return false
  }

  #clientAsks(payload: Buffer): void {
    const reader = new SshReader(payload, 1)
    const type = reader.text()
    if (reader.boolean()) this.#fromClientAsked = this.#counted(this.#fromClientAsked)
    const right = globalRights[type]
    if (right === undefined || this.#allowed.has(right)) return
    this.#refuse(type, right)
    blank(payload, 5, type.length)
  }

  #sessionRequest(payload: Buffer): void {
    const channel = this.#channelOf(payload, this.#byTarget)
    const reader = new SshReader(payload, 5)
    const type = reader.text()
    reader.boolean()
    if (channel.type !== 'session') return
    if (type === 'env' && !passedVariables.test(reader.text())) return blank(payload, 9, type.length)
    const missing = rightsOf(type, reader).find(right => !this.#allowed.has(right))
    if (missing === undefined) return
    this.#refuse(type, missing)
    blank(payload, 9, type.length)
  }

  /** What we put into the client's window is not the target's to use. */
  #settle(payload: Buffer): void {
    const channel = this.#channelOf(payload, this.#byTarget)
    if (channel.debtBytes === 0) return
    const granted = payload.readUInt32BE(5)
    const kept = Math.min(granted, channel.debtBytes)
    channel.debtBytes -= kept
    payload.writeUInt32BE(granted - kept, 5)
  }

  // ---- what the target says

  #fromTarget(payload: Buffer): void {
    const { client, tape } = this.#setting
    const type = payload[0]
    switch (type) {
      case message.globalRequest:
        if (!this.#targetAsks(payload)) return
        break
      case message.requestSuccess:
      case message.requestFailure:
        if (this.#fromClientAsked === 0) return
        this.#fromClientAsked--
        break
      case message.open:
        if (!this.#targetOpens(payload)) return
        break
      case message.openConfirmation: this.#targetConfirms(payload); break
      case message.openFailure: this.#forget(payload, this.#byClient); break
      case message.close: this.#closes(payload, this.#byClient, 'targetClosed'); break
      case message.request:
      case message.windowAdjust:
      case message.data:
      case message.extendedData:
      case message.eof:
      case message.success:
      case message.failure: this.#channelOf(payload, this.#byClient); break
      default: throw new SallyportError('target-violation', { detail: `message ${type}` })
    }
    tape.fromTarget(payload)
    client.send(payload)
  }

  /** The target's own host keys are not the proxy's: a client would remember them under the wrong name. */
  #targetAsks(payload: Buffer): boolean {
    const reader = new SshReader(payload, 1)
    const type = reader.text()
    if (reader.boolean()) this.#fromTargetAsked = this.#counted(this.#fromTargetAsked)
    else if (type.startsWith('hostkeys')) return false
    return true
  }

  #targetOpens(payload: Buffer): boolean {
    const reader = new SshReader(payload, 1)
    const type = reader.text()
    const number = reader.uint32()
    const right = targetChannels[type]
    if (right !== undefined && this.#allowed.has(right) && this.#byTarget.size < channelsMax) {
      if (this.#byTarget.has(number)) throw twice('target-violation')
      this.#byTarget.set(number, newChannel(type, undefined, number))
      return true
    }
    this.#refuse(`${type} of the target`, right)
    this.#setting.target.transport.send(openFailure(number, `${type} is not allowed here`))
    return false
  }

  // ---- channels

  /** The target took a channel that the client opened: it has a number at the target from now on. */
  #targetConfirms(payload: Buffer): void {
    const channel = this.#channelOf(payload, this.#byClient)
    const number = new SshReader(payload, 5).uint32()
    if (channel.target !== undefined || this.#byTarget.has(number)) throw twice('target-violation')
    channel.target = number
    this.#byTarget.set(number, channel)
  }

  #clientConfirms(payload: Buffer): void {
    const channel = this.#channelOf(payload, this.#byTarget)
    const number = new SshReader(payload, 5).uint32()
    if (channel.client !== undefined || this.#byClient.has(number)) throw twice('protocol-violation')
    channel.client = number
    this.#byClient.set(number, channel)
  }

  #closes(payload: Buffer, table: Map<number, Channel>, side: 'clientClosed' | 'targetClosed'): void {
    const channel = this.#channelOf(payload, table)
    channel[side] = true
    if (channel.clientClosed && channel.targetClosed) this.#drop(channel)
  }

  #forget(payload: Buffer, table: Map<number, Channel>): void {
    this.#drop(this.#channelOf(payload, table))
  }

  #drop({ client, target }: Channel): void {
    if (client !== undefined) this.#byClient.delete(client)
    if (target !== undefined) this.#byTarget.delete(target)
  }

  #channelOf(payload: Buffer, table: Map<number, Channel>): Channel {
    const channel = payload.length < 5 ? undefined : table.get(payload.readUInt32BE(1))
    if (channel === undefined) throw violation('a channel that is not open')
    return channel
  }

  #counted(count: number): number {
    if (count >= requestsMax) throw violation('too many requests without an answer')
    return count + 1
  }

  #refuse(what: string, right: ChannelKind | undefined): void {
    this.#setting.tape.event({ type: 'refused', what })
    this.#setting.refused(what, right)
  }

  // ---- the ways in which it ends

  #gone(reason: 'client-closed' | 'target-closed', error: Error | undefined): void {
    if (!this.#finish()) return
    const { client, target: { transport } } = this.#setting
    const cutShort = reason === 'target-closed' && this.#byClient.size > 0
    const failure = cutShort ? new SallyportError('target-closed', { detail: error?.message }) : undefined
    if (reason === 'client-closed') transport.disconnect(disconnectReason.byApplication, '')
    else if (failure === undefined) client.end()
    else client.disconnect(disconnectReason.byApplication, failure.clientMessage)
    this.#done({ how: 'ended', reason, reference: failure?.reference, detail: error?.message })
  }

  readonly #aborted = (): void => {
    const error = asSallyportError(this.#setting.signal.reason)
    if (error.code === 'recorder-failed') this.#cut(error)
    else this.#end(error, true)
  }

  readonly #recorderFailed = (): void => {
    this.#cut(asSallyportError(this.#setting.recording.failed.reason, 'recorder-failed'))
  }

  /** Strict recording: not one byte more of either side. */
  #cut(error: SallyportError): void {
    if (!this.#finish()) return
    const { client, target: { transport } } = this.#setting
    transport.destroy()
    client.release()
    client.disconnect(disconnectReason.byApplication, error.clientMessage)
    this.#done(endingOf(error))
  }

  /** Tells the client why, in one line that its ssh prints, and closes both. */
  #end(error: SallyportError, cut: boolean): void {
    if (!this.#finish()) return
    const { client, target: { transport } } = this.#setting
    client.disconnect(disconnectReason.byApplication, error.clientMessage)
    transport.disconnect(disconnectReason.byApplication, '')
    this.#done({ ...endingOf(error), how: cut ? 'cut' : 'ended' })
  }

  /** Nothing is passed on from here; false when that was said before. */
  #finish(): boolean {
    if (this.#over) return false
    this.#over = true
    const { signal, recording, tape } = this.#setting
    signal.removeEventListener('abort', this.#aborted)
    recording.failed.removeEventListener('abort', this.#recorderFailed)
    tape.end()
    return true
  }
}

function newChannel(type: string, client: number | undefined, target: number | undefined): Channel {
  return { type, client, target, clientClosed: false, targetClosed: false, debtBytes: 0 }
}

function openFailure(recipient: number, text: string): Buffer {
  return Buffer.concat([
    Buffer.of(message.openFailure), sshUint32(recipient), sshUint32(administrativelyProhibited),
    sshFields(text, '')
  ])
}

/** A name that nobody knows, of the same length: the other side answers that it failed, in its turn. */
function blank(payload: Buffer, at: number, bytes: number): void {
  payload.fill('x', at, at + bytes)
}

// What a peer of the wrong kind says here is put down to it by whoever catches this.
function violation(detail: string): WireError {
  return new WireError(detail)
}

function twice(code: 'protocol-violation' | 'target-violation'): SallyportError {
  return new SallyportError(code, { detail: 'a channel number that is in use' })
}

function endingOf({ code, reference, detail }: SallyportError): Ending {
  return { how: 'cut', reason: code, reference, detail }
}
