// The two streams of a session against a target that does what it is told: bytes arrive as they were sent,
// only after the recorder had them, a slow side stops the other, and a session that is cut, broken or left
// ends at both sides with the right word or none (J13, R4, R7, R11, F16, F18, F24–F26). The clock stands
// still: what closes, closes without waiting for a timer.
import { randomBytes, randomInt } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import { frameKind } from '../src/recording/recording.ts'
import type { Recording } from '../src/recording/recording.ts'
import {
  errorResponse, frame, parameterStatus, query, readyForQuery, terminate
} from '../src/wire/postgres/messages.ts'
import { parseReport } from '../src/wire/postgres/parse.ts'
import { splitResults } from '../src/wire/postgres/tape.ts'
import { blast, commandComplete, dataRow, rowDescription, startFakeTarget } from './peers/fake-target.ts'
import type { FakeOptions, FakeTarget } from './peers/fake-target.ts'
import { startPassThrough } from './peers/pass-through.ts'
import type { PassThrough, PassThroughOptions } from './peers/pass-through.ts'
import { codeOf, handClock, rawClient } from './peers/raw-postgres.ts'
import type { HandClock, RawClient } from './peers/raw-postgres.ts'

interface World extends AsyncDisposable {
  clock: HandClock
  target: FakeTarget
  front: PassThrough
}

async function world(own: Partial<PassThroughOptions> = {}, fake: FakeOptions = {}): Promise<World> {
  const clock = handClock()
  const target = await startFakeTarget(fake)
  const front = await startPassThrough({
    target: { host: '127.0.0.1', port: target.port, tls: { mode: 'disable' } },
    role: 'injected', password: 'fake-target', iterations: 1, ...own, listen: { clock, ...own.listen }
  })
  return {
    clock, target, front,
    [Symbol.asyncDispose]: async () => {
      await front.stop()
      await target.stop()
    }
  }
}

async function until(met: () => boolean): Promise<void> {
  while (!met()) await new Promise(resolve => setImmediate(resolve))
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise(resolve => setImmediate(resolve))
}

const silent = { answer: (): void => undefined }

interface Kept {
  kind: number
  body: Buffer
}

/**
 * A recording whose `commit` is the test's; `frames` is what was appended, `committed` how many were in time.
 */
interface Tape {
  wrap: (recording: Recording) => Recording
  frames: Kept[]
  committed: number
  commit: () => true | Promise<void>
  fail(): void
}

function tape(): Tape {
  const controller = new AbortController()
  const own: Tape = {
    frames: [],
    committed: 0,
    commit: () => true,
    fail: () => controller.abort(new SallyportError('recorder-failed')),
    wrap: recording => ({
      session: recording.session,
      failed: controller.signal,
      append: (kind, _lane, ...parts) => {
        if (!controller.signal.aborted) own.frames.push({ kind, body: Buffer.concat(parts) })
      },
      commit: () => {
        const done = own.commit()
        const { length } = own.frames
        if (done === true) own.committed = length
        else void done.then(() => { own.committed = length }, () => undefined)
        return done
      },
      seal: ending => recording.seal(ending)
    })
  }
  return own
}

function statementsOf(frames: readonly Kept[]): Buffer {
  return Buffer.concat(frames.filter(({ kind }) => kind === frameKind.statement).map(({ body }) => body))
}

function eventsOf(frames: readonly Kept[]): Record<string, unknown>[] {
  return frames.filter(({ kind }) => kind === frameKind.event)
    .map(({ body }) => JSON.parse(body.toString()) as Record<string, unknown>)
}

const received = (target: FakeTarget, index: number = 0): Buffer =>
  Buffer.concat(target.connections[index]?.received ?? [])

async function session(house: World, name: string = 'alice'): Promise<RawClient> {
  return (await rawClient(house.front.port)).ready(name)
}

// ---- strict recording

