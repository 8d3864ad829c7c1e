// Joins the recordings folder to the API: what an auditor asks for by session, answered from its file. Every
// answer is a stream, so that a recording of hours costs no more memory than one of seconds.
import { createReadStream } from 'node:fs'
import type { RecordingPort } from '../api/ports-records.ts'
import type { Clock } from '../clock.ts'
import { openRecording, search } from '../recording/catalog.ts'
import { exportAs, linesFrom } from '../recording/export.ts'
import { fileCopy } from '../recording/file-copies.ts'
import { createMoments } from '../recording/moments.ts'
import type { Now } from '../recording/moments.ts'
import { locate } from '../recording/paths.ts'
import { tail } from '../recording/reader.ts'
import type { RecordingFile } from '../recording/reader.ts'
import { Screenplay, scenes } from '../recording/screenplay.ts'
import type { Scene } from '../recording/screenplay.ts'
import type { Rules } from './rules.ts'
import { whatIf } from './what-if.ts'
import { readPublicKeys, verify } from '../recording/verify.ts'

export function createEvidence(
  dir: string, clock: Clock, publicPem: string, rules: Pick<Rules, 'parseSql'>
): RecordingPort {
  const keys = readPublicKeys(publicPem)
  const moments = createMoments()
  const pathOf = (session: string): string => {
    const file = openRecording(dir, session)
    file.close()
    return file.path
  }
  return {
    publicKey: () => publicPem,
    has: session => locate(dir, session) !== undefined,
    raw: (session, part) => bytesOf(pathOf(session), part),
    scenes: session => closing(openRecording(dir, session), file => scenes(file)),
    follow: (session, signal) => closing(openRecording(dir, session), file => followed(file, clock, signal)),
    live: (session, wish, signal) => closing(openRecording(dir, session), async function* (file) {
      const now = await moments.now(file, wish, signal)
      yield now.beginning
      yield* followed(file, clock, signal, now)
    }),
    export: (session, format) => closing(openRecording(dir, session), file => exportAs(file, format)),
    async piece(session, fromMs, signal) {
      using file = openRecording(dir, session)
      return await moments.piece(file, fromMs, signal)
    },
    linesFrom: (session, fromMs, before) =>
      closing(openRecording(dir, session), file => linesFrom(file, fromMs, before)),
    fileCopy: (session, number) => closing(openRecording(dir, session), file => fileCopy(file, number)),
    verify: async (session, expected) => verify(pathOf(session), keys, { session, ...expected }),
    whatIf: wanted => whatIf(dir, rules.parseSql, wanted),
    search: ({ query, limit, session, signal }) =>
      search({ dir, query, hitsMax: limit, signal, ...session === undefined ? {} : { filters: { session } } })
  }
}

/** Opened when the first piece is asked for: nobody has to close what nobody reads. */
async function* bytesOf(path: string, part?: { start: number, end: number }): AsyncGenerator<Uint8Array> {
  yield* createReadStream(path, part ?? {}) as AsyncIterable<Uint8Array>
}

async function* closing<T>(
  file: RecordingFile, read: (file: RecordingFile) => AsyncIterable<T>
): AsyncGenerator<T> {
  try {
    yield* read(file)
  } finally {
    file.close()
  }
}

/** From its start, or from where somebody has read to. */
async function* followed(
  file: RecordingFile, clock: Clock, signal: AbortSignal, from: Partial<Now> = {}
): AsyncGenerator<Scene> {
  const { screenplay = new Screenplay(), offset: fromOffset } = from
  for await (const frames of tail(file, { clock, signal, fromOffset })) {
    for (const frame of frames) yield* screenplay.push(frame)
  }
}
