// Reading an accepted socket without an allocation for each read. Node offers that (`onread`) only to sockets
// that it connects itself; for an accepted one its handle is moved into a new socket, through an option of
// the constructor that is not documented (tried with Node 20 and 24). So this is the one place that knows
// about it, and where the inside of Node looks different the socket stays as it is and reads as every stream
// does.
import { writeSync } from 'node:fs'
import { Socket } from 'node:net'
import type { SocketConstructorOpts } from 'node:net'
import type { Duplex } from 'node:stream'
import type { ReadBuffer } from './buffers.ts'

type Receive = (chunk: Buffer, bytes: number) => boolean

interface Handle {
  reading?: boolean
  readStop?: () => number
  /** -1 when closed. */
  fd?: number
  useUserBuffer?: (buffer: Uint8Array) => void
}

/** What TypeScript does not know of net.Socket. */
interface Insides {
  _handle: Handle | null
}

/**
 * A socket on the connection of `accepted`, which is closed as an object; bytes go to `receive` in the
 * buffers of `buffer`, false stops the socket until `resume`. Nothing may be unread in or waiting to be
 * written by `accepted`; otherwise, or when Node is not as expected, `accepted` itself is returned and reads
 * as a stream.
 */
export function readShared(accepted: Socket, receive: Receive, buffer: ReadBuffer): Socket {
  const handle = (accepted as unknown as Insides)._handle
  const movable = handle !== null && typeof handle.useUserBuffer === 'function' &&
    typeof handle.readStop === 'function' && !accepted.destroyed && !accepted.readableEnded &&
    accepted.readableLength === 0 && accepted.writableLength === 0
  if (!movable) return readStream(accepted, receive)
  handle.readStop?.()
  handle.reading = false
  const options = {
    handle,
    allowHalfOpen: true,
    onread: {
      buffer: buffer.next,
      callback: (bytes: number, chunk: Uint8Array): boolean => receive(chunk as Buffer, bytes)
    }
  }
  const socket = new Socket(options as unknown as SocketConstructorOpts)
  if ((socket as unknown as Insides)._handle !== handle) return readStream(accepted, receive)
  // Its destruction takes it off the listener's books; the connection is not its own any more.
  ;(accepted as unknown as Insides)._handle = null
  accepted.destroy()
  socket.on('error', () => undefined)
  return socket
}

/**
 * Writes the first `bytes` of a chunk that was read into the shared buffer; false when the socket is full and
 * will emit 'drain'. With `direct` the kernel is asked first, past the stream: it takes small writes at once,
 * nothing has to be copied, and the bookkeeping of a stream would cost as much as the write. What it does not
 * take goes the way of all streams, as a copy. Only for sockets without TLS: beneath TLS there is another
 * stream.
 */
export function writeShared(to: Socket, chunk: Buffer, bytes: number, direct: boolean): boolean {
  let written = 0
  // The descriptor is asked for each time: after a close its number belongs to another connection.
  const fd = direct && to.writableLength === 0 ? (to as unknown as Insides)._handle?.fd ?? -1 : -1
  if (fd >= 0) {
    try {
      written = writeSync(fd, chunk, 0, bytes, null)
    } catch {
      // Full, or broken: the stream finds out which, and tells it in its own way.
    }
    if (written === bytes) return true
  }
  return to.write(Buffer.from(chunk.subarray(written, bytes)))
}

/** The same as every stream reads. */
export function readStream<Stream extends Duplex>(socket: Stream, receive: Receive): Stream {
  socket.on('data', (chunk: Buffer) => {
    if (!receive(chunk, chunk.length)) socket.pause()
  })
  return socket
}
