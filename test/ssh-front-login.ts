// deadline: 240 s
// Who somebody is, is the key that signed this connection, and nothing that was said before (R10); guessing
// is slow and locks nobody else out (R12); who asks about names learns nothing (R13). Keys, certificates and
// signatures are made by peers/ssh-login.ts; the target counts what reaches it.
import { work } from './peers/work-counter.ts'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { sshFields, sshUint32 } from '../src/wire/ssh/data.ts'
import { handClock } from './peers/raw-postgres.ts'
import {
  certified, ecdsaKey, ed25519Key, fidoKey, loginClient, loginRequest, loginWords, passwordRequest, rsaKey,
  serviceRequest, signedRequest
} from './peers/ssh-login.ts'
import type { CertificateWords, LoginClient, TestKey } from './peers/ssh-login.ts'
import { personPassword, startSshPassThrough } from './peers/ssh-pass-through.ts'
import type { SshPassThrough } from './peers/ssh-pass-through.ts'
import { sshPeer } from './peers/ssh-peer.ts'
import { startSshTarget } from './peers/ssh-target.ts'

const [request, failure, success, keyIsGood] = [
  loginWords.request, loginWords.failure, loginWords.success, loginWords.keyIsGood
]
const target = await startSshTarget()
const [alices, bobs, strangers] = [ed25519Key(), ed25519Key(), ed25519Key()]
const [alicesRsa, alicesEcdsa, alicesFido, untouched] = [rsaKey(), ecdsaKey(), fidoKey(1), fidoKey(0)]
const weakRsa = rsaKey(1024)
const [authority, otherAuthority] = [ed25519Key(), ed25519Key()]
const people = {
  alice: {
    password: personPassword,
    publicKeys: [alices, alicesRsa, alicesEcdsa, alicesFido, untouched, weakRsa].map(({ line }) => line)
  },
  bob: { password: 'bobs', publicKeys: [bobs.line] }
}
const many = { loginFailuresPerMinuteMax: 1_000_000 }
const house = { target: { host: '127.0.0.1', port: target.port, hostKeys: [target.hostKey] }, people }
const front = await startSshPassThrough({
  ...house, authorities: [authority.line], listen: { limits: many }
})

type Act = (client: LoginClient) => Promise<number | undefined>
type Order = readonly [name: string, acts: readonly Act[], who: string | undefined]

const offer = (user: string, key: TestKey): Act => client => client.offer(user, key)
const prove = (user: string, key: TestKey, signer = key): Act => client => client.sign(user, key, signer)
const type = (user: string, password: string): Act => client => client.password(user, password)