test('a statement reaches the target only when the recorder has it, and what follows waits behind it', async () => {
  const recorder = tape()
  await using house = await world({ wrapRecording: recorder.wrap }, silent)
  const client = await session(house)
  let written = (): void => undefined
  recorder.commit = () => new Promise(resolve => { written = resolve })
  client.send(query('SELECT 1'))
  await until(() => statementsOf(recorder.frames).length > 0)
  client.send(query('SELECT 2'))
  await turns(50)
  assert.is(received(house.target).length, 0)
  assert.equal(statementsOf(recorder.frames), query('SELECT 1'))
  written()
  await until(() => received(house.target).length > 0 && statementsOf(recorder.frames).includes('SELECT 2'))
  assert.equal(received(house.target), query('SELECT 1'))
  written()
  await until(() => received(house.target).includes('SELECT 2'))
  client.socket.destroy()
})

test('when the recorder fails at any write, nothing that it does not have is delivered, and both sides are cut', async () => {
  const ways = ['throw', 'reject', 'abort'] as const
  for (const way of ways) {
    for (let failAt = 1; failAt <= 12; failAt++) {
      const recorder = tape()
      await using house = await world({ wrapRecording: recorder.wrap })
      const client = await session(house)
      let commits = 0
      recorder.commit = () => {
        if (++commits < failAt) return way === 'reject' && commits % 2 === 0 ? Promise.resolve() : true
        recorder.fail()
        const error = new SallyportError('recorder-failed')
        if (way === 'reject') return Promise.reject(error)
        if (way === 'throw') throw error
        return true
      }
      // One after the other, so that each is a write of its own; the failing one is in the company of others.
      for (let index = 1; index < failAt; index++) await client.send(query(`SELECT ${index}`)).until('Z')
      for (let index = 0; index < 5; index++) client.send(query(`SELECT ${failAt}, ${index}`))
      const before = client.heard.length
      assert.is(await client.refusal(), undefined)
      const ending = await house.front.ended()
      assert.equal([ending.how, ending.reason], ['cut', 'recorder-failed'])
      await until(() => house.target.connections[0]!.socket.destroyed)
      const recorded = statementsOf(recorder.frames.slice(0, recorder.committed))
      const arrived = received(house.target)
      assert.ok(recorded.subarray(0, arrived.length).equals(arrived), `${way} at ${failAt}`)
      assert.is(client.heard.length, before)
    }
  }
})

test('a recorder that fails while rows pass cuts at once, without a last word', async () => {
  const recorder = tape()
  await using house = await world({ wrapRecording: recorder.wrap })
  const client = await session(house)
  client.socket.pause()
  client.send(query('blast 50000000 1000'))
  await until(() => house.target.connections[0]!.socket.writableLength > 0)
  recorder.fail()
  assert.equal((await house.front.ended()).reason, 'recorder-failed')
  client.socket.resume()
  assert.is(await client.refusal(), undefined)
  assert.ok(client.heard.length < 50_000_000)
})

// ---- bytes

for (const readMode of ['shared', 'stream'] as const) {
  test(`bytes arrive as they were sent, however they are cut (${readMode})`, async () => {
    const recorder = tape()
    await using house = await world({ wrapRecording: recorder.wrap, listen: { readMode } }, silent)
    const client = await session(house)
    await until(() => house.target.connections.length === 1)
    const connection = house.target.connections[0]!
    const messages = Array.from({ length: 300 }, (_, index) => index % 7 === 0
      ? frame('d', randomBytes(randomInt(0, 30_000)))
      : query('x'.repeat(randomInt(0, index % 50 === 0 ? 200_000 : 300))))
    const sent = Buffer.concat(messages)
    for (let at = 0; at < sent.length;) {
      const next = Math.min(sent.length, at + randomInt(1, randomInt(2, 100_000)))
      client.socket.write(sent.subarray(at, next))
      if (randomInt(3) === 0) await turns(1)
      at = next
    }
    await until(() => connection.socket.bytesRead >= sent.length)
    await turns(5)
    assert.ok(received(house.target).equals(sent))
    assert.ok(statementsOf(recorder.frames).equals(Buffer.concat(messages.filter(each => each[0] === 0x51))))

    const back = Array.from({ length: 300 }, (_, index) =>
      index % 60 === 0 ? dataRow(randomInt(100_000, 900_000)) : dataRow(randomInt(0, 500)))
    const answer = Buffer.concat([...back, commandComplete('SELECT 300'), readyForQuery('I')])
    const start = client.heard.length
    for (let at = 0; at < answer.length;) {
      const next = Math.min(answer.length, at + randomInt(1, randomInt(2, 300_000)))
      connection.socket.write(answer.subarray(at, next))
      if (randomInt(3) === 0) await turns(1)
      at = next
    }
    await until(() => client.heard.length - start >= answer.length)
    assert.ok(client.heard.subarray(start).equals(answer))
    client.socket.destroy()
  })
}

