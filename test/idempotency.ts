// Idempotency keys: a repeat gets the same answer and nothing is issued twice, of requests at the same moment
// one is done, after a crash none is done again; answers are sealed, and gone after minutes. At the API over
// plain maps, and the keys themselves on both stores.
import { suite, test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError, asSallyportError } from '../src/errors.ts'
import { Secret } from '../src/secret.ts'
import type { Database } from '../src/store/database.ts'
import { sql } from '../src/store/drizzle.ts'
import {
  answerSeconds, createIdempotencyKeys, keySeconds, keysPerPrincipalMax
} from '../src/store/idempotency.ts'
import type { IdempotencyKeys } from '../src/store/idempotency.ts'
import { idempotencyKey, node, secretValue } from '../src/store/schema.ts'
import { openSecrets } from '../src/store/sealing.ts'
import { bench } from './peers/api-bench.ts'
import type { Answer, Bench } from './peers/api-bench.ts'
import { storeKinds, storeMaker } from './peers/stores.ts'

const tokensPath = '/api/v1/applications/billing/tokens'

function make({ ask, tokens }: Bench, key: string | undefined, body: unknown = {}): Promise<Answer> {
  const headers = key === undefined ? undefined : { 'idempotency-key': key }
  return ask('POST', tokensPath, { token: tokens.admin, body, ...headers === undefined ? {} : { headers } })
}

test('a repeat gets the same answer, and one token was made', async () => {
  const made = bench()
  const before = made.memory.applicationTokens.size
  const one = await make(made, 'key-1', { ttl: '1h' })
  const again = await make(made, 'key-1', { ttl: '1h' })
  assert.is(one.status, 200)
  assert.is(again.text, one.text)
  assert.equal([one, again].map(({ headers }) => headers.get('idempotency-replayed')), [null, 'true'])
  assert.is(again.headers.get('content-type'), 'application/json')
  assert.is(made.memory.applicationTokens.size, before + 1)
  const { id } = one.json as unknown as { id: string }
  assert.equal(made.memory.audit.map(({ kind, actor, subject }) => [kind, actor, subject]),
    [['answer.repeated', 'the-admin', `token ${id} of billing`]])
  await make(made, undefined, { ttl: '1h' })
  await make(made, 'key-2', { ttl: '1h' })
  assert.is(made.memory.applicationTokens.size, before + 3, 'without a key, and with another, each makes one')
})

test('another request under the same key is refused, another person has keys of their own', async () => {
  const made = bench()
  await make(made, 'k', { ttl: '1h' })
  const other = await make(made, 'k', { ttl: '2h' })
  assert.equal([other.status, other.json.error.code], [422, 'key-reused'])
  const headers = { 'idempotency-key': 'k' }
  const path = (user: string): string => `/api/v1/users/${user}/second-factor`
  const moved = await made.ask('POST', path('the-user'), { token: made.tokens.admin, headers })
  assert.is(moved.json.error.code, 'key-reused')
  const own = await made.ask('POST', path('the-user'), { token: made.tokens.user, headers })
  assert.is(own.status, 200)
  for (const key of ['', ' ', 'two words', 'x'.repeat(201), 'ümlaut']) {
    const bad = await make(made, key).catch(() => undefined)
    assert.ok(bad === undefined || bad.status === 400, key)
  }
})

test('what was refused may be tried again under its key; what may have happened may not', async () => {
  const made = bench()
  const { memory } = made
  const application = memory.resources.get('application/billing')!
  memory.resources.delete('application/billing')
  assert.is((await make(made, 'k')).status, 404)
  memory.resources.set('application/billing', application)
  assert.is((await make(made, 'k')).status, 200)

  const { ports } = made
  const { add } = ports.applicationTokens
  ports.applicationTokens.add = async (token, by) => {
    await add(token, by)
    throw new SallyportError('store-unavailable', { detail: 'the answer to the commit was lost' })
  }
  const before = memory.applicationTokens.size
  assert.is((await make(made, 'lost')).status, 503)
  ports.applicationTokens.add = add
  const again = await make(made, 'lost')
  assert.equal([again.status, again.json.error.code], [409, 'outcome-unknown'])
  assert.is(memory.applicationTokens.size, before + 1)
})