/** `who`: who is let in at the last step, and by what; undefined: nobody is. */
const orders: readonly Order[] = [
  ['alice signs', [prove('alice', alices)], 'alice publickey'],
  ['bob signs', [prove('bob', bobs)], 'bob publickey'],
  ['alice offers and signs', [offer('alice', alices), prove('alice', alices)], 'alice publickey'],
  ['alice offers twice and signs', [offer('alice', alices), offer('alice', alices), prove('alice', alices)],
    'alice publickey'],
  ['an offer alone', [offer('alice', alices)], undefined],
  ["alice's key offered, bob's signed for alice", [offer('alice', alices), prove('alice', bobs)], undefined],
  ["alice's key shown, bob's hand", [prove('alice', alices, bobs)], undefined],
  ["bob's key shown, alice's hand", [prove('alice', bobs, alices)], undefined],
  ["a stranger's key shown, alice's hand", [prove('alice', strangers, alices)], undefined],
  ["alice's key for bob", [prove('bob', alices)], undefined],
  ["bob's key for alice", [prove('alice', bobs)], undefined],
  ["bob's key offered, alice's signed for bob", [offer('bob', bobs), prove('bob', alices)], undefined],
  ["a stranger's key offered, alice's signed", [offer('alice', strangers), prove('alice', alices)],
    'alice publickey'],
  ["alice's key offered, a stranger's signed", [offer('alice', alices), prove('alice', strangers)],
    undefined],
  ["alice's key offered, her other one signed", [offer('alice', alices), prove('alice', alicesRsa)],
    'alice publickey'],
  ["alice's key offered for alice, signed for bob", [offer('alice', alices), prove('bob', alices)],
    undefined],
  ["alice's key offered, bob's signed for bob", [offer('alice', alices), prove('bob', bobs)], undefined],
  ["bob's key offered for bob, bob signs for alice", [offer('bob', bobs), prove('alice', bobs)], undefined],
  ["alice's key offered, then bob's password for alice", [offer('alice', alices), type('alice', 'bobs')],
    undefined],
  ["alice's key offered, then her password", [offer('alice', alices), type('alice', personPassword)],
    'alice password'],
  ["alice's key offered, then bob's password for bob", [offer('alice', alices), type('bob', 'bobs')],
    undefined],
  ['a wrong hand, then the right one', [prove('alice', alices, bobs), prove('alice', alices)],
    'alice publickey'],
  ['a wrong password, then the key', [type('alice', 'x'), prove('alice', alices)], 'alice publickey'],
  ['a wrong key, then the password', [prove('alice', bobs), type('alice', personPassword)],
    'alice password'],
  ["an offer of nobody's, then bob's for bob", [offer('nobody', bobs), prove('bob', bobs)], undefined],
  ['nobody signs with the key of alice', [prove('nobody', alices)], undefined],
  ['RSA with SHA-512', [prove('alice', alicesRsa)], 'alice publickey'],
  ['ECDSA', [prove('alice', alicesEcdsa)], 'alice publickey'],
  ['a FIDO key that was touched', [prove('alice', alicesFido)], 'alice publickey'],
  ['a FIDO key that nobody touched', [prove('alice', untouched)], undefined],
  ['an RSA key of 1024 bits', [prove('alice', weakRsa)], undefined],
  ['question and answer', [client => client.answer('alice', personPassword)], 'alice keyboard-interactive'],
  ['a wrong answer', [client => client.answer('alice', 'x')], undefined]
]

async function outcome(acts: readonly Act[]): Promise<string | undefined> {
  const before = front.proofs.length
  const client = await loginClient(front.port)
  let last: number | undefined
  for (const act of acts) last = await act(client)
  const proof = front.proofs[before]
  // Nobody is let in by an earlier step than the last, and nobody without a proof.
  assert.is(last === success, proof !== undefined)
  assert.ok(front.proofs.length - before <= 1)
  client.leave()
  return proof
}

test('whoever signed is whoever is let in, in every order of offers and proofs', async () => {
  assert.ok(orders.length >= 24)
  for (const [name, acts, who] of orders) {
    const proof = await outcome(acts)
    assert.is(proof?.split(' ').slice(0, 2).join(' '), who, `${name}: ${proof}`)
  }
})

test('a certificate holds for its principal, its time, its place and its authority only', async () => {
  const day = 86_400_000
  const [yesterday, tomorrow] = [new Date(Date.now() - day), new Date(Date.now() + day)]
  const cases: readonly [string, CertificateWords, boolean, TestKey?][] = [
    ['a good one', {}, true],
    ['several principals', { principals: ['bob', 'alice'] }, true],
    ['another principal', { principals: ['bob'] }, false],
    ['no principal', { principals: [] }, false],
    ['a principal that begins like the name', { principals: ['alic', 'alice2', 'ALICE'] }, false],
    ['a list of names in one', { principals: ['alice,bob'] }, false],
    ['expired', { before: yesterday }, false],
    ['not valid yet', { after: tomorrow }, false],
    ['a host certificate', { kind: 2 }, false],
    ['a kind that does not exist', { kind: 3 }, false],
    ['a critical option that nobody knows', { options: { 'no-such-option': 'x' } }, false],
    ['a forced command', { options: { 'force-command': 'id' } }, false],
    ['a source address that fits', { options: { 'source-address': '127.0.0.1' } }, true],
    ['a network that fits', { options: { 'source-address': '10.0.0.0/8,127.0.0.0/8' } }, true],
    ['another source address', { options: { 'source-address': '10.0.0.1' } }, false],
    ['another network', { options: { 'source-address': '10.0.0.0/8' } }, false],
    ['a network of IPv6', { options: { 'source-address': '::/0' } }, false],
    ['a network that is none', { options: { 'source-address': '127.0.0.0/x' } }, false],
    ['an empty list of networks', { options: { 'source-address': '' } }, false],
    ['an unknown authority', {}, false, otherAuthority],
    ['an authority that it only names', { claims: authority }, false, otherAuthority],
    ['signed by itself', {}, false, strangers]
  ]
  for (const [name, words, holds, signer = authority] of cases) {
    const proof = await outcome([prove('alice', certified(strangers, signer, words))])
    assert.is(proof !== undefined, holds, name)
    if (holds) assert.match(proof!, /certificate test 1$/)
  }
  const good = certified(strangers, authority)
  assert.is(await outcome([prove('alice', good, bobs)]), undefined, 'shown by somebody else')
  assert.is(await outcome([prove('bob', good)]), undefined, 'for another name')
  const bent = Buffer.from(good.blob)
  bent[bent.indexOf('alice')] = 0x62
  assert.is(await outcome([prove('blice', { ...good, blob: bent })]), undefined, 'another name written in')
  const plain = { ...good, algorithm: 'ssh-ed25519' }
  assert.is(await outcome([prove('alice', plain)]), undefined, 'under the name of a plain key')
})

