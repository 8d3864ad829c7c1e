// deadline: 120 s
// IAM users and tokens of AWS, made and taken away by the shipped templates against a double that checks
// signatures and holds to AWS' rules, and the stock SDK against the same double: what leaves with a lease,
// what a lost answer means, what is never left behind, and what nobody can take back.
import { Agent } from 'node:https'
import { IAMClient, GetUserCommand } from '@aws-sdk/client-iam'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { signAws } from '../plugins/http/sigv4.ts'
import { systemClock } from '../src/clock.ts'
import type { HookResult } from '../src/jit/hook.ts'
import { Secret } from '../src/secret.ts'
import { startAws } from './peers/aws.ts'
import type { Aws } from './peers/aws.ts'
import { PluginTarget } from './peers/plugin-target.ts'
import type { Service } from './peers/service.ts'

interface World {
  aws: Aws
  service: Service
  target: PluginTarget
}

const life = suite<World>('AWS')

function targetOf({ aws, service }: Pick<World, 'aws' | 'service'>, name: string): PluginTarget {
  return new PluginTarget('aws', {
    target: {
      name, protocol: 'http', host: service.host, port: service.port,
      tls: { mode: 'verify-full', ca: service.ca, serverName: name }
    },
    username: aws.admin.id, secret: { kind: 'password', password: new Secret(aws.admin.secret) }
  })
}

life.before(async world => {
  Object.assign(world, await startAws())
  world.target = targetOf(world, 'iam.amazonaws.com')
})
life.before.each(({ aws, service }) => {
  Object.assign(aws, { unseenReads: 0, throttled: 0, lose: undefined, refuse: undefined })
  service.asked.length = 0
})
life.after(async ({ target, service }) => {
  target.close()
  await service[Symbol.asyncDispose]()
})

function keysOf({ made }: HookResult): { accessKeyId: string, secretAccessKey: string } {
  return {
    accessKeyId: made?.['access_key_id']?.expose() ?? '',
    secretAccessKey: made?.['secret_access_key']?.expose() ?? ''
  }
}

/** The name that AWS says belongs to these keys, by the stock SDK. */
async function whoIs({ service }: World, credentials: ReturnType<typeof keysOf>): Promise<string> {
  const client = new IAMClient({
    endpoint: `https://127.0.0.1:${service.port}`, region: 'us-east-1', credentials, maxAttempts: 1,
    requestHandler: { httpsAgent: new Agent({ ca: service.ca }) }
  })
  try {
    return (await client.send(new GetUserCommand({}))).User?.UserName ?? ''
  } catch (error) {
    return (error as Error).name
  } finally {
    client.destroy()
  }
}

