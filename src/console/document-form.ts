// The form of a declared document, drawn from the table of form-fields.ts: each field at its place, rows that
// come and go, the variables of the chosen templates. What stands in it is tried on the server while somebody
// types; what would change is shown before it is saved.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import type { Declaration } from './credential-draft.ts'
import { Saving, useTrial } from './declare.ts'
import type { Result } from './declare.ts'
import {
  documentFrom, isMeant, placesOf, rowsAt, twiceIn, valuesOf, variableTexts, withRows, withVariables
} from './document-draft.ts'
import type { Values } from './document-draft.ts'
import { ChoiceField, SeveralField, Suggestions, SwitchField, TextField } from './fields.ts'
import { formFields } from './form-fields.ts'
import type { FormField, FormKind } from './form-fields.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { offered } from './offers.ts'
import type { Offers } from './offers.ts'
import { Variables, useDeclared } from './variables.ts'
import type { Wrong } from './wrong.ts'

/** Where the names of templates stand, whose variables a form may show. */
const templatePlaces = ['create', 'delete'] as const

interface Editing {
  values: Values
  setValues(change: (before: Values) => Values): void
  /** By place in the form. */
  wrong: Wrong
  offers: Offers
  disabled: boolean
  /** What is stored already keeps its name. */
  isNew: boolean
  stored: Readonly<Record<string, unknown>>
}

export function DocumentForm({ kind, document, offers, admin, saved }: {
  kind: FormKind, document: Record<string, unknown> | undefined, offers: Offers, admin: boolean,
  saved(result: Result): void
}): View {
  const stored = document ?? {}
  const isNew = document === undefined
  const fields = formFields[kind]
  const [name, setName] = useState(String(stored['name'] ?? ''))
  const [values, setValues] = useState<Values>(() => valuesOf(kind, stored))
  const takesVariables = fields.some(({ as }) => as === 'variables')
  const declared = useDeclared(takesVariables ? templatePlaces.map(at => values[at] ?? '') : [])
  const wanted = useMemo(() => documentFrom(kind, name, stored, values, declared), [name, values, declared])
  const places = placesOf(kind, values)
  const twice = fields.flatMap(field => twiceIn(field, values))
  const asks = admin && name !== '' && declared !== undefined && twice.length === 0
  const trial = useTrial(asks ? wanted : undefined, ['name', ...places.map(({ told }) => told)], saved)
  const wrong: Wrong = Object.fromEntries(places.map(({ at, told }) => [at, trial.wrong[told] ?? []]))
  const editing: Editing = { values, setValues, wrong, offers, disabled: !admin, isNew, stored }
  const shown = fields.filter(field => isMeant(field, values))
  const isSmall = ({ as }: FormField): boolean => as !== 'rows' && as !== 'variables'
  return html`<form class="editing" aria-label=${kind} onSubmit=${(event: Event) => event.preventDefault()}>
      ${admin ? null : html`<p class="quiet">Only admins change this.</p>`}
      <${Lists} of=${shown} ...${editing} />
      <div class="fields">
        ${isNew ? html`<${TextField} label="Name" value=${name} set=${setName}
          wrong=${trial.wrong['name']} disabled=${!admin} required />` : null}
        ${shown.filter(isSmall).map(field => html`
          <${Field} key=${field.path} field=${field} at=${field.path} ...${editing} />`)}
      </div>
      ${shown.filter(field => !isSmall(field)).map(field => field.as === 'rows'
        ? html`<${Rows} key=${field.path} field=${field} ...${editing} />`
        : html`<${TemplateVariables} key=${field.path} at=${field.path} declared=${declared ?? []}
          ...${editing} />`)}
    </form>
    ${twice.length === 0 ? null
      : html`<p class="bad" role="alert">Named more than once: ${twice.join(', ')}.</p>`}
    ${admin ? html`<${Saving} trial=${trial} />` : null}`
}

const listOf = ({ offers, fits }: FormField, at: string): string | undefined =>
  offers === undefined ? undefined : `offers-${fits === undefined ? offers : at}`

/** The lists of names behind the fields, each once. */
function Lists({ of, values, offers }: Editing & { of: readonly FormField[] }): View {
  const all = of.flatMap(field => field.rows === undefined ? [field] : [...field.rows.fields])
  const lists = new Map(all.filter(field => field.offers !== undefined).map(field =>
    [listOf(field, field.path)!, offered(field, offers, values)]))
  return html`${[...lists].map(([id, names]) => html`<${Suggestions} key=${id} id=${id} of=${names} />`)}`
}

