// What went wrong in the store, in the words of the house. Drizzle's own error carries the statement and
// every parameter in its message, and a driver error may quote a value: neither may reach a log, so nothing
// of them is kept but SQLSTATE, constraint and a message of a class that holds no values. An error that is
// not the store's (thrown by the code inside a transaction) passes unchanged.
import { SallyportError } from '../errors.ts'
import type { ErrorCode } from '../errors.ts'
import { DrizzleQueryError } from './drizzle.ts'

/** The fields of a driver error that we read; `code` is an SQLSTATE or a code of Node or of postgres.js. */
interface DriverError extends Error {
  code?: string
  constraint_name?: string
  routine?: string
}

// Classes of SQLSTATE that mean "the store cannot do it now": connection, authentication, missing database,
// resources, locks, operator, system, internal and corruption.
const unavailableClasses = new Set(['08', '28', '3D', '53', '55', '57', '58', 'XX'])
// Raised by a server that has become a standby.
const readOnlyState = '25006'
// A NUL in a text or in JSON, which no column of ours can hold: it came from whoever asked.
const unfitTexts = new Set(['22021', '22P05'])
// What postgres.js says of a mistake of ours; its other codes, and those of Node, are of the transport.
const mistakes = new Set([
  'UNDEFINED_VALUE', 'MAX_PARAMETERS_EXCEEDED', 'NOT_TAGGED_CALL', 'UNSAFE_TRANSACTION'
])
// Errors of Node have codes of five letters, too (EPIPE); an SQLSTATE has a digit in it.
const sqlstate = /^(?=.*[0-9])[0-9A-Z]{5}$/

/** A statement of ours that did not go through drizzle, as drizzle's own error does it for the others. */
export class StatementError extends Error {
  constructor(cause: unknown) {
    super('a statement failed', { cause })
  }
}

/** What the driver threw; undefined when the error is not the store's. */
function driverError(thrown: unknown): DriverError | undefined {
  if (!(thrown instanceof DrizzleQueryError) && !(thrown instanceof StatementError)) return undefined
  // Drizzle also wraps what our own guard says.
  if (thrown.cause instanceof StatementError) return driverError(thrown.cause)
  return thrown.cause instanceof Error ? thrown.cause : new Error('unknown')
}

/** The SQLSTATE of a store error, when the server gave one. */
export function sqlstateOf(thrown: unknown): string | undefined {
  const code = driverError(thrown)?.code
  return code !== undefined && sqlstate.test(code) ? code : undefined
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
  const error = driverError(thrown)
  if (error === undefined) return thrown
  if (error instanceof SallyportError) return error
  const state = sqlstateOf(thrown)
  if (state !== undefined && unfitTexts.has(state)) {
    return new SallyportError('invalid', { problems: ['a text holds a character that cannot be stored'] })
  }
  if (state !== undefined) {
    return new SallyportError(codeOf(state), { detail: `store: ${state} ${describe(error, state)}` })
  }
  const code = error.code ?? error.name
  const isMistake = error.code === undefined || mistakes.has(error.code)
  return new SallyportError(isMistake ? 'internal' : 'store-unavailable', { detail: `store: ${code}` })
}

function codeOf(state: string): ErrorCode {
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
