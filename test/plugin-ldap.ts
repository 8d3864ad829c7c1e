// deadline: 120 s
// Accounts of an OpenLDAP directory, made and taken away by the shipped templates through a hook login that
// may manage entries and nothing else: what a session can do with them, what a connection that stays bound
// does to a removal, and what is left.
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseTemplate } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'
import { connectLdap } from '../src/wire/ldap/client.ts'
import type { LdapClient } from '../src/wire/ldap/client.ts'
import { element, integer, tag, text } from '../src/wire/ldap/ber.ts'
import { startSlapd, suffix } from '../tool/slapd.ts'
import type { LdapServer } from '../tool/slapd.ts'
import { PluginTarget, shelf } from './peers/plugin-target.ts'
import type { Account } from './peers/plugin-target.ts'

interface World {
  server: LdapServer
  target: PluginTarget
}

const life = suite<World>('OpenLDAP')
const people = `ou=people,${suffix}`
const ops = `cn=ops,ou=groups,${suffix}`
const dba = `cn=dba,ou=groups,${suffix}`

function targetOf(server: LdapServer, password = server.hooksPassword): PluginTarget {
  return new PluginTarget('ldap', {
    target: {
      name: 'directory', protocol: 'ldap', host: server.host, port: server.port, tls: { mode: 'disable' }
    },
    username: server.hooksDn, secret: { kind: 'password', password: new Secret(password) }
  }, { base: people, roles: [ops] })
}

life.before(async world => {
  world.server = await startSlapd()
  world.target = targetOf(world.server)
})
life.after(async ({ server, target }) => {
  target.close()
  await server.stop()
})

const dnOf = (name: string): string => `uid=${name},${people}`

function login({ server }: World, { name, password }: Account): Promise<LdapClient> {
  return connectLdap({
    host: server.host, port: server.port, tls: { mode: 'disable' }, username: dnOf(name),
    password: () => password, timeouts: { connectMs: 10_000, tlsMs: 10_000, loginMs: 10_000 }
  })
}

const outcome = async (act: Promise<unknown>): Promise<string> => await act.then(
  () => 'done', () => 'refused'
)

function person(name: string, ...lines: readonly string[]): string {
  const fixed = ['objectClass: inetOrgPerson', `uid: ${name}`, `cn: ${name}`, `sn: ${name}`]
  return `${[`dn: ${dnOf(name)}`, ...fixed, ...lines].join('\n')}\n`
}

life('an account logs in, is in its groups, and is gone afterwards', async world => {
  const { target, server } = world
  const account = target.mint()
  const made = await target.done('create', 'create-entry', account, {
    attributes: ['objectClass=posixAccount', 'uidNumber=70001', 'gidNumber=70001', 'homeDirectory=/home/x']
  })
  assert.equal([made.seen?.ours, made.seen?.enabled, made.seen?.epoch], [true, true, 1])
  const as = { dn: dnOf(account.name), password: account.password }
  const found = server.search(dnOf(account.name), '(objectClass=posixAccount)', ['memberOf'], as)
  assert.is(found.status, 0)
  assert.ok(found.output.includes(`memberOf: ${ops}`), found.output)
  const removed = await target.done('delete', 'delete-entry', { ...account, epoch: 2 })
  assert.equal(removed.seen, { exists: false, enabled: false, ours: false, sessions: 0, residue: [] })
  assert.is(await outcome(login(world, account)), 'refused')
  assert.not(server.search(suffix, `(member=${dnOf(account.name)})`, ['dn']).output.includes('dn:'))
  assert.is((await target.done('delete', 'delete-entry', { ...account, epoch: 3 })).changed, false)
})

life('a connection that stays bound holds the removal open until it is closed', async world => {
  const { target } = world
  const account = target.mint()
  await target.done('create', 'create-entry', account)
  const session = await login(world, account)
  const held = await target.run('delete', 'delete-entry', { ...account, epoch: 2 })
  assert.equal([held.state, held.failedStep, held.retryable],
    ['refused', 'wait until nobody is bound as it', true], held.error)
  assert.equal([held.seen?.exists, held.seen?.sessions], [false, 1])
  session.close()
  const removed = await target.done('delete', 'delete-entry', { ...account, epoch: 3 })
  assert.is(removed.seen?.sessions, 0)
})

life('an entry of that name that is not ours is never touched', async ({ target, server }) => {
  const account = target.mint()
  server.ldif(person(account.name, 'userPassword: theirs', 'description: hers'))
  const before = server.search(dnOf(account.name), '(objectClass=*)', ['*', '+']).output
  assert.is((await target.run('create', 'create-entry', account)).state, 'conflict')
  assert.is((await target.run('delete', 'delete-entry', { ...account, epoch: 2 })).state, 'conflict')
  assert.is(server.search(dnOf(account.name), '(objectClass=*)', ['*', '+']).output, before)
})

