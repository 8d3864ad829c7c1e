// deadline: 120 s
// Logins of SQL Server, made and taken away by the shipped templates through the stock driver, against a
// double that keeps the server's rules (peers/mssql-server.ts): no server of Microsoft's was at hand. What a
// session can do with a login, what nobody can do afterwards, what is left; and what the driver is not let
// do.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ourHolder } from '../plugins/books.ts'
import { loadDriver } from '../plugins/apart/load.ts'
import type { Client } from '../plugins/apart/words.ts'
import { connectMssql, passwordHash, sidOf } from '../plugins/mssql/link.ts'
import type { Access } from '../src/jit/plugin.ts'
import { parseTemplate } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'
import { serverRights, startMssql } from './peers/mssql-server.ts'
import type { MssqlDouble, MssqlServer } from './peers/mssql-server.ts'
import { PluginTarget, handContext, shelf, startLiar } from './peers/plugin-target.ts'
import type { Account } from './peers/plugin-target.ts'

interface World {
  double: MssqlDouble
  server: MssqlServer
  target: PluginTarget
}

const life = suite<World>('SQL Server (a double)')
const [create, remove] = ['create-login-user', 'delete-login-user']

const hooksSecret = { kind: 'password', password: new Secret('of-the-hooks') } as const

life.before(async world => {
  world.double = await startMssql()
  world.server = world.double.server
  const { host, port } = world.double
  world.target = new PluginTarget('mssql', {
    target: { name: 'sql', protocol: 'mssql', host, port, tls: { mode: 'disable' } },
    username: 'hooks', secret: hooksSecret
  }, { database: 'app', roles: ['app_rw'] })
})
life.before.each(({ server }) => {
  server.before = () => undefined
})
life.after(async ({ double, target }) => {
  target.close()
  await double[Symbol.asyncDispose]()
})

function login({ target }: World, { name, password }: Pick<Account, 'name' | 'password'>): Promise<Client> {
  const secret = { kind: 'password', password: new Secret(password) } as const
  return connectMssql({ ...target.access, username: name, secret }, handContext())
}

const outcome = async (act: Promise<unknown>): Promise<string> => await act.then(
  () => 'done', () => 'refused'
)

function rolesOf(server: MssqlServer, account: string): string[] {
  const roles = server.databases.get('app')?.roles ?? new Map<string, { members: Set<string> }>()
  return [...roles].filter(([, { members }]) => members.has(account)).map(([role]) => role)
}

life('a login is let in, has its role, and is gone afterwards with its session and its user', async world => {
  const { target, server } = world
  const account = target.mint()
  const made = await target.done('create', create, account)
  assert.equal([made.seen?.ours, made.seen?.enabled, made.seen?.epoch], [true, true, 1])
  assert.equal(rolesOf(server, account.name), ['app_rw'])
  const session = await login(world, account)
  assert.equal(await session.query('SELECT SUSER_SNAME()', 5000), [[account.name]])
  const removed = await target.done('delete', remove, { ...account, epoch: 2 })
  assert.equal(removed.seen, {
    exists: false, enabled: false, ours: false, epoch: undefined, sessions: 0, residue: []
  })
  assert.is(await outcome(session.query('SELECT SUSER_SNAME()', 5000)), 'refused')
  assert.is(await outcome(login(world, account)), 'refused')
  assert.is(server.databases.get('app')?.users.has(sidOf(account)), false)
  assert.is((await target.done('delete', remove, { ...account, epoch: 3 })).changed, false)
})

life('the hash is the one that SQL Server stores; no password is in a statement', async world => {
  const { target, server } = world
  // The example of hashcat's mode 1731, whose password is its name.
  assert.is(passwordHash('hashcat', Buffer.from('01020304', 'hex')).toLowerCase(),
    '0x02000102030434ea1b17802fd95ea6316bd61d2c94622ca3812793e8fb1672487b5c904a45a31b2ab4a78890d563d2fcf566'
    + '3e46fe797d71550494be50cf4915d3f4d55ec375')
  const account = target.mint()
  server.log.length = 0
  await target.done('create', create, account)
  await target.done('delete', remove, { ...account, epoch: 2 })
  const said = server.log.join('\n')
  assert.match(said, /CREATE LOGIN \[jit_\d+\] WITH PASSWORD = 0x0200[0-9A-F]{136} HASHED/)
  assert.not(said.includes(account.password) || said.includes('of-the-hooks'))
})

