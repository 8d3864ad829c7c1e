// Random and damaged bytes against every PostgreSQL codec: each returns or throws a WireError, within its
// limits, and the framer sees the same whatever the chunks. The seed is printed; `SEED=n node
// test/fuzz/wire-postgres.ts` runs the same bytes again, `ROUNDS=n` makes it longer (an hour is about
// 20,000,000). deadline: 300 s
import { createHash, randomInt } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WireError } from '../../src/wire/error.ts'
import { tlsServerEndPoint } from '../../src/wire/postgres/channel-binding.ts'
import {
  backTags, FrameScanner, frontTags, splitTape, type FrameSink, type TagTable
} from '../../src/wire/postgres/frame.ts'
import * as messages from '../../src/wire/postgres/messages.ts'
import * as parsers from '../../src/wire/postgres/parse.ts'
import { saslPrepare } from '../../src/wire/postgres/saslprep.ts'
import { ScramClient, scramSha256, scramSha256Plus, ScramServer } from '../../src/wire/postgres/scram.ts'
import { classifyFirstPacket, sortStartup } from '../../src/wire/postgres/startup.ts'
import * as statements from '../../src/wire/postgres/statements.ts'
import { parseVerifier, verifierFromKeys } from '../../src/wire/postgres/verifier.ts'

const seed = Number(process.env['SEED'] ?? randomInt(2 ** 31))
const rounds = Number(process.env['ROUNDS'] ?? 20_000)
console.log(`seed ${seed}, ${rounds} rounds`)

/** One call to a codec on some kilobytes; a million times what is seen, and far below an endless loop. */
const callMsMax = 2000

/** A stream of numbers from the seed and a name: each test draws its own. */
function generator(name: string): (below: number) => number {
  let block = Buffer.alloc(0)
  let at = 0
  let count = 0
  return below => {
    if (at + 4 > block.length) {
      block = createHash('sha512').update(`${seed} ${name} ${count++}`).digest()
      at = 0
    }
    at += 4
    return block.readUInt32BE(at - 4) % below
  }
}

type Draw = ReturnType<typeof generator>

function bytesOf(draw: Draw, count: number): Buffer {
  return Buffer.from(Array.from({ length: count }, () => draw(256)))
}

// Numbers that length and count fields get wrong.
const edges = [
  0, 1, 3, 4, 5, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x3fffffff, 0x7fffffff, 0x80000000, 0xffffffff
]

function grown(bytes: Buffer, at: number, more: Buffer): Buffer {
  return Buffer.concat([bytes.subarray(0, at), more, bytes.subarray(at)])
}

/** A valid message with some damage: flipped bits, cut, grown, edge numbers, a piece copied elsewhere. */
function damaged(draw: Draw, sample: Buffer): Buffer {
  let bytes: Buffer = Buffer.from(sample)
  for (let count = draw(4); count >= 0; count--) {
    const at = draw(bytes.length + 1)
    const kind = draw(6)
    if (kind === 0 && at < bytes.length) bytes[at]! ^= 1 << draw(8)
    else if (kind === 1) bytes = bytes.subarray(0, at)
    else if (kind === 2) bytes = grown(bytes, at, bytesOf(draw, draw(20)))
    else if (kind === 3 && at + 4 <= bytes.length) bytes.writeUInt32BE(edges[draw(edges.length)]!, at)
    else if (kind === 4 && at + 2 <= bytes.length) bytes.writeUInt16BE(edges[draw(11)]! & 0xffff, at)
    else bytes = Buffer.concat([bytes, bytes.subarray(at, at + draw(50))])
  }
  return bytes
}

/** Runs a codec; true when it returned, false when it threw what it may throw. */
function survives(work: () => unknown, input: Buffer | string): boolean {
  const started = performance.now()
  let answered = true
  try {
    work()
  } catch (thrown) {
    answered = false
    if (!(thrown instanceof WireError)) {
      const shown = typeof input === 'string' ? JSON.stringify(input) : input.toString('hex')
      assert.unreachable(`seed ${seed}: ${String(thrown)} for ${shown}`)
    }
  }
  assert.ok(performance.now() - started < callMsMax, `seed ${seed}`)
  return answered
}

const report = { severity: 'ERROR', sqlstate: '42601', message: 'text', detail: 'detail', hint: 'hint' }
const columns = Buffer.from(`0002${'61000000000000000000001900ffffffffff0000'.repeat(2)}`, 'hex')
const backSamples: readonly Buffer[] = [
  messages.authenticationSasl(['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256']), messages.authenticationOk(),
  messages.parameterStatus('TimeZone', 'UTC'), messages.backendKeyData(42, Buffer.alloc(4)),
  messages.readyForQuery('I'), messages.errorResponse(report), messages.noticeResponse(report),
  messages.negotiateProtocolVersion(0, ['_pq_.a']), messages.frame('T', columns),
  messages.frame('D', Buffer.from('000200000001' + '61' + 'ffffffff', 'hex')),
  messages.frame('C', Buffer.from('INSERT 0 5\0')), messages.frame('G', Buffer.from('00000200000000', 'hex')),
  messages.frame('A', Buffer.from('0000002a61006200', 'hex')), messages.frame('I'), messages.frame('s'),
  messages.frame('1'), messages.frame('d', Buffer.alloc(30))
]
const frontSamples: readonly Buffer[] = [
  messages.query('select 1'), messages.parse('s', 'select $1', [25]),
  messages.bind('', 's', ['x', null, 'yy']), messages.describe('S', 's'),
  messages.execute('', 5), messages.sync(), messages.frame('H'),
  messages.frame('d', Buffer.alloc(30)), messages.frame('c'), messages.frame('f', Buffer.from('why\0')),
  messages.frame('F', Buffer.from('000003bb00010001000100000002010200010001'.slice(0, 36), 'hex')),
  messages.saslInitialResponse('SCRAM-SHA-256', Buffer.from('n,,n=,r=abc')), messages.terminate()
]

