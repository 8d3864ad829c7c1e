// Secrets outside sessions, as library calls: generate makes an account by the same ledger that sessions use
// and hands its values out once, read gives a static secret's values, list and search say what there is. Who
// may is asked before anything happens, and again after the account was made, because a definition may have
// been deleted or a grant withdrawn meanwhile; every handing out is in the audit log before the values leave.
import { SallyportError, asSallyportError } from '../errors.ts'
import type { Clock } from '../clock.ts'
import type { Injectable, Made } from '../jit/plugin.ts'
import type { IssueRequest } from '../lease/context.ts'
import type { PinnedTemplate } from '../lease/ports.ts'
import { authoriseSecret, baseName, mayHave, plainFields } from '../policy/secrets.ts'
import type {
  DynamicSecret, Holder, OutputField, Provisioning, SecretDefinition, StaticSecret
} from '../policy/secrets.ts'
import { protocolsWithDatabase } from '../policy/types.ts'
import type { Declared } from '../policy/types.ts'
import { Secret } from '../secret.ts'
import { openValues, planOf } from './plan.ts'
import type { Plan, PlanPorts } from './plan.ts'
import { activeRenewal } from './renewal.ts'
import type { RenewalStore } from './renewal.ts'

/** S2: a shorter lease would be over before anybody has logged in with it. */
const ttlSecondsMin = 60
const nameCharactersMax = 200

export interface SecretPorts extends PlanPorts {
  clock: Clock
  declared(): Promise<Declared>
  /** The newest versions of both templates. Throws `hook-failed` when one is missing or inactive. */
  pin(provisioning: Provisioning): Promise<{ open: PinnedTemplate, close: PinnedTemplate }>
  issue(request: IssueRequest): Promise<{
    holdId: string, accountName: string, inject: Injectable, made?: Made | undefined, expiresAt: Date
  }>
  revoke(lease: string, actor: string, address?: string): Promise<boolean>
  /** Credentials of secrets that renew themselves. */
  renewed: Pick<RenewalStore, 'list' | 'open' | 'noteReader'>
  audit(kind: string, actor: string, subject: string, detail: Record<string, unknown>): Promise<void>
}

/** Who asks, and from where. */
export interface Asker {
  holder: Holder
  address: string
}

export interface Wish {
  ttlSeconds?: number | undefined
  /** Of the lease. */
  name?: string | undefined
}

export interface Value {
  key: string
  masked: boolean
  value: Secret<string>
}

export interface Reading {
  path: string
  /** Of a static secret. */
  version: number | undefined
  /** Of a dynamic one: the lease that was made. */
  lease: string | undefined
  values: readonly Value[]
}

/** A version of a static secret, or of one that renews itself. */
export interface ListedVersion {
  version: number
  state: 'current' | 'kept' | 'pending' | 'retiring' | 'retired' | 'failed'
  createdAt: string
  createdBy: string
  /** Of a renewed credential. */
  lease: string | undefined
}

export interface Comparison {
  key: string
  is: 'same' | 'changed' | 'added' | 'removed'
}

export interface Secrets {
  /** S2, L2: a new account; its values are in this answer and nowhere else. */
  generate(asker: Asker, path: string, wish: Wish): Promise<Reading>
  /** A static secret's values, the newest or those of a version; a dynamic one is generated. */
  read(asker: Asker, path: string, version?: number): Promise<Reading>
  /** All that an asker may have. */
  list(holder: Holder): Promise<readonly SecretDefinition[]>
  /** R4: without values. */
  versions(asker: Asker, path: string): Promise<readonly ListedVersion[]>
  /** R4: what differs between two versions, key by key. */
  compare(asker: Asker, path: string, from: number, to: number): Promise<readonly Comparison[]>
}

export function createSecrets(ports: SecretPorts): Secrets {
  return {
    generate: (asker, path, wish) => generate(ports, asker, path, wish),
    async read(asker, path, version) {
      const { declared, secret } = await allowed(ports, asker, path)
      if (secret.type === 'static') return readStatic(ports, asker, secret, version)
      return activeRenewal(declared, secret) === undefined
        ? generate(ports, asker, path, {})
        : readRenewed(ports, asker, path, version)
    },
    async list(holder) {
      const declared = await ports.declared()
      const now = ports.clock.now()
      return [...declared.secrets.values()].filter(({ name }) => mayHave(declared, holder, name, now))
    },
    versions: (asker, path) => versionsOf(ports, asker, path),
    compare: (asker, path, from, to) => compare(ports, asker, path, from, to)
  }
}

/** How the audit and the histories call a holder. */
export function actorOf({ kind, name }: Holder): string {
  return kind === 'application' ? `application/${name}` : name
}

