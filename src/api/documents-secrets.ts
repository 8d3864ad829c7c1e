// The documents of secrets outside sessions: environments, secrets (static, dynamic, linked), profiles and
// applications. A secret says by its fields what it is: `data` makes it static, `provider` or `profile`
// dynamic, `attributes.linkConfig` dynamic by way of a base secret. What belongs to another sort is refused
// with the field's name, so that nobody believes in a setting that does nothing.
import { z } from 'zod'
import { duration, printDuration, quote } from '../input.ts'
import { outputFieldPattern, plainFields, readSecretPath, renewalSwitches } from '../policy/secrets.ts'
import type {
  Application, DynamicSecret, Environment, Output, OutputField, Profile, Renewal, SecretDefinition,
  Source, StaticSecret
} from '../policy/secrets.ts'
import { renewalOwner } from '../secrets/renewal.ts'
import {
  defaultNamePrefix, defined, namePrefix, readRoles, resourceName, secret, shownSecret, templateName, text,
  variables
} from './document-parts.ts'
import type { SecretInputs } from './document-parts.ts'

/** S2: a shorter lease would be over before anybody has logged in with it. */
export const ttlSecondsMin = 60
const defaultTtlSeconds = 3600
const defaultMaxTtlSeconds = 86_400
/** Values of one secret: a document is read and sealed as a whole. */
const keysMax = 200
const networksMax = 100

const keyName = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/,
  'expected a key of letters, digits and "_", fit for an environment variable')
const description = z.string().max(1000).optional()
// Seconds as a number, or a duration: documents of other products say `ttl: 900`.
const seconds = z.union([z.int().positive(), duration])

interface Read<K, Spec> {
  kind: K
  name: string
  spec: Spec
  secrets: { data?: SecretInputs }
  notes: readonly string[]
}

const environment = z.strictObject({ kind: z.literal('environment'), name: resourceName, description })
  .transform(({ name, description: about }): Read<'environment', Environment> => ({
    kind: 'environment', name, spec: { name, ...defined({ description: about }) }, secrets: {}, notes: []
  }))

const value = z.preprocess(
  given => typeof given === 'string' && given !== shownSecret
    ? { value: given }
    : typeof given === 'number' ? { value: String(given) } : given,
  secret)

const output = z.union([
  keyName.transform(key => ({ key, masked: undefined })),
  z.strictObject({ key: keyName, masked: z.boolean().optional() })
], 'expected the name of a key, or {key: …, masked: …}')

const linkConfig = z.strictObject({
  linkType: z.literal('dynamic', 'there is no other linkType than "dynamic"'),
  linkedSecret: z.string().transform((path, context) => {
    const read = readSecretPath(path)
    if (read !== undefined) return read
    context.addIssue(`expected the path of the base secret, such as prod/orders, not ${quote(path)}`)
    return z.NEVER
  })
})

const attributes = z.strictObject({
  /** Of a base: the plugin that makes accounts with it. */
  type: resourceName.optional(),
  linkConfig: linkConfig.optional(),
  ttl: seconds.optional(),
  maxTtl: seconds.optional(),
  userPrefix: namePrefix.optional(),
  roles: z.union([z.string(), z.array(z.string())]).optional(),
  /** L5: privileges of the account itself, for templates `…-with-grant`. */
  grantPermissions: z.strictObject({
    what: z.union([z.string(), z.array(z.string())]).transform(words => [words].flat().join(',').split(',')
      .map(word => word.trim().replaceAll(/\s+/g, ' ').toUpperCase()).filter(word => word !== '')),
    where: text
  }).optional()
})

// R1: nine minutes are too few for an application to follow.
const renewalMinutesMin = 10
const renewalMinutesMax = 366 * 24 * 60
const defaultOverlapSeconds = 600
const minutes = z.int().min(renewalMinutesMin, `expected minutes, at least ${renewalMinutesMin}`)
  .max(renewalMinutesMax).optional()
const renewalDocument = z.strictObject({
  cloudCredentials: minutes, ephemeralCredentials: minutes, credentials: minutes,
  overlap: seconds.default(defaultOverlapSeconds),
  confirmed: z.boolean().default(false)
})

