// Why nodes believe each other: a key that only nodes of this installation can make. With it a node marks
// what it says of itself in the store (so that whoever can only write there sends nobody anywhere), and signs
// a ticket for each question. The ticket stands in the place of the asker's own token, because that token
// would be good for everything and for hours on the node that it is shown to, the local admin's counts only
// on its own machine, and a cookie's origin, networks and renewal belong to the node that was asked. So that
// node judges the person and has it on record, once; a ticket is for one node, one question, one person, half
// a minute, and counts once.
import { timingSafeEqual, X509Certificate } from 'node:crypto'
import { SallyportError } from '../errors.ts'
import { httpsAddress } from '../input.ts'
import { derived, mintChallenge, readChallenge } from '../policy/challenge.ts'
import type { Challenge } from '../policy/challenge.ts'

/** By the store's clock: those of the nodes may differ. */
const ticketSeconds = 30
/** Tickets that are remembered as used; more cannot be asked in half a minute. */
const usedMax = 100_000

/** What a node says of itself. */
export interface Advert {
  /** `https://host:port`, as other nodes reach its API. */
  url: string
  /** PEM of the very certificate that it shows there: no name and no authority is trusted beside it. */
  certificate: string
}

export function markOf(key: Buffer, node: string, { url, certificate }: Advert): string {
  return derived(key, 'node advert', JSON.stringify([node, url, certificate]))
}

/** The advert, when a node with our key wrote it and it can be used. */
export function believed(
  key: Buffer, node: string, { url, certificate, mark }: { url: string, certificate: string, mark: string }
): Advert | undefined {
  const advert = { url, certificate }
  const [given, own] = [mark, markOf(key, node, advert)].map(text => Buffer.from(text))
  if (given!.length !== own!.length || !timingSafeEqual(given!, own!)) return undefined
  return httpsAddress.test(url) && URL.canParse(url) ? advert : undefined
}

/** The certificate of a listener, without those above it. Throws when there is none. */
export function leafOf(pem: string): string {
  return new X509Certificate(pem).toString()
}

export function mintTicket(key: Buffer, to: string, line: string, now: Date): string {
  return mintChallenge(key, purposeOf(to, line), now, ticketSeconds)
}

export type TakeTicket = (ticket: string, line: string) => Promise<void>

/** Takes tickets for this node, each once; `now` is the store's. Throws `auth-required`, `limit-reached`. */
export function createTicketBox(key: Buffer, node: string, now: () => Promise<Date>): TakeTicket {
  const used = new Map<string, Date>()
  const readAt = (ticket: string, line: string, at: Date): Challenge => {
    const read = readChallenge(key, purposeOf(node, line), ticket, at)
    if (read !== undefined && !used.has(read.id)) return read
    throw new SallyportError('auth-required', { detail: 'no ticket of a node for this question' })
  }
  return async (ticket, line) => {
    // A stranger's costs no look at the store.
    readAt(ticket, line, new Date(0))
    const at = await now()
    const { id, expiresAt } = readAt(ticket, line, at)
    // Those that are over are at the front: all live equally long.
    for (const [old, end] of used) {
      if (end > at) break
      used.delete(old)
    }
    if (used.size >= usedMax) throw new SallyportError('limit-reached', { detail: `${usedMax} tickets` })
    used.set(id, expiresAt)
  }
}

function purposeOf(to: string, line: string): string {
  return `question to ${to}\n${line}`
}
