// One action on one account: the template's steps in order, neighbouring statements as one transaction, every
// transaction fenced and the account marked as ours within it. Creation is one transaction, so a refusal
// leaves nothing. A removal that is held up by the account itself (a lock, a prepared transaction) ends what
// holds it up and tries again; whatever a removal meets, it leaves the role without login and password.
import type {
  Access, AccountRef, HookContext, Outcome, Residue, Variables
} from '../../src/jit/plugin.ts'
import { quoteIdentifier, quoteLiteral } from '../../src/jit/sql-text.ts'
import { renderStep } from '../../src/jit/template.ts'
import type { Step, Template } from '../../src/jit/template.ts'
import { SallyportError } from '../../src/errors.ts'
import { Secret } from '../../src/secret.ts'
import {
  Fenced, assertRoleName, ensureRole, graveyardRole, isRace, isServerError, mark, markerRole, openLink,
  readLook, sqlstate
} from './link.ts'
import type { Link, Look } from './link.ts'
import { seenNow } from './look.ts'
import { RungFailed, endSessions, rollBackPrepared, verbs } from './verbs.ts'

export interface Planned {
  step: Step
  sql: string
  do: string | undefined
  with: Readonly<Record<string, string>>
}

export interface Group {
  kind: 'transaction' | 'each-database' | 'verb'
  steps: Planned[]
}

// A lost race is over in milliseconds.
const racesMax = 5
// Ending what blocks us takes a moment each time; the ledger asks again later.
const blockedMax = 3

/** Values that this plugin adds to every template. */
export const ownVariables = { marker_role: markerRole, graveyard_role: graveyardRole }

export async function run(
  access: Access, template: Template, account: AccountRef, variables: Variables, context: HookContext
): Promise<Outcome> {
  assertRoleName(account.name)
  const all = { ...variables, ...ownVariables, username: account.name }
  const groups = grouped(template, template.steps, all)
  const undo = grouped(template, template.undo, all)
  const removal = template.action === 'delete' || template.action === 'disable'
  const link = await openLink(access, context, { impatient: removal, kept: true })
  const action = new HookAction(link, access, template, account, all, context)
  let isClean = false
  try {
    const outcome = removal ? await action.remove(groups) : await action.open(groups, undo)
    isClean = outcome.state === 'done'
    return outcome
  } finally {
    await (isClean ? link.leave() : link.close())
  }
}

/** Steps in their groups, rendered before anything is sent. @throws SallyportError('invalid') */
export function grouped(template: Template, steps: readonly Step[], variables: Variables): Group[] {
  const groups: Group[] = []
  for (const step of steps) {
    const rendered = renderStep(template, step, variables)
    const planned = { step, sql: rendered.sql ?? '', do: rendered.do, with: rendered.with }
    const kind = rendered.do !== undefined ? 'verb' : step.eachDatabase ? 'each-database' : 'transaction'
    const last = groups.at(-1)
    if (kind === 'transaction' && last?.kind === 'transaction') last.steps.push(planned)
    else groups.push({ kind, steps: [planned] })
  }
  return groups
}

class HookAction {
  readonly #link: Link
  readonly #access: Access
  readonly #template: Template
  readonly #account: AccountRef
  readonly #variables: Variables
  readonly #context: HookContext
  readonly #residue: Residue[] = []
  #step = 'connect'
  /** Some transaction of this action was committed. */
  #committed = false

  constructor(
    link: Link, access: Access, template: Template, account: AccountRef, variables: Variables,
    context: HookContext
  ) {
    this.#link = link
    this.#access = access
    this.#template = template
    this.#account = account
    this.#variables = variables
    this.#context = context
  }

