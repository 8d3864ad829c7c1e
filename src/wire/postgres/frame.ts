// PostgreSQL framing (protocol chapter "Message Formats"): a tag byte, a 32-bit length that counts itself, a
// body. The FrameScanner walks the headers of a stream as its chunks pass by; it copies nothing but what it
// is asked to collect, so a relay forwards the chunk itself. A length below 4 or above 1 GiB, or a tag that
// has no business here, throws a WireError: five bad bytes end one session and never stall the others.
import { WireError } from '../error.ts'

export const headerBytes = 5

const dataRow = 0x44

/** PostgreSQL itself refuses larger messages (MaxAllocSize, 1 GiB - 1). */
export const frameLengthMax = 0x3fffffff

/** How much of one message is gathered for `message`: status and error texts are far below. */
export const collectBytesMax = 64 * 1024

/** How much of one message goes on the tape: a statement beyond it is kept in part, with a mark. */
export const tapeBytesMax = 16 * 1024 * 1024

/** What a scanner does with a tag; add them. A tag without any is refused. */
export const watch = {
  /** Passes unseen. */
  known: 1,
  /** Messages and body bytes are added to the counters. */
  count: 2,
  /** Its raw bytes, header included, go to `tape`. */
  tape: 4,
  /** Its body goes to `message` when it is complete. */
  collect: 8,
  /** Its header goes to `header` as soon as it is read. */
  header: 16
} as const

/** Indexed by tag byte: the sum of `watch` values. */
export type TagTable = Uint8Array

/**
 * Calls come in the order of the stream, but a range is taped late: after what its messages made of the
 * others.
 */
export interface FrameSink {
  /**
   * A header was read. The body begins at `bodyStart` of this chunk and has `bodyBytes`;
   * `whole` is true when it ends within this chunk.
   */
  header?(tag: number, bodyBytes: number, bodyStart: number, whole: boolean): void
  /**
   * Raw bytes `start..end` of the chunk belong on the tape; neighbours come as one range. Valid during the
   * call.
   */
  tape?(chunk: Buffer, start: number, end: number): void
  /** A message is too long for the tape: only its first `keptBytes` (header included) are put there. */
  truncated?(tag: number, bodyBytes: number, keptBytes: number): void
  /**
   * A collected message is complete. `body` is valid during the call only; it is cut when it is shorter
   * than `bodyBytes`.
   */
  message?(tag: number, body: Buffer, bodyBytes: number): void
  /**
   * Instead of `message`, for a message that lies wholly in the chunk: its body is `chunk[start, end)`. For
   * sinks that see every transaction: making a view costs more than reading the few bytes in it.
   */
  messageIn?(tag: number, chunk: Buffer, start: number, end: number, bodyBytes: number): void
}

export interface ScannerLimits {
  frameLengthMax?: number | undefined
  collectBytesMax?: number | undefined
  tapeBytesMax?: number | undefined
}

/** A message within a buffer: `start` is its tag, the body is `bodyStart..end`. */
export interface Frame {
  tag: number
  start: number
  bodyStart: number
  end: number
}

/** One message of a tape; `body` is cut when `complete` is false. */
export interface TapedFrame {
  tag: number
  body: Buffer
  bodyBytes: number
  complete: boolean
}

/** A table from letters: `tagTable({ ZE: watch.collect, D: watch.count })`. */
export function tagTable(entries: Readonly<Record<string, number>>): TagTable {
  const table = new Uint8Array(256)
  for (const [letters, flags] of Object.entries(entries)) {
    for (const letter of letters) table[letter.charCodeAt(0)] = flags
  }
  return table
}

/**
 * What a client may say after its login. Taped: Query, Parse, Bind, Execute, FunctionCall, CopyDone,
 * CopyFail, Describe, Close, Sync. Counted: CopyData. Seen: Terminate. Flush passes. A late password message
 * is refused.
 */
export const frontTags: TagTable = tagTable({
  QPBEFcfDCS: watch.tape,
  d: watch.count,
  X: watch.header,
  H: watch.known
})

/**
 * What a target may say after its login. Collected: CommandComplete, ErrorResponse, NoticeResponse,
 * ReadyForQuery, ParameterStatus, copy responses, NotificationResponse, EmptyQueryResponse, PortalSuspended,
 * RowDescription, FunctionCallResponse. Counted: DataRow and CopyData. Refused: R (a late request for a
 * password would be phishing), K and v.
 */
export const backTags: TagTable = tagTable({
  CENZSGHWAIsTV: watch.collect,
  Dd: watch.count,
  '123cnt': watch.known
})

/** Reads the length word at `offset`, checked. @throws WireError below 4 or above `lengthMax`. */
export function readLength(bytes: Uint8Array, offset: number, lengthMax: number): number {
  const high = (bytes[offset]! << 24) | (bytes[offset + 1]! << 16)
  const length = high | (bytes[offset + 2]! << 8) | bytes[offset + 3]!
  if (length < 4 || length > lengthMax) throw new WireError(`message length ${length >>> 0} is out of bounds`)
  return length
}

