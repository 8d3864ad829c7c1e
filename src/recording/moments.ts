// A recording from any moment on, a piece at a time: what was on the screen then, and what came next. A piece
// is small whatever the recording is. To find a moment, a reader keeps pictures of the screen on its way,
// where a reading can begin again; the next jump starts at the nearest one before, not at the start. They are
// kept in memory for the recordings that were looked into last, and read anew when they are gone.
import type { Frame } from './format.ts'
import { defaultSize } from './export.ts'
import { pictureOf } from './picture.ts'
import { readBatches } from './reader.ts'
import type { RecordingFile } from './reader.ts'
import { frameHeadBytes } from './format.ts'
import { frameKind } from './recording.ts'
import { Screen } from './screen.ts'
import { Screenplay, mainLane } from './screenplay.ts'
import type { Bookmark, Scene } from './screenplay.ts'

export interface Piece {
  /** Of the whole; undefined while nobody knows (it runs, or it broke off). */
  durationMs: number | undefined
  columns: number
  rows: number
  /** Draws the screen of the moment that was asked for, on an empty terminal of that size. */
  picture: string
  /** What came after it, in order. */
  scenes: Scene[]
  /** Up to here, this moment included, everything is in this piece. */
  untilMs: number
  /** Nothing comes after it. */
  last: boolean
}

/** A piece ends with the moment in which it has become so large … */
const pieceCharactersMax = 128 * 1024
const pieceScenesMax = 2_000
/** … and within a moment that has no end. */
const momentCharactersMax = 4 * 1024 * 1024
/** From picture to picture at least: a jump reads so much at most, and a piece. */
const stepBytesMin = 256 * 1024
const picturesMax = 1024
/** A screen of 500 by 500 cells in all colours is hostile; without its picture a jump takes longer. */
const pictureCharactersMax = 256 * 1024
/** All pictures that are kept, of all recordings. */
const keptCharactersMax = 16 * 1024 * 1024

interface Checkpoint {
  offset: number
  atMs: number
  columns: number
  rows: number
  picture: string
  bookmark: Bookmark
}

interface Known {
  lane: number | undefined
  size: { columns: number, rows: number }
  checkpoints: Checkpoint[]
}

/** One reading: the screen as it stands, and where in the file. */
interface Stage {
  screenplay: Screenplay
  screen: Screen
  columns: number
  rows: number
}

export interface Moments {
  /** `signal`: whoever asked has left. */
  piece(file: RecordingFile, fromMs: number, signal?: AbortSignal): Promise<Piece>
  /** Characters of pictures that are kept. */
  readonly kept: number
}

export function createMoments(): Moments {
  // By the file's own id: the same path may become another file.
  const known = new Map<string, Known>()
  const kept = (): number => [...known.values()].flatMap(({ checkpoints }) => checkpoints)
    .reduce((sum, { picture }) => sum + picture.length, 0)
  return {
    get kept() {
      return kept()
    },
    async piece(file, fromMs, signal) {
      const id = file.fileHead.id.toString('hex')
      const of = known.get(id) ?? await firstLook(file)
      // The order is that of the last use.
      known.delete(id)
      known.set(id, of)
      const piece = await read(file, of, fromMs, signal)
      for (const oldest of known.keys()) {
        if (kept() <= keptCharactersMax || known.size === 1) break
        known.delete(oldest)
      }
      return piece
    }
  }
}

async function firstLook(file: RecordingFile): Promise<Known> {
  const main = await mainLane(file)
  const size = file.head()?.terminal ?? main?.size ?? defaultSize
  return { lane: main?.lane, size, checkpoints: [] }
}

