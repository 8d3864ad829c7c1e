// What each step of the order does, over ports: this file knows who is asked and what is written down when,
// the rooms behind the ports know how. Whatever a step writes is written before the thing it speaks of
// happens.
import type { Clock } from '../clock.ts'
import { SallyportError, asSallyportError } from '../errors.ts'
import type { Injectable, TargetAddress } from '../jit/plugin.ts'
import type { Approval } from '../policy/approvals.ts'
import type { Choice, Decision, Grant, Wish } from '../policy/authorise.ts'
import type { Credential, Declared, SecretReference, Target, User } from '../policy/types.ts'
import type { Ending, Recording, RecordingHead } from '../recording/recording.ts'
import type { Secret } from '../secret.ts'
import { waitForApproval } from './approve.ts'
import { confirmedInConsole, inConsole } from './confirm.ts'
import type { ConfirmationPort } from './confirm.ts'
import type { Challenge, Claim, Person, Proof, SecondFactor, Ticket, Upstreaming } from './front.ts'
import { handOver } from './hand-over.ts'
import { mintSessionId } from './id.ts'
import { createJudge } from './judge.ts'
import type { JudgePorts } from './judge.ts'
import type { LiveSession, Registry } from './registry.ts'
import type { OpenSession, SessionLease, Steps } from './session.ts'

/** An account that the ledger has switched on for this session. */
export interface IssuedAccount {
  accountId: string
  accountName: string
  inject: Injectable
  /** Aborts when the account is withdrawn: revoked, fenced, expired. */
  signal: AbortSignal
  /** Gives the account back; the removal and its proof follow, now or by the janitor. Never throws. */
  release(reason: string): Promise<void>
}

export interface StepPorts extends JudgePorts {
  clock: Clock
  node: string
  registry: Registry
  declared(): Promise<Declared>
  authorise(
    declared: Declared, user: User, wish: Wish, now: Date, approvals?: readonly Approval[]): Decision
  /** The user part of a login name; undefined when no grammar matches. */
  userOf(login: string, database: string | undefined): string | undefined
  /** True when a login name says which credential is meant. */
  namesCredential(login: string, database: string | undefined): boolean
  /** The credentials that a user may open now. */
  choicesFor(declared: Declared, userName: string, protocol: string, now: Date): readonly Choice[]
  /** SSH: keys of authorities whose certificates prove who a person is. */
  authorities: readonly string[]
  /** Where a session of this target goes. Throws `target-unreachable`. */
  located(target: Target): Promise<TargetAddress>
  /** Opens a sealed value. */
  openSecret(reference: SecretReference): Promise<Secret<string>>
  /**
   * What a name's password is held against; for names that do not exist one that is made up, always the same
   * for the same name and at the same cost, so that nothing can be told apart.
   */
  verifierOf(declared: Declared, name: string): Promise<string>
  /** What somebody has to prove beside; asked for names that do not exist as well, at the same cost. */
  secondFactorOf(name: string, address: string): Promise<SecondFactor | undefined>
  confirmations: ConfirmationPort
  /** Uses a ticket up; true when the API gave it to this very login, which had to prove all that is asked. */
  admits(ticket: Ticket): boolean
  sessions: SessionBook
  createRecording(head: RecordingHead): Promise<Recording>
  issue(session: LiveSession, tell: (line: string) => void): Promise<IssuedAccount>
}

/** The rows of sessions, as the steps write them. */
export interface SessionBook {
  open(session: LiveSession): Promise<void>
  live(id: string, account: { accountId: string, accountName: string } | undefined): Promise<void>
  recorded(id: string, sealed: { headHash: string, bytes: number, path: string }): Promise<void>
  ended(id: string, ending: Ending): Promise<void>
}

