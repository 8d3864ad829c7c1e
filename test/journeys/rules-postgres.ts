// Rules about SQL as their people meet them (D5): stock clients, a real PostgreSQL, the product in a process
// of its own. What is refused did not happen on the target, and everything behind it goes on in step.
// deadline: 120 s
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { AuditJson, RequestJson, SessionJson } from '../../src/api/client-types.ts'
import type { WhatIfLine } from '../../src/api/ports-records.ts'
import { cancelRequest, query } from '../../src/wire/postgres/messages.ts'
import { parseReport } from '../../src/wire/postgres/parse.ts'
import type { PostgresServer } from '../../tool/postgres.ts'
import { programOf } from '../../tool/services.ts'
import { alicePassword, companyDatabase, ran, startHouse, until } from '../peers/house.ts'
import type { House, Ran } from '../peers/house.ts'
import { apiOf, sessionsOf, statementsOf } from '../peers/inspector.ts'
import { people, personOf } from '../peers/people.ts'
import type { Person } from '../peers/people.ts'
import { startPsql } from '../peers/psql.ts'
import { rawClient } from '../peers/raw-postgres.ts'
import type { RawClient } from '../peers/raw-postgres.ts'

let target: PostgresServer
let house: House
let carol: Person

const access = `${people('bob', 'carol')}---
kind: grant
name: bob-rw
users: [bob]
credentials: [orders-rw]
rules:
  - { on: sql, kind: [drop], pattern: '(?i)^drop table scratch', then: allow }
  - { on: sql, kind: [drop, truncate, delete-without-where], then: refuse }
  - on: sql
    kind: [update-without-where]
    then: approve
    approval: { by: [carol], waitFor: 20s, validFor: 1m }
  - { on: sql, pattern: '(?i)\\bsalary\\b', then: warn }
  - { on: sql, kind: [copy-program, copy-from], then: refuse }
  - { on: sql, kind: [set-role], then: end }
`

test.before(async () => {
  const company = await companyDatabase('15')
  target = company.server
  house = await startHouse({ target, adminPassword: company.adminPassword, access })
  carol = await personOf(house, 'carol')
})
test.after(async () => {
  await house.stop()
  house.clear()
  await target.stop()
})

const login = 'bob+orders-rw'
const bob = (...lines: string[]): Promise<Ran> =>
  ran(programOf('psql'), ['-XAtq', house.connection(login)], house.environment, `${lines.join('\n')}\n`)
const refused = 'a rule of this access does not allow it: '
const refusals = (text: string): string[] =>
  [...text.matchAll(/ERROR: {2}(.*) \[rule-refused [0-9a-f]{6}\]/g)].map(([, words = '']) => words)
const newest = async (): Promise<SessionJson> => (await sessionsOf(apiOf(house)))[0]!
const audited = async (kind: string, subject: string): Promise<AuditJson[]> =>
  (await apiOf(house).get('/audit', { query: { kind, subject } })).events

test('a refused statement has not happened, and what follows goes on', async () => {
  const { stdout, stderr } = await bob(
    'SELECT 1;', 'TRUNCATE orders;', 'SELECT 2;', 'SELECT 3\\; DELETE FROM orders\\; SELECT 4;',
    'DELETE FROM orders WHERE id = 100;', 'selct 7;', 'COPY orders FROM STDIN;',
    'SELECT count(*) FROM orders;')
  assert.is(stdout, '1\n2\n99\n')
  const kinds = ['truncate', 'delete-without-where', 'unparsed', 'copy-from']
  assert.equal(refusals(stderr), kinds.map(kind => refused + kind), stderr)
  const { id } = await newest()
  const events = await audited('rule.refused', id)
  assert.equal(events.map(({ actor, detail }) => [actor, (detail as { rule: unknown }).rule]).reverse(),
    [['bob', 2], ['bob', 2], ['bob', 'none'], ['bob', 5]])
  const kept = await statementsOf(apiOf(house), id)
  assert.match(kept, /TRUNCATE orders[^]*rule 2: refused \(truncate\)[^]*42501/)
  const { hits } = await apiOf(house).get('/search', { query: { query: 'refused (truncate)' } })
  assert.equal(hits.map(({ session, kind }) => [session, kind]), [[id, 'statement']])
})

