// Writes that must not be lost because the store was away for a moment: the ends of sessions (F13). What
// the store cannot take is remembered in this process and tried again, in order; if the process dies first,
// recovery finds the session of an older boot and closes it as interrupted. Only for writes that may run
// twice.
import type { Cancel, Clock } from '../clock.ts'
import { SallyportError, asSallyportError } from '../errors.ts'

export interface Replay {
  /**
   * Runs `write`. When the store is unavailable it rejects with that at once and runs it again later;
   * behind others that wait, so that the order stays.
   */
  insist(write: () => Promise<void>): Promise<void>
  waiting(): number
  /** Tries once more what waits. Never throws. */
  close(): Promise<void>
}

const retryMs = 1_000
// One for each end of a session: more than a node can have open.
const waitingMax = 100_000

export function createReplay(clock: Clock): Replay {
  const waiting: (() => Promise<void>)[] = []
  let cancelTimer: Cancel | undefined
  let draining: Promise<void> | undefined
  let closed = false

  const drain = async (): Promise<void> => {
    for (let write = waiting[0]; write !== undefined; write = waiting[0]) {
      try {
        await write()
      } catch (thrown) {
        // Anything but an absent store would fail the same way for ever.
        if (asSallyportError(thrown).code === 'store-unavailable') break
      }
      waiting.shift()
    }
  }
  const start = (): void => {
    cancelTimer = undefined
    draining ??= drain().finally(() => {
      draining = undefined
      arm()
    })
  }
  // What waits always has a timer or somebody who is at it; else it would wait until the next start.
  const arm = (): void => {
    if (waiting.length === 0 || draining !== undefined || closed) return
    cancelTimer ??= clock.after(retryMs, start)
  }

  return {
    async insist(write) {
      if (waiting.length === 0) {
        try {
          return await write()
        } catch (thrown) {
          if (asSallyportError(thrown).code !== 'store-unavailable') throw thrown
        }
      }
      if (waiting.length < waitingMax) waiting.push(write)
      arm()
      const detail = 'remembered, and written when the store is back'
      throw new SallyportError('store-unavailable', { detail })
    },
    waiting: () => waiting.length,
    async close() {
      closed = true
      cancelTimer?.()
      await draining
      await drain()
    }
  }
}
