// The statements of a PostgreSQL recording: what ran, with which parameters, and what came of it, for simple
// queries, prepared statements, pipelines with errors, COPY and function calls; with tapes cut anywhere; and
// no password shown.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Frame } from '../src/recording/format.ts'
import { maskSecrets } from '../src/recording/mask.ts'
import { StatementDecoder } from '../src/recording/postgres.ts'
import { frameKind } from '../src/recording/recording.ts'
import type { FrameKind } from '../src/recording/recording.ts'
import type { StatementRecord } from '../src/recording/statement.ts'
import * as wire from '../src/wire/postgres/messages.ts'
import { ResultTape, encodeResult, resultTextBytesMax, splitResults } from '../src/wire/postgres/tape.ts'
import { answer, seeded } from './peers/recordings.ts'

/** Feeds frames, 1 ms apart; client messages and answers as they are given. */
class Tape {
  readonly decoder = new StatementDecoder()
  records: StatementRecord[] = []
  #offset = 32
  #atMicroseconds = 0

  #push(kind: FrameKind, parts: readonly Buffer[]): this {
    const body = Buffer.concat(parts)
    this.#atMicroseconds += 1000
    const frame: Frame = { offset: this.#offset, kind, lane: 0, atMicroseconds: this.#atMicroseconds, body }
    this.#offset += body.length + 13
    this.records.push(...this.decoder.push(frame))
    return this
  }

  ask(...parts: Buffer[]): this {
    return this.#push(frameKind.statement, parts)
  }

  answer(...parts: Buffer[]): this {
    return this.#push(frameKind.result, parts)
  }

  end(): StatementRecord[] {
    this.records.push(...this.decoder.end())
    return this.records
  }
}

function brief(record: StatementRecord): string {
  const { kind, sql, parameters, outcome, tag } = record
  return [kind, sql, ...parameters.length > 0 ? [JSON.stringify(parameters)] : [], outcome, tag].join(' | ')
}

test('a simple query has its rows, bytes, tag and duration', () => {
  const tape = new Tape().ask(wire.query('SELECT 1'))
  tape.answer(answer.complete('SELECT 3', 3, 120), answer.ready())
  assert.equal(tape.end(), [{
    atMs: 1, lane: 0, offset: 32, kind: 'query', sql: 'SELECT 1', parameters: [], outcome: 'ok',
    results: [{ tag: 'SELECT 3', rows: 3, bytes: 120, copiedBytes: 0 }], tag: 'SELECT 3', rows: 3, bytes: 120,
    copiedBytes: 0, error: undefined, notices: [], durationMs: 1, alarm: undefined, cut: false
  }])
})

test('a query with several statements keeps each result, and an error among them', () => {
  const [record] = new Tape().ask(wire.query('INSERT …; COPY …; nonsense')).answer(
    answer.complete('INSERT 0 5'), answer.complete('COPY 2', 0, 0, 4096),
    answer.error('42601', 'syntax error'), answer.ready()
  ).end()
  assert.equal(record?.results.map(result => result.tag), ['INSERT 0 5', 'COPY 2'])
  assert.is(record?.rows, 7)
  assert.is(record?.copiedBytes, 4096)
  assert.is(record?.outcome, 'error')
  assert.is(record?.error?.sqlstate, '42601')
})

test('a prepared statement is shown with its text and parameters, each time it runs', () => {
  const tape = new Tape()
    .ask(wire.parse('s1', 'SELECT * FROM t WHERE a = $1 AND b = $2'), wire.sync())
    .answer(answer.other('1'), answer.ready())
  for (const value of ['x', null]) {
    tape.ask(wire.bind('', 's1', ['7', value]), wire.execute(''), wire.sync())
      .answer(answer.complete('SELECT 1', 1, 10), answer.ready())
  }
  assert.equal(tape.end().map(brief), [
    'execute | SELECT * FROM t WHERE a = $1 AND b = $2 | ["7","x"] | ok | SELECT 1',
    'execute | SELECT * FROM t WHERE a = $1 AND b = $2 | ["7",null] | ok | SELECT 1'
  ])
})

test('binary parameters are shown as hex, by their own format codes', () => {
  const values = [Buffer.from([0, 0, 0, 7]), Buffer.from('text')]
  const parts = values.flatMap(value => {
    const length = Buffer.alloc(4)
    length.writeInt32BE(value.length)
    return [length, value]
  })
  const formats = Buffer.from([0, 2, 0, 1, 0, 0, 0, 2])
  const bind = wire.frame('B', wire.cstring(''), wire.cstring(''), formats, ...parts, Buffer.from([0, 0]))
  const tape = new Tape().ask(wire.parse('', 'SELECT $1, $2'), bind, wire.execute(''), wire.sync())
  const [record] = tape.answer(answer.complete('SELECT 1', 1), answer.ready()).end()
  assert.equal(record?.parameters, ['\\x00000007', 'text'])
})

