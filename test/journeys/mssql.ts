// deadline: 120 s
// A dynamic secret on SQL Server through the whole product, as its holder has it: generated, renewed, revoked
// with its proof; and as an admin has it: planned, proved, examined by `doctor`. The server is a double that
// the stock driver talks to (peers/mssql-server.ts), over TLS verified in full; of Oracle there is none, and
// `doctor` says so.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { connectMssql } from '../../plugins/mssql/link.ts'
import type { LeaseJson, ReadingJson } from '../../src/api/client-types.ts'
import { Secret } from '../../src/secret.ts'
import { startProduct } from '../peers/house.ts'
import type { Product } from '../peers/house.ts'
import { startMssql } from '../peers/mssql-server.ts'
import type { MssqlDouble } from '../peers/mssql-server.ts'
import { handContext } from '../peers/plugin-target.ts'

interface World {
  product: Product
  double: MssqlDouble
}

const journey = suite<World>('a dynamic secret on SQL Server (a double)')

function documentsOf({ port, ca }: MssqlDouble): string {
  const pem = ca.trim().split('\n').map(line => `    ${line}`).join('\n')
  return `kind: target
name: sql
protocol: mssql
address: 127.0.0.1:${port}
tls:
  mode: verify-full
  ca: |
${pem}
---
kind: credential
name: sql-admin
target: sql
username: hooks
password: { env: SQL_PASSWORD }
---
kind: credential
name: sql-rw
target: sql
jit:
  enabled: true
  type: creation-deletion
  useOwnCredential: false
  authenticationCredential: sql-admin
  create: { plugin: mssql, template: mssql/create-login-user }
  delete: { plugin: mssql, template: mssql/delete-login-user }
  variables: { database: app, roles: [app_rw] }
  maxSession: 1h
---
kind: environment
name: prod
---
kind: secret
name: sql
environment: prod
provider: mssql
target: sql
authenticationCredential: sql-admin
create: mssql/create-login-user
delete: mssql/delete-login-user
variables: { database: app, roles: [app_rw] }
ttl: 2m
---
kind: target
name: ora
protocol: oracle
address: 127.0.0.1:1
database: orders
tls: { mode: disable }
---
kind: credential
name: ora-admin
target: ora
username: hooks
password: { env: SQL_PASSWORD }
---
kind: credential
name: ora-rw
target: ora
jit:
  enabled: true
  type: creation-deletion
  useOwnCredential: false
  authenticationCredential: ora-admin
  create: { plugin: oracle, template: oracle/create-user }
  delete: { plugin: oracle, template: oracle/drop-user }
  variables: { roles: [app_rw] }
  maxSession: 1h
`
}

journey.before(async world => {
  world.double = await startMssql()
  world.product = await startProduct({
    listen: 'ssh: null, postgres: null', access: documentsOf(world.double),
    environment: { SQL_PASSWORD: 'of-the-hooks' }
  })
})
journey.after(async ({ product, double }) => {
  await product.stop()
  await double[Symbol.asyncDispose]()
  product.clear()
})

/** What the stock driver says to that login. */
async function login({ double }: World, username: string, password: string): Promise<string> {
  const { host, port, ca } = double
  const target = { name: 'sql', protocol: 'mssql', host, port, tls: { mode: 'verify-full', ca } } as const
  const secret = { kind: 'password', password: new Secret(password) } as const
  try {
    const client = await connectMssql({ target, username, secret }, handContext())
    const [row] = await client.query('SELECT SUSER_SNAME()', 5000)
    client.close()
    return row?.[0] ?? ''
  } catch (error) {
    return String(error)
  }
}

// Promised: L5.
journey('its login works until it is revoked, also after it was renewed, and is proved gone', async world => {
  const { product, double } = world
  const { values, lease } = await product.json<ReadingJson>('secrets', 'generate', 'prod/sql', '--ttl', '1m')
  const { username = '', password = '' } = values
  assert.is(await login(world, username, password), username)
  assert.ok(double.server.databases.get('app')?.roles.get('app_rw')?.members.has(username))
  const before = await product.json<LeaseJson>('leases', 'show', lease!.id)
  await product.sallyport('leases', 'renew', lease!.id, '--ttl', '1m')
  const renewed = await product.json<LeaseJson>('leases', 'show', lease!.id)
  assert.is(Date.parse(renewed.expiresAt) - Date.parse(before.expiresAt), 60_000)
  assert.is(await login(world, username, password), username)
  await product.sallyport('leases', 'revoke', lease!.id)
  assert.match(await login(world, username, password), /18456/)
  const { status, account } = await product.json<LeaseJson>('leases', 'show', lease!.id)
  assert.equal([status, account.state], ['revoked', 'proved-gone'])
  assert.is(double.server.logins.has(username), false)
  assert.not(product.log().includes(password) || double.server.log.join('\n').includes(password))
})

journey('templates are listed as sound, planned without secrets, and proved', async ({ product }) => {
  const planned = await product.sallyport('templates', 'plan', 'sql-rw')
  assert.match(planned, /CREATE LOGIN \[jit_0000000\] WITH PASSWORD = \*{8} HASHED/)
  assert.match(await product.sallyport('templates', 'prove', 'sql-rw'), /proved: nothing remained/)
  for (const file of ['mssql/create-login-user', 'oracle/create-user']) {
    const path = join(import.meta.dirname, `../../templates/${file}.yaml`)
    assert.match(await product.sallyport('templates', 'lint', path), /no problems/)
  }
})

journey('doctor names what is away, and an oracle target needs its service', async ({ product }) => {
  interface Found { checks: { name: string, status: string, detail: string }[] }
  const said = await product.json<Found>('doctor').catch(String)
  const text = typeof said === 'string' ? said : JSON.stringify(said)
  assert.match(text, /target ora as[^}]*NJS-503/)
  assert.match(text, /target sql as[^}]*16\.0\.1000/)
  assert.not.match(text, /of-the-hooks/)
  const file = join(product.folder, 'wrong.yaml')
  writeFileSync(file, 'kind: target\nname: t\nprotocol: oracle\naddress: "127.0.0.1"\n')
  assert.match(await product.refusal('apply', '-f', file), /database.*name of the service/)
})

journey.run()
