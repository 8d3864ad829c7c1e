// Two nodes over one PostgreSQL store, as a company runs them for availability. An admin of either ends what
// runs on the other; what expires on both at once is removed by one of them. One is killed in the middle of a
// session: another declares it dead, takes its account away and closes the session's row as interrupted, all
// within a minute (F3). At the same moment a third one loses its way to the store, and a fourth one stands
// still: the third cuts its sessions before anybody removes their accounts (F23), the fourth when it goes on
// (F28). The dead node's recording is sealed when that node starts again.
// deadline: 240 s
import { cpSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SessionJson } from '../../src/api/client-types.ts'
import { freePort, startPostgres } from '../../tool/postgres.ts'
import type { PostgresServer } from '../../tool/postgres.ts'
import { accountsOn, companyDatabase, startHouse, until } from '../peers/house.ts'
import type { House, HouseOptions } from '../peers/house.ts'
import { startInjector } from '../peers/injector.ts'
import type { Injector } from '../peers/injector.ts'
import { apiOf, faultsOfEvidence, sessionsOf } from '../peers/inspector.ts'
import { people, personOf } from '../peers/people.ts'
import { openPsql, startPsql } from '../peers/psql.ts'
import type { Psql } from '../peers/psql.ts'

// F3: a second node takes over.
const takeoverSecondsMax = 60
// F23: a node without its store gives up so soon, with a look every other second.
const cutSecondsMax = 35
// F22.
const crowd = 100

const access = `${people('bob', 'carol')}---
kind: grant
name: bob-rw
users: [bob]
credentials: [orders-rw]
approval: { by: [carol] }
---
kind: environment
name: prod
---
kind: secret
name: crowd
environment: prod
provider: postgres
target: orders
authenticationCredential: orders-admin
create: postgres/create-role
delete: postgres/delete-role
variables: { roles: [app_rw] }
`

let target: PostgresServer
let store: PostgresServer
let options: HouseOptions
let one: House
let two: House
/** Its way to the store can be cut. */
let three: House
let wayOfThree: Injector
let four: House

test.before(async () => {
  const company = await companyDatabase('15')
  target = company.server
  store = await startPostgres({ version: '15' })
  options = { target, adminPassword: company.adminPassword, store: store.url(), config: 'node: one', access }
  one = await startHouse(options)
  two = await startHouse({ ...options, folder: await folderOf('two', one) })
  wayOfThree = await startInjector(store.port)
  const through = store.url().replace(`:${store.port}`, `:${wayOfThree.port}`)
  three = await startHouse({ ...options, store: through, folder: await folderOf('three', one) })
  four = await startHouse({ ...options, folder: await folderOf('four', one) })
})
test.after(async () => {
  await one.kill()
  four.process.kill('SIGCONT')
  await wayOfThree.fault({ kind: 'none' })
  for (const house of [two, three, four]) await house.stop()
  for (const house of [one, two, three, four]) house.clear()
  await wayOfThree.stop()
  await target.stop()
  await store.stop()
})

/** A folder for a node of the same installation: its keys are those of the first, all else is its own. */
async function folderOf(node: string, first: House): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), `sallyport-${node}-`))
  mkdirSync(join(folder, 'data'), { mode: 0o700 })
  for (const key of ['master.key', 'signing.key', 'signing.pub']) {
    cpSync(join(first.folder, 'data', key), join(folder, 'data', key))
  }
  writeFileSync(join(folder, 'sallyport.yaml'), `
node: ${node}
listen: { ssh: null, postgres: "127.0.0.1:${await freePort()}", http: "127.0.0.1:${await freePort()}" }
limits: { recordingsReserve: 1MiB, drain: 1s }
`)
  return folder
}

const rowOf = async (id: string): Promise<SessionJson | undefined> =>
  (await sessionsOf(apiOf(two))).find(row => row.id === id)

const bootsOf = async (): Promise<string> => store.psql(`
  SELECT string_agg(s.boot, ',') FROM session s JOIN node n ON n.id = s.node AND n.boot = s.boot
    JOIN hold h ON h.node = s.node AND h.boot = s.boot AND h.owner = s.id
  WHERE s.status = 'live'`)

