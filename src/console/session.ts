// One session: its facts, what can be done with it, and below them the recording: live while it runs, as a
// replay afterwards. Looking into a recording is audited, so it opens when it is asked for: by a button, or
// by an address with `#watch`, `#replay` or `#at=SECONDS`.
import { useEffect, useState } from 'preact/hooks'
import type { SessionJson, VerifiedJson } from '../api/client-types.ts'
import { get, linkTo, post } from './call.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { isAdmin, isWatcher } from './page.ts'
import type { PageProps } from './page.ts'
import { Act, Facts, Problem, State, When, lengthOf, show, useLoad } from './parts.ts'
import { Statements } from './statements.ts'
import { Terminal } from './terminal.ts'
import { LiveStatements, LiveTerminal } from './watch.ts'

/** Of a live session the facts are asked for again. */
const refreshMs = 3_000

export function SessionPage({ parts: [id = ''], caller }: PageProps): View {
  const loaded = useLoad(signal => get('/sessions/{id}', { params: { id }, signal }), [id])
  const status = loaded.value?.status
  // Until the removal has been judged as well.
  const settled = status !== undefined && status !== 'live' && status !== 'opening' && (
    loaded.value?.account === null || loaded.value?.receipt?.state === 'proved-gone')
  useEffect(() => {
    if (settled) return undefined
    const timer = setInterval(loaded.again, refreshMs)
    return () => clearInterval(timer)
  }, [settled])
  return html`<h1>Session <code>${id}</code></h1>
    ${show(loaded, session => html`
      <${SessionFacts} session=${session} linked=${isWatcher(caller)} />
      ${isAdmin(caller) && (status === 'live' || status === 'opening') ? html`<p>
        <${Act} label="End session" sure="End it at once" act=${async () => {
          await post('/sessions/{id}/kill', { params: { id } })
          loaded.again()
        }} /></p>` : null}
      ${isWatcher(caller) ? html`<${Record} session=${session} />` : null}`)}`
}

function SessionFacts({ session, linked }: { session: SessionJson, linked: boolean }): View {
  const { account, receipt, recording, startedAt, endedAt } = session
  const proof = receipt === null
    ? html`<span class="quiet">none yet</span>`
    : linked
      ? html`<a href=${`/console/sessions/${session.id}/receipt`}><${State} of=${receipt.state} /></a>`
      : html`<${State} of=${receipt.state} />`
  return html`<${Facts} of=${[
    ['Status', html`<${State} of=${session.status} />`], ['User', session.user],
    ['Credential', session.credential], ['Target', session.target],
    ['Protocol', session.client === null ? session.protocol : `${session.protocol}, ${session.client}`],
    ['Database', session.database ?? undefined], ['Grant', session.grant], ['From', session.address],
    ['Node', session.node], ['Started', html`<${When} at=${startedAt} />`],
    ['Ended', html`<${When} at=${endedAt} />`],
    ['Lasted', endedAt === null ? undefined : lengthOf(Date.parse(endedAt) - Date.parse(startedAt))],
    ['Ends at the latest', endedAt === null ? html`<${When} at=${session.expiresAt} />` : undefined],
    ['Reason', session.reason ?? undefined],
    ['Account', account === null ? 'none made' : html`<code>${account.name ?? account.id}</code>`],
    ['Receipt', account === null ? undefined : proof],
    ['Recording', recording === null ? 'none' : recording.sealed
      ? `${recording.bytes ?? 0} bytes, sealed` : 'not sealed (yet)']
  ]} />`
}

type Wish = { look: 'watch' | 'replay', atSeconds: number | undefined } | undefined

/** What the address asks for. */
function wishOf(hash: string): Wish {
  const at = /^#at=(\d+(?:\.\d+)?)$/.exec(hash)?.[1]
  if (at !== undefined) return { look: 'replay', atSeconds: Number(at) }
  return hash === '#watch' || hash === '#replay'
    ? { look: hash === '#watch' ? 'watch' : 'replay', atSeconds: undefined }
    : undefined
}

function Record({ session }: { session: SessionJson }): View {
  const [hash, setHash] = useState(location.hash)
  useEffect(() => {
    const changed = (): void => setHash(location.hash)
    addEventListener('hashchange', changed)
    return () => removeEventListener('hashchange', changed)
  }, [])
  const wish = wishOf(hash)
  if (session.recording === null) return html`<p class="quiet">Nothing was recorded.</p>`
  const live = session.status === 'live'
  const params = { id: session.id }
  const formats = session.protocol === 'postgres'
    ? ['sql', 'jsonl'] as const
    : ['asciicast-v2', 'jsonl'] as const
  return html`<section aria-label="Recording">
    <h2>Recording</h2>
    <p class="acts">
      ${live ? html`<a class="button" href="#watch">Watch live</a>` : null}
      <a class="button" href="#replay">Replay</a>
      ${formats.map(format => html`
        <a href=${linkTo('/sessions/{id}/export', { params, query: { format } })} download>${format}</a>`)}
      <a href=${linkTo('/sessions/{id}/recording', { params })} download>as it is on the disk</a>
    </p>
    <${Verify} id=${session.id} />
    ${wish === undefined ? null : looking(session, wish)}
  </section>`
}

function looking({ id, protocol }: SessionJson, wish: NonNullable<Wish>): Content {
  const { look, atSeconds } = wish
  const props = { id, atSeconds, key: `${look} ${atSeconds ?? ''}` }
  if (protocol === 'postgres') {
    return look === 'watch' ? html`<${LiveStatements} ...${props} />` : html`<${Statements} ...${props} />`
  }
  return look === 'watch' ? html`<${LiveTerminal} ...${props} />` : html`<${Terminal} ...${props} />`
}

/** The hash chain and the seal, checked by the server when asked. */
function Verify({ id }: { id: string }): View {
  const [verdict, setVerdict] = useState<VerifiedJson>()
  const [failure, setFailure] = useState<unknown>()
  const check = (): Promise<void> =>
    get('/sessions/{id}/verify', { params: { id } }).then(setVerdict, setFailure)
  return html`<p><button type="button" onClick=${check}>Verify chain and seal</button>
      ${verdict === undefined ? null : html` <span role="status"><${State} of=${verdict.state} />
        ${' '}${verdict.problem
          ?? `${verdict.frames} frames, ${verdict.verifiedBytes} of ${verdict.bytes} bytes`},
        ${' '}head <code class="hash">${verdict.headHash}</code>,
        ${' '}key <code>${verdict.keyId}</code></span>`}</p>
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}`
}
