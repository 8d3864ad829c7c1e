// The data path: passes each chunk on as it came, after its headers were read and what it says is on record.
// A statement is in the file before it goes to the target; an answer is in the recorder's hands before it
// goes to the client. A side that does not read stops the other. However the session ends, both connections
// are closed within fixed times and a statement that still runs is cancelled.
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { sleep } from '../../clock.ts'
import type { Clock } from '../../clock.ts'
import { SallyportError, asSallyportError } from '../../errors.ts'
import type { ErrorCode } from '../../errors.ts'
import type { Ending, Recording } from '../../recording/recording.ts'
import {
  backendKeyData, noticeResponse, parameterStatus, readyForQuery, terminate
} from '../../wire/postgres/messages.ts'
import type { Report } from '../../wire/postgres/messages.ts'
import { closesWithin } from '../../wire/postgres/upstream.ts'
import { ReadBuffer } from '../buffers.ts'
import { Answers } from './answers.ts'
import type { CancelKeys } from './cancels.ts'
import type { Client } from './client.ts'
import { Gate } from './gate.ts'
import { Pace } from './pace.ts'
import type { Target } from './target.ts'
import { writeShared } from '../takeover.ts'
import { BackTape, FrontTape } from './tape.ts'
import { fatal, notice } from './words.ts'

/**
 * A client that closed its side while a statement runs may be one that only has nothing more to say, and
 * waits for the answer; most often it is dead. After this the statement is cancelled.
 */
const halfClosedMs = 1000

/** A target that was told goodbye has so long to close; its backend is gone when it does. */
const targetCloseMs = 1000

/** A cancel request is waited for so long. */
const cancelMs = 2000

/** A client that was told the end may read what it has been sent for so long. */
const clientLingerMs = 10_000

/** After a recorder failed both connections are closed within 250 ms (R4), read or not. */
const recorderLingerMs = 200

/** Kept of what a client says behind a statement that is judged; then it is not read any more. */
const stashBytesMax = 64 * 1024

/** Notices that wait for a place between two messages. More are dropped: nobody reads them then. */
const noticesMax = 16

export interface RelaySetting {
  client: Client
  target: Target
  recording: Recording
  signal: AbortSignal
  clock: Clock
  cancelKeys: CancelKeys
  /** Minor protocol version that the client speaks: longer cancel keys from 3.2 on. */
  minor: number
  /** `stream`: reads as every stream does. */
  readMode: 'shared' | 'stream'
  /** What the target said during its login. */
  greetings: readonly Report[]
}

export class Relay {
  readonly #setting: RelaySetting
  readonly #recording: Recording
  readonly #front: FrontTape
  readonly #back: BackTape
  readonly #frontBuffer = new ReadBuffer()
  readonly #backBuffer: ReadBuffer
  readonly #frontPace: Pace
  readonly #backPace: Pace
  readonly #toTarget: Socket
  #toClient: Socket
  /** Small writes may go to the kernel past the stream. */
  readonly #targetDirect: boolean
  readonly #clientDirect: boolean
  /** A statement is under way at the target. */
  #busy = false
  /** What has been passed on ends between two messages. */
  #targetQuiet = true
  #clientQuiet = true
  /** A chunk of the client waits for the recorder; nothing is read meanwhile. */
  #held = false
  /** What came while rules were asked. */
  #stash: Buffer[] = []
  #stashBytes = 0
  #over = false
  #notices: Buffer[] = []
  /** Where the grant has rules about SQL: statements are judged, and refusals put into words. */
  readonly #gate: Gate | undefined
  readonly #answers: Answers | undefined
  #stopGrace: (() => void) | undefined
  #leaveKeys: (() => void) | undefined
  #done: (ending: Ending) => void = () => undefined

