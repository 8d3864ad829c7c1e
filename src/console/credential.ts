// One credential, in tabs: what account it is, its JIT settings, and a try-out of them on the target. A new
// one has the first two on one page.
import { useMemo, useState } from 'preact/hooks'
import { get } from './call.ts'
import { actionsOf, documentOf, draftOf } from './credential-draft.ts'
import type { Draft } from './credential-draft.ts'
import { AccountForm, JitForm, accountFields, jitFields, loadOffer } from './credential-form.ts'
import type { Offer } from './credential-form.ts'
import { Saving, useTrial } from './declare.ts'
import { html } from './html.ts'
import type { View } from './html.ts'
import { isAdmin } from './page.ts'
import type { PageProps } from './page.ts'
import { When, show, useLoad } from './parts.ts'
import { TryOut } from './try-out.ts'
import { useDeclared } from './variables.ts'

const tabs = [['', 'Account'], ['jit', 'JIT settings'], ['try', 'Try out']] as const
type Tab = typeof tabs[number][0]

export function CredentialPage({ parts: [name = '', tab = ''], caller }: PageProps): View {
  const loaded = useLoad(async signal => ({
    row: await get('/resources/{kind}/{name}', { params: { kind: 'credential', name }, signal }),
    offer: await loadOffer(signal)
  }), [name])
  const at = `/console/access/credential/${name}`
  return html`<h1>Credential <code>${name}</code></h1>
    <nav class="tabs" aria-label="Parts">${tabs.map(([each, title]) => html`
      <a href=${each === '' ? at : `${at}/${each}`} aria-current=${each === tab ? 'page' : undefined}>
        ${title}</a>`)}</nav>
    ${show(loaded, ({ row, offer }) => html`<p class="quiet">Version ${row.version}, changed${' '}
        <${When} at=${row.updatedAt} /> by ${row.updatedBy}</p>
      <${Editor} key=${row.version} document=${row.document} offer=${offer} tab=${tab as Tab}
        admin=${isAdmin(caller)} saved=${loaded.again} />`)}`
}

export function NewCredentialPage({ caller }: PageProps): View {
  const opened = (name: string): void => location.assign(`/console/access/credential/${name}/jit`)
  const loaded = useLoad(loadOffer)
  return html`<h1>New credential</h1>
    ${show(loaded, offer => html`<${Editor} document=${undefined} offer=${offer} tab=""
      admin=${isAdmin(caller)} saved=${opened} />`)}`
}

function Editor({ document, offer, tab, admin, saved }: {
  document: Record<string, unknown> | undefined, offer: Offer, tab: Tab, admin: boolean,
  saved(name: string): void
}): View {
  const [draft, setDraft] = useState<Draft>(() => draftOf(document))
  const known = useDeclared(actionsOf[draft.type].map(action => draft.choices[action].template))
  const declared = known ?? []
  const set = (change: Partial<Draft>): void => setDraft(before => ({ ...before, ...change }))
  const isNew = document === undefined
  const wanted = useMemo(() => documentOf(draft, known ?? []), [draft, known])
  // A new one without a name is not worth a question.
  const asks = admin && tab !== 'try' && known !== undefined && wanted.name !== '' && wanted['target'] !== ''
  const trial = useTrial(asks ? wanted : undefined,
    [...isNew || tab === '' ? accountFields : [], ...isNew || tab === 'jit' ? jitFields(draft) : []],
    () => saved(wanted.name))
  const props = { draft, set, offer, wrong: trial.wrong, disabled: !admin }
  if (tab === 'try') {
    return known === undefined ? html`` : html`<${TryOut} draft=${draft} declared=${known} admin=${admin} />`
  }
  return html`<form class="editing" onSubmit=${(event: Event) => event.preventDefault()}
      aria-label=${tab === 'jit' ? 'JIT settings' : 'Account'}>
      ${admin ? null : html`<p class="quiet">Only admins change this.</p>`}
      ${tab === 'jit' ? null : html`<${AccountForm} ...${props} isNew=${isNew} />`}
      ${tab === 'jit' || isNew ? html`<${JitForm} ...${props} declared=${declared} isNew=${isNew} />` : null}
    </form>
    ${admin ? html`<${Saving} trial=${trial} />` : null}`
}
