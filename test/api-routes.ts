// The HTTP side of the API: the order of the checks, what each answer is made of, the form of answers and
// refusals, and the OpenAPI document. Who may call what is in api-roles.ts, made from the route table.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { hashToken, mintToken } from '../src/api/access.ts'
import { placesOf } from '../src/api/nodes.ts'
import { addressOf } from '../src/api/openapi.ts'
import type { ReceiptRow } from '../src/api/ports-records.ts'
import { createSallyportApi } from '../src/api/routes.ts'
import { SallyportError } from '../src/errors.ts'
import type { RecordingReader } from '../src/nodes/recordings.ts'
import type { Role } from '../src/policy/types.ts'
import { bench, sessionId } from './peers/api-bench.ts'
import type { Answer } from './peers/api-bench.ts'
import { createMemory } from './peers/api-ports.ts'

const receipt: ReceiptRow = {
  id: 'r1', account: 'a1', session: sessionId, body: { state: 'proved-gone', account: 'sally_0000001' },
  keyId: 'k1', signature: 'c2ln', createdAt: new Date('2026-11-21T10:05:01Z')
}

test('people enrol a second factor for themselves, admins for all; only admins end one', async () => {
  const { ask, memory, tokens } = bench()
  const at = (name: string, more = ''): string => `/api/v1/users/${name}/second-factor${more}`
  const enrol = (role: Role, name: string): Promise<Answer> => ask('POST', at(name), { token: tokens[role] })
  const confirm = (role: Role, name: string, code: string): Promise<Answer> =>
    ask('POST', at(name, '/confirm'), { token: tokens[role], body: { code } })
  const remove = (role: Role, name: string): Promise<Answer> =>
    ask('DELETE', at(name), { token: tokens[role] })

  // Nobody else's, and not even whether there is such a person.
  for (const name of ['the-admin', 'nobody-has-this']) {
    assert.is((await enrol('user', name)).status, 404)
    assert.is((await confirm('auditor', name, '111111')).status, 404)
  }
  assert.is((await enrol('admin', 'nobody-has-this')).status, 404)
  assert.equal([...memory.secondFactors.keys()], [])

  const stateOf = async (role: Role, name: string): Promise<unknown> =>
    (await ask('GET', at(name), { token: tokens[role] })).json['secondFactor']
  assert.is((await ask('GET', at('the-admin'), { token: tokens.user })).status, 404)
  assert.equal([await stateOf('user', 'the-user'), await stateOf('admin', 'the-user')], ['none', 'none'])
  const { json, headers } = await enrol('user', 'the-user')
  assert.is(await stateOf('user', 'the-user'), 'waiting')
  assert.match(String(json['uri']), /^otpauth:\/\/totp\//)
  assert.is(headers.get('cache-control'), 'no-store')
  assert.is((await enrol('user', 'the-user')).status, 200, 'a lost picture: again, until it is confirmed')
  const wrong = await confirm('user', 'the-user', '000000')
  assert.is(wrong.status, 400)
  assert.match(wrong.json.error.problems[0]!, /^code: is not the one of this moment/)
  assert.is((await confirm('user', 'the-user', '111111')).status, 200)
  assert.is((await confirm('user', 'the-user', '222222')).status, 404)
  assert.is(await stateOf('user', 'the-user'), 'confirmed')
  for (const role of ['user', 'admin'] as const) {
    assert.is((await enrol(role, 'the-user')).json.error.code, 'in-use', 'a confirmed one stays')
  }
  assert.is((await remove('user', 'the-user')).status, 403)
  assert.is((await remove('auditor', 'the-user')).status, 403)
  assert.is((await remove('admin', 'the-user')).status, 200)
  assert.is((await remove('admin', 'the-user')).status, 404)
  assert.is((await enrol('admin', 'the-user')).status, 200, 'an admin for somebody')
})

test('admins see who has a second factor, nobody else does', async () => {
  const { ask, memory, tokens } = bench()
  await ask('POST', '/api/v1/users/the-user/second-factor', { token: tokens.user })
  const list = async (): Promise<unknown> => {
    const { json } = await ask('GET', '/api/v1/users', { token: tokens.admin })
    return (json['users'] as { name: string, secondFactor: string }[])
      .find(({ name }) => name === 'the-user')?.secondFactor
  }
  assert.is(await list(), 'waiting')
  memory.secondFactors.get('the-user')!.confirmed = true
  assert.is(await list(), 'confirmed')
  memory.secondFactors.clear()
  assert.is(await list(), 'none')
  for (const token of [tokens.user, tokens.auditor]) {
    assert.is((await ask('GET', '/api/v1/users', { token })).status, 403)
  }
})

test('guesses at the code of a confirmation are counted and end', async () => {
  const { ask, memory, tokens } = bench()
  const path = '/api/v1/users/the-user/second-factor'
  await ask('POST', path, { token: tokens.user })
  memory.throttled = true
  const answer = await ask('POST', `${path}/confirm`, { token: tokens.user, body: { code: '111111' } })
  assert.is(answer.status, 429)
  assert.is(memory.secondFactors.get('the-user')?.confirmed, false)
})

test('the roles of a token are those that its user has now, not those of the login', async () => {
  const { ask, memory, tokens } = bench()
  const whoami = (): Promise<Answer> => ask('GET', '/api/v1/whoami', { token: tokens.user })
  assert.equal((await whoami()).json['roles'], ['user'])
  ;(memory.resources.get('user/the-user')!.spec as { disabled: boolean }).disabled = true
  assert.is((await whoami()).status, 401)
  memory.resources.delete('user/the-user')
  assert.is((await whoami()).status, 401)
})

test('a user sees the own sessions only, and nothing of what was recorded', async () => {
  const { ask, tokens } = bench()
  const list = await ask('GET', '/api/v1/sessions', { token: tokens.user })
  assert.equal((list.json['sessions'] as { user: string }[]).map(session => session.user), ['the-user'])
  const asked = await ask('GET', '/api/v1/sessions?user=alice', { token: tokens.user })
  assert.equal((asked.json['sessions'] as { user: string }[]).map(session => session.user), ['the-user'])
  assert.is((await ask('GET', `/api/v1/sessions/${sessionId}`, { token: tokens.user })).status, 404)
  assert.is((await ask('GET', `/api/v1/sessions/${sessionId}/events`, { token: tokens.user })).status, 403)
})

test('a session is shown in the words of the specification', async () => {
  const { ask, memory, tokens } = bench()
  memory.receipts.set(sessionId, receipt)
  const { json } = await ask('GET', `/api/v1/sessions/${sessionId}`, { token: tokens.auditor })
  assert.equal(json as unknown, {
    id: sessionId, user: 'alice', credential: 'orders-rw', target: 'orders', protocol: 'postgres',
    grant: 'devs',
    address: '192.0.2.1', client: null,
    database: 'app', node: 'n1', status: 'ended', startedAt: '2026-11-21T10:00:00.000Z',
    expiresAt: '2026-11-21T18:00:00.000Z', endedAt: '2026-11-21T10:05:00.000Z', reason: 'client-closed',
    account: { id: 'a1', name: 'sally_0000001', state: 'proved-gone' },
    recording: { headHash: 'cafe', bytes: 10, sealed: true },
    receipt: { id: 'r1', state: 'proved-gone', signedAt: '2026-11-21T10:05:01.000Z' }
  })
})

test('a recording is replayed, exported, watched and downloaded, and each look is audited', async () => {
  const { ask, memory, tokens } = bench()
  const token = tokens.auditor
  const events = await ask('GET', `/api/v1/sessions/${sessionId}/events`, { token })
  assert.is(events.type, 'application/x-ndjson')
  assert.is(events.text.trim().split('\n').length, 3)
  const sql = await ask('GET', `/api/v1/sessions/${sessionId}/export?format=sql`, { token })
  assert.is(sql.headers.get('content-disposition'), `attachment; filename="${sessionId}.sql"`)
  assert.is(sql.text, `sql of ${sessionId}\n`)
  assert.is((await ask('GET', `/api/v1/sessions/${sessionId}/recording`, { token })).type,
    'application/octet-stream')
  const copy = await ask('GET', `/api/v1/sessions/${sessionId}/files/7`, { token })
  assert.is(copy.headers.get('content-disposition'), `attachment; filename="${sessionId}-file-7"`)
  assert.is((await ask('GET', `/api/v1/sessions/${sessionId}/files/0`, { token })).status, 400)
  assert.is((await ask('GET', `/api/v1/sessions/${sessionId}/watch`, { token })).status, 200)
  assert.equal(memory.audit.map(event => event.kind),
    ['session.replayed', ...Array(3).fill('session.exported'), 'session.watched'])
  const slice = await ask('GET', `/api/v1/sessions/${sessionId}/events?after=1&limit=1`, { token })
  assert.equal(slice.text.trim().split('\n').map(line => (JSON.parse(line) as { atMs: number }).atMs), [5])
  const watch = `/api/v1/sessions/${sessionId}/watch?begin=`
  assert.match((await ask('GET', `${watch}now&after=7&lane=3`, { token })).text, /"count":7[^]*"lane":3/)
  assert.is((await ask('GET', `${watch}then`, { token })).status, 400)
  assert.is((await ask('GET', `/api/v1/sessions/${sessionId}/export?format=exe`, { token })).status, 400)
  assert.is((await ask('GET', '/api/v1/sessions/01hzzzzzzznowhere0000000/events', { token })).status, 404)
})

test('what another node has is read there, for whom the route names, and the audit names it', async () => {
  const { ask, memory, ports, tokens } = bench()
  const asked: string[] = []
  const there: RecordingReader = {
    ...ports.recordings,
    async * export(session, format) { yield `${format} of ${session} from there` },
    async * raw(_session, { start, end } = { start: 0, end: 9 }) {
      yield Buffer.from('abcdefghij').subarray(start, end + 1)
    }
  }
  ports.recordings.has = () => false
  ports.nodes.holding = (session, owner, { person }) => {
    asked.push(`${session} of ${owner} for ${person}`)
    return Promise.resolve({ node: 'n1', recordings: there })
  }
  const at = (role: Role, path: string, headers = {}): Promise<Answer> =>
    ask('GET', `/api/v1/sessions/${sessionId}${path}`, { token: tokens[role], headers })
  assert.is((await at('user', '/export?format=sql')).status, 403)
  assert.equal(asked, [], 'nobody is asked for those who may not look')
  assert.is((await at('auditor', '/export?format=sql')).text, `sql of ${sessionId} from there`)
  const part = await at('auditor', '/recording', { range: 'bytes=3-5' })
  assert.equal([part.status, part.text, part.headers.get('content-range')], [206, 'def', 'bytes 3-5/10'])
  assert.equal(asked, Array(2).fill(`${sessionId} of n1 for the-auditor`))
  assert.equal(memory.audit.map(({ kind, actor, detail }) => [kind, actor, detail]), [
    ['session.exported', 'the-auditor', { format: 'sql', servedBy: 'n1' }],
    ['session.exported', 'the-auditor', { format: 'recording', servedBy: 'n1' }]
  ])
  ports.nodes.holding = () => Promise.reject(new SallyportError('node-silent', { detail: 'node n1: hangs' }))
  for (const path of ['/events', '/watch', '/verify', '/piece', '/statements', '/recording', '/files/1']) {
    const { status, json } = await at('auditor', path)
    assert.equal([status, json.error.code, json.error.detail], [503, 'node-silent', 'node n1: hangs'], path)
  }
  assert.is(memory.audit.length, 2, 'nobody saw anything')
})

test('a search has what all nodes found, every place once, and says who is missing', async () => {
  const { ask, memory, ports, tokens } = bench()
  const [own] = await Array.fromAsync(placesOf(ports.recordings.search({
    query: 'x', limit: 1, session: undefined, signal: new AbortController().signal
  })))
  const later = { ...own!, day: 'q', session: 'later' }
  ports.nodes.others = () => Promise.resolve([
    // As where all have one folder.
    { node: 'two', search: () => Promise.resolve({ node: 'two', places: [later, own!] }) },
    { node: 'three', search: () => Promise.resolve({ node: 'three', places: [], missing: 'node-silent' }) }
  ])
  const { json } = await ask('GET', '/api/v1/search?query=x', { token: tokens.auditor })
  assert.equal((json['hits'] as { session: string }[]).map(({ session }) => session), ['later', own!.session])
  assert.equal(json['unanswered'], [{ node: 'three', code: 'node-silent' }])
  assert.equal(memory.audit[0]!.detail, { query: 'x', nodes: ['two', 'three'] })
  const here = await ask('GET', `/api/v1/search?query=x&session=${sessionId}`, { token: tokens.auditor })
  assert.equal([here.status, here.json['unanswered']], [200, []], 'it lies here: nobody else is asked')
})

test('verification holds a recording against the hash that the store remembers', async () => {
  const { ask, memory, tokens } = bench()
  const verify = (): Promise<Answer> => ask('GET', `/api/v1/sessions/${sessionId}/verify`,
    { token: tokens.auditor })
  assert.is((await verify()).json['valid'], true)
  memory.sessions[0]!.recordingHead = 'beef'
  assert.is((await verify()).json['valid'], false)
})

test('killing is told apart from killing what is not alive, and is audited', async () => {
  const { ask, memory, tokens } = bench()
  const kill = (): Promise<Answer> =>
    ask('POST', `/api/v1/sessions/${sessionId}/kill`, { token: tokens.admin, body: {} })
  assert.is((await kill()).json['done'], false)
  memory.sessions[0]!.status = 'live'
  assert.is((await kill()).json['done'], true)
  assert.equal(memory.audit.map(event => [event.kind, event.actor]), [['session.killed', 'the-admin']])
})

test('wrong queries and bodies are refused with every problem and its path', async () => {
  const { ask, tokens } = bench()
  const query = await ask('GET', '/api/v1/sessions?limit=0&stats=live&since=yesterday',
    { token: tokens.admin })
  assert.is(query.status, 400)
  assert.equal(query.json.error.problems.map(line => line.split(': ').slice(0, 2).join(': ')).sort(),
    ['query: limit', 'query: since', 'query: stats'])
  const body = await ask('POST', '/api/v1/apply',
    { token: tokens.admin, body: { documents: 1, force: true } })
  assert.equal(body.json.error.problems, ['documents: expected array, received number', 'force: unknown key'])
  assert.equal((await ask('POST', '/api/v1/apply', { token: tokens.admin, body: '{' })).json.error.problems,
    ['the body is no JSON'])
  const form = await ask('POST', '/api/v1/apply', {
    token: tokens.admin, body: 'a=b', headers: { 'content-type': 'application/x-www-form-urlencoded' }
  })
  assert.equal(form.json.error.problems, ['the body must be application/json'])
})

test('a body beyond the limit of its route is refused', async () => {
  const { ask, tokens } = bench()
  const large = { user: 'a', password: 'x'.repeat(70_000) }
  assert.match((await ask('POST', '/api/v1/login', { body: large })).json.error.problems[0]!,
    /larger than 65536/)
  const documents = [{ kind: 'user', name: 'bob', note: 'x'.repeat(100_000) }]
  const applied = await ask('POST', '/api/v1/apply', { token: tokens.admin, body: { documents } })
  assert.equal(applied.json.error.problems, ['document 1 (user/bob): note: unknown key'])
})

test('a page of another origin is refused, whatever token it has', async () => {
  const { ask, tokens } = bench()
  const from = (origin: string): Promise<Answer> =>
    ask('GET', '/api/v1/whoami', { token: tokens.admin, headers: { origin } })
  for (const origin of ['https://evil.test', 'http://sallyport.test', 'https://sallyport.test:444', 'null']) {
    assert.is((await from(origin)).status, 403, origin)
  }
  assert.is((await from('https://sallyport.test')).status, 200)
})

// Promised: R31.
test('a defect is answered as an internal error with a reference, and nothing of what it was', async () => {
  const { memory, ports } = createMemory()
  ports.resources.page = () => Promise.reject(new TypeError('secret of the house'))
  const token = mintToken()
  memory.tokens.set(hashToken(token), {
    user: 'first-admin', roles: ['admin'], expiresAt: new Date('2100-01-01'), oneTime: false
  })
  const app = createSallyportApi(ports, { localToken: undefined, loginTokenSeconds: 60 })
  const answer = await app.request('/api/v1/health')
  assert.is(answer.status, 200)
  const failed = await app.request('/api/v1/resources/user',
    { headers: { authorization: `Bearer ${token}` } })
  const text = await failed.text()
  assert.not.match(text, /secret of the house/)
  const { error } = JSON.parse(text) as Answer['json'] & { error: { message: string, reference: string } }
  assert.is(failed.status, 500)
  assert.is(error.message, 'internal error')
  assert.is(error.reference, memory.failures[0]!.reference)
  const open = await app.request('/api/v1/login', {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"user":"a","password":"b"}'
  })
  assert.is(open.status, 401)
})

