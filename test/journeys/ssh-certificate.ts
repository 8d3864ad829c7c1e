// Accounts that a host knows no key of: stock ssh through the product, whose user authority a real sshd
// trusts for the accounts of sessions and for nobody else. What such a certificate cannot do is tried with
// ones that our own authority signed, by stock ssh straight at the target.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SessionJson } from '../../src/api/client-types.ts'
import { openUserAuthority } from '../../src/main/user-authority.ts'
import type { UserCertificate } from '../../src/main/user-authority.ts'
import { systemClock } from '../../src/clock.ts'
import { generateSshKey } from '../../src/wire/ssh/key.ts'
import { programOf } from '../../tool/services.ts'
import { ran, until } from '../peers/house.ts'
import type { Ran } from '../peers/house.ts'
import { apiOf } from '../peers/inspector.ts'
import { jitCredential, startSshHouse } from '../peers/ssh-house.ts'
import type { SshHouse } from '../peers/ssh-house.ts'

let house: SshHouse

const access = `${jitCredential('shell', ['create-user-certificate', 'delete-user'])}${
  jitCredential('standby', ['enable-user-certificate', 'disable-user'], 'username: standby')
}---
kind: grant
name: jit-for-alice
users: [alice]
credentials: [shell, standby]
channels: [exec, sftp, upload, download]
`
const trust = '/etc/ssh/sallyport_user_ca.pub'
/** `Match` within a file that is included ends with it. */
const sshd = `Match Group sallyport_jit\n  TrustedUserCAKeys ${trust}\n`
  + `Match User standby\n  TrustedUserCAKeys ${trust}\n`

test.before(async () => {
  house = await startSshHouse({
    access,
    box: {
      sshd: ['Include /etc/ssh/sallyport.conf', 'LogLevel VERBOSE'],
      prepare: `printf '${sshd}' > /etc/ssh/sallyport.conf
        useradd -m -s /bin/bash standby; usermod -p "*" -e 1 standby`
    }
  })
  const line = await house.sallyport('ssh-config', '--user-ca')
  assert.match(line, /^ssh-ed25519 [A-Za-z0-9+/=]+\n$/)
  await house.box.run(`cat > ${trust}`, line)
})
test.after(async () => house.end())

const sessions = (): Promise<SessionJson[]> => house.json<SessionJson[]>('sessions', 'list')
const newest = async (): Promise<SessionJson> => (await sessions())[0]!
const closed = (): Promise<SessionJson> => until(newest, ({ status, receipt }) =>
  status === 'ended' && receipt?.state === 'proved-gone')

/** Stock ssh straight at the target, with a certificate that our authority makes for this. */
async function directly(account: string, wish: Partial<UserCertificate>, command = 'id -un'): Promise<Ran> {
  const key = generateSshKey()
  const { certificate } = openUserAuthority(join(house.folder, 'data'), systemClock)
    .certify(key.privateKey, {
      session: 'test', accountId: 'test', principal: account, sources: ['127.0.0.1'], channels: [],
      until: new Date(systemClock.now().getTime() + 60_000), ...wish
    })
  const file = join(house.home, 'certified')
  writeFileSync(file, key.privateKey, { mode: 0o600 })
  writeFileSync(`${file}-cert.pub`, `ssh-ed25519-cert-v01@openssh.com ${certificate.toString('base64')}\n`)
  const [first = '', ...others] = house.options.filter(word => !word.startsWith('IdentityFile='))
  return ran(programOf('ssh'), [
    first, ...others.slice(0, -1), '-i', file, '-p', String(house.box.port), `${account}@127.0.0.1`, command
  ])
}

test('a session works with a certificate; the account has no key anywhere', async () => {
  const command = 'id -un; ls -d ~/.ssh /etc/ssh/jit_keys/$(id -un) 2>&1 | grep -c "No such file"'
  const { status, stdout, stderr } = await house.ssh([command], { login: 'alice+shell' })
  assert.is(status, 0, stderr)
  const [name = ''] = stdout.split('\n')
  assert.is(stdout, `${name}\n2\n`)
  assert.match(name, /^jit_\d{7}$/)
  const { id, account } = await closed()
  // The target's own log says whose session it was.
  assert.match(readFileSync(house.box.logFile, 'utf8'), `sallyport session ${id} account ${account!.id}`)
  const issued = await house.json<{ kind: string, subject: string, detail: Record<string, string> }[]>(
    'audit', 'list', '--kind', 'certificate.issued')
  const mine = issued.find(({ subject }) => subject === id)
  assert.equal([mine?.detail['principal'], mine?.detail['sources']], [name, '127.0.0.1'])
  assert.is(mine?.detail['extensions'], 'permit-pty')
})

test('what it opens ends with the account, and is nobody else’s', async () => {
  const child = house.spawnSsh(['cat'], 'alice+shell')
  const { account } = await until(newest, ({ status }) => status === 'live')
  const name = account!.name!
  for (const sources of [['127.0.0.1'], []]) {
    assert.is((await directly(name, { sources })).stdout, `${name}\n`)
  }
  const hour = 3_600_000
  const refused: [string, string, Partial<UserCertificate>][] = [
    ['one that has expired', name, { until: new Date(systemClock.now().getTime() - hour) }],
    ['one for another account', name, { principal: 'jit_0000000' }],
    ['one from elsewhere', name, { sources: ['192.0.2.1'] }],
    ['one for root', 'root', {}]
  ]
  for (const [what, login, wish] of refused) {
    const { status, stderr } = await directly(login, wish)
    assert.is(status, 255, what)
    assert.match(stderr, /Permission denied/, what)
  }
  child.stdin!.end()
  await closed()
  assert.match((await directly(name, {})).stderr, /Permission denied/)
})

test('a standing account is opened by each session with a certificate of its own', async () => {
  const child = house.spawnSsh(['cat'], 'alice+standby')
  await until(newest, ({ status }) => status === 'live')
  assert.is((await house.ssh(['id -un'], { login: 'alice+standby' })).stdout, 'standby\n')
  child.stdin!.end()
  await until(sessions, list => list.every(({ status }) => status === 'ended'))
  await until(() => directly('standby', {}), ({ status }) => status === 255)
})

test('a target that does not trust the authority: refused with a code, nothing left', async () => {
  await house.box.run(`mv ${trust} ${trust}.away`)
  const { status, stderr } = await house.ssh(['true'], { login: 'alice+shell' })
  await house.box.run(`mv ${trust}.away ${trust}`)
  assert.is(status, 255)
  assert.match(stderr, /\[target-refused [0-9a-f]{6}\]/)
  await closed()
})

interface Check { name: string, status: string, detail: string }

/** What `doctor` says of the target. */
async function examined(): Promise<Check> {
  const { checks } = await apiOf(house).get('/doctor')
  return checks.find(({ name }) => name.startsWith('target web01'))!
}

test('doctor does not ask for a place of keys where an authority is trusted, and asks for that', async () => {
  assert.not.match((await examined()).detail, /authority/)
  await house.box.run("sed -i 's/ .etc.ssh.jit_keys.%u//' /etc/ssh/sshd_config")
  const { status, detail } = await examined()
  assert.match(detail, /only templates with injection: certificate work/)
  assert.is(status, 'warning')
  await house.box.run(`printf 'ssh-ed25519 AAAA other\\n' > ${trust}`)
  const other = await examined()
  assert.match(other.detail, new RegExp(`${trust} +lacks our user authority: the line of ssh-config`))
  assert.is(other.status, 'failed')
  await house.box.run('rm /etc/ssh/sallyport.conf')
  assert.match((await examined()).detail, /sshd trusts no user authority/)
})

test.run()