test('many sessions at once never see a byte of each other', async () => {
  const echo = (socket: { write(bytes: Buffer): unknown }, tag: string, body: Buffer): void => {
    if (tag === 'Q') socket.write(Buffer.concat([frame('D', body), readyForQuery('I')]))
  }
  await using house = await world({}, { answer: echo })
  const clients = await Promise.all(Array.from({ length: 24 }, () => session(house)))
  await Promise.all(clients.map(async (client, index) => {
    for (let round = 0; round < 60; round++) {
      const size = [20, 3000, 9000, 70_000, 400_000][randomInt(5)]!
      const text = String.fromCharCode(65 + index).repeat(randomInt(1, size))
      client.send(query(text))
      const answer = await client.until('Z')
      assert.is(answer[0]!.body.toString(), `${text}\0`)
    }
    client.socket.destroy()
  }))
})

test('a client that does not read stops the target, and gets all of it later', async () => {
  await using house = await world()
  const client = await session(house)
  const socket = (await until(() => house.target.connections.length === 1), house.target.connections[0]!.socket)
  client.socket.pause()
  const before = client.heard.length
  client.send(query('blast 150000000 5000'))
  let last = -1
  await until(() => {
    const stopped = socket.bytesWritten - socket.writableLength
    const same = stopped > 1_000_000 && stopped === last
    last = stopped
    return same && socket.writableLength > 0
  })
  await turns(200)
  // What the kernel holds on two connections, and at most some buffers of ours.
  assert.ok(socket.bytesWritten - socket.writableLength < 40_000_000, `${socket.bytesWritten}`)
  let got = 0
  client.socket.removeAllListeners('data')
  const end = Buffer.concat([readyForQuery('I')])
  const whole = new Promise<void>(resolve => {
    client.socket.on('data', (chunk: Buffer) => {
      got += chunk.length
      if (chunk.subarray(-6).equals(end)) resolve()
    })
  })
  client.socket.resume()
  await whole
  assert.ok(got > 150_000_000 * 0.99 && before > 0, `${got}`)
  client.socket.destroy()
})

test('a target that does not read stops the client, and gets all of it later', async () => {
  await using house = await world({}, silent)
  const client = await session(house)
  await until(() => house.target.connections.length === 1)
  const { socket } = house.target.connections[0]!
  socket.pause()
  const piece = frame('d', Buffer.alloc(50_000, 7))
  client.send(query('COPY t FROM STDIN'))
  for (let index = 0; index < 1000; index++) client.socket.write(piece)
  let last = -1
  await until(() => {
    const sent = client.socket.bytesWritten - client.socket.writableLength
    const same = sent === last && client.socket.writableLength > 0
    last = sent
    return same
  })
  await turns(100)
  assert.ok(client.socket.bytesWritten - client.socket.writableLength < 40_000_000)
  socket.resume()
  const expected = query('COPY t FROM STDIN').length + piece.length * 1000
  await until(() => received(house.target).length === expected)
  client.socket.destroy()
})

// ---- what a client may not say

test('every tag that a client may not send in a session ends it, and does not reach the target', async () => {
  await using house = await world({}, silent)
  const allowed = new Set([...'QPBEFcfDCSdXH'].map(letter => letter.charCodeAt(0)))
  for (let tag = 0; tag < 256; tag++) {
    if (allowed.has(tag)) continue
    const client = await session(house)
    client.send(Buffer.from([tag, 0, 0, 0, 4]))
    const report = await client.refusal()
    assert.is(codeOf(report), 'protocol-violation', `tag ${tag}`)
    const { received: got } = house.target.connections.at(-1)!
    await until(() => house.target.connections.at(-1)!.socket.readableEnded)
    assert.equal(Buffer.concat(got).toString('latin1').replaceAll('X\0\0\0\x04', ''), '', `tag ${tag}`)
    assert.is((await house.front.ended()).reason, 'protocol-violation')
  }
})