test('an admin of either node ends a session of the other', async () => {
  for (const [here, there] of [[one, two], [two, one]] as const) {
    const psql = await openPsql(here)
    const [mine] = (await sessionsOf(apiOf(there))).filter(({ status }) => status === 'live')
    assert.match(await there.sallyport('sessions', 'kill', mine!.id), /^ended /)
    psql.type('SELECT 1;')
    await psql.sees(/the session was ended by an administrator/)
    await psql.leave()
    await until(() => rowOf(mine!.id), row => row?.status === 'ended')
    for (const look of ['replay', 'verify']) {
      await there.sallyport('sessions', look, mine!.id).then(assert.unreachable, (thrown: Error) =>
        assert.match(thrown.message, /(?=.*\[recorded-elsewhere ).*another node.*\bnode (one|two)\b/s, look))
    }
    await there.sallyport('sessions', 'kill', mine!.id).then(assert.unreachable, (thrown: Error) =>
      assert.match(thrown.message, /is not alive/))
  }
  const { events } = await apiOf(two).get('/audit', { query: { kind: 'session.killed' } })
  assert.is(events.length, 2)
})

test('who waits on one node goes on at once when it is approved over the other', async () => {
  const carol = await personOf(two, 'carol')
  const psql = startPsql(one, 'bob+orders-rw')
  psql.type("SELECT 'rea' || 'dy';")
  const told = await psql.sees(/request req-[0-9a-f]{10} needs/)
  const id = /req-[0-9a-f]{10}/.exec(told)?.[0] ?? ''
  await carol.decides('approve', id)
  // Sooner than the next look of its own.
  await psql.sees(/is approved/, 3)
  await psql.sees(/ready/)
  await carol.decides('withdraw', id)
  const live = async (): Promise<number> =>
    (await sessionsOf(apiOf(two))).filter(({ status }) => status === 'live').length
  await until(live, count => count === 0, 3)
  psql.type('SELECT 1;')
  assert.match(await psql.sees(/grant-withdrawn/), /the access of this session was withdrawn/)
  await psql.leave()
})

test('a grant that is taken away over one node ends the sessions that it gave on the other', async () => {
  const psql = await openPsql(one)
  const grants = await two.sallyport('get', 'grant', 'devs-on-orders')
  const [mine] = (await sessionsOf(apiOf(two))).filter(({ status }) => status === 'live')
  await two.sallyport('delete', 'grant', 'devs-on-orders')
  const ended = await until(() => rowOf(mine!.id), row => row?.status !== 'live')
  assert.match(ended?.reason ?? '', /^grant-withdrawn/)
  await psql.leave()
  const file = join(two.folder, 'grants.yaml')
  writeFileSync(file, grants)
  await two.sallyport('apply', '-f', file)
  await until(() => accountsOn(target), found => found === '')
})

test('a session whose node does not answer is not called ended', async () => {
  const psql = await openPsql(one)
  const [mine] = (await sessionsOf(apiOf(two))).filter(({ status }) => status === 'live')
  one.process.kill('SIGSTOP')
  await two.sallyport('sessions', 'kill', mine!.id).then(assert.unreachable, (thrown: Error) =>
    assert.match(thrown.message, /node of this session did not answer.*\[node-silent /s))
  one.process.kill('SIGCONT')
  assert.match(await until(() => two.sallyport('sessions', 'kill', mine!.id).catch(String),
    said => !said.includes('did not answer')), /^ended|is not alive/)
  await psql.leave()
  await until(() => accountsOn(target), found => found === '')
})

test('what expires on two nodes in the same second is removed once (F22, R23)', async () => {
  await target.psql("ALTER SYSTEM SET log_statement = 'ddl'")
  await target.psql('SELECT pg_reload_conf()')
  const names: string[] = []
  let made = 0
  const make = async (house: House): Promise<void> => {
    while (made++ < crowd) {
      const asked = { params: { path: 'prod/crowd' }, body: { ttl: 60 } }
      const { lease } = await apiOf(house).post('/secrets/{path}/generate', asked)
      names.push(lease!.account.name)
    }
  }
  await Promise.all([one, two, one, two, one, two].map(make))
  assert.is((await accountsOn(target)).split(',').length, crowd)
  const counted = async (what: string): Promise<number> =>
    Number(await store.psql(`SELECT count(*) FROM ${what}`))
  const receipts = await counted('receipt')
  await store.psql("UPDATE hold SET expires_at = now() + interval '1 second' WHERE state = 'active'")
  await until(() => accountsOn(target), found => found === '', 15)
  await until(() => counted("account WHERE state <> 'proved-gone'"), left => left === 0)
  assert.is(await counted('receipt') - receipts, crowd)
  assert.is(await counted("lease_event WHERE kind = 'taken-over'"), 0)
  const drops = readFileSync(target.logFile, 'utf8').split('\n').filter(line => line.includes('DROP ROLE'))
  for (const name of names) assert.is(drops.filter(line => line.includes(name)).length, 1, name)
})

async function declaredDead(): Promise<string[]> {
  const { events } = await apiOf(two).get('/audit', { query: { kind: 'node.dead' } })
  return events.map(({ subject }) => subject)
}

test('a session of a killed node is closed by another one within a minute', async () => {
  const psql = await openPsql(one)
  const other = await openPsql(two)
  const [cutOff, frozen] = [await openPsql(three), await openPsql(four)]
  for (const each of [cutOff, frozen]) each.type('SELECT pg_sleep(600);')
  const [mine] = (await sessionsOf(apiOf(two))).filter(({ node }) => node === 'one')
  assert.is(mine?.status, 'live')
  // The row of the session, the ledger's hold and the registered node name one and the same boot.
  assert.is((await bootsOf()).split(',').length, 4)

  await one.kill()
  await wayOfThree.fault({ kind: 'hang' })
  four.process.kill('SIGSTOP')
  const killedMs = performance.now()
  // Three is the first to know: nobody may have taken over when its person hears of it.
  await cutOff.sees(/\[lease-lost [0-9a-f]{6}\]/, cutSecondsMax)
  assert.equal(await declaredDead(), [])
  const cutSeconds = (performance.now() - killedMs) / 1000
  assert.is.not(await accountsOn(target), '')
  const left = await until(() => rowOf(mine!.id), row => row?.status !== 'live', takeoverSecondsMax)
  const closedSeconds = (performance.now() - killedMs) / 1000
  assert.is(left?.status, 'interrupted')
  await until(() => rowOf(mine!.id), row => row?.receipt?.state !== undefined, takeoverSecondsMax)
  await until(() => accountsOn(target), found => !found.includes(','),
    takeoverSecondsMax - (performance.now() - killedMs) / 1000)
  const goneSeconds = (performance.now() - killedMs) / 1000
  assert.ok(goneSeconds < takeoverSecondsMax, `${goneSeconds} s`)
  process.stdout.write(`cut off: cut after ${cutSeconds.toFixed(1)} s; killed: closed after `
    + `${closedSeconds.toFixed(1)} s, gone after ${goneSeconds.toFixed(1)} s\n`)
  await until(declaredDead, names => ['one', 'three', 'four'].every(name => names.includes(name)))
  for (const each of [psql, cutOff]) await each.leave()

  const query = { kind: 'session.interrupted' }
  const { events } = await apiOf(two).get('/audit', { query })
  assert.ok(events.some(({ subject }) => subject === mine!.id))
  // The living node's own session goes on.
  other.type("SELECT 'still ' || 'here';")
  await other.sees(/still here/)
  assert.is(await other.leave(), 0)
  await checkBack(frozen)
})

/** Four goes on and finds that it was declared dead; three has its store again. Both serve. */
async function checkBack(frozen: Psql): Promise<void> {
  await until(() => accountsOn(target), found => found === '')
  four.process.kill('SIGCONT')
  await frozen.sees(/\[[a-z-]+ [0-9a-f]{6}\]|terminating connection/)
  await frozen.leave()
  await wayOfThree.fault({ kind: 'none' })
  for (const house of [three, four]) {
    await until(async () => (await house.psql("SELECT 'let in'")).stdout, said => said === 'let in\n')
  }
  await until(() => accountsOn(target), found => found === '')
}

test('the recording of that session is sealed when its node starts again', async () => {
  one = await startHouse({ ...options, folder: one.folder })
  assert.match(one.log(), /sallyport serves/)
  // Each node has the recordings of its own sessions.
  const sessions = (await sessionsOf(apiOf(one))).filter(({ node }) => node === 'one')
  assert.is(sessions.filter(({ status }) => status === 'interrupted').length, 1)
  assert.equal(await faultsOfEvidence(apiOf(one), sessions), [])
  await until(() => accountsOn(target), found => found === '')
})

test.run()