test('only auditors and admins hear what exactly happened', async () => {
  const { ask, tokens } = bench()
  const path = '/api/v1/sessions/01hzzzzzzznowhere0000000'
  assert.is((await ask('GET', path, { token: tokens.user })).json.error.detail, undefined)
  assert.is((await ask('GET', path, { token: tokens.admin })).json.error.detail,
    'no session 01hzzzzzzznowhere0000000')
})

test('answers are never cached, sniffed or framed', async () => {
  const { ask } = bench()
  const { headers } = await ask('GET', '/api/v1/health')
  assert.is(headers.get('cache-control'), 'no-store')
  assert.is(headers.get('x-content-type-options'), 'nosniff')
  assert.match(headers.get('content-security-policy')!, /default-src 'none'; frame-ancestors 'none'/)
})

test('where no listener takes TCP targets there are no tickets for it', async () => {
  const { ask, tokens } = bench()
  const how = { token: tokens.user, body: { credential: 'orders-tcp-rw' } }
  const { status, json } = await ask('POST', '/api/v1/connections', how)
  assert.equal([status, json.error.code], [404, 'not-found'])
  const strange = await ask('POST', '/api/v1/connections', { ...how, body: { credential: 'a b' } })
  assert.is(strange.json.error.code, 'invalid')
})

