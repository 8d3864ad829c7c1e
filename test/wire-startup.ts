// The first packet of a client, in every form that clients send and some that attackers do, and the sorting
// of what it asks for: nothing outside the allow-list passes, however it is spelled.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WireError } from '../src/wire/error.ts'
import { cancelRequest, sslRequest, startupMessage } from '../src/wire/postgres/messages.ts'
import {
  allowedSettings, classifyFirstPacket, parseOptions, sortStartup, splitOptions, startupBytesMax
} from '../src/wire/postgres/startup.ts'

function assertRefused(bytes: Buffer): void {
  assert.throws(() => classifyFirstPacket(bytes), (thrown: unknown) => thrown instanceof WireError)
}

function sorted(parameters: Record<string, string>): ReturnType<typeof sortStartup> {
  return sortStartup(new Map(Object.entries(parameters)))
}

const ordinary = startupMessage([
  ['user', 'alice+orders'], ['database', 'orders'], ['application_name', 'psql']
])

test('a startup packet is told from an incomplete one at every byte', () => {
  for (let bytes = 0; bytes < ordinary.length; bytes++) {
    assert.is(classifyFirstPacket(ordinary.subarray(0, bytes)), undefined)
  }
  const packet = classifyFirstPacket(Buffer.concat([ordinary, Buffer.from('next')]))
  assert.is(packet?.kind, 'startup')
  if (packet?.kind !== 'startup') return
  assert.equal([packet.size, packet.minor], [ordinary.length, 0])
  assert.equal([...packet.parameters], [
    ['user', 'alice+orders'], ['database', 'orders'], ['application_name', 'psql']
  ])
})

test('requests for TLS, for GSS encryption and for a cancel are known, and direct TLS', () => {
  assert.equal(classifyFirstPacket(sslRequest()), { kind: 'ssl', size: 8 })
  assert.equal(classifyFirstPacket(Buffer.from('0000000804d21630', 'hex')), { kind: 'gssenc', size: 8 })
  const key = Buffer.alloc(4, 9)
  assert.equal(classifyFirstPacket(cancelRequest(42, key)), { kind: 'cancel', size: 16, pid: 42, key })
  const longKey = Buffer.alloc(256, 9)
  const long = { kind: 'cancel', size: 268, pid: -1, key: longKey }
  assert.equal(classifyFirstPacket(cancelRequest(-1, longKey)), long)
  assert.equal(classifyFirstPacket(Buffer.from('16030100', 'hex')), { kind: 'direct-tls' })
})

test('protocol 3.2 and its options are reported, for the answer that gives way', () => {
  const packet = classifyFirstPacket(startupMessage([['user', 'a'], ['_pq_.x', '1'], ['_pq_.y', '']], 2))
  assert.ok(packet?.kind === 'startup')
  assert.equal([packet.minor, packet.protocolOptions], [2, ['_pq_.x', '_pq_.y']])
  assert.equal([...packet.parameters.keys()], ['user'])
})

const strangers: readonly (readonly [string, string | Buffer])[] = [
  ['an HTTP client', Buffer.from('GET / HTTP/1.1\r\n')],
  ['an SSH client', Buffer.from('SSH-2.0-x\r\n')],
  ['length 0', '00000000'],
  ['length 7', '00000007'],
  ['length 10,001', '00002711'],
  ['length 2^31-1', '7fffffff'],
  ['length 2^32-1', 'ffffffff'],
  ['protocol 1', '0000000900010000' + '00'],
  ['protocol 2', '0000000900020000' + '00'],
  ['protocol 4', '0000000900040000' + '00'],
  ['a startup packet of eight bytes', '0000000800030000'],
  ['a startup packet without terminator', '0000000a00030000' + '6161'],
  ['a startup packet that ends after a name', '0000000e00030000' + '757365720000'],
  ['bytes behind the terminator', '0000000b00030000' + '000000'],
  ['a name that is not UTF-8', '0000001000030000' + '7573657200ff0000'],
  ['a request for TLS with a body', '0000000904d2162f00'],
  ['a cancel request without key', '0000000c04d2162e' + '00000001'],
  ['a cancel request with a key of 257 bytes', '0000010d04d2162e' + '00'.repeat(261)],
  ['two users', startupMessage([['user', 'a'], ['user', 'b']])],
  ['two databases', startupMessage([['user', 'a'], ['database', 'x'], ['database', 'y']])],
  ['two replications', startupMessage([['user', 'a'], ['replication', '0'], ['replication', '1']])]
]

for (const [name, bytes] of strangers) {
  const packet = typeof bytes === 'string' ? Buffer.from(bytes, 'hex') : bytes
  test(`${name} is refused`, () => assertRefused(packet))
}

