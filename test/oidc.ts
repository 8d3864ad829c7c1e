// Logging in at an identity provider, with a real one in a process of its own: who comes back is the user of
// a claim or is made one, with the roles of the groups as they are at that login; and what does not count:
// another browser's answer, an answer twice, a code that was begun elsewhere (PKCE), a provider that is away
// or lies.
import { createServer } from 'node:http'
import { createHmac, generateKeyPairSync, sign } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { hashToken } from '../src/api/access.ts'
import { apply, deleteResource } from '../src/api/resources.ts'
import { createSallyportApi } from '../src/api/routes.ts'
import { systemClock } from '../src/clock.ts'
import { parseConfig } from '../src/config.ts'
import type { OidcConfig } from '../src/config.ts'
import { createOidcPort } from '../src/main/oidc.ts'
import { nameOf, rolesOf } from '../src/policy/identity.ts'
import type { User } from '../src/policy/types.ts'
import { freePort } from '../tool/postgres.ts'
import { createMemory } from './peers/api-ports.ts'
import type { Memory } from './peers/api-ports.ts'
import { clientId, clientSecret, startProvider } from './peers/identity-provider.ts'
import type { Provider } from './peers/identity-provider.ts'
import { testOrigin } from './peers/login-ports.ts'

const callback = `${testOrigin}/login/oidc/callback`
const accessCookie = /__Host-sallyport=(sally_[\w-]{43}); Path=\/; Secure; HttpOnly; SameSite=Strict/

let provider: Provider

test.before(async () => {
  provider = await startProvider(callback)
})
test.after(async () => provider.end())

const settingOf = (more: string, issuer = provider.issuer): OidcConfig => parseConfig(`
login:
  oidc:
    issuer: ${issuer}
    clientId: ${clientId}
    clientSecret: { env: SECRET }
    groups: { staff: user, watch: auditor, ops: [user, admin] }
    ${more}`, undefined, {}, '/').login.oidc!

interface House {
  memory: Memory
  ports: ReturnType<typeof createMemory>['ports']
  browser(): Browser
  user(name: string): User | undefined
}

interface Browser {
  get(address: string): Promise<Response>
  /** As far as the provider. */
  begin(): Promise<string>
  /** From begin to end, as an account of the provider. */
  logIn(account: string): Promise<Response>
  whoami(): Promise<{ name: string, roles: string[] } | undefined>
}

function house(setting: OidcConfig): House {
  const { memory, ports } = createMemory()
  const spent = new Set<string>()
  ports.logins.oidc = createOidcPort({
    clock: systemClock, key: Buffer.alloc(32, 5), setting, origin: testOrigin,
    environment: { SECRET: clientSecret }, spend: async ({ id }) => spent.size < spent.add(id).size
  })
  const app = createSallyportApi(ports, { localToken: undefined, loginTokenSeconds: 43_200 })
  const browser = (): Browser => {
    const jar = new Map<string, string>()
    const get = async (address: string): Promise<Response> => {
      const answer = await app.request(new URL(address, testOrigin).href, {
        headers: { host: 'localhost:8443', cookie: [...jar].map(pair => pair.join('=')).join('; ') }
      }, { incoming: { socket: { remoteAddress: '192.0.2.7' } } })
      for (const line of answer.headers.getSetCookie()) {
        const [, name, value] = /^([^=]+)=([^;]*)/.exec(line)!
        if (value === '') jar.delete(name!)
        else jar.set(name!, value!)
      }
      return answer
    }
    const begin = async (): Promise<string> => {
      const answer = await get('/login/oidc')
      const to = answer.headers.get('location')
      assert.ok(to !== null, await answer.text())
      return to!
    }
    return {
      get, begin,
      logIn: async account => get(await provider.logIn(await begin(), account)),
      async whoami() {
        const answer = await get('/api/v1/whoami')
        return answer.status === 200 ? await answer.json() as { name: string, roles: string[] } : undefined
      }
    }
  }
  return {
    memory, ports, browser, user: name => memory.resources.get(`user/${name}`)?.spec as User | undefined
  }
}

