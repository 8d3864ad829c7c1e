// What goes to a peer, gathered: all messages of one turn of the event loop leave in one write. With ssh2's
// native AEAD ciphers a message is framed where it will lie and encrypted there when it leaves, with padding
// from a pool of random bytes; with any other cipher, and while keys are exchanged, it goes ssh2's own way.
// Encryption comes last, behind the gate: what may not leave is dropped in clear, and the connection is still
// one on which the reason can be said.
import { randomFillSync } from 'node:crypto'
import type { Writable } from 'node:stream'
import { packetBytesMax, ssh2 } from './ssh2.ts'
import type { Cipher, Protocol } from './ssh2.ts'

/**
 * A turn of the event loop rarely brings more; what does is written in several pieces. The largest packet
 * fits.
 */
const batchBytes = packetBytesMax + 1024
/** Batches that wait to be used again: for all connections together. */
const sparesMax = 16
/** RFC 4253 section 6: length and padding length before the payload, at least 4 bytes of padding after it. */
const headBytes = 5
const paddingMin = 4
const tagBytes = 16
/** A small batch gets a buffer of its own size: an idle session must not hold a quarter of a mebibyte. */
const smallBytes = 4 * 1024

const spares: Buffer[] = []

function large(): Buffer {
  return spares.pop() ?? Buffer.allocUnsafeSlow(batchBytes)
}

const random = Buffer.allocUnsafeSlow(8 * 1024)
let randomAt = random.length

/** Fills `length` (at most 255) bytes with random ones. */
function pad(target: Buffer, at: number, length: number): void {
  if (randomAt + length > random.length) {
    randomFillSync(random)
    randomAt = 0
  }
  random.copy(target, at, randomAt, randomAt + length)
  randomAt += length
}

/** Ciphers of the native binding that encrypt a packet where it lies, and the block that they pad to. */
const inPlaceBlocks: Readonly<Record<string, number>> = {
  AESGCMCipherBinding: 16, ChaChaPolyCipherBinding: 8
}

/** `done`: the bytes have been written and their buffer is free again. */
export type Write = (bytes: Buffer, done?: () => void) => void

/**
 * Asked before anything leaves: true, or a promise to wait for. Throws when nothing may leave any more
 * (strict recording: what is not on record is not delivered).
 */
export type Gate = () => true | Promise<void>

/** With so much unread a peer is slow, and a copy costs less than the room. */
const slowBytes = 256 * 1024

/**
 * Hands bytes to a socket. For a peer that does not read, what waits is kept in its own size: a batch may be
 * eight times as large.
 */
export function writeTo(socket: Writable, bytes: Buffer, done: (() => void) | undefined): void {
  const isSlow = done !== undefined && socket.writableLength > slowBytes
  if (!isSlow) return void socket.write(bytes, done)
  socket.write(Buffer.from(bytes))
  done()
}

interface Held {
  bytes: Buffer
  /** Encrypted already: its place in the order of sequence numbers is taken. */
  sealed: boolean
  done: (() => void) | undefined
}

export class Outbox {
  readonly #protocol: Protocol
  readonly #write: Write
  readonly #onFailure: (error: unknown) => void
  #gate: Gate | undefined
  #batch: Buffer | undefined
  #length = 0
  /** Batches that wait for the gate, in order. */
  #held: Held[] = []
  #heldBytes = 0
  #waiting = false
  #scheduled = false
  #closed = false
  /** Of the cipher below; undefined: it goes ssh2's own way. */
  #block: number | undefined
  #cipher: Cipher | undefined
  /** Sent since the owner last set it to 0. */
  bytes = 0
  /** Kept by ssh2 while keys are exchanged; the owner sets it to 0 when they are. */
  deferredBytes = 0

  /** `onFailure` hears what the gate threw. */
  constructor(protocol: Protocol, write: Write, onFailure: (error: unknown) => void) {
    this.#protocol = protocol
    this.#write = write
    this.#onFailure = onFailure
  }

  /** Gathered or held, not handed to the socket yet. */
  get waitingBytes(): number {
    return this.#length + this.#heldBytes + this.deferredBytes
  }

  guard(gate: Gate): void {
    this.#gate = gate
  }

