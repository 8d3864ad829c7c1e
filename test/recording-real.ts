// deadline: 240 s
// Recordings of real sessions: stock psql, node-postgres and hand-made pipelines through the front end to a
// real PostgreSQL. The decoder must tell what the server did, in the simple and the extended protocol, after
// errors, with COPY both ways; and an exported file must run in psql without obeying anything but SQL.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { listRecordings, openRecording } from '../src/recording/catalog.ts'
import { exportAs } from '../src/recording/export.ts'
import { statements } from '../src/recording/postgres.ts'
import { frameKind } from '../src/recording/recording.ts'
import type { StatementRecord } from '../src/recording/statement.ts'
import * as wire from '../src/wire/postgres/messages.ts'
import { openUpstream } from '../src/wire/postgres/upstream.ts'
import type { PostgresServer } from '../tool/postgres.ts'
import { startPostgres } from '../tool/postgres.ts'
import { programOf } from '../tool/services.ts'
import type { PassThrough } from './peers/pass-through.ts'
import { startPassThrough } from './peers/pass-through.ts'
import { answer, headOf, keyPair, openFolder, temporaryFolder, until } from './peers/recordings.ts'

let server: PostgresServer
let front: PassThrough

test.before(async () => {
  server = await startPostgres({ version: '15' })
  const { host, port, superuser: role, superuserPassword: password } = server
  const target = { host, port, tls: { mode: 'disable' } } as const
  front = await startPassThrough({ target, role, password, plain: true })
})
test.after(async () => {
  await front.stop()
  await server.stop()
})

function connection(user: string): string {
  const { port, password } = front
  return `host=127.0.0.1 port=${port} user=${user} password=${password} dbname=postgres sslmode=disable`
}

interface Ran {
  code: number | null
  output: string
}

/** Runs psql with this on its standard input. */
async function psql(words: readonly string[], input: string): Promise<Ran> {
  const child = spawn(programOf('psql-15'), ['-X', ...words], { stdio: 'pipe' })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => { output += String(chunk) })
  child.stdin.end(input)
  const [code] = await once(child, 'close') as [number | null]
  return { code, output }
}

