// The addresses at which other nodes ask this one for the recordings that lie here. They are no routes of the
// API: no token opens them, only a ticket of a node of this installation (nodes/trust.ts), and they are in no
// document. The node that asks has judged the person and has the look on record; here nothing is asked
// further, so no question can go round in a circle.
import type { Context, Hono } from 'hono'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import type { Clock } from '../clock.ts'
import { SallyportError, asSallyportError, errorTable } from '../errors.ts'
import { nodesPath, readQuestion, verdictAnswer } from '../nodes/words.ts'
import type { Place, Question } from '../nodes/words.ts'
import type { Hit } from '../recording/catalog.ts'
import { inertLine } from '../recording/inert.ts'
import type { Bindings } from './api.ts'
import type { ApiPorts } from './ports.ts'
import type { Stream } from './route.ts'
import { jsonLines, sendStream, withPulse } from './stream.ts'

const binary = 'application/octet-stream'
const ndjson = 'application/x-ndjson'

type HonoContext = Context<{ Bindings: Bindings }>

export function serveNodes(app: Hono<{ Bindings: Bindings }>, ports: ApiPorts): void {
  app.get(`${nodesPath}/:what`, async context => {
    try {
      return await answered(ports, context)
    } catch (thrown) {
      const error = asSallyportError(thrown)
      const { code, reference, detail, problems } = error
      if (errorTable[code].http >= 500) ports.failed(error, `${context.req.method} ${context.req.path}`)
      const status = errorTable[code].http as ContentfulStatusCode
      return context.json({ error: { code, reference, detail, problems } }, status)
    }
  })
}

async function answered(ports: ApiPorts, context: HonoContext): Promise<Response> {
  const { pathname, search } = new URL(context.req.url)
  const line = pathname + search
  const given = context.req.header('authorization') ?? ''
  await ports.nodes.admit(/^Bearer ([\w-]{1,100})$/.exec(given)?.[1] ?? '', line)
  const question = readQuestion(line)
  if (question === undefined) throw new SallyportError('invalid', { detail: 'no question that we know' })
  const { recordings } = ports
  const { signal } = context.req.raw
  switch (question.what) {
    case 'has': return context.json({ has: recordings.has(question.session) })
    case 'piece': return context.json(await recordings.piece(question.session, question.from, signal))
    case 'verify': {
      const { session, headHash, bytes } = question
      return context.json(verdictAnswer.parse(await recordings.verify(session, { headHash, bytes })))
    }
    default: {
      const stream = streamOf(ports, question, signal)
      return sendStream(stream, context.env?.outgoing, thrown =>
        ports.failed(asSallyportError(thrown), `${context.req.method} ${context.req.path}`))
    }
  }
}

function streamOf(
  { recordings, clock }: ApiPorts, question: Exclude<Question, { what: 'has' | 'piece' | 'verify' }>,
  signal: AbortSignal
): Stream {
  switch (question.what) {
    case 'raw': {
      const { session, start = 0, end } = question
      const part = end === undefined ? undefined : { start, end }
      return { contentType: binary, chunks: recordings.raw(session, part) }
    }
    case 'file': return { contentType: binary, chunks: recordings.fileCopy(question.session, question.copy) }
    case 'lines': return {
      contentType: ndjson, chunks: recordings.linesFrom(question.session, question.from, question.before)
    }
    case 'export': return {
      contentType: binary, chunks: recordings.export(question.session, question.format)
    }
    case 'scenes': return {
      contentType: ndjson, chunks: withPulse(jsonLines(recordings.scenes(question.session)), clock)
    }
    case 'follow': return liveLines(clock, recordings.follow(question.session, signal))
    case 'live': {
      const { session, after, lane } = question
      return liveLines(clock, recordings.live(session, { after, lane }, signal))
    }
    case 'search': {
      const { query, limit, session } = question
      return liveLines(clock, placesOf(recordings.search({ query, limit, session, signal })))
    }
  }
}

/** An empty line now and then: who waits for more knows that we are there. */
function liveLines(clock: Clock, told: AsyncIterable<unknown>): Stream {
  return { contentType: ndjson, live: true, chunks: withPulse(jsonLines(told), clock) }
}

/** What was found, in words that are safe to show. */
export async function* placesOf(hits: AsyncIterable<Hit>): AsyncGenerator<Place> {
  for await (const { session, path, head, at, atMs, kind, text, lane, offset } of hits) {
    const { user, credential, target } = head
    yield {
      session, user: inertLine(user), credential: inertLine(credential), target: inertLine(target), at, atMs,
      kind, text, day: path.slice(0, 10), lane, offset
    }
  }
}
