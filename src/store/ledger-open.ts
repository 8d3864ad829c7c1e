// The ledger's moves from an intent to a live account: intend and join write it down before anything happens,
// settle and fail take the outcome, late owns up to an effect that may have landed after somebody else took
// over. Each compares (state, epoch) under the lock of the account's row; who lost finds no row and changes
// nothing.
import type { SQL } from 'drizzle-orm'
import type { Database, Handle } from './database.ts'
import { sql } from './drizzle.ts'
import type { Move, MoveWriter } from './ledger-group.ts'
import {
  claimColumns, claimOf, claimantName, delayed, inMs, inOrder, itemsOf, jsonOf, justEnded, live, lockAccounts,
  lockMode, query, queryOne, said, setOf, termColumns, termOf, text
} from './ledger-sql.ts'
import type { Row } from './ledger-sql.ts'
import type {
  Claim, Claimant, Intent, Intended, Joined, LedgerStore, OpenFailure, Settled, SettleTerms, Term
} from '../lease/store-port.ts'

type OpenMoves = Pick<LedgerStore, 'intend' | 'join' | 'settle' | 'fail' | 'late'>

// From joining a shared account to its login on the target; generous, since the target's clock is another
// one.
const loginMsMax = 120_000

export function openMoves(database: Database, writer: MoveWriter): OpenMoves {
  return {
    intend: intent => writer.write(intending, intent),
    join: intent => database.transaction(tx => join(tx, intent)),
    settle: (claimant, accountId, epoch, holdId, terms) =>
      writer.write(settling, { claimant, accountId, epoch, holdId, terms }),
    fail: (claimant, accountId, epoch, holdId, failure) =>
      database.run(handle => fail(handle, claimant, accountId, epoch, holdId, failure)),
    late: (accountId, actor, reason) => database.run(handle => late(handle, accountId, actor, reason))
  }
}

/** The node, as long as this boot of it was not fenced. */
function standing({ node, boot }: Claimant): SQL {
  return sql`select id from node where id = ${node} and boot = ${boot}`
}

function holdRow(intent: Intent, account: SQL, from: SQL): SQL {
  const { holdId, leaseName, owner, claimant, ttlMs, maxTtlMs } = intent
  return sql`insert into hold (id, account, name, owner_kind, owner, node, boot, state, expires_at, max_at)
    select ${holdId}, ${account}, ${leaseName}, ${owner.kind}, ${owner.id}, ${claimant.node},
      ${claimant.boot},
      'pending', ${inMs(ttlMs)}, ${inMs(maxTtlMs)} from ${from}`
}

const intending: Move<Intent, Intended> = {
  keyOf: ({ accountId }) => accountId,
  auditOf: ({ audited }, { state }) => state === 'claimed' ? audited : undefined,
  async act(tx, intents) {
    const items = intents.map(intent => {
      const { accountId, holdId, target, accountName, credential, spec, claimant, claimMs, actor } = intent
      return {
        account_id: accountId, hold_id: holdId, target, name: accountName, credential, spec, actor,
        node: claimant.node, boot: claimant.boot, claimed_by: claimantName(claimant), claim_ms: claimMs,
        hold_name: intent.leaseName, owner_kind: intent.owner.kind, owner: intent.owner.id,
        ttl_ms: intent.ttlMs, max_ttl_ms: intent.maxTtlMs, detail: openDetail(intent)
      }
    })
    const rows = await query(tx, sql`
      with i as (${itemsOf(items, `account_id text, hold_id text, target text, name text, credential text,
        spec jsonb, actor text, node text, boot text, claimed_by text, claim_ms float8, hold_name text,
        owner_kind text, owner text, ttl_ms float8, max_ttl_ms float8, detail jsonb`)}),
      n as (select i.* from i join node on node.id = i.node and node.boot = i.boot),
      a as (
        insert into account (id, target, name, kind, credential, state, epoch, claimed_by, next_at, spec)
        select account_id, target, name, 'create', credential, 'creating', 1, claimed_by,
          ${delayed('claim_ms')}, spec from n
        on conflict (target, name) do nothing returning id
      ),
      h as (
        insert into hold (id, account, name, owner_kind, owner, node, boot, state, expires_at, max_at)
        select hold_id, account_id, hold_name, owner_kind, owner, node, boot, 'pending',
          ${delayed('ttl_ms')}, ${delayed('max_ttl_ms')} from n join a on a.id = n.account_id
        returning account, expires_at, max_at
      ),
      e as (
        insert into lease_event (account, hold, kind, actor, detail)
        select account_id, hold_id, 'intended', actor, detail from n join a on a.id = n.account_id
      )
      select i.idx, n.idx is not null as standing, ${termColumns('h')}
      from i left join n on n.idx = i.idx left join h on h.account = n.account_id`)
    return inOrder(intents, rows, row => {
      const { accountId } = intents[Number(row.idx)]!
      if (row.standing !== true) return { state: 'fenced' }
      if (row.expires_ms === null) return { state: 'name-taken' }
      return { state: 'claimed', accountId, epoch: 1, term: termOf(row) }
    })
  }
}

