// Where recordings lie: `<root>/<yyyy>/<mm>/<dd>/<session>.spr`, and while one is being written a note
// `<root>/open/<session>` that says so, so that recovery looks at what a crash left and not at years of
// files. Everything is opened beneath the root only: names are checked against patterns, no symbolic link is
// followed, and a folder that is not where it should be (a planted link) is refused. Files are 0600, folders
// 0700.
import {
  constants, lstatSync, mkdirSync, openSync, readFileSync, readdirSync, realpathSync, unlinkSync,
  writeFileSync
} from 'node:fs'
import { join } from 'node:path'
import { SallyportError } from '../errors.ts'

const sessionPattern = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/
const startPattern = /^(\d{4})-(\d{2})-(\d{2})T/
const relativePattern = /^(\d{4}\/\d{2}\/\d{2})\/([A-Za-z0-9][A-Za-z0-9_-]{0,63})\.spr$/
const openFolder = 'open'

export const recordingSuffix = '.spr'
export const indexSuffix = '.spx'
/** What recovery cut off a file that a crash had torn: kept, in case it was no crash. */
export const tornSuffix = '.torn'

/** `recorder-failed` unless the id can be a file name. Ids are ours, but they come back through doors. */
export function checkSession(session: string): string {
  if (sessionPattern.test(session)) return session
  const shown = JSON.stringify(session.slice(0, 80))
  throw new SallyportError('recorder-failed', { detail: `not a session id: ${shown}` })
}

/** `2026/11/21/<session>.spr` for a session that started at this ISO time. */
export function relativePath(session: string, startedAt: string): string {
  const [, year, month, day] = startPattern.exec(startedAt) ?? []
  if (year === undefined || month === undefined || day === undefined) {
    throw new SallyportError('recorder-failed', { detail: `not an ISO time: ${JSON.stringify(startedAt)}` })
  }
  return `${year}/${month}/${day}/${checkSession(session)}${recordingSuffix}`
}

/** The session of a relative path, or undefined when this is no path of a recording. */
export function sessionOf(relative: string): string | undefined {
  return relativePattern.exec(relative)?.[2]
}

function folderOf(relative: string): string {
  const folder = relativePattern.exec(relative)?.[1]
  if (folder === undefined) {
    throw new SallyportError('recorder-failed', { detail: `not a recording: ${JSON.stringify(relative)}` })
  }
  return folder
}

/** The real path of a folder beneath the root; refuses when a link leads elsewhere. */
function checkFolder(root: string, folder: string): string {
  const wanted = join(realpathSync.native(root), folder)
  if (realpathSync.native(wanted) !== wanted) {
    throw new SallyportError('recorder-failed', { detail: `${folder} leads out of the recordings folder` })
  }
  return wanted
}

function makeFolder(root: string, folder: string, onMade: () => void): string {
  try {
    return checkFolder(root, folder)
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ENOENT') throw thrown
  }
  mkdirSync(join(root, folder), { recursive: true, mode: 0o700 })
  onMade()
  return checkFolder(root, folder)
}

/** The absolute path of an existing recording's file, or of a file beside it; throws `not-found`. */
export function resolveBeneath(root: string, relative: string, suffix: string = recordingSuffix): string {
  const folder = folderOf(relative)
  try {
    const name = `${sessionOf(relative)}${suffix}`
    return join(checkFolder(root, folder), name)
  } catch (thrown) {
    if (thrown instanceof SallyportError) throw thrown
    throw new SallyportError('not-found', { detail: `no recording ${relative}`, cause: thrown })
  }
}

/** Opens for reading, never through a link. The caller closes. */
export function openForReading(path: string): number {
  return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
}

/**
 * Makes the file, which must not exist, and the note that it is open (first: intent before effect). `onMade`:
 * a folder had to be made for them.
 */
export function createFile(root: string, relative: string, onMade: () => void): number {
  const folder = makeFolder(root, folderOf(relative), onMade)
  const session = checkSession(sessionOf(relative) ?? '')
  const note = join(makeFolder(root, openFolder, onMade), session)
  writeFileSync(note, relative, { flag: 'wx', mode: 0o600 })
  try {
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
    return openSync(join(folder, `${session}${recordingSuffix}`), flags, 0o600)
  } catch (thrown) {
    unlinkSync(note)
    throw thrown
  }
}

/** Takes the note away: the recording is sealed, or there was none. */
export function forgetOpen(root: string, session: string): void {
  try {
    unlinkSync(join(root, openFolder, checkSession(session)))
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ENOENT') throw thrown
  }
}

/** Sessions whose recording was begun and not sealed, in the order of their names. */
export function openSessions(root: string): string[] {
  try {
    return readdirSync(join(root, openFolder)).filter(name => sessionPattern.test(name)).sort()
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw thrown
  }
}

/**
 * The folders whose entries a new recording added to: they are synced, so that its name survives a power cut.
 * `above`: they change only when the folder of the day is new.
 */
export function foldersOf(relative: string): { day: string, open: string, above: string[] } {
  const [year = '', month = '', day = ''] = relative.split('/')
  return { day: `${year}/${month}/${day}`, open: openFolder, above: [`${year}/${month}`, year, ''] }
}

/** What the note of an open recording says: its relative path; undefined when there is no sensible note. */
export function notedPath(root: string, session: string): string | undefined {
  try {
    const relative = readFileSync(join(root, openFolder, checkSession(session)), 'utf8').trim()
    return sessionOf(relative) === session ? relative : undefined
  } catch {
    return undefined
  }
}

function namesIn(folder: string, pattern: RegExp): string[] {
  try {
    if (!lstatSync(folder).isDirectory()) return []
    return readdirSync(folder).filter(name => pattern.test(name)).sort().reverse()
  } catch {
    return []
  }
}

/** Every day folder, the newest first. */
export function* dayFolders(root: string): Generator<string> {
  for (const year of namesIn(root, /^\d{4}$/)) {
    for (const month of namesIn(join(root, year), /^\d{2}$/)) {
      for (const day of namesIn(join(root, year, month), /^\d{2}$/)) yield `${year}/${month}/${day}`
    }
  }
}

/** Relative paths of all recordings, the newest day first; within a day by name, descending. */
export function* allRecordings(root: string): Generator<string> {
  for (const day of dayFolders(root)) {
    for (const name of namesIn(join(root, day), /\.spr$/)) {
      const relative = `${day}/${name}`
      if (sessionOf(relative) !== undefined) yield relative
    }
  }
}

/** The relative path of a session's recording, wherever it lies; undefined when there is none. */
export function locate(root: string, session: string): string | undefined {
  const name = `${checkSession(session)}${recordingSuffix}`
  for (const day of dayFolders(root)) {
    try {
      if (lstatSync(join(root, day, name)).isFile()) return `${day}/${name}`
    } catch {
      // Not on that day.
    }
  }
  return undefined
}
