// `apply`: makes what is declared equal to the given documents, all or nothing. First the whole batch is
// read and held against what is stored, and every problem of every document is told in one list; only a
// batch without any problem is written, in the same transaction that it was checked in. Applying the same
// documents again changes nothing, secrets included: a value that is stored already does not get a new
// version.
import { createHash, randomUUID, timingSafeEqual } from 'node:crypto'
import { z } from 'zod'
import { SallyportError } from '../errors.ts'
import { problemsOf, quote } from '../input.ts'
import { keepsItsSecret } from '../jit/shelf.ts'
import { parseTemplate } from '../jit/template.ts'
import type { SecretDefinition, StaticSecret } from '../policy/secrets.ts'
import type { SecretReference, Target } from '../policy/types.ts'
import { Secret } from '../secret.ts'
import { expectTag } from './conditions.ts'
import { defined, shownSecret } from './document-parts.ts'
import { documentOf, documentSchemas, resourceKinds, rowNameOf, secretPlaces } from './documents.ts'
import type { ResourceKind, SecretField, Specs, Wanted } from './documents.ts'
import type { ApiPorts, ResourceChange, ResourceRow, TemplateRow } from './ports.ts'
import {
  authenticationFlaws, jitFlaws, keyOf, referencesIn, typedFlaws, variableFlaws
} from './references.ts'
import type { Flaw } from './references.ts'
import { confirmationOf, keptOf, mergedValues, nextVersions, sealedIn } from './secret-values.ts'
import { secretFlaws } from './secret-references.ts'

/** Documents in one `apply`; a batch is held in memory and in one transaction. */
export const documentsMax = 20_000

export interface ApplyRequest {
  documents: readonly unknown[]
  dryRun: boolean
  prune: boolean
  /** Of one document: the resource must still be what its tag says (conditions.ts). */
  ifMatch?: string | undefined
}

export interface Change {
  path: string
  from?: unknown
  to?: unknown
}

export interface Applied {
  kind: ResourceKind
  name: string
  action: 'created' | 'updated' | 'unchanged' | 'deleted'
  changes: Change[]
  notes: readonly string[]
}

type Needs = Pick<
  ApiPorts,
  'clock' | 'resources' | 'templates' | 'shelf' | 'passwords' | 'leases' | 'tokens' | 'secondFactors' |
  'logins' | 'applicationTokens'
>

interface Read {
  wanted: Wanted[]
  /** `document 3 (credential/orders-rw)`, by key. */
  places: Map<string, string>
  /** Keys of documents that could be named but not read: whoever refers to them is not also wrong. */
  unread: Set<string>
  kinds: Set<ResourceKind>
  problems: string[]
}

interface Planned extends Applied {
  row?: ResourceRow | undefined
  /** The spec to store, without the secrets that are still to be sealed. */
  spec?: Record<string, unknown>
  /** Fields of the spec, and what is to be sealed into them. */
  fresh: [place: string, value: Secret<string>][]
  /** References that nothing names any more afterwards. */
  stale: SecretReference[]
}

/**
 * Applies documents. Throws SallyportError `invalid` with every problem (nothing was changed), `in-use`
 * when the only ones are resources that `prune` may not delete.
 */
export async function apply(ports: Needs, request: ApplyRequest, by: string): Promise<Applied[]> {
  const read = readDocuments(request.documents)
  const planned = await ports.resources.change(async change => {
    if (request.ifMatch !== undefined) await expectOne(change, read, request.ifMatch)
    const steps = await plan(ports, change, read, request.prune)
    if (!request.dryRun) for (const step of steps) await commit(ports, change, step, by)
    return steps
  })
  if (!request.dryRun) {
    await ports.resources.changed()
    for (const { kind, name, fresh, action } of planned) {
      // Whoever has the name next is somebody else. Again when they come: a crash may have left old logins.
      const isSomebodyElse = action === 'deleted' || action === 'created'
      // A new password, or nobody any more: who was logged in with the old one is out.
      if (kind === 'user' && (isSomebodyElse || fresh.length > 0)) await ports.tokens.removeOf(name)
      if (kind === 'user' && isSomebodyElse) await forgetLogins(ports, name, by)
      if (kind === 'application' && action === 'deleted') await ports.applicationTokens.removeOf(name)
    }
  }
  return planned.map(({ kind, name, action, changes, notes }) => ({ kind, name, action, changes, notes }))
}

async function expectOne(change: ResourceChange, { wanted }: Read, ifMatch: string): Promise<void> {
  const [one, ...others] = wanted
  if (one === undefined || others.length > 0) {
    throw new SallyportError('invalid', { problems: ['if-match: expected exactly one document with it'] })
  }
  expectTag(ifMatch, (await change.list()).find(({ kind, name }) => kind === one.kind && name === one.name))
}

