// Routes over secrets outside sessions. Values leave in the answers of two of them, generate and read, once,
// and nothing else shows them again; a secret that is not there and one that the caller may not have are
// answered alike. A path may be written with `/` or `:`.
import { z } from 'zod'
import { SallyportError } from '../errors.ts'
import { quote, readDuration } from '../input.ts'
import { readSecretPath } from '../policy/secrets.ts'
import type { Holder, SecretDefinition } from '../policy/secrets.ts'
import type { Asker, Reading } from '../secrets/secrets.ts'
import { byName, limit, pageOf } from './pages.ts'
import type { Page } from './pages.ts'
import type { ApiPorts } from './ports.ts'
import { linkedTo } from './secret-references.ts'
import { deleteSecret } from './secret-removal.ts'
import { stateOf } from './resources.ts'
import { admins, holders, route, watchers } from './route.ts'
import type { Caller } from './route.ts'
import { comparedShape, done, leaseJson, readingShape, secretShape, versionShape } from './shapes.ts'

const path = z.string().max(1024).transform((text, context) => {
  const read = readSecretPath(text)
  if (read !== undefined) return read
  context.addIssue(`expected a path such as prod/orders-rw, not ${quote(text)}`)
  return z.NEVER
})
const params = z.object({ path })
const version = z.int().min(1)
const versionText = z.coerce.number<number>().pipe(version)

/** A number of seconds, or a duration; whether it is one that a lease may have is the ledger's to say. */
export const ttl = z.union([z.number(), z.string()]).transform((given, context) => {
  if (typeof given === 'number') return given
  if (/^-?\d+(\.\d+)?$/.test(given)) return Number(given)
  const seconds = readDuration(given)
  if (seconds !== undefined) return seconds
  context.addIssue(`expected seconds or a duration such as 15m, not ${quote(given)}`)
  return z.NEVER
})

export function secretRoutes(ports: ApiPorts) {
  return [...lookRoutes(ports), ...useRoutes(ports)]
}

function lookRoutes(ports: ApiPorts) {
  return [
    route({
      method: 'get', path: '/secrets', roles: [...holders, 'auditor'],
      summary: 'Secrets that the caller may have; admins and auditors see all. Without values.',
      query: z.strictObject({
        environment: z.string().max(63).optional(), path: path.optional(), ...byName
      }),
      response: z.object({ secrets: z.array(secretShape) }),
      run: async ({ query: { environment, path: only, ...page }, caller }) => {
        const found = (await seen(ports, caller)).filter(each =>
          (environment === undefined || each.environment === environment)
          && (only === undefined || each.name === only))
        return secretsJson(found, page)
      }
    }),
    route({
      method: 'get', path: '/secrets/search', roles: watchers,
      summary: 'Secrets whose path or description holds the query; `links`: those linked to that base (L3).',
      query: z.strictObject({
        query: z.string().min(1).max(1024), links: z.enum(['true', 'false']).default('false'), ...byName
      }),
      response: z.object({ secrets: z.array(secretShape) }),
      run: async ({ query: { query, links, ...page }, caller }) => {
        const all = await seen(ports, caller)
        const read = readSecretPath(query)
        if (links === 'true') {
          const linked = linkedTo(stateOf(await ports.resources.list()), read ?? query)
          return secretsJson(all.filter(({ name }) => linked.includes(name)), page)
        }
        const wanted = (read ?? query).toLowerCase()
        return secretsJson(all.filter(({ name, description = '' }) =>
          name.includes(wanted) || description.toLowerCase().includes(wanted)), page)
      }
    }),
    route({
      method: 'get', path: '/secrets/{path}/versions', roles: holders,
      summary: 'The versions of a static secret, or of one that renews itself, without values.', params,
      query: z.strictObject({ after: versionText.optional(), limit }),
      response: z.object({ versions: z.array(versionShape) }),
      run: async ({ params: { path: of }, query, caller, address }) => {
        const all = await ports.secrets.versions(asker(caller, address), of)
        const versions = pageOf(all, each => each.version, query)
        return { versions: versions.map(each => ({ ...each, lease: each.lease ?? null })) }
      }
    }),
    route({
      method: 'get', path: '/secrets/{path}/compare', roles: holders,
      summary: 'Which values differ between two versions, by key, without the values.',
      params, query: z.strictObject({ from: versionText, to: versionText }), response: comparedShape,
      run: async ({ params: { path: of }, query: { from, to }, caller, address }) => {
        const keys = await ports.secrets.compare(asker(caller, address), of, from, to)
        return { path: of, from, to, keys: [...keys] }
      }
    })
  ]
}

