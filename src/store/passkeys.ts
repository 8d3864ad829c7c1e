// Passkeys of people: the public halves, how often each signed, and which challenges were answered. Each
// change has its audit event in its own transaction; that a signature counts is one statement, so that of two
// answers to the same challenge, or with the same count, one gets in, on whatever nodes they arrive.
import type { AuditLog } from './audit.ts'
import type { Database } from './database.ts'
import { and, asc, count, eq, lt, lte, sql } from './drizzle.ts'
import { passkey, spentChallenge } from './schema-logins.ts'

/** A person has a few; without an end a stolen login could fill the store. */
export const passkeysPerUserMax = 20

export interface PasskeyRow {
  /** As the authenticator calls it, in base64url. */
  id: string
  user: string
  name: string
  /** COSE, in base64url. */
  publicKey: string
  counter: number
  backedUp: boolean
  createdAt: Date
  lastUsedAt: Date | null
}

export type NewPasskey = Omit<PasskeyRow, 'createdAt' | 'lastUsedAt'>

export interface Passkeys {
  get(id: string): Promise<PasskeyRow | undefined>
  list(user: string): Promise<readonly PasskeyRow[]>
  /** Undefined when there is one of that id, or the person has too many. */
  add(row: NewPasskey): Promise<PasskeyRow | undefined>
  /** False when it signed as often before: somebody has a copy. */
  used(id: string, counter: number): Promise<boolean>
  remove(user: string, id: string, by: string): Promise<boolean>
  removeOf(user: string, by: string): Promise<void>
  /** True for the one who answers a challenge first. */
  spend(challenge: { id: string, expiresAt: Date }): Promise<boolean>
}

export function createPasskeys(database: Database, audit: Pick<AuditLog, 'appendIn'>): Passkeys {
  return {
    async get(id) {
      const [row] = await database.run(handle => handle.select().from(passkey).where(eq(passkey.id, id)))
      return row === undefined ? undefined : asPasskey(row)
    },
    async list(user) {
      const rows = await database.run(handle => handle.select().from(passkey).where(eq(passkey.user, user))
        .orderBy(asc(passkey.createdAt), asc(passkey.id)))
      return rows.map(asPasskey)
    },
    add: row => database.transaction(async tx => {
      const [had] = await tx.select({ count: count() }).from(passkey).where(eq(passkey.user, row.user))
      if ((had?.count ?? 0) >= passkeysPerUserMax) return undefined
      const [added] = await tx.insert(passkey).values({ ...row, transports: [] }).onConflictDoNothing()
        .returning()
      if (added === undefined) return undefined
      audit.appendIn(tx, 'passkey.registered', row.user, row.user, { passkey: row.id, name: row.name })
      return asPasskey(added)
    }),
    async used(id, counter) {
      // Most keep no count and say 0 for ever.
      const isNewer = counter === 0 ? eq(passkey.counter, 0) : lt(passkey.counter, counter)
      const written = await database.run(handle => handle.update(passkey)
        .set({ counter, lastUsedAt: sql`now()` }).where(and(eq(passkey.id, id), isNewer))
        .returning({ id: passkey.id }))
      return written.length > 0
    },
    remove: (user, id, by) => database.transaction(async tx => {
      const [gone] = await tx.delete(passkey).where(and(eq(passkey.user, user), eq(passkey.id, id)))
        .returning()
      if (gone === undefined) return false
      audit.appendIn(tx, 'passkey.removed', by, user, { passkey: id, name: gone.name })
      return true
    }),
    removeOf: (user, by) => database.transaction(async tx => {
      for (const { id, name } of await tx.delete(passkey).where(eq(passkey.user, user)).returning()) {
        audit.appendIn(tx, 'passkey.removed', by, user, { passkey: id, name })
      }
    }),
    async spend({ id, expiresAt }) {
      const written = await database.run(async handle => {
        await handle.delete(spentChallenge).where(lte(spentChallenge.expiresAt, sql`now()`))
        return handle.insert(spentChallenge).values({ id, expiresAt }).onConflictDoNothing()
          .returning({ id: spentChallenge.id })
      })
      return written.length > 0
    }
  }
}

function asPasskey({ transports: _, ...row }: typeof passkey.$inferSelect): PasskeyRow {
  return row
}
