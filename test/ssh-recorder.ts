// A recorder that is slow, or fails, under a session of stock ssh with a real sshd (D3, R4, F16, F18): bytes
// keep their order, whatever was delivered had been recorded before, on either side, and the person hears in
// one coded line why the session ended. For the disk itself: faults-recording-ssh.ts.
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import { frameKind } from '../src/recording/recording.ts'
import type { FrameKind, Recording } from '../src/recording/recording.ts'
import { Secret } from '../src/secret.ts'
import { generateSshKey } from '../src/wire/ssh/key.ts'
import { startLinuxBox } from '../tool/linux-box.ts'
import type { LinuxBox } from '../tool/linux-box.ts'
import { programOf } from '../tool/services.ts'
import { startSshPassThrough } from './peers/ssh-pass-through.ts'
import type { SshPassThrough } from './peers/ssh-pass-through.ts'

/** How `commit` behaves: at the n-th call it fails, or each one takes its time. */
type Fault = { kind: 'throws' | 'rejects', at: number } | { kind: 'slow' }

class FaultyRecording implements Recording {
  readonly session: string
  readonly #fault: Fault
  readonly #controller = new AbortController()
  readonly failed = this.#controller.signal
  readonly #frames: { kind: FrameKind, lane: number, body: Buffer }[] = []
  #onRecord = 0
  commits = 0

  constructor(session: string, fault: Fault) {
    this.session = session
    this.#fault = fault
  }

  append(kind: FrameKind, lane: number, ...parts: readonly Uint8Array[]): void {
    this.#frames.push({ kind, lane, body: Buffer.concat(parts) })
  }

  commit(): true | Promise<void> {
    const upTo = this.#frames.length
    const call = ++this.commits
    if (this.#fault.kind === 'slow') return this.#later(upTo, call % 7)
    if (call < this.#fault.at) {
      this.#onRecord = upTo
      return true
    }
    const error = new SallyportError('recorder-failed', { detail: 'a test’s disk is full' })
    if (this.#fault.kind === 'rejects') {
      return pause(3).then(() => {
        this.#controller.abort(error)
        throw error
      })
    }
    this.#controller.abort(error)
    throw error
  }

  async #later(upTo: number, ms: number): Promise<void> {
    await pause(ms)
    this.#onRecord = Math.max(this.#onRecord, upTo)
  }

  /** What a commit has said of these bytes. */
  recorded(kind: 'input' | 'output', lane = 1): Buffer {
    const found = this.#frames.slice(0, this.#onRecord)
      .filter(frame => frame.kind === frameKind[kind] && frame.lane === lane)
    return Buffer.concat(found.map(({ body }) => body))
  }

  seal(): Promise<never> {
    return Promise.reject(new Error('nobody seals this'))
  }
}

const home = mkdtempSync(join(tmpdir(), 'sallyport-recorder-'))
const [own, account] = [generateSshKey(), generateSshKey()]
let box: LinuxBox
let front: SshPassThrough
let fault: Fault
let recording: FaultyRecording

test.before(async () => {
  box = await startLinuxBox()
  await box.addUser('jit_alice', account.publicKey)
  writeFileSync(join(home, 'key'), own.privateKey, { mode: 0o600 })
  front = await startSshPassThrough({
    target: { host: box.host, port: box.port, hostKeys: [box.hostKey] },
    secret: { kind: 'private-key', privateKey: new Secret(account.privateKey) },
    people: { alice: { publicKeys: [own.publicKey] } },
    recordingOf: session => recording = new FaultyRecording(session, fault)
  })
})
test.after(async () => {
  await front.stop()
  await box.stop()
  rmSync(home, { recursive: true })
})

interface Heard {
  status: number | null
  stdout: Buffer
  stderr: string
}

