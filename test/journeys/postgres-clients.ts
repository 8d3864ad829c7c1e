// deadline: 240 s
// Stock clients through the PostgreSQL front end alone (steps that know one user and one role): what people
// and their programs use must work as it does directly, and sound like it. The target is a real PostgreSQL 15
// that speaks TLS and is verified. The whole product with its accounts is in journeys/psql.ts.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import postgres from 'postgres'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { randomKeys, verifierFromKeys } from '../../src/wire/postgres/verifier.ts'
import { startPostgres } from '../../tool/postgres.ts'
import type { PostgresServer } from '../../tool/postgres.ts'
import { programOf } from '../../tool/services.ts'
import { clientPassword, startPassThrough } from '../peers/pass-through.ts'
import type { PassThrough } from '../peers/pass-through.ts'

let server: PostgresServer
let front: PassThrough
let folder: string
let caFile: string

interface Ran {
  code: number | null
  out: string
  error: string
}

function start(program: string, words: readonly string[], environment: Record<string, string> = {}) {
  const child = spawn(program, words, {
    env: { ...process.env, PGPASSWORD: clientPassword, ...environment }, stdio: 'pipe'
  })
  let [out, error] = ['', '']
  child.stdout.on('data', (chunk: Buffer) => { out += chunk.toString() })
  child.stderr.on('data', (chunk: Buffer) => { error += chunk.toString() })
  child.stdin.on('error', () => undefined)
  const done = new Promise<Ran>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', code => resolve({ code, out, error }))
  })
  const saw = async (what: RegExp): Promise<void> => {
    while (!what.test(out + error)) await new Promise(resolve => setTimeout(resolve, 10))
  }
  return { child, done, saw }
}

function run(program: string, words: readonly string[], environment?: Record<string, string>): Promise<Ran> {
  const started = start(program, words, environment)
  started.child.stdin.end()
  return started.done
}

const plain = (): string => `host=127.0.0.1 port=${front.port} user=alice dbname=app sslmode=disable`
const verified = (): string =>
  `host=localhost port=${front.port} user=alice dbname=app sslmode=verify-full sslrootcert=${caFile}`

function psql(connection: string, ...sql: readonly string[]): Promise<Ran> {
  return run(programOf('psql-15'), ['-XAtq', ...sql.flatMap(each => ['-c', each]), connection])
}

async function ok(ran: Promise<Ran>): Promise<string> {
  const { code, out, error } = await ran
  assert.is(code, 0, error)
  return out.trimEnd()
}

/** How many backends of ours run a statement with this text. */
function running(text: string): Promise<string> {
  return server.psql('SELECT count(*) FROM pg_stat_activity ' +
    `WHERE query LIKE '%${text}%' AND state = 'active' AND usename = 'injected'`)
}

test.before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sallyport-clients-'))
  server = await startPostgres({ version: '15', tls: true })
  const keys = randomKeys()
  await server.psql(`CREATE ROLE injected LOGIN PASSWORD '${verifierFromKeys(keys)}'`)
  await server.psql('CREATE DATABASE app OWNER injected')
  front = await startPassThrough({
    target: {
      host: '127.0.0.1', port: server.port,
      tls: { mode: 'verify-full', ca: readFileSync(server.caFile!, 'utf8') }
    },
    role: 'injected', password: '', keys, preparing: async tell => tell('preparing your account')
  })
  caFile = join(folder, 'front.crt')
  writeFileSync(caFile, front.certificate)
})
test.after(async () => {
  await front.stop()
  await server.stop()
  rmSync(folder, { recursive: true })
})

// Promised: D1, R26.
test('psql works in clear, with verified TLS and with channel binding, and hears its progress', async () => {
  for (const connection of [
    plain(), verified(), `${verified()} channel_binding=require`, plain().replace('disable', 'prefer'),
    `${verified()} gssencmode=prefer`, verified().replace('verify-full', 'require')
  ]) {
    const { code, out, error } = await psql(connection, 'SELECT current_user, session_user')
    assert.is(code, 0, error)
    assert.is(out.trim(), 'injected|injected')
    assert.match(error, /NOTICE: {2}preparing your account/)
  }
})

