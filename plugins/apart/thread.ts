// Drivers that were not written for hostile servers live in a thread of their own, one for each target: an
// answer that makes one throw out of turn (which would end this whole process), loop, or keep too much ends
// that thread, and costs the hooks of that target their connections. A thread is started when a target is
// first asked, and ends when nobody has asked for a while.
import { Worker } from 'node:worker_threads'
import { UpstreamError } from '../../src/wire/error.ts'
import { after, every } from '../../src/wire/limit.ts'
import { ConnectionLost } from '../../src/wire/postgres/query.ts'
import { errorOf } from './words.ts'
import type { Asked, Binds, Client, Rows, Told } from './words.ts'

/** A thread with its driver takes some 30 MiB; what is not collected yet counts as well. */
const idleMs = 60_000
const heapMibMax = 192
// V8 ends the whole process, not the thread, when a heap grows past its own limit faster than the thread can
// be stopped. So we look ourselves, and that limit is far away.
const heapMibFatal = 1024
const heapLookMs = 50
/** Targets whose drivers are loaded at once; one that has no connections makes room. */
const threadsMax = 64
/** The driver's own limit comes first; then its thread does not answer at all. */
const graceMs = 2000

interface Waiting {
  resolve(rows: Rows): void
  reject(error: Error): void
  onTime(): void
}

const threads = new Map<string, Thread>()

/** A connection in the thread of that target. @throws UpstreamError, SallyportError */
export async function connectApart(
  program: URL, target: string, options: object, limitMs: number, signal: AbortSignal
): Promise<Client> {
  const key = `${program.href} ${target}`
  let thread = threads.get(key)
  if (thread === undefined) {
    if (threads.size >= threadsMax && ![...threads.values()].some(each => each.leave())) {
      throw new UpstreamError('unreachable', `the drivers of ${threadsMax} other targets are busy`)
    }
    thread = new Thread(program, () => threads.delete(key))
    threads.set(key, thread)
  }
  return await thread.connect(options, limitMs, signal)
}

class Thread {
  readonly #worker: Worker
  readonly #gone: () => void
  readonly #waiting = new Map<number, Waiting>()
  #asked = 0
  #clients = 0
  #open = 0
  /** Calls the end for idleness off. */
  #stay = (): void => undefined
  readonly #unwatch: () => void
  #end: string | undefined

  constructor(program: URL, gone: () => void) {
    this.#gone = gone
    this.#worker = new Worker(program, {
      resourceLimits: { maxOldGenerationSizeMb: heapMibFatal }, env: {}, stdout: false
    })
    this.#worker.on('message', ({ id, rows = [], error }: Told) => {
      const waiting = this.#take(id)
      if (error === undefined) waiting?.resolve(rows)
      else waiting?.reject(errorOf(error))
    })
    this.#worker.on('error', error => this.#fail(error instanceof Error ? error.message : String(error)))
    this.#worker.on('exit', () => this.#fail('it ended'))
    this.#worker.unref()
    // A server also sends what nobody has asked for.
    this.#unwatch = every(heapLookMs, () => {
      if (this.#open > 0 || this.#waiting.size > 0) this.#look()
    })
  }

  async connect(options: object, limitMs: number, signal: AbortSignal): Promise<Client> {
    signal.throwIfAborted()
    const client = ++this.#clients
    let isClosed = false
    this.#open++
    this.#stay()
    const close = (): void => {
      if (isClosed) return
      isClosed = true
      signal.removeEventListener('abort', close)
      if (this.#end === undefined) this.#worker.postMessage({ id: 0, client, close: true } satisfies Asked)
      if (--this.#open === 0) this.#rest()
    }
    signal.addEventListener('abort', close, { once: true })
    try {
      await this.#ask({ id: 0, client, connect: options }, limitMs)
    } catch (error) {
      close()
      if (signal.aborted) throw new UpstreamError('aborted', 'given up while connecting', { cause: error })
      if (!(error instanceof ConnectionLost)) throw error
      const kind = error.reason === 'timeout' ? 'timeout' : 'violation'
      throw new UpstreamError(kind, error.message, { cause: error })
    }
    return {
      close,
      query: async (sql: string, statementMs: number, binds: Binds = []) => {
        if (isClosed) throw new ConnectionLost('closed', 'the connection is closed')
        return await this.#ask({ id: 0, client, query: { sql, binds, limitMs: statementMs } }, statementMs)
      }
    }
  }

  /** Ends when it has no connections; answers whether it did. */
  leave(): boolean {
    if (this.#open > 0) return false
    this.#fail('others needed its place')
    return true
  }

  #ask(asked: Asked, limitMs: number): Promise<Rows> {
    if (this.#end !== undefined) return Promise.reject(lost(this.#end))
    const id = ++this.#asked
    return new Promise((resolve, reject) => {
      const onTime = after(limitMs + graceMs, () => this.#fail('it does not answer', 'timeout'))
      this.#waiting.set(id, { resolve, reject, onTime })
      if (this.#waiting.size === 1) this.#worker.ref()
      this.#worker.postMessage({ ...asked, id })
    })
  }

  #take(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id)
    waiting?.onTime()
    this.#waiting.delete(id)
    if (this.#waiting.size === 0) this.#worker.unref()
    return waiting
  }

  /** At what it keeps. */
  #look(): void {
    this.#worker.getHeapStatistics().then(({ used_heap_size: heap, external_memory: outside }) => {
      if (heap + outside > heapMibMax * 2 ** 20) this.#fail('it keeps too much memory')
    }, () => undefined)
  }

  #fail(message: string, reason: 'violation' | 'timeout' = 'violation'): void {
    if (this.#end !== undefined) return
    this.#end = message
    this.#gone()
    this.#stay()
    this.#unwatch()
    for (const id of [...this.#waiting.keys()]) this.#take(id)?.reject(lost(message, reason))
    void this.#worker.terminate()
  }

  #rest(): void {
    this.#stay = after(idleMs, () => this.#fail('it was idle'))
  }
}

function lost(message: string, reason: 'violation' | 'timeout' = 'violation'): ConnectionLost {
  return new ConnectionLost(reason, `the driver gave up: ${message.slice(0, 200)}`)
}
