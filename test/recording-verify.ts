// R5: a recording cannot be altered unseen. 500 mutations of sealed recordings (bits, cuts, swapped,
// repeated, foreign and invented frames, another file in its place, the seal taken away), each from a seed,
// are all told from the original; and what verify says of undamaged, unfinished and damaged files is exact.
import { createHash, generateKeyPairSync, sign } from 'node:crypto'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { encodeFrame, encodeSealFrame, fileHeadBytes, sealFrameBytes } from '../src/recording/format.ts'
import type { Frame } from '../src/recording/format.ts'
import { RecordingFile, readFrames } from '../src/recording/reader.ts'
import { frameKind } from '../src/recording/recording.ts'
import type { SealSummary } from '../src/recording/recording.ts'
import { readPublicKeys, verify } from '../src/recording/verify.ts'
import type { Expected } from '../src/recording/verify.ts'
import {
  StillClock, day, headOf, keyPair, openFolder, seeded, temporaryFolder, until
} from './peers/recordings.ts'

const { signer, publicKey, pem } = keyPair()
const dir = temporaryFolder()
const spoiled = join(temporaryFolder(), 'spoiled')
mkdirSync(spoiled)

interface Sample {
  summary: SealSummary
  bytes: Buffer
  frames: Frame[]
}

/** A recording with several checkpoints and frames of many sizes. */
async function sample(session: string, seed: number): Promise<Sample> {
  const clock = new StillClock()
  const recordings = openFolder(dir, signer, { clock })
  const recording = await recordings.create(headOf(session))
  const random = seeded(seed)
  for (let count = 0; count < 60; count++) {
    const body = Buffer.from(Array.from({ length: random(300) }, () => random(256)))
    recording.append(count % 2 === 0 ? frameKind.statement : frameKind.result, random(3), body)
    await recording.commit()
    if (count % 12 === 11) {
      const { seals } = await verify(join(dir, day, `${session}.spr`), [publicKey])
      await until(async () => {
        clock.advance(1000)
        return (await verify(join(dir, day, `${session}.spr`), [publicKey])).seals > seals
      })
    }
  }
  const summary = await recording.seal({ how: 'ended', reason: 'client-closed' })
  const path = join(dir, summary.path)
  using file = new RecordingFile(path)
  const frames: Frame[] = []
  for await (const frame of readFrames(file)) frames.push(frame)
  return { summary, bytes: readFileSync(path), frames }
}

async function verdictOf(session: string, bytes: Buffer, expected: Expected = {}): ReturnType<typeof verify> {
  const path = join(spoiled, `${session}.spr`)
  writeFileSync(path, bytes)
  return verify(path, [publicKey], expected)
}

function end(frame: Frame): number {
  return frame.offset + 13 + frame.body.length
}

function pick(random: (below: number) => number, frames: readonly Frame[]): Frame {
  return frames[random(frames.length)]!
}

type Mutation = (sample: Sample, other: Sample, random: (below: number) => number) => Buffer

