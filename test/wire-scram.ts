// SCRAM-SHA-256, both ends against each other, against the vectors of RFC 7677, and against node-postgres as
// a client that others wrote. A peer that is one byte off learns nothing and gets nowhere.
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:net'
import pg from 'pg'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WireError } from '../src/wire/error.ts'
import { tlsServerEndPoint } from '../src/wire/postgres/channel-binding.ts'
import { errorResponse } from '../src/wire/postgres/messages.ts'
import { rememberedKeys } from '../src/wire/postgres/remembered-keys.ts'
import { saslPrepare } from '../src/wire/postgres/saslprep.ts'
import {
  chooseMechanism, ScramClient, scramSha256, scramSha256Plus, ScramServer, type ScramSecret
} from '../src/wire/postgres/scram.ts'
import {
  deriveKeys, iterationsMax, makeVerifier, mockVerifier, parseVerifier, randomKeys, verifierFromKeys,
  verifyPassword
} from '../src/wire/postgres/verifier.ts'
import { certificateFor, Peer } from './peers/postgres-target.ts'

function isWireError(thrown: unknown): boolean {
  return thrown instanceof WireError
}

async function assertRefusedLater(work: Promise<unknown>): Promise<void> {
  const thrown: unknown = await work.then(() => undefined, (reason: unknown) => reason)
  assert.ok(isWireError(thrown), String(thrown))
}

/** Runs both ends; true when both are satisfied. */
async function meet(
  secret: ScramSecret, verifier: string, { client, server }: { client?: Buffer, server?: Buffer } = {}
): Promise<boolean> {
  const there = new ScramServer({ verifier, channelBinding: server })
  const mechanism = chooseMechanism(there.mechanisms, client)!
  const here = new ScramClient({ mechanism, channelBinding: client, secret })
  const final = there.finish(await here.answer(there.begin(here.mechanism, here.first)))
  return final !== undefined && here.verify(final)
}

const password: ScramSecret = { kind: 'password', password: 'pencil' }
const binding = randomBytes(32)

test('the exchange of RFC 7677 is accepted and answered with its signature', async () => {
  const salt = Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64')
  const verifier = await makeVerifier('pencil', { salt, iterations: 4096 })
  const server = new ScramServer({ verifier, nonce: '%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0' })
  const first = server.begin(scramSha256, Buffer.from('n,,n=user,r=rOprNGfwEbeRWgbNEkqO'))
  const nonce = 'rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0'
  assert.is(first.toString(), `r=${nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096`)
  const proof = 'dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ='
  const final = server.finish(Buffer.from(`c=biws,r=${nonce},p=${proof}`))
  assert.is(final?.toString(), 'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=')
})

test('a password and its verifier meet, another password does not', async () => {
  const verifier = await makeVerifier('pencil')
  assert.match(verifier, /^SCRAM-SHA-256\$4096:[^$]{24}\$[^:]{44}:.{44}$/)
  assert.is(await meet(password, verifier), true)
  assert.is(await meet({ kind: 'password', password: 'pencils' }, verifier), false)
  assert.is(await verifyPassword('pencil', verifier), true)
  assert.is(await verifyPassword('Pencil', verifier), false)
})

test('random keys and their one-iteration verifier meet, other keys do not', async () => {
  const keys = randomKeys()
  const verifier = verifierFromKeys(keys, { iterations: 1 })
  assert.is(parseVerifier(verifier).iterations, 1)
  assert.is(await meet({ kind: 'scram-keys', ...keys }, verifier), true)
  assert.is(await meet({ kind: 'scram-keys', ...randomKeys() }, verifier), false)
  // The right proof, but a server that does not have the account's ServerKey.
  const stranger = { ...keys, serverKey: randomBytes(32) }
  assert.is(await meet({ kind: 'scram-keys', ...stranger }, verifier), false)
})

test('a channel is bound when both ends have one, and only to the same certificate', async () => {
  const verifier = await makeVerifier('pencil', { iterations: 10 })
  assert.is(await meet(password, verifier, { client: binding, server: binding }), true)
  await assertRefusedLater(meet(password, verifier, { client: randomBytes(32), server: binding }))
  assert.is(chooseMechanism([scramSha256Plus, scramSha256], binding), scramSha256Plus)
  assert.is(chooseMechanism([scramSha256Plus, scramSha256], undefined), scramSha256)
  assert.is(chooseMechanism([scramSha256Plus], undefined), undefined)
  assert.is(chooseMechanism(['OAUTHBEARER'], binding), undefined)
})

