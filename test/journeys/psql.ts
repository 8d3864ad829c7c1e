// The main job, as its people have it: stock psql, the product in a process of its own, a real PostgreSQL.
// Each promise is checked where it must hold, on the target, by its superuser.
// deadline: 240 s
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { LeaseEventJson, LeaseJson } from '../../src/api/client-types.ts'
import type { PostgresServer } from '../../tool/postgres.ts'
import { programOf } from '../../tool/services.ts'
import { authenticator } from '../peers/authenticator.ts'
import { sightings } from '../peers/canaries.ts'
import { accountsOn, alicePassword, companyDatabase, ran, startHouse, until } from '../peers/house.ts'
import type { House } from '../peers/house.ts'
import { apiOf } from '../peers/inspector.ts'

let target: PostgresServer
let adminPassword: string
let house: House

interface Session {
  id: string
  status: string
  reason: string | null
  user: string
  account: { name: string, state: string } | null
  receipt: { state: string } | null
  recording: { sealed: boolean } | null
}

const sessions = (): Promise<Session[]> => house.json<Session[]>('sessions', 'list')
const newest = async (): Promise<Session> => (await sessions())[0]!

/** A psql that stays connected until it is told what to do next. */
function interactive(login?: string) {
  const words = ['-XAtq', house.connection(login)]
  const child = spawn(programOf('psql'), words, { env: house.environment, stdio: 'pipe' })
  let text = ''
  child.stdout.on('data', chunk => { text += String(chunk) })
  child.stderr.on('data', chunk => { text += String(chunk) })
  child.stdin.on('error', () => undefined)
  const ended = new Promise<number | null>(resolve => child.once('close', resolve))
  return {
    child, ended, text: () => text,
    type: (line: string) => child.stdin.write(`${line}\n`),
    // psql notices that its connection is gone only when it has something to say.
    leave: async () => {
      child.stdin.end()
      return ended
    },
    sees: (what: RegExp, seconds = 20) => until(async () => text, value => what.test(value), seconds)
  }
}

// F27.
const crowd = 100

/** A person with node-postgres, who notices at once when the connection ends. */
function clientOf({ port, folder }: House): pg.Client {
  return new pg.Client({
    host: 'localhost', port, user: 'alice+orders-rw', database: 'orders', password: alicePassword,
    ssl: { ca: readFileSync(join(folder, 'data/tls/ca.pem'), 'utf8') }
  })
}

test.before(async () => {
  const company = await companyDatabase('15', { max_prepared_transactions: 10, max_connections: 200 })
  target = company.server
  // Only now: the DBA who made the hooks' role typed its password.
  await target.psql("ALTER SYSTEM SET log_statement = 'all'")
  await target.psql('SELECT pg_reload_conf()')
  adminPassword = company.adminPassword
  const limits = 'recordingsReserve: 1MiB, consoleConfirm: 2s'
  house = await startHouse({ target, adminPassword, limits })
})
test.after(async () => {
  await house.stop()
  house.clear()
  await target.stop()
})

test('psql works with an account that exists only while it is connected', async () => {
  const psql = interactive()
  psql.type('SELECT current_user, count(*) FROM orders;')
  await psql.sees(/jit_\d{7}\|100/)
  const name = await accountsOn(target)
  assert.match(name, /^jit_\d{7}$/)
  assert.is(await psql.leave(), 0)
  assert.is(await until(() => accountsOn(target), found => found === ''), '')
  // The account goes first, then its receipt is signed, the recording sealed and the row closed.
  const session = await until(
    newest, found => found.receipt?.state === 'proved-gone' && found.status === 'ended')
  assert.is(session.account?.name, name)
  assert.match(await house.sallyport('sessions', 'verify', session.id), /sealed/)
  const replayed = await house.sallyport('sessions', 'replay', session.id, '--speed', '0')
  assert.match(replayed, /count\(\*\) FROM orders/)
})

test('wrong password, unknown user, foreign credential: refused with a code, and no account', async () => {
  const before = await accountsOn(target)
  const wrong = await house.psql('SELECT 1', { password: 'wrong' })
  assert.is(wrong.status, 2)
  assert.match(wrong.stderr, /authentication failed \[auth-failed [0-9a-f]{6}\]/)
  const unknown = await house.psql('SELECT 1', { login: 'mallory+orders-rw' })
  assert.match(unknown.stderr, /authentication failed \[auth-failed [0-9a-f]{6}\]/)
  const foreign = await house.psql('SELECT 1', { login: 'alice+orders-admin' })
  assert.match(foreign.stderr, /access denied \[not-allowed [0-9a-f]{6}\]/)
  assert.is(await accountsOn(target), before)
})