  constructor(setting: RelaySetting) {
    this.#setting = setting
    this.#recording = setting.recording
    this.#front = new FrontTape(setting.recording)
    this.#back = new BackTape(setting.recording, this.#front)
    this.#backBuffer = setting.target.buffer
    this.#frontPace = new Pace(setting.clock, () => this.#readClient())
    this.#backPace = new Pace(setting.clock, () => this.#readTarget())
    this.#toTarget = setting.target.upstream.socket
    this.#toClient = setting.client.socket
    this.#targetDirect = setting.readMode === 'shared' && !(this.#toTarget instanceof TLSSocket)
    this.#clientDirect = setting.readMode === 'shared' && !setting.client.encrypted
    const judge = setting.target.judge?.statement
    if (judge !== undefined) {
      const answers = this.#answers = new Answers()
      this.#gate = new Gate({
        judge,
        send: bytes => this.#deliver(bytes),
        refused: error => answers.refused(error),
        note: event => this.#front.event(event),
        tell: line => this.tell(line),
        end: error => this.#end(error.code, { error, cut: true })
      })
    }
  }

  /** Runs until a side ends or the signal aborts. Never rejects. */
  run(): Promise<Ending> {
    return new Promise(resolve => {
      this.#done = resolve
      const { signal, recording } = this.#setting
      if (signal.aborted) return this.#aborted()
      signal.addEventListener('abort', this.#aborted)
      recording.failed.addEventListener('abort', this.#recorderFailed)
      if (recording.failed.aborted) return this.#recorderFailed()
      try {
        this.#open()
      } catch (thrown) {
        // The target closed between its login and now.
        this.#end('target-closed', { error: asSallyportError(thrown, 'target-closed') })
      }
    })
  }

  /**
   * One line for the person: at once when the stream stands between two messages, else as soon as it does.
   */
  tell(line: string): void {
    if (this.#over || this.#notices.length >= noticesMax) return
    this.#front.event({ type: 'notice', text: line })
    this.#notices.push(notice(line))
    this.#sendNotices()
  }

  // ---- the two streams

  #open(): void {
    const { client, target, cancelKeys, minor, readMode, greetings } = this.#setting
    const { upstream } = target
    const own = cancelKeys.enter(upstream.pid, minor, () => this.#cancelAsked())
    this.#leaveKeys = own.leave
    this.#back.begin(upstream.parameters, greetings)
    if (this.#over) return
    const parameters = [...upstream.parameters].map(([name, value]) => parameterStatus(name, value))
    client.write(Buffer.concat([
      ...greetings.map(noticeResponse), ...parameters, backendKeyData(own.pid, own.key),
      readyForQuery(upstream.transactionStatus)
    ]))
    upstream.parameters.clear()
    if (upstream.leftover.length > 0) this.#fromTarget(upstream.leftover, upstream.leftover.length)
    if (this.#over) return
    upstream.takeOver(this.#fromTarget)
    this.#toTarget.on('drain', this.#readClient).on('end', this.#targetGone).on('close', this.#targetGone)
    client.takeOver(this.#fromClient, readMode === 'shared' ? this.#frontBuffer : undefined)
    this.#toClient = client.socket
    this.#toClient.on('drain', this.#readTarget).on('end', this.#clientEnded).on('close', this.#clientGone)
    if (client.gone) this.#clientEnded()
  }

  readonly #fromClient = (chunk: Buffer, bytes: number): boolean => {
    const front = this.#front
    // What comes after the end is thrown away, so that the end of the stream is seen.
    if (this.#over || front.terminated) return true
    if (this.#held && this.#gate !== undefined) return this.#keep(chunk, bytes)
    try {
      front.scanner.scan(chunk, 0, bytes)
      if (front.taped) {
        front.taped = false
        this.#busy = true
        this.#back.ready = false
        const written = this.#recording.commit()
        if (written !== true) return this.#hold(chunk, bytes, written)
      }
      if (this.#gate !== undefined) return this.#hold(chunk, bytes, Promise.resolve())
    } catch (thrown) {
      this.#broken('protocol-violation', thrown)
      return true
    }
    if (front.terminated) return this.#deliverLast(chunk, bytes)
    const to = this.#toTarget
    const quiet = front.scanner.atBoundary
    this.#targetQuiet = quiet
    const room = pass(to, chunk, bytes, this.#frontBuffer, this.#targetDirect)
    this.#frontBuffer.settle(chunk, bytes, to.writableLength > 0, !room, quiet)
    return room && !this.#frontPace.rests(bytes, this.#frontBuffer.large)
  }

  /** The disk is slow, or rules have to be asked: the bytes wait for it, and nothing more is read. */
  #hold(chunk: Buffer, bytes: number, written: Promise<void>): boolean {
    const { terminated, terminatedAt } = this.#front
    const kept = this.#frontBuffer.safe(chunk, terminated ? Math.min(bytes, terminatedAt) : bytes)
    this.#held = true
    // The next read must not go where these bytes are: it may come before they are written.
    this.#frontBuffer.settle(chunk, bytes, true, false, true)
    const deliver = async (): Promise<void> => {
      if (this.#over) return
      const room = await (this.#gate?.take(kept) ?? this.#deliver(kept))
      this.#held = false
      if (this.#over) return
      if (terminated) return this.#clientLeaves()
      this.#unstash()
      if (this.#held) return
      if (room) this.#toClient.resume()
      else this.#toClient.pause()
    }
    written.then(
      () => deliver().catch((thrown: unknown) => this.#broken('internal', thrown)),
      (thrown: unknown) => this.#broken('recorder-failed', thrown))
    return this.#gate !== undefined
  }

  /** Others may be asked for long: that somebody has left is seen only while they are read. */
  #keep(chunk: Buffer, bytes: number): boolean {
    this.#stash.push(Buffer.from(chunk.subarray(0, bytes)))
    this.#stashBytes += bytes
    this.#frontBuffer.settle(chunk, bytes, true, false, true)
    return this.#stashBytes < stashBytesMax
  }

  #unstash(): void {
    while (!this.#held && !this.#over) {
      const next = this.#stash.shift()
      if (next === undefined) return
      this.#stashBytes -= next.length
      this.#fromClient(next, next.length)
    }
  }

  #deliver(bytes: Buffer): boolean {
    this.#targetQuiet = this.#gate?.atBoundary ?? this.#front.scanner.atBoundary
    return this.#toTarget.write(bytes)
  }

  /** Up to Terminate, and nothing that stands behind it. */
  #deliverLast(chunk: Buffer, bytes: number): boolean {
    const until = Math.min(bytes, this.#front.terminatedAt)
    this.#deliver(Buffer.from(chunk.subarray(0, until)))
    this.#clientLeaves()
    return true
  }

  readonly #fromTarget = (chunk: Buffer, bytes: number): boolean => {
    if (this.#over) return true
    const back = this.#back
    const said = this.#answers?.take(chunk, bytes) ?? chunk
    const length = said === chunk ? bytes : said.length
    try {
      back.scanner.scan(said, 0, length)
      back.append()
    } catch (thrown) {
      back.append()
      this.#broken('target-violation', thrown)
      return true
    }
    // The recorder may have failed just now.
    if (this.#over) return true
    this.#gate?.answered(back.readies)
    back.readies = 0
    const to = this.#toClient
    // Words of ours are a copy: the chunk is free.
    const room = said === chunk
      ? pass(to, chunk, bytes, this.#backBuffer, this.#clientDirect)
      : to.write(said)
    const quiet = back.scanner.atBoundary
    this.#clientQuiet = quiet
    this.#backBuffer.settle(chunk, bytes, said === chunk && to.writableLength > 0, !room, quiet)
    if (quiet && back.ready) {
      this.#busy = false
      if (this.#stopGrace !== undefined) this.#clientLeaves()
    }
    if (this.#notices.length > 0) this.#sendNotices()
    return room && !this.#backPace.rests(bytes, this.#backBuffer.large)
  }

  readonly #readClient = (): void => {
    if (!this.#over && !this.#held) this.#toClient.resume()
  }

  readonly #readTarget = (): void => {
    if (!this.#over) this.#toTarget.resume()
  }

  #sendNotices(): void {
    if (!this.#clientQuiet) return
    for (const each of this.#notices) this.#setting.client.write(each)
    this.#notices = []
  }

  /** A cancel request with the right key came over another connection. */
  #cancelAsked(): Promise<unknown> {
    this.#front.event({ type: 'cancel' })
    const isTargets = this.#gate?.cancel(new SallyportError('client-closed', { detail: 'cancelled' })) ?? true
    return isTargets ? this.#setting.target.cancel() : Promise.resolve()
  }

  // ---- the ways in which it ends

  /** Terminate, or the end of its stream between two statements. */
  #clientLeaves(): void {
    if (!this.#busy) this.#end('client-closed', { goodbye: !this.#front.terminated })
  }

  /** The client closed its side. */
  readonly #clientEnded = (): void => {
    if (this.#over || this.#stopGrace !== undefined) return
    if (!this.#busy) return this.#clientLeaves()
    this.#stopGrace = this.#setting.clock.after(halfClosedMs, () => this.#end('client-closed', {}))
  }

  /** The connection is gone, without a word. */
  readonly #clientGone = (): void => this.#end('client-closed', {})

  readonly #targetGone = (): void => {
    if (this.#front.terminated) return this.#end('client-closed', {})
    // Its own last error says why; ours is for an end without a word.
    const error = this.#back.ending ? undefined : new SallyportError('target-closed')
    this.#busy = false
    this.#end('target-closed', { error, targetGone: true })
  }

  readonly #aborted = (): void => {
    const error = asSallyportError(this.#setting.signal.reason)
    if (error.code === 'recorder-failed') this.#cut(error)
    else this.#end(error.code, { error, cut: true })
  }

  readonly #recorderFailed = (): void => {
    this.#cut(asSallyportError(this.#setting.recording.failed.reason, 'recorder-failed'))
  }

  /** Bytes that the protocol does not allow here, or a recorder that failed. */
  #broken(code: ErrorCode, thrown: unknown): void {
    const error = asSallyportError(thrown, code)
    if (error.code === 'recorder-failed') this.#cut(error)
    else this.#end(error.code, { error, cut: true, targetGone: error.code === 'target-violation' })
  }

  /**
   * Strict recording: not one byte more of either side. Where the client can still be told something, it is
   * our own word.
   */
  #cut(error: SallyportError): void {
    if (!this.#finish()) return
    const { client, target } = this.#setting
    if (this.#busy) void target.cancel()
    target.upstream.close()
    const heard = this.#clientQuiet && this.#toClient.writableLength === 0
    if (heard) void client.close(fatal(error), recorderLingerMs)
    else client.destroy()
    this.#done(endingOf('cut', error.code, error))
  }

  /** Says the end to whom it concerns, closes both connections, and then tells the session. */
  #end(reason: string, how: EndOptions): void {
    if (!this.#finish()) return
    const { error, cut = false } = how
    this.#back.end()
    // In the middle of a message nothing can be said; a client that left has nobody to hear it.
    const heard = error !== undefined && this.#clientQuiet
    const closings = [
      this.#setting.client.close(heard ? fatal(error) : undefined, clientLingerMs),
      this.#closeTarget(how)
    ]
    void Promise.allSettled(closings).then(() => this.#done(endingOf(cut ? 'cut' : 'ended', reason, error)))
  }

  /** Nothing is passed on from here; false when that was said before. */
  #finish(): boolean {
    if (this.#over) return false
    this.#over = true
    this.#stopGrace?.()
    this.#leaveKeys?.()
    this.#gate?.stop(new SallyportError('client-closed'))
    const { signal, recording } = this.#setting
    signal.removeEventListener('abort', this.#aborted)
    recording.failed.removeEventListener('abort', this.#recorderFailed)
    return true
  }

  async #closeTarget({ goodbye = true, targetGone = false }: EndOptions): Promise<void> {
    const { target: { upstream, cancel }, clock } = this.#setting
    const socket = this.#toTarget
    // A large buffer may still be lent to a write: reading on, only to throw away, would change bytes on
    // their way.
    const atOnce = targetGone || this.#frontBuffer.large || this.#backBuffer.large
    if (atOnce) upstream.close()
    // First the cancel: a backend that is busy does not hear a goodbye.
    if (this.#busy && !targetGone) await Promise.race([cancel(), sleep(clock, cancelMs)])
    if (atOnce) return
    if (socket.writable && goodbye && this.#targetQuiet) socket.write(terminate())
    socket.end()
    await closesWithin(socket, targetCloseMs)
    upstream.close()
  }
}

/** False when the socket is full. */
function pass(to: Socket, chunk: Buffer, bytes: number, buffer: ReadBuffer, direct: boolean): boolean {
  return buffer.isShared(chunk) ? writeShared(to, chunk, bytes, direct) : to.write(buffer.safe(chunk, bytes))
}

interface EndOptions {
  error?: SallyportError | undefined
  /** We end it, not a side. */
  cut?: boolean | undefined
  /** The target has not been told Terminate yet. */
  goodbye?: boolean | undefined
  /** Its connection is gone, or must be cut without another word. */
  targetGone?: boolean | undefined
}

function endingOf(how: Ending['how'], reason: string, error: SallyportError | undefined): Ending {
  return { how, reason, reference: error?.reference, detail: error?.detail }
}
