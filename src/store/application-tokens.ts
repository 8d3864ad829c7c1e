// Bearer tokens of applications: only their hashes are here, each with its end by the store's clock. Rotating
// is one transaction, new token in and old one shortened, so that there is no moment without a valid one and
// none with an old one that lives on. Every change has its audit event with it.
import { SallyportError } from '../errors.ts'
import type { AuditLog } from './audit.ts'
import type { Database, Handle } from './database.ts'
import { and, asc, eq, gt, sql } from './drizzle.ts'
import { inSeconds } from './instants.ts'
import { applicationToken } from './schema.ts'

export interface ApplicationTokenRow {
  id: string
  application: string
  createdAt: Date
  createdBy: string
  expiresAt: Date
  lastUsedAt: Date | null
}

export interface NewApplicationToken {
  id: string
  hash: string
  application: string
  ttlSeconds: number
}

export interface ApplicationTokens {
  /** Throws `limit-reached`. */
  add(token: NewApplicationToken, by: string): Promise<ApplicationTokenRow>
  /** In place of another, which ends after `overlapSeconds`; undefined when that one is gone or expired. */
  rotate(token: NewApplicationToken, old: string, overlapSeconds: number, by: string):
    Promise<ApplicationTokenRow | undefined>
  /** Whose token it is, and that it was used; undefined when unknown or expired. */
  find(hash: string): Promise<ApplicationTokenRow | undefined>
  /** Those that are valid, oldest first. */
  list(application: string): Promise<readonly ApplicationTokenRow[]>
  /** False when there was none. */
  remove(application: string, id: string, by: string): Promise<boolean>
  removeOf(application: string): Promise<void>
}

// How exact "last used" is: a token that is used all day is not written at every request.
const usedMinutes = 5
/** Valid at once: one for each place that runs it, and those that are being replaced. */
export const tokensPerApplicationMax = 200

/** Tokens of applications over their table. */
export function createApplicationTokens(
  database: Database, audit: Pick<AuditLog, 'appendIn'>
): ApplicationTokens {
  const alive = gt(applicationToken.expiresAt, sql`now()`)
  const rowOf = ({ id, hash, application, ttlSeconds }: NewApplicationToken, createdBy: string) =>
    ({ id, hash, application, createdBy, expiresAt: inSeconds(ttlSeconds) })
  const expectRoom = async (tx: Handle, application: string): Promise<void> => {
    const valid = await tx.$count(applicationToken, and(eq(applicationToken.application, application), alive))
    if (valid < tokensPerApplicationMax) return
    const detail = `${application} has ${valid} valid tokens: end those that nobody needs`
    throw new SallyportError('limit-reached', { detail })
  }
  return {
    add: (token, by) => database.transaction(async tx => {
      await expectRoom(tx, token.application)
      const [row] = await tx.insert(applicationToken).values(rowOf(token, by)).returning()
      audit.appendIn(tx, 'application.token-made', by, token.application, { token: token.id })
      return asRow(row!)
    }),
    rotate: (token, old, overlapSeconds, by) => database.transaction(async tx => {
      const shortened = await tx.update(applicationToken)
        .set({ expiresAt: sql`least(expires_at, ${inSeconds(overlapSeconds)})` })
        .where(and(eq(applicationToken.id, old), eq(applicationToken.application, token.application), alive))
        .returning({ id: applicationToken.id })
      if (shortened.length === 0) return undefined
      await expectRoom(tx, token.application)
      const [row] = await tx.insert(applicationToken).values(rowOf(token, by)).returning()
      const detail = { token: token.id, old, overlapSeconds }
      audit.appendIn(tx, 'application.token-rotated', by, token.application, detail)
      return asRow(row!)
    }),
    async find(hash) {
      const [row] = await database.run(handle => handle.select().from(applicationToken)
        .where(and(eq(applicationToken.hash, hash), alive)))
      if (row === undefined) return undefined
      await database.run(handle => handle.update(applicationToken).set({ lastUsedAt: sql`now()` })
        .where(and(eq(applicationToken.id, row.id), sql`(last_used_at is null
          or last_used_at < now() - ${usedMinutes}::float8 * interval '1 minute')`)))
      return asRow(row)
    },
    async list(application) {
      const rows = await database.run(handle => handle.select().from(applicationToken)
        .where(and(eq(applicationToken.application, application), alive))
        .orderBy(asc(applicationToken.createdAt), asc(applicationToken.id)))
      return rows.map(asRow)
    },
    remove: (application, id, by) => database.transaction(async tx => {
      const gone = await tx.delete(applicationToken)
        .where(and(eq(applicationToken.id, id), eq(applicationToken.application, application)))
        .returning({ id: applicationToken.id })
      if (gone.length > 0) audit.appendIn(tx, 'application.token-removed', by, application, { token: id })
      return gone.length > 0
    }),
    removeOf: application => database.run(async handle => {
      await handle.delete(applicationToken).where(eq(applicationToken.application, application))
    })
  }
}

function asRow(row: typeof applicationToken.$inferSelect): ApplicationTokenRow {
  const { id, application, createdAt, createdBy, expiresAt, lastUsedAt } = row
  return { id, application, createdAt, createdBy, expiresAt, lastUsedAt }
}
