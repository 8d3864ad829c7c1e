// Waits for what comes by itself and cannot be waited for otherwise: asks again until it is so.
import * as assert from 'uvu/assert'
import { sleep, systemClock } from '../../src/clock.ts'

/** Asks until it is so, or fails with the last answer. */
export async function until<T>(ask: () => T | Promise<T>, isSo: (value: T) => boolean): Promise<T> {
  const deadlineMs = systemClock.monotonicMs() + 30_000
  for (;;) {
    const value = await ask()
    if (isSo(value)) return value
    assert.ok(systemClock.monotonicMs() < deadlineMs, JSON.stringify(value))
    await sleep(systemClock, 50)
  }
}