test('the OpenAPI document describes every route with its roles and schemas', async () => {
  const { ask, routes } = bench()
  const { json } = await ask('GET', '/openapi.json')
  assert.is(json['openapi'], '3.1.0')
  const paths = json['paths'] as Record<string, Record<string, Record<string, unknown>>>
  const described = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map(method => `${method} ${path}`))
  assert.equal(described.sort(), routes.map(route => `${route.method} ${addressOf(route)}`).sort())
  const ids = Object.values(paths).flatMap(methods =>
    Object.values(methods).map(operation => operation['operationId']))
  assert.is(new Set(ids).size, ids.length)
  const renew = paths['/api/v1/leases/{id}/renew']!['post']!
  assert.equal(renew['x-roles'], ['user', 'admin', 'application'])
  assert.match(JSON.stringify(renew['requestBody']), /"ttl":\{"type":\["number","string"\]\}/)
  assert.match(JSON.stringify(renew['parameters']), /"name":"id","in":"path","required":true/)
})

test('what a schema does not name does not leave the house', async () => {
  const { ask, memory, tokens } = bench()
  Object.assign(memory.sessions[0]!, { sealedSecret: 'hunter2' })
  const row = memory.resources.get('user/the-user')!
  row.spec = { ...row.spec as object, verifier: { secret: 'reference-1' } }
  assert.not.match((await ask('GET', '/api/v1/sessions', { token: tokens.admin })).text, /hunter2/)
  const users = await ask('GET', '/api/v1/resources/user', { token: tokens.admin })
  assert.not.match(users.text, /reference-1/)
  assert.match(users.text, /"password":"<secret>"/)
})

