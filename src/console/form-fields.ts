// The forms of what admins declare, as a table: which fields there are for each kind, and where in the
// document each stands. What a form does not show stays in the document as it was stored; what is wrong with
// a value, the server says. Credentials have a form of their own (credential-form.ts).

export type FormKind = 'grant' | 'profile' | 'target' | 'user' | 'environment' | 'application' | 'secret'

/** Lists whose names a field offers while somebody types. */
export type Offered =
  'user' | 'credential' | 'application' | 'environment' | 'target' | 'profile' | 'secret' | 'template' |
  'plugin' | 'zone'

export interface FormField {
  /** In the document: `approval.count`; in a row of `rows`: in that row. */
  path: string
  label: string
  /**
   * `list`: names with commas; `lines`: one text a line; `several`: any of the choices; `whether`: yes, no or
   * neither; `secret`: never shown, and kept while it is empty; `rows`: as often as somebody likes, with
   * fields of their own; `variables`: those of the templates.
   */
  as: 'text' | 'list' | 'lines' | 'switch' | 'number' | 'several' | 'whether' | 'secret' | 'rows' |
    'variables'
  choices?: readonly string[]
  offers?: Offered
  /** Only templates for this action, of the plugin that another field names. */
  fits?: { action: 'create' | 'delete', plugin: string }
  hint?: string
  /** Of a switch: it is on where the document says nothing. */
  isOn?: true
  /** Shown, and meant, only while another field of the form, or of the row, is one of these. */
  when?: { path: string, is: readonly string[] }
  /** A part of the name: another one would be another resource. */
  isName?: true
  /** Decides what is shown, and stands in no document. */
  isAside?: true
  rows?: {
    /** `rule`: of one row. */
    noun: string
    fields: readonly FormField[]
    /** What a new one begins with. */
    fresh: Readonly<Record<string, string>>
    /** The rows are a map, and this field is the key … */
    key?: string
    /** … and this one the value, where that is no map itself. */
    value?: string
  }
}

const channels = 'such as shell, exec, sftp, download, local-forward; empty: shell, commands and files'
const kinds = 'such as delete-without-where, drop, grant, copy-program, unparsed; empty: all'
const workDays = 'mon, tue, wed, thu, fri'

const approval = (first: string): FormField[] => [
  { path: 'approval.by', label: 'Approvers', as: 'list', offers: 'user', hint: first },
  { path: 'approval.count', label: 'Approvals needed', as: 'number' },
  { path: 'approval.validFor', label: 'An approval lasts', as: 'text', hint: 'such as 4h' },
  { path: 'approval.waitFor', label: 'A client waits', as: 'text', hint: 'such as 5m' }
]

const windowFields: readonly FormField[] = [
  {
    path: 'days', label: 'Days', as: 'several', choices: ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun']
  },
  { path: 'from', label: 'From', as: 'text', hint: 'such as 08:00' },
  { path: 'to', label: 'To', as: 'text', hint: 'such as 18:00; an earlier one is that of the next day' },
  { path: 'zone', label: 'Time zone', as: 'text', offers: 'zone', hint: 'such as Europe/Zurich' }
]

const ruleFields: readonly FormField[] = [
  { path: 'on', label: 'About', as: 'text', choices: ['sql', 'command', 'file'] },
  {
    path: 'kind', label: 'Kinds of statements', as: 'list', hint: kinds, when: { path: 'on', is: ['sql'] }
  },
  {
    path: 'pattern', label: 'Pattern', as: 'text', hint: 'a regular expression; empty: all',
    when: { path: 'on', is: ['sql', 'command'] }
  },
  {
    path: 'direction', label: 'Direction', as: 'text', choices: ['upload', 'download'],
    when: { path: 'on', is: ['file'] }
  },
  {
    path: 'path', label: 'Path', as: 'text', hint: 'such as /etc/** or *.key; empty: all',
    when: { path: 'on', is: ['file'] }
  },
  { path: 'then', label: 'Then', as: 'text', choices: ['allow', 'warn', 'approve', 'refuse', 'end'] },
  ...approval('who has to agree').map((field): FormField =>
    ({ ...field, when: { path: 'then', is: ['approve'] } }))
]

