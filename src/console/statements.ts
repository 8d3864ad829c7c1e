// A recorded PostgreSQL session as a lane: when each statement was asked, what came of it, how long it took.
// The recording is sent as far as it is shown and no further; whoever jumps to a moment gets what was asked
// just before it, and what came then.
import { useEffect, useRef, useState } from 'preact/hooks'
import type { LineOf } from '../api/table.ts'
import { lines } from './call.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { Problem, counted, momentOf } from './parts.ts'

/** Read and shown at a time. */
const statementsPerPage = 200
/** Shown of what was before the moment that was asked for. */
const statementsBefore = 10
/** Shown in all, so that the page stays usable; whoever wants more jumps. */
const statementsMax = 5_000

/** Addresses have the moment in seconds, with as many digits as somebody left. */
const roundingMs = 0.5

/** Of the export as JSON lines; only what is shown here. */
type Line = LineOf<'/sessions/{id}/statements'>

interface Reader {
  shown: Line[]
  /** Lines before the first that is shown were left out. */
  skipped: boolean
  ended: boolean
  failure: unknown
  more(): void
}

function useLines(id: string, atMs: number): Reader {
  const [shown, setShown] = useState<Line[]>([])
  const [state, setState] = useState({ skipped: false, ended: false })
  const [failure, setFailure] = useState<unknown>()
  const source = useRef<AsyncGenerator<Line>>(undefined)
  const reading = useRef(false)
  const more = async (): Promise<void> => {
    if (reading.current || source.current === undefined) return
    reading.current = true
    try {
      const { page, skipped, ended } = await read(source.current)
      setShown(before => [...before, ...page])
      setState(before => ({ skipped: before.skipped || skipped, ended }))
    } catch (thrown) {
      if (!(thrown instanceof DOMException)) setFailure(thrown)
    }
    reading.current = false
  }
  useEffect(() => {
    const stop = new AbortController()
    source.current = lines('/sessions/{id}/statements', {
      params: { id }, query: { from: atMs, before: statementsBefore }, signal: stop.signal
    })
    void more()
    return () => stop.abort()
  }, [id, atMs])
  return { shown, ...state, failure, more: () => void more() }
}

/** The next lines; the first of all says how many were left out before them. */
async function read(
  source: AsyncGenerator<Line>
): Promise<{ page: Line[], skipped: boolean, ended: boolean }> {
  const page: Line[] = []
  let skipped = false
  for (;;) {
    const next = await source.next()
    if (next.done === true) return { page, skipped, ended: true }
    if (next.value.type === 'skipped') skipped = (next.value.count ?? 0) > 0
    else page.push(next.value)
    if (page.length >= statementsPerPage) return { page, skipped, ended: false }
  }
}

export function Statements({ id, atSeconds }: { id: string, atSeconds: number | undefined }): View {
  const atMs = (atSeconds ?? 0) * 1000
  const { shown, skipped, ended, failure, more } = useLines(id, atMs)
  // The one that ran at the moment: the last that was asked by then.
  const wanted = atSeconds === undefined
    ? -1
    : Math.max(0, shown.findLastIndex(line => line.atMs <= atMs + roundingMs))
  return html`
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
    ${skipped ? html`<p class="quiet">Earlier statements are left out.
      <a href="#replay"> Show from the start</a></p>` : null}
    <ol class="lane" aria-label="Statements">${shown.map((line, index) => html`
      <li key=${index} aria-current=${index === wanted ? 'true' : undefined}
        ref=${index === wanted ? scrollHere : undefined}>${lineView(line)}</li>`)}</ol>
    ${ended
      ? html`<p class="quiet" role="status">
          ${shown.length === 0 ? 'Nothing was asked.' : 'End of the recording.'}</p>`
      : shown.length >= statementsMax
        ? html`<p class="quiet">More than ${statementsMax} are not shown at once: jump with the times.</p>`
        : html`<p><button type="button" onClick=${more}>Read on</button></p>`}`
}

function scrollHere(element: HTMLElement | null): void {
  element?.scrollIntoView({ block: 'center' })
}

function lineView(line: Line): Content {
  const at = html`<a class="at" href=${`#at=${line.atMs / 1000}`} title=${line.at}>${momentOf(line.atMs)}</a>`
  if (line.type === 'close') return html`${at}<p class="event">${line.how}: ${line.reason}</p>`
  if (line.type === 'event') return html`${at}<p class="event">${line.event}</p>`
  const { sql = '', parameters = [], error, durationMs, verdict, alarm, cut, outcome, notices = [] } = line
  return html`${at}
    <div class="statement">
      <pre><code>${sql}${cut === true ? ' …' : ''}</code></pre>
      ${parameters.length === 0 ? null : html`<ol class="parameters">${parameters.map((value, index) => html`
        <li><span class="quiet">$${index + 1} = </span><code>${value ?? 'NULL'}</code></li>`)}</ol>`}
      ${notices.map(notice => html`<p class="quiet">${notice}</p>`)}
      ${error === undefined ? null : html`<p class="bad"><strong>${error.severity} ${error.sqlstate}</strong>
        ${' '}${error.message}</p>`}
      ${verdict === undefined ? null : html`<p class="bad"><strong>Rule ${verdict.rule}</strong>
        ${' '}${verdict.verdict} ${verdict.kinds}</p>`}
      ${alarm === undefined ? null : html`<p class="bad"><strong>Alarm</strong>: a password is set</p>`}
      <p class="outcome">${outcomeOf(line)}${durationMs === undefined ? '' : ` · ${durationMs.toFixed(1)} ms`}
        ${outcome === 'skipped' ? ' · not run, because of the error before it' : ''}
        ${outcome === 'unanswered' ? ' · no answer is recorded' : ''}</p>
    </div>`
}

function outcomeOf({ results = [] }: Line): string {
  return results.map(({ tag, rows, bytes, copiedBytes }) => [
    tag === '' ? 'no result' : tag, ...bytes > 0 ? [counted(rows, 'row'), counted(bytes, 'byte')] : [],
    ...copiedBytes > 0 ? [`${counted(copiedBytes, 'byte')} copied in`] : []
  ].join(', ')).join(' · ')
}
