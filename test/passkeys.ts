// Passkeys: what a browser is asked, which answers count and which do not (another origin, another domain, no
// PIN, twice, too late, a copy that counts less), what a person may do about their own, and what a login with
// one opens. On both stores: that a count only grows and a challenge is answered once, of many at one moment.
import { suite, test } from 'uvu'
import * as assert from 'uvu/assert'
import { createSallyportApi } from '../src/api/routes.ts'
import { hashToken } from '../src/api/access.ts'
import type { LoginAsked, PasskeyAnswer, RegistrationAsked } from '../src/api/ports-login.ts'
import { apply, deleteResource } from '../src/api/resources.ts'
import { challengeSeconds, mintChallenge, readChallenge } from '../src/policy/challenge.ts'
import type { Database } from '../src/store/database.ts'
import { createIdentities } from '../src/store/identities.ts'
import { createPasskeys, passkeysPerUserMax } from '../src/store/passkeys.ts'
import type { SallyportError } from '../src/errors.ts'
import { consoleOrigin, domainOf } from '../src/main/logins.ts'
import { parseConfig } from '../src/config.ts'
import { loginsOf } from './peers/login-ports.ts'
import { createMemory } from './peers/api-ports.ts'
import type { Memory } from './peers/api-ports.ts'
import { securityKey } from './peers/security-key.ts'
import type { Behaviour, SecurityKey } from './peers/security-key.ts'
import { storeKinds, storeMaker } from './peers/stores.ts'

const own = 'https://localhost:8443'
const password = 'correct horse'

interface Said {
  status: number
  code: string
  problems: string[]
  json: Record<string, unknown>
}

interface Browser {
  ask(method: string, path: string, body?: unknown): Promise<Said>
  post(path: string, body?: unknown): Promise<Said>
  cookie(): string
}

interface Bench {
  memory: Memory
  ports: ReturnType<typeof createMemory>['ports']
  browser(): Browser
  /** Logged in by password. */
  alice(): Promise<Browser>
}

async function bench(): Promise<Bench> {
  const { memory, ports } = createMemory()
  const documents = [
    { kind: 'user', name: 'alice', password: { value: password } },
    { kind: 'user', name: 'bob', password: { value: password } },
    { kind: 'user', name: 'ada', roles: ['admin'], password: { value: password } }
  ]
  await apply(ports, { documents, dryRun: false, prune: false }, 'local')
  const app = createSallyportApi(ports, { localToken: undefined, loginTokenSeconds: 60 })
  const browser = (): Browser => {
    let cookie = ''
    const ask: Browser['ask'] = async (method, path, body) => {
      const answer = await app.request(`${own}/api/v1${path}`, {
        method, ...body === undefined ? {} : { body: JSON.stringify(body) }, headers: {
          host: 'localhost:8443', origin: own, cookie, 'content-type': 'application/json'
        }
      }, { incoming: { socket: { remoteAddress: '192.0.2.7' } } })
      cookie = answer.headers.get('set-cookie')?.split(';')[0] ?? cookie
      const json = await answer.json() as Record<string, unknown> & { error?: Said }
      const { code = '', problems = [] } = json.error ?? {}
      return { status: answer.status, code, problems, json }
    }
    return { ask, post: (path, body) => ask('POST', path, body), cookie: () => cookie }
  }
  const alice = async (): Promise<Browser> => {
    const entered = browser()
    assert.is((await entered.post('/browser/login', { user: 'alice', password })).status, 200)
    return entered
  }
  return { memory, ports, browser, alice }
}

const codeOf = (act: () => Promise<unknown>): Promise<string> =>
  act().then(() => '', (thrown: SallyportError) => thrown.code)

async function register(browser: Browser, key: SecurityKey, behaviour?: Behaviour): Promise<Said> {
  const { json } = await browser.post('/users/alice/passkeys/challenge')
  const answer = key.create(json as unknown as RegistrationAsked, behaviour)
  return browser.post('/users/alice/passkeys', { label: 'blue key', answer })
}

