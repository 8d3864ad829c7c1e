// What the rules of a grant mean to a session that runs: a front end shows what somebody is about to do and
// hears whether it passes on, is refused, or ends the session. The decision is policy's; here others are
// asked where they have to agree, the verdict is put into words, and the audit hears of it. Without rules
// there is no judge, and a front end has nothing to ask.
import { createHash } from 'node:crypto'
import { SallyportError } from '../errors.ts'
import type { Grant } from '../policy/authorise.ts'
import type { FileDirection, FilePlace, Finding, Rulebook } from '../policy/rules.ts'
import type { ParsedStatement } from '../policy/sql-kinds.ts'
import type { Rule } from '../policy/types.ts'
import type { ApprovalPort } from './approve.ts'
import { Asks } from './asks.ts'

export type { FileDirection }

/** Verdicts of one session that the audit hears of; the recording has all of them. */
const verdictsToldMax = 100
/** Warnings that the person hears of: over SSH each takes some of the client's window. */
const warningsToldMax = 20
/** Of what is asked for so much is shown to approvers. */
const shownMax = 300

/** One message of a PostgreSQL client. */
export interface Statement {
  sql: string
  /** False: this is its beginning only. */
  isWhole: boolean
  /** False: it is cut, or bytes that are no text. */
  readable: boolean
  /** A function that is called by its number: no SQL. */
  isCall: boolean
  /** All that an approval is for, where that is not `sql`: arguments too. */
  body?: Buffer | undefined
}

/** Who waits while others are asked. */
export interface Waiter {
  tell(line: string): void
  /** Aborts when nobody waits any more, with the reason. */
  left: AbortSignal
}

export interface Verdict {
  passes: boolean
  /** Nothing more passes after it. */
  ends: boolean
  /** Why it does not pass; what the person is told. */
  error: SallyportError | undefined
  /** For the recording; undefined where no rule is concerned. */
  note: Record<string, unknown> | undefined
}

/** Each but the last is undefined where no rule is about it. */
export interface Judge {
  statement: ((statement: Statement, waiter: Waiter) => Promise<Verdict>) | undefined
  command: ((command: string, waiter: Waiter, bytes?: Buffer) => Verdict | Promise<Verdict>) | undefined
  /** A line at a terminal, before its end is passed on: it passes, or the session ends. */
  typed: ((line: string, tell: (line: string) => void) => Verdict) | undefined
  file: ((
    direction: FileDirection, path: string, tell: (line: string) => void, place?: FilePlace
  ) => Verdict) | undefined
  /** The session is over: nobody is asked any more. */
  close(): void
}

export interface JudgePorts {
  /** Policy's; throws `invalid` for rules that cannot be read. */
  rulebookOf(rules: readonly Rule[]): Rulebook
  /** Undefined: it cannot be read. */
  parseSql(sql: string, wantsText: boolean): Promise<readonly ParsedStatement[] | undefined>
  /** One line without passwords, as an approver may see it. */
  shown(text: string): string
  keyOf(grant: string, rule: number, session: string, what: string): string
  approvals: ApprovalPort
  audit(kind: string, actor: string, subject: string, detail: Record<string, unknown>): Promise<void>
}

/** What others are asked about. `exact`: what they agree to; undefined where it is not known to its end. */
interface Asked {
  text: string
  exact: string | Buffer | undefined
}

const passing: Verdict = { passes: true, ends: false, error: undefined, note: undefined }

/** Undefined where the grant has no rules. */
export function createJudge(ports: JudgePorts, session: string, grant: Grant): Judge | undefined {
  const { rules = [] } = grant.rule
  if (rules.length === 0) return undefined
  const book = ports.rulebookOf(rules)
  const bench = new Bench(ports, session, grant)
  const { sql, command, file } = book
  return {
    statement: sql && (async (statement, waiter) => {
      const parsed = statement.isCall
        ? [{ text: statement.sql, kinds: ['function-call', 'unparsed'] as const }]
        : statement.readable ? await ports.parseSql(statement.sql, sql.wantsText) : undefined
      const raw = statement.isWhole ? statement.sql : undefined
      const { sql: text, body, isWhole } = statement
      const asked = { text, exact: isWhole ? body ?? text : undefined }
      return bench.conclude('sql', sql.judge(parsed, raw), asked, waiter)
    }),
    command: command && ((text, waiter, bytes = Buffer.from(text)) =>
      bench.conclude('command', command(text), { text, exact: bytes }, waiter)),
    typed: command && ((line, tell) => bench.typed(command(line), tell)),
    file: file && ((direction, path, tell, place) => bench.now('file', file(direction, path, place), tell)),
    close: () => bench.asks.close()
  }
}

