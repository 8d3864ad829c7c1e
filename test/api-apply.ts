// `apply`: what documents may say (J2, J7, J8, J9, P6), that everything wrong is told in one list with its
// path and nothing of the batch is written, and that applying the same again changes nothing.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { apply, deleteResource } from '../src/api/resources.ts'
import type { Applied } from '../src/api/resources.ts'
import { documentOf } from '../src/api/documents.ts'
import type { ResourceKind, Specs } from '../src/api/documents.ts'
import { SallyportError } from '../src/errors.ts'
import type { Credential, User } from '../src/policy/types.ts'
import { verifyPassword } from '../src/wire/postgres/verifier.ts'
import { createMemory } from './peers/api-ports.ts'
import type { Memory } from './peers/api-ports.ts'

const target = {
  kind: 'target', name: 'orders', protocol: 'postgres', address: '127.0.0.1:5433', database: 'app',
  tls: { mode: 'disable' }
}
const admin = {
  kind: 'credential', name: 'orders-admin', target: 'orders', username: 'sallyport',
  password: { value: 'hunter2' }
}
const jit = {
  enabled: true, type: 'creation-deletion', useOwnCredential: false, authenticationCredential: 'orders-admin',
  create: { plugin: 'postgres', template: 'postgres/create-role' },
  delete: { plugin: 'postgres', template: 'postgres/delete-role' },
  variables: { roles: ['app_rw'] }, maxSession: '8h'
}
const rw = { kind: 'credential', name: 'orders-rw', target: 'orders', jit }
const alice = { kind: 'user', name: 'alice', roles: ['user'], password: { value: 'correct horse' } }
const grant = { kind: 'grant', name: 'devs', users: ['alice'], credentials: ['orders-rw'] }
const all = [target, admin, rw, alice, grant]

interface Bench {
  memory: Memory
  apply(documents: unknown[], how?: { dryRun?: boolean, prune?: boolean }): Promise<Applied[]>
  refused(documents: unknown[], how?: { prune?: boolean }): Promise<SallyportError>
  remove(kind: ResourceKind, name: string): Promise<void>
}

function bench(): Bench {
  const { memory, ports } = createMemory()
  const run: Bench['apply'] = (documents, how = {}) =>
    apply(ports, { documents, dryRun: false, prune: false, ...how }, 'local')
  return {
    memory, apply: run,
    async refused(documents, how = {}) {
      const before = [JSON.stringify([...memory.resources]), JSON.stringify([...memory.secrets])]
      const error = await run(documents, how).then(() => undefined, (thrown: SallyportError) => thrown)
      assert.instance(error, SallyportError, 'it was applied')
      assert.equal([JSON.stringify([...memory.resources]), JSON.stringify([...memory.secrets])], before)
      return error as SallyportError
    },
    remove: (kind, name) => deleteResource(ports, kind, name, 'local')
  }
}

const actions = (applied: readonly Applied[]): string[] =>
  applied.map(({ kind, name, action }) => `${action} ${kind}/${name}`)
const spec = <T>(memory: Memory, key: string): T => memory.resources.get(key)?.spec as T

function has(problems: readonly string[], expected: string): void {
  assert.ok(problems.some(line => line.includes(expected)), `${expected}\nis not in\n${problems.join('\n')}`)
}

test('a whole installation is applied from one batch, in any order', async () => {
  const { apply: run, memory } = bench()
  const applied = await run(all.toReversed())
  assert.equal(actions(applied), [
    'created grant/devs', 'created user/alice', 'created credential/orders-rw',
    'created credential/orders-admin',
    'created target/orders'
  ])
  assert.is(memory.resources.size, 5)
  assert.equal(memory.audit.map(event => event.kind), Array(5).fill('resource.created'))
})

test('what is stored has the shape that policy reads, with secrets only as references', async () => {
  const { apply: run, memory } = bench()
  await run(all)
  assert.equal(spec(memory, 'target/orders'), {
    name: 'orders', protocol: 'postgres', host: '127.0.0.1', port: 5433, database: 'app',
    tls: { mode: 'disable' }
  })
  const stored = spec<Credential>(memory, 'credential/orders-rw')
  assert.equal(stored.jit, {
    enabled: true, type: 'creation-deletion', useOwnCredential: false,
    authenticationCredential: 'orders-admin',
    actions: {
      create: { plugin: 'postgres', template: 'postgres/create-role' },
      delete: { plugin: 'postgres', template: 'postgres/delete-role' }
    },
    variables: { roles: ['app_rw'] }, maxSessionSeconds: 28_800, namePrefix: 'jit_'
  })
  assert.not.match(JSON.stringify([...memory.resources]), /hunter2|correct horse/)
  assert.not.match(JSON.stringify(memory.audit), /hunter2|correct horse/)
  const { password } = spec<Credential>(memory, 'credential/orders-admin')
  assert.is(memory.secrets.get(password!.secret), 'hunter2')
})

