// Everything that Sallyport remembers, in one schema that runs on the embedded PGlite and on PostgreSQL 15
// and later. Three families: what admins declare (resource, template), what the ledger owes the targets
// (account, hold, receipt), and what happened (session, audit). Secrets stand only in `secret_value`, sealed;
// other tables name them. Times are the store's own clock (`now()`), never a node's.
import {
  bigint, boolean, index, integer, jsonb, pgTable, primaryKey, sql, text, timestamp, uniqueIndex
} from './drizzle.ts'

export const instant = (name: string) => timestamp(name, { withTimezone: true, precision: 3 })
export const created = () => instant('created_at').notNull().default(sql`now()`)

/** Small facts about this store: instance id, canary of the master key, boot counter. */
export const setting = pgTable('setting', {
  key: text('key').primaryKey(),
  value: jsonb('value').notNull()
})

/** Nodes of the cluster. Declaring a node dead changes its boot in the same transaction (fencing). */
export const node = pgTable('node', {
  id: text('id').primaryKey(),
  boot: text('boot').notNull(),
  beatAt: instant('beat_at').notNull().default(sql`now()`),
  /** Where other nodes ask it for its recordings, with which certificate; null: it says no address. */
  apiUrl: text('api_url'),
  apiCertificate: text('api_certificate'),
  /** Made with the key of the nodes: whoever can only write here cannot send them elsewhere. */
  apiMark: text('api_mark')
})

/**
 * Targets, credentials, users, grants …: declared documents, secrets replaced by references to secret_value.
 */
export const resource = pgTable('resource', {
  kind: text('kind').notNull(),
  name: text('name').notNull(),
  spec: jsonb('spec').notNull(),
  version: integer('version').notNull().default(1),
  createdAt: created(),
  updatedAt: instant('updated_at').notNull().default(sql`now()`),
  updatedBy: text('updated_by').notNull()
}, table => [primaryKey({ columns: [table.kind, table.name] })])

/**
 * One sealed value each: `v1|key id|wrapped data key|nonce|ciphertext|tag`; the key id finds what a rotation
 * must re-wrap.
 */
export const secretValue = pgTable('secret_value', {
  id: text('id').primaryKey(),
  kind: text('kind').notNull(),
  keyId: text('key_id').notNull(),
  sealed: text('sealed').notNull(),
  createdAt: created()
}, table => [index('secret_value_key').on(table.keyId)])

/** Every save of a template is a new version; sessions pin the one that they opened with. */
export const template = pgTable('template', {
  id: text('id').notNull(),
  version: integer('version').notNull(),
  plugin: text('plugin').notNull(),
  action: text('action').notNull(),
  body: text('body').notNull(),
  sha256: text('sha256').notNull(),
  shipped: boolean('shipped').notNull().default(false),
  active: boolean('active').notNull().default(true),
  author: text('author').notNull(),
  createdAt: created()
}, table => [primaryKey({ columns: [table.id, table.version] })])

/**
 * An account that we made, or switched on, on a target: the saga. `state` is what we believe, the wanted
 * state is derived from live holds. `next_at` puts it on the worklist; `spec` pins all that removal needs.
 */
export const account = pgTable('account', {
  id: text('id').primaryKey(),
  target: text('target').notNull(),
  name: text('name').notNull(),
  /** create: one account for each hold, deleted; enable: shared, switched off. */
  kind: text('kind', { enum: ['create', 'enable'] }).notNull(),
  credential: text('credential').notNull(),
  state: text('state', {
    enum: [
      'intended', 'creating', 'active', 'closing', 'removing', 'proved-gone', 'stuck', 'quarantined',
      'unreachable'
    ]
  }).notNull(),
  /** Raised at every claim; an outcome counts only for the epoch that it was claimed with. */
  epoch: integer('epoch').notNull().default(0),
  claimedBy: text('claimed_by'),
  nextAt: instant('next_at'),
  verifyLeft: integer('verify_left').notNull().default(0),
  attempts: integer('attempts').notNull().default(0),
  lastError: text('last_error'),
  /** Plugin, pinned templates, variables, authentication credential: JSON without secrets. */
  spec: jsonb('spec').notNull(),
  /** secret_value id of the injected secret; only shared (enable) accounts need one. */
  secret: text('secret'),
  createdAt: created(),
  activeAt: instant('active_at'),
  endedAt: instant('ended_at')
}, table => [
  uniqueIndex('account_target_name').on(table.target, table.name),
  index('account_due').on(table.nextAt).where(sql`next_at is not null`),
  index('account_state').on(table.state)
])

