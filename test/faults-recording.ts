// deadline: 240 s
// A recorder that fails: no room at the start, no room in the middle, a sync that fails. Strict mode lets
// nothing pass that is not on record, so the session does not begin or ends at once (F15, F16, F17, R4, R24);
// what reached the target or the person is in the recording, wherever the disk filled up. The errors are real
// ones of the kernel's call, put there by strace into the running product.
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { AuditJson, SessionJson } from '../src/api/client-types.ts'
import type { PostgresServer } from '../tool/postgres.ts'
import { programOf } from '../tool/services.ts'
import { companyDatabase, ran, startHouse, until } from './peers/house.ts'
import type { House, HouseOptions } from './peers/house.ts'
import {
  apiOf, faultsOfEvidence, residueOn, rolesOn, sessionsOf, statementsOf, untilGone, untilProved
} from './peers/inspector.ts'
import { openPsql } from './peers/psql.ts'
import { threadOf, trace } from './peers/tracer.ts'
import type { ThreadRole } from './peers/tracer.ts'

// On the main thread these calls with a position go to recordings only; sockets have none.
const writes = 'pwrite64,pwritev'

let target: PostgresServer
let options: HouseOptions
let before: Set<string>
let house: House

test.before(async () => {
  const company = await companyDatabase('15')
  target = company.server
  before = await rolesOn(target)
  options = { target, adminPassword: company.adminPassword, environment: { UV_THREADPOOL_SIZE: '1' } }
  house = await startHouse(options)
})
test.after(async () => {
  await house.stop()
  house.clear()
  await target.stop()
})

const newest = async (): Promise<SessionJson> => (await sessionsOf(apiOf(house)))[0]!

/**
 * Acts while these calls of a thread fail; `which` of them, all by default. Resolves with the calls that were
 * seen.
 */
async function whileFailing(
  act: () => Promise<void>, calls = writes, error = 'ENOSPC', which = '1+', role: ThreadRole = 'main'
): Promise<string[]> {
  const words = ['-e', `trace=${calls}`, '-e', `inject=${calls}:error=${error}:when=${which}`]
  const tracer = await trace(threadOf(house.process.pid ?? 0, role), words)
  try {
    await act()
  } finally {
    await tracer.detach()
  }
  return tracer.lines()
}

/** Nobody waits for that event: it is written in a group with others, a moment later. */
async function untilLossIsAudited(id: string): Promise<void> {
  const lost = async (): Promise<readonly AuditJson[]> =>
    (await apiOf(house).get('/audit', { query: { kind: 'recording.lost' } })).events
  await until(lost, events => events.some(({ subject }) => subject === id))
}

async function rows(mark: string): Promise<string[]> {
  const found = await target.psql(`SELECT id FROM orders WHERE customer = '${mark}' ORDER BY id`, 'orders')
  return found.split('\n').filter(line => line !== '')
}

test('below the reserve of the recordings disk no session starts and no account is made (F15)', async () => {
  // A reserve that no disk of today has free.
  const poor = await startHouse({ ...options, config: 'node: poor', limits: 'recordingsReserve: 1000000GiB' })
  try {
    const { status, stdout, stderr } = await poor.psql("SELECT 'let in'")
    assert.is(stdout, '')
    assert.is(status, 2)
    assert.match(stderr, /could not be recorded \[disk-reserve [0-9a-f]{6}\]/)
    assert.is(await residueOn(target, before), '')
    // The person is told first, then the book is closed.
    await until(() => sessionsOf(apiOf(poor)), ([refused]) => refused?.status === 'refused')
    assert.equal(await faultsOfEvidence(apiOf(poor)), [])
  } finally {
    await poor.stop()
    poor.clear()
  }
})

test('a disk that is full when a session starts: it does not, and no account is made', async () => {
  await whileFailing(async () => {
    const { status, stdout, stderr } = await house.psql("SELECT 'let in'")
    assert.is(stdout, '')
    assert.is(status, 2)
    assert.match(stderr, /\[recorder-failed [0-9a-f]{6}\]/)
  })
  assert.is(await residueOn(target, before), '')
  await until(newest, ({ status }) => status === 'refused')
  assert.is((await house.psql("SELECT 'let in'")).stdout, 'let in\n')
})

