// Who may have secrets: people and applications by grants, applications by tokens that rotate, expire and are
// bound to networks; profiles that make accounts on several targets; and what ends without anybody asking,
// expiry and a withdrawn grant. The product on a PostgreSQL store, its command line, stock psql.
// deadline: 240 s
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type {
  ApplicationTokenJson, FreshApplicationTokenJson, LeaseEventJson, LeaseJson, ProfileJson, ReadingJson,
  SecretJson, SecretVersionJson
} from '../../src/api/client-types.ts'
import { tokensPerApplicationMax } from '../../src/store/application-tokens.ts'
import type { PostgresServer } from '../../tool/postgres.ts'
import { accountsOn, alicePassword, companyDatabase, login, startHouse, until } from '../peers/house.ts'
import type { House } from '../peers/house.ts'

let target: PostgresServer
let house: House

const documents = `---
kind: environment
name: prod
---
kind: profile
name: writers
type: postgres
credentialUsername: sallyport
create: postgres/create-role
delete: postgres/delete-role
roles: " app_rw, app_rw ,"
ttl: 120
---
kind: secret
name: orders
environment: prod
path: apps
profile: writers
target: orders
namePrefix: svc_
maxTtl: 10m
---
kind: secret
name: mail
environment: prod
data: { password: { value: letters } }
---
kind: application
name: billing
networks: [127.0.0.0/8]
---
kind: application
name: elsewhere
networks: [192.0.2.0/24, "2001:db8::/32"]
---
kind: grant
name: billing-on-apps
applications: [billing, elsewhere]
secrets: [prod/apps/*]
---
kind: grant
name: alice-on-mail
users: [alice]
secrets: [prod/mail]
`

test.before(async () => {
  const company = await companyDatabase('18')
  target = company.server
  await target.psql('CREATE DATABASE sallyport')
  house = await startHouse({
    target, adminPassword: company.adminPassword, store: target.url('sallyport'), access: documents
  })
})
test.after(async () => {
  await house.stop()
  house.clear()
  await target.stop()
})

const everyAccount = (): Promise<string> =>
  target.psql("SELECT coalesce(string_agg(rolname, ','), '') FROM pg_roles WHERE rolname ~ '^svc_'")

async function tokenOf(application: string, ...words: string[]): Promise<FreshApplicationTokenJson> {
  return house.json<FreshApplicationTokenJson>('applications', 'token', application, ...words)
}

/** The command line with a token instead of the local admin. */
async function as<T>(token: string, act: () => Promise<T>): Promise<T> {
  house.environment['SALLYPORT_TOKEN'] = token
  try {
    return await act()
  } finally {
    delete house.environment['SALLYPORT_TOKEN']
  }
}

const refusal = (...words: string[]): Promise<string> => house.refusal(...words)

async function apply(yaml: string): Promise<string> {
  const file = join(house.folder, 'more.yaml')
  writeFileSync(file, yaml)
  return house.sallyport('apply', '-f', file)
}

// Promised: S3.
test('an application generates on its paths, sees and ends its own leases, and nothing else', async () => {
  const { token } = await tokenOf('billing')
  const admins = await house.json<ReadingJson>('secrets', 'generate', 'prod/apps/orders')
  await as(token, async () => {
    const paths = (await house.json<SecretJson[]>('secrets', 'list')).map(({ path }) => path)
    assert.equal(paths, ['prod/apps/orders'])
    const { lease, values } = await house.json<ReadingJson>('secrets', 'generate', 'prod/apps/orders')
    assert.match(values['username'] ?? '', /^svc_\d{7}$/)
    assert.is(`${lease!.ownerKind} ${lease!.owner}`, 'application billing')
    const own = await house.json<LeaseJson[]>('leases', 'list')
    assert.equal(own.map(({ id }) => id), [lease!.id])
    await house.json('leases', 'renew', lease!.id, '--ttl', '60')
    assert.match(await refusal('leases', 'show', admins.lease!.id), /not found/)
    assert.match(await refusal('leases', 'revoke', admins.lease!.id), /not found/)
    assert.equal(await house.json('leases', 'revoke', lease!.id), { id: lease!.id, revoked: true })
    // What it may not have is not told from what is not there.
    assert.match(await refusal('secrets', 'read', 'prod/mail'), /not found/)
    assert.match(await refusal('secrets', 'read', 'prod/nothing'), /not found/)
    assert.match(await refusal('apply', '-f', join(house.folder, 'access.yaml')), /access denied/)
    const events = await house.json<LeaseEventJson[]>('leases', 'history', lease!.id)
    assert.is(events.find(({ kind }) => kind === 'revoked')?.actor, 'application/billing')
  })
  await house.json('leases', 'revoke', admins.lease!.id)
  assert.is(await everyAccount(), '')
})

