// What the API needs of the other rooms, as small interfaces: the program (main.ts) hands the doing in, a
// test hands in something small. Nothing here knows a table, a socket or a file; the shapes are what the
// API shows, in the words of the specification. All times are `Date`s; they leave as ISO 8601 UTC.
import type { Clock } from '../clock.ts'
import type { SallyportError } from '../errors.ts'
import type { Address } from '../input.ts'
import type { Action } from '../jit/plugin.ts'
import type { Shelf } from '../jit/shelf.ts'
import type { Choice } from '../policy/authorise.ts'
import type { LoginName } from '../policy/login-name.ts'
import type { Declared, Role, SecretReference, User } from '../policy/types.ts'
import type { Hit } from '../recording/catalog.ts'
import type { ExportFormat } from '../recording/export.ts'
import type { Scene } from '../recording/screenplay.ts'
import type { Expected, Verdict } from '../recording/verify.ts'
import type { Secret } from '../secret.ts'

export interface ApiPorts {
  clock: Clock
  version: string
  node: string
  resources: ResourceStore
  templates: TemplateStore
  shelf: Shelf
  prove: Prove
  passwords: PasswordPort
  secondFactors: SecondFactorPort
  tokens: TokenStore
  policy: PolicyPort
  sessions: SessionPort
  recordings: RecordingPort
  leases: LeasePort
  orphans: OrphanPort
  audit: AuditPort
  health: HealthPort
  /** What SSH clients must know of this node; undefined when it takes none. */
  ssh(): SshDoor | undefined
  /** Where PostgreSQL clients connect to this node; undefined when it takes none. */
  postgres(): Address | undefined
  /** Log line for an error of ours, under its reference. */
  failed(error: SallyportError, request: string): void
}

export interface SshDoor {
  host: string
  port: number
  /**
   * Lines `ssh-ed25519 AAAA…`: our own key, and the authority that certifies us as each target (`ssh -J`).
   */
  hostKey: string
  hostAuthority: string
}

// ---- what admins declare

export interface ResourceRow {
  kind: string
  name: string
  /** As in policy/types.ts. */
  spec: unknown
  version: number
  createdAt: Date
  updatedAt: Date
  updatedBy: string
}

export interface ResourceStore {
  list(kind?: string): Promise<readonly ResourceRow[]>
  get(kind: string, name: string): Promise<ResourceRow | undefined>
  /**
   * All that `act` does, or nothing; one change at a time over all nodes, so that what was checked still
   * holds.
   */
  change<T>(act: (change: ResourceChange) => Promise<T>): Promise<T>
  /** After a change was committed: whoever keeps a copy of what is declared reads it again. */
  changed(): Promise<void>
}

export interface ResourceChange {
  list(): Promise<readonly ResourceRow[]>
  put(kind: string, name: string, spec: unknown, by: string): Promise<void>
  delete(kind: string, name: string): Promise<void>
  /** Seals a value under a new id. */
  seal(kind: string, plain: Secret<string>): Promise<SecretReference>
  open(reference: SecretReference): Promise<Secret<string>>
  forget(reference: SecretReference): Promise<void>
  audit(kind: string, actor: string, subject: string, detail: Record<string, unknown>): Promise<void>
}

/** User passwords: never stored, only their SCRAM-SHA-256 verifier is. */
export interface PasswordPort {
  makeVerifier(password: Secret<string>): Promise<string>
  /** In the same time whether it matches or not. */
  matches(verifier: string, password: Secret<string>): Promise<boolean>
  /** What a name's password is held against; one that is made up, at the same cost, when there is none. */
  verifierOf(declared: Declared, name: string): Promise<string>
  /** Throws `auth-throttled` when the address has failed too often. */
  admit(address: string): void
  /** Told how a login ended, for `admit`. */
  tried(address: string, succeeded: boolean): void
}

/** One-time codes of people, apart from their documents. Every change has its audit event with it. */
export interface SecondFactorPort {
  /** What a person has to prove beside the password; undefined: nothing. A right code is used up. */
  of(user: string): Promise<{ check(code: string): Promise<boolean> } | undefined>
  /** The URI for an authenticator app, this once; undefined when there is a confirmed one, which stays. */
  enrol(user: string, by: string): Promise<string | undefined>
  /** `wrong`: the code; `none`: nothing waits for one. */
  confirm(user: string, code: string, by: string): Promise<'confirmed' | 'wrong' | 'none'>
  /** False when there was none. */
  remove(user: string, by: string): Promise<boolean>
}

