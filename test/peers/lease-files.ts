// A target whose accounts outlive processes: one file for each. Crash tests kill the process that made them
// and look with another one at what is left. Not synced on purpose: what is swept there is the store's
// writes, and a killed process loses nothing that it gave to the kernel.
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Shelf, Standing } from './lease-target.ts'

export function fileShelf(folder: string): Shelf {
  const read = (name: string): Standing | undefined => {
    try {
      return JSON.parse(readFileSync(join(folder, name), 'utf8')) as Standing
    } catch {
      return undefined
    }
  }
  return {
    get: read,
    set: (name, standing) => writeFileSync(join(folder, name), JSON.stringify(standing)),
    delete: name => rmSync(join(folder, name), { force: true }),
    names: () => readdirSync(folder)
  }
}
