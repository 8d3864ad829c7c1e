// A front end between a client that says what it is told, a target that does what it is told, and a recording
// whose every write is the test's: for tests of the two streams of a session. The clock stands still unless
// it is moved.
import { SallyportError } from '../../src/errors.ts'
import { frameKind } from '../../src/recording/recording.ts'
import type { Recording } from '../../src/recording/recording.ts'
import { startFakeTarget } from './fake-target.ts'
import type { FakeOptions, FakeTarget } from './fake-target.ts'
import { startPassThrough } from './pass-through.ts'
import type { PassThrough, PassThroughOptions } from './pass-through.ts'
import { handClock, rawClient } from './raw-postgres.ts'
import type { HandClock, RawClient } from './raw-postgres.ts'

export interface World extends AsyncDisposable {
  clock: HandClock
  target: FakeTarget
  front: PassThrough
}

/** A front with this target behind it; `own` and `fake` change one or the other. */
export async function world(own: Partial<PassThroughOptions> = {}, fake: FakeOptions = {}): Promise<World> {
  const clock = handClock()
  const target = await startFakeTarget(fake)
  const front = await startPassThrough({
    target: { host: '127.0.0.1', port: target.port, tls: { mode: 'disable' } },
    role: 'injected', password: 'fake-target', iterations: 1, ...own, listen: { clock, ...own.listen }
  })
  return {
    clock, target, front,
    [Symbol.asyncDispose]: async () => {
      await front.stop()
      await target.stop()
    }
  }
}

/** Until something is so; the runner's deadline is the limit. */
export async function until(met: () => boolean): Promise<void> {
  while (!met()) await new Promise(resolve => setImmediate(resolve))
}

/** Lets the event loop turn: what could happen without a timer has happened. */
export async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise(resolve => setImmediate(resolve))
}

/** Takes everything and says nothing. */
export const silent = { answer: (): void => undefined }

export interface Kept {
  kind: number
  body: Buffer
}

/**
 * A recording whose `commit` is the test's; `frames` is what was appended, `committed` how many were in time.
 */
export interface Tape {
  wrap: (recording: Recording) => Recording
  frames: Kept[]
  committed: number
  commit: () => true | Promise<void>
  fail(): void
}

export function tape(): Tape {
  const controller = new AbortController()
  const own: Tape = {
    frames: [],
    committed: 0,
    commit: () => true,
    fail: () => controller.abort(new SallyportError('recorder-failed')),
    wrap: recording => ({
      session: recording.session,
      failed: controller.signal,
      append: (kind, _lane, ...parts) => {
        if (!controller.signal.aborted) own.frames.push({ kind, body: Buffer.concat(parts) })
      },
      commit: () => {
        const done = own.commit()
        const { length } = own.frames
        if (done === true) own.committed = length
        else void done.then(() => { own.committed = length }, () => undefined)
        return done
      },
      seal: ending => recording.seal(ending)
    })
  }
  return own
}

/** The raw bytes of all statements. */
export function statementsOf(frames: readonly Kept[]): Buffer {
  return Buffer.concat(frames.filter(({ kind }) => kind === frameKind.statement).map(({ body }) => body))
}

export function eventsOf(frames: readonly Kept[]): Record<string, unknown>[] {
  return frames.filter(({ kind }) => kind === frameKind.event)
    .map(({ body }) => JSON.parse(body.toString()) as Record<string, unknown>)
}

/** What a connection of the target got after its login. */
export const received = (target: FakeTarget, index: number = 0): Buffer =>
  Buffer.concat(target.connections[index]?.received ?? [])

/** A client that is logged in and has its prompt. */
export async function session(house: World, name: string = 'alice'): Promise<RawClient> {
  return (await rawClient(house.front.port)).ready(name)
}
