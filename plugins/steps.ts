// What the plugins for MySQL, SQL Server, Oracle, Redis and LDAP share: a template's steps are verbs (and,
// where a target has them, SQL statements) that run in order while the claim on the account lasts. Verbs may
// be repeated; each looks first. Here are the checks at save, the dry run, the walk through the steps with
// its outcome, and the question whether an account may be touched at all.
import { SallyportError } from '../src/errors.ts'
import type {
  AccountRef, HookContext, Outcome, PlannedStep, Residue, Variables
} from '../src/jit/plugin.ts'
import { proofAccountPrefix } from '../src/jit/plugin.ts'
import { UnfitValue } from '../src/jit/sql-text.ts'
import { renderStep } from '../src/jit/template.ts'
import type { RenderedStep, Step, Template } from '../src/jit/template.ts'
import { pause } from '../src/wire/pause.ts'

export interface Rung {
  account: AccountRef
  context: HookContext
  template: Template
  variables: Variables
  residue: Residue[]
}

export interface Verb<R extends Rung> {
  /** What it does and, in words, what it sends: for `templates plan`. */
  plan: string
  /** Options under `with`; those marked true must be there. */
  options?: Readonly<Record<string, boolean>>
  /** Lists among the template's variables that it reads; those marked true must be declared. */
  lists?: Readonly<Record<string, boolean>>
  act(rung: R, options: Readonly<Record<string, string>>): Promise<void>
  /** @throws SallyportError('invalid') for what `act` would refuse: before anything is saved or sent */
  check?(values: Pick<Rung, 'template' | 'variables'>, options: Readonly<Record<string, string>>): void
}

export type Verbs<R extends Rung> = Readonly<Record<string, Verb<R>>>

/** A step that could not be done: nothing of it happened. */
export class StepFailed extends Error {
  readonly retryable: boolean

  constructor(message: string, retryable = true) {
    super(message)
    this.retryable = retryable
  }
}

/** Exists and is not ours. */
export class Foreign extends Error {}

/** What must be left of the action's time so that the rungs after a wait can still run. */
const reserveMs = 5000

/** The words of our marker: which account of the ledger it is, and who acted on it last. */
export interface Marker {
  accountId: string
  epoch: number
}

const markerForm = /^sallyport account=(\S{1,100}) epoch=(\d{1,15})$/

export function markerText({ accountId, epoch }: AccountRef): string {
  return `sallyport account=${accountId} epoch=${epoch}`
}

export function readMarker(text: string): Marker | undefined {
  const [, accountId, epoch] = markerForm.exec(text) ?? []
  return accountId === undefined ? undefined : { accountId, epoch: Number(epoch) }
}

/** @throws Foreign, or StepFailed when a newer epoch has acted */
export function assertOurs(exists: boolean, marker: Marker | undefined, account: AccountRef): void {
  if (marker?.accountId === account.accountId && marker.epoch > account.epoch) {
    throw new StepFailed(`epoch ${marker.epoch} has acted on the account, this is ${account.epoch}`, false)
  }
  if (!exists || marker?.accountId === account.accountId) return
  // A proof may begin on an account that nobody uses now; once a session takes it, it must not go on.
  const begins = account.accountId.startsWith(proofAccountPrefix) && account.epoch === 1
  const claimed = marker?.accountId.startsWith(proofAccountPrefix) === false && !begins
  if (account.kind === 'enable' && !claimed) return
  const owner = marker === undefined ? 'is not ours' : `belongs to account ${marker.accountId}`
  throw new Foreign(`the account ${account.name} exists and ${owner}`)
}

/** A list among the template's variables; its default where the credential gives none. */
export function listOf(
  { template, variables }: Pick<Rung, 'template' | 'variables'>, name: string
): string[] {
  const declared = Object.hasOwn(template.variables, name) ? template.variables[name] : undefined
  const value = variables[name] ?? declared?.default
  return declared?.list === true && Array.isArray(value) ? value.map(String) : []
}

/** A text among the template's variables; its default where the credential gives none. */
export function textOf({ template, variables }: Pick<Rung, 'template' | 'variables'>, name: string): string {
  const declared = Object.hasOwn(template.variables, name) ? template.variables[name] : undefined
  const value = variables[name] ?? declared?.default
  return typeof value === 'string' ? value : ''
}

/** The same verbs, each after something that must hold. */
export function withBefore<R extends Rung>(verbs: Verbs<R>, before: (rung: R) => Promise<void>): Verbs<R> {
  return Object.fromEntries(Object.entries(verbs).map(([name, verb]) => [name, {
    ...verb,
    act: async (rung: R, options: Readonly<Record<string, string>>) => {
      await before(rung)
      await verb.act(rung, options)
    }
  }]))
}

