// The plugin for anything with a POSIX shell behind SSH: scripts of a template, as the login of the hooks,
// with any variables. It knows nothing of accounts: what one is on that host, and how one sees whether it
// exists, is in the template, in a script that only reads and says `exists`, `enabled`, `ours`, `sessions N`
// or `left KIND NAME`, a line each. Where accounts are those of Linux, the plugin `linux` does more and
// knows better.
import { SallyportError } from '../src/errors.ts'
import type {
  Access, AccountRef, Action, HookContext, Outcome, Pinned, PlannedStep, Plugin, Residue, Variables, Verified
} from '../src/jit/plugin.ts'
import { quoteShell } from '../src/jit/shell-text.ts'
import { renderStep } from '../src/jit/template.ts'
import type { Step, Template } from '../src/jit/template.ts'
import { LostAnswer, NoShell, openLink, ownShell } from './linux/link.ts'
import type { Answer } from './linux/link.ts'
import { linux } from './linux.ts'
import { knockAt } from './reach.ts'
import { stepsOf } from './steps.ts'

/** Nobody has more; a script that says so lies, or counts something else. */
const sessionsMax = 1_000_000
const words: readonly string[] = ['exists', 'enabled', 'ours', 'sessions', 'left']

export const sshCommand: Plugin = {
  id: 'ssh-command',
  apiVersion: 1,
  actions: new Set<Action>(['create', 'delete', 'enable', 'disable']),
  canEnableItself: false,
  fences: false,
  parts: ['look'],
  variables: {
    username: 'name of the account',
    account_id: 'its id in the ledger',
    marker: '`sallyport/` and that id: whose it is',
    public_key: 'public half of a fresh key, as in authorized_keys (secret)',
    expires_at: 'end of the longest session, with some grace'
  },
  lint,
  plan,
  mint: () => linux.mint(),
  knock: knockAt,
  async probe(access, context) {
    const answer = await ask(access, context, 'uname -s >&3')
    return { version: answer.lines[0]?.[0] ?? 'a shell', missingRights: [], warnings: [] }
  },
  run,
  verify,
  // Nothing that carries a marker can be looked for where nobody knows what an account is.
  listOwned: async () => await Promise.resolve([])
}

function lint(template: Template): string[] {
  const problems: string[] = []
  for (const [path, step] of stepsOf(template)) {
    if (step.script === undefined) problems.push(`${path}: write script: nothing else is known there`)
    if (step.ignore.length > 0) problems.push(`${path}.ignore: a script says \`|| true\``)
  }
  for (const [index, { script }] of template.look.entries()) {
    if (script === undefined) problems.push(`look[${index}]: write script`)
  }
  const says = template.look.map(({ script }) => script ?? '').join('\n')
  for (const word of ['exists', 'ours']) {
    if (!new RegExp(`\\b${word}\\b`).test(says)) problems.push(`look: never says \`${word}\``)
  }
  return problems
}

function valuesOf({ name, accountId }: AccountRef, variables: Variables): Variables {
  return { ...variables, username: name, account_id: accountId, marker: `sallyport/${accountId}` }
}

function plan(template: Template, variables: Variables): PlannedStep[] {
  const account = { name: 'jit_0000000', accountId: 'ACCOUNT', epoch: 1, kind: 'create' as const }
  const given = { public_key: '********', expires_at: '2030-01-01T00:00:00Z', ...variables }
  const values = valuesOf(account, given)
  return template.steps.map(step =>
    ({ name: step.name, text: renderStep(template, step, values, { masked: true }).script ?? '' }))
}

/**
 * Descriptor 3 is what comes back to us; a script writes to it only in a look. One compound command: a shell
 * that got half of it runs nothing.
 */
function scriptOf(parts: readonly string[]): string {
  const all = [
    '{ exec < /dev/null 3>&1 1>&2', 'set -eu', 'umask 077', 'LC_ALL=C', 'export LC_ALL', ...parts,
    'echo end >&3', 'exit 0', '}', ''
  ]
  return all.join('\n')
}

/** Steps of a template, each in a shell of its own, with their names said before. */
function partsOf(template: Template, steps: readonly Step[], values: Variables): string[] {
  return steps.map(step => {
    const { script = 'false' } = renderStep(template, step, values)
    return `printf 'step\\t%s\\n' ${quoteShell(step.name)} >&3\n( exec 3>&-\n${script}\n)`
  })
}

