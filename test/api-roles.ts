// Who may call what, made from the route table, so that a route that is added is covered: every route with
// every kind of caller, among them nobody, and people and applications whose token has run out or was taken
// away. Beside it, in words, what the table may say at all.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { hashToken, mintApplicationToken, mintToken } from '../src/api/access.ts'
import { addressOf } from '../src/api/openapi.ts'
import type { Route } from '../src/api/route.ts'
import { applicationToken, bench, roles, sessionId } from './peers/api-bench.ts'
import type { Bench } from './peers/api-bench.ts'

/** A real address for a route of the table. */
function addressFor(route: Route): string {
  return addressOf(route).replace('{id}', route.path.startsWith('/leases') ? 'lease-none' : sessionId)
    .replace('{kind}', 'target').replace('{name}', 'none').replace('{plugin}', 'postgres')
    .replace('{path}', 'prod%2Fnone').replace('{copy}', '1')
}

/** Tokens that stand for nobody (any more), and what is wrong with each. */
function worthless({ memory }: Bench): Record<string, string | undefined> {
  const [past, later] = [new Date('2000-01-01T00:00:00Z'), new Date('2100-01-01T00:00:00Z')]
  const admin = { user: 'first-admin', roles: ['admin'] as const }
  const expired = mintToken()
  memory.tokens.set(hashToken(expired), { ...admin, expiresAt: past, oneTime: false })
  const oneTime = mintToken()
  memory.tokens.set(hashToken(oneTime), { ...admin, expiresAt: later, oneTime: true })
  return {
    'no token': undefined,
    'an expired token of an admin': expired,
    'an expired token of an application': applicationToken(memory, past),
    'a one-time token that was not redeemed': oneTime,
    'a token that was never made': mintToken(),
    'a token of an application that was never made': mintApplicationToken(),
    'no token of ours at all': 'a-token-for-whoever-scrapet'
  }
}

test('every route answers each role as the table says (R18)', async () => {
  const { ask, routes, tokens } = bench()
  let checked = 0
  for (const route of routes) {
    for (const role of roles) {
      // Calls that would be allowed get as far as their schema or their row; never to "log in" or "denied".
      const body = route.method === 'get' || route.method === 'delete' ? undefined : { unknown: 1 }
      const token = tokens[role]
      const { status, json } = await ask(route.method.toUpperCase(), addressFor(route), { token, body })
      const allowed = route.roles === 'anyone' || route.roles.includes(role)
      const where = `${route.method} ${route.path} as ${role}: ${status} ${JSON.stringify(json)}`
      if (allowed) assert.not.ok([401, 403].includes(status), where)
      else assert.equal([status, json.error.code], [403, 'not-allowed'], where)
      checked++
    }
  }
  assert.is(checked, routes.length * 5)
  assert.ok(routes.length >= 60, `${routes.length} routes`)
})

// Promised: R18.
test('every route that needs a token refuses those that are missing, expired or worthless', async () => {
  const made = bench()
  const tokens = Object.entries(worthless(made))
  let checked = 0
  for (const route of made.routes) {
    const method = route.method.toUpperCase()
    for (const [what, token] of tokens) {
      const body = method === 'GET' || method === 'DELETE' ? undefined : { unknown: 1 }
      const { status, json } = await made.ask(method, addressFor(route), { token, body })
      const where = `${method} ${route.path} with ${what}: ${status} ${JSON.stringify(json)}`
      if (route.roles === 'anyone') assert.not.ok([401, 403].includes(status), where)
      else assert.equal([status, json.error.code], [401, 'auth-required'], where)
      checked++
    }
  }
  assert.is(checked, made.routes.length * tokens.length)
})

test('only logins, health and the public key are open to anyone', () => {
  assert.equal(bench().routes.filter(route => route.roles === 'anyone').map(route => route.path).sort(),
    ['/browser/login', '/browser/passkey', '/browser/passkey/challenge', '/browser/redeem', '/browser/ways',
      '/device/code', '/device/token', '/health', '/healthz', '/login', '/public-key', '/readyz', '/redeem'])
})

test('whatever changes something outside of the own login is for admins alone', () => {
  // The routes of the second factor look at whose it is: test/api-routes.ts. What people and applications do
  // with secrets and leases of theirs is checked against grants and owners (journeys/secret-holders.ts).
  const own = new Set([
    '/login', '/redeem', '/logout', '/users/{name}/second-factor', '/users/{name}/second-factor/confirm',
    // What waits is confirmed by its own person: test/login-requests.ts.
    '/device/code', '/device/token', '/login-requests/{code}/confirm', '/login-requests/{code}/deny',
    '/browser/login', '/browser/redeem', '/browser/logout', '/browser/passkey/challenge', '/browser/passkey',
    // Passkeys of one's own: test/passkeys.ts.
    '/users/{name}/passkeys/challenge', '/users/{name}/passkeys', 'delete /users/{name}/passkeys/{id}',
    // A ticket for the caller's own session; the grant is looked at when it is used.
    '/connections', '/browser/tickets',
    // Who asks and who decides is looked at for each request: test/requests.ts.
    '/requests', ...['approve', 'deny', 'withdraw', 'review'].map(part => `/requests/{id}/${part}`)
  ])
  const asks = new Set(['/lint', '/plan', '/rules/what-if', '/audit/verify'])
  const held = new Set([
    '/leases/{id}/renew', '/leases/{id}/revoke', '/secrets/{path}/generate', '/secrets/{path}/read'
  ])
  for (const { method, path, roles: allowed } of bench().routes) {
    if (method === 'get' || own.has(`${method} ${path}`) || (own.has(path) && method === 'post')) continue
    if (asks.has(path)) continue
    const expected = held.has(path) ? ['user', 'admin', 'application'] : ['admin']
    assert.equal(allowed, expected, `${method} ${path}`)
  }
})

test('the token of the metrics opens the metrics and nothing else', () => {
  const open = bench().routes.filter(route => route.roles !== 'anyone' && route.roles.includes('metrics'))
  assert.equal(open.map(({ method, path }) => `${method} ${path}`), ['get /metrics'])
})

test.run()
