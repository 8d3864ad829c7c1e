// Reads the statements out of a PostgreSQL recording: which SQL ran, with which parameters, what came of it.
// `statement` frames of a lane are what the client said, `result` frames how the target answered
// (src/wire/postgres/tape.ts). The two are put together by the order that the protocol promises: answers come
// in the order of the questions, and an error in the extended protocol skips everything up to the next Sync.
// A name is believed to stand for a statement only when the target confirmed it: else a Parse that fails
// could disguise what a later Execute runs. Tapes may be cut, altered or hostile: this never throws, and its
// memory is bounded.
import { WireError } from '../wire/error.ts'
import type { TapedFrame } from '../wire/postgres/frame.ts'
import {
  parseCommandComplete, parseNotification, parseParameterStatus, parseReport
} from '../wire/postgres/parse.ts'
import { splitResults } from '../wire/postgres/tape.ts'
import type { TapedResult } from '../wire/postgres/tape.ts'
import { ClientTape } from './client-tape.ts'
import type { Frame } from './format.ts'
import { Names, decoderFor, readItem } from './questions.ts'
import type { Item } from './questions.ts'
import { parseBody, readBatches } from './reader.ts'
import type { ReadOptions, RecordingFile } from './reader.ts'
import { frameKind } from './recording.ts'
import { messageRecord, verdictOf, withoutSecrets } from './statement.ts'
import type { StatementError, StatementRecord, StatementResult } from './statement.ts'

/** Questions without an answer that are remembered; a pipeline is far below. The oldest are given up. */
const itemsMax = 50_000
const itemBytesMax = 64 * 1024 * 1024
/** Notices and results of one statement that are kept: a function can raise a million. */
const notesMax = 100

type Outcome = StatementRecord['outcome']

/** Where something was found. */
type Place = Pick<Frame, 'offset' | 'lane' | 'atMicroseconds'>

/** Query, Parse and FunctionCall: what rules are asked about, which counts them as we do. */
const judgedTags = new Set([0x51, 0x50, 0x46])

interface Running extends Item {
  judged: number | undefined
  results: StatementResult[]
  notices: string[]
  error: StatementError | undefined
  answeredMs: number | undefined
}

class Lane {
  readonly tape = new ClientTape()
  readonly names = new Names()
  items: Running[] = []
  itemBytes = 0
  /**
   * An error in the extended protocol: nothing is done until the next Sync. What its names would have been.
   */
  skipping: Names | undefined
  decode = decoderFor('UTF8')
  judged = 0
  lastAnswerMs = 0

  /** Takes the first items off. */
  shift(count: number): Running[] {
    const taken = this.items.splice(0, count)
    for (const item of taken) this.itemBytes -= item.bytes
    return taken
  }
}

/** Those that are statements for a reader. */
function shows(item: Item): boolean {
  return item.type === 'query' || item.type === 'execute' || item.type === 'call'
}

function addResult(results: StatementResult[], result: StatementResult): void {
  const last = results.at(-1)
  if (results.length < notesMax || last === undefined) return void results.push(result)
  last.tag = result.tag
  last.rows += result.rows
  last.bytes += result.bytes
  last.copiedBytes += result.copiedBytes
}

function toRecord(item: Running, outcome: Outcome, names: Names, sinceMs: number): StatementRecord {
  const { atMs, lane, offset, type, results, notices, error, answeredMs } = item
  const { sql, parameters, cut, verdict } =
    type === 'execute' || type === 'bind' ? names.portal(item.name) : item
  const kind = type === 'query' || type === 'execute' || type === 'call' ? type : 'prepare'
  const sum = (of: (result: StatementResult) => number): number =>
    results.reduce((total, each) => total + of(each), 0)
  return withoutSecrets({
    ...messageRecord(atMs, lane, offset),
    kind, sql, parameters, outcome, results, notices, error,
    ...verdict !== undefined && { verdict },
    tag: results.at(-1)?.tag ?? '',
    rows: sum(result => result.rows),
    bytes: sum(result => result.bytes),
    copiedBytes: sum(result => result.copiedBytes),
    // In a pipeline a statement begins when the one before it is done.
    durationMs: answeredMs === undefined ? undefined : Math.max(0, answeredMs - Math.max(atMs, sinceMs)),
    cut: cut || item.cut
  })
}