/** A lease: one owner's bounded right to an account. */
export const hold = pgTable('hold', {
  id: text('id').primaryKey(),
  account: text('account').notNull().references(() => account.id),
  name: text('name').notNull(),
  ownerKind: text('owner_kind', { enum: ['session', 'user', 'application'] }).notNull(),
  owner: text('owner').notNull(),
  node: text('node').notNull(),
  boot: text('boot').notNull(),
  state: text('state', {
    enum: ['pending', 'active', 'released', 'expired', 'revoked', 'failed']
  }).notNull(),
  issuedAt: instant('issued_at').notNull().default(sql`now()`),
  expiresAt: instant('expires_at').notNull(),
  maxAt: instant('max_at').notNull(),
  renewals: integer('renewals').notNull().default(0),
  endedAt: instant('ended_at')
}, table => [
  index('hold_account').on(table.account),
  index('hold_live_expiry').on(table.expiresAt).where(sql`state in ('pending', 'active')`),
  index('hold_node').on(table.node, table.boot).where(sql`state in ('pending', 'active')`),
  index('hold_owner').on(table.ownerKind, table.owner)
])

/** The complete ordered history of a lease (S4). */
export const leaseEvent = pgTable('lease_event', {
  id: bigint('id', { mode: 'number' }).primaryKey().generatedAlwaysAsIdentity(),
  account: text('account').notNull(),
  hold: text('hold'),
  at: instant('at').notNull().default(sql`now()`),
  kind: text('kind').notNull(),
  actor: text('actor').notNull(),
  detail: jsonb('detail').notNull().default({})
}, table => [index('lease_event_account').on(table.account), index('lease_event_hold').on(table.hold)])

/** Proof of removal: the signed body; its hash is also an audit event, which chains it. */
export const receipt = pgTable('receipt', {
  id: text('id').primaryKey(),
  account: text('account').notNull(),
  session: text('session'),
  body: jsonb('body').notNull(),
  keyId: text('key_id').notNull(),
  signature: text('signature').notNull(),
  createdAt: created()
}, table => [index('receipt_account').on(table.account), index('receipt_session').on(table.session)])

/** One proxied connection. */
export const session = pgTable('session', {
  id: text('id').primaryKey(),
  user: text('user_name').notNull(),
  credential: text('credential').notNull(),
  target: text('target').notNull(),
  protocol: text('protocol').notNull(),
  grant: text('grant_name').notNull(),
  address: text('address').notNull(),
  database: text('database'),
  node: text('node').notNull(),
  boot: text('boot').notNull(),
  status: text('status', { enum: ['opening', 'live', 'ended', 'refused', 'interrupted'] }).notNull(),
  /** Ledger id and name of the account it used; null when JIT is disabled. */
  account: text('account'),
  accountName: text('account_name'),
  startedAt: instant('started_at').notNull().default(sql`now()`),
  expiresAt: instant('expires_at'),
  endedAt: instant('ended_at'),
  /** `ended`, `cut` …: code of the ending, and its reference. */
  reason: text('reason'),
  recording: text('recording'),
  recordingHead: text('recording_head'),
  recordingBytes: bigint('recording_bytes', { mode: 'number' })
}, table => [
  index('session_started').on(table.startedAt, table.id),
  index('session_user').on(table.user, table.startedAt),
  index('session_target').on(table.target, table.startedAt),
  index('session_live').on(table.node, table.boot).where(sql`status in ('opening', 'live')`)
])

