// How many removals of one target are begun at once. A target that takes one a second away must not be given
// hundreds, whose claims would lapse while they wait; one that takes hundreds a second should not be given
// them sixteen at a time. So each gets as many as it has brought to their end within the last second, and
// never fewer than a few.
import type { Context } from './context.ts'

export interface Pace {
  began(target: string): void
  ended(target: string): void
  /** How many may be begun now, by target; those that are not here have all their room. */
  room(): Readonly<Record<string, number>>
  /** Removals that are running. */
  readonly load: number
}

interface TargetPace {
  running: number
  /** Ended in the second that began then, and in the one before. */
  sinceMs: number
  ended: number
  endedBefore: number
}

const windowMs = 1000

export function createPace({ options: { clock }, limits }: Pick<Context, 'options' | 'limits'>): Pace {
  const targets = new Map<string, TargetPace>()
  let load = 0

  const paceOf = (target: string): TargetPace => {
    const nowMs = clock.monotonicMs()
    const fresh = { running: 0, sinceMs: nowMs, ended: 0, endedBefore: 0 }
    const pace = targets.get(target) ?? fresh
    targets.set(target, pace)
    const passed = Math.floor((nowMs - pace.sinceMs) / windowMs)
    if (passed > 0) {
      pace.endedBefore = passed === 1 ? pace.ended : 0
      pace.ended = 0
      pace.sinceMs += passed * windowMs
    }
    return pace
  }

  return {
    began(target) {
      load++
      paceOf(target).running++
    },
    ended(target) {
      load--
      const pace = paceOf(target)
      pace.running--
      pace.ended++
    },
    room() {
      const room: Record<string, number> = {}
      for (const target of targets.keys()) {
        const { running, ended, endedBefore } = paceOf(target)
        const most = Math.min(Math.max(limits.perTarget, ended, endedBefore), limits.perTargetMax)
        if (running === 0 && most === limits.perTarget) targets.delete(target)
        else room[target] = Math.max(0, most - running)
      }
      return room
    },
    get load() {
      return load
    }
  }
}
