// What strangers can hold and for how long: silent sockets, half handshakes, floods, guessed passwords and
// guessed cancel keys all end at a limit with a name, and a person who logs in meanwhile gets in (R8, R9,
// R12). The clock is moved by hand.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { createAdmission } from '../src/proxy/admission.ts'
import { createPenalties } from '../src/proxy/penalties.ts'
import { createCancelKeys } from '../src/proxy/postgres/cancels.ts'
import { sourceOf } from '../src/proxy/source.ts'
import {
  cancelRequest, frame, query, saslResponse, sslRequest, startupMessage
} from '../src/wire/postgres/messages.ts'
import {
  parseAuthentication, parseBackendKeyData, parseNegotiateProtocolVersion
} from '../src/wire/postgres/parse.ts'
import { selfSignedCertificate } from '../src/wire/x509.ts'
import { startFakeTarget } from './peers/fake-target.ts'
import type { FakeTarget } from './peers/fake-target.ts'
import { startPassThrough } from './peers/pass-through.ts'
import type { PassThrough } from './peers/pass-through.ts'
import { codeOf, handClock, rawClient } from './peers/raw-postgres.ts'
import type { HandClock, RawClient } from './peers/raw-postgres.ts'

interface World extends AsyncDisposable {
  clock: HandClock
  target: FakeTarget
  front: PassThrough
}

async function world(limits: Record<string, number> = {}): Promise<World> {
  const clock = handClock()
  const target = await startFakeTarget()
  const front = await startPassThrough({
    target: { host: '127.0.0.1', port: target.port, tls: { mode: 'disable' } },
    role: 'injected', password: 'fake-target', iterations: 1, listen: { clock, limits }
  })
  return {
    clock, target, front,
    [Symbol.asyncDispose]: async () => {
      await front.stop()
      await target.stop()
    }
  }
}

const startup = startupMessage([['user', 'alice'], ['database', 'app']])
/** Until something is so; the runner's deadline is the limit. */
async function until(met: () => boolean): Promise<void> {
  while (!met()) await new Promise(resolve => setImmediate(resolve))
}

test('whoever does not finish the login in its grace time is told so and cut, at any step', async () => {
  await using house = await world()
  const { clock, front } = house
  const steps: ((client: RawClient) => Promise<unknown> | void)[] = [
    () => undefined,
    client => void client.send(startup.subarray(0, 5)),
    client => void client.send(startup.subarray(0, startup.length - 1)),
    client => client.send(startup).message(),
    client => client.send(startup).beginScram(),
    client => client.startTls(),
    async client => (await client.startTls()).send(startup).message()
  ]
  const clients: RawClient[] = []
  for (const step of steps) {
    const client = await rawClient(front.port)
    await step(client)
    clients.push(client)
  }
  const mute = await rawClient(front.port)
  mute.send(sslRequest())
  await mute.byte()
  await until(() => front.listener.stats().connections === steps.length + 1)
  clock.advance(29_999)
  assert.is(front.listener.stats().connections, steps.length + 1)
  clock.advance(1)
  for (const [index, client] of clients.entries()) {
    assert.is(codeOf(await client.refusal()), 'auth-timeout', `step ${index}`)
  }
  // In the middle of a TLS handshake nothing can be said.
  clock.advance(1000)
  assert.is(await mute.refusal(), undefined)
  await until(() => front.listener.stats().connections === 0)
  assert.is(house.target.connections.length, 0)
})

test('a byte now and then does not prolong the grace time', async () => {
  await using house = await world()
  const client = await rawClient(house.front.port)
  await until(() => house.front.listener.stats().connections === 1)
  for (const byte of startup.subarray(0, 29)) {
    client.send(Buffer.from([byte]))
    await new Promise(resolve => setImmediate(resolve))
    house.clock.advance(1000)
  }
  house.clock.advance(1000)
  assert.is(codeOf(await client.refusal()), 'auth-timeout')
})

test('once logged in, the grace time is over', async () => {
  await using house = await world()
  const client = await (await rawClient(house.front.port)).ready('alice')
  house.clock.advance(600_000)
  assert.is((await client.send(query('SELECT 1')).until('Z')).at(-1)?.tag, 'Z')
  client.socket.destroy()
})

test('silent sockets of a source make place for each other, and a person still gets in', async () => {
  await using house = await world({ unauthenticatedPerAddressMax: 20 })
  const silent: RawClient[] = []
  for (let index = 0; index < 100; index++) silent.push(await rawClient(house.front.port))
  const left = ({ socket }: RawClient): boolean => socket.destroyed || socket.readableEnded
  await until(() => silent.filter(left).length === 80)
  assert.is(house.front.listener.stats().unauthenticated, 20)
  const person = await (await rawClient(house.front.port)).ready('alice')
  assert.is(house.front.listener.stats().unauthenticated, 19)
  person.socket.destroy()
})

