// Routes over sessions and their records (D4): list, look, end, replay, watch, export, verify, receipt.
// Whoever is neither auditor nor admin sees the list of their own sessions and nothing of what was recorded.
// Looking into a recording is itself audited, because a recording may hold what the person typed; where it
// lies on another node that one is asked, and named in the audit.
import { z } from 'zod'
import { SallyportError } from '../errors.ts'
import type { RecordingReader } from '../nodes/recordings.ts'
import { exportFormats } from '../recording/export.ts'
import type { ExportFormat } from '../recording/export.ts'
import type { Beginning } from '../recording/moments.ts'
import { recordingSuffix } from '../recording/paths.ts'
import type { Scene } from '../recording/screenplay.ts'
import type { ApiPorts } from './ports.ts'
import type { RecordedLine, SessionRow } from './ports-records.ts'
import { admins, everyone, route, streamRoute, watchers } from './route.ts'
import type { Call, Caller, JsonLines } from './route.ts'
import { searchRoute } from './search.ts'
import type { SessionJson } from './shapes.ts'
import {
  done, pieceShape, receiptJson, receiptShape, sessionId, sessionJson, sessionShape, verifiedJson,
  verifiedShape
} from './shapes.ts'
import { jsonLines, withPulse } from './stream.ts'

/** Sessions in one answer; the next ones are asked for with `before`. */
export const sessionsPerAnswerMax = 1_000
export const eventLines = 'application/x-ndjson'

/** Content type and ending of each format of `export`. */
const exportTypes: Readonly<Record<ExportFormat, { contentType: string, extension: string }>> = {
  'asciicast-v2': { contentType: 'application/x-asciicast', extension: 'cast' },
  'asciicast-v3': { contentType: 'application/x-asciicast', extension: 'cast' },
  'sql': { contentType: 'application/sql', extension: 'sql' },
  'jsonl': { contentType: 'application/x-ndjson', extension: 'jsonl' }
}

const params = z.object({ id: sessionId })
/** Milliseconds since the start of a recording. */
const moment = z.coerce.number<number>().min(0).max(Number.MAX_SAFE_INTEGER).default(0)
const linesBeforeMax = 1_000
const lineCount = z.coerce.number<number>().int().min(0).default(0)
/** The recording's own limit. */
const lanesMax = 0xffff
/** A look that goes on is on record again after this. */
const oneLookMs = 600_000
/** Looks that are remembered; more people than look at once. */
const looksMax = 10_000
const instant = z.iso.datetime({ offset: true }).transform(text => new Date(text))

type ById = Call<{ id: string }, unknown, unknown>

export function sessionRoutes(ports: ApiPorts) {
  return [
    route({
      method: 'get', path: '/sessions', roles: everyone,
      summary: 'Sessions, newest first; whoever is only a user sees their own.',
      query: z.strictObject({
        user: z.string().optional(), credential: z.string().optional(), target: z.string().optional(),
        status: z.enum(['opening', 'live', 'ended', 'refused', 'interrupted']).optional(),
        since: instant.optional(), until: instant.optional(), before: sessionId.optional(),
        limit: z.coerce.number<number>().int().min(1).max(sessionsPerAnswerMax).default(100)
      }),
      response: z.object({ sessions: z.array(sessionShape) }),
      run: async ({ query, caller }) => {
        const own = isWatcher(caller) ? query.user : caller.name
        return { sessions: await sessionsJson(ports, await ports.sessions.list({ ...query, user: own })) }
      }
    }),
    route({
      method: 'get', path: '/sessions/{id}', roles: everyone, summary: 'One session.', params,
      response: sessionShape,
      run: async call => {
        const [session] = await sessionsJson(ports, [await sessionOf(ports, call.params.id, call.caller)])
        return session!
      }
    }),
    route({
      method: 'post', path: '/sessions/{id}/kill', roles: admins, summary: 'Ends a live session at once.',
      params,
      response: done,
      run: async ({ params: { id: session }, caller }) => {
        await sessionOf(ports, session, caller)
        const killed = await ports.sessions.kill(session, caller.name)
        if (killed) await ports.audit.append('session.killed', caller.name, session, {})
        return { done: killed }
      }
    }),
    route({
      method: 'get', path: '/sessions/{id}/verify', roles: watchers,
      summary: 'Checks the hash chain and the seal of a recording.', params,
      response: verifiedShape,
      run: async call => {
        const { row, recordings } = await placed(ports, call)
        const { id: session, recordingHead, recordingBytes } = row
        const expected = { headHash: recordingHead ?? undefined, bytes: recordingBytes ?? undefined }
        return verifiedJson(await recordings.verify(session, expected))
      }
    }),
    route({
      method: 'get', path: '/sessions/{id}/receipt', roles: watchers,
      summary: 'The signed proof of what became of the account of a session.', params,
      response: receiptShape,
      run: async call => {
        await sessionOf(ports, call.params.id, call.caller)
        const receipt = (await ports.sessions.receipts([call.params.id])).get(call.params.id)
        if (receipt !== undefined) return receiptJson(receipt)
        throw new SallyportError('not-found', { detail: `session ${call.params.id} has no receipt (yet)` })
      }
    }),
    searchRoute(ports), pieceRoute(ports), ...streamRoutes(ports)
  ]
}

