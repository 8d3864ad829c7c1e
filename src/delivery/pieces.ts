// A batch that a receiver refuses is sent in halves, and those in halves, until what is refused is one event:
// so one that it cannot read (or that makes a request too large) keeps no other from going on. Everything is
// in its order. A receiver that is away (no answer, 5xx) ends the walk: what comes behind waits with it.
import type { AuditEvent, Receiver } from './courier.ts'

/** The receiver answered, and does not want these very events. */
export class NotDelivered extends Error {
  readonly refused: boolean

  constructor(why: string, refused = false) {
    super(why)
    this.name = 'NotDelivered'
    this.refused = refused
  }
}

export function wasRefused(thrown: unknown): thrown is NotDelivered {
  return thrown instanceof NotDelivered && thrown.refused
}

export interface Piece {
  /** Where it ends among the events that were given. */
  end: number
  events: readonly AuditEvent[]
  /** Something was sent, and taken. */
  sent: boolean
  /** Why the one wanted event in it is refused; without an event: why it is sent in halves next. */
  refused?: string
  /** Why nothing more can be sent for now; the last piece. */
  failed?: string
}

/** Each piece that came through, was refused by itself, or failed. Never throws. */
export async function* inPieces(
  receiver: Receiver, events: readonly AuditEvent[]
): AsyncGenerator<Piece> {
  const ranges: [from: number, end: number][] = [[0, events.length]]
  for (let range = ranges.pop(); range !== undefined; range = ranges.pop()) {
    const [from, end] = range
    const wanted = events.slice(from, end).filter(({ kind }) => receiver.wants(kind))
    try {
      if (wanted.length > 0) await receiver.send(wanted)
      yield { end, events: wanted, sent: wanted.length > 0 }
    } catch (thrown) {
      const why = thrown instanceof Error ? thrown.message : String(thrown)
      if (!wasRefused(thrown)) return yield { end, events: wanted, sent: false, failed: why }
      if (wanted.length === 1) yield { end, events: wanted, sent: false, refused: why }
      else {
        const middle = events.indexOf(wanted[Math.ceil(wanted.length / 2)]!, from)
        ranges.push([middle, end], [from, middle])
        yield { end: from, events: [], sent: false, refused: why }
      }
    }
  }
}
