// deadline: 300 s
// A target that fails while an account is being removed. The account stays on the books as not gone for as
// long as nobody could look, is tried for ever, and is gone soon after the target behaves (F9 in short, F10,
// F25, R3); nothing that a target says makes the ledger believe it, only a look does. Beside it: what an
// admin changes meanwhile does not get in the way of the removal (F34, F35), and what is in use cannot be
// deleted.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SessionJson } from '../src/api/client-types.ts'
import type { PostgresServer } from '../tool/postgres.ts'
import { accessDocuments, companyDatabase, startHouse, until } from './peers/house.ts'
import type { House, HouseOptions } from './peers/house.ts'
import { startInjector, successOf } from './peers/injector.ts'
import type { Fault, Injector } from './peers/injector.ts'
import {
  apiOf, faultsOfEvidence, orphansOf, residueOn, rolesOn, sessionsOf, untilGone, untilProved
} from './peers/inspector.ts'
import { openPsql } from './peers/psql.ts'

// R3: the first success after the target is back. A fault that let an answer be lost is followed by a look.
const backSecondsMax = 10
// "Dropped, committed", and nothing was.
const falseSuccess = successOf('DROP ROLE', 'COMMIT')
const shipped = join(import.meta.dirname, '../templates/postgres/delete-role.yaml')
const badBytes = Buffer.from([0x45, 0, 0, 0, 4])

let target: PostgresServer
let injector: Injector
let house: House
let options: HouseOptions
let before: Set<string>

test.before(async () => {
  const company = await companyDatabase('15')
  target = company.server
  injector = await startInjector(target.port)
  before = await rolesOn(target)
  options = {
    target: Object.create(target, { port: { value: injector.port } }) as PostgresServer,
    adminPassword: company.adminPassword,
    limits: 'recordingsReserve: 1MiB, hookConnect: 1s, hookStatement: 1s, hookAction: 4s'
  }
  house = await startHouse(options)
})
test.after(async () => {
  await house.stop()
  house.clear()
  await injector.stop()
  await target.stop()
})

const newest = async (): Promise<SessionJson> => (await sessionsOf(apiOf(house)))[0]!
const session = (id: string): Promise<SessionJson> => apiOf(house).get('/sessions/{id}', { params: { id } })

/** The account is on the target, so the books may not say that it is gone. */
async function assertNotBelieved(id: string, name: string): Promise<void> {
  const { account, receipt } = await session(id)
  if (await residueOn(target, before) === '') return
  assert.is.not(account?.state, 'proved-gone', name)
  assert.is.not(receipt?.state, 'proved-gone', name)
}

const drop = /^DROP ROLE "jit_/
const faults: [string, Fault][] = [
  ['refuses connections', { kind: 'refuse' }],
  ['accepts connections and hangs', { kind: 'hang' }],
  ['hears everything and says nothing', { kind: 'hang', way: 'to-client' }],
  ['resets connections after some statements', { kind: 'reset', afterBytes: 1500 }],
  ['dies at the first rung', { kind: 'drop-request', at: /NOLOGIN/, then: 'reset' }],
  ['drops the role and dies before it says so', { kind: 'drop-reply', at: /^COMMIT/, then: 'reset' }],
  ['never gets the statement and hangs', { kind: 'drop-request', at: drop, then: 'hang' }],
  [
    'says that it dropped the role and did not',
    { kind: 'lie', at: drop, answer: falseSuccess, delivered: false }
  ],
  ['answers with five bad bytes', { kind: 'lie', at: drop, answer: badBytes, delivered: false }]
]

for (const [name, fault] of faults) {
  test(`a target that ${name} cannot make the ledger forget an account`, async () => {
    const psql = await openPsql(house)
    const { id } = await newest()
    // Only the hooks: the session's own goodbye must not meet the fault.
    await injector.fault(fault, fault.kind === 'refuse' ? /^/ : /^sallyport$/)
    await psql.leave()
    for (let looks = 0; looks < 15; looks++) {
      await assertNotBelieved(id, name)
      await new Promise(resolve => setTimeout(resolve, 100))
    }
    if ('at' in fault) assert.ok(injector.hits > 0, 'the fault met nothing')
    await injector.fault({ kind: 'none' })
    const seconds = await untilGone(target, before, backSecondsMax)
    assert.ok(seconds <= backSecondsMax)
    const { account } = await session(id)
    assert.ok(account !== null)
  })
}

