// Who is alive. Each process of ours runs under a boot; a hold and a claim name the process that they belong
// to. Declaring a node dead gives it another boot, so that nothing it still tries under the old one counts,
// and what it held is swept: not once, but whenever it is seen, so that a hold written at the last moment is
// swept as well.
import type { Database, Handle } from './database.ts'
import { sql } from './drizzle.ts'
import { live, query, queryOne, setOf } from './ledger-sql.ts'
import type { Beat, LedgerStore } from '../lease/store-port.ts'

type NodeMoves = Pick<LedgerStore, 'boot' | 'beat' | 'sweep'>

// Boots that the living gave to the dead begin like this; no process ever runs under one.
export const deadBoot = 'dead '

// A process that is gone (died, restarted, or was declared dead): its node has another boot now.
const goneHold = sql`(h.owner_kind = 'session' or h.state = 'pending') and not exists (
  select from node n where n.id = h.node and n.boot = h.boot)`
const goneClaimant = sql`a.claimed_by is not null and not exists (
  select from node n where n.id || '/' || n.boot = a.claimed_by)`

export function nodeMoves(database: Database): NodeMoves {
  return {
    boot: ({ node, boot }) => database.run(async handle => {
      await query(handle, sql`
        insert into node (id, boot) values (${node}, ${boot})
        on conflict (id) do update set boot = excluded.boot, beat_at = now()`)
    }),
    beat: request => database.run(handle => beat(handle, request)),
    sweep: limit => database.transaction(tx => sweep(tx, limit))
  }
}

// A node whose row is locked is saying that it lives, or is being declared dead by another: it is passed
// over. So two nodes that each hold their own row never wait for each other's.
async function beat(
  handle: Handle, { claimant, ttlMs, declare }: Beat
): Promise<{ alive: boolean, peers: number, declared: readonly string[] }> {
  const silent = sql`node.beat_at < now() - ${ttlMs}::float8 * interval '1 millisecond'`
  const row = await queryOne(handle, sql`
    with mine as (
      update node set beat_at = now() where id = ${claimant.node} and boot = ${claimant.boot} returning id
    ),
    silent as (
      select node.id from node, mine
      where ${declare}::boolean and node.id <> ${claimant.node} and ${silent}
        and node.boot not like ${`${deadBoot}%`}
      for update of node skip locked
    ),
    dead as (
      update node set boot = ${deadBoot} || gen_random_uuid() from silent where node.id = silent.id
      returning node.id
    )
    select exists (select from mine) as alive,
      (select count(*) from node where id <> ${claimant.node} and not (${silent}))::int as peers,
      coalesce((select jsonb_agg(id) from dead), '[]'::jsonb) as declared`)
  return {
    alive: row?.alive === true, peers: Number(row?.peers ?? 0), declared: (
      row?.declared ?? []
    ) as readonly string[]
  }
}

// Leases of people and applications outlive the process that issued them; sessions do not, nor does anything
// that was only being prepared.
async function sweep(tx: Handle, limit: number): Promise<{ accounts: number, more: boolean }> {
  const locked = await query(tx, sql`
    select a.id from account a where a.id in (
      select h.account from hold h where h.state in ${live} and ${goneHold}
      union
      select a.id from account a where a.next_at is not null and ${goneClaimant}
      union
      select a.id from account a where a.state = 'active' and not exists (
        select from hold h where h.account = a.id and h.state in ${live})
    ) order by a.id limit ${limit}::int for update of a skip locked`)
  if (locked.length === 0) return { accounts: 0, more: false }
  const ids = setOf(locked.map(row => String(row.id)))
  await query(tx, sql`
    with stale as (
      select h.id, h.account from hold h where h.account in ${ids} and h.state in ${live} and ${goneHold}
    ),
    h as (
      update hold set ended_at = now(), state = case when hold.state = 'pending' then 'failed'
        else 'released' end
      from stale where hold.id = stale.id returning hold.id, hold.account, hold.node, hold.boot
    ),
    before as (
      select a.id, ${goneClaimant} as dropped, exists (
        select from hold h where h.account = a.id and h.state in ${live} and h.id not in (select id
          from stale)
      ) as wanted
      from account a where a.id in ${ids}
    ),
    u as (
      update account a set epoch = a.epoch + 1,
        claimed_by = case when b.dropped then null else a.claimed_by end,
        state = case
          when a.state = 'creating' and b.dropped then 'closing'
          when a.state = 'active' and not b.wanted then 'closing'
          when a.state = 'intended' and not b.wanted then 'proved-gone'
          else a.state end,
        next_at = case when a.state = 'intended' and not b.wanted then null else now() end,
        ended_at = case when a.state = 'intended' and not b.wanted then now() else a.ended_at end,
        verify_left = case
          when b.dropped and (a.state = 'creating' or a.kind = 'enable') then greatest(a.verify_left, 1)
          else a.verify_left end
      from before b where a.id = b.id
        and (b.dropped or (a.state in ('active', 'intended') and not b.wanted)) returning a.id
    )
    insert into lease_event (account, hold, kind, actor, detail)
    select account, id, 'process-gone', 'system', jsonb_build_object('node', node, 'boot', boot) from h`)
  return { accounts: locked.length, more: locked.length >= limit }
}
