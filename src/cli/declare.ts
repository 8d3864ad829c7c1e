// `apply`, `get`, `delete`, `explain`: what is declared, and what a login name means under it.
import { stringify } from 'yaml'
import { allOf } from '../api/calling.ts'
import type { AppliedJson, ExplainedJson, ResourceJson } from '../api/client-types.ts'
import type { ParamsOf } from '../api/table.ts'
import { inert } from '../recording/inert.ts'
import type { Client } from './client.ts'
import { UsageError, exit } from './command.ts'
import type { Invocation, Run } from './command.ts'
import { clientOf, flag, text } from './connect.ts'
import { readDocuments } from './documents.ts'
import type { Documents } from './documents.ts'
import { Failure } from './failure.ts'
import { shortTime } from './output.ts'

type Kind = ParamsOf<'get', '/resources/{kind}'>['kind']

/** Of each kind what its list shows, beside the name and the last change. */
const columnsOf: Readonly<Record<Kind, readonly string[]>> = {
  target: ['protocol', 'address'],
  credential: ['target', 'username', 'jit'],
  user: ['roles', 'disabled'],
  grant: ['users', 'applications', 'credentials', 'secrets'],
  environment: ['description'],
  secret: ['provider', 'profile', 'target'],
  profile: ['type', 'status', 'ttl'],
  application: ['networks', 'disabled']
}

export const apply: Run = async call => {
  const file = text(call, 'file')
  if (file === undefined) throw new UsageError('--file is missing')
  const read = readDocuments(file)
  const client = await clientOf(call)
  // With a problem of ours the server is only asked what else is wrong, so that all of it is told at once.
  const dryRun = flag(call, 'dry-run') || read.problems.length > 0
  const applied = await send(client, read, { dryRun, prune: flag(call, 'prune') })
  if (call.json) call.out.json(applied)
  else printApplied(call, applied)
  return exit.ok
}

async function send(
  client: Client, read: Documents, how: { dryRun: boolean, prune: boolean }
): Promise<AppliedJson> {
  try {
    const applied = await client.post('/apply', { body: { documents: read.values, ...how } })
    if (read.problems.length === 0) return applied
  } catch (thrown) {
    if (!(thrown instanceof Failure) || thrown.problems.length === 0) throw thrown
    const { code, reference } = thrown
    const message = code === 'invalid' ? 'the documents are not valid' : thrown.message
    const problems = [...read.problems, ...thrown.problems.map(problem => placed(problem, read.places))]
    throw new Failure(`${message}: nothing was applied`, { code, reference, problems })
  }
  const { problems } = read
  throw new Failure('the documents are not valid: nothing was applied', { code: 'invalid', problems })
}

// The server counts documents; a person looks for a line of a file.
function placed(problem: string, places: readonly string[]): string {
  return problem.replace(/^document (\d+)/, (whole, number: string) => places[Number(number) - 1] ?? whole)
}

function printApplied(call: Invocation, { dryRun, results, summary }: AppliedJson): void {
  for (const { kind, name, action, changes, notes } of results) {
    call.out.line(`${action.padEnd(9)}  ${kind}/${name}`)
    for (const { path, from, to } of action === 'updated' ? changes : []) {
      call.out.line(`             ${path}: ${shown(from)} → ${shown(to)}`)
    }
    for (const note of notes) call.out.line(`             note: ${note}`)
  }
  const counts = Object.entries(summary).map(([action, count]) => `${count} ${action}`).join(', ')
  call.out.line(dryRun ? `plan only, nothing was changed: ${counts}` : counts)
}

function shown(value: unknown): string {
  return value === undefined ? 'nothing' : JSON.stringify(value)
}

export const get: Run = async call => {
  const [given, name] = call.args
  const kind = kindOf(given!)
  const client = await clientOf(call)
  if (name !== undefined) {
    const resource = await client.get('/resources/{kind}/{name}', { params: { kind, name } })
    if (call.json) call.out.json(flat(resource))
    else call.out.raw(yamlOf(resource))
    return exit.ok
  }
  const resources = await allOf(async page =>
    (await client.get('/resources/{kind}', { params: { kind }, query: page })).resources, each => each.name)
  if (call.json) call.out.json(resources.map(flat))
  else if (flag(call, 'yaml')) call.out.raw(resources.map(yamlOf).join('---\n'))
  else printResources(call, kind, resources)
  return exit.ok
}

function printResources(call: Invocation, kind: Kind, resources: readonly ResourceJson[]): void {
  const columns = columnsOf[kind]
  const headings = ['NAME', ...columns.map(column => column.toUpperCase()), 'VERSION', 'CHANGED', 'BY']
  call.out.table(headings, resources.map(({ name, document, version, updatedAt, updatedBy }) =>
    [name, ...columns.map(column => cellOf(document, column)), version, shortTime(updatedAt), updatedBy]),
  `no ${kind}s`)
}

function cellOf(document: Record<string, unknown>, column: string): string {
  const value = document[column]
  if (value === undefined) return ''
  if (column === 'jit') return jitCell(value as { enabled: boolean, type: string })
  if (!Array.isArray(value)) return typeof value === 'string' ? value : JSON.stringify(value)
  return value.length <= 3 ? value.join(', ') : `${value.slice(0, 2).join(', ')} and ${value.length - 2} more`
}

function jitCell({ enabled, type }: { enabled: boolean, type: string }): string {
  return enabled ? type : 'disabled'
}

function flat({ document, version, createdAt, updatedAt, updatedBy }: ResourceJson): Record<string, unknown> {
  return { ...document, version, createdAt, updatedAt, updatedBy }
}

function yamlOf({ document }: ResourceJson): string {
  return inert(stringify(document, { lineWidth: 0 }))
}

export const remove: Run = async call => {
  const [given, name] = call.args
  const kind = kindOf(given!)
  const client = await clientOf(call)
  await client.delete('/resources/{kind}/{name}', { params: { kind, name: name! } })
  if (call.json) call.out.json({ kind, name, action: 'deleted' })
  else call.out.line(`deleted    ${kind}/${name}`)
  return exit.ok
}

function kindOf(given: string): Kind {
  const kinds = Object.keys(columnsOf) as Kind[]
  const found = kinds.find(kind => kind === given.replace(/s$/, ''))
  if (found !== undefined) return found
  throw new UsageError(`there is no kind ${JSON.stringify(given)}; there are ${kinds.join(', ')}`)
}

export const explain: Run = async call => {
  const client = await clientOf(call)
  const query = { login: call.args[0]!, database: text(call, 'database') }
  const read = await client.get('/explain', { query })
  if (call.json) call.out.json(read)
  else printExplained(call, read)
  return read.readable ? exit.ok : exit.failed
}

function printExplained(call: Invocation, read: ExplainedJson): void {
  const { out } = call
  if (!read.readable) return out.line(`${JSON.stringify(read.login)} is no login name: ${read.reason}`)
  out.list([
    ['user', read.userKnown === false ? `${read.user} (unknown)` : read.user],
    ['credential', read.credential], ['target', read.target], ['database', read.database],
    ['grammar', read.grammar], ['canonical', read.canonical],
    ['outcome', `${read.outcome}: ${read.reason}`]
  ])
  if (read.choices.length === 0) return
  out.line()
  out.table(['CREDENTIAL', 'TARGET', 'PROTOCOL', 'GRANT', 'REFUSED BECAUSE'], read.choices.map(each =>
    [each.credential, each.target, each.protocol, each.grant, each.refusal]), '')
}
