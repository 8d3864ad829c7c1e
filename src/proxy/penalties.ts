// How often a source may fail before it has to wait. Sources are addresses, never user names: a stranger who
// types wrong passwords for alice must not lock alice out. The sum drains by itself, so nobody has to let
// anybody in again. What breaks without it: a password can be tried as fast as the machine can answer (R12).
import type { Clock } from '../clock.ts'
import { sourceOf } from './source.ts'

/**
 * Sources that are remembered; beyond it the one that failed longest ago is forgotten. 10,000 are about 1
 * MiB.
 */
const sourcesMax = 10_000

export interface Penalties {
  /** True while the source has to wait. */
  throttled(address: string): boolean
  failed(address: string): void
}

/** The same by whatever key. */
export interface Shares {
  throttled(key: string): boolean
  failed(key: string): void
  /** It was no failure: what `failed` counted is taken back. */
  forgiven(key: string): void
}

/**
 * Lets `perMinute` failures of one source pass in any minute. Whoever passes that waits until enough time has
 * gone by for the failures before, one for each `60 s / perMinute`.
 */
export function createPenalties(clock: Clock, perMinute: number): Penalties {
  const shares = createShares(clock, perMinute, 60_000)
  return {
    throttled: address => shares.throttled(sourceOf(address)),
    failed: address => shares.failed(sourceOf(address))
  }
}

export function createShares(clock: Clock, failuresMax: number, windowMs: number): Shares {
  // For each key the instant until which it has used up its share (GCRA); in the order of the last failure.
  const paidUntil = new Map<string, number>()
  const costMs = windowMs / failuresMax
  return {
    throttled(key) {
      const until = paidUntil.get(key)
      return until !== undefined && until - clock.monotonicMs() > windowMs - costMs
    },
    failed(key) {
      const now = clock.monotonicMs()
      const until = Math.max(now, paidUntil.get(key) ?? now)
      paidUntil.delete(key)
      // Never more than one window ahead: an attacker's last try must not keep a source out for a day.
      paidUntil.set(key, Math.min(until + costMs, now + windowMs))
      if (paidUntil.size > sourcesMax) paidUntil.delete(paidUntil.keys().next().value!)
    },
    forgiven(key) {
      const until = paidUntil.get(key)
      if (until !== undefined) paidUntil.set(key, until - costMs)
    }
  }
}
