// Takes passwords out of SQL before a person, an index or an export sees it. A tape holds what the client
// sent, and people type `ALTER ROLE me PASSWORD '…'`; an auditor needs to see that it was done, not what it
// was. It reads SQL as PostgreSQL's lexer does (comments, '…' and E'…', U&'…', $tag$…$tag$, "…"), also inside
// strings and function bodies, and where a password is put together at run time it masks every literal of the
// statement: when in doubt it hides. Limit: the raw frames of the recording are not changed
// (recordings/README.md says so).

/** What stands in the place of a literal. */
export const maskedLiteral = "'<secret>'"
export const maskedValue = '<secret>'

/** Functions in functions: deeper than this, a text that mentions a password is masked as a whole. */
const depthMax = 4

export interface Masked {
  sql: string
  /** Something was hidden: parameters and error texts may hold it as well. */
  masked: boolean
  /** A role's password is set or changed: the person may have made a way round the proxy. */
  passwordChange: boolean
}

type TokenKind = 'word' | 'literal' | 'space' | 'other'

interface Token {
  kind: TokenKind
  text: string
}

const mentions = /password/i
const roleStatement = /\b(alter|create)\s+(role|user|group)\b/i
const connectionPassword = /(\bpassword\s*=\s*)('(?:[^'\\]|\\.|'')*'?|[^\s'&;]+)/gi
// With lengths: without an `@` each would otherwise be looked for to the end of the text.
const urlPassword = /(\bpostgres(?:ql)?:\/\/[^\s:@/]{0,256}:)([^\s@]{1,512})(@)/gi

// One pattern for each thing that the lexer knows; the first that fits at a place counts. Each is open-ended,
// because a statement may have been cut: what was not closed runs to the end.
const lexer = new RegExp([
  /(?<space>\s+|--[^\n]*)/,
  /(?<comment>\/\*)/,
  /(?<escaped>[eE]'(?:[^'\\]|\\[^]|'')*(?:'|$))/,
  /(?<plain>(?:[uU]&|[nNbBxX])?'(?:[^']|'')*(?:'|$))/,
  /(?<dollar>\$(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$)/,
  /(?<word>[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*|"(?:[^"]|"")*(?:"|$))/,
  /(?<other>\$?\d+|[^])/
].map(pattern => pattern.source).join('|'), 'y')

/** Where a comment ends: they nest. */
function commentEnd(sql: string, start: number): number {
  let depth = 0
  const border = /\/\*|\*\//g
  border.lastIndex = start
  for (let found = border.exec(sql); found !== null; found = border.exec(sql)) {
    depth += found[0] === '/*' ? 1 : -1
    if (depth === 0) return border.lastIndex
  }
  return sql.length
}

function tokenize(sql: string): Token[] {
  const tokens: Token[] = []
  let at = 0
  while (at < sql.length) {
    lexer.lastIndex = at
    const groups = lexer.exec(sql)?.groups ?? {}
    let end = lexer.lastIndex
    let kind: TokenKind = 'other'
    if (groups['comment'] !== undefined) {
      end = commentEnd(sql, at)
      kind = 'space'
    } else if (groups['dollar'] !== undefined) {
      const close = sql.indexOf(groups['dollar'], end)
      end = close < 0 ? sql.length : close + groups['dollar'].length
      kind = 'literal'
    } else if (groups['space'] !== undefined) kind = 'space'
    else if (groups['escaped'] !== undefined || groups['plain'] !== undefined) kind = 'literal'
    else if (groups['word'] !== undefined) kind = 'word'
    tokens.push({ kind, text: sql.slice(at, end) })
    at = end
  }
  return tokens
}

function isPassword(token: Token | undefined): boolean {
  return token?.kind === 'word' && token.text.replaceAll('"', '').toLowerCase() === 'password'
}

/** The text in a literal, and how to put another one back. */
function openLiteral(literal: string): { inner: string, close: (inner: string) => string } {
  const dollar = /^\$[^$]*\$/.exec(literal)?.[0]
  if (dollar !== undefined) {
    const ended = literal.length >= 2 * dollar.length && literal.endsWith(dollar)
    const inner = literal.slice(dollar.length, ended ? -dollar.length : undefined)
    return { inner, close: text => `${dollar}${text}${ended ? dollar : ''}` }
  }
  const quote = literal.indexOf("'")
  const ended = literal.length > quote + 1 && literal.endsWith("'")
  const inner = literal.slice(quote + 1, ended ? -1 : undefined).replaceAll("''", "'").replaceAll("\\'", "'")
  const start = literal.slice(0, quote + 1)
  return { inner, close: text => `${start}${text.replaceAll("'", "''")}${ended ? "'" : ''}` }
}

function clear(sql: string): Masked {
  return { sql, masked: false, passwordChange: false }
}

/** Literals that are not SQL: connection strings of dblink, subscriptions, foreign servers. */
function maskConnection(text: string): string {
  return text.replace(connectionPassword, `$1${maskedValue}`).replace(urlPassword, `$1${maskedValue}$3`)
}

function maskLiteral(literal: string, depth: number): Masked {
  if (!mentions.test(literal) && !literal.includes('://')) return clear(literal)
  const { inner, close } = openLiteral(literal)
  const plain = maskConnection(inner)
  const found = maskAtDepth(plain, depth + 1)
  const masked = found.masked || plain !== inner
  return { sql: masked ? close(found.sql) : literal, masked, passwordChange: found.passwordChange }
}

function maskAtDepth(sql: string, depth: number): Masked {
  if (!mentions.test(sql)) return clear(sql)
  if (depth > depthMax) return { sql: maskedValue, masked: true, passwordChange: roleStatement.test(sql) }
  const tokens = tokenize(sql)
  const meaningful = tokens.filter(token => token.kind !== 'space')
  const words = meaningful.map(token => token.text).join(' ')
  const setsRole = roleStatement.test(words) && meaningful.some(isPassword)
  let masked = false
  let nestedChange = false
  // `PASSWORD` and then no literal: it is put together at run time, from other literals of this statement.
  let assembled = false
  let before: Token | undefined
  for (const token of tokens) {
    if (token.kind === 'space') continue
    if (token.kind === 'literal' && isPassword(before)) {
      token.text = maskedLiteral
      masked = true
    } else if (token.kind === 'literal') {
      assembled ||= endsOpen(token.text)
      const nested = maskLiteral(token.text, depth)
      token.text = nested.sql
      masked ||= nested.masked
      nestedChange ||= nested.passwordChange
    }
    before = token
  }
  if (assembled) {
    for (const token of tokens) {
      if (token.kind === 'literal' && !endsOpen(token.text)) token.text = maskedLiteral
    }
    masked = true
  }
  const text = tokens.map(token => token.text).join('')
  return { sql: text, masked, passwordChange: setsRole || nestedChange || assembled }
}

/** `'ALTER ROLE x PASSWORD ' || …` and `format('… PASSWORD %L', …)`. */
function endsOpen(literal: string): boolean {
  // One blank for many: else the pattern would try every way to divide them.
  const inner = openLiteral(literal).inner.replace(/\s+/g, ' ')
  return /\bpassword ?(%\S*|\$\d|'? ?$)/i.test(inner) && roleStatement.test(inner)
}

/** SQL for people: see the head of this file. */
export function maskSecrets(sql: string): Masked {
  const connection = sql.includes('://') ? sql.replace(urlPassword, `$1${maskedValue}$3`) : sql
  const found = maskAtDepth(connection, 0)
  return { ...found, masked: found.masked || connection !== sql }
}
