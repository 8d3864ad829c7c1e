// Access that others have to agree to (D5), as a team has it: stock psql waits and says so, approvers use the
// command line, and approved access ends by itself. The product on its embedded store, a real PostgreSQL.
// deadline: 120 s
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { AuditJson, RequestJson, SessionJson } from '../../src/api/client-types.ts'
import type { PostgresServer } from '../../tool/postgres.ts'
import { accountsOn, companyDatabase, startHouse, until } from '../peers/house.ts'
import type { House } from '../peers/house.ts'
import { apiOf, sessionsOf } from '../peers/inspector.ts'
import { people, personOf } from '../peers/people.ts'
import type { Person } from '../peers/people.ts'
import { startPsql } from '../peers/psql.ts'
import type { Psql } from '../peers/psql.ts'

let target: PostgresServer
let house: House
let bob: Person
let carol: Person
let dave: Person

// Open on one day of the week only, which is not today, nor was yesterday, nor is tomorrow, in any zone.
const otherDay = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'][(new Date().getUTCDay() + 3) % 7]
const access = `${people('bob', 'carol', 'dave', 'frank')}---
kind: grant
name: bob-rw
users: [bob]
credentials: [orders-rw]
approval: { by: [carol, dave, bob], count: 2, validFor: 1h, waitFor: 1m }
emergency: true
---
kind: grant
name: bob-standing
users: [bob]
credentials: [orders-standing]
approval: { by: [carol], validFor: 1h, waitFor: 2s }
---
kind: grant
name: frank-rw
users: [frank]
credentials: [orders-rw]
windows: [{ days: [${otherDay}], from: "08:00", to: "18:00", zone: Europe/Zurich }]
`

test.before(async () => {
  const company = await companyDatabase('15')
  target = company.server
  house = await startHouse({ target, adminPassword: company.adminPassword, access })
  ;[bob, carol, dave] = await Promise.all([
    personOf(house, 'bob'), personOf(house, 'carol'), personOf(house, 'dave')
  ])
})
test.after(async () => {
  await house.stop()
  house.clear()
  await target.stop()
})

const openRequests = async (): Promise<RequestJson[]> =>
  (await apiOf(house).get('/requests', { query: { open: 'true' } })).requests

/** The id that psql was told while it waits. */
async function requestOf(psql: Psql): Promise<string> {
  const text = await psql.sees(/NOTICE: {2}request req-[0-9a-f]{10} needs/)
  return /req-[0-9a-f]{10}/.exec(text)?.[0] ?? ''
}

function bobsPsql(credential = 'orders-rw'): Psql {
  const psql = startPsql(house, `bob+${credential}`)
  psql.type("SELECT 'rea' || 'dy';")
  return psql
}

const audited = async (kind: string): Promise<AuditJson[]> =>
  (await apiOf(house).get('/audit', { query: { kind } })).events

/** Ends what is approved, so that the next test asks anew. */
async function withdrawAll(): Promise<void> {
  for (const { id, state } of await openRequests()) {
    if (state === 'approved' || state === 'pending') await carol.decides('withdraw', id)
  }
}

test('psql waits, says so, goes on at the second approval, and is cut when that is withdrawn', async () => {
  const psql = bobsPsql()
  const id = await requestOf(psql)
  assert.match(psql.text(), /needs 2 approvals: waiting for up to 1 minute/)
  assert.is(await accountsOn(target), '', 'nothing is made for somebody who waits')
  assert.equal(await sessionsOf(apiOf(house)), [])
  // Nobody for oneself, though listed; and the owner of the machine is nobody's approver.
  assert.match(await bob.refusal('requests', 'approve', id), /nobody decides on a request of their own/)
  assert.match(await house.refusal('requests', 'approve', id), /does not name local as an approver/)
  assert.is((await carol.decides('approve', id)).state, 'pending')
  assert.is((await carol.decides('approve', id)).state, 'pending')
  const last = await dave.json<RequestJson>('requests', 'approve', id, '--reason', 'ticket 7')
  assert.is(last.state, 'approved')
  await psql.sees(/is approved[^]*ready/)
  assert.match(await accountsOn(target), /^jit_\d+$/)
  // Under the same approval another one opens at once.
  assert.is((await house.psql('SELECT 1', { login: 'bob+orders-rw' })).stdout, '1\n')

  const [opened] = await audited('session.opened')
  assert.is((opened?.detail as { request?: string }).request, id)
  const said = await audited('request.approved')
  assert.equal(said.map(({ actor, subject }) => `${actor} ${subject}`),
    [`dave ${id}`, `carol ${id}`, `carol ${id}`])
  const live = (await sessionsOf(apiOf(house))).find(({ status }) => status === 'live')
  const { validUntil } = await apiOf(house).get('/requests/{id}', { params: { id } })
  const differMs = Math.abs(Date.parse(live!.expiresAt!) - Date.parse(validUntil!))
  assert.ok(differMs < 1500, `it ends with its approval, and not ${differMs} ms beside`)

  await carol.decides('withdraw', id)
  psql.type('SELECT 1;')
  await psql.sees(/the access of this session was withdrawn \[grant-withdrawn [0-9a-f]{6}\]/)
  await psql.leave()
  await until(() => accountsOn(target), found => found === '')
})