test('a client that was told that PLUS is not offered is refused where it was', async () => {
  const verifier = await makeVerifier('pencil', { iterations: 10 })
  // Between the two somebody took PLUS from the list.
  const client = new ScramClient({ mechanism: scramSha256, channelBinding: binding, secret: password })
  assert.match(client.first.toString(), /^y,,/)
  const server = new ScramServer({ verifier, channelBinding: binding })
  assert.throws(() => server.begin(scramSha256, client.first), isWireError)
  assert.is(await meet(password, verifier, { client: binding }), true, 'an honest server without PLUS')
})

const firsts: readonly (readonly [string, string, string, boolean])[] = [
  ['nothing', scramSha256, '', false],
  ['no user and no nonce', scramSha256, 'n,,', false],
  ['an empty nonce', scramSha256, 'n,,n=,r=', false],
  ['a nonce with a blank', scramSha256, 'n,,n=,r=a b', false],
  ['a nonce of 2,000 characters', scramSha256, `n,,n=,r=${'x'.repeat(2000)}`, false],
  ['a message of 5,000 bytes', scramSha256, `n,,n=${'x'.repeat(5000)},r=abc`, false],
  ['a zero byte', scramSha256, 'n,,n=a\0b,r=abc', false],
  ['another identity', scramSha256, 'n,a=root,n=,r=abc', false],
  ['a mandatory extension', scramSha256, 'n,,m=1,n=,r=abc', false],
  ['an unknown mechanism', 'SCRAM-SHA-1', 'n,,n=,r=abc', false],
  ['PLUS without TLS', scramSha256Plus, 'p=tls-server-end-point,,n=,r=abc', false],
  ['a binding with the plain mechanism', scramSha256, 'p=tls-server-end-point,,n=,r=abc', true],
  ['no binding with PLUS', scramSha256Plus, 'n,,n=,r=abc', true],
  ['another kind of binding', scramSha256Plus, 'p=tls-unique,,n=,r=abc', true]
]

for (const [name, mechanism, first, tls] of firsts) {
  test(`a client that begins with ${name} is refused`, () => {
    const verifier = verifierFromKeys(randomKeys())
    const server = new ScramServer({ verifier, channelBinding: tls ? binding : undefined })
    assert.throws(() => server.begin(mechanism, Buffer.from(first)), isWireError)
  })
}

test('a client that ends with anything but its own channel, nonce and proof is refused', async () => {
  const keys = randomKeys()
  const verifier = verifierFromKeys(keys)
  const changes: readonly ((text: string) => string)[] = [
    text => text.replace('c=biws', 'c=eSws'), text => text.replace('c=biws', 'c='),
    text => text.replace(/r=[^,]+/, 'r=abc'), text => text.replace(/r=([^,]+)/, 'r=$1x'),
    text => text.replace(/p=.*/, 'p='), text => text.replace(/p=.*/, 'p=AAAA'),
    text => text.replace(/p=.*/, 'p=****'), text => text.replace(/,p=.*/, ''), text => `${text},x=y`,
    () => '', text => `x${text}`, text => text.replace('c=', 'm=')
  ]
  for (const change of changes) {
    const server = new ScramServer({ verifier })
    const client = new ScramClient({ mechanism: scramSha256, secret: { kind: 'scram-keys', ...keys } })
    const final = await client.answer(server.begin(client.mechanism, client.first))
    assert.throws(() => server.finish(Buffer.from(change(final.toString()))), isWireError, change.toString())
  }
})

