// What every caller of the store relies on, on the embedded store and on PostgreSQL 15 alike: transactions
// are all or nothing, calls inside of one are part of it, deadlocks are repeated, a handle that outlived
// its call is dead, and no error carries a statement's values.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import type { Database, Handle } from '../src/store/database.ts'
import { eq, sql } from '../src/store/drizzle.ts'
import { setting } from '../src/store/schema.ts'
import { storeKinds, storeMaker } from './peers/stores.ts'

async function keysOf(database: Database): Promise<string[]> {
  const rows = await database.run(handle => handle.select().from(setting).orderBy(setting.key))
  return rows.map(({ key }) => key)
}

function put(handle: Handle, key: string): Promise<unknown> {
  return handle.insert(setting).values({ key, value: 1 }).then(() => {})
}

async function errorOf(act: Promise<unknown>): Promise<SallyportError> {
  const thrown: unknown = await act.then(() => undefined, (error: unknown) => error)
  if (!(thrown instanceof SallyportError)) throw new Error(`expected a SallyportError, got ${String(thrown)}`)
  return thrown
}

for (const kind of storeKinds) {
  const test = suite(kind)
  const stores = storeMaker(kind)
  let shared: Database
  test.before(async () => {
    shared = (await stores.open()).database
  })
  test.before.each(async () => {
    await shared.run(handle => handle.delete(setting))
  })
  test.after(() => stores.close())

  test('a transaction commits all that it did, or nothing', async () => {
    const database = shared
    await database.transaction(async tx => {
      await put(tx, 'a')
      await put(tx, 'b')
    })
    const failed = await errorOf(database.transaction(async tx => {
      await put(tx, 'c')
      throw new SallyportError('not-found')
    }))
    assert.is(failed.code, 'not-found')
    assert.equal(await keysOf(database), ['a', 'b'])
  })

  test('an error of the code inside a transaction comes out as it is', async () => {
    const database = shared
    const mine = new RangeError('mine')
    const thrown: unknown = await database.transaction(() => Promise.reject(mine))
      .catch((error: unknown) => error)
    assert.is(thrown, mine)
  })

  test('an ignored failure of a statement does not let the transaction pass for committed', async () => {
    const database = shared
    const error = await errorOf(database.transaction(async tx => {
      await put(tx, 'a')
      await put(tx, 'a').catch(() => {})
    }))
    assert.is(error.code, 'internal')
    assert.equal(await keysOf(database), [])
  })

  test('calls inside of a transaction are part of it', async () => {
    const database = shared
    await errorOf(database.transaction(async tx => {
      await put(tx, 'a')
      await database.run(handle => put(handle, 'b'))
      await database.transaction(inner => put(inner, 'c'))
      assert.ok(database.inTransaction())
      assert.equal(await keysOf(database), ['a', 'b', 'c'])
      throw new SallyportError('conflict')
    }))
    assert.not.ok(database.inTransaction())
    assert.equal(await keysOf(database), [])
  })

  test('detached work inside of a transaction is not part of it', async () => {
    const database = shared
    let detached: Promise<unknown> = Promise.resolve()
    await errorOf(database.transaction(async tx => {
      await put(tx, 'a')
      detached = database.detached(() => database.run(handle => put(handle, 'b')))
      throw new SallyportError('conflict')
    }))
    await detached
    assert.equal(await keysOf(database), ['b'])
  })

  test('a savepoint takes back its own part only', async () => {
    const database = shared
    await database.transaction(async tx => {
      await put(tx, 'a')
      await tx.transaction(inner => put(inner, 'a')).catch(() => {})
      await put(tx, 'b')
    })
    assert.equal(await keysOf(database), ['a', 'b'])
  })

  test('a handle that outlived its call sends nothing', async () => {
    const database = shared
    const leaked: Handle[] = []
    await database.run(handle => Promise.resolve(leaked.push(handle)))
    await database.transaction(tx => Promise.resolve(leaked.push(tx)))
    for (const handle of leaked) await put(handle, 'x').then(() => assert.unreachable(), () => {})
    assert.equal(await keysOf(database), [])
  })

  test('a last step sees the outcome, and its failure takes the transaction back', async () => {
    const database = shared
    const outcomes: string[] = []
    const note = (label: string) => (): Promise<(outcome: string) => void> =>
      Promise.resolve(outcome => void outcomes.push(`${label} ${outcome}`))
    await database.transaction(async tx => {
      await put(tx, 'a')
      database.beforeCommit(tx, note('first'))
    })
    await errorOf(database.transaction(async tx => {
      await put(tx, 'b')
      database.beforeCommit(tx, note('second'))
      database.beforeCommit(tx, () => Promise.reject(new SallyportError('conflict')))
    }))
    assert.equal(outcomes, ['first committed', 'second rolled-back'])
    assert.equal(await keysOf(database), ['a'])
  })

  test('forty callers at once each get their turn', async () => {
    const database = shared
    await Promise.all(Array.from({ length: 40 }, (_, n) => database.transaction(async tx => {
      await put(tx, `k${String(n).padStart(2, '0')}`)
      await tx.select().from(setting)
    })))
    assert.is((await keysOf(database)).length, 40)
  })

  test('errors name state and constraint, never the values', async () => {
    const database = shared
    const canary = 'kanarienvogel'
    await database.run(handle => put(handle, canary))
    const twice = await errorOf(database.run(handle => put(handle, canary)))
    assert.is(twice.code, 'conflict')
    assert.match(twice.detail ?? '', /23505 setting_pkey/)
    const wrong = await errorOf(database.run(handle => handle.execute(sql`select ${canary}::int`)))
    const missing = await errorOf(database.run(handle => handle.execute(sql`select ${canary} from nowhere`)))
    for (const error of [twice, wrong, missing]) {
      const said = [error.message, error.stack, String(error.cause), JSON.stringify(error)].join()
      assert.not.match(said, canary)
    }
  })

  test('values come back as they went in', async () => {
    const database = shared
    const value = { text: 'ä\u2028"\'\\ \ud83d\ude00', number: 1.5, list: [1, null, true], nested: { a: [] } }
    await database.run(handle => handle.insert(setting).values({ key: 'v', value }))
    const [row] = await database.run(handle => handle.select().from(setting).where(eq(setting.key, 'v')))
    assert.equal(row?.value, value)
  })

  test('the clock of the store is told as a date', async () => {
    const database = shared
    const first = await database.now()
    const second = await database.now()
    assert.ok(second >= first && second.getTime() - first.getTime() < 60_000)
  })

  test('a jump of the clock by more than a minute is noticed', async () => {
    let leapMs = 0
    const notices: string[] = []
    const { database } = await stores.open({
      onNotice: line => notices.push(line),
      clock: {
        now: () => new Date(), monotonicMs: () => performance.now() + leapMs,
        after: (delayMs, act) => {
          const timer = setTimeout(act, delayMs)
          return () => clearTimeout(timer)
        }
      }
    })
    await database.now()
    await database.now()
    assert.equal(notices, [])
    leapMs = -3_600_000
    await database.now()
    assert.match(notices.join(), /jumped by 3600 s/)
  })

  test('opening again finds what was written, and no migration to apply', async () => {
    const { database, again } = await stores.open()
    await database.run(handle => put(handle, 'kept'))
    await database.close()
    assert.is((await errorOf(database.run(keys => put(keys, 'late')))).code, 'store-unavailable')
    assert.equal(await keysOf(await again()), ['kept'])
  })

  test('a store that a newer program migrated is refused untouched', async () => {
    const { database, again } = await stores.open()
    await database.run(handle => handle.execute(
      sql`insert into migration (tag, sha256) values ('9999_future', 'x')`))
    await database.close()
    const error = await errorOf(again())
    assert.match(error.detail ?? '', /9999_future/)
  })

  test('a store whose history differs from the migrations of this program is refused', async () => {
    const { database, again } = await stores.open()
    await database.run(handle => handle.execute(sql`update migration set sha256 = 'edited'`))
    await database.close()
    assert.match((await errorOf(again())).detail ?? '', /is not the 0000_init/)
  })

  test.run()
}
