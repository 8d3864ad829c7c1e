// What the program asks of targets beside sessions: are there accounts of ours that nobody wants (orphans),
// and may the hooks' credentials do what the templates need (examine). Orphans are judged by the ledger,
// never by a name's looks: reapers that guessed have deleted people's own accounts.
import type { HealthCheck, OrphanPort, OrphanReport, OrphanRow } from '../api/ports.ts'
import { asSallyportError } from '../errors.ts'
import { proofAccountPrefix } from '../jit/plugin.ts'
import type { Access } from '../jit/plugin.ts'
import type { Hooks } from '../jit/hooks.ts'
import type { Ledger } from '../lease/ledger.ts'
import type { Credential, Declared, JitSetting, Target } from '../policy/types.ts'
import { actionsOf, authenticatorOf } from './accounts.ts'
import { accessOf, addressOf } from './hooks.ts'
import type { AccessPorts } from './hooks.ts'

/** One way of looking at a target: a plugin and a credential that authenticates its hooks. */
interface Look {
  target: Target
  plugin: string
  credential: Credential
  setting: JitSetting
}

/** Each target once for every authenticator that hooks use there. */
function looksOf(declared: Declared, only: string | undefined): readonly Look[] {
  const looks = new Map<string, Look>()
  for (const credential of declared.credentials.values()) {
    const target = declared.targets.get(credential.target)
    const setting = credential.jit
    if (target === undefined || setting?.enabled !== true) continue
    if (only !== undefined && target.name !== only) continue
    const plugin = setting.actions[actionsOf(setting)[0]]?.plugin ?? ''
    const key = [target.name, plugin, authenticatorOf(credential, setting)].join('\0')
    if (!looks.has(key)) looks.set(key, { target, plugin, credential, setting })
  }
  return [...looks.values()]
}

const accessFor = (ports: AccessPorts, { target, credential, setting }: Look): Promise<Access> =>
  accessOf(ports, addressOf(target), authenticatorOf(credential, setting))

export function createOrphans(ports: AccessPorts, hooks: Hooks, ledger: Ledger): OrphanPort {
  const scan = async (only: string | undefined, signal: AbortSignal): Promise<OrphanReport> => {
    const found = new Map<string, OrphanRow>()
    const unreachable = new Map<string, string>()
    for (const look of looksOf(await ports.declared(), only)) {
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
  return owned.flatMap(({ name, accountId }) => {
    const entry = known.get(name)
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

/** Reachable, and are all rights there? One finding for each target and authenticator. */
export async function examineTargets(
  ports: AccessPorts, hooks: Hooks, signal: AbortSignal
): Promise<HealthCheck[]> {
  const checks: HealthCheck[] = []
  for (const look of looksOf(await ports.declared(), undefined)) {
    signal.throwIfAborted()
    const name = `target ${look.target.name} as ${authenticatorOf(look.credential, look.setting)}`
    try {
      const { version, missingRights, warnings } = await hooks.probe(
        look.plugin, await accessFor(ports, look), look.setting.variables)
      const status = missingRights.length > 0 ? 'failed' : warnings.length > 0 ? 'warning' : 'ok'
      checks.push({ name, status, detail: [version, ...missingRights, ...warnings].join('; ') })
    } catch (thrown) {
      checks.push({ name, status: 'failed', detail: asSallyportError(thrown).message })
    }
  }
  return checks
}
