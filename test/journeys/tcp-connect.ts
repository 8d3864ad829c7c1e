// deadline: 240 s
// `sallyport connect`: a local port that leads to a TCP target. With stock psql to a real PostgreSQL, with
// raw sockets to a server of a protocol that nobody here reads, and with what strangers do to the listener:
// no ticket, a used one, silence (J3, J10, J13, J14, R9, R12).
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { RequestJson, SessionJson, TicketJson } from '../../src/api/client-types.ts'
import { createClient } from '../../src/cli/client.ts'
import { readLogins } from '../../src/cli/place.ts'
import { startRedis } from '../../tool/redis.ts'
import { authenticator } from '../peers/authenticator.ts'
import { accountsOn, alicePassword, ran, until } from '../peers/house.ts'
import type { Ran } from '../peers/house.ts'
import { apiOf, sessionsOf } from '../peers/inspector.ts'
import { people, personOf } from '../peers/people.ts'
import { exchange, psqlAt, startTcpHouse, storedPassword } from '../peers/tcp-house.ts'
import type { TcpHouse } from '../peers/tcp-house.ts'

const command = fileURLToPath(new URL('../../src/cli/sallyport.ts', import.meta.url))

const redisHooks = 'user hooks on >of-the-hooks -@all +acl|setuser +acl|getuser +acl|deluser +acl|list '
  + '+acl|save +acl|dryrun +client|list +client|kill +info +config|get'

const redisAccess = (port: number): string => `kind: target
name: cache
protocol: tcp
address: 127.0.0.1:${port}
---
kind: credential
name: cache-hooks
target: cache
username: hooks
password: { value: of-the-hooks }
---
kind: credential
name: cache-rw
target: cache
jit:
  enabled: true
  type: creation-deletion
  authenticationCredential: cache-hooks
  create: { plugin: redis, template: redis/create-user }
  delete: { plugin: redis, template: redis/delete-user }
  variables: { keys: ["app:*"], commands: ["+@read", "+@write", "+@connection", "-@dangerous"] }
---
kind: grant
name: alice-on-cache
users: [alice]
credentials: [cache-rw]
`

let house: TcpHouse
let environment: NodeJS.ProcessEnv
const secrets: string[] = []

test.before(async () => {
  house = await startTcpHouse()
  environment = { ...house.environment, XDG_CONFIG_HOME: join(house.folder, 'of-alice') }
  const { status, stderr } = await cli(['login', 'alice'], { SALLYPORT_PASSWORD: alicePassword })
  assert.is(status, 0, stderr)
})
test.after(async () => house.end())

const withConfig = (words: readonly string[]): string[] => {
  const at = words.indexOf('--')
  const own = ['--config', join(house.folder, 'sallyport.yaml')]
  return at < 0 ? [command, ...words, ...own] : [command, ...words.slice(0, at), ...own, ...words.slice(at)]
}
const cli = (words: readonly string[], more: NodeJS.ProcessEnv = {}): Promise<Ran> =>
  ran(process.execPath, withConfig(words), { ...environment, ...more })
const newest = async (): Promise<SessionJson> => (await sessionsOf(apiOf(house)))[0]!
const replayed = (id: string): Promise<string> => house.sallyport('sessions', 'replay', id, '--speed', '0')

interface Open {
  child: ChildProcess
  port: number
  user: string
  password: string | null
  said(): string
  ended: Promise<number | null>
}

/** `sallyport connect` as it stays open. */
async function open(credential: string, more: NodeJS.ProcessEnv = {}): Promise<Open> {
  const child = spawn(process.execPath, withConfig(['connect', credential, '--json']), {
    env: { ...environment, ...more }, stdio: ['ignore', 'pipe', 'pipe']
  })
  let [out, said] = ['', '']
  child.stdout.on('data', chunk => { out += String(chunk) })
  child.stderr.on('data', chunk => { said += String(chunk) })
  const ended = new Promise<number | null>(resolve => child.once('close', resolve))
  await until(async () => out, text => text.includes('\n}') || child.exitCode !== null)
  const { port, user, password } = JSON.parse(out || said) as Open
  if (password !== null) secrets.push(password)
  return { child, port, user, password, ended, said: () => said }
}

