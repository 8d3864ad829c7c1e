// The audit log. Each boot of a node has a chain, its head kept in memory; events are written in groups, so that a
// burst costs one commit, and an event that gates an effect is written in the same transaction as that effect.
// Order: a transaction takes its place in the chain as its very last step before COMMIT and holds it until the
// outcome is known, so a rolled-back transaction leaves no gap. The connection always comes before the chain's
// turn: the other way round, the one connection of the embedded store would deadlock.
// An event that could not be written is kept and written later; whoever waits for it hears so at once.
import type { Cancel, Clock } from '../clock.ts'
import { SallyportError, asSallyportError } from '../errors.ts'
import { auditEntry, genesisHash, linkRows } from './audit-chain.ts'
import type { AuditEntry, AuditRow, Checkpoint, Head } from './audit-chain.ts'
import { createCheckpoints } from './audit-checkpoint.ts'
import type { Database, Handle, LastStep } from './database.ts'
import { and, eq, sql } from './drizzle.ts'
import type { Signer } from './keys.ts'
import { auditChain, auditEvent } from './schema.ts'

export interface AuditLog {
  /** Resolves when the event is durable. Rejects with `store-unavailable` when that is not so yet; it is kept. */
  append(kind: string, actor: string, subject: string, detail: Record<string, unknown>): Promise<void>
  /** Makes the event part of the transaction `tx`: durable exactly when that commits. */
  appendIn(tx: Handle, kind: string, actor: string, subject: string, detail: Record<string, unknown>): void
  /** Signs the heads now; undefined when nothing happened since the last one. */
  checkpoint(): Promise<Checkpoint | undefined>
  /** The last event known to be durable. */
  head(): Head
  /** Events that wait for the store. */
  waiting(): number
  /** Writes what waits and signs a last checkpoint, or says in a notice what could not be written. Never throws. */
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

interface Waiting {
  entry: AuditEntry
  done(): void
  failed(error: SallyportError): void
}

// A burst becomes at most 200 commits a second; an event that comes alone does not wait.
const groupMsMax = 5
const groupEventsMin = 100
// One statement of about 500 kB: larger groups gain nothing (measured: 28,900/s with 100, 38,000/s with 1,000).
const groupEventsMax = 1_000
// While the store is away, events wait here: a busy hour of one node, some 25 MB.
const waitingEventsMax = 50_000
const retryMs = 1_000

/** Opens this boot's chain; its first event names the checkpoint that vouches for everything before it. */
export async function openAudit(options: AuditOptions): Promise<AuditLog> {
  const { database, clock, node, boot, onNotice = () => {} } = options
  const chain = `${node}/${boot}`
  const turn = createTurn()
  const waiting: Waiting[] = []
  const gathered = new WeakMap<Handle, AuditEntry[]>()
  // Undefined: the answer to a COMMIT was lost; the store is asked before the next event is chained.
  let head: Head | undefined = { chain, seq: 0, hash: genesisHash }
  let durable: Head = head
  let flushing: Promise<void> | undefined
  let flushedAtMs = -groupMsMax
  let cancelTimer: Cancel | undefined
  let storeAway = false
  let lost = 0
  let closed = false

  const checkpoints = await createCheckpoints({ ...options, chain, durableHead: () => durable, onNotice })

  const chained = (entries: readonly AuditEntry[], tell?: (rows: readonly AuditRow[]) => void): LastStep => async tx => {
    const leave = await turn()
    try {
      head ??= await readHead(tx, chain)
      const rows = linkRows(head, entries)
      tell?.(rows)
      await insertRows(tx, rows)
      return outcome => {
        const last = rows.at(-1)
        if (outcome === 'unknown') head = undefined
        if (outcome === 'committed' && last !== undefined) {
          head = durable = { chain, seq: last.seq, hash: last.hash }
          checkpoints.happened(rows.length)
        }
        leave()
      }
    } catch (thrown) {
      head = undefined
      leave()
      throw thrown
    }
  }

  const write = async (group: readonly Waiting[]): Promise<void> => {
    let rows: readonly AuditRow[] = []
    const entries = group.map(({ entry }) => entry)
    try {
      await database.detached(() => database.transaction(tx => {
        database.beforeCommit(tx, chained(entries, linked => { rows = linked }))
        return Promise.resolve()
      }))
    } catch (thrown) {
      // Perhaps it was committed and only the answer lost.
      if (!await isWritten(database, rows).catch(() => false)) throw thrown
    }
  }

  const flush = async (): Promise<void> => {
    while (waiting.length > 0) {
      flushedAtMs = clock.monotonicMs()
      const group = waiting.slice(0, groupEventsMax)
      try {
        await write(group)
        waiting.splice(0, group.length)
        for (const { done } of group) done()
        if (storeAway) onNotice('audit: the store takes events again')
        storeAway = false
        reportLost()
      } catch (thrown) {
        const { code, detail } = asSallyportError(thrown)
        keep(new SallyportError('store-unavailable', { detail: detail ?? code }))
        return
      }
    }
  }

  // What waits stays, in order, and is tried again; whoever waits for it is told now.
  const keep = (error: SallyportError): void => {
    if (!storeAway) onNotice(`audit: ${waiting.length} events wait for the store: ${error.detail}`)
    storeAway = true
    for (const { failed } of waiting) failed(error)
    cancelTimer?.()
    if (!closed) cancelTimer = clock.after(retryMs, startFlush)
  }

  const reportLost = (): void => {
    if (lost === 0) return
    const events = lost
    lost = 0
    remember(auditEntry(clock.now(), 'audit.lost', 'system', node, { events, waitingEventsMax })).catch(() => {})
  }

  const startFlush = (): void => {
    cancelTimer?.()
    cancelTimer = undefined
    flushing ??= database.detached(flush).finally(() => {
      flushing = undefined
      if (waiting.length > 0 && !storeAway) schedule()
    })
  }

  const schedule = (): void => {
    if (flushing !== undefined || (storeAway && cancelTimer !== undefined)) return
    if (waiting.length >= groupEventsMin) return startFlush()
    const restMs = flushedAtMs + groupMsMax - clock.monotonicMs()
    cancelTimer ??= database.detached(() => clock.after(Math.max(0, restMs), startFlush))
  }

  const remember = (entry: AuditEntry): Promise<void> => {
    if (closed || waiting.length >= waitingEventsMax) {
      lost++
      const detail = closed ? 'the audit log is closed' : `${waitingEventsMax} audit events wait for the store`
      return Promise.reject(new SallyportError('store-unavailable', { detail }))
    }
    return new Promise<void>((resolve, reject) => {
      waiting.push({ entry, done: resolve, failed: reject })
      if (storeAway) reject(new SallyportError('store-unavailable', { detail: 'the audit event waits for the store' }))
      schedule()
    })
  }

  const log: AuditLog = {
    append(kind, actor, subject, detail) {
      // It could be waited for until the transaction ends, which waits for it.
      if (database.inTransaction()) {
        return Promise.reject(new SallyportError('internal', { detail: 'inside of a transaction: use appendIn' }))
      }
      return remember(auditEntry(clock.now(), kind, actor, subject, detail))
    },
    appendIn(tx, kind, actor, subject, detail) {
      const entry = auditEntry(clock.now(), kind, actor, subject, detail)
      const entries = gathered.get(tx)
      if (entries !== undefined) return void entries.push(entry)
      const first = [entry]
      database.beforeCommit(tx, chained(first))
      gathered.set(tx, first)
    },
    checkpoint: () => database.detached(() => checkpoints.make()),
    head: () => durable,
    waiting: () => waiting.length,
    async close() {
      if (closed) return
      closed = true
      cancelTimer?.()
      await flushing
      if (waiting.length > 0) await flush()
      if (waiting.length > 0) onNotice(`audit: ${waiting.length} events could not be written before the stop`)
      await checkpoints.close()
    }
  }
  await log.append('audit.opened', 'system', node, { boot, newestCheckpoint: checkpoints.newest() })
  for (const alarm of checkpoints.alarms()) await log.append('audit.alarm', 'system', node, { alarm })
  return log
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

async function isWritten(database: Database, rows: readonly AuditRow[]): Promise<boolean> {
  const last = rows.at(-1)
  if (last === undefined) return false
  const [row] = await database.run(handle => handle.select({ hash: auditEvent.hash }).from(auditEvent)
    .where(and(eq(auditEvent.chain, last.chain), eq(auditEvent.seq, last.seq))))
  return row?.hash === last.hash
}

// One statement with one parameter, whatever the number of rows: 9,000 parameters cost more than the insert.
async function insertRows(tx: Handle, rows: readonly AuditRow[]): Promise<void> {
  const last = rows.at(-1)
  if (last === undefined) return
  await tx.execute(sql`
    with written as (
      insert into audit_event (chain, seq, at, kind, actor, subject, detail, prev, hash)
      select ${last.chain}, row.seq, row.at, row.kind, row.actor, row.subject, row.detail, row.prev, row.hash
      from json_to_recordset(${JSON.stringify(rows)}::json) as row(
        seq bigint, at text, kind text, actor text, subject text, detail jsonb, prev text, hash text)
    )
    insert into audit_chain (chain, seq, hash) values (${last.chain}, ${last.seq}, ${last.hash})
    on conflict (chain) do update set seq = excluded.seq, hash = excluded.hash`)
}
