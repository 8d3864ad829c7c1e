// Many accounts in one visit: what is ordinary about them travels together, in a few round trips for all of
// them, and what is not is left to the ladder of run.ts, which begins anew for that account alone. Ordinary
// is: it is ours or not there, nobody else is at it (its lock is free), the claim holds; at a removal also
// that a survey under the lock, after the logins were refused and that was committed, finds nothing that a
// rung of the ladder would have to act on. Locks, marker, epoch and deadline are those of a single action.
import { SallyportError } from '../../src/errors.ts'
import { quoteIdentifier } from '../../src/jit/sql-text.ts'
import type { Access, AccountRef, Errand, HookContext, Outcome, Verified } from '../../src/jit/plugin.ts'
import type { Template } from '../../src/jit/template.ts'
import type { Statement } from '../../src/wire/postgres/query.ts'
import { cronSomewhere } from './cron.ts'
import {
  assertRoleName, graveyardRole, isServerError, mark, markerRole, openLink, readMarker, sqlstate
} from './link.ts'
import type { Link, Row } from './link.ts'
import { seenNow, straysFrom, straysSql } from './look.ts'
import { grouped, ownVariables } from './run.ts'
import type { Group, Planned } from './run.ts'

/** An account whose statement is refused leaves, and the others try again; then each goes alone. */
const roundsMax = 3

/** Rungs that have nothing to do where the survey finds nothing; the last of a removal drops the role. */
const quietRungs = [
  'terminate-sessions', 'wait-for-none', 'rollback-prepared', 'reset-settings', 'clean-databases'
]

interface Member {
  account: AccountRef
  statements: readonly string[]
  outcome: Outcome | undefined
}

/** How an account stands: the columns of `surveySql`. */
interface Survey {
  isFree: boolean
  oid: string | undefined
  canLogin: boolean
  comment: string
  clock: string
  leftMs: number
  markerExists: boolean
  graveyardExists: boolean
  sessions: number
  /** Something that a rung would act on, or list. */
  isBusy: boolean
}

/** Nothing is thrown once something may have been done: that is then the outcome of each. */
export async function runTogether(
  access: Access, template: Template, errands: readonly Errand[], context: HookContext
): Promise<readonly (Outcome | undefined)[]> {
  const planned = errands.map(errand => plannedOf(template, errand))
  const members = planned.filter(member => member !== undefined)
  if (members.length === 0) return planned.map(() => undefined)
  const removal = template.action === 'delete'
  const link = await openLink(access, context, { impatient: removal, kept: true })
  const visit = new Visit(link, template, members, context)
  let isClean = false
  try {
    isClean = await visit.run(removal)
  } finally {
    await (isClean ? link.leave() : link.close())
  }
  return planned.map(member => member?.outcome)
}

/**
 * The looks of many, over a connection that is opened now; undefined where somebody is at the account.
 * @throws as `openLink`, ServerError, ConnectionLost
 */
export async function seenTogether(
  access: Access, template: Template, errands: readonly Errand[], context: HookContext
): Promise<readonly (Verified | undefined)[]> {
  for (const { account } of errands) assertRoleName(account.name)
  const names = errands.map(({ account }) => account.name)
  const link = await openLink(access, context)
  try {
    const [locks, rows, strays] = (await link.batch([
      { sql: 'BEGIN READ ONLY' }, locksOf(names, 'shared'), whichExist(names), { sql: straysSql },
      { sql: 'COMMIT' }
    ])).slice(1)
    const free = freeOf(locks)
    const there = new Map(rows?.map(([name, exists]) => [name, exists === 't']))
    const residue = straysFrom(strays)
    const looks: (Verified | undefined)[] = []
    for (const { account, variables } of errands) {
      const exists = there.get(account.name)
      if (!free.has(account.name) || exists === undefined) looks.push(undefined)
      else if (exists) looks.push(await seenOrNot(link, account, { template, variables }))
      else looks.push({ exists: false, enabled: false, ours: false, sessions: 0, residue })
    }
    return looks
  } finally {
    await link.close()
  }
}