test('lengths out of bounds end the session; nothing behind them becomes a message', async () => {
  await using house = await world({}, silent)
  for (const length of [0, 1, 2, 3, 0x40000000, 0x7fffffff, 0x80000000, 0xffffffff]) {
    const client = await session(house)
    const head = Buffer.from([0x51, 0, 0, 0, 0])
    head.writeUInt32BE(length, 1)
    client.send(Buffer.concat([head, query('DROP TABLE t')]))
    assert.is(codeOf(await client.refusal()), 'protocol-violation', `${length}`)
    await until(() => house.target.connections.at(-1)!.socket.readableEnded)
    assert.not.ok(Buffer.concat(house.target.connections.at(-1)!.received).includes('DROP'))
    await house.front.ended()
  }
})

test('what a client says while its account is made waits, and is judged when the session begins', async () => {
  let go = (): void => undefined
  const prepared = (): Promise<void> => new Promise(resolve => { go = resolve })
  await using house = await world({ preparing: prepared })
  const early = await (await rawClient(house.front.port)).logIn('early')
  early.send(query('SELECT 1'))
  await turns(20)
  assert.is(house.target.connections.length, 0)
  go()
  const messages = await early.until('C')
  assert.equal(messages.filter(({ tag }) => tag === 'C' || tag === 'Z').map(({ tag }) => tag), ['Z', 'C'])
  early.socket.destroy()

  const wrong = await (await rawClient(house.front.port)).logIn('wrong')
  wrong.send(frame('p', Buffer.from('again')))
  await turns(20)
  go()
  assert.is(codeOf(await wrong.refusal()), 'protocol-violation')
})

test('a client that leaves while its account is made costs no connection', async () => {
  let go = (): void => undefined
  await using house = await world({ preparing: () => new Promise(resolve => { go = resolve }) })
  for (const leave of ['end', 'destroy', 'resetAndDestroy'] as const) {
    const client = await (await rawClient(house.front.port)).logIn('alice')
    await until(() => house.front.live.size === 1)
    client.socket[leave]()
    await turns(20)
    go()
    const ending = await house.front.ended()
    assert.equal([ending.how, ending.reason], ['ended', 'client-closed'])
  }
  assert.is(house.target.connections.length, 0)
})

// ---- what a target may not say

test('a target that asks for a password, changes keys or breaks frames in a session is cut, with a word to the client', async () => {
  const bad: [string, Buffer][] = [
    ['a request for a cleartext password', frame('R', Buffer.from([0, 0, 0, 3]))],
    ['AuthenticationOk', frame('R', Buffer.alloc(4))],
    ['another cancel key', frame('K', Buffer.alloc(8))],
    ['another protocol version', frame('v', Buffer.alloc(8))],
    ['a length of 3', Buffer.from([0x44, 0, 0, 0, 3])],
    ['a length of 4 GiB', Buffer.from([0x44, 255, 255, 255, 255])],
    ['the five bytes', Buffer.from('4500000004', 'hex')],
    ...[...Array(256).keys()].filter(tag => !'CEIsVZNSADd123cntTGHW'.includes(String.fromCharCode(tag)))
      .map((tag): [string, Buffer] => [`tag ${tag}`, Buffer.from([tag, 0, 0, 0, 4])])
  ]
  await using house = await world({}, silent)
  const bystander = await session(house, 'bystander')
  for (const [name, bytes] of bad) {
    const client = await session(house)
    const { socket } = house.target.connections.at(-1)!
    client.send(query('SELECT 1'))
    await until(() => house.target.connections.at(-1)!.received.length === 1)
    // An empty ErrorResponse is well framed; it passes, as the client would get it directly.
    if (name === 'the five bytes') {
      socket.write(Buffer.concat([bytes, readyForQuery('I')]))
      assert.equal((await client.until('Z')).map(({ tag }) => tag), ['E', 'Z'])
      client.socket.destroy()
      await house.front.ended()
      continue
    }
    socket.write(bytes)
    assert.is(codeOf(await client.refusal()), 'target-violation', name)
    assert.is((await house.front.ended()).reason, 'target-violation')
    await until(() => socket.destroyed)
  }
  house.target.connections[0]!.socket.write(readyForQuery('I'))
  assert.is((await bystander.until('Z')).at(-1)?.tag, 'Z')
  bystander.socket.destroy()
})

