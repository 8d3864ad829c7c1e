// Writing and reading recordings: what was appended is in the file when `commit` says so, in order, with
// times that never go backwards; a recording holds little memory; it is refused where it must be; a reader
// can follow it.
import { once } from 'node:events'
import {
  existsSync, mkdirSync, readFileSync, readdirSync, statSync, symlinkSync, writeFileSync
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import { bodyBytesMax } from '../src/recording/format.ts'
import type { Frame } from '../src/recording/format.ts'
import { RecordingFile, readFrames, tail } from '../src/recording/reader.ts'
import { frameKind } from '../src/recording/recording.ts'
import { verify } from '../src/recording/verify.ts'
import { systemClock } from '../src/clock.ts'
import {
  StillClock, day, headOf, keyPair, noReserve, openFolder, seeded, temporaryFolder, until
} from './peers/recordings.ts'

const { signer, publicKey } = keyPair()
const ended = { how: 'ended', reason: 'client-closed' } as const

async function framesOf(path: string): Promise<Frame[]> {
  using file = new RecordingFile(path)
  const frames: Frame[] = []
  for await (const frame of readFrames(file)) frames.push(frame)
  return frames
}

async function refusal(act: () => Promise<unknown>): Promise<SallyportError> {
  try {
    await act()
  } catch (thrown) {
    if (thrown instanceof SallyportError) return thrown
    throw thrown
  }
  throw new Error('nothing was thrown')
}

test('what was appended is read again, in order, and the summary of the seal fits the file', async () => {
  const dir = temporaryFolder()
  // By this clock no write is ever slow.
  const recordings = openFolder(dir, signer, { clock: new StillClock() })
  const recording = await recordings.create(headOf('s1'))
  recording.append(frameKind.statement, 0, Buffer.from('abc'), Buffer.from('def'))
  assert.is(recording.commit(), true)
  recording.append(frameKind.output, 65535, Buffer.alloc(0))
  const summary = await recording.seal(ended)
  const path = join(dir, summary.path)
  const frames = await framesOf(path)
  assert.equal(frames.map(frame => [frame.kind, frame.lane]), [
    [frameKind.open, 0], [frameKind.statement, 0], [frameKind.output, 65535], [frameKind.close, 0],
    [frameKind.seal, 0]
  ])
  assert.is(frames[1]?.body.toString(), 'abcdef')
  assert.is(summary.path, `${day}/s1.spr`)
  assert.is(summary.bytes, statSync(path).size)
  assert.is(summary.frames, frames.length)
  const verdict = await verify(path, [publicKey])
  assert.is(verdict.state, 'sealed')
  assert.is(verdict.headHash, summary.headHash)
  assert.equal(verdict.head, headOf('s1'))
  assert.is(verdict.close?.reason, 'client-closed')
})

test('a committed frame is in the file before the seal, and one without a commit within 20 ms', async () => {
  const dir = temporaryFolder()
  const clock = new StillClock()
  const recording = await openFolder(dir, signer, { clock }).create(headOf('s1'))
  const path = join(dir, day, 's1.spr')
  recording.append(frameKind.input, 1, Buffer.from('committed'))
  await recording.commit()
  assert.ok(readFileSync(path).includes('committed'))
  recording.append(frameKind.input, 1, Buffer.from('lazy'))
  assert.not.ok(readFileSync(path).includes('lazy'))
  clock.advance(20)
  assert.ok(readFileSync(path).includes('lazy'))
  await recording.seal(ended)
})

test('a recording of random frames of all sizes is read again as it was, and verifies', async () => {
  const dir = temporaryFolder()
  const recording = await openFolder(dir, signer).create(headOf('s1'))
  const random = seeded(7)
  const written: Buffer[] = []
  let bytes = 0
  while (bytes < 24 * 1024 * 1024) {
    const length = random(5) === 0 ? random(700_000) : random(2000)
    const body = Buffer.alloc(length, random(256))
    const cut = random(length + 1)
    recording.append(frameKind.output, random(3), body.subarray(0, cut), body.subarray(cut))
    if (random(3) === 0) await recording.commit()
    written.push(body)
    bytes += length
  }
  const summary = await recording.seal(ended)
  const frames = (await framesOf(join(dir, summary.path))).filter(frame => frame.kind === frameKind.output)
  assert.is(frames.length, written.length)
  assert.ok(frames.every((frame, index) => frame.body.equals(written[index]!)))
  const verdict = await verify(join(dir, summary.path), [publicKey])
  assert.is(verdict.state, 'sealed')
  assert.ok(verdict.seals > 4, 'a checkpoint for every 4 MiB')
})

test('a body above the limit becomes several frames', async () => {
  const dir = temporaryFolder()
  const recording = await openFolder(dir, signer).create(headOf('s1'))
  const body = Buffer.alloc(2 * bodyBytesMax + 5, 'x')
  recording.append(frameKind.output, 2, body)
  const summary = await recording.seal(ended)
  const frames = (await framesOf(join(dir, summary.path))).filter(frame => frame.kind === frameKind.output)
  assert.equal(frames.map(frame => frame.body.length), [bodyBytesMax, bodyBytesMax, 5])
})

test('times count microseconds from the start and never go backwards (F19)', async () => {
  const dir = temporaryFolder()
  let nowMs = 1000
  const clock = { ...systemClock, monotonicMs: () => nowMs }
  const recording = await openFolder(dir, signer, { clock }).create(headOf('s1'))
  for (const ms of [1001.5, 1000.2, 2000]) {
    nowMs = ms
    recording.append(frameKind.input, 0, Buffer.from('.'))
  }
  const { path } = await recording.seal(ended)
  const times = (await framesOf(join(dir, path))).map(frame => frame.atMicroseconds)
  assert.equal(times, [0, 1500, 1500, 1_000_000, 1_000_000, 1_000_000])
})

test('checkpoints come once a second, and no timer runs for an idle recording', async () => {
  const dir = temporaryFolder()
  const clock = new StillClock()
  const recordings = openFolder(dir, signer, { clock })
  const recording = await recordings.create(headOf('s1'))
  const path = join(dir, day, 's1.spr')
  const seals = async (): Promise<number> => (await verify(path, [publicKey])).seals
  clock.advance(1000)
  await until(async () => await seals() === 1)
  await until(() => clock.timers === 0)
  clock.advance(60_000)
  assert.is(await seals(), 1)
  recording.append(frameKind.input, 0, Buffer.from('x'))
  assert.is(clock.timers, 2, 'one for the commit, one for the sync, for all recordings together')
  const other = await recordings.create(headOf('s2'))
  assert.is(clock.timers, 2)
  // Not at the first second when the disk has not finished the sync before.
  await until(async () => {
    clock.advance(1000)
    return await seals() === 2
  })
  const verdict = await verify(path, [publicKey])
  assert.is(verdict.state, 'interrupted')
  assert.is(verdict.verifiedBytes, verdict.bytes)
  await Promise.all([recording.seal(ended), other.seal(ended)])
})

test('seal is idempotent, and after it a commit refuses', async () => {
  const dir = temporaryFolder()
  const recording = await openFolder(dir, signer).create(headOf('s1'))
  const other = { how: 'cut', reason: 'x' } as const
  const [first, second] = await Promise.all([recording.seal(ended), recording.seal(other)])
  assert.equal(first, second)
  recording.append(frameKind.output, 0, Buffer.from('late'))
  const error = await refusal(async () => recording.commit())
  assert.is(error.code, 'recorder-failed')
  assert.is((await verify(join(dir, first.path), [publicKey])).state, 'sealed')
})

test('files are for the owner only, and the note of an open recording goes with its seal', async () => {
  const dir = temporaryFolder()
  const recording = await openFolder(join(dir, 'new'), signer).create(headOf('s1'))
  assert.equal(readdirSync(join(dir, 'new/open')), ['s1'])
  assert.is(statSync(join(dir, 'new', day, 's1.spr')).mode & 0o777, 0o600)
  assert.is(statSync(join(dir, 'new', day)).mode & 0o777, 0o700)
  await recording.seal(ended)
  assert.equal(readdirSync(join(dir, 'new/open')), [])
})

test('nothing is written outside the folder, through links, or over other files', async () => {
  const dir = temporaryFolder()
  const elsewhere = temporaryFolder()
  const recordings = openFolder(dir, signer)
  for (const session of ['', '../x', 'a/b', '.hidden', 'a\0b', 'a b', 'x'.repeat(65)]) {
    assert.is((await refusal(() => recordings.create(headOf(session)))).code, 'recorder-failed', session)
  }
  const badTime = headOf('s1', { startedAt: '../../../../tmp' })
  assert.is((await refusal(() => recordings.create(badTime))).code, 'recorder-failed')
  mkdirSync(join(dir, '2026/11'), { recursive: true })
  symlinkSync(elsewhere, join(dir, day))
  assert.is((await refusal(() => recordings.create(headOf('s1')))).code, 'recorder-failed')
  assert.equal(readdirSync(elsewhere), [])
  const next = headOf('s1', { startedAt: '2026-11-22T00:00:00Z' })
  mkdirSync(join(dir, '2026/11/22'), { recursive: true })
  symlinkSync(join(elsewhere, 'target'), join(dir, '2026/11/22/s1.spr'))
  assert.is((await refusal(() => recordings.create(next))).code, 'recorder-failed')
  assert.not.ok(existsSync(join(elsewhere, 'target')))
  writeFileSync(join(dir, '2026/11/22/s2.spr'), 'precious')
  assert.is((await refusal(() => recordings.create({ ...next, session: 's2' }))).code, 'recorder-failed')
  assert.is(readFileSync(join(dir, '2026/11/22/s2.spr'), 'utf8'), 'precious')
})

test('below the reserve of free space no recording is begun', async () => {
  const dir = temporaryFolder()
  const bytes = openFolder(dir, signer, { limits: { reserveBytes: 2 ** 60, reserveShare: 0 } })
  const share = openFolder(dir, signer, { limits: { reserveBytes: 0, reserveShare: 1.01 } })
  assert.is((await refusal(() => bytes.create(headOf('s1')))).code, 'disk-reserve')
  assert.is((await refusal(() => share.create(headOf('s1')))).code, 'disk-reserve')
  assert.equal(readdirSync(dir), [])
})

test('at its size limit a recording fails the session, and is still sealed', async () => {
  const dir = temporaryFolder()
  const limits = { ...noReserve, recordingBytesMax: 1024 * 1024 }
  const recording = await openFolder(dir, signer, { limits }).create(headOf('s1'))
  const aborted = once(recording.failed, 'abort')
  const piece = Buffer.alloc(100_000)
  let accepted = 0
  const error = await refusal(async () => {
    for (;;) {
      recording.append(frameKind.output, 0, piece)
      await recording.commit()
      accepted++
    }
  })
  await aborted
  assert.is(error.code, 'recorder-failed')
  assert.is(accepted, 9)
  const summary = await recording.seal({ how: 'cut', reason: 'recorder-failed' })
  assert.ok(summary.sealed && summary.bytes <= limits.recordingBytesMax)
  const verdict = await verify(join(dir, summary.path), [publicKey])
  assert.is(verdict.state, 'sealed')
  assert.is(verdict.close?.full, true)
})

test('a recorder that fails ends a strict session; best effort lets it go on, and tells', async () => {
  for (const mode of ['strict', 'best-effort'] as const) {
    const clock = new StillClock()
    const told: string[] = []
    const broken = { keyId: 'broken', sign: () => Buffer.alloc(1) }
    const onLost = (session: string, { code }: SallyportError): void => void told.push(`${session} ${code}`)
    const recordings = openFolder(temporaryFolder(), broken, { clock, mode, onLost })
    const recording = await recordings.create(headOf('s1'))
    assert.is(recording.commit(), true)
    clock.advance(1000)
    await until(() => told.length > 0)
    assert.equal(told, ['s1 recorder-failed'])
    assert.is(recordings.stats().lost, 1)
    assert.is(recording.failed.aborted, mode === 'strict')
    recording.append(frameKind.output, 0, Buffer.from('x'))
    if (mode === 'best-effort') assert.is(recording.commit(), true)
    else assert.is((await refusal(async () => recording.commit())).code, 'recorder-failed')
    assert.is((await recording.seal(ended)).sealed, false)
  }
})

test('a live recording is followed to its seal, frame by frame', async () => {
  const dir = temporaryFolder()
  const recording = await openFolder(dir, signer).create(headOf('s1'))
  using file = new RecordingFile(join(dir, day, 's1.spr'))
  const seen: string[] = []
  const following = (async () => {
    for await (const frames of tail(file, { clock: { ...systemClock, after: soon } })) {
      for (const frame of frames) if (frame.kind === frameKind.output) seen.push(frame.body.toString())
    }
  })()
  for (let count = 0; count < 50; count++) {
    recording.append(frameKind.output, 0, Buffer.from(`line ${count}`))
    await recording.commit()
    await new Promise(resolve => setImmediate(resolve))
  }
  await recording.seal(ended)
  await following
  assert.equal(seen, Array.from({ length: 50 }, (_, count) => `line ${count}`))
})

test('somebody who stops watching is let go', async () => {
  const dir = temporaryFolder()
  const recording = await openFolder(dir, signer).create(headOf('s1'))
  using file = new RecordingFile(join(dir, day, 's1.spr'))
  const leaving = new AbortController()
  const following = (async () => {
    let frames = 0
    for await (const lot of tail(file, { clock: systemClock, signal: leaving.signal })) {
      frames += lot.length
      leaving.abort()
    }
    return frames
  })()
  assert.is(await following, 1)
  await recording.seal(ended)
})

/** Polls at once, so that the test need not wait. */
function soon(_: number, act: () => void): () => void {
  const handle = setImmediate(act)
  return () => clearImmediate(handle)
}

test('closing the folder seals what is open', async () => {
  const dir = temporaryFolder()
  const recordings = openFolder(dir, signer)
  const opened = []
  for (let count = 0; count < 200; count++) opened.push(await recordings.create(headOf(`s${count}`)))
  assert.is(recordings.stats().open, 200)
  await recordings.close()
  assert.is(recordings.stats().open, 0)
  const paths = opened.map(each => join(dir, day, `${each.session}.spr`))
  const verdicts = await Promise.all(paths.map(path => verify(path, [publicKey])))
  assert.ok(verdicts.every(({ state, close }) => state === 'sealed' && close?.reason === 'shutting-down'))
})

test.run()
