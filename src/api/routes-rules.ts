// The route that tries rules before a grant has them: what they would have said to what was recorded.
import { z } from 'zod'
import { rules } from './document-rules.ts'
import type { ApiPorts } from './ports.ts'
import { streamRoute, watchers } from './route.ts'
import { jsonLines } from './stream.ts'

const instant = z.iso.datetime({ offset: true })
/** A hundred rules with long patterns. */
const bodyBytesMax = 256 * 1024

export function ruleRoutes(ports: ApiPorts) {
  return [
    streamRoute({
      method: 'post', path: '/rules/what-if', roles: watchers, bodyBytesMax,
      summary: 'What rules would have said to recorded statements, commands and files: one JSON object a '
        + 'line, and one with the numbers at the end.',
      body: z.strictObject({
        rules, session: z.string().regex(/^[0-9a-z]{8,40}$/, 'expected a session id').optional(),
        since: instant.optional(), until: instant.optional()
      }),
      response: { stream: ['application/x-ndjson'] },
      run: async ({ body: { session, since: from, until: to, rules: tried }, caller, signal }) => {
        const detail = { rules: tried.length, from, to }
        await ports.audit.append('rules.tried', caller.name, session ?? '*', detail)
        const found = ports.recordings.whatIf({ rules: tried, session, from, to, signal })
        return { contentType: 'application/x-ndjson', live: true, chunks: jsonLines(found) }
      }
    })
  ]
}