// ---- notices and endings

test('a notice waits until the target has finished its message', async () => {
  await using house = await world({}, silent)
  const client = await session(house)
  const { socket } = house.target.connections[0]!
  const row = dataRow(1000)
  socket.write(Buffer.concat([rowDescription, row.subarray(0, 500)]))
  const start = client.heard.length
  await until(() => client.heard.length - start >= rowDescription.length + 500 || client.heard.includes('xxx'))
  house.front.live.get('alice')!.tell('this session ends in 5 minutes')
  await turns(20)
  assert.not.ok(client.heard.includes('this session ends'))
  socket.write(row.subarray(500))
  const heard = await client.until('N')
  assert.equal(heard.map(({ tag }) => tag), ['T', 'D', 'N'])
  assert.is(parseReport(heard[2]!.body).message, 'this session ends in 5 minutes')
  house.front.live.get('alice')!.tell('at once')
  assert.is(parseReport((await client.until('N'))[0]!.body).message, 'at once')
  client.socket.destroy()
})

test('progress is told after the proof and before the first prompt, never earlier', async () => {
  await using house = await world({ preparing: async tell => tell('making the account') })
  const client = await (await rawClient(house.front.port)).logIn('alice')
  const messages = await client.until('Z')
  assert.is(messages[0]!.tag, 'N')
  assert.is(parseReport(messages[0]!.body).severity, 'NOTICE')
  client.socket.destroy()
})

test('a session that is ended between two messages says why; in the middle of a row it is silence', async () => {
  const recorder = tape()
  await using house = await world({ wrapRecording: recorder.wrap }, silent)
  const idle = await session(house, 'idle')
  house.front.live.get('idle')!.cut(new SallyportError('session-killed'))
  const report = await idle.refusal()
  assert.equal([codeOf(report), report?.sqlstate], ['session-killed', '57P01'])
  assert.equal((await house.front.ended()).how, 'cut')
  assert.ok(received(house.target).equals(terminate()))
  assert.is(house.target.cancels.length, 0)

  const busy = await session(house, 'busy')
  busy.send(query('SELECT 1'))
  await until(() => received(house.target, 1).length > 0)
  house.target.connections[1]!.socket.write(Buffer.concat([rowDescription, dataRow(10), dataRow(1000).subarray(0, 500)]))
  await until(() => busy.heard.includes('xxx'))
  house.front.live.get('busy')!.cut(new SallyportError('session-expired'))
  assert.is(await busy.refusal(), undefined)
  assert.equal((await house.front.ended()).reason, 'session-expired')
  assert.is(house.target.cancels.length, 1)
  await until(() => house.target.connections[1]!.socket.destroyed)
  // What had been counted when it was cut is on record.
  assert.ok(eventsOf(recorder.frames).some(event => event['type'] === 'cut' && event['rows'] === 2))
})

test('a client that vanishes in the middle of a statement has it cancelled with the target\'s own key', async () => {
  for (const way of ['destroy', 'resetAndDestroy'] as const) {
    await using house = await world({}, silent)
    const client = await session(house)
    client.send(query('SELECT pg_sleep(1000)'))
    await until(() => received(house.target).length > 0)
    client.socket[way]()
    await turns(50)
    // A reset is certain; an end may be a client that waits for its answer.
    if (way === 'destroy') house.clock.advance(1000)
    await until(() => house.target.cancels.length === 1)
    assert.equal(house.target.cancels[0], { pid: 1001, key: Buffer.from([1, 2, 3, 4]) })
    assert.equal((await house.front.ended()).reason, 'client-closed')
    await until(() => house.target.connections[0]!.socket.readableEnded)
  }
})