test('a disk that fills up in the middle: the session ends, the statement stays off the target', async () => {
  const psql = await openPsql(house)
  const { id } = await newest()
  await whileFailing(async () => {
    psql.type("INSERT INTO orders VALUES (500, 'unrecorded') RETURNING 'heard';")
    await psql.sees(/\[recorder-failed [0-9a-f]{6}\]/)
    await psql.leave()
  })
  assert.not.match(psql.text(), /heard/)
  assert.equal(await rows('unrecorded'), [])
  await untilGone(target, before)
  const api = apiOf(house)
  const session = await until(
    () => api.get('/sessions/{id}', { params: { id } }), found => found.status === 'ended')
  assert.match(session.reason ?? '', /^recorder-failed [0-9a-f]{6}$/)
  assert.is.not(session.recording?.sealed, true, 'nobody could seal it')
  await untilLossIsAudited(id)
})

test('whichever write fails, nothing is on the target or with the person that is not on record', async () => {
  const seen = { cut: 0, whole: 0 }
  for (let n = 1; n <= 16; n++) {
    const mark = `write ${n}`
    const script = Array.from({ length: 12 }, (_, index) =>
      `INSERT INTO orders VALUES (${1000 * n + index}, '${mark}') RETURNING 'heard ' || id;`).join('\n')
    let said = { stdout: '', stderr: '' }
    await whileFailing(async () => {
      said = await ran(programOf('psql'), ['-XAtq', '-f', '-', house.connection()], house.environment, script)
    }, writes, 'ENOSPC', `${n}+`)
    const { stdout, stderr } = said
    await untilGone(target, before)
    const { id } = await newest()
    const recorded = await statementsOf(apiOf(house), id).catch(() => '')
    const there = await rows(mark)
    for (const row of there) assert.match(recorded, `VALUES (${row}, '${mark}')`, `row ${row} of write ${n}`)
    for (const [, row] of stdout.matchAll(/heard (\d+)/g)) assert.ok(there.includes(row!), stderr)
    if (there.length === 12) seen.whole++
    else {
      assert.match(stderr, /\[recorder-failed [0-9a-f]{6}\]/, mark)
      seen.cut++
    }
  }
  assert.ok(seen.cut >= 10, `${seen.cut} sessions were cut: otherwise nothing was tried`)
})

test('a sync that fails once counts as lost: the session ends, and it is not tried again (F17)', async () => {
  const psql = await openPsql(house)
  const { id } = await newest()
  const calls = await whileFailing(async () => {
    psql.type("SELECT 'one';")
    await until(async () => (await newest()).status, status => status === 'ended')
    psql.type("SELECT 'two';")
    await psql.sees(/\[recorder-failed [0-9a-f]{6}\]/)
    await psql.leave()
  }, 'fdatasync', 'EIO', '1', 'pool')
  assert.is(calls.filter(line => line.startsWith('fdatasync')).length, 1, calls.join('\n'))
  await untilGone(target, before)
  assert.is((await newest()).id, id)
})

test('in best-effort mode the session goes on without its recording, and that is said', async () => {
  await house.stop()
  const relaxed = await startHouse({ ...options, config: 'recordings: { mode: best-effort }' })
  const strict = house
  house = relaxed
  try {
    const psql = await openPsql(relaxed)
    const { id } = await newest()
    await whileFailing(async () => {
      psql.type("INSERT INTO orders VALUES (600, 'best effort') RETURNING 'heard';")
      await psql.sees(/heard/)
    })
    assert.is(await psql.leave(), 0)
    await untilGone(target, before)
    await untilLossIsAudited(id)
  } finally {
    await relaxed.stop()
    relaxed.clear()
    house = await startHouse({ ...options, folder: strict.folder })
  }
})

test('what was lost is sealed as interrupted by the next start, as far as it goes', async () => {
  const api = apiOf(house)
  assert.equal(readdirSync(join(house.folder, 'recordings/open')), [])
  await untilProved(api)
  assert.equal(await faultsOfEvidence(api), [])
  assert.is(await residueOn(target, before), '')
})

test.run()
