// What the API does for browsers: the cookie that stands for a token, the requests with which it counts, and
// the console's files with the policy of its pages. The pages themselves are in journeys/console.ts.
import { createHash } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { hashToken, mintToken } from '../src/api/access.ts'
import { cookieName } from '../src/api/cookie.ts'
import { createSallyportApi } from '../src/api/routes.ts'
import { consoleFiles } from '../src/main/console.ts'
import { createMemory } from './peers/api-ports.ts'
import type { Memory } from './peers/api-ports.ts'

const host = 'sallyport.test:8443'
const own = `https://${host}`

interface Bench {
  memory: Memory
  token: string
  ask(method: string, path: string, headers?: Record<string, string>, body?: unknown): Promise<Response>
}

function bench(): Bench {
  const { memory, ports } = createMemory()
  const token = mintToken()
  const expiresAt = new Date('2100-01-01T00:00:00Z')
  memory.tokens.set(hashToken(token), { user: 'ada', roles: ['admin'], expiresAt, oneTime: false })
  const at = new Date(0)
  memory.resources.set('user/ada', {
    kind: 'user', name: 'ada', version: 1, createdAt: at, updatedAt: at, updatedBy: 'local',
    spec: { name: 'ada', roles: ['admin'], publicKeys: [], disabled: false }
  })
  const app = createSallyportApi(ports,
    { localToken: undefined, loginTokenSeconds: 60, console: consoleFiles() })
  return {
    memory, token,
    ask: async (method, path, headers = {}, body) => app.request(`${own}${path}`, {
      method, headers: {
        host, ...body === undefined ? {} : { 'content-type': 'application/json' }, ...headers
      }, ...body === undefined ? {} : { body: JSON.stringify(body) }
    }, { incoming: { socket: { remoteAddress: '192.0.2.7' } } })
  }
}

const codeOf = async (answer: Response): Promise<string> =>
  (await answer.json() as { error: { code: string } }).error.code

test('a browser gets its token as a cookie that no script and no other host can have', async () => {
  const { ask, memory } = bench()
  const oneTime = mintToken()
  const expiresAt = new Date('2100-01-01T00:00:00Z')
  memory.tokens.set(hashToken(oneTime), { user: 'first-admin', roles: ['admin'], expiresAt, oneTime: true })
  const answer = await ask('POST', '/api/v1/browser/redeem', { origin: own }, { token: oneTime })
  assert.is(answer.status, 200)
  const cookie = answer.headers.get('set-cookie')!
  assert.match(cookie, /^__Host-sallyport=sally_[\w-]{43}; Path=\/; Secure; HttpOnly; SameSite=Strict$/)
  const said = await answer.text()
  assert.not.match(said, /sally_/, 'the answer, which scripts can read, does not have it')
  const { name } = JSON.parse(said) as { name: string }
  assert.is(name, 'first-admin')
  const whoami = await ask('GET', '/api/v1/whoami', { cookie: cookie.split(';')[0]! })
  assert.is(whoami.status, 200)
  const failed = await ask('POST', '/api/v1/browser/redeem', { origin: own }, { token: oneTime })
  assert.equal([failed.status, failed.headers.get('set-cookie')], [401, null])
})

test('with the cookie a request counts only from a page of this host (R19)', async () => {
  const { ask, token } = bench()
  const cookie = `other=1; ${cookieName}=${token}`
  const cases: [method: string, headers: Record<string, string>, status: number][] = [
    ['GET', {}, 200],
    ['GET', { 'sec-fetch-site': 'same-origin' }, 200],
    ['GET', { 'sec-fetch-site': 'same-site' }, 403],
    ['GET', { 'sec-fetch-site': 'cross-site' }, 403],
    ['GET', { 'sec-fetch-site': 'none' }, 403],
    ['GET', { origin: 'https://evil.test' }, 403],
    ['POST', { origin: own }, 200],
    ['POST', {}, 403],
    ['POST', { 'sec-fetch-site': 'same-origin' }, 403],
    ['POST', { origin: 'null' }, 403],
    ['POST', { origin: 'https://sallyport.test' }, 403],
    ['POST', { origin: 'http://sallyport.test:8443' }, 403],
    ['POST', { origin: 'https://evil.test', 'sec-fetch-site': 'same-origin' }, 403]
  ]
  for (const [method, headers, status] of cases) {
    const answer = method === 'GET'
      ? await ask(method, '/api/v1/whoami', { cookie, ...headers })
      : await ask(method, '/api/v1/lint', { cookie, ...headers }, { body: 'id: x' })
    assert.is(answer.status, status, `${method} ${JSON.stringify(headers)}`)
    if (status === 403) assert.is(await codeOf(answer), 'not-allowed')
  }
  const bearer = await ask('POST', '/api/v1/lint', { authorization: `Bearer ${token}` }, { body: 'id: x' })
  assert.is(bearer.status, 200, 'whoever puts the token into a header is no browser')
  const worse = await ask('GET', '/api/v1/whoami', { cookie, authorization: 'Bearer wrong' })
  assert.is(worse.status, 401, 'a header that is wrong is not made good by a cookie')
})

test('logging out ends the token in the store and the cookie in the browser', async () => {
  const { ask, memory, token } = bench()
  const cookie = `${cookieName}=${token}`
  const answer = await ask('POST', '/api/v1/browser/logout', { cookie, origin: own })
  assert.is(answer.status, 200)
  assert.match(answer.headers.get('set-cookie')!, /^__Host-sallyport=; Max-Age=0; Path=\/; Secure/)
  assert.is(memory.tokens.size, 0)
  assert.is((await ask('GET', '/api/v1/whoami', { cookie })).status, 401)
})

