// What an audit event is and how it is chained: `hash = SHA-256(prev ‖ canonical JSON of the event)`, one
// chain for each boot of each node, numbered from 1. Appender and verifier share this file and nothing
// else, so that a chain can be checked from an export alone. The texts that are hashed here are a format:
// never change them.
import { createHash } from 'node:crypto'
import { canonicalJson, storableJson, storableText } from './canonical.ts'
import type { Json } from './canonical.ts'

export interface AuditEntry {
  /** E.g. `session.opened`. */
  kind: string
  actor: string
  subject: string
  detail: Json
  /** When it happened: ISO 8601 UTC, the node's wall time. */
  at: string
}

export interface AuditRow extends AuditEntry {
  /** `node/boot`. */
  chain: string
  /** From 1, without gaps. */
  seq: number
  /** Hash of the row before; of the first row: `genesisHash`. */
  prev: string
  /** Hex. */
  hash: string
}

export interface Head {
  chain: string
  /** 0 before the first event. */
  seq: number
  hash: string
}

/** What the first event of a chain points to. */
export const genesisHash = '0'.repeat(64)

// Names come from peers, who choose their length.
const nameLengthMax = 512
const kindLengthMax = 64
// Long enough for a statement or a lint report; an event is evidence, not a store.
const detailBytesMax = 16_384

/**
 * An entry as it will be stored and hashed: names cut, texts storable, an oversized detail replaced by its
 * hash.
 */
export function auditEntry(
  at: Date, kind: string, actor: string, subject: string, detail: Record<string, unknown>
): AuditEntry {
  return {
    at: at.toISOString(),
    kind: storableText(kind, kindLengthMax),
    actor: storableText(actor, nameLengthMax),
    subject: storableText(subject, nameLengthMax),
    detail: bounded(storableJson(detail))
  }
}

function bounded(detail: Json): Json {
  const text = JSON.stringify(detail)
  const bytes = Buffer.byteLength(text)
  if (bytes <= detailBytesMax) return detail
  const sha256 = createHash('sha256').update(text).digest('hex')
  return { truncated: true, bytes, sha256, start: storableText(text, detailBytesMax / 4) }
}

/** The rows that follow `head`, in order. */
export function linkRows(head: Head, entries: readonly AuditEntry[]): AuditRow[] {
  let { seq, hash: prev } = head
  return entries.map(entry => {
    const event = { ...entry, chain: head.chain, seq: ++seq }
    const hash = hashEvent(prev, event)
    const row = { ...event, prev, hash }
    prev = hash
    return row
  })
}

/** The hash that a row must have behind `prev`. */
export function hashEvent(prev: string, event: Omit<AuditRow, 'prev' | 'hash'>): string {
  const { chain, seq, at, kind, actor, subject, detail } = event
  const text = canonicalJson({ chain, seq, at, kind, actor, subject, detail })
  return createHash('sha256').update(prev, 'hex').update(text).digest('hex')
}

// ---- checkpoints

export interface CheckpointBody {
  version: 1
  /** From 1, over all nodes. */
  seq: number
  at: string
  /** Id of the installation, and the node that signed. */
  instance: string
  node: string
  /** Hash of the body of the checkpoint before; null in the first. */
  previous: string | null
  /** All chains: how many there are, how many events they hold together, and the root over their heads. */
  chains: number
  events: number
  root: string
  /** The heads that moved since the checkpoint before. */
  heads: readonly Head[]
}

export interface Checkpoint {
  body: CheckpointBody
  keyId: string
  /** Ed25519 over `checkpointMessage`, base64. */
  signature: string
}

/** What is signed: a line that no other signature of ours begins with, and the canonical body. */
export function checkpointMessage(body: CheckpointBody): Buffer {
  return Buffer.from(`sallyport audit checkpoint v1\n${canonicalJson(jsonOf(body))}`)
}

/** What the next checkpoint names as `previous`. */
export function hashCheckpoint(body: CheckpointBody): string {
  return createHash('sha256').update(checkpointMessage(body)).digest('hex')
}

function jsonOf({ heads, ...body }: CheckpointBody): Json {
  return { ...body, heads: heads.map(({ chain, seq, hash }) => ({ chain, seq, hash })) }
}

/**
 * Merkle tree hash (RFC 6962 section 2.1) over the heads, sorted by chain: one value that vouches for all
 * chains.
 */
export function rootOf(heads: Iterable<Head>): string {
  const sorted = [...heads].sort((a, b) => a.chain < b.chain ? -1 : 1)
  const leaves = sorted.map(({ chain, seq, hash }) =>
    sha256(0, Buffer.from(canonicalJson({ chain, seq, hash }))))
  return treeHash(leaves).toString('hex')
}

function treeHash(leaves: readonly Buffer[]): Buffer {
  if (leaves.length === 0) return createHash('sha256').digest()
  const [only] = leaves
  if (leaves.length === 1 && only !== undefined) return only
  // The largest power of two below the count.
  const split = 2 ** Math.floor(Math.log2(leaves.length - 1))
  return sha256(1, treeHash(leaves.slice(0, split)), treeHash(leaves.slice(split)))
}

function sha256(prefix: number, ...parts: readonly Buffer[]): Buffer {
  const hash = createHash('sha256').update(Buffer.of(prefix))
  for (const part of parts) hash.update(part)
  return hash.digest()
}