export function createSteps(ports: StepPorts): Steps {
  return {
    authenticate: (claim, prove, person) => authenticate(ports, claim, prove, person),

    doors(user, claim) {
      if (ports.namesCredential(claim.login, claim.database)) return undefined
      const list = async (): Promise<readonly Choice[]> =>
        ports.choicesFor(await ports.declared(), user.name, claim.protocol, ports.clock.now())
      return {
        user: user.name,
        list: async () => (await list()).map(({ credential, target }) =>
          ({
            credential: credential.name, target: target.name, username: credential.username,
            protocol: target.protocol, port: target.port
          })),
        targetOf: async (host, port) => (await list()).map(({ target }) => target).find(target =>
          target.protocol === claim.protocol
          && (target.name === host || (target.host === host && target.port === port)))?.name
      }
    },

    authorise: (user, claim) => refusalsAudited(ports, user, claim, async () => {
      const decision = ports.authorise(await ports.declared(), user, claim, ports.clock.now())
      // Most grants ask nobody: only then is there something to look up.
      return 'approval' in decision ? decideAgain(ports, user, claim) : decision
    }),

    approve: (decision, claim, person) => 'approval' in decision
      ? refusalsAudited(ports, decision.user, claim, () =>
        waitForApproval(ports, decision, claim, person, () => decideAgain(ports, decision.user, claim)))
      : Promise.resolve(decision),

    open: (grant, claim, tell) => openSession(ports, grant, claim, tell),
    record: session => record(ports, session),
    lease: (session, tell) => lease(ports, session, tell)
  }
}

/** With the approvals of the user, and the user as declared now: somebody may have waited for long. */
async function decideAgain(ports: StepPorts, { name }: User, claim: Claim): Promise<Decision> {
  const declared = await ports.declared()
  const user = declared.users.get(name)
  if (user === undefined) throw new SallyportError('not-allowed', { detail: `${name} is no user any more` })
  const approvals = await ports.approvals.validOf(name)
  return ports.authorise(declared, user, claim, ports.clock.now(), approvals)
}

async function refusalsAudited<T>(
  ports: StepPorts, user: User, claim: Claim, act: () => Promise<T>
): Promise<T> {
  try {
    return await act()
  } catch (thrown) {
    const error = asSallyportError(thrown)
    const { code, reference, detail: why } = error
    const refusal = { login: claim.login, code, reference, why }
    await ports.audit('session.refused', user.name, claim.address, refusal)
    throw error
  }
}

async function authenticate(
  ports: StepPorts, claim: Claim, prove: (challenge: Challenge) => Promise<Proof | undefined>, person: Person
): Promise<User> {
  const { protocol } = claim
  const name = ports.userOf(claim.login, claim.database)
  const declared = await ports.declared()
  const user = declared.users.get(name ?? '')
  if (claim.ticket !== undefined) return admitted(ports, claim, claim.ticket, user)
  const verifier = await ports.verifierOf(declared, name ?? '')
  const [factor, ways] = await Promise.all([
    ports.secondFactorOf(name ?? '', claim.address), ports.confirmations.waysOf(name ?? '')
  ])
  const refused = async (code: 'auth-failed' | 'second-factor-required', why: string): Promise<never> => {
    await ports.audit('login.refused', name ?? '?', claim.address, { protocol, why })
    throw new SallyportError(code, { detail: `${name ?? 'unreadable login name'}: ${why}` })
  }
  // What counts is that a right code was seen here, whatever the front end believes to have proved.
  let missing = factor !== undefined || ways.passkey
  const secondFactor = factor === undefined ? undefined : {
    async check(code: string): Promise<boolean> {
      // Somebody has the first factor and not the second: worth a look, however it ends.
      const wrong = (why: string): Promise<void> =>
        ports.audit('second-factor.refused', name ?? '?', claim.address, { protocol, why })
      const isRight = await factor.check(code).catch(async (thrown: unknown) => {
        if (asSallyportError(thrown).code === 'auth-throttled') await wrong('too many wrong codes')
        throw thrown
      })
      if (isRight) missing = false
      else await wrong('wrong code')
      return isRight
    }
  }
  const { authorities } = ports
  const publicKeys = user?.publicKeys ?? []
  const presence = {
    touch: user?.requireTouch ?? true, pin: user?.requirePin ?? false,
    async lacks(code: 'touch-required' | 'pin-required', key: string): Promise<string> {
      const { reference, clientMessage } = new SallyportError(code)
      await ports.audit('login.refused', name ?? '?', claim.address, { protocol, why: key, code, reference })
      return clientMessage
    }
  }
  const { confirmations } = ports
  const canConfirm = confirmations.isOpen && (ways.passkey || ways.provider)
  const noPassword = user !== undefined && user.verifier === undefined && !user.disabled && canConfirm
  const proof = await prove({
    verifier, publicKeys, authorities, name: name ?? '', presence, secondFactor,
    ...noPassword ? { inConsole: true } : {}
  })
  if (user === undefined) return refused('auth-failed', 'unknown user')
  if (proof === undefined) return refused('auth-failed', 'no proof')
  const isToCome = proof.method === inConsole
  if (isToCome && !noPassword) return refused('auth-failed', 'no proof')
  if (!missing && !isToCome) return user
  // Whoever was disabled hears that after the proof, as everybody does.
  const isConfirmed = confirmations.isOpen && !user.disabled
    && await confirmedInConsole(confirmations, user.name, claim, person)
  if (!isConfirmed) return refused('second-factor-required', 'no second factor')
  return userNow(ports, user.name, refused)
}

