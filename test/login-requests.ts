// Logins that a person confirms in the console: what the program that waits hears (RFC 8628), who may confirm
// and how freshly, that a confirmation is worth one token of that person, and how many one may begin or
// guess. On both stores: that of many at one moment one decides and one redeems.
import { suite, test } from 'uvu'
import * as assert from 'uvu/assert'
import { hashToken } from '../src/api/access.ts'
import { apply, deleteResource } from '../src/api/resources.ts'
import { createSallyportApi } from '../src/api/routes.ts'
import { createLoginRequestPort } from '../src/main/login-requests.ts'
import { createLoginRequests } from '../src/store/login-requests.ts'
import { createMemory } from './peers/api-ports.ts'
import type { Memory } from './peers/api-ports.ts'
import { requestRows } from './peers/login-ports.ts'
import { handClock } from './peers/raw-postgres.ts'
import { storeKinds, storeMaker } from './peers/stores.ts'

const password = 'correct horse'

interface Said {
  status: number
  code: string
  json: Record<string, unknown>
}

interface Bench {
  memory: Memory
  ports: ReturnType<typeof createMemory>['ports']
  post(path: string, body?: unknown, token?: string): Promise<Said>
  get(path: string, token?: string): Promise<Said>
  /** A token of a fresh login. */
  logIn(user: string): Promise<string>
  begin(): Promise<{ deviceCode: string, userCode: string }>
  /** What a program that has waited so many seconds hears. */
  poll(deviceCode: string, seconds?: number): Promise<string>
  pass(seconds: number): void
  noted: string[]
}

async function bench(): Promise<Bench> {
  const { memory, ports } = createMemory()
  const documents = ['alice', 'bob'].map(name => ({ kind: 'user', name, password: { value: password } }))
  await apply(ports, { documents, dryRun: false, prune: false }, 'local')
  const clock = handClock()
  const noted: string[] = []
  const note = (kind: string, actor: string, subject: string): void => {
    noted.push(`${kind} ${actor} ${subject}`)
  }
  ports.logins.requests = createLoginRequestPort(
    { clock, rows: requestRows(note, clock), origin: 'https://pam.test' })
  const app = createSallyportApi(ports, { localToken: undefined, loginTokenSeconds: 60 })
  const ask = async (method: string, path: string, body?: unknown, token?: string): Promise<Said> => {
    const answer = await app.request(`https://pam.test/api/v1${path}`, {
      method, ...method === 'GET' ? {} : { body: JSON.stringify(body ?? {}) }, headers: {
        host: 'pam.test', 'content-type': 'application/json',
        ...token === undefined ? {} : { authorization: `Bearer ${token}` }
      }
    }, { incoming: { socket: { remoteAddress: '192.0.2.7' } } })
    const json = await answer.json() as Record<string, unknown> & { error?: { code: string } }
    return { status: answer.status, code: json.error?.code ?? '', json }
  }
  const post: Bench['post'] = (path, body, token) => ask('POST', path, body, token)
  return {
    memory, ports, post, get: (path, token) => ask('GET', path, undefined, token),
    logIn: async user => String((await post('/login', { user, password })).json['token']),
    begin: async () => (await post('/device/code', { what: 'sallyport login' })).json as never,
    pass: seconds => clock.advance(seconds * 1000),
    noted,
    async poll(deviceCode, seconds = 3) {
      clock.advance(seconds * 1000)
      const { code, json } = await post('/device/token', { deviceCode })
      return code === '' ? String(json['token']) : code
    }
  }
}

