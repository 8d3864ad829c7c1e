// The text of a recording as lines, for search and its index: statements with parameters and errors, what
// terminals showed, and events. Passwords in SQL are masked here already, so that neither the index nor a hit
// holds one. What was typed (`input` frames) is left out: passwords are typed without an echo, and what has
// an echo is in the output.
import type { Frame } from './format.ts'
import { StatementDecoder } from './postgres.ts'
import { parseBody, readBatches } from './reader.ts'
import type { RecordingFile } from './reader.ts'
import { frameKind } from './recording.ts'
import type { StatementRecord } from './statement.ts'
import { TerminalFilter } from './terminal.ts'

/** A line without an end is handed out in pieces of this length. */
const lineMax = 16 * 1024
/** A recording with more terminal channels than this is hostile; the others share one. */
const lanesMax = 1024

export interface TextLine {
  /** Milliseconds since the start. */
  atMs: number
  lane: number
  /** Offset of the frame in which the line begins. */
  offset: number
  kind: 'statement' | 'output' | 'event'
  text: string
}

// What the filter lets pass of escape sequences; those that move to another line count as a line break.
const lineBreaks = /\x1b\[[\d;]*[ABEFHdf]|\x1b[DEM]|[\r\n]+/g
const otherSequences = /\x1b(?:\[[?\d;:]*[@-~]|[()*+][0AB]|[78H])|\x08/g

interface OpenLine {
  filter: TerminalFilter
  atMs: number
  offset: number
  text: string
}

/** Everything of a statement that can be searched, in one text. */
export function statementText(record: StatementRecord): string {
  const { sql, parameters, results, error, notices } = record
  const parts = [
    sql,
    ...parameters.filter(value => value !== null),
    ...results.map(result => result.tag),
    ...error === undefined ? [] : [error.sqlstate, error.message, error.detail ?? '', error.hint ?? ''],
    ...notices
  ]
  return parts.filter(part => part !== '').join('\n')
}

/** Feed it the frames in order. */
export class TextReader {
  readonly #statements = new StatementDecoder()
  readonly #lanes = new Map<number, OpenLine>()

  push(frame: Frame): TextLine[] {
    switch (frame.kind) {
      case frameKind.statement:
      case frameKind.result: return this.#statements.push(frame).map(toLine)
      case frameKind.output: return this.#output(frame)
      case frameKind.event: {
        const words = Object.values(parseBody(frame.body)).filter(value => typeof value === 'string')
        return [{ ...placeOf(frame), kind: 'event', text: words.join(' ') }]
      }
      default: return []
    }
  }

  end(): TextLine[] {
    const open = [...this.#lanes].flatMap(([lane, line]) => {
      line.text += line.filter.end().replace(otherSequences, '')
      const { atMs, offset, text } = line
      return text === '' ? [] : [{ atMs, lane, offset, kind: 'output' as const, text }]
    })
    return [...this.#statements.end().map(toLine), ...open]
  }

  #output(frame: Frame): TextLine[] {
    const lane = this.#lanes.has(frame.lane) || this.#lanes.size < lanesMax ? frame.lane : 0
    const { atMs, offset } = placeOf(frame)
    const line = this.#lanes.get(lane) ?? { filter: new TerminalFilter(), atMs, offset, text: '' }
    this.#lanes.set(lane, line)
    const shown = line.filter.write(frame.body).replace(lineBreaks, '\n').replace(otherSequences, '')
    const pieces = (line.text + shown).split('\n')
    const rest = pieces.pop() ?? ''
    const lines: TextLine[] = []
    // Only the first piece may have begun in an earlier frame.
    let place = line.text === '' ? { atMs, offset } : { atMs: line.atMs, offset: line.offset }
    for (const text of pieces) {
      if (text !== '') lines.push({ ...place, lane, kind: 'output', text })
      place = { atMs, offset }
    }
    line.text = rest
    line.atMs = place.atMs
    line.offset = place.offset
    while (line.text.length > lineMax) {
      lines.push({ ...place, lane, kind: 'output', text: line.text.slice(0, lineMax) })
      line.text = line.text.slice(lineMax)
      place = { atMs, offset }
      Object.assign(line, place)
    }
    return lines
  }
}

function placeOf(frame: Frame): { atMs: number, lane: number, offset: number } {
  return { atMs: frame.atMicroseconds / 1000, lane: frame.lane, offset: frame.offset }
}

function toLine(record: StatementRecord): TextLine {
  const { atMs, lane, offset } = record
  return { atMs, lane, offset, kind: 'statement', text: statementText(record) }
}

/** The lines of a recording. */
export async function* textLines(file: RecordingFile): AsyncGenerator<TextLine> {
  const reader = new TextReader()
  for await (const frames of readBatches(file)) {
    for (const frame of frames) for (const line of reader.push(frame)) yield line
  }
  for (const line of reader.end()) yield line
}