const outputField = z.string().regex(outputFieldPattern, 'expected the name of a value')
const secretDocument = z.strictObject({
  kind: z.literal('secret'),
  name: resourceName,
  environment: resourceName,
  path: z.string().default(''),
  description,
  data: z.record(keyName, value).optional(),
  attributes: attributes.optional(),
  provider: resourceName.optional(),
  profile: resourceName.optional(),
  target: resourceName.optional(),
  authenticationCredential: resourceName.optional(),
  create: templateName.optional(),
  delete: templateName.optional(),
  variables: variables.optional(),
  namePrefix: namePrefix.optional(),
  ttl: seconds.optional(),
  maxTtl: seconds.optional(),
  outputs: z.record(outputField, output).optional(),
  renewal: renewalDocument.optional()
})
type SecretDocument = z.output<typeof secretDocument>
type Problem = (path: string, message: string) => void

const ownFields = ['provider', 'authenticationCredential', 'create', 'delete'] as const
const issuingFields = ['ttl', 'maxTtl', 'outputs', 'namePrefix', 'renewal'] as const

const sortedFields = [
  'data', 'attributes', 'profile', ...ownFields, 'target', 'variables', ...issuingFields
] as const

/** Which fields a sort of secret has beside its place, and which of them it must have. */
const sorts = {
  static: { may: ['data', 'attributes'], must: [] },
  dynamic: {
    may: ['attributes', ...ownFields, 'target', 'variables', ...issuingFields],
    must: [...ownFields, 'target']
  },
  profile: { may: ['profile', 'target', ...issuingFields], must: ['target'] },
  link: { may: ['data', 'attributes', 'create', 'delete', 'variables', ...issuingFields], must: [] }
} as const
type Sort = keyof typeof sorts
const sortWords: Readonly<Record<Sort, string>> = {
  static: 'a static secret', dynamic: 'a secret with a provider', profile: 'a secret with a profile',
  link: 'a linked secret'
}

function sortOf(read: SecretDocument): Sort {
  if (read.attributes?.linkConfig !== undefined) return 'link'
  if (read.profile !== undefined) return 'profile'
  return read.provider !== undefined ? 'dynamic' : 'static'
}

const secretSchema = secretDocument.transform((read, context): Read<'secret', SecretDefinition> => {
  const sort = sortOf(read)
  const problem: Problem = (path, message) =>
    context.addIssue({ code: 'custom', path: path.split('.'), message })
  const { may, must }: { may: readonly string[], must: readonly string[] } = sorts[sort]
  const given = read as Readonly<Record<string, unknown>>
  for (const field of sortedFields) {
    if (given[field] !== undefined && !may.includes(field)) {
      problem(field, `does not belong to ${sortWords[sort]}`)
    }
    if (given[field] === undefined && must.includes(field)) problem(field, 'is missing')
  }
  const folder = read.path.replaceAll(':', '/').replaceAll(/^\/+|\/+$/g, '')
  const parts = [read.environment, folder, read.name].filter(part => part !== '')
  const name = readSecretPath(parts.join('/'))
  if (name === undefined) problem('path', 'expected folders such as apps/orders')
  const place = {
    name: name ?? read.name, environment: read.environment, folder,
    ...defined({ description: read.description })
  }
  const spec = sort === 'static' ? staticOf(read, place, problem) : dynamicOf(read, sort, place, problem)
  const data = sort === 'static' && read.data !== undefined ? { data: { entries: read.data } } : {}
  const notes = spec.type === 'dynamic' && spec.renewal !== undefined ? renewalNotes(spec.renewal) : []
  return { kind: 'secret', name: place.name, spec, secrets: data, notes }
})

type Place = Pick<SecretDefinition, 'name' | 'environment' | 'folder' | 'description'>

function staticOf(read: SecretDocument, place: Place, problem: Problem): StaticSecret {
  const keys = Object.keys(read.data ?? {}).sort()
  if (keys.length === 0) {
    problem('data', 'is missing: values, or a provider, a profile or attributes.linkConfig for a dynamic one')
  }
  if (keys.length > keysMax) problem('data', `has more than ${keysMax} keys`)
  const { type, ...rest } = read.attributes ?? {}
  for (const field of Object.keys(defined(rest))) {
    problem(`attributes.${field}`, 'does not belong to a static secret')
  }
  if (type !== undefined) {
    for (const key of ['host', 'username', 'password']) {
      if (!keys.includes(key)) problem(`data.${key}`, 'is missing: a base secret logs in with it')
    }
  }
  return { ...place, type: 'static', keys, ...defined({ provider: type }) }
}

