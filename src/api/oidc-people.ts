// Who somebody is here whom an identity provider has confirmed. The subject decides, once it was bound;
// before that the name of a claim does, if nobody else of that provider has it. Where users have their roles
// from groups (`rolesFromGroups`), each login writes them anew: who has lost a group has lost the role,
// everywhere; who is in no group any more is switched off, until they are again.
import { SallyportError, asSallyportError } from '../errors.ts'
import { nameOf, rolesOf } from '../policy/identity.ts'
import type { User } from '../policy/types.ts'
import { issue } from './access.ts'
import type { Issued } from './access.ts'
import { documentOf } from './documents.ts'
import type { ApiPorts } from './ports.ts'
import type { FoundPerson, OidcPort } from './ports-login.ts'
import { apply } from './resources.ts'

/** What the audit and the documents say of changes that a login made; nobody can be called so. */
export const providerName = 'identity-provider'

/** Throws `no-such-person`. */
export async function logInByProvider(
  ports: ApiPorts, oidc: OidcPort, found: FoundPerson, address: string, ttlSeconds: number
): Promise<Issued> {
  const { name, roles } = await personOf(ports, oidc, found)
  return issue(ports, { name, roles, ttlSeconds, address, method: 'identity provider' })
}

async function personOf(
  ports: ApiPorts, oidc: OidcPort, { issuer, subject, claims }: FoundPerson
): Promise<User> {
  const { identities } = ports.logins
  const bound = await identities.get(issuer, subject)
  const named = bound === undefined ? nameOf(claims, oidc.setting) : { name: bound }
  if ('why' in named) throw nobody(named.why)
  const { name } = named
  const roles = rolesOf(claims, oidc.setting)
  const isThere = (await ports.policy.declared()).users.has(name)
  if (!isThere && !oidc.createUsers) throw nobody(`there is no user ${name}`)
  if (!isThere && roles.length === 0) throw nobody(`${name} is in no group that is known`)
  if (!isThere) {
    await declare(ports, { kind: 'user', name, roles, rolesFromGroups: true }).catch((thrown: unknown) => {
      const { code, problems } = asSallyportError(thrown)
      if (code === 'invalid') throw nobody(problems.join())
      throw thrown
    })
  }
  if (bound === undefined && !await identities.bind(issuer, subject, name)) {
    throw nobody(`${name} is another subject's: \`users unbind\` if the name was given to somebody else`)
  }
  if (isThere) await regroup(ports, name, roles)
  const user = (await ports.policy.declared()).users.get(name)
  if (user === undefined || user.disabled) throw nobody(`${name} is disabled`)
  return user
}

/** Roles as the groups are now, where they come from groups. */
async function regroup(ports: ApiPorts, name: string, roles: User['roles']): Promise<void> {
  const row = await ports.resources.get('user', name)
  const user = row?.spec as User | undefined
  if (row === undefined || user?.rolesFromGroups !== true) return
  const isOurs = row.updatedBy === providerName
  const isOut = roles.length === 0
  // Whom an admin switched off stays so.
  if (user.disabled && !isOurs) return
  const isSame = [...user.roles].sort().join() === [...roles].sort().join()
  if (user.disabled === isOut && (isOut || isSame)) return
  const document = documentOf('user', user)
  await declare(ports, { ...document, disabled: isOut, ...isOut ? {} : { roles } })
}

async function declare(ports: ApiPorts, document: Record<string, unknown>): Promise<void> {
  await apply(ports, { documents: [document], dryRun: false, prune: false }, providerName)
}

function nobody(detail: string): SallyportError {
  return new SallyportError('no-such-person', { detail })
}