async function asked(browser: Browser, user?: string): Promise<LoginAsked> {
  return (await browser.post('/browser/passkey/challenge', { user })).json as unknown as LoginAsked
}

/** Alice with a passkey, and a browser where nobody is logged in. */
async function withKey(key = securityKey()): Promise<Bench & { key: SecurityKey, guest: Browser }> {
  const made = await bench()
  assert.is((await register(await made.alice(), key)).status, 200)
  return { ...made, key, guest: made.browser() }
}

test('a passkey is registered, listed, and logs its person in by itself or by name', async () => {
  const { alice, browser, memory } = await bench()
  const mine = await alice()
  const key = securityKey()
  const { json } = await register(mine, key)
  assert.equal([json['id'], json['name'], json['lastUsedAt']], [key.id, 'blue key', null])
  const listed = (await mine.ask('GET', '/users/alice/passkeys')).json
  const ids = (listed['passkeys'] as { id: string }[]).map(({ id }) => id)
  assert.equal([listed['origin'], ids], [own, [key.id]])
  for (const user of [undefined, 'alice']) {
    const guest = browser()
    const options = await asked(guest, user)
    assert.equal([options.rpId, options.userVerification], ['localhost', 'required'])
    assert.is(options.allowCredentials.some(({ id }) => id === key.id), user !== undefined)
    const entered = await guest.post('/browser/passkey', key.answer(options))
    assert.equal([entered.status, entered.json['name'], entered.json['token']], [200, 'alice', undefined])
    assert.is((await guest.ask('GET', '/whoami')).json['name'], 'alice')
  }
  const methods = memory.audit.filter(({ kind }) => kind === 'login')
    .map(({ detail }) => (detail as { method: string }).method)
  assert.equal(methods, ['password', 'passkey', 'passkey'])
})

test('an answer that is not for us, not verified, or not of its key is refused, and on record', async () => {
  const { key, guest, memory } = await withKey()
  const wrong: [Behaviour, RegExp][] = [
    [{ origin: 'https://evil.test' }, /origin/], [{ origin: 'https://localhost' }, /origin/],
    [{ rpId: 'evil.test' }, /RP ID/], [{ isUnverified: true }, /verif/],
    [{ userHandle: 'Ym9i' }, /user handle/]
  ]
  for (const [behaviour, why] of wrong) {
    const { code } = await guest.post('/browser/passkey', key.answer(await asked(guest), behaviour))
    assert.is(code, 'auth-failed', JSON.stringify(behaviour))
    assert.match(String((memory.audit.at(-1)!.detail as { why: string }).why), why)
  }
  const other = securityKey()
  const forged = { ...other.answer(await asked(guest)), id: key.id, rawId: key.id }
  assert.is((await guest.post('/browser/passkey', forged)).code, 'auth-failed')
  assert.is((await guest.post('/browser/passkey', other.answer(await asked(guest)))).code, 'auth-failed')
  assert.is(guest.cookie(), '')
})

test('a challenge is answered once, for what it was asked, and not after its time', async () => {
  const { key, guest, alice } = await withKey()
  const options = await asked(guest)
  const answer = key.answer(options)
  assert.is((await guest.post('/browser/passkey', answer)).status, 200)
  assert.is((await guest.post('/browser/passkey', answer)).code, 'auth-failed', 'the same answer')
  const fresh = key.answer(options)
  assert.is((await guest.post('/browser/passkey', fresh)).code, 'auth-failed', 'another to the same')
  const mine = await alice().catch(() => undefined)
  assert.is(mine, undefined, 'a password alone is not enough any more')
  const { json } = await guest.post('/users/alice/passkeys/challenge')
  const swapped = { ...options, challenge: (json as unknown as RegistrationAsked).challenge }
  assert.is((await guest.post('/browser/passkey', key.answer(swapped))).code, 'auth-failed')
})