life('a login of that name that is not ours is never touched, whatever our table says', async world => {
  const { target, server } = world
  const account = target.mint()
  server.addLogin(account.name, 'theirs')
  const theirs = { ...server.logins.get(account.name) }
  assert.is((await target.run('create', create, account)).state, 'conflict')
  server.accounts?.set(account.name, {
    accountId: account.accountId, epoch: 1, holder: '', heldUntil: 0, goneAt: undefined
  })
  const removed = await target.run('delete', remove, { ...account, epoch: 2 })
  assert.equal([removed.state, removed.code], ['conflict', 'account-conflict'])
  assert.equal({ ...server.logins.get(account.name) }, theirs)
  server.logins.delete(account.name)
})

life('creating what is ours already replaces the password and ends who had it', async world => {
  const { target } = world
  const account = target.mint()
  await target.done('create', create, account)
  const old = await login(world, account)
  const again = { ...target.mint(account.name), accountId: account.accountId, epoch: 2 }
  assert.is((await target.done('create', create, again)).seen?.epoch, 2)
  assert.is(await outcome(old.query('SELECT SUSER_SNAME()', 5000)), 'refused')
  assert.is(await outcome(login(world, account)), 'refused')
  ;(await login(world, again)).close()
  await target.done('delete', remove, { ...again, epoch: 3 })
})

life('an older epoch does nothing after a newer one, nor a process while another one acts', async world => {
  const { target, server } = world
  const account = target.mint()
  await target.done('create', create, { ...account, epoch: 5 })
  const stale = await target.run('delete', remove, { ...account, epoch: 4 })
  assert.equal([stale.state, stale.retryable], ['refused', false])
  const row = server.accounts?.get(account.name)
  assert.is(row?.holder, ourHolder)
  Object.assign(row ?? {}, { holder: 'another process', heldUntil: Date.parse('2099-01-01') })
  const tried = await target.plugin.run(target.access, target.template(remove), { ...account, epoch: 6 },
    target.variables, handContext())
  assert.match(JSON.stringify(tried), /another hook is acting/)
  assert.ok(server.logins.has(account.name))
  Object.assign(row ?? {}, { heldUntil: 0 })
  await target.done('delete', remove, { ...account, epoch: 6 })
  const late = await target.run('create', create, { ...account, epoch: 5 })
  assert.equal([late.state, server.logins.has(account.name)], ['refused', false])
})

life('a hold that another process took ends an action before its next step', async ({ target, server }) => {
  const account = target.mint()
  server.before = sql => {
    if (!/^CREATE LOGIN/.test(sql)) return undefined
    Object.assign(server.accounts?.get(account.name) ?? {}, { holder: 'faster', heldUntil: Infinity })
    return undefined
  }
  const made = await target.run('create', create, account)
  assert.equal([made.state, made.failedStep], ['refused', 'make its user'])
  assert.match(made.error ?? '', /hold on jit_\d+ was lost/)
  server.before = () => undefined
  Object.assign(server.accounts?.get(account.name) ?? {}, { heldUntil: 0 })
  await target.done('delete', remove, { ...account, epoch: 2 })
})

life('a creation that is refused half-way is undone by the removal', async ({ target }) => {
  const account = target.mint()
  const made = await target.run('create', create, account, { roles: ['no_such_role'] })
  assert.equal([made.state, made.failedStep], ['refused', 'give it its roles'], made.error)
  assert.match(made.error ?? '', /15151/)
  assert.is((await target.look(remove, account)).exists, true)
  await target.done('delete', remove, { ...account, epoch: 2 })
})

life('what its user owns goes to dbo and is on the receipt', async ({ target, server }) => {
  const account = target.mint()
  await target.done('create', create, account)
  const app = server.databases.get('app')!
  app.schemas.set('wo]rk', account.name)
  app.roles.set('helpers', { owner: account.name, members: new Set() })
  app.objects.push({ schema: 'dbo', name: "it's", owner: account.name })
  const removed = await target.done('delete', remove, { ...account, epoch: 2 })
  assert.equal(removed.residue.map(({ kind, name, fate }) => `${fate} ${kind} ${name}`), [
    'reassigned schema database app: wo]rk', 'reassigned role database app: helpers',
    "reassigned object database app: dbo.it's"
  ])
  assert.equal([app.schemas.get('wo]rk'), app.roles.get('helpers')?.owner], ['dbo', 'dbo'])
})

life('users of a login that somebody else dropped are removed all the same', async ({ target, server }) => {
  const account = target.mint()
  await target.done('create', create, account)
  server.logins.delete(account.name)
  const left = await target.look(remove, account)
  assert.equal([left.exists, left.ours, left.enabled], [true, true, false])
  assert.is((await target.done('delete', remove, { ...account, epoch: 2 })).seen?.exists, false)
  assert.is(server.databases.get('app')?.users.has(sidOf(account)), false)
})

