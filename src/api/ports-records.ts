// What the API needs of the rooms that keep what happened: sessions and their recordings, leases and what is
// on the targets, the audit log, the health of this node. As in ports.ts: small interfaces, shapes as they
// are shown, and nothing that decides.
import type { LastOutcome } from '../jit/last-outcomes.ts'
import type { TargetHealth } from '../jit/target-queue.ts'
import type { RecordingReader } from '../nodes/recordings.ts'
import type { Rule, RuleAction } from '../policy/types.ts'
import type { Hit } from '../recording/catalog.ts'
import type { JsonLines } from './route.ts'

// ---- sessions and their records

export interface SessionRow {
  id: string
  user: string
  credential: string
  target: string
  protocol: string
  grant: string
  address: string
  database: string | null
  node: string
  status: 'opening' | 'live' | 'ended' | 'refused' | 'interrupted'
  account: string | null
  accountName: string | null
  startedAt: Date
  expiresAt: Date | null
  endedAt: Date | null
  reason: string | null
  recording: string | null
  recordingHead: string | null
  recordingBytes: number | null
}

export interface SessionFilter {
  user?: string | undefined
  credential?: string | undefined
  target?: string | undefined
  status?: SessionRow['status'] | undefined
  since?: Date | undefined
  until?: Date | undefined
  /** Sessions older than this one: ids sort by start. */
  before?: string | undefined
  limit: number
}

export interface ReceiptRow {
  id: string
  account: string
  session: string | null
  body: Record<string, unknown>
  keyId: string
  signature: string
  createdAt: Date
}

export interface SessionPort {
  list(filter: SessionFilter): Promise<readonly SessionRow[]>
  get(id: string): Promise<SessionRow | undefined>
  /** The newest receipt of each session that has one. */
  receipts(sessions: readonly string[]): Promise<ReadonlyMap<string, ReceiptRow>>
  /** State of the account in the ledger, e.g. `removing`; undefined when the session had none. */
  accountStates(accounts: readonly string[]): Promise<ReadonlyMap<string, string>>
  /** Ends a live session on whatever node it is; false when it is not alive. */
  kill(id: string, by: string): Promise<boolean>
}

/**
 * The recordings folder. Each method throws `not-found` at once when there is no recording of the session. In
 * `RecordingReader` are the ways to look that another node answers as well.
 */
export interface RecordingPort extends RecordingReader {
  /** Whether the recording of a session lies here. */
  has(session: string): boolean
  linesFrom(session: string, fromMs: number, before: number): JsonLines<RecordedLine>
  search(wanted: SearchRequest): AsyncIterable<Hit>
  /** What rules would have said to all that fits. */
  whatIf(wanted: WhatIfRequest): AsyncIterable<WhatIfLine>
  /** PEM of the keys that sign recordings, receipts and checkpoints. */
  publicKey(): string
}

/** What its readers may find in a line of a recording's export; `type` says which of it. */
export interface RecordedLine {
  type: string
  /** Of `skipped`. */
  count?: number
  at: string
  atMs: number
  kind?: string
  sql?: string
  parameters?: (string | null)[]
  outcome?: string
  results?: { tag: string, rows: number, bytes: number, copiedBytes: number }[]
  error?: { severity: string, sqlstate: string, message: string }
  notices?: string[]
  durationMs?: number
  /** Of a statement: what a rule said to it. */
  verdict?: { verdict: string, rule: string, kinds: string }
  alarm?: string
  cut?: boolean
  event?: string
  how?: string
  reason?: string
}

export interface WhatIfRequest {
  rules: readonly Rule[]
  session: string | undefined
  /** ISO 8601: sessions that started at or after, and before. */
  from: string | undefined
  to: string | undefined
  signal: AbortSignal
}

export type WhatIfLine =
  | {
    session: string
    user: string
    target: string
    at: string
    /** Since the start of the session. */
    atMs: number
    on: Rule['on']
    then: RuleAction
    /** Place in the list, from 1; null: it cannot be read. */
    rule: number | null
    kinds: readonly string[]
    what: string
  }
  | { done: true, sessions: number, judged: number, found: number }

export interface SearchRequest {
  query: string
  limit: number
  session: string | undefined
  signal: AbortSignal
}

// ---- leases

export interface LeaseRow {
  id: string
  name: string
  account: string
  accountName: string
  accountState: string
  target: string
  credential: string
  ownerKind: 'session' | 'user' | 'application'
  owner: string
  status: 'active' | 'expired' | 'revoked' | 'revoking' | 'failed'
  createdAt: Date
  expiresAt: Date
  maxAt: Date
  endedAt: Date | null
  renewals: number
  /** Milliseconds by which it can still be prolonged (S5). */
  renewableMs: number
  lastError: string | null
}

export interface LeaseFilter {
  target?: string | undefined
  /** Name of a credential, or path of a secret. */
  credential?: string | undefined
  ownerKind?: LeaseRow['ownerKind'] | undefined
  owner?: string | undefined
  status?: string | undefined
  /** Id of the last lease of the page before. */
  before?: string | undefined
  limit: number
}

