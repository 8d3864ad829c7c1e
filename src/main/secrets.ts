// Joins secrets outside sessions to the rooms that they need: what is declared, the templates as they are
// now, the ledger that makes the accounts.
import { firstAdminName, localAdminName } from '../api/access.ts'
import { asSallyportError } from '../errors.ts'
import { mayHave } from '../policy/secrets.ts'
import { createSecrets } from '../secrets/secrets.ts'
import type { Secrets } from '../secrets/secrets.ts'
import { pin } from './accounts.ts'
import { addressOf } from './hooks.ts'
import type { Rooms } from './rooms.ts'

// Leases looked at together, after something was declared anew.
const leasesMax = 1000

/**
 * Revokes the leases whose owners may not have their secret any more: a grant, a user or an application was
 * taken away. The local admin and the first one are nobody's declaration, and keep theirs.
 */
export async function revokeWithdrawn({ ledger, declared, clock, log }: Rooms): Promise<void> {
  try {
    for (const ownerKind of ['user', 'application'] as const) {
      const leases = await ledger.list({ ownerKind, status: 'active', limit: leasesMax })
      if (leases.length === 0) continue
      const now = await declared()
      for (const { id, owner, credential } of leases) {
        if (ownerKind === 'user' && [localAdminName, firstAdminName].includes(owner)) continue
        const user = ownerKind === 'user' ? now.users.get(owner) : undefined
        const roles = user === undefined || user.disabled ? [] : user.roles
        const holder = { kind: ownerKind, name: owner, roles }
        if (!mayHave(now, holder, credential, clock.now())) await ledger.revoke(id, 'system')
      }
    }
  } catch (thrown) {
    const { code, detail } = asSallyportError(thrown)
    log.error({ code, detail }, 'leases whose grant was withdrawn could not all be revoked')
  }
}

export function openSecretRoom(
  { clock, declared, openSecret, templates, ledger, audit }:
  Pick<Rooms, 'clock' | 'declared' | 'openSecret' | 'templates' | 'ledger' | 'audit'>
): Secrets {
  const ports = { template: (id: string) => templates.get(id) }
  return createSecrets({
    clock, declared, openSecret, addressOf: target => addressOf(target),
    async pin({ provider: plugin, create, delete: remove }) {
      return {
        open: await pin(ports, { plugin, template: create }, 'create'),
        close: await pin(ports, { plugin, template: remove }, 'delete')
      }
    },
    issue: request => ledger.issue(request),
    revoke: (lease, actor, address) => ledger.revoke(lease, actor, address),
    audit: (kind, actor, subject, detail) => audit.append(kind, actor, subject, detail)
  })
}
