// What the fields of a form offer: names that are declared, templates, plugins, time zones. Only what a form
// really asks for is loaded; of templates only those that fit the field are offered (J8).
import type { TemplateJson } from '../api/client-types.ts'
import { get } from './call.ts'
import { formFields } from './form-fields.ts'
import type { FormField, FormKind, Offered } from './form-fields.ts'
import { allResources, allTemplates } from './whole.ts'

export interface Offers {
  names: Readonly<Partial<Record<Offered, readonly string[]>>>
  templates: readonly TemplateJson[]
}

export async function loadOffers(kind: FormKind, signal: AbortSignal): Promise<Offers> {
  const fields = formFields[kind].flatMap(field => [field, ...field.rows?.fields ?? []])
  const wanted = [...new Set(fields.map(({ offers }) => offers))].filter(each => each !== undefined)
  const [templates, ...names] = await Promise.all([
    wanted.includes('template') ? allTemplates(signal) : [],
    ...wanted.map(async of => [of, await namesOf(of, signal)] as const)
  ])
  return { names: Object.fromEntries(names), templates }
}

async function namesOf(of: Offered, signal: AbortSignal): Promise<readonly string[]> {
  if (of === 'template') return []
  if (of === 'zone') return Intl.supportedValuesOf('timeZone')
  if (of === 'plugin') {
    return (await get('/plugins', { signal })).plugins.map(({ id }) => id)
  }
  return (await allResources(of, signal)).map(({ name }) => name)
}

export function offered(
  { offers, fits }: FormField, { names, templates }: Offers, values: Readonly<Record<string, string>>
): readonly string[] {
  if (offers !== 'template') return offers === undefined ? [] : names[offers] ?? []
  const plugin = fits === undefined ? '' : values[fits.plugin] ?? ''
  return templates.filter(each => each.active && (fits === undefined || each.action === fits.action)
    && (plugin === '' || each.plugin === plugin)).map(({ id }) => id)
}
