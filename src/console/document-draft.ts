// A declared document as a form holds it, and the document that the form means. In the form everything is
// text by its place: `approval.count`, and `rules[0].pattern` in rows, whose number stands at `rules`. What
// the form does not show stays in the document as it was stored.
import { keptSecret, textsOf, variablesOf } from './credential-draft.ts'
import type { Declaration } from './credential-draft.ts'
import { formFields } from './form-fields.ts'
import type { FormField, FormKind } from './form-fields.ts'
import type { Document } from './wrong.ts'

/** By place; a switch is `yes` or empty. */
export type Values = Readonly<Record<string, string>>

type Bag = Record<string, unknown>
type Row = Readonly<Record<string, string>>

/** A field of the form with its place in it, and the path by which the server speaks of it. */
export interface Place {
  field: FormField
  at: string
  told: string
}

/** Parts that say nothing without one of these. */
const needed: Readonly<Record<string, readonly string[]>> = {
  approval: ['by'], renewal: ['cloudCredentials', 'ephemeralCredentials', 'credentials']
}

export function valuesOf(kind: FormKind, document: Readonly<Bag>): Values {
  const values: Record<string, string> = {}
  for (const field of formFields[kind]) take(values, field, field.path, partOf(document, field.path))
  if (kind === 'secret') values['sort'] = sortOf(document)
  return values
}

/** Which sort of secret it is, by its fields; a new one makes accounts. */
function sortOf(document: Readonly<Bag>): string {
  if (partOf(document, 'attributes.linkConfig') !== undefined) return 'linked'
  if (document['profile'] !== undefined) return 'profile'
  return document['data'] === undefined ? 'provider' : 'static'
}

function partOf(document: Readonly<Bag>, path: string): unknown {
  return path.split('.').reduce<unknown>((at, key) => (at as Bag | undefined)?.[key], document)
}

function take(values: Record<string, string>, field: FormField, at: string, value: unknown): void {
  const { as, rows, isOn } = field
  if (rows !== undefined) {
    const bags = bagsOf(rows, value)
    values[at] = String(bags.length)
    bags.forEach((bag, index) => {
      const place = `${at}[${index}].`
      for (const each of rows.fields) take(values, each, place + each.path, partOf(bag, each.path))
    })
  } else if (as === 'variables') {
    for (const [name, text] of Object.entries(textsOf(value as Bag))) values[`${at}.${name}`] = text
  } else if (as === 'switch') values[at] = (isOn ? value !== false : value === true) ? 'yes' : ''
  else if (as === 'whether') values[at] = value === undefined ? '' : value === true ? 'yes' : 'no'
  else if (Array.isArray(value)) values[at] = value.join(as === 'lines' ? '\n' : ', ')
  // A secret never comes from the server: empty is "as it is".
  else values[at] = as === 'secret' || value === undefined || value === null ? '' : String(value)
}

function bagsOf({ key, value: of = '' }: NonNullable<FormField['rows']>, value: unknown): Bag[] {
  if (key === undefined) return value as Bag[] | undefined ?? []
  return Object.entries(value as Bag | undefined ?? {}).map(([name, each]) =>
    ({ [key]: name, ...of === '' ? each as Bag : { [of]: each } }))
}

/** Whether a field is shown, and meant; `row`: in front of the places of its row. */
export function isMeant({ when }: FormField, values: Values, row = ''): boolean {
  return when === undefined || when.is.includes(values[row + when.path] ?? '')
}

export function documentFrom(
  kind: FormKind, name: string, stored: Readonly<Bag>, values: Values,
  declared: readonly Declaration[] = []
): Document {
  const document: Document = { ...structuredClone(stored), kind, name }
  for (const field of formFields[kind]) {
    if (field.isAside) continue
    const value = isMeant(field, values)
      ? meantBy(field, field.path, values, partOf(stored, field.path), declared)
      : undefined
    put(document, field.path, value)
  }
  if (values['sort'] === 'linked') put(document, 'attributes.linkConfig.linkType', 'dynamic')
  dropIdle(document)
  return document
}

/** Sets what is at the path; what is empty is not there. */
function put(bag: Bag, path: string, value: unknown): void {
  const [first = '', ...others] = path.split('.')
  if (others.length === 0) {
    if (value === undefined) delete bag[first]
    else bag[first] = value
    return
  }
  if (bag[first] === undefined && value === undefined) return
  const inner = (bag[first] ??= {}) as Bag
  put(inner, others.join('.'), value)
  if (Object.keys(inner).length === 0) delete bag[first]
}

function meantBy(
  field: FormField, at: string, values: Values, stored: unknown, declared: readonly Declaration[]
): unknown {
  const text = values[at] ?? ''
  switch (field.as) {
    case 'rows': return rowsMeant(field, at, values, stored, declared)
    case 'variables': {
      const variables = variablesOf({ variables: variableTexts(values, at) }, declared)
      return Object.keys(variables).length === 0 ? undefined : variables
    }
    case 'secret': return text === '' ? stored === undefined ? undefined : keptSecret : { value: text }
    case 'switch': return (text === 'yes') === (field.isOn ?? false) ? undefined : text === 'yes'
    case 'whether': return text === '' ? undefined : text === 'yes'
    default: return text.trim() === '' ? undefined : read(field.as, text)
  }
}

