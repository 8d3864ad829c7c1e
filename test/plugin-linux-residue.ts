// deadline: 400 s
// R25, F29 to F31: what people do so that something of theirs outlives the session. Each trick is really done
// by a session of a real account, the account is removed, and within 10 seconds it is dead, removed, or
// harmless and on the receipt. A trick that did not work in the first place fails the test.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { HookResult } from '../src/jit/hook.ts'
import type { Secret } from '../src/secret.ts'
import { startLinuxTarget } from './peers/linux-target.ts'
import type { Account, LinuxTarget } from './peers/linux-target.ts'

const tricks = suite<{ target: LinuxTarget }>('what outlives a session on Linux')

tricks.before(async state => {
  state.target = await startLinuxTarget()
})
tricks.after(async ({ target }) => {
  await target[Symbol.asyncDispose]()
})

const limitMs = 10_000

/** The account does this as itself, over ssh. */
function does(target: LinuxTarget, account: Account, command: string): string {
  const said = target.ssh(account, command)
  assert.is(said.status, 0, `${command}: ${said.stdout}${said.stderr}`)
  return said.stdout.trim()
}

/** Removes it in time, and answers with the result and the uid that it had. */
async function removed(target: LinuxTarget, account: Account): Promise<HookResult & { uid: string }> {
  const uid = await target.box.run(`id -u ${account.name}`)
  const result = await target.remove(account)
  assert.is(result.state, 'done', `${result.failedStep}: ${result.error}`)
  assert.ok(result.tookMs < limitMs, `${result.tookMs} ms`)
  assert.equal(result.seen?.residue, [])
  // By two lists that our own code does not use.
  const alive = await target.box.run(`ps -eo uid=,args= | awk '$1 == ${uid}'`)
  assert.is(alive, '')
  const files = await target.box.run(
    `find / /tmp /var/tmp /dev/shm /run -xdev -uid ${uid} -o -xdev -gid ${uid}`
  )
  assert.is(files, '')
  return { ...result, uid }
}

function told({ residue }: HookResult): string[] {
  return residue.map(({ kind, name, fate }) => `${fate} ${kind} ${name}`)
}

tricks('background processes: nohup, setsid, disown, a double fork, one that ignores signals', async (
  { target }
) => {
  const account = await target.create()
  does(target, account, `nohup sleep 3001 > /dev/null 2>&1 &
    setsid sleep 3002 > /dev/null 2>&1 < /dev/null &
    (setsid sh -c 'sleep 3003 & sleep 3004' > /dev/null 2>&1 &)
    bash -c "trap '' HUP TERM INT STOP; while :; do sleep 1; done" > /dev/null 2>&1 & sleep 0.2; exit 0`)
  const before = Number(await target.box.run(`ps -u ${account.name} | wc -l`))
  assert.ok(before >= 6, `${before} lines of ps`)
  await removed(target, account)
  assert.is(await target.box.run("ps -eo args= | grep -c '[s]leep 300' || true"), '0')
})

tricks('a child of sudo, which has uid 0, and one that changed its uid', async ({ target }) => {
  const account = await target.create()
  await target.box.run(`echo '${account.name} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/${account.name}`)
  does(target, account, `sudo -n setsid sleep 3100 > /dev/null 2>&1 < /dev/null &
    sudo -n -u nobody setsid sleep 3101 > /dev/null 2>&1 < /dev/null & sleep 0.4; exit 0`)
  assert.is(await target.box.run("ps -eo user=,args= | grep '[s]leep 310' | grep -v sudo | wc -l"), '2')
  const result = await removed(target, account)
  assert.is(await target.box.run("ps -eo args= | grep -c '[s]leep 310' || true"), '0')
  assert.ok(told(result).includes(`removed sudoers /etc/sudoers.d/${account.name}`), told(result).join('\n'))
  assert.is(await target.box.run('ls -A /etc/sudoers.d; visudo -qc'), 'README')
})

