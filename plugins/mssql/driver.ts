// The stock driver (tedious) in its thread: batches in, rows of text out. The driver believes its server
// where we do not. It logs in without TLS when the server says that it has none, although TLS was asked for;
// it follows a server that sends it elsewhere, with the password; it keeps whatever comes. So the socket is
// ours: no login leaves it before TLS, there is one connection, and an answer has a limit. What it throws
// out of turn ends the thread only.
import { Socket, isIP } from 'node:net'
import type { Connection, ConnectionConfiguration, Request } from 'tedious'
import type { TlsPolicy } from '../../src/jit/plugin.ts'
import { UpstreamError } from '../../src/wire/error.ts'
import { after, every } from '../../src/wire/limit.ts'
import { ConnectionLost } from '../../src/wire/postgres/query.ts'
import { drivers, loadDriver } from '../apart/load.ts'
import { serve } from '../apart/serve.ts'
import { DriverRefused, messageCharactersMax } from '../apart/words.ts'
import type { Client, Rows } from '../apart/words.ts'

/** What a connection needs, as it comes from the other thread. */
export interface MssqlOptions {
  host: string
  port: number
  database: string | undefined
  tls: TlsPolicy
  username: string
  password: string
  connectMs: number
}

interface Driver {
  Connection: new (config: ConnectionConfiguration) => Connection
  Request: new (sql: string, done: (error: DriverError | null | undefined) => void) => Request
}

interface DriverError extends Error {
  code?: string | undefined
  number?: number | undefined
}

const rowsMax = 10_000
/** Of one connection; our largest answer is a list of sessions. */
const answerBytesMax = 16 * 2 ** 20
const watchMs = 50
const columnBytesMax = 65_536
/** The TDS packet that has the password. */
const loginPacket = 0x10
/** "Server is being upgraded", "is paused", "only one administrator can connect": later, not never. */
const notNow = [17142, 18401, 18461]

/** The driver's socket: whoever asked for TLS says nothing but its opening before that stands. */
class GuardedSocket extends Socket {
  isGuarded: boolean

  constructor(isGuarded: boolean) {
    super()
    this.isGuarded = isGuarded
  }

  // Not `write`: connecting puts the stock one back.
  override _write(chunk: Uint8Array, encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (!this.#refuses(chunk, done)) super._write(chunk, encoding, done)
  }

  override _writev(
    chunks: { chunk: Uint8Array, encoding: BufferEncoding }[], done: (error?: Error | null) => void
  ): void {
    if (!chunks.some(({ chunk }) => this.#refuses(chunk, done))) super._writev?.(chunks, done)
  }

  /** Before TLS each chunk is one packet, and its first byte the type. */
  #refuses(chunk: Uint8Array, done: (error: Error) => void): boolean {
    if (!this.isGuarded || chunk[0] !== loginPacket) return false
    done(new UpstreamError('untrusted', 'the target does not offer TLS'))
    return true
  }
}

/** @throws UpstreamError, SallyportError('prerequisite-missing') */
async function connectTedious(options: MssqlOptions): Promise<Client> {
  const { Connection, Request } = await loadDriver<Driver>('tedious', drivers.tedious)
  const { host, port, database, tls, username, password, connectMs } = options
  if (tls.mode === 'verify-ca' && tls.ca === undefined) {
    throw new UpstreamError('untrusted', 'verify-ca needs a certificate authority; or use verify-full')
  }
  const socket = new GuardedSocket(tls.mode !== 'disable')
  let dials = 0
  const connection = new Connection({
    server: host,
    authentication: { type: 'default', options: { userName: username, password } },
    options: {
      port, ...database === undefined || database === '' ? {} : { database }, appName: 'sallyport',
      connectTimeout: connectMs, requestTimeout: 0, cancelTimeout: 1000, maxRetriesOnTransientErrors: 0,
      textsize: columnBytesMax, rowCollectionOnRequestCompletion: false, fallbackToDefaultDb: false,
      ...tlsOptions(tls, host),
      connector: () => {
        if (dials++ > 0) throw new UpstreamError('untrusted', 'the target sends us to another server')
        return dialed(socket, host, port)
      }
    }
  })
  connection.on('secure', () => { socket.isGuarded = false })
  // Only here is a refused login's number said.
  let number: number | undefined
  connection.on('errorMessage', said => { number = said.number })
  // Losses are seen by whoever waits for an answer.
  connection.on('error', () => undefined)
  const client = new TediousClient(connection, Request, socket)
  try {
    await opened(connection)
    if (socket.isGuarded) throw new UpstreamError('untrusted', 'the target does not offer TLS')
  } catch (error) {
    client.close()
    throw asUpstream(error as DriverError, number)
  }
  return client
}

function tlsOptions({ mode, ca, serverName }: TlsPolicy, host: string): ConnectionConfiguration['options'] {
  if (mode === 'disable') return { encrypt: false }
  const anybody = mode === 'require' && ca === undefined
  const name = serverName ?? host
  return {
    encrypt: true, trustServerCertificate: anybody,
    // The driver has no way to leave the name out: verify-ca checks it too.
    ...isIP(name) === 0 ? { serverName: name } : {},
    cryptoCredentialsDetails: { ...ca === undefined ? {} : { ca }, minVersion: 'TLSv1.2' }
  }
}

function dialed(socket: Socket, host: string, port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject)
    socket.connect({ host, port }, () => {
      socket.off('error', reject)
      resolve(socket)
    })
  })
}

