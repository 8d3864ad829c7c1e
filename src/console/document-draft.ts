// Grants, profiles and targets as a form holds them: which fields there are, and the document that they mean.
// What the form does not show (the hours of a grant, say) stays in the document as it was stored.
import type { Document } from './wrong.ts'

export type FormKind = 'grant' | 'profile' | 'target'
export const formKinds: readonly FormKind[] = ['grant', 'profile', 'target']

export interface FormField {
  /** In the document: `approval.count`. */
  path: string
  label: string
  /** `list`: names with commas; `lines`: one text a line. */
  as: 'text' | 'list' | 'lines' | 'switch' | 'number'
  choices?: readonly string[]
  /** Kind of resource whose names are offered, or templates, or plugins. */
  offers?: 'user' | 'credential' | 'application' | 'template' | 'plugin'
  hint?: string
}

const channels = 'such as shell, exec, sftp, download, local-forward; empty: shell, commands and files'

export const formFields: Readonly<Record<FormKind, readonly FormField[]>> = {
  grant: [
    { path: 'users', label: 'Users', as: 'list', offers: 'user' },
    { path: 'credentials', label: 'Credentials', as: 'list', offers: 'credential' },
    { path: 'applications', label: 'Applications', as: 'list', offers: 'application' },
    { path: 'secrets', label: 'Secrets', as: 'list', hint: 'paths such as prod/orders, or prod/apps/*' },
    { path: 'notBefore', label: 'From', as: 'text', hint: 'an instant such as 2026-01-31T08:00:00Z' },
    { path: 'notAfter', label: 'Until', as: 'text', hint: 'an instant, likewise' },
    { path: 'maxSession', label: 'Longest session', as: 'text', hint: 'such as 2h' },
    { path: 'channels', label: 'SSH channels', as: 'list', hint: channels },
    { path: 'databases', label: 'Databases', as: 'list', hint: 'empty: all' },
    { path: 'approval.by', label: 'Approvers', as: 'list', offers: 'user', hint: 'empty: nobody is asked' },
    { path: 'approval.count', label: 'Approvals needed', as: 'number' },
    { path: 'approval.validFor', label: 'An approval lasts', as: 'text', hint: 'such as 4h' },
    { path: 'approval.waitFor', label: 'A client waits', as: 'text', hint: 'such as 5m' },
    { path: 'emergency', label: 'May be opened in an emergency, and reviewed afterwards', as: 'switch' },
    { path: 'copyFiles', label: 'Keep copies of transferred files', as: 'switch' },
    { path: 'replication', label: 'Replication connections', as: 'switch' }
  ],
  profile: [
    { path: 'status', label: 'Status', as: 'text', choices: ['active', 'inactive'] },
    { path: 'type', label: 'Type (plugin)', as: 'text', offers: 'plugin' },
    {
      path: 'registeredCredential', label: 'Registered credential', as: 'text', offers: 'credential',
      hint: 'opens all devices; or the user name below'
    },
    { path: 'credentialUsername', label: 'Credential user name', as: 'text', hint: 'found on each device' },
    { path: 'create', label: 'Creation template', as: 'text', offers: 'template' },
    { path: 'delete', label: 'Removal template', as: 'text', offers: 'template' },
    { path: 'roles', label: 'Roles', as: 'list' },
    { path: 'ttl', label: 'Lifetime', as: 'text', hint: 'seconds, or such as 1h; an hour when empty' }
  ],
  target: [
    {
      path: 'protocol', label: 'Protocol', as: 'text',
      choices: ['postgres', 'ssh', 'tcp', 'mysql', 'redis', 'ldap', 'http']
    },
    { path: 'address', label: 'Address', as: 'text', hint: 'host:port' },
    { path: 'database', label: 'Database', as: 'text', hint: 'where hooks connect' },
    {
      path: 'tls.mode', label: 'TLS', as: 'text', choices: ['disable', 'require', 'verify-ca', 'verify-full']
    },
    { path: 'tls.ca', label: 'Authorities (PEM)', as: 'text' },
    { path: 'hostKeys', label: 'Host keys (SSH)', as: 'lines', hint: 'one a line; empty: learnt at first' }
  ]
}

/** By path; a switch is `yes` or empty. */
export type Values = Readonly<Record<string, string>>

type Bag = Record<string, unknown>

export function valuesOf(kind: FormKind, document: Readonly<Bag>): Values {
  return Object.fromEntries(formFields[kind].map(({ path, as }) => {
    const value = path.split('.').reduce<unknown>((at, key) => (at as Bag | undefined)?.[key], document)
    if (as === 'switch') return [path, value === true ? 'yes' : '']
    if (Array.isArray(value)) return [path, value.join(as === 'lines' ? '\n' : ', ')]
    return [path, value === undefined || value === null ? '' : String(value)]
  }))
}

export function documentFrom(kind: FormKind, name: string, stored: Readonly<Bag>, values: Values): Document {
  const document: Document = { ...structuredClone(stored), kind, name }
  for (const { path, as } of formFields[kind]) {
    const [first = '', second] = path.split('.')
    const bag = second === undefined ? document : (document[first] ??= {}) as Bag
    const key = second ?? first
    const value = read(as, values[path] ?? '')
    if (value === undefined) delete bag[key]
    else bag[key] = value
    if (second !== undefined && Object.keys(bag).length === 0) delete document[first]
  }
  // Without approvers the rest of it says nothing.
  const approval = document['approval'] as Bag | undefined
  if (kind === 'grant' && approval?.['by'] === undefined) delete document['approval']
  return document
}

function read(as: FormField['as'], text: string): unknown {
  if (text.trim() === '') return undefined
  if (as === 'switch') return true
  if (as === 'text') return text
  if (as === 'number') return /^\d{1,9}$/.test(text.trim()) ? Number(text) : text
  return text.split(as === 'lines' ? '\n' : /[,\n]/).map(each => each.trim()).filter(each => each !== '')
}
