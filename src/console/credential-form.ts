// The forms of a credential: its account, and its JIT settings, where the type decides which fields there are
// and each list offers only what fits (J2, J7, J8). What stands in them is tried on the server as it is
// typed. Whoever is no admin sees the same, and can change nothing.
import type { PluginJson, ResourceJson, TemplateJson } from '../api/client-types.ts'
import { get } from './call.ts'
import { allResources, allTemplates } from './whole.ts'
import { actionsOf } from './credential-draft.ts'
import type { Action, Declaration, Draft, JitType } from './credential-draft.ts'
import { ChoiceField, SwitchField, TextField } from './fields.ts'
import { html } from './html.ts'
import type { Content, View } from './html.ts'
import { Variables } from './variables.ts'
import type { Wrong } from './wrong.ts'

/** What the fields offer. */
export interface Offer {
  plugins: readonly PluginJson[]
  templates: readonly TemplateJson[]
  credentials: readonly ResourceJson[]
  targets: readonly string[]
}

export async function loadOffer(signal: AbortSignal): Promise<Offer> {
  const [{ plugins }, templates, credentials, targets] = await Promise.all([
    get('/plugins', { signal }), allTemplates(signal), allResources('credential', signal),
    allResources('target', signal)
  ])
  return { plugins, templates, credentials, targets: targets.map(({ name }) => name) }
}

/** Of the account's own fields, where they stand on another tab. */
const elsewhere = ['username', 'password'] as const

/** J7, said at once: the server says the same of what is sent. */
function cannotItself({ type, useOwn, choices }: Draft, { plugins }: Offer): string[] {
  if (type !== 'enable-disable' || !useOwn) return []
  return actionsOf[type].filter(action =>
    plugins.find(({ id }) => id === choices[action].plugin)?.canEnableItself === false).map(action =>
    `plugin ${JSON.stringify(choices[action].plugin)} cannot ${action} an account as that account`)
}

export interface FormProps {
  draft: Draft
  set(change: Partial<Draft>): void
  offer: Offer
  wrong: Wrong
  disabled: boolean
}

interface JitProps extends FormProps {
  declared: readonly Declaration[]
  /** The account's fields stand above. */
  isNew: boolean
}

export const accountFields = ['name', 'target', 'username', 'password', 'privateKey'] as const

export function AccountForm(props: Omit<JitProps, 'declared'>): View {
  const { draft, set, offer, wrong, disabled, isNew } = props
  const stored = (has: boolean): string => has ? 'stored; leave empty to keep it' : 'none is stored'
  return html`<div class="fields">
    <${TextField} label="Name" value=${draft.name} set=${(name: string) => set({ name })}
      wrong=${wrong['name']} disabled=${disabled || !isNew} required />
    <${ChoiceField} label="Target" value=${draft.target} set=${(target: string) => set({ target })}
      choices=${offer.targets} wrong=${wrong['target']} disabled=${disabled} />
    <${TextField} label="Account on the target" value=${draft.username} wrong=${wrong['username']}
      set=${(username: string) => set({ username })} disabled=${disabled}
      hint="not for accounts that are made for each session" />
    <${TextField} label="Password" type="password" value=${draft.password} disabled=${disabled}
      set=${(password: string) => set({ password })} hint=${stored(draft.hasPassword)}
      wrong=${wrong['password']} />
    <${TextField} label="Private key (SSH)" rows=${3} wide value=${draft.privateKey} disabled=${disabled}
      set=${(privateKey: string) => set({ privateKey })} hint=${stored(draft.hasPrivateKey)}
      wrong=${wrong['privateKey']} />
  </div>`
}

const typeWords: Readonly<Record<JitType, string>> = {
  'creation-deletion': 'The account is made when a session starts and removed when it ends.',
  'enable-disable': 'The account exists; it is on while at least one session uses it, and off otherwise.'
}

const actionWords: Readonly<Record<Action, string>> = {
  create: 'Creation', delete: 'Deletion', enable: 'Switching on', disable: 'Switching off'
}

export function jitFields(draft: Draft): string[] {
  return [
    'jit.type', 'jit.useOwnCredential', 'jit.authenticationCredential', 'jit.maxSession', 'jit.namePrefix',
    ...elsewhere,
    ...actionsOf[draft.type].flatMap(action =>
      [`jit.${action}.plugin`, `jit.${action}.template`, `jit.${action}`]),
    ...Object.keys(draft.variables).map(name => `jit.variables.${name}`), 'jit.variables'
  ]
}

export function JitForm(props: JitProps): View {
  const { draft, set, wrong, disabled } = props
  return html`
    <${SwitchField} label="JIT is enabled" value=${draft.enabled} disabled=${disabled}
      set=${(enabled: boolean) => set({ enabled })} wrong=${wrong['jit']}
      hint=${draft.enabled ? undefined : 'Disabled: the stored secret is injected, and no hook runs.'} />
    ${draft.enabled ? enabledView(props) : null}`
}