/** Feed it the frames in order; it returns the statements that are finished. */
export class StatementDecoder {
  readonly #lanes = new Map<number, Lane>()
  #done: StatementRecord[] = []

  push(frame: Frame): StatementRecord[] {
    if (frame.kind === frameKind.event) this.#verdict(frame)
    if (frame.kind !== frameKind.statement && frame.kind !== frameKind.result) return []
    const lane = this.#lane(frame.lane)
    try {
      if (frame.kind === frameKind.statement) {
        for (const message of lane.tape.feed(frame.body)) this.#ask(lane, frame, message)
      } else {
        for (const entry of splitResults(frame.body)) this.#answer(lane, frame, entry)
      }
    } catch (thrown) {
      if (!(thrown instanceof WireError)) throw thrown
      this.#message(frame, `a frame that cannot be read: ${thrown.message}`)
    }
    return this.#take()
  }

  /** At the end of the recording: what has no answer. */
  end(): StatementRecord[] {
    for (const [number, lane] of this.#lanes) {
      const last = lane.items.at(-1)
      const cut = lane.tape.end()
      const atMicroseconds = (last?.atMs ?? lane.lastAnswerMs) * 1000
      const place = { offset: last?.offset ?? 0, lane: number, atMicroseconds }
      if (cut !== undefined) this.#ask(lane, place, cut)
      this.#giveUp(lane, lane.items.length)
    }
    return this.#take()
  }

