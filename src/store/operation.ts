// One call to the store on a connection of its own: what its handle may still do, and how its transaction
// begins and ends. A handle that outlives its call, or whose connection was lost, sends nothing: a
// statement that was meant for a transaction must never run outside of it.
import type { PgDatabase } from 'drizzle-orm/pg-core'
import type { PostgresJsQueryResultHKT } from 'drizzle-orm/postgres-js'
import type { Sql } from 'postgres'
import { SallyportError } from '../errors.ts'
import { lost } from './backend.ts'
import type { Connection } from './backend.ts'
import { drizzle } from './drizzle.ts'
import { StatementError, sqlstateOf } from './failures.ts'

/** The query builder: the same type inside and outside of a transaction, on both stores. */
export type Handle = PgDatabase<PostgresJsQueryResultHKT, Record<string, never>>

/** How a transaction ended. `unknown`: the answer to COMMIT was lost; look before you believe either. */
export type Outcome = 'committed' | 'rolled-back' | 'unknown'

export interface Operation {
  connection: Connection | undefined
  /** Over, for its caller: nothing more may be sent. */
  over: boolean
  /** Statements that were sent, those that begin and end a transaction among them. */
  statements: number
  outcome: Outcome
  /** Last statements of a transaction, with which COMMIT travels; a refusal of theirs is the whole's. */
  readonly unanswered: Promise<unknown>[]
}

/** Sends a last statement of a transaction. Its answer is not waited for before COMMIT. */
export type SendLast = (text: string, parameters: readonly unknown[]) => void

export function createOperation(): Operation {
  return { connection: undefined, over: false, statements: 0, outcome: 'rolled-back', unanswered: [] }
}

/** A handle that works as long as the operation does. */
export function handleFor(operation: Operation, connection: Connection): Handle {
  return drizzle(guard(operation, connection) as unknown as Sql)
}

export function lastOf(operation: Operation): SendLast {
  return (text, parameters) => {
    const { connection } = operation
    if (operation.over || connection === undefined) throw tooLate()
    operation.statements++
    const answer = (async () => {
      try {
        await sentOnce(connection.client.unsafe(text, parameters as never[], { prepare: true }))
      } catch (thrown) {
        throw new StatementError(thrown)
      }
    })()
    answer.catch(() => {})
    operation.unanswered.push(answer)
  }
}

/**
 * Of a prepared statement that the server has forgotten the driver (postgres.js 3.4.9) keeps the error in
 * `retried` and sends it once more: behind COMMIT that would be outside of its transaction.
 */
function sentOnce<Q extends PromiseLike<unknown>>(statement: Q): Q {
  const known = statement as Q & { cancelled: unknown, reject(error: unknown): void }
  return Object.defineProperty(known, 'retried', {
    get: () => undefined,
    set(error: unknown) {
      known.cancelled = true
      known.reject(error)
    }
  })
}

export function tooLate(): SallyportError {
  return new SallyportError('store-unavailable', { detail: 'store: the call is over' })
}

/** The four words of postgres.js that drizzle's session uses. */
interface Guard {
  options: unknown
  unsafe(query: string, parameters?: unknown[]): unknown
  begin<T>(act: (tx: Guard) => Promise<T>): Promise<T>
  savepoint<T>(act: (tx: Guard) => Promise<T>): Promise<T>
}

function guard(operation: Operation, connection: Connection): Guard {
  const { client } = connection
  const check = (): void => {
    if (operation.over) throw tooLate()
    if (connection.isBroken()) throw new StatementError(lost())
  }
  // A plain statement of our own, without parameters.
  const say = async (statement: string): Promise<string> => {
    check()
    operation.statements++
    try {
      return (await client.unsafe(statement)).command
    } catch (thrown) {
      throw new StatementError(thrown)
    }
  }
  let savepoints = 0
  const guarded: Guard = {
    options: client.options,
    // Drizzle asks for unprepared statements, which cost a second round trip each; ours are few and fixed.
    unsafe(query, parameters) {
      check()
      operation.statements++
      return client.unsafe(query, parameters as never[], { prepare: true })
    },
    async begin(act) {
      // Not waited for: the first statement travels with it. If it fails, so does everything behind it.
      const begun = say('begin')
      begun.catch(() => {})
      try {
        const result = await act(guarded)
        await begun
        check()
        await commit(operation, say('commit'))
        return result
      } catch (thrown) {
        if (connection.isBroken()) throw thrown
        await client.unsafe('rollback').catch(() => connection.destroy())
        throw thrown
      }
    },
    async savepoint(act) {
      const name = `s${++savepoints}`
      await say(`savepoint ${name}`)
      try {
        return await act(guarded)
      } catch (thrown) {
        await say(`rollback to ${name}`)
        throw thrown
      }
    }
  }
  return guarded
}

async function commit(operation: Operation, answer: Promise<string>): Promise<void> {
  operation.outcome = 'unknown'
  try {
    const command = await answer
    operation.outcome = command === 'COMMIT' ? 'committed' : 'rolled-back'
    if (command === 'COMMIT') return
  } catch (thrown) {
    if (sqlstateOf(thrown) !== undefined) operation.outcome = 'rolled-back'
    throw thrown
  }
  await Promise.all(operation.unanswered)
  // A statement had failed, and what failed was swallowed inside: PostgreSQL rolls back without an error.
  const detail = 'store: a failed statement was ignored, nothing was committed'
  throw new SallyportError('internal', { detail })
}
