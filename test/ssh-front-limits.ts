// deadline: 240 s
// What strangers and guests can hold of the SSH front end, and for how long: silent sockets, half handshakes,
// answers that nobody reads, windows without an end, channels and requests without number. Each ends at a
// limit with a name, and whoever logs in meanwhile gets in (R8, R9, F24). Small limits and a clock that is
// moved by hand, where the limit itself is not the point.
import { readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import {
  channelData, channelOpen, channelRequest, channelSignal, globalRequest, sshMessage, windowAdjust
} from '../src/wire/ssh/connection.ts'
import { sshFields } from '../src/wire/ssh/data.ts'
import { handClock } from './peers/raw-postgres.ts'
import {
  codeIn, loginClient, loginRequest, loginWords, passwordRequest, serviceRequest
} from './peers/ssh-login.ts'
import { personPassword } from './peers/ssh-pass-through.ts'
import { dial, sshPeer } from './peers/ssh-peer.ts'
import { echo, logIn, respond } from './peers/ssh-target.ts'
import { inSession, isCut, loggedIn, soon, sshWorld, witness } from './peers/ssh-world.ts'

const mebibyte = 2 ** 20

async function silent(port: number, from?: string): Promise<Socket> {
  const socket = await dial(port, from)
  socket.on('error', () => undefined).on('end', () => socket.end())
  socket.resume()
  return socket
}

test('whoever does not finish the login in its grace time is cut, at any step', async () => {
  const clock = handClock()
  await using house = await sshWorld({ listen: { clock } })
  const { front } = house
  const sockets = [await silent(front.port), await silent(front.port), await silent(front.port)]
  sockets[1]!.write('SSH-2.0-')
  sockets[2]!.write('SSH-2.0-x\r\n')
  const peers = [await sshPeer(front.port), await sshPeer(front.port), await sshPeer(front.port)]
  await peers[1]!.send(serviceRequest()).until(6)
  await peers[2]!.send(serviceRequest(), passwordRequest('alice', 'x')).until(51)
  const asked = await sshPeer(front.port)
  await asked.send(serviceRequest(), loginRequest('alice', 'keyboard-interactive', '', '')).until(60)
  peers.push(asked)
  await soon(() => front.listener.stats().connections === 7, 'everybody is there')
  clock.advance(29_999)
  assert.is(front.listener.stats().unauthenticated, 7)
  clock.advance(1)
  for (const peer of peers) {
    await soon(() => peer.closed, 'a client is cut', 1000)
    assert.is(codeIn(peer.farewell?.text), 'auth-timeout')
  }
  await soon(() => sockets.every(({ destroyed }) => destroyed), 'silent ones are cut', 1000)
  await soon(() => front.listener.stats().connections === 0, 'nobody is left')
  assert.equal([...new Set(front.endings.map(({ reason }) => reason))], ['auth-timeout'])
})

test('silent sockets of a source make place for each other, and are really closed', async () => {
  await using house = await sshWorld({ listen: { limits: { unauthenticatedPerAddressMax: 20 } } })
  const { front } = house
  const sockets: Socket[] = []
  for (let index = 0; index < 100; index++) sockets.push(await silent(front.port))
  await soon(() => sockets.filter(({ destroyed }) => destroyed).length === 80, '80 are closed')
  assert.is(front.listener.stats().unauthenticated, 20)
  assert.is(front.listener.stats().connections, 20)
  const client = await loggedIn(front)
  assert.is(front.listener.stats().unauthenticated, 19)
  client.leave()
  for (const socket of sockets) socket.destroy()
})

test('a source whose places are all in the middle of a login is told to come back', async () => {
  await using house = await sshWorld({ listen: { limits: { unauthenticatedPerAddressMax: 5 } } })
  for (let index = 0; index < 5; index++) await loginClient(house.front.port)
  const sixth = await dial(house.front.port)
  let heard = ''
  sixth.on('data', (chunk: Buffer) => { heard += chunk.toString() }).on('end', () => sixth.destroy())
  await soon(() => sixth.destroyed, 'the sixth is turned away')
  assert.is(codeIn(heard.trim()), 'too-many-connections')
  const elsewhere = await loginClient(house.front.port, '127.0.0.2')
  assert.is(await elsewhere.password('alice', personPassword), loginWords.success)
  elsewhere.leave()
})

test('5,000 silent sockets and 500 half handshakes keep nobody out, and hold little', async () => {
  await using house = await sshWorld()
  const { front } = house
  const before = process.memoryUsage().rss
  const sockets: Socket[] = []
  for (let index = 0; index < 5500; index++) {
    const socket = await silent(front.port, `127.0.1.${index % 100 + 1}`)
    sockets.push(socket)
    if (index % 11 === 0) socket.write(`SSH-2.0-x\r\n${'\0'.repeat(200)}`)
    if (index % 1000 === 0) await new Promise(resolve => setTimeout(resolve, 5))
  }
  const { unauthenticated } = front.listener.stats()
  assert.ok(unauthenticated <= 1000, `${unauthenticated} strangers`)
  const held = (process.memoryUsage().rss - before) / 5500
  assert.ok(held < 64 * 1024, `${Math.round(held / 1024)} KiB for each, with the attacker's own socket`)
  const times: number[] = []
  for (let login = 0; login < 20; login++) {
    const started = performance.now()
    const client = await loggedIn(front)
    times.push(performance.now() - started)
    client.leave()
  }
  const slowest = Math.round(Math.max(...times))
  assert.ok(slowest <= 2000, `${slowest} ms`)
  console.log(`${unauthenticated} of 5,500 held, ${Math.round(held / 1024)} KiB each, a login ${slowest} ms`)
  for (const socket of sockets) socket.destroy()
})

test('a stranger that asks and does not read is not read either', async () => {
  await using house = await sshWorld()
  const peer = await sshPeer(house.front.port)
  const ping = Buffer.concat([Buffer.of(192), sshFields(Buffer.alloc(30_000))])
  const before = process.memoryUsage().rss
  peer.socket.pause()
  for (let round = 0; round < 40; round++) {
    for (let count = 0; count < 100; count++) peer.send(ping)
    await new Promise(resolve => setImmediate(resolve))
  }
  await new Promise(resolve => setTimeout(resolve, 500))
  // What is not read lies in the stranger's own socket, which is in this process, too.
  assert.ok(peer.socket.writableLength > 50 * mebibyte, 'we have not taken it')
  const held = process.memoryUsage().rss - before - peer.socket.writableLength
  assert.ok(held < 64 * mebibyte, `${Math.round(held / mebibyte)} MiB`)
  peer.socket.destroy()
})

test('a client with a huge window that stops reading holds some mebibytes', async () => {
  const chunk = channelData(0, Buffer.alloc(32_000, 0x61))
  await using house = await sshWorld({}, async peer => {
    await logIn(peer)
    for (let number = 0; number < 2; number++) respond(peer, (await peer.next())!)
    // 512 MiB, as fast as they are taken.
    for (let sent = 0; sent < 16_000 && !peer.closed; sent++) {
      peer.send(chunk)
      while (peer.socket.writableLength > 4 * mebibyte && !peer.closed) {
        await new Promise(resolve => setTimeout(resolve, 5))
      }
    }
  })
  await using quiet = await sshWorld()
  const bystander = await witness(quiet.front)
  const client = await inSession(house.front, 0xffffffff)
  client.socket.pause()
  const before = process.memoryUsage().rss
  for (let round = 0; round < 20; round++) {
    await new Promise(resolve => setTimeout(resolve, 100))
    await bystander.answers()
  }
  const grown = (process.memoryUsage().rss - before) / mebibyte
  assert.ok(grown < 96, `${Math.round(grown)} MiB`)
  const there = house.target.peers[0]!
  assert.ok(there.socket.bytesWritten < 64 * mebibyte, 'the target is held back')
  house.front.cut(new SallyportError('session-killed'))
  await soon(() => there.closed, 'the target is closed')
  bystander.leave()
  client.socket.destroy()
})

test('more than the window takes ends the session; what it takes passes', async () => {
  // The target's window is 2 MiB and it never lets it grow; a tenth more is forgiven, as OpenSSH does.
  await using house = await sshWorld({}, peer => echo(peer))
  const { front, target } = house
  const data = channelData(100, Buffer.alloc(30_000))
  const good = await inSession(front)
  good.deaf = true
  for (let count = 0; count < 69; count++) good.send(data)
  await soon(() => target.heard.filter(payload => payload[0] === 94).length === 69, 'a window full')
  assert.not.ok(good.closed)
  for (let count = 0; count < 40; count++) good.send(data)
  await isCut(good, 'an overrun')
  assert.is(front.endings.at(-1)?.reason, 'protocol-violation')
  const passed = target.heard.filter(payload => payload[0] === 94).length
  assert.ok(passed <= 77, `${passed} of 109 messages passed`)
})

test('a window grows by what is granted, and never past 32 bits', async () => {
  await using house = await sshWorld({}, peer => echo(peer))
  const peer = await inSession(house.front)
  const there = house.target.peers[0]!
  there.send(windowAdjust(0, 3_000_000))
  peer.send(windowAdjust(100, 3_000_000))
  await peer.until(sshMessage.windowAdjust)
  for (let count = 0; count < 150; count++) peer.send(channelData(100, Buffer.alloc(30_000)))
  await soon(() => house.target.heard.filter(payload => payload[0] === 94).length === 150, 'all of it')
  peer.send(windowAdjust(100, 0xffffffff), windowAdjust(100, 0xffffffff))
  await isCut(peer, 'a window of 33 bits')
  assert.is(house.front.endings[0]?.reason, 'protocol-violation')
})

test('channels have a number', async () => {
  await using house = await sshWorld({ channelsMax: 50 })
  const { peer } = await loggedIn(house.front)
  for (let number = 0; number < 60; number++) peer.send(channelOpen('session', number, 1000, 1000))
  const answers: number[] = []
  for (let number = 0; number < 60; number++) answers.push((await peer.next())![0]!)
  assert.is(answers.filter(type => type === sshMessage.openConfirmation).length, 50)
  assert.is(answers.filter(type => type === sshMessage.openFailure).length, 10)
  // One that is closed makes place for another.
  peer.send(channelSignal(sshMessage.close, 100))
  await peer.until(sshMessage.close)
  peer.send(channelOpen('session', 99, 1000, 1000))
  assert.is((await peer.next())?.[0], sshMessage.openConfirmation)
  peer.send(channelOpen('session', 99, 1000, 1000))
  assert.is((await peer.next())?.[0], sshMessage.openFailure)
  peer.socket.destroy()
})

test('requests that nobody answers have a number, of a channel and outside of channels', async () => {
  for (const request of [channelRequest(100, 'no-such', true), globalRequest('no-such', true)]) {
    await using house = await sshWorld({}, async peer => {
      await logIn(peer)
      for (let number = 0; number < 2; number++) respond(peer, (await peer.next())!)
    })
    const peer = await inSession(house.front)
    for (let count = 0; count < 3000; count++) peer.send(request)
    await isCut(peer, 'requests without number')
    assert.is(house.front.endings.at(-1)?.reason, 'protocol-violation')
  }
})

test('a client that asks for new keys and says no more is cut, and its target with it', async () => {
  const clock = handClock()
  await using house = await sshWorld({ listen: { clock } })
  const peer = await inSession(house.front)
  const there = house.target.peers[0]!
  const kexInit = Buffer.concat([
    Buffer.alloc(17, 20), sshFields('curve25519-sha256', 'ssh-ed25519', 'aes128-ctr', 'aes128-ctr',
      'hmac-sha2-256', 'hmac-sha2-256', 'none', 'none', '', ''), Buffer.alloc(5)
  ])
  peer.sendNow(kexInit)
  await new Promise(resolve => setTimeout(resolve, 100))
  clock.advance(31_000)
  clock.advance(1000)
  await soon(() => peer.closed && there.closed, 'both are closed', 2000)
  assert.is(house.front.endings[0]?.reason, 'protocol-violation')
})

/** Timers of connections that the kernel keeps: `02` is keep-alive; with the hundredths of seconds left. */
function keepAlive(local: number | undefined, remote: number | undefined): { timer: string, due: number }[] {
  const lines = readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1)
  const portOf = (address = ''): number => parseInt(address.split(':')[1] ?? '', 16)
  return lines.map(line => line.trim().split(/\s+/))
    .filter(([, own, other, state]) => state === '01' && (local === undefined || portOf(own) === local)
      && (remote === undefined || portOf(other) === remote))
    .map(([, , , , , timing = '']) =>
      ({ timer: timing.slice(0, 2), due: parseInt(timing.slice(3), 16) }))
}

test('a peer that vanishes without a word is found out by the kernel, on both sides', async () => {
  await using house = await sshWorld()
  const { front, target } = house
  const peer = await inSession(front)
  await new Promise(resolve => setTimeout(resolve, 300))
  // After 15 s the kernel asks, and ten times more, a second apart: 25 s (F24: 45 s).
  for (const found of [keepAlive(front.port, undefined), keepAlive(undefined, target.port)]) {
    assert.is(found.length, 1)
    assert.is(found[0]!.timer, '02')
    assert.ok(found[0]!.due <= 15_00)
  }
  peer.socket.destroy()
})

test('a client that goes away while its target is held back is missed at once', async () => {
  await using house = await sshWorld({}, async peer => {
    await logIn(peer)
    for (let number = 0; number < 2; number++) respond(peer, (await peer.next())!)
    peer.socket.pause()
  })
  const peer = await inSession(house.front)
  for (let count = 0; count < 69; count++) peer.send(channelData(100, Buffer.alloc(30_000)))
  await new Promise(resolve => setTimeout(resolve, 200))
  peer.socket.destroy()
  await soon(() => house.front.endings.length === 1, 'the end')
  assert.is(house.front.endings[0]?.reason, 'client-closed')
})

test.run()