test('a person has what a grant says, and no more', async () => {
  house.environment['SALLYPORT_PASSWORD'] = alicePassword
  await house.sallyport('login', 'alice')
  try {
    const { values } = await house.json<ReadingJson>('secrets', 'read', 'prod/mail')
    assert.equal(values, { password: 'letters' })
    assert.match(await refusal('secrets', 'generate', 'prod/apps/orders'), /not found/)
    assert.match(await refusal('secrets', 'delete', 'prod/mail'), /access denied/)
    assert.equal((await house.json<SecretJson[]>('secrets', 'list')).map(({ path }) => path), ['prod/mail'])
  } finally {
    await house.sallyport('logout')
  }
  assert.match(await house.sallyport('audit', 'list', '--kind', 'secret.read'), /alice +prod\/mail/)
})

test('a token is shown once, rotates with an overlap, ends, and is bound to its networks', async () => {
  const first = await tokenOf('billing', '--ttl', '1h')
  const whoami = (): Promise<{ name: string, roles: string[] }> => house.json('whoami')
  assert.equal((await as(first.token, whoami)).roles, ['application'])
  const listed = await house.json<ApplicationTokenJson[]>('applications', 'tokens', 'billing')
  const stored = await target.psql('SELECT * FROM application_token', 'sallyport')
  assert.ok(listed.some(({ id }) => id === first.id))
  assert.not.match(JSON.stringify(listed) + stored + house.log(), new RegExp(first.token))
  const second = await house.json<FreshApplicationTokenJson>(
    'applications', 'rotate', 'billing', first.id, '--overlap', '1h')
  for (const { token } of [first, second]) assert.is((await as(token, whoami)).name, 'billing')
  const third = await house.json<FreshApplicationTokenJson>('applications', 'rotate', 'billing', second.id)
  assert.match(await as(second.token, () => refusal('whoami')), /log in first/)
  assert.is((await as(third.token, whoami)).name, 'billing')
  await house.sallyport('applications', 'revoke', 'billing', third.id)
  assert.match(await as(third.token, () => refusal('whoami')), /log in first/)
  const away = await tokenOf('elsewhere')
  assert.match(await as(away.token, () => refusal('whoami')), /log in first/)
  const refused = await house.sallyport('audit', 'list', '--kind', 'application.refused')
  assert.match(refused, /application\/elsewhere/)
  const expiring = await tokenOf('billing', '--ttl', '1s')
  await until(() => as(expiring.token, () => house.sallyport('whoami').then(() => 'in', () => 'out')),
    how => how === 'out')
})

test('an application has so many valid tokens and no more', async () => {
  const none = "DELETE FROM application_token WHERE application = 'elsewhere'"
  await target.psql(none, 'sallyport')
  const full = `INSERT INTO application_token (id, hash, application, created_by, expires_at)
    SELECT 'full-' || n, 'full-' || n, 'elsewhere', 'local', now() + interval '1 hour'
    FROM generate_series(1, ${tokensPerApplicationMax}) n`
  await target.psql(full, 'sallyport')
  assert.match(await refusal('applications', 'token', 'elsewhere'), /limit-reached/)
  const beside = await refusal('applications', 'rotate', 'elsewhere', 'full-1', '--overlap', '1h')
  assert.match(beside, /limit-reached/)
  await house.sallyport('applications', 'revoke', 'elsewhere', 'full-1')
  assert.is((await tokenOf('elsewhere')).application, 'elsewhere')
  await target.psql(none, 'sallyport')
})

// Promised: P3, P4.
test('a profile gives its TTL and roles; an inactive one issues nothing and still cleans up', async () => {
  const words = ['--type', 'postgres', '--status', 'active']
  const [profile] = await house.json<ProfileJson[]>('profiles', 'list', ...words)
  assert.equal(profile?.roles, ['app_rw'])
  assert.match(profile?.id ?? '', /^[0-9a-f-]{36}$/)
  const found = await house.json('profiles', 'list', '--id', profile!.id, '--identifier', 'writers')
  assert.equal(found, [profile])
  assert.equal(await house.json('profiles', 'list', '--status', 'inactive'), [])
  const { lease } = await house.json<ReadingJson>('secrets', 'generate', 'prod/apps/orders')
  const seconds = (Date.parse(lease!.expiresAt) - Date.parse(lease!.createdAt)) / 1000
  assert.is(Math.round(seconds), 120)
  const written = await house.sallyport('get', 'profile', 'writers')
  await apply(written.replace('status: active', 'status: inactive'))
  assert.match(await refusal('secrets', 'generate', 'prod/apps/orders'), /profile writers is inactive/)
  assert.is(await house.sallyport('orphans', 'scan'), '')
  // Its live lease runs to its end, and is still removed.
  assert.is((await house.json<LeaseJson>('leases', 'show', lease!.id)).status, 'active')
  await target.psql(`UPDATE hold SET expires_at = now() WHERE id = '${lease!.id}'`, 'sallyport')
  await until(everyAccount, accounts => accounts === '')
  assert.is((await house.json<LeaseJson>('leases', 'show', lease!.id)).status, 'expired')
  await apply(written)
  const [again] = await house.json<ProfileJson[]>('profiles', 'list')
  assert.is(again?.id, profile?.id)
  assert.ok(Date.parse(again!.updatedAt) > Date.parse(again!.createdAt))
})