test('of a user only the SCRAM verifier of the password is sealed', async () => {
  const { apply: run, memory } = bench()
  await run([alice])
  const verifier = memory.secrets.get(spec<User>(memory, 'user/alice').verifier!.secret)!
  assert.match(verifier, /^SCRAM-SHA-256\$4096:/)
  assert.ok(await verifyPassword('correct horse', verifier))
})

test('applying the same again changes nothing: no new version, secret or audit event', async () => {
  const { apply: run, memory } = bench()
  await run(all)
  const before = structuredClone([memory.resources, memory.secrets, memory.audit])
  const applied = await run(all)
  assert.equal([...new Set(applied.map(each => each.action))], ['unchanged'])
  assert.equal([memory.resources, memory.secrets, memory.audit], before)
})

test('a change is told by path, and a secret that changed without its value', async () => {
  const { apply: run, memory } = bench()
  await run(all)
  const applied = await run([
    { ...target, address: '127.0.0.1:5434' }, { ...admin, password: { value: 'hunter3' } }
  ])
  assert.equal(applied.map(({ changes }) => changes), [
    [{ path: 'address', from: '127.0.0.1:5433', to: '127.0.0.1:5434' }],
    [{ path: 'password', from: '<secret>', to: '<secret>' }]
  ])
  assert.equal([...memory.secrets.values()].filter(value => value.startsWith('hunter')), ['hunter3'])
})

test('a dry run tells the same and writes nothing', async () => {
  const { apply: run, memory } = bench()
  assert.equal(actions(await run([target, alice], { dryRun: true })),
    ['created target/orders', 'created user/alice'])
  assert.is(memory.resources.size + memory.secrets.size + memory.audit.length, 0)
})

test('everything wrong is told at once with document and path, and nothing is applied', async () => {
  const { refused } = bench()
  const { code, problems } = await refused([
    { ...target, adress: 'x', protocol: 'postgress', tls: { mode: 'maybe', cert: 'x' } },
    { ...admin, target: 'ordrs', password: 'plain' },
    { ...rw, jit: { ...jit, crate: {}, maxSession: '8 hours', variables: { roles: ['app rw'] } } },
    { kind: 'usr', name: 'bob' },
    { ...alice, name: 'Alice', publicKeys: ['rubbish'], roles: ['root'] },
    { kind: 'grant', name: 'g', users: ['bob'], credentials: 'orders-rw', notBefore: 'soon' },
    'rubbish'
  ])
  assert.is(code, 'invalid')
  for (const expected of [
    'document 1 (target/orders): adress: unknown key', 'document 1 (target/orders): protocol: ',
    'document 1 (target/orders): tls.mode: ', 'document 1 (target/orders): tls.cert: unknown key',
    'document 2 (credential/orders-admin): password: ',
    'document 3 (credential/orders-rw): jit.crate: unknown key',
    'document 3 (credential/orders-rw): jit.maxSession: expected a duration',
    'document 3 (credential/orders-rw): jit.variables.roles: "app rw" is no role name',
    'document 4: kind: there is no kind "usr"',
    'document 5 (user/Alice): name: ', 'document 5 (user/Alice): publicKeys[0]: ',
    'document 5 (user/Alice): roles[0]: ',
    'document 6 (grant/g): credentials: ', 'document 6 (grant/g): notBefore: ', 'document 7: kind: is missing'
  ]) has(problems, expected)
})

test('missing references are told with their path, over the batch and the store together', async () => {
  const { apply: run, refused } = bench()
  await run([target])
  const { problems } = await refused([
    rw, { ...grant, users: ['alice', 'carol'], credentials: ['orders-rw', 'orders-ro'] }, alice
  ])
  assert.equal(problems, [
    'document 1 (credential/orders-rw): jit.authenticationCredential: there is no credential "orders-admin"',
    'document 2 (grant/devs): users[1]: there is no user "carol"',
    'document 2 (grant/devs): credentials[1]: there is no credential "orders-ro"'
  ])
})

