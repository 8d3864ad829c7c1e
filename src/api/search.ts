// Full-text search over the recordings of all nodes: each looks through its own at the same time, and an
// answer that lacks some says whose. Where nodes have one folder they find the same places, which are shown
// once.
import { z } from 'zod'
import { asSallyportError } from '../errors.ts'
import type { Behalf } from '../nodes/ask.ts'
import type { Found } from '../nodes/nodes.ts'
import type { Place } from '../nodes/words.ts'
import { placesOf } from './nodes.ts'
import type { ApiPorts } from './ports.ts'
import { route, watchers } from './route.ts'
import { sessionId, unansweredShape, hitShape } from './shapes.ts'

const hitsPerAnswerMax = 1_000

export function searchRoute(ports: ApiPorts) {
  return route({
    method: 'get', path: '/search', roles: watchers,
    summary: 'Full-text search over statements and output of recordings, on all nodes.',
    query: z.strictObject({
      query: z.string().min(1).max(1024), session: sessionId.optional(),
      limit: z.coerce.number<number>().int().min(1).max(hitsPerAnswerMax).default(100)
    }),
    response: z.object({ hits: z.array(hitShape), unanswered: z.array(unansweredShape) }),
    run: async ({ query: { query, session, limit }, caller, signal }) => {
      const behalf = { person: caller.name, signal }
      const asked = await askedFor(ports, session, behalf)
      const nodes = asked.length === 0 ? {} : { nodes: asked.map(({ node }) => node) }
      await ports.audit.append('recordings.searched', caller.name, session ?? '*', { query, ...nodes })
      const wanted = { query, limit, session }
      const [here, ...there] = await Promise.all([
        Array.fromAsync(placesOf(ports.recordings.search({ ...wanted, signal }))),
        ...asked.map(other => other.search(wanted, behalf))
      ])
      return { hits: merged([here, ...there.map(({ places }) => places)], limit), unanswered: missing(there) }
    }
  })
}

/** All others; for one session that lies elsewhere whoever has it, for one that lies here nobody. */
async function askedFor(ports: ApiPorts, session: string | undefined, behalf: Behalf) {
  if (session === undefined) return ports.nodes.others()
  const row = await ports.sessions.get(session)
  if (row === undefined || row.node === ports.node || ports.recordings.has(session)) return []
  try {
    const { node: holder } = await ports.nodes.holding(session, row.node, behalf)
    return (await ports.nodes.others()).filter(({ node }) => node === holder)
  } catch (thrown) {
    // Nothing was recorded: then nothing is found.
    if (asSallyportError(thrown).code === 'not-found') return []
    throw thrown
  }
}

/** The newest days first, as each node has them; every place once. */
function merged(lists: readonly (readonly Place[])[], limit: number): Place[] {
  const byPlace = new Map<string, Place>()
  for (const place of lists.flat().sort((one, other) => other.day.localeCompare(one.day))) {
    const key = `${place.session} ${place.lane} ${place.offset} ${place.atMs}`
    if (!byPlace.has(key)) byPlace.set(key, place)
  }
  return [...byPlace.values()].slice(0, limit)
}

function missing(found: readonly Found[]): z.output<typeof unansweredShape>[] {
  return found.flatMap(({ node, missing: code }) => code === undefined ? [] : [{ node, code }])
}
