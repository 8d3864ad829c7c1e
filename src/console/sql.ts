// Statements on a PostgreSQL target, one at a time: rows some at a time, notices, errors with their place in
// the statement, and whether a transaction is open. What stands here is what the page was told; the record
// of the session has all of it.
import { useEffect, useRef, useState } from 'preact/hooks'
import { Around } from './around.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { Table, counted, lengthOf } from './parts.ts'
import { useSession } from './socket.ts'
import type { Words } from './socket.ts'

/** Answers that stay on the page, and rows of one. */
const answersMax = 20
const rowsMax = 2_000

interface Failed {
  severity: string
  sqlstate: string
  message: string
  detail?: string
  hint?: string
  /** Characters from 1. */
  position?: number
}

interface Answer {
  sql: string
  begunMs: number
  lastedMs?: number
  columns: readonly string[]
  rows: readonly (readonly (string | null)[])[]
  more: boolean
  tag?: string
  notices: readonly string[]
  error?: Failed
  /** The session was over before it came. */
  missing?: true
}

const transactions: Readonly<Record<string, string>> = {
  I: 'no transaction', T: 'in a transaction', E: 'in a failed transaction: ROLLBACK ends it'
}

export function SqlSession({ login, watches }: { login: string, watches: boolean }): View {
  const connection = useSession('postgres', login)
  const field = useRef<HTMLTextAreaElement>(null)
  const [answers, setAnswers] = useState<readonly Answer[]>([])
  const [state, setState] = useState<'busy' | 'more' | 'idle'>('busy')
  const [transaction, setTransaction] = useState('I')

  const hear = (words: Words): void => {
    if (words.type === 'ready') {
      if (typeof words['transaction'] === 'string') setTransaction(words['transaction'])
      setState('idle')
    } else if (words.type === 'rows' && words['more'] === true) setState('more')
    setAnswers(([newest, ...others]) => newest === undefined ? [] : [heard(newest, words), ...others])
  }
  const begin = (): Promise<void> => {
    setAnswers([])
    setState('busy')
    return connection.begin({}, { words: hear })
  }
  const isOpen = connection.phase === 'open'
  // What somebody was typing when the line was cut is still there for the next session.
  const [wasOpen, setWasOpen] = useState(false)
  useEffect(() => {
    if (connection.phase === 'open') setWasOpen(true)
    if (connection.phase === 'over') setAnswers(before => before.map(leftAlone))
  }, [connection.phase])
  const run = (): void => {
    const sql = field.current!.value
    if (!isOpen || state === 'busy' || sql.trim() === '') return
    const begunMs = performance.now()
    const answer: Answer = { sql, begunMs, columns: [], rows: [], more: false, notices: [] }
    setAnswers(before => [answer, ...before.map(each => ({ ...each, more: false }))].slice(0, answersMax))
    setState('busy')
    connection.say({ type: 'run', sql })
  }
  const more = (): void => {
    setState('busy')
    connection.say({ type: 'more' })
  }
  const keys = (event: KeyboardEvent): void => {
    if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return
    event.preventDefault()
    run()
  }
  return html`<${Around} connection=${connection} watches=${watches} what="SQL session" begin=${begin}>
    ${isOpen || wasOpen ? html`<form class="sql" aria-label="Statement" onSubmit=${(event: SubmitEvent) => {
      event.preventDefault()
      run()
    }}>
      <label>Statement <textarea ref=${field} rows="5" spellcheck=${false} autocapitalize="off"
        maxlength="500000" onKeyDown=${keys}></textarea></label>
      <p class="acts"><button disabled=${!isOpen || state === 'busy'}>Run</button>
        <button type="button" disabled=${!isOpen || state !== 'busy'}
          onClick=${() => connection.say({ type: 'cancel' })}>Cancel</button>
        <span class="quiet">Ctrl+Enter runs it.</span>
        <span role="status" aria-label="Transaction">${transactions[transaction]}</span></p>
    </form>` : null}
    ${answers.map((answer, index) => html`<${Answered} key=${answer.begunMs} answer=${answer}
      more=${isOpen && index === 0 && state === 'more' ? more : undefined} />`)}
  <//>`
}

/** What has not come, will not come. */
function leftAlone(answer: Answer): Answer {
  return answer.lastedMs === undefined ? { ...answer, missing: true } : { ...answer, more: false }
}

/** The answer, with what was just heard. */
function heard(answer: Answer, words: Words): Answer {
  const lastedMs = performance.now() - answer.begunMs
  switch (words.type) {
    case 'columns': return { ...answer, columns: words['names'] as string[] }
    case 'rows': {
      const rows = [...answer.rows, ...words['rows'] as (string | null)[][]]
      return { ...answer, rows, more: words['more'] === true, lastedMs }
    }
    case 'notice': {
      if (words['severity'] === undefined) return answer
      const notice = `${String(words['severity'])}: ${String(words['text'])}`
      return { ...answer, notices: [...answer.notices, notice] }
    }
    case 'error': return { ...answer, error: words as unknown as Failed, lastedMs }
    case 'done': {
      const left = Number(words['noticesLeft'])
      const notices = left > 0 ? [...answer.notices, `… and ${counted(left, 'notice')} more`] : answer.notices
      return { ...answer, tag: String(words['tag']), notices, lastedMs }
    }
    default: return answer
  }
}

function saidOf({ tag, rows, lastedMs, missing }: Answer): string {
  if (missing === true) return 'No answer came: the line was over before. The statement may have run.'
  if (lastedMs === undefined) return 'Runs …'
  return [tag, counted(rows.length, 'row'), lengthOf(lastedMs)].filter(Boolean).join(', ')
}

function Answered({ answer, more }: { answer: Answer, more: (() => void) | undefined }): View {
  const { sql, columns, rows, notices, error } = answer
  const full = rows.length >= rowsMax
  return html`<section class="answer" aria-label="Answer">
    <pre><code>${error?.position === undefined ? sql : marked(sql, error.position)}</code></pre>
    ${notices.length === 0 ? null : html`<ul class="notices">${notices.map(text => html`
      <li>${text}</li>`)}</ul>`}
    ${error === undefined ? null : html`<div class="problem" role="alert">
      <p><strong>${error.severity}: ${error.message}</strong> <code class="tag">${error.sqlstate}</code></p>
      ${[error.detail, error.hint].filter(text => text !== undefined).map(text => html`<p>${text}</p>`)}
    </div>`}
    ${columns.length === 0 ? null : html`<div class="results"><${Table} label="Rows" none="No rows."
      heads=${columns} rows=${rows.map(cells => cells.map(shown))} /></div>`}
    <p class="acts">
      <span class="quiet">${saidOf(answer)}</span>
      ${more === undefined ? null : full
        ? html`<span class="quiet">There are more: psql shows all of them.</span>`
        : html`<button type="button" onClick=${more}>More rows</button>`}
    </p>
  </section>`
}

function shown(cell: string | null): Content {
  return cell === null ? html`<span class="quiet">NULL</span>` : html`<code class="data">${cell}</code>`
}

/** The statement with the place of an error; PostgreSQL counts characters, not UTF-16 units. */
function marked(sql: string, position: number): Content {
  const characters = [...sql]
  const before = characters.slice(0, position - 1).join('')
  const [word = ''] = /^\w+|^[^]/u.exec(characters.slice(position - 1).join('')) ?? []
  const at = before.length
  return html`${before}<mark>${word}</mark>${sql.slice(at + word.length)}`
}
