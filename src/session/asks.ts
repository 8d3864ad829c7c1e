// What a session asks others for, by a rule of its grant: one request for each thing that is to be done, for
// as many as wait for it. When the last of them leaves (Ctrl-C, a channel that is closed), the request is
// taken back at once, and at the end of the session what nobody answered in time: nobody is to decide on
// what nobody waits for. One session asks for a few things at a time only: approvers are people.
import { waitWords } from './approve.ts'
import type { ApprovalPort, RequestState, RuleWish } from './approve.ts'
import type { Waiter } from './judge.ts'
import type { ApprovalRule } from '../policy/types.ts'

/** Different things that one session waits for. */
export const asksMax = 16
/** Requests of one session that stay open though nobody waits for them at the moment. */
const unansweredMax = 100

export class Asks {
  readonly #approvals: ApprovalPort
  /** How many wait for the same, by its key. */
  readonly #waiting = new Map<string, number>()
  /** What is open, for those who wait for it. */
  readonly #open = new Map<string, string>()
  /** What was not answered in time: it still counts for whoever asks for the same again. */
  readonly #unanswered = new Map<string, { request: string, user: string }>()
  /** What is being taken back: whoever asks for the same again waits for that. */
  readonly #leaving = new Map<string, Promise<void>>()

  constructor(approvals: ApprovalPort) {
    this.#approvals = approvals
  }

  /** Rejects when nobody could be asked, and when `left` aborts. */
  async decided(
    wish: RuleWish, approval: ApprovalRule, { tell, left }: Waiter
  ): Promise<{ request: string, state: RequestState }> {
    const key = wish.grant
    const others = this.#waiting.get(key) ?? 0
    if (others === 0 && this.#waiting.size >= asksMax) throw new Error(`${asksMax} things wait already`)
    this.#waiting.set(key, others + 1)
    let request: string | undefined
    let state: RequestState | undefined
    try {
      await this.#leaving.get(key)
      left.throwIfAborted()
      request = await this.#approvals.askFor(wish)
      this.#open.set(key, request)
      if (!left.aborted) tell(waitWords(request, approval))
      state = await this.#approvals.decided(request, approval.waitForSeconds * 1000, left)
      if (state === 'pending') this.#keep(key, request, wish.user)
      else {
        this.#unanswered.delete(key)
        this.#open.delete(key)
      }
      return { request, state }
    } finally {
      const rest = (this.#waiting.get(key) ?? 1) - 1
      if (rest > 0) this.#waiting.set(key, rest)
      else this.#waiting.delete(key)
      // Whoever leaves last may be one who could not ask: then it is what the others asked for.
      const open = request ?? this.#open.get(key)
      if (rest === 0) this.#open.delete(key)
      if (rest === 0 && state === undefined && open !== undefined) {
        this.#unanswered.delete(key)
        this.#leave(key, open, wish.user)
      }
    }
  }

  /** The session is over. */
  close(): void {
    for (const [key, { request, user }] of this.#unanswered) this.#leave(key, request, user)
    this.#unanswered.clear()
  }

  #keep(key: string, request: string, user: string): void {
    this.#unanswered.set(key, { request, user })
    const [[oldest, left] = ['', undefined]] = this.#unanswered
    if (left === undefined || this.#unanswered.size <= unansweredMax) return
    this.#unanswered.delete(oldest)
    this.#leave(oldest, left.request, left.user)
  }

  #leave(key: string, request: string, user: string): void {
    // Decided on at this moment, or the store is away: then it ends by itself.
    const left: Promise<void> = this.#approvals.leave(request, user).catch(() => undefined)
      .then(() => { if (this.#leaving.get(key) === left) this.#leaving.delete(key) })
    this.#leaving.set(key, left)
  }
}
