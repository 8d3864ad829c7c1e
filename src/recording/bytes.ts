// The recording of a TCP target for people: bytes of a protocol that nobody here reads. A replay shows them
// as a dump with direction, place and time; a search looks into the runs of printable text among them. Both
// are safe to print whatever the bytes are.
import type { Frame } from './format.ts'
import { frameKind } from './recording.ts'

/** The protocol of these recordings, as their head says it. */
export const bytesProtocol = 'tcp'

/** Of one chunk a replay shows so much; exports have all of it. */
const shownBytesMax = 4096
const rowBytes = 16
/** Shorter runs of letters are chance. */
const runCharactersMin = 4
/** A run without an end is handed out in pieces of this length. */
const runCharactersMax = 16 * 1024
/** A recording with more connections at once than this is hostile; the others share one place. */
const streamsMax = 1024

// What is not text, in any script; U+FFFD stands for bytes that are no UTF-8.
const between = /[^\x20-\x7e\u00a0-\ud7ff\uf900-\ufdcf\ufdf0-\ufffc]+/

export function isBytes({ kind }: Frame): boolean {
  return kind === frameKind.input || kind === frameKind.output
}

/** A stream is one direction of one connection. */
function streamOf({ kind, lane }: Frame): string {
  return `${kind === frameKind.input ? '>' : '<'} ${lane}`
}

/** Bounds what a hostile recording could make us keep. */
function placeIn(known: ReadonlyMap<string, unknown>, stream: string): string {
  return known.has(stream) || known.size < streamsMax ? stream : ''
}

/** Feed it the frames in order. */
export class ByteDump {
  /** Bytes so far, by stream. */
  readonly #offsets = new Map<string, number>()

  /** Rows `> 1  00000010  53 45 …  SE…`: direction, connection, place in the stream. */
  rows(frame: Frame): string {
    const stream = streamOf(frame)
    const place = placeIn(this.#offsets, stream)
    const start = this.#offsets.get(place) ?? 0
    this.#offsets.set(place, start + frame.body.length)
    const shown = frame.body.subarray(0, shownBytesMax)
    const rows: string[] = []
    for (let at = 0; at < shown.length; at += rowBytes) {
      rows.push(`${stream}  ${row(start + at, shown.subarray(at, at + rowBytes))}\n`)
    }
    const more = frame.body.length - shown.length
    if (more > 0) rows.push(`${stream}  … ${more} bytes more\n`)
    return rows.join('')
  }
}

function row(offset: number, bytes: Buffer): string {
  const digits = bytes.toString('hex').replace(/../g, '$& ').padEnd(rowBytes * 3)
  const text = bytes.toString('latin1').replace(/[^\x20-\x7e]/g, '.')
  return `${offset.toString(16).padStart(8, '0')}  ${digits} ${text}`
}

/** A run of printable text, and the frame that it began in. */
export interface Run {
  frame: Pick<Frame, 'atMicroseconds' | 'lane' | 'offset'>
  direction: 'input' | 'output'
  text: string
}

/** Feed it the frames in order. */
export class TextRuns {
  readonly #open = new Map<string, Run>()

  push(frame: Frame): Run[] {
    const { atMicroseconds, lane, offset, kind } = frame
    const direction = kind === frameKind.input ? 'input' : 'output'
    const place = placeIn(this.#open, streamOf(frame))
    const begun = this.#open.get(place)
    const here = { atMicroseconds, lane, offset }
    const pieces = ((begun?.text ?? '') + frame.body.toString('utf8')).split(between)
    const runs: Run[] = pieces.map((text, at) =>
      ({ frame: at === 0 ? begun?.frame ?? here : here, direction, text }))
    const last = runs.at(-1)
    if (last !== undefined && last.text.length < runCharactersMax) {
      runs.pop()
      if (last.text === '') this.#open.delete(place)
      else this.#open.set(place, last)
    } else {
      this.#open.delete(place)
    }
    return runs.flatMap(pieced)
  }

  /** What was open when a connection ended; without a lane, when the recording did. */
  end(lane?: number): Run[] {
    const ended: Run[] = []
    for (const [stream, run] of this.#open) {
      if (lane !== undefined && run.frame.lane !== lane) continue
      this.#open.delete(stream)
      ended.push(...pieced(run))
    }
    return ended
  }
}

function pieced({ text, ...place }: Run): Run[] {
  const pieces: Run[] = []
  for (let at = 0; at < text.length; at += runCharactersMax) {
    const piece = text.slice(at, at + runCharactersMax)
    if (piece.trim().length >= runCharactersMin) pieces.push({ ...place, text: piece })
  }
  return pieces
}
