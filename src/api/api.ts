// The door for admins, auditors and applications: the route table, as a program that answers HTTP requests.
// The order for every request is the same and stands here once: size, origin, token, role, schema, handler,
// schema of the answer. An answer is cut down to what its schema names, so that a field that somebody adds
// to a row does not leave the house by accident; an error leaves as the table of errors words it, never as
// a stack.
import { Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import type { Context } from 'hono'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import { z } from 'zod'
import { SallyportError, asSallyportError, errorTable } from '../errors.ts'
import { problemsOf } from '../input.ts'
import { apiPrefix, openApiOf } from './openapi.ts'
import type { Call, Caller, Route, Stream } from './route.ts'

/** Largest body of a request, where its route does not say otherwise: a name, a password, a template. */
export const requestBytesMax = 64 * 1024

/** What the node adapter hands to a request; a test may leave it out. */
export interface Bindings {
  incoming?: { socket: { remoteAddress?: string | undefined } }
}

export interface ApiOptions {
  version: string
  routes: readonly Route[]
  /** Who a bearer token stands for; throws `auth-required`. */
  identify(token: string | undefined, address: string): Promise<Caller>
  /** Told of every error that is a defect or a failure of ours, with what the client did not hear. */
  failed(error: SallyportError, request: string): void
}

type HonoContext = Context<{ Bindings: Bindings }>

const nobody: Caller = { name: 'nobody', roles: [], how: 'token' }

/** Makes the program from its table; `.fetch` goes to a server (server.ts) or straight into a test. */
export function createApi(options: ApiOptions): Hono<{ Bindings: Bindings }> {
  const app = new Hono<{ Bindings: Bindings }>()
  app.use(async (context, next) => {
    await next()
    context.header('cache-control', 'no-store')
    context.header('x-content-type-options', 'nosniff')
    context.header('content-security-policy', "default-src 'none'; frame-ancestors 'none'")
    context.header('referrer-policy', 'no-referrer')
  })
  app.use(async (context, next) => {
    if (!foreign(context)) return next()
    return refuse(context, new SallyportError('not-allowed', { detail: 'foreign origin' }), nobody)
  })
  const document = openApiOf(options.routes, options.version)
  app.get('/openapi.json', context => context.json(document))
  for (const route of options.routes) {
    const path = apiPrefix + route.path.replace(/\{(\w+)\}/g, ':$1')
    app.on(route.method.toUpperCase(), path, limitOf(route), context => answer(options, route, context))
  }
  app.notFound(context =>
    refuse(context, new SallyportError('not-found', { detail: 'no such route' }), nobody))
  app.onError((thrown, context) => {
    const error = asSallyportError(thrown)
    options.failed(error, `${context.req.method} ${context.req.path}`)
    return refuse(context, error, nobody)
  })
  return app
}

function limitOf(route: Route): ReturnType<typeof bodyLimit> {
  const maxSize = route.bodyBytesMax ?? requestBytesMax
  const problems = [`the request is larger than ${maxSize} bytes`]
  return bodyLimit({
    maxSize, onError: context => refuse(context, new SallyportError('invalid', { problems }), nobody)
  })
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
    }
    const call: Call<unknown, unknown, unknown> = {
      params: read(route.params, context.req.param(), 'path'),
      query: read(route.query, context.req.query(), 'query'),
      body: route.body === undefined ? undefined : read(route.body, await bodyOf(context), ''),
      caller, address, signal: context.req.raw.signal
    }
    const result = await route.run(call)
    if (route.response instanceof z.ZodType) return context.json(route.response.parse(result) as object)
    return await send(result as Stream)
  } catch (thrown) {
    const error = asSallyportError(thrown)
    if (errorTable[error.code].http >= 500) options.failed(error, `${context.req.method} ${context.req.path}`)
    return refuse(context, error, caller)
  }
}

function read(schema: z.ZodType | undefined, value: unknown, place: string): unknown {
  if (schema === undefined) return undefined
  const result = schema.safeParse(value)
  if (result.success) return result.data
  throw new SallyportError('invalid', { problems: problemsOf(result.error, place) })
}

async function bodyOf(context: HonoContext): Promise<unknown> {
  const type = context.req.header('content-type') ?? ''
  if (!/^application\/json\b/i.test(type)) {
    throw new SallyportError('invalid', { problems: ['the body must be application/json'] })
  }
  try {
    return await context.req.json()
  } catch (thrown) {
    if (thrown instanceof SallyportError) throw thrown
    throw new SallyportError('invalid', { problems: ['the body is no JSON'] })
  }
}

function tokenOf(context: HonoContext): string | undefined {
  return /^Bearer ([\x21-\x7e]{1,200})$/.exec(context.req.header('authorization') ?? '')?.[1]
}

// A page of another site can send requests from inside our network but cannot hide that it did. Tokens are
// never sent by a browser on its own, so this is the second lock on that door.
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
      ...(trusted ? { ...(error.detail === undefined ? {} : { detail: error.detail }), hint: operator } : {})
    }
  }, http as ContentfulStatusCode)
}

/**
 * Answers piece by piece; a failure before the first piece is an ordinary refusal, a later one cuts the
 * answer.
 */
async function send({ contentType, fileName, chunks, live }: Stream): Promise<Response> {
  const iterator = chunks[Symbol.asyncIterator]()
  // Begun in any case: a generator that never began would not close its file when the client goes.
  let pending: Promise<IteratorResult<Uint8Array | string>> | undefined = iterator.next()
  if (live === true) pending.catch(() => undefined)
  else await pending
  const encoder = new TextEncoder()
  const body = new ReadableStream<Uint8Array>({
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
  return new Response(body, {
    headers: {
      'content-type': contentType,
      ...(fileName === undefined ? {} : { 'content-disposition': `attachment; filename="${fileName}"` })
    }
  })
}