test('a store that is away is said in so many words', async () => {
  const { memory, ports } = createMemory()
  ports.tokens.find = () => Promise.reject(new SallyportError('store-unavailable'))
  const app = createSallyportApi(ports, { localToken: undefined, loginTokenSeconds: 60 })
  const answer = await app.request('/api/v1/whoami', { headers: { authorization: `Bearer ${mintToken()}` } })
  assert.is(answer.status, 503)
  assert.is((await answer.json() as Answer['json']).error.code, 'store-unavailable')
  assert.is(memory.failures.length, 1)
})

test('templates are linted, saved as new versions, and not switched off while in use', async () => {
  const { ask, memory, tokens } = bench()
  const token = tokens.admin
  const path = '/api/v1/templates/postgres/create-role'
  const { json } = await ask('GET', path, { token })
  const body = String(json['body'])
  const bare = body.replace('{{ username | ident }}', '{{ username }}')
  const bad = await ask('PUT', path, { token, body: { body: bare } })
  assert.is(bad.status, 400)
  assert.ok(bad.json.error.problems.length > 0)
  const other = await ask('PUT', '/api/v1/templates/postgres/mine', { token, body: { body } })
  assert.equal(other.json.error.problems, ['id: is "postgres/create-role", not "postgres/mine"'])
  const saved = await ask('PUT', path, { token, body: { body: `${body}\n# mine\n` } })
  assert.equal([saved.json['version'], saved.json['author']], [2, 'the-admin'])
  assert.is((await ask('GET', `${path}?version=1`, { token })).json['body'], body)
  memory.resources.set('credential/rw', {
    ...memory.resources.get('user/the-user')!, kind: 'credential', name: 'rw',
    spec: { jit: { actions: { create: { plugin: 'postgres', template: 'postgres/create-role' } } } }
  })
  const off = await ask('POST', `${path}/active`, { token, body: { active: false } })
  assert.is(off.json.error.code, 'in-use')
  assert.equal(off.json.error.problems, ['template postgres/create-role: in use by credential/rw'])
  memory.resources.delete('credential/rw')
  assert.is((await ask('POST', `${path}/active`, { token, body: { active: false } })).json['active'], false)
})

