// `templates`: what there is, what is wrong with one, what it would send, and the proof that it can be
// undone.
import { existsSync, readFileSync } from 'node:fs'
import { allOf } from '../api/calling.ts'
import type { PlanJson } from '../api/client-types.ts'
import type { Answer, BodyOf, ParamsOf, QueryOf } from '../api/table.ts'
import { inert } from '../recording/inert.ts'
import type { Client } from './client.ts'
import { UsageError, exit } from './command.ts'
import type { Invocation, Run } from './command.ts'
import { clientOf, number, oneOf, text } from './connect.ts'
import type { Words } from './connect.ts'
import { shortTime } from './output.ts'

const at = '/templates/{plugin}/{name}'

type Variables = BodyOf<'post', '/plan'>['variables']

const actions: Words<NonNullable<QueryOf<'get', '/templates'>['action']>> = {
  create: true, delete: true, enable: true, disable: true
}

export const list: Run = async call => {
  const client = await clientOf(call)
  const wanted = { plugin: text(call, 'plugin'), action: oneOf(call, 'action', actions) }
  const templates = await allOf(async page =>
    (await client.get('/templates', { query: { ...wanted, ...page } })).templates, ({ id }) => id)
  if (call.json) call.out.json(templates)
  else call.out.table(['ID', 'VERSION', 'PLUGIN', 'ACTION', 'ACTIVE', 'AUTHOR', 'CREATED'],
    templates.map(({ id, version, plugin, action, active, author, createdAt }) =>
      [id, version, plugin, action, active, author, shortTime(createdAt)]), 'no templates')
  return exit.ok
}

export const show: Run = async call => {
  const client = await clientOf(call)
  const params = templateIn(call.args[0]!)
  const template = await client.get(at, { params, query: { version: versionOf(call) } })
  if (call.json) call.out.json(template)
  else call.out.raw(inert(template.body))
  return exit.ok
}

export const save: Run = async call => {
  const [id, file] = call.args
  const client = await clientOf(call)
  const body = readFileSync(file!, 'utf8')
  const template = await client.put(at, { params: templateIn(id!), body: { body } })
  if (call.json) call.out.json(template)
  else call.out.line(`saved ${template.id} as version ${template.version}`)
  return exit.ok
}

export const lint: Run = async call => {
  const client = await clientOf(call)
  const [given] = call.args
  const body = existsSync(given!)
    ? readFileSync(given!, 'utf8')
    : (await client.get(at, { params: templateIn(given!) })).body
  const report = await client.post('/lint', { body: { body } })
  if (call.json) call.out.json(report)
  else printLint(call, given!, report)
  return report.valid ? exit.ok : exit.failed
}

function printLint(
  { out }: Invocation, name: string, { problems, warnings }: Answer<'post', '/lint'>
): void {
  for (const problem of problems) out.line(`${name}: ${problem}`)
  for (const warning of warnings) out.line(`${name}: warning: ${warning}`)
  if (problems.length === 0) out.line(`${name}: no problems`)
}

export const plan: Run = async call => {
  const client = await clientOf(call)
  const version = versionOf(call)
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
  variables: Variables
): Promise<PlanJson[]> {
  const ask = (template: string, of: string | undefined): Promise<PlanJson> =>
    client.post('/plan', { body: { template, version, credential: of, variables } })
  if (given.includes('/')) return [await ask(given, credential)]
  const { document } = await client.get('/resources/{kind}/{name}', {
    params: { kind: 'credential', name: given }
  })
  const jit = document['jit'] as Record<string, unknown> | undefined
  const plans: PlanJson[] = []
  for (const action of Object.keys(actions)) {
    const chosen = jit?.[action] as { template: string } | undefined
    if (chosen === undefined) continue
    plans.push(await ask(chosen.template, given))
  }
  if (plans.length === 0) throw new UsageError(`credential ${given} has no jit, so there is nothing to plan`)
  return plans
}

function variablesOf(given: string | undefined): Variables {
  if (given === undefined) return {}
  try {
    const read: unknown = JSON.parse(given)
    const isMapping = typeof read === 'object' && read !== null && !Array.isArray(read)
    if (isMapping) return read as Variables
  } catch {
    // said below
  }
  throw new UsageError('--variables must be a JSON object')
}

export const prove: Run = async call => {
  const client = await clientOf(call)
  const report = await client.post('/prove', { body: { credential: call.args[0]! } })
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

function versionOf(call: Invocation): number | undefined {
  return text(call, 'version') === undefined ? undefined : number(call, 'version', 1, 1)
}

function templateIn(id: string): ParamsOf<'get', typeof at> {
  const [plugin, name, ...more] = id.split('/')
  if (plugin === undefined || name === undefined || more.length > 0) {
    throw new UsageError(`${JSON.stringify(id)} is no template: expected PLUGIN/NAME`)
  }
  return { plugin, name }
}
