// Tries a pair of templates on a scratch target before anybody relies on them: opens, looks, closes, looks
// again. It passes only when nothing remains, and when closing twice is no error, since a ledger that lost an
// answer will. What a failed try left behind is closed before the report is given.
import { randomBytes } from 'node:crypto'
import { asSallyportError } from '../errors.ts'
import type { HookJob, Hooks } from './hook.ts'
import { isSettled } from './judge.ts'
import { mintName } from './names.ts'
import { proofAccountPrefix } from './plugin.ts'
import type { Access, AccountRef, Plugin, Variables, Verified } from './plugin.ts'
import type { Template } from './template.ts'

export interface ProofOptions {
  hooks: Hooks
  plugin: Plugin
  /** create with delete, or enable with disable. */
  opening: Template
  closing: Template
  access: Access
  variables: Variables
  /** ISO 8601, for `expires_at`. */
  expiresAt: string
  /** enable with disable: the account to try it on. create with delete: a drawn name when absent. */
  username?: string | undefined
  signal?: AbortSignal | undefined
  /** Hears of each step when it is over. */
  told?: ((step: ProofStep) => void) | undefined
}

export interface ProofStep {
  name: string
  passed: boolean
  /** For people: what was seen or what went wrong. */
  detail: string
  tookMs: number
}

export interface Proof {
  passed: boolean
  steps: readonly ProofStep[]
}

/** Runs the pair. Never throws for what the target does. @throws Error when the two are not a pair */
export async function proveTemplates(options: ProofOptions): Promise<Proof> {
  const { opening, closing, plugin, username } = options
  const pair = `${opening.action} ${closing.action}`
  const creates = pair === 'create delete'
  if (!creates && pair !== 'enable disable') throw new Error(`${opening.id} and ${closing.id} are not a pair`)
  if (!creates && username === undefined) {
    throw new Error('enable and disable are proved on an account that exists')
  }
  const account = {
    name: username ?? mintName(),
    accountId: `${proofAccountPrefix}${randomBytes(8).toString('hex')}`,
    epoch: 1,
    kind: creates ? 'create' as const : 'enable' as const
  }
  const { inject, variables } = plugin.mint()
  const prover = new Prover(
    options, account, { ...options.variables, expires_at: options.expiresAt, ...variables }, inject
  )
  try {
    if (await prover.before(creates)) await prover.tryPair()
  } finally {
    await prover.close()
  }
  return { passed: prover.steps.length > 1 && prover.steps.every(step => step.passed), steps: prover.steps }
}

class Prover {
  readonly steps: ProofStep[] = []
  readonly #options: ProofOptions
  readonly #account: AccountRef
  readonly #variables: Variables
  readonly #inject: HookJob['inject']
  /** Something of ours may be on the target. */
  #open = false

  constructor(options: ProofOptions, account: AccountRef, variables: Variables, inject: HookJob['inject']) {
    this.#options = options
    this.#account = account
    this.#variables = variables
    this.#inject = inject
  }

  async before(creates: boolean): Promise<boolean> {
    const wanted = creates ? 'does not exist yet' : 'exists'
    return await this.#look(`the account ${wanted}`, this.#options.opening, seen => seen.exists !== creates)
  }

  async tryPair(): Promise<void> {
    const { opening, closing } = this.#options
    this.#open = true
    if (!await this.#run(opening, 1)) return
    if (!await this.#look('it is there', opening, seen => isSettled(opening.action, opening, seen))) return
    if (!await this.#run(closing, 2)) return
    const bare = (seen: Verified): boolean =>
      isSettled(closing.action, closing, seen) && seen.residue.length === 0
    if (!await this.#look('nothing remains', closing, bare)) return
    this.#open = !await this.#run(closing, 3)
  }

  /** Leaves the target as it was, as far as the closing template can. */
  async close(): Promise<void> {
    if (this.#open) await this.#run(this.#options.closing, 9)
  }

  #note(step: ProofStep): void {
    this.steps.push(step)
    this.#options.told?.(step)
  }

  #job(template: Template, epoch: number): HookJob {
    return {
      action: template.action, pluginId: template.plugin, template, account: { ...this.#account, epoch },
      access: this.#options.access, variables: this.#variables, inject: this.#inject,
      signal: this.#options.signal
    }
  }

  async #run(template: Template, epoch: number): Promise<boolean> {
    const result = await this.#options.hooks.run(this.#job(template, epoch))
    const left = result.residue.map(({ kind, name, fate }) => `${fate}: ${kind} ${name}`).join('; ')
    const failure = `${result.state} at ${result.failedStep ?? result.code ?? ''}: ${result.error ?? ''}`
    const passed = result.state === 'done'
    const again = epoch > 2 ? ' again' : ''
    const detail = passed ? left : failure
    this.#note({ name: `${template.id}${again}`, passed, detail, tookMs: result.tookMs })
    return passed
  }

  async #look(name: string, template: Template, judge: (seen: Verified) => boolean): Promise<boolean> {
    try {
      const seen = await this.#options.hooks.verify(this.#job(template, 1))
      const passed = judge(seen)
      const left = seen.residue.map(one => `${one.kind} ${one.name}`).join('; ')
      const state = `exists ${seen.exists}, can log in ${seen.enabled}, sessions ${seen.sessions}`
      const detail = left === '' ? state : `${state}, ${left}`
      this.#note({ name, passed, detail, tookMs: 0 })
      return passed
    } catch (error) {
      const known = asSallyportError(error)
      this.#note({ name, passed: false, detail: known.detail ?? known.code, tookMs: 0 })
      return false
    }
  }
}
