// What the program asks of targets beside sessions: are there accounts of ours that nobody wants (orphans),
// and may the hooks' credentials do what the templates need (examine). Orphans are judged by the ledger,
// never by a name's looks: reapers that guessed have deleted people's own accounts.
import type { HealthCheck, OrphanPort, OrphanReport, OrphanRow } from '../api/ports-records.ts'
import { asSallyportError } from '../errors.ts'
import { proofAccountPrefix } from '../jit/plugin.ts'
import type { Access, TargetAddress, Variables } from '../jit/plugin.ts'
import type { Hooks } from '../jit/hook.ts'
import { parseTemplate } from '../jit/template.ts'
import type { Ledger } from '../lease/ledger.ts'
import type { Target } from '../policy/types.ts'
import { planOf } from '../secrets/plan.ts'
import { actionsOf, authenticatorOf } from './accounts.ts'
import { accessOf, addressOf } from './hooks.ts'
import type { AccessPorts } from './hooks.ts'

/** One way of looking at a target: a plugin and what authenticates its hooks. */
interface Look {
  target: TargetAddress
  plugin: string
  authenticator: string
  variables: Variables
}

/** Each target once for every authenticator that hooks use there; `unplanned` hears of what cannot be. */
async function looksOf(
  ports: AccessPorts, only: string | undefined, unplanned: (target: string, reason: string) => void
): Promise<readonly Look[]> {
  const declared = await ports.declared()
  const looks = new Map<string, Look>()
  const add = (look: Look): void => {
    if (only !== undefined && look.target.name !== only) return
    const key = [look.target.name, look.plugin, look.authenticator].join('\0')
    if (!looks.has(key)) looks.set(key, look)
  }
  for (const credential of declared.credentials.values()) {
    const target = declared.targets.get(credential.target)
    const setting = credential.jit
    if (target === undefined || setting?.enabled !== true) continue
    const plugin = setting.actions[actionsOf(setting)[0]]?.plugin ?? ''
    const authenticator = authenticatorOf(credential, setting)
    add({ target: addressOf(target), plugin, authenticator, variables: setting.variables })
  }
  for (const secret of declared.secrets.values()) {
    if (secret.type === 'static') continue
    try {
      const planPorts = { ...ports, addressOf: (one: Target) => addressOf(one) }
      const plan = await planOf(planPorts, declared, secret, 'look')
      const { target, provider: plugin, authenticationCredential: authenticator, variables } = plan
      add({ target, plugin, authenticator, variables })
    } catch (thrown) {
      const { problems, message } = asSallyportError(thrown)
      if (only === undefined) unplanned(secret.name, problems.join('; ') || message)
    }
  }
  return [...looks.values()]
}

const accessFor = (ports: AccessPorts, { target, authenticator }: Look): Promise<Access> =>
  accessOf(ports, target, authenticator)

export function createOrphans(ports: AccessPorts, hooks: Hooks, ledger: Ledger): OrphanPort {
  const scan = async (only: string | undefined, signal: AbortSignal): Promise<OrphanReport> => {
    const found = new Map<string, OrphanRow>()
    const unreachable = new Map<string, string>()
    const looks = await looksOf(ports, only, (name, reason) => unreachable.set(name, reason))
    for (const look of looks) {
      signal.throwIfAborted()
      try {
        const rows = await orphansOf(ports, hooks, ledger, look)
        for (const row of rows) found.set(`${row.target} ${row.name}`, row)
      } catch (thrown) {
        unreachable.set(look.target.name, asSallyportError(thrown).message)
      }
    }
    const away = [...unreachable].map(([target, reason]) => ({ target, reason }))
    return { orphans: [...found.values()], unreachable: away }
  }
  return {
    scan,
    async reap(only, by, signal) {
      const report = await scan(only, signal)
      for (const { verdict, accountId } of report.orphans) {
        if (verdict === 'orphan' && accountId !== null) await ledger.reap(accountId, by)
      }
      await ledger.idle()
      const orphans = await Promise.all(report.orphans.map(async row => {
        if (row.verdict !== 'orphan') return row
        const [now] = await ledger.known(row.target, [row.name])
        const verdict = now?.state ?? row.verdict
        return { ...row, verdict, detail: 'removed again, on behalf of the ledger' }
      }))
      return { ...report, orphans }
    }
  }
}