tricks('a loop of twenty that die and come back faster than anybody can look', async ({ target }) => {
  const account = await target.create()
  // It ends by itself after some time, to spare this machine when the test fails.
  does(target, account, `ulimit -u 400
    echo '[ $1 -gt 500 ] || { sleep 0.04; sh /tmp/hop $(($1 + 1)) & }' > /tmp/hop
    for i in $(seq 20); do (setsid sh /tmp/hop 1 > /dev/null 2>&1 < /dev/null &); done; sleep 0.3`)
  assert.ok(Number(await target.box.run(`ps -u ${account.name} | wc -l`)) > 5)
  await removed(target, account)
})

tricks('open sessions end, sftp and forwarding too', async ({ target }) => {
  const account = await target.create({ key_options: 'restrict,pty,port-forwarding' })
  const sessions = [
    await target.open(account), await target.open(account, 'echo in; /usr/lib/openssh/sftp-server'),
    await target.open(account, 'echo in; exec script -qc "sleep 1000" /dev/null')
  ]
  await removed(target, account)
  await Promise.all(sessions.map(({ ended }) => ended))
})

tricks('a login storm meanwhile finds no way in', async ({ target }) => {
  const account = await target.create()
  // Fewer than sshd takes at once before it drops some by chance (MaxStartups): ours must get in.
  const storm = Array.from({ length: 5 }, () => target.open(account).then(
    session => session.ended, () => undefined
  ))
  await removed(target, account)
  await Promise.race([Promise.all(storm), new Promise(resolve => setTimeout(resolve, 3000))])
  assert.is(target.ssh(account, 'id').status, 255)
})

tricks('crontab, at job, linger (F30)', async ({ target }) => {
  const account = await target.create()
  does(target, account, `echo '* * * * * touch /tmp/cron-was-here' | crontab -
    echo 'touch /tmp/at-was-here' | at now + 1 hour`)
  await target.box.run(`mkdir -p /var/lib/systemd/linger; touch /var/lib/systemd/linger/${account.name}`)
  const spooled = await target.box.run('ls /var/spool/cron/crontabs; ls /var/spool/cron/atjobs | wc -l')
  assert.is(spooled, `${account.name}\n1`)
  const lines = told(await removed(target, account))
  assert.ok(lines.includes(`removed crontab ${account.name}`), lines.join('\n'))
  assert.ok(lines.includes(`removed linger ${account.name}`), lines.join('\n'))
  assert.ok(lines.some(line => line.startsWith('removed at-job ')), lines.join('\n'))
  const places = '/var/spool/cron/crontabs /var/spool/cron/atjobs /var/lib/systemd/linger'
  assert.is(await target.box.run(`find ${places} -type f -not -name .SEQ`), '')
})

tricks('files elsewhere go to a uid that nobody has, setuid bits with them', async ({ target }) => {
  const account = await target.create()
  does(target, account, `cp /bin/dash /var/tmp/back; chmod 6755 /var/tmp/back
    mkdir /tmp/deep; touch '/tmp/deep/a b'; ln -s /etc/shadow /tmp/link; mkfifo /tmp/pipe
    touch /dev/shm/shared "/tmp/$(printf 'new\\nline\\tand tab')"
    chmod 2775 /tmp/deep`)
  const { uid, ...result } = await removed(target, account)
  const lines = told(result)
  for (const line of [
    'reassigned setuid-file /var/tmp/back', 'reassigned file /tmp/deep', 'reassigned file /tmp/deep/a b',
    'reassigned file /dev/shm/shared', 'reassigned file /tmp/new?line?and tab', 'reassigned file /tmp/link',
    'reassigned file /tmp/pipe'
  ]) assert.ok(lines.includes(line), `${line} is not in\n${lines.join('\n')}`)
  const owners = await target.box.run('stat -c "%u %g %a" /var/tmp/back; stat -c %U /etc/shadow')
  assert.is(owners, '69999 69999 755\nroot')
  assert.is(await target.box.run('getent passwd 69999 || echo nobody'), 'nobody')
  assert.not.equal(uid, '69999')
  await target.box.run('rm -rf /tmp/* /var/tmp/* /dev/shm/*')
})

tricks('more files than fit on a receipt are counted', async ({ target }) => {
  const account = await target.create()
  does(target, account, 'mkdir /tmp/many; cd /tmp/many; seq 500 | xargs touch')
  const lines = told(await removed(target, account))
  assert.ok(lines.includes('reassigned file 451 more'), lines.slice(-3).join('\n'))
  await target.box.run('rm -rf /tmp/many')
})

