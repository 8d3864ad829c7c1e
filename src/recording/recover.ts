// Seals what a crash left behind (F5). A recording that was open when its process died is read to its last
// whole frame; a torn tail is set aside; a close frame (`interrupted`) and the final seal are added. The
// close frame says how much had been signed while the session ran (`signedBytes`): the rest is vouched for by
// recovery only. What must never happen: that recovery puts a signature under a file that somebody shortened.
// Therefore a file whose chain does not fit is left as it is, and so is one that the store knows to have been
// sealed already.
import { createHash } from 'node:crypto'
import type { Hash } from 'node:crypto'
import {
  closeSync, constants, existsSync, fsyncSync, ftruncateSync, openSync, renameSync, statSync
} from 'node:fs'
import type { Clock } from '../clock.ts'
import { SallyportError } from '../errors.ts'
import { writeAll } from './disk.ts'
import {
  decodeSeal, encodeFileHead, encodeFrame, encodeSealFrame, fileHeadBytes, frameHeadBytes, sealBodyBytes,
  sealFrameBytes
} from './format.ts'
import type { Frame } from './format.ts'
import {
  allRecordings, forgetOpen, notedPath, openSessions, resolveBeneath, sessionOf, tornSuffix
} from './paths.ts'
import { RecordingFile, parseClose, readBatches } from './reader.ts'
import type { CloseNote } from './reader.ts'
import { frameKind } from './recording.ts'
import type { Ending, SealSummary, Signer } from './recording.ts'
import type { Tail } from './scanner.ts'

/**
 * What the store knows of a session: `live` on some node (left alone); `unfinished`: its node is gone;
 * `sealed`: its seal is in the audit log, so that a file without one was tampered with.
 */
export type Fate = 'live' | 'unfinished' | 'sealed'

export interface Recovered {
  session: string
  /**
   * `sealed`: was complete already, only the note was left. `interrupted`: sealed now. `damaged`: left as it
   * is, raise an alarm. `missing`: there is no file. `live`: left alone.
   */
  outcome: 'sealed' | 'interrupted' | 'damaged' | 'missing' | 'live'
  /** For the audit log, with `sealed` and `interrupted`. */
  summary: SealSummary | undefined
  /** Bytes that a crash had torn; they are kept in `<session>.torn`. */
  tornBytes: number
  detail: string | undefined
}

export interface RecoverySetting {
  dir: string
  signer: Signer
  clock: Clock
  fate: (session: string) => Fate | Promise<Fate>
}

/** What the torn tail is read in. */
const chunkBytes = 1024 * 1024

interface Scan {
  /** The chain fits as far as it goes. */
  sound: boolean
  frames: number
  lastKind: number
  lastOffset: number
  lastAt: number
  signedBytes: number
  /** Over the open block, up to `tail.offset`. */
  hash: Hash
  close: CloseNote | undefined
  tail: Tail
}

export async function recoverRecordings(setting: RecoverySetting): Promise<Recovered[]> {
  const results: Recovered[] = []
  for (const session of openSessions(setting.dir)) {
    results.push(await recoverOne(setting, session, notedPath(setting.dir, session)))
  }
  return results
}

/**
 * Looks at every file, for a folder that was restored or copied without its notes. Slow: opens each of them.
 */
export async function recoverEverything(setting: RecoverySetting): Promise<Recovered[]> {
  const results = await recoverRecordings(setting)
  const seen = new Set(results.map(result => result.session))
  for (const path of allRecordings(setting.dir)) {
    const session = sessionOf(path)
    if (session === undefined || seen.has(session) || isSealed(setting.dir, path)) continue
    results.push(await recoverOne(setting, session, path))
  }
  return results
}

function isThere(dir: string, path: string): boolean {
  try {
    return existsSync(resolveBeneath(dir, path))
  } catch (thrown) {
    if (thrown instanceof SallyportError && thrown.code === 'not-found') return false
    throw thrown
  }
}

function isSealed(dir: string, path: string): boolean {
  try {
    using file = new RecordingFile(resolveBeneath(dir, path))
    return file.ending() !== undefined
  } catch {
    return false
  }
}

