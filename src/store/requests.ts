// Requests for access that needs approval, and what people said to them. A decision is one transaction that
// holds its request: of two approvers at the same moment one is the last that was needed, and a denial ends
// it for both. All times are the store's. Every change has its audit event in its transaction.
import { randomBytes } from 'node:crypto'
import { SallyportError } from '../errors.ts'
import type { Approval } from '../policy/approvals.ts'
import type { AuditLog } from './audit.ts'
import type { Database, Handle } from './database.ts'
import { and, desc, eq, gt, inArray, isNull, lte, or, sql } from './drizzle.ts'
import { inSeconds } from './instants.ts'
import { accessRequest, requestDecision } from './schema.ts'

type Row = typeof accessRequest.$inferSelect
export type RequestState = Row['state']
export type DecisionRow = Omit<typeof requestDecision.$inferSelect, 'request'>

export interface RequestRow extends Row {
  /** In their order. */
  decisions: readonly DecisionRow[]
}

export interface NewRequest {
  user: string
  grant: string
  credential: string
  reason?: string | undefined
  emergency: boolean
  validForSeconds: number
  /** Where it came from: for the audit. */
  origin: string
}

export interface Verdict {
  by: string
  reason?: string | undefined
}

export interface RequestFilter {
  /** Of this user, or on one of these grants, whose approver asks; all where neither is given. */
  user?: string | undefined
  grants?: readonly string[] | undefined
  /** … or whose key begins so. */
  rules?: readonly string[] | undefined
  state?: RequestState | undefined
  /** Only what still matters: pending, valid, or to be reviewed. */
  open?: boolean | undefined
  /** Id of the last request of the page before. */
  before?: string | undefined
  limit: number
}

export interface Requests {
  /** The one that is pending or valid, where there is one like it. `isNew`: it was made now. */
  create(request: NewRequest): Promise<{ row: RequestRow, isNew: boolean }>
  get(id: string): Promise<RequestRow | undefined>
  /** Newest first. */
  list(filter: RequestFilter): Promise<readonly RequestRow[]>
  /** Those of a user that are approved now. */
  validOf(user: string): Promise<readonly Approval[]>
  /**
   * Approves when `count` of `approvers`, this one among them, have. Throws `conflict` when it is not pending
   * any more.
   */
  approve(id: string, verdict: Verdict, approvers: readonly string[], count: number): Promise<RequestRow>
  deny(id: string, verdict: Verdict): Promise<RequestRow>
  /** Of a pending or a valid one. */
  withdraw(id: string, verdict: Verdict): Promise<RequestRow>
  /** Of one for an emergency; throws `conflict` when it was reviewed already. */
  review(id: string, verdict: Verdict): Promise<RequestRow>
}

/** An approver who was away for a day has not seen it: whoever still needs it asks again. */
const pendingSeconds = 86_400

type Audit = Pick<AuditLog, 'appendIn'>

