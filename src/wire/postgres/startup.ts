// The first packet of a PostgreSQL client (protocol chapter "Start-up"), and what of its wishes a target may
// hear. The first bytes decide what is spoken: TLS at once, a request for TLS or GSS encryption, a cancel
// request, or a startup with a user name. They come from strangers, so a packet has at most 10,000 bytes and
// is judged byte by byte as it comes. Settings pass by allow-list: a setting that the target applies before
// the first statement must not change as whom or where the session runs (`role`, `session_authorization`,
// `local_preload_libraries`).
import { WireError } from '../error.ts'
import {
  cancelRequestCode, gssRequestCode, protocolMajor, sslRequestCode
} from './messages.ts'
import { cancelKeyBytesMax } from './parse.ts'
import { utf8 } from './statements.ts'

/** PostgreSQL's own limit (MAX_STARTUP_PACKET_LENGTH). */
export const startupBytesMax = 10_000

/**
 * First byte of a TLS record with a handshake: a client that does not ask first (`sslnegotiation=direct`).
 */
const tlsHandshake = 0x16

/**
 * `size` is how many bytes the packet takes; what follows an `ssl` or `gssenc` request must not be there yet.
 */
export type FirstPacket =
  | { kind: 'direct-tls' }
  | { kind: 'ssl' | 'gssenc', size: number }
  | { kind: 'cancel', size: number, pid: number, key: Buffer }
  | Startup

export interface Startup {
  kind: 'startup'
  size: number
  /** Minor version of protocol 3 that the client would like. */
  minor: number
  /** As sent, except protocol options. A setting that is sent twice has its last value, as in PostgreSQL. */
  parameters: Map<string, string>
  /** Names of protocol options (`_pq_.…`): none is known, answer with NegotiateProtocolVersion. */
  protocolOptions: string[]
}

/** What is asked of the target, sorted. */
export interface StartupWishes {
  user: string | undefined
  database: string | undefined
  /** `unclear`: a value that PostgreSQL would refuse. */
  replication: 'none' | 'physical' | 'database' | 'unclear'
  /** Settings that pass, by their proper names; those of `options` are among them. */
  settings: Map<string, string>
  /** Names of what does not pass, as the client wrote them, cut to 64 characters. Any: refuse the client. */
  refused: string[]
}

/**
 * Settings that a client may bring. Each is one that any user may SET later, shapes only how the session
 * talks or how long it waits, and is sent by common clients: libpq (PGOPTIONS, PGTZ, PGDATESTYLE, PGGEQO),
 * pgjdbc, npgsql, node-postgres, psycopg, PostgreSQL's own regression suite.
 */
export const allowedSettings: readonly string[] = [
  'application_name', 'client_encoding', 'client_min_messages', 'DateStyle', 'IntervalStyle', 'TimeZone',
  'extra_float_digits', 'bytea_output', 'standard_conforming_strings', 'search_path', 'geqo', 'jit',
  'work_mem',
  'statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout',
  'idle_session_timeout', 'default_transaction_isolation', 'default_transaction_read_only',
  'default_transaction_deferrable'
]

const properNames = new Map(allowedSettings.map(name => [name.toLowerCase(), name]))

/**
 * Says what the first packet is; undefined when more bytes are needed.
 * @throws WireError for anything that PostgreSQL 3.x clients do not say
 */
export function classifyFirstPacket(bytes: Buffer): FirstPacket | undefined {
  const first = bytes[0]
  if (first === undefined) return undefined
  if (first === tlsHandshake) return { kind: 'direct-tls' }
  // 10,000 is below 2^16: a first or second byte that is not zero is another protocol, or a very long packet.
  if (first !== 0 || (bytes[1] ?? 0) !== 0) throw new WireError('not a PostgreSQL client')
  if (bytes.length < 4) return undefined
  const size = bytes.readInt32BE(0)
  if (size < 8 || size > startupBytesMax) throw new WireError(`startup packet of ${size} bytes`)
  if (bytes.length < 8) return undefined
  const code = bytes.readInt32BE(4)
  if (code === sslRequestCode || code === gssRequestCode) {
    if (size !== 8) throw new WireError('encryption request with a body')
    return { kind: code === sslRequestCode ? 'ssl' : 'gssenc', size }
  }
  if (code === cancelRequestCode) {
    if (size < 16 || size > 12 + cancelKeyBytesMax) throw new WireError(`cancel request of ${size} bytes`)
    if (bytes.length < size) return undefined
    return { kind: 'cancel', size, pid: bytes.readInt32BE(8), key: Buffer.from(bytes.subarray(12, size)) }
  }
  if (code >>> 16 !== protocolMajor) throw new WireError(`protocol version ${code >>> 16} is not supported`)
  if (bytes.length < size) return undefined
  return parseStartup(bytes.subarray(8, size), size, code & 0xffff)
}

