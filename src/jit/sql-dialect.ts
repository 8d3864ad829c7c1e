// SQL as text, for targets whose lexical rules are not PostgreSQL's (sql-text.ts): Microsoft's T-SQL and
// Oracle's. Each dialect quotes a value so that it stays one token, and scans a statement for the place of a
// hole. What the two servers read in unusual ways is refused instead of followed: comments, backslashes
// (T-SQL joins lines by them), Oracle's q'…', and text that a server may turn into other characters before
// it looks for quotes.
import {
  UnfitValue, assertWellFormed, literalCharactersMax, quoteIdentifier, quoteLiteral, scanSql,
  statementProblems
} from './sql-text.ts'
import type { HolePlace, SqlPiece, SqlScan } from './sql-text.ts'

/** `sql` is PostgreSQL's, and what MySQL reads alike. */
export type SqlContext = 'sql' | 'tsql' | 'oracle'

export interface SqlDialect {
  /** @throws UnfitValue for what cannot be a name there */
  identifier(value: string): string
  /** @throws UnfitValue for what cannot be a text there */
  literal(value: string): string
  /** A constant of bytes; a dialect without such has none. @throws UnfitValue for anything but `0x…` */
  binary?(value: string): string
  scan(pieces: readonly SqlPiece[]): SqlScan
  /** Of a finished statement. */
  problems(text: string): readonly string[]
}

interface Rules {
  /** What opens a quoted name, and what closes it. */
  names: Readonly<Record<string, string>>
  /** Whether a closing character that stands twice is one of the name. */
  doubles: boolean
  /** What is said about one; undefined where a statement may end with one. */
  semicolon: string | undefined
}