/** The message at `offset` of `bytes[..end]`, or undefined when it is not all there yet. @throws WireError */
export function readFrame(
  bytes: Uint8Array, offset: number, end: number, lengthMax: number = frameLengthMax
): Frame | undefined {
  if (end - offset < headerBytes) return undefined
  const length = readLength(bytes, offset + 1, lengthMax)
  if (end - offset < 1 + length) return undefined
  return { tag: bytes[offset]!, start: offset, bodyStart: offset + headerBytes, end: offset + 1 + length }
}

/**
 * Takes a tape apart again. `tapeMax` is the limit it was made with: a message that was longer has only so
 * many bytes there. `rest` is what cannot be taken apart: a message whose end has not been taped (a crash, or
 * a session that was cut), or the header for which the session was cut.
 */
export function splitTape(
  tape: Buffer, tapeMax: number = tapeBytesMax
): { frames: TapedFrame[], rest: Buffer } {
  const frames: TapedFrame[] = []
  let at = 0
  while (tape.length - at >= headerBytes) {
    const length = tape.readInt32BE(at + 1)
    const kept = Math.min(1 + length, tapeMax)
    if (length < 4 || tape.length - at < kept) break
    const body = tape.subarray(at + headerBytes, at + kept)
    frames.push({ tag: tape[at]!, body, bodyBytes: length - 4, complete: kept === 1 + length })
    at += kept
  }
  return { frames, rest: tape.subarray(at) }
}

/** A tag for an error text. */
export function tagName(tag: number): string {
  return tag > 0x20 && tag < 0x7f ? `'${String.fromCharCode(tag)}'` : `0x${tag.toString(16).padStart(2, '0')}`
}

function refuse(tag: number, flags: number, length: number): never {
  if (flags === 0) throw new WireError(`message ${tagName(tag)} is not allowed here`)
  throw new WireError(`length ${length >>> 0} of message ${tagName(tag)} is out of bounds`)
}

/**
 * Scans one direction of a connection. Feed it every chunk, in order, before the chunk is forwarded. What
 * `scan` throws is final: the scanner stays broken, and the connection must be cut. The sink must not call
 * `scan`.
 */
export class FrameScanner {
  /** DataRow messages and their body bytes since the owner last set them to 0. */
  rows = 0
  rowBytes = 0
  /** The same for CopyData. */
  copies = 0
  copyBytes = 0
  readonly #tags: TagTable
  readonly #sink: FrameSink
  readonly #lengthMax: number
  readonly #collectMax: number
  readonly #tapeMax: number
  #broken = false
  // A header that is still coming.
  readonly #head = Buffer.alloc(headerBytes)
  #headHave = 0
  // The message whose body is still coming: how much of it, how much of that is for the tape, what is
  // gathered.
  #tag = 0
  #bodyBytes = 0
  #bodyLeft = 0
  #tapeLeft = 0
  #gather: Buffer | undefined
  #gathered = 0
  // The range of the present chunk that waits to be taped, so that neighbours become one call.
  #tapeFrom = 0
  #tapeTo = 0

  constructor(tags: TagTable, sink: FrameSink, limits: ScannerLimits = {}) {
    this.#tags = tags
    this.#sink = sink
    this.#lengthMax = Math.min(limits.frameLengthMax ?? frameLengthMax, frameLengthMax)
    this.#collectMax = limits.collectBytesMax ?? collectBytesMax
    this.#tapeMax = Math.max(limits.tapeBytesMax ?? tapeBytesMax, headerBytes)
  }

  /** True when the stream stands between two messages: where a connection may end in order. */
  get atBoundary(): boolean {
    return this.#headHave === 0 && this.#bodyLeft === 0
  }

