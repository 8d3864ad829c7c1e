// deadline: 240 s
// What happens to one session must stay with that session: bad bytes of a target, a client that is killed,
// frozen or out of time, a wall clock that jumps (F19, F24, R7, R8, R22). Beside the one that suffers another
// session is open all the time, and answers.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SessionJson } from '../src/api/client-types.ts'
import { roleCredential } from '../tool/orders-documents.ts'
import type { PostgresServer } from '../tool/postgres.ts'
import { programOf } from '../tool/services.ts'
import { companyDatabase, startHouse, until } from './peers/house.ts'
import type { House, HouseOptions } from './peers/house.ts'
import { startInjector } from './peers/injector.ts'
import type { Injector } from './peers/injector.ts'
import {
  apiOf, faultsOfEvidence, residueOn, rolesOn, sessionsOf, untilGone, untilProved
} from './peers/inspector.ts'
import { openPsql, startPsql } from './peers/psql.ts'
import type { Psql } from './peers/psql.ts'

const hourSeconds = 3600

let target: PostgresServer
let injector: Injector
let options: HouseOptions
let before: Set<string>
let house: House
let clockFile: string
/** The session that must not notice anything. */
let witness: Psql
let witnessAccount: string
let asked = 0

test.before(async () => {
  const company = await companyDatabase('15')
  target = company.server
  injector = await startInjector(target.port)
  before = await rolesOn(target)
  options = {
    target: Object.create(target, { port: { value: injector.port } }) as PostgresServer,
    adminPassword: company.adminPassword,
    access: shortCredential
  }
  // The wall clock of the product is a file; its monotonic clock is the machine's.
  const plain = await startHouse(options)
  await plain.stop()
  clockFile = join(plain.folder, 'clock')
  jump(0)
  house = await startHouse({
    ...options, folder: plain.folder,
    under: [
      '/usr/bin/env', `LD_PRELOAD=${programOf('faketime')}`, `FAKETIME_TIMESTAMP_FILE=${clockFile}`,
      'FAKETIME_NO_CACHE=1', 'FAKETIME_DONT_FAKE_MONOTONIC=1'
    ]
  })
  witness = await openPsql(house)
  witnessAccount = (await newest()).account?.name ?? ''
})
test.after(async () => {
  await house.stop()
  house.clear()
  await injector.stop()
  await target.stop()
})

const shortCredential = `---
${roleCredential('orders-short', { maxSession: '6s' })}---
kind: grant
name: short
users: [alice]
credentials: [orders-short]
`

const newest = async (): Promise<SessionJson> => (await sessionsOf(apiOf(house)))[0]!
const session = (id: string): Promise<SessionJson> => apiOf(house).get('/sessions/{id}', { params: { id } })

/** Moves the product's wall clock to so many seconds from the real one. */
function jump(seconds: number): void {
  writeFileSync(clockFile, `${seconds < 0 ? '' : '+'}${seconds}\n`)
}

async function assertWitnessAnswers(): Promise<void> {
  witness.type(`SELECT 'answer ' || ${++asked};`)
  await witness.sees(new RegExp(`answer ${asked}`))
}

/** Of the sessions' accounts only the witness's is left. */
async function untilOnlyWitness(seconds = 15): Promise<void> {
  const others = async (): Promise<string[]> => (await residueOn(target, before)).split('\n')
    .filter(line => line !== '' && !line.includes(witnessAccount))
  await until(others, left => left.length === 0, seconds)
}

const badBytes: [string, Buffer][] = [
  ['an ErrorResponse with nothing in it', Buffer.from([0x45, 0, 0, 0, 4])],
  ['a length below its own four bytes', Buffer.from([0x5a, 0, 0, 0, 3])],
  ['a negative length', Buffer.from([0x44, 0xff, 0xff, 0xff, 0xff])],
  ['an unknown tag', Buffer.from([0x7e, 0, 0, 0, 4])],
  ['a request for a password in the middle', Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 3])],
  ['noise', Buffer.from(Array.from({ length: 64 }, (_, index) => (index * 151 + 17) % 256))]
]

for (const [name, bytes] of badBytes) {
  test(`bad bytes of a target (${name}) end that session with a code, and no other`, async () => {
    const psql = await openPsql(house)
    const { id, account } = await newest()
    assert.is(injector.say(bytes, new RegExp(`^${account?.name}$`)), 1)
    await assertWitnessAnswers()
    psql.type('SELECT 1;')
    await psql.leave()
    const ended = await until(() => session(id), found => found.status === 'ended')
    await assertWitnessAnswers()
    assert.match(`${ended.reason}`, /^target-violation [0-9a-f]{6}$|^client-closed$/)
    // An empty error is legal, and psql says what it thinks of it; all else is ours to refuse.
    if (ended.reason !== 'client-closed') assert.match(psql.text(), /\[target-violation [0-9a-f]{6}\]/)
    await untilOnlyWitness()
  })
}

