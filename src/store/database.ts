// The one door to the store. `run` and `transaction` hand out a drizzle handle and are the only way to get
// one, so that every call has the same three properties: it ends within five seconds, its errors are
// SallyportErrors without values in them, and a transaction whose connection was lost can never go on in
// autocommit. The embedded store and PostgreSQL 15+ both speak the wire protocol to the same driver
// (server.ts, embedded.ts), so types, SQL and results are the same on both.
import { AsyncLocalStorage } from 'node:async_hooks'
import { randomInt } from 'node:crypto'
import { sleep, systemClock } from '../clock.ts'
import type { Clock } from '../clock.ts'
import { SallyportError } from '../errors.ts'
import type { Backend } from './backend.ts'
import { createCalls } from './calls.ts'
import type { Calls } from './calls.ts'
import { sql } from './drizzle.ts'
import { openEmbedded } from './embedded.ts'
import { asStoreError, mayRetry } from './failures.ts'
import { listen } from './listen.ts'
import type { Listener } from './listen.ts'
import { migrate } from './migrate.ts'
import { lastOf, tooLate } from './operation.ts'
import type { Handle, Operation, Outcome, SendLast } from './operation.ts'
import { openServer } from './server.ts'

export type { Handle, Outcome } from './operation.ts'

/**
 * The last thing a transaction does before COMMIT; what it returns is called once with the outcome. What it
 * gives to `send` travels with COMMIT, and takes effect with it or not at all.
 */
export type LastStep = (tx: Handle, send: SendLast) => Promise<(outcome: Outcome) => void>

export interface Database {
  readonly store: 'pglite' | 'postgres'
  /**
   * One statement, or several that need not be atomic; inside of a transaction, part of that. `act` may run
   * again when its first statement met a deadlock. Throws SallyportError (`store-unavailable` …).
   */
  run<T>(act: (handle: Handle) => Promise<T>): Promise<T>
  /**
   * Commits what `act` did, or nothing; inside of a transaction, part of that. `act` may run again after a
   * deadlock or a serialisation failure: no effects outside of the transaction in it. `store-unavailable`
   * after a lost COMMIT means "perhaps done". `limitMs` is for administration that is known to take longer
   * than a call may.
   */
  transaction<T>(act: (tx: Handle) => Promise<T>, limitMs?: number): Promise<T>
  /** Adds a last step to the running transaction of this handle. */
  beforeCommit(tx: Handle, step: LastStep): void
  /** True when `run` would be part of a transaction that is open around the caller. */
  inTransaction(): boolean
  /**
   * Runs `act` as if no transaction were open around it: for work that the caller does not wait for.
   * Waiting for it inside of a transaction would be waiting for the embedded store's only connection.
   */
  detached<T>(act: () => T): T
  /**
   * The store's clock. Tells `onNotice` when it and the node's monotonic clock moved apart by a minute
   * (F19).
   */
  now(): Promise<Date>
  /**
   * Tells every node that listens to `channel`. Within a transaction: once it is committed. A hint, which
   * may be lost. The embedded store has one node: nothing is sent.
   */
  notify(channel: string, text: string): Promise<void>
  /** Hears what any node says, this one among them, until `close`. */
  listen(channel: string, listener: Listener): void
  /** Waits for running calls, then lets go of connections, worker and lock. */
  close(): Promise<void>
}

export interface StoreOptions {
  /** `pglite`, or a `postgres://` URL. */
  store: string
  /** Folder of the embedded store and its lock; made when absent. */
  dataDir: string
  clock?: Clock | undefined
  /** Connections to a PostgreSQL store; the embedded store has one. */
  connectionsMax?: number | undefined
  /** One line for the operator's log: takeover of a lock, a restarted worker, a clock that jumped. */
  onNotice?: ((line: string) => void) | undefined
}

// A session start waits for the store; a person should hear "unavailable" while still looking at the prompt.
export const callMsMax = 5_000
// A deadlock resolves at the first repetition, unless somebody keeps taking locks in another order: on a busy
// machine a mass update may win many times in a row. Repetitions thin out and together take less than the
// limit of a call, which ends them earlier where the server takes its usual second to notice; more failures
// than these are a defect that should be seen.
const attemptsMax = 16
const retryDelayMs = 10
// F19: smaller differences are drift and scheduling.
const clockJumpMsMin = 60_000

/**
 * Opens the store, brings its schema up to date, and hands out the only door to it. Throws
 * `store-unavailable`.
 */
export async function openDatabase(options: StoreOptions): Promise<Database> {
  const clock = options.clock ?? systemClock
  const onNotice = options.onNotice ?? (() => {})
  const backend = options.store === 'pglite'
    ? await openEmbedded({ dataDir: options.dataDir, clock, onNotice })
    : openServer(options.store, options.connectionsMax)
  try {
    await migrate(backend)
  } catch (thrown) {
    await backend.close()
    throw asStoreError(thrown)
  }
  return overBackend(backend, clock, onNotice)
}

