// The removal receipt of a session as a page that can be read, printed and filed: who had which account, when
// it was made, what was found when the target was looked at afterwards, and the signature that anybody can
// check with the public key.
import type { ReceiptJson, SessionJson } from '../api/client-types.ts'
import { get } from './call.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import type { PageProps } from './page.ts'
import { Facts, State, Table, When, show, useLoad } from './parts.ts'

/** What is signed (lease/receipt.ts); shown as it is signed, so nothing is taken for granted here. */
interface Body {
  account?: { id?: string, name?: string, kind?: string, epoch?: number }
  target?: string
  credential?: string
  plugin?: string
  templates?: Record<string, { id?: string, version?: number, sha256?: string }>
  createdAt?: string | null
  activeAt?: string | null
  verifiedAt?: string | null
  tookMs?: number
  attempt?: number
  node?: string
  seen?: { exists?: boolean, enabled?: boolean, ours?: boolean, sessions?: number } | null
  residue?: { kind: string, name: string, fate: string }[]
  error?: string | null
}

const meanings: Readonly<Record<string, string>> = {
  'proved-gone': 'The target was looked at over a fresh connection: the account is gone, and nothing that '
    + 'was sent can still bring it back.',
  removed: 'The account was removed; a last look, after which nothing can bring it back, is still owed.',
  failed: 'The removal has not succeeded yet and is tried again.',
  quarantined: 'The account could not be taken away and was made unusable; the removal is tried again.',
  unreachable: 'The target does not answer: the account may still be there. The removal is tried again.'
}

export function ReceiptPage({ parts: [id = ''] }: PageProps): View {
  const params = { id }
  const loaded = useLoad(async signal => ({
    session: await get('/sessions/{id}', { params, signal }),
    receipt: await get('/sessions/{id}/receipt', { params, signal }),
    ...await get('/public-key', { signal })
  }), [id])
  return html`<h1>Removal receipt</h1>
    ${show(loaded, ({ session, receipt, publicKey }) => receiptView(session, receipt, publicKey))}`
}

function receiptView(session: SessionJson, receipt: ReceiptJson, publicKey: string): Content {
  const body = receipt.body as Body
  const { account = {}, seen, residue = [], error } = body
  return html`
    <p class="verdict"><${State} of=${receipt.state} /> ${meanings[receipt.state] ?? ''}</p>
    ${error === null || error === undefined ? null : html`<p class="bad">${error}</p>`}
    <h2>Who and what</h2>
    <${Facts} of=${[
      ['Session', html`<a href=${`/console/sessions/${session.id}`}><code>${session.id}</code></a>`],
      ['User', session.user], ['Account', html`<code>${account.name ?? receipt.account}</code>`],
      ['Target', body.target], ['Credential', body.credential], ['Plugin', body.plugin],
      ['Templates', Object.values(body.templates ?? {}).map(({ id, version }) =>
        html`<div><a href=${`/console/templates/${id}`}>${id}</a> version ${version}</div>`)]
    ]} />
    <h2>When</h2>
    <${Facts} of=${[
      ['Made', html`<${When} at=${body.activeAt ?? body.createdAt ?? null} />`],
      ['Session ended', html`<${When} at=${session.endedAt} />`],
      ['Looked at', html`<${When} at=${body.verifiedAt ?? null} />`],
      ['Signed', html`<${When} at=${receipt.signedAt} />`],
      ['Removal took', body.tookMs === undefined ? undefined : `${body.tookMs} ms`],
      ['Failed attempts', body.attempt === undefined ? undefined : String(body.attempt)], ['Node', body.node]
    ]} />
    <h2>What was found</h2>
    ${seen === null || seen === undefined ? html`<p class="bad">Nobody could look.</p>`
      : html`<${Facts} of=${[
      ['Exists', yes(seen.exists)], ['Can log in', yes(seen.enabled)], ['Carries our mark', yes(seen.ours)],
      ['Live sessions of it', seen.sessions === undefined ? 'not known' : String(seen.sessions)]
    ]} />`}
    <${Table} label="Residue" none="It left nothing behind." heads=${['Kind', 'Name', 'What became of it']}
      rows=${residue.map(({ kind, name, fate }) => [kind, html`<code>${name}</code>`, fate])} />
    <h2>Signature</h2>
    <${Facts} of=${[
      ['Receipt', html`<code>${receipt.id}</code>`], ['Key', html`<code>${receipt.keyId}</code>`],
      ['Ed25519', html`<code class="hash">${receipt.signature}</code>`]
    ]} />
    <details><summary>Public key, and what is signed</summary>
      <pre><code>${publicKey}</code></pre>
      <pre><code>${JSON.stringify(receipt.body, undefined, 2)}</code></pre>
    </details>`
}

function yes(value: boolean | undefined): string {
  return value === undefined ? 'not known' : value ? 'yes' : 'no'
}
