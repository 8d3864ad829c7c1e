// Cuts one direction of an SFTP stream into packets (draft-ietf-secsh-filexfer-02). What a packet says is
// gathered; what it carries (the data of a WRITE or DATA, the names of a listing) passes by in the pieces in
// which it came. Memory: one head.
import { WireError } from '../error.ts'

export const sftpType = {
  init: 1, version: 2, open: 3, close: 4, read: 5, write: 6, fsetstat: 10, setstat: 9, opendir: 11,
  readdir: 12, remove: 13, mkdir: 14, rmdir: 15, rename: 18, symlink: 20, status: 101, handle: 102, data: 103,
  name: 104, extended: 200
} as const

/** OpenSSH's own limit. */
const packetBytesMax = 256 * 1024
/** Handles: the draft says so. */
const handleBytesMax = 256
/** Two paths of 4 KiB and attributes stay far below; of a longer packet the rest passes unseen. */
export const headBytesMax = 16 * 1024
/** Length, type, request id. */
export const idEnd = 9

export interface SftpSink {
  /**
   * What a packet says; `head` begins with its length word and may be changed. `whole`: nothing follows.
   * `start`: where in the chunk it begins, negative when it began in an earlier one.
   */
  packet(head: Buffer, whole: boolean, start: number): void
  /** A piece of what the last packet carries. */
  body(piece: Buffer): void
}

export class SftpPackets {
  readonly #sink: SftpSink
  readonly #carriers: ReadonlySet<number>
  #head = Buffer.allocUnsafeSlow(64)
  #have = 0
  #need = 5
  #bodyLeft = 0

  /** `carriers`: types whose body passes by: WRITE of a client; DATA and NAME of a server. */
  constructor(sink: SftpSink, carriers: readonly number[]) {
    this.#sink = sink
    this.#carriers = new Set(carriers)
  }

  /** Bytes of a head that is not complete. */
  get held(): Buffer {
    return this.#head.subarray(0, this.#have)
  }

  /** @throws WireError the stream is no SFTP */
  feed(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length) {
      if (this.#bodyLeft > 0) {
        const piece = chunk.subarray(at, at + this.#bodyLeft)
        this.#bodyLeft -= piece.length
        at += piece.length
        this.#sink.body(piece)
        continue
      }
      const taken = Math.min(this.#need - this.#have, chunk.length - at)
      if (this.#need > this.#head.length) this.#grow()
      chunk.copy(this.#head, this.#have, at, at + taken)
      this.#have += taken
      at += taken
      if (this.#have === this.#need) this.#headed(at)
    }
  }

  /** Either more is needed, or the head is complete. */
  #headed(at: number): void {
    const length = this.#head.readUInt32BE(0)
    if (length < 1 || length > packetBytesMax) throw new WireError(`an SFTP packet of ${length} bytes`)
    const whole = 4 + length
    const need = this.#headBytes(whole)
    if (need > whole) throw new WireError('an SFTP packet is shorter than it says')
    if (need > this.#have) {
      this.#need = need
      return
    }
    const head = this.#head.subarray(0, need)
    this.#bodyLeft = whole - need
    this.#have = 0
    this.#need = 5
    this.#sink.packet(head, this.#bodyLeft === 0, at - need)
  }

  #headBytes(whole: number): number {
    const type = this.#head[4]!
    if (!this.#carriers.has(type)) return Math.min(whole, headBytesMax)
    // Id and the length of the data, or the number of names.
    if (type !== sftpType.write || this.#have < idEnd + 4) return idEnd + 4
    const handle = this.#head.readUInt32BE(idEnd)
    if (handle > handleBytesMax) throw new WireError(`an SFTP handle of ${handle} bytes`)
    return idEnd + 4 + handle + 12
  }

  #grow(): void {
    const larger = Buffer.allocUnsafeSlow(Math.min(headBytesMax, Math.max(this.#need, this.#head.length * 2)))
    this.#head.copy(larger, 0, 0, this.#have)
    this.#head = larger
  }
}