/** Hash chain, one for each node boot: `hash = SHA-256(prev || canonical JSON)`. */
export const auditEvent = pgTable('audit_event', {
  chain: text('chain').notNull(),
  seq: bigint('seq', { mode: 'number' }).notNull(),
  at: text('at').notNull(),
  kind: text('kind').notNull(),
  actor: text('actor').notNull(),
  subject: text('subject').notNull(),
  detail: jsonb('detail').notNull(),
  prev: text('prev').notNull(),
  hash: text('hash').notNull()
}, table => [
  primaryKey({ columns: [table.chain, table.seq] }),
  index('audit_event_at').on(table.at),
  index('audit_event_subject').on(table.subject)
])

/** Where each chain stands, kept in step with its rows, so that a checkpoint needs no scan of the events. */
export const auditChain = pgTable('audit_chain', {
  chain: text('chain').primaryKey(),
  seq: bigint('seq', { mode: 'number' }).notNull(),
  hash: text('hash').notNull(),
  /** The `seq` that the newest checkpoint signed; 0 before the first. */
  signedSeq: bigint('signed_seq', { mode: 'number' }).notNull().default(0)
})

/** Signed heads of all chains; exported copies detect truncation and roll-back. */
export const auditCheckpoint = pgTable('audit_checkpoint', {
  seq: bigint('seq', { mode: 'number' }).primaryKey(),
  body: jsonb('body').notNull(),
  keyId: text('key_id').notNull(),
  signature: text('signature').notNull(),
  createdAt: created()
})

/** Bearer tokens of people and of the first start, hashed. */
export const apiToken = pgTable('api_token', {
  hash: text('hash').primaryKey(),
  user: text('user_name').notNull(),
  roles: jsonb('roles').notNull(),
  createdAt: created(),
  expiresAt: instant('expires_at').notNull(),
  oneTime: boolean('one_time').notNull().default(false),
  /** How and when the person behind it proved who they are; null where nobody did in a browser. */
  method: text('method'),
  authenticatedAt: instant('authenticated_at'),
  /** Hash of the first token of a login: a browser's is replaced every hour. */
  family: text('family'),
  /** When another took its place; who brings it later has a copy. */
  supersededAt: instant('superseded_at')
}, table => [index('api_token_family').on(table.family)])

/**
 * Second factors of people, apart from their documents: `apply` neither shows nor touches them. `last_step`
 * is the time step of the newest code that was accepted: it only grows, so that no code counts twice.
 */
export const secondFactor = pgTable('second_factor', {
  user: text('user_name').primaryKey(),
  /** secret_value id of the shared secret; a new enrolment has a new one. */
  secret: text('secret').notNull(),
  lastStep: bigint('last_step', { mode: 'number' }).notNull().default(0),
  createdAt: created(),
  /** When the first right code came; until then nothing is asked for. */
  confirmedAt: instant('confirmed_at')
})

/** Bearer tokens of applications, hashed; apart from their documents, which say nothing of them. */
export const applicationToken = pgTable('application_token', {
  id: text('id').primaryKey(),
  hash: text('hash').notNull().unique(),
  application: text('application').notNull(),
  createdAt: created(),
  createdBy: text('created_by').notNull(),
  expiresAt: instant('expires_at').notNull(),
  lastUsedAt: instant('last_used_at')
}, table => [index('application_token_application').on(table.application)])

/**
 * Credentials of a secret that renews itself (R2): the current one, those that are still valid for a while,
 * and what there was. Each is a lease; its values are sealed as long as somebody may read them.
 */
export const renewedCredential = pgTable('renewed_credential', {
  path: text('path').notNull(),
  version: integer('version').notNull(),
  state: text('state', { enum: ['pending', 'current', 'retiring', 'retired', 'failed'] }).notNull(),
  lease: text('lease'),
  /** secret_value id of the values; null before they are there and once they are worthless. */
  secret: text('secret'),
  createdAt: created(),
  /** End of the overlap. */
  retireAt: instant('retire_at'),
  retiredAt: instant('retired_at'),
  /** When it was first said that it is still in use after its overlap. */
  alarmedAt: instant('alarmed_at')
}, table => [
  primaryKey({ columns: [table.path, table.version] }),
  index('renewed_credential_alive').on(table.path).where(sql`state in ('pending', 'current', 'retiring')`)
])

