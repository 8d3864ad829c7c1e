// What people ask the ledger: which leases there are, what happened to one, what still needs a target, what
// we know of a name that was found somewhere. Reads only; what status that is for a person, the ledger
// decides (lease/view.ts).
import type { SQL } from 'drizzle-orm'
import { leasesListedMax } from '../lease/states.ts'
import type { AccountState, HoldState } from '../lease/states.ts'
import type { Database, Handle } from './database.ts'
import { sql } from './drizzle.ts'
import { instant, live, ms, query, queryOne, setOf, text } from './ledger-sql.ts'
import type { Row } from './ledger-sql.ts'
import type {
  Claim, HistoryPage, Known, LeaseEventRow, LeaseRecord, LedgerGauges, LedgerStore, Owner, RecordFilter
} from '../lease/store-port.ts'

type Views = Pick<LedgerStore,
  'endedOf' | 'liveHolds' | 'holders' | 'list' | 'show' | 'history' | 'accountOf' | 'dependants' | 'known' |
  'standing' | 'gauges'>

/** Sentences about what still needs a target or a credential. */
const dependantsMax = 1000

export function ledgerViews(database: Database): Views {
  const read = <T>(act: (handle: Handle) => Promise<T>): Promise<T> => database.run(act)
  return {
    endedOf: ids => read(async handle => (await query(handle, sql`
      select id, state from hold where id in ${setOf(ids)} and state not in ${live}`))
      .map(row => ({ id: String(row.id), state: row.state as HoldState }))),
    liveHolds: where => read(async handle => {
      const match = 'target' in where
        ? sql`a.target = ${where.target}`
        : where.owner === undefined
          ? sql`a.credential = ${where.credential}`
          : sql`a.credential = ${where.credential} and h.owner_kind = ${where.owner.kind}
            and h.owner = ${where.owner.id}`
      const rows = await query(handle, sql`
        select h.id from hold h join account a on a.id = h.account where h.state in ${live} and ${match}
          order by h.id`)
      return rows.map(row => String(row.id))
    }),
    holders: () => read(async handle => {
      const rows = await query(handle, sql`
        select distinct h.owner_kind, h.owner, a.credential from hold h join account a on a.id = h.account
          where h.state in ${live} and h.owner_kind <> 'session'`)
      return rows.map(row => ({
        owner: { kind: row.owner_kind as Owner['kind'], id: String(row.owner) },
        credential: String(row.credential)
      }))
    }),
    list: filter => read(handle => list(handle, filter)),
    show: id => read(async handle => {
      const row = await queryOne(handle, leases(sql`h.id = ${id}`, 1))
      return row === undefined ? undefined : leaseOf(row)
    }),
    history: (id, page) => read(handle => history(handle, id, page)),
    accountOf: id => read(async handle => {
      const row = await queryOne(handle, sql`
        select a.id, a.name, a.kind, a.epoch, a.spec from hold h join account a on a.id = h.account
          where h.id = ${id}`)
      return row === undefined ? undefined : {
        accountId: String(row.id), name: String(row.name), kind: row.kind as Known['kind'],
        epoch: Number(row.epoch), spec: row.spec as Claim['spec']
      }
    }),
    dependants: (kind, name) => read(handle => dependants(handle, kind, name)),
    known: (target, names) => read(handle => known(handle, target, names)),
    standing: ids => read(async handle => (await query(handle, sql`
      select id from account where id in ${setOf(ids)} and state in ${notGone}`)).map(row => String(row.id))),
    gauges: () => read(gauges)
  }
}

const settled = sql`((a.ended_at is not null and h.ended_at <= a.ended_at) or exists (
  select from hold o where o.account = a.id and o.state in ${live} and o.id <> h.id))`

function leases(where: SQL, limit: number): SQL {
  return sql`
    select h.id, h.name, h.account, a.name as account_name, a.kind, a.spec->>'plugin' as plugin, a.state
      as account_state, a.target, a.credential,
      h.owner_kind, h.owner, h.state as hold_state, ${ms(sql`h.issued_at`)} as issued_ms,
      ${ms(sql`h.expires_at`)} as expires_ms, ${ms(sql`h.max_at`)} as max_ms, ${ms(sql`h.ended_at`)}
        as ended_ms,
      h.renewals, a.attempts, a.last_error, ${settled} as settled, ${ms(sql`now()`)} as now_ms
    from hold h join account a on a.id = h.account where ${where}
    order by h.issued_at desc, h.id desc limit ${limit}::int`
}