test('a source whose places are all in the middle of a login is told to come back', async () => {
  await using house = await world({ unauthenticatedPerAddressMax: 5 })
  for (let index = 0; index < 5; index++) await (await rawClient(house.front.port)).send(startup).message()
  const sixth = await rawClient(house.front.port)
  assert.is(codeOf(await sixth.refusal()), 'too-many-connections')
})

test('places are counted for each source and for all together, and are given back', () => {
  const limits = { connectionsMax: 8, unauthenticatedPerAddressMax: 2, unauthenticatedMax: 4 }
  const admission = createAdmission(limits)
  const evicted: string[] = []
  const enter = (address: string, name: string) => admission.enter(address, () => evicted.push(name))
  const [a, b] = [enter('10.0.0.1', 'a'), enter('10.0.0.1', 'b')]
  a?.spoke()
  enter('10.0.0.1', 'c')
  assert.equal(evicted, ['b'])
  // An address that another source's flood cannot touch, until all places together are taken.
  const [d, e] = [enter('10.0.0.2', 'd'), enter('10.0.0.2', 'e')]
  d?.spoke()
  e?.spoke()
  enter('10.0.0.3', 'f')
  assert.equal(evicted, ['b', 'c'])
  assert.is(admission.unauthenticated, 4)
  for (const ticket of [a, d, e]) ticket?.authenticated()
  assert.is(admission.unauthenticated, 1)
  assert.is(admission.connections, 4)
  for (const ticket of [a, b, d, e]) {
    ticket?.leave()
    ticket?.leave()
  }
  assert.is(admission.connections, 1)
})

test('all addresses of an IPv6 network are one source, an address is one however it is written', () => {
  assert.is(sourceOf('2001:db8:1:2:3:4:5:6'), sourceOf('2001:db8:1:2::9'))
  assert.is.not(sourceOf('2001:db8:1:2::1'), sourceOf('2001:db8:1:3::1'))
  assert.is(sourceOf('2001:0db8:0001:0002::1'), sourceOf('2001:db8:1:2::1'))
  assert.is(sourceOf('::ffff:10.1.2.3'), sourceOf('10.1.2.3'))
  assert.is(sourceOf('::1'), sourceOf('::2'))
  assert.is.not(sourceOf('fe80::1'), sourceOf('::1'))
})

test('after thirty failures in a minute a source waits, and gets in again by itself', async () => {
  await using house = await world()
  const { clock, front } = house
  let refusals = 0
  for (let attempt = 0; attempt < 30; attempt++) {
    const client = await rawClient(front.port)
    await client.logIn('alice', 'wrong').catch(() => { refusals++ })
    client.socket.destroy()
  }
  assert.is(refusals, 30)
  assert.is(codeOf(await (await rawClient(front.port)).refusal()), 'auth-throttled')
  clock.advance(1999)
  assert.is(codeOf(await (await rawClient(front.port)).refusal()), 'auth-throttled')
  clock.advance(1)
  const person = await (await rawClient(front.port)).ready('alice')
  person.socket.destroy()
})

test('guesses that are made at the same moment are not more than those made one by one', async () => {
  await using house = await world()
  const started = async (): Promise<RawClient> => (await rawClient(house.front.port)).send(startup)
  const clients = await Promise.all(Array.from({ length: 60 }, started))
  const outcomes = await Promise.all(clients.map(async (client, index) => {
    // The last one knows the password: its source has to wait all the same, and does not learn that it was
    // right.
    const scram = await client.beginScram(index === 59 ? undefined : 'wrong')
    const challenge = parseAuthentication((await client.message())!.body)
    if (challenge.kind !== 'sasl-continue') throw new Error(challenge.kind)
    return { client, answer: saslResponse(await scram.answer(challenge.data)) }
  }))
  const codes: (string | undefined)[] = []
  for (const { client, answer } of outcomes) {
    codes.push(codeOf(await client.send(answer).refusal()))
  }
  assert.is(codes.filter(code => code === 'auth-failed').length, 30)
  assert.is(codes.filter(code => code === 'auth-throttled').length, 30)
  assert.is(codes.at(-1), 'auth-throttled')
})

