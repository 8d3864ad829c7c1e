// A scripted SSH server: plays the target. Each connection runs one script; `logIn` is the honest login, and
// `echo` an honest session. Everything that reached it is kept, so that a test can say that nothing did.
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { readPrivateKey } from '../../src/proxy/ssh/ssh2.ts'
import {
  channelData, channelSignal, openConfirmation, parseChannelOpen, sshMessage
} from '../../src/wire/ssh/connection.ts'
import { sshFields } from '../../src/wire/ssh/data.ts'
import { generateSshKey } from '../../src/wire/ssh/key.ts'
import { parseChannelRequest } from '../../src/wire/ssh/request.ts'
import { loginWords } from './ssh-login.ts'
import { SshPeer } from './ssh-peer.ts'
import type { PeerSetting } from './ssh-peer.ts'

export type TargetScript = (peer: SshPeer) => Promise<unknown> | void

export interface SshTarget extends AsyncDisposable {
  readonly port: number
  /** What it shows, as a pinned line. */
  readonly hostKey: string
  readonly peers: SshPeer[]
  /** Bare connections, for targets that do not get as far as SSH. */
  readonly sockets: Socket[]
  /** Payloads of all connections. */
  readonly heard: Buffer[]
  stop(): Promise<void>
}

export interface TargetOptions extends Omit<PeerSetting, 'hostKeys'> {
  /** Instead of SSH. */
  raw?: (socket: Socket) => void
}

/** Grants the service and lets in whoever asks first. */
export async function logIn(peer: SshPeer): Promise<void> {
  await peer.until(loginWords.serviceRequest)
  peer.send(Buffer.concat([Buffer.of(loginWords.serviceAccept), sshFields('ssh-userauth')]))
  await peer.until(loginWords.request)
  peer.send(Buffer.of(loginWords.success))
}

export const windowBytes = 2 ** 21

/** Confirms sessions, says yes to requests and gives data back. */
export async function echo(peer: SshPeer): Promise<void> {
  await logIn(peer)
  for (;;) {
    const payload = await peer.next()
    if (payload === undefined) return
    respond(peer, payload)
  }
}

/** One answer of `echo`. Its numbers are the client's and 100 more. */
export function respond(peer: SshPeer, payload: Buffer): void {
  const recipient = payload.length >= 5 ? (payload.readUInt32BE(1) - 100) >>> 0 : 0
  switch (payload[0]) {
    case sshMessage.channelOpen: {
      const { sender } = parseChannelOpen(payload)
      peer.send(openConfirmation(sender, (sender + 100) >>> 0, windowBytes, 32_768))
      return
    }
    case sshMessage.channelRequest: {
      if (parseChannelRequest(payload).wantReply) {
        peer.send(channelSignal(sshMessage.channelSuccess, recipient))
      }
      return
    }
    case sshMessage.data: peer.send(channelData(recipient, payload.subarray(9))); return
    case sshMessage.close: peer.send(channelSignal(sshMessage.close, recipient)); return
    case sshMessage.globalRequest: peer.send(Buffer.of(sshMessage.requestFailure))
  }
}

export async function startSshTarget(
  script: TargetScript = echo, { raw, ...setting }: TargetOptions = {}
): Promise<SshTarget> {
  const file = generateSshKey()
  const [peers, sockets, heard]: [SshPeer[], Socket[], Buffer[]] = [[], [], []]
  const server = createServer({ noDelay: true, allowHalfOpen: true }, socket => {
    sockets.push(socket)
    socket.on('error', () => undefined)
    if (raw !== undefined) {
      socket.resume().on('end', () => socket.end())
      return raw(socket)
    }
    const hostKeys = { 'ssh-ed25519': readPrivateKey(file.privateKey) }
    const peer = new SshPeer(socket, {
      ...setting, hostKeys, heard: payload => { heard.push(Buffer.from(payload)) }
    })
    peers.push(peer)
    peer.start()
    void peer.ready().then(() => peer.isReady ? script(peer) : undefined)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const stop = async (): Promise<void> => {
    for (const socket of sockets) socket.destroy()
    server.close()
    await once(server, 'close')
  }
  return {
    port: (server.address() as AddressInfo).port, hostKey: file.publicKey, peers, sockets, heard, stop,
    [Symbol.asyncDispose]: stop
  }
}