/** `sysname` of SQL Server, and names of Oracle since 12.2. */
export const nameCharactersMax = 128
const binaryForm = /^0x(?:[0-9A-Fa-f]{2}){1,256}$/
const wordCharacter = /[A-Za-z0-9_$#@\u0080-\uffff]/
const oneOnly = 'more than one statement: write one step for each'
const touching = 'a hole touches a word, a quote or another hole'

/** `a]b` → `[a]]b]` */
export function quoteBracketed(value: string): string {
  assertName(value)
  return `[${value.replaceAll(']', ']]')}]`
}

/** `a'b` → `N'a''b'`: never in a code page, where other characters could become a quote. */
export function quoteNational(value: string): string {
  assertText(value)
  return `N'${value.replaceAll("'", "''")}'`
}

/** Folded as Oracle folds a name without quotes; `"Mixed"` keeps its case. */
export function foldOracle(value: string): string {
  assertName(value)
  if (/^[A-Za-z][A-Za-z0-9_$#]*$/.test(value)) return value.toUpperCase()
  const [, exact] = /^"([ !#-~]+)"$/.exec(value) ?? []
  if (exact !== undefined) return exact
  throw new UnfitValue('is no plain name: put it in double quotes to keep it as it is')
}

export function quoteOracle(value: string): string {
  return `"${foldOracle(value)}"`
}

/** ASCII only: the server may turn the statement into its own character set before it reads it. */
export function quoteOracleText(value: string): string {
  assertText(value)
  if (!/^[ -~]*$/.test(value)) throw new UnfitValue('has characters beyond ASCII')
  return `'${value.replaceAll("'", "''")}'`
}

function assertName(value: string): void {
  assertText(value)
  if (value === '') throw new UnfitValue('is empty')
  if (value.length > nameCharactersMax) throw new UnfitValue(`is longer than ${nameCharactersMax} characters`)
}

function assertText(value: string): void {
  assertWellFormed(value)
  if (/[\0-\x1f\x7f]/.test(value)) throw new UnfitValue('holds a control character')
  if (value.length > literalCharactersMax) {
    throw new UnfitValue(`is longer than ${literalCharactersMax} characters`)
  }
}

function binary(value: string): string {
  // In a plan, and no constant anywhere else.
  if (value === '********') return value
  if (!binaryForm.test(value)) throw new UnfitValue('is not 0x and hexadecimal digits')
  return value
}

const tsqlRules: Rules = { names: { '"': '"', '[': ']' }, doubles: true, semicolon: undefined }
const oracleRules: Rules = {
  names: { '"': '"' }, doubles: false, semicolon: 'a semicolon: a statement ends without one'
}

function dialectOf(
  rules: Rules, quoting: Pick<SqlDialect, 'identifier' | 'literal' | 'binary'>
): SqlDialect {
  const scan = (pieces: readonly SqlPiece[]): SqlScan => new StrictScanner(rules).read(pieces)
  return { ...quoting, scan, problems: text => scan([{ text }]).problems }
}

/**
 * A scanner without any unusual state: plain text, a string, or a quoted name. A hole in plain text must
 * stand alone, as in scanSql.
 */
class StrictScanner {
  readonly #rules: Rules
  readonly #places = new Map<number, HolePlace>()
  readonly #problems = new Set<string>()
  /** What closes the quote that we are in; '' in plain text. */
  #closing = ''
  /** A word, a quote or a hole ended right here. */
  #touches = false
  #afterHole = false
  #ended = false

  constructor(rules: Rules) {
    this.#rules = rules
  }

  read(pieces: readonly SqlPiece[]): SqlScan {
    for (const piece of pieces) {
      if ('hole' in piece) this.#hole(piece.hole)
      else this.#text(piece.text)
    }
    if (this.#closing !== '') this.#problems.add('a quote is not closed')
    return { places: this.#places, problems: [...this.#problems] }
  }

  #hole(number: number): void {
    if (this.#closing !== '') {
      this.#places.set(number, this.#closing === "'" ? 'string' : 'identifier')
      return
    }
    if (this.#ended) this.#problems.add(oneOnly)
    if (this.#touches) this.#problems.add(touching)
    this.#places.set(number, 'plain')
    this.#touches = true
    this.#afterHole = true
  }

  #text(text: string): void {
    let at = 0
    while (at < text.length) at += this.#closing === '' ? this.#plain(text, at) : this.#in(text, at)
  }

  /** Answers how many characters it took. */
  #plain(text: string, at: number): number {
    const character = text[at] ?? ''
    const two = text.slice(at, at + 2)
    if (two === '--' || two === '/*') this.#problems.add('a comment: write it in YAML')
    if (character === '\\') this.#problems.add('a backslash: it is no escape here')
    const isSpace = /\s/.test(character)
    const { semicolon } = this.#rules
    if (character === ';' && semicolon !== undefined) this.#problems.add(semicolon)
    if (character === ';') this.#ended = true
    else if (!isSpace && this.#ended) this.#problems.add(oneOnly)
    const opens = character === "'" ? "'" : this.#rules.names[character]
    const isWord = wordCharacter.test(character)
    if (this.#afterHole && (isWord || opens !== undefined)) this.#problems.add(touching)
    this.#afterHole = false
    if (opens !== undefined) {
      const national = character === "'" && /(?:^|[^A-Za-z0-9_$#@])[nN]$/.test(text.slice(0, at))
      if (this.#touches && !national) this.#problems.add('a quote touches a word or another quote')
      this.#closing = opens
      return 1
    }
    this.#touches = isWord
    return 1
  }

  /** Inside a quote; answers how many characters it took. */
  #in(text: string, at: number): number {
    if (text[at] === '\\' && this.#closing === "'") this.#problems.add('a backslash: it is no escape here')
    if (text[at] !== this.#closing) return 1
    const doubles = this.#closing === "'" || this.#rules.doubles
    if (doubles && text[at + 1] === this.#closing) return 2
    this.#closing = ''
    this.#touches = true
    return 1
  }
}

export const dialects: Readonly<Record<SqlContext, SqlDialect>> = {
  sql: {
    identifier: quoteIdentifier, literal: quoteLiteral, scan: scanSql, problems: statementProblems
  },
  tsql: dialectOf(tsqlRules, { identifier: quoteBracketed, literal: quoteNational, binary }),
  oracle: dialectOf(oracleRules, { identifier: quoteOracle, literal: quoteOracleText })
}

/** What the SQL of a plugin's templates is written in. */
export function sqlOfPlugin(plugin: string): SqlContext {
  if (plugin === 'mssql') return 'tsql'
  return plugin === 'oracle' ? 'oracle' : 'sql'
}