test('psql refuses a front that is not the one it knows', async () => {
  const other = join(folder, 'other.crt')
  writeFileSync(other, readFileSync(server.caFile!))
  const { code, error } = await psql(verified().replace(caFile, other), 'SELECT 1')
  assert.is(code, 2)
  assert.match(error, /certificate verify failed/)
})

test('the pid that a client is told is the backend\'s, and a large statement passes whole', async () => {
  const digest = createHash('md5').update('y'.repeat(3_000_000)).digest('hex')
  const file = join(folder, 'large.sql')
  writeFileSync(file, `SELECT md5('${'y'.repeat(3_000_000)}');\n`)
  assert.is(await ok(run(programOf('psql-15'), ['-XAtq', '-f', file, plain()])), digest)
  const script = 'import os, psycopg2\n' +
    'c = psycopg2.connect(os.environ["DSN"]); k = c.cursor(); k.execute("SELECT pg_backend_pid()")\n' +
    'assert k.fetchone()[0] == c.info.backend_pid\nprint("same")\n'
  assert.is(await ok(run(programOf('python3'), ['-c', script], { DSN: plain() })), 'same')
})

test('psql reports errors of the target as they are, and goes on', async () => {
  const { out, error } = await run(programOf('psql-15'), [
    '-XAtq', '-c', '\\set VERBOSITY verbose', '-c', 'SELECT 1/0', '-c', 'SELECT 2', plain()
  ])
  assert.match(error, /ERROR: {2}22012: division by zero/)
  assert.is(out.trim(), '2')
  const missing = await psql(plain().replace('dbname=app', 'dbname=nope'), 'SELECT 1')
  assert.match(missing.error, /the target refused the login \[target-refused [0-9a-f]{6}\]/)
  assert.match(missing.error, /DETAIL: {2}database "nope" does not exist/)
  const wrong = await run(programOf('psql-15'), ['-XAtqc', 'SELECT 1', plain()], { PGPASSWORD: 'wrong' })
  assert.match(wrong.error, /authentication failed \[auth-failed [0-9a-f]{6}\]/)
})

test('control-C in psql cancels the statement', async () => {
  for (const connection of [plain(), verified()]) {
    const shell = start(programOf('psql-15'), ['-XAtq', connection])
    shell.child.stdin.write('SELECT pg_backend_pid();\n')
    await shell.saw(/^\d+\n/m)
    shell.child.stdin.write('SELECT pg_sleep(600);\n')
    while (await running('pg_sleep(600)') !== '1') { /* it is on its way */ }
    shell.child.kill('SIGINT')
    await shell.saw(/canceling statement due to user request/)
    // A psql that reads a script stops there, as it does directly; that a session goes on is shown with
    // psycopg2.
    shell.child.stdin.end()
    assert.is((await shell.done).code, 3)
  }
})

test('a psql that is killed takes its statement with it', async () => {
  const shell = start(programOf('psql-15'), ['-XAtq', '-c', 'SELECT pg_sleep(700)', plain()])
  while (await running('pg_sleep(700)') !== '1') { /* it is on its way */ }
  shell.child.kill('SIGKILL')
  while (await running('pg_sleep(700)') !== '0') { /* the runner's deadline is the limit */ }
  assert.is((await shell.done).code, null)
})

test('100 MB by COPY in and out are the same bytes', async () => {
  const rows = 1_000_000
  const [source, copy] = [join(folder, 'source.csv'), join(folder, 'copy.csv')]
  const rowsOf = `SELECT i, md5(i::text) || repeat('z', 60) FROM generate_series(1, ${rows}) i`
  await ok(psql(plain(), `\\copy (${rowsOf}) TO '${source}' CSV`))
  await ok(psql(plain(), 'CREATE TABLE bulk (id int, text text)', `\\copy bulk FROM '${source}' CSV`))
  await ok(psql(verified(), `\\copy (SELECT * FROM bulk ORDER BY id) TO '${copy}' CSV`))
  const digest = (file: string): string => createHash('sha256').update(readFileSync(file)).digest('hex')
  assert.is(digest(source), digest(copy))
  assert.ok(readFileSync(copy).length > 95_000_000)
})