async function run(
  access: Access, template: Template, account: AccountRef, variables: Variables, context: HookContext
): Promise<Outcome> {
  const values = valuesOf(account, variables)
  const script = scriptOf(partsOf(template, template.steps, values))
  const undo = scriptOf(partsOf(template, template.undo, values))
  if (template.action === 'enable' && context.before?.exists === false) {
    const error = 'there is no such account'
    return { state: 'refused', failedStep: 'begin', error, retryable: true, residue: [] }
  }
  const link = await openLink(access, context, ownShell)
  try {
    const answer = await link.run(() => script, context.remainingMs())
    const outcome = outcomeOf(answer)
    if (outcome.state === 'refused' && template.undo.length > 0) {
      const undone = await link.run(() => undo, context.remainingMs())
      if (!isComplete(undone)) context.log(`undo of ${account.name} failed: ${undone.said}`)
    }
    return outcome
  } catch (error) {
    if (error instanceof NoShell) {
      return { state: 'refused', failedStep: 'shell', error: error.message, retryable: true, residue: [] }
    }
    if (error instanceof LostAnswer) return { state: 'unknown', failedStep: 'shell', error: error.message }
    throw error
  } finally {
    link.close()
  }
}

function isComplete({ lines, status }: Answer): boolean {
  return status === 0 && lines.at(-1)?.[0] === 'end'
}

function outcomeOf(answer: Answer): Outcome {
  const { lines, status, said } = answer
  if (isComplete(answer)) return { state: 'done', changed: true, residue: [] }
  const failedStep = lines.findLast(([word]) => word === 'step')?.[1] ?? 'begin'
  // Ended by a signal or by the limit on the target: how far it came is not known.
  if (status === undefined || status > 128) {
    return { state: 'unknown', failedStep, error: 'the shell was ended before it came to its end' }
  }
  const error = said === '' ? `exit ${status}` : `exit ${status}: ${said}`
  return { state: 'refused', failedStep, error, retryable: true, residue: [] }
}

async function verify(
  access: Access, account: AccountRef, context: HookContext, pinned?: Pinned
): Promise<Verified> {
  if (pinned === undefined) {
    throw new SallyportError('invalid', { detail: 'only a template knows how to look' })
  }
  const { template, variables } = pinned
  const values = valuesOf(account, variables)
  const parts = template.look.map(step => `( ${renderStep(template, step, values).script ?? 'false'}\n) >&3`)
  const { lines } = await ask(access, context, parts.join('\n'))
  const said = lines.slice(0, -1).map(line => line.join(' ').trim().split(/\s+/))
  const strange = said.find(([word = '']) => !words.includes(word))
  if (strange !== undefined) {
    const detail = `${access.target.name}: the look said "${strange.join(' ').slice(0, 100)}"`
    throw new SallyportError('hook-failed', { detail })
  }
  return seenIn(said)
}

function seenIn(said: readonly (readonly string[])[]): Verified {
  const has = (word: string): boolean => said.some(([first]) => first === word)
  const sessions = said.filter(([word]) => word === 'sessions').map(([, count]) => Number(count))
  const residue = said.filter(([word]) => word === 'left')
    .map(([, kind = '', ...name]): Residue => ({ kind, name: name.join(' '), fate: 'left' }))
  const counted = sessions.map(count => Number.isSafeInteger(count) && count >= 0 ? count : sessionsMax)
  return {
    exists: has('exists'), enabled: has('exists') && has('enabled'), ours: has('exists') && has('ours'),
    sessions: counted.reduce((sum, count) => sum + count, 0), residue
  }
}

/** A script that only reads. @throws SallyportError when it was not answered to its end */
async function ask(access: Access, context: HookContext, text: string): Promise<Answer> {
  const link = await openLink(access, context, ownShell)
  try {
    const answer = await link.run(() => scriptOf([text]), context.statementTimeoutMs)
    if (isComplete(answer)) return answer
    const why = `exit ${answer.status ?? 'by a signal'}: ${answer.said}`
    throw new SallyportError('hook-failed', { detail: `${access.target.name}: ${why}` })
  } catch (error) {
    if (!(error instanceof LostAnswer || error instanceof NoShell)) throw error
    const code = error instanceof NoShell ? 'hook-failed' : 'hook-timeout'
    throw new SallyportError(code, { detail: `${access.target.name}: ${error.message}` })
  } finally {
    link.close()
  }
}
