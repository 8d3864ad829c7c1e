// What is known of an account after an action, from what the plugin says of it and what a look showed.
// Nothing is believed that a look did not show: `done` needs one, a removal that says done and was not seen
// is not done, and after a lost answer only our own epoch on the target tells that it was this action that
// took effect.
import { asSallyportError } from '../errors.ts'
import type { HookJob, HookResult } from './hook.ts'
import type { Action, Outcome, Residue, Verified } from './plugin.ts'
import type { Template } from './template.ts'

/** What is known of an action, before it is told to others. */
export type Judged = Omit<HookResult, 'tookMs' | 'quarantined'>

/** Whether what was seen is what the action wanted. */
export function isSettled(action: Action, template: Template, seen: Verified): boolean {
  switch (action) {
    case 'create': return seen.exists && seen.ours && seen.enabled
    case 'enable': return seen.exists && seen.enabled
    case 'delete': return !seen.exists && seen.sessions === 0
    case 'disable': {
      const quiet = template.proof === 'privileges' || seen.sessions === 0
      return !seen.exists || (!seen.enabled && quiet)
    }
  }
}

/** Whether an outcome is judged by a look of its own. */
export function needsLook({ action }: HookJob, outcome: Outcome): boolean {
  if (outcome.state === 'conflict' || (outcome.state === 'done' && isOpening(action) && outcome.seen)) {
    return false
  }
  // An opening that was refused rolled back or will be removed: the person waits, so nobody looks now.
  return outcome.state !== 'refused' || !isOpening(action)
}

/** `look` is asked only where one is needed, and may throw when nobody could look. */
export async function judge(job: HookJob, outcome: Outcome, look: () => Promise<Verified>): Promise<Judged> {
  if (outcome.state === 'conflict') return conflict(outcome.reason)
  const residue = outcome.state === 'unknown' ? [] : outcome.residue
  const early = outcome.state === 'done' && isOpening(job.action) ? outcome.seen : undefined
  let seen: Verified | undefined
  let blind = ''
  try {
    seen = early ?? (needsLook(job, outcome) ? await look() : undefined)
  } catch (error) {
    blind = asSallyportError(error).detail ?? 'no answer'
  }
  const all = withoutRepeats([...residue, ...seen?.residue ?? []])
  return verdictOf(job, outcome, all, seen, blind)
}

function verdictOf(
  { action, template, account }: HookJob, outcome: Exclude<Outcome, { state: 'conflict' }>,
  residue: readonly Residue[], seen: Verified | undefined, blind: string
): Judged {
  const settled = seen !== undefined && isSettled(action, template, seen)
  // After a lost answer, only our own epoch in the marker shows that it was this very action that took
  // effect.
  const proven = settled && (
    outcome.state !== 'unknown' || !isOpening(action) || seen?.epoch === account.epoch
  )
  if (proven && outcome.state !== 'refused') {
    const changed = outcome.state === 'unknown' || outcome.changed
    const made = outcome.state === 'done' ? outcome.made : undefined
    return { state: 'done', changed, retryable: false, residue, seen, made }
  }
  if (outcome.state === 'refused') {
    if (settled && !isOpening(action)) {
      return { state: 'done', changed: true, retryable: false, residue, seen }
    }
    const { failedStep, error, retryable } = outcome
    const known = { code: 'hook-failed', failedStep, error, retryable, residue, seen } as const
    return { state: 'refused', changed: false, ...known }
  }
  if (outcome.state === 'unknown') {
    const { failedStep, error } = outcome
    const known = { code: 'hook-timeout', failedStep, error, retryable: true, residue, seen } as const
    return { state: 'unknown', changed: true, ...known }
  }
  const state = seen === undefined ? 'unknown' : 'refused'
  const found = seen === undefined ? `nobody could look: ${blind}` : `the look says ${described(seen)}`
  const known = { code: 'hook-failed', failedStep: 'verify', retryable: true, residue, seen } as const
  return { state, changed: true, ...known, error: `done, but ${found}` }
}

export function isOpening(action: Action): boolean {
  return action === 'create' || action === 'enable'
}

/** What the plugin listed, the look may have met again. */
function withoutRepeats(residue: readonly Residue[]): Residue[] {
  return [...new Map(residue.map(one => [JSON.stringify(one), one])).values()]
}

export function conflict(reason: string, seen?: Verified): Judged {
  const known = { code: 'account-conflict', error: reason, retryable: false, residue: [], seen } as const
  return { state: 'conflict', changed: false, ...known }
}

function described({ exists, enabled, ours, sessions, endsAt }: Verified): string {
  if (!exists) return 'it does not exist'
  if (endsAt !== undefined) return `it cannot be taken away and ends by itself at ${endsAt.toISOString()}`
  const login = enabled ? 'can' : 'cannot'
  return `it exists, ${login} log in, is ${ours ? '' : 'not '}ours and has ${sessions} sessions`
}
