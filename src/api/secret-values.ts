// The values of static secrets, as `apply` handles them: all values of a secret are sealed together, and each
// change of them is a new version beside the old ones, which can still be read and compared (R4). What is
// stored beside the document (versions, state) survives it.
import type { SecretDefinition, SecretVersion, StaticSecret } from '../policy/secrets.ts'
import type { SecretReference } from '../policy/types.ts'
import { Secret } from '../secret.ts'
import type { SecretInputs } from './document-parts.ts'
import type { ResourceKind } from './documents.ts'
import type { ResourceChange } from './ports.ts'

/** Versions that are kept of one secret; the oldest go first. */
export const versionsMax = 100

const kept: Partial<Record<ResourceKind, readonly string[]>> = {
  secret: ['versions', 'deleting', 'confirmation'], profile: ['id']
}

/** What of a stored spec no document speaks of: it stays as it is. */
export function keptOf(
  kind: ResourceKind, stored: Readonly<Record<string, unknown>>
): Record<string, unknown> {
  const fields = (kept[kind] ?? []).filter(field => stored[field] !== undefined)
  return Object.fromEntries(fields.map(field => [field, stored[field]]))
}

/** The values that a document asks for, with those that it keeps; `missing` hears of keys without one. */
export async function mergedValues(
  change: Pick<ResourceChange, 'open'>, reference: SecretReference | undefined, { entries }: SecretInputs,
  missing: (key: string) => void
): Promise<{ isSame: boolean, values: Secret<string> }> {
  const stored = reference === undefined ? {} : readValues(await change.open(reference))
  const values: Record<string, string> = {}
  for (const key of Object.keys(entries).sort()) {
    const given = entries[key]!
    const value = 'keep' in given ? stored[key] : given.value
    if (value === undefined) missing(key)
    else values[key] = value
  }
  const text = JSON.stringify(values)
  return { isSame: reference !== undefined && text === JSON.stringify(stored), values: new Secret(text) }
}

/** The values of one version. */
export function readValues(sealed: Secret<string>): Record<string, string> {
  return JSON.parse(sealed.expose()) as Record<string, string>
}

/** The versions with a new one, and what falls off at the other end. */
export function nextVersions(
  { versions = [], keys }: StaticSecret, { secret }: SecretReference,
  by: Pick<SecretVersion, 'createdAt' | 'createdBy'>
): { versions: readonly SecretVersion[], dropped: readonly SecretReference[] } {
  const version = (versions.at(-1)?.version ?? 0) + 1
  const all = [...versions, { version, secret, keys, ...by }]
  const old = all.splice(0, Math.max(0, all.length - versionsMax))
  return { versions: all, dropped: old.map(each => ({ secret: each.secret })) }
}

/** All sealed values of a secret, to be forgotten with it. */
export function sealedIn(spec: SecretDefinition): SecretReference[] {
  if (spec.type === 'dynamic') return []
  return (spec.versions ?? []).map(({ secret }) => ({ secret }))
}

/** R3: who has confirmed that applications follow; whoever switches it off and on confirms anew. */
export function confirmationOf(
  spec: SecretDefinition, now: { by: string, at: string }
): { by: string, at: string } | undefined {
  if (spec.type === 'static' || spec.renewal?.confirmed !== true) return undefined
  return spec.confirmation ?? now
}
