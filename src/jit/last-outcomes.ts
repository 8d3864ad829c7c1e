// What came of the last action on each target, for people who look after targets: the queue of a target knows
// whether it answers now, and is forgotten when it has nothing to do. Wraps the hook runner; what it keeps is
// this process's own and is gone with it, since the ledger has the record.
import type { Clock } from '../clock.ts'
import type { HookJob, HookResult, Hooks } from './hook.ts'

/** A target that was renamed leaves its old name here; the oldest names go. */
const targetsMax = 10_000

export interface LastOutcome {
  at: Date
  action: HookJob['action']
  plugin: string
  template: string
  account: string
  state: HookResult['state']
  /** Redacted, as in the result. */
  error: string | undefined
  tookMs: number
}

export type RememberingHooks = Hooks & { lastOutcomes(): ReadonlyMap<string, LastOutcome> }

export function rememberOutcomes(hooks: Hooks, clock: Clock): RememberingHooks {
  const last = new Map<string, LastOutcome>()
  return {
    run: async job => {
      const result = await hooks.run(job)
      const { name } = job.access.target
      // Anew, so that the order is that of the last use.
      last.delete(name)
      const oldest = last.keys().next()
      if (last.size >= targetsMax && oldest.done !== true) last.delete(oldest.value)
      last.set(name, {
        at: clock.now(), action: job.action, plugin: job.pluginId, template: job.template.id,
        account: job.account.name, state: result.state, error: result.error, tookMs: result.tookMs
      })
      return result
    },
    verify: job => hooks.verify(job),
    probe: (plugin, access, variables) => hooks.probe(plugin, access, variables),
    listOwned: (plugin, access) => hooks.listOwned(plugin, access),
    health: () => hooks.health(),
    close: () => hooks.close(),
    lastOutcomes: () => last
  }
}
