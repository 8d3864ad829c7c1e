// Names of accounts that we make: drawn here, never taken from a client, so that no name can carry a quote, a
// shell metacharacter or another person's account. A pattern is literal text with `#` for a random digit and
// `?` for a random letter or digit. That a name is new for its target, live or past, is the ledger's
// business: it draws again when its unique index says no. Too few random places would make that a guessing
// game, so there is a floor.
import { randomInt } from 'node:crypto'
import { SallyportError } from '../errors.ts'

/** J5: the default prefix and seven digits. */
export const defaultNamePattern = 'jit_#######'

/**
 * Ten million names: a target that makes 100 accounts a day meets a used one about once in 10 draws after 27
 * years.
 */
const randomPlacesMin = 5
const nameForm = /^[a-z_][a-z0-9_]{0,30}$/
const patternForm = /^[a-z_][a-z0-9_#?]{0,30}$/
const letters = 'abcdefghijklmnopqrstuvwxyz0123456789'

/**
 * True for names that we may make: 1 to 31 of `a-z 0-9 _`, not beginning with a digit, not PostgreSQL's own.
 */
export function isMintableName(name: string): boolean {
  return nameForm.test(name) && !name.startsWith('pg_')
}

/** What is wrong with a pattern, as sentences; empty when names can be drawn from it. */
export function namePatternProblems(pattern: string): readonly string[] {
  if (!patternForm.test(pattern)) {
    return ['must be 1 to 31 of a-z, 0-9, _, # and ?, beginning with a letter or _']
  }
  if (pattern.startsWith('pg_')) return ['names beginning with pg_ belong to PostgreSQL']
  const places = pattern.replaceAll(/[^#?]/g, '').length
  return places < randomPlacesMin ? [`must have at least ${randomPlacesMin} random places (# or ?)`] : []
}

/** Draws one name. @throws SallyportError('invalid') when the pattern is not one */
export function mintName(pattern: string = defaultNamePattern): string {
  const problems = namePatternProblems(pattern)
  if (problems.length > 0) throw new SallyportError('invalid', { detail: 'name pattern', problems })
  const digit = (): string => String(randomInt(10))
  const letter = (): string => letters[randomInt(letters.length)] ?? 'a'
  return pattern.replaceAll('#', digit).replaceAll('?', letter)
}
