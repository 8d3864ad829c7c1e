// deadline: 400 s
// Login names that no person has, typed into stock ssh: shell, SQL, paths, escape sequences, 64 KiB. None has
// an effect, each is refused with a code, and what was a login is in the audit (R13, R16). And a person who
// was disabled proves who they are in vain.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { ran } from '../peers/house.ts'
import { LoginClient, loginClient, passwordRequest } from '../peers/ssh-login.ts'
import { startSshHouse } from '../peers/ssh-house.ts'
import type { SshHouse } from '../peers/ssh-house.ts'
import { soon } from '../peers/ssh-world.ts'
import { programOf } from '../../tool/services.ts'

const daves = { DAVE_PASSWORD: 'dave has left' }
const house: SshHouse = await startSshHouse({
  environment: { ALICE_PASSWORD: 'correct horse battery', ...daves },
  limits: 'recordingsReserve: 1MiB, loginFailuresPerMinuteMax: 10000',
  access: `---
kind: user
name: dave
roles: [user]
disabled: true
password: { env: DAVE_PASSWORD }
---
kind: grant
name: dave-on-web01
users: [dave]
credentials: [deploy]
`
})
const canary = join(house.home, 'canary')

const names: readonly string[] = [
  `$(touch ${canary})`, `\`touch ${canary}\``, `alice; touch ${canary}`, `alice|touch ${canary}`,
  `alice&touch ${canary}`, `alice\ntouch ${canary}`, `alice' OR '1'='1`, `alice"; DROP TABLE users; --`,
  'alice\\', '../../etc/passwd', '/etc/passwd', 'alice/../root', '{{7*7}}', '${process.exit()}', '__proto__',
  'constructor', '--help', 'alice+--help', 'alice+deploy;id@web01', 'alice+deploy@web01;id',
  'alice+$(id)@web01', 'alice+deploy@127.0.0.1:22', 'alice+deploy@169.254.169.254', 'alice+root@localhost',
  '\x1b]0;owned\x07alice', '\u009b31malice', '\u202eecila', 'alice\r\nroot', ' alice', 'alice ', 'ALICE',
  'alic\u0435',
  'alice++deploy', 'alice@@web01', 'alice+deploy+deploy', '+deploy', '@web01', 'alice%00', 'é'.repeat(200),
  'x'.repeat(257), 'x'.repeat(30_000)
]

interface Entry {
  kind: string
  actor: string
  detail: Record<string, unknown>
}

async function refusals(): Promise<Entry[]> {
  const entries = await house.json<Entry[]>('audit', 'list', '--limit', '1000')
  return entries.filter(({ kind }) => kind === 'login.refused' || kind === 'session.refused')
}

test('names with a meaning to somebody else are refused, and on the books', async () => {
  for (const name of names) {
    const before = (await refusals()).length
    const words = [...house.options, '-p', String(house.sshPort), '-l', name, '127.0.0.1', 'id']
    const { status, stdout, stderr } = await ran(programOf('ssh'), words)
    assert.is(status, 255, `${name}: ${stdout}`)
    assert.is(stdout, '', name)
    assert.not.match(stderr, /uid=/, name)
    const after = (await refusals()).length
    assert.ok(after > before || !stderr.includes('authenticate'), `${name} is in the audit: ${stderr}`)
  }
  assert.not.ok(existsSync(canary))
})

test('64 KiB are more than a message: refused with a code in the log', async () => {
  const name = 'x'.repeat(65_536)
  const words = [...house.options, '-p', String(house.sshPort), '-l', name, '127.0.0.1', 'id']
  const { status, stdout, stderr } = await ran(programOf('ssh'), words)
  assert.is(status, 255)
  assert.is(stdout, '')
  const [, reference] = /\[protocol-violation ([0-9a-f]{6})\]/.exec(stderr) ?? []
  assert.ok(reference, stderr)
  await soon(() => house.log().includes(reference!), 'the reference in the log')
  assert.match(house.log(), /protocol-violation/)
})

test('what is logged of names has no power over a terminal (R20)', () => {
  assert.not.match(house.log(), /[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/)
})

test('a disabled person is refused behind the right password, and told no more than others', async () => {
  const wrong: LoginClient = await loginClient(house.sshPort)
  assert.is(await wrong.password('dave', 'x'), 51)
  wrong.leave()
  const right = await loginClient(house.sshPort)
  right.peer.send(passwordRequest('dave+deploy', 'dave has left'))
  const code = await right.refusal()
  assert.ok(code === 'not-allowed' || code === 'auth-failed', code)
  const entries = await refusals()
  assert.ok(entries.some(({ actor }) => actor === 'dave'))
})

test('alice still gets in', async () => {
  const { status, stdout, stderr } = await house.ssh(['id -un'])
  assert.is(stdout.trim(), 'deploy', stderr)
  assert.is(status, 0)
})

test.after(() => house.end())

test.run()
