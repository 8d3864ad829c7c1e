// The route table as types: of each method and path what has to be given (parts of the path, query, body) and
// what comes back. They are taken from the entries that the server runs, so a client in TypeScript cannot ask
// for what is not there, and nobody keeps a second list. Types only: importing this loads nothing.
import type { z } from 'zod'
import type { JsonLines, Method } from './route.ts'
import type { healthRoutes } from './routes-health.ts'
import type { allRoutes } from './routes.ts'

/** All but those at addresses that other programs expect, which are theirs to ask. */
type Known = Exclude<ReturnType<typeof allRoutes>[number], ReturnType<typeof healthRoutes>[number]>
type Streaming = Extract<Known, { response: { stream: readonly string[] } }>
type Plain = Exclude<Known, Streaming>

type Table = { [M in Method]: { [E in Extract<Plain, { method: M }> as E['path']]: E } }
type Streams = { [E in Streaming as E['path']]: E }

type Parts<Path> = Path extends `${string}{${infer Name}}${infer Rest}` ? Name | Parts<Rest> : never
type Input<S> = S extends z.ZodType ? z.input<S> : never
/** What a schema of the path's parts takes; a part that has none is any text. */
type Part<S, Name> = Name extends keyof Input<S> ? Input<S>[Name] : string
/** Left out where it has no schema, and where all of a query may be; a body there is one always. */
type Member<Name extends 'query' | 'body', S> = [Input<S>] extends [never]
  ? { [K in Name]?: never }
  : Name extends 'body' ? { body: Input<S> }
    : Record<never, never> extends Input<S> ? { query?: Input<S> } : { query: Input<S> }

type AskedOf<E> = E extends { path: infer Path, params: infer P, query: infer Q, body: infer B }
  ? ([Parts<Path>] extends [never] ? { params?: never } : { params: { [N in Parts<Path>]: Part<P, N> } })
    & Member<'query', Q> & Member<'body', B>
  : never
type AnswerOf<E> = E extends { response: infer R extends z.ZodType } ? z.output<R> : never

type ChunksIn<E> = E extends { response: { chunks?: infer C } } ? C : never
type LineIn<C> = 'line' extends keyof C ? C extends JsonLines<infer Line> ? Line : never : never

/** Paths that are asked for with a method and answer with JSON, as the table has them: `/sessions/{id}`. */
export type PathOf<M extends Method> = keyof Table[M]
export type Asked<M extends Method, P extends PathOf<M>> = AskedOf<Table[M][P]>
export type Answer<M extends Method, P extends PathOf<M>> = AnswerOf<Table[M][P]>

/** Paths that answer piece by piece, by POST where there is a body. */
export type StreamPath = keyof Streams
export type StreamAsked<P extends StreamPath> = AskedOf<Streams[P]>
/** Of a stream of JSON lines. */
export type LineOf<P extends StreamPath> = LineIn<ChunksIn<Streams[P]>>

/** As parameters after the path: nothing where nothing has to be given. */
export type Rest<A> = Record<never, never> extends A ? [asked?: A] : [asked: A]

export type ParamsOf<M extends Method, P extends PathOf<M>> =
  Asked<M, P> extends { params: infer Given } ? Given : never
export type QueryOf<M extends Method, P extends PathOf<M>> =
  Asked<M, P> extends { query?: infer Given } ? NonNullable<Given> : never
export type BodyOf<M extends Method, P extends PathOf<M>> =
  Asked<M, P> extends { body: infer Given } ? Given : never
