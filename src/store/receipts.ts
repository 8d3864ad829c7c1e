// Removal receipts: the signed proof that an account is gone (J15). The ledger writes them with the removal
// itself; here they are found again, by session and by account.
import type { Database, Handle } from './database.ts'
import { asc, desc, eq, inArray } from './drizzle.ts'
import { receipt } from './schema.ts'

export type ReceiptRow = Omit<typeof receipt.$inferSelect, 'body'> & { body: Record<string, unknown> }
export type NewReceipt = Omit<ReceiptRow, 'createdAt'>

export interface Receipts {
  /** Inside of a transaction when `tx` is given; the same id again changes nothing. */
  put(row: NewReceipt, tx?: Handle): Promise<void>
  get(id: string): Promise<ReceiptRow | undefined>
  /** Oldest first: a removal that took several attempts has several. */
  ofSession(session: string): Promise<readonly ReceiptRow[]>
  ofAccount(account: string): Promise<readonly ReceiptRow[]>
  /** The newest receipt of each session that has one. */
  newestOf(sessions: readonly string[]): Promise<ReadonlyMap<string, ReceiptRow>>
}

/** Receipts over their table. */
export function createReceipts(database: Database): Receipts {
  return {
    async put(row, tx) {
      const insert = async (handle: Handle): Promise<void> => {
        await handle.insert(receipt).values(row).onConflictDoNothing()
      }
      await (tx === undefined ? database.run(insert) : insert(tx))
    },
    async get(id) {
      const [row] = await database.run(handle => handle.select().from(receipt).where(eq(receipt.id, id)))
      return row === undefined ? undefined : asReceipt(row)
    },
    async ofSession(session) {
      const rows = await database.run(handle => handle.select().from(receipt)
        .where(eq(receipt.session, session)).orderBy(asc(receipt.createdAt)))
      return rows.map(asReceipt)
    },
    async ofAccount(account) {
      const rows = await database.run(handle => handle.select().from(receipt)
        .where(eq(receipt.account, account)).orderBy(asc(receipt.createdAt)))
      return rows.map(asReceipt)
    },
    async newestOf(sessions) {
      if (sessions.length === 0) return new Map()
      const rows = await database.run(handle => handle.selectDistinctOn([receipt.session]).from(receipt)
        .where(inArray(receipt.session, [...sessions])).orderBy(receipt.session, desc(receipt.createdAt)))
      return new Map(rows.map(row => [row.session ?? '', asReceipt(row)]))
    }
  }
}

function asReceipt(row: typeof receipt.$inferSelect): ReceiptRow {
  return { ...row, body: row.body as Record<string, unknown> }
}
