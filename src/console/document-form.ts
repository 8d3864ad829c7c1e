// The page of a grant, a profile or a target: its form, what would change, who changed it last. Everybody who
// may look sees the same; admins change it.
import { useMemo, useState } from 'preact/hooks'
import { get, remove } from './call.ts'
import { Saving, useTrial } from './declare.ts'
import { documentFrom, formFields, valuesOf } from './document-draft.ts'
import type { FormField, FormKind, Values } from './document-draft.ts'
import { ChoiceField, Suggestions, SwitchField, TextField } from './fields.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { isAdmin } from './page.ts'
import type { PageProps } from './page.ts'
import { Act, When, show, useLoad } from './parts.ts'
import { allResources, allTemplates } from './whole.ts'

type Offers = Readonly<Record<NonNullable<FormField['offers']>, readonly string[]>>

async function loadOffers(kind: FormKind, signal: AbortSignal): Promise<Partial<Offers>> {
  const wanted = new Set(formFields[kind].map(({ offers }) => offers).filter(each => each !== undefined))
  const namesOf = async (of: NonNullable<FormField['offers']>): Promise<string[]> => {
    if (of === 'plugin') {
      return (await get('/plugins', { signal })).plugins.map(({ id }) => id)
    }
    if (of === 'template') {
      return (await allTemplates(signal)).filter(({ active }) => active).map(({ id }) => id)
    }
    return (await allResources(of, signal)).map(({ name }) => name)
  }
  return Object.fromEntries(await Promise.all([...wanted].map(async of => [of, await namesOf(of)] as const)))
}

export function DocumentPage({ parts: [kind = '', name = ''], caller }: PageProps): View {
  const of = kind as FormKind
  const loaded = useLoad(async signal => ({
    row: await get('/resources/{kind}/{name}', { params: { kind: of, name }, signal }),
    offers: await loadOffers(of, signal)
  }), [kind, name])
  const admin = isAdmin(caller)
  return html`<h1><span class="word">${kind}</span> <code>${name}</code></h1>
    ${show(loaded, ({ row, offers }) => html`
      <p class="quiet">Version ${row.version}, made <${When} at=${row.createdAt} />, changed${' '}
        <${When} at=${row.updatedAt} /> by ${row.updatedBy}</p>
      <${Form} key=${row.version} kind=${of} document=${row.document} offers=${offers} admin=${admin}
        saved=${loaded.again} />
      ${admin ? html`<p><${Act} label=${`Delete this ${kind}`} sure="Delete it" act=${async () => {
        await remove('/resources/{kind}/{name}', { params: { kind: of, name } })
        location.assign(`/console/access/${kind}`)
      }} /></p>` : null}`)}`
}

export function NewDocumentPage({ parts: [kind = ''], caller }: PageProps): View {
  const of = kind as FormKind
  const loaded = useLoad(signal => loadOffers(of, signal), [kind])
  const opened = (name: string): void => location.assign(`/console/access/${kind}/${name}`)
  return html`<h1>New ${kind}</h1>
    ${show(loaded, offers => html`<${Form} kind=${of} document=${undefined} offers=${offers}
      admin=${isAdmin(caller)} saved=${opened} />`)}`
}

function Form({ kind, document, offers, admin, saved }: {
  kind: FormKind, document: Record<string, unknown> | undefined, offers: Partial<Offers>, admin: boolean,
  saved(name: string): void
}): View {
  const stored = document ?? {}
  const [name, setName] = useState(String(stored['name'] ?? ''))
  const [values, setValues] = useState<Values>(() => valuesOf(kind, stored))
  const wanted = useMemo(() => documentFrom(kind, name, stored, values), [name, values])
  const paths = ['name', ...formFields[kind].map(({ path }) => path)]
  const trial = useTrial(admin && name !== '' ? wanted : undefined, paths, () => saved(name))
  const field = (of: FormField): Content => {
    const props = {
      key: of.path, label: of.label, hint: of.hint, value: values[of.path] ?? '', disabled: !admin,
      wrong: trial.wrong[of.path],
      set: (value: string) => setValues(before => ({ ...before, [of.path]: value }))
    }
    if (of.as === 'switch') {
      return html`<${SwitchField} ...${props} value=${props.value === 'yes'}
        set=${(on: boolean) => props.set(on ? 'yes' : '')} />`
    }
    if (of.choices !== undefined) return html`<${ChoiceField} ...${props} choices=${of.choices} />`
    return html`<${TextField} ...${props} rows=${of.as === 'lines' ? 3 : undefined}
      list=${of.offers === undefined ? undefined : `offers-${of.offers}`} />`
  }
  return html`<form class="editing" aria-label=${kind} onSubmit=${(event: Event) => event.preventDefault()}>
      ${admin ? null : html`<p class="quiet">Only admins change this.</p>`}
      ${Object.entries(offers).map(([of, names]) => html`
        <${Suggestions} id=${`offers-${of}`} of=${names} />`)}
      <div class="fields">
        ${document !== undefined ? null : html`<${TextField} label="Name" value=${name} set=${setName}
          wrong=${trial.wrong['name']} disabled=${!admin} required />`}
        ${formFields[kind].map(field)}
      </div>
    </form>
    ${admin ? html`<${Saving} trial=${trial} />` : null}`
}