const psql = ({ port, user, password }: Open, sql: string): Promise<Ran> =>
  psqlAt(port, user, password ?? '', sql)

/** A stranger at the listener: what is said to these bytes until the connection ends. */
function stranger(bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = ''
    const ca = readFileSync(join(house.folder, 'data/tls/ca.pem'), 'utf8')
    const socket = connectTls({ host: '127.0.0.1', port: house.tcpPort, ca }, () => socket.write(bytes))
    socket.on('data', chunk => { answer += String(chunk) })
    socket.on('close', () => resolve(answer)).on('error', reject)
  })
}

test('psql works through the local port, with an account that lives as long as the command', async () => {
  const tunnel = await open('orders-tcp-rw')
  assert.match(tunnel.user, /^jit_\d{7}$/)
  assert.match(tunnel.password ?? '', /^[a-km-zA-HJ-NP-Z2-9]{24}$/)
  const lines = await Promise.all([1, 2, 3].map(n => psql(tunnel, `SELECT current_user, ${n}`)))
  const expected = [1, 2, 3].map(n => `${tunnel.user}|${n}\n`)
  assert.equal(lines.map(({ stdout }) => stdout), expected, lines[0]!.stderr)
  assert.is(await accountsOn(house.database), tunnel.user)
  tunnel.child.kill('SIGINT')
  assert.is(await tunnel.ended, 0, tunnel.said())
  const session = await until(newest, ({ receipt, status }) =>
    receipt?.state === 'proved-gone' && status === 'ended')
  assert.equal([session.account?.name, session.protocol], [tunnel.user, 'tcp'])
  assert.is(await accountsOn(house.database), '')
  assert.match(await house.sallyport('sessions', 'verify', session.id), /sealed/)
  const text = await replayed(session.id)
  for (const lane of [1, 2, 3]) assert.match(text, new RegExp(`^[<>] ${lane} {2}0000`, 'm'))
})

test('a command gets the login in its environment, and its exit code is passed on', async () => {
  const script = 'PGPASSWORD=$SALLYPORT_PASSWORD psql -XAtqc "SELECT current_user" '
    + '"host=$SALLYPORT_HOST port=$SALLYPORT_PORT user=$SALLYPORT_USER dbname=orders sslmode=disable"; '
    + 'echo "token: $SALLYPORT_TOKEN"; exit 7'
  const [{ token } = { token: '' }] = readLogins(environment)
  const words = ['connect', 'orders-tcp-rw', '--', 'sh', '-c', script]
  const { status, stdout, stderr } = await cli(words, { SALLYPORT_TOKEN: token })
  assert.is(status, 7, stderr)
  assert.match(stdout, /^jit_\d{7}\ntoken: \n$/)
  assert.not.match(stderr, /closed the connection/)
  await until(() => accountsOn(house.database), found => found === '')
})

test('a pure tunnel: bytes both ways, half-closed in order; the stored secret stays ours', async () => {
  const tunnel = await open('shout')
  assert.equal([tunnel.user, tunnel.password], ['shouter', null])
  assert.is(await exchange(tunnel.port, 'hello\n'), 'HELLO\nbye\n')
  const large = 'y'.repeat(3_000_000)
  assert.is(await exchange(tunnel.port, large), `${large.toUpperCase()}bye\n`)
  tunnel.child.kill('SIGTERM')
  assert.is(await tunnel.ended, 0)
  const { id, account } = await until(newest, ({ status }) => status === 'ended')
  assert.is(account, null)
  const text = await replayed(id)
  assert.match(text, /^> 1 {2}00000000 {2}68 65 6c 6c 6f 0a +hello\.\r?$/m)
  assert.match(text, /channel-close closed 3000000 3000004/)
  assert.not.match(text + tunnel.said(), storedPassword)
})

test('a password that a protocol sends in clear is not on the tape', async () => {
  const tunnel = await open('orders-tcp-rw')
  const password = tunnel.password ?? ''
  const answer = await exchange(tunnel.port, `\0\0\0\x10 ${password} ${password}`).catch(String)
  assert.ok(!answer.includes(password))
  tunnel.child.kill('SIGINT')
  await tunnel.ended
  const { id } = await until(newest, ({ status }) => status === 'ended')
  const found = (await house.sallyport('sessions', 'export', id, '--format', 'jsonl')).split('\n')
    .filter(line => line.includes('"type":"input"')).map(line => (JSON.parse(line) as { text: string }).text)
  assert.is(found.join(''), `\0\0\0\x10 ${'*'.repeat(24)} ${'*'.repeat(24)}`)
})

