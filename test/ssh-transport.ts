// deadline: 400 s
// One SSH connection as messages, our own code at both ends: whatever the cipher, the way of reading and the
// moment of a key exchange, each side gets what the other one sent, in order. And what a peer
// costs that stops reading.
import { createHash } from 'node:crypto'
import type { Hash } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { systemClock } from '../src/clock.ts'
import type { Ending, Recording } from '../src/recording/recording.ts'
import { offerOf } from '../src/proxy/ssh/algorithms.ts'
import { Relay } from '../src/proxy/ssh/relay.ts'
import { readPrivateKey } from '../src/proxy/ssh/ssh2.ts'
import { SshTape } from '../src/proxy/ssh/tape.ts'
import { Transport } from '../src/proxy/ssh/transport.ts'
import type { Side, TransportEvents } from '../src/proxy/ssh/transport.ts'
import { sshFields, sshUint32 } from '../src/wire/ssh/data.ts'
import { generateSshKey } from '../src/wire/ssh/key.ts'

const mebibyte = 1024 * 1024
const hostKey = readPrivateKey(generateSshKey().privateKey)
const data = 94

interface End {
  transport: Transport
  /** Key exchanges after the first. */
  rekeys: number
  got: Hash
  gotBytes: number
  closed: string | undefined
}

interface Options {
  cipher?: string
  mac?: string
  readMode?: 'shared' | 'stream'
  rekeyBytes?: number
  /** Called with each message of the other end; default: it is hashed. */
  take?: (end: End, payload: Buffer) => void
}

/** A server and a client on one TCP connection, keys exchanged. */
async function pair(options: Options = {}): Promise<{ server: End, client: End }> {
  const listener = createServer({ noDelay: true, pauseOnConnect: true, allowHalfOpen: true })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as AddressInfo
  const arrived = once(listener, 'connection') as Promise<[Socket]>
  const dialled = connect({ host: '127.0.0.1', port, noDelay: true, allowHalfOpen: true })
  const [[accepted]] = await Promise.all([arrived, once(dialled, 'connect')])
  listener.close()
  dialled.pause()
  const server = begin(accepted, {
    kind: 'server', hostKeys: { 'ssh-ed25519': hostKey }, signatures: ['ssh-ed25519']
  }, options)
  const client = begin(dialled, { kind: 'client', verify: () => true }, options)
  await Promise.all([server.ready, client.ready])
  return { server: server.end, client: client.end }
}

function begin(socket: Socket, side: Side, options: Options): { end: End, ready: Promise<void> } {
  const end = { rekeys: 0, got: createHash('sha256'), gotBytes: 0, closed: undefined } as unknown as End
  const take = options.take ?? ((into, payload) => {
    if (payload[0] !== data) return
    into.got.update(payload)
    into.gotBytes += payload.length
  })
  let settle: () => void
  const ready = new Promise<void>(resolve => { settle = resolve })
  const events: TransportEvents = {
    ready: () => {
      // As after a login: strangers may not send what is large.
      end.transport.listen(events)
      settle()
    },
    message: payload => take(end, payload), room: () => true,
    refused: () => undefined, drain: () => undefined,
    closed: error => { end.closed = error?.message ?? 'in order' }
  }
  const offer = offerOf(['ssh-ed25519'])
  const way = {
    ...offer.cs, cipher: options.cipher === undefined ? offer.cs.cipher : [options.cipher],
    mac: options.mac === undefined ? offer.cs.mac : [options.mac]
  }
  end.transport = new Transport({
    socket, side, offer: { ...offer, cs: way, sc: way }, clock: systemClock,
    readMode: options.readMode ?? 'shared', rekeyBytes: options.rekeyBytes
  }, events)
  end.transport.start()
  return { end, ready }
}

/** Sends so much in messages of all sizes and gives its hash; waits where a relay would stop reading. */
async function pour(
  { transport }: End, bytes: number, seed: number, signal?: AbortSignal
): Promise<string> {
  const hash = createHash('sha256')
  const source = Buffer.alloc(70_000)
  for (let at = 9; at < source.length; at++) source[at] = at * seed
  let size = seed
  for (let sent = 0; sent < bytes;) {
    while (transport.waitingBytes > 2 * mebibyte) {
      if (signal?.aborted === true || transport.closed) return `stuck at ${sent}`
      await pause(1)
    }
    for (let burst = 0; burst < 16 && sent < bytes; burst++) {
      size = (size * 7919 + 13) % (burst === 7 ? 65_000 : 33_000)
      // CHANNEL_DATA for channel 0, which says where in the stream it belongs.
      source[0] = data
      source.writeUInt32BE(8 + size, 5)
      source.writeDoubleBE(sent, 9)
      const payload = source.subarray(0, 17 + size)
      hash.update(payload)
      transport.send(payload)
      sent += payload.length
    }
    await pause(0)
  }
  return hash.digest('hex')
}

async function until(met: () => boolean, seconds = 30): Promise<void> {
  for (const end = performance.now() + seconds * 1000; !met(); await pause(5)) {
    if (performance.now() > end) throw new Error(`not so after ${seconds} s: ${met}`)
  }
}

