// One statement of a PostgreSQL recording as people and programs see it: passwords masked, in plain values.
// Made by the decoder in postgres.ts; shown by replay, search, exports and the API.
import { maskSecrets, maskedValue } from './mask.ts'

export interface StatementError {
  severity: string
  sqlstate: string
  message: string
  detail?: string | undefined
  hint?: string | undefined
}

export interface StatementResult {
  /** Command tag: `INSERT 0 1`; empty for an empty query or a portal that was suspended. */
  tag: string
  rows: number
  /** Bytes of rows, or of COPY to the client. */
  bytes: number
  /** Bytes of COPY from the client. */
  copiedBytes: number
}

export interface StatementVerdict {
  verdict: string
  /** Place in the grant's list, from 1; `none`: it could not be read. */
  rule: string
  kinds: string
}

export interface StatementRecord {
  /** Milliseconds since the start of the recording: when the client asked. */
  atMs: number
  lane: number
  /** Offset of the frame in which the client asked. */
  offset: number
  /**
   * Simple query, Execute of a portal, function call; a Parse or Bind that failed; what the target said
   * unasked.
   */
  kind: 'query' | 'execute' | 'call' | 'prepare' | 'message'
  /** Passwords masked. */
  sql: string
  /** Text, or `\x…` for binary values; null is SQL NULL. */
  parameters: (string | null)[]
  /** `skipped`: not run, because of an error before it. `unanswered`: the recording holds no answer. */
  outcome: 'ok' | 'error' | 'skipped' | 'unanswered'
  /** Several for a simple query with several statements. */
  results: StatementResult[]
  /** Of the last result. */
  tag: string
  /** Sums over the results. */
  rows: number
  bytes: number
  copiedBytes: number
  error: StatementError | undefined
  notices: string[]
  durationMs: number | undefined
  /** What a rule of the grant said to it; undefined: nothing. */
  verdict?: StatementVerdict | undefined
  /** The person may have made a way round the proxy. */
  alarm: 'password-change' | undefined
  /** SQL or parameters are longer than what is shown, or than what is on the tape. */
  cut: boolean
}

/** What the target said although nobody had asked. */
export function messageRecord(atMs: number, lane: number, offset: number): StatementRecord {
  return {
    atMs, lane, offset, kind: 'message', sql: '', parameters: [], outcome: 'ok', results: [], tag: '',
    rows: 0, bytes: 0, copiedBytes: 0, error: undefined, notices: [], durationMs: undefined, alarm: undefined,
    cut: false
  }
}

/** From the body of a `verdict` event; undefined when it is none. */
export function verdictOf(
  { type, verdict, rule, kinds }: Record<string, unknown>
): StatementVerdict | undefined {
  if (type !== 'verdict' || typeof verdict !== 'string') return undefined
  return { verdict, rule: String(rule), kinds: typeof kinds === 'string' ? kinds : '' }
}

/** `rule 2: refused (drop)`. */
export function verdictText({ verdict, rule, kinds }: StatementVerdict): string {
  return `rule ${rule}: ${verdict}${kinds === '' ? '' : ` (${kinds})`}`
}

function maskedError(error: StatementError): StatementError {
  const hide = (text: string | undefined): string | undefined =>
    text === undefined ? undefined : maskSecrets(text).sql
  const { severity, sqlstate, message, detail, hint } = error
  return { severity, sqlstate, message: maskSecrets(message).sql, detail: hide(detail), hint: hide(hint) }
}

/** The same record without passwords, and with the alarm where one was set. */
export function withoutSecrets(record: StatementRecord): StatementRecord {
  const { sql, masked, passwordChange } = maskSecrets(record.sql)
  const { parameters } = record
  // Where the text holds a password, its parameters may as well.
  const hidden = masked || passwordChange
  return {
    ...record,
    sql,
    parameters: hidden ? parameters.map(value => value === null ? null : maskedValue) : parameters,
    notices: record.notices.map(text => maskSecrets(text).sql),
    error: record.error === undefined ? undefined : maskedError(record.error),
    alarm: passwordChange ? 'password-change' : undefined
  }
}