life('databases and jobs of the login keep it: shut, named, and tried again', async ({ target, server }) => {
  const account = target.mint()
  await target.done('create', create, account)
  server.addDatabase('hers').owner = sidOf(account)
  server.jobs.push({ name: 'nightly', owner: sidOf(account) })
  const kept = await target.run('delete', remove, { ...account, epoch: 2 })
  assert.equal([kept.state, kept.failedStep, kept.quarantined], ['refused', 'drop the login', true])
  const left = kept.residue.map(({ kind, name }) => `${kind} ${name.split(' ')[0]}`)
  assert.equal(left.sort(), ['database hers', 'job nightly'])
  server.databases.delete('hers')
  server.jobs.length = 0
  await target.done('delete', remove, { ...account, epoch: 3 })
})

life('a session that rolls back is waited for; a database nobody may look into is named', async world => {
  const { target, server } = world
  const account = target.mint()
  await target.done('create', create, account)
  const session = await login(world, account)
  const [, mine] = [...server.sessions].find(([, one]) => one.login === account.name) ?? []
  mine!.rollback = 4
  server.addDatabase('vault').isShut = true
  const removed = await target.done('delete', remove, { ...account, epoch: 2 })
  assert.equal(removed.residue.map(({ kind, name }) => `${kind} ${name}`),
    ['database vault (could not be looked into)'])
  assert.is(await outcome(session.query('SELECT SUSER_SNAME()', 5000)), 'refused')
  server.databases.delete('vault')
})

life('an existing login is on while it is used; its password is another one each time', async world => {
  const { target, server } = world
  server.addLogin('deploy', 'her own')
  server.logins.get('deploy')!.isDisabled = true
  const account = target.mint('deploy', 'enable')
  await target.done('enable', 'enable-login', account)
  const session = await login(world, account)
  const off = await target.done('disable', 'disable-login', { ...account, epoch: 2 })
  assert.equal([off.seen?.exists, off.seen?.enabled, off.seen?.sessions], [true, false, 0])
  assert.is(await outcome(session.query('SELECT SUSER_SNAME()', 5000)), 'refused')
  server.logins.get('deploy')!.isDisabled = false
  assert.is(await outcome(login(world, account)), 'refused', 'its password was replaced too')
  const absent = await target.run('enable', 'enable-login', target.mint('nobody_here', 'enable'))
  assert.equal([absent.state, absent.error], ['refused', 'there is no such login'])
})

life('roles come and go with the session, the login stays', async world => {
  const { target, server } = world
  server.addLogin('clerk', 'her own')
  server.databases.get('app')!.users.set(server.sid('clerk'), 'the clerk')
  const account = { ...target.mint('clerk', 'enable'), password: 'her own' }
  await target.done('enable', 'grant-role', account, { roles: ['app_ro'] })
  assert.equal(rolesOf(server, 'the clerk'), ['app_ro'])
  const session = await login(world, account)
  await target.done('disable', 'revoke-role', { ...account, epoch: 2 }, { roles: ['app_ro'] })
  assert.equal(rolesOf(server, 'the clerk'), [])
  assert.is(await outcome(session.query('SELECT SUSER_SNAME()', 5000)), 'refused')
  ;(await login(world, account)).close()
})