test('a plan shows what would be sent for a credential, secrets masked', async () => {
  const { ask, memory, tokens } = bench()
  memory.resources.set('credential/rw', {
    ...memory.resources.get('user/the-user')!, kind: 'credential', name: 'rw',
    spec: { name: 'rw', jit: { type: 'creation-deletion', actions: {}, variables: { roles: ['app_rw'] } } }
  })
  const plan = await ask('POST', '/api/v1/plan', {
    token: tokens.auditor, body: { template: 'postgres/create-role', credential: 'rw' }
  })
  assert.match(plan.text, /CREATE ROLE/)
  assert.match(plan.text, /app_rw/)
  assert.not.match(plan.text, /SCRAM-SHA-256\$/)
  const lint = await ask('POST', '/api/v1/lint', { token: tokens.auditor, body: { body: 'id: x' } })
  assert.is(lint.json['valid'], false)
})

// Promised: D2.
test('explain reads every grammar and says why; whoever is only a user asks about the own name', async () => {
  const { ask, memory, tokens } = bench()
  const row = memory.resources.get('user/the-user')!
  memory.resources.set('target/orders', {
    ...row, kind: 'target', name: 'orders', spec: { name: 'orders', protocol: 'postgres' }
  })
  memory.resources.set('credential/rw', {
    ...row, kind: 'credential', name: 'rw', spec: { name: 'rw', target: 'orders' }
  })
  const explain = (login: string, token: string): Promise<Answer> =>
    ask('GET', `/api/v1/explain?login=${encodeURIComponent(login)}`, { token })
  for (const rest of ['+rw', ':rw@orders', '[rw@orders]', '%rw', '#rw', '@rw@orders']) {
    const login = `the-user${rest}`
    const { json } = await explain(login, tokens.admin)
    assert.equal([json['readable'], json['outcome'], json['credential']], [true, 'refused', 'rw'], login)
    assert.equal((json['choices'] as { refusal: string }[]).map(each => each.refusal), ['no grant covers it'])
  }
  memory.resources.set('grant/g', {
    ...row, kind: 'grant', name: 'g',
    spec: { name: 'g', users: ['the-user'], credentials: ['rw'], replication: false }
  })
  assert.is((await explain('the-user+rw', tokens.user)).json['outcome'], 'allowed')
  assert.is((await explain('alice+rw', tokens.user)).status, 403)
  assert.is((await explain('alice+rw', tokens.auditor)).json['reason'], 'there is no such user')
  assert.is((await explain('a b', tokens.auditor)).json['readable'], false)
})