test('a client that only closes its side still gets its answer', async () => {
  await using house = await world({}, silent)
  const client = await session(house)
  client.send(query('SELECT 1')).socket.end()
  await until(() => received(house.target).length > 0)
  await turns(50)
  house.target.connections[0]!.socket.write(Buffer.concat([dataRow(3), commandComplete('SELECT 1'), readyForQuery('I')]))
  assert.equal((await client.until('')).map(({ tag }) => tag), ['D', 'C', 'Z'])
  assert.equal((await house.front.ended()).reason, 'client-closed')
  await until(() => house.target.connections[0]!.socket.readableEnded)
  assert.is(house.target.cancels.length, 0)
  assert.ok(received(house.target).subarray(-5).equals(terminate()))
})

test('Terminate is passed on; behind it nothing is', async () => {
  await using house = await world({}, silent)
  const client = await session(house)
  client.send(Buffer.concat([query('SELECT 1'), terminate()]), query('SELECT 2'))
  await until(() => received(house.target).length > 0)
  await turns(30)
  assert.ok(received(house.target).equals(Buffer.concat([query('SELECT 1'), terminate()])))
  house.target.connections[0]!.socket.end(Buffer.concat([commandComplete('SELECT 1'), readyForQuery('I')]))
  assert.equal((await client.until('')).map(({ tag }) => tag), ['C', 'Z'])
  const ending = await house.front.ended()
  assert.equal([ending.how, ending.reason], ['ended', 'client-closed'])
})

test('a target that goes without a word is named; one that said why is quoted', async () => {
  await using house = await world({}, silent)
  const mute = await session(house)
  house.target.connections[0]!.socket.destroy()
  assert.is(codeOf(await mute.refusal()), 'target-closed')
  assert.equal((await house.front.ended()).reason, 'target-closed')
  const told = await session(house)
  const words = { severity: 'FATAL', sqlstate: '57P01', message: 'terminating connection due to administrator command' }
  house.target.connections[1]!.socket.end(errorResponse(words))
  const report = await told.refusal()
  assert.is(report?.message, words.message)
  assert.is(told.heard.toString('latin1').match(/FATAL/g)?.length, 2)
  assert.equal((await house.front.ended()).reason, 'target-closed')
})

// ---- the target's login

const refusing = (sqlstate: string, message: string): FakeOptions => ({
  behave: socket => socket.once('data', () => socket.end(errorResponse({ severity: 'FATAL', sqlstate, message })))
})

test('why a target refused is passed on where it helps, and hidden where it names the account', async () => {
  const cases: [string, string, boolean][] = [
    ['3D000', 'database "nope" does not exist', true],
    ['53300', 'sorry, too many clients already', true],
    ['57P03', 'the database system is starting up', true],
    ['28P01', 'password authentication failed for user "injected"', false],
    ['28000', 'no pg_hba.conf entry for host "10.0.0.1", user "injected", database "app", no encryption', false],
    ['28000', 'role is not permitted to log in', false],
    ['42501', 'permission denied for INJECTED', false]
  ]
  for (const [sqlstate, message, passes] of cases) {
    await using house = await world({}, refusing(sqlstate, message))
    const client = await (await rawClient(house.front.port)).logIn('alice')
    const report = await client.refusal()
    assert.is(codeOf(report), 'target-refused', message)
    assert.is(report?.sqlstate, passes ? sqlstate : '08004', message)
    assert.is(report?.detail, passes ? message : undefined, message)
    assert.not.match(client.heard.toString('latin1'), /injected/i)
    const ending = await house.front.ended()
    assert.is(ending.reason, 'target-refused')
    assert.ok(ending.detail?.includes(message))
  }
})

test('a target that asks for the password in clear or by MD5 gets neither', async () => {
  const asks: [Buffer, string][] = [
    [frame('R', Buffer.from([0, 0, 0, 3])), 'target-untrusted'],
    [frame('R', Buffer.from([0, 0, 0, 5, 1, 2, 3, 4])), 'target-untrusted'],
    [frame('R', Buffer.alloc(4)), 'target-untrusted'],
    [Buffer.from('HTTP/1.1 400 Bad Request'), 'target-violation']
  ]
  for (const [bytes, code] of asks) {
    const got: Buffer[] = []
    await using house = await world({}, {
      behave: socket => {
        socket.on('data', (chunk: Buffer) => got.push(chunk))
        socket.once('data', () => socket.write(bytes))
      }
    })
    const client = await (await rawClient(house.front.port)).logIn('alice')
    assert.is(codeOf(await client.refusal()), code)
    assert.not.ok(Buffer.concat(got).includes('fake-target'))
  }
})

