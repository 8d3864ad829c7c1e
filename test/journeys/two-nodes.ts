// Two nodes over one PostgreSQL store, as a company runs them for availability. An admin of either ends what
// runs on the other. One is killed in the middle of a session: the other one declares it dead, takes its
// account away and closes the session's row as interrupted, all within a minute (F3). The dead node's
// recording is sealed when that node starts again.
// deadline: 240 s
import { cpSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SessionJson } from '../../src/api/client-types.ts'
import { freePort, startPostgres } from '../../tool/postgres.ts'
import type { PostgresServer } from '../../tool/postgres.ts'
import { accountsOn, companyDatabase, startHouse, until } from '../peers/house.ts'
import type { House, HouseOptions } from '../peers/house.ts'
import { apiOf, faultsOfEvidence, sessionsOf } from '../peers/inspector.ts'
import { people, personOf } from '../peers/people.ts'
import { openPsql, startPsql } from '../peers/psql.ts'

// F3: a second node takes over.
const takeoverSecondsMax = 60

const access = `${people('bob', 'carol')}---
kind: grant
name: bob-rw
users: [bob]
credentials: [orders-rw]
approval: { by: [carol] }
`

let target: PostgresServer
let store: PostgresServer
let options: HouseOptions
let one: House
let two: House

test.before(async () => {
  const company = await companyDatabase('15')
  target = company.server
  store = await startPostgres({ version: '15' })
  options = { target, adminPassword: company.adminPassword, store: store.url(), config: 'node: one', access }
  one = await startHouse(options)
  two = await startHouse({ ...options, folder: await secondFolder(one) })
})
test.after(async () => {
  await one.kill()
  await two.stop()
  for (const house of [one, two]) house.clear()
  await target.stop()
  await store.stop()
})

/** A folder for a node of the same installation: its keys are those of the first, all else is its own. */
async function secondFolder(first: House): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-second-'))
  mkdirSync(join(folder, 'data'), { mode: 0o700 })
  for (const key of ['master.key', 'signing.key', 'signing.pub']) {
    cpSync(join(first.folder, 'data', key), join(folder, 'data', key))
  }
  writeFileSync(join(folder, 'sallyport.yaml'), `
node: two
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
        assert.match(thrown.message, /recorded on another node.*\bnode (one|two)\b/s, look))
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
    assert.match(thrown.message, /node of this session did not answer/))
  one.process.kill('SIGCONT')
  assert.match(await until(() => two.sallyport('sessions', 'kill', mine!.id).catch(String),
    said => !said.includes('did not answer')), /^ended|is not alive/)
  await psql.leave()
  await until(() => accountsOn(target), found => found === '')
})

test('a session of a killed node is closed by the other one within a minute', async () => {
  const psql = await openPsql(one)
  const other = await openPsql(two)
  const [mine] = (await sessionsOf(apiOf(two))).filter(({ node }) => node === 'one')
  assert.is(mine?.status, 'live')
  // The row of the session, the ledger's hold and the registered node name one and the same boot.
  assert.is((await bootsOf()).split(',').length, 2)

  await one.kill()
  const killedMs = performance.now()
  assert.is.not(await accountsOn(target), '')
  const left = await until(() => rowOf(mine!.id), row => row?.status !== 'live', takeoverSecondsMax)
  const closedSeconds = (performance.now() - killedMs) / 1000
  assert.is(left?.status, 'interrupted')
  await until(() => rowOf(mine!.id), row => row?.receipt?.state !== undefined, takeoverSecondsMax)
  await until(() => accountsOn(target), found => !found.includes(','),
    takeoverSecondsMax - (performance.now() - killedMs) / 1000)
  const goneSeconds = (performance.now() - killedMs) / 1000
  assert.ok(goneSeconds < takeoverSecondsMax, `${goneSeconds} s`)
  process.stdout.write(`closed after ${closedSeconds.toFixed(1)} s, gone after ${goneSeconds.toFixed(1)} s\n`)
  await psql.leave()

  const query = { kind: 'session.interrupted' }
  const { events } = await apiOf(two).get('/audit', { query })
  assert.equal(events.map(({ subject }) => subject), [mine!.id])
  // The living node's own session goes on.
  other.type("SELECT 'still ' || 'here';")
  await other.sees(/still here/)
  assert.is(await other.leave(), 0)
})

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
