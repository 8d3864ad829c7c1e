// PostgreSQL messages: what our builders write our parsers read back, and a body that promises more than it
// holds is refused before anything is allocated for it.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WireError } from '../src/wire/error.ts'
import * as messages from '../src/wire/postgres/messages.ts'
import * as parsers from '../src/wire/postgres/parse.ts'
import * as statements from '../src/wire/postgres/statements.ts'

function bodyOf(message: Buffer): Buffer {
  assert.is(message.readInt32BE(1), message.length - 1)
  return message.subarray(5)
}

function assertRefused(read: () => unknown): void {
  assert.throws(read, (thrown: unknown) => thrown instanceof WireError)
}

test('what the server builders write is read back', () => {
  const report = { severity: 'ERROR', sqlstate: '42601', message: 'né', detail: 'd', hint: undefined }
  assert.equal(parsers.parseReport(bodyOf(messages.errorResponse(report))), report)
  assert.is(String.fromCharCode(messages.noticeResponse(report)[0]!), 'N')
  const status = messages.parameterStatus('TimeZone', 'UTC')
  assert.equal(parsers.parseParameterStatus(bodyOf(status)), { name: 'TimeZone', value: 'UTC' })
  for (const key of [Buffer.alloc(4, 7), Buffer.alloc(32, 7), Buffer.alloc(256, 7)]) {
    assert.equal(parsers.parseBackendKeyData(bodyOf(messages.backendKeyData(42, key))), { pid: 42, key })
  }
  for (const letter of ['I', 'T', 'E'] as const) {
    assert.is(parsers.parseReadyForQuery(bodyOf(messages.readyForQuery(letter))), letter)
  }
  const mechanisms = ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256']
  const { parseAuthentication } = parsers
  const offer = bodyOf(messages.authenticationSasl(mechanisms))
  assert.equal(parseAuthentication(offer), { kind: 'sasl', mechanisms })
  const data = Buffer.from('x')
  const [more, final] = [messages.authenticationSaslContinue(data), messages.authenticationSaslFinal(data)]
  assert.equal(parseAuthentication(bodyOf(more)), { kind: 'sasl-continue', data })
  assert.equal(parseAuthentication(bodyOf(final)), { kind: 'sasl-final', data })
  assert.equal(parseAuthentication(bodyOf(messages.authenticationOk())), { kind: 'ok' })
  assert.equal(parseAuthentication(bodyOf(messages.authenticationCleartextPassword())), { kind: 'cleartext' })
  const negotiation = bodyOf(messages.negotiateProtocolVersion(2, ['_pq_.a', '_pq_.b']))
  const { minor, options } = parsers.parseNegotiateProtocolVersion(negotiation)
  assert.equal([minor, options], [2, ['_pq_.a', '_pq_.b']])
})

test('what the client builders write is read back', () => {
  assert.equal(statements.parseQuery(bodyOf(messages.query('select 1'))), { sql: 'select 1' })
  assert.equal(
    statements.parseParse(bodyOf(messages.parse('s', 'select $1', [25, 4_294_967_295]))),
    { name: 's', sql: 'select $1', types: [25, 4_294_967_295] }
  )
  assert.equal(statements.parseBind(bodyOf(messages.bind('p', 's', ['ä', null, '']))), {
    portal: 'p', statement: 's', formats: [], values: [Buffer.from('ä'), null, Buffer.alloc(0)],
    complete: true, resultFormats: []
  })
  assert.equal(statements.parseExecute(bodyOf(messages.execute('p', 7))), { portal: 'p', rowsMax: 7 })
  assert.equal(statements.parseNamed(bodyOf(messages.describe('S', 's'))), { kind: 'statement', name: 's' })
  const first = messages.saslInitialResponse('SCRAM-SHA-256', Buffer.from('n,,'))
  const { mechanism, data } = statements.parseSaslInitialResponse(bodyOf(first))
  assert.equal([mechanism, data], ['SCRAM-SHA-256', Buffer.from('n,,')])
})

