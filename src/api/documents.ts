// The YAML documents that admins write, one schema for each kind: strict, so that a mistyped key is a
// problem with its path and not a setting that silently does nothing. What comes out has the shape that is
// stored (policy/types), with the secrets set aside; `documentOf` is the way back, for `get`, with
// `<secret>` where a secret stands. References to other resources are not looked at here: they need the
// store (resources.ts).
import { z } from 'zod'
import { duration, printAddress, printDuration, quote, readAddress } from '../input.ts'
import { readSecretPath, readSecretPattern } from '../policy/secrets.ts'
import type { Application, Environment, Profile, SecretDefinition } from '../policy/secrets.ts'
import { channelKinds, defaultPorts } from '../policy/types.ts'
import type { Credential, GrantRule, JitSetting, JitType, Target, User } from '../policy/types.ts'
import type { Action } from '../jit/plugin.ts'
import { agreementProblems, approval, approvalDocument, windows } from './document-grants.ts'
import { rules, rulesDocument } from './document-rules.ts'
import {
  defaultNamePrefix, defined, instant, listItemsMax, namePrefix, names, publicKey, resourceName, secret,
  shownSecret, templateName, text, variables
} from './document-parts.ts'
import type { SecretInput, SecretInputs } from './document-parts.ts'
import { secretDocuments, secretSchemas } from './documents-secrets.ts'

export const resourceKinds = [
  'target', 'credential', 'user', 'grant', 'environment', 'secret', 'profile', 'application'
] as const
export type ResourceKind = typeof resourceKinds[number]

export interface Specs {
  target: Target
  credential: Credential
  user: User
  grant: GrantRule
  environment: Environment
  secret: SecretDefinition
  profile: Profile
  application: Application
}

/**
 * A document that has been read: what is to be stored, and the secrets that belong to it, by field of the
 * document.
 */
export interface Wanted<K extends ResourceKind = ResourceKind> {
  kind: K
  name: string
  spec: Specs[K]
  secrets: Partial<Record<SecretField, SecretInput | SecretInputs>>
  /** What was left out, and why that is right: shown, never a reason to refuse. */
  notes: readonly string[]
}

export type SecretField = 'password' | 'privateKey' | 'data'

/** Where the reference to a sealed secret stands in the stored spec. */
export const secretPlaces: Readonly<Record<ResourceKind, Partial<Record<SecretField, string>>>> = {
  target: {},
  credential: { password: 'password', privateKey: 'privateKey' },
  user: { password: 'verifier' },
  grant: {},
  environment: {},
  secret: { data: 'data' },
  profile: {},
  application: {}
}

/** The name that a resource is stored under: a secret's is its path. Undefined when it has none. */
export function rowNameOf(kind: string, document: Readonly<Record<string, unknown>>): string | undefined {
  const { name, environment, path } = document
  if (typeof name !== 'string') return undefined
  if (kind !== 'secret') return name
  const folder = typeof path === 'string' ? `${path}/` : ''
  return readSecretPath(`${String(environment)}/${folder}${name}`.replaceAll(/[:/]+/g, '/')) ?? name
}

/** The two actions of each type, and the keys under which a document names them (J2). */
export const actionsOf: Readonly<Record<JitType, readonly [Action, Action]>> = {
  'creation-deletion': ['create', 'delete'],
  'enable-disable': ['enable', 'disable']
}

// A JIT session without a limit of its own ends after a working day (J13).
export const defaultJitSessionSeconds = 28_800
// Names that the audit uses for ourselves.
const reservedUserNames = ['local', 'system', 'first-admin', 'identity-provider']

/** PostgreSQL would cut a longer one in silence. */
const postgresNameMax = 63

