// The hybrid key exchange between two ends of ours, with a third one in between that reads what is in clear
// and bends it. OpenSSH without it falls back as before. What is leaned on inside ssh2 is looked at: another
// version fails here.
import { spawn, spawnSync } from 'node:child_process'
import * as crypto from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createRequire, syncBuiltinESMExports } from 'node:module'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { offerOf, userSignatures } from '../src/proxy/ssh/algorithms.ts'
import { hasKem, hybridName } from '../src/proxy/ssh/hybrid.ts'
import { readPrivateKey, ssh2 } from '../src/proxy/ssh/ssh2.ts'
import type { Protocol } from '../src/proxy/ssh/ssh2.ts'
import { Transport } from '../src/proxy/ssh/transport.ts'
import type { Side } from '../src/proxy/ssh/transport.ts'
import { SshReader, sshFields, sshUint32 } from '../src/wire/ssh/data.ts'
import { generateSshKey } from '../src/wire/ssh/key.ts'
import { programOf } from '../tool/services.ts'
import { handClock } from './peers/raw-postgres.ts'
import type { HandClock } from './peers/raw-postgres.ts'
import { until } from './peers/relay-world.ts'

const hostKey = readPrivateKey(generateSshKey().privateKey)
const serverSide: Side = {
  kind: 'server', hostKeys: { 'ssh-ed25519': hostKey }, signatures: userSignatures
}
const clientSide: Side = { kind: 'client', verify: () => true }
const curve = 'curve25519-sha256'
const hourMs = 3_600_000
const kemKeyBytes = 1184
const kemTextBytes = 1088
const kex = { init: 20, ecdhInit: 30, ecdhReply: 31 }

interface End {
  transport: Transport
  clock: HandClock
  messages: string[]
  isReady: boolean
  closed: boolean
  error: Error | undefined
}

/** A payload in clear, on its way: what goes on instead. */
type Bend = (payload: Buffer) => Buffer

interface Pair extends AsyncDisposable {
  client: End
  server: End
}

function endOf(socket: Socket, side: Side, kexNames?: readonly string[]): End {
  const clock = handClock()
  const offer = offerOf(['ssh-ed25519'])
  const end: Partial<End> = { clock, messages: [], isReady: false, closed: false, error: undefined }
  end.transport = new Transport({
    socket, side, clock, readMode: 'shared', offer: { ...offer, kex: kexNames ?? offer.kex }
  }, {
    ready: () => { end.isReady = true },
    message: payload => {
      if (payload[0] === 94) end.messages!.push(digest(payload))
    },
    room: () => true, refused: () => undefined, drain: () => undefined,
    closed: error => {
      end.closed = true
      end.error = error
    }
  })
  socket.pause()
  end.transport.start()
  return end as End
}

async function listening(onSocket: (socket: Socket) => void): Promise<[Server, number]> {
  const server = createServer({ allowHalfOpen: true }, onSocket).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return [server, (server.address() as AddressInfo).port]
}

/** Client and server of ours; `toServer` and `toClient` bend the key exchange between them. */
async function pair(
  { toServer, toClient, names }: { toServer?: Bend, toClient?: Bend, names?: readonly string[] } = {}
): Promise<Pair> {
  let server: End | undefined
  const [listener, port] = await listening(socket => { server = endOf(socket, serverSide) })
  const [between, through] = await listening(near => {
    const far = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    relay(near, far, toServer)
    relay(far, near, toClient)
  })
  const socket = connect({ port: through, host: '127.0.0.1', allowHalfOpen: true })
  await once(socket, 'connect')
  const client = endOf(socket, clientSide, names)
  await until(() => server !== undefined)
  return {
    client, server: server!,
    [Symbol.asyncDispose]: async () => {
      client.transport.destroy()
      server!.transport.destroy()
      await until(() => client.closed && server!.closed)
      between.close()
      listener.close()
    }
  }
}

