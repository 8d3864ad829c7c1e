// What a store must offer to the door in front of it (database.ts): connections of one driver. Two things
// implement it: a PostgreSQL server over sockets (server.ts) and the embedded store over a message port
// (embedded.ts). Nothing else of the two differs, and nothing else may. A connection has one life. The
// driver would quietly connect again, and send the rest of a transaction, in autocommit, over the
// connection that replaced a lost one; so each client is allowed to dial once.
import type { Duplex } from 'node:stream'
import type { Options, PostgresType, Sql } from 'postgres'
import { postgres } from './drizzle.ts'

/** `work`: short limits, for everything that somebody waits for. `migration`: long ones. */
export type Purpose = 'work' | 'migration'

export interface Backend {
  readonly store: 'pglite' | 'postgres'
  /** How many connections may be open at once. */
  readonly connectionsMax: number
  /** A new connection; it dials with its first statement. */
  connect(purpose: Purpose): Connection
  close(): Promise<void>
}

export interface Connection {
  /** Runs one statement after the other, in order, on this connection. */
  readonly client: Sql
  /** It is lost, or was destroyed: nothing must be sent any more. */
  isBroken(): boolean
  /** Ends it at once; what waits for an answer is rejected. */
  destroy(): void
}

/** What the driver tells its `socket` option (missing in its types): where the URL points. */
export interface Destination {
  host: readonly string[]
  port: readonly number[]
  path?: string | false | undefined
}

type DriverOptions = Options<Record<string, PostgresType>>

/** A connection whose bytes go through what `dial` opens. */
export function createConnection(
  dial: (to: Destination) => Duplex, options: DriverOptions, url?: string
): Connection {
  let stream: Duplex | undefined
  let destroyed = false
  const dialOnce = (to: Destination): Duplex => {
    if (stream !== undefined || destroyed) throw lost()
    stream = gathered(dial(to))
    return stream
  }
  const all = {
    max: 1,
    // Connections are given up when they break, never by age: it would be in the middle of something.
    max_lifetime: null,
    idle_timeout: null,
    // Types of columns come from the schema; the extra query at connect would only serve arrays.
    fetch_types: false,
    onnotice: () => {},
    socket: dialOnce,
    ...options
  } as DriverOptions
  const client = (url === undefined ? postgres(all) : postgres(url, all)) as Sql
  return {
    client,
    isBroken: () => destroyed || stream?.destroyed === true,
    destroy() {
      destroyed = true
      // Without an error, and without the driver's own end: under TLS both would reach a socket that nobody
      // listens to any more. The driver rejects what waits when it sees the stream closed.
      stream?.destroy()
    }
  }
}

/**
 * The driver writes each larger statement by itself; those of one moment travel together, since each write
 * costs more than most statements.
 */
function gathered(stream: Duplex): Duplex {
  const write = stream.write.bind(stream) as (...words: unknown[]) => boolean
  let isHeld = false
  stream.write = (...words: unknown[]): boolean => {
    if (!isHeld) {
      isHeld = true
      stream.cork()
      process.nextTick(() => {
        isHeld = false
        stream.uncork()
      })
    }
    return write(...words)
  }
  return stream
}

/** The error of a statement whose connection is gone: its effect is not known. */
export function lost(): Error {
  return Object.assign(new Error('the connection to the store is gone'), { code: 'CONNECTION_CLOSED' })
}
