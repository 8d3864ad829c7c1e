// Passkeys (WebAuthn): what a browser is asked, and what its answer is worth. The signatures are verified by
// a library that is loaded when the first answer comes (0.2 s of CPU, 25 MiB): who uses none pays nothing.
// User verification (PIN, finger, face) is always asked for, so that one is a first and a second factor at
// once.
import type { WebAuthnCredential } from '@simplewebauthn/server'
import type { PasskeyAnswer, PasskeyPort } from '../api/ports-login.ts'
import type { Clock } from '../clock.ts'
import { SallyportError } from '../errors.ts'
import { challengeSeconds, derived, mintChallenge, readChallenge } from '../policy/challenge.ts'
import type { Challenge } from '../policy/challenge.ts'
import type { AuditLog } from '../store/audit.ts'
import { passkeysPerUserMax } from '../store/passkeys.ts'
import type { PasskeyRow, Passkeys } from '../store/passkeys.ts'

export interface PasskeyNeeds {
  clock: Clock
  rows: Passkeys
  audit: Pick<AuditLog, 'append'>
  /** The same on every node. */
  key: Buffer
  /** Of the console's pages, `https://host:port`; the host is what passkeys are bound to. */
  origin: string | undefined
}

const logInPurpose = 'passkey login'
/** COSE: EdDSA, ES256, RS256; what authenticators and browsers have. */
const algorithms = [-8, -7, -257]
/** How long credential ids of common authenticators are. */
const usualIdBytes = [16, 20, 32, 48, 64]

export function createPasskeyPort({ clock, rows, audit, key, origin }: PasskeyNeeds): PasskeyPort {
  const place = (): { origin: string, rpId: string } => {
    if (origin === undefined) throw new SallyportError('passkeys-unavailable')
    return { origin, rpId: new URL(origin).hostname }
  }
  const registerPurpose = (user: string): string => `passkey of ${user}`
  const handleOf = (user: string): string => derived(key, 'passkey user', user)
  const common = (purpose: string) =>
    ({ challenge: mintChallenge(key, purpose, clock.now()), timeout: challengeSeconds * 1000 })
  return {
    origin,
    list: user => rows.list(user),
    remove: (user, id, by) => rows.remove(user, id, by),
    removeOf: (user, by) => rows.removeOf(user, by),
    async beginRegistration(user) {
      const { rpId } = place()
      return {
        ...common(registerPurpose(user)), rp: { id: rpId, name: 'Sallyport' },
        user: { id: handleOf(user), name: user, displayName: user },
        pubKeyCredParams: algorithms.map(alg => ({ type: 'public-key' as const, alg })),
        excludeCredentials: (await rows.list(user)).map(described),
        authenticatorSelection: { residentKey: 'preferred', userVerification: 'required' }
      }
    },
    async register(user, name, answer) {
      const asked = challengeOf(key, registerPurpose(user), clock)
      const made = await registered(place(), answer, asked.check)
      if (made === undefined || !await rows.spend(asked.found())) {
        const problem = 'response: does not answer what was asked; try again'
        throw new SallyportError('invalid', { problems: [problem] })
      }
      const { id, publicKey, counter } = made.credential
      const row = await rows.add({
        id, user, name, publicKey: Buffer.from(publicKey).toString('base64url'), counter,
        backedUp: made.credentialBackedUp
      })
      if (row !== undefined) return row
      const problem = `the passkey is known already, or there are ${passkeysPerUserMax}: remove one first`
      throw new SallyportError('in-use', { problems: [problem] })
    },
    async beginLogin(user) {
      const { rpId } = place()
      const allowed = user === undefined ? [] : offered(key, user, await rows.list(user))
      return {
        ...common(logInPurpose), rpId, userVerification: 'required', allowCredentials: allowed.map(described)
      }
    },
    async check(answer) {
      const row = await rows.get(answer.id)
      if (row === undefined) return { user: undefined, why: 'unknown passkey' }
      const { user } = row
      const { userHandle } = answer.response
      const isOthers = userHandle !== undefined && userHandle !== handleOf(user)
      if (isOthers) return { user, why: 'another user handle' }
      const asked = challengeOf(key, logInPurpose, clock)
      const count = await answered(place(), answer, row, asked.check)
      if (typeof count === 'string') return { user, why: count }
      if (!await rows.spend(asked.found())) return { user, why: 'the challenge was answered before' }
      if (await rows.used(row.id, count)) return { user, passkey: row.id }
      await audit.append('passkey.copied', user, user, { passkey: row.id, counted: count, seen: row.counter })
      return { user, why: 'the passkey signed as often before: there is a copy of it' }
    }
  }
}

