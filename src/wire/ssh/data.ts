// The few data types that everything in SSH is made of (RFC 4251 section 5): a reader that checks every bound
// and a writer. What is read are views of the packet, valid as long as it is.
import { WireError } from '../error.ts'

/** Reads one packet or blob from its start to its end. @throws WireError when it is shorter than it says */
export class SshReader {
  readonly #bytes: Buffer
  #at: number

  constructor(bytes: Uint8Array, at = 0) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#at = at
  }

  get left(): number {
    return this.#bytes.length - this.#at
  }

  byte(): number {
    return this.#bytes[this.#take(1)] ?? 0
  }

  boolean(): boolean {
    return this.byte() !== 0
  }

  uint32(): number {
    return this.#bytes.readUInt32BE(this.#take(4))
  }

  uint64(): bigint {
    return this.#bytes.readBigUInt64BE(this.#take(8))
  }

  /** `string`: a length and so many bytes. */
  bytes(): Buffer {
    const length = this.uint32()
    const at = this.#take(length)
    return this.#bytes.subarray(at, at + length)
  }

  /** A `string` as text. */
  text(): string {
    return this.bytes().toString('utf8')
  }

  /** `name-list`. */
  names(): string[] {
    const text = this.text()
    return text === '' ? [] : text.split(',')
  }

  /** What is left. */
  rest(): Buffer {
    return this.#bytes.subarray(this.#take(this.left))
  }

  #take(length: number): number {
    const at = this.#at
    if (length > this.#bytes.length - at) throw new WireError('an SSH packet is shorter than it says')
    this.#at += length
    return at
  }
}

export type SshField = Uint8Array | string | number | boolean

/**
 * Packs fields: text and bytes as `string`, numbers as `uint32`, booleans as `boolean`.
 */
export function sshFields(...fields: readonly SshField[]): Buffer {
  return Buffer.concat(fields.map(packed))
}

function packed(field: SshField): Buffer {
  if (typeof field === 'boolean') return Buffer.of(field ? 1 : 0)
  if (typeof field === 'number') return sshUint32(field)
  const bytes = typeof field === 'string' ? Buffer.from(field, 'utf8') : field
  return Buffer.concat([sshUint32(bytes.length), bytes])
}

export function sshUint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

export function sshUint64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(value)
  return bytes
}
