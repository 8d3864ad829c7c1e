// deadline: 300 s
// How SSH sessions end (J13, D4, J10): by their time limit, by an admin, by either end's death, by a stop of
// the proxy; and how one does not even begin. Each time the person reads one line with a code, in stock ssh,
// and the books are closed.
import { readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { freePort } from '../../tool/postgres.ts'
import { generateSshKey } from '../../src/wire/ssh/key.ts'
import { until } from '../peers/house.ts'
import { audited } from '../peers/ssh-mirror.ts'
import { startSshHouse } from '../peers/ssh-house.ts'
import type { SshHouse } from '../peers/ssh-house.ts'

let house: SshHouse

interface Session {
  id: string
  status: string
  reason: string | null
  credential: string
  recording: { sealed: boolean } | null
}

const newest = async (): Promise<Session> => (await house.json<Session[]>('sessions', 'list'))[0]!
const ended = (): Promise<Session> => until(newest, found => found.status === 'ended')

function target(name: string, port: number | string, more = ''): string {
  return `---
kind: target
name: ${name}
protocol: ssh
address: 127.0.0.1:${port}
${more}
---
kind: credential
name: ${name}-deploy
target: ${name}
username: deploy
privateKey: { env: DEPLOY_KEY }
---
kind: grant
name: alice-${name}
users: [alice]
credentials: [${name}-deploy]
`
}

/** An ssh that runs until somebody ends it. */
function running(words: readonly string[], login?: string) {
  const child = house.spawnSsh(words, login)
  let text = ''
  child.stdout?.on('data', chunk => { text += String(chunk) })
  child.stderr?.on('data', chunk => { text += String(chunk) })
  const end = new Promise<number | null>(resolve => child.once('close', resolve))
  const sees = (what: RegExp): Promise<string> => until(async () => text, now => what.test(now))
  return { child, end, text: () => text, sees }
}

const boxLog = (): string => readFileSync(house.box.logFile, 'utf8')
const accepted = (): number => boxLog().match(/Accepted publickey/g)?.length ?? 0
const processes = (): Promise<string> => house.box.run("pgrep -fc '[s]shd: deploy' || true")

test.before(async () => {
  const nobody = await freePort()
  const port = await freePort()
  const foreign = generateSshKey().publicKey
  house = await startSshHouse({
    box: { port },
    access: `---
kind: credential
name: short
target: web01
username: deploy
privateKey: { env: DEPLOY_KEY }
---
kind: grant
name: alice-short
users: [alice]
credentials: [short]
maxSession: 6s
${target('down', nobody, `hostKeys: ["${foreign}"]`)}${target('forged', port, `hostKeys: ["${foreign}"]`)}
${target('learnt', port)}`
  })
})
test.after(() => house.end())

test('a session that reaches its time is warned on standard error, then cut with a code', async () => {
  const begun = performance.now()
  const { status, stdout, stderr } = await house.ssh(['echo in; sleep 60'], { login: 'alice+short' })
  const seconds = (performance.now() - begun) / 1000
  assert.is(status, 255)
  assert.is(stdout, 'in\n')
  const [warning, cut, last, ...more] = stderr.trimEnd().split(/\r?\n/)
  assert.is(warning, 'sallyport: this session ends in 3 seconds')
  assert.match(cut ?? '', /:11: the session reached its time limit \[session-expired [0-9a-f]{6}\]$/)
  assert.match(last ?? '', /^Disconnected from /)
  assert.equal(more, [])
  assert.ok(seconds > 5.5 && seconds < 15, `${seconds} s`)
  assert.match((await ended()).reason ?? '', /^session-expired/)
})

test('a warning does not disturb what a session carries', async () => {
  const { status, stdout } = await house.ssh(['cat; sleep 4; echo; seq 100000 | md5sum; exit 3'],
    { login: 'alice+short', input: 'x'.repeat(3_000_000) })
  assert.is(status, 3)
  assert.is(stdout.length, 3_000_000 + 1 + 36)
})

test('an admin ends a session at once, and its person reads why', async () => {
  const ssh = running(['echo in; sleep 60'])
  await ssh.sees(/in\n/)
  const { id } = await newest()
  await house.sallyport('sessions', 'kill', id)
  assert.is(await ssh.end, 255)
  assert.match(ssh.text(), /:11: the session was ended by an administrator \[session-killed [0-9a-f]{6}\]/)
  assert.match((await ended()).reason ?? '', /^session-killed/)
  await until(processes, count => count === '0')
})

test('the target’s sshd dies under a session (F25)', async () => {
  const ssh = running(['echo in; sleep 60'])
  await ssh.sees(/in\n/)
  await house.box.run("pkill -9 -f '[s]shd: deploy'")
  assert.is(await ssh.end, 255)
  assert.match(ssh.text(), /:11: the target closed the connection \[target-closed [0-9a-f]{6}\]/)
  assert.match((await ended()).reason ?? '', /^target-closed/)
})

test('a client that is killed leaves no session, and none at the target', async () => {
  const ssh = running(['echo in; sleep 61'])
  await ssh.sees(/in\n/)
  ssh.child.kill('SIGKILL')
  await ssh.end
  const session = await ended()
  assert.match(session.reason ?? '', /^client-closed/)
  assert.is(session.recording?.sealed, true)
  await until(processes, count => count === '0')
})

test('a target that is down', async () => {
  const { status, stderr } = await house.ssh(['true'], { login: 'alice+down-deploy' })
  assert.is(status, 255)
  assert.match(stderr, /:11: the target cannot be reached \[target-unreachable [0-9a-f]{6}\]/)
  assert.match((await ended()).reason ?? '', /^target-unreachable/)
})

test('a target with another host key is told nothing (R21)', async () => {
  const before = accepted()
  const logBytes = boxLog().length
  const { status, stderr } = await house.ssh(['true'], { login: 'alice+forged-deploy' })
  assert.is(status, 255)
  assert.match(stderr, /:11: the target could not be verified \[target-untrusted [0-9a-f]{6}\]/)
  assert.not.match(stderr, /deploy@|ssh-ed25519|SHA256/)
  await pause(300)
  const said = boxLog().slice(logBytes)
  assert.is(accepted(), before)
  assert.not.match(said, /deploy|publickey|password/i, said)
})

test('people who may not, and people who are nobody, read the same as ever', async () => {
  const foreign = await house.ssh(['true'], { login: 'alice+web01-admin' })
  assert.match(foreign.stderr, /access denied \[not-allowed [0-9a-f]{6}\]/)
  const nobody = await house.ssh(['true'], { login: 'mallory+deploy' })
  assert.match(nobody.stderr, /Permission denied \(publickey,password,keyboard-interactive\)/)
})

test('the host key of a target that pins none is learnt once; a changed one is refused', async () => {
  assert.is((await house.ssh(['echo in'], { login: 'alice+learnt-deploy' })).stdout, 'in\n')
  const learnt = await audited<{ subject: string }>(house, 'host-key.learnt')
  assert.equal(learnt.map(each => each.subject), ['learnt'])
  assert.is((await house.ssh(['echo in'], { login: 'alice+learnt-deploy' })).stdout, 'in\n')
  await house.box.run(`cp -a /etc/ssh/ssh_host_ed25519_key /root/kept; rm /etc/ssh/ssh_host_ed25519_key*
    ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; pkill -HUP -o -x sshd; sleep 1`)
  const before = accepted()
  const { status, stderr } = await house.ssh(['true'], { login: 'alice+learnt-deploy' })
  assert.is(status, 255)
  assert.match(stderr, /\[target-untrusted [0-9a-f]{6}\]/)
  assert.is(accepted(), before)
  await house.box.run('cp -a /root/kept /etc/ssh/ssh_host_ed25519_key; pkill -HUP -o -x sshd; sleep 1')
  assert.is((await house.ssh(['echo in'], { login: 'alice+learnt-deploy' })).stdout, 'in\n')
})

// Promised: F27.
test('a stop lets sessions end by themselves for a while, then cuts the rest, and exits 0', async () => {
  const [brief, long] = [running(['echo in; sleep 0.3; exit 3']), running(['echo in; sleep 60'])]
  await Promise.all([brief.sees(/in\n/), long.sees(/in\n/)])
  const status = house.stop()
  assert.is(await brief.end, 3)
  assert.is(await long.end, 255)
  assert.match(long.text(), /:11: the proxy is shutting down \[shutting-down [0-9a-f]{6}\]/)
  assert.is(await status, 0)
  await until(processes, count => count === '0')
})

test.run()