// ---- templates and plugins

export interface TemplateRow {
  id: string
  version: number
  plugin: string
  action: Action
  body: string
  sha256: string
  shipped: boolean
  active: boolean
  author: string
  createdAt: Date
}

/** A text that has been read and found fit, as it is stored. */
export interface NewTemplate {
  id: string
  plugin: string
  action: Action
  body: string
  author: string
  shipped: boolean
}

export interface TemplateStore {
  /** The newest version of each. */
  list(): Promise<readonly TemplateRow[]>
  /** The newest version, or the one asked for. */
  get(id: string, version?: number): Promise<TemplateRow | undefined>
  /** A new version (J9), unless the newest one has this text. */
  save(template: NewTemplate): Promise<TemplateRow>
  setActive(id: string, active: boolean): Promise<void>
}

/** Both actions of a credential on its target with an account of its own, and a look at what remains. */
export type Prove = (credential: string, signal: AbortSignal) => Promise<ProofReport>

export interface ProofReport {
  passed: boolean
  steps: readonly { name: string, passed: boolean, detail: string, milliseconds: number }[]
}

// ---- who may do what

export interface PolicyPort {
  declared(): Promise<Declared>
  readLoginName(login: string, database?: string): LoginName | undefined
  printLoginName(login: LoginName): string
  choicesOf(declared: Declared, user: User, login: LoginName, protocol: string, now: Date): readonly Choice[]
  choicesFor(declared: Declared, userName: string, protocol: string, now: Date): readonly Choice[]
}

export interface TokenRow {
  user: string
  roles: readonly Role[]
  expiresAt: Date
  oneTime: boolean
}

/** Bearer tokens by the SHA-256 of their text (hex). */
export interface TokenStore {
  add(hash: string, token: TokenRow): Promise<void>
  /** Undefined when unknown or expired, by the store's clock. */
  find(hash: string): Promise<TokenRow | undefined>
  /** Takes a one-time token away: exactly one caller gets it. */
  redeem(hash: string): Promise<TokenRow | undefined>
  remove(hash: string): Promise<void>
  /** Ends every token of a user. */
  removeOf(user: string): Promise<void>
  /** Is there a one-time token that has not been used and has not expired? */
  hasOneTime(): Promise<boolean>
}

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
 * The recordings folder. Each method throws `not-found` at once when there is no recording of the session.
 */
export interface RecordingPort {
  /** The file as it is. */
  raw(session: string): AsyncIterable<Uint8Array>
  /** What was on the screen, and when. */
  scenes(session: string): AsyncIterable<Scene>
  /** The same from the start and then as it happens, until the session ends or the signal aborts. */
  follow(session: string, signal: AbortSignal): AsyncIterable<Scene>
  export(session: string, format: ExportFormat): AsyncIterable<string>
  /** Against our keys, and against what the store says was sealed. */
  verify(session: string, expected: Expected): Promise<Verdict>
  search(wanted: SearchRequest): AsyncIterable<Hit>
  /** PEM of the keys that sign recordings, receipts and checkpoints. */
  publicKey(): string
}

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
  owner?: string | undefined
  status?: string | undefined
  limit: number
}

export interface LeasePort {
  list(filter: LeaseFilter): Promise<readonly LeaseRow[]>
  show(id: string): Promise<LeaseRow | undefined>
  /** Adds `seconds` to the expiry (S5); throws `invalid` past the maximum or after the end. */
  renew(id: string, seconds: number, by: string): Promise<LeaseRow>
  /** True when it was live; a second revoke changes nothing (S6). */
  revoke(id: string, by: string): Promise<boolean>
  history(id: string): Promise<readonly LeaseEventRow[]>
  /** What in the ledger still needs this target or credential: one sentence each. */
  dependants(kind: 'target' | 'credential', name: string): Promise<readonly string[]>
}

export interface LeaseEventRow {
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

export interface HealthPort {
  /** Ready to take sessions. Cheap: asked every few seconds. */
  ready(): Promise<boolean>
  /**
   * Everything that `doctor` asks of a running server: store, disk reserve, clock, targets and missing
   * rights.
   */
  examine(signal: AbortSignal): Promise<readonly HealthCheck[]>
}