test('challenges carry their end and our mark', () => {
  const [one, other] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)]
  const now = new Date('2026-11-28T12:00:00Z')
  const later = (seconds: number): Date => new Date(now.getTime() + seconds * 1000)
  const text = mintChallenge(one, 'login', now)
  assert.ok(readChallenge(one, 'login', text, later(challengeSeconds - 1)) !== undefined)
  assert.is(readChallenge(one, 'login', text, later(challengeSeconds)), undefined)
  assert.is(readChallenge(other, 'login', text, now), undefined)
  assert.is(readChallenge(one, 'other', text, now), undefined)
  const bent = Buffer.from(text, 'base64url')
  bent[17]! ^= 0x40
  assert.is(readChallenge(one, 'login', bent.toString('base64url'), now), undefined, 'another end')
  for (const wrong of ['', text.slice(1), `${text}A`, '*'.repeat(51)]) {
    assert.is(readChallenge(one, 'login', wrong, now), undefined)
  }
  assert.is.not(mintChallenge(one, 'login', now), text)
})

test('a count that goes back is a copy: it is refused and raises an alarm; no count is none', async () => {
  const { key, guest, memory } = await withKey()
  const counting = async (): Promise<Said> =>
    guest.post('/browser/passkey', key.answer(await asked(guest), { counter: 7 }))
  assert.equal([(await counting()).status, (await counting()).code], [200, 'auth-failed'])
  const alarms = memory.audit.filter(({ kind }) => kind === 'passkey.copied')
  assert.equal(alarms.map(({ actor }) => actor), ['alice'])
  const keychain = await withKey(securityKey({ counts: false }))
  for (let login = 0; login < 2; login++) {
    const answer = keychain.key.answer(await asked(keychain.guest))
    assert.is((await keychain.guest.post('/browser/passkey', answer)).status, 200)
  }
})

test('whoever has a passkey is asked for it after the password, or for a code', async () => {
  const { guest, memory } = await withKey()
  const first = await guest.post('/browser/login', { user: 'alice', password })
  assert.is(first.code, 'second-factor-required')
  assert.equal(first.problems.map(line => line.split(':')[0]), ['passkey'])
  const wrong = await guest.post('/browser/login', { user: 'alice', password: 'x' })
  assert.equal([wrong.code, wrong.problems], ['auth-failed', []], 'nothing is told before the password')
  memory.secondFactors.set('alice', { confirmed: true, codes: ['111111'] })
  const both = await guest.post('/browser/login', { user: 'alice', password })
  assert.equal(both.problems.map(line => line.split(':')[0]), ['passkey', 'code'])
  assert.is((await guest.post('/browser/login', { user: 'alice', password, code: '111111' })).status, 200)
})

test('whoever has none, one or several passkeys is asked alike', async () => {
  const { alice, browser } = await bench()
  const [mine, guest] = [await alice(), browser()]
  const [key, second] = [securityKey(), securityKey()]
  assert.is((await register(mine, key)).status, 200)
  const idsOf = async (user: string): Promise<string[]> =>
    (await asked(guest, user)).allowCredentials.map(({ id }) => id)
  const [one, bob, nobody] = [await idsOf('alice'), await idsOf('bob'), await idsOf('x')]
  assert.is((await register(mine, second)).status, 200)
  const two = await idsOf('alice')
  for (const ids of [one, two, bob, nobody]) {
    assert.is(new Set(ids).size, passkeysPerUserMax)
    assert.equal(ids, [...ids].sort(), 'no place tells which is whose')
    assert.ok(new Set(ids.map(({ length }) => length)).size > 1, 'nor a length')
  }
  assert.ok([key.id, second.id].every(id => two.includes(id)))
  assert.is(two.filter(id => one.includes(id)).length, passkeysPerUserMax - 1, 'the others stay')
  assert.equal(await idsOf('bob'), bob, 'always the same')
  assert.not.ok(bob.some(id => nobody.includes(id)))
})