test('every grammar of login names opens the same credential (D2)', async () => {
  const logins = [
    'alice:orders-rw', 'alice%orders-rw', 'alice#orders-rw', 'alice@orders-rw@orders', 'alice[orders-rw]'
  ]
  for (const login of logins) {
    const { stdout, stderr } = await house.psql('SELECT current_user', { login })
    assert.match(stdout, /^jit_\d{7}$/m, `${login}: ${stderr}`)
  }
})

test('an admin ends a session at once, the person hears why, the account is gone', async () => {
  const psql = interactive()
  psql.type("SELECT 'ready';")
  await psql.sees(/ready/)
  const { id } = await newest()
  await house.sallyport('sessions', 'kill', id)
  psql.type('SELECT 1;')
  await psql.sees(/session was ended by an administrator \[session-killed [0-9a-f]{6}\]/)
  await until(() => accountsOn(target), found => found === '')
  const session = await until(
    async () => house.json<Session>('sessions', 'show', id),
    found => found.receipt !== null && found.status === 'ended')
  assert.match(session.reason ?? '', /^session-killed/)
})

test('a client that is killed in the middle of a query leaves nothing behind', async () => {
  const psql = interactive()
  psql.type('SELECT pg_sleep(600);')
  const sleepers = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
  await until(() => target.psql(sleepers), n => n === '1')
  psql.child.kill('SIGKILL')
  await until(() => accountsOn(target), found => found === '', 15)
  assert.is(await target.psql(sleepers), '0')
})

// Promised: J4.
test('two sessions on one enable-disable credential share it; the last one out switches it off', async () => {
  assert.is(await accountsOn(target), '')
  const [first, second] = [interactive('alice+orders-standing'), interactive('alice+orders-standing')]
  for (const psql of [first, second]) {
    psql.type('SELECT current_user;')
    await psql.sees(/standing/)
  }
  assert.is(await accountsOn(target), 'standing')
  await first.leave()
  await until(sessions, all => all.filter(each => each.status === 'live').length === 1)
  second.type("SELECT 'still ' || 'there';")
  await second.sees(/still there/)
  assert.is(await accountsOn(target), 'standing')
  await second.leave()
  await until(() => accountsOn(target), found => found === '')
})

test('the account of a session is a lease like others; revoking it ends the session (S10, F33)', async () => {
  const psql = interactive()
  psql.type("SELECT 'ready';")
  await psql.sees(/ready/)
  const { id, account } = await newest()
  const held = async (): Promise<LeaseJson> =>
    (await house.json<LeaseJson[]>('leases', 'list')).find(({ owner }) => owner === id)!
  const lease = await held()
  assert.equal([lease.ownerKind, lease.status, lease.account.name], ['session', 'active', account?.name])
  await house.sallyport('leases', 'revoke', lease.id)
  psql.type('SELECT 1;')
  await psql.sees(/\[lease-lost [0-9a-f]{6}\]/)
  assert.is(await accountsOn(target), '')
  const { status, account: { state } } = await until(held, found => found.status !== 'revoking')
  assert.equal([status, state], ['revoked', 'proved-gone'])
  const events = await house.json<LeaseEventJson[]>('leases', 'history', lease.id)
  assert.equal(events.map(({ kind }) => kind), ['intended', 'active', 'revoked', 'proved-gone'])
  await psql.leave()
})

// Promised: F32, J15.
test('what a session made is handed over and listed, and its tricks are gone with it', async () => {
  await house.psql(`CREATE TABLE mine AS SELECT 1 AS one; CREATE FUNCTION trap() RETURNS int
    LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; ALTER ROLE CURRENT_USER SET search_path TO evil`)
  await until(() => accountsOn(target), found => found === '')
  const { id } = await until(newest, found => found.receipt?.state === 'proved-gone')
  const receipt = await house.sallyport('sessions', 'receipt', id)
  assert.match(receipt, /table public\.mine/)
  assert.match(receipt, /trap/)
  const owner = await target.psql("SELECT tableowner FROM pg_tables WHERE tablename = 'mine'", 'orders')
  assert.is(owner, 'sallyport_graveyard')
})

test('no secret is in any place where somebody may look (J14, R14, R15)', async () => {
  const typed = 'a password that opens nothing'
  assert.is((await house.psql('SELECT 1', { password: typed })).status, 2)
  const targetLog = readFileSync(target.logFile, 'utf8')
  assert.match(targetLog, /CREATE ROLE "jit_\d{7}"|CREATE ROLE jit_/)
  const logs = { 'our log': house.log(), 'the log of the target': targetLog }
  const { found, places } = await sightings(house, logs, [adminPassword, alicePassword, typed])
  assert.equal(found, [])
  assert.ok(places > 100, `${places} places`)
  // Otherwise nothing was looked for: what a session said is found in its answers and its file.
  const heard = await sightings(house, logs, ['count(*) FROM orders'])
  assert.ok(heard.found.includes('/search SELECT'), heard.found.join())
  assert.ok(heard.found.some(place => place.startsWith(`${house.folder}/recordings/`)))
  assert.ok(heard.found.includes('the log of the target'))
})

