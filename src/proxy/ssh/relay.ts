// The data path: every message of the connection protocol is looked at, put on record and passed on with the
// same channel numbers; windows are the two ends' own, so nothing is buffered here beyond what a socket
// takes. What the grant does not allow is refused: an opening by us, a request by the target, which is sent
// one whose name means nothing, so that its answer comes in its place among the others. Nothing leaves
// before the recorder has it. Whatever ends the session, both connections are closed and the account is on
// its way out.
import { SallyportError, asSallyportError } from '../../errors.ts'
import { frameKind } from '../../recording/recording.ts'
import type { Ending, Recording } from '../../recording/recording.ts'
import type { ChannelKind } from '../../session/front.ts'
import type { Verdict } from '../../session/judge.ts'
import { WireError } from '../../wire/error.ts'
import {
  channelOpen, channelRequest, openFailure, parseChannelOpen, parseGlobalRequest, parseOpenConfirmation,
  recipientOf, sshMessage, stderrType, windowAdjust, windowAdjustBytes
} from '../../wire/ssh/connection.ts'
import { sshFields, sshUint32 } from '../../wire/ssh/data.ts'
import { isStarting, parseChannelRequest } from '../../wire/ssh/request.ts'
import { otherSide } from './channels.ts'
import type { Channel, ChannelTable, Side } from './channels.ts'
import type { Judged } from './judged.ts'
import { clientChannels, globalRights, passedVariables, rightsOf, targetChannels } from './rights.ts'
import type { SshTape } from './tape.ts'
import type { Target } from './target.ts'
import { ProtocolBreach, disconnectReason } from './transport.ts'
import type { Transport, TransportEvents } from './transport.ts'

/** What may wait for a peer that does not read: more than a window of OpenSSH, which is one slow channel. */
const waitingBytesMax = 2.5 * 1024 * 1024
/** … and so little must be left before its source is read again. */
const waitingBytesLow = 1024 * 1024
const administrativelyProhibited = 1
/** Every shell knows it, and this is how one says "cannot be run". */
const refusedCommand = 'exit 126'
/** Refusals of one session that the audit hears of; the recording has all of them. */
const refusalsToldMax = 100
/** Where the name of a request stands, and the bytes that a window grows by. */
const [globalTypeAt, channelTypeAt, windowBytesAt] = [5, 9, 5]

/**
 * A session channel that was ours while a person chose a target, and becomes one between client and target.
 */
export interface Adopted {
  /** The number that we gave the client for it, and the client's own. */
  ours: number
  client: number
  /** What the client may still send us, and we the client. */
  grantedBytes: number
  window: number
  packetBytesMax: number
  /** What it asked for there, in order and answered by us: pty, variables, shell. */
  requests: readonly Buffer[]
}

/** What a relay needs of the client's end; a page of the console has one without a transport. */
export type ClientLine = Pick<Transport,
  'closed' | 'waitingBytes' | 'queuedBytes' | 'listen' | 'guard' | 'send' | 'resume' | 'release'
  | 'disconnect' | 'end'>

export interface RelaySetting {
  client: ClientLine
  target: Target
  recording: Recording
  tape: SshTape
  signal: AbortSignal
  channels: readonly ChannelKind[]
  /** What the client has said already. */
  ahead?: readonly Buffer[] | undefined
  adopted?: Adopted | undefined
  /** Asked where the grant has rules. */
  judged?: Judged | undefined
  /** The client's connection is closed. */
  gone(): void
  /** Something was refused: for the audit. */
  refused(what: string, right: ChannelKind | undefined): void
}

export class Relay {
  readonly #setting: RelaySetting
  readonly #allowed: ReadonlySet<string>
  readonly #channels: ChannelTable
  /** Requests of each side outside channels whose answer is still out: an answer to none is not passed on. */
  readonly #asked: Record<Side, number> = { client: 0, target: 0 }
  /**
   * What we wrote into a client's window, by its number of the channel: taken off what it grants the target
   * next.
   */
  readonly #debts = new Map<number, number>()
  /** A channel of ours waits for the target's confirmation; the client's messages wait with it. */
  #adopting = false
  #waiting: Buffer[] = []
  #answersOut = 0
  #alias: { ours: number, target: number } | undefined
  /** What the client asked the target to open channels for. */
  readonly #invited = new Set<ChannelKind>()
  #refusals = 0
  #over = false
  #done: (ending: Ending) => void = () => undefined

