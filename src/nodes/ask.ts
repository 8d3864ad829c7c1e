// Asks another node one question, over HTTPS, on a connection of its own. It is trusted with what it has, not
// with us: it must show the very certificate that it advertised, no redirect is followed, every wait has a
// limit, whatever must be held is bounded, and a stream is read only as fast as its reader takes it. What it
// refuses is its own refusal, with its code; everything else that goes wrong is `node-silent` and says how.
import { X509Certificate } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { request } from 'node:https'
import type { RequestOptions } from 'node:https'
import { isIP } from 'node:net'
import { StringDecoder } from 'node:string_decoder'
import type { z } from 'zod'
import type { Clock } from '../clock.ts'
import { SallyportError, errorTable } from '../errors.ts'
import type { ErrorCode } from '../errors.ts'
import { mintTicket } from './trust.ts'
import type { Advert } from './trust.ts'
import { printQuestion, refusalAnswer } from './words.ts'
import type { Question } from './words.ts'

/** TCP and TLS: as long as a node may take to answer an admin's kill. */
const connectMs = 3_000
/** Idle seconds before the kernel asks whether the other machine is still there. */
const keepAliveMs = 15_000
const headBytesMax = 16 * 1024
const refusalBytesMax = 64 * 1024
/** A piece of a terminal is some 128 KiB of it, and the picture of a screen. */
const jsonBytesMax = 16 * 1024 ** 2
/** A line is a scene; a statement with its parameters is one. */
const lineCharactersMax = 16 * 1024 ** 2
/** Questions of this node that are being answered: live tails stay long. */
export const askedAtOnceMax = 256

export interface Peer extends Advert {
  node: string
}

export interface AskPorts {
  /** Of the nodes of this installation. */
  key: Buffer
  /** This node. */
  node: string
  clock: Clock
  /** The store's clock: tickets are good by it. */
  now(): Promise<Date>
}

/** For whom something is asked; `signal` aborts when nobody waits for it any more. */
export interface Behalf {
  person: string
  signal: AbortSignal
}

export interface Asking extends Behalf {
  /** Until the answer begins. */
  headMs: number
  /** Between two pieces of it. */
  silenceMs: number
}

/** What was answered, piece by piece. Throws SallyportError. */
export type Ask = (peer: Peer, question: Question, asking: Asking) => AsyncGenerator<Buffer>

export function createAsk({ key, node, clock, now }: AskPorts): Ask {
  let asked = 0
  return async function* ask(peer, question, asking) {
    if (asked >= askedAtOnceMax) {
      throw new SallyportError('limit-reached', { detail: `${askedAtOnceMax} questions to other nodes` })
    }
    asked++
    try {
      const line = printQuestion(question, { by: node, person: asking.person })
      const ticket = mintTicket(key, peer.node, line, await now())
      const answer = await opened(clock, peer, line, ticket, asking)
      try {
        yield* piecesOf(clock, peer, answer, asking)
      } finally {
        answer.destroy()
      }
    } finally {
      asked--
    }
  }
}

export function silent({ node }: Pick<Peer, 'node'>, why: string): SallyportError {
  return new SallyportError('node-silent', { detail: `node ${node}: ${why}` })
}

async function opened(
  clock: Clock, peer: Peer, line: string, ticket: string, { headMs, signal }: Asking
): Promise<IncomingMessage> {
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    const sent = request({
      ...placeOf(peer), path: line, signal, agent: false, maxHeaderSize: headBytesMax,
      headers: { 'authorization': `Bearer ${ticket}`, 'accept-encoding': 'identity' }
    })
    const giveUp = (why: string) => (): void => void sent.destroy(silent(peer, why))
    const late = clock.after(headMs, giveUp('no answer in time'))
    const unreached = clock.after(connectMs, giveUp('cannot be reached in time'))
    sent.once('socket', socket => socket.once('secureConnect', () => {
      unreached()
      socket.setKeepAlive(true, keepAliveMs)
    }))
    const over = (): void => {
      late()
      unreached()
    }
    sent.once('response', response => {
      over()
      resolve(response)
    })
    // Also those that come when the answer is there: they end its stream.
    sent.on('error', thrown => {
      over()
      reject(failure(peer, thrown, signal))
    })
    sent.end()
  })
  // Its end is told by the stream, to whoever reads it.
  answer.on('error', () => undefined)
  if (answer.statusCode === 200 && answer.headers['content-encoding'] === undefined) return answer
  try {
    throw await refusalOf(clock, peer, answer, signal)
  } finally {
    answer.destroy()
  }
}

