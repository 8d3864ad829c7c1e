// What the ledger asks of its store: atomic moves, each one transaction that decides under the lock of the
// account's row and by the store's own clock, and the shapes that go in and come out. A move compares the
// account's epoch (and claimant) before it changes anything; a store that did less would let two nodes each
// believe that they own an account, and one would end a session of the other or leave an account behind.
import type { AccountKind, AccountSpec } from './ports.ts'
import type { Renewable, Renewal } from './renew.ts'
import type { AccountState, HoldState, LeaseStatus } from './states.ts'

/** An event of the audit log that is durable exactly when the move is that it is about. */
export interface Audited {
  kind: string
  actor: string
  subject: string
  detail: Record<string, unknown>
}

export interface Owner {
  kind: 'session' | 'user' | 'application'
  id: string
}

/**
 * A process of ours: a node's name and the boot that it runs under. Another boot means that it was fenced.
 */
export interface Claimant {
  node: string
  boot: string
}

/** An account and the hold that wants it, as they are first written. */
export interface Intent {
  claimant: Claimant
  accountId: string
  holdId: string
  kind: AccountKind
  target: string
  accountName: string
  credential: string
  spec: AccountSpec
  leaseName: string
  owner: Owner
  actor: string
  address?: string | undefined
  ttlMs: number
  maxTtlMs: number
  /** From the end of the whole lifetime to the fall of the dead-man's switch. */
  deadManMs: number
  claimMs: number
  /** Only of a new account (`intend`). */
  audited?: Audited | undefined
}

export interface Term {
  /** Instants of the store's clock. */
  expiresAt: Date
  maxAt: Date
  /** Milliseconds from the store's now to the expiry: what a node counts on its own monotonic clock. */
  leftMs: number
}

export type Intended =
  | { state: 'claimed', accountId: string, epoch: number, term: Term }
  | { state: 'name-taken' }
  /** The node was declared dead: it must not begin anything. */
  | { state: 'fenced' }

export type Joined =
  | { state: 'claimed', accountId: string, epoch: number, term: Term }
  /** Switched on already: no hook, the sealed secret is shared. */
  | {
    state: 'joined', accountId: string, epoch: number, term: Term, secret: string | undefined,
    spec: AccountSpec
  }
  /** Somebody is switching it on or off: ask again. */
  | { state: 'wait', accountId: string }
  /** The hold was ended meanwhile. */
  | { state: 'withdrawn', accountId: string }
  /** The name belongs to another kind of account. */
  | { state: 'name-taken' }
  | { state: 'fenced' }

/** The right to remove one account, or to look at it: valid for one epoch and until the claim lapses. */
export interface Claim {
  accountId: string
  name: string
  kind: AccountKind
  target: string
  credential: string
  state: AccountState
  epoch: number
  attempts: number
  verifyLeft: number
  spec: AccountSpec
  secret: string | undefined
  /** Holds that ended since the account was last off, oldest first: whose account it was. */
  holds: readonly { id: string, owner: Owner }[]
  createdAt: Date
  activeAt: Date | undefined
  /** End of the longest lifetime among the live holds. */
  wantedUntil: Date | undefined
}

/** What to do with an account from the worklist. */
export type Task =
  | { act: 'remove', claim: Claim }
  /** Removal was done; look once more whether a late effect brought the account back. */
  | { act: 'look', claim: Claim }
  /** Live holds want it, but a late closing may have switched it off: look, and switch on again. */
  | { act: 'assert', claim: Claim }

export type Settled =
  | { state: 'active', term: Term }
  /** The hold ended while the hook ran and nobody else wants the account: the caller removes it. */
  | { state: 'withdrawn', claim: Claim | undefined }
  /** Another node took the account over: hand nothing out. */
  | { state: 'fenced' }

export interface SettleTerms {
  claimMs: number
  /** When to look again whether a late effect changed a shared account that was taken over. */
  reassertMs: number
  /** Id of the sealed secret of a shared account. */
  secret: string | undefined
}

export interface OpenFailure {
  claimMs: number
  /** Nothing of ours is on the target: nothing is to be removed. */
  untouched: boolean
  /** The answer was lost: the effect may still land. */
  late: boolean
  error: string
}