/** What was recorded of the session of this user, when it has ended. */
async function recorded(user: string): Promise<StatementRecord[]> {
  await until(() => !front.live.has(user) && front.recordings.stats().open === 0)
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
    'COPY t FROM STDIN;', '51\ty', '52\tz', '\\.', 'COPY t TO STDOUT;', 'CREATE ROLE other;',
    'ALTER ROLE other PASSWORD NULL;'
  ].join('\n')
  const { code, output } = await psql([connection('psql')], `${script}\n`)
  assert.is(code, 0, output)
  const records = await recorded('psql')
  assert.equal(records.map(brief), [
    ['CREATE TABLE t (a int, b text);', 'ok', 'CREATE TABLE'],
    ["INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series(1, 50) n;", 'ok', 'INSERT 0 50'],
    ['SELECT a, b FROM t;', 'ok', 'SELECT 50'], ["SELECT 1 ; SELECT 2 ; SELECT 'drei';", 'ok', 'SELECT 1'],
    ['SELECT nonsense;', 'error', '42703'], ["DO $$ BEGIN RAISE NOTICE 'heard'; END $$;", 'ok', 'DO'],
    ['COPY t FROM STDIN;', 'ok', 'COPY 2'], ['COPY t TO STDOUT;', 'ok', 'COPY 52'],
    ['CREATE ROLE other;', 'ok', 'CREATE ROLE'], ['ALTER ROLE other PASSWORD NULL;', 'ok', 'ALTER ROLE']
  ])
  assert.is(records[2]?.rows, 50)
  assert.ok(records[2]!.bytes > 5000)
  assert.is(records[3]?.results.length, 3)
  assert.equal(records[5]?.notices, ['NOTICE: heard'])
  // psql 15 sends the end mark as well.
  assert.is(records[6]?.copiedBytes, '51\ty\n52\tz\n\\.\n'.length)
  assert.ok(records[7]!.bytes > 5000)
  assert.is(records[9]?.alarm, 'password-change')
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
  const client = await openUpstream({
    host: '127.0.0.1', port: front.port, tls: { mode: 'disable' }, user: 'pipeline', database: 'postgres',
    secret: () => ({ kind: 'password', password: front.password }),
    timeouts: { connectMs: 5000, tlsMs: 5000, loginMs: 5000 }
  })
  let answers = ''
  client.takeOver((chunk, bytes) => {
    answers += chunk.toString('latin1', 0, bytes)
    return true
  })
  const run = (sql: string, values: readonly string[] = []): Buffer[] =>
    [wire.parse('', sql), wire.bind('', '', values), wire.describe('P', ''), wire.execute('')]
  client.socket.write(Buffer.concat([
    ...run('SELECT 1'), ...run('SELECT 1 / 0'), ...run('SELECT 2'), wire.sync(),
    wire.parse('s', 'SELECT $1::int AS kept'), wire.sync(),
    wire.parse('s', 'SELECT 1 AS disguise'), wire.sync(),
    wire.bind('', 's', ['7']), wire.execute(''), wire.sync(),
    wire.bind('p', 's', ['8']), wire.execute('p', 1), wire.execute('p', 1), wire.sync(),
    wire.describe('S', 'nobody'), ...run('SELECT 3'), wire.sync(), wire.query('SELECT 4; SELECT nonsense'),
    wire.frame('C', Buffer.from('Ss\0')), wire.bind('', 's', ['9']), wire.execute(''), wire.sync()
  ]))
  // Each batch ends with ReadyForQuery.
  await until(() => answers.split('Z\0\0\0\x05').length === 9)
  client.close()
  assert.equal((await recorded('pipeline')).map(brief), [
    ['SELECT 1', 'ok', 'SELECT 1'], ['SELECT 1 / 0', 'error', '22012'], ['SELECT 2', 'skipped', ''],
    ['SELECT 1 AS disguise', 'error', '42P05'],
    ['SELECT $1::int AS kept', ['7'], 'ok', 'SELECT 1'],
    ['SELECT $1::int AS kept', ['8'], 'ok', ''], ['SELECT $1::int AS kept', ['8'], 'ok', 'SELECT 0'],
    ['SELECT 3', 'error', '26000'], ['SELECT 4; SELECT nonsense', 'error', '42703'],
    ['<prepared statement "s" is not on this tape>', ['9'], 'error', '26000']
  ])
})

test('an exported file runs in psql, and psql obeys none of its own commands in it', async () => {
  const dir = temporaryFolder()
  const trap = join(dir, 'trap')
  const head = headOf('s1', { user: `eve\n\\! touch ${trap}` })
  const recording = await openFolder(dir, keyPair().signer).create(head)
  // With standard_conforming_strings off the second was one string; psql reads it otherwise.
  const sql = [
    'SELECT 1 AS first', `SELECT 'a\\'' \\! touch ${trap} --'`,
    `SELECT 2\n;\n\\unrestrict guess\n\\! touch ${trap}`,
    'SELECT 3 AS last'
  ]
  for (const text of sql) {
    recording.append(frameKind.statement, 0, wire.query(text))
    recording.append(frameKind.result, 0, answer.complete('SELECT 1', 1), answer.ready())
  }
  await recording.seal({ how: 'ended', reason: 'client-closed' })
  using file = openRecording(dir, 's1')
  let exported = ''
  for await (const piece of exportAs(file, 'sql')) exported += piece
  const words = ['-At', server.url(), '-f', '-']
  const { output } = await psql(words, exported)
  assert.match(output, /^1$/m)
  assert.not.ok(existsSync(trap), output)
  // The trap is a trap: without the restriction psql does what it says.
  await psql(words, exported.replace(/^\\(un)?restrict.*$/gm, ''))
  assert.ok(existsSync(trap))
})

test.run()