/** One that the server refuses to show is looked at by itself; the others are not to hear of it. */
async function seenOrNot(...look: Parameters<typeof seenNow>): Promise<Verified | undefined> {
  try {
    return await seenNow(...look)
  } catch (error) {
    if (isServerError(error)) return undefined
    throw error
  }
}

/** Undefined for a template, or an account, that is not ordinary. */
function plannedOf(template: Template, { account, variables }: Errand): Member | undefined {
  if (template.proof !== 'login' || account.kind !== 'create') return undefined
  try {
    assertRoleName(account.name)
    const all = { ...variables, ...ownVariables, username: account.name }
    const groups = grouped(template, template.steps, all)
    const [first, ...rest] = groups
    const steps = first?.kind === 'transaction' ? first.steps : []
    const plain = steps.length > 0 && steps.every(({ step }) => step.ignore.length === 0)
    const fits = template.action === 'delete' ? isQuietLadder(rest) : rest.length === 0
    if (!plain || !fits) return undefined
    return { account, statements: steps.map(({ sql }) => sql), outcome: undefined }
  } catch (error) {
    // `run` says it in its own words.
    if (error instanceof SallyportError) return undefined
    throw error
  }
}

function isQuietLadder(groups: readonly Group[]): boolean {
  const rungs = groups.map(({ kind, steps }) => kind === 'verb' ? nameOf(steps) : '')
  const before = rungs.slice(0, -1)
  return rungs.at(-1) === 'drop-role' && before.every(rung => quietRungs.includes(rung))
    && before.includes('wait-for-none')
}

function nameOf([only]: readonly Planned[]): string {
  return only?.do ?? ''
}

class Visit {
  readonly #link: Link
  readonly #template: Template
  readonly #context: HookContext
  /** Those that still go together. */
  #members: Member[]
  #step = 'begin'
  #isClean = true

  constructor(link: Link, template: Template, members: readonly Member[], context: HookContext) {
    this.#link = link
    this.#template = template
    this.#members = [...members]
    this.#context = context
  }

  /**
   * Gives each member its outcome, or leaves it without one; true when nothing went wrong on the way.
   * @throws SallyportError where a kept connection was dead and there is no other: nothing was done
   */
  async run(removal: boolean): Promise<boolean> {
    for (let round = 0; round < roundsMax && this.#members.length > 0; round++) {
      try {
        if (removal) await this.#remove()
        else await this.#create()
        break
      } catch (error) {
        this.#isClean = false
        const isAway = error instanceof SallyportError && error.code === 'target-unreachable'
        if (isAway && round === 0 && this.#step === 'begin') throw error
        await this.#link.rollBack()
        if (!isServerError(error)) {
          this.#lose(error)
          break
        }
        // One of them cannot be dropped, and nobody says which: the ladder will.
        if (this.#step === 'drop-role') break
      }
    }
    return this.#isClean
  }

  async #create(): Promise<void> {
    const looks = await this.#begin()
    const uses = (name: string): boolean => this.#template.uses.includes(name)
    this.#keep(looks, ({ oid, markerExists, graveyardExists }) => oid === undefined
      && (markerExists || !uses('marker_role')) && (graveyardExists || !uses('graveyard_role')))
    if (this.#members.length === 0) return await this.#link.rollBack()
    this.#act(looks)
    this.#step = 'create'
    const names = this.#names()
    const [, , locks, rows] = await this.#link.batch([
      { sql: 'COMMIT' }, { sql: 'BEGIN READ ONLY' }, locksOf(names, 'shared'), surveyOf(this.#link, names),
      { sql: 'COMMIT' }
    ])
    const seen = readSurvey(locks, rows)
    for (const member of this.#members) {
      const now = seen.get(member.account.name)
      member.outcome = {
        state: 'done', changed: true, residue: [],
        seen: now?.isFree === true ? verifiedOf(member.account, now) : undefined
      }
    }
  }