test('a transaction with a refused statement is aborted on the target as well', async () => {
  const { stdout, stderr } = await bob(
    'BEGIN;', "INSERT INTO orders VALUES (500, 'x');", 'TRUNCATE orders;', 'SELECT 1;', 'COMMIT;',
    'SELECT count(*) FROM orders WHERE id = 500;')
  assert.is(stdout, '0\n')
  assert.match(stderr, /rule-refused[^]*current transaction is aborted/)
})

async function connected(): Promise<pg.Client> {
  const client = new pg.Client({
    host: '127.0.0.1', port: house.port, user: login, password: alicePassword, database: 'orders'
  })
  client.on('error', () => undefined)
  await client.connect()
  return client
}

const codeOf = (client: pg.Client, text: string, values: unknown[] = [], name?: string): Promise<string> =>
  client.query({ text, values, ...name === undefined ? {} : { name } })
    .then(({ rowCount }) => `${rowCount} rows`, (thrown: { code: string }) => thrown.code)

test('the extended protocol: a refused Parse fails with its batch, and names stay', async () => {
  const client = await connected()
  try {
    assert.is(await codeOf(client, 'DELETE FROM orders WHERE id = $1', [98], 'one'), '1 rows')
    assert.is(await codeOf(client, 'DELETE FROM orders WHERE $1', [true], 'all'), '42501')
    assert.is(await codeOf(client, 'DELETE FROM orders WHERE id = $1', [97], 'one'), '1 rows')
    await client.query('BEGIN')
    assert.is(await codeOf(client, 'TRUNCATE orders', []), '42501')
    assert.is(await codeOf(client, 'SELECT 1', []), '25P02')
    await client.query('ROLLBACK')
    const long = `SELECT '${'x'.repeat(300_000)}'`
    assert.is(await codeOf(client, long), '42501')
    assert.is(await codeOf(client, long, []), '42501')
    assert.is(await codeOf(client, `SELECT '${'x'.repeat(200_000)}'`), '1 rows')
  } finally {
    await client.end()
  }
})

test('a warning is told and kept, and a rule above another one lets pass', async () => {
  const { stdout, stderr } = await bob(
    "SELECT 'salary';", 'CREATE TABLE scratch (a int);', 'DROP TABLE scratch;', 'SELECT 2;')
  assert.is(stdout, 'salary\n2\n', stderr)
  assert.match(stderr, /NOTICE: {2}a rule of this access is watching: sql \(select\) is on record/)
  assert.not.match(stderr, /ERROR/)
  const { id } = await newest()
  assert.equal((await audited('rule.warned', id)).length, 1)
})