test('while the first runs a repeat is refused; when its answer is over it names what was made', async () => {
  const made = bench()
  const { ports, memory } = made
  const { add } = ports.applicationTokens
  let go = (): void => undefined
  const gate = new Promise<void>(resolve => { go = resolve })
  ports.applicationTokens.add = async (...words) => {
    await gate
    return add(...words)
  }
  const first = make(made, 'k')
  const others = await Promise.all([make(made, 'k'), make(made, 'k')])
  for (const { status, json } of others) assert.equal([status, json.error.code], [409, 'still-running'])
  go()
  const { id } = (await first).json as unknown as { id: string }
  const known = memory.keys.get('user the-admin k')!.known
  assert.is(known.state, 'done')
  if (known.state === 'done') known.answer = undefined
  const late = await make(made, 'k')
  assert.equal([late.status, late.json.error.code, late.json.error.problems],
    [409, 'already-issued', [`token ${id} of billing`]])
})

test('every route that makes something says whether it takes a key', () => {
  // What is asked for twice here is the same as once, or nobody gets anything that could be had twice.
  const same = new Set([
    '/login', '/redeem', '/browser/login', '/browser/redeem', '/browser/logout', '/logout', '/apply',
    '/lint', '/plan', '/prove', '/prove/steps', '/audit/verify', '/rules/what-if', '/orphans/reap',
    '/leases/{id}/revoke', '/sessions/{id}/kill',
    '/templates/{plugin}/{name}/active', '/users/{name}/second-factor/confirm',
    // Logins, which have no caller yet, and what ends by itself in moments.
    '/browser/passkey', '/browser/passkey/challenge', '/browser/tickets', '/device/code', '/device/token',
    '/login-requests/{code}/confirm', '/login-requests/{code}/deny', '/users/{name}/passkeys/challenge',
    // The key of a device is taken once.
    '/users/{name}/passkeys',
    ...['approve', 'deny', 'withdraw', 'review'].map(part => `/requests/{id}/${part}`)
  ])
  const { routes } = bench()
  const posts = routes.filter(({ method }) => method === 'post')
  assert.equal(posts.filter(({ issues }) => issues !== undefined).map(({ path }) => path).sort(),
    posts.map(({ path }) => path).filter(path => !same.has(path)).sort())
  assert.not.ok(routes.some(({ method, issues }) => method !== 'post' && issues !== undefined))
})

test('the OpenAPI document says so', async () => {
  const { json } = await bench().ask('GET', '/openapi.json')
  type Operation = { parameters: { name: string, in: string }[] }
  const paths = json['paths'] as Record<string, Record<string, Operation>>
  const takes = (path: string): boolean =>
    paths[`/api/v1${path}`]!['post']!.parameters.some(({ name, in: place }) =>
      name === 'idempotency-key' && place === 'header')
  assert.ok(takes('/secrets/{path}/generate'))
  assert.not.ok(takes('/apply'))
})

