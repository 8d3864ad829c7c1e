// A TCP listener for peers that are not trusted: counts them (admission.ts), turns away sources that failed
// too often (penalties.ts), sets keep-alive so that a peer that vanished is found out, and gives each socket
// to a protocol. Nothing is read from a socket before the protocol asks for it.
import { createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { createAdmission } from './admission.ts'
import type { Admission, AdmissionLimits, Ticket } from './admission.ts'
import type { Penalties } from './penalties.ts'
import { plainAddress } from './source.ts'

/**
 * Idle time before the kernel asks whether the peer is still there. Node then asks every second, ten times: a
 * peer that vanished is found out within 25 s (F24: 45 s).
 */
const keepAliveMs = 15_000

/** What a socket may hold unread while nobody reads it: a stranger gets one login message's worth. */
const unreadBytesMax = 16 * 1024

/** Waiting in the kernel for us to accept; a full event loop must not turn people away. */
const backlog = 511

export interface Arrival {
  /** Paused; errors on it are not handled yet. */
  socket: Socket
  address: string
  ticket: Ticket
  /** Closes the connection to make place for another: whoever moves it into another socket says how. */
  evict: () => void
}

export interface TcpListenOptions {
  host: string
  /** 0: any free one. */
  port: number
  limits: AdmissionLimits
  penalties: Penalties
  arrive(arrival: Arrival): void
  /** Says why and closes; the reason is an ErrorCode. */
  turnAway(socket: Socket, code: 'too-many-connections' | 'auth-throttled', address: string): void
  /** Accepting failed, e.g. for want of descriptors; the listener goes on. */
  onError(error: Error): void
}

export interface TcpListener {
  readonly address: AddressInfo
  readonly admission: Admission
  /** Takes no new connections; those that are there go on. Idempotent. */
  close(): Promise<void>
}

/** Rejects with the system's error when the address cannot be had. */
export async function listenTcp(options: TcpListenOptions): Promise<TcpListener> {
  const admission = createAdmission(options.limits)
  const server = createServer({
    allowHalfOpen: true, pauseOnConnect: true, noDelay: true, keepAlive: true,
    keepAliveInitialDelay: keepAliveMs, highWaterMark: unreadBytesMax
  }, socket => {
    const address = plainAddress(socket.remoteAddress)
    if (options.penalties.throttled(address)) return options.turnAway(socket, 'auth-throttled', address)
    const ticket = admission.enter(address, () => arrival.evict())
    if (ticket === undefined) return options.turnAway(socket, 'too-many-connections', address)
    const arrival: Arrival = { socket, address, ticket, evict: () => socket.destroy() }
    options.arrive(arrival)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host: options.host, port: options.port, backlog }, () => {
      server.off('error', reject)
      server.on('error', error => options.onError(error))
      resolve()
    })
  })
  return {
    address: server.address() as AddressInfo,
    admission,
    close: () => stop(server)
  }
}

/** Resolves when the port is free again; the server's own callback would wait for every connection. */
async function stop(server: Server): Promise<void> {
  if (!server.listening) return
  server.close()
  await new Promise(resolve => setImmediate(resolve))
}
