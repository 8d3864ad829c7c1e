// What a recording keeps of a target's answers: the body of a `result` frame. It is a row of entries; each
// has the tag of the message that ended something (CommandComplete 'C', ErrorResponse 'E', EmptyQueryResponse
// 'I', PortalSuspended 's', FunctionCallResponse 'V', ReadyForQuery 'Z'; also NoticeResponse 'N',
// ParameterStatus 'S', NotificationResponse 'A'), what had been counted since the entry before it, and the
// message's own body. Rows themselves are not kept. Durations are not either: frames carry times.
import { WireError } from '../error.ts'

/** Bodies are kept up to this length: a target decides how long its error texts are. */
export const resultTextBytesMax = 8 * 1024

// Tag, three numbers of at most 8 bytes, the kept and the whole length of the body.
const entryHeadBytesMax = 1 + 5 * 8
const firstBufferBytes = 512

/** One entry of a result frame. */
export interface TapedResult {
  /** Letter of the message. */
  tag: string
  /** DataRow messages since the entry before. */
  rows: number
  /** Bytes of their bodies, and of CopyData from the target. */
  bytes: number
  /** Bytes of CopyData from the client. */
  copiedBytes: number
  /** Body of the message; cut at `resultTextBytesMax`. */
  body: Buffer
  /** False when the body was cut. */
  complete: boolean
}

/** Seven bits a byte, lowest first; for whole numbers below 2^53. Returns where it ends. */
function writeNumber(target: Uint8Array, at: number, value: number): number {
  let rest = value
  let next = at
  while (rest > 0x7f) {
    target[next++] = (rest & 0x7f) | 0x80
    rest = rest < 0x8000_0000 ? rest >>> 7 : Math.floor(rest / 128)
  }
  target[next++] = rest
  return next
}

/** Gathers entries in one buffer that it uses again and again: this runs for every transaction. */
export class ResultTape {
  #buffer = Buffer.allocUnsafeSlow(firstBufferBytes)
  #length = 0

  get length(): number {
    return this.#length
  }

  /**
   * @param tag byte of the message
   * @param body of the message; may be cut already, then `bodyBytes` is its whole length. With `start` and
   *   `end` only this range of it
   */
  add(
    tag: number, rows: number, bytes: number, copiedBytes: number, body: Uint8Array,
    bodyBytes: number = body.length, start: number = 0, end: number = body.length
  ): void {
    const kept = Math.min(end - start, resultTextBytesMax)
    if (this.#length + entryHeadBytesMax + kept > this.#buffer.length) this.#grow(entryHeadBytesMax + kept)
    const buffer = this.#buffer
    buffer[this.#length] = tag
    let at = writeNumber(buffer, this.#length + 1, rows)
    at = writeNumber(buffer, at, bytes)
    at = writeNumber(buffer, at, copiedBytes)
    at = writeNumber(buffer, at, kept)
    at = writeNumber(buffer, at, bodyBytes)
    // Short bodies (a status, a command tag) by hand: the call would cost more than the bytes.
    if (kept > 32) buffer.set(body.subarray(start, start + kept), at)
    else for (let i = 0; i < kept; i++) buffer[at + i] = body[start + i]!
    this.#length = at + kept
  }

  /** The entries so far, and starts anew. A view: valid until the next `add`. */
  take(): Buffer {
    const taken = this.#buffer.subarray(0, this.#length)
    this.#length = 0
    return taken
  }

  #grow(need: number): void {
    let size = this.#buffer.length
    while (size < this.#length + need) size *= 2
    const larger = Buffer.allocUnsafeSlow(size)
    this.#buffer.copy(larger, 0, 0, this.#length)
    this.#buffer = larger
  }
}

/** The body of a result frame with one entry. For tests and rare events; a relay uses `ResultTape`. */
export function encodeResult(entry: Pick<TapedResult, 'tag' | 'body'> & Partial<TapedResult>): Buffer {
  const tape = new ResultTape()
  const { tag, rows = 0, bytes = 0, copiedBytes = 0, body } = entry
  tape.add(tag.charCodeAt(0), rows, bytes, copiedBytes, body)
  return Buffer.from(tape.take())
}

/** Takes a result frame apart. Bodies are views. @throws WireError when it is none */
export function splitResults(frame: Buffer): TapedResult[] {
  const results: TapedResult[] = []
  let at = 0
  const number = (): number => {
    let value = 0
    for (let factor = 1; ; factor *= 128) {
      const byte = frame[at++]
      if (byte === undefined || factor > 2 ** 49) throw new WireError('a number in a result frame is cut')
      value += (byte & 0x7f) * factor
      if (byte < 0x80) return value
    }
  }
  while (at < frame.length) {
    const tag = String.fromCharCode(frame[at++]!)
    const [rows, bytes, copiedBytes, kept, bodyBytes] = [number(), number(), number(), number(), number()]
    if (kept > frame.length - at) throw new WireError('a result frame is cut')
    const body = frame.subarray(at, at + kept)
    results.push({ tag, rows, bytes, copiedBytes, body, complete: kept === bodyBytes })
    at += kept
  }
  return results
}