  /** Walks `chunk[start..end]`. @throws WireError for a bad length or a tag that is not allowed. */
  scan(chunk: Buffer, start: number = 0, end: number = chunk.length): void {
    if (this.#broken) throw new WireError('the stream is broken already')
    this.#broken = true
    try {
      let at = start
      while (at < end && !this.atBoundary) at = this.#piece(chunk, at, end)
      at = this.#wholes(chunk, at, end)
      while (at < end) at = this.#piece(chunk, at, end)
      this.#broken = false
    } finally {
      // Also before a refusal: what was in order up to there is evidence.
      if (this.#tapeTo > this.#tapeFrom) this.#flushTape(chunk)
    }
  }

  /** The fast path: messages that lie wholly in this chunk. Returns where it had to stop. */
  #wholes(chunk: Buffer, from: number, end: number): number {
    const tags = this.#tags
    const lengthMax = this.#lengthMax
    let at = from
    while (end - at >= headerBytes) {
      const tag = chunk[at]!
      const flags = tags[tag]!
      const length = (chunk[at + 1]! << 24) | (chunk[at + 2]! << 16) | (chunk[at + 3]! << 8) | chunk[at + 4]!
      if (flags === 0 || length < 4 || length > lengthMax) refuse(tag, flags, length)
      const next = at + 1 + length
      if (next > end) break
      if (flags !== watch.known) this.#whole(chunk, tag, flags, at, next)
      at = next
    }
    return at
  }

  #whole(chunk: Buffer, tag: number, flags: number, start: number, end: number): void {
    const bodyStart = start + headerBytes
    const bodyBytes = end - bodyStart
    if ((flags & watch.count) !== 0) this.#count(tag, bodyBytes)
    if ((flags & watch.tape) !== 0) {
      if (end - start > this.#tapeMax) this.#sink.truncated?.(tag, bodyBytes, this.#tapeMax)
      this.#mark(chunk, start, Math.min(end, start + this.#tapeMax))
    }
    if ((flags & watch.header) !== 0) this.#sink.header?.(tag, bodyBytes, bodyStart, true)
    if ((flags & watch.collect) !== 0) {
      const bodyEnd = Math.min(end, bodyStart + this.#collectMax)
      const sink = this.#sink
      if (sink.messageIn === undefined) sink.message?.(tag, chunk.subarray(bodyStart, bodyEnd), bodyBytes)
      else sink.messageIn(tag, chunk, bodyStart, bodyEnd, bodyBytes)
    }
  }

  /** The slow path: a piece of a message that is spread over chunks. Returns where the piece ends. */
  #piece(chunk: Buffer, start: number, end: number): number {
    let at = start
    if (this.#bodyLeft === 0) {
      while (this.#headHave < headerBytes && at < end) this.#head[this.#headHave++] = chunk[at++]!
      const tag = this.#head[0]!
      const flags = this.#tags[tag]!
      // The tag alone says whether a header is taped: its length may come with the next chunk.
      if ((flags & watch.tape) !== 0) this.#mark(chunk, start, at)
      if (flags === 0) refuse(tag, flags, 0)
      if (this.#headHave < headerBytes) return at
      const length = this.#head.readInt32BE(1)
      if (length < 4 || length > this.#lengthMax) refuse(tag, flags, length)
      this.#headHave = 0
      this.#open(tag, flags, length - 4, at, end)
    }
    return this.#body(chunk, at, end)
  }

  #open(tag: number, flags: number, bodyBytes: number, bodyStart: number, end: number): void {
    this.#tag = tag
    this.#bodyBytes = this.#bodyLeft = bodyBytes
    this.#tapeLeft = 0
    if ((flags & watch.count) !== 0) this.#count(tag, bodyBytes)
    if ((flags & watch.tape) !== 0) {
      this.#tapeLeft = Math.min(bodyBytes, this.#tapeMax - headerBytes)
      if (this.#tapeLeft < bodyBytes) this.#sink.truncated?.(tag, bodyBytes, this.#tapeMax)
    }
    if ((flags & watch.header) !== 0) {
      this.#sink.header?.(tag, bodyBytes, bodyStart, bodyBytes <= end - bodyStart)
    }
    this.#gathered = 0
    // At most `collectMax` is set aside, whatever the header promises.
    this.#gather = (flags & watch.collect) === 0
      ? undefined
      : Buffer.allocUnsafe(Math.min(bodyBytes, this.#collectMax))
  }

  #body(chunk: Buffer, start: number, end: number): number {
    const here = Math.min(this.#bodyLeft, end - start)
    if (this.#tapeLeft > 0) {
      const taped = Math.min(this.#tapeLeft, here)
      this.#mark(chunk, start, start + taped)
      this.#tapeLeft -= taped
    }
    this.#bodyLeft -= here
    if (this.#gather !== undefined) {
      this.#gathered += chunk.copy(this.#gather, this.#gathered, start, start + here)
      if (this.#bodyLeft === 0) {
        const body = this.#gather
        this.#gather = undefined
        this.#sink.message?.(this.#tag, body, this.#bodyBytes)
      }
    }
    return start + here
  }

  #mark(chunk: Buffer, from: number, to: number): void {
    if (from === this.#tapeTo && this.#tapeTo > this.#tapeFrom) {
      this.#tapeTo = to
      return
    }
    if (this.#tapeTo > this.#tapeFrom) this.#flushTape(chunk)
    this.#tapeFrom = from
    this.#tapeTo = to
  }

  #flushTape(chunk: Buffer): void {
    const from = this.#tapeFrom
    const to = this.#tapeTo
    this.#tapeFrom = this.#tapeTo = 0
    this.#sink.tape?.(chunk, from, to)
  }

  #count(tag: number, bodyBytes: number): void {
    if (tag === dataRow) {
      this.rows++
      this.rowBytes += bodyBytes
    } else {
      this.copies++
      this.copyBytes += bodyBytes
    }
  }
}
