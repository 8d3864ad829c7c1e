// deadline: 400 s
// The main job on Linux: stock ssh through the whole product, with an account that exists only while it is
// connected, recorded, and proved gone at the end, whatever dies in between (J3–J6, J10, J13, D4, F5, F9).
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SessionJson } from '../../src/api/client-types.ts'
import { startProduct, until } from '../peers/house.ts'
import { apiOf } from '../peers/inspector.ts'
import { startSshHouse } from '../peers/ssh-house.ts'
import type { SshHouse } from '../peers/ssh-house.ts'

let house: SshHouse

const access = `---
kind: credential
name: shell
target: web01
jit:
  enabled: true
  type: creation-deletion
  useOwnCredential: false
  authenticationCredential: web01-admin
  create: { plugin: linux, template: linux/create-user }
  delete: { plugin: linux, template: linux/delete-user }
  variables: { roles: [ops] }
  maxSession: 8h
---
kind: credential
name: brief
target: web01
jit:
  enabled: true
  type: creation-deletion
  useOwnCredential: false
  authenticationCredential: web01-admin
  create: { plugin: linux, template: linux/create-user }
  delete: { plugin: linux, template: linux/delete-user }
  maxSession: 8s
---
kind: credential
name: standby
target: web01
username: standby
jit:
  enabled: true
  type: enable-disable
  useOwnCredential: false
  authenticationCredential: web01-admin
  enable: { plugin: linux, template: linux/enable-user }
  disable: { plugin: linux, template: linux/disable-user }
  maxSession: 8h
---
kind: grant
name: jit-for-alice
users: [alice]
credentials: [shell, brief, standby]
`

test.before(async () => {
  house = await startSshHouse({
    access,
    box: { prepare: 'groupadd ops; useradd -m -s /bin/bash standby; usermod -p "*" -e 1 standby' }
  })
})
test.after(async () => house.end())

const sessions = (): Promise<SessionJson[]> => house.json<SessionJson[]>('sessions', 'list')
const newest = async (): Promise<SessionJson> => (await sessions())[0]!
const accounts = (): Promise<string> => house.box.run("getent passwd | cut -d: -f1 | grep '^jit_' || true")
const closed = (): Promise<SessionJson> => until(newest, ({ status, receipt }) =>
  (status === 'ended' || status === 'interrupted') && receipt?.state === 'proved-gone')

test('ssh works with an account that exists only while it is connected', async () => {
  const { status, stdout, stderr } = await house.ssh(['id -un; id -Gn; exit 4'], { login: 'alice+shell' })
  assert.is(status, 4, stderr)
  assert.match(stdout, /^(jit_\d{7})\n\1 sallyport_jit ops\n$/)
  const [name] = stdout.split('\n')
  const session = await closed()
  assert.is(session.account?.name, name)
  assert.is(await accounts(), '')
  assert.match(await house.sallyport('sessions', 'verify', session.id), /sealed/)
  const replay = await house.sallyport('sessions', 'replay', session.id, '--speed', '0')
  assert.match(replay, /sallyport_jit ops/)
  assert.match(replay, /exec id -un/)
  await house.sallyport('sessions', 'receipt', session.id)
})

test('two people’s sessions have an account each; what one left running dies with it (J5)', async () => {
  const [one, other] = [house.spawnSsh(['cat'], 'alice+shell'), house.spawnSsh(['cat'], 'alice+shell')]
  await until(accounts, text => text.split('\n').filter(name => name !== '').length === 2)
  one.stdin!.end()
  await until(accounts, text => text.split('\n').filter(name => name !== '').length === 1, 60)
  other.stdin!.end()
  await until(accounts, text => text === '', 60)
  await closed()
  const { stdout } = await house.ssh(
    ['nohup setsid sleep 987 >/dev/null 2>&1 & touch /var/tmp/left; echo "* * * * * true" | crontab -; '
      + 'echo ok'],
    { login: 'alice+shell' })
  assert.is(stdout, 'ok\n')
  const { id } = await closed()
  assert.is(await house.box.run('pgrep -f "[s]leep 987" || true'), '')
  const receipt = await apiOf(house).get('/sessions/{id}/receipt', { params: { id } })
  assert.match(JSON.stringify(receipt.body), /\/var\/tmp\/left/)
})

