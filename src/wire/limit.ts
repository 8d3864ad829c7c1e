// Limits in time for what the plugins do through drivers of others: timers belong to the wire room and to the
// clock. None of them keeps a process alive.

/** Acts once, after that time; the answer calls it off. */
export function after(ms: number, act: () => void): () => void {
  const timer = setTimeout(act, ms)
  timer.unref()
  return () => clearTimeout(timer)
}

/** Acts again and again until it is called off. */
export function every(ms: number, act: () => void): () => void {
  const timer = setInterval(act, ms)
  timer.unref()
  return () => clearInterval(timer)
}
