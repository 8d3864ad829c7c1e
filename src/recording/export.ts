// A recording in the formats of others: asciicast v2 and v3 (docs.asciinema.org), an SQL file, JSON lines.
// Pieces of text, to be written one after the other. All of it is safe to look at on a terminal: hazards are
// inert or escaped. Typed input is left out unless it is asked for: people type passwords.
import { randomBytes } from 'node:crypto'
import { SallyportError } from '../errors.ts'
import { bytesProtocol } from './bytes.ts'
import { timeOf } from './catalog.ts'
import { inert, inertJson, inertLine } from './inert.ts'
import { StatementDecoder } from './postgres.ts'
import { parseBody, parseClose, readBatches } from './reader.ts'
import type { RecordingFile } from './reader.ts'
import { frameKind } from './recording.ts'
import type { RecordingHead } from './recording.ts'
import type { Frame } from './format.ts'
import { mainLane, outcomeText, scenes } from './screenplay.ts'
import type { Scene } from './screenplay.ts'
import type { StatementRecord } from './statement.ts'

export const exportFormats = ['asciicast-v2', 'asciicast-v3', 'sql', 'jsonl'] as const
export type ExportFormat = typeof exportFormats[number]

export interface ExportOptions {
  /** `jsonl`: typed input too. It holds what was typed without an echo. */
  withInput?: boolean | undefined
}

/** What a terminal has that said nothing about its size. */
export const defaultSize = { columns: 80, rows: 24 }

/** The export, piece by piece. @throws SallyportError `invalid` when the recording has no head */
export function exportAs(
  file: RecordingFile, format: ExportFormat, options: ExportOptions = {}
): AsyncGenerator<string> {
  const head = file.head()
  if (head === undefined) throw new SallyportError('invalid', { detail: 'it breaks off before its head' })
  switch (format) {
    case 'asciicast-v2': return asciicast(file, head, 2)
    case 'asciicast-v3': return asciicast(file, head, 3)
    case 'sql': return sql(file, head)
    case 'jsonl': return jsonLines(file, head, options)
  }
}

/** How many lines were left out in front of those that follow. */
export interface Skipped {
  type: 'skipped'
  count: number
}

/**
 * Statements, events and the end as JSON lines, from a moment on: the last few before it, and first of all a
 * `Skipped`. @throws SallyportError `invalid` when the recording has no head
 */
export async function* linesFrom(
  file: RecordingFile, fromMs: number, before: number
): AsyncGenerator<string> {
  const head = file.head()
  if (head === undefined) throw new SallyportError('invalid', { detail: 'it breaks off before its head' })
  let early: Record<string, unknown>[] | undefined = []
  let count = 0
  const begin = (): string => {
    const lines = [{ type: 'skipped', count } satisfies Skipped, ...early ?? []]
    early = undefined
    return lines.map(each => `${inertJson(each)}\n`).join('')
  }
  for await (const line of jsonObjects(file, head, {})) {
    if (!['statement', 'event', 'close'].includes(String(line['type']))) continue
    if (early !== undefined && Number(line['atMs']) < fromMs) {
      early.push(line)
      if (early.length <= before) continue
      early.shift()
      count++
      continue
    }
    if (early !== undefined) yield begin()
    yield `${inertJson(line)}\n`
  }
  if (early !== undefined) yield begin()
}

// ---- asciicast

function castHead(
  head: RecordingHead, version: 2 | 3, size: RecordingHead['terminal']
): Record<string, unknown> {
  const { columns, rows } = head.terminal ?? size ?? defaultSize
  const started = Math.floor(Date.parse(head.startedAt) / 1000)
  const timestamp = Number.isFinite(started) ? { timestamp: started } : {}
  const title = inertLine(`${head.user} as ${head.credential} on ${head.target}, session ${head.session}`)
  return version === 2
    ? { version, width: columns, height: rows, ...timestamp, title, env: { TERM: 'xterm-256color' } }
    : { version, term: { cols: columns, rows, type: 'xterm-256color' }, ...timestamp, title }
}

function castEvent(scene: Scene): [code: string, data: string] {
  switch (scene.kind) {
    case 'text': return ['o', scene.text]
    case 'resize': return ['r', `${scene.columns}x${scene.rows}`]
    case 'event':
    case 'end': return ['m', scene.text]
  }
}

/**
 * Version 2 counts from the start, version 3 from the event before. A player has one screen, so of several
 * channels one is shown; JSON lines have all of them.
 */
