// The other nodes, as this one sees them: which of them has a recording, and what all of them find. A node
// is asked when it lives and says where; one that says nothing, hangs or died is named in the refusal, so
// that an auditor knows what was not looked at. A recording whose node is gone may have been moved to another
// one, so then all are asked who has it.
import type { Clock } from '../clock.ts'
import { SallyportError, asSallyportError } from '../errors.ts'
import type { ErrorCode } from '../errors.ts'
import { createAsk, jsonAnswer, lineAnswers, silent } from './ask.ts'
import type { Ask, Behalf, Peer } from './ask.ts'
import { readerOf } from './recordings.ts'
import type { RecordingReader } from './recordings.ts'
import { believed, createTicketBox, leafOf, markOf } from './trust.ts'
import type { Advert } from './trust.ts'
import { hasAnswer, placeAnswer, silenceMs } from './words.ts'
import type { Place } from './words.ts'

/** `has` is a look at folders: who needs longer hangs. */
const hasMs = 3_000
/** What a node has found by then is what it has found. */
const searchMs = 60_000

/** A session that nobody has: only whether there is an answer matters. */
const nobodys = '0'.repeat(26)

/** A row of the store (store/nodes.ts). */
export interface KnownNode {
  node: string
  alive: boolean
  silentSeconds: number
  /** Null: it says no address. */
  url: string | null
  certificate: string | null
  mark: string | null
}

export interface NodePorts {
  /** Only nodes of this installation can make it. */
  key: Buffer
  /** This one. */
  node: string
  clock: Clock
  rows: {
    /** This node's own row; undefined: it is not to be asked. */
    advertise(node: string, advert: (Advert & { mark: string }) | undefined): Promise<void>
    list(): Promise<readonly KnownNode[]>
  }
  /** The store's clock. */
  now(): Promise<Date>
}

export interface Held {
  /** The node that has it. */
  node: string
  recordings: RecordingReader
}

export interface SearchWanted {
  query: string
  limit: number
  session?: string | undefined
}

export interface Found {
  node: string
  places: readonly Place[]
  /** Why this is not all that it has. */
  missing?: ErrorCode | undefined
}

export interface Nodes {
  /** What this node says of itself; undefined: it is not to be asked. */
  advertise(advert: Advert | undefined): Promise<void>
  /**
   * Who has the recording of a session that `owner` recorded and that does not lie here. Throws `not-found`,
   * `recorded-elsewhere` (its node says no address), `node-silent`.
   */
  holding(session: string, owner: string, behalf: Behalf): Promise<Held>
  /** Everybody but this node, for a search; each answers within a minute, and never rejects. */
  others(): Promise<readonly { node: string, search(wanted: SearchWanted, behalf: Behalf): Promise<Found> }[]>
  /** Whether each of those that live answers; why not, where it does not. For whoever looks after them. */
  look(signal: AbortSignal): Promise<readonly { node: string, url: string | null, problem?: string }[]>
  /** Whether a question may be answered: throws `auth-required`, `limit-reached`. */
  admit(ticket: string, line: string): Promise<void>
}

export function createNodes(ports: NodePorts): Nodes {
  const { key, node, clock, rows, now } = ports
  const ask = createAsk(ports)
  const list = async (): Promise<readonly KnownNode[]> =>
    (await rows.list()).filter(each => each.node !== node)
  return {
    async advertise(advert) {
      const own = advert === undefined ? undefined : { ...advert, certificate: leafOf(advert.certificate) }
      await rows.advertise(node, own === undefined ? undefined : { ...own, mark: markOf(key, node, own) })
    },
    async holding(session, owner, behalf) {
      const known = await list()
      const peer = await holderOf(known, { ...ports, ask }, session, owner, behalf)
      return { node: peer.node, recordings: readerOf(ask, peer, behalf) }
    },
    others: async () => (await list()).map(each => ({
      node: each.node,
      search: (wanted, behalf) => searched(ask, clock, key, each, wanted, behalf)
    })),
    look: async signal => Promise.all((await list()).filter(({ alive }) => alive).map(async each => {
      const { node: other, url } = each
      try {
        await has(ask, peerOf(key, each), nobodys, { person: node, signal })
        return { node: other, url }
      } catch (thrown) {
        const { code, detail } = asSallyportError(thrown)
        return { node: other, url, problem: `${code}: ${detail ?? ''}` }
      }
    })),
    admit: createTicketBox(key, node, now)
  }
}

/** Throws why this node cannot be asked. */
function peerOf(key: Buffer, { node, alive, silentSeconds, url, certificate, mark }: KnownNode): Peer {
  if (!alive) throw silent({ node }, `not heard of for ${Math.round(silentSeconds)} s`)
  if (url === null || certificate === null || mark === null) {
    throw new SallyportError('recorded-elsewhere', { detail: `node ${node}, which says no address` })
  }
  const advert = believed(key, node, { url, certificate, mark })
  if (advert !== undefined) return { node, ...advert }
  const detail = `node ${node}, whose address in the store no node with our signing key wrote`
  throw new SallyportError('recorded-elsewhere', { detail })
}

async function has(ask: Ask, peer: Peer, session: string, behalf: Behalf): Promise<boolean> {
  const pieces = ask(peer, { what: 'has', session }, { ...behalf, headMs: hasMs, silenceMs: hasMs })
  return (await jsonAnswer(peer, pieces, hasAnswer)).has
}

async function holderOf(
  known: readonly KnownNode[], { key, ask }: { key: Buffer, ask: Ask }, session: string, owner: string,
  behalf: Behalf
): Promise<Peer> {
  const own = known.find(({ node }) => node === owner)
  if (own?.alive === true) {
    const peer = peerOf(key, own)
    if (await has(ask, peer, session, behalf)) return peer
    throw new SallyportError('not-found', { detail: `no recording of ${session} on node ${owner}` })
  }
  const found = await Promise.all(known.map(async each => {
    try {
      const peer = peerOf(key, each)
      return await has(ask, peer, session, behalf) ? peer : undefined
    } catch {
      // It is asked only in case: what is told is what became of the node that recorded it.
      return undefined
    }
  }))
  const holder = found.find(peer => peer !== undefined)
  if (holder !== undefined) return holder
  if (own !== undefined) peerOf(key, own)
  throw silent({ node: owner }, 'not heard of for weeks')
}

async function searched(
  ask: Ask, clock: Clock, key: Buffer, each: KnownNode, { query, limit, session }: SearchWanted,
  { person, signal }: Behalf
): Promise<Found> {
  const { node } = each
  const places: Place[] = []
  const late = new AbortController()
  const cancel = clock.after(searchMs, () => late.abort())
  try {
    const peer = peerOf(key, each)
    const question = { what: 'search', query, limit, session } as const
    const pieces = ask(peer, question, {
      person, headMs: silenceMs, silenceMs, signal: AbortSignal.any([signal, late.signal])
    })
    for await (const place of lineAnswers(peer, pieces, placeAnswer)) {
      places.push(place)
      // It was told how many; who says more gets no further.
      if (places.length >= limit) break
    }
    return { node, places }
  } catch (thrown) {
    const { code } = asSallyportError(thrown)
    return { node, places, missing: late.signal.aborted ? 'node-silent' : code }
  } finally {
    cancel()
  }
}
