// deadline: 120 s
// Accounts of Redis' ACL, made and taken away by the shipped templates through a hook login with the commands
// that the documents name: what a session can do with them, what a restart brings back, and what an account
// is never allowed to be.
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseTemplate } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'
import { connectRedis } from '../src/wire/redis/client.ts'
import type { RedisClient } from '../src/wire/redis/client.ts'
import { startRedis } from '../tool/redis.ts'
import type { RedisServer } from '../tool/redis.ts'
import { PluginTarget, shelf } from './peers/plugin-target.ts'
import type { Account } from './peers/plugin-target.ts'

interface World {
  server: RedisServer
  target: PluginTarget
}

const life = suite<World>('Redis')

const hooksRules = 'user hooks on >of-the-hooks -@all +acl|setuser +acl|getuser +acl|deluser +acl|list '
  + '+acl|save +acl|dryrun +client|list +client|kill +info +config|get'

function targetOf(server: RedisServer): PluginTarget {
  return new PluginTarget('redis', {
    target: {
      name: 'cache', protocol: 'redis', host: server.host, port: server.port, tls: { mode: 'disable' }
    },
    username: 'hooks', secret: { kind: 'password', password: new Secret('of-the-hooks') }
  }, { keys: ['app:*'], commands: ['+@read', '+@write', '+@connection', '-@dangerous'] })
}

life.before(async world => {
  world.server = await startRedis({ acl: [hooksRules] })
  world.target = targetOf(world.server)
})
life.after(async ({ server, target }) => {
  target.close()
  await server.stop()
})

function login({ server }: World, { name, password }: Account): Promise<RedisClient> {
  return connectRedis({
    host: server.host, port: server.port, tls: { mode: 'disable' }, username: name, password: () => password,
    timeouts: { connectMs: 10_000, tlsMs: 10_000, loginMs: 10_000 }
  })
}

const outcome = async (act: Promise<unknown>): Promise<string> => await act.then(
  () => 'done', () => 'refused'
)

life('an account logs in, may do what its rules say, and is gone with its session', async world => {
  const { target, server } = world
  const account = target.mint()
  const made = await target.done('create', 'create-user', account)
  assert.equal([made.seen?.ours, made.seen?.enabled, made.seen?.epoch], [true, true, 1])
  assert.is(server.cli(['SET', 'app:one', '1'], account.name, account.password), 'OK')
  for (const words of [['SET', 'other', '1'], ['KEYS', '*'], ['ACL', 'LIST'], ['GET', 'sallyport/x']]) {
    assert.match(server.cli(words, account.name, account.password), /NOPERM/)
  }
  const session = await login(world, account)
  const removed = await target.done('delete', 'delete-user', { ...account, epoch: 2 })
  assert.equal(removed.seen, {
    exists: false, enabled: false, ours: false, epoch: undefined, sessions: 0, residue: []
  })
  assert.is(await outcome(session.command(['GET', 'app:one'], 5000)), 'refused')
  assert.is(await outcome(login(world, account)), 'refused')
  assert.is((await target.done('delete', 'delete-user', { ...account, epoch: 3 })).changed, false)
})

life('a restart brings back accounts that are wanted and none that is gone', async world => {
  const { target, server } = world
  const [kept, gone] = [target.mint(), target.mint()]
  await target.done('create', 'create-user', kept)
  await target.done('create', 'create-user', gone)
  await target.done('delete', 'delete-user', { ...gone, epoch: 2 })
  await server.halt()
  const away = await target.run('delete', 'delete-user', { ...kept, epoch: 2 })
  assert.is(away.code, 'target-unreachable')
  await server.resume()
  const [there, later] = [await target.look('create-user', kept), await target.look('delete-user', gone)]
  assert.equal([there.ours, later.exists], [true, false])
  const file = readFileSync(server.aclFile, 'utf8')
  assert.ok(file.includes(kept.name) && !file.includes(gone.name) && !file.includes(kept.password))
  await target.done('delete', 'delete-user', { ...kept, epoch: 2 })
})

life('an account of that name that is not ours is never touched', async ({ target, server }) => {
  const account = target.mint()
  server.cli(['ACL', 'SETUSER', account.name, 'on', '>theirs', '~*'])
  const before = server.cli(['ACL', 'GETUSER', account.name])
  assert.is((await target.run('create', 'create-user', account)).state, 'conflict')
  assert.is((await target.run('delete', 'delete-user', { ...account, epoch: 2 })).state, 'conflict')
  assert.is(server.cli(['ACL', 'GETUSER', account.name]), before)
  server.cli(['ACL', 'DELUSER', account.name])
})

