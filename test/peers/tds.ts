// TDS 7.4 as a server speaks it, as much as the stock driver needs: the opening, TLS inside of it, the
// login, batches, and answers of errors and rows. What the batches mean is another file's (mssql-server.ts);
// here are bytes. It is a double: Microsoft's server was never at hand.
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { TLSSocket, createSecureContext } from 'node:tls'

export interface TdsLogin {
  username: string
  password: string
  database: string
}

export type Answer =
  | { rows: readonly (readonly (string | null)[])[] }
  | { error: number, message: string }

/** What a connection is told after its login. */
export interface TdsSession {
  batch(sql: string): Answer | Promise<Answer>
  ended(): void
}

export interface TdsOptions {
  tls?: { certificate: string, key: string } | undefined
  /** Says "no encryption", whatever it has. */
  deniesTls?: boolean
  /** A refusal, or the session; `close` ends the connection from our side. */
  login(login: TdsLogin, close: () => void): Answer | TdsSession
  /** After a login: tells the client to go to that port. */
  redirect?: number | undefined
}

export interface TdsServer extends AsyncDisposable {
  host: string
  port: number
  options: TdsOptions
}

const type = { batch: 0x01, login: 0x10, attention: 0x06, answer: 0x04, opening: 0x12 } as const
const packetBytesMax = 4096
const encryption = { off: 0, on: 1, unsupported: 2 } as const

export async function startTds(options: TdsOptions): Promise<TdsServer> {
  const sockets = new Set<Socket>()
  const server = createServer(socket => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    void new TdsConnection(socket, options).serve().catch(() => socket.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    host: '127.0.0.1', port: (server.address() as AddressInfo).port, options,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await Promise.resolve()
    }
  }
}

function utf16(text: string): Buffer {
  return Buffer.from(text, 'utf16le')
}

/** Text with its length in characters before it, in one byte or two. */
function counted(text: string, width: 1 | 2): Buffer {
  const count = Buffer.alloc(width)
  count.writeUIntLE(text.length, 0, width)
  return Buffer.concat([count, utf16(text)])
}

function lengthened(token: number, body: Buffer): Buffer {
  const head = Buffer.alloc(3)
  head.writeUInt8(token)
  head.writeUInt16LE(body.length, 1)
  return Buffer.concat([head, body])
}

function done(rows = 0, status = rows > 0 ? 0x10 : 0): Buffer {
  const token = Buffer.alloc(13)
  token.writeUInt8(0xfd)
  token.writeUInt16LE(status, 1)
  token.writeBigUInt64LE(BigInt(rows), 5)
  return token
}

function errorToken(number: number, message: string): Buffer {
  const head = Buffer.alloc(6)
  head.writeInt32LE(number)
  head.writeUInt8(1, 4)
  head.writeUInt8(14, 5)
  const tail = [counted('DOUBLE', 1), counted('', 1), Buffer.of(1, 0, 0, 0)]
  return lengthened(0xaa, Buffer.concat([head, counted(message, 2), ...tail]))
}

/** Columns of nvarchar, whatever they are. */
function rowTokens(rows: readonly (readonly (string | null)[])[]): Buffer[] {
  const columns = rows[0]?.length ?? 1
  const collation = [0x09, 0x04, 0xd0, 0x00, 0x34]
  const column = Buffer.of(0, 0, 0, 0, 9, 0, 0xe7, 0x40, 0x1f, ...collation, 0)
  const head = Buffer.of(0x81, columns, 0, ...Array.from({ length: columns }, () => [...column]).flat())
  const cell = (value: string | null): Buffer => {
    if (value === null) return Buffer.of(0xff, 0xff)
    const bytes = utf16(value)
    return Buffer.concat([Buffer.of(bytes.length & 0xff, bytes.length >> 8), bytes])
  }
  return [head, ...rows.map(row => Buffer.concat([Buffer.of(0xd1), ...row.map(cell)]))]
}

function loginTokens(redirect: number | undefined): Buffer {
  const ack = Buffer.concat([
    Buffer.of(1, 0x74, 0, 0, 4), counted('a double', 1), Buffer.of(16, 0, 0x10, 0)
  ])
  const tokens = [lengthened(0xad, ack)]
  if (redirect !== undefined) {
    const where = Buffer.concat([Buffer.of(0, redirect & 0xff, redirect >> 8), counted('127.0.0.1', 2)])
    const length = Buffer.of(where.length & 0xff, where.length >> 8)
    tokens.push(lengthened(0xe3, Buffer.concat([Buffer.of(20), length, where, Buffer.of(0, 0)])))
  }
  return Buffer.concat([...tokens, done()])
}

function readLogin(body: Buffer): TdsLogin {
  const text = (place: number): Buffer => {
    const start = body.readUInt16LE(36 + place * 4)
    return body.subarray(start, start + 2 * body.readUInt16LE(38 + place * 4))
  }
  const plain = text(2).map(byte => {
    const turned = byte ^ 0xa5
    return ((turned << 4) | (turned >> 4)) & 0xff
  })
  return {
    username: text(1).toString('utf16le'), password: Buffer.from(plain).toString('utf16le'),
    database: text(8).toString('utf16le')
  }
}

/** TLS bytes in packets of the opening until the first that is not. */
class Wrapped extends Duplex {
  readonly #socket: Socket
  readonly #held: Buffer[] = []
  isRaw = false

  constructor(socket: Socket) {
    super()
    this.#socket = socket
  }

  override _read(): void { /* is pushed */ }