/**
 * Deletes one resource; throws `not-found`, and `in-use` with who still needs it (resources and the
 * ledger).
 */
export async function deleteResource(
  ports: Needs, kind: ResourceKind, name: string, by: string, ifMatch?: string
): Promise<void> {
  await ports.resources.change(async change => {
    const rows = await change.list()
    const row = rows.find(each => each.kind === kind && each.name === name)
    if (row === undefined) throw new SallyportError('not-found', { detail: `no ${kind} ${quote(name)}` })
    expectTag(ifMatch, row)
    const problems = ownersOf(rows, kind, name)
    problems.push(...await heldByLedger(ports, kind, name))
    if (problems.length > 0) throw new SallyportError('in-use', { problems })
    await commit(ports, change, deletion(row), by)
  })
  await ports.resources.changed()
  if (kind === 'user') {
    await ports.tokens.removeOf(name)
    await forgetLogins(ports, name, by)
  }
  if (kind === 'application') await ports.applicationTokens.removeOf(name)
}

async function forgetLogins({ secondFactors, logins }: Needs, user: string, by: string): Promise<void> {
  await secondFactors.remove(user, by)
  await logins.passkeys.removeOf(user, by)
  await logins.identities.removeOf(user, by)
  await logins.requests.removeOf(user)
}

/** Who refers to a resource: one sentence each. */
export function ownersOf(rows: readonly ResourceRow[], kind: ResourceKind, name: string): string[] {
  const key = keyOf(kind, name)
  return referencesIn(stateOf(rows)).filter(({ to, owner }) => to === key && owner !== key)
    .map(({ owner, path }) => `${key}: in use by ${owner} (${path})`)
}

// ---- reading

function readDocuments(documents: readonly unknown[]): Read {
  const read: Read = { wanted: [], places: new Map(), unread: new Set(), kinds: new Set(), problems: [] }
  documents.forEach((document, at) => readDocument(document, at + 1, read))
  return read
}

const heading = z.looseObject({ kind: z.string(), name: z.string() }).transform(head =>
  ({ ...head, name: rowNameOf(head.kind, head) ?? head.name }))

function readDocument(document: unknown, number: number, read: Read): void {
  const place = `document ${number}`
  const head = heading.safeParse(document)
  const kind = (document as { kind?: unknown } | null)?.kind
  if (typeof kind !== 'string' || !(resourceKinds as readonly string[]).includes(kind)) {
    const why = typeof kind === 'string' ? `there is no kind ${quote(kind)}` : 'is missing'
    read.problems.push(`${place}: kind: ${why}; there are ${resourceKinds.join(', ')}`)
    return
  }
  read.kinds.add(kind as ResourceKind)
  const named = head.success ? `${place} (${keyOf(kind, head.data.name.slice(0, 80))})` : `${place} (${kind})`
  if (head.success) {
    const key = keyOf(kind, head.data.name)
    const earlier = read.places.get(key)
    if (earlier !== undefined) read.problems.push(`${named}: name: was declared already by ${earlier}`)
    else read.places.set(key, named)
  }
  const result = documentSchemas[kind as ResourceKind].safeParse(document)
  if (result.success) {
    read.wanted.push(result.data as Wanted)
  } else {
    read.problems.push(...problemsOf(result.error, named))
    if (head.success) read.unread.add(keyOf(kind, head.data.name))
  }
}

// ---- planning: reads and compares, writes nothing

async function plan(ports: Needs, change: ResourceChange, read: Read, prune: boolean): Promise<Planned[]> {
  const rows = await change.list()
  const stored = new Map(rows.map(row => [keyOf(row.kind, row.name), row]))
  const problems = [...read.problems]
  const steps: Planned[] = []
  for (const wanted of read.wanted) {
    const key = keyOf(wanted.kind, wanted.name)
    const step = await planOne(ports, change, wanted, stored.get(key), message =>
      problems.push(`${read.places.get(key)}: ${message}`))
    steps.push(step)
  }
  const pruned = !prune ? [] : rows.filter(row =>
    read.kinds.has(row.kind as ResourceKind) && !read.places.has(keyOf(row.kind, row.name)))
  steps.push(...pruned.map(deletion))
  const flaws = await flawsAfter(ports, read, rows, pruned)
  for (const { owner, path, message } of flaws) {
    problems.push(`${read.places.get(owner) ?? owner}: ${path}: ${message}`)
  }
  const inUse = await pruneProblems(ports, read, rows, pruned)
  if (problems.length > 0) throw new SallyportError('invalid', { problems: [...problems, ...inUse] })
  if (inUse.length > 0) throw new SallyportError('in-use', { problems: inUse })
  return steps
}