export interface EndedHold {
  id: string
  accountId: string
  state: HoldState
  owner: Owner
  claimant: Claimant
}

export interface Ended {
  /** False when it had ended before. */
  ended: boolean
  /** Undefined when there is no such hold. */
  hold: EndedHold | undefined
  /** Set when this was the last hold of an active account: the caller removes it now. */
  claim: Claim | undefined
  /** Set when it was renewed past the instant given in `ifExpiresBy`: what is left of it then. */
  renewed: Term | undefined
}

export interface EndRequest {
  holdId: string
  as: 'released' | 'expired' | 'revoked' | 'failed'
  actor: string
  detail: Record<string, unknown>
  claimant: Claimant
  claimMs: number
  /** Ends it only if it still expires at that instant or before; otherwise it was renewed. */
  ifExpiresBy?: Date | undefined
  /** Only where it ended now. */
  audited?: Audited | undefined
}

export type Renewed = { renewed: true, term: Term } | { renewed: false, reason: string }

export interface ReceiptDraft {
  id: string
  session: string | undefined
  /** The exact JSON text that was signed. */
  body: string
  keyId: string
  signature: string
}

export interface RemovalResult {
  state: 'proved-gone' | 'removing' | 'stuck' | 'quarantined' | 'unreachable'
  /**
   * When to look or try again; with `proved-gone`, until when whoever waits for a shared account should claim
   * it.
   */
  nextInMs: number
  attempts: number
  verifyLeft: number
  error: string | undefined
  /** One row for each session that used the account, or one without a session; all with the same body. */
  receipts: readonly ReceiptDraft[]
  event: { kind: string, detail: Record<string, unknown> }
  /** The audit event of the receipts. */
  audited: Pick<Audited, 'kind' | 'detail'> | undefined
}

export interface Assertion {
  /** When to try again, after a failure. */
  againInMs: number | undefined
  error: string | undefined
  /** The dead-man's switch as it stands now, where it was moved. */
  deadManAt: string | undefined
}

export interface Due {
  claimant: Claimant
  claimMs: number
  /** Most accounts to take at once. */
  limit: number
  /** Most accounts to take for one target. */
  perTarget: number
  /** The same for some targets by name; 0 for one that has no room now. */
  room: Readonly<Record<string, number>>
}

export interface Beat {
  claimant: Claimant
  ttlMs: number
  /** Whether nodes that have not beaten for ttlMs are declared dead now. */
  declare: boolean
}

export interface Known {
  accountId: string
  name: string
  kind: AccountKind
  state: AccountState
  /** A live hold wants it. */
  wanted: boolean
}

export interface LeaseRow {
  id: string
  name: string
  account: string
  accountName: string
  accountKind: AccountKind
  accountState: AccountState
  target: string
  credential: string
  ownerKind: Owner['kind']
  owner: string
  status: LeaseStatus
  holdState: HoldState
  createdAt: Date
  expiresAt: Date
  maxAt: Date
  endedAt: Date | null
  renewals: number
  /** Milliseconds by which it can still be prolonged. */
  renewableMs: number
  /** Failed attempts to remove the account. */
  attempts: number
  lastError: string | null
}

/** A lease as the store has it; what a person sees of it is decided by the ledger (view.ts). */
export interface LeaseRecord extends Omit<LeaseRow, 'status' | 'renewableMs'> {
  /** The account was proved gone since the lease ended, or others keep the shared account on. */
  settled: boolean
  /** Of its account. */
  plugin: string
  /** The store's now. */
  asOf: Date
}

export interface LeaseFilter {
  target?: string | undefined
  credential?: string | undefined
  ownerKind?: Owner['kind'] | undefined
  owner?: string | undefined
  status?: string | undefined
  /** Id of the last lease of the page before. */
  before?: string | undefined
  limit: number
}

/** All leases of a target, of a credential (or a secret, by its path), or of one owner on it. */
export type LeasesOf = { target: string } | { credential: string, owner?: Owner | undefined }

export interface RecordFilter extends Omit<LeaseFilter, 'status'> {
  /** Only these, each written `hold account settled`, e.g. `released stuck false`. */
  combinations?: readonly string[] | undefined
}

export interface LeaseEventRow {
  /** In the order of what happened, over all leases. */
  id: number
  at: Date
  kind: string
  actor: string
  detail: Record<string, unknown>
}

