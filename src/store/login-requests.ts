// Logins that wait for a person at a browser: rows that a program polls by its secret's hash and a person
// finds by a short code. Deciding is one statement on what is pending, redeeming one that deletes: of two of
// either at one moment, on whatever nodes, one gets through. Time is the store's.
import type { AuditLog } from './audit.ts'
import type { Database } from './database.ts'
import { and, count, eq, gt, lte, sql } from './drizzle.ts'
import { loginRequest } from './schema-logins.ts'

/** All that wait at once: people, so a flood of them is an attack; those who wait already stay. */
export const loginRequestsMax = 10_000
/** A program that asks too often has to wait longer each time (RFC 8628). */
const slowerSeconds = 5

export interface LoginRequestRow {
  code: string
  /** `token`: whoever confirms is logged in. `session`: this user confirms a connection. */
  kind: 'token' | 'session'
  user: string | null
  address: string
  what: string
  state: 'pending' | 'approved' | 'denied'
  decidedBy: string | null
  expiresAt: Date
}

export type NewLoginRequest = Pick<LoginRequestRow, 'code' | 'kind' | 'user' | 'address' | 'what'> & {
  /** SHA-256 (hex) of what the program holds. */
  hash: string
  ttlSeconds: number
  intervalSeconds: number
}

export interface LoginRequests {
  /** Undefined when too many wait, or the code is in use. */
  add(request: NewLoginRequest): Promise<Date | undefined>
  /** What has become of it; undefined when it is unknown, used or too old. `isHasty`: asked too soon. */
  look(hash: string): Promise<LoginRequestRow & { isHasty: boolean } | undefined>
  /** Uses an approved one up; true for one caller. */
  take(hash: string): Promise<boolean>
  /** One that is pending. */
  find(code: string): Promise<LoginRequestRow | undefined>
  /** False when it is not pending any more. */
  decide(code: string, state: 'approved' | 'denied', by: string): Promise<boolean>
  /** Of somebody who is no user any more. */
  removeOf(user: string): Promise<void>
}

export function createLoginRequests(
  database: Database, audit: Pick<AuditLog, 'appendIn'>
): LoginRequests {
  const alive = gt(loginRequest.expiresAt, sql`now()`)
  return {
    add: ({ ttlSeconds, ...row }) => database.transaction(async tx => {
      await tx.delete(loginRequest).where(lte(loginRequest.expiresAt, sql`now()`))
      const [all] = await tx.select({ count: count() }).from(loginRequest)
      if ((all?.count ?? 0) >= loginRequestsMax) return undefined
      const expiresAt = sql`now() + ${ttlSeconds} * interval '1 second'`
      const [added] = await tx.insert(loginRequest).values({ ...row, state: 'pending', expiresAt })
        .onConflictDoNothing().returning()
      return added?.expiresAt
    }),
    look: hash => database.transaction(async tx => {
      const [row] = await tx.select({
        row: loginRequest,
        isHasty: sql<boolean>`coalesce(polled_at > now() - interval_seconds * interval '1 second', false)`
      }).from(loginRequest).where(and(eq(loginRequest.hash, hash), alive)).for('update')
      if (row === undefined) return undefined
      const { isHasty } = row
      await tx.update(loginRequest).set({
        polledAt: sql`now()`, intervalSeconds: row.row.intervalSeconds + (isHasty ? slowerSeconds : 0)
      }).where(eq(loginRequest.hash, hash))
      return { ...asRow(row.row), isHasty }
    }),
    async take(hash) {
      const taken = await database.run(handle => handle.delete(loginRequest)
        .where(and(eq(loginRequest.hash, hash), eq(loginRequest.state, 'approved'), alive))
        .returning({ code: loginRequest.code }))
      return taken.length > 0
    },
    async find(code) {
      const [row] = await database.run(handle => handle.select().from(loginRequest)
        .where(and(eq(loginRequest.code, code), eq(loginRequest.state, 'pending'), alive)))
      return row === undefined ? undefined : asRow(row)
    },
    decide: (code, state, by) => database.transaction(async tx => {
      const [row] = await tx.update(loginRequest).set({ state, decidedBy: by })
        .where(and(eq(loginRequest.code, code), eq(loginRequest.state, 'pending'), alive)).returning()
      if (row === undefined) return false
      const { kind, address, what } = row
      audit.appendIn(tx, `login-request.${state}`, by, address, { kind, what })
      return true
    }),
    async removeOf(user) {
      await database.run(async handle => {
        await handle.delete(loginRequest).where(eq(loginRequest.user, user))
        await handle.delete(loginRequest).where(eq(loginRequest.decidedBy, user))
      })
    }
  }
}

function asRow(row: typeof loginRequest.$inferSelect): LoginRequestRow {
  const { code, user, address, what, decidedBy, expiresAt } = row
  const [kind, state] = [row.kind as LoginRequestRow['kind'], row.state as LoginRequestRow['state']]
  return { code, kind, user, address, what, state, decidedBy, expiresAt }
}
