// What a login is held against: the verifier of a user, or one that is made up for a name that nobody has.
// Both cost the same: a sealed value is opened and a verifier is made up for every name, and one of the two
// is thrown away. Otherwise the time to the challenge would tell strangers which names exist (R13).
import type { Declared, SecretReference } from '../policy/types.ts'
import type { Secret } from '../secret.ts'

/** The verifier for a name, whoever it is. Throws `store-unavailable`, `seal-broken`. */
export type VerifierOf = (declared: Declared, name: string) => Promise<string>

export function createVerifiers(
  openSecret: (reference: SecretReference) => Promise<Secret<string>>, mockVerifier: (name: string) => string
): VerifierOf {
  return async (declared, name) => {
    const own = declared.users.get(name)?.verifier
    const madeUp = mockVerifier(name)
    const reference = own ?? anyVerifier(declared)
    const opened = reference === undefined ? undefined : await openSecret(reference)
    return own === undefined || opened === undefined ? madeUp : opened.expose()
  }
}

/**
 * Somebody's, to be opened in vain; undefined when nobody has a password: then there is nothing to find out.
 */
function anyVerifier({ users }: Declared): SecretReference | undefined {
  for (const { verifier } of users.values()) if (verifier !== undefined) return verifier
  return undefined
}
