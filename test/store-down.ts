// deadline: 180 s
// A store that is away, hangs or goes away in the middle (F7, F13): every call ends in `store-unavailable`
// within its limit and works again when the store is back, a transaction that lost its connection leaves
// nothing behind, concurrent nodes migrate once, deadlocks are repeated. Against a real PostgreSQL 15.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import { callMsMax, openDatabase } from '../src/store/database.ts'
import type { Database, Handle, Outcome } from '../src/store/database.ts'
import { sql } from '../src/store/drizzle.ts'
import { createNodeRows } from '../src/store/nodes.ts'
import { setting } from '../src/store/schema.ts'
import { freePort, startPostgres } from '../tool/postgres.ts'
import { storeMaker } from './peers/stores.ts'

const stores = storeMaker('postgres')
test.after(() => stores.close())

// The limit of a call, and what a loaded machine may add.
const limitMs = callMsMax + 2_000

async function unavailable(act: () => Promise<unknown>): Promise<number> {
  const started = performance.now()
  const thrown: unknown = await act().then(() => undefined, (error: unknown) => error)
  assert.instance(thrown, SallyportError)
  assert.is((thrown as SallyportError).code, 'store-unavailable', String(thrown))
  return performance.now() - started
}

async function untilBack(database: Database): Promise<void> {
  for (;;) {
    try {
      return void await database.run(handle => handle.execute(sql`select 1`))
    } catch (thrown) {
      assert.is((thrown as SallyportError).code, 'store-unavailable')
    }
  }
}

const put = (handle: Handle, key: string): Promise<unknown> =>
  handle.insert(setting).values({ key, value: 1 }).then(() => {})

async function keysOf(database: Database): Promise<string[]> {
  return (await database.run(handle => handle.select().from(setting))).map(({ key }) => key).sort()
}

test('nothing listens: opening says so', async () => {
  const port = await freePort()
  const store = `postgres://a@127.0.0.1:${port}/x`
  const spent = await unavailable(() => openDatabase({ store, dataDir: '/' }))
  assert.ok(spent < limitMs)
})

test('something listens that never answers: opening says so', async () => {
  const silent = createServer(socket => socket.resume().on('error', () => {}))
  const port = await freePort()
  await new Promise<void>(resolve => silent.listen(port, '127.0.0.1', resolve))
  const store = `postgres://a@127.0.0.1:${port}/x`
  const spent = await unavailable(() => openDatabase({ store, dataDir: '/' }))
  assert.ok(spent < limitMs)
  await new Promise(resolve => silent.close(resolve))
})

test('a wrong password is told without the password', async () => {
  const { store } = await stores.open()
  const wrong = store.replace(/:[^:@]+@/, ':kanarienvogel@')
  const thrown: unknown = await openDatabase({ store: wrong, dataDir: '/' }).catch((error: unknown) => error)
  assert.is((thrown as SallyportError).code, 'store-unavailable')
  assert.match((thrown as SallyportError).detail ?? '', /28P01/)
  assert.not.match(`${String((thrown as Error).stack)}${JSON.stringify(thrown)}`, /kanarienvogel/)
})

