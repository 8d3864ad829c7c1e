// The way back of a session with rules: the target answers a refused statement with an error of its own about
// the word that it got instead (gate.ts); here that error becomes ours. Everything else passes as it came,
// and nothing is held but an ErrorResponse while a refusal is on its way.
import { randomBytes } from 'node:crypto'
import type { SallyportError } from '../../errors.ts'
import { errorTable } from '../../errors.ts'
import { headerBytes } from '../../wire/postgres/frame.ts'
import { errorResponse } from '../../wire/postgres/messages.ts'

const errorTag = 0x45
/** A server's error about one word is far below; a longer one is not about it. */
const errorBytesMax = 64 * 1024
/** Refusals that no answer has come for: a batch that the server skipped. The oldest are forgotten. */
const refusalsMax = 1000

export class Answers {
  /** Part of every word, so that no error of somebody else is taken for ours. */
  readonly #mark = `sallyport_refused_${randomBytes(6).toString('hex')}`
  readonly #refusals = new Map<number, SallyportError>()
  #count = 0
  readonly #head = Buffer.alloc(headerBytes)
  #headHave = 0
  #left = 0
  #held: Buffer[] | undefined
  /** The message that comes is held; it has just been put out instead. */
  #caught = false
  #finished = false
  #broken = false

  /** A word that no server takes for SQL, and that names this refusal in what it answers. */
  refused(error: SallyportError): string {
    const number = this.#count++
    this.#refusals.set(number, error)
    if (this.#refusals.size > refusalsMax) this.#refusals.delete(number - refusalsMax)
    return `${this.#mark}_${number}`
  }

  /** What goes on in place of these bytes: they themselves (the same object), or a copy with our words. */
  take(chunk: Buffer, bytes: number): Buffer {
    const out: Buffer[] = []
    /** From here on nothing has been put out yet. */
    let from = 0
    let at = 0
    let isCopy = this.#caught
    while (at < bytes && !this.#broken) {
      if (this.#left === 0 && this.#held === undefined) {
        if (this.#headHave === 0) {
          this.#caught = chunk[at] === errorTag && this.#refusals.size > 0
          // Its header goes only with its body.
          if (this.#caught) out.push(chunk.subarray(from, at))
          isCopy ||= this.#caught
        }
        while (this.#headHave < headerBytes && at < bytes) this.#head[this.#headHave++] = chunk[at++]!
        if (this.#headHave === headerBytes) this.#open(out)
      } else at = this.#body(chunk, at, bytes, out)
      if (this.#caught || this.#finished) from = at
      this.#finished = false
    }
    if (!isCopy) return chunk
    out.push(chunk.subarray(from, bytes))
    return Buffer.concat(out)
  }

  #open(out: Buffer[]): void {
    this.#headHave = 0
    this.#left = this.#head.readInt32BE(1) - 4
    // Nonsense is for the scanner to find.
    this.#broken = this.#left < 0
    if (!this.#caught) return
    if (!this.#broken && this.#left <= errorBytesMax) return void (this.#held = [])
    out.push(Buffer.from(this.#head))
    this.#caught = false
    this.#finished = true
  }

  #body(chunk: Buffer, from: number, bytes: number, out: Buffer[]): number {
    const here = Math.min(this.#left, bytes - from)
    this.#left -= here
    if (this.#held === undefined) return from + here
    this.#held.push(Buffer.from(chunk.subarray(from, from + here)))
    if (this.#left === 0) {
      out.push(this.#worded(Buffer.concat(this.#held)))
      this.#held = undefined
      this.#caught = false
      this.#finished = true
    }
    return from + here
  }

  #worded(body: Buffer): Buffer {
    const number = new RegExp(`${this.#mark}_(\\d+)`).exec(body.toString('latin1'))?.[1]
    const error = number === undefined ? undefined : this.#refusals.get(Number(number))
    if (error === undefined) return Buffer.concat([this.#head, body])
    // Answers come in order: what is older than this one gets none any more.
    for (const each of this.#refusals.keys()) if (each <= Number(number)) this.#refusals.delete(each)
    return errorResponse({
      severity: 'ERROR', sqlstate: errorTable[error.code].sqlstate, message: error.clientMessage
    })
  }
}
