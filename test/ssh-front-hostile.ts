// deadline: 300 s
// SSH clients that lie: every message number in every phase, every known message cut at every byte, and what
// is no SSH at all. The connection is closed within a second, with a code in our log; nothing reaches the
// target, and the session of somebody else beside it answers all the time (R8, R11).
import { randomBytes } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  channelData, channelOpen, channelRequest, channelSignal, channelStderr, globalRequest, openConfirmation,
  openFailure, sshMessage, windowAdjust
} from '../src/wire/ssh/connection.ts'
import { sshFields, sshUint32 } from '../src/wire/ssh/data.ts'
import { rightsOf } from '../src/proxy/ssh/rights.ts'
import { ed25519Key, loginRequest, passwordRequest, serviceRequest } from './peers/ssh-login.ts'
import { personPassword } from './peers/ssh-pass-through.ts'
import { SshPeer, dial, sshPeer } from './peers/ssh-peer.ts'
import { inSession, isCut, loggedIn, soon, sshWorld, witness } from './peers/ssh-world.ts'

let hold: Promise<void> | undefined
const quiet = await sshWorld()
const house = await sshWorld({ preparing: async () => hold })
const { front, target } = house
const bystander = await witness(quiet.front)
const defects: string[] = []
process.on('uncaughtException', error => defects.push(String(error.stack)))

/** What the target heard beyond honest logins: connection messages. */
const reached = (): number => target.heard.filter(payload => payload[0]! >= 80).length

/** The log gained a line with a code for what was cut. */
async function isCoded(before: number, code: RegExp, what: string): Promise<void> {
  await soon(() => front.log.slice(before).some(line => line.startsWith('session ended')), `logged: ${what}`)
  assert.match(front.log.slice(before).at(-1)!, code, what)
}

/** A packet in clear, as before the first keys. */
function clear(payload: Buffer): Buffer {
  const padding = 8 - ((5 + payload.length) % 8) + 8
  const packet = Buffer.alloc(5 + payload.length + padding)
  packet.writeUInt32BE(packet.length - 4)
  packet[4] = padding
  payload.copy(packet, 5)
  return packet
}

interface Phase {
  name: string
  reach(): Promise<SshPeer>
  /** Numbers that mean something there, or nothing at all. */
  harmless: readonly number[]
}

const transportNoise = [2, 3, 4]
const phases: readonly Phase[] = [
  { name: 'after keys', reach: () => sshPeer(front.port), harmless: [1, ...transportNoise, 20, 192] },
  {
    name: 'during the login', harmless: [1, ...transportNoise, 20, 192],
    async reach() {
      const peer = await sshPeer(front.port)
      await peer.send(serviceRequest()).until(6)
      return peer
    }
  },
  {
    name: 'after a question', harmless: [1, ...transportNoise, 20, 61, 192],
    async reach() {
      const peer = await sshPeer(front.port)
      peer.send(serviceRequest(), loginRequest('alice', 'keyboard-interactive', '', ''))
      await peer.until(60)
      return peer
    }
  },
  {
    name: 'while the account is made', harmless: [1, ...transportNoise, 20, 192],
    async reach() {
      hold = new Promise(resolve => setTimeout(resolve, 200))
      const before = front.proofs.length
      const peer = await sshPeer(front.port)
      peer.send(serviceRequest(), passwordRequest('alice', personPassword))
      await soon(() => front.proofs.length > before, 'the proof')
      return peer
    }
  }
]

test('every message number in every phase before the session is refused, and closed', async () => {
  for (const { name, reach, harmless } of phases) {
    const numbers = Array.from({ length: 256 }, (_, number) => number).filter(n => !harmless.includes(n))
    const before = reached()
    // Several at once, or the time of the hook would be waited for 250 times.
    for (let at = 0; at < numbers.length; at += 32) {
      await Promise.all(numbers.slice(at, at + 32).map(async number => {
        const peer = await reach()
        peer.send(Buffer.of(number))
        await isCut(peer, `${name}, message ${number}`)
      }))
      await bystander.answers()
    }
    await soon(() => front.listener.stats().connections === 0, name)
    const codes = front.endings.slice(-numbers.length).map(ending => ending.reason)
    assert.equal([...new Set(codes)], ['protocol-violation'], name)
    assert.is(reached(), before, name)
    hold = undefined
  }
})

