// Rules about commands and files as their people meet them (D5): stock ssh, sftp and scp, a real sshd, the
// product in a process of its own. What is refused did not happen on the target.
// deadline: 120 s
import { spawn } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SessionJson } from '../../src/api/client-types.ts'
import { programOf } from '../../tool/services.ts'
import { ran, until } from '../peers/house.ts'
import type { Ran } from '../peers/house.ts'
import { apiOf, sessionsOf } from '../peers/inspector.ts'
import { people, personOf } from '../peers/people.ts'
import { startSshHouse } from '../peers/ssh-house.ts'
import type { SshHouse } from '../peers/ssh-house.ts'

let house: SshHouse

const rules = `rules:
  - { on: command, pattern: '^touch \\S*refused', then: refuse }
  - { on: command, pattern: '^cat >', then: approve, approval: { by: [carol], waitFor: 20s } }
  - { on: command, pattern: '\\bsecret\\b', then: warn }
  - { on: command, pattern: '\\bshutdown\\b', then: end }
  - { on: file, direction: download, path: /etc/motd, then: allow }
  - { on: file, path: '/etc/**', then: refuse }
  - { on: file, path: '/home/deploy/secret/**', then: refuse }
  - { on: file, direction: upload, path: '*.sh', then: warn }
`

test.before(async () => {
  house = await startSshHouse({ grant: rules, access: people('carol') })
})
test.after(() => house.end())

const newest = async (): Promise<SessionJson> => (await sessionsOf(apiOf(house)))[0]!
const audited = async (kind: string): Promise<string[]> => {
  const { events } = await apiOf(house).get('/audit', { query: { kind } })
  return events.map(({ detail }) => (detail as { rule: number, on: string }))
    .map(({ rule, on }) => `${on} ${rule}`).reverse()
}
/** What is in the home of the account on the target. */
const files = async (): Promise<string[]> => (await house.direct(['ls'])).stdout.trim().split('\n')

/** A transfer of stock scp or sftp; `words` and `batch` say the remote side as `R`. */
function transfer(program: 'scp' | 'sftp', words: readonly string[], batch = ''): Promise<Ran> {
  const remote = words.map(word => word.replace(/^R/, 'alice+deploy@127.0.0.1'))
  const batched = program === 'sftp' ? ['-b', '-'] : []
  const options = [...house.options, '-P', String(house.sshPort), ...batched]
  return ran(programOf(program), [...options, ...remote], {}, batch)
}

