// Secrets that renew themselves (R1–R4). The new credential is made and registered first; the one before
// stays valid for its overlap, and is revoked, with a receipt, only when that is over and nobody uses it any
// more: no open session on the target, and whoever has read it has read a newer one since. Who still does is
// an alarm, once; the longest time of the lease ends it in the end. Each pass looks at everything anew, so it
// does not matter which node makes it, or whether one died half way.
import { asSallyportError } from '../errors.ts'
import type { Clock } from '../clock.ts'
import type { LeaseFilter, LeaseRow } from '../lease/store-port.ts'
import { providerOf, switchOf } from '../policy/secrets.ts'
import type { DynamicSecret, SecretDefinition } from '../policy/secrets.ts'
import type { Declared } from '../policy/types.ts'
import { Secret } from '../secret.ts'
import type { Asker, Reading } from './secrets.ts'

/** Owns the leases of renewed credentials; no application can be called so. */
export const renewalOwner = 'sallyport'

export interface RenewedCredential {
  path: string
  version: number
  state: 'pending' | 'current' | 'retiring' | 'retired' | 'failed'
  lease: string | null
  secret: string | null
  createdAt: Date
  ageSeconds: number
  overdue: boolean
}

export interface RenewalStore {
  alive(): Promise<readonly RenewedCredential[]>
  list(path: string): Promise<readonly RenewedCredential[]>
  begin(path: string, seen: number): Promise<number | undefined>
  current(path: string, version: number, lease: string, values: Secret<string>, overlapSeconds: number):
    Promise<void>
  failed(path: string, version: number): Promise<void>
  retired(row: Pick<RenewedCredential, 'path' | 'version' | 'secret'>): Promise<void>
  alarmed(path: string, version: number): Promise<boolean>
  open(row: Pick<RenewedCredential, 'secret'>): Promise<Secret<string>>
  noteReader(path: string, reader: string, version: number): Promise<void>
  readersOf(path: string, version: number): Promise<readonly string[]>
}

export interface RenewalPorts {
  clock: Clock
  store: RenewalStore
  declared(): Promise<Declared>
  /** A new account of the secret for its longest time. */
  generate(asker: Asker, path: string, ttlSeconds: number): Promise<Reading>
  revoke(lease: string, actor: string): Promise<boolean>
  leases(filter: LeaseFilter): Promise<readonly LeaseRow[]>
  lease(id: string): Promise<LeaseRow | undefined>
  /** Open sessions of a lease's account on its target. Throws when nobody could look. */
  sessionsOf(lease: string): Promise<number>
  audit(kind: string, actor: string, subject: string, detail: Record<string, unknown>): Promise<void>
  warn(fields: Record<string, unknown>, message: string): void
}

export interface Renewer {
  /** One look at everything, now. Never throws. */
  pass(): Promise<void>
}

// A renewal that has not come to its end by then was a process's that died: twice all limits of a hook.
const pendingSecondsMax = 120
const strayLeasesMax = 1000
const asker: Asker = {
  holder: { kind: 'application', name: renewalOwner, roles: ['admin'] }, address: 'renewal'
}

/** What is to happen, and when. */
interface Due {
  secret: DynamicSecret
  everySeconds: number
  overlapSeconds: number
}

/** The renewal that is on: confirmed, of a secret that is not being deleted. */
export function activeRenewal(declared: Declared, secret: SecretDefinition): Due | undefined {
  if (secret.type === 'static' || secret.deleting === true) return undefined
  if (secret.renewal?.confirmed !== true) return undefined
  const { minutes, overlapSeconds } = secret.renewal
  const every = minutes[switchOf(providerOf(declared, secret) ?? '')]
  return every === undefined ? undefined : { secret, everySeconds: every * 60, overlapSeconds }
}

