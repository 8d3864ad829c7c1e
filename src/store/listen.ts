// One connection that waits for NOTIFY (PostgreSQL, chapter "NOTIFY"), so that a node hears within
// milliseconds what another one did. What is heard is a hint and never the truth: a notification that was
// sent while nobody listened is lost, so whoever depends on one also looks, at least whenever listening
// begins again. The embedded store has one node and nobody to hear.
import type { Cancel, Clock } from '../clock.ts'
import type { Backend, Connection } from './backend.ts'

// A lost connection is noticed, and replaced, within this.
const lookMs = 1_000

export interface Listener {
  /** The text of one notification. */
  heard(text: string): void
  /** Listening has begun (again): what was said before that was not heard. */
  began(): void
}

/** Listens until the returned function is called, over one connection after the other. */
export function listen(backend: Backend, clock: Clock, channel: string, listener: Listener): () => void {
  if (backend.store === 'pglite') return () => undefined
  let connection: Connection | undefined
  let cancel: Cancel
  const begin = (): void => {
    const fresh = connection = backend.connect('work')
    fresh.client.listen(channel, listener.heard, listener.began).catch(() => fresh.destroy())
  }
  const look = (): void => {
    if (connection === undefined || connection.isBroken()) begin()
    cancel = clock.after(lookMs, look)
  }
  look()
  return () => {
    cancel()
    connection?.destroy()
  }
}
