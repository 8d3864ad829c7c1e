// What a driver's thread and we say to each other, as data that can be cloned. Errors cross as what they
// mean: a refusal of the server (nothing of the statement happened), a loss (nobody knows), or why there is
// no connection.
import { SallyportError } from '../../src/errors.ts'
import { UpstreamError } from '../../src/wire/error.ts'
import type { UpstreamErrorKind } from '../../src/wire/error.ts'
import { ConnectionLost } from '../../src/wire/postgres/query.ts'
import type { LossReason } from '../../src/wire/postgres/query.ts'

export type Rows = readonly (readonly (string | null)[])[]

/** Positions of the server's own kind of parameters; SQL Server gets none. */
export type Binds = readonly (string | number)[]

export interface Asked {
  id: number
  /** Of one connection. */
  client: number
  connect?: unknown
  query?: { sql: string, binds: Binds, limitMs: number } | undefined
  close?: boolean | undefined
}

export interface Told {
  id: number
  rows?: Rows | undefined
  error?: Failure | undefined
}

type Failure =
  | { is: 'refused', number: number, message: string }
  | { is: 'lost', reason: LossReason, message: string }
  | { is: 'upstream', kind: UpstreamErrorKind, message: string }
  | { is: 'missing', message: string }

/** An error of the server: nothing of that statement happened. */
export class DriverRefused extends Error {
  readonly number: number

  constructor(number: number, message: string) {
    super(message)
    this.number = number
  }
}

export function isRefused(thrown: unknown, ...numbers: readonly number[]): thrown is DriverRefused {
  return thrown instanceof DriverRefused && (numbers.length === 0 || numbers.includes(thrown.number))
}

export const messageCharactersMax = 500

/** A connection of a driver, where it lives and as it is seen from here. */
export interface Client {
  /** One statement. @throws DriverRefused, ConnectionLost */
  query(sql: string, limitMs: number, binds?: Binds): Promise<Rows>
  close(): void
}

export function failureOf(error: unknown): Failure {
  const message = (error instanceof Error ? error.message : String(error)).slice(0, messageCharactersMax)
  if (error instanceof DriverRefused) return { is: 'refused', number: error.number, message }
  if (error instanceof ConnectionLost) return { is: 'lost', reason: error.reason, message }
  if (error instanceof UpstreamError) return { is: 'upstream', kind: error.kind, message }
  if (error instanceof SallyportError) return { is: 'missing', message: error.detail ?? message }
  return { is: 'lost', reason: 'closed', message }
}

export function errorOf(failure: Failure): Error {
  switch (failure.is) {
    case 'refused': return new DriverRefused(failure.number, failure.message)
    case 'lost': return new ConnectionLost(failure.reason, failure.message)
    case 'upstream': return new UpstreamError(failure.kind, failure.message)
    case 'missing': return new SallyportError('prerequisite-missing', { detail: failure.message })
  }
}