test('sslscan finds nothing weak in the TLS of either listener (R29)', async () => {
  const api = new URL(apiOf(house).connection.server).host
  for (const words of [['--starttls-psql', `127.0.0.1:${house.port}`], [api]]) {
    const { stdout } = await ran(programOf('sslscan'), ['--no-colour', ...words])
    const versions = stdout.match(/^\S+ +enabled/gm)?.map(line => line.split(' ')[0])
    assert.equal(versions, ['TLSv1.2', 'TLSv1.3'], stdout)
    const ciphers = stdout.match(/^(Accepted|Preferred).*$/gm) ?? []
    assert.ok(ciphers.length >= 5, stdout)
    for (const cipher of ciphers) assert.match(cipher, /GCM|CHACHA20/)
    const groups = stdout.match(/^TLSv1\.\d +(\d+) bits/gm) ?? []
    assert.ok(groups.length >= 3 && groups.every(line => Number(/(\d+) bits/.exec(line)?.[1]) >= 128), stdout)
  }
})

test('after kill -9 of the proxy the next start removes the account and seals the recording', async () => {
  const psql = interactive()
  psql.type("SELECT 'before' || ' the crash';")
  await psql.sees(/before the crash/)
  assert.match(await accountsOn(target), /^jit_/)
  const { id } = await newest()
  await house.kill()
  await psql.leave()
  assert.match(await accountsOn(target), /^jit_/, 'nobody was left to remove it')
  house = await startHouse({ target, adminPassword, folder: house.folder })
  await until(() => accountsOn(target), found => found === '', 30)
  const session = await until(
    async () => house.json<Session>('sessions', 'show', id), found => found.receipt?.state === 'proved-gone')
  assert.is(session.status, 'interrupted')
  assert.match(await house.sallyport('sessions', 'replay', id, '--speed', '0'), /before.*the crash/s)
  assert.match(await house.sallyport('sessions', 'verify', id), /sealed/)
  await house.sallyport('audit', 'verify')
})

test('while the target is away an account stays on the books; soon after its return it is gone', async () => {
  const psql = interactive()
  psql.type("SELECT 'ready';")
  await psql.sees(/ready/)
  await target.halt()
  await psql.leave()
  const { id } = await newest()
  await pause(3000)
  const waiting = await house.json<Session>('sessions', 'show', id)
  assert.is.not(waiting.account?.state, 'proved-gone')
  await target.resume()
  await until(() => accountsOn(target), found => found === '', 15)
  const done = await until(
    async () => house.json<Session>('sessions', 'show', id), found => found.account?.state === 'proved-gone')
  assert.is(done.receipt?.state, 'proved-gone')
})

test('whoever has a second factor waits for the console after the password, not for ever', async () => {
  const app = authenticator((await house.sallyport('users', 'enrol', 'alice')).trim())
  await house.sallyport('users', 'confirm', 'alice', await app.next())
  const before = (await sessions()).length
  const { status, stderr } = await house.psql('SELECT 1')
  assert.is(status, 2)
  assert.match(stderr, /NOTICE: {2}open https:\/\/localhost:\d+\/console\/confirm#\S{9} and confirm \S{9}: /)
  assert.match(stderr, /FATAL: {2}a second factor is needed as well \[second-factor-required [0-9a-f]{6}\]/)
  const wrong = await house.psql('SELECT 1', { password: 'wrong' })
  assert.match(wrong.stderr, /authentication failed \[auth-failed/)
  const appended = await house.psql('SELECT 1', { password: `${alicePassword}${await app.next()}` })
  assert.match(appended.stderr, /authentication failed \[auth-failed/)
  assert.is((await sessions()).length, before)
  await house.sallyport('users', 'unenrol', 'alice')
  assert.is((await house.psql('SELECT 1')).stdout, '1\n')
})

test('an orderly stop ends a hundred sessions, proves all accounts gone and exits 0 (F27, J5)', async () => {
  const people: pg.Client[] = []
  const heard: string[] = []
  const come = async (): Promise<void> => {
    while (people.length < crowd) {
      const client = clientOf(house)
      people.push(client)
      client.on('error', error => heard.push(error.message))
      await client.connect()
    }
  }
  await Promise.all(Array.from({ length: 8 }, come))
  assert.is((await accountsOn(target)).split(',').length, crowd)
  assert.is(await house.stop(), 0)
  assert.is(await accountsOn(target), '')
  await until(async () => heard.filter(text => /\[shutting-down [0-9a-f]{6}\]/.test(text)).length,
    count => count === crowd)
  house = await startHouse({ target, adminPassword, folder: house.folder })
  assert.is((await sessions()).filter(each => each.receipt === null && each.account !== null).length, 0)
})

test.run()