test('a ticket for a session in a page is only for the cookie of somebody who is declared', async () => {
  const { ask, memory, token } = bench()
  const path = '/api/v1/browser/tickets'
  const cookie = `${cookieName}=${token}`
  assert.is((await ask('POST', path, { cookie, origin: own })).status, 200)
  assert.is(await codeOf(await ask('POST', path, { cookie })), 'not-allowed', 'no page of ours')
  assert.is(await codeOf(await ask('POST', path, { authorization: `Bearer ${token}` })), 'not-found')
  assert.is(await codeOf(await ask('POST', path, { origin: own })), 'auth-required')
  const expiresAt = new Date('2100-01-01T00:00:00Z')
  const first = mintToken()
  memory.tokens.set(hashToken(first), { user: 'first-admin', roles: ['admin'], expiresAt, oneTime: false })
  const unknown = await ask('POST', path, { cookie: `${cookieName}=${first}`, origin: own })
  assert.is(await codeOf(unknown), 'not-allowed', 'nobody that a grant could name')
})

test('the cookie is replaced after an hour and when roles change; the old one ends', async () => {
  const { ask, memory, token } = bench()
  const whoami = (with_: string): Promise<Response> =>
    ask('GET', '/api/v1/whoami', { cookie: `${cookieName}=${with_}` })
  const row = memory.tokens.get(hashToken(token))!
  const ago = (seconds: number): Date => new Date(Date.now() - seconds * 1000)
  row.createdAt = ago(3500)
  assert.is((await whoami(token)).headers.get('set-cookie'), null)
  row.createdAt = ago(3700)
  const bearer = await ask('GET', '/api/v1/whoami', { authorization: `Bearer ${token}` })
  assert.is(bearer.headers.get('set-cookie'), null, 'a program would not see another')
  const answers = await Promise.all([1, 2, 3].map(() => whoami(token)))
  const cookies = answers.map(({ headers }) => headers.get('set-cookie'))
  const [next, ...more] = cookies.filter(each => each !== null)
  assert.equal(more, [], 'of requests at one moment one replaces it')
  const fresh = /^__Host-sallyport=(.{49}); Path=\/; Secure; HttpOnly; SameSite=Strict$/.exec(next!)![1]!
  assert.is.not(fresh, token)
  assert.is((await whoami(fresh)).headers.get('set-cookie'), null)
  assert.is((await whoami(token)).status, 200, 'for what is on its way')
  assert.equal(memory.tokens.get(hashToken(fresh))!.expiresAt, row.expiresAt, 'the end stays what it was')

  const spec = { name: 'ada', roles: ['auditor'], publicKeys: [], disabled: false }
  memory.resources.get('user/ada')!.spec = spec
  const third = (await whoami(fresh)).headers.get('set-cookie')!
  const changed = /__Host-sallyport=([^;]+)/.exec(third)![1]!
  assert.equal(memory.tokens.get(hashToken(changed))!.roles, ['auditor'])

  memory.tokens.get(hashToken(fresh))!.supersededAt = ago(61)
  assert.is((await whoami(fresh)).status, 401, 'somebody has a copy')
  assert.is((await whoami(changed)).status, 401, 'and whose login it is has it no more')
  assert.is(memory.audit.at(-1)!.kind, 'token.reused')
})

test('a page allows its own files and one script by hash, WebAssembly only for a player', async () => {
  const { ask } = bench()
  const page = await ask('GET', '/console/')
  assert.is(page.status, 200)
  const policy = page.headers.get('content-security-policy')!
  for (const part of ["default-src 'self'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'",
    "require-trusted-types-for 'script'"]) assert.ok(policy.includes(part), part)
  assert.not.match(policy, /unsafe/)
  const html = await page.text()
  const [inline, ...more] = html.matchAll(/<script(?! type="module" src)[^>]*>([^<]*)<\/script>/g)
  assert.is(more.length, 0)
  assert.ok(policy.includes(createHash('sha256').update(inline![1]!).digest('base64')))
  assert.not.match(html, /\son\w+=|style=/)
  const session = await ask('GET', '/console/sessions/01hzzzzzzzaaaaaaaaaaaaaaaa')
  const player = session.headers.get('content-security-policy')!
  assert.ok(player.includes("'wasm-unsafe-eval'"))
  assert.not.match(player, /'unsafe-/)
  for (const path of ['/', '/console']) {
    assert.is((await ask('GET', path)).headers.get('location'), '/console/')
  }
})

test('only what is in the table is served, with an address that changes when it does', async () => {
  const { ask } = bench()
  const html = await (await ask('GET', '/console/')).text()
  const main = /src="([^"]+\/main\.ts)"/.exec(html)![1]!
  const first = await ask('GET', main)
  assert.is(first.headers.get('content-type'), 'text/javascript; charset=utf-8')
  assert.match(first.headers.get('cache-control')!, /immutable/)
  assert.not.match(await first.text(), /import type|interface /)
  const again = await ask('GET', main, { 'if-none-match': first.headers.get('etag')! })
  assert.is(again.status, 304)
  const packed = await ask('GET', main, { 'accept-encoding': 'br, gzip' })
  assert.is(packed.headers.get('content-encoding'), 'gzip')
  const folder = main.replace('/console/main.ts', '')
  for (const path of [
    `${folder}/console/tsconfig.json`, `${folder}/../../package.json`, `${folder}/%2e%2e/main.ts`,
    `${folder}/main.ts`, '/console/0000000000000000/console/main.ts', `${folder}/npm/preact/package.json`,
    '/console/..%2f..%2fetc%2fpasswd.txt'
  ]) assert.is((await ask('GET', path)).status, 404, path)
})

test.run()
