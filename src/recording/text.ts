// The text of a recording as lines, for search and its index: statements with parameters and errors, what
// terminals showed, and events. Passwords in SQL are masked here already, so that neither the index nor a hit
// holds one. What was typed (`input` frames) is left out: passwords are typed without an echo, and what has
// an echo is in the output. Of a TCP target it is the printable runs of both directions (bytes.ts).
import { TextRuns, bytesProtocol, isBytes } from './bytes.ts'
import type { Run } from './bytes.ts'
import type { Frame } from './format.ts'
import { StatementDecoder } from './postgres.ts'
import { parseBody, parseHead, readBatches } from './reader.ts'
import type { RecordingFile } from './reader.ts'
import { frameKind } from './recording.ts'
import { verdictText } from './statement.ts'
import type { StatementRecord } from './statement.ts'
import { Screen } from './screen.ts'
import { TerminalFilter } from './terminal.ts'

/** A line without an end is handed out in pieces of this length. */
const lineMax = 16 * 1024
/** A recording with more terminal channels than this is hostile; the others share one. */
const lanesMax = 1024
/** A full screen of 500 times 500 cells takes some megabytes; further terminals are read line by line. */
const screensMax = 32

export interface TextLine {
  /** Milliseconds since the start. */
  atMs: number
  lane: number
  /** Offset of the frame in which the line begins. */
  offset: number
  /** `input`: of TCP targets only. */
  kind: 'statement' | 'input' | 'output' | 'event'
  text: string
}

// What the filter lets pass of escape sequences; those that move to another line count as a line break.
const lineBreaks = /\x1b\[[\d;]*[ABEFHdf]|\x1b[DEM]|[\r\n]+/g
const otherSequences = /\x1b(?:\[[?\d;:]*[@-~]|[()*+][0AB]|[78H])|\x08/g

interface OpenLine {
  filter: TerminalFilter
  /** Of a lane with a terminal: lines are what stood there. */
  screen: Screen | undefined
  atMs: number
  offset: number
  text: string
}

/** Everything of a statement that can be searched, in one text. */
export function statementText(record: StatementRecord): string {
  const { sql, parameters, results, error, notices, verdict } = record
  const parts = [
    sql,
    ...parameters.filter(value => value !== null),
    ...results.map(result => result.tag),
    ...error === undefined ? [] : [error.sqlstate, error.message, error.detail ?? '', error.hint ?? ''],
    ...notices, ...verdict === undefined ? [] : [verdictText(verdict)]
  ]
  return parts.filter(part => part !== '').join('\n')
}

/** Feed it the frames in order. */
export class TextReader {
  readonly #statements = new StatementDecoder()
  readonly #lanes = new Map<number, OpenLine>()
  /** Of a TCP target. */
  #runs: TextRuns | undefined
  #drawn: TextLine[] = []
  #screens = 0

  push(frame: Frame): TextLine[] {
    if (this.#runs !== undefined && isBytes(frame)) return this.#runs.push(frame).map(lineOfRun)
    switch (frame.kind) {
      case frameKind.open:
        if (parseHead(frame.body).protocol === bytesProtocol) this.#runs = new TextRuns()
        return []
      case frameKind.statement:
      case frameKind.result: return this.#statements.push(frame).map(toLine)
      case frameKind.output: return this.#output(frame)
      case frameKind.event: {
        this.#statements.push(frame)
        const event = parseBody(frame.body)
        const words = Object.values(event).filter(value => typeof value === 'string')
        const line: TextLine = { ...placeOf(frame), kind: 'event', text: words.join(' ') }
        const runs = event['type'] === 'channel-close' ? this.#runs?.end(frame.lane) ?? [] : []
        return [...runs.map(lineOfRun), ...this.#sized(frame, event), line]
      }
      default: return []
    }
  }

  end(): TextLine[] {
    const open = [...this.#lanes].flatMap(([lane, line]) => this.#rest(lane, line))
    const runs = this.#runs?.end().map(lineOfRun) ?? []
    return [...this.#statements.end().map(toLine), ...open, ...runs]
  }

  /** A terminal gets a screen; a channel that ends gives its place to the next one on its lane. */
  #sized(frame: Frame, { type, columns, rows }: Record<string, unknown>): TextLine[] {
    const line = this.#lanes.get(frame.lane)
    if (type === 'channel-close') {
      this.#lanes.delete(frame.lane)
      return line === undefined ? [] : this.#rest(frame.lane, line)
    }
    if (typeof columns !== 'number' || typeof rows !== 'number') return []
    if (type === 'resize') line?.screen?.resize(columns, rows)
    if (type !== 'pty' || line !== undefined || this.#screens >= screensMax) return []
    const { lane, atMs, offset } = placeOf(frame)
    const screen = new Screen(columns, rows, (text, place) => {
      for (let at = 0; at < text.length; at += lineMax) {
        this.#drawn.push({ ...place, lane, kind: 'output', text: text.slice(at, at + lineMax) })
      }
    })
    this.#screens++
    this.#lanes.set(lane, { filter: new TerminalFilter(), screen, atMs, offset, text: '' })
    return []
  }

  #rest(lane: number, { filter, screen, atMs, offset, text: begun }: OpenLine): TextLine[] {
    if (screen !== undefined) {
      screen.write(filter.end(), { atMs, offset })
      screen.end()
      this.#screens--
      return this.#takeDrawn()
    }
    const text = begun + filter.end().replace(otherSequences, '')
    return text === '' ? [] : [{ atMs, lane, offset, kind: 'output', text }]
  }

  #takeDrawn(): TextLine[] {
    const drawn = this.#drawn
    this.#drawn = []
    return drawn
  }

  #output(frame: Frame): TextLine[] {
    const lane = this.#lanes.has(frame.lane) || this.#lanes.size < lanesMax ? frame.lane : 0
    const { atMs, offset } = placeOf(frame)
    const line = this.#lanes.get(lane) ??
      { filter: new TerminalFilter(), screen: undefined, atMs, offset, text: '' }
    this.#lanes.set(lane, line)
    if (line.screen !== undefined) {
      line.screen.write(line.filter.write(frame.body), { atMs, offset })
      return this.#takeDrawn()
    }
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

function lineOfRun({ frame, direction: kind, text }: Run): TextLine {
  return { ...placeOf(frame), kind, text }
}

function placeOf(frame: Run['frame']): { atMs: number, lane: number, offset: number } {
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
