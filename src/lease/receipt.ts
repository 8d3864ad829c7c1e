// The removal receipt (J15): what was found when the target was looked at after a removal, signed. It says
// `proved-gone` only when a look showed it and nothing that we sent can still land; `removed` when that last
// look is owed; the other states say that the account may still be there. Signed is the canonical JSON (keys
// sorted, no spaces), so that a body that went through a database or an editor can be checked with nothing
// but the public key.
import { createHash, randomUUID } from 'node:crypto'
import type { HookResult } from '../jit/hook.ts'
import type { Residue, Verified } from '../jit/plugin.ts'
import type { ReceiptSigner } from './ports.ts'
import type { Claim, ReceiptDraft } from './store-port.ts'

/** `expires`: nothing can take it away before the instant that is named; it is looked at again then. */
export type ReceiptState = 'proved-gone' | 'removed' | 'expires' | 'failed' | 'quarantined' | 'unreachable'

/** What was found, and what it means for the account. */
export interface Verdict {
  state: 'gone' | 'expires' | 'stuck' | 'quarantined' | 'unreachable'
  error: string | undefined
  residue: readonly Residue[]
  seen: Verified | undefined
  tookMs: number
}

export interface Circumstances {
  state: ReceiptState
  node: string
  attempt: number
  verifiedAt: Date
}

// What a target says is kept, but not without end: a target may have millions of objects, or say anything.
const errorLengthMax = 2000
const nameLengthMax = 300
const residueMax = 1000

// Codes that say that nobody answered; everything else was an answer, if not the one we want.
const silences: readonly string[] = ['target-unreachable', 'hook-timeout', 'target-closed', 'shutting-down']

/** Judges a removal by what was seen, never by what was claimed. */
export function judge(claim: Claim, result: HookResult): Verdict {
  const { code, failedStep, seen, tookMs } = result
  const found = { residue: bounded(result.residue), seen, tookMs }
  const error = result.error === undefined ? undefined : storable(result.error, errorLengthMax)
  if (result.state === 'done') return { state: 'gone', error: undefined, ...found }
  // It never was ours: the name was taken before our creation, whose answer was lost.
  if (result.state === 'conflict' && claim.kind === 'create' && claim.activeAt === undefined) {
    return { state: 'gone', error, ...found }
  }
  if (result.seen?.endsAt !== undefined) return { state: 'expires', error: undefined, ...found }
  const where = failedStep === undefined ? '' : ` at step "${failedStep}"`
  const sentence = `${code ?? result.state}${where}: ${error ?? 'no detail'}`
  if (result.quarantined) return { state: 'quarantined', error: sentence, ...found }
  const silent = seen === undefined && (
    result.state === 'unknown' || (code !== undefined && silences.includes(code))
  )
  return { state: silent ? 'unreachable' : 'stuck', error: sentence, ...found }
}

/** Residue as it can be kept and signed. */
export function bounded(residue: readonly Residue[]): readonly Residue[] {
  const kept = residue.slice(0, residueMax).map(({ kind, name, fate }) =>
    ({ kind: storable(kind, nameLengthMax), name: storable(name, nameLengthMax), fate }))
  if (residue.length <= residueMax) return kept
  return [...kept, { kind: 'more', name: `${residue.length - residueMax} further objects`, fate: 'left' }]
}

// No store keeps U+0000 or half a surrogate pair: a target that says one could keep its removal from being
// concluded.
function storable(text: string, lengthMax: number): string {
  return text.slice(0, lengthMax).replaceAll('\0', '\ufffd').toWellFormed()
}

/** One draft for each session that used the account (or one for none), all with the same signed body. */
export function draftReceipts(
  claim: Claim, verdict: Verdict, { state, node, attempt, verifiedAt }: Circumstances, signer: ReceiptSigner
): { drafts: readonly ReceiptDraft[], sha256: string } {
  const { open, close, plugin } = claim.spec
  const id = randomUUID()
  const sessions = claim.holds.filter(hold => hold.owner.kind === 'session').map(hold => hold.owner.id)
  const body = canonicalJson({
    version: 1, id, state,
    account: { id: claim.accountId, name: claim.name, kind: claim.kind, epoch: claim.epoch },
    target: claim.target, credential: claim.credential, plugin,
    templates: {
      open: { id: open.id, version: open.version, sha256: open.sha256 },
      close: { id: close.id, version: close.version, sha256: close.sha256 }
    },
    sessions, leases: claim.holds.map(hold => hold.id),
    createdAt: claim.createdAt.toISOString(), activeAt: claim.activeAt?.toISOString() ?? null,
    verifiedAt: verifiedAt.toISOString(), tookMs: Math.round(verdict.tookMs), attempt, node,
    seen: verdict.seen === undefined ? null : looked(verdict.seen),
    residue: verdict.residue.map(({ kind, name, fate }) => ({ kind, name, fate })),
    error: verdict.error ?? null
  })
  const bytes = new TextEncoder().encode(body)
  const { keyId, signature } = signer.sign(bytes)
  const draft = (session: string | undefined, place: number): ReceiptDraft =>
    ({ id: place === 0 ? id : `${id}.${place}`, session, body, keyId, signature })
  return {
    drafts: sessions.length === 0 ? [draft(undefined, 0)] : sessions.map(draft),
    sha256: createHash('sha256').update(bytes).digest('hex')
  }
}

function looked({ exists, enabled, ours, sessions, endsAt }: Verified): Record<string, unknown> {
  return { exists, enabled, ours, sessions, endsAt: endsAt?.toISOString() }
}

/**
 * JSON with sorted keys and no spaces; undefined members are left out. What the signature of a receipt
 * covers.
 */
export function canonicalJson(value: unknown): string {
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`
  const members = Object.entries(value).filter(([, member]) => member !== undefined)
    .sort(([one], [other]) => (one < other ? -1 : 1))
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`).join(',')}}`
}
