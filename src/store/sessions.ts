// Sessions: one row for each proxied connection, from `opening` to how it ended. A row is written before
// the connection is let through; its end is insisted on while the store is away (replay.ts); rows of a boot
// that died are closed as interrupted at the next start. Ids sort by start, but lists go by the store's
// clock.
import type { SQL } from 'drizzle-orm'
import type { Clock } from '../clock.ts'
import type { Ending } from '../recording/recording.ts'
import type { LiveSession } from '../session/registry.ts'
import type { Database, Handle } from './database.ts'
import { and, desc, eq, gte, inArray, lte, sql } from './drizzle.ts'
import { createReplay } from './replay.ts'
import { account, node as nodeTable, session } from './schema.ts'

export type SessionRow = typeof session.$inferSelect

export interface SessionFilter {
  user?: string | undefined
  credential?: string | undefined
  target?: string | undefined
  status?: SessionRow['status'] | undefined
  since?: Date | undefined
  until?: Date | undefined
  /** Id of the last session of the page before. */
  before?: string | undefined
  limit: number
}

export interface Sessions {
  /** Throws `store-unavailable`: then the session must not start (F13). */
  open(live: LiveSession): Promise<void>
  live(id: string, account: { accountId: string, accountName: string } | undefined): Promise<void>
  /** What the seal said; kept and repeated while the store is away, as is `ended`. */
  recorded(id: string, sealed: { headHash: string, bytes: number, path: string }): Promise<void>
  ended(id: string, ending: Ending): Promise<void>
  /** Newest first. */
  list(filter: SessionFilter): Promise<readonly SessionRow[]>
  get(id: string): Promise<SessionRow | undefined>
  /** State of each account in the ledger. */
  accountStates(accounts: readonly string[]): Promise<ReadonlyMap<string, string>>
  /** Closes what earlier boots of this node left open. Returns them, for their recordings. */
  interruptOlderBoots(): Promise<readonly SessionRow[]>
  /** Closes what nodes left open that were declared dead (their row names another boot, or is gone). */
  interruptFenced(): Promise<readonly SessionRow[]>
  /** Writes that wait for the store. */
  waiting(): number
  close(): Promise<void>
}

export interface SessionOptions {
  database: Database
  clock: Clock
  node: string
  /** The boot that this process is registered under now: another one after it was declared dead. */
  boot(): string
}

const openStates = ['opening', 'live'] as const

/** Sessions over their table, as this boot of this node. */
export function createSessions({ database, clock, node, boot }: SessionOptions): Sessions {
  const replay = createReplay(clock)
  // A session belongs to the boot that opened it: once that was fenced, its row is no longer ours to write.
  const boots = new Map<string, string>()
  const own = (id: string): SQL | undefined =>
    and(eq(session.id, id), eq(session.boot, boots.get(id) ?? boot()))
  const write = (id: string, values: Partial<typeof session.$inferInsert>): Promise<void> =>
    replay.insist(() => database.run(async handle => {
      await handle.update(session).set(values).where(own(id))
    }))

  return {
    async open(live) {
      const row = { ...openingRow(live), node, boot: boot() }
      boots.set(live.id, row.boot)
      await database.run(handle => handle.insert(session).values(row))
    },
    live: (id, used) => database.run(async handle => {
      await handle.update(session)
        .set({ status: 'live', account: used?.accountId ?? null, accountName: used?.accountName ?? null })
        .where(and(own(id), eq(session.status, 'opening')))
    }),
    recorded: (id, { headHash, bytes, path }) =>
      write(id, { recording: path, recordingHead: headHash, recordingBytes: bytes }),
    ended(id, { how, reason, reference }) {
      const status = how === 'interrupted' ? sql`'interrupted'`
        // Cut before it was ever live: the person was refused.
        : sql`case when ${session.status} = 'opening' and ${how}::text = 'cut'
          then 'refused' else 'ended' end`
      return replay.insist(() => database.run(async handle => {
        // A row that was closed by whoever declared this node dead stays as it is.
        await handle.update(session).set({
          status,
          reason: reference === undefined ? reason : `${reason} ${reference}`,
          endedAt: sql`coalesce(${session.endedAt}, now())`
        }).where(and(own(id), inArray(session.status, [...openStates])))
        boots.delete(id)
      }))
    },
    list: filter => database.run(handle => handle.select().from(session).where(matching(filter))
      .orderBy(desc(session.startedAt), desc(session.id)).limit(filter.limit)),
    async get(id) {
      const [row] = await database.run(handle => handle.select().from(session).where(eq(session.id, id)))
      return row
    },
    async accountStates(accounts) {
      if (accounts.length === 0) return new Map()
      const rows = await database.run(handle => handle.select({ id: account.id, state: account.state })
        .from(account).where(inArray(account.id, [...accounts])))
      return new Map(rows.map(({ id, state }) => [id, state]))
    },
    interruptOlderBoots: () => database.run(handle => interrupt(handle,
      sql`${session.node} = ${node} and ${session.boot} <> ${boot()}`)),
    interruptFenced: () => database.run(handle => interrupt(handle,
      sql`not exists (select 1 from ${nodeTable}
        where ${nodeTable.id} = ${session.node} and ${nodeTable.boot} = ${session.boot})`)),
    waiting: () => replay.waiting(),
    close: () => replay.close()
  }
}

function openingRow({ id, grant, claim, startedAt, expiresAt }: LiveSession) {
  const lifeMs = expiresAt.getTime() - startedAt.getTime()
  const { address, client } = claim
  return {
    id, status: 'opening',
    user: grant.user.name, credential: grant.credential.name, target: grant.target.name,
    protocol: grant.target.protocol, grant: grant.rule.name,
    // Where from, and behind it how, where it was not with a client of the person's own.
    address: client === undefined ? address : `${address} ${client}`,
    // The one that is opened: libpq claims the login name where the person named none.
    database: grant.database ?? null,
    // A span, so that the node's clock does not matter.
    expiresAt: sql`now() + ${lifeMs}::double precision * interval '1 millisecond'`
  } as const
}

const interrupted = { status: 'interrupted', reason: 'interrupted', endedAt: sql`now()` } as const

// Locked in one order: several nodes may close the same rows at once.
function interrupt(handle: Handle, whose: SQL): Promise<SessionRow[]> {
  return handle.update(session).set(interrupted).where(sql`${session.id} in (
    select ${session.id} from ${session} where ${session.status} in ('opening', 'live') and ${whose}
    order by ${session.id} for update)`).returning()
}

function matching({ user, credential, target, status, since, until, before }: SessionFilter) {
  return and(
    user === undefined ? undefined : eq(session.user, user),
    credential === undefined ? undefined : eq(session.credential, credential),
    target === undefined ? undefined : eq(session.target, target),
    status === undefined ? undefined : eq(session.status, status),
    since === undefined ? undefined : gte(session.startedAt, since),
    until === undefined ? undefined : lte(session.startedAt, until),
    before === undefined ? undefined : sql`(${session.startedAt}, ${session.id}) <
      (select cursor.started_at, cursor.id from ${session} as cursor where cursor.id = ${before})`
  )
}