/** What belongs to a target of each protocol; the rest of these fields is refused. */
const targetFields: Readonly<Record<Target['protocol'], readonly ('database' | 'tls' | 'hostKeys')[]>> = {
  postgres: ['database', 'tls'], ssh: ['hostKeys'], tcp: ['database', 'tls'], mysql: ['tls'],
  mssql: ['database', 'tls'], oracle: ['database', 'tls'], redis: ['tls'], ldap: ['database', 'tls'],
  http: ['tls']
}

const target = z.strictObject({
  kind: z.literal('target'),
  name: resourceName,
  protocol: z.enum(['postgres', 'ssh', 'tcp', 'mysql', 'mssql', 'oracle', 'redis', 'ldap', 'http']),
  address: text,
  database: z.string().min(1).max(255).optional(),
  tls: z.strictObject({
    mode: z.enum(['disable', 'require', 'verify-ca', 'verify-full']).default('verify-full'),
    ca: text.optional(),
    serverName: text.optional()
  }).optional(),
  hostKeys: z.array(publicKey).max(listItemsMax).optional()
}).transform((read, context): Wanted<'target'> => {
  const { name, protocol } = read
  const address = readAddress(read.address, defaultPorts[protocol])
  if (address === undefined || address.port === 0) {
    const message = 'expected host:port, for example 10.0.0.5:5432'
    context.addIssue({ code: 'custom', path: ['address'], message })
    return z.NEVER
  }
  if (protocol === 'postgres' && (read.database?.length ?? 0) > postgresNameMax) {
    context.addIssue({ code: 'custom', path: ['database'], message: `longer than ${postgresNameMax}` })
  }
  const fields = targetFields[protocol]
  for (const field of ['database', 'tls', 'hostKeys'] as const) {
    if (read[field] === undefined || fields.includes(field)) continue
    context.addIssue({ code: 'custom', path: [field], message: `does not belong to a ${protocol} target` })
  }
  if (protocol === 'oracle' && read.database === undefined) {
    context.addIssue({ code: 'custom', path: ['database'], message: 'expected the name of the service' })
  }
  const spec: Target = {
    name, protocol, ...address,
    database: read.database ?? (protocol === 'postgres' ? 'postgres' : ''),
    // Of a TCP target it is for hooks only, and not every target has some.
    tls: defined(read.tls ?? {
      mode: fields.includes('tls') && protocol !== 'tcp' ? 'verify-full' as const : 'disable' as const
    }),
    ...(read.hostKeys === undefined ? {} : { hostKeys: read.hostKeys })
  }
  return { kind: 'target', name, spec, secrets: {}, notes: [] }
})

const choice = z.strictObject({ plugin: resourceName, template: templateName })
const jit = z.strictObject({
  enabled: z.boolean(),
  type: z.enum(['creation-deletion', 'enable-disable']).optional(),
  useOwnCredential: z.boolean().default(false),
  authenticationCredential: resourceName.optional(),
  // Which pair is looked at depends on the type (J2), so what is in them is read below.
  create: z.unknown().optional(),
  delete: z.unknown().optional(),
  enable: z.unknown().optional(),
  disable: z.unknown().optional(),
  variables: variables.default({}),
  maxSession: duration.default(defaultJitSessionSeconds),
  namePrefix: namePrefix.default(defaultNamePrefix)
}).transform((read, context): { setting: JitSetting | undefined, notes: string[] } => {
  const { enabled, type, useOwnCredential, authenticationCredential } = read
  const problem = (path: PropertyKey[], message: string): void =>
    context.addIssue({ code: 'custom', path, message })
  if (type === undefined) {
    if (enabled) problem(['type'], 'is missing: creation-deletion or enable-disable')
    return { setting: undefined, notes: enabled ? [] : ['jit is not enabled and has no type: not stored'] }
  }
  const actions: Partial<Record<Action, z.output<typeof choice>>> = {}
  for (const action of actionsOf[type]) {
    if (read[action] === undefined) {
      if (enabled) problem([action], 'is missing: {plugin: …, template: …}')
      continue
    }
    const picked = choice.safeParse(read[action])
    if (picked.success) {
      actions[action] = picked.data
      continue
    }
    for (const issue of picked.error.issues) {
      context.addIssue({ ...issue, path: [action, ...issue.path] } as never)
    }
  }
  if (useOwnCredential && authenticationCredential !== undefined) {
    problem(['authenticationCredential'], 'does not go together with useOwnCredential')
  }
  if (enabled && !useOwnCredential && authenticationCredential === undefined) {
    problem(['authenticationCredential'], 'is missing: needed unless useOwnCredential is true')
  }
  const others = (['create', 'delete', 'enable', 'disable'] as const)
    .filter(action => !actionsOf[type].includes(action) && read[action] !== undefined)
  const setting: JitSetting = {
    enabled, type, useOwnCredential, ...defined({ authenticationCredential }), actions,
    variables: read.variables, maxSessionSeconds: read.maxSession, namePrefix: read.namePrefix
  }
  return { setting, notes: others.map(action => `jit.${action} does not belong to ${type}: not stored`) }
})

