// Lists that come in pages, in the order of a name: `limit` rows, and the next ones `after` the last of
// them. A name keeps its place whatever is added or deleted meanwhile, so no row is missed and none comes
// twice; and each page has the tag of its own rows. (What has a time is listed newest first, and goes on
// `before` the last.)
import { z } from 'zod'
import { rowsPerAnswerMax } from './calling.ts'

export const limit = z.coerce.number<number>().int().min(1).max(rowsPerAnswerMax).default(100)
/** The part of a query that says which rows. */
export const byName = { after: z.string().min(1).max(1024).optional(), limit }
/** A part of a name, to look for. */
export const part = z.string().min(1).max(256).optional()

export interface Page<Cursor> {
  after?: Cursor | undefined
  limit: number
}

/** The rows of a page; `keyOf` is what they are in the order of, each its own. */
export function pageOf<Row, Key extends string | number>(
  rows: Iterable<Row>, keyOf: (row: Row) => Key, { after, limit: count }: Page<Key>
): Row[] {
  const keyed = [...rows].map(row => ({ row, key: keyOf(row) }))
  return keyed.filter(({ key }) => after === undefined || key > after)
    .sort((one, other) => one.key < other.key ? -1 : one.key > other.key ? 1 : 0)
    .slice(0, count).map(({ row }) => row)
}