test('only oneself registers, and with a fresh login; what is registered is what was asked for', async () => {
  const { alice, browser, memory } = await bench()
  const mine = await alice()
  const ada = browser()
  await ada.post('/browser/login', { user: 'ada', password })
  for (const [who, name] of [[mine, 'bob'], [ada, 'alice'], [mine, 'nobody']] as const) {
    assert.is((await who.post(`/users/${name}/passkeys/challenge`)).code, 'not-found', name)
  }
  const bad: Behaviour[] = [{ origin: 'https://evil.test' }, { rpId: 'evil.test' }, { isUnverified: true }]
  for (const behaviour of bad) {
    assert.is((await register(mine, securityKey(), behaviour)).code, 'invalid', JSON.stringify(behaviour))
  }
  const { json } = await mine.post('/users/alice/passkeys/challenge')
  const answer = securityKey().create(json as unknown as RegistrationAsked)
  assert.is((await mine.post('/users/alice/passkeys', { label: 'one', answer })).status, 200)
  const again = securityKey().create(json as unknown as RegistrationAsked)
  assert.is((await mine.post('/users/alice/passkeys', { label: 'two', answer: again })).code, 'invalid')
  const token = memory.tokens.get(hashToken(mine.cookie().split('=')[1]!))!
  token.login = { ...token.login!, at: new Date(token.login!.at.getTime() - 901_000) }
  assert.is((await mine.post('/users/alice/passkeys/challenge')).code, 'fresh-login-required')
  token.login = undefined
  assert.is((await mine.post('/users/alice/passkeys', { label: 'x', answer })).code, 'fresh-login-required')
})

test('the last second factor is an admin\'s to take away; a person who is removed has none', async () => {
  const { alice, browser, memory, ports } = await bench()
  const mine = await alice()
  const [one, other] = [securityKey(), securityKey()]
  for (const key of [one, other]) assert.is((await register(mine, key)).status, 200)
  const remove = (who: Browser, key: SecurityKey): Promise<Said> =>
    who.ask('DELETE', `/users/alice/passkeys/${key.id}`)
  const bob = browser()
  await bob.post('/browser/login', { user: 'bob', password })
  assert.is((await remove(bob, one)).code, 'not-found')
  assert.is((await remove(mine, one)).status, 200)
  assert.is((await remove(mine, other)).code, 'in-use')
  memory.secondFactors.set('alice', { confirmed: true, codes: [] })
  assert.is((await remove(mine, other)).status, 200)
  assert.is((await remove(mine, other)).code, 'not-found')
  await register(mine, one)
  await deleteResource(ports, 'user', 'alice', 'ada')
  assert.is(memory.passkeys.size, 0)
})

test('junk is no answer', async () => {
  const { guest, key } = await withKey()
  const answer = key.answer(await asked(guest))
  const junk = [
    { ...answer, type: 'x' }, { ...answer, response: { clientDataJSON: 'e30' } }, { ...answer, more: 1 },
    { ...answer, response: { ...answer.response, authenticatorData: '' } },
    { ...answer, response: { ...answer.response, signature: 'A'.repeat(40_000) } },
    { ...answer, response: { ...answer.response, clientDataJSON: 'bm8ganNvbg' } }
  ] as unknown as PasskeyAnswer[]
  for (const each of junk) {
    const { status, code } = await guest.post('/browser/passkey', each)
    assert.ok(status === 400 || code === 'auth-failed', JSON.stringify(each).slice(0, 80))
  }
})

test('the console is where we listen or as configured; without a domain there are no passkeys', async () => {
  const originOf = (text: string): string | undefined =>
    consoleOrigin(parseConfig(text, undefined, {}, '/'))
  assert.is(originOf(''), 'https://localhost:8443')
  assert.is(originOf('listen: { http: "[::1]:443" }'), 'https://localhost')
  assert.is(originOf('listen: { http: "10.0.0.5:8443" }'), 'https://10.0.0.5:8443')
  assert.is(originOf('listen: { http: null }'), undefined)
  assert.is(originOf('console: { origin: "https://PAM.example.org:443" }'), 'https://pam.example.org')
  assert.throws(() => originOf('console: { origin: "http://pam.example.org" }'), /not valid/)
  const named = [undefined, 'https://10.0.0.5:8443', 'https://[2001:db8::1]', 'https://pam.example.org']
  assert.equal(named.map(domainOf), [undefined, undefined, undefined, 'https://pam.example.org'])
  const nowhere = loginsOf(new Map(), () => undefined, undefined).passkeys
  assert.is(await codeOf(() => nowhere.beginLogin(undefined)), 'passkeys-unavailable')
  assert.is(await codeOf(() => nowhere.beginRegistration('alice')), 'passkeys-unavailable')
})

