// deadline: 120 s
// Accounts on MariaDB, made and taken away by the shipped templates through a hook login with the rights that
// the documents name: what a session can do with them, what nobody can do afterwards, and what is left.
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseTemplate } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'
import { connectMysql } from '../src/wire/mysql/client.ts'
import type { MysqlClient } from '../src/wire/mysql/client.ts'
import { startMariadb } from '../tool/mariadb.ts'
import type { MariadbServer } from '../tool/mariadb.ts'
import { PluginTarget, handContext, shelf } from './peers/plugin-target.ts'
import type { Account } from './peers/plugin-target.ts'

interface World {
  server: MariadbServer
  target: PluginTarget
}

const life = suite<World>('MariaDB')

const timeouts = { connectMs: 10_000, tlsMs: 10_000, loginMs: 10_000 }

life.before(async world => {
  world.server = await startMariadb({ tls: true, settings: ['--event-scheduler=ON', '--general-log=1'] })
  const { server } = world
  server.sql(`
    CREATE USER hooks@'%' IDENTIFIED BY 'of the hooks';
    GRANT CREATE USER, PROCESS, CONNECTION ADMIN, SHOW VIEW, TRIGGER ON *.* TO hooks@'%';
    GRANT SELECT, UPDATE ON mysql.* TO hooks@'%';
    GRANT ALL ON sallyport.* TO hooks@'%';
    CREATE DATABASE app;
    CREATE TABLE app.orders (id INT);
    CREATE ROLE app_rw; CREATE ROLE app_ro;
    GRANT SELECT, INSERT, CREATE, CREATE VIEW, CREATE ROUTINE ON app.* TO app_rw;
    GRANT SELECT ON app.* TO app_ro;
    GRANT app_rw TO hooks@'%' WITH ADMIN OPTION; GRANT app_ro TO hooks@'%' WITH ADMIN OPTION`)
  world.target = new PluginTarget('mysql', {
    target: {
      name: 'maria', protocol: 'mysql', host: server.host, port: server.port, tls: { mode: 'disable' }
    },
    username: 'hooks', secret: { kind: 'password', password: new Secret('of the hooks') }
  }, { roles: ['app_rw'] })
})
life.after(async ({ server, target }) => {
  target.close()
  await server.stop()
})

function login({ server }: World, { name, password }: Account): Promise<MysqlClient> {
  return connectMysql({
    host: server.host, port: server.port, tls: { mode: 'disable' }, username: name, timeouts,
    password: () => password
  })
}

const outcome = async (act: Promise<unknown>): Promise<string> => await act.then(
  () => 'done', () => 'refused'
)

life('an account logs in, has its role, and is gone afterwards with its session', async world => {
  const { target, server } = world
  const account = target.mint()
  const made = await target.done('create', 'create-user', account)
  assert.equal([made.seen?.ours, made.seen?.enabled, made.seen?.epoch], [true, true, 1])
  const work = 'INSERT INTO app.orders VALUES (1); SELECT CURRENT_ROLE()'
  const stock = server.as(account.name, account.password, work)
  assert.equal([stock.status, stock.output], [0, 'app_rw'])
  const session = await login(world, account)
  await session.query('INSERT INTO app.orders VALUES (2)', 5000)
  const removed = await target.done('delete', 'delete-user', { ...account, epoch: 2 })
  assert.equal(removed.seen, {
    exists: false, enabled: false, ours: false, epoch: undefined, sessions: 0, residue: []
  })
  assert.is(await outcome(session.query('INSERT INTO app.orders VALUES (3)', 5000)), 'refused')
  assert.is(await outcome(login(world, account)), 'refused')
  assert.is(server.sql('SELECT COUNT(*) FROM app.orders'), '2')
  assert.is((await target.done('delete', 'delete-user', { ...account, epoch: 3 })).changed, false)
})

// Promised: R15.
life('no password and nothing to log in with is in the log of the server', async ({ target, server }) => {
  const account = target.mint()
  await target.done('create', 'create-user', account)
  await target.done('delete', 'delete-user', { ...account, epoch: 2 })
  const log = server.sql('SELECT @@general_log_file')
  const text = readFileSync(`${server.base}/data/${log}`, 'utf8')
  assert.ok(text.includes(account.name), 'the log has the statements')
  assert.not(text.includes(account.password))
})