test('every flipped bit of a proof is a refusal, and never an error', async () => {
  const keys = randomKeys()
  const verifier = verifierFromKeys(keys)
  const server = new ScramServer({ verifier })
  const client = new ScramClient({ mechanism: scramSha256, secret: { kind: 'scram-keys', ...keys } })
  const final = (await client.answer(server.begin(client.mechanism, client.first))).toString()
  const [, head, proofText] = /^(.*,p=)(.*)$/.exec(final)!
  for (let bit = 0; bit < 256; bit++) {
    const proof = Buffer.from(proofText!, 'base64')
    proof[bit >> 3]! ^= 1 << (bit & 7)
    assert.is(server.finish(Buffer.from(head! + proof.toString('base64'))), undefined)
  }
  assert.ok(server.finish(Buffer.from(final)))
})

test('the order of the exchange is kept', () => {
  const server = new ScramServer({ verifier: verifierFromKeys(randomKeys()) })
  assert.throws(() => server.finish(Buffer.from('c=biws,r=x,p=x')), isWireError)
  server.begin(scramSha256, Buffer.from('n,,n=,r=abc'))
  assert.throws(() => server.begin(scramSha256, Buffer.from('n,,n=,r=abc')), isWireError)
  const client = new ScramClient({ mechanism: scramSha256, secret: password })
  assert.throws(() => client.verify(Buffer.from('v=AAAA')), isWireError)
})

test('the work that a target may ask for is limited', async () => {
  const client = new ScramClient({ mechanism: scramSha256, secret: password, nonce: 'abc' })
  const challenge = (rounds: number | string): Buffer => Buffer.from(`r=abcdef,s=AAAA,i=${rounds}`)
  const bombs = [iterationsMax + 1, 2_147_483_647, 4_294_967_296, 99_999_999_999]
  for (const rounds of [...bombs, 0, -1, '1e3', '', ' 1']) {
    await assertRefusedLater(client.answer(challenge(rounds)))
  }
  assert.ok(await client.answer(challenge(iterationsMax)))
  const costly = verifierFromKeys(randomKeys(), { iterations: iterationsMax + 1 })
  await assertRefusedLater(verifyPassword('x', costly))
})

test('an unknown user has the same verifier each time, with which nobody can log in', async () => {
  const seed = randomBytes(32)
  const one = mockVerifier(seed, 'ghost')
  assert.is(mockVerifier(seed, 'ghost'), one)
  assert.is.not(mockVerifier(seed, 'other'), one)
  assert.is.not(mockVerifier(randomBytes(32), 'ghost'), one)
  const real = parseVerifier(await makeVerifier('x'))
  const { iterations, salt } = parseVerifier(one)
  assert.equal([iterations, salt.length], [real.iterations, real.salt.length])
  assert.is(await meet(password, one), false)
})

test('a text that is not a verifier is refused', () => {
  const good = verifierFromKeys(randomKeys())
  const bad = [
    '', 'md5abc', 'pencil', good.slice(0, -1), `${good}=`, good.replace('$1:', '$0:'),
    good.replace('$1:', '$:'), good.replace('SHA-256', 'SHA-1'), good.replace('$1:', '$99999999999:'),
    ` ${good}`, `${good}\n`
  ]
  for (const text of bad) assert.throws(() => parseVerifier(text), isWireError, text)
  const short = { clientKey: Buffer.alloc(31), serverKey: Buffer.alloc(32) }
  assert.throws(() => verifierFromKeys(short), isWireError)
})

test('passwords are prepared as RFC 4013 says, and hashed as they are when they may not be', () => {
  const prepared = (text: string): string => saslPrepare(text).toString('utf8')
  const examples = [['I\u00adX', 'IX'], ['user', 'user'], ['USER', 'USER'], ['\u00aa', 'a'], ['\u2168', 'IX']]
  for (const [text, expected] of examples) assert.is(prepared(text!), expected)
  for (const text of ['\u0007', '\u0627\u0031', 'a\u00e4\u0007', '\ue000', '\u200f', '', '\u05d0a']) {
    assert.is(prepared(text), text)
  }
  assert.is(prepared('a\u00a0b\u3000c'), 'a b c')
  assert.is(prepared('u\u0308'), '\u00fc')
  assert.is(prepared('\u05d0\u05d1'), '\u05d0\u05d1')
  const long = '\ufdfa'.repeat(2000)
  assert.is(prepared(long), long, 'one character of this becomes eighteen')
})