/** Problems of steps that a list of verbs shows. */
export function verbProblems<R extends Rung>(template: Template, verbs: Verbs<R>, system: string): string[] {
  const problems: string[] = []
  for (const [path, step] of stepsOf(template)) {
    if (step.script !== undefined) problems.push(`${path}.script: ${system} has no shell`)
    if (step.eachDatabase) problems.push(`${path}.eachDatabase: is for PostgreSQL`)
    if (step.do === undefined) continue
    const verb = verbs[step.do]
    if (verb === undefined) {
      problems.push(`${path}.do: there is no ${step.do}; there are ${Object.keys(verbs).join(', ')}`)
      continue
    }
    problems.push(...optionProblems(path, step, verb.options ?? {}), ...listProblems(template, step, verb))
  }
  if (template.proof === 'privileges' && template.variables['roles']?.list !== true) {
    problems.push('variables.roles: `proof: privileges` looks at this list: declare it')
  }
  return problems
}

/** The same where steps are verbs only and one of them makes the account. */
export function verbOnlyProblems<R extends Rung>(
  template: Template, verbs: Verbs<R>, system: string, makes: string
): string[] {
  const problems = verbProblems(template, verbs, system)
  for (const [path, step] of stepsOf(template)) {
    if (step.sql !== undefined) problems.push(`${path}.sql: ${system} has no SQL; write do`)
    if (step.ignore.length > 0) problems.push(`${path}.ignore: is for sql steps`)
  }
  if (template.action === 'create' && template.steps[0]?.do !== makes) {
    problems.push(`steps[0]: must be ${makes}`)
  }
  return problems
}

function optionProblems(path: string, step: Step, options: Readonly<Record<string, boolean>>): string[] {
  const unknown = Object.keys(step.with).filter(option => !Object.hasOwn(options, option))
  const missing = Object.keys(options).filter(option => options[option] && step.with[option] === undefined)
  return [
    ...unknown.map(option => `${path}.with.${option}: ${step.do} has no such option`),
    ...missing.map(option => `${path}.with.${option}: ${step.do} needs it`)
  ]
}

function listProblems<R extends Rung>(
  { variables }: Template, step: Step, { lists = {} }: Verb<R>
): string[] {
  const problems: string[] = []
  for (const [name, required] of Object.entries(lists)) {
    const declared = Object.hasOwn(variables, name) ? variables[name] : undefined
    if (declared === undefined && required) {
      problems.push(`variables.${name}: ${step.do} reads this list: declare it`)
    }
    if (declared?.list === false) problems.push(`variables.${name}: set list: true`)
  }
  return problems
}

/** A template that moves the end of an account, and does nothing else: one step. */
export function prolonging(plugin: string, step: string): string {
  return `id: ${plugin}/prolong
plugin: ${plugin}
action: enable
title: Move the end of an account
steps:
  - { name: move its end, ${step} }
`
}

/** What is risky in the order of a removal. */
export function orderAdvice(
  { action, proof, steps }: Template, last: string, ends = 'end-sessions'
): string[] {
  if ((action !== 'delete' && action !== 'disable') || proof === 'privileges') return []
  const at = (verb: string): number => steps.findIndex(step => step.do === verb)
  const advice: string[] = []
  const shut = at('refuse-logins')
  if (shut === -1) advice.push('steps: no refuse-logins: new sessions can begin while old ones are ended')
  if (at(ends) === -1 || at(ends) < shut) {
    advice.push(`steps: see to live sessions (${ends}) after refuse-logins, which ends none`)
  }
  if (action === 'delete' && at(last) === -1) {
    advice.push(`steps: no ${last}: the account stays`)
  }
  return advice
}

/** What would be sent, secrets masked. */
export function planSteps<R extends Rung>(
  template: Template, variables: Variables, verbs: Verbs<R>
): PlannedStep[] {
  return template.steps.map(step => {
    const { sql, with: options } = renderStep(template, step, variables, { masked: true })
    if (sql !== undefined) return { name: step.name, text: sql.trim() }
    const verb = verbs[step.do ?? '']
    verb?.check?.({ template, variables }, options)
    const lists = Object.keys(verb?.lists ?? {}).map(
      (name): [string, string] => [name, listOf({ template, variables }, name).join(' ')])
    const told = [...Object.entries(options), ...lists].filter(([, value]) => value !== '')
    const shown = told.map(([name, value]) => `; ${name}: ${value}`).join('')
    return { name: step.name, text: `${step.do ?? ''}: ${verb?.plan ?? 'unknown'}${shown}` }
  })
}

