// deadline: 240 s
// A TCP target with stock ssh: `ssh -L` to a real PostgreSQL that is reached as plain TCP, with an account
// that exists only while ssh is connected and whose one-time password its person is told once; what does not
// belong to the target is refused, in words and on record (J3, J10, J13, J14, D3, D4).
import { readFileSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SessionJson } from '../../src/api/client-types.ts'
import { accountsOn, ran, startProduct, until } from '../peers/house.ts'
import { apiOf, sessionsOf } from '../peers/inspector.ts'
import { exchange, psqlAt, startTcpHouse, storedPassword, toldLogin } from '../peers/tcp-house.ts'
import type { TcpHouse } from '../peers/tcp-house.ts'

let house: TcpHouse
const secrets: string[] = []
/** What earlier starts logged. */
const logs: string[] = []

test.before(async () => { house = await startTcpHouse() })
test.after(async () => house.end())

const newest = async (): Promise<SessionJson> => (await sessionsOf(apiOf(house)))[0]!
const ended = (): Promise<SessionJson> => until(newest, ({ status }) => status === 'ended')
const replayed = (id: string): Promise<string> => house.sallyport('sessions', 'replay', id, '--speed', '0')

test('ssh -L and psql work with an account that lives as long as the ssh connection', async () => {
  const tunnel = await house.forward('alice+orders-tcp-rw', 'orders-tcp:5432')
  const { user, password } = toldLogin(tunnel.text())
  secrets.push(password)
  assert.match(user, /^jit_\d{7}$/)
  assert.is(tunnel.text().split(password).length, 2, 'it is told once')
  const lines = await Promise.all([1, 2].map(n =>
    psqlAt(tunnel.port, user, password, `SELECT current_user, count(*) + ${n} FROM orders`)))
  assert.equal(lines.map(({ stdout }) => stdout), [`${user}|101\n`, `${user}|102\n`], lines[0]!.stderr)
  assert.is(await accountsOn(house.database), user)
  const told = await house.sallyport('audit', 'list', '--kind', 'secret.handed-over')
  assert.match(told, new RegExp(`alice.*${user}`))
  const byAddress = await psqlAt(tunnel.port, user, 'wrong', 'SELECT 1')
  assert.match(byAddress.stderr, /password authentication failed/)
  await tunnel.stop()
  const { account, protocol, target } = await ended()
  assert.equal([account?.name, protocol, target], [user, 'tcp', 'orders-tcp'])
  const gone = await until(newest, ({ receipt }) => receipt?.state === 'proved-gone')
  assert.is(await accountsOn(house.database), '')
  assert.match((await house.sallyport('sessions', 'receipt', gone.id)), /proved-gone/)
})

