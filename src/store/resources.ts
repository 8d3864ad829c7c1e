// What admins declare: documents by kind and name, and the copy of them that decisions are made from. Every
// change is one transaction behind one lock, so that what was checked still holds when it is written, and
// raises a number; reading the declared state costs that one number as long as nothing changed. Asking the
// store each time is on purpose: a withdrawn grant counts at once on every node, and a store that is down
// lets nobody in.
import type { Application, Environment, Profile, SecretDefinition } from '../policy/secrets.ts'
import type { Credential, Declared, GrantRule, SecretReference, Target, User } from '../policy/types.ts'
import type { Secret } from '../secret.ts'
import { SallyportError } from '../errors.ts'
import type { AuditLog } from './audit.ts'
import type { Database, Handle } from './database.ts'
import { and, asc, eq, sql } from './drizzle.ts'
import { resource, setting } from './schema.ts'
import type { SecretStore } from './sealing.ts'

export interface ResourceRow {
  kind: string
  name: string
  /** As in policy/types.ts. */
  spec: unknown
  version: number
  createdAt: Date
  updatedAt: Date
  updatedBy: string
}

export interface Resources {
  list(kind?: string): Promise<readonly ResourceRow[]>
  /** Of a kind, in the order of the bytes of their names; `name`: a part of it. */
  page(kind: string, page: { after?: string | undefined, limit: number, name?: string | undefined }):
    Promise<readonly ResourceRow[]>
  get(kind: string, name: string): Promise<ResourceRow | undefined>
  /**
   * All that `act` does, or nothing; one change at a time over all nodes. May take a minute; may run twice.
   */
  change<T>(act: (change: ResourceChange) => Promise<T>): Promise<T>
  /** After a change: the next `declared` finds it by itself, so there is nothing to do. */
  changed(): Promise<void>
  /** Everything that is declared, for decisions. Throws `store-unavailable`. */
  declared(): Promise<Declared>
}

export interface ResourceChange {
  list(): Promise<readonly ResourceRow[]>
  /** With `expectedVersion` (0: must not exist) throws `conflict` when it was changed meanwhile. */
  put(kind: string, name: string, spec: unknown, by: string, expectedVersion?: number): Promise<void>
  delete(kind: string, name: string): Promise<void>
  /** Seals a value under a new id. */
  seal(kind: string, plain: Secret<string>): Promise<SecretReference>
  open(reference: SecretReference): Promise<Secret<string>>
  forget(reference: SecretReference): Promise<void>
  audit(kind: string, actor: string, subject: string, detail: Record<string, unknown>): Promise<void>
}

const versionKey = 'declared-version'
// 20,000 documents, one statement each.
const changeMsMax = 60_000

/** Resources over their table; sealed values and audit events of a change belong to its transaction. */
export function createResources(
  database: Database, secrets: Pick<SecretStore, 'put' | 'open' | 'remove'>, audit: Pick<AuditLog, 'appendIn'>
): Resources {
  let cached: { version: number, declared: Declared } | undefined

  const readDeclared = async (handle: Handle): Promise<Declared> => {
    // The number first: rows that are newer than it are only read once more.
    const version = await declaredVersion(handle)
    if (cached?.version === version) return cached.declared
    const declared = declaredOf(await rowsOf(handle))
    cached = { version, declared }
    return declared
  }

  const latest = shareReadings(() => database.detached(() => database.run(readDeclared)))
  return {
    list: kind => database.run(handle => rowsOf(handle, kind)),
    page: (kind, { after, limit, name }) => database.run(handle => handle.select().from(resource).where(and(
      eq(resource.kind, kind),
      after === undefined ? undefined : sql`${resource.name} collate "C" > ${after}`,
      name === undefined ? undefined : sql`position(${name}::text in ${resource.name}) > 0`
    )).orderBy(sql`${resource.name} collate "C"`).limit(limit)),
    async get(kind, name) {
      const [row] = await database.run(handle => handle.select().from(resource)
        .where(and(eq(resource.kind, kind), eq(resource.name, name))))
      return row
    },
    change: act => database.transaction(async tx => {
      await tx.insert(setting).values({ key: versionKey, value: 0 }).onConflictDoNothing()
      await tx.select().from(setting).where(eq(setting.key, versionKey)).for('update')
      const change = changeIn(tx, secrets, audit)
      const result = await act(change)
      if (change.touched()) {
        await tx.update(setting).set({ value: sql`to_jsonb(${setting.value}::text::bigint + 1)` })
          .where(eq(setting.key, versionKey))
      }
      return result
    }, changeMsMax),
    changed: () => Promise.resolve(),
    declared: () => database.inTransaction() ? database.run(readDeclared) : latest()
  }
}