export interface Walk<R extends Rung> {
  verbs: Verbs<R>
  statement?(rung: R, sql: string, step: Step): Promise<void>
  /** The target's refusals: nothing of that step happened. Undefined for anything else. */
  refusalOf(error: unknown): { retryable: boolean } | undefined
}

/** What quoting does not take is the caller's mistake. @throws SallyportError('invalid'), naming `what` */
export function fitting<T>(what: string, act: () => T): T {
  try {
    return act()
  } catch (error) {
    if (!(error instanceof UnfitValue)) throw error
    throw new SallyportError('invalid', { detail: `${what} ${error.message}` })
  }
}

/** Steps as they will run, rendered before anything is sent. @throws SallyportError('invalid') */
export function renderAll(
  template: Template, variables: Variables
): { steps: [Step, RenderedStep][], undo: [Step, RenderedStep][] } {
  const render = (step: Step): [Step, RenderedStep] => [step, renderStep(template, step, variables)]
  return { steps: template.steps.map(render), undo: template.undo.map(render) }
}

/**
 * Goes through the steps. `begin` takes the account (or throws) and answers false when there is nothing to
 * do.
 */
export async function walk<R extends Rung>(
  rung: R, { steps, undo }: ReturnType<typeof renderAll>, ways: Walk<R>, begin: () => Promise<boolean>
): Promise<Outcome> {
  let at = 'begin'
  try {
    for (const [, { do: verb, with: options }] of steps) ways.verbs[verb ?? '']?.check?.(rung, options)
    if (!await begin()) return { state: 'done', changed: false, residue: [] }
    for (const step of steps) {
      at = step[0].name
      await take(rung, step, ways)
    }
    return { state: 'done', changed: true, residue: rung.residue }
  } catch (error) {
    const outcome = outcomeOf(error, at, rung, ways)
    if (outcome.state === 'refused' && at !== 'begin') await takeBack(rung, undo, ways)
    return outcome
  }
}

async function take<R extends Rung>(
  rung: R, [step, rendered]: [Step, RenderedStep], { verbs, statement }: Walk<R>
): Promise<void> {
  if (rung.context.remainingMs() <= 0) throw new StepFailed('the claim on the account has lapsed')
  rung.context.signal.throwIfAborted()
  if (rendered.sql !== undefined && statement !== undefined) return await statement(rung, rendered.sql, step)
  const verb = verbs[rendered.do ?? '']
  if (verb === undefined) throw new StepFailed(`there is no verb ${rendered.do ?? ''}`, false)
  await verb.act(rung, rendered.with)
}

async function takeBack<R extends Rung>(
  rung: R, undo: readonly [Step, RenderedStep][], ways: Walk<R>
): Promise<void> {
  try {
    for (const step of undo) await take(rung, step, ways)
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error)
    rung.context.log(`undo of ${rung.account.name}: ${said}`)
  }
}

function outcomeOf<R extends Rung>(error: unknown, failedStep: string, rung: R, ways: Walk<R>): Outcome {
  const message = error instanceof Error ? error.message : String(error)
  if (error instanceof Foreign) return { state: 'conflict', reason: message }
  const refusal = error instanceof StepFailed ? error : ways.refusalOf(error)
  const ours = error instanceof SallyportError && error.code !== 'hook-timeout'
  if (refusal === undefined && !ours) return { state: 'unknown', failedStep, error: message }
  const retryable = refusal?.retryable ?? true
  return { state: 'refused', failedStep, error: message, retryable, residue: rung.residue }
}

/**
 * Ends sessions until a look finds none. `end` tells the target to end what there is and answers how many
 * there were.
 */
export async function endUntilNone({ context }: Rung, end: () => Promise<number>): Promise<void> {
  for (let pauseMs = 10; ; pauseMs = Math.min(pauseMs * 2, 200)) {
    const left = await end()
    if (left === 0) return
    if (context.remainingMs() < reserveMs) throw new StepFailed(`${left} sessions are still alive`)
    await pause(pauseMs)
  }
}

export function stepsOf({ steps, undo }: Template): [string, Step][] {
  return [
    ...steps.map((step, index): [string, Step] => [`steps[${index}]`, step]),
    ...undo.map((step, index): [string, Step] => [`undo[${index}]`, step])
  ]
}

/** SQL as a lint reads it: whatever a hole prints is one word. */
export function withoutHoles(sql: string): string {
  return sql.replaceAll(/\{%.*?%\}/gs, ' ').replaceAll(/\{\{.*?\}\}/gs, 'HOLE')
}
