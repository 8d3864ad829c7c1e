// Receivers of audit events as a SIEM has them, in this process: a syslog server over TCP or TLS that reads
// octet-counted frames, and a web hook. Both can be told to misbehave, and keep what they were given.
import { createServer as createHttps } from 'node:https'
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import { createServer as createTcp } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { createServer as createTls } from 'node:tls'
import { systemClock } from '../../src/clock.ts'
import { selfSignedCertificate } from '../../src/wire/x509.ts'

export interface Identity {
  key: string
  cert: string
}

export function identity(): Identity {
  const now = systemClock.now().getTime()
  const { certificate, privateKey } = selfSignedCertificate({
    commonName: 'receiver', names: ['127.0.0.1', 'localhost'], validFrom: new Date(now - 60_000),
    validUntil: new Date(now + 3_600_000)
  })
  return { key: privateKey, cert: certificate }
}

export interface SyslogServer extends AsyncDisposable {
  port: number
  messages: string[]
  /** Called for each message; may end the connection. */
  onMessage: ((message: string, socket: Socket) => void) | undefined
  /** Takes no bytes any more. */
  deaf: boolean
}

/** Throws, in `problems`, at what is no octet-counted frame. */
export async function syslogServer(port = 0, tls?: Identity): Promise<SyslogServer & { problems: string[] }> {
  const sockets = new Set<Socket>()
  const take = (socket: Socket): void => {
    let kept = Buffer.alloc(0)
    sockets.add(socket)
    socket.on('error', () => undefined).once('close', () => sockets.delete(socket))
    if (server.deaf) return void socket.pause()
    socket.on('data', (chunk: Buffer) => {
      kept = Buffer.concat([kept, chunk])
      for (;;) {
        const [head = '', digits = ''] = /^([1-9]\d{0,6}) /.exec(kept.subarray(0, 9).toString('latin1')) ?? []
        if (head === '') {
          if (kept.length > 9) server.problems.push(kept.subarray(0, 20).toString())
          return
        }
        const end = head.length + Number(digits)
        if (kept.length < end) return
        const message = kept.subarray(head.length, end).toString('utf8')
        kept = kept.subarray(end)
        server.messages.push(message)
        server.onMessage?.(message, socket)
      }
    })
  }
  const listener: Server = tls === undefined ? createTcp(take) : createTls(tls, take)
  const server = {
    port: 0, messages: [] as string[], problems: [] as string[], deaf: false,
    onMessage: undefined as SyslogServer['onMessage'],
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise(resolve => listener.close(resolve))
    }
  }
  await new Promise<void>(resolve => listener.listen(port, '127.0.0.1', resolve))
  server.port = (listener.address() as AddressInfo).port
  return server
}

export interface Post {
  url: string
  headers: IncomingHttpHeaders
  body: string
}

export interface HookServer extends AsyncDisposable {
  url: string
  port: number
  posts: Post[]
  answer(response: ServerResponse, post: Post): void
}

export async function hookServer(tls: Identity, port = 0): Promise<HookServer> {
  const listener = createHttps(tls, (request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk)).once('end', () => {
      const post = {
        url: request.url ?? '', headers: request.headers, body: Buffer.concat(chunks).toString('utf8')
      }
      server.posts.push(post)
      server.answer(response, post)
    })
  })
  const server: HookServer = {
    url: '', port: 0, posts: [],
    answer: response => void response.writeHead(204).end(),
    async [Symbol.asyncDispose]() {
      listener.closeAllConnections()
      await new Promise(resolve => listener.close(resolve))
    }
  }
  await new Promise<void>(resolve => listener.listen(port, '127.0.0.1', resolve))
  server.port = (listener.address() as AddressInfo).port
  server.url = `https://127.0.0.1:${server.port}/hook?x=1`
  return server
}

export interface Parsed {
  priority: number
  at: string
  host: string
  kind: string
  data: Record<string, string>
  message: unknown
}

const part = '[\\x21-\\x7e]'
const instant = '\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{1,6}Z'
const pair = ` ${part}{1,32}="(?:[^"\\\\\\]]|\\\\["\\\\\\]])*"`
const grammar = new RegExp(`^<(\\d{1,3})>1 (${instant}) (${part}{1,255}) (${part}{1,48}) (${part}{1,128}) `
  + `(${part}{1,32}) \\[sallyport@32473((?:${pair})*)\\]`
  + '(?: \\ufeff([^]*))?$')

/** A message by the grammar of RFC 5424; throws where it is none, or has raw control characters. */
export function parseSyslog(text: string): Parsed {
  const [, priority, at = '', host = '', , , kind = '', pairs = '', message] = grammar.exec(text) ?? []
  if (priority === undefined || /\p{Cc}/u.test(text)) throw new Error(`no syslog message: ${text}`)
  const data = Object.fromEntries([...pairs.matchAll(/ ([^=]+)="((?:[^"\\\]]|\\.)*)"/g)]
    .map(([, key = '', value = '']) => [key, value.replace(/\\(["\\\]])/g, '$1')]))
  return {
    priority: Number(priority), at, host, kind, data,
    message: message === undefined ? undefined : JSON.parse(message) as unknown
  }
}
