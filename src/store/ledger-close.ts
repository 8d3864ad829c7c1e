// The ledger's moves from a live account to the proof that it is gone: end and expire take holds away, due
// hands out the right to remove (the worklist), finish writes what was found with its receipts. Nothing here
// trusts a memory: an account is removed because no live hold wants it, read under the lock of its row.
import type { SQL } from 'drizzle-orm'
import type { Renewable, Renewal } from '../lease/renew.ts'
import type { HoldState } from '../lease/states.ts'
import type { Database, Handle } from './database.ts'
import { sql } from './drizzle.ts'
import type { Move, MoveWriter } from './ledger-group.ts'
import {
  claimColumns, claimOf, claimantName, delayed, inMs, inOrder, itemsOf, jsonOf, justEnded, live, lockAccounts,
  lockMode, ms, query, queryOne, said, saidText, setOf, termColumns, termOf
} from './ledger-sql.ts'
import type { Row } from './ledger-sql.ts'
import type {
  Assertion, Claim, Claimant, Due, Ended, EndedHold, EndRequest, LedgerStore, Owner, RemovalResult, Renewed,
  Task
} from '../lease/store-port.ts'

type CloseMoves = Pick<LedgerStore,
  'end' | 'renew' | 'pending' | 'expire' | 'due' | 'finish' | 'asserted' | 'probe' | 'wake'>

// Rows of the worklist that are looked at to pick a batch: more than one target's share, so that a target
// with thousands of due accounts does not hide the others for long.
const scanMax = 500

// Somebody is asserting "on" at this moment (`claimed_by` of an active account): that may land after our
// "off".
const owedLook = sql`case when account.claimed_by is null then account.verify_left
  else greatest(account.verify_left, 1) end`

export function closeMoves(database: Database, writer: MoveWriter): CloseMoves {
  return {
    end: request => writer.write(ending, request),
    renew: (holdId, actor, decide, detail = {}, longest) =>
      database.transaction(tx => renew(tx, holdId, actor, decide, detail, longest)),
    pending: () => database.run(handle => pending(handle)),
    expire: limit => database.transaction(tx => expire(tx, limit)),
    due: request => database.transaction(tx => due(tx, request)),
    finish: (claimant, claim, result) => writer.write(finishing, { claimant, claim, result }),
    asserted: (claimant, claim, result) => database.run(handle => asserted(handle, claimant, claim, result)),
    probe: () => database.run(handle => probe(handle)),
    wake: (target, spreadMs) => database.run(async handle => {
      await query(handle, sql`
        with a as (
          select id from account where target = ${target} and state = 'unreachable' and claimed_by is null
            and next_at > now() + ${spreadMs}::float8 * interval '1 millisecond'
          order by id for update skip locked
        )
        update account set next_at = now() + random() * ${spreadMs}::float8 * interval '1 millisecond'
        from a where account.id = a.id`)
    })
  }
}

const ending: Move<EndRequest, Ended> = {
  keyOf: ({ holdId }) => holdId,
  auditOf: ({ audited }, { ended }) => ended ? audited : undefined,
  async act(tx, requests, alone) {
    // Others may end or join at the same moment: who else is there must be read by a statement that begins
    // under the lock.
    if (alone) {
      const holds = setOf(requests.map(({ holdId }) => holdId))
      await lockAccounts(tx, sql`(select account from hold where id in ${holds})`)
    }
    const { filter, lock } = lockMode(alone)
    const items = requests.map(({ holdId, as, actor, detail, claimant, claimMs, ifExpiresBy }) => ({
      hold_id: holdId, ended_as: as, actor, detail, claimer: claimantName(claimant), claim_ms: claimMs,
      by_ms: ifExpiresBy?.getTime() ?? null
    }))
    const rows = await query(tx, sql`
      with i as (${itemsOf(items, `hold_id text, ended_as text, actor text, detail jsonb, claimer text,
        claim_ms float8, by_ms float8`)}),
      a as (
        select account.id, account.state, i.*
        from i, lateral (select account from hold where id = i.hold_id offset 0) as of_hold,
          lateral (select * from account where id = of_hold.account and ${filter} ${lock}) as account,
          lateral (select from hold where id = i.hold_id ${lock}) as hold
      ),
      own as (
        select hold.*, a.idx, coalesce(hold.expires_at
          > to_timestamp(a.by_ms / 1000) + interval '1 millisecond', false) as renewed
        from hold join a on hold.id = a.hold_id for update of hold
      ),
      h as (
        update hold set state = a.ended_as, ended_at = now() from own join a on a.idx = own.idx
        where hold.id = own.id and own.state in ${live} and not own.renewed
        returning hold.id, hold.owner_kind, hold.owner, own.idx
      ),
      others as (
        select a.idx, exists (select from hold o where o.account = a.id and o.state in ${live}
          and o.id <> a.hold_id) as live from a
      ),
      u as (
        update account set epoch = account.epoch + 1,
          state = case when a.state = 'active' then 'removing' else 'proved-gone' end,
          claimed_by = case when a.state = 'active' then a.claimer end,
          next_at = case when a.state = 'active' then ${delayed('a.claim_ms')} end,
          ended_at = case when a.state = 'active' then account.ended_at else now() end,
          attempts = 0, last_error = null, verify_left = ${owedLook}
        from a join h on h.idx = a.idx join others o on o.idx = a.idx
        where account.id = a.id and not o.live and a.state in ('active', 'intended')
        returning account.*, a.idx
      ),
      e as (
        insert into lease_event (account, hold, kind, actor, detail)
        select a.id, h.id, a.ended_as, a.actor, a.detail from a join h on h.idx = a.idx
      )
      select own.idx, own.id as hold_id, own.account as hold_account, own.state as hold_state, own.owner_kind,
        own.owner, own.node, own.boot, own.renewed, h.id is not null as ended, ${termColumns('own')},
        ${claimColumns('u', justEnded('h', 'h.id is not null'))}
      from own left join h on h.idx = own.idx left join u on u.idx = own.idx`)
    return inOrder(requests, rows, row => endedOf(row, requests[Number(row.idx)]!))
      .map(ended => ended ?? (alone ? noHold : undefined))
  }
}

