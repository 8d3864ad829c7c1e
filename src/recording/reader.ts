// Reads recordings, finished, broken off or still being written, with bounded memory: one chunk and one
// frame. A reader believes nothing: it opens regular files only, never through a link, takes frames from the
// scanner, which does not throw on damage, and reports what is behind the last good frame. Whether the bytes
// are genuine is asked of verify.ts.
import { closeSync, fstatSync, read, readSync } from 'node:fs'
import { promisify } from 'node:util'
import { sleep } from '../clock.ts'
import type { Clock } from '../clock.ts'
import { SallyportError } from '../errors.ts'
import {
  decodeFileHead, decodeSeal, fileHeadBytes, frameHeadBytes, readFrameHead, sealFrameBytes
} from './format.ts'
import type { FileHead, Frame, Seal } from './format.ts'
import { openForReading } from './paths.ts'
import { frameKind } from './recording.ts'
import type { Ending, RecordingHead } from './recording.ts'
import { FrameScanner } from './scanner.ts'
import type { Tail } from './scanner.ts'

const readPooled = promisify(read)

/** Large enough that the calls do not count, small enough for many readers at once. */
const chunkBytes = 256 * 1024
/** How often a live recording is looked at (contract: 200 ms). */
const tailDelayMs = 150

/** What the last frame but one says: why the session ended, and what recovery did. */
export interface CloseNote extends Ending {
  endedAt?: string | undefined
  /** The size limit was reached: the end of the session is not in the recording. */
  full?: boolean | undefined
  /** Recovery: bytes up to the last checkpoint that the recorder itself had signed. */
  signedBytes?: number | undefined
  /** Recovery: bytes of a torn tail that were cut off. */
  tornBytes?: number | undefined
}

/** JSON of our own frames; a value that is no object (damage) becomes an empty one. */
export function parseBody(body: Buffer): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(body.toString('utf8'))
    return typeof value === 'object' && value !== null ? value as Record<string, unknown> : {}
  } catch {
    return {}
  }
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

function count(value: unknown): number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0 ? value : 0
}

/** The head from an open frame. Whatever the bytes are, every field is of its type. */
export function parseHead(body: Buffer): RecordingHead {
  const value = parseBody(body)
  const head: RecordingHead = {
    session: text(value['session']),
    user: text(value['user']),
    credential: text(value['credential']),
    target: text(value['target']),
    protocol: text(value['protocol']),
    address: text(value['address']),
    startedAt: text(value['startedAt']),
    node: text(value['node'])
  }
  if (typeof value['database'] === 'string') head.database = value['database']
  const size = value['terminal'] as { columns?: unknown, rows?: unknown } | undefined
  const [columns, rows] = [count(size?.columns), count(size?.rows)]
  if (columns > 0 && rows > 0) head.terminal = { columns, rows }
  return head
}

export function parseClose(body: Buffer): CloseNote {
  const value = parseBody(body)
  const how = value['how']
  return {
    how: how === 'ended' || how === 'cut' ? how : 'interrupted',
    reason: text(value['reason']),
    endedAt: typeof value['endedAt'] === 'string' ? value['endedAt'] : undefined,
    full: value['full'] === true ? true : undefined,
    signedBytes: typeof value['signedBytes'] === 'number' ? value['signedBytes'] : undefined,
    tornBytes: typeof value['tornBytes'] === 'number' ? value['tornBytes'] : undefined
  }
}

/** An open recording file. Close it. */
export class RecordingFile {
  readonly path: string
  readonly fileHead: FileHead
  readonly #descriptor: number
  #open = true