test('a bind in binary keeps its formats, for each value or for all', () => {
  const body = Buffer.from('0000' + '0001' + '0001' + '0002' + '0000000100' + 'ffffffff' + '0000', 'hex')
  const { formats, values } = statements.parseBind(body)
  assert.equal(values, [Buffer.alloc(1), null])
  assert.equal([0, 1].map(index => statements.formatOf(formats, index)), [1, 1])
  assert.equal([0, 1, 2].map(index => statements.formatOf([0, 1], index)), [0, 1, 0])
})

test('a function call is read with its arguments', () => {
  const body = Buffer.from('000003bb' + '0001' + '0001' + '0001' + '00000002' + '0102' + '0001', 'hex')
  assert.equal(statements.parseFunctionCall(body), {
    oid: 955, formats: [1], values: [Buffer.from([1, 2])], complete: true, resultFormat: 1
  })
})

test('a message that a limit cut is read as far as it goes', () => {
  const long = bodyOf(messages.query('select 1, 2, 3'))
  assert.equal(statements.parseQuery(long.subarray(0, 8), false), { sql: 'select 1' })
  const prepared = bodyOf(messages.parse('name', 'select 1', [25]))
  const { name, sql } = statements.parseParse(prepared.subarray(0, 11), false)
  assert.equal([name, sql], ['name', 'select'])
  const bound = bodyOf(messages.bind('', 's', ['first', 'second']))
  for (let bytes = 0; bytes < bound.length; bytes++) {
    const { complete, values } = statements.parseBind(bound.subarray(0, bytes), false)
    assert.is(complete, false)
    assert.ok(values.every((value, index) => value?.toString() === ['first', 'second'][index]))
  }
  const error = { severity: 'ERROR', sqlstate: '42601', message: 'a long text' }
  const report = bodyOf(messages.errorResponse(error))
  const { sqlstate, message } = parsers.parseReport(report.subarray(0, report.length - 7), false)
  assert.equal([sqlstate, message], ['42601', 'a long'])
})

test('a command tag says how many rows it touched, if it does', () => {
  const rowsOf = (tag: string): number | undefined =>
    parsers.parseCommandComplete(Buffer.from(`${tag}\0`)).rows
  assert.equal(['INSERT 0 5', 'SELECT 12', 'COPY 0', 'BEGIN'].map(rowsOf), [5, 12, 0, undefined])
  assert.is(rowsOf(`SELECT ${'9'.repeat(40)}`), undefined)
})

test('rows and their description are read', () => {
  const field = (name: string): string =>
    Buffer.from(`${name}\0`).toString('hex') + '00000000000000000019ffffffffffff0000'
  const columns = parsers.parseRowDescription(Buffer.from(`0002${field('a')}${field('bc')}`, 'hex'))
  assert.equal(columns, [{ name: 'a', typeOid: 25, format: 0 }, { name: 'bc', typeOid: 25, format: 0 }])
  assert.equal(parsers.parseDataRow(Buffer.from('000200000001' + '61' + 'ffffffff', 'hex'), 2), ['a', null])
  const copy = Buffer.from('01000200010001', 'hex')
  assert.equal(parsers.parseCopyResponse(copy), { binary: true, columns: 2 })
  const notification = Buffer.concat([Buffer.from('0000002a', 'hex'), Buffer.from('channel\0payload\0')])
  assert.equal(parsers.parseNotification(notification), { pid: 42, channel: 'channel', payload: 'payload' })
})

test('an error text is cut, and an SQLSTATE that is none is replaced', () => {
  const fields = Buffer.from(`SFATAL\0C${'x'.repeat(5000)}\0M${'y'.repeat(50_000)}\0\0`)
  const { sqlstate, message } = parsers.parseReport(fields)
  assert.equal([sqlstate, message.length], ['XX000', parsers.reportTextMax])
})

