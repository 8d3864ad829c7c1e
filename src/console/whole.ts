// Lists that a page needs whole, since it offers or counts what is in them: read page after page.
import { allOf } from '../api/calling.ts'
import type { ResourceJson, TemplateJson } from '../api/client-types.ts'
import type { ParamsOf } from '../api/table.ts'
import { get } from './call.ts'

export type Kind = ParamsOf<'get', '/resources/{kind}'>['kind']

export function allResources(kind: Kind, signal: AbortSignal): Promise<ResourceJson[]> {
  return allOf(async query =>
    (await get('/resources/{kind}', { params: { kind }, query, signal })).resources, ({ name }) => name)
}

export function allTemplates(signal: AbortSignal): Promise<TemplateJson[]> {
  return allOf(async query => (await get('/templates', { query, signal })).templates, ({ id }) => id)
}
