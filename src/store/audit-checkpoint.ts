// Signed checkpoints: every minute or thousand events the heads of all chains are signed and appended to a
// file outside of the store. A chain alone cannot show that its end was cut off, that somebody with the
// database rewrote and re-linked it, or that the whole store is last week's; a signed checkpoint kept
// elsewhere can. At open, and at each checkpoint, the store is held against what was signed before: what
// does not fit is an alarm.
import { existsSync } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import type { Cancel, Clock } from '../clock.ts'
import { SallyportError } from '../errors.ts'
import { checkpointMessage, hashCheckpoint, rootOf } from './audit-chain.ts'
import type { Checkpoint, CheckpointBody, Head } from './audit-chain.ts'
import { canonicalJson } from './canonical.ts'
import type { Json } from './canonical.ts'
import type { Database, Handle } from './database.ts'
import { asc, desc, gt, sql } from './drizzle.ts'
import type { Signer } from './keys.ts'
import { auditChain, auditCheckpoint } from './schema.ts'

export interface CheckpointOptions {
  database: Database
  clock: Clock
  signer: Signer
  node: string
  instance: string
  /** This boot's chain, and its last durable event as this process remembers it. */
  chain: string
  durableHead(): Head
  checkpointFile: string
  onNotice(line: string): void
}

export interface Checkpoints {
  /** So many events became durable. */
  happened(events: number): void
  /** Signs the heads that moved; undefined when none did. Throws `store-unavailable`. */
  make(): Promise<Checkpoint | undefined>
  /** Number and hash of the newest one, in the store or the file. */
  newest(): { seq: number, hash: string } | null
  /** What did not fit at open. */
  alarms(): readonly string[]
  /** Signs a last one. Never throws. */
  close(): Promise<void>
}

const everyMs = 60_000
const everyEvents = 1_000
// A line of 25,000 heads that moved at once.
const lineBytesMax = 4 * 1024 * 1024
// Any constant will do, as long as every version uses the same: one checkpoint at a time over all nodes.
const advisoryLock = sql`8313164298043355763`

/** Reads where the store and the file stand, compares them, and starts to sign. */
export async function createCheckpoints(options: CheckpointOptions): Promise<Checkpoints> {
  const { database, clock, onNotice, checkpointFile } = options
  const exported = await lastExported(checkpointFile)
  const stored = await database.run(newestOf)
  const alarms = compare(stored, exported)
  for (const alarm of alarms) onNotice(`audit: ALARM: ${alarm}`)
  let newest = [stored, exported].filter(one => one !== undefined)
    .sort((a, b) => a.body.seq - b.body.seq).at(-1)
  let exportedSeq = exported?.body.seq ?? 0
  let events = 0
  let making: Promise<Checkpoint | undefined> | undefined
  let cancelTimer: Cancel | undefined

  const makeOne = async (): Promise<Checkpoint | undefined> => {
    cancelTimer?.()
    cancelTimer = undefined
    const counted = events
    const made = await database.transaction(tx => sign(tx, options, newest?.body.seq ?? 0))
    events -= counted
    if (made !== undefined) newest = made
    // Also those of other nodes, and those that a crash kept from the file.
    const missing = await database.run(handle => handle.select().from(auditCheckpoint)
      .where(gt(auditCheckpoint.seq, exportedSeq)).orderBy(asc(auditCheckpoint.seq)))
    await appendLines(checkpointFile, missing.map(asCheckpoint)).catch((cause: unknown) => {
      throw new SallyportError('internal', { detail: `cannot write ${checkpointFile}`, cause })
    })
    exportedSeq = missing.at(-1)?.seq ?? exportedSeq
    return made
  }
  // One after the other: what became durable before a call is signed when that call ends.
  const make = (): Promise<Checkpoint | undefined> => {
    const before: Promise<unknown> = making ?? Promise.resolve()
    const next = before.catch(() => {}).then(makeOne).finally(() => {
      if (making === next) making = undefined
    })
    making = next
    return next
  }
  const attempt = (): void => {
    make().catch((thrown: unknown) => {
      onNotice(`audit: no checkpoint: ${thrown instanceof Error ? thrown.message : 'unknown'}`)
      cancelTimer ??= clock.after(everyMs, attempt)
    })
  }
  return {
    happened(count) {
      events += count
      if (events >= everyEvents && making === undefined) return database.detached(attempt)
      cancelTimer ??= database.detached(() => clock.after(everyMs, attempt))
    },
    make,
    newest: () => newest === undefined ? null : { seq: newest.body.seq, hash: hashCheckpoint(newest.body) },
    alarms: () => alarms,
    async close() {
      cancelTimer?.()
      await database.detached(make).catch(() => {})
      cancelTimer?.()
    }
  }
}

/**
 * The checkpoints of a file of ours; a line that a crash cut off at the end is no checkpoint. Throws
 * `invalid`.
 */
export async function readCheckpointFile(path: string): Promise<readonly Checkpoint[]> {
  return existsSync(path) ? parseCheckpoints(await readFile(path, 'utf8'), path) : []
}

/**
 * The same from a text, one JSON document a line; the lines of an export will do (its events are passed
 * over).
 */
