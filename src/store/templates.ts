// Templates with all their versions. A text that was saved is never changed: accounts that are open now
// were made with it, and are removed with the version that they pinned (J9, J11). Saving the newest text
// again is no new version.
import { createHash } from 'node:crypto'
import { SallyportError } from '../errors.ts'
import type { Database, Handle } from './database.ts'
import { and, asc, desc, eq, sql } from './drizzle.ts'
import { template } from './schema.ts'

export interface TemplateText {
  /** `plugin/name`. */
  id: string
  plugin: string
  action: 'create' | 'delete' | 'enable' | 'disable'
  body: string
  author: string
  /** Came with the build. */
  shipped: boolean
}

export interface TemplateRow extends TemplateText {
  version: number
  /** Of the body, hex. */
  sha256: string
  active: boolean
  createdAt: Date
}

export interface Templates {
  /** The newest version of each, by id. */
  list(): Promise<readonly TemplateRow[]>
  /** The newest version, or the one asked for. */
  get(id: string, version?: number): Promise<TemplateRow | undefined>
  versions(id: string): Promise<readonly TemplateRow[]>
  /** A new version, unless the newest one has this text; keeps whether the template is active. */
  save(text: TemplateText): Promise<TemplateRow>
  /** Hashes of the newest versions that came with a build: what need not be shipped again. */
  shipped(): Promise<ReadonlySet<string>>
  /**
   * Saves the texts of the build, except where an admin has saved a newer one. Returns the ids that
   * changed.
   */
  ship(texts: readonly TemplateText[]): Promise<readonly string[]>
  /** Offers it, or no longer (J8). Throws `not-found`. */
  setActive(id: string, active: boolean): Promise<void>
}

/** As rows have it. */
export function hashOf(body: string): string {
  return createHash('sha256').update(body).digest('hex')
}

type Newest = Pick<TemplateRow, 'version' | 'sha256' | 'action' | 'shipped' | 'active'>

type NewRow = typeof template.$inferInsert

/** Templates over their table. */
export function createTemplates(database: Database): Templates {
  const newestIn = async (handle: Handle, id: string): Promise<TemplateRow | undefined> => {
    const [row] = await handle.select().from(template).where(eq(template.id, id))
      .orderBy(desc(template.version)).limit(1)
    return row === undefined ? undefined : asTemplate(row)
  }
  const newest = (id: string): Promise<TemplateRow | undefined> =>
    database.run(handle => newestIn(handle, id))

  const save = (text: TemplateText): Promise<TemplateRow> => database.transaction(async tx => {
    // Two admins saving at once get two versions, not an error.
    await tx.execute(sql`select pg_advisory_xact_lock(hashtext(${`template ${text.id}`}))`)
    const latest = await newestIn(tx, text.id)
    const next = nextVersion(text, latest)
    if (latest !== undefined && next === undefined) return latest
    const [saved] = next === undefined ? [] : await tx.insert(template).values(next).returning()
    if (saved === undefined) {
      throw new SallyportError('internal', { detail: `template ${text.id} was not saved` })
    }
    return asTemplate(saved)
  })

  return {
    async list() {
      const rows = await database.run(handle => handle.selectDistinctOn([template.id]).from(template)
        .orderBy(asc(template.id), desc(template.version)))
      return rows.map(asTemplate)
    },
    async get(id, version) {
      if (version === undefined) return newest(id)
      const [row] = await database.run(handle => handle.select().from(template)
        .where(and(eq(template.id, id), eq(template.version, version))))
      return row === undefined ? undefined : asTemplate(row)
    },
    async versions(id) {
      const rows = await database.run(handle => handle.select().from(template).where(eq(template.id, id))
        .orderBy(asc(template.version)))
      return rows.map(asTemplate)
    },
    save,
    async shipped() {
      const newest = await database.run(newestOfAll)
      return new Set([...newest.values()].filter(row => row.shipped).map(({ sha256 }) => sha256))
    },
    async ship(texts) {
      if (texts.length === 0) return []
      const missing = new Set(outdated(texts, await database.run(newestOfAll)).map(({ id }) => id))
      if (missing.size === 0) return []
      return database.transaction(async tx => {
        // In one order, so that nodes which start together wait for each other.
        const names = [...missing].sort().map(id => sql`(${`template ${id}`}::text)`)
        await tx.execute(sql`select pg_advisory_xact_lock(hashtext(name))
          from (values ${sql.join(names, sql`, `)}) as names (name)`)
        const rows = outdated(texts.filter(({ id }) => missing.has(id)), await newestOfAll(tx))
        if (rows.length > 0) await tx.insert(template).values(rows)
        return rows.map(({ id }) => id)
      })
    },
    async setActive(id, active) {
      const rows = await database.run(handle => handle.update(template).set({ active })
        .where(eq(template.id, id)).returning({ version: template.version }))
      if (rows.length === 0) throw new SallyportError('not-found', { detail: `template ${id}` })
    }
  }
}

async function newestOfAll(handle: Handle): Promise<ReadonlyMap<string, Newest>> {
  const { id, version, sha256, action, shipped, active } = template
  const rows = await handle.selectDistinctOn([id], { id, version, sha256, action, shipped, active })
    .from(template).orderBy(asc(id), desc(version))
  return new Map(rows.map(row => [row.id, { ...row, action: row.action as TemplateText['action'] }]))
}

/** The row of a new version; undefined when the newest one has this text. */
function nextVersion(text: TemplateText, latest: Newest | undefined): NewRow | undefined {
  const sha256 = hashOf(text.body)
  if (latest?.sha256 === sha256 && latest.action === text.action) return undefined
  return { ...text, version: (latest?.version ?? 0) + 1, sha256, active: latest?.active ?? true }
}

/** The new versions that these texts of the build are; what an admin has saved stays the newest. */
function outdated(texts: readonly TemplateText[], newest: ReadonlyMap<string, Newest>): NewRow[] {
  return texts.flatMap(text => {
    const latest = newest.get(text.id)
    if (latest?.shipped === false) return []
    return nextVersion({ ...text, shipped: true }, latest) ?? []
  })
}

function asTemplate(row: typeof template.$inferSelect): TemplateRow {
  return { ...row, action: row.action as TemplateText['action'] }
}