function dynamicOf(
  read: SecretDocument, sort: Exclude<Sort, 'static'>, place: Place, problem: Problem
): DynamicSecret {
  const { ttl: linkTtl, maxTtl: linkMax, userPrefix, type, roles, grantPermissions } = read.attributes ?? {}
  if (Object.keys(read.data ?? {}).length > 0) problem('data', 'must be empty: its values are generated')
  if (type !== undefined) problem('attributes.type', 'is that of the base secret')
  const ttlSeconds = read.ttl ?? linkTtl ?? (sort === 'profile' ? undefined : defaultTtlSeconds)
  const maxTtlSeconds = read.maxTtl ?? linkMax ?? Math.max(defaultMaxTtlSeconds, ttlSeconds ?? 0)
  if (ttlSeconds !== undefined && ttlSeconds < ttlSecondsMin) {
    problem('ttl', `must be at least ${ttlSecondsMin}s`)
  }
  if (maxTtlSeconds < (ttlSeconds ?? ttlSecondsMin)) problem('maxTtl', 'is shorter than ttl')
  const given = {
    ...read.variables,
    ...roles === undefined
      ? {}
      : { roles: readRoles(roles, message => problem('attributes.roles', message)) },
    ...grantPermissions === undefined
      ? {}
      : { grant_what: grantPermissions.what, grant_where: grantPermissions.where }
  }
  return {
    ...place, type: 'dynamic', source: sourceOf(read, sort, given),
    namePrefix: read.namePrefix ?? userPrefix ?? defaultNamePrefix,
    maxTtlSeconds, outputs: outputsOf(read.outputs ?? {}, problem),
    ...defined({ ttlSeconds, renewal: renewalOf(read.renewal, maxTtlSeconds, problem) })
  }
}

function renewalOf(
  read: z.output<typeof renewalDocument> | undefined, maxTtlSeconds: number, problem: Problem
): Renewal | undefined {
  if (read === undefined) return undefined
  const { overlap: overlapSeconds, confirmed, ...switches } = read
  const given = Object.values(defined(switches))
  if (given.length === 0) {
    problem('renewal', `is missing one of ${renewalSwitches.join(', ')}: minutes between renewals`)
  }
  if (overlapSeconds > Math.min(...given) * 60) {
    problem('renewal.overlap', 'is longer than the time between renewals')
  }
  // Room for a renewal that succeeds late.
  if (Math.max(...given) * 60 + 2 * overlapSeconds > maxTtlSeconds) {
    problem('maxTtl', 'is too short: the time between renewals and twice the overlap must fit into it')
  }
  return { minutes: defined(switches), overlapSeconds, confirmed }
}

/** R3. */
function renewalNotes({ overlapSeconds, confirmed }: Renewal): string[] {
  const overlap = printDuration(overlapSeconds)
  const warning = `warning: whoever uses it must read it again within ${overlap} of each renewal, or stops `
    + 'working when the old credential is removed'
  return [confirmed ? warning : `${warning}; it is not renewed before renewal.confirmed is true`]
}

function sourceOf(
  read: SecretDocument, sort: Exclude<Sort, 'static'>, given: z.output<typeof variables>
): Source {
  const target = read.target ?? ''
  if (sort === 'profile') return { kind: 'profile', profile: read.profile ?? '', target }
  const templates = { create: read.create ?? '', delete: read.delete ?? '', variables: given }
  if (sort === 'link') {
    const linkedSecret = read.attributes?.linkConfig?.linkedSecret ?? ''
    return {
      kind: 'link', linkedSecret, variables: given,
      create: read.create ?? `postgres/create-role${'grant_what' in given ? '-with-grant' : ''}`,
      delete: read.delete ?? 'postgres/delete-role'
    }
  }
  const authenticationCredential = read.authenticationCredential ?? ''
  return { kind: 'target', provider: read.provider ?? '', target, authenticationCredential, ...templates }
}

function outputsOf(
  read: Readonly<Record<OutputField, z.output<typeof output>>>, problem: Problem
): readonly Output[] {
  const outputs: Output[] = []
  for (const [field, { key, masked }] of Object.entries(read)) {
    const same = outputs.find(other => other.key === key)
    if (same !== undefined) problem(`outputs.${field}`, `${key} is the key of ${same.field} already`)
    outputs.push({ field, key, masked: masked ?? !plainFields.includes(field) })
  }
  return outputs
}

