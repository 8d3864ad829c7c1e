// The JSON that the API answers with, in the words of the specification: ids are strings, times ISO 8601
// UTC, what is not there is null. These schemas are the contract: the server cuts its answers down to them,
// the OpenAPI document prints them, and the command line tool takes its types from them.
import { z } from 'zod'
import type { VerdictAnswer } from '../nodes/words.ts'
import type { ApplicationTokenRow, TemplateRow } from './ports.ts'
import type { AuditRow, LeaseRow, ReceiptRow, RequestRow, SessionRow } from './ports-records.ts'

const instant = z.iso.datetime()
const nullableInstant = instant.nullable()

/** What session ids look like (session/id.ts); anything else is not even looked up. */
export const sessionId = z.string().regex(/^[0-9a-z]{8,40}$/, 'expected a session id')

export const done = z.object({ done: z.boolean() })

export const issuedShape = z.object({
  token: z.string(), name: z.string(), roles: z.array(z.string()), expiresAt: instant
})
/** For the listener of TCP targets, where it has to be brought. */
export const ticketShape = z.object({
  ticket: z.string(), expiresAt: instant, host: z.string(), port: z.int()
})

export const browserTicketShape = ticketShape.pick({ ticket: true, expiresAt: true })

/** What a browser is told: its token is in a cookie. */
export const enteredShape = issuedShape.omit({ token: true })
const doorShape = z.object({ host: z.string(), port: z.int() }).nullable()
/** Null: this node takes none. */
export const doorsShape = z.object({ ssh: doorShape, postgres: doorShape })
export const sshDoorShape = z.object({
  host: z.string(), port: z.int(), hostKey: z.string(), hostAuthority: z.string(),
  userAuthority: z.string(),
  /** Names of the targets that are open to the caller; of all targets for admins. */
  targets: z.array(z.string())
})

export const enrolledShape = z.object({
  user: z.string(),
  /** `otpauth://totp/…`, with the secret in it: shown this once. */
  uri: z.string()
})
export const passkeyShape = z.object({
  id: z.string(), name: z.string(),
  /** In a keychain that several devices share. */
  backedUp: z.boolean(), createdAt: instant, lastUsedAt: nullableInstant
})
/** `origin`: of the pages on which passkeys work; null: nowhere, for want of a domain. */
export const passkeysShape = z.object({ origin: z.string().nullable(), passkeys: z.array(passkeyShape) })
/** `passkeys`: the origin of their pages; `provider`: the words on its button. */
export const waysShape = z.object({ passkeys: z.string().nullable(), provider: z.string().nullable() })
/** As RFC 8628 has it. */
export const beganShape = z.object({
  deviceCode: z.string(), userCode: z.string(), verificationUri: z.string(),
  verificationUriComplete: z.string(), expiresAt: instant, intervalSeconds: z.int()
})
export const loginRequestShape = z.object({
  code: z.string(),
  /** `token`: whoever confirms is logged in; `session`: a connection of theirs goes on. */
  kind: z.enum(['token', 'session']), address: z.string(),
  /** What the other side says that it is. */
  what: z.string(), expiresAt: instant
})
const describedShape = z.object({ type: z.literal('public-key'), id: z.string() })
/** As `navigator.credentials` takes them, binary parts in base64url. */
export const registrationAskedShape = z.object({
  challenge: z.string(), timeout: z.int(), rp: z.object({ id: z.string(), name: z.string() }),
  user: z.object({ id: z.string(), name: z.string(), displayName: z.string() }),
  pubKeyCredParams: z.array(z.object({ type: z.literal('public-key'), alg: z.int() })),
  excludeCredentials: z.array(describedShape),
  authenticatorSelection: z.object({ residentKey: z.string(), userVerification: z.string() })
})
export const loginAskedShape = z.object({
  challenge: z.string(), timeout: z.int(), rpId: z.string(), userVerification: z.string(),
  allowCredentials: z.array(describedShape)
})
/** `waiting`: enrolled, and not confirmed by a first code yet. */
const secondFactor = z.enum(['none', 'waiting', 'confirmed'])
export const usersShape = z.object({
  users: z.array(z.object({
    name: z.string(), roles: z.array(z.string()), disabled: z.boolean(), secondFactor
  }))
})
export const secondFactorShape = z.object({ user: z.string(), secondFactor })
export const callerShape = z.object({
  name: z.string(), roles: z.array(z.string()), how: z.enum(['token', 'local'])
})

export const changeShape = z.object({
  path: z.string(), from: z.unknown().optional(), to: z.unknown().optional()
})
export const appliedShape = z.object({
  dryRun: z.boolean(),
  results: z.array(z.object({
    kind: z.string(), name: z.string(), action: z.enum(['created', 'updated', 'unchanged', 'deleted']),
    changes: z.array(changeShape), notes: z.array(z.string())
  })),
  summary: z.object({ created: z.int(), updated: z.int(), unchanged: z.int(), deleted: z.int() })
})

