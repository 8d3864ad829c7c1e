// deadline: 300 s
// Damaged conversations with the SSH front end, on the level of decrypted messages: good
// logins and good sessions whose messages are flipped, cut, doubled, swapped and mixed, from the client's
// side and from the target's. Whatever comes, the process lives, a session beside it answers, nobody is let
// in who did not prove it, and nobody is left in the house. The seed is printed; `SEED=n node
// test/fuzz/ssh-front.ts` runs the same again, `ROUNDS=n` makes it longer.
import { createHash, randomInt } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import * as wire from '../../src/wire/ssh/connection.ts'
import { sshFields, sshUint32 } from '../../src/wire/ssh/data.ts'
import { ed25519Key, loginRequest, passwordRequest, serviceRequest } from '../peers/ssh-login.ts'
import { everyChannel } from '../peers/ssh-pass-through.ts'
import { sshPeer } from '../peers/ssh-peer.ts'
import type { SshPeer } from '../peers/ssh-peer.ts'
import { echo, logIn, respond } from '../peers/ssh-target.ts'
import { inSession, soon, sshWorld, witness } from '../peers/ssh-world.ts'
import type { SshWorld } from '../peers/ssh-world.ts'

const seed = Number(process.env['SEED'] ?? randomInt(2 ** 31))
const rounds = Number(process.env['ROUNDS'] ?? 100)
console.log(`seed ${seed}, ${rounds} rounds`)

const defects: string[] = []
process.on('uncaughtException', error => defects.push(String(error.stack)))

type Draw = (below: number) => number

/** A stream of numbers from the seed and a name: each test draws its own. */
function generator(name: string): Draw {
  let count = 0
  return below => createHash('sha512').update(`${seed} ${name} ${count++}`).digest().readUInt32BE() % below
}

/** The same message, with a wound or none. */
function damaged(payload: Buffer, draw: Draw): Buffer {
  const bytes = Buffer.from(payload)
  const at = draw(bytes.length)
  switch (draw(9)) {
    case 0: bytes[at] = bytes[at]! ^ (1 << draw(8)); return bytes
    case 1: bytes[at] = draw(256); return bytes
    case 2: return bytes.subarray(0, Math.max(1, at))
    case 3: return Buffer.concat([bytes, bytes.subarray(at)])
    case 4: bytes[0] = draw(256); return bytes
    case 5:
      if (bytes.length >= 5) bytes.writeUInt32BE(draw(2) * 0xffffffff, 1 + draw(bytes.length - 4))
      return bytes
    default: return bytes
  }
}

/** The same conversation, with messages lost, doubled and exchanged. */
function mixed(good: readonly Buffer[], draw: Draw): Buffer[] {
  const messages = good.map(payload => damaged(payload, draw))
  for (let times = draw(4); times > 0; times--) {
    const [one, other] = [draw(messages.length), draw(messages.length)]
    if (draw(3) === 0) messages.splice(one, 1)
    else messages.splice(one, draw(2), messages[other]!)
    if (messages.length === 0) return [good[0]!]
  }
  return messages
}

async function play(peer: SshPeer, messages: readonly Buffer[], draw: Draw): Promise<void> {
  for (const payload of messages) {
    peer.send(payload)
    if (draw(25) === 0) peer.rekey()
    if (draw(3) === 0) await new Promise(resolve => setImmediate(resolve))
  }
  for (let turn = 0; turn < 10; turn++) await new Promise(resolve => setImmediate(resolve))
}

async function emptied({ front, target }: SshWorld): Promise<void> {
  await soon(() => front.listener.stats().connections === 0, 'nobody is left', 20_000)
  await soon(() => target.peers.every(({ closed }) => closed), 'no connection to the target is left', 20_000)
}

const key = ed25519Key()
const login = [
  serviceRequest(), loginRequest('alice', 'none'),
  loginRequest('alice', 'publickey', false, key.algorithm, key.blob),
  loginRequest('alice', 'publickey', true, key.algorithm, key.blob, key.sign(key.blob)),
  loginRequest('alice', 'keyboard-interactive', '', ''),
  Buffer.concat([Buffer.of(61), sshUint32(1), sshFields('x')]), passwordRequest('alice', 'x'),
  passwordRequest('bob', 'pass-through'), Buffer.concat([Buffer.of(192), sshFields('ping')])
]