/** Passes everything on; the first packet that `bend` changes is the last one that is looked at. */
function relay(from: Socket, to: Socket, bend: Bend | undefined): void {
  let kept = Buffer.alloc(0)
  let isText = true
  let isPlain = bend !== undefined
  from.on('data', (chunk: Buffer) => {
    kept = Buffer.concat([kept, chunk])
    while (isPlain) {
      const end = isText ? kept.indexOf('\n') + 1 : kept.length < 4 ? 0 : 4 + kept.readUInt32BE(0)
      if (end === 0 || end > kept.length) return
      const packet = kept.subarray(0, end)
      kept = kept.subarray(end)
      const payload = packet.subarray(5, end - (packet[4] ?? 0))
      const bent = isText ? payload : bend!(payload)
      isPlain = bent === payload
      isText = false
      to.write(isPlain ? packet : framed(bent))
    }
    to.write(kept)
    kept = Buffer.alloc(0)
  })
  from.on('end', () => to.end())
  from.on('close', () => to.destroy())
  from.on('error', () => to.destroy())
}

function framed(payload: Buffer): Buffer {
  const padding = 16 - (5 + payload.length) % 8
  return Buffer.concat([
    sshUint32(1 + payload.length + padding), Buffer.of(padding), payload, Buffer.alloc(padding)
  ])
}

function digest(bytes: Uint8Array): string {
  return crypto.createHash('sha256').update(bytes).digest('hex')
}

const bothReady = ({ client, server }: Pair): Promise<void> => until(() => client.isReady && server.isReady)
const bothClosed = ({ client, server }: Pair): Promise<void> => until(() => client.closed && server.closed)
const kexOf = ({ transport }: End): string | undefined => transport.negotiated?.kex

/** Another share in the client's message. */
function shareTo(change: (share: Buffer) => Buffer): Bend {
  return payload => payload[0] !== kex.ecdhInit ? payload : Buffer.concat([
    Buffer.of(kex.ecdhInit), sshFields(change(Buffer.from(new SshReader(payload, 1).bytes())))
  ])
}

/** Another share in the server's answer. */
function shareBack(change: (share: Buffer) => Buffer): Bend {
  return payload => {
    if (payload[0] !== kex.ecdhReply) return payload
    const reader = new SshReader(payload, 1)
    const [key, share] = [reader.bytes(), Buffer.from(reader.bytes())]
    return Buffer.concat([payload.subarray(0, 1), sshFields(key, change(share), reader.bytes())])
  }
}

const filled = (share: Buffer, byte: number, from: number, to?: number): Buffer => share.fill(byte, from, to)

test('ssh2 looks inside as this build was written for', () => {
  const load = createRequire(import.meta.url)
  const sums = {
    'kex.js': '054ba4b81801596350f0e2e939746d2966297cffd4303b342c25b2fd5d295755',
    'Protocol.js': 'c1104b49087de7a91cd3ffaac8807c05eebf49f61effd084d0b0caf29fde6af4',
    'crypto.js': 'a729d2064e787e2a4589c25a284444fe54a58b7434a4e6e5e8e9c73c6d91e28e',
    'utils.js': '402b39e75ede9e3dc99af5e8af008602546f35aa1472bd4232c06f606987f053'
  }
  for (const [name, sum] of Object.entries(sums)) {
    assert.is(digest(readFileSync(load.resolve(`ssh2/lib/protocol/${name}`))), sum, name)
  }
})

test('without ML-KEM the hybrid is not offered', () => {
  assert.is(offerOf([]).kex[0], hybridName)
  const builtin = createRequire(import.meta.url)('node:crypto') as { encapsulate?: unknown }
  const { encapsulate } = builtin
  try {
    builtin.encapsulate = undefined
    syncBuiltinESMExports()
    assert.is(hasKem(), false)
  } finally {
    builtin.encapsulate = encapsulate
    syncBuiltinESMExports()
  }
  assert.is(hasKem(), true)
})

test('two ends that have it agree on the hybrid, send its shares and speak of one session', async () => {
  const lengths: number[] = []
  const look: Bend = payload => {
    const reader = new SshReader(payload, 1)
    if (payload[0] === kex.ecdhReply) reader.bytes()
    if (payload[0] === kex.ecdhInit || payload[0] === kex.ecdhReply) lengths.push(reader.bytes().length)
    return payload[0] === 21 ? Buffer.of(21) : payload
  }
  await using both = await pair({ toServer: look, toClient: look })
  await bothReady(both)
  assert.equal([kexOf(both.client), kexOf(both.server)], [hybridName, hybridName])
  assert.equal(lengths, [kemKeyBytes + 32, kemTextBytes + 32])
  assert.is(both.client.transport.sessionId.length, 32)
  assert.equal(both.client.transport.sessionId, both.server.transport.sessionId)
})

