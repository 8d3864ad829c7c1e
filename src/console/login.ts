// The way in: a passkey; or name and password, and what else the server asks for after that; or the company's
// identity provider; or the one-time token of the first start. The token that comes back is in a cookie that
// this code cannot read.
import { useState } from 'preact/hooks'
import { Refusal, get, post } from './call.ts'
import { html } from './html.ts'
import type { View } from './html.ts'
import { Problem, useLoad } from './parts.ts'
import { canUsePasskeys, usePasskey } from './webauthn.ts'

/** What the server wants beside the password. */
interface Wanted {
  code: boolean
  passkey: boolean
}

export function Login({ entered }: { entered(): void }): View {
  const [wanted, setWanted] = useState<Wanted>({ code: false, passkey: false })
  const [failure, setFailure] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const ways = useLoad(signal => get('/browser/ways', { signal })).value
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
  const send = (event: SubmitEvent): Promise<void> => {
    const { user = '', password = '', ...rest } = sentBy(event)
    return trying(() => post('/browser/login', { body: { user, password, ...rest } }))
  }
  const begin = (event: SubmitEvent): Promise<void> => {
    const { token = '' } = sentBy(event)
    return trying(() => post('/browser/redeem', { body: { token } }))
  }
  const passkey = (event: Event): Promise<void> => {
    const form = (event.currentTarget as HTMLButtonElement).form
    const user = form === null ? '' : String(new FormData(form).get('user') ?? '')
    return trying(async () => {
      const asked = await post('/browser/passkey/challenge', { body: user === '' ? {} : { user } })
      await post('/browser/passkey', { body: await usePasskey(asked) })
    })
  }
  return html`<main class="login">
    <h1>Sallyport</h1>
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
    <form aria-label="Log in" onSubmit=${send}>
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
      <form aria-label="One-time token" onSubmit=${begin}>
        <label>Token that <code>sallyport serve</code> printed
          <input name="token" type="password" autocomplete="off" required maxlength="256" /></label>
        <button disabled=${busy}>Begin</button>
      </form>
    </details>
  </main>`
}

/** What is filled in, under the names of the fields. */
function sentBy(event: SubmitEvent): Record<string, string> {
  event.preventDefault()
  const form = new FormData(event.currentTarget as HTMLFormElement)
  return Object.fromEntries([...form].map(([name, value]) => [name, String(value)] as const)
    .filter(([, value]) => value !== ''))
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
