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
