// How an account of a service is seen: by the look that its template declares, since no plugin can know what
// an account is there. It only reads, says itself which answer means "none" and where in an answer it stands
// that the account exists, is ours and can be used, and is read by this file alone. An answer that the look
// does not expect is no look.
import { SallyportError } from '../../src/errors.ts'
import type { Trail } from '../../src/jit/http-text.ts'
import type { Access, HookContext, Variables, Verified } from '../../src/jit/plugin.ts'
import { renderStep } from '../../src/jit/template.ts'
import type { Step, Template } from '../../src/jit/template.ts'
import { pause } from '../../src/wire/pause.ts'
import { StepFailed } from '../steps.ts'
import { follow, refusalOf, valueOf } from './answer.ts'
import type { Link } from './link.ts'
import { isBusy, waitFor } from './throttle.ts'

/** Longest that one waits until a service shows everywhere what it has accepted. */
const settleMsMax = 10_000
/** What must be left of the action's time for the look that follows it. */
const reserveMs = 3000

interface Saying {
  exists: boolean
  ours: boolean | undefined
  enabled: boolean | undefined
  endsAt: Date | undefined
}

export interface Looker {
  link: Link
  template: Template
  values: Variables
  context: HookContext
  access: Access
}

/** @throws SallyportError, StepFailed, ConnectionLost when it was not answered as declared */
export async function lookAt(looker: Looker): Promise<Verified> {
  const sayings: Saying[] = []
  for (const step of looker.template.look) sayings.push(await ask(looker, step))
  const there = sayings.filter(({ exists }) => exists)
  const claims = (read: (one: Saying) => boolean | undefined): (boolean | undefined)[] =>
    there.map(read).filter(one => one !== undefined)
  const [ours, enabled] = [claims(one => one.ours), claims(one => one.enabled)]
  const endsAt = there.find(one => one.endsAt !== undefined)?.endsAt
  return {
    exists: there.length > 0, ours: ours.length > 0 && !ours.includes(false),
    enabled: there.length > 0 && (enabled.length === 0 || enabled.includes(true)),
    sessions: 0, residue: [], ...endsAt === undefined ? {} : { endsAt }
  }
}

/** Looks until the service shows what was done; the last look when it does not in time. */
export async function lookUntil(looker: Looker, settled: (seen: Verified) => boolean): Promise<Verified> {
  const { context } = looker
  const endMs = Math.max(reserveMs, context.remainingMs() - settleMsMax)
  for (let pauseMs = 100; ; pauseMs = Math.min(pauseMs * 2, 2000)) {
    const seen = await lookAt(looker)
    if (settled(seen) || seen.endsAt !== undefined || context.remainingMs() - pauseMs < endMs) return seen
    await pause(pauseMs)
  }
}

async function ask({ link, template, values, context, access }: Looker, step: Step): Promise<Saying> {
  const { http, look } = renderStep(template, step, values)
  if (look?.until !== undefined) return until(look.until, context.now())
  if (http === undefined || look === undefined) throw new StepFailed('a look asks over HTTP', false)
  for (let tries = 1; ; tries++) {
    const answer = await link.send(http)
    const refusal = refusalOf(answer)
    if (look.absent.includes(answer.status)) return absent
    if (http.expect.includes(answer.status)) {
      const value = valueOf(answer)
      const leads = (trail: Trail | undefined): boolean | undefined =>
        trail === undefined ? undefined : follow(value, trail).length > 0
      const exists = leads(look.exists) !== false
      return exists
        ? { exists, ours: leads(look.ours), enabled: leads(look.enabled), endsAt: undefined }
        : absent
    }
    if (isBusy(refusal) && await waitFor(context, answer.retryAfterSeconds, tries)) continue
    const detail = `${access.target.name}: the look "${step.name}" got ${refusal.status} ${refusal.code}`
    throw new SallyportError(refusal.status === 401 ? 'target-refused' : 'hook-failed', { detail })
  }
}

const absent: Saying = { exists: false, ours: undefined, enabled: undefined, endsAt: undefined }

function until(text: string, now: Date): Saying {
  const endsAt = new Date(text)
  if (Number.isNaN(endsAt.getTime())) throw new SallyportError('invalid', { detail: 'until is no instant' })
  return endsAt > now ? { exists: true, ours: true, enabled: true, endsAt } : absent
}