function Field({ field, at, values, setValues, wrong, disabled, isNew, stored }:
  Editing & { field: FormField, at: string }): View {
  const props = {
    label: field.label, hint: field.hint, value: values[at] ?? '', wrong: wrong[at],
    disabled: disabled || (field.isName === true && !isNew),
    set: (value: string) => setValues(before => ({ ...before, [at]: value }))
  }
  if (field.as === 'switch') {
    return html`<${SwitchField} ...${props} value=${props.value === 'yes'}
      set=${(on: boolean) => props.set(on ? 'yes' : '')} />`
  }
  if (field.as === 'several') return html`<${SeveralField} ...${props} choices=${field.choices} />`
  if (field.as === 'whether') {
    return html`<${ChoiceField} ...${props} choices=${['yes', 'no']} none="by itself" />`
  }
  if (field.choices !== undefined) return html`<${ChoiceField} ...${props} choices=${field.choices} />`
  if (field.as === 'secret') {
    // A new one of a map is stored nowhere yet; whether the other is, the server knows.
    const hint = isNew ? undefined : at in stored || at.includes('[')
      ? 'leave empty to keep what is stored' : 'none is stored'
    return html`<${TextField} ...${props} type="password" hint=${hint} />`
  }
  return html`<${TextField} ...${props} rows=${field.as === 'lines' ? 3 : undefined}
    list=${listOf(field, field.path)} />`
}

function Rows({ field, ...editing }: Editing & { field: FormField }): View {
  const { path, label, hint, rows } = field
  const { noun, fresh } = rows!
  const { values, setValues, wrong, disabled } = editing
  const all = rowsAt(values, path)
  const place = useRef<HTMLFieldSetElement>(null)
  const [lookAt, setLookAt] = useState<string>()
  // Whoever works with the keyboard goes on where something has come, or has gone.
  useEffect(() => {
    if (lookAt !== undefined) place.current?.querySelector<HTMLElement>(lookAt)?.focus()
    setLookAt(undefined)
  }, [lookAt])
  const set = (rows: readonly Readonly<Record<string, string>>[], look: string): void => {
    setValues(before => withRows(before, path, rows))
    setLookAt(look)
  }
  const row = (index: number): string => `.row:nth-of-type(${index + 1}) :is(input, select, button)`
  const moved = (index: number): void =>
    set([...all.slice(0, index - 1), all[index]!, all[index - 1]!, ...all.slice(index + 1)], row(index - 1))
  const removed = (index: number): void => set(all.toSpliced(index, 1), '.add')
  return html`<fieldset class="rows" ref=${place} disabled=${disabled}><legend>${label}</legend>
    ${hint === undefined ? null : html`<p class="quiet">${hint}</p>`}
    ${wrongView(wrong[path])}
    ${all.map((_, index) => html`<${OneRow} key=${index} field=${field} index=${index} ...${editing}>
      <p class="acts">
        ${index === 0 || rows!.key !== undefined ? null : html`<button type="button"
          aria-label=${`Move up ${noun} ${index + 1}`} onClick=${() => moved(index)}>Move up</button>`}
        <button type="button" aria-label=${`Remove ${noun} ${index + 1}`}
          onClick=${() => removed(index)}>Remove</button></p>
    <//>`)}
    <p><button type="button" class="add" onClick=${() => set([...all, fresh], row(all.length))}>
      Add a ${noun}</button></p>
  </fieldset>`
}

function OneRow({ field, index, children, ...editing }:
  Editing & { field: FormField, index: number, children?: Content }): View {
  const { noun, fields } = field.rows!
  const at = `${field.path}[${index}]`
  return html`<fieldset class="row"><legend><span class="word">${noun}</span> ${index + 1}</legend>
    ${wrongView(editing.wrong[at])}
    <div class="fields">${fields.filter(each => isMeant(each, editing.values, `${at}.`)).map(each => html`
      <${Field} key=${each.path} field=${each} at=${`${at}.${each.path}`} ...${editing} />`)}</div>
    ${children}</fieldset>`
}

function wrongView(wrong: readonly string[] = []): Content {
  return wrong.map(line => html`<p class="bad" role="alert">${line}</p>`)
}

function TemplateVariables({ at, declared, values, setValues, wrong, disabled }:
  Editing & { at: string, declared: readonly Declaration[] }): View {
  const set = (texts: Readonly<Record<string, string>>): void =>
    setValues(before => withVariables(before, at, texts))
  return html`<${Variables} at=${at} declared=${declared} texts=${variableTexts(values, at)} set=${set}
    wrong=${wrong} disabled=${disabled} />`
}