  /** Create and enable. */
  async open(groups: readonly Group[], undo: readonly Group[]): Promise<Outcome> {
    try {
      for (const group of groups) await this.#openGroup(group)
      this.#step = 'look'
      const pinned = { template: this.#template, variables: this.#variables }
      const seen = await seenNow(this.#link, this.#account, pinned)
      return { state: 'done', changed: true, residue: this.#left(), seen }
    } catch (error) {
      const outcome = this.#outcome(error)
      if (outcome.state === 'refused' && this.#committed) await this.#undo(undo)
      return outcome
    }
  }

  /** Delete and disable. */
  async remove(groups: readonly Group[]): Promise<Outcome> {
    try {
      this.#step = 'begin'
      const first = groups[0]?.kind === 'transaction' ? groups[0] : undefined
      const there = await this.#patiently(() => this.#beginRemoval(first))
      if (!there) return { state: 'done', changed: false, residue: [] }
      this.#committed = true
      for (const group of groups) if (group !== first) await this.#removeGroup(group)
      return { state: 'done', changed: true, residue: this.#left() }
    } catch (error) {
      const outcome = this.#outcome(error)
      if (outcome.state === 'refused') await this.#quarantine()
      return outcome
    }
  }

  async #openGroup(group: Group): Promise<void> {
    const [first] = group.steps
    this.#step = first?.step.name ?? ''
    if (group.kind === 'verb') return await this.#verb(first)
    if (group.kind === 'each-database') return await this.#eachDatabase(first)
    const done = await this.#openOnce(group)
    if (!done) {
      await this.#ensureOwnRoles()
      await this.#openOnce(group)
    }
    this.#committed = true
  }

  /** False when roles of our own are missing: they are made at first use, outside of this transaction. */
  async #openOnce(group: Group): Promise<boolean> {
    const creating = this.#template.action === 'create' && !this.#committed
    return await this.#racing(() => this.#link.fenced(this.#account, async look => {
      if (creating && this.#missing(look).length > 0) return false
      const renewal = creating && look.oid !== undefined
      if (this.#template.action === 'enable' && look.oid === undefined) {
        throw new RungFailed('there is no such role')
      }
      if (renewal) this.#renew()
      else await this.#statements(group.steps)
      mark(this.#link, this.#account, look.comment)
      return true
    }))
  }

  async #removeGroup(group: Group): Promise<void> {
    const [first] = group.steps
    this.#step = first?.step.name ?? ''
    if (group.kind === 'verb') return await this.#patiently(() => this.#verb(first))
    if (group.kind === 'each-database') return await this.#eachDatabase(first)
    await this.#patiently(() => this.#racing(() => this.#link.fenced(this.#account, async ({ oid }) => {
      if (oid !== undefined) await this.#statements(group.steps)
    })))
    this.#committed = true
  }

  /**
   * The first transaction: raises the epoch in the marker, so that an older action that is still under way is
   * refused, and runs the first rung when that is a statement. False when there is no such role.
   */
  async #beginRemoval(first: Group | undefined): Promise<boolean> {
    return await this.#racing(() => this.#link.fenced(this.#account, async look => {
      if (look.oid === undefined) return false
      mark(this.#link, this.#account, look.comment)
      if (first !== undefined) await this.#statements(first.steps)
      return true
    }))
  }

  /** A rung that was repeated lists things twice. */
  #left(): Residue[] {
    const known = new Map(this.#residue.map(one => [`${one.kind} ${one.name} ${one.fate}`, one]))
    return [...known.values()]
  }

  async #statements(steps: readonly Planned[]): Promise<void> {
    for (const { step, sql } of steps) {
      const named = (): void => { this.#step = step.name }
      named()
      if (step.ignore.length > 0) await this.#statement(this.#link, step, sql, true)
      else this.#link.send(sql, named)
    }
  }

  async #statement(link: Link, step: Step, sql: string, guarded: boolean): Promise<void> {
    if (!guarded) {
      await link.query(sql)
      return
    }
    // An error ends a transaction, even one that is ignored: hence the savepoint.
    await link.query('SAVEPOINT step')
    try {
      await link.query(sql)
      await link.query('RELEASE SAVEPOINT step')
    } catch (error) {
      if (!isServerError(error, ...step.ignore)) throw error
      await link.query('ROLLBACK TO SAVEPOINT step')
    }
  }

  /** The role is there and ours: somebody may have its secret, so it gets the new one. */
  #renew(): void {
    const { verifier, expires_at: expiresAt } = this.#variables
    if (!(verifier instanceof Secret)) {
      throw new RungFailed('the role exists, and there is no verifier to renew it with')
    }
    const until = typeof expiresAt === 'string' ? ` VALID UNTIL ${quoteLiteral(expiresAt)}` : ''
    const name = quoteIdentifier(this.#account.name)
    this.#link.send(
      `ALTER ROLE ${name} LOGIN PASSWORD ${quoteLiteral(String(verifier.expose()))}${until}`
    )
  }

  async #verb(planned: Planned | undefined): Promise<void> {
    const verb = verbs[planned?.do ?? '']
    if (verb === undefined) throw new RungFailed(`there is no verb ${planned?.do ?? ''}`)
    await this.#racing(() => verb.act(this.#rung(planned?.with)))
    this.#committed = true
  }

  #rung(options: Readonly<Record<string, string>> = {}): Parameters<typeof endSessions>[0] {
    return {
      link: this.#link, access: this.#access, account: this.#account, context: this.#context, options,
      residue: this.#residue
    }
  }

  async #eachDatabase(planned: Planned | undefined): Promise<void> {
    if (planned === undefined) return
    const rows = await this.#link.query('SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1')
    for (const [database] of rows) {
      const link = await openLink(this.#access, this.#context, { database: database ?? undefined })
      try {
        await link.transaction(
          () => this.#statement(link, planned.step, planned.sql, planned.step.ignore.length > 0)
        )
      } finally {
        await link.close()
      }
    }
    this.#committed = true
  }

  /** The roles that our templates name, made at first use. */
  async #ensureOwnRoles(): Promise<void> {
    const [rows] = await this.#link.batch([this.#link.lookOf(this.#account.name)])
    for (const role of this.#missing(readLook(rows))) await ensureRole(this.#link, role)
  }

  #missing({ markerExists, graveyardExists }: Look): string[] {
    const uses = (name: string): boolean => this.#template.uses.includes(name)
    return [
      ...uses('marker_role') && !markerExists ? [markerRole] : [],
      ...uses('graveyard_role') && !graveyardExists ? [graveyardRole] : []
    ]
  }

  async #racing<T>(act: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await act()
      } catch (error) {
        if (!isRace(error) || attempt >= racesMax) throw error
      }
    }
  }

  /** Tries again after ending whatever of the account's own, or at its lock, made us wait. */
  async #patiently<T>(act: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await act()
      } catch (error) {
        if (!isServerError(error, sqlstate.lockNotAvailable) || attempt >= blockedMax) throw error
        await this.#endBlockers()
        if (attempt === blockedMax - 1) await this.#link.patientLocks()
      }
    }
  }

  async #endBlockers(): Promise<void> {
    if (await this.#link.endStrangers(this.#account.name)) {
      this.#context.log(`ended who held the lock of ${this.#account.name}`)
    }
    try {
      await endSessions(this.#rung())
      await rollBackPrepared(this.#rung())
    } catch (error) {
      if (!isServerError(error, sqlstate.lockNotAvailable)) throw error
    }
  }

  /** Whatever went wrong: no login, no password. */
  async #quarantine(): Promise<void> {
    try {
      await this.#patiently(() => this.#link.fenced(this.#account, async ({ oid, canLogin }) => {
        const login = this.#template.proof === 'login' && oid !== undefined && canLogin
        if (login) {
          this.#link.send(`ALTER ROLE ${quoteIdentifier(this.#account.name)} NOLOGIN PASSWORD NULL`)
        }
      }))
    } catch (error) {
      this.#context.log(
        `${this.#account.name} could not be shut: ${error instanceof Error ? error.message : String(error)}`
      )
    }
  }

  async #undo(groups: readonly Group[]): Promise<void> {
    try {
      for (const group of groups) await this.#openGroup(group)
    } catch (error) {
      this.#context.log(
        `undo of ${this.#account.name}: ${error instanceof Error ? error.message : String(error)}`
      )
    }
  }

  #outcome(error: unknown): Outcome {
    const failedStep = this.#step
    if (error instanceof Fenced && error.kind === 'foreign') {
      return { state: 'conflict', reason: error.message }
    }
    const message = error instanceof Error ? error.message : String(error)
    if (isDefinite(error)) {
      return {
        state: 'refused', failedStep, error: message, retryable: mayWorkLater(error), residue: this.#left()
      }
    }
    return { state: 'unknown', failedStep, error: message }
  }
}

/** The server, or we, said no: nothing of this step happened. */
function isDefinite(error: unknown): boolean {
  if (error instanceof SallyportError) return error.code !== 'hook-timeout'
  return error instanceof Fenced || error instanceof RungFailed || isServerError(error)
}

function mayWorkLater(error: unknown): boolean {
  if (error instanceof Fenced) return error.kind === 'late'
  return !isServerError(error) || isRace(error) || /^(?:53|55|57|58|08)/.test(error.sqlstate)
}
