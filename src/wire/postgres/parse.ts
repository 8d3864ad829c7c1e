// Parsers of what a PostgreSQL server says (protocol chapter "Message Formats"). Each takes one body that a
// framer has cut out, stays inside it, and either returns what it says or throws a WireError; counts are
// compared with the bytes that are there before anything is allocated (a RowDescription that promises 32,767
// fields in 6 bytes costs nothing). What a client says is in statements.ts.
import { WireError } from '../error.ts'
import type { Report, TransactionStatus } from './messages.ts'

/** Longest text of an error that we keep: it goes into logs and to clients. */
export const reportTextMax = 4096

/** Fields of one ErrorResponse: the protocol knows 18 letters. */
const reportFieldsMax = 64

/** Protocol 3.2: a cancel key has at most 256 bytes. */
export const cancelKeyBytesMax = 256

/** Reads a body from front to end, and never beyond it. */
export class BodyReader {
  readonly #body: Buffer
  #at = 0

  constructor(body: Buffer) {
    this.#body = body
  }

  get left(): number {
    return this.#body.length - this.#at
  }

  #step(bytes: number): number {
    if (bytes < 0 || bytes > this.left) throw new WireError('message is too short for what it holds')
    const at = this.#at
    this.#at += bytes
    return at
  }

  uint8(): number {
    return this.#body[this.#step(1)]!
  }

  uint16(): number {
    return this.#body.readUInt16BE(this.#step(2))
  }

  int32(): number {
    return this.#body.readInt32BE(this.#step(4))
  }

  uint32(): number {
    return this.#body.readUInt32BE(this.#step(4))
  }

  /** A view, not a copy. */
  bytes(count: number): Buffer {
    const at = this.#step(count)
    return this.#body.subarray(at, at + count)
  }

  /** Everything that is left, as a view. */
  rest(): Buffer {
    return this.bytes(this.left)
  }

  /** Bytes up to a terminating zero, without it. */
  zeroTerminated(): Buffer {
    const end = this.#body.indexOf(0, this.#at)
    if (end < 0) throw new WireError('string without its terminator')
    const text = this.#body.subarray(this.#at, end)
    this.#at = end + 1
    return text
  }

  /** The same as UTF-8 text; bytes that are not become U+FFFD. */
  cstring(): string {
    return this.zeroTerminated().toString('utf8')
  }

  /** For a message whose end was cut off by a limit: text up to a zero or to the end. */
  cutString(): string {
    return this.#body.indexOf(0, this.#at) < 0 ? this.rest().toString('utf8') : this.cstring()
  }

  /** A value with its 32-bit length before it; null for length -1. A view, not a copy. */
  sized(): Buffer | null {
    const length = this.int32()
    return length === -1 ? null : this.bytes(length)
  }

  /** @throws WireError when bytes are left over */
  end(): void {
    if (this.left > 0) throw new WireError(`${this.left} bytes too many in a message`)
  }
}

/**
 * ErrorResponse and NoticeResponse. Texts are cut at 4,096 characters. `complete` false: the body was cut by
 * a limit, and the fields that are there are returned.
 * @throws WireError when the terminator is missing or not at the end
 */
export function parseReport(body: Buffer, complete: boolean = true): Report {
  const reader = new BodyReader(body)
  const fields = new Map<string, string>()
  for (let count = 0; ; count++) {
    if (count > reportFieldsMax) throw new WireError('too many fields in an error')
    if (!complete && reader.left === 0) break
    const code = reader.uint8()
    if (code === 0) break
    const text = complete ? reader.cstring() : reader.cutString()
    fields.set(String.fromCharCode(code), text.slice(0, reportTextMax))
  }
  if (complete) reader.end()
  return {
    severity: fields.get('V') ?? fields.get('S') ?? 'ERROR',
    sqlstate: sqlstateOf(fields.get('C')),
    message: fields.get('M') ?? '',
    detail: fields.get('D'),
    hint: fields.get('H')
  }
}

/**
 * Where in the statement an error lies, in characters from 1; undefined when it does not say. @throws as
 * above
 */
export function parseReportPosition(body: Buffer): number | undefined {
  const reader = new BodyReader(body)
  for (let count = 0; count <= reportFieldsMax; count++) {
    const code = reader.uint8()
    if (code === 0) return undefined
    const text = reader.cstring()
    if (code === 0x50) return /^\d{1,9}$/.test(text) ? Number(text) : undefined
  }
  throw new WireError('too many fields in an error')
}

// A hostile target may leave it out or write a novel there.
function sqlstateOf(text: string | undefined): string {
  return text !== undefined && /^[0-9A-Z]{5}$/.test(text) ? text : 'XX000'
}

export interface CommandTag {
  /** E.g. `INSERT 0 1`. */
  tag: string
  /** Rows that the command touched, where its tag says so. */
  rows: number | undefined
}