const credential = z.strictObject({
  kind: z.literal('credential'),
  name: resourceName,
  target: resourceName,
  // The account's own name on the target: control characters and NUL are nobody's name.
  username: z.string().regex(/^[^\p{Cc}\p{Cf}]{1,128}$/u, 'expected an account name').optional(),
  password: secret.optional(),
  privateKey: secret.optional(),
  jit: jit.optional()
}).transform((read, context): Wanted<'credential'> => {
  const { name, username, password, privateKey } = read
  const setting = read.jit?.setting
  const need = (field: 'username' | 'password', why: string): void => {
    if (read[field] !== undefined || (field === 'password' && privateKey !== undefined)) return
    context.addIssue({ code: 'custom', path: [field], message: `is missing: needed ${why}` })
  }
  if (setting?.enabled !== true) {
    need('username', 'where jit is not enabled')
    need('password', 'where jit is not enabled')
  } else if (setting.useOwnCredential) {
    need('username', 'with jit.useOwnCredential')
    need('password', 'with jit.useOwnCredential')
  } else if (setting.type === 'enable-disable') {
    need('username', 'as the account that is switched on and off')
  }
  return {
    kind: 'credential', name,
    spec: { name, target: read.target, ...defined({ username, jit: setting }) },
    secrets: defined({ password, privateKey }),
    notes: read.jit?.notes ?? []
  }
})

const user = z.strictObject({
  kind: z.literal('user'),
  name: resourceName.refine(name => !reservedUserNames.includes(name), 'is a reserved name'),
  roles: z.array(z.enum(['user', 'auditor', 'admin'])).min(1).default(['user']),
  password: secret.optional(),
  publicKeys: z.array(publicKey).max(listItemsMax).default([]),
  requireTouch: z.boolean().default(true),
  requirePin: z.boolean().default(false),
  disabled: z.boolean().default(false),
  rolesFromGroups: z.boolean().default(false)
}).transform((read): Wanted<'user'> => ({
  kind: 'user', name: read.name,
  spec: {
    name: read.name, roles: [...new Set(read.roles)], publicKeys: read.publicKeys, disabled: read.disabled,
    // What says nothing else than the default is not stored: older users do not have it either.
    ...read.requireTouch ? {} : { requireTouch: false }, ...read.requirePin ? { requirePin: true } : {},
    ...read.rolesFromGroups ? { rolesFromGroups: true } : {}
  },
  secrets: defined({ password: read.password }),
  notes: []
}))

const secretPattern = z.string().transform((value, context) => {
  const pattern = readSecretPattern(value)
  if (pattern !== undefined) return pattern
  context.addIssue(`expected a path such as prod/orders-rw or prod/apps/*, not ${quote(value)}`)
  return z.NEVER
})

