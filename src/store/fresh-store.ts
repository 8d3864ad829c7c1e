// The empty embedded store. initdb in wasm costs 5.5 s of CPU and a gigabyte, so the result of one run for
// this PGlite version ships compressed beside this file (1.3 MB, made by tool/fresh-store.ts); without it,
// or after an upgrade of PGlite, initdb runs in memory. Either way the files are written beside the final
// place, synced, and renamed: a power cut during the first start leaves no half-made store that a later
// start would believe in.
import {
  closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, readdirSync, renameSync, rmSync,
  writeFileSync
} from 'node:fs'
import { open } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { brotliDecompressSync } from 'node:zlib'

const blockBytes = 512
// A thousand files: one after the other each waits for the disk, together they share its writes.
const syncsAtOnceMax = 16

/** Where the prepared empty store of a PGlite version lies. */
export function freshStorePath(pgliteVersion: string): URL {
  return new URL(`./fresh-store-${pgliteVersion}.tar.br`, import.meta.url)
}

/** Makes an empty store at `directory`, durably. `initialise` returns a tar of one where none is prepared. */
export async function makeFreshStore(
  directory: string, pgliteVersion: string, initialise: () => Promise<Uint8Array>
): Promise<void> {
  const prepared = freshStorePath(pgliteVersion)
  const tar = existsSync(prepared) ? brotliDecompressSync(readFileSync(prepared)) : await initialise()
  const unfinished = `${directory}.new`
  rmSync(unfinished, { recursive: true, force: true })
  unpackTar(tar, unfinished)
  await syncTree(unfinished)
  renameSync(unfinished, directory)
  sync(dirname(directory))
}

/**
 * Writes the files and folders of a ustar archive (POSIX.1-1988) below `directory`; only our own archives
 * come here.
 */
function unpackTar(tar: Uint8Array, directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const bytes = Buffer.from(tar.buffer, tar.byteOffset, tar.byteLength)
  const textAt = (start: number, length: number): string =>
    bytes.subarray(start, start + length).toString('utf8').replace(/\0.*$/s, '')
  for (let at = 0; at + blockBytes <= bytes.length && bytes[at] !== 0;) {
    const path = join(directory, textAt(at + 345, 155), textAt(at, 100))
    const size = Number.parseInt(textAt(at + 124, 12), 8)
    const kind = textAt(at + 156, 1)
    at += blockBytes
    if (kind === '5') mkdirSync(path, { recursive: true, mode: 0o700 })
    else {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
      writeFileSync(path, bytes.subarray(at, at + size), { mode: 0o600 })
    }
    at += Math.ceil(size / blockBytes) * blockBytes
  }
}

async function syncTree(directory: string): Promise<void> {
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true })
  const paths = entries.map(entry => join(entry.parentPath, entry.name))
  const work = async (): Promise<void> => {
    for (let path = paths.pop(); path !== undefined; path = paths.pop()) {
      await using file = await open(path)
      await file.sync()
    }
  }
  await Promise.all(Array.from({ length: syncsAtOnceMax }, work))
  sync(directory)
}

function sync(path: string): void {
  const file = openSync(path, 'r')
  try {
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}