/** A signed request whose parts do not belong together. */
type Forge = (client: LoginClient) => Buffer

const forgeries: readonly (readonly [string, Forge])[] = [
  ['the id of another connection', () => {
    const { request: asked, data } = signedRequest('alice', alices, Buffer.alloc(32, 7))
    return Buffer.concat([asked, sshFields(alices.sign(data))])
  }],
  ['an empty id', () => {
    const { request: asked, data } = signedRequest('alice', alices, Buffer.alloc(0))
    return Buffer.concat([asked, sshFields(alices.sign(data))])
  }],
  ["another person's request", client => {
    const { data } = signedRequest('bob', alices, client.peer.sessionId)
    const { request: asked } = signedRequest('alice', alices, client.peer.sessionId)
    return Buffer.concat([asked, sshFields(alices.sign(data))])
  }],
  ['SHA-256 under the name of SHA-512', client => {
    const { request: asked, data } = signedRequest('alice', alicesRsa, client.peer.sessionId, 'rsa-sha2-512')
    return Buffer.concat([asked, sshFields(alicesRsa.sign(data, 'rsa-sha2-256'))])
  }],
  ['SHA-512 under the name of SHA-256', client => {
    const { request: asked, data } = signedRequest('alice', alicesRsa, client.peer.sessionId, 'rsa-sha2-256')
    return Buffer.concat([asked, sshFields(alicesRsa.sign(data, 'rsa-sha2-512'))])
  }],
  ['SHA-1', client => {
    const { request: asked, data } = signedRequest('alice', alicesRsa, client.peer.sessionId, 'ssh-rsa')
    return Buffer.concat([asked, sshFields(alicesRsa.sign(data, 'ssh-rsa'))])
  }],
  ['SHA-1 under the name of SHA-512', client => {
    const { request: asked, data } = signedRequest('alice', alicesRsa, client.peer.sessionId)
    return Buffer.concat([asked, sshFields(alicesRsa.sign(data, 'ssh-rsa'))])
  }],
  ['an algorithm of another kind of key', client => {
    const { request: asked, data } = signedRequest('alice', alices, client.peer.sessionId, 'rsa-sha2-512')
    return Buffer.concat([asked, sshFields(alices.sign(data, 'rsa-sha2-512'))])
  }],
  ['an algorithm that is the name of a property', client => {
    const { request: asked, data } = signedRequest('alice', alices, client.peer.sessionId, '__proto__')
    return Buffer.concat([asked, sshFields(alices.sign(data))])
  }],
  ['a bit less', client => withSignature(client, bytes => bytes.subarray(0, -1))],
  ['a bit more', client => withSignature(client, bytes => Buffer.concat([bytes, Buffer.of(0)]))],
  ['nothing', client => withSignature(client, () => Buffer.alloc(0))],
  ['a length only', client => withSignature(client, () => sshUint32(0xffffffff))],
  ['zeros', client => withSignature(client, () => sshFields('ssh-ed25519', Buffer.alloc(64)))],
  ['a short signature', client => withSignature(client, () => sshFields('ssh-ed25519', Buffer.alloc(63)))],
  ['a long signature', client => withSignature(client, () => sshFields('ssh-ed25519', Buffer.alloc(9000)))],
  ['bytes behind the signature', client =>
    Buffer.concat([withSignature(client, bytes => bytes), Buffer.of(1)])],
  ['a flag of 2 in the place of true', client => {
    const bytes = withSignature(client, signature => signature)
    bytes[bytes.indexOf('publickey') + 'publickey'.length] = 2
    return bytes
  }]
]

