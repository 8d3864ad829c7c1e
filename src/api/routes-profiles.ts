// The list of profiles with its filters (P4). Profiles are declared like all resources; what this adds is
// looking for one by what people remember of it.
import { z } from 'zod'
import type { Profile } from '../policy/secrets.ts'
import { byName, pageOf } from './pages.ts'
import type { ApiPorts, ResourceRow } from './ports.ts'
import { route, watchers } from './route.ts'
import { profileShape } from './shapes.ts'

const word = z.string().max(128).optional()

export function profileRoutes(ports: ApiPorts) {
  return [
    route({
      method: 'get', path: '/profiles', roles: watchers,
      summary: 'Profiles by identifier; those of an id, identifier, type (the plugin) or status.',
      query: z.strictObject({
        id: word, identifier: word, type: word, status: z.enum(['active', 'inactive']).optional(), ...byName
      }),
      response: z.object({ profiles: z.array(profileShape) }),
      run: async ({ query: { after, limit, ...fields } }) => {
        const profiles = (await ports.resources.list('profile')).map(profileJson)
        const wanted = Object.entries(fields).filter(([, value]) => value !== undefined)
        const found = profiles.filter(profile =>
          wanted.every(([field, value]) => profile[field as keyof typeof fields] === value))
        return { profiles: pageOf(found, ({ identifier }) => identifier, { after, limit }) }
      }
    })
  ]
}

function profileJson(
  { spec, createdAt, updatedAt, updatedBy }: ResourceRow
): z.output<typeof profileShape> {
  const profile = spec as Profile
  const { id, name, active, provider, create, delete: remove, ttlSeconds, ...access } = profile
  const { roles = [] } = profile.variables
  return {
    id: id ?? '', identifier: name, type: provider, status: active ? 'active' : 'inactive',
    registeredCredential: access.registeredCredential ?? null,
    credentialUsername: access.credentialUsername ?? null, create, delete: remove,
    roles: Array.isArray(roles) ? [...roles as readonly string[]] : [], ttlSeconds,
    createdAt: createdAt.toISOString(), updatedAt: updatedAt.toISOString(), updatedBy
  }
}
