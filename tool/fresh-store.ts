// Makes src/store/fresh-store-<PGlite version>.tar.br: the empty embedded store that a first start unpacks
// instead of running initdb (5.5 s of CPU). Run it after every upgrade of PGlite: `node
// tool/fresh-store.ts`. It holds what initdb wrote and nothing else; without the file the first start is
// slower and otherwise the same.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { execFileSync } from 'node:child_process'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { brotliCompressSync, constants } from 'node:zlib'
import { PGlite } from '@electric-sql/pglite'
import { freshStorePath } from '../src/store/fresh-store.ts'

const entryFile = fileURLToPath(import.meta.resolve('@electric-sql/pglite'))
const packageFile = join(dirname(entryFile), '../package.json')
const { version } = JSON.parse(readFileSync(packageFile, 'utf8')) as { version: string }
const folder = mkdtempSync(join(tmpdir(), 'fresh-store-'))
try {
  const database = await PGlite.create(join(folder, 'store'))
  await database.exec('checkpoint')
  await database.close()
  // Sorted, owned by nobody in particular, and without times: the same files give the same bytes.
  const tar = execFileSync('tar', [
    '--format=ustar', '--sort=name', '--owner=0', '--group=0', '--numeric-owner', '--mtime=@0',
    '-C', join(folder, 'store'), '-cf', '-', '.'
  ], { maxBuffer: 2 ** 28 })
  const packed = brotliCompressSync(tar, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 24 }
  })
  writeFileSync(freshStorePath(version), packed)
  console.log(`${fileURLToPath(freshStorePath(version))}: ${packed.length} bytes`)
} finally {
  rmSync(folder, { recursive: true })
}
