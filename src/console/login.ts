// The way in: a passkey; or name and password, and what else the server asks for after that; or the company's
// identity provider; or the one-time token of the first start. The token that comes back is in a cookie that
// this code cannot read.
import { useState } from 'preact/hooks'
import type { WaysJson } from '../api/client-types.ts'
import { Refusal, get, post } from './call.ts'
import { html } from './html.ts'
import type { View } from './html.ts'
import { Problem, useLoad } from './parts.ts'
import { canUsePasskeys, usePasskey } from './webauthn.ts'
import type { LoginAsked } from './webauthn.ts'

/** What the server wants beside the password. */
interface Wanted {
  code: boolean
  passkey: boolean
}

export function Login({ entered }: { entered(): void }): View {
  const [wanted, setWanted] = useState<Wanted>({ code: false, passkey: false })
  const [failure, setFailure] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const ways = useLoad(signal => get<WaysJson>('/browser/ways', {}, signal)).value
  const trying = async (act: () => Promise<unknown>): Promise<void> => {
    setBusy(true)
    setFailure(undefined)
    try {
      await act()
      entered()
    } catch (thrown) {
      const asks = wantedBy(thrown)
      if (asks === undefined) setFailure(thrown)
      else setWanted(asks)
    }
    setBusy(false)
  }
  const send = (path: string, event: SubmitEvent): Promise<void> => {
    event.preventDefault()
    const form = new FormData(event.currentTarget as HTMLFormElement)
    const given = Object.fromEntries([...form].filter(([, value]) => value !== ''))
    return trying(() => post(path, given))
  }
  const passkey = (event: Event): Promise<void> => {
    const form = (event.currentTarget as HTMLButtonElement).form
    const user = form === null ? '' : String(new FormData(form).get('user') ?? '')
    return trying(async () => {
      const asked = await post<LoginAsked>('/browser/passkey/challenge', user === '' ? {} : { user })
      await post('/browser/passkey', await usePasskey(asked))
    })
  }
  return html`<main class="login">
    <h1>Sallyport</h1>
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
    <form aria-label="Log in" onSubmit=${(event: SubmitEvent) => send('/browser/login', event)}>
      <label>Name
        <input name="user" autocomplete="username webauthn" required autofocus maxlength="256" /></label>
      <label>Password
        <input name="password" type="password" autocomplete="current-password" required maxlength="1024" />
      </label>
      ${wanted.code ? html`<label>One-time code
        <input name="code" autocomplete="one-time-code" inputmode="numeric" required maxlength="64"
          ref=${focus} /></label>` : null}
      ${wanted.passkey ? html`<p role="status">Your passkey is needed as well.</p>` : null}
      <button disabled=${busy}>Log in</button>
      ${typeof ways?.provider !== 'string' ? null : html`<a class="button other" href=${providerAddress()}>
        ${ways.provider}</a>`}
      ${canUsePasskeys()
        ? html`<button type="button" class="other" disabled=${busy} onClick=${passkey}>Use a passkey</button>`
        : wanted.passkey && typeof ways?.passkeys === 'string'
          ? html`<p>Passkeys work at <a href=${`${ways.passkeys}/console/`}>${ways.passkeys}</a>.</p>`
          : null}
    </form>
    <details>
      <summary>First start: the one-time token</summary>
      <form aria-label="One-time token" onSubmit=${(event: SubmitEvent) => send('/browser/redeem', event)}>
        <label>Token that <code>sallyport serve</code> printed
          <input name="token" type="password" autocomplete="off" required maxlength="256" /></label>
        <button disabled=${busy}>Begin</button>
      </form>
    </details>
  </main>`
}

function wantedBy(thrown: unknown): Wanted | undefined {
  if (!(thrown instanceof Refusal) || thrown.code !== 'second-factor-required') return undefined
  const names = (what: string): boolean => thrown.problems.some(line => line.startsWith(`${what}:`))
  return { code: names('code'), passkey: names('passkey') }
}

/** It comes back to the page that somebody was on the way to. */
function providerAddress(): string {
  const { pathname, hash } = location
  return `/login/oidc?to=${encodeURIComponent(pathname + hash)}`
}

function focus(input: HTMLInputElement | null): void {
  input?.focus()
}
