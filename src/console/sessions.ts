// The list of sessions, newest first: filters and the place in the list are in the address, so that a view
// can be sent to somebody. The next page begins before the last session of this one.
import type { SessionJson } from '../api/client-types.ts'
import { get } from './call.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { isWatcher } from './page.ts'
import type { PageProps } from './page.ts'
import {
  Filters, More, State, Table, When, chosen, instantOf, lengthOf, rowsPerPage, show, useLoad
} from './parts.ts'
import type { Field } from './parts.ts'

const statuses = ['opening', 'live', 'ended', 'refused', 'interrupted'] as const

const fields: readonly Field[] = [
  { name: 'user', label: 'User' },
  { name: 'credential', label: 'Credential' },
  { name: 'target', label: 'Target' },
  { name: 'status', label: 'Status', choices: statuses },
  { name: 'since', label: 'From (UTC)', type: 'datetime-local' },
  { name: 'until', label: 'Until (UTC)', type: 'datetime-local' }
]

export function SessionsPage({ query, caller }: PageProps): View {
  const named = (name: string): string | undefined => query.get(name) ?? undefined
  const loaded = useLoad(signal => get('/sessions', {
    query: {
      user: named('user'), credential: named('credential'), target: named('target'),
      status: chosen(query, 'status', statuses), before: named('before'),
      since: instantOf(query.get('since')), until: instantOf(query.get('until')), limit: rowsPerPage
    }, signal
  }))
  const shown = isWatcher(caller) ? fields : fields.filter(({ name }) => name !== 'user')
  return html`
    <h1>Sessions</h1>
    ${isWatcher(caller) ? html`<form class="filters" action="/console/search" aria-label="Search recordings">
      <label class="wide">Statements and output that contain
        <input type="search" name="query" required maxlength="1000" /></label>
      <button>Search</button>
    </form>` : null}
    <${Filters} fields=${shown} values=${query} label="Filter sessions" />
    ${show(loaded, ({ sessions }) => html`
      <${Table} label="Sessions" none="No session matches."
        heads=${['Started', 'Status', 'User', 'Credential', 'Target', 'Lasted', 'Account', '']}
        rows=${sessions.map(session => row(session, isWatcher(caller)))} />
      <${More} label="Older sessions" rows=${sessions.length} values=${query} by="before"
        last=${sessions.at(-1)?.id} />`)}`
}

function row(session: SessionJson, watches: boolean): Content[] {
  const { id, status, startedAt, endedAt, user, credential, target, account, receipt } = session
  const at = `/console/sessions/${id}`
  const lasted = endedAt === null ? '' : lengthOf(Date.parse(endedAt) - Date.parse(startedAt))
  const what = !watches
    ? null
    : status === 'live'
      ? html`<a href=${`${at}#watch`}>Watch</a>`
      : session.recording === null ? null : html`<a href=${`${at}#replay`}>Replay</a>`
  return [
    html`<a href=${at}><${When} at=${startedAt} /></a>`, html`<${State} of=${status} />`, user, credential,
    target, lasted,
    account === null
      ? html`<span class="quiet">none made</span>`
      : html`${account.name ?? account.id} ${receipt !== null && watches
        ? html`<a href=${`${at}/receipt`}><${State} of=${receipt.state} /></a>`
        : html`<${State} of=${receipt?.state ?? account.state ?? 'unknown'} />`}`,
    what
  ]
}