test('others are asked for one statement, which waits; a denial and Ctrl-C refuse it', async () => {
  const pending = async (): Promise<RequestJson> => {
    const { requests } = await until(
      () => apiOf(house).get('/requests', { query: { state: 'pending' } }),
      found => found.requests.length > 0)
    return requests[0]!
  }
  const psql = startPsql(house, login)
  const update = "UPDATE orders SET customer = 'nobody';"
  psql.type(update)
  await psql.sees(/NOTICE: {2}request req-\w+ needs one approval: waiting for up to 20 seconds/)
  const request = await pending()
  assert.match(request.grant, /^bob-rw#3\//)
  assert.is(request.reason, "UPDATE orders SET customer = 'nobody';")
  assert.is(await target.psql("SELECT count(*) FROM orders WHERE customer = 'nobody'", 'orders'), '0')
  const listed = await carol.json<RequestJson[]>('requests', 'list')
  assert.equal(listed.map(({ id }) => id), [request.id])
  await carol.decides('approve', request.id)
  psql.type('SELECT count(*) FROM orders WHERE customer = $$nobody$$;')
  await psql.sees(/is approved\n97\n/)
  // The same words in the same session are agreed to for a minute; others are not.
  psql.type(update)
  psql.type("UPDATE orders SET customer = 'somebody';")
  await carol.decides('deny', (await pending()).id)
  await psql.sees(/does not allow it: request req-\w+ is denied \[rule-refused/)
  psql.type("UPDATE orders SET customer = 'anybody';")
  await pending()
  psql.child.kill('SIGINT')
  await psql.sees(/nobody waited for the approval \[rule-refused/)
  await psql.leave()
  const { id } = await newest()
  const kinds = await Promise.all(['rule.approved', 'rule.refused'].map(kind => audited(kind, id)))
  assert.equal(kinds.map(({ length }) => length), [2, 2])
})

test('in a pipeline a cancel request ends what runs; what waits behind it goes on waiting', async () => {
  const updated = (customer: string): Promise<string> =>
    target.psql(`SELECT count(*) > 0 FROM orders WHERE customer = '${customer}'`, 'orders')
  const requestOf = async (reason: string): Promise<RequestJson | undefined> =>
    (await apiOf(house).get('/requests')).requests
      .find(request => request.reason === reason)
  const client = await rawClient(house.port)
  await client.logIn(login, alicePassword, [['database', 'orders']])
  const [pid, key] = await backendKey(client)
  const cancel = async (): Promise<void> => {
    const other = await rawClient(house.port)
    await other.send(cancelRequest(pid, key)).until('')
  }
  const codes = async (): Promise<string[]> => (await client.until('Z')).flatMap(({ tag, body }) =>
    tag === 'E' ? [parseReport(body).sqlstate] : tag === 'C' ? ['done'] : [])
  const update = "UPDATE orders SET customer = 'behind';"
  client.send(Buffer.concat([query('SELECT pg_sleep(30)'), query(update)]))
  const { id } = (await until(() => requestOf(update), found => found?.state === 'pending', 10))!
  await cancel()
  assert.equal(await codes(), ['57014'])
  assert.is((await requestOf(update))?.state, 'pending')
  await carol.decides('approve', id)
  assert.equal(await codes(), ['done'])
  assert.is(await updated('behind'), 't')
  // Alone it is what the client waits for.
  const alone = "UPDATE orders SET customer = 'alone';"
  client.send(query(alone))
  await until(() => requestOf(alone), found => found?.state === 'pending', 10)
  await cancel()
  assert.equal(await codes(), ['42501'])
  await until(() => requestOf(alone), found => found?.state === 'withdrawn', 3)
  assert.is(await updated('alone'), 'f')
  client.socket.destroy()
})

/** What it is to cancel with; reads until the server is ready. */
async function backendKey(client: RawClient): Promise<[pid: number, key: Buffer]> {
  const { body } = (await client.until('Z')).find(({ tag }) => tag === 'K')!
  return [body.readInt32BE(0), body.subarray(4)]
}

test('whoever leaves while others are asked ends the session, and nothing was run', async () => {
  const psql = startPsql(house, login)
  psql.type("UPDATE orders SET customer = 'gone';")
  await psql.sees(/needs one approval/)
  psql.child.kill('SIGKILL')
  await until(newest, ({ status }) => status === 'ended', 5)
  assert.is(await target.psql("SELECT count(*) FROM orders WHERE customer = 'gone'", 'orders'), '0')
})

test('a rule may end the session, and says so', async () => {
  const { stdout, stderr } = await bob('SELECT 1;', 'SELECT 2\\; SET ROLE app_rw;', 'SELECT 3;')
  assert.is(stdout, '1\n')
  assert.match(stderr, /FATAL: {2}a rule of this access ended the session: set-role \[rule-ended /)
  await until(newest, ({ reason }) => reason?.startsWith('rule-ended') === true)
})

test('rules are tried on what was recorded before a grant has them', async () => {
  const file = join(house.folder, 'tried.yaml')
  writeFileSync(file, `rules:
  - { on: sql, kind: [drop], then: approve, approval: { by: [carol] } }
  - { on: sql, kind: [delete], pattern: 'id = ', then: end }
`)
  const lines = await house.json<WhatIfLine[]>('policy', 'what-if', '-f', file)
  const found = lines.flatMap(line => 'done' in line ? [] : [`${line.then} ${line.rule} ${line.what}`])
    .filter(line => !line.includes('xxx')).sort()
  assert.equal(found, [
    'approve 1 DROP TABLE scratch;', 'end 2 DELETE FROM orders WHERE id = $1',
    'end 2 DELETE FROM orders WHERE id = $1', 'end 2 DELETE FROM orders WHERE id = 100;',
    'refuse null selct 7;'
  ])
  assert.ok('done' in lines.at(-1)!)
  const { session } = lines.find(line => !('done' in line) && line.then === 'approve') as { session: string }
  const shown = await house.json<{ verdicts: { verdict: string }[] }>('sessions', 'show', session)
  assert.equal(shown.verdicts.map(({ verdict }) => verdict), ['warned'])
})

test.run()
