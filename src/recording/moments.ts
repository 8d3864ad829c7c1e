// A recording from any moment on, a piece at a time: what was on the screen then, and what came next. A piece
// is small whatever the recording is. To find a moment, a reader keeps pictures of the screen on its way,
// where a reading can begin again; the next jump starts at the nearest one before, not at the start. They are
// kept in memory for the recordings that were looked into last, and read anew when they are gone.
import type { Frame } from './format.ts'
import { defaultSize } from './export.ts'
import { pictureOf } from './picture.ts'
import { readBatches } from './reader.ts'
import type { RecordingFile } from './reader.ts'
import { fileHeadBytes, frameHeadBytes } from './format.ts'
import { frameKind } from './recording.ts'
import { Screen } from './screen.ts'
import { Screenplay, mainLane, terminalProtocol } from './screenplay.ts'
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

/** What somebody gets first who comes to a session that is going on. */
export interface Beginning {
  kind: 'begin'
  /** Of the last that is in it. */
  atMs: number
  /** Scenes of the recording up to here. */
  count: number
  /** Of a terminal: the screen as it is now. */
  screen?: { columns: number, rows: number, picture: string, lane?: number }
  /** Channels that have printed. */
  lanes: number[]
  /** The last that happened, with their numbers from 1; of a terminal only events, the others are drawn. */
  lately: { number: number, scene: Scene }[]
}

export interface Wish {
  /** So many scenes have been seen. */
  after: number
  /** The channel whose screen is wanted; default: the main one. */
  lane?: number | undefined
}

/** … and where what comes next is read. */
export interface Now {
  beginning: Beginning
  screenplay: Screenplay
  offset: number
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
/** Recordings, and channels of live ones, that are known. */
const knownMax = 1_000
/** What is told of the time before somebody came. */
const latelyMax = 200
const latelyCharactersMax = 256 * 1024
const lanesMax = 1_024

interface Checkpoint {
  offset: number
  atMs: number
  columns: number
  rows: number
  picture: string
  bookmark: Bookmark
  /** Scenes before it, and channels that printed in them. */
  count: number
  lanes: readonly number[]
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
  count: number
  lanes: Set<number>
}

export interface Moments {
  /** `signal`: whoever asked has left. */
  piece(file: RecordingFile, fromMs: number, signal?: AbortSignal): Promise<Piece>
  /** The end of what is there, of a recording that is being written. */
  now(file: RecordingFile, wish: Wish, signal?: AbortSignal): Promise<Now>
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
      const of = await use(file, 'replay', () => firstLook(file))
      return await read(file, of, fromMs, signal).finally(tidy)
    },
    async now(file, wish, signal) {
      const lane = wish.lane ?? (await mainLane(file))?.lane
      const first = { lane, size: file.head()?.terminal ?? defaultSize, checkpoints: [] }
      const of = await use(file, `live ${lane ?? ''}`, () => Promise.resolve(first))
      return await readToEnd(file, of, wish.after, signal).finally(tidy)
    }
  }

  async function use(file: RecordingFile, how: string, look: () => Promise<Known>): Promise<Known> {
    const id = `${file.fileHead.id.toString('hex')} ${how}`
    const of = known.get(id) ?? await look()
    // The order is that of the last use.
    known.delete(id)
    known.set(id, of)
    return of
  }

  function tidy(): void {
    for (const oldest of known.keys()) {
      if ((kept() <= keptCharactersMax && known.size <= knownMax) || known.size === 1) break
      known.delete(oldest)
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
      for (const scene of stage.screenplay.push(frame)) {
        stage.count++
        taking.take(scene)
      }
      if (!taking.begun) keepPicture(known, stage, frame, step)
    }
  }
  if (!closed) for (const scene of stage.screenplay.end()) taking.take(scene)
  return taking.piece(true)
}

/**
 * Reads on to the last frame that is there. Scenes are those of all channels, as whoever follows counts them;
 * drawn are those of one.
 */
