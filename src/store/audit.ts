// The audit log: one chain for each boot of a node (audit-chain.ts), whose head is kept in memory
// (audit-head.ts). An event that must not be lost is waited for, in a group with others (audit-queue.ts);
// an event that gates an effect is part of that effect's transaction; the heads are signed every minute
// (audit-checkpoint.ts).
import type { Clock } from '../clock.ts'
import { SallyportError } from '../errors.ts'
import { auditEntry } from './audit-chain.ts'
import type { AuditEntry, Checkpoint, Head } from './audit-chain.ts'
import { createCheckpoints } from './audit-checkpoint.ts'
import { createChainHead } from './audit-head.ts'
import { createAuditQueue, waitingEventsMax } from './audit-queue.ts'
import type { Database, Handle } from './database.ts'
import type { Signer } from './keys.ts'

export interface AuditLog {
  /**
   * Resolves when the event is durable. Rejects with `store-unavailable` when that is not so yet; it is
   * kept and written later.
   */
  append(kind: string, actor: string, subject: string, detail: Record<string, unknown>): Promise<void>
  /** Makes the event part of the transaction `tx`: durable exactly when that commits. */
  appendIn(
    tx: Handle, kind: string, actor: string, subject: string, detail: Record<string, unknown>
  ): void
  /** Signs the heads now; undefined when nothing happened since the last one. */
  checkpoint(): Promise<Checkpoint | undefined>
  /** The last event known to be durable. */
  head(): Head
  /** Events that wait for the store. */
  waiting(): number
  /**
   * Writes what waits and signs a last checkpoint, or says in a notice what could not be written. Never
   * throws.
   */
  close(): Promise<void>
}

export interface AuditOptions {
  database: Database
  clock: Clock
  signer: Signer
  node: string
  boot: string
  /** Id of the installation. */
  instance: string
  /** Where signed checkpoints are appended: they must survive a roll-back of the store. */
  checkpointFile: string
  onNotice?: ((line: string) => void) | undefined
}

/** Opens this boot's chain; its first event names the checkpoint that vouches for everything before it. */
export async function openAudit(options: AuditOptions): Promise<AuditLog> {
  const { database, clock, node, boot, onNotice = () => {} } = options
  const chain = `${node}/${boot}`
  const head = createChainHead(chain, events => checkpoints.happened(events))
  const checkpoints = await createCheckpoints({ ...options, chain, durableHead: head.durable, onNotice })
  const entry = (...words: Parameters<AuditLog['append']>): AuditEntry => auditEntry(clock.now(), ...words)
  const queue = createAuditQueue({
    database, clock, head, onNotice,
    lostEntry: events => entry('audit.lost', 'system', node, { events, waitingEventsMax })
  })
  const gathered = new WeakMap<Handle, AuditEntry[]>()

  const log: AuditLog = {
    append(...words) {
      // It could be waited for until the transaction ends, which waits for it.
      if (!database.inTransaction()) return queue.put(entry(...words))
      const detail = 'inside of a transaction: use appendIn'
      return Promise.reject(new SallyportError('internal', { detail }))
    },
    appendIn(tx, ...words) {
      const entries = gathered.get(tx)
      if (entries !== undefined) return void entries.push(entry(...words))
      const first = [entry(...words)]
      database.beforeCommit(tx, head.step(first))
      gathered.set(tx, first)
    },
    checkpoint: () => database.detached(() => checkpoints.make()),
    head: head.durable,
    waiting: () => queue.waiting(),
    async close() {
      await queue.close()
      await checkpoints.close()
    }
  }
  await log.append('audit.opened', 'system', node, { boot, newestCheckpoint: checkpoints.newest() })
  for (const alarm of checkpoints.alarms()) await log.append('audit.alarm', 'system', node, { alarm })
  return log
}
