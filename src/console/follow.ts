// Following a session while it happens: first how it stands now, then what happens. When the line is cut, or
// says nothing where it should, it is asked for again with what has been seen already, until the recording
// says that the session has ended.
import type { LineOf } from '../api/table.ts'
import { Refusal, lines } from './call.ts'

const againMs = 1_000
const againMsMax = 15_000
/** Of three signs of life two may be lost. */
const silenceMsMax = 30_000

/** Everything in it is safe to show. */
type Told = LineOf<'/sessions/{id}/watch'>
export type Beginning = Extract<Told, { kind: 'begin' }>
export type Scene = Exclude<Told, Beginning>

export type Link = 'connecting' | 'live' | 'cut' | 'ended'

export interface Heard {
  /** Also after each cut. */
  begin(beginning: Beginning): void
  scene(scene: Scene, number: number): void
  linked(link: Link): void
}

/** Until the end of the session or until `signal`; throws Refusal when the server says no. */
export async function follow(
  id: string, lane: number | undefined, signal: AbortSignal, heard: Heard
): Promise<void> {
  let seen = 0
  let waitMs = againMs
  while (!signal.aborted) {
    const line = new Line(signal)
    try {
      const query = { begin: 'now', after: seen, lane } as const
      const asked = { params: { id }, query, signal: line.signal }
      const told = lines('/sessions/{id}/watch', asked, () => line.alive())
      for await (const scene of told) {
        waitMs = againMs
        if (scene.kind === 'begin') {
          seen = scene.count
          heard.linked('live')
          heard.begin(scene)
          continue
        }
        heard.linked(scene.kind === 'end' ? 'ended' : 'live')
        heard.scene(scene, ++seen)
        if (scene.kind === 'end') return
      }
    } catch (thrown) {
      if (signal.aborted) return
      // A refusal with a reference is the server's word; everything else is the line.
      if (thrown instanceof Refusal && thrown.reference !== undefined) throw thrown
    } finally {
      line.end()
    }
    heard.linked('cut')
    await pause(waitMs, signal)
    waitMs = Math.min(waitMs * 2, againMsMax)
  }
}

/** One try: given up when nothing has come for too long, since nobody else tells that a line is dead. */
class Line {
  readonly #stop = new AbortController()
  #timer: ReturnType<typeof setTimeout> | undefined
  readonly signal: AbortSignal

  constructor(signal: AbortSignal) {
    this.signal = AbortSignal.any([signal, this.#stop.signal])
    this.alive()
  }

  alive(): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#stop.abort(), silenceMsMax)
  }

  end(): void {
    clearTimeout(this.#timer)
  }
}

/** Or until the browser says that there is a network again. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const done = (): void => {
      clearTimeout(timer)
      removeEventListener('online', done)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    addEventListener('online', done)
    signal.addEventListener('abort', done)
  })
}