const profileSchema = z.strictObject({
  kind: z.literal('profile'),
  name: resourceName,
  status: z.enum(['active', 'inactive']).default('active'),
  type: resourceName,
  registeredCredential: resourceName.optional(),
  credentialUsername: text.optional(),
  create: templateName,
  delete: templateName,
  roles: z.union([z.string(), z.array(z.string())]).default([]),
  variables: variables.default({}),
  ttl: seconds.default(defaultTtlSeconds)
}).transform((read, context): Read<'profile', Profile> => {
  const { name, registeredCredential, credentialUsername, ttl } = read
  const problem = (path: string, message: string): void =>
    context.addIssue({ code: 'custom', path: [path], message })
  // P2: whoever gives both has to be told which one to take away.
  if (registeredCredential !== undefined && credentialUsername !== undefined) {
    problem('credentialUsername', 'does not go together with registeredCredential')
  }
  if (registeredCredential === undefined && credentialUsername === undefined) {
    problem('registeredCredential', 'is missing: this, or credentialUsername')
  }
  if (ttl < ttlSecondsMin) problem('ttl', `must be at least ${ttlSecondsMin}s`)
  const roles = readRoles(read.roles, message => problem('roles', message))
  const spec: Profile = {
    name, active: read.status === 'active', provider: read.type, create: read.create, delete: read.delete,
    variables: { ...read.variables, ...roles.length === 0 ? {} : { roles } }, ttlSeconds: ttl,
    ...defined({ registeredCredential, credentialUsername })
  }
  return { kind: 'profile', name, spec, secrets: {}, notes: [] }
})

const network = z.union([z.cidrv4(), z.cidrv6()], 'expected a network such as 10.0.0.0/8')

const applicationSchema = z.strictObject({
  kind: z.literal('application'),
  name: resourceName.refine(name => name !== renewalOwner, 'is a reserved name'),
  description,
  networks: z.array(network).min(1).max(networksMax).optional(),
  disabled: z.boolean().default(false)
}).transform((read): Read<'application', Application> => ({
  kind: 'application', name: read.name,
  spec: {
    name: read.name, disabled: read.disabled,
    ...defined({ description: read.description, networks: read.networks })
  },
  secrets: {}, notes: []
}))

export const secretSchemas = {
  environment, secret: secretSchema, profile: profileSchema, application: applicationSchema
} as const

/** The way back, as `get` shows it; applying it again changes nothing. */
export const secretDocuments = {
  environment: ({ name, description: about }: Environment) => ({ name, description: about }),
  secret: (spec: SecretDefinition) =>
    spec.type === 'static' ? documentOfStatic(spec) : documentOfDynamic(spec),
  profile: (
    {
      name, active, provider, variables: given, ttlSeconds, create, delete: remove, id: _, ...access
    }: Profile
  ) => {
    const { roles, ...rest } = given
    return {
      name, status: active ? 'active' : 'inactive', type: provider, ...access, create, delete: remove,
      roles, variables: Object.keys(rest).length === 0 ? undefined : rest, ttl: printDuration(ttlSeconds)
    }
  },
  application: (spec: Application) => ({ ...spec })
}

function placeOf({ name, environment: of, folder, description: about }: Place): Record<string, unknown> {
  const path = folder === '' ? undefined : folder
  return { name: name.slice(name.lastIndexOf('/') + 1), environment: of, path, description: about }
}

function documentOfStatic({ keys, provider, ...place }: StaticSecret): Record<string, unknown> {
  return {
    ...placeOf(place), data: Object.fromEntries(keys.map(key => [key, shownSecret])),
    attributes: provider === undefined ? undefined : { type: provider }
  }
}

function documentOfDynamic(spec: DynamicSecret): Record<string, unknown> {
  const { source, ttlSeconds, maxTtlSeconds, outputs, namePrefix: prefix, renewal } = spec
  const issuing = {
    namePrefix: prefix, maxTtl: printDuration(maxTtlSeconds),
    ttl: ttlSeconds === undefined ? undefined : printDuration(ttlSeconds),
    outputs: outputs.length === 0
      ? undefined
      : Object.fromEntries(outputs.map(({ field, key, masked }) => [field, { key, masked }])),
    renewal: renewal === undefined ? undefined : {
      ...renewal.minutes, overlap: printDuration(renewal.overlapSeconds),
      confirmed: renewal.confirmed
    }
  }
  const { kind, ...fields } = source
  if (kind !== 'link') return { ...placeOf(spec), ...fields, ...issuing }
  const { linkedSecret, ...rest } = source as Extract<Source, { kind: 'link' }>
  const { kind: _, ...templates } = rest
  return {
    ...placeOf(spec), data: {}, attributes: { linkConfig: { linkType: 'dynamic', linkedSecret } },
    ...templates, ...issuing
  }
}
