// The HTTPS server under the API: TLS 1.2 and later only, and a limit on everything that a stranger can
// hold on to (connections, time to send a request, size of its head). A request that is being answered may
// take as long as it takes: a live tail has no end.
import { createServer } from 'node:https'
import type { AddressInfo, Server } from 'node:net'
import type { Duplex } from 'node:stream'
import { getRequestListener } from '@hono/node-server'
import type { createApi } from './api.ts'
import type { Clock } from '../clock.ts'
import { SallyportError } from '../errors.ts'
import type { Address } from '../input.ts'
import { listenerTls } from '../listener-tls.ts'
import type { Upgrade } from './upgrade.ts'

/** Connections at once: admins, auditors and their tools, not the sessions themselves. */
export const apiConnectionsMax = 1_000
/** From connect to the last byte of a request's head; a stranger holds nothing longer. */
const headSecondsMax = 10
/** From connect to the last byte of a request. */
const requestSecondsMax = 60
const idleSecondsMax = 60
const headBytesMax = 16 * 1024
const requestsPerConnectionMax = 10_000

export interface ApiServer {
  /** Where it listens; the port that was given by the system when 0 was asked for. */
  address: Address
  /** Takes nothing new, gives answers in the making `graceMs`, then cuts. */
  close(graceMs: number): Promise<void>
}

/** PEM texts. */
export interface ServerKeys {
  key: string
  certificate: string
}

/** Rejects with SallyportError `internal` and the system's reason (in use, not permitted). */
export function listening(server: Server, at: Address): Promise<Address> {
  return new Promise((resolve, reject) => {
    server.once('error', cause => {
      const detail = `cannot listen on ${at.host}:${at.port}: ${cause.message}`
      reject(new SallyportError('internal', { detail, cause }))
    })
    server.listen(at.port, at.host, () => {
      const { address: host, port } = server.address() as AddressInfo
      resolve({ host, port })
    })
  })
}

/** Starts listening; rejects as `listening` does. */
export async function serveApi(
  app: ReturnType<typeof createApi>, at: Address, keys: ServerKeys, clock: Clock, upgrade?: Upgrade
): Promise<ApiServer> {
  const sockets = new Set<Duplex>()
  const server = createServer({
    key: keys.key, cert: keys.certificate, ...listenerTls, handshakeTimeout: headSecondsMax * 1000,
    headersTimeout: headSecondsMax * 1000, requestTimeout: requestSecondsMax * 1000,
    keepAliveTimeout: idleSecondsMax * 1000, maxHeaderSize: headBytesMax
  }, getRequestListener(app.fetch, { overrideGlobalObjects: false }))
  server.maxConnections = apiConnectionsMax
  server.maxRequestsPerSocket = requestsPerConnectionMax
  server.on('connection', socket => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  if (upgrade !== undefined) server.on('upgrade', upgrade)
  // A peer that speaks no TLS, or breaks off: its own affair.
  server.on('tlsClientError', (_error, socket) => socket.destroy())
  server.on('clientError', (_error, socket) => socket.destroy())
  const address = await listening(server, at)
  return { address, close: graceMs => close(server, sockets, clock, graceMs) }
}

async function close(
  server: ReturnType<typeof createServer>, sockets: Set<Duplex>, clock: Clock, graceMs: number
): Promise<void> {
  const closed = new Promise<void>(resolve => server.close(() => resolve()))
  server.closeIdleConnections()
  const cancel = clock.after(graceMs, () => {
    for (const socket of sockets) socket.destroy()
  })
  await closed
  cancel()
}
