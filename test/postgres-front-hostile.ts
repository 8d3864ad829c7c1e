// Clients that lie, before they are anybody: what a PostgreSQL client may not say is answered with a coded
// refusal and a closed connection, and no connection to the target is ever opened for it (R8, R11). Each case
// is a line of bytes; the target is one that would count a connection.
import { randomBytes } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  authenticationOk, cancelRequest, frame, query, saslInitialResponse, saslResponse, sslRequest, startupMessage
} from '../src/wire/postgres/messages.ts'
import { startFakeTarget } from './peers/fake-target.ts'
import { startPassThrough } from './peers/pass-through.ts'
import type { PassThrough } from './peers/pass-through.ts'
import { codeOf, rawClient } from './peers/raw-postgres.ts'
import type { RawClient } from './peers/raw-postgres.ts'

const target = await startFakeTarget()
const manyFailures = { loginFailuresPerMinuteMax: 1_000_000, cancelFailuresPerMinuteMax: 1_000_000 }
const front: PassThrough = await startPassThrough({
  target: { host: '127.0.0.1', port: target.port, tls: { mode: 'disable' } },
  role: 'injected', password: 'fake-target', iterations: 1, listen: { limits: manyFailures }
})

const word = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
const packet = (code: number, ...parts: readonly (Buffer | string)[]): Buffer => {
  const body = Buffer.concat([word(code), ...parts.map(part => Buffer.from(part))])
  return Buffer.concat([word(body.length + 4), body])
}
const bytes = (hex: string): Buffer => Buffer.from(hex, 'hex')
const v3 = 196608
const startup = startupMessage([['user', 'alice'], ['database', 'app']])
const options = (text: string): Buffer => startupMessage([['user', 'alice'], ['options', text]])
const setting = (name: string, value: string = 'x'): Buffer =>
  startupMessage([['user', 'alice'], [name, value]])
const password = frame('p', Buffer.from('hello\0'))

type Case = readonly [name: string, bytes: Buffer, code: string]

