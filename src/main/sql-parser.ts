// The SQL parser that rules are judged with, behind its limits: one text at a time in one thread, so long and
// no longer; what is too long, too slow or breaks the thread counts as unreadable, and the next text gets a
// new thread. It starts with the first text, so that it costs nothing where no grant has rules about SQL:
// 0.2 s of one core once and some 30 MB, then 0.04 ms for a short statement and 0.15 for one of ten lines.
import { Worker } from 'node:worker_threads'
import type { Clock } from '../clock.ts'
import { isUnreadable } from '../policy/sql-kinds.ts'
import type { ParsedStatement } from '../policy/sql-kinds.ts'
import type { ParseAnswer, ParseOrder } from './sql-parser-worker.ts'

/** The longest text that is taken needs a third of a second; starting the thread is not counted. */
const parseMs = 2_000
const startMs = 10_000
/** Texts that wait; each belongs to a session that reads nothing more meanwhile. */
const waitingMax = 10_000
/** PostgreSQL's grammar recurses: what nests thousands deep is read, what nests deeper breaks the thread. */
const stackMebibytes = 32
const heapMebibytes = 256

export type Parsed = readonly ParsedStatement[] | undefined

export interface SqlParser {
  /** Undefined: unreadable. Never rejects. */
  parse(sql: string, wantsText: boolean): Promise<Parsed>
  close(): Promise<void>
}

interface Order extends ParseOrder {
  done(parsed: Parsed): void
}

/** `onBroken` hears why the thread was thrown away. */
export function createSqlParser(clock: Clock, onBroken: (why: string) => void = () => undefined): SqlParser {
  const waiting: Order[] = []
  let worker: Worker | undefined
  let running: Order | undefined
  let stopTimer = (): void => undefined
  let isReady = false
  let closed = false

  const settle = (parsed: Parsed): void => {
    stopTimer()
    const order = running
    running = undefined
    order?.done(parsed)
    next()
  }
  const drop = (why: string): void => {
    onBroken(why)
    const broken = worker
    worker = undefined
    isReady = false
    broken?.removeAllListeners()
    // What it still throws while it ends concerns nobody.
    broken?.on('error', () => undefined)
    void broken?.terminate()
    settle(undefined)
  }
  const limit = (ms: number): void => {
    stopTimer()
    stopTimer = clock.after(ms, () => drop('it took too long'))
  }
  const start = (): Worker => {
    const made = new Worker(new URL('./sql-parser-worker.ts', import.meta.url), {
      resourceLimits: { stackSizeMb: stackMebibytes, maxOldGenerationSizeMb: heapMebibytes }
    })
    made.unref()
    made.on('message', (said: ParseAnswer | 'ready') => {
      if (said !== 'ready') return said.broken ? drop('a text broke it') : settle(said.statements)
      isReady = true
      if (running !== undefined) limit(parseMs)
    })
    made.on('error', ({ message }: Error) => drop(message))
    made.on('exit', code => drop(`it ended with ${code}`))
    return made
  }
  const next = (): void => {
    if (running !== undefined) return
    running = waiting.shift()
    if (running === undefined) return
    const { sql, wantsText } = running
    limit(isReady ? parseMs : startMs)
    worker ??= start()
    worker.postMessage({ sql, wantsText } satisfies ParseOrder)
  }
  return {
    parse: (sql, wantsText) => new Promise(resolve => {
      if (closed || waiting.length >= waitingMax || isUnreadable(sql)) return resolve(undefined)
      waiting.push({ sql, wantsText, done: resolve })
      next()
    }),
    async close() {
      closed = true
      for (const { done } of waiting.splice(0)) done(undefined)
      const last = worker
      worker = undefined
      last?.removeAllListeners()
      stopTimer()
      running?.done(undefined)
      running = undefined
      await last?.terminate()
    }
  }
}
