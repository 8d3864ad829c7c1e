// May this user open this credential now? A pure decision over what admins declared: data in, decision out.
// Permission is a value: only `authorise` makes a Grant, and refusal is its absence (it throws `not-allowed`
// or `login-unclear`). Where others have to agree and have not, it says what they would have to agree to.
// What the client hears is the same for "no such credential" and "not yours".
import { SallyportError } from '../errors.ts'
import { approvalFor } from './approvals.ts'
import type { Approval, ApprovalNeeded } from './approvals.ts'
import { readLoginName } from './login-name.ts'
import type { LoginName } from './login-name.ts'
import { defaultChannels } from './types.ts'
import type { ChannelKind, Credential, Declared, GrantRule, Target, User } from './types.ts'
import { lookAt } from './windows.ts'

const made = Symbol('made by authorise')

/**
 * The right to open one session: who, which credential, on what, for how long. Only `authorise` makes one.
 */
export interface Grant {
  readonly [made]: true
  readonly user: User
  readonly credential: Credential
  readonly target: Target
  readonly rule: GrantRule
  readonly database: string | undefined
  readonly replication: boolean
  readonly channels: readonly ChannelKind[]
  /** Seconds; the smaller of the rule's and the credential's, and not beyond what it was approved for. */
  readonly maxSessionSeconds: number
  /** Id of the request that others approved, where they had to. */
  readonly request?: string | undefined
}

/** Only what has no `approval` to wait for is a Grant. */
export type Decision = Grant | ApprovalNeeded

export interface Wish {
  login: string
  database?: string | undefined
  replication: boolean
  protocol: string
}

// A session without any other limit ends after a day: an open-ended one is an account that nobody looks at.
export const defaultMaxSessionSeconds = 86_400

/**
 * Decides; `approvals` are those of the user that count now. Throws SallyportError `login-unclear` (no or
 * several credentials match), `not-allowed`, `outside-window`, `replication-refused`; the detail is for the
 * operator.
 */
export function authorise(
  declared: Declared, user: User, wish: Wish, now: Date, approvals: readonly Approval[] = []
): Decision {
  const login = readLoginName(wish.login, wish.database)
  if (login === undefined) throw new SallyportError('login-unclear', { detail: 'no grammar matches' })
  if (user.disabled) throw new SallyportError('not-allowed', { detail: 'the user is disabled' })
  const choices = choicesOf(declared, user, login, wish.protocol, now)
  const allowed = choices.filter(choice => choice.refusal === undefined)
  const [choice, ...others] = allowed
  if (choice === undefined) {
    const why = choices.map(each => `${each.credential.name}: ${each.refusal}`).join('; ')
    const [only, ...more] = choices
    if (only?.opensAt !== undefined && more.length === 0) {
      const said = `it opens ${printInstant(only.opensAt)}`
      throw new SallyportError('outside-window', { detail: why, said })
    }
    throw new SallyportError(login.credential === undefined ? 'login-unclear' : 'not-allowed', {
      detail: why === '' ? 'no credential matches' : why
    })
  }
  if (others.length > 0) {
    const names = allowed.map(each => `${each.credential.name}@${each.target.name}`).join(', ')
    throw new SallyportError('login-unclear', { detail: `several credentials match: ${names}` })
  }
  return grantOf(user, choice, login, wish, now, approvals)
}

/**
 * A credential that a login name may mean, and why it may not be opened; for `explain` and the decision
 * alike.
 */
export interface Choice {
  credential: Credential
  target: Target
  rule: GrantRule | undefined
  /** The grants that count now; each is a permission of its own. */
  rules: readonly GrantRule[]
  refusal: string | undefined
  /** Where it is refused only until then: the next of its windows. */
  opensAt: Date | undefined
}

/** What a user who names nothing may open now, in the order of its names. */
export function choicesFor(
  declared: Declared, userName: string, protocol: string, now: Date
): readonly Choice[] {
  const user = declared.users.get(userName)
  if (user === undefined || user.disabled) return []
  return choicesOf(declared, user, { user: user.name, grammar: 'bare' }, protocol, now)
    .filter(({ refusal }) => refusal === undefined)
    .sort((one, other) => one.credential.name < other.credential.name ? -1 : 1)
}

/** Every credential that the login name can mean for this user, with the reason where it is refused. */
export function choicesOf(
  declared: Declared, user: User, login: LoginName, protocol: string, now: Date
): readonly Choice[] {
  const choices: Choice[] = []
  for (const credential of declared.credentials.values()) {
    const target = declared.targets.get(credential.target)
    if (target === undefined || !means(login, credential)) continue
    const covering = declared.grants.filter(each =>
      each.users.includes(user.name) && each.credentials.includes(credential.name))
    const rules = covering.filter(each => timeRefusal(each, now) === undefined)
    const rule = rules[0] ?? covering[0]
    // A bare login offers what the user is allowed; it does not list what others have.
    if (rule === undefined && login.credential === undefined) continue
    const refusal = !carries(protocol, target)
      ? `it is for ${target.protocol}, not ${protocol}`
      : rule === undefined ? 'no grant covers it' : timeRefusal(rule, now)
    const opensAt = carries(protocol, target) && rules.length === 0 ? nextOpening(covering, now) : undefined
    choices.push({ credential, target, rule, rules, refusal, opensAt })
  }
  // `user+name` where the name is a credential's own name beats an account name that happens to be equal.
  const exact = choices.filter(choice => choice.credential.name === login.credential)
  return exact.length > 0 ? exact : choices
}

