// The PostgreSQL store: options and sockets for postgres.js. The server itself is told to give up early
// (statement and lock time-outs below the house's own limit), so that an answer, even a refusal, normally
// comes in time and the connection stays good; only silence makes database.ts destroy it.
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { checkServerIdentity } from 'node:tls'
import type { ConnectionOptions } from 'node:tls'
import { SallyportError } from '../errors.ts'
import type { Backend, Connection, Destination, Purpose } from './backend.ts'
import { createConnection } from './backend.ts'

// Enough for a node's concurrent session starts (measured: 16 at once saturate two cores), few enough that
// ten nodes fit in a server's default of 100 connections.
const connectionsDefault = 8
const statementMsMax = 3_000
const lockMsMax = 2_500
// A node that stalls inside a transaction must not keep its row locks for long.
const idleTransactionMsMax = 10_000
const connectSecondsMax = 4
const keepAliveSeconds = 15
const migrationMsMax = 600_000

interface Verification {
  /** PEM; the system's authorities when absent. */
  ca: Buffer | undefined
  /** `verify-full`: the certificate must also be for the host of the URL. */
  checksName: boolean
}

/** A backend for a `postgres://` URL (several hosts may be named: the next one is tried after a failure). */
export function openServer(text: string, connectionsMax = connectionsDefault): Backend {
  const { url, verification } = readUrl(text)
  let attempts = 0
  const connectFor = (purpose: Purpose): Connection => {
    let dialled = ''
    const dial = ({ host, port, path }: Destination): Socket => {
      const turn = attempts++ % host.length
      dialled = host[turn] ?? 'localhost'
      const socket = typeof path === 'string' ? connect(path) : connect(port[turn] ?? 5432, dialled)
      // The driver reads the name for SNI from here.
      return Object.assign(socket, { host: dialled }).setNoDelay(true)
    }
    const ssl = verification === undefined ? {} : { ssl: tlsOptions(verification, () => dialled) }
    return createConnection(dial, { ...ssl, ...serverOptions(purpose) }, url)
  }
  return { store: 'postgres', connectionsMax, connect: connectFor, close: () => Promise.resolve() }
}

function serverOptions(purpose: Purpose) {
  const ofMigration = purpose === 'migration'
  return {
    connect_timeout: connectSecondsMax,
    keep_alive: keepAliveSeconds,
    connection: {
      application_name: 'sallyport',
      TimeZone: 'UTC',
      // An acknowledged row is a durable row, whatever the database's default says.
      synchronous_commit: 'on',
      statement_timeout: ofMigration ? migrationMsMax : statementMsMax,
      lock_timeout: ofMigration ? migrationMsMax : lockMsMax,
      idle_in_transaction_session_timeout: ofMigration ? migrationMsMax : idleTransactionMsMax
    }
  }
}

// The driver passes no name for an address, and Node then compares the certificate with `localhost`.
function tlsOptions({ ca, checksName }: Verification, dialled: () => string): ConnectionOptions {
  return {
    rejectUnauthorized: true,
    checkServerIdentity: (_name, certificate) =>
      checksName ? checkServerIdentity(dialled(), certificate) : undefined,
    ...(ca === undefined ? {} : { ca })
  }
}

/**
 * The URL, and apart from it what we do ourselves: `sslmode=verify-ca` and `verify-full` with
 * `sslrootcert`, a PEM file, all as libpq has them. Throws `invalid` when the URL or the file cannot be
 * read.
 */
function readUrl(text: string): { url: string, verification: Verification | undefined } {
  try {
    const url = new URL(text)
    const mode = url.searchParams.get('sslmode')
    const file = url.searchParams.get('sslrootcert')
    if (file === null && mode !== 'verify-ca' && mode !== 'verify-full') {
      return { url: text, verification: undefined }
    }
    url.searchParams.delete('sslrootcert')
    url.searchParams.delete('sslmode')
    const ca = file === null || file === 'system' ? undefined : readFileSync(file)
    return { url: url.href, verification: { ca, checksName: mode !== 'verify-ca' } }
  } catch (thrown) {
    // The URL has the password in it, and Node puts the URL into its error.
    const why = (thrown as NodeJS.ErrnoException).code ?? 'unreadable'
    throw new SallyportError('invalid', { detail: `store: its URL or sslrootcert: ${why}` })
  }
}
