// What every client of the API shares while it runs (its types are in table.ts): how an address is made of a
// path of the table, parts and query, which is the one place where a name becomes a part of one; and how a
// list that comes in pages is read whole. Runs in browsers and at the start of every command, so it imports
// nothing.

export const apiPrefix = '/api/v1'
/** Rows in one answer, where a list goes on after a name. */
export const rowsPerAnswerMax = 1_000

export type Words = Readonly<Record<string, string | number | boolean | undefined>>

/** `/sessions/{id}` with its parts and the query, as it is asked for. */
export function addressWith(path: string, params: Words = {}, query: Words = {}): string {
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => partOf(String(params[name] ?? '')))
  const words = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) if (value !== undefined) words.set(name, String(value))
  return `${apiPrefix}${filled}${words.size === 0 ? '' : `?${words.toString()}`}`
}

// Dots alone are steps in an address, also when they are encoded: the request would go to another route.
function partOf(name: string): string {
  if (/^\.{0,2}$/.test(name)) throw new Error(`${JSON.stringify(name)} is no name`)
  return encodeURIComponent(name)
}

export interface Page {
  after?: string
  limit: number
}

/** All rows of a list, page after page, until one is not full; `cursorOf` says what the next comes after. */
export async function allOf<Row>(
  ask: (page: Page) => Promise<readonly Row[]>, cursorOf: (row: Row) => string
): Promise<Row[]> {
  const all: Row[] = []
  let page: Page = { limit: rowsPerAnswerMax }
  for (;;) {
    const rows = await ask(page)
    all.push(...rows)
    const last = rows.at(-1)
    if (last === undefined || rows.length < page.limit) return all
    page = { ...page, after: cursorOf(last) }
  }
}