async function opened(connection: Connection): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    connection.once('end', () => reject(new UpstreamError('unreachable', 'the connection was closed')))
    connection.connect(error => error === undefined || (error as Error | null) === null
      ? resolve()
      : reject(error))
  })
}

/** The first of an error and its causes that says more than the driver. */
function rootOf(error: Error): DriverError {
  let root: Error = error
  for (let depth = 0; depth < 8; depth++) {
    const next: unknown = root instanceof AggregateError ? root.errors[0] ?? root.cause : root.cause
    if (!(next instanceof Error) || root instanceof UpstreamError) break
    root = next
  }
  return root
}

function asUpstream(error: DriverError, number: number | undefined): Error {
  const root = rootOf(error)
  if (root instanceof UpstreamError) return root
  const said = error.message.slice(0, messageCharactersMax)
  if (error.code === 'ELOGIN' || number !== undefined) {
    const kind = notNow.includes(number ?? 0) ? 'unreachable' : 'refused'
    const what = `the target refused the login: ${said} (${number ?? ''})`
    return new UpstreamError(kind, what, { cause: error })
  }
  if (error.code === 'EENCRYPT') return new UpstreamError('untrusted', 'the target wants TLS: see its `tls`')
  if (error.code === 'ETIMEOUT') return new UpstreamError('timeout', 'connecting took too long')
  const code = root.code ?? ''
  if (/CERT|TLS|SSL|SIGNATURE|ISSUER/.test(code)) {
    return new UpstreamError('untrusted', `TLS: ${code}`, { cause: error })
  }
  return new UpstreamError('unreachable', code === '' ? said : code, { cause: error })
}

class TediousClient implements Client {
  readonly #connection: Connection
  readonly #Request: Driver['Request']
  readonly #socket: Socket
  #isClosed = false

  constructor(connection: Connection, request: Driver['Request'], socket: Socket) {
    this.#connection = connection
    this.#Request = request
    this.#socket = socket
  }

  async query(sql: string, limitMs: number): Promise<Rows> {
    if (this.#isClosed || this.#socket.destroyed) {
      throw new ConnectionLost('closed', 'the connection is closed')
    }
    const rows: (string | null)[][] = []
    let loss: ConnectionLost | undefined
    const lose = (reason: 'timeout' | 'too-large', message: string): void => {
      loss ??= new ConnectionLost(reason, message)
      this.close()
    }
    const onTime = after(limitMs, () => lose('timeout', `no answer within ${limitMs} ms`))
    const before = this.#socket.bytesRead
    const stopWatching = every(watchMs, () => {
      if (this.#socket.bytesRead - before > answerBytesMax) lose('too-large', 'the answer is too large')
    })
    try {
      await new Promise<void>((resolve, reject) => {
        const request = new this.#Request(sql, error => {
          if (error === null || error === undefined) resolve()
          else reject(error)
        })
        request.on('row', (columns: { value: unknown }[]) => {
          if (rows.length >= rowsMax) lose('too-large', `more than ${rowsMax} rows`)
          else rows.push(columns.map(({ value }) => asText(value)))
        })
        this.#connection.execSqlBatch(request)
      })
    } catch (error) {
      throw loss ?? lossOrRefusal(error as DriverError)
    } finally {
      onTime()
      stopWatching()
    }
    if (loss !== undefined) throw loss
    return rows
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#connection.close()
    this.#socket.destroy()
  }
}

function asText(value: unknown): string | null {
  if (value === null || value === undefined) return null
  return typeof value === 'string' ? value : String(value as number | bigint | boolean)
}

function lossOrRefusal(error: DriverError): Error {
  if (error.code === 'EREQUEST' && error.number !== undefined) {
    const said = error.message.slice(0, messageCharactersMax - 20)
    return new DriverRefused(error.number, `${said} (${error.number})`)
  }
  return new ConnectionLost('closed', error.message, error)
}

// An address as the server's name, which the driver hands to TLS: right for certificates that name addresses.
process.noDeprecation = true
serve<MssqlOptions>(connectTedious)
