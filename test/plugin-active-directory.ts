// deadline: 120 s
// Accounts of a domain (Samba as the domain controller), made and taken away by the shipped templates through
// a hook login that may manage one place and nothing else: what a session can do with them, who may not touch
// what, what ends without us, and what is left.
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseTemplate } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'
import { connectLdap } from '../src/wire/ldap/client.ts'
import { personLines, domainBase, sessionsPlace, startDomain } from '../tool/samba.ts'
import type { Domain, DomainLogin } from '../tool/samba.ts'
import { PluginTarget, shelf } from './peers/plugin-target.ts'
import type { Account } from './peers/plugin-target.ts'

interface World {
  domain: Domain
  target: PluginTarget
}

const life = suite<World>('Active Directory')
const ops = `CN=ops,${sessionsPlace}`
const dba = `CN=dba,${sessionsPlace}`
const admins = `CN=Domain Admins,CN=Users,${domainBase}`

function targetOf(domain: Domain, { username, password }: DomainLogin = domain.hooks): PluginTarget {
  const ca = readFileSync(domain.caFile, 'utf8')
  return new PluginTarget('active-directory', {
    target: {
      name: 'domain', protocol: 'ldap', host: domain.host, port: 389,
      tls: { mode: 'verify-full', ca, serverName: 'localhost' }
    },
    username, secret: { kind: 'password', password: new Secret(password) }
  }, { base: sessionsPlace, roles: [ops] })
}

life.before(async world => {
  world.domain = await startDomain()
  world.target = targetOf(world.domain)
})
life.after(async ({ domain, target }) => {
  target.close()
  await domain.stop()
})

const dnOf = (name: string): string => `CN=${name},${sessionsPlace}`

/** What the domain says when somebody logs in; its sub-code where it refuses. */
function login({ domain }: World, { name, password }: Account): string {
  const { status, output } = domain.login({ username: `${name}@ad.example.org`, password })
  return status === 0 ? 'in' : /, data (\w+),/.exec(output)?.[1] ?? output
}

const [wrongPassword, switchedOff, ended] = ['52e', '533', '701']

function entryOf({ domain }: World, name: string, ...attributes: readonly string[]): string {
  return domain.search(domainBase, `(sAMAccountName=${name})`, attributes).output
}

const addPerson = ({ domain }: World, name: string, ...lines: readonly string[]): void =>
  domain.ldif(`${[...personLines(name, sessionsPlace, 'Theirs-1-old'), ...lines].join('\n')}\n`)

life('an account logs in, is in its groups, and is gone afterwards', async world => {
  const { target, domain } = world
  const account = target.mint()
  const made = await target.done('create', 'create-account', account, {
    attributes: ['description=for a session'], expires_at: '2040-01-01T00:00:00.5Z'
  })
  assert.equal([made.seen?.ours, made.seen?.enabled, made.seen?.epoch], [true, true, 1])
  assert.is(login(world, account), 'in')
  const seen = entryOf(world, account.name, '*')
  for (const line of [
    `memberOf: ${ops}`, 'userAccountControl: 512', `userPrincipalName: ${account.name}@ad.example.org`,
    'description: for a session', 'accountExpires: 138534624005000000', 'primaryGroupID: 513'
  ]) assert.ok(seen.split('\n').includes(line), `${line}\n${seen}`)
  const removed = await target.done('delete', 'delete-account', { ...account, epoch: 2 })
  assert.equal(removed.seen, { exists: false, enabled: false, ours: false, sessions: 0, residue: [] })
  assert.is(login(world, account), wrongPassword)
  assert.not(domain.search(ops, '(objectClass=*)', ['member']).output.includes(account.name))
  assert.is((await target.done('delete', 'delete-account', { ...account, epoch: 3 })).changed, false)
})

life('an account ends by itself when all of us are gone', async world => {
  const { target } = world
  const account = target.mint()
  await target.done('create', 'create-account', account, { expires_at: '2020-01-01T00:00:00Z' })
  assert.is(login(world, account), ended)
  assert.is((await target.prolong(account)).state, 'done')
  assert.is(login(world, account), 'in')
  await target.done('delete', 'delete-account', { ...account, epoch: 2 })
})

life('an account that is not ours is never touched, whatever kind of entry it is', async world => {
  const { target } = world
  addPerson(world, 'theirs')
  for (const name of ['theirs', 'dba', 'krbtgt']) {
    const account = target.mint(name)
    const before = entryOf(world, account.name, '*')
    assert.is((await target.run('create', 'create-account', account)).state, 'conflict', name)
    const removed = await target.run('delete', 'delete-account', { ...account, epoch: 2 })
    assert.is(removed.state, 'conflict', name)
    assert.is(entryOf(world, account.name, '*'), before)
  }
  const system = target.mint('Administrator', 'enable')
  assert.is((await target.run('disable', 'disable-account', system)).state, 'conflict')
})

