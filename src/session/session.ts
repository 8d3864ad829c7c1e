// THE ORDER. Every session of every protocol goes through `run`, and each line of it is one step:
// authenticate, authorise, approve, record, lease, connect, relay, release. What is taken is given back on
// the same screen, in reverse, whatever happens in between (`await using`); giving back never throws. The
// recording opens before the account is made, so that an account that could not be made is itself on record.
import { asSallyportError } from '../errors.ts'
import type { SallyportError } from '../errors.ts'
import type { Decision, Grant } from '../policy/authorise.ts'
import type { User } from '../policy/types.ts'
import type { Ending, Recording } from '../recording/recording.ts'
import type { Challenge, Claim, Doors, Front, Person, Proof, Upstreaming } from './front.ts'

/** A session that is on the books: visible to admins, ended by its signal, closed when disposed. */
export interface OpenSession extends AsyncDisposable {
  readonly id: string
  readonly grant: Grant
  /** Aborts with a SallyportError: killed, expired, shutting down, recorder or lease lost. */
  readonly signal: AbortSignal
  /** States how it ended; the first statement counts. */
  end(ending: Ending): void
  /** How it ended; `internal` until somebody said so. */
  readonly ending: Ending
}

/** The account of one session, and the one way in which its secret travels. */
export interface SessionLease extends AsyncDisposable {
  readonly upstreaming: Upstreaming
}

/** What the steps are made of arrives from outside: this room knows the order, not the doing. */
export interface Steps {
  /**
   * Where a proof is missing that the protocol cannot ask for, waits until the console has it.
   * Throws `auth-failed`, `auth-throttled`, `second-factor-required`, `access-denied`, `client-closed`.
   */
  authenticate(
    claim: Claim, prove: (challenge: Challenge) => Promise<Proof | undefined>, person: Person
  ): Promise<User>
  /** What stands open to somebody who named no credential; undefined when the claim names one. */
  doors(user: User, claim: Claim): Doors | undefined
  /** Throws `not-allowed`, `login-unclear`, `outside-window`, `replication-refused`. */
  authorise(user: User, claim: Claim): Promise<Decision>
  /**
   * Where others have to agree, asks them and waits. Throws `approval-pending`, `request-denied`,
   * `request-ended`, `client-closed`, and what `authorise` throws: it decides again at the end.
   */
  approve(decision: Decision, claim: Claim, person: Person): Promise<Grant>
  /** Throws `store-unavailable`, `shutting-down`. */
  open(grant: Grant, claim: Claim, tell: (line: string) => void): Promise<OpenSession>
  /** Throws `recorder-failed`, `disk-reserve`. */
  record(session: OpenSession): Promise<Recording & AsyncDisposable>
  /** Throws `hook-failed`, `hook-timeout`, `account-conflict`, `store-unavailable`. */
  lease(session: OpenSession, tell: (line: string) => void): Promise<SessionLease>
}

/** Runs one session from its first byte to the proof that its account is gone. Never throws. */
export async function run<Upstream>(front: Front<Upstream>, steps: Steps): Promise<Ending> {
  try {
    const claim = await front.claim()
    const user = await steps.authenticate(claim, challenge => front.prove(challenge), front)
    const doors = steps.doors(user, claim)
    if (doors === undefined || front.receive === undefined) return await enter(front, steps, user, claim)
    return await front.receive(doors, inner => enter(inner, steps, user))
  } catch (thrown) {
    return refuse(front, asSallyportError(thrown))
  }
}

/** The session of somebody who has proved who they are. Never throws. */
async function enter<Upstream>(
  front: Front<Upstream>, steps: Steps, user: User, claimed?: Claim
): Promise<Ending> {
  try {
    const claim = claimed ?? await front.claim()
    const decision = await steps.authorise(user, claim)
    // Before the session is on the books: nothing is made, and nothing recorded, for somebody who waits.
    const grant = await steps.approve(decision, claim, front)

    await using session = await steps.open(grant, claim, line => front.tell(line))
    const ending = await carry(front, steps, session)
    session.end(ending)
    return ending
  } catch (thrown) {
    return refuse(front, asSallyportError(thrown))
  }
}

// A refusal is said before anything is given back: the person must not wait for the removal of the account.
// So each taking has its own screen, and a failure inside it becomes an ending before the `await using`
// unwinds.
async function carry<Upstream>(front: Front<Upstream>, steps: Steps, session: OpenSession): Promise<Ending> {
  try {
    await using recording = await steps.record(session)
    const ending = await withAccount(front, steps, session, recording)
    session.end(ending)
    return ending
  } catch (thrown) {
    return refuse(front, asSallyportError(thrown))
  }
}

async function withAccount<Upstream>(
  front: Front<Upstream>, steps: Steps, session: OpenSession, recording: Recording
): Promise<Ending> {
  try {
    await using lease = await steps.lease(session, line => front.tell(line))
    const ending = await connectAndRelay(front, lease, recording, session.signal)
    session.end(ending)
    return ending
  } catch (thrown) {
    return refuse(front, asSallyportError(thrown))
  }
}

async function connectAndRelay<Upstream>(
  front: Front<Upstream>, lease: SessionLease, recording: Recording, signal: AbortSignal
): Promise<Ending> {
  try {
    const upstream = await front.connect(lease.upstreaming, signal)
    return await front.relay(upstream, recording, signal)
  } catch (thrown) {
    return refuse(front, asSallyportError(thrown))
  }
}

async function refuse<Upstream>(front: Front<Upstream>, error: SallyportError): Promise<Ending> {
  await front.refuse(error)
  return { how: 'cut', reason: error.code, reference: error.reference, detail: error.detail }
}
