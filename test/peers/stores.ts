// Stores for tests: the same promises are tried on the embedded store and on a real PostgreSQL 15. Each
// `open` is a new, empty store (a new folder, or a new database of one server); `again` opens the same one
// once more. Everything goes away with `close`.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openDatabase } from '../../src/store/database.ts'
import type { Database, StoreOptions } from '../../src/store/database.ts'
import { startPostgres } from '../../tool/postgres.ts'
import type { PostgresServer } from '../../tool/postgres.ts'

export const storeKinds = ['pglite', 'postgres'] as const
export type StoreKind = (typeof storeKinds)[number]

export interface TestStore {
  database: Database
  /** `pglite` or the URL; with the folder enough to open it again. */
  store: string
  dataDir: string
  notices: string[]
  /** The same store, through a door of its own (the embedded one must be closed first). */
  again(options?: Partial<StoreOptions>): Promise<Database>
}

export interface StoreMaker {
  open(options?: Partial<StoreOptions>): Promise<TestStore>
  /** The server behind; only for `postgres`, after the first `open`. */
  server(): PostgresServer
  close(): Promise<void>
}

export function storeMaker(kind: StoreKind): StoreMaker {
  const folders: string[] = []
  const opened: Database[] = []
  let server: Promise<PostgresServer> | undefined
  let running: PostgresServer | undefined
  let count = 0

  const storeUrl = async (): Promise<string> => {
    if (kind === 'pglite') return kind
    server ??= startPostgres({ version: '15', settings: { max_connections: 60 } })
    running = await server
    const name = `store_${++count}`
    await running.psql(`create database ${name}`)
    return running.url(name)
  }
  return {
    async open(options = {}) {
      const dataDir = mkdtempSync(join(tmpdir(), 'sallyport-store-'))
      folders.push(dataDir)
      const notices: string[] = []
      const store = await storeUrl()
      const again = async (more: Partial<StoreOptions> = {}): Promise<Database> => {
        const database = await openDatabase({
          store, dataDir, onNotice: line => notices.push(line), ...options, ...more
        })
        opened.push(database)
        return database
      }
      return { database: await again(), store, dataDir, notices, again }
    },
    server() {
      if (running === undefined) throw new Error('no server yet')
      return running
    },
    async close() {
      for (const database of opened) await database.close()
      await (await server)?.stop()
      for (const folder of folders) rmSync(folder, { recursive: true, force: true })
    }
  }
}
