// A target for the ledger's tests, behind the hooks port: a set of accounts that can hang, refuse, lose its
// answers, and let an effect land late, on command. With `fences` it refuses what a real target that can
// fence refuses: an epoch older than the account's marker, and anything after the claim's end. Without, it
// does as it is told, like a shell.
import { systemClock } from '../../src/clock.ts'
import type { Clock } from '../../src/clock.ts'
import type { HookResult } from '../../src/jit/hook.ts'
import type { Action, Minted, Verified } from '../../src/jit/plugin.ts'
import type { Hooks, HookWork } from '../../src/lease/ports.ts'
import { Secret } from '../../src/secret.ts'

export interface Standing {
  accountId: string
  epoch: number
  enabled: boolean
  verifier: string
  expiresAt: string
}

/** Where the accounts are: in memory, or (crash tests) in files that outlive the process. */
export interface Shelf {
  get(name: string): Standing | undefined
  set(name: string, standing: Standing): void
  delete(name: string): void
  names(): readonly string[]
}

/** What the target does to one action; `gate` holds the effect back until it resolves. */
export type Mood =
  | { do: 'obey' }
  | { do: 'refuse', error: string, code?: HookResult['code'] }
  /** The effect happens, the answer does not come. */
  | { do: 'lose-answer' }
  /** Neither the effect nor the answer. */
  | { do: 'lose-request' }
  /** Does it, and then says that the account is still there. */
  | { do: 'lie' }
  /** Cannot be dropped, but is disabled. */
  | { do: 'quarantine' }
  | { do: 'conflict' }

export interface Call {
  action: Action
  name: string
  epoch: number
  work: HookWork
}

export class LeaseTarget implements Hooks {
  readonly accounts: Shelf
  /** Effects that changed something, in order. */
  readonly effects: Call[] = []
  readonly calls: Call[] = []
  fences = false
  /** What it makes are tokens: they end at the time that they were made for, and nothing takes them away. */
  tokens = false
  /** It can move the end that it keeps of an account. */
  movesEnds = true
  away = false
  looks = 0
  mood: (call: Call) => Mood = () => ({ do: 'obey' })
  /** Before the effect of an action; nothing of the caller's limits stops what waits here. */
  gate: (call: Call) => Promise<void> | undefined = () => undefined
  #minted = 0
  readonly #clock: Clock

  constructor(accounts: Shelf = memoryShelf(), clock: Clock = systemClock) {
    this.accounts = accounts
    this.#clock = clock
  }

  /** Accounts that could be used now. */
  usable(): readonly string[] {
    return this.accounts.names().filter(name => this.accounts.get(name)?.enabled === true)
  }

  /** How often an action changed something, for one account or in all. */
  count(action: Action, name?: string): number {
    return this.effects.filter(
      each => each.action === action && (name === undefined || each.name === name)
    ).length
  }

  mint(): Minted {
    const number = ++this.#minted
    return {
      inject: { kind: 'password', password: new Secret(`password ${number}`) },
      variables: { verifier: new Secret(`verifier ${number}`) }
    }
  }