const codecs: readonly ((body: Buffer) => unknown)[] = [
  parsers.parseReport, body => parsers.parseReport(body, false), parsers.parseCommandComplete,
  parsers.parseParameterStatus, parsers.parseBackendKeyData, parsers.parseReadyForQuery,
  parsers.parseAuthentication, parsers.parseNegotiateProtocolVersion, parsers.parseRowDescription,
  body => parsers.parseDataRow(body, 2), parsers.parseCopyResponse, parsers.parseNotification,
  statements.parseQuery, statements.parseParse, statements.parseBind, statements.parseFunctionCall,
  statements.parseExecute, statements.parseNamed, statements.parseCopyFail,
  statements.parseSaslInitialResponse, statements.parsePassword, tlsServerEndPoint
]
// What a recording cut may be read in part, and is never refused.
const lenient: readonly ((body: Buffer) => unknown)[] = [
  body => statements.parseQuery(body, false), body => statements.parseParse(body, false),
  body => statements.parseBind(body, false)
]

test('message parsers return or throw a WireError', () => {
  const draw = generator('parsers')
  const answers = [0, 0]
  const samples = [...backSamples, ...frontSamples]
  for (let round = 0; round < rounds; round++) {
    const sample = samples[draw(samples.length)]!.subarray(5)
    const body = draw(5) === 0 ? bytesOf(draw, draw(60)) : damaged(draw, sample)
    for (const codec of codecs) answers[survives(() => codec(body), body) ? 1 : 0]!++
    for (const codec of lenient) {
      assert.ok(survives(() => codec(body), body), `seed ${seed}: ${body.toString('hex')}`)
    }
  }
  // Both ways out are really taken, else the samples are no good.
  assert.ok(answers.every(count => count > rounds / 10), String(answers))
})

/** What a scanner makes of a stream that comes in these chunks. */
function seenOf(stream: Buffer, tags: TagTable, cuts: readonly number[]): string {
  const seen: string[] = []
  const tape: Buffer[] = []
  const sink: FrameSink = {
    tape: (chunk, start, end) => void tape.push(Buffer.from(chunk.subarray(start, end))),
    header: (tag, bodyBytes) => void seen.push(`h ${tag} ${bodyBytes}`),
    truncated: (tag, bodyBytes) => void seen.push(`t ${tag} ${bodyBytes}`),
    message: (tag, body, bodyBytes) => void seen.push(`m ${tag} ${bodyBytes} ${body.toString('hex')}`)
  }
  const scanner = new FrameScanner(tags, sink, { collectBytesMax: 40, tapeBytesMax: 20 })
  try {
    for (let index = 0; index + 1 < cuts.length; index++) {
      scanner.scan(Buffer.from(stream.subarray(cuts[index], cuts[index + 1])))
    }
    const { rows, rowBytes, copies, copyBytes, atBoundary } = scanner
    seen.push([rows, rowBytes, copies, copyBytes, atBoundary].join(' '))
  } catch (thrown) {
    if (!(thrown instanceof WireError)) throw thrown
    seen.push('refused')
  }
  // A header that is refused is on the tape only if it came in pieces: compare what can be taken apart.
  const { frames } = splitTape(Buffer.concat(tape), 20)
  return [...seen, ...frames.map(({ tag, body }) => `${tag} ${body.toString('hex')}`)].join('\n')
}

// What a target may say after its login.
const afterLogin = [2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16].map(index => backSamples[index]!)

test('the framer sees the same in every chunking, and refuses the same', () => {
  const draw = generator('framer')
  const outcomes = new Map<string, number>()
  for (let round = 0; round < rounds / 4; round++) {
    const [tags, samples] = draw(2) === 0 ? [backTags, afterLogin] : [frontTags, frontSamples.slice(0, 11)]
    const parts = Array.from({ length: 1 + draw(8) }, () => samples[draw(samples.length)]!)
    const whole = Buffer.concat(parts)
    const stream = draw(3) === 0 ? damaged(draw, whole) : whole
    const one = seenOf(stream, tags, [0, stream.length])
    const cuts = Array.from({ length: draw(12) }, () => draw(stream.length + 1)).sort((a, b) => a - b)
    const shown = `seed ${seed}: ${stream.toString('hex')} ${cuts}`
    assert.is(seenOf(stream, tags, [0, ...cuts, stream.length]), one, shown)
    const end = one.includes('refused') ? 'refused' : 'scanned'
    outcomes.set(end, (outcomes.get(end) ?? 0) + 1)
  }
  assert.is(outcomes.size, 2)
})

