// Dynamic secrets as people and applications use them: the product in a process of its own, its command line,
// stock psql straight to a PostgreSQL 18 target. Values are shown once; an account ends when its lease does,
// with its live connections, and is proved gone.
// deadline: 240 s
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type {
  ComparedJson, LeaseEventJson, LeaseJson, OrphansJson, ReadingJson, SecretJson
} from '../../src/api/client-types.ts'
import type { PostgresServer } from '../../tool/postgres.ts'
import { programOf } from '../../tool/services.ts'
import { accountsOn, companyDatabase, login as loginWith, startHouse, until } from '../peers/house.ts'
import type { House, Ran } from '../peers/house.ts'

let target: PostgresServer
let house: House

const documents = (port: number): string => `---
kind: environment
name: prod
---
kind: secret
name: orders-rw
environment: prod
provider: postgres
target: orders
authenticationCredential: orders-admin
create: postgres/create-role
delete: postgres/delete-role
variables: { roles: [app_rw] }
ttl: 10m
maxTtl: 1h
---
kind: secret
name: for-env
environment: prod
path: apps/orders
provider: postgres
target: orders
authenticationCredential: orders-admin
create: postgres/create-role
delete: postgres/delete-role
variables: { roles: [app_rw] }
outputs:
  username: PGUSER
  password: { key: PGPASSWORD, masked: true }
  host: PGHOST
  port: PGPORT
  database: PGDATABASE
---
kind: secret
name: base
environment: prod
attributes: { type: postgres }
data:
  host: 127.0.0.1
  port: ${port}
  database: orders
  username: sallyport
  password: { env: ORDERS_ADMIN_PASSWORD }
  sslmode: disable
---
kind: secret
name: linked
environment: prod
data: {}
attributes: { linkConfig: { linkType: dynamic, linkedSecret: prod:base }, ttl: 900, roles: app_rw }
---
kind: secret
name: readers
environment: prod
provider: postgres
target: orders
authenticationCredential: orders-admin
create: postgres/create-role-with-grant
delete: postgres/delete-role
attributes:
  ttl: 900
  userPrefix: rd_
  grantPermissions: { what: 'select, insert', where: 'shop.*' }
---
kind: secret
name: smtp
environment: prod
data: { user: mailer, password: first }
---
kind: grant
name: alice-on-secrets
users: [alice]
secrets: [prod/orders-rw, prod/apps/*]
`

test.before(async () => {
  const company = await companyDatabase('18')
  target = company.server
  house = await startHouse({
    target, adminPassword: company.adminPassword, access: documents(target.port)
  })
})
test.after(async () => {
  await house.stop()
  house.clear()
  await target.stop()
})

const generate = (path: string, ...words: string[]): Promise<ReadingJson> =>
  house.json<ReadingJson>('secrets', 'generate', path, ...words)

const login = (reading: ReadingJson, sql: string): Promise<Ran> => loginWith(target, reading, sql)

const refusal = (...words: string[]): Promise<string> => house.refusal(...words)

test('a generated account logs in with what was shown, and is shown once (L2, S2)', async () => {
  const reading = await generate('prod/orders-rw', '--ttl', '300')
  const { lease, values, masked } = reading
  assert.equal(Object.keys(values).sort(), ['database', 'host', 'password', 'port', 'username'])
  assert.ok((values['password'] ?? '').length >= 24)
  assert.equal(masked, ['password'])
  assert.is(lease?.status, 'active')
  assert.is(lease?.secret, 'prod/orders-rw')
  assert.is(lease?.ownerKind, 'user')
  assert.is(Math.round((Date.parse(lease?.expiresAt ?? '') - Date.parse(lease?.createdAt ?? '')) / 1000), 300)
  const { stdout, status } = await login(reading, 'SELECT current_user, count(*) FROM orders')
  assert.is(status, 0)
  assert.is(stdout.trim(), `${values['username']}|100`)
  const everything = [
    await house.sallyport('leases', 'show', lease!.id, '--json'),
    await house.sallyport('leases', 'list', '--json'),
    await house.sallyport('leases', 'history', lease!.id, '--json'),
    await house.sallyport('secrets', 'list', '--json'),
    await house.sallyport('audit', 'list', '--json', '--limit', '1000'), house.log()
  ].join('\n')
  assert.not.match(everything, values['password']!)
  assert.match(everything, /secret\.generated/)
  const stored = await target.psql(
    `SELECT rolpassword FROM pg_authid WHERE rolname = '${values['username']}'`)
  assert.match(stored, /^SCRAM-SHA-256\$4096:/)
})

