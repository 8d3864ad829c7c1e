// Who may open what: the grammars of login names, and the decision over declared grants. Pure data in,
// decision out.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import { authorise as decide, choicesOf, defaultMaxSessionSeconds } from '../src/policy/authorise.ts'
import type { Grant } from '../src/policy/authorise.ts'
import { printLoginName, readLoginName } from '../src/policy/login-name.ts'
import type { Credential, Declared, GrantRule, Target, User } from '../src/policy/types.ts'

const target = (name: string): Target => ({
  name, protocol: 'postgres', host: '127.0.0.1', port: 5432, database: 'postgres', tls: { mode: 'disable' }
})
const user = (name: string): User => ({ name, roles: ['user'], publicKeys: [], disabled: false })
const rule = (
  name: string, users: string[], credentials: string[], more: Partial<GrantRule> = {}
): GrantRule => ({ name, users, credentials, replication: false, ...more })

function declaredOf(credentials: Credential[], grants: GrantRule[]): Declared {
  return {
    targets: new Map(['orders', 'web01'].map(name => [name, target(name)])),
    credentials: new Map(credentials.map(each => [each.name, each])),
    users: new Map([['alice', user('alice')], ['bob', user('bob')]]),
    grants,
    environments: new Map(), secrets: new Map(), profiles: new Map(), applications: new Map()
  }
}

const credentials: Credential[] = [
  { name: 'orders-rw', target: 'orders' },
  { name: 'orders-admin', target: 'orders', username: 'root' },
  { name: 'web-root', target: 'web01', username: 'root' }
]
const grants = [rule('devs', ['alice'], ['orders-rw', 'web-root'])]
const noon = new Date('2026-11-21T12:00:00Z')
const wish = (login: string, database?: string) =>
  ({ login, database, replication: false, protocol: 'postgres' })

/** The decision where nobody has to be asked. */
function authorise(...given: Parameters<typeof decide>): Grant {
  const decision = decide(...given)
  assert.not.ok('approval' in decision)
  return decision as Grant
}

function refusalOf(act: () => unknown): string {
  try {
    act()
  } catch (thrown) {
    if (thrown instanceof SallyportError) return thrown.code
    throw thrown
  }
  return 'allowed'
}

test('every grammar that people know reads as the same user, credential and target (D2)', () => {
  const written = [
    'alice+root@web01', 'alice:root@web01', 'alice%root@web01', 'alice[root@web01]', 'alice#root@web01',
    'alice@root@web01'
  ]
  for (const text of written) {
    const { user, credential, target } = readLoginName(text) ?? {}
    assert.equal([user, credential, target], ['alice', 'root', 'web01'], text)
  }
  assert.equal(readLoginName('alice'), { user: 'alice', grammar: 'bare' })
  assert.equal(readLoginName('alice+orders-rw'), { user: 'alice', credential: 'orders-rw', grammar: '+' })
})

test('for PostgreSQL the grammar may stand in dbname, with the database behind a slash', () => {
  const read = readLoginName('alice', 'alice+orders-rw@orders/shop')
  assert.is(read?.credential, 'orders-rw')
  assert.is(read?.database, 'shop')
  assert.is(readLoginName('alice', '+orders-rw')?.credential, 'orders-rw')
  assert.is(readLoginName('alice', 'bob+orders-rw'), undefined)
  assert.is(readLoginName('alice', 'shop')?.grammar, 'bare')
})

test('names with metacharacters, empty parts or too many bytes are no login names', () => {
  const bad = [
    '', '+', 'alice+', '+root@web01', 'alice+root@', 'alice+root@web01@x', 'alice[root@web01', 'a b',
    'alice+r;t', 'alice+$(id)', 'alice\0', 'alice+root@web\n01', '../x', '-oProxy', 'alice+-x',
    'a'.repeat(257), 'ålice+root'
  ]
  for (const text of bad) assert.is(readLoginName(text), undefined, JSON.stringify(text.slice(0, 40)))
})

