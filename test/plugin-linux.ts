// deadline: 400 s
// Accounts on a real sshd, made and taken away by the shipped templates: what a session can do with them,
// what nobody can do afterwards, whose account is never touched, and who wins when two act at once.
import { spawnSync } from 'node:child_process'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { systemClock } from '../src/clock.ts'
import type { HookContext } from '../src/jit/plugin.ts'
import { proveTemplates } from '../src/jit/prove.ts'
import { parseTemplate } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'
import { programOf } from '../tool/services.ts'
import { linuxTemplate, startLinuxTarget } from './peers/linux-target.ts'
import type { LinuxTarget } from './peers/linux-target.ts'

const life = suite<{ target: LinuxTarget }>('Linux accounts')

life.before(async state => {
  state.target = await startLinuxTarget()
})
life.after(async ({ target }) => {
  await target[Symbol.asyncDispose]()
})

function context(remainingMs: () => number = () => 30_000): HookContext {
  return {
    signal: AbortSignal.timeout(60_000), connectTimeoutMs: 10_000, statementTimeoutMs: 10_000, remainingMs,
    now: () => systemClock.now(), log: () => undefined
  }
}

function template(action: string, steps: string): ReturnType<typeof parseTemplate> {
  return parseTemplate(`id: linux/mine\nplugin: linux\naction: ${action}\ntitle: Mine\nsteps:\n${steps}`)
}

const make = `
  - { do: make-account, with: { until: '{{ expires_at }}' } }`

life('an account logs in with its key, has its groups, and is gone afterwards', async ({ target }) => {
  const account = await target.create({ roles: ['app', 'staff'] })
  const said = target.ssh(account, 'id -Gn; cd && pwd; stat -c %a .; id -u; cat /proc/self/loginuid')
  const [groups, home, mode, uid, loginUid] = said.stdout.split('\n')
  const wanted = [account.name, 'sallyport_jit', 'app', 'staff']
  assert.equal(new Set(groups?.split(' ')), new Set(wanted), said.stderr)
  assert.equal([home, mode, loginUid], [`/home/${account.name}`, '700', uid])
  assert.ok(Number(uid) >= 70_000 && Number(uid) < 500_000, uid)
  const shadow = await target.box.run(`getent shadow ${account.name}`)
  assert.match(shadow, /^[^:]+:\*:\d+:0:99999:7::47118:$/)
  const session = await target.open(account)
  const removed = await target.remove(account)
  assert.is(removed.state, 'done', removed.error)
  assert.equal(removed.seen, {
    exists: false, enabled: false, ours: false, epoch: undefined, sessions: 0, residue: []
  })
  await session.ended
  assert.is(target.ssh(account, 'id').status, 255)
  const left = await target.box.run(`
    getent passwd ${account.name} || true; getent group ${account.name} || true; ls /home /etc/ssh/jit_keys
    grep -r --exclude='*-' ${account.name} /etc /var/lib/sallyport || true`)
  assert.is(left, '/etc/ssh/jit_keys:\n\n/home:')
})

life('its key ends by itself, and may do only what the template says', async ({ target }) => {
  const account = target.mint()
  const soon = new Date(Math.ceil(systemClock.now().getTime() / 1000) * 1000 + 3000).toISOString()
  const made = await target.hooks.run(
    target.job('create', 'create-user', account, { ...account.minted, expires_at: soon })
  )
  assert.is(made.state, 'done', made.error)
  assert.is(target.ssh(account, 'echo in').stdout, 'in\n')
  const onward = ['-W', `127.0.0.1:${target.box.port}`]
  const forward = spawnSync(programOf('ssh'), [...onward, ...target.sshWords(account)])
  assert.match(forward.stderr.toString(), /administratively prohibited|forwarding failed/)
  const options = await target.box.run(`cut -d' ' -f1 /etc/ssh/jit_keys/${account.name}`)
  assert.match(options, /^restrict,pty,expiry-time="\d{14}"$/)
  await new Promise(resolve => setTimeout(resolve, 5000))
  assert.is(target.ssh(account, 'echo in').status, 255)
  // The account itself lives to the end of that day.
  assert.is((await target.look(account)).enabled, true)
  assert.is((await target.remove(account)).state, 'done')
})

life('removing what is not there is done and changes nothing, twice too', async ({ target }) => {
  const account = await target.create()
  assert.equal(
    [(await target.remove(account)).changed, (await target.remove(account)).changed], [true, false]
  )
  const removed = await target.remove(target.mint())
  assert.equal([removed.state, removed.changed], ['done', false])
})

