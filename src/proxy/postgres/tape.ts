// What the recorder gets to see of a session's two streams: statements as raw bytes, answers as entries with
// counts. Both come from a scanner that reads message headers only; the relay passes the chunks on. This file
// is the evidence of a PostgreSQL session: what is not marked here is not on record.
import { frameKind } from '../../recording/recording.ts'
import type { Recording } from '../../recording/recording.ts'
import { FrameScanner, frontTags, tagTable, watch } from '../../wire/postgres/frame.ts'
import type { FrameSink } from '../../wire/postgres/frame.ts'
import { noticeResponse, parameterStatus } from '../../wire/postgres/messages.ts'
import type { Report } from '../../wire/postgres/messages.ts'
import { ResultTape, resultTextBytesMax } from '../../wire/postgres/tape.ts'

/** PostgreSQL has one stream for each session. */
const lane = 0

/**
 * What a target may say after its login. On the tape: what ends a statement or a batch, errors, notices,
 * settings that it reports (the encoding among them) and notifications. Counted: rows and copied data. A late
 * request for a password, another key or another protocol version has no flag, and ends the session.
 */
const backTags = tagTable({
  CEIsVZNSA: watch.collect,
  Dd: watch.count,
  '123cntTGHW': watch.known
})

const [readyForQuery, errorResponse, parameter, notice] = [0x5a, 0x45, 0x53, 0x4e]

// One for all sessions: it is filled and emptied within one read.
const results = new ResultTape()

/** The client's stream: what goes to the target. */
export class FrontTape implements FrameSink {
  readonly scanner: FrameScanner
  /** The client said goodbye; what it sends afterwards is not looked at. */
  terminated = false
  /** Where Terminate ends, in the chunk in which it came. */
  terminatedAt = 0
  /** Statements were appended since the owner last set it to false. */
  taped = false
  readonly #recording: Recording

  constructor(recording: Recording) {
    this.#recording = recording
    this.scanner = new FrameScanner(frontTags, this)
  }

  header(_tag: number, bodyBytes: number, bodyStart: number): void {
    if (!this.terminated) this.terminatedAt = bodyStart + bodyBytes
    this.terminated = true
  }

  tape(chunk: Buffer, start: number, end: number): void {
    this.taped = true
    this.#recording.append(frameKind.statement, lane, chunk.subarray(start, end))
  }

  truncated(tag: number, bodyBytes: number, keptBytes: number): void {
    this.event({ type: 'truncated', tag: String.fromCharCode(tag), bytes: bodyBytes, kept: keptBytes })
  }

  event(event: Record<string, unknown>): void {
    this.#recording.append(frameKind.event, lane, Buffer.from(JSON.stringify(event)))
  }
}

/** The target's stream: what goes to the client. */
export class BackTape implements FrameSink {
  readonly scanner: FrameScanner
  /** The target waits for the next statement. */
  ready = false
  /** How often it said so since the owner last set it to 0. */
  readies = 0
  /** The last error was one after which the target closes the connection. */
  ending = false
  readonly #recording: Recording
  readonly #front: FrontTape

  constructor(recording: Recording, front: FrontTape) {
    this.#recording = recording
    this.#front = front
    this.scanner = new FrameScanner(backTags, this, { collectBytesMax: resultTextBytesMax })
  }

  message(tag: number, body: Buffer, bodyBytes: number): void {
    this.messageIn(tag, body, 0, body.length, bodyBytes)
  }

  messageIn(tag: number, chunk: Buffer, start: number, end: number, bodyBytes: number): void {
    const back = this.scanner
    const front = this.#front.scanner
    results.add(tag, back.rows, back.rowBytes + back.copyBytes, front.copyBytes, chunk, bodyBytes, start, end)
    back.rows = back.rowBytes = back.copies = back.copyBytes = front.copies = front.copyBytes = 0
    if (tag === readyForQuery) {
      this.ready = true
      this.readies++
    } else if (tag === errorResponse) {
      const body = chunk.subarray(start, end)
      this.ending = body.includes('VFATAL') || body.includes('VPANIC')
    }
  }

  /**
   * The settings that the target reported at login (without the encoding a replay could not read the
   * statements), and what else it said there.
   */
  begin(parameters: ReadonlyMap<string, string>, greetings: readonly Report[]): void {
    for (const report of greetings) results.add(notice, 0, 0, 0, noticeResponse(report).subarray(5))
    for (const [name, value] of parameters) {
      results.add(parameter, 0, 0, 0, parameterStatus(name, value).subarray(5))
    }
    this.append()
  }

  /** Puts what has been gathered into the recording; before the bytes that it speaks of are delivered. */
  append(): void {
    if (results.length > 0) this.#recording.append(frameKind.result, lane, results.take())
  }

  /** At the end: what was on its way when the session ended. */
  end(): void {
    this.append()
    const { rows, rowBytes, copies, copyBytes } = this.scanner
    const front = this.#front.scanner
    if (rows + copies + front.copies === 0) return
    this.#front.event({ type: 'cut', rows, bytes: rowBytes + copyBytes, copiedBytes: front.copyBytes })
  }
}