test('a lease is prolonged by a duration and revoked once', async () => {
  const { ask, memory, tokens } = bench()
  const at = new Date('2026-11-21T10:00:00Z')
  memory.leases.push({
    id: 'lease-1', name: 'orders-rw', account: 'a1', accountName: 'sally_1', accountState: 'active',
    target: 'orders',
    credential: 'orders-rw', ownerKind: 'user', owner: 'the-user', status: 'active', createdAt: at,
    expiresAt: at,
    maxAt: at, endedAt: null, renewals: 0, renewableMs: 3_600_000, lastError: null
  })
  const post = (verb: string, body: unknown): Promise<Answer> =>
    ask('POST', `/api/v1/leases/lease-1/${verb}`, { token: tokens.admin, body })
  assert.equal((await post('renew', { ttl: '30m' })).json['renewals'], 1)
  assert.equal((await post('renew', { ttl: '2h' })).json.error.problems, ['ttl: past the maximum'])
  const { problems } = (await post('renew', { ttl: 'a while' })).json.error
  assert.match(problems[0]!, /^ttl: expected seconds or a duration/)
  assert.is((await post('revoke', {})).json['done'], true)
  memory.leases[0]!.status = 'revoked'
  assert.is((await post('revoke', {})).json['done'], false)
  const own = await ask('GET', '/api/v1/leases', { token: tokens.user })
  assert.equal((own.json['leases'] as { renewableSeconds: number }[]).map(lease => lease.renewableSeconds),
    [3600])
})

test.run()