test('one name is declared once in a batch', async () => {
  const { problems } = await bench().refused([target, { ...target, address: '127.0.0.1:1' }])
  assert.equal(problems, [
    'document 2 (target/orders): name: was declared already by document 1 (target/orders)'
  ])
})

test('a type needs only its two actions; the other pair is not validated, stored or shown (J2)', async () => {
  const { apply: run, memory } = bench()
  const [, , applied] = await run([
    target, admin, { ...rw, jit: { ...jit, enable: { plugin: 5 }, disable: 'rubbish' } }
  ])
  assert.equal(applied!.notes, [
    'jit.enable does not belong to creation-deletion: not stored',
    'jit.disable does not belong to creation-deletion: not stored'
  ])
  const stored = spec<Credential>(memory, 'credential/orders-rw')
  assert.equal(Object.keys(stored.jit!.actions), ['create', 'delete'])
  assert.equal(Object.keys(documentOf('credential', stored)['jit'] as object).includes('enable'), false)
})

test('both actions of the type are needed', async () => {
  const { create: _, ...without } = jit
  const { problems } = await bench().refused([target, admin, { ...rw, jit: without }])
  assert.equal(problems, [
    'document 3 (credential/orders-rw): jit.create: is missing: {plugin: …, template: …}'
  ])
})

test('hooks log in with the own credential, or with another that must be named (J7)', async () => {
  const { refused } = bench()
  const { authenticationCredential: _, ...own } = jit
  const first = await refused([target, admin, { ...rw, jit: { ...own, useOwnCredential: true } }])
  assert.equal(first.problems, [
    'document 3 (credential/orders-rw): username: is missing: needed with jit.useOwnCredential',
    'document 3 (credential/orders-rw): password: is missing: needed with jit.useOwnCredential'
  ])
  const second = await refused([target, admin, { ...rw, jit: own }])
  has(second.problems, 'jit.authenticationCredential: is missing')
  const both = await refused([target, admin, { ...rw, jit: { ...jit, useOwnCredential: true } }])
  has(both.problems, 'jit.authenticationCredential: does not go together with useOwnCredential')
})

test('enable-disable with the own credential is refused unless the plugin can do that (J7)', async () => {
  const { problems } = await bench().refused([target, {
    kind: 'credential', name: 'self', target: 'orders', username: 'app', password: { value: 'x' },
    jit: {
      enabled: true, type: 'enable-disable', useOwnCredential: true,
      enable: { plugin: 'postgres', template: 'postgres/enable-role' },
      disable: { plugin: 'postgres', template: 'postgres/disable-role' }
    }
  }])
  assert.ok(problems.length > 0)
  for (const problem of problems) assert.match(problem, /jit\.useOwnCredential: plugin "postgres" cannot/)
})

test('enable-disable names the account that is switched, and another to authenticate', async () => {
  const { apply: run, refused } = bench()
  const shared = {
    kind: 'credential', name: 'shared', target: 'orders',
    jit: {
      enabled: true, type: 'enable-disable', authenticationCredential: 'orders-admin',
      enable: { plugin: 'postgres', template: 'postgres/enable-role' },
      disable: { plugin: 'postgres', template: 'postgres/disable-role' }
    }
  }
  has((await refused([target, admin, shared])).problems, 'username: is missing')
  assert.is((await run([target, admin, { ...shared, username: 'reporting' }])).length, 3)
})

test('privileges only is an enable-disable pair of templates (J12)', async () => {
  const { apply: run, refused } = bench()
  const elevated = {
    kind: 'credential', name: 'elevated', target: 'orders', username: 'bob',
    jit: {
      enabled: true, type: 'enable-disable', authenticationCredential: 'orders-admin',
      enable: { plugin: 'postgres', template: 'postgres/grant-role' },
      disable: { plugin: 'postgres', template: 'postgres/revoke-role' },
      variables: { roles: 'app_rw, app_ro,app_rw ' }
    }
  }
  // The account keeps its password, and sessions log in with it.
  const { problems } = await refused([target, admin, elevated])
  has(problems, 'password: is missing: postgres/grant-role sets none')
  const applied = await run([target, admin, { ...elevated, password: { value: 'of bob' } }])
  assert.is(applied.at(-1)!.action, 'created')
})

test('roles reach the store split, trimmed and without duplicates (P6)', async () => {
  const { apply: run, memory } = bench()
  await run([target, admin, { ...rw, jit: { ...jit, variables: { roles: ' app_rw, app_ro ,app_rw' } } }])
  assert.equal(spec<Credential>(memory, 'credential/orders-rw').jit!.variables,
    { roles: ['app_rw', 'app_ro'] })
})

