// A recording on another node, read as if it lay here: each way to look at it is one question. What the API
// does with it (who may, ranges, shapes, the record of the look) is the same in both cases and does not know
// which it is.
import type { ExportFormat } from '../recording/export.ts'
import type { Beginning, Piece, Wish } from '../recording/moments.ts'
import type { Scene } from '../recording/screenplay.ts'
import type { Expected } from '../recording/verify.ts'
import { jsonAnswer, lineAnswers, silent } from './ask.ts'
import type { Ask, Behalf, Peer } from './ask.ts'
import { nowAnswer, pieceAnswer, sceneAnswer, silenceMs, verdictAnswer } from './words.ts'
import type { Question, VerdictAnswer } from './words.ts'

/** Until the first piece: who wants the end of a long recording waits until it was read. */
const beginMs = 60_000
/** Verifying reads all of it; the command line tool waits three minutes. */
const readAllMs = 150_000

/** How a recording is looked at, wherever it lies. */
export interface RecordingReader {
  /** The file as it is, or the bytes from `start` to `end`, that one among them. */
  raw(session: string, part?: { start: number, end: number }): AsyncIterable<Uint8Array>
  /** What was on the screen, and when. */
  scenes(session: string): AsyncIterable<Scene>
  /** The same from the start and then as it happens, until the session ends or the signal aborts. */
  follow(session: string, signal: AbortSignal): AsyncIterable<Scene>
  /** What is now, and then what happens; for somebody who comes late, or comes again. */
  live(session: string, wish: Wish, signal: AbortSignal): AsyncIterable<Beginning | Scene>
  /** From a moment on: the screen as it was then, and what came next. */
  piece(session: string, fromMs: number, signal: AbortSignal): Promise<Piece>
  /** JSON lines of statements and events: the last `before` of those in front of the moment, then all. */
  linesFrom(session: string, fromMs: number, before: number): AsyncIterable<Uint8Array | string>
  export(session: string, format: ExportFormat): AsyncIterable<Uint8Array | string>
  /** The copy of a transferred file. Fails with `not-found` at the first piece. */
  fileCopy(session: string, number: number): AsyncIterable<Uint8Array>
  /** Against the keys of its node, and against what the store says was sealed. */
  verify(session: string, expected: Expected): Promise<VerdictAnswer>
}

export function readerOf(ask: Ask, peer: Peer, behalf: Behalf): RecordingReader {
  const pieces = (question: Question, headMs = beginMs, quietMs = beginMs): AsyncGenerator<Buffer> =>
    ask(peer, question, { ...behalf, headMs, silenceMs: quietMs })
  const told = (question: Question): AsyncGenerator<Scene> =>
    lineAnswers(peer, pieces(question, beginMs, silenceMs), sceneAnswer) as AsyncGenerator<Scene>
  return {
    raw: (session, part) => exactly(peer, pieces({ what: 'raw', session, ...part }), part),
    scenes: session => told({ what: 'scenes', session }),
    follow: session => told({ what: 'follow', session }),
    live: (session, { after, lane }) => lineAnswers(peer,
      pieces({ what: 'live', session, after, lane }, beginMs, silenceMs), nowAnswer
    ) as AsyncGenerator<Beginning | Scene>,
    linesFrom: (session, from, before) => pieces({ what: 'lines', session, from, before }),
    export: (session, format) => pieces({ what: 'export', session, format }),
    fileCopy: (session, copy) => pieces({ what: 'file', session, copy }),
    async piece(session, from) {
      const { durationMs, scenes, ...rest } = await jsonAnswer(peer,
        pieces({ what: 'piece', session, from }, readAllMs), pieceAnswer)
      return { ...rest, durationMs, scenes: scenes as Scene[] }
    },
    verify: (session, { headHash, bytes }) => jsonAnswer(peer,
      pieces({ what: 'verify', session, headHash, bytes }, readAllMs), verdictAnswer)
  }
}

/** A part has been promised to the client byte by byte: more or less of it is no answer. */
async function* exactly(
  peer: Peer, pieces: AsyncGenerator<Buffer>, part: { start: number, end: number } | undefined
): AsyncGenerator<Buffer> {
  let left = part === undefined ? Infinity : part.end - part.start + 1
  for await (const piece of pieces) {
    left -= piece.length
    if (left < 0) throw silent(peer, 'more bytes than were asked for')
    yield piece
  }
  if (part !== undefined && left > 0) throw silent(peer, 'fewer bytes than were asked for')
}
