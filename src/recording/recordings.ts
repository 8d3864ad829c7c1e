// The recordings folder of a running node: begins recordings, seals what a crash left behind, and counts.
// A recording is begun before anything else of a session is done, and it is refused rather than begun on a
// disk that is about to be full (F15). One disk for all of them: see disk.ts.
import { randomBytes } from 'node:crypto'
import { closeSync, fsync, mkdirSync, openSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Clock } from '../clock.ts'
import { SallyportError, asSallyportError } from '../errors.ts'
import { Disk } from './disk.ts'
import { encodeFileHead } from './format.ts'
import { createFile, foldersOf, forgetOpen, relativePath } from './paths.ts'
import { frameKind } from './recording.ts'
import type { Recording, RecordingHead, Signer } from './recording.ts'
import { recoverRecordings } from './recover.ts'
import type { Fate, Recovered } from './recover.ts'
import { FileRecording } from './writer.ts'

const fsyncPooled = promisify(fsync)

/** Below both of these no session starts: what runs must be able to end properly. */
export const reserveBytesMin = 500 * 1024 * 1024
export const reserveShareMin = 0.01
/** One session that fills the disk would end all others. 64 GiB is a week at 100 kB/s. */
export const recordingBytesMax = 64 * 1024 * 1024 * 1024

export interface RecordingLimits {
  /** Free bytes below which no recording is begun; the larger of this and `reserveShare` counts. */
  reserveBytes?: number | undefined
  /** The same as a share of the file system, 0 to 1. */
  reserveShare?: number | undefined
  /** At this length a recording counts as failed: strict mode ends the session. At least 1 MiB. */
  recordingBytesMax?: number | undefined
}

export interface RecordingsSetting {
  dir: string
  signer: Signer
  clock: Clock
  limits?: RecordingLimits | undefined
  /** `strict` (default): a failed recorder ends the session. `best-effort`: it goes on, `onLost` is told. */
  mode?: 'strict' | 'best-effort' | undefined
  /** For the audit log and the alarm: a recording failed. Must not throw. */
  onLost?: ((session: string, error: SallyportError) => void) | undefined
}

export interface RecorderStats {
  open: number
  /** Failed since the start. */
  lost: number
  /** Appended and not yet in a file: the recorder's lag. */
  waitingBytes: number
  /** Disk operations that wait for a thread. */
  waitingOperations: number
  slow: boolean
  slowestMs: number
}

export interface Recordings {
  /**
   * Begins a recording; its head is in the file when this resolves.
   * @throws SallyportError `disk-reserve` below the reserve, `recorder-failed` for all else
   */
  create(head: RecordingHead): Promise<Recording>
  /**
   * Seals what a crash left as interrupted. Idempotent; for the start, and when a node was declared dead.
   * `fate` says what the store knows of a session: see recover.ts.
   */
  recover(fate: (session: string) => Fate | Promise<Fate>): Promise<Recovered[]>
  stats(): RecorderStats
  /** Seals what is still open as cut (`shutting-down`). Never throws. */
  close(): Promise<void>
}

export function openRecordings(setting: RecordingsSetting): Recordings {
  mkdirSync(setting.dir, { recursive: true, mode: 0o700 })
  return new OpenRecordings(setting)
}

/** @throws SallyportError `disk-reserve` */
function checkReserve(dir: string, limits: RecordingLimits): void {
  const { bavail, blocks, bsize } = statfsSync(dir)
  const share = (limits.reserveShare ?? reserveShareMin) * blocks * bsize
  const reserve = Math.max(limits.reserveBytes ?? reserveBytesMin, share)
  if (bavail * bsize >= reserve) return
  const mebibytes = (bytes: number): string => `${Math.floor(bytes / 1024 / 1024)} MiB`
  const detail = `${mebibytes(bavail * bsize)} free in ${dir}, ${mebibytes(reserve)} are kept`
  throw new SallyportError('disk-reserve', { detail })
}

/**
 * Syncs folders for many recordings at once: who comes while a round runs shares the next one. What is above
 * the folder of a day is synced with the first recording of it, and not for each one again.
 */