  /** What runs now, for somebody who watches: asked, and not answered yet. */
  running(): StatementRecord[] {
    return [...this.#lanes.values()].flatMap(lane => {
      const names = new Names(lane.names)
      return lane.items.flatMap(item => {
        names.pass(item)
        return shows(item) ? [toRecord(item, 'unanswered', names, lane.lastAnswerMs)] : []
      })
    })
  }

  #lane(number: number): Lane {
    const lane = this.#lanes.get(number) ?? new Lane()
    this.#lanes.set(number, lane)
    return lane
  }

  #take(): StatementRecord[] {
    const done = this.#done
    this.#done = []
    return done
  }

  /** It comes behind the message that it is about, and before the answer. */
  #verdict({ lane, body }: Frame): void {
    if (!body.includes('"verdict"')) return
    const event = parseBody(body)
    const item = this.#lanes.get(lane)?.items.find(({ judged }) => judged === event['message'])
    if (item !== undefined) item.verdict = verdictOf(event)
  }

  // ---- questions

  #ask(lane: Lane, place: Place, message: TapedFrame): void {
    const judged = judgedTags.has(message.tag) ? lane.judged++ : undefined
    const read = readItem(message, place, lane.decode)
    if (read === undefined) return
    const item: Running = {
      ...read, judged, results: [], notices: [], error: undefined, answeredMs: undefined
    }
    if (item.type === 'copy-fail') {
      lane.items.find(shows)?.notices.push(`the client gave the copy up: ${item.sql}`)
      return
    }
    if (lane.skipping !== undefined && item.type !== 'sync') {
      lane.skipping.pass(item)
      if (shows(item)) this.#finish(lane, item, 'skipped', lane.skipping)
      return
    }
    lane.skipping = undefined
    lane.items.push(item)
    lane.itemBytes += item.bytes
    while (lane.items.length > itemsMax || lane.itemBytes > itemBytesMax) this.#giveUp(lane, 1)
  }

  #giveUp(lane: Lane, count: number): void {
    for (const item of lane.shift(count)) {
      if (shows(item)) this.#finish(lane, item, item.error === undefined ? 'unanswered' : 'error', lane.names)
      lane.names.pass(item)
    }
  }

  // ---- answers

  #answer(lane: Lane, frame: Frame, entry: TapedResult): void {
    switch (entry.tag) {
      case '1': return this.#confirm(lane, 'parse')
      case '2': return this.#confirm(lane, 'bind')
      case '3': return this.#confirm(lane, 'close')
      case 'C':
      case 'I':
      case 's':
      case 'V': return this.#result(lane, frame, entry)
      case 'E': return this.#error(lane, frame, parseReport(entry.body, entry.complete))
      case 'Z': return this.#ready(lane)
      case 'N': {
        const { severity, message } = parseReport(entry.body, entry.complete)
        return this.#note(lane, frame, `${severity}: ${message}`)
      }
      case 'A': {
        if (!entry.complete) return this.#message(frame, 'a notification')
        const { channel, payload } = parseNotification(entry.body)
        return this.#message(frame, `notification on ${channel}: ${payload}`)
      }
      case 'S': {
        if (!entry.complete) return
        const { name, value } = parseParameterStatus(entry.body)
        if (name === 'client_encoding') lane.decode = decoderFor(value)
        return
      }
      default:
    }
  }

  /** The target did it: everything up to it was in order. */
  #confirm(lane: Lane, type: Item['type']): void {
    const index = lane.items.findIndex(item => item.type === type)
    if (index >= 0) this.#pass(lane, index + 1)
  }

  /** Takes the first items off as done, in the order in which the target did them. */
  #pass(lane: Lane, count: number): void {
    for (const item of lane.shift(count)) {
      const answered = item.answeredMs === undefined ? 'unanswered' : 'ok'
      if (shows(item)) this.#finish(lane, item, item.error === undefined ? answered : 'error', lane.names)
      lane.names.pass(item)
    }
  }

  #result(lane: Lane, frame: Frame, entry: TapedResult): void {
    const completes = entry.tag === 'C' && entry.complete
    const { tag, rows = 0 } = completes ? parseCommandComplete(entry.body) : { tag: '' }
    this.#pass(lane, Math.max(0, lane.items.findIndex(shows)))
    const [item] = lane.items
    if (item === undefined || !shows(item)) {
      return this.#message(frame, `an answer that nobody asked for: ${tag}`)
    }
    item.answeredMs = frame.atMicroseconds / 1000
    const { bytes, copiedBytes } = entry
    addResult(item.results, { tag, rows: entry.rows > 0 ? entry.rows : rows, bytes, copiedBytes })
    const { sql } = item.type === 'execute' ? lane.names.portal(item.name) : item
    if (item.type === 'execute') this.#pass(lane, 1)
    lane.names.ran(sql, tag)
  }

  #error(lane: Lane, frame: Frame, error: StatementError): void {
    const answeredMs = frame.atMicroseconds / 1000
    const first = lane.items.findIndex(item => item.type !== 'sync')
    if (first < 0) {
      return void this.#done.push(withoutSecrets({
        ...messageRecord(answeredMs, frame.lane, frame.offset), outcome: 'error', error
      }))
    }
    this.#pass(lane, first)
    const [item] = lane.items
    if (item === undefined) return
    if (item.type === 'query' || item.type === 'call') return void Object.assign(item, { error, answeredMs })
    // Extended protocol: the failed one and all behind it, up to the Sync, are not done.
    const sync = lane.items.findIndex(each => each.type === 'sync')
    const undone = lane.shift(sync < 0 ? lane.items.length : sync)
    const failed = undone.find(shows) ?? undone.find(each => each.type === 'parse') ?? item
    Object.assign(failed, { error, answeredMs })
    const names = new Names(lane.names)
    lane.skipping = sync < 0 ? names : undefined
    for (const each of undone) {
      names.pass(each)
      if (each === failed) this.#finish(lane, each, 'error', names)
      else if (shows(each)) this.#finish(lane, each, 'skipped', names)
    }
  }

  #ready(lane: Lane): void {
    const index = lane.items.findIndex(({ type }) => type === 'sync' || type === 'query' || type === 'call')
    this.#pass(lane, index + 1)
  }

  #note(lane: Lane, frame: Frame, text: string): void {
    const item = lane.items.find(shows)
    if (item === undefined) return this.#message(frame, text)
    if (item.notices.length < notesMax) item.notices.push(text)
  }

  #finish(lane: Lane, item: Running, outcome: Outcome, names: Names): void {
    this.#done.push(toRecord(item, outcome, names, lane.lastAnswerMs))
    lane.lastAnswerMs = item.answeredMs ?? lane.lastAnswerMs
  }

  #message(frame: Frame, text: string): void {
    const record = messageRecord(frame.atMicroseconds / 1000, frame.lane, frame.offset)
    this.#done.push(withoutSecrets({ ...record, notices: [text] }))
  }
}

/** The statements of a recording, in the order in which they were finished. */
export async function* statements(
  file: RecordingFile, options: ReadOptions = {}
): AsyncGenerator<StatementRecord> {
  const decoder = new StatementDecoder()
  for await (const frames of readBatches(file, options)) {
    // Not `yield*`: in an async generator that costs a promise more for each.
    for (const frame of frames) for (const record of decoder.push(frame)) yield record
  }
  for (const record of decoder.end()) yield record
}
