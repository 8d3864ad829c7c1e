// What `sallyport.yaml` may say: one schema, every key optional, an unknown key refused with its path. The
// value that comes out is complete (defaults filled in, paths absolute, durations in seconds, sizes in
// bytes), so that no other file asks "and if it is not set?". Two things may come from the environment
// instead, because they carry secrets: SALLYPORT_STORE and SALLYPORT_REDIS.
import { existsSync, readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { dirname, resolve } from 'node:path'
import { parseDocument } from 'yaml'
import { z } from 'zod'
import { auditConfig, auditSchema, metricsConfig, metricsSchema } from './config-operations.ts'
import type { AuditConfig, MetricsConfig } from './config-operations.ts'
import { SallyportError } from './errors.ts'
import {
  duration, httpsAddress, printAddress, problemsOf, publicKey, readAddress, size
} from './input.ts'
import type { Address } from './input.ts'
import { Secret } from './secret.ts'

/** The file that is read when none is named. */
export const defaultConfigFile = 'sallyport.yaml'

export interface Config {
  /** The file that was read; undefined when there was none and everything is a default. */
  file: string | undefined
  /** Folder of all state that has no place of its own: embedded store, keys, certificates. Absolute. */
  data: string
  /** Name of this node in rows and records. */
  node: string
  store: { kind: 'pglite', directory: string } | { kind: 'postgres', url: Secret<string> }
  redis: Secret<string> | undefined
  recordings: {
    directory: string
    mode: 'strict' | 'best-effort'
    /** What is not kept is hashed: files, input of commands, rsync, git. */
    hashes: boolean
    /** Of a command's output so much is kept at once, and then so much for each second. Bytes. */
    outputMax: number
    outputPerSecond: number
    /** Where a grant has copies of files kept: of each file, and of all of a session. Bytes. */
    fileCopyMax: number
    fileCopiesMax: number
  }
  /** `undefined`: switched off. */
  listen: Record<'ssh' | 'postgres' | 'http' | 'rdp' | 'tcp', Address | undefined>
  tls: {
    /** PEM files of the listeners; undefined: made by ourselves, under `data`/tls. */
    files: { certificate: string, key: string } | undefined
    /** More names and addresses for the certificate that we make. */
    names: readonly string[]
    /** PostgreSQL clients without TLS are refused. */
    required: boolean
  }
  ssh: {
    /** Authorities (`ssh-ed25519 AAAA…`) whose certificates prove who a person is. */
    userAuthorities: readonly string[]
    /**
     * Addresses and networks that targets see us come from, for the certificates of accounts; empty: they
     * hold from anywhere; undefined: from the address of each connection itself.
     */
    certificateSources: readonly string[] | undefined
  }
  api: {
    /**
     * `https://host:port` as the other nodes of the store reach this one; undefined: they do not. Where it is
     * not said and `listen.http` is no loopback: where that listens, all addresses as the machine's name.
     */
    advertise: string | undefined
  }
  console: {
    /** `https://host:port` as browsers see it; undefined: where we listen, loopback as `localhost`. */
    origin: string | undefined
  }
  login: { oidc: OidcConfig | undefined }
  masterKey: MasterKeySource
  /** Keys that older values may still be sealed under: at start those are wrapped anew under `masterKey`. */
  oldMasterKeys: readonly MasterKeySource[]
  log: { level: 'info' | 'warn' | 'error' }
  metrics: MetricsConfig
  audit: AuditConfig
  limits: Limits
}

/** An identity provider (OpenID Connect) at which people log in. */
export interface OidcConfig {
  issuer: string
  clientId: string
  /** Absent: we are a public client; PKCE is used in either case. */
  clientSecret?: { env: string } | { file: string } | undefined
  /** On the button. */
  label: string
  scopes: readonly string[]
  /** The claim that has the user's name, and a domain behind it that is left out. */
  userClaim: string
  userDomain: string | undefined
  groupsClaim: string
  /** Roles by the provider's group. */
  groups: ReadonlyMap<string, readonly ('user' | 'auditor' | 'admin')[]>
  /** Whoever is in one of the groups is a user from the first login on. */
  createUsers: boolean
  /** Seconds after which a console login of the provider's ends: who was put out there is out here. */
  session: number
}

/** Where the key that opens all other keys comes from. */
export type MasterKeySource =
  | { kind: 'file', file: string }
  | { kind: 'env', name: string }
  /** Its standard output is the key; run once, at start. */
  | { kind: 'command', command: readonly string[] }

// Each limit with its default and its reason; the names are those of `limits` in the file.
const limits = z.strictObject({
  /** Sockets at once, all listeners together: what 2 GiB of memory carry. */
  connectionsMax: z.int().min(1).max(1_000_000).default(10_000),
  /**
   * Sockets of one address that have not logged in: strangers wait behind each other, not in front of
   * users.
   */
  unauthenticatedPerAddressMax: z.int().min(1).max(100_000).default(100),
  /** Live sessions of one user: a runaway script must not make accounts without end. */
  sessionsPerUserMax: z.int().min(1).max(100_000).default(500),
  /** From accept to the end of authentication; OpenSSH and PostgreSQL give 120 s and 60 s, people need 10. */
  loginGrace: duration.default(30),
  /** Failed logins of one address in a minute, before it has to wait. */
  loginFailuresPerMinuteMax: z.int().min(1).max(10_000).default(30),
  /** Connecting to a target, for hooks and sessions. */
  hookConnect: duration.default(5),
  /** One statement or command of a hook. */
  hookStatement: duration.default(10),
  /** A whole hook. */
  hookAction: duration.default(30),
  /** At a stop: how long running sessions may still go on before they are cut. */
  drain: duration.default(10),
  /** Free space on the recordings disk below which no session starts. */
  recordingsReserve: size.default(500 * 1024 ** 2),
  /** How long a connection waits until its person confirms it in the console. */
  consoleConfirm: duration.default(180),
  /** Validity of a token of `sallyport login`: a working day. */
  loginToken: duration.default(43_200)
})

/** Durations in seconds, sizes in bytes. */
export type Limits = z.output<typeof limits>

const address = z.string().transform((text, context) => {
  const read = readAddress(text)
  if (read !== undefined) return read
  context.addIssue('expected host:port, for example 127.0.0.1:8443')
  return z.NEVER
}).nullable()

const origin = z.string().regex(/^https:\/\/[A-Za-z0-9.-]{1,253}(:\d{1,5})?$/, 'expected https://NAME:PORT')
  // As browsers write it: small letters, no port that goes without saying.
  .transform(text => URL.canParse(text) ? new URL(text).origin : text)

const nodeAddress = z.string().regex(httpsAddress, 'expected https://NAME:PORT')
  .refine(text => URL.canParse(text), 'expected https://NAME:PORT')

const source = z.strictObject({
  file: z.string().min(1).optional(),
  env: z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'expected the name of a variable').optional(),
  command: z.array(z.string()).min(1).optional()
}).refine(value => Object.keys(value).length === 1, 'expected exactly one of file, env, command')

