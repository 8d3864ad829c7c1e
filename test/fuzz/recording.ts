// Recordings that are damaged, invented or hostile: whatever the bytes are, nothing of the recording room
// throws what it has not promised, loops, or loses the good frames before the damage. Seeded:
// SALLYPORT_FUZZ_SEED chooses another run, SALLYPORT_FUZZ_ROUNDS a longer one.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../../src/errors.ts'
import { exportAs, exportFormats } from '../../src/recording/export.ts'
import { encodeFrame, fileHeadBytes } from '../../src/recording/format.ts'
import type { Frame } from '../../src/recording/format.ts'
import { maskSecrets } from '../../src/recording/mask.ts'
import { StatementDecoder } from '../../src/recording/postgres.ts'
import { RecordingFile, readFrames } from '../../src/recording/reader.ts'
import { frameKind } from '../../src/recording/recording.ts'
import type { FrameKind } from '../../src/recording/recording.ts'
import { replay } from '../../src/recording/replay.ts'
import { FrameScanner } from '../../src/recording/scanner.ts'
import { buildIndex, loadIndex, mayContain } from '../../src/recording/sidecar.ts'
import { TextReader } from '../../src/recording/text.ts'
import { verify } from '../../src/recording/verify.ts'
import { WireError } from '../../src/wire/error.ts'
import * as wire from '../../src/wire/postgres/messages.ts'
import { splitResults } from '../../src/wire/postgres/tape.ts'
import { answer, day, headOf, keyPair, openFolder, seeded, temporaryFolder } from '../peers/recordings.ts'

const seed = Number(process.env['SALLYPORT_FUZZ_SEED'] ?? 1)
const rounds = Number(process.env['SALLYPORT_FUZZ_ROUNDS'] ?? 300)
const random = seeded(seed)
const { signer, publicKey } = keyPair()

function pick<T>(values: readonly T[]): T {
  return values[random(values.length)]!
}

function noise(lengthMax: number): Buffer {
  return Buffer.from(Array.from({ length: random(lengthMax) }, () => random(256)))
}

/** What a client or target might say, and what none would. */
function message(): Buffer {
  const name = pick(['', 's', 'p', '\x1b[31m', "x'; DROP"])
  return pick([
    () => wire.query(pick(['SELECT 1', "ALTER ROLE a PASSWORD 'b'", '', '\x1b]0;x\x07', 'DISCARD ALL'])),
    () => wire.parse(name, 'SELECT $1'), () => wire.bind('', name, ['a', null]), () => wire.execute(''),
    () => wire.sync(), () => wire.describe('P', name), () => noise(60),
    () => wire.frame(pick([...'QPBEFcfDCSX']), noise(40)),
    () => Buffer.from([pick([...Buffer.from('QPBE')]), 0xff, 0xff, 0xff, random(256)])
  ])()
}

function result(): Buffer {
  return pick([
    () => answer.complete('SELECT 1', random(9), random(99)), () => answer.error('42601', 'no'),
    () => answer.ready(), () => answer.notice('n'),
    () => answer.status('client_encoding', pick(['SJIS', 'LATIN1', 'none'])),
    () => answer.other(pick([...'123CEIsVZNSATxyz']), noise(30)), () => noise(40),
    () => answer.complete('DEALLOCATE ALL')
  ])()
}

function frame(offset: number, atMicroseconds: number): Frame {
  const kind = pick(Object.values(frameKind)) as FrameKind
  const maker = kind === frameKind.statement ? message : kind === frameKind.result ? result : undefined
  const events = ['{"type":"resize","columns":80,"rows":1e9}', '{"type":1}', '']
  const body = maker === undefined
    ? pick([noise(200), Buffer.from(pick(events))])
    : Buffer.concat(Array.from({ length: random(4) }, maker))
  return { offset, kind, lane: random(3), atMicroseconds, body }
}

/** Only what a function promises to throw. */
async function only(kinds: readonly (new (...words: never[]) => Error)[], act: () => unknown): Promise<void> {
  try {
    await act()
  } catch (thrown) {
    if (!kinds.some(kind => thrown instanceof kind)) throw thrown
  }
}