life('creating what is ours already replaces password and rules, and ends who was in', async world => {
  const { target, server } = world
  const account = target.mint()
  await target.done('create', 'create-user', account, { keys: ['old:*'] })
  const old = await login(world, account)
  const again = { ...target.mint(account.name), accountId: account.accountId, epoch: 2 }
  assert.is((await target.done('create', 'create-user', again)).seen?.epoch, 2)
  assert.is(await outcome(old.command(['PING'], 5000)), 'refused')
  assert.is(await outcome(login(world, account)), 'refused')
  assert.match(server.cli(['GET', 'old:x'], again.name, again.password), /NOPERM/)
  const stale = await target.run('delete', 'delete-user', account)
  assert.equal([stale.state, stale.retryable], ['refused', false])
  await target.done('delete', 'delete-user', { ...again, epoch: 3 })
})

life('an existing account is on while it is used; its rules and selectors stay', async world => {
  const { target, server } = world
  server.cli(['ACL', 'SETUSER', 'batch', 'off', '>hers', '~jobs:*', '+get', '(~other:* +set)'])
  const account = target.mint('batch', 'enable')
  await target.done('enable', 'enable-user', account)
  assert.is(server.cli(['SET', 'other:1', 'x'], 'batch', account.password), 'OK')
  assert.match(server.cli(['GET', 'jobs:1'], 'batch', 'hers'), /WRONGPASS/)
  const session = await login(world, account)
  const off = await target.done('disable', 'disable-user', { ...account, epoch: 2 })
  assert.equal([off.seen?.exists, off.seen?.enabled, off.seen?.sessions], [true, false, 0])
  assert.is(await outcome(session.command(['GET', 'jobs:1'], 5000)), 'refused')
  const rules = server.cli(['ACL', 'LIST']).split('\n').find(line => line.includes('user batch '))
  assert.match(rules ?? '', /~jobs:\* .*\+get .*\(~other:\* .*\+set\)/)
  const absent = await target.run('disable', 'disable-user', target.mint('nobody_here', 'enable'))
  assert.equal([absent.state, server.cli(['ACL', 'GETUSER', 'nobody_here'])], ['done', ''])
})

life('an account that could change ACLs or settings is never switched on', async ({ target, server }) => {
  const openly = [
    ['+@all'], ['+acl|setuser'], ['+config'], ['+@all', '-@admin', '+module']
  ]
  for (const commands of openly) {
    const account = target.mint()
    const made = await target.run('create', 'create-user', account, { commands })
    assert.equal([made.state, made.code], ['refused', 'invalid'], commands.join(' '))
    assert.is(server.cli(['ACL', 'GETUSER', account.name]), '')
  }
  // A rule whose reach only the server knows: ACL is among the slow commands.
  const account = target.mint()
  const hidden = await target.run('create', 'create-user', account, { commands: ['+@read', '+@slow'] })
  assert.match(hidden.error ?? '', /could run ACL SETUSER: add -@admin/)
  assert.equal((await target.look('create-user', account)).enabled, false)
  await target.done('delete', 'delete-user', { ...account, epoch: 2 })
  for (const commands of [['+@read', '+@slow', '-@admin'], ['+@all', '-@dangerous']]) {
    const fine = target.mint()
    await target.done('create', 'create-user', fine, { commands })
    await target.done('delete', 'delete-user', { ...fine, epoch: 2 })
  }
})

life('a value is one rule: nothing in it becomes another', async ({ target, server }) => {
  for (const keys of [['a +@all'], ['a\nb'], ['(x)  ~*'], ['ü'], ['']]) {
    const account = target.mint()
    const made = await target.run('create', 'create-user', account, { keys })
    assert.is(made.state, 'refused', JSON.stringify(keys))
    assert.is(server.cli(['ACL', 'GETUSER', account.name]), '')
  }
})

life('a line that breaks anywhere in a creation leaves nothing that a removal does not take', async world => {
  const ended = await world.target.breakLines('create-user', 'delete-user')
  assert.ok(ended.includes('unknown') && ended.at(-1) === 'done', ended.join(' '))
})