for (const kind of storeKinds) {
  const on = suite(kind)
  const stores = storeMaker(kind)
  on.after(() => stores.close())

  let database: Database
  let keys: IdempotencyKeys
  let restart: () => IdempotencyKeys
  on.before(async () => {
    const { dataDir, ...opened } = await stores.open()
    database = opened.database
    const masterKey = { kind: 'file', file: `${dataDir}/master.key` } as const
    const secrets = await openSecrets({ database, masterKey })
    await database.run(handle => handle.insert(node).values({ id: 'n1', boot: 'b1' }))
    keys = createIdempotencyKeys(database, secrets, 'n1', () => 'b1')
    restart = () => createIdempotencyKeys(database, secrets, 'n1', () => 'b2')
  })
  const ago = (seconds: number) => database.run(handle => handle.execute(sql`
    update idempotency_key set created_at = created_at - ${seconds}::float8 * interval '1 second',
      answered_at = answered_at - ${seconds}::float8 * interval '1 second'`))

  on('of twenty at the same moment one does it, and all later ones get its answer', async () => {
    const states = await Promise.all(Array.from({ length: 20 }, () => keys.claim('user alice', 'k', 'r')))
    assert.equal(states.map(({ state }) => state).sort(), ['new', ...Array(19).fill('running')].sort())
    await keys.done('user alice', 'k', 'lease 1', new Secret('{"password":"needle"}'))
    const known = await keys.claim('user alice', 'k', 'r')
    assert.ok(known.state === 'done' && known.said === 'lease 1')
    assert.is(known.state === 'done' && known.answer?.expose(), '{"password":"needle"}')
    assert.is((await keys.claim('user alice', 'k', 'other')).state, 'other')
    assert.is((await keys.claim('user bob', 'k', 'other')).state, 'new')
  })

  on('after a crash in between nobody does it again', async () => {
    await keys.claim('user carol', 'k', 'r')
    const later = restart()
    const early = await later.claim('user carol', 'k', 'r')
    assert.is(early.state, 'running', 'the other start may still be alive')
    await database.run(handle => handle.update(node).set({ boot: 'b2' }))
    assert.is((await later.claim('user carol', 'k', 'r')).state, 'unknown')
    await later.claim('user carol', 'freed', 'r')
    await later.free('user carol', 'freed')
    assert.is((await later.claim('user carol', 'freed', 'r')).state, 'new')
    await later.doubt('user carol', 'freed')
    assert.is((await later.claim('user carol', 'freed', 'r')).state, 'unknown')
  })

  on('answers are sealed, gone after minutes, and the keys after a day', async () => {
    await keys.claim('user dave', 'k', 'r')
    await keys.done('user dave', 'k', 'lease 1', new Secret('needle'))
    const everything = async (): Promise<string> => JSON.stringify(await database.run(async handle =>
      [await handle.select().from(idempotencyKey), await handle.select().from(secretValue)]))
    assert.not.match(await everything(), /needle/)
    const answers = async (): Promise<number> => (await database.run(handle =>
      handle.execute(sql`select from secret_value where kind = 'answer' and id not in
        (select answer from idempotency_key where principal <> 'user dave' and answer is not null)`))).length
    await keys.sweep()
    assert.is(await answers(), 1)
    await ago(answerSeconds + 1)
    const known = await keys.claim('user dave', 'k', 'r')
    assert.ok(known.state === 'done' && known.answer === undefined, 'over before it is swept')
    await keys.sweep()
    assert.is(await answers(), 0)
    assert.is((await keys.claim('user dave', 'k', 'r')).state, 'done')
    await ago(keySeconds)
    assert.is((await keys.claim('user dave', 'k', 'another')).state, 'new')
    await keys.done('user dave', 'k', 'lease 2', new Secret('needle'))
    await ago(keySeconds + 1)
    await keys.sweep()
    const left = await database.run(handle => handle.select().from(idempotencyKey))
    assert.equal(left.filter(({ principal }) => principal === 'user dave'), [])
    assert.is(await answers(), 0)
  })

  on('nobody keeps keys without end', async () => {
    await database.run(handle => handle.execute(sql`
      insert into idempotency_key (principal, key, request, state, node, boot)
      select 'user erin', n::text, 'r', 'done', 'n1', 'b1'
        from generate_series(1, ${keysPerPrincipalMax}) n`))
    const refused: unknown = await keys.claim('user erin', 'one more', 'r').catch((error: unknown) => error)
    assert.is(asSallyportError(refused).code, 'limit-reached')
    assert.is((await keys.claim('user erin', '17', 'r')).state, 'done', 'those that are there still count')
    assert.is((await keys.claim('user bob', 'k', 'r')).state, 'new')
  })

  on.run()
}

test.run()