// Twice the same setting is common (drivers append their own); twice a name that decides who comes in is a
// trick.
const onlyOnce = new Set(['user', 'database', 'replication'])

function parseStartup(body: Buffer, size: number, minor: number): Startup {
  const startup: Startup = { kind: 'startup', size, minor, parameters: new Map(), protocolOptions: [] }
  if (body.at(-1) !== 0) throw new WireError('startup packet without its terminator')
  let at = 0
  const next = (): string => {
    const end = body.indexOf(0, at)
    if (end < 0) throw new WireError('startup packet ends within a parameter')
    const text = utf8(body.subarray(at, end))
    at = end + 1
    return text
  }
  for (let name = next(); name !== ''; name = next()) {
    const value = next()
    if (name.startsWith('_pq_.')) startup.protocolOptions.push(name)
    else if (onlyOnce.has(name) && startup.parameters.has(name)) throw new WireError(`${name} is given twice`)
    else startup.parameters.set(name, value)
  }
  if (at !== body.length) throw new WireError('bytes behind the terminator of a startup packet')
  return startup
}

/**
 * Splits `options` as the server does (pg_split_opts): words between white space, a backslash takes the next
 * character as it is. No quotes.
 */
export function splitOptions(options: string): string[] {
  const words: string[] = []
  let word: string | undefined
  for (let at = 0; at < options.length; at++) {
    const character = options[at]!
    if (/[ \t\n\r\f\v]/.test(character)) {
      if (word !== undefined) words.push(word)
      word = undefined
    } else if (character === '\\') {
      at++
      word = (word ?? '') + (options[at] ?? '')
    } else {
      word = (word ?? '') + character
    }
  }
  if (word !== undefined) words.push(word)
  return words
}

interface Assignment {
  name: string
  /** Undefined: not an assignment at all; `name` is the word that was found. */
  value: string | undefined
}

/** `-c name=value`, `-cname=value`, `--name=value`; every other switch comes back without a value. */
export function parseOptions(options: string): Assignment[] {
  const assignments: Assignment[] = []
  const words = splitOptions(options)
  for (let at = 0; at < words.length; at++) {
    const word = words[at]!
    let text: string
    if (word === '-c') text = words[++at] ?? ''
    else if (word.startsWith('-c') || word.startsWith('--')) text = word.slice(2)
    else {
      assignments.push({ name: word, value: undefined })
      continue
    }
    const equals = text.indexOf('=')
    if (equals <= 0) assignments.push({ name: text === '' ? word : text, value: undefined })
    // As ParseLongOption: dashes stand for underscores.
    else assignments.push({ name: text.slice(0, equals).replaceAll('-', '_'), value: text.slice(equals + 1) })
  }
  return assignments
}

/**
 * Sorts what a client asked for into what passes and what does not. Pure: decides nothing about the user.
 * Like the server, what stands in `options` is overruled by a parameter of the same name.
 */
export function sortStartup(parameters: ReadonlyMap<string, string>): StartupWishes {
  const wishes: StartupWishes = {
    user: undefined, database: undefined, replication: 'none', settings: new Map(), refused: []
  }
  const take = (name: string, value: string | undefined): void => {
    const proper = properNames.get(name.toLowerCase())
    if (proper !== undefined && value !== undefined) wishes.settings.set(proper, value)
    else wishes.refused.push(name.slice(0, 64))
  }
  for (const { name, value } of parseOptions(parameters.get('options') ?? '')) take(name, value)
  for (const [name, value] of parameters) {
    if (name === 'user') wishes.user = value
    else if (name === 'database') wishes.database = value
    else if (name === 'replication') wishes.replication = replicationOf(value)
    else if (name !== 'options') take(name, value)
  }
  return wishes
}

// parse_bool of PostgreSQL: the words and their unique beginnings, in any case.
function replicationOf(value: string): StartupWishes['replication'] {
  const word = value.toLowerCase()
  if (value === 'database') return 'database'
  if (/^(t|tr|tru|true|y|ye|yes|on|1)$/.test(word)) return 'physical'
  if (/^(f|fa|fal|fals|false|n|no|of|off|0)$/.test(word)) return 'none'
  return 'unclear'
}
