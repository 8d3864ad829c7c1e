// What admins declare of secrets outside sessions, as the rooms see it, and who may have them: environments
// with paths in them, static secrets, dynamic ones that make a new account at each reading, the profiles and
// base secrets that these rest on, and applications. Values appear only as references to sealed ones. Whether
// somebody may have a secret is decided here, from grants, by a pure function.
import { SallyportError } from '../errors.ts'
import type { Declared, GrantRule, Role, SecretReference } from './types.ts'

export interface Environment {
  name: string
  description?: string | undefined
}

interface Definition {
  /** Where it is: `environment/folder/…/name`; unique (S1). */
  name: string
  environment: string
  /** Between environment and name: `apps/orders`, or nothing. */
  folder: string
  description?: string | undefined
  /** S8: its leases are being revoked; it issues nothing and disappears when all are proved gone. */
  deleting?: boolean | undefined
}

/** One set of values that a static secret had, has, or (the last one) is read as. */
export interface SecretVersion {
  version: number
  secret: string
  keys: readonly string[]
  /** ISO 8601. */
  createdAt: string
  createdBy: string
}

/** Values that an admin gave. With a `provider` it is a base: linked secrets make accounts by it (L1). */
export interface StaticSecret extends Definition {
  type: 'static'
  provider?: string | undefined
  keys: readonly string[]
  /** The newest version: a sealed JSON object of texts. */
  data?: SecretReference | undefined
  /** Oldest first; the newest is `data`. */
  versions?: readonly SecretVersion[] | undefined
}

export type TemplateVariables = Record<string, string | number | readonly string[]>

/** What runs on the target at each reading and at the end of the lease. */
export interface Provisioning {
  /** Id of a plugin. */
  provider: string
  create: string
  delete: string
  variables: TemplateVariables
}

/** Where a dynamic secret makes its accounts, and by what. */
export type Source =
  | Provisioning & { kind: 'target', target: string, authenticationCredential: string }
  | { kind: 'profile', profile: string, target: string }
  /** L1: at the place and as the account that a base secret says. */
  | Omit<Provisioning, 'provider'> & { kind: 'link', linkedSecret: string }

/** One value of a lease: what the provider calls it, and the key that it is handed out under. */
export interface Output {
  field: OutputField
  key: string
  /** Consoles and terminals hide it until somebody asks. */
  masked: boolean
}

/** `username`, `password`, `privateKey`, `host`, `port`, `database`, or what a template says that it made. */
export type OutputField = string
export const outputFieldPattern = /^[a-z][A-Za-z0-9_]{0,62}$/
/** Fields that are no secret; all others are masked unless the secret says otherwise. */
export const plainFields: readonly OutputField[] = ['username', 'host', 'port', 'database']

/** R1: which credentials are renewed, each switched on by itself, in minutes between two renewals. */
export const renewalSwitches = ['cloudCredentials', 'ephemeralCredentials', 'credentials'] as const
export type RenewalSwitch = typeof renewalSwitches[number]

export interface Renewal {
  /** Those that are switched on; which one counts, the kind of credentials that the provider makes says. */
  minutes: Partial<Record<RenewalSwitch, number>>
  /** How long the credential before stays valid (R2). */
  overlapSeconds: number
  /** R3: somebody has said that the applications follow; nothing is renewed before. */
  confirmed: boolean
}

export interface DynamicSecret extends Definition {
  type: 'dynamic'
  source: Source
  /** Prefix of the accounts' names. */
  namePrefix: string
  /** The profile's when absent. */
  ttlSeconds?: number | undefined
  maxTtlSeconds: number
  /** All that the provider gives, under their own names, when empty. */
  outputs: readonly Output[]
  renewal?: Renewal | undefined
  /** R3: who confirmed it, and when. */
  confirmation?: { by: string, at: string } | undefined
}

export type SecretDefinition = StaticSecret | DynamicSecret

/** P1. Exactly one of `registeredCredential` and `credentialUsername`. */
export interface Profile extends Provisioning {
  /** The identifier. */
  name: string
  /** Drawn when it is first applied. */
  id?: string | undefined
  active: boolean
  /** Authenticates on all targets. */
  registeredCredential?: string | undefined
  /** Of each target, the credential with this user name authenticates there. */
  credentialUsername?: string | undefined
  ttlSeconds: number
}

/** A machine identity; its tokens are apart, `apply` neither shows nor touches them. */
export interface Application {
  name: string
  description?: string | undefined
  /** Its tokens count only from these (CIDR); from anywhere when absent. */
  networks?: readonly string[] | undefined
  disabled: boolean
}

/** A person or an application that asks for a secret. */
export interface Holder {
  kind: 'user' | 'application'
  name: string
  roles: readonly Role[]
}

const cloudProviders: readonly string[] = ['aws', 'azure', 'gcp']

