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
import type { Nodes } from '../nodes/nodes.ts'
import type { Declared, Role, SecretReference, User } from '../policy/types.ts'
import type { Secret } from '../secret.ts'
import type { Secrets } from '../secrets/secrets.ts'
import type { LoginPorts } from './ports-login.ts'
import type {
  AuditPort, HealthPort, LeasePort, OrphanPort, RecordingPort, RequestPort, SessionPort
} from './ports-records.ts'

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
  logins: LoginPorts
  tokens: TokenStore
  applicationTokens: ApplicationTokenStore
  idempotency: IdempotencyPort
  policy: PolicyPort
  sessions: SessionPort
  recordings: RecordingPort
  /** The other nodes, for what was recorded there. */
  nodes: Pick<Nodes, 'holding' | 'others' | 'admit'>
  leases: LeasePort
  secrets: Secrets
  orphans: OrphanPort
  requests: RequestPort
  audit: AuditPort
  health: HealthPort
  /** What SSH clients must know of this node; undefined when it takes none. */
  ssh(): SshDoor | undefined
  /** The listener of TCP targets; undefined when this node has none. */
  tunnel(): TunnelDoor | undefined
  /**
   * A ticket for one session of a user in a page of the console, for this login of theirs. Throws
   * `too-many-connections`.
   */
  browserTicket(user: string, login: string): { ticket: string, expiresAt: Date }
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
  /** The authority that certifies accounts for targets: their sshd may trust it (TrustedUserCAKeys). */
  userAuthority: string
}

export interface TunnelDoor {
  host: string
  port: number
  /** A ticket for one session of a user with this login. Throws `too-many-connections`. */
  issue(user: string, login: string): { ticket: string, expiresAt: Date }
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

export interface ResourcePage {
  after?: string | undefined
  limit: number
  /** A part of the name. */
  name?: string | undefined
}

export interface ResourceStore {
  list(kind?: string): Promise<readonly ResourceRow[]>
  /** Of a kind by name, in the order of bytes. */
  page(kind: string, page: ResourcePage): Promise<readonly ResourceRow[]>
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
  of(user: string, address: string): Promise<{ check(code: string): Promise<boolean> } | undefined>
  list(): Promise<readonly { user: string, confirmed: boolean }[]>
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
  /** All of them, oldest first. */
  versions(id: string): Promise<readonly TemplateRow[]>
  /** A new version (J9), unless the newest one has this text. */
  save(template: NewTemplate): Promise<TemplateRow>
  setActive(id: string, active: boolean): Promise<void>
}

/**
 * Both actions of a credential on its target with an account of its own, and a look at what remains. `told`
 * hears of each step when it is over.
 */
export type Prove = (
  credential: string, signal: AbortSignal, told?: (step: ProofReport['steps'][0]) => void
) => Promise<ProofReport>

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
  /** How and when the person proved who they are; absent where nobody did. */
  login?: { method: string, at: Date } | undefined
}

export interface StoredToken extends TokenRow {
  createdAt?: Date | undefined
  /** When another took its place. */
  supersededAt?: Date | undefined
  /** Hash of the first token of this login; the same for those that replaced it. */
  family?: string | undefined
}

/** Bearer tokens by the SHA-256 of their text (hex). */
export interface TokenStore {
  add(hash: string, token: TokenRow): Promise<void>
  /** Undefined when unknown or expired, by the store's clock. */
  find(hash: string): Promise<StoredToken | undefined>
  /** Takes a one-time token away: exactly one caller gets it. */
  redeem(hash: string): Promise<TokenRow | undefined>
  /** Puts another in its place, with these roles; false when somebody else did. */
  supersede(hash: string, by: string, roles: readonly Role[]): Promise<boolean>
  /** Ends the login that the token belongs to. */
  remove(hash: string): Promise<void>
  /** Ends every token of a user. */
  removeOf(user: string): Promise<void>
  /** Is there a one-time token that has not been used and has not expired? */
  hasOneTime(): Promise<boolean>
}

/** What is known of a key: see store/idempotency.ts. */
export type KeyState =
  | { state: 'new' | 'other' | 'running' | 'unknown' }
  | { state: 'done', said: string, answer: Secret<string> | undefined }

export interface IdempotencyPort {
  /** Of two at the same moment one gets `new`, and has to say how it ended. Throws `limit-reached`. */
  claim(principal: string, key: string, request: string): Promise<KeyState>
  done(principal: string, key: string, said: string, answer: Secret<string>): Promise<void>
  free(principal: string, key: string): Promise<void>
  doubt(principal: string, key: string): Promise<void>
}

export interface ApplicationTokenRow {
  id: string
  application: string
  createdAt: Date
  createdBy: string
  expiresAt: Date
  lastUsedAt: Date | null
}

export interface NewApplicationToken {
  id: string
  /** SHA-256 of its text (hex). */
  hash: string
  application: string
  ttlSeconds: number
}

/** Tokens of applications. Every change has its audit event with it. */
export interface ApplicationTokenStore {
  add(token: NewApplicationToken, by: string): Promise<ApplicationTokenRow>
  /** In place of another, which ends after `overlapSeconds`; undefined when that one is gone or expired. */
  rotate(token: NewApplicationToken, old: string, overlapSeconds: number, by: string):
    Promise<ApplicationTokenRow | undefined>
  find(hash: string): Promise<ApplicationTokenRow | undefined>
  list(application: string): Promise<readonly ApplicationTokenRow[]>
  remove(application: string, id: string, by: string): Promise<boolean>
  removeOf(application: string): Promise<void>
}
