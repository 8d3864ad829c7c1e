// Says whether an audit log is what was written, from rows, signed checkpoints and public keys alone: no
// store, no secret, so that an auditor can run it over an export on another machine. Found: a row edited,
// taken out, put in or moved (chain of hashes); a tail cut off, a chain rewritten and re-linked, or taken
// away whole (signed heads); the whole store set back (checkpoints exported before). Not found: what
// happened after the newest checkpoint that the auditor holds; `unsigned` counts those rows.
import { checkpointMessage, genesisHash, hashCheckpoint, hashEvent, rootOf } from './audit-chain.ts'
import type { AuditRow, Checkpoint, Head } from './audit-chain.ts'
import { readPublicKeys } from './keys.ts'
import type { PublicKey } from './keys.ts'

export interface AuditEvidence {
  /** All rows, ordered by `seq` within each chain. */
  events: AsyncIterable<AuditRow> | Iterable<AuditRow>
  /** Those of the store, or of the export, in any order. */
  checkpoints: Iterable<Checkpoint>
  /** Those that were kept elsewhere; one is enough to see a roll-back behind it. */
  exported?: Iterable<Checkpoint> | undefined
  /** PEM texts of the nodes that may sign. */
  publicKeys: readonly string[]
}

export interface AuditProblem {
  /** Of the first bad row; absent when the checkpoint itself is bad. */
  chain?: string
  seq?: number
  checkpoint?: number
  reason: string
}

export interface AuditVerdict {
  valid: boolean
  events: number
  checkpoints: number
  /** Rows behind the newest signed head of their chain: chained, but not yet vouched for. */
  unsigned: number
  heads: readonly Head[]
  /** In the order found: the first bad row of each chain, and every bad checkpoint. */
  problems: readonly AuditProblem[]
}

interface SignedHead extends Head {
  checkpoint: number
}

interface ChainState {
  seq: number
  hash: string
  signed: readonly SignedHead[]
  /** How many of `signed` were met. */
  met: number
  broken: boolean
}

/** Verifies everything; never throws for what it finds, only when rows or keys cannot be read. */
export async function verifyAudit({ events, checkpoints, exported = [], publicKeys }: AuditEvidence):
Promise<AuditVerdict> {
  const problems: AuditProblem[] = []
  const genuine = collectCheckpoints(checkpoints, exported, publicKeys.flatMap(readPublicKeys), problems)
  const signed = signedHeads(genuine)
  const chains = new Map<string, ChainState>()
  const stateOf = (chain: string): ChainState => {
    const known = chains.get(chain)
    if (known !== undefined) return known
    const fresh = { seq: 0, hash: genesisHash, signed: signed.get(chain) ?? [], met: 0, broken: false }
    chains.set(chain, fresh)
    return fresh
  }
  let count = 0
  for await (const row of events) {
    count++
    const state = stateOf(row.chain)
    const problem = state.broken ? undefined : examine(row, state)
    if (problem !== undefined) {
      state.broken = true
      problems.push(problem)
    }
    state.seq = row.seq
    state.hash = row.hash
  }
  for (const chain of signed.keys()) stateOf(chain)
  for (const [chain, state] of chains) {
    const missing = state.broken ? undefined : state.signed[state.met]
    if (missing !== undefined) problems.push(cutOff(chain, state, missing))
  }
  const heads = [...chains].map(([chain, { seq, hash }]) => ({ chain, seq, hash }))
  const unsigned = [...chains.values()]
    .reduce((sum, { seq, signed: known }) => sum + Math.max(0, seq - (known.at(-1)?.seq ?? 0)), 0)
  const valid = problems.length === 0
  return { valid, events: count, checkpoints: genuine.length, unsigned, heads, problems }
}

/** One sentence for people. */
export function describeProblem({ chain, seq, checkpoint, reason }: AuditProblem): string {
  if (chain !== undefined) return `chain ${chain}, row ${seq ?? '?'}: ${reason}`
  return checkpoint === undefined ? reason : `checkpoint ${checkpoint}: ${reason}`
}

function examine(row: AuditRow, state: ChainState): AuditProblem | undefined {
  const expected = state.seq + 1
  const at = { chain: row.chain, seq: row.seq }
  if (row.seq > expected) {
    const upTo = row.seq - 1 > expected ? `, and all up to row ${row.seq - 1}` : ''
    return { chain: row.chain, seq: expected, reason: `the row is missing${upTo}` }
  }
  if (row.seq < expected) return { ...at, reason: 'the row is there twice, or out of order' }
  if (hashEvent(row.prev, row) !== row.hash) {
    return { ...at, reason: 'the row was altered: its hash does not fit' }
  }
  if (row.prev !== state.hash) return { ...at, reason: 'the row does not follow the row before it' }
  for (let next = state.signed[state.met]; next?.seq === row.seq; next = state.signed[state.met]) {
    if (next.hash !== row.hash) return rewritten(row, state, next)
    state.met++
  }
  return undefined
}

