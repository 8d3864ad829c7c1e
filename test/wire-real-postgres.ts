// Our client and our SCRAM against real servers (PostgreSQL 15 of Debian, 18 of npm) and libpq: verifiers of
// either side are good for the other; verify-full with channel binding; accounts that have keys and no
// password; one statement for each call; cancelling for real. Against fakes alone both ends could be wrong
// together. deadline: 240 s
import { execFile, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { UpstreamError } from '../src/wire/error.ts'
import { query, readyForQuery } from '../src/wire/postgres/messages.ts'
import { connectClient, ConnectionLost, ServerError, type Client } from '../src/wire/postgres/query.ts'
import { saslPrepare } from '../src/wire/postgres/saslprep.ts'
import type { ScramSecret } from '../src/wire/postgres/scram.ts'
import { openUpstream, sendCancel, type UpstreamOptions } from '../src/wire/postgres/upstream.ts'
import {
  makeVerifier, parseVerifier, randomKeys, verifierFromKeys, verifyPassword
} from '../src/wire/postgres/verifier.ts'
import { startPostgres, type PostgresServer } from '../tool/postgres.ts'
import { programOf } from '../tool/services.ts'
import { certificateFor, startTarget } from './peers/postgres-target.ts'

const timeouts = { connectMs: 5000, tlsMs: 5000, loginMs: 10_000 }
const timeoutMs = 10_000

const servers = await Promise.all([
  startPostgres({ version: '15', tls: true }), startPostgres({ version: '18', tls: true })
])

function asPassword(password: string): () => ScramSecret {
  return () => ({ kind: 'password', password })
}

function optionsFor(
  server: PostgresServer, user: string, secret: () => ScramSecret, changes: Partial<UpstreamOptions> = {}
): UpstreamOptions {
  const { host, port } = server
  return { host, port, user, database: 'postgres', tls: { mode: 'disable' }, secret, timeouts, ...changes }
}

function verifyFull(server: PostgresServer): UpstreamOptions['tls'] {
  return { mode: 'verify-full', ca: readFileSync(server.caFile!, 'utf8') }
}

async function admin(server: PostgresServer, changes: Partial<UpstreamOptions> = {}): Promise<Client> {
  return connectClient(optionsFor(server, server.superuser, asPassword(server.superuserPassword), changes))
}

async function thrownBy(work: Promise<unknown>): Promise<unknown> {
  return work.then(() => undefined, (error: unknown) => error)
}

async function kindOf(options: UpstreamOptions): Promise<string> {
  return openUpstream(options).then(upstream => {
    upstream.close()
    return 'open'
  }, (error: UpstreamError) => `${error.kind} ${error.sqlstate ?? ''}`.trim())
}

for (const server of servers) {
  const on = `PostgreSQL ${server.version}`

  test(`the superuser logs in with a password, in clear and with verify-full (${on})`, async () => {
    for (const tls of [{ mode: 'disable' as const }, verifyFull(server)]) {
      const client = await admin(server, { tls })
      const sql = 'select version(), ssl, null from pg_stat_ssl where pid = pg_backend_pid()'
      const { rows, columns, tag } = await client.query(sql, { timeoutMs })
      assert.match(rows[0]![0]!, `PostgreSQL ${server.version}`)
      assert.equal(rows[0]!.slice(1), [tls.mode === 'disable' ? 'f' : 't', null])
      assert.equal([columns, tag], [['version', 'ssl', '?column?'], 'SELECT 1'])
      assert.is(client.parameters.get('standard_conforming_strings'), 'on')
      await client.close()
    }
  })

  test(`an account that has keys and no password logs in, iteration count 1 (${on})`, async () => {
    const keys = randomKeys()
    const secret = (): ScramSecret => ({ kind: 'scram-keys', ...keys })
    await server.psql(`create role keyed login password '${verifierFromKeys(keys, { iterations: 1 })}'`)
    const stored = await server.psql("select rolpassword from pg_authid where rolname = 'keyed'")
    assert.match(stored, /^SCRAM-SHA-256\$1:/)
    for (const tls of [{ mode: 'disable' as const }, { mode: 'require' as const }, verifyFull(server)]) {
      assert.is(await kindOf(optionsFor(server, 'keyed', secret, { tls })), 'open')
    }
    const others = (): ScramSecret => ({ kind: 'scram-keys', ...randomKeys() })
    assert.is(await kindOf(optionsFor(server, 'keyed', others)), 'refused 28P01')
    assert.is(await kindOf(optionsFor(server, 'keyed', asPassword(''))), 'refused 28P01')
    // The right proof towards a server that we do not know: its signature is wrong for us.
    const stranger = (): ScramSecret => ({ kind: 'scram-keys', ...keys, serverKey: randomKeys().serverKey })
    assert.is(await kindOf(optionsFor(server, 'keyed', stranger)), 'untrusted')
  })

  test(`the server's verifiers and ours say the same of a password, ASCII or not (${on})`, async () => {
    const passwords = [
      'plain', 'm\u00f6torhead', 'I\u00adX', 'a\u00a0b', '\u2168', '\u05d0\u05d1', '\u0627\u0031',
      'x\u0007\u00e4'
    ]
    for (const [index, password] of passwords.entries()) {
      const [theirs, ours] = [`theirs${index}`, `ours${index}`]
      await server.psql(`create role ${theirs} login password '${password}'`)
      await server.psql(`create role ${ours} login password '${await makeVerifier(password)}'`)
      const stored = await server.psql(`select rolpassword from pg_authid where rolname = '${theirs}'`)
      assert.ok(parseVerifier(stored).iterations >= 4096)
      assert.is(await verifyPassword(password, stored), true, JSON.stringify(password))
      for (const user of [theirs, ours]) {
        const shown = JSON.stringify(password)
        assert.is(await kindOf(optionsFor(server, user, asPassword(password))), 'open', shown)
        assert.is(await kindOf(optionsFor(server, user, asPassword(`${password}x`))), 'refused 28P01')
      }
      // The other normal form of the same text is the same password.
      const decomposed = password.normalize('NFD')
      const same = saslPrepare(decomposed).equals(saslPrepare(password))
      const expected = same ? 'open' : 'refused 28P01'
      assert.is(await kindOf(optionsFor(server, theirs, asPassword(decomposed))), expected)
    }
  })

  test(`TLS is refused to a wrong authority or name, and the binding holds (${on})`, async () => {
    const account = [server.superuser, asPassword(server.superuserPassword)] as const
    const { ca } = verifyFull(server)
    const wrong = verifyFull(servers.find(other => other !== server)!)
    assert.is(await kindOf(optionsFor(server, ...account, { tls: wrong })), 'untrusted')
    const renamed = { mode: 'verify-full' as const, ca, serverName: 'db.example' }
    assert.is(await kindOf(optionsFor(server, ...account, { tls: renamed })), 'untrusted')
    const anyName = { ...renamed, mode: 'verify-ca' as const }
    assert.is(await kindOf(optionsFor(server, ...account, { tls: anyName })), 'open')
    assert.is(await kindOf(optionsFor(server, ...account, { tls: { mode: 'verify-full' } })), 'untrusted')
  })

  test(`one call is one statement, with its values apart from its text (${on})`, async () => {
    const client = await admin(server)
    const value = "'; drop table pg_class; --\\"
    const values = [value, '41', null]
    const { rows } = await client.query('select $1::text, $2::int + 1, $3::text', { timeoutMs, values })
    assert.equal(rows, [[value, '42', null]])
    const two = await thrownBy(client.query('select 1; select 2', { timeoutMs }))
    assert.is((two as ServerError).sqlstate, '42601')
    const missing = await thrownBy(client.query('select * from nothing_here', { timeoutMs }))
    assert.equal([(missing as ServerError).sqlstate, (missing as ServerError).severity], ['42P01', 'ERROR'])
    assert.is((await client.query('create role made_here', { timeoutMs })).tag, 'CREATE ROLE')
    assert.equal(await client.query('', { timeoutMs }), { rows: [], columns: [], tag: '' })
    await client.query('begin', { timeoutMs })
    assert.is(client.transactionStatus, 'T')
    await thrownBy(client.query('select 1/0', { timeoutMs }))
    assert.is(client.transactionStatus, 'E')
    await client.query('rollback', { timeoutMs })
    assert.is(client.transactionStatus, 'I')
    await client.query("set application_name = 'renamed'", { timeoutMs })
    assert.is(client.parameters.get('application_name'), 'renamed')
    await client.close()
  })

  test(`what the admin's own account has set does not change our statements (${on})`, async () => {
    await server.psql("create role poisoned superuser login password 'x'")
    await server.psql('alter role poisoned set standard_conforming_strings = off')
    await server.psql("alter role poisoned set search_path = 'evil'")
    const client = await connectClient(optionsFor(server, 'poisoned', asPassword('x')))
    const { rows } = await client.query("select '\\', current_setting('search_path')", { timeoutMs })
    assert.equal(rows, [['\\', 'pg_catalog, pg_temp']])
    await client.close()
  })

  test(`a statement that takes too long is ended on the target too (${on})`, async () => {
    const client = await admin(server)
    const observer = await admin(server)
    const lost = await thrownBy(client.query("select pg_sleep(60), 'overlong'", { timeoutMs: 200 }))
    assert.is((lost as ConnectionLost).reason, 'timeout')
    const active = "select count(*) from pg_stat_activity where query like '%overlong''' and pid = $1::int"
    const values = [String(client.pid)]
    let left = '1'
    for (const until = performance.now() + 10_000; left !== '0' && performance.now() < until;) {
      left = (await observer.query(active, { timeoutMs, values })).rows[0]![0]!
      await new Promise(resolve => setTimeout(resolve, 20))
    }
    assert.is(left, '0')
    await observer.close()
  })

  test(`a session that an admin ends is lost with the server's reason (${on})`, async () => {
    const client = await admin(server)
    await server.psql(`select pg_terminate_backend(${client.pid})`)
    await new Promise(resolve => setTimeout(resolve, 100))
    const lost = await thrownBy(client.query('select 1', { timeoutMs }))
    assert.instance(lost, ConnectionLost)
    assert.is(((lost as ConnectionLost).cause as ServerError).sqlstate, '57P01')
  })

  test(`COPY is not for this client, and ends it (${on})`, async () => {
    for (const sql of ['copy pg_class to stdout', 'create temp table t (a int)']) {
      const client = await admin(server)
      const outcome = await thrownBy(client.query(sql, { timeoutMs }))
      if (sql.startsWith('copy')) assert.is((outcome as ConnectionLost).reason, 'violation')
      else assert.is(outcome, undefined)
      await client.close()
    }
  })

  test(`an answer above the limit ends the connection, an answer below comes whole (${on})`, async () => {
    const client = await admin(server)
    const enough = "select repeat('x', 1000) from generate_series(1, 5000)"
    const { rows } = await client.query(enough, { timeoutMs })
    assert.equal([rows.length, rows.at(-1)![0]!.length], [5000, 1000])
    const tooMuch = "select repeat('x', 1000) from generate_series(1, 20000)"
    const lost = await thrownBy(client.query(tooMuch, { timeoutMs }))
    assert.is((lost as ConnectionLost).reason, 'too-large')
  })

  test(`a relay gets a large result whole, with a shared buffer and over TLS (${on})`, async () => {
    const shared = Buffer.allocUnsafeSlow(65_536)
    for (const changes of [{ readBuffer: () => shared }, { tls: verifyFull(server) }]) {
      const account = asPassword(server.superuserPassword)
      const upstream = await openUpstream(optionsFor(server, server.superuser, account, changes))
      let rows = 0
      let bytes = 0
      const parts: Buffer[] = []
      const ended = new Promise<void>(resolve => {
        upstream.takeOver((chunk, count) => {
          bytes += count
          parts.push(Buffer.from(chunk.subarray(0, count)))
          if (Buffer.concat(parts.slice(-2)).subarray(-6).toString('hex') === '5a0000000549') resolve()
          return true
        })
      })
      upstream.socket.write(query("select repeat('y', 100) from generate_series(1, 100000)"))
      await ended
      const all = Buffer.concat(parts)
      for (let at = 0; at < all.length; at += 1 + all.readInt32BE(at + 1)) if (all[at] === 0x44) rows++
      assert.is(rows, 100_000)
      assert.is(bytes, all.length)
      upstream.close()
    }
  })

  test(`a cancel request reaches the backend of a relayed session (${on})`, async () => {
    for (const tls of [{ mode: 'disable' as const }, verifyFull(server)]) {
      const account = asPassword(server.superuserPassword)
      const upstream = await openUpstream(optionsFor(server, server.superuser, account, { tls }))
      const parts: Buffer[] = []
      const ended = new Promise<void>(resolve => {
        upstream.takeOver((chunk, count) => {
          parts.push(Buffer.from(chunk.subarray(0, count)))
          if (Buffer.concat(parts).includes('5a0000000549', 0, 'hex')) resolve()
          return true
        })
      })
      upstream.socket.write(query('select pg_sleep(60)'))
      await new Promise(resolve => setTimeout(resolve, 200))
      const { host, port } = server
      const { pid, cancelKey: key } = upstream
      assert.is(await sendCancel({ host, port, tls, pid, key, timeoutMs: 5000 }), true)
      await ended
      assert.ok(Buffer.concat(parts).includes('57014'))
      upstream.close()
    }
  })

  test(`psql logs in with a password whose verifier we made (${on})`, async () => {
    const ours = await makeVerifier('s\u00e4same', { iterations: 5000 })
    await server.psql(`create role made login password '${ours}'`)
    const run = (password: string): string => {
      const { stdout, stderr } = spawnSync(programOf('psql'), [
        `host=${server.host} port=${server.port} user=made dbname=postgres sslmode=verify-full ` +
        `sslrootcert=${server.caFile} channel_binding=require`, '-XAtc', 'select 42'
      ], { env: { PGPASSWORD: password, PGCLIENTENCODING: 'UTF8', LC_ALL: 'C.UTF-8' }, encoding: 'utf8' })
      return stdout + stderr
    }
    assert.is(run('s\u00e4same'), '42\n')
    assert.match(run('sesam'), 'password authentication failed')
  })
}

test('libpq logs in at our end, and binds the channel to our certificate', async () => {
  const [certificate, account] = [certificateFor(), await makeVerifier('s\u00e4same')]
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-'))
  const root = join(folder, 'root.crt')
  writeFileSync(root, certificate.certificate)
  const mechanisms: string[] = []
  await using target = await startTarget(async peer => {
    if (mechanisms.length === 0) await peer.startTls()
    await peer.login(account)
    mechanisms.push(peer.mechanism)
    await peer.message()
    peer.send('4900000004', readyForQuery('I'))
    await peer.message()
    peer.end()
  }, certificate)
  const run = async (settings: string): Promise<unknown> => {
    const env = { PGPASSWORD: 's\u00e4same', LC_ALL: 'C.UTF-8', PGGSSENCMODE: 'disable' }
    const place = `host=127.0.0.1 port=${target.port} user=a dbname=b ${settings}`
    return thrownBy(promisify(execFile)(programOf('psql'), [place, '-Xc', ' '], { env }))
  }
  assert.is(await run(`sslmode=verify-full sslrootcert=${root} channel_binding=require`), undefined)
  assert.is(await run('sslmode=disable'), undefined)
  assert.equal(mechanisms, ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256'])
  rmSync(folder, { recursive: true })
})

test.after(async () => {
  for (const server of servers) await server.stop()
})

test.run()