export function createRenewer(ports: RenewalPorts): Renewer {
  return {
    async pass() {
      try {
        const declared = await ports.declared()
        const alive = await ports.store.alive()
        const on = new Map([...declared.secrets].map(([path, secret]) =>
          [path, activeRenewal(declared, secret)] as const).filter(([, due]) => due !== undefined))
        for (const path of new Set([...on.keys(), ...alive.map(row => row.path)])) {
          await passOne(ports, on.get(path), path, alive.filter(row => row.path === path))
        }
      } catch (thrown) {
        complain(ports, 'renewals could not be looked at', '', thrown)
      }
    }
  }
}

async function passOne(
  ports: RenewalPorts, due: Due | undefined, path: string, rows: readonly RenewedCredential[]
): Promise<void> {
  try {
    const left = await withoutEnded(ports, rows)
    const current = left.find(({ state }) => state === 'current')
    const isPending = left.some(({ state }) => state === 'pending')
    const isTime = due !== undefined && (current === undefined || current.ageSeconds >= due.everySeconds)
    if (isTime && !isPending) await renew(ports, due, current?.version ?? 0)
    for (const row of left) if (row.state === 'retiring' && row.overdue) await retire(ports, row)
  } catch (thrown) {
    complain(ports, 'a secret could not be renewed; it is tried again', path, thrown)
  }
}

/** Versions whose lease is over are history, whoever ended it; so are renewals that nobody finishes. */
async function withoutEnded(
  ports: RenewalPorts, rows: readonly RenewedCredential[]
): Promise<RenewedCredential[]> {
  const left: RenewedCredential[] = []
  for (const row of rows) {
    if (row.state === 'pending') {
      if (row.ageSeconds < pendingSecondsMax) left.push(row)
      else await abandon(ports, row, rows)
      continue
    }
    const lease = row.lease === null ? undefined : await ports.lease(row.lease)
    if (lease?.status === 'active') left.push(row)
    else await ports.store.retired(row)
  }
  return left
}

/** Its account may have been made: a lease of ours that no version knows is revoked. */
async function abandon(
  ports: RenewalPorts, { path, version }: RenewedCredential, rows: readonly RenewedCredential[]
): Promise<void> {
  const known = new Set(rows.map(({ lease }) => lease))
  const leases = await ports.leases({
    credential: path, ownerKind: 'application', owner: renewalOwner, status: 'active', limit: strayLeasesMax
  })
  for (const { id } of leases) if (!known.has(id)) await ports.revoke(id, 'system')
  await ports.store.failed(path, version)
}

async function renew(
  ports: RenewalPorts, { secret: { name: path, maxTtlSeconds }, overlapSeconds }: Due, seen: number
): Promise<void> {
  const version = await ports.store.begin(path, seen)
  // Another node is at it.
  if (version === undefined) return
  let lease: string | undefined
  try {
    const reading = await ports.generate(asker, path, maxTtlSeconds)
    lease = reading.lease
    const values = JSON.stringify(reading.values.map(({ key, masked, value }) =>
      ({ key, masked, value: value.expose() })))
    await ports.store.current(path, version, lease ?? '', new Secret(values), overlapSeconds)
  } catch (thrown) {
    if (lease !== undefined) await ports.revoke(lease, 'system').catch(() => false)
    await ports.store.failed(path, version)
    throw thrown
  }
}

async function retire(ports: RenewalPorts, row: RenewedCredential): Promise<void> {
  const { path, version, lease } = row
  const readers = await ports.store.readersOf(path, version)
  const sessions = lease === null ? 0 : await ports.sessionsOf(lease)
  if (readers.length === 0 && sessions === 0) {
    if (lease !== null) await ports.revoke(lease, 'system')
    await ports.store.retired(row)
    return
  }
  if (!await ports.store.alarmed(path, version)) return
  const detail = { version, readers, sessions, lease }
  ports.warn({ path, ...detail }, 'an old credential is in use after its overlap; it is not removed yet')
  await ports.audit('secret.still-in-use', 'system', path, detail)
}

function complain({ warn }: RenewalPorts, message: string, path: string, thrown: unknown): void {
  const { code, detail, reference, problems } = asSallyportError(thrown)
  warn({ path, code, detail, reference, problems }, message)
}
