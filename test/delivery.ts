// Audit events on their way to a SIEM: what a message is, what counts as delivered with syslog (TCP, TLS,
// UDP) and with web hooks, and the courier over real positions in a store: in order, at least once, after a
// restart, from one node at a time, whatever the receiver does.
import { createHmac } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { createServer as createTcp } from 'node:net'
import type { AddressInfo, LookupFunction } from 'node:net'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { sleep, systemClock } from '../src/clock.ts'
import { asideMax, startCourier } from '../src/delivery/courier.ts'
import type { AuditEvent, CourierOptions, CourierTiming, Receiver } from '../src/delivery/courier.ts'
import { NotDelivered, inPieces } from '../src/delivery/pieces.ts'
import { syslogMessage, syslogReceiver } from '../src/delivery/syslog.ts'
import type { SyslogOptions } from '../src/delivery/syslog.ts'
import { wantsKind, webhookReceiver } from '../src/delivery/webhook.ts'
import type { WebhookOptions } from '../src/delivery/webhook.ts'
import { Secret } from '../src/secret.ts'
import { openAudit } from '../src/store/audit.ts'
import { createAuditOutbox } from '../src/store/audit-outbox.ts'
import type { Database } from '../src/store/database.ts'
import { openSigner } from '../src/store/keys.ts'
import { auditEvent } from '../src/store/schema.ts'
import { hookServer, identity, parseSyslog, syslogServer } from './peers/event-receivers.ts'
import { storeMaker } from './peers/stores.ts'

const stores = storeMaker('pglite')
test.after(async () => {
  for (const close of logs) await close()
  await stores.close()
})

function event(seq: number, more: Partial<AuditEvent> = {}): AuditEvent {
  return {
    chain: 'n1/b1', seq, at: '2026-11-28T12:00:00.000Z', kind: 'session.opened', actor: 'alice',
    subject: `s${seq}`, detail: { seq }, prev: '', hash: String(seq).padStart(64, '0'), ...more
  }
}

async function until(isSo: () => boolean): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + 10_000
  while (!isSo()) {
    assert.ok(systemClock.monotonicMs() < deadlineMs, 'it did not come to that')
    await sleep(systemClock, 10)
  }
}

const failureOf = (act: Promise<unknown>): Promise<NotDelivered> =>
  act.then(() => assert.unreachable('it was delivered') as never, (thrown: NotDelivered) => thrown)

// ---- messages

test('an event is a message of RFC 5424, whatever its words are', () => {
  const hostile = 'a"b\\c]d\ne\u202ef\u0085\ud800 ü'
  const given = event(7, { actor: hostile, detail: { why: hostile } })
  const { priority, host, kind, data, message } = parseSyslog(syslogMessage(given, 'node one').toString())
  assert.is(priority, 13 * 8 + 6)
  assert.equal([host, kind], ['node?one', 'session.opened'])
  assert.equal({ ...data, actor: '' }, {
    chain: 'n1/b1', seq: '7', actor: '', subject: 's7', hash: given.hash
  })
  assert.is(data['actor'], 'a"b\\c]d\\u000ae\\u202ef\\u0085\ufffd ü')
  assert.equal(message, { why: hostile.toWellFormed().replace('\ufffd', '\ud800') })
  const level = (of: string): number =>
    parseSyslog(syslogMessage(event(1, { kind: of }), 'n').toString()).priority & 7
  assert.equal(['account.alarm', 'recording.lost', 'login.refused', 'login'].map(level), [1, 1, 4, 6])
})

test('what is too long for a message is cut, and says so', () => {
  const long = event(1, { detail: { statement: 'x'.repeat(5000) } })
  const cut = syslogMessage(long, 'n', 2048)
  assert.ok(cut.length <= 2048)
  const { data, message } = parseSyslog(cut.toString())
  assert.is(data['cut'], 'true')
  assert.is(data['hash'], long.hash)
  assert.is(message, undefined)
  const names = syslogMessage(event(1, { actor: '"'.repeat(9999), subject: 'ü'.repeat(9999) }), 'n', 2048)
  parseSyslog(names.toString())
})

test('a hook gets the kinds that it asks for', () => {
  for (const pattern of ['*', 'session.*', 'session.opened']) {
    assert.ok(wantsKind([pattern], 'session.opened'), pattern)
  }
  for (const pattern of ['session', 'sess.*', 'session.ended', 'login.*']) {
    assert.not.ok(wantsKind([pattern], 'session.opened'), pattern)
  }
})