export const resourceShape = z.object({
  kind: z.string(), name: z.string(), version: z.int(), createdAt: instant, updatedAt: instant,
  updatedBy: z.string(),
  /** As it would be applied; secrets read `<secret>`. */
  document: z.record(z.string(), z.unknown())
})

export const explainedShape = z.object({
  login: z.string(), readable: z.boolean(), canonical: z.string().nullable(), grammar: z.string().nullable(),
  user: z.string().nullable(), credential: z.string().nullable(), target: z.string().nullable(),
  database: z.string().nullable(), userKnown: z.boolean().nullable(),
  outcome: z.enum(['allowed', 'refused', 'unclear']), reason: z.string(),
  choices: z.array(z.object({
    credential: z.string(), target: z.string(), protocol: z.string(), grant: z.string().nullable(),
    refusal: z.string().nullable()
  }))
})

export const sessionShape = z.object({
  id: z.string(), user: z.string(), credential: z.string(), target: z.string(), protocol: z.string(),
  grant: z.string(), address: z.string(),
  /** `web`: a page of the console; null: a client of the person's own. */
  client: z.string().nullable(), database: z.string().nullable(), node: z.string(),
  status: z.enum(['opening', 'live', 'ended', 'refused', 'interrupted']),
  startedAt: instant, expiresAt: nullableInstant, endedAt: nullableInstant, reason: z.string().nullable(),
  /** The account that lives only for this session; null where JIT is disabled. */
  account: z.object({ id: z.string(), name: z.string().nullable(), state: z.string().nullable() }).nullable(),
  /** Hash and size are known once it is sealed. */
  recording: z.object({
    headHash: z.string().nullable(), bytes: z.int().nullable(), sealed: z.boolean()
  }).nullable(),
  /** Null until the removal has been judged. */
  receipt: z.object({ id: z.string(), state: z.string(), signedAt: instant }).nullable()
})
export type SessionJson = z.output<typeof sessionShape>

export const receiptShape = z.object({
  id: z.string(), session: z.string().nullable(), account: z.string(), state: z.string(), signedAt: instant,
  body: z.record(z.string(), z.unknown()), keyId: z.string(), signature: z.string()
})
export type ReceiptJson = z.output<typeof receiptShape>

export const verifiedShape = z.object({
  session: z.string(),
  /** Complete and genuine: state `sealed`. */
  valid: z.boolean(),
  /** `interrupted`: genuine as far as it is signed, without an end: still running, or a crash. */
  state: z.enum(['sealed', 'interrupted', 'broken', 'missing']),
  /** The first thing that is wrong, and the first byte that nothing vouches for. */
  problem: z.string().nullable(), brokenAt: z.int().nullable(),
  bytes: z.int(), verifiedBytes: z.int(), frames: z.int(), headHash: z.string(), keyId: z.string()
})

export const hitShape = z.object({
  session: z.string(), user: z.string(), credential: z.string(), target: z.string(),
  at: z.string(), atMs: z.number(), kind: z.string(), text: z.string()
})

/** A node whose recordings were not looked through, or not all of them, and why: a code of errors.ts. */
export const unansweredShape = z.object({ node: z.string(), code: z.string() })

/** Of a terminal; everything in it is safe to show. */
export const pieceShape = z.object({
  durationMs: z.number().nullable(), columns: z.int(), rows: z.int(),
  /** Draws the screen of the moment on an empty terminal of that size. */
  picture: z.string(),
  scenes: z.array(z.object({
    kind: z.enum(['text', 'resize', 'event', 'end']), atMs: z.number(), text: z.string().optional(),
    columns: z.int().optional(), rows: z.int().optional(), lane: z.int().optional()
  })),
  untilMs: z.number(), last: z.boolean()
})
export const templateShape = z.object({
  id: z.string(), version: z.int(), plugin: z.string(), action: z.string(), active: z.boolean(),
  shipped: z.boolean(), author: z.string(), createdAt: instant, sha256: z.string()
})
/** What credentials supply to it; the engine's own variables are not among them. */
const declarationShape = z.object({
  name: z.string(), description: z.string(), required: z.boolean(), secret: z.boolean(), list: z.boolean(),
  default: z.unknown()
})
export const templateBodyShape = templateShape.extend({
  body: z.string(), variables: z.array(declarationShape)
})
export const pluginShape = z.object({
  id: z.string(), actions: z.array(z.string()),
  /** Whether enable and disable may log in as the account itself (J7). */
  canEnableItself: z.boolean(),
  /** Variables that every template of it has without declaring them. */
  supplies: z.array(z.string())
})
/** Of this node, since it started; null: no action yet. */
export const targetHealthShape = z.object({
  name: z.string(), protocol: z.string(), address: z.string(),
  breaker: z.enum(['closed', 'open', 'half-open']), failures: z.int(), lastError: z.string().nullable(),
  running: z.int(), waiting: z.int(),
  last: z.object({
    at: instant, action: z.string(), plugin: z.string(), template: z.string(), account: z.string(),
    state: z.enum(['done', 'conflict', 'refused', 'unknown']), error: z.string().nullable(), tookMs: z.int()
  }).nullable()
})
export const planShape = z.object({
  template: z.string(), version: z.int(), steps: z.array(z.object({ name: z.string(), text: z.string() }))
})
export const proofShape = z.object({
  passed: z.boolean(),
  steps: z.array(z.object({
    name: z.string(), passed: z.boolean(), detail: z.string(), milliseconds: z.number()
  }))
})