test('a target that is not there is said to be unreachable', async () => {
  const gone = await startFakeTarget()
  await gone.stop()
  await using house = await world({ target: { host: '127.0.0.1', port: gone.port, tls: { mode: 'disable' } } })
  const client = await (await rawClient(house.front.port)).logIn('alice')
  assert.is(codeOf(await client.refusal()), 'target-unreachable')
  await using plain = await world()
  await using wants = await world({
    target: { host: '127.0.0.1', port: plain.target.port, tls: { mode: 'verify-full' } }
  })
  const other = await (await rawClient(wants.front.port)).logIn('alice')
  assert.is(codeOf(await other.refusal()), 'target-untrusted')
})

test('replication is refused unless it is granted, and is asked for as it was', async () => {
  const starts: string[] = []
  const listening: FakeOptions = {
    behave: socket => socket.once('data', (chunk: Buffer) => {
      starts.push(chunk.toString('latin1'))
      socket.end(errorResponse({ severity: 'FATAL', sqlstate: '57P03', message: 'starting up' }))
    })
  }
  const cases = [['database', false], ['true', false], ['off', false], ['database', true], ['yes', true]] as const
  for (const [value, allowed] of cases) {
    await using house = await world({ allowReplication: allowed }, listening)
    const client = await rawClient(house.front.port)
    await client.logIn('alice', undefined, [['replication', value], ['application_name', 'walker']])
    const refused = !allowed && value !== 'off'
    assert.is(codeOf(await client.refusal()), refused ? 'replication-refused' : 'target-refused', value)
    assert.is((await house.front.ended()).reason, refused ? 'replication-refused' : 'target-refused')
  }
  assert.is(starts.length, 3)
  const asked = starts.map(start => /replication\0(\w+)/.exec(start)?.[1])
  assert.equal(asked, [undefined, 'database', 'true'])
  assert.ok(starts.every(start => start.includes('user\0injected\0') && start.includes('application_name\0walker\0')))
})

// ---- what is on record

test('statements are on record as bytes, answers with their counts, settings as they change', async () => {
  const recorder = tape()
  await using house = await world({ wrapRecording: recorder.wrap }, silent)
  const client = await session(house)
  const { socket } = house.target.connections[0]!
  const sent = Buffer.concat([query('COPY t FROM STDIN')])
  client.send(sent, frame('d', Buffer.alloc(500)), frame('d', Buffer.alloc(700)), frame('c'))
  await until(() => received(house.target).length >= sent.length + 500 + 700 + 15)
  socket.write(Buffer.concat([
    parameterStatus('client_encoding', 'LATIN1'), commandComplete('COPY 2'), rowDescription, dataRow(94), dataRow(94),
    frame('d', Buffer.alloc(50)), commandComplete('SELECT 2'), readyForQuery('T')
  ]))
  await client.until('Z')
  const results = recorder.frames.filter(({ kind }) => kind === frameKind.result).flatMap(({ body }) => splitResults(body))
  const brief = results.map(({ tag, rows, bytes, copiedBytes, body }) =>
    [tag, rows, bytes, copiedBytes, body.toString('latin1').replaceAll('\0', ' ')])
  assert.equal(brief.slice(0, 3).map(([tag]) => tag), ['S', 'S', 'S'])
  assert.equal(brief.slice(3), [
    ['S', 0, 0, 1200, 'client_encoding LATIN1 '], ['C', 0, 0, 0, 'COPY 2 '], ['C', 2, 250, 0, 'SELECT 2 '],
    ['Z', 0, 0, 0, 'T']
  ])
  assert.ok(statementsOf(recorder.frames).equals(Buffer.concat([sent, frame('c')])))
  client.socket.destroy()
})

test('the bench target ends its rows where it says', async () => {
  await using house = await world()
  const client = await session(house)
  const { socket } = house.target.connections[0]!
  await blast(socket, 10_000, 100)
  const messages = await client.until('Z')
  const rows = messages.filter(({ tag }) => tag === 'D').length
  assert.is(messages.at(-2)!.body.toString(), `SELECT ${rows}\0`)
  client.socket.destroy()
})

test.run()