function openDetail({ spec, owner, accountName, address }: Intent): Record<string, unknown> {
  const { open, close, plugin } = spec
  return {
    owner: `${owner.kind} ${owner.id}`, accountName, plugin, ...address === undefined ? {} : { address },
    open: `${open.id} v${open.version}`, close: `${close.id} v${close.version}`
  }
}

async function join(tx: Handle, intent: Intent): Promise<Joined> {
  const { holdId, claimant, claimMs, deadManMs, actor } = intent
  const account = await lockedAccount(tx, intent)
  if (account === undefined) return { state: 'fenced' }
  if (account.kind !== 'enable') return { state: 'name-taken' }
  const accountId = String(account.id)
  const hold = await ownHold(tx, intent, accountId)
  if (hold === undefined) return { state: 'fenced' }
  if (hold.state !== 'pending' || Number(hold.left_ms) <= 0) return { state: 'withdrawn', accountId }

  if (account.state === 'active') return joinActive(tx, intent, account, termOf(hold))
  if (account.claimed === true) return { state: 'wait', accountId }

  // Off, or on its way there with nobody at it. What an overtaken claim sent may still land: look again
  // later.
  const term = termOf(hold)
  const spec = { ...intent.spec, deadManAt: new Date(term.maxAt.getTime() + deadManMs).toISOString() }
  const claimed = await queryOne(tx, sql`
    with a as (
      update account set state = 'creating', epoch = epoch + 1, claimed_by = ${claimantName(claimant)},
        next_at = ${inMs(claimMs)}, spec = ${jsonOf(spec)}, attempts = 0, last_error = null,
        verify_left = case when claimed_by is null then verify_left else greatest(verify_left, 1) end
      where id = ${accountId} returning id, epoch
    ),
    e as (
      insert into lease_event (account, hold, kind, actor, detail)
      select id, ${holdId}, 'intended', ${actor}, ${jsonOf(openDetail(intent))} from a
    )
    select epoch from a`)
  return { state: 'claimed', accountId, epoch: Number(claimed?.epoch), term }
}

// A login now must come before the dead-man's switch falls; where this hold may outlive it, the switch is
// moved.
async function joinActive(tx: Handle, intent: Intent, account: Row, term: Term): Promise<Joined> {
  const { holdId, actor } = intent
  const accountId = String(account.id)
  const pinned = account.spec as Intent['spec']
  const fallsMs = Date.parse(pinned.deadManAt ?? '') || 0
  if (term.maxAt.getTime() > fallsMs) {
    await query(tx, sql`update account set next_at = now() where id = ${accountId} and claimed_by is null`)
  }
  const nowMs = term.expiresAt.getTime() - term.leftMs
  if (fallsMs - nowMs < loginMsMax) return { state: 'wait', accountId }
  await query(tx, sql`
    with h as (update hold set state = 'active' where id = ${holdId} returning id, account)
    insert into lease_event (account, hold, kind, actor) select account, id, 'joined', ${actor} from h`)
  return {
    state: 'joined', accountId, epoch: Number(account.epoch), term, secret: text(account.secret), spec: pinned
  }
}

