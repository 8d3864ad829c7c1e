// Clients of the API that are made from the route table: what the compiler refuses to ask is refused by a
// real server as well, so neither is stricter than the other; and lists that come in pages are read whole,
// with a tag for each page.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { addressWith, allOf, rowsPerAnswerMax } from '../src/api/calling.ts'
import type { ResourceRow } from '../src/api/ports.ts'
import { createClient } from '../src/cli/client.ts'
import type { Client } from '../src/cli/client.ts'
import { asFailure } from '../src/cli/failure.ts'
import { bench } from './peers/api-bench.ts'
import type { Answer, Bench } from './peers/api-bench.ts'
import { openPlace } from './peers/api-server.ts'
import type { Place } from './peers/api-server.ts'

const id = '01hzzzzzzzaaaaaaaaaaaaaaaa'

type Ask = (client: Client) => Promise<unknown>

/** Each of these lines fails `tsc` by itself, and so does one that it would take. What the server says. */
const wrong: readonly [what: string, ask: Ask, said: RegExp][] = [
  // @ts-expect-error
  ['a path that is not there', api => api.get('/session'), /^not-found/],
  // @ts-expect-error
  ['another method than it has', api => api.post('/whoami'), /^not-found/],
  // @ts-expect-error
  ['a stream, as JSON', api => api.get('/sessions/{id}/events', { params: { id } }), /^not-found/],
  // @ts-expect-error
  ['a part of the path that is missing', api => api.get('/sessions/{id}'), /"" is no name/],
  // @ts-expect-error
  ['… by another name', api => api.get('/sessions/{id}', { params: { session: id } }), /"" is no name/],
  // @ts-expect-error
  ['… of another kind', api => api.get('/resources/{kind}', { params: { kind: 'host' } }), /path: kind: /],
  // @ts-expect-error
  ['a query that it has not', api => api.get('/sessions', { query: { name: 'x' } }), /name: unknown key/],
  // @ts-expect-error
  ['a word that it has not', api => api.get('/sessions', { query: { status: 'no' } }), /query: status: /],
  // @ts-expect-error
  ['a query that must be there', api => api.get('/search'), /query: query: is missing/],
  // @ts-expect-error
  ['no body', api => api.post('/connections'), /must be application\/json/],
  // @ts-expect-error
  ['a body without what it needs', api => api.post('/connections', { body: {} }), /credential: is missing/],
  // @ts-expect-error
  ['a body with more', api => api.post('/audit/verify', { body: { file: '' } }), /file: unknown key/],
  // @ts-expect-error
  ['a body of another type', api => api.post('/prove', { body: { credential: 1 } }), /credential: expected/]
]

function clientOf({ url, ca, localToken }: Place): Client {
  return createClient({ server: url, ca, token: localToken, as: 'local admin' })
}

test('what the types refuse is refused by the server', async () => {
  await using place = await openPlace()
  const client = clientOf(place)
  for (const [what, ask, said] of wrong) {
    const failure = await ask(client).then(() => undefined, asFailure)
    assert.ok(failure, what)
    assert.match([failure.code, failure.message, ...failure.problems].join('\n'), said, what)
  }
})

test('what comes back has the type of the route: members, choices, lines', async () => {
  await using place = await openPlace()
  const client = clientOf(place)
  const caller = await client.get('/whoami')
  // @ts-expect-error
  assert.equal([caller.name, caller.user], ['local', undefined])
  // @ts-expect-error
  assert.is(caller.how === 'password', false)
  const { resources } = await client.get('/resources/{kind}', { params: { kind: 'user' } })
  assert.equal(resources.map(({ name }) => name), [])
  const body = { rules: [{ on: 'sql' as const, then: 'warn' as const }] }
  for await (const line of client.lines('/rules/what-if', { body })) {
    // @ts-expect-error
    assert.is(line.verdict, undefined)
  }
})