function enabledView(props: JitProps): Content {
  const { draft, set, wrong, disabled, declared } = props
  const { type } = draft
  return html`
    <fieldset disabled=${disabled}><legend>Type</legend>
      ${(Object.keys(typeWords) as JitType[]).map(each => html`<label class="choice">
        <input type="radio" name="jit-type" value=${each} checked=${each === type}
          onChange=${() => set({ type: each })} />
        <span><strong>${each}</strong><span class="quiet">${typeWords[each]}</span></span></label>`)}
      ${[...wrong['jit.type'] ?? [], ...draft.useOwn ? [] : awayOf(props)].map(line => html`
        <p class="bad" role="alert">${line}</p>`)}
    </fieldset>
    <h2>Hooks</h2>
    <div class="fields pairs">${actionsOf[type].map(action => html`
      <${HookFields} ...${props} action=${action} />`)}</div>
    <h2>Who authenticates the hooks</h2>
    <${Authentication} ...${props} />
    <${Variables} at="jit.variables" declared=${declared} texts=${draft.variables} disabled=${disabled}
      set=${(variables: Record<string, string>) => set({ variables })} wrong=${wrong} />
    <h2>Limits</h2>
    <div class="fields">
      <${TextField} label="Longest session" value=${draft.maxSession} placeholder="8h" disabled=${disabled}
        set=${(maxSession: string) => set({ maxSession })} wrong=${wrong['jit.maxSession']}
        hint="then the session is cut and the closing hook runs" />
      ${type === 'creation-deletion' ? html`<${TextField} label="Prefix of names" value=${draft.namePrefix}
        set=${(namePrefix: string) => set({ namePrefix })} placeholder="jit_" disabled=${disabled}
        wrong=${wrong['jit.namePrefix']} hint="seven digits follow" />` : null}
    </div>`
}

/** Plugin and template of one action: only those that have it (J8). */
function HookFields({ draft, set, offer, wrong, disabled, action }: FormProps & { action: Action }): View {
  const { plugin, template } = draft.choices[action]
  const plugins = offer.plugins.filter(({ actions }) => actions.includes(action)).map(({ id }) => id)
  const fitting = (of: string, for_: Action): string[] => offer.templates.filter(each =>
    each.active && each.plugin === of && each.action === for_).map(({ id }) => id)
  const only = (of: string, for_: Action): string => {
    const all = fitting(of, for_)
    return all.length === 1 ? all[0]! : ''
  }
  const choosePlugin = (chosen: string): void => {
    const choices = { ...draft.choices, [action]: { plugin: chosen, template: only(chosen, action) } }
    const [first, second] = actionsOf[draft.type]
    const other = action === first ? second : first
    // The pair is of one family nearly always.
    if (draft.choices[other].plugin === '') choices[other] = { plugin: chosen, template: only(chosen, other) }
    set({ choices })
  }
  const chooseTemplate = (chosen: string): void =>
    set({ choices: { ...draft.choices, [action]: { plugin, template: chosen } } })
  const name = actionWords[action]
  const path = `jit.${action}`
  return html`
    <${ChoiceField} label=${`${name}: plugin`} value=${plugin} choices=${plugins} set=${choosePlugin}
      disabled=${disabled} wrong=${[...wrong[`${path}.plugin`] ?? [], ...wrong[path] ?? []]} />
    <${ChoiceField} label=${`${name}: template`} value=${template} choices=${fitting(plugin, action)}
      set=${chooseTemplate} disabled=${disabled || plugin === ''} wrong=${wrong[`${path}.template`]}
      hint=${plugin === '' ? 'choose the plugin first' : template === '' ? undefined
        : html`<a href=${`/console/templates/${template}`}>read it</a>`} />`
}

/** What is wrong with fields that stand on the other tab. */
function awayOf({ wrong, isNew }: JitProps): string[] {
  return isNew ? [] : elsewhere.flatMap(field => (wrong[field] ?? []).map(line => `${field} ${line}`))
}

function Authentication(props: JitProps): View {
  const { draft, set, offer, wrong, disabled } = props
  const own = [...cannotItself(draft, offer), ...wrong['jit.useOwnCredential'] ?? [], ...awayOf(props)]
  const standing = offer.credentials.filter(({ name, document }) => {
    const { target, jit } = document as { target?: string, jit?: { enabled?: boolean } }
    return target === draft.target && name !== draft.name && jit?.enabled !== true
  }).map(({ name }) => name)
  return html`<div class="fields">
    <${SwitchField} label="Use own credential to connect" value=${draft.useOwn} disabled=${disabled}
      set=${(useOwn: boolean) => set({ useOwn })} wrong=${draft.useOwn ? [...new Set(own)] : []}
      hint="on: this credential itself; off: the authentication credential" />
    ${draft.useOwn ? null : html`<${ChoiceField} label="Authentication credential" choices=${standing}
      value=${draft.authentication} set=${(authentication: string) => set({ authentication })}
      disabled=${disabled} wrong=${wrong['jit.authenticationCredential']}
      hint="a standing one of the same target" />`}
  </div>`
}
