// deadline: 180 s
// A host that is away, is another one, drops the line in the middle, floods us or lets the hook in only
// through sudo; many sessions at once; and hostile values of a credential. Each ends in a coded answer, and
// what it left is removed.
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { Server, Socket } from 'node:net'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { HookJob } from '../src/jit/hook.ts'
import type { Access } from '../src/jit/plugin.ts'
import { parseTemplate } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'
import { generateSshKey } from '../src/wire/ssh/key.ts'
import { startLinuxTarget } from './peers/linux-target.ts'
import type { LinuxTarget } from './peers/linux-target.ts'

const away = suite<{ target: LinuxTarget }>('a Linux host that is away or hostile')

away.before(async state => {
  state.target = await startLinuxTarget({ sshd: ['PasswordAuthentication yes'] })
})
away.after(async ({ target }) => {
  await target[Symbol.asyncDispose]()
})

/** A line to the host that can be cut. */
async function line(target: LinuxTarget): Promise<{ server: Server, access: Access, cut(): void }> {
  const sockets = new Set<Socket>()
  const server = createServer(client => {
    const upstream = connect(target.box.port, target.box.host)
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on('error', () => undefined)
    }
    client.pipe(upstream).pipe(client)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const access = { ...target.access, target: { ...target.access.target, name: 'cut', port } }
  const cut = (): void => { for (const socket of sockets) socket.destroy() }
  return { server, access, cut }
}

function created(target: LinuxTarget, access: Partial<Access>): HookJob {
  const account = target.mint()
  const job = target.job('create', 'create-user', account, account.minted)
  return { ...job, access: { ...target.access, ...access } }
}

away('a key that is not the known one, or none that is known: nothing is sent', async ({ target }) => {
  const other = generateSshKey().publicKey
  for (const hostKeys of [[other], [], undefined, ['nonsense'], [`${other} comment`]]) {
    const address = { ...target.access.target, name: String(hostKeys), hostKeys }
    const made = await target.hooks.run(created(target, { target: address }))
    assert.equal([made.state, made.code], ['refused', 'target-untrusted'], made.error)
  }
  const both = { ...target.access.target, name: 'both', hostKeys: [other, target.box.hostKey] }
  const known = created(target, { target: both })
  assert.is((await target.hooks.run(known)).state, 'done')
  assert.is((await target.remove(known.account)).state, 'done')
})

away('a wrong key, a wrong password, a key that is none, no port: refused, and coded', async ({ target }) => {
  const wrong = new Secret(generateSshKey().privateKey)
  const cases = [
    [{ secret: { kind: 'private-key', privateKey: wrong } }, 'target-refused'],
    [{ secret: { kind: 'private-key', privateKey: new Secret('no key') } }, 'target-refused'],
    [{ username: 'nobody', secret: { kind: 'password', password: new Secret('wrong') } }, 'target-refused'],
    [{ target: { ...target.access.target, name: 'gone', port: 1 } }, 'target-unreachable']
  ] as const
  for (const [access, code] of cases) {
    const made = await target.hooks.run(created(target, access))
    assert.equal([made.state, made.code], ['refused', code], made.error)
  }
})

away('a hook login that is not root works through sudo, with a password too', async ({ target }) => {
  await target.box.run(`useradd -m -s /bin/bash hooks; echo 'hooks:a b"c' | chpasswd
    echo 'hooks ALL=(root) NOPASSWD: ALL' > /etc/sudoers.d/hooks`)
  const access = { username: 'hooks', secret: { kind: 'password', password: new Secret('a b"c') } } as const
  const job = created(target, access)
  const made = await target.hooks.run(job)
  assert.is(made.state, 'done', made.error)
  const epoch = { ...job.account, epoch: 2 }
  const gone = await target.hooks.run({ ...target.job('delete', 'delete-user', epoch), access: job.access })
  assert.is(gone.state, 'done', gone.error)
  await target.box.run('rm /etc/sudoers.d/hooks')
  const refused = await target.hooks.run(created(target, access))
  assert.equal([refused.state, refused.code !== undefined], ['refused', true])
})

away('a line that is lost in the middle: unknown, then removed', async ({ target }) => {
  const { server, access, cut } = await line(target)
  const account = target.mint()
  const slow = parseTemplate(`id: linux/mine\nplugin: linux\naction: create\ntitle: x\nsteps:
  - { do: make-account, with: { until: '{{ expires_at }}' } }
  - { script: sleep 3 }`)
  const running = target.hooks.run({ ...target.job('create', slow, account, account.minted), access })
  const endBy = performance.now() + 10_000
  let there = false
  while (!there && performance.now() < endBy) {
    there = (await target.box.attempt(`getent passwd ${account.name}`)).status === 0
  }
  cut()
  server.close()
  const made = await running
  assert.is(made.state, 'unknown', made.error)
  assert.is((await target.remove(account)).state, 'done')
  assert.is((await target.look(account)).exists, false)
})

away('a host that floods us is cut at a limit (F12)', async ({ target }) => {
  const account = await target.create()
  const flood = parseTemplate(`id: linux/mine\nplugin: linux\naction: delete\ntitle: x\nsteps:
  - { script: yes }`)
  const made = await target.hooks.run(target.job('delete', flood, { ...account, epoch: 2 }))
  assert.is(made.state, 'unknown')
  assert.match(made.error ?? '', /more than 1048576 bytes/)
  assert.is((await target.remove({ ...account, epoch: 2 })).state, 'done')
})

away('sixteen sessions at once get sixteen accounts, with sixteen uids, and all go', async ({ target }) => {
  const accounts = await Promise.all(Array.from({ length: 16 }, () => target.create({ roles: ['app'] })))
  const uids = await target.box.run(accounts.map(({ name }) => `id -u ${name}`).join('; '))
  assert.is(new Set(uids.split('\n')).size, 16)
  const removed = await Promise.all(accounts.map(account => target.remove(account)))
  for (const { state, error } of removed) assert.is(state, 'done', error)
  assert.is(await target.box.run('getent passwd | grep -c sallyport/ || true'), '0')
})

away('hostile values of a credential have no effect', async ({ target }) => {
  const hostile = [
    '$(touch /root/hit)', '`touch /root/hit`', "'; touch /root/hit; '", '"; touch /root/hit; "', '-o',
    '../etc',
    '/home\ntouch /root/hit', '/bin/bash -c touch', 'app,root', 'a:b', '*', '/tmp/..', '', ' ', '\u0001'
  ]
  const account = target.mint()
  for (const value of hostile) {
    for (const variables of [{ shell: value }, { home: value }, { key_options: value }, { roles: [value] }]) {
      const job = target.job('create', 'create-user', account, { ...account.minted, ...variables })
      const made = await target.hooks.run(job)
      assert.is(made.state, 'refused', `${JSON.stringify(variables)}: ${made.state}`)
    }
  }
  for (const name of ['root; id', '-rf', 'a b', "a'b", '$(id)', '../x', 'x'.repeat(40), '', 'a\nb']) {
    const job = target.job('create', 'create-user', { ...account, name }, account.minted)
    assert.equal([(await target.hooks.run(job)).code], ['invalid'], name)
  }
  assert.is(await target.box.run('ls /root; getent passwd | grep sallyport/ || true'), '')
})

away('a probe names what is missing, with its cure', async ({ target }) => {
  const sound = await target.hooks.probe('linux', target.access, { roles: ['app'] })
  assert.equal([sound.missingRights, sound.warnings], [[], []])
  await target.box.run("sed -i '/^AuthorizedKeysFile/d' /etc/ssh/sshd_config")
  const { missingRights, version } = await target.hooks.probe('linux', target.access, { roles: ['absent'] })
  const cure = 'AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/jit_keys/%u'
  assert.ok(missingRights.some(line => line.includes(cure)), missingRights.join('\n'))
  const group = 'the group absent does not exist: groupadd absent'
  assert.ok(missingRights.includes(group), missingRights.join('\n'))
  assert.match(version, /Debian/)
})

away.run()
