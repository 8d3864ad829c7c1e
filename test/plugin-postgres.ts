// Accounts on PostgreSQL 15 and 18, made and taken away by the shipped templates through a hook login that is
// no superuser: what a session can do with them, what nobody can do afterwards, and who wins when two act at
// once.
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { systemClock } from '../src/clock.ts'
import type { HookContext } from '../src/jit/plugin.ts'
import { parseTemplate } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'
import { adminRole } from '../tool/postgres.ts'
import { shippedTemplate, startJitTarget } from './peers/jit-target.ts'
import type { JitTarget } from './peers/jit-target.ts'

const outcome = async (act: Promise<unknown>): Promise<string> => await act.then(
  () => 'done', () => 'refused'
)

function context(remainingMs: () => number = () => 30_000): HookContext {
  return {
    signal: AbortSignal.timeout(60_000), connectTimeoutMs: 10_000, statementTimeoutMs: 10_000, remainingMs,
    now: () => systemClock.now(), log: () => undefined
  }
}

function template(action: string, steps: string): ReturnType<typeof parseTemplate> {
  return parseTemplate(
    `id: postgres/mine\nplugin: postgres\naction: ${action}\ntitle: Mine\nsteps:\n${steps}`
  )
}

for (const version of ['15', '18'] as const) {
  const life = suite<{ target: JitTarget, logStart: number }>(`PostgreSQL ${version}`)

  life.before(async state => {
    state.target = await startJitTarget(
      { version, settings: { log_statement: 'all', log_min_messages: 'info' } }
    )
    // The DBA's own set-up, with the password of the hook login in clear, is before this.
    state.logStart = readFileSync(state.target.server.logFile).length
  })
  life.after(async ({ target }) => {
    await target[Symbol.asyncDispose]()
  })

  life('an account logs in with its keys, has its roles, and is gone afterwards', async ({ target }) => {
    const account = await target.create(['app_rw', 'app_ro'])
    const session = await target.login(account)
    await session.run('INSERT INTO orders VALUES (1)')
    const rights = await session.run(`
      SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolconnlimit, rolvaliduntil
      FROM pg_roles WHERE rolname = current_user`)
    assert.equal(rights, ['f|f|f|f|f|5|2099-01-01 00:00:00+00'])
    const roles = `SELECT string_agg(roleid::regrole::text, ' ' ORDER BY roleid::regrole::text)
      FROM pg_auth_members WHERE member = '${account.name}'::regrole`
    assert.is(await target.server.psql(roles), 'app_ro app_rw sallyport_jit')
    const removed = await target.remove(account)
    assert.is(removed.state, 'done')
    assert.equal(removed.seen, { exists: false, enabled: false, ours: false, sessions: 0, residue: [] })
    assert.is(await outcome(session.run('SELECT 1')), 'refused')
    assert.is(await outcome(target.login(account)), 'refused')
    await session.close()
  })

  life('no password exists: the target holds a verifier of one iteration (J14)', async ({ target }) => {
    const account = await target.create()
    const stored = await target.server.psql(
      `SELECT rolpassword FROM pg_authid WHERE rolname = '${account.name}'`
    )
    assert.match(stored, /^SCRAM-SHA-256\$1:/)
    await target.remove(account)
  })

  life('removing what is not there is done and changes nothing, twice too', async ({ target }) => {
    const account = await target.create()
    assert.equal(
      [(await target.remove(account)).changed, (await target.remove(account)).changed], [true, false]
    )
    const never = target.mint()
    const removed = await target.remove(never)
    assert.equal([removed.state, removed.changed], ['done', false])
  })

  life('a role of the same name that is not ours is never touched', async ({ target }) => {
    const account = target.mint()
    await target.server.psql(
      `CREATE ROLE ${account.name} LOGIN PASSWORD 'theirs'; COMMENT ON ROLE ${account.name} IS 'hers'`
    )
    const state = `SELECT rolcanlogin, rolpassword, shobj_description(oid, 'pg_authid') FROM pg_authid
      WHERE rolname = '${account.name}'`
    const before = await target.server.psql(state)
    const made = await target.hooks.run(
      target.job('create', 'create-role', account, { roles: [], ...account.minted })
    )
    assert.equal([made.state, made.code, made.retryable], ['conflict', 'account-conflict', false])
    assert.is((await target.remove(account)).state, 'conflict')
    assert.is(await target.server.psql(state), before)
    await target.server.psql(`DROP ROLE ${account.name}`)
  })

  life('creating what is ours already replaces the secret; the old one is worthless', async ({ target }) => {
    const account = await target.create()
    const again = { ...target.mint(account.name), accountId: account.accountId, epoch: 2 }
    const made = await target.hooks.run(
      target.job('create', 'create-role', again, { roles: ['app_rw'], ...again.minted })
    )
    assert.equal([made.state, made.seen?.epoch], ['done', 2])
    assert.is(await outcome(target.login(account)), 'refused')
    await (await target.login(again)).close()
    await target.remove(again)
  })

  life('an older epoch does not remove what a newer one has acted on', async ({ target }) => {
    const account = await target.create()
    const newer = { ...account, epoch: 5 }
    const variables = { roles: ['app_rw'], ...target.mint().minted }
    assert.is((await target.hooks.run(target.job('create', 'create-role', newer, variables))).state, 'done')
    const stale = await target.hooks.run(target.job('delete', 'delete-role', { ...account, epoch: 4 }))
    assert.equal([stale.state, stale.retryable], ['refused', false])
    assert.equal((await target.look(account)).exists, true)
    await target.remove(newer)
  })

  life('nothing is done after the claim has lapsed, by our clock or by the target\'s', async ({ target }) => {
    const account = target.mint()
    const job = target.job('create', 'create-role', account, { roles: [], ...account.minted })
    const late = await target.hooks.run({ ...job, claimEndsMs: systemClock.monotonicMs() - 1 })
    assert.equal([late.state, (await target.look(account)).exists], ['refused', false])
    // A node whose own clock stands still: the target's does not.
    const made = await target.create()
    const slow = template('delete', `
  - sql: SELECT pg_sleep(0.5)
  - do: terminate-sessions
  - do: drop-role`)
    const stalled = await target.plugin.run(
      target.access, slow, { ...made, epoch: 2 }, {}, context(() => 200)
    )
    assert.is(stalled.state, 'refused')
    assert.ok(stalled.state === 'refused' && stalled.error.includes('lapsed'), JSON.stringify(stalled))
    assert.is((await target.look(made)).exists, true)
    assert.is((await target.remove({ ...made, epoch: 2 })).state, 'done')
  })

  life('a removal waits for a creation that is under way and removes it', async ({ target }) => {
    const account = target.mint()
    const slow = template('create', `
  - sql: CREATE ROLE {{ username | ident }} LOGIN
  - sql: SELECT pg_sleep(0.5)`)
    const creating = target.plugin.run(target.access, slow, account, account.minted, context())
    await new Promise(resolve => setTimeout(resolve, 200))
    const removed = await target.plugin.run(
      target.access, shippedTemplate('delete-role'), { ...account, epoch: 2 }, {}, context())
    assert.is((await creating).state, 'done')
    assert.ok(removed.state === 'done' && removed.changed, JSON.stringify(removed))
    assert.is((await target.look(account)).exists, false)
  })

  life('a creation whose second statement fails leaves nothing', async ({ target }) => {
    const account = target.mint()
    const half = template('create', `
  - sql: CREATE ROLE {{ username | ident }} LOGIN PASSWORD {{ verifier | literal }}
  - { name: give, sql: 'GRANT absent_role TO {{ username | ident }}' }`)
    const made = await target.hooks.run(target.job('create', half, account, account.minted))
    assert.equal([made.state, made.failedStep, made.code], ['refused', 'give', 'hook-failed'])
    assert.is((await target.look(account)).exists, false)
  })

  life('steps in each database, ignored errors and undo do what they say', async ({ target }) => {
    const account = target.mint()
    const text = template('create', `
  - sql: CREATE ROLE {{ username | ident }} LOGIN
  - { sql: 'DROP ROLE absent_role', ignore: ['42704'] }
  - { eachDatabase: true, sql: 'CREATE SCHEMA {{ username | ident }}' }
  - { name: breaks, sql: 'SELECT 1 / 0' }
undo:
  - { eachDatabase: true, sql: 'DROP SCHEMA {{ username | ident }}' }`)
    await target.server.psql(`GRANT CREATE ON DATABASE postgres, template1, app, other TO "hook admin"`)
    const made = await target.hooks.run(target.job('create', text, account, {}))
    assert.equal([made.state, made.failedStep, made.code], ['refused', 'breaks', 'hook-failed'])
    for (const database of ['app', 'other']) {
      assert.is(await target.server.psql(
        `SELECT count(*) FROM pg_namespace WHERE nspname = '${account.name}'`, database
      ), '0')
    }
    assert.is((await target.remove(account)).state, 'done')
    assert.is((await target.look(account)).exists, false)
  })

  life('a value reaches a DO block through a setting, in the same transaction', async ({ target }) => {
    const account = target.mint()
    const text = template('create', `
  - sql: CREATE ROLE {{ username | ident }} LOGIN
  - sql: SELECT set_config('my.user', {{ username | literal }}, true)
  - sql: |
      DO $$ BEGIN
        EXECUTE format('ALTER ROLE %I SET application_name = %L', current_setting('my.user'), 'it''s set');
      END $$`)
    const made = await target.hooks.run(target.job('create', text, account, {}))
    assert.is(made.state, 'done', made.error)
    const setting = `SELECT setconfig FROM pg_db_role_setting WHERE setrole = '${account.name}'::regrole`
    assert.is(await target.server.psql(setting), `{"application_name=it's set"}`)
    await target.remove(account)
  })

  life('an existing role is on from enable to disable, with a new secret each time', async ({ target }) => {
    await target.server.psql(
      `CREATE ROLE "Lo'ng ""name" NOLOGIN; COMMENT ON ROLE "Lo'ng ""name" IS 'owned by Eve'`
    )
    const account = target.mint('Lo\'ng "name', 'enable')
    const missing = (
      await target.hooks.probe('postgres', target.access, { username: account.name })
    ).missingRights
    assert.is(missing.length, version === '18' ? 1 : 0)
    for (const right of missing) await target.server.psql(right.slice(right.lastIndexOf(': ') + 2))
    const on = await target.hooks.run(target.job('enable', 'enable-role', account, account.minted))
    assert.equal([on.state, on.seen?.enabled], ['done', true], on.error)
    const session = await target.login(account)
    await session.run("ALTER ROLE CURRENT_USER SET search_path = 'trap, public'")
    await session.run("ALTER ROLE CURRENT_USER IN DATABASE app SET statement_timeout = '1ms'")
    await session.run("ALTER ROLE CURRENT_USER PASSWORD 'mine-now'")
    const off = await target.hooks.run(target.job('disable', 'disable-role', { ...account, epoch: 2 }))
    assert.equal([off.state, off.seen?.enabled, off.seen?.sessions], ['done', false, 0], off.error)
    assert.equal(off.residue.map(({ name, fate }) => `${fate} ${name}`).sort(), [
      'removed database app: statement_timeout=1ms', 'removed search_path="trap, public"'
    ])
    assert.is(await outcome(session.run('SELECT 1')), 'refused')
    assert.is(await outcome(target.login(account)), 'refused')
    const left = await target.server.psql(`
      SELECT rolpassword IS NULL, (SELECT count(*) FROM pg_db_role_setting WHERE setrole = a.oid),
        shobj_description(oid, 'pg_authid') FROM pg_authid a WHERE rolname LIKE 'Lo%'`)
    assert.is(left, `t|0|owned by Eve\nsallyport account=${account.accountId} epoch=2`)
    // The disable of an older claim comes late: it must not shut the newer session out.
    const fresh = { ...target.mint(account.name, 'enable'), accountId: account.accountId, epoch: 4 }
    await target.hooks.run(target.job('enable', 'enable-role', fresh, fresh.minted))
    const late = await target.hooks.run(target.job('disable', 'disable-role', { ...account, epoch: 3 }))
    assert.equal([late.state, late.retryable], ['refused', false])
    assert.is(await outcome(target.login(account)), 'refused')
    await (await target.login(fresh)).close()
    await target.hooks.run(target.job('disable', 'disable-role', { ...account, epoch: 5 }))
    await session.close()
  })

  life('privileges only: the account keeps its login and loses its roles', async ({ target }) => {
    await target.server.psql("CREATE ROLE standing LOGIN PASSWORD 'standing-password'")
    if (version === '18') await target.server.psql('GRANT standing TO "hook admin" WITH ADMIN OPTION')
    const account = target.mint('standing', 'enable')
    const variables = { roles: ['app_rw'] }
    const inject = { kind: 'password', password: new Secret('standing-password') } as const
    const on = await target.hooks.run(target.job('enable', 'grant-role', account, variables))
    assert.equal([on.state, on.seen?.enabled], ['done', true], on.error)
    const session = await target.login({ ...account, inject })
    await session.run('SET ROLE app_rw')
    const off = await target.hooks.run(
      target.job('disable', 'revoke-role', { ...account, epoch: 2 }, variables)
    )
    assert.equal([off.state, off.seen?.exists, off.seen?.enabled], ['done', true, false], off.error)
    assert.is(await outcome(session.run('SELECT 1')), 'refused')
    await session.close()
    const later = await target.login({ ...account, inject })
    assert.is(await outcome(later.run('INSERT INTO orders VALUES (2)')), 'refused')
    await later.close()
  })

  life('the sweep finds accounts by their marker', async ({ target }) => {
    const account = await target.create()
    const owned = await target.hooks.listOwned('postgres', target.access)
    assert.ok(owned.some(({ name, accountId }) => name === account.name && accountId === account.accountId))
    assert.not.ok(
      owned.some(({ name }) => ['hook admin', 'app_rw', 'sallyport_jit', 'postgres'].includes(name))
    )
    await target.remove(account)
  })

  life('a probe names what is missing, with the statement that grants it', async ({ target }) => {
    const sound = await target.hooks.probe('postgres', target.access, { roles: ['app_rw'] })
    assert.equal(sound.missingRights, [])
    assert.is(sound.version.startsWith(version), true)
    await target.server.psql("CREATE ROLE weak LOGIN PASSWORD 'weak'; CREATE ROLE boss SUPERUSER NOLOGIN")
    await target.server.psql(
      'REVOKE CONNECT ON DATABASE other FROM PUBLIC; GRANT CONNECT ON DATABASE other TO app_rw'
    )
    const access = {
      ...target.access, username: 'weak', secret: { kind: 'password', password: new Secret('weak') } as const
    }
    const weak = await target.hooks.probe('postgres', access, { roles: ['app_rw', 'boss', 'absent'] })
    await target.server.psql('GRANT CONNECT ON DATABASE other TO PUBLIC')
    const grants = weak.missingRights.map(sentence => sentence.slice(sentence.indexOf(': ') + 2))
    assert.ok(grants.includes('ALTER ROLE "weak" CREATEROLE'), weak.missingRights.join('\n'))
    assert.ok(grants.includes(`CREATE ROLE "absent" NOLOGIN${version === '18' ? ' ADMIN "weak"' : ''}`))
    assert.ok(grants.includes('GRANT "boss" TO "weak" WITH ADMIN OPTION'))
    assert.ok(grants.includes('GRANT CONNECT ON DATABASE "other" TO "weak"'))
    assert.is(grants.includes('GRANT "app_rw" TO "weak" WITH ADMIN OPTION'), version === '18')
    // Each statement is the cure.
    for (const grant of grants) await target.server.psql(grant)
    assert.equal((
      await target.hooks.probe('postgres', access, { roles: ['app_rw', 'boss', 'absent'] })
    ).missingRights, [])
    await target.server.psql('DROP OWNED BY weak', 'other')
    await target.server.psql('DROP ROLE weak; DROP ROLE boss; DROP ROLE absent')
  })

  life('a superuser as hook login works, and one without pg_signal_backend too', async ({ target }) => {
    const strong = await adminRole(target.server, { name: 'strong', kind: 'superuser' })
    await target.server.psql("CREATE ROLE unsignalled LOGIN CREATEROLE PASSWORD 'unsignalled'")
    const groups = ['app_rw', 'sallyport_jit', 'sallyport_graveyard'].join(', ')
    await target.server.psql('CREATE ROLE sallyport_graveyard NOLOGIN').catch(() => undefined)
    await target.server.psql(`GRANT ${groups} TO unsignalled WITH ADMIN OPTION`)
    for (
      const [username, password] of [[strong.name, strong.password], ['unsignalled', 'unsignalled']] as const
    ) {
      const access = {
        ...target.access, username, secret: { kind: 'password', password: new Secret(password) } as const
      }
      const account = target.mint()
      const job = target.job('create', 'create-role', account, { roles: ['app_rw'], ...account.minted })
      const made = await target.hooks.run({ ...job, access })
      assert.is(made.state, 'done', made.error)
      const session = await target.login(account)
      await session.run('CREATE TABLE theirs (id int)')
      const removed = await target.hooks.run(
        { ...target.job('delete', 'delete-role', { ...account, epoch: 2 }), access }
      )
      assert.is(removed.state, 'done', `${removed.failedStep} ${removed.error}`)
      assert.is(await outcome(session.run('SELECT 1')), 'refused')
      await session.close()
      await target.server.psql('DROP TABLE theirs', 'app')
    }
  })

  // Promised: R14, R15.
  life('the log of the target holds no secret, only verifiers; nor do our own lines and errors', async (
    { target, logStart }
  ) => {
    const account = await target.create()
    const broken = await target.hooks.run(target.job('create', 'create-role', target.mint(), {
      roles: ['absent_role'], ...account, ...target.mint().minted
    } as never))
    assert.is(broken.state, 'refused')
    await target.remove(account)
    const log = readFileSync(target.server.logFile).subarray(logStart).toString()
    assert.ok(log.includes('CREATE ROLE') && log.includes('SCRAM-SHA-256$1:'), 'statements are logged')
    const password = target.access.secret.kind === 'password' ? target.access.secret.password.expose() : ''
    const { inject } = account
    const clientKey = inject.kind === 'scram-keys' ? Buffer.from(inject.clientKey.expose()) : Buffer.alloc(0)
    const secrets = [password, Buffer.from(password).toString('base64')]
    for (const encoding of ['base64', 'base64url', 'hex'] as const) secrets.push(clientKey.toString(encoding))
    for (const text of [log, target.log.join('\n'), JSON.stringify(broken)]) {
      { for (const secret of secrets) assert.not.ok(text.includes(secret)) }
    }
  })

  life.run()
}
