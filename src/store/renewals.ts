// Credentials of secrets that renew themselves: which version is current, which are still valid beside it,
// who has read which. A version is begun by inserting its row, so that of two nodes that find a renewal due
// exactly one makes it; it becomes current in the transaction that retires the one before, and that seals its
// values. Ages and ends are the store's clock.
import type { Secret } from '../secret.ts'
import type { AuditLog } from './audit.ts'
import type { Database } from './database.ts'
import { and, asc, eq, inArray, sql } from './drizzle.ts'
import { credentialReader, renewedCredential } from './schema.ts'
import type { SecretStore } from './sealing.ts'

export interface RenewedRow {
  path: string
  version: number
  state: 'pending' | 'current' | 'retiring' | 'retired' | 'failed'
  lease: string | null
  secret: string | null
  createdAt: Date
  retireAt: Date | null
  retiredAt: Date | null
  alarmedAt: Date | null
  ageSeconds: number
  /** Its overlap is over. */
  overdue: boolean
}

export interface Renewals {
  /** Pending, current and retiring ones of all secrets. */
  alive(): Promise<readonly RenewedRow[]>
  /** All of one secret, oldest first. */
  list(path: string): Promise<readonly RenewedRow[]>
  /**
   * The number of a new version, after the current one that was seen (0: none); undefined when somebody else
   * is at it or was faster.
   */
  begin(path: string, seen: number): Promise<number | undefined>
  /** The new version is what readers get; the one before is valid for the overlap. */
  current(path: string, version: number, lease: string, values: Secret<string>, overlapSeconds: number):
    Promise<void>
  failed(path: string, version: number): Promise<void>
  /** Its values are worthless, and forgotten. */
  retired(row: Pick<RenewedRow, 'path' | 'version' | 'secret'>): Promise<void>
  /** True for the first who says so. */
  alarmed(path: string, version: number): Promise<boolean>
  open(row: Pick<RenewedRow, 'secret'>): Promise<Secret<string>>
  noteReader(path: string, reader: string, version: number): Promise<void>
  /** Who has read this version and none after it. */
  readersOf(path: string, version: number): Promise<readonly string[]>
}

const sealedKind = 'secret.renewed'

/** Renewed credentials over their tables. */
export function createRenewals(
  database: Database, secrets: Pick<SecretStore, 'put' | 'open' | 'remove'>, audit: Pick<AuditLog, 'appendIn'>
): Renewals {
  const one = (path: string, version: number) =>
    and(eq(renewedCredential.path, path), eq(renewedCredential.version, version))
  const columns = {
    path: renewedCredential.path, version: renewedCredential.version, state: renewedCredential.state,
    lease: renewedCredential.lease, secret: renewedCredential.secret, createdAt: renewedCredential.createdAt,
    retireAt: renewedCredential.retireAt, retiredAt: renewedCredential.retiredAt,
    alarmedAt: renewedCredential.alarmedAt,
    ageSeconds: sql<number>`extract(epoch from now() - ${renewedCredential.createdAt})::float8`,
    overdue: sql<boolean>`coalesce(${renewedCredential.retireAt} <= now(), false)`
  }
  const order = [asc(renewedCredential.path), asc(renewedCredential.version)] as const
  return {
    alive: () => database.run(handle => handle.select(columns).from(renewedCredential)
      .where(inArray(renewedCredential.state, ['pending', 'current', 'retiring'])).orderBy(...order)),
    list: path => database.run(handle => handle.select(columns).from(renewedCredential)
      .where(eq(renewedCredential.path, path)).orderBy(...order)),
    async begin(path, seen) {
      // Two that see the same rows draw the same number; who comes later sees what the first one wrote.
      const [row] = await database.run(handle => handle.execute<{ version: number }>(sql`
        insert into renewed_credential (path, version, state)
        select ${path}, coalesce(max(version), 0) + 1, 'pending' from renewed_credential
          where path = ${path} having not coalesce(bool_or(
            state = 'pending' or (state = 'current' and version > ${seen}::int)), false)
        on conflict do nothing returning version`))
      return row?.version
    },
    current: (path, version, lease, values, overlapSeconds) => database.transaction(async tx => {
      await tx.update(renewedCredential)
        .set({ state: 'retiring', retireAt: sql`now() + ${overlapSeconds}::float8 * interval '1 second'` })
        .where(and(eq(renewedCredential.path, path), eq(renewedCredential.state, 'current')))
      const secret = await secrets.put(sealedKind, values, tx)
      await tx.update(renewedCredential).set({ state: 'current', lease, secret, createdAt: sql`now()` })
        .where(one(path, version))
      audit.appendIn(tx, 'secret.renewed', 'system', path, { version, lease, overlapSeconds })
    }),
    failed: (path, version) => database.run(async handle => {
      await handle.update(renewedCredential).set({ state: 'failed', retiredAt: sql`now()` })
        .where(and(one(path, version), eq(renewedCredential.state, 'pending')))
    }),
    retired: ({ path, version, secret }) => database.transaction(async tx => {
      const gone = await tx.update(renewedCredential)
        .set({ state: 'retired', secret: null, retiredAt: sql`now()` })
        .where(and(one(path, version), inArray(renewedCredential.state, ['current', 'retiring'])))
        .returning({ version: renewedCredential.version })
      if (gone.length === 0) return
      if (secret !== null) await secrets.remove(secret, tx)
      audit.appendIn(tx, 'secret.retired', 'system', path, { version })
    }),
    async alarmed(path, version) {
      const first = await database.run(handle => handle.update(renewedCredential)
        .set({ alarmedAt: sql`now()` })
        .where(and(one(path, version), sql`alarmed_at is null`))
        .returning({ version: renewedCredential.version }))
      return first.length > 0
    },
    open: ({ secret }) => secrets.open(secret ?? '', { kind: sealedKind }),
    noteReader: (path, reader, version) => database.run(async handle => {
      const readAt = sql`now()`
      await handle.insert(credentialReader).values({ path, reader, version }).onConflictDoUpdate({
        target: [credentialReader.path, credentialReader.reader],
        set: { version: sql`greatest(${credentialReader.version}, ${version}::int)`, readAt }
      })
    }),
    async readersOf(path, version) {
      const rows = await database.run(handle => handle.select().from(credentialReader)
        .where(and(eq(credentialReader.path, path), eq(credentialReader.version, version)))
        .orderBy(asc(credentialReader.reader)))
      return rows.map(({ reader }) => reader)
    }
  }
}