/** A minimal certificate: only the algorithm identifier is looked at. */
function certificateWith(algorithm: string): Buffer {
  const element = (tag: string, content: string): string =>
    tag + (content.length / 2).toString(16).padStart(2, '0') + content
  return Buffer.from(element('30', element('30', '0500') + element('30', algorithm) + '030100'), 'hex')
}

test('the hash of a channel binding is that of the signature, MD5 and SHA-1 raised to SHA-256', () => {
  const pss = (digest: string): string => `06092a864886f70d01010a${digest}`
  const cases: readonly (readonly [string, string | undefined])[] = [
    ['06092a864886f70d0101040500', 'sha256'], ['06092a864886f70d0101050500', 'sha256'],
    ['06092a864886f70d01010b0500', 'sha256'], ['06092a864886f70d01010c0500', 'sha384'],
    ['06092a864886f70d01010d0500', 'sha512'], ['06082a8648ce3d040303', 'sha384'],
    ['06082a8648ce3d040304', 'sha512'], ['06032b6570', undefined],
    [pss('300fa00d300b0609608648016503040202'), 'sha384'], [pss('3000'), 'sha256'],
    [pss('300da00b300906052b0e03021a0500'), 'sha256']
  ]
  for (const [algorithm, hash] of cases) {
    const certificate = certificateWith(algorithm)
    const expected = hash === undefined ? undefined : createHash(hash).update(certificate).digest()
    assert.equal(tlsServerEndPoint(certificate), expected, algorithm)
  }
  for (const text of ['', '30', '3080', '308400000000', '30820100', '020101', '3003020101']) {
    assert.throws(() => tlsServerEndPoint(Buffer.from(text, 'hex')), isWireError, text)
  }
})

/** Logs node-postgres in at our end; what it says when it is refused. */
async function nodePostgresLogin(given: string, tls: boolean): Promise<string> {
  const verifier = await makeVerifier('p\u00e4ssw\u00f6rd', { iterations: 100 })
  const certificate = certificateFor()
  let mechanism = ''
  const server = createServer(socket => {
    const peer = new Peer(socket, certificate)
    void (async () => {
      if (tls) await peer.startTls()
      await peer.login(verifier)
      mechanism = peer.mechanism
    })().catch((error: Error) => {
      peer.send(errorResponse({ severity: 'FATAL', sqlstate: '28P01', message: error.message }))
      peer.end()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const options = tls ? { ssl: { ca: certificate.certificate }, enableChannelBinding: true } : {}
  const account = { host: '127.0.0.1', port, user: 'u', database: 'd', password: given }
  const client = new pg.Client({ ...account, ...options })
  try {
    await client.connect()
    return mechanism
  } catch (error) {
    return (error as Error).message
  } finally {
    client.end().catch(() => undefined)
    server.close()
  }
}

test('node-postgres logs in at our end, with and without TLS, but not with a wrong password', async () => {
  assert.is(await nodePostgresLogin('p\u00e4ssw\u00f6rd', false), scramSha256)
  assert.is(await nodePostgresLogin('pa\u0308sswo\u0308rd', false), scramSha256, 'other normal form')
  assert.is(await nodePostgresLogin('p\u00e4ssw\u00f6rd', true), scramSha256Plus)
  assert.is(await nodePostgresLogin('passwort', false), 'the client gave a wrong proof')
})

test('the keys of a password are derived once for each salt and number of iterations', async () => {
  const salt = randomBytes(16)
  const [first, atOnce] = [rememberedKeys('secret', salt, 4096), rememberedKeys('secret', salt, 4096)]
  assert.is(await first, await atOnce)
  assert.is(await rememberedKeys('secret', Buffer.from(salt), 4096), await first)
  const derived = await deriveKeys('secret', salt, 4096)
  assert.equal((await first).clientKey, derived.clientKey)
  for (const other of [
    rememberedKeys('secret', salt, 4097), rememberedKeys('secret', randomBytes(16), 4096),
    rememberedKeys('Secret', salt, 4096)
  ]) assert.not.equal((await other).clientKey, derived.clientKey)
  // A target that draws a new salt at each login does not make us keep them all.
  for (let index = 0; index < 300; index++) await rememberedKeys('secret', randomBytes(8), 1)
  assert.is.not(await rememberedKeys('secret', salt, 4096), await first)
})

test.run()
