// What nodes know of each other: who is alive, and where each says that it is asked for its recordings. Who
// is alive is the ledger's beat (ledger-node.ts); what a node says of itself is marked with a key that the
// store has not (nodes/trust.ts), so that it is only kept here.
import type { NodePorts } from '../nodes/nodes.ts'
import type { Database } from './database.ts'
import { asc, eq, sql } from './drizzle.ts'
import { deadBoot } from './ledger-node.ts'
import { node } from './schema.ts'

/** Nodes that are looked at. */
const nodesMax = 64
/** Who has not been heard of for so long was taken away, or has another name now. */
const forgottenDays = 30

/** `ttlMs`: who has not beaten for so long is not alive. */
export function createNodeRows(database: Database, ttlMs: number): NodePorts['rows'] {
  const silent = sql<number>`extract(epoch from now() - ${node.beatAt})::float8`
  return {
    async advertise(name, advert) {
      const { url = null, certificate = null, mark = null } = advert ?? {}
      await database.run(async handle => {
        await handle.update(node).set({ apiUrl: url, apiCertificate: certificate, apiMark: mark })
          .where(eq(node.id, name))
      })
    },
    async list() {
      const rows = await database.run(handle => handle
        .select({
          node: node.id, boot: node.boot, silent, url: node.apiUrl, certificate: node.apiCertificate,
          mark: node.apiMark
        })
        .from(node).where(sql`${node.beatAt} > now() - ${forgottenDays}::int * interval '1 day'`)
        .orderBy(asc(node.id)).limit(nodesMax))
      return rows.map(({ boot, silent: silentSeconds, ...rest }) => ({
        ...rest, silentSeconds, alive: !boot.startsWith(deadBoot) && silentSeconds * 1000 < ttlMs
      }))
    }
  }
}
