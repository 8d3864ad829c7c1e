// Routes over sessions and their records (D4): list, look, end, replay, watch, export, search, verify,
// receipt. Whoever is neither auditor nor admin sees the list of their own sessions and nothing of what was
// recorded. Looking into a recording is itself audited, because a recording may hold what the person typed.
import { z } from 'zod'
import { sleep } from '../clock.ts'
import type { Clock } from '../clock.ts'
import { SallyportError, asSallyportError } from '../errors.ts'
import { exportFormats } from '../recording/export.ts'
import type { ExportFormat } from '../recording/export.ts'
import { inertLine } from '../recording/inert.ts'
import type { Beginning } from '../recording/moments.ts'
import { recordingSuffix } from '../recording/paths.ts'
import type { Scene } from '../recording/screenplay.ts'
import type { ApiPorts } from './ports.ts'
import type { SessionRow } from './ports-records.ts'
import { admins, everyone, route, streamRoute, watchers } from './route.ts'
import type { Call, Caller, JsonLines } from './route.ts'
import type { SessionJson } from './shapes.ts'
import {
  done, hitShape, pieceShape, receiptJson, receiptShape, sessionJson, sessionShape, verifiedJson,
  verifiedShape
} from './shapes.ts'
import { jsonLines } from './stream.ts'

/** Sessions in one answer; the next ones are asked for with `before`. */
export const sessionsPerAnswerMax = 1_000
const hitsPerAnswerMax = 1_000
export const eventLines = 'application/x-ndjson'

/** Content type and ending of each format of `export`. */
const exportTypes: Readonly<Record<ExportFormat, { contentType: string, extension: string }>> = {
  'asciicast-v2': { contentType: 'application/x-asciicast', extension: 'cast' },
  'asciicast-v3': { contentType: 'application/x-asciicast', extension: 'cast' },
  'sql': { contentType: 'application/sql', extension: 'sql' },
  'jsonl': { contentType: 'application/x-ndjson', extension: 'jsonl' }
}

