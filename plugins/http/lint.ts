// What can be said about an HTTP template without a service: steps that this plugin has no use for, a look
// that changes something or does not say enough, secrets where logs of a service would keep them. And the dry
// run: the requests as they would be sent.
import type { HttpStep } from '../../src/jit/http-text.ts'
import type { PlannedStep, Variables } from '../../src/jit/plugin.ts'
import { renderStep } from '../../src/jit/template.ts'
import type { Step, Template } from '../../src/jit/template.ts'
import { stepsOf } from '../steps.ts'
import { requestOf } from './link.ts'
import { valuesOf, withStandIns } from './values.ts'

/** The one verb: for what was handed out for a time and cannot be taken back. */
export const letExpire = 'let-expire'

/** AWS' Query APIs read with POST. What draws a credential is no reading, whatever it is called. */
export function readsOnly({ method, form }: HttpStep): boolean {
  return method === 'GET' || (method === 'POST' && /^(?:Get|List)(?!.*Token$)/.test(form?.['Action'] ?? ''))
}

export function lint(template: Template): string[] {
  const problems: string[] = []
  for (const [path, step] of stepsOf(template)) problems.push(...stepProblems(path, step))
  const asks = template.look.filter(({ http }) => http !== undefined)
  for (const [index, { http, look, script, ignore }] of template.look.entries()) {
    if (script !== undefined) problems.push(`look[${index}].script: a service has no shell`)
    if (ignore.length > 0) problems.push(`look[${index}].ignore: say \`absent\``)
    if (http === undefined || look === undefined) continue
    if (!readsOnly(http)) problems.push(`look[${index}].http: may change something: a look only reads`)
    if (look.exists === undefined && look.absent.length === 0) {
      problems.push(`look[${index}]: says by nothing that there is none: give \`absent\` or \`exists\``)
    }
  }
  const { action } = template
  const ours = asks.some(({ look }) => look?.ours !== undefined)
  if (asks.length > 0 && !ours && (action === 'create' || action === 'delete')) {
    problems.push('look: says by nothing that the account is ours: give `ours`')
  }
  const enabled = asks.some(({ look }) => look?.enabled !== undefined)
  if (!enabled && (action === 'enable' || action === 'disable')) {
    problems.push('look: says by nothing that the account is on: give `enabled`')
  }
  return problems
}

function stepProblems(path: string, step: Step): string[] {
  const problems: string[] = []
  if (step.sql !== undefined) problems.push(`${path}.sql: a service has no SQL; write http`)
  if (step.script !== undefined) problems.push(`${path}.script: a service has no shell; write http`)
  if (step.do !== undefined && step.do !== letExpire) {
    problems.push(`${path}.do: there is no ${step.do}; there is ${letExpire}`)
  }
  if (step.http?.each !== undefined && Object.keys(step.http.output).length > 0) {
    problems.push(`${path}.output: has no place in a step that is sent for each item`)
  }
  return problems
}

export function advise({ action, steps, look, made, uses }: Template): string[] {
  const advice: string[] = []
  for (const [index, { http }] of steps.entries()) {
    const visible = JSON.stringify([http?.path, http?.query])
    if (/\{\{\s*password\b/.test(visible)) {
      advice.push(`steps[${index}]: a secret in a path or a query is in the logs of the service`)
    }
  }
  const expires = look.some(step => step.look?.until !== undefined)
  if (expires && (action === 'create' || action === 'delete')) {
    advice.push('look: nobody can take this back: the receipt says `expires` until its time is over')
  }
  if (action === 'delete' && !expires && steps.every(({ http }) => http === undefined)) {
    advice.push('steps: nothing is sent: the account stays')
  }
  const handsOut = made.length > 0 || uses.includes('password')
  if (action === 'create' && !handsOut) advice.push('made: nothing but the name leaves with the lease')
  return advice
}

/** What would be sent, secrets masked; what only answers give is shown by its name. */
export function plan(template: Template, variables: Variables, now: Date): PlannedStep[] {
  const account = { name: 'jit_0000000', accountId: 'ACCOUNT', epoch: 1, kind: 'create' as const }
  const given = { password: '********', expires_at: now.toISOString(), ...variables }
  const values = withStandIns(template, valuesOf(account, given, now))
  return template.steps.map(step => {
    const { http } = renderStep(template, step, values, { masked: true })
    if (http === undefined) return { name: step.name, text: `${letExpire}: it ends by itself` }
    const { method, path, body } = requestOf(http)
    const each = http.each === undefined ? '' : `for each of ${http.each}: `
    return { name: step.name, text: `${each}${method} ${path}${body === '' ? '' : `\n${body}`}` }
  })
}
