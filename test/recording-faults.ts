// deadline: 240 s
// Disks that fill up, fail or are slow (F16 to F18, R4), with real errors of the kernel: strace injects them
// into single system calls of a recorder process, and a file size limit stops it at 200 different bytes. What
// the client was given must be in the file, the session must hear of it at once, and nothing is tried again.
import { spawn, spawnSync } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { RecordingFile, readFrames } from '../src/recording/reader.ts'
import { frameKind } from '../src/recording/recording.ts'
import { verify } from '../src/recording/verify.ts'
import { ensurePackages, programOf } from '../tool/services.ts'
import { day, seeded, temporaryFolder } from './peers/recordings.ts'

ensurePackages(['strace'])

const recorder = join(import.meta.dirname, 'peers/recorder.ts')

interface Place {
  dir: string
  keyFile: string
  publicKey: KeyObject
}

function place(): Place {
  const dir = temporaryFolder()
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const keyFile = join(temporaryFolder(), 'key.pem')
  writeFileSync(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }))
  return { dir, keyFile, publicKey }
}

interface Run {
  lines: string[]
  trace: string
}

/** Runs a plan under strace with one fault injected into the calls on one recording's file. */
function runWithFault({ dir, keyFile }: Place, plan: string, fault: string): Run {
  const traceFile = join(temporaryFolder(), 'trace')
  const file = join(dir, day, 'one.spr')
  const calls = 'trace=write,pwrite64,pwritev,writev,fdatasync'
  const words = ['-f', '-qq', '-o', traceFile, '-P', file, '-e', calls, '-e', `inject=${fault}`]
  const command = [...words, process.execPath, recorder, dir, keyFile, plan]
  const done = spawnSync(programOf('strace'), command, { encoding: 'utf8', timeout: 60_000 })
  assert.is(done.status, 0, done.stderr)
  const lines = done.stdout.split('\n').filter(line => line !== '')
  return { lines, trace: readFileSync(traceFile, 'utf8') }
}

/** The numbers of the frames in a file, which must be 0, 1, 2 … and whole. */
async function recorded(path: string): Promise<number> {
  using file = new RecordingFile(path)
  let count = 0
  for await (const frame of readFrames(file)) {
    if (frame.kind !== frameKind.output) continue
    assert.is(frame.body.toString(), `${count}:${'x'.repeat(count % 400)}`)
    count++
  }
  return count
}

/** What was said, without the waits: one slow write of a busy machine makes a few. */
function said(lines: readonly string[]): string[] {
  return lines.filter(line => !line.startsWith('waits '))
}

function accepted(lines: readonly string[], session: string): number {
  return lines.filter(line => line.startsWith(`ok ${session} `)).length
}

test('a write that fails ends the recording at once, and the client has nothing unrecorded', async () => {
  const random = seeded(3)
  for (let round = 0; round < 6; round++) {
    const here = place()
    const error = ['ENOSPC', 'EIO', 'EDQUOT'][round % 3]!
    const nth = 2 + random(60)
    const { lines, trace } = runWithFault(here, 'until-failure', `pwrite64:error=${error}:when=${nth}+`)
    const given = accepted(lines, 'one')
    // `failed` comes before the commit throws, and nothing is accepted afterwards.
    const ending = ['failed recorder-failed', 'refused recorder-failed', 'sealed false']
    assert.equal(said(lines).slice(given), ending)
    assert.ok(await recorded(join(here.dir, day, 'one.spr')) >= given)
    assert.is(trace.split('\n').filter(line => line.includes(error)).length, 1,
      'the write is not tried again')
    assert.is((await verify(join(here.dir, day, 'one.spr'), [here.publicKey])).state, 'interrupted')
  }
})

test('after one failed sync the file counts as lost, and no sync is tried again', async () => {
  const here = place()
  const { lines, trace } = runWithFault(here, 'until-failure', 'fdatasync:error=EIO:when=1')
  assert.equal(lines.slice(-3), ['failed recorder-failed', 'refused recorder-failed', 'sealed false'])
  // A call that another thread interrupts has a second line, `resumed`.
  assert.is(trace.split('fdatasync(').length - 1, 1)
  assert.ok(await recorded(join(here.dir, day, 'one.spr')) >= accepted(lines, 'one'))
})

test('a slow disk makes commits wait, loses nothing, and does not hold up a session beside it', async () => {
  const here = place()
  // Every write to this one file takes 0.4 s.
  const { lines } = runWithFault(here, 'two', 'pwrite64:delay_exit=400000')
  assert.is(accepted(lines, 'one'), 6)
  assert.is(accepted(lines, 'two'), 200)
  // The first write was on the spot and told the recorder; each of the others is a wait.
  const waits = lines.filter(line => line.startsWith('waits one '))
  assert.ok(waits.length >= 5, lines.join('\n'))
  const done = lines.indexOf('two is done')
  assert.ok(accepted(lines.slice(0, done), 'one') < 6, 'the other session was through long before')
  assert.is(lines.filter(line => line === 'sealed true').length, 2)
  for (const session of ['one', 'two']) {
    const path = join(here.dir, day, `${session}.spr`)
    assert.is((await verify(path, [here.publicKey])).state, 'sealed')
    assert.is(await recorded(path), session === 'one' ? 6 : 200)
  }
})

test('a write that fails on a slow disk rejects the commit that waits for it', async () => {
  const here = place()
  const { lines } = runWithFault(here, 'two', 'pwrite64:delay_exit=100000:error=ENOSPC:when=4+')
  assert.ok(lines.includes('failed recorder-failed'))
  assert.ok(lines.includes('refused recorder-failed'))
  assert.ok(await recorded(join(here.dir, day, 'one.spr')) >= accepted(lines, 'one'))
  assert.is(accepted(lines, 'two'), 200, 'the session beside it went on')
})

test('stopped at 200 different bytes, the client never has more than the recording', async () => {
  const { dir, keyFile } = place()
  const child = spawn(process.execPath, [recorder, dir, keyFile, 'limits'],
    { stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => { output += text })
  await new Promise(resolve => child.on('close', resolve))
  const rounds = output.split(/^end .*\n/m).slice(0, -1)
  assert.is(rounds.length, 200)
  for (const [round, text] of rounds.entries()) {
    const lines = text.split('\n').filter(line => line !== '')
    const session = `limit-${round}`
    const given = accepted(lines, session)
    assert.equal(said(lines).slice(given), ['failed recorder-failed', 'refused recorder-failed'], session)
    const count = await recorded(join(dir, day, `${session}.spr`))
    assert.ok(count >= given, `${session}: ${given} given, ${count} recorded`)
  }
  assert.ok(existsSync(join(dir, 'open/limit-0')), 'what failed waits for recovery')
})

test.run()
