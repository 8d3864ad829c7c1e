// Words that the ledger's statements share. A move is one statement wherever that is safe: its first part
// locks the account's row, the others depend on it, so the lock order is account, then hold. What must be
// decided from *other* holds (shared accounts) needs a statement of its own after the lock, because a
// statement sees the other rows as they were when it began, not as they are when it gets the lock. Lists
// travel as JSON and instants as milliseconds: the driver is not asked to know arrays or time zones.
import type { SQL } from 'drizzle-orm'
import type { AccountState } from '../lease/states.ts'
import { storableJson, storableText } from './canonical.ts'
import type { Handle } from './database.ts'
import { sql } from './drizzle.ts'
import type { Claim, Claimant, Owner, Term } from '../lease/store-port.ts'

export type Row = Record<string, unknown>

// Long enough for any server's error, short enough for a list.
const messageLengthMax = 2000

export const live = sql.raw(`('pending', 'active')`)

/** `claimed_by` of a process. */
export function claimantName({ node, boot }: Claimant): string {
  return `${node}/${boot}`
}

/** Now plus a number of milliseconds, on the store's clock. */
export function inMs(delayMs: number): SQL {
  return sql`(now() + ${delayMs}::float8 * interval '1 millisecond')`
}

/** An instant as milliseconds since 1970; undefined columns stay null. */
export function ms(expression: SQL): SQL {
  return sql`(extract(epoch from ${expression}) * 1000)::float8`
}

/** The strings of a JSON list, as a set of rows. */
export function setOf(list: readonly string[]): SQL {
  return sql`(select jsonb_array_elements_text(${JSON.stringify(list)}::jsonb))`
}

/** JSON for the store: what peers said must not make a move fail, and the account be forgotten by that. */
export function jsonOf(value: unknown): SQL {
  return sql`${JSON.stringify(storableJson(value))}::jsonb`
}

/**
 * What goes into a statement for several moves, as the rows of `i`: the items' values by name, with their
 * place in `idx`. `columns`: names and types. The range of `idx` is for the planner, which takes it for a
 * sign of few rows and looks each up by its key. What it plans is kept, and else is made for an empty table
 * (the embedded store never analyses one): then each statement reads all accounts that ever were.
 */
export function itemsOf(items: readonly Record<string, unknown>[], columns: string): SQL {
  const rows = items.map((item, idx) => ({ ...item, idx }))
  return sql`select * from jsonb_to_recordset(${jsonOf(rows)}) as i(idx int, ${sql.raw(columns)})
    where idx between 0 and 9999`
}

/** Rows of such a statement in the order of the items; undefined where there is none. */
export function inOrder<R>(items: readonly unknown[], rows: readonly Row[], read: (row: Row) => R):
  (R | undefined)[] {
  const byPlace = new Map(rows.map(row => [Number(row.idx), row]))
  return items.map((_, idx) => {
    const row = byPlace.get(idx)
    return row === undefined ? undefined : read(row)
  })
}

/**
 * How a move locks its rows: by itself it waits, and its statement follows the account's lock; in a group it
 * takes what is free, so that it waits for nobody and others cannot deadlock with it, and only accounts that
 * have one hold, since what others hold is read under the lock only.
 */
export function lockMode(alone: boolean): { filter: SQL, lock: SQL } {
  return alone
    ? { filter: sql`true`, lock: sql`for update` }
    : { filter: sql`account.kind = 'create'`, lock: sql`for update skip locked` }
}

/** In a statement of its own: only one that begins under the lock sees what others have written. */
export async function lockAccounts(tx: Handle, ids: SQL): Promise<void> {
  await query(tx, sql`select id from account where id in ${ids} order by id for update`)
}

/** A delay of an item's column from now, on the store's clock. */
export function delayed(column: string): SQL {
  return sql`(now() + ${sql.raw(column)} * interval '1 millisecond')`
}

/** A text of peers as the store can keep it; null when there is none. */
export function said(message: string | undefined): SQL {
  return sql`${saidText(message)}::text`
}

export function saidText(message: string | undefined): string | null {
  return message === undefined ? null : storableText(message, messageLengthMax)
}

export function instant(value: unknown): Date {
  return new Date(Math.round(Number(value)))
}

/** The columns of a Term, of the hold table named `name`. */
export function termColumns(name: string): SQL {
  const h = sql.raw(name)
  return sql`${ms(sql`${h}.expires_at`)} as expires_ms, ${ms(sql`${h}.max_at`)} as max_ms,
    (extract(epoch from ${h}.expires_at - now()) * 1000)::float8 as left_ms`
}

export function termOf(row: Row): Term {
  return { expiresAt: instant(row.expires_ms), maxAt: instant(row.max_ms), leftMs: Number(row.left_ms) }
}

/**
 * The columns of a Claim, of the account row named `name`; `justEnded` adds a hold that this statement ends.
 */
export function claimColumns(name: string, justEnded: SQL = sql`'[]'::jsonb`): SQL {
  const a = sql.raw(name)
  return sql`${a}.id as account_id, ${a}.name, ${a}.kind, ${a}.target, ${a}.credential, ${a}.state,
    ${a}.epoch,
    ${a}.attempts, ${a}.verify_left, ${a}.spec, ${a}.secret, ${ms(sql`${a}.created_at`)} as created_ms,
    ${ms(sql`${a}.active_at`)} as active_ms,
    (select ${ms(sql`max(h.max_at)`)} from hold h where h.account = ${a}.id and h.state in ${live})
      as wanted_ms,
    coalesce((select jsonb_agg(jsonb_build_object('id', h.id, 'owner', jsonb_build_object('kind',
      h.owner_kind,
      'id', h.owner)) order by h.ended_at, h.id) from hold h where h.account = ${a}.id
        and h.ended_at is not null
      and (${a}.ended_at is null or h.ended_at > ${a}.ended_at)), '[]'::jsonb) || ${justEnded} as holds`
}

/**
 * The hold that this statement ends, for the list of holds in a claim: the list itself is as it was before.
 */
export function justEnded(name: string, when: string): SQL {
  const h = sql.raw(name)
  return sql`case when ${sql.raw(when)} then jsonb_build_array(jsonb_build_object('id', ${h}.id, 'owner',
    jsonb_build_object('kind', ${h}.owner_kind, 'id', ${h}.owner))) else '[]'::jsonb end`
}

export function claimOf(row: Row): Claim {
  return {
    accountId: String(row.account_id), name: String(row.name), kind: row.kind as Claim['kind'],
    target: String(row.target), credential: String(row.credential), state: row.state as AccountState,
    epoch: Number(row.epoch), attempts: Number(row.attempts), verifyLeft: Number(row.verify_left),
    spec: row.spec as Claim['spec'], secret: text(row.secret),
    holds: row.holds as readonly { id: string, owner: Owner }[],
    createdAt: instant(row.created_ms), activeAt: row.active_ms === null ? undefined : instant(row.active_ms),
    wantedUntil: row.wanted_ms === null ? undefined : instant(row.wanted_ms)
  }
}

export function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

export async function query(handle: Handle, statement: SQL): Promise<readonly Row[]> {
  return await handle.execute(statement) as unknown as readonly Row[]
}

export async function queryOne(handle: Handle, statement: SQL): Promise<Row | undefined> {
  return (await query(handle, statement))[0]
}