tricks('access lists that name it lose it; shared memory goes', async ({ target }) => {
  const account = await target.create()
  await target.box.run(`echo x > "/srv/it's shared"; mkdir /srv/dir
    setfacl -m u:${account.name}:rw "/srv/it's shared"
    setfacl -d -m u:${account.name}:rw /srv/dir; setfacl -m u:nobody:r /srv/dir`)
  does(target, account, 'ipcmk -M 4096; ipcmk -Q; ipcmk -S 2')
  const { uid, ...result } = await removed(target, account)
  const lines = told(result)
  for (const line of ["removed acl /srv/it's shared", 'removed acl /srv/dir']) {
    assert.ok(lines.includes(line), lines.join('\n'))
  }
  const acls = await target.box.run('getfacl -Rnp /srv')
  assert.not.ok(acls.includes(uid), acls)
  assert.ok(acls.includes('user:65534:r--'), acls)
  for (const table of ['shm', 'msg', 'sem']) {
    assert.ok(lines.some(line => line.startsWith(`removed ${table} `)), lines.join('\n'))
  }
  assert.is(await target.box.run('cat /proc/sysvipc/* | grep -v key | wc -l'), '0')
})

tricks('links that it planted are not followed', async ({ target }) => {
  await target.box.run('mkdir -p /srv/precious; echo gold > /srv/precious/file; chmod -R go-w /srv/precious')
  const account = await target.create()
  does(target, account, `rm -rf .ssh; ln -s /srv/precious .ssh; ln -s /srv/precious/file link; ln -s / root
    mkdir d; ln -s /srv d/up; ln -s /srv/precious /tmp/away`)
  const again = { ...account, epoch: 2 }
  const renewed = await target.hooks.run(target.job('create', 'create-user', again, target.mint().minted))
  assert.is(renewed.state, 'done', renewed.error)
  await removed(target, { ...again })
  const untouched = 'cat /srv/precious/file; stat -c %U /srv/precious /srv/precious/file; ls /home'
  assert.is(await target.box.run(untouched), 'gold\nroot\nroot')
  await target.box.run('rm -rf /srv/* /tmp/*')
})

tricks('a key of its own in .ssh is worth nothing afterwards', async ({ target }) => {
  const account = await target.create()
  const own = target.mint(account.name)
  const key = (own.minted['public_key'] as Secret<string>).expose()
  does(target, account, `mkdir -p .ssh; echo '${key}' > .ssh/authorized_keys; chmod -R go= .ssh`)
  assert.is(target.ssh(own, 'echo in').stdout, 'in\n')
  await removed(target, account)
  assert.is(target.ssh(own, 'echo in').status, 255)
})

tricks('what is mounted in its home is not deleted with it', async ({ target }) => {
  const account = await target.create()
  await target.box.run(`mkdir /home/${account.name}/mount; mount -t tmpfs x /home/${account.name}/mount
    mkdir /srv/kept; mount --bind /srv/kept /home/${account.name}/mount; touch /srv/kept/file
    chown ${account.name} /home/${account.name}/mount`)
  await removed(target, account)
  assert.is(await target.box.run('ls /srv/kept /home'), '/home:\n\n/srv/kept:\nfile')
})

tricks('nothing comes back with the next account of that name', async ({ target }) => {
  const account = await target.create()
  const before = await target.box.run(`id -u ${account.name}`)
  does(target, account, "echo '* * * * * id' | crontab -; touch /tmp/mine")
  await removed(target, account)
  const next = { ...target.mint(account.name), accountId: 'another' }
  const made = await target.hooks.run(target.job('create', 'create-user', next, next.minted))
  assert.is(made.state, 'done', made.error)
  assert.not.equal(await target.box.run(`id -u ${next.name}`), before)
  const mine = target.ssh(next, 'crontab -l; find / /tmp /var/tmp -xdev -user $(id -u) -not -path "/home/*"')
  assert.is(mine.stdout, '')
  await removed(target, next)
})

tricks('lastlog stays small', async ({ target }) => {
  assert.ok(Number(await target.box.run('stat -c %s /var/log/lastlog')) < 150_000_000)
})

tricks.run()