test('templates exist, are active, and fit; plugins are those of the build (J8, J9)', async () => {
  const { memory, refused } = bench()
  const wrong = (part: object): unknown[] => [target, admin, { ...rw, jit: { ...jit, ...part } }]
  const missing = await refused(wrong({ create: { plugin: 'postgres', template: 'postgres/make-role' } }))
  has(missing.problems, 'jit.create.template: there is no template "postgres/make-role"')
  const other = await refused(wrong({ create: { plugin: 'postgres', template: 'postgres/delete-role' } }))
  has(other.problems, 'jit.create.template: template "postgres/delete-role" is for the action delete')
  const foreign = await refused(wrong({ delete: { plugin: 'abacus', template: 'postgres/delete-role' } }))
  has(foreign.problems, 'jit.delete.plugin: there is no plugin "abacus"; there are postgres')
  has(foreign.problems, 'jit.delete.template: template "postgres/delete-role" is for plugin postgres')
  memory.templates.find(row => row.id === 'postgres/create-role')!.active = false
  has((await refused(wrong({}))).problems,
    'jit.create.template: template "postgres/create-role" is not active')
})

test('a variable that no template declares is refused with its path', async () => {
  const misspelt = { ...rw, jit: { ...jit, variables: { rolls: ['a'] } } }
  const { problems } = await bench().refused([target, admin, misspelt])
  assert.is(problems.length, 1)
  assert.match(problems[0]!, /^document 3 \(credential\/orders-rw\): jit\.variables\.rolls: /)
})

test('the credential that authenticates is a standing one of the same target', async () => {
  const { refused } = bench()
  const elsewhere = { ...target, name: 'other' }
  const other = await refused([target, elsewhere, { ...admin, target: 'other' }, rw])
  has(other.problems, 'jit.authenticationCredential: "orders-admin" is for target "other"')
  const nested = await refused([target, admin, rw, {
    ...rw, name: 'rw2', jit: { ...jit, authenticationCredential: 'orders-rw' }
  }])
  has(nested.problems, 'jit.authenticationCredential: "orders-rw" is a JIT credential itself')
})

test('where JIT is not enabled the stored secret is what is injected, so it must be there (J1)', async () => {
  const { apply: run, memory, refused } = bench()
  const { problems } = await refused([target, { kind: 'credential', name: 'plain', target: 'orders' }])
  assert.is(problems.length, 2)
  await run([target, { ...admin, jit: { enabled: false } }])
  assert.is(spec<Credential>(memory, 'credential/orders-admin').jit, undefined)
})

test('<secret> keeps the secret that is stored, so that what `get` shows can be applied', async () => {
  const { apply: run, memory, refused } = bench()
  await run(all)
  const documents = [...memory.resources.values()].map(row =>
    documentOf(row.kind as ResourceKind, row.spec as Specs[ResourceKind]))
  assert.equal([...new Set((await run(documents)).map(each => each.action))], ['unchanged'])
  const { problems } = await refused([{ ...admin, name: 'new', password: '<secret>' }])
  assert.equal(problems, [
    'document 1 (credential/new): password: <secret> means "as it is", and none is stored'
  ])
})

test('a secret that is no longer declared is forgotten', async () => {
  const { apply: run, memory } = bench()
  await run([alice])
  assert.equal((await run([{ kind: 'user', name: 'alice' }]))[0]!.changes,
    [{ path: 'password', from: '<secret>' }])
  assert.is(memory.secrets.size, 0)
})

test('prune deletes what is not in the batch, of the kinds that are, and nothing else', async () => {
  const { apply: run, memory } = bench()
  await run([...all, { kind: 'user', name: 'bob' }])
  assert.equal(actions(await run([alice], { prune: true })), ['unchanged user/alice', 'deleted user/bob'])
  assert.is(memory.resources.size, 5)
})

test('prune refuses to delete what is in use, and names by whom', async () => {
  const { apply: run, memory, refused } = bench()
  await run(all)
  memory.dependants.set('credential/orders-rw', ['account sally_1234567 on orders is removing'])
  const error = await refused([{ kind: 'user', name: 'bob' }, admin], { prune: true })
  assert.is(error.code, 'in-use')
  assert.equal(error.problems.toSorted(), [
    'user/alice: cannot be pruned, in use by grant/devs (users[0])',
    'credential/orders-rw: cannot be pruned, in use by grant/devs (credentials[0])',
    'credential/orders-rw: account sally_1234567 on orders is removing'
  ].sort())
})