/** Somebody who plays a recording asks for piece after piece: that is one look, however many it takes. */
function pieceRoute(ports: ApiPorts) {
  const lately = new Map<string, number>()
  return route({
    method: 'get', path: '/sessions/{id}/piece', roles: watchers,
    summary: 'A terminal from a moment on: the screen as it was then, and what came next.', params,
    query: z.strictObject({ from: moment }),
    response: pieceShape,
    run: async call => {
      const place = await placed(ports, call)
      const { row, recordings } = place
      const key = `${call.caller.name} ${row.id}`
      const nowMs = ports.clock.monotonicMs()
      if (nowMs - (lately.get(key) ?? -Infinity) > oneLookMs) {
        await onRecord(ports, call, place, 'session.replayed', { from: call.query.from })
        if (lately.size >= looksMax) lately.clear()
        lately.set(key, nowMs)
      }
      const { durationMs = null, scenes, ...piece } =
        await recordings.piece(row.id, call.query.from, call.signal)
      return { ...piece, durationMs, scenes: [...scenes] }
    }
  })
}

function streamRoutes(ports: ApiPorts) {
  return [
    streamRoute({
      method: 'get', path: '/sessions/{id}/events', roles: watchers,
      summary: 'What was recorded, one JSON object a line, with its time since the start; `after`, `limit`: '
        + 'so many lines without the first ones.',
      params,
      query: z.strictObject({
        after: lineCount, limit: z.coerce.number<number>().int().min(1).optional()
      }),
      response: { stream: [eventLines] },
      run: async call => {
        const { after, limit } = call.query
        const detail = after === 0 ? {} : { after }
        const { row, recordings } = await looked(ports, call, 'session.replayed', detail)
        return { contentType: eventLines, chunks: jsonLines(sliced(recordings.scenes(row.id), after, limit)) }
      }
    }),
    streamRoute({
      method: 'get', path: '/sessions/{id}/statements', roles: watchers,
      summary: 'Statements and events from a moment on, with the last few before it.', params,
      query: z.strictObject({
        from: moment, before: z.coerce.number<number>().int().min(0).max(linesBeforeMax).default(0)
      }),
      response: { stream: [eventLines] },
      run: async call => {
        const { from, before } = call.query
        const { row, recordings } = await looked(ports, call, 'session.replayed', { from })
        return { contentType: eventLines, chunks: linesOf(recordings.linesFrom(row.id, from, before)) }
      }
    }),
    streamRoute({
      method: 'get', path: '/sessions/{id}/watch', roles: watchers,
      summary: 'The same of a live session, as it happens, to its end; `after`: without so many lines. '
        + '`begin=now`: first how it stands (of a terminal, the screen of `lane`), then what happens, and an '
        + 'empty line where nothing does.',
      params,
      query: z.strictObject({
        after: lineCount, begin: z.literal('now').optional(),
        lane: z.coerce.number<number>().int().min(1).max(lanesMax).optional()
      }),
      response: { stream: [eventLines] },
      run: async call => {
        const { after, begin, lane } = call.query
        const { row, recordings } = await looked(ports, call, 'session.watched')
        const isNow = begin === 'now'
        const told: AsyncIterable<Beginning | Scene> = isNow
          ? recordings.live(row.id, { after, lane }, call.signal)
          : sliced(recordings.follow(row.id, call.signal), after)
        const lines = jsonLines(told)
        const chunks: JsonLines<Beginning | Scene> = isNow ? withPulse(lines, ports.clock) : lines
        return { contentType: eventLines, live: true, chunks }
      }
    }),
    streamRoute({
      method: 'get', path: '/sessions/{id}/export', roles: watchers,
      summary: 'A recording in another format.', params,
      query: z.strictObject({ format: z.enum(exportFormats) }),
      response: { stream: [...new Set(Object.values(exportTypes).map(({ contentType }) => contentType))] },
      run: async call => {
        const { format } = call.query
        const { row, recordings } = await looked(ports, call, 'session.exported', { format })
        const { contentType, extension } = exportTypes[format]
        const chunks = recordings.export(row.id, format)
        return { contentType, fileName: `${row.id}.${extension}`, chunks }
      }
    }),
    streamRoute({
      method: 'get', path: '/sessions/{id}/files/{copy}', roles: watchers,
      summary: 'The copy of a file that was transferred, as far as it was kept.',
      params: z.object({ id: z.string(), copy: z.coerce.number<number>().int().min(1) }),
      response: { stream: ['application/octet-stream'] },
      run: async call => {
        const { id, copy } = call.params
        const { recordings } = await looked(ports, call, 'session.exported', { format: 'file', copy })
        const chunks = recordings.fileCopy(id, copy)
        return { contentType: 'application/octet-stream', fileName: `${id}-file-${copy}`, chunks }
      }
    }),
    streamRoute({
      method: 'get', path: '/sessions/{id}/recording', roles: watchers,
      summary: 'The recording as it is on the disk, for `sessions verify FILE`.', params,
      response: { stream: ['application/octet-stream'] },
      run: async call => {
        const detail = { format: 'recording' }
        const { row, recordings, servedBy } = await looked(ports, call, 'session.exported', detail)
        const { recordingHead: head, recordingBytes: bytes } = row
        // Only what is sealed stays as it is.
        const parts = head === null || bytes === null || bytes === 0
          ? undefined
          : {
              bytes, tag: `"${head}"`,
              read: (start: number, end: number) => recordings.raw(row.id, { start, end })
            }
        // Another node is held to the length that we promise.
        const chunks = servedBy === undefined || parts === undefined
          ? recordings.raw(row.id)
          : parts.read(0, parts.bytes - 1)
        const fileName = row.id + recordingSuffix
        return { contentType: 'application/octet-stream', fileName, chunks, parts }
      }
    })
  ]
}