life('an account of that name that is not ours is never touched', async ({ target, server }) => {
  const account = target.mint()
  server.sql(`CREATE USER ${account.name}@'10.%' IDENTIFIED BY 'theirs'`)
  const before = server.sql(`SHOW CREATE USER ${account.name}@'10.%'`)
  const made = await target.run('create', 'create-user', account)
  assert.equal([made.state, made.code], ['conflict', 'account-conflict'])
  assert.is((await target.run('delete', 'delete-user', { ...account, epoch: 2 })).state, 'conflict')
  assert.is(server.sql(`SHOW CREATE USER ${account.name}@'10.%'`), before)
  server.sql(`DROP USER ${account.name}@'10.%'`)
})

life('creating what is ours already replaces the password and ends who had it', async world => {
  const { target } = world
  const account = target.mint()
  await target.done('create', 'create-user', account)
  const old = await login(world, account)
  const again = { ...target.mint(account.name), accountId: account.accountId, epoch: 2 }
  const made = await target.done('create', 'create-user', again)
  assert.is(made.seen?.epoch, 2)
  assert.is(await outcome(old.query('SELECT 1', 5000)), 'refused')
  assert.is(await outcome(login(world, account)), 'refused')
  ;(await login(world, again)).close()
  await target.done('delete', 'delete-user', { ...again, epoch: 3 })
})

life('an older epoch neither removes nor makes what a newer one has acted on', async ({ target }) => {
  const account = target.mint()
  await target.done('create', 'create-user', { ...account, epoch: 5 })
  const stale = await target.run('delete', 'delete-user', { ...account, epoch: 4 })
  assert.equal([stale.state, stale.retryable], ['refused', false])
  await target.done('delete', 'delete-user', { ...account, epoch: 6 })
  const late = await target.run('create', 'create-user', { ...account, epoch: 5 })
  assert.equal([late.state, (await target.look('delete-user', account)).exists], ['refused', false])
})

life('a creation that is refused half-way is undone by the removal', async ({ target }) => {
  const account = target.mint()
  const made = await target.run('create', 'create-user', account, { roles: ['no_such_role'] })
  assert.equal([made.state, made.failedStep], ['refused', 'give it its roles'], made.error)
  assert.is((await target.look('delete-user', account)).exists, true)
  await target.done('delete', 'delete-user', { ...account, epoch: 2 })
})

life('what names the account as its definer is listed as left', async world => {
  const { target, server } = world
  const account = target.mint()
  await target.done('create', 'create-user', account)
  const session = await login(world, account)
  await session.query('CREATE VIEW app.seen AS SELECT 1 AS one', 5000)
  await session.query('CREATE PROCEDURE app.act() SELECT 1', 5000)
  session.close()
  const removed = await target.done('delete', 'delete-user', { ...account, epoch: 2 })
  const left = removed.residue.map(({ kind, name, fate }) => `${fate} ${kind} ${name.split(' ')[0]}`)
  assert.equal(left.sort(), ['left procedure app.act', 'left view app.seen'])
  server.sql('DROP VIEW app.seen; DROP PROCEDURE app.act')
})

life('an existing account is on while it is used: every host is shut, sessions end', async world => {
  const { target, server } = world
  server.sql(`CREATE USER deploy@'%' IDENTIFIED BY 'x' ACCOUNT LOCK;
    CREATE USER deploy@localhost ACCOUNT LOCK`)
  const account = target.mint('deploy', 'enable')
  await target.done('enable', 'enable-user', account)
  const session = await login(world, account)
  server.sql(`ALTER USER deploy@localhost ACCOUNT UNLOCK; CREATE USER Deploy@'%' IDENTIFIED BY 'other'`)
  const other = await login(world, { ...account, name: 'Deploy', password: 'other' })
  const off = await target.done('disable', 'disable-user', { ...account, epoch: 2 })
  assert.equal([off.seen?.exists, off.seen?.enabled, off.seen?.sessions], [true, false, 0])
  assert.is(await outcome(session.query('SELECT 1', 5000)), 'refused')
  assert.is(await outcome(other.query('SELECT 1', 5000)), 'done', 'names differ by their case')
  other.close()
  server.sql(`ALTER USER deploy@'%' ACCOUNT UNLOCK`)
  assert.is(await outcome(login(world, account)), 'refused', 'its password was replaced too')
  const absent = await target.run('enable', 'enable-user', target.mint('nobody_here', 'enable'))
  assert.equal([absent.state, absent.error], ['refused', 'there is no such account'])
})

