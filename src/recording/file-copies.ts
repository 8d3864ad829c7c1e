// Files that were transferred in a session, as far as a copy of them was kept. A copy has a number, which its
// `file` event tells; its bytes lie in `file` frames, in their order, each behind that number. Nothing is
// made inert here: what comes out is what somebody transferred, for a file and not for a terminal.
import { SallyportError } from '../errors.ts'
import { readFrames } from './reader.ts'
import type { RecordingFile } from './reader.ts'
import { frameKind } from './recording.ts'

const numberBytes = 4

/** The bytes of one copy. @throws SallyportError `not-found` before the first of them */
export async function* fileCopy(file: RecordingFile, number: number): AsyncGenerator<Uint8Array> {
  let found = false
  for await (const { kind, body } of readFrames(file)) {
    if (kind !== frameKind.file || body.length < numberBytes || body.readUInt32BE(0) !== number) continue
    found = true
    yield body.subarray(numberBytes)
  }
  if (!found) throw new SallyportError('not-found', { detail: `no copy of a file ${number} in ${file.path}` })
}
