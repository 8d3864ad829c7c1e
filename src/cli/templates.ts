// `templates`: what there is, what is wrong with one, what it would send, and the proof that it can be
// undone.
import { existsSync, readFileSync } from 'node:fs'
import type { PlanJson, ProofJson, TemplateBodyJson, TemplateJson } from '../api/client-types.ts'
import { inert } from '../recording/inert.ts'
import { pathOf } from './client.ts'
import type { Client } from './client.ts'
import { UsageError, exit } from './command.ts'
import type { Invocation, Run } from './command.ts'
import { clientOf, number, text } from './connect.ts'
import { shortTime } from './output.ts'

interface LintReport {
  valid: boolean
  problems: string[]
  warnings: string[]
}

export const list: Run = async call => {
  const client = await clientOf(call)
  const { templates } = await client.get<{ templates: TemplateJson[] }>('/templates', {
    plugin: text(call, 'plugin'), action: text(call, 'action')
  })
  if (call.json) call.out.json(templates)
  else call.out.table(['ID', 'VERSION', 'PLUGIN', 'ACTION', 'ACTIVE', 'AUTHOR', 'CREATED'],
    templates.map(({ id, version, plugin, action, active, author, createdAt }) =>
      [id, version, plugin, action, active, author, shortTime(createdAt)]), 'no templates')
  return exit.ok
}

export const show: Run = async call => {
  const client = await clientOf(call)
  const version = text(call, 'version')
  const template = await client.get<TemplateBodyJson>(templatePath(call.args[0]!), { version })
  if (call.json) call.out.json(template)
  else call.out.raw(inert(template.body))
  return exit.ok
}

export const save: Run = async call => {
  const [id, file] = call.args
  const client = await clientOf(call)
  const body = readFileSync(file!, 'utf8')
  const template = await client.put<TemplateBodyJson>(templatePath(id!), { body })
  if (call.json) call.out.json(template)
  else call.out.line(`saved ${template.id} as version ${template.version}`)
  return exit.ok
}

export const lint: Run = async call => {
  const client = await clientOf(call)
  const [given] = call.args
  const body = existsSync(given!)
    ? readFileSync(given!, 'utf8')
    : (await client.get<TemplateBodyJson>(templatePath(given!))).body
  const report = await client.post<LintReport>('/lint', { body })
  if (call.json) call.out.json(report)
  else printLint(call, given!, report)
  return report.valid ? exit.ok : exit.failed
}

function printLint(
  { out }: Invocation, name: string, { problems, warnings }: LintReport
): void {
  for (const problem of problems) out.line(`${name}: ${problem}`)
  for (const warning of warnings) out.line(`${name}: warning: ${warning}`)
  if (problems.length === 0) out.line(`${name}: no problems`)
}

export const plan: Run = async call => {
  const client = await clientOf(call)
  const version = text(call, 'version') === undefined ? undefined : number(call, 'version', 1, 1)
  const credential = text(call, 'credential')
  const variables = variablesOf(text(call, 'variables'))
  const plans = await plansOf(client, call.args[0]!, credential, version, variables)
  if (call.json) call.out.json(plans.length === 1 ? plans[0] : plans)
  else for (const { template, version: of, steps } of plans) {
    call.out.line(`${template} version ${of}: would send`)
    for (const [at, step] of steps.entries()) {
      call.out.line(`  ${at + 1}. ${step.name}`)
      for (const line of step.text.split('\n')) call.out.line(`     ${line}`)
    }
  }
  return exit.ok
}

// `plan CREDENTIAL` shows both of its actions, `plan PLUGIN/TEMPLATE` that one.
async function plansOf(
  client: Client, given: string, credential: string | undefined, version: number | undefined,
  variables: Record<string, unknown>
): Promise<PlanJson[]> {
  const ask = (template: string, of: string | undefined): Promise<PlanJson> =>
    client.post<PlanJson>('/plan', { template, version, credential: of, variables })
  if (given.includes('/')) return [await ask(given, credential)]
  const resource = await client.get<{ document: { jit?: Record<string, unknown> } }>(
    pathOf`/resources/credential/${given}`)
  const plans: PlanJson[] = []
  for (const action of ['create', 'delete', 'enable', 'disable']) {
    const chosen = resource.document.jit?.[action] as { template: string } | undefined
    if (chosen === undefined) continue
    plans.push(await ask(chosen.template, given))
  }
  if (plans.length === 0) throw new UsageError(`credential ${given} has no jit, so there is nothing to plan`)
  return plans
}

function variablesOf(given: string | undefined): Record<string, unknown> {
  if (given === undefined) return {}
  try {
    const read: unknown = JSON.parse(given)
    const isMapping = typeof read === 'object' && read !== null && !Array.isArray(read)
    if (isMapping) return read as Record<string, unknown>
  } catch {
    // said below
  }
  throw new UsageError('--variables must be a JSON object')
}

export const prove: Run = async call => {
  const client = await clientOf(call)
  const report = await client.post<ProofJson>('/prove', { credential: call.args[0] })
  if (call.json) call.out.json(report)
  else {
    for (const { name, passed, detail, milliseconds } of report.steps) {
      const words = detail === '' ? name : `${name}: ${detail}`
      call.out.line(`${passed ? 'ok    ' : 'FAILED'}  ${words} (${Math.round(milliseconds)} ms)`)
    }
    call.out.line(report.passed ? 'proved: nothing remained' : 'NOT proved')
  }
  return report.passed ? exit.ok : exit.failed
}

function templatePath(id: string): string {
  const [plugin, name, ...more] = id.split('/')
  if (plugin === undefined || name === undefined || more.length > 0) {
    throw new UsageError(`${JSON.stringify(id)} is no template: expected PLUGIN/NAME`)
  }
  return pathOf`/templates/${plugin}/${name}`
}
