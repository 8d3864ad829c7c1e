// deadline: 120 s
// Secrets of applications in Microsoft Entra, tokens and keys of Google, by the shipped templates against
// doubles that check secrets, signatures and tokens: what leaves with a lease works there, and does not
// after its end.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { authorizationOf } from '../plugins/http/login.ts'
import { systemClock } from '../src/clock.ts'
import type { Access } from '../src/jit/plugin.ts'
import { Secret } from '../src/secret.ts'
import { startAzure, startGoogle } from './peers/clouds.ts'
import type { Azure, Google } from './peers/clouds.ts'
import { PluginTarget, handContext } from './peers/plugin-target.ts'
import type { Service } from './peers/service.ts'

interface Cloud { service: Service, target: PluginTarget }
interface World {
  entra: Cloud & { azure: Azure }
  google: Cloud & { google: Google }
}

const life = suite<World>('Azure and Google')

function accessOf(service: Service, secret: string, serverName: string): Access {
  return {
    target: {
      name: serverName, protocol: 'http', host: service.host, port: service.port,
      tls: { mode: 'verify-full', ca: service.ca, serverName }
    },
    username: 'hooks', secret: { kind: 'password', password: new Secret(secret) }
  }
}

function azureSecret({ client }: Azure, { port }: Service, secret = client.secret): string {
  return JSON.stringify({
    clientId: client.id, clientSecret: secret, tenantId: 'tenant-1',
    activeDirectoryEndpointUrl: `https://127.0.0.1:${port}`
  })
}

const inMs = (ms: number): string => new Date(systemClock.now().getTime() + ms).toISOString()

life.before(async world => {
  const entra = await startAzure()
  const google = await startGoogle()
  const secret = azureSecret(entra.azure, entra.service)
  world.entra = {
    ...entra, target: new PluginTarget('azure', accessOf(entra.service, secret, 'graph.microsoft.com'))
  }
  world.google = {
    ...google,
    target: new PluginTarget('gcp', accessOf(google.service, google.google.keyFile(), 'iam.googleapis.com'))
  }
})
life.after(async ({ entra, google }) => {
  for (const { target, service } of [entra, google]) {
    target.close()
    await service[Symbol.asyncDispose]()
  }
})

/** Whether a login like this gets a token. */
async function tokenFor(service: Service, secret: string, name: string): Promise<string> {
  return await authorizationOf(accessOf(service, secret, name), handContext()).then(
    () => 'let in', (error: { detail?: string }) => error.detail ?? ''
  )
}

life('a secret of an application ends with its lease; the others of it stay (L5)', async ({ entra }) => {
  const { azure, target } = entra
  const application = azure.addApplication()
  const variables = { application: application.id, ends_at: inMs(3_600_000) }
  const [one, other] = [target.mint(), target.mint()]
  const made = await target.done('create', 'add-password', one, variables)
  await target.done('create', 'add-password', other, variables)
  const [secret] = application.passwordCredentials
  assert.equal([made.made?.['client_secret']?.expose(), made.made?.['key_id']?.expose()],
    [azure.texts.get(secret?.keyId ?? ''), secret?.keyId])
  assert.is(secret?.endDateTime, variables.ends_at)
  azure.throttled = 1
  await target.done('delete', 'remove-password', { ...one, epoch: 2 }, { application: application.id })
  assert.equal(application.passwordCredentials.map(({ displayName }) => displayName),
    [`sallyport/${other.accountId}`])
  const again = await target.done('delete', 'remove-password', one, { application: application.id })
  assert.is(again.changed, false)
  const gone = await target.done('delete', 'remove-password', one, { application: 'not-there' })
  assert.is(gone.seen?.exists, false)
})

life('a client secret whose answer was lost is found by its marker and removed', async ({ entra }) => {
  const { azure, target } = entra
  const application = azure.addApplication()
  const account = target.mint()
  azure.lose = true
  const variables = { application: application.id }
  const made = await target.run('create', 'add-password', account, variables)
  assert.equal([made.state, made.made, application.passwordCredentials.length], ['unknown', undefined, 1])
  await target.done('delete', 'remove-password', { ...account, epoch: 2 }, variables)
  assert.is(application.passwordCredentials.length, 0)
})