test('an error skips the rest of a pipeline up to its Sync, also when the rest comes later', () => {
  const run = (sql: string): Buffer[] => [wire.parse('', sql), wire.bind('', ''), wire.execute('')]
  const tape = new Tape()
    .ask(...run('first'), ...run('second'), ...run('third'))
    .answer(answer.complete('SELECT 1', 1), answer.error('22012', 'division by zero'))
    .ask(...run('fourth'), wire.query('fifth'), wire.sync(), ...run('sixth'), wire.sync())
    .answer(answer.ready(), answer.complete('SELECT 1', 1), answer.ready())
  assert.equal(tape.end().map(record => [record.sql, record.outcome]), [
    ['first', 'ok'], ['second', 'error'], ['third', 'skipped'], ['fourth', 'skipped'], ['fifth', 'skipped'],
    ['sixth', 'ok']
  ])
})

test('a Parse that fails cannot disguise what a later Execute runs', () => {
  const tape = new Tape()
    .ask(wire.parse('s', 'DROP TABLE orders'), wire.sync())
    .answer(answer.other('1'), answer.ready())
    // The name is taken: the target refuses, and keeps the first one.
    .ask(wire.parse('s', 'SELECT 1'), wire.sync())
    .answer(answer.error('42P05', 'prepared statement "s" already exists'), answer.ready())
    .ask(wire.bind('', 's'), wire.execute(''), wire.sync())
    .answer(answer.complete('DROP TABLE'), answer.ready())
  assert.equal(tape.end().map(brief), [
    'prepare | SELECT 1 | error | ', 'execute | DROP TABLE orders | ok | DROP TABLE'
  ])
})

test('names change hands by Close, DEALLOCATE, DISCARD and PREPARE as the target sees them', () => {
  const tape = new Tape()
  const done = (...parts: Buffer[]): void => void tape.answer(...parts, answer.ready())
  const runs = (name: string): void => {
    tape.ask(wire.bind('', name), wire.execute(''), wire.sync())
    done(answer.complete('SELECT 1', 1))
  }
  tape.ask(wire.parse('a', 'one'), wire.frame('C', Buffer.from('Sa\0')), wire.parse('a', 'two'), wire.sync())
  done(answer.other('1'), answer.other('3'), answer.other('1'))
  runs('a')
  tape.ask(wire.query('DEALLOCATE a'))
  done(answer.complete('DEALLOCATE'))
  tape.ask(wire.parse('a', 'three'), wire.sync())
  done(answer.other('1'))
  runs('a')
  tape.ask(wire.query('PREPARE "B b" (int) AS SELECT $1'))
  done(answer.complete('PREPARE'))
  runs('B b')
  tape.ask(wire.query('DISCARD ALL'))
  done(answer.complete('DISCARD ALL'))
  runs('a')
  const ran = tape.end().filter(record => record.kind === 'execute').map(record => record.sql)
  assert.equal(ran, ['two', 'three', 'SELECT $1', '<prepared statement "a" is not on this tape>'])
})

test('a portal that is fetched in parts is one record for each Execute', () => {
  const tape = new Tape()
    .ask(wire.parse('', 'SELECT big'), wire.bind('p', ''), wire.execute('p', 2), wire.sync())
    .answer(answer.other('s'), answer.ready('T'))
    .ask(wire.execute('p', 2), wire.sync())
    .answer(answer.complete('SELECT 1', 1), answer.ready('T'))
  const records = ['execute | SELECT big | ok | ', 'execute | SELECT big | ok | SELECT 1']
  assert.equal(tape.end().map(brief), records)
})

test('function calls, empty queries, notices and what nobody asked for are shown', () => {
  const call = wire.frame('F', Buffer.from([0, 0, 3, 232, 0, 0, 0, 1, 0, 0, 0, 1, 0x37, 0, 0]))
  const tape = new Tape()
    .ask(call).answer(answer.other('V', Buffer.from([0, 0, 0, 0])), answer.ready())
    .ask(wire.query('')).answer(answer.other('I'), answer.ready())
    .ask(wire.query('DO')).answer(answer.notice('hello'), answer.complete('DO'), answer.ready())
    .answer(answer.other('A', Buffer.from('\0\0\0\x07chan\0payload\0')))
    .answer(answer.error('57P01', 'terminating connection'))
  const records = tape.end()
  assert.equal(records.map(record => [record.kind, record.outcome]), [
    ['call', 'ok'], ['query', 'ok'], ['query', 'ok'], ['message', 'ok'], ['message', 'error']
  ])
  assert.equal(records[0]?.parameters, ['7'])
  assert.equal(records[2]?.notices, ['NOTICE: hello'])
  assert.equal(records[3]?.notices, ['notification on chan: payload'])
  assert.is(records[4]?.error?.sqlstate, '57P01')
})

