// Whether others have agreed, and who may: pure decisions over grants that ask for approval and over what was
// decided. Nobody ever decides on a request of their own, even where a grant lists them; whoever decides is a
// declared user that the grant names now, not the one that it named when somebody asked.
import { SallyportError } from '../errors.ts'
import type { ApprovalRule, Credential, Declared, GrantRule, Target, User } from './types.ts'

/** What a request is for. */
export interface Asked {
  user: string
  grant: string
  credential: string
}

/** A request that was approved. */
export interface Approval extends Asked {
  /** Id of the request. */
  request: string
  validUntil: Date
}

/** Not a Grant, and what would make it one: others agree to this. */
export interface ApprovalNeeded {
  readonly user: User
  readonly credential: Credential
  readonly target: Target
  readonly rule: GrantRule
  readonly approval: ApprovalRule
}

/** The approval that lasts longest. */
export function approvalFor(
  approvals: readonly Approval[], { user, grant, credential }: Asked, now: Date
): Approval | undefined {
  return approvals
    .filter(each => each.user === user && each.grant === grant && each.credential === credential)
    .filter(({ validUntil }) => validUntil > now)
    .sort((one, other) => other.validUntil.getTime() - one.validUntil.getTime())[0]
}

/** Who may decide on it now; nobody where the grant is gone or asks for nothing any more. */
export function approversOf(declared: Declared, { user, grant }: Asked): readonly string[] {
  const { users } = declared
  return (termsOf(declared, grant)?.by ?? [])
    .filter(name => name !== user && users.get(name)?.disabled === false)
}

/**
 * What a request for one thing within a session has in the place of its grant: no name of a grant has a `#`,
 * so that it never opens a session. `what` tells apart what is asked for.
 */
export function ruleKey(grant: string, rule: number, session: string, what: string): string {
  return `${rulePrefix(grant, rule)}${session}/${what}`
}

function rulePrefix(grant: string, rule: number): string {
  return `${grant}#${rule}/`
}

/** What has to be agreed on, as it is declared now; by the name of a grant or the key of a rule. */
export function termsOf({ grants }: Declared, key: string): ApprovalRule | undefined {
  const [, name = key, number] = /^([^#]+)#(\d+)\//.exec(key) ?? []
  const grant = grants.find(each => each.name === name)
  return number === undefined ? grant?.approval : grant?.rules?.[Number(number) - 1]?.approval
}

/** What somebody decides on: names of grants, and beginnings of the keys of rules. */
export function decidedBy({ grants }: Declared, user: string): { grants: string[], rules: string[] } {
  const isBy = (terms: ApprovalRule | undefined): boolean => terms?.by.includes(user) === true
  return {
    grants: grants.filter(({ approval }) => isBy(approval)).map(({ name }) => name),
    rules: grants.flatMap(({ name, rules = [] }) =>
      rules.flatMap(({ approval }, index) => isBy(approval) ? [rulePrefix(name, index + 1)] : []))
  }
}

export interface Request {
  rule: GrantRule
  approval: ApprovalRule
}

/**
 * The grant that a request of this user for this credential is about. Throws `not-found` alike for a
 * credential that does not exist and for one that no grant gives, `invalid` where nothing has to be asked.
 */
export function requestable(
  { grants, credentials }: Declared, user: string, credential: string, isEmergency: boolean, now: Date
): Request {
  const covering = grants.filter(rule => rule.users.includes(user) && rule.credentials.includes(credential)
    && (rule.notAfter === undefined || Date.parse(rule.notAfter) > now.getTime()))
  if (!credentials.has(credential) || covering.length === 0) {
    throw new SallyportError('not-found', { detail: `no credential ${credential} for ${user}` })
  }
  const asking = covering.flatMap(rule =>
    rule.approval === undefined ? [] : [{ rule, approval: rule.approval }])
  const found = asking.find(({ rule }) => !isEmergency || rule.emergency === true)
  if (found !== undefined) return found
  const problem = asking.length === 0
    ? `credential: ${credential} needs no approval`
    : `emergency: no grant on ${credential} has emergency access`
  throw new SallyportError('invalid', { problems: [problem] })
}
