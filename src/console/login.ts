// The way in: name and password, the one-time code only when the server asks for it, or the one-time token of
// the first start. The token that comes back is in a cookie that this code cannot read.
import { useState } from 'preact/hooks'
import { Refusal, post } from './call.ts'
import { html } from './html.ts'
import type { View } from './html.ts'
import { Problem } from './parts.ts'

export function Login({ entered }: { entered(): void }): View {
  const [needsCode, setNeedsCode] = useState(false)
  const [failure, setFailure] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const send = async (path: string, event: SubmitEvent): Promise<void> => {
    event.preventDefault()
    const form = new FormData(event.currentTarget as HTMLFormElement)
    const given = Object.fromEntries([...form].filter(([, value]) => value !== ''))
    setBusy(true)
    setFailure(undefined)
    try {
      await post(path, given)
      entered()
    } catch (thrown) {
      const asks = thrown instanceof Refusal && thrown.code === 'second-factor-required'
      setNeedsCode(before => before || asks)
      if (!asks) setFailure(thrown)
    }
    setBusy(false)
  }
  return html`<main class="login">
    <h1>Sallyport</h1>
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}
    <form aria-label="Log in" onSubmit=${(event: SubmitEvent) => send('/browser/login', event)}>
      <label>Name <input name="user" autocomplete="username" required autofocus maxlength="256" /></label>
      <label>Password
        <input name="password" type="password" autocomplete="current-password" required maxlength="1024" />
      </label>
      ${needsCode ? html`<label>One-time code
        <input name="code" autocomplete="one-time-code" inputmode="numeric" required maxlength="64"
          ref=${focus} /></label>` : null}
      <button disabled=${busy}>Log in</button>
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

function focus(input: HTMLInputElement | null): void {
  input?.focus()
}
