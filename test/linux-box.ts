// The Linux that tests log in to: it takes logins, its accounts are not this machine's, and nothing of it
// remains.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { generateSshKey } from '../src/wire/ssh/key.ts'
import { startLinuxBox } from '../tool/linux-box.ts'
import type { LinuxBox } from '../tool/linux-box.ts'
import { programOf } from '../tool/services.ts'

/** Of people; a package that is installed meanwhile may bring an account of its own. */
function accountsOfThisMachine(): string[] {
  const lines = ['passwd', 'group'].flatMap(name => readFileSync(`/etc/${name}`, 'utf8').split('\n'))
  return lines.filter(line => Number(line.split(':')[2]) >= 1000)
}

const boxes = suite<{ folder: string, box: LinuxBox, before: string[] }>('a Linux box')

boxes.before(async state => {
  state.before = accountsOfThisMachine()
  state.folder = mkdtempSync(join(tmpdir(), 'sallyport-test-'))
  state.box = await startLinuxBox({ sshd: ['Banner /etc/issue.net'], prepare: 'touch /etc/prepared' })
})
boxes.after(async ({ box, folder }) => {
  await box.stop()
  rmSync(folder, { recursive: true })
})

function ssh({ box, folder }: { box: LinuxBox, folder: string }, user: string, key: string, command: string) {
  const file = join(folder, 'key')
  const known = join(folder, 'known')
  writeFileSync(file, key, { mode: 0o600 })
  writeFileSync(known, `[${box.host}]:${box.port} ${box.hostKey}\n`)
  return spawnSync(programOf('ssh'), [
    '-F', 'none', '-p', String(box.port), '-i', file, '-o', 'BatchMode=yes',
    '-o', `UserKnownHostsFile=${known}`, '-o', 'StrictHostKeyChecking=yes', `${user}@${box.host}`, command
  ], { encoding: 'utf8' })
}

boxes('its root logs in with the admin key, at its host key', state => {
  const done = ssh(state, 'root', state.box.admin.privateKey, 'id -u; ls -d /etc/prepared')
  assert.is(done.stdout, '0\n/etc/prepared\n', done.stderr)
})

boxes('an account is made in it and not on this machine', async state => {
  const key = generateSshKey()
  await state.box.addUser('visitor', key.publicKey)
  const done = ssh(state, 'visitor', key.privateKey, 'whoami; cat /proc/self/loginuid')
  assert.match(done.stdout, /^visitor\n\d+$/, done.stderr)
  assert.equal(accountsOfThisMachine(), state.before)
  assert.not(existsSync('/home/visitor'))
})

boxes('cron and atd run there, and it sees no process of this machine', async ({ box }) => {
  const names = (await box.run('ps -eo comm=')).split('\n')
  for (const name of ['cron', 'atd', 'sshd']) assert.ok(names.includes(name), names.join(' '))
  assert.ok(names.length < 15, names.join(' '))
})

boxes('a command that fails says what it was', async ({ box }) => {
  const ran = await box.attempt('echo out; echo err >&2; exit 3')
  assert.equal(ran, { status: 3, stdout: 'out\n', stderr: 'err\n' })
  try {
    await box.run('ls /absent')
    assert.unreachable()
  } catch (error) {
    assert.match(String(error), /exit 2 of ls \/absent/)
  }
})

boxes('nothing of it remains after its end, whatever runs there', async () => {
  await using box = await startLinuxBox()
  await box.run('setsid sleep 271828 > /dev/null 2>&1 & setsid sleep 271828 > /dev/null 2>&1 &')
  const { pid, logFile } = box
  await box.stop()
  assert.not(existsSync(`/proc/${pid}`))
  assert.not(existsSync(dirname(logFile)))
  const { stdout } = spawnSync(programOf('ps'), ['-C', 'sleep', '-o', 'args='], { encoding: 'utf8' })
  assert.not.match(stdout, /sleep 271828/)
})

boxes('it ends with whoever started it, killed without warning too', async () => {
  const script = `import { startLinuxBox } from './tool/linux-box.ts'
    const box = await startLinuxBox(); console.log(box.pid); setInterval(() => 0, 1000)`
  const cwd = join(import.meta.dirname, '..')
  const owner = spawn(process.execPath, ['--input-type=module', '-e', script], { cwd })
  const [line] = await once(owner.stdout, 'data') as [Buffer]
  const pid = Number(line.toString())
  assert.ok(existsSync(`/proc/${pid}`))
  owner.kill('SIGKILL')
  await once(owner, 'exit')
  const endBy = performance.now() + 5000
  while (existsSync(`/proc/${pid}`) && performance.now() < endBy) await wait(20)
  assert.not(existsSync(`/proc/${pid}`))
})

boxes('who is not root is told why there is none', () => {
  const script = `import { startLinuxBox } from '${join(import.meta.dirname, '../tool/linux-box.ts')}'
    process.getuid = () => 1000
    await startLinuxBox().catch(error => console.log(error.message))`
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
  assert.match(stdout, /only root can make one/)
})

boxes.run()
