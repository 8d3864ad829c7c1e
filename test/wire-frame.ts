// The framer of the PostgreSQL data path: whatever the chunks look like, the same messages are seen, the same
// bytes are taped, and nothing is gathered beyond its limit. A bad length or a tag out of place ends the
// stream.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WireError } from '../src/wire/error.ts'
import {
  backTags, collectBytesMax, FrameScanner, frontTags, readFrame, splitTape, tagTable, watch, type FrameSink,
  type ScannerLimits, type TagTable
} from '../src/wire/postgres/frame.ts'
import {
  bind, describe, errorResponse, execute, frame, parse, query, readyForQuery, sync, terminate
} from '../src/wire/postgres/messages.ts'

interface Seen {
  taped: Buffer
  messages: { tag: string, body: string, bodyBytes: number }[]
  headers: { tag: string, bodyBytes: number }[]
  truncated: { tag: string, bodyBytes: number, keptBytes: number }[]
  ranges: number
  scanner: FrameScanner
}

/** Feeds `stream` in chunks of the given size and notes all that the scanner says. */
function scanned(stream: Buffer, chunkBytes: number, tags: TagTable, limits: ScannerLimits = {}): Seen {
  const ranges: Buffer[] = []
  const seen: Omit<Seen, 'scanner' | 'taped' | 'ranges'> = { messages: [], headers: [], truncated: [] }
  const letter = (tag: number): string => String.fromCharCode(tag)
  const sink: FrameSink = {
    header: (tag, bodyBytes) => void seen.headers.push({ tag: letter(tag), bodyBytes }),
    tape: (chunk, start, end) => void ranges.push(Buffer.from(chunk.subarray(start, end))),
    truncated: (tag, bodyBytes, keptBytes) => {
      seen.truncated.push({ tag: letter(tag), bodyBytes, keptBytes })
    },
    message: (tag, body, bodyBytes) => void seen.messages.push({
      tag: letter(tag), body: body.toString('latin1'), bodyBytes
    })
  }
  const scanner = new FrameScanner(tags, sink, limits)
  for (let at = 0; at < stream.length; at += chunkBytes) {
    // As a relay does it: a shared buffer, of which only a part is the chunk.
    const junk = Buffer.from('junk')
    const shared = Buffer.concat([junk, stream.subarray(at, at + chunkBytes), junk])
    scanner.scan(shared, 4, shared.length - 4)
    shared.fill(0)
  }
  return { ...seen, taped: Buffer.concat(ranges), ranges: ranges.length, scanner }
}

const chunkings = [1, 2, 3, 4, 5, 6, 7, 11, 64, 1000, 1 << 20]

const row = frame('D', Buffer.from('000100000003616263', 'hex'))

test('every chunking of a server stream gives the same messages and counts', () => {
  const error = errorResponse({ severity: 'ERROR', sqlstate: '42601', message: 'no' })
  const complete = frame('C', Buffer.from('SELECT 2\0'))
  const copied = frame('d', Buffer.from('abc'))
  const stream = Buffer.concat([
    frame('1'), frame('2'), row, row, complete, readyForQuery('I'), error, copied, readyForQuery('E')
  ])
  for (const chunkBytes of chunkings) {
    const { messages, scanner, taped } = scanned(stream, chunkBytes, backTags)
    assert.equal(messages.map(({ tag }) => tag).join(''), 'CZEZ')
    assert.equal(messages[0], { tag: 'C', body: 'SELECT 2\0', bodyBytes: 9 })
    assert.is(messages[2]!.body, error.subarray(5).toString('latin1'))
    assert.equal([scanner.rows, scanner.rowBytes, scanner.copies, scanner.copyBytes], [2, 18, 1, 3])
    assert.is(scanner.atBoundary, true)
    assert.is(taped.length, 0)
  }
})

test('every chunking of a client stream tapes the same bytes, without the data of COPY', () => {
  const statements = Buffer.concat([
    query('select 1'), parse('s', 'select $1'), bind('', 's', ['x', null]), describe('P', ''), execute(''),
    sync()
  ])
  const ending = Buffer.concat([frame('c'), sync()])
  const stream = Buffer.concat([
    statements, frame('d', Buffer.alloc(300)), frame('H'), frame('d'), ending, terminate()
  ])
  for (const chunkBytes of chunkings) {
    const { taped, headers, scanner } = scanned(stream, chunkBytes, frontTags)
    assert.equal(taped, Buffer.concat([statements, ending]))
    assert.equal(headers, [{ tag: 'X', bodyBytes: 0 }])
    assert.equal([scanner.copies, scanner.copyBytes], [2, 300])
  }
  assert.is(scanned(stream, 1 << 20, frontTags).ranges, 2, 'neighbours on the tape are one range')
})

test('a message that is longer than the tape allows is kept in part, with a mark', () => {
  const long = query('x'.repeat(5000))
  const stream = Buffer.concat([query('before'), long, query('after')])
  for (const chunkBytes of chunkings) {
    const { taped, truncated } = scanned(stream, chunkBytes, frontTags, { tapeBytesMax: 100 })
    assert.equal(truncated, [{ tag: 'Q', bodyBytes: 5001, keptBytes: 100 }])
    assert.equal(taped, Buffer.concat([query('before'), long.subarray(0, 100), query('after')]))
    const { frames, rest } = splitTape(taped, 100)
    assert.equal(frames.map(({ complete }) => complete), [true, false, true])
    assert.is(frames[1]!.bodyBytes, 5001)
    assert.is(rest.length, 0)
  }
})