function isWatcher(caller: Caller): boolean {
  return caller.roles.some(role => watchers.includes(role))
}

/** The row, for whoever may see it; throws `not-found`, also for somebody else's. */
async function sessionOf(ports: ApiPorts, session: string, caller: Caller): Promise<SessionRow> {
  const row = await ports.sessions.get(session)
  if (row !== undefined && (isWatcher(caller) || row.user === caller.name)) return row
  throw new SallyportError('not-found', { detail: `no session ${session}` })
}

async function sessionsJson(ports: ApiPorts, rows: readonly SessionRow[]): Promise<SessionJson[]> {
  const accounts = rows.map(row => row.account).filter(account => account !== null)
  const [receipts, states] = await Promise.all([
    ports.sessions.receipts(rows.map(row => row.id)), ports.sessions.accountStates([...new Set(accounts)])
  ])
  return rows.map(row => sessionJson(row, receipts.get(row.id), states.get(row.account ?? '')))
}

/** A session, and where its recording is read. */
interface Placed {
  row: SessionRow
  recordings: RecordingReader
  /** The other node that has it. */
  servedBy?: string
}

/** Here where it lies here, though another node recorded it: all may have one folder. */
async function placed(ports: ApiPorts, { params, caller, signal }: ById): Promise<Placed> {
  const row = await sessionOf(ports, params.id, caller)
  if (row.node === ports.node || ports.recordings.has(row.id)) return { row, recordings: ports.recordings }
  const held = await ports.nodes.holding(row.id, row.node, { person: caller.name, signal })
  return { row, recordings: held.recordings, servedBy: held.node }
}

async function onRecord(
  { audit }: ApiPorts, { caller }: ById, { row, servedBy }: Placed, kind: string,
  detail: Record<string, unknown>
): Promise<void> {
  await audit.append(kind, caller.name, row.id, { ...detail, ...servedBy === undefined ? {} : { servedBy } })
}

async function looked(
  ports: ApiPorts, call: ById, kind: string, detail: Record<string, unknown> = {}
): Promise<Placed> {
  const place = await placed(ports, call)
  await onRecord(ports, call, place, kind, detail)
  return place
}

/** What another node has written out is passed on as it comes. */
function linesOf(chunks: ReturnType<RecordingReader['linesFrom']>): JsonLines<RecordedLine> {
  return chunks as JsonLines<RecordedLine>
}

async function* sliced(
  scenes: AsyncIterable<Scene>, after: number, limit = Infinity
): AsyncGenerator<Scene> {
  let seen = 0
  for await (const scene of scenes) {
    if (++seen > after) yield scene
    if (seen >= after + limit) return
  }
}
