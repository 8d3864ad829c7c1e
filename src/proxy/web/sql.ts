// The SQL page's end of a PostgreSQL session, from behind the login: one statement at a time over the
// extended protocol, some rows at a time (a portal that waits for "more"), answers as words for the page.
// What the target says is bounded before it is kept: rows of a page, characters of a cell, notices of a
// statement. COPY has no place on a page and is refused where the target announces it, whatever the
// statement looked like.
import type { Duplex } from 'node:stream'
import { asSallyportError } from '../../errors.ts'
import { WireError } from '../../wire/error.ts'
import { frameLengthMax, headerBytes, readLength } from '../../wire/postgres/frame.ts'
import {
  bind, copyFail, describe, execute, flush, parse, sync, terminate
} from '../../wire/postgres/messages.ts'
import {
  parseBackendKeyData, parseCommandComplete, parseDataRow, parseNotification, parseReadyForQuery,
  parseReport, parseReportPosition, parseRowDescription
} from '../../wire/postgres/parse.ts'
import type { Page, Words } from './page.ts'

/** Rows that a page shows before it is asked for more. */
export const rowsPerPage = 100
/** Characters of a cell, and of a page's cells together; from there on cells are cut to the short length. */
const cellCharactersMax = 4096
const shortCharactersMax = 32
const pageCharactersMax = 1024 * 1024
/** One message of the target; a row that is longer is passed over, and said to be. */
const messageBytesMax = 4 * 1024 * 1024
/** Notices and errors of one statement that the page is told. */
const noticesMax = 200

const copySentence = 'COPY moves files, which this page does not: use psql'

/** Nothing runs; a statement runs; its portal waits for "more"; it is over, and ReadyForQuery is to come. */
type State = 'starting' | 'idle' | 'running' | 'waiting' | 'ending'

export interface SqlPorts {
  cancel(pid: number, key: Buffer): void
  /** The page has gone. */
  left(): void
}

export class Sql {
  readonly #page: Page
  readonly #ports: SqlPorts
  #stream: Duplex | undefined
  #state: State = 'starting'
  #cancelKey: { pid: number, key: Buffer } | undefined
  /** A statement that waits until the one before has been put away. */
  #next: string | undefined
  #columns = 0
  #rows: (string | null)[][] = []
  #characters = 0
  #notices = 0
  #isCopy = false

  constructor(page: Page, ports: SqlPorts) {
    this.#page = page
    this.#ports = ports
    page.listen({
      words: words => this.#heard(words),
      bytes: () => page.breach('bytes where words are expected'),
      closed: () => this.#left()
    })
  }

  /** The session is open: what the target says comes over this stream. */
  begin(stream: Duplex): void {
    this.#stream = stream
    stream.on('error', () => undefined)
    void this.#follow(stream)
    if (this.#page.over) this.#left()
  }

  // ---- what the page says

  #heard(words: Words): void {
    const page = this.#page
    if (words.type === 'run' && typeof words['sql'] === 'string') return this.#run(words['sql'])
    if (words.type === 'more') {
      if (this.#state !== 'waiting') return page.breach('no statement waits')
      this.#execute()
    } else if (words.type === 'cancel') {
      this.#cancel()
    } else page.breach('words that are none of the SQL page')
  }

  #run(sql: string): void {
    if (this.#state === 'waiting') {
      this.#next = sql
      return this.#putAway()
    }
    if (this.#state !== 'idle') return this.#page.breach('one statement at a time')
    this.#notices = 0
    this.#isCopy = false
    try {
      const request = [parse('', sql), bind('', ''), describe('P', '')]
      this.#send(...request)
      this.#execute()
    } catch (thrown) {
      if (!(thrown instanceof WireError)) throw thrown
      // A zero byte, half of a character: the session goes on without it.
      this.#page.say({ type: 'error', severity: 'ERROR', sqlstate: '22021', message: thrown.message })
      this.#page.say({ type: 'ready' })
    }
  }

  #execute(): void {
    this.#state = 'running'
    this.#rows = []
    this.#characters = 0
    this.#send(execute('', rowsPerPage), flush())
  }

  /** Ends the statement that runs; one that only waits is put away. */
  #cancel(): void {
    if (this.#state === 'waiting') this.#putAway()
    else if (this.#state === 'running' && this.#cancelKey !== undefined) {
      this.#ports.cancel(this.#cancelKey.pid, this.#cancelKey.key)
    }
  }