const declare = (ports: House['ports'], ...documents: object[]): Promise<unknown> =>
  apply(ports, { documents, dryRun: false, prune: false }, 'ada')
const why = (memory: Memory): string =>
  String((memory.audit.findLast(({ kind }) => kind === 'login.refused')?.detail as { why: string }).why)

async function refusal(answer: Response): Promise<string> {
  const text = await answer.text()
  assert.match(answer.headers.get('content-security-policy')!, /default-src 'none'/)
  assert.not.match(text, /<script|\?code=/)
  return /<code>([a-z-]+) [0-9a-f]{6}<\/code>/.exec(text)?.[1] ?? text
}

test('who is in a group is made a user with its roles, and logged in for as long as is allowed', async () => {
  const { browser, memory, user } = house(settingOf('createUsers: true\n    session: 1h'))
  provider.accounts['s-1'] = { preferred_username: 'Erin', groups: ['staff', 'watch', 'other'] }
  const guest = browser()
  const answer = await guest.logIn('s-1')
  assert.equal([answer.status, answer.headers.get('location')], [302, '/console/'])
  const token = accessCookie.exec(answer.headers.get('set-cookie')!)![1]!
  assert.equal((await guest.whoami())!, { name: 'erin', roles: ['user', 'auditor'], how: 'token' })
  assert.equal([user('erin')!.rolesFromGroups, user('erin')!.roles], [true, ['user', 'auditor']])
  const row = memory.tokens.get(hashToken(token))!
  const seconds = (row.expiresAt.getTime() - Date.now()) / 1000
  assert.ok(seconds > 3500 && seconds <= 3600, `${seconds} s`)
  assert.is(row.login!.method, 'identity provider')
  assert.equal(memory.audit.map(({ kind, actor }) => `${kind} ${actor}`),
    ['resource.created identity-provider', 'login erin'])
})

test('roles follow the groups at each login; without a group one is off, and on again with one', async () => {
  const { browser, ports, user } = house(settingOf('createUsers: true'))
  provider.accounts['s-2'] = { preferred_username: 'frank', groups: ['ops'] }
  const first = browser()
  await first.logIn('s-2')
  assert.equal((await first.whoami())!.roles, ['user', 'admin'])
  provider.accounts['s-2'] = { preferred_username: 'frank', groups: 'staff' }
  await browser().logIn('s-2')
  assert.equal((await first.whoami())!.roles, ['user'], 'the older login has lost the role, too')
  provider.accounts['s-2'] = { preferred_username: 'frank', groups: [] }
  assert.is(await refusal(await browser().logIn('s-2')), 'no-such-person')
  assert.equal([user('frank')!.disabled, await first.whoami()], [true, undefined])
  provider.accounts['s-2'] = { preferred_username: 'frank', groups: ['watch'] }
  const again = browser()
  await again.logIn('s-2')
  assert.equal((await again.whoami())!.roles, ['auditor'])
  await declare(ports, { kind: 'user', name: 'frank', rolesFromGroups: true, disabled: true })
  assert.is(await refusal(await browser().logIn('s-2')), 'no-such-person', 'an admin switched frank off')
})

