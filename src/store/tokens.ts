// Bearer tokens of people, and the one-time token of the first start: only their hashes are here. Redeeming
// is one statement that deletes and answers, so that of two callers with the same token exactly one gets
// in. A browser's token is replaced every hour; those of one login are a family and end together.
import type { Role } from '../policy/types.ts'
import type { Database } from './database.ts'
import { and, eq, gt, inArray, isNull, lte, or, sql } from './drizzle.ts'
import { apiToken } from './schema.ts'

export interface TokenRow {
  user: string
  roles: readonly Role[]
  expiresAt: Date
  oneTime: boolean
  /** How and when the person proved who they are; absent where nobody did. */
  login?: { method: string, at: Date } | undefined
}

export interface StoredToken extends TokenRow {
  createdAt: Date
  /** When another took its place. */
  supersededAt: Date | undefined
  family: string
}

/** Tokens by the SHA-256 of their text (hex); expiry by the store's clock. */
export interface Tokens {
  add(hash: string, token: TokenRow): Promise<void>
  /** Undefined when unknown or expired. */
  find(hash: string): Promise<StoredToken | undefined>
  /** Takes a one-time token away: exactly one caller gets it. */
  redeem(hash: string): Promise<TokenRow | undefined>
  /** Puts another in its place, with these roles; false when somebody else did. */
  supersede(hash: string, by: string, roles: readonly Role[]): Promise<boolean>
  /** Ends the login that the token belongs to: with it all that took its place, or whose place it took. */
  remove(hash: string): Promise<void>
  /** Is there a one-time token that has not been used and has not expired? */
  hasOneTime(): Promise<boolean>
  /** Ends every token of a person. */
  removeOf(user: string): Promise<void>
}

/** Tokens over their table. */
export function createTokens(database: Database): Tokens {
  const alive = gt(apiToken.expiresAt, sql`now()`)
  return {
    async add(hash, { user, roles, expiresAt, oneTime, login }) {
      const { method = null, at: authenticatedAt = null } = login ?? {}
      await database.run(async handle => {
        await handle.delete(apiToken).where(lte(apiToken.expiresAt, sql`now()`))
        await handle.insert(apiToken)
          .values({ hash, user, roles, expiresAt, oneTime, method, authenticatedAt, family: hash })
      })
    },
    async find(hash) {
      const [row] = await database.run(handle => handle.select().from(apiToken)
        .where(and(eq(apiToken.hash, hash), alive)))
      return row === undefined ? undefined : asToken(row)
    },
    async redeem(hash) {
      const [row] = await database.run(handle => handle.delete(apiToken)
        .where(and(eq(apiToken.hash, hash), eq(apiToken.oneTime, true), alive)).returning())
      return row === undefined ? undefined : asToken(row)
    },
    supersede: (hash, by, roles) => database.transaction(async tx => {
      const [old] = await tx.update(apiToken).set({ supersededAt: sql`now()` })
        .where(and(eq(apiToken.hash, hash), isNull(apiToken.supersededAt), alive)).returning()
      if (old === undefined) return false
      const { createdAt: _createdAt, supersededAt: _supersededAt, ...same } = old
      await tx.insert(apiToken).values({ ...same, hash: by, roles, family: old.family ?? hash })
      return true
    }),
    async remove(hash) {
      await database.run(handle => {
        const family = handle.select({ family: apiToken.family }).from(apiToken)
          .where(eq(apiToken.hash, hash))
        return handle.delete(apiToken).where(or(eq(apiToken.hash, hash), inArray(apiToken.family, family)))
      })
    },
    async hasOneTime() {
      const rows = await database.run(handle => handle.select({ user: apiToken.user }).from(apiToken)
        .where(and(eq(apiToken.oneTime, true), alive)).limit(1))
      return rows.length > 0
    },
    async removeOf(user) {
      await database.run(handle => handle.delete(apiToken).where(eq(apiToken.user, user)))
    }
  }
}

function asToken(row: typeof apiToken.$inferSelect): StoredToken {
  const { user, roles, expiresAt, oneTime, method, authenticatedAt: at, createdAt, supersededAt } = row
  return {
    user, roles: roles as Role[], expiresAt, oneTime, createdAt, supersededAt: supersededAt ?? undefined,
    family: row.family ?? row.hash,
    ...method === null || at === null ? {} : { login: { method, at } }
  }
}
