// The growing end of this boot's chain. A transaction takes its place as its very last step before COMMIT
// and holds it until the outcome is known, so that a rolled-back one leaves no gap. The connection always
// comes before the chain's turn: the other way round, the one connection of the embedded store would
// deadlock. When the answer to a COMMIT is lost the head is unknown, and is read from the store before the
// next row.
import { genesisHash, linkRows } from './audit-chain.ts'
import type { AuditEntry, AuditRow, Head } from './audit-chain.ts'
import type { Database, Handle, LastStep } from './database.ts'
import type { SendLast } from './operation.ts'
import { and, eq } from './drizzle.ts'
import { auditChain, auditEvent } from './schema.ts'

export interface ChainHead {
  /**
   * A last step that writes the entries as the next rows; `linked` hears which rows they would be. Entries
   * may be added to the list until the transaction reaches the step.
   */
  step(entries: readonly AuditEntry[], linked?: (rows: readonly AuditRow[]) => void): LastStep
  /** The last row known to be durable. */
  durable(): Head
}

/** The head of a chain that begins now; `happened` is told how many rows became durable. */
export function createChainHead(chain: string, happened: (events: number) => void): ChainHead {
  const turn = createTurn()
  let head: Head | undefined = { chain, seq: 0, hash: genesisHash }
  let durable: Head = head

  return {
    durable: () => durable,
    step: (entries, linked) => async (tx, send) => {
      const leave = await turn()
      try {
        head ??= await readHead(tx, chain)
        const rows = linkRows(head, entries)
        linked?.(rows)
        insertRows(send, rows)
        return outcome => {
          const last = rows.at(-1)
          if (outcome !== 'committed') head = undefined
          if (outcome === 'committed' && last !== undefined) {
            head = durable = { chain, seq: last.seq, hash: last.hash }
            happened(rows.length)
          }
          leave()
        }
      } catch (thrown) {
        head = undefined
        leave()
        throw thrown
      }
    }
  }
}

/** Whether these rows are in the store: asked when the answer to their COMMIT was lost. */
export async function isWritten(database: Database, rows: readonly AuditRow[]): Promise<boolean> {
  const last = rows.at(-1)
  if (last === undefined) return false
  const [row] = await database.run(handle => handle.select({ hash: auditEvent.hash }).from(auditEvent)
    .where(and(eq(auditEvent.chain, last.chain), eq(auditEvent.seq, last.seq))))
  return row?.hash === last.hash
}

/** Lets callers through one at a time, in order: each gets the function that lets the next one in. */
function createTurn(): () => Promise<() => void> {
  let last: Promise<void> = Promise.resolve()
  return async () => {
    const before = last
    let leave = (): void => {}
    last = new Promise(resolve => { leave = resolve })
    await before
    return leave
  }
}

async function readHead(handle: Handle, chain: string): Promise<Head> {
  const [row] = await handle.select().from(auditChain).where(eq(auditChain.chain, chain))
  return row ?? { chain, seq: 0, hash: genesisHash }
}

// One statement with one parameter, whatever the number of rows: 9,000 parameters cost more than the insert.
const insertSql = `
  with written as (
    insert into audit_event (chain, seq, at, kind, actor, subject, detail, prev, hash)
    select $1::text, row.seq, row.at, row.kind, row.actor, row.subject, row.detail, row.prev, row.hash
    from json_to_recordset($2::json) as row(
      seq bigint, at text, kind text, actor text, subject text, detail jsonb, prev text, hash text)
  )
  insert into audit_chain (chain, seq, hash) values ($1::text, $3::bigint, $4::text)
  on conflict (chain) do update set seq = excluded.seq, hash = excluded.hash`

function insertRows(send: SendLast, rows: readonly AuditRow[]): void {
  const last = rows.at(-1)
  if (last === undefined) return
  send(insertSql, [last.chain, JSON.stringify(rows), last.seq, last.hash])
}