test('a program waits until its person confirms, and then has one token of theirs', async () => {
  const { begin, poll, get, post, logIn, noted, memory } = await bench()
  const began = await begin() as Awaited<ReturnType<typeof begin>> & Record<string, unknown>
  assert.match(began.userCode, /^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$/)
  assert.equal([began['verificationUri'], began['verificationUriComplete']],
    ['https://pam.test/console/confirm', `https://pam.test/console/confirm#${began.userCode}`])
  assert.is(await poll(began.deviceCode), 'authorization-pending')
  const alice = await logIn('alice')
  const { json } = await get(`/login-requests/${began.userCode}`, alice)
  assert.equal([json['kind'], json['address'], json['what']], ['token', '192.0.2.7', 'sallyport login'])
  const typed = began.userCode.toLowerCase().replace('-', ' ')
  assert.is((await post(`/login-requests/${encodeURIComponent(typed)}/confirm`, {}, alice)).status, 200)
  assert.is((await post(`/login-requests/${began.userCode}/confirm`, {}, alice)).code, 'not-found', 'once')
  const tokens = await Promise.all([poll(began.deviceCode), poll(began.deviceCode)])
  const token = tokens.find(each => each.startsWith('sally_'))!
  assert.is(tokens.filter(each => each.startsWith('sally_')).length, 1)
  assert.is(await poll(began.deviceCode), 'expired-token', 'used')
  assert.is((await get('/whoami', token)).json['name'], 'alice')
  assert.equal(noted, ['login-request.approved alice 192.0.2.7'])
  assert.is((memory.audit.at(-1)!.detail as { method: string }).method, 'confirmed in the console')
})

test('a token that was confirmed elsewhere confirms nothing, nor does an old login', async () => {
  const { begin, poll, post, logIn, memory } = await bench()
  const [one, other] = [await begin(), await begin()]
  const alice = await logIn('alice')
  await post(`/login-requests/${one.userCode}/confirm`, {}, alice)
  const token = await poll(one.deviceCode)
  const tried = await post(`/login-requests/${other.userCode}/confirm`, {}, token)
  assert.is(tried.code, 'fresh-login-required')
  const row = memory.tokens.get(hashToken(alice))!
  row.login = { ...row.login!, at: new Date(row.login!.at.getTime() - 901_000) }
  const again = await post(`/login-requests/${other.userCode}/confirm`, {}, alice)
  assert.is(again.code, 'fresh-login-required')
  assert.is(await poll(other.deviceCode), 'authorization-pending')
})

test('who asks too often is told to slow down, who is turned away or too late hears that', async () => {
  const { begin, poll, post, logIn } = await bench()
  const { deviceCode, userCode } = await begin()
  assert.is(await poll(deviceCode), 'authorization-pending')
  assert.is(await poll(deviceCode, 1), 'slow-down')
  assert.is(await poll(deviceCode, 3), 'slow-down', 'five seconds more each time')
  assert.is(await poll(deviceCode, 13), 'authorization-pending')
  await post(`/login-requests/${userCode}/deny`, {}, await logIn('bob'))
  assert.is(await poll(deviceCode, 13), 'access-denied')
  const late = await begin()
  const alice = await logIn('alice')
  assert.is(await poll(late.deviceCode, 601), 'expired-token')
  assert.is((await post(`/login-requests/${late.userCode}/confirm`, {}, alice)).code, 'not-found')
  assert.is(await poll('nobody-has-this'), 'expired-token')
})

test('who is gone or switched off by then gets nothing', async () => {
  const { begin, poll, post, logIn, ports } = await bench()
  const [one, other] = [await begin(), await begin()]
  const [alice, bob] = [await logIn('alice'), await logIn('bob')]
  await post(`/login-requests/${one.userCode}/confirm`, {}, alice)
  await post(`/login-requests/${other.userCode}/confirm`, {}, bob)
  await deleteResource(ports, 'user', 'alice', 'local')
  const documents = [{ kind: 'user', name: 'bob', disabled: true }]
  await apply(ports, { documents, dryRun: false, prune: false }, 'local')
  assert.equal([await poll(one.deviceCode), await poll(other.deviceCode)], ['expired-token', 'access-denied'])
})

test('a connection is confirmed by its own person only, and is no token', async () => {
  const { get, post, logIn, poll, ports } = await bench()
  const { requests } = ports.logins
  const asked = { kind: 'session' as const, user: 'alice', address: '192.0.2.9', what: 'psql as alice+x' }
  const begun = await requests.begin(asked)
  const [alice, bob] = [await logIn('alice'), await logIn('bob')]
  assert.is((await get(`/login-requests/${begun.code}`, bob)).code, 'not-found')
  assert.is((await post(`/login-requests/${begun.code}/confirm`, {}, bob)).code, 'not-found')
  assert.is((await post(`/login-requests/${begun.code}/confirm`, {}, alice)).status, 200)
  assert.is(await poll(begun.secret), 'expired-token')
  const signal = AbortSignal.timeout(10_000)
  assert.is(await requests.decided(begun.secret, signal), 'approved')
  assert.is(await requests.decided(begun.secret, signal), 'expired', 'once')
  const turned = await requests.begin(asked)
  await post(`/login-requests/${turned.code}/deny`, {}, alice)
  assert.is(await requests.decided(turned.secret, signal), 'denied')
})