  override _write(chunk: Buffer, _encoding: string, callback: () => void): void {
    if (this.isRaw) this.#socket.write(chunk)
    else {
      // One message for each flight.
      if (this.#held.length === 0) setImmediate(() => this.#flush())
      this.#held.push(chunk)
    }
    callback()
  }

  #flush(): void {
    this.#socket.write(packets(type.opening, Buffer.concat(this.#held.splice(0))))
  }
}

function packets(kind: number, body: Buffer): Buffer {
  const made: Buffer[] = []
  const room = packetBytesMax - 8
  for (let at = 0; at === 0 || at < body.length; at += room) {
    const part = body.subarray(at, at + room)
    const head = Buffer.alloc(8)
    head.writeUInt8(kind)
    head.writeUInt8(at + room >= body.length ? 1 : 0, 1)
    head.writeUInt16BE(part.length + 8, 2)
    head.writeUInt8(1, 6)
    made.push(head, part)
  }
  return Buffer.concat(made)
}

class TdsConnection {
  readonly #socket: Socket
  readonly #options: TdsOptions
  /** What messages are written to: the socket, or TLS over it. */
  #out: Duplex
  #session: TdsSession | undefined

  constructor(socket: Socket, options: TdsOptions) {
    this.#socket = socket
    this.#options = options
    this.#out = socket
    socket.on('error', () => undefined)
    socket.on('close', () => this.#session?.ended())
  }

  async serve(): Promise<void> {
    const plain = messagesOf(this.#socket)
    const first = await plain.next()
    if (first.done === true) return
    const wanted = asksForTls(first.value.body)
    const { tls, deniesTls } = this.#options
    const offers = tls !== undefined && deniesTls !== true && wanted
    this.#say(opening(offers ? encryption.on : encryption.unsupported))
    if (!offers || tls === undefined) return await this.#talk(plain)
    const wrapped = new Wrapped(this.#socket)
    const context = createSecureContext({ cert: tls.certificate, key: tls.key, maxVersion: 'TLSv1.2' })
    const secure = new TLSSocket(wrapped, { isServer: true, secureContext: context })
    secure.on('error', () => this.#socket.destroy())
    this.#out = secure
    const inner = this.#talk(messagesOf(secure))
    await unwrap(plain, this.#socket, wrapped)
    await inner
  }

  async #talk(messages: AsyncGenerator<Message>): Promise<void> {
    for await (const { kind, body } of messages) {
      if (kind === type.login) this.#login(body)
      else if (kind === type.batch) {
        const sql = body.subarray(body.readUInt32LE(0)).toString('utf16le')
        const answer = await this.#session?.batch(sql)
        if (answer !== undefined) this.#say(answerTokens(answer))
      } else if (kind === type.attention) this.#say(done(0, 0x20))
    }
  }

  #login(body: Buffer): void {
    const said = this.#options.login(readLogin(body), () => this.#socket.destroy())
    if ('batch' in said) {
      this.#session = said
      this.#say(loginTokens(this.#options.redirect))
    } else {
      this.#say(Buffer.concat([answerTokens(said)]))
      this.#socket.end()
    }
  }

  #say(tokens: Buffer): void {
    if (!this.#out.destroyed) this.#out.write(packets(type.answer, tokens))
  }
}

function answerTokens(answer: Answer): Buffer {
  return 'error' in answer
    ? Buffer.concat([errorToken(answer.error, answer.message), done(0, 2)])
    : Buffer.concat([...answer.rows.length > 0 ? rowTokens(answer.rows) : [], done(answer.rows.length)])
}

function asksForTls(body: Buffer): boolean {
  for (let at = 0; body[at] !== 0xff && at < body.length; at += 5) {
    if (body[at] === 1) return body[body.readUInt16BE(at + 1)] === encryption.on
  }
  return false
}

function opening(crypt: number): Buffer {
  return Buffer.of(0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 0xff, 16, 0, 0x10, 0, 0, 0, crypt)
}

interface Message {
  kind: number
  body: Buffer
}

/** Whole messages; ends with the stream. What follows a stop is left in the stream's own buffer. */
async function* messagesOf(stream: Duplex): AsyncGenerator<Message> {
  let body = Buffer.alloc(0)
  for (;;) {
    const head = await taken(stream, 8)
    if (head === undefined) return
    const part = await taken(stream, head.readUInt16BE(2) - 8)
    if (part === undefined) return
    body = Buffer.concat([body, part])
    if ((head[1]! & 1) === 0) continue
    yield { kind: head[0]!, body }
    body = Buffer.alloc(0)
  }
}

/** So many bytes, or undefined when the stream ends before. */
async function taken(stream: Duplex, count: number): Promise<Buffer | undefined> {
  if (count === 0) return Buffer.alloc(0)
  for (;;) {
    const bytes = stream.read(count) as Buffer | null
    if (bytes?.length === count) return bytes
    if (stream.readableEnded || stream.destroyed) return undefined
    await new Promise<void>(resolve => {
      const go = (): void => {
        for (const name of ['readable', 'end', 'close', 'error']) stream.off(name, go)
        resolve()
      }
      for (const name of ['readable', 'end', 'close', 'error']) stream.once(name, go)
    })
  }
}

/** Hands the handshake to TLS as long as it is in packets, then whatever comes. */
async function unwrap(plain: AsyncGenerator<Message>, socket: Socket, wrapped: Wrapped): Promise<void> {
  for (;;) {
    const first = await taken(socket, 1)
    if (first === undefined) return
    socket.unshift(first)
    if (first[0] !== type.opening) break
    const message = await plain.next()
    if (message.done === true) return
    wrapped.push(message.value.body)
  }
  wrapped.isRaw = true
  socket.on('data', (chunk: Buffer) => wrapped.push(chunk))
  socket.on('end', () => wrapped.push(null))
}