test('a denial ends the wait with its code, and is on record with its reason', async () => {
  const psql = bobsPsql()
  const id = await requestOf(psql)
  await dave.json('requests', 'deny', id, '--reason', 'not on a Friday')
  await psql.sees(new RegExp(`for access was denied: request ${id} \\[request-denied [0-9a-f]{6}\\]`))
  assert.is.not(await psql.leave(), 0)
  assert.match(await carol.refusal('requests', 'approve', id), /is denied already/)
  const { decisions } = await bob.json<RequestJson>('requests', 'show', id)
  assert.equal(decisions.map(({ by, verdict, reason }) => [by, verdict, reason]),
    [['dave', 'deny', 'not on a Friday']])
  const [refused] = await audited('session.refused')
  assert.is((refused?.detail as { code: string }).code, 'request-denied')
})

test('whoever takes the own request back is not let in, and hears that it has ended', async () => {
  const psql = bobsPsql()
  const id = await requestOf(psql)
  await bob.decides('withdraw', id)
  await psql.sees(new RegExp(`request for access has ended: request ${id} \\[request-ended [0-9a-f]{6}\\]`))
  assert.is.not(await psql.leave(), 0)
})

test('who is not answered in time hears so, and opens it once it was approved', async () => {
  const open = (): ReturnType<House['psql']> => house.psql('SELECT 1', { login: 'bob+orders-standing' })
  const { stderr, status } = await open()
  assert.match(stderr, /approval; connect again when it is there: request req-\S+ \[approval-pending/)
  assert.is.not(status, 0)
  const [{ id, state } = {} as RequestJson] = await bob.json<RequestJson[]>('requests', 'list')
  assert.is(state, 'pending')
  await carol.decides('approve', id)
  const { stdout, stderr: later } = await open()
  assert.is(stdout, '1\n')
  assert.not.match(later, /request/)
})

test('approved for three seconds, a session is warned and cut, and asked for anew after that', async () => {
  const words = ['requests', 'create', 'orders-rw', '--for', '3s', '--reason', 'ticket 8']
  const { id } = await bob.json<RequestJson>(...words)
  await carol.decides('approve', id)
  await dave.decides('approve', id)
  const { stderr } = await house.psql('SELECT pg_sleep(30)', { login: 'bob+orders-rw' })
  assert.match(stderr, /this session ends in \d seconds?/)
  assert.match(stderr, /\[session-expired [0-9a-f]{6}\]/)
  await until(() => accountsOn(target), found => !found.includes('jit_'))
  const psql = bobsPsql()
  assert.is.not(await requestOf(psql), id)
  psql.child.kill()
  await withdrawAll()
})

test('a client that leaves while it waits leaves nothing but its request', async () => {
  const psql = bobsPsql()
  const id = await requestOf(psql)
  const before = (await sessionsOf(apiOf(house))).length
  psql.child.kill('SIGKILL')
  const refused = await until(async () => (await audited('session.refused'))[0],
    event => String((event?.detail as { why?: string } | undefined)?.why).includes(id), 5)
  assert.is((refused?.detail as { code: string }).code, 'client-closed')
  await carol.decides('approve', id)
  await dave.decides('approve', id)
  assert.is((await sessionsOf(apiOf(house))).length, before, 'no session for somebody who left')
  await withdrawAll()
})

test('an emergency opens at once with a reason, raises an alarm, and is listed until reviewed', async () => {
  assert.match(await bob.refusal('requests', 'create', 'orders-rw', '--emergency'), /reason: is missing/)
  const words = ['requests', 'create', 'orders-rw', '--emergency', '--reason', 'the shop is down']
  const { id } = await bob.json<RequestJson>(...words)
  const { stdout } = await house.psql('SELECT 1', { login: 'bob+orders-rw' })
  assert.is(stdout, '1\n')
  const [alarm] = await audited('alarm.emergency-access')
  assert.equal([alarm?.actor, alarm?.subject], ['bob', id])
  assert.match(house.log(), new RegExp(`"request":"${id}".*emergency access`))
  await bob.decides('withdraw', id)
  const listed = async (): Promise<string[]> => (await openRequests()).map(each => each.id)
  assert.ok((await listed()).includes(id))
  assert.match(await bob.refusal('requests', 'review', id), /of their own/)
  await carol.json('requests', 'review', id, '--reason', 'was right')
  assert.not.ok((await listed()).includes(id))
})

test('outside its window a grant is refused, and says when it opens', async () => {
  const { stderr, status } = await house.psql('SELECT 1', { login: 'frank+orders-rw' })
  assert.match(stderr,
    /access is not open at this hour: it opens \d{4}-\d\d-\d\dT0[67]:00Z \[outside-window [0-9a-f]{6}\]/)
  assert.is.not(status, 0)
  const live: SessionJson[] = (await sessionsOf(apiOf(house))).filter(({ user }) => user === 'frank')
  assert.equal(live, [])
})

test('whoever waits when the proxy stops is told so', async () => {
  const psql = bobsPsql()
  await requestOf(psql)
  assert.is(await house.stop(), 0)
  await psql.sees(/the proxy is shutting down \[shutting-down [0-9a-f]{6}\]/)
  await psql.leave()
})

test.run()