/** As declared now: somebody may have waited for long. */
async function userNow(
  ports: StepPorts, name: string, refused: (code: 'auth-failed', why: string) => Promise<never>
): Promise<User> {
  return (await ports.declared()).users.get(name) ?? refused('auth-failed', 'unknown user')
}

/** Whoever was let in by the API proves here that it was them, and nothing else. */
async function admitted(
  ports: StepPorts, { protocol, address }: Claim, ticket: Ticket, user: User | undefined
): Promise<User> {
  const holds = ports.admits(ticket)
  if (holds && user?.name === ticket.user) return user
  const why = holds ? 'a ticket of somebody else' : 'no such ticket'
  await ports.audit('login.refused', ticket.user, address, { protocol, client: 'web', why })
  throw new SallyportError('auth-failed', { detail: `${ticket.user}: ${why}` })
}

async function openSession(
  ports: StepPorts, grant: Grant, claim: Claim, tell: (line: string) => void
): Promise<OpenSession> {
  const id = mintSessionId(ports.clock)
  const session = ports.registry.enter(id, grant, claim, {
    tell,
    ended: ending => closeBook(ports, id, grant, ending)
  })
  try {
    await ports.sessions.open(liveOf(ports, session.id))
    await ports.audit('session.opened', grant.user.name, id, {
      credential: grant.credential.name, target: grant.target.name, grant: grant.rule.name,
      protocol: claim.protocol, address: claim.address, tls: claim.tls,
      ...claim.client === undefined ? {} : { client: claim.client },
      ...grant.request === undefined ? {} : { request: grant.request }
    })
    return session
  } catch (thrown) {
    const error = asSallyportError(thrown, 'store-unavailable')
    session.end({ how: 'cut', reason: error.code, reference: error.reference })
    await session[Symbol.asyncDispose]()
    throw error
  }
}

// The store may be away at the end of a session; the account is the ledger's to remember, the row is caught
// up at the next start (sessions of older boots are closed as interrupted), so a failure here must not mask
// the ending.
async function closeBook(ports: StepPorts, id: string, grant: Grant, ending: Ending): Promise<void> {
  await Promise.allSettled([
    ports.sessions.ended(id, ending),
    ports.audit('session.ended', grant.user.name, id, { ...ending })
  ])
}

