// May this user open this credential now? A pure decision over what admins declared: data in, decision out.
// Permission is a value: only `authorise` makes a Grant, and refusal is its absence (it throws `not-allowed`
// or `login-unclear`). What the client hears is the same for "no such credential" and "not yours".
import { SallyportError } from '../errors.ts'
import { readLoginName } from './login-name.ts'
import type { LoginName } from './login-name.ts'
import { defaultChannels } from './types.ts'
import type { ChannelKind, Credential, Declared, GrantRule, Target, User } from './types.ts'

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
  /** Seconds; the smaller of the rule's and the credential's. */
  readonly maxSessionSeconds: number
}

export interface Wish {
  login: string
  database?: string | undefined
  replication: boolean
  protocol: string
}

// A session without any other limit ends after a day: an open-ended one is an account that nobody looks at.
export const defaultMaxSessionSeconds = 86_400

/**
 * Decides. Throws SallyportError `login-unclear` (no or several credentials match), `not-allowed`,
 * `replication-refused`; the detail is for the operator.
 */
export function authorise(declared: Declared, user: User, wish: Wish, now: Date): Grant {
  const login = readLoginName(wish.login, wish.database)
  if (login === undefined) throw new SallyportError('login-unclear', { detail: 'no grammar matches' })
  if (user.disabled) throw new SallyportError('not-allowed', { detail: 'the user is disabled' })
  const choices = choicesOf(declared, user, login, wish.protocol, now)
  const allowed = choices.filter(choice => choice.refusal === undefined)
  const [choice, ...others] = allowed
  if (choice === undefined) {
    const why = choices.map(each => `${each.credential.name}: ${each.refusal}`).join('; ')
    throw new SallyportError(login.credential === undefined ? 'login-unclear' : 'not-allowed', {
      detail: why === '' ? 'no credential matches' : why
    })
  }
  if (others.length > 0) {
    const names = allowed.map(each => `${each.credential.name}@${each.target.name}`).join(', ')
    throw new SallyportError('login-unclear', { detail: `several credentials match: ${names}` })
  }
  return grantOf(user, choice, login, wish, now)
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
    const rules = covering.filter(each => windowRefusal(each, now) === undefined)
    const rule = rules[0] ?? covering[0]
    // A bare login offers what the user is allowed; it does not list what others have.
    if (rule === undefined && login.credential === undefined) continue
    const refusal = !carries(protocol, target)
      ? `it is for ${target.protocol}, not ${protocol}`
      : rule === undefined ? 'no grant covers it' : windowRefusal(rule, now)
    choices.push({ credential, target, rule, rules, refusal })
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

function windowRefusal({ notBefore, notAfter }: GrantRule, now: Date): string | undefined {
  const at = now.getTime()
  if (notBefore !== undefined && at < Date.parse(notBefore)) return `the grant begins ${notBefore}`
  if (notAfter !== undefined && at >= Date.parse(notAfter)) return `the grant ended ${notAfter}`
  return undefined
}

// What one grant refuses another one may allow; when all refuse, the first one's reason counts.
function grantOf(
  user: User, { credential, target, rules }: Choice, login: LoginName, wish: Wish, now: Date
): Grant {
  const database = databaseOf(login, wish, target)
  const rule = rules.find(each => ruleRefusal(each, wish, database) === undefined)
  if (rule === undefined) {
    const [first] = rules
    throw (first && ruleRefusal(first, wish, database)) ?? new SallyportError('not-allowed')
  }
  const ofCredential = credential.jit?.enabled === true ? credential.jit.maxSessionSeconds : undefined
  // A session does not outlive the grant that opened it.
  const ofWindow = rule.notAfter === undefined
    ? undefined
    : Math.ceil((Date.parse(rule.notAfter) - now.getTime()) / 1000)
  const limits = [rule.maxSessionSeconds, ofCredential, ofWindow].filter(limit => limit !== undefined)
  return {
    [made]: true, user, credential, target, rule, database, replication: wish.replication,
    channels: rule.channels ?? defaultChannels,
    maxSessionSeconds: Math.min(...limits, limits.length === 0 ? defaultMaxSessionSeconds : Infinity)
  }
}

/**
 * Whether a session that was opened with this grant could still be opened: its user, a grant that covers it.
 */
export function isStillGranted(declared: Declared, grant: Grant, now: Date): boolean {
  const { user, credential, database, replication } = grant
  const known = declared.users.get(user.name)
  if (known === undefined || known.disabled || !declared.credentials.has(credential.name)) return false
  return declared.grants.some(rule =>
    rule.users.includes(user.name) && rule.credentials.includes(credential.name) &&
    windowRefusal(rule, now) === undefined && ruleRefusal(rule, { replication }, database) === undefined)
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
