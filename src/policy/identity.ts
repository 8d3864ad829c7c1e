// What a login at an identity provider means here: which name is claimed, and which roles its groups give.
// Pure: the provider's words and our settings in, a name and roles out. Whether there is such a user, and
// whom the subject was bound to before, is looked at where users are.
import type { Role } from './types.ts'
import { resourceNamePattern } from './types.ts'

/** Names of groups that are looked at; a token with more is none of ours. */
const groupsMax = 10_000

export interface IdentitySetting {
  /** The claim that has the user's name … */
  userClaim: string
  /** … with this domain behind it, which is left out. */
  userDomain: string | undefined
  groupsClaim: string
  /** By the provider's group. */
  groups: ReadonlyMap<string, readonly Role[]>
}

export type Claims = Readonly<Record<string, unknown>>

/** The user's name; or why there is none. */
export function nameOf(
  claims: Claims, { userClaim, userDomain }: IdentitySetting
): { name: string } | { why: string } {
  const value = claims[userClaim]
  if (typeof value !== 'string') return { why: `the claim ${userClaim} is missing` }
  // Whoever may type any address into their profile could take anybody's name.
  if (userClaim === 'email' && claims['email_verified'] !== true) {
    return { why: 'the provider does not say that the address is verified (email_verified)' }
  }
  const suffix = userDomain === undefined ? '' : `@${userDomain}`
  const text = value.toLowerCase()
  if (!text.endsWith(suffix)) return { why: `the claim ${userClaim} does not end with ${suffix}` }
  const name = text.slice(0, text.length - suffix.length)
  return resourceNamePattern.test(name) ? { name } : { why: `the claim ${userClaim} is no name of a user` }
}

/** In the order in which people read them, each once; empty when no group is known. */
export function rolesOf(claims: Claims, { groupsClaim, groups }: IdentitySetting): Role[] {
  const value = claims[groupsClaim]
  const names = Array.isArray(value) ? value.slice(0, groupsMax) : [value]
  const found = new Set(names.flatMap(name => typeof name === 'string' ? groups.get(name) ?? [] : []))
  return (['user', 'auditor', 'admin'] as const).filter(role => found.has(role))
}
