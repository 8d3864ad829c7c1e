// Time, in one place: nothing else in the house touches Date or setTimeout for more than a moment.
// Wall time is for what people read; durations and deadlines run on the monotonic clock, so that a clock that
// jumps neither prolongs nor ends anything. Node's timers overflow at 24.8 days (30 days would fire after 1
// ms), therefore a long wait is made of shorter ones.

/** Stops a timer that has not fired yet; calling it again does nothing. */
export type Cancel = () => void

export interface Clock {
  /** Wall time: for rows, records and people. */
  now(): Date
  /** Milliseconds that never go backwards: for durations and deadlines. */
  monotonicMs(): number
  /** Runs `act` once after `delayMs` of monotonic time, however long; does not keep the process alive. */
  after(delayMs: number, act: () => void): Cancel
}

// One day: well under the 2^31-1 ms at which setTimeout overflows.
const longestTimerMs = 86_400_000

export const systemClock: Clock = {
  now: () => new Date(),
  monotonicMs: () => performance.now(),
  after: (delayMs, act) => {
    const due = performance.now() + Math.max(0, delayMs)
    let timer: NodeJS.Timeout
    const arm = (): void => {
      const left = due - performance.now()
      const next = left > longestTimerMs ? arm : act
      timer = setTimeout(next, Math.min(Math.max(0, left), longestTimerMs))
      timer.unref()
    }
    arm()
    return () => clearTimeout(timer)
  }
}

/** Resolves after `delayMs`; rejects with the signal's reason when it is aborted first. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason as Error)
    const giveUp = (): void => {
      cancel()
      reject(signal?.reason as Error)
    }
    const cancel = clock.after(delayMs, () => {
      signal?.removeEventListener('abort', giveUp)
      resolve()
    })
    signal?.addEventListener('abort', giveUp, { once: true })
  })
}

/** Resolves after `delayMs` and keeps the process alive meanwhile: for a program that only waits. */
export function pause(delayMs: number): Promise<void> {
  return new Promise(resolve => { setTimeout(resolve, delayMs) })
}
