// Requests for access that needs others to agree: asking, deciding, taking back, reviewing an emergency.
// Whoever decides sees who asks, for what, why and until when it would count.
import { useState } from 'preact/hooks'
import type { CallerJson, RequestJson } from '../api/client-types.ts'
import { Refusal, get, post } from './call.ts'
import { SwitchField, Suggestions, TextField } from './fields.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { isAdmin, isWatcher } from './page.ts'
import type { PageProps } from './page.ts'
import {
  Facts, Filters, More, Problem, State, Table, When, chosen, lengthOf, rowsPerPage, show, useLoad
} from './parts.ts'
import { wrongIn } from './wrong.ts'

const states = ['pending', 'approved', 'denied', 'expired', 'withdrawn'] as const
/** Others decide meanwhile. */
const refreshMs = 5_000

export function RequestsPage({ query, caller }: PageProps): View {
  const loaded = useLoad(signal => get('/requests', {
    query: {
      state: chosen(query, 'state', states), before: query.get('before') ?? undefined, limit: rowsPerPage
    }, signal
  }), [], refreshMs)
  return html`<h1>Requests</h1>
    <details class="asking"><summary>Ask for access</summary><${Ask} caller=${caller} /></details>
    <${Filters} label="Filter requests" values=${query} fields=${[
      { name: 'state', label: 'State', choices: states }
    ]} />
    ${show(loaded, ({ requests }) => html`<${Table} label="Requests" none="No request matches."
      heads=${['Asked', 'State', 'Who', 'For', 'Why', 'Counts until']}
      rows=${requests.map(request => [
        html`<a href=${`/console/requests/${request.id}`}><${When} at=${request.createdAt} /></a>`,
        stateView(request), request.user, request.credential, request.reason ?? '',
        html`<${When} at=${request.validUntil} />`
      ])} />
      <${More} label="Older requests" rows=${requests.length} values=${query} by="before"
        last=${requests.at(-1)?.id} />`)}`
}

function stateView({ state, emergency, needsReview }: RequestJson): Content {
  return html`<${State} of=${state} /> ${emergency ? html`<${State} of="emergency" />` : null}
    ${needsReview ? html` <span class="bad">not reviewed</span>` : null}`
}

const askFields = ['credential', 'reason', 'for'] as const

function Ask({ caller }: { caller: CallerJson }): View {
  const [wish, setWish] = useState({ credential: '', reason: '', for: '', emergency: false })
  const [failure, setFailure] = useState<unknown>()
  const open = useLoad(signal => get('/explain', { query: { login: caller.name }, signal }))
  const { wrong, rest } = wrongIn(failure instanceof Refusal ? failure.problems : [], askFields)
  const placed = Object.keys(wrong).length > 0 && rest.length === 0
  const send = (event: Event): Promise<void> => {
    event.preventDefault()
    setFailure(undefined)
    const { credential, reason, for: span, emergency } = wish
    return post('/requests', {
      body: { credential, emergency, ...reason === '' ? {} : { reason }, ...span === '' ? {} : { for: span } }
    }).then(({ id }) => location.assign(`/console/requests/${id}`), setFailure)
  }
  const set = (name: keyof typeof wish) => (value: string | boolean): void =>
    setWish(before => ({ ...before, [name]: value }))
  return html`<form class="fields" aria-label="Ask for access" onSubmit=${send}>
    <${Suggestions} id="open-credentials"
      of=${open.value?.choices.map(({ credential }) => credential) ?? []} />
    <${TextField} label="Credential" value=${wish.credential} set=${set('credential')} required
      list="open-credentials" wrong=${wrong['credential']} />
    <${TextField} label="Why" value=${wish.reason} set=${set('reason')} wrong=${wrong['reason']}
      hint="the approver reads it" />
    <${TextField} label="For how long" value=${wish.for} set=${set('for')} placeholder="2h"
      wrong=${wrong['for']} hint="as long as the grant gives when empty" />
    <${SwitchField} label="It is an emergency: open at once, reviewed afterwards" value=${wish.emergency}
      set=${set('emergency')} />
    <p><button class="main">Ask</button></p>
    ${failure === undefined || placed ? null : html`<${Problem} failure=${failure} />`}
  </form>`
}

