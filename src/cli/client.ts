// The command line tool's side of the API: HTTPS over Node's own client, one request a connection,
// certificate always checked (against the server's own authority where it made one). An answer that is a
// refusal becomes a Failure with the server's words; a server that cannot be reached says which one and
// what to try.
import { request } from 'node:https'
import type { IncomingMessage } from 'node:http'
import { addressWith } from '../api/calling.ts'
import type { Words } from '../api/calling.ts'
import type { ErrorJson } from '../api/client-types.ts'
import type { Answer, Asked, LineOf, PathOf, Rest, StreamAsked, StreamPath } from '../api/table.ts'
import { Failure } from './failure.ts'
import type { Connection } from './place.ts'

// A hook on a target that hangs is given up by the server long before; this is for a server that hangs.
const answerMsMax = 180_000
// What we hold of one JSON answer.
const answerBytesMax = 256 * 1024 ** 2

type Ask<M extends 'get' | 'post' | 'put' | 'delete'> =
  <P extends PathOf<M>>(path: P, ...asked: Rest<Asked<M, P>>) => Promise<Answer<M, P>>
type Signalled = { signal?: AbortSignal }

/** Paths are those of the route table, `/sessions/{id}`; what is asked and what comes back are its types. */
export interface Client {
  readonly connection: Connection
  readonly get: Ask<'get'>
  readonly post: Ask<'post'>
  readonly put: Ask<'put'>
  readonly delete: Ask<'delete'>
  /** An answer that comes piece by piece; ends with it, throws Failure when it breaks off. */
  stream<P extends StreamPath>(path: P, ...asked: Rest<StreamAsked<P> & Signalled>): AsyncIterable<Buffer>
  /** The same where each line is a JSON value. */
  lines<P extends StreamPath>(
    path: P, ...asked: Rest<StreamAsked<P> & Signalled>
  ): AsyncIterable<LineOf<P>>
}

interface Loose extends Signalled {
  params?: Words
  query?: Words
  body?: unknown
}

export function createClient(connection: Connection): Client {
  // The types are the table's, and the server holds its answers to the same schemas.
  const ask = (method: string) => async (path: string, asked: Loose = {}): Promise<unknown> => {
    const answer = await send(connection, method, path, asked)
    return JSON.parse((await collect(answer)).toString('utf8'))
  }
  const stream = (path: string, asked: Loose = {}): AsyncIterable<Buffer> => streamOf(connection, path, asked)
  return {
    connection, get: ask('GET'), post: ask('POST'), put: ask('PUT'), delete: ask('DELETE'), stream,
    lines: (path: string, asked?: Loose) => linesOf(stream(path, asked))
  } as Client
}

async function * streamOf(connection: Connection, path: string, asked: Loose): AsyncGenerator<Buffer> {
  const answer = await send(connection, asked.body === undefined ? 'GET' : 'POST', path, asked)
  try {
    for await (const chunk of answer) yield chunk as Buffer
  } catch (thrown) {
    if (asked.signal?.aborted === true) return
    throw new Failure(`the answer broke off: ${(thrown as Error).message}`, { code: 'broken-off' })
  }
}

async function * linesOf(chunks: AsyncIterable<Buffer>): AsyncGenerator<unknown> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of chunks) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) yield JSON.parse(line)
  }
}

async function send(
  connection: Connection, method: string, path: string, { params, query, body, signal }: Loose
): Promise<IncomingMessage> {
  const url = new URL(addressWith(path, params, query), connection.server)
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

function refused(connection: Connection, answer: IncomingMessage, body: Buffer): Failure {
  let refusal: { error: ErrorJson }
  try {
    refusal = JSON.parse(body.toString('utf8')) as typeof refusal
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
