// One process at a time in the embedded store: two of them acknowledge writes that the other never sees,
// and the directory is damaged. The kernel holds the lock and gives it up at the moment when the process
// dies, whatever its pid, container or clock; Node has no flock(2), so it is taken through SQLite, whose
// exclusive transaction is a fcntl(2) lock on its file. Beside it `store.lock` names the holder (created
// with O_EXCL; pid, start time and boot id), for the error message and as a second opinion on file systems
// that do not lock: a holder that is alive is never displaced, at no age.
import {
  closeSync, fsyncSync, mkdirSync, openSync, readFileSync, readlinkSync, rmSync, writeSync
} from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { SallyportError } from '../errors.ts'

interface Holder {
  pid: number
  /** Clock ticks after boot at which it started (proc_pid_stat(5), field 22): pids are used again. */
  startTicks: string
  bootId: string
  /** Pids mean nothing in another namespace. */
  pidNamespace: string
}

export interface StoreLock {
  release(): void
}

/** Takes the lock of `folder`, or throws `store-unavailable` naming the process that has it. */
export function takeStoreLock(folder: string, onNotice: (line: string) => void): StoreLock {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const path = join(folder, 'store.lock')
  const kernel = takeKernelLock(join(folder, 'store.lock.kernel'), () => readHolder(path))
  try {
    const former = readHolder(path)
    if (former !== undefined && isAlive(former)) throw heldBy(former)
    if (former !== undefined) onNotice(`store: taking over the lock of process ${former.pid}, which is dead`)
    rmSync(path, { force: true })
    writeHolder(path)
  } catch (thrown) {
    kernel.close()
    throw thrown
  }
  return {
    release() {
      rmSync(path, { force: true })
      kernel.close()
    }
  }
}

function takeKernelLock(path: string, holder: () => Holder | undefined): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: 0 })
  try {
    database.exec('begin exclusive')
    return database
  } catch (thrown) {
    database.close()
    if ((thrown as { errcode?: number }).errcode !== sqliteBusy) throw thrown
    throw heldBy(holder())
  }
}

const sqliteBusy = 5

function heldBy(holder: Holder | undefined): SallyportError {
  const who = holder === undefined ? 'another process' : `process ${holder.pid}`
  return new SallyportError('store-unavailable', {
    detail: `store: the data folder is in use by ${who}; stop it, or point \`data\` at another folder`
  })
}

function writeHolder(path: string): void {
  const self: Holder = {
    pid: process.pid, startTicks: startTicksOf('self') ?? '', bootId: bootId(), pidNamespace: pidNamespace()
  }
  const file = openSync(path, 'wx', 0o600)
  try {
    writeSync(file, `${JSON.stringify(self)}\n`)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}

// A crash between creating and writing leaves an empty file: nobody is named in it, so nobody holds it.
function readHolder(path: string): Holder | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Holder
  } catch {
    return undefined
  }
}

function isAlive(holder: Holder): boolean {
  if (holder.bootId !== bootId() || holder.pidNamespace !== pidNamespace()) return false
  return startTicksOf(String(holder.pid)) === holder.startTicks
}

function startTicksOf(pid: string): string | undefined {
  const stat = readOrNothing(`/proc/${pid}/stat`)
  // The second field is the program's name in parentheses and may hold spaces: count from its end.
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')
  // A zombie is dead: it only waits for its parent to read its exit status.
  return fields?.[0] === 'Z' ? undefined : fields?.[19]
}

function bootId(): string {
  return readOrNothing('/proc/sys/kernel/random/boot_id')?.trim() ?? ''
}

function pidNamespace(): string {
  try {
    return readlinkSync('/proc/self/ns/pid')
  } catch {
    return ''
  }
}

function readOrNothing(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}