test('penalties: thirty a minute on the long run, others untouched, memory bounded', () => {
  const clock = handClock()
  const penalties = createPenalties(clock, 30)
  let tries = 0
  for (let second = 0; second < 600; second++) {
    for (let attempt = 0; attempt < 20; attempt++) {
      if (penalties.throttled('10.0.0.1')) continue
      penalties.failed('10.0.0.1')
      tries++
    }
    assert.not.ok(penalties.throttled('10.0.0.2'))
    clock.advance(1000)
  }
  assert.ok(tries <= 30 + 30 * 10, `${tries} tries in ten minutes`)
  assert.ok(tries >= 300)
  for (let index = 0; index < 20_000; index++) penalties.failed(`10.${index >> 8}.${index & 255}.1`)
  assert.not.ok(penalties.throttled('10.0.0.1'))
})

test('broken protocol counts as a failure', async () => {
  await using house = await world({ loginFailuresPerMinuteMax: 5 })
  for (let attempt = 0; attempt < 5; attempt++) {
    const client = (await rawClient(house.front.port)).send('GET / HTTP/1.0')
    assert.is(codeOf(await client.refusal()), 'protocol-violation')
  }
  assert.is(codeOf(await (await rawClient(house.front.port)).refusal()), 'auth-throttled')
})

test('a cancel key reaches the target as the real one, and dies with its session', async () => {
  await using house = await world()
  const client = await (await rawClient(house.front.port)).logIn('alice')
  const messages = await client.until('Z')
  const { pid, key } = parseBackendKeyData(messages.find(({ tag }) => tag === 'K')!.body)
  assert.is(pid, 1001)
  assert.is(key.length, 4)
  assert.not.equal([...key], [1, 2, 3, 4])
  const cancel = await rawClient(house.front.port)
  cancel.send(cancelRequest(pid, key))
  assert.is(await cancel.refusal(), undefined)
  await until(() => house.target.cancels.length === 1)
  assert.equal(house.target.cancels[0], { pid: 1001, key: Buffer.from([1, 2, 3, 4]) })

  client.socket.destroy()
  assert.is((await house.front.ended()).reason, 'client-closed')
  assert.is(house.front.listener.stats().cancelKeys, 0)
  const late = await rawClient(house.front.port)
  late.send(cancelRequest(pid, key))
  assert.is(await late.refusal(), undefined)
  assert.is(house.target.cancels.length, 1)
})

test('wrong cancel keys are answered like right ones, and soon are not even looked at', async () => {
  await using house = await world()
  const client = await (await rawClient(house.front.port)).logIn('alice')
  const { pid, key } = parseBackendKeyData((await client.until('Z')).find(({ tag }) => tag === 'K')!.body)
  const wrong = [
    cancelRequest(pid, Buffer.from(key.map(byte => byte ^ 1))), cancelRequest(pid + 1, key),
    cancelRequest(pid, Buffer.concat([key, key])), cancelRequest(pid, Buffer.from([1, 2, 3, 4]))
  ]
  for (let round = 0; round < 5; round++) {
    for (const request of wrong) {
      const cancel = await rawClient(house.front.port)
      cancel.send(request)
      assert.is(await cancel.refusal(), undefined)
      assert.is(cancel.heard.length, 0)
    }
  }
  // Ten wrong ones a minute: now even the right key is dropped, until the source has waited.
  const dropped = await rawClient(house.front.port)
  dropped.send(cancelRequest(pid, key))
  await dropped.refusal()
  assert.is(house.target.cancels.length, 0)
  house.clock.advance(60_000)
  const again = await rawClient(house.front.port)
  again.send(cancelRequest(pid, key))
  await until(() => house.target.cancels.length === 1)
  client.socket.destroy()
})

test('a flood of cancel requests for one session is one request at a time', async () => {
  const keys = createCancelKeys()
  let [running, most, all] = [0, 0, 0]
  const finish: (() => void)[] = []
  const entry = keys.enter(7, 0, () => {
    running++
    all++
    most = Math.max(most, running)
    return new Promise<void>(resolve => finish.push(() => {
      running--
      resolve()
    }))
  })
  for (let index = 0; index < 1000; index++) assert.ok(keys.cancel(7, entry.key))
  finish.shift()!()
  await new Promise(resolve => setImmediate(resolve))
  assert.ok(keys.cancel(7, entry.key))
  assert.equal([most, all], [1, 2])
  const other = keys.enter(7, 2, async () => undefined)
  assert.is(other.key.length, 32)
  assert.is(keys.size, 2)
  entry.leave()
  entry.leave()
  assert.not.ok(keys.cancel(7, entry.key))
  assert.ok(keys.cancel(7, other.key))
  assert.is(keys.size, 1)
})

