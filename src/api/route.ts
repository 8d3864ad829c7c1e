// What a route of the API is: one entry of one table, from which come the server (api.ts), the OpenAPI
// document (openapi.ts), the types of what clients ask and get (table.ts) and the test that every route
// refuses every role that it does not name. A route that is not in the table does not exist, and one without
// `roles` does not compile: nothing is open by being forgotten.
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

type Chunks = AsyncIterable<Uint8Array | string>

/** Text of JSON values, one a line: of which type they are is asked by clients in TypeScript only. */
export interface JsonLines<Line> extends AsyncIterable<string> {
  readonly line?: Line
}

/** An answer that is sent piece by piece: a recording, an export, a live tail. */
export interface Stream<C extends Chunks = Chunks> {
  contentType: string
  /** Suggested name of the file, where a browser would save it. */
  fileName?: string | undefined
  chunks: C
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

type Schema = z.ZodType | undefined
type Output<S extends Schema> = S extends z.ZodType ? z.output<S> : undefined

/** A route as its entry says it, to the letter: what table.ts takes the types of clients from. */
export interface Entry<
  M extends Method, At extends string, P extends Schema, Q extends Schema, B extends Schema,
  R extends Route['response']
> extends Route {
  method: M
  path: At
  params: P
  query: Q
  body: B
  response: R
}

interface RouteSpec<
  M extends Method, At extends string, R extends z.ZodType, P extends Schema, Q extends Schema,
  B extends Schema
> {
  method: M
  path: At
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
  run(call: Call<Output<P>, Output<Q>, Output<B>>): Promise<z.input<R>>
}

type StreamSpec<
  M extends Method, At extends string, P extends Schema, Q extends Schema, B extends Schema, C extends Chunks
> = Omit<RouteSpec<M, At, z.ZodType, P, Q, B>, 'response' | 'run'> & {
  response: { stream: readonly string[] }
  run(call: Call<Output<P>, Output<Q>, Output<B>>): Promise<Stream<C>>
}

/** `chunks` stands there for its type, and for nothing else. */
interface StreamResponse<C extends Chunks> {
  stream: readonly string[]
  readonly chunks?: C
}

const nothing = { params: undefined, query: undefined, body: undefined }

/** An entry of the table that answers with JSON; the types of the handler come from its schemas. */
export function route<
  M extends Method, At extends string, R extends z.ZodType, P extends Schema = undefined,
  Q extends Schema = undefined, B extends Schema = undefined
>(spec: RouteSpec<M, At, R, P, Q, B>): Entry<M, At, P, Q, B, R> {
  return { ...nothing, ...spec } as unknown as Entry<M, At, P, Q, B, R>
}

/** An entry of the table that answers with a stream. */
export function streamRoute<
  M extends Method, At extends string, C extends Chunks, P extends Schema = undefined,
  Q extends Schema = undefined, B extends Schema = undefined
>(spec: StreamSpec<M, At, P, Q, B, C>): Entry<M, At, P, Q, B, StreamResponse<C>> {
  return { ...nothing, ...spec } as unknown as Entry<M, At, P, Q, B, StreamResponse<C>>
}