async function allowed(
  ports: SecretPorts, { holder }: Asker, path: string
): Promise<{ declared: Declared, secret: SecretDefinition, untilMs: number }> {
  const declared = await ports.declared()
  const untilMs = authoriseSecret(declared, holder, path, ports.clock.now())
  const secret = declared.secrets.get(path)
  if (secret === undefined) throw new SallyportError('not-found', { detail: `no secret ${path}` })
  return { declared, secret, untilMs }
}

// ---- generate

async function generate(ports: SecretPorts, asker: Asker, path: string, wish: Wish): Promise<Reading> {
  const { declared, secret, untilMs } = await allowed(ports, asker, path)
  if (secret.type === 'static') {
    throw new SallyportError('invalid', { problems: [`${path} is a static secret: it is read`] })
  }
  const plan = await planOf(ports, declared, secret)
  const term = termOf(secret, plan, wish, untilMs - ports.clock.now().getTime())
  const { open, close } = await ports.pin(plan)
  const { holder, address } = asker
  const actor = actorOf(holder)
  const lease = await ports.issue({
    credential: path, target: plan.target.name, kind: 'create', namePattern: `${secret.namePrefix}#######`,
    spec: {
      plugin: plan.provider, target: plan.target, open, close, variables: { ...plan.variables },
      authenticationCredential: plan.authenticationCredential
    },
    form: 'password', name: wish.name ?? baseName(path), owner: { kind: holder.kind, id: holder.name },
    actor, address, ...term, tell: () => undefined
  })
  try {
    await confirm(ports, asker, path)
    await ports.audit('secret.generated', actor, path, {
      lease: lease.holdId, account: lease.accountName, target: plan.target.name, address,
      ttlSeconds: term.ttlSeconds, expiresAt: lease.expiresAt.toISOString()
    })
  } catch (thrown) {
    // Nobody was told of it, so nobody may keep it; if the store is away, its expiry ends it.
    await ports.revoke(lease.holdId, 'system').catch(() => false)
    throw asSallyportError(thrown)
  }
  return { path, version: undefined, lease: lease.holdId, values: valuesOf(secret, plan, lease) }
}

function termOf(
  { ttlSeconds: own, maxTtlSeconds: max }: DynamicSecret, { ttlSeconds: ofProfile }: Plan, wish: Wish,
  grantLeftMs: number
): { ttlSeconds: number, maxTtlSeconds: number } {
  // A lease does not outlive the grant that it was made by.
  const maxTtlSeconds = Math.min(max, Math.floor(grantLeftMs / 1000))
  const problems: string[] = []
  const ttlSeconds = wish.ttlSeconds ?? Math.min(own ?? ofProfile ?? max, maxTtlSeconds)
  if (!Number.isSafeInteger(ttlSeconds) || ttlSeconds < ttlSecondsMin) {
    problems.push(`ttl: must be a whole number of seconds, at least ${ttlSecondsMin}`)
  } else if (ttlSeconds > maxTtlSeconds) {
    problems.push(`ttl: is more than the ${maxTtlSeconds} s that this secret allows`)
  }
  if (wish.name !== undefined && (wish.name === '' || wish.name.length > nameCharactersMax)) {
    problems.push(`name: must have 1 to ${nameCharactersMax} characters`)
  }
  if (problems.length > 0) throw new SallyportError('invalid', { problems })
  return { ttlSeconds, maxTtlSeconds }
}

/** While the account was made its definition may have been deleted, or the grant withdrawn. */
async function confirm(ports: SecretPorts, asker: Asker, path: string): Promise<void> {
  const { secret } = await allowed(ports, asker, path)
  if (secret.deleting !== true) return
  const problems = [`secret ${path} is being deleted`]
  throw new SallyportError('prerequisite-missing', { detail: path, problems })
}

/** What only the service knew (`made`) takes the place of the secret that we drew. */
function valuesOf(
  { outputs }: DynamicSecret, { target }: Plan, { accountName, inject, made }: {
    accountName: string, inject: Injectable, made?: Made | undefined
  }
): Value[] {
  const fields: Partial<Record<OutputField, Secret<string>>> = {
    username: new Secret(accountName), ...made ?? secretFields(inject), host: new Secret(target.host),
    port: new Secret(String(target.port)),
    ...target.database === undefined || !protocolsWithDatabase.includes(target.protocol)
      ? {}
      : { database: new Secret(target.database) }
  }
  const chosen = outputs.length > 0
    ? outputs
    : Object.keys(fields).map(field => ({ field, key: field, masked: !plainFields.includes(field) }))
  return chosen.flatMap(({ field, key, masked }) => {
    const value = fields[field]
    return value === undefined ? [] : [{ key, masked, value }]
  })
}

