// An admin's and an auditor's day with the command line, against the product on a PostgreSQL store and a
// PostgreSQL 18 target: doctor, proof of templates, time limits, orphans, refusals that change nothing.
// deadline: 240 s
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { startPostgres } from '../../tool/postgres.ts'
import type { PostgresServer } from '../../tool/postgres.ts'
import { accountsOn, companyDatabase, startHouse, until } from '../peers/house.ts'
import type { House } from '../peers/house.ts'

let store: PostgresServer
let target: PostgresServer
let house: House

test.before(async () => {
  const company = await companyDatabase('18')
  target = company.server
  store = await startPostgres({ version: '15' })
  await store.psql('CREATE DATABASE sallyport')
  house = await startHouse({
    target, adminPassword: company.adminPassword, store: store.url('sallyport'), maxSession: '3s'
  })
})
test.after(async () => {
  await house.stop()
  house.clear()
  await target.stop()
  await store.stop()
})

test('a session is warned in-band and cut at its time limit, and its account is proved gone', async () => {
  const { stderr, status } = await house.psql('SELECT pg_sleep(30)')
  assert.match(stderr, /NOTICE: {2}this session ends in 2 seconds/)
  assert.match(stderr, /the session reached its time limit \[session-expired [0-9a-f]{6}\]/)
  assert.is.not(status, 0)
  await until(() => accountsOn(target), found => found === '')
})

test('both shipped pairs of templates prove themselves on the target', async () => {
  for (const credential of ['orders-rw', 'orders-standing']) {
    const report = await house.json<{ passed: boolean, steps: unknown[] }>('templates', 'prove', credential)
    assert.ok(report.passed, JSON.stringify(report))
  }
  assert.is(await accountsOn(target), '')
})

test('doctor finds everything in order, and says what is missing when it is not', async () => {
  assert.match(await house.sallyport('doctor'), /everything is in order/)
  await target.psql('REVOKE app_rw FROM sallyport')
  try {
    await house.sallyport('doctor')
    assert.unreachable('doctor exits 1 when a right is missing')
  } catch (thrown) {
    assert.match(String(thrown), /app_rw/)
  }
  await target.psql('GRANT app_rw TO sallyport WITH ADMIN OPTION')
})

test('a role that carries our marker but is not in the ledger is reported and never removed', async () => {
  await target.psql(`CREATE ROLE jit_7654321 LOGIN; COMMENT ON ROLE jit_7654321
    IS 'sallyport account=00000000-0000-0000-0000-000000000001 epoch=1'`)
  for (const words of [['orphans', 'scan'], ['orphans', 'reap']]) {
    try {
      await house.sallyport(...words)
      assert.unreachable('it exits 1 while there is one')
    } catch (thrown) {
      assert.match(String(thrown), /jit_7654321.*foreign/s)
      assert.not.match(String(thrown), /standing/)
    }
  }
  assert.is(await accountsOn(target), 'jit_7654321')
  await target.psql('DROP ROLE jit_7654321')
})

test('an account of ours that came back after its proof is found and reaped, with proof (F36)', async () => {
  type Lease = { account: { id: string, name: string } | string, accountName?: string }
  const leases = await house.json<Lease[]>('leases', 'list')
  const [lease] = leases.filter(each => JSON.stringify(each).includes('jit_'))
  const text = JSON.stringify(lease)
  const name = /jit_\d{7}/.exec(text)?.[0] ?? ''
  const id = /"account":(?:\{"id":)?"([0-9a-f-]{36})"/.exec(text)?.[1] ?? ''
  await target.psql(`CREATE ROLE ${name} LOGIN; COMMENT ON ROLE ${name} IS 'sallyport account=${id} epoch=1';
    GRANT ${name} TO sallyport WITH ADMIN OPTION`)
  const report = await house.json<{ orphans: { name: string, verdict: string }[] }>('orphans', 'reap')
  assert.equal(report.orphans.map(each => each.name), [name])
  assert.match(report.orphans[0]?.verdict ?? '', /^(removing|proved-gone)$/)
  await until(() => accountsOn(target), found => found === '')
})

test('a batch with mistakes is refused as one list with paths, and nothing of it is applied', async () => {
  const file = join(house.folder, 'bad.yaml')
  writeFileSync(file, `kind: user
name: bob
roles: [user]
---
kind: grant
name: bobs
users: [bob, nobody]
credentials: [nothing]
---
kind: user
name: carol
roles: [user]
colour: blue
---
kind: credential
name: lost
target: nowhere
username: x
password: { value: y }
---
kind: credential
name: broken
target: orders
jit: { enabled: true, type: sideways }
`)
  try {
    await house.sallyport('apply', '-f', file)
    assert.unreachable('a wrong batch is refused')
  } catch (thrown) {
    const text = String(thrown)
    for (const problem of [/colour/, /nobody/, /nothing/, /nowhere/, /type/]) assert.match(text, problem)
  }
  assert.not.match(await house.sallyport('get', 'user'), /bob/)
})

test('a target that is in use is not deleted, and the answer names who needs it', async () => {
  try {
    await house.sallyport('delete', 'target', 'orders')
    assert.unreachable('it is in use')
  } catch (thrown) {
    assert.match(String(thrown), /orders-rw/)
  }
})

test('a session ends when the grant that opened it is deleted', async () => {
  const session = house.psql('SELECT pg_sleep(60)', { login: 'alice+orders-standing' })
  await until(() => accountsOn(target), found => found === 'standing')
  await until(
    () => target.psql("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"),
    count => count === '1')
  await house.sallyport('delete', 'grant', 'devs-on-orders')
  const { stderr } = await session
  assert.match(stderr, /the access of this session was withdrawn \[grant-withdrawn [0-9a-f]{6}\]/)
  await until(() => accountsOn(target), found => found === '')
})

test('the audit log verifies, offline too, and notices a changed row', async () => {
  assert.match(await house.sallyport('audit', 'verify'), /whole/)
  await store.psql("UPDATE audit_event SET actor = 'somebody' WHERE seq = 2", 'sallyport')
  try {
    await house.sallyport('audit', 'verify')
    assert.unreachable('a row was changed')
  } catch (thrown) {
    assert.match(String(thrown), /row 2/)
  }
})

test.run()
