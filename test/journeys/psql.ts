// The main job, as its people have it: stock psql, the product in a process of its own, a real PostgreSQL.
// Each promise is checked where it must hold, on the target, by its superuser.
// deadline: 240 s
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { PostgresServer } from '../../tool/postgres.ts'
import { programOf } from '../../tool/services.ts'
import { authenticator } from '../peers/authenticator.ts'
import { accountsOn, alicePassword, companyDatabase, startHouse, until } from '../peers/house.ts'
import type { House } from '../peers/house.ts'

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

test.before(async () => {
  const company = await companyDatabase('15', { max_prepared_transactions: 10 })
  target = company.server
  // Only now: the DBA who made the hooks' role typed its password.
  await target.psql("ALTER SYSTEM SET log_statement = 'all'")
  await target.psql('SELECT pg_reload_conf()')
  adminPassword = company.adminPassword
  house = await startHouse({ target, adminPassword })
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

test('every grammar of login names opens the same credential', async () => {
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

test('neither our log nor the target’s log nor a recording holds a secret', async () => {
  const targetLog = readFileSync(target.logFile, 'utf8')
  assert.match(targetLog, /CREATE ROLE "jit_\d{7}"|CREATE ROLE jit_/)
  for (const text of [house.log(), targetLog]) {
    assert.not.match(text, new RegExp(adminPassword))
    assert.not.match(text, /correct horse battery/)
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

test('a person with a second factor is refused, after the password and in so many words', async () => {
  const app = authenticator((await house.sallyport('users', 'enrol', 'alice')).trim())
  await house.sallyport('users', 'confirm', 'alice', await app.next())
  const before = (await sessions()).length
  const { status, stderr } = await house.psql('SELECT 1')
  assert.is(status, 2)
  assert.match(stderr, /FATAL: {2}a second factor is needed as well \[second-factor-required [0-9a-f]{6}\]/)
  const wrong = await house.psql('SELECT 1', { password: 'wrong' })
  assert.match(wrong.stderr, /authentication failed \[auth-failed/)
  const appended = await house.psql('SELECT 1', { password: `${alicePassword}${await app.next()}` })
  assert.match(appended.stderr, /authentication failed \[auth-failed/)
  assert.is((await sessions()).length, before)
  await house.sallyport('users', 'unenrol', 'alice')
  assert.is((await house.psql('SELECT 1')).stdout, '1\n')
})

test('an orderly stop ends sessions, proves their accounts gone and exits 0', async () => {
  const psql = interactive()
  psql.type("SELECT 'ready';")
  await psql.sees(/ready/)
  assert.is(await house.stop(), 0)
  assert.is(await accountsOn(target), '')
  await psql.leave()
  house = await startHouse({ target, adminPassword, folder: house.folder })
  assert.is((await sessions()).filter(each => each.receipt === null && each.account !== null).length, 0)
})

test.run()
