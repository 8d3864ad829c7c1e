// Where a session has rules about SQL, what its client says passes through here, behind the recorder: each
// Query, Parse and FunctionCall is held until there is a verdict; everything else goes on as it came. What is
// refused is not left out, since a transaction would then go on as if nothing had been said: in its place the
// target gets a word that is no SQL, and refuses that itself, in its turn and with all that follows from it
// (an aborted transaction, a skipped batch). Its answer is put into our words on the way back (answers.ts).
import type { SallyportError } from '../../errors.ts'
import type { Judge, Statement } from '../../session/judge.ts'
import { WireError } from '../../wire/error.ts'
import { headerBytes } from '../../wire/postgres/frame.ts'
import { parse, query } from '../../wire/postgres/messages.ts'
import { BodyReader } from '../../wire/postgres/parse.ts'
import { parseFunctionCall, utf8 } from '../../wire/postgres/statements.ts'

const [queryTag, parseTag, functionCallTag, syncTag] = [0x51, 0x50, 0x46, 0x53]
/** Bind, Execute, Describe, Close, Flush: parts of a batch that a Sync ends. */
const batchTags: ReadonlySet<number> = new Set([0x42, 0x45, 0x44, 0x43, 0x48])
/** More of one message is not held; it counts as one that cannot be read. */
const judgedBytesMax = 256 * 1024 + 1024
/** … of which so much is shown to those who have to agree. */
const beginningBytes = 64 * 1024

export interface GatePorts {
  judge: NonNullable<Judge['statement']>
  /** To the target; false: it takes no more for now. */
  send(bytes: Buffer): boolean
  /** The word that the target is to get instead. */
  refused(error: SallyportError): string
  /** For the recording. */
  note(event: Record<string, unknown>): void
  tell(line: string): void
  /** The verdict is that the session ends. */
  end(error: SallyportError): void
}

export class Gate {
  readonly #ports: GatePorts
  readonly #head = Buffer.alloc(headerBytes)
  #headHave = 0
  /** Of the message whose body is still coming. */
  #mode: 'pass' | 'hold' | 'drop' | undefined
  #left = 0
  /** What is held of it, and what is still to be held before it can be judged. */
  #held: Buffer[] = []
  #wanted = 0
  #out: Buffer[] = []
  #room = true
  #over = false
  /** Messages that were judged: so a reader of the recording finds the one that a verdict is about. */
  #judged = 0
  #waiting: AbortController | undefined
  /** ReadyForQuery that the target owes for what it was sent, and whether a batch has begun after that. */
  #owed = 0
  #inBatch = false

  constructor(ports: GatePorts) {
    this.#ports = ports
  }

  /** What the target has been sent ends between two messages. */
  get atBoundary(): boolean {
    return this.#mode !== 'pass'
  }

  /** The target said so often that it is ready. */
  answered(count: number): void {
    this.#owed = Math.max(0, this.#owed - count)
  }