test('a name is one part of an address, whatever is in it; what would lead elsewhere is no name', () => {
  const query = { from: 1, to: undefined, at: 'a&b' }
  assert.is(addressWith('/secrets/{path}/compare', { path: 'prod/a?b#c ü' }, query),
    '/api/v1/secrets/prod%2Fa%3Fb%23c%20%C3%BC/compare?from=1&at=a%26b')
  assert.is(addressWith('/users/{name}/passkeys/{id}', { name: '{id}', id: '...' }),
    '/api/v1/users/%7Bid%7D/passkeys/...')
  for (const name of ['', '.', '..']) {
    assert.throws(() => addressWith('/users/{name}', { name }), /is no name/)
  }
})

function row(kind: string, name: string, spec: object = {}): ResourceRow {
  const at = new Date(0)
  return { kind, name, version: 1, createdAt: at, updatedAt: at, updatedBy: 'local', spec: { name, ...spec } }
}

const target = { protocol: 'tcp', host: '127.0.0.1', port: 5433, tls: { mode: 'disable' } }
const profile = {
  id: 'p', active: true, provider: 'postgres', create: 'c', delete: 'd', variables: {}, ttlSeconds: 60
}
const user = { roles: ['user'], publicKeys: [], disabled: false }

type Operation = { parameters: { in: string, name: string }[] }

async function documented({ ask }: Pick<Bench, 'ask'>): Promise<(path: string, method: string) => Operation> {
  const { json } = await ask('GET', '/openapi.json')
  const paths = json['paths'] as Record<string, Record<string, Operation>>
  return (path, method) => paths[`/api/v1${path}`]![method]!
}

test('the parts of every path are those that its schema reads', async () => {
  const { ask, routes } = bench()
  const operation = await documented({ ask })
  let seen = 0
  for (const { method, path, params } of routes) {
    const parts = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name)
    if (parts.length === 0) continue
    seen++
    assert.ok(params, path)
    const named = operation(path, method).parameters.filter(each => each.in === 'path')
    assert.equal(named.map(({ name }) => name), parts, path)
  }
  assert.ok(seen > 20, String(seen))
})

test('lists go on after a name: each row once, whatever comes and goes, each page with its tag', async () => {
  const { ask, memory, tokens } = bench()
  const get = (path: string, tag?: string): Promise<Answer> => ask('GET', `/api/v1${path}`, {
    token: tokens.admin, ...tag === undefined ? {} : { headers: { 'if-none-match': tag } }
  })
  const put = (each: ResourceRow): unknown => memory.resources.set(`${each.kind}/${each.name}`, each)
  for (const name of ['c', 'a', 'e', 'B', 'd']) {
    put(row('target', name, target))
    put(row('user', name, user))
    put(row('profile', name, profile))
    put(row('secret', `prod/${name}`, { type: 'static', environment: 'prod', keys: [] }))
  }
  const lists: [path: string, key: string, name: string][] = [
    ['/resources/target', 'resources', 'name'], ['/users', 'users', 'name'],
    ['/profiles', 'profiles', 'identifier'], ['/secrets', 'secrets', 'path'],
    ['/secrets/search?query=prod', 'secrets', 'path'], ['/targets/health', 'targets', 'name'],
    ['/templates?plugin=postgres', 'templates', 'id']
  ]
  const operation = await documented({ ask })
  for (const [path, key, name] of lists) {
    const [entry = ''] = path.replace('/resources/target', '/resources/{kind}').split('?')
    const words = operation(entry, 'get').parameters.map(each => each.name)
    assert.ok(words.includes('after') && words.includes('limit'), `${entry} in the document: ${words.join()}`)
    const page = async (query: string): Promise<[names: string[], tag: string]> => {
      const { json, headers } = await get(`${path}${path.includes('?') ? '&' : '?'}${query}`)
      return [(json[key] as Record<string, string>[]).map(each => each[name]!), headers.get('etag')!]
    }
    const [whole] = await page('limit=1000')
    assert.ok(whole.length >= 5, path)
    assert.equal(whole, whole.toSorted(), path)
    const walked: string[] = []
    const tags = new Set<string>()
    for (let after = ''; ;) {
      const [names, tag] = await page(`limit=2${after}`)
      walked.push(...names)
      tags.add(tag)
      if (names.length < 2) break
      after = `&after=${encodeURIComponent(names.at(-1)!)}`
    }
    assert.equal(walked, whole, path)
    assert.is(tags.size, Math.floor(whole.length / 2) + 1, `${path}: a tag for each page`)
    for (const limit of ['0', '1001', 'x']) {
      assert.is((await get(`${path}${path.includes('?') ? '&' : '?'}limit=${limit}`)).status, 400, path)
    }
  }
  const first = (await get('/resources/target?limit=2')).headers.get('etag')!
  const rest = (await get('/resources/target?limit=2&after=a')).headers.get('etag')!
  memory.resources.delete('target/a')
  memory.resources.get('target/c')!.version = 2
  assert.is((await get('/resources/target?limit=2', first)).status, 200)
  assert.is((await get('/resources/target?limit=2&after=a', rest)).status, 200, 'its row is another one')
  put(row('target', 'f', target))
  const now = (await get('/resources/target?limit=2&after=a')).headers.get('etag')!
  memory.resources.get('target/B')!.version = 3
  assert.is((await get('/resources/target?limit=2&after=a', now)).status, 304, 'its rows are the same')
})

