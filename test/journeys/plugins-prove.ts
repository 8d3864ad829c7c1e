// deadline: 180 s
// MariaDB, Redis and OpenLDAP through the whole product, as an admin has it: declared in documents, examined
// by `doctor`, tried by `templates prove`, swept by `orphans scan`; and as a holder of leases has it, with
// the stock clients. Sessions of these targets do not exist.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { LeaseJson, ReadingJson } from '../../src/api/client-types.ts'
import { startMariadb } from '../../tool/mariadb.ts'
import type { MariadbServer } from '../../tool/mariadb.ts'
import { startRedis } from '../../tool/redis.ts'
import type { RedisServer } from '../../tool/redis.ts'
import { startSlapd, suffix } from '../../tool/slapd.ts'
import type { LdapServer } from '../../tool/slapd.ts'
import { startProduct } from '../peers/house.ts'
import type { Product } from '../peers/house.ts'

interface World {
  product: Product
  maria: MariadbServer
  redis: RedisServer
  directory: LdapServer
}

/** A target, what its stock client says to the right login, what to a wrong one, and that client. */
type Login = readonly [
  string, RegExp, RegExp, (world: World, user: string, password: string) => string
]

const prove = suite<World>('plugins, as an admin has them')

interface Family {
  target: string
  plugin: string
  opening: string
  closing: string
  variables: string
  username?: string
}

const families: readonly Family[] = [
  {
    target: 'maria', plugin: 'mysql', opening: 'create-user', closing: 'delete-user',
    variables: '{ roles: [app_rw] }'
  },
  {
    target: 'cache', plugin: 'redis', opening: 'create-user', closing: 'delete-user',
    variables: '{ keys: ["app:*"] }'
  },
  {
    target: 'directory', plugin: 'ldap', opening: 'create-entry', closing: 'delete-entry',
    variables: `{ base: "ou=people,${suffix}", roles: ["cn=ops,ou=groups,${suffix}"] }`
  },
  { target: 'maria', plugin: 'mysql', opening: 'enable-user', closing: 'disable-user', variables: '{}',
    username: 'standing' },
  { target: 'cache', plugin: 'redis', opening: 'enable-user', closing: 'disable-user', variables: '{}',
    username: 'standing' },
  { target: 'directory', plugin: 'ldap', opening: 'enable-entry', closing: 'disable-entry', variables: '{}',
    username: 'standing' }
]

function credentialOf({ target, plugin, opening, closing, variables, username }: Family): string {
  const [first, second, type] = username === undefined
    ? ['create', 'delete', 'creation-deletion']
    : ['enable', 'disable', 'enable-disable']
  return `---
kind: credential
name: ${target}-${first}
target: ${target}
${username === undefined ? '' : `username: ${username}\n`}jit:
  enabled: true
  type: ${type}
  useOwnCredential: false
  authenticationCredential: ${target}-admin
  ${first}: { plugin: ${plugin}, template: ${plugin}/${opening} }
  ${second}: { plugin: ${plugin}, template: ${plugin}/${closing} }
  variables: ${variables}
  maxSession: 1h
`
}

/** A dynamic secret of each family, which makes accounts as its creating credential does. */
const secretOf = ({ target, plugin, opening, closing, variables }: Family): string => `---
kind: secret
name: ${target}
environment: prod
provider: ${plugin}
target: ${target}
authenticationCredential: ${target}-admin
create: ${plugin}/${opening}
delete: ${plugin}/${closing}
variables: ${variables}
ttl: 2m
`

function documentsOf({ maria, redis, directory }: Omit<World, 'product'>): string {
  const target = (name: string, protocol: string, port: number, login: string, more = ''): string => `---
kind: target
name: ${name}
protocol: ${protocol}
address: 127.0.0.1:${port}
${more}tls: { mode: disable }
---
kind: credential
name: ${name}-admin
target: ${name}
username: ${login}
password: { env: ${name.toUpperCase()}_PASSWORD }
`
  return [
    target('maria', 'mysql', maria.port, 'hooks'), target('cache', 'redis', redis.port, 'hooks'),
    target('directory', 'ldap', directory.port, directory.hooksDn, `database: "${suffix}"\n`),
    ...families.map(credentialOf), '---\nkind: environment\nname: prod\n',
    ...families.slice(0, 3).map(secretOf)
  ].join('').replace(/^---\n/, '')
}

