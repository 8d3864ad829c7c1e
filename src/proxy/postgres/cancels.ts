// Cancel requests. A client may ask, over a new connection, that the statement of another one be cancelled;
// its only proof is the key that it was given at login. The key is ours (random), the process id is the
// target's own, because clients compare it with pg_stat_activity. A right key is answered by a cancel request
// of ours with the target's real key; a wrong one by nothing at all, and it counts as a failed login of its
// source, since a key of 4 bytes can be guessed (protocol 3.2 has 32 bytes). A key dies with its session.
import { randomBytes, timingSafeEqual } from 'node:crypto'

/** Protocol 3.0 has room for 4 bytes, 3.2 for up to 256. */
const shortKeyBytes = 4
const longKeyBytes = 32

export interface CancelKey {
  pid: number
  key: Buffer
}

export interface CancelKeys {
  /** Draws a key for the backend `pid`; `forward` passes a cancel request on to the target. */
  enter(pid: number, minor: number, forward: () => Promise<unknown>): CancelKey & { leave(): void }
  /**
   * False for a key that is nobody's. A request that comes while another one is under way is part of that
   * one.
   */
  cancel(pid: number, key: Buffer): boolean
  readonly size: number
}

interface Entry {
  key: Buffer
  forward: () => Promise<unknown>
  underWay: boolean
}

export function createCancelKeys(): CancelKeys {
  // Sessions on different targets may have backends with the same number.
  const entries = new Map<number, Entry[]>()
  let size = 0
  const find = (pid: number, key: Buffer): Entry | undefined => entries.get(pid)?.find(entry =>
    entry.key.length === key.length && timingSafeEqual(entry.key, key))

  return {
    enter(pid, minor, forward) {
      const keyBytes = minor >= 2 ? longKeyBytes : shortKeyBytes
      let key = randomBytes(keyBytes)
      while (find(pid, key) !== undefined) key = randomBytes(keyBytes)
      const entry: Entry = { key, forward, underWay: false }
      const same = entries.get(pid)
      if (same === undefined) entries.set(pid, [entry])
      else same.push(entry)
      size++
      const leave = (): void => {
        const left = entries.get(pid)?.filter(each => each !== entry) ?? []
        if (left.length === (entries.get(pid)?.length ?? 0)) return
        size--
        if (left.length === 0) entries.delete(pid)
        else entries.set(pid, left)
      }
      return { pid, key, leave }
    },
    cancel(pid, key) {
      const entry = find(pid, key)
      if (entry === undefined) return false
      if (!entry.underWay) {
        entry.underWay = true
        const done = (): void => { entry.underWay = false }
        entry.forward().then(done, done)
      }
      return true
    },
    get size() { return size }
  }
}
