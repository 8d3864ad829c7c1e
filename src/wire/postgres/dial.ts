// The way to a target: TCP, then TLS as its policy says (libpq's sslmode, chapter "SSL Support"). Nothing is
// ever sent in clear to a target that should speak TLS: there is no fall-back, a refusal of TLS is an error,
// and bytes that come with the answer to SSLRequest are refused (they were written before TLS;
// CVE-2021-23222). Connecting and TLS have their own limits, so that a mute target costs no more than these.
import { X509Certificate } from 'node:crypto'
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import {
  checkServerIdentity, connect as connectTls, createSecureContext, type SecureContext, type TLSSocket
} from 'node:tls'
import { UpstreamError } from '../error.ts'
import { tlsServerEndPoint } from './channel-binding.ts'
import { Channel } from './channel.ts'
import { sslRequest } from './messages.ts'

/**
 * Idle seconds before the kernel asks whether the target is still there (semantics F24: found out within 45
 * s).
 */
const keepAliveMs = 15_000

/** Trust stores kept ready: reading one costs a millisecond for each connection. */
const contextsMax = 64

export interface TlsOptions {
  /**
   * disable: no TLS. require: TLS with any certificate, but with `ca` as verify-ca (as libpq). verify-ca:
   * issued by `ca`, which must be given. verify-full: and for `serverName`, or else `host`; without `ca` the
   * system's authorities.
   */
  mode: 'disable' | 'require' | 'verify-ca' | 'verify-full'
  /** PEM. */
  ca?: string | undefined
  serverName?: string | undefined
}

export interface DialOptions {
  host: string
  port: number
  tls: TlsOptions
  timeouts: { connectMs: number, tlsMs: number }
  /**
   * For a relay, on connections without TLS: supplies the buffer of each read, which may be the same for all
   * connections (Node's `onread`: no allocation for each read). Every byte is used or copied before the read
   * returns.
   */
  readBuffer?: (() => Buffer) | undefined
}

const contexts = new Map<string, SecureContext>()

function contextFor(ca: string | undefined): SecureContext {
  const key = ca ?? ''
  let context = contexts.get(key)
  if (context === undefined) {
    try {
      // Node takes any text for an authority, and then trusts nobody: say so at once.
      if (ca !== undefined) new X509Certificate(ca)
      context = createSecureContext(ca === undefined ? {} : { ca })
    } catch (cause) {
      throw new UpstreamError('untrusted', 'the authority of the target cannot be read', { cause })
    }
    if (contexts.size >= contextsMax) contexts.delete(contexts.keys().next().value!)
    contexts.set(key, context)
  }
  return context
}

function unreachable(error: Error & { code?: string }): UpstreamError {
  return new UpstreamError('unreachable', error.code ?? error.message, { cause: error })
}

// Everything that goes wrong while TLS is set up is a question of trust, except a connection that breaks.
function untrusted(error: Error & { code?: string }): UpstreamError {
  if (/^(ECONN|EPIPE|ETIMEDOUT|EHOST|ENET)/.test(error.code ?? '')) return unreachable(error)
  return new UpstreamError('untrusted', `TLS: ${error.code ?? error.message}`, { cause: error })
}

/**
 * Connects `channel` to the target; with TLS it speaks it when this resolves.
 * Resolves with the channel binding data of the target's certificate, undefined without TLS.
 * The caller destroys the channel when this rejects. @throws UpstreamError
 */
export async function dial(channel: Channel, options: DialOptions): Promise<Buffer | undefined> {
  const { tls } = options
  await reach(channel, options)
  if (tls.mode === 'disable') return undefined
  const socket = await protect(channel, options, ['postgresql'], () => askForTls(channel))
  const certificate = socket.getPeerX509Certificate()
  return certificate === undefined ? undefined : tlsServerEndPoint(certificate.raw)
}

/** TCP only, for every protocol: what `protect` follows, at once or when the protocol says so. */
export async function reach(channel: Channel, options: DialOptions): Promise<void> {
  const { tls, timeouts } = options
  if (tls.mode === 'verify-ca' && tls.ca === undefined) {
    // As libpq: any certificate that some public authority ever issued would do.
    throw new UpstreamError('untrusted', 'verify-ca needs a certificate authority; or use verify-full')
  }
  const stop = channel.limit(timeouts.connectMs, 'connecting to the target')
  try {
    await open(channel, options)
  } finally {
    stop()
  }
}

/** TLS on a channel that is connected; `ask` says in the protocol's words that it begins. */
export async function protect(
  channel: Channel, options: DialOptions, protocols: readonly string[], ask: () => Promise<void>
): Promise<TLSSocket> {
  const stop = channel.limit(options.timeouts.tlsMs, 'TLS with the target')
  try {
    await ask()
    // They were written before TLS, by whoever stands between us (CVE-2021-23222).
    if (channel.unread > 0) throw new UpstreamError('violation', 'the target sent bytes before TLS')
    return await secure(channel, options, protocols)
  } finally {
    stop()
  }
}

async function open(channel: Channel, { host, port, tls, readBuffer }: DialOptions): Promise<void> {
  const shared = tls.mode === 'disable' ? readBuffer : undefined
  const base = { host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: keepAliveMs }
  const socket: Socket = connectTcp(shared === undefined ? base : {
    ...base,
    onread: { buffer: shared, callback: (bytes: number, buffer: Uint8Array) => channel.accept(buffer, bytes) }
  })
  channel.attach(socket, shared === undefined, unreachable)
  await channel.during<void>(done => socket.once('connect', () => done()))
}

async function askForTls(channel: Channel): Promise<void> {
  channel.write(sslRequest())
  const answer = String.fromCharCode(await channel.byte())
  if (answer === 'N') throw new UpstreamError('untrusted', 'the target does not offer TLS')
  // Its text is not shown: anybody on the way may have written it (CVE-2024-10977).
  if (answer === 'E') throw new UpstreamError('refused', 'the target answered TLS with an error')
  if (answer !== 'S') throw new UpstreamError('violation', 'the target did not answer the request for TLS')
}

async function secure(
  channel: Channel, { host, tls }: DialOptions, protocols: readonly string[]
): Promise<TLSSocket> {
  const name = tls.serverName ?? host
  const socket = connectTls({
    socket: channel.socket,
    secureContext: contextFor(tls.ca),
    // An address is not a name that TLS could carry.
    servername: isIP(name) === 0 ? name : '',
    ALPNProtocols: [...protocols],
    rejectUnauthorized: tls.mode !== 'require' || tls.ca !== undefined,
    checkServerIdentity: (_, certificate) =>
      tls.mode === 'verify-full' ? checkServerIdentity(name, certificate) : undefined
  })
  channel.attach(socket, true, untrusted)
  await channel.during<void>(done => socket.once('secureConnect', () => done()))
  channel.attach(socket, true, unreachable)
  return socket
}