test('a declared user is found by the claim, keeps the declared roles, and is one subject', async () => {
  const { browser, memory, ports, user } = house(settingOf('userClaim: email\n    userDomain: example.org'))
  await declare(ports, { kind: 'user', name: 'grace', roles: ['auditor'] })
  provider.accounts['s-3'] = { email: 'grace@Example.org', email_verified: true, groups: ['ops'] }
  const guest = browser()
  await guest.logIn('s-3')
  assert.equal((await guest.whoami())!.roles, ['auditor'])
  assert.is(user('grace')!.rolesFromGroups, undefined)
  provider.accounts['s-4'] = { email: 'grace@example.org', email_verified: true, groups: [] }
  assert.is(await refusal(await browser().logIn('s-4')), 'no-such-person')
  assert.match(why(memory), /another subject/)
  provider.accounts['s-3'] = { email: 'grace.hopper@example.org', email_verified: true, groups: [] }
  await guest.logIn('s-3')
  assert.is((await guest.whoami())!.name, 'grace', 'names change, subjects do not')
  await ports.logins.identities.removeOf('grace', 'ada')
  await browser().logIn('s-4')
  assert.is(memory.audit.at(-1)!.actor, 'grace')
  await deleteResource(ports, 'user', 'grace', 'ada')
  await declare(ports, { kind: 'user', name: 'grace' })
  assert.is((await browser().logIn('s-4')).status, 302, 'a new user of that name is bound anew')
})

test('nobody, and whoever is switched off or claims no name, is told so and is on record', async () => {
  const { browser, memory, ports } = house(settingOf('createUsers: false'))
  await declare(ports, { kind: 'user', name: 'heidi', disabled: true })
  const cases: [claims: Record<string, unknown>, why: RegExp][] = [
    [{ preferred_username: 'nobody-here' }, /there is no user nobody-here/],
    [{ preferred_username: 'heidi' }, /heidi is disabled/], [{ preferred_username: 'a b' }, /is no name/],
    [{}, /claim preferred_username is missing/]
  ]
  for (const [at, [claims, expected]] of cases.entries()) {
    provider.accounts[`s-5${at}`] = claims
    const guest = browser()
    assert.is(await refusal(await guest.logIn(`s-5${at}`)), 'no-such-person')
    assert.match(why(memory), expected)
    assert.is(await guest.whoami(), undefined)
  }
  const creating = house(settingOf('createUsers: true'))
  provider.accounts['s-59'] = { preferred_username: 'local', groups: ['ops'] }
  assert.is(await refusal(await creating.browser().logIn('s-59')), 'no-such-person', 'a name of our own')
  provider.accounts['s-59'] = { preferred_username: 'ivan', groups: ['unknown'] }
  assert.is(await refusal(await creating.browser().logIn('s-59')), 'no-such-person')
  assert.is(creating.user('ivan'), undefined)
})

test('an answer counts for the browser that began, once, with its own code', async () => {
  const { browser, memory } = house(settingOf('createUsers: true'))
  provider.accounts['s-6'] = { preferred_username: 'judy', groups: ['staff'] }
  const [mine, other] = [browser(), browser()]
  const back = await provider.logIn(await mine.begin(), 's-6')
  await other.begin()
  assert.is(await refusal(await other.get(back)), 'provider-refused', 'another browser')
  assert.match(why(memory), /state/)
  assert.is(await refusal(await browser().get(back)), 'provider-refused', 'one that began nothing')
  assert.match(why(memory), /state/, 'which any page could have sent: nothing is said or counted of it')
  // Somebody else's code under a state of one's own: only the verifier tells them apart.
  const [state, victim] = [new URL(await mine.begin()).searchParams.get('state')!, browser()]
  const injected = new URL(await provider.logIn(await victim.begin(), 's-6'))
  injected.searchParams.set('state', state)
  assert.is(await refusal(await mine.get(injected.href)), 'provider-refused', 'PKCE')
  const whole = await provider.logIn(await mine.begin(), 's-6')
  assert.is((await mine.get(whole)).status, 302)
  assert.is(await refusal(await mine.get(whole)), 'provider-refused', 'twice')
  const denied = new URL(await mine.begin())
  const query = new URLSearchParams({
    error: 'access_denied', state: denied.searchParams.get('state')!, iss: provider.issuer
  })
  assert.is(await refusal(await mine.get(`${callback}?${query}`)), 'provider-refused')
})