export const leaseShape = z.object({
  id: z.string(), name: z.string(), status: z.enum(['active', 'expired', 'revoked', 'revoking', 'failed']),
  target: z.string(), credential: z.string(),
  /** Path of the secret that it is a lease on; null for the account of a session. */
  secret: z.string().nullable(),
  ownerKind: z.enum(['session', 'user', 'application']),
  owner: z.string(),
  account: z.object({ id: z.string(), name: z.string(), state: z.string() }),
  createdAt: instant, expiresAt: instant, maxAt: instant, endedAt: nullableInstant, renewals: z.int(),
  /** By how much it can still be prolonged. */
  renewableSeconds: z.int(),
  lastError: z.string().nullable()
})
export const leaseEventShape = z.object({
  id: z.string(), at: instant, kind: z.string(), actor: z.string(), detail: z.record(z.string(), z.unknown())
})

export const requestShape = z.object({
  id: z.string(), user: z.string(), credential: z.string(), grant: z.string(), reason: z.string().nullable(),
  emergency: z.boolean(), state: z.enum(['pending', 'approved', 'denied', 'expired', 'withdrawn']),
  validForSeconds: z.int(), createdAt: instant,
  /** Not decided by then, it ends. */
  expiresAt: instant,
  /** Of an approved one: sessions end then. */
  validUntil: nullableInstant,
  /** Of one for an emergency, until an approver has looked at it. */
  needsReview: z.boolean(), reviewedAt: nullableInstant,
  decisions: z.array(z.object({
    by: z.string(), verdict: z.enum(['approve', 'deny', 'withdraw', 'review']), reason: z.string().nullable(),
    at: instant
  }))
})

export const applicationTokenShape = z.object({
  id: z.string(), application: z.string(), createdAt: instant, createdBy: z.string(), expiresAt: instant,
  lastUsedAt: nullableInstant
})
/** `token` is shown this once. */
export const freshApplicationTokenShape = applicationTokenShape.extend({ token: z.string() })

export const profileShape = z.object({
  id: z.string(), identifier: z.string(), type: z.string(), status: z.enum(['active', 'inactive']),
  registeredCredential: z.string().nullable(), credentialUsername: z.string().nullable(),
  create: z.string(), delete: z.string(), roles: z.array(z.string()), ttlSeconds: z.int(),
  createdAt: instant, updatedAt: instant, updatedBy: z.string()
})

/** A definition, never with values. */
export const secretShape = z.object({
  path: z.string(), environment: z.string(), description: z.string().nullable(),
  type: z.enum(['static', 'dynamic']), status: z.enum(['active', 'deleting']),
  provider: z.string().nullable(), profile: z.string().nullable(), linkedSecret: z.string().nullable(),
  target: z.string().nullable(), ttlSeconds: z.int().nullable(), maxTtlSeconds: z.int().nullable(),
  /** Of a dynamic secret: empty when the provider's own names are used. */
  keys: z.array(z.string()), version: z.int().nullable()
})
export const readingShape = z.object({
  path: z.string(), version: z.int().nullable(),
  /** Of a dynamic secret: what was made, until when. */
  lease: leaseShape.nullable(),
  values: z.record(z.string(), z.string()),
  /** Keys that a console hides until somebody asks. */
  masked: z.array(z.string())
})
export const versionShape = z.object({
  version: z.int(), state: z.enum(['current', 'kept', 'pending', 'retiring', 'retired', 'failed']),
  createdAt: instant, createdBy: z.string(),
  /** Of a credential that was made by a renewal. */
  lease: z.string().nullable()
})
export const comparedShape = z.object({
  path: z.string(), from: z.int(), to: z.int(),
  keys: z.array(z.object({ key: z.string(), is: z.enum(['same', 'changed', 'added', 'removed']) }))
})

