// Leases: who holds which account until when. Their history, and for admins and whoever owns them: prolong,
// as far as the maximum still allows, and revoke, which ends live connections as well.
import { useState } from 'preact/hooks'
import { allOf } from '../api/calling.ts'
import type { CallerJson, LeaseJson } from '../api/client-types.ts'
import { get, post } from './call.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { isAdmin, isWatcher } from './page.ts'
import type { PageProps } from './page.ts'
import {
  Act, Facts, Filters, More, Problem, State, Table, When, chosen, lengthOf, rowsPerPage, show, useLoad
} from './parts.ts'

const statuses = ['active', 'expired', 'revoked', 'revoking', 'failed'] as const

export function LeasesPage({ query, caller }: PageProps): View {
  const named = (name: string): string | undefined => query.get(name) ?? undefined
  const loaded = useLoad(signal => get('/leases', {
    query: {
      target: named('target'), owner: named('owner'), status: chosen(query, 'status', statuses),
      before: named('before'), limit: rowsPerPage
    }, signal
  }))
  return html`<h1>Leases</h1>
    <${Filters} label="Filter leases" values=${query} fields=${[
      { name: 'target', label: 'Target' },
      ...isWatcher(caller) ? [{ name: 'owner', label: 'Owner' }] : [],
      { name: 'status', label: 'Status', choices: statuses }
    ]} />
    ${show(loaded, ({ leases }) => html`
      <${Table} label="Leases" none="No lease matches."
        heads=${['Made', 'Status', 'Account', 'Target', 'Credential', 'Owner', 'Expires']}
        rows=${leases.map(lease => row(lease, isWatcher(caller) || isOwn(lease, caller)))} />
      <${More} label="Older leases" rows=${leases.length} values=${query} by="before"
        last=${leases.at(-1)?.id} />`)}`
}

function row(lease: LeaseJson, linked: boolean): Content[] {
  const { id, createdAt, status, account, target, credential, ownerKind, owner, expiresAt } = lease
  const made = html`<${When} at=${createdAt} />`
  return [
    linked ? html`<a href=${`/console/leases/${id}`}>${made}</a>` : made, html`<${State} of=${status} />`,
    html`<code>${account.name}</code> <${State} of=${account.state} />`, target, credential,
    ownerView(ownerKind, owner, linked), html`<${When} at=${expiresAt} />`
  ]
}

function isOwn({ ownerKind, owner }: LeaseJson, { name }: CallerJson): boolean {
  return ownerKind === 'user' && owner === name
}

function ownerView(kind: string, owner: string, linked: boolean): Content {
  return kind === 'session' && linked
    ? html`<a href=${`/console/sessions/${owner}`}>session</a>`
    : `${kind} ${owner}`
}

export function LeasePage({ parts: [id = ''], caller }: PageProps): View {
  const loaded = useLoad(async signal => ({
    lease: await get('/leases/{id}', { params: { id }, signal }),
    events: await allOf(async query =>
      (await get('/leases/{id}/history', { params: { id }, query, signal })).events, event => event.id)
  }), [id])
  return html`<h1>Lease</h1>
    ${show(loaded, ({ lease, events }) => html`
      <${Facts} of=${[
        ['Lease', html`<code>${lease.name}</code>`], ['Status', html`<${State} of=${lease.status} />`],
        ['Account', html`<code>${lease.account.name}</code> <${State} of=${lease.account.state} />`],
        ['Target', lease.target], ['Credential', lease.credential],
        ['Secret', lease.secret === null
          ? undefined : html`<a href=${`/console/secrets/${lease.secret}`}>${lease.secret}</a>`],
        ['Owner', ownerView(lease.ownerKind, lease.owner, true)],
        ['Made', html`<${When} at=${lease.createdAt} />`],
        ['Expires', html`<${When} at=${lease.expiresAt} />`],
        ['At the latest', html`<${When} at=${lease.maxAt} />`],
        ['Ended', html`<${When} at=${lease.endedAt} />`], ['Prolonged', `${lease.renewals} times`],
        ['Last error', lease.lastError ?? undefined]
      ]} />
      ${(isAdmin(caller) || isOwn(lease, caller)) && lease.status === 'active' ? html`<div class="acts">
        <${Renew} lease=${lease} done=${loaded.again} />
        <${Act} label="Revoke" sure="Revoke it at once" act=${async () => {
          await post('/leases/{id}/revoke', { params: { id } })
          loaded.again()
        }} /></div>` : null}
      <h2>History</h2>
      <${Table} label="History" none="Nothing happened." heads=${['At', 'What', 'By', 'Detail']}
        rows=${events.map(({ at, kind, actor, detail }) => [
          html`<${When} at=${at} />`, kind, actor, html`<code class="data">${JSON.stringify(detail)}</code>`
        ])} />`)}`
}

function Renew({ lease, done }: { lease: LeaseJson, done(): void }): View {
  const [failure, setFailure] = useState<unknown>()
  const left = lengthOf(lease.renewableSeconds * 1000)
  const send = (event: SubmitEvent): Promise<void> => {
    event.preventDefault()
    const ttl = String(new FormData(event.currentTarget as HTMLFormElement).get('ttl'))
    setFailure(undefined)
    return post('/leases/{id}/renew', { params: { id: lease.id }, body: { ttl } }).then(done, setFailure)
  }
  if (lease.renewableSeconds <= 0) return html`<p class="quiet">It cannot be prolonged any more.</p>`
  return html`<form class="filters" aria-label="Prolong" onSubmit=${send}>
    <label>Prolong by (up to ${left})
      <input name="ttl" required pattern="(\\d+[smhd])+" placeholder="15m" maxlength="20" /></label>
    <button>Prolong</button>
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
  </form>`
}