const grant = z.strictObject({
  kind: z.literal('grant'),
  name: resourceName,
  users: names.optional(),
  credentials: names.optional(),
  applications: names.optional(),
  secrets: z.array(secretPattern).max(listItemsMax).optional(),
  notBefore: instant.optional(),
  notAfter: instant.optional(),
  maxSession: duration.optional(),
  replication: z.boolean().default(false),
  databases: z.array(z.string().min(1).max(63)).max(listItemsMax).optional(),
  channels: z.array(z.enum(channelKinds)).max(channelKinds.length).optional(),
  copyFiles: z.boolean().default(false),
  approval: approval.optional(),
  emergency: z.boolean().default(false),
  windows: windows.optional(),
  rules: rules.optional()
}).transform((read, context): Wanted<'grant'> => {
  const { name, notBefore, notAfter, maxSession, replication, databases, channels } = read
  const { applications, secrets } = read
  // To whom and to what: one of the two that there are of each.
  for (const [field, other] of [['users', 'applications'], ['credentials', 'secrets']] as const) {
    if (read[field] === undefined && read[other] === undefined) {
      context.addIssue({ code: 'custom', path: [field], message: 'is missing' })
    }
  }
  if (notBefore !== undefined && notAfter !== undefined && notAfter <= notBefore) {
    context.addIssue({ code: 'custom', path: ['notAfter'], message: 'is not after notBefore' })
  }
  const spec = {
    name, users: read.users ?? [], credentials: read.credentials ?? [], replication,
    ...defined({
      applications, secrets, notBefore, notAfter, maxSessionSeconds: maxSession, databases, channels,
      approval: read.approval, windows: read.windows, rules: read.rules
    }),
    ...read.copyFiles ? { copyFiles: true } : {}, ...read.emergency ? { emergency: true } : {}
  }
  for (const [path, message] of agreementProblems(spec)) context.addIssue({ code: 'custom', path, message })
  return { kind: 'grant', name, spec, secrets: {}, notes: [] }
})

/** One schema for each kind; each gives a `Wanted`. */
export const documentSchemas = { target, credential, user, grant, ...secretSchemas } as const

/** The document of a stored spec, as `get` shows it; applying it again changes nothing. */
export function documentOf<K extends ResourceKind>(kind: K, spec: Specs[K]): Record<string, unknown> {
  return defined({ kind, ...writers[kind](spec) })
}

const writers: { [K in ResourceKind]: (spec: Specs[K]) => Record<string, unknown> } = {
  ...secretDocuments,
  target: ({ name, protocol, host, port, database, tls, hostKeys }) => ({
    name, protocol, address: printAddress({ host, port }),
    database: database === '' ? undefined : database,
    tls: targetFields[protocol].includes('tls') ? tls : undefined,
    hostKeys
  }),
  credential: ({ name, target: of, username, password, privateKey, jit: setting }) => ({
    name, target: of, username,
    password: password === undefined ? undefined : shownSecret,
    privateKey: privateKey === undefined ? undefined : shownSecret,
    jit: setting === undefined ? undefined : documentOfJit(setting)
  }),
  user: ({ verifier, ...rest }) => ({ ...rest, password: verifier === undefined ? undefined : shownSecret }),
  grant: ({ maxSessionSeconds, approval: rule, rules: list, ...rest }) => ({
    ...rest,
    rules: list === undefined ? undefined : rulesDocument(list),
    maxSession: maxSessionSeconds === undefined ? undefined : printDuration(maxSessionSeconds),
    approval: rule === undefined ? undefined : approvalDocument(rule)
  })
}

function documentOfJit(setting: JitSetting): Record<string, unknown> {
  const { enabled, type, useOwnCredential, authenticationCredential, actions, variables: given } = setting
  return defined({
    enabled, type, useOwnCredential, authenticationCredential, ...actions,
    variables: given,
    maxSession: printDuration(setting.maxSessionSeconds),
    namePrefix: setting.namePrefix
  })
}