// ---- syslog

const toSyslog = (port: number, more: Partial<SyslogOptions> = {}): Receiver => syslogReceiver({
  host: '127.0.0.1', port, transport: 'tcp', hostname: 'n1', clock: systemClock, settleMs: 100, ...more
})

test('events arrive over one connection, in frames with a count', async () => {
  await using server = await syslogServer()
  const receiver = toSyslog(server.port)
  await receiver.send([event(1), event(2, { actor: 'ü'.repeat(50) })])
  await receiver.send([event(3)])
  receiver.close()
  assert.equal(server.problems, [])
  assert.equal(server.messages.map(text => parseSyslog(text).data['seq']), ['1', '2', '3'])
})

test('a connection that breaks while a batch is under way delivers none of it', async () => {
  await using server = await syslogServer()
  server.onMessage = (_, socket) => socket.destroy()
  const receiver = toSyslog(server.port)
  assert.match((await failureOf(receiver.send([event(1), event(2)]))).message, /connection broke/)
  server.onMessage = undefined
  await receiver.send([event(1), event(2)])
  assert.equal(server.messages.map(text => parseSyslog(text).data['seq']).slice(-2), ['1', '2'])
  receiver.close()
  await failureOf(receiver.send([event(3)]))
})

test('a receiver that takes no bytes is given up after a time', async () => {
  await using server = await syslogServer()
  server.deaf = true
  const receiver = toSyslog(server.port, { writeMs: 200 })
  const much = Array.from({ length: 500 }, (_, at) => event(at, { detail: { x: 'y'.repeat(30_000) } }))
  assert.match((await failureOf(receiver.send(much))).message, /does not read/)
  receiver.close()
})

test('over TLS only a receiver that proves who it is gets anything', async () => {
  const own = identity()
  await using server = await syslogServer(0, own)
  const receiver = toSyslog(server.port, { transport: 'tls', ca: own.cert })
  await receiver.send([event(1)])
  receiver.close()
  assert.is(server.messages.length, 1)
  for (const ca of [identity().cert, undefined]) {
    const stranger = toSyslog(server.port, { transport: 'tls', ca })
    assert.match((await failureOf(stranger.send([event(2)]))).message, /self-signed|unable to verify/)
  }
  assert.is(server.messages.length, 1)
  const plain = toSyslog(server.port, { transport: 'tcp', settleMs: 300 })
  await failureOf(plain.send([event(3)]))
  plain.close()
})

test('over UDP each event is one datagram that fits', async () => {
  const socket = createSocket('udp4')
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  const got: Buffer[] = []
  socket.on('message', message => got.push(message))
  const receiver = toSyslog((socket.address() as AddressInfo).port, { transport: 'udp' })
  await receiver.send([event(1), event(2, { detail: { x: 'y'.repeat(9999) } })])
  await until(() => got.length === 2)
  socket.close()
  assert.equal(got.map(message => parseSyslog(message.toString()).data['cut']), [undefined, 'true'])
  assert.ok(got.every(({ length }) => length <= 2048))
})

// ---- web hooks

const secret = new Secret('0123456789abcdef0123')
const own = identity()
const toHook = (url: string, more: Partial<WebhookOptions> = {}): Receiver => webhookReceiver({
  name: 'siem', url, secret, events: ['*'], ca: own.cert, version: '1', clock: systemClock, limitMs: 400,
  ...more
})

test('a post is signed over its time, its id and its body', async () => {
  await using server = await hookServer(own)
  const receiver = toHook(server.url)
  await receiver.send([event(1), event(2)])
  const [{ url, headers, body } = assert.unreachable() as never] = server.posts
  assert.is(url, '/hook?x=1')
  const { delivery, webhook, events } = JSON.parse(body) as
    { delivery: string, webhook: string, events: Record<string, unknown>[] }
  assert.equal([webhook, headers['sallyport-delivery'], headers['content-type']],
    ['siem', delivery, 'application/json'])
  const timestamp = String(headers['sallyport-timestamp'])
  const expected = createHmac('sha256', '0123456789abcdef0123').update(`${timestamp}.${delivery}.${body}`)
  assert.is(headers['sallyport-signature'], `v1=${expected.digest('hex')}`)
  assert.ok(Math.abs(Number(timestamp) * 1000 - Date.now()) < 5000)
  const { hash, prev: _, ...rest } = event(1)
  assert.equal(events[0], { id: hash, ...rest })
  await receiver.send([event(1), event(2)])
  assert.is(server.posts[1]?.headers['sallyport-delivery'], delivery, 'the same events, the same id')
  receiver.close()
})

