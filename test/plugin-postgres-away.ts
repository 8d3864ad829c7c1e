// A PostgreSQL that is away, hangs, or drops the line in the middle: each ends in a coded answer within the
// limits, the account is removed as soon as the server is back, and the waiting removals are told so. And
// proving template pairs.
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { Server, Socket } from 'node:net'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { shippedPlugins } from '../plugins/shipped.ts'
import { systemClock } from '../src/clock.ts'
import { createHooks } from '../src/jit/hooks.ts'
import type { Access } from '../src/jit/plugin.ts'
import { proveTemplates } from '../src/jit/prove.ts'
import { createShelf } from '../src/jit/shelf.ts'
import { parseTemplate } from '../src/jit/template.ts'
import { shippedTemplate, startJitTarget } from './peers/jit-target.ts'
import type { JitTarget } from './peers/jit-target.ts'

// Nothing keeps this process alive while a hook waits for others to join it: none does here.
const limits = {
  gatherMs: 0, connectMs: 700, statementMs: 1500, actionMs: 6000, pauseMs: 100, pauseMaxMs: 300
}
const away = suite<{ target: JitTarget }>('PostgreSQL that is away')

away.before(async context => {
  context.target = await startJitTarget({ version: '18', limits })
})
away.after(async ({ target }) => {
  await target[Symbol.asyncDispose]()
})

/**
 * Passes bytes on to the server until `cutAt` says so of what comes from the client; then cuts both sides. A
 * number: that many bytes of it still reach the server; true: all.
 */