test('Redis as a TCP target: redis-cli logs in in clear, and the tape has asterisks there', async () => {
  const redis = await startRedis({ acl: [redisHooks] })
  const file = join(house.folder, 'redis.yaml')
  writeFileSync(file, redisAccess(redis.port))
  await house.sallyport('apply', '-f', file)
  const script = 'REDISCLI_AUTH=$SALLYPORT_PASSWORD redis-cli --no-auth-warning -p $SALLYPORT_PORT '
    + '--user $SALLYPORT_USER SET app:one "$SALLYPORT_USER"; echo "$SALLYPORT_PASSWORD"'
  const { stdout, stderr } = await cli(['connect', 'cache-rw', '--', 'sh', '-c', script])
  const [answer, password = ''] = stdout.trim().split('\n')
  secrets.push(password)
  assert.is(answer, 'OK', stderr)
  const { id, account } = await until(newest, ({ receipt, status }) => receipt !== null && status === 'ended')
  assert.is(redis.cli(['GET', 'app:one']), account?.name)
  assert.not.match(redis.cli(['ACL', 'USERS']), /jit_/)
  const text = await house.sallyport('sessions', 'export', id, '--format', 'jsonl')
  assert.match(text, /AUTH\\r\\n\$11\\r\\njit_\d{7}\\r\\n\$\d+\\r\\n\*{20,}\\r\\n/)
  await redis.stop()
})

test('a hundred connections at once: what is too much is refused, the session goes on', async () => {
  const tunnel = await open('shout')
  const sockets = Array.from({ length: 100 }, () => connect(tunnel.port, '127.0.0.1'))
  let heard = 0
  for (const socket of sockets) {
    socket.on('error', () => undefined).on('data', () => { heard++ })
    socket.write('hello\n')
  }
  await until(async () => heard, count => count === 64)
  await until(async () => tunnel.said(), said => said.split('[too-many-connections').length === 37)
  for (const socket of sockets) socket.end()
  await until(() => exchange(tunnel.port, 'again\n').catch(() => ''), answer => answer === 'AGAIN\nbye\n')
  tunnel.child.kill('SIGINT')
  assert.is(await tunnel.ended, 0, tunnel.said())
})

test('a target that is down ends the local connection with a code, and the session goes on', async () => {
  const tunnel = await open('gone')
  for (const _ of [1, 2]) assert.is(await exchange(tunnel.port, 'hello\n').catch(() => ''), '')
  const said = /sallyport: the target cannot be reached \[target-unreachable [0-9a-f]{6}\]/
  await until(async () => tunnel.said(), text => text.split(said).length === 3)
  tunnel.child.kill('SIGINT')
  assert.is(await tunnel.ended, 0)
})

test('kill and the end of the time cut it with a code that the person reads', async () => {
  const tunnel = await open('orders-tcp-rw')
  const sleeping = psql(tunnel, 'SELECT pg_sleep(60)')
  const { id } = await until(newest, ({ status }) => status === 'live')
  await house.sallyport('sessions', 'kill', id)
  assert.is(await tunnel.ended, 1)
  assert.match(tunnel.said(), /ended by an administrator \[session-killed [0-9a-f]{6}\]/)
  assert.is((await sleeping).status, 2)
  const brief = await open('orders-tcp-brief')
  assert.is(await brief.ended, 1)
  assert.match(brief.said(), /this session ends in 3 seconds/)
  assert.match(brief.said(), /reached its time limit \[session-expired [0-9a-f]{6}\]/)
  await until(() => accountsOn(house.database), found => found === '')
})

