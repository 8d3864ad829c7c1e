// Moves of the ledger that are asked for at the same time share a transaction, as events of the audit log do:
// a busy node pays for a commit once, not for each of its accounts. A move stays what it was, decided under
// the lock of its account's row by what is read there. What could make one wait for somebody, or depend on
// another of the group, is not done in a group: an account whose row is locked by somebody else, one that has
// several holds, a second move on the same account. Those, and each of a group that was refused, go by
// themselves.
import { systemClock } from '../clock.ts'
import type { Clock } from '../clock.ts'
import { SallyportError, asSallyportError } from '../errors.ts'
import type { Audited } from '../lease/store-port.ts'
import type { AuditLog } from './audit.ts'
import { callMsMax } from './database.ts'
import type { Database, Handle } from './database.ts'

/** The part of the audit log that can share a transaction. */
export type AuditInTransaction = Pick<AuditLog, 'appendIn'>

/** One kind of move. */
export interface Move<I, R> {
  /** The account or hold that it is about: one move on it in a group. */
  keyOf(item: I): string
  /**
   * Makes the move for each, in one statement; undefined for one that must go by itself. `alone`: there is
   * one, and it waits for its lock.
   */
  act(tx: Handle, items: readonly I[], alone: boolean): Promise<readonly (R | undefined)[]>
  /** Its event, which is durable exactly when the move is. */
  auditOf?(item: I, result: R): Audited | undefined
}

export interface MoveWriter {
  /** Resolves when the move is durable. */
  write<I, R>(move: Move<I, R>, item: I): Promise<R>
}

interface Waiting {
  move: Move<unknown, unknown>
  item: unknown
  done(result: unknown): void
  failed(error: Error): void
}

// A statement of some 500 kB at most (specs carry their templates), and what a failed group costs again.
const groupMax = 64
/** Moves that wait for a group; what a healthy store takes in some seconds. */
export const movesWaitingMax = 20_000
// A group that failed only after so long met a store that hangs; a connection that broke fails at once.
const hungMsMin = callMsMax / 2

/** Moves over a database. `audit` takes their events into their own transactions. */
export function createMoveWriter(
  database: Database, audit: AuditInTransaction, clock: Clock = systemClock
): MoveWriter {
  let waiting: Waiting[] = []
  let isWriting = false

  const write = async (): Promise<void> => {
    // Whoever asks in the same moment is in the first group already.
    await Promise.resolve()
    while (waiting.length > 0) {
      const group = takeGroup()
      for (const alone of await together(group)) void byItself(alone)
    }
    isWriting = false
  }

  const takeGroup = (): readonly Waiting[] => {
    const keys = new Set<string>()
    const group: Waiting[] = []
    waiting = waiting.filter(each => {
      const key = each.move.keyOf(each.item)
      if (group.length >= groupMax || keys.has(key)) return true
      keys.add(key)
      group.push(each)
      return false
    })
    return group
  }

  /** Answers with those that must go by themselves; nothing of theirs was done. */
  const together = async (group: readonly Waiting[]): Promise<readonly Waiting[]> => {
    // One statement is all or nothing by itself.
    const isOne = new Set(group.map(({ move }) => move)).size === 1 && group[0]?.move.auditOf === undefined
    const act = (handle: Handle): ReturnType<typeof actAll> => actAll(handle, audit, group, false)
    const startedMs = clock.monotonicMs()
    try {
      const results = await (isOne ? database.run(act) : database.transaction(act))
      for (const [each, result] of results) each.done(result)
      return group.filter(each => !results.has(each))
    } catch (thrown) {
      const error = asSallyportError(thrown)
      // Rolled back: one of them is at fault. Where the store is away nobody knows, and all hear so.
      if (error.code !== 'store-unavailable' && group.length > 1) return group
      // Those behind it have waited as long, and would each in its turn again; nothing of theirs was sent.
      const isHung = error.code === 'store-unavailable' && clock.monotonicMs() - startedMs >= hungMsMin
      for (const { failed } of [...group, ...isHung ? waiting.splice(0) : []]) failed(thrown as Error)
      return []
    }
  }

  const byItself = async (one: Waiting): Promise<void> => {
    try {
      const results = await database.transaction(tx => actAll(tx, audit, [one], true))
      one.done(results.get(one))
    } catch (thrown) {
      one.failed(thrown as Error)
    }
  }

  return {
    write: <I, R>(move: Move<I, R>, item: I) => new Promise<R>((resolve, reject) => {
      const each = { move, item, done: resolve, failed: reject } as unknown as Waiting
      // Part of what is open around it.
      if (database.inTransaction()) return void byItself(each)
      if (waiting.length >= movesWaitingMax) {
        const detail = 'store: too many moves wait already'
        return reject(new SallyportError('store-unavailable', { detail }))
      }
      waiting.push(each)
      if (isWriting) return
      isWriting = true
      database.detached(() => void write())
    })
  }
}

async function actAll(
  tx: Handle, audit: AuditInTransaction, group: readonly Waiting[], alone: boolean
): Promise<ReadonlyMap<Waiting, unknown>> {
  const kinds = new Map<Move<unknown, unknown>, Waiting[]>()
  for (const each of group) kinds.set(each.move, [...kinds.get(each.move) ?? [], each])
  const results = new Map<Waiting, unknown>()
  // Sent together, carried out in this order.
  await Promise.all([...kinds].map(async ([move, those]) => {
    const found = await move.act(tx, those.map(({ item }) => item), alone)
    for (const [index, each] of those.entries()) {
      if (found[index] !== undefined) results.set(each, found[index])
    }
  }))
  for (const each of group) {
    const event = results.has(each) ? each.move.auditOf?.(each.item, results.get(each)) : undefined
    if (event !== undefined) audit.appendIn(tx, event.kind, event.actor, event.subject, event.detail)
  }
  if (alone && results.size === 0) throw new SallyportError('internal', { detail: 'a move had no answer' })
  return results
}
