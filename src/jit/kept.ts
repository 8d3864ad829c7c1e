// Connections of hooks that are kept open between hooks: a login is the dearest part of an account's life.
// Few, for a short time and a bounded number of uses, and only for the very same login: when the secret, the
// user or the target's definition changed, those of before are closed at once. Nothing here knows what a
// connection is or how it is cleaned of what the last hook left in it; that is the plugin's part, as is never
// giving back one that met an error. A proof never uses one: it looks over a connection of its own.
import type { Cancel, Clock } from '../clock.ts'
import type { KeptConnection, KeptConnections } from './plugin.ts'

export interface KeepLimits {
  /** Connections that wait for their next hook, for each target. */
  keptMax: number
  /** One that was not used for so long is closed, milliseconds. */
  keptIdleMs: number
  /** Since its first hook, milliseconds: rights that were taken from our login end with its connections. */
  keptLifeMs: number
  /** Hooks over one connection. */
  keptUsesMax: number
}

interface Entry {
  connection: KeptConnection
  slot: string
  login: string
  usesLeft: number
  endsMs: number
  cancel: Cancel
}

export class Keeper implements KeptConnections {
  readonly #limits: KeepLimits
  readonly #clock: Clock
  readonly #lives = new WeakMap<KeptConnection, { usesLeft: number, endsMs: number }>()
  #idle: Entry[] = []
  #closed = false

  constructor(limits: KeepLimits, clock: Clock) {
    this.#limits = limits
    this.#clock = clock
  }

  take(slot: string, login: string): KeptConnection | undefined {
    for (const other of this.#idle.filter(each => each.slot === slot && each.login !== login)) {
      this.#end(other)
    }
    for (;;) {
      // The newest: the others may come to their idle end.
      const entry = this.#idle.findLast(each => each.slot === slot)
      if (entry === undefined) return undefined
      if (this.#clock.monotonicMs() < entry.endsMs && !entry.connection.isBroken()) {
        this.#forget(entry)
        return entry.connection
      }
      this.#end(entry)
    }
  }

  give(slot: string, login: string, connection: KeptConnection): void {
    const { keptMax, keptIdleMs, keptLifeMs, keptUsesMax } = this.#limits
    const nowMs = this.#clock.monotonicMs()
    const life = this.#lives.get(connection) ?? { usesLeft: keptUsesMax, endsMs: nowMs + keptLifeMs }
    life.usesLeft--
    this.#lives.set(connection, life)
    if (this.#closed || keptMax <= 0 || life.usesLeft <= 0 || nowMs >= life.endsMs || connection.isBroken()) {
      void connection.close()
      return
    }
    const entry: Entry = { connection, slot, login, ...life, cancel: () => undefined }
    entry.cancel = this.#clock.after(Math.min(keptIdleMs, life.endsMs - nowMs), () => this.#end(entry))
    this.#idle.push(entry)
    if (this.#idle.length > keptMax) this.#end(this.#idle[0]!)
  }

  get isEmpty(): boolean {
    return this.#idle.length === 0
  }

  async clear(): Promise<boolean> {
    const entries = [...this.#idle]
    for (const entry of entries) this.#forget(entry)
    await Promise.all(entries.map(({ connection }) => connection.close()))
    return entries.length > 0
  }

  /** Closes those that are here, and those that come back later. */
  close(): void {
    this.#closed = true
    void this.clear()
  }

  #forget(entry: Entry): void {
    entry.cancel()
    this.#idle = this.#idle.filter(other => other !== entry)
  }

  #end(entry: Entry): void {
    this.#forget(entry)
    void entry.connection.close()
  }
}
