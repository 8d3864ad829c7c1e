// A process that writes to an embedded store and says after each commit which one it was: `ack N`, or
// `refused N CODE`. Tests and tool/power-loss.ts kill it, trace it, cut its disk, and then look whether a
// store that was opened again has everything that it acknowledged: `node test/peers/store-writer.ts FOLDER
// [COUNT] [FIRST] [--unsynced]`. `--unsynced` writes the same through PGlite as it is shipped, which never
// syncs: the control of such a test.
import { writeSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { PGlite } from '@electric-sql/pglite'
import { SallyportError } from '../../src/errors.ts'
import { openDatabase } from '../../src/store/database.ts'
import type { Database } from '../../src/store/database.ts'
import { setting } from '../../src/store/schema.ts'

const rowsEach = 3

async function write(folder: string, count: number, first: number): Promise<void> {
  const database = await openDatabase({ store: 'pglite', dataDir: folder })
  writeSync(1, 'ready\n')
  for (let number = first; number < first + count; number++) {
    try {
      await database.transaction(async tx => {
        for (let part = 0; part < rowsEach; part++) {
          await tx.insert(setting).values({ key: `writer-${number}-${part}`, value: 'x'.repeat(200) })
        }
      })
      writeSync(1, `ack ${number}\n`)
    } catch (thrown) {
      if (!(thrown instanceof SallyportError)) throw thrown
      writeSync(1, `refused ${number} ${thrown.code}\n`)
    }
  }
  await database.close()
}

async function writeUnsynced(folder: string, count: number, first: number): Promise<void> {
  const made = await openDatabase({ store: 'pglite', dataDir: folder })
  await made.close()
  const database = await PGlite.create(join(folder, 'store'))
  writeSync(1, 'ready\n')
  for (let number = first; number < first + count; number++) {
    const value = `"${'x'.repeat(200)}"`
    const rows = Array.from({ length: rowsEach }, (_, part) => `('writer-${number}-${part}', '${value}')`)
    await database.exec(`insert into setting (key, value) values ${rows.join()}`)
    writeSync(1, `ack ${number}\n`)
  }
}

/** The numbers of the transactions that are there; throws when one is there in part. */
export async function writtenNumbers(database: Database): Promise<Set<number>> {
  const rows = await database.run(handle => handle.select({ key: setting.key }).from(setting))
  const parts = new Map<number, number>()
  for (const { key } of rows) {
    const number = /^writer-(\d+)-\d+$/.exec(key)?.[1]
    if (number !== undefined) parts.set(Number(number), (parts.get(Number(number)) ?? 0) + 1)
  }
  for (const [number, count] of parts) {
    if (count !== rowsEach) throw new Error(`transaction ${number}: ${count} of ${rowsEach} rows`)
  }
  return new Set(parts.keys())
}

/** The numbers that the writer acknowledged, from its output. */
export function acknowledged(output: string): number[] {
  return [...output.matchAll(/^ack (\d+)$/gm)].map(match => Number(match[1]))
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [folder = '', count = '1000000', first = '0', mode] = process.argv.slice(2)
  await (mode === '--unsynced' ? writeUnsynced : write)(folder, Number(count), Number(first))
}
