// An authenticator app: reads the URI of an enrolment and shows codes, each only once, as the proxy takes
// each only once.
import { setTimeout as pause } from 'node:timers/promises'
import { codeOf, stepAt } from '../../src/policy/one-time-code.ts'
import { Secret } from '../../src/secret.ts'

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

/** What an app reads of the URI, in base64. */
export function secretOfUri(uri: string): Secret<string> {
  const text = new URL(uri).searchParams.get('secret') ?? ''
  const bits = [...text].map(letter => alphabet.indexOf(letter).toString(2).padStart(5, '0')).join('')
  const bytes = bits.match(/.{8}/g)!.map(byte => Number.parseInt(byte, 2))
  return new Secret(Buffer.from(bytes).toString('base64'))
}

/** Gives a code that has not been given before; waits for the next step where it must. */
export function authenticator(uri: string): { next(): Promise<string>, shown(): string } {
  const secret = secretOfUri(uri)
  let last = 0
  return {
    async next() {
      // Two are there at once, this moment's and the next one's; the one before could run out while it is
      // typed.
      last = Math.max(last + 1, stepAt(new Date()))
      while (last > stepAt(new Date()) + 1) await pause(200)
      return codeOf(secret, last)
    },
    shown: () => codeOf(secret, last)
  }
}