async function record(ports: StepPorts, session: OpenSession): Promise<Recording & AsyncDisposable> {
  const { grant } = session
  const live = liveOf(ports, session.id)
  const recording = await ports.createRecording({
    session: session.id, user: grant.user.name, credential: grant.credential.name, target: grant.target.name,
    protocol: grant.target.protocol, address: live.claim.address, startedAt: live.startedAt.toISOString(),
    node: ports.node, ...live.claim.client === undefined ? {} : { client: live.claim.client },
    ...grant.database === undefined ? {} : { database: grant.database }
  })
  const lost = (): void => {
    ports.registry.cut(session.id, asSallyportError(recording.failed.reason, 'recorder-failed'))
  }
  recording.failed.addEventListener('abort', lost, { once: true })
  return Object.assign(recording, {
    [Symbol.asyncDispose]: async (): Promise<void> => {
      const sealed = await recording.seal(session.ending)
      // The recorder said why already; recovery seals what there is of the file at the next start.
      if (!sealed.sealed) return
      await Promise.allSettled([
        ports.sessions.recorded(session.id, sealed),
        ports.audit('recording.sealed', 'system', session.id, { ...sealed })
      ])
    }
  })
}

async function lease(
  ports: StepPorts, session: OpenSession, tell: (line: string) => void
): Promise<SessionLease> {
  const { grant } = session
  const { credential, database, replication, channels } = grant
  const judge = createJudge(ports, session.id, grant)
  const rights = { allowReplication: replication, channels, copyFiles: grant.rule.copyFiles === true, judge }
  const target = await ports.located(grant.target)
  if (credential.jit?.enabled !== true) {
    // Through a tunnel people bring a login of their own: a stored secret is nobody's to see.
    const account = grant.target.protocol === 'tcp'
      ? { username: credential.username ?? '', secret: undefined }
      : await standing(ports, credential)
    const upstreaming = { target, database, ...rights, ...account }
    await ports.sessions.live(session.id, undefined)
    return { upstreaming, [Symbol.asyncDispose]: async () => judge?.close() }
  }
  const account = await ports.issue(liveOf(ports, session.id), tell)
  const withdrawn = (): void => {
    ports.registry.cut(session.id, asSallyportError(account.signal.reason, 'lease-lost'))
  }
  account.signal.addEventListener('abort', withdrawn, { once: true })
  let handed: Pick<Upstreaming, 'secret' | 'handOver'>
  try {
    handed = presented(grant, account)
    await ports.sessions.live(session.id, account)
    if (handed.handOver !== undefined) {
      const { accountName, accountId } = account
      const detail = { account: accountName, target: grant.target.name, session: session.id }
      await ports.audit('secret.handed-over', grant.user.name, accountId, detail)
    }
  } catch (thrown) {
    await account.release('store-unavailable')
    throw asSallyportError(thrown, 'store-unavailable')
  }
  return {
    upstreaming: {
      target, database, username: account.accountName, ...handed, ...rights
    },
    [Symbol.asyncDispose]: async () => {
      judge?.close()
      account.signal.removeEventListener('abort', withdrawn)
      await account.release('session ended')
    }
  }
}

/** To the target, or, where it cannot be, to the person: then only what was made for this session. */
function presented(
  { target, credential }: Grant, { accountName: username, inject: secret }: IssuedAccount
): Pick<Upstreaming, 'secret' | 'handOver'> {
  if (target.protocol !== 'tcp') return { secret }
  const made = credential.jit?.type === 'creation-deletion'
  return { secret: undefined, ...made && { handOver: handOver(target, { username, secret, made }) } }
}

/** J1: JIT disabled, the stored secret is injected and no hook runs. */
async function standing(
  ports: StepPorts, credential: Credential
): Promise<{ username: string, secret: Injectable }> {
  const { username, password, privateKey } = credential
  const opened = privateKey ?? password
  if (username === undefined || opened === undefined) {
    const detail = `credential ${credential.name} has no user name, or neither key nor password`
    throw new SallyportError('not-allowed', { detail })
  }
  const secret = await ports.openSecret(opened)
  return {
    username,
    secret: privateKey === undefined
      ? { kind: 'password', password: secret }
      : { kind: 'private-key', privateKey: secret }
  }
}

function liveOf(ports: StepPorts, id: string): LiveSession {
  const live = ports.registry.get(id)
  if (live === undefined) throw new SallyportError('internal', { detail: `session ${id} is not on the list` })
  return live
}