test('first packets are classified or refused, and never wait for more than the limit', () => {
  const draw = generator('startup')
  const samples = [
    messages.startupMessage([['user', 'a'], ['options', '-c geqo=off --role=x'], ['replication', 'on']], 2),
    messages.sslRequest(), messages.cancelRequest(1, Buffer.alloc(4))
  ]
  for (let round = 0; round < rounds; round++) {
    const bytes = draw(5) === 0 ? bytesOf(draw, draw(40)) : damaged(draw, samples[draw(3)]!)
    survives(() => {
      const packet = classifyFirstPacket(bytes)
      if (packet?.kind === 'startup') sortStartup(packet.parameters)
      if (packet !== undefined && packet.kind !== 'direct-tls') assert.ok(packet.size <= bytes.length)
    }, bytes)
    // With the largest packet that there may be, nothing is left to wait for.
    const padded = Buffer.concat([bytes, Buffer.alloc(10_001)])
    survives(() => assert.ok(bytes.length === 0 || classifyFirstPacket(padded) !== undefined), padded)
  }
})

test('options of every kind are sorted in no time', () => {
  const draw = generator('options')
  const pieces = [
    '-c', '--', '=', ' ', '\\', 'role', 'geqo', 'a-b', '\t', '-', 'search_path', '\u00e4', '-c geqo=on'
  ]
  for (let round = 0; round < rounds; round++) {
    const options = Array.from({ length: draw(30) }, () => pieces[draw(pieces.length)]!).join('')
    survives(() => {
      const { settings, refused } = sortStartup(new Map([['options', options]]))
      assert.not.ok([...settings.keys()].some(name => name === 'role'), options)
      assert.ok(!/(^|[ \t])(-c ?|--)role=/.test(options) || refused.length > 0, options)
    }, options)
  }
})

function drawnKeys(draw: Draw): { clientKey: Buffer, serverKey: Buffer } {
  return { clientKey: bytesOf(draw, 32), serverKey: bytesOf(draw, 32) }
}

function drawnVerifier(draw: Draw): string {
  return verifierFromKeys(drawnKeys(draw), { salt: bytesOf(draw, 16) })
}

/** Damages a text: what SCRAM messages are. */
function damagedText(draw: Draw, text: string): string {
  return damaged(draw, Buffer.from(text, 'latin1')).toString('latin1')
}

test('a SCRAM server accepts no damaged exchange', () => {
  const draw = generator('scram server')
  const verifier = drawnVerifier(draw)
  const binding = Buffer.alloc(32, 7)
  for (let round = 0; round < rounds / 4; round++) {
    const plus = draw(2) === 1
    const server = new ScramServer({ verifier, channelBinding: plus ? binding : undefined })
    const first = `${plus ? 'p=tls-server-end-point' : 'n'},,n=,r=rOprNGfwEbeRWgbNEkqO`
    const bytes = Buffer.from(draw(2) === 0 ? first : damagedText(draw, first), 'latin1')
    const mechanism = plus ? scramSha256Plus : scramSha256
    if (!survives(() => server.begin(mechanism, bytes), bytes)) continue
    const proof = bytesOf(draw, 32).toString('base64')
    const final = damagedText(draw, `c=biws,r=rOprNGfwEbeRWgbNEkqO,p=${proof}`)
    survives(() => assert.is(server.finish(Buffer.from(final, 'latin1')), undefined), final)
  }
})

test('a SCRAM client refuses damaged challenges and believes no damaged signature', async () => {
  const draw = generator('scram client')
  const secret = { kind: 'scram-keys' as const, ...drawnKeys(draw) }
  for (let round = 0; round < rounds / 4; round++) {
    const client = new ScramClient({ mechanism: scramSha256, secret, nonce: 'abcdef' })
    const challenge = damagedText(draw, 'r=abcdefghijkl,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096')
    const thrown: unknown = await client.answer(Buffer.from(challenge, 'latin1')).then(
      () => undefined, (error: unknown) => error)
    const shown = `seed ${seed}: ${JSON.stringify(challenge)}`
    assert.ok(thrown === undefined || thrown instanceof WireError, shown)
    const final = damagedText(draw, `v=${bytesOf(draw, 32).toString('base64')}`)
    survives(() => assert.is(client.verify(Buffer.from(final, 'latin1')), false), final)
  }
})

test('verifiers are parsed or refused, and passwords of any characters prepared', () => {
  const draw = generator('verifiers')
  const good = drawnVerifier(draw)
  for (let round = 0; round < rounds / 4; round++) {
    const text = damagedText(draw, good)
    survives(() => parseVerifier(text), text)
    const password = String.fromCodePoint(...Array.from({ length: draw(12) }, () => draw(0x110000)))
    survives(() => saslPrepare(password), password)
  }
  assert.ok(parseVerifier(good))
})

test.run()
