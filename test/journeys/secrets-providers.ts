// deadline: 180 s
// Dynamic secrets of every kind of provider that is not PostgreSQL, through the whole product: MariaDB and
// Redis as they are, logged in to with the values that a lease gives, and AWS as a double (which checks
// signatures and holds to its rules) with a key that only the service drew.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { LeaseJson, ReadingJson } from '../../src/api/client-types.ts'
import { startMariadb } from '../../tool/mariadb.ts'
import type { MariadbServer } from '../../tool/mariadb.ts'
import { startRedis } from '../../tool/redis.ts'
import type { RedisServer } from '../../tool/redis.ts'
import { programOf } from '../../tool/services.ts'
import { startAws } from '../peers/aws.ts'
import type { Aws } from '../peers/aws.ts'
import { ran, startProduct, until } from '../peers/house.ts'
import type { Product } from '../peers/house.ts'
import type { Service } from '../peers/service.ts'

interface World {
  product: Product
  maria: MariadbServer
  redis: RedisServer
  aws: Aws
  service: Service
}

const providers = suite<World>('secrets of other providers')

const documentsOf = ({ maria, redis, aws, service }: Omit<World, 'product'>): string => `kind: environment
name: prod
---
kind: target
name: maria
protocol: mysql
address: 127.0.0.1:${maria.port}
tls: { mode: disable }
---
kind: credential
name: maria-admin
target: maria
username: hooks
password: { env: TARGETS_PASSWORD }
---
kind: secret
name: maria-rw
environment: prod
provider: mysql
target: maria
authenticationCredential: maria-admin
create: mysql/create-user
delete: mysql/delete-user
variables: { roles: [app_rw] }
---
kind: target
name: cache
protocol: redis
address: 127.0.0.1:${redis.port}
tls: { mode: disable }
---
kind: credential
name: cache-admin
target: cache
username: hooks
password: { env: TARGETS_PASSWORD }
---
kind: secret
name: cache-rw
environment: prod
provider: redis
target: cache
authenticationCredential: cache-admin
create: redis/create-user
delete: redis/delete-user
variables: { keys: ["app:*"] }
---
kind: target
name: aws
protocol: http
address: 127.0.0.1:${service.port}
tls: { mode: verify-full, serverName: iam.amazonaws.com, ca: ${JSON.stringify(service.ca)} }
---
kind: credential
name: aws-admin
target: aws
username: ${aws.admin.id}
password: { env: AWS_SECRET }
---
kind: secret
name: deployer
environment: prod
provider: aws
target: aws
authenticationCredential: aws-admin
create: aws/create-user
delete: aws/delete-user
outputs:
  access_key_id: AWS_ACCESS_KEY_ID
  secret_access_key: AWS_SECRET_ACCESS_KEY
`

providers.before(async world => {
  world.maria = await startMariadb({ settings: ['--event-scheduler=ON'] })
  world.redis = await startRedis({
    acl: [
      'user hooks on >of-the-hooks -@all +acl|setuser +acl|getuser +acl|deluser +acl|list +acl|save '
      + '+acl|dryrun +client|list +client|kill +info +config|get'
    ]
  })
  Object.assign(world, await startAws())
  world.maria.sql(`
    CREATE USER hooks@'%' IDENTIFIED BY 'of-the-hooks';
    GRANT CREATE USER, PROCESS, CONNECTION ADMIN, SHOW VIEW, TRIGGER ON *.* TO hooks@'%';
    GRANT SELECT, UPDATE ON mysql.* TO hooks@'%'; GRANT ALL ON sallyport.* TO hooks@'%';
    CREATE ROLE app_rw; GRANT app_rw TO hooks@'%' WITH ADMIN OPTION`)
  world.product = await startProduct({
    listen: 'ssh: null, postgres: null', access: documentsOf(world),
    environment: { TARGETS_PASSWORD: 'of-the-hooks', AWS_SECRET: world.aws.admin.secret }
  })
})
providers.after(async ({ product, maria, redis, service }) => {
  await product?.stop()
  product?.clear()
  await maria?.stop()
  await redis?.stop()
  await service?.[Symbol.asyncDispose]()
})

async function generate(product: Product, path: string): Promise<{ lease: string, of(key: string): string }> {
  const { lease, values } = await product.json<ReadingJson>('secrets', 'generate', path, '--ttl', '600')
  return { lease: lease!.id, of: key => values[key] ?? '' }
}

async function revoke(product: Product, lease: string): Promise<void> {
  await product.sallyport('leases', 'revoke', lease)
  const shown = await until(() => product.json<LeaseJson>('leases', 'show', lease),
    ({ account }) => account.state === 'proved-gone')
  assert.is(shown.status, 'revoked')
}

providers('a lease on MariaDB logs in until it is revoked', async ({ product }) => {
  const { lease, of } = await generate(product, 'prod/maria-rw')
  const login = () => ran(programOf('mariadb'), [
    '-h', of('host'), '-P', of('port'), '-u', of('username'), '-N', '-e', 'SELECT CURRENT_ROLE()'
  ], { MYSQL_PWD: of('password') })
  const { stdout, stderr } = await login()
  assert.is(stdout.trim(), 'app_rw', stderr)
  await revoke(product, lease)
  assert.match((await login()).stderr, /Access denied/)
})

providers('a lease on Redis logs in until it is revoked', async ({ product }) => {
  const { lease, of } = await generate(product, 'prod/cache-rw')
  const login = () => ran(programOf('redis-cli'), [
    '-h', of('host'), '-p', of('port'), '--user', of('username'), '--no-auth-warning', 'EXISTS', 'app:x'
  ], { REDISCLI_AUTH: of('password') })
  assert.is((await login()).stdout.trim(), '0')
  await revoke(product, lease)
  assert.match((await login()).stdout + (await login()).stderr, /WRONGPASS|NOAUTH/)
})

providers('a lease on AWS has the key that AWS drew, and leaves no user', async ({ product, aws }) => {
  const { lease, of } = await generate(product, 'prod/deployer')
  const [[, user] = []] = [...aws.users]
  assert.ok(user?.keys.has(of('AWS_ACCESS_KEY_ID')))
  assert.ok(of('AWS_SECRET_ACCESS_KEY').length >= 20)
  assert.is(of('password'), '', 'what we drew and nobody uses is not handed out')
  for (const text of [product.log(), await product.sallyport('leases', 'history', lease)]) {
    assert.not.ok(text.includes(of('AWS_SECRET_ACCESS_KEY')))
  }
  await revoke(product, lease)
  assert.is(aws.users.size, 0)
})

providers('an output that its template does not make is refused by name', async ({ product }) => {
  const wrong = `kind: secret
name: wrong
environment: prod
provider: aws
target: aws
authenticationCredential: aws-admin
create: aws/create-user
delete: aws/delete-user
outputs: { client_secret: SECRET }
`
  const file = join(product.folder, 'wrong.yaml')
  writeFileSync(file, wrong)
  const said = await product.sallyport('apply', '-f', file).then(assert.unreachable, String)
  assert.match(String(said), /outputs\.client_secret: aws gives none; it gives username, access_key_id/)
})

providers.run()
