// The states of an account that we made or switched on, and every legal move between them, as data. A person
// sees these words in `leases list` and in receipts. Each move is one compare-and-set of the store on (state,
// epoch): a node that was overtaken finds another epoch and changes nothing. If a move that is not listed
// here happens, an account can be forgotten; a test drives the store through all of them and compares.

/** Leases in one list; the next ones are asked for with `before`. */
export const leasesListedMax = 1000

export const accountStates = [
  /**
   * Wanted on the target; no byte has gone there for it (shared accounts that wait for somebody to switch
   * them on).
   */
  'intended',
  /** The intent is durable and the creation or enable hook may be running: the account may exist. */
  'creating',
  /** Exists, and at least one live hold wants it. */
  'active',
  /** Nobody wants it any more and nobody has begun to remove it. */
  'closing',
  /** A node removes it, or a second look at the target is still owed. */
  'removing',
  /**
   * Looked for on the target and not found there (or found off), after no late effect was possible any more.
   */
  'proved-gone',
  /** Removal failed at least once; it is retried for ever. */
  'stuck',
  /** Cannot be dropped, but cannot log in either; removal is retried for ever. */
  'quarantined',
  /** The target did not answer when it was to be removed; retried for ever. */
  'unreachable'
] as const

export type AccountState = typeof accountStates[number]

/** From each state, where an account may go next. A retry that fails again stays where it is. */
export const moves: Readonly<Record<AccountState, readonly AccountState[]>> = {
  // Claimed by an opener; or nobody waits for it any more, and nothing was sent.
  'intended': ['creating', 'proved-gone'],
  // Opened; refused or lost, and undone; its node died; it turned out to be somebody else's account.
  'creating': ['active', 'removing', 'closing', 'proved-gone'],
  // The last hold ended: somebody removes at once, or it waits for the worklist.
  'active': ['removing', 'closing'],
  // Taken from the worklist; or switched on again by a new session (shared accounts).
  'closing': ['removing', 'creating'],
  'removing': ['removing', 'proved-gone', 'stuck', 'quarantined', 'unreachable', 'intended', 'creating'],
  // Switched on again (shared accounts); or an effect landed late, or a scan found it: removed once more.
  'proved-gone': ['creating', 'removing'],
  'stuck': ['stuck', 'removing', 'proved-gone', 'quarantined', 'unreachable', 'intended', 'creating'],
  'quarantined': ['quarantined', 'removing', 'proved-gone', 'stuck', 'unreachable', 'intended', 'creating'],
  'unreachable': ['unreachable', 'removing', 'proved-gone', 'stuck', 'quarantined', 'intended', 'creating']
}

/** States of a hold; the first two are live: the account is wanted while one of them exists. */
export const holdStates = ['pending', 'active', 'released', 'expired', 'revoked', 'failed'] as const

export type HoldState = typeof holdStates[number]

export function isLive(state: HoldState): boolean {
  return state === 'pending' || state === 'active'
}

/** What `leases list` shows (S4). */
export type LeaseStatus = 'active' | 'expired' | 'revoked' | 'revoking' | 'failed'

/**
 * The status of a lease from its hold and its account. An ended lease is `revoking`, that is still live,
 * until the account is proved gone, and `failed` while the removal fails; only then does it become what it
 * ended as. `settled`: the account was proved gone since the lease ended, or others keep the shared account
 * on.
 */
export function leaseStatus(hold: HoldState, account: AccountState, settled: boolean): LeaseStatus {
  if (isLive(hold)) return 'active'
  if (account !== 'proved-gone' && !settled) {
    return account === 'stuck' || account === 'quarantined' ? 'failed' : 'revoking'
  }
  if (hold === 'expired' || hold === 'failed') return hold
  return 'revoked'
}
