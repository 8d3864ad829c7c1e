// The data path of TCP targets at its limits: nothing is delivered before the recorder has it, a slow reader
// stops a fast target, a target that hangs is given up; and its small parts: the cover over a one-time
// password, tickets, the dump and the words of a recording (D3, J14, R8, R12).
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { systemClock } from '../src/clock.ts'
import { SallyportError } from '../src/errors.ts'
import type { Injectable } from '../src/jit/plugin.ts'
import { makesTyped, mintFor } from '../src/jit/shelf.ts'
import { mintTypedPassword } from '../src/jit/typed-password.ts'
import type { Target } from '../src/policy/types.ts'
import { Lines } from '../src/proxy/tcp/lines.ts'
import { createTickets } from '../src/proxy/tcp/tickets.ts'
import type { Bearer } from '../src/proxy/tcp/tickets.ts'
import { Tunnel, connectionsMax } from '../src/proxy/tcp/tunnel.ts'
import type { TunnelSetting } from '../src/proxy/tcp/tunnel.ts'
import { Veil } from '../src/proxy/tcp/veil.ts'
import { ByteDump, TextRuns } from '../src/recording/bytes.ts'
import type { Frame } from '../src/recording/format.ts'
import { frameKind } from '../src/recording/recording.ts'
import type { FrameKind, Recording } from '../src/recording/recording.ts'
import { Secret } from '../src/secret.ts'
import { handOver } from '../src/session/hand-over.ts'
import { verifyPassword } from '../src/wire/postgres/verifier.ts'
import { example } from '../plugins/example.ts'
import { linux } from '../plugins/linux.ts'
import { postgres } from '../plugins/postgres.ts'
import { StillClock, seeded, until } from './peers/recordings.ts'

/** Keeps what it is given; `held` holds its commits back. */
class Tape implements Recording {
  readonly session = 'tape'
  readonly failed = new AbortController().signal
  readonly frames: { kind: FrameKind, lane: number, body: Buffer }[] = []
  held: Promise<void> | undefined

  append(kind: FrameKind, lane: number, ...parts: readonly Uint8Array[]): void {
    this.frames.push({ kind, lane, body: Buffer.concat(parts) })
  }

  commit(): true | Promise<void> {
    return this.held ?? true
  }

  seal(): Promise<never> {
    return Promise.reject(new Error('nobody seals this'))
  }

  bytes(kind: FrameKind): Buffer {
    return Buffer.concat(this.frames.filter(frame => frame.kind === kind).map(({ body }) => body))
  }

  events(): string[] {
    return this.frames.filter(({ kind }) => kind === frameKind.event)
      .map(({ body }) => String((JSON.parse(body.toString()) as { type: string }).type))
  }
}

interface Played extends AsyncDisposable {
  tape: Tape
  tunnel: Tunnel
  /** Connections that the target has. */
  sockets: Socket[]
}

