// Tickets of the TCP listener: whoever brings one has proved who they are somewhere else, to the API or on a
// session that is open. A ticket is good once and for moments. Kept are their hashes, looked up as a whole,
// so that the time of an answer says nothing about a ticket. They live in the memory of the node that gave
// them, which is the one that its API names.
import { randomBytes } from 'node:crypto'
import type { Clock } from '../../clock.ts'
import { SallyportError } from '../../errors.ts'
import { sha256 } from '../../wire/postgres/verifier.ts'
import type { Dialled } from './tunnel.ts'

/** A program connects at once; a person may be asked to trust a certificate first. */
const sessionTicketMs = 30_000
const laneTicketMs = 10_000
/** Tickets that nobody has used yet: of one person or session, and of all. */
const unusedOfOneMax = 64
const unusedMax = 10_000
/** 256 bits. */
const ticketBytes = 32

/** What a ticket is for. */
export type Bearer =
  /** To open a session, as this user; the login is theirs. */
  | { kind: 'session', user: string, login: string }
  /** The same from a page of the console, for the login of a browser that asked for it (its hash). */
  | { kind: 'web', user: string, login: string }
  /** To join one with a connection of its own. */
  | { kind: 'lane', dial(from: string): Promise<Dialled> }

export interface TicketIssued {
  ticket: string
  expiresAt: Date
}

export interface Tickets {
  /** `of`: whom it is counted for. @throws SallyportError `too-many-connections` */
  issue(of: string, bearer: Bearer): TicketIssued
  /** Uses a ticket up; undefined when it is unknown, used or too old. */
  take(ticket: string): Bearer | undefined
}

interface Entry {
  of: string
  bearer: Bearer
  endsMs: number
}

export function createTickets(clock: Clock): Tickets {
  // In the order of their issue.
  const entries = new Map<string, Entry>()
  const keyOf = (ticket: string): string => sha256(Buffer.from(ticket)).toString('base64')
  const sweep = (): void => {
    const now = clock.monotonicMs()
    for (const [key, { endsMs }] of entries) if (endsMs <= now) entries.delete(key)
  }
  return {
    issue(of, bearer) {
      sweep()
      const own = [...entries.values()].filter(entry => entry.of === of).length
      if (own >= unusedOfOneMax || entries.size >= unusedMax) {
        throw new SallyportError('too-many-connections', { detail: `tickets that ${of} has not used` })
      }
      const ticket = `ticket_${randomBytes(ticketBytes).toString('base64url')}`
      const lifeMs = bearer.kind === 'lane' ? laneTicketMs : sessionTicketMs
      entries.set(keyOf(ticket), { of, bearer, endsMs: clock.monotonicMs() + lifeMs })
      return { ticket, expiresAt: new Date(clock.now().getTime() + lifeMs) }
    },
    take(ticket) {
      const key = keyOf(ticket)
      const entry = entries.get(key)
      entries.delete(key)
      return entry === undefined || entry.endsMs <= clock.monotonicMs() ? undefined : entry.bearer
    }
  }
}
