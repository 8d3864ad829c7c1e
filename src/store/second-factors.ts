// Second factors of people: the shared secret, sealed, and the newest time step that was accepted. Accepting
// a step is one statement that holds only while the step is newer than that, so that of two nodes with the
// same code exactly one lets it count, and none does after a restart. What a code is, is not known here.
import type { Secret } from '../secret.ts'
import type { AuditLog } from './audit.ts'
import type { Database } from './database.ts'
import { and, eq, isNotNull, isNull, lt, sql } from './drizzle.ts'
import { secondFactor } from './schema.ts'
import type { SecretStore } from './sealing.ts'

export interface SecondFactorRow {
  user: string
  /** Id of the sealed secret: a later enrolment has another. */
  secret: string
  /** False until the first right code: then nothing is asked for yet. */
  confirmed: boolean
}

export interface SecondFactors {
  get(user: string): Promise<SecondFactorRow | undefined>
  list(): Promise<readonly Pick<SecondFactorRow, 'user' | 'confirmed'>[]>
  open(row: SecondFactorRow): Promise<Secret<string>>
  /** In place of one that was not confirmed; false when there is a confirmed one, which stays. */
  enrol(user: string, secret: Secret<string>, by: string): Promise<boolean>
  /** True for the one caller with the first right code. */
  confirm(row: SecondFactorRow, step: number, by: string): Promise<boolean>
  /** True when the step is newer than every step before: it counts, once. */
  accept(row: SecondFactorRow, step: number): Promise<boolean>
  /** False when there was none. */
  remove(user: string, by: string): Promise<boolean>
}

const secretKind = 'user.second-factor'

/** Second factors over their table; each change has its audit event in its own transaction. */
export function createSecondFactors(
  database: Database, secrets: Pick<SecretStore, 'put' | 'open' | 'remove'>, audit: Pick<AuditLog, 'appendIn'>
): SecondFactors {
  // The enrolment that was looked at, and a step that it has not had.
  const unused = ({ user, secret }: SecondFactorRow, step: number) =>
    and(eq(secondFactor.user, user), eq(secondFactor.secret, secret), lt(secondFactor.lastStep, step))
  return {
    async get(user) {
      const [row] = await database.run(handle =>
        handle.select().from(secondFactor).where(eq(secondFactor.user, user)))
      return row === undefined ? undefined : { user, secret: row.secret, confirmed: row.confirmedAt !== null }
    },
    async list() {
      const rows = await database.run(handle => handle.select().from(secondFactor))
      return rows.map(({ user, confirmedAt }) => ({ user, confirmed: confirmedAt !== null }))
    },
    open: ({ secret }) => secrets.open(secret, { kind: secretKind }),
    enrol: (user, plain, by) => database.transaction(async tx => {
      const [old] = await tx.delete(secondFactor)
        .where(and(eq(secondFactor.user, user), isNull(secondFactor.confirmedAt))).returning()
      if (old !== undefined) await secrets.remove(old.secret, tx)
      const secret = await secrets.put(secretKind, plain, tx)
      // Nothing is written over one that is confirmed, or that somebody else makes at this moment.
      const written = await tx.insert(secondFactor).values({ user, secret }).onConflictDoNothing()
        .returning({ user: secondFactor.user })
      if (written.length === 0) await secrets.remove(secret, tx)
      else audit.appendIn(tx, 'second-factor.enrolled', by, user, {})
      return written.length > 0
    }),
    confirm: (row, step, by) => database.transaction(async tx => {
      const written = await tx.update(secondFactor).set({ lastStep: step, confirmedAt: sql`now()` })
        .where(and(unused(row, step), isNull(secondFactor.confirmedAt)))
        .returning({ user: secondFactor.user })
      if (written.length > 0) audit.appendIn(tx, 'second-factor.confirmed', by, row.user, {})
      return written.length > 0
    }),
    async accept(row, step) {
      const written = await database.run(handle => handle.update(secondFactor).set({ lastStep: step })
        .where(and(unused(row, step), isNotNull(secondFactor.confirmedAt)))
        .returning({ user: secondFactor.user }))
      return written.length > 0
    },
    remove: (user, by) => database.transaction(async tx => {
      const [old] = await tx.delete(secondFactor).where(eq(secondFactor.user, user)).returning()
      if (old === undefined) return false
      await secrets.remove(old.secret, tx)
      audit.appendIn(tx, 'second-factor.removed', by, user, { confirmed: old.confirmedAt !== null })
      return true
    })
  }
}
