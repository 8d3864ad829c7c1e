// One run of a plugin action against a target: what is asked for, and what is known afterwards. The ledger
// speaks in these words; hooks.ts keeps what they promise. Types only: whatever judges, redacts or remembers
// a run needs no more than this.
import type { ErrorCode } from '../errors.ts'
import type {
  Access, AccountRef, Action, Injectable, Made, Owned, Probe, Residue, Variables, Verified
} from './plugin.ts'
import type { TargetHealth } from './target-queue.ts'
import type { Template } from './template.ts'

export interface HookJob {
  action: Action
  pluginId: string
  /** As pinned when the session opened. */
  template: Template
  account: AccountRef
  access: Access
  /** The credential's values, `expires_at`, and what `mint` gave. `username` is filled in here. */
  variables: Variables
  /** What the session will present: known here only to keep it out of messages. */
  inject?: Injectable | undefined
  /**
   * Monotonic instant (of the same clock) at which the ledger's claim lapses; without one, the action's
   * limit.
   */
  claimEndsMs?: number | undefined
  signal?: AbortSignal | undefined
}

export interface HookResult {
  /**
   * done: a look showed the wanted state. conflict: the account is not ours, nothing was touched. refused:
   * definitely not done, perhaps in part. unknown: it may have happened, now or until the claim lapses.
   */
  state: 'done' | 'conflict' | 'refused' | 'unknown'
  changed: boolean
  /** For the client and the audit; undefined when done. */
  code?: ErrorCode | undefined
  failedStep?: string | undefined
  error?: string | undefined
  /** Trying again as it is may succeed. */
  retryable: boolean
  residue: readonly Residue[]
  /** How the account stood when it was last looked at; absent when nobody could look. */
  seen?: Verified | undefined
  /** It exists but cannot log in and has no session: harmless until it can be removed. */
  quarantined: boolean
  /** What the service drew; only with `done`, and in no message. */
  made?: Made
  tookMs: number
}

export interface Hooks {
  /** Never throws. */
  run(job: HookJob): Promise<HookResult>
  /** Looks at the target. @throws SallyportError when it cannot */
  verify(job: HookJob): Promise<Verified>
  probe(pluginId: string, access: Access, variables?: Variables): Promise<Probe>
  listOwned(pluginId: string, access: Access): Promise<readonly Owned[]>
  /** Targets with something to say: busy, waiting or failing. For metrics and `doctor`. */
  health(): readonly TargetHealth[]
  close(): void
}