/**
 * The row of a shared account, locked; made when it is the first time. Undefined when this node was fenced.
 */
async function lockedAccount(tx: Handle, intent: Intent): Promise<Row | undefined> {
  const { accountId, target, accountName, credential, spec, claimant } = intent
  const locked = sql`
    select id, kind, state, epoch, secret, spec, claimed_by is not null and next_at > now() as claimed
    from account where target = ${target} and name = ${accountName} for update`
  const found = await queryOne(tx, locked)
  if (found !== undefined) return found
  await query(tx, sql`
    with n as (${standing(claimant)})
    insert into account (id, target, name, kind, credential, state, spec)
    select ${accountId}, ${target}, ${accountName}, 'enable', ${credential}, 'intended',
      ${jsonOf(spec)} from n
    on conflict (target, name) do nothing`)
  return queryOne(tx, locked)
}

async function ownHold(tx: Handle, intent: Intent, accountId: string): Promise<Row | undefined> {
  const found = await queryOne(tx, sql`
    select state, ${termColumns('hold')} from hold where id = ${intent.holdId}`)
  if (found !== undefined) return found
  return queryOne(tx, sql`
    with n as (${standing(intent.claimant)})
    ${holdRow(intent, sql`${accountId}`, sql`n`)} returning state, ${termColumns('hold')}`)
}

interface Settling {
  claimant: Claimant
  accountId: string
  epoch: number
  holdId: string
  terms: SettleTerms
}

const settling: Move<Settling, Settled> = {
  keyOf: ({ accountId }) => accountId,
  async act(tx, those, alone) {
    // Another session may be joining a shared account at this moment, and only a statement that begins under
    // the lock sees its hold.
    if (alone) await lockAccounts(tx, setOf(those.map(({ accountId }) => accountId)))
    const { filter, lock } = lockMode(alone)
    const items = those.map(({ claimant, accountId, epoch, holdId, terms }) => ({
      account_id: accountId, hold_id: holdId, epoch, node: claimant.node, boot: claimant.boot,
      claim_ms: terms.claimMs, reassert_ms: terms.reassertMs, secret: terms.secret ?? null
    }))
    const rows = await query(tx, sql`
      with i as (${itemsOf(items, `account_id text, hold_id text, epoch int, node text, boot text,
        claim_ms float8, reassert_ms float8, secret text`)}),
      t as (
        select account.id, account.epoch as now_epoch, account.state, i.idx, i.epoch, i.hold_id, i.node,
          i.boot, i.claim_ms, i.reassert_ms, i.secret
        from i, lateral (select * from account where id = i.account_id and ${filter} ${lock}) as account,
          lateral (select from hold where id = i.hold_id ${lock}) as hold
      ),
      a as (select * from t where now_epoch = epoch and state = 'creating'),
      h as (
        select hold.*, a.idx from hold join a on hold.account = a.id
        where hold.id = a.hold_id and hold.state = 'pending' and hold.expires_at > now()
          and exists (select from node where node.id = a.node and node.boot = a.boot) for update of hold
      ),
      w as (
        select a.idx, exists (select from h where h.idx = a.idx) as handed, exists (
          select from hold o where o.account = a.id and o.state in ${live} and o.id <> a.hold_id) as others
        from a
      ),
      u as (
        update account set
          state = case when w.handed or w.others then 'active' else 'removing' end,
          epoch = case when w.handed or w.others then account.epoch else account.epoch + 1 end,
          claimed_by = case when w.handed or w.others then null else account.claimed_by end,
          next_at = case when not (w.handed or w.others) then ${delayed('a.claim_ms')}
            when account.kind = 'enable' and account.verify_left > 0 then ${delayed('a.reassert_ms')} end,
          active_at = now(), secret = coalesce(a.secret, account.secret)
        from a join w on w.idx = a.idx where account.id = a.id returning account.*, a.idx
      ),
      uh as (
        update hold set state = case when w.handed then 'active' else 'failed' end,
          ended_at = case when w.handed then null else now() end
        from a join w on w.idx = a.idx
        where hold.id = a.hold_id and hold.account = a.id and hold.state = 'pending'
        returning hold.id, hold.owner_kind, hold.owner, hold.state, a.idx
      ),
      e as (
        insert into lease_event (account, hold, kind, actor, detail)
        select a.id, a.hold_id, case when w.handed then 'active' else 'withdrawn' end, 'system',
          jsonb_build_object('epoch', a.epoch) from a join w on w.idx = a.idx
      )
      select t.idx, u.id is not null as settled, w.handed, w.others,
        ${claimColumns('u', justEnded('uh', `uh.state = 'failed'`))},
        (select ${ms3('h')} from h where h.idx = t.idx) as term
      from t left join w on w.idx = t.idx left join u on u.idx = t.idx left join uh on uh.idx = t.idx`)
    return inOrder<Settled>(those, rows, row => {
      if (row.settled !== true) return { state: 'fenced' }
      if (row.handed === true) return { state: 'active', term: termOf(row.term as Row) }
      return { state: 'withdrawn', claim: row.others === true ? undefined : claimOf(row) }
    }).map(settled => settled ?? (alone ? { state: 'fenced' } : undefined))
  }
}