life('a temporary principal has its groups, and is gone from the bin as well', async ({ entra }) => {
  const { azure, target } = entra
  const account = target.mint()
  const made = await target.done('create', 'create-principal', account, { groups: ['group-1'] })
  const [, application] = [...azure.applications].find(([, one]) => one['displayName'] === account.name) ?? []
  assert.equal([made.made?.['client_id']?.expose(), azure.members.size], [application?.appId, 1])
  await target.done('delete', 'delete-principal', { ...account, epoch: 2 })
  assert.equal([azure.applications.has(application?.id ?? ''), azure.bin.size], [false, 0])
})

life('an application of that name that is not ours is never touched', async ({ entra }) => {
  const { azure, target } = entra
  const account = target.mint()
  const theirs = azure.addApplication({ displayName: account.name, notes: 'theirs' })
  assert.is((await target.run('create', 'create-principal', account)).state, 'conflict')
  assert.is((await target.run('delete', 'delete-principal', { ...account, epoch: 2 })).state, 'conflict')
  assert.ok(azure.applications.has(theirs.id))
})

life('a key of Google lets in while its account exists, and not after (L5)', async ({ google: world }) => {
  const { google, service, target } = world
  const account = target.mint('jit1234567')
  google.unseenReads = 2
  const made = await target.done('create', 'create-key', account, { project: 'project-1' })
  const file = Buffer.from(made.made?.['key_file_base64']?.expose() ?? '', 'base64').toString()
  assert.is(await tokenFor(service, file, 'iam.googleapis.com'), 'let in')
  await target.done('delete', 'delete-key', { ...account, epoch: 2 }, { project: 'project-1' })
  assert.match(await tokenFor(service, file, 'iam.googleapis.com'), /400 invalid_grant/)
  const bad = await target.run('create', 'create-key', target.mint(), { project: 'project-1' })
  assert.match(bad.error ?? '', /INVALID_ARGUMENT/, 'a name with _')
})

life('an access token of Google cannot be taken back, and its end is known', async ({ google: world }) => {
  const { google, target } = world
  const account = target.mint()
  const variables = { service_account: 'app@project-1.iam.gserviceaccount.com', ends_at: inMs(1_800_000) }
  const made = await target.done('create', 'access-token', account, variables)
  assert.ok(google.drawn.has(made.made?.['access_token']?.expose() ?? ''))
  const kept = await target.run('delete', 'expire-token', account, { ends_at: variables.ends_at })
  assert.equal([kept.state, kept.seen?.endsAt?.toISOString()],
    ['refused', new Date(Date.parse(variables.ends_at) + 60_000).toISOString()])
  assert.match(kept.error ?? '', /cannot be taken away and ends by itself at/)
  const late = { ...variables, ends_at: inMs(7_200_000) }
  const long = await target.run('create', 'access-token', target.mint(), late)
  assert.match(long.error ?? '', /400 INVALID_ARGUMENT/)
})

life('logins that cannot be are refused before the service hears anything', async ({ entra, google }) => {
  const { azure, service } = entra
  const graph = 'graph.microsoft.com'
  assert.is(await tokenFor(service, azureSecret(azure, service), graph), 'let in')
  service.asked.length = 0
  const wrong = azureSecret(azure, service, 'wrong')
  assert.match(await tokenFor(service, wrong, graph), /token endpoint answered 401 invalid_client/)
  for (const [secret, why] of [
    ['{', /begins as JSON and is none/], ['{"clientId":"x"}', /without clientId, clientSecret/],
    ['{"clientId":"x","clientSecret":"y","tokenUrl":"http://127.0.0.1/"}', /no https address/],
    ['{"type":"service_account","client_email":"x","token_uri":"https://127.0.0.1/"}', /no private key/]
  ] as const) assert.match(await tokenFor(google.service, secret, graph), why)
  assert.equal(service.asked.map(({ path }) => path), ['/tenant-1/oauth2/v2.0/token'])
})

life.run()
