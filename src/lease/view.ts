// What a person is shown of a lease: its status and what can still be added to it, decided here in one place
// from what the store has. A filter by status asks the store for the combinations that give
// that status, so that what is filtered by is what is shown.
import { renewableMs } from './renew.ts'
import { accountStates, holdStates, leaseStatus } from './states.ts'
import type { LeaseFilter, LeaseRecord, LeaseRow, RecordFilter } from './store-port.ts'

/** `endOf`: the end of its whole lifetime, as it is today. */
export function shown(
  known: LeaseRecord, endOf: (record: LeaseRecord) => Date = ({ maxAt }) => maxAt
): LeaseRow {
  const { settled, asOf, plugin: _, ...record } = known
  const { holdState, accountState, expiresAt } = record
  const maxAt = endOf(known)
  const lease = { state: holdState, expiresAtMs: expiresAt.getTime(), maxAtMs: maxAt.getTime() }
  return {
    ...record, maxAt,
    status: leaseStatus(holdState, accountState, settled),
    renewableMs: renewableMs(lease, asOf.getTime())
  }
}

/** A filter in the store's words. */
export function asked({ status, ...rest }: LeaseFilter): RecordFilter {
  return status === undefined ? rest : { ...rest, combinations: combinationsOf(status) }
}

function combinationsOf(status: string): readonly string[] {
  return holdStates.flatMap(hold => accountStates.flatMap(account => [true, false].flatMap(settled =>
    leaseStatus(hold, account, settled) === status ? [`${hold} ${account} ${settled}`] : [])))
}
