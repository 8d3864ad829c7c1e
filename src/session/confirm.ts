// The step in which a connection waits until its person confirms it in the console: where the protocol has no
// place to ask for what is still to be proved, or where all that a person can prove is in a browser. They are
// told a link; nothing else exists meanwhile, no session, no account, no recording.
import { SallyportError } from '../errors.ts'
import type { Claim, Person } from './front.ts'

/** What a front end says of a proof that is still to come, in the console. */
export const inConsole = 'confirmed in the console'

export interface ConfirmationPort {
  /** There is a console to open. Without one a passkey is asked for all the same, and cannot be shown. */
  readonly isOpen: boolean
  /** How long a connection waits. */
  readonly waitSeconds: number
  /**
   * What somebody can prove there: a passkey, which is then asked for as a second factor is, or being known
   * to an identity provider. Asked for names that do not exist as well, at the same cost.
   */
  waysOf(user: string): Promise<{ passkey: boolean, provider: boolean }>
  /** Throws `auth-throttled`, `too-many-connections`, `store-unavailable`. */
  ask(user: string, claim: Claim): Promise<{ link: string, code: string, secret: string }>
  /** Rejects with the signal's reason. */
  decided(
    secret: string, waitMs: number, signal: AbortSignal
  ): Promise<'approved' | 'denied' | 'expired'>
}

/** True when the person confirmed it in time. Throws `access-denied` when they did not want it. */
export async function confirmedInConsole(
  port: ConfirmationPort, user: string, claim: Claim, person: Person
): Promise<boolean> {
  const { link, code, secret } = await port.ask(user, claim)
  const minutes = Math.ceil(port.waitSeconds / 60)
  const span = `${minutes} minute${minutes === 1 ? '' : 's'}`
  person.tell(`open ${link} and confirm ${code}: waiting for up to ${span}`)

  const leaving = new AbortController()
  const stop = person.onLeft(() => leaving.abort(new SallyportError('client-closed', {
    detail: 'left before it was confirmed in the console'
  })))
  try {
    const verdict = await port.decided(secret, port.waitSeconds * 1000, leaving.signal)
    if (verdict === 'denied') throw new SallyportError('access-denied', { detail: `${user} turned it away` })
    if (verdict === 'approved') person.tell('confirmed')
    return verdict === 'approved'
  } finally {
    stop()
  }
}
