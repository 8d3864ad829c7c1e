// `users`: who there is, and the second factor of a person. The URI that `enrol` prints holds the secret: it
// is for the authenticator app and is not shown again.
import { allOf } from '../api/calling.ts'
import { exit } from './command.ts'
import type { Run } from './command.ts'
import { clientOf } from './connect.ts'

export const list: Run = async call => {
  const client = await clientOf(call)
  const users = await allOf(async page => (await client.get('/users', { query: page })).users,
    ({ name }) => name)
  if (call.json) call.out.json(users)
  else {
    const rows = users.map(({ name, roles, secondFactor, disabled }) =>
      [name, roles.join(', '), secondFactor, disabled ? 'disabled' : 'active'])
    call.out.table(['NAME', 'ROLES', 'SECOND FACTOR', 'STATUS'], rows, 'nobody is declared')
  }
  return exit.ok
}

export const enrol: Run = async call => {
  const client = await clientOf(call)
  const params = { name: call.args[0]! }
  const { user, uri } = await client.post('/users/{name}/second-factor', { params })
  if (call.json) call.out.json({ user, uri })
  else {
    call.out.line(uri)
    call.out.aside(`give this to the authenticator app, now; then: sallyport users confirm ${user} CODE`)
  }
  return exit.ok
}

export const confirm: Run = async call => {
  const client = await clientOf(call)
  const [user, code] = call.args
  await client.post('/users/{name}/second-factor/confirm', {
    params: { name: user! }, body: { code: code! }
  })
  if (call.json) call.out.json({ user, confirmed: true })
  else call.out.line(`${user} is asked for a one-time code from now on`)
  return exit.ok
}

export const unbind: Run = async call => {
  const client = await clientOf(call)
  const user = call.args[0]!
  await client.delete('/users/{name}/identities', { params: { name: user } })
  if (call.json) call.out.json({ user, unbound: true })
  else call.out.line(`${user} is whoever the identity provider says next`)
  return exit.ok
}

export const unenrol: Run = async call => {
  const client = await clientOf(call)
  const user = call.args[0]!
  await client.delete('/users/{name}/second-factor', { params: { name: user } })
  if (call.json) call.out.json({ user, unenrolled: true })
  else call.out.line(`${user} has no second factor any more`)
  return exit.ok
}
