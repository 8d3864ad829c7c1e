// Full-text search over all recordings; a hit leads to its moment in the session. The search itself is
// audited, so it happens when it is asked for, not while somebody types.
import { get } from './call.ts'
import { html } from './html.ts'
import type { View } from './html.ts'
import type { PageProps } from './page.ts'
import { Filters, Table, When, counted, momentOf, show, useLoad } from './parts.ts'

const hitsShown = 200

export function SearchPage({ query }: PageProps): View {
  const words = query.get('query') ?? ''
  return html`
    <h1>Search recordings</h1>
    <${Filters} label="Search recordings" button="Search" values=${query} fields=${[
      { name: 'query', label: 'Statements and output that contain', type: 'search', wide: true },
      { name: 'session', label: 'Only in session (id)' }
    ]} />
    ${words === '' ? null : html`<${Hits} words=${words} session=${query.get('session') ?? undefined} />`}`
}

function Hits({ words, session }: { words: string, session: string | undefined }): View {
  const found = useLoad(signal => get('/search', {
    query: { query: words, session, limit: hitsShown }, signal
  }))
  return show(found, ({ hits, unanswered }) => html`
    <p role="status">${hits.length === hitsShown ? 'The first ' : ''}${counted(hits.length, 'place')}</p>
    ${unanswered.length === 0 ? null : html`<p class="bad">Not, or not all, looked through: the recordings of
      ${unanswered.map(({ node, code }) => `${node} (${code})`).join(', ')}.</p>`}
    <${Table} label="Places" none="Nothing that was recorded contains this."
      heads=${['At', 'Who', 'Where', 'What', 'Text']}
      rows=${hits.map(hit => [
        html`<a href=${`/console/sessions/${hit.session}#at=${hit.atMs / 1000}`}><${When} at=${hit.at} /></a>
          <span class="quiet"> ${momentOf(hit.atMs)}</span>`,
        hit.user, `${hit.credential} on ${hit.target}`, hit.kind, html`<code class="data">${hit.text}</code>`
      ])} />`)
}
