// One-time codes of a person: set up by the person, with a QR code and the same as text, confirmed with the
// first code, and taken away by an admin. The secret is shown this once; whoever leaves the page before the
// confirmation begins anew.
import { useState } from 'preact/hooks'
import type { SecondFactorJson } from '../api/client-types.ts'
import { get, post, remove } from './call.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { Act, Problem, State, show, useLoad } from './parts.ts'
import { qrPath } from './qr.ts'

const path = '/users/{name}/second-factor'

export function OwnSecondFactor({ user }: { user: string }): View {
  const loaded = useLoad(signal => get(path, { params: { name: user }, signal }), [user])
  const [uri, setUri] = useState<string>()
  const [failure, setFailure] = useState<unknown>()
  const draw = (): Promise<void> => {
    setFailure(undefined)
    return post(path, { params: { name: user } }).then(({ uri: drawn }) => setUri(drawn), setFailure)
  }
  const confirmed = (): void => {
    setUri(undefined)
    loaded.again()
  }
  return html`<h2>One-time codes</h2>
    ${show(loaded, ({ secondFactor }) => secondFactor === 'confirmed'
      ? html`<p role="status"><${State} of="on" /> A code of your authenticator app is asked for at
          every login. An admin can take it away, when the app is lost.</p>`
      : uri === undefined
        ? html`<p>An authenticator app shows a new code every half a minute, which is asked for beside your
            password.</p>
          <p><button type="button" onClick=${draw}>Set up one-time codes</button></p>`
        : html`<${Enrolment} user=${user} uri=${uri} confirmed=${confirmed} />`)}
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}`
}

function Enrolment({ user, uri, confirmed }: { user: string, uri: string, confirmed(): void }): View {
  const [failure, setFailure] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const secret = new URL(uri).searchParams.get('secret') ?? ''
  const go = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault()
    const code = String(new FormData(event.currentTarget as HTMLFormElement).get('code')).replaceAll(' ', '')
    setBusy(true)
    setFailure(undefined)
    const asked = { params: { name: user }, body: { code } }
    await post('/users/{name}/second-factor/confirm', asked).then(confirmed, setFailure)
    setBusy(false)
  }
  return html`<section class="shown enrolment" aria-label="Set up one-time codes">
    <p role="status"><strong>Shown this once.</strong> Scan it with the authenticator app, or type
      the key.</p>
    <${QrCode} text=${uri} />
    <dl><div><dt>Key</dt><dd><code>${secret.match(/.{1,4}/g)?.join(' ')}</code></dd></div>
      <div><dt>Address</dt><dd><code>${uri}</code></dd></div></dl>
    <form class="filters" aria-label="Confirm" onSubmit=${go}>
      <label>Code that the app shows now
        <input name="code" required inputmode="numeric" maxlength="16" autocomplete="one-time-code"
          ref=${focus} /></label>
      <button disabled=${busy}>Confirm</button>
    </form>
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
  </section>`
}

function focus(element: HTMLElement | null): void {
  element?.focus()
}

/** Dark on light in every palette: not all cameras read the other. */
function QrCode({ text }: { text: string }): Content {
  const code = qrPath(text)
  if (code === undefined) return null
  return html`<svg class="qr" viewBox=${`0 0 ${code.size} ${code.size}`} role="img" aria-label="QR code">
    <path d=${code.path} /></svg>`
}

const words: Readonly<Record<SecondFactorJson['secondFactor'], string>> = {
  none: 'none', waiting: 'set up, but not confirmed yet', confirmed: 'asked for at every login'
}

/** For admins: what somebody has, and the way out when their app is lost. */
export function SecondFactorOf({ user }: { user: string }): View {
  const loaded = useLoad(signal => get(path, { params: { name: user }, signal }), [user])
  return html`<h2>One-time codes</h2>
    ${show(loaded, ({ secondFactor }) => html`<p role="status">${words[secondFactor]}</p>
      ${secondFactor === 'none' ? null : html`<p><${Act} label="Take them away"
        sure=${`${user} logs in without a code from now on`}
        act=${() => remove(path, { params: { name: user } }).then(loaded.again)} /></p>`}`)}`
}