export interface LeasePort {
  list(filter: LeaseFilter): Promise<readonly LeaseRow[]>
  show(id: string): Promise<LeaseRow | undefined>
  /** Adds `seconds` to the expiry (S5); throws `invalid` past the maximum or `latest`, or after the end. */
  renew(id: string, seconds: number, by: string, address?: string, latest?: Date): Promise<LeaseRow>
  /** True when it was live; a second revoke changes nothing (S6). */
  revoke(id: string, by: string, address?: string): Promise<boolean>
  /** Ends all of a target, a credential or a secret (by its path). */
  revokeAll(where: { target: string } | { credential: string }, by: string): Promise<number>
  /** In order; those after an event, where it is named. */
  history(id: string, page: { after?: number | undefined, limit: number }): Promise<readonly LeaseEventRow[]>
  /** What in the ledger still needs this target or credential: one sentence each. */
  dependants(kind: 'target' | 'credential', name: string): Promise<readonly string[]>
}

export interface LeaseEventRow {
  /** In the order of what happened. */
  id: number
  at: Date
  kind: string
  actor: string
  detail: Record<string, unknown>
}

export interface OrphanRow {
  target: string
  name: string
  accountId: string | null
  /**
   * `orphan`: carries our marker, the ledger does not want it. `foreign`: looks like ours, does not carry
   * it.
   */
  verdict: string
  detail: string
}

export interface OrphanPort {
  scan(target: string | undefined, signal: AbortSignal): Promise<OrphanReport>
  /** Removes what `scan` calls an orphan, with proof; never anything else. */
  reap(target: string | undefined, by: string, signal: AbortSignal): Promise<OrphanReport>
}

export interface OrphanReport {
  orphans: readonly OrphanRow[]
  /** Targets that could not be looked at, and why. */
  unreachable: readonly { target: string, reason: string }[]
}

// ---- audit and health

export interface AuditRow {
  chain: string
  seq: number
  at: string
  kind: string
  actor: string
  subject: string
  detail: unknown
  prev: string
  hash: string
}

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

export interface AuditVerifyReport {
  valid: boolean
  events: number
  checkpoints: number
  /** Rows that no signed checkpoint vouches for yet. */
  unsigned: number
  /** The first bad row of each chain, and what a checkpoint says that is not there. */
  problems: readonly string[]
  heads: readonly { chain: string, seq: number, hash: string }[]
}

export interface AuditPort {
  append(kind: string, actor: string, subject: string, detail: Record<string, unknown>): Promise<void>
  list(filter: AuditFilter): Promise<readonly AuditRow[]>
  /** With the text of an exported checkpoint: also truncation and roll-back since then. */
  verify(checkpoint?: string): Promise<AuditVerifyReport>
  /** JSON lines: events in order, then a signed checkpoint. */
  export(filter: { since?: Date | undefined }): Promise<AsyncIterable<string>>
}

export interface HealthCheck {
  name: string
  status: 'ok' | 'warning' | 'failed'
  /** What was found, in a sentence; and what to do, where something is to be done. */
  detail: string
}

/** What the hooks of this node know of targets. */
export interface HookHealth {
  /** Only targets that are busy or failing have one. */
  queues: readonly TargetHealth[]
  /** By target: what came of the last action since the start. */
  last: ReadonlyMap<string, LastOutcome>
}

export interface HealthPort {
  hooks(): HookHealth
  /** Ready to take sessions. Cheap: asked every few seconds. */
  ready(): Promise<boolean>
  /** The figures of this node, in the text format of Prometheus. */
  metrics(): Promise<string>
  /**
   * Everything that `doctor` asks of a running server: store, disk reserve, clock, targets and missing
   * rights.
   */
  examine(signal: AbortSignal): Promise<readonly HealthCheck[]>
}

// ---- requests for access that needs approval

export type RequestState = 'pending' | 'approved' | 'denied' | 'expired' | 'withdrawn'

export interface RequestRow {
  id: string
  user: string
  credential: string
  grant: string
  reason: string | null
  emergency: boolean
  state: RequestState
  validForSeconds: number
  createdAt: Date
  expiresAt: Date
  validUntil: Date | null
  reviewedAt: Date | null
  decisions: readonly {
    by: string
    verdict: 'approve' | 'deny' | 'withdraw' | 'review'
    reason: string | null
    at: Date
  }[]
}

export interface RequestVerdict {
  by: string
  reason?: string | undefined
}

/** Every change has its audit event with it; each is `not-found` or `conflict` where it does not fit. */
export interface RequestPort {
  create(request: {
    user: string, grant: string, credential: string, reason?: string | undefined, emergency: boolean,
    validForSeconds: number, origin: string
  }): Promise<{ row: RequestRow, isNew: boolean }>
  get(id: string): Promise<RequestRow | undefined>
  /** Newest first: of a user or on one of the grants; all where neither is given. */
  list(filter: {
    user?: string | undefined, grants?: readonly string[] | undefined, state?: RequestState | undefined,
    open?: boolean | undefined, before?: string | undefined, limit: number
  }): Promise<readonly RequestRow[]>
  /** It is approved when `count` of `approvers` have. */
  approve(
    id: string, verdict: RequestVerdict, approvers: readonly string[], count: number): Promise<RequestRow>
  deny(id: string, verdict: RequestVerdict): Promise<RequestRow>
  withdraw(id: string, verdict: RequestVerdict): Promise<RequestRow>
  review(id: string, verdict: RequestVerdict): Promise<RequestRow>
}
