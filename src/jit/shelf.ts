// The plugins that this build has, by id. They arrive as a list written in the source (plugins/shipped.ts):
// no path, no setting and no upload adds one (J9). The shelf also says whether a template may be saved: it
// must parse, name a plugin and an action that exist, use only variables that somebody supplies, and pass the
// plugin's own lint.
import { SallyportError } from '../errors.ts'
import type { Minted, Plugin, SecretForm } from './plugin.ts'
import { parseTemplate, unknownVariables } from './template.ts'
import type { Template } from './template.ts'

export interface Shelf {
  readonly plugins: readonly Plugin[]
  /** @throws SallyportError('not-found') */
  plugin(id: string): Plugin
  /** Parses a text and asks its plugin. @throws SallyportError('invalid') with every problem */
  admit(text: string, version?: number): { template: Template, warnings: readonly string[] }
}

/** @throws Error when the list itself is wrong: a defect of the build, found at start */
export function createShelf(plugins: readonly Plugin[]): Shelf {
  const byId = new Map<string, Plugin>()
  for (const plugin of plugins) {
    if (plugin.apiVersion !== 1) {
      throw new Error(`plugin ${plugin.id}: contract version ${String(plugin.apiVersion)}`)
    }
    if (byId.has(plugin.id)) throw new Error(`plugin ${plugin.id} is listed twice`)
    if (plugin.actions.has('enable') !== plugin.actions.has('disable')) {
      throw new Error(`plugin ${plugin.id}: half a pair`)
    }
    if (plugin.actions.has('create') !== plugin.actions.has('delete')) {
      throw new Error(`plugin ${plugin.id}: half a pair`)
    }
    byId.set(plugin.id, plugin)
  }
  return {
    plugins: [...byId.values()],
    plugin(id) {
      const found = byId.get(id)
      if (found === undefined) throw new SallyportError('not-found', { detail: `plugin ${id}` })
      return found
    },
    admit(text, version) {
      const template = parseTemplate(text, version)
      const plugin = byId.get(template.plugin)
      const problems = plugin === undefined
        ? [`plugin: there is no plugin ${template.plugin}; there are ${[...byId.keys()].join(', ')}`]
        : admissionProblems(template, plugin)
      if (problems.length > 0) {
        throw new SallyportError('invalid', { detail: `template ${template.id}`, problems })
      }
      return { template, warnings: plugin?.advise?.(template) ?? [] }
    }
  }
}

/**
 * True when an opening does not send the fresh secret of `mint`: the account keeps the one that it has, and
 * that is what sessions present (J12: privileges only).
 */
export function keepsItsSecret(plugin: Plugin, opening: Template): boolean {
  if (opening.injection === 'certificate') return false
  return !Object.keys(plugin.mint().variables).some(name => opening.uses.includes(name))
}

/** A fresh secret; of a family without passwords (Linux: a key) `password` gives what there is. */
export function mintFor(plugin: Plugin, form: SecretForm = 'keys'): Minted | Promise<Minted> {
  return form === 'password' && plugin.mintTyped !== undefined ? plugin.mintTyped() : plugin.mint()
}

/** False: accounts of this plugin have no password that a person could type. */
export function makesTyped(plugin: Plugin): boolean {
  return plugin.mintTyped !== undefined || plugin.mint().inject.kind === 'password'
}

function admissionProblems(template: Template, plugin: Plugin): string[] {
  const problems: string[] = []
  if (!plugin.actions.has(template.action)) problems.push(`action: ${plugin.id} has no ${template.action}`)
  if (template.injection === 'certificate' && plugin.certifies !== true) {
    problems.push(`injection: accounts of ${plugin.id} do not log in with certificates`)
  }
  for (const name of unknownVariables(template, plugin.variables)) {
    const supplied = Object.keys(plugin.variables).join(', ')
    problems.push(`variables.${name}: used but not declared; ${plugin.id} itself supplies ${supplied}`)
  }
  for (const name of template.numbers) {
    if (Object.hasOwn(plugin.variables, name)) {
      problems.push(`{{ ${name} }}: print it with | ident or | literal`)
    }
  }
  for (const name of Object.keys(template.variables)) {
    if (Object.hasOwn(plugin.variables, name)) {
      problems.push(`variables.${name}: is supplied by the engine, do not declare it`)
    }
  }
  return [...problems, ...partProblems(template, plugin), ...plugin.lint(template)]
}

/** What only some plugins can read. */
function partProblems({ steps, undo, look, made }: Template, { id, parts = [] }: Plugin): string[] {
  const problems: string[] = []
  if (look.length > 0 && !parts.includes('look')) problems.push(`look: ${id} looks by itself`)
  if (look.length === 0 && parts.includes('look')) {
    problems.push(`look: is missing: ${id} cannot know how one sees whether the account exists`)
  }
  if (made.length > 0 && !parts.includes('made')) problems.push(`made: ${id} draws secrets itself`)
  const speaks = [...steps, ...undo].some(({ http }) => http !== undefined)
  if (speaks && !parts.includes('http')) problems.push(`steps: ${id} speaks no HTTP`)
  return problems
}