function withSignature(client: LoginClient, change: (signature: Buffer) => Buffer): Buffer {
  const { request: asked, data } = signedRequest('alice', alices, client.peer.sessionId)
  return Buffer.concat([asked, sshFields(change(alices.sign(data)))])
}

test('a signature holds for this connection, this request and this algorithm only', async () => {
  for (const [name, forge] of forgeries) {
    const client = await loginClient(front.port)
    assert.is(await client.ask(forge(client)), failure, name)
    assert.is(await client.sign('alice', alices), success, `${name}: the honest one behind it`)
    client.leave()
  }
})

test('a key is good only when it is known; an algorithm only when it fits', async () => {
  const client = await loginClient(front.port)
  assert.is(await client.offer('alice', alices), keyIsGood)
  assert.is(await client.offer('alice', alicesRsa, 'rsa-sha2-256'), keyIsGood)
  for (const [key, algorithm] of [
    [bobs, 'ssh-ed25519'], [alices, 'rsa-sha2-256'], [alicesRsa, 'ssh-rsa'], [alicesRsa, 'ssh-dss'],
    [{ ...alices, blob: Buffer.alloc(0) }, 'ssh-ed25519'],
    [{ ...alices, blob: Buffer.concat([alices.blob, Buffer.of(0)]) }, 'ssh-ed25519'],
    [{ ...alices, blob: alices.blob.subarray(0, -1) }, 'ssh-ed25519']
  ] as const) {
    assert.is(await client.offer('alice', key, algorithm), failure, algorithm)
  }
  client.leave()
})

test('another name, another service and what is no request end the connection', async () => {
  const asked = (user: string): Buffer => passwordRequest(user, 'x')
  const cases: readonly [string, Buffer[]][] = [
    ['another name', [asked('alice'), asked('bob')]],
    ['the name with a blank', [asked('alice'), asked('alice ')]],
    ['the name with a zero byte', [asked('alice'), asked('alice\0')]],
    ['another case', [asked('alice'), asked('Alice')]],
    ['no name', [asked('alice'), asked('')]],
    ['another service', [Buffer.concat([Buffer.of(50), sshFields('alice', 'ssh-userauth', 'none')])]],
    ['the service twice', [serviceRequest()]],
    ['an answer that nobody asked for', [Buffer.concat([Buffer.of(61), sshUint32(0)])]],
    ['success, as if it were a server', [Buffer.of(success)]],
    ['a request without fields', [Buffer.of(request)]],
    ['a password without text', [loginRequest('alice', 'password', false)]],
    ['a key without a blob', [loginRequest('alice', 'publickey', true, 'ssh-ed25519')]]
  ]
  for (const [name, payloads] of cases) {
    const client = await loginClient(front.port)
    client.peer.send(...payloads)
    assert.is(await client.refusal(), 'protocol-violation', name)
  }
})

test('methods that do not exist, and a password that is to be changed, are wrong attempts', async () => {
  const proof = alices.sign(alices.blob)
  for (const asked of [
    loginRequest('alice', 'hostbased', 'ssh-ed25519', alices.blob, 'host', 'alice', proof),
    loginRequest('alice', 'gssapi-with-mic', 1), loginRequest('alice', ''),
    loginRequest('alice', 'x'.repeat(9000)),
    loginRequest('alice', '__proto__'), passwordRequest('alice', personPassword, true),
    loginRequest('alice', 'password', true, personPassword, 'new'), passwordRequest('alice', ''),
    passwordRequest('alice', 'x'.repeat(30_000)), passwordRequest('alice', `${personPassword}\0`)
  ]) {
    const client = await loginClient(front.port)
    assert.is(await client.ask(asked), failure)
    for (let number = 0; number < 4; number++) assert.is(await client.ask(asked), failure)
    client.peer.send(asked)
    assert.is(await client.refusal(), 'auth-failed')
  }
})