/** A tunnel to a server that plays a target. */
async function played(
  play: (socket: Socket) => void, more: Partial<TunnelSetting> = {}
): Promise<Played> {
  const sockets: Socket[] = []
  const server = createServer({ allowHalfOpen: true }, socket => {
    sockets.push(socket.on('error', () => undefined))
    play(socket)
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const tape = new Tape()
  const { port } = server.address() as AddressInfo
  const tunnel = new Tunnel({
    target: { name: 'played', host: '127.0.0.1', port }, recording: tape, clock: systemClock, connectMs: 2000,
    password: undefined, ...more
  })
  return {
    tape, tunnel, sockets,
    [Symbol.asyncDispose]: async () => {
      tunnel.end()
      for (const socket of sockets) socket.destroy()
      server.close()
    }
  }
}

/** The person's side: what is written to it comes in `heard`; `read` says whether it is taken. */
class Person extends Duplex {
  heard = 0
  reads = true
  #waiting: (() => void) | undefined

  override _read(): void {
    return undefined
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.heard += chunk.length
    if (this.reads) done()
    else this.#waiting = done
  }

  goOn(): void {
    this.reads = true
    this.#waiting?.()
  }
}

test('not a byte is delivered before the recorder has it, in either direction', async () => {
  let heard = ''
  await using world = await played(socket => socket.on('data', chunk => {
    heard += String(chunk)
    socket.write('answer')
  }))
  let release: () => void = () => undefined
  world.tape.held = new Promise(resolve => { release = resolve })
  const person = new Person()
  void (await world.tunnel.dial('test')).carry(person)
  person.push('question')
  await until(() => world.tape.bytes(frameKind.input).toString() === 'question')
  await new Promise(resolve => setTimeout(resolve, 100))
  assert.is(heard, '')
  world.tape.held = undefined
  release()
  await until(() => person.heard === 6)
  assert.equal([heard, world.tape.bytes(frameKind.output).toString()], ['question', 'answer'])
})

test('a recorder that fails ends the connection, and nothing of the chunk was delivered', async () => {
  let heard = 0
  await using world = await played(socket => socket.on('data', chunk => { heard += chunk.length }))
  const person = new Person()
  const carried = (await world.tunnel.dial('test')).carry(person)
  world.tape.held = Promise.reject(new SallyportError('recorder-failed'))
  person.push('question')
  await carried
  assert.equal([heard, person.destroyed], [0, true])
})

test('a person who does not read stops a target that never ends, and goes on later', async () => {
  await using world = await played(socket => {
    const flood = (): void => { while (socket.write(Buffer.alloc(65_536))); }
    socket.on('drain', flood)
    flood()
  })
  const person = new Person()
  person.reads = false
  void (await world.tunnel.dial('test')).carry(person)
  await until(() => person.heard > 0)
  let before = -1
  while (before !== world.sockets[0]!.bytesWritten) {
    before = world.sockets[0]!.bytesWritten
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  // What the kernel holds for two sockets, and not what the target has.
  assert.ok(world.tape.bytes(frameKind.output).length < 1024 * 1024)
  assert.ok(before < 32 * 1024 * 1024, `${before}`)
  person.goOn()
  await until(() => person.heard > 64 * 1024 * 1024)
  assert.ok(person.heard <= world.tape.bytes(frameKind.output).length)
})

test('what a slow person has not taken yet when both sides have ended still arrives', async () => {
  await using world = await played(socket => socket.resume().on('end', () => socket.end('the last words')))
  const person = new Person()
  person.reads = false
  const carried = (await world.tunnel.dial('test')).carry(person)
  person.push(null)
  await until(() => person.heard > 0 && person.writableEnded)
  await new Promise(resolve => setTimeout(resolve, 50))
  assert.not(person.destroyed, 'it was written and is not taken')
  let isFinished = false
  person.once('finish', () => { isFinished = true })
  person.goOn()
  await carried
  assert.equal([isFinished, person.heard], [true, 14])
})

test('nothing is dialled, and nothing recorded, once the session is over', async () => {
  await using world = await played(socket => socket.resume())
  world.tunnel.end()
  const refusal = await world.tunnel.dial('late').catch((thrown: unknown) => thrown)
  assert.is((refusal as SallyportError).code, 'target-closed')
  assert.equal([world.sockets.length, world.tape.frames.length], [0, 0])
})

test('connections of one session are limited; one that ends makes place', async () => {
  await using world = await played(socket => socket.resume())
  const people = Array.from({ length: connectionsMax }, () => new Person())
  const carried = await Promise.all(people.map(async person => {
    const dialled = await world.tunnel.dial('test')
    return { done: dialled.carry(person) }
  }))
  const refusal = await world.tunnel.dial('test').catch((thrown: unknown) => thrown)
  assert.is((refusal as SallyportError).code, 'too-many-connections')
  people[0]!.destroy()
  await carried[0]!.done
  const next = await world.tunnel.dial('test')
  next.abandon()
  world.tunnel.end()
  await Promise.all(carried.map(({ done }) => done))
  assert.ok(people.every(person => person.destroyed))
  const events = world.tape.events()
  assert.is(events.filter(type => type === 'channel-open').length, connectionsMax + 1)
  assert.is(events.filter(type => type === 'channel-close').length, connectionsMax + 1)
})

test('a target that does not answer is given up in time, with a code', async () => {
  // A server that has stopped: the kernel takes a few connections for it, and then no more.
  const script = "require('net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, "
    + 'function () { console.log(this.address().port) })'
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = await once(child.stdout, 'data') as [Buffer]
  child.kill('SIGSTOP')
  const port = Number(line)
  const fillers = Array.from({ length: 8 }, () => connect(port, '127.0.0.1').on('error', () => undefined))
  await new Promise(resolve => setTimeout(resolve, 300))
  const tape = new Tape()
  const target = { name: 'hung', host: '127.0.0.1', port }
  const tunnel = new Tunnel({
    target, recording: tape, clock: systemClock, connectMs: 400, password: undefined
  })
  const started = performance.now()
  const refusal = await tunnel.dial('test').catch((thrown: unknown) => thrown) as SallyportError
  assert.equal([refusal.code, refusal.detail], ['target-unreachable', 'hung: connecting took too long'])
  assert.ok(performance.now() - started < 3000)
  assert.equal(tape.events(), ['channel-open', 'channel-close'])
  for (const filler of fillers) filler.destroy()
  child.kill('SIGKILL')
})

test('lines are short and few, who asks must read as well; a reason wakes whoever waits', async () => {
  const codeOf = (work: Promise<unknown>): Promise<string> => work.then(() => 'fine', thrown =>
    (thrown as SallyportError).code)
  const [long, many, deaf, gone] = [new Person(), new Person(), new Person(), new Person()]
  const lines = new Lines(long)
  long.push('ticket_x\r\n')
  assert.is(await lines.next(), 'ticket_x')
  long.push('x'.repeat(300))
  assert.is(await codeOf(lines.next()), 'protocol-violation')
  const busy = new Lines(many)
  many.push('connection\n'.repeat(2000))
  await until(() => many.readableLength === 0)
  assert.is(await codeOf(busy.next()), 'protocol-violation')
  deaf.reads = false
  const asking = new Lines(deaf)
  while (!deaf.writableNeedDrain) asking.say({ type: 'notice', text: 'x'.repeat(1000) })
  const waits = codeOf(asking.drained())
  asking.fail(new SallyportError('session-killed'))
  assert.is(await waits, 'session-killed')
  const left = codeOf(new Lines(gone).next())
  gone.push(null)
  assert.is(await left, 'client-closed')
})

test('the cover finds a password however the bytes were cut, and covers nothing else', () => {
  const chance = seeded(7)
  for (let round = 0; round < 300; round++) {
    const password = mintTypedPassword().expose()
    const text = Buffer.from(`AUTH x ${password}\r\n${password.slice(0, chance(24))}+${password}${password}`)
    const veil = new Veil(password)
    const pieces: Buffer[] = []
    for (let at = 0; at < text.length;) {
      const end = at + 1 + chance(40)
      const piece = text.subarray(at, end)
      const before = Buffer.from(piece)
      pieces.push(Buffer.from(veil.hide(piece)))
      assert.ok(piece.equals(before), 'what is passed on is not touched')
      at = end
    }
    const shown = Buffer.concat(pieces).toString()
    assert.is(shown.length, text.length)
    assert.ok(shown.startsWith('AUTH x '))
    assert.ok(!shown.includes(password))
    // Of each only the first letters, where a read ended within them.
    const lone = password.slice(4)
    assert.ok(!shown.includes(lone), shown)
    const other = Buffer.from('nothing of it')
    assert.is(new Veil(password).hide(other), other)
  }
})

test('a ticket is good once, for its time, and a person has no more than some', () => {
  const clock = new StillClock()
  const tickets = createTickets(clock)
  const bearer: Bearer = { kind: 'session', user: 'alice', login: 'alice+x' }
  const { ticket, expiresAt } = tickets.issue('alice', bearer)
  assert.match(ticket, /^ticket_[\w-]{43}$/)
  assert.is(expiresAt.getTime() - clock.now().getTime(), 30_000)
  assert.is(tickets.take(ticket), bearer)
  assert.is(tickets.take(ticket), undefined)
  const late = tickets.issue('alice', bearer).ticket
  clock.advance(30_000)
  assert.is(tickets.take(late), undefined)
  const lane = tickets.issue('a session', { kind: 'lane', dial: () => Promise.reject(new Error()) }).ticket
  clock.advance(10_000)
  assert.is(tickets.take(lane), undefined)
  for (let n = 0; n < 64; n++) tickets.issue('alice', bearer)
  assert.throws(() => tickets.issue('alice', bearer), /too-many-connections/)
  tickets.issue('bob', bearer)
  clock.advance(30_000)
  tickets.issue('alice', bearer)
})

test('a secret reaches a person once, and only of an account that was made on a TCP target', () => {
  const [tcp, ssh] = [{ protocol: 'tcp' } as Target, { protocol: 'ssh' } as Target]
  const secret: Injectable = { kind: 'password', password: new Secret('once') }
  const key: Injectable = { kind: 'private-key', privateKey: new Secret('key') }
  const given = handOver(tcp, { username: 'u', secret, made: true })
  assert.equal(given.take(), { username: 'u', password: 'once' })
  assert.is(given.take(), undefined)
  assert.throws(() => handOver(ssh, { username: 'u', secret, made: true }), /not for a person/)
  assert.throws(() => handOver(tcp, { username: 'u', secret, made: false }), /not for a person/)
  assert.throws(() => handOver(tcp, { username: 'u', secret: key, made: true }), /not for a person/)
})

test('a plugin gives a password that a person can type, or it makes no accounts of TCP targets', async () => {
  const { inject, variables } = await mintFor(postgres, 'password')
  assert.is(inject.kind, 'password')
  const password = inject.kind === 'password' ? inject.password.expose() : ''
  assert.match(password, /^[a-hjkmnp-zA-HJ-NP-Z2-9]{24}$/)
  const verifier = variables['verifier']!.expose()
  assert.match(verifier, /^SCRAM-SHA-256\$4096:/)
  assert.ok(await verifyPassword(password, verifier))
  assert.equal([makesTyped(postgres), makesTyped(linux), makesTyped(example)], [true, false, true])
  assert.is((await mintFor(linux, 'password')).inject.kind, 'private-key')
})

const frameOf = (kind: FrameKind, lane: number, body: Buffer): Frame =>
  ({ kind, lane, body, offset: 0, atMicroseconds: 0 })

test('a dump has direction, connection and place, and nothing that acts on a terminal', () => {
  const dump = new ByteDump()
  assert.is(dump.rows(frameOf(frameKind.input, 1, Buffer.from('AUTH\x1b[2J'))),
    `> 1  00000000  41 55 54 48 1b 5b 32 4a ${' '.repeat(24)} AUTH.[2J\n`)
  assert.match(dump.rows(frameOf(frameKind.output, 1, Buffer.from('ok'))), /^< 1 {2}00000000 {2}6f 6b /)
  assert.match(dump.rows(frameOf(frameKind.input, 1, Buffer.from('x'))), /^> 1 {2}00000008 {2}78 /)
  const rows = dump.rows(frameOf(frameKind.output, 2, Buffer.alloc(10_000)))
  assert.is(rows.split('\n').length, 4096 / 16 + 2)
  assert.ok(rows.endsWith('< 2  … 5904 bytes more\n'))
})

test('words among the bytes are found, also where a read cut them', () => {
  const runs = new TextRuns()
  const feed = (lane: number, bytes: string | Buffer): string[] =>
    runs.push(frameOf(frameKind.input, lane, Buffer.from(bytes))).map(({ text }) => text)
  assert.equal(feed(1, '\0\x01SELECT 1\0ab\0SELECT '), ['SELECT 1'])
  assert.equal(feed(2, 'another\n'), ['another'])
  assert.equal(feed(1, 'café\0'), ['SELECT café'])
  assert.equal(feed(1, 'the end'), [])
  assert.equal(runs.end(2), [])
  assert.equal(runs.end(1).map(({ text, direction }) => [text, direction]), [['the end', 'input']])
  assert.equal(feed(3, 'z'.repeat(40_000)).map(({ length }) => length), [16_384, 16_384, 7232])
})

test.run()