  #putAway(): void {
    this.#state = 'ending'
    this.#send(sync())
  }

  #send(...messages: Uint8Array[]): void {
    if (this.#stream?.writable === true) this.#stream.write(Buffer.concat(messages))
  }

  #left(): void {
    this.#ports.left()
    const stream = this.#stream
    if (stream?.writable === true) stream.end(terminate())
  }

  // ---- what the target says

  async #follow(stream: Duplex): Promise<void> {
    try {
      await this.#read(stream)
      this.#page.leave()
    } catch (thrown) {
      if (!stream.destroyed) this.#page.fail(asSallyportError(thrown, 'target-violation'))
      stream.destroy()
    }
    if (stream.writable) stream.end()
  }

  async #read(stream: Duplex): Promise<void> {
    let kept = Buffer.alloc(0)
    let skip = 0
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      let bytes = kept.length === 0 ? chunk : Buffer.concat([kept, chunk])
      for (;;) {
        const skipped = Math.min(skip, bytes.length)
        skip -= skipped
        bytes = bytes.subarray(skipped)
        if (skip > 0 || bytes.length < headerBytes) break
        const whole = 1 + readLength(bytes, 1, frameLengthMax)
        const tag = String.fromCharCode(bytes[0]!)
        if (whole > messageBytesMax) {
          this.#passOver(tag, whole)
          skip = whole
          continue
        }
        if (bytes.length < whole) break
        this.#take(tag, bytes.subarray(headerBytes, whole))
        bytes = bytes.subarray(whole)
      }
      kept = Buffer.from(bytes)
      await this.#page.drain()
    }
  }

  #passOver(tag: string, bytes: number): void {
    if (tag === 'd') return
    if (tag !== 'D') throw new WireError(`a message of ${bytes} bytes`)
    this.#rows.push(Array.from({ length: this.#columns }, (_, index) =>
      index === 0 ? `(a row of ${bytes} bytes, too long for this page)` : null))
  }

  #take(tag: string, body: Buffer): void {
    switch (tag) {
      case 'K': this.#cancelKey = parseBackendKeyData(Buffer.from(body)); return
      case 'Z': return this.#ready(parseReadyForQuery(body))
      case 'T': {
        const columns = parseRowDescription(body)
        this.#columns = columns.length
        return this.#page.say({ type: 'columns', names: columns.map(({ name }) => name) })
      }
      case 'n': this.#columns = 0; return
      case 'D': return this.#row(parseDataRow(body, this.#columns))
      case 's':
        this.#state = 'waiting'
        return this.#page.say({ type: 'rows', rows: this.#rows, more: true })
      case 'C': return this.#done(parseCommandComplete(body).tag)
      case 'I': return this.#done('')
      case 'E': return this.#failed(body)
      case 'N': return this.#notice(parseReport(body))
      case 'A': {
        const { channel, payload } = parseNotification(body)
        return this.#notice({ severity: 'NOTIFY', sqlstate: '00000', message: `${channel}: ${payload}` })
      }
      // A file is wanted, or comes: neither has a place here.
      case 'G':
        this.#isCopy = true
        return this.#send(copyFail(copySentence))
      case 'H':
        this.#isCopy = true
        return this.#cancel()
    }
  }

  #row(values: (string | null)[]): void {
    this.#rows.push(values.map(value => {
      if (value === null) return null
      const longest = this.#characters > pageCharactersMax ? shortCharactersMax : cellCharactersMax
      const shown = value.length <= longest
        ? value : `${value.slice(0, longest)}… (${value.length} characters)`
      this.#characters += shown.length
      return shown
    }))
  }

  #done(tag: string): void {
    if (this.#columns > 0 && !this.#isCopy) {
      this.#page.say({ type: 'rows', rows: this.#rows, more: false })
    }
    // It was over before our cancel came; what it sent was thrown away.
    if (this.#isCopy) this.#notice({ severity: 'WARNING', sqlstate: '0A000', message: copySentence })
    this.#page.say({ type: 'done', tag, noticesLeft: Math.max(0, this.#notices - noticesMax) })
    this.#putAway()
  }

  #failed(body: Buffer): void {
    const { severity, sqlstate, message, detail, hint } = parseReport(body)
    if (severity === 'FATAL' || severity === 'PANIC') return this.#page.end(message)
    const said = this.#isCopy ? copySentence : message
    this.#page.say({
      type: 'error', severity, sqlstate, message: said, detail, hint, position: parseReportPosition(body)
    })
    // A deferred constraint fails when Sync commits: then that is under way already.
    if (this.#state !== 'ending') this.#putAway()
  }

  #notice({ severity, sqlstate, message }: { severity: string, sqlstate: string, message: string }): void {
    if (++this.#notices > noticesMax) return
    // Between statements it is the session's: that its time is nearly over.
    const isOfStatement = this.#state === 'running' || this.#state === 'ending'
    this.#page.say({ type: 'notice', text: message, ...isOfStatement ? { severity, sqlstate } : {} })
  }

  #ready(transaction: string): void {
    this.#state = 'idle'
    const next = this.#next
    this.#next = undefined
    if (next === undefined) this.#page.say({ type: 'ready', transaction })
    else this.#run(next)
  }
}