export function parseCheckpoints(text: string, name = 'checkpoints'): readonly Checkpoint[] {
  const lines = text.split('\n')
  const whole = lines.slice(0, -1).concat(lines.at(-1)?.endsWith('}') === true ? lines.slice(-1) : [])
  return whole.flatMap((line, index) => {
    if (line.trim() === '') return []
    try {
      const parsed = JSON.parse(line) as Checkpoint | { checkpoint: Checkpoint } | { event: unknown }
      if ('event' in parsed) return []
      const checkpoint = 'checkpoint' in parsed ? parsed.checkpoint : parsed
      const isWhole = typeof checkpoint.signature === 'string' && Array.isArray(checkpoint.body.heads)
      if (!isWhole) throw new TypeError()
      return [checkpoint]
    } catch {
      throw new SallyportError('invalid', { detail: `${name}: line ${index + 1} is no checkpoint` })
    }
  })
}

/** The row of a checkpoint as it was signed. */
export function asCheckpoint(row: typeof auditCheckpoint.$inferSelect): Checkpoint {
  return { body: row.body as CheckpointBody, keyId: row.keyId, signature: row.signature }
}

async function newestOf(handle: Handle): Promise<Checkpoint | undefined> {
  const [row] = await handle.select().from(auditCheckpoint).orderBy(desc(auditCheckpoint.seq)).limit(1)
  return row === undefined ? undefined : asCheckpoint(row)
}

function compare(stored: Checkpoint | undefined, exported: Checkpoint | undefined): string[] {
  if (exported === undefined) return []
  const storedSeq = stored?.body.seq ?? 0
  const exportedSeq = exported.body.seq
  if (exportedSeq > storedSeq) {
    return [`the store ends at checkpoint ${storedSeq}, checkpoint ${exportedSeq} was exported: rolled back`]
  }
  const same = stored === undefined || exported.body.seq < storedSeq ||
    hashCheckpoint(stored.body) === hashCheckpoint(exported.body)
  return same ? [] : [`checkpoint ${storedSeq} of the store is not the one that was exported`]
}

// The statements run in this order: what this process knows to be durable must be in what it reads
// afterwards.
async function sign(
  tx: Handle, options: CheckpointOptions, newestSeq: number
): Promise<Checkpoint | undefined> {
  await tx.execute(sql`select pg_advisory_xact_lock(${advisoryLock})`)
  const own = options.durableHead()
  const last = await newestOf(tx)
  const rows = await tx.select().from(auditChain)
  const others = rows.filter(({ chain }) => chain !== own.chain)
  const chains = [...others, ownHead(rows.find(({ chain }) => chain === own.chain), own, options)]
    .filter(({ seq }) => seq > 0)
  const moved = chains.filter(({ seq, signedSeq }) => seq !== signedSeq)
  if (moved.length === 0) return undefined
  for (const { chain, seq, signedSeq } of moved) {
    if (seq >= signedSeq) continue
    options.onNotice(`audit: ALARM: chain ${chain} went back from ${signedSeq} to ${seq}`)
  }
  const body: CheckpointBody = {
    version: 1,
    seq: Math.max(last?.body.seq ?? 0, newestSeq) + 1,
    at: options.clock.now().toISOString(),
    instance: options.instance,
    node: options.node,
    previous: last === undefined ? null : hashCheckpoint(last.body),
    chains: chains.length,
    events: chains.reduce((sum, { seq }) => sum + seq, 0),
    root: rootOf(chains),
    heads: moved.map(({ chain, seq, hash }) => ({ chain, seq, hash }))
  }
  const signature = options.signer.sign(checkpointMessage(body)).toString('base64')
  const checkpoint: Checkpoint = { body, keyId: options.signer.keyId, signature }
  await tx.insert(auditCheckpoint).values({ seq: body.seq, ...checkpoint })
  const marks = JSON.stringify(checkpoint.body.heads)
  await tx.execute(sql`update audit_chain set signed_seq = mark.seq
    from json_to_recordset(${marks}::json) as mark(chain text, seq bigint)
    where audit_chain.chain = mark.chain`)
  return checkpoint
}

interface ChainRow extends Head {
  signedSeq: number
}

// Somebody set our own chain back while we run: what we remember is signed, so that the missing rows are
// named.
function ownHead(row: ChainRow | undefined, own: Head, { onNotice }: CheckpointOptions): ChainRow {
  if (row !== undefined && (row.seq > own.seq || (row.seq === own.seq && row.hash === own.hash))) return row
  if (own.seq > 0) {
    const inStore = row?.seq ?? 0
    onNotice(`audit: ALARM: chain ${own.chain} ends at ${inStore} in the store, at ${own.seq} in memory`)
  }
  return { ...own, signedSeq: row?.signedSeq ?? 0 }
}

// The newest line of the file. What a crash left half written behind it is cut off: it is written again.
async function lastExported(path: string): Promise<Checkpoint | undefined> {
  if (!existsSync(path)) return undefined
  const file = await open(path, 'r+')
  try {
    const { size } = await file.stat()
    const start = Math.max(0, size - lineBytesMax)
    const tail = Buffer.alloc(size - start)
    await file.read(tail, 0, tail.length, start)
    const end = tail.lastIndexOf('\n') + 1
    if (end < tail.length) await file.truncate(start + end)
    const line = tail.subarray(tail.lastIndexOf('\n', Math.max(0, end - 2)) + 1, end).toString('utf8')
    return parseCheckpoints(line, path).at(0)
  } finally {
    await file.close()
  }
}

async function appendLines(path: string, checkpoints: readonly Checkpoint[]): Promise<void> {
  if (checkpoints.length === 0) return
  const file = await open(path, 'a', 0o600)
  try {
    for (const { body, keyId, signature } of checkpoints) {
      await file.appendFile(`${canonicalJson({ body: body as unknown as Json, keyId, signature })}\n`)
    }
    await file.sync()
  } finally {
    await file.close()
  }
}
