// The command line tool's side of the API: HTTPS over Node's own client, one request a connection,
// certificate always checked (against the server's own authority where it made one). An answer that is a
// refusal becomes a Failure with the server's words; a server that cannot be reached says which one and
// what to try.
import { request } from 'node:https'
import type { IncomingMessage } from 'node:http'
import { Failure } from './failure.ts'
import type { Connection } from './place.ts'

const apiPrefix = '/api/v1'
// A hook on a target that hangs is given up by the server long before; this is for a server that hangs.
const answerMsMax = 180_000
// What we hold of one JSON answer.
const answerBytesMax = 256 * 1024 ** 2

export type Query = Readonly<Record<string, string | number | boolean | undefined>>

export interface Client {
  readonly connection: Connection
  get<T>(path: string, query?: Query): Promise<T>
  post<T>(path: string, body: unknown): Promise<T>
  put<T>(path: string, body: unknown): Promise<T>
  delete<T>(path: string): Promise<T>
  /** An answer that comes piece by piece; ends with it, throws Failure when it breaks off. */
  stream(path: string, query?: Query, signal?: AbortSignal, body?: unknown): AsyncIterable<Buffer>
}

export function createClient(connection: Connection): Client {
  const json = async (method: string, path: string, query?: Query, body?: unknown): Promise<unknown> => {
    const answer = await send(connection, method, path, query, body)
    return JSON.parse((await collect(answer)).toString('utf8'))
  }
  return {
    connection,
    get: async <T>(path: string, query?: Query) => await json('GET', path, query) as T,
    post: async <T>(path: string, body: unknown) => await json('POST', path, undefined, body) as T,
    put: async <T>(path: string, body: unknown) => await json('PUT', path, undefined, body) as T,
    delete: async <T>(path: string) => await json('DELETE', path) as T,
    stream: (path, query, signal, body) => streamOf(connection, path, query, signal, body)
  }
}

/** `/sessions/x` with its parts made safe for an address. */
export function pathOf(parts: TemplateStringsArray, ...values: readonly string[]): string {
  return parts.map((part, at) => part + (at < values.length ? encodeURIComponent(values[at]!) : '')).join('')
}

async function * streamOf(
  connection: Connection, path: string, query?: Query, signal?: AbortSignal, body?: unknown
): AsyncGenerator<Buffer> {
  const answer = await send(connection, body === undefined ? 'GET' : 'POST', path, query, body, signal)
  try {
    for await (const chunk of answer) yield chunk as Buffer
  } catch (thrown) {
    if (signal?.aborted === true) return
    throw new Failure(`the answer broke off: ${(thrown as Error).message}`, { code: 'broken-off' })
  }
}

function send(
  connection: Connection, method: string, path: string, query?: Query, body?: unknown, signal?: AbortSignal
): Promise<IncomingMessage> {
  const url = new URL(apiPrefix + path, connection.server)
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined) url.searchParams.set(name, String(value))
  }
  const text = body === undefined ? undefined : JSON.stringify(body)
  return new Promise((resolve, reject) => {
    const sent = request(url, {
      method, agent: false, ...(connection.ca === undefined ? {} : { ca: connection.ca }),
      ...(signal === undefined ? { timeout: answerMsMax } : { signal }),
      headers: {
        accept: 'application/json',
        ...(connection.token === undefined ? {} : { authorization: `Bearer ${connection.token}` }),
        ...(text === undefined ? {} : {
          'content-type': 'application/json', 'content-length': Buffer.byteLength(text)
        })
      }
    })
    sent.once('timeout', () => sent.destroy(new Failure('the server does not answer', { code: 'no-answer' })))
    sent.once('error', thrown => reject(thrown instanceof Failure ? thrown : unreachable(connection, thrown)))
    sent.once('response', answer => {
      if ((answer.statusCode ?? 500) < 300) resolve(answer)
      else collect(answer).then(refusal => reject(refused(connection, answer, refusal)), reject)
    })
    sent.end(text)
  })
}

async function collect(answer: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of answer) {
    bytes += (chunk as Buffer).length
    if (bytes > answerBytesMax) throw new Failure('the answer is too large', { code: 'too-large' })
    chunks.push(chunk as Buffer)
  }
  return Buffer.concat(chunks)
}

interface Refusal {
  error: {
    code: string
    message: string
    reference: string
    problems: string[]
    detail?: string
    hint?: string
  }
}

function refused(connection: Connection, answer: IncomingMessage, body: Buffer): Failure {
  let refusal: Refusal
  try {
    refusal = JSON.parse(body.toString('utf8')) as Refusal
  } catch {
    return new Failure(`${connection.server} answered ${answer.statusCode}, and not as a Sallyport does`)
  }
  const { code, message, reference, problems, detail, hint } = refusal.error
  const again = connection.as === 'login' ? 'that login has ended: log in again' : 'run `sallyport login`'
  // Where problems are listed, "see the problems" is no help.
  const help = code === 'auth-required' ? again : problems.length > 0 ? undefined : hint
  const words = detail === undefined ? message : `${message}: ${detail}`
  return new Failure(words, { code, reference, problems, hint: help })
}

const certificateErrors = new Set([
  'SELF_SIGNED_CERT_IN_CHAIN', 'DEPTH_ZERO_SELF_SIGNED_CERT', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'CERT_HAS_EXPIRED',
  'ERR_TLS_CERT_ALTNAME_INVALID', 'CERT_SIGNATURE_FAILURE'
])

function unreachable({ server }: Connection, thrown: Error): Failure {
  const code = (thrown as NodeJS.ErrnoException).code ?? ''
  if (certificateErrors.has(code)) {
    return new Failure(`the certificate of ${server} is not trusted: ${thrown.message}`, {
      code: 'untrusted', hint: 'give its authority with --ca FILE at login, or in SALLYPORT_CA'
    })
  }
  const reason = code === '' ? thrown.message : code
  return new Failure(`no Sallyport answers at ${server} (${reason})`, {
    code: 'unreachable', hint: 'start it with `sallyport serve`, or say where it is with --server URL'
  })
}
