// Routes of logins that a person confirms in the console. A program begins one and polls (RFC 8628); the
// person, logged in a moment ago and with a second factor where there is one, sees where it comes from and
// what for, and says yes or no. The token that it becomes can confirm nothing itself: it is no proof of a
// person.
import { z } from 'zod'
import { SallyportError } from '../errors.ts'
import { expectFresh, issue } from './access.ts'
import type { ApiPorts } from './ports.ts'
import { everyone, route } from './route.ts'
import type { Caller } from './route.ts'
import { issuedJson } from './routes-access.ts'
import { beganShape, done, issuedShape, loginRequestShape } from './shapes.ts'

const path = '/login-requests/{code}'
const params = z.object({ code: z.string().max(32) })
/** What a program says of itself: shown to the person as its own words. */
const whatCharactersMax = 100

export function loginRequestRoutes(ports: ApiPorts, loginTokenSeconds: number) {
  const { requests, oidc } = ports.logins
  return [
    route({
      method: 'post', path: '/device/code', roles: 'anyone',
      summary: 'Begins a login that a person confirms in the console.',
      body: z.strictObject({ what: z.string().max(whatCharactersMax) }), response: beganShape,
      run: async ({ body, address }) => {
        ports.passwords.admit(address)
        const { secret, code, page, link, expiresAt, intervalSeconds } =
          await requests.begin({ kind: 'token', address, what: body.what })
        return {
          deviceCode: secret, userCode: code, verificationUri: page, verificationUriComplete: link,
          expiresAt: expiresAt.toISOString(), intervalSeconds
        }
      }
    }),
    route({
      method: 'post', path: '/device/token', roles: 'anyone',
      summary: 'Asks whether it was confirmed: then a token, once.',
      body: z.strictObject({ deviceCode: z.string().max(64) }), response: issuedShape,
      run: async ({ body, address }) => {
        ports.passwords.admit(address)
        const name = await requests.redeem(body.deviceCode)
        const user = (await ports.policy.declared()).users.get(name)
        if (user === undefined || user.disabled) throw new SallyportError('access-denied', { detail: name })
        const { roles, rolesFromGroups = false } = user
        // Whoever has roles of groups is looked at again after that time, here as in a browser.
        const bound = rolesFromGroups ? oidc?.sessionSeconds : undefined
        const ttlSeconds = Math.min(loginTokenSeconds, bound ?? loginTokenSeconds)
        return issuedJson(await issue(ports, {
          name, roles, ttlSeconds, address, method: 'confirmed in the console', isRemote: true
        }))
      }
    }),
    route({
      method: 'get', path, roles: everyone, summary: 'A login that waits: where it comes from and what for.',
      params, response: loginRequestShape,
      run: async ({ params: { code }, caller }) => {
        const { address, what, kind, expiresAt, ...row } = await found(ports, code, caller)
        return { code: row.code, address, what, kind, expiresAt: expiresAt.toISOString() }
      }
    }),
    ...(['confirm', 'deny'] as const).map(verdict => route({
      method: 'post', path: `${path}/${verdict}`, roles: everyone,
      summary: verdict === 'confirm' ? 'Lets it in, as oneself.' : 'Turns it away.', params, response: done,
      run: async ({ params: { code }, caller }) => {
        const row = await found(ports, code, caller)
        expectFresh(caller, ports.clock.now())
        const state = verdict === 'confirm' ? 'approved' : 'denied'
        if (await requests.decide(row.code, state, caller.name)) return { done: true }
        throw new SallyportError('not-found', { detail: 'it was decided meanwhile' })
      }
    }))
  ]
}

/** Throws `auth-throttled`; `not-found` for a code that is nobody's, or somebody else's. */
async function found(ports: ApiPorts, code: string, caller: Caller) {
  const isUser = caller.how === 'token' && (await ports.policy.declared()).users.has(caller.name)
  const row = isUser ? await ports.logins.requests.find(code, caller.name) : undefined
  if (row === undefined) throw new SallyportError('not-found', { detail: 'no login waits with this code' })
  return row
}
