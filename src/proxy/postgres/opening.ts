// Everything a client may say before it says who it is (protocol chapter "Start-up"): a request for TLS or
// for GSS encryption (each once, with nothing behind it), TLS at once, a cancel request, and at last the
// startup packet. The result is a claim, which nobody believes yet. Whatever else comes is refused, and
// nothing of it reaches a target.
import { X509Certificate, constants } from 'node:crypto'
import { createSecureContext } from 'node:tls'
import type { SecureContext } from 'node:tls'
import { SallyportError } from '../../errors.ts'
import { listenerTls } from '../../listener-tls.ts'
import { tlsServerEndPoint } from '../../wire/postgres/channel-binding.ts'
import { negotiateProtocolVersion, protocolMinorMax } from '../../wire/postgres/messages.ts'
import { classifyFirstPacket, sortStartup, startupBytesMax } from '../../wire/postgres/startup.ts'
import type { FirstPacket, Startup, StartupWishes } from '../../wire/postgres/startup.ts'
import type { Client } from './client.ts'

/** TLS of a listener, ready to be used. */
export interface TlsSetting {
  context: SecureContext
  /** What SCRAM-SHA-256-PLUS is bound to: a hash of this very certificate. */
  channelBinding: Buffer | undefined
  /** A client that stays in the clear is refused. */
  required: boolean
}

/** PEM texts. */
export interface TlsFiles {
  key: string
  cert: string
  required?: boolean | undefined
}

/** What a client says; `cancel` is the whole business of a connection and is answered by closing it. */
export type Opening =
  | { kind: 'cancel', pid: number, key: Buffer }
  | { kind: 'startup', minor: number, wishes: StartupWishes }

const [yes, no] = [Buffer.from('S'), Buffer.from('N')]

/** @throws Error of node:crypto or node:tls when key and certificate are no pair */
export function makeTlsSetting({ key, cert, required = false }: TlsFiles): TlsSetting {
  const context = createSecureContext({
    key, cert, ...listenerTls,
    // A client could make us do handshakes for ever over one connection.
    secureOptions: constants.SSL_OP_NO_RENEGOTIATION
  })
  return { context, required, channelBinding: tlsServerEndPoint(new X509Certificate(cert).raw) }
}

/**
 * Reads up to the startup packet or the cancel request.
 * @throws SallyportError `protocol-violation`, `option-refused`, `tls-required`, `client-closed`
 * @throws WireError for bytes that no PostgreSQL client sends
 */
export async function readOpening(client: Client, tls: TlsSetting | undefined): Promise<Opening> {
  let [askedTls, askedGss] = [false, false]
  for (;;) {
    const packet = await firstPacket(client)
    if (packet.kind === 'startup') return opened(client, packet, tls)
    if (packet.kind === 'cancel') return { kind: 'cancel', pid: packet.pid, key: packet.key }
    if (packet.kind === 'direct-tls') {
      if (tls === undefined || askedTls || askedGss) throw violation('TLS where it is not expected')
      await client.startTls(tls.context)
      if (client.alpn !== 'postgresql') throw violation('TLS without the ALPN protocol postgresql')
      askedTls = askedGss = true
      continue
    }
    const gss = packet.kind === 'gssenc'
    if (gss ? askedGss : askedTls) throw violation('a second request for encryption')
    client.take(packet.size)
    // In clear and before TLS: whoever wrote it is not the one who speaks TLS.
    if (client.inbox.length > 0) throw violation('bytes behind a request for encryption')
    if (gss) askedGss = true
    else askedTls = true
    if (gss || tls === undefined) client.write(no)
    else {
      client.write(yes)
      await client.startTls(tls.context)
      askedGss = true
    }
  }
}

async function firstPacket(client: Client): Promise<FirstPacket> {
  for (;;) {
    const packet = classifyFirstPacket(client.inbox)
    if (packet !== undefined) {
      if (packet.kind === 'direct-tls' && client.encrypted) throw violation('TLS within TLS')
      return packet
    }
    // The packet says that it is longer than what is allowed is found by its length word; this is for the
    // rest.
    if (client.inbox.length > startupBytesMax) throw violation('startup packet is too long')
    await client.more()
  }
}

function opened(client: Client, packet: Startup, tls: TlsSetting | undefined): Opening {
  client.take(packet.size)
  if (client.inbox.length > 0) throw violation('bytes behind the startup packet')
  if (tls?.required === true && !client.encrypted) throw new SallyportError('tls-required')
  const minor = Math.min(packet.minor, protocolMinorMax)
  if (minor < packet.minor || packet.protocolOptions.length > 0) {
    client.write(negotiateProtocolVersion(minor, packet.protocolOptions))
  }
  const wishes = sortStartup(packet.parameters)
  if (wishes.user === undefined || wishes.user === '') throw violation('no user name')
  if (wishes.replication === 'unclear') throw violation('replication is neither on nor off')
  if (wishes.refused.length > 0) {
    const names = wishes.refused.slice(0, 8).join(', ')
    throw new SallyportError('option-refused', { detail: `not allowed: ${names}` })
  }
  return { kind: 'startup', minor, wishes }
}

function violation(detail: string): SallyportError {
  return new SallyportError('protocol-violation', { detail })
}