  async #remove(): Promise<void> {
    const looks = await this.#begin()
    for (const member of this.#members) {
      const look = looks.get(member.account.name)
      if (look?.isFree === true && look.oid === undefined) {
        member.outcome = { state: 'done', changed: false, residue: [] }
      }
    }
    this.#keep(looks, ({ oid }) => oid !== undefined)
    if (this.#members.length === 0) return await this.#link.rollBack()
    this.#act(looks)
    this.#step = 'refuse logins'
    const names = this.#names()
    const [, , locks, rows] = await this.#link.batch([
      { sql: 'COMMIT' }, { sql: 'BEGIN' }, locksOf(names), surveyOf(this.#link, names)
    ])
    const found = readSurvey(locks, rows)
    this.#keep(found, ({ oid, isBusy, sessions }) => oid !== undefined && !isBusy && sessions === 0)
    if (this.#members.length === 0) return await this.#link.rollBack()
    this.#step = 'drop-role'
    await this.#drop(this.#names().map(name => found.get(name)?.oid ?? ''))
    for (const member of this.#members) member.outcome = { state: 'done', changed: true, residue: [] }
  }

  /**
   * Then ends who was let in before logins were refused and only now shows among the sessions; whoever may
   * not be ended by our login is left to the look, which lists them.
   */
  async #drop(oids: readonly string[]): Promise<void> {
    const statements = [
      { sql: `DROP ROLE ${this.#names().map(quoteIdentifier).join(', ')}` }, { sql: 'COMMIT' }, {
        sql: `SELECT pg_terminate_backend(pid) FROM pg_stat_get_activity(NULL)
          WHERE usesysid = ANY ($1::oid[])`,
        values: [`{${oids.join(',')}}`]
      }
    ]
    try {
      await this.#link.batch(statements)
    } catch (error) {
      // Behind COMMIT: the accounts are dropped.
      if (!isServerError(error, sqlstate.insufficientPrivilege) || error.place < 2) throw error
    }
  }

  /** Locks and looks, over a connection that may turn out to be dead. */
  async #begin(): Promise<ReadonlyMap<string, Survey>> {
    this.#step = 'begin'
    const names = this.#names()
    const [, locks, rows] = await this.#link.batch(
      [{ sql: 'BEGIN' }, locksOf(names), surveyOf(this.#link, names)], { harmless: true })
    const looks = readSurvey(locks, rows)
    const clock = [...looks.values()][0]?.clock
    if (clock !== undefined) this.#link.heard(clock)
    return looks
  }

  /** The first statements of the template and the marker of each, with the next that is waited for. */
  #act(looks: ReadonlyMap<string, Survey>): void {
    for (const member of this.#members) {
      const leave = (): void => {
        this.#members = this.#members.filter(other => other !== member)
      }
      for (const sql of member.statements) this.#link.send(sql, leave)
      mark(this.#link, member.account, looks.get(member.account.name)?.comment ?? '', leave)
    }
  }

  /** Who is not as wanted goes alone; so do those at whom somebody else is, and those that are fenced. */
  #keep(looks: ReadonlyMap<string, Survey>, fits: (look: Survey) => boolean): void {
    const isTimeLeft = this.#context.remainingMs() > 0
    this.#members = this.#members.filter(({ account, outcome }) => {
      const look = looks.get(account.name)
      if (outcome !== undefined || look === undefined || !look.isFree || !isTimeLeft) return false
      const { accountId, epoch = 0 } = readMarker(look.comment) ?? {}
      const isOurs = look.oid === undefined || (accountId === account.accountId && epoch <= account.epoch)
      return isOurs && look.leftMs > 0 && fits(look)
    })
  }

  #names(): string[] {
    return this.#members.map(({ account }) => account.name)
  }

  /** The answer was lost, or we gave up: whether it was done is not known. */
  #lose(error: unknown): void {
    const message = error instanceof Error ? error.message : String(error)
    for (const member of this.#members) {
      member.outcome ??= { state: 'unknown', failedStep: this.#step, error: message }
    }
  }
}