// Promised: S4, S5, S6.
test('a revoked lease cuts its live connection, refuses logins, and its history is complete', async () => {
  const reading = await generate('prod:orders-rw', '--ttl', '300', '--name', 'nightly')
  const id = reading.lease!.id
  const sleeping = login(reading, 'SELECT pg_sleep(60)')
  await until(() => target.psql("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"),
    count => count === '1')
  const renewed = await house.json<LeaseJson>('leases', 'renew', id, '--ttl', '60')
  assert.is(Date.parse(renewed.expiresAt) - Date.parse(reading.lease!.expiresAt), 60_000)
  assert.equal(await house.json('leases', 'revoke', id), { id, revoked: true })
  assert.is.not((await sleeping).status, 0)
  assert.match((await login(reading, 'SELECT 1')).stderr, /authentication failed|does not exist/)
  assert.equal(await house.json('leases', 'revoke', id), { id, revoked: false })
  assert.match(await refusal('leases', 'renew', id, '--ttl', '60'), /the lease was revoked/)
  const shown = await house.json<LeaseJson>('leases', 'show', id)
  assert.is(shown.status, 'revoked')
  assert.is(shown.name, 'nightly')
  assert.match(await house.sallyport('leases', 'list'), new RegExp(`^${id} +nightly +revoked`, 'm'))
  const events = await house.json<LeaseEventJson[]>('leases', 'history', id)
  const kinds = events.map(({ kind }) => kind)
  assert.equal(kinds, ['intended', 'active', 'renewed', 'revoked', 'proved-gone', 'renewal-refused'])
  for (const kind of ['intended', 'renewed', 'revoked']) {
    const event = events.find(each => each.kind === kind)
    assert.is(event?.actor, 'local')
    assert.is(event?.detail['address'], '127.0.0.1', kind)
  }
})

test('times that no lease can have are refused, each with its reason (S2)', async () => {
  for (const [ttl, why] of [
    ['0', /at least 60/], ['-5', /at least 60/], ['90.5', /whole number/], ['59', /at least 60/],
    ['3601', /more than the 3600 s/], ['soon', /expected seconds or a duration/]
  ] as const) {
    assert.match(await refusal('secrets', 'generate', 'prod/orders-rw', `--ttl=${ttl}`), why, ttl)
  }
})

test('a command gets a lease in its environment, and nothing of it is left at its end', async () => {
  const before = await accountsOn(target)
  const said = await house.sallyport('run', '--secret', 'prod/apps/orders/for-env', '--ttl', '120', '--',
    'env', 'PGSSLMODE=disable', programOf('psql'), '-XAtq', '-c', 'SELECT current_user')
  assert.match(said.trim(), /^jit_\d{7}$/)
  await until(() => accountsOn(target), found => found === before)
  const words = ['run', '--secret', 'prod/apps/orders/for-env', '--', 'sh', '-c', 'exit 7']
  assert.match(await refusal(...words), /exit 7/)
  for (const program of ['/etc/passwd/none', '/none', '']) {
    const failed = await refusal('run', '--secret', 'prod/apps/orders/for-env', '--', program)
    assert.match(failed, /exit 127\n(.*\n)*sallyport: .* cannot be run: [A-Z_]+/)
  }
  await until(() => accountsOn(target), found => found === before)
})

// Promised: L3, L4.
test('a linked secret makes accounts by its base, which cannot go while it has dependants', async () => {
  const reading = await generate('prod/linked')
  // Base and target are one server: neither calls the accounts of the other strange.
  const { orphans } = await house.json<OrphansJson>('orphans', 'scan')
  assert.equal(orphans, [])
  assert.is((await login(reading, 'SELECT count(*) FROM orders')).stdout.trim(), '100')
  const found = await house.json<SecretJson[]>('secrets', 'search', '--query', 'prod:base', '--search-links')
  assert.equal(found.map(({ path }) => path), ['prod/linked'])
  for (const path of ['prod/base', 'prod:base']) {
    assert.match(await refusal('secrets', 'delete', path), /in use by secret\/prod\/linked/)
    assert.match(await refusal('delete', 'secret', path), /in use by secret\/prod\/linked/)
    assert.match(await house.sallyport('get', 'secret', path), /username: <secret>/)
    const leases = await house.json<LeaseJson[]>('leases', 'list', '--target', path)
    assert.equal(leases.map(({ id }) => id), [reading.lease!.id])
    assert.not.match(await house.sallyport('orphans', 'scan', '--target', path).catch(String), /not-found/)
  }
})

