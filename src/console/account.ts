// A person's own logins: the passkeys that they have, one more, one less, and one-time codes. Some of it
// needs a fresh login; then the server says so, and logging in again is a button away.
import { useState } from 'preact/hooks'
import { post, remove, get } from './call.ts'
import { html } from './html.ts'
import type { View } from './html.ts'
import type { PageProps } from './page.ts'
import { Act, Problem, Table, When, show, useLoad } from './parts.ts'
import { OwnSecondFactor } from './second-factor.ts'
import { canUsePasskeys, createPasskey } from './webauthn.ts'

export function AccountPage({ caller: { name } }: PageProps): View {
  const loaded = useLoad(signal => get('/users/{name}/passkeys', { params: { name }, signal }), [name])
  return html`<h1>Your logins</h1><h2>Passkeys</h2>
    <p>A passkey logs you in by finger, face or PIN, without a password; it is a second factor at once.</p>
    ${show(loaded, ({ origin, passkeys }) => html`
      <${Table} label="Passkeys" none="You have none." heads=${['Name', 'Since', 'Last used', 'Where', '']}
        rows=${passkeys.map(({ id, name: label, createdAt, lastUsedAt, backedUp }) => [
          label, html`<${When} at=${createdAt} />`, html`<${When} at=${lastUsedAt} />`,
          backedUp ? 'in a keychain' : 'on one device',
          html`<${Act} label="Remove" sure=${`Remove ${label}`} act=${async () => {
            await remove('/users/{name}/passkeys/{id}', { params: { name, id } })
            loaded.again()
          }} />`
        ])} />
      ${origin !== null && origin === location.origin && canUsePasskeys()
        ? html`<${Register} user=${name} registered=${loaded.again} />`
        : html`<p class="quiet">${origin === null
          ? 'Passkeys need the console under a domain name; an admin sets console.origin.'
          : html`Passkeys work at <a href=${`${origin}/console/account`}>${origin}</a> only.`}</p>`}`)}
    <${OwnSecondFactor} user=${name} />`
}

function Register({ user, registered }: { user: string, registered(): void }): View {
  const [failure, setFailure] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const go = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault()
    const form = event.currentTarget as HTMLFormElement
    const label = String(new FormData(form).get('label'))
    setBusy(true)
    setFailure(undefined)
    try {
      const params = { name: user }
      const answer = await createPasskey(await post('/users/{name}/passkeys/challenge', { params }))
      await post('/users/{name}/passkeys', { params, body: { label, answer } })
      form.reset()
      registered()
    } catch (thrown) {
      setFailure(thrown)
    }
    setBusy(false)
  }
  return html`<form class="filters" aria-label="New passkey" onSubmit=${go}>
    <label>Name of the new passkey
      <input name="label" required maxlength="64" placeholder="my laptop" autocomplete="off" /></label>
    <button disabled=${busy}>Register</button>
  </form>
  ${failure === undefined ? null : html`<${Problem} failure=${failure} />`}`
}
