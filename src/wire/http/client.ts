// A small client for our own requests to services over HTTP/1.1, on Node's parser. The service is not
// believed: no redirect is followed, answers are bounded in bytes and in time, nothing compressed is
// unpacked. What a caller must know of a failure is which side of the wire it was on: an UpstreamError means
// that nothing was sent, a ConnectionLost that the request may have been carried out.
import { Agent as PlainAgent, request as plainRequest } from 'node:http'
import type { ClientRequest, IncomingMessage, RequestOptions } from 'node:http'
import { Agent, request as tlsRequest } from 'node:https'
import { isIP } from 'node:net'
import type { Socket } from 'node:net'
import { checkServerIdentity, TLSSocket } from 'node:tls'
import type { PeerCertificate } from 'node:tls'
import { UpstreamError } from '../error.ts'
import type { TlsOptions } from '../postgres/dial.ts'
import { ConnectionLost } from '../postgres/query.ts'

/** A page of accounts is some 100 KiB. */
export const answerBytesMax = 1024 * 1024
export const requestBytesMax = 256 * 1024
const headerBytesMax = 32 * 1024

export interface HttpOptions {
  host: string
  port: number
  tls: TlsOptions
  connectMs: number
  signal: AbortSignal
}

export interface HttpRequest {
  method: string
  /** With the query, percent-encoded. */
  path: string
  headers: Readonly<Record<string, string>>
  body: string
}

export interface HttpAnswer {
  status: number
  /** Without parameters, in lower case. */
  contentType: string
  /** Seconds that a busy service asks us to wait; undefined when it does not say. */
  retryAfterSeconds: number | undefined
  body: Buffer
}

export interface HttpClient {
  /** What the service is called: for `host`, and for signatures. */
  readonly authority: string
  /** @throws UpstreamError when nothing was sent, ConnectionLost */
  send(request: HttpRequest, timeoutMs: number): Promise<HttpAnswer>
  close(): void
}

/** Connects at the first request; one connection, one request at a time. */
export function openHttp(options: HttpOptions): HttpClient {
  const { host, port, tls } = options
  if (tls.mode === 'verify-ca' && tls.ca === undefined) {
    throw new UpstreamError('untrusted', 'verify-ca needs a certificate authority; or use verify-full')
  }
  const plain = tls.mode === 'disable'
  const name = tls.serverName ?? host
  const usual = port === (plain ? 80 : 443) || tls.serverName !== undefined
  const authority = `${isIP(name) === 6 ? `[${name}]` : name}${usual ? '' : `:${port}`}`
  const limits = { keepAlive: true, maxSockets: 1 }
  const agent = plain ? new PlainAgent(limits) : new Agent({
    ...limits, ...tls.ca === undefined ? {} : { ca: tls.ca }, servername: isIP(name) === 0 ? name : '',
    rejectUnauthorized: tls.mode !== 'require' || tls.ca !== undefined,
    checkServerIdentity: (_host: string, certificate: PeerCertificate) =>
      tls.mode === 'verify-full' ? checkServerIdentity(name, certificate) : undefined
  })
  return {
    authority,
    send: (request, timeoutMs) => new Exchange(options, timeoutMs).run(plain ? plainRequest : tlsRequest, {
      agent, host, port, method: request.method, path: request.path, maxHeaderSize: headerBytesMax,
      headers: {
        'accept-encoding': 'identity', 'user-agent': 'sallyport', ...request.headers, 'host': authority,
        'content-length': Buffer.byteLength(request.body)
      }
    }, request.body),
    close: () => agent.destroy()
  }
}

/** One request and its answer. */
class Exchange {
  readonly #options: HttpOptions
  readonly #timeoutMs: number
  #sent = false

  constructor(options: HttpOptions, timeoutMs: number) {
    this.#options = options
    this.#timeoutMs = timeoutMs
  }

  async run(
    start: (options: RequestOptions) => ClientRequest, options: RequestOptions, body: string
  ): Promise<HttpAnswer> {
    const { signal, connectMs } = this.#options
    if (Buffer.byteLength(body) > requestBytesMax) {
      throw new UpstreamError('violation', `a request of more than ${requestBytesMax} bytes`)
    }
    if (signal.aborted) throw new UpstreamError('aborted', 'given up', { cause: signal.reason })
    let request: ClientRequest | undefined
    const limit = new AbortController()
    const late = setTimeout(() => limit.abort(), this.#timeoutMs)
    const unreached = setTimeout(() => { if (!this.#sent) limit.abort() }, connectMs)
    try {
      return await new Promise<HttpAnswer>((resolve, reject) => {
        request = start({ ...options, signal: AbortSignal.any([signal, limit.signal]) })
        request.on('socket', socket => this.#follow(socket))
        request.on('error', reject)
        request.on('response', response => { this.#read(response).then(resolve, reject) })
        request.end(body)
      })
    } catch (error) {
      throw this.#failure(error, limit.signal.aborted)
    } finally {
      clearTimeout(late)
      clearTimeout(unreached)
      // A late error of a connection that was given up has nobody to hear it.
      request?.on('error', () => undefined)
    }
  }

  /** Headers leave as soon as the socket is ready: from then on nobody can say that nothing was sent. */
  #follow(socket: Socket): void {
    const ready = socket instanceof TLSSocket ? 'secureConnect' : 'connect'
    const shaking = socket instanceof TLSSocket && [null, 'unknown'].includes(socket.getProtocol())
    if (socket.connecting || shaking) {
      socket.once(ready, () => { this.#sent = true })
    } else this.#sent = true
  }

  async #read(response: IncomingMessage): Promise<HttpAnswer> {
    const { 'content-encoding': coding, 'content-type': type = '', 'retry-after': after } = response.headers
    if (coding !== undefined && coding !== 'identity') {
      response.destroy()
      throw new ConnectionLost('violation', 'the answer is compressed, which nobody asked for')
    }
    const chunks: Buffer[] = []
    let bytes = 0
    for await (const chunk of response as AsyncIterable<Buffer>) {
      bytes += chunk.length
      if (bytes > answerBytesMax) {
        response.destroy()
        throw new ConnectionLost('too-large', `the answer is longer than ${answerBytesMax} bytes`)
      }
      chunks.push(chunk)
    }
    return {
      status: response.statusCode ?? 0, contentType: type.split(';', 1)[0]!.trim().toLowerCase(),
      retryAfterSeconds: /^\d{1,5}$/.test(after ?? '') ? Number(after) : undefined,
      body: Buffer.concat(chunks)
    }
  }

  #failure(error: unknown, late: boolean): Error {
    if (error instanceof ConnectionLost) return error
    const { signal } = this.#options
    const { code = '', message } = error as Error & { code?: string }
    const what = late ? 'no answer within the limit' : `${code} ${message}`.trim()
    if (this.#sent) {
      const lies = code.startsWith('HPE_')
      return new ConnectionLost(lies ? 'violation' : late ? 'timeout' : 'closed', what, error)
    }
    if (signal.aborted) return new UpstreamError('aborted', 'given up', { cause: signal.reason })
    const away = late || /^(?:ECONN|EPIPE|ETIMEDOUT|EHOST|ENET|ENOTFOUND|EAI_)/.test(code)
    if (away) return new UpstreamError('unreachable', what, { cause: error })
    return new UpstreamError('untrusted', `TLS: ${what}`, { cause: error })
  }
}