const noHold: Ended = { ended: false, hold: undefined, claim: undefined, renewed: undefined }

function endedOf(row: Row, { as }: EndRequest): Ended {
  const ended = row.ended === true
  const hold = heldBy({ ...row, hold_state: ended ? as : row.hold_state })
  const alive = row.hold_state === 'pending' || row.hold_state === 'active'
  return {
    ended, hold,
    claim: row.state === 'removing' ? claimOf(row) : undefined,
    renewed: alive && row.renewed === true ? termOf(row) : undefined
  }
}

function heldBy(row: Row): EndedHold {
  return {
    id: String(row.hold_id), accountId: String(row.hold_account), state: row.hold_state as HoldState,
    owner: { kind: row.owner_kind as Owner['kind'], id: String(row.owner) },
    claimant: { node: String(row.node), boot: String(row.boot) }
  }
}

async function renew(
  tx: Handle, holdId: string, actor: string, decide: (lease: Renewable, nowMs: number) => Renewal,
  detail: Record<string, unknown>, longest: Date | undefined
): Promise<Renewed | undefined> {
  await query(
    tx, sql`select id from account where id = (select account from hold where id = ${holdId}) for update`
  )
  const row = await queryOne(tx, sql`
    select state, ${ms(sql`clock_timestamp()`)} as now_ms, ${termColumns('hold')} from hold
      where id = ${holdId}`)
  if (row === undefined) return undefined
  const { expiresAt, maxAt } = termOf(row)
  const lease = { state: row.state as HoldState, expiresAtMs: expiresAt.getTime(), maxAtMs: maxAt.getTime() }
  const verdict = decide(lease, Number(row.now_ms))
  if (!verdict.renewed) {
    await event(tx, holdId, 'renewal-refused', actor, { ...detail, reason: verdict.reason })
    return verdict
  }
  const maxAtMs = verdict.expiresAtMs > lease.maxAtMs ? longest?.getTime() ?? lease.maxAtMs : lease.maxAtMs
  const [after] = await query(tx, sql`
    update hold set expires_at = to_timestamp(${verdict.expiresAtMs}::float8 / 1000), renewals = renewals + 1,
      max_at = greatest(max_at, to_timestamp(${maxAtMs}::float8 / 1000))
    where id = ${holdId} returning ${termColumns('hold')}`)
  const term = termOf(after ?? row)
  await event(tx, holdId, 'renewed', actor, { ...detail, expiresAt: term.expiresAt.toISOString() })
  return { renewed: true, term }
}

async function event(
  tx: Handle, holdId: string, kind: string, actor: string, detail: Record<string, unknown>
): Promise<void> {
  await query(tx, sql`
    insert into lease_event (account, hold, kind, actor, detail)
    select account, id, ${kind}, ${actor}, ${jsonOf(detail)} from hold where id = ${holdId}`)
}

async function pending(handle: Handle): Promise<{ expired: boolean, due: boolean }> {
  const row = await queryOne(handle, sql`
    select exists (select from hold where state in ${live} and expires_at <= now()) as expired,
      exists (select from account where next_at <= now()) as due`)
  return { expired: row?.expired === true, due: row?.due === true }
}