life('creating what is ours already replaces the password; an older epoch does nothing', async world => {
  const { target } = world
  const account = target.mint()
  await target.done('create', 'create-account', account)
  const again = { ...target.mint(account.name), accountId: account.accountId, epoch: 4 }
  assert.is((await target.done('create', 'create-account', again)).seen?.epoch, 4)
  assert.equal([login(world, account), login(world, again)], [wrongPassword, 'in'])
  const stale = await target.run('delete', 'delete-account', { ...account, epoch: 3 })
  assert.equal([stale.state, stale.retryable], ['refused', false])
  await target.done('delete', 'delete-account', { ...again, epoch: 5 })
})

life('an existing account is on only while it is used, each time with another password', async world => {
  const { target } = world
  addPerson(world, 'deploy', 'description: what people wrote')
  const account = target.mint('deploy', 'enable')
  await target.done('enable', 'enable-account', account)
  assert.equal([login(world, { ...account, password: 'Theirs-1-old' }), login(world, account)],
    [wrongPassword, 'in'])
  const off = await target.done('disable', 'disable-account', { ...account, epoch: 2 })
  assert.equal([off.seen?.exists, off.seen?.enabled], [true, false])
  assert.is(login(world, account), wrongPassword)
  const kept = entryOf(world, 'deploy', '*')
  // 0x10000 ("password never expires") is theirs, 0x2 is ours.
  for (const said of ['description: what people wrote', 'epoch=2', 'userAccountControl: 66050']) {
    assert.ok(kept.includes(said), kept)
  }
  await target.done('enable', 'enable-account', { ...account, epoch: 3 })
  assert.is(login(world, account), 'in')
  const absent = await target.run('enable', 'enable-account', target.mint('nobody-here', 'enable'))
  assert.equal([absent.state, absent.error], ['refused', 'there is no such account'])
})

life('what people switch off is off; what has a text in our marker\'s place is left alone', async world => {
  const { target, domain } = world
  addPerson(world, 'shared')
  const account = target.mint('shared', 'enable')
  await target.done('enable', 'enable-account', account)
  domain.ldif(`dn: ${dnOf('shared')}\nchangetype: modify\nreplace: userAccountControl
userAccountControl: 514\n`)
  assert.is(login(world, account), switchedOff)
  assert.is((await target.look('enable-account', account)).enabled, false)
  domain.ldif(`dn: ${dnOf('shared')}\nchangetype: modify\nreplace: adminDescription
adminDescription: of another program\n`)
  const taken = await target.run('enable', 'enable-account', { ...account, epoch: 2 })
  assert.equal([taken.state, taken.retryable], ['refused', false])
  assert.match(taken.error ?? '', /adminDescription of shared holds something else/)
})

life('groups come and go with the session, the login stays', async world => {
  const { target } = world
  addPerson(world, 'clerk')
  const account = { ...target.mint('clerk', 'enable'), password: 'Theirs-1-old' }
  const roles = [ops, dba]
  for (const epoch of [1, 2]) {
    const on = await target.done('enable', 'grant-group', { ...account, epoch }, { roles })
    assert.is(on.seen?.enabled, true)
  }
  const off = await target.done('disable', 'revoke-group', { ...account, epoch: 3 }, { roles })
  assert.equal([off.seen?.enabled, off.seen?.exists], [false, true])
  await target.done('disable', 'revoke-group', { ...account, epoch: 4 }, { roles })
  assert.is(login(world, account), 'in')
  const tooMuch = await target.run('enable', 'grant-group', { ...account, epoch: 5 }, { roles: [admins] })
  assert.is(tooMuch.state, 'refused')
  assert.not(entryOf(world, 'clerk', 'memberOf').includes('memberOf'))
})

life('hostile values stay values', async world => {
  const { target, domain } = world
  const count = (): number => domain.search(domainBase, '(objectClass=*)', ['dn']).output.split('dn: ').length
  const before = count()
  for (const base of ['', '*', `${sessionsPlace})(cn=*`, 'OU=Sessions', `${sessionsPlace}\0`]) {
    const made = await target.run('create', 'create-account', target.mint(), { base })
    assert.is(made.state, 'refused', base)
  }
  for (const item of ['adminDescription=sallyport account=x epoch=9', 'userAccountControl=66048', 'x']) {
    const made = await target.run('create', 'create-account', target.mint(), { attributes: [item] })
    assert.equal([made.state, made.code], ['refused', 'invalid'], item)
  }
  for (const name of ['*', 'a)(cn=*', 'a,OU=Sessions', 'ü', 'ends.', 'longer_than_twenty_ch']) {
    const made = await target.run('create', 'create-account', target.mint(name))
    assert.equal([made.state, made.code], ['refused', 'invalid'], name)
  }
  assert.is(count(), before)
})

life('a line that breaks anywhere in a creation leaves nothing that a removal does not take', async world => {
  const ends = await world.target.breakLines('create-account', 'delete-account')
  assert.ok(ends.includes('unknown') && ends.at(-1) === 'done', ends.join(' '))
})