prove.before(async world => {
  world.maria = await startMariadb({ settings: ['--event-scheduler=ON'] })
  world.redis = await startRedis({
    acl: [
      'user hooks on >of-the-hooks -@all +acl|setuser +acl|getuser +acl|deluser +acl|list +acl|save '
      + '+acl|dryrun +client|list +client|kill +info +config|get', 'user standing off'
    ]
  })
  world.directory = await startSlapd()
  world.maria.sql(`
    CREATE USER hooks@'%' IDENTIFIED BY 'of-the-hooks';
    GRANT CREATE USER, PROCESS, CONNECTION ADMIN, SHOW VIEW, TRIGGER ON *.* TO hooks@'%';
    GRANT SELECT, UPDATE ON mysql.* TO hooks@'%'; GRANT ALL ON sallyport.* TO hooks@'%';
    CREATE ROLE app_rw; GRANT app_rw TO hooks@'%' WITH ADMIN OPTION;
    CREATE USER standing@'%' ACCOUNT LOCK`)
  world.directory.ldif(`dn: uid=standing,ou=people,${suffix}
objectClass: inetOrgPerson\nuid: standing\ncn: standing\nsn: standing\n`)
  world.product = await startProduct({
    listen: 'ssh: null, postgres: null', access: documentsOf(world),
    environment: {
      MARIA_PASSWORD: 'of-the-hooks', CACHE_PASSWORD: 'of-the-hooks',
      DIRECTORY_PASSWORD: world.directory.hooksPassword
    }
  })
})
prove.after(async ({ product, maria, redis, directory }) => {
  await Promise.all([maria.stop(), redis.stop(), directory.stop()])
  await product.stop()
  product.clear()
})

prove('the documents say the same when they are read again', async ({ product }) => {
  const again = await product.sallyport('apply', '-f', join(product.folder, 'access.yaml'))
  assert.match(again, /16 unchanged/)
  const shown = await product.sallyport('get', 'target', 'directory')
  assert.ok(shown.includes(suffix) && shown.includes('disable'), shown)
  const file = join(product.folder, 'wrong.yaml')
  writeFileSync(file, 'kind: target\nname: t\nprotocol: redis\naddress: "127.0.0.1"\ndatabase: x\n')
  const refused = await product.sallyport('apply', '-f', file).catch(String)
  assert.match(refused, /database.*does not belong to a redis target/)
})

for (const { target, opening, closing, username, plugin } of families) {
  prove(`templates prove: ${plugin}/${opening} and ${plugin}/${closing}`, async ({ product }) => {
    const name = `${target}-${username === undefined ? 'create' : 'enable'}`
    const said = await product.sallyport('templates', 'prove', name)
    assert.match(said, /proved: nothing remained/)
  })
}

prove('templates plan shows both actions of a credential and no secret', async ({ product }) => {
  for (const { target, opening, closing } of families.slice(0, 3)) {
    const said = await product.sallyport('templates', 'plan', `${target}-create`)
    assert.match(said, /\*{8}/)
    assert.ok(said.includes(`/${opening} `) && said.includes(`/${closing} `), said)
  }
})

for (const [name, right, wrong, login] of [
  ['maria', /^1$/, /Access denied/, ({ maria }, user, password) =>
    maria.as(user, password, 'SELECT 1').output],
  // A key that is not there.
  ['cache', /^$/, /WRONGPASS/, ({ redis }, user, password) => redis.cli(['GET', 'app:x'], user, password)],
  ['directory', /^uid: jit_\d{7}$/m, /Invalid credentials/, ({ directory }, user, password) => {
    const dn = `uid=${user},ou=people,${suffix}`
    return directory.search(dn, '(objectClass=*)', ['uid'], { dn, password }).output
  }]
] as const satisfies readonly Login[]) {
  prove(`a lease on ${name}: its login works until it is revoked, and is proved gone`, async world => {
    const { product } = world
    const { values, lease } = await product.json<ReadingJson>('secrets', 'generate', `prod/${name}`)
    const { username = '', password = '' } = values
    assert.match(login(world, username, password), right)
    await product.sallyport('leases', 'revoke', lease!.id)
    assert.match(login(world, username, password), wrong)
    const { status, account } = await product.json<LeaseJson>('leases', 'show', lease!.id)
    assert.equal([status, account.state], ['revoked', 'proved-gone'])
    assert.not.match(product.log(), new RegExp(password))
  })
}

prove('doctor finds the rights of all three complete, and nothing is an orphan', async ({ product }) => {
  interface Found { checks: { name: string, status: string, detail: string }[] }
  const { checks } = await product.json<Found>('doctor')
  const ours = checks.filter(check => /^target (?:maria|cache|directory)/.test(check.name))
  assert.is(ours.length, 3, JSON.stringify(checks))
  for (const { name, status, detail } of ours) assert.is.not(status, 'failed', `${name}: ${detail}`)
  const { orphans, unreachable } = await product.json<{ orphans: object[], unreachable: object[] }>(
    'orphans', 'scan')
  assert.equal([orphans, unreachable], [[], []])
})

prove('no password of a hook is in the log', async ({ product, directory }) => {
  const log = product.log()
  assert.not(log.includes('of-the-hooks') || log.includes(directory.hooksPassword), log)
})

prove.run()