  send(payload: Uint8Array): void {
    const cipher = this.#protocol._cipher
    if (cipher !== this.#cipher) this.#learn(cipher)
    const [instance, block] = [cipher._instance, this.#block]
    if (instance === undefined || block === undefined || this.#protocol._kexinit !== undefined) {
      return this.#sendSlowly(payload)
    }
    let padding = block - ((1 + payload.length) % block)
    if (padding < paddingMin) padding += block
    const packetBytes = headBytes + payload.length + padding + tagBytes
    const at = this.#reserve(packetBytes)
    const batch = this.#batch!
    batch.writeUInt32BE(1 + payload.length + padding, at)
    batch[at + 4] = padding
    batch.set(payload, at + headBytes)
    pad(batch, at + headBytes + payload.length, padding)
    this.bytes += packetBytes
    this.#schedule()
  }

  /** Bytes that ssh2 made itself. */
  pass(bytes: Buffer): void {
    if (this.#closed) return
    this.bytes += bytes.length
    this.#held.push({ bytes, sealed: true, done: undefined })
    this.#heldBytes += bytes.length
    this.#schedule()
  }

  /** Encrypts what waits: to be called before ssh2 sends something of its own. */
  seal(): void {
    this.#take()
    for (const held of this.#held) this.#encrypt(held)
  }

  /**
   * Drops what has not left and opens the gate: for the last word. False when that cannot be understood any
   * more, since something is missing before it.
   */
  release(): boolean {
    this.#take()
    const isWhole = this.#held.every(({ sealed }) => !sealed)
    this.#held = []
    this.#heldBytes = 0
    this.#waiting = false
    this.#gate = undefined
    return isWhole
  }

  /** Hands everything to the socket, as soon as the gate lets it. */
  flush(): void {
    this.#take()
    if (this.#waiting || this.#closed || this.#held.length === 0) return
    try {
      const open = this.#gate?.() ?? true
      if (open === true) return this.#deliver()
      this.#waiting = true
      const upTo = this.#held.length
      open.then(() => {
        if (!this.#waiting) return
        this.#waiting = false
        this.#deliver(upTo)
        this.flush()
      }, this.#onFailure)
    } catch (thrown) {
      this.#onFailure(thrown)
    }
  }

  close(): void {
    this.#closed = true
    this.#batch = undefined
    this.#held = []
    this.#length = this.#heldBytes = 0
  }

  #deliver(upTo = this.#held.length): void {
    for (const held of this.#held.splice(0, upTo)) {
      this.#heldBytes -= held.bytes.length
      this.#encrypt(held)
      this.#write(held.bytes, held.done)
    }
  }

  /** Packet after packet: the clear length word says where the next one begins. */
  #encrypt(held: Held): void {
    const { bytes, sealed } = held
    if (sealed) return
    held.sealed = true
    const cipher = this.#protocol._cipher
    let at = 0
    while (at < bytes.length) {
      const end = at + 4 + bytes.readUInt32BE(at) + tagBytes
      cipher._instance?.encrypt(bytes.subarray(at, end), cipher.outSeqno)
      cipher.outSeqno = (cipher.outSeqno + 1) >>> 0
      at = end
    }
  }

  /** The present batch is as it shall leave. */
  #take(): void {
    const batch = this.#batch
    if (batch === undefined || this.#length === 0) return
    const isLarge = batch.length >= batchBytes
    const giveBack = (): void => {
      if (spares.length < sparesMax) spares.push(batch)
    }
    this.#held.push({
      bytes: batch.subarray(0, this.#length), sealed: false, done: isLarge ? giveBack : undefined
    })
    this.#heldBytes += this.#length
    this.#batch = undefined
    this.#length = 0
  }

  #sendSlowly(payload: Uint8Array): void {
    this.seal()
    if (this.#protocol._kexinit !== undefined) this.deferredBytes += payload.length
    const { write } = this.#protocol._packetRW
    const packet = write.alloc(payload.length)
    packet.set(payload, write.allocStart)
    ssh2().sendPacket(this.#protocol, write.finalize(packet))
  }

  /** Where in the batch so many bytes may be written. */
  #reserve(bytes: number): number {
    if (this.#batch !== undefined && this.#length + bytes > this.#batch.length) this.#enlarge(bytes)
    if (this.#batch === undefined) {
      this.#batch = bytes <= smallBytes ? Buffer.allocUnsafe(smallBytes) : large()
    }
    const at = this.#length
    this.#length += bytes
    return at
  }

  /** The present batch is too small: a small one becomes a large one, a large one is closed. */
  #enlarge(bytes: number): void {
    const before = this.#batch!
    if (before.length >= batchBytes || this.#length + bytes > batchBytes) return this.#take()
    this.#batch = large()
    before.copy(this.#batch, 0, 0, this.#length)
  }

  #learn(cipher: Cipher): void {
    this.#cipher = cipher
    this.#block = cipher._instance === undefined ? undefined : inPlaceBlocks[cipher.constructor.name]
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    queueMicrotask(() => {
      this.#scheduled = false
      this.flush()
    })
  }
}
