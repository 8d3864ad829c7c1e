// SSH clients that lie to a tunnel: channels that do not exist, floods of openings and requests, a client
// that does not read. The connection is cut with a code or goes on in order; the target hears of it only what
// belongs to a channel (R8, R11).
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { connectionsMax } from '../src/proxy/tcp/tunnel.ts'
import {
  channelData, channelOpen, channelRequest, channelSignal, parseOpenConfirmation, parseOpenFailure, sshMessage
} from '../src/wire/ssh/connection.ts'
import { codeIn } from './peers/ssh-login.ts'
import { startSshPassThrough } from './peers/ssh-pass-through.ts'
import type { SshPeer } from './peers/ssh-peer.ts'
import { isCut, loggedIn, soon } from './peers/ssh-world.ts'

const windowBytes = 2 * 1024 * 1024
let flood = false
const sockets = new Set<Socket>()

const server = createServer(socket => {
  sockets.add(socket)
  socket.on('error', () => undefined).on('close', () => sockets.delete(socket))
  const write = (): void => { while (socket.write(Buffer.alloc(65_536))); }
  if (flood) write()
  socket.on('drain', write)
  socket.on('data', chunk => socket.write(chunk))
})
await once(server.listen(0, '127.0.0.1'), 'listening')
const { port } = server.address() as AddressInfo
const front = await startSshPassThrough({
  target: { host: '127.0.0.1', port, hostKeys: [], protocol: 'tcp' },
  listen: { limits: { loginFailuresPerMinuteMax: 1e9 } }
})
test.after(async () => {
  await front.stop()
  server.close()
})

const open = (number: number, host = 'target', window = windowBytes): Buffer =>
  channelOpen('direct-tcpip', number, window, 32_768, host, 1, '127.0.0.1', 4000)

/** alice with a channel to the target: 0 on her side. */
async function withChannel(window = windowBytes): Promise<{ peer: SshPeer, ours: number }> {
  const { peer } = await loggedIn(front)
  const answer = await peer.send(open(0, 'target', window)).until(sshMessage.openConfirmation)
  return { peer, ours: parseOpenConfirmation(answer!).sender }
}

test('what is said on a channel that does not exist, or is no message, cuts the connection', async () => {
  const lies: Record<string, (number: number) => Buffer> = {
    'data on another channel': number => channelData(number + 9, Buffer.from('x')),
    'a request in a forwarded channel': number => channelRequest(number, 'shell', true),
    'an unknown message': () => Buffer.of(101, 0, 0, 0, 0),
    'a message cut short': () => Buffer.of(sshMessage.data, 0, 0),
    'data beyond the window': number => channelData(number, Buffer.alloc(32_768))
  }
  for (const [name, lie] of Object.entries(lies)) {
    const { peer, ours: number } = await withChannel()
    const times = name === 'data beyond the window' ? 1500 : 1
    const before = front.endings.length
    // The target does not read: nothing more may be sent then.
    if (times > 1) for (const socket of sockets) socket.pause()
    for (let n = 0; n < times; n++) peer.send(lie(number))
    await soon(() => front.endings.length > before, name)
    await isCut(peer, name)
    assert.is(codeIn(peer.farewell?.text), 'protocol-violation', name)
    for (const socket of sockets) socket.destroy()
  }
})

test('openings beyond the limit are refused one by one, the others go on', async () => {
  const { peer } = await loggedIn(front)
  const many = 400
  peer.send(...Array.from({ length: many }, (_, number) => open(number)))
  const [open1, refused]: [Buffer[], string[]] = [[], []]
  while (open1.length + refused.length < many) {
    const answer = await peer.until(sshMessage.openConfirmation, sshMessage.openFailure)
    if (answer![0] === sshMessage.openConfirmation) open1.push(answer!)
    else refused.push(parseOpenFailure(answer!).description)
  }
  assert.is(open1.length, connectionsMax)
  assert.ok(refused.every(text => /too many channels|\[too-many-connections/.test(text)), refused[0])
  const { recipient, sender } = parseOpenConfirmation(open1[0]!)
  const echo = await peer.send(channelData(sender, Buffer.from('hello'))).until(sshMessage.data)
  assert.equal([echo!.readUInt32BE(1), echo!.subarray(9).toString()], [recipient, 'hello'])
  peer.socket.destroy()
  await soon(() => sockets.size === 0, 'all connections to the target are closed')
})

test('a client that closes while it is sent something, or does not read, holds nothing', async () => {
  flood = true
  const { peer, ours } = await withChannel()
  peer.send(channelSignal(sshMessage.close, ours))
  await soon(() => sockets.size === 0, 'its connection to the target is closed')
  peer.send(channelSignal(sshMessage.eof, ours))
  await isCut(peer, 'a message on a channel that both have closed')
  const { peer: deaf } = await withChannel(0xffffffff)
  deaf.socket.pause()
  const [socket] = sockets
  let before = -1
  while (before !== socket!.bytesWritten) {
    before = socket!.bytesWritten
    await new Promise(resolve => setTimeout(resolve, 150))
  }
  assert.ok(before < 48 * 1024 * 1024, `${before} bytes of the target are held somewhere`)
  deaf.socket.destroy()
  await soon(() => sockets.size === 0, 'closed')
  flood = false
})

test('requests and refusals without end are answered, and told to the audit only so many times', async () => {
  const { peer } = await loggedIn(front)
  const before = front.refused.length
  for (let n = 0; n < 500; n++) peer.send(open(n, 'elsewhere'))
  for (let n = 0; n < 500; n++) {
    const answer = await peer.until(sshMessage.openFailure)
    assert.match(parseOpenFailure(answer!).description, /reaches target only: access denied \[not-allowed/)
  }
  assert.is(front.refused.length - before, 100)
  peer.socket.destroy()
})

test.run()