test('keys are changed under traffic, by either side and by both at once, and nothing is lost', async () => {
  await using both = await pair()
  const { client, server } = both
  await bothReady(both)
  const sessionId = Buffer.from(client.transport.sessionId)
  const sent: Record<'client' | 'server', string[]> = { client: [], server: [] }
  const say = (from: 'client' | 'server'): void => {
    const payload = Buffer.concat([Buffer.of(94), crypto.randomBytes(1 + crypto.randomInt(3000))])
    sent[from].push(digest(payload))
    both[from].transport.send(payload)
  }
  const talk = (): void => {
    for (let count = 0; count < 20; count++) {
      say('client')
      say('server')
    }
  }
  for (const who of [[client], [server], [client, server], [server, client], [client]]) {
    const before = [client.transport.negotiated, server.transport.negotiated]
    talk()
    for (const end of who) end.clock.advance(hourMs)
    await until(() => {
      say('client')
      say('server')
      return client.transport.negotiated !== before[0] && server.transport.negotiated !== before[1]
        && client.transport.waitingBytes < Infinity && server.transport.waitingBytes < Infinity
    })
    assert.equal([kexOf(client), kexOf(server)], [hybridName, hybridName])
    talk()
  }
  await until(() => server.messages.length >= sent.client.length
    && client.messages.length >= sent.server.length)
  assert.equal(server.messages, sent.client)
  assert.equal(client.messages, sent.server)
  assert.equal([client.transport.sessionId, server.transport.sessionId], [sessionId, sessionId])
})

const badToServer: [string, Bend, RegExp][] = [
  ['a share that is a byte short', shareTo(share => share.subarray(1)), /a share of 1215 bytes/],
  ['a share that is a byte long', shareTo(share => Buffer.concat([share, Buffer.of(0)])), /of 1217 bytes/],
  ['no share', shareTo(() => Buffer.alloc(0)), /a share of 0 bytes/],
  ['a share of curve25519 alone', shareTo(share => share.subarray(kemKeyBytes)), /a share of 32 bytes/],
  ['an X25519 share of zeros', shareTo(share => filled(share, 0, kemKeyBytes)), /derivation/],
  ['a point of small order',
    shareTo(share => filled(share, 0, kemKeyBytes).fill(1, kemKeyBytes, kemKeyBytes + 1)), /derivation/],
  ['a KEM key beyond its modulus', shareTo(share => filled(share, 0xff, 0, kemKeyBytes)), /asymmetric key/],
  ['a message that ends early', payload => payload[0] === kex.ecdhInit ? payload.subarray(0, 99) : payload,
    /malformed KEX/]
]

for (const [what, toServer, expected] of badToServer) {
  test(`a server refuses ${what}`, async () => {
    await using both = await pair({ toServer })
    await bothClosed(both)
    assert.match(both.server.error?.message ?? '', expected)
    assert.equal([both.client.isReady, both.server.isReady], [false, false])
  })
}

const badToClient: [string, Bend, RegExp][] = [
  ['a share that is a byte short', shareBack(share => share.subarray(1)), /a share of 1119 bytes/],
  ['a share that is a byte long', shareBack(share => Buffer.concat([share, Buffer.of(0)])), /of 1121 bytes/],
  ['no share', shareBack(() => Buffer.alloc(0)), /a share of 0 bytes/],
  ['an X25519 share of zeros', shareBack(share => filled(share, 0, kemTextBytes)), /derivation/],
  ['another ciphertext', shareBack(share => filled(share, share[7]! ^ 1, 7, 8)), /signature verification/],
  ['a ciphertext of zeros', shareBack(share => filled(share, 0, 0, kemTextBytes)), /signature verification/]
]

for (const [what, toClient, expected] of badToClient) {
  test(`a client refuses ${what}`, async () => {
    await using both = await pair({ toClient })
    await bothClosed(both)
    assert.match(both.client.error?.message ?? '', expected)
    assert.is(both.client.isReady, false)
  })
}