async function exchange(bytes: number, options: Options): Promise<void> {
  const { server, client } = await pair(options)
  const first = server.transport.negotiated
  const sessionId = Buffer.from(server.transport.sessionId)
  const [down, up] = await Promise.all([pour(server, bytes, 3), pour(client, bytes, 5)])
  try {
    await until(() => (server.gotBytes >= bytes && client.gotBytes >= bytes) || server.closed !== undefined
      || client.closed !== undefined, 60)
    assert.is(server.closed ?? client.closed, undefined)
    assert.is(client.got.digest('hex'), down)
    assert.is(server.got.digest('hex'), up)
    assert.equal(server.transport.sessionId, sessionId)
    assert.is(server.transport.negotiated?.sc.cipher, first?.sc.cipher)
  } finally {
    client.transport.end()
  }
  await until(() => server.closed !== undefined && client.closed !== undefined)
  assert.is(server.closed, 'in order')
}

const ciphers = offerOf([]).cs.cipher

for (const readMode of ['shared', 'stream'] as const) {
  test(`200 MB both ways with new keys every 8 MB, read as ${readMode}`, () =>
    exchange(200 * mebibyte, { readMode, rekeyBytes: 8 * mebibyte }))

  for (const cipher of ciphers) {
    test(`${cipher}, read as ${readMode}: 16 MB both ways with new keys every MB`, () =>
      exchange(16 * mebibyte, { cipher, readMode, rekeyBytes: mebibyte }))
  }
}

for (const mac of offerOf([]).cs.mac) {
  test(`${mac}: 8 MB both ways with new keys every MB`, () =>
    exchange(8 * mebibyte, { cipher: 'aes256-ctr', mac, rekeyBytes: mebibyte }))
}

// ---- a relay between two of them

interface Relayed {
  client: End
  target: End
  /** What the recorder was given. */
  recordedBytes(): number
  ending: Promise<Ending>
}

/** A client and a target with the relay in between, and one channel open. */
async function relayed(commit: () => true | Promise<void>, options: Options = {}): Promise<Relayed> {
  const [outer, inner] = await Promise.all([pair(options), pair(options)])
  // The server's extensions come first; with people they are part of the login.
  await pause(100)
  const failed = new AbortController()
  let bytes = 0
  const recording: Recording = {
    session: 's1', failed: failed.signal,
    append: (_kind, _lane, ...parts) => { for (const part of parts) bytes += part.length },
    commit: () => {
      try {
        return commit()
      } catch (thrown) {
        failed.abort(thrown)
        throw thrown
      }
    },
    seal: async () => { throw new Error('not here') }
  }
  const relay = new Relay({
    client: outer.server.transport, recording, tape: new SshTape(recording), channels: ['exec'],
    target: { transport: inner.client.transport, early: [], channels: ['exec'], copyFiles: false },
    signal: new AbortController().signal, refused: () => undefined, gone: () => undefined
  })
  const ending = relay.run()
  const windows = Buffer.concat([sshUint32(0), sshUint32(0xffffffff), sshUint32(32_768)])
  outer.client.transport.send(Buffer.concat([Buffer.of(90), sshFields('session'), windows]))
  await pause(50)
  inner.server.transport.send(Buffer.concat([Buffer.of(91), sshUint32(0), windows]))
  await pause(50)
  const exec = Buffer.concat([sshUint32(0), sshFields('exec', false, 'cat')])
  outer.client.transport.send(Buffer.concat([Buffer.of(98), exec]))
  await pause(50)
  return { client: outer.client, target: inner.server, recordedBytes: () => bytes, ending }
}

function leave({ client, target }: Relayed): void {
  client.transport.destroy()
  target.transport.destroy()
}

for (const readMode of ['shared', 'stream'] as const) {
  test(`a peer with a huge window that stops reading costs no memory, read as ${readMode}`, async () => {
    const between = await relayed(() => true, { readMode })
    const warm = await Promise.race([pour(between.target, 20 * mebibyte, 7), pause(20_000, 'late')])
    assert.is.not(warm, 'late')
    await until(() => between.client.gotBytes >= 20 * mebibyte)
    between.client.transport.pause()
    const recordedBefore = between.recordedBytes()
    const residentBefore = process.memoryUsage.rss()
    const limit = new AbortController()
    const poured = pour(between.target, 400 * mebibyte, 7, limit.signal)
    await pause(2000)
    limit.abort()
    assert.match(await poured, /^stuck at/)
    // Four mebibytes of the relay, and what the kernel holds of two connections.
    assert.ok(between.recordedBytes() - recordedBefore < 16 * mebibyte, 'the relay went on reading')
    const grown = process.memoryUsage.rss() - residentBefore
    assert.ok(grown <= 16 * mebibyte, `${grown / mebibyte} MiB more`)
    between.client.transport.resume()
    await until(() => between.client.gotBytes > 21 * mebibyte)
    leave(between)
    await between.ending
  })
}

test.run()
