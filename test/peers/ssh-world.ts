// The SSH front end between a scripted client and a scripted target, with a session of somebody else beside
// it that must answer all the time: what hostile peers on either side are tried in.
import * as assert from 'uvu/assert'
import { channelData, channelOpen, channelRequest, sshMessage } from '../../src/wire/ssh/connection.ts'
import { loginClient, loginWords } from './ssh-login.ts'
import type { LoginClient } from './ssh-login.ts'
import { personPassword, startSshPassThrough } from './ssh-pass-through.ts'
import type { SshPassThrough, SshPassThroughOptions } from './ssh-pass-through.ts'
import type { SshPeer } from './ssh-peer.ts'
import { startSshTarget, windowBytes } from './ssh-target.ts'
import type { SshTarget, TargetOptions, TargetScript } from './ssh-target.ts'

/** Longer than any refusal may take (R11). */
export const cutMsMax = 1000

export interface SshWorld extends AsyncDisposable {
  front: SshPassThrough
  target: SshTarget
}

/** Behind it, `script` plays the target. */
export async function sshWorld(
  options: Partial<SshPassThroughOptions> = {}, script?: TargetScript, played: TargetOptions = {}
): Promise<SshWorld> {
  const target = await startSshTarget(script, played)
  const front = await startSshPassThrough({
    target: { host: '127.0.0.1', port: target.port, hostKeys: [target.hostKey] }, ...options,
    listen: { ...options.listen, limits: { loginFailuresPerMinuteMax: 1e9, ...options.listen?.limits } }
  })
  return {
    front, target,
    [Symbol.asyncDispose]: async () => {
      await front.stop()
      await target.stop()
    }
  }
}

/** alice, logged in. */
export async function loggedIn(front: SshPassThrough): Promise<LoginClient> {
  const client = await loginClient(front.port)
  assert.is(await client.password('alice', personPassword), loginWords.success)
  return client
}

/** … with a session channel: 0 on her side, 100 on the target's. */
export async function inSession(front: SshPassThrough, window = windowBytes): Promise<SshPeer> {
  const { peer } = await loggedIn(front)
  const opened = await peer.send(channelOpen('session', 0, window, 32_768)).next()
  assert.is(opened?.[0], sshMessage.openConfirmation)
  const started = await peer.send(channelRequest(100, 'shell', true)).next()
  assert.is(started?.[0], sshMessage.channelSuccess)
  return peer
}

export interface Witness {
  /** A word goes to the target and comes back. */
  answers(): Promise<void>
  /** The longest time that it had to wait. */
  readonly slowestMs: number
  leave(): void
}

/** Somebody whose session nobody may disturb. */
export async function witness(front: SshPassThrough): Promise<Witness> {
  const peer = await inSession(front)
  let slowestMs = 0
  return {
    async answers() {
      const started = performance.now()
      const said = await peer.send(channelData(100, Buffer.from('hello'))).next()
      assert.equal(said?.subarray(9).toString(), 'hello', 'the witness was heard')
      slowestMs = Math.max(slowestMs, performance.now() - started)
    },
    get slowestMs() { return slowestMs },
    leave: () => peer.socket.destroy()
  }
}

/** Waits until something is so, no longer than the time for it. */
export async function soon(met: () => boolean, what: string, limitMs = 5000): Promise<void> {
  const until = performance.now() + limitMs
  while (!met()) {
    if (performance.now() > until) throw new Error(`not within ${limitMs} ms: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 2))
  }
}

/** The connection ends in time; what the person hears. */
export async function isCut(peer: SshPeer, what: string): Promise<void> {
  await soon(() => peer.closed, `closed after ${what}`, cutMsMax)
}
