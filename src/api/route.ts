// What a route of the API is: one entry of one table, from which come the server (api.ts), the OpenAPI
// document (openapi.ts) and the test that every route refuses every role that it does not name. A route
// that is not in the table does not exist, and one without `roles` does not compile: nothing is open by
// being forgotten.
import type { z } from 'zod'
import type { Role } from '../policy/types.ts'

/** Who calls: a user with a token, or the local admin of the machine that serves. */
export interface Caller {
  name: string
  roles: readonly Role[]
  /** `local`: by the owner-only file of the data folder. */
  how: 'token' | 'local'
  /** How and when the person proved who they are, where the token says so. */
  login?: { method: string, at: Date } | undefined
  /** Which of their logins it is, however often its token was replaced; absent for tokens of no login. */
  family?: string | undefined
  /** The token is to be replaced, where it is in a browser. */
  isDue?: boolean | undefined
}

/** Whoever holds a valid token. */
export const everyone: readonly Role[] = ['user', 'auditor', 'admin']
/** Who may have secrets outside sessions, where a grant says so. */
export const holders: readonly Role[] = ['user', 'admin', 'application']
/** Who looks after sessions, records and audit. */
export const watchers: readonly Role[] = ['auditor', 'admin']
export const admins: readonly Role[] = ['admin']

/** What a handler gets: everything has been checked against the schemas of its route. */
export interface Call<Params, Query, Body> {
  params: Params
  query: Query
  body: Body
  /** `nobody` with no roles where the route is open to anyone. */
  caller: Caller
  /** Of the client's socket. */
  address: string
  /** `If-Match`, for what changes a resource: see conditions.ts. */
  ifMatch: string | undefined
  /** Aborts when the client has gone. */
  signal: AbortSignal
  /** What a browser keeps for the console. */
  cookie: CookieJar
}

/** The token in the browser's cookie: how the console's routes log in and out. */
export interface CookieJar {
  /** The one that came with the request. */
  token: string | undefined
  set(token: string): void
  clear(): void
}

/** An answer that is sent piece by piece: a recording, an export, a live tail. */
export interface Stream {
  contentType: string
  /** Suggested name of the file, where a browser would save it. */
  fileName?: string | undefined
  chunks: AsyncIterable<Uint8Array | string>
  /** The part that is sent of it. */
  part?: { start: number, end: number } | undefined
  /** It has a size and can be had in parts: a download that broke goes on. */
  parts?: {
    bytes: number
    tag: string
    read(start: number, end: number): AsyncIterable<Uint8Array>
  } | undefined
  /** Nothing may ever come: answer before the first piece is there. */
  live?: boolean | undefined
}

export type Method = 'get' | 'post' | 'put' | 'delete'

export interface Route {
  method: Method
  /** In OpenAPI's form, below `/api/v1`: `/sessions/{id}`. */
  path: string
  /** The path is what programs of others expect, `/metrics`, and not below `/api/v1`. */
  atRoot?: boolean | undefined
  /** `anyone`: without a token. */
  roles: readonly Role[] | 'anyone'
  /** One sentence for the OpenAPI document. */
  summary: string
  params: z.ZodType | undefined
  query: z.ZodType | undefined
  body: z.ZodType | undefined
  /** Largest body, where it is not `requestBytesMax` of api.ts. */
  bodyBytesMax?: number | undefined
  /** Tag of an answer, where it is not that of its bytes. */
  tag?: ((answer: unknown) => string) | undefined
  /**
   * It makes something that must not be made twice: takes an `Idempotency-Key`. Names what was made, for
   * people and without secrets.
   */
  issues?: ((answer: unknown) => string) | undefined
  /**
   * Schema of the JSON answer, or the content types of a `Stream`. What the schema does not name is not
   * sent.
   */
  response: z.ZodType | { stream: readonly string[] }
  run(call: Call<unknown, unknown, unknown>): Promise<unknown>
}

interface RouteSpec<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType, R extends z.ZodType> {
  method: Method
  path: string
  atRoot?: boolean
  roles: readonly Role[] | 'anyone'
  summary: string
  params?: P
  query?: Q
  body?: B
  bodyBytesMax?: number
  tag?: (answer: z.output<R>) => string
  issues?: (answer: z.output<R>) => string
  response: R
  run(call: Call<z.output<P>, z.output<Q>, z.output<B>>): Promise<z.input<R>>
}

type StreamSpec<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType> =
  Omit<RouteSpec<P, Q, B, z.ZodType>, 'response' | 'run'> & {
    response: { stream: readonly string[] }
    run(call: Call<z.output<P>, z.output<Q>, z.output<B>>): Promise<Stream>
  }

/** An entry of the table that answers with JSON; the types of the handler come from its schemas. */
export function route<
  R extends z.ZodType, P extends z.ZodType = z.ZodUndefined, Q extends z.ZodType = z.ZodUndefined,
  B extends z.ZodType = z.ZodUndefined
>(spec: RouteSpec<P, Q, B, R>): Route {
  return { params: undefined, query: undefined, body: undefined, ...spec } as unknown as Route
}

/** An entry of the table that answers with a stream. */
export function streamRoute<
  P extends z.ZodType = z.ZodUndefined, Q extends z.ZodType = z.ZodUndefined,
  B extends z.ZodType = z.ZodUndefined
>(spec: StreamSpec<P, Q, B>): Route {
  return { params: undefined, query: undefined, body: undefined, ...spec } as unknown as Route
}