/** Those after an event, and so many. */
export interface HistoryPage {
  after?: number | undefined
  limit: number
}

export interface LedgerGauges {
  /** Accounts in each state that has any. */
  accounts: Partial<Record<AccountState, number>>
  /** Live holds. */
  holds: number
  /** Seconds since the oldest account that should be gone was last wanted; 0 when there is none. */
  oldestUnwantedSeconds: number
}

/**
 * The store's part: every method is one transaction, and decides under the lock of the account's row (lock
 * order: account, then hold; several accounts by id). Each throws `store-unavailable` when the store does not
 * answer.
 */
export interface LedgerStore {
  /** Registers this process under a new boot; what the previous boot held is orphaned by that. */
  boot(claimant: Claimant): Promise<void>
  /** `alive` is false when this boot was fenced; `peers` counts the other nodes that are alive. */
  beat(beat: Beat): Promise<{ alive: boolean, peers: number, declared: readonly string[] }>
  /** Takes from holds and claims whose process is gone; true when there may be more. */
  sweep(limit: number): Promise<{ accounts: number, more: boolean }>

  intend(intent: Intent): Promise<Intended>
  join(intent: Intent): Promise<Joined>
  /** The hook succeeded: the account is active, if its hold still wants it and nobody has taken over. */
  settle(
    claimant: Claimant, accountId: string, epoch: number, holdId: string, terms: SettleTerms
  ): Promise<Settled>
  /** The hook failed: the hold ends, and the answer is the right to undo what may be there. */
  fail(claimant: Claimant, accountId: string, epoch: number, holdId: string, failure: OpenFailure):
    Promise<Claim | undefined>
  /** A fenced effect may have landed late: the account is looked at again. */
  late(accountId: string, actor: string, reason: string): Promise<boolean>

  end(request: EndRequest): Promise<Ended>
  /**
   * Undefined when there is no such hold. Renewed beyond the end of its lifetime, it has `maxAt` as its new
   * one.
   */
  renew(
    holdId: string, actor: string, decide: (lease: Renewable, nowMs: number) => Renewal,
    detail?: Record<string, unknown>, maxAt?: Date
  ): Promise<Renewed | undefined>
  /** Whether there is anything for `expire` and `due`: one cheap statement for every tick. */
  pending(): Promise<{ expired: boolean, due: boolean }>
  /** Ends what is past its expiry; an account that nobody wants any more is `closing` then. */
  expire(limit: number): Promise<readonly EndedHold[]>
  due(due: Due): Promise<readonly Task[]>
  finish(claimant: Claimant, claim: Claim, result: RemovalResult): Promise<'done' | 'fenced'>
  /** The account was looked at, and is on (or it could not be looked at: `againInMs`). */
  asserted(claimant: Claimant, claim: Claim, result: Assertion): Promise<'done' | 'fenced'>
  /** Brings forward one account of each unreachable target, to find out whether the target is back. */
  probe(): Promise<number>
  /** The target answers again: all its unreachable accounts are due, spread over a moment. */
  wake(target: string, spreadMs: number): Promise<void>

  /** Of these holds, those that are live no more. */
  endedOf(holdIds: readonly string[]): Promise<readonly { id: string, state: HoldState }[]>
  liveHolds(where: LeasesOf): Promise<readonly string[]>
  /** Who holds live leases outside sessions, and on what; each pair once. */
  holders(): Promise<readonly { owner: Owner, credential: string }[]>
  list(filter: RecordFilter): Promise<readonly LeaseRecord[]>
  show(holdId: string): Promise<LeaseRecord | undefined>
  history(holdId: string, page?: HistoryPage): Promise<readonly LeaseEventRow[]>
  /** The account of a lease, to look at it. */
  accountOf(holdId: string):
    Promise<Pick<Claim, 'accountId' | 'name' | 'kind' | 'epoch' | 'spec'> | undefined>
  dependants(kind: 'target' | 'credential', name: string): Promise<readonly string[]>
  known(target: string, names: readonly string[]): Promise<readonly Known[]>
  /** Those of these accounts that are not proved gone, whatever their target is called. */
  standing(accountIds: readonly string[]): Promise<readonly string[]>
  gauges(): Promise<LedgerGauges>
}
