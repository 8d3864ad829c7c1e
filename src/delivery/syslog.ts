// Audit events for syslog: RFC 5424 with what identifies an event as structured data and its detail as JSON,
// over TLS (RFC 5425) or TCP with octet counting (RFC 6587), or UDP (RFC 5426). Syslog has no
// acknowledgement: a batch counts as taken when the system has sent it and the connection still stood a
// moment later; one that breaks before that is sent again, so that the receiver may see events twice, by the
// same chain and number.
import { createSocket } from 'node:dgram'
import { isIP, isIPv6, connect as connectTcp } from 'node:net'
import type { Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { Clock } from '../clock.ts'
import { sleep } from '../clock.ts'
import type { AuditEvent, Receiver } from './courier.ts'
import { NotDelivered } from './pieces.ts'

export interface SyslogOptions {
  host: string
  port: number
  transport: 'tls' | 'tcp' | 'udp'
  /** PEM texts: whom to believe instead of the system's authorities, and who we are. */
  ca?: string | undefined
  certificate?: string | undefined
  key?: string | undefined
  /** Of this node, as the receiver is to know it. */
  hostname: string
  clock: Clock
  /** After the last byte: how long the connection has to stand. */
  settleMs?: number | undefined
  /** Longest time in which a batch has to leave. */
  writeMs?: number | undefined
}

/** Longest message: what receivers take over a stream, and what fits a datagram (RFC 5426: 2048). */
const streamBytesMax = 32 * 1024
const datagramBytesMax = 2048
const connectMs = 5000
const writeMsDefault = 10_000
const settleMsDefault = 500
const eventsMax = 1000

/** Log audit (13); what a severity is, see `severityOf`. */
const facility = 13
// The number that RFC 5612 sets apart for examples: we have none of our own.
const dataId = 'sallyport@32473'

/** One event as a message; what is longer has its detail cut off and says so. */
export function syslogMessage(event: AuditEvent, hostname: string, bytesMax = streamBytesMax): Buffer {
  const { chain, seq, at, kind, actor, subject, hash } = event
  const priority = facility * 8 + severityOf(kind)
  const head = `<${priority}>1 ${at} ${name(hostname, 255)} sallyport - ${name(kind, 32)} `
  const data = (more: string): string => `[${dataId} ${[
    ['chain', chain], ['seq', String(seq)], ['actor', actor], ['subject', subject], ['hash', hash]
  ].map(([key, value]) => `${key}="${parameter(value ?? '')}"`).join(' ')}${more}]`
  const detail = inert(JSON.stringify(event.detail))
  const whole = Buffer.from(`${head}${data('')} \ufeff${detail}`)
  return whole.length <= bytesMax ? whole : Buffer.from(`${head}${data(' cut="true"')}`).subarray(0, bytesMax)
}

function severityOf(kind: string): number {
  if (/alarm|lost|failing/.test(kind)) return 1
  return /refused|interrupted|^rule\.(?:ended|warned)$/.test(kind) ? 4 : 6
}

/** What may stand between two spaces: printable ASCII. */
function name(text: string, charactersMax: number): string {
  return text.replace(/[^\x21-\x7e]/g, '?').slice(0, charactersMax) || '-'
}

// Longest name that somebody may have typed: a login, an address, a path.
const parameterCharactersMax = 256

function parameter(text: string): string {
  return inert(text.slice(0, parameterCharactersMax).toWellFormed()).replace(/["\\\]]/g, '\\$&')
}

/** Control characters and those that turn the direction of text, as JSON writes them. */
function inert(text: string): string {
  return text.replace(/[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu, character =>
    `\\u${character.codePointAt(0)!.toString(16).padStart(4, '0')}`)
}

export function syslogReceiver(options: SyslogOptions): Receiver {
  const isStream = options.transport !== 'udp'
  const line = isStream ? streamLine(options) : undefined
  return {
    name: 'syslog', eventsMax, wants: () => true,
    send: events => line === undefined ? sendDatagrams(options, events) : line.send(events),
    close: () => line?.close()
  }
}

/** A connection that is kept, and made anew when it is needed and gone. */
function streamLine(options: SyslogOptions) {
  let socket: Socket | undefined
  let closed = false
  const open = async (): Promise<Socket> => {
    if (closed) throw new NotDelivered('closed')
    if (socket?.destroyed === false) return socket
    const opened = await connected(options)
    socket = opened
    // Whatever it says is thrown away; not reading it would fill its buffers. Its end is ours.
    opened.resume().once('end', () => opened.destroy())
    if (closed) opened.destroy()
    return opened
  }
  return {
    async send(events: readonly AuditEvent[]) {
      const line = await open()
      const frames = events.map(event => {
        const message = syslogMessage(event, options.hostname)
        return Buffer.concat([Buffer.from(`${message.length} `), message])
      })
      await written(options, line, Buffer.concat(frames))
      await sleep(options.clock, options.settleMs ?? settleMsDefault)
      if (line.destroyed) throw new NotDelivered(`the connection broke: ${line.errored?.message ?? 'closed'}`)
    },
    close() {
      closed = true
      socket?.destroy()
    }
  }
}

function connected(
  { host, port, transport, ca, certificate, key, clock }: SyslogOptions
): Promise<Socket> {
  const identity = certificate === undefined ? {} : { cert: certificate, key: key ?? '' }
  const socket = transport === 'tls'
    ? connectTls({
        host, port, servername: isIP(host) > 0 ? '' : host, minVersion: 'TLSv1.2',
        ...ca === undefined ? {} : { ca }, ...identity
      })
    : connectTcp({ host, port })
  socket.setKeepAlive(true, 10_000)
  return new Promise((resolve, reject) => {
    const late = new Error(`no connection within ${connectMs} ms`)
    const cancel = clock.after(connectMs, () => socket.destroy(late))
    const fail = (error: Error): void => {
      cancel()
      reject(new NotDelivered(`${host}:${port}: ${error.message}`))
    }
    socket.once('error', fail)
    socket.once(transport === 'tls' ? 'secureConnect' : 'connect', () => {
      cancel()
      socket.off('error', fail)
      // Seen by `destroyed`.
      socket.on('error', () => undefined)
      resolve(socket)
    })
  })
}

function written(
  { clock, writeMs = writeMsDefault }: SyslogOptions, socket: Socket, bytes: Buffer
): Promise<void> {
  return new Promise((resolve, reject) => {
    const cancel = clock.after(writeMs, () => socket.destroy(new Error('the receiver does not read')))
    const gone = (): void => {
      cancel()
      reject(new NotDelivered(`the connection broke: ${socket.errored?.message ?? 'closed'}`))
    }
    if (socket.destroyed) return gone()
    socket.once('close', gone)
    socket.write(bytes, error => {
      if (error !== null && error !== undefined) return
      cancel()
      socket.off('close', gone)
      resolve()
    })
  })
}

async function sendDatagrams(
  { host, port, hostname }: SyslogOptions, events: readonly AuditEvent[]
): Promise<void> {
  const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4')
  try {
    for (const event of events) {
      const message = syslogMessage(event, hostname, datagramBytesMax)
      await new Promise<void>((resolve, reject) => {
        socket.send(message, port, host, error => error === null ? resolve() : reject(error))
      })
    }
  } finally {
    socket.close()
  }
}
