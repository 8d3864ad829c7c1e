// Plays a recording: text to print, each with the time to wait before it. The waiting is the caller's; so a
// test plays a week in a moment. What comes out is safe for the terminal that it is printed on
// (screenplay.ts).
import { sleep } from '../clock.ts'
import type { Clock } from '../clock.ts'
import type { RecordingFile, TailOptions } from './reader.ts'
import { tail } from './reader.ts'
import { Screenplay, scenes } from './screenplay.ts'
import type { Scene } from './screenplay.ts'

/** A pause is never longer than this, whatever a recording says: a day. */
const pauseMsMax = 86_400_000

export interface ReplayOptions {
  /** 2 is twice as fast; default 1. */
  speed?: number | undefined
  /** Longer pauses are shortened to this (of recorded time). */
  maxIdleSeconds?: number | undefined
  /** What was before this is shown at once: a screen is the sum of what came before. */
  fromSeconds?: number | undefined
}

export interface Cue {
  delayMs: number
  text: string
}

/** The text of a scene on a terminal: events and the end stand in a line of their own. */
export function sceneText(scene: Scene): string {
  switch (scene.kind) {
    case 'text': return scene.text
    case 'resize': return ''
    case 'event': return `\r\n[${scene.text}]\r\n`
    case 'end': return `\r\n[${scene.text}]\r\n`
  }
}

/** Pauses and texts, in order. */
export async function* replay(file: RecordingFile, options: ReplayOptions = {}): AsyncGenerator<Cue> {
  const { speed = 1, maxIdleSeconds = Infinity, fromSeconds = 0 } = options
  let shownMs = fromSeconds * 1000
  for await (const scene of scenes(file)) {
    const pauseMs = Math.min(Math.max(0, scene.atMs - shownMs), maxIdleSeconds * 1000, pauseMsMax)
    shownMs = Math.max(shownMs, scene.atMs)
    const text = sceneText(scene)
    const delayMs = pauseMs / speed
    if (text !== '' || delayMs > 0) yield { delayMs, text }
  }
}

/** Plays onto `write` in real time. Rejects with the signal's reason when it is aborted. */
export async function play(
  file: RecordingFile, write: (text: string) => void, clock: Clock,
  options: ReplayOptions & { signal?: AbortSignal } = {}
): Promise<void> {
  for await (const { delayMs, text } of replay(file, options)) {
    if (delayMs > 0) await sleep(clock, delayMs, options.signal)
    write(text)
  }
}

/** A live session as it happens, until its recording ends or the signal is aborted. */
export async function* watch(file: RecordingFile, options: TailOptions): AsyncGenerator<string> {
  const screenplay = new Screenplay()
  for await (const frames of tail(file, options)) {
    const text = frames.flatMap(frame => screenplay.push(frame)).map(sceneText).join('')
    if (text !== '') yield text
  }
}
