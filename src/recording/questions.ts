// What a PostgreSQL client asked, message by message, and what its names stand for: prepared statements and
// portals. A name is set when the target did what was asked, not when it was asked: the decoder (postgres.ts)
// calls `pass` in the order in which the target worked.
import { WireError } from '../wire/error.ts'
import type { TapedFrame } from '../wire/postgres/frame.ts'
import { BodyReader } from '../wire/postgres/parse.ts'
import {
  formatOf, parseBind, parseExecute, parseFunctionCall, parseNamed
} from '../wire/postgres/statements.ts'
import type { Values } from '../wire/postgres/statements.ts'
import type { Frame } from './format.ts'
import type { StatementVerdict } from './statement.ts'

/** Of one text so much is decoded and shown. */
const shownBytesMax = 256 * 1024
/** The same for one binary value; as hex it is twice as long. */
const shownBinaryBytesMax = 4 * 1024
/** Parameters of one statement that are shown (the protocol allows 65,535). */
const shownParametersMax = 1000
/** Names that are remembered; the oldest are forgotten, and then shown as unknown. */
const namesMax = 10_000
const nameBytesMax = 32 * 1024 * 1024

export type Decode = (bytes: Uint8Array) => string

// PostgreSQL's names of encodings and what the WHATWG calls them; what is missing is read as UTF-8, with
// U+FFFD for what is not.
const encodings: Readonly<Record<string, string>> = {
  LATIN1: 'latin1', LATIN2: 'iso-8859-2', LATIN3: 'iso-8859-3', LATIN4: 'iso-8859-4', LATIN5: 'iso-8859-9',
  LATIN6: 'iso-8859-10', LATIN7: 'iso-8859-13', LATIN8: 'iso-8859-14', LATIN9: 'iso-8859-15',
  LATIN10: 'iso-8859-16',
  ISO_8859_5: 'iso-8859-5', ISO_8859_6: 'iso-8859-6', ISO_8859_7: 'iso-8859-7', ISO_8859_8: 'iso-8859-8',
  WIN866: 'ibm866', WIN874: 'windows-874', WIN1250: 'windows-1250', WIN1251: 'windows-1251',
  WIN1252: 'windows-1252', WIN1253: 'windows-1253', WIN1254: 'windows-1254', WIN1255: 'windows-1255',
  WIN1256: 'windows-1256', WIN1257: 'windows-1257', WIN1258: 'windows-1258', KOI8R: 'koi8-r', KOI8U: 'koi8-u',
  EUC_JP: 'euc-jp', SJIS: 'shift_jis', EUC_KR: 'euc-kr', UHC: 'euc-kr', EUC_CN: 'gbk', BIG5: 'big5',
  GBK: 'gbk', GB18030: 'gb18030'
}

/** For a value of `client_encoding`. */
export function decoderFor(encoding: string): Decode {
  const decoder = new TextDecoder(encodings[encoding.toUpperCase()] ?? 'utf-8', { ignoreBOM: true })
  return bytes => decoder.decode(bytes)
}

/** One message of the client that matters for the order. */
export interface Item {
  type: 'query' | 'parse' | 'bind' | 'describe' | 'execute' | 'call' | 'close' | 'sync' | 'copy-fail'
  atMs: number
  offset: number
  lane: number
  /** Memory that it holds, roughly. */
  bytes: number
  /** Of the portal (bind, execute) or the statement (parse); of either for close. */
  name: string
  /** bind: the statement. close: `statement` or `portal`. */
  of: string
  sql: string
  parameters: (string | null)[]
  cut: boolean
  /** What a rule said to it. */
  verdict?: StatementVerdict | undefined
}

interface Known {
  sql: string
  parameters: (string | null)[]
  cut: boolean
  verdict?: StatementVerdict | undefined
}

interface Shown {
  text: string
  cut: boolean
}

function shown(bytes: Buffer, decode: Decode): Shown {
  return { text: decode(bytes.subarray(0, shownBytesMax)), cut: bytes.length > shownBytesMax }
}

function shownValues(given: Values, decode: Decode): Pick<Item, 'parameters' | 'cut'> {
  const { formats, values, complete } = given
  let cut = !complete || values.length > shownParametersMax
  let left = shownBytesMax
  const parameters = values.slice(0, shownParametersMax).map((value, index) => {
    if (value === null) return null
    const binary = formatOf(formats, index) === 1
    const kept = value.subarray(0, Math.min(left, binary ? shownBinaryBytesMax : shownBytesMax))
    left -= kept.length
    cut ||= kept.length < value.length
    return binary ? `\\x${kept.toString('hex')}` : decode(kept)
  })
  return { parameters, cut }
}

function readText(body: Buffer, complete: boolean, skipName: boolean, decode: Decode): Shown {
  const reader = new BodyReader(body)
  if (skipName) reader.zeroTerminated()
  if (!complete && reader.left > 0) {
    const rest = reader.rest()
    const end = rest.indexOf(0)
    return { text: shown(end < 0 ? rest : rest.subarray(0, end), decode).text, cut: true }
  }
  return shown(reader.zeroTerminated(), decode)
}

/** Undefined for messages that change nothing here. One that cannot be read becomes a query that says so. */
export function readItem(
  message: TapedFrame, frame: Pick<Frame, 'offset' | 'lane' | 'atMicroseconds'>, decode: Decode
): Item | undefined {
  const { offset, lane } = frame
  const base = {
    atMs: frame.atMicroseconds / 1000, offset, lane, bytes: message.body.length + 200, name: '', of: '',
    sql: '', parameters: [], cut: false
  }
  try {
    return readMessage(message, base, decode)
  } catch (thrown) {
    if (!(thrown instanceof WireError)) throw thrown
    return { ...base, type: 'query', sql: `<unreadable message: ${thrown.message}>` }
  }
}