/** Who has read which version of such a secret last: the proof that a new one was adopted. */
export const credentialReader = pgTable('credential_reader', {
  path: text('path').notNull(),
  /** `application billing`, `user alice`. */
  reader: text('reader').notNull(),
  version: integer('version').notNull(),
  readAt: instant('read_at').notNull().default(sql`now()`)
}, table => [primaryKey({ columns: [table.path, table.reader] })])

/**
 * Somebody asks for what a grant gives only with approval (D5). Approved, it is access with an end; one for
 * an emergency is approved when it is made, and reviewed later.
 */
export const accessRequest = pgTable('access_request', {
  id: text('id').primaryKey(),
  user: text('user_name').notNull(),
  credential: text('credential').notNull(),
  grant: text('grant_name').notNull(),
  reason: text('reason'),
  emergency: boolean('emergency').notNull().default(false),
  state: text('state', { enum: ['pending', 'approved', 'denied', 'expired', 'withdrawn'] }).notNull(),
  validForSeconds: integer('valid_for_seconds').notNull(),
  createdAt: created(),
  /** Not decided by then, it is `expired`. */
  expiresAt: instant('expires_at').notNull(),
  validUntil: instant('valid_until'),
  reviewedAt: instant('reviewed_at')
}, table => [
  // Whoever asks twice asks once.
  uniqueIndex('access_request_pending').on(table.user, table.grant, table.credential)
    .where(sql`state = 'pending'`),
  index('access_request_user').on(table.user, table.validUntil),
  index('access_request_created').on(table.createdAt, table.id)
])

/** What people said to a request; each says the same thing once. */
export const requestDecision = pgTable('request_decision', {
  request: text('request').notNull().references(() => accessRequest.id),
  by: text('by_name').notNull(),
  verdict: text('verdict', { enum: ['approve', 'deny', 'withdraw', 'review'] }).notNull(),
  reason: text('reason'),
  at: instant('at').notNull().default(sql`now()`)
}, table => [primaryKey({ columns: [table.request, table.by, table.verdict] })])

/**
 * What was done for a request with an `Idempotency-Key`: written before it is done, so that the same key
 * never does it twice. The answer, which may hold secrets, is kept sealed for minutes; that there was one, a
 * day.
 */
export const idempotencyKey = pgTable('idempotency_key', {
  /** `user alice`, `application billing`. */
  principal: text('principal').notNull(),
  key: text('key').notNull(),
  /** SHA-256 of method, path, query and body. */
  request: text('request').notNull(),
  state: text('state', { enum: ['running', 'done', 'unknown'] }).notNull(),
  /** Who is at it; once that boot is over, nobody knows how it ended. */
  node: text('node').notNull(),
  boot: text('boot').notNull(),
  /** What came of it, in words without secrets: `lease 01h…`. */
  said: text('said'),
  /** secret_value id of the answer; null once nobody gets it any more. */
  answer: text('answer'),
  createdAt: created(),
  answeredAt: instant('answered_at')
}, table => [
  primaryKey({ columns: [table.principal, table.key] }),
  index('idempotency_key_created').on(table.createdAt),
  index('idempotency_key_answer').on(table.answeredAt).where(sql`answer is not null`)
])

/** Who gets the audit events (syslog, webhooks), which node sends them, and since when that fails. */
export const auditReceiver = pgTable('audit_receiver', {
  name: text('name').primaryKey(),
  claimedBy: text('claimed_by'),
  claimedUntil: instant('claimed_until'),
  failingSince: instant('failing_since'),
  createdAt: created()
})

/** The last event of each chain that a receiver has. */
export const auditPosition = pgTable('audit_position', {
  receiver: text('receiver').notNull(),
  chain: text('chain').notNull(),
  seq: bigint('seq', { mode: 'number' }).notNull()
}, table => [primaryKey({ columns: [table.receiver, table.chain] })])
