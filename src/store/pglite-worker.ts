// The embedded PostgreSQL (PGlite) in a thread of its own: one statement blocks for 0.3 ms and more, and must not
// block the bytes of a session. It answers raw protocol messages, so that the main thread can use the same driver
// as for a server. PGlite as shipped never calls fsync (measured: every acknowledged row lost at a power cut): here
// its file system is given a real fsync, and the server is started with fsync on.
// Started by embedded.ts, which holds the lock; nothing else may open the directory.
import { existsSync, fsyncSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { parentPort, workerData } from 'node:worker_threads'
import { PGlite } from '@electric-sql/pglite'
import type { PGliteOptions } from '@electric-sql/pglite'
import { NodeFS } from '@electric-sql/pglite/nodefs'
import type { FromWorker, ToWorker, WorkerSettings } from './embedded.ts'
import { makeFreshStore } from './fresh-store.ts'

type FileSystemOptions = Parameters<NodeFS['init']>[1]

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

/** NodeFS of PGlite with the one operation that it lacks. */
class SyncedFileSystem extends NodeFS {
  override async init(pg: PGlite, options: FileSystemOptions): ReturnType<NodeFS['init']> {
    const made = await super.init(pg, options)
    const giveSync = (module: unknown): void => {
      const { NODEFS } = module as { NODEFS: { stream_ops: { fsync?: (stream: { nfd: number }) => void } } }
      NODEFS.stream_ops.fsync = stream => fsyncSync(stream.nfd)
    }
    return { emscriptenOpts: { ...made.emscriptenOpts, preRun: [...made.emscriptenOpts.preRun ?? [], giveSync] } }
  }
}

async function open(directory: string): Promise<PGlite> {
  const version = join(directory, 'PG_VERSION')
  if (!existsSync(version)) await makeFreshStore(directory, pgliteVersion(), initialise)
  const found = readFileSync(version, 'utf8').trim()
  if (found !== majorVersion) {
    throw new Error(`the store in ${directory} is of PostgreSQL ${found}, this program embeds ${majorVersion}`)
  }
  const options: PGliteOptions = { fs: new SyncedFileSystem(directory), startParams }
  return PGlite.create(options)
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

async function serve(): Promise<void> {
  const port = parentPort
  if (port === null) throw new Error('this file is started as a worker by embedded.ts')
  const answer = (message: FromWorker, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer)
  const database = await open((workerData as WorkerSettings).directory)

  // The plain call of PGlite keeps every answer that it ever gave; the streaming one hands them over.
  const exchange = async (bytes: Uint8Array): Promise<Uint8Array<ArrayBuffer>> => {
    const parts: Uint8Array[] = []
    await database.execProtocolRawStream(bytes, { syncToFs: false, onRawData: part => parts.push(part.slice()) })
    return new Uint8Array(parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts))
  }
  const handle = async (message: ToWorker): Promise<void> => {
    if (message.kind === 'connect') {
      // A new connection of the driver over the one session that there is: nothing of the last may show.
      if (database.isInTransaction()) await exchange(query('rollback'))
      await exchange(query('discard all'))
    } else if (message.kind === 'bytes') {
      const bytes = await exchange(message.bytes)
      // PGlite swallows a PANIC (WAL not writable). Everything that is sent has an answer: none means that the
      // server inside is dead, and this thread with it; the next one recovers from the log.
      if (bytes.length === 0) throw new Error('PostgreSQL stopped inside')
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