async function recoverOne(
  setting: RecoverySetting, session: string, path: string | undefined
): Promise<Recovered> {
  const result: Recovered = { session, outcome: 'live', summary: undefined, tornBytes: 0, detail: undefined }
  const fate = await setting.fate(session)
  if (fate === 'live') return result
  try {
    if (path === undefined || !isThere(setting.dir, path)) {
      forgetOpen(setting.dir, session)
      return { ...result, outcome: 'missing', detail: 'the process died before the file was made' }
    }
    const recovered = await recoverFile(setting, result, path, fate)
    if (recovered.outcome !== 'damaged') forgetOpen(setting.dir, session)
    return recovered
  } catch (thrown) {
    const detail = thrown instanceof Error ? thrown.message : String(thrown)
    return { ...result, outcome: 'damaged', detail }
  }
}

async function recoverFile(
  setting: RecoverySetting, result: Recovered, path: string, fate: Fate
): Promise<Recovered> {
  const full = resolveBeneath(setting.dir, path)
  const damaged = (detail: string): Recovered => ({ ...result, outcome: 'damaged', detail })
  if (statSync(full).size < fileHeadBytes + frameHeadBytes) return neverBegan(result, full)
  using file = new RecordingFile(full)
  const done = file.ending()
  if (done !== undefined) {
    const { seal, close } = done
    const ending = { how: close.how, reason: close.reason }
    const { session } = result
    const [bytes, frames, headHash] = [file.bytes, seal.frames + 1, seal.head.toString('hex')]
    const summary = { session, sealed: true, path, bytes, frames, headHash, ending }
    return { ...result, outcome: 'sealed', summary }
  }
  if (fate === 'sealed') return damaged('it was sealed, and the seal is gone')
  const scan = await scanFile(file)
  if (!scan.sound) return damaged('the hash chain does not fit')
  if (scan.frames === 0 && scan.tail.kind !== 'garbage') return neverBegan(result, full)
  if (scan.frames === 0) return damaged('the first frame cannot be read')
  if (await holdsSeal(file, scan.tail.offset)) {
    return damaged(`damage at ${scan.tail.offset}, genuine frames behind it`)
  }
  const tornBytes = await setAside(file, full, scan.tail)
  const unsealed = { session: result.session, path, full, id: file.fileHead.id }
  const summary = finish(setting, unsealed, scan, tornBytes)
  return { ...result, outcome: 'interrupted', summary, tornBytes }
}

/** `create` never returned: nothing of the session happened. The file is kept under another name. */
function neverBegan(result: Recovered, full: string): Recovered {
  renameSync(full, full.replace(/\.spr$/, tornSuffix))
  return { ...result, outcome: 'missing', detail: 'the process died before the recording had begun' }
}

/**
 * Frames, chain and tail in one pass. Signatures are not checked here: `verify` does, with the public key.
 */
async function scanFile(file: RecordingFile): Promise<Scan> {
  const scan: Scan = {
    sound: true, frames: 0, lastKind: 0, lastOffset: 0, lastAt: 0, signedBytes: 0, close: undefined,
    hash: createHash('sha256').update(encodeFileHead(file.fileHead.id)),
    tail: { offset: fileHeadBytes, bytes: 0, kind: 'none' }
  }
  for await (const frames of readBatches(file, { onTail: tail => { scan.tail = tail } })) {
    for (const frame of frames) {
      takeFrame(scan, frame)
      if (!scan.sound) return scan
    }
  }
  return scan
}

function takeFrame(scan: Scan, frame: Frame): void {
  if ((scan.frames === 0) !== (frame.kind === frameKind.open)) scan.sound = false
  if (frame.kind === frameKind.seal) {
    const seal = decodeSeal(frame.body)
    if (seal === undefined || !seal.head.equals(scan.hash.digest())) scan.sound = false
    scan.hash = createHash('sha256')
    scan.signedBytes = frame.offset + sealFrameBytes
  } else if (frame.kind === frameKind.close) scan.close = parseClose(frame.body)
  scan.hash.update(encodeFrame(frame.kind, frame.lane, frame.atMicroseconds, frame.body))
  scan.frames++
  scan.lastKind = frame.kind
  scan.lastOffset = frame.offset
  scan.lastAt = frame.atMicroseconds
}

