// How far each receiver of audit events has come: a position in each chain, beside the log, and the claim of
// the one node that sends. Reading goes by chain and number, which never change, and merges the chains by
// time; within a chain the order is that of the numbers even where a node's clock was set back.
import type { AuditRow } from './audit-chain.ts'
import type { Json } from './canonical.ts'
import type { Database } from './database.ts'
import { and, eq, sql } from './drizzle.ts'
import { auditReceiver } from './schema.ts'

export interface AuditOutbox {
  claim(receiver: string): Promise<boolean>
  next(receiver: string, limit: number): Promise<readonly AuditRow[]>
  delivered(receiver: string, events: readonly AuditRow[]): Promise<boolean>
  failing(receiver: string): Promise<Date>
  /** Events that each has not got yet. */
  behind(): Promise<ReadonlyMap<string, number>>
  release(): Promise<void>
}

/** Longer than the longest delivery; then another node takes over, and sends what was not noted once more. */
const claimSeconds = 45

/** `who`: this process, unlike any other. */
export function createAuditOutbox(database: Database, who: string): AuditOutbox {
  const until = sql`now() + ${claimSeconds}::float8 * interval '1 second'`
  const own = (receiver: string) => and(eq(auditReceiver.name, receiver), eq(auditReceiver.claimedBy, who))
  return {
    claim: receiver => database.transaction(async tx => {
      const made = await tx.insert(auditReceiver).values({ name: receiver }).onConflictDoNothing()
        .returning({ name: auditReceiver.name })
      if (made.length > 0) {
        await tx.execute(sql`insert into audit_position (receiver, chain, seq)
          select ${receiver}, chain, seq from audit_chain`)
      }
      const claimed = await tx.execute(sql`
        update audit_receiver set claimed_by = ${who}, claimed_until = ${until} where name = ${receiver}
          and (claimed_by = ${who} or claimed_until is null or claimed_until < now()) returning name`)
      return claimed.length > 0
    }),
    async next(receiver, limit) {
      const rows = await database.run(handle => handle.execute<Record<keyof AuditRow, unknown>>(sql`
        select e.chain, e.seq, e.at, e.kind, e.actor, e.subject, e.detail, e.prev, e.hash
        from audit_chain c left join audit_position p on p.receiver = ${receiver} and p.chain = c.chain
        cross join lateral (
          select *, max(at) over (order by seq) as due from audit_event
          where chain = c.chain and seq > coalesce(p.seq, 0) order by seq limit ${limit}::int
        ) e
        where c.seq > coalesce(p.seq, 0) order by e.due, e.chain, e.seq limit ${limit}::int`))
      return rows.map(row => ({ ...row, seq: Number(row.seq), detail: row.detail as Json }) as AuditRow)
    },
    delivered: (receiver, events) => database.transaction(async tx => {
      const held = await tx.update(auditReceiver).set({ claimedUntil: until, failingSince: null })
        .where(own(receiver)).returning({ name: auditReceiver.name })
      if (held.length === 0) return false
      const heads = new Map(events.map(({ chain, seq }) => [chain, seq]))
      const given = JSON.stringify([...heads].map(([chain, seq]) => ({ chain, seq })))
      await tx.execute(sql`
        insert into audit_position (receiver, chain, seq)
          select ${receiver}, chain, seq from json_to_recordset(${given}::json) as h(chain text, seq bigint)
        on conflict (receiver, chain) do update set seq = greatest(audit_position.seq, excluded.seq)`)
      return true
    }),
    async failing(receiver) {
      const [row] = await database.run(handle => handle.update(auditReceiver)
        .set({ failingSince: sql`coalesce(failing_since, now())` }).where(eq(auditReceiver.name, receiver))
        .returning({ since: auditReceiver.failingSince }))
      return row?.since ?? new Date(0)
    },
    async behind() {
      const rows = await database.run(handle => handle.execute<{ name: string, events: string }>(sql`
        select r.name, sum(c.seq - coalesce(p.seq, 0))::text as events from audit_receiver r
        cross join audit_chain c
        left join audit_position p on p.receiver = r.name and p.chain = c.chain group by r.name`))
      return new Map(rows.map(({ name, events }) => [name, Number(events)]))
    },
    async release() {
      await database.run(handle => handle.update(auditReceiver).set({ claimedBy: null, claimedUntil: null })
        .where(eq(auditReceiver.claimedBy, who)))
    }
  }
}