test('the provider itself demands PKCE by S256, and that is what we send', async () => {
  const address = new URL(await house(settingOf('')).browser().begin())
  const { searchParams: asked } = address
  assert.is(asked.get('code_challenge_method'), 'S256')
  assert.match(asked.get('code_challenge')!, /^[\w-]{43}$/)
  for (const name of ['code_challenge', 'code_challenge_method']) asked.delete(name)
  const without = await fetch(address, { redirect: 'manual' })
  assert.match(without.headers.get('location')!, /error=invalid_request/)
})

test('a way back leads to the page that one came for, and to none outside', async () => {
  const { browser } = house(settingOf('createUsers: true'))
  provider.accounts['s-7'] = { preferred_username: 'kim', groups: ['staff'] }
  const cases = [
    ['/console/sessions', '/console/sessions'], ['/console/confirm#ABCD-EFGH', '/console/confirm#ABCD-EFGH'],
    ['https://evil.test/console/', '/console/'], ['//evil.test', '/console/'],
    ['/console/\r\nx: y', '/console/']
  ]
  for (const [to, expected] of cases) {
    const guest = browser()
    const answer = await guest.get(`/login/oidc?to=${encodeURIComponent(to!)}`)
    const done = await guest.get(await provider.logIn(answer.headers.get('location')!, 's-7'))
    assert.is(done.headers.get('location'), expected, to)
  }
})

test('a provider that is away is a sentence with a code, and is used again when it is back', async () => {
  const { browser, memory } = house(settingOf('createUsers: true'))
  provider.accounts['s-8'] = { preferred_username: 'lee', groups: ['staff'] }
  await provider.stop()
  const down = await browser().get('/login/oidc')
  assert.is(down.status, 502)
  assert.is(await refusal(down), 'provider-unavailable')
  assert.match(memory.failures.at(-1)!.detail!, /ECONNREFUSED|fetch failed/)
  await provider.start()
  const guest = browser()
  const back = await provider.logIn(await guest.begin(), 's-8')
  await provider.stop()
  assert.is(await refusal(await guest.get(back)), 'provider-unavailable', 'between the two')
  await provider.start()
  assert.is((await browser().logIn('s-8')).status, 302)
})

// ---- a provider that lies: no real one does

interface Lie {
  claims?: Record<string, unknown>
  header?: Record<string, unknown>
  sign?: (text: string) => Buffer
}

async function lying(lie: Lie): Promise<{ issuer: string, told(nonce: string): void, close(): void }> {
  const port = await freePort()
  const issuer = `http://127.0.0.1:${port}`
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  let nonce = ''
  const base64 = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const idToken = (): string => {
    const now = Math.floor(Date.now() / 1000)
    const claims = {
      iss: issuer, aud: clientId, sub: 's', nonce, iat: now, exp: now + 60, auth_time: now,
      preferred_username: 'mallory', groups: ['ops'], ...lie.claims
    }
    const text = `${base64({ alg: 'RS256', kid: 'k', ...lie.header })}.${base64(claims)}`
    const signed = (lie.sign ?? (input => sign('sha256', Buffer.from(input), privateKey)))(text)
    return `${text}.${signed.toString('base64url')}`
  }
  const server = createServer((request, response) => {
    const answers: Record<string, unknown> = {
      '/.well-known/openid-configuration': {
        issuer, authorization_endpoint: `${issuer}/auth`, token_endpoint: `${issuer}/token`,
        jwks_uri: `${issuer}/jwks`, response_types_supported: ['code'],
        id_token_signing_alg_values_supported: ['RS256']
      },
      '/jwks': { keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'k', use: 'sig', alg: 'RS256' }] },
      '/token': { access_token: 'a', token_type: 'bearer', id_token: idToken() }
    }
    response.setHeader('content-type', 'application/json').end(JSON.stringify(answers[request.url!] ?? {}))
  })
  await new Promise<void>(resolve => { server.listen(port, '127.0.0.1', resolve) })
  return { issuer, told: given => { nonce = given }, close: () => server.close() }
}

