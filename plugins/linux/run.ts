// One action on one account: the template's steps as one script over one connection. The script takes the
// account's lock, asks the fence, raises the epoch, and then goes from step to step while the claim lasts;
// its report says how far it came. A script that came back with a refusal is definite; one that did not come
// back is unknown. And the look, which reads and judges.
import type {
  Access, AccountRef, HookContext, Outcome, Pinned, Variables, Verified
} from '../../src/jit/plugin.ts'
import { SallyportError } from '../../src/errors.ts'
import { UnfitValue } from '../../src/jit/sql-text.ts'
import { renderStep } from '../../src/jit/template.ts'
import type { Step, Template } from '../../src/jit/template.ts'
import { LostAnswer, NoShell, openLink } from './link.ts'
import type { Answer, Link } from './link.ts'
import { accountScript, assertAccount, callPart, foreignPart, readReport } from './script.ts'
import type { Part, Report } from './script.ts'
import { rolesOf, verbs } from './verbs.ts'

export async function run(
  access: Access, template: Template, account: AccountRef, variables: Variables, context: HookContext
): Promise<Outcome> {
  assertAccount(account)
  const all = { ...variables, username: account.name }
  const steps = partsOf(template, template.steps, all)
  const undo = partsOf(template, template.undo, all)
  const link = await openLink(access, context)
  try {
    const outcome = await act(link, template, account, all, steps, context)
    const opening = template.action === 'create' || template.action === 'enable'
    if (outcome.state === 'refused' && opening && undo.length > 0) {
      await undoAll(link, template, account, undo, context)
    }
    return outcome
  } finally {
    link.close()
  }
}

/** Steps as shell text, rendered before anything is sent. @throws SallyportError('invalid') */
export function partsOf(template: Template, steps: readonly Step[], variables: Variables): Part[] {
  return steps.map(step => {
    const rendered = renderStep(template, step, variables)
    if (rendered.script !== undefined) return foreignPart(step.name, rendered.script)
    const verb = verbs[rendered.do ?? '']
    if (verb === undefined) throw new SallyportError('invalid', { detail: `no verb ${rendered.do ?? ''}` })
    try {
      return callPart(step.name, verb.call, verb.values(rendered.with, rolesOf(template, variables)))
    } catch (error) {
      if (!(error instanceof UnfitValue)) throw error
      throw new SallyportError('invalid', { detail: `${template.id}, step "${step.name}": ${error.message}` })
    }
  })
}

async function act(
  link: Link, template: Template, account: AccountRef, variables: Variables, steps: readonly Part[],
  context: HookContext
): Promise<Outcome> {
  const { action } = template
  const opening = action === 'create' || action === 'enable'
  const pinned = { template, variables }
  const all = opening
    ? [callPart('', 'jit_begin_opening'), ...steps, callPart('', 'jit_opened'), ...lookParts(pinned)]
    : [callPart('', 'jit_begin_removal'), ...steps]
  const libraries = opening ? ['opening', 'look'] as const : ['ladder'] as const
  try {
    const answer = await link.run(
      deadline => accountScript(account, action, deadline, libraries, all), context.remainingMs()
    )
    const report = readReport(answer)
    const outcome = outcomeOf(answer, report)
    return outcome.state === 'done' && opening
      ? { ...outcome, seen: seenIn(report, account, pinned), residue: [] }
      : outcome
  } catch (error) {
    if (error instanceof NoShell) {
      return { state: 'refused', failedStep: 'shell', error: error.message, retryable: true, residue: [] }
    }
    if (error instanceof LostAnswer) return { state: 'unknown', failedStep: 'shell', error: error.message }
    throw error
  }
}

function outcomeOf({ status, said }: Answer, report: Report): Outcome {
  const { ended, changed, residue, conflict, refused, step } = report
  if (conflict !== undefined) return { state: 'conflict', reason: conflict }
  if (ended && status === 0) return { state: 'done', changed, residue }
  if (refused !== undefined) {
    return { state: 'refused', failedStep: step, error: refused.why, retryable: refused.retryable, residue }
  }
  // Ended by a signal, by the limit on the target or by nobody knows whom: how far it came is not known.
  if (status === undefined || status > 128) {
    return { state: 'unknown', failedStep: step, error: 'the shell was ended before it came to its end' }
  }
  const error = said === '' ? `exit ${status}` : `exit ${status}: ${said}`
  return { state: 'refused', failedStep: step, error, retryable: true, residue }
}

async function undoAll(
  link: Link, template: Template, account: AccountRef, undo: readonly Part[], context: HookContext
): Promise<void> {
  const all = [callPart('', 'jit_begin'), ...undo]
  try {
    const answer = await link.run(
      deadline => accountScript(account, template.action, deadline, ['opening', 'ladder'], all),
      context.remainingMs()
    )
    const { ended, step } = readReport(answer)
    if (!ended) context.log(`undo of ${account.name} failed at ${step}: ${answer.said}`)
  } catch (error) {
    context.log(`undo of ${account.name}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

/** How the account stands, over a connection of its own. Reads only. */
export async function look(
  access: Access, account: AccountRef, context: HookContext, pinned?: Pinned
): Promise<Verified> {
  assertAccount(account)
  const report = await ask(
    access, context, deadline => accountScript(account, 'look', deadline, ['look'], lookParts(pinned))
  )
  return seenIn(report, account, pinned)
}

function lookParts(pinned: Pinned | undefined): Part[] {
  const view = callPart('', 'jit_view')
  if (pinned?.template.proof !== 'privileges') return [view]
  const roles = rolesOf(pinned.template, pinned.variables)
  return [view, callPart('', 'jit_privileges', [roles.join(' ')])]
}

function seenIn(report: Report, account: AccountRef, pinned: Pinned | undefined): Verified {
  const privileges = pinned?.template.proof === 'privileges'
  const [present, open, owner, epoch, processes] = report.all('account')[0] ?? []
  const byRule = pinned !== undefined && !Object.hasOwn(pinned.template.variables, 'roles')
  const privileged = byRule ? report.all('sudo').length > 0 : report.all('group').length > 0
  return {
    exists: present !== 'no', enabled: privileges ? privileged : open === 'yes',
    ours: owner === account.accountId, epoch: Number(epoch) > 0 ? Number(epoch) : undefined,
    sessions: Number(processes ?? 0), residue: report.residue
  }
}

/** A script that only reads. @throws SallyportError when it was not answered to its end */
export async function ask(
  access: Access, context: HookContext, build: (deadline: number) => string
): Promise<Report> {
  const link = await openLink(access, context)
  try {
    const answer = await link.run(build, context.statementTimeoutMs)
    const report = readReport(answer)
    if (report.ended && answer.status === 0) return report
    const why = report.refused?.why ?? `exit ${answer.status ?? 'by a signal'}: ${answer.said}`
    throw new SallyportError('hook-failed', { detail: `${access.target.name}: ${why}` })
  } catch (error) {
    if (error instanceof NoShell) {
      throw new SallyportError('hook-failed', { detail: `${access.target.name}: ${error.message}` })
    }
    if (!(error instanceof LostAnswer)) throw error
    throw new SallyportError('hook-timeout', { detail: `${access.target.name}: ${error.message}` })
  } finally {
    link.close()
  }
}
