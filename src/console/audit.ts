// The audit log, newest first, and whether its chains are whole: checked by the server when it is asked.
import { useState } from 'preact/hooks'
import type { AuditVerifiedJson } from '../api/client-types.ts'
import { get, linkTo, post } from './call.ts'
import { html } from './html.ts'
import type { View } from './html.ts'
import type { PageProps } from './page.ts'
import { Filters, More, Problem, State, Table, When, instantOf, rowsPerPage, show, useLoad } from './parts.ts'

export function AuditPage({ query }: PageProps): View {
  const named = (name: string): string | undefined => query.get(name) ?? undefined
  const loaded = useLoad(signal => get('/audit', {
    query: {
      kind: named('kind'), actor: named('actor'), subject: named('subject'), before: named('before'),
      since: instantOf(query.get('since')), until: instantOf(query.get('until')), limit: rowsPerPage
    }, signal
  }))
  return html`<h1>Audit log</h1>
    <${Verify} />
    <${Filters} label="Filter events" values=${query} fields=${[
      { name: 'kind', label: 'What' }, { name: 'actor', label: 'By' }, { name: 'subject', label: 'On' },
      { name: 'since', label: 'From (UTC)', type: 'datetime-local' },
      { name: 'until', label: 'Until (UTC)', type: 'datetime-local' }
    ]} />
    ${show(loaded, ({ events }) => html`
      <${Table} label="Events" none="No event matches." heads=${['At', 'What', 'By', 'On', 'Detail', 'Chain']}
        rows=${events.map(({ at, kind, actor, subject, detail, chain, seq, hash }) => [
          html`<${When} at=${at} />`, kind, actor, html`<code>${subject}</code>`,
          html`<code class="data">${JSON.stringify(detail)}</code>`,
          html`<span class="quiet" title=${hash}>${chain.slice(0, 8)} ${seq}</span>`
        ])} />
      <${More} label="Older events" rows=${events.length} values=${query} by="before"
        last=${events.slice(-1).map(({ chain, seq }) => `${chain}:${seq}`)[0]} />`)}`
}

function Verify(): View {
  const [verdict, setVerdict] = useState<AuditVerifiedJson>()
  const [failure, setFailure] = useState<unknown>()
  const check = (): Promise<void> => post('/audit/verify', { body: {} }).then(setVerdict, setFailure)
  return html`<p class="acts"><button type="button" onClick=${check}>Verify the chains</button>
      <a href=${linkTo('/audit/export')} download>Export with a signed checkpoint</a></p>
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
    ${verdict === undefined ? null : html`<div role="status">
      <p><${State} of=${verdict.valid ? 'valid' : 'broken'} /> ${verdict.events} events,
        ${' '}${verdict.checkpoints} checkpoints, ${verdict.unsigned} not signed yet</p>
      ${verdict.problems.length === 0 ? null
        : html`<ul class="bad">${verdict.problems.map(problem => html`<li>${problem}</li>`)}</ul>`}
      <details><summary>Heads</summary><ul>${verdict.heads.map(({ chain, seq, hash }) => html`
        <li><code>${chain}</code> ${seq} <code class="hash">${hash}</code></li>`)}</ul></details>
    </div>`}`
}