export const orphansShape = z.object({
  orphans: z.array(z.object({
    target: z.string(), name: z.string(), accountId: z.string().nullable(), verdict: z.string(),
    detail: z.string()
  })),
  unreachable: z.array(z.object({ target: z.string(), reason: z.string() }))
})

export const auditShape = z.object({
  chain: z.string(), seq: z.int(), at: z.string(), kind: z.string(), actor: z.string(), subject: z.string(),
  detail: z.unknown(), prev: z.string(), hash: z.string()
})
export const auditVerifiedShape = z.object({
  valid: z.boolean(), events: z.int(), checkpoints: z.int(), unsigned: z.int(), problems: z.array(z.string()),
  heads: z.array(z.object({ chain: z.string(), seq: z.int(), hash: z.string() }))
})

export const checkShape = z.object({
  name: z.string(), status: z.enum(['ok', 'warning', 'failed']), detail: z.string()
})

const iso = (at: Date | null): string | null => at === null ? null : at.toISOString()

export function sessionJson(
  row: SessionRow, receipt: ReceiptRow | undefined, state: string | undefined
): SessionJson {
  const [address = '', client = null] = row.address.split(' ')
  return {
    id: row.id, user: row.user, credential: row.credential, target: row.target, protocol: row.protocol,
    grant: row.grant, address, client, database: row.database, node: row.node, status: row.status,
    startedAt: row.startedAt.toISOString(), expiresAt: iso(row.expiresAt), endedAt: iso(row.endedAt),
    reason: row.reason,
    account: row.account === null ? null : { id: row.account, name: row.accountName, state: state ?? null },
    recording: row.recording === null && row.status !== 'live'
      ? null
      : { headHash: row.recordingHead, bytes: row.recordingBytes, sealed: row.recordingHead !== null },
    receipt: receipt === undefined
      ? null
      : { id: receipt.id, state: stateOf(receipt), signedAt: receipt.createdAt.toISOString() }
  }
}

export function receiptJson(row: ReceiptRow): ReceiptJson {
  const { id, session, account, body, keyId, signature } = row
  const signedAt = row.createdAt.toISOString()
  return { id, session, account, state: stateOf(row), signedAt, body, keyId, signature }
}

function stateOf({ body }: ReceiptRow): string {
  return typeof body['state'] === 'string' ? body['state'] : 'unknown'
}

export function templateJson(row: TemplateRow): z.output<typeof templateShape> {
  const { id, version, plugin, action, active, shipped, author, sha256 } = row
  const createdAt = row.createdAt.toISOString()
  return { id, version, plugin, action, active, shipped, author, createdAt, sha256 }
}

export function leaseJson(row: LeaseRow): z.output<typeof leaseShape> {
  const { id, name, status, target, credential, ownerKind, owner, renewals, lastError } = row
  return {
    // Names of credentials have no slash, paths of secrets have one.
    id, name, status, target, credential, secret: credential.includes('/') ? credential : null, ownerKind,
    owner,
    account: { id: row.account, name: row.accountName, state: row.accountState },
    createdAt: row.createdAt.toISOString(), expiresAt: row.expiresAt.toISOString(),
    maxAt: row.maxAt.toISOString(), endedAt: iso(row.endedAt), renewals,
    renewableSeconds: Math.floor(row.renewableMs / 1000), lastError
  }
}

export function applicationTokenJson(row: ApplicationTokenRow): z.output<typeof applicationTokenShape> {
  const { id, application, createdBy } = row
  return {
    id, application, createdBy, createdAt: row.createdAt.toISOString(),
    expiresAt: row.expiresAt.toISOString(), lastUsedAt: iso(row.lastUsedAt)
  }
}

export function auditJson(row: AuditRow): z.output<typeof auditShape> {
  return { ...row }
}

export function verifiedJson(verdict: VerdictAnswer): z.output<typeof verifiedShape> {
  const { session, state, bytes, verifiedBytes, frames, headHash, keyId } = verdict
  return {
    session, valid: state === 'sealed', state, problem: verdict.problem ?? null,
    brokenAt: verdict.brokenAt ?? null, bytes, verifiedBytes, frames, headHash, keyId
  }
}

export function requestJson(row: RequestRow): z.output<typeof requestShape> {
  return {
    ...row, createdAt: row.createdAt.toISOString(), expiresAt: row.expiresAt.toISOString(),
    validUntil: row.validUntil?.toISOString() ?? null, reviewedAt: row.reviewedAt?.toISOString() ?? null,
    needsReview: row.emergency && row.reviewedAt === null,
    decisions: row.decisions.map(each => ({ ...each, at: each.at.toISOString() }))
  }
}