life('creating what is ours already replaces the password; an older epoch does nothing', async world => {
  const { target } = world
  const account = target.mint()
  await target.done('create', 'create-entry', account)
  const again = { ...target.mint(account.name), accountId: account.accountId, epoch: 4 }
  assert.is((await target.done('create', 'create-entry', again)).seen?.epoch, 4)
  assert.is(await outcome(login(world, account)), 'refused')
  ;(await login(world, again)).close()
  const stale = await target.run('delete', 'delete-entry', { ...account, epoch: 3 })
  assert.equal([stale.state, stale.retryable], ['refused', false])
  await target.done('delete', 'delete-entry', { ...again, epoch: 5 })
})

life('an existing account has a password only while it is used, and is locked', async world => {
  const { target, server } = world
  server.ldif(person('deploy', 'userPassword: old', 'description: what people wrote'))
  const account = target.mint('deploy', 'enable')
  await target.done('enable', 'enable-entry', account)
  assert.is(await outcome(login(world, { ...account, password: 'old' })), 'refused')
  ;(await login(world, account)).close()
  const off = await target.done('disable', 'disable-entry', { ...account, epoch: 2 })
  assert.equal([off.seen?.exists, off.seen?.enabled], [true, false])
  assert.is(await outcome(login(world, account)), 'refused')
  const kept = server.search(dnOf('deploy'), '(objectClass=*)', ['*', '+']).output
  for (const said of ['description: what people wrote', 'epoch=2', 'pwdAccountLockedTime: 000001010000Z']) {
    assert.ok(kept.includes(said), kept)
  }
  // A password that somebody gives it takes the lock away: the next look says that it is open.
  server.ldif(`dn: ${dnOf('deploy')}\nchangetype: modify\nreplace: userPassword\nuserPassword: back\n`)
  assert.is((await target.look('disable-entry', account)).enabled, true)
  await target.done('enable', 'enable-entry', { ...account, epoch: 3 })
  ;(await login(world, account)).close()
  const absent = await target.run('enable', 'enable-entry', target.mint('nobody_here', 'enable'))
  assert.equal([absent.state, absent.error], ['refused', 'there is no such account'])
})

life('the end of a password is kept by the directory when all of us are gone', async world => {
  const { target } = world
  const account = target.mint()
  await target.done('create', 'create-entry', account, { expires_at: '2020-01-01T00:00:00Z' })
  assert.is(await outcome(login(world, account)), 'refused')
  assert.is((await target.prolong(account)).state, 'done')
  ;(await login(world, account)).close()
  await target.done('delete', 'delete-entry', { ...account, epoch: 2 })
})

life('groups come and go with the session, the login stays', async world => {
  const { target, server } = world
  server.ldif(person('clerk', 'userPassword: hers'))
  const account = { ...target.mint('clerk', 'enable'), password: 'hers' }
  const roles = [ops, dba]
  const on = await target.done('enable', 'grant-group', account, { roles })
  assert.is(on.seen?.enabled, true)
  const off = await target.done('disable', 'revoke-group', { ...account, epoch: 2 }, { roles })
  assert.equal([off.seen?.enabled, off.seen?.exists], [false, true])
  ;(await login(world, account)).close()
  server.ldif(`dn: cn=lonely,ou=groups,${suffix}\nobjectClass: groupOfNames\ncn: lonely
member: ${dnOf('clerk')}\n`)
  const lonely = [`cn=lonely,ou=groups,${suffix}`]
  const last = await target.run('disable', 'revoke-group', { ...account, epoch: 3 }, { roles: lonely })
  assert.match(last.error ?? '', /last member/)
})

life('hostile values stay values', async ({ target, server }) => {
  const count = (): number => server.search(suffix, '(objectClass=*)', ['dn']).output.split('dn: ').length
  const before = count()
  for (const base of ['', '*', `${people})(uid=*`, 'ou=people', `${people}\0`]) {
    const made = await target.run('create', 'create-entry', target.mint(), { base })
    assert.is(made.state, 'refused', base)
  }
  for (const item of ['description=sallyport account=x epoch=9', 'userPassword=x', 'uid=root', 'x']) {
    const made = await target.run('create', 'create-entry', target.mint(), { attributes: [item] })
    assert.equal([made.state, made.code], ['refused', 'invalid'], item)
  }
  for (const name of ['*', 'a)(uid=*', 'a,ou=groups', 'ü']) {
    const made = await target.run('create', 'create-entry', target.mint(name))
    assert.equal([made.state, made.code], ['refused', 'invalid'], name)
  }
  assert.is(count(), before)
})

life('a line that breaks anywhere in a creation leaves nothing that a removal does not take', async world => {
  const ended = await world.target.breakLines('create-entry', 'delete-entry')
  assert.ok(ended.includes('unknown') && ended.at(-1) === 'done', ended.join(' '))
})

life('templates prove passes: nothing remains', async ({ target, server }) => {
  server.ldif(person('scratch'))
  const pairs = [
    ['create-entry', 'delete-entry'], ['enable-entry', 'disable-entry'], ['grant-group', 'revoke-group']
  ]
  for (const [opening = '', closing = ''] of pairs) {
    const proof = await target.prove(opening, closing, opening === 'create-entry' ? undefined : 'scratch')
    assert.ok(proof.passed, JSON.stringify(proof.steps))
  }
})