const role = z.enum(['user', 'auditor', 'admin'])
const oidc = z.strictObject({
  // In clear only where nobody else can listen: a provider on this machine.
  issuer: z.string().max(500).regex(
    /^(https:\/\/[^\s?#]+|http:\/\/(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(\/[^\s?#]*)?)$/,
    'expected https://…'),
  clientId: z.string().min(1).max(255),
  clientSecret: z.union([
    z.strictObject({ env: z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'expected the name of a variable') }),
    z.strictObject({ file: z.string().min(1) })
  ], 'expected {env: NAME} or {file: PATH}').optional(),
  label: z.string().min(1).max(60).default('Log in with your company'),
  scopes: z.array(z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/)).max(20).default(['openid', 'profile'])
    .refine(scopes => scopes.includes('openid'), 'openid must be among them'),
  userClaim: z.string().min(1).max(100).default('preferred_username'),
  userDomain: z.string().toLowerCase().min(1).max(253).optional(),
  groupsClaim: z.string().min(1).max(200).default('groups'),
  groups: z.record(z.string().min(1).max(255), z.union([role.transform(one => [one]), z.array(role).min(1)]))
    .default({}),
  createUsers: z.boolean().default(false),
  session: duration.default(28_800)
})

const schema = z.strictObject({
  data: z.string().min(1).default('./data'),
  node: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, 'expected a short name').optional(),
  store: z.string().regex(/^(pglite|postgres(ql)?:\/\/.+)$/, 'expected pglite or postgres://…')
    .default('pglite'),
  redis: z.string().regex(/^rediss?:\/\/.+$/, 'expected redis://… or null').nullable().default(null),
  recordings: z.strictObject({
    dir: z.string().min(1).default('./recordings'),
    mode: z.enum(['strict', 'best-effort']).default('strict'),
    hashes: z.boolean().default(true),
    outputMax: size.default(64 * 1024 ** 2),
    outputPerSecond: size.default(256 * 1024),
    fileCopyMax: size.default(16 * 1024 ** 2),
    fileCopiesMax: size.default(256 * 1024 ** 2)
  }).prefault({}),
  listen: z.strictObject({
    ssh: address.default({ host: '127.0.0.1', port: 2222 }),
    postgres: address.default({ host: '127.0.0.1', port: 6432 }),
    http: address.default({ host: '127.0.0.1', port: 8443 }),
    rdp: address.default(null),
    tcp: address.default(null)
  }).prefault({}),
  tls: z.strictObject({
    certificate: z.string().min(1).optional(),
    key: z.string().min(1).optional(),
    names: z.array(z.string().regex(/^[A-Za-z0-9.:_-]{1,253}$/, 'expected a host name or address'))
      .default([]),
    required: z.boolean().default(false)
  }).refine(({ certificate, key }) => (certificate === undefined) === (key === undefined),
    'certificate and key belong together').prefault({}),
  ssh: z.strictObject({
    userAuthorities: z.array(publicKey).max(64).default([]),
    certificateSources: z.array(z.union([z.ipv4(), z.ipv6(), z.cidrv4(), z.cidrv6()],
      'expected an address or a network such as 192.0.2.0/24')).max(64).optional()
  }).prefault({}),
  api: z.strictObject({ advertise: nodeAddress.nullable().optional() }).prefault({}),
  console: z.strictObject({ origin: origin.optional() }).prefault({}),
  login: z.strictObject({ oidc: oidc.optional() }).prefault({}),
  masterKey: source.optional(),
  oldMasterKeys: z.array(source).max(16).default([]),
  log: z.strictObject({ level: z.enum(['info', 'warn', 'error']).default('info') }).prefault({}),
  metrics: metricsSchema,
  audit: auditSchema,
  limits: limits.prefault({})
})

