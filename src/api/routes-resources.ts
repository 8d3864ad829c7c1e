// Routes over what admins declare: apply a batch, look at it, delete one, and explain what a login name
// would open.
import { z } from 'zod'
import { SallyportError } from '../errors.ts'
import { quote } from '../input.ts'
import { readSecretPath } from '../policy/secrets.ts'
import { resourceTag } from './conditions.ts'
import { documentOf, resourceKinds } from './documents.ts'
import type { ResourceKind, Specs } from './documents.ts'
import { explain } from './explain.ts'
import { byName, part } from './pages.ts'
import type { ApiPorts, ResourceRow } from './ports.ts'
import { apply, deleteResource, documentsMax } from './resources.ts'
import type { Applied } from './resources.ts'
import { admins, everyone, route, watchers } from './route.ts'
import { appliedShape, done, explainedShape, resourceShape } from './shapes.ts'

// A batch of some thousand documents, with keys and certificates in them.
const applyBytesMax = 16 * 1024 ** 2

const kind = z.enum(resourceKinds)
// A secret's path may be written with `:` everywhere (L1).
const one = z.object({ kind, name: z.string() }).transform(({ kind: of, name }) =>
  ({ kind: of, name: of === 'secret' ? readSecretPath(name) ?? name : name }))

export function resourceRoutes(ports: ApiPorts) {
  return [
    route({
      method: 'post', path: '/apply', roles: admins, bodyBytesMax: applyBytesMax,
      summary: 'Makes what is declared equal to the documents, all or nothing; `dryRun`: only says how. '
        + '`If-Match`, with one document: only if it still is what was read.',
      body: z.strictObject({
        documents: z.array(z.unknown()).max(documentsMax),
        dryRun: z.boolean().default(false),
        /** Deletes what is not in the batch, of the kinds that are. */
        prune: z.boolean().default(false)
      }),
      response: appliedShape,
      run: async ({ body, caller, ifMatch }) => {
        const results = await apply(ports, { ...body, ifMatch }, caller.name)
        return { dryRun: body.dryRun, results: results.map(resultJson), summary: summaryOf(results) }
      }
    }),
    route({
      method: 'get', path: '/resources/{kind}', roles: watchers,
      summary: 'Resources of a kind, by name; `name`: those with this in their name.',
      params: z.object({ kind }), query: z.strictObject({ ...byName, name: part }),
      response: z.object({ resources: z.array(resourceShape) }),
      run: async ({ params, query }) =>
        ({ resources: (await ports.resources.page(params.kind, query)).map(resourceJson) })
    }),
    route({
      method: 'get', path: '/resources/{kind}/{name}', roles: watchers, summary: 'One resource.',
      params: one,
      response: resourceShape, tag: resourceTag,
      run: async ({ params }) => {
        const row = await ports.resources.get(params.kind, rowName(params))
        if (row !== undefined) return resourceJson(row)
        throw new SallyportError('not-found', { detail: `no ${params.kind} ${quote(params.name)}` })
      }
    }),
    route({
      method: 'delete', path: '/resources/{kind}/{name}', roles: admins,
      summary: 'Deletes a resource that nothing refers to; the refusal names who does.',
      params: one,
      response: done,
      run: async ({ params, caller, ifMatch }) => {
        await deleteResource(ports, params.kind, rowName(params), caller.name, ifMatch)
        return { done: true }
      }
    }),
    route({
      method: 'get', path: '/explain', roles: everyone,
      summary: 'How a login name is read and what it would open.',
      query: z.strictObject({ login: z.string().max(1024), database: z.string().max(1024).optional() }),
      response: explainedShape,
      run: ({ query, caller }) => explain(ports, query.login, query.database, caller)
    })
  ]
}

/** A secret's path is read with both separators. */
function rowName({ kind: of, name }: { kind: ResourceKind, name: string }): string {
  return of === 'secret' ? readSecretPath(name) ?? name : name
}

function resourceJson(row: ResourceRow): z.output<typeof resourceShape> {
  return {
    kind: row.kind, name: row.name, version: row.version, createdAt: row.createdAt.toISOString(),
    updatedAt: row.updatedAt.toISOString(), updatedBy: row.updatedBy,
    document: documentOf(row.kind as ResourceKind, row.spec as Specs[ResourceKind])
  }
}

function resultJson(
  { kind: of, name, action, changes, notes }: Applied
): z.input<typeof appliedShape>['results'][0] {
  return { kind: of, name, action, changes, notes: [...notes] }
}

function summaryOf(results: readonly Applied[]): z.output<typeof appliedShape>['summary'] {
  const summary = { created: 0, updated: 0, unchanged: 0, deleted: 0 }
  for (const { action } of results) summary[action]++
  return summary
}