test('the recording has the bytes of both directions, and can be read, searched and verified', async () => {
  const { id } = await newest()
  assert.match(await house.sallyport('sessions', 'verify', id), /sealed/)
  const text = await replayed(id)
  assert.match(text, /channel-open orders-tcp 127\.0\.0\.1:\d+/)
  assert.match(text, /^> [12] {2}00000000 {2}00 00 00 /m, 'the startup packet')
  assert.match(text, /^< [12] {2}00000000 {2}52 00 00 00 /m, 'its answer')
  const columns = text.split('\r\n').filter(line => line.startsWith('> ')).map(line => line.slice(-16))
  assert.match(columns.join(''), /Q\.\.\..SELECT current_user, count\(\*\) \+ [12]/)
  assert.match(text, /channel-close closed \d+ \d+/)
  assert.not.match(text, /[^\x20-\x7e\r\n…]/, 'nothing of the bytes reaches the terminal as it is')
  assert.match(await house.sallyport('sessions', 'export', id), /"o","[<>] 1 {2}0000/)
  const found = await house.json<{ text: string, kind: string }[]>('sessions', 'search', 'count(*) + 2')
  assert.equal(found.map(({ kind }) => kind), ['input'])
  const [, first] = (await house.sallyport('sessions', 'export', id, '--format', 'jsonl')).split('\n')
    .filter(line => line !== '').map(line => JSON.parse(line) as Record<string, unknown>)
    .filter(({ type }) => type === 'input' || type === 'output')
  assert.ok(['input', 'output'].includes(String(first!['type'])))
  assert.ok(Buffer.from(String(first!['bytes']), 'base64').length > 0)
})

test('ssh without -N: no shell, in words and in the audit; connections pass until it is left', async () => {
  const tunnel = await house.forward('alice+orders-tcp-rw', 'orders-tcp:5432', [])
  const { user, password } = toldLogin(tunnel.text())
  secrets.push(password)
  await until(async () => tunnel.text(), text => text.includes('connections to orders-tcp pass'))
  assert.match(tunnel.text(), /is a TCP target, without a shell: access denied \[not-allowed [0-9a-f]{6}\]/)
  assert.is((await psqlAt(tunnel.port, user, password, 'SELECT 42')).stdout, '42\n')
  tunnel.child.stdin!.end()
  assert.is(await tunnel.ended, 0)
  const { id } = await ended()
  assert.match(await replayed(id), /channel-refused shell/)
  const audit = await house.sallyport('audit', 'list', '--kind', 'channel.refused', '--subject', id)
  assert.match(audit, /shell/)
})

// Promised: R17.
test('commands, other destinations and remote forwards are refused, and each is in the audit', async () => {
  const ran = await house.ssh('alice+shout', [], ['id -un'])
  assert.is(ran.status, 1)
  assert.match(ran.stderr, /without a shell: access denied \[not-allowed [0-9a-f]{6}\]/)
  const other = await house.forward('alice+shout', `127.0.0.1:${house.database.port}`)
  await exchange(other.port, 'hello\n').catch(() => '')
  await until(async () => other.text(), text =>
    /open failed: administratively prohibited: this login reaches shouter only: access denied/.test(text))
  const { id } = await newest()
  await other.stop()
  const back = await house.ssh('alice+shout', ['-N', '-R', '0:127.0.0.1:1'])
  assert.is(back.status, 255)
  const audit = await house.sallyport('audit', 'list', '--kind', 'channel.refused')
  for (const what of ['exec', `connection to 127.0.0.1:${house.database.port}`, 'tcpip-forward']) {
    assert.ok(audit.includes(what), `${what}: ${audit}`)
  }
  assert.match(await replayed(id), /channel-refused connection to/)
})

test('a stored secret is told to nobody; half-closed connections end in order', async () => {
  const tunnel = await house.forward('alice+shout', 'shouter:1')
  assert.match(tunnel.text(), /log in to shouter as shouter, with its own password/)
  assert.is(await exchange(tunnel.port, 'hello\n'), 'HELLO\nbye\n')
  const large = 'x'.repeat(3_000_000)
  assert.is(await exchange(tunnel.port, large), `${large.toUpperCase()}bye\n`)
  const text = tunnel.text()
  await tunnel.stop()
  const { id, account } = await ended()
  assert.is(account, null)
  assert.not.match(text + await replayed(id), storedPassword)
  assert.match(await replayed(id), /channel-close closed 3000000 3000004/)
})

test('a target that is down: the client reads a code, and the session goes on', async () => {
  const tunnel = await house.forward('alice+gone', 'nowhere:1')
  for (const _ of [1, 2]) await exchange(tunnel.port, 'hello\n').catch(() => '')
  const said = /open failed: connect failed: the target cannot be reached \[target-unreachable [0-9a-f]{6}\]/
  await until(async () => tunnel.text(), text => text.split(said).length === 3)
  await tunnel.stop()
  assert.match(await replayed((await ended()).id), /channel-close target-unreachable [0-9a-f]{6}/)
})

test('an admin’s kill and the end of the time cut it with a code, and the account is gone', async () => {
  const tunnel = await house.forward('alice+orders-tcp-rw', 'orders-tcp:5432')
  const { user, password } = toldLogin(tunnel.text())
  secrets.push(password)
  const sleeping = psqlAt(tunnel.port, user, password, 'SELECT pg_sleep(60)')
  const { id } = await until(newest, ({ status }) => status === 'live')
  await house.sallyport('sessions', 'kill', id)
  assert.is(await tunnel.ended, 255)
  assert.match(tunnel.text(), /ended by an administrator \[session-killed [0-9a-f]{6}\]/)
  assert.is((await sleeping).status, 2)
  const brief = await house.forward('alice+orders-tcp-brief', 'orders-tcp:5432')
  secrets.push(toldLogin(brief.text()).password)
  assert.is(await brief.ended, 255)
  assert.match(brief.text(), /reached its time limit \[session-expired [0-9a-f]{6}\]/)
  await until(() => accountsOn(house.database), found => found === '')
})

test('a bare login’s menu says how a TCP target is reached; explain and ssh-config know it', async () => {
  const { status, stderr } = await house.ssh('alice', [], ['true'])
  assert.is(status, 2)
  const line = `-N -L ${house.database.port}:orders-tcp:${house.database.port} alice+orders-tcp-rw@orders-tcp`
  assert.ok(stderr.includes(line), stderr)
  const chosen = await house.ssh('alice', ['-tt'], [], 'orders-tcp-rw\rquit\r')
  assert.ok(chosen.stdout.includes(`from your own machine: ssh ${line}@…`), chosen.stdout)
  assert.match(await house.sallyport('explain', 'alice+orders-tcp-rw'), /tcp/)
  const config = await house.sallyport('ssh-config')
  assert.not.match(config, /orders-tcp|shouter/)
  const bare = await house.ssh('alice', ['-W', 'shouter:1'])
  assert.match(bare.stderr, /shouter is a TCP target: log in as alice\+shout/)
  const foreign = await house.ssh('bob+orders-tcp-rw', ['-N'])
  assert.match(foreign.stderr, /access denied \[not-allowed [0-9a-f]{6}\]/)
})

test('after kill -9 of the proxy the next start removes the account and seals the recording', async () => {
  const tunnel = await house.forward('alice+orders-tcp-rw', 'orders-tcp:5432')
  const { user, password } = toldLogin(tunnel.text())
  secrets.push(password)
  assert.is((await psqlAt(tunnel.port, user, password, 'SELECT 4711')).stdout, '4711\n')
  assert.is(await accountsOn(house.database), user)
  logs.push(house.log())
  await house.kill()
  assert.is(await tunnel.ended, 255)
  const { folder, environment } = house
  Object.assign(house, await startProduct({ listen: '', access: '', folder, environment }))
  await until(() => accountsOn(house.database), found => found === '', 60)
  const { id, status } = await until(newest, ({ receipt }) => receipt?.state === 'proved-gone')
  assert.is(status, 'interrupted')
  assert.match(await house.sallyport('sessions', 'verify', id), /sealed/)
  assert.match(await replayed(id), /4711/)
})

// Promised: R14, R15.
test('no one-time password is in a recording, our log, the target’s log or the audit', async () => {
  assert.ok(secrets.length >= 4)
  const recordings = await ran('grep', ['-rlE', secrets.join('|'), `${house.folder}/recordings`])
  assert.equal([recordings.status, recordings.stdout], [1, ''])
  const audit = await house.sallyport('audit', 'list', '--limit', '1000')
  for (const text of [...logs, house.log(), readFileSync(house.database.logFile, 'utf8'), audit]) {
    for (const secret of [...secrets, storedPassword]) assert.not.ok(text.includes(secret))
  }
})

test.run()