test('a target that is away is asked again and again, its accounts are shown as not gone (F9)', async () => {
  const psql = await openPsql(house)
  const { id } = await newest()
  await injector.fault({ kind: 'refuse' })
  await psql.leave()
  await until(() => session(id), ({ account }) => account?.state === 'unreachable')
  const receipt = await apiOf(house).get('/sessions/{id}/receipt', { params: { id } })
  assert.is(receipt.state, 'unreachable')
  for (let looks = 0; looks < 12; looks++) {
    await assertNotBelieved(id, 'away')
    await new Promise(resolve => setTimeout(resolve, 1000))
  }
  await injector.fault({ kind: 'none' })
  assert.ok(await untilGone(target, before, backSecondsMax) <= backSecondsMax)
  await until(() => session(id), found => found.receipt?.state === 'proved-gone')
})

test('a target that is restarted under a session ends it with a code, and its account is gone', async () => {
  const psql = await openPsql(house)
  await target.halt()
  await target.resume()
  psql.type('SELECT 1;')
  await psql.sees(/\[target-closed [0-9a-f]{6}\]|terminating connection|server closed the connection/)
  await psql.leave()
  assert.ok(await untilGone(target, before, 15) <= 15)
})

test('a template edited while a session is open: the one that made an account removes it (F35)', async () => {
  const psql = await openPsql(house)
  const { id } = await newest()
  const broken = join(house.folder, 'delete-role.yaml')
  writeFileSync(broken, `id: postgres/delete-role
plugin: postgres
action: delete
title: Does nothing
steps:
  - name: nothing
    sql: SELECT 1
`)
  await house.sallyport('templates', 'save', 'postgres/delete-role', broken)
  await psql.leave()
  await untilGone(target, before)
  await until(() => session(id), found => found.receipt?.state === 'proved-gone')
  const { body } = await apiOf(house).get('/sessions/{id}/receipt', { params: { id } })
  assert.match(JSON.stringify(body), /postgres\/delete-role/)

  // The next session gets the edited one, which removes nothing: no look is fooled by it.
  const fooled = await openPsql(house)
  const { id: second } = await newest()
  await fooled.leave()
  await until(
    () => session(second), ({ account }) => account?.state === 'stuck' || account?.state === 'quarantined')
  assert.match(await residueOn(target, before), /^jit_/)
  // An admin mends it by hand, and the ledger finds that out by itself.
  await target.psql(`DROP ROLE ${await target.psql("SELECT rolname FROM pg_roles WHERE rolname ~ '^jit_'")}`)
  await until(() => session(second), ({ account }) => account?.state === 'proved-gone')
  await house.sallyport('templates', 'save', 'postgres/delete-role', shipped)
})

test('an admin password rotated while sessions are open: the new one removes accounts (F34)', async () => {
  const psql = await openPsql(house)
  await target.psql("ALTER ROLE sallyport PASSWORD 'rotated'")
  await psql.leave()
  const { id } = await newest()
  const { account } = await until(() => session(id), found => found.receipt !== null)
  // A connection that was logged in before may have removed it: without a new login nobody can prove that.
  assert.is.not(account?.state, 'proved-gone')
  const { receipt } = await session(id)
  const { body } = await apiOf(house).get('/sessions/{id}/receipt', { params: { id } })
  assert.is.not(receipt?.state, 'proved-gone')
  assert.match(JSON.stringify(body), /refused|authentication|password/i, 'the reason is listed')
  await apply({ ...options, adminPassword: 'rotated' })
  await untilGone(target, before)
  await until(() => session(id), found => found.receipt?.state === 'proved-gone')
})

async function apply(changed: HouseOptions): Promise<void> {
  const file = join(house.folder, 'access.yaml')
  writeFileSync(file, accessDocuments(changed))
  house.environment['ORDERS_ADMIN_PASSWORD'] = changed.adminPassword
  await house.sallyport('apply', '-f', file)
}

test('a target and a credential that sessions or removals still need cannot be deleted', async () => {
  const psql = await openPsql(house, 'alice+orders-standing')
  const needed = [['credential', 'orders-admin'], ['credential', 'orders-standing'], ['target', 'orders']]
  for (const [kind, name] of needed) {
    const deleted = house.sallyport('delete', kind!, name!)
    const thrown: unknown = await deleted.then(() => undefined, (error: unknown) => error)
    assert.match(String(thrown), /in-use/, `${kind} ${name}`)
  }
  await psql.leave()
  await untilGone(target, before)
})

test('after all of it the ledger has every account proved gone', async () => {
  const api = apiOf(house)
  await untilProved(api)
  assert.is(await residueOn(target, before), '')
  assert.equal(await faultsOfEvidence(api), [])
  assert.equal((await orphansOf(api)).orphans, [])
})

test.run()
