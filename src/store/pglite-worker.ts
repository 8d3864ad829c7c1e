// The embedded PostgreSQL (PGlite) in a thread of its own: one statement blocks for 0.3 ms and more, and
// must not block the bytes of a session. It answers raw protocol messages, so that the main thread can use
// the same driver as for a server. PGlite as shipped never calls fsync (measured: every acknowledged row
// lost at a power cut), and it swallows whatever goes wrong inside; so its file system is given a real
// fsync here, and after a failed write or sync nothing more is answered: the thread ends, and the next one
// recovers from the log. Started by embedded.ts, which holds the lock; nothing else may open the directory.
import { existsSync, fsyncSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { PGlite } from '@electric-sql/pglite'
import { NodeFS } from '@electric-sql/pglite/nodefs'
import type { FromWorker, ToWorker, WorkerSettings } from './embedded.ts'
import { makeFreshStore } from './fresh-store.ts'

type FileSystemOptions = Parameters<NodeFS['init']>[1]

/** What we touch of Emscripten's NODEFS. */
interface StreamOperations {
  fsync?: (stream: { nfd: number }) => number
  write(this: void, ...words: unknown[]): number
}

// What PGlite starts PostgreSQL with, without its `-F` (no fsync), and as small as one connection allows.
// fsync as the method: fdatasync is a stub that does nothing in this build.
const startParams = [
  '--single', '-O', '-j', ...Object.entries({
    search_path: 'public', exit_on_error: 'false', log_checkpoints: 'false', max_worker_processes: '0',
    max_parallel_workers: '0', max_parallel_workers_per_gather: '0', max_parallel_maintenance_workers: '0',
    io_method: 'sync', fsync: 'on', wal_sync_method: 'fsync', shared_buffers: '8MB', max_connections: '5'
  }).flatMap(([name, value]) => ['-c', `${name}=${value}`])
]
// A data directory belongs to one major version of PostgreSQL; PGlite has no upgrade in place.
const majorVersion = '18'
// EIO as wasi counts errors.
const inputOutputError = 29
const errorTag = 0x45

/**
 * NodeFS of PGlite with the one operation that it lacks; the first failure to write or sync is remembered.
 */
class SyncedFileSystem extends NodeFS {
  failure: Error | undefined

  override async init(pg: PGlite, given: FileSystemOptions): ReturnType<NodeFS['init']> {
    const made = await super.init(pg, given)
    const complete = (module: unknown): void => {
      const { stream_ops: operations } = (module as { NODEFS: { stream_ops: StreamOperations } }).NODEFS
      const { write } = operations
      operations.write = (...words) => this.#watched(() => write(...words))
      // The number goes to C as it is: 0 is success, and an exception would unwind PostgreSQL half way.
      operations.fsync = ({ nfd }) => {
        try {
          this.#watched(() => fsyncSync(nfd))
          return 0
        } catch {
          return inputOutputError
        }
      }
    }
    const { preRun = [], ...options } = made.emscriptenOpts
    return { emscriptenOpts: { ...options, preRun: [...preRun, complete] } }
  }

  #watched<T>(act: () => T): T {
    try {
      return act()
    } catch (thrown) {
      this.failure ??= new Error('the disk refused a write or a sync', { cause: thrown })
      throw thrown
    }
  }
}

async function open(directory: string): Promise<{ database: PGlite, files: SyncedFileSystem }> {
  const version = join(directory, 'PG_VERSION')
  if (!existsSync(version)) await makeFreshStore(directory, pgliteVersion(), initialise)
  const found = readFileSync(version, 'utf8').trim()
  if (found !== majorVersion) {
    throw new Error(`${directory} is of PostgreSQL ${found}, this program embeds ${majorVersion}`)
  }
  const files = new SyncedFileSystem(directory)
  return { database: await PGlite.create({ fs: files, startParams }), files }
}

function pgliteVersion(): string {
  const require = createRequire(import.meta.url)
  const packageFile = join(require.resolve('@electric-sql/pglite'), '../../package.json')
  return (JSON.parse(readFileSync(packageFile, 'utf8')) as { version: string }).version
}

async function initialise(): Promise<Uint8Array> {
  const scratch = await PGlite.create()
  const tar = await scratch.dumpDataDir('none')
  await scratch.close()
  return new Uint8Array(await tar.arrayBuffer())
}

/** A simple query message (PostgreSQL protocol, "Query"). */
function query(text: string): Uint8Array {
  const body = Buffer.from(`${text}\0`)
  const message = Buffer.alloc(5 + body.length)
  message.write('Q')
  message.writeInt32BE(4 + body.length, 1)
  body.copy(message, 5)
  return message
}

/** True when PostgreSQL said that it stops (ErrorResponse of severity FATAL or PANIC); PGlite would go on. */
function saysGoodbye(answer: Uint8Array): boolean {
  const bytes = Buffer.from(answer.buffer, answer.byteOffset, answer.byteLength)
  for (let at = 0; at + 5 <= bytes.length; at += 1 + bytes.readInt32BE(at + 1)) {
    if (bytes[at] !== errorTag) continue
    const fields = bytes.toString('latin1', at + 5, at + 1 + bytes.readInt32BE(at + 1))
    if (/(^|\0)V(FATAL|PANIC)\0/.test(fields)) return true
  }
  return false
}

async function serve(): Promise<void> {
  const port = parentPort
  if (port === null) throw new Error('this file is started as a worker by embedded.ts')
  const answer = (message: FromWorker, transfer: ArrayBuffer[] = []): void =>
    port.postMessage(message, transfer)
  const { database, files } = await open((workerData as WorkerSettings).directory)

  // The plain call of PGlite keeps every answer that it ever gave; the streaming one hands them over.
  const exchange = async (bytes: Uint8Array): Promise<Uint8Array<ArrayBuffer>> => {
    const parts: Uint8Array[] = []
    const onRawData = (part: Uint8Array): void => void parts.push(part.slice())
    await database.execProtocolRawStream(bytes, { syncToFs: false, onRawData })
    const reply = new Uint8Array(Buffer.concat(parts))
    if (files.failure !== undefined) throw files.failure
    // Everything that is sent has an answer: none means that the server inside is dead.
    if (reply.length === 0 || saysGoodbye(reply)) throw new Error('PostgreSQL stopped inside')
    return reply
  }
  const handle = async (message: ToWorker): Promise<void> => {
    if (message.kind === 'connect') {
      // A new connection of the driver over the one session that there is: nothing of the last may show.
      if (database.isInTransaction()) await exchange(query('rollback'))
      await exchange(query('discard all'))
    } else if (message.kind === 'bytes') {
      const bytes = await exchange(message.bytes)
      answer({ kind: 'bytes', connection: message.connection, bytes }, [bytes.buffer])
    } else {
      await database.close()
      answer({ kind: 'closed' })
    }
  }
  // One after the other; what fails here ends the thread.
  let last: Promise<void> = Promise.resolve()
  port.on('message', (message: ToWorker) => {
    last = last.then(() => handle(message))
  })
  answer({ kind: 'ready' })
}

await serve()
