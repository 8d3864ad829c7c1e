// A recording as scenes: at this moment this appears on the screen. Replay, live watch and the asciicast
// exports are made of it, for every protocol: a terminal's output passes through the filter of terminal.ts, a
// PostgreSQL session is written out as a person would have seen it in psql, without the rows, the bytes of a
// TCP target as a dump of both directions. Everything in a scene is safe to print.
import { ByteDump, bytesProtocol } from './bytes.ts'
import type { Frame } from './format.ts'
import { inert, inertLine } from './inert.ts'
import { StatementDecoder } from './postgres.ts'
import { parseBody, parseClose, parseHead, readBatches } from './reader.ts'
import type { ReadOptions, RecordingFile } from './reader.ts'
import { frameKind } from './recording.ts'
import type { RecordingHead } from './recording.ts'
import { verdictText } from './statement.ts'
import type { StatementRecord } from './statement.ts'
import { TerminalFilter, terminalReset } from './terminal.ts'

/** A recording with more terminal channels than this is hostile; the others share one filter. */
const lanesMax = 1024
/** Columns or rows of a terminal; nobody has more. */
const sizeMax = 5000
/** Of a parameter so much is shown in a replay; exports have all of it. */
const parameterShownMax = 200
const parametersShownMax = 50
/** Sessions of it are terminals and nothing else; of the others more is half read between frames. */
export const terminalProtocol = 'ssh'
/** A channel's stderr is on its lane with this bit set. */
const stderrLane = 0x8000

export type Scene =
  /** `lane`: the SSH channel; none for what is about the whole session. */
  | { kind: 'text', atMs: number, text: string, lane?: number }
  | { kind: 'resize', atMs: number, columns: number, rows: number, lane?: number }
  /** Something that happened: a warning, a kill, a file. One line. */
  | { kind: 'event', atMs: number, text: string, lane?: number }
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
  const { outcome, results, notices, error, durationMs, verdict, alarm } = record
  const lines = notices.map(notice => `-- ${inertLine(notice)}`)
  if (verdict !== undefined) lines.unshift(`-- ${inertLine(verdictText(verdict))}`)
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

/** What was done to a file, or what another event says. */
function eventText({ type, ...rest }: Record<string, unknown>): string {
  if (type !== 'file') {
    const words = [type, ...Object.values(rest)].filter(value => ['string', 'number'].includes(typeof value))
    return inertLine(words.join(' '))
  }
  const { op, path, to, bytes, sha256, copy, partial, refused, ok, status } = rest
  const facts = [`${String(op)} ${String(path)}${typeof to === 'string' ? ` → ${to}` : ''}`]
  if (typeof bytes === 'number') facts.push(counted(bytes, 'byte'))
  if (typeof sha256 === 'string') facts.push(`sha256 ${sha256}`)
  if (typeof copy === 'number') facts.push(`copy ${copy}`)
  if (partial === true) facts.push('in part')
  if (refused === true) facts.push('refused')
  else if (ok !== true) facts.push(`failed: ${typeof status === 'string' ? status : 'it was not finished'}`)
  return inertLine(facts.join(', '))
}

/** Where a reading can begin again, between two frames: what a screenplay knows then. */
export interface Bookmark {
  head: RecordingHead | undefined
  terminals: readonly number[]
  shownLane: number | undefined
  usedTerminal: boolean
  atMs: number
}

export interface ScreenplayOptions {
  from?: Bookmark | undefined
  /** Only what is of this channel; and of the whole session. */
  lane?: number | undefined
}

/** Feed it the frames in order. Times of scenes never go backwards. */
export class Screenplay {
  readonly #only: number | undefined
  /** Channels with a terminal: the others break lines without a carriage return. */
  readonly #terminals = new Set<number>()
  #shownLane: number | undefined
  readonly #statements = new StatementDecoder()
  readonly #filters = new Map<number, TerminalFilter>()
  readonly #dump = new ByteDump()
  #head: RecordingHead | undefined
  #atMs = 0
  #usedTerminal = false

  constructor(options: ScreenplayOptions = {}) {
    const { from } = options
    this.#only = options.lane
    if (from === undefined) return
    this.#head = from.head
    for (const lane of from.terminals) this.#terminals.add(lane)
    this.#shownLane = from.shownLane
    this.#usedTerminal = from.usedTerminal
    this.#atMs = from.atMs
  }

