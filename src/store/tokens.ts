// Bearer tokens of people, and the one-time token of the first start: only their hashes are here. Redeeming
// is one statement that deletes and answers, so that of two callers with the same token exactly one gets
// in.
import type { Role } from '../policy/types.ts'
import type { Database } from './database.ts'
import { and, eq, gt, lte, sql } from './drizzle.ts'
import { apiToken } from './schema.ts'

export interface TokenRow {
  user: string
  roles: readonly Role[]
  expiresAt: Date
  oneTime: boolean
}

/** Tokens by the SHA-256 of their text (hex); expiry by the store's clock. */
export interface Tokens {
  add(hash: string, token: TokenRow): Promise<void>
  /** Undefined when unknown or expired. */
  find(hash: string): Promise<TokenRow | undefined>
  /** Takes a one-time token away: exactly one caller gets it. */
  redeem(hash: string): Promise<TokenRow | undefined>
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
    async add(hash, { user, roles, expiresAt, oneTime }) {
      await database.run(async handle => {
        await handle.delete(apiToken).where(lte(apiToken.expiresAt, sql`now()`))
        await handle.insert(apiToken).values({ hash, user, roles, expiresAt, oneTime })
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
    async remove(hash) {
      await database.run(handle => handle.delete(apiToken).where(eq(apiToken.hash, hash)))
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

function asToken({ user, roles, expiresAt, oneTime }: typeof apiToken.$inferSelect): TokenRow {
  return { user, roles: roles as Role[], expiresAt, oneTime }
}