test('every message number before the first keys is refused, and closed', async () => {
  for (let number = 0; number < 256; number++) {
    // What a peer may say then: a real KEXINIT is another test's.
    if ([1, 2, 3, 4].includes(number)) continue
    const socket = await dial(front.port)
    const [before, started] = [front.log.length, performance.now()]
    socket.write(Buffer.concat([Buffer.from('SSH-2.0-x\r\n'), clear(Buffer.of(number))]))
    socket.on('error', () => undefined).on('end', () => socket.end()).resume()
    await soon(() => front.log.length > before, `message ${number}`)
    socket.destroy()
    assert.ok(performance.now() - started < 1000)
    await isCoded(before, /protocol-violation/, `message ${number}`)
  }
  await bystander.answers()
})

test('every message number in a session: what nobody may say ends it, and reaches nobody', async () => {
  // The rest are messages of the connection protocol without their fields.
  const allowed = [1, ...transportNoise, 20, 81, 82, 192]
  for (let number = 0; number < 256; number++) {
    if (allowed.includes(number)) continue
    const peer = await inSession(front)
    const [before, logged] = [reached(), front.log.length]
    peer.send(Buffer.of(number))
    await isCut(peer, `message ${number} in a session`)
    await isCoded(logged, /protocol-violation/, `message ${number}`)
    assert.is(reached(), before, `message ${number}`)
  }
  await bystander.answers()
})

test('answers to nothing are dropped, and the session goes on', async () => {
  const peer = await inSession(front)
  const before = reached()
  peer.send(Buffer.of(81), Buffer.of(82), channelSignal(sshMessage.channelSuccess, 100))
  peer.send(channelSignal(sshMessage.channelFailure, 100), windowAdjust(7, 7), Buffer.of(2), Buffer.of(4))
  const said = await peer.send(channelData(100, Buffer.from('still here'))).next()
  assert.is(said?.subarray(9).toString(), 'still here')
  assert.is(reached(), before + 1)
  peer.socket.destroy()
})

const key = ed25519Key()
/** Messages of a login, whole. */
const loginMessages: readonly (readonly [string, Buffer])[] = [
  ['a password', passwordRequest('alice', 'x')],
  ['an offer', loginRequest('alice', 'publickey', false, key.algorithm, key.blob)],
  ['a signature', loginRequest('alice', 'publickey', true, key.algorithm, key.blob, key.sign(key.blob))]
]
/** The same of a session. */
const sessionMessages: readonly (readonly [string, Buffer])[] = [
  ['an opening', channelOpen('session', 5, 1000, 1000)],
  ['an opening of a forward', channelOpen('direct-tcpip', 5, 1000, 1000, 'localhost', 22, '127.0.0.1', 1)],
  ['a confirmation', openConfirmation(100, 5, 1, 1)],
  ['a failure', openFailure(100, 1, 'no')],
  ['data', channelData(100, Buffer.from('data'))],
  ['stderr', channelStderr(100, Buffer.from('data'))],
  ['a window', windowAdjust(100, 7)],
  ['a terminal',
    channelRequest(100, 'pty-req', true, 'xterm', 80, 24, 0, 0, Buffer.from([53, 0, 0, 0, 1, 0]))],
  ['a command', channelRequest(100, 'exec', true, 'id')],
  ['a variable', channelRequest(100, 'env', false, 'LANG', 'C')],
  ['a size', channelRequest(100, 'window-change', false, 80, 24, 0, 0)],
  ['a signal', channelRequest(100, 'signal', false, 'TERM')],
  ['a subsystem', channelRequest(100, 'subsystem', true, 'sftp')],
  ['X11', channelRequest(100, 'x11-req', true, false, 'MIT', 'cookie', 0)],
  ['an end', channelSignal(sshMessage.eof, 100)],
  ['a close', channelSignal(sshMessage.close, 100)],
  ['a forward', globalRequest('tcpip-forward', true, '', 80)],
  ['a forward of a socket', globalRequest('streamlocal-forward@openssh.com', true, '/tmp/x')]
]