test('text is decoded in the encoding of the client', () => {
  const bytes = Buffer.from("SELECT '\xe4\xf6\xfc'", 'latin1')
  const tape = new Tape().answer(answer.status('client_encoding', 'LATIN1'))
    .ask(wire.frame('Q', bytes, Buffer.alloc(1))).answer(answer.complete('SELECT 1', 1), answer.ready())
  assert.is(tape.end()[0]?.sql, "SELECT 'äöü'")
})

test('what runs now is shown before it is answered', () => {
  const batch = [wire.parse('', 'SELECT pg_sleep(60)'), wire.bind('', ''), wire.execute(''), wire.sync()]
  const tape = new Tape().ask(...batch)
  assert.equal(tape.records, [])
  assert.equal(tape.decoder.running().map(brief), ['execute | SELECT pg_sleep(60) | unanswered | '])
  tape.answer(answer.complete('SELECT 1', 1), answer.ready())
  assert.equal(tape.decoder.running(), [])
})

test('however the stream is cut into frames, the statements are the same', () => {
  const stream = Buffer.concat([
    wire.query('SELECT 1'), wire.parse('a', 'SELECT $1'), wire.bind('', 'a', ['é'.repeat(50)]),
    wire.execute(''), wire.sync(), wire.query('x'.repeat(3000))
  ])
  const random = seeded(9)
  for (let round = 0; round < 50; round++) {
    const tape = new Tape()
    for (let at = 0; at < stream.length;) {
      const next = at + 1 + random(round < 5 ? 1 : 700)
      tape.ask(stream.subarray(at, next))
      at = next
    }
    const results = [answer.complete('SELECT 1', 1), answer.ready()]
    tape.answer(...results, ...results, ...results)
    const sql = tape.end().map(record => [record.sql.length, record.parameters[0]?.length, record.outcome])
    assert.equal(sql, [[8, undefined, 'ok'], [9, 50, 'ok'], [3000, undefined, 'ok']])
  }
})

test('a tape that breaks off shows what was asked, also half a statement', () => {
  const whole = Buffer.concat([wire.query('SELECT 1'), wire.query('DELETE FROM orders WHERE true')])
  const tape = new Tape().ask(whole.subarray(0, -10))
  assert.equal(tape.end().map(record => [record.sql, record.outcome, record.cut]), [
    ['SELECT 1', 'unanswered', false], ['DELETE FROM orders W', 'unanswered', true]
  ])
})

test('a very long statement is kept in part, and its neighbours are found', () => {
  const long = wire.query(`SELECT '${'y'.repeat(20 * 1024 * 1024)}'`)
  // The relay keeps 16 MiB of a message on the tape.
  const tape = new Tape().ask(long.subarray(0, 16 * 1024 * 1024)).ask(wire.query('SELECT 2'))
  tape.answer(answer.complete('SELECT 1', 1), answer.ready(), answer.complete('SELECT 1', 1), answer.ready())
  const [first, second] = tape.end()
  assert.ok(first?.cut === true && first.sql.length <= 256 * 1024 && first.sql.startsWith("SELECT 'yyy"))
  assert.is(second?.sql, 'SELECT 2')
})

test('a long pipeline is read in a moment', () => {
  const messages = Array.from({ length: 20_000 }, (_, n) => wire.bind('', 's', [String(n)]))
  const tape = new Tape().ask(wire.parse('s', 'SELECT $1'))
  for (const bind of messages) tape.ask(bind, wire.execute(''))
  tape.ask(wire.sync())
  for (let count = 0; count < messages.length; count++) tape.answer(answer.complete('SELECT 1', 1))
  tape.answer(answer.ready())
  const records = tape.end()
  assert.is(records.length, 20_000)
  assert.ok(records.every((record, n) => record.parameters[0] === String(n) && record.outcome === 'ok'))
})