async function cutter(target: JitTarget, cutAt: (clientText: string) => boolean | number): Promise<{
  server: Server, access: Access
}> {
  const server = createServer((client: Socket) => {
    const upstream = connect(target.server.port, target.server.host)
    client.on('error', () => undefined)
    upstream.on('error', () => undefined)
    client.on('data', chunk => {
      const cut = cutAt(chunk.toString('latin1'))
      upstream.write(typeof cut === 'number' ? chunk.subarray(0, cut) : chunk)
      if (cut === false) return
      // The server has the statement; its answer never arrives.
      client.pause()
      upstream.removeAllListeners('data')
      setTimeout(() => client.destroy(), 300)
    })
    upstream.on('data', chunk => client.write(chunk))
    client.on('close', () => upstream.destroy())
    upstream.on('close', () => client.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  return { server, access: { ...target.access, target: { ...target.access.target, name: 'cut', port } } }
}

away('a server that is down: refused, told when it is back, and then removed', async ({ target }) => {
  const recovered: string[] = []
  const hooks = createHooks({
    shelf: createShelf(shippedPlugins), clock: systemClock, limits, log: () => undefined,
    onRecovered: name => recovered.push(name)
  })
  const account = await target.create()
  const removal = target.job('delete', 'delete-role', { ...account, epoch: 2 })
  await target.server.halt()
  for (let attempt = 0; attempt < 4; attempt++) {
    const result = await hooks.run(removal)
    assert.equal([result.state, result.code, result.retryable], ['refused', 'target-unreachable', true])
  }
  assert.is(hooks.health()[0]?.breaker, 'open')
  await target.server.resume()
  while (recovered.length === 0) await new Promise(resolve => setTimeout(resolve, 50))
  assert.is((await hooks.run(removal)).state, 'done')
  assert.equal(hooks.health()[0]?.breaker ?? 'closed', 'closed')
  hooks.close()
})

away('a server that hangs costs the limit of a connection, no more', async ({ target }) => {
  const account = await target.create()
  process.kill(target.server.pid, 'SIGSTOP')
  const hung = await target.remove(account)
  process.kill(target.server.pid, 'SIGCONT')
  assert.equal([hung.state, hung.code], ['refused', 'target-unreachable'])
  assert.is((await target.remove(account)).state, 'done')
})

away('a statement that hangs is refused by the server within its limit', async ({ target }) => {
  const account = target.mint()
  const slow = parseTemplate(`id: postgres/slow\nplugin: postgres\naction: create\ntitle: x\nsteps:
  - sql: CREATE ROLE {{ username | ident }}
  - sql: SELECT pg_sleep(60)`)
  const made = await target.hooks.run(target.job('create', slow, account, {}))
  assert.equal([made.state, made.code, made.retryable], ['refused', 'hook-failed', true])
  assert.match(made.error ?? '', /^57014/)
  assert.is((await target.look(account)).exists, false)
})

away('the answer to COMMIT is lost: a look finds our epoch, so it is done', async ({ target }) => {
  const account = target.mint()
  let cuts = 0
  const { server, access } = await cutter(target, text => text.includes('COMMIT') && cuts++ === 0)
  const job = target.job('create', 'create-role', account, { roles: ['app_rw'], ...account.minted })
  const made = await target.hooks.run({ ...job, access })
  assert.ok(cuts > 0)
  assert.equal([made.state, made.seen?.epoch], ['done', 1], made.error)
  await (await target.login(account)).close()
  server.close()
  assert.is((await target.remove(account)).state, 'done')
})

away('the line breaks before COMMIT: unknown, and removing it is harmless', async ({ target }) => {
  const account = target.mint()
  let cuts = 0
  // They travel together; the server gets all but COMMIT, whose Parse message begins six before its text.
  const { server, access } = await cutter(target, text => {
    const at = text.indexOf('COMMENT ON ROLE')
    return at >= 0 && cuts++ === 0 && text.indexOf('COMMIT', at) - 6
  })
  const job = target.job('create', 'create-role', account, { roles: ['app_rw'], ...account.minted })
  const made = await target.hooks.run({ ...job, access })
  assert.equal([made.state, made.code, made.seen?.exists], ['unknown', 'hook-timeout', false])
  server.close()
  assert.is((await target.remove(account)).state, 'done')
})

away('the answer to DROP ROLE is lost: a look shows that the role is gone', async ({ target }) => {
  const account = await target.create()
  let stage: 'before' | 'dropped' | 'cut' = 'before'
  const { server, access } = await cutter(target, text => {
    if (stage === 'before' && text.includes('DROP ROLE')) stage = 'dropped'
    if (stage !== 'dropped' || !text.includes('COMMIT')) return false
    stage = 'cut'
    return true
  })
  const removed = await target.hooks.run(
    { ...target.job('delete', 'delete-role', { ...account, epoch: 2 }), access }
  )
  server.close()
  assert.is(stage, 'cut')
  assert.equal([removed.state, removed.seen?.exists], ['done', false], removed.error)
})

away('the shipped pairs prove themselves, and a pair that leaves something does not', async ({ target }) => {
  const { hooks, plugin, access } = target
  const common = { hooks, plugin, access, expiresAt: '2099-01-01T00:00:00Z' }
  const made = await proveTemplates({
    ...common, opening: shippedTemplate('create-role'), closing: shippedTemplate('delete-role'), variables: {
      roles: ['app_rw']
    }
  })
  assert.ok(made.passed, JSON.stringify(made.steps))
  await target.server.psql('CREATE ROLE scratch NOLOGIN; GRANT scratch TO "hook admin" WITH ADMIN OPTION')
  for (
    const [opening, closing] of [['enable-role', 'disable-role'], ['grant-role', 'revoke-role']] as const
  ) {
    const switched = await proveTemplates({
      ...common, opening: shippedTemplate(opening), closing: shippedTemplate(closing), variables: {
        roles: ['app_rw']
      },
      username: 'scratch'
    })
    assert.ok(switched.passed, JSON.stringify(switched.steps))
  }
  // What a proof leaves in the comment does not bind the account.
  const account = target.mint('scratch', 'enable')
  assert.is((await hooks.run(target.job('enable', 'enable-role', account, account.minted))).state, 'done')

  const leaky = parseTemplate(`id: postgres/leaky\nplugin: postgres\naction: delete\ntitle: x\nsteps:
  - sql: ALTER ROLE {{ username | ident }} NOLOGIN`)
  const left = await proveTemplates({
    ...common, opening: shippedTemplate('create-role'), closing: leaky, variables: { roles: ['app_rw'] }
  })
  assert.is(left.passed, false)
  assert.match(left.steps.find(step => !step.passed)?.detail ?? '', /it exists, cannot log in/)
})

away.run()
