// Instants as the store computes them, from its own clock.
// A node's clock never says when something in the store ends: nodes differ, and two of them would disagree.
import { sql } from './drizzle.ts'

/** So many seconds from now on. */
export function inSeconds(seconds: number) {
  return sql`now() + ${seconds}::float8 * interval '1 second'`
}