test('only 2xx counts; redirects are not followed; slow and endless answers are cut', async () => {
  await using server = await hookServer(own)
  const receiver = toHook(server.url)
  const tried = async (answer: typeof server.answer): Promise<[string, boolean]> => {
    server.answer = answer
    const { message, refused } = await failureOf(receiver.send([event(1)]))
    return [message, refused]
  }
  const status = (code: number): typeof server.answer => response =>
    void response.writeHead(code, { location: server.url }).end('no')
  assert.equal(await tried(status(500)), ['answered 500', false])
  assert.equal(await tried(status(429)), ['answered 429', false])
  assert.equal(await tried(status(404)), ['answered 404', false])
  assert.equal(await tried(status(413)), ['answered 413', true])
  assert.equal(await tried(status(307)), ['answered 307', false])
  assert.is(server.posts.length, 5, 'nobody went where the redirect points')
  assert.match((await tried(() => undefined))[0], /no answer within 400 ms/)
  assert.match((await tried(response => void response.writeHead(200).write('x')))[0], /no answer|aborted/)
  const [endless] = await tried(response => void response.writeHead(200).end(Buffer.alloc(2e6)))
  assert.match(endless, /does not end|abort/)
  server.answer = response => void response.writeHead(200).end('ok')
  await receiver.send([event(1)])
  receiver.close()
  const stranger = toHook(server.url, { ca: identity().cert })
  assert.match((await failureOf(stranger.send([event(1)]))).message, /self-signed|unable to verify/)
  stranger.close()
})

