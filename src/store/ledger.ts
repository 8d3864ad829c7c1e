// The ledger's memory: every account that was ever made or switched on, who holds it, what became of it. The
// moves are in the three files beside this one, in the order of an account's life: open, close, and the life
// of the nodes; the fourth answers questions. All of them together are what the ledger (lease/) asks of a
// store.
import type { Database } from './database.ts'
import { closeMoves } from './ledger-close.ts'
import { createMoveWriter } from './ledger-group.ts'
import type { AuditInTransaction } from './ledger-group.ts'
import { nodeMoves } from './ledger-node.ts'
import { openMoves } from './ledger-open.ts'
import { ledgerViews } from './ledger-view.ts'
import type { LedgerStore } from '../lease/store-port.ts'

/**
 * The store's side of the ledger over an open database. Every method throws `store-unavailable` when it is
 * away. `audit` takes the event of a move into the move's own transaction.
 */
export function createLedgerStore(database: Database, audit: AuditInTransaction): LedgerStore {
  const writer = createMoveWriter(database, audit)
  return {
    ...openMoves(database, writer), ...closeMoves(database, writer), ...nodeMoves(database),
    ...ledgerViews(database)
  }
}