test('passwords are masked wherever SQL can hold one, and a change of a role raises the alarm', () => {
  const secret = 'h0rse-battery'
  const changes = [
    `ALTER ROLE bob PASSWORD '${secret}'`,
    `alter user bob with encrypted password '${secret}' valid until 'infinity'`,
    `CREATE USER bob PASSWORD E'${secret}\\'s'`,
    `CREATE ROLE bob LOGIN PASSWORD $$${secret}$$`,
    `CREATE GROUP bob PASSWORD $tag$${secret}$tag$`,
    `ALTER ROLE bob PASSWORD U&'${secret}'`,
    `ALTER ROLE bob /* PASSWORD 'no' */ PASSWORD -- x\n  '${secret}'`,
    `SELECT 1; ALTER ROLE bob PASSWORD '${secret}'; SELECT 2`,
    `ALTER ROLE bob PASSWORD '${secret}`,
    `ALTER ROLE bob PASSWORD 'SCRAM-SHA-256$4096:${secret}$x:y'`,
    `DO $do$ BEGIN EXECUTE 'ALTER ROLE bob PASSWORD ''${secret}'''; END $do$`,
    `DO $do$ BEGIN EXECUTE 'ALTER ROLE bob PASSWORD ' || quote_literal('${secret}'); END $do$`,
    `DO $do$ BEGIN EXECUTE format('ALTER ROLE %I PASSWORD %L', 'bob', '${secret}'); END $do$`,
    `CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ ALTER ROLE bob PASSWORD '${secret}'; $$`
  ]
  for (const sql of changes) {
    const masked = maskSecrets(sql)
    assert.not.ok(masked.sql.includes('h0rse'), masked.sql)
    assert.ok(masked.passwordChange, sql)
  }
  const connections = [
    `CREATE SUBSCRIPTION s CONNECTION 'host=h password=${secret} user=u' PUBLICATION p`,
    `SELECT * FROM dblink('host=h password=''${secret}''', 'SELECT 1') AS t(a int)`,
    `SELECT dblink_connect('postgresql://u:${secret}@host/db')`,
    `CREATE USER MAPPING FOR bob SERVER s OPTIONS (user 'u', password '${secret}')`,
    `CREATE USER MAPPING FOR bob SERVER s OPTIONS ("password" '${secret}')`
  ]
  for (const sql of connections) assert.not.ok(maskSecrets(sql).sql.includes('h0rse'), maskSecrets(sql).sql)
})

test('masking changes nothing else', () => {
  const harmless = [
    'SELECT 1', "SELECT password FROM users WHERE name = 'bob'",
    "SELECT 'it''s', $$a$$, E'\\n', U&'x' -- 'y'",
    "INSERT INTO t (password_hint) VALUES ('blue')", '/* nested /* comment */ */ SELECT $1',
    'SELECT "a""b" FROM "T"',
    "SELECT 'a' 'b', B'01', x'ff', 1e5, a::text, b #>> '{c}'", '', "'", '$$', '"', '/*', "E'\\"
  ]
  for (const sql of harmless) {
    const masked = maskSecrets(sql)
    assert.is(masked.sql, sql)
    assert.not.ok(masked.passwordChange, sql)
  }
  assert.is(maskSecrets('ALTER ROLE bob PASSWORD NULL').passwordChange, true)
  assert.is(maskSecrets("ALTER ROLE bob PASSWORD 'a' VALID UNTIL 'b'").sql,
    "ALTER ROLE bob PASSWORD '<secret>' VALID UNTIL 'b'")
})

test('parameters and errors of a statement with a password are masked too', () => {
  const tape = new Tape().ask(wire.parse('', "SELECT f('ALTER ROLE x PASSWORD ''p''', $1)"),
    wire.bind('', '', ['p2']))
  tape.ask(wire.execute(''), wire.sync())
  tape.answer(answer.error('42601', "syntax error in ALTER ROLE x PASSWORD 'p3'"), answer.ready())
  const [record] = tape.end()
  assert.is(record?.alarm, 'password-change')
  assert.equal(record?.parameters, ['<secret>'])
  assert.not.match(JSON.stringify(record), /p3|p2|''p''/)
})

test('a result frame holds any numbers and texts, and refuses what it is not', () => {
  const tape = new ResultTape()
  const numbers = [0, 1, 127, 128, 16_384, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 40 + 3,
    Number.MAX_SAFE_INTEGER]
  const long = Buffer.alloc(resultTextBytesMax + 1, 'e')
  for (const number of numbers) tape.add(0x43, number, number, number, Buffer.from(`SELECT ${number}\0`))
  tape.add(0x45, 0, 0, 0, long)
  const body = Buffer.from(tape.take())
  const results = splitResults(body)
  assert.equal(results.slice(0, -1).map(result => [result.rows, result.bytes, result.copiedBytes]),
    numbers.map(number => [number, number, number]))
  assert.is(results.at(-1)?.body.length, resultTextBytesMax)
  assert.is(results.at(-1)?.complete, false)
  assert.is(tape.length, 0)
  assert.equal(splitResults(encodeResult({ tag: 'Z', body: Buffer.from('I') })).map(each => each.tag), ['Z'])
  for (let length = 1; length < 20; length++) {
    const cut = body.subarray(0, length)
    assert.ok((() => {
      try {
        return splitResults(cut).length > 0
      } catch (thrown) {
        return (thrown as Error).name === 'WireError'
      }
    })(), String(length))
  }
  assert.throws(() => splitResults(Buffer.alloc(30, 0xff)), (error: Error) => error.name === 'WireError')
})

test.run()