test('over TLS, with the server verified where that is asked for', async () => {
  await using server = await startPostgres({ version: '15', tls: true })
  const open = async (words: string): Promise<Date> => {
    const database = await openDatabase({ store: `${server.url('postgres')}?${words}`, dataDir: '/' })
    try {
      const [row] = await database.run(handle => handle.execute<{ ssl: boolean }>(
        sql`select ssl from pg_stat_ssl where pid = pg_backend_pid()`))
      assert.is(row?.ssl, true)
      return await database.now()
    } finally {
      await database.close()
    }
  }
  assert.ok(await open('sslmode=require'))
  assert.ok(await open(`sslmode=verify-full&sslrootcert=${server.caFile}`))
  assert.ok(await open(`sslmode=verify-ca&sslrootcert=${server.caFile}`))
  await unavailable(() => open('sslmode=verify-full'))
  // The same server under an address that its certificate does not name.
  const relay = createServer(socket => {
    const onward = connect(server.port, '127.0.0.1')
    socket.on('error', () => {}).pipe(onward.on('error', () => {})).pipe(socket)
  })
  const port = await freePort()
  await new Promise<void>(resolve => relay.listen(port, '127.0.0.2', resolve))
  const url = server.url('postgres').replace(`127.0.0.1:${server.port}`, `127.0.0.2:${port}`)
  const store = (mode: string): string => `${url}?sslmode=${mode}&sslrootcert=${server.caFile}`
  await (await openDatabase({ store: store('verify-ca'), dataDir: '/' })).close()
  const thrown: unknown = await openDatabase({ store: store('verify-full'), dataDir: '/' })
    .catch((error: unknown) => error)
  assert.match((thrown as SallyportError).detail ?? '', /ERR_TLS_CERT_ALTNAME_INVALID/)
  await new Promise(resolve => relay.close(resolve))
})

test('a URL that cannot be read is told without its password', async () => {
  const stores = ['postgres://a:kanarienvogel@[x/y', 'postgres://a:kanarienvogel@h/x?sslrootcert=/none']
  for (const store of stores) {
    const thrown: unknown = await openDatabase({ store, dataDir: '/' }).catch((error: unknown) => error)
    assert.is((thrown as SallyportError).code, 'invalid')
    assert.not.match(inspect(thrown), /kanarienvogel/)
  }
})

test('the server stops: calls fail at once; it starts again: calls work', async () => {
  const { database } = await stores.open()
  await database.run(handle => put(handle, 'before'))
  await stores.server().halt()
  for (let n = 0; n < 20; n++) assert.ok(await unavailable(() => keysOf(database)) < limitMs)
  await stores.server().resume()
  await untilBack(database)
  assert.equal(await keysOf(database), ['before'])
})

test('the server hangs: every call ends within its limit, and works when the server goes on', async () => {
  const { database } = await stores.open()
  await keysOf(database)
  const pids = postgresPids(stores.server().pid)
  for (const pid of pids) process.kill(pid, 'SIGSTOP')
  try {
    // More callers than connections: those that wait for one have the same limit.
    const spent = await Promise.all(Array.from({ length: 20 }, () => unavailable(() => keysOf(database))))
    assert.ok(Math.max(...spent) < limitMs, `${Math.max(...spent)} ms`)
  } finally {
    for (const pid of pids) process.kill(pid, 'SIGCONT')
  }
  await untilBack(database)
  assert.equal(await keysOf(database), [])
})

test('a transaction that lost its connection sends nothing more, and leaves nothing', async () => {
  const { database } = await stores.open()
  const outcomes: Outcome[] = []
  let late: Promise<unknown> = Promise.resolve()
  await unavailable(() => database.transaction(async tx => {
    await put(tx, 'first')
    database.beforeCommit(tx, () => Promise.resolve(outcome => void outcomes.push(outcome)))
    const [row] = await tx.execute<{ pid: number }>(sql`select pg_backend_pid() as pid`)
    await stores.server().psql(`select pg_terminate_backend(${row?.pid ?? 0})`)
    await put(tx, 'second').catch(() => {})
    // The pool has a new connection by now; this handle must not use it.
    late = database.detached(() => untilBack(database)).then(() => put(tx, 'third'))
      .then(() => assert.unreachable(), () => {})
    await late
    await put(tx, 'fourth')
  }))
  await late
  assert.equal(await keysOf(database), [])
})

test('a commit whose answer was lost is told as unknown', async () => {
  const { database } = await stores.open()
  const outcomes: Outcome[] = []
  // The commit waits for a standby that does not exist.
  const server = stores.server()
  await server.psql(`alter system set synchronous_standby_names = 'nobody'`)
  await server.psql('select pg_reload_conf()')
  try {
    await unavailable(() => database.transaction(async tx => {
      await tx.execute(sql`set local synchronous_commit = on`)
      await put(tx, 'perhaps')
      database.beforeCommit(tx, () => Promise.resolve(outcome => void outcomes.push(outcome)))
    }))
  } finally {
    await server.psql('alter system reset synchronous_standby_names')
    await server.psql('select pg_reload_conf()')
  }
  while (outcomes.length === 0) await untilBack(database)
  assert.equal(outcomes, ['unknown'])
})