test('an ID token that is not for us, not of this login, too old or not signed is refused', async () => {
  const past = Math.floor(Date.now() / 1000) - 3600
  const lies: [name: string, lie: Lie][] = [
    ['nothing wrong', {}], ['another nonce', { claims: { nonce: 'x' } }],
    ['no nonce', { claims: { nonce: undefined } }],
    ['another issuer', { claims: { iss: 'https://evil.test' } }],
    ['for another', { claims: { aud: 'other' } }],
    ['too old', { claims: { iat: past - 60, exp: past } }],
    ['proved long ago', { claims: { auth_time: past } }],
    ['proved who knows when', { claims: { auth_time: undefined } }],
    ['no signature', { header: { alg: 'none' }, sign: () => Buffer.of() }],
    ['a wrong signature', { sign: () => Buffer.alloc(256) }],
    ['signed with what we share', {
      header: { alg: 'HS256' }, sign: text => createHmac('sha256', clientSecret).update(text).digest()
    }]
  ]
  for (const [name, lie] of lies) {
    const liar = await lying(lie)
    const { browser, user } = house(settingOf('createUsers: true', liar.issuer))
    const guest = browser()
    const { searchParams } = new URL(await guest.begin())
    liar.told(searchParams.get('nonce')!)
    const answer = await guest.get(`${callback}?code=c&state=${searchParams.get('state')!}`)
    if (name === 'nothing wrong') assert.is(answer.status, 302, await answer.text())
    else {
      assert.is(await refusal(answer), 'provider-refused', name)
      assert.equal([user('mallory'), await guest.whoami()], [undefined, undefined], name)
    }
    liar.close()
  }
})

test('names and roles come of the claims as they are declared', () => {
  const setting = {
    userClaim: 'email', userDomain: 'example.org', groupsClaim: 'roles',
    groups: new Map([['a', ['admin', 'user'] as const], ['b', ['user'] as const]])
  }
  const name = (claims: Record<string, unknown>): string => {
    const found = nameOf(claims, setting)
    return 'name' in found ? found.name : 'none'
  }
  assert.equal([
    { email: 'Al@example.org' }, { email: 'al' }, { email: 'al@evil.org' }, { email: 'al@example.org.evil' },
    { email: ['al'] }, {}, { email: '@example.org' }
  ].map(claims => name({ email_verified: true, ...claims })),
  ['al', 'none', 'none', 'none', 'none', 'none', 'none'])
  assert.equal([false, 'false', 'true', undefined].map(verified =>
    name({ email: 'al@example.org', email_verified: verified })), ['none', 'none', 'none', 'none'])
  const groups = [{ roles: ['b', 'a'] }, { roles: 'b' }, { roles: ['c', 7] }, {}]
  assert.equal(groups.map(claims => rolesOf(claims, setting)),
    [['user', 'admin'], ['user'], [], []])
})

test('the configuration takes a provider in clear on this machine only, and no secret in the file', () => {
  const parse = (lines: string): unknown =>
    parseConfig(`login: { oidc: { clientId: x, ${lines} } }`, undefined, {}, '/').login.oidc
  for (const issuer of ['https://id.example.org/realms/a', 'http://localhost:3000', 'http://[::1]:3000/x']) {
    assert.is((parse(`issuer: "${issuer}"`) as OidcConfig).issuer, issuer)
  }
  for (const wrong of [
    'issuer: http://id.example.org', 'issuer: http://localhost.evil.test',
    'issuer: "http://127.0.0.1@evil.test"', 'issuer: https://a, clientSecret: secret',
    'issuer: https://a, scopes: [profile]', 'issuer: https://a, more: 1',
    'issuer: https://a, groups: { a: root }'
  ]) assert.throws(() => parse(wrong), (thrown: Error) => /not valid/.test(thrown.message), wrong)
})

test.run()
