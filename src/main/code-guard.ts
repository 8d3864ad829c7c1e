// How often one-time codes of a person may be wrong. Whoever guesses has the first factor already, and may
// come from everywhere; so it is the person who has a share of wrong codes, and not the source alone. That
// must not become a way to lock somebody out: the share fills up again by itself, and an address from which
// the person's right code came has one of its own, which nobody elsewhere can use up. Each node counts alone.
import type { Clock } from '../clock.ts'
import { SallyportError } from '../errors.ts'
import { createShares } from '../proxy/penalties.ts'
import { sourceOf } from '../proxy/source.ts'

/** People mistype; at one more every two minutes a guess is right once in a year of trying. */
const wrongCodesMax = 5
const windowMs = 600_000
/** Places that are remembered; beyond it the one that was used longest ago is forgotten. */
const knownPlacesMax = 10_000

export interface CodeGuard {
  /**
   * Before a code is looked at; to be called back when it was right. Counted at once, so that many at the
   * same moment are no more than one after the other. Throws `auth-throttled`.
   */
  begin(user: string, address: string): () => void
}

export function createCodeGuard(clock: Clock): CodeGuard {
  const shares = createShares(clock, wrongCodesMax, windowMs)
  const knownPlaces = new Set<string>()
  return {
    begin(user, address) {
      const place = `${user} ${sourceOf(address)}`
      const key = knownPlaces.has(place) ? place : user
      if (shares.throttled(key)) throw new SallyportError('auth-throttled', { detail: `codes of ${user}` })
      shares.failed(key)
      return () => {
        shares.forgiven(key)
        knownPlaces.delete(place)
        knownPlaces.add(place)
        if (knownPlaces.size > knownPlacesMax) knownPlaces.delete(knownPlaces.values().next().value!)
      }
    }
  }
}