async function orphansOf(ports: AccessPorts, hooks: Hooks, ledger: Ledger, look: Look): Promise<OrphanRow[]> {
  const { target, plugin } = look
  const owned = await hooks.listOwned(plugin, await accessFor(ports, look))
  const entries = await ledger.known(target.name, owned.map(each => each.name))
  const known = new Map(entries.map(each => [each.name, each]))
  const strangers = owned.flatMap(({ name, accountId = '' }) => known.has(name) ? [] : [accountId])
  // The same server under another name: a second target, or a base secret.
  const elsewhere = new Set(strangers.length === 0 ? [] : await ledger.standing(strangers))
  return owned.flatMap(({ name, accountId }) => {
    const entry = known.get(name)
    if (entry === undefined && elsewhere.has(accountId ?? '')) return []
    // What is being removed is on the worklist already; a standing account stays, switched off.
    if (entry !== undefined
      && (entry.wanted || entry.state !== 'proved-gone' || entry.kind === 'enable')) return []
    if (accountId?.startsWith(proofAccountPrefix) === true) return []
    const ours = entry !== undefined && entry.accountId === accountId
    return [{
      target: target.name, name, accountId: entry?.accountId ?? accountId ?? null,
      verdict: ours ? 'orphan' : 'foreign',
      detail: ours
        ? 'the ledger holds it for gone, and it is there: `orphans reap` removes it'
        : 'carries our marker, and this ledger does not know it: look who made it, '
          + 'it is never removed by itself'
    }]
  })
}

export interface ExaminePorts extends AccessPorts {
  templates: { get(id: string): Promise<{ body: string, version: number } | undefined> }
}

/** Plugins on targets where an account opens with a certificate of ours. */
async function certifiedOn({ declared, templates }: ExaminePorts): Promise<Set<string>> {
  const found = new Set<string>()
  for (const { target, jit } of (await declared()).credentials.values()) {
    const choice = jit?.enabled === true ? jit.actions[actionsOf(jit)[0]] : undefined
    const stored = choice && await templates.get(choice.template)
    if (stored === undefined) continue
    const { injection } = parseTemplate(stored.body, stored.version)
    if (injection === 'certificate') found.add(`${target}\0${choice!.plugin}`)
  }
  return found
}

/**
 * Reachable, and are all rights there? One finding for each target and authenticator. `authority`: our user
 * authority's line, which a target has to trust where templates rely on it.
 */
export async function examineTargets(
  ports: ExaminePorts, hooks: Hooks, authority: string, signal: AbortSignal
): Promise<HealthCheck[]> {
  const checks: HealthCheck[] = []
  const certified = await certifiedOn(ports)
  const looks = await looksOf(ports, undefined, (secret, reason) => {
    checks.push({ name: `secret ${secret}`, status: 'warning', detail: reason })
  })
  for (const look of looks) {
    signal.throwIfAborted()
    const name = `target ${look.target.name} as ${look.authenticator}`
    try {
      const relies = certified.has(`${look.target.name}\0${look.plugin}`)
      const { version, missingRights, warnings } = await hooks.probe(
        look.plugin, await accessFor(ports, look),
        relies ? { ...look.variables, userAuthority: authority } : look.variables)
      const status = missingRights.length > 0 ? 'failed' : warnings.length > 0 ? 'warning' : 'ok'
      checks.push({ name, status, detail: [version, ...missingRights, ...warnings].join('; ') })
    } catch (thrown) {
      checks.push({ name, status: 'failed', detail: asSallyportError(thrown).message })
    }
  }
  return checks
}
