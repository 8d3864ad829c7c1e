// One action at a service: the requests of a template in order, while the claim lasts. An answer that was
// expected goes on, one that was not is a refusal: nothing of that step happened. A request that changes
// something and whose answer was lost, or was an error of the server's own, leaves the outcome unknown. What
// only the service knows then (a key, a token) leaves with the outcome of a creation that was seen, and never
// otherwise: a secret whose answer was lost is nobody's, and is not asked for again under the same name.
import type {
  Access, AccountRef, HookContext, Made, Outcome, Variables, Verified
} from '../../src/jit/plugin.ts'
import { isList } from '../../src/jit/http-text.ts'
import type { HttpStep } from '../../src/jit/http-text.ts'
import { SallyportError } from '../../src/errors.ts'
import { renderStep } from '../../src/jit/template.ts'
import type { Step, Template } from '../../src/jit/template.ts'
import { Secret } from '../../src/secret.ts'
import type { HttpAnswer } from '../../src/wire/http/client.ts'
import { pause } from '../../src/wire/pause.ts'
import { ConnectionLost } from '../../src/wire/postgres/query.ts'
import { StepFailed } from '../steps.ts'
import { follow, refusalOf, textOf, valueOf } from './answer.ts'
import { openLink } from './link.ts'
import type { Signing } from './link.ts'
import { readsOnly } from './lint.ts'
import { lookUntil } from './look.ts'
import type { Looker } from './look.ts'
import { isBusy, waitFor } from './throttle.ts'
import { tryAll, valuesOf } from './values.ts'

/** A creation goes on when what it just made is not known everywhere yet: so often, with longer pauses. */
const unknownYetTries = 5

/** A run under way: a look at the same service, and what the steps gave so far. */
interface Run extends Looker {
  values: Record<string, Variables[string]>
}

export async function run(
  access: Access, template: Template, account: AccountRef, variables: Variables, context: HookContext,
  signing: Signing
): Promise<Outcome> {
  const values = { ...valuesOf(account, variables, context.now()) }
  tryAll(template, values)
  const link = await openLink(access, context, signing)
  const running: Run = { access, template, context, link, values }
  let at = 'begin'
  try {
    begin(template, account, context)
    for (const [index, step] of template.steps.entries()) {
      at = step.name
      await take(running, step, index > 0)
    }
    at = 'look'
    const seen = await lookUntil(running, one => isSettled(template, one))
    return { state: 'done', changed: true, residue: [], seen, made: madeOf(template, values) }
  } catch (error) {
    const outcome = outcomeOf(error, at, values)
    if (outcome.state === 'refused' && at !== 'begin') await takeBack(running)
    return outcome
  } finally {
    link.close()
  }
}

/** Its secret cannot be replaced here: only the service draws one, and somebody may have the first. */
function begin({ action }: Template, { name }: AccountRef, { before }: HookContext): void {
  if (action === 'create' && before?.exists === true && before.endsAt === undefined) {
    throw new StepFailed(`${name} is there from an earlier attempt: it is removed, another is made`, false)
  }
  if (action === 'enable' && before?.exists !== true) throw new StepFailed('there is no such account')
}

function isSettled({ action }: Template, { exists, ours, enabled }: Verified): boolean {
  switch (action) {
    case 'create': return exists && ours && enabled
    case 'enable': return exists && enabled
    case 'delete': return !exists
    case 'disable': return !exists || !enabled
  }
}

/** What leaves with the lease. */
function madeOf({ made }: Template, values: Variables): Made {
  if (made.length === 0) return undefined
  return Object.fromEntries(made.map(name => {
    const value = values[name]
    return [name, value instanceof Secret ? value : new Secret(String(value))]
  }))
}

async function take(running: Run, step: Step, later: boolean): Promise<void> {
  const { template, values, context } = running
  if (step.http === undefined) return
  const { each } = step.http
  const items = each === undefined ? [undefined] : listOf(template, values, each)
  for (const item of items) {
    if (context.remainingMs() <= 0) throw new StepFailed('the claim on the account has lapsed')
    const filled = renderStep(template, step, item === undefined ? values : { ...values, item }).http!
    const answer = await send(running, step, filled, later)
    if (answer !== undefined) keep(filled, answer, values)
  }
}

function listOf({ variables }: Template, values: Variables, name: string): readonly string[] {
  const declared = Object.hasOwn(variables, name) ? variables[name]?.default : undefined
  const value = values[name] ?? declared
  return Array.isArray(value) ? value.map(String) : []
}

/** The answer as expected; undefined for an error that the step says to pass over. */
async function send(
  { link, context, template }: Run, step: Step, filled: HttpStep, later: boolean
): Promise<HttpAnswer | undefined> {
  for (let tries = 1; ; tries++) {
    const answer = await link.send(filled)
    if (filled.expect.includes(answer.status)) return answer
    const refusal = refusalOf(answer)
    if (refusal.code !== '' && step.ignore.includes(refusal.code)) return undefined
    const what = `answered ${refusal.status} ${refusal.code}: ${refusal.said}`
    if (answer.status >= 500 && !readsOnly(filled)) throw new ConnectionLost('violation', what)
    if (isBusy(refusal) && await waitFor(context, answer.retryAfterSeconds, tries)) continue
    const unknownYet = later && template.action === 'create' && answer.status === 404
    if (unknownYet && tries < unknownYetTries) {
      await pause(100 * 2 ** tries)
      context.signal.throwIfAborted()
      continue
    }
    throw new StepFailed(what, ![400, 401, 403].includes(answer.status))
  }
}

function keep({ output }: HttpStep, answer: HttpAnswer, values: Record<string, Variables[string]>): void {
  const trails = Object.entries(output)
  if (trails.length === 0) return
  let value: unknown
  try {
    value = valueOf(answer)
  } catch (error) {
    throw new ConnectionLost('violation', (error as Error).message, error)
  }
  for (const [name, trail] of trails) {
    const found = follow(value, trail).map(textOf).filter(text => text !== undefined)
    if (isList(trail)) values[name] = found
    else if (found[0] !== undefined && found.length === 1) values[name] = new Secret(found[0])
    // It was done, and what it gave is lost.
    else throw new ConnectionLost('violation', `the answer has no ${name}`)
  }
}

async function takeBack(running: Run): Promise<void> {
  try {
    for (const step of running.template.undo) await take(running, step, false)
  } catch (error) {
    running.context.log(`undo: ${told(error, running.values)}`)
  }
}

function outcomeOf(error: unknown, failedStep: string, values: Variables): Outcome {
  const message = told(error, values)
  if (error instanceof StepFailed) {
    return { state: 'refused', failedStep, error: message, retryable: error.retryable, residue: [] }
  }
  const ours = error instanceof SallyportError && error.code !== 'hook-timeout'
  if (ours && failedStep !== 'look') {
    return { state: 'refused', failedStep, error: message, retryable: true, residue: [] }
  }
  return { state: 'unknown', failedStep, error: message }
}

/** A service may quote what it gave a step before: no secret of this run is in a message. */
function told(error: unknown, values: Variables): string {
  let text = error instanceof SallyportError ? error.detail ?? error.code : (error as Error).message
  for (const value of Object.values(values)) {
    if (value instanceof Secret && value.expose() !== '') text = text.replaceAll(value.expose(), '<secret>')
  }
  return text
}
