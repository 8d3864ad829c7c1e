// Two nodes over one PostgreSQL store, as a company runs them for availability. An admin of either ends what
// runs on the other, and an auditor of either watches, replays and exports what the other recorded; what
// expires on both at once is removed by one of them. One is killed in the middle of a session: another
// declares it dead, takes its account away and closes the session's row as interrupted, all within a minute
// (F3). At the same time a third one loses its way to the store, and a fourth one stands still: the third
// cuts its sessions before anybody removes their accounts (F23), the fourth when it goes on (F28). The dead
// node's recording is sealed when that node starts again.
// deadline: 240 s
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import type { IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WebSocket } from 'ws'
import type { SessionJson } from '../../src/api/client-types.ts'
import type { Client } from '../../src/cli/client.ts'
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

const command = fileURLToPath(new URL('../../src/cli/sallyport.ts', import.meta.url))

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
  const httpPort = await freePort()
  const config = `node: one\napi: { advertise: "https://127.0.0.1:${httpPort}" }`
  options = {
    target, adminPassword: company.adminPassword, store: store.url(), httpPort, config, access
  }
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
  const httpPort = await freePort()
  writeFileSync(join(folder, 'sallyport.yaml'), `
node: ${node}
api: { advertise: "https://127.0.0.1:${httpPort}" }
listen: { ssh: null, postgres: "127.0.0.1:${await freePort()}", http: "127.0.0.1:${httpPort}" }
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
    assert.is((await apiOf(there).get('/sessions/{id}/verify', { params: { id: mine!.id } })).state, 'sealed')
    await there.sallyport('sessions', 'kill', mine!.id).then(assert.unreachable, (thrown: Error) =>
      assert.match(thrown.message, /is not alive/))
  }
  const { events } = await apiOf(two).get('/audit', { query: { kind: 'session.killed' } })
  assert.is(events.length, 2)
})

/** `sessions watch` on a node, in the background. */
function watchOn(house: House, id: string): { seen(): Promise<string>, ended: Promise<number | null> } {
  const child = spawn(process.execPath, [command, '--config', join(house.folder, 'sallyport.yaml'),
    'sessions', 'watch', id], { env: house.environment, stdio: ['ignore', 'pipe', 'inherit'] })
  let seen = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => { seen += text })
  return { seen: async () => seen, ended: once(child, 'close').then(([code]) => code as number | null) }
}

/** The same as a page of the console has it. */
function tailOn(house: House, id: string): { seen(): Promise<string>, ended: Promise<number> } {
  const { server, token, ca } = apiOf(house).connection
  const socket = new WebSocket(`${server.replace('https', 'wss')}/api/v1/sessions/${id}/watch`, {
    ca, headers: { authorization: `Bearer ${token}` }
  })
  let seen = ''
  socket.on('message', data => { seen += `${String(data)}\n` })
  return { seen: async () => seen, ended: once(socket, 'close').then(([code]) => code as number) }
}

/** One character for each byte. */
async function bytesOf(stream: AsyncIterable<Buffer>): Promise<string> {
  return Buffer.concat(await Array.fromAsync(stream)).toString('latin1')
}

async function partOf(
  { connection }: Client, path: string, range: string
): Promise<[IncomingMessage, Buffer]> {
  const sent = request(`${connection.server}/api/v1${path}`, {
    ca: connection.ca, agent: false, headers: { authorization: `Bearer ${connection.token}`, range }
  })
  sent.end()
  const [answer] = await once(sent, 'response') as [IncomingMessage]
  return [answer, await buffer(answer)]
}

test('a session of one node is watched over the other while it happens', async () => {
  const psql = await openPsql(one)
  const [mine] = (await sessionsOf(apiOf(two))).filter(({ status }) => status === 'live')
  const watching = [watchOn(two, mine!.id), tailOn(two, mine!.id)]
  for (const { seen } of watching) await until(seen, text => text.includes('ready') || text.includes('dy'))
  psql.type("SELECT 'swordfish';")
  for (const { seen } of watching) await until(seen, text => text.includes('swordfish'))
  // Who comes late is told how it stands.
  const late = { params: { id: mine!.id }, query: { begin: 'now' } } as const
  for await (const line of apiOf(two).lines('/sessions/{id}/watch', late)) {
    assert.is(line.kind, 'begin')
    break
  }
  await psql.leave()
  assert.equal(await Promise.all(watching.map(({ ended }) => ended)), [0, 1000])
  assert.match(await watching[1]!.seen(), /"kind":"end"/)
  const { events } = await apiOf(one).get('/audit', { query: { subject: mine!.id } })
  const looks = events.filter(({ kind }) => kind === 'session.watched')
  assert.equal(looks.map(({ chain, actor, detail }) => [chain.split('/')[0], actor, detail]),
    Array(3).fill(['two', 'local', { servedBy: 'one' }]), 'each look once, by the node that was asked')
})

test('what one node recorded, the other replays, exports, verifies and finds as the first does', async () => {
  const [here, there] = [apiOf(one), apiOf(two)]
  const { hits } = await there.get('/search', { query: { query: 'swordfish' } })
  const { session: id } = hits[0]!
  await until(() => rowOf(id), row => row?.recording?.sealed === true)
  const both = async <T>(ask: (api: Client) => Promise<T>): Promise<T> => {
    const [of, over] = await Promise.all([ask(here), ask(there)])
    assert.equal(over, of)
    return over
  }
  assert.match(await two.sallyport('sessions', 'replay', id, '--speed', '0'), /=> SELECT 'swordfish';/)
  const params = { id }
  assert.is((await both(api => api.get('/sessions/{id}/verify', { params }))).state, 'sealed')
  await both(api => api.get('/sessions/{id}/piece', { params, query: { from: 0 } }))
  const query = { from: 1, before: 1 }
  await both(api => bytesOf(api.stream('/sessions/{id}/statements', { params, query })))
  for (const format of ['sql', 'jsonl', 'asciicast-v3'] as const) {
    const asked = { params, query: { format } }
    // psql is told a word that nobody can guess, another one in each export.
    const text = await both(async api =>
      (await bytesOf(api.stream('/sessions/{id}/export', asked))).replace(/restrict [0-9a-f]+/g, 'restrict'))
    assert.match(text, /swordfish/)
  }
  const whole = await both(api => bytesOf(api.stream('/sessions/{id}/recording', { params })))
  const [{ statusCode, headers }, part] = await partOf(there, `/sessions/${id}/recording`, 'bytes=100-199')
  assert.equal([statusCode, headers['content-range']], [206, `bytes 100-199/${whole.length}`])
  assert.is(part.toString('latin1'), whole.slice(100, 200))
  // One of each node, whoever is asked; in one session only, its node alone is asked.
  const psql = await openPsql(two)
  psql.type("SELECT 'swordfish' || 'es';")
  await psql.sees(/swordfishes/)
  await psql.leave()
  const found = await both(async api => {
    const answer = await api.get('/search', { query: { query: 'swordfish' } })
    return { ...answer, hits: answer.hits.map(({ session, text }) => `${session} ${text}`).sort() }
  })
  assert.is(found.hits.length, 2)
  assert.equal(found.unanswered, [])
  assert.is((await there.get('/search', { query: { query: 'swordfish', session: id } })).hits.length, 1)
  const { events } = await there.get('/audit', { query: { kind: 'recordings.searched' } })
  const asked = events.map(({ detail }) => (detail as { nodes: string[] }).nodes.toSorted().join())
  const [of, over] = ['four,three,two', 'four,one,three']
  const newestFirst = [asked[0], asked.slice(1, 3).sort(), asked.slice(3)]
  assert.equal(newestFirst, ['one', [over, of], [over]])
})

test('doctor says whether the other nodes can be asked', async () => {
  const { checks } = await apiOf(two).get('/doctor')
  const [found] = checks.filter(({ name }) => name === 'node one')
  assert.is(found?.status, 'ok')
  assert.match(found!.detail, /^answers at https:/)
})

test('the addresses for nodes are opened by no token, and by no ticket twice', async () => {
  const { connection } = apiOf(one)
  for (const token of [connection.token, 'A'.repeat(51)]) {
    const sent = request(`${connection.server}/nodes/v1/has?session=${'0'.repeat(26)}&for=local&by=two`, {
      ca: connection.ca, agent: false, headers: { authorization: `Bearer ${token}` }
    })
    sent.end()
    const [answer] = await once(sent, 'response') as [IncomingMessage]
    assert.is(answer.statusCode, 401)
    assert.match(String(await buffer(answer)), /"code":"auth-required"/)
  }
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
  const stoppedMs = performance.now()
  await Promise.all(['kill', 'replay', 'watch', 'verify'].map(async verb =>
    assert.match(await two.refusal('sessions', verb, mine!.id), /node of this session did not answer/, verb)))
  assert.ok(performance.now() - stoppedMs < 10_000, 'within the limit')
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

  const tailing = tailOn(two, mine!.id)
  await until(tailing.seen, text => text.includes('dy'))
  await one.kill()
  const killedMs = performance.now()
  // What was being told breaks off and says so; what is asked for is refused at once, and named in a search.
  assert.is(await tailing.ended, 4503)
  assert.match(await tailing.seen(), /node-silent/)
  const refused = await two.refusal('sessions', 'replay', mine!.id)
  assert.match(refused, /node of this session did not answer: node one: ECONNREFUSED/)
  const { hits, unanswered } = await apiOf(two).get('/search', { query: { query: 'swordfish' } })
  assert.equal([hits.length, unanswered], [1, [{ node: 'one', code: 'node-silent' }]])
  await wayOfThree.fault({ kind: 'hang' })
  four.process.kill('SIGSTOP')
  const cutOffMs = performance.now()
  // Three is the first to know: nobody may have taken over when its person hears of it.
  await cutOff.sees(/\[lease-lost [0-9a-f]{6}\]/, cutSecondsMax)
  assert.equal(await declaredDead(), [])
  const cutSeconds = (performance.now() - cutOffMs) / 1000
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
  const sessions = (await sessionsOf(apiOf(one))).filter(({ node }) => node === 'one' || node === 'two')
  assert.is(sessions.filter(({ status }) => status === 'interrupted').length, 1)
  // The recordings of both, by whichever is asked.
  for (const house of [one, two]) assert.equal(await faultsOfEvidence(apiOf(house), sessions), [])
  await until(() => accountsOn(target), found => found === '')
})

test.run()