/** Looks at the challenge while the library does the rest, and keeps it. */
function challengeOf(key: Buffer, purpose: string, clock: Clock): {
  check(text: string): boolean
  found(): Challenge
} {
  let challenge: Challenge | undefined
  return {
    check(text) {
      challenge = readChallenge(key, purpose, text, clock.now())
      return challenge !== undefined
    },
    found: () => challenge!
  }
}

/** Without how it is reached: a made-up one could not say that as a real one does, so it is not kept. */
const described = ({ id }: Pick<PasskeyRow, 'id'>) => ({ type: 'public-key' as const, id })

/**
 * What a login by name offers: as many for everybody, whoever has none, one or several among them. What is
 * made up is nobody's, always the same for a name, of the lengths that real ones have, and in the order of
 * all, so that nothing but the person's own key tells which is which.
 */
function offered(key: Buffer, user: string, known: readonly Pick<PasskeyRow, 'id'>[]): { id: string }[] {
  const madeUp = Array.from({ length: Math.max(0, passkeysPerUserMax - known.length) }, (_, number) => {
    const bytes = Buffer.from(derived(key, `passkey ${number} of nobody`, user), 'base64url')
    const more = Buffer.from(derived(key, `more of passkey ${number} of nobody`, user), 'base64url')
    const length = usualIdBytes[bytes[0]! % usualIdBytes.length]
    return { id: Buffer.concat([more, bytes]).subarray(0, length).toString('base64url') }
  })
  return [...known, ...madeUp].sort((one, other) => one.id < other.id ? -1 : 1)
}

/** Undefined: it is not what was asked for. */
async function registered(
  { origin, rpId }: { origin: string, rpId: string }, answer: PasskeyAnswer, check: (text: string) => boolean
) {
  const { verifyRegistrationResponse } = await import('@simplewebauthn/server')
  try {
    const { verified, registrationInfo } = await verifyRegistrationResponse({
      response: answer as Parameters<typeof verifyRegistrationResponse>[0]['response'],
      expectedChallenge: check, expectedOrigin: origin, expectedRPID: rpId, requireUserVerification: true,
      supportedAlgorithmIDs: algorithms
    })
    return verified ? registrationInfo : undefined
  } catch {
    // Whatever is wrong with what a browser sent: nothing was registered.
    return undefined
  }
}

/** How often it has signed, or why the answer is none. */
async function answered(
  { origin, rpId }: { origin: string, rpId: string }, answer: PasskeyAnswer, row: PasskeyRow,
  check: (text: string) => boolean
): Promise<number | string> {
  const { verifyAuthenticationResponse } = await import('@simplewebauthn/server')
  // The count is held against the store's once the signature is known to be right: else anybody could raise
  // the alarm of a copy.
  const credential: WebAuthnCredential = {
    id: row.id, publicKey: new Uint8Array(Buffer.from(row.publicKey, 'base64url')), counter: 0
  }
  try {
    const { verified, authenticationInfo } = await verifyAuthenticationResponse({
      response: answer as Parameters<typeof verifyAuthenticationResponse>[0]['response'],
      expectedChallenge: check, expectedOrigin: origin, expectedRPID: rpId, credential,
      requireUserVerification: true
    })
    return verified ? authenticationInfo.newCounter : 'wrong signature'
  } catch (thrown) {
    return thrown instanceof Error ? thrown.message.slice(0, 200) : 'not readable'
  }
}