test.run()

// ---- on the stores

for (const kind of storeKinds) {
  const on = suite(kind)
  const stores = storeMaker(kind)
  let database: Database
  const events: string[] = []
  const rows = () => createPasskeys(database, {
    appendIn: (_tx, what, actor, subject) => { events.push(`${what} ${actor} ${subject}`) }
  })
  const row = (id: string, user = 'alice', counter = 0) =>
    ({ id, user, name: 'n', publicKey: 'AA', counter, backedUp: false })

  on.before(async () => { ({ database } = await stores.open()) })
  on.after(() => stores.close())

  on('passkeys are added up to a limit, found, used and removed, each on record', async () => {
    const passkeys = rows()
    const added = await passkeys.add(row('a', 'alice', 4))
    assert.is(added?.lastUsedAt, null)
    assert.is(await passkeys.add(row('a', 'bob')), undefined, 'one id, one person')
    const counted: boolean[] = []
    for (const each of [4, 3, 0, 5, 5]) counted.push(await passkeys.used('a', each))
    assert.equal(counted, [false, false, false, true, false])
    const copies = await Promise.all([6, 6, 6, 6].map(each => passkeys.used('a', each)))
    assert.is(copies.filter(Boolean).length, 1)
    assert.ok((await passkeys.get('a'))!.lastUsedAt !== null)
    await passkeys.add(row('b', 'bob'))
    assert.equal(await Promise.all([0, 0].map(each => passkeys.used('b', each))), [true, true])
    for (let more = 1; more < passkeysPerUserMax; more++) assert.ok(await passkeys.add(row(`a${more}`)))
    assert.is(await passkeys.add(row('too many')), undefined)
    assert.is(await passkeys.remove('bob', 'a', 'bob'), false)
    assert.is(await passkeys.remove('alice', 'a', 'root'), true)
    await passkeys.removeOf('alice', 'root')
    assert.equal((await passkeys.list('alice')).length, 0)
    assert.equal((await passkeys.list('bob')).map(({ id }) => id), ['b'])
    assert.equal([...new Set(events)].sort(), [
      'passkey.registered alice alice', 'passkey.registered bob bob', 'passkey.removed root alice'
    ])
  })

  on('of many that answer one challenge at one moment one does; expired ones take no room', async () => {
    const passkeys = rows()
    const soon = new Date(Date.now() + 60_000)
    const tries = Array.from({ length: 8 }, () => passkeys.spend({ id: 'c', expiresAt: soon }))
    assert.is((await Promise.all(tries)).filter(Boolean).length, 1)
    await passkeys.spend({ id: 'old', expiresAt: new Date(Date.now() - 1000) })
    await passkeys.spend({ id: 'd', expiresAt: soon })
    assert.is(await passkeys.spend({ id: 'old', expiresAt: soon }), true, 'its own end tells that it is old')
  })

  on('a subject is one user, a user one subject, also of many that come at one moment', async () => {
    const identities = createIdentities(database, { appendIn: () => undefined })
    const subjects = Array.from({ length: 8 }, (_, at) => `s${at}`)
    const bound = await Promise.all(subjects.map(subject => identities.bind('https://i', subject, 'alice')))
    const subject = subjects[bound.indexOf(true)]!
    assert.is(bound.filter(Boolean).length, 1)
    assert.is(await identities.get('https://i', subject), 'alice')
    assert.is(await identities.bind('https://i', subject, 'alice'), true, 'again')
    assert.is(await identities.bind('https://i', subject, 'bob'), false)
    assert.is(await identities.bind('https://other', 's', 'alice'), true, 'at another provider')
    assert.is(await identities.removeOf('alice', 'root'), true)
    assert.is(await identities.removeOf('alice', 'root'), false)
    assert.is(await identities.get('https://i', subject), undefined)
  })

  on.run()
}