test('a lease ends by itself within five seconds of its time, with its live connection (S7)', async () => {
  const reading = await house.json<ReadingJson>('secrets', 'generate', 'prod/apps/orders')
  const id = reading.lease!.id
  await target.psql(
    `UPDATE hold SET expires_at = now() + interval '1 second' WHERE id = '${id}'`, 'sallyport')
  const beganMs = performance.now()
  await until(everyAccount, accounts => accounts === '')
  assert.ok(performance.now() - beganMs < 6000)
  await until(() => house.json<LeaseJson>('leases', 'show', id), ({ status }) => status === 'expired')
  assert.match(await refusal('leases', 'renew', id, '--ttl', '60'), /the lease has expired/)
})

// Promised: renewal R2.
test('a renewed credential overlaps with the one before, which goes once it was replaced', async () => {
  const { token } = await tokenOf('billing')
  const read = (...words: string[]): Promise<ReadingJson> =>
    as(token, () => house.json<ReadingJson>('secrets', 'read', 'prod/apps/orders', ...words))
  const states = async (): Promise<string> =>
    (await house.json<SecretVersionJson[]>('secrets', 'versions', 'prod/apps/orders'))
      .map(({ version, state }) => `${version} ${state}`).join()
  const renewal = 'renewal: { ephemeralCredentials: 10, overlap: 1m'
  const before = await house.sallyport('get', 'secret', 'prod/apps/orders')
  const written = before.replace('maxTtl: 10m', 'maxTtl: 1h')
  assert.match(await apply(`${written}${renewal} }\n`), /warning: .* must read it again within 1m .* before/)
  await apply(`${written}${renewal}, confirmed: true }\n`)
  await until(everyAccount, accounts => accounts !== '')
  const first = await until(() => read().catch(() => undefined), reading => reading !== undefined)
  assert.is((await login(target, first!)).stdout.trim(), first!.values['username'])
  await target.psql("UPDATE renewed_credential SET created_at = now() - interval '10 minutes'", 'sallyport')
  await until(states, all => all === '1 retiring,2 current')
  assert.match(await everyAccount(), /,/)
  await target.psql('UPDATE renewed_credential SET retire_at = now() WHERE version = 1', 'sallyport')
  await until(() => house.sallyport('audit', 'list', '--kind', 'secret.still-in-use'),
    found => found.includes('application billing'))
  assert.is((await login(target, first!)).status, 0)
  const second = await read()
  assert.equal([first?.version, second.version], [1, 2])
  await until(everyAccount, accounts => accounts === second.values['username'])
  assert.is.not((await login(target, first!)).status, 0)
  assert.is((await login(target, second)).status, 0)
  const lease = await house.json<LeaseJson>('leases', 'show', first!.lease!.id)
  assert.equal([lease.status, lease.account.state], ['revoked', 'proved-gone'])
  await until(states, all => all === '1 retired,2 current')
  await apply(written)
  await house.json('leases', 'revoke', second.lease!.id)
  await until(everyAccount, accounts => accounts === '')
})

test('a lease is not renewed beyond the end that its grant was given meanwhile', async () => {
  const { token } = await tokenOf('billing')
  const grant = documents.split('---\n').find(text => text.includes('name: billing-on-apps')) ?? ''
  const reading = await as(token, () => house.json<ReadingJson>('secrets', 'generate', 'prod/apps/orders'))
  await apply(`${grant}notAfter: ${new Date(Date.parse(reading.lease!.createdAt) + 200_000).toISOString()}\n`)
  const renew = (): Promise<string> => refusal('leases', 'renew', reading.lease!.id, '--ttl', '200')
  assert.match(await as(token, renew), /the lease would pass its maximum; \d+ s can still be added/)
  await house.json('leases', 'revoke', reading.lease!.id)
  await apply(grant)
})

test('a lease goes when the grant that it was made by is taken away', async () => {
  const { token } = await tokenOf('billing')
  const reading = await as(token, () => house.json<ReadingJson>('secrets', 'generate', 'prod/apps/orders'))
  await house.sallyport('delete', 'grant', 'billing-on-apps')
  await until(everyAccount, found => found === '')
  const events = await house.json<LeaseEventJson[]>('leases', 'history', reading.lease!.id)
  assert.ok(events.some(({ kind, actor }) => kind === 'revoked' && actor === 'system'))
  assert.match(await as(token, () => refusal('secrets', 'generate', 'prod/apps/orders')), /not found/)
  assert.is(await accountsOn(target), '')
})

test.run()