life('an account of the same name that is not ours is never touched', async ({ target }) => {
  const account = target.mint()
  await target.box.run(`useradd -m -c 'Eve, of accounts' ${account.name}; touch /home/${account.name}/hers`)
  const state = `getent passwd ${account.name}; getent shadow ${account.name}; ls -la /home/${account.name}`
  const before = await target.box.run(state)
  const made = await target.hooks.run(target.job('create', 'create-user', account, account.minted))
  assert.equal([made.state, made.code, made.retryable], ['conflict', 'account-conflict', false])
  assert.is((await target.remove(account)).state, 'conflict')
  assert.equal([(await target.look(account)).ours, (await target.look(account)).exists], [false, true])
  assert.is(await target.box.run(state), before)
  await target.box.run(`userdel -r ${account.name}`)
})

life('a group, a home or a link of that name is not taken over', async ({ target }) => {
  for (const plant of ['groupadd $n', 'mkdir /home/$n', 'ln -s /etc /home/$n', 'ln -s /absent /home/$n']) {
    const account = target.mint()
    await target.box.run(`n=${account.name}; ${plant}`)
    const made = await target.hooks.run(target.job('create', 'create-user', account, account.minted))
    assert.ok(made.state === 'conflict' || made.state === 'refused', `${plant}: ${made.state}`)
    assert.is((await target.look(account)).exists, false)
    assert.is(await target.box.run('stat -c %U:%a /etc'), 'root:755')
    await target.box.run(`n=${account.name}; groupdel $n 2> /dev/null || rm -rf /home/$n`)
  }
})

life('creating what is ours already replaces the key; the old one is worthless', async ({ target }) => {
  const account = await target.create()
  const again = { ...target.mint(account.name), accountId: account.accountId, epoch: 2 }
  const made = await target.hooks.run(target.job('create', 'create-user', again, again.minted))
  assert.equal([made.state, made.seen?.epoch], ['done', 2], made.error)
  assert.is(target.ssh(account, 'id').status, 255)
  assert.is(target.ssh(again, 'id').status, 0)
  assert.is((await target.remove(again)).state, 'done')
})

life('an older epoch does not remove what a newer one has acted on', async ({ target }) => {
  const account = await target.create()
  const newer = { ...account, epoch: 5 }
  const renewed = await target.hooks.run(target.job('create', 'create-user', newer, target.mint().minted))
  assert.is(renewed.state, 'done', renewed.error)
  const stale = await target.hooks.run(target.job('delete', 'delete-user', { ...account, epoch: 4 }))
  assert.equal([stale.state, stale.retryable], ['refused', false])
  assert.is((await target.look(account)).exists, true)
  assert.is((await target.remove(newer)).state, 'done')
})

life('nothing is done after the claim has lapsed, by the clock of the host', async ({ target }) => {
  const account = await target.create()
  const slow = template('delete', `
  - script: sleep 1
  - do: refuse-logins`)
  const stalled = await target.plugin.run(
    target.access, slow, { ...account, epoch: 2 }, {}, context(() => 600)
  )
  assert.ok(stalled.state === 'unknown' || stalled.state === 'refused', JSON.stringify(stalled))
  await new Promise(resolve => setTimeout(resolve, 1000))
  assert.is(target.ssh(account, 'id').status, 0)
  assert.is((await target.remove({ ...account, epoch: 2 })).state, 'done')
})

life('a removal waits for a creation that is under way and removes it', async ({ target }) => {
  const account = target.mint()
  const slow = template('create', `${make}\n  - script: sleep 1`)
  const creating = target.plugin.run(target.access, slow, account, account.minted, context())
  await new Promise(resolve => setTimeout(resolve, 600))
  const removed = await target.plugin.run(
    target.access, linuxTemplate('delete-user'), { ...account, epoch: 2 }, {}, context())
  assert.is((await creating).state, 'done')
  assert.ok(removed.state === 'done' && removed.changed, JSON.stringify(removed))
  assert.is((await target.look(account)).exists, false)
})

life('a creation whose second step fails says which, runs its undo, and is removed', async ({ target }) => {
  const account = target.mint()
  const half = parseTemplate(`id: linux/mine\nplugin: linux\naction: create\ntitle: Mine\nsteps:${make}
  - { name: breaks, script: 'echo "$JIT_USERNAME is not fit" >&2; exit 3' }
undo:
  - { script: 'echo "$JIT_USERNAME" > /root/undone' }`)
  const made = await target.hooks.run(target.job('create', half, account, account.minted))
  assert.equal([made.state, made.failedStep, made.code], ['refused', 'breaks', 'hook-failed'])
  assert.match(made.error ?? '', /is not fit/)
  assert.is(await target.box.run('cat /root/undone'), account.name)
  assert.is((await target.remove(account)).state, 'done')
  assert.is((await target.look(account)).exists, false)
})

