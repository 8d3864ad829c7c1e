// `profiles`: looking for a profile by what people remember of it. They are made with `apply`.
import { allOf } from '../api/calling.ts'
import type { ProfileJson } from '../api/client-types.ts'
import { exit } from './command.ts'
import type { Run } from './command.ts'
import { clientOf, oneOf, text } from './connect.ts'
import type { Words } from './connect.ts'
import { shortTime } from './output.ts'

const statuses: Words<ProfileJson['status']> = { active: true, inactive: true }

export const list: Run = async call => {
  const client = await clientOf(call)
  const wanted = {
    id: text(call, 'id'), identifier: text(call, 'identifier'), type: text(call, 'type'),
    status: oneOf(call, 'status', statuses)
  }
  const profiles = await allOf(async page =>
    (await client.get('/profiles', { query: { ...wanted, ...page } })).profiles, each => each.identifier)
  if (call.json) call.out.json(profiles)
  else call.out.table(['IDENTIFIER', 'TYPE', 'STATUS', 'ACCESS', 'TTL', 'CREATED', 'UPDATED'],
    profiles.map(({ identifier, type, status, ttlSeconds, createdAt, updatedAt, ...access }) => [
      identifier, type, status, access.registeredCredential ?? access.credentialUsername, `${ttlSeconds}s`,
      shortTime(createdAt), shortTime(updatedAt)
    ]), 'no profiles')
  return exit.ok
}
