// Several statements in one round trip, on a real PostgreSQL and on targets that answer wrongly: results come
// in order, whoever is refused is named and nothing behind it happens, and an answer more or less than was
// asked for ends the connection.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { frame, readyForQuery } from '../src/wire/postgres/messages.ts'
import { connectClient, ConnectionLost, ServerError } from '../src/wire/postgres/query.ts'
import { startPostgres } from '../tool/postgres.ts'
import { optionsFor, verifier } from './peers/hostile.ts'
import { startTarget } from './peers/postgres-target.ts'

const timeoutMs = 5000

async function thrownBy(act: Promise<unknown>): Promise<unknown> {
  return act.then(() => undefined, (thrown: unknown) => thrown)
}

test('statements that travel together are carried out in order, to the first that is refused', async () => {
  const server = await startPostgres({ version: '15' })
  const client = await connectClient({
    host: server.host, port: server.port, user: server.superuser, database: 'postgres',
    tls: { mode: 'disable' }, secret: () => ({ kind: 'password', password: server.superuserPassword }),
    timeouts: { connectMs: timeoutMs, tlsMs: timeoutMs, loginMs: timeoutMs }
  })
  const results = await client.batch([
    { sql: 'BEGIN' }, { sql: 'SELECT $1::int + 1, $2::text', values: ['1', null] }, { sql: '' },
    { sql: 'CREATE ROLE made' }, { sql: 'SELECT generate_series(1, 3)' }, { sql: 'COMMIT' }
  ], { timeoutMs })
  assert.equal(results.map(({ tag }) => tag), ['BEGIN', 'SELECT 1', '', 'CREATE ROLE', 'SELECT 3', 'COMMIT'])
  assert.equal(results[1]?.rows, [['2', null]])
  assert.equal(results[4]?.rows, [['1'], ['2'], ['3']])
  assert.is(client.transactionStatus, 'I')

  const refused = await thrownBy(client.batch([
    { sql: 'BEGIN' }, { sql: 'CREATE ROLE kept_not' }, { sql: 'CREATE ROLE made' }, { sql: 'COMMIT' }
  ], { timeoutMs })) as ServerError
  assert.instance(refused, ServerError)
  assert.equal([refused.sqlstate, refused.place], ['42710', 2])
  // COMMIT was passed over: the transaction is there, and failed.
  assert.is(client.transactionStatus, 'E')
  await client.query('ROLLBACK', { timeoutMs })
  const { rows } = await client.query(
    `SELECT rolname FROM pg_roles WHERE rolname IN ('made', 'kept_not')`, { timeoutMs })
  assert.equal(rows, [['made']])
  // A statement that smuggles in another one is refused here as everywhere.
  const two = [{ sql: 'SELECT 1; SELECT 2' }, { sql: 'SELECT 3' }]
  const smuggled = await thrownBy(client.batch(two, { timeoutMs }))
  assert.is((smuggled as ServerError).place, 0)
  await client.close()
  await server.stop()
})

const one = Buffer.concat([frame('1'), frame('2'), frame('n'), frame('C', Buffer.from('OK\0'))])
const ready = readyForQuery('I')
const lies = {
  'one answer too few': [one, ready],
  'one answer too many': [one, one, one, ready],
  'none': [ready],
  'half of the second': [one, frame('1'), ready],
  'the second without its ParseComplete': [one, frame('2'), ready]
}

for (const [name, parts] of Object.entries(lies)) {
  test(`a target that answers two statements with ${name} has broken the protocol`, async () => {
    let first = true
    await using target = await startTarget(async peer => {
      // The connection after the first is a cancel request.
      if (!first) return peer.end()
      first = false
      await peer.login(verifier)
      await peer.statement()
      peer.send(...parts)
      await peer.mute()
    })
    const client = await connectClient(optionsFor(target.port))
    const thrown = await thrownBy(client.batch([{ sql: 'SELECT 1' }, { sql: 'SELECT 2' }], { timeoutMs }))
    assert.instance(thrown, ConnectionLost)
    assert.is((thrown as ConnectionLost).reason, 'violation')
    await client.close()
  })
}

test('an honest answer to two is read right', async () => {
  await using target = await startTarget(async peer => {
    await peer.login(verifier)
    await peer.statement()
    peer.send(one, one, ready)
    await peer.mute()
  })
  const client = await connectClient(optionsFor(target.port))
  const results = await client.batch([{ sql: 'SELECT 1' }, { sql: 'SELECT 2' }], { timeoutMs })
  assert.equal(results.map(({ tag }) => tag), ['OK', 'OK'])
  await client.close()
})

test.run()