async function read(
  file: RecordingFile, known: Known, fromMs: number, signal: AbortSignal | undefined
): Promise<Piece> {
  const begin = known.checkpoints.findLast(({ atMs }) => atMs <= fromMs)
  const stage = stageAt(known, begin)
  const taking = new Taking(stage, fromMs, file.ending()?.durationMs)
  const step = Math.max(stepBytesMin, Math.ceil(file.bytes / picturesMax))
  let closed = false
  for await (const frames of readBatches(file, { fromOffset: begin?.offset })) {
    signal?.throwIfAborted()
    for (const frame of frames) {
      closed ||= frame.kind === frameKind.close
      if (taking.full(frame.atMicroseconds / 1000)) return taking.piece(false)
      for (const scene of stage.screenplay.push(frame)) taking.take(scene)
      if (!taking.begun) keepPicture(known, stage, frame, step)
    }
  }
  if (!closed) for (const scene of stage.screenplay.end()) taking.take(scene)
  return taking.piece(true)
}

function stageAt({ lane, size }: Known, begin: Checkpoint | undefined): Stage {
  const { columns, rows } = begin ?? size
  const screen = new Screen(columns, rows, () => undefined, { styled: true })
  if (begin !== undefined) screen.write(begin.picture, { atMs: 0, offset: 0 })
  return { screenplay: new Screenplay({ lane, from: begin?.bookmark }), screen, columns, rows }
}

/** After a frame, when the last picture is far enough behind. */
function keepPicture({ checkpoints }: Known, stage: Stage, frame: Frame, step: number): void {
  const offset = frame.offset + frameHeadBytes + frame.body.length
  if (offset - (checkpoints.at(-1)?.offset ?? 0) < step || checkpoints.length >= picturesMax) return
  const bookmark = stage.screenplay.bookmark()
  if (bookmark === undefined) return
  const picture = pictureOf(stage.screen.state())
  if (picture.length > pictureCharactersMax) return
  const { columns, rows } = stage
  checkpoints.push({ offset, atMs: frame.atMicroseconds / 1000, columns, rows, picture, bookmark })
}

/** Draws what is before the moment, and takes what is after it. */
class Taking {
  readonly #stage: Stage
  readonly #fromMs: number
  readonly #durationMs: number | undefined
  readonly #scenes: Scene[] = []
  #characters = 0
  #untilMs: number
  #picture: { picture: string, columns: number, rows: number } | undefined

  constructor(stage: Stage, fromMs: number, durationMs: number | undefined) {
    this.#stage = stage
    this.#fromMs = fromMs
    this.#durationMs = durationMs
    this.#untilMs = fromMs
  }

  get begun(): boolean {
    return this.#picture !== undefined
  }

  take(scene: Scene): void {
    if (scene.atMs <= this.#fromMs) return this.#draw(scene)
    this.#picture ??= this.#drawn()
    this.#scenes.push(scene)
    this.#characters += scene.kind === 'resize' ? 0 : scene.text.length
    this.#untilMs = scene.atMs
  }

  /** True when a scene of this time would be too much: what belongs to one moment stays together. */
  full(atMs: number): boolean {
    if (this.#characters > momentCharactersMax) return true
    const large = this.#characters > pieceCharactersMax || this.#scenes.length > pieceScenesMax
    return large && atMs > this.#untilMs
  }

  piece(last: boolean): Piece {
    const durationMs = this.#durationMs ?? (last ? this.#untilMs : undefined)
    const untilMs = this.#untilMs
    return { durationMs, ...this.#picture ?? this.#drawn(), scenes: this.#scenes, untilMs, last }
  }

  #draw(scene: Scene): void {
    const { screen } = this.#stage
    if (scene.kind === 'text') screen.write(scene.text, { atMs: scene.atMs, offset: 0 })
    else if (scene.kind === 'resize') {
      screen.resize(scene.columns, scene.rows)
      this.#stage.columns = scene.columns
      this.#stage.rows = scene.rows
    }
  }

  #drawn(): { picture: string, columns: number, rows: number } {
    const { screen, columns, rows } = this.#stage
    return { picture: pictureOf(screen.state()), columns, rows }
  }
}
