// Lists and searches the recordings of a folder, without any database: what is in the files is what is shown.
// A search skips recordings whose head does not fit and those whose index says that the text cannot be in
// them, and reads the rest. Everything that a session wrote comes back inert (inert.ts).
import { inertLine } from './inert.ts'
import { allRecordings, locate, resolveBeneath, sessionOf } from './paths.ts'
import { RecordingFile } from './reader.ts'
import type { CloseNote } from './reader.ts'
import type { RecordingHead } from './recording.ts'
import { folded, indexOf, mayContain } from './sidecar.ts'
import { textLines } from './text.ts'
import type { TextLine } from './text.ts'
import { SallyportError } from '../errors.ts'

/** Hits of one search; somebody who gets more has asked for too little. */
const hitsMax = 1000
/** Of one recording so many, so that a busy one does not hide the others. */
const hitsPerRecordingMax = 100
const excerptBefore = 60
const excerptLength = 200
export const queryLengthMax = 1000

export interface RecordingFilters {
  session?: string | undefined
  user?: string | undefined
  credential?: string | undefined
  target?: string | undefined
  protocol?: string | undefined
  /** ISO 8601: sessions that started at or after, and before. */
  from?: string | undefined
  to?: string | undefined
}

export interface ListedRecording {
  session: string
  /** Relative to the recordings folder. */
  path: string
  head: RecordingHead
  bytes: number
  /** Undefined: not sealed, thus still running or crashed. Not verified here. */
  close: CloseNote | undefined
  durationMs: number | undefined
}

export interface Hit {
  session: string
  path: string
  head: RecordingHead
  /** Milliseconds since the start; `at` is the same as ISO time by the head. */
  atMs: number
  at: string
  lane: number
  offset: number
  kind: TextLine['kind']
  /** Around the place where it was found; one line, inert. */
  text: string
}

export interface SearchOptions {
  dir: string
  query: string
  filters?: RecordingFilters | undefined
  /** False: read every recording, whatever the indexes say. */
  useIndex?: boolean | undefined
  hitsMax?: number | undefined
  signal?: AbortSignal | undefined
}

/** Opens the recording of a session. @throws SallyportError `not-found`, `invalid` */
export function openRecording(dir: string, session: string): RecordingFile {
  const path = locate(dir, session)
  if (path === undefined) throw new SallyportError('not-found', { detail: `no recording of ${session}` })
  return new RecordingFile(resolveBeneath(dir, path))
}

/** ISO time of a moment of a recording. Empty when its head has no sensible start. */
export function timeOf(head: RecordingHead, atMs: number): string {
  const startedMs = Date.parse(head.startedAt)
  // Beyond this no Date exists.
  if (!Number.isFinite(startedMs) || Math.abs(startedMs + atMs) > 8.64e15) return ''
  return new Date(startedMs + atMs).toISOString()
}

function fits(head: RecordingHead, filters: RecordingFilters): boolean {
  const { from, to } = filters
  for (const key of ['session', 'user', 'credential', 'target', 'protocol'] as const) {
    if (filters[key] !== undefined && filters[key] !== head[key]) return false
  }
  const started = Date.parse(head.startedAt)
  return (from === undefined || started >= Date.parse(from)) && (to === undefined || started < Date.parse(to))
}

/** A day folder that ends before `from` or begins after `to` need not be opened. */
function dayFits(path: string, { from, to }: RecordingFilters): boolean {
  const day = path.slice(0, 10).replaceAll('/', '-')
  if (from !== undefined && day < new Date(Date.parse(from)).toISOString().slice(0, 10)) return false
  return to === undefined || day <= new Date(Date.parse(to)).toISOString().slice(0, 10)
}

function checkFilters(filters: RecordingFilters): void {
  for (const key of ['from', 'to'] as const) {
    if (filters[key] !== undefined && !Number.isFinite(Date.parse(filters[key]))) {
      throw new SallyportError('invalid', { problems: [`${key}: not a time`] })
    }
  }
}

interface Match {
  file: RecordingFile
  listed: ListedRecording
}

/** Files that cannot be read as recordings are left out: `verify` tells what is wrong with them. */
function* matching(dir: string, filters: RecordingFilters): Generator<Match> {
  for (const path of allRecordings(dir)) {
    const session = sessionOf(path)
    if (session === undefined || !dayFits(path, filters)) continue
    if (filters.session !== undefined && filters.session !== session) continue
    let file: RecordingFile
    try {
      file = new RecordingFile(resolveBeneath(dir, path))
    } catch {
      continue
    }
    try {
      const head = file.head()
      if (head === undefined || !fits(head, filters)) continue
      const ending = file.ending()
      const { bytes } = file
      const { close, durationMs } = ending ?? { close: undefined, durationMs: undefined }
      yield { file, listed: { session, path, head, bytes, close, durationMs } }
    } finally {
      file.close()
    }
  }
}

/** The recordings of a folder, the newest day first. @throws SallyportError `invalid` for a filter. */
export function* listRecordings(dir: string, filters: RecordingFilters = {}): Generator<ListedRecording> {
  checkFilters(filters)
  for (const { listed } of matching(dir, filters)) yield listed
}

/** Looks for a text, without case, in statements and output. @throws SallyportError `invalid` */
export async function* search(options: SearchOptions): AsyncGenerator<Hit> {
  const { dir, filters = {}, useIndex = true, signal } = options
  checkFilters(filters)
  const query = folded(options.query).trim()
  if (query === '' || query.length > queryLengthMax) {
    throw new SallyportError('invalid', { problems: [`query: 1 to ${queryLengthMax} characters`] })
  }
  let left = options.hitsMax ?? hitsMax
  for (const { file, listed } of matching(dir, filters)) {
    if (signal?.aborted === true || left <= 0) return
    // Only what is finished has an index that stays true.
    if (useIndex && listed.close !== undefined && !mayContain(await indexOf(file), query)) continue
    for await (const hit of searchFile(file, listed, query, Math.min(left, hitsPerRecordingMax), signal)) {
      yield hit
      left--
    }
  }
}

async function* searchFile(
  file: RecordingFile, listed: ListedRecording, query: string, count: number, signal: AbortSignal | undefined
): AsyncGenerator<Hit> {
  const { session, path, head } = listed
  let found = 0
  for await (const { atMs, lane, offset, kind, text } of textLines(file)) {
    // Of gigabytes in which nothing is found as well.
    if (signal?.aborted === true) return
    const line = folded(text)
    const place = line.indexOf(query)
    if (place < 0) continue
    const at = timeOf(head, atMs)
    yield { session, path, head, atMs, at, lane, offset, kind, text: excerpt(line, text, place) }
    found++
    if (found >= count) return
  }
}

/** From the text as it was written where folding changed no lengths; else from the folded one. */
function excerpt(line: string, text: string, place: number): string {
  const written = text.replace(/\s+/g, ' ')
  const from = Math.max(0, place - excerptBefore)
  const shown = (written.length === line.length ? written : line).slice(from, from + excerptLength)
  return `${from > 0 ? '…' : ''}${inertLine(shown)}${from + excerptLength < line.length ? '…' : ''}`
}
