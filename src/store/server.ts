// The PostgreSQL store: options and sockets for postgres.js. The server itself is told to give up early
// (statement and lock time-outs below the house's own limit), so that an answer, even a refusal, normally
// comes in time and the connection stays good; only silence makes database.ts destroy it.
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import type { Backend, Destination } from './backend.ts'
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

/** A backend for a `postgres://` URL (several hosts may be named: the next one is tried after a failure). */
export function openServer(url: string, connectionsMax = connectionsDefault): Backend {
  let attempts = 0
  const dial = ({ host, port, path }: Destination): Socket => {
    const turn = attempts++ % host.length
    const name = host[turn] ?? 'localhost'
    const socket = typeof path === 'string' ? connect(path) : connect(port[turn] ?? 5432, name)
    // The driver reads the name for the certificate check from here.
    return Object.assign(socket, { host: name }).setNoDelay(true)
  }
  return {
    store: 'postgres',
    connectionsMax,
    connect: purpose => createConnection(dial, {
      connect_timeout: connectSecondsMax,
      keep_alive: keepAliveSeconds,
      connection: {
        application_name: 'sallyport',
        TimeZone: 'UTC',
        // An acknowledged row is a durable row, whatever the database's default says.
        synchronous_commit: 'on',
        statement_timeout: purpose === 'migration' ? migrationMsMax : statementMsMax,
        lock_timeout: purpose === 'migration' ? migrationMsMax : lockMsMax,
        idle_in_transaction_session_timeout: purpose === 'migration' ? migrationMsMax : idleTransactionMsMax
      }
    }, url),
    close: () => Promise.resolve()
  }
}
