// How far each receiver of audit events has come: a position in each chain, beside the log, and the claim of
// the one node that sends. Reading goes by chain and number, which never change, and merges the chains by
// time; within a chain the order is that of the numbers even where a node's clock was set back. What a
// receiver refuses is behind its position and kept by its number, until it is taken or given up.
import type { AuditRow } from './audit-chain.ts'
import type { Json } from './canonical.ts'
import type { Database, Handle } from './database.ts'
import { and, eq, sql } from './drizzle.ts'
import { auditReceiver, setting } from './schema.ts'

export interface AuditOutbox {
  claim(receiver: string): Promise<boolean>
  next(receiver: string, limit: number): Promise<readonly AuditRow[]>
  delivered(
    receiver: string, events: readonly AuditRow[], refused: readonly AuditRow[]
  ): Promise<boolean>
  aside(receiver: string): Promise<readonly { event: AuditRow, since: Date }[]>
  settled(receiver: string, event: AuditRow, how: 'taken' | 'given-up'): Promise<boolean>
  refusing(receiver: string): Promise<Date>
  /** How far each is behind. */
  behind(): Promise<ReadonlyMap<string, Behind>>
  release(): Promise<void>
}

export interface Behind {
  /** That it has not got yet, without those aside. */
  events: number
  /** Of the oldest that it has not got; 0: there is none. */
  oldestSeconds: number
  aside: number
  /** Since the receiver is known. */
  givenUp: number
  givenUpAt: Date | undefined
}

/** What a receiver refused, in the small facts of the store. */
interface Refusals {
  aside: { chain: string, seq: number, at: string, since: string }[]
  givenUp: number
  givenUpAt?: string
}

const refusalsKey = 'audit-refused '

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
      return rows.map(asRow)
    },
    delivered: (receiver, events, refused) => database.transaction(async tx => {
      const held = await tx.update(auditReceiver).set({ claimedUntil: until, failingSince: null })
        .where(own(receiver)).returning({ name: auditReceiver.name })
      if (held.length === 0) return false
      const heads = new Map(events.map(({ chain, seq }) => [chain, seq]))
      const given = JSON.stringify([...heads].map(([chain, seq]) => ({ chain, seq })))
      await tx.execute(sql`
        insert into audit_position (receiver, chain, seq)
          select ${receiver}, chain, seq from json_to_recordset(${given}::json) as h(chain text, seq bigint)
        on conflict (receiver, chain) do update set seq = greatest(audit_position.seq, excluded.seq)`)
      if (refused.length === 0) return true
      const since = await instant(tx)
      await change(tx, receiver, found => ({
        ...found,
        aside: [...found.aside, ...refused.map(({ chain, seq, at }) => ({ chain, seq, at, since }))]
      }))
      return true
    }),
    async aside(receiver) {
      const { aside } = await database.run(handle => refusalsOf(handle, receiver))
      if (aside.length === 0) return []
      const rows = await database.run(handle => handle.execute<Record<keyof AuditRow, unknown>>(sql`
        select e.* from audit_event e join json_to_recordset(${JSON.stringify(aside)}::json)
          as a(chain text, seq bigint) on a.chain = e.chain and a.seq = e.seq`))
      const events = rows.map(asRow)
      return aside.flatMap(({ chain, seq, since }) => {
        const event = events.find(each => each.chain === chain && each.seq === seq)
        return event === undefined ? [] : [{ event, since: new Date(since) }]
      })
    },
    settled: (receiver, event, how) => database.transaction(async tx => {
      const held = await tx.update(auditReceiver).set({ claimedUntil: until }).where(own(receiver))
        .returning({ name: auditReceiver.name })
      if (held.length === 0) return false
      const givenUpAt = await instant(tx)
      await change(tx, receiver, ({ aside, ...found }) => ({
        ...found, ...how === 'given-up' && { givenUp: found.givenUp + 1, givenUpAt },
        aside: aside.filter(({ chain, seq }) => chain !== event.chain || seq !== event.seq)
      }))
      return true
    }),
    async refusing(receiver) {
      const [row] = await database.run(handle => handle.update(auditReceiver)
        .set({ failingSince: sql`coalesce(failing_since, now())` }).where(eq(auditReceiver.name, receiver))
        .returning({ since: auditReceiver.failingSince }))
      return row?.since ?? new Date(0)
    },
    async behind() {
      const rows = await database.run(handle => handle.execute<Record<keyof BehindRow, unknown>>(sql`
        select r.name, sum(c.seq - coalesce(p.seq, 0)) as events, min(e.at) as oldest, now() as now,
          (select value from setting where key = ${refusalsKey} || r.name) as refusals
        from audit_receiver r cross join audit_chain c
        left join audit_position p on p.receiver = r.name and p.chain = c.chain
        left join audit_event e on e.chain = c.chain and e.seq = coalesce(p.seq, 0) + 1
        group by r.name`))
      return new Map(rows.map(row => [String(row.name), behindOf(row as unknown as BehindRow)]))
    },
    async release() {
      await database.run(handle => handle.update(auditReceiver).set({ claimedBy: null, claimedUntil: null })
        .where(eq(auditReceiver.claimedBy, who)))
    }
  }
}

interface BehindRow {
  name: string
  events: string
  oldest: string | null
  now: string
  refusals: Refusals | null
}

function behindOf({ events, oldest, now, refusals }: BehindRow): Behind {
  const { aside, givenUp, givenUpAt } = refusals ?? noRefusals
  const times = [...oldest === null ? [] : [oldest], ...aside.map(({ at }) => at)].map(at => Date.parse(at))
  return {
    events: Number(events), aside: aside.length, givenUp,
    oldestSeconds: Math.max(0, ...times.map(at => (new Date(now).getTime() - at) / 1000)),
    givenUpAt: givenUpAt === undefined ? undefined : new Date(givenUpAt)
  }
}

const noRefusals: Refusals = { aside: [], givenUp: 0 }

function asRow(row: Record<keyof AuditRow, unknown>): AuditRow {
  return { ...row, seq: Number(row.seq), detail: row.detail as Json } as AuditRow
}

async function instant(handle: Handle): Promise<string> {
  const [row] = await handle.execute<{ now: string }>(sql`select now() as now`)
  return new Date(row!.now).toISOString()
}

async function refusalsOf(handle: Handle, receiver: string): Promise<Refusals> {
  const [row] = await handle.select().from(setting).where(eq(setting.key, refusalsKey + receiver))
  return row === undefined ? noRefusals : row.value as Refusals
}

/** Within the transaction that holds the claim: one at a time. */
async function change(
  handle: Handle, receiver: string, next: (found: Refusals) => Refusals
): Promise<void> {
  const value = next(await refusalsOf(handle, receiver))
  await handle.insert(setting).values({ key: refusalsKey + receiver, value })
    .onConflictDoUpdate({ target: setting.key, set: { value } })
}