/**
 * One reading for all who ask in one turn of the event loop, or while another is under way: it begins after
 * each of them has asked, so that nobody is told less than what was true then.
 */
function shareReadings<T>(read: () => Promise<T>): () => Promise<T> {
  let running: Promise<unknown> = Promise.resolve()
  let next: Promise<T> | undefined
  return () => {
    next ??= running.then(() => new Promise<void>(resolve => void setImmediate(resolve))).then(() => {
      next = undefined
      const reading = read()
      running = reading.catch(() => undefined)
      return reading
    })
    return next
  }
}

function changeIn(
  tx: Handle, secrets: Pick<SecretStore, 'put' | 'open' | 'remove'>, audit: Pick<AuditLog, 'appendIn'>
): ResourceChange & { touched(): boolean } {
  let touched = false
  return {
    touched: () => touched,
    list: () => rowsOf(tx),
    async put(kind, name, spec, by, expectedVersion) {
      touched = true
      const written = expectedVersion === undefined || expectedVersion === 0
        ? await insert(tx, { kind, name, spec, updatedBy: by }, expectedVersion === 0)
        : await tx.update(resource)
          .set({ spec, updatedBy: by, updatedAt: sql`now()`, version: expectedVersion + 1 })
          .where(and(eq(resource.kind, kind), eq(resource.name, name), eq(resource.version, expectedVersion)))
          .returning({ name: resource.name })
      if (written.length === 0) throw new SallyportError('conflict', { detail: `${kind}/${name}` })
    },
    async delete(kind, name) {
      touched = true
      await tx.delete(resource).where(and(eq(resource.kind, kind), eq(resource.name, name)))
    },
    seal: async (kind, plain) => ({ secret: await secrets.put(kind, plain, tx) }),
    open: ({ secret }) => secrets.open(secret, { tx }),
    forget: ({ secret }) => secrets.remove(secret, tx),
    audit(kind, actor, subject, detail) {
      audit.appendIn(tx, kind, actor, subject, detail)
      return Promise.resolve()
    }
  }
}

type NewResource = Pick<typeof resource.$inferInsert, 'kind' | 'name' | 'spec' | 'updatedBy'>

function insert(tx: Handle, row: NewResource, mustBeNew: boolean): Promise<readonly { name: string }[]> {
  const insertion = tx.insert(resource).values(row)
  if (mustBeNew) return insertion.onConflictDoNothing().returning({ name: resource.name })
  const { spec, updatedBy } = row
  return insertion.onConflictDoUpdate({
    target: [resource.kind, resource.name],
    set: { spec, updatedBy, updatedAt: sql`now()`, version: sql`"resource"."version" + 1` }
  }).returning({ name: resource.name })
}

async function rowsOf(handle: Handle, kind?: string): Promise<readonly ResourceRow[]> {
  return handle.select().from(resource).where(kind === undefined ? undefined : eq(resource.kind, kind))
    .orderBy(asc(resource.kind), asc(resource.name))
}

async function declaredVersion(handle: Handle): Promise<number> {
  const [row] = await handle.select().from(setting).where(eq(setting.key, versionKey))
  return row === undefined ? 0 : Number(row.value)
}

function declaredOf(rows: readonly ResourceRow[]): Declared {
  // The specs were checked against the same types when they were applied.
  const ofKind = <T extends { name: string }>(kind: string): T[] => rows.filter(row => row.kind === kind)
    .map(row => ({ ...row.spec as T, name: row.name }))
  const byName = <T extends { name: string }>(kind: string): Map<string, T> =>
    new Map(ofKind<T>(kind).map(item => [item.name, item]))
  return {
    targets: byName<Target>('target'),
    credentials: byName<Credential>('credential'),
    users: byName<User>('user'),
    grants: ofKind<GrantRule>('grant'),
    environments: byName<Environment>('environment'),
    secrets: byName<SecretDefinition>('secret'),
    profiles: byName<Profile>('profile'),
    applications: byName<Application>('application')
  }
}
