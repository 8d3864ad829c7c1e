// Where the test files put what they make: a folder of its own in memory where there is plenty of it. Every
// store, server and recording of a test is synced to the disk as the product does it, thousands of times in a
// run, and the files of several tests wait for one disk. Nothing that a test proves depends on it: processes
// are killed, not the machine (that is tool/power-loss.ts), and which syncs are made is seen by strace.
// A `TMPDIR` of whoever runs the tests is left as it is.
import {
  chmodSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, statfsSync
} from 'node:fs'
import { join } from 'node:path'

const memory = '/dev/shm'
const prefix = 'sallyport-test-'
// Four files at once have some 1 GiB in their folders, and servers and browsers beside them 2 GiB.
const freeBytesMin = 4 * 1024 ** 3
const availableBytesMin = 8 * 1024 ** 3
// A tenth of a second more between each.
const retriesMax = 4

/** A folder in memory that everybody may use, as /tmp; undefined where there is none, or too little. */
export function folderInMemory(): string | undefined {
  if (process.env['TMPDIR'] !== undefined || !isRoomy()) return undefined
  removeLeftOvers(memory)
  const folder = mkdtempSync(join(memory, `${prefix}${process.pid}-`))
  chmodSync(folder, 0o1777)
  return folder
}

function isRoomy(): boolean {
  try {
    const mounts = readFileSync('/proc/mounts', 'utf8').split('\n').map(line => line.split(' '))
    const [, , kind, options = ''] = mounts.findLast(([, place]) => place === memory) ?? []
    const { bavail, bsize } = statfsSync(memory)
    // Some tests run programs that they have put there.
    return kind === 'tmpfs' && !options.split(',').includes('noexec') && bavail * bsize >= freeBytesMin &&
      process.availableMemory() >= availableBytesMin
  } catch {
    return false
  }
}

/** Of runs that were killed. */
export function removeLeftOvers(place: string): void {
  for (const name of readdirSync(place)) {
    const pid = new RegExp(`^${prefix}(\\d+)-`).exec(name)?.[1]
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) removeFolder(join(place, name))
  }
}

/**
 * What others own, or what a process that was just ended still writes to, may stay: that says nothing of the
 * tests.
 */
export function removeFolder(folder: string): void {
  try {
    rmSync(folder, { recursive: true, force: true, maxRetries: retriesMax })
  } catch { /* the next run tries again */ }
}