/** A transaction while it is open: what is called inside of it becomes part of it. */
interface Scope {
  handle: Handle
  operation: Operation
  readonly lastSteps: LastStep[]
}

function overBackend(backend: Backend, clock: Clock, onNotice: (line: string) => void): Database {
  const calls = createCalls(backend, clock)
  const around = new AsyncLocalStorage<Scope | undefined>()
  const scopes = new WeakMap<Handle, Scope>()
  const enter = <T>(scope: Scope, act: () => Promise<T>): Promise<T> => {
    scopes.set(scope.handle, scope)
    return around.run(scope, act)
  }
  const openScope = (): Scope | undefined => {
    const scope = around.getStore()
    return scope?.operation.over === false ? scope : undefined
  }
  const storeNow = watchedNow(clock, onNotice)
  const stops: (() => void)[] = []
  const database: Database = {
    store: backend.store,
    run(act) {
      const open = openScope()
      if (open !== undefined) return joined(() => act(open.handle))
      return calls.inTime(callMsMax, begin => {
        let operation: Operation | undefined
        // A lone statement is all or nothing; what went before a second one may be done already.
        const mayRepeat = (): boolean => operation?.statements === 1
        return repeated(clock, () => calls.onConnection(operation = begin(), act), mayRepeat)
      })
    },
    transaction(act, limitMs = callMsMax) {
      const open = openScope()
      if (open !== undefined) return joined(() => act(open.handle))
      return calls.inTime(limitMs, begin =>
        repeated(clock, () => attempt(calls, begin(), act, enter), () => true))
    },
    beforeCommit(tx, step) {
      const scope = scopes.get(tx)
      if (scope === undefined) {
        throw new SallyportError('internal', { detail: 'store: no transaction of this door' })
      }
      if (scope.operation.over) throw tooLate()
      scope.lastSteps.push(step)
    },
    inTransaction: () => openScope() !== undefined,
    detached: act => around.run(undefined, act),
    now: () => database.run(storeNow),
    async notify(channel, text) {
      if (backend.store === 'pglite') return
      await database.run(handle => handle.execute(sql`select pg_notify(${channel}, ${text})`))
    },
    listen(channel, listener) {
      stops.push(listen(backend, clock, channel, listener))
    },
    close() {
      for (const stop of stops) stop()
      return calls.close()
    }
  }
  return database
}

type Enter = <T>(scope: Scope, act: () => Promise<T>) => Promise<T>

async function attempt<T>(
  calls: Calls, operation: Operation, act: (tx: Handle) => Promise<T>, enter: Enter
): Promise<T> {
  const settle: ((outcome: Outcome) => void)[] = []
  try {
    return await calls.onConnection(operation, handle => handle.transaction(tx => {
      const scope: Scope = { handle: tx, operation, lastSteps: [] }
      return enter(scope, async () => {
        const result = await act(tx)
        for (const step of scope.lastSteps) settle.push(await step(tx, lastOf(operation)))
        return result
      })
    }))
  } finally {
    for (const tell of settle) tell(operation.outcome)
  }
}

async function repeated<T>(clock: Clock, act: () => Promise<T>, mayRepeat: () => boolean): Promise<T> {
  for (let attempts = 1; ; attempts++) {
    try {
      return await act()
    } catch (thrown) {
      if (!mayRetry(thrown) || !mayRepeat() || attempts === attemptsMax) throw thrown
      // Not all at once again.
      await sleep(clock, attempts * randomInt(retryDelayMs / 2, retryDelayMs * 2))
    }
  }
}

async function joined<T>(act: () => Promise<T>): Promise<T> {
  try {
    return await act()
  } catch (thrown) {
    throw asStoreError(thrown)
  }
}

function watchedNow(clock: Clock, onNotice: (line: string) => void): (handle: Handle) => Promise<Date> {
  let offsetMs: number | undefined
  return async handle => {
    const [row] = await handle.execute<{ ms: string }>(
      sql`select (extract(epoch from clock_timestamp()) * 1000)::bigint::text as ms`)
    const storeMs = Number(row?.ms)
    const nowOffsetMs = storeMs - clock.monotonicMs()
    if (offsetMs !== undefined && Math.abs(nowOffsetMs - offsetMs) > clockJumpMsMin) {
      const seconds = Math.round((nowOffsetMs - offsetMs) / 1000)
      onNotice(`store: its clock jumped by ${seconds} s against this node's monotonic clock`)
    }
    offsetMs = nowOffsetMs
    return new Date(storeMs)
  }
}
