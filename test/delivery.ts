// Audit events on their way to a SIEM: what a message is, what counts as delivered with syslog (TCP, TLS,
// UDP) and with web hooks, and the courier over real positions in a store: in order, at least once, after a
// restart, from one node at a time, whatever the receiver does.
import { createHmac } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { sleep, systemClock } from '../src/clock.ts'
import { NotDelivered, startCourier } from '../src/delivery/courier.ts'
import type { AuditEvent, CourierOptions, CourierTiming, Receiver } from '../src/delivery/courier.ts'
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
      for (let at = 0; at < count; at++) await log.append('session.opened', 'alice', `${word} ${at}`, { at })
    }
  }
}

const logs: (() => Promise<void>)[] = []
const quick: Partial<CourierTiming> = { pollMs: 10, standbyMs: 20, retryMs: 5, retryMaxMs: 20 }

/** A receiver in memory that does as it is told. */
function listed(name: string, eventsMax = 3) {
  const got: AuditEvent[] = []
  const told = { fail: undefined as Error | undefined, got }
  const receiver: Receiver = {
    name, eventsMax, wants: kind => kind !== 'audit.opened',
    send: events => {
      if (told.fail !== undefined) return Promise.reject(told.fail)
      got.push(...events)
      return Promise.resolve()
    },
    close: () => undefined
  }
  return { told, receiver }
}

function noting(): Pick<CourierOptions, 'alarm' | 'skipped'> & { notes: string[] } {
  const notes: string[] = []
  return {
    notes,
    alarm: (kind, why) => Promise.resolve(void notes.push(`${kind} ${why}`.trim())),
    skipped: (events, why) => Promise.resolve(void notes.push(`skipped ${events.length}: ${why}`))
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
  assert.is((await outbox.behind()).get('ordered'), 4)
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

test('what a receiver refuses for days is left out, and noted; being away never is', async () => {
  const { database, write } = await world()
  const { told, receiver } = listed('refusing', 2)
  const note = noting()
  const timing = { ...quick, refusedMs: 150 }
  const outbox = createAuditOutbox(database, 'one')
  const courier = startCourier({ clock: systemClock, outbox, receiver, timing, ...note })
  await sleep(systemClock, 50)
  told.fail = new NotDelivered('answered 413', true)
  await write(2, 'bad')
  await until(() => note.notes.includes('skipped 2: answered 413'))
  told.fail = new NotDelivered('away')
  await write(2, 'kept')
  await sleep(systemClock, 400)
  told.fail = undefined
  await until(() => told.got.length === 2)
  assert.equal(told.got.map(({ subject }) => subject), ['kept 0', 'kept 1'])
  await courier.close()
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
