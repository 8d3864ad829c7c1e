// Builders of PostgreSQL messages (protocol chapter "Message Formats"): what a proxy says to its client in
// the place of a server, and what it says to a target in the place of a client. Everything that becomes a C
// string is checked for zero bytes and lone surrogates here: one of them smuggled into a name or a statement
// would shift every field behind it, or change under our hands on its way to UTF-8 (CVE-2025-1094).
import { WireError } from '../error.ts'

/** Major 3; the minor is ours to choose. 3.2 only differs in longer cancel keys and in 'v'. */
export const protocolMajor = 3
export const protocolMinorMax = 2

/** Codes in the place of a protocol version. */
export const sslRequestCode = 80877103
export const gssRequestCode = 80877104
export const cancelRequestCode = 80877102

/** A statement has at most 65,535 parameters: their number is a 16-bit word. */
export const bindParametersMax = 0xffff

export type TransactionStatus = 'I' | 'T' | 'E'

/** What an ErrorResponse or NoticeResponse says. */
export interface Report {
  /** ERROR, FATAL, PANIC; WARNING, NOTICE, DEBUG, INFO, LOG. */
  severity: string
  sqlstate: string
  message: string
  detail?: string | undefined
  hint?: string | undefined
}

/** Text as the wire carries it. @throws WireError for a zero byte or text that is not well-formed Unicode. */
export function cstring(text: string): Buffer {
  if (text.includes('\0')) throw new WireError('a string with a zero byte cannot be sent')
  if (!text.isWellFormed()) throw new WireError('a string with a lone surrogate cannot be sent')
  return Buffer.from(`${text}\0`, 'utf8')
}

/** A message: tag letter, length, the parts of its body. */
export function frame(tag: string, ...parts: readonly Uint8Array[]): Buffer {
  const head = Buffer.alloc(5)
  const whole = Buffer.concat([head, ...parts])
  whole[0] = tag.charCodeAt(0)
  whole.writeInt32BE(whole.length - 1, 1)
  return whole
}

function int16(value: number): Buffer {
  const word = Buffer.alloc(2)
  word.writeUInt16BE(value)
  return word
}

function int32(value: number): Buffer {
  const word = Buffer.alloc(4)
  word.writeInt32BE(value | 0)
  return word
}

/** A message without a tag: startup, SSL and cancel requests. */
function untagged(...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts)
  return Buffer.concat([int32(body.length + 4), body])
}

// ---- in the place of a server

/** The mechanisms that the client may choose from, best first. */
export function authenticationSasl(mechanisms: readonly string[]): Buffer {
  return frame('R', int32(10), ...mechanisms.map(cstring), Buffer.alloc(1))
}

export function authenticationSaslContinue(data: Uint8Array): Buffer {
  return frame('R', int32(11), data)
}

export function authenticationSaslFinal(data: Uint8Array): Buffer {
  return frame('R', int32(12), data)
}

export function authenticationOk(): Buffer {
  return frame('R', int32(0))
}

export function authenticationCleartextPassword(): Buffer {
  return frame('R', int32(3))
}

export function parameterStatus(name: string, value: string): Buffer {
  return frame('S', cstring(name), cstring(value))
}

/** `key`: 4 bytes up to protocol 3.0, 4 to 256 from 3.2. */
export function backendKeyData(pid: number, key: Uint8Array): Buffer {
  return frame('K', int32(pid), key)
}

export function readyForQuery(status: TransactionStatus): Buffer {
  return frame('Z', Buffer.from(status, 'latin1'))
}

function reportBody({ severity, sqlstate, message, detail, hint }: Report): Buffer {
  const fields: [string, string | undefined][] = [
    ['S', severity], ['V', severity], ['C', sqlstate], ['M', message], ['D', detail], ['H', hint]
  ]
  const parts = fields.flatMap(([code, text]) =>
    text === undefined ? [] : [Buffer.from(code, 'latin1'), cstring(printable(text))])
  return Buffer.concat([...parts, Buffer.alloc(1)])
}

// An error text may carry what a peer wrote; it must reach the client all the same.
function printable(text: string): string {
  return text.replaceAll('\0', '').toWellFormed()
}

export function errorResponse(report: Report): Buffer {
  return frame('E', reportBody(report))
}

export function noticeResponse(report: Report): Buffer {
  return frame('N', reportBody(report))
}

/** Answer to a minor version above ours or to protocol options (`_pq_.…`) that we do not have. */
export function negotiateProtocolVersion(minor: number, unknownOptions: readonly string[]): Buffer {
  const version = protocolMajor << 16 | minor
  return frame('v', int32(version), int32(unknownOptions.length), ...unknownOptions.map(cstring))
}

// ---- in the place of a client

/** The first message: `user`, `database` and settings, as they come. */
export function startupMessage(parameters: Iterable<readonly [string, string]>, minor: number = 0): Buffer {
  const pairs = [...parameters].flatMap(([name, value]) => {
    // An empty name would end the list early.
    if (name === '') throw new WireError('a startup parameter needs a name')
    return [cstring(name), cstring(value)]
  })
  return untagged(int32(protocolMajor << 16 | minor), ...pairs, Buffer.alloc(1))
}

export function sslRequest(): Buffer {
  return untagged(int32(sslRequestCode))
}

export function cancelRequest(pid: number, key: Uint8Array): Buffer {
  return untagged(int32(cancelRequestCode), int32(pid), key)
}

export function saslInitialResponse(mechanism: string, data: Uint8Array): Buffer {
  return frame('p', cstring(mechanism), int32(data.length), data)
}

export function saslResponse(data: Uint8Array): Buffer {
  return frame('p', data)
}

export function query(sql: string): Buffer {
  return frame('Q', cstring(sql))
}

/** `types`: OIDs of the parameters; the server works out those that are missing or 0. */
export function parse(name: string, sql: string, types: readonly number[] = []): Buffer {
  if (types.length > bindParametersMax) throw new WireError(`${types.length} parameter types are too many`)
  return frame('P', cstring(name), cstring(sql), int16(types.length), ...types.map(int32))
}

/** Parameters and results in text format. @throws WireError for more than 65,535 values. */
export function bind(portal: string, statement: string, values: readonly (string | null)[] = []): Buffer {
  if (values.length > bindParametersMax) throw new WireError(`${values.length} parameters are too many`)
  const parts = values.flatMap(value => {
    if (value === null) return [int32(-1)]
    const text = cstring(value).subarray(0, -1)
    return [int32(text.length), text]
  })
  return frame('B', cstring(portal), cstring(statement), int16(0), int16(values.length), ...parts, int16(0))
}

export function describe(kind: 'S' | 'P', name: string): Buffer {
  return frame('D', Buffer.from(kind, 'latin1'), cstring(name))
}

/** `rowsMax` 0: all of them. */
export function execute(portal: string, rowsMax: number = 0): Buffer {
  return frame('E', cstring(portal), int32(rowsMax))
}

export function sync(): Buffer {
  return frame('S')
}

/** Asks for the answers so far, without ending what is under way. */
export function flush(): Buffer {
  return frame('H')
}

/** In the place of the data that a COPY asks for. */
export function copyFail(reason: string): Buffer {
  return frame('f', cstring(reason))
}

export function terminate(): Buffer {
  return frame('X')
}
