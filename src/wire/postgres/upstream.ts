// The connection of a session to its target: dialled, logged in, then handed to a relay which takes the bytes
// as they come. Also the way to cancel a statement there. Taking over: `leftover` is what came behind
// ReadyForQuery; handle it first, then call `takeOver`; until then the socket is stopped and nothing is lost.
// With `readBuffer` (and without TLS) the bytes arrive in that buffer and must be used or copied before the
// receiver returns.
import type { Socket } from 'node:net'
import { Channel, type Receive } from './channel.ts'
import { dial, type DialOptions, type TlsOptions } from './dial.ts'
import { logIn, type LoggedIn, type LoginOptions } from './login.ts'
import { cancelRequest } from './messages.ts'

export interface UpstreamOptions extends Omit<DialOptions, 'timeouts'>, Omit<LoginOptions, 'loginMs'> {
  /** Milliseconds for each step. */
  timeouts: { connectMs: number, tlsMs: number, loginMs: number }
  /** Gives up; the error is of kind `aborted`. */
  signal?: AbortSignal | undefined
}

export interface Upstream extends LoggedIn {
  /**
   * Write to it; stop and start it with `pause` and `resume`. Its 'end', 'close' and 'error' are the relay's.
   */
  readonly socket: Socket
  /** Bytes behind ReadyForQuery; whole or partial messages. */
  readonly leftover: Buffer
  /**
   * From now on `receive(chunk, bytes)` gets what the target sends; when it returns false the socket is
   * stopped until `socket.resume()`. @throws UpstreamError when the target has closed meanwhile
   */
  takeOver(receive: Receive): void
  /** Cuts the connection; what has been written is not waited for. */
  close(): void
}

export interface Opened extends LoggedIn {
  channel: Channel
}

/** Dials and logs in. For clients that read message by message; a relay uses `openUpstream`. */
export async function openChannel(options: UpstreamOptions): Promise<Opened> {
  const { signal, timeouts } = options
  const channel = new Channel()
  const unfollow = channel.follow(signal)
  try {
    const channelBinding = await dial(channel, options)
    return { channel, ...await logIn(channel, channelBinding, { ...options, loginMs: timeouts.loginMs }) }
  } catch (thrown) {
    channel.destroy()
    throw thrown
  } finally {
    unfollow()
  }
}

/**
 * Opens a connection to a target as `user`. @throws UpstreamError, or what `secret` or `onNotice` throws
 */
export async function openUpstream(options: UpstreamOptions): Promise<Upstream> {
  const { channel, ...loggedIn } = await openChannel(options)
  const { socket } = channel
  return {
    ...loggedIn,
    socket,
    leftover: channel.takeRest(),
    takeOver: receive => channel.redirect(receive),
    close: () => {
      channel.destroy()
      socket.destroy()
    }
  }
}

export interface CancelOptions {
  host: string
  port: number
  tls: TlsOptions
  pid: number
  key: Uint8Array
  /** For each step: connecting, TLS, and the target's closing of the connection. */
  timeoutMs: number
}

/**
 * Asks the target to cancel what backend `pid` is doing, over TLS where the target has it. True when the
 * request was delivered (the target closed the connection); whether it came in time nobody can know. Never
 * throws.
 */
export async function sendCancel({ host, port, tls, pid, key, timeoutMs }: CancelOptions): Promise<boolean> {
  const channel = new Channel()
  let socket: Socket | undefined
  try {
    await dial(channel, { host, port, tls, timeouts: { connectMs: timeoutMs, tlsMs: timeoutMs } })
    channel.write(cancelRequest(pid, key))
    socket = channel.socket
    channel.detach()
    return await closesWithin(socket, timeoutMs)
  } catch {
    return false
  } finally {
    channel.destroy()
    socket?.destroy()
  }
}

/** True when the peer closes in time; what it sends until then is thrown away. */
export function closesWithin(socket: Socket, ms: number): Promise<boolean> {
  return new Promise(resolve => {
    if (socket.destroyed) return resolve(true)
    const timer = setTimeout(() => resolve(false), ms)
    socket.once('close', () => {
      clearTimeout(timer)
      resolve(true)
    })
    socket.resume()
  })
}
