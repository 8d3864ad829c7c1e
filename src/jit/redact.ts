// Takes secrets out of text that is about to be kept: a target may quote a statement, and with it a password,
// in its error. Each secret is looked for as it is, in base64 and base64url, in hex, percent-encoded and with
// quotes doubled. A secret of fewer than four characters is left alone: taking every `a` out of a message
// hides nothing.
import { SallyportError, asSallyportError } from '../errors.ts'
import { Secret } from '../secret.ts'
import type { HookJob } from './hook.ts'
import type { Injectable, Variables } from './plugin.ts'

export type Redactor = (text: string) => string

const shortestCharacters = 4
const hidden = '<secret>'

/** A function that hides these values; made once for an action. */
export function createRedactor(secrets: Iterable<string | Uint8Array>): Redactor {
  const forms = new Set<string>()
  for (const secret of secrets) {
    const bytes = Buffer.from(secret)
    const words = [
      bytes.toString('base64'), bytes.toString('base64').replace(/=+$/, ''), bytes.toString('base64url'),
      bytes.toString('hex'), bytes.toString('hex').toUpperCase()
    ]
    if (typeof secret === 'string') {
      words.push(secret, encodeURIComponent(secret.toWellFormed()), secret.replaceAll("'", "''"),
        secret.replaceAll('\\', '\\\\').replaceAll("'", "''"), JSON.stringify(secret).slice(1, -1))
    }
    for (const word of words) if (word.length >= shortestCharacters) forms.add(word)
  }
  // The longest first: a form may contain another one.
  const ordered = [...forms].sort((one, other) => other.length - one.length)
  if (ordered.length === 0) return text => text
  const any = new RegExp(ordered.map(escaped).join('|'), 'g')
  return text => text.replaceAll(any, hidden)
}

function escaped(form: string): string {
  return form.replaceAll(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')
}

/** Every secret that an action handles. */
export function secretsOf(
  variables: Variables, ...injectables: readonly Injectable[]
): (string | Uint8Array)[] {
  const found: (string | Uint8Array)[] = []
  for (const value of Object.values(variables)) if (value instanceof Secret) found.push(value.expose())
  for (const injectable of injectables) {
    if (injectable.kind === 'password') found.push(injectable.password.expose())
    else if (injectable.kind === 'private-key') found.push(injectable.privateKey.expose())
    else found.push(injectable.clientKey.expose(), injectable.serverKey.expose())
  }
  return found
}

/** What an action handles, put together when there is something to hide, which is seldom. */
export function redactorOf(
  { variables, access, inject }: Pick<HookJob, 'variables' | 'access' | 'inject'>
): Redactor {
  let made: Redactor | undefined
  return text => {
    made ??= createRedactor(secretsOf(variables, access.secret, ...inject === undefined ? [] : [inject]))
    return made(text)
  }
}

/** What `act` throws, with the secrets taken out of it. @throws SallyportError */
export async function redacted<T>(redact: Redactor, act: () => Promise<T>): Promise<T> {
  try {
    return await act()
  } catch (error) {
    const known = asSallyportError(error)
    throw new SallyportError(
      known.code, { detail: redact(known.detail ?? known.code), problems: known.problems.map(redact) }
    )
  }
}