life('accounts of ours are found for the sweep', async ({ target }) => {
  const account = target.mint()
  await target.done('create', 'create-entry', account)
  const owned = await target.hooks.listOwned('ldap', target.access)
  assert.ok(owned.some(({ name, accountId }) => name === account.name && accountId === account.accountId))
  await target.done('delete', 'delete-entry', { ...account, epoch: 2 })
})

life('a login without rights is told what it lacks, and proves nothing', async world => {
  const { target, server } = world
  const complete = await target.hooks.probe('ldap', target.access, { roles: [ops] })
  assert.equal(complete.missingRights, [])
  const absent = await target.hooks.probe('ldap', target.access, { roles: [`cn=none,${suffix}`] })
  assert.match(absent.missingRights.join('\n'), /the group cn=none/)
  server.ldif(person('plain', 'userPassword: plain'))
  const secret = { kind: 'password', password: new Secret('plain') } as const
  const plain = { ...target.access, username: dnOf('plain'), secret }
  const { missingRights, warnings } = await target.hooks.probe('ldap', plain, {})
  assert.match(missingRights.join('\n'), /cannot see whether there is a password/)
  assert.match(warnings.join('\n'), /connections cannot be seen/)
  server.ldif(person('unseen', 'userPassword: hers'))
  const job = target.job('disable', 'disable-entry', target.mint('unseen', 'enable'))
  // It sees no password anywhere, so it must not say that there is none.
  assert.is((await target.hooks.verify({ ...job, access: plain })).enabled, true)
  assert.is((await target.hooks.run({ ...job, access: plain })).state, 'refused')
})

life('TLS by StartTLS, only with an authority that is known; a wrong password is refused', async world => {
  const { target, server } = world
  const ca = readFileSync(server.caFile, 'utf8')
  const account = target.mint()
  const job = target.job('create', 'create-entry', account)
  const over = (tls: { mode: 'verify-full', ca?: string }, name: string): typeof job =>
    ({ ...job, access: { ...target.access, target: { ...target.access.target, name, tls } } })
  const made = await target.hooks.run(over({ mode: 'verify-full', ca }, 'known'))
  assert.is(made.state, 'done', made.error)
  assert.is((await target.hooks.run(over({ mode: 'verify-full' }, 'unknown'))).code, 'target-untrusted')
  await target.done('delete', 'delete-entry', { ...account, epoch: 2 })
  const wrong = targetOf(server, 'wrong')
  assert.is((await wrong.run('create', 'create-entry', account)).code, 'target-refused')
  wrong.close()
})

life('without ppolicy accounts come and go all the same', async () => {
  await using server = await startSlapd({ ppolicy: false })
  const target = targetOf(server)
  for (const pair of [['create-entry', 'delete-entry'], ['enable-entry', 'disable-entry']]) {
    const [opening = '', closing = ''] = pair
    if (opening === 'enable-entry') server.ldif(person('scratch'))
    const proof = await target.prove(opening, closing, opening === 'create-entry' ? undefined : 'scratch')
    assert.ok(proof.passed, JSON.stringify(proof.steps))
  }
  target.close()
})

life('a directory that lies or floods ends in a coded answer', async ({ target }) => {
  const message = (id: number, ...parts: Buffer[]): Buffer => element(tag.sequence, integer(id), ...parts)
  const bound = (id: number, code: number): Buffer =>
    message(id, element(0x61, integer(code, tag.enumerated), text(''), text('')))
  const cases: [lies: Buffer[], code: string][] = [
    [[Buffer.from('30847fffffff', 'hex')], 'target-violation'],
    [[Buffer.from('3080', 'hex')], 'target-violation'],
    [[Buffer.from('HTTP/1.1 400')], 'target-violation'],
    [[Buffer.alloc(0), bound(7, 0)], 'target-violation'],
    [[Buffer.alloc(0), bound(1, 49)], 'target-refused'],
    [[Buffer.alloc(0), bound(1, 51)], 'target-unreachable'],
    [[Buffer.alloc(0), message(1, element(0x64, text('x')))], 'target-violation'],
    [[Buffer.alloc(0), Buffer.from('3003020101', 'hex')], 'target-violation']
  ]
  for (const [number, [lies, code]] of cases.entries()) {
    const made = await target.deceive(number, lies, 'create-entry')
    assert.is(made.code, code, `${number}: ${made.error}`)
  }
})

life('lint refuses what a directory does not have', () => {
  const problemsOf = (action: string, steps: string): string => shelf.plugin('ldap').lint(parseTemplate(
    `id: ldap/mine\nplugin: ldap\naction: ${action}\ntitle: Mine\nsteps:\n${steps}`)).join('\n')
  assert.match(problemsOf('create', '  - do: add-to-groups'), /steps\[0\]: must be make-entry/)
  assert.match(problemsOf('create', '  - do: make-entry'), /make-entry needs it/)
  assert.match(problemsOf('delete', '  - sql: SELECT 1'), /no SQL/)
  assert.match(problemsOf('disable', '  - do: take-from-groups'), /reads this list/)
})

life.run()
