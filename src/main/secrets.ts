// Joins secrets outside sessions to the rooms that they need: what is declared, the templates as they are
// now, the ledger that makes the accounts.
import { firstAdminName, localAdminName } from '../api/access.ts'
import { asSallyportError } from '../errors.ts'
import { mayHave } from '../policy/secrets.ts'
import type { Cancel, Clock } from '../clock.ts'
import { createRenewer, renewalOwner } from '../secrets/renewal.ts'
import type { RenewalStore } from '../secrets/renewal.ts'
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
        // A renewed credential is of the secret itself.
        if (ownerKind === 'application' && owner === renewalOwner) continue
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

// How often renewals are looked at: they are counted in minutes.
const lookMs = 5000

export interface SecretRoom {
  secrets: Secrets
  /** Looks no more; waits for what is being renewed. */
  close(): Promise<void>
}

export function openSecretRoom(
  { clock, declared, openSecret, templates, ledger, audit, log }:
  Pick<Rooms, 'clock' | 'declared' | 'openSecret' | 'templates' | 'ledger' | 'audit' | 'log'>,
  store: RenewalStore
): SecretRoom {
  const shelved = { template: (id: string) => templates.get(id) }
  const append = (kind: string, actor: string, subject: string, detail: Record<string, unknown>) =>
    audit.append(kind, actor, subject, detail)
  const secrets = createSecrets({
    clock, declared, openSecret, addressOf: target => addressOf(target), renewed: store, audit: append,
    async pin({ provider: plugin, create, delete: remove }) {
      return {
        open: await pin(shelved, { plugin, template: create }, 'create'),
        close: await pin(shelved, { plugin, template: remove }, 'delete')
      }
    },
    issue: request => ledger.issue(request),
    revoke: (lease, actor, address) => ledger.revoke(lease, actor, address)
  })
  const renewer = createRenewer({
    clock, store, declared, audit: append,
    generate: (asker, path, ttlSeconds) => secrets.generate(asker, path, { ttlSeconds, name: 'renewal' }),
    revoke: (lease, actor) => ledger.revoke(lease, actor),
    leases: filter => ledger.list(filter), lease: id => ledger.show(id),
    sessionsOf: async lease => (await ledger.look(lease)).sessions,
    warn: (fields, message) => log.warn(fields, message)
  })
  return { secrets, close: repeat(clock, () => renewer.pass()) }
}

/** One at a time, until it is closed. */
function repeat(clock: Clock, act: () => Promise<void>): () => Promise<void> {
  let closed = false
  let running: Promise<void> = Promise.resolve()
  let cancel: Cancel
  const arm = (): void => {
    cancel = clock.after(lookMs, () => {
      running = act().finally(() => {
        if (!closed) arm()
      })
    })
  }
  arm()
  return () => {
    closed = true
    cancel()
    return running
  }
}
