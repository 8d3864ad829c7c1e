// A process that records until something stops it: the subject of the crash and disk-fault tests.
//   node recorder.ts FOLDER KEY-FILE PLAN
// It says on its standard output what its client would have been given, one line each, written at once:
//   `ok SESSION N`   the commit of frame N said so (and not before)
//   `failed CODE`    the failed signal; `refused CODE` a commit that threw or rejected
// Plans: `steady` until killed; `until-failure` one recording; `two` a second one beside it; `limits` 200
// times a file size limit (RLIMIT_FSIZE) at another byte of another recording.
import { execFileSync } from 'node:child_process'
import { createPrivateKey, sign } from 'node:crypto'
import { readFileSync, writeSync } from 'node:fs'
import { asSallyportError } from '../../src/errors.ts'
import { frameKind } from '../../src/recording/recording.ts'
import type { Recording } from '../../src/recording/recording.ts'
import { headOf, openFolder, seeded } from './recordings.ts'

const [, , dir = '', keyFile = '', plan = ''] = process.argv
const privateKey = createPrivateKey(readFileSync(keyFile))
const recordings = openFolder(dir, { keyId: 'test-key', sign: bytes => sign(null, bytes, privateKey) })

function say(line: string): void {
  writeSync(1, `${line}\n`)
}

/**
 * The body of frame N: its number, and as many bytes as the number says, so that any change would be seen.
 */
function body(number: number): Buffer {
  return Buffer.from(`${number}:${'x'.repeat(number % 400)}`)
}

async function begin(session: string): Promise<Recording> {
  const recording = await recordings.create(headOf(session))
  const { failed } = recording
  failed.addEventListener('abort', () => say(`failed ${asSallyportError(failed.reason).code}`))
  return recording
}

/** False when the recorder refused. */
async function record(recording: Recording, number: number): Promise<boolean> {
  recording.append(frameKind.output, 0, body(number))
  try {
    const done = recording.commit()
    if (done !== true) {
      say(`waits ${recording.session} ${number}`)
      await done
    }
  } catch (thrown) {
    say(`refused ${asSallyportError(thrown).code}`)
    return false
  }
  say(`ok ${recording.session} ${number}`)
  return true
}

async function steady(): Promise<void> {
  const recording = await begin('steady')
  for (let number = 0; ; number++) {
    await record(recording, number)
    // Frames that nobody commits, as a relay appends them.
    recording.append(frameKind.event, 0, Buffer.from('{"type":"tick"}'))
    if (number % 50 === 49) await new Promise(resolve => setImmediate(resolve))
  }
}

async function untilFailure(): Promise<void> {
  const recording = await begin('one')
  for (let number = 0; await record(recording, number); number++) {
    if (number > 1_000_000) break
    // A sync needs the event loop.
    await new Promise(resolve => setImmediate(resolve))
  }
  const { sealed } = await recording.seal({ how: 'cut', reason: 'recorder-failed' })
  say(`sealed ${sealed}`)
  process.exit(0)
}

/** `one` lies on a slow disk; `two` beside it must get on, and both must end sealed. */
async function two(): Promise<void> {
  const [one, other] = [await begin('one'), await begin('two')]
  const slow = (async () => {
    for (let number = 0; number < 6; number++) await record(one, number)
  })()
  for (let number = 0; number < 200; number++) {
    await record(other, number)
    await new Promise(resolve => setImmediate(resolve))
  }
  say('two is done')
  await slow
  for (const each of [one, other]) {
    const { sealed } = await each.seal({ how: 'ended', reason: 'client-closed' })
    say(`sealed ${sealed}`)
  }
  process.exit(0)
}

/** The limit of the process for any file: the kernel writes up to it and then refuses (EFBIG). */
function limitFileSize(limit: number | 'unlimited'): void {
  execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${limit}:unlimited`])
}

async function limits(): Promise<void> {
  const random = seeded(16)
  for (let round = 0; round < 200; round++) {
    const recording = await begin(`limit-${round}`)
    limitFileSize(700 + random(20_000))
    let number = 0
    while (await record(recording, number)) number++
    limitFileSize('unlimited')
    await recording.seal({ how: 'cut', reason: 'recorder-failed' })
    say(`end limit-${round}`)
  }
  process.exit(0)
}

// The timers of the recorder keep no process alive; here nothing else would.
setInterval(() => undefined, 60_000)

const plans: Record<string, () => Promise<void>> = { steady, 'until-failure': untilFailure, two, limits }
await plans[plan]?.()