  constructor(setting: RelaySetting) {
    this.#setting = setting
    this.#allowed = new Set(setting.channels)
    this.#channels = setting.tape.channels
    setting.judged?.attach({
      channels: this.#channels,
      tell: (line, channel) => this.tell(line, channel),
      end: error => this.#end(error),
      again: payload => this.#handle('client', payload)
    })
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
      client.listen(this.#events('client', client, transport))
      transport.listen(this.#events('target', transport, client))
      for (const payload of early) this.#handle('target', payload)
      const { ahead = [], adopted } = this.#setting
      if (adopted === undefined) for (const payload of ahead) this.#handle('client', payload)
      else this.#adopt(adopted)
      if (client.closed) this.#gone('client', undefined)
      else if (transport.closed) this.#gone('target', undefined)
    })
  }

  /** One line for the person, on the standard error of a session that is open; dropped when there is none. */
  tell(line: string, only?: Channel): void {
    const channel = (only === undefined ? this.#channels.all() : [only]).find(({ open, numbers, closed }) =>
      open.purpose.kind === 'session' && numbers.target !== undefined && !closed.client && !closed.target)
    const number = channel?.numbers.client
    if (this.#over || number === undefined) return
    const text = Buffer.from(`sallyport: ${line}\r\n`)
    const { recording, client } = this.#setting
    recording.append(frameKind.event, 0, Buffer.from(JSON.stringify({ type: 'notice', text: line })))
    this.#debts.set(number, (this.#debts.get(number) ?? 0) + text.length)
    client.send(Buffer.concat([
      Buffer.of(sshMessage.extendedData), sshUint32(number), sshUint32(stderrType), sshFields(text)
    ]))
  }

  #events(side: Side, from: ClientLine, to: ClientLine): TransportEvents {
    return {
      ready: () => undefined,
      message: payload => this.#handle(side, payload),
      // Answers of ours wait for `from` as well: whoever asks and does not read is not read either.
      room: () => to.waitingBytes <= waitingBytesMax && from.queuedBytes <= 2 * waitingBytesMax,
      refused: thrown => this.#cut(asSallyportError(thrown, 'recorder-failed')),
      drain: () => {
        // What waits for `from` has been written: the other side may be read again, and so may it.
        const free = from.waitingBytes <= waitingBytesLow
        if (free) to.resume()
        if (free && to.waitingBytes <= waitingBytesLow) from.resume()
      },
      closed: error => {
        if (side === 'client') this.#setting.gone()
        this.#gone(side, error)
      }
    }
  }

  // ---- a channel that was ours

