// deadline: 120 s
// Users of Oracle, made and taken away by the shipped templates: the plugin over a double at the driver's own
// interface (peers/oracle-double.ts), which keeps the server's rules; and the real driver as far as it comes
// without a server. What a session can do with a user, what nobody can do afterwards, and what is left.
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:tls'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { oracle, oracleWith } from '../plugins/oracle.ts'
import { connectOracle, passwordVerifier } from '../plugins/oracle/link.ts'
import { systemClock } from '../src/clock.ts'
import type { Access } from '../src/jit/plugin.ts'
import { createShelf } from '../src/jit/shelf.ts'
import { parseTemplate } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'
import { selfSignedCertificate } from '../src/wire/x509.ts'
import { OracleDouble, hooksPrivileges } from './peers/oracle-double.ts'
import { PluginTarget, handContext, shelf, startLiar } from './peers/plugin-target.ts'
import type { Account } from './peers/plugin-target.ts'

interface World {
  server: OracleDouble
  target: PluginTarget
}

const life = suite<World>('Oracle (a double of the driver)')
const secret = { kind: 'password', password: new Secret('of-the-hooks') } as const

life.before(world => {
  const server = new OracleDouble()
  world.server = server
  for (const role of ['APP_RW', 'APP_RO']) server.roles.add(role)
  server.addUser('HOOKS', 'of-the-hooks', {
    privileges: new Set([...hooksPrivileges, 'SELECT CATALOG']), roles: new Set(['APP_RW', 'CREATE SESSION'])
  })
  const plugin = oracleWith(server.connect)
  const target = { name: 'ora', protocol: 'oracle', host: '127.0.0.1', port: 1, database: 'orders',
    tls: { mode: 'disable' } } as const
  world.target = new PluginTarget('oracle', { target, username: 'hooks', secret }, { roles: ['app_rw'] },
    {}, createShelf([plugin]))
})
life.after(({ target }) => target.close())

const enters = (world: World, { name, password }: Pick<Account, 'name' | 'password'>): string => {
  try {
    void world.server.session(name, password).close()
    return 'let in'
  } catch (error) {
    return /ORA-\d+/.exec(String(error))?.[0] ?? String(error)
  }
}

// Promised: L5.
life('a user logs in, has its role, and is gone afterwards with its sessions everywhere', async world => {
  const { target, server } = world
  const account = target.mint()
  const made = await target.done('create', 'create-user', account)
  assert.equal([made.seen?.ours, made.seen?.enabled, made.seen?.epoch], [true, true, 1])
  assert.equal([...server.users.get(account.name.toUpperCase())?.roles ?? []], ['APP_RW'])
  const here = server.session(account.name, account.password)
  const there = server.session(account.name, account.password, 2)
  assert.equal((await here.execute('SELECT USER FROM dual', [], {})).rows, [[account.name.toUpperCase()]])
  const removed = await target.done('delete', 'drop-user', { ...account, epoch: 2 })
  assert.equal(removed.seen, {
    exists: false, enabled: false, ours: false, epoch: undefined, sessions: 0, residue: []
  })
  for (const session of [here, there]) {
    assert.match(await session.execute('SELECT USER FROM dual', [], {}).then(() => 'alive', String), /broken/)
  }
  assert.is(enters(world, account), 'ORA-01017')
  assert.is((await target.done('delete', 'drop-user', { ...account, epoch: 3 })).changed, false)
})

life('the verifier is the one of 12c; no password is in a statement', async ({ target, server }) => {
  // A published pair: its salt is the last sixteen bytes.
  const known = 'e3243b98974159cc24fd2c9a8b30ba62e0e83b6ca2fc7c55177c3a7f82602e3bdd17ceb9b9091cf9dad672b8'
    + 'be961a9eac4d344bdba878edc5dcb5899f689ebd8dd1be3f67bff9813a464382381ab36b'
  const salt = Buffer.from(known.slice(128), 'hex')
  assert.is(await passwordVerifier('epsilon', salt), `T:${known.toUpperCase()}`)
  const account = target.mint()
  server.log.length = 0
  await target.done('create', 'create-user', account)
  await target.done('delete', 'drop-user', { ...account, epoch: 2 })
  const said = server.log.join('\n')
  assert.match(said, /CREATE USER "JIT_\d+" IDENTIFIED BY VALUES 'T:[0-9A-F]{160}' PROFILE sallyport_jit/)
  assert.not(said.includes(account.password) || said.includes('of-the-hooks'))
  const typed = await target.plugin.mintTyped?.()
  assert.ok(typed?.inject.kind === 'password' && typed.inject.password.expose().length <= 30)
})