  /** @throws SallyportError `not-found`, or `invalid` when it is not a recording */
  constructor(path: string) {
    this.path = path
    try {
      this.#descriptor = openForReading(path)
    } catch (thrown) {
      throw new SallyportError('not-found', { detail: `cannot open ${path}`, cause: thrown })
    }
    const head = Buffer.alloc(fileHeadBytes)
    const fileHead = fstatSync(this.#descriptor).isFile() && this.readAt(head, 0) === fileHeadBytes
      ? decodeFileHead(head)
      : undefined
    if (fileHead === undefined) {
      this.close()
      throw new SallyportError('invalid', { detail: `${path} is not a recording of this version` })
    }
    this.fileHead = fileHead
  }

  get bytes(): number {
    return fstatSync(this.#descriptor).size
  }

  /** Reads at once; for the few small pieces. Returns the number of bytes. */
  readAt(target: Buffer, position: number): number {
    let have = 0
    while (have < target.length) {
      const got = readSync(this.#descriptor, target, have, target.length - have, position + have)
      if (got === 0) break
      have += got
    }
    return have
  }

  /** Reads up to the length of `target` through the pool; 0 at the end of the file. */
  async read(target: Buffer, position: number): Promise<number> {
    const { bytesRead } = await readPooled(this.#descriptor, target, 0, target.length, position)
    return bytesRead
  }

  /** The frame at this offset, when there is one. */
  frameAt(offset: number): Frame | undefined {
    if (offset < fileHeadBytes) return undefined
    const head = Buffer.alloc(frameHeadBytes)
    if (this.readAt(head, offset) < frameHeadBytes) return undefined
    const found = readFrameHead(head, 0)
    if (found === undefined) return undefined
    const body = Buffer.alloc(found.length)
    if (this.readAt(body, offset + frameHeadBytes) < found.length) return undefined
    return { offset, kind: found.kind, lane: found.lane, atMicroseconds: found.atMicroseconds, body }
  }

  /** Who, what, when; undefined when the file breaks off before that. */
  head(): RecordingHead | undefined {
    const frame = this.frameAt(fileHeadBytes)
    return frame?.kind === frameKind.open ? parseHead(frame.body) : undefined
  }

  /** The final seal, looked up at the end of the file (not verified), and the close frame that it names. */
  ending(): { seal: Seal, close: CloseNote, durationMs: number } | undefined {
    const frame = this.frameAt(this.bytes - sealFrameBytes)
    const seal = frame?.kind === frameKind.seal ? decodeSeal(frame.body) : undefined
    if (seal === undefined || !seal.final) return undefined
    const close = this.frameAt(seal.closeOffset)
    if (close?.kind !== frameKind.close) return undefined
    return { seal, close: parseClose(close.body), durationMs: close.atMicroseconds / 1000 }
  }

  close(): void {
    if (!this.#open) return
    this.#open = false
    closeSync(this.#descriptor)
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

export interface ReadOptions {
  /** Offset of a frame to begin at (from the index, or a frame seen earlier); default: the first. */
  fromOffset?: number | undefined
  /** Called at the end with what is behind the last good frame. */
  onTail?: ((tail: Tail) => void) | undefined
}

/** The frames in lots, as they come from the disk: for those who count nanoseconds. Bodies stay valid. */
export async function* readBatches(file: RecordingFile, options: ReadOptions = {}): AsyncGenerator<Frame[]> {
  const scanner = new FrameScanner(options.fromOffset ?? fileHeadBytes)
  let position = options.fromOffset ?? fileHeadBytes
  while (true) {
    const chunk = Buffer.allocUnsafeSlow(chunkBytes)
    const length = await file.read(chunk, position)
    if (length === 0) break
    position += length
    const frames = scanner.feed(chunk.subarray(0, length))
    if (frames.length > 0) yield frames
  }
  options.onTail?.(scanner.tail())
}

/** Frame by frame, from the start or an offset, to the last good one. */
export async function* readFrames(file: RecordingFile, options: ReadOptions = {}): AsyncGenerator<Frame> {
  for await (const frames of readBatches(file, options)) {
    for (const frame of frames) yield frame
  }
}

export interface TailOptions {
  clock: Clock
  fromOffset?: number | undefined
  /** Ends the following: the watcher left, or the session is known to be over. */
  signal?: AbortSignal | undefined
}

/**
 * Follows a recording that is being written: yields lots of frames as they reach the file, and ends behind
 * the final seal or when the signal is aborted. It polls: not every network disk has file events.
 */
export async function* tail(file: RecordingFile, options: TailOptions): AsyncGenerator<Frame[]> {
  const { clock, signal } = options
  const scanner = new FrameScanner(options.fromOffset ?? fileHeadBytes)
  let position = options.fromOffset ?? fileHeadBytes
  while (signal?.aborted !== true && !scanner.broken) {
    const chunk = Buffer.allocUnsafeSlow(chunkBytes)
    const length = await file.read(chunk, position)
    position += length
    const frames = scanner.feed(chunk.subarray(0, length))
    if (frames.length > 0) yield frames
    const last = frames.at(-1)
    if (last?.kind === frameKind.seal && decodeSeal(last.body)?.final === true) return
    if (length > 0) continue
    // Recovery cuts torn bytes off: then what was half read is not going to be completed.
    if (file.bytes < position) return
    try {
      await sleep(clock, tailDelayMs, signal)
    } catch {
      return
    }
  }
}