test('a standing account is on exactly while a session uses it (J4)', async () => {
  const usable = (): Promise<string> =>
    house.box.run("chage -l standby | sed -n 's/^Account expires[^:]*: //p'")
  assert.is.not(await usable(), 'never')
  const [one, other] = [house.spawnSsh(['cat'], 'alice+standby'), house.spawnSsh(['cat'], 'alice+standby')]
  await until(sessions, list => list.filter(({ status }) => status === 'live').length === 2)
  const { stdout, stderr } = await house.ssh(['id -un'], { login: 'alice+standby' })
  assert.is(stdout, 'standby\n', stderr)
  one.stdin!.end()
  await until(sessions, list => list.filter(({ status }) => status === 'live').length === 1)
  assert.is((await house.ssh(['id -un'], { login: 'alice+standby' })).stdout, 'standby\n')
  other.stdin!.end()
  await until(sessions, list =>
    list.every(({ account }) => account === null || account.state === 'proved-gone'), 60)
})

test('a session whose time is up is warned, cut with a code, and its account is gone', async () => {
  const { status, stderr } = await house.ssh(['sleep 60'], { login: 'alice+brief' })
  assert.is(status, 255)
  assert.match(stderr, /sallyport: this session ends in 4 seconds/)
  assert.match(stderr, /the session reached its time limit \[session-expired [0-9a-f]{6}\]/)
  assert.match((await closed()).reason ?? '', /^session-expired/)
  assert.is(await accounts(), '')
})

test('an admin’s kill ends all channels with one clear line', async () => {
  const child = house.spawnSsh(['sleep 60'], 'alice+shell')
  let said = ''
  child.stderr!.on('data', chunk => { said += String(chunk) })
  const ended = new Promise(resolve => child.once('close', resolve))
  const { id } = await until(newest, ({ status }) => status === 'live')
  await house.sallyport('sessions', 'kill', id)
  await ended
  assert.match(said, /ended by an administrator \[session-killed [0-9a-f]{6}\]/)
  await closed()
  assert.is(await accounts(), '')
})

test('after kill -9 of the proxy the next start removes the account and seals the recording', async () => {
  const child = house.spawnSsh(['echo before; sleep 60'], 'alice+shell')
  const said = new Promise(resolve => child.stdout!.once('data', resolve))
  const ended = new Promise(resolve => child.once('close', resolve))
  await said
  const { id } = await newest()
  await house.kill()
  await ended
  assert.match(await accounts(), /^jit_/)
  const again = await startProduct({
    listen: '', access: '', folder: house.folder, environment: house.environment
  })
  Object.assign(house, again)
  await until(accounts, text => text === '', 60)
  const session = await closed()
  assert.equal([session.id, session.status], [id, 'interrupted'])
  assert.match(await house.sallyport('sessions', 'replay', id, '--speed', '0'), /before/)
})

test('a hook that fails: no connection, a coded line, nothing left', async () => {
  const file = join(house.folder, 'broken.yaml')
  writeFileSync(file, access.split('---\n')[1]!.replace('[ops]', '[nosuchgroup]'))
  await house.sallyport('apply', '-f', file)
  const { status, stdout, stderr } = await house.ssh(['echo inside'], { login: 'alice+shell' })
  assert.equal([status, stdout], [255, ''])
  assert.match(stderr, /could not be prepared on the target \[hook-failed [0-9a-f]{6}\]/)
  await until(accounts, text => text === '')
})

test('neither our log, the target’s log nor a process list holds a secret (R14)', async () => {
  const key = house.environment['WEB01_ADMIN_KEY'] ?? ''
  const line = key.split('\n')[3] ?? ''
  assert.ok(line.length > 40)
  for (const text of [house.log(), await house.box.run('ps axww'), await house.box.run('cat /etc/passwd')]) {
    assert.not.match(text, line)
  }
})

test.run()
