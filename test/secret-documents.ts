// The documents of secrets, profiles and applications (P1, P2, P6, L1, S1): what excludes each other and what
// is missing is refused with the name of the field, a document that is shown is the one that was applied, and
// values keep their versions and never show.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { parse, parseAllDocuments } from 'yaml'
import { documentOf } from '../src/api/documents.ts'
import type { ResourceKind, Specs } from '../src/api/documents.ts'
import { apply, deleteResource } from '../src/api/resources.ts'
import { SallyportError } from '../src/errors.ts'
import { covers, readSecretPath, readSecretPattern } from '../src/policy/secrets.ts'
import { createMemory } from './peers/api-ports.ts'

const base = `
kind: target
name: orders
protocol: postgres
address: 127.0.0.1:5433
tls: { mode: disable }
---
kind: credential
name: orders-admin
target: orders
username: sallyport
password: { value: hunter2 }
---
kind: environment
name: prod
---
kind: profile
name: writers
type: postgres
registeredCredential: orders-admin
create: postgres/create-role
delete: postgres/delete-role
roles: app_rw, app_ro,app_rw
---
kind: secret
name: mail
environment: prod
data: { password: letters, port: 25 }
---
kind: secret
name: base
environment: prod
attributes: { type: postgres }
data: { host: db, username: sallyport, password: { value: hunter2 } }
---
kind: secret
name: orders
environment: prod
path: /apps/orders/
profile: writers
target: orders
outputs: { username: DB_USER, password: { key: DB_PASSWORD, masked: false } }
---
kind: secret
name: linked
environment: prod
data: {}
attributes: { linkConfig: { linkType: dynamic, linkedSecret: "prod:base" }, ttl: 900, userPrefix: svc_ }
---
kind: secret
name: own
environment: prod
provider: postgres
target: orders
authenticationCredential: orders-admin
create: postgres/create-role
delete: postgres/delete-role
variables: { roles: [app_rw] }
ttl: 10m
maxTtl: 8h
---
kind: application
name: billing
networks: [10.0.0.0/8]
---
kind: grant
name: on-apps
applications: [billing]
secrets: ["prod:apps/*", prod/mail]
`

async function bench() {
  const { memory, ports } = createMemory()
  const run = (documents: readonly unknown[]) =>
    apply(ports, { documents, dryRun: false, prune: false }, 'local')
  await run(documentsOf(base))
  const problems = (yaml: string): Promise<string> => run([parse(yaml)]).then(
    () => 'applied', (thrown: SallyportError) => thrown.problems.join('\n'))
  const remove = (kind: ResourceKind, name: string): Promise<string> => deleteResource(
    ports, kind, name, 'local').then(() => 'gone', (thrown: SallyportError) => thrown.problems.join('\n'))
  return { memory, run, problems, remove }
}

function documentsOf(yaml: string): unknown[] {
  return parseAllDocuments(yaml).map(document => document.toJS() as unknown)
}

// Promised: P2, L1, S1, renewal R1.
test('what excludes each other, and what is missing, is refused with the name of the field', async () => {
  const { problems } = await bench()
  const pair = 'create: postgres/create-role\ndelete: postgres/delete-role'
  const profile = (more: string): string => `kind: profile\nname: odd\ntype: postgres\n${pair}\n${more}`
  const secret = (more: string): string => `kind: secret\nname: odd\nenvironment: prod\n${more}`
  const link = (to: string, type = 'dynamic'): string =>
    secret(`data: {}\nattributes: { linkConfig: { linkType: ${type}, linkedSecret: "${to}" } }`)
  const granted = (what: string, where: string): string => secret(`data: {}
attributes:
  linkConfig: { linkType: dynamic, linkedSecret: prod:base }
  grantPermissions: { what: '${what}', where: '${where}' }`)
  const ofProfile = (more: string): string => secret(`profile: writers\ntarget: orders\n${more}`)
  for (const [yaml, why] of [
    [profile('registeredCredential: orders-admin\ncredentialUsername: sallyport'),
      'credentialUsername: does not go together with registeredCredential'],
    [profile(''), 'registeredCredential: is missing'],
    [profile('credentialUsername: sallyport\nroles: "app rw"'), 'roles: "app rw" is no role name'],
    [profile('registeredCredential: nobody'), 'registeredCredential: there is no credential "nobody"'],
    [profile('registeredCredential: orders-admin\nttl: 0'), 'ttl: '],
    [ofProfile('provider: postgres'), 'provider: does not belong to a secret with a profile'],
    [secret('data: { a: b }\nttl: 60'), 'ttl: does not belong to a static secret'],
    [secret(''), 'data: is missing'],
    [secret(`provider: postgres\ntarget: orders\n${pair}`), 'authenticationCredential: is missing'],
    [granted('SELECT, SUPER', 'a.b'), 'variable grant_what is not a list of privileges; there are SELECT'],
    [granted('SELECT', 'a.b; DROP TABLE c'), 'applied'],
    [granted('SELECT', 'a.b.c'), 'variable grant_where is not of the form schema.table'],
    [link('prod/base', 'static'), 'linkType: there is no other linkType'],
    [link('prod:gone'), 'there is no secret "prod/gone"'],
    [link('prod/own'), '"prod/own" is dynamic itself'],
    [link('prod/mail'), '"prod/mail" is no base secret'],
    [ofProfile('outputs: { username: A, password: A }'), 'outputs.password: A is the key of username'],
    [ofProfile('outputs: { privateKey: A }'), 'outputs.privateKey: postgres gives none'],
    [ofProfile('ttl: 2h\nmaxTtl: 1h'), 'maxTtl: is shorter than ttl'],
    [ofProfile('ttl: 59'), 'ttl: must be at least 60s'],
    [ofProfile('ttl: 90.5'), 'ttl: '],
    [ofProfile('renewal: { ephemeralCredentials: 9 }'), 'renewal.ephemeralCredentials: expected minutes'],
    [ofProfile('renewal: { cloudCredentials: 10 }'), 'renewal.ephemeralCredentials: is missing: that'],
    [ofProfile('renewal: { confirmed: true }'), 'renewal: is missing one of cloudCredentials'],
    [ofProfile('renewal: { ephemeralCredentials: 10, overlap: 11m }'), 'renewal.overlap: is longer than'],
    [ofProfile('renewal: { ephemeralCredentials: 50, overlap: 6m }\nmaxTtl: 1h'), 'maxTtl: is too short'],
    [secret('data: { a: b }\nrenewal: { credentials: 10 }'), 'renewal: does not belong to a static secret'],
    ['kind: secret\nname: x\nenvironment: none\ndata: { a: b }', 'there is no environment "none"'],
    ['kind: application\nname: x\nnetworks: [everywhere]', 'networks[0]: expected a network'],
    ['kind: grant\nname: x\nusers: []\nsecrets: [prod/none]', 'secrets[0]: there is no secret "prod/none"'],
    ['kind: grant\nname: x\nsecrets: [prod/mail]', 'users: is missing']
  ] as const) {
    const answer = await problems(yaml)
    assert.ok(answer.includes(why), `${yaml}\n${answer}`)
  }
})

