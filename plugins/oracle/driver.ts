// The stock driver (oracledb, thin mode) in its thread: one statement in, rows of text out, each committed at
// once, as DDL is anyhow. It verifies certificates always, against the authorities of its thread, so that the
// target's own are set for the thread. `clientOf` is all that lies between the driver and the plugin: tests
// put a connection of their own there.
import { setDefaultCACertificates } from 'node:tls'
import type { TlsPolicy } from '../../src/jit/plugin.ts'
import { UpstreamError } from '../../src/wire/error.ts'
import { after } from '../../src/wire/limit.ts'
import { ConnectionLost } from '../../src/wire/postgres/query.ts'
import { drivers, loadDriver } from '../apart/load.ts'
import { serve } from '../apart/serve.ts'
import { DriverRefused, messageCharactersMax } from '../apart/words.ts'
import type { Binds, Client, Rows } from '../apart/words.ts'

/** What a connection needs, as it comes from the other thread. */
export interface OracleOptions {
  host: string
  port: number
  service: string
  tls: TlsPolicy
  username: string
  password: string
  connectMs: number
}

/** What the plugin uses of the driver's connection. */
export interface OracleConnection {
  callTimeout: number
  execute(sql: string, binds: readonly (string | number)[], options: object): Promise<{
    rows?: unknown[][] | undefined, rowsAffected?: number | undefined
  }>
  close(options?: { drop: boolean }): Promise<void>
}

interface Driver {
  getConnection(options: object): Promise<OracleConnection>
}

export interface DriverError extends Error {
  code?: string
  errorNum?: number
}

const rowsMax = 10_000
const wordForm = /^[A-Za-z0-9_.$#:-]{1,255}$/
/** Sessions that were ended, servers that shut down: nobody knows what became of the statement. */
const losses = [
  28, 603, 1012, 1033, 1034, 1089, 1090, 1092, 2396, 3113, 3114, 3135, 12537, 12547, 12570, 12571
]
/** The server is not open yet, or has no room. */
const notNow = [18, 20, 257, 1033, 1034, 1035, 1089, 1090, 12516, 12518, 12519, 12520, 12528]

/** @throws UpstreamError, SallyportError('prerequisite-missing') */
async function connectOracle(options: OracleOptions): Promise<Client> {
  const { tls, username, password, connectMs } = options
  const connectString = descriptorOf(options)
  const driver = await loadDriver<Driver>('oracledb', drivers.oracledb)
  if (tls.ca !== undefined) setDefaultCACertificates([tls.ca])
  try {
    const connection = await within(
      driver.getConnection({ user: username, password, connectString, externalAuth: false }), connectMs)
    return clientOf(connection)
  } catch (error) {
    throw asUpstream(error as DriverError)
  }
}

function descriptorOf({ host, port, service, tls, connectMs }: OracleOptions): string {
  for (const word of [host, service]) {
    if (!wordForm.test(word)) {
      throw new UpstreamError('refused', 'the target needs a host and, as its `database`, a service')
    }
  }
  if (tls.serverName !== undefined) {
    throw new UpstreamError('untrusted', 'tls.serverName is not for oracle: write the name as the address')
  }
  if (tls.mode === 'verify-ca' && tls.ca === undefined) {
    throw new UpstreamError('untrusted', 'verify-ca needs a certificate authority; or use verify-full')
  }
  const protocol = tls.mode === 'disable' ? 'tcp' : 'tcps'
  const match = tls.mode === 'verify-full' ? 'TRUE' : 'FALSE'
  const seconds = Math.max(1, Math.ceil(connectMs / 1000))
  return `(DESCRIPTION=(CONNECT_TIMEOUT=${seconds})(TRANSPORT_CONNECT_TIMEOUT=${seconds})(RETRY_COUNT=0)`
    + `(ADDRESS=(PROTOCOL=${protocol})(HOST=${host})(PORT=${port}))(CONNECT_DATA=(SERVICE_NAME=${service}))`
    + `(SECURITY=(SSL_SERVER_DN_MATCH=${match})))`
}

async function within<T>(work: Promise<T>, limitMs: number): Promise<T> {
  let onTime = (): void => undefined
  const late = new Promise<never>((_resolve, reject) => {
    onTime = after(limitMs, () => reject(new UpstreamError('timeout', 'connecting took too long')))
  })
  try {
    return await Promise.race([work, late])
  } finally {
    onTime()
  }
}

function asUpstream(error: DriverError): Error {
  if (error instanceof UpstreamError) return error
  const said = firstLine(error)
  if (error.errorNum !== undefined && error.errorNum > 0 && error.code?.startsWith('ORA-') === true) {
    const kind = notNow.includes(error.errorNum) ? 'unreachable' : 'refused'
    return new UpstreamError(kind, `the target refused the login: ${said}`, { cause: error })
  }
  if (/certificate|TLS|SSL/i.test(said)) {
    return new UpstreamError('untrusted', `TLS: ${said}`, { cause: error })
  }
  return new UpstreamError('unreachable', said, { cause: error })
}

function firstLine({ message }: Error): string {
  return (message.split('\n', 1)[0] ?? '').slice(0, messageCharactersMax)
}

/** A connection of the driver as the plugin has it. */
export function clientOf(connection: OracleConnection): Client {
  let isClosed = false
  const close = (): void => {
    if (isClosed) return
    isClosed = true
    // Whatever it says: the session is not used again.
    void connection.close({ drop: true }).catch(() => undefined)
  }
  return {
    close,
    async query(sql: string, limitMs: number, binds: Binds = []): Promise<Rows> {
      if (isClosed) throw new ConnectionLost('closed', 'the connection is closed')
      connection.callTimeout = limitMs
      try {
        const { rows, rowsAffected = 0 } = await connection.execute(sql, binds, {
          autoCommit: true, maxRows: rowsMax + 1, outFormat: arrays
        })
        if ((rows?.length ?? 0) > rowsMax) throw new ConnectionLost('too-large', `more than ${rowsMax} rows`)
        return rows?.map(row => row.map(asText)) ?? [[String(rowsAffected)]]
      } catch (error) {
        const known = lossOrRefusal(error as DriverError)
        if (known instanceof ConnectionLost) close()
        throw known
      }
    }
  }
}

/** `oracledb.OUT_FORMAT_ARRAY` */
const arrays = 4001

function asText(value: unknown): string | null {
  if (value === null || value === undefined) return null
  return typeof value === 'string' ? value : String(value as number)
}

function lossOrRefusal(error: DriverError): Error {
  if (error instanceof ConnectionLost) return error
  const isOra = error.code?.startsWith('ORA-') === true && error.errorNum !== undefined
  if (isOra && !losses.includes(error.errorNum ?? 0)) {
    return new DriverRefused(error.errorNum ?? 0, firstLine(error))
  }
  return new ConnectionLost('closed', firstLine(error), error)
}

serve<OracleOptions>(connectOracle)