class Bench {
  readonly #ports: JudgePorts
  readonly #session: string
  readonly #grant: Grant
  readonly asks: Asks
  #told = 0
  #warned = 0

  constructor(ports: JudgePorts, session: string, grant: Grant) {
    this.#ports = ports
    this.#session = session
    this.#grant = grant
    this.asks = new Asks(ports.approvals)
  }

  /** A promise only where others are asked. */
  conclude(on: Rule['on'], finding: Finding, what: Asked, waiter: Waiter): Verdict | Promise<Verdict> {
    if (finding.then !== 'approve') return this.now(on, finding, waiter.tell)
    return this.#ask(on, finding, what, waiter)
  }

  /** What has to be said at once. */
  now(on: Rule['on'], finding: Finding, tell: (line: string) => void): Verdict {
    switch (finding.then) {
      case 'allow': return passing
      case 'warn': {
        const note = this.#note('warned', on, finding)
        const words = `${on}${wordsOf(finding)} is on record [rule-warned]`
        if (this.#warned++ < warningsToldMax) tell(`a rule of this access is watching: ${words}`)
        return { ...passing, note }
      }
      case 'end': return this.#no('ended', on, finding, new SallyportError('rule-ended', saidOf(finding)))
      default: return this.#no('refused', on, finding, new SallyportError('rule-refused', saidOf(finding)))
    }
  }

  /** Of what is typed at a terminal nothing can be refused but all that follows. */
  typed(finding: Finding, tell: (line: string) => void): Verdict {
    const isStrict = finding.then === 'refuse' || finding.then === 'approve'
    return this.now('command', isStrict ? { ...finding, then: 'end' } : finding, tell)
  }

  async #ask(on: Rule['on'], finding: Finding, what: Asked, waiter: Waiter): Promise<Verdict> {
    const { tell, left } = waiter
    const { user, credential, rule: { name } } = this.#grant
    const { keyOf, shown } = this.#ports
    const { rule = 0, source } = finding
    const approval = source?.approval
    const { text, exact } = what
    // Nobody can agree to what is not known to its end.
    if (approval === undefined || exact === undefined) {
      return this.now(on, { ...finding, then: 'refuse' }, tell)
    }
    const digest = createHash('sha256').update(exact).digest('hex')
    let outcome: string
    try {
      const { request, state } = await this.asks.decided({
        user: user.name, credential: credential.name, grant: keyOf(name, rule, this.#session, digest),
        reason: shown(text).slice(0, shownMax), validForSeconds: approval.validForSeconds,
        origin: `session ${this.#session}`
      }, approval, waiter)
      if (state === 'approved') {
        tell(`request ${request} is approved`)
        return { ...passing, note: this.#note('approved', on, finding, { request }) }
      }
      outcome = `request ${request} is ${state === 'pending' ? 'not approved yet' : state}`
    } catch (thrown) {
      outcome = left.aborted ? 'nobody waited for the approval' : 'nobody could be asked'
      const detail = thrown instanceof Error ? thrown.message : String(thrown)
      const error = new SallyportError('rule-refused', { said: outcome, detail, cause: thrown })
      return this.#no('refused', on, finding, error)
    }
    return this.#no('refused', on, finding, new SallyportError('rule-refused', { said: outcome }))
  }

  #no(then: 'refused' | 'ended', on: Rule['on'], finding: Finding, error: SallyportError): Verdict {
    const { code, reference } = error
    const note = this.#note(then, on, finding, { code, reference })
    return { passes: false, ends: then === 'ended', error, note }
  }

  /** Told to the audit, unless it has heard enough of this session. */
  #note(
    then: string, on: Rule['on'], { rule, kinds }: Finding, more: Record<string, unknown> = {}
  ): Record<string, unknown> {
    const facts = {
      verdict: then, on, rule: rule ?? 'none', ...kinds.length > 0 && { kinds: kinds.join(' ') }, ...more
    }
    const { user, rule: { name: grant } } = this.#grant
    if (this.#told++ < verdictsToldMax) {
      const { verdict: _, ...detail } = facts
      void this.#ports.audit(`rule.${then}`, user.name, this.#session, { grant, ...detail })
        .catch(() => undefined)
    }
    return { type: 'verdict', ...facts }
  }
}

function wordsOf({ kinds }: Finding): string {
  return kinds.length === 0 ? '' : ` (${kinds.join(', ')})`
}

function saidOf({ kinds, rule }: Finding): { said?: string, detail: string } {
  const detail = rule === undefined ? 'no rule lets pass what cannot be read' : `rule ${rule}`
  return { ...kinds.length > 0 && { said: kinds.join(', ') }, detail }
}
