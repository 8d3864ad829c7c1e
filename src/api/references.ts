// Whether declared resources fit together: what they name exists, templates are active and of the right
// plugin and action (J8), whoever authenticates a hook can (J7). Pure: looks at the state as it would be
// after the change and says everything that is wrong with it, each with the resource and the path.
import { quote } from '../input.ts'
import { makesTyped } from '../jit/shelf.ts'
import type { Shelf } from '../jit/shelf.ts'
import { checkVariables } from '../jit/template.ts'
import type { Template } from '../jit/template.ts'
import type { Credential, GrantRule, JitSetting } from '../policy/types.ts'
import type { ResourceKind, Specs } from './documents.ts'
import { actionsOf } from './documents.ts'
import type { TemplateRow } from './ports.ts'

/** `target/orders` → its spec: everything that would be declared. */
export type State = ReadonlyMap<string, Specs[ResourceKind]>

export interface Reference {
  /** `credential/orders-rw`: who refers. */
  owner: string
  path: string
  /** `target/orders`: to what. */
  to: string
}

export interface Flaw {
  owner: string
  path: string
  message: string
}

export function keyOf(kind: string, name: string): string {
  return `${kind}/${name}`
}

/** Everything that the resources of a state name. */
export function referencesIn(state: State): Reference[] {
  const found: Reference[] = []
  for (const [owner, spec] of state) {
    const kind = owner.slice(0, owner.indexOf('/'))
    if (kind === 'credential') {
      const { target, jit } = spec as Credential
      found.push({ owner, path: 'target', to: keyOf('target', target) })
      if (jit?.authenticationCredential !== undefined) {
        found.push({
          owner, path: 'jit.authenticationCredential', to: keyOf('credential', jit.authenticationCredential)
        })
      }
    }
    if (kind === 'grant') {
      const { users, credentials } = spec as GrantRule
      users.forEach((name, at) => found.push({ owner, path: `users[${at}]`, to: keyOf('user', name) }))
      credentials.forEach((name, at) =>
        found.push({ owner, path: `credentials[${at}]`, to: keyOf('credential', name) }))
    }
  }
  return found
}

/**
 * Hooks must be able to log in: the credential that authenticates them is a standing one, of the same
 * target.
 */
export function authenticationFlaws(state: State): Flaw[] {
  const flaws: Flaw[] = []
  for (const [owner, spec] of state) {
    if (!owner.startsWith('credential/')) continue
    const { target, jit } = spec as Credential
    const name = jit?.authenticationCredential
    if (name === undefined) continue
    const other = state.get(keyOf('credential', name)) as Credential | undefined
    if (other === undefined) continue
    const flaw = (message: string): number =>
      flaws.push({ owner, path: 'jit.authenticationCredential', message })
    if (keyOf('credential', name) === owner) flaw('is the credential itself: use useOwnCredential')
    else if (other.target !== target) flaw(`${quote(name)} is for target ${quote(other.target)}`)
    else if (other.jit?.enabled === true) flaw(`${quote(name)} is a JIT credential itself`)
  }
  return flaws
}

/** J7 and J8 for one JIT setting; `templates` holds the newest version of each, by name. */
export function jitFlaws(
  owner: string, jit: JitSetting, shelf: Shelf, templates: ReadonlyMap<string, TemplateRow>
): Flaw[] {
  if (!jit.enabled) return []
  const flaws: Flaw[] = []
  const flaw = (path: string, message: string): number => flaws.push({ owner, path: `jit.${path}`, message })
  for (const action of actionsOf[jit.type]) {
    const chosen = jit.actions[action]
    if (chosen === undefined) continue
    const plugin = shelf.plugins.find(({ id }) => id === chosen.plugin)
    const template = templates.get(chosen.template)
    if (plugin === undefined) {
      const there = shelf.plugins.map(({ id }) => id).join(', ')
      flaw(`${action}.plugin`, `there is no plugin ${quote(chosen.plugin)}; there are ${there}`)
    } else if (!plugin.actions.has(action)) {
      flaw(`${action}.plugin`, `plugin ${quote(chosen.plugin)} has no action ${action}`)
    }
    if (jit.useOwnCredential && jit.type === 'enable-disable' && plugin?.canEnableItself === false) {
      flaw('useOwnCredential', `plugin ${quote(plugin.id)} cannot ${action} an account as that account`)
    }
    if (template === undefined) flaw(`${action}.template`, `there is no template ${quote(chosen.template)}`)
    else if (!template.active) flaw(`${action}.template`, `template ${quote(chosen.template)} is not active`)
    else if (template.plugin !== chosen.plugin) {
      flaw(`${action}.template`, `template ${quote(chosen.template)} is for plugin ${template.plugin}`)
    } else if (template.action !== action) {
      flaw(`${action}.template`, `template ${quote(chosen.template)} is for the action ${template.action}`)
    }
  }
  return flaws
}

/**
 * On a TCP target a person is told the secret: so there is a password, and nobody else has it (`fresh`: the
 * opening template sets a new one).
 */
export function typedFlaws(owner: string, jit: JitSetting, shelf: Shelf, fresh: boolean): Flaw[] {
  const [opening] = actionsOf[jit.type]
  const path = `jit.${opening}`
  const plugin = shelf.plugins.find(({ id }) => id === jit.actions[opening]?.plugin)
  if (jit.type === 'enable-disable') {
    const message = 'sets a new secret, which people on a tcp target would share: use creation-deletion'
    return fresh ? [{ owner, path, message }] : []
  }
  if (plugin === undefined || makesTyped(plugin)) return []
  return [{ owner, path, message: `plugin ${quote(plugin.id)} gives no password, which a tcp target needs` }]
}

/** The values of a credential fit what its two templates declare. */
export function variableFlaws(owner: string, jit: JitSetting, templates: readonly Template[]): Flaw[] {
  if (!jit.enabled) return []
  return checkVariables(templates, jit.variables).map(problem => {
    const [, name = '', message = problem] = /^([A-Za-z0-9_]+): (.*)$/s.exec(problem) ?? []
    return { owner, path: name === '' ? 'jit.variables' : `jit.variables.${name}`, message }
  })
}