function useRoutes(ports: ApiPorts) {
  return [
    route({
      method: 'post', path: '/secrets/{path}/generate', roles: holders,
      summary: 'Makes a new account of a dynamic secret and shows its values, this once.', params,
      body: z.strictObject({ ttl: ttl.optional(), name: z.string().optional() }), response: readingShape,
      issues: leaseName,
      run: async ({ params: { path: of }, body, caller, address }) => {
        const wish = { ttlSeconds: body.ttl, name: body.name }
        return readingJson(ports, await ports.secrets.generate(asker(caller, address), of, wish))
      }
    }),
    route({
      method: 'post', path: '/secrets/{path}/read', roles: holders,
      summary: 'The values of a static secret; reading a dynamic one makes a new account (L2).', params,
      body: z.strictObject({ version: version.optional() }), response: readingShape, issues: leaseName,
      run: async ({ params: { path: of }, body, caller, address }) =>
        readingJson(ports, await ports.secrets.read(asker(caller, address), of, body.version))
    }),
    route({
      method: 'delete', path: '/secrets/{path}', roles: admins,
      summary: 'Deletes a secret; one with active leases only when they are to be revoked first (S8).',
      params,
      query: z.strictObject({ revokeActiveLeases: z.enum(['true', 'false']).default('false') }),
      response: done,
      run: async ({ params: { path: of }, query: { revokeActiveLeases }, caller }) => {
        await deleteSecret(ports, of, revokeActiveLeases === 'true', caller.name)
        return { done: true }
      }
    })
  ]
}

function leaseName({ path: of, lease }: z.output<typeof readingShape>): string {
  return lease === null ? `values of ${of}` : `lease ${lease.id} of ${of}`
}

/** Who calls, as one who may have secrets. */
export function holderOf({ name, roles }: Caller): Holder {
  return { kind: roles.includes('application') ? 'application' : 'user', name, roles }
}

function asker(caller: Caller, address: string): Asker {
  return { holder: holderOf(caller), address }
}

function secretsJson(
  secrets: readonly SecretDefinition[], page: Page<string>
): { secrets: z.output<typeof secretShape>[] } {
  return { secrets: pageOf(secrets, ({ name }) => name, page).map(secretJson) }
}

async function seen(ports: ApiPorts, caller: Caller): Promise<readonly SecretDefinition[]> {
  if (!caller.roles.includes('auditor')) return ports.secrets.list(holderOf(caller))
  return [...(await ports.policy.declared()).secrets.values()]
}

function secretJson(secret: SecretDefinition): z.output<typeof secretShape> {
  const { name: at, environment, description = null, deleting, type } = secret
  const isStatic = secret.type === 'static'
  const source = isStatic ? undefined : secret.source
  return {
    path: at, environment, description, type, status: deleting === true ? 'deleting' : 'active',
    provider: isStatic ? secret.provider ?? null : source?.kind === 'target' ? source.provider : null,
    profile: source?.kind === 'profile' ? source.profile : null,
    linkedSecret: source?.kind === 'link' ? source.linkedSecret : null,
    target: source === undefined || source.kind === 'link' ? null : source.target,
    ttlSeconds: isStatic ? null : secret.ttlSeconds ?? null,
    maxTtlSeconds: isStatic ? null : secret.maxTtlSeconds,
    keys: isStatic ? [...secret.keys] : secret.outputs.map(({ key }) => key),
    version: isStatic ? secret.versions?.at(-1)?.version ?? null : null
  }
}

async function readingJson(ports: ApiPorts, reading: Reading): Promise<z.output<typeof readingShape>> {
  const { path: of, version: read, lease, values } = reading
  const row = lease === undefined ? undefined : await ports.leases.show(lease)
  if (lease !== undefined && row === undefined) {
    throw new SallyportError('internal', { detail: `lease ${lease} is not in the ledger` })
  }
  return {
    path: of, version: read ?? null, lease: row === undefined ? null : leaseJson(row),
    values: Object.fromEntries(values.map(({ key, value }) => [key, value.expose()])),
    masked: values.filter(({ masked }) => masked).map(({ key }) => key)
  }
}