test('six wrong proofs end a connection, whatever they are mixed of', async () => {
  const acts: readonly Act[] = [
    type('alice', 'x'), prove('alice', alices, bobs), client => client.answer('alice', 'x'),
    client => client.ask(loginRequest('alice', 'hostbased')), type('alice', 'y')
  ]
  const client = await loginClient(front.port)
  assert.is(await client.offer('alice', strangers), failure)
  for (const act of acts) assert.is(await act(client), failure)
  assert.is(await prove('alice', alices, strangers)(client), failure)
  assert.is(await client.refusal(), 'auth-failed')
})

test('asking without proving has an end as well', async () => {
  const asks: readonly Act[] = [
    offer('alice', strangers), offer('alice', alices), client => client.ask(loginRequest('alice', 'none'))
  ]
  for (const ask of asks) {
    const client = await loginClient(front.port)
    let answers = 0
    while (await ask(client) !== undefined) assert.ok(++answers <= 100, 'no end of it')
    assert.is(await client.refusal(), 'auth-failed')
  }
})

test('thirty wrong passwords a minute for a source; whoever comes from elsewhere gets in', async () => {
  const clock = handClock()
  await using slow = await startSshPassThrough({ ...house, listen: { clock } })
  const guess = async (count: number): Promise<number> => {
    let judged = 0
    for (let connection = 0; connection < count; connection++) {
      const client = await loginClient(slow.port).catch(() => undefined)
      if (client === undefined || client.peer.closed) continue
      while (await client.password('alice', 'x') === failure) judged++
      await client.peer.end()
    }
    return judged
  }
  const derived = work.derivations
  const guesses = await guess(200)
  assert.ok(guesses <= 30, `${guesses}`)
  assert.ok(work.derivations - derived <= 30, `${work.derivations - derived} passwords were looked at`)
  // Ten minutes of it: the source gets its thirty a minute and no more.
  let judged = 0
  for (let minute = 0; minute < 10; minute++) {
    clock.advance(60_000)
    judged += await guess(20)
  }
  assert.ok(judged <= 310, `${judged}`)
  const elsewhere = await loginClient(slow.port, '127.0.0.2')
  assert.is(await elsewhere.password('alice', personPassword), success)
  elsewhere.leave()
  const client = await sshPeer(slow.port)
  assert.ok(client.closed, 'the guesser is turned away')
})

/** What a stranger sees of 200 logins: the answers, and the work that was done for them. */
async function observed(
  ask: (client: LoginClient) => Promise<number | undefined>, at: SshPassThrough
): Promise<{ said: string, derivations: number, verifications: number }> {
  const before = { ...work }
  const said = new Set<string>()
  for (let pair = 0; pair < 200; pair += 5) {
    const client = await loginClient(at.port)
    for (let attempt = 0; attempt < 5; attempt++) {
      const answer = await ask(client)
      const { inbox } = client.peer
      said.add(`${answer} ${inbox.map(payload => payload.toString('hex')).join()}`)
    }
    client.leave()
  }
  return {
    said: [...said].join('; '), derivations: work.derivations - before.derivations,
    verifications: work.verifications - before.verifications
  }
}

test('for a name that nobody has the answers and the work are the same', async () => {
  const surfaces: Readonly<Record<string, (user: string) => Act>> = {
    'a password': user => type(user, 'x'),
    'an offered key': user => offer(user, strangers),
    'a signed key': user => prove(user, strangers),
    'an answer': user => client => client.answer(user, 'x'),
    'a certificate of nobody': user => prove(user, certified(strangers, otherAuthority)),
    'a certificate of the authority for somebody else':
      user => prove(user, certified(strangers, authority, { principals: ['carol'] }))
  }
  for (const [name, surface] of Object.entries(surfaces)) {
    const known = await observed(surface('alice'), front)
    const unknown = await observed(surface('zelda'), front)
    // The keys of a connection are checked on our side and, for the host key, on the client's: the same too.
    assert.equal(unknown, known, name)
  }
})

test('nobody but those who were let in reached the target', async () => {
  const logins = front.proofs.length
  assert.ok(target.peers.length >= logins - 1 && target.peers.length <= logins + 2)
  const until = performance.now() + 5000
  while (front.listener.stats().connections > 0 && performance.now() < until) {
    await new Promise(resolve => setImmediate(resolve))
  }
  assert.is(front.listener.stats().unauthenticated, 0)
})

test.after(async () => {
  await front.stop()
  await target.stop()
})

test.run()
