// Routes over people and their second factor: who has one, enrol one, confirm it with its first code, take it
// away. People have enrolling and confirming for themselves, admins for everybody; nobody takes an own one
// away, or whoever finds an unlocked terminal could.
import { z } from 'zod'
import { SallyportError } from '../errors.ts'
import { quote } from '../input.ts'
import { codeCharactersMax, expectFresh } from './access.ts'
import { byName, pageOf, part } from './pages.ts'
import type { ApiPorts } from './ports.ts'
import { admins, everyone, route } from './route.ts'
import type { Caller } from './route.ts'
import { done, enrolledShape, secondFactorShape, usersShape } from './shapes.ts'
import type { SecondFactorJson } from './client-types.ts'

const path = '/users/{name}/second-factor'
const params = z.object({ name: z.string() })

export function userRoutes(ports: ApiPorts) {
  return [
    route({
      method: 'get', path: '/users', roles: admins,
      summary: 'The people who are declared, by name, and who of them has a second factor.',
      query: z.strictObject({
        name: part, role: z.enum(['user', 'auditor', 'admin']).optional(), ...byName
      }),
      response: usersShape,
      run: async ({ query: { name: has = '', role, ...page } }) => {
        const factorOf = await factors(ports)
        const { users } = await ports.policy.declared()
        const wanted = [...users.values()].filter(({ name, roles }) =>
          name.includes(has) && (role === undefined || roles.includes(role)))
        return {
          users: pageOf(wanted, ({ name }) => name, page).map(({ name, roles, disabled }) =>
            ({ name, roles: [...roles], disabled, secondFactor: factorOf(name) }))
        }
      }
    }),
    route({
      method: 'get', path, roles: everyone, summary: 'Whether somebody has a second factor.',
      params, response: secondFactorShape,
      run: async ({ params: { name }, caller }) => {
        await own(ports, name, caller)
        return { user: name, secondFactor: (await factors(ports))(name) }
      }
    }),
    route({
      method: 'post', path, roles: everyone,
      summary: 'Draws the secret of a second factor and shows it, once; it counts when it was confirmed.',
      params, response: enrolledShape, issues: ({ user }) => `a second factor of ${user}`,
      run: async ({ params: { name }, caller }) => {
        await own(ports, name, caller)
        // With a login found somewhere a stranger would give the person a factor that only they have.
        if (caller.how === 'token' && caller.name === name) expectFresh(caller, ports.clock.now())
        const uri = await ports.secondFactors.enrol(name, caller.name)
        if (uri !== undefined) return { user: name, uri }
        const problem = `${name} has a second factor: an admin takes it away first (users unenrol)`
        throw new SallyportError('in-use', { problems: [problem] })
      }
    }),
    route({
      method: 'post', path: `${path}/confirm`, roles: everyone,
      summary: 'Takes the first code of a second factor: from now on it is asked for.',
      params, body: z.strictObject({ code: z.string().max(codeCharactersMax) }), response: done,
      run: async ({ params: { name }, body, caller, address }) => {
        await own(ports, name, caller)
        ports.passwords.admit(address)
        const outcome = await ports.secondFactors.confirm(name, body.code, caller.name)
        if (outcome === 'confirmed') return { done: true }
        if (outcome === 'none') {
          throw new SallyportError('not-found', { detail: `${quote(name)} has none that waits for a code` })
        }
        ports.passwords.tried(address, false)
        const problem = 'code: is not the one of this moment; is the clock of the device right?'
        throw new SallyportError('invalid', { problems: [problem] })
      }
    }),
    route({
      method: 'delete', path, roles: admins, summary: 'Takes the second factor of a person away.',
      params, response: done,
      run: async ({ params: { name }, caller }) => {
        if (await ports.secondFactors.remove(name, caller.name)) return { done: true }
        throw new SallyportError('not-found', { detail: `${quote(name)} has no second factor` })
      }
    })
  ]
}

async function factors(
  { secondFactors }: ApiPorts
): Promise<(user: string) => SecondFactorJson['secondFactor']> {
  const enrolled = new Map((await secondFactors.list()).map(each => [each.user, each.confirmed]))
  return user => {
    const isConfirmed = enrolled.get(user)
    return isConfirmed === undefined ? 'none' : isConfirmed ? 'confirmed' : 'waiting'
  }
}

/** Who is no admin learns of nobody else, not even that somebody exists. */
async function own(ports: ApiPorts, name: string, caller: Caller): Promise<void> {
  const isOwn = caller.how === 'token' && caller.name === name
  const isKnown = (await ports.policy.declared()).users.has(name)
  if (isKnown && (isOwn || caller.roles.includes('admin'))) return
  throw new SallyportError('not-found', { detail: `no user ${quote(name)}` })
}
