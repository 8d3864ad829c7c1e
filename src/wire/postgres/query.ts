// A small client for our own statements on a target (hooks, checks), on top of the hardened login. It speaks
// the extended protocol, so a statement is one statement: a second one hidden behind a semicolon is refused
// by the server. Several may travel together; then those behind one that is refused are not carried out. The
// target is not believed: every message must be due in its phase, results are bounded, and
// each statement has a limit of time. What is lost on the way is a ConnectionLost: the statement may or may
// not have been carried out.
import { UpstreamError, WireError } from '../error.ts'
import type { Channel, Message } from './channel.ts'
import {
  bind, describe, execute, parse, sync, terminate, type Report, type TransactionStatus
} from './messages.ts'
import {
  parseCommandComplete, parseDataRow, parseNotification, parseParameterStatus, parseReadyForQuery,
  parseReport, parseRowDescription, type Column
} from './parse.ts'
import { closesWithin, openChannel, sendCancel, type UpstreamOptions } from './upstream.ts'

/** All answers to one statement: what a hook reads is a catalogue, not a table. */
export const resultBytesMax = 8 * 1024 * 1024
export const resultRowsMax = 100_000

/** Notices, notifications and parameter changes within one statement. */
const asynchronousMax = 10_000

/** A cancel request that nobody answers is not waited for longer. */
const cancelMs = 2000

/** Nor is an orderly end. */
const closeMs = 1000

/**
 * Settings of a connection that runs our own statements, so that neither the role's nor the database's
 * settings on the target change what they mean (CVE-2025-12819, and `\'` in literals). Overruled by
 * `parameters`.
 */
export const clientSettings: Readonly<Record<string, string>> = {
  client_encoding: 'UTF8',
  standard_conforming_strings: 'on',
  search_path: 'pg_catalog, pg_temp',
  DateStyle: 'ISO, YMD',
  IntervalStyle: 'postgres',
  TimeZone: 'UTC',
  application_name: 'sallyport'
}

export interface ClientOptions extends Omit<UpstreamOptions, 'readBuffer'> {
  limits?: { resultBytesMax?: number, resultRowsMax?: number } | undefined
}

export interface Statement {
  sql: string
  /** Values of `$1`, `$2` …, as text. */
  values?: readonly (string | null)[] | undefined
}

export interface BatchOptions {
  /** For all of them; then what runs is cancelled and the connection is cut. */
  timeoutMs: number
}

export type QueryOptions = BatchOptions & Pick<Statement, 'values'>

export interface QueryResult {
  /** Every value as text; SQL NULL is null. */
  rows: (string | null)[][]
  columns: string[]
  /** E.g. `CREATE ROLE`, `SELECT 3`; empty for an empty statement. */
  tag: string
}

/** The target refused a statement: it was not carried out, and the connection can be used further. */
export class ServerError extends Error {
  readonly sqlstate: string
  readonly severity: string
  readonly serverMessage: string
  readonly detail: string | undefined
  readonly hint: string | undefined
  /** Which statement of those that were sent together, from 0. */
  readonly place: number

  constructor({ sqlstate, severity, message, detail, hint }: Report, place = 0) {
    super(`${sqlstate}: ${message}`)
    this.name = 'ServerError'
    this.sqlstate = sqlstate
    this.severity = severity
    this.serverMessage = message
    this.detail = detail
    this.hint = hint
    this.place = place
  }

  /** The same, counted without so many statements that were sent first. */
  behind(statements: number): ServerError {
    const { sqlstate, severity, serverMessage: message, detail, hint } = this
    return new ServerError({ sqlstate, severity, message, detail, hint }, this.place - statements)
  }
}

export type LossReason = 'closed' | 'timeout' | 'violation' | 'too-large'

/** The answer is lost and the connection with it: the statement may have been carried out. Look. */
export class ConnectionLost extends Error {
  readonly reason: LossReason

  constructor(reason: LossReason, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'ConnectionLost'
    this.reason = reason
  }
}

/** Whatever went wrong while an answer was waited for. */
export function lossOf(thrown: unknown): ConnectionLost {
  if (thrown instanceof ConnectionLost) return thrown
  const late = thrown instanceof UpstreamError && thrown.kind === 'timeout'
  const reason = thrown instanceof WireError ? 'violation' : late ? 'timeout' : 'closed'
  return new ConnectionLost(reason, thrown instanceof Error ? thrown.message : String(thrown), thrown)
}

function tooLarge(): ConnectionLost {
  return new ConnectionLost('too-large', 'the answer is larger than the limit')
}