/** Everything that is too short, has a length that is a lie, or names of 34,000 bytes. */
function* malformed(payload: Buffer): Generator<Buffer> {
  for (let length = 1; length < payload.length; length++) yield payload.subarray(0, length)
  for (let at = 1; at + 4 <= payload.length; at++) {
    const length = payload.readUInt32BE(at)
    if (length === 0 || length > payload.length - at - 4) continue
    for (const lie of [0xffffffff, 0x7fffffff, payload.length - at - 3]) {
      const bytes = Buffer.from(payload)
      bytes.writeUInt32BE(lie, at)
      yield bytes
    }
  }
}

test('a message of a login that is cut or lies about a length ends the connection', async () => {
  let count = 0
  for (const [name, payload] of loginMessages) {
    for (const bytes of malformed(payload)) {
      count++
      const before = front.log.length
      const peer = await sshPeer(front.port)
      peer.send(serviceRequest(), bytes)
      // A signature that is cut, or a name that swallows the rest, can be a wrong attempt: never a login.
      const answer = await peer.until(51, 52, 60)
      assert.ok(answer === undefined || answer[0] === 51, `${name} ${bytes.toString('hex')}`)
      if (answer === undefined) await isCoded(before, /protocol-violation/, name)
      peer.socket.destroy()
    }
    await bystander.answers()
  }
  assert.ok(count > 300, `${count}`)
})

test('a message of a session that is cut or lies about a length never reaches the target', async () => {
  let count = 0
  for (const [name, payload] of sessionMessages) {
    for (const bytes of malformed(payload)) {
      count++
      const peer = await inSession(front)
      const before = target.heard.length
      peer.send(bytes, channelData(100, Buffer.from('behind')))
      // Either it is refused and everything ends, or it was another whole message.
      await soon(() => peer.closed || peer.inbox.some(heard => heard.includes('behind')), name, 3000)
      const heard = target.heard.slice(before)
      if (peer.closed) assert.not.ok(heard.some(one => one.equals(bytes)), `${name} ${bytes.toString('hex')}`)
      peer.socket.destroy()
    }
    await bystander.answers()
  }
  assert.ok(count > 400, `${count}`)
})

test('names of 34,000 bytes are refused', async () => {
  const long = 'x'.repeat(34_000)
  for (const payload of [
    channelOpen(long, 5, 1, 1), channelRequest(100, long, true), globalRequest(long, true),
    channelRequest(100, 'subsystem', true, long), channelRequest(100, 'signal', false, long),
    channelOpen('direct-tcpip', 5, 1, 1, long, 1, '', 1), globalRequest('tcpip-forward', true, long, 1)
  ]) {
    const peer = await inSession(front)
    const before = reached()
    peer.send(payload)
    await isCut(peer, 'a long name')
    assert.is(reached(), before)
  }
})

