// SQL as text, PostgreSQL's lexical rules only (PostgreSQL documentation, "Lexical Structure"): quoting a
// value so that it stays one token, and scanning a statement to see where a hole stands and whether a second
// statement hides behind a semicolon. If the scanner and the server ever disagree about where a quote ends, a
// value can become code: so whatever is unusual (string continuation, holes in comments or dollar quotes) is
// refused.
import { Buffer } from 'node:buffer'

/** Where a hole stands: between tokens, inside `'…'`, or inside `"…"`. */
export type HolePlace = 'plain' | 'string' | 'identifier'

export type SqlPiece = { text: string } | { hole: number }

export interface SqlScan {
  /** One place for each hole that was met, by its number. */
  places: ReadonlyMap<number, HolePlace>
  problems: readonly string[]
}

/** NAMEDATALEN - 1: the server cuts longer names in silence, so that two names become one. */
export const identifierBytesMax = 63
/** A value is a name, a verifier or an instant; nothing sensible is longer. */
export const literalCharactersMax = 8192

const wordCharacter = /[A-Za-z0-9_$\u0080-\uffff]/
const whiteSpace = /[ \t\n\r\f\v]/
const dollarTag = /^\$(?:[A-Za-z_\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*)?\$/

export class UnfitValue extends Error {}

/** Text that PostgreSQL can hold: no NUL, no half of a surrogate pair. */
export function assertWellFormed(value: string): void {
  if (value.includes('\0')) throw new UnfitValue('holds a NUL character')
  if (!value.isWellFormed()) throw new UnfitValue('is not well-formed Unicode')
}

/** `name` → `"name"`. Throws UnfitValue for what cannot be a PostgreSQL identifier. */
export function quoteIdentifier(value: string): string {
  assertWellFormed(value)
  if (value === '') throw new UnfitValue('is empty')
  if (Buffer.byteLength(value) > identifierBytesMax) {
    throw new UnfitValue(`is longer than ${identifierBytesMax} bytes`)
  }
  return `"${value.replaceAll('"', '""')}"`
}

/**
 * `value` → `'value'`, or `E'…'` when a backslash is inside, which reads alike under both string settings.
 */
export function quoteLiteral(value: string): string {
  assertWellFormed(value)
  if (value.length > literalCharactersMax) {
    throw new UnfitValue(`is longer than ${literalCharactersMax} characters`)
  }
  const doubled = value.replaceAll("'", "''")
  return value.includes('\\') ? `E'${doubled.replaceAll('\\', '\\\\')}'` : `'${doubled}'`
}

/** Problems of a finished statement: more than one, or an unclosed quote. */
export function statementProblems(text: string): readonly string[] {
  return scanSql([{ text }]).problems
}

/**
 * Follows the server's lexer over the pieces of one statement. A hole in plain text must stand alone: a
 * letter, a quote or another hole next to it would melt with the value into one token.
 */
export function scanSql(pieces: readonly SqlPiece[]): SqlScan {
  const scanner = new SqlScanner()
  for (const piece of pieces) {
    if ('hole' in piece) scanner.hole(piece.hole)
    else scanner.text(piece.text)
  }
  return scanner.finish()
}

type State = 'plain' | 'string' | 'escape-string' | 'identifier' | 'dollar' | 'line-comment' | 'block-comment'

/** Bytes of one UTF-16 unit; the two halves of a pair make four. */
function utf8Bytes(unit: number): number {
  if (unit < 0x80) return 1
  return unit < 0x800 || (unit >= 0xd800 && unit < 0xe000) ? 2 : 3
}

const oneOnly = 'more than one statement: write one step for each'
const touching = 'a hole touches a word, a quote or another hole'

class SqlScanner {
  #state: State = 'plain'
  /** What closes the dollar quote that we are in. */
  #tag = ''
  /** Block comments nest in PostgreSQL. */
  #depth = 0
  /** The word that the character before belongs to, as far as it was read; '"' after a quote or a hole. */
  #word = ''
  /** A string ended and nothing but space followed: another string here would continue it. */
  #afterString = false
  #afterHole = false
  /** Bytes of the quoted name that we are in; the server would cut a long one in silence. */
  #nameBytes = 0
  #ended = false
  #places = new Map<number, HolePlace>()
  #problems = new Set<string>()

  hole(number: number): void {
    if (this.#state === 'plain') {
      if (this.#ended) this.#problems.add(oneOnly)
      if (this.#word !== '') this.#problems.add(touching)
      this.#places.set(number, 'plain')
      this.#word = '"'
      this.#afterString = false
      this.#afterHole = true
    } else if (this.#state === 'string' || this.#state === 'escape-string') {
      this.#places.set(number, 'string')
    } else if (this.#state === 'identifier') {
      this.#places.set(number, 'identifier')
    } else {
      this.#problems.add('a hole stands in a comment or in dollar-quoted text')
    }
  }

  text(text: string): void {
    if (this.#afterHole && /^(?:["']|[uU]&)/.test(text)) this.#problems.add(touching)
    if (this.#afterHole && wordCharacter.test(text[0] ?? '')) this.#problems.add(touching)
    this.#afterHole = false
    let at = 0
    while (at < text.length) at += this.#state === 'plain' ? this.#plain(text, at) : this.#quoted(text, at)
  }

  finish(): SqlScan {
    if (this.#state !== 'plain' && this.#state !== 'line-comment') {
      this.#problems.add('a quote or a comment is not closed')
    }
    return { places: this.#places, problems: [...this.#problems] }
  }

  /** Takes one token, or a part of a word; answers how many characters it took. */
  #plain(text: string, at: number): number {
    const character = text[at] ?? ''
    const two = text.slice(at, at + 2)
    if (two === '--') return this.#enter('line-comment', 2)
    if (two === '/*') return this.#enter('block-comment', 2)
    if (whiteSpace.test(character)) {
      this.#word = ''
      return 1
    }
    if (character === ';') {
      this.#ended = true
      this.#word = ''
      return 1
    }
    if (this.#ended) this.#problems.add(oneOnly)
    if (character === "'") return this.#openString()
    this.#afterString = false
    if (character === '"') return this.#enter('identifier', 1)
    const maybeTag = character === '$' && !wordCharacter.test(this.#word)
    const tag = maybeTag ? dollarTag.exec(text.slice(at, at + 80)) : null
    if (tag !== null) {
      this.#tag = tag[0]
      return this.#enter('dollar', tag[0].length)
    }
    if (wordCharacter.test(character)) this.#word = this.#word === '"' ? character : this.#word + character
    else this.#word = character === '&' && /^[uU]$/.test(this.#word) ? 'U&' : ''
    return 1
  }

  #openString(): number {
    if (this.#afterString) this.#problems.add('a string is continued by another one: write one string')
    const escape = /^[eE]$/.test(this.#word)
    if (!escape && !/^(?:[bBxXnN]|U&)?$/.test(this.#word)) this.#problems.add('a quote touches a word')
    return this.#enter(escape ? 'escape-string' : 'string', 1)
  }

  #enter(state: State, length: number): number {
    this.#state = state
    this.#nameBytes = 0
    if (state === 'block-comment') this.#depth = 1
    return length
  }

  /** Inside a quote or a comment; answers how many characters it took. */
  #quoted(text: string, at: number): number {
    const two = text.slice(at, at + 2)
    switch (this.#state) {
      case 'escape-string':
        if (text[at] === '\\') {
          if (two.length < 2) this.#problems.add('a backslash stands before a hole')
          return 2
        }
        return text[at] === "'" ? this.#closeQuote(two === "''") : 1
      case 'string':
        return text[at] === "'" ? this.#closeQuote(two === "''") : 1
      case 'identifier':
        if (text[at] === '"') return this.#closeQuote(two === '""')
        this.#nameBytes += utf8Bytes(text.charCodeAt(at))
        return 1
      case 'line-comment':
        if (text[at] === '\n' || text[at] === '\r') this.#leave('')
        return 1
      case 'block-comment':
        if (two === '/*') this.#depth++
        else if (two !== '*/') return 1
        else if (--this.#depth === 0) this.#leave('')
        return 2
      default:
        if (!text.startsWith(this.#tag, at)) return 1
        this.#leave('"')
        return this.#tag.length
    }
  }

  #closeQuote(doubled: boolean): number {
    if (doubled) {
      this.#nameBytes++
      return 2
    }
    if (this.#state === 'identifier' && this.#nameBytes > identifierBytesMax) {
      this.#problems.add(`a quoted name is longer than ${identifierBytesMax} bytes`)
    }
    this.#afterString = this.#state !== 'identifier'
    this.#leave('"')
    return 1
  }

  #leave(word: string): void {
    this.#state = 'plain'
    this.#word = word
  }
}
