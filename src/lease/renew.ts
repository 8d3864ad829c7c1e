// How long a lease may still be prolonged: pure arithmetic on the store's instants, in milliseconds. Renewing
// adds to the current expiry and never moves the end of the whole lifetime, which is fixed at issue; a lease
// that ended, or whose time is up though nobody has swept it yet, is not brought back to life.
import type { HoldState } from './states.ts'

export interface Renewable {
  state: HoldState
  expiresAtMs: number
  /** The end of its whole lifetime: issue + maximum TTL. */
  maxAtMs: number
}

export type Renewal =
  | { renewed: true, expiresAtMs: number, renewableMs: number }
  | { renewed: false, reason: string }

/** Milliseconds by which a lease can still be prolonged (S5 shows it). */
export function renewableMs({ state, expiresAtMs, maxAtMs }: Renewable, nowMs: number): number {
  if (state !== 'active' || nowMs >= expiresAtMs) return 0
  return Math.max(0, maxAtMs - expiresAtMs)
}

/**
 * Adds `seconds` to the expiry (S5). Refused, with the reason for the person who asked, after the end, after
 * expiry, for nothing or less, and past the maximum: it is not cut down to what is left, so that nobody
 * counts on time that they were not given.
 */
export function renewal(lease: Renewable, seconds: number, nowMs: number): Renewal {
  if (!Number.isSafeInteger(seconds) || seconds <= 0) {
    return { renewed: false, reason: 'the time to add must be a positive number of whole seconds' }
  }
  if (lease.state === 'pending') return { renewed: false, reason: 'the lease is not active yet' }
  if (lease.state === 'expired' || (lease.state === 'active' && nowMs >= lease.expiresAtMs)) {
    return { renewed: false, reason: 'the lease has expired' }
  }
  if (lease.state !== 'active') return { renewed: false, reason: `the lease was ${lease.state}` }
  const expiresAtMs = lease.expiresAtMs + seconds * 1000
  if (expiresAtMs > lease.maxAtMs) {
    const left = Math.floor(renewableMs(lease, nowMs) / 1000)
    return { renewed: false, reason: `the lease would pass its maximum; ${left} s can still be added` }
  }
  return { renewed: true, expiresAtMs, renewableMs: lease.maxAtMs - expiresAtMs }
}
