// The proxy is no way into the network (R17): whoever may have a shell and no forward asks for 40
// destinations by nine kinds of channels and requests. Each is refused, the target hears no word that means
// anything to it (what keeps its answers in order has no name), nobody is dialled, and the shell goes on.
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo, Server } from 'node:net'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  channelData, channelOpen, globalRequest, parseGlobalRequest, sshMessage
} from '../src/wire/ssh/connection.ts'
import type { SshPeer } from './peers/ssh-peer.ts'
import { inSession, soon, sshWorld } from './peers/ssh-world.ts'

const world = await sshWorld({ channels: ['shell'] })
const traps: Server[] = []
let trapped = 0

async function trap(host: string): Promise<number> {
  const server = createServer(socket => {
    trapped++
    socket.destroy()
  })
  traps.push(server)
  await once(server.listen(0, host), 'listening')
  return (server.address() as AddressInfo).port
}

test.after(async () => {
  for (const server of traps) server.close()
  await world[Symbol.asyncDispose]()
})

const hosts = [
  '127.0.0.1', '::1', 'localhost', '0.0.0.0', '[::1]', '127.1', '10.0.0.1', '169.254.169.254',
  '255.255.255.255', 'metadata.internal'
]
const windowBytes = 65_536
// Beside the session, which is 0 on our side.
let number = 1

type Ask = (host: string, port: number) => Buffer

const opening = (type: string, fields: (host: string, port: number) => (string | number)[]): Ask =>
  (host, port) => channelOpen(type, number++, windowBytes, 32_768, ...fields(host, port))

const kinds: Readonly<Record<string, Ask>> = {
  'direct-tcpip': opening('direct-tcpip', (host, port) => [host, port, '127.0.0.1', 4000]),
  'direct-streamlocal': opening('direct-streamlocal@openssh.com', host => [`/run/${host}.sock`, '', 0]),
  'tun': opening('tun@openssh.com', () => [1, 0x7fffffff]),
  'forwarded-tcpip': opening('forwarded-tcpip', (host, port) => [host, port, '127.0.0.1', 4000]),
  'forwarded-streamlocal': opening('forwarded-streamlocal@openssh.com', host => [`/run/${host}.sock`, '']),
  'x11': opening('x11', (host, port) => [host, port]),
  'agent': opening('auth-agent@openssh.com', () => []),
  'tcpip-forward': (host, port) => globalRequest('tcpip-forward', true, host, port),
  'streamlocal-forward': host => globalRequest('streamlocal-forward@openssh.com', true, `/run/${host}.sock`)
}

async function isRefused(peer: SshPeer, ask: Buffer, what: string): Promise<void> {
  const { openConfirmation, openFailure, requestSuccess, requestFailure } = sshMessage
  const answer = await peer.send(ask).until(openConfirmation, openFailure, requestSuccess, requestFailure)
  assert.ok([openFailure, requestFailure].includes(answer?.[0] as never), `${what}: ${answer?.[0]}`)
}

test('of 40 destinations by nine kinds of channels none is reached', async () => {
  const ports = [22, 80, await trap('127.0.0.1'), await trap('::1')]
  const peer = await inSession(world.front)
  const heard = world.target.heard.length
  let asked = 0
  for (const [kind, ask] of Object.entries(kinds)) {
    for (const host of hosts) {
      for (const port of ports) {
        await isRefused(peer, ask(host, port), `${kind} ${host}:${port}`)
        asked++
      }
    }
  }
  assert.is(asked, 360)
  const disarmed = world.target.heard.slice(heard)
  assert.ok(disarmed.every(payload => payload[0] === sshMessage.globalRequest), 'no channel')
  for (const payload of disarmed) assert.is(parseGlobalRequest(payload).purpose.kind, 'unknown')
  assert.is(trapped, 0)
  peer.send(channelData(100, Buffer.from('still here')))
  await soon(() => world.target.heard.at(-1)?.[0] === sshMessage.data, 'the shell goes on')
  peer.socket.destroy()
})

test.run()
