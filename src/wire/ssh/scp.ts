// Listens to the protocol of the old scp (`scp -t`, `scp -f` on the target): records of one line each (C
// file, D directory, E its end, T times, 1 and 2 problems), answered with a byte; then the bytes of the file,
// and an answer again. The source speaks, the sink answers; who is who depends on the direction. Nothing is
// kept here but one line; what becomes of the bytes of files is said by `use`.
import { WireError } from '../error.ts'
import { EarlyBudget, Sequence, hashOnly } from './sequence.ts'
import type { ContentUse } from './sequence.ts'
import type { FileEvent, SftpListener } from './sftp.ts'

const lineBytesMax = 8 * 1024
/** Directories within directories; a name is at most a line. */
const depthMax = 256
const lineEnd = 0x0a
// Its pieces are always in order.
const noneEarly = new EarlyBudget(0)
const named = /^([CD])([0-7]{4,5}) (\d{1,15}) ([^]+)$/
const letters = { file: 'C', directory: 'D', leave: 'E', times: 'T' } as const

interface Transfer {
  path: string
  mode: number
  left: number
  content: Sequence
  offset: number
}

// What the source says next: a record, the answer of the sink first, bytes of a file, or how reading it went.
type Expects = 'record' | 'answer' | 'bytes' | 'result'

export class ScpDecoder {
  readonly #listener: SftpListener
  readonly #direction: 'upload' | 'download'
  readonly #base: string
  readonly #use: ContentUse
  readonly #folders: string[] = []
  #expects: Expects = 'answer'
  // What the sink's next answer is about.
  #asked: 'start' | 'record' | 'file' = 'start'
  #line: number[] = []
  #answerLine: number[] = []
  #transfer: Transfer | undefined
  #broken = false

  /** `base`: the path of the command. Names of the protocol are told as they are, under it. */
  constructor(
    listener: SftpListener, direction: 'upload' | 'download', base: string, use: ContentUse = hashOnly
  ) {
    this.#listener = listener
    this.#direction = direction
    this.#base = base
    this.#use = use
  }

  get broken(): boolean {
    return this.#broken
  }

  fromClient(data: Buffer): void {
    this.#feed(() => this.#direction === 'upload' ? this.#source(data) : this.#sink(data))
  }

  fromTarget(data: Buffer): void {
    this.#feed(() => this.#direction === 'upload' ? this.#sink(data) : this.#source(data))
  }

  /** The channel is closed. */
  end(): void {
    if (this.#transfer !== undefined) this.#tell(this.#transfer, { ok: false, unclosed: true })
    this.#transfer = undefined
  }

  #feed(act: () => void): void {
    if (this.#broken) return
    try {
      act()
    } catch (thrown) {
      if (!(thrown instanceof WireError)) throw thrown
      this.#broken = true
      this.end()
      this.#listener.undecodable(thrown.message)
    }
  }

  // ---- the source

  #source(data: Buffer): void {
    let at = 0
    while (at < data.length) {
      const transfer = this.#transfer
      if (this.#expects === 'bytes' && transfer !== undefined) {
        const piece = data.subarray(at, at + transfer.left)
        transfer.content.add(transfer.offset, piece)
        transfer.offset += piece.length
        transfer.left -= piece.length
        at += piece.length
        if (transfer.left === 0) this.#expects = 'result'
        continue
      }
      const byte = data[at++]!
      // Only a problem is said unasked.
      if (this.#expects === 'answer' && this.#line.length === 0 && byte !== 1 && byte !== 2) {
        throw new WireError('scp goes on without an answer')
      }
      if (byte === 0 && this.#line.length === 0) {
        if (this.#expects !== 'result') throw new WireError('an scp record begins with 0')
        this.#sent()
      } else this.#lineByte(byte)
    }
  }

  #lineByte(byte: number): void {
    if (byte !== lineEnd) {
      if (this.#line.push(byte) > lineBytesMax) throw new WireError('an scp record is too long')
      return
    }
    const line = Buffer.from(this.#line).toString('utf8')
    this.#line = []
    const problem = line.charCodeAt(0) === 1 || line.charCodeAt(0) === 2
    if (!problem) return this.#record(line)
    if (this.#expects !== 'result') {
      return this.#listener.file({ op: this.#direction, path: this.#base, ok: false, status: line.slice(1) })
    }
    this.#sent(line.slice(1))
  }

  /** The bytes of a file are through. */
  #sent(problem?: string): void {
    this.#asked = 'file'
    this.#expects = 'answer'
    if (problem === undefined || this.#transfer === undefined) return
    this.#tell(this.#transfer, { ok: false, status: problem })
    this.#transfer = undefined
  }

  #record(line: string): void {
    if (this.#expects !== 'record') throw new WireError('an scp record where none belongs')
    this.#expects = 'answer'
    this.#asked = 'record'
    if (line === letters.leave) {
      if (this.#folders.pop() === undefined) throw new WireError('scp leaves a directory that it is not in')
      return
    }
    if (/^T\d+ \d+ \d+ \d+$/.test(line)) return
    const [, letter, mode = '', size = '', name = ''] = named.exec(line) ?? []
    if (letter === undefined) throw new WireError('an scp record that is none')
    const path = [this.#base, ...this.#folders, name].join('/')
    if (letter === letters.directory) {
      if (this.#folders.push(name) > depthMax) throw new WireError('scp goes too deep')
      if (this.#direction === 'upload') this.#listener.file({ op: 'mkdir', path, ok: true })
      return
    }
    const left = Number(size)
    const content = new Sequence(noneEarly, this.#use)
    this.#transfer = { path, mode: Number.parseInt(mode, 8), left, content, offset: 0 }
  }

  // ---- the sink

  #sink(data: Buffer): void {
    for (const byte of data) {
      if (this.#answerLine.length > 0) {
        if (byte !== lineEnd) {
          if (this.#answerLine.push(byte) > lineBytesMax) throw new WireError('an scp answer is too long')
          continue
        }
        const text = Buffer.from(this.#answerLine.slice(1)).toString('utf8')
        this.#answerLine = []
        this.#answered(text)
      } else if (byte === 1 || byte === 2) this.#answerLine.push(byte)
      else if (byte === 0) this.#answered(undefined)
      else throw new WireError('an scp answer that is none')
    }
  }

  #answered(problem: string | undefined): void {
    const outcome = problem === undefined ? { ok: true } : { ok: false, status: problem }
    if (this.#expects !== 'answer') {
      // A problem may be said at any time, a yes may not.
      if (problem === undefined) throw new WireError('an scp answer that nobody waits for')
      return this.#listener.file({ op: this.#direction, path: this.#base, ...outcome })
    }
    const transfer = this.#transfer
    if (this.#asked === 'record' && transfer !== undefined && problem === undefined) {
      this.#expects = transfer.left === 0 ? 'result' : 'bytes'
      return
    }
    this.#expects = 'record'
    if (transfer !== undefined) this.#tell(transfer, outcome)
    else if (problem !== undefined) this.#listener.file({ op: this.#direction, path: this.#base, ...outcome })
    this.#transfer = undefined
  }

  #tell(transfer: Transfer, outcome: Pick<FileEvent, 'ok' | 'status' | 'unclosed'>): void {
    const { path, mode, left, content } = transfer
    const cut = left > 0 ? { partial: true } : {}
    this.#listener.file({
      op: this.#direction, path, ...content.facts(), ...cut, attributes: { mode }, ...outcome
    })
  }
}
