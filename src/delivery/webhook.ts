// Audit events for a web hook: a POST with some of them as JSON, signed with a secret that both sides know,
// so that the receiver can tell that it is us, that nothing was changed, and (by the time that is signed
// with it) that it is no old one. Only an answer of 2xx counts; a redirect is not followed, because a secret
// receiver that points elsewhere is a mistake at best.
import { createHash, createHmac } from 'node:crypto'
import { lookup } from 'node:dns'
import { Agent as HttpAgent, request as httpRequest } from 'node:http'
import type { ClientRequest, IncomingMessage } from 'node:http'
import { Agent, request as httpsRequest } from 'node:https'
import { BlockList } from 'node:net'
import type { LookupFunction } from 'node:net'
import type { Clock } from '../clock.ts'
import type { Secret } from '../secret.ts'
import type { AuditEvent, Receiver } from './courier.ts'
import { NotDelivered } from './pieces.ts'

export interface WebhookOptions {
  name: string
  /** `https:`; `http:` only towards this machine, which the configuration checks. */
  url: string
  secret: Secret<string>
  /** Kinds of events: `session.opened`, `session.*`, `*`. */
  events: readonly string[]
  /** PEM text. */
  ca?: string | undefined
  version: string
  clock: Clock
  /** From the first byte to the last of the answer. */
  limitMs?: number | undefined
  /** Asks for the addresses of a name; the system's by default. */
  lookup?: LookupFunction | undefined
}

const eventsMax = 100
const limitMsDefault = 10_000
/** Nobody reads the answer; one that does not end is cut. */
const answerBytesMax = 64 * 1024
// A wrong path, an expired token of a gateway, too many at once: those change by themselves or by an admin.
const passing: readonly number[] = [401, 403, 404, 405, 407, 408, 410, 421, 425, 429]

const ownAddresses = new BlockList()
ownAddresses.addSubnet('127.0.0.0', 8)
ownAddresses.addAddress('::1', 'ipv6')

/** Without TLS it stays on this machine, whatever its name resolves to at that moment. */
function onlyOwn(ask: LookupFunction): LookupFunction {
  return (name, options, done) => ask(name, options, (error, found, family) => {
    const all = typeof found === 'string' ? [{ address: found, family: family ?? 4 }] : found
    const isOwn = error === null
      && all.every(each => ownAddresses.check(each.address, each.family === 6 ? 'ipv6' : 'ipv4'))
    if (error !== null || isOwn) done(error, found, family)
    else done(new Error(`${name} is another machine, and its address has no https`), '', 0)
  })
}

/** What the receiver computes again: HMAC-SHA256 over `timestamp.delivery.body`. */
export function webhookSignature(
  secret: Secret<string>, timestamp: string, delivery: string, body: string
): string {
  const hmac = createHmac('sha256', secret.expose()).update(`${timestamp}.${delivery}.${body}`)
  return `v1=${hmac.digest('hex')}`
}

export function wantsKind(patterns: readonly string[], kind: string): boolean {
  return patterns.some(pattern => pattern === '*' || pattern === kind
    || (pattern.endsWith('.*') && kind.startsWith(pattern.slice(0, -1))))
}

export function webhookReceiver(options: WebhookOptions): Receiver {
  const { name, events: patterns, url, ca, lookup: ask = lookup } = options
  const isTls = url.startsWith('https:')
  const agent = isTls
    ? new Agent({ keepAlive: true, maxSockets: 1, minVersion: 'TLSv1.2', ...ca === undefined ? {} : { ca } })
    : new HttpAgent({ keepAlive: true, maxSockets: 1, lookup: onlyOwn(ask) })
  let running: ClientRequest | undefined
  return {
    name: `webhook ${name}`, eventsMax, wants: kind => wantsKind(patterns, kind),
    async send(events) {
      // The same events have the same id, in every attempt and after a restart.
      const hashes = events.map(({ hash }) => hash).join()
      const delivery = createHash('sha256').update(hashes).digest('hex').slice(0, 32)
      const body = JSON.stringify({ delivery, webhook: name, events: events.map(published) })
      const timestamp = String(Math.floor(options.clock.now().getTime() / 1000))
      running = (isTls ? httpsRequest : httpRequest)(url, {
        method: 'POST', agent, headers: {
          'content-type': 'application/json', 'content-length': Buffer.byteLength(body),
          'user-agent': `Sallyport/${options.version}`,
          'sallyport-delivery': delivery, 'sallyport-timestamp': timestamp,
          'sallyport-signature': webhookSignature(options.secret, timestamp, delivery, body)
        }
      })
      const status = await statusOf(options, running, body)
      if (status >= 200 && status < 300) return
      throw new NotDelivered(`answered ${status}`, status >= 400 && status < 500 && !passing.includes(status))
    },
    close() {
      running?.destroy()
      agent.destroy()
    }
  }
}

/** An event with a name of its own: receivers drop what they have already by `id`. */
function published({ hash, prev: _, ...event }: AuditEvent): Record<string, unknown> {
  return { id: hash, ...event }
}

function statusOf(
  { clock, limitMs = limitMsDefault }: WebhookOptions, sent: ClientRequest, body: string
): Promise<number> {
  return new Promise((resolve, reject) => {
    const cancel = clock.after(limitMs, () => sent.destroy(new Error(`no answer within ${limitMs} ms`)))
    sent.once('error', error => {
      cancel()
      reject(new NotDelivered(error.message))
    })
    sent.once('close', () => cancel())
    sent.once('response', (answer: IncomingMessage) => {
      let bytes = 0
      answer.on('data', (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes > answerBytesMax) sent.destroy(new Error('the answer does not end'))
      })
      answer.once('end', () => resolve(answer.statusCode ?? 0))
      answer.once('error', error => reject(new NotDelivered(error.message)))
    })
    sent.end(body)
  })
}