test('the scanner takes any bytes in any pieces, and finds the same frames', () => {
  for (let round = 0; round < rounds; round++) {
    const parts = Array.from({ length: random(20) }, (_, n) => {
      const { kind, lane, body } = frame(0, 0)
      return encodeFrame(kind === frameKind.seal ? frameKind.event : kind, lane, n * 10, body)
    })
    const good = parts.length
    const bytes = Buffer.concat([...parts, pick([Buffer.alloc(0), noise(50), Buffer.alloc(random(40))])])
    const whole = new FrameScanner(32)
    const frames = whole.feed(bytes)
    assert.ok(frames.length >= good)
    const pieces = new FrameScanner(32)
    let found = 0
    for (let at = 0; at < bytes.length;) {
      const next = at + 1 + random(60)
      found += pieces.feed(Buffer.from(bytes.subarray(at, next))).length
      at = next
    }
    assert.is(found, frames.length)
    assert.equal(pieces.tail(), whole.tail())
    assert.is(whole.tail().offset + whole.tail().bytes, 32 + bytes.length)
  }
})

test('the statement decoder and the text reader take any frames', () => {
  for (let round = 0; round < rounds; round++) {
    const [decoder, text] = [new StatementDecoder(), new TextReader()]
    let records = 0
    for (let number = 0; number < 60; number++) {
      const made = frame(number * 100, number)
      records += decoder.push(made).length
      text.push(made)
      if (number % 20 === 0) decoder.running()
    }
    assert.ok(records + decoder.end().length >= 0)
    for (const line of text.end()) assert.type(line.text, 'string')
    assert.equal(decoder.end(), [], 'everything was handed out')
  }
})

test('masking takes any text, and a password is hidden whatever stands around it', () => {
  const pieces = ["'", '"', '$$', '$a$', '/*', '*/', '--', '\n', ' ', 'PASSWORD', 'ALTER ROLE x', 'password=',
    '||',
    '%L', 'E', 'U&', '\\', 'secret', '(', ';', 'postgres://a:b@c', '\ud800', 'ä']
  const some = (): string => Array.from({ length: random(14) }, () => pick(pieces)).join('')
  for (let round = 0; round < rounds * 5; round++) {
    assert.type(maskSecrets(some()).sql, 'string')
    const sql = `SELECT 1; ALTER ROLE x PASSWORD 'h0rse-battery' ${some()}`
    assert.not.ok(maskSecrets(sql).sql.includes('h0rse'), sql)
    // In a function body, too, unless the rest ends the body's quotes early.
    const inner = `DO $do$ BEGIN ALTER ROLE x PASSWORD 'h0rse-battery'; ${some()} END $do$`
    assert.not.ok(maskSecrets(inner).sql.includes('h0rse'), inner)
  }
})

test('result frames of any bytes are split or refused', async () => {
  for (let round = 0; round < rounds * 5; round++) {
    const bytes = Buffer.concat([random(2) === 0 ? result() : noise(5), noise(30)])
    await only([WireError], () => splitResults(bytes))
  }
  assert.ok(true, 'nothing else was thrown')
})

