// Keys that clients give to their requests so that a repeat does not issue twice. A key is written down
// before anything is done for it: of two requests at the same moment one does it, and after a crash in
// between nobody does it again, because nobody knows whether it was done. The answer may hold secrets that
// are shown once; it is kept sealed for as long as a client repeats a request whose answer got lost, and
// forgotten then.
import type { Secret } from '../secret.ts'
import type { Database, Handle } from './database.ts'
import { and, eq, sql } from './drizzle.ts'
import { SallyportError } from '../errors.ts'
import { idempotencyKey } from './schema.ts'
import type { SecretStore } from './sealing.ts'

export type KeyState =
  /** Nobody did it: do it now, and say how it ended. */
  | { state: 'new' }
  /** The key was used for something else. */
  | { state: 'other' }
  | { state: 'running' }
  /** It was begun, and nobody can say how it ended. */
  | { state: 'unknown' }
  /** `answer` is there for `answerSeconds`. */
  | { state: 'done', said: string, answer: Secret<string> | undefined }

export interface IdempotencyKeys {
  /** Throws `limit-reached`, `store-unavailable`. */
  claim(principal: string, key: string, request: string): Promise<KeyState>
  /** `said`: what came of it, in words without secrets. */
  done(principal: string, key: string, said: string, answer: Secret<string>): Promise<void>
  /** Nothing came of it: the key may be used again. */
  free(principal: string, key: string): Promise<void>
  /** Something may have come of it. */
  doubt(principal: string, key: string): Promise<void>
  /** Forgets answers and keys whose time is over. */
  sweep(): Promise<void>
}

/** A repeat gets the same answer for so long: a client that lost one asks again in seconds. */
export const answerSeconds = 600
/** … and is refused for so long, with the name of what was issued. */
export const keySeconds = 86_400
/** Keys of one principal at once: a batch job that makes a lease for each of its parts. */
export const keysPerPrincipalMax = 10_000
const sweepRowsMax = 500
const answerKind = 'answer'

const older = (column: unknown, seconds: number) =>
  sql`${column} < now() - ${seconds}::float8 * interval '1 second'`

export function createIdempotencyKeys(
  database: Database, secrets: Pick<SecretStore, 'put' | 'open' | 'remove'>, node: string, boot: () => string
): IdempotencyKeys {
  const own = (principal: string, key: string) =>
    and(eq(idempotencyKey.principal, principal), eq(idempotencyKey.key, key))
  const mark = async (principal: string, key: string, state: 'unknown'): Promise<void> => {
    await database.run(handle => handle.update(idempotencyKey).set({ state }).where(own(principal, key)))
  }
  return {
    async claim(principal, key, request) {
      const row = await database.transaction(async tx => {
        await forget(tx, secrets, sql`principal = ${principal} and key = ${key}
          and ${older(idempotencyKey.createdAt, keySeconds)}`)
        const made = await tx.insert(idempotencyKey)
          .values({ principal, key, request, state: 'running', node, boot: boot() }).onConflictDoNothing()
          .returning({ key: idempotencyKey.key })
        if (made.length === 0) return existing(tx, principal, key)
        await admit(tx, principal)
        return undefined
      })
      if (row === undefined) return { state: 'new' }
      if (row.request !== request) return { state: 'other' }
      if (row.state === 'running') return { state: row.alive ? 'running' : 'unknown' }
      if (row.state === 'unknown') return { state: 'unknown' }
      const { said, answer } = row
      const opened = answer === null ? undefined : await secrets.open(answer, { kind: answerKind })
      return { state: 'done', said: said ?? '', answer: opened }
    },
    done: (principal, key, said, plain) => database.transaction(async tx => {
      const answer = await secrets.put(answerKind, plain, tx)
      await tx.update(idempotencyKey).set({ state: 'done', said, answer, answeredAt: sql`now()` })
        .where(own(principal, key))
    }),
    async free(principal, key) {
      await database.run(handle => handle.delete(idempotencyKey).where(own(principal, key)))
    },
    doubt: (principal, key) => mark(principal, key, 'unknown'),
    sweep: () => database.transaction(async tx => {
      await forget(tx, secrets, older(idempotencyKey.createdAt, keySeconds))
      const rows = await tx.execute<{ principal: string, key: string, answer: string }>(sql`
        select principal, key, answer from idempotency_key where answer is not null
          and ${older(idempotencyKey.answeredAt, answerSeconds)}
        limit ${sweepRowsMax}::int for update skip locked`)
      for (const { principal, key, answer } of rows) {
        await tx.update(idempotencyKey).set({ answer: null }).where(own(principal, key))
        await secrets.remove(answer, tx)
      }
    })
  }
}

/** The row of a key that was there already; one whose process is over is not alive. */
async function existing(tx: Handle, principal: string, key: string) {
  const [row] = await tx.execute<{
    request: string, state: 'running' | 'done' | 'unknown', said: string | null, answer: string | null,
    alive: boolean
  }>(sql`
    select k.request, k.state, k.said,
      case when ${older(sql`k.answered_at`, answerSeconds)} then null else k.answer end as answer,
      exists (select from node n where n.id = k.node and n.boot = k.boot) as alive
    from idempotency_key k where k.principal = ${principal} and k.key = ${key}`)
  if (row !== undefined) return row
  // It was freed between the two statements: its owner's request was refused.
  throw new SallyportError('still-running')
}

async function admit(tx: Handle, principal: string): Promise<void> {
  const [row] = await tx.execute<{ keys: number }>(sql`
    select count(*)::int as keys from (select from idempotency_key where principal = ${principal}
      limit ${keysPerPrincipalMax + 1}::int) as k`)
  if (Number(row?.keys) <= keysPerPrincipalMax) return
  const detail = `${principal} has ${keysPerPrincipalMax} idempotency keys of one day`
  throw new SallyportError('limit-reached', { detail })
}

async function forget(
  tx: Handle, secrets: Pick<SecretStore, 'remove'>, which: ReturnType<typeof sql>
): Promise<void> {
  const rows = await tx.execute<{ answer: string | null }>(sql`
    delete from idempotency_key where (principal, key) in (
      select principal, key from idempotency_key where ${which} limit ${sweepRowsMax}::int
      for update skip locked
    ) returning answer`)
  for (const { answer } of rows) if (answer !== null) await secrets.remove(answer, tx)
}