async function planOne(
  ports: Needs, change: ResourceChange, wanted: Wanted, row: ResourceRow | undefined,
  problem: (line: string) => void
): Promise<Planned> {
  const { kind, name, notes } = wanted
  const before = (row?.spec ?? {}) as Record<string, unknown>
  const spec: Record<string, unknown> = { ...keptOf(kind, before), ...wanted.spec }
  const shown: Record<string, unknown> = { ...wanted.spec }
  const step: Planned = {
    kind, name, action: 'unchanged', changes: [], notes, row, spec, fresh: [], stale: []
  }
  for (const [field, place] of Object.entries(secretPlaces[kind]) as [SecretField, string][]) {
    const reference = before[place] as SecretReference | undefined
    const given = wanted.secrets[field]
    if (given !== undefined) shown[place] = { secret: '' }
    if (given === undefined) {
      if (reference !== undefined) step.stale.push(reference)
    } else if ('entries' in given) {
      const missing = (key: string): void =>
        problem(`${field}.${key}: ${shownSecret} means "as it is", and none is stored`)
      const merged = await mergedValues(change, reference, given, missing)
      if (merged.isSame) spec[place] = reference
      else {
        step.fresh.push([place, merged.values])
        if (reference !== undefined) step.changes.push({ path: field, from: shownSecret, to: shownSecret })
      }
    } else if ('keep' in given) {
      if (reference === undefined) problem(`${field}: ${shownSecret} means "as it is", and none is stored`)
      else spec[place] = reference
    } else if (await isSame(ports, change, kind, reference, new Secret(given.value))) {
      spec[place] = reference
    } else {
      step.fresh.push([place, new Secret(given.value)])
      if (reference !== undefined) {
        step.stale.push(reference)
        step.changes.push({ path: field, from: shownSecret, to: shownSecret })
      }
    }
  }
  const old = row === undefined ? undefined : documentOf(kind, before as unknown as Specs[ResourceKind])
  const next = documentOf(kind, shown as unknown as Specs[ResourceKind])
  if (old !== undefined) step.changes.push(...differences(old, next))
  step.action = row === undefined ? 'created' : step.changes.length > 0 ? 'updated' : 'unchanged'
  return step
}

async function isSame(
  ports: Needs, change: ResourceChange, kind: ResourceKind, reference: SecretReference | undefined,
  given: Secret<string>
): Promise<boolean> {
  if (reference === undefined) return false
  const stored = await change.open(reference)
  if (kind === 'user') return ports.passwords.matches(stored.expose(), given)
  const digest = (secret: Secret<string>): Buffer => createHash('sha256').update(secret.expose()).digest()
  return timingSafeEqual(digest(stored), digest(given))
}

function deletion(row: ResourceRow): Planned {
  const kind = row.kind as ResourceKind
  const spec = row.spec as Record<string, unknown>
  const stale = kind === 'secret' ? sealedIn(spec as unknown as SecretDefinition) : Object
    .values(secretPlaces[kind]).map(place => spec[place] as SecretReference | undefined)
    .filter(reference => reference !== undefined)
  return { kind, name: row.name, action: 'deleted', changes: [], notes: [], row, fresh: [], stale }
}

/** Everything that is declared, by key. */
export function stateOf(rows: readonly ResourceRow[]): Map<string, Specs[ResourceKind]> {
  return new Map(rows.map(row => [keyOf(row.kind, row.name), row.spec as Specs[ResourceKind]]))
}

/** What would be wrong once the batch is in, apart from what prune takes away. */
async function flawsAfter(
  ports: Needs, read: Read, rows: readonly ResourceRow[], pruned: readonly ResourceRow[]
): Promise<Flaw[]> {
  const state = stateOf(rows)
  for (const wanted of read.wanted) state.set(keyOf(wanted.kind, wanted.name), wanted.spec)
  const prunedKeys = new Set(pruned.map(row => keyOf(row.kind, row.name)))
  const flaws: Flaw[] = []
  for (const { owner, path, to } of referencesIn(state)) {
    if (state.has(to) || read.unread.has(to) || prunedKeys.has(owner)) continue
    const kind = to.slice(0, to.indexOf('/'))
    const name = to.slice(kind.length + 1)
    flaws.push({ owner, path, message: `there is no ${kind} ${quote(name)}` })
  }
  flaws.push(...authenticationFlaws(state).filter(({ owner }) => !prunedKeys.has(owner)))
  const templates = new Map((await ports.templates.list()).map(row => [row.id, row]))
  flaws.push(...secretFlaws(state, read.wanted, ports.shelf, templates)
    .filter(({ owner }) => !prunedKeys.has(owner)))
  for (const wanted of read.wanted) {
    if (wanted.kind !== 'credential') continue
    const credential = wanted as Wanted<'credential'>
    const target = state.get(keyOf('target', credential.spec.target)) as Target | undefined
    flaws.push(...templateFlaws(ports, credential, target, templates))
  }
  return flaws
}