/** Requests over their tables. */
export function createRequests(database: Database, audit: Audit): Requests {
  return {
    create: request => database.transaction(tx => create(tx, audit, request)),
    get: id => database.transaction(async tx => {
      await expire(tx, audit)
      const rows = await tx.select().from(accessRequest).where(eq(accessRequest.id, id))
      return (await withDecisions(tx, rows))[0]
    }),
    list: filter => database.transaction(async tx => {
      await expire(tx, audit)
      return withDecisions(tx, await tx.select().from(accessRequest).where(condition(filter))
        .orderBy(desc(accessRequest.createdAt), desc(accessRequest.id)).limit(filter.limit))
    }),
    async validOf(user) {
      const rows = await database.run(handle => handle.select().from(accessRequest)
        .where(and(eq(accessRequest.user, user), isValid)))
      return rows.map(row => ({
        request: row.id, user, grant: row.grant, credential: row.credential, validUntil: row.validUntil!
      }))
    },
    approve: (id, verdict, approvers, count) => decide(database, audit, id, async (tx, row) => {
      pending(row)
      await note(tx, id, 'approve', verdict)
      const approved = await tx.select({ by: requestDecision.by }).from(requestDecision).where(and(
        eq(requestDecision.request, id), eq(requestDecision.verdict, 'approve'),
        inArray(requestDecision.by, [...approvers])))
      const isLast = approved.length >= count
      if (isLast) {
        await tx.update(accessRequest).set({ state: 'approved', validUntil: inSeconds(row.validForSeconds) })
          .where(eq(accessRequest.id, id))
      }
      const detail = { ...subjectOf(row), reason: verdict.reason, approvals: approved.length, count, isLast }
      audit.appendIn(tx, 'request.approved', verdict.by, id, detail)
    }),
    deny: (id, verdict) => decide(database, audit, id, async (tx, row) => {
      pending(row)
      await note(tx, id, 'deny', verdict)
      await tx.update(accessRequest).set({ state: 'denied' }).where(eq(accessRequest.id, id))
      audit.appendIn(tx, 'request.denied', verdict.by, id, { ...subjectOf(row), reason: verdict.reason })
    }),
    withdraw: (id, verdict) => decide(database, audit, id, async (tx, row) => {
      if (row.state !== 'approved') pending(row)
      await note(tx, id, 'withdraw', verdict)
      await tx.update(accessRequest).set({ state: 'withdrawn' }).where(eq(accessRequest.id, id))
      audit.appendIn(tx, 'request.withdrawn', verdict.by, id, { ...subjectOf(row), reason: verdict.reason })
    }),
    review: (id, verdict) => decide(database, audit, id, async (tx, row) => {
      if (!row.emergency) throw conflict('was no emergency: there is nothing to review')
      if (row.reviewedAt !== null) throw conflict('was reviewed already')
      await note(tx, id, 'review', verdict)
      await tx.update(accessRequest).set({ reviewedAt: sql`now()` }).where(eq(accessRequest.id, id))
      audit.appendIn(tx, 'request.reviewed', verdict.by, id, { ...subjectOf(row), reason: verdict.reason })
    })
  }
}

/** What sessions that nobody runs any more had asked others for, by their rules: nobody waits for it. */
export async function withdrawAsked(tx: Handle, audit: Audit, sessions: readonly string[]): Promise<void> {
  if (sessions.length === 0) return
  // The keys of rules name their session: GRANT#RULE/SESSION/WHAT.
  const asker = sql<string>`substring(${accessRequest.grant} from '#[0-9]+/([^/]+)/')`
  const gone = await tx.update(accessRequest).set({ state: 'withdrawn' })
    .where(and(eq(accessRequest.state, 'pending'), inArray(asker, [...sessions]))).returning()
  for (const row of gone) {
    const reason = 'its session was interrupted'
    audit.appendIn(tx, 'request.withdrawn', 'system', row.id, { ...subjectOf(row), reason })
  }
}

const isValid = and(eq(accessRequest.state, 'approved'), gt(accessRequest.validUntil, sql`now()`))
const toReview = and(eq(accessRequest.emergency, true), isNull(accessRequest.reviewedAt))

const ofRule = (prefix: string) => sql`starts_with(${accessRequest.grant}, ${prefix})`

function condition({ user, grants, rules = [], state, open, before }: RequestFilter) {
  const own = user === undefined ? undefined : eq(accessRequest.user, user)
  const asked = grants === undefined || grants.length === 0
    ? undefined
    : inArray(accessRequest.grant, [...grants])
  return and(
    own === undefined ? asked : or(own, asked, ...rules.map(ofRule)),
    state === undefined ? undefined : eq(accessRequest.state, state),
    open === true ? or(eq(accessRequest.state, 'pending'), isValid, toReview) : undefined,
    before === undefined ? undefined : sql`(${accessRequest.createdAt}, ${accessRequest.id}) <
      (select c.created_at, c.id from ${accessRequest} as c where c.id = ${before})`
  )
}