test('a frame that promises two gigabytes and never comes costs nobody anything', async () => {
  const psql = await openPsql(house)
  const { id, account } = await newest()
  injector.say(Buffer.from([0x44, 0x7f, 0xff, 0xff, 0xff, 0, 1]), new RegExp(`^${account?.name}$`))
  for (let turn = 0; turn < 5; turn++) await assertWitnessAnswers()
  psql.child.kill('SIGKILL')
  await until(() => session(id), found => found.status === 'ended')
  await untilOnlyWitness()
})

test('a client that is killed, idle or in the middle of a query, leaves nothing', async () => {
  const idle = await openPsql(house)
  idle.child.kill('SIGKILL')
  const busy = await openPsql(house)
  busy.type('SELECT pg_sleep(600);')
  const sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600);'"
  await until(() => target.psql(sleeping), count => count === '1')
  busy.child.kill('SIGKILL')
  await untilOnlyWitness()
  await assertWitnessAnswers()
})

test('a client that stops reading a large answer harms nobody, and can be ended by an admin', async () => {
  const psql = await openPsql(house)
  const { id } = await newest()
  psql.type("SELECT repeat('x', 10000) FROM generate_series(1, 100000);")
  await psql.sees(/xxxxx/)
  psql.child.kill('SIGSTOP')
  try {
    for (let turn = 0; turn < 3; turn++) await assertWitnessAnswers()
    await house.sallyport('sessions', 'kill', id)
    await until(() => session(id), found => found.status === 'ended', 20)
    await untilOnlyWitness()
  } finally {
    psql.child.kill('SIGCONT')
    psql.child.kill('SIGKILL')
  }
})

test('a session is told that its time runs out, and cut when it has', async () => {
  const psql = startPsql(house, 'alice+orders-short')
  const startedMs = performance.now()
  psql.type('SELECT pg_sleep(60);')
  await psql.sees(/NOTICE: {2}this session ends in 3 seconds/)
  await psql.sees(/\[session-expired [0-9a-f]{6}\]/)
  assert.ok(performance.now() - startedMs > 5000, 'not before its time')
  await psql.leave()
  await untilOnlyWitness()
  // The account goes first, then the book is closed.
  const { reason } = await until(newest, found => found.status === 'ended')
  assert.match(reason ?? '', /^session-expired/)
})

test('a wall clock that jumps an hour back prolongs no session', async () => {
  const psql = startPsql(house, 'alice+orders-short')
  psql.type("SELECT 'rea' || 'dy'; SELECT pg_sleep(60);")
  await psql.sees(/ready/)
  jump(-hourSeconds)
  try {
    await psql.sees(/\[session-expired [0-9a-f]{6}\]/, 12)
    await psql.leave()
    await untilOnlyWitness()
    await assertWitnessAnswers()
    assert.is((await house.psql("SELECT 'let in'")).stdout, 'let in\n')
  } finally {
    jump(0)
  }
  await untilOnlyWitness()
})

test('a wall clock that jumps an hour ahead ends sessions early at worst, and new ones work', async () => {
  const psql = startPsql(house, 'alice+orders-short')
  psql.type("SELECT 'rea' || 'dy'; SELECT pg_sleep(60);")
  await psql.sees(/ready/)
  jump(hourSeconds)
  try {
    await psql.sees(/\[(session-expired|lease-lost) [0-9a-f]{6}\]/, 12)
    await psql.leave()
    await untilOnlyWitness()
    // Eight hours are not over after one.
    await assertWitnessAnswers()
    assert.is((await house.psql("SELECT 'let in'")).stdout, 'let in\n')
  } finally {
    jump(0)
  }
  await untilOnlyWitness()
})

test('a wall clock that jumps ten hours ahead ends an eight-hour session, and its account goes', async () => {
  await assertWitnessAnswers()
  jump(10 * hourSeconds)
  await untilGone(target, before, 20)
  witness.type('SELECT 1;')
  await witness.leave()
  assert.match(witness.text(), /\[(session-expired|lease-lost) [0-9a-f]{6}\]/)
  // The clocks are compared twice a minute: the last time perhaps an hour off, in one of the tests before.
  await until(async () => house.log(), said => /clock jumped by (32[34]|3[56]\d|39[56])\d\d s/.test(said), 45)
  jump(0)
})

test('after all of it every account is proved gone and all evidence is whole', async () => {
  const api = apiOf(house)
  await untilProved(api)
  assert.equal(await faultsOfEvidence(api), [])
  assert.is(await residueOn(target, before), '')
})

test.run()