async function readToEnd(
  file: RecordingFile, known: Known, after: number, signal: AbortSignal | undefined
): Promise<Now> {
  const isTerminal = file.head()?.protocol === terminalProtocol
  // Whoever has seen something is told of everything since then.
  const begin = known.checkpoints.findLast(({ count }) => after === 0 || count <= after)
  const stage = stageAt({ ...known, lane: undefined }, begin)
  const step = Math.max(stepBytesMin, Math.ceil(file.bytes / picturesMax))
  const lately = new Lately()
  let offset = begin?.offset ?? fileHeadBytes
  let atMs = begin?.atMs ?? 0
  for await (const frames of readBatches(file, { fromOffset: begin?.offset })) {
    signal?.throwIfAborted()
    for (const frame of frames) {
      for (const scene of stage.screenplay.push(frame)) {
        stage.count++
        atMs = scene.atMs
        if (isTerminal) drawLive(stage, scene, known.lane)
        const isTold = stage.count > after && (!isTerminal || scene.kind === 'event')
        if (isTold) lately.take(stage.count, scene)
      }
      offset = frame.offset + frameHeadBytes + frame.body.length
      if (isTerminal) keepPicture(known, stage, frame, step)
    }
  }
  const { count, lanes, columns, rows, screen, screenplay } = stage
  const lane = known.lane === undefined ? {} : { lane: known.lane }
  const drawn = isTerminal ? { screen: { columns, rows, picture: pictureOf(screen.state()), ...lane } } : {}
  return {
    beginning: { kind: 'begin', atMs, count, lanes: [...lanes], lately: lately.all, ...drawn },
    screenplay, offset
  }
}

/** Of one channel, and what is of none; of all while nobody knows which channel it will be. */
function drawLive(stage: Stage, scene: Scene, lane: number | undefined): void {
  if (scene.kind !== 'text' && scene.kind !== 'resize') return
  const of = scene.lane
  if (scene.kind === 'text' && of !== undefined && stage.lanes.size < lanesMax) stage.lanes.add(of)
  if (lane === undefined || of === undefined || lane === of) draw(stage, scene)
}

/** The last scenes, as many as are told. */
class Lately {
  readonly #scenes: { number: number, scene: Scene }[] = []
  #characters = 0

  take(number: number, scene: Scene): void {
    this.#scenes.push({ number, scene })
    this.#characters += sizeOf(scene)
    while (this.#scenes.length > latelyMax || this.#characters > latelyCharactersMax) {
      this.#characters -= sizeOf(this.#scenes.shift()!.scene)
    }
  }

  get all(): { number: number, scene: Scene }[] {
    return this.#scenes
  }
}

function sizeOf(scene: Scene): number {
  return scene.kind === 'resize' ? 0 : scene.text.length
}

function stageAt({ lane, size }: Known, begin: Checkpoint | undefined): Stage {
  const { columns, rows } = begin ?? size
  const screen = new Screen(columns, rows, () => undefined, { styled: true })
  if (begin !== undefined) screen.write(begin.picture, { atMs: 0, offset: 0 })
  const screenplay = new Screenplay({ lane, from: begin?.bookmark })
  return { screenplay, screen, columns, rows, count: begin?.count ?? 0, lanes: new Set(begin?.lanes) }
}

function draw(stage: Stage, scene: Scene): void {
  if (scene.kind === 'text') stage.screen.write(scene.text, { atMs: scene.atMs, offset: 0 })
  else if (scene.kind === 'resize') {
    stage.screen.resize(scene.columns, scene.rows)
    stage.columns = scene.columns
    stage.rows = scene.rows
  }
}

/** After a frame, when the last picture is far enough behind. */
function keepPicture({ checkpoints }: Known, stage: Stage, frame: Frame, step: number): void {
  const offset = frame.offset + frameHeadBytes + frame.body.length
  if (offset - (checkpoints.at(-1)?.offset ?? 0) < step || checkpoints.length >= picturesMax) return
  const bookmark = stage.screenplay.bookmark()
  if (bookmark === undefined) return
  const picture = pictureOf(stage.screen.state())
  if (picture.length > pictureCharactersMax) return
  const { columns, rows, count, lanes } = stage
  const atMs = frame.atMicroseconds / 1000
  checkpoints.push({ offset, atMs, columns, rows, picture, bookmark, count, lanes: [...lanes] })
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
    if (scene.atMs <= this.#fromMs) return draw(this.#stage, scene)
    this.#picture ??= this.#drawn()
    this.#scenes.push(scene)
    this.#characters += sizeOf(scene)
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

  #drawn(): { picture: string, columns: number, rows: number } {
    const { screen, columns, rows } = this.#stage
    return { picture: pictureOf(screen.state()), columns, rows }
  }
}