/** Whom TLS lets in: whoever has the key of that one certificate, whatever it is called. */
function placeOf({ url, certificate }: Peer): RequestOptions & { allowPartialTrustChain: boolean } {
  const { hostname, port } = new URL(url)
  const host = hostname.replace(/^\[|\]$/g, '')
  const pinned = new X509Certificate(certificate).raw
  return {
    host, port: port === '' ? 443 : Number(port), servername: isIP(host) === 0 ? host : '',
    ca: certificate, allowPartialTrustChain: true, minVersion: 'TLSv1.2', rejectUnauthorized: true,
    checkServerIdentity: (_host, { raw }) =>
      pinned.equals(raw) ? undefined : new Error('it shows another certificate')
  }
}

async function refusalOf(
  clock: Clock, peer: Peer, answer: IncomingMessage, signal: AbortSignal
): Promise<SallyportError> {
  const asking = { person: '', headMs: connectMs, silenceMs: connectMs, signal }
  const read = refusalAnswer.safeParse(
    await jsonOf(peer, piecesOf(clock, peer, answer, asking), refusalBytesMax).catch(() => undefined))
  if (!read.success) return silent(peer, `an answer of another kind (${answer.statusCode})`)
  const { code, reference, detail = '', problems } = read.data.error
  if (code === 'auth-required') return silent(peer, 'it refuses our ticket: is its signing key another?')
  if (code === 'internal' || !isCode(code)) return silent(peer, `failed (${code} ${reference})`)
  return new SallyportError(code, { detail: `node ${peer.node}: ${detail}`, problems })
}

function isCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorTable, code)
}

async function* piecesOf(
  clock: Clock, peer: Peer, answer: IncomingMessage, { silenceMs, signal }: Asking
): AsyncGenerator<Buffer> {
  const iterator = answer[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  for (;;) {
    // Only while we wait for it: a reader that takes its time is not its fault.
    const cancel = clock.after(silenceMs, () => void answer.destroy(silent(peer, 'it fell silent')))
    const next = await iterator.next()
      .catch((thrown: unknown) => { throw failure(peer, thrown, signal) })
      .finally(cancel)
    if (next.done === true) return
    yield next.value
  }
}

function failure(peer: Peer, thrown: unknown, signal: AbortSignal): SallyportError {
  if (thrown instanceof SallyportError) return thrown
  if (signal.aborted) return new SallyportError('client-closed', { cause: thrown })
  const { code, message } = thrown as NodeJS.ErrnoException
  return silent(peer, code === undefined ? message : `${code} ${message}`)
}

/** A JSON answer as its shape says; `bytesMax` is what we hold of it. */
export async function jsonAnswer<T extends z.ZodType>(
  peer: Peer, pieces: AsyncIterable<Buffer>, shape: T
): Promise<z.output<T>> {
  const read = shape.safeParse(await jsonOf(peer, pieces, jsonBytesMax))
  if (read.success) return read.data
  throw silent(peer, 'an answer of another shape')
}

async function jsonOf(peer: Peer, pieces: AsyncIterable<Buffer>, bytesMax: number): Promise<unknown> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of pieces) {
    bytes += chunk.length
    if (bytes > bytesMax) throw silent(peer, `an answer of more than ${bytesMax} bytes`)
    chunks.push(chunk)
  }
  return parsed(peer, Buffer.concat(chunks).toString('utf8'))
}

/** JSON lines as their shape says; empty ones only say that somebody is there. */
export async function* lineAnswers<T extends z.ZodType>(
  peer: Peer, pieces: AsyncIterable<Buffer>, shape: T
): AsyncGenerator<z.output<T>> {
  const decoder = new StringDecoder('utf8')
  let begun: string[] = []
  let characters = 0
  for await (const piece of pieces) {
    const [first = '', ...more] = decoder.write(piece).split('\n')
    begun.push(first)
    characters += first.length
    for (const next of more) {
      const line = begun.join('')
      begun = [next]
      characters = next.length
      if (line === '') continue
      const read = shape.safeParse(parsed(peer, line))
      if (!read.success) throw silent(peer, 'a line of another shape')
      yield read.data
    }
    if (characters > lineCharactersMax) throw silent(peer, 'a line that is too long')
  }
}

function parsed(peer: Peer, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw silent(peer, 'an answer that is no JSON')
  }
}