/** A Term as one JSON value, where it comes from a row that may be absent. */
function ms3(name: string): SQL {
  const h = sql.raw(name)
  return sql`jsonb_build_object('expires_ms', extract(epoch from ${h}.expires_at) * 1000,
    'max_ms', extract(epoch from ${h}.max_at) * 1000, 'left_ms', extract(epoch
      from ${h}.expires_at - now()) * 1000)`
}

async function fail(
  handle: Handle, claimant: Claimant, accountId: string, epoch: number, holdId: string,
  { claimMs, untouched, late: mayLand, error }: OpenFailure
): Promise<Claim | undefined> {
  const row = await queryOne(handle, sql`
    with a as (
      select id from account where id = ${accountId} and epoch = ${epoch} and state = 'creating' for update
    ),
    h as (
      update hold set state = 'failed', ended_at = now() from a
      where hold.id = ${holdId} and hold.account = a.id and hold.state in ${live}
      returning hold.id, hold.owner_kind, hold.owner
    ),
    u as (
      update account set epoch = account.epoch + 1, last_error = ${said(error)},
        state = case when ${untouched}::boolean then 'proved-gone' else 'removing' end,
        claimed_by = case when ${untouched}::boolean then null else ${claimantName(claimant)} end,
        next_at = case when ${untouched}::boolean then null else ${inMs(claimMs)} end,
        ended_at = case when ${untouched}::boolean then now() else account.ended_at end,
        verify_left = greatest(account.verify_left, ${mayLand ? 1 : 0}::int)
      from a where account.id = a.id returning account.*
    ),
    e as (
      insert into lease_event (account, hold, kind, actor, detail)
      select u.id, ${holdId}, 'failed', 'system', jsonb_build_object('error', ${said(error)}) from u
    )
    select ${claimColumns('u', justEnded('h', 'h.id is not null'))} from u left join h on true`)
  return row === undefined || row.state !== 'removing' ? undefined : claimOf(row)
}

// Whoever took the account over may have finished with it before our effect landed; so it is looked at again,
// and an account that others keep on is asserted. In all other states somebody is at it and will look.
async function late(handle: Handle, accountId: string, actor: string, reason: string): Promise<boolean> {
  const rows = await query(handle, sql`
    with a as (select id, state from account where id = ${accountId} for update),
    u as (
      update account set
        state = case when a.state = 'proved-gone' then 'removing' else a.state end,
        epoch = case when a.state = 'proved-gone' then account.epoch + 1 else account.epoch end,
        next_at = case when a.state in ('proved-gone', 'active') then now() else account.next_at end,
        ended_at = case when a.state = 'proved-gone' then null else account.ended_at end,
        verify_left = greatest(account.verify_left, 1)
      from a where account.id = a.id returning account.id
    ),
    e as (
      insert into lease_event (account, kind, actor, detail)
      select id, 'look-again', ${actor}, jsonb_build_object('reason', ${said(reason)}) from u
    )
    select id from u`)
  return rows.length > 0
}