  /** Opens at the target what the client has open with us; the client's messages wait until it is. */
  #adopt({ client, window, packetBytesMax }: Adopted): void {
    this.#handle('client', channelOpen('session', client, window, packetBytesMax))
    this.#adopting = true
    this.#waiting = [...this.#setting.ahead ?? []]
  }

  /** The target's answers to what we asked for the client, which has heard ours. True: it was one of them. */
  #adopted(payload: Buffer): boolean {
    const { adopted, tape, client } = this.#setting
    if (adopted === undefined || !this.#adopting && this.#answersOut === 0) return false
    const type = payload[0]
    if (type === sshMessage.openConfirmation && this.#adopting) {
      const { sender, window } = parseOpenConfirmation(payload)
      tape.fromTarget(payload)
      this.#adopting = false
      this.#alias = { ours: adopted.ours, target: sender }
      // What the target takes at once, the client may send at once.
      const more = window - adopted.grantedBytes
      if (more > 0) client.send(windowAdjust(adopted.client, more))
      const waiting = [...adopted.requests, ...this.#waiting]
      this.#answersOut = adopted.requests.filter(request => parseChannelRequest(request).wantReply).length
      this.#waiting = []
      for (const each of waiting) this.#handle('client', each)
      return true
    }
    const isAnswer = type === sshMessage.channelSuccess || type === sshMessage.channelFailure
    if (!isAnswer || recipientOf(payload) !== adopted.client || this.#answersOut === 0) return false
    this.#answersOut--
    tape.fromTarget(payload)
    if (type === sshMessage.channelFailure) {
      this.#end(new SallyportError('target-refused', { detail: 'the target gave no terminal or no shell' }))
    }
    return true
  }

  /** The client knows the channel by the number that we gave it. */
  #translated(payload: Buffer): Buffer {
    const alias = this.#alias
    const isChannel = payload[0]! >= sshMessage.windowAdjust && payload[0]! <= sshMessage.channelFailure
    if (alias === undefined || !isChannel || recipientOf(payload) !== alias.ours) return payload
    payload.writeUInt32BE(alias.target, 1)
    return payload
  }

  // ---- messages

  #handle(side: Side, payload: Buffer): void {
    if (this.#over) return
    if (side === 'client' && this.#adopting) return void this.#waiting.push(Buffer.from(payload))
    try {
      if (side === 'target' && this.#adopted(payload)) return
      this.#pass(side, side === 'client' ? this.#translated(payload) : payload)
    } catch (thrown) {
      const broken = side === 'client' ? 'protocol-violation' : 'target-violation'
      this.#end(asSallyportError(thrown, thrown instanceof WireError ? broken : 'internal'))
    }
  }

  #pass(side: Side, payload: Buffer): void {
    const judged = side === 'client' ? this.#setting.judged : undefined
    if (judged?.holds(payload) === true) return
    switch (payload[0]) {
      case sshMessage.channelOpen: return this.#open(side, payload)
      case sshMessage.globalRequest: return this.#ask(side, payload)
      case sshMessage.requestSuccess:
      case sshMessage.requestFailure: {
        const asker = otherSide(side)
        if (this.#asked[asker] === 0) return
        this.#asked[asker]--
        break
      }
      case sshMessage.channelRequest:
        if (side === 'client') return this.#request(payload)
        break
      case sshMessage.channelSuccess:
      case sshMessage.channelFailure: {
        const waiting = this.#channels.find(side, recipientOf(payload))?.waiting[otherSide(side)]
        if (waiting?.length === 0) return
        break
      }
      case sshMessage.data:
        if (judged?.stops(payload) === true) return
        break
      case sshMessage.windowAdjust:
        // The channel may be gone: then nobody needs it.
        if (this.#channels.find(side, recipientOf(payload)) === undefined) return
        if (side === 'client' && this.#debts.size > 0) this.#settle(payload)
        break
      case sshMessage.close:
        if (this.#debts.size > 0) this.#forget(side, payload)
        break
    }
    this.#forward(side, payload)
  }

  /** On record first; the tape may have something else to send in its place. */
  #forward(side: Side, payload: Buffer, refused?: string, blankAt?: number, blankBytes = 0): void {
    const { tape, client, target: { transport } } = this.#setting
    const pieces = side === 'client' ? tape.fromClient(payload, refused) : tape.fromTarget(payload, refused)
    // A name that nobody knows, of the same length: the other side answers that it failed, in its turn.
    if (blankAt !== undefined) payload.fill('x', blankAt, blankAt + blankBytes)
    const to = side === 'client' ? transport : client
    if (pieces === undefined) to.send(payload)
    else for (const piece of pieces) to.send(piece)
  }

  /** A channel that is not allowed is refused by us: the other side never hears of it. */
  #open(side: Side, payload: Buffer): void {
    const { type, sender } = parseChannelOpen(payload)
    const known: Readonly<Record<string, ChannelKind | undefined>> =
      side === 'client' ? clientChannels : targetChannels
    const right = known[type]
    const mayOpen = side === 'client' ? this.#allowed : this.#invited
    const allowed = Object.hasOwn(known, type) && (right === undefined || mayOpen.has(right))
    if (allowed && !this.#setting.tape.full) return this.#forward(side, payload)
    const { tape, client, target: { transport } } = this.#setting
    const reason = allowed ? 'too many channels' : 'the grant does not allow it'
    if (side === 'client') tape.fromClient(payload, reason)
    else tape.fromTarget(payload, reason)
    this.#tellRefused(type, right)
    const back = side === 'client' ? client : transport
    back.send(openFailure(sender, administrativelyProhibited, `${type}: ${reason}`))
  }

  #ask(side: Side, payload: Buffer): void {
    const { type, wantReply } = parseGlobalRequest(payload)
    // The target's own host keys are not the proxy's: a client would remember them under the wrong name.
    const isHostKeys = side === 'target' && type.startsWith('hostkeys')
    if (isHostKeys && !wantReply) return
    if (wantReply) this.#asked[side]++
    if (isHostKeys) return this.#forward(side, payload, 'these are not our keys', globalTypeAt, type.length)
    const right = side === 'client' && Object.hasOwn(globalRights, type) ? globalRights[type] : undefined
    if (right === undefined || this.#allowed.has(right)) {
      if (right !== undefined) this.#invited.add(right)
      return this.#forward(side, payload)
    }
    this.#tellRefused(type, right)
    this.#forward(side, payload, 'the grant does not allow it', globalTypeAt, type.length)
  }

  #request(payload: Buffer): void {
    const { recipient, type, purpose } = parseChannelRequest(payload)
    const channel = this.#channels.get('client', recipient)
    const isSession = channel.open.purpose.kind === 'session'
    const rights = isSession ? rightsOf(purpose) : []
    const missing = rights.find(right => !this.#allowed.has(right))
    const isVariable = purpose.kind === 'env' && !passedVariables.test(purpose.name)
    const { judged } = this.#setting
    if (judged !== undefined && isSession && channel.started === 'asked' && isStarting(purpose)) {
      // Which of the two the target begins is not known, and rules have looked at the first.
      return this.#forward('client', payload, 'another request is not answered', channelTypeAt, type.length)
    }
    if (missing === undefined && !isVariable) {
      const verdict = isSession ? judged?.request(payload, channel, purpose) : undefined
      if (verdict === 'waits') return
      if (verdict?.error !== undefined) return this.#refuse(payload, channel, verdict, verdict.error)
      for (const right of rights) this.#invited.add(right)
      return this.#forward('client', payload)
    }
    if (missing !== undefined) this.#tellRefused(type, missing)
    const why = isVariable ? 'this variable is not passed on' : 'the grant does not allow it'
    this.#forward('client', payload, why, channelTypeAt, type.length)
  }

  /**
   * By a rule; audit and recording have heard of it. A command is given another one in its place: a client
   * that was refused its request shows nothing of what it was told.
   */
  #refuse(payload: Buffer, channel: Channel, { ends }: Verdict, error: SallyportError): void {
    if (ends) return this.#end(error)
    this.tell(error.clientMessage, channel)
    const { recipient, type, wantReply } = parseChannelRequest(payload)
    if (type !== 'exec') {
      return this.#forward('client', payload, 'a rule of the grant', channelTypeAt, type.length)
    }
    this.#forward('client', channelRequest(recipient, type, wantReply, refusedCommand))
  }

  #tellRefused(what: string, right: ChannelKind | undefined): void {
    if (this.#refusals++ < refusalsToldMax) this.#setting.refused(what, right)
  }

  #settle(payload: Buffer): void {
    const granted = windowAdjustBytes(payload)
    const number = this.#channels.find('client', recipientOf(payload))?.numbers.client
    const debt = number === undefined ? undefined : this.#debts.get(number)
    if (number === undefined || debt === undefined) return
    const kept = Math.min(granted, debt)
    if (kept === debt) this.#debts.delete(number)
    else this.#debts.set(number, debt - kept)
    payload.writeUInt32BE(granted - kept, windowBytesAt)
  }

  #forget(side: Side, payload: Buffer): void {
    const number = this.#channels.find(side, recipientOf(payload))?.numbers.client
    if (number !== undefined) this.#debts.delete(number)
  }

  // ---- the ways in which it ends

  #gone(side: Side, error: Error | undefined): void {
    if (error instanceof ProtocolBreach) {
      const { refusal, message } = error
      const ofTarget = new SallyportError('target-violation', { detail: message })
      return this.#end(side === 'client' ? refusal : ofTarget)
    }
    const cutShort = this.#channels.all().length > 0
    if (!this.#finish()) return
    const { client, target: { transport } } = this.#setting
    const detail = error?.message
    if (side === 'client') {
      transport.disconnect(disconnectReason.byApplication, '')
      return this.#done({ how: 'ended', reason: 'client-closed', detail })
    }
    const failure = cutShort ? new SallyportError('target-closed', { detail }) : undefined
    if (failure === undefined) client.end()
    else client.disconnect(disconnectReason.byApplication, failure.clientMessage)
    this.#done({ how: 'ended', reason: 'target-closed', reference: failure?.reference, detail })
  }

  readonly #aborted = (): void => {
    const error = asSallyportError(this.#setting.signal.reason)
    if (error.code === 'recorder-failed') this.#cut(error)
    else this.#end(error)
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
  #end(error: SallyportError): void {
    if (!this.#finish()) return
    const { client, target: { transport } } = this.#setting
    client.disconnect(disconnectReason.byApplication, error.clientMessage)
    transport.disconnect(disconnectReason.byApplication, '')
    this.#done(endingOf(error))
  }

  /** Nothing is passed on from here; false when that was said before. */
  #finish(): boolean {
    if (this.#over) return false
    this.#over = true
    const { signal, recording, tape, judged } = this.#setting
    judged?.stop()
    signal.removeEventListener('abort', this.#aborted)
    recording.failed.removeEventListener('abort', this.#recorderFailed)
    tape.end()
    return true
  }
}

function endingOf({ code, reference, detail }: SallyportError): Ending {
  return { how: 'cut', reason: code, reference, detail }
}
