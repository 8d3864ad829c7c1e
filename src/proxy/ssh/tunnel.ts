// A TCP target over SSH (`ssh -L PORT:target:5432`): the client's direct-tcpip channels to this one target
// are carried by the tunnel, everything else is refused, in words and on record. `ssh` without `-N` asks for
// a shell as well: it gets a channel that says so and stays open, or the client would end with its refusal.
// The session is over when the SSH connection is.
import { SallyportError, asSallyportError } from '../../errors.ts'
import type { Ending, Recording } from '../../recording/recording.ts'
import type { Upstreaming } from '../../session/front.ts'
import { WireError } from '../../wire/error.ts'
import {
  channelRequest, channelSignal, channelStderr, dataHeadBytes, openConfirmation, openFailure,
  openFailureReason, parseChannelOpen, parseGlobalRequest, recipientOf, sshMessage, windowAdjustBytes
} from '../../wire/ssh/connection.ts'
import type { ChannelOpen } from '../../wire/ssh/connection.ts'
import { parseChannelRequest } from '../../wire/ssh/request.ts'
import type { Tunnel } from '../tcp/tunnel.ts'
import { ChannelStream, streamPacketBytes, streamWindowBytes } from './stream.ts'
import { ProtocolBreach, disconnectReason } from './transport.ts'
import type { Transport, TransportEvents } from './transport.ts'

/** Channels of any kind that are open or being opened; more than the tunnel carries, for those that close. */
const channelsMax = 256
/** What waits for a client that does not read, before its targets wait too. */
const waitingBytesMax = 1024 * 1024
/** … and answers to a client that only asks. */
const answersBytesMax = 256 * 1024
/** A notice channel takes this much typing, and does nothing with it. */
const noticeWindowBytes = 64 * 1024
/** Refusals of one session that the audit hears of; the recording has all of them. */
const refusalsToldMax = 100
/** `ssh` with a command, or whose input has ended. */
const [refusedStatus, endStatus] = [1, 0]
/** ^C and ^D. */
const leaving = /[\x03\x04]/

export interface SshTunnelSetting {
  client: Transport
  target: Upstreaming['target']
  tunnel: Tunnel
  recording: Recording
  signal: AbortSignal
  gone(): void
  /** Something was refused: for the audit. */
  refused(what: string): void
}

/** The channel of a client that wanted a shell. */
interface Notice {
  ours: number
  theirs: number
  room: number
  closed: boolean
}

export class SshTunnel {
  readonly #setting: SshTunnelSetting
  /** By our number; undefined while the target is dialled. */
  readonly #channels = new Map<number, ChannelStream | undefined>()
  #nextNumber = 0
  #notice: Notice | undefined
  #refusals = 0
  #waiting: (() => void)[] = []
  #over = false
  #done: (ending: Ending) => void = () => undefined

  constructor(setting: SshTunnelSetting) {
    this.#setting = setting
  }

