// What accounts of PostgreSQL leave behind, and how they try to stay: each trick is played by a real session
// on PostgreSQL 15 and 18, against a hook login that is no superuser. In the end the role is proved gone and
// its estate is listed, or the role is shut and the reason is named.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { HookResult } from '../src/jit/hook.ts'
import { startJitTarget } from './peers/jit-target.ts'
import type { JitTarget } from './peers/jit-target.ts'

function fates({ residue }: HookResult): string[] {
  return residue.map(({ kind, name, fate }) => `${fate} ${kind}: ${name}`)
}

function gone(result: HookResult): void {
  assert.is(
    result.state, 'done', `${result.failedStep ?? ''} ${result.error ?? ''} ${fates(result).join('\n')}`
  )
  assert.equal([result.seen?.exists, result.seen?.sessions], [false, 0])
}

for (const version of ['15', '18'] as const) {
  const estate = suite<{ target: JitTarget }>(`PostgreSQL ${version}`)

  estate.before(async context => {
    context.target = await startJitTarget({ version })
  })
  estate.after(async ({ target }) => {
    await target[Symbol.asyncDispose]()
  })

  estate('data in two databases goes to the graveyard, privileges go away', async ({ target }) => {
    const account = await target.create()
    for (const database of ['app', 'other']) {
      const session = await target.login(account, database)
      await session.run('CREATE TABLE mine (id serial PRIMARY KEY, note text)')
      await session.run('INSERT INTO mine (note) VALUES (1)')
      await session.run('CREATE SCHEMA my_schema')
      await session.run('CREATE VIEW my_schema.seen AS SELECT * FROM mine')
      await session.run('CREATE TYPE mood AS ENUM (\'good\')')
      await session.run('SELECT lo_create(0)')
      await session.run('GRANT SELECT ON mine TO PUBLIC')
      await session.run('ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC')
      await session.close()
    }
    const removed = await target.remove(account)
    gone(removed)
    const listed = fates(removed)
    for (const database of ['app', 'other']) {
      assert.ok(
        listed.includes(`reassigned table: database ${database}: table public.mine`), listed.join('\n')
      )
      assert.ok(listed.some(line => line.startsWith(`reassigned large object: database ${database}:`)))
      assert.ok(listed.some(line => line.startsWith(`removed default acl: database ${database}:`)))
      assert.is(await target.server.psql('SELECT note FROM mine', database), '1')
      const owner = await target.server.psql(
        "SELECT tableowner FROM pg_tables WHERE tablename = 'mine'", database
      )
      assert.is(owner, 'sallyport_graveyard')
      assert.is(await target.server.psql('SELECT count(*) FROM pg_default_acl', database), '0')
    }
  })

  estate('a security-definer function is dropped, or made harmless', async ({ target }) => {
    const account = await target.create()
    const session = await target.login(account)
    await session.run('CREATE FUNCTION trap() RETURNS int LANGUAGE sql SECURITY DEFINER AS \'SELECT 1\'')
    const body = "LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NEW; END'"
    await session.run(`CREATE FUNCTION needed() RETURNS trigger ${body}`)
    await session.run('CREATE TRIGGER spring BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION needed()')
    await session.close()
    const first = await target.remove(account)
    // The trigger sits on somebody else's table: the function can neither go nor change hands.
    assert.is(first.state, 'refused', fates(first).join('\n'))
    assert.ok(first.quarantined)
    const listed = fates(first)
    assert.ok(
      listed.includes('removed security-definer function: database app: public.trap()'), listed.join('\n')
    )
    assert.ok(
      listed.some(line => line.startsWith('left security-definer function: database app: public.needed()'))
    )
    assert.ok(listed.some(line => line.startsWith('left trigger: database app: spring on public.orders')))
    const definers = 'SELECT count(*) FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner '
      + "WHERE p.prosecdef AND r.rolname IN ('sallyport_graveyard', $$NAME$$)"
    assert.is(await target.server.psql(definers.replace('NAME', account.name), 'app'), '0')
    // The owner of the table takes the trigger away; the next try succeeds.
    await target.server.psql('DROP TRIGGER spring ON orders', 'app')
    gone(await target.remove(account))
  })

  estate('code that cannot change hands is dropped and listed', async ({ target }) => {
    const account = await target.create()
    const session = await target.login(account)
    await session.run('CREATE FUNCTION plain(int) RETURNS int LANGUAGE sql AS \'SELECT $1\'')
    await session.run('CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int)')
    await session.run('CREATE TABLE two (a int, b int)')
    await session.run('CREATE STATISTICS both_columns ON a, b FROM two')
    await session.run('CREATE PUBLICATION news FOR TABLE two')
    await session.close()
    const removed = await target.remove(account)
    gone(removed)
    const listed = fates(removed)
    const code = [
      'function plain(integer)', 'function total(integer)', 'statistics object both_columns',
      'publication news'
    ]
    for (const name of code) {
      const found = listed.some(
        line => line.startsWith('removed') && line.replaceAll('public.', '').endsWith(name)
      )
      assert.ok(found, `${name}\n${listed.join('\n')}`)
    }
    assert.ok(listed.includes('reassigned table: database app: table public.two'))
  })

  estate('foreign servers and mappings with their stored passwords go away (F32)', async ({ target }) => {
    await target.server.psql('CREATE FOREIGN DATA WRAPPER wires', 'app')
    await target.server.psql('CREATE SERVER shared FOREIGN DATA WRAPPER wires', 'app')
    await target.server.psql('GRANT USAGE ON FOREIGN DATA WRAPPER wires TO app_rw', 'app')
    await target.server.psql('GRANT USAGE ON FOREIGN SERVER shared TO app_rw', 'app')
    const account = await target.create()
    const session = await target.login(account)
    await session.run('CREATE SERVER mine FOREIGN DATA WRAPPER wires')
    await session.run("CREATE USER MAPPING FOR CURRENT_USER SERVER shared OPTIONS (password 'stored')")
    await session.close()
    const removed = await target.remove(account)
    gone(removed)
    assert.ok(fates(removed).includes('removed server: database app: server mine'), fates(removed).join('\n'))
    assert.ok(fates(removed).some(line => line.startsWith('removed user mapping: database app: ')))
    assert.is(await target.server.psql('SELECT count(*) FROM pg_user_mappings', 'app'), '0')
  })

  // Promised: F29.
  estate('somebody who logs in again and again and locks the role is shut out too', async ({ target }) => {
    const account = await target.create()
    const session = await target.login(account)
    await session.run("ALTER ROLE CURRENT_USER PASSWORD 'mine-now'")
    await session.close()
    const inject = { kind: 'password', password: { expose: () => 'mine-now' } } as never
    let stopped = false
    const hammer = async (): Promise<void> => {
      while (!stopped) {
        try {
          const again = await target.login({ ...account, inject })
          await again.run('BEGIN')
          await again.run("ALTER ROLE CURRENT_USER PASSWORD 'mine-now'")
          await again.run('SELECT pg_sleep(60)')
        } catch {
          // Thrown out, or not let in: at once again, until somebody says that it is over.
          await new Promise(resolve => setTimeout(resolve, 20))
        }
      }
    }
    const hammers = Promise.all([hammer(), hammer(), hammer()])
    await new Promise(resolve => setTimeout(resolve, 200))
    const removed = await target.remove(account)
    stopped = true
    await hammers
    gone(removed)
  })

  // Before 16 only a superuser may touch such a role, so such templates need a superuser's login there.
  if (
    version === '18'
  ) estate('slots of a stronger role are named, its subscriptions dropped', async ({ target }) => {
    const account = await target.create()
    await target.server.psql(
      `ALTER ROLE ${account.name} REPLICATION; GRANT pg_create_subscription TO ${account.name}`
    )
    const session = await target.login(account)
    await session.run("SELECT pg_create_physical_replication_slot('kept_slot')")
    const options = "CONNECTION 'host=nowhere password=x' PUBLICATION news WITH (connect = false)"
    await session.run(`CREATE SUBSCRIPTION far ${options}`)
    await session.close()
    const removed = await target.remove(account)
    gone(removed)
    assert.ok(fates(removed).includes('left replication-slot: kept_slot'), fates(removed).join('\n'))
    assert.ok(fates(removed).includes(
      'removed subscription: database app: subscription far'
    ), fates(removed).join('\n'))
    assert.is(await target.server.psql('SELECT count(*) FROM pg_subscription'), '0')
    await target.server.psql("SELECT pg_drop_replication_slot('kept_slot')")
  })

  estate('live sessions are ended, also one that holds locks on its own role', async ({ target }) => {
    const account = await target.create()
    const idle = await target.login(account)
    const busy = await target.login(account, 'other')
    const running = busy.run('SELECT pg_sleep(60)').then(() => 'lived', () => 'ended')
    const locking = await target.login(account)
    await locking.run('BEGIN')
    await locking.run("ALTER ROLE CURRENT_USER PASSWORD 'mine-now'")
    await locking.run('CREATE TABLE half (id int)')
    const removed = await target.remove(account)
    gone(removed)
    assert.is(await running, 'ended')
    assert.is(await idle.run('SELECT 1').then(() => 'lived', () => 'ended'), 'ended')
    await Promise.all([idle.close(), busy.close(), locking.close()])
  })

  estate('a role is not dropped under a session that is slow to end', async ({ target }) => {
    const account = await target.create()
    const session = await target.login(account)
    const [pid] = await session.run('SELECT pg_backend_pid()')
    process.kill(Number(pid), 'SIGSTOP')
    setTimeout(() => process.kill(Number(pid), 'SIGCONT'), 500)
    const removed = await target.remove(account)
    gone(removed)
    // A session whose role was dropped under it would be listed here.
    assert.equal(fates(removed), [])
    await session.close()
  })

  estate('a stranger who takes our lock is ended', async ({ target }) => {
    const account = await target.create()
    await target.server.psql("CREATE ROLE accomplice LOGIN PASSWORD 'accomplice'")
    const inject = { kind: 'password', password: { expose: () => 'accomplice' } } as never
    const stranger = await target.login({ ...account, name: 'accomplice', inject }, 'postgres')
    await stranger.run(`SELECT pg_advisory_lock(hashtextextended('sallyport:${account.name}', 0))`)
    gone(await target.remove(account))
    assert.is(await stranger.run('SELECT 1').then(() => 'lived', () => 'ended'), 'ended')
    await stranger.close()
  })

  // Promised: F32.
  estate('prepared transactions are rolled back, also one that locks the role itself', async ({ target }) => {
    const account = await target.create()
    const session = await target.login(account, 'other')
    await session.run('BEGIN')
    await session.run('CREATE TABLE prepared (id int)')
    await session.run("PREPARE TRANSACTION 'one''s'")
    await session.run('BEGIN')
    await session.run("ALTER ROLE CURRENT_USER PASSWORD 'mine-now'")
    await session.run("PREPARE TRANSACTION 'two'")
    await session.close()
    const removed = await target.remove(account)
    gone(removed)
    assert.equal(fates(removed).filter(line => line.includes('prepared')).sort(), [
      "removed prepared-transaction: database other: one's",
      'removed prepared-transaction: database other: two'
    ])
    assert.is(await target.server.psql('SELECT count(*) FROM pg_prepared_xacts'), '0')
  })

  estate('what the account cannot do to stay (F32)', async ({ target }) => {
    const account = await target.create()
    const session = await target.login(account)
    const refused = [
      "ALTER ROLE CURRENT_USER VALID UNTIL 'infinity'", 'ALTER ROLE CURRENT_USER CONNECTION LIMIT -1',
      'CREATE ROLE friend LOGIN', `GRANT ${account.name} TO app_ro`, 'ALTER ROLE CURRENT_USER SUPERUSER',
      'CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION now()', "COPY orders TO PROGRAM 'id'",
      "SELECT pg_create_physical_replication_slot('mine')", 'CREATE DATABASE mine',
      `COMMENT ON ROLE ${account.name} IS 'not theirs'`, 'CREATE EXTENSION dblink',
      "CREATE SUBSCRIPTION mine CONNECTION 'host=nowhere' PUBLICATION news WITH (connect = false)"
    ]
    for (const sql of refused) {
      { assert.is(await session.run(sql).then(() => 'done', () => 'refused'), 'refused', sql) }
    }
    await session.close()
    gone(await target.remove(account))
  })

  // Promised: J16.
  estate('a lock of somebody else keeps the role, shut; the next try removes it', async ({ target }) => {
    const account = await target.create()
    const session = await target.login(account)
    await session.run('CREATE TABLE watched (id int)')
    await session.run('GRANT SELECT ON watched TO PUBLIC')
    await session.close()
    await target.server.psql("CREATE ROLE reader LOGIN PASSWORD 'reader'")
    const inject = { kind: 'password', password: { expose: () => 'reader' } } as never
    const reader = await target.login({ ...account, name: 'reader', inject })
    await reader.run('BEGIN')
    await reader.run('SELECT * FROM watched')
    const first = await target.remove(account)
    assert.equal(
      [first.state, first.retryable, first.quarantined], ['refused', true, true], JSON.stringify(first)
    )
    assert.is(await target.login(account).then(() => 'in', () => 'refused'), 'refused')
    await reader.run('ROLLBACK')
    await reader.close()
    gone(await target.remove({ ...account, epoch: 2 }))
  })

  estate('a database that takes no connections keeps the role, shut, until it does', async ({ target }) => {
    const account = await target.create()
    const session = await target.login(account, 'other')
    await session.run('CREATE TABLE locked_away (id int)')
    await session.close()
    await target.server.psql('ALTER DATABASE other ALLOW_CONNECTIONS false')
    const first = await target.remove(account)
    await target.server.psql('ALTER DATABASE other ALLOW_CONNECTIONS true')
    assert.equal([first.state, first.quarantined], ['refused', true])
    assert.ok(
      fates(first).includes('left database: database other: takes no connections'), fates(first).join('\n')
    )
    gone(await target.remove({ ...account, epoch: 2 }))
  })

  estate.run()
}