test('what is printed reads back as the same name', () => {
  for (const text of ['alice', 'alice+root', 'alice+root@web01']) {
    const read = readLoginName(text)
    assert.is(read === undefined ? undefined : printLoginName(read), text)
  }
})

test('a granted credential is opened by its name, by account and target, or alone on its target', () => {
  const declared = declaredOf(credentials, grants)
  const alice = user('alice')
  for (const login of ['alice+orders-rw', 'alice+orders-rw@orders', 'alice+orders']) {
    assert.is(authorise(declared, alice, wish(login), noon).credential.name, 'orders-rw', login)
  }
  assert.is(authorise(declared, alice, wish('alice+root@web01'), noon).credential.name, 'web-root')
})

test('what is not granted and what does not exist are refused alike', () => {
  const declared = declaredOf(credentials, grants)
  const alice = user('alice')
  assert.is(refusalOf(() => authorise(declared, alice, wish('alice+orders-admin'), noon)), 'not-allowed')
  assert.is(refusalOf(() => authorise(declared, alice, wish('alice+nothing'), noon)), 'not-allowed')
  assert.is(refusalOf(() => authorise(declared, user('bob'), wish('bob+orders-rw'), noon)), 'not-allowed')
})

test('a bare login opens the only credential allowed and asks when there are several', () => {
  const one = declaredOf(credentials, [rule('devs', ['alice'], ['orders-rw'])])
  assert.is(authorise(one, user('alice'), wish('alice'), noon).credential.name, 'orders-rw')
  const two = declaredOf(credentials, grants)
  assert.is(refusalOf(() => authorise(two, user('alice'), wish('alice'), noon)), 'login-unclear')
  assert.is(refusalOf(() => authorise(two, user('bob'), wish('bob'), noon)), 'login-unclear')
})

test('a grant counts only inside its window', () => {
  const window = { notBefore: '2026-11-21T11:00:00Z', notAfter: '2026-11-21T12:30:00Z' }
  const declared = declaredOf(credentials, [rule('short', ['alice'], ['orders-rw'], window)])
  const open = (at: string) => refusalOf(() =>
    authorise(declared, user('alice'), wish('alice+orders-rw'), new Date(at)))
  assert.is(open('2026-11-21T10:59:59Z'), 'not-allowed')
  assert.is(open('2026-11-21T11:00:00Z'), 'allowed')
  assert.is(open('2026-11-21T12:30:00Z'), 'not-allowed')
})

test('a session does not outlive the grant that opened it', () => {
  const window = { notAfter: '2026-11-21T12:30:00Z', maxSessionSeconds: 3600 }
  const declared = declaredOf(credentials, [rule('short', ['alice'], ['orders-rw'], window)])
  const granted = (at: string) => authorise(declared, user('alice'), wish('alice+orders-rw'), new Date(at))
  assert.is(granted('2026-11-21T11:00:00Z').maxSessionSeconds, 3600)
  assert.is(granted('2026-11-21T12:29:00Z').maxSessionSeconds, 60)
  assert.is(granted('2026-11-21T12:29:59.900Z').maxSessionSeconds, 1)
})

test('what one grant refuses another one may allow', () => {
  const declared = declaredOf(credentials, [
    rule('a-shop', ['alice'], ['orders-rw'], { databases: ['shop'] }),
    rule('b-crm', ['alice'], ['orders-rw'], { databases: ['crm'], replication: true }),
    rule('c-later', ['alice'], ['orders-rw'], { notBefore: '2026-11-22T00:00:00Z' })
  ])
  const open = (database: string, replication = false) => authorise(
    declared, user('alice'), { ...wish('alice+orders-rw', database), replication }, noon).rule.name
  assert.is(open('shop'), 'a-shop')
  assert.is(open('crm'), 'b-crm')
  assert.is(open('crm', true), 'b-crm')
  assert.is(refusalOf(() => open('secret')), 'not-allowed')
  assert.is(refusalOf(() => open('shop', true)), 'replication-refused')
})

