// Requests for access, for those who wait for one and for those who decide: whoever changes a request tells
// the connections that wait for it, here and on other nodes. What is told is a hint; whoever waits looks, and
// looks again from time to time.
import type { Clock } from '../clock.ts'
import { SallyportError } from '../errors.ts'
import type { Log } from '../log.ts'
import type { ApprovalPort } from '../session/approve.ts'
import type { NewRequest, RequestRow, Requests } from '../store/requests.ts'

/** Between two looks, should what another node told be lost. */
const lookMs = 5_000
/** Connections that wait for one request: each looks, and a person needs a few. */
const waitersMax = 16

export interface Approvals extends ApprovalPort, Requests {
  /** A request was changed, here or on another node: whoever waits for it looks. */
  heard(request: string): void
  /** Nobody waits any more. Resolves when each of them has heard it, and may have put it on record. */
  close(): Promise<void>
}

export interface ApprovalsPorts {
  clock: Clock
  log: Log
  requests: Requests
  /** Told after every change of a request that somebody may wait for or that a session rests on. */
  changed(request: string): Promise<void>
}

export function createApprovals({ clock, log, requests, changed }: ApprovalsPorts): Approvals {
  const waiting = new Map<string, Set<() => void>>()
  const deciding = new Set<Promise<void>>()
  const closing = new AbortController()
  const told = async (row: RequestRow): Promise<RequestRow> => {
    await changed(row.id)
    return row
  }
  const create = async (request: NewRequest): Promise<{ row: RequestRow, isNew: boolean }> => {
    const made = await requests.create(request)
    if (made.isNew && request.emergency) {
      const { id, user, credential } = made.row
      const words = 'emergency access: nobody was asked, an approver has to review it'
      log.warn({ request: id, user, credential }, words)
      await changed(id)
    }
    return made
  }
  const decide: ApprovalPort['decided'] = async (request, waitMs, left) => {
    const signal = AbortSignal.any([left, closing.signal])
    const due = clock.monotonicMs() + waitMs
    if ((waiting.get(request)?.size ?? 0) >= waitersMax) {
      const detail = `${waitersMax} wait for request ${request}`
      throw new SallyportError('too-many-connections', { detail })
    }
    for (;;) {
      signal.throwIfAborted()
      // Listening begins before the look, so that nothing falls between the two.
      const next = awaken(waiting, request)
      const stop = clock.after(Math.max(0, Math.min(lookMs, due - clock.monotonicMs())), next.wake)
      signal.addEventListener('abort', next.wake, { once: true })
      try {
        const state = (await requests.get(request))?.state ?? 'expired'
        if (state !== 'pending' || clock.monotonicMs() >= due) return state
        await next.woken
      } finally {
        stop()
        signal.removeEventListener('abort', next.wake)
        next.forget()
      }
    }
  }
  return {
    ...requests,
    create,
    approve: async (...words) => told(await requests.approve(...words)),
    deny: async (...words) => told(await requests.deny(...words)),
    withdraw: async (...words) => told(await requests.withdraw(...words)),

    async ask({ user, rule, credential, approval }, { protocol, address }) {
      const { row } = await create({
        user: user.name, grant: rule.name, credential: credential.name, emergency: false,
        validForSeconds: approval.validForSeconds, origin: `${protocol} from ${address}`
      })
      return row.id
    },

    async askFor(wish) {
      const { row } = await create({ ...wish, emergency: false })
      return row.id
    },

    async leave(request, by) {
      await told(await requests.withdraw(request, { by, reason: 'nobody waits for it any more' }))
    },

    decided(request, waitMs, left) {
      const decision = decide(request, waitMs, left)
      const over = decision.then(() => undefined, () => undefined).finally(() => deciding.delete(over))
      deciding.add(over)
      return decision
    },

    heard: request => waiting.get(request)?.forEach(wake => wake()),
    async close() {
      closing.abort(new SallyportError('shutting-down'))
      await Promise.all(deciding)
      // What follows for each, its audit event, begins in this turn of the event loop.
      await new Promise(resolve => setImmediate(resolve))
    }
  }
}

function awaken(
  waiting: Map<string, Set<() => void>>, request: string
): { woken: Promise<void>, wake: () => void, forget: () => void } {
  const { promise: woken, resolve: wake } = Promise.withResolvers<void>()
  const wakes = waiting.get(request) ?? new Set()
  waiting.set(request, wakes.add(wake))
  return {
    woken, wake,
    forget() {
      wakes.delete(wake)
      if (wakes.size === 0) waiting.delete(request)
    }
  }
}