const lies: readonly (readonly [string, string, (body: Buffer) => unknown])[] = [
  ['an error without anything', '', parsers.parseReport],
  ['an error whose field has no terminator', '5341', parsers.parseReport],
  ['an error without its last terminator', '534100', parsers.parseReport],
  ['an error with bytes behind its terminator', '53410000ff', parsers.parseReport],
  ['an error with 100 fields', '534100'.repeat(100) + '00', parsers.parseReport],
  ['a login request of two bytes', '0000', parsers.parseAuthentication],
  ['a list of mechanisms without its end', '0000000a534300', parsers.parseAuthentication],
  ['a list of 100 mechanisms', '0000000a' + '5300'.repeat(100) + '00', parsers.parseAuthentication],
  ['a ready-for-query without status', '', parsers.parseReadyForQuery],
  ['a ready-for-query with status X', '58', parsers.parseReadyForQuery],
  ['a ready-for-query of two bytes', '4949', parsers.parseReadyForQuery],
  ['a cancel key of three bytes', '00000001000000', parsers.parseBackendKeyData],
  ['a cancel key of 257 bytes', '00000001' + '00'.repeat(257), parsers.parseBackendKeyData],
  ['32,767 columns in six bytes', '7fff00000000', parsers.parseRowDescription],
  ['65,535 columns in nothing', 'ffff', parsers.parseRowDescription],
  ['a column whose name does not end', '0001' + '61'.repeat(40), parsers.parseRowDescription],
  ['a row of 65,535 values in nothing', 'ffff', body => parsers.parseDataRow(body, 65_535)],
  ['a row with another number of values', '000100000000', body => parsers.parseDataRow(body, 2)],
  ['a value of length -2', '0001fffffffe', body => parsers.parseDataRow(body, 1)],
  ['a value of 2 GiB', '00017fffffff61', body => parsers.parseDataRow(body, 1)],
  ['a row with bytes to spare', '0001ffffffff00', body => parsers.parseDataRow(body, 1)],
  ['a command tag without terminator', '53454c454354', parsers.parseCommandComplete],
  ['a parameter without value', '6100', parsers.parseParameterStatus],
  ['2^32-1 protocol options', '00030000ffffffff', parsers.parseNegotiateProtocolVersion],
  ['a COPY of 65,535 columns in nothing', '00ffff', parsers.parseCopyResponse],
  ['a notification without payload', '000000016100', parsers.parseNotification],
  ['a query without terminator', '61', statements.parseQuery],
  ['a query with bytes behind its terminator', '610062', statements.parseQuery],
  ['65,535 parameter types in nothing', '0000ffff', statements.parseParse],
  ['65,535 values in nothing', '00000000ffff', statements.parseBind],
  ['65,535 formats in nothing', '0000ffff', statements.parseBind],
  ['a close of neither statement nor portal', '7800', statements.parseNamed],
  ['a login message without data', '5300ffffffff', statements.parseSaslInitialResponse],
  ['a login message of 2 GiB', '53007fffffff', statements.parseSaslInitialResponse],
  ['a password without terminator', '61', statements.parsePassword],
  ['a password that is not UTF-8', 'c027ff00', statements.parsePassword]
]

for (const [name, hex, read] of lies) {
  test(`${name} is refused`, () => assertRefused(() => read(Buffer.from(hex, 'hex'))))
}

test('a zero byte or a lone surrogate never reaches the wire', () => {
  assertRefused(() => messages.query('select 1\0; drop'))
  assertRefused(() => messages.query("select '\ud800'"))
  assertRefused(() => messages.bind('', '', ['a\0b']))
  assertRefused(() => messages.startupMessage([['user', 'a\0database\0b']]))
  assertRefused(() => messages.startupMessage([['', 'x']]))
  assertRefused(() => messages.bind('', '', Array.from({ length: 65_536 }, () => 'x')))
})

test('an error of ours reaches the client even when it quotes hostile text', () => {
  const report = { severity: 'ERROR', sqlstate: '58000', message: 'a\0b\ud800c' }
  assert.is(parsers.parseReport(bodyOf(messages.errorResponse(report))).message, 'ab\ufffdc')
})

test('requests without a tag are what PostgreSQL expects', () => {
  assert.is(messages.sslRequest().toString('hex'), '0000000804d2162f')
  const cancel = messages.cancelRequest(1, Buffer.from('01020304', 'hex'))
  assert.is(cancel.toString('hex'), '0000001004d2162e0000000101020304')
  assert.is(messages.startupMessage([['user', 'a']]).toString('hex'), '00000010000300007573657200610000')
})

test.run()