life('a server that takes no verifiers is served by the other template, and still shut', async world => {
  const { target, server } = world
  server.takesVerifiers = false
  const account = target.mint()
  assert.match((await target.run('create', 'create-user', account)).error ?? '', /ORA-02153/)
  await target.done('create', 'create-user-password', { ...account, epoch: 2 })
  assert.is(enters(world, account), 'let in')
  await target.done('delete', 'drop-user', { ...account, epoch: 3 })
  server.takesVerifiers = true
  assert.is(enters(world, account), 'ORA-01017')
})

life('a user of that name that is not ours is never touched, nor one of Oracle’s own', async world => {
  const { target, server } = world
  const account = target.mint()
  server.addUser(account.name.toUpperCase(), 'theirs')
  assert.is((await target.run('create', 'create-user', account)).state, 'conflict')
  server.accounts?.set(account.name.toUpperCase(), {
    accountId: account.accountId, epoch: 1, holder: null, heldUntil: 0, gone: false
  })
  assert.is((await target.run('delete', 'drop-user', { ...account, epoch: 2 })).state, 'conflict')
  assert.is(enters(world, { ...account, password: 'theirs' }), 'let in')
  server.addUser('SYSTEM', 'manager', { maintained: true })
  const tried = await target.run('disable', 'lock-user', { ...target.mint('system', 'enable'), epoch: 2 })
  assert.equal([tried.state, tried.retryable], ['refused', false])
  assert.is(enters(world, { name: 'system', password: 'manager' }), 'let in')
})

life('what it owns keeps it, shut and named, or goes with CASCADE and is named too', async world => {
  const { target, server } = world
  const account = target.mint()
  await target.done('create', 'create-user', account)
  server.users.get(account.name.toUpperCase())!.objects.push({ kind: 'table', name: 'DRAFTS' })
  const kept = await target.run('delete', 'drop-user', { ...account, epoch: 2 })
  assert.equal([kept.state, kept.failedStep, kept.quarantined], ['refused', 'drop the user', true])
  assert.equal(kept.residue, [{ kind: 'table', name: `${account.name}: DRAFTS`, fate: 'left' }])
  assert.is(enters(world, account), 'ORA-01017', 'locked, and its password was replaced too')
  const gone = await target.done('delete', 'drop-user-cascade', { ...account, epoch: 3 })
  assert.equal(gone.residue, [{ kind: 'table', name: `${account.name}: DRAFTS`, fate: 'removed' }])
})

life('a session that lingers is waited for; a timed lock is no lock', async ({ target, server }) => {
  const account = target.mint()
  await target.done('create', 'create-user', account)
  server.session(account.name, account.password)
  const [session] = [...server.sessions.values()].filter(one => one.user === account.name.toUpperCase())
  session!.lingers = 4
  server.users.get(account.name.toUpperCase())!.status = 'LOCKED(TIMED)'
  assert.is((await target.look('drop-user', account)).enabled, true)
  await target.done('delete', 'drop-user', { ...account, epoch: 2 })
})