test('a file with any damage is read, verified, played, exported and indexed, or refused', async () => {
  const dir = temporaryFolder()
  const head = headOf('s1', { terminal: { columns: 80, rows: 24 } })
  const recording = await openFolder(dir, signer).create(head)
  for (let number = 0; number < 40; number++) {
    const { kind, lane, body } = frame(0, 0)
    if (kind === frameKind.seal || kind === frameKind.open || kind === frameKind.close) continue
    recording.append(kind, lane, body)
  }
  await recording.seal({ how: 'ended', reason: 'client-closed' })
  const path = join(dir, day, 's1.spr')
  const original = readFileSync(path)
  for (let round = 0; round < rounds; round++) {
    const bytes = Buffer.from(original)
    for (let count = 1 + random(4); count > 0; count--) {
      const at = random(3) === 0 ? fileHeadBytes + random(200) : random(bytes.length)
      bytes[at] = pick([0, 1, 8, 0x7f, 0xff, random(256)])
    }
    const damaged = pick([bytes, bytes.subarray(0, random(bytes.length)), Buffer.concat([bytes, noise(99)])])
    writeFileSync(path, damaged)
    const verdict = await verify(path, [publicKey])
    assert.is(verdict.state === 'sealed', damaged.equals(original), `seed ${seed}, round ${round}`)
    await only([SallyportError], async () => {
      using file = new RecordingFile(path)
      file.ending()
      let end = fileHeadBytes
      for await (const each of readFrames(file)) {
        assert.is(each.offset, end)
        end += 13 + each.body.length
      }
      for await (const cue of replay(file, { maxIdleSeconds: 1 })) assert.ok(cue.delayMs >= 0)
      mayContain(await buildIndex(file), 'select')
      for (const format of exportFormats) {
        for await (const piece of exportAs(file, format)) assert.type(piece, 'string')
      }
    })
  }
})

test('recovery leaves any file sealed, or as it was', async () => {
  const dir = temporaryFolder()
  const clean = temporaryFolder()
  const recording = await openFolder(clean, signer).create(headOf('s1'))
  for (let number = 0; number < 10; number++) recording.append(frameKind.output, 0, noise(99))
  await recording.commit()
  const original = readFileSync(join(clean, day, 's1.spr'))
  mkdirSync(join(dir, day), { recursive: true })
  mkdirSync(join(dir, 'open'))
  const path = join(dir, day, 's1.spr')
  for (let round = 0; round < rounds; round++) {
    const bytes = Buffer.from(original)
    for (let count = random(3); count > 0; count--) bytes[random(bytes.length)] = random(256)
    const damaged = pick([bytes, bytes.subarray(0, random(bytes.length)), Buffer.concat([bytes, noise(300)])])
    writeFileSync(join(dir, 'open/s1'), `${day}/s1.spr`)
    writeFileSync(path, damaged)
    rmSync(join(dir, day, 's1.torn'), { force: true })
    const [recovered] = await openFolder(dir, signer).recover(() => 'unfinished')
    const { outcome } = recovered!
    assert.ok(['interrupted', 'damaged', 'missing'].includes(outcome))
    if (outcome === 'interrupted') {
      // A changed session id in the head is genuine for the chain, and told by the name of the file.
      const verdict = await verify(path, [publicKey])
      const otherName = verdict.problem?.startsWith('this is the recording') === true
      assert.ok(verdict.state === 'sealed' || otherName, `round ${round}`)
    } else if (outcome === 'damaged') assert.equal(readFileSync(path), damaged)
    rmSync(path, { force: true })
  }
  await recording.seal({ how: 'ended', reason: 'client-closed' })
})

test('an index of any bytes is refused or fits', async () => {
  const dir = temporaryFolder()
  const recording = await openFolder(dir, signer).create(headOf('s1'))
  recording.append(frameKind.output, 0, Buffer.from('text\n'))
  const { path } = await recording.seal({ how: 'ended', reason: 'client-closed' })
  using file = new RecordingFile(join(dir, path))
  const { filter, ...rest } = await buildIndex(file)
  for (let round = 0; round < rounds; round++) {
    const spoiled = { [pick(Object.keys(rest))]: pick([null, -1, 'x', [1], {}, 1e99]) }
    const values = { ...rest, filterBytes: filter.length, ...spoiled }
    const json = Buffer.from(random(2) === 0 ? JSON.stringify(values) : noise(80).toString('latin1'))
    const length = Buffer.alloc(4)
    length.writeUInt32BE(random(5) === 0 ? random(2 ** 31) : json.length)
    writeFileSync(join(dir, path.replace('.spr', '.spx')),
      Buffer.concat([Buffer.from('SPX1'), length, json, filter]))
    const index = await loadIndex(file)
    if (index !== undefined) assert.is(mayContain(index, 'text'), true)
  }
})

test.run()
