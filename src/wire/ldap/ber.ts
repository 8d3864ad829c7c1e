// The part of BER that LDAP uses (X.690; RFC 4511 section 5.1): definite lengths, one byte of tag. Pure. A
// reader never leaves its value; what is longer than its limit, or ends too early, is a WireError.
import { WireError } from '../error.ts'

export const tag = {
  boolean: 0x01, integer: 0x02, octets: 0x04, enumerated: 0x0a, sequence: 0x30, set: 0x31
} as const

export interface Element {
  tag: number
  body: Buffer
}

export function element(kind: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.of(kind), lengthOf(body.length), body])
}

function lengthOf(length: number): Buffer {
  if (length < 0x80) return Buffer.of(length)
  const bytes: number[] = []
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) bytes.unshift(rest & 0xff)
  return Buffer.of(0x80 | bytes.length, ...bytes)
}

export function text(value: string, kind: number = tag.octets): Buffer {
  return element(kind, Buffer.from(value))
}

/** A number from 0; `kind` may be an enumeration. */
export function integer(value: number, kind: number = tag.integer): Buffer {
  const bytes: number[] = []
  let rest = value
  do {
    bytes.unshift(rest & 0xff)
    rest = Math.floor(rest / 256)
  } while (rest > 0)
  if (bytes[0]! >= 0x80) bytes.unshift(0)
  return element(kind, Buffer.from(bytes))
}

export function boolean(value: boolean): Buffer {
  return element(tag.boolean, Buffer.of(value ? 0xff : 0))
}

/** How many bytes the head of an element has and how many follow; undefined when more must come. */
export function readHead(bytes: Uint8Array): { headBytes: number, bodyBytes: number } | undefined {
  const first = bytes[1]
  if (first === undefined) return undefined
  if (first < 0x80) return { headBytes: 2, bodyBytes: first }
  const count = first & 0x7f
  if (count === 0 || count > 4) throw new WireError('a length that LDAP does not have')
  if (bytes.length < 2 + count) return undefined
  let bodyBytes = 0
  for (let at = 0; at < count; at++) bodyBytes = bodyBytes * 256 + bytes[2 + at]!
  return { headBytes: 2 + count, bodyBytes }
}

/** Reads the elements of one value in their order. */
export class BerReader {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get isDone(): boolean {
    return this.#at >= this.#bytes.length
  }

  next(): Element {
    const rest = this.#bytes.subarray(this.#at)
    const head = readHead(rest)
    if (head === undefined || head.headBytes + head.bodyBytes > rest.length) {
      throw new WireError('a value ended too early')
    }
    const end = head.headBytes + head.bodyBytes
    this.#at += end
    return { tag: rest[0]!, body: rest.subarray(head.headBytes, end) }
  }

  expect(kind: number): Buffer {
    const { tag: found, body } = this.next()
    if (found !== kind) throw new WireError(`a value of kind ${found}, not ${kind}`)
    return body
  }

  text(): string {
    return this.expect(tag.octets).toString('utf8')
  }

  integer(kind: number = tag.integer): number {
    const body = this.expect(kind)
    if (body.length === 0 || body.length > 4) throw new WireError('not a number of LDAP')
    return body.readIntBE(0, body.length)
  }
}
