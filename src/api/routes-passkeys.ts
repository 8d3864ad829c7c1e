// Routes of passkeys: log a browser in with one; and for a person who is logged in, what they have, one more,
// one less. A new one needs a fresh login, or a stolen cookie would become a login for good; the last second
// factor is taken away by an admin only, as a one-time code's is.
import { z } from 'zod'
import { SallyportError } from '../errors.ts'
import { quote } from '../input.ts'
import { expectFresh, logInByPasskey } from './access.ts'
import type { ApiPorts } from './ports.ts'
import type { PasskeyShown } from './ports-login.ts'
import { admins, everyone, route } from './route.ts'
import type { Caller } from './route.ts'
import { entered } from './routes-access.ts'
import {
  done, enteredShape, loginAskedShape, passkeyShape, passkeysShape, registrationAskedShape, waysShape
} from './shapes.ts'

/** Of one binary part; an attestation with its certificates is a few KiB. */
const partCharactersMax = 32_768
const idCharactersMax = 1400

const part = z.string().max(partCharactersMax).regex(/^[A-Za-z0-9_-]*$/, 'expected base64url')
const id = part.min(1).max(idCharactersMax)
const answer = z.strictObject({
  id, rawId: id, type: z.literal('public-key'),
  response: z.strictObject({
    clientDataJSON: part, attestationObject: part.optional(), authenticatorData: part.optional(),
    signature: part.optional(), userHandle: part.optional()
  }),
  clientExtensionResults: z.record(z.string(), z.unknown()).default({})
})
const label = z.string().trim().min(1).max(64).regex(/^[^\p{Cc}\p{Cf}]*$/u, 'expected a name')
const path = '/users/{name}/passkeys'
const params = z.object({ name: z.string() })

export function passkeyRoutes(ports: ApiPorts, loginTokenSeconds: number) {
  const { passkeys } = ports.logins
  return [
    route({
      method: 'get', path: '/browser/ways', roles: 'anyone', summary: 'How one can log in here.',
      response: waysShape,
      run: async () => ({ passkeys: passkeys.origin ?? null, provider: ports.logins.oidc?.label ?? null })
    }),
    route({
      method: 'delete', path: '/users/{name}/identities', roles: admins,
      summary: "Forgets whom the identity provider's subject is: the next login binds the name anew.",
      params, response: done,
      run: async ({ params: { name }, caller }) => {
        if (await ports.logins.identities.removeOf(name, caller.name)) return { done: true }
        throw new SallyportError('not-found', { detail: `${quote(name)} is nobody of a provider's` })
      }
    }),
    route({
      method: 'post', path: '/browser/passkey/challenge', roles: 'anyone',
      summary: 'What a browser asks a passkey, of a name or of whoever the authenticator knows.',
      body: z.strictObject({ user: z.string().max(256).optional() }), response: loginAskedShape,
      run: ({ body, address }) => {
        ports.passwords.admit(address)
        return passkeys.beginLogin(body.user)
      }
    }),
    route({
      method: 'post', path: '/browser/passkey', roles: 'anyone',
      summary: 'Logs a browser in by the answer of a passkey.', body: answer, response: enteredShape,
      run: async ({ body, address, cookie }) =>
        entered(cookie, await logInByPasskey(ports, body, address, loginTokenSeconds))
    }),
    route({
      method: 'get', path, roles: everyone, summary: 'The passkeys of a person, and where they work.',
      params, response: passkeysShape,
      run: async ({ params: { name }, caller }) => {
        await ownOrAdmin(ports, name, caller)
        return { origin: passkeys.origin ?? null, passkeys: (await passkeys.list(name)).map(shown) }
      }
    }),
    route({
      method: 'post', path: `${path}/challenge`, roles: everyone,
      summary: 'What a browser asks an authenticator for a new passkey.',
      params, response: registrationAskedShape,
      run: async ({ params: { name }, caller }) => {
        await fresh(ports, name, caller)
        return passkeys.beginRegistration(name)
      }
    }),
    route({
      method: 'post', path, roles: everyone,
      summary: 'Registers a passkey by the answer of an authenticator.', params,
      body: z.strictObject({ label, answer }), response: passkeyShape,
      run: async ({ params: { name }, body, caller }) => {
        await fresh(ports, name, caller)
        return shown(await passkeys.register(name, body.label, body.answer))
      }
    }),
    route({
      method: 'delete', path: `${path}/{id}`, roles: everyone, summary: 'Takes a passkey away.',
      params: params.extend({ id }), response: done,
      run: async ({ params: { name, id: passkey }, caller }) => {
        await ownOrAdmin(ports, name, caller)
        if (caller.name === name && !caller.roles.includes('admin')) await expectAnother(ports, name, caller)
        if (await passkeys.remove(name, passkey, caller.name)) return { done: true }
        throw new SallyportError('not-found', { detail: `${quote(name)} has no such passkey` })
      }
    })
  ]
}

/** A person's own affair, by a fresh login. Throws `not-found`, `fresh-login-required`. */
async function fresh(ports: ApiPorts, name: string, caller: Caller): Promise<void> {
  const isOwn = caller.how === 'token' && caller.name === name
  const user = (await ports.policy.declared()).users.get(name)
  if (!isOwn || user === undefined) throw nobody(name)
  if (user.rolesFromGroups === true) {
    throw new SallyportError('not-allowed', { detail: `${quote(name)} logs in at the identity provider` })
  }
  expectFresh(caller, ports.clock.now())
}

/** Who is no admin learns of nobody else, not even that somebody exists. */
async function ownOrAdmin(ports: ApiPorts, name: string, caller: Caller): Promise<void> {
  const isOwn = caller.how === 'token' && caller.name === name
  const isKnown = (await ports.policy.declared()).users.has(name)
  if (!isKnown || !(isOwn || caller.roles.includes('admin'))) throw nobody(name)
}

/** Throws `in-use` when it is the last second factor. */
async function expectAnother(ports: ApiPorts, name: string, caller: Caller): Promise<void> {
  expectFresh(caller, ports.clock.now())
  const others = (await ports.logins.passkeys.list(name)).length - 1
  const code = (await ports.secondFactors.list()).some(({ user, confirmed }) => user === name && confirmed)
  if (others > 0 || code) return
  const problem = 'it is your only second factor: register another first, or ask an admin'
  throw new SallyportError('in-use', { problems: [problem] })
}

function nobody(name: string): SallyportError {
  return new SallyportError('not-found', { detail: `no user ${quote(name)}` })
}

function shown({ id: of, name, backedUp, ...at }: PasskeyShown): z.output<typeof passkeyShape> {
  const lastUsedAt = at.lastUsedAt?.toISOString() ?? null
  return { id: of, name, backedUp, createdAt: at.createdAt.toISOString(), lastUsedAt }
}