life('hostile values of a credential are values, or refused unsent', async ({ target, server }) => {
  const values = [
    'x]; DROP LOGIN [hooks]; --', "'; SHUTDOWN; --", 'a]b', 'ü', '\\\n', "N''", 'x\0y', 'a'.repeat(129)
  ]
  for (const value of values) {
    const account = target.mint()
    const made = await target.run('create', create, account, { roles: [value] })
    assert.is(made.state, 'refused', value)
    await target.done('delete', remove, { ...account, epoch: 2 })
    const database = await target.run('create', create, account, { database: value })
    assert.is(database.state, 'refused', value)
    assert.is(server.logins.has(account.name), false, value)
  }
  assert.ok(server.logins.has('hooks'))
  assert.ok(server.log.every(sql => !/^\s*(?:SHUTDOWN|DROP LOGIN \[hooks)/.test(sql)))
})

life('a connection that breaks anywhere in a creation leaves nothing after a removal', async world => {
  const { target, server } = world
  const ended: string[] = []
  for (let batches = 1, broke = true; broke; batches += 2) {
    const account = target.mint()
    server.losesIn = batches
    ended.push((await target.run('create', create, account)).state)
    broke = server.losesIn <= 0
    server.losesIn = Infinity
    await target.done('delete', remove, { ...account, epoch: 2 })
    assert.is(server.logins.has(account.name), false, `after ${batches}`)
  }
  assert.ok(ended.includes('unknown') && ended.at(-1) === 'done', ended.join(' '))
})

life('templates prove passes: nothing remains', async ({ target, server }) => {
  server.addLogin('scratch', 'x')
  server.logins.get('scratch')!.isDisabled = true
  server.databases.get('app')!.users.set(server.sid('scratch'), 'scratch')
  const pairs = [[create, remove], ['enable-login', 'disable-login'], ['grant-role', 'revoke-role']]
  for (const [opening = '', closing = ''] of pairs) {
    const proof = await target.prove(opening, closing, opening === create ? undefined : 'scratch')
    assert.ok(proof.passed, JSON.stringify(proof.steps))
  }
})

life('logins of ours are found for the sweep, and what is gone is not', async ({ target }) => {
  const [one, two] = [target.mint(), target.mint()]
  await target.done('create', create, one)
  await target.done('create', create, two)
  await target.done('delete', remove, { ...two, epoch: 2 })
  const owned = await target.hooks.listOwned('mssql', target.access)
  assert.ok(owned.some(({ name, accountId }) => name === one.name && accountId === one.accountId))
  assert.not(owned.some(({ name }) => name === two.name))
  await target.done('delete', remove, { ...one, epoch: 2 })
})

life('a login without rights is told each of them with its grant', async ({ target, server }) => {
  const complete = await target.hooks.probe('mssql', target.access, { database: 'app' })
  assert.equal([complete.missingRights, complete.version], [[], '16.0.1000.6'])
  server.addLogin('bare', 'bare')
  const secret = { kind: 'password', password: new Secret('bare') } as const
  const bare = { ...target.access, username: 'bare', secret }
  const { missingRights } = await target.hooks.probe('mssql', bare, { database: 'app' })
  for (const right of [...serverRights, 'in sallyport', 'in app']) {
    assert.ok(missingRights.some(line => line.includes(right)), `${right}: ${missingRights.join('\n')}`)
  }
})

life('what is away, refuses, is another one or has no TLS has a code, and hears no password', async world => {
  const { target, double, server } = world
  const job = target.job('create', create, target.mint())
  const code = async (change: Partial<Access['target']>, secret: Access['secret'] = hooksSecret):
  Promise<string | undefined> => {
    const address = { ...target.access.target, name: `other ${JSON.stringify(change)}`, ...change }
    return (await target.hooks.run({ ...job, access: { ...target.access, target: address, secret } })).code
  }
  const verified = { mode: 'verify-full', ca: double.ca } as const
  assert.is(await code({}, { kind: 'password', password: new Secret('wrong') }), 'target-refused')
  assert.is(await code({ port: 1 }), 'target-unreachable')
  assert.is(await code({ tls: { mode: 'verify-full' } }), 'target-untrusted')
  assert.is(await code({ tls: { ...verified, serverName: 'sql.example.org' } }), 'target-untrusted')
  assert.is(await code({ tls: { mode: 'verify-ca' } }), 'target-untrusted')
  const entered: string[] = []
  const enter = double.options.login
  double.options.login = (one, close) => {
    entered.push(one.username)
    return enter(one, close)
  }
  double.options.deniesTls = true
  assert.is(await code({ tls: { mode: 'require' } }), 'target-untrusted', 'says that it has no TLS')
  assert.equal(entered, [], 'and hears no login')
  double.options.deniesTls = false
  double.options.redirect = double.port
  assert.is(await code({ database: 'app' }), 'target-untrusted', 'sends us elsewhere')
  assert.is(entered.length, 1)
  Object.assign(double.options, { redirect: undefined, login: enter })
  await using silent = await startLiar([])
  const hurried = { ...handContext(), connectTimeoutMs: 200 }
  const quiet = { ...target.access, target: { ...target.access.target, port: silent.port } }
  const waited = await connectMssql(quiet, hurried).catch((error: { kind?: string }) => error.kind)
  assert.is(waited, 'timeout')
  assert.not.match(silent.heard(), /of-the-hooks/)
  assert.is(server.logins.has(job.account.name), false)
})

life('hooks go through TLS when the target says so', async ({ target, double }) => {
  for (const tls of [{ mode: 'require' }, { mode: 'verify-full', ca: double.ca }] as const) {
    const access = { ...target.access, target: { ...target.access.target, name: tls.mode, tls } }
    const account = target.mint()
    const made = await target.hooks.run({ ...target.job('create', create, account), access })
    assert.is(made.state, 'done', made.error)
    await target.done('delete', remove, { ...account, epoch: 2 })
  }
})

life('an answer that is late or too long ends the connection', async ({ target, server }) => {
  const client = await connectMssql(target.access, handContext())
  server.before = sql => /SUSER_SNAME/.test(sql)
    ? { rows: Array.from({ length: 10_001 }, () => ['x']) }
    : undefined
  const long = await client.query('SELECT SUSER_SNAME()', 5000)
    .catch((error: { reason?: string }) => error.reason)
  // The driver may break over what still comes before it can say why it was ended.
  assert.ok(['too-large', 'violation'].includes(long as string), String(long))
  server.before = () => undefined
  assert.match(String(await client.query('SELECT SUSER_SNAME()', 5000).catch(String)), /closed|gave up/)
  client.close()
})

/** A packet of the server's. */
function packet(...tokens: number[]): Buffer {
  return Buffer.from([4, 1, 0, tokens.length + 8, 0, 0, 1, 0, ...tokens])
}

life('bytes that the driver cannot take end its thread, and nothing else', async ({ target }) => {
  const opening = packet(0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 0xff, 16, 0, 0x10, 0, 0, 0, 2)
  const lies: Buffer[][] = [
    [opening, packet(0x42, 1, 2, 3)], [opening, packet(0x81, 0xff, 0xff, 1)], [packet(0, 0xff, 0xff)]
  ]
  for (const [number, said] of lies.entries()) {
    await using liar = await startLiar(said)
    const address = { ...target.access.target, name: `liar ${number}`, port: liar.port }
    const account = target.mint()
    const made = await target.plugin.run(
      { ...target.access, target: address }, target.template(create), account,
      { ...target.variables, ...account.minted }, { ...handContext(), connectTimeoutMs: 500 }
    ).catch((error: { code?: string }) => error.code)
    assert.match(String(made), /^target-(?:violation|unreachable)$/, `${number}`)
  }
})

life('a driver that is not installed is named, with how to get it', async () => {
  const said = await loadDriver('no-such-driver', '1.2.3').catch(
    (error: { code?: string, detail?: string }) => `${error.code}: ${error.detail}`)
  assert.is(said, 'prerequisite-missing: the package no-such-driver is not installed here: '
    + 'npm install no-such-driver@1.2.3')
})

life('lint reads T-SQL and refuses what the plugin owns or what shows a password', () => {
  const problemsOf = (steps: string): string => {
    try {
      return shelf.plugin('mssql').lint(parseTemplate(
        `id: mssql/mine\nplugin: mssql\naction: create\ntitle: Mine\nsteps:\n${steps}`)).join('; ')
    } catch (error) {
      return (error as { problems: string[] }).problems.join('; ')
    }
  }
  const cases: [string, RegExp][] = [
    ["  - sql: SELECT 'a\\b'", /backslash/], ['  - sql: SELECT 1 -- x', /comment/],
    ['  - sql: SELECT 1 /* x */', /comment/], ['  - sql: SELECT 1; SELECT 2', /more than one/],
    ['  - sql: "SELECT [{{ username | ident }}]"', /quotes around|brings its own/],
    ['  - sql: "SELECT N{{ username | literal }}"', /touches a word/],
    ['  - sql: "SELECT x{{ username | ident }}"', /touches a word/],
    ['  - sql: "SELECT [a"', /not closed/], ['  - sql: "SELECT [a]]"', /not closed/],
    ['  - sql: "CREATE LOGIN a WITH PASSWORD = {{ verifier | literal }}"', /clear password/],
    ["  - sql: ALTER LOGIN a WITH PASSWORD = N'x' HASH", /clear password/],
    ['  - sql: USE app', /USE is not for a step/], ['  - sql: KILL 51', /KILL is not for a step/],
    ['  - do: nonsense', /there is no nonsense/], ['  - { do: make-user }', /make-user needs it/],
    ['  - script: id', /no shell/]
  ]
  for (const [steps, form] of cases) assert.match(problemsOf(steps), form, steps)
  const fine = '  - sql: "ALTER LOGIN [{{ username }}] WITH PASSWORD = {{ verifier | binary }} HASHED;"'
  assert.is(problemsOf(fine), '')
  const { warnings } = shelf.admit(`id: mssql/mine\nplugin: mssql\naction: create\ntitle: Mine
steps:\n  - sql: "CREATE LOGIN {{ username | ident }} WITH PASSWORD = {{ verifier | binary }} HASHED"
  - sql: ALTER SERVER ROLE sysadmin ADD MEMBER {{ username | ident }}`)
  for (const said of ['undo everything', 'without SID']) {
    assert.ok(warnings.some(line => line.includes(said)), said)
  }
})

life.run()
