// Jobs of pg_cron outlive their role, and no catalogue says that they are its. A real pg_cron keeps them in
// another database than the one where hooks connect; the account has its rights on them through a group only,
// so that nothing but the job itself speaks of it.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { programOf } from '../tool/services.ts'
import { startJitTarget } from './peers/jit-target.ts'
import type { JitTarget } from './peers/jit-target.ts'

let target: JitTarget

test.before(async () => {
  programOf('pg-cron')
  target = await startJitTarget({
    version: '15', settings: { shared_preload_libraries: 'pg_cron', 'cron.database_name': 'app' }
  })
  await target.server.psql('CREATE EXTENSION pg_cron; GRANT USAGE ON SCHEMA cron TO app_rw', 'app')
  await target.server.psql(`GRANT pg_read_all_settings TO "${target.access.username}"`)
})

test.after(async () => {
  await target[Symbol.asyncDispose]()
})

test('jobs that an account left are taken away and listed, those of others stay (F32)', async () => {
  await target.server.psql("SELECT cron.schedule('theirs', '0 0 1 1 *', 'SELECT 1')", 'app')
  const account = await target.create()
  const session = await target.login(account)
  await session.run("SELECT cron.schedule('0 3 * * *', 'SELECT 2')")
  await session.run("SELECT cron.schedule('mine', '0 4 * * *', 'SELECT 3')")
  await session.close()
  const removed = await target.remove(account)
  assert.is(removed.state, 'done', removed.error)
  assert.equal(removed.residue.filter(({ kind }) => kind === 'cron job'), [
    { kind: 'cron job', name: 'database app: 0 3 * * * SELECT 2', fate: 'removed' },
    { kind: 'cron job', name: 'database app: 0 4 * * * SELECT 3', fate: 'removed' }
  ])
  assert.is(await target.server.psql('SELECT jobname FROM cron.job', 'app'), 'theirs')
})

test('an account without jobs leaves nothing to list', async () => {
  const removed = await target.remove(await target.create())
  assert.equal([removed.state, removed.residue], ['done', []])
})

test('jobs that cannot be reached are said to be left', async () => {
  const account = await target.create()
  const session = await target.login(account)
  await session.run("SELECT cron.schedule('0 3 * * *', 'SELECT 2')")
  await session.close()
  await target.server.psql('REVOKE EXECUTE ON FUNCTION cron.unschedule(bigint) FROM PUBLIC', 'app')
  const removed = await target.remove(account)
  assert.ok(removed.residue.some(({ kind, fate }) => kind === 'cron jobs' && fate === 'left'))
})

test.run()