test('a tape that ends within a message gives what is whole and the rest', () => {
  const tape = Buffer.concat([query('select 1'), query('select 2').subarray(0, 9)])
  const { frames, rest } = splitTape(tape)
  assert.is(frames.length, 1)
  assert.is(rest.length, 9)
  assert.is(splitTape(Buffer.from('5100000003', 'hex')).rest.length, 5, 'a header that ended the session')
})

test('a collected message beyond the limit is cut, in one chunk and in many', () => {
  const body = Buffer.alloc(collectBytesMax + 1000, 'e')
  for (const chunkBytes of [7, 8192, 1 << 20]) {
    const stream = Buffer.concat([frame('E', body), readyForQuery('I')])
    const { messages } = scanned(stream, chunkBytes, backTags)
    const lengths = messages.map(({ tag, body: text }) => [tag, text.length])
    assert.equal(lengths, [['E', collectBytesMax], ['Z', 1]])
    assert.is(messages[0]!.bodyBytes, body.length)
  }
})

test('a message of a gigabyte is announced at its header and never gathered', () => {
  let announced: unknown
  const tags = tagTable({ D: watch.header | watch.count | watch.collect })
  const sink: FrameSink = {
    header: (tag, bodyBytes, bodyStart, whole) => { announced = { tag, bodyBytes, bodyStart, whole } }
  }
  const scanner = new FrameScanner(tags, sink)
  const before = process.memoryUsage().arrayBuffers
  scanner.scan(Buffer.from('443fffffff', 'hex'))
  const chunk = Buffer.alloc(65_536)
  for (let count = 0; count < 1000; count++) scanner.scan(chunk)
  assert.equal(announced, { tag: 0x44, bodyBytes: 0x3ffffffb, bodyStart: 5, whole: false })
  assert.ok(process.memoryUsage().arrayBuffers - before < 1_000_000)
  assert.is(scanner.atBoundary, false)
})

for (const [name, length] of [
  ['0', '00000000'], ['3', '00000003'], ['2^30', '40000000'], ['2^31-1', '7fffffff'], ['2^31', '80000000'],
  ['2^32-16', 'fffffff0'], ['2^32-1', 'ffffffff']
] as const) {
  test(`a length of ${name} ends the stream, whole or in pieces`, () => {
    const stream = Buffer.concat([readyForQuery('I'), Buffer.from(`44${length}`, 'hex'), Buffer.alloc(20)])
    for (const chunkBytes of chunkings) {
      const isWireError = (thrown: unknown): boolean => thrown instanceof WireError
      assert.throws(() => scanned(stream, chunkBytes, backTags), isWireError)
    }
  })
}

test('a scanner that threw stays broken', () => {
  const scanner = new FrameScanner(backTags, {})
  assert.throws(() => scanner.scan(Buffer.from('5a00000003', 'hex')))
  assert.throws(() => scanner.scan(readyForQuery('I')), /broken already/)
})

test('a target that asks for a password, gives a key or negotiates after the login is cut', () => {
  const allowed = new Set('CENZSGHWAIsTVDd123cnt')
  for (let tag = 0; tag < 256; tag++) {
    const stream = Buffer.concat([Buffer.from([tag]), Buffer.from('0000000800000003', 'hex')])
    const attempt = (): unknown => scanned(stream, 3, backTags)
    if (allowed.has(String.fromCharCode(tag))) assert.not.throws(attempt)
    else assert.throws(attempt, /not allowed here/)
  }
})

test('a client that says what only a login may say is cut, as is every unknown tag', () => {
  const allowed = new Set('QPBEFcfDCSdXH')
  for (let tag = 0; tag < 256; tag++) {
    const stream = Buffer.concat([Buffer.from([tag]), Buffer.from('0000000800000003', 'hex')])
    const attempt = (): unknown => scanned(stream, 100, frontTags)
    if (allowed.has(String.fromCharCode(tag))) assert.not.throws(attempt)
    else assert.throws(attempt, /not allowed here/)
  }
})

test('what was in order before a refusal is still taped', () => {
  const ranges: Buffer[] = []
  const scanner = new FrameScanner(frontTags, {
    tape: (chunk, start, end) => void ranges.push(Buffer.from(chunk.subarray(start, end)))
  })
  const stream = Buffer.concat([query('drop table x'), Buffer.from('ff00000004', 'hex')])
  assert.throws(() => scanner.scan(stream))
  assert.equal(Buffer.concat(ranges), query('drop table x'))
})

test('a frame is found in a buffer only when it is whole', () => {
  const bytes = query('select 1')
  for (let end = 0; end < bytes.length; end++) assert.is(readFrame(bytes, 0, end), undefined)
  assert.equal(readFrame(bytes, 0, bytes.length), { tag: 0x51, start: 0, bodyStart: 5, end: bytes.length })
  assert.throws(() => readFrame(bytes, 0, bytes.length, 8), /out of bounds/)
})

test.run()