function secretFields(inject: Injectable): Partial<Record<OutputField, Secret<string>>> {
  switch (inject.kind) {
    case 'password': return { password: inject.password }
    case 'private-key': return { privateKey: inject.privateKey }
    case 'scram-keys':
      throw new SallyportError('internal', { detail: 'keys of the proxy are not handed out' })
  }
}

// ---- secrets that renew themselves

/** The current version, or an older one that is still valid; who reads which is the proof of adoption. */
async function readRenewed(
  ports: SecretPorts, { holder, address }: Asker, path: string, wanted: number | undefined
): Promise<Reading> {
  const rows = await ports.renewed.list(path)
  const row = rows.find(({ version, state }) =>
    wanted === undefined ? state === 'current' : version === wanted)
  if (row?.secret === null || row?.secret === undefined || row.lease === null) {
    const problems = [wanted === undefined
      ? `secret ${path} has no current credential yet: the next renewal makes one`
      : `version ${wanted} of ${path} is not valid any more`]
    throw new SallyportError('prerequisite-missing', { detail: path, problems })
  }
  const { version, lease } = row
  await ports.audit('secret.read', actorOf(holder), path, { version, lease, address })
  await ports.renewed.noteReader(path, `${holder.kind} ${holder.name}`, version)
  return { path, version, lease, values: renewedValues(await ports.renewed.open(row)) }
}

function renewedValues(sealed: Secret<string>): Value[] {
  const values = JSON.parse(sealed.expose()) as { key: string, masked: boolean, value: string }[]
  return values.map(({ value, ...each }) => ({ ...each, value: new Secret(value) }))
}

async function versionsOf(ports: SecretPorts, asker: Asker, path: string): Promise<readonly ListedVersion[]> {
  const { secret } = await allowed(ports, asker, path)
  if (secret.type === 'static') {
    const newest = secret.versions?.at(-1)?.version
    return (secret.versions ?? []).map(({ version, createdAt, createdBy }) => ({
      version, createdAt, createdBy, lease: undefined, state: version === newest ? 'current' : 'kept'
    }))
  }
  return (await ports.renewed.list(path)).map(({ version, state, lease, createdAt }) =>
    ({ version, state, lease: lease ?? undefined, createdAt: createdAt.toISOString(), createdBy: 'system' }))
}

// ---- static secrets

async function readStatic(
  ports: SecretPorts, { holder, address }: Asker, secret: StaticSecret, wanted: number | undefined
): Promise<Reading> {
  const newest = secret.versions?.at(-1)?.version
  const values = await versionValues(ports, secret, wanted ?? newest)
  await ports.audit('secret.read', actorOf(holder), secret.name, { version: wanted ?? newest, address })
  return {
    path: secret.name, version: wanted ?? newest, lease: undefined,
    values: Object.entries(values).map(([key, value]) => ({ key, masked: true, value: new Secret(value) }))
  }
}

async function versionValues(
  ports: SecretPorts, secret: StaticSecret, wanted: number | undefined
): Promise<Readonly<Record<string, string>>> {
  const found = secret.versions?.find(({ version }) => version === wanted)
  if (found === undefined) throw noVersion(secret.name, wanted)
  return openValues(ports, { ...secret, data: { secret: found.secret } })
}

function noVersion(path: string, version: number | undefined): SallyportError {
  const detail = `${path} has no version ${version ?? ''}, or its values are forgotten`
  return new SallyportError('not-found', { detail })
}

/** The values of any version that are still kept. */
async function valuesAt(
  ports: SecretPorts, secret: SecretDefinition, version: number
): Promise<Readonly<Record<string, string>>> {
  if (secret.type === 'static') return versionValues(ports, secret, version)
  const row = (await ports.renewed.list(secret.name)).find(each => each.version === version)
  if (row === undefined || row.secret === null) throw noVersion(secret.name, version)
  const values = renewedValues(await ports.renewed.open(row))
  return Object.fromEntries(values.map(({ key, value }) => [key, value.expose()]))
}

async function compare(
  ports: SecretPorts, asker: Asker, path: string, from: number, to: number
): Promise<readonly Comparison[]> {
  const { secret } = await allowed(ports, asker, path)
  const before = await valuesAt(ports, secret, from)
  const after = await valuesAt(ports, secret, to)
  await ports.audit('secret.compared', actorOf(asker.holder), path, { from, to, address: asker.address })
  return [...new Set([...Object.keys(before), ...Object.keys(after)])].sort().map(key => ({
    key,
    is: before[key] === undefined
      ? 'added'
      : after[key] === undefined ? 'removed' : before[key] === after[key] ? 'same' : 'changed'
  }))
}
