// Requests to become a WebSocket: sessions in a page of the console, and the live tail of a session as it is
// over HTTP. The first are refused here, in HTTP, unless they come from a page of ours (a browser says so,
// and no script can say otherwise) with the cookie of somebody who is logged in. The second are the route's
// own affair: it is asked as every request asks it, and only what it streams goes over another kind of line.
// What speaks on a WebSocket is none of the API's business: the connection is handed over.
import { STATUS_CODES } from 'node:http'
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { SallyportError, asSallyportError, errorTable } from '../errors.ts'
import type { Bindings } from './api.ts'
import { tokenOfCookie } from './cookie.ts'
import type { Caller } from './route.ts'
import { apiPrefix } from './calling.ts'

/** Where sessions in a page are. */
export const socketPath = `${apiPrefix}/browser/socket`
const tailPath = new RegExp(`^${apiPrefix}/sessions/[0-9a-z]{8,40}/watch$`)

export type Upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => void

export interface UpgradePorts {
  identify(token: string | undefined, address: string): Promise<Caller>
  /** The API, as over HTTP. */
  app: { fetch(request: Request, bindings: Bindings): Response | Promise<Response> }
  /** Takes the connection over, for a session. */
  accept(
    request: IncomingMessage, socket: Duplex, head: Buffer, asker: { user: string, login: string }): void
  /** Takes it over for what is told line by line; stops reading that when the other side has gone. */
  tail(request: IncomingMessage, socket: Duplex, head: Buffer, lines: AsyncIterable<Uint8Array>): void
}

export function createUpgrade(ports: UpgradePorts): Upgrade {
  return (request, socket, head) => {
    const ignore = (): void => undefined
    socket.on('error', ignore)
    const answer = tailPath.test(request.url ?? '') ? answerTail : answerPage
    answer(ports, request, socket, head).then(
      () => socket.off('error', ignore),
      (thrown: unknown) => {
        const { code, reference } = asSallyportError(thrown)
        const { http, client: message } = errorTable[code]
        refuse(socket, http, JSON.stringify({ error: { code, message, reference, problems: [] } }))
      })
  }
}

async function answerPage(
  { identify, accept }: UpgradePorts, request: IncomingMessage, socket: Duplex, head: Buffer
): Promise<void> {
  const { url, method, headers } = request
  if (url !== socketPath || method !== 'GET') {
    throw new SallyportError('not-found', { detail: 'no such route' })
  }
  // For a WebSocket browsers ask nobody whether another site may have it: this line is what does.
  if (headers.origin !== `https://${headers.host ?? ''}`) {
    throw new SallyportError('not-allowed', { detail: 'foreign origin' })
  }
  const { name, family } = await identify(tokenOfCookie(headers.cookie), request.socket.remoteAddress ?? '')
  // The local admin is nobody's browser.
  if (family === undefined) throw new SallyportError('auth-required')
  accept(request, socket, head, { user: name, login: family })
}

async function answerTail(
  { app, tail }: UpgradePorts, request: IncomingMessage, socket: Duplex, head: Buffer
): Promise<void> {
  const gone = new AbortController()
  socket.once('close', () => gone.abort())
  const { host, origin, cookie, authorization, 'sec-fetch-site': site } = request.headers
  const headers = Object.entries({ host, origin, cookie, authorization, 'sec-fetch-site': site })
    .filter((pair): pair is [string, string] => typeof pair[1] === 'string')
  const asked = new Request(`https://${host ?? ''}${request.url ?? ''}`, { headers, signal: gone.signal })
  const answer = await app.fetch(asked, { incoming: request })
  if (answer.status !== 200 || answer.body === null) {
    return refuse(socket, answer.status, await answer.text())
  }
  tail(request, socket, head, answer.body)
}

function refuse(socket: Duplex, status: number, body: string): void {
  socket.once('finish', () => socket.destroy())
  socket.end([
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}`, 'connection: close', 'content-type: application/json',
    `content-length: ${Buffer.byteLength(body)}`, '', body
  ].join('\r\n'))
}
