// `explain`: how a login name is read, which credentials it can mean, and for each why it would be refused
// or what would be opened. Asks the same functions that decide at a session's start, so that it cannot say
// something else.
import { SallyportError } from '../errors.ts'
import type { ApiPorts } from './ports.ts'
import type { Caller } from './route.ts'

export interface Explained {
  login: string
  /** False when no grammar matches: then there is nothing else. */
  readable: boolean
  canonical: string | null
  grammar: string | null
  user: string | null
  credential: string | null
  target: string | null
  database: string | null
  userKnown: boolean | null
  /** What it would open, and how the answer came about. */
  outcome: 'allowed' | 'refused' | 'unclear'
  reason: string
  choices: {
    credential: string
    target: string
    protocol: string
    grant: string | null
    refusal: string | null
  }[]
}

/** Whoever is neither admin nor auditor may only ask about their own name; throws `not-allowed`. */
export async function explain(
  ports: Pick<ApiPorts, 'policy' | 'clock'>, login: string, database: string | undefined, caller: Caller
): Promise<Explained> {
  const { policy } = ports
  const read = policy.readLoginName(login, database)
  if (read === undefined) {
    return {
      login, readable: false, canonical: null, grammar: null, user: null, credential: null, target: null,
      database: null, userKnown: null, outcome: 'refused', reason: 'no grammar matches', choices: []
    }
  }
  if (read.user !== caller.name && !caller.roles.some(role => role !== 'user')) {
    throw new SallyportError('not-allowed', { detail: 'only admins and auditors ask about others' })
  }
  const declared = await policy.declared()
  const user = declared.users.get(read.user)
  const now = ports.clock.now()
  const protocols = new Set([...declared.targets.values()].map(target => target.protocol))
  const choices = user === undefined ? [] : [...protocols].flatMap(protocol =>
    policy.choicesOf(declared, user, read, protocol, now)
      .filter(choice => choice.target.protocol === protocol))
  const allowed = choices.filter(choice => choice.refusal === undefined)
  const asks = allowed[0]?.rules.every(({ approval }) => approval !== undefined) === true
  const { outcome, reason } = verdict(user, allowed.length, choices.length, asks)
  return {
    login, readable: true, canonical: policy.printLoginName(read), grammar: read.grammar, user: read.user,
    credential: read.credential ?? null, target: read.target ?? null, database: read.database ?? null,
    userKnown: user !== undefined, outcome, reason,
    choices: choices.map(({ credential, target, rule, refusal }) => ({
      credential: credential.name, target: target.name, protocol: target.protocol, grant: rule?.name ?? null,
      refusal: refusal ?? null
    }))
  }
}

function verdict(
  user: { disabled: boolean } | undefined, allowed: number, all: number, asks: boolean
): Pick<Explained, 'outcome' | 'reason'> {
  if (user === undefined) return { outcome: 'refused', reason: 'there is no such user' }
  if (user.disabled) return { outcome: 'refused', reason: 'the user is disabled' }
  if (allowed === 1 && asks) {
    return { outcome: 'allowed', reason: 'one credential matches; a session waits until others approve it' }
  }
  if (allowed === 1) return { outcome: 'allowed', reason: 'one credential matches and is granted' }
  if (allowed > 1) return { outcome: 'unclear', reason: 'several credentials match: name one' }
  if (all === 0) return { outcome: 'refused', reason: 'no credential matches' }
  return { outcome: 'refused', reason: 'every credential that matches is refused' }
}