const ofClient = [
  wire.channelRequest(100, 'pty-req', true, 'xterm', 80, 24, 0, 0, Buffer.from([53, 0, 0, 0, 1, 0])),
  wire.channelRequest(100, 'env', false, 'LANG', 'C'), wire.channelRequest(100, 'exec', true, 'scp -t /tmp'),
  wire.channelData(100, Buffer.alloc(3000, 0x61)), wire.windowAdjust(100, 4000),
  wire.channelOpen('direct-tcpip', 1, 2 ** 20, 32_768, 'localhost', 80, '127.0.0.1', 9),
  wire.channelData(101, Buffer.from('GET /')), wire.globalRequest('tcpip-forward', true, '', 80),
  wire.channelOpen('session', 2, 2 ** 20, 32_768), wire.channelRequest(102, 'subsystem', true, 'sftp'),
  wire.channelData(102, Buffer.from('0000000501000000030000001900', 'hex')),
  wire.channelSignal(wire.sshMessage.eof, 100), wire.channelSignal(wire.sshMessage.close, 101),
  wire.channelSignal(wire.sshMessage.close, 100)
]
const ofTarget = [
  wire.channelData(0, Buffer.alloc(3000, 0x62)), wire.channelStderr(0, Buffer.from('warning')),
  wire.windowAdjust(0, 4000), wire.channelOpen('forwarded-tcpip', 7, 1, 1, 'a', 1, 'b', 2),
  wire.channelOpen('auth-agent@openssh.com', 8, 1, 1),
  wire.globalRequest('hostkeys-00@openssh.com', false, 'x'),
  wire.globalRequest('keepalive@openssh.com', true), Buffer.of(81), Buffer.of(82),
  wire.channelRequest(0, 'exit-status', false, 0),
  wire.channelRequest(0, 'exit-signal', false, 'TERM', false, '', ''),
  wire.channelSignal(99, 0), wire.channelSignal(wire.sshMessage.eof, 0),
  wire.channelSignal(wire.sshMessage.close, 0), wire.openConfirmation(1, 101, 1, 1)
]

test('damaged logins: refused or left waiting, nobody is let in', async () => {
  const draw = generator('logins')
  await using house = await sshWorld()
  for (let round = 0; round < rounds; round++) {
    const peer = await sshPeer(house.front.port)
    await play(peer, [serviceRequest(), ...mixed(login, draw)], draw)
    if (draw(2) === 0) peer.socket.end()
    else peer.socket.destroy()
  }
  await emptied(house)
  assert.equal(house.front.proofs, [])
  assert.is(house.target.peers.length, 0)
  assert.equal(defects, [])
})

test('damaged sessions of clients: what reaches the target is a message, others are untouched', async () => {
  const draw = generator('clients')
  await using house = await sshWorld({ channels: everyChannel })
  await using quiet = await sshWorld()
  const bystander = await witness(quiet.front)
  for (let round = 0; round < rounds; round++) {
    const peer = await inSession(house.front)
    await play(peer, mixed(ofClient, draw), draw)
    peer.socket.destroy()
    if (round % 20 === 0) await bystander.answers()
  }
  await emptied(house)
  const numbers = new Set(house.target.heard.map(payload => payload[0]!))
  for (const number of numbers) {
    assert.ok([1, 5, 50].includes(number) || (number >= 80 && number <= 100), `message ${number} got through`)
  }
  assert.equal(defects, [])
  bystander.leave()
})

test('damaged sessions of targets: the session ends or goes on, others are untouched', async () => {
  const draw = generator('targets')
  await using house = await sshWorld({ channels: everyChannel }, async peer => {
    await logIn(peer)
    for (let number = 0; number < 2; number++) {
      const asked = await peer.next()
      if (asked === undefined) return
      respond(peer, asked)
    }
    await play(peer, mixed(ofTarget, draw), draw)
    if (draw(2) === 0) peer.socket.destroy()
  })
  await using quiet = await sshWorld({}, echo)
  const bystander = await witness(quiet.front)
  for (let round = 0; round < rounds; round++) {
    const peer = await inSession(house.front)
    for (let turn = 0; turn < 20; turn++) await new Promise(resolve => setImmediate(resolve))
    for (const payload of peer.inbox) {
      const number = payload[0]!
      assert.ok(number >= 80 && number <= 100, `the client heard message ${number}`)
    }
    peer.socket.destroy()
    if (round % 20 === 0) await bystander.answers()
  }
  await emptied(house)
  assert.equal(defects, [])
  bystander.leave()
})

test('damaged logins of targets: a coded refusal or a session', async () => {
  const draw = generator('target logins')
  const good = [
    Buffer.concat([Buffer.of(6), sshFields('ssh-userauth')]),
    Buffer.concat([Buffer.of(53), sshFields('hi', '')]),
    Buffer.concat([Buffer.of(51), sshFields('keyboard-interactive', false)]),
    Buffer.concat([Buffer.of(60), sshFields('', '', ''), sshUint32(1), sshFields('Password: ', false)]),
    Buffer.of(52)
  ]
  await using house = await sshWorld({
    listen: { limits: { connectMs: 300, handshakeMs: 300, loginMs: 50 } }
  }, async peer => {
    await play(peer, mixed(good, draw), draw)
  })
  for (let round = 0; round < rounds; round++) {
    const peer = await sshPeer(house.front.port)
    peer.send(serviceRequest(), passwordRequest('alice', 'pass-through'))
    await peer.until(52, 1)
    peer.socket.destroy()
  }
  await emptied(house)
  const codes = new Set(house.front.endings.map(({ reason }) => reason))
  const known = ['target-violation', 'target-refused', 'target-unreachable', 'client-closed', 'target-closed']
  assert.ok([...codes].every(code => known.includes(code)), [...codes].join())
  assert.equal(defects, [])
})

test.run()
