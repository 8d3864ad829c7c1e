// PostgreSQL's own parser (libpg_query, as WebAssembly) in a thread of its own: a hostile text may run its
// stack out or keep it busy for seconds, and must not do that to the bytes of sessions. It tells what kinds
// of statements a text holds; on anything that it is not built for it says `broken` and is thrown away.
// Started by sql-parser.ts, which holds the limits.
import { parentPort } from 'node:worker_threads'
import { loadModule, parseSync, scanSync } from 'libpg-query'
import { endsElsewhere, kindsOf } from '../policy/sql-kinds.ts'
import type { ParsedStatement } from '../policy/sql-kinds.ts'

export interface ParseOrder {
  sql: string
  wantsText: boolean
}

/** Undefined statements: it is no SQL, or may be another one than it seems. */
export interface ParseAnswer {
  statements: readonly ParsedStatement[] | undefined
  broken: boolean
}

interface RawStatement {
  stmt?: unknown
  stmt_location?: number
  stmt_len?: number
}

interface Token {
  start: number
  end: number
  text: string
  tokenName: string
}

/** Statements come in the order of the text: each token is looked at once for all of them. */
interface Reading {
  tokens: readonly Token[]
  at: number
}

function statementsOf({ sql, wantsText }: ParseOrder): ParsedStatement[] | undefined {
  // It refuses the empty text, which a server takes.
  if (sql.trim() === '') return []
  const { stmts = [] } = parseSync(sql) as { stmts?: RawStatement[] }
  const isDoubtful = sql.includes("\\'")
  const tokens = isDoubtful || wantsText ? scanSync(sql).tokens : []
  if (isDoubtful && tokens.some(({ text }) => endsElsewhere(text))) return undefined
  const reading: Reading = { tokens, at: 0 }
  return stmts.map(({ stmt, stmt_location: start = 0, stmt_len: length = Infinity }) =>
    ({ text: wantsText ? textOf(reading, start, start + length) : '', kinds: kindsOf(stmt) }))
}

/** Bytes `start..end` of the text, without comments, and with single blanks where there was any space. */
function textOf(reading: Reading, start: number, end: number): string {
  const parts: string[] = []
  let before = start
  for (; reading.at < reading.tokens.length; reading.at++) {
    const token = reading.tokens[reading.at]!
    if (token.end > end) break
    if (token.start < start || /^(SQL|C)_COMMENT$/.test(token.tokenName)) continue
    if (token.start > before && parts.length > 0) parts.push(' ')
    parts.push(token.text)
    before = token.end
  }
  return parts.join('')
}

await loadModule()
const port = parentPort!
port.on('message', (order: ParseOrder) => {
  let answer: ParseAnswer
  try {
    answer = { statements: statementsOf(order), broken: false }
  } catch (thrown) {
    // What PostgreSQL says of a text is an answer; all else leaves a memory of which nobody knows the state.
    const isSqlError = thrown instanceof Error && thrown.name === 'SqlError'
    answer = { statements: undefined, broken: !isSqlError }
  }
  port.postMessage(answer)
})
port.postMessage('ready')