async function expire(tx: Handle, limit: number): Promise<readonly EndedHold[]> {
  const locked = await query(tx, sql`
    select id from account where id in (
      select account from hold where state in ${live} and expires_at <= now() order by expires_at
        limit ${limit}::int
    ) order by id for update skip locked`)
  if (locked.length === 0) return []
  const ids = locked.map(row => String(row.id))
  // Each account's holds by themselves: a plan made for an empty table compares all accounts with all holds.
  const rows = await query(tx, sql`
    with i as materialized (select value as id from jsonb_array_elements_text(${jsonOf(ids)})),
    o as materialized (
      select over.id from i, lateral (
        select id from hold where account = i.id and state in ${live} and expires_at <= now() offset 0
      ) as over
    ),
    h as (
      update hold set state = 'expired', ended_at = now() from o where hold.id = o.id
      returning hold.id, hold.account, owner_kind, owner, node, boot
    ),
    w as materialized (
      select i.id, exists (
        select from hold where account = i.id and state in ${live} and expires_at > now()) as wanted from i
    ),
    u as (
      update account set epoch = epoch + 1, attempts = 0, last_error = null, claimed_by = null,
        verify_left = ${owedLook},
        state = case when state = 'active' then 'closing' else 'proved-gone' end,
        next_at = case when state = 'active' then now() end,
        ended_at = case when state = 'active' then ended_at else now() end
      from w where account.id = w.id and not w.wanted and state in ('active', 'intended')
    ),
    e as (
      insert into lease_event (account, hold, kind, actor) select account, id, 'expired', 'system' from h
    )
    select id as hold_id, account as hold_account, 'expired' as hold_state, owner_kind, owner, node, boot
      from h`)
  return rows.map(heldBy)
}

async function due(tx: Handle, { claimant, claimMs, limit, perTarget, room }: Due): Promise<readonly Task[]> {
  const rooms = sql`${JSON.stringify(room)}::jsonb`
  const full = Object.keys(room).filter(target => (room[target] ?? 0) <= 0)
  const locked = await query(tx, sql`
    select a.id from account a join (
      select id, row_number() over (partition by target order by next_at) as place from (
        select id, target, next_at from account where next_at <= now() and target not in ${setOf(full)}
        order by next_at limit ${scanMax}::int
      ) as scanned
    ) as placed on placed.id = a.id
    where placed.place <= coalesce((${rooms} ->> a.target)::int, ${perTarget}::int) and a.next_at <= now()
    order by a.id limit ${limit}::int for update of a skip locked`)
  if (locked.length === 0) return []
  const ids = setOf(locked.map(row => String(row.id)))
  // What an overtaken opener or switch-off sent may still land: one more look is owed (`verify_left`).
  const rows = await query(tx, sql`
    with before as (
      select a.id, a.state, a.kind, a.claimed_by is not null as overtaken, a.verify_left,
        exists (select from hold h where h.account = a.id and h.state in ${live}) as wanted
      from account a where a.id in ${ids}
    ),
    h as (
      update hold set state = 'failed', ended_at = now() from before b
      where hold.account = b.id and hold.state = 'pending' and b.state = 'creating' and b.kind = 'create'
      returning hold.id, hold.account
    ),
    e as (
      insert into lease_event (account, hold, kind, actor, detail)
      select b.id, h.id, 'taken-over', 'system', jsonb_build_object('from', b.state)
      from before b left join h on h.account = b.id where b.overtaken
    ),
    u as (
      update account set epoch = account.epoch + 1,
        state = case
          when b.state in ('creating', 'closing') then 'removing'
          when b.state = 'intended' and not b.wanted then 'proved-gone'
          else b.state end,
        claimed_by = case when b.state = 'intended' then null else ${claimantName(claimant)} end,
        next_at = case when b.state = 'intended' and not b.wanted then null else ${inMs(claimMs)} end,
        verify_left = case
          when b.overtaken and (b.state = 'creating' or b.kind = 'enable') then greatest(b.verify_left, 1)
          else b.verify_left end
      from before b where account.id = b.id
      returning account.*, case
        when b.state = 'intended' then 'nothing'
        when b.state = 'active' then 'assert'
        when b.state = 'removing' and not b.overtaken then 'look'
        else 'remove' end as act
    )
    select act, ${claimColumns('u')} from u where act <> 'nothing'`)
  return rows.map(row => ({ act: row.act as Task['act'], claim: claimOf(row) }))
}

const beingRemoved = sql.raw(`('removing', 'stuck', 'quarantined', 'unreachable')`)
const beingAsserted = sql.raw(`('active')`)

interface Finishing {
  claimant: Claimant
  claim: Claim
  result: RemovalResult
}