test('lists are filtered by a part of the name, people by role as well', async () => {
  const { ask, memory, tokens } = bench()
  for (const name of ['orders-eu', 'orders-us', 'web']) {
    memory.resources.set(`target/${name}`, row('target', name, target))
  }
  const names = async (path: string, key: string): Promise<string[]> => {
    const { json } = await ask('GET', `/api/v1${path}`, { token: tokens.admin })
    return (json[key] as { name: string }[]).map(({ name }) => name)
  }
  assert.equal(await names('/resources/target?name=orders', 'resources'), ['orders-eu', 'orders-us'])
  assert.equal(await names('/targets/health?name=we', 'targets'), ['web'])
  assert.equal(await names('/users?role=auditor', 'users'), ['the-auditor'])
  assert.equal(await names('/users?name=the-a&role=admin', 'users'), ['the-admin'])
})

test('a list is read whole, page after page, and asked for no page more than it has', async () => {
  const rows = Array.from({ length: rowsPerAnswerMax * 2 }, (_, at) => String(at).padStart(5, '0'))
  for (const count of [0, 1, rowsPerAnswerMax - 1, rowsPerAnswerMax, rowsPerAnswerMax + 1]) {
    const has = rows.slice(0, count)
    let asked = 0
    const all = await allOf(({ after = '', limit }) => {
      asked++
      return Promise.resolve(has.filter(name => name > after).slice(0, limit))
    }, name => name)
    assert.equal(all, has)
    assert.is(asked, Math.floor(count / rowsPerAnswerMax) + 1)
  }
})

test('the command line lists all of a kind, however many pages they are', async () => {
  await using place = await openPlace()
  const names = Array.from({ length: rowsPerAnswerMax + 1 }, (_, at) => `t${String(at).padStart(4, '0')}`)
  for (const name of names) {
    place.memory.resources.set(`target/${name}`, row('target', name, target))
    place.memory.resources.set(`user/${name}`, row('user', name, user))
  }
  const [targets, users] = await Promise.all(['get target', 'users list'].map(async line =>
    (await place.run([...line.split(' '), '--json'])).json<{ name: string }[]>()))
  assert.equal(targets!.map(({ name }) => name), names)
  assert.equal(users!.map(({ name }) => name), names)
  const wrongWord = await place.run(['leases', 'list', '--status', 'gone'])
  assert.is(wrongWord.code, 2)
  assert.match(wrongWord.err, /--status must be one of active, expired, revoked, revoking, failed/)
})

test.run()