class FolderSync {
  readonly #root: string
  #waiting = new Set<string>()
  #next: Promise<void> | undefined
  #running: Promise<void> = Promise.resolve()
  // Days whose own names are on the disk.
  #settled = new Set<string>()

  constructor(root: string) {
    this.#root = root
  }

  sync(path: string): Promise<void> {
    const { day, open, above } = foldersOf(path)
    this.#waiting.add(day).add(open)
    if (!this.#settled.has(day)) for (const folder of above) this.#waiting.add(folder)
    if (this.#next === undefined) {
      this.#next = this.#running.then(() => this.#round(), () => this.#round())
      this.#running = this.#next
    }
    return this.#next
  }

  /** A folder was made: its name is not on the disk. */
  forget(): void {
    this.#settled = new Set()
  }

  async #round(): Promise<void> {
    const [folders, settled] = [this.#waiting, this.#settled]
    this.#waiting = new Set()
    this.#next = undefined
    for (const folder of folders) {
      // To open what was just written to takes no disk; to sync it does.
      const descriptor = openSync(join(this.#root, folder), 'r')
      try {
        await fsyncPooled(descriptor)
      } finally {
        closeSync(descriptor)
      }
    }
    // All of them, so that what is above a day in this round is on the disk too.
    for (const folder of folders) settled.add(folder)
  }
}

class OpenRecordings implements Recordings {
  readonly #setting: RecordingsSetting
  readonly #disk: Disk
  readonly #folders: FolderSync
  readonly #open = new Map<string, FileRecording>()
  #lost = 0

  constructor(setting: RecordingsSetting) {
    this.#setting = setting
    this.#disk = new Disk(setting.clock)
    this.#folders = new FolderSync(setting.dir)
  }

  async create(head: RecordingHead): Promise<Recording> {
    const { dir, limits = {} } = this.#setting
    let recording: FileRecording | undefined
    try {
      checkReserve(dir, limits)
      const path = relativePath(head.session, head.startedAt)
      recording = this.#begin(head.session, path, createFile(dir, path, () => this.#folders.forget()))
      recording.append(frameKind.open, 0, Buffer.from(JSON.stringify(head)))
      const written = recording.commit()
      if (written !== true) await written
      return recording
    } catch (thrown) {
      await recording?.seal({ how: 'cut', reason: 'recorder-failed' })
      throw asSallyportError(thrown, 'recorder-failed')
    }
  }

  recover(fate: (session: string) => Fate | Promise<Fate>): Promise<Recovered[]> {
    const { dir, signer, clock } = this.#setting
    // What this process itself is writing is alive, whatever the store says.
    const known = (session: string): Fate | Promise<Fate> => this.#open.has(session) ? 'live' : fate(session)
    return recoverRecordings({ dir, signer, clock, fate: known })
  }

  stats(): RecorderStats {
    let waitingBytes = 0
    for (const recording of this.#open.values()) waitingBytes += recording.waitingBytes
    const { waiting: waitingOperations, slow, slowestMs } = this.#disk
    return { open: this.#open.size, lost: this.#lost, waitingBytes, waitingOperations, slow, slowestMs }
  }

  async close(): Promise<void> {
    const open = [...this.#open.values()]
    await Promise.all(open.map(each => each.seal({ how: 'cut', reason: 'shutting-down' })))
    this.#disk.close()
  }

  #begin(session: string, path: string, descriptor: number): FileRecording {
    const { dir, signer, clock, limits = {}, mode = 'strict', onLost } = this.#setting
    const id = randomBytes(16)
    const recording: FileRecording = new FileRecording({
      session,
      path,
      descriptor,
      id,
      head: encodeFileHead(id),
      syncFolders: () => this.#folders.sync(path),
      forget: () => forgetOpen(dir, session),
      closed: () => this.#open.delete(session)
    }, {
      clock,
      signer,
      disk: this.#disk,
      mode,
      recordingBytesMax: Math.max(limits.recordingBytesMax ?? recordingBytesMax, 1024 * 1024),
      onLost: (lost, error) => {
        this.#lost++
        onLost?.(lost, error)
      }
    })
    this.#open.set(session, recording)
    return recording
  }
}
