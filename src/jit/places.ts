// A few at a time: whoever comes when all places are taken waits for one, in the order of coming. For work of
// one group that would otherwise open as many connections as the group has members.

/** Runs what it is given, at most so many at once. */
export type Places = <T>(act: () => Promise<T>) => Promise<T>

export function createPlaces(placesMax: number): Places {
  let taken = 0
  const waiting: (() => void)[] = []
  return async act => {
    if (taken < placesMax) taken++
    else await new Promise<void>(resolve => waiting.push(resolve))
    try {
      return await act()
    } finally {
      // The place goes to the next as it is.
      const next = waiting.shift()
      if (next === undefined) taken--
      else next()
    }
  }
}
