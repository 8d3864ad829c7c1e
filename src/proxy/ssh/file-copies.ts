// Copies of what is transferred, within the recording, where a grant asks for them. Of each file the
// beginning up to a limit, of a session as much as all its files may take: a recording is evidence and no
// backup. Where a copy ends before its file is an event, and stands there before the first byte that is not
// kept; the hash goes on over all of it.
import { frameKind } from '../../recording/recording.ts'
import type { ContentCopy } from '../../wire/ssh/sequence.ts'
import type { ContentSetting } from './content.ts'

export interface CopyLimits {
  /** A configuration, a script, a key; not an image or a dump. */
  fileBytesMax: number
  /** What one session may add to the recordings' disk beside what it shows. */
  sessionBytesMax: number
}

const numberBytes = 4

/** The copies of one session: their numbers, and what is left of its share. */
export class FileCopies {
  readonly #limits: CopyLimits
  #left: number
  #count = 0

  constructor(limits: CopyLimits) {
    this.#limits = limits
    this.#left = limits.sessionBytesMax
  }

  begin(setting: ContentSetting): ContentCopy {
    return new FileCopy(setting, this)
  }

  /** Numbers begin with 1. */
  nextNumber(): number {
    return ++this.#count
  }

  /** So much of these bytes may still be kept of a file of which so many are; takes it from the share. */
  take(keptBytes: number, bytes: number): number {
    const taken = Math.min(bytes, this.#limits.fileBytesMax - keptBytes, this.#left)
    this.#left -= taken
    return taken
  }

  get isSpent(): boolean {
    return this.#left === 0
  }
}

class FileCopy implements ContentCopy {
  readonly #setting: ContentSetting
  readonly #copies: FileCopies
  #head: Buffer | undefined
  #number: number | undefined
  #keptBytes = 0
  #isCut = false

  constructor(setting: ContentSetting, copies: FileCopies) {
    this.#setting = setting
    this.#copies = copies
  }

  add(piece: Uint8Array): void {
    if (this.#isCut) return
    const room = this.#copies.take(this.#keptBytes, piece.length)
    if (room > 0) this.#keep(room === piece.length ? piece : piece.subarray(0, room))
    if (room === piece.length) return
    this.#isCut = true
    const limit = this.#copies.isSpent ? 'session' : 'file'
    this.#setting.event({ type: 'copy-limit', copy: this.#number, at: this.#keptBytes, limit })
  }

  facts(): { copy?: number, copyBytes?: number } {
    if (this.#number === undefined) return this.#isCut ? { copyBytes: 0 } : {}
    return { copy: this.#number, copyBytes: this.#keptBytes }
  }

  /** A message of SSH is shorter than a frame, so each frame begins with the number. */
  #keep(bytes: Uint8Array): void {
    if (this.#head === undefined) {
      this.#number = this.#copies.nextNumber()
      this.#head = Buffer.alloc(numberBytes)
      this.#head.writeUInt32BE(this.#number)
    }
    this.#keptBytes += bytes.length
    this.#setting.recording.append(frameKind.file, this.#setting.lane, this.#head, bytes)
  }
}
