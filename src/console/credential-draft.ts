// A credential as a form holds it, and as the document that it means. Everything is text while somebody
// types; the document has only what its type needs (J2): the fields of the other pair are kept in the form,
// so that switching back and forth loses nothing, and are not sent.
import type { TemplateBodyJson } from '../api/client-types.ts'
import type { Document } from './wrong.ts'

export type JitType = 'creation-deletion' | 'enable-disable'
export type Action = 'create' | 'delete' | 'enable' | 'disable'

export const actionsOf: Readonly<Record<JitType, readonly [Action, Action]>> = {
  'creation-deletion': ['create', 'delete'], 'enable-disable': ['enable', 'disable']
}
export const allActions: readonly Action[] = ['create', 'delete', 'enable', 'disable']

/** How a stored secret reads; sent back it means "as it is". */
export const keptSecret = '<secret>'

export type Declaration = TemplateBodyJson['variables'][0]

export interface Draft {
  name: string
  target: string
  username: string
  /** Empty: as it is, where one is stored. */
  password: string
  privateKey: string
  hasPassword: boolean
  hasPrivateKey: boolean
  enabled: boolean
  type: JitType
  useOwn: boolean
  authentication: string
  choices: Readonly<Record<Action, Choice>>
  /** Lists have one value a line. */
  variables: Readonly<Record<string, string>>
  maxSession: string
  namePrefix: string
}

export interface Choice {
  plugin: string
  template: string
}

interface JitDocument {
  enabled?: boolean
  type?: JitType
  useOwnCredential?: boolean
  authenticationCredential?: string
  variables?: Record<string, unknown>
  maxSession?: string
  namePrefix?: string
  [action: string]: unknown
}

const noChoice: Choice = { plugin: '', template: '' }

/** The form of a stored document; of a new one when there is none. */
export function draftOf(document: Readonly<Record<string, unknown>> = {}): Draft {
  const text = (value: unknown): string => typeof value === 'string' ? value : ''
  const jit = (document['jit'] ?? {}) as JitDocument
  return {
    name: text(document['name']), target: text(document['target']), username: text(document['username']),
    password: '', privateKey: '',
    hasPassword: document['password'] !== undefined, hasPrivateKey: document['privateKey'] !== undefined,
    enabled: jit.enabled === true, type: jit.type ?? 'creation-deletion',
    useOwn: jit.useOwnCredential === true, authentication: text(jit.authenticationCredential),
    choices: Object.fromEntries(allActions.map(action =>
      [action, { ...noChoice, ...jit[action] as Choice | undefined }])) as Record<Action, Choice>,
    variables: textsOf(jit.variables),
    maxSession: text(jit.maxSession), namePrefix: text(jit.namePrefix)
  }
}

/** What the form means; `declared` says which variables are lists and numbers. */
export function documentOf(draft: Draft, declared: readonly Declaration[]): Document {
  const { name, target, username, hasPassword, hasPrivateKey } = draft
  const secret = (typed: string, has: boolean): unknown =>
    typed === '' ? has ? keptSecret : undefined : { value: typed }
  return {
    kind: 'credential', name, target,
    ...given({
      username, password: secret(draft.password, hasPassword),
      privateKey: secret(draft.privateKey, hasPrivateKey), jit: jitOf(draft, declared)
    })
  }
}

function jitOf(draft: Draft, declared: readonly Declaration[]): Record<string, unknown> | undefined {
  const { enabled, type, useOwn, authentication, choices, maxSession, namePrefix } = draft
  const chosen = actionsOf[type].filter(action => choices[action].plugin !== '')
  if (!enabled && chosen.length < 2) return undefined
  return {
    enabled, type, useOwnCredential: useOwn,
    ...given({ authenticationCredential: useOwn ? '' : authentication }),
    ...Object.fromEntries(chosen.map(action => [action, choices[action]])),
    variables: variablesOf(draft, declared),
    ...given({ maxSession, namePrefix: type === 'creation-deletion' ? namePrefix : '' })
  }
}

/** Variables as fields hold them. */
export function textsOf(variables: Readonly<Record<string, unknown>> = {}): Record<string, string> {
  return Object.fromEntries(Object.entries(variables).map(([name, value]) =>
    [name, Array.isArray(value) ? value.join('\n') : String(value)]))
}

export function variablesOf(
  { variables }: Pick<Draft, 'variables'>, declared: readonly Declaration[]
): Record<string, string | number | string[]> {
  const byName = new Map(declared.map(each => [each.name, each]))
  return Object.fromEntries(Object.entries(variables).filter(([, text]) => text.trim() !== '')
    .map(([name, text]) => [name, valueOf(text, byName.get(name))]))
}

function valueOf(text: string, declaration: Declaration | undefined): string | number | string[] {
  const lines = text.split('\n').map(line => line.trim()).filter(line => line !== '')
  if (declaration?.list ?? text.includes('\n')) return lines
  // A number where the template's own default is one.
  return typeof declaration?.default === 'number' && /^-?\d{1,15}$/.test(text.trim()) ? Number(text) : text
}

/** Without what is empty. */
function given(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== ''))
}