test('pgbench runs in its three protocols, and with a new connection for each transaction', async () => {
  await ok(run(programOf('pgbench'), ['-i', '-q', '-s', '1', plain()]))
  for (const protocol of ['simple', 'extended', 'prepared']) {
    const out = await ok(run(programOf('pgbench'), ['-n', '-M', protocol, '-c', '4', '-t', '50', plain()]))
    assert.match(out, /number of transactions actually processed: 200\/200/, protocol)
    assert.match(out, /number of failed transactions: 0/, protocol)
  }
  const fresh = await ok(run(programOf('pgbench'), ['-n', '-S', '-C', '-c', '4', '-t', '5', verified()]))
  assert.match(fresh, /processed: 20\/20/)
  assert.is(await ok(psql(plain(), 'SELECT count(*) FROM pgbench_history')), '600')
})

test('node-postgres: TLS, prepared statements, errors, notifications', async () => {
  const ssl = { ca: front.certificate, servername: 'localhost' }
  for (const options of [{}, { ssl }]) {
    const client = new pg.Client({
      host: 'localhost', port: front.port, user: 'alice', password: clientPassword, database: 'app',
      ...options
    })
    await client.connect()
    const prepared = { name: 'sum', text: 'SELECT $1::int + $2::int AS sum' }
    for (let value = 0; value < 50; value++) {
      const { rows } = await client.query<{ sum: number }>({ ...prepared, values: [value, 1] })
      assert.is(rows[0]!.sum, value + 1)
    }
    const codeOf = (error: { code: string }): string => error.code
    const failed = await client.query('SELECT nope').then(() => undefined, codeOf)
    assert.is(failed, '42703')
    const large = "SELECT repeat('a', 5000) AS text FROM generate_series(1, 2000)"
    const { rows } = await client.query<{ text: string }>(large)
    assert.is(rows.reduce((sum, { text }) => sum + text.length, 0), 10_000_000)
    const heard = new Promise<string | undefined>(resolve => {
      client.once('notification', ({ payload }) => resolve(payload))
    })
    await client.query('LISTEN news')
    await server.psql("NOTIFY news, 'hello'", 'app')
    assert.is(await heard, 'hello')
    await client.end()
  }
})

test('postgres.js: pipelined statements, transactions, COPY, cursors', async () => {
  const sql = postgres({
    host: '127.0.0.1', port: front.port, username: 'alice', password: clientPassword, database: 'app', max: 4,
    onnotice: () => undefined
  })
  const numbers = Array.from({ length: 500 }, (_, index) => index)
  const sums = await Promise.all(numbers.map(index => sql`SELECT ${index}::int + 1 AS sum`))
  assert.equal(sums.map(rows => rows[0]!['sum'] as number), numbers.map(index => index + 1))
  await sql`CREATE TABLE IF NOT EXISTS words (word text)`
  const into = await sql`COPY words FROM STDIN`.writable()
  into.write('one\ntwo\n')
  await new Promise<void>(resolve => into.end('three\n', () => resolve()))
  await sql.begin(async within => {
    await within`INSERT INTO words VALUES ('four')`
    assert.is((await within`SELECT count(*)::int AS n FROM words`)[0]!['n'], 4)
  })
  let seen = 0
  await sql`SELECT generate_series(1, 1000)`.cursor(100, rows => { seen += rows.length })
  assert.is(seen, 1000)
  await sql.end()
})