function read(as: FormField['as'], text: string): unknown {
  if (as === 'text') return text
  if (as === 'number') return /^\d{1,9}$/.test(text.trim()) ? Number(text) : text
  return text.split(as === 'lines' ? '\n' : /[,\n]/).map(each => each.trim()).filter(each => each !== '')
}

function rowsMeant(
  { rows }: FormField, at: string, values: Values, stored: unknown, declared: readonly Declaration[]
): unknown {
  const { fields, key, value: of } = rows!
  const bags = rowsAt(values, at).map((row, index) => {
    const place = `${at}[${index}].`
    const was = key === undefined ? undefined : (stored as Bag | undefined)?.[row[key] ?? '']
    const bag: Bag = {}
    for (const field of fields.filter(each => each.path !== key && isMeant(each, values, place))) {
      put(bag, field.path, meantBy(field, place + field.path, values, was, declared))
    }
    return bag
  })
  if (bags.length === 0) return undefined
  for (const bag of bags) dropIdle(bag)
  if (key === undefined) return bags
  const names = rowsAt(values, at).map(row => row[key] ?? '')
  // A value that was not typed yet is one that is not right yet.
  return Object.fromEntries(bags.map((bag, index) =>
    [names[index]!, of === undefined ? bag : bag[of] ?? { value: '' }]))
}

function dropIdle(document: Bag): void {
  for (const [part, names] of Object.entries(needed)) {
    const inner = document[part] as Bag | undefined
    if (inner !== undefined && names.every(name => inner[name] === undefined)) delete document[part]
  }
}

/** The texts of the templates' variables, by name. */
export function variableTexts(values: Values, at: string): Record<string, string> {
  const before = `${at}.`
  return Object.fromEntries(Object.entries(values).filter(([place]) => place.startsWith(before))
    .map(([place, text]) => [place.slice(before.length), text]))
}

export function withVariables(values: Values, at: string, texts: Readonly<Record<string, string>>): Values {
  const others = Object.entries(values).filter(([place]) => !place.startsWith(`${at}.`))
  const given = Object.entries(texts).map(([name, text]) => [`${at}.${name}`, text] as const)
  return Object.fromEntries([...others, ...given])
}

export function rowsAt(values: Values, at: string): Row[] {
  return Array.from({ length: Number(values[at] ?? 0) }, (_, index) => {
    const before = `${at}[${index}].`
    return Object.fromEntries(Object.entries(values).filter(([place]) => place.startsWith(before))
      .map(([place, text]) => [place.slice(before.length), text]))
  })
}

/** With these rows instead of those that are there. */
export function withRows(values: Values, at: string, rows: readonly Row[]): Values {
  const others = Object.entries(values).filter(([place]) => place !== at && !place.startsWith(`${at}[`))
  const given = rows.flatMap((row, index) =>
    Object.entries(row).map(([path, text]) => [`${at}[${index}].${path}`, text] as const))
  return Object.fromEntries([...others, ...given, [at, String(rows.length)]])
}

/** Keys that stand in more than one row of a map: of two such the document could have only one. */
export function twiceIn({ rows, path }: FormField, values: Values): readonly string[] {
  const { key } = rows ?? {}
  if (key === undefined) return []
  const names = rowsAt(values, path).map(row => row[key] ?? '')
  return [...new Set(names.filter((name, index) => names.indexOf(name) < index))]
}

/** Every place of the form at which something may be wrong. */
export function placesOf(kind: FormKind, values: Values): Place[] {
  return formFields[kind].filter(field => isMeant(field, values)).flatMap(field => {
    const { path, as, rows } = field
    const own: Place = { field, at: path, told: path }
    if (as === 'variables') {
      const names = Object.keys(variableTexts(values, path)).map(name => `${path}.${name}`)
      return [own, ...names.map(at => ({ field, at, told: at }))]
    }
    if (rows === undefined) return [own]
    return [own, ...rowsAt(values, path).flatMap((row, index) => placesOfRow(field, row, values, index))]
  })
}

function placesOfRow(field: FormField, row: Row, values: Values, index: number): Place[] {
  const { fields, key, value } = field.rows!
  const at = `${field.path}[${index}]`
  const told = key === undefined ? at : `${field.path}.${row[key] ?? ''}`
  const inner = fields.filter(each => each.path !== key && isMeant(each, values, `${at}.`)).map(each =>
    ({ field: each, at: `${at}.${each.path}`, told: each.path === value ? told : `${told}.${each.path}` }))
  return value === undefined ? [{ field, at, told }, ...inner] : inner
}
