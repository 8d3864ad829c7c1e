// An audit log in memory for tests of the verifier: three chains, checkpoints over them signed with a key
// of its own, and everything made with the same functions as the real one. Mutations take a copy.
import { generateKeyPairSync, sign } from 'node:crypto'
import {
  auditEntry, checkpointMessage, genesisHash, hashCheckpoint, linkRows, rootOf
} from '../../src/store/audit-chain.ts'
import type { AuditRow, Checkpoint, CheckpointBody, Head } from '../../src/store/audit-chain.ts'
import { readPublicKeys } from '../../src/store/keys.ts'

export interface AuditWorld {
  rows: AuditRow[]
  checkpoints: Checkpoint[]
  publicKey: string
  /** Signs any body with the world's key, as an attacker without the key cannot. */
  signed(body: CheckpointBody): Checkpoint
}

/**
 * `rounds` rounds: each chain grows by two rows, then a checkpoint; at the end one row for each chain is
 * unsigned.
 */
export function auditWorld(rounds: number, chains: readonly string[] = ['n1/a', 'n1/b', 'n2/a']): AuditWorld {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString()
  const [key] = readPublicKeys(pem)
  const signed = (body: CheckpointBody): Checkpoint => {
    const signature = sign(null, checkpointMessage(body), privateKey).toString('base64')
    return { body, keyId: key?.keyId ?? '', signature }
  }
  const heads = new Map<string, Head>(chains.map(chain => [chain, { chain, seq: 0, hash: genesisHash }]))
  const rows: AuditRow[] = []
  const checkpoints: Checkpoint[] = []
  const grow = (chain: string, count: number): void => {
    const head = heads.get(chain)
    if (head === undefined) return
    const entries = Array.from({ length: count }, (_, n) => auditEntry(
      new Date(1_700_000_000_000 + rows.length + n), 'session.opened', 'alice', `s${head.seq + n}`,
      { nested: { list: [1, 'two', null] }, n }))
    const linked = linkRows(head, entries)
    rows.push(...linked)
    const last = linked.at(-1)
    if (last !== undefined) heads.set(chain, { chain, seq: last.seq, hash: last.hash })
  }
  for (let round = 0; round < rounds; round++) {
    // The last chain stands still in every second round.
    const moved = chains.filter((_, at) => at < chains.length - 1 || round % 2 === 0)
    for (const chain of moved) grow(chain, 2)
    const before = checkpoints.at(-1)
    const all = [...heads.values()].filter(({ seq }) => seq > 0)
    checkpoints.push(signed({
      version: 1, seq: checkpoints.length + 1, at: new Date(1_700_000_000_000).toISOString(),
      instance: 'i', node: 'n1',
      previous: before === undefined ? null : hashCheckpoint(before.body), chains: all.length,
      events: all.reduce((sum, { seq }) => sum + seq, 0), root: rootOf(all),
      heads: all.filter(({ chain }) => moved.includes(chain))
    }))
  }
  for (const chain of chains) grow(chain, 1)
  return { rows: sorted(rows), checkpoints, publicKey: pem, signed }
}

/** As a store returns them: chain by chain. */
export function sorted(rows: readonly AuditRow[]): AuditRow[] {
  return [...rows].sort((a, b) => a.chain < b.chain ? -1 : a.chain > b.chain ? 1 : a.seq - b.seq)
}