test('whoever takes the hybrid out of a list on its way is found out', async () => {
  const without: Bend = payload => {
    if (payload[0] !== kex.init) return payload
    const names = new SshReader(payload, 17).names()
    const rest = payload.subarray(21 + names.join(',').length)
    return Buffer.concat([
      payload.subarray(0, 17), sshFields(names.filter(name => name !== hybridName).join(',')), rest
    ])
  }
  // Both sides agree on the other one, and on different hashes.
  await using both = await pair({ toServer: without, toClient: without })
  await bothClosed(both)
  assert.match(both.client.error?.message ?? '', /signature verification failed/)
})

test('a side without the hybrid gets curve25519, and the client’s order counts', async () => {
  const old = offerOf([]).kex.filter(name => name !== hybridName)
  await using both = await pair({ names: old })
  await bothReady(both)
  assert.equal([kexOf(both.client), kexOf(both.server)], [curve, curve])
  await using ecdh = await pair({ names: ['ecdh-sha2-nistp384', ...old] })
  await bothReady(ecdh)
  assert.is(kexOf(ecdh.server), 'ecdh-sha2-nistp384')
})

/** A client that says that its first share follows at once; `wrong`: that one is for something else. */
async function guessing(
  names: readonly string[], wrong: boolean, serverNames?: readonly string[]
): Promise<string | undefined> {
  let server: End | undefined
  const [listener, port] = await listening(socket => { server = endOf(socket, serverSide, serverNames) })
  const socket = connect({ port, host: '127.0.0.1' })
  let isGuessed = false
  const protocol: Protocol = ssh2().makeProtocol({
    server: false, ident: 'Guessing', messageHandlers: {}, hostVerifier: () => true,
    offer: { ...offerOf(['ssh-ed25519']), kex: names },
    onWrite: bytes => {
      const init = protocol._kexinit
      if (isGuessed || init === undefined || bytes[5] !== kex.init) return void socket.write(bytes)
      isGuessed = true
      bytes[5 + init.length - 5] = init[init.length - 5] = 1
      socket.write(bytes)
      if (wrong) socket.write(framed(Buffer.concat([Buffer.of(kex.ecdhInit), sshFields('for another one')])))
    },
    onError: () => undefined, onHandshakeComplete: () => undefined
  })
  await once(socket, 'connect')
  socket.on('data', (chunk: Buffer) => protocol.parse(chunk, 0, chunk.length)).on('error', () => undefined)
  protocol._onPayload = () => undefined
  protocol.start()
  await until(() => server !== undefined && (server.isReady || server.closed))
  const agreed = server!.isReady ? kexOf(server!) : server!.error?.message
  socket.destroy()
  protocol.cleanup()
  await until(() => server!.closed)
  listener.close()
  return agreed
}

test('a right guess is taken, and a wrong one skipped', async () => {
  const { kex: ours } = offerOf([])
  assert.is(await guessing(ours, false), hybridName)
  assert.is(await guessing([curve], false, [curve]), curve)
  // Such a client sees that we like another one best, and says it again (dropbear does).
  assert.is(await guessing([curve, 'ecdh-sha2-nistp256'], true), curve)
  assert.is(await guessing([curve, hybridName], true), curve)
})

test('stock ssh gets the hybrid where it has it, and curve25519 where it has not', async () => {
  const known = spawnSync(programOf('ssh'), ['-Q', 'kex'], { encoding: 'utf8' }).stdout.split('\n')
  let server: End | undefined
  const [listener, port] = await listening(socket => { server = endOf(socket, serverSide) })
  const child = spawn(programOf('ssh'), [
    '-F', 'none', '-v', '-o', 'BatchMode=yes', '-o', 'StrictHostKeyChecking=no', '-o',
    'UserKnownHostsFile=/dev/null', '-p', String(port), 'alice@127.0.0.1', 'true'
  ], { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => { said += chunk.toString() })
  await until(() => server !== undefined && (server.isReady || server.closed))
  assert.is(server!.isReady, true, said)
  assert.is(kexOf(server!), known.includes(hybridName) ? hybridName : curve)
  await until(() => /SERVICE_ACCEPT|SSH2_MSG_NEWKEYS received/.test(said))
  server!.transport.destroy()
  await once(child, 'exit')
  listener.close()
})

test.run()