const mutations: Record<string, Mutation> = {
  'one bit': ({ bytes }, _, random) => {
    const copy = Buffer.from(bytes)
    copy[random(copy.length)]! ^= 1 << random(8)
    return copy
  },
  'one byte of the last seal': ({ bytes }, _, random) => {
    const copy = Buffer.from(bytes)
    copy[copy.length - 1 - random(sealFrameBytes)]! ^= 1 + random(255)
    return copy
  },
  'cut anywhere': ({ bytes }, _, random) => bytes.subarray(0, random(bytes.length)),
  'cut at a frame border': ({ bytes, frames }, _, random) => bytes.subarray(0, pick(random, frames).offset),
  'a frame removed': ({ bytes, frames }, _, random) => {
    const frame = pick(random, frames)
    return Buffer.concat([bytes.subarray(0, frame.offset), bytes.subarray(end(frame))])
  },
  'bytes removed': ({ bytes }, _, random) => {
    const at = random(bytes.length - 1)
    return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + random(50))])
  },
  'a frame twice': ({ bytes, frames }, _, random) => {
    const frame = pick(random, frames)
    return Buffer.concat([bytes.subarray(0, end(frame)), bytes.subarray(frame.offset)])
  },
  'two frames swapped': ({ bytes, frames }, _, random) => {
    const index = random(frames.length - 1)
    const [first, second] = [frames[index]!, frames[index + 1]!]
    const swapped = [bytes.subarray(second.offset, end(second)), bytes.subarray(first.offset, end(first))]
    return Buffer.concat([bytes.subarray(0, first.offset), ...swapped, bytes.subarray(end(second))])
  },
  'a frame of another recording': ({ bytes, frames }, other, random) => {
    const [frame, foreign] = [pick(random, frames), pick(random, other.frames)]
    const piece = other.bytes.subarray(foreign.offset, end(foreign))
    return Buffer.concat([bytes.subarray(0, frame.offset), piece, bytes.subarray(end(frame))])
  },
  'the end of another recording': ({ bytes, frames }, other, random) => {
    const index = random(frames.length)
    const foreign = other.frames[Math.min(index, other.frames.length - 1)]!
    return Buffer.concat([bytes.subarray(0, frames[index]!.offset), other.bytes.subarray(foreign.offset)])
  },
  'another recording in its place': (_, other) => other.bytes,
  'an invented frame': ({ bytes, frames }, _, random) => {
    const frame = pick(random, frames)
    const made = encodeFrame(frameKind.statement, 0, frame.atMicroseconds,
      Buffer.from('Q\0\0\0\x0dSELECT 1\0'))
    return Buffer.concat([bytes.subarray(0, frame.offset), made, bytes.subarray(frame.offset)])
  },
  'a frame with another body of the same length': ({ bytes, frames }, _, random) => {
    const frame = frames.filter(each => each.body.length > 0)[random(40)]!
    const copy = Buffer.from(bytes)
    for (let at = frame.offset + 13; at < end(frame); at++) copy[at]! ^= 0x55
    return copy
  },
  'bytes behind the seal': ({ bytes }, _, random) =>
    Buffer.concat([bytes, Buffer.alloc(1 + random(100), random(256))]),
  'a second seal of the same file': ({ bytes }) => Buffer.concat([bytes, bytes.subarray(-sealFrameBytes)]),
  'without the final seal': ({ bytes }) => bytes.subarray(0, -sealFrameBytes),
  'sealed again with another key, chain and all': ({ bytes, frames }, _, random) =>
    resealed(bytes, frames, random),
  'nothing left': () => Buffer.alloc(0)
}

const forger = generateKeyPairSync('ed25519')
const forgerSigner = { keyId: 'test-key', sign: (bytes: Uint8Array) => sign(null, bytes, forger.privateKey) }

/** What somebody can do who knows the format and has no key: change a frame and make the whole chain anew. */
function resealed(bytes: Buffer, frames: readonly Frame[], random: (below: number) => number): Buffer {
  const id = bytes.subarray(16, fileHeadBytes)
  const changed = 1 + random(frames.length - 3)
  const parts = [bytes.subarray(0, fileHeadBytes)]
  let block = createHash('sha256').update(parts[0]!)
  let [offset, closeOffset] = [fileHeadBytes, 0]
  frames.forEach((frame, index) => {
    const { kind, lane, atMicroseconds } = frame
    let made = bytes.subarray(frame.offset, end(frame))
    if (kind === frameKind.seal) {
      const final = index === frames.length - 1
      const fields = { final, offset, frames: index, closeOffset: final ? closeOffset : 0, atMicroseconds }
      made = encodeSealFrame(id, { ...fields, head: block.digest() }, forgerSigner)
      block = createHash('sha256')
    } else if (index === changed) made = encodeFrame(kind, lane, atMicroseconds, Buffer.from('changed'))
    if (kind === frameKind.close) closeOffset = offset
    block.update(made)
    parts.push(made)
    offset += made.length
  })
  return Buffer.concat(parts)
}

test('500 of 500 mutations are detected', async () => {
  const [first, second] = [await sample('alpha', 1), await sample('beta', 2)]
  const names = Object.keys(mutations)
  const random = seeded(500)
  const missed: string[] = []
  let tried = 0
  for (let round = 0; tried < 500; round++) {
    const name = names[round % names.length]!
    const [from, other] = random(2) === 0 ? [first, second] : [second, first]
    const bytes = mutations[name]!(from, other, random)
    if (bytes.equals(from.bytes)) continue
    tried++
    // Without help of the audit log: the file, its name and the public key.
    const verdict = await verdictOf(from.summary.session, bytes)
    if (verdict.state === 'sealed') missed.push(`${name}, round ${round}`)
  }
  assert.equal(missed, [])
  assert.is(tried, 500)
})