/** R1: the kind of credentials that a provider makes. */
export function switchOf(provider: string): RenewalSwitch {
  return cloudProviders.includes(provider) ? 'cloudCredentials' : 'ephemeralCredentials'
}

/** The plugin behind a dynamic secret; undefined when what it rests on is not declared. */
export function providerOf(declared: Declared, { source }: DynamicSecret): string | undefined {
  if (source.kind === 'target') return source.provider
  if (source.kind === 'profile') return declared.profiles.get(source.profile)?.provider
  const base = declared.secrets.get(source.linkedSecret)
  return base?.type === 'static' ? base.provider : undefined
}

const segmentPattern = /^[a-z0-9][a-z0-9_.-]{0,62}$/
const pathCharactersMax = 255

/** `prod:apps/orders` → `prod/apps/orders`: both separators are read alike (L1). Undefined: no path. */
export function readSecretPath(text: string): string | undefined {
  const path = text.replaceAll(':', '/').replace(/^\//, '')
  if (path.length > pathCharactersMax || !path.includes('/')) return undefined
  return path.split('/').every(segment => segmentPattern.test(segment)) ? path : undefined
}

/** A grant's pattern: a path, or `environment/folder/*` for all below. Undefined when it is neither. */
export function readSecretPattern(text: string): string | undefined {
  const plain = text.replaceAll(':', '/')
  if (!plain.endsWith('/*')) return readSecretPath(plain)
  const folder = plain.slice(0, -2)
  const isFolder = segmentPattern.test(folder) || readSecretPath(folder) !== undefined
  return isFolder ? plain.replace(/^\//, '') : undefined
}

export function covers(pattern: string, path: string): boolean {
  return pattern.endsWith('/*') ? path.startsWith(pattern.slice(0, -1)) : pattern === path
}

/** The last part of a path: what a lease is called when nobody names it (S2). */
export function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

/**
 * Until when a holder may have a secret; `Infinity` without an end. Admins may have all. Throws `not-found`
 * alike for a secret that is not there and for one that is not theirs.
 */
export function authoriseSecret(declared: Declared, holder: Holder, path: string, now: Date): number {
  const secret = declared.secrets.get(path)
  if (secret !== undefined && holder.roles.includes('admin')) return Infinity
  const ends = secret !== undefined && isStanding(declared, holder)
    ? declared.grants
      .filter(rule => includes(rule, holder) && isOpen(rule, now) && coversSecret(rule, secret))
      .map(({ notAfter }) => notAfter === undefined ? Infinity : Date.parse(notAfter))
    : []
  if (ends.length > 0) return Math.max(...ends)
  throw new SallyportError('not-found', { detail: `no secret ${path} for ${holder.kind} ${holder.name}` })
}

/** Whether a holder may have a secret now. */
export function mayHave(declared: Declared, holder: Holder, path: string, now: Date): boolean {
  try {
    authoriseSecret(declared, holder, path, now)
    return true
  } catch {
    return false
  }
}

function isStanding({ users, applications }: Declared, { kind, name }: Holder): boolean {
  const known = kind === 'user' ? users.get(name) : applications.get(name)
  return known !== undefined && !known.disabled
}

function includes({ users, applications = [] }: GrantRule, { kind, name }: Holder): boolean {
  return (kind === 'user' ? users : applications).includes(name)
}

// A base secret opens the target itself: it is in no folder's grant, only in one that names it.
function coversSecret({ secrets = [] }: GrantRule, secret: SecretDefinition): boolean {
  const isBase = secret.type === 'static' && secret.provider !== undefined
  return secrets.some(pattern => covers(pattern, secret.name) && !(isBase && pattern.endsWith('/*')))
}

function isOpen({ notBefore, notAfter }: GrantRule, now: Date): boolean {
  const at = now.getTime()
  return (notBefore === undefined || Date.parse(notBefore) <= at)
    && (notAfter === undefined || at < Date.parse(notAfter))
}

/**
 * S9: the end of a lease's whole lifetime as its definition says now; what it was made with where that is
 * gone. One that grew does not outlive what gives its owner the secret.
 */
export function endToday(
  declared: Declared, holder: Holder,
  { credential, createdAt, maxAt }: { credential: string, createdAt: Date, maxAt: Date }, now: Date
): Date {
  const secret = declared.secrets.get(credential)
  if (secret?.type !== 'dynamic') return maxAt
  const todayMs = createdAt.getTime() + secret.maxTtlSeconds * 1000
  if (todayMs <= maxAt.getTime()) return new Date(todayMs)
  if (!mayHave(declared, holder, credential, now)) return maxAt
  const grantMs = authoriseSecret(declared, holder, credential, now)
  return new Date(Math.max(maxAt.getTime(), Math.min(todayMs, grantMs)))
}