/**
 * True when a seal lies behind the last good frame, at the place that it names. What a crash tears was never
 * sealed; a hand or a bad sector that hits an older byte leaves genuine seals behind it. Then nothing is cut.
 */
async function holdsSeal(file: RecordingFile, offset: number): Promise<boolean> {
  const start = Buffer.from([0, 0, 0, sealBodyBytes, frameKind.seal])
  const chunk = Buffer.allocUnsafeSlow(chunkBytes)
  for (let position = offset; ; position += chunk.length - sealFrameBytes) {
    const bytes = chunk.subarray(0, await file.read(chunk, position))
    for (let at = bytes.indexOf(start); at >= 0; at = bytes.indexOf(start, at + 1)) {
      if (at + sealFrameBytes > bytes.length) break
      const seal = decodeSeal(bytes.subarray(at + frameHeadBytes, at + sealFrameBytes))
      if (seal?.offset === position + at) return true
    }
    if (bytes.length < chunk.length) return false
  }
}

/** Keeps what is torn in a file of its own, before it is cut off. Returns its length. Zeros are not kept. */
async function setAside(file: RecordingFile, full: string, tail: Tail): Promise<number> {
  const kept = full.replace(/\.spr$/, tornSuffix)
  // A recovery that died half-way has set it aside and cut it off already.
  const before = existsSync(kept) ? statSync(kept).size : 0
  const nothingToKeep = tail.kind === 'none' || tail.kind === 'zeros'
  if (nothingToKeep || before >= tail.bytes) return Math.max(before, tail.bytes)
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW
  const descriptor = openSync(kept, flags, 0o600)
  try {
    const chunk = Buffer.allocUnsafeSlow(chunkBytes)
    for (let done = 0; done < tail.bytes;) {
      const length = await file.read(chunk, tail.offset + done)
      if (length === 0) break
      writeAll(descriptor, [chunk.subarray(0, length)], done)
      done += length
    }
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
  return tail.bytes
}

interface Unsealed {
  session: string
  path: string
  full: string
  id: Buffer
}

/** Cuts the tail off and adds close frame and final seal with one write. */
function finish(setting: RecoverySetting, file: Unsealed, scan: Scan, tornBytes: number): SealSummary {
  const { signedBytes, lastAt: atMicroseconds, tail, hash } = scan
  // The process died between the close frame and the seal: then the session had ended in order.
  const closed = scan.lastKind === frameKind.close ? scan.close : undefined
  const ending: Ending = { how: closed?.how ?? 'interrupted', reason: closed?.reason ?? 'crashed' }
  const closeOffset = closed === undefined ? tail.offset : scan.lastOffset
  const pieces: Buffer[] = []
  if (closed === undefined) {
    const endedAt = statSync(file.full).mtime.toISOString()
    const recoveredAt = setting.clock.now().toISOString()
    const note = JSON.stringify({ ...ending, endedAt, recoveredAt, signedBytes, tornBytes })
    pieces.push(encodeFrame(frameKind.close, 0, atMicroseconds, Buffer.from(note)))
  }
  const offset = tail.offset + (pieces[0]?.length ?? 0)
  const frames = scan.frames + pieces.length
  for (const piece of pieces) hash.update(piece)
  const head = hash.digest()
  const seal = { final: true, offset, frames, closeOffset, atMicroseconds, head }
  pieces.push(encodeSealFrame(file.id, seal, setting.signer))
  const descriptor = openSync(file.full, constants.O_WRONLY | constants.O_NOFOLLOW)
  try {
    ftruncateSync(descriptor, tail.offset)
    writeAll(descriptor, pieces, tail.offset)
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
  const bytes = offset + sealFrameBytes
  const { session, path } = file
  return { session, sealed: true, path, bytes, frames: frames + 1, headHash: head.toString('hex'), ending }
}