test('a secret with active leases goes only when they were revoked and proved gone (S8)', async () => {
  const reading = await generate('prod/linked')
  const refused = await refusal('secrets', 'delete', 'prod/linked')
  assert.match(refused, new RegExp(`account ${reading.values['username']} .* is active`))
  assert.match(refused, /--revoke-active-leases/)
  await house.sallyport('secrets', 'delete', 'prod/linked', '--revoke-active-leases')
  assert.is.not((await login(reading, 'SELECT 1')).status, 0)
  assert.match(await refusal('secrets', 'generate', 'prod/linked'), /not found/)
  const lease = await house.json<LeaseJson>('leases', 'show', reading.lease!.id)
  assert.is(lease.status, 'revoked')
  assert.is(lease.account.state, 'proved-gone')
})

test('a lease ends as it began, whatever is edited or rotated while it lives', async () => {
  await house.sallyport('apply', '-f', join(house.folder, 'access.yaml'))
  const own = await generate('prod/orders-rw')
  const linked = await generate('prod/linked')
  const edited = join(house.folder, 'delete-role.yaml')
  const shipped = await house.sallyport('templates', 'show', 'postgres/delete-role')
  writeFileSync(edited, shipped.replace(/^title: .*$/m, 'title: Edited')
    .replace(/^steps:$/m, 'steps:\n  - name: fail\n    sql: SELECT 1/0'))
  await house.sallyport('templates', 'save', 'postgres/delete-role', edited)
  await target.psql("ALTER ROLE sallyport PASSWORD 'rotated'")
  house.environment['ORDERS_ADMIN_PASSWORD'] = 'rotated'
  await house.sallyport('apply', '-f', join(house.folder, 'access.yaml'))
  for (const { lease } of [own, linked]) {
    await house.json('leases', 'revoke', lease!.id)
    const { status, account } = await house.json<LeaseJson>('leases', 'show', lease!.id)
    assert.equal([status, account.state], ['revoked', 'proved-gone'])
  }
  writeFileSync(edited, shipped)
  await house.sallyport('templates', 'save', 'postgres/delete-role', edited)
})

test('a secret may name its own privileges and a prefix of its accounts (L5)', async () => {
  await target.psql(`CREATE SCHEMA shop; CREATE TABLE shop.prices AS SELECT 7 AS price;
    GRANT USAGE ON SCHEMA shop TO sallyport WITH GRANT OPTION;
    GRANT SELECT, INSERT ON shop.prices TO sallyport WITH GRANT OPTION`, 'orders')
  const reading = await generate('prod/readers')
  assert.match(reading.values['username'] ?? '', /^rd_\d{7}$/)
  assert.is((await login(reading, 'INSERT INTO shop.prices VALUES (8)')).status, 0)
  assert.is((await login(reading, 'SELECT sum(price) FROM shop.prices')).stdout.trim(), '15')
  for (const sql of ['DELETE FROM shop.prices', 'SELECT * FROM orders']) {
    assert.match((await login(reading, sql)).stderr, /permission denied/)
  }
  await house.json('leases', 'revoke', reading.lease!.id)
  const { account } = await house.json<LeaseJson>('leases', 'show', reading.lease!.id)
  assert.is(account.state, 'proved-gone')
  const file = join(house.folder, 'readers.yaml')
  const written = documents(target.port).split('---\n').find(text => text.includes('name: readers'))!
  for (const [from, to, said] of [
    ['select, insert', 'SELECT, CREATE ROLE', /grant_what is not a list of privileges/],
    ['shop.*', 'pg_catalog.pg_authid', /grant_where is a part of the server itself/],
    ['shop.*', 'prices', /grant_where is not of the form schema\.table/]
  ] as const) {
    writeFileSync(file, written.replace(from, to))
    assert.match(await refusal('apply', '-f', file), said)
  }
})