/** What session ids look like (session/id.ts); anything else is not even looked up. */
const id = z.string().regex(/^[0-9a-z]{8,40}$/, 'expected a session id')
const params = z.object({ id })
/** Milliseconds since the start of a recording. */
const moment = z.coerce.number<number>().min(0).max(Number.MAX_SAFE_INTEGER).default(0)
const linesBeforeMax = 1_000
const lineCount = z.coerce.number<number>().int().min(0).default(0)
/** The recording's own limit. */
const lanesMax = 0xffff
/** A live line on which nothing happens says so as often. */
const pulseMs = 10_000
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
        since: instant.optional(), until: instant.optional(), before: id.optional(),
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
        const row = await sessionOf(ports, call.params.id, call.caller)
        const { id: session, recordingHead, recordingBytes } = row
        const expected = { headHash: recordingHead ?? undefined, bytes: recordingBytes ?? undefined }
        return verifiedJson(await recorded(ports, row, () => ports.recordings.verify(session, expected)))
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
    route({
      method: 'get', path: '/search', roles: watchers,
      summary: 'Full-text search over statements and output of recordings.',
      query: z.strictObject({
        query: z.string().min(1).max(1024), session: id.optional(),
        limit: z.coerce.number<number>().int().min(1).max(hitsPerAnswerMax).default(100)
      }),
      response: z.object({ hits: z.array(hitShape) }),
      run: async ({ query: { query, session, limit }, caller, signal }) => {
        await ports.audit.append('recordings.searched', caller.name, session ?? '*', { query })
        const hits: z.output<typeof hitShape>[] = []
        for await (const hit of ports.recordings.search({ query, limit, session, signal })) {
          const { user, credential, target } = hit.head
          const who = { user: inertLine(user), credential: inertLine(credential), target: inertLine(target) }
          hits.push({ ...hit, ...who })
        }
        return { hits }
      }
    }),
    pieceRoute(ports), ...streamRoutes(ports)
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
      const row = await sessionOf(ports, call.params.id, call.caller)
      const key = `${call.caller.name} ${row.id}`
      const nowMs = ports.clock.monotonicMs()
      if (nowMs - (lately.get(key) ?? -Infinity) > oneLookMs) {
        await ports.audit.append('session.replayed', call.caller.name, row.id, { from: call.query.from })
        if (lately.size >= looksMax) lately.clear()
        lately.set(key, nowMs)
      }
      const { durationMs = null, scenes, ...piece } = await recorded(ports, row, () =>
        ports.recordings.piece(row.id, call.query.from, call.signal))
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
        const row = await looked(ports, call, 'session.replayed', after === 0 ? {} : { after })
        const scenes = await recorded(ports, row, () => ports.recordings.scenes(row.id))
        return { contentType: eventLines, chunks: jsonLines(sliced(scenes, after, limit)) }
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
        const row = await looked(ports, call, 'session.replayed', { from })
        const chunks = await recorded(ports, row, () => ports.recordings.linesFrom(row.id, from, before))
        return { contentType: eventLines, chunks }
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
        const row = await looked(ports, call, 'session.watched')
        const isNow = begin === 'now'
        const told: AsyncIterable<Beginning | Scene> = await recorded(ports, row, () => isNow
          ? ports.recordings.live(row.id, { after, lane }, call.signal)
          : sliced(ports.recordings.follow(row.id, call.signal), after))
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
        const row = await looked(ports, call, 'session.exported', { format: call.query.format })
        const { contentType, extension } = exportTypes[call.query.format]
        const chunks = await recorded(ports, row, () => ports.recordings.export(row.id, call.query.format))
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
        await looked(ports, call, 'session.exported', { format: 'file', copy })
        const chunks = ports.recordings.fileCopy(id, copy)
        return { contentType: 'application/octet-stream', fileName: `${id}-file-${copy}`, chunks }
      }
    }),
    streamRoute({
      method: 'get', path: '/sessions/{id}/recording', roles: watchers,
      summary: 'The recording as it is on the disk, for `sessions verify FILE`.', params,
      response: { stream: ['application/octet-stream'] },
      run: async call => {
        const row = await looked(ports, call, 'session.exported', { format: 'recording' })
        const chunks = await recorded(ports, row, () => ports.recordings.raw(row.id))
        const { recordingHead: head, recordingBytes: bytes } = row
        // Only what is sealed stays as it is.
        const parts = head === null || bytes === null || bytes === 0
          ? undefined
          : {
              bytes, tag: `"${head}"`,
              read: (start: number, end: number) => ports.recordings.raw(row.id, { start, end })
            }
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

async function looked(
  ports: ApiPorts, call: ById, kind: string, detail: Record<string, unknown> = {}
): Promise<SessionRow> {
  const row = await sessionOf(ports, call.params.id, call.caller)
  await ports.audit.append(kind, call.caller.name, row.id, detail)
  return row
}

/** Each node has the recordings of its own sessions, unless all have one folder. */
async function recorded<T>(
  { node }: ApiPorts, row: SessionRow, act: () => T | Promise<T>
): Promise<T> {
  try {
    return await act()
  } catch (thrown) {
    if (row.node === node || asSallyportError(thrown).code !== 'not-found') throw thrown
    throw new SallyportError('recorded-elsewhere', { detail: `node ${row.node}` })
  }
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

/** Whoever hears nothing for longer than this knows that the line is dead. */
async function* withPulse(lines: AsyncIterable<string>, clock: Clock): AsyncGenerator<string> {
  const chunks = lines[Symbol.asyncIterator]()
  try {
    for (let next = chunks.next(); ;) {
      const stop = new AbortController()
      const said = await Promise.race([next, sleep(clock, pulseMs, stop.signal)])
      stop.abort()
      if (said?.done === true) return
      yield said === undefined ? '\n' : said.value
      if (said !== undefined) next = chunks.next()
    }
  } finally {
    await chunks.return?.()
  }
}
