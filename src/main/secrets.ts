// Joins secrets outside sessions to the rooms that they need: what is declared, the templates as they are
// now, the ledger that makes the accounts.
import { firstAdminName, localAdminName } from '../api/access.ts'
import { asSallyportError } from '../errors.ts'
import type { MaximumOf } from '../lease/context.ts'
import type { Owner } from '../lease/store-port.ts'
import { endToday, mayHave } from '../policy/secrets.ts'
import type { Holder } from '../policy/secrets.ts'
import type { Declared } from '../policy/types.ts'
import type { Cancel, Clock } from '../clock.ts'
import { createRenewer, renewalOwner } from '../secrets/renewal.ts'
import type { RenewalStore } from '../secrets/renewal.ts'
import { createSecrets } from '../secrets/secrets.ts'
import type { Secrets } from '../secrets/secrets.ts'
import { pin } from './accounts.ts'
import { addressOf } from './hooks.ts'
import type { Rooms } from './rooms.ts'

// Each revocation waits for its target: one that is away must not hold up the others.
const holdersAtOnce = 16

type LeaseNeeds = Pick<Rooms, 'ledger' | 'declared' | 'clock' | 'log'>

/**
 * Revokes the leases whose owners may not have their secret any more: a grant, a user or an application was
 * taken away, or a grant has ended. The local admin and the first one are nobody's declaration, and keep
 * theirs. Never throws: what failed is tried at the next look.
 */
export async function revokeWithdrawn(
  { ledger, declared, clock, log }: LeaseNeeds, isOver: () => boolean = () => false
): Promise<void> {
  try {
    const now = await declared()
    const withdrawn = (await ledger.holders()).filter(({ owner, credential }) => {
      if (isUndeclared(owner)) return false
      return !mayHave(now, holderOf(now, owner), credential, clock.now())
    })
    const worker = async (): Promise<void> => {
      for (let each = withdrawn.pop(); each !== undefined && !isOver(); each = withdrawn.pop()) {
        await ledger.revokeAll(each, 'system')
      }
    }
    await Promise.all(Array.from({ length: holdersAtOnce }, worker))
  } catch (thrown) {
    const { code, detail } = asSallyportError(thrown)
    log.error({ code, detail }, 'leases whose grant was withdrawn could not all be revoked')
  }
}

/** S9: how long leases may live as their definitions say now. */
export async function maximums(
  { declared, clock }: Pick<LeaseNeeds, 'declared' | 'clock'>
): Promise<MaximumOf> {
  const now = await declared()
  return ({ ownerKind: kind, owner: id, ...lease }) => kind === 'session'
    ? lease.maxAt
    : endToday(now, holderOf(now, { kind, id }), lease, clock.now())
}

function holderOf({ users }: Declared, owner: Owner): Holder {
  const { kind, id: name } = owner
  const user = kind === 'user' ? users.get(name) : undefined
  const declared = user === undefined || user.disabled ? [] : user.roles
  const roles = isUndeclared(owner) ? ['admin' as const] : declared
  return { kind: kind === 'user' ? 'user' : 'application', name, roles }
}

/** The local admin and the first one; and a renewed credential is of the secret itself. */
function isUndeclared({ kind, id }: Owner): boolean {
  return kind === 'user' ? [localAdminName, firstAdminName].includes(id) : id === renewalOwner
}

// How often renewals are looked at: they are counted in minutes.
const lookMs = 5000
// Withdrawals are acted upon as they are declared. This look is for what nobody declares (a grant ends by the
// clock) and for a node that died between the declaration and its consequence.
const withdrawnLookMs = 30_000

export interface SecretRoom {
  secrets: Secrets
  /** Looks no more; waits for what is being renewed or revoked. */
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
  const closers = [
    repeat(clock, lookMs, () => renewer.pass()),
    repeat(clock, withdrawnLookMs, isOver => revokeWithdrawn({ ledger, declared, clock, log }, isOver))
  ]
  return { secrets, close: async () => void await Promise.all(closers.map(close => close())) }
}

/** One at a time, until it is closed. */
function repeat(
  clock: Clock, everyMs: number, act: (isOver: () => boolean) => Promise<void>
): () => Promise<void> {
  let closed = false
  let running: Promise<void> = Promise.resolve()
  let cancel: Cancel
  const arm = (): void => {
    cancel = clock.after(everyMs, () => {
      running = act(() => closed).finally(() => {
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
