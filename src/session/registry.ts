// The sessions that are alive on this node: who may be watched, warned, cut or drained. A session's end has
// one channel, its abort signal, whose reason is a SallyportError; expiry, an admin's kill, a lost lease, a
// failed recorder and a shutdown all take it, so that the front end has one way to say goodbye.
import type { Cancel, Clock } from '../clock.ts'
import { SallyportError } from '../errors.ts'
import type { Grant } from '../policy/authorise.ts'
import type { Ending } from '../recording/recording.ts'
import type { Claim } from './front.ts'
import type { OpenSession } from './session.ts'

/** Minutes before the end at which the person is told, where the session is long enough. */
const warningMinutes = [15, 5, 1]

// Nobody stated an ending: a defect, and it is shown as one.
const unknownEnding: Ending = { how: 'cut', reason: 'internal' }

export interface LiveSession {
  readonly id: string
  readonly grant: Grant
  readonly claim: Claim
  readonly startedAt: Date
  readonly expiresAt: Date
}

export interface Registry {
  /**
   * Puts a session on the list; disposing it takes it off and calls `ended` with how it ended. Never throws.
   */
  enter(id: string, grant: Grant, claim: Claim, hooks: RegistryHooks): OpenSession
  list(): readonly LiveSession[]
  get(id: string): LiveSession | undefined
  /** Ends one session; false when it is not alive here. */
  cut(id: string, error: SallyportError): boolean
  /** Ends all that are not ending already; returns their number. */
  cutAll(error: SallyportError): number
  /**
   * Takes no new session; waits up to `graceMs` for the live ones, cuts the rest, waits for their release.
   */
  drain(graceMs: number): Promise<void>
  /** Whether it takes no new session any more. */
  draining(): boolean
}

export interface RegistryHooks {
  tell(line: string): void
  ended(ending: Ending): Promise<void>
}

interface Entry extends LiveSession {
  readonly controller: AbortController
}

export function createRegistry(clock: Clock): Registry {
  const entries = new Map<string, Entry>()
  let draining = false
  let onEmpty: (() => void) | undefined

  const leave = (id: string): void => {
    entries.delete(id)
    if (entries.size === 0) onEmpty?.()
  }

  const cut = (id: string, error: SallyportError): boolean => {
    const entry = entries.get(id)
    entry?.controller.abort(error)
    return entry !== undefined
  }

  return {
    enter(id, grant, claim, hooks) {
      if (draining) throw new SallyportError('shutting-down')
      const controller = new AbortController()
      const startedAt = clock.now()
      const lifeMs = grant.maxSessionSeconds * 1000
      const expiresAt = new Date(startedAt.getTime() + lifeMs)
      entries.set(id, { id, grant, claim, startedAt, expiresAt, controller })
      const expire = (): void => { cut(id, new SallyportError('session-expired')) }
      const timers = expiryTimers(clock, lifeMs, hooks.tell, expire)
      let ending: Ending | undefined
      return {
        id, grant, signal: controller.signal,
        end: how => { ending ??= how },
        get ending() { return ending ?? unknownEnding },
        [Symbol.asyncDispose]: async () => {
          for (const cancel of timers) cancel()
          try {
            await hooks.ended(ending ?? unknownEnding)
          } finally {
            leave(id)
          }
        }
      }
    },
    list: () => [...entries.values()],
    get: id => entries.get(id),
    cut,
    cutAll(error) {
      const going = [...entries.values()].filter(({ controller }) => !controller.signal.aborted)
      for (const { controller } of going) controller.abort(error)
      return going.length
    },
    async drain(graceMs) {
      draining = true
      if (entries.size === 0) return
      const empty = new Promise<void>(resolve => { onEmpty = resolve })
      const cancel = clock.after(graceMs, () => {
        for (const id of entries.keys()) cut(id, new SallyportError('shutting-down'))
      })
      await empty
      cancel()
    },
    draining: () => draining
  }
}

function expiryTimers(
  clock: Clock, lifeMs: number, tell: (line: string) => void, expire: () => void
): Cancel[] {
  const timers = [clock.after(lifeMs, expire)]
  for (const minutes of warningMinutes) {
    const delayMs = lifeMs - minutes * 60_000
    if (delayMs <= 0) continue
    const span = minutes === 1 ? '1 minute' : `${minutes} minutes`
    timers.push(clock.after(delayMs, () => tell(`this session ends in ${span}`)))
  }
  // A session of under a minute is still told once, half way through.
  if (lifeMs <= 60_000) {
    const line = `this session ends in ${Math.ceil(lifeMs / 2000)} seconds`
    timers.push(clock.after(lifeMs / 2, () => tell(line)))
  }
  return timers
}
