// Packets of MySQL's and MariaDB's protocol as bytes, in both directions (MySQL internals manual,
// "Client/Server Protocol"). Pure: a reader that never leaves its packet, the greeting, the answers that a
// small client meets, and the proofs of a password. Whatever a server sends that has no place here is a
// WireError.
import { createHash } from 'node:crypto'
import { WireError } from '../error.ts'

/** A greeting or one row of a catalogue is small; a packet above it is refused before it is read. */
export const packetBytesMax = 1024 * 1024
const textBytesMax = 512

export const capability = {
  longPassword: 0x1, protocol41: 0x200, ssl: 0x800, transactions: 0x2000, secureConnection: 0x8000,
  pluginAuth: 0x80000
} as const

/** utf8mb4_general_ci: known to every version. */
const charset = 45

export interface Greeting {
  version: string
  connectionId: number
  capabilities: number
  challenge: Buffer
  plugin: string
}

/** A server's refusal: number, SQLSTATE and its own text, cut. */
export interface Refusal {
  number: number
  sqlstate: string
  message: string
}

/** Reads one packet from its start; never beyond its end. */
export class PacketReader {
  readonly #packet: Buffer
  #at: number

  constructor(packet: Buffer, at = 0) {
    this.#packet = packet
    this.#at = at
  }

  get left(): number {
    return this.#packet.length - this.#at
  }

  take(count: number): Buffer {
    if (count > this.left) throw new WireError('a packet ended too early')
    this.#at += count
    return this.#packet.subarray(this.#at - count, this.#at)
  }

  number(bytes: number): number {
    return this.take(bytes).readUIntLE(0, bytes)
  }

  untilZero(): Buffer {
    const end = this.#packet.indexOf(0, this.#at)
    if (end === -1) throw new WireError('a text without an end')
    const text = this.take(end - this.#at)
    this.#at++
    return text
  }

  /** A length-encoded number; null is the mark of SQL NULL. */
  length(): number | null {
    const first = this.number(1)
    if (first < 0xfb) return first
    if (first === 0xfb) return null
    if (first === 0xfc) return this.number(2)
    if (first === 0xfd) return this.number(3)
    if (first === 0xff) throw new WireError('not a length')
    const low = this.number(4)
    const high = this.number(4)
    if (high !== 0) throw new WireError('a length is above every limit')
    return low
  }

  /** A length-encoded text, or null. */
  text(): string | null {
    const length = this.length()
    return length === null ? null : this.take(length).toString('utf8')
  }
}

/** @throws WireError unless it is a greeting of protocol 10 that knows authentication plugins */
export function readGreeting(packet: Buffer): Greeting {
  const reader = new PacketReader(packet)
  if (reader.number(1) !== 10) throw new WireError('not a greeting of protocol 10')
  const version = reader.untilZero().subarray(0, textBytesMax).toString('latin1')
  const connectionId = reader.number(4)
  const first = reader.take(8)
  reader.take(1)
  const low = reader.number(2)
  reader.take(3)
  const capabilities = low + reader.number(2) * 0x10000
  const length = reader.number(1)
  reader.take(10)
  if ((capabilities & capability.pluginAuth) === 0) throw new WireError('the server is too old')
  const second = reader.take(Math.max(13, length - 8))
  const challenge = Buffer.concat([first, second.subarray(0, 12)])
  return { version, connectionId, capabilities, challenge, plugin: reader.untilZero().toString('latin1') }
}

/** The packet that says that TLS begins, which is also the head of the answer to the greeting. */
export function answerHead(capabilities: number): Buffer {
  const head = Buffer.alloc(32)
  head.writeUInt32LE(capabilities, 0)
  head.writeUInt32LE(packetBytesMax, 4)
  head[8] = charset
  return head
}

export function answerGreeting(
  capabilities: number, username: string, proof: Uint8Array, plugin: string
): Buffer {
  return Buffer.concat([
    answerHead(capabilities), Buffer.from(`${username}\0`), Buffer.of(proof.length), proof,
    Buffer.from(`${plugin}\0`)
  ])
}

/** @throws WireError unless it is an error packet */
export function readRefusal(packet: Buffer): Refusal {
  const reader = new PacketReader(packet, 1)
  const number = reader.number(2)
  const rest = reader.take(reader.left)
  // Before the login is through there may be no SQLSTATE.
  const marked = rest[0] === 0x23
  return {
    number,
    sqlstate: marked ? rest.subarray(1, 6).toString('latin1') : 'HY000',
    message: rest.subarray(marked ? 6 : 0).subarray(0, textBytesMax).toString('utf8')
  }
}

/** A request to log in another way: the plugin and a new challenge. */
export function readSwitch(packet: Buffer): { plugin: string, challenge: Buffer } {
  const reader = new PacketReader(packet, 1)
  const plugin = reader.untilZero().toString('latin1')
  return { plugin, challenge: reader.take(Math.min(20, reader.left)) }
}

export function isEnd(packet: Buffer): boolean {
  return packet[0] === 0xfe && packet.length < 9
}

export function readRow(packet: Buffer, columns: number): (string | null)[] {
  const reader = new PacketReader(packet)
  const row = Array.from({ length: columns }, () => reader.text())
  if (reader.left > 0) throw new WireError('a row is longer than its columns')
  return row
}

function digest(name: 'sha1' | 'sha256', ...parts: readonly Uint8Array[]): Buffer {
  const hash = createHash(name)
  for (const part of parts) hash.update(part)
  return hash.digest()
}

function xor(one: Buffer, other: Buffer): Buffer {
  return Buffer.from(one.map((byte, index) => byte ^ other[index]!))
}

/** mysql_native_password: the password itself does not travel. */
export function nativeProof(password: string, challenge: Uint8Array): Buffer {
  if (password === '') return Buffer.alloc(0)
  const once = digest('sha1', Buffer.from(password))
  return xor(once, digest('sha1', challenge, digest('sha1', once)))
}

/** caching_sha2_password, its fast way. */
export function sha2Proof(password: string, challenge: Uint8Array): Buffer {
  if (password === '') return Buffer.alloc(0)
  const once = digest('sha256', Buffer.from(password))
  return xor(once, digest('sha256', digest('sha256', once), challenge))
}

/** What mysql_native_password stores: enough to check a proof, not enough to make one. */
export function nativeVerifier(password: string): string {
  const twice = digest('sha1', digest('sha1', Buffer.from(password)))
  return `*${twice.toString('hex').toUpperCase()}`
}
