// What tests of recordings share: a folder that goes away, a key pair, a clock that stands still until it is
// told to move, and short recordings of both kinds. Nothing here judges; the tests do.
import { generateKeyPairSync, sign } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Clock } from '../../src/clock.ts'
import { systemClock } from '../../src/clock.ts'
import { openRecordings } from '../../src/recording/recordings.ts'
import type { Recordings, RecordingsSetting } from '../../src/recording/recordings.ts'
import type { RecordingHead, Signer } from '../../src/recording/recording.ts'
import * as wire from '../../src/wire/postgres/messages.ts'
import { ResultTape } from '../../src/wire/postgres/tape.ts'

export const startedAt = '2026-11-21T04:00:00.000Z'
export const day = '2026/11/21'

const folders: string[] = []
process.on('exit', () => folders.forEach(folder => rmSync(folder, { recursive: true, force: true })))

/** A new folder; removed when the process ends. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-recording-'))
  folders.push(folder)
  return folder
}

export function keyPair(): { signer: Signer, publicKey: KeyObject, pem: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const signer = { keyId: 'test-key', sign: (bytes: Uint8Array) => sign(null, bytes, privateKey) }
  return { signer, publicKey, pem: publicKey.export({ type: 'spki', format: 'pem' }).toString() }
}

export function headOf(session: string, more: Partial<RecordingHead> = {}): RecordingHead {
  return {
    session, user: 'alice', credential: 'orders-rw', target: 'orders', protocol: 'postgres',
    address: '192.0.2.7', startedAt, node: 'node-1', database: 'shop', ...more
  }
}

/** Free space is the machine's business, not that of a test. */
export const noReserve = { reserveBytes: 0, reserveShare: 0 }

export function openFolder(dir: string, signer: Signer, more: Partial<RecordingsSetting> = {}): Recordings {
  return openRecordings({ dir, signer, clock: systemClock, limits: noReserve, ...more })
}

/** Stands still until `advance`; timers fire in the order of their times. */
export class StillClock implements Clock {
  #nowMs = 0
  #timers: { dueMs: number, act: () => void }[] = []

  now(): Date {
    return new Date(Date.parse(startedAt) + this.#nowMs)
  }

  monotonicMs(): number {
    return this.#nowMs
  }

  after(delayMs: number, act: () => void): () => void {
    const timer = { dueMs: this.#nowMs + delayMs, act }
    this.#timers.push(timer)
    return () => { this.#timers = this.#timers.filter(each => each !== timer) }
  }

  get timers(): number {
    return this.#timers.length
  }

  advance(ms: number): void {
    const untilMs = this.#nowMs + ms
    for (;;) {
      const next = this.#timers.filter(timer => timer.dueMs <= untilMs).sort((a, b) => a.dueMs - b.dueMs)[0]
      if (next === undefined) break
      this.#timers = this.#timers.filter(timer => timer !== next)
      this.#nowMs = Math.max(this.#nowMs, next.dueMs)
      next.act()
    }
    this.#nowMs = untilMs
  }
}

/** Waits for something that others do; a minute is far beyond anything that a test waits for. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const giveUpMs = systemClock.monotonicMs() + 60_000
  while (!await condition()) {
    if (systemClock.monotonicMs() > giveUpMs) throw new Error('it never became true')
    await new Promise(resolve => setImmediate(resolve))
  }
}

/** Numbers that come again with the same seed (mulberry32): 0 up to, not including, `below`. */
export function seeded(seed: number): (below: number) => number {
  let state = seed >>> 0
  return below => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor(((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32 * below)
  }
}

/** Bodies of result frames. */
export const answer = {
  complete: (tag: string, rows = 0, bytes = 0, copied = 0): Buffer =>
    entry('C', Buffer.from(`${tag}\0`), rows, bytes, copied),
  error: (sqlstate: string, message: string): Buffer =>
    entry('E', wire.errorResponse({ severity: 'ERROR', sqlstate, message }).subarray(5)),
  notice: (message: string): Buffer =>
    entry('N', wire.noticeResponse({ severity: 'NOTICE', sqlstate: '00000', message }).subarray(5)),
  ready: (status: 'I' | 'T' | 'E' = 'I'): Buffer => entry('Z', Buffer.from(status)),
  status: (name: string, value: string): Buffer => entry('S', wire.parameterStatus(name, value).subarray(5)),
  other: (tag: string, body: Uint8Array = Buffer.alloc(0)): Buffer => entry(tag, body)
}

function entry(tag: string, body: Uint8Array, rows = 0, bytes = 0, copied = 0): Buffer {
  const tape = new ResultTape()
  tape.add(tag.charCodeAt(0), rows, bytes, copied, body)
  return Buffer.from(tape.take())
}