  /**
   * A cancel request came; true: it is the target's as well. PostgreSQL cancels the statement that runs now
   * and none that is queued behind it. So while the target owes answers for what was ended by a Sync, one of
   * those runs: a statement that waits for others behind them goes on waiting. When it owes none, the
   * client waits for that very statement, and waits for it no more. Within a batch that no Sync has ended
   * nobody knows whether its earlier statements still run; but an error in any of them skips the rest of the
   * batch: so both are cancelled, and either way nothing of it is done.
   */
  cancel(reason: SallyportError): boolean {
    if (this.#waiting === undefined || this.#owed > 0) return true
    this.#waiting.abort(reason)
    return this.#inBatch
  }

  /** Nothing goes on any more. */
  stop(reason: SallyportError): void {
    this.#over = true
    this.#waiting?.abort(reason)
  }

  /**
   * Bytes of the client, which the scanner has found in order. Resolves when they have gone on or were
   * dropped; false when the target takes no more for now. One call at a time.
   */
  async take(bytes: Buffer): Promise<boolean> {
    this.#room = true
    let at = 0
    while (at < bytes.length && !this.#over) {
      at = this.#mode === undefined ? this.#header(bytes, at) : this.#body(bytes, at)
      if (this.#mode === 'hold' && this.#wanted === 0) await this.#decide()
      if (this.#mode !== 'hold' && this.#left === 0) this.#mode = undefined
    }
    this.#flush()
    return this.#room
  }

  #header(bytes: Buffer, from: number): number {
    let at = from
    while (this.#headHave < headerBytes && at < bytes.length) this.#head[this.#headHave++] = bytes[at++]!
    if (this.#headHave < headerBytes) return at
    this.#headHave = 0
    this.#left = this.#head.readInt32BE(1) - 4
    const [tag] = this.#head
    if (tag === queryTag || tag === parseTag || tag === functionCallTag) {
      this.#mode = 'hold'
      this.#wanted = this.#left > judgedBytesMax ? beginningBytes : this.#left
    } else {
      this.#mode = 'pass'
      this.#sends(tag ?? 0)
      this.#out.push(Buffer.from(this.#head))
    }
    return at
  }

  #body(bytes: Buffer, from: number): number {
    const isHeld = this.#mode === 'hold'
    const here = Math.min(isHeld ? this.#wanted : this.#left, bytes.length - from)
    const piece = bytes.subarray(from, from + here)
    this.#left -= here
    if (isHeld) {
      this.#wanted -= here
      this.#held.push(piece)
    } else if (this.#mode === 'pass') this.#out.push(piece)
    return from + here
  }

  async #decide(): Promise<void> {
    this.#flush()
    const { judge, refused, note, tell, end } = this.#ports
    const body = Buffer.concat(this.#held)
    this.#held = []
    const tag = this.#head[0] ?? 0
    const waiting = this.#waiting = new AbortController()
    const verdict = await judge(statementOf(tag, body, this.#left === 0), { tell, left: waiting.signal })
    this.#waiting = undefined
    const message = this.#judged++
    if (this.#over) return
    if (verdict.note !== undefined) note({ ...verdict.note, message })
    if (verdict.passes) {
      this.#mode = 'pass'
      this.#sends(tag)
      this.#out.push(Buffer.from(this.#head), body)
      return
    }
    this.#mode = 'drop'
    if (verdict.ends || verdict.error === undefined) {
      this.#over = true
      if (verdict.error !== undefined) end(verdict.error)
      return
    }
    const word = refused(verdict.error)
    this.#sends(tag)
    this.#out.push(tag === parseTag ? parse(nameOf(body), word) : query(word))
  }

  /** Of this message the target hears: what it will owe for it. */
  #sends(tag: number): void {
    if (tag === syncTag || ((tag === queryTag || tag === functionCallTag) && !this.#inBatch)) this.#owed++
    if (tag === syncTag) this.#inBatch = false
    else if (tag === parseTag || batchTags.has(tag)) this.#inBatch = true
  }

  #flush(): void {
    const [first] = this.#out
    if (first === undefined || this.#over) return
    const bytes = this.#out.length === 1 ? first : Buffer.concat(this.#out)
    this.#out = []
    this.#room = this.#ports.send(bytes)
  }
}

/** What is no text, or has another end than its own, cannot be judged as what a server would read. */
function statementOf(tag: number, body: Buffer, isWhole: boolean): Statement {
  try {
    if (tag === functionCallTag) {
      const { oid } = parseFunctionCall(body, isWhole)
      return { sql: `<function call ${oid}>`, isWhole, readable: isWhole, isCall: true, body }
    }
    const reader = new BodyReader(body)
    if (tag === parseTag) reader.zeroTerminated()
    if (!isWhole) return { sql: reader.rest().toString('latin1'), isWhole, readable: false, isCall: false }
    const sql = utf8(reader.zeroTerminated())
    const isExact = tag === parseTag ? reader.uint16() * 4 === reader.left : reader.left === 0
    return { sql, isWhole, readable: isExact, isCall: false, ...!isExact && { body } }
  } catch (thrown) {
    if (!(thrown instanceof WireError)) throw thrown
    return { sql: body.toString('latin1'), isWhole, readable: false, isCall: false }
  }
}

/** Of the statement that Parse prepares: a server forgets the unnamed one when another is parsed. */
function nameOf(body: Buffer): string {
  const end = body.indexOf(0)
  try {
    return end < 0 ? '' : utf8(body.subarray(0, end))
  } catch (thrown) {
    if (!(thrown instanceof WireError)) throw thrown
    return ''
  }
}