life('an existing user is on while it is used; roles come and go with a session', async world => {
  const { target, server } = world
  server.addUser('DEPLOY', 'her own', { status: 'LOCKED' })
  const account = target.mint('deploy', 'enable')
  await target.done('enable', 'unlock-user', account)
  assert.is(enters(world, account), 'let in')
  const off = await target.done('disable', 'lock-user', { ...account, epoch: 2 })
  assert.equal([off.seen?.exists, off.seen?.enabled], [true, false])
  server.users.get('DEPLOY')!.status = 'OPEN'
  assert.is(enters(world, account), 'ORA-01017', 'its password was replaced too')
  server.addUser('Clerk', 'x')
  const clerk = target.mint('"Clerk"', 'enable')
  await target.done('enable', 'grant-role', clerk, { roles: ['app_ro'] })
  assert.equal([...server.users.get('Clerk')?.roles ?? []], ['APP_RO'])
  await target.done('disable', 'revoke-role', { ...clerk, epoch: 2 }, { roles: ['app_ro'] })
  assert.equal([...server.users.get('Clerk')?.roles ?? []], [])
  const absent = await target.run('enable', 'unlock-user', target.mint('nobody_here', 'enable'))
  assert.equal([absent.state, absent.error], ['refused', 'there is no such user'])
})

life('a connection that breaks anywhere in a creation leaves nothing after a removal', async world => {
  const { target, server } = world
  const ended: string[] = []
  for (let statements = 1, broke = true; broke; statements++) {
    const account = target.mint()
    server.losesIn = statements
    ended.push((await target.run('create', 'create-user', account)).state)
    broke = server.losesIn <= 0
    server.losesIn = Infinity
    await target.done('delete', 'drop-user', { ...account, epoch: 2 })
    assert.is(server.users.has(account.name.toUpperCase()), false, `after ${statements}`)
  }
  assert.ok(ended.includes('unknown') && ended.at(-1) === 'done', ended.join(' '))
})

life('an older epoch and hostile values do nothing', async ({ target, server }) => {
  const account = target.mint()
  await target.done('create', 'create-user', { ...account, epoch: 5 })
  const stale = await target.run('delete', 'drop-user', { ...account, epoch: 4 })
  assert.equal([stale.state, stale.retryable], ['refused', false])
  await target.done('delete', 'drop-user', { ...account, epoch: 6 })
  for (const role of ['x" TO "HOOKS', 'a b', 'ü', "'", '\u02bc', 'x\0y', '"a"b"', 'a'.repeat(129)]) {
    const other = target.mint()
    assert.is((await target.run('create', 'create-user', other, { roles: [role] })).state, 'refused', role)
    await target.done('delete', 'drop-user', { ...other, epoch: 2 })
  }
  assert.equal([...server.users.get('HOOKS')?.roles ?? []], ['APP_RW', 'CREATE SESSION'])
})

life('templates prove passes, the sweep finds what is ours, missing rights are named', async world => {
  const { target, server } = world
  server.addUser('SCRATCH', 'x', { status: 'LOCKED' })
  for (const [opening, closing, username] of [
    ['create-user', 'drop-user', undefined], ['unlock-user', 'lock-user', 'scratch'],
    ['grant-role', 'revoke-role', 'scratch']
  ] as const) {
    const proof = await target.prove(opening, closing, username)
    assert.ok(proof.passed, JSON.stringify(proof.steps))
  }
  const account = target.mint()
  await target.done('create', 'create-user', account)
  const owned = await target.hooks.listOwned('oracle', target.access)
  assert.ok(owned.some(({ name, accountId }) => name === account.name && accountId === account.accountId))
  await target.done('delete', 'drop-user', { ...account, epoch: 2 })
  assert.equal((await target.hooks.probe('oracle', target.access, { roles: ['app_rw'] })).missingRights, [])
  server.addUser('BARE', 'bare')
  server.profiles.delete('SALLYPORT_JIT')
  const bare: Access = {
    ...target.access, username: 'bare', secret: { kind: 'password', password: new Secret('bare') }
  }
  const { missingRights } = await target.hooks.probe('oracle', bare, { roles: ['app_rw'] })
  for (const right of [...hooksPrivileges.slice(1), 'sys.dba_users', 'sys.gv_$session', '"APP_RW" TO']) {
    assert.ok(missingRights.some(line => line.includes(right)), `${right}: ${missingRights.join('\n')}`)
  }
  server.profiles.add('SALLYPORT_JIT')
})