  /** Undefined where something is half read, and for what is not a terminal. */
  bookmark(): Bookmark | undefined {
    const rests = [...this.#filters.values()].every(filter => filter.atRest)
    if (!rests || this.#head === undefined || this.#head.protocol !== terminalProtocol) return undefined
    return {
      head: this.#head, terminals: [...this.#terminals], shownLane: this.#shownLane,
      usedTerminal: this.#usedTerminal, atMs: this.#atMs
    }
  }

  get head(): RecordingHead | undefined {
    return this.#head
  }

  push(frame: Frame): Scene[] {
    const atMs = frame.atMicroseconds / 1000
    const lane = frame.lane & ~stderrLane
    if (this.#only !== undefined && lane !== this.#only && lane !== 0) return []
    switch (frame.kind) {
      case frameKind.open: {
        this.#head = parseHead(frame.body)
        return []
      }
      case frameKind.input: return this.#isDumped ? this.#dumped(atMs, frame, lane) : []
      case frameKind.output: {
        return this.#isDumped ? this.#dumped(atMs, frame, lane) : this.#output(atMs, frame, lane)
      }
      case frameKind.event: {
        this.#statements.push(frame)
        return this.#event(atMs, frame.body, lane)
      }
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

  #text(atMs: number, text: string, lane = 0): Scene[] {
    return text === '' ? [] : [{ kind: 'text', atMs: this.#monotone(atMs), text, ...lane !== 0 && { lane } }]
  }

  get #isDumped(): boolean {
    return this.#head?.protocol === bytesProtocol
  }

  #dumped(atMs: number, frame: Frame, lane: number): Scene[] {
    return this.#text(atMs, forTerminal(this.#dump.rows(frame)), lane)
  }

  /** When another channel than before prints, a line says which. */
  #output(atMs: number, { lane: raw, body }: Frame, lane: number): Scene[] {
    const shown = this.#filter(raw).write(body)
    if (shown === '') return []
    const before = this.#shownLane ?? lane
    this.#shownLane = lane
    const plain = lane !== 0 && !this.#terminals.has(lane)
    const text = plain ? shown.replace(/\r?\n/g, '\r\n') : shown
    const label: Scene[] = before === lane
      ? []
      : [{ kind: 'event', atMs: this.#monotone(atMs), text: `channel ${lane}` }]
    return [...label, ...this.#text(atMs, text, lane)]
  }

  #event(atMs: number, body: Buffer, lane: number): Scene[] {
    const event = parseBody(body)
    const { type, columns, rows } = event
    const of = lane === 0 ? {} : { lane }
    if (type === 'channel-close') this.#terminals.delete(lane)
    if ((type === 'resize' || type === 'pty') && isSize(columns) && isSize(rows)) {
      if (type === 'pty' && this.#terminals.size < lanesMax) this.#terminals.add(lane)
      return [{ kind: 'resize', atMs: this.#monotone(atMs), columns, rows, ...of }]
    }
    return [{ kind: 'event', atMs: this.#monotone(atMs), text: eventText(event), ...of }]
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

/**
 * The channel that a player can show, which has one screen: the first with a terminal, else the first that
 * printed; and the size of its terminal. Undefined: there are no channels.
 */
export async function mainLane(
  file: RecordingFile
): Promise<{ lane: number, size: RecordingHead['terminal'] } | undefined> {
  let printed: number | undefined
  for await (const frames of readBatches(file)) {
    for (const { kind, lane, body } of frames) {
      if (lane === 0) continue
      if (kind === frameKind.output) printed ??= lane & ~stderrLane
      if (kind !== frameKind.event) continue
      const { type, columns, rows } = parseBody(body)
      if (type === 'pty' && isSize(columns) && isSize(rows)) return { lane, size: { columns, rows } }
    }
  }
  return printed === undefined ? undefined : { lane: printed, size: undefined }
}

/** The scenes of a recording. */
export async function* scenes(
  file: RecordingFile, options: ReadOptions & ScreenplayOptions = {}
): AsyncGenerator<Scene> {
  const screenplay = new Screenplay(options)
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