const finishing: Move<Finishing, 'done' | 'fenced'> = {
  keyOf: ({ claim }) => claim.accountId,
  // A receipt without its event would not be chained: a crash between the two must not be possible.
  auditOf: ({ claim, result: { audited } }, outcome) => audited === undefined || outcome === 'fenced'
    ? undefined
    : { ...audited, actor: 'system', subject: claim.accountId },
  async act(tx, those, alone) {
    if (alone) await lockAccounts(tx, setOf(those.map(({ claim }) => claim.accountId)))
    const { filter, lock } = lockMode(alone)
    const items = those.map(({ claimant, claim, result }) => ({
      account_id: claim.accountId, epoch: claim.epoch, was: claim.state, claimer: claimantName(claimant),
      next: result.state, gone: result.state === 'proved-gone', next_ms: result.nextInMs,
      attempts: result.attempts, verify_left: result.verifyLeft, error: saidText(result.error),
      receipts: result.receipts, event: result.event.kind, detail: result.event.detail
    }))
    // Only the holder of the claim may write what it found: same state, same epoch.
    const rows = await query(tx, sql`
      with i as (${itemsOf(items, `account_id text, epoch int, was text, claimer text, next text,
        gone boolean, next_ms float8, attempts int, verify_left int, error text, receipts jsonb, event text,
        detail jsonb`)}),
      t as (
        select account.id, account.epoch as now_epoch, account.state, account.claimed_by, i.*
        from i, lateral (select * from account where id = i.account_id and ${filter} ${lock}) as account
      ),
      a as (
        select *, exists (select from hold o where o.account = t.id and o.state in ${live}) as wanted from t
        where now_epoch = epoch and state = was and state in ${beingRemoved} and claimed_by = claimer
      ),
      u as (
        update account set
          state = case when a.gone and a.wanted then 'intended' else a.next end,
          claimed_by = null, attempts = a.attempts, verify_left = a.verify_left, last_error = a.error,
          next_at = case when not a.gone or a.wanted then ${delayed('a.next_ms')} end,
          secret = case when a.gone then null else account.secret end,
          ended_at = case when a.gone then now() else account.ended_at end
        from a where account.id = a.id returning account.id, a.idx
      ),
      r as (
        insert into receipt (id, account, session, body, key_id, signature)
        select d.id, a.id, d.session, d.body::jsonb, d."keyId", d.signature
        from a, jsonb_to_recordset(a.receipts)
          as d(id text, session text, body text, "keyId" text, signature text)
      ),
      e as (
        insert into lease_event (account, kind, actor, detail) select id, event, 'system', detail from a
      )
      select t.idx, u.id is not null as done from t left join u on u.idx = t.idx`)
    return inOrder(those, rows, row => row.done === true ? 'done' as const : 'fenced' as const)
      .map(outcome => outcome ?? (alone ? 'fenced' : undefined))
  }
}

// Only the holder of the claim may write what it found: same state, same epoch.
function held(claimant: Claimant, { accountId, epoch, state }: Claim, states: SQL): SQL {
  return sql`select id from account where id = ${accountId} and epoch = ${epoch} and state = ${state}
    and state in ${states} and claimed_by = ${claimantName(claimant)} for update`
}

async function asserted(
  handle: Handle, claimant: Claimant, claim: Claim,
  { againInMs, error, deadManAt }: Assertion
): Promise<'done' | 'fenced'> {
  const again = againInMs !== undefined
  const rows = await query(handle, sql`
    with a as (${held(claimant, claim, beingAsserted)}),
    u as (
      update account set claimed_by = null, last_error = ${said(error)},
        spec = account.spec || jsonb_strip_nulls(jsonb_build_object('deadManAt', ${deadManAt ?? null}::text)),
        verify_left = case when ${again}::boolean then account.verify_left
          else greatest(0, account.verify_left - 1) end,
        attempts = case when ${again}::boolean then account.attempts + 1 else 0 end,
        next_at = case when ${again}::boolean then ${inMs(againInMs ?? 0)} end
      from a where account.id = a.id returning account.id
    ),
    e as (
      insert into lease_event (account, kind, actor, detail)
      select id, 'asserted', 'system', jsonb_build_object('error', ${said(error)}) from u
    )
    select id from u`)
  return rows.length > 0 ? 'done' : 'fenced'
}

// Whoever has one of them locked is at it: nothing that touches several accounts at once waits for a lock.
async function probe(handle: Handle): Promise<number> {
  const rows = await query(handle, sql`
    with a as (
      select id from account where next_at > now() and id in (
        select distinct on (target) id from account
        where state = 'unreachable' and claimed_by is null and next_at is not null order by target, next_at
      ) and state = 'unreachable' and claimed_by is null order by id for update skip locked
    )
    update account set next_at = now() from a where account.id = a.id returning account.id`)
  return rows.length
}