test('a packet of the largest size is read, one byte more is refused at its length', () => {
  const fill = (bytes: number): Buffer => startupMessage([['user', 'x'.repeat(bytes - 15)]])
  assert.is(fill(startupBytesMax).length, startupBytesMax)
  assert.is(classifyFirstPacket(fill(startupBytesMax))?.kind, 'startup')
  assertRefused(fill(startupBytesMax + 1).subarray(0, 4))
})

test('options are split as the server does it', () => {
  assert.equal(splitOptions('  -c a=b\t--c-d=e\n'), ['-c', 'a=b', '--c-d=e'])
  assert.equal(splitOptions('-c search_path=a\\ b,\\\\c'), ['-c', 'search_path=a b,\\c'])
  assert.equal(splitOptions('\\'), [''])
  assert.equal(splitOptions(' '), [])
  assert.equal(parseOptions('-c a=b -cc=d --e-f=g=h -c'), [
    { name: 'a', value: 'b' }, { name: 'c', value: 'd' }, { name: 'e_f', value: 'g=h' },
    { name: '-c', value: undefined }
  ])
})

test('settings of common clients pass under their proper names, those in options too', () => {
  const { settings, refused, user, database } = sorted({
    user: 'a', database: 'd', client_encoding: 'UTF8', datestyle: 'ISO, MDY', TIMEZONE: 'UTC',
    application_name: 'pgjdbc',
    options: '-c intervalstyle=postgres_verbose -c geqo=off --statement-timeout=5s'
  })
  assert.equal(refused, [])
  assert.equal([user, database], ['a', 'd'])
  assert.equal(Object.fromEntries(settings), {
    IntervalStyle: 'postgres_verbose', geqo: 'off', statement_timeout: '5s', client_encoding: 'UTF8',
    DateStyle: 'ISO, MDY', TimeZone: 'UTC', application_name: 'pgjdbc'
  })
  assert.is(new Set(allowedSettings.map(name => name.toLowerCase())).size, allowedSettings.length)
})

test('a parameter overrules the option of the same name', () => {
  const { settings } = sorted({ application_name: 'parameter', options: '-c Application_Name=option' })
  assert.equal([...settings], [['application_name', 'parameter']])
})

const tricks: readonly (readonly [Record<string, string>, readonly string[]])[] = [
  [{ role: 'postgres' }, ['role']],
  [{ session_authorization: 'postgres' }, ['session_authorization']],
  [{ options: '-c role=postgres' }, ['role']],
  [{ options: '-crole=postgres' }, ['role']],
  [{ options: '--role=postgres' }, ['role']],
  [{ options: '--session-authorization=x' }, ['session_authorization']],
  [{ options: '-c ROLE=postgres' }, ['ROLE']],
  [{ options: '-c\\ role=postgres' }, [' role']],
  [{ options: '-c local_preload_libraries=x -c search_path=y' }, ['local_preload_libraries']],
  [{ options: '-c=' }, ['=']],
  [{ options: '-c' }, ['-c']],
  [{ options: '-c =x' }, ['=x']],
  [{ options: '--=x' }, ['=x']],
  [{ options: '--' }, ['--']],
  [{ options: '-F -d 5' }, ['-F', '-d', '5']],
  [{ options: '-Fc application_name=x' }, ['-Fc', 'application_name=x']],
  [{ options: '-c application_name' }, ['application_name']],
  [{ options: 'application_name=x' }, ['application_name=x']],
  [{ 'application_name ': 'x' }, ['application_name ']],
  [{ 'client\u0000': 'x' }, ['client\u0000']],
  [{ __proto__x: 'y', constructor: 'z' }, ['__proto__x', 'constructor']]
]

for (const [parameters, refused] of tricks) {
  test(`${JSON.stringify(parameters)} does not pass`, () => assert.equal(sorted(parameters).refused, refused))
}

test('64 KiB of `-c` are read in no time, and named in short', () => {
  const started = performance.now()
  const { refused } = sorted({ options: '-c '.repeat(21_845), ['x'.repeat(9000)]: '' })
  assert.ok(refused.length > 0 && refused.every(name => name.length <= 64))
  assert.ok(performance.now() - started < 1000)
})

test('replication is told apart from its absence as the server does it', () => {
  const of = (value: string): string => sorted({ replication: value }).replication
  assert.equal(['database', 'true', 'ON', 'y', '1', 'tr'].map(of), [
    'database', 'physical', 'physical', 'physical', 'physical', 'physical'
  ])
  assert.equal(['false', 'off', 'of', 'no', '0', 'n'].map(of), Array.from({ length: 6 }, () => 'none'))
  assert.equal(['o', '', '2', 'DATABASE', 'truex', ' on'].map(of), Array.from({ length: 6 }, () => 'unclear'))
  assert.is(sorted({}).replication, 'none')
})

test.run()
