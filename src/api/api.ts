// The door for admins, auditors and applications: the route table, as a program that answers HTTP requests.
// The order for every request is the same and stands here once: size, origin, token or cookie, role,
// schema, handler, schema of the answer. An answer is cut down to what its schema names, so that a field that
// somebody adds to a row does not leave the house by accident; an error leaves as the table of errors words
// it, never as a stack.
import type { ServerResponse } from 'node:http'
import { Hono } from 'hono'
import type { Context } from 'hono'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import { z } from 'zod'
import { SallyportError, asSallyportError, errorTable } from '../errors.ts'
import { problemsOf } from '../input.ts'
import { namesTag, partOf, tagOf } from './conditions.ts'
import { serveConsole } from './console.ts'
import type { ConsoleFiles } from './console.ts'
import { clearedCookie, cookieOf, isOwnPage, tokenOfCookie } from './cookie.ts'
import { defined } from './document-parts.ts'
import { keyHeader, repeatHeader } from './idempotency.ts'
import type { Answered, Attempt } from './idempotency.ts'
import { addressOf, openApiOf } from './openapi.ts'
import type { Call, Caller, CookieJar, Route, Stream } from './route.ts'
import { safeHeaders, sendStream } from './stream.ts'

/** Largest body of a request, where its route does not say otherwise: a name, a password, a template. */
export const requestBytesMax = 64 * 1024

/** What the node adapter hands to a request; a test may leave it out. */
export interface Bindings {
  incoming?: { socket: { remoteAddress?: string | undefined } }
  outgoing?: ServerResponse
}

export interface ApiOptions {
  version: string
  routes: readonly Route[]
  /** Who a bearer token stands for; throws `auth-required`. */
  identify(token: string | undefined, address: string): Promise<Caller>
  /** Runs an act once for an idempotency key, see idempotency.ts. */
  once(attempt: Attempt, act: () => Promise<unknown>, nameOf: (answer: unknown) => string): Promise<Answered>
  /** A token in place of a browser's, which is due; undefined when another request is replacing it. */
  replace(token: string, caller: Caller): Promise<string | undefined>
  /** Told of every error that is a defect or a failure of ours, with what the client did not hear. */
  failed(error: SallyportError, request: string): void
  /** Adds addresses that are no routes. */
  more?(app: Hono<{ Bindings: Bindings }>): void
  /** The web console's files, read when the first browser comes; undefined: there is no console. */
  console?: (() => ConsoleFiles) | undefined
}

type HonoContext = Context<{ Bindings: Bindings }>

const nobody: Caller = { name: 'nobody', roles: [], how: 'token' }

/** Makes the program from its table; `.fetch` goes to a server (server.ts) or straight into a test. */
export function createApi(options: ApiOptions): Hono<{ Bindings: Bindings }> {
  const app = new Hono<{ Bindings: Bindings }>()
  app.use(async (context, next) => {
    await next()
    for (const [name, value] of Object.entries(safeHeaders)) {
      if (!context.res.headers.has(name)) context.header(name, value)
    }
  })
  app.use(async (context, next) => {
    if (!foreign(context)) return next()
    return refuse(context, new SallyportError('not-allowed', { detail: 'foreign origin' }), nobody)
  })
  const document = openApiOf(options.routes, options.version)
  app.get('/openapi.json', context => context.json(document))
  for (const route of options.routes) {
    const path = addressOf(route).replace(/\{(\w+)\}/g, ':$1')
    app.on(route.method.toUpperCase(), path, context => answer(options, route, context))
  }
  options.more?.(app)
  if (options.console !== undefined) serveConsole(app, options.console)
  app.notFound(context =>
    refuse(context, new SallyportError('not-found', { detail: 'no such route' }), nobody))
  app.onError((thrown, context) => {
    const error = asSallyportError(thrown)
    options.failed(error, `${context.req.method} ${context.req.path}`)
    return refuse(context, error, nobody)
  })
  return app
}

async function answer(options: ApiOptions, route: Route, context: HonoContext): Promise<Response> {
  let caller = nobody
  try {
    const address = context.env?.incoming?.socket.remoteAddress ?? ''
    if (route.roles !== 'anyone') {
      caller = await options.identify(tokenOf(context), address)
      const { roles } = route
      if (!caller.roles.some(role => roles.includes(role))) {
        throw new SallyportError('not-allowed', { detail: `needs the role ${roles.join(' or ')}` })
      }
      // A stream's answer takes no cookie with it: the next request of the page is soon enough.
      const isDue = caller.isDue === true && route.response instanceof z.ZodType
      if (isDue) await replaceCookie(options, context, caller)
    }
    const given = route.body === undefined
      ? undefined
      : await bodyOf(context, route.bodyBytesMax ?? requestBytesMax)
    const call: Call<unknown, unknown, unknown> = {
      params: read(route.params, context.req.param(), 'path'),
      query: read(route.query, context.req.query(), 'query'),
      body: read(route.body, given, ''),
      caller, address, ifMatch: context.req.header('if-match'), signal: context.req.raw.signal,
      cookie: jarOf(context)
    }
    const { response, issues } = route
    if (response instanceof z.ZodType) {
      const act = async (): Promise<unknown> => response.parse(await route.run(call))
      const key = issues === undefined ? undefined : context.req.header(keyHeader)
      if (issues === undefined || key === undefined) return tagged(context, route, await act())
      const { pathname, search } = new URL(context.req.url)
      const line = `${context.req.method} ${pathname}${search}`
      const attempt = { caller, address, key, line, body: given }
      const { json, repeated } = await options.once(attempt, act, issues)
      if (repeated) context.header(repeatHeader, 'true')
      return context.body(json, 200, { 'content-type': 'application/json' })
    }
    const stream = await route.run(call) as Stream
    return await sendStream(chosenPart(context, stream), context.env?.outgoing, thrown => {
      options.failed(asSallyportError(thrown), `${context.req.method} ${context.req.path}`)
    })
  } catch (thrown) {
    const error = asSallyportError(thrown)
    if (errorTable[error.code].http >= 500) options.failed(error, `${context.req.method} ${context.req.path}`)
    return refuse(context, error, caller)
  }
}