/** CommandComplete. */
export function parseCommandComplete(body: Buffer): CommandTag {
  const reader = new BodyReader(body)
  const tag = reader.cstring().slice(0, 256)
  reader.end()
  const digits = / (\d{1,15})$/.exec(tag)?.[1]
  return { tag, rows: digits === undefined ? undefined : Number(digits) }
}

export function parseParameterStatus(body: Buffer): { name: string, value: string } {
  const reader = new BodyReader(body)
  const status = { name: reader.cstring(), value: reader.cstring() }
  reader.end()
  return status
}

/** BackendKeyData; the key has 4 bytes up to protocol 3.0, up to 256 from 3.2. */
export function parseBackendKeyData(body: Buffer): { pid: number, key: Buffer } {
  const reader = new BodyReader(body)
  const pid = reader.int32()
  const rest = reader.rest()
  if (rest.length < 4 || rest.length > cancelKeyBytesMax) {
    throw new WireError(`cancel key of ${rest.length} bytes`)
  }
  // It lives as long as its session: a copy in the shared pool would keep 64 KiB of that with it.
  const key = Buffer.allocUnsafeSlow(rest.length)
  rest.copy(key)
  return { pid, key }
}

export function parseReadyForQuery(body: Buffer): TransactionStatus {
  const status = body.toString('latin1')
  if (status !== 'I' && status !== 'T' && status !== 'E') throw new WireError('unknown transaction status')
  return status
}

export type AuthenticationRequest =
  | { kind: 'ok' | 'cleartext' | 'md5' | 'other' }
  | { kind: 'sasl', mechanisms: string[] }
  | { kind: 'sasl-continue' | 'sasl-final', data: Buffer }

/** Mechanisms offered by one server; PostgreSQL offers two. */
const mechanismsMax = 16

/** The R messages. */
export function parseAuthentication(body: Buffer): AuthenticationRequest {
  const reader = new BodyReader(body)
  const code = reader.int32()
  switch (code) {
    case 0:
    case 3:
      reader.end()
      return { kind: code === 0 ? 'ok' : 'cleartext' }
    case 5:
      return { kind: 'md5' }
    case 10: {
      const mechanisms: string[] = []
      for (let name = reader.cstring(); name !== ''; name = reader.cstring()) {
        if (mechanisms.push(name) > mechanismsMax) throw new WireError('too many login mechanisms')
      }
      reader.end()
      return { kind: 'sasl', mechanisms }
    }
    case 11:
    case 12:
      return { kind: code === 11 ? 'sasl-continue' : 'sasl-final', data: Buffer.from(reader.rest()) }
    default:
      return { kind: 'other' }
  }
}

/** NegotiateProtocolVersion: the newest minor that the server has, and the options that it does not. */
export function parseNegotiateProtocolVersion(body: Buffer): { minor: number, options: string[] } {
  const reader = new BodyReader(body)
  const version = reader.uint32()
  // Newer servers send the whole version here, older ones the minor only.
  const minor = version >>> 16 === 0 ? version : version & 0xffff
  const count = reader.uint32()
  if (count > reader.left) throw new WireError('more protocol options than bytes')
  const options = Array.from({ length: count }, () => reader.cstring())
  reader.end()
  return { minor, options }
}

export interface Column {
  name: string
  typeOid: number
  /** 0 text, 1 binary. */
  format: number
}

// After its name a field has table, column, type, size, modifier and format; the name has at least its zero.
const columnBytesMin = 1 + 4 + 2 + 4 + 2 + 4 + 2

/** RowDescription. */
export function parseRowDescription(body: Buffer): Column[] {
  const reader = new BodyReader(body)
  const count = reader.uint16()
  if (count * columnBytesMin > reader.left) throw new WireError('more columns than bytes')
  const columns = Array.from({ length: count }, () => {
    const name = reader.cstring()
    reader.bytes(6)
    const typeOid = reader.uint32()
    reader.bytes(6)
    return { name, typeOid, format: reader.uint16() }
  })
  reader.end()
  return columns
}

/** DataRow in text format. @throws WireError unless it has as many columns as `columns` */
export function parseDataRow(body: Buffer, columns: number): (string | null)[] {
  const reader = new BodyReader(body)
  if (reader.uint16() !== columns) throw new WireError('row and its description differ')
  const values = Array.from({ length: columns }, () => reader.sized()?.toString('utf8') ?? null)
  reader.end()
  return values
}

/** CopyInResponse, CopyOutResponse, CopyBothResponse. */
export function parseCopyResponse(body: Buffer): { binary: boolean, columns: number } {
  const reader = new BodyReader(body)
  const binary = reader.uint8() === 1
  const columns = reader.uint16()
  reader.bytes(columns * 2)
  reader.end()
  return { binary, columns }
}

/** NotificationResponse: what a NOTIFY of session `pid` says. */
export function parseNotification(body: Buffer): { pid: number, channel: string, payload: string } {
  const reader = new BodyReader(body)
  const notification = { pid: reader.int32(), channel: reader.cstring(), payload: reader.cstring() }
  reader.end()
  return notification
}
