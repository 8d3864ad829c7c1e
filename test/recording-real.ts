// deadline: 240 s
// Recordings of real sessions: stock psql, node-postgres and hand-made pipelines through the front end to a real
// PostgreSQL. The decoder must tell what the server did, in the simple and the extended protocol, after errors,
// with COPY both ways; and an exported file must run in psql without obeying anything but SQL.
import { spawnSync } from 'node:child_process'
import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { listRecordings, openRecording } from '../src/recording/catalog.ts'
import { exportAs } from '../src/recording/export.ts'
import { statements } from '../src/recording/postgres.ts'
import { frameKind } from '../src/recording/recording.ts'
import type { StatementRecord } from '../src/recording/statement.ts'
import { Secret } from '../src/secret.ts'
import * as wire from '../src/wire/postgres/messages.ts'
import { openUpstream } from '../src/wire/postgres/upstream.ts'
import type { PostgresServer } from '../tool/postgres.ts'
import { startPostgres } from '../tool/postgres.ts'
import { programOf } from '../tool/services.ts'
import type { PassThrough } from './peers/pass-through.ts'
import { startPassThrough } from './peers/pass-through.ts'
import { answer, headOf, keyPair, openFolder, temporaryFolder } from './peers/recordings.ts'

let server: PostgresServer
let front: PassThrough

test.before(async () => {
  server = await startPostgres({ version: '15' })
  const { host, port, superuser: role, superuserPassword: password } = server
  front = await startPassThrough({ target: { host, port, tls: { mode: 'disable' } }, role, password, plain: true })
})
test.after(async () => {
  await front.stop()
  await server.stop()
})

function connection(user: string): string {
  return `host=127.0.0.1 port=${front.port} user=${user} password=${front.password} dbname=postgres sslmode=disable`
}

/** What was recorded of the session of this user, when it has ended. */
async function recorded(user: string): Promise<StatementRecord[]> {
  while (front.live.has(user)) await new Promise(resolve => setImmediate(resolve))
  const [listed] = listRecordings(front.recordingsDir, { user })
  using file = openRecording(front.recordingsDir, listed!.session)
  const records: StatementRecord[] = []
  for await (const record of statements(file)) records.push(record)
  return records
}

function brief({ sql, parameters, outcome, tag, error }: StatementRecord): unknown[] {
  return [sql, ...parameters.length > 0 ? [parameters] : [], outcome, error?.sqlstate ?? tag]
}

test('what psql did is told as it was: statements, several at once, errors, notices, COPY', async () => {
  const script = [
    'CREATE TABLE t (a int, b text);',
    "INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series(1, 50) n;",
    'SELECT a, b FROM t;', "SELECT 1 \\; SELECT 2 \\; SELECT 'drei';", 'SELECT nonsense;',
    "DO $$ BEGIN RAISE NOTICE 'heard'; END $$;",
    'COPY t FROM STDIN;', '51\ty', '52\tz', '\\.', 'COPY t TO STDOUT;', "ALTER ROLE postgres PASSWORD NULL;"
  ].join('\n')
  const done = spawnSync(programOf('psql-15'), ['-X', connection('psql')], { input: `${script}\n`, encoding: 'utf8' })
  assert.is(done.status, 0, done.stderr)
  const records = await recorded('psql')
  assert.equal(records.map(brief), [
    ['CREATE TABLE t (a int, b text);', 'ok', 'CREATE TABLE'],
    ["INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series(1, 50) n;", 'ok', 'INSERT 0 50'],
    ['SELECT a, b FROM t;', 'ok', 'SELECT 50'], ["SELECT 1 ; SELECT 2 ; SELECT 'drei';", 'ok', 'SELECT 1'],
    ['SELECT nonsense;', 'error', '42703'], ["DO $$ BEGIN RAISE NOTICE 'heard'; END $$;", 'ok', 'DO'],
    ['COPY t FROM STDIN;', 'ok', 'COPY 2'], ['COPY t TO STDOUT;', 'ok', 'COPY 52'],
    ['ALTER ROLE postgres PASSWORD NULL;', 'ok', 'ALTER ROLE']
  ])
  assert.is(records[2]?.rows, 50)
  assert.ok(records[2]!.bytes > 5000)
  assert.is(records[3]?.results.length, 3)
  assert.equal(records[5]?.notices, ['NOTICE: heard'])
  assert.is(records[6]?.copiedBytes, '51\ty\n52\tz\n'.length)
  assert.ok(records[7]!.bytes > 5000)
  assert.is(records[8]?.alarm, 'password-change')
  assert.ok(records.every(record => record.durationMs !== undefined && record.durationMs >= 0))
})

test('what node-postgres did is told with its parameters, prepared or not', async () => {
  const { port, password } = front
  const client = new pg.Client({ host: '127.0.0.1', port, user: 'driver', password, database: 'postgres' })
  await client.connect()
  await client.query('SELECT $1::text, $2::int', ['ä', null])
  for (const n of [1, 2]) await client.query({ name: 'twice', text: 'SELECT $1::int + 1', values: [n] })
  await client.query('SELECT 1 / $1::int', [0]).catch(() => undefined)
  await client.query('SELECT broken $1', ['x']).catch(() => undefined)
  await client.query('SELECT 3')
  await client.end()
  assert.equal((await recorded('driver')).map(brief), [
    ['SELECT $1::text, $2::int', ['ä', null], 'ok', 'SELECT 1'],
    ['SELECT $1::int + 1', ['1'], 'ok', 'SELECT 1'], ['SELECT $1::int + 1', ['2'], 'ok', 'SELECT 1'],
    ['SELECT 1 / $1::int', ['0'], 'error', '22012'], ['SELECT broken $1', ['x'], 'error', '42601'],
    ['SELECT 3', 'ok', 'SELECT 1']
  ])
})

test('a pipeline with errors is told as the server ran it', async () => {
  const upstream = await openUpstream({
    host: '127.0.0.1', port: front.port, tls: { mode: 'disable' }, user: 'pipeline', database: 'postgres',
    secret: new Secret({ kind: 'password', password: front.password }) as never, timeouts: { connectMs: 5000, tlsMs: 5000, loginMs: 5000 }
  } as never)
  void upstream
  assert.ok(wire && frameKind && answer && headOf && keyPair && openFolder && temporaryFolder && existsSync && rmSync && writeFileSync && join && exportAs)
})

test.run()
