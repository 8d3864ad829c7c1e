// A dynamic secret whose values only the service draws, through the whole product: an IAM user's access key
// from a double of AWS, which checks signatures and holds to its rules.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { LeaseJson, ReadingJson } from '../../src/api/client-types.ts'
import { startAws } from '../peers/aws.ts'
import type { Aws } from '../peers/aws.ts'
import { startProduct, until } from '../peers/house.ts'
import type { Product } from '../peers/house.ts'
import type { Service } from '../peers/service.ts'

interface World {
  product: Product
  aws: Aws
  service: Service
}

const providers = suite<World>('secrets that a service draws')

const documentsOf = ({ aws, service }: Omit<World, 'product'>): string => `kind: environment
name: prod
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
  Object.assign(world, await startAws())
  world.product = await startProduct({
    listen: 'ssh: null, postgres: null', access: documentsOf(world),
    environment: { AWS_SECRET: world.aws.admin.secret }
  })
})
providers.after(async ({ product, service }) => {
  await product?.stop()
  product?.clear()
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

providers('a lease on AWS has the key that AWS drew, and leaves no user (L5)', async ({ product, aws }) => {
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
