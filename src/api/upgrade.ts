// Requests to become a WebSocket, for sessions in a page of the console: refused here, in HTTP, unless they
// come from a page of ours (a browser says so, and no script can say otherwise) with the cookie of somebody
// who is logged in. What is then said on it is none of the API's business: it is handed over, together with
// whose it is.
import { STATUS_CODES } from 'node:http'
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { SallyportError, asSallyportError, errorTable } from '../errors.ts'
import { tokenOfCookie } from './cookie.ts'
import type { Caller } from './route.ts'
import { apiPrefix } from './openapi.ts'

/** Where sessions in a page are. */
export const socketPath = `${apiPrefix}/browser/socket`

export type Upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => void

export interface UpgradePorts {
  identify(token: string | undefined, address: string): Promise<Caller>
  /** Takes the connection over. */
  accept(
    request: IncomingMessage, socket: Duplex, head: Buffer, asker: { user: string, login: string }): void
}

export function createUpgrade({ identify, accept }: UpgradePorts): Upgrade {
  return (request, socket, head) => {
    const ignore = (): void => undefined
    socket.on('error', ignore)
    askerOf(identify, request).then(
      asker => {
        socket.off('error', ignore)
        accept(request, socket, head, asker)
      },
      (thrown: unknown) => refuse(socket, asSallyportError(thrown)))
  }
}

async function askerOf(
  identify: UpgradePorts['identify'], { url, method, headers, socket }: IncomingMessage
): Promise<{ user: string, login: string }> {
  if (url !== socketPath || method !== 'GET') {
    throw new SallyportError('not-found', { detail: 'no such route' })
  }
  // For a WebSocket browsers ask nobody whether another site may have it: this line is what does.
  if (headers.origin !== `https://${headers.host ?? ''}`) {
    throw new SallyportError('not-allowed', { detail: 'foreign origin' })
  }
  const token = tokenOfCookie(headers.cookie)
  const { name, family } = await identify(token, socket.remoteAddress ?? '')
  // The local admin is nobody's browser.
  if (family === undefined) throw new SallyportError('auth-required')
  return { user: name, login: family }
}

function refuse(socket: Duplex, error: SallyportError): void {
  const { code, reference } = error
  const { http, client: message } = errorTable[code]
  const body = JSON.stringify({ error: { code, message, reference, problems: [] } })
  socket.once('finish', () => socket.destroy())
  socket.end([
    `HTTP/1.1 ${http} ${STATUS_CODES[http] ?? ''}`, 'connection: close', 'content-type: application/json',
    `content-length: ${Buffer.byteLength(body)}`, '', body
  ].join('\r\n'))
}
