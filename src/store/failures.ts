// What went wrong in the store, in the words of the house. Drizzle's own error carries the statement and
// every parameter in its message, and a driver error may quote a value: neither may reach a log, so nothing
// of them is kept but SQLSTATE, constraint and a message of a class that holds no values. An error that is
// not the store's (thrown by the code inside a transaction) passes unchanged.
import { SallyportError } from '../errors.ts'
import type { ErrorCode } from '../errors.ts'
import { DrizzleQueryError } from './drizzle.ts'

/** The fields of a driver error that we read; `code` is an SQLSTATE or a code of Node or of postgres.js. */
interface DriverError extends Error {
  code: string
  constraint_name?: string
  routine?: string
}

// Classes of SQLSTATE that mean "the store cannot do it now": connection, resources, operator, system,
// corruption.
const unavailableClasses = new Set(['08', '28', '3D', '53', '55', '57', '58', 'XX'])
// Raised by a server that has become a standby.
const readOnlyState = '25006'
// Node's and postgres.js's own codes: ECONNREFUSED, ENOENT of a socket file, CONNECTION_CLOSED,
// CONNECT_TIMEOUT …
const transportCode = /^(E[A-Z_]+|(CONNECT|CONNECTION|SASL|AUTH)_[A-Z_]+)$/
const sqlstate = /^[0-9A-Z]{5}$/

/** Unwraps what drizzle put around the driver's error. */
function driverError(thrown: unknown): DriverError | undefined {
  const inner = thrown instanceof DrizzleQueryError ? thrown.cause : thrown
  if (!(inner instanceof Error) || inner instanceof SallyportError) return undefined
  const code = (inner as Partial<DriverError>).code
  return typeof code === 'string' ? inner as DriverError : undefined
}

/** The SQLSTATE of a store error, when the server gave one. */
export function sqlstateOf(thrown: unknown): string | undefined {
  const error = driverError(thrown)
  if (error === undefined || transportCode.test(error.code)) return undefined
  return sqlstate.test(error.code) ? error.code : undefined
}

/**
 * True when the same transaction, begun anew, may well succeed: serialisation, deadlock, a catalogue race.
 */
export function mayRetry(thrown: unknown): boolean {
  const state = sqlstateOf(thrown)
  if (state === '40001' || state === '40P01') return true
  return state === 'XX000' && /concurrently/.test(driverError(thrown)?.message ?? '')
}

/** Turns an error of drizzle, driver or server into a SallyportError; others pass as they are. */
export function asStoreError(thrown: unknown): unknown {
  if (thrown instanceof SallyportError) return thrown
  const error = driverError(thrown)
  if (error === undefined) {
    if (!(thrown instanceof DrizzleQueryError)) return thrown
    return new SallyportError('internal', { detail: 'store: a statement failed in the driver' })
  }
  const state = sqlstateOf(thrown)
  if (state === undefined) {
    if (!transportCode.test(error.code) && !(thrown instanceof DrizzleQueryError)) return thrown
    return new SallyportError('store-unavailable', { detail: `store: ${error.code}` })
  }
  return new SallyportError(codeFor(state), { detail: `store: ${state} ${describe(error, state)}` })
}

function codeFor(state: string): ErrorCode {
  if (state === '23505' || state === '40001' || state === '40P01') return 'conflict'
  if (state === '23503') return 'in-use'
  if (state === readOnlyState || unavailableClasses.has(state.slice(0, 2))) return 'store-unavailable'
  return 'internal'
}

// Messages of classes 22 and 23 may quote the value that was refused.
function describe(error: DriverError, state: string): string {
  if (error.constraint_name !== undefined) return error.constraint_name
  return state.startsWith('22') || state.startsWith('23') ? error.routine ?? '' : error.message.slice(0, 200)
}