test('a maximum that changed holds for renewals too, and for no expiry that was given (S9)', async () => {
  const { lease } = await generate('prod/orders-rw', '--ttl', '1200')
  const file = join(house.folder, 'shorter.yaml')
  const shorter = documents(target.port).split('---\n').find(text => text.includes('name: orders-rw'))
  writeFileSync(file, shorter!.replace('maxTtl: 1h', 'maxTtl: 25m'))
  await house.sallyport('apply', '-f', file)
  const { id, expiresAt } = lease!
  assert.is((await house.json<LeaseJson>('leases', 'show', id)).expiresAt, expiresAt)
  assert.match(await refusal('leases', 'renew', id, '--ttl', '301'), /300 s can still be added/)
  assert.is((await house.json<LeaseJson>('leases', 'show', id)).renewableSeconds, 300)
  const renewed = await house.json<LeaseJson>('leases', 'renew', id, '--ttl', '300')
  assert.is(Date.parse(renewed.expiresAt) - Date.parse(expiresAt), 300_000)
  // Raised, it holds for the lease that is there as well, and the role's own end moves with it.
  writeFileSync(file, shorter!.replace('maxTtl: 1h', 'maxTtl: 3h'))
  await house.sallyport('apply', '-f', file)
  const longer = await house.json<LeaseJson>('leases', 'renew', id, '--ttl', '9300')
  assert.equal([longer.renewableSeconds, Date.parse(longer.expiresAt) - Date.parse(longer.createdAt)],
    [0, 10_800_000])
  const until = await target.psql(
    `SELECT extract(epoch FROM rolvaliduntil) FROM pg_roles WHERE rolname = '${lease!.account.name}'`)
  assert.ok(Number(until) * 1000 > Date.parse(longer.expiresAt), until)
  await house.json('leases', 'revoke', id)
  await house.sallyport('apply', '-f', join(house.folder, 'access.yaml'))
})

test('while the target is away a lease is not called gone, nor is its secret deleted (S8)', async () => {
  const { lease } = await generate('prod/linked')
  await target.halt()
  const refused = await house.refusal('secrets', 'delete', 'prod/linked', '--revoke-active-leases')
  assert.match(refused, /account jit_\d+ on prod\/base is unreachable/)
  const [secret] = await house.json<SecretJson[]>('secrets', 'search', '--query', 'prod/linked')
  assert.is(secret?.status, 'deleting')
  assert.match(await house.refusal('secrets', 'generate', 'prod/linked'), /is being deleted/)
  assert.is((await house.json<LeaseJson>('leases', 'show', lease!.id)).status, 'revoking')
  assert.match(await house.sallyport('audit', 'list', '--kind', 'account.alarm'), /unreachable/)
  await target.resume()
  await until(() => house.json<LeaseJson>('leases', 'show', lease!.id), ({ status }) => status === 'revoked')
  await house.sallyport('secrets', 'delete', 'prod/linked')
  assert.match(await house.refusal('secrets', 'generate', 'prod/linked'), /not found/)
})

test('a static secret keeps its versions, which can be read and compared (renewal R4)', async () => {
  const read = await house.json<ReadingJson>('secrets', 'read', 'prod/smtp')
  assert.equal(read.values, { password: 'first', user: 'mailer' })
  const file = join(house.folder, 'smtp.yaml')
  writeFileSync(file, `kind: secret
name: smtp
environment: prod
data: { user: <secret>, password: { env: SMTP_PASSWORD }, from: noreply }
`)
  house.environment['SMTP_PASSWORD'] = 'second'
  assert.match(await house.sallyport('apply', '-f', file), /updated {4}secret\/prod\/smtp/)
  assert.match(await house.sallyport('apply', '-f', file), /unchanged {2}secret\/prod\/smtp/)
  const now = await house.json<ReadingJson>('secrets', 'read', 'prod:smtp')
  assert.equal(now.values, { from: 'noreply', password: 'second', user: 'mailer' })
  assert.is(now.version, 2)
  const old = await house.json<ReadingJson>('secrets', 'read', 'prod/smtp', '--version', '1')
  assert.equal(old.values, read.values)
  const compared = await house.json<ComparedJson>('secrets', 'compare', 'prod/smtp', '1', '2')
  assert.equal(compared.keys, [
    { key: 'from', is: 'added' }, { key: 'password', is: 'changed' }, { key: 'user', is: 'same' }
  ])
  const shown = await house.sallyport('get', 'secret', 'prod/smtp')
  assert.match(shown, /password: <secret>/)
  const audit = await house.sallyport('audit', 'list', '--json', '--kind', 'secret.read')
  assert.is((JSON.parse(audit) as unknown[]).length, 3)
  assert.not.match(audit + shown, /first|second/)
})

test.run()
