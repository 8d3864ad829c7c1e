// The variables of HTTP templates: what the engine gives, what follows from it, and stand-ins for what only
// answers will give, so that a template is filled and checked before anything is sent.
import type { AccountRef, Variables } from '../../src/jit/plugin.ts'
import { renderStep } from '../../src/jit/template.ts'
import type { Template } from '../../src/jit/template.ts'

/** Lifetimes are asked for in whole minutes; what is handed out may live so much longer than the lease. */
const roundingSeconds = 60

export const suppliedVariables: Readonly<Record<string, string>> = {
  username: 'name of the account',
  account_id: 'its id in the ledger',
  marker: '`sallyport/` and that id: whose it is',
  password: 'a fresh password of 43 characters, for services that take one (secret)',
  expires_at: 'end of the longest session, with some grace',
  ends_at: 'end of the longest lifetime, without grace',
  duration_seconds: 'seconds from now to `ends_at`, in whole minutes',
  token_ends_at: 'when what lives for `duration_seconds` is over in any case'
}

/** Everything that a template of this account may name. */
export function valuesOf({ name, accountId }: AccountRef, given: Variables, now: Date): Variables {
  const endsAt = String(given['ends_at'] ?? given['expires_at'] ?? now.toISOString())
  const leftSeconds = Math.max(1, (Date.parse(endsAt) - now.getTime()) / 1000)
  const ends = new Date(Date.parse(endsAt) + roundingSeconds * 1000)
  return {
    ...given, username: name, account_id: accountId, marker: `sallyport/${accountId}`, ends_at: endsAt,
    duration_seconds: Math.ceil(leftSeconds / roundingSeconds) * roundingSeconds,
    token_ends_at: ends.toISOString()
  }
}

/** Stand-ins for what the steps will give. */
export function withStandIns({ steps, undo, given }: Template, values: Variables): Variables {
  const lists = new Set([...steps, ...undo].map(step => step.http?.each))
  const standIns = given.map((name): [string, string | string[]] =>
    [name, lists.has(name) ? [`<${name}>`] : `<${name}>`])
  return { ...Object.fromEntries(standIns), ...values }
}

/** Fills every step once. @throws SallyportError('invalid') */
export function tryAll(template: Template, values: Variables): void {
  const all = withStandIns(template, values)
  for (const step of [...template.steps, ...template.undo, ...template.look]) renderStep(template, step, all)
}
