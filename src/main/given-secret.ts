// Reads a secret that the configuration names (a file, a variable): the token of the metrics, the key of a
// webhook. Once, at the start, so that a missing one is said then and not in the middle of a night.
import { readFileSync } from 'node:fs'
import type { SecretSource } from '../config-operations.ts'
import { SallyportError } from '../errors.ts'
import { Secret } from '../secret.ts'

/** Shorter ones can be guessed. */
const charactersMin = 16
const charactersMax = 4096

/** Throws `invalid`, naming `what`. */
export function readGiven(
  source: SecretSource, what: string, environment: NodeJS.ProcessEnv = process.env
): Secret<string> {
  const place = source.kind === 'file' ? `file ${source.file}` : `variable ${source.name}`
  const text = textOf(source, environment)?.trim()
  const problem = text === undefined
    ? 'is not there'
    : text.length < charactersMin
      ? `is shorter than ${charactersMin} characters`
      : text.length <= charactersMax && /^[\x21-\x7e]+$/.test(text) ? undefined : 'is no word of ASCII'
  if (text !== undefined && problem === undefined) return new Secret(text)
  const problems = [`${what}: ${place} ${problem ?? ''}`]
  throw new SallyportError('invalid', { detail: problems[0], problems })
}

function textOf(source: SecretSource, environment: NodeJS.ProcessEnv): string | undefined {
  if (source.kind === 'env') return environment[source.name]
  try {
    return readFileSync(source.file, 'utf8')
  } catch {
    return undefined
  }
}
