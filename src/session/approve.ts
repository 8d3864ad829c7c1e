// The step in which a connection waits until others agree: it makes the request unless there is one, says so
// with its id, and goes on at the decision. Nothing else exists meanwhile, no session, no account, no
// recording; whoever leaves leaves the request behind, for the next connection.
import { SallyportError } from '../errors.ts'
import type { Approval, ApprovalNeeded } from '../policy/approvals.ts'
import type { Decision, Grant } from '../policy/authorise.ts'
import type { ApprovalRule } from '../policy/types.ts'
import type { Claim, Person } from './front.ts'

export type RequestState = 'pending' | 'approved' | 'denied' | 'expired' | 'withdrawn'

/** Something within a session that a rule of its grant makes others agree to. */
export interface RuleWish {
  user: string
  credential: string
  /** Names grant, rule, session and what is asked for: see `ruleKey` of policy/approvals.ts. */
  grant: string
  /** What is asked for, as an approver may see it. */
  reason: string
  validForSeconds: number
  origin: string
}

export interface ApprovalPort {
  /** Requests of a user that are approved now. */
  validOf(user: string): Promise<readonly Approval[]>
  /** The pending request for this, made now where there was none; returns its id. */
  ask(needed: ApprovalNeeded, claim: Claim): Promise<string>
  /** The same for one thing that is done within a session. */
  askFor(wish: RuleWish): Promise<string>
  /** Takes back what was asked for within a session, where nobody waits for it any more. */
  leave(request: string, user: string): Promise<void>
  /**
   * What has become of a request as soon as it is not pending any more, or of one that is pending still after
   * `waitMs`. Rejects with the signal's reason.
   */
  decided(request: string, waitMs: number, signal: AbortSignal): Promise<RequestState>
}

/** Throws what `Steps.approve` says. `decideAgain` looks at what is declared and approved by then. */
export async function waitForApproval(
  { approvals }: { approvals: ApprovalPort }, needed: ApprovalNeeded, claim: Claim,
  person: Person, decideAgain: () => Promise<Decision>
): Promise<Grant> {
  const { waitForSeconds } = needed.approval
  const request = await approvals.ask(needed, claim)
  person.tell(waitWords(request, needed.approval))

  const leaving = new AbortController()
  const stop = person.onLeft(() => leaving.abort(new SallyportError('client-closed', {
    detail: `left while request ${request} was pending`
  })))
  let state: RequestState
  try {
    state = await approvals.decided(request, waitForSeconds * 1000, leaving.signal)
  } finally {
    stop()
  }
  const what = { detail: `request ${request} is ${state}`, said: `request ${request}` }
  if (state === 'pending') throw new SallyportError('approval-pending', what)
  if (state === 'denied') throw new SallyportError('request-denied', what)
  if (state !== 'approved') throw new SallyportError('request-ended', what)
  const decision = await decideAgain()
  // Approved, and meanwhile changed: the grant, or the end of the approval.
  if ('approval' in decision) throw new SallyportError('request-ended', what)
  person.tell(`request ${request} is approved`)
  return decision
}

/** What somebody is told who waits. */
export function waitWords(request: string, { count, waitForSeconds }: ApprovalRule): string {
  const asked = count === 1 ? 'one approval' : `${count} approvals`
  return `request ${request} needs ${asked}: waiting for up to ${spanOf(waitForSeconds)}`
}

function spanOf(seconds: number): string {
  const [amount, unit] = seconds % 60 === 0 ? [seconds / 60, 'minute'] : [seconds, 'second']
  return `${amount} ${unit}${amount === 1 ? '' : 's'}`
}
