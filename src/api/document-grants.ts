// The parts of a grant that say when it counts and who else has to agree: `approval`, `emergency`, `windows`.
// Read from the document and written back, with the problems that only show in all of them together.
import { z } from 'zod'
import { duration, printDuration, quote } from '../input.ts'
import { weekDays } from '../policy/types.ts'
import type { ApprovalRule, GrantRule, Window } from '../policy/types.ts'
import { isZone } from '../policy/windows.ts'
import { names } from './document-parts.ts'

const approversMax = 100
// The hours of a week in one grant; each costs a few looks at the calendar at every login.
const windowsMax = 16
/** A working day, and a client that waits as long as a person looks at it. */
const defaultValidForSeconds = 14_400
const defaultWaitForSeconds = 300
// A longer wait is no wait of a person, and a connection that is held for it.
const waitForSecondsMax = 3_600

export const approval = z.strictObject({
  by: names.refine(
    list => list.length > 0 && list.length <= approversMax, `expected 1 to ${approversMax} names`),
  count: z.int().min(1).max(approversMax).default(1),
  validFor: duration.default(defaultValidForSeconds),
  waitFor: duration.default(defaultWaitForSeconds)
    .refine(seconds => seconds <= waitForSecondsMax, `longer than ${printDuration(waitForSecondsMax)}`)
}).transform(({ by, count, validFor, waitFor }): ApprovalRule =>
  ({ by, count, validForSeconds: validFor, waitForSeconds: waitFor }))

const hour = z.string()
  .regex(/^(?:(?:[01]\d|2[0-3]):[0-5]\d|24:00)$/, 'expected a time of day such as "08:00"')

const window = z.strictObject({
  days: z.array(z.enum(weekDays)).min(1).max(weekDays.length),
  from: hour, to: hour,
  zone: z.string().max(64).transform((zone, context) => {
    if (isZone(zone)) return zone
    context.addIssue(`expected a time zone such as "Europe/Zurich", not ${quote(zone)}`)
    return z.NEVER
  })
}).superRefine(({ from, to }, context) => {
  if (from === to) context.addIssue({ code: 'custom', path: ['to'], message: 'is when it begins' })
  if (from === '24:00') context.addIssue({ code: 'custom', path: ['from'], message: 'write "00:00"' })
}).transform((read): Window => ({ ...read, days: [...new Set(read.days)] }))

export const windows = z.array(window).min(1).max(windowsMax)

type Agreement = Pick<GrantRule, 'users' | 'approval' | 'emergency' | 'secrets' | 'applications' | 'windows'>

/** What does not go together: the path and the sentence of each problem. */
export function agreementProblems(
  { users, approval: rule, emergency, secrets, applications, windows: open }: Agreement
): [path: string[], message: string][] {
  const problems: [string[], string][] = []
  const isOutside = secrets !== undefined || applications !== undefined
  if (isOutside && rule !== undefined) problems.push([['approval'], 'does not go together with secrets'])
  if (isOutside && open !== undefined) problems.push([['windows'], 'does not go together with secrets'])
  if (emergency === true && rule === undefined) {
    problems.push([['emergency'], 'is for grants with approval: others open at once'])
  }
  if (rule === undefined) return problems
  // Nobody approves for themselves.
  const short = [undefined, ...users].find(user => rule.by.filter(name => name !== user).length < rule.count)
  if (rule.by.length < rule.count) problems.push([['approval', 'count'], 'is more than there are approvers'])
  else if (short !== undefined) {
    const message = `too few of them are others for ${short}: nobody approves for oneself`
    problems.push([['approval', 'count'], message])
  }
  return problems
}

/** The way back. */
export function approvalDocument(
  { by, count, validForSeconds, waitForSeconds }: ApprovalRule
): Record<string, unknown> {
  return { by, count, validFor: printDuration(validForSeconds), waitFor: printDuration(waitForSeconds) }
}