const issued = { path: 'sort', is: ['provider', 'profile', 'linked'] } as const
const made = { path: 'sort', is: ['provider', 'linked'] } as const
const only = (...is: string[]): NonNullable<FormField['when']> => ({ path: 'sort', is })

/** Of a secret: which sort it is decides about the others. */
const secretFields: readonly FormField[] = [
  {
    path: 'sort', label: 'Sort', as: 'text', choices: ['static', 'provider', 'profile', 'linked'],
    isAside: true, isName: true,
    hint: 'static: values; provider: accounts on a target; profile, linked: as those say'
  },
  {
    path: 'environment', label: 'Environment', as: 'text', offers: 'environment', isName: true,
    hint: 'the first part of its path'
  },
  { path: 'path', label: 'Folders', as: 'text', isName: true, hint: 'such as apps/orders; may be empty' },
  { path: 'description', label: 'Description', as: 'text' },
  {
    path: 'attributes.type', label: 'Base for linked secrets (plugin)', as: 'text', offers: 'plugin',
    hint: 'then it has host, username and password', when: only('static')
  },
  {
    path: 'data', label: 'Values', as: 'rows', when: only('static'),
    rows: {
      noun: 'value', key: 'key', value: 'value', fresh: {},
      fields: [
        { path: 'key', label: 'Key', as: 'text', hint: 'such as API_KEY' },
        { path: 'value', label: 'Value', as: 'secret' }
      ]
    }
  },
  {
    path: 'attributes.linkConfig.linkedSecret', label: 'Base secret', as: 'text', offers: 'secret',
    when: only('linked')
  },
  { path: 'provider', label: 'Provider (plugin)', as: 'text', offers: 'plugin', when: only('provider') },
  { path: 'profile', label: 'Profile', as: 'text', offers: 'profile', when: only('profile') },
  { path: 'target', label: 'Target', as: 'text', offers: 'target', when: only('provider', 'profile') },
  {
    path: 'authenticationCredential', label: 'Authentication credential', as: 'text', offers: 'credential',
    hint: 'a standing one of the same target', when: only('provider')
  },
  {
    path: 'create', label: 'Creation template', as: 'text', offers: 'template', when: made,
    fits: { action: 'create', plugin: 'provider' }
  },
  {
    path: 'delete', label: 'Removal template', as: 'text', offers: 'template', when: made,
    fits: { action: 'delete', plugin: 'provider' }
  },
  { path: 'ttl', label: 'Lifetime', as: 'text', hint: 'such as 15m; an hour when empty', when: issued },
  { path: 'maxTtl', label: 'At the most', as: 'text', hint: 'with all renewals; such as 24h', when: issued },
  { path: 'namePrefix', label: 'Prefix of names', as: 'text', hint: 'seven digits follow', when: issued },
  { path: 'variables', label: 'Variables of the templates', as: 'variables', when: made },
  {
    path: 'outputs', label: 'Names of the values', as: 'rows', when: issued,
    hint: 'What is not named here keeps its own name.',
    rows: {
      noun: 'name', key: 'field', fresh: {},
      fields: [
        { path: 'field', label: 'Value', as: 'text', hint: 'such as username, password, host, port' },
        { path: 'key', label: 'Is called', as: 'text', hint: 'such as PGUSER' },
        { path: 'masked', label: 'Masked', as: 'whether', hint: 'else only what is secret' }
      ]
    }
  },
  {
    path: 'renewal.ephemeralCredentials', label: 'Renew ephemeral credentials', as: 'number', when: issued,
    hint: 'each so many minutes; empty: never'
  },
  {
    path: 'renewal.credentials', label: 'Renew credentials', as: 'number', hint: 'likewise', when: issued
  },
  {
    path: 'renewal.cloudCredentials', label: 'Renew cloud credentials', as: 'number', hint: 'likewise',
    when: issued
  },
  {
    path: 'renewal.overlap', label: 'The old one still works', as: 'text', hint: 'such as 10m', when: issued
  },
  {
    path: 'renewal.confirmed', label: 'Those who use it follow renewals', as: 'switch', when: issued,
    hint: 'nothing is renewed before that'
  }
]

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
    ...approval('empty: nobody is asked'),
    { path: 'emergency', label: 'May be opened in an emergency, and reviewed afterwards', as: 'switch' },
    { path: 'copyFiles', label: 'Keep copies of transferred files', as: 'switch' },
    { path: 'replication', label: 'Replication connections', as: 'switch' },
    {
      path: 'windows', label: 'Windows', as: 'rows', hint: 'Days and hours at which it counts; none: always.',
      rows: {
        noun: 'window', fields: windowFields,
        fresh: { days: workDays, from: '08:00', to: '18:00', zone: zoneHere() }
      }
    },
    {
      path: 'rules', label: 'Rules', as: 'rows',
      hint: 'What may be done in a session: the first that fits decides, and what none fits is allowed.',
      rows: { noun: 'rule', fields: ruleFields, fresh: { on: 'sql', then: 'refuse' } }
    }
  ],
  profile: [
    { path: 'status', label: 'Status', as: 'text', choices: ['active', 'inactive'] },
    { path: 'type', label: 'Type (plugin)', as: 'text', offers: 'plugin' },
    {
      path: 'registeredCredential', label: 'Registered credential', as: 'text', offers: 'credential',
      hint: 'opens all devices; or the user name below'
    },
    { path: 'credentialUsername', label: 'Credential user name', as: 'text', hint: 'found on each device' },
    {
      path: 'create', label: 'Creation template', as: 'text', offers: 'template',
      fits: { action: 'create', plugin: 'type' }
    },
    {
      path: 'delete', label: 'Removal template', as: 'text', offers: 'template',
      fits: { action: 'delete', plugin: 'type' }
    },
    { path: 'roles', label: 'Roles', as: 'list' },
    { path: 'ttl', label: 'Lifetime', as: 'text', hint: 'seconds, or such as 1h; an hour when empty' }
  ],
  target: [
    {
      path: 'protocol', label: 'Protocol', as: 'text',
      choices: ['postgres', 'ssh', 'tcp', 'mysql', 'mssql', 'oracle', 'redis', 'ldap', 'http']
    },
    { path: 'address', label: 'Address', as: 'text', hint: 'host:port' },
    { path: 'database', label: 'Database', as: 'text', hint: 'where hooks connect' },
    {
      path: 'tls.mode', label: 'TLS', as: 'text', choices: ['disable', 'require', 'verify-ca', 'verify-full']
    },
    { path: 'tls.ca', label: 'Authorities (PEM)', as: 'text' },
    { path: 'hostKeys', label: 'Host keys (SSH)', as: 'lines', hint: 'one a line; empty: learnt at first' }
  ],
  user: [
    { path: 'roles', label: 'Roles', as: 'several', choices: ['user', 'auditor', 'admin'] },
    { path: 'password', label: 'Password', as: 'secret' },
    { path: 'publicKeys', label: 'Public keys (SSH)', as: 'lines', hint: 'one a line' },
    { path: 'requireTouch', label: 'Security keys must be touched', as: 'switch', isOn: true },
    { path: 'requirePin', label: 'Security keys must ask for a PIN or a finger', as: 'switch' },
    {
      path: 'rolesFromGroups', label: 'Roles are those of the identity provider', as: 'switch',
      hint: 'as of the last login there'
    },
    { path: 'disabled', label: 'Disabled: cannot log in', as: 'switch' }
  ],
  environment: [{ path: 'description', label: 'Description', as: 'text' }],
  application: [
    { path: 'description', label: 'Description', as: 'text' },
    {
      path: 'networks', label: 'Networks', as: 'list', hint: 'it comes from, such as 10.0.0.0/8; empty: any'
    },
    { path: 'disabled', label: 'Disabled: its tokens count for nothing', as: 'switch' }
  ],
  secret: secretFields
}

export const formKinds = Object.keys(formFields) as readonly FormKind[]

function zoneHere(): string {
  return Intl.DateTimeFormat().resolvedOptions().timeZone
}
