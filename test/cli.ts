// The command line tool against a real HTTPS server: what it finds by itself, what it prints, how it fails.
// Run as a person runs it, in a process of its own, in a folder with a configuration.
import { chmodSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { createFirstAdminToken } from '../src/api/access.ts'
import type { SessionRow } from '../src/api/ports-records.ts'
import { makeFolder, openPlace, run } from './peers/api-server.ts'
import type { Place, Ran } from './peers/api-server.ts'

const id = '01hzzzzzzzaaaaaaaaaaaaaaaa'
const session: SessionRow = {
  id, user: 'alice', credential: 'orders-rw', target: 'orders', protocol: 'postgres', grant: 'devs',
  address: '192.0.2.1', database: 'app', node: 'n1', status: 'ended', account: 'a1',
  accountName: 'sally_0000001',
  startedAt: new Date('2026-11-21T10:00:00Z'), expiresAt: new Date('2026-11-21T18:00:00Z'),
  endedAt: new Date('2026-11-21T10:05:00Z'), reason: 'client-closed', recording: 'x', recordingHead: 'cafe',
  recordingBytes: 1536
}

const documents = `
kind: target
name: orders
protocol: postgres
address: 127.0.0.1:5433
tls: { mode: disable }
---
kind: credential
name: orders-admin
target: orders
username: sallyport
password: { env: ORDERS_ADMIN_PASSWORD }
---
# nothing here
---
kind: user
name: alice
password: { file: secrets/alice }
`

function writeDocuments(place: Place, text = documents): void {
  mkdirSync(join(place.folder, 'secrets'), { recursive: true })
  writeFileSync(join(place.folder, 'secrets', 'alice'), 'correct horse\n')
  writeFileSync(join(place.folder, 'all.yaml'), text)
}

const secrets = { env: { ORDERS_ADMIN_PASSWORD: 'hunter2' } }

function isOk({ code, err }: Ran): void {
  assert.equal([code, err], [0, ''])
}

test('on the serving machine the owner of the data folder is the local admin, without a login', async () => {
  await using place = await openPlace()
  const ran = await place.run(['whoami', '--json'])
  isOk(ran)
  assert.equal(ran.json(), { name: 'local', roles: ['admin'], how: 'local', server: place.url })
})

test('from another folder the configuration is named with --config', async () => {
  await using place = await openPlace()
  const away = await run(place.folder, ['whoami'], { cwd: '/', env: { SALLYPORT_SERVER: place.url } })
  assert.is(away.code, 1)
  isOk(await run(place.folder, ['whoami', '--config', join(place.folder, 'sallyport.yaml')], { cwd: '/' }))
  const none = await place.run(['whoami', '--config', 'nowhere.yaml'])
  assert.equal([none.code, none.out], [1, ''])
  assert.match(none.err, /no configuration file .*nowhere\.yaml/)
})

test('apply looks secrets up here, tells what changed, and the second time that nothing did', async () => {
  await using place = await openPlace()
  writeDocuments(place)
  const plan = await place.run(['apply', '-f', 'all.yaml', '--dry-run'], secrets)
  isOk(plan)
  assert.match(plan.out, /created {4}target\/orders\n.*plan only, nothing was changed: 3 created/s)
  assert.is(place.memory.resources.size, 0)
  const first = await place.run(['apply', '-f', 'all.yaml', '--json'], secrets)
  isOk(first)
  assert.equal(first.json<{ summary: object }>().summary,
    { created: 3, updated: 0, unchanged: 0, deleted: 0 })
  assert.ok([...place.memory.secrets.values()].includes('hunter2'))
  const second = await place.run(['apply', '-f', 'all.yaml'], secrets)
  assert.match(second.out, /0 created, 0 updated, 3 unchanged, 0 deleted/)
  const changed = await place.run(['apply', '-f', '-'], {
    ...secrets,
    input: documents.replace('5433', '5434').replace('secrets', join(place.folder, 'secrets'))
  })
  assert.match(changed.out, /updated {4}target\/orders\n +address: "127\.0\.0\.1:5433" → "127\.0\.0\.1:5434"/)
  assert.not.match(first.out + second.out + changed.out, /hunter2|correct horse/)
})

test('a folder of documents is applied as one batch, and prune deletes what is not in it', async () => {
  await using place = await openPlace()
  mkdirSync(join(place.folder, 'git'))
  writeFileSync(join(place.folder, 'git', 'a.yaml'), 'kind: user\nname: alice\n---\nkind: user\nname: bob\n')
  writeFileSync(join(place.folder, 'git', 'b.yml'), 'kind: user\nname: carol\n')
  writeFileSync(join(place.folder, 'git', 'notes.txt'), 'not YAML: {')
  assert.match((await place.run(['apply', '-f', 'git'])).out, /3 created/)
  rmSync(join(place.folder, 'git', 'b.yml'))
  assert.match((await place.run(['apply', '-f', 'git', '--prune'])).out, /deleted {4}user\/carol/)
})

test('everything that is wrong is told in one list with file and line, and nothing is applied', async () => {
  await using place = await openPlace()
  writeDocuments(place, documents.replace('address:', 'adress:').replace('secrets/alice', 'nowhere'))
  const { code, out, err } = await place.run(['apply', '-f', 'all.yaml'])
  assert.equal([code, out], [1, ''])
  for (const expected of [
    'the documents are not valid: nothing was applied',
    'all.yaml:8: password: the environment variable ORDERS_ADMIN_PASSWORD is not set',
    'all.yaml:16: password: nowhere cannot be read: ENOENT',
    'all.yaml:2 (target/orders): adress: unknown key', 'all.yaml:2 (target/orders): address: is missing'
  ]) assert.ok(err.includes(expected), `${expected}\nis not in\n${err}`)
  assert.is(place.memory.resources.size, 0)
  const json = await place.run(['apply', '-f', 'all.yaml', '--json'])
  assert.is(json.code, 1)
  const { error } = json.json<{ error: { code: string, problems: string[] } }>()
  assert.is(error.code, 'invalid')
  assert.is(error.problems.length, 4)
})

test('a secret that cannot be looked up keeps everything from being applied', async () => {
  await using place = await openPlace()
  writeDocuments(place)
  const { code, err } = await place.run(['apply', '-f', 'all.yaml'])
  assert.is(code, 1)
  assert.match(err, /ORDERS_ADMIN_PASSWORD is not set/)
  assert.is(place.memory.resources.size, 0)
})

test('broken YAML and keys that are there twice are told with their line', async () => {
  await using place = await openPlace()
  writeFileSync(join(place.folder, 'broken.yaml'), 'kind: user\nname: a\nname: b\n---\nkind: {\n')
  const { code, err } = await place.run(['apply', '-f', 'broken.yaml'])
  assert.is(code, 1)
  assert.match(err, /broken\.yaml:3: /)
  assert.match(err, /broken\.yaml:[56]: /)
})

test('get shows documents that can be applied again, and secrets only as <secret>', async () => {
  await using place = await openPlace()
  writeDocuments(place)
  await place.run(['apply', '-f', 'all.yaml'], secrets)
  const table = await place.run(['get', 'credentials'])
  assert.match(table.out, /^NAME +TARGET +USERNAME +JIT +VERSION +CHANGED +BY\n/)
  assert.match(table.out, /^orders-admin +orders +sallyport +- +1 /m)
  const one = await place.run(['get', 'credential', 'orders-admin'])
  assert.match(one.out, /^kind: credential\nname: orders-admin\n.*\npassword: <secret>\n/s)
  const again = await place.run(['apply', '-f', '-'],
    { input: (await place.run(['get', 'user', '--yaml'])).out })
  assert.match(again.out, /1 unchanged/)
  const json = await place.run(['get', 'user', 'alice', '--json'])
  assert.equal(Object.keys(json.json()).sort(), [
    'createdAt', 'disabled', 'kind', 'name', 'password', 'publicKeys', 'roles', 'updatedAt', 'updatedBy',
    'version'
  ])
  assert.match(String(json.json()['updatedAt']), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
  assert.is((await place.run(['get', 'users', '--json'])).json<object[]>().length, 1)
  const missing = await place.run(['get', 'user', 'nobody'])
  assert.is(missing.code, 1)
  assert.match(missing.err, /not found: no user "nobody" \[not-found [0-9a-f]{6}\]/)
})

test('delete refuses what is in use and says by whom', async () => {
  await using place = await openPlace()
  writeDocuments(place)
  await place.run(['apply', '-f', 'all.yaml'], secrets)
  const used = await place.run(['delete', 'target', 'orders'])
  assert.is(used.code, 1)
  assert.match(used.err, /still in use.*\n {2}target\/orders: in use by credential\/orders-admin \(target\)/)
  isOk(await place.run(['delete', 'credential', 'orders-admin']))
  isOk(await place.run(['delete', 'target', 'orders']))
})

test('a login is kept for its owner alone and goes before the local admin, until the logout', async () => {
  await using place = await openPlace()
  writeDocuments(place)
  await place.run(['apply', '-f', 'all.yaml'], secrets)
  const wrong = await place.run(['login', 'alice'], { input: 'wrong\n' })
  assert.equal([wrong.code, wrong.out], [1, ''])
  assert.match(wrong.err, /authentication failed \[auth-failed [0-9a-f]{6}\]/)
  const login = await place.run(['login', 'alice'], { input: 'correct horse\n' })
  assert.match(login.out, /^logged in to https:.* as alice \(user\) until /)
  const file = join(place.folder, 'home', '.config', 'sallyport', 'logins.json')
  assert.is(statSync(file).mode & 0o777, 0o600)
  assert.is((await place.run(['whoami', '--json'])).json()['name'], 'alice')
  const denied = await place.run(['get', 'users'])
  assert.match(denied.err, /access denied \[not-allowed/)
  isOk(await place.run(['logout']))
  assert.is((await place.run(['whoami', '--json'])).json()['name'], 'local')
  assert.is(place.memory.tokens.size, 0)
  assert.is((await place.run(['logout'])).code, 1)
})

test('from elsewhere one logs in first, and names the authority of the certificate', async () => {
  await using place = await openPlace()
  const away = makeFolder()
  try {
    rmSync(join(away, 'data'), { recursive: true })
    writeFileSync(join(away, 'ca.pem'), place.ca)
    const untrusted = await run(away, ['login', '--server', place.url, '--token'], { input: 'x' })
    assert.is(untrusted.code, 1)
    assert.match(untrusted.err, /certificate of https:.* is not trusted.*\n.*--ca FILE/)
    const nobody = await run(away, ['whoami'],
      { env: { SALLYPORT_SERVER: place.url, SALLYPORT_CA: 'ca.pem' } })
    assert.match(nobody.err, /log in first.*\n.*sallyport login/)
    const token = await createFirstAdminToken(place.ports)
    const line = ['login', '--server', place.url, '--ca', 'ca.pem', '--token', '--json']
    const shown = await run(away, [...line, token!])
    assert.equal([shown.code, /every process can read a command line/.test(shown.err)], [2, true])
    const given = { env: { SALLYPORT_ONE_TIME_TOKEN: token! } }
    assert.is((await run(away, line, given)).json()['name'], 'first-admin')
    assert.is((await run(away, ['whoami', '--json'])).json()['name'], 'first-admin')
    assert.is((await run(away, line, given)).code, 1)
  } finally {
    rmSync(away, { recursive: true })
  }
})

test('a program brings its token in the environment', async () => {
  await using place = await openPlace()
  const env = { SALLYPORT_TOKEN: place.localToken, SALLYPORT_SERVER: place.url,
    SALLYPORT_CA: 'data/tls/ca.pem' }
  isOk(await place.run(['whoami'], { env }))
  const wrong = await place.run(['whoami', '--json'], { env: { ...env, SALLYPORT_TOKEN: 'sally_x' } })
  assert.is(wrong.code, 1)
  assert.is(wrong.json<{ error: { code: string } }>().error.code, 'auth-required')
})

test('sessions are listed, shown, ended and found, as text and as JSON', async () => {
  await using place = await openPlace()
  place.memory.sessions.push(session)
  place.memory.receipts.set(id, {
    id: 'r1', account: 'a1', session: id, body: { state: 'proved-gone' }, keyId: 'k1', signature: 'c2ln',
    createdAt: new Date('2026-11-21T10:05:01Z')
  })
  const list = await place.run(['sessions', 'list'])
  assert.match(list.out, /^ID +STATUS +USER .*RECEIPT\n/)
  assert.match(list.out, /\n01hz\w+ +ended +alice +orders-rw +orders +postgres +sally_0{6}1 .*proved-gone\n$/)
  const [shown] = (await place.run(['sessions', 'list', '--json'])).json<{ receipt: { state: string } }[]>()
  assert.is(shown!.receipt.state, 'proved-gone')
  assert.match((await place.run(['sessions', 'show', id])).out, /recording +1\.5 KiB\n/)
  const one = (await place.run(['sessions', 'show', id, '--json'])).json()
  assert.equal([one['id'], one['status'], one['expiresAt']], [id, 'ended', '2026-11-21T18:00:00.000Z'])
  assert.match((await place.run(['sessions', 'receipt', id])).out, /state +proved-gone/)
  assert.is((await place.run(['sessions', 'kill', id])).code, 1)
  place.memory.sessions[0] = { ...session, status: 'live' }
  isOk(await place.run(['sessions', 'kill', id]))
  assert.equal(place.memory.killed, [`${id} by local`, `${id} by local`])
  place.ports.nodes.others = () => Promise.resolve([{
    node: 'two', search: () => Promise.resolve({ node: 'two', places: [], missing: 'node-silent' })
  }])
  const search = await place.run(['sessions', 'search', 'orders'])
  assert.match(search.out, /alice@orders {2}statement: select 'orders'/)
  assert.match(search.err, /not, or not all, looked through: the recordings of node two \(node-silent\)/)
})

test('a replay plays what was recorded and nothing of it acts on the terminal (R20)', async () => {
  await using place = await openPlace()
  place.memory.sessions.push(session)
  const replay = await place.run(['sessions', 'replay', id])
  isOk(replay)
  assert.match(replay.out, /^app=> select 1\r\n-- SELECT 1, .*1 row\r\n\r\n\[ended: client-closed\]/)
  assert.not.match(replay.out, /\x1b\]|\x07|\x9b/)
  const lines = (await place.run(['sessions', 'replay', id, '--json'])).out.trim().split('\n')
  assert.equal(lines.map(line => (JSON.parse(line) as { kind: string }).kind), ['text', 'text', 'end'])
})

test('watching ends when the person has seen enough', async () => {
  await using place = await openPlace()
  place.memory.sessions.push({ ...session, status: 'live' })
  const { follow } = place.ports.recordings
  place.ports.recordings.follow = async function* (of, signal) {
    for await (const scene of follow(of, signal)) {
      yield scene
      return
    }
  }
  const watch = await place.run(['sessions', 'watch', id])
  assert.equal([watch.code, watch.out], [0, 'so far\r\n'])
})

test('an export goes to standard output or into a file for its owner', async () => {
  await using place = await openPlace()
  place.memory.sessions.push({ ...session, recordingBytes: 10 })
  assert.is((await place.run(['sessions', 'export', id])).out, `asciicast-v2 of ${id}\n`)
  isOk(await place.run(['sessions', 'export', id, '--format', 'sql', '-o', 'x.sql']))
  assert.is(readFileSync(join(place.folder, 'x.sql'), 'utf8'), `sql of ${id}\n`)
  assert.is(statSync(join(place.folder, 'x.sql')).mode & 0o777, 0o600)
  assert.is((await place.run(['sessions', 'export', id, '--format', 'recording'])).code, 2)
  isOk(await place.run(['sessions', 'export', id, '--format', 'recording', '-o', 'x.spr']))
  assert.is(readFileSync(join(place.folder, 'x.spr'), 'utf8'), '0123456789')
})

test('verifying says with its exit code whether a recording is whole', async () => {
  await using place = await openPlace()
  place.memory.sessions.push(session)
  const good = await place.run(['sessions', 'verify', id])
  assert.is(good.code, 0)
  assert.match(good.out, /state +sealed/)
  place.memory.sessions[0] = { ...session, recordingHead: 'beef' }
  assert.is((await place.run(['sessions', 'verify', id, '--json'])).json()['valid'], false)
  assert.is((await place.run(['sessions', 'verify', id])).code, 1)
})

test('leases, orphans, templates and the audit log answer', async () => {
  await using place = await openPlace()
  for (const line of [
    'leases list', 'orphans scan', 'orphans reap', 'templates list', 'templates show postgres/create-role',
    'templates lint postgres/create-role', 'templates plan postgres/create-role', 'audit list',
    'audit verify', 'audit export'
  ]) {
    const text = await place.run(line.split(' '))
    assert.is(text.code, 0, `${line}: ${text.err}`)
    if (line === 'audit export') continue
    assert.is.not((await place.run([...line.split(' '), '--json'])).json(), undefined)
  }
  const variables = ['--variables', '{"roles":["app_rw"]}']
  const plan = await place.run(['templates', 'plan', 'postgres/create-role', ...variables])
  assert.match(plan.out, /IN ROLE .*"app_rw"/)
  writeFileSync(join(place.folder, 'bad.yaml'), 'id: nonsense\n')
  assert.is((await place.run(['templates', 'lint', 'bad.yaml'])).code, 1)
  assert.match((await place.run(['leases', 'show', 'lease-none'])).err, /not found: no lease "lease-none"/)
})

test('doctor says what is wrong and what to do, also when the server is down', async () => {
  const folder = makeFolder()
  try {
    const down = await run(folder, ['doctor', '--json'])
    assert.is(down.code, 1)
    const { healthy, checks } = down.json<{ healthy: boolean, checks: { name: string, status: string }[] }>()
    assert.is(healthy, false)
    const status = new Map(checks.map(check => [check.name, check.status]))
    assert.equal([status.get('node'), status.get('configuration'), status.get('server')],
      ['ok', 'ok', 'failed'])
    writeFileSync(join(folder, 'sallyport.yaml'), 'lissen: {}\n')
    assert.match((await run(folder, ['doctor'])).out, /failed {3}configuration: .*lissen: unknown key/)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('doctor is content with a house in order, and not with keys that others can read', async () => {
  await using place = await openPlace()
  const good = await place.run(['doctor'])
  assert.is(good.code, 0, good.out)
  assert.match(good.out, /ok {7}server: https:.* is ready\nok {7}store: answers in 1 ms\n/)
  assert.match(good.out, /\neverything is in order\n$/)
  chmodSync(join(place.folder, 'data', 'local-admin.token'), 0o644)
  const open = await place.run(['doctor'])
  assert.is(open.code, 1)
  assert.match(open.out, /failed {3}file modes: .*local-admin\.token can be read by others: chmod go= /)
})

test('a server that is not there is said with its address and what to do', async () => {
  const folder = makeFolder()
  try {
    writeFileSync(join(folder, 'sallyport.yaml'), 'listen: { http: "127.0.0.1:1" }\n')
    const { code, out, err } = await run(folder, ['sessions', 'list'])
    assert.equal([code, out], [1, ''])
    assert.match(err, /no Sallyport answers at https:\/\/127\.0\.0\.1:1 \(ECONNREFUSED\)\n.*sallyport serve/)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

// Writes every module that is loaded, when the process ends.
const spy = `
  import { registerHooks } from 'node:module'
  import { writeFileSync } from 'node:fs'
  const loaded = []
  registerHooks({ load: (url, context, next) => (loaded.push(url), next(url, context)) })
  process.on('exit', () => writeFileSync('loaded.json', JSON.stringify(loaded)))`

test('nothing heavy is loaded for a question: no schemas, no server, no store', async () => {
  await using place = await openPlace()
  const options = `--import "data:text/javascript,${encodeURIComponent(spy)}"`
  for (const line of [['--help'], ['whoami'], ['sessions', 'list'], ['apply', '-f', '-'], ['get', 'users']]) {
    const { code } = await place.run(line, { env: { NODE_OPTIONS: options }, input: '' })
    assert.is(code, 0, line.join(' '))
    const loaded = JSON.parse(readFileSync(join(place.folder, 'loaded.json'), 'utf8')) as string[]
    assert.ok(loaded.some(url => url.endsWith('/src/cli/run.ts')))
    const heavy = loaded.filter(url =>
      /node_modules\/(?!yaml\/)/.test(url)
      || /src\/(?!cli|recording|clock|errors|api\/calling\.ts)/.test(url))
    assert.equal(heavy, [], line.join(' '))
  }
})

test.run()
