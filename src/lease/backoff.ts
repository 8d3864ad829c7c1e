// How long to wait before a removal is tried again: one second, then double each time up to five minutes, for
// ever, each wait stretched or shortened by up to half. Without the jitter thousands of accounts of a target
// that was away would all be tried in the same second; without an end they are never forgotten.
import { randomInt } from 'node:crypto'

export interface BackoffLimits {
  baseMs: number
  capMs: number
}

// Fine enough that two waits are hardly ever equal.
const jitterSteps = 10_001

/** A number from -0.5 to +0.5. */
export function randomJitter(): number {
  return randomInt(jitterSteps) / (jitterSteps - 1) - 0.5
}

/**
 * Milliseconds to wait after the given number of failed attempts (1 is the first); `jitter` is from -0.5 to
 * 0.5. Never more than the cap: the middle stops growing where the longest jitter reaches it.
 */
export function backoffMs(
  attempts: number, { baseMs, capMs }: BackoffLimits, jitter = randomJitter()
): number {
  // 2^30 steps are past any cap; more would overflow to Infinity, which is no time to wait.
  const doubled = baseMs * 2 ** Math.min(Math.max(0, attempts - 1), 30)
  return Math.round(Math.min(doubled, capMs / 1.5) * (1 + jitter))
}