function readMessage(message: TapedFrame, base: Omit<Item, 'type'>, decode: Decode): Item | undefined {
  const { tag, body, complete } = message
  switch (String.fromCharCode(tag)) {
    case 'Q': {
      const { text: sql, cut } = readText(body, complete, false, decode)
      return { ...base, type: 'query', sql, cut }
    }
    case 'P': {
      const name = new BodyReader(body).cutString()
      const { text: sql, cut } = readText(body, complete, true, decode)
      return { ...base, type: 'parse', name, sql, cut }
    }
    case 'B': {
      const bind = parseBind(body, complete)
      return { ...base, type: 'bind', name: bind.portal, of: bind.statement, ...shownValues(bind, decode) }
    }
    case 'E': return { ...base, type: 'execute', name: parseExecute(body).portal }
    case 'F': {
      const call = parseFunctionCall(body, complete)
      return { ...base, type: 'call', sql: `<function call ${call.oid}>`, ...shownValues(call, decode) }
    }
    case 'C': {
      const { kind, name } = parseNamed(body)
      return { ...base, type: 'close', name, of: kind }
    }
    case 'D': return { ...base, type: 'describe' }
    case 'S': return { ...base, type: 'sync' }
    case 'f': {
      const { text: sql, cut } = readText(body, complete, false, decode)
      return { ...base, type: 'copy-fail', sql, cut }
    }
    default: return undefined
  }
}

/** What prepared statements and portals stand for. With a parent: what they would, and the parent stays. */
export class Names {
  readonly #parent: Names | undefined
  // Undefined as a value: closed, whatever the parent says.
  readonly #statements = new Map<string, Known | undefined>()
  readonly #portals = new Map<string, Known | undefined>()
  #bytes = 0
  #hidesParent = false

  constructor(parent?: Names) {
    this.#parent = parent
  }

  /** The target did this. */
  pass(item: Item): void {
    const { sql, parameters, cut, verdict } = item
    if (item.type === 'parse') this.#set(this.#statements, item.name, { sql, parameters: [], cut, verdict })
    else if (item.type === 'bind') {
      const statement = this.#statement(item.of)
      const text = statement?.sql ?? `<prepared statement ${JSON.stringify(item.of)} is not on this tape>`
      this.#set(this.#portals, item.name, {
        sql: text, parameters, cut: cut || statement?.cut === true, verdict: statement?.verdict
      })
    } else if (item.type === 'close') {
      this.#forget(item.of === 'statement' ? this.#statements : this.#portals, item.name)
    }
  }

  /** What a portal runs; an Execute of one that is not known says so. */
  portal(name: string): Known {
    return this.#portal(name) ??
      { sql: `<portal ${JSON.stringify(name)} is not on this tape>`, parameters: [], cut: false }
  }

  /** SQL that ran may make and forget prepared statements as well. */
  ran(sql: string, tag: string): void {
    if (tag === 'DISCARD ALL' || tag === 'DEALLOCATE ALL') {
      this.#statements.clear()
      this.#portals.clear()
      this.#hidesParent = true
    } else if (tag === 'PREPARE') {
      const [, name, text] = prepare.exec(sql.replace(/\s+/g, ' ')) ?? []
      if (name === undefined || text === undefined) return
      this.#set(this.#statements, unquoted(name), { sql: text, parameters: [], cut: false })
    } else if (tag === 'DEALLOCATE') {
      const names = sql.matchAll(/\bdeallocate\s+(?:prepare\s+)?("(?:[^"]|"")+"|[^\s;"]+)/gi)
      for (const [, name = ''] of names) this.#forget(this.#statements, unquoted(name))
    }
  }

  #statement(name: string): Known | undefined {
    const parent = this.#hidesParent ? undefined : this.#parent
    const own = parent === undefined || this.#statements.has(name)
    return own ? this.#statements.get(name) : parent.#statement(name)
  }

  #portal(name: string): Known | undefined {
    const parent = this.#hidesParent ? undefined : this.#parent
    const own = parent === undefined || this.#portals.has(name)
    return own ? this.#portals.get(name) : parent.#portal(name)
  }

  #forget(names: Map<string, Known | undefined>, name: string): void {
    this.#bytes -= sizeOf(names.get(name))
    if (this.#parent === undefined) names.delete(name)
    else names.set(name, undefined)
  }

  #set(names: Map<string, Known | undefined>, name: string, known: Known): void {
    this.#forget(names, name)
    // Behind the others again: the oldest is forgotten first.
    names.delete(name)
    names.set(name, known)
    this.#bytes += sizeOf(known)
    while (names.size > 1 && (names.size > namesMax || this.#bytes > nameBytesMax)) {
      const oldest = names.keys().next().value ?? ''
      this.#bytes -= sizeOf(names.get(oldest))
      names.delete(oldest)
    }
  }
}

function sizeOf(known: Known | undefined): number {
  if (known === undefined) return 0
  return known.parameters.reduce((sum, value) => sum + (value?.length ?? 0), known.sql.length + 100)
}

/** Blanks are single ones here: else the pattern would try every way to divide them. */
const prepare = /\bprepare ("(?:[^"]|"")+"|[^ ("]+) ?(?:\([^)]*\) ?)?as ([^]*)/i

function unquoted(name: string): string {
  return name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name.toLowerCase()
}
