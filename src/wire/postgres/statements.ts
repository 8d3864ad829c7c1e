// Parsers of what a PostgreSQL client says: the login messages that a front end answers, and the statements
// with their parameters that a replay shows. A recording may hold only the first part of a very long message;
// with `complete` false a parser returns what is there and says so, instead of refusing it.
import { WireError } from '../error.ts'
import { BodyReader } from './parse.ts'

/**
 * A client's SASL messages and passwords; PostgreSQL's own limit (PG_MAX_SASL_MESSAGE_LENGTH,
 * PG_MAX_AUTH_TOKEN).
 */
export const authenticationBytesMax = 65_535

export interface QueryStatement {
  sql: string
}

export interface ParseStatement {
  /** Name of the prepared statement; empty for the unnamed one. */
  name: string
  sql: string
  /** OIDs of the parameters that the client fixed; 0 leaves it to the server. */
  types: number[]
}

export interface Values {
  /** 0 text, 1 binary; none: all text, one: for all values. See `formatOf`. */
  formats: number[]
  /** Views into the body; null is SQL NULL. */
  values: (Buffer | null)[]
  /** False when the message was cut and values are missing. */
  complete: boolean
}

export interface BindStatement extends Values {
  portal: string
  statement: string
  resultFormats: number[]
}

export interface FunctionCall extends Values {
  oid: number
  resultFormat: number
}

/** Format of value `index`: 0 text, 1 binary. */
export function formatOf(formats: readonly number[], index: number): number {
  return (formats.length === 1 ? formats[0] : formats[index]) ?? 0
}

/** Query: one or more statements of the simple protocol. */
export function parseQuery(body: Buffer, complete: boolean = true): QueryStatement {
  const reader = new BodyReader(body)
  if (!complete) return { sql: reader.cutString() }
  const sql = reader.cstring()
  reader.end()
  return { sql }
}

/** Parse: prepares a statement. */
export function parseParse(body: Buffer, complete: boolean = true): ParseStatement {
  const reader = new BodyReader(body)
  if (!complete) return { name: reader.cutString(), sql: reader.cutString(), types: [] }
  const name = reader.cstring()
  const sql = reader.cstring()
  const count = reader.uint16()
  if (count * 4 !== reader.left) throw new WireError('parameter types and their number differ')
  return { name, sql, types: Array.from({ length: count }, () => reader.uint32()) }
}

/** Bind: values for a prepared statement. */
export function parseBind(body: Buffer, complete: boolean = true): BindStatement {
  const reader = new BodyReader(body)
  if (!complete) {
    const names = { portal: reader.cutString(), statement: reader.cutString() }
    return { ...names, ...cutValues(reader), resultFormats: [] }
  }
  const portal = reader.cstring()
  const statement = reader.cstring()
  const values = wholeValues(reader)
  const resultFormats = words(reader)
  reader.end()
  return { portal, statement, ...values, resultFormats }
}

/** FunctionCall: the old way to call a function by its OID (large objects still use it). */
export function parseFunctionCall(body: Buffer, complete: boolean = true): FunctionCall {
  const reader = new BodyReader(body)
  const oid = reader.uint32()
  if (!complete) return { oid, ...cutValues(reader), resultFormat: 0 }
  const values = wholeValues(reader)
  const resultFormat = reader.uint16()
  reader.end()
  return { oid, ...values, resultFormat }
}

/** Execute: runs a portal; `rowsMax` 0 means all rows. */
export function parseExecute(body: Buffer): { portal: string, rowsMax: number } {
  const reader = new BodyReader(body)
  const statement = { portal: reader.cstring(), rowsMax: reader.int32() }
  reader.end()
  return statement
}

/** Describe and Close name a prepared statement or a portal. */
export function parseNamed(body: Buffer): { kind: 'statement' | 'portal', name: string } {
  const reader = new BodyReader(body)
  const letter = reader.uint8()
  if (letter !== 0x53 && letter !== 0x50) throw new WireError('neither a statement nor a portal')
  const name = reader.cstring()
  reader.end()
  return { kind: letter === 0x53 ? 'statement' : 'portal', name }
}

/** CopyFail: why the client gave up. */
export function parseCopyFail(body: Buffer, complete: boolean = true): { reason: string } {
  return { reason: parseQuery(body, complete).sql }
}

/** SASLInitialResponse: the mechanism that the client chose and its first message. */
export function parseSaslInitialResponse(body: Buffer): { mechanism: string, data: Buffer } {
  if (body.length > authenticationBytesMax) throw new WireError('login message is too long')
  const reader = new BodyReader(body)
  const mechanism = reader.cstring()
  // PostgreSQL allows a client to wait for an empty challenge (length -1); none does, and SCRAM speaks first.
  const data = reader.sized()
  if (data === null) throw new WireError('login message without data')
  reader.end()
  return { mechanism, data }
}

/** PasswordMessage: the password of a cleartext login. @throws WireError for bytes that are not UTF-8 */
export function parsePassword(body: Buffer): string {
  if (body.length > authenticationBytesMax) throw new WireError('password is too long')
  const reader = new BodyReader(body)
  const bytes = reader.zeroTerminated()
  reader.end()
  return utf8(bytes)
}

/**
 * Strict UTF-8: two names that differ only in broken bytes must not become the same text.
 * @throws WireError
 */
export function utf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new WireError('text is not valid UTF-8')
  }
}

function words(reader: BodyReader): number[] {
  const count = reader.uint16()
  if (count * 2 > reader.left) throw new WireError('more format codes than bytes')
  return Array.from({ length: count }, () => reader.uint16())
}

function wholeValues(reader: BodyReader): Values {
  const formats = words(reader)
  const count = reader.uint16()
  // Each value has at least its length word.
  if (count * 4 > reader.left) throw new WireError('more values than bytes')
  return { formats, values: Array.from({ length: count }, () => reader.sized()), complete: true }
}

/** As many formats and values as the bytes hold. */
function cutValues(reader: BodyReader): Values {
  const cut: Values = { formats: [], values: [], complete: false }
  try {
    cut.formats = words(reader)
    const count = reader.uint16()
    while (cut.values.length < count) cut.values.push(reader.sized())
  } catch (thrown) {
    if (!(thrown instanceof WireError)) throw thrown
  }
  return cut
}