life('templates prove passes: nothing remains', async world => {
  addPerson(world, 'scratch')
  const pairs = [
    ['create-account', 'delete-account'], ['enable-account', 'disable-account'],
    ['grant-group', 'revoke-group']
  ]
  for (const [opening = '', closing = ''] of pairs) {
    const username = opening === 'create-account' ? undefined : 'scratch'
    const proof = await world.target.prove(opening, closing, username)
    assert.ok(proof.passed, JSON.stringify(proof.steps))
  }
})

life('accounts of ours are found for the sweep, over all pages', async ({ target, domain }) => {
  const account = target.mint()
  await target.done('create', 'create-account', account)
  const owned = await target.hooks.listOwned('active-directory', target.access)
  assert.ok(owned.some(({ name, accountId }) => name === account.name && accountId === account.accountId))
  await target.done('delete', 'delete-account', { ...account, epoch: 2 })
  const { username, password } = domain.hooks
  const client = await connectLdap({
    ...target.access.target, username, password: () => password,
    timeouts: { connectMs: 10_000, tlsMs: 10_000, loginMs: 10_000 }
  })
  const question = {
    base: domainBase, scope: 'sub', filter: { present: 'sAMAccountName' }, attributes: ['sAMAccountName']
  } as const
  const all = await client.search(question, 10_000)
  assert.equal(await client.search({ ...question, pageEntries: 7 }, 10_000), all)
  client.close()
})

life('what a recycle bin could bring back is on the receipt, and opens nothing', async world => {
  const { domain, target } = world
  const account = target.mint()
  await target.done('create', 'create-account', account)
  const administrator = targetOf(domain, domain.administrator)
  const removed = await administrator.done('delete', 'delete-account', { ...account, epoch: 2 })
  administrator.close()
  assert.equal(removed.residue.map(({ kind, fate }) => [kind, fate]), [['deleted-object', 'left']])
  const deleted = domain.search(domainBase, `(sAMAccountName=${account.name})`,
    ['userAccountControl', 'memberOf'], domain.administrator, ['-E', '!1.2.840.113556.1.4.417']).output
  assert.match(deleted, /^userAccountControl: 514$/m)
  assert.not(deleted.includes('memberOf'))
})

life('a login without rights is told what it lacks', async world => {
  const { target, domain } = world
  const complete = await target.hooks.probe('active-directory', target.access,
    { base: sessionsPlace, roles: [ops], username: 'scratch' })
  assert.equal([complete.missingRights, complete.warnings], [[], []])
  const { missingRights } = await target.hooks.probe('active-directory', target.access, {
    base: `CN=Users,${domainBase}`, roles: [admins, `CN=none,${domainBase}`], username: 'Administrator'
  })
  for (const [at, said] of [
    /cannot make accounts in CN=Users/, /members of CN=Domain Admins/, /members of CN=none/,
    /cannot change userAccountControl, accountExpires, adminDescription of Administrator/
  ].entries()) assert.match(missingRights[at] ?? '', said)
  const plain = targetOf(domain, { username: 'scratch@ad.example.org', password: 'Theirs-1-old' })
  assert.is((await plain.run('create', 'create-account', target.mint())).code, 'target-refused')
  plain.close()
})

life('a login without TLS, to an unknown authority or with a wrong password is refused', async world => {
  const { target, domain } = world
  const account = target.mint()
  const job = target.job('create', 'create-account', account)
  const { tls, ...address } = target.access.target
  const over = (name: string, port: number, mode: 'disable' | 'verify-full', ca?: string): typeof job => ({
    ...job, access: { ...target.access, target: { ...address, name, port, tls: { ...tls, mode, ca } } }
  })
  assert.is((await target.hooks.run(over('plain', 389, 'disable'))).code, 'target-refused')
  assert.is((await target.hooks.run(over('unknown', 636, 'verify-full'))).code, 'target-untrusted')
  const made = await target.hooks.run(over('ldaps', 636, 'verify-full', tls.ca))
  assert.is(made.state, 'done', made.error)
  await target.done('delete', 'delete-account', { ...account, epoch: 2 })
  const wrong = targetOf(domain, { ...domain.hooks, password: 'wrong' })
  assert.is((await wrong.run('create', 'create-account', account)).code, 'target-refused')
  wrong.close()
})

life('lint refuses what a domain does not have', () => {
  const problemsOf = (action: string, steps: string): string => shelf.plugin('active-directory').lint(
    parseTemplate(`id: active-directory/mine\nplugin: active-directory\naction: ${action}\ntitle: Mine
steps:\n${steps}`)).join('\n')
  assert.match(problemsOf('create', '  - do: add-to-groups'), /steps\[0\]: must be make-account/)
  assert.match(problemsOf('create', '  - do: make-account'), /make-account needs it/)
  assert.match(problemsOf('delete', '  - sql: SELECT 1'), /no SQL/)
  assert.match(problemsOf('disable', '  - do: take-from-groups'), /reads this list/)
})

life.run()