test('an undamaged recording is sealed, also by what the audit log says of it', async () => {
  const { summary, bytes } = await sample('gamma', 3)
  const verdict = await verdictOf('gamma', bytes, { headHash: summary.headHash, bytes: summary.bytes })
  assert.is(verdict.state, 'sealed')
  assert.is(verdict.verifiedBytes, bytes.length)
  assert.is(verdict.brokenAt, undefined)
  assert.ok(verdict.seals >= 4)
})

test('the audit log tells a cut recording, or one made anew, from the one it names', async () => {
  const { summary, bytes, frames } = await sample('delta', 4)
  const expected = { headHash: summary.headHash, bytes: summary.bytes }
  const checkpoint = frames.find(frame => frame.kind === frameKind.seal)!
  const cut = bytes.subarray(0, end(checkpoint))
  assert.is((await verdictOf('delta', cut)).state, 'interrupted')
  assert.is((await verdictOf('delta', cut, expected)).state, 'broken')
  const other = temporaryFolder()
  const again = await openFolder(other, signer).create(headOf('delta'))
  const { path } = await again.seal({ how: 'ended', reason: 'client-closed' })
  const genuine = readFileSync(join(other, path))
  assert.is((await verdictOf('delta', genuine)).state, 'sealed')
  assert.is((await verdictOf('delta', genuine, expected)).state, 'broken')
})

test('a broken recording says up to where it is vouched for', async () => {
  const { bytes, frames } = await sample('epsilon', 5)
  const seals = frames.filter(frame => frame.kind === frameKind.seal)
  assert.ok(seals.length >= 4)
  for (const [index, seal] of seals.slice(0, -1).entries()) {
    const next = seals[index + 1]!
    const copy = Buffer.from(bytes)
    copy[next.offset - 1]! ^= 1
    const verdict = await verdictOf('epsilon', copy)
    assert.is(verdict.state, 'broken')
    assert.is(verdict.brokenAt, end(seal))
    assert.is(verdict.verifiedBytes, end(seal))
    assert.ok(verdict.problem)
  }
})

test('a signature by another key is found at the first seal that it spoils', async () => {
  const { bytes, frames } = await sample('zeta', 6)
  const [first, second] = frames.filter(frame => frame.kind === frameKind.seal)
  const copy = Buffer.from(bytes)
  // In the signature of the second checkpoint, and the chain behind it made anew as far as possible without a
  // key.
  copy[end(second!) - 1]! ^= 1
  const verdict = await verdictOf('zeta', copy)
  assert.is(verdict.state, 'broken')
  assert.is(verdict.verifiedBytes, end(first!))
  const stranger = generateKeyPairSync('ed25519').publicKey
  const path = join(spoiled, 'zeta.spr')
  writeFileSync(path, bytes)
  assert.is((await verify(path, [stranger])).verifiedBytes, 0)
  assert.is((await verify(path, [stranger])).state, 'broken')
  assert.is((await verify(path, [stranger, publicKey])).state, 'sealed')
})

test('a file that is not there is missing, one that is no recording is broken', async () => {
  const path = join(spoiled, 'gone.spr')
  rmSync(path, { force: true })
  assert.is((await verify(path, [publicKey])).state, 'missing')
  writeFileSync(path, 'not a recording, but long enough to hold a header of one')
  assert.is((await verify(path, [publicKey])).state, 'broken')
  assert.is((await verify(spoiled, [publicKey])).state, 'broken')
})

test('verifying needs the public key as PEM and nothing else', async () => {
  const { bytes } = await sample('eta', 7)
  const path = join(spoiled, 'eta.spr')
  writeFileSync(path, bytes)
  assert.is((await verify(path, readPublicKeys(`comment\n${pem}`))).state, 'sealed')
  const other = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey
  const rsa = other.export({ type: 'spki', format: 'pem' })
  for (const text of ['', 'no key', pem.replace('MCow', 'AAAA'), rsa.toString()]) {
    assert.throws(() => readPublicKeys(text), (error: Error) => /Ed25519|cannot be read/.test(error.message))
  }
})

test.run()
