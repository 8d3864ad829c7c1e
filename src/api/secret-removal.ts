// S8: how a secret goes. One that others need (links, grants) stays, and they are named. One with leases
// goes only when that was said: then it is marked first, so that nothing new is issued, its leases are
// revoked, and it disappears when every account of it was looked for and not found. What cannot be proved yet
// keeps it, marked; the ledger goes on trying, and whoever asks again later finishes it.
import { sleep } from '../clock.ts'
import { SallyportError } from '../errors.ts'
import { quote } from '../input.ts'
import { leasesListedMax } from '../lease/states.ts'
import type { SecretDefinition } from '../policy/secrets.ts'
import type { ApiPorts } from './ports.ts'
import type { LeaseRow } from './ports-records.ts'
import { keyOf } from './references.ts'
import { deleteResource, ownersOf } from './resources.ts'

/** As long as somebody waits at a command line for accounts to be gone. */
const proofMsMax = 30_000
const lookMs = 250
const failedStates = ['stuck', 'quarantined', 'unreachable']

type Needs = Pick<ApiPorts, 'leases'> & Parameters<typeof deleteResource>[0]

/** Throws `not-found`, `in-use` with what still needs it or could not be proved gone. */
export async function deleteSecret(
  ports: Needs, path: string, revokeActiveLeases: boolean, by: string
): Promise<void> {
  if (revokeActiveLeases) {
    await mark(ports, path, by)
    await ports.leases.revokeAll({ credential: path }, by)
    await proved(ports, path)
  }
  try {
    await deleteResource(ports, 'secret', path, by)
  } catch (thrown) {
    if (!(thrown instanceof SallyportError) || thrown.code !== 'in-use' || revokeActiveLeases) throw thrown
    const leases = await ports.leases.dependants('credential', path)
    const hint = 'give --revoke-active-leases to revoke its leases first'
    throw new SallyportError('in-use', {
      problems: leases.length === 0 ? thrown.problems : [...thrown.problems, hint]
    })
  }
}

/** From now on it issues nothing. */
async function mark(ports: Needs, path: string, by: string): Promise<void> {
  await ports.resources.change(async change => {
    const rows = await change.list()
    const row = rows.find(each => each.kind === 'secret' && each.name === path)
    if (row === undefined) throw new SallyportError('not-found', { detail: `no secret ${quote(path)}` })
    const problems = ownersOf(rows, 'secret', path)
    if (problems.length > 0) throw new SallyportError('in-use', { problems })
    const spec = row.spec as SecretDefinition
    if (spec.deleting === true) return
    await change.put('secret', path, { ...spec, deleting: true }, by)
    await change.audit('secret.deleting', by, keyOf('secret', path), {})
  })
  await ports.resources.changed()
}

/**
 * Waits until no account of it is left that was not proved gone, as long as there is hope: those that cannot
 * be removed now are tried for ever, and nobody waits for that.
 */
async function proved(ports: Needs, path: string): Promise<void> {
  const endsMs = ports.clock.monotonicMs() + proofMsMax
  while (ports.clock.monotonicMs() < endsMs) {
    const left = await leftOf(ports, path)
    if (left.every(({ accountState }) => failedStates.includes(accountState))) return
    await sleep(ports.clock, lookMs)
  }
}

/** Its leases whose accounts were not proved gone, page by page. */
async function leftOf(ports: Needs, path: string): Promise<LeaseRow[]> {
  const left: LeaseRow[] = []
  for (let before: string | undefined, more = true; more;) {
    const page = await ports.leases.list({ credential: path, limit: leasesListedMax, before })
    left.push(...page.filter(({ accountState }) => accountState !== 'proved-gone'))
    before = page.at(-1)?.id
    more = page.length === leasesListedMax
  }
  return left
}
