// deadline: 300 s
// A person who names no target: the menu on a terminal, the list without one, and `ssh -J` to a target, each
// with stock ssh against a real sshd. A session that was reached so is like any other: recorded, and its host
// believed by the authority of the proxy.
import { spawn } from 'node:child_process'
import { appendFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SessionJson } from '../../src/api/client-types.ts'
import { programOf } from '../../tool/services.ts'
import { ran, until } from '../peers/house.ts'
import type { Ran } from '../peers/house.ts'
import { startSshHouse } from '../peers/ssh-house.ts'
import type { SshHouse } from '../peers/ssh-house.ts'

let house: SshHouse
let config: string

const access = `---
kind: credential
name: root-web
target: web01
username: root
privateKey: { env: WEB01_ADMIN_KEY }
---
kind: grant
name: root-for-alice
users: [alice]
credentials: [root-web]
---
kind: user
name: bob
roles: [user]
password: { env: ALICE_PASSWORD }
publicKeys: ["PUBLIC"]
---
kind: grant
name: bob-has-one
users: [bob]
credentials: [deploy]
---
kind: user
name: carol
roles: [user]
publicKeys: ["PUBLIC"]
`

test.before(async () => {
  house = await startSshHouse({ access })
  config = join(house.home, 'config')
  const known = join(house.home, 'known_hosts')
  appendFileSync(known, await house.sallyport('ssh-config', '--known-hosts'))
  const own = (await house.sallyport('ssh-config')).replace('YOUR-NAME', 'alice')
  writeFileSync(config, `${own.replace('Host sallyport', 'Host sallyport proxy')}
Host *
  UserKnownHostsFile ${known}
  IdentityFile ${join(house.home, 'id')}
  IdentitiesOnly yes
  BatchMode yes
  StrictHostKeyChecking yes
`)
})
test.after(async () => house.end())

const ssh = (words: readonly string[], input = ''): Promise<Ran> =>
  ran(programOf('ssh'), ['-F', config, ...words], {}, input)
const sessions = (): Promise<SessionJson[]> => house.json<SessionJson[]>('sessions', 'list')

/** A terminal with stock ssh in it; answers what was on it once `pattern` appeared. */
function terminal(words: readonly string[]): {
  type(text: string): void, sees(pattern: RegExp): Promise<string>, ended: Promise<number | null>
} {
  const script = 'import pty,sys;sys.exit(pty.spawn(sys.argv[1:])>>8)'
  const child = spawn(programOf('python3'), ['-c', script, programOf('ssh'), '-F', config, ...words], {
    stdio: 'pipe'
  })
  let text = ''
  child.stdout.on('data', chunk => { text += String(chunk) })
  return {
    type: typed => { child.stdin.write(typed) },
    sees: async pattern => {
      const seen = await until(async () => text, said => pattern.test(said))
      text = ''
      return seen
    },
    ended: new Promise(resolve => child.once('close', resolve))
  }
}

// Promised: D2.
test('ssh -J reaches a target by its name, as the account that is named, with its exit status', async () => {
  const { status, stdout, stderr } = await ssh(['root@web01', 'id -un; exit 3'])
  assert.equal([status, stdout, stderr], [3, 'root\n', ''])
  const many = await ssh(['deploy@web01', 'head -c 30000000 /dev/zero | md5sum'])
  assert.is(many.stdout, '9e6261867ca2438eb9804c93c542a722  -\n', many.stderr)
  const fed = await ssh(['deploy@web01', 'md5sum'], 'x'.repeat(3_000_000))
  assert.is(fed.stdout, '8e32e22642bddc89698e25a4e9bf528b  -\n', fed.stderr)
  const [newest] = await sessions()
  assert.is(newest?.credential, 'deploy')
})

test('what is no target, or not open to the person, is refused and never dialled', async () => {
  const unknown = await ssh(['-J', 'proxy', 'root@web99', 'id'])
  assert.is(unknown.status, 255)
  assert.match(unknown.stderr, /web99 is no target that is open to you/)
  const loopback = await ssh(['-W', `127.0.0.1:${house.sshPort}`, 'proxy'])
  assert.match(loopback.stderr, /administratively prohibited/)
  const stranger = await ssh(['nobody@web01', 'id'])
  assert.match(stranger.stderr, /access denied \[not-allowed [0-9a-f]{6}\]/)
  const audit = await house.sallyport('audit', 'list')
  assert.match(audit, /connection to web99:22/)
})

test('a command without a target gets the list of them and fails', async () => {
  const { status, stdout, stderr } = await ssh(['proxy', 'id'])
  assert.equal([status, stdout], [2, ''])
  assert.match(stderr, /alice\+deploy@web01\n {2}alice\+root-web@web01/)
})

test('a person with one target needs no menu; one with none is told so', async () => {
  const one = await ssh(['-l', 'bob', 'proxy', 'id -un'])
  assert.is(one.stdout, 'deploy\n', one.stderr)
  const none = await ssh(['-l', 'carol', 'proxy', 'id -un'])
  assert.is(none.status, 255)
  assert.match(none.stderr, /access denied \[not-allowed [0-9a-f]{6}\]/)
})

test('the menu narrows while a name is typed, helps, lists, and opens what was chosen', async () => {
  const alice = terminal(['proxy'])
  assert.match(await alice.sees(/root-web@web01/), /2 targets are open to alice/)
  alice.type('help\r')
  await alice.sees(/everything that is open/)
  alice.type('zzz\r')
  await alice.sees(/zzz: none or several/)
  alice.type('dep')
  assert.not.match((await alice.sees(/sallyport> dep\r\n[^\r]*\x1b/)).split('> dep').at(-1)!, /root-web/)
  alice.type('\r')
  await alice.sees(/\$ $/)
  alice.type('id -un; echo $((6*7))\r')
  await alice.sees(/deploy\r\n42\r\n/)
  alice.type('exit 5\r')
  assert.is(await alice.ended, 5)
  const ended = await until(sessions, ([newest]) => newest?.status === 'ended')
  const replay = await house.sallyport('sessions', 'replay', ended[0]!.id, '--speed', '0')
  assert.match(replay, /42/)
  assert.not.match(replay, /targets are open/, 'the menu is before the session')
})

test('the menu is left with ^C, ^D and quit, and no session was begun', async () => {
  const before = (await sessions()).length
  for (const key of ['\x03', '\x04', 'quit\r']) {
    const alice = terminal(['proxy'])
    await alice.sees(/root-web@web01/)
    alice.type(key)
    assert.is(await alice.ended, 0)
  }
  assert.is((await sessions()).length, before)
})

test.run()