test('a command is refused before it runs, warned of, or ends the session', async () => {
  const refused = await house.ssh(['touch', 'refused'])
  assert.is(refused.status, 126)
  assert.match(refused.stderr, /^sallyport: a rule of this access does not allow it \[rule-refused \w+\]/)
  const fine = await house.ssh(['touch', 'fine'])
  assert.equal([fine.status, fine.stderr], [0, ''])
  const warned = await house.ssh(['echo', 'secret'])
  assert.is(warned.stdout, 'secret\n')
  assert.match(warned.stderr, /sallyport: a rule of this access is watching: command is on record/)
  const ended = await house.ssh(['touch', 'fine2;', 'shutdown'])
  assert.match(ended.stderr, /a rule of this access ended the session \[rule-ended/)
  assert.equal(await files(), ['fine'])
  await until(newest, ({ reason }) => reason?.startsWith('rule-ended') === true, 5)
  assert.equal(await audited('rule.refused'), ['command 1'])
  assert.equal(await audited('rule.ended'), ['command 4'])
  const { hits } = await apiOf(house).get('/search', { query: { query: 'verdict ended command' } })
  assert.is(hits.length, 1)
})

test('others are asked for a command, and what it is fed with waits behind it', async () => {
  const carol = await personOf(house, 'carol')
  const child = house.spawnSsh(['cat', '>', 'asked'])
  child.stdin!.end('x'.repeat(100_000))
  const closed = new Promise<number | null>(resolve => child.once('close', resolve))
  const { requests } = await until(
    () => apiOf(house).get('/requests', { query: { state: 'pending' } }),
    found => found.requests.length > 0)
  assert.is(requests[0]!.reason, 'cat > asked')
  await carol.decides('approve', requests[0]!.id)
  assert.is(await closed, 0)
  assert.is((await house.direct(['wc -c < asked'])).stdout, '100000\n')
})

/** What became of the request for this command. */
const stateOf = async (command: string): Promise<string | undefined> =>
  (await apiOf(house).get('/requests')).requests
    .find(({ reason }) => reason === command)?.state

test('who closes the channel or presses Ctrl-C is waited for no more, and other channels go on', async () => {
  const socket = join(house.home, 'shared')
  const words = [...house.options, '-S', socket, '-p', String(house.sshPort), 'alice+deploy@127.0.0.1']
  const master = spawn(programOf('ssh'), ['-M', '-N', ...words], { stdio: 'ignore' })
  try {
    await until(async () => existsSync(socket), is => is, 10)
    const sharing = spawn(programOf('ssh'), [...words, 'cat > left'], { stdio: 'pipe' })
    await until(() => stateOf('cat > left'), state => state === 'pending', 10)
    sharing.kill('SIGINT')
    await until(() => stateOf('cat > left'), state => state === 'withdrawn', 3)
    assert.is((await ran(programOf('ssh'), [...words, 'echo', 'on'], {}, '')).stdout, 'on\n')
  } finally {
    master.kill()
  }
  const alone = house.spawnSsh(['cat', '>', 'alone'])
  await until(() => stateOf('cat > alone'), state => state === 'pending', 10)
  alone.kill('SIGINT')
  await until(() => stateOf('cat > alone'), state => state === 'withdrawn', 3)
  assert.equal(await files(), ['asked', 'fine'])
})

test('a line at a terminal ends the session before it is run', async () => {
  const child = house.spawnSsh(['-tt'])
  let text = ''
  child.stdout!.on('data', chunk => { text += String(chunk) })
  child.stderr!.on('data', chunk => { text += String(chunk) })
  const closed = new Promise(resolve => child.once('close', resolve))
  child.stdin!.write('touch also-fine; echo one$((1))\n')
  await until(async () => text, said => said.includes('one1'))
  child.stdin!.write('touck\x7fh refused\n')
  await closed
  assert.match(text, /a rule of this access ended the session \[rule-ended/)
  assert.equal(await files(), ['also-fine', 'asked', 'fine'])
  const typed = await house.ssh(['-T'], { input: 'echo one$((1))\nshutdown\n' })
  assert.match(typed.stderr, /rule-ended/)
})

test('files are judged by their paths, whatever the client calls them', async () => {
  const local = join(house.home, 'up.sh')
  writeFileSync(local, '#!/bin/sh\n')
  const sftp = await transfer('sftp', ['R'], [
    `-get /etc/passwd ${join(house.home, 'got')}`, `-get /etc/motd ${join(house.home, 'motd')}`,
    `-get ../../etc/../etc/passwd ${join(house.home, 'got')}`, `-put ${local} up.sh`,
    '-rename up.sh /etc/up.sh',
    '-ls /etc/ssh', ''
  ].join('\n'))
  assert.is([...sftp.stderr.matchAll(/[Pp]ermission denied/g)].length, 4, sftp.stderr)
  assert.match(sftp.stderr, /watching: file is on record/)
  for (const words of [['R:/etc/passwd', join(house.home, 'got')], [local, 'R:/etc/up.sh']]) {
    const old = await transfer('scp', ['-O', ...words])
    assert.is.not(old.status, 0, old.stderr)
  }
  for (const more of [[], ['-O']]) {
    const fine = await transfer('scp', [...more, 'R:up.sh', join(house.home, 'back.sh')])
    assert.is(fine.status, 0, fine.stderr)
  }
  assert.match(await audited('rule.refused').then(found => found.join()), /file 6/)
})

test('no spelling of a path leads around what refuses it, nor does a folder that is moved', async () => {
  await house.direct(['mkdir -p secret && echo hidden > secret/a && ln -s secret link'])
  const got = join(house.home, 'got-it')
  for (const path of ['secret/a', './secret//a', '../deploy/secret/a', '../../home/./deploy/secret/a']) {
    const old = await transfer('scp', ['-O', `R:${path}`, got])
    assert.is.not(old.status, 0, path)
    const now = await transfer('sftp', ['R'], `-get ${path} ${got}\n`)
    assert.match(now.stderr, /[Pp]ermission denied/, path)
  }
  const moves = [
    'rename secret open', 'ln -s secret other', 'ln -s /etc etc', 'ln secret/a hard', 'ln -s .. up'
  ]
  const moved = await transfer('sftp', ['R'], moves.map(line => `-${line}\n`).join(''))
  assert.is([...moved.stderr.matchAll(/[Pp]ermission denied/g)].length, moves.length, moved.stderr)
  assert.not.ok(existsSync(got))
  // SECURITY.md says so: a link that is there already is not seen through.
  assert.is((await transfer('sftp', ['R'], `-get link/a ${got}\n`)).status, 0)
  assert.ok(existsSync(got))
})

test.run()
