// Every call to the store has a connection of its own and an end. At its limit the connection is destroyed,
// since whatever keeps it from answering (a partition, a frozen server, a commit that waits for a standby)
// may last for hours; the caller hears `store-unavailable`, also when it was still waiting for a free
// connection.
import type { Clock } from '../clock.ts'
import { SallyportError } from '../errors.ts'
import type { Backend } from './backend.ts'
import { asStoreError } from './failures.ts'
import { createOperation, handleFor, tooLate } from './operation.ts'
import type { Handle, Operation } from './operation.ts'
import { createPool } from './pool.ts'

export interface Calls {
  /**
   * Runs `act` and rejects with `store-unavailable` at the limit, when the operation that `act` has begun
   * last is ended. Other errors come out as SallyportErrors, where they are the store's.
   */
  inTime<T>(limitMs: number, act: (begin: () => Operation) => Promise<T>): Promise<T>
  /** Lends a connection to the operation for as long as `act` runs. */
  onConnection<T>(operation: Operation, act: (handle: Handle) => Promise<T>): Promise<T>
  /** Waits for running calls, then closes the backend. */
  close(): Promise<void>
}

export function createCalls(backend: Backend, clock: Clock): Calls {
  const pool = createPool(() => backend.connect('work'), backend.connectionsMax)
  const running = new Set<Promise<unknown>>()
  let closed = false

  const inTime = <T>(limitMs: number, act: (begin: () => Operation) => Promise<T>): Promise<T> => {
    if (closed) return Promise.reject(new SallyportError('store-unavailable', { detail: 'store: closed' }))
    let givenUp = false
    let current: Operation | undefined
    const begin = (): Operation => {
      if (givenUp) throw tooLate()
      current = createOperation()
      return current
    }
    const call = new Promise<T>((resolve, reject) => {
      const cancel = clock.after(limitMs, () => {
        givenUp = true
        if (current !== undefined) current.over = true
        current?.connection?.destroy()
        reject(new SallyportError('store-unavailable', { detail: `store: no answer within ${limitMs} ms` }))
      })
      act(begin).finally(cancel).then(resolve, (thrown: unknown) => reject(asStoreError(thrown) as Error))
    })
    running.add(call)
    call.catch(() => {}).finally(() => running.delete(call))
    return call
  }

  return {
    inTime,
    async onConnection(operation, act) {
      const connection = await pool.take()
      try {
        // Its turn came after the caller had given up.
        if (operation.over) throw tooLate()
        operation.connection = connection
        return await act(handleFor(operation, connection))
      } finally {
        operation.over = true
        pool.give(connection)
      }
    },
    async close() {
      if (closed) return
      closed = true
      await Promise.allSettled(running)
      await pool.close()
      await backend.close()
    }
  }
}