async function create(
  tx: Handle, audit: Audit, { origin, ...request }: NewRequest
): Promise<{ row: RequestRow, isNew: boolean }> {
  await expire(tx, audit)
  const { user, grant, credential, emergency, validForSeconds } = request
  const same = and(
    eq(accessRequest.user, user), eq(accessRequest.grant, grant), eq(accessRequest.credential, credential))
  const alive = emergency ? isValid : or(eq(accessRequest.state, 'pending'), isValid)
  const id = `req-${randomBytes(5).toString('hex')}`
  const find = async (): Promise<RequestRow | undefined> => {
    const found = await tx.select().from(accessRequest).where(and(same, alive)).limit(1)
    return (await withDecisions(tx, found))[0]
  }
  const there = await find()
  if (there !== undefined) return { row: there, isNew: false }
  const [made] = await tx.insert(accessRequest).values({
    ...request, id, state: emergency ? 'approved' : 'pending', expiresAt: inSeconds(pendingSeconds),
    ...emergency ? { validUntil: inSeconds(validForSeconds) } : {}
  }).onConflictDoNothing().returning()
  if (made === undefined) {
    // Somebody else's transaction made it at this moment; by now it is committed.
    const theirs = await find()
    if (theirs === undefined) throw new SallyportError('conflict')
    return { row: theirs, isNew: false }
  }
  const kind = emergency ? 'alarm.emergency-access' : 'request.created'
  audit.appendIn(tx, kind, user, id, { ...subjectOf(made), reason: made.reason, origin })
  return { row: { ...made, decisions: [] }, isNew: true }
}

/** What nobody has decided in time; whoever looks or asks finds that it has ended. */
async function expire(tx: Handle, audit: Audit): Promise<void> {
  const ended = await tx.update(accessRequest).set({ state: 'expired' })
    .where(and(eq(accessRequest.state, 'pending'), lte(accessRequest.expiresAt, sql`now()`))).returning()
  for (const row of ended) audit.appendIn(tx, 'request.expired', 'system', row.id, subjectOf(row))
}

async function decide(
  database: Database, audit: Audit, id: string, act: (tx: Handle, row: Row) => Promise<void>
): Promise<RequestRow> {
  return database.transaction(async tx => {
    await expire(tx, audit)
    const find = (): Promise<Row[]> =>
      tx.select().from(accessRequest).where(eq(accessRequest.id, id)).for('update')
    const [row] = await find()
    if (row === undefined) throw new SallyportError('not-found', { detail: `no request ${id}` })
    await act(tx, row)
    const [after] = await withDecisions(tx, await find())
    return after!
  })
}

function pending({ state }: Row): void {
  if (state !== 'pending') throw conflict(`is ${state} already`)
}

function conflict(problem: string): SallyportError {
  return new SallyportError('conflict', { problems: [`request: ${problem}`] })
}

async function note(
  tx: Handle, request: string, verdict: DecisionRow['verdict'], { by, reason }: Verdict
): Promise<void> {
  // Again by the same person: the first time counts.
  await tx.insert(requestDecision).values({ request, verdict, by, reason: reason ?? null })
    .onConflictDoNothing()
}

async function withDecisions(tx: Handle, rows: readonly Row[]): Promise<RequestRow[]> {
  if (rows.length === 0) return []
  const said = await tx.select().from(requestDecision)
    .where(inArray(requestDecision.request, rows.map(({ id }) => id))).orderBy(requestDecision.at)
  return rows.map(row => ({
    ...row,
    decisions: said.filter(({ request }) => request === row.id)
      .map(({ by, verdict, reason, at }) => ({ by, verdict, reason, at }))
  }))
}

function subjectOf({ user, grant, credential, validForSeconds }: Row): Record<string, unknown> {
  return { user, grant, credential, validForSeconds }
}