function begin(words: readonly string[]): { child: ChildProcess, ended: Promise<Heard> } {
  const child = spawn(programOf('ssh'), [
    '-F', 'none', '-i', join(home, 'key'), '-o', 'IdentitiesOnly=yes', '-o', 'BatchMode=yes',
    '-o', 'StrictHostKeyChecking=no', '-o', `UserKnownHostsFile=${join(home, 'known')}`, '-T',
    '-p', String(front.port), 'alice@127.0.0.1', ...words
  ], { stdio: 'pipe' })
  const [out, err]: [Buffer[], Buffer[]] = [[], []]
  child.stdout.on('data', (data: Buffer) => out.push(data))
  child.stderr.on('data', (data: Buffer) => err.push(data))
  child.stdin.on('error', () => undefined)
  const ended = new Promise<Heard>(resolve => child.once('close', status =>
    resolve({ status, stdout: Buffer.concat(out), stderr: Buffer.concat(err).toString() })))
  return { child, ended }
}

function ssh(words: readonly string[], input: Buffer | string = ''): Promise<Heard> {
  const { child, ended } = begin(words)
  child.stdin!.end(input)
  return ended
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
const numbered = (count: number): string => Array.from({ length: count }, (_, n) => `${n + 1}\n`).join('')

test('a slow recorder holds bytes back and keeps their order, both ways at once', async () => {
  fault = { kind: 'slow' }
  const lines = Buffer.from(numbered(300_000))
  const down = await ssh(['seq 1 300000'])
  assert.is(down.status, 0, down.stderr)
  assert.is(sha256(down.stdout), sha256(lines))
  assert.is(sha256(recording.recorded('output')), sha256(lines))
  const both = await ssh(['tee /tmp/slow; echo done >&2; exit 3'], lines)
  assert.equal([both.status, both.stderr.trim().split('\n').at(-1)], [3, 'done'])
  assert.is(sha256(both.stdout), sha256(lines))
  assert.match(await box.run('sha256sum /tmp/slow'), sha256(lines))
  assert.ok(recording.commits > 10, `${recording.commits} commits`)
})

for (const kind of ['throws', 'rejects'] as const) {
  test(`a recorder that ${kind}: nothing unrecorded is delivered, and the person hears why`, async () => {
    for (const at of [1, 2, 5, 12, 25]) {
      fault = { kind, at }
      const before = front.endings.length
      const { status, stdout, stderr } = await ssh(['seq 1 3000000; sleep 60'])
      const what = `commit ${at}`
      assert.is(status, 255, what)
      assert.match(stderr, /the session could not be recorded \[recorder-failed [0-9a-f]{6}\]/, what)
      const recorded = recording.recorded('output')
      assert.ok(recorded.subarray(0, stdout.length).equals(stdout),
        `${what}: ${stdout.length} delivered, ${recorded.length} on record`)
      for (let waited = 0; front.endings.length === before && waited < 5000; waited += 10) await pause(10)
      assert.match(front.endings[before]!.reason, 'recorder-failed', what)
      // Each direction asks for itself; nobody asks twice.
      assert.ok(recording.commits <= (kind === 'throws' ? at : at + 1), `${what}: ${recording.commits}`)
    }
  })
}

test('what the person typed does not reach the target before it is on record', async () => {
  for (const kind of ['throws', 'rejects'] as const) {
    for (const at of [15, 40]) {
      await box.run('rm -f /tmp/seen')
      fault = { kind, at }
      const { child, ended } = begin([])
      for (let line = 1; child.exitCode === null && line <= 2000; line++) {
        child.stdin!.write(`echo ${line} >> /tmp/seen\n`)
        if (line % 20 === 0) await pause(5)
      }
      const { stderr } = await ended
      assert.match(stderr, /\[recorder-failed [0-9a-f]{6}\]/)
      const seen = (await box.attempt('cat /tmp/seen')).stdout.trim().split('\n').at(-1) ?? ''
      const typed = recording.recorded('input').toString()
      assert.ok(seen === '' || typed.includes(`echo ${seen} >>`), `${kind} ${at}: line ${seen} ran`)
    }
  }
})

test.run()
