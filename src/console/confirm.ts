// A login that waits elsewhere, at a command line or a client that cannot ask: where it comes from, what it
// is for, yes or no. The code is in the address behind `#`, which no server sees, or is typed. What is shown
// of the other side is what it said of itself; whoever did not begin it says no.
import { useEffect, useState } from 'preact/hooks'
import { get, post } from './call.ts'
import { html } from './html.ts'
import type { View } from './html.ts'
import type { PageProps } from './page.ts'
import { Facts, Problem, When, show, useLoad } from './parts.ts'

export function ConfirmPage({ caller }: PageProps): View {
  const code = location.hash.slice(1)
  // Another link, opened in the same window, changes nothing but this.
  useEffect(() => {
    const again = (): void => location.reload()
    addEventListener('hashchange', again)
    return () => removeEventListener('hashchange', again)
  }, [])
  return html`<h1>Confirm a login</h1>
    ${code === '' ? html`<${Ask} />` : html`<${Request} code=${code} user=${caller.name} />`}`
}

function Ask(): View {
  const go = (event: SubmitEvent): void => {
    event.preventDefault()
    const typed = String(new FormData(event.currentTarget as HTMLFormElement).get('code'))
    location.hash = typed.trim()
  }
  return html`<form class="filters" aria-label="Code" onSubmit=${go}>
    <label>Code that is shown there
      <input name="code" required maxlength="20" autocomplete="off" placeholder="ABCD-EFGH" /></label>
    <button>Look</button>
  </form>`
}

function Request({ code, user }: { code: string, user: string }): View {
  const params = { code }
  const loaded = useLoad(signal => get('/login-requests/{code}', { params, signal }), [code])
  const [said, setSaid] = useState<string>()
  const [failure, setFailure] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const decide = async (verdict: 'confirm' | 'deny'): Promise<void> => {
    setBusy(true)
    setFailure(undefined)
    await post(`/login-requests/{code}/${verdict}`, { params }).then(
      () => setSaid(verdict === 'confirm' ? 'Confirmed: it goes on over there.' : 'Turned away.'), setFailure)
    setBusy(false)
  }
  if (said !== undefined) return html`<p role="status">${said}</p>`
  return show(loaded, ({ address, what, kind, expiresAt, code: whole }) => html`
    <p>${kind === 'token'
      ? html`Whoever began this will be <strong>${user}</strong>, with all that you may do.`
      : html`A connection as <strong>${user}</strong> waits for you.`}
      ${' '}Did you begin it, just now, and do you see the same code there? If not, turn it away.</p>
    <${Facts} of=${[
      ['Code', html`<code>${whole}</code>`], ['From the address', html`<code>${address}</code>`],
      ['It says that it is', html`<code>${what}</code>`], ['Waits until', html`<${When} at=${expiresAt} />`]
    ]} />
    <p class="acts">
      <button type="button" disabled=${busy} onClick=${() => decide('confirm')}>Confirm</button>
      <button type="button" class="danger" disabled=${busy} onClick=${() => decide('deny')}>Turn away</button>
    </p>
    ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}`)
}