test('a shown document is the applied one, and applying it again changes nothing', async () => {
  const { memory, run } = await bench()
  const shown = [...memory.resources.values()].map(({ kind, spec }) =>
    documentOf(kind as ResourceKind, spec as Specs[ResourceKind]))
  const again = await run(shown)
  assert.equal(again.filter(({ action }) => action !== 'unchanged'), [])
  assert.is(again.length, 11)
  assert.not.match(JSON.stringify(shown), /hunter2|letters/)
  assert.ok(memory.resources.has('secret/prod/apps/orders/orders'))
  const profile = shown.find(({ kind }) => kind === 'profile')
  assert.equal(profile?.['roles'], ['app_rw', 'app_ro'])
  assert.is(profile?.['ttl'], '1h')
})

test('switching renewal on is answered with a warning, who confirmed it is kept (renewal R3)', async () => {
  const { memory, run } = await bench()
  const [own] = documentsOf(base).filter(each => (each as { name: string }).name === 'own')
  const apply = async (confirmed: boolean, overlap = '10m') => (await run([
    { ...own as object, renewal: { ephemeralCredentials: 60, credentials: 10, overlap, confirmed } }
  ]))[0]
  const confirmation = (): unknown =>
    (memory.resources.get('secret/prod/own')!.spec as { confirmation?: unknown }).confirmation
  assert.match((await apply(false))!.notes.join(), /^warning: .* before renewal.confirmed is true$/)
  assert.is(confirmation(), undefined)
  assert.match((await apply(true))!.notes.join(), /^warning: whoever uses it must read it again within 10m/)
  const first = confirmation()
  assert.is((first as { by: string }).by, 'local')
  await apply(true, '5m')
  assert.equal(confirmation(), first)
  await apply(false)
  assert.is(confirmation(), undefined)
})

test('who a secret is needed by is named, and it stays', async () => {
  const { remove } = await bench()
  assert.match(await remove('secret', 'prod/base'), /in use by secret\/prod\/linked/)
  assert.match(await remove('secret', 'prod/mail'), /in use by grant\/on-apps/)
  assert.match(await remove('environment', 'prod'), /in use by secret\/prod\/own \(environment\)/)
  assert.match(await remove('profile', 'writers'), /in use by secret\/prod\/apps\/orders\/orders/)
  assert.match(await remove('application', 'billing'), /in use by grant\/on-apps/)
  assert.is(await remove('secret', 'prod/linked'), 'gone')
  assert.is(await remove('secret', 'prod/base'), 'gone')
})

// Promised: renewal R4.
test('what falls off the end of the versions is forgotten, and all of them with the secret', async () => {
  const { memory, run, remove } = await bench()
  const before = memory.secrets.size
  for (let round = 0; round < 120; round++) {
    await run([parse(`{ kind: secret, name: keys, environment: prod, data: { round: "${round}" } }`)])
  }
  assert.is(memory.secrets.size, before + 100)
  const { versions } = memory.resources.get('secret/prod/keys')!.spec as { versions: { version: number }[] }
  assert.equal([versions[0]?.version, versions.at(-1)?.version], [21, 120])
  assert.is(await remove('secret', 'prod/keys'), 'gone')
  assert.is(memory.secrets.size, before)
})

test('both separators of a path are read alike, and a folder covers what is in it alone', () => {
  for (const [text, path] of [
    ['prod:apps/orders', 'prod/apps/orders'], ['/prod/orders', 'prod/orders'], ['prod', undefined],
    ['prod/../x', undefined], ['prod//x', undefined], ['Prod/x', undefined], ['prod/x y', undefined]
  ] as const) assert.is(readSecretPath(text), path, text)
  assert.is(readSecretPattern('prod:apps/*'), 'prod/apps/*')
  assert.is(readSecretPattern('*'), undefined)
  assert.is(readSecretPattern('prod/*/x'), undefined)
  assert.ok(covers('prod/apps/*', 'prod/apps/a/b'))
  assert.not.ok(covers('prod/apps/*', 'prod/apps2/a'))
  assert.not.ok(covers('prod/a', 'prod/ab'))
})

test.run()