/** Said at once, in clear. */
const openings: readonly Case[] = [
  ['an HTTP request', Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'), 'protocol-violation'],
  ['an SSH banner', Buffer.from('SSH-2.0-OpenSSH_9.2\r\n'), 'protocol-violation'],
  ['a length of zero', Buffer.concat([word(0), word(v3)]), 'protocol-violation'],
  ['a length below its own words', Buffer.concat([word(7), word(v3)]), 'protocol-violation'],
  ['a length of 10,001', word(10_001), 'protocol-violation'],
  ['a length of 2^31 - 1', word(0x7fffffff), 'protocol-violation'],
  ['a negative length', word(0xffffffff), 'protocol-violation'],
  ['protocol version 2', packet(131072, 'user\0alice\0'), 'protocol-violation'],
  ['protocol version 4', packet(4 << 16, 'user\0alice\0\0'), 'protocol-violation'],
  ['a code next to that of TLS', packet(80877105), 'protocol-violation'],
  ['a request for TLS with a body', packet(80877103, 'x'), 'protocol-violation'],
  ['a request for GSS with a body', packet(80877104, 'xxxx'), 'protocol-violation'],
  ['bytes behind a request for TLS', Buffer.concat([sslRequest(), startup]), 'protocol-violation'],
  ['one byte behind a request for TLS', Buffer.concat([sslRequest(), Buffer.alloc(1)]), 'protocol-violation'],
  ['two requests for TLS at once', Buffer.concat([sslRequest(), sslRequest()]), 'protocol-violation'],
  ['bytes behind a request for GSS', Buffer.concat([packet(80877104), startup]), 'protocol-violation'],
  ['a startup packet without a terminator', packet(v3, 'user\0alice\0'), 'protocol-violation'],
  ['a startup packet that ends in a name', packet(v3, 'user\0alice\0database'), 'protocol-violation'],
  ['a startup packet that ends in a value', packet(v3, 'user\0alice\0database\0'), 'protocol-violation'],
  ['a startup packet with bytes behind its terminator', packet(v3, 'user\0a\0\0junk'), 'protocol-violation'],
  ['an empty startup packet', packet(v3, '\0'), 'protocol-violation'],
  ['a startup packet without a user', packet(v3, 'database\0app\0\0'), 'protocol-violation'],
  ['an empty user name', packet(v3, 'user\0\0database\0app\0\0'), 'protocol-violation'],
  ['two user names', packet(v3, 'user\0alice\0user\0root\0\0'), 'protocol-violation'],
  ['two databases', packet(v3, 'user\0alice\0database\0a\0database\0b\0\0'), 'protocol-violation'],
  ['a user name that is not UTF-8', packet(v3, 'user\0', bytes('c027'), '\0\0'), 'protocol-violation'],
  ['a lone surrogate in UTF-8', packet(v3, 'user\0', bytes('eda080'), '\0\0'), 'protocol-violation'],
  ['a query behind the startup packet', Buffer.concat([startup, query('SELECT 1')]), 'protocol-violation'],
  ['a second startup packet at once', Buffer.concat([startup, startup]), 'protocol-violation'],
  ['replication with an odd value', setting('replication', 'perhaps'), 'protocol-violation'],
  ['another role by option', options('-c role=postgres'), 'option-refused'],
  ['another role by long option', options('--role=postgres'), 'option-refused'],
  ['another role with a backslash', options('-c\\ role=postgres'), 'option-refused'],
  ['another session authorization', options('-c session_authorization=postgres'), 'option-refused'],
  ['a library to load', options('-c local_preload_libraries=evil'), 'option-refused'],
  ['a library to load, as a setting', setting('session_preload_libraries'), 'option-refused'],
  ['a switch of the server', options('-P'), 'option-refused'],
  ['an option without a value', options('-c'), 'option-refused'],
  ['logging switched off', options('-c log_statement=none'), 'option-refused'],
  ['row security switched off', setting('row_security', 'off'), 'option-refused'],
  ['a setting nobody knows', setting('no_such_setting'), 'option-refused'],
  ['a cancel request without a key', packet(80877102, word(1)), 'protocol-violation'],
  ['a cancel request with a long key', packet(80877102, word(1), randomBytes(257)), 'protocol-violation']
]

/** Said in the place of the first SCRAM message. */
const first = (data: string, mechanism: string = 'SCRAM-SHA-256'): Buffer =>
  saslInitialResponse(mechanism, Buffer.from(data))
const mechanismName = Buffer.from('SCRAM-SHA-256\0')
const scramOpenings: readonly Case[] = [
  ['a password in clear', password, 'protocol-violation'],
  ['nothing at all', frame('p'), 'protocol-violation'],
  ['a length below 4', Buffer.from([0x70, 0, 0, 0, 3]), 'protocol-violation'],
  ['a length of 64 KiB', Buffer.concat([Buffer.from('p'), word(65_536)]), 'protocol-violation'],
  ['a length of 4 GiB', Buffer.concat([Buffer.from('p'), word(0xffffffff)]), 'protocol-violation'],
  ['a query', query('SELECT 1'), 'protocol-violation'],
  ['a Terminate', frame('X'), 'protocol-violation'],
  ['AuthenticationOk, as if it were a server', authenticationOk(), 'protocol-violation'],
  ['a second startup packet', startup, 'protocol-violation'],
  ['a request for TLS', sslRequest(), 'protocol-violation'],
  ['a cancel request', cancelRequest(1, Buffer.alloc(4)), 'protocol-violation'],
  ['a mechanism that was not offered', first('n,,n=,r=abc', 'SCRAM-SHA-1'), 'protocol-violation'],
  ['MD5 as a mechanism', first('n,,n=,r=abc', 'MD5'), 'protocol-violation'],
  ['PLUS without TLS', first('p=tls-server-end-point,,n=,r=abc', 'SCRAM-SHA-256-PLUS'), 'protocol-violation'],
  ['channel binding without PLUS', first('p=tls-server-end-point,,n=,r=abc'), 'protocol-violation'],
  ['no gs2 header', first('n=,r=abc'), 'protocol-violation'],
  ['a login for somebody else', first('n,a=root,n=,r=abc'), 'protocol-violation'],
  ['no nonce', first('n,,n='), 'protocol-violation'],
  ['an empty nonce', first('n,,n=,r='), 'protocol-violation'],
  ['a nonce with control characters', first('n,,n=,r=\x01\x02'), 'protocol-violation'],
  ['a nonce of 5,000 characters', first(`n,,n=,r=${'x'.repeat(5000)}`), 'protocol-violation'],
  ['an extension that must be understood', first('n,,m=x,n=,r=abc'), 'protocol-violation'],
  ['a zero byte', first('n,,n=\0,r=abc'), 'protocol-violation'],
  ['a message without data', frame('p', mechanismName, word(0xffffffff)), 'protocol-violation'],
  [
    'a length beyond the message', frame('p', mechanismName, word(1000), Buffer.from('n,,')),
    'protocol-violation'
  ],
  ['random bytes', frame('p', randomBytes(200)), 'protocol-violation']
]

/** Said in the place of the final SCRAM message; `%` is the nonce of the challenge. */
const zeros = Buffer.alloc(32).toString('base64')
const scramFinals: readonly (readonly [string, string | Buffer, string])[] = [
  ['a proof of zeros', `c=biws,r=%,p=${zeros}`, 'auth-failed'],
  ['a short proof', 'c=biws,r=%,p=AAAA', 'protocol-violation'],
  ['no proof', 'c=biws,r=%', 'protocol-violation'],
  ['a proof that is not base64', `c=biws,r=%,p=${zeros.replace('A', '!')}`, 'protocol-violation'],
  ['another nonce', `c=biws,r=other,p=${zeros}`, 'protocol-violation'],
  ['only our own half of the nonce', `c=biws,r=abc,p=${zeros}`, 'protocol-violation'],
  ['another channel binding', `c=eSws,r=%,p=${zeros}`, 'protocol-violation'],
  ['no channel binding', `r=%,p=${zeros}`, 'protocol-violation'],
  ['a second first message', first('n,,n=,r=abc'), 'protocol-violation'],
  ['a query', query('SELECT 1'), 'protocol-violation'],
  ['a startup packet', startup, 'protocol-violation'],
  ['random bytes', frame('p', randomBytes(100)), 'protocol-violation'],
  ['nothing', frame('p'), 'protocol-violation']
]

async function refused(client: RawClient, code: string, name: string): Promise<void> {
  const report = await client.refusal()
  assert.is(codeOf(report), code, `${name}: ${report?.message ?? 'closed without a word'}`)
  assert.is(report?.severity, 'FATAL', name)
}

async function toScramFinal(client: RawClient): Promise<string> {
  client.send(startup)
  await client.message()
  client.send(first('n,,n=,r=abc'))
  const challenge = await client.message()
  return /r=([^,]+)/.exec(challenge!.body.toString('latin1'))![1]!
}

test('what is no startup packet, or one that asks for too much, is refused with its code', async () => {
  assert.ok(openings.length + scramOpenings.length + scramFinals.length >= 60)
  for (const [name, bytes, code] of openings) {
    await refused((await rawClient(front.port)).send(bytes), code, name)
  }
})

test('the same within TLS, where a request for encryption is one too many', async () => {
  for (const [name, bytes, code] of openings) {
    const inner = (await (await rawClient(front.port)).startTls()).send(bytes)
    await refused(inner, code, `TLS: ${name}`)
  }
  for (const [name, bytes] of [['TLS', sslRequest()], ['GSS', packet(80877104)]] as const) {
    await refused((await (await rawClient(front.port)).startTls()).send(bytes), 'protocol-violation', name)
  }
})

test('every packet is judged the same when it comes byte by byte', async () => {
  for (const [name, bytes, code] of openings.filter(([, each]) => each.length < 40)) {
    // What stands behind a request for encryption is another packet when it does not come with it.
    if (name.includes('behind a request') || name.includes('at once')) continue
    const client = await rawClient(front.port)
    for (const byte of bytes) {
      client.send(Buffer.from([byte]))
      await new Promise(resolve => setImmediate(resolve))
    }
    await refused(client, code, name)
  }
})

test('GSS and TLS are each answered once', async () => {
  const client = await rawClient(front.port)
  client.send(packet(80877104))
  assert.is(await client.byte(), 'N')
  client.send(packet(80877104))
  await refused(client, 'protocol-violation', 'a second GSS')
  const other = await rawClient(front.port)
  other.send(packet(80877104))
  assert.is(await other.byte(), 'N')
  await other.startTls()
  assert.is((await other.send(startup).message())?.tag, 'R')
  other.socket.destroy()
})

test('TLS at once needs the ALPN protocol of PostgreSQL', async () => {
  const good = await rawClient(front.port)
  await good.speakTls(['postgresql'])
  assert.is((await good.send(startup).message())?.tag, 'R')
  good.socket.destroy()
  for (const protocols of [[], ['http/1.1'], ['h2', 'http/1.1']]) {
    const client = await rawClient(front.port)
    const said = await client.speakTls(protocols).then(() => client.send(startup).refusal(), () => undefined)
    // Either the handshake fails or what follows is refused; nobody gets as far as a login.
    assert.ok(said === undefined || codeOf(said) === 'protocol-violation', protocols.join())
    assert.not.ok(client.heard.includes('SCRAM'))
  }
  const late = await rawClient(front.port)
  late.send(packet(80877104))
  await late.byte()
  const spoke = await late.speakTls(['postgresql']).then(() => true, () => false)
  assert.not.ok(spoke)
})

test('junk in the place of a TLS handshake closes the connection and harms nobody', async () => {
  for (const junk of [Buffer.from([0x16, 3, 1, 255, 255]), randomBytes(300), Buffer.alloc(70_000, 0x16)]) {
    const client = await rawClient(front.port)
    client.send(Buffer.concat([Buffer.from([0x16, 0x03, 0x01]), junk]))
    client.socket.end()
    assert.is(await client.refusal(), undefined)
    const asked = (await rawClient(front.port)).send(sslRequest())
    await asked.byte()
    asked.send(junk).socket.end()
    assert.is(await asked.refusal(), undefined)
  }
})

test('what is no SCRAM is refused at its first message', async () => {
  for (const [name, bytes, code] of scramOpenings) {
    const client = (await rawClient(front.port)).send(startup)
    assert.is((await client.message())?.tag, 'R', name)
    await refused(client.send(bytes), code, name)
  }
})

test('what is no SCRAM is refused at its final message, and a wrong proof is a wrong password', async () => {
  for (const [name, said, code] of scramFinals) {
    const client = await rawClient(front.port)
    const nonce = await toScramFinal(client)
    const bytes = typeof said === 'string' ? saslResponse(Buffer.from(said.replace('%', nonce))) : said
    await refused(client.send(bytes), code, name)
  }
})

test('a client that hides that it was offered channel binding is refused', async () => {
  const client = await (await rawClient(front.port)).startTls()
  client.send(startup)
  await client.message()
  await refused(client.send(first('y,,n=,r=abc')), 'protocol-violation', 'downgrade')
})

test('every tag in every phase before the login is refused, and closed', async () => {
  const phases: [string, (client: RawClient) => Promise<unknown>][] = [
    ['startup', async () => undefined],
    ['SCRAM first', client => client.send(startup).message()],
    ['SCRAM final', client => toScramFinal(client)]
  ]
  for (const [phase, reach] of phases) {
    for (let tag = 0; tag < 256; tag++) {
      // TLS at once; it waits for the rest of a hello.
      if (phase === 'startup' && tag === 0x16) continue
      const client = await rawClient(front.port)
      await reach(client)
      const said = Buffer.from([tag, 0, 0, 0, 4, ...phase === 'startup' ? [0, 0, 0, 0] : []])
      await refused(client.send(said), 'protocol-violation', `${phase}, tag ${tag}`)
    }
  }
})

test('an unknown user and a wrong password are the same to whoever asks', async () => {
  const said: string[] = []
  for (const name of ['alice', 'nobody-here']) {
    const client = await rawClient(front.port)
    await client.logIn(name, 'wrong').then(
      () => assert.unreachable('logged in'), (thrown: Error) => said.push(thrown.message))
  }
  assert.is(said[0]!.replace(/[0-9a-f]{6}\]/, ''), said[1]!.replace(/[0-9a-f]{6}\]/, ''))
  assert.match(said[0]!, /authentication failed \[auth-failed/)
})

test('nothing of all this reached the target, and nobody is left in the house', async () => {
  assert.is(target.connections.length, 0)
  assert.is(target.cancels.length, 0)
  // Sockets close in their own time; the runner's deadline is the limit.
  while (front.listener.stats().connections > 0) await new Promise(resolve => setImmediate(resolve))
  assert.equal(front.listener.stats(), { connections: 0, unauthenticated: 0, cancelKeys: 0 })
  assert.ok(front.endings.every(ending => ending.how === 'cut'))
})

test.after(async () => {
  await front.stop()
  await target.stop()
})

test.run()
