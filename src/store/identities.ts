// Who is meant by a subject of an identity provider. Names there can be given to somebody else, subjects can
// not: so the first login binds the two, and from then on the subject decides. Who binds a name holds a lock
// on it: of two subjects that come with one name at one moment one gets it.
import type { AuditLog } from './audit.ts'
import type { Database } from './database.ts'
import { and, eq, ne, sql } from './drizzle.ts'
import { identity } from './schema-logins.ts'

export interface Identities {
  /** The user whom the subject is bound to. */
  get(issuer: string, subject: string): Promise<string | undefined>
  /** Binds them; false when either is bound otherwise. */
  bind(issuer: string, subject: string, user: string): Promise<boolean>
  /** False when the user had none. */
  removeOf(user: string, by: string): Promise<boolean>
}

export function createIdentities(database: Database, audit: Pick<AuditLog, 'appendIn'>): Identities {
  const of = (issuer: string, subject: string) =>
    and(eq(identity.issuer, issuer), eq(identity.subject, subject))
  return {
    async get(issuer, subject) {
      const [row] = await database.run(handle => handle.update(identity).set({ lastUsedAt: sql`now()` })
        .where(of(issuer, subject)).returning({ user: identity.user }))
      return row?.user
    },
    bind: (issuer, subject, user) => database.transaction(async tx => {
      await tx.execute(sql`select pg_advisory_xact_lock(hashtext(${`identity of ${user}`}))`)
      const [other] = await tx.select().from(identity)
        .where(and(eq(identity.issuer, issuer), eq(identity.user, user), ne(identity.subject, subject)))
      if (other !== undefined) return false
      const written = await tx.insert(identity).values({ issuer, subject, user }).onConflictDoNothing()
        .returning({ user: identity.user })
      if (written.length > 0) audit.appendIn(tx, 'identity.bound', user, user, { issuer, subject })
      const [row] = await tx.select().from(identity).where(of(issuer, subject))
      return row?.user === user
    }),
    removeOf: (user, by) => database.transaction(async tx => {
      const gone = await tx.delete(identity).where(eq(identity.user, user)).returning()
      for (const { issuer, subject } of gone) {
        audit.appendIn(tx, 'identity.removed', by, user, { issuer, subject })
      }
      return gone.length > 0
    })
  }
}