/** What a target may say at any time; it is only looked at for its form. @throws WireError */
function checkAsynchronous(tag: number, body: Buffer): void {
  if (tag === 0x4e) parseReport(body)
  else if (tag === 0x41) parseNotification(body)
  else parseParameterStatus(body)
}

/** What may come next: each message moves the phase on. */
type Phase = 'parse' | 'bind' | 'describe' | 'rows' | 'complete' | 'failed'

/** The answers to statements that were sent together, put together message by message. */
class Answer {
  readonly #statements: number
  readonly #results: QueryResult[] = []
  #rowsLeft: number
  #bytesLeft: number
  #asynchronousLeft = asynchronousMax
  #phase: Phase = 'parse'
  #columns: Column[] = []
  #rows: (string | null)[][] = []
  /** The target's refusal, until ReadyForQuery makes it final. */
  error: ServerError | undefined

  constructor(statements: number, bytesMax: number, rowsMax: number) {
    this.#statements = statements
    this.#bytesLeft = bytesMax
    this.#rowsLeft = rowsMax
  }

  results(): QueryResult[] {
    if (this.error !== undefined) throw this.error
    return this.#results
  }

  /** Takes a message that is not ReadyForQuery. @throws WireError when it is not due */
  take({ tag, body }: Message): void {
    this.#bytesLeft -= body.length
    if (this.#bytesLeft < 0) throw tooLarge()
    switch (String.fromCharCode(tag)) {
      case '1':
        return this.#move(this.#results.length > 0 && this.#isMore() ? 'complete' : 'parse', 'bind')
      case '2':
        return this.#move('bind', 'describe')
      case 'n':
        return this.#move('describe', 'rows')
      case 'T':
        this.#move('describe', 'rows')
        this.#columns = parseRowDescription(body)
        return
      case 'D':
        this.#move('rows', 'rows')
        if (--this.#rowsLeft < 0) throw tooLarge()
        this.#rows.push(parseDataRow(body, this.#columns.length))
        return
      case 'C':
        return this.#completed(parseCommandComplete(body).tag)
      case 'I':
        return this.#completed('')
      case 'E':
        // Also after CommandComplete: a deferred constraint fails when Sync commits.
        if (this.#phase === 'failed') throw new WireError('a second error for one statement')
        this.#phase = 'failed'
        this.error = new ServerError(
          parseReport(body), Math.min(this.#results.length, this.#statements - 1))
        return
      case 'N':
      case 'A':
      case 'S':
        if (--this.#asynchronousLeft < 0) throw new WireError('too many notices for one statement')
        checkAsynchronous(tag, body)
        return
      default:
        throw new WireError(`message 0x${tag.toString(16)} is not an answer to a statement`)
    }
  }

  /** @throws WireError unless all statements are over, or one was refused */
  finish(): void {
    if (this.#phase !== 'failed' && (this.#phase !== 'complete' || this.#isMore())) {
      throw new WireError('the answer ended too early')
    }
  }

  #isMore(): boolean {
    return this.#results.length < this.#statements
  }

  #completed(tag: string): void {
    this.#move('rows', 'complete')
    this.#results.push({ rows: this.#rows, columns: this.#columns.map(column => column.name), tag })
    this.#rows = []
    this.#columns = []
  }

  #move(from: Phase, to: Phase): void {
    if (this.#phase !== from) throw new WireError('an answer is out of order')
    this.#phase = to
  }
}

export class Client {
  /** What the target reported, kept up to date. */
  readonly parameters: Map<string, string>
  readonly pid: number
  transactionStatus: TransactionStatus
  readonly #channel: Channel
  readonly #cancelKey: Buffer
  readonly #options: ClientOptions
  #lost: ConnectionLost | undefined
  #queue: Promise<unknown> = Promise.resolve()

  constructor(
    channel: Channel, cancelKey: Buffer, options: ClientOptions,
    { parameters, pid, transactionStatus }: Pick<Client, 'parameters' | 'pid' | 'transactionStatus'>
  ) {
    this.#channel = channel
    this.#cancelKey = cancelKey
    this.#options = options
    this.parameters = parameters
    this.pid = pid
    this.transactionStatus = transactionStatus
  }

  /** Nothing can be sent any more: it was closed by us, or the target has closed it. */
  get isLost(): boolean {
    return this.#lost !== undefined || this.#channel.isOver
  }

  /** While it only waits for its next use it does not keep the process alive. */
  rest(isResting: boolean): void {
    if (this.isLost) return
    if (isResting) this.#channel.socket.unref()
    else this.#channel.socket.ref()
  }

  /**
   * Runs one statement. Calls wait for those before them; `timeoutMs` counts from the sending.
   * @throws ServerError when the target refused it, ConnectionLost when the answer is lost, WireError for a
   * statement that cannot be sent (zero byte, lone surrogate)
   */
  async query(sql: string, { timeoutMs, values }: QueryOptions): Promise<QueryResult> {
    const [result] = await this.batch([{ sql, values }], { timeoutMs })
    return result!
  }

  /**
   * Runs statements in one round trip. Outside of a transaction that they begin they are one. The first that
   * is refused (`place` of the ServerError) keeps those behind it from being carried out.
   * @throws as `query`
   */
  batch(statements: readonly Statement[], options: BatchOptions): Promise<QueryResult[]> {
    const results = this.#queue.then(() => this.#run(statements, options))
    this.#queue = results.catch(() => undefined)
    return results
  }

  /** Ends the connection in order; cuts it when the target does not close within a second. Never throws. */
  async close(): Promise<void> {
    await this.#queue
    if (this.#lost !== undefined) return
    this.#lost = new ConnectionLost('closed', 'the connection was closed')
    const { socket } = this.#channel
    this.#channel.detach()
    socket.end(terminate())
    await closesWithin(socket, closeMs)
    socket.destroy()
  }

  async #run(statements: readonly Statement[], { timeoutMs }: BatchOptions): Promise<QueryResult[]> {
    if (this.#lost !== undefined) throw this.#lost
    const steps = statements.flatMap(({ sql, values = [] }) =>
      [parse('', sql), bind('', '', values), describe('P', ''), execute('')])
    const request = Buffer.concat([...steps, sync()])
    const timer = setTimeout(() => {
      this.#channel.fail(new ConnectionLost('timeout', `the statement took longer than ${timeoutMs} ms`))
    }, timeoutMs)
    try {
      this.#hearEarlier()
      this.#channel.write(request)
      const answer = await this.#answer(statements.length)
      return answer.results()
    } catch (thrown) {
      if (thrown instanceof ServerError) throw thrown
      this.#lost = lossOf(thrown)
      void this.#giveUp()
      throw this.#lost
    } finally {
      clearTimeout(timer)
    }
  }

  /** What came between two statements: nothing that could be taken for the answer to the next. */
  #hearEarlier(): void {
    for (;;) {
      const message = this.#channel.messageAtHand(resultBytesMax)
      if (message === undefined) return
      const { tag, body } = message
      if (tag === 0x45) {
        const error = new ServerError(parseReport(body))
        throw new ConnectionLost('closed', error.message, error)
      }
      if (tag !== 0x4e && tag !== 0x41 && tag !== 0x53) throw new WireError('an answer before the statement')
      checkAsynchronous(tag, body)
      if (tag === 0x53) this.#note(body)
    }
  }

  async #answer(statements: number): Promise<Answer> {
    const { resultBytesMax: bytesMax = resultBytesMax, resultRowsMax: rowsMax = resultRowsMax } =
      this.#options.limits ?? {}
    const answer = new Answer(statements, bytesMax, rowsMax)
    for (;;) {
      let message: Message
      try {
        message = await this.#channel.message(bytesMax)
      } catch (thrown) {
        // A FATAL error is the last thing that a target says; it is the reason of the loss.
        if (answer.error !== undefined && thrown instanceof UpstreamError) {
          throw new ConnectionLost('closed', answer.error.message, answer.error)
        }
        throw thrown
      }
      if (message.tag === 0x5a) {
        answer.finish()
        this.transactionStatus = parseReadyForQuery(message.body)
        return answer
      }
      answer.take(message)
      if (message.tag === 0x53) this.#note(message.body)
    }
  }

  #note(body: Buffer): void {
    const { name, value } = parseParameterStatus(body)
    // A target cannot grow the map for ever: only names of the login are kept.
    if (this.parameters.has(name)) this.parameters.set(name, value)
  }

  /** The target may still be at work: cancel that, then cut. */
  async #giveUp(): Promise<void> {
    const { host, port, tls } = this.#options
    if (this.#lost?.reason !== 'closed') {
      await sendCancel({ host, port, tls, pid: this.pid, key: this.#cancelKey, timeoutMs: cancelMs })
    }
    this.#channel.destroy()
  }
}

/** Logs in for statements of our own. @throws UpstreamError */
export async function connectClient(options: ClientOptions): Promise<Client> {
  const settings = new Map([...Object.entries(clientSettings), ...options.parameters ?? []])
  const { channel, cancelKey, ...loggedIn } = await openChannel({ ...options, parameters: settings })
  return new Client(channel, cancelKey, options, loggedIn)
}