life('the real driver says what is away, silent, or another one than it should be', async ({ target }) => {
  const now = systemClock.now().getTime()
  const { certificate, privateKey } = selfSignedCertificate({
    commonName: 'another', names: ['other.example.org'], validFrom: new Date(now - 3_600_000),
    validUntil: new Date(now + 3_600_000)
  })
  const secure = createServer({ cert: certificate, key: privateKey }, socket => {
    socket.on('error', () => undefined)
    socket.resume()
  })
  secure.on('tlsClientError', () => undefined)
  secure.listen(0, '127.0.0.1')
  await once(secure, 'listening')
  await using silent = await startLiar([])
  await using liar = await startLiar([Buffer.alloc(64, 4)])
  const kind = async (port: number, tls: Access['target']['tls'], database = 'orders'): Promise<unknown> => {
    const access = { ...target.access, target: { ...target.access.target, port, database, tls } }
    const hurried = { ...handContext(), connectTimeoutMs: 700 }
    return await connectOracle(access, hurried).catch(
      (error: { kind?: string }) => error.kind ?? String(error))
  }
  const { port } = secure.address() as AddressInfo
  assert.is(await kind(1, { mode: 'disable' }), 'unreachable')
  assert.is(await kind(silent.port, { mode: 'disable' }), 'timeout')
  assert.match(String(await kind(liar.port, { mode: 'disable' })), /^(?:unreachable|violation|timeout)$/)
  assert.is(await kind(port, { mode: 'verify-full' }), 'untrusted')
  assert.is(await kind(port, { mode: 'verify-full', ca: certificate }), 'untrusted', 'another name')
  assert.is(await kind(port, { mode: 'verify-ca', ca: certificate }), 'timeout', 'trusted, and then silent')
  assert.is(await kind(port, { mode: 'verify-ca' }), 'untrusted')
  assert.is(await kind(1, { mode: 'disable' }, 'x)(ADDRESS=(HOST=evil'), 'refused')
  assert.not(silent.heard().includes('of-the-hooks'))
  secure.close()
  assert.is(oracle.id, 'oracle')
})

life('lint reads Oracle’s SQL and refuses what the plugin owns', () => {
  const problemsOf = (steps: string): string => {
    try {
      return shelf.plugin('oracle').lint(parseTemplate(
        `id: oracle/mine\nplugin: oracle\naction: create\ntitle: Mine\nsteps:\n${steps}`)).join('; ')
    } catch (error) {
      return (error as { problems: string[] }).problems.join('; ')
    }
  }
  const cases: [string, RegExp][] = [
    ['  - sql: SELECT 1 FROM dual;', /semicolon/], ['  - sql: SELECT 1 -- x', /comment/],
    ["  - sql: SELECT q'[x]' FROM dual", /quote touches a word/],
    ['  - sql: \'SELECT "a""b" FROM dual\'', /touches a word or another quote/],
    ['  - sql: SELECT {{ verifier | binary }} FROM dual', /no constants of bytes/],
    ['  - sql: BEGIN NULL', /BEGIN is not for a step/],
    ['  - sql: ALTER SYSTEM SET x', /ALTER SYSTEM is not/],
    ['  - sql: CREATE USER a IDENTIFIED BY {{ password | literal }}', /IDENTIFIED BY VALUES/],
    ['  - { do: drop-user, with: { cascade: maybe } }', /yes or no/],
    ['  - do: nonsense', /there is no nonsense/],
    ['  - script: id', /no shell/]
  ]
  for (const [steps, form] of cases) assert.match(problemsOf(steps), form, steps)
  const { warnings } = shelf.admit(`id: oracle/mine\nplugin: oracle\naction: create\ntitle: Mine
steps:\n  - sql: CREATE USER {{ username | ident }} IDENTIFIED BY "{{ password }}"
  - sql: GRANT dba TO {{ username | ident }}`)
  for (const said of ['undo everything', 'without PROFILE', 'use TLS']) {
    assert.ok(warnings.some(line => line.includes(said)), said)
  }
})

life.run()
