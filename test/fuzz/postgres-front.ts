// Damaged conversations with the PostgreSQL front end: good logins and good sessions whose bytes are
// flipped, cut, doubled and mixed, from the client's side and from the target's. Whatever comes, the process
// lives, a session beside it answers, nothing reaches the target that the recorder does not have, and nobody
// is left in the house. The seed is printed; `SEED=n node test/fuzz/postgres-front.ts` runs the same again,
// `ROUNDS=n` makes it longer.
// deadline: 300 s
import { createHash, randomInt } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { frame, query, sslRequest, startupMessage, terminate } from '../../src/wire/postgres/messages.ts'
import {
  commandComplete, dataRow, fakePassword, rowDescription, startFakeTarget
} from '../peers/fake-target.ts'
import { startPassThrough } from '../peers/pass-through.ts'
import { rawClient } from '../peers/raw-postgres.ts'
import type { RawClient } from '../peers/raw-postgres.ts'
import { received, session, statementsOf, tape, until, world } from '../peers/relay-world.ts'
import type { World } from '../peers/relay-world.ts'

const seed = Number(process.env['SEED'] ?? randomInt(2 ** 31))
const rounds = Number(process.env['ROUNDS'] ?? 150)
console.log(`seed ${seed}, ${rounds} rounds`)

/** A stream of numbers from the seed and a name: each test draws its own. */
function generator(name: string): (below: number) => number {
  let count = 0
  return below => createHash('sha512').update(`${seed} ${name} ${count++}`).digest().readUInt32BE() % below
}

/** The same bytes, with one to four wounds. */
function damaged(good: Buffer, draw: (below: number) => number): Buffer {
  let bytes = Buffer.from(good)
  for (let wounds = 1 + draw(4); wounds > 0 && bytes.length > 0; wounds--) {
    const at = draw(bytes.length)
    const length = 1 + draw(Math.min(16, bytes.length))
    const kind = draw(6)
    if (kind === 0) bytes[at] = bytes[at]! ^ (1 << draw(8))
    else if (kind === 1) bytes[at] = draw(256)
    else if (kind === 2) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)])
    else if (kind === 3) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(draw(bytes.length))])
    else if (kind === 4) bytes.fill(draw(2) * 255, at, Math.min(bytes.length, at + length))
    else bytes = Buffer.concat([bytes.subarray(0, at + length), bytes.subarray(at)])
  }
  return bytes
}

/** In pieces, as a network would have it. */
async function sendInPieces(
  client: RawClient, bytes: Buffer, draw: (below: number) => number
): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    const next = Math.min(bytes.length, at + 1 + draw(draw(4) === 0 ? 10 : 4000))
    client.send(bytes.subarray(at, next))
    if (draw(3) === 0) await new Promise(resolve => setImmediate(resolve))
    at = next
  }
}

async function answers(client: RawClient): Promise<void> {
  const messages = await client.send(query('SELECT 1')).until('Z')
  assert.is(messages.at(-1)?.tag, 'Z')
}

/** Lets time pass until the session is over. */
async function ended(house: World): Promise<void> {
  let over = false
  void house.front.ended().then(() => { over = true })
  await until(() => {
    house.clock.advance(1000)
    return over
  })
}

/** Everything that was opened is closed again. */
async function emptied(house: World, bystanders: number): Promise<void> {
  await until(() => house.front.listener.stats().connections === bystanders)
  assert.is(house.front.listener.stats().cancelKeys, bystanders)
}

