// Reading the audit log back: filtered for people, whole for the verifier, and as JSON lines for keeping
// elsewhere. Everything is read in pages, because a log has no upper bound; an export is read back and
// verified offline with `readAuditExport` and the public key, on any machine.
import { SallyportError } from '../errors.ts'
import type { AuditRow, Checkpoint } from './audit-chain.ts'
import { asCheckpoint, parseCheckpoints, readCheckpointFile } from './audit-checkpoint.ts'
import { verifyAudit } from './audit-verify.ts'
import type { AuditEvidence, AuditVerdict } from './audit-verify.ts'
import type { Json } from './canonical.ts'
import type { Database } from './database.ts'
import { and, asc, desc, eq, gt, gte, lte, or, sql } from './drizzle.ts'
import { auditCheckpoint, auditEvent } from './schema.ts'

export interface AuditFilter {
  kind?: string | undefined
  actor?: string | undefined
  subject?: string | undefined
  since?: Date | undefined
  until?: Date | undefined
  /** The last event of the page before. */
  before?: { chain: string, seq: number } | undefined
  limit: number
}

// A page is one statement of some 2 MB: well inside the time that a call to the store may take.
const pageRows = 2_000

/** The newest events that match, newest first. */
export async function listAudit(database: Database, filter: AuditFilter): Promise<readonly AuditRow[]> {
  const { kind, actor, subject, since, until, before, limit } = filter
  const rows = await database.run(handle => handle.select().from(auditEvent).where(and(
    kind === undefined ? undefined : eq(auditEvent.kind, kind),
    actor === undefined ? undefined : eq(auditEvent.actor, actor),
    subject === undefined ? undefined : eq(auditEvent.subject, subject),
    since === undefined ? undefined : gte(auditEvent.at, since.toISOString()),
    until === undefined ? undefined : lte(auditEvent.at, until.toISOString()),
    before === undefined ? undefined : sql`(${auditEvent.at}, ${auditEvent.chain}, ${auditEvent.seq}) <
      (select c.at, c.chain, c.seq from ${auditEvent} as c
        where c.chain = ${before.chain} and c.seq = ${before.seq})`
  )).orderBy(desc(auditEvent.at), desc(auditEvent.chain), desc(auditEvent.seq)).limit(limit))
  return rows.map(asRow)
}

/** Every event, chain by chain. */
export async function* readAudit(database: Database, since?: Date): AsyncGenerator<AuditRow> {
  let last: { chain: string, seq: number } | undefined
  for (;;) {
    const from = last
    const rows = await database.run(handle => handle.select().from(auditEvent).where(and(
      since === undefined ? undefined : gte(auditEvent.at, since.toISOString()),
      from === undefined ? undefined : or(
        gt(auditEvent.chain, from.chain), and(eq(auditEvent.chain, from.chain), gt(auditEvent.seq, from.seq)))
    )).orderBy(asc(auditEvent.chain), asc(auditEvent.seq)).limit(pageRows))
    for (const row of rows) yield asRow(row)
    last = rows.at(-1)
    if (rows.length < pageRows) return
  }
}

/** Every checkpoint of the store, oldest first. */
export async function readCheckpoints(database: Database): Promise<readonly Checkpoint[]> {
  const all: Checkpoint[] = []
  for (;;) {
    const after = all.at(-1)?.body.seq ?? 0
    const rows = await database.run(handle => handle.select().from(auditCheckpoint)
      .where(gt(auditCheckpoint.seq, after)).orderBy(asc(auditCheckpoint.seq)).limit(pageRows))
    all.push(...rows.map(asCheckpoint))
    if (rows.length < pageRows) return all
  }
}

export interface StoredAudit {
  database: Database
  /** This node's own export, and the PEM texts of all nodes that sign. */
  checkpointFile: string
  publicKeys: readonly string[]
  /** Text of checkpoints that somebody kept elsewhere, one JSON document a line. */
  exported?: string | undefined
}

/** Verifies the store's log against its own exported checkpoints and those that are given. */
export async function verifyStoredAudit(
  { database, checkpointFile, publicKeys, exported = '' }: StoredAudit
): Promise<AuditVerdict> {
  const given = parseCheckpoints(exported, 'the given checkpoint')
  const kept = [...await readCheckpointFile(checkpointFile), ...given]
  // Checkpoints first: what is written meanwhile is newer than they are, and only counts as unsigned.
  const checkpoints = await readCheckpoints(database)
  return verifyAudit({ events: readAudit(database), checkpoints, exported: kept, publicKeys })
}

/**
 * JSON lines: `{"event": …}` chain by chain, then `{"checkpoint": …}`. With `since` no longer verifiable as
 * a whole.
 */
export async function* exportAudit(database: Database, { since }: { since?: Date | undefined } = {}):
AsyncGenerator<string> {
  const checkpoints = await readCheckpoints(database)
  for await (const event of readAudit(database, since)) yield `${JSON.stringify({ event })}\n`
  for (const checkpoint of checkpoints) yield `${JSON.stringify({ checkpoint })}\n`
}

/** What `verifyAudit` needs, from the lines of an export. Throws `invalid` naming the line. */
export function readAuditExport(text: string): Pick<AuditEvidence, 'events' | 'checkpoints'> {
  const events: AuditRow[] = []
  const checkpoints: Checkpoint[] = []
  for (const [index, line] of text.split('\n').entries()) {
    if (line === '') continue
    const { event, checkpoint } = parseLine(line, index + 1)
    if (event !== undefined) events.push(event)
    if (checkpoint !== undefined) checkpoints.push(checkpoint)
  }
  return { events, checkpoints }
}

function parseLine(line: string, number: number): { event?: AuditRow, checkpoint?: Checkpoint } {
  try {
    return JSON.parse(line) as { event?: AuditRow, checkpoint?: Checkpoint }
  } catch {
    throw new SallyportError('invalid', { detail: `the export is damaged in line ${number}` })
  }
}

function asRow(row: typeof auditEvent.$inferSelect): AuditRow {
  return { ...row, detail: row.detail as Json }
}