test('a database whose name looks like a login name is opened, not silently another one', () => {
  const databases = ['postgres', 'a:b']
  const declared = declaredOf(credentials, [rule('devs', ['alice'], ['orders-rw'], { databases })])
  const database = (login: string, named: string) =>
    authorise(declared, user('alice'), wish(login, named), noon).database
  assert.is(database('alice+orders-rw', 'a:b'), 'a:b')
  assert.is(database('alice', '+orders-rw'), 'postgres')
  assert.is(database('alice', '+orders-rw/a:b'), 'a:b')
  assert.is(refusalOf(() => database('alice+orders-rw', '+orders-rw')), 'not-allowed')
})

test('the session time is the smaller of the grant and the credential, and never endless', () => {
  const jit = {
    enabled: true, type: 'creation-deletion' as const, useOwnCredential: false, actions: {}, variables: {},
    maxSessionSeconds: 600, namePrefix: 'jit_'
  }
  const declared = declaredOf(
    [{ name: 'orders-rw', target: 'orders', jit }, { name: 'plain', target: 'orders' }],
    [rule('devs', ['alice'], ['orders-rw'], { maxSessionSeconds: 300 }), rule('rest', ['alice'], ['plain'])]
  )
  const longest = (login: string) => authorise(declared, user('alice'), wish(login), noon).maxSessionSeconds
  assert.is(longest('alice+orders-rw'), 300)
  assert.is(longest('alice+plain'), defaultMaxSessionSeconds)
})

test('replication, a foreign database and a disabled user are refused', () => {
  const declared = declaredOf(credentials, [rule('devs', ['alice'], ['orders-rw'], { databases: ['shop'] })])
  const alice = user('alice')
  const replication = { ...wish('alice+orders-rw', 'shop'), replication: true }
  assert.is(refusalOf(() => authorise(declared, alice, replication, noon)), 'replication-refused')
  const foreign = wish('alice+orders-rw', 'secret')
  assert.is(refusalOf(() => authorise(declared, alice, foreign, noon)), 'not-allowed')
  assert.is(authorise(declared, alice, wish('alice+orders-rw', 'shop'), noon).database, 'shop')
  assert.is(refusalOf(() =>
    authorise(declared, { ...alice, disabled: true }, wish('alice+orders-rw', 'shop'), noon)), 'not-allowed')
})

test('a name that libpq made up from the user name opens the target’s own database', () => {
  const declared = declaredOf(credentials, grants)
  const login = 'alice+orders-rw'
  assert.is(authorise(declared, user('alice'), wish(login, login), noon).database, 'postgres')
  assert.is(authorise(declared, user('alice'), wish(login, 'shop'), noon).database, 'shop')
})

test('explain says for each choice why it is refused', () => {
  const declared = declaredOf(credentials, grants)
  const login = readLoginName('alice+orders-admin')
  assert.ok(login !== undefined)
  const [choice] = choicesOf(declared, user('alice'), login, 'postgres', noon)
  assert.is(choice?.refusal, 'no grant covers it')
})

test('over SSH people reach TCP targets as well, and nothing else changes', () => {
  const tcp: Declared = {
    ...declaredOf(credentials, grants),
    targets: new Map([['orders', { ...target('orders'), protocol: 'tcp' }], ['web01', target('web01')]])
  }
  const over = (protocol: string, credential = 'orders-rw', name = 'alice'): string =>
    refusalOf(() => authorise(tcp, user(name), { ...wish(`${name}+${credential}`), protocol }, noon))
  assert.equal([over('ssh'), over('tcp'), over('postgres')], ['allowed', 'allowed', 'not-allowed'])
  assert.is(over('tcp', 'web-root'), 'not-allowed')
  assert.is(over('ssh', 'orders-rw', 'bob'), 'not-allowed')
})

test.run()