const statements = Buffer.concat([
  query('SELECT * FROM accounts'), frame('P', Buffer.from('s\0SELECT $1\0\0\0')),
  frame('B', Buffer.from('\0s\0\0\0\0\x01\0\0\0\x04abcd\0\0')), frame('D', Buffer.from('P\0')),
  frame('E', Buffer.from('\0\0\0\0\0')), frame('S'), query('COPY t FROM STDIN'),
  frame('d', Buffer.alloc(3000, 0x61)), frame('c'), query('SELECT 2')
])
const reply = Buffer.concat([
  rowDescription, dataRow(20), dataRow(5000), commandComplete('SELECT 2'), frame('Z', Buffer.from('I')),
  frame('N', Buffer.from('SNOTICE\0VNOTICE\0C00000\0Mhello\0\0')), frame('G', Buffer.from('\0\0\x01\0\0')),
  frame('d', Buffer.alloc(200)), frame('c'), commandComplete('COPY 1'), frame('Z', Buffer.from('I'))
])

test('damaged openings: refused or a login, never more', async () => {
  const draw = generator('openings')
  const good = [
    startupMessage([['user', 'alice'], ['database', 'app'], ['options', '-c geqo=off']]), sslRequest(),
    Buffer.from('160301006b010000670303', 'hex'),
    frame('p', Buffer.from('SCRAM-SHA-256\0\0\0\0\x08n,,n=,r=a'))
  ]
  await using target = await startFakeTarget()
  await using front = await startPassThrough({
    target: { host: '127.0.0.1', port: target.port, tls: { mode: 'disable' } }, role: 'injected',
    password: fakePassword, iterations: 1,
    listen: { limits: { loginFailuresPerMinuteMax: 1e9, cancelFailuresPerMinuteMax: 1e9 } }
  })
  for (let round = 0; round < rounds * 4; round++) {
    const client = await rawClient(front.port)
    await sendInPieces(client, damaged(Buffer.concat([good[draw(4)]!, good[draw(4)]!]), draw), draw)
    if (draw(2) === 0) client.socket.end()
    else client.socket.destroy()
  }
  await until(() => front.listener.stats().connections === 0)
  assert.is(target.connections.length, 0)
})

test('damaged sessions: what reaches the target is on record, other sessions are untouched', async () => {
  const draw = generator('sessions')
  const recorder = tape()
  await using house = await world({ wrapRecording: recorder.wrap }, { answer: () => undefined })
  await using quiet = await world()
  const bystander = await session(quiet)
  for (let round = 0; round < rounds; round++) {
    recorder.frames.length = 0
    const client = await session(house)
    const index = house.target.connections.length - 1
    await sendInPieces(client, damaged(statements, draw), draw)
    client.socket.end()
    await until(() => client.socket.readableEnded || client.socket.destroyed || draw(50) === 0)
    await ended(house)
    await until(() => house.target.connections[index]!.socket.destroyed)
    // Copied data is counted, not kept; all else must be on record, in order. The goodbye is ours.
    const kept = statementsOf(recorder.frames)
    for (const message of house.target.connections[index]!.received) {
      if (message[0] === 0x64 || message[0] === 0x48 || message.equals(terminate())) continue
      const said = message.toString('latin1')
      assert.ok(message[0] === 0x58 || kept.includes(message), `round ${round}: ${said}`)
    }
    if (round % 20 === 0) await answers(bystander)
  }
  await emptied(house, 0)
  bystander.socket.destroy()
})

test('damaged answers: the session ends or goes on, other sessions are untouched', async () => {
  const draw = generator('answers')
  await using house = await world({}, {
    answer: (socket, tag) => {
      if (tag === 'Q') socket.write(damaged(reply, draw))
      if (tag === 'X') socket.end()
    }
  })
  await using quiet = await world()
  const bystander = await session(quiet)
  for (let round = 0; round < rounds; round++) {
    const client = await session(house)
    const index = house.target.connections.length - 1
    client.send(query('SELECT 1'))
    await until(() => received(house.target, index).length > 0)
    for (let turn = 0; turn < 10; turn++) await new Promise(resolve => setImmediate(resolve))
    client.socket.destroy()
    await ended(house)
    if (round % 20 === 0) await answers(bystander)
  }
  await emptied(house, 0)
  bystander.socket.destroy()
})

test.run()
