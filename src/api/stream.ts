// Sends an answer piece by piece: a recording of gigabytes, a live tail without an end. What matters is how
// it ends: whole, or cut so that the client sees that it was cut (a half recording must not pass for
// evidence), and whoever reads the file is told to stop as soon as the client has gone.
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import { sleep } from '../clock.ts'
import type { Clock } from '../clock.ts'
import type { JsonLines, Stream } from './route.ts'

/** Headers of every answer: nothing is cached, guessed at, framed or told on. */
export const safeHeaders: Readonly<Record<string, string>> = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer'
}

type Piece = Uint8Array | string

/** A live line on which nothing happens says so as often. */
const pulseMs = 10_000

export function jsonLines<Line>(values: AsyncIterable<Line>): JsonLines<Line> {
  return linesOf(values)
}

async function* linesOf(values: AsyncIterable<unknown>): AsyncGenerator<string> {
  for await (const value of values) yield `${JSON.stringify(value)}\n`
}

/** Whoever hears nothing for longer than this knows that the line is dead. */
export async function* withPulse(lines: AsyncIterable<string>, clock: Clock): AsyncGenerator<string> {
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

/**
 * Answers with a stream. A failure before the first piece throws; a later one cuts the connection and goes to
 * `failed`. Without a socket (`outgoing`), as in a test, it is an ordinary Response.
 */
export async function sendStream(
  stream: Stream, outgoing: ServerResponse | undefined, failed: (thrown: unknown) => void
): Promise<Response> {
  const iterator = stream.chunks[Symbol.asyncIterator]()
  // Begun in any case: a generator that never began would not close its file when the client goes.
  const first = iterator.next()
  if (stream.live === true) first.catch(() => undefined)
  else await first
  const headers = headersOf(stream)
  const status = stream.part === undefined ? 200 : 206
  if (outgoing === undefined) return new Response(bodyOf(iterator, first), { status, headers })
  outgoing.writeHead(status, headers)
  outgoing.flushHeaders()
  void pump(iterator, first, outgoing).catch((thrown: unknown) => {
    failed(thrown)
    outgoing.destroy()
  })
  return RESPONSE_ALREADY_SENT
}

function headersOf({ contentType, fileName, parts, part }: Stream): Record<string, string> {
  const name = fileName === undefined ? {} : { 'content-disposition': `attachment; filename="${fileName}"` }
  if (parts === undefined) return { ...safeHeaders, 'content-type': contentType, ...name }
  const { start, end } = part ?? { start: 0, end: parts.bytes - 1 }
  const range = part === undefined ? {} : { 'content-range': `bytes ${start}-${end}/${parts.bytes}` }
  return {
    ...safeHeaders, 'content-type': contentType, ...name, 'accept-ranges': 'bytes', 'etag': parts.tag,
    'content-length': String(end - start + 1), ...range
  }
}

async function pump(
  iterator: AsyncIterator<Piece>, first: Promise<IteratorResult<Piece>>, outgoing: ServerResponse
): Promise<void> {
  const gone = new AbortController()
  outgoing.once('close', () => gone.abort())
  // A write after the client has gone is no event that anybody must know of.
  outgoing.on('error', () => gone.abort())
  try {
    for (let next = await first; next.done !== true; next = await iterator.next()) {
      if (gone.signal.aborted) return
      if (!outgoing.write(next.value)) await drained(outgoing, gone.signal)
    }
    outgoing.end()
  } finally {
    await iterator.return?.()
  }
}

async function drained(outgoing: ServerResponse, gone: AbortSignal): Promise<void> {
  if (gone.aborted) return
  await once(outgoing, 'drain', { signal: gone }).catch(() => undefined)
}

function bodyOf(iterator: AsyncIterator<Piece>,
  first: Promise<IteratorResult<Piece>>): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder()
  let pending: Promise<IteratorResult<Piece>> | undefined = first
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const next = await (pending ?? iterator.next())
      pending = undefined
      if (next.done === true) controller.close()
      else controller.enqueue(typeof next.value === 'string' ? encoder.encode(next.value) : next.value)
    },
    async cancel() {
      await iterator.return?.()
    }
  }, { highWaterMark: 0 })
}