test('two callers in a deadlock both succeed', async () => {
  const { database } = await stores.open()
  await database.run(async handle => {
    await put(handle, 'a')
    await put(handle, 'b')
  })
  let arrived = 0
  let both = (): void => {}
  const met = new Promise<void>(resolve => { both = resolve })
  const cross = (first: string, second: string): Promise<void> => database.transaction(async tx => {
    await tx.execute(sql`set local deadlock_timeout = '50ms'`)
    await tx.execute(sql`update setting set value = '2' where key = ${first}`)
    if (++arrived === 2) both()
    if (arrived <= 2) await met
    await tx.execute(sql`update setting set value = '3' where key = ${second}`)
  })
  await Promise.all([cross('a', 'b'), cross('b', 'a')])
  assert.ok(arrived >= 3, 'one of them ran twice')
})

test('four nodes that start together migrate once', async () => {
  const { store, dataDir } = await stores.open()
  const name = new URL(store).pathname.slice(1)
  await stores.server().psql(`drop database ${name} with (force)`)
  await stores.server().psql(`create database ${name}`)
  const nodes = await Promise.all(Array.from({ length: 4 }, () => openDatabase({ store, dataDir })))
  const files = readdirSync(join(import.meta.dirname, '../migrations')).filter(file => file.endsWith('.sql'))
  assert.is(await stores.server().psql('select count(*) from migration', name), String(files.length))
  for (const node of nodes) await node.close()
})

test('a node of a version before 0006 lives on beside one that upgrades the store', async () => {
  const { store, dataDir } = await stores.open()
  const name = new URL(store).pathname.slice(1)
  const run = (text: string): Promise<string> => stores.server().psql(text, name)
  await stores.server().psql(`drop database ${name} with (force)`)
  await stores.server().psql(`create database ${name}`)
  await run(`create table migration
    (tag text primary key, sha256 text not null, applied_at timestamptz not null default now())`)
  const folder = join(import.meta.dirname, '../migrations')
  for (const file of readdirSync(folder).filter(each => each.endsWith('.sql') && each < '0006').sort()) {
    const text = readFileSync(join(folder, file), 'utf8')
    const sha256 = createHash('sha256').update(text).digest('hex')
    const tag = file.replace('.sql', '')
    await run(`${text}; insert into migration (tag, sha256) values ('${tag}', '${sha256}')`)
  }
  const boot = (as: string): Promise<string> => run(`insert into node (id, boot) values ('old', '${as}')
    on conflict (id) do update set boot = excluded.boot, beat_at = now()`)
  await boot('a')
  const database = await openDatabase({ store, dataDir })
  const rows = createNodeRows(database, 30_000)
  const old = async (): Promise<unknown> => {
    const [{ alive, url } = {}] = await rows.list()
    return [alive, url]
  }
  assert.equal(await old(), [true, null], 'it says no address')
  await boot('b')
  assert.equal(await old(), [true, null])
  await rows.advertise('old', { url: 'https://old:8443', certificate: 'PEM', mark: 'M' })
  assert.equal(await old(), [true, 'https://old:8443'])
  await run("update node set beat_at = now() - interval '31 seconds'")
  assert.equal(await old(), [false, 'https://old:8443'])
  await run("update node set beat_at = now() - interval '31 days'")
  assert.equal(await rows.list(), [], 'it has another name now, or was taken away')
  await database.close()
})

/** The postmaster and its children. */
function postgresPids(postmaster: number): number[] {
  const children = execFileSync('ps', ['-o', 'pid=', '--ppid', String(postmaster)], { encoding: 'utf8' })
  return [postmaster, ...children.trim().split(/\s+/).map(Number)]
}

test.run()
