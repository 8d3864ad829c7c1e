// The content of a file as it passes by in numbered pieces: its length and SHA-256, and the pieces in order
// for whoever keeps a copy.
// Pieces may come out of order (clients ask for many at once); those that are early wait, up to a limit. When
// the order cannot be had, the answer says `partial` and has no hash.
import { createHash } from 'node:crypto'
import type { Hash } from 'node:crypto'

/** Early pieces that are kept, of all files of a session: 64 requests of 128 KiB. */
const earlyBytesMax = 8 * 1024 * 1024
/** What a piece costs beside its bytes: else a million pieces of one byte would be cheap. */
const pieceCostBytes = 200

/** What the files of one session may keep together. */
export class EarlyBudget {
  left: number

  constructor(bytesMax: number = earlyBytesMax) {
    this.left = bytesMax
  }
}

/** Takes the content of a file in order, and says at the end what it kept. */
export interface ContentCopy {
  add(piece: Uint8Array): void
  facts(): { copy?: number, copyBytes?: number }
}

/** What is made of the content of files, beside counting it. */
export interface ContentUse {
  hashes: boolean
  /** Begins the copy of one file; absent: none are kept. */
  copy?: (() => ContentCopy) | undefined
}

export const hashOnly: ContentUse = { hashes: true }

export interface SequenceFacts {
  bytes: number
  sha256?: string
  offset?: number
  partial?: true
  copy?: number
  copyBytes?: number
}

export class Sequence {
  bytes = 0
  /** Where the first piece that was spoken of begins. */
  start: number | undefined
  readonly #budget: EarlyBudget
  readonly #early = new Map<number, Buffer>()
  readonly #use: ContentUse
  #hash: Hash | undefined
  #copy: ContentCopy | undefined
  #earlyCost = 0
  #next = 0
  #partial = false

  constructor(budget: EarlyBudget, use: ContentUse = hashOnly) {
    this.#budget = budget
    this.#use = use
  }

  /** The first one decides where the content begins: questions come in order, answers need not. */
  begin(offset: number): void {
    if (this.start !== undefined) return
    this.start = offset
    this.#next = offset
  }

  add(offset: number, piece: Uint8Array): void {
    this.begin(offset)
    this.bytes += piece.length
    if (this.#partial || piece.length === 0) return
    if (offset === this.#next) this.#take(piece)
    else if (offset > this.#next && piece.length + pieceCostBytes <= this.#budget.left) {
      // What comes twice is not the content of a file any more.
      if (this.#early.has(offset)) return this.#giveUp()
      this.#early.set(offset, Buffer.from(piece))
      this.#spend(piece.length + pieceCostBytes)
    } else this.#giveUp()
  }

  /** To be asked once, at the end. */
  facts(): SequenceFacts {
    if (this.#early.size > 0) this.#giveUp()
    const { bytes, start = 0 } = this
    const offset = start === 0 ? {} : { offset: start }
    const copy = this.#copy?.facts()
    if (this.#partial) return { bytes, ...offset, partial: true, ...copy }
    const hash = this.#use.hashes && { sha256: (this.#hash ?? createHash('sha256')).digest('hex') }
    return { bytes, ...hash, ...offset, ...start !== 0 && { partial: true }, ...copy }
  }

  #take(piece: Uint8Array): void {
    this.#inOrder(piece)
    let early = this.#early.get(this.#next)
    while (early !== undefined) {
      this.#early.delete(this.#next)
      this.#spend(-early.length - pieceCostBytes)
      this.#inOrder(early)
      early = this.#early.get(this.#next)
    }
  }

  #inOrder(piece: Uint8Array): void {
    if (this.#use.hashes) this.#hash ??= createHash('sha256')
    this.#hash?.update(piece)
    this.#copy ??= this.#use.copy?.()
    this.#copy?.add(piece)
    this.#next += piece.length
  }

  #giveUp(): void {
    this.#partial = true
    this.#early.clear()
    this.#spend(-this.#earlyCost)
  }

  #spend(cost: number): void {
    this.#earlyCost += cost
    this.#budget.left -= cost
  }
}