test('delete refuses what is in use by resources or the ledger, and names by whom', async () => {
  const { apply: run, memory, remove } = bench()
  await run(all)
  const refusal = (kind: ResourceKind, name: string): Promise<SallyportError> =>
    remove(kind, name).then(() => assert.unreachable() as never, (thrown: SallyportError) => thrown)
  const used = await refusal('target', 'orders')
  assert.is(used.code, 'in-use')
  assert.equal(used.problems, [
    'target/orders: in use by credential/orders-admin (target)',
    'target/orders: in use by credential/orders-rw (target)'
  ])
  memory.dependants.set('credential/orders-rw', ['account x on orders is stuck'])
  await remove('grant', 'devs')
  assert.equal((await refusal('credential', 'orders-rw')).problems,
    ['credential/orders-rw: account x on orders is stuck'])
  memory.dependants.clear()
  await remove('credential', 'orders-rw')
  await remove('credential', 'orders-admin')
  assert.is([...memory.secrets.values()].includes('hunter2'), false)
  assert.is((await refusal('user', 'nobody')).code, 'not-found')
})

test('a new password or a deleted user ends the tokens of that user', async () => {
  const { apply: run, memory, remove } = bench()
  await run([alice])
  const token = { user: 'alice', roles: ['user'], expiresAt: new Date('2100-01-01'), oneTime: false } as const
  memory.tokens.set('a', token)
  await run([{ ...alice, roles: ['auditor'] }])
  assert.is(memory.tokens.size, 1)
  await run([{ ...alice, password: { value: 'another' } }])
  assert.is(memory.tokens.size, 0)
  memory.tokens.set('b', token)
  await remove('user', 'alice')
  assert.is(memory.tokens.size, 0)
})

test('names that the audit uses for ourselves cannot be taken', async () => {
  for (const name of ['local', 'system', 'first-admin']) {
    has((await bench().refused([{ kind: 'user', name }])).problems, 'name: is a reserved name')
  }
})

test('protocols take only their own fields, and addresses a port or the usual one', async () => {
  const { apply: run, memory, refused } = bench()
  const ssh = { kind: 'target', name: 'web01', protocol: 'ssh', address: 'web01.example.net' }
  await run([ssh, { ...target, address: 'db', name: 'db' }])
  assert.is(spec<{ port: number }>(memory, 'target/web01').port, 22)
  assert.is(spec<{ port: number }>(memory, 'target/db').port, 5432)
  has((await refused([{ ...ssh, database: 'x' }])).problems, 'database: does not belong to a ssh target')
  has((await refused([{ ...ssh, protocol: 'tcp' }])).problems, 'address: expected host:port')
  has((await refused([{ ...ssh, address: 'a b:22' }])).problems, 'address: expected host:port')
})

test('a target without a word about TLS is verified in full', async () => {
  const { apply: run, memory } = bench()
  const { tls: _, ...silent } = target
  await run([silent])
  assert.equal(spec<{ tls: object }>(memory, 'target/orders').tls, { mode: 'verify-full' })
})

test('a TCP target has settings for its hooks, and no shared account with a fresh secret', async () => {
  const { apply: run, memory, refused } = bench()
  const tcp = { ...target, protocol: 'tcp' }
  const { database: _, tls: __, ...bare } = tcp
  await run([{ ...bare, name: 'plain' }, tcp, admin, rw])
  assert.is(spec<{ database: string }>(memory, 'target/plain').database, '')
  assert.equal(documentOf('target', spec<Specs['target']>(memory, 'target/orders')), {
    ...tcp, address: '127.0.0.1:5433'
  })
  has((await refused([{ ...tcp, hostKeys: [] }])).problems, 'hostKeys: does not belong to a tcp target')
  const shared = {
    ...rw, username: 'standing', password: { value: 'its own' },
    jit: {
      ...jit, type: 'enable-disable', enable: { plugin: 'postgres', template: 'postgres/enable-role' },
      disable: { plugin: 'postgres', template: 'postgres/disable-role' }, variables: {}
    }
  }
  has((await refused([shared])).problems, 'jit.enable: sets a new secret, which people on a tcp target')
  await run([{
    ...shared, jit: {
      ...shared.jit, enable: { plugin: 'postgres', template: 'postgres/grant-role' },
      disable: { plugin: 'postgres', template: 'postgres/revoke-role' }, variables: { roles: ['app_rw'] }
    }
  }])
})

test.run()
