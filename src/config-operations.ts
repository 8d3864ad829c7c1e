// The parts of `sallyport.yaml` for those who watch over an installation: where its figures are read. Split
// from config.ts, which puts them in their place; secrets are named here (a file, a variable) and read by
// whoever needs them, so that `doctor` can look at a configuration whose secrets are not there.
import { resolve } from 'node:path'
import { z } from 'zod'
import { readAddress } from './input.ts'
import type { Address } from './input.ts'

/** Where a secret of the configuration comes from. */
export type SecretSource = { kind: 'file', file: string } | { kind: 'env', name: string }

export interface MetricsConfig {
  /** Plain HTTP for this machine alone; undefined: only over the API. */
  listen: Address | undefined
  /** Whoever has it reads the figures over the API. */
  token: SecretSource | undefined
}

const variable = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'expected the name of a variable')
const secretSource = z.strictObject({ file: z.string().min(1).optional(), env: variable.optional() })
  .refine(({ file, env }) => (file === undefined) !== (env === undefined),
    'expected exactly one of file, env')

const ownAddress = z.string().transform((text, context) => {
  const read = readAddress(text)
  if (read !== undefined && /^(127\.\d+\.\d+\.\d+|::1|localhost)$/.test(read.host)) return read
  context.addIssue(read === undefined
    ? 'expected host:port, for example 127.0.0.1:9464'
    : 'expected an address of this machine alone; from elsewhere the figures are at /metrics of listen.http')
  return z.NEVER
})

export const metricsSchema = z.strictObject({
  listen: ownAddress.nullable().default(null), token: secretSource.optional()
}).prefault({})

export function metricsConfig(
  { listen, token }: z.output<typeof metricsSchema>, folder: string
): MetricsConfig {
  return { listen: listen ?? undefined, token: token === undefined ? undefined : sourceOf(token, folder) }
}

function sourceOf({ file, env }: z.output<typeof secretSource>, folder: string): SecretSource {
  return env === undefined ? { kind: 'file', file: resolve(folder, file ?? '') } : { kind: 'env', name: env }
}

export interface SyslogConfig {
  address: Address
  transport: 'tls' | 'tcp' | 'udp'
  /** PEM files. */
  ca: string | undefined
  certificate: string | undefined
  key: string | undefined
}

export interface WebhookConfig {
  name: string
  url: string
  secret: SecretSource
  events: readonly string[]
  ca: string | undefined
}

/** Where audit events are brought to. */
export interface AuditConfig {
  syslog: SyslogConfig | undefined
  webhooks: readonly WebhookConfig[]
}

const file = z.string().min(1).optional()
const hookUrl = z.string().max(2048).transform((text, context) => {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const isOwn = /^(127\.\d+\.\d+\.\d+|\[::1\]|localhost)$/.test(url?.hostname ?? '')
  const isSafe = url?.protocol === 'https:' || (url?.protocol === 'http:' && isOwn)
  if (isSafe && url.username === '' && url.password === '') return url.href
  context.addIssue('expected https://… without a password in it (http:// only for this machine)')
  return z.NEVER
})
// As many as a person can watch.
const webhooksMax = 16

export const auditSchema = z.strictObject({
  syslog: z.strictObject({
    address: z.string().transform((text, context) => {
      const read = readAddress(text, 6514)
      if (read !== undefined) return read
      context.addIssue('expected host:port, for example siem.internal:6514')
      return z.NEVER
    }),
    transport: z.enum(['tls', 'tcp', 'udp']).default('tls'),
    ca: file, certificate: file, key: file
  }).refine(({ certificate, key }) => (certificate === undefined) === (key === undefined),
    'certificate and key belong together').optional(),
  webhooks: z.array(z.strictObject({
    name: z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'expected a short name such as siem'),
    url: hookUrl, secret: secretSource,
    events: z.array(z.string().max(64)
      .regex(/^(\*|[a-z-]+(\.[a-z-]+)*(\.\*)?)$/, 'expected a kind such as session.*'))
      .min(1).max(100).default(['*']),
    ca: file
  })).max(webhooksMax).default([])
    .refine(hooks => new Set(hooks.map(({ name }) => name)).size === hooks.length, 'two have the same name')
}).prefault({})

export function auditConfig(
  { syslog, webhooks }: z.output<typeof auditSchema>, folder: string
): AuditConfig {
  const at = (path: string | undefined): string | undefined =>
    path === undefined ? undefined : resolve(folder, path)
  return {
    syslog: syslog === undefined
      ? undefined
      : { ...syslog, ca: at(syslog.ca), certificate: at(syslog.certificate), key: at(syslog.key) },
    webhooks: webhooks.map(hook => ({ ...hook, secret: sourceOf(hook.secret, folder), ca: at(hook.ca) }))
  }
}