async function list(handle: Handle, filter: RecordFilter): Promise<LeaseRecord[]> {
  const { target, credential, ownerKind, owner, combinations, before, limit } = filter
  const parts = [sql`true`]
  if (target !== undefined) parts.push(sql`a.target = ${target}`)
  if (credential !== undefined) parts.push(sql`a.credential = ${credential}`)
  if (ownerKind !== undefined) parts.push(sql`h.owner_kind = ${ownerKind}`)
  if (owner !== undefined) parts.push(sql`h.owner = ${owner}`)
  if (before !== undefined) {
    parts.push(sql`(h.issued_at, h.id) < (select issued_at, id from hold where id = ${before})`)
  }
  if (combinations !== undefined) {
    parts.push(sql`h.state || ' ' || a.state || ' ' || ${settled}::text in ${setOf(combinations)}`)
  }
  const rows = await query(handle, leases(sql.join(parts, sql` and `), Math.min(limit, leasesListedMax)))
  return rows.map(leaseOf)
}

function leaseOf(row: Row): LeaseRecord {
  return {
    id: String(row.id), name: String(row.name),
    account: String(row.account), accountName: String(row.account_name),
    accountKind: row.kind as LeaseRecord['accountKind'], accountState: row.account_state as AccountState,
    target: String(row.target), credential: String(row.credential),
    ownerKind: row.owner_kind as LeaseRecord['ownerKind'], owner: String(row.owner),
    holdState: row.hold_state as HoldState, settled: row.settled === true, plugin: String(row.plugin),
    createdAt: instant(row.issued_ms), expiresAt: instant(row.expires_ms), maxAt: instant(row.max_ms),
    endedAt: row.ended_ms === null ? null : instant(row.ended_ms), asOf: instant(row.now_ms),
    renewals: Number(row.renewals), attempts: Number(row.attempts), lastError: text(row.last_error) ?? null
  }
}

// Events of the lease itself, and those of its account from then on; of a shared account, until it was next
// off.
async function history(
  handle: Handle, holdId: string, page: HistoryPage | undefined
): Promise<LeaseEventRow[]> {
  const rows = await query(handle, sql`
    select e.id, ${ms(sql`e.at`)} as at_ms, e.kind, e.actor, e.detail from lease_event e
      join hold h on h.id = ${holdId}
    where e.id > ${page?.after ?? 0}::int8 and (e.hold = h.id or (e.account = h.account and e.hold is null
      and e.at >= h.issued_at and e.id <= coalesce((
      select min(p.id) from lease_event p join account a on a.id = p.account
      where p.account = h.account and p.kind = 'proved-gone' and p.at >= h.ended_at
        and a.kind = 'enable'), e.id)))
    order by e.id limit ${page?.limit ?? null}::int`)
  return rows.map(row => ({
    id: Number(row.id), at: instant(row.at_ms), kind: String(row.kind), actor: String(row.actor),
    detail: row.detail as Record<string, unknown>
  }))
}

async function dependants(handle: Handle, kind: 'target' | 'credential', name: string): Promise<string[]> {
  const match = kind === 'target'
    ? sql`a.target = ${name}`
    : sql`(a.credential = ${name} or a.spec ->> 'authenticationCredential' = ${name})`
  const rows = await query(handle, sql`
    select a.name, a.target, a.state from account a where a.state <> 'proved-gone' and ${match}
    order by a.target, a.name limit ${dependantsMax}::int`)
  return rows.map(row => `account ${String(row.name)} on ${String(row.target)} is ${String(row.state)}`)
}

async function known(handle: Handle, target: string, names: readonly string[]): Promise<Known[]> {
  const rows = await query(handle, sql`
    select a.id, a.name, a.kind, a.state,
      exists (select from hold h where h.account = a.id and h.state in ${live}) as wanted
    from account a where a.target = ${target} and a.name in ${setOf(names)}`)
  return rows.map(row => ({
    accountId: String(row.id), name: String(row.name), kind: row.kind as Known['kind'],
    state: row.state as AccountState,
    wanted: row.wanted === true
  }))
}

// Named one by one, so that the index on the state serves: accounts that are gone are by far the most.
const unwanted = `'closing', 'removing', 'stuck', 'quarantined', 'unreachable'`
const notGone = sql.raw(`('intended', 'creating', 'active', ${unwanted})`)

async function gauges(handle: Handle): Promise<LedgerGauges> {
  const row = await queryOne(handle, sql`
    select coalesce((select jsonb_object_agg(state, accounts) from (
        select state, count(*)::int as accounts from account where state in ${notGone} group by state)
          as s), '{}'
      ) as accounts,
      (select count(*) from hold where state in ${live})::int as holds,
      coalesce((select extract(epoch from now() - min(h.last)) from (
        select max(o.ended_at) as last from account a join hold o on o.account = a.id
        where a.state in (${sql.raw(unwanted)}) group by a.id) as h), 0)::float8 as oldest`)
  return {
    accounts: (row?.accounts ?? {}) as LedgerGauges['accounts'], holds: Number(row?.holds ?? 0),
    oldestUnwantedSeconds: Number(row?.oldest ?? 0)
  }
}