life('roles come and go with the session, the login stays', async world => {
  const { target, server } = world
  server.sql("CREATE USER clerk@'%' IDENTIFIED BY 'her own'")
  const account = { ...target.mint('clerk', 'enable'), password: 'her own' }
  await target.done('enable', 'grant-role', account, { roles: ['app_ro'] })
  const session = await login(world, account)
  await session.query('SET ROLE app_ro', 5000)
  await session.query('SELECT * FROM app.orders', 5000)
  await target.done('disable', 'revoke-role', { ...account, epoch: 2 }, { roles: ['app_ro'] })
  assert.is(await outcome(session.query('SELECT * FROM app.orders', 5000)), 'refused')
  const later = await login(world, account)
  assert.is(await outcome(later.query('SET ROLE app_ro', 5000)), 'refused')
  later.close()
  const again = await target.done('disable', 'revoke-role', { ...account, epoch: 3 }, { roles: ['app_ro'] })
  assert.is(again.changed, false)
})

life('the deadline locks the account and ends its sessions when all of us are gone (J16)', async world => {
  const { target } = world
  const account = target.mint()
  const soon = new Date(Date.now() + 2000).toISOString()
  await target.done('create', 'create-user', account, { expires_at: soon })
  const session = await login(world, account)
  const endsAt = performance.now() + 20_000
  while (await outcome(session.query('SELECT 1', 5000)) === 'done' && performance.now() < endsAt) {
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  assert.is(await outcome(login(world, account)), 'refused')
  assert.equal((await target.look('create-user', account)).enabled, false)
  await target.done('delete', 'delete-user', { ...account, epoch: 2 })
})

life('privileges of its own: words of a list on one database or table, and nothing else', async world => {
  const { target, server } = world
  server.sql(`CREATE DATABASE shop_a; CREATE TABLE shop_a.t (id INT); CREATE DATABASE shopxa;
    CREATE TABLE shopxa.t (id INT);
    GRANT SELECT, INSERT ON "shop\\_a".* TO hooks@'%' WITH GRANT OPTION`.replaceAll('"', '`'))
  const account = target.mint()
  const grant = { grant_what: ['select', 'INSERT'], grant_where: 'shop_a.*', roles: [] }
  await target.done('create', 'create-user-with-grant', account, grant)
  const session = await login(world, account)
  assert.is(await outcome(session.query('INSERT INTO shop_a.t VALUES (1)', 5000)), 'done')
  for (const sql of ['DELETE FROM shop_a.t', 'SELECT * FROM shopxa.t', 'SELECT * FROM app.orders']) {
    assert.is(await outcome(session.query(sql, 5000)), 'refused', sql)
  }
  await target.done('delete', 'delete-user', { ...account, epoch: 2 })
  const hostile: [what: string[], where: string][] = [
    [['SELECT ON *.* TO root@localhost --'], 'shop_a.*'], [['GRANT OPTION'], 'shop_a.*'], [[], 'shop_a.*'],
    [['ALL', 'SELECT'], 'shop_a.*'], [['SUPER'], 'shop_a.*'], [['SELECT'], '*.*'], [['SELECT'], 'mysql.*'],
    [['SELECT'], 'MySQL.user'], [['SELECT'], 'sallyport.accounts'], [['SELECT'], 'shop_a'],
    [['SELECT'], 'a.b.c'], [['SELECT'], '.t']
  ]
  for (const [words, where] of hostile) {
    const made = await target.run('create', 'create-user-with-grant', target.mint(),
      { grant_what: words, grant_where: where })
    assert.is(made.state, 'refused', `${words.join()} on ${where}`)
    assert.match(made.error ?? '', /grant_what or grant_where|must be a list/)
  }
  const quoted = await target.run('create', 'create-user-with-grant', target.mint(),
    { grant_what: ['SELECT'], grant_where: 'shop_a."t" TO root; --' })
  assert.is(quoted.failedStep, 'give it its privileges', quoted.error)
})

life('the deadline moves with a lease that is prolonged', async ({ target, server }) => {
  const account = target.mint()
  await target.done('create', 'create-user', account, { expires_at: '2030-01-01T00:00:00Z' })
  const year = (): string => server.sql(
    `SELECT YEAR(EXECUTE_AT) FROM information_schema.EVENTS WHERE EVENT_NAME = '${account.name}'`).trim()
  assert.is(year(), '2030')
  assert.is((await target.prolong(account)).state, 'done')
  assert.is(year(), '2038')
  await target.done('delete', 'delete-user', { ...account, epoch: 2 })
})

life('who holds the lock of an account to keep it alive is ended', async world => {
  const { target } = world
  const account = target.mint()
  await target.done('create', 'create-user', account)
  const session = await login(world, account)
  const held = await session.query(`SELECT GET_LOCK('sallyport:${account.name}', 1)`, 5000)
  assert.equal(held, [['1']])
  const removed = await target.run('delete', 'delete-user', { ...account, epoch: 2 })
  assert.is(removed.state, 'done', removed.error)
})

life('hostile values of a credential are values, or refused unsent', async ({ target, server }) => {
  const hosts = ["x' IDENTIFIED BY 'y", "'; DROP DATABASE app; '", 'a"b', 'ü%', 'a\\', '-- x', '$$', '`']
  for (const host of hosts) {
    const account = target.mint()
    const made = await target.run('create', 'create-user', account, { host })
    const rows = server.sql(`SELECT COUNT(*) FROM mysql.global_priv WHERE User = '${account.name}'`)
    if (made.state === 'done') await target.done('delete', 'delete-user', { ...account, epoch: 2 })
    else assert.equal([made.state, rows], ['refused', '0'], `${host}: ${made.error}`)
  }
  assert.is(server.sql("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'app'"), '1')
})

life('a line that breaks anywhere in a creation leaves nothing that a removal does not take', async world => {
  const ended = await world.target.breakLines('create-user', 'delete-user')
  assert.ok(ended.includes('unknown') && ended.at(-1) === 'done', ended.join(' '))
})

life('templates prove passes: nothing remains', async ({ target, server }) => {
  const pairs = [
    ['create-user', 'delete-user'], ['enable-user', 'disable-user'], ['grant-role', 'revoke-role']
  ]
  server.sql("CREATE USER IF NOT EXISTS scratch@'%' ACCOUNT LOCK")
  for (const [opening = '', closing = ''] of pairs) {
    const proof = await target.prove(opening, closing, opening === 'create-user' ? undefined : 'scratch')
    assert.ok(proof.passed, JSON.stringify(proof.steps))
  }
})

life('accounts of ours are found for the sweep, and what is gone is not', async ({ target }) => {
  const [one, two] = [target.mint(), target.mint()]
  await target.done('create', 'create-user', one)
  await target.done('create', 'create-user', two)
  await target.done('delete', 'delete-user', { ...two, epoch: 2 })
  const owned = await target.hooks.listOwned('mysql', target.access)
  assert.ok(owned.some(({ name, accountId }) => name === one.name && accountId === one.accountId))
  assert.not(owned.some(({ name }) => name === two.name))
  await target.done('delete', 'delete-user', { ...one, epoch: 2 })
})

life('a login without rights is told each of them with its grant', async ({ target, server }) => {
  const complete = await target.hooks.probe('mysql', target.access, { roles: ['app_rw'] })
  assert.equal(complete.missingRights, [])
  assert.match(complete.version, /^10\.|^11\./)
  server.sql("CREATE USER bare@'%' IDENTIFIED BY 'bare'")
  const secret = { kind: 'password', password: new Secret('bare') } as const
  const bare = { ...target.access, username: 'bare', secret }
  const { missingRights } = await target.hooks.probe('mysql', bare, { roles: ['app_rw'] })
  const rights = [
    'CREATE USER', 'PROCESS', 'CONNECTION ADMIN', 'mysql"."global_priv', '"sallyport".*', '"app_rw" TO'
  ]
  for (const right of rights) {
    assert.ok(missingRights.some(line => line.includes(right)), `${right}: ${missingRights.join('\n')}`)
  }
  // The statements are ready to be pasted.
  const grants = missingRights.map(line => line.slice(line.indexOf('GRANT ')))
  for (const grant of grants) server.sql(`SET sql_mode = 'ANSI_QUOTES'; ${grant}`)
  assert.equal((await target.hooks.probe('mysql', bare, { roles: ['app_rw'] })).missingRights, [])
})

life('a server that is away is unreachable, a wrong password is refused', async ({ target }) => {
  const account = target.mint()
  const job = target.job('create', 'create-user', account)
  const wrong = { ...target.access, secret: { kind: 'password', password: new Secret('wrong') } as const }
  assert.is((await target.hooks.run({ ...job, access: wrong })).code, 'target-refused')
  const away = { ...target.access, target: { ...target.access.target, name: 'away', port: 1 } }
  assert.is((await target.hooks.run({ ...job, access: away })).code, 'target-unreachable')
  const secure = { ...target.access.target, name: 'tls', tls: { mode: 'verify-full' } as const }
  const unknown = { ...target.access, target: secure }
  assert.is((await target.hooks.run({ ...job, access: unknown })).code, 'target-untrusted')
  const outcomeLate = await target.plugin.run(
    target.access, target.template('create-user'), account, { ...target.variables, ...account.minted },
    handContext(() => 0))
  assert.is(outcomeLate.state, 'refused')
  assert.is((await target.look('delete-user', account)).exists, false)
})

life('hooks go through TLS when the target says so', async ({ target, server }) => {
  const ca = readFileSync(server.caFile, 'utf8')
  const secure = { ...target.access.target, name: 'tls', tls: { mode: 'verify-full', ca } as const }
  const access = { ...target.access, target: secure }
  const account = target.mint()
  const made = await target.hooks.run({ ...target.job('create', 'create-user', account), access })
  assert.is(made.state, 'done', made.error)
  await target.done('delete', 'delete-user', { ...account, epoch: 2 })
})

/** A packet of the protocol: length, place, body. */
function packet(place: number, body: string): Buffer {
  const bytes = Buffer.from(body, 'latin1')
  return Buffer.concat([Buffer.of(bytes.length & 0xff, bytes.length >> 8, 0, place), bytes])
}

life('a server that asks for files, for the password in clear, or lies gets nothing', async ({ target }) => {
  const zeros = '\0'.repeat(10)
  const greeting = packet(0, `\n8.0.0\0aaaa12345678\0\xff\xf7-\0\0\xff\xff\x15${zeros}123456789012\0`
    + 'mysql_native_password\0')
  const ok = packet(2, '\0\0\0\x02\0\0\0')
  const clear = packet(2, '\xfemysql_clear_password\0')
  const full = [packet(2, '\xfecaching_sha2_password\0aaaaaaaaaaaaaaaaaaaa\0'), packet(4, '\x01\x04')]
  const endless = Buffer.concat([packet(1, '\x01'), packet(2, 'x'), packet(3, 'no end of the columns')])
  const cases: [lies: Buffer[], code: string][] = [
    [[greeting, clear], 'target-untrusted'],
    [[greeting, ...full], 'target-untrusted'],
    [[greeting, packet(2, '\xff\x15\x04#28000no')], 'target-refused'],
    [[greeting, packet(7, '\0')], 'target-violation'],
    [[greeting, ok, packet(1, '\xfb/etc/passwd')], 'target-violation'],
    [[greeting, ok, endless], 'target-violation'],
    [[Buffer.of(0xff, 0xff, 0xff, 0)], 'target-violation'],
    [[packet(0, '\n8.0')], 'target-violation']
  ]
  for (const [number, [lies, code]] of cases.entries()) {
    const made = await target.deceive(number, lies)
    assert.is(made.code, code, `${number}: ${made.error}`)
    assert.not(made.heard.includes('of the hooks') || made.heard.includes('root:'), made.heard)
  }
})

life('lint refuses what would be read in two ways or shows a password', () => {
  const problemsOf = (action: string, steps: string): readonly string[] =>
    shelf.plugin('mysql').lint(parseTemplate(
      `id: mysql/mine\nplugin: mysql\naction: ${action}\ntitle: Mine\nsteps:\n${steps}`))
  const cases: [string, RegExp][] = [
    ['  - sql: DROP USER `a`', /backquote/],
    ["  - sql: SELECT 'a\\b'", /backslash/],
    ['  - sql: SELECT 1 -- x', /comment/],
    ['  - sql: "SELECT 1 # x"', /comment/],
    ["  - sql: CREATE USER {{ username | literal }} IDENTIFIED BY 'clear'", /clear password/],
    ["  - sql: SET sql_mode = ''", /SET is not for a step/],
    ['  - do: nonsense', /there is no nonsense/],
    ['  - { do: arm-deadline }', /arm-deadline needs it/],
    ['  - { do: grant-roles }', /reads this list/],
    ['  - script: id', /no shell/]
  ]
  for (const [steps, form] of cases) {
    const problems = problemsOf('create', steps)
    assert.ok(problems.some(problem => form.test(problem)), `${steps}: ${problems.join('; ')}`)
  }
  const { warnings } = shelf.admit(`id: mysql/mine\nplugin: mysql\naction: create\ntitle: Mine
steps:\n  - sql: GRANT SUPER ON *.* TO {{ username | literal }}`)
  for (const said of ['undo everything', 'arm-deadline']) {
    assert.ok(warnings.some(line => line.includes(said)), said)
  }
})

life.run()