function templateFlaws(
  ports: Needs, { name, spec: { jit }, secrets }: Wanted<'credential'>, target: Target | undefined,
  templates: ReadonlyMap<string, TemplateRow>
): Flaw[] {
  if (jit === undefined) return []
  const owner = keyOf('credential', name)
  const flaws = jitFlaws(owner, jit, ports.shelf, templates)
  // What a wrong template would need is of no interest.
  if (flaws.length > 0) return flaws
  const rows = Object.values(jit.actions).map(chosen => templates.get(chosen?.template ?? ''))
  const parsed = rows.filter(row => row !== undefined).map(row => parseTemplate(row.body, row.version))
  const flawed = variableFlaws(owner, jit, parsed)
  const enabling = jit.enabled ? parsed.find(({ action }) => action === 'enable') : undefined
  if (jit.enabled && target?.protocol === 'tcp') {
    const fresh = enabling !== undefined && !keepsItsSecret(ports.shelf.plugin(enabling.plugin), enabling)
    flawed.push(...typedFlaws(owner, jit, ports.shelf, fresh))
  }
  if (enabling === undefined || secrets.password !== undefined) return flawed
  if (!keepsItsSecret(ports.shelf.plugin(enabling.plugin), enabling)) return flawed
  return [...flawed, { owner, path: 'password', message: `is missing: ${enabling.id} sets none` }]
}

async function pruneProblems(
  ports: Needs, read: Read, rows: readonly ResourceRow[], pruned: readonly ResourceRow[]
): Promise<string[]> {
  const prunedKeys = new Set(pruned.map(row => keyOf(row.kind, row.name)))
  const state = stateOf(rows.filter(row => !prunedKeys.has(keyOf(row.kind, row.name))))
  for (const wanted of read.wanted) state.set(keyOf(wanted.kind, wanted.name), wanted.spec)
  const problems = referencesIn(state).filter(({ to }) => prunedKeys.has(to))
    .map(({ owner, path, to }) => `${to}: cannot be pruned, in use by ${owner} (${path})`)
  for (const { kind, name } of pruned) problems.push(...await heldByLedger(ports, kind, name))
  return problems
}

// An account that is still to be removed needs its target and the credential that authenticates the removal.
async function heldByLedger(ports: Needs, kind: string, name: string): Promise<string[]> {
  if (kind !== 'target' && kind !== 'credential' && kind !== 'secret') return []
  // In the books of the ledger a secret stands where a session has its credential.
  const lines = await ports.leases.dependants(kind === 'target' ? kind : 'credential', name)
  return lines.map(line => `${keyOf(kind, name)}: ${line}`)
}

/** What differs between two documents, by path. */
export function differences(before: unknown, after: unknown, path = ''): Change[] {
  if (isMapping(before) && isMapping(after)) {
    const keys = new Set([...Object.keys(before), ...Object.keys(after)])
    return [...keys].flatMap(key =>
      differences(before[key], after[key], path === '' ? key : `${path}.${key}`))
  }
  if (JSON.stringify(before) === JSON.stringify(after)) return []
  return [defined({ path, from: before, to: after })]
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

// ---- writing

async function commit(ports: Needs, change: ResourceChange, step: Planned, by: string): Promise<void> {
  const { kind, name, action, changes } = step
  if (action === 'unchanged') return
  if (action === 'deleted') {
    await change.delete(kind, name)
  } else {
    const spec = { ...step.spec }
    if (kind === 'profile') spec['id'] ??= randomUUID()
    if (kind === 'secret') {
      const at = ports.clock.now().toISOString()
      spec['confirmation'] = confirmationOf(spec as unknown as SecretDefinition, { by, at })
    }
    for (const [place, value] of step.fresh) {
      const sealed = kind === 'user' ? new Secret(await ports.passwords.makeVerifier(value)) : value
      const reference = await change.seal(`${kind}.${place}`, sealed)
      spec[place] = reference
      if (kind === 'secret') {
        const { versions, dropped } = nextVersions(spec as unknown as StaticSecret, reference, {
          createdAt: ports.clock.now().toISOString(), createdBy: by
        })
        spec['versions'] = versions
        for (const old of dropped) await change.forget(old)
      }
    }
    await change.put(kind, name, spec, by)
  }
  for (const reference of step.stale) await change.forget(reference)
  await change.audit(`resource.${action}`, by, keyOf(kind, name), { changes })
}