test('an answer that nobody asked for is none, nor is one that lies about its length', async () => {
  let answer = 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n'
  const server = createTcp(socket => socket.on('error', () => undefined).on('data', () => {
    socket.write(answer)
    setTimeout(() => socket.write(answer), 20)
  }))
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const receiver = toHook(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`)
  await receiver.send([event(1)])
  await sleep(systemClock, 60)
  const head = 'HTTP/1.1 200 OK\r\n'
  for (const lie of ['', `${head}content-length: 9\r\n\r\n12`, `${head}x: ${'x'.repeat(99_999)}`]) {
    answer = lie
    const { message } = await failureOf(receiver.send([event(2)]))
    assert.match(message, /no answer|hang up|Parse Error|aborted/)
  }
  receiver.close()
  server.close()
})

test('without TLS events stay on this machine, whatever its name resolves to at that moment', async () => {
  let posts = 0
  const server = createServer((_request, response) => {
    posts++
    response.end()
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  let address = '127.0.0.1'
  const lookup: LookupFunction = (_name, { all }, done) =>
    all === true ? done(null, [{ address, family: 4 }]) : done(null, address, 4)
  const url = `http://localhost:${(server.address() as AddressInfo).port}/`
  const send = async (): Promise<void> => {
    const receiver = toHook(url, { lookup })
    await receiver.send([event(1)])
    receiver.close()
  }
  await send()
  address = '192.0.2.1'
  assert.match((await failureOf(send())).message, /localhost is another machine/)
  assert.is(posts, 1)
  server.close()
})

// ---- the courier

interface World {
  database: Database
  write(count: number, word: string): Promise<void>
}

let opened: Promise<World> | undefined

/** One log for all: a receiver that is new begins with now. */
function world(): Promise<World> {
  opened ??= openWorld()
  return opened
}

async function openWorld(): Promise<World> {
  const { database, dataDir } = await stores.open()
  const log = await openAudit({
    database, clock: systemClock, signer: openSigner(dataDir), node: 'n1', boot: 'b1', instance: 'i',
    checkpointFile: join(dataDir, 'checkpoints.jsonl')
  })
  logs.push(() => log.close())
  return {
    database,
    async write(count, word) {
      await Promise.all(Array.from({ length: count }, (_, at) =>
        log.append('session.opened', 'alice', `${word} ${at}`, { at })))
    }
  }
}

const logs: (() => Promise<void>)[] = []
const quick: Partial<CourierTiming> = { pollMs: 10, standbyMs: 20, retryMs: 5, retryMaxMs: 20, asideMs: 10 }

/** A receiver in memory that does as it is told. */
function listed(name: string, eventsMax = 3) {
  const got: AuditEvent[] = []
  const told = { fail: undefined as Error | undefined, refuses: /^$/, got }
  const receiver: Receiver = {
    name, eventsMax, wants: kind => kind !== 'audit.opened',
    send: events => {
      if (told.fail !== undefined) return Promise.reject(told.fail)
      if (events.some(({ subject }) => told.refuses.test(subject))) {
        return Promise.reject(new NotDelivered('answered 400', true))
      }
      got.push(...events)
      return Promise.resolve()
    },
    close: () => undefined
  }
  return { told, receiver }
}

function noting(): Pick<CourierOptions, 'alarm' | 'refused' | 'givenUp'> & { notes: string[] } {
  const notes: string[] = []
  return {
    notes,
    alarm: (kind, why) => Promise.resolve(void notes.push(`${kind} ${why}`.trim())),
    refused: ({ subject }, why) => Promise.resolve(void notes.push(`refused ${subject}: ${why}`)),
    givenUp: ({ subject }, why) => Promise.resolve(void notes.push(`given up ${subject}: ${why}`))
  }
}

test('events come in order and once, and after a restart from where it was', async () => {
  const { database, write } = await world()
  const { told, receiver } = listed('ordered')
  const note = noting()
  const start = (who: string) => startCourier({
    clock: systemClock, outbox: createAuditOutbox(database, who), receiver, timing: quick, ...note
  })
  await write(5, 'before')
  const courier = start('one')
  await sleep(systemClock, 100)
  assert.equal(told.got, [], 'a new receiver begins with now')
  await write(10, 'first')
  await until(() => told.got.length >= 10)
  await courier.close()
  await write(4, 'away')
  const outbox = createAuditOutbox(database, 'one')
  assert.is((await outbox.behind()).get('ordered')?.events, 4)
  const again = start('one')
  await until(() => told.got.length >= 14)
  await again.close()
  const numbers = told.got.map(({ subject }) => subject)
  assert.equal(numbers, [...Array.from({ length: 10 }, (_, at) => `first ${at}`),
    ...Array.from({ length: 4 }, (_, at) => `away ${at}`)])
  assert.equal(note.notes, [])
  const rows = await database.run(handle => handle.select().from(auditEvent))
  const last = told.got.at(-1)!
  assert.equal(last, rows.find(({ hash }) => hash === last.hash))
})

test('a receiver that fails is an alarm, once, and gets what it missed when it is back', async () => {
  const { database, write } = await world()
  const { told, receiver } = listed('failing')
  const note = noting()
  const outbox = createAuditOutbox(database, 'one')
  const courier = startCourier({ clock: systemClock, outbox, receiver, timing: quick, ...note })
  await until(() => courier.failure() === undefined)
  await sleep(systemClock, 50)
  told.fail = new NotDelivered('away')
  await write(7, 'missed')
  await until(() => courier.failure() === 'away')
  await sleep(systemClock, 100)
  assert.equal(note.notes, ['receiver-failing away'])
  told.fail = undefined
  await until(() => told.got.length === 7)
  await until(() => note.notes.length === 2)
  assert.equal(note.notes[1], 'receiver-recovered')
  assert.is(courier.failure(), undefined)
  await courier.close()
})

test('a receiver that refuses all is waited for, for days; being away is for ever', async () => {
  const { database, write } = await world()
  const { told, receiver } = listed('refusing', 2)
  const note = noting()
  const timing = { ...quick, refusedMs: 150 }
  const outbox = createAuditOutbox(database, 'one')
  const courier = startCourier({ clock: systemClock, outbox, receiver, timing, ...note })
  await sleep(systemClock, 50)
  told.refuses = /bad/
  await write(2, 'bad')
  await until(() => note.notes.includes('given up bad 1: answered 400'))
  assert.equal(note.notes.filter(line => !line.startsWith('receiver')), [
    'refused bad 0: answered 400', 'refused bad 1: answered 400',
    'given up bad 0: answered 400', 'given up bad 1: answered 400'
  ])
  told.fail = new NotDelivered('away')
  await write(2, 'kept')
  await sleep(systemClock, 400)
  told.fail = undefined
  await until(() => told.got.length === 2)
  assert.equal(told.got.map(({ subject }) => subject), ['kept 0', 'kept 1'])
  await courier.close()
})

test('one event that is refused waits aside; all others go on, in order', async () => {
  const { database, write } = await world()
  const { told, receiver } = listed('picky', 8)
  const note = noting()
  const outbox = createAuditOutbox(database, 'one')
  const start = (refusedMs: number) => startCourier({
    clock: systemClock, outbox, receiver, timing: { ...quick, refusedMs }, ...note
  })
  const behind = async () => (await outbox.behind()).get('picky')!
  const first = start(60_000)
  await sleep(systemClock, 50)
  await first.close()
  told.refuses = /^a (3|7|8)$/
  await write(12, 'a')
  const second = start(60_000)
  await until(() => told.got.length === 9)
  assert.is(second.failure(), undefined)
  await second.close()
  const others = [0, 1, 2, 4, 5, 6, 9, 10, 11].map(at => `a ${at}`)
  assert.equal(told.got.map(({ subject }) => subject), others)
  assert.equal(note.notes, [3, 7, 8].map(at => `refused a ${at}: answered 400`))
  const stood = await behind()
  assert.equal([stood.events, stood.aside, stood.givenUp, stood.oldestSeconds > 0], [0, 3, 0, true])

  // A later start knows them; one that is mended arrives, the others are given up after their time.
  told.refuses = /^a (3|7)$/
  const third = start(1)
  await until(() => note.notes.includes('given up a 7: answered 400'))
  await write(1, 'b')
  await until(() => told.got.length === 11)
  await third.close()
  assert.equal(told.got.slice(9).map(({ subject }) => subject), ['a 8', 'b 0'])
  const { givenUpAt, ...ended } = await behind()
  assert.equal(ended, { events: 0, oldestSeconds: 0, aside: 0, givenUp: 2 })
  assert.ok(Math.abs(givenUpAt!.getTime() - Date.now()) < 60_000)
})

test('what is refused is kept in bounds: of too many the oldest is given up', async () => {
  const { database, write } = await world()
  const { told, receiver } = listed('crowded', 100)
  const note = noting()
  const outbox = createAuditOutbox(database, 'one')
  const courier = startCourier({
    clock: systemClock, outbox, receiver, timing: { ...quick, asideMs: 60_000 }, ...note
  })
  await sleep(systemClock, 50)
  told.refuses = /bad/
  for (let at = 0; at < 3; at++) {
    await write(asideMax / 2, `bad ${at}`)
    await write(1, `fine ${at}`)
  }
  await until(() => note.notes.filter(line => line.startsWith('given up')).length === asideMax / 2)
  await courier.close()
  assert.equal((await outbox.behind()).get('crowded')?.aside, asideMax)
  assert.equal(told.got.map(({ subject }) => subject), ['fine 0 0', 'fine 1 0', 'fine 2 0'])
})

test('a walk ends where the receiver is away, and what comes behind is not sent', async () => {
  const sent: string[] = []
  const receiver: Receiver = {
    name: 'walk', eventsMax: 8, wants: kind => kind === 'session.opened', close: () => undefined,
    send: events => {
      const subjects = events.map(({ subject }) => subject)
      sent.push(subjects.join())
      if (subjects.includes('s2')) return Promise.reject(new NotDelivered('answered 413', true))
      return subjects[0] === 's4' ? Promise.reject(new NotDelivered('answered 503')) : Promise.resolve()
    }
  }
  const events = [1, 2, 3, 4, 5, 6].map(at => event(at, at === 3 ? { kind: 'login' } : {}))
  const found: string[] = []
  for await (const { end, refused, failed, sent: taken } of inPieces(receiver, events)) {
    found.push(`${end} ${taken ? 'taken' : refused ?? failed ?? 'unwanted'}`)
  }
  const halved = '0 answered 413'
  assert.equal(found, [halved, halved, halved, '1 taken', '3 answered 413', '4 answered 503'])
  assert.equal(sent, ['s1,s2,s4,s5,s6', 's1,s2,s4', 's1,s2', 's1', 's2', 's4'])
})

test('of two nodes one sends; the other goes on when it stops', async () => {
  const { database, write } = await world()
  const [one, two] = [listed('shared'), listed('shared')]
  const note = noting()
  const outboxes = ['one', 'two'].map(who => createAuditOutbox(database, who))
  const couriers = [one, two].map(({ receiver }, at) => startCourier({
    clock: systemClock, outbox: outboxes[at]!, receiver, timing: quick, ...note
  }))
  await sleep(systemClock, 100)
  await write(6, 'a')
  await until(() => one.told.got.length + two.told.got.length === 6)
  const [first, second] = one.told.got.length === 6 ? [0, 1] : [1, 0]
  assert.equal([one, two][second]!.told.got, [])
  await couriers[first]!.close()
  await outboxes[first]!.release()
  await write(3, 'b')
  await until(() => [one, two][second]!.told.got.length === 3)
  await couriers[second]!.close()
})

test.run()
