// R6, F5: recordings survive a crash. A recorder process is killed with SIGKILL at 20 random moments; every
// file parses, holds at least what the client had been given, and is sealed as interrupted by recovery. Torn
// tails, recoveries that are themselves killed, and files that somebody shortened are each told apart.
import { spawn } from 'node:child_process'
import { createPrivateKey, generateKeyPairSync, sign } from 'node:crypto'
import {
  appendFileSync, existsSync, mkdirSync, readFileSync, readdirSync, statSync, truncateSync, writeFileSync
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { RecordingFile, readFrames } from '../src/recording/reader.ts'
import { frameKind } from '../src/recording/recording.ts'
import { recoverEverything } from '../src/recording/recover.ts'
import type { Fate, Recovered } from '../src/recording/recover.ts'
import { verify } from '../src/recording/verify.ts'
import {
  StillClock, day, headOf, keyPair, openFolder, seeded, temporaryFolder, until
} from './peers/recordings.ts'

const recorder = join(import.meta.dirname, 'peers/recorder.ts')
const { signer, publicKey } = keyPair()
const unfinished = (): Fate => 'unfinished'

/** Runs the recorder and kills it when it has said so many lines. Returns what its client had been given. */
async function killedAfter(dir: string, keyFile: string, lineCount: number): Promise<number> {
  const child = spawn(process.execPath, [recorder, dir, keyFile, 'steady'],
    { stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  let lines = 0
  child.stdout.setEncoding('latin1').on('data', (text: string) => {
    output += text
    lines += text.split('\n').length - 1
    if (lines >= lineCount) child.kill('SIGKILL')
  })
  await new Promise(resolve => child.on('close', resolve))
  // A line that is cut was not given.
  return output.split('\n').slice(0, -1).filter(line => line.startsWith('ok ')).length
}

async function outputCount(path: string): Promise<number> {
  using file = new RecordingFile(path)
  let count = 0
  for await (const frame of readFrames(file)) {
    if (frame.kind !== frameKind.output) continue
    assert.is(frame.body.toString(), `${count}:${'x'.repeat(count % 400)}`)
    count++
  }
  return count
}

test('killed at 20 random moments, a recording parses, misses nothing and is sealed', async () => {
  const random = seeded(20)
  const { privateKey, publicKey: key } = generateKeyPairSync('ed25519')
  const keyFile = join(temporaryFolder(), 'key.pem')
  writeFileSync(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const crashed = createPrivateKey(readFileSync(keyFile))
  const own = { keyId: 'test-key', sign: (bytes: Uint8Array) => sign(null, bytes, crashed) }
  for (let round = 0; round < 20; round++) {
    const dir = temporaryFolder()
    const given = await killedAfter(dir, keyFile, 1 + random(4000))
    const path = join(dir, day, 'steady.spr')
    assert.ok(await outputCount(path) >= given, 'no frame that was committed is lost')
    const [recovered] = await openFolder(dir, own).recover(unfinished)
    assert.is(recovered?.outcome, 'interrupted')
    const verdict = await verify(path, [key], { headHash: recovered?.summary?.headHash })
    assert.is(verdict.state, 'sealed')
    assert.is(verdict.close?.how, 'interrupted')
    assert.ok(await outputCount(path) >= given)
  }
})

/** A folder with one recording as a crash leaves it: 20 frames, a checkpoint after the tenth, no seal. */
async function crashedRecording(): Promise<{ dir: string, path: string, lastFrame: number }> {
  const dir = temporaryFolder()
  const clock = new StillClock()
  const recording = await openFolder(dir, signer, { clock }).create(headOf('s1'))
  const path = join(dir, day, 's1.spr')
  let lastFrame = 0
  for (let number = 0; number < 20; number++) {
    lastFrame = statSync(path).size
    recording.append(frameKind.output, 0, Buffer.from(`${number}:${'x'.repeat(number % 400)}`))
    await recording.commit()
    if (number === 9) {
      clock.advance(1000)
      await until(async () => (await verify(path, [publicKey])).seals === 1)
    }
  }
  return { dir, path, lastFrame }
}

async function recover(dir: string, fate: (session: string) => Fate = unfinished): Promise<Recovered> {
  const recovered = await openFolder(dir, signer).recover(fate)
  assert.is(recovered.length, 1)
  return recovered[0]!
}

test('a torn tail is cut off, kept beside the recording, and counted', async () => {
  const tails = {
    short: Buffer.from([0, 0, 1, 0, 3, 0, 0, 1, 2]),
    garbage: Buffer.from('no frame at all, but bytes')
  }
  for (const [name, tail] of Object.entries(tails)) {
    const { dir, path } = await crashedRecording()
    appendFileSync(path, tail)
    const recovered = await recover(dir)
    assert.is(recovered.outcome, 'interrupted', name)
    assert.is(recovered.tornBytes, tail.length)
    assert.equal(readFileSync(join(dir, day, 's1.torn')), tail)
    const verdict = await verify(path, [publicKey])
    assert.is(verdict.state, 'sealed')
    assert.is(verdict.close?.tornBytes, tail.length)
    assert.is(await outputCount(path), 20)
  }
})

test('zeros that a power cut left are cut off too', async () => {
  const { dir, path } = await crashedRecording()
  appendFileSync(path, Buffer.alloc(5000))
  const recovered = await recover(dir)
  assert.is(recovered.tornBytes, 5000)
  assert.not.ok(existsSync(join(dir, day, 's1.torn')))
  assert.is((await verify(path, [publicKey])).state, 'sealed')
})

test('wherever a crash cuts the file, recovery saves every whole frame', async () => {
  const whole = await crashedRecording()
  const bytes = readFileSync(whole.path)
  const { verifiedBytes } = await verify(whole.path, [publicKey])
  for (let length = verifiedBytes; length <= bytes.length; length++) {
    const dir = temporaryFolder()
    mkdirSync(join(dir, day), { recursive: true })
    mkdirSync(join(dir, 'open'))
    writeFileSync(join(dir, 'open/s1'), `${day}/s1.spr`)
    writeFileSync(join(dir, day, 's1.spr'), bytes.subarray(0, length))
    const recovered = await recover(dir)
    assert.is(recovered.outcome, 'interrupted')
    const verdict = await verify(join(dir, day, 's1.spr'), [publicKey])
    assert.is(verdict.state, 'sealed')
    assert.is(verdict.close?.signedBytes, verifiedBytes)
    assert.is(verdict.close?.tornBytes === undefined ? 0 : verdict.close.tornBytes, recovered.tornBytes)
  }
})

test('recovery is idempotent, also when it is killed between its steps', async () => {
  const { dir, path } = await crashedRecording()
  const cut = statSync(path).size
  appendFileSync(path, Buffer.from('torn'))
  await recover(dir)
  const done = readFileSync(path)
  assert.equal(await openFolder(dir, signer).recover(unfinished), [], 'nothing is left to do')
  // Killed before the note went away.
  writeFileSync(join(dir, 'open/s1'), `${day}/s1.spr`)
  const again = await recover(dir)
  assert.is(again.outcome, 'sealed')
  assert.is(again.summary?.bytes, done.length)
  assert.is(again.summary?.headHash, (await verify(path, [publicKey])).headHash)
  assert.equal(readFileSync(path), done)
  // Killed while it wrote: every length between the cut and the end.
  for (let length = done.length - 1; length >= cut; length -= 7) {
    writeFileSync(join(dir, 'open/s1'), `${day}/s1.spr`)
    writeFileSync(path, done.subarray(0, length))
    const { outcome, tornBytes } = await recover(dir)
    assert.is(outcome, 'interrupted')
    assert.ok(tornBytes >= 4, 'the torn bytes of the first time are not forgotten')
    assert.is((await verify(path, [publicKey])).state, 'sealed')
    assert.is(await outputCount(path), 20)
  }
})

test('a session that had ended before the crash keeps its ending', async () => {
  const dir = temporaryFolder()
  const recording = await openFolder(dir, signer).create(headOf('s1'))
  const { path: relative } = await recording.seal({ how: 'ended', reason: 'client-closed' })
  const path = join(dir, relative)
  truncateSync(path, statSync(path).size - 160)
  writeFileSync(join(dir, 'open/s1'), relative)
  const recovered = await recover(dir)
  assert.equal(recovered.summary?.ending, { how: 'ended', reason: 'client-closed' })
  assert.is((await verify(path, [publicKey])).state, 'sealed')
})

test('a live session is left alone, in this process and by what the store says', async () => {
  const dir = temporaryFolder()
  const recordings = openFolder(dir, signer)
  const recording = await recordings.create(headOf('s1'))
  assert.is((await recordings.recover(unfinished))[0]?.outcome, 'live')
  assert.is((await recover(dir, () => 'live')).outcome, 'live')
  const { sealed, path } = await recording.seal({ how: 'ended', reason: 'client-closed' })
  assert.ok(sealed)
  assert.is((await verify(join(dir, path), [publicKey])).close?.how, 'ended')
})

test('what was shortened or changed by hand is not sealed again, and nothing is cut off', async () => {
  // The store knows that it was sealed.
  const cut = await crashedRecording()
  assert.is((await recover(cut.dir, () => 'sealed')).outcome, 'damaged')
  // A bit before the checkpoint: the chain does not fit.
  const changed = await crashedRecording()
  const bytes = readFileSync(changed.path)
  bytes[300]! ^= 1
  writeFileSync(changed.path, bytes)
  assert.is((await recover(changed.dir)).outcome, 'damaged')
  assert.equal(readFileSync(changed.path), bytes)
  // A frame's header before the checkpoint: reading stops there, but a genuine seal lies behind it.
  const broken = await crashedRecording()
  using file = new RecordingFile(broken.path)
  const offsets: number[] = []
  for await (const frame of readFrames(file)) offsets.push(frame.offset)
  const spoiled = readFileSync(broken.path)
  spoiled[offsets[4]! + 4] = 77
  writeFileSync(broken.path, spoiled)
  const recovered = await recover(broken.dir)
  assert.is(recovered.outcome, 'damaged')
  assert.match(recovered.detail ?? '', String(offsets[4]))
  assert.equal(readFileSync(broken.path), spoiled)
  assert.ok(existsSync(join(broken.dir, 'open/s1')), 'it is reported again until somebody deals with it')
})

test('a process that died before its recording had begun leaves nothing to seal', async () => {
  const { path } = await crashedRecording()
  const bytes = readFileSync(path)
  const openFrame = bytes.indexOf('}') + 1
  for (const length of [0, 10, 32, 40, openFrame - 1]) {
    const dir = temporaryFolder()
    mkdirSync(join(dir, day), { recursive: true })
    mkdirSync(join(dir, 'open'))
    writeFileSync(join(dir, 'open/s1'), `${day}/s1.spr`)
    writeFileSync(join(dir, day, 's1.spr'), bytes.subarray(0, length))
    assert.is((await recover(dir)).outcome, 'missing', String(length))
    assert.equal(readdirSync(join(dir, day)), ['s1.torn'])
    assert.equal(readdirSync(join(dir, 'open')), [])
  }
  const dir = temporaryFolder()
  mkdirSync(join(dir, 'open'))
  for (const note of ['', '../../../etc/passwd', `${day}/s1.spr`]) {
    writeFileSync(join(dir, 'open/s1'), note)
    assert.is((await recover(dir)).outcome, 'missing', note)
  }
})

test('a folder that lost its notes is recovered by looking at every file', async () => {
  const { dir, path } = await crashedRecording()
  const sealed = await openFolder(dir, signer).create(headOf('s0'))
  await sealed.seal({ how: 'ended', reason: 'client-closed' })
  const setting = { dir, signer, clock: new StillClock(), fate: unfinished }
  writeFileSync(join(dir, 'open/s1'), '')
  const [first] = await openFolder(dir, signer).recover(unfinished)
  assert.is(first?.outcome, 'missing')
  const recovered = await recoverEverything(setting)
  assert.equal(recovered.map(each => [each.session, each.outcome]), [['s1', 'interrupted']])
  assert.is((await verify(path, [publicKey])).state, 'sealed')
})

test.run()