life('templates prove passes: nothing remains', async ({ target, server }) => {
  server.cli(['ACL', 'SETUSER', 'scratch', 'off'])
  for (const name of [undefined, 'scratch']) {
    const verbs = name === undefined ? ['create', 'delete'] : ['enable', 'disable']
    const [opening = '', closing = ''] = verbs.map(verb => `${verb}-user`)
    const proof = await target.prove(opening, closing, name)
    assert.ok(proof.passed, JSON.stringify(proof.steps))
  }
})

life('accounts of ours are found for the sweep', async ({ target }) => {
  const account = target.mint()
  await target.done('create', 'create-user', account)
  const owned = await target.hooks.listOwned('redis', target.access)
  assert.ok(owned.some(({ name, accountId }) => name === account.name && accountId === account.accountId))
  await target.done('delete', 'delete-user', { ...account, epoch: 2 })
})

life('a login without rights is told each of them with its grant', async ({ target, server }) => {
  assert.equal((await target.hooks.probe('redis', target.access)).missingRights, [])
  server.cli(['ACL', 'SETUSER', 'bare', 'on', '>bare', '+acl|dryrun'])
  const secret = { kind: 'password', password: new Secret('bare') } as const
  const bare = { ...target.access, username: 'bare', secret }
  const { missingRights } = await target.hooks.probe('redis', bare)
  assert.ok(missingRights.some(line => line.includes('+acl|setuser')), missingRights.join('\n'))
  for (const line of missingRights) server.cli(line.slice(line.indexOf('ACL SETUSER')).split(' '))
  const complete = await target.hooks.probe('redis', bare)
  assert.equal([complete.missingRights, /^7\./.test(complete.version)], [[], true])
  const wrong = { ...bare, secret: { kind: 'password', password: new Secret('wrong') } as const }
  const job = { ...target.job('create', 'create-user', target.mint()), access: wrong }
  assert.is((await target.hooks.run(job)).code, 'target-refused')
})

life('hooks go through TLS when the target says so', async () => {
  await using server = await startRedis({ acl: [hooksRules], tls: true })
  const target = targetOf(server)
  const ca = readFileSync(server.caFile, 'utf8')
  const account = target.mint()
  const job = target.job('create', 'create-user', account)
  const over = (tls: { mode: 'verify-full', ca?: string }, name: string): typeof job =>
    ({ ...job, access: { ...target.access, target: { ...target.access.target, name, tls } } })
  const made = await target.hooks.run(over({ mode: 'verify-full', ca }, 'known'))
  assert.is(made.state, 'done', made.error)
  assert.is((await target.hooks.run(over({ mode: 'verify-full' }, 'unknown'))).code, 'target-untrusted')
  target.close()
})

life('a server that lies or floods ends in a coded answer', async ({ target }) => {
  const lies = [
    '$99999999999\r\n', '*5\r\n'.repeat(50), `+${'x'.repeat(200_000)}`, '?\r\n', ':1e9\r\n', '*-7\r\n',
    '*0\r\n'
  ]
  for (const [number, lie] of lies.entries()) {
    const made = await target.deceive(number, [lie])
    assert.is(made.code, 'target-violation', `${lie.slice(0, 20)}: ${made.error}`)
  }
})

life('lint refuses strong defaults and what Redis does not have', () => {
  const problemsOf = (text: string): readonly string[] => shelf.plugin('redis').lint(parseTemplate(text))
  const head = 'id: redis/mine\nplugin: redis\naction: create\ntitle: Mine\n'
  const strong = `${head}variables:\n  commands: { description: d, list: true, default: ['+@all'] }
steps:\n  - { do: make-user, with: { password: '{{ password_sha256 }}' } }`
  assert.match(problemsOf(strong).join('\n'), /\+@all lets the account outlive/)
  const bare = problemsOf(`${head}steps:\n  - do: make-user`)
  assert.match(bare.join('\n'), /password: make-user needs it/)
  assert.match(bare.join('\n'), /commands: make-user reads this list/)
  assert.match(problemsOf(`${head}steps:\n  - sql: SELECT 1`).join('\n'), /no SQL/)
  assert.match(shelf.admit(`${head}steps:\n  - do: refuse-logins`).warnings.join('\n'), /no save/)
})

life.run()