async function* asciicast(file: RecordingFile, head: RecordingHead, version: 2 | 3): AsyncGenerator<string> {
  const main = await mainLane(file)
  yield `${inertJson(castHead(head, version, main?.size))}\n`
  // In whole microseconds, so that rounding does not add up.
  let before = 0
  for await (const scene of scenes(file, { lane: main?.lane })) {
    const at = Math.round(scene.atMs * 1000)
    const seconds = (version === 2 ? at : at - before) / 1e6
    before = at
    yield `${inertJson([seconds, ...castEvent(scene)])}\n`
  }
}

// ---- SQL

/** So that `psql -f` obeys no `\!` that a session wrote: between these only SQL counts (pg_dump does so). */
function restriction(): { open: string, close: string } {
  const key = randomBytes(24).toString('hex')
  return { open: `\\restrict ${key}\n`, close: `\\unrestrict ${key}\n` }
}

function sqlStatement(head: RecordingHead, record: StatementRecord): string {
  const where = `+${(record.atMs / 1000).toFixed(3)} s${record.lane === 0 ? '' : `, lane ${record.lane}`}`
  const lines = [`\n-- ${timeOf(head, record.atMs)} ${where}, ${record.kind}`]
  record.parameters.forEach((value, index) => {
    const literal = value === null ? 'NULL' : `'${value.replaceAll("'", "''")}'`
    lines.push(`--   $${index + 1} = ${inertLine(literal)}`)
  })
  const text = inert(record.sql)
  const ran = record.outcome === 'ok' && (record.kind === 'query' || record.kind === 'execute') && !record.cut
  if (ran) lines.push(/;\s*$/.test(text) ? text : `${text}\n;`)
  else if (text !== '') lines.push(...text.split('\n').map(line => `-- ${line}`))
  const outcome = outcomeText(record)
  if (outcome !== '') lines.push(outcome)
  return `${lines.join('\n')}\n`
}

async function* sql(file: RecordingFile, head: RecordingHead): AsyncGenerator<string> {
  const { open, close } = restriction()
  const who = inertLine(`${head.user} as ${head.credential} on ${head.target}, from ${head.address}`)
  yield `-- Sallyport session ${inertLine(head.session)}, started ${inertLine(head.startedAt)}\n`
  yield `-- ${who}\n${open}`
  const decoder = new StatementDecoder()
  for await (const frames of readBatches(file)) {
    for (const frame of frames) for (const record of decoder.push(frame)) yield sqlStatement(head, record)
  }
  for (const record of decoder.end()) yield sqlStatement(head, record)
  yield `\n${close}`
}

// ---- JSON lines

function jsonFrame(
  head: RecordingHead, frame: Frame, withInput: boolean
): Record<string, unknown> | undefined {
  const atMs = frame.atMicroseconds / 1000
  const place = { at: timeOf(head, atMs), atMs, lane: frame.lane }
  switch (frame.kind) {
    case frameKind.open: return { type: 'open', ...head }
    case frameKind.input:
    case frameKind.output: {
      const type = frame.kind === frameKind.input ? 'input' : 'output'
      // Half of what is on record of a TCP target; nobody's keyboard is behind it.
      if (type === 'input' && !withInput && head.protocol !== bytesProtocol) return undefined
      return { type, ...place, text: frame.body.toString('utf8'), bytes: frame.body.toString('base64') }
    }
    case frameKind.event: {
      const { type: event, ...rest } = parseBody(frame.body)
      return { ...rest, type: 'event', event, ...place }
    }
    case frameKind.close: return { ...place, ...parseClose(frame.body), type: 'close' }
    default: return undefined
  }
}

async function* jsonLines(
  file: RecordingFile, head: RecordingHead, options: ExportOptions
): AsyncGenerator<string> {
  for await (const line of jsonObjects(file, head, options)) yield `${inertJson(line)}\n`
}

async function* jsonObjects(
  file: RecordingFile, head: RecordingHead, options: ExportOptions
): AsyncGenerator<Record<string, unknown>> {
  const decoder = new StatementDecoder()
  const statement = (record: StatementRecord): Record<string, unknown> =>
    ({ type: 'statement', at: timeOf(head, record.atMs), ...record })
  for await (const frames of readBatches(file)) {
    for (const frame of frames) {
      for (const record of decoder.push(frame)) yield statement(record)
      // What never got an answer stands before the end.
      if (frame.kind === frameKind.close) for (const record of decoder.end()) yield statement(record)
      const value = jsonFrame(head, frame, options.withInput === true)
      if (value !== undefined) yield value
    }
  }
  for (const record of decoder.end()) yield statement(record)
}
