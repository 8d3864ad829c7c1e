// How a session ends: cut, broken, left or deserted, at both sides with the right word or none, and never
// later than its timers (J13, R7, R11, F24-F26); and what a target may say about a login before there is a
// session. The clock stands still unless it is moved.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import { frameKind } from '../src/recording/recording.ts'
import {
  errorResponse, frame, noticeResponse, query, readyForQuery, terminate
} from '../src/wire/postgres/messages.ts'
import { parseReport } from '../src/wire/postgres/parse.ts'
import { commandComplete, dataRow, rowDescription, startFakeTarget } from './peers/fake-target.ts'
import type { FakeOptions } from './peers/fake-target.ts'
import { codeOf, rawClient } from './peers/raw-postgres.ts'
import { eventsOf, received, session, silent, tape, turns, until, world } from './peers/relay-world.ts'

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

test('what a client says while its account is made is judged when the session begins', async () => {
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

test('a target that asks for a password, changes keys or breaks frames in a session is cut', async () => {
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
  await until(() => client.heard.length - start >= rowDescription.length + 500)
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

test('what the target says during its login is on record before the person sees it', async () => {
  const recorder = tape()
  const greeting = noticeResponse({ severity: 'WARNING', sqlstate: '01000', message: 'said at login' })
  await using house = await world({ wrapRecording: recorder.wrap }, { ...silent, greeting })
  const client = await (await rawClient(house.front.port)).logIn('alice')
  const notices = (await client.until('Z')).filter(({ tag }) => tag === 'N')
  const said = notices.map(({ body }) => parseReport(body).message)
  assert.equal(said, ['said at login'])
  const results = recorder.frames.filter(({ kind }) => kind === frameKind.result)
  assert.ok(results.some(({ body }) => body.includes('said at login')))
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

test('a session that is ended between two messages says why, in the middle of a row nothing', async () => {
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
  const half = dataRow(1000).subarray(0, 500)
  house.target.connections[1]!.socket.write(Buffer.concat([rowDescription, dataRow(10), half]))
  await until(() => busy.heard.includes('xxx'))
  house.front.live.get('busy')!.cut(new SallyportError('session-expired'))
  assert.is(await busy.refusal(), undefined)
  assert.equal((await house.front.ended()).reason, 'session-expired')
  assert.is(house.target.cancels.length, 1)
  await until(() => house.target.connections[1]!.socket.destroyed)
  // What had been counted when it was cut is on record.
  assert.ok(eventsOf(recorder.frames).some(event => event['type'] === 'cut' && event['rows'] === 2))
})

test('a client that vanishes has its statement cancelled, with the target\'s own key', async () => {
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
  const answer = Buffer.concat([dataRow(3), commandComplete('SELECT 1'), readyForQuery('I')])
  house.target.connections[0]!.socket.write(answer)
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
  const message = 'terminating connection due to administrator command'
  const words = { severity: 'FATAL', sqlstate: '57P01', message }
  house.target.connections[1]!.socket.end(errorResponse(words))
  const report = await told.refusal()
  assert.is(report?.message, words.message)
  assert.is(told.heard.toString('latin1').match(/FATAL/g)?.length, 2)
  assert.equal((await house.front.ended()).reason, 'target-closed')
})

// ---- the target's login

const refusing = (sqlstate: string, message: string): FakeOptions => ({
  behave: socket => socket.once('data', () => {
    socket.end(errorResponse({ severity: 'FATAL', sqlstate, message }))
  })
})

test('why a target refused is passed on where it helps, and hidden where it names the account', async () => {
  const cases: [string, string, boolean][] = [
    ['3D000', 'database "nope" does not exist', true],
    ['53300', 'sorry, too many clients already', true],
    ['57P03', 'the database system is starting up', true],
    ['28P01', 'password authentication failed for user "injected"', false],
    ['28000', 'no pg_hba.conf entry for host "10.0.0.1", user "injected", no encryption', false],
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
  const nowhere = { host: '127.0.0.1', port: gone.port, tls: { mode: 'disable' as const } }
  await using house = await world({ target: nowhere })
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
  const cases = [
    ['database', false], ['true', false], ['off', false], ['database', true], ['yes', true]
  ] as const
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
  assert.ok(starts.every(start => start.includes('user\0injected\0')))
  assert.ok(starts.every(start => start.includes('application_name\0walker\0')))
})

test.run()
