// Targets and how they fare, as this node sees it; and the accounts that stand there though nobody wants
// them: looked for when somebody asks, since it asks every target, and removed with proof.
import { useState } from 'preact/hooks'
import type { OrphansJson, TargetHealthJson } from '../api/client-types.ts'
import { get, post } from './call.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { isAdmin } from './page.ts'
import type { PageProps } from './page.ts'
import {
  Act, Facts, Filters, More, Problem, State, Table, When, counted, lengthOf, rowsPerPage, show, useLoad
} from './parts.ts'

const refreshMs = 5_000

function Tabs({ at }: { at: 'health' | 'orphans' }): View {
  return html`<nav class="tabs" aria-label="Targets">
    <a href="/console/targets" aria-current=${at === 'health' ? 'page' : undefined}>Health</a>
    <a href="/console/targets/orphans" aria-current=${at === 'orphans' ? 'page' : undefined}>Orphans</a>
  </nav>`
}

export function TargetsPage({ query }: PageProps): View {
  const loaded = useLoad(signal => get('/targets/health', {
    query: {
      name: query.get('name') ?? undefined, after: query.get('after') ?? undefined, limit: rowsPerPage
    }, signal
  }), [], refreshMs)
  return html`<h1>Targets</h1><${Tabs} at="health" />
    <${Filters} label="Filter targets" values=${query}
      fields=${[{ name: 'name', label: 'Name contains' }]} />
    ${show(loaded, ({ node, targets }) => html`
      <p class="quiet">As node <code>${node}</code> has seen them since it started.</p>
      <${Table} label="Health" none="There is no target yet."
        heads=${['Target', 'Protocol', 'Address', 'Breaker', 'Queue', 'Last hook', 'Last error']}
        rows=${targets.map(target => [
          html`<a href=${`/console/access/target/${target.name}`}>${target.name}</a>`, target.protocol,
          html`<code>${target.address}</code>`, breakerView(target), queueOf(target), lastView(target),
          target.lastError ?? target.last?.error ?? ''
        ])} />
      <${More} label="More targets" rows=${targets.length} values=${query} by="after"
        last=${targets.at(-1)?.name} />`)}`
}

function breakerView({ breaker, failures }: TargetHealthJson): Content {
  return html`<${State} of=${breaker} /> ${failures === 0 ? null
    : html`<span class="bad">${counted(failures, 'failure')} in a row</span>`}`
}

function queueOf({ running, waiting }: TargetHealthJson): string {
  return running + waiting === 0 ? 'idle' : `${running} running, ${waiting} waiting`
}

function lastView({ last }: TargetHealthJson): Content {
  if (last === null) return html`<span class="quiet">none yet</span>`
  return html`<${State} of=${last.state} /> <${When} at=${last.at} />
    <div class="quiet">${last.template} for <code>${last.account}</code>, ${lengthOf(last.tookMs)}</div>`
}

type Found = OrphansJson & { reaped: boolean }

export function OrphansPage({ query, caller }: PageProps): View {
  const target = query.get('target') ?? ''
  const [found, setFound] = useState<Found>()
  const [failure, setFailure] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const only = target === '' ? {} : { target }
  const scan = async (): Promise<void> => {
    setBusy(true)
    setFailure(undefined)
    await get('/orphans', { query: only }).then(
      report => setFound({ ...report, reaped: false }), setFailure)
    setBusy(false)
  }
  return html`<h1>Targets</h1><${Tabs} at="orphans" />
    <p>Accounts on targets that carry our mark and that the ledger does not want.</p>
    ${target === '' ? null : html`<${Facts} of=${[['Only on', target]]} />`}
    <p class="acts"><button type="button" class="main" disabled=${busy} onClick=${scan}>
      ${busy ? 'Looking …' : 'Look on the targets'}</button></p>
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
    ${found === undefined ? null : html`
      <p role="status">${found.reaped ? 'Reaped: ' : 'Found: '}
        ${counted(found.orphans.length, 'account')}.</p>
      <${Table} label="Orphans" none="No account is left over."
        heads=${['Target', 'Account', 'Verdict', 'Detail']}
        rows=${found.orphans.map(orphan => [
          orphan.target, html`<code>${orphan.name}</code>`, html`<${State} of=${orphan.verdict} />`,
          orphan.detail
        ])} />
      ${found.unreachable.length === 0 ? null : html`<h2>Could not be looked at</h2>
        <${Table} label="Unreachable" none="" heads=${['Target', 'Why']}
          rows=${found.unreachable.map(({ target: name, reason }) => [name, reason])} />`}
      ${isAdmin(caller) && !found.reaped && found.orphans.some(({ verdict }) => verdict === 'orphan')
        ? html`<p><${Act} label="Reap the orphans" sure="Remove them from the targets" act=${async () => {
          setFound({ ...await post('/orphans/reap', { body: only }), reaped: true })
        }} /></p>` : null}`}`
}