// Which of the rows since the last signed head was changed first, nobody can tell.
function rewritten({ chain, seq }: AuditRow, state: ChainState, { checkpoint }: SignedHead): AuditProblem {
  const first = (state.signed[state.met - 1]?.seq ?? 0) + 1
  const reason = `rewritten and chained anew: the rows up to ${seq} are not those of checkpoint ${checkpoint}`
  return { chain, seq: first, reason }
}

function cutOff(
  chain: string, { seq }: ChainState, { seq: signedSeq, checkpoint }: SignedHead
): AuditProblem {
  const what = seq === 0 ? 'the whole chain is missing' : `the chain ends at row ${seq}`
  return { chain, seq: seq + 1, reason: `${what}: checkpoint ${checkpoint} signed it up to row ${signedSeq}` }
}

// ---- checkpoints

function collectCheckpoints(
  stored: Iterable<Checkpoint>, exported: Iterable<Checkpoint>, keys: readonly PublicKey[],
  problems: AuditProblem[]
): readonly Checkpoint[] {
  const byId = new Map(keys.map(key => [key.keyId, key]))
  const kept = new Map<number, Checkpoint>()
  let storedMax = 0
  let exportedMax = 0
  for (const checkpoint of stored) {
    const { seq } = checkpoint.body
    storedMax = Math.max(storedMax, seq)
    if (isGenuine(checkpoint, byId, problems)) kept.set(seq, checkpoint)
  }
  for (const checkpoint of exported) {
    const { seq } = checkpoint.body
    if (!isGenuine(checkpoint, byId, problems)) continue
    exportedMax = Math.max(exportedMax, seq)
    const same = kept.get(seq)
    if (same !== undefined && hashCheckpoint(same.body) !== hashCheckpoint(checkpoint.body)) {
      const reason = 'the store has another one than was exported: its history was replaced'
      problems.push({ checkpoint: seq, reason })
    }
    kept.set(seq, checkpoint)
  }
  if (exportedMax > storedMax) {
    const reason = `was exported, the store ends at checkpoint ${storedMax}: it was rolled back`
    problems.push({ checkpoint: exportedMax, reason })
  }
  const ordered = [...kept.values()].sort((a, b) => a.body.seq - b.body.seq)
  examineSequence(ordered, problems)
  return ordered
}

function isGenuine(
  checkpoint: Checkpoint, keys: ReadonlyMap<string, PublicKey>, problems: AuditProblem[]
): boolean {
  const { body, keyId, signature } = checkpoint
  const key = keys.get(keyId)
  if (key === undefined) {
    problems.push({ checkpoint: body.seq, reason: `signed with key ${keyId}, which was not given` })
    return false
  }
  if (key.verify(checkpointMessage(body), Buffer.from(signature, 'base64'))) return true
  problems.push({ checkpoint: body.seq, reason: 'its signature does not fit' })
  return false
}

// Each names the one before, no chain goes back, and the heads of all of them together give the root.
function examineSequence(ordered: readonly Checkpoint[], problems: AuditProblem[]): void {
  const heads = new Map<string, Head>()
  let before: Checkpoint | undefined
  let complete = true
  for (const checkpoint of ordered) {
    const { body } = checkpoint
    const report = (reason: string): void => void problems.push({ checkpoint: body.seq, reason })
    const expected = (before?.body.seq ?? 0) + 1
    if (body.seq > expected) {
      problems.push({ checkpoint: expected, reason: `is missing: the next one is ${body.seq}` })
      complete = false
    } else if (body.previous !== (before === undefined ? null : hashCheckpoint(before.body))) {
      report('does not follow the checkpoint before it')
      complete = false
    }
    for (const head of body.heads) {
      const known = heads.get(head.chain)
      if (head.seq < (known?.seq ?? 0)) report(`chain ${head.chain} went back to row ${head.seq}`)
      heads.set(head.chain, head)
    }
    if (complete && rootOf(heads.values()) !== body.root) report('its root is not that of the heads up to it')
    before = checkpoint
  }
}

function signedHeads(checkpoints: readonly Checkpoint[]): ReadonlyMap<string, readonly SignedHead[]> {
  const signed = new Map<string, SignedHead[]>()
  for (const { body } of checkpoints) {
    for (const head of body.heads) {
      const list = signed.get(head.chain) ?? []
      signed.set(head.chain, list)
      list.push({ ...head, checkpoint: body.seq })
    }
  }
  for (const list of signed.values()) list.sort((a, b) => a.seq - b.seq || a.checkpoint - b.checkpoint)
  return signed
}