  async run(work: HookWork): Promise<HookResult> {
    const { account: { name, epoch }, template: { action } } = work
    const call = { action, name, epoch, work }
    this.calls.push(call)
    const startedMs = this.#clock.monotonicMs()
    const answer = (part: Partial<HookResult> & Pick<HookResult, 'state'>): HookResult => ({
      changed: false, retryable: true, residue: [], quarantined: false,
      tookMs: this.#clock.monotonicMs() - startedMs, ...part
    })
    if (this.away) {
      return answer({ state: 'refused', code: 'target-unreachable', error: 'connection refused' })
    }
    const mood = this.mood(call)
    await this.gate(call)
    switch (mood.do) {
      case 'refuse': return answer(
        { state: 'refused', code: mood.code ?? 'hook-failed', error: mood.error, failedStep: 'make' }
      )
      case 'conflict': return answer({ state: 'conflict', code: 'account-conflict', error: 'is not ours' })
      case 'lose-request': return answer(
        { state: 'unknown', code: 'hook-timeout', error: 'no answer', failedStep: 'make' }
      )
      case 'quarantine': {
        const standing = this.accounts.get(name)
        if (standing !== undefined) this.accounts.set(name, { ...standing, enabled: false })
        return answer({
          state: 'refused', code: 'hook-failed', error: 'objects depend on it', failedStep: 'drop',
          quarantined: true,
          seen: this.#seen(name)
        })
      }
      case 'obey': case 'lie': case 'lose-answer': break
    }
    if (this.tokens && action === 'delete' && this.#seen(name, work).exists) {
      const error = 'it ends by itself'
      return answer({ state: 'refused', code: 'hook-failed', error, seen: this.#seen(name, work) })
    }
    const refusal = this.#effect(call)
    if (refusal !== undefined) return answer({ state: 'refused', code: 'hook-failed', error: refusal })
    if (mood.do === 'lose-answer') {
      return answer({ state: 'unknown', code: 'hook-timeout', error: 'no answer' })
    }
    if (mood.do === 'lie') {
      const error = 'done, but the look says it exists'
      return answer({ state: 'refused', code: 'hook-failed', error, seen: this.#seen(name) })
    }
    const made = this.tokens && action === 'create' ? { token: new Secret(`token of ${name}`) } : undefined
    return answer({ state: 'done', changed: true, seen: this.#seen(name, work), made })
  }

  prolongs(): boolean {
    return this.movesEnds
  }

  prolong(work: HookWork): Promise<HookResult> {
    return this.run({ ...work, template: { ...work.template, action: 'enable' } })
  }

  // Not async work, but the port's shape.
  verify(work: HookWork): Promise<Verified> {
    const { account: { name } } = work
    this.looks++
    if (this.away) return Promise.reject(new Error('connection refused'))
    return Promise.resolve(this.#seen(name, work))
  }

  #seen(name: string, work?: HookWork): Verified {
    const endsAt = this.tokens ? new Date(String(work?.variables['ends_at'])) : undefined
    if (endsAt !== undefined && endsAt <= this.#clock.now()) this.accounts.delete(name)
    const standing = this.accounts.get(name)
    return {
      exists: standing !== undefined, enabled: standing?.enabled === true, ours: standing !== undefined,
      epoch: standing?.epoch, sessions: 0, residue: [],
      ...endsAt === undefined || standing === undefined ? {} : { endsAt }
    }
  }

  /** Undefined, or why a target that fences refuses. */
  #effect(call: Call): string | undefined {
    const { action, name, epoch, work } = call
    const before = this.accounts.get(name)
    if (this.fences) {
      if (this.#clock.monotonicMs() > work.claimEndsMs) return 'the deadline has passed'
      if (before !== undefined && before.epoch > epoch) return 'a newer epoch is in the marker'
    }
    const verifier = work.variables.verifier
    const standing = {
      accountId: work.account.accountId, epoch, expiresAt: String(work.variables.expires_at),
      verifier: verifier instanceof Secret ? String(verifier.expose()) : before?.verifier ?? ''
    }
    if (action === 'create' || action === 'enable') this.accounts.set(name, { ...standing, enabled: true })
    else if (before === undefined || (action === 'disable' && !before.enabled)) return undefined
    else if (action === 'delete') this.accounts.delete(name)
    else this.accounts.set(name, { ...standing, enabled: false })
    this.effects.push(call)
    return undefined
  }
}

export function memoryShelf(): Shelf {
  const accounts = new Map<string, Standing>()
  return {
    get: name => accounts.get(name),
    set: (name, standing) => void accounts.set(name, standing),
    delete: name => void accounts.delete(name),
    names: () => [...accounts.keys()]
  }
}

/** A gate that the test opens: `wait` is what the target waits for. */
export function createGate(): { reached: Promise<void>, wait(): Promise<void>, open(): void } {
  const reached = Promise.withResolvers<void>()
  const opened = Promise.withResolvers<void>()
  return {
    reached: reached.promise,
    wait: () => {
      reached.resolve()
      return opened.promise
    },
    open: () => opened.resolve()
  }
}
