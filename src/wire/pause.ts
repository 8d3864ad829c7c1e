// A wait between two questions to a target that cannot be told to wait itself. Timers belong to the wire room
// and to the clock; what counts against a claim is the caller's to check.

export function pause(ms: number): Promise<void> {
  return new Promise(resolve => {
    setTimeout(resolve, ms)
  })
}
