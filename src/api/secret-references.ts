// Whether declared secrets, profiles and grants on them fit together: the base of a link is a static secret
// that can log in, profiles and dynamic secrets name templates that are active and of the right plugin, and
// what their target is authenticated with belongs there. Pure, like references.ts: everything that would be
// wrong after the change is said at once.
import { quote } from '../input.ts'
import type { Plugin } from '../jit/plugin.ts'
import { makesTyped } from '../jit/shelf.ts'
import type { Shelf } from '../jit/shelf.ts'
import { checkVariables, parseTemplate } from '../jit/template.ts'
import { switchOf } from '../policy/secrets.ts'
import type {
  DynamicSecret, OutputField, Profile, Provisioning, SecretDefinition
} from '../policy/secrets.ts'
import { protocolsWithDatabase } from '../policy/types.ts'
import type { Credential, Target } from '../policy/types.ts'
import type { Wanted } from './documents.ts'
import type { TemplateRow } from './ports.ts'
import { actionFlaws, keyOf } from './references.ts'
import type { Flaw, State } from './references.ts'

/** What is wrong with the secrets and profiles of a batch, beside what they name. */
export function secretFlaws(
  state: State, wanted: readonly Wanted[], shelf: Shelf, templates: ReadonlyMap<string, TemplateRow>
): Flaw[] {
  return wanted.flatMap(({ kind, name, spec }) => {
    const owner = keyOf(kind, name)
    if (kind === 'profile') return provisioningFlaws(owner, spec as Profile, 'type', shelf, templates)
    if (kind !== 'secret') return []
    const secret = spec as SecretDefinition
    if (secret.type === 'static') return staticFlaws(state, owner, secret, shelf)
    return [
      ...accessFlaws(state, owner, secret), ...dynamicFlaws(state, owner, secret, shelf, templates)
    ]
  })
}

// A secret that others are linked to must stay a base.
function staticFlaws(
  state: State, owner: string, { name, provider }: Extract<SecretDefinition, { type: 'static' }>, shelf: Shelf
): Flaw[] {
  if (provider !== undefined) {
    return shelf.plugins.some(({ id }) => id === provider)
      ? []
      : [{ owner, path: 'attributes.type', message: noPlugin(shelf, provider) }]
  }
  return linkedTo(state, name).map(by =>
    ({ owner, path: 'attributes.type', message: `is missing: ${by} is linked to it` }))
}

function noPlugin(shelf: Shelf, id: string): string {
  return `there is no plugin ${quote(id)}; there are ${shelf.plugins.map(each => each.id).join(', ')}`
}

/** Paths of the secrets that are linked to a base. */
export function linkedTo(state: State, path: string): string[] {
  return [...state].filter(([key, spec]) => {
    if (!key.startsWith('secret/')) return false
    const secret = spec as SecretDefinition
    return secret.type === 'dynamic' && secret.source.kind === 'link' && secret.source.linkedSecret === path
  }).map(([key]) => key.slice('secret/'.length))
}

function accessFlaws(state: State, owner: string, { source }: DynamicSecret): Flaw[] {
  if (source.kind === 'link') {
    const base = state.get(keyOf('secret', source.linkedSecret)) as SecretDefinition | undefined
    const path = 'attributes.linkConfig.linkedSecret'
    if (base === undefined) return []
    if (base.type === 'dynamic') return [{ owner, path, message: `${quote(base.name)} is dynamic itself` }]
    return base.provider === undefined
      ? [{ owner, path, message: `${quote(base.name)} is no base secret: it has no attributes.type` }]
      : []
  }
  if (source.kind === 'profile') return []
  const path = 'authenticationCredential'
  const credential = state.get(keyOf('credential', source.authenticationCredential)) as Credential | undefined
  if (credential === undefined) return []
  if (credential.target !== source.target) {
    return [{ owner, path, message: `${quote(credential.name)} is for target ${quote(credential.target)}` }]
  }
  return credential.jit?.enabled === true
    ? [{ owner, path, message: `${quote(credential.name)} is a JIT credential itself` }]
    : []
}

function dynamicFlaws(
  state: State, owner: string, { source, outputs, renewal }: DynamicSecret, shelf: Shelf,
  templates: ReadonlyMap<string, TemplateRow>
): Flaw[] {
  const provisioning = provisioningOf(state, source)
  if (provisioning === undefined) return []
  const flaws = source.kind === 'profile'
    ? []
    : provisioningFlaws(owner, provisioning, source.kind === 'link' ? 'create' : 'provider', shelf, templates)
  const plugin = shelf.plugins.find(({ id }) => id === provisioning.provider)
  if (plugin === undefined) return flaws
  const renewed = switchOf(plugin.id)
  if (renewal !== undefined && renewal.minutes[renewed] === undefined) {
    flaws.push({ owner, path: `renewal.${renewed}`, message: `is missing: that is what ${plugin.id} makes` })
  }
  const target = source.kind === 'link' ? undefined : state.get(keyOf('target', source.target)) as Target
  const row = templates.get(provisioning.create)
  const made = row === undefined ? [] : parseTemplate(row.body, row.version).made
  const there = fieldsOf(plugin, target?.protocol ?? provisioning.provider, made)
  for (const { field } of outputs) {
    if (there.includes(field)) continue
    const message = `${plugin.id} gives none; it gives ${there.join(', ')}`
    flaws.push({ owner, path: `outputs.${field}`, message })
  }
  return flaws
}

/** What a lease consists of; `made` is what the service draws, in place of our own secret. */
function fieldsOf(plugin: Plugin, protocol: string, made: readonly OutputField[]): readonly OutputField[] {
  const own = makesTyped(plugin) ? 'password' : 'privateKey'
  const secrets = made.length > 0 ? made : [own]
  const database = protocolsWithDatabase.includes(protocol) ? ['database'] as const : []
  return ['username', ...secrets, 'host', 'port', ...database]
}

function provisioningOf(state: State, source: DynamicSecret['source']): Provisioning | undefined {
  if (source.kind === 'target') return source
  if (source.kind === 'profile') return state.get(keyOf('profile', source.profile)) as Profile | undefined
  const base = state.get(keyOf('secret', source.linkedSecret)) as SecretDefinition | undefined
  if (base?.type !== 'static' || base.provider === undefined) return undefined
  return { ...source, provider: base.provider }
}

function provisioningFlaws(
  owner: string, { provider, variables, ...chosen }: Provisioning, providerPath: string, shelf: Shelf,
  templates: ReadonlyMap<string, TemplateRow>
): Flaw[] {
  if (!shelf.plugins.some(({ id }) => id === provider)) {
    return [{ owner, path: providerPath, message: noPlugin(shelf, provider) }]
  }
  const flaws = (['create', 'delete'] as const).flatMap(action =>
    actionFlaws(action, { plugin: provider, template: chosen[action] }, shelf, templates)
      .map(({ field, message }) => ({ owner, path: field === 'plugin' ? providerPath : action, message })))
  if (flaws.length > 0) return flaws
  const parsed = [chosen.create, chosen.delete].map(id => templates.get(id)!)
    .map(row => parseTemplate(row.body, row.version))
  return checkVariables(parsed, variables).map(message => ({ owner, path: 'variables', message }))
}
