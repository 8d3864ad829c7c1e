// Routes over the audit log, and `doctor`: what happened, whether the log is whole, and whether the house
// is in order.
import { z } from 'zod'
import type { ApiPorts } from './ports.ts'
import { admins, route, streamRoute, watchers } from './route.ts'
import { auditJson, auditShape, auditVerifiedShape, checkShape } from './shapes.ts'

const eventsPerAnswerMax = 10_000
// A checkpoint names one head for each node boot, a few hundred bytes each; an export holds many.
const checkpointBytesMax = 8 * 1024 ** 2
// As the last event of the page before has it: `chain:seq`.
const place = z.string().max(200).transform((text, context) => {
  const [, chain, seq] = /^(.+):(\d{1,15})$/.exec(text) ?? []
  if (chain !== undefined) return { chain, seq: Number(seq) }
  context.addIssue('expected chain:seq of an event')
  return z.NEVER
})
const instant = z.iso.datetime({ offset: true }).transform(text => new Date(text))

export function auditRoutes(ports: ApiPorts) {
  return [
    route({
      method: 'get', path: '/audit', roles: watchers, summary: 'Audit events, newest first.',
      query: z.strictObject({
        kind: z.string().optional(), actor: z.string().optional(), subject: z.string().optional(),
        since: instant.optional(), until: instant.optional(),
        before: place.optional(),
        limit: z.coerce.number<number>().int().min(1).max(eventsPerAnswerMax).default(100)
      }),
      response: z.object({ events: z.array(auditShape) }),
      run: async ({ query }) => ({ events: (await ports.audit.list(query)).map(auditJson) })
    }),
    route({
      method: 'post', path: '/audit/verify', roles: watchers, bodyBytesMax: checkpointBytesMax * 2,
      summary: 'Checks the chains and, with an exported checkpoint, that nothing was rolled back since.',
      body: z.strictObject({ checkpoint: z.string().max(checkpointBytesMax).optional() }),
      response: auditVerifiedShape,
      run: async ({ body }) => {
        const report = await ports.audit.verify(body.checkpoint)
        return { ...report, problems: [...report.problems], heads: report.heads.map(head => ({ ...head })) }
      }
    }),
    streamRoute({
      method: 'get', path: '/audit/export', roles: watchers,
      summary: 'All events as JSON lines and a signed checkpoint at the end: keep it somewhere else.',
      query: z.strictObject({ since: instant.optional() }),
      response: { stream: ['application/x-ndjson'] },
      run: async ({ query, caller }) => {
        const since = query.since?.toISOString() ?? null
        await ports.audit.append('audit.exported', caller.name, '*', { since })
        const chunks = await ports.audit.export(query)
        return { contentType: 'application/x-ndjson', fileName: 'audit.ndjson', chunks }
      }
    }),
    route({
      method: 'get', path: '/doctor', roles: admins,
      summary: 'Looks at the store, the disk, the clock and every target, and says what is not in order.',
      response: z.object({ healthy: z.boolean(), checks: z.array(checkShape) }),
      run: async ({ signal }) => {
        const checks = (await ports.health.examine(signal)).map(check => ({ ...check }))
        return { healthy: checks.every(check => check.status !== 'failed'), checks }
      }
    })
  ]
}
