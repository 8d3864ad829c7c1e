// What stands around every session in the browser: the button that opens it, progress and warnings, how it
// ended, and what became of its account, for which the page waits.
import { useEffect, useState } from 'preact/hooks'
import type { SessionJson } from '../api/client-types.ts'
import { get } from './call.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { Problem, State } from './parts.ts'
import type { Connection } from './socket.ts'

const lookAgainMs = 1_000
const words = { idle: '', connecting: 'Connecting …', open: 'Recorded.', over: '' } as const

/** What is said around a session: the button before it, progress, how it ended and what is left of it. */
export function Around({ connection, watches, begin, what, children }: {
  connection: Connection, watches: boolean, begin(): void, what: string, children?: Content
}): View {
  const { phase, id, notices, end, failure } = connection
  const ready = phase === 'idle' || phase === 'over'
  return html`
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
    ${end === undefined ? null : html`<p class="problem" role="alert">${end}</p>`}
    ${phase === 'idle' ? html`<p>The session is recorded. Closing or reloading this page ends it.</p>` : null}
    <p class="acts">
      ${ready ? html`<button type="button" class="main" onClick=${begin}
        ref=${phase === 'idle' ? focus : null}>Open ${phase === 'idle' ? '' : 'another '}${what}</button>`
        : null}
      <span role="status">${words[phase]}</span>
      ${phase === 'open' ? html`<button type="button" class="danger" id="leave"
        onClick=${connection.leave}>End session</button>` : null}
    </p>
    ${notices.length === 0 ? null : html`<ul class="notices" aria-label="Notices" aria-live="polite">
      ${notices.map(text => html`<li>${text}</li>`)}</ul>`}
    ${phase === 'over' && id !== undefined ? html`<${Afterwards} id=${id} watches=${watches} />` : null}
    ${children}`
}

function focus(element: HTMLElement | null): void {
  element?.focus()
}

/** Until the account is proved gone, or there was none. */
function Afterwards({ id, watches }: { id: string, watches: boolean }): View {
  const [session, setSession] = useState<SessionJson>()
  const state = session?.receipt?.state
  const settled = session?.endedAt !== null && session !== undefined
    && (session.account === null || state === 'proved-gone')
  useEffect(() => {
    if (settled) return undefined
    const stop = new AbortController()
    const look = (): void => {
      get('/sessions/{id}', { params: { id }, signal: stop.signal }).then(setSession, () => undefined)
    }
    look()
    const timer = setInterval(look, lookAgainMs)
    return () => {
      clearInterval(timer)
      stop.abort()
    }
  }, [id, settled])
  const account = session?.account
  const at = `/console/sessions/${id}`
  return html`<p role="status" aria-label="Afterwards">
    <a href=${at}>This session</a> is over.
    ${account === undefined || account === null ? null : html` Its account
      ${' '}<code>${account.name ?? account.id}</code>:
      ${' '}${state === undefined ? 'being removed …' : watches
        ? html`<a href=${`${at}/receipt`}><${State} of=${state} /></a>`
        : html`<${State} of=${state} />`}`}
  </p>`
}
