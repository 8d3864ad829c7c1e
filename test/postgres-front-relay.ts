// The two streams of a session against a target that does what it is told: bytes arrive as they were sent,
// only after the recorder had them, and a slow side stops the other (R4, F16, F18). The clock stands still:
// what closes, closes without waiting for a timer.
import { randomBytes, randomInt } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import { Pace } from '../src/proxy/postgres/pace.ts'
import { frameKind } from '../src/recording/recording.ts'
import { frame, parameterStatus, query, readyForQuery } from '../src/wire/postgres/messages.ts'
import { splitResults } from '../src/wire/postgres/tape.ts'
import { blast, commandComplete, dataRow, rowDescription } from './peers/fake-target.ts'
import { codeOf } from './peers/raw-postgres.ts'
import { handClock } from './peers/raw-postgres.ts'
import { received, session, silent, statementsOf, tape, turns, until, world } from './peers/relay-world.ts'

// ---- strict recording

test('a statement reaches the target only when the recorder has it, what follows waits', async () => {
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

test('when the recorder fails at any write, nothing more is delivered and both sides are cut', async () => {
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
      assert.is(codeOf(await client.refusal()), 'recorder-failed')
      const ending = await house.front.ended()
      assert.equal([ending.how, ending.reason], ['cut', 'recorder-failed'])
      await until(() => house.target.connections[0]!.socket.destroyed)
      const recorded = statementsOf(recorder.frames.slice(0, recorder.committed))
      const arrived = received(house.target)
      assert.ok(recorded.subarray(0, arrived.length).equals(arrived), `${way} at ${failAt}`)
      // Our own last word, and not a byte of the target.
      const last = client.heard.subarray(before)
      assert.is(1 + last.readInt32BE(1), last.length)
    }
  }
})

test('a recorder that fails while rows pass cuts at once, with a last word at most', async () => {
  const recorder = tape()
  await using house = await world({ wrapRecording: recorder.wrap })
  const client = await session(house)
  client.socket.pause()
  client.send(query('blast 50000000 1000'))
  await until(() => house.target.connections[0]!.socket.writableLength > 0)
  recorder.fail()
  assert.equal((await house.front.ended()).reason, 'recorder-failed')
  client.socket.resume()
  assert.ok([undefined, 'recorder-failed'].includes(codeOf(await client.refusal())))
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
  const { socket } = house.target.connections[0]!
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

test('a large transfer in small pieces rests after each, a short or fast one never', () => {
  const pieces = (sizes: readonly number[], large: (index: number) => boolean = () => true): number => {
    let rests = 0
    const pace = new Pace({ ...handClock(), after: () => () => undefined }, () => undefined)
    for (const [index, size] of sizes.entries()) if (pace.rests(size, large(index))) rests++
    return rests
  }
  const [kib, mib] = [1024, 1024 * 1024]
  const times = (count: number, size: number): number[] => Array.from({ length: count }, () => size)
  assert.is(pieces(times(255, 8 * kib)), 0)
  assert.is(pieces(times(1000, 8 * kib)), 1000 - 255 - 1)
  // Each answer ends before it is large.
  assert.is(pieces(times(1000, 8 * kib), index => index % 100 !== 99), 0)
  assert.is(pieces(times(1000, mib)), 0)
  // One small piece now and then is how fast senders look, too.
  assert.is(pieces(times(1000, mib).map((size, index) => index % 10 === 9 ? 8 * kib : size)), 0)
  // What has been gathered in a rest is large; one rest in 33 is left out, to look again.
  const gathered = [...times(300, 8 * kib), ...times(33, 400 * kib)]
  assert.is(pieces(gathered), 300 - 255 - 1 + 31)
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
    parameterStatus('client_encoding', 'LATIN1'), commandComplete('COPY 2'),
    rowDescription, dataRow(94), dataRow(94),
    frame('d', Buffer.alloc(50)), commandComplete('SELECT 2'), readyForQuery('T')
  ]))
  await client.until('Z')
  const results = recorder.frames.filter(({ kind }) => kind === frameKind.result)
    .flatMap(({ body }) => splitResults(body))
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
