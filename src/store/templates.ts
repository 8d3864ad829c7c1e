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
  /**
   * Saves the texts of the build, except where an admin has saved a newer one. Returns the ids that
   * changed.
   */
  ship(texts: readonly TemplateText[]): Promise<readonly string[]>
  /** Offers it, or no longer (J8). Throws `not-found`. */
  setActive(id: string, active: boolean): Promise<void>
}

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
    const sha256 = createHash('sha256').update(text.body).digest('hex')
    const latest = await newestIn(tx, text.id)
    if (latest?.sha256 === sha256 && latest.action === text.action) return latest
    const row = { ...text, version: (latest?.version ?? 0) + 1, sha256, active: latest?.active ?? true }
    const [saved] = await tx.insert(template).values(row).returning()
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
    async ship(texts) {
      const changed: string[] = []
      for (const text of texts) {
        const before = await newest(text.id)
        if (before !== undefined && !before.shipped) continue
        const after = await save({ ...text, shipped: true })
        if (after.version !== before?.version) changed.push(text.id)
      }
      return changed
    },
    async setActive(id, active) {
      const rows = await database.run(handle => handle.update(template).set({ active })
        .where(eq(template.id, id)).returning({ version: template.version }))
      if (rows.length === 0) throw new SallyportError('not-found', { detail: `template ${id}` })
    }
  }
}

function asTemplate(row: typeof template.$inferSelect): TemplateRow {
  return { ...row, action: row.action as TemplateText['action'] }
}
