// The embedded store, seen from the main thread: a worker (pglite-worker.ts) that speaks the PostgreSQL
// protocol, and a stream to it that the driver takes for a socket. There is one connection, because there
// is one session behind it. A worker that dies (disk full makes PostgreSQL give up) breaks that connection;
// the next one starts a new worker, which recovers from its log. The lock is held from open to close, also
// while no worker runs.
import { join } from 'node:path'
import { Duplex } from 'node:stream'
import { setFlagsFromString } from 'node:v8'
import { Worker } from 'node:worker_threads'
import type { Clock } from '../clock.ts'
import { SallyportError } from '../errors.ts'
import type { Backend } from './backend.ts'
import { createConnection, lost } from './backend.ts'
import { takeStoreLock } from './lock.ts'

export interface WorkerSettings {
  directory: string
}

export type ToWorker =
  | { kind: 'connect' }
  | { kind: 'bytes', connection: number, bytes: Uint8Array }
  | { kind: 'close' }

export type FromWorker =
  | { kind: 'ready' }
  | { kind: 'bytes', connection: number, bytes: Uint8Array<ArrayBuffer> }
  | { kind: 'closed' }

interface EmbeddedOptions {
  dataDir: string
  clock: Clock
  onNotice: (line: string) => void
}

const terminateTag = 0x58
// The shutdown checkpoint; when it takes longer, the log has everything and the next start replays it.
const closeMsMax = 10_000
// Roughly the bytes that a function of PostgreSQL runs through before V8 optimises it; V8's own 13 MB are
// reached by what a start runs once, and optimising that is a third of all CPU that a start takes.
const optimisedAfterBytes = 400_000_000

/** Takes the lock, starts the worker, makes the store when there is none. Throws `store-unavailable`. */
export async function openEmbedded({ dataDir, clock, onNotice }: EmbeddedOptions): Promise<Backend> {
  const lock = takeStoreLock(dataDir, onNotice)
  const settings: WorkerSettings = { directory: join(dataDir, 'store') }
  const connections = new Set<StoreConnection>()
  let worker: Promise<Worker> | undefined
  let gone: Promise<void> = Promise.resolve()
  let connectionCount = 0
  let closing = false

  const start = (): Promise<Worker> => {
    if (closing) return Promise.reject(lost())
    if (worker !== undefined) return worker
    // Never two threads on one directory: the last one must be gone.
    const started: Promise<Worker> = gone.then(() => startWorker(settings, {
      answered: (connection, bytes) => {
        for (const open of connections) if (open.id === connection) open.answered(bytes)
      },
      died: reason => {
        if (worker === started) worker = undefined
        if (!closing) onNotice(`store: the embedded store stopped and will be started again: ${reason}`)
        for (const open of connections) if (open.worker === started) open.destroy()
      }
    }))
    worker = started
    return started
  }
  // The thread is inside PostgreSQL and cannot be asked to stop. The next one rolls back what it had not
  // committed.
  const giveUp = (): void => {
    const stuck = worker
    worker = undefined
    gone = Promise.all([gone, stuck?.then(thread => thread.terminate())]).then(() => {}, () => {})
  }
  const dial = (): Duplex => {
    const connection: StoreConnection = new StoreConnection(++connectionCount, start(), stuck => {
      connections.delete(connection)
      if (stuck) giveUp()
    })
    connections.add(connection)
    return connection
  }

  await start().catch((thrown: unknown) => {
    lock.release()
    throw doesNotOpen(thrown)
  })
  return {
    store: 'pglite',
    connectionsMax: 1,
    connect: () => createConnection(dial, { user: 'postgres', database: 'postgres' }),
    async close() {
      closing = true
      for (const open of connections) open.destroy()
      const last = worker
      if (last !== undefined) await last.then(thread => stopWorker(thread, clock), () => {})
      await gone
      lock.release()
    }
  }
}

function doesNotOpen(thrown: unknown): SallyportError {
  const why = thrown instanceof Error ? thrown.message : 'unknown'
  return new SallyportError('store-unavailable', { detail: `store: it does not open: ${why}` })
}

interface WorkerEvents {
  answered(connection: number, bytes: Uint8Array): void
  died(reason: string): void
}

function startWorker(settings: WorkerSettings, events: WorkerEvents): Promise<Worker> {
  setFlagsFromString(`--wasm-tiering-budget=${optimisedAfterBytes}`)
  const worker = new Worker(new URL('./pglite-worker.ts', import.meta.url), { workerData: settings })
  return new Promise((resolve, reject) => {
    let reason = 'it ended'
    worker.on('message', (message: FromWorker) => {
      if (message.kind === 'ready') resolve(worker)
      else if (message.kind === 'bytes') events.answered(message.connection, message.bytes)
    })
    worker.on('error', thrown => {
      reason = thrown instanceof Error ? thrown.message : String(thrown)
    })
    worker.on('exit', () => {
      reject(new Error(reason))
      events.died(reason)
    })
  })
}

async function stopWorker(worker: Worker, clock: Clock): Promise<void> {
  await new Promise<void>(resolve => {
    const cancel = clock.after(closeMsMax, resolve)
    const done = (): void => {
      cancel()
      resolve()
    }
    worker.on('message', (message: FromWorker) => {
      if (message.kind === 'closed') done()
    })
    worker.once('exit', done)
    worker.postMessage({ kind: 'close' } satisfies ToWorker)
  })
  await worker.terminate()
}

/** What the driver takes for a socket: bytes to the worker and back. */
class StoreConnection extends Duplex {
  readonly id: number
  readonly worker: Promise<Worker>
  readonly #onClosed: (stuck: boolean) => void
  #unanswered = 0

  constructor(id: number, worker: Promise<Worker>, onClosed: (stuck: boolean) => void) {
    super()
    this.id = id
    this.worker = worker
    this.#onClosed = onClosed
  }

  /** As of net.Socket; the driver waits for `closed` before it believes that a connection has ended. */
  get readyState(): 'open' | 'closed' {
    return this.destroyed ? 'closed' : 'open'
  }

  override _construct(done: (error?: Error) => void): void {
    this.worker.then(
      worker => {
        worker.postMessage({ kind: 'connect' } satisfies ToWorker)
        done()
      },
      () => done(lost())
    )
  }

  answered(bytes: Uint8Array): void {
    this.#unanswered--
    this.push(bytes)
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error) => void): void {
    // Terminate: the session behind goes on, for the next connection.
    if (chunk[0] === terminateTag) return done()
    this.worker.then(
      worker => {
        if (this.destroyed) return done(lost())
        const bytes = new Uint8Array(chunk)
        this.#unanswered++
        worker.postMessage({ kind: 'bytes', connection: this.id, bytes } satisfies ToWorker, [bytes.buffer])
        done()
      },
      () => done(lost())
    )
  }

  override _read(): void {
    // The worker pushes; one statement is in flight at a time, so there is nothing to hold back.
  }

  override _final(done: (error?: Error) => void): void {
    done()
    this.destroy()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#onClosed(this.#unanswered > 0)
    done(error)
  }
}