life('the signature is the one that AWS publishes for its own example', () => {
  const headers = {
    'content-type': 'application/x-www-form-urlencoded; charset=utf-8', 'host': 'iam.amazonaws.com'
  }
  const path = '/?Action=ListUsers&Version=2010-05-08'
  const signed = signAws(
    { method: 'GET', path, headers, body: '' },
    { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: () => 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY' },
    { region: 'us-east-1', service: 'iam' }, new Date('2015-08-30T12:36:00Z')
  )
  assert.is(signed['x-amz-date'], '20150830T123600Z')
  assert.is(signed.authorization, 'AWS4-HMAC-SHA256 '
    + 'Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, '
    + 'SignedHeaders=content-type;host;x-amz-date, '
    + 'Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7')
})

life('a user has a key that the stock SDK works with, and is gone with its lease', async world => {
  const { aws, target } = world
  const account = target.mint()
  const policies = ['arn:aws:iam::aws:policy/ReadOnlyAccess']
  const made = await target.done('create', 'create-user', account, { groups: ['readers'], policies })
  assert.equal([made.seen?.ours, made.seen?.enabled], [true, true])
  const keys = keysOf(made)
  assert.is(await whoIs(world, keys), account.name)
  const user = aws.users.get(account.name)!
  assert.equal([user.path, [...user.groups], [...user.policies]], ['/sallyport/', ['readers'], policies])
  // What a person may have given it meanwhile: DeleteConflict, were it left.
  user.inline.add('by-hand')
  user.login = true
  const removed = await target.done('delete', 'delete-user', { ...account, epoch: 2 })
  assert.equal([removed.seen?.exists, aws.users.has(account.name)], [false, false])
  assert.is(await whoIs(world, keys), 'InvalidClientTokenId')
  assert.is((await target.done('delete', 'delete-user', { ...account, epoch: 3 })).changed, false)
  assert.not(target.log.join('\n').includes(keys.secretAccessKey))
})

life('a user that is not seen at once, and a service that says too often, are waited for', async world => {
  const { aws, target } = world
  aws.unseenReads = 3
  const account = target.mint()
  const before = aws.users.size
  aws.throttled = 1
  const made = await target.done('create', 'create-user', account)
  assert.is(await whoIs(world, keysOf(made)), account.name)
  aws.throttled = 2
  await target.done('delete', 'delete-user', { ...account, epoch: 2 })
  assert.is(aws.users.size, before)
})

life('a lost key is nobody\'s: the user is removed and not made again', async world => {
  const { aws, target } = world
  const account = target.mint()
  aws.lose = 'CreateAccessKey'
  const made = await target.run('create', 'create-user', account)
  assert.equal([made.state, made.made, aws.users.get(account.name)?.keys.size], ['unknown', undefined, 1])
  const again = await target.run('create', 'create-user', { ...account, epoch: 2 })
  assert.equal([again.state, again.made, aws.users.get(account.name)?.keys.size], ['refused', undefined, 1])
  await target.done('delete', 'delete-user', { ...account, epoch: 3 })
  assert.not(aws.users.has(account.name))
})

life('a user of that name that is not ours is never touched', async ({ aws, target }) => {
  const account = target.mint()
  const user = aws.addUser(account.name)
  assert.is((await target.run('create', 'create-user', account)).state, 'conflict')
  assert.is((await target.run('delete', 'delete-user', { ...account, epoch: 2 })).state, 'conflict')
  assert.equal([user.keys.size, aws.users.get(account.name)], [0, user])
})

life('a removal that AWS refuses has shut the keys first and can go on', async world => {
  const { aws, target } = world
  const account = target.mint()
  const keys = keysOf(await target.done('create', 'create-user', account))
  aws.refuse = 'DeleteAccessKey'
  const stuck = await target.run('delete', 'delete-user', { ...account, epoch: 2 })
  assert.equal([stuck.state, stuck.failedStep, stuck.quarantined],
    ['refused', 'remove its access keys', true])
  assert.match(stuck.error ?? '', /403 AccessDenied/)
  assert.is(await whoIs(world, keys), 'InvalidClientTokenId')
  await target.done('delete', 'delete-user', { ...account, epoch: 3 })
})

for (const [template, variables] of [
  ['assume-role', { role_arn: 'arn:aws:iam::123456789012:role/app' }],
  ['federation-token', { policy: '{"Version":"2012-10-17","Statement":[]}' }]
] as const) {
  life(`${template}: nobody can take the token back, and nothing says that it is gone`, async world => {
    const target = targetOf(world, 'sts.eu-west-1.amazonaws.com')
    const account = target.mint()
    const inMs = (ms: number): string => new Date(systemClock.now().getTime() + ms).toISOString()
    const open = { ...variables, ends_at: inMs(1_000_000) }
    const made = await target.done('create', template, account, open)
    assert.equal(Object.keys(made.made ?? {}), ['access_key_id', 'secret_access_key', 'session_token'])
    const kept = await target.run('delete', 'expire-token', account, { ends_at: open.ends_at })
    assert.equal([kept.state, kept.seen?.exists], ['refused', true])
    assert.ok((kept.seen?.endsAt?.getTime() ?? 0) > systemClock.now().getTime() + 1_000_000 - 5000)
    const over = await target.done('delete', 'expire-token', account, { ends_at: inMs(-61_000) })
    assert.is(over.seen?.exists, false)
    const soon = { ...variables, ends_at: inMs(100_000) }
    const short = await target.run('create', template, target.mint(), soon)
    assert.match(short.error ?? '', /400 ValidationError/)
    target.close()
  })
}

life('wrong keys, another certificate and a name that is not AWS\' are told apart', async world => {
  const { target, service } = world
  const wrong = { kind: 'password', password: new Secret('wrong') } as const
  const refused = await target.hooks.probe('aws', { ...target.access, secret: wrong })
    .catch(error => String(error))
  assert.match(String(refused), /keys are not taken: 403 SignatureDoesNotMatch/)
  const over = async (tls: object): Promise<string | undefined> => {
    const address = {
      ...target.access.target, name: JSON.stringify(tls), tls: { mode: 'verify-full', ...tls } as const
    }
    const job = target.job('create', 'create-user', target.mint())
    return (await target.hooks.run({ ...job, access: { ...target.access, target: address } })).code
  }
  service.asked.length = 0
  assert.is(await over({ serverName: 'iam.amazonaws.com' }), 'target-untrusted')
  assert.is(await over({ serverName: 'sts.us-east-1.amazonaws.com', ca: service.ca }), 'target-untrusted')
  assert.is(await over({ ca: service.ca }), 'target-refused')
  assert.is(service.asked.length, 0)
})

life('users of ours are found for the sweep', async ({ aws, target }) => {
  aws.addUser('somebody')
  const account = target.mint()
  await target.done('create', 'create-user', account)
  const owned = await target.hooks.listOwned('aws', target.access)
  assert.equal(owned, [{ name: account.name, accountId: account.accountId }])
  await target.done('delete', 'delete-user', { ...account, epoch: 2 })
})

life.run()
