// The connections of a store, each lent to one call at a time. The driver has a pool of its own, but puts a
// BEGIN behind other statements of a busy connection and then fails with an uncaught error (postgres.js
// 3.4.9, when `sent.length` reaches `max_pipeline`); and a call that owns its connection can be ended by
// destroying exactly that.
import type { Connection } from './backend.ts'

export interface Pool {
  /** A connection of one's own, first come first served; to be given back whatever happened. */
  take(): Promise<Connection>
  give(connection: Connection): void
  /** Ends all; those that are lent when they are given back. */
  close(): Promise<void>
}

export function createPool(connect: () => Connection, connectionsMax: number): Pool {
  const idle: Connection[] = []
  const waiting: ((connection: Connection) => void)[] = []
  let lent = 0
  let closed = false

  const next = (): Connection => {
    for (let connection = idle.pop(); connection !== undefined; connection = idle.pop()) {
      if (!connection.isBroken()) return connection
      connection.destroy()
    }
    return connect()
  }
  return {
    take() {
      if (lent >= connectionsMax) return new Promise(resolve => waiting.push(resolve))
      lent++
      return Promise.resolve(next())
    },
    give(connection) {
      if (closed || connection.isBroken()) connection.destroy()
      else idle.push(connection)
      const waiter = waiting.shift()
      if (waiter === undefined) lent--
      else waiter(next())
    },
    async close() {
      closed = true
      await Promise.all(idle.map(({ client }) => client.end({ timeout: 1 })))
    }
  }
}
