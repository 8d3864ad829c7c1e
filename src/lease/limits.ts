// Every time and number that the ledger keeps to, in one place, with what each rests on. They lean on the
// limits of hooks (jit/hooks.ts): connecting 5 s, one statement 10 s, one action 30 s, one look 10 s.
// A claim that is shorter than what it covers would be taken over while its owner is still at work.
import type { BackoffLimits } from './backoff.ts'

export interface LedgerLimits {
  /** How long a claim on an account lasts: an action, its look, and some waiting for the target's queue. */
  claimMs: number
  /** When a lost effect can land no more: one statement's limit, one connection's, and a margin. */
  lateCheckMs: number
  /** The dead-man's switch on the target is set this much after the end of the longest possible lifetime. */
  deadManMs: number
  /** How often the worklist is looked at; an expired lease is cut within 5 s (S7). */
  tickMs: number
  /** How often this node says that it is alive. */
  beatMs: number
  /** A node that has not been heard of for so long is declared dead (F23: at most 30 s). */
  nodeTtlMs: number
  /** A node that could not say so cuts its own sessions this much earlier. */
  nodeMarginMs: number
  /** How often this node asks which of its leases were ended by another. */
  askMs: number
  /** How often one account of an unreachable target is tried (R3: back within 10 s). */
  probeMs: number
  /** The accounts of a target that came back are tried over this time. */
  wakeSpreadMs: number
  /**
   * Removals that are begun at once: of one target, and in all. The first is what a slow target gets; one
   * that has removed many within a second gets that many, up to `perTargetMax`: a claim lasts much longer.
   */
  perTarget: number
  perTargetMax: number
  inAll: number
  /** Leases and processes swept in one transaction. */
  sweepBatch: number
  retry: BackoffLimits
  /** Longest that the end of a session waits for its removal; the removal goes on. */
  releaseWaitMs: number
  /** Longest that a refused opening waits for its undoing. */
  undoWaitMs: number
  /** Longest that a session waits for others to switch a shared account on or off. */
  joinWaitMs: number
  joinPollMs: number
  /** Names that may be taken already before issuing is given up. */
  namesMax: number
  /** Longest that the cut at expiry waits for the store to say that the lease was renewed. */
  expiryAskMs: number
}

export const ledgerLimits: LedgerLimits = {
  claimMs: 60_000,
  lateCheckMs: 20_000,
  deadManMs: 15 * 60_000,
  tickMs: 1000,
  beatMs: 5000,
  nodeTtlMs: 30_000,
  nodeMarginMs: 10_000,
  askMs: 2000,
  probeMs: 5000,
  wakeSpreadMs: 1000,
  perTarget: 16,
  perTargetMax: 256,
  inAll: 512,
  sweepBatch: 500,
  retry: { baseMs: 1000, capMs: 5 * 60_000 },
  releaseWaitMs: 10_000,
  undoWaitMs: 5000,
  joinWaitMs: 45_000,
  joinPollMs: 50,
  namesMax: 12,
  expiryAskMs: 2000
}
