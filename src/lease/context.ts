// What the parts of the ledger share: the ports, the process's identity, the leases that are alive here, and
// what is still owed to a store that did not answer. Nothing in here decides anything; if a part kept its own
// copy of any of it, two parts could believe different things about who this process is.
import type { Clock } from '../clock.ts'
import type { SallyportError } from '../errors.ts'
import type { Injectable, SecretForm } from '../jit/plugin.ts'
import type { LedgerLimits } from './limits.ts'
import type {
  AccountKind, AccountSpec, AuditSink, Hooks, LedgerLog, ReceiptSigner, SecretBox, Sessions
} from './ports.ts'
import type { Claim, Claimant, LedgerStore, Owner } from './store-port.ts'

export interface LedgerOptions {
  store: LedgerStore
  hooks: Hooks
  clock: Clock
  signer: ReceiptSigner
  audit: AuditSink
  sessions: Sessions
  secrets: SecretBox
  /** Name of this node, unique among the nodes of the store. */
  node: string
  /** What this process calls itself; no other process, before or after, has the same. */
  boot: string
  /** This process was declared dead, and goes on under another boot. */
  onBoot(boot: string): void
  /** What definitions say now of how long leases may live (S9). */
  maximums(): Promise<MaximumOf>
  /** A name for a new account; `attempt` counts those that were already used on the target, from 0. */
  mintName(request: IssueRequest, attempt: number): string
  log: LedgerLog
  limits?: Partial<LedgerLimits> | undefined
}

/** The end of a lease's whole lifetime as its definition says today; its own where that is gone. */
export type MaximumOf = (
  lease: { credential: string, ownerKind: Owner['kind'], owner: string, createdAt: Date, maxAt: Date }
) => Date

export interface IssueRequest {
  /** Name of the credential. */
  credential: string
  target: string
  kind: AccountKind
  /** enable: the standing account. create: drawn by `mintName`. */
  accountName?: string | undefined
  /** create: what `mintName` draws from; its own default when absent. */
  namePattern?: string | undefined
  spec: AccountSpec
  /** enable: the secret that the account has and keeps, when its hook sets none (J12: privileges only). */
  standing?: Injectable | undefined
  /** Who will present the account's secret: `password` for leases that are handed out. */
  form?: SecretForm | undefined
  /** Name of the lease; the credential's when absent (S2). */
  name?: string | undefined
  owner: Owner
  /** Who asked, for the history. */
  actor: string
  /** … and from where. */
  address?: string | undefined
  ttlSeconds: number
  maxTtlSeconds: number
  /** One line of progress for the person who waits. */
  tell(line: string): void
}

/** A session's lease that is alive on this node. */
export interface LocalLease {
  holdId: string
  accountId: string
  owner: Owner
  expiresAt: Date
  /** Monotonic instant: the store's expiry counted on this node's own clock (F19). */
  deadlineMs: number
  /** Somebody is asking the store about its expiry. */
  asking: boolean
  controller: AbortController
}

/** A claim with who made it and how long it is good for on this node's monotonic clock. */
export interface Held {
  claim: Claim
  claimant: Claimant
  claimEndsMs: number
}

export interface Context {
  readonly options: LedgerOptions
  readonly limits: LedgerLimits
  /** Changes when this process was fenced and began anew. */
  claimant: Claimant
  /** Monotonic instants: the last beat that the store took, and since when all were taken. */
  beatenMs: number
  beatingSinceMs: number
  /** Other nodes that were alive at the last beat. */
  peers: number
  stopped: boolean
  readonly local: Map<string, LocalLease>
  /** What the store must still be told: repeated until it answers. */
  readonly debts: Set<() => Promise<void>>
}

/** Ends a lease's use on this node at once: its signal aborts and its session is cut. */
export function cutLease(context: Context, holdId: string, error: SallyportError): void {
  const lease = context.local.get(holdId)
  if (lease === undefined) return
  context.local.delete(holdId)
  lease.controller.abort(error)
  if (lease.owner.kind === 'session') context.options.sessions.cut(lease.owner.id, error)
}

/** Resolves when the promise settles or after `limitMs`, whichever is first; never rejects. */
export function waitAtMost(clock: Clock, promise: Promise<unknown>, limitMs: number): Promise<boolean> {
  return new Promise(resolve => {
    const cancel = clock.after(limitMs, () => resolve(false))
    const done = (): void => {
      cancel()
      resolve(true)
    }
    promise.then(done, done)
  })
}