test('wrong codes are few for each person, beginnings for each address; both come back', async () => {
  const { get, logIn, post, begin, pass } = await bench()
  const [alice, bob, { userCode }] = [await logIn('alice'), await logIn('bob'), await begin()]
  const guesses: string[] = []
  for (let guess = 0; guess < 15; guess++) {
    guesses.push((await get('/login-requests/BBBB-CCCC', alice)).code)
  }
  assert.is(guesses.filter(code => code === 'not-found').length, 10)
  assert.is(guesses.at(-1), 'auth-throttled')
  assert.is((await get(`/login-requests/${userCode}`, bob)).status, 200, 'others have a share of their own')
  const codes: string[] = []
  for (let more = 0; more < 40; more++) codes.push((await post('/device/code', { what: 'x' })).code)
  assert.is(codes.filter(code => code === '').length, 29)
  assert.is(codes.at(-1), 'auth-throttled')
  pass(120)
  assert.is((await post('/device/code', { what: 'x' })).code, '')
  assert.is((await get(`/login-requests/${userCode}`, alice)).status, 200)
})

test.run()

// ---- on the stores

for (const kind of storeKinds) {
  const on = suite(kind)
  const stores = storeMaker(kind)
  const events: string[] = []
  let rows: ReturnType<typeof createLoginRequests>

  on.before(async () => {
    const { database } = await stores.open()
    rows = createLoginRequests(database, {
      appendIn: (_tx, what, actor, subject) => { events.push(`${what} ${actor} ${subject}`) }
    })
  })
  on.after(() => stores.close())

  const request = (name: string, more: { ttlSeconds?: number, user?: string } = {}) => ({
    hash: `hash of ${name}`, code: name, kind: 'token' as const, user: more.user ?? null,
    address: '192.0.2.1', what: 'w', ttlSeconds: more.ttlSeconds ?? 60, intervalSeconds: 5
  })
  const once = async (tries: Promise<boolean>[]): Promise<number> =>
    (await Promise.all(tries)).filter(Boolean).length

  on('of many at one moment one decides and one redeems', async () => {
    const expiresAt = (await rows.add(request('a')))!
    assert.ok(Math.abs(expiresAt.getTime() - Date.now() - 60_000) < 30_000)
    assert.is(await rows.add(request('a')), undefined, 'a code that is in use')
    assert.is(await rows.take('hash of a'), false, 'not before it is approved')
    const verdicts = ['approved', 'denied', 'approved', 'denied'] as const
    assert.is(await once(verdicts.map(state => rows.decide('a', state, 'eve'))), 1)
    assert.is(events.length, 1)
    await rows.add(request('b'))
    await rows.decide('b', 'approved', 'eve')
    assert.is(await once(Array.from({ length: 6 }, () => rows.take('hash of b'))), 1)
    assert.is(await rows.look('hash of b'), undefined)
  })

  on('who looks too soon is hasty, and has to wait longer; what is over is not there', async () => {
    await rows.add(request('c'))
    const seen = [await rows.look('hash of c'), await rows.look('hash of c')]
    assert.equal(seen.map(row => [row!.isHasty, row!.state]), [[false, 'pending'], [true, 'pending']])
    assert.is((await rows.find('c'))!.code, 'c')
    await rows.add(request('d', { ttlSeconds: -1 }))
    assert.equal([await rows.look('hash of d'), await rows.find('d')], [undefined, undefined])
    assert.is(await rows.decide('d', 'approved', 'eve'), false)
    await rows.add(request('e', { user: 'gone' }))
    await rows.add(request('f'))
    await rows.decide('f', 'approved', 'gone')
    await rows.removeOf('gone')
    assert.equal([await rows.find('e'), await rows.take('hash of f')], [undefined, false])
  })

  on.run()
}