/** An answer, or 304 for whoever has it already. */
function tagged(context: HonoContext, { method, tag }: Route, answer: unknown): Response {
  if (method !== 'get') return context.json(answer as object)
  const json = JSON.stringify(answer)
  const own = tag === undefined ? tagOf(json) : tag(answer)
  context.header('etag', own)
  if (namesTag(context.req.header('if-none-match'), own)) return context.body(null, 304)
  return context.body(json, 200, { 'content-type': 'application/json' })
}

/** The part that is asked for, where the whole is still the one that the client has the rest of. */
function chosenPart(context: HonoContext, stream: Stream): Stream {
  const { parts } = stream
  const known = context.req.header('if-range')
  if (parts === undefined || (known !== undefined && known !== parts.tag)) return stream
  const part = partOf(context.req.header('range'), parts.bytes)
  if (part === undefined) return stream
  if (part !== 'unsatisfiable') return { ...stream, part, chunks: parts.read(part.start, part.end) }
  context.header('content-range', `bytes */${parts.bytes}`)
  throw new SallyportError('range-unsatisfiable', { detail: context.req.header('range') })
}

function read(schema: z.ZodType | undefined, value: unknown, place: string): unknown {
  if (schema === undefined) return undefined
  const result = schema.safeParse(value)
  if (result.success) return result.data
  throw new SallyportError('invalid', { problems: problemsOf(result.error, place) })
}

async function bodyOf(context: HonoContext, bytesMax: number): Promise<unknown> {
  const type = context.req.header('content-type') ?? ''
  if (!/^application\/json\b/i.test(type)) {
    throw new SallyportError('invalid', { problems: ['the body must be application/json'] })
  }
  const text = await textOf(context.req.raw.body, bytesMax)
  try {
    return JSON.parse(text) as unknown
  } catch {
    throw new SallyportError('invalid', { problems: ['the body is no JSON'] })
  }
}

// Whatever length the client states: what counts is what comes.
async function textOf(body: ReadableStream<Uint8Array> | null, bytesMax: number): Promise<string> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of body ?? []) {
    bytes += chunk.length
    if (bytes > bytesMax) {
      throw new SallyportError('invalid', { problems: [`the request is larger than ${bytesMax} bytes`] })
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

// A token in a header was put there by whoever means it. A cookie a browser sends on its own, whatever page
// it is on: it counts only where the browser says that the page is ours.
function tokenOf(context: HonoContext): string | undefined {
  const given = context.req.header('authorization')
  if (given !== undefined) return /^Bearer ([\x21-\x7e]{1,200})$/.exec(given)?.[1]
  const token = tokenOfCookie(context.req.header('cookie'))
  if (token === undefined || isOwnPage(context.req.method, context.req.header())) return token
  throw new SallyportError('not-allowed', { detail: 'the cookie counts only for pages of the console' })
}

async function replaceCookie(options: ApiOptions, context: HonoContext, caller: Caller): Promise<void> {
  const { token, set } = jarOf(context)
  // A token in a header is a program's, which would not see the new one.
  if (token === undefined || context.req.header('authorization') !== undefined) return
  const next = await options.replace(token, caller)
  if (next !== undefined) set(next)
}

function jarOf(context: HonoContext): CookieJar {
  return {
    token: tokenOfCookie(context.req.header('cookie')),
    set: token => context.header('set-cookie', cookieOf(token)),
    clear: () => context.header('set-cookie', clearedCookie)
  }
}

// A page of another site can send requests from inside our network but cannot hide that it did. This is the
// second lock on that door: the first is that a token in a header is never sent by a browser on its own, and
// the cookie only from our own pages.
function foreign(context: HonoContext): boolean {
  const origin = context.req.header('origin')
  if (origin === undefined) return false
  return origin !== `https://${context.req.header('host') ?? ''}`
}

function refuse(context: HonoContext, error: SallyportError, caller: Caller): Response {
  const { client, operator, http } = errorTable[error.code]
  const trusted = caller.roles.includes('admin') || caller.roles.includes('auditor')
  return context.json({
    error: {
      code: error.code, message: client, reference: error.reference, problems: error.problems,
      ...(trusted ? { hint: operator } : {}),
      // Of a defect nobody knows what its message quotes: it is in the log, under the reference.
      ...(trusted && error.code !== 'internal' ? defined({ detail: error.detail }) : {})
    }
  }, http as ContentfulStatusCode)
}