life('a uid is never used twice, and never one of a person\'s containers', async ({ target }) => {
  const uidOf = async (name: string): Promise<number> => Number(await target.box.run(`id -u ${name}`))
  const first = await target.create()
  const used = await uidOf(first.name)
  await target.remove(first)
  await target.box.run(`echo 'eve:${used + 1}:65536' >> /etc/subuid; groupadd -g ${used + 65_537} taken`)
  const second = await target.create()
  assert.is(await uidOf(second.name), used + 65_538)
  assert.is(await target.box.run(`id -g ${second.name}; grep -c ${second.name} /etc/subuid || true`),
    `${used + 65_538}\n0`)
  await target.remove(second)
  await target.box.run(`sed -i /eve/d /etc/subuid; groupdel taken; rm -f /var/lib/sallyport/accounts/*`)
  const third = await target.create()
  assert.is(await uidOf(third.name), used + 65_539)
  await target.remove(third)
})

life('an existing account is on from enable to disable, with a new key each time', async ({ target }) => {
  await target.box.run("useradd -m -e 1 -s /bin/bash -c 'Deploy, of ops' deploy; usermod -p '*' deploy")
  const account = target.mint('deploy', 'enable')
  const on = await target.hooks.run(target.job('enable', 'enable-user', account, account.minted))
  assert.equal([on.state, on.seen?.enabled, on.seen?.epoch], ['done', true, 1], on.error)
  const session = await target.open(account)
  const off = await target.hooks.run(target.job('disable', 'disable-user', { ...account, epoch: 2 }))
  assert.equal([off.state, off.seen?.enabled, off.seen?.sessions], ['done', false, 0], off.error)
  await session.ended
  assert.is(target.ssh(account, 'id').status, 255)
  assert.match(await target.box.run('getent passwd deploy; ls /home'), /:Deploy, of ops:.*\ndeploy\b/s)
  // The disable of an older claim comes late: it must not shut the newer session out.
  const fresh = { ...target.mint('deploy', 'enable'), accountId: account.accountId, epoch: 4 }
  const renewed = await target.hooks.run(target.job('enable', 'enable-user', fresh, fresh.minted))
  assert.is(renewed.state, 'done')
  const late = await target.hooks.run(target.job('disable', 'disable-user', { ...account, epoch: 3 }))
  assert.equal([late.state, late.retryable], ['refused', false])
  assert.is(target.ssh(account, 'id').status, 255)
  assert.is(target.ssh(fresh, 'id').status, 0)
  const last = await target.hooks.run(target.job('disable', 'disable-user', { ...account, epoch: 5 }))
  assert.is(last.state, 'done')
  const absent = target.mint('absent', 'enable')
  const missing = await target.hooks.run(target.job('enable', 'enable-user', absent, absent.minted))
  assert.equal([missing.state, missing.retryable], ['refused', false])
  assert.match(missing.error ?? '', /no account absent/)
})

life('root and accounts of a directory are not shut', async ({ target }) => {
  const root = target.mint('root', 'enable')
  const off = await target.hooks.run(target.job('disable', 'disable-user', root))
  assert.equal([off.state, off.retryable], ['refused', false])
  assert.match(off.error ?? '', /shut itself out/)
  programOf('extrausers')
  await target.box.run(`mkdir -p /var/lib/extrausers; touch /var/lib/extrausers/group
    touch /var/lib/extrausers/shadow
    echo 'ldapper:x:5000:5000:Of the directory:/home/ldapper:/bin/bash' > /var/lib/extrausers/passwd
    sed -i 's/^passwd:.*/passwd: files extrausers/' /etc/nsswitch.conf; getent passwd ldapper`)
  const shut = await target.hooks.run(target.job('disable', 'disable-user', target.mint('ldapper', 'enable')))
  assert.equal([shut.state, shut.retryable], ['refused', false])
  assert.match(shut.error ?? '', /account of a directory/)
  const same = target.mint('ldapper')
  const made = await target.hooks.run(target.job('create', 'create-user', same, same.minted))
  assert.is(made.state, 'conflict')
  const { missingRights } = await target.hooks.probe('linux', target.access, { username: 'ldapper' })
  assert.ok(missingRights.some(line => line.includes('use the ldap plugin')), missingRights.join('\n'))
})

