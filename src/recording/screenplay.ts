// A recording as scenes: at this moment this appears on the screen. Replay, live watch and the asciicast
// exports are made of it, for every protocol: a terminal's output passes through the filter of terminal.ts, a
// PostgreSQL session is written out as a person would have seen it in psql, without the rows. Everything in a
// scene is safe to print.
import type { Frame } from './format.ts'
import { inert, inertLine } from './inert.ts'
import { StatementDecoder } from './postgres.ts'
import { parseBody, parseClose, parseHead, readBatches } from './reader.ts'
import type { ReadOptions, RecordingFile } from './reader.ts'
import { frameKind } from './recording.ts'
import type { RecordingHead } from './recording.ts'
import type { StatementRecord } from './statement.ts'
import { TerminalFilter, terminalReset } from './terminal.ts'

/** A recording with more terminal channels than this is hostile; the others share one filter. */
const lanesMax = 1024
/** Columns or rows of a terminal; nobody has more. */
const sizeMax = 5000
/** Of a parameter so much is shown in a replay; exports have all of it. */
const parameterShownMax = 200
const parametersShownMax = 50

export type Scene =
  | { kind: 'text', atMs: number, text: string }
  | { kind: 'resize', atMs: number, columns: number, rows: number }
  /** Something that happened: a warning, a kill. One line. */
  | { kind: 'event', atMs: number, text: string }
  /** The end: how and why. */
  | { kind: 'end', atMs: number, text: string }

/** `1 row`, `3 rows`. */
function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}

function parametersText(parameters: readonly (string | null)[]): string {
  if (parameters.length === 0) return ''
  const shown = parameters.slice(0, parametersShownMax).map((value, index) => {
    if (value === null) return `$${index + 1} = NULL`
    const text = value.length > parameterShownMax ? `${value.slice(0, parameterShownMax)}…` : value
    return `$${index + 1} = ${inertLine(`'${text.replaceAll("'", "''")}'`)}`
  })
  if (parameters.length > parametersShownMax) shown.push('…')
  return `-- ${shown.join(', ')}\n`
}

/** What came of a statement, in one line or more, each a comment. */
export function outcomeText(record: StatementRecord): string {
  const { outcome, results, notices, error, durationMs, alarm } = record
  const lines = notices.map(notice => `-- ${inertLine(notice)}`)
  for (const { tag, rows, bytes, copiedBytes } of results) {
    const facts = [inertLine(tag === '' ? 'no result' : tag)]
    if (bytes > 0) facts.push(counted(rows, 'row'), counted(bytes, 'byte'))
    if (copiedBytes > 0) facts.push(`${counted(copiedBytes, 'byte')} copied in`)
    lines.push(`-- ${facts.join(', ')}`)
  }
  if (error !== undefined) {
    lines.push(`-- ${inertLine(`${error.severity} ${error.sqlstate}: ${error.message}`)}`)
  }
  if (outcome === 'skipped') lines.push('-- not run, because of the error before it')
  if (outcome === 'unanswered') lines.push('-- no answer is recorded')
  if (alarm !== undefined) lines.push('-- ALARM: a password is set')
  if (durationMs !== undefined && lines.length > 0) lines[lines.length - 1] += `, ${durationMs.toFixed(1)} ms`
  return lines.join('\n')
}

/** A player sets aside memory for as many cells. */
function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) > 0 && Number(value) <= sizeMax
}

/** A terminal wants a carriage return before each line feed. */
function forTerminal(text: string): string {
  return text.replaceAll('\n', '\r\n')
}

/** Feed it the frames in order. Times of scenes never go backwards. */
export class Screenplay {
  readonly #statements = new StatementDecoder()
  readonly #filters = new Map<number, TerminalFilter>()
  #head: RecordingHead | undefined
  #atMs = 0
  #usedTerminal = false

  get head(): RecordingHead | undefined {
    return this.#head
  }

  push(frame: Frame): Scene[] {
    const atMs = frame.atMicroseconds / 1000
    switch (frame.kind) {
      case frameKind.open: {
        this.#head = parseHead(frame.body)
        return []
      }
      case frameKind.output: return this.#text(atMs, this.#filter(frame.lane).write(frame.body))
      case frameKind.event: return this.#event(atMs, frame.body)
      case frameKind.statement:
      case frameKind.result: return this.#statements.push(frame).flatMap(record => this.#statement(record))
      case frameKind.close: {
        const { how, reason } = parseClose(frame.body)
        const rest = this.#rest()
        return [...rest, { kind: 'end', atMs: this.#monotone(atMs), text: inertLine(`${how}: ${reason}`) }]
      }
      default: return []
    }
  }

  /** For a recording that has no close frame. */
  end(): Scene[] {
    return this.#rest()
  }

  #rest(): Scene[] {
    const open = this.#statements.end().flatMap(record => this.#statement(record))
    const held = [...this.#filters.values()].map(filter => filter.end()).join('')
    return [...open, ...this.#text(this.#atMs, held + (this.#usedTerminal ? terminalReset : ''))]
  }

  #filter(lane: number): TerminalFilter {
    const key = this.#filters.has(lane) || this.#filters.size < lanesMax ? lane : 0
    const filter = this.#filters.get(key) ?? new TerminalFilter()
    this.#filters.set(key, filter)
    this.#usedTerminal = true
    return filter
  }

  #monotone(atMs: number): number {
    this.#atMs = Math.max(this.#atMs, atMs)
    return this.#atMs
  }

  #text(atMs: number, text: string): Scene[] {
    return text === '' ? [] : [{ kind: 'text', atMs: this.#monotone(atMs), text }]
  }

  #event(atMs: number, body: Buffer): Scene[] {
    const { type, columns, rows, ...rest } = parseBody(body)
    if (type === 'resize' && isSize(columns) && isSize(rows)) {
      return [{ kind: 'resize', atMs: this.#monotone(atMs), columns, rows }]
    }
    const words = [type, ...Object.values(rest)].filter(value => ['string', 'number'].includes(typeof value))
    return [{ kind: 'event', atMs: this.#monotone(atMs), text: inertLine(words.join(' ')) }]
  }

  /** The question when it was asked (as far as time has not passed it), the outcome when it came. */
  #statement(record: StatementRecord): Scene[] {
    const prompt = inertLine(this.#head?.database ?? '')
    const question = record.kind === 'message'
      ? ''
      : `${prompt}=> ${inert(record.sql)}${record.cut ? ' …' : ''}\n${parametersText(record.parameters)}`
    const answeredMs = record.atMs + (record.durationMs ?? 0)
    const outcome = outcomeText(record)
    return [
      ...this.#text(record.atMs, forTerminal(question)),
      ...this.#text(answeredMs, outcome === '' ? '' : forTerminal(`${outcome}\n`))
    ]
  }
}

/** The scenes of a recording. */
export async function* scenes(file: RecordingFile, options: ReadOptions = {}): AsyncGenerator<Scene> {
  const screenplay = new Screenplay()
  let closed = false
  for await (const frames of readBatches(file, options)) {
    for (const frame of frames) {
      closed ||= frame.kind === frameKind.close
      for (const scene of screenplay.push(frame)) yield scene
    }
  }
  if (closed) return
  for (const scene of screenplay.end()) yield scene
}