/** Over SSH people reach TCP targets as well (`ssh -L`). */
function carries(protocol: string, target: Target): boolean {
  return target.protocol === protocol || (protocol === 'ssh' && target.protocol === 'tcp')
}

function means(login: LoginName, credential: Credential): boolean {
  if (login.credential === undefined) return true
  if (login.target !== undefined && credential.target !== login.target) return false
  if (credential.name === login.credential || credential.username === login.credential) return true
  return login.target === undefined && credential.target === login.credential
}

function timeRefusal({ notBefore, notAfter, windows }: GrantRule, now: Date): string | undefined {
  const at = now.getTime()
  if (notBefore !== undefined && at < Date.parse(notBefore)) return `the grant begins ${notBefore}`
  if (notAfter !== undefined && at >= Date.parse(notAfter)) return `the grant ended ${notAfter}`
  const look = windows === undefined ? undefined : lookAt(windows, now)
  if (look?.isOpen !== false) return undefined
  return `the grant opens ${look.opensAt === undefined ? 'never' : printInstant(look.opensAt)}`
}

/** When the first of these grants opens that is closed for the hour only. */
function nextOpening(rules: readonly GrantRule[], now: Date): Date | undefined {
  return rules
    .filter(rule => timeRefusal({ ...rule, windows: undefined }, now) === undefined)
    .flatMap(({ windows }) => windows === undefined ? [] : [lookAt(windows, now).opensAt])
    .filter(opensAt => opensAt !== undefined)
    .sort((one, other) => one.getTime() - other.getTime())[0]
}

function printInstant(at: Date): string {
  return at.toISOString().replace(/:00\.000Z$/, 'Z')
}

// What one grant refuses another one may allow; when all refuse, the first one's reason counts. One that asks
// nobody goes before one that was approved, and that before one that has to be.
function grantOf(
  user: User, choice: Choice, login: LoginName, wish: Wish, now: Date, approvals: readonly Approval[]
): Decision {
  const { credential, target, rules } = choice
  const database = databaseOf(login, wish, target)
  const fitting = rules.filter(each => ruleRefusal(each, wish, database) === undefined)
  const [first] = fitting
  if (first === undefined) {
    const [refusing] = rules
    throw (refusing && ruleRefusal(refusing, wish, database)) ?? new SallyportError('not-allowed')
  }
  const approved = (each: GrantRule): Approval | undefined =>
    approvalFor(approvals, { user: user.name, grant: each.name, credential: credential.name }, now)
  const rule = fitting.find(each => each.approval === undefined)
    ?? fitting.find(each => approved(each) !== undefined)
  if (rule === undefined) return { user, credential, target, rule: first, approval: first.approval! }
  const approval = rule.approval === undefined ? undefined : approved(rule)
  return {
    [made]: true, user, credential, target, rule, database, replication: wish.replication,
    channels: rule.channels ?? defaultChannels,
    maxSessionSeconds: longestSeconds(rule, credential, approval, now), request: approval?.request
  }
}

// A session does not outlive what opened it: the grant, its window, the approval.
function longestSeconds(
  { notAfter, windows, maxSessionSeconds }: GrantRule, { jit }: Credential, approval: Approval | undefined,
  now: Date
): number {
  const ends = [
    notAfter === undefined ? undefined : new Date(notAfter),
    windows === undefined ? undefined : lookAt(windows, now).closesAt,
    approval?.validUntil
  ]
  const limits = [
    maxSessionSeconds, jit?.enabled === true ? jit.maxSessionSeconds : undefined,
    ...ends.map(end => end && Math.ceil((end.getTime() - now.getTime()) / 1000))
  ].filter(limit => limit !== undefined)
  return Math.min(...limits, limits.length === 0 ? defaultMaxSessionSeconds : Infinity)
}

/**
 * Whether a session that was opened with this grant could still be opened: its user, a grant that covers it,
 * and an approval where that asks for one.
 */
export function isStillGranted(
  declared: Declared, grant: Grant, now: Date, approvals: readonly Approval[] = []
): boolean {
  const { user, credential, database, replication } = grant
  const known = declared.users.get(user.name)
  if (known === undefined || known.disabled || !declared.credentials.has(credential.name)) return false
  return declared.grants.some(rule =>
    rule.users.includes(user.name) && rule.credentials.includes(credential.name) &&
    timeRefusal(rule, now) === undefined && ruleRefusal(rule, { replication }, database) === undefined &&
    (rule.approval === undefined || approvalFor(
      approvals, { user: user.name, grant: rule.name, credential: credential.name }, now) !== undefined))
}

function ruleRefusal(
  { name, replication, databases }: GrantRule, wish: Pick<Wish, 'replication'>, database: string | undefined
): SallyportError | undefined {
  if (wish.replication && !replication) return new SallyportError('replication-refused')
  if (database === undefined || databases === undefined || databases.includes(database)) return undefined
  return new SallyportError('not-allowed', { detail: `database ${database} is not in grant ${name}` })
}

// libpq sends the user name as the database when none was named; that is never what a person with a login of
// our grammar means, so the target's own database is opened then.
function databaseOf(login: LoginName, wish: Wish, target: Target): string | undefined {
  if (wish.protocol !== 'postgres') return undefined
  if (login.database !== undefined && login.database !== '') return login.database
  const named = wish.database ?? ''
  // A bare login's grammar stood in `dbname`; behind any other login such a name is a database's own.
  const isGrammar = login.grammar !== 'bare' && readLoginName(wish.login)?.grammar === 'bare'
  return named === '' || named === wish.login || isGrammar ? target.database : named
}
