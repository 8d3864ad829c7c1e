// The part of a grant that says what may be done within a session: `rules`. Read from the document and
// written back; a pattern that cannot be matched, and parts that mean nothing together, are problems here, so
// that no session meets them.
import { z } from 'zod'
import { asSallyportError } from '../errors.ts'
import { quote } from '../input.ts'
import { pathMatcher, patternLengthMax, patternMatcher } from '../policy/pattern.ts'
import { sqlKinds } from '../policy/sql-kinds.ts'
import { ruleActions } from '../policy/types.ts'
import type { Rule } from '../policy/types.ts'
import { approval, approvalDocument } from './document-grants.ts'

/** Each is held against every statement. */
const rulesMax = 100

const matched = (compile: (text: string) => unknown) =>
  z.string().min(1).max(patternLengthMax).superRefine((text, context) => {
    try {
      compile(text)
    } catch (thrown) {
      context.addIssue(`${quote(text)} is no pattern: ${asSallyportError(thrown).detail ?? ''}`)
    }
  })
const pattern = matched(patternMatcher)
/** Paths are judged without these, so a rule that has them would fit nothing. */
const path = matched(pathMatcher).refine(text => !/(^|\/)\.\.?(\/|$)|\/\/|.\/$|^~/.test(text),
  'expected a path without ~, ., .., doubled slashes and a slash at its end (a folder: /etc/**)')
const kinds = z.array(z.enum(sqlKinds)).min(1).max(sqlKinds.length).transform(list => [...new Set(list)])

const rule = z.discriminatedUnion('on', [
  z.strictObject({
    on: z.literal('sql'), kind: kinds.optional(), pattern: pattern.optional(), then: z.enum(ruleActions),
    approval: approval.optional()
  }),
  z.strictObject({
    on: z.literal('command'), pattern: pattern.optional(), then: z.enum(ruleActions),
    approval: approval.optional()
  }),
  z.strictObject({
    on: z.literal('file'), direction: z.enum(['upload', 'download']).optional(), path: path.optional(),
    // Each operation of a transfer is judged as it passes: nobody could be asked.
    then: z.enum(ruleActions).exclude(['approve'])
  })
]).superRefine((read, context) => {
  const given = 'approval' in read ? read.approval : undefined
  if (read.then === 'approve' && given === undefined) {
    context.addIssue({ code: 'custom', path: ['approval'], message: 'is missing: who has to agree' })
  }
  if (read.then !== 'approve' && given !== undefined) {
    context.addIssue({ code: 'custom', path: ['approval'], message: 'is for rules with `then: approve`' })
  }
}).transform((read): Rule => {
  // Stored as JSON: what is not there is left out.
  if (read.on === 'file') return clean(read)
  const { approval: given } = read
  const of = read.on === 'sql' ? { kinds: read.kind } : {}
  return clean({ on: read.on, then: read.then, ...of, pattern: read.pattern, approval: given })
})

export const rules = z.array(rule).min(1).max(rulesMax)

function clean(read: Rule): Rule {
  const there = Object.entries(read).filter(([, value]) => value !== undefined)
  return Object.fromEntries(there) as unknown as Rule
}

/** The way back. */
export function rulesDocument(list: readonly Rule[]): Record<string, unknown>[] {
  return list.map(({ on, kinds: kind, pattern: text, direction, path: glob, then, approval: given }) =>
    JSON.parse(JSON.stringify({
      on, kind, pattern: text, direction, path: glob, then,
      approval: given === undefined ? undefined : approvalDocument(given)
    })) as Record<string, unknown>)
}