test('who may not, learns no more than that: no grant, another protocol, the local admin', async () => {
  const foreign = await cli(['connect', 'orders-tcp-admin'])
  assert.is(foreign.status, 1)
  assert.match(foreign.stderr, /access denied \[not-allowed [0-9a-f]{6}\]/)
  const unknown = await cli(['connect', 'no-such-credential'])
  assert.match(unknown.stderr, /access denied \[not-allowed [0-9a-f]{6}\]/)
  const admin = await ran(process.execPath, withConfig(['connect', 'shout']), house.environment)
  assert.is(admin.status, 1)
  assert.match(admin.stderr, /only people with a grant open targets/)
  assert.is((await cli(['connect', 'a b'])).status, 1)
  assert.is((await cli(['connect', 'shout', '--port', '70000'])).status, 2)
})

test('a ticket is good once; a wrong one, nonsense and silence are refused in words', async () => {
  const token = (JSON.parse(readFileSync(join(house.folder, 'of-alice/sallyport/logins.json'), 'utf8')) as
    { token: string }[])[0]!.token
  const api = createClient({ ...apiOf(house).connection, token, as: 'login' })
  const issue = (): Promise<TicketJson> => api.post('/connections', { body: { credential: 'shout' } })
  const { ticket } = await issue()
  const [first, second] = await Promise.all([stranger(`${ticket}\nnonsense\n`), stranger(`${ticket}\n`)])
  const won = [first, second].filter(said => said.includes('"ready"'))
  assert.is(won.length, 1, `${first} ${second}`)
  assert.match([first, second].join(''), /authentication failed \[auth-failed [0-9a-f]{6}\]/)
  assert.match(await stranger('ticket_of-nobody\n'), /auth-failed/)
  assert.match(await stranger('x'.repeat(1000)), /protocol violation \[protocol-violation/)
  assert.match(await stranger(''), /login took too long \[auth-timeout/)
  const audit = await house.sallyport('audit', 'list', '--kind', 'login.refused')
  assert.ok(audit.split('\n').filter(line => line.includes('tcp')).length >= 2, audit)
})

test('a person with a second factor is asked for the code', async () => {
  const app = authenticator((await house.sallyport('users', 'enrol', 'alice')).trim())
  await house.sallyport('users', 'confirm', 'alice', await app.next())
  const wrong = await cli(['connect', 'shout', '--', 'true'], { SALLYPORT_CODE: '000000' })
  assert.is(wrong.status, 1)
  assert.match(wrong.stderr, /authentication failed \[auth-failed/)
  const right = await cli(['connect', 'shout', '--', 'true'], { SALLYPORT_CODE: await app.next() })
  assert.is(right.status, 0, right.stderr)
  await house.sallyport('users', 'unenrol', 'alice')
})

test('no ticket, no one-time password is in a recording, a log or the audit (R14, R15)', async () => {
  assert.ok(secrets.length >= 4)
  const recordings = await ran('grep', ['-rlE', secrets.join('|'), `${house.folder}/recordings`])
  assert.equal([recordings.status, recordings.stdout], [1, ''])
  const audit = await house.sallyport('audit', 'list', '--limit', '1000')
  for (const text of [house.log(), readFileSync(house.database.logFile, 'utf8'), audit]) {
    for (const secret of [...secrets, storedPassword, 'ticket_']) assert.not.ok(text.includes(secret), secret)
  }
})

test('where others have to agree, the tunnel says so and opens when they have', async () => {
  const file = join(house.folder, 'asking.yaml')
  writeFileSync(file, `${people('bob', 'carol')}---
kind: grant
name: bob-asks
users: [bob]
credentials: [orders-tcp-rw]
approval: { by: [carol] }
`)
  await house.sallyport('apply', '-f', file)
  const own = { XDG_CONFIG_HOME: join(house.folder, 'of-bob') }
  assert.is((await cli(['login', 'bob'], { ...own, SALLYPORT_PASSWORD: alicePassword })).status, 0)
  const carol = await personOf(house, 'carol')
  const opening = open('orders-tcp-rw', own)
  const pending = async (): Promise<RequestJson | undefined> =>
    (await apiOf(house).get('/requests', { query: { state: 'pending' } })).requests[0]
  const request = await until(pending, found => found !== undefined, 10)
  await carol.decides('approve', request!.id)
  const opened = await opening
  assert.match(opened.said(), new RegExp(`request ${request!.id} needs one approval[^]*is approved`))
  assert.is((await psql(opened, 'SELECT 1')).stdout, '1\n')
  opened.child.kill('SIGINT')
  await opened.ended
})

test.run()
