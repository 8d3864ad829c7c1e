// deadline: 240 s
// A store that is away, frozen or full, at the start, in the middle and at the end of sessions. Nothing
// starts without it (F7, F13, R24), sessions that run go on, their end is remembered and written when it is
// back, and the account goes away in any case. With PostgreSQL as the store, and with the embedded one, whose
// log cannot be written any more.
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SessionJson } from '../src/api/client-types.ts'
import type { PostgresServer } from '../tool/postgres.ts'
import { startPostgres } from '../tool/postgres.ts'
import { companyDatabase, startHouse, until } from './peers/house.ts'
import type { House } from './peers/house.ts'
import { startInjector } from './peers/injector.ts'
import type { Injector } from './peers/injector.ts'
import {
  apiOf, faultsOfEvidence, orphansOf, residueOn, rolesOn, sessionsOf, untilGone, untilProved
} from './peers/inspector.ts'
import { openPsql, startPsql } from './peers/psql.ts'
import { trace } from './peers/tracer.ts'

// A call to the store is given up after 5 s; a session start makes a few, one after the other.
const codedSecondsMax = 15
const unavailable = /\[store-unavailable [0-9a-f]{6}\]/

let target: PostgresServer
let injector: Injector
let before: Set<string>
let store: PostgresServer
let house: House
let embedded: House

test.before(async () => {
  const company = await companyDatabase('15')
  target = company.server
  before = await rolesOn(target)
  injector = await startInjector(target.port)
  store = await startPostgres({ version: '15' })
  const options = {
    target: Object.create(target, { port: { value: injector.port } }) as PostgresServer,
    adminPassword: company.adminPassword
  }
  house = await startHouse({ ...options, store: store.url() })
  embedded = await startHouse(options)
})
test.after(async () => {
  await house.stop()
  await embedded.stop()
  house.clear()
  embedded.clear()
  await injector.stop()
  await target.stop()
  await store.stop()
})

const newest = async (of: House): Promise<SessionJson> => (await sessionsOf(apiOf(of)))[0]!
const session = (of: House, id: string): Promise<SessionJson> =>
  apiOf(of).get('/sessions/{id}', { params: { id } })

async function assertUnavailable(of: House): Promise<void> {
  const startedMs = performance.now()
  const { status, stdout, stderr } = await of.psql("SELECT 'let in'")
  const seconds = (performance.now() - startedMs) / 1000
  assert.is(stdout, '', 'let in without a store')
  assert.is(status, 2, stderr)
  assert.match(stderr, unavailable)
  assert.ok(seconds < codedSecondsMax, `heard after ${seconds.toFixed(1)} s`)
  assert.is(await residueOn(target, before), '')
}

/** Sessions are possible again, and leave nothing. */
async function assertWorks(of: House): Promise<void> {
  await until(async () => (await of.psql("SELECT 'let in'")).stdout, said => said === 'let in\n')
  await untilGone(target, before, 15)
}

/** The session's end, its receipt and its recording are on the books after all. */
async function assertClosed(of: House, id: string, reason: RegExp): Promise<void> {
  const closed = await until(() => session(of, id), ({ status, receipt, recording }) =>
    status === 'ended' && receipt?.state === 'proved-gone' && recording?.sealed === true)
  assert.match(closed.reason ?? '', reason)
  assert.equal(await faultsOfEvidence(apiOf(of), [closed]), [])
}

/** Freezes every process of a server: connections are open, and nothing answers. */
async function freeze(server: PostgresServer): Promise<() => void> {
  const backends = (await server.psql('SELECT pid FROM pg_stat_activity')).split('\n').map(Number)
  const pids = [server.pid, ...backends]
  const tell = (signal: NodeJS.Signals): void => {
    for (const pid of pids) {
      try {
        process.kill(pid, signal)
      } catch {
        // A backend that has ended meanwhile, our own look among them.
      }
    }
  }
  tell('SIGSTOP')
  return () => tell('SIGCONT')
}

test('while the store is away nobody is let in, and everybody is once it is back', async () => {
  await store.halt()
  await assertUnavailable(house)
  await store.resume()
  await assertWorks(house)
})

test('while the store is frozen nobody is let in, and the refusal does not take for ever', async () => {
  const thaw = await freeze(store)
  try {
    await assertUnavailable(house)
  } finally {
    thaw()
  }
  await assertWorks(house)
})

test('a session goes on while the store is away, its end is written when it is back', async () => {
  const psql = await openPsql(house)
  const { id } = await newest(house)
  await store.halt()
  psql.type("SELECT 'still ' || 'here';")
  await psql.sees(/still here/)
  await psql.leave()
  await store.resume()
  await untilGone(target, before)
  await assertClosed(house, id, /^client-closed$/)
})

test('a session that ends while the store is away for longer loses its account without it', async () => {
  const psql = await openPsql(house)
  const { id } = await newest(house)
  await store.halt()
  await psql.leave()
  // Nobody else can want it, and whatever is done to it is repeated by the books.
  await untilGone(target, before, 25)
  await store.resume()
  await assertClosed(house, id, /^client-closed$/)
})

test('a store that goes away while the account is made: a refusal, and no account stays', async () => {
  await injector.fault({ kind: 'delay', ms: 100 })
  await until(async () => store.psql('SELECT 1').catch(() => ''), said => said === '1')
  const psql = startPsql(house)
  psql.type("SELECT 'let ' || 'in';")
  await until(async () => injector.statements.some(text => text.includes('CREATE ROLE')), made => made)
  await store.halt()
  await psql.sees(unavailable)
  await psql.leave()
  await injector.fault({ kind: 'none' })
  assert.not.match(psql.text(), /let in/)
  await store.resume()
  await untilGone(target, before)
  await assertWorks(house)
})

test('a full disk under the embedded store: nobody is let in, nothing made; it recovers itself', async () => {
  const full = await fillDisk(embedded)
  await assertUnavailable(embedded)
  await assertUnavailable(embedded)
  await full.detach()
  await assertWorks(embedded)
})

test('a disk that fills up under the embedded store in a session: the account still goes', async () => {
  const psql = await openPsql(embedded)
  const { id } = await newest(embedded)
  const full = await fillDisk(embedded)
  psql.type("SELECT 'still ' || 'here';")
  await psql.sees(/still here/)
  await psql.leave()
  await full.detach()
  await untilGone(target, before)
  await assertClosed(embedded, id, /^client-closed$/)
})

/**
 * No file of the store's log takes another byte: ENOSPC from the kernel's side, in whichever thread writes.
 */
async function fillDisk({ folder, process: product }: House): Promise<{ detach(): Promise<void> }> {
  const log = join(folder, 'data/store/store/pg_wal')
  const files = readdirSync(log).filter(name => /^[0-9A-F]{24}$/.test(name))
  const calls = 'write,pwrite64,pwritev,writev'
  const words = files.flatMap(name => ['-P', join(log, name)])
  const faults = ['-e', `trace=${calls}`, '-e', `inject=${calls}:error=ENOSPC`]
  return trace(product.pid ?? 0, ['-f', ...words, ...faults])
}

test('after all of it every account is proved gone and all evidence is whole, on both stores', async () => {
  for (const each of [house, embedded]) {
    const api = apiOf(each)
    await untilProved(api)
    assert.equal(await faultsOfEvidence(api), [])
    assert.equal((await orphansOf(api)).orphans, [])
  }
  assert.is(await residueOn(target, before), '')
})

test.run()
