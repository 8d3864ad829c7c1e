// Who may be connected without having logged in, and how many of them. Strangers wait behind each other: when
// a source has too many connections that have not logged in, its oldest one that has said nothing goes, and
// when all of them are busy logging in, the new one is refused. So 5,000 silent sockets do not keep a person
// out (R9), and what a flood can hold is a number (R8).
import { sourceOf } from './source.ts'

export interface AdmissionLimits {
  /** Sockets of this listener, logged in or not. */
  connectionsMax: number
  /** Sockets of one source that have not logged in. */
  unauthenticatedPerAddressMax: number
  /** The same for all sources together. */
  unauthenticatedMax: number
}

/** One connection's place. */
export interface Ticket {
  /** The peer has begun a real login: it is not the first to go any more. */
  spoke(): void
  /** The peer has proved who it is: it counts only as a connection. */
  authenticated(): void
  /** The connection is closed. Idempotent. */
  leave(): void
}

export interface Admission {
  /** A place, or undefined when there is none; `evict` closes the connection to make place for another. */
  enter(address: string, evict: () => void): Ticket | undefined
  readonly connections: number
  readonly unauthenticated: number
}

interface Place {
  evict: () => void
  source: string
  state: 'silent' | 'speaking' | 'authenticated' | 'left'
}

interface Source {
  places: number
  /** In the order of their coming. */
  silent: Set<Place>
}

function nothing(): void {
  return undefined
}

export function createAdmission(limits: AdmissionLimits): Admission {
  const sources = new Map<string, Source>()
  const silent = new Set<Place>()
  let connections = 0
  let unauthenticated = 0

  /** Takes a place off the list of those that have not logged in. */
  const settle = (place: Place, state: 'authenticated' | 'left'): void => {
    const wasStranger = place.state === 'silent' || place.state === 'speaking'
    place.state = state
    // The socket that it would close may be another by now, and a long session must not keep it in memory.
    place.evict = nothing
    if (!wasStranger) return
    unauthenticated--
    silent.delete(place)
    const source = sources.get(place.source)!
    source.silent.delete(place)
    if (--source.places === 0) sources.delete(place.source)
  }

  const leave = (place: Place): void => {
    if (place.state === 'left') return
    settle(place, 'left')
    connections--
  }

  /** The longest silent place goes; false when nobody is silent. */
  const makeRoom = (candidates: Set<Place>): boolean => {
    const [oldest] = candidates
    if (oldest === undefined) return false
    const { evict } = oldest
    leave(oldest)
    evict()
    return true
  }

  return {
    enter(address, evict) {
      const name = sourceOf(address)
      const known = sources.get(name)
      const full = known !== undefined && known.places >= limits.unauthenticatedPerAddressMax
      if (full && !makeRoom(known.silent)) return
      if (unauthenticated >= limits.unauthenticatedMax && !makeRoom(silent)) return
      if (connections >= limits.connectionsMax && !makeRoom(silent)) return

      // After the evictions: the source may have been forgotten with its last place.
      const source = sources.get(name) ?? { places: 0, silent: new Set<Place>() }
      sources.set(name, source)
      const place: Place = { evict, source: name, state: 'silent' }
      source.places++
      source.silent.add(place)
      silent.add(place)
      connections++
      unauthenticated++
      return {
        spoke: () => {
          if (place.state !== 'silent') return
          place.state = 'speaking'
          silent.delete(place)
          sources.get(name)?.silent.delete(place)
        },
        authenticated: () => {
          if (place.state !== 'left') settle(place, 'authenticated')
        },
        leave: () => leave(place)
      }
    },
    get connections() { return connections },
    get unauthenticated() { return unauthenticated }
  }
}