life('privileges only: the account keeps its login and loses its groups', async ({ target }) => {
  const key = target.mint('standing', 'enable')
  await target.box.addUser('standing', String((key.minted['public_key'] as Secret<string>).expose()))
  const account = { ...key, accountId: 'standing-1' }
  const on = await target.hooks.run(target.job('enable', 'grant-group', account, { roles: ['app'] }))
  assert.equal([on.state, on.seen?.enabled], ['done', true], on.error)
  assert.match(target.ssh(account, 'id -Gn').stdout, /\bapp\b/)
  const session = await target.open(account)
  const off = await target.hooks.run(
    target.job('disable', 'revoke-group', { ...account, epoch: 2 }, { roles: ['app'] })
  )
  assert.equal([off.state, off.seen?.exists, off.seen?.enabled], ['done', true, false], off.error)
  await session.ended
  assert.not.match(target.ssh(account, 'id -Gn').stdout, /\bapp\b/)
})

life('privileges only: a rule of sudo comes and goes; a wrong one breaks nothing', async ({ target }) => {
  const key = target.mint('op-1', 'enable')
  await target.box.addUser('op-1', String((key.minted['public_key'] as Secret<string>).expose()))
  const rule = 'ALL=(root) NOPASSWD: /usr/bin/id'
  const on = await target.hooks.run(target.job('enable', 'grant-sudo', key, { rule }))
  assert.equal([on.state, on.seen?.enabled], ['done', true], on.error)
  assert.is(target.ssh(key, 'sudo -n id -u').stdout, '0\n')
  assert.not.equal(target.ssh(key, 'sudo -n ls').status, 0)
  const off = await target.hooks.run(target.job('disable', 'revoke-sudo', { ...key, epoch: 2 }))
  assert.equal([off.state, off.seen?.enabled], ['done', false], off.error)
  assert.not.equal(target.ssh(key, 'sudo -n id -u').status, 0)
  const wrong = await target.hooks.run(
    target.job('enable', 'grant-sudo', { ...key, epoch: 3 }, { rule: 'ALL=(nonsense' })
  )
  assert.equal([wrong.state, wrong.failedStep], ['refused', 'place the rule'])
  assert.is(await target.box.run('visudo -qc; ls -A /etc/sudoers.d'), 'README')
})

life('the shipped pairs are proved on the host', async ({ target }) => {
  await target.box.run("useradd -m -e 1 -s /bin/bash proved; usermod -p '*' proved")
  const pairs = [
    ['create-user', 'delete-user', {}], ['enable-user', 'disable-user', {}],
    ['grant-group', 'revoke-group', { roles: ['app'] }],
    ['grant-sudo', 'revoke-sudo', { rule: 'ALL=(root) NOPASSWD: /usr/bin/id' }]
  ] as const
  for (const [opening, closing, variables] of pairs) {
    const proof = await proveTemplates({
      hooks: target.hooks, plugin: target.plugin, access: target.access, variables,
      opening: linuxTemplate(opening), closing: linuxTemplate(closing), expiresAt: '2099-01-01T00:00:00Z',
      username: opening === 'create-user' ? undefined : 'proved'
    })
    assert.ok(proof.passed, JSON.stringify(proof.steps, null, 1))
  }
})

life('the sweep finds accounts by their marker, and members of our group without one', async ({ target }) => {
  const account = await target.create()
  await target.box.run('useradd -G sallyport_jit stray')
  const owned = await target.hooks.listOwned('linux', target.access)
  const found = Object.fromEntries(owned.map(({ name, accountId }) => [name, accountId ?? 'none']))
  assert.equal([found[account.name], found['stray'], found['root']], [account.accountId, 'none', undefined])
  await target.box.run('userdel stray')
  await target.remove(account)
})

// Promised: J14, R14.
life('no secret is in an argument on the host, in a file there, or in our lines', async ({ target }) => {
  await target.box.run(`
    for i in $(seq 400); do cat /proc/[0-9]*/cmdline 2> /dev/null | tr '\\0' ' '; done > /root/seen &
    sleep 0.1`)
  const account = await target.create()
  await target.remove(account)
  assert.ok(account.inject.kind === 'private-key')
  const key = account.inject.privateKey.expose()
  const body = key.split('\n').slice(2, -2).join('')
  const admin = target.box.admin.privateKey.split('\n').slice(2, -2).join('')
  const seen = await target.box.run(
    'cat /root/seen; rm /root/seen; grep -rs "PRIVATE KEY" /etc/ssh/jit_keys /var/lib/sallyport || true'
  )
  assert.ok(seen.includes('sshd'), 'there was something to see')
  for (const text of [seen, target.log.join('\n')]) {
    for (const secret of [body, admin]) assert.not.ok(text.includes(secret.slice(0, 60)))
  }
})

life.run()