test('psycopg2: server-side cursors, COPY, cancel, TLS', async () => {
  const script = `
import io, os, threading, psycopg2
for dsn in (os.environ['DSN'], os.environ['TLS']):
    c = psycopg2.connect(dsn)
    k = c.cursor('server side')
    k.execute('SELECT generate_series(1, 10000)')
    assert sum(row[0] for row in k) == 50005000
    c.commit()
    k = c.cursor()
    k.execute('CREATE TEMP TABLE t (n int, s text)')
    k.copy_expert('COPY t FROM STDIN', io.StringIO(''.join(f'{i}\\tx{i}\\n' for i in range(50000))))
    out = io.StringIO()
    k.copy_expert('COPY t TO STDOUT', out)
    assert len(out.getvalue().splitlines()) == 50000
    c.commit()
    threading.Timer(0.3, c.cancel).start()
    try:
        k.execute('SELECT pg_sleep(60)')
        raise SystemExit('not cancelled')
    except psycopg2.errors.QueryCanceled:
        c.rollback()
    k.execute('SELECT %s::text', ('ünïcode ☃',))
    assert k.fetchone()[0] == 'ünïcode ☃'
    assert c.info.ssl_in_use == ('verify-full' in dsn)
    c.close()
print('fine')
`
  assert.is(await ok(run(programOf('python3'), ['-c', script], { DSN: plain(), TLS: verified() })), 'fine')
})

test('pgjdbc: prepared statements, batches, large values, COPY, TLS', async () => {
  const source = join(folder, 'Journey.java')
  writeFileSync(source, `
import java.sql.*;
import java.io.*;
import java.util.Properties;
public class Journey {
  public static void main(String[] words) throws Exception {
    for (String url : words) {
      Properties p = new Properties();
      p.setProperty("user", "alice");
      p.setProperty("password", System.getenv("PGPASSWORD"));
      try (Connection c = DriverManager.getConnection(url, p)) {
        try (PreparedStatement s = c.prepareStatement("SELECT ?::int * 2")) {
          for (int i = 0; i < 20; i++) {
            s.setInt(1, i);
            ResultSet r = s.executeQuery();
            r.next();
            if (r.getInt(1) != 2 * i) throw new Error("sum");
          }
        }
        try (Statement s = c.createStatement()) { s.execute("CREATE TEMP TABLE t (n int, s text)"); }
        try (PreparedStatement s = c.prepareStatement("INSERT INTO t VALUES (?, ?)")) {
          for (int i = 0; i < 5000; i++) {
            s.setInt(1, i);
            s.setString(2, "x".repeat(i % 300));
            s.addBatch();
          }
          s.executeBatch();
        }
        c.setAutoCommit(false);
        try (Statement s = c.createStatement()) {
          s.setFetchSize(100);
          int n = 0;
          try (ResultSet r = s.executeQuery("SELECT * FROM t")) { while (r.next()) n++; }
          if (n != 5000) throw new Error("rows " + n);
        }
        org.postgresql.copy.CopyManager copy = c.unwrap(org.postgresql.PGConnection.class).getCopyAPI();
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        if (copy.copyOut("COPY t TO STDOUT", out) != 5000) throw new Error("copy");
        try (Statement s = c.createStatement()) { s.execute("SELECT nope"); throw new Error("no error"); }
        catch (SQLException e) { if (!"42703".equals(e.getSQLState())) throw e; }
        c.rollback();
      }
    }
    System.out.println("fine");
  }
}
`)
  const url = `jdbc:postgresql://localhost:${front.port}/app`
  const secured = `${url}?sslmode=verify-full&sslrootcert=${caFile}`
  const words = ['-cp', programOf('pgjdbc'), source, `${url}?sslmode=disable`, secured]
  const out = await ok(run(programOf('java'), words))
  assert.is(out, 'fine')
})

test('every session of these clients was ended by its client, and was recorded', async () => {
  while (front.live.size > 0) await new Promise(resolve => setTimeout(resolve, 10))
  const reasons = new Map<string, number>()
  for (const { reason } of front.endings) reasons.set(reason, (reasons.get(reason) ?? 0) + 1)
  assert.equal([...reasons.keys()].sort(), ['auth-failed', 'client-closed', 'target-refused'])
  assert.is(reasons.get('auth-failed'), 1)
  assert.is(front.recordings.stats().lost, 0)
  assert.is(front.listener.stats().cancelKeys, 0)
})

test.run()