export function RequestPage({ parts: [id = ''], caller }: PageProps): View {
  const loaded = useLoad(async signal => {
    const request = await get('/requests/{id}', { params: { id }, signal })
    return { request, approvers: await approversOf(request, caller, signal) }
  }, [id], refreshMs)
  return html`<h1>Request</h1>
    ${show(loaded, ({ request, approvers }) => html`
      <p class="verdict"><strong>${request.user}</strong> asks for <strong>${request.credential}</strong>
        ${' '}for ${lengthOf(request.validForSeconds * 1000)} ${stateView(request)}</p>
      <${Facts} of=${[
        ['Who', request.user], ['What', request.credential],
        ['Why', request.reason ?? html`<span class="quiet">no reason was given</span>`],
        ['Until', request.validUntil === null
          ? `${lengthOf(request.validForSeconds * 1000)} from the approval on`
          : html`<${When} at=${request.validUntil} />`],
        ['Grant', isWatcher(caller)
          ? html`<a href=${`/console/access/grant/${request.grant}`}>${request.grant}</a>` : request.grant],
        ['Asked', html`<${When} at=${request.createdAt} />`],
        ['Decided by then, or ended', request.state === 'pending'
          ? html`<${When} at=${request.expiresAt} />` : undefined],
        ['Reviewed', request.emergency ? html`<${When} at=${request.reviewedAt} />` : undefined]
      ]} />
      <${Decide} request=${request} caller=${caller} approvers=${approvers} done=${loaded.again} />
      <h2>Decisions</h2>
      <${Table} label="Decisions" none="Nobody has decided yet." heads=${['At', 'Who', 'What', 'Why']}
        rows=${request.decisions.map(({ at, by, verdict, reason }) => [
          html`<${When} at=${at} />`, by, verdict, reason ?? ''
        ])} />`)}`
}

/** Whoever sees somebody else's request and looks after nothing decides on it; else the grant says who. */
async function approversOf(
  { user, grant }: RequestJson, caller: CallerJson, signal: AbortSignal
): Promise<readonly string[]> {
  if (!isWatcher(caller)) return user === caller.name ? [] : [caller.name]
  const { document } = await get('/resources/{kind}/{name}', {
    params: { kind: 'grant', name: grant }, signal
  })
  return (document['approval'] as { by?: string[] } | undefined)?.by ?? []
}

type Part = 'approve' | 'deny' | 'review' | 'withdraw'

function Decide({ request, caller, approvers, done }: {
  request: RequestJson, caller: CallerJson, approvers: readonly string[], done(): void
}): View {
  const [reason, setReason] = useState('')
  const [failure, setFailure] = useState<unknown>()
  const { id, user, state, needsReview } = request
  const decides = approvers.includes(caller.name) && user !== caller.name
  const open = state === 'pending' || state === 'approved'
  const acts: (readonly [part: Part, label: string, style: string])[] = [
    ...decides && state === 'pending'
      ? [['approve', 'Approve', 'main'], ['deny', 'Deny', 'danger']] as const : [],
    ...decides && needsReview ? [['review', 'Note as reviewed', 'main']] as const : [],
    ...open && (user === caller.name || decides && state === 'approved' || isAdmin(caller))
      ? [['withdraw', 'Withdraw', 'danger']] as const : []
  ]
  const send = (part: Part): Promise<void> => {
    setFailure(undefined)
    const body = reason.trim() === '' ? {} : { reason }
    return post(`/requests/{id}/${part}`, { params: { id }, body }).then(done, setFailure)
  }
  if (acts.length === 0) return html``
  return html`<form class="deciding" aria-label="Decide" onSubmit=${(event: Event) => event.preventDefault()}>
    <${TextField} label="Your reason" value=${reason} set=${setReason} hint="kept with the decision" />
    <p class="acts">${acts.map(([part, label, style]) => html`
      <button type="button" class=${style} onClick=${() => send(part)}>${label}</button>`)}</p>
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
  </form>`
}
