// From a dynamic secret to what has to be run where: the place, the account that authenticates, the pair of
// templates. A profile says it for many targets, a base secret holds it itself. Each thing that is missing is
// its own sentence (P5), and all of them are told, because whoever reads it can mend them in one go.
import { SallyportError } from '../errors.ts'
import type { TargetAddress } from '../jit/plugin.ts'
import type { DynamicSecret, Profile, Provisioning, Source, StaticSecret } from '../policy/secrets.ts'
import { defaultPorts } from '../policy/types.ts'
import type { Credential, Declared, SecretReference, Target } from '../policy/types.ts'
import type { Secret } from '../secret.ts'

export interface Plan extends Provisioning {
  target: TargetAddress
  /** Name of a credential, or path of the base secret. */
  authenticationCredential: string
  /** Used when neither the caller nor the secret says one. */
  ttlSeconds: number | undefined
}

export interface PlanPorts {
  openSecret(reference: SecretReference): Promise<Secret<string>>
  addressOf(target: Target): TargetAddress
}

/**
 * Throws `prerequisite-missing` with every problem. To `look` at the target, a secret or profile that issues
 * nothing any more is no problem.
 */
export async function planOf(
  ports: PlanPorts, declared: Declared, { name, deleting, source }: DynamicSecret,
  purpose: 'issue' | 'look' = 'issue'
): Promise<Plan> {
  if (deleting === true && purpose === 'issue') throw missing(name, [`secret ${name} is being deleted`])
  if (source.kind === 'link') return linkedPlan(ports, declared, name, source)
  const problems: string[] = []
  const target = declared.targets.get(source.target)
  if (target === undefined) problems.push(`target ${source.target} is not declared`)
  const plan = source.kind === 'profile'
    ? profilePlan(declared, source, purpose, problems)
    : {
      provider: source.provider, create: source.create, delete: source.delete, variables: source.variables,
      ttlSeconds: undefined,
      authenticationCredential: standing(declared, source.authenticationCredential, problems)
    }
  if (problems.length > 0 || target === undefined || plan === undefined) throw missing(name, problems)
  return { ...plan, target: ports.addressOf(target) }
}

function missing(secret: string, problems: readonly string[]): SallyportError {
  return new SallyportError('prerequisite-missing', { detail: secret, problems })
}

/** A credential that can log in by itself; its name. */
function standing(declared: Declared, name: string, problems: string[]): string {
  const credential = declared.credentials.get(name)
  if (credential === undefined) problems.push(`credential ${name} is not declared`)
  else if (!canLogIn(credential)) problems.push(`credential ${name} has no user name or no secret`)
  return name
}

function canLogIn({ username, password, privateKey }: Credential): boolean {
  return username !== undefined && (password !== undefined || privateKey !== undefined)
}

function profilePlan(
  declared: Declared, source: Extract<Source, { kind: 'profile' }>, purpose: 'issue' | 'look',
  problems: string[]
): Omit<Plan, 'target'> | undefined {
  const profile = declared.profiles.get(source.profile)
  if (profile === undefined) {
    problems.push(`profile ${source.profile} is not declared`)
    return undefined
  }
  // P3: it issues nothing; what it has issued runs to its end.
  if (!profile.active && purpose === 'issue') problems.push(`profile ${profile.name} is inactive`)
  const { provider, create, delete: remove, variables, ttlSeconds } = profile
  const authenticationCredential = authenticatorOf(declared, profile, source.target, problems)
  return { provider, create, delete: remove, variables, ttlSeconds, authenticationCredential }
}

/** P1: one registered credential for all devices, or the device's own of a user name. */
function authenticatorOf(
  declared: Declared, { name, registeredCredential, credentialUsername }: Profile, target: string,
  problems: string[]
): string {
  if (registeredCredential !== undefined) return standing(declared, registeredCredential, problems)
  const found = [...declared.credentials.values()].filter(each =>
    each.target === target && each.username === credentialUsername && canLogIn(each))
  if (found.length !== 1) {
    const many = found.length === 0 ? 'no' : 'more than one'
    problems.push(`profile ${name}: target ${target} has ${many} credential of ${credentialUsername ?? ''}`)
  }
  return found[0]?.name ?? ''
}

// ---- base secrets

const tlsModes = ['disable', 'require', 'verify-ca', 'verify-full'] as const
/** Of providers whose name is not that of their protocol. */
const protocols: Readonly<Record<string, Target['protocol']>> = { linux: 'ssh' }

async function linkedPlan(
  ports: PlanPorts, declared: Declared, name: string, source: Extract<Source, { kind: 'link' }>
): Promise<Plan> {
  const base = declared.secrets.get(source.linkedSecret)
  if (base?.type !== 'static' || base.provider === undefined) {
    throw missing(name, [`base secret ${source.linkedSecret} is not declared`])
  }
  const { create, delete: remove, variables } = source
  return {
    provider: base.provider, create, delete: remove, variables, ttlSeconds: undefined,
    target: baseAddress(base, await openValues(ports, base)), authenticationCredential: base.name
  }
}

/** The values of a static secret as they are now. */
export async function openValues(
  { openSecret }: Pick<PlanPorts, 'openSecret'>, { name, data }: StaticSecret
): Promise<Readonly<Record<string, string>>> {
  if (data === undefined) throw missing(name, [`secret ${name} has no values`])
  return JSON.parse((await openSecret(data)).expose()) as Record<string, string>
}

/** Where a base secret points. Throws `prerequisite-missing`. */
export function baseAddress(
  { name, provider = '' }: StaticSecret, values: Readonly<Record<string, string>>
): TargetAddress {
  const { host, port, sslmode = 'verify-full', ca } = values
  const protocol = protocols[provider] ?? provider
  const database = values['database'] ?? (protocol === 'postgres' ? 'postgres' : undefined)
  const number = port === undefined ? defaultPorts[protocol as Target['protocol']] : Number(port)
  const mode = tlsModes.find(each => each === sslmode)
  const problems: string[] = []
  if (host === undefined || host === '') problems.push(`base secret ${name}: host is missing`)
  if (number === undefined || !Number.isInteger(number) || number < 1 || number > 65_535) {
    problems.push(`base secret ${name}: port is missing or is none`)
  }
  if (mode === undefined) problems.push(`base secret ${name}: sslmode is one of ${tlsModes.join(', ')}`)
  if (problems.length > 0 || mode === undefined) throw missing(name, problems)
  return {
    name, protocol, host: host!, port: number!, ...database === undefined ? {} : { database },
    tls: { mode, ...ca === undefined ? {} : { ca } }
  }
}