const identifications: readonly (readonly [string, Buffer])[] = [
  ['HTTP', Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')],
  ['TLS', Buffer.from('160301006b010000670303', 'hex')],
  ['SSH-1.5', Buffer.from('SSH-1.5-OpenSSH\r\n')],
  ['SSH-3.0', Buffer.from('SSH-3.0-x\r\n')],
  ['no version', Buffer.from('SSH-\r\n')],
  ['no software', Buffer.from('SSH-2.0-\r\n')],
  ['a zero byte', Buffer.from('SSH-2.0-Open\0SSH\r\n')],
  ['zero bytes', Buffer.alloc(300)],
  ['greeting lines', Buffer.from('hello\r\nthere\r\nSSH-2.0-x\r\n')],
  ['an empty line', Buffer.from('\r\n')],
  ['64 KiB without a newline', Buffer.alloc(65_536, 'SSH-2.0-x')],
  ['300 bytes that begin well', Buffer.from(`SSH-2.0-${'x'.repeat(300)}`)],
  ['garbage', randomBytes(5000)],
  ['a packet of 4 GiB', Buffer.concat([Buffer.from('SSH-2.0-x\r\n'), sshUint32(0xffffffff)])],
  ['a packet of 2 GiB', Buffer.concat([Buffer.from('SSH-2.0-x\r\n'), sshUint32(0x7fffffff)])],
  ['a packet of 35,004 bytes', Buffer.concat([Buffer.from('SSH-2.0-x\r\n'), sshUint32(35_004)])],
  ['a packet of 0 bytes', Buffer.concat([Buffer.from('SSH-2.0-x\r\n'), sshUint32(0)])],
  ['more padding than packet',
    Buffer.concat([Buffer.from('SSH-2.0-x\r\n'), sshUint32(12), Buffer.alloc(12, 255)])],
  ['a KEXINIT without lists', Buffer.concat([Buffer.from('SSH-2.0-x\r\n'), clear(Buffer.alloc(17, 20))])],
  ['a KEXINIT with empty lists', Buffer.concat([
    Buffer.from('SSH-2.0-x\r\n'), clear(Buffer.concat([Buffer.alloc(17, 20), Buffer.alloc(45)]))])]
]

function kexInit(kex: string): Buffer {
  const [cipher, mac] = ['aes128-ctr', 'hmac-sha2-256']
  const lists = sshFields(kex, 'ssh-ed25519', cipher, cipher, mac, mac, 'none', 'none', '', '')
  return Buffer.concat([Buffer.alloc(17, 20), lists, Buffer.alloc(5)])
}

test('what is no SSH is closed at once, with a code', async () => {
  const strict = 'curve25519-sha256,kex-strict-c-v00@openssh.com'
  const opening = (...payloads: Buffer[]): Buffer =>
    Buffer.concat([Buffer.from('SSH-2.0-x\r\n'), ...payloads.map(clear)])
  const exchanges: readonly (readonly [string, Buffer])[] = [
    ['the mark of the strict exchange as an algorithm', opening(kexInit('kex-strict-s-v00@openssh.com'))],
    ['the mark of extensions as an algorithm', opening(kexInit('ext-info-c'))],
    ['an algorithm that we do not have', opening(kexInit('diffie-hellman-group1-sha1'))],
    ['two KEXINITs', opening(kexInit('curve25519-sha256'), kexInit('curve25519-sha256'))],
    ['a thousand KEXINITs', opening(...Array.from({ length: 1000 }, () => kexInit('curve25519-sha256')))],
    ['strict: IGNORE before KEXINIT', opening(Buffer.concat([Buffer.of(2), sshFields('')]), kexInit(strict))],
    ['strict: IGNORE before NEWKEYS', opening(kexInit(strict), Buffer.concat([Buffer.of(2), sshFields('')]))],
    ['strict: DEBUG before NEWKEYS', opening(kexInit(strict), Buffer.concat([Buffer.of(4), sshFields('')]))],
    ['strict: EXT_INFO before NEWKEYS',
      opening(kexInit(strict), Buffer.concat([Buffer.of(7), sshUint32(0)]))],
    ['a login before NEWKEYS',
      opening(kexInit('curve25519-sha256'), passwordRequest('alice', personPassword))],
    ['NEWKEYS before the exchange', opening(kexInit('curve25519-sha256'), Buffer.of(21))],
    ['a point of zeros', opening(kexInit('curve25519-sha256'),
      Buffer.concat([Buffer.of(30), sshFields(Buffer.alloc(32))]))],
    ['a point of no bytes', opening(kexInit('curve25519-sha256'),
      Buffer.concat([Buffer.of(30), sshFields('')]))],
    ['a point of 30,000 bytes', opening(kexInit('curve25519-sha256'),
      Buffer.concat([Buffer.of(30), sshFields(Buffer.alloc(30_000, 1))]))],
    ['a point of another curve', opening(kexInit('ecdh-sha2-nistp256'),
      Buffer.concat([Buffer.of(30), sshFields(Buffer.alloc(65, 4))]))],
    ['a number of 1 in the place of a key', opening(kexInit('diffie-hellman-group14-sha256'),
      Buffer.concat([Buffer.of(30), sshFields(Buffer.of(1))]))],
    ['no number in the place of a key', opening(kexInit('diffie-hellman-group14-sha256'),
      Buffer.concat([Buffer.of(30), sshFields('')]))]
  ]
  for (const [name, bytes] of [...identifications, ...exchanges]) {
    const before = front.log.length
    const socket = await dial(front.port)
    let closed = false
    socket.on('error', () => undefined).on('close', () => { closed = true }).on('end', () => socket.end())
    socket.resume().write(bytes)
    await soon(() => closed, `${name} is closed`, 2000)
    await isCoded(before, /protocol-violation/, name)
    await bystander.answers()
  }
})

test('an identification byte by byte is taken', async () => {
  const socket = await dial(front.port)
  for (const letter of 'SSH-2.0-OpenSSH_9.2p1 Debian\r\n') {
    socket.write(letter)
    await new Promise(resolve => setTimeout(resolve, 2))
  }
  socket.write(clear(kexInit('curve25519-sha256')))
  let heard = Buffer.alloc(0)
  socket.on('data', (chunk: Buffer) => { heard = Buffer.concat([heard, chunk]) })
  // Our own KEXINIT comes when the client's name was read.
  await soon(() => heard.length > 200, 'our KEXINIT')
  assert.ok(heard.includes('curve25519-sha256'))
  socket.destroy()
})

test('an address that only connects is no attacker: a reset is no breach', async () => {
  const before = front.endings.length
  const socket = await dial(front.port)
  socket.write('SSH-2.0-x\r\n')
  socket.once('data', () => socket.resetAndDestroy())
  await soon(() => front.endings.length > before, 'the end')
  assert.is(front.endings.at(-1)?.reason, 'client-closed')
})

test('new keys again and again end the connection, before the login and in a session', async () => {
  for (const reach of [() => sshPeer(front.port), () => inSession(front)]) {
    const [peer, before] = [await reach(), front.log.length]
    let asked = 0
    while (!peer.closed && asked < 1000) {
      const done = peer.handshakes
      peer.rekey()
      asked++
      await soon(() => peer.handshakes > done || peer.closed, 'new keys')
    }
    assert.ok(peer.closed && asked < 100, `${asked} exchanges`)
    await isCoded(before, /protocol-violation.*too often/, 'rekeying')
    await bystander.answers()
  }
  assert.ok(bystander.slowestMs < 1000, `${bystander.slowestMs} ms`)
})

test('everybody may have new keys now and then', async () => {
  const peer = await inSession(front)
  for (let round = 0; round < 30; round++) {
    const done = peer.handshakes
    peer.rekey()
    await soon(() => peer.handshakes > done, 'new keys')
  }
  const said = await peer.send(channelData(100, Buffer.from('still here'))).next()
  assert.is(said?.subarray(9).toString(), 'still here')
  peer.socket.destroy()
})

test('a million words that mean nothing reach nobody', async () => {
  const peer = await inSession(front)
  const before = target.heard.length
  const noise = Buffer.concat([Buffer.of(2), sshFields(Buffer.alloc(20))])
  for (let round = 0; round < 1000; round++) {
    for (let one = 0; one < 100; one++) peer.send(noise, Buffer.of(4), Buffer.of(3))
    if (round % 100 === 0) {
      await new Promise(resolve => setImmediate(resolve))
      await bystander.answers()
    }
  }
  const said = await peer.send(channelData(100, Buffer.from('behind the noise'))).next()
  assert.is(said?.subarray(9).toString(), 'behind the noise')
  assert.is(target.heard.length, before + 1)
  peer.socket.destroy()
})

test('words during a new exchange of keys end the session', async () => {
  const peer = await inSession(front)
  const before = reached()
  peer.rekey()
  peer.sendNow(channelData(100, Buffer.from('out of turn')))
  await isCut(peer, 'data between KEXINIT and NEWKEYS')
  assert.is(reached(), before)
})

test('scp is a right of its own only as the plain command', () => {
  const rights = (command: string): string =>
    rightsOf({ kind: 'exec', command: Buffer.from(command) }).join()
  assert.is(rights('scp -t /tmp'), 'sftp,upload')
  assert.is(rights('scp -v -r -f -- notes'), 'sftp,download')
  for (const command of [
    'scp -t x; id', 'scp -t x && id', 'scp -t $(id)', 'scp -t `id`', 'scp -t x\nid', 'scp -t x | sh',
    'scp -t x > y', '/tmp/scp -t x', './scp -t x', 'scp -S ./id -t x', 'scp -oProxyCommand=id -t x',
    'scp x y', 'scpx -t x', 'id'
  ]) assert.is(rights(command), 'exec', command)
})

test('nothing of all this broke anything, and nobody is left in the house', async () => {
  assert.equal(defects, [])
  await bystander.answers()
  const client = await loggedIn(front)
  client.leave()
  await soon(() => front.listener.stats().connections === 0, 'everybody is gone', 10_000)
  assert.is(front.listener.stats().unauthenticated, 0)
})

test.after(async () => {
  bystander.leave()
  await house[Symbol.asyncDispose]()
  await quiet[Symbol.asyncDispose]()
})

test.run()