  /** Runs until the client's connection ends or the signal aborts. Never rejects. */
  run(): Promise<Ending> {
    return new Promise(resolve => {
      this.#done = resolve
      const { client, recording, signal } = this.#setting
      signal.addEventListener('abort', this.#aborted)
      recording.failed.addEventListener('abort', this.#recorderFailed)
      if (signal.aborted) return this.#aborted()
      if (recording.failed.aborted) return this.#recorderFailed()
      client.guard(() => recording.commit())
      client.listen(this.#events())
      if (client.closed) this.#gone(undefined)
    })
  }

  /** One line for the person, where there is a notice channel; dropped without. */
  tell(line: string): void {
    const notice = this.#notice
    const text = Buffer.from(`sallyport: ${line}\r\n`)
    if (this.#over || notice === undefined || notice.closed || notice.room < text.length) return
    notice.room -= text.length
    this.#setting.tunnel.event(0, { type: 'notice', text: line })
    this.#send(channelStderr(notice.theirs, text))
  }

  #events(): TransportEvents {
    const { client } = this.#setting
    return {
      ready: () => undefined,
      message: payload => {
        if (this.#over) return
        try {
          this.#message(payload)
        } catch (thrown) {
          this.#cut(asSallyportError(thrown, thrown instanceof WireError ? 'protocol-violation' : 'internal'))
        }
      },
      room: () => client.queuedBytes <= waitingBytesMax + answersBytesMax,
      refused: thrown => this.#cut(asSallyportError(thrown, 'recorder-failed')),
      drain: () => {
        client.resume()
        if (client.waitingBytes <= waitingBytesMax) for (const go of this.#waiting.splice(0)) go()
      },
      closed: error => this.#gone(error)
    }
  }

  #message(payload: Buffer): void {
    const type = payload[0] ?? 0
    if (type === sshMessage.globalRequest) {
      const { type: name, wantReply, purpose } = parseGlobalRequest(payload)
      if (purpose.kind.endsWith('forward')) this.#refuse(name)
      if (wantReply) this.#send(Buffer.of(sshMessage.requestFailure))
    } else if (type === sshMessage.channelOpen) {
      this.#open(parseChannelOpen(payload))
    } else if (type >= sshMessage.windowAdjust && type <= sshMessage.channelFailure) {
      const number = recipientOf(payload)
      if (this.#notice?.ours === number) return this.#noticed(this.#notice, payload)
      const stream = this.#channels.get(number)
      if (stream === undefined) throw new SallyportError('protocol-violation', { detail: 'no such channel' })
      // We have closed it, and the client had not heard of that.
      if (!stream.destroyed) stream.receive(payload)
      if (type === sshMessage.close) this.#channels.delete(number)
    } else {
      throw new SallyportError('protocol-violation', { detail: `message ${type}` })
    }
  }

  #open(open: ChannelOpen): void {
    const { target } = this.#setting
    const { purpose, sender, type } = open
    if (this.#channels.size >= channelsMax) {
      return this.#send(openFailure(sender, openFailureReason.resourceShortage, 'too many channels'))
    }
    if (purpose.kind === 'session' && this.#notice === undefined) return this.#openNotice(open)
    if (purpose.kind === 'direct-tcpip') {
      const { host, port, from, fromPort } = purpose
      const isTarget = host === target.name || (host === target.host && port === target.port)
      if (isTarget) return void this.#carry(open, `${from}:${fromPort}`)
      this.#refuse(`connection to ${host}:${port}`)
    } else {
      this.#refuse(type)
    }
    const error = new SallyportError('not-allowed')
    const words = `this login reaches ${target.name} only: ${error.clientMessage}`
    this.#send(openFailure(sender, openFailureReason.administrativelyProhibited, words))
  }

  async #carry(open: ChannelOpen, from: string): Promise<void> {
    const { client, tunnel } = this.#setting
    const number = this.#nextNumber++
    this.#channels.set(number, undefined)
    try {
      const dialled = await tunnel.dial(from)
      if (client.closed) return dialled.abandon()
      const stream = new ChannelStream(open, payload => this.#send(payload))
      this.#channels.set(number, stream)
      this.#send(openConfirmation(open.sender, number, streamWindowBytes, streamPacketBytes))
      await dialled.carry(stream, () => this.#room())
    } catch (thrown) {
      this.#channels.delete(number)
      const { clientMessage } = asSallyportError(thrown)
      this.#send(openFailure(open.sender, openFailureReason.connectFailed, clientMessage))
    }
  }

  /** Windows bound each channel; this bounds all of them together. */
  #room(): Promise<void> | undefined {
    if (this.#setting.client.waitingBytes <= waitingBytesMax || this.#over) return undefined
    return new Promise(resolve => { this.#waiting.push(resolve) })
  }

  #send(payload: Uint8Array): void {
    if (!this.#over) this.#setting.client.send(payload)
  }

  // ---- whoever wants a shell

  #openNotice({ sender, window }: ChannelOpen): void {
    const ours = this.#nextNumber++
    this.#notice = { ours, theirs: sender, room: window, closed: false }
    this.#send(openConfirmation(sender, ours, noticeWindowBytes, streamPacketBytes))
  }

  #noticed(notice: Notice, payload: Buffer): void {
    if (notice.closed) return
    switch (payload[0]) {
      case sshMessage.windowAdjust:
        notice.room += windowAdjustBytes(payload)
        return
      case sshMessage.channelRequest: return this.#asked(notice, payload)
      // On a terminal nobody else would hear them.
      case sshMessage.data:
        if (leaving.test(payload.toString('latin1', dataHeadBytes))) this.#closeNotice(notice, endStatus)
        return
      case sshMessage.eof: return this.#closeNotice(notice, endStatus)
      case sshMessage.close: return this.#closeNotice(notice, undefined)
      default: return
    }
  }

  #asked(notice: Notice, payload: Buffer): void {
    const { target: { name } } = this.#setting
    const { purpose, wantReply, type } = parseChannelRequest(payload)
    const isProgram = ['shell', 'exec', 'subsystem'].includes(purpose.kind)
    const passes = isProgram || purpose.kind === 'pty-req' || purpose.kind === 'window-change'
    const answer = passes ? sshMessage.channelSuccess : sshMessage.channelFailure
    if (wantReply) this.#send(channelSignal(answer, notice.theirs))
    if (!isProgram) return
    this.#refuse(type)
    const { clientMessage } = new SallyportError('not-allowed')
    this.tell(`${name} is a TCP target, without a shell: ${clientMessage}`)
    if (purpose.kind !== 'shell') return this.#closeNotice(notice, refusedStatus)
    this.tell(`connections to ${name} pass (ssh -L) until this one is closed: ^C or ^D`)
  }

  #closeNotice(notice: Notice, status: number | undefined): void {
    if (notice.closed) return
    notice.closed = true
    if (status !== undefined) this.#send(channelRequest(notice.theirs, 'exit-status', false, status))
    this.#send(channelSignal(sshMessage.close, notice.theirs))
  }

  #refuse(what: string): void {
    const { tunnel, refused } = this.#setting
    tunnel.event(0, { type: 'channel-refused', channel: what.slice(0, 300) })
    if (this.#refusals++ < refusalsToldMax) refused(what.slice(0, 300))
  }

  // ---- the end

  readonly #aborted = (): void => {
    this.#cut(asSallyportError(this.#setting.signal.reason))
  }

  readonly #recorderFailed = (): void => {
    this.#cut(asSallyportError(this.#setting.recording.failed.reason, 'recorder-failed'))
  }

  #cut(error: SallyportError): void {
    const { client } = this.#setting
    if (this.#over) return
    // Strict recording: what the recorder has not taken is not delivered, and only the reason is.
    if (error.code === 'recorder-failed') client.release()
    client.disconnect(disconnectReason.byApplication, error.clientMessage)
    this.#finish({ how: 'cut', reason: error.code, reference: error.reference, detail: error.detail })
  }

  #gone(error: Error | undefined): void {
    this.#setting.gone()
    if (!(error instanceof ProtocolBreach)) {
      return this.#finish({ how: 'ended', reason: 'client-closed', detail: error?.message })
    }
    const { code, reference, detail } = error.refusal
    this.#finish({ how: 'cut', reason: code, reference, detail })
  }

  #finish(ending: Ending): void {
    if (this.#over) return
    this.#over = true
    const { signal, recording, tunnel } = this.#setting
    signal.removeEventListener('abort', this.#aborted)
    recording.failed.removeEventListener('abort', this.#recorderFailed)
    for (const go of this.#waiting.splice(0)) go()
    tunnel.end()
    this.#done(ending)
  }
}