function verifiedOf({ accountId }: AccountRef, look: Survey): Verified {
  const marker = readMarker(look.comment)
  return {
    exists: look.oid !== undefined, enabled: look.canLogin, ours: marker?.accountId === accountId,
    epoch: marker?.epoch, sessions: look.sessions, residue: []
  }
}

/** Tries the accounts' locks, those of a single action; waits for nobody. */
function locksOf(names: readonly string[], mode: 'exclusive' | 'shared' = 'exclusive'): Statement {
  const call = mode === 'shared' ? 'pg_try_advisory_xact_lock_shared' : 'pg_try_advisory_xact_lock'
  return {
    sql: `SELECT name, ${call}(hashtextextended('sallyport:' || name, 0))
      FROM jsonb_array_elements_text($1::jsonb) AS name`,
    values: [JSON.stringify(names)]
  }
}

function surveyOf(link: Link, names: readonly string[]): Statement {
  return { sql: surveySql, values: [JSON.stringify(names), link.deadline, markerRole, graveyardRole] }
}

/** All that a proof asks, over a connection for it alone: most find nothing, and the survey is dear there. */
function whichExist(names: readonly string[]): Statement {
  return {
    sql: `SELECT name, to_regrole(quote_ident(name)) IS NOT NULL
      FROM jsonb_array_elements_text($1::jsonb) AS name`,
    values: [JSON.stringify(names)]
  }
}

function freeOf(locks: readonly Row[] = []): ReadonlySet<string> {
  return new Set(locks.filter(([, taken]) => taken === 't').map(([name]) => name ?? ''))
}

function readSurvey(locks: readonly Row[] = [], rows: readonly Row[] = []): ReadonlyMap<string, Survey> {
  const free = freeOf(locks)
  return new Map(rows.map(row => {
    const [name, oid, canLogin, comment, clock, leftMs, marker, graveyard, sessions, isBusy] = row
    return [name ?? '', {
      isFree: free.has(name ?? ''), oid: oid ?? undefined, canLogin: canLogin === 't', comment: comment ?? '',
      clock: clock ?? '', leftMs: leftMs === null || leftMs === undefined ? Infinity : Number(leftMs),
      markerExists: marker === 't', graveyardExists: graveyard === 't', sessions: Number(sessions),
      isBusy: isBusy !== 'f'
    }]
  }))
}

// What the looks and the rungs of a single action ask, of many names at once.
const surveySql = `
  WITH named AS (
    SELECT name, to_regrole(quote_ident(name))::oid AS oid FROM jsonb_array_elements_text($1::jsonb) AS name
  ), session AS MATERIALIZED (
    SELECT usesysid FROM pg_stat_get_activity(NULL) WHERE usesysid <> 0
  ), prepared AS MATERIALIZED (SELECT ownerid FROM pg_prepared_xact())
  SELECT n.name, r.oid, r.rolcanlogin, shobj_description(r.oid, 'pg_authid'),
    to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    ceil(extract(epoch FROM $2::timestamptz - clock_timestamp()) * 1000),
    to_regrole($3) IS NOT NULL, to_regrole($4) IS NOT NULL,
    (SELECT count(*) FROM session s WHERE s.usesysid = r.oid),
    coalesce(r.rolreplication, false) OR EXISTS (SELECT FROM prepared p WHERE p.ownerid = r.oid)
      OR EXISTS (SELECT FROM pg_db_role_setting s WHERE s.setrole = r.oid)
      OR EXISTS (SELECT FROM pg_shdepend d
        WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid)
      OR EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid AND m.admin_option)
      OR ${cronSomewhere}
  FROM named n LEFT JOIN pg_roles r ON r.oid = n.oid`