/**
 * Reads the configuration: of `file`, of `sallyport.yaml` in the working folder when that exists, else all
 * defaults. Relative paths are relative to the file. Throws SallyportError `invalid` with every problem and
 * its path, `not-found` when a file was named that does not exist.
 */
export function readConfig(
  file?: string, environment: NodeJS.ProcessEnv = process.env, folder: string = process.cwd()
): Config {
  const path = resolve(folder, file ?? defaultConfigFile)
  if (!existsSync(path)) {
    if (file !== undefined) throw new SallyportError('not-found', { detail: `no configuration file ${file}` })
    return parseConfig('', undefined, environment, folder)
  }
  return parseConfig(readFileSync(path, 'utf8'), path, environment, dirname(path))
}

/** The same from a text; `folder` is what relative paths are relative to. */
export function parseConfig(
  text: string, file: string | undefined, environment: NodeJS.ProcessEnv, folder: string
): Config {
  const name = file ?? defaultConfigFile
  const document = parseDocument(text, { uniqueKeys: true, strict: true })
  if (document.errors.length > 0) {
    const problems = document.errors.map(error => `${name}: ${error.message.split('\n')[0]}`)
    throw new SallyportError('invalid', { detail: 'the configuration is no YAML', problems })
  }
  const read = schema.safeParse(withEnvironment(document.toJS({ maxAliasCount: 10 }) ?? {}, environment))
  if (!read.success) {
    const problems = problemsOf(read.error)
    throw new SallyportError('invalid', { detail: `the configuration ${name} is not valid`, problems })
  }
  return complete(read.data, file, folder)
}