test('a listener without TLS says so, and one that demands it refuses plain clients', async () => {
  await using target = await startFakeTarget()
  const address = { host: '127.0.0.1', port: target.port, tls: { mode: 'disable' as const } }
  const own = { target: address, role: 'x', password: 'fake-target' }
  await using plain = await startPassThrough({ ...own, plain: true })
  const client = (await rawClient(plain.port)).send(sslRequest())
  assert.is(await client.byte(), 'N')
  await client.ready('alice')
  client.socket.destroy()

  const tls = selfSignedCertificate({
    commonName: 'x', names: ['localhost'], validFrom: new Date('2020-01-01'),
    validUntil: new Date('2050-01-01')
  })
  await using strict = await startPassThrough({
    ...own, listen: { tls: { cert: tls.certificate, key: tls.privateKey, required: true } }
  })
  assert.is(codeOf(await (await rawClient(strict.port)).send(startup).refusal()), 'tls-required')
  const secured = await (await (await rawClient(strict.port)).startTls()).ready('alice')
  secured.socket.destroy()
})

test('a flood that is turned away is a line in the log now and then, with its number', async () => {
  await using house = await world({ loginFailuresPerMinuteMax: 1 })
  assert.is(codeOf(await (await rawClient(house.front.port)).send('no').refusal()), 'protocol-violation')
  for (let round = 0; round < 2; round++) {
    for (let index = 0; index < 20; index++) {
      assert.is(codeOf(await (await rawClient(house.front.port)).refusal()), 'auth-throttled')
    }
    house.clock.advance(1000)
  }
  const lines = house.front.log.filter(line => line.startsWith('connection turned away'))
  assert.equal(lines.map(line => /"others":(\d+)/.exec(line)?.[1]), ['0', '19'])
})

test('newer protocol versions and unknown protocol options are negotiated down', async () => {
  await using house = await world()
  const keyOf = async (client: RawClient): Promise<number> => {
    const key = (await client.until('Z')).find(({ tag }) => tag === 'K')
    return parseBackendKeyData(key!.body).key.length
  }
  const cases = [
    [0, [], undefined, 4], [2, [], undefined, 32], [9, [], 2, 32], [2, ['_pq_.a', '_pq_.b'], 2, 32]
  ] as const
  for (const [minor, options, offered, keyBytes] of cases) {
    const client = await rawClient(house.front.port)
    const parameters = [['user', 'alice'], ['database', 'app'], ...options.map(name => [name, '1'])]
    client.send(startupMessage(parameters as [string, string][], minor))
    if (offered !== undefined) {
      const { tag, body } = (await client.message())!
      assert.is(tag, 'v')
      assert.equal(parseNegotiateProtocolVersion(body), { minor: offered, options: [...options] })
    }
    await client.finishLogIn()
    assert.is(await keyOf(client), keyBytes, `3.${minor}`)
    client.socket.destroy()
  }
})

test('where it is allowed the password itself is asked for, but only inside TLS', async () => {
  await using target = await startFakeTarget()
  await using front = await startPassThrough({
    target: { host: '127.0.0.1', port: target.port, tls: { mode: 'disable' } }, role: 'injected',
    password: 'fake-target', iterations: 1, listen: { cleartextInTls: true }
  })
  const plain = await (await rawClient(front.port)).ready('alice')
  plain.socket.destroy()
  const words = [['pass-through', undefined], ['wrong', 'auth-failed'], ['', 'auth-failed']] as const
  for (const [word, code] of words) {
    const client = await (await rawClient(front.port)).startTls()
    const request = (await client.send(startup).message())!
    assert.equal([request.tag, request.body.readInt32BE(0)], ['R', 3])
    client.send(frame('p', Buffer.from(`${word}\0`)))
    if (code !== undefined) assert.is(codeOf(await client.refusal()), code)
    else assert.is((await client.until('Z')).at(-1)?.tag, 'Z')
    client.socket.destroy()
  }
  const bad = await (await rawClient(front.port)).startTls()
  await bad.send(startup).message()
  assert.is(codeOf(await bad.send(frame('p', Buffer.from('a\0b\0'))).refusal()), 'protocol-violation')
})

test('five thousand silent connections do not keep a person out', async () => {
  await using house = await world()
  for (let round = 0; round < 50; round++) {
    await Promise.all(Array.from({ length: 100 }, () => rawClient(house.front.port)))
  }
  const { connections } = house.front.listener.stats()
  assert.ok(connections <= 100, `${connections} connections are held`)
  const person = await (await rawClient(house.front.port)).ready('alice')
  person.socket.destroy()
})

test('a stop sends strangers away and leaves sessions alone', async () => {
  await using house = await world()
  const stranger = await rawClient(house.front.port)
  const person = await (await rawClient(house.front.port)).ready('alice')
  await until(() => house.front.listener.stats().connections === 2)
  await house.front.listener.close()
  assert.is(codeOf(await stranger.refusal()), 'shutting-down')
  assert.is((await person.send(query('SELECT 1')).until('Z')).at(-1)?.tag, 'Z')
  person.socket.destroy()
})

test.run()
