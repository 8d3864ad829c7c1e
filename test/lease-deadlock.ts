// The store's locks under load: many leases that are issued, released, renewed, revoked and expire at once,
// on two nodes over one PostgreSQL. The ledger takes its locks in one order, so its own transactions never
// deadlock; and where somebody else's do it to them (a DBA's mass update, a migration), what was lost is done
// again and no caller hears of it.
// deadline: 240 s
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { sleep, systemClock } from '../src/clock.ts'
import { SallyportError } from '../src/errors.ts'
import {
  expireAll, openStore, openWorld, request, shortLimits, strangers, until
} from './peers/lease-world.ts'
import type { Node, World } from './peers/lease-world.ts'

let opened: Awaited<ReturnType<typeof openStore>>

test.before(async () => {
  opened = await openStore('postgres')
  const { database } = opened
  await using world = await openWorld(database)
  // Deadlocks are found at once, so that a test sees many; and told in the server's counter soon.
  await world.rows(`alter system set deadlock_timeout = '10ms'`)
  await world.rows('select pg_reload_conf()')
})
test.after(() => opened.close())

const deadlocks = async (world: World): Promise<number> => {
  await world.rows('select pg_stat_clear_snapshot()')
  const [row] = await world.rows(
    'select deadlocks::int as n from pg_stat_database where datname = current_database()')
  return Number(row?.n)
}

/** Who may say no: a lease that has ended meanwhile. Everything else is a failure of the store. */
function expected(thrown: unknown): void {
  const harmless = ['invalid', 'not-found', 'lease-lost']
  if (!(thrown instanceof SallyportError) || !harmless.includes(thrown.code)) throw thrown
}

/** One worker's rounds of everything that may happen to a lease, some of it by another node. */
async function live({ ledger }: Node, other: Node, worker: number, rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    const shared = (worker + round) % 3 === 0
    const lease = await ledger.issue(request(shared ? 'enable' : 'create', {
      ...shared ? { accountName: `deploy_${round % 2}` } : {},
      owner: { kind: round % 2 === 0 ? 'session' : 'user', id: `${worker}.${round}` }
    })).catch(expected)
    if (lease === undefined) continue
    const ends = [
      () => lease.release('session ended'),
      () => other.ledger.revoke(lease.holdId, 'carol'),
      () => ledger.revoke(lease.holdId, 'carol')
    ]
    await Promise.all([
      other.ledger.renew(lease.holdId, 60, 'bob').catch(expected),
      ledger.renew(lease.holdId, 60, 'bob').catch(expected),
      ends[(worker + round) % ends.length]!()
    ])
  }
}

async function herd(world: World, workers: number, rounds: number): Promise<{ log: string[] }> {
  const limits = { ...shortLimits, claimMs: 20_000, nodeTtlMs: 20_000, joinWaitMs: 30_000 }
  const one = await world.node('one', { limits })
  const two = await world.node('two', { limits })
  // Those of a target that is away are woken and probed by both nodes.
  let calls = 0
  world.target.mood = ({ action }) => action === 'delete' && ++calls % 5 === 0
    ? { do: 'refuse', error: 'away', code: 'target-unreachable' }
    : { do: 'obey' }
  await Promise.all(Array.from({ length: workers }, (_, worker) =>
    worker % 2 === 0 ? live(one, two, worker, rounds) : live(two, one, worker, rounds)))
  world.target.mood = () => ({ do: 'obey' })
  await expireAll(world)
  await until('all gone', async () =>
    (await world.rows(`select id from account where state <> 'proved-gone'`)).length === 0, 60_000)
  assert.equal(await strangers(world), [])
  return { log: [...one.log, ...two.log] }
}

const storeFaults = (log: readonly string[]): string[] => log.filter(line => /store: |40P01|40001/.test(line))

test('the ledger alone never deadlocks with itself', async () => {
  await using world = await openWorld(opened.database)
  const before = await deadlocks(world)
  const { log } = await herd(world, 16, 25)
  assert.equal(storeFaults(log), [])
  await new Promise(resolve => setTimeout(resolve, 1500))
  assert.is(await deadlocks(world), before)
})

test('deadlocks that others cause reach no caller: what was rolled back is done again', async () => {
  await using world = await openWorld(opened.database)
  const before = await deadlocks(world)
  let over = false
  let lost = 0
  // Holds first, then their accounts: the other way round than the ledger.
  const disturb = async (): Promise<void> => {
    while (!over) {
      await world.database.transaction(async tx => {
        const some = `select id from hold where state in ('pending', 'active') order by random() limit 3`
        await tx.execute(`update hold set name = name where id in (${some})`)
        await tx.execute('select pg_sleep(0.005)')
        await tx.execute(`update account set name = name where id in (
          select account from hold where xmax::text = pg_current_xact_id()::text
            or xmin::text = pg_current_xact_id()::text)`)
      }).catch(() => { lost++ })
      await sleep(systemClock, 10)
    }
  }
  const disturbing = [disturb(), disturb()]
  const { log } = await herd(world, 12, 20).finally(() => { over = true })
  await Promise.all(disturbing)
  assert.equal(storeFaults(log), [])
  await until('the server counts them', async () => await deadlocks(world) > before)
  const count = await deadlocks(world) - before
  process.stdout.write(`${count} deadlocks, ${lost} of them ended the disturber; none reached the ledger\n`)
})

test.run()