function withEnvironment(document: unknown, environment: NodeJS.ProcessEnv): unknown {
  if (typeof document !== 'object' || document === null || Array.isArray(document)) return document
  const { SALLYPORT_STORE: store, SALLYPORT_REDIS: redis } = environment
  return {
    ...document,
    ...(store === undefined || store === '' ? {} : { store }),
    ...(redis === undefined || redis === '' ? {} : { redis })
  }
}

function complete(read: z.output<typeof schema>, file: string | undefined, folder: string): Config {
  const data = resolve(folder, read.data)
  const { certificate, key, names, required } = read.tls
  return {
    file,
    data,
    node: read.node ?? hostname().replace(/[^A-Za-z0-9._-]/g, '-').slice(0, 63),
    store: read.store === 'pglite'
      ? { kind: 'pglite', directory: resolve(data, 'store') }
      : { kind: 'postgres', url: new Secret(read.store) },
    redis: read.redis === null ? undefined : new Secret(read.redis),
    recordings: recordingsOf(read.recordings, folder),
    listen: {
      ssh: read.listen.ssh ?? undefined,
      postgres: read.listen.postgres ?? undefined,
      http: read.listen.http ?? undefined,
      rdp: read.listen.rdp ?? undefined,
      tcp: read.listen.tcp ?? undefined
    },
    tls: {
      files: certificate === undefined || key === undefined
        ? undefined
        : { certificate: resolve(folder, certificate), key: resolve(folder, key) },
      names, required
    },
    ssh: { ...read.ssh, certificateSources: read.ssh.certificateSources },
    api: { advertise: advertised(read.api.advertise, read.listen.http) },
    console: { origin: read.console.origin },
    login: { oidc: read.login.oidc === undefined ? undefined : oidcOf(read.login.oidc, folder) },
    masterKey: masterKeyOf(read.masterKey, data, folder),
    oldMasterKeys: read.oldMasterKeys.map(old => masterKeyOf(old, data, folder)),
    log: read.log,
    metrics: metricsConfig(read.metrics, folder),
    audit: auditConfig(read.audit, folder),
    limits: read.limits
  }
}

function advertised(given: string | null | undefined, http: Address | null): string | undefined {
  if (given !== undefined) return given ?? undefined
  // What only this machine reaches would send another one to itself.
  if (http === null || /^(127\.|::1$|localhost$)/.test(http.host)) return undefined
  const host = /^(0\.0\.0\.0|::)$/.test(http.host) ? hostname() : http.host
  const url = `https://${printAddress({ host, port: http.port })}`
  return nodeAddress.safeParse(url).success ? url : undefined
}

function oidcOf(
  { clientSecret, userDomain, groups, ...rest }: z.output<typeof oidc>, folder: string
): OidcConfig {
  const secret = clientSecret !== undefined && 'file' in clientSecret
    ? { file: resolve(folder, clientSecret.file) }
    : clientSecret
  return { ...rest, clientSecret: secret, userDomain, groups: new Map(Object.entries(groups)) }
}

function recordingsOf(
  { dir, ...rest }: z.output<typeof schema>['recordings'], folder: string
): Config['recordings'] {
  return { directory: resolve(folder, dir), ...rest }
}

function masterKeyOf(
  read: z.output<typeof source> | undefined, data: string, folder: string
): MasterKeySource {
  if (read?.env !== undefined) return { kind: 'env', name: read.env }
  if (read?.command !== undefined) return { kind: 'command', command: read.command }
  if (read?.file !== undefined) return { kind: 'file', file: resolve(folder, read.file) }
  return { kind: 'file', file: resolve(data, 'master.key') }
}
