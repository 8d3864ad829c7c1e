// What a fault left behind: on the target, on the books, in the evidence. Looked at from outside, over the
// product's own API as its local admin, and on the target by its superuser. Crash sweep, fault tests and soak
// all judge by this file, so a check that is missing here is missing everywhere.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { LeaseJson, OrphansJson, SessionJson, VerifiedJson } from '../../src/api/client-types.ts'
import { createClient } from '../../src/cli/client.ts'
import type { Client } from '../../src/cli/client.ts'
import type { PostgresServer } from '../../tool/postgres.ts'
import { until } from './house.ts'
import type { Product } from './house.ts'

const listedMax = 1000
const eventsMax = 10_000
// From an account that is gone to the row of its session that says so.
const closeSecondsMax = 10

/** A client of the product's API as the local admin; to be made again after a restart. */
export function apiOf({ folder }: Product): Client {
  const [token, server = ''] = readFileSync(join(folder, 'data/local-admin.token'), 'utf8').split('\n')
  return createClient({
    server, token, ca: readFileSync(join(folder, 'data/tls/ca.pem'), 'utf8'), as: 'local admin'
  })
}

/** All sessions, newest first. */
export async function sessionsOf(api: Client): Promise<SessionJson[]> {
  const all: SessionJson[] = []
  for (;;) {
    const { sessions } = await api.get('/sessions', { query: { limit: listedMax, before: all.at(-1)?.id } })
    all.push(...sessions)
    if (sessions.length < listedMax) return all
  }
}

/** Leases that are live, or whose account is not proved gone. */
export async function openLeases(api: Client): Promise<LeaseJson[]> {
  const found = await Promise.all((['active', 'revoking', 'failed'] as const).map(async status =>
    (await api.get('/leases', { query: { limit: listedMax, status } })).leases))
  return found.flat().filter(({ account, status }) => account.state !== 'proved-gone' || status === 'active')
}

export async function orphansOf(api: Client): Promise<OrphansJson> {
  return api.get('/orphans')
}

/** The statements that a recording holds, as text; throws when it cannot be read. */
export async function statementsOf(api: Client, session: string): Promise<string> {
  const chunks: Buffer[] = []
  const stream = api.stream('/sessions/{id}/export', { params: { id: session }, query: { format: 'sql' } })
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks).toString('utf8')
}

/** Roles on the target: taken before the first session, the measure of what does not belong there. */
export async function rolesOn(server: PostgresServer): Promise<Set<string>> {
  const rows = await server.psql("SELECT rolname FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%'")
  return new Set(rows.split('\n'))
}

/**
 * Roles that were not there before and are not the product's own two, standing accounts that can log in, and
 * sessions of either, one a line; empty when nothing is left.
 */
export async function residueOn(server: PostgresServer, before: ReadonlySet<string>): Promise<string> {
  const known = [...before, 'sallyport_graveyard', 'sallyport_jit'].map(name => `'${name}'`).join()
  return server.psql(`
    SELECT rolname FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%' AND rolname NOT IN (${known})
    UNION ALL SELECT 'standing can log in' FROM pg_roles WHERE rolname = 'standing' AND rolcanlogin
    UNION ALL SELECT 'session of ' || coalesce(usename, 'a dropped role') || ' ' || pid FROM pg_stat_activity
      WHERE usesysid IS NOT NULL AND (usename = 'standing' OR usename IS NULL OR usename NOT IN (${known}))`)
}

/** Waits until nothing is left on the target; resolves with how long that took, in seconds. */
export async function untilGone(
  server: PostgresServer, before: ReadonlySet<string>, seconds = 30
): Promise<number> {
  const startedMs = performance.now()
  await until(() => residueOn(server, before), left => left === '', seconds)
  return (performance.now() - startedMs) / 1000
}

/**
 * Waits until the ledger has every account proved gone and no live lease; throws naming those that are not.
 */
export async function untilProved(api: Client, seconds = 60): Promise<number> {
  const startedMs = performance.now()
  const open = async (): Promise<string[]> => (await openLeases(api))
    .map(({ account, status }) => `${account.name} ${account.state} ${status}`)
  await until(open, left => left.length === 0, seconds)
  return (performance.now() - startedMs) / 1000
}

/**
 * What is wrong with the evidence: recordings of sessions that are over and are not whole and sealed,
 * sessions that nobody closed, receipts that nothing chains, a broken audit log. Empty when all is well.
 * `sessions` limits it to some of them.
 */
export async function faultsOfEvidence(api: Client, sessions?: readonly SessionJson[]): Promise<string[]> {
  const judged = sessions ?? await sessionsOf(api)
  const wrong = await unchained(api, judged)
  for (const session of judged) {
    const { id, status, reason } = await closed(api, session)
    if (status === 'opening' || status === 'live') {
      wrong.push(`session ${id} is still ${status}`)
      continue
    }
    const verdict = await verified(api, id)
    // Refused before its recording began: then there is none.
    if (verdict === undefined && status === 'ended') wrong.push(`session ${id} (${reason}) has no recording`)
    if (verdict?.valid === false) wrong.push(`recording ${id}: ${verdict.state} ${verdict.problem}`)
  }
  return [...wrong, ...await faultsOfAudit(api)]
}

/** The session as it is when its row is closed: that comes last, after account, receipt and recording. */
async function closed(api: Client, session: SessionJson): Promise<SessionJson> {
  const isOpen = ({ status }: SessionJson): boolean => status === 'opening' || status === 'live'
  if (!isOpen(session)) return session
  const look = (): Promise<SessionJson> => api.get('/sessions/{id}', { params: { id: session.id } })
  return until(look, found => !isOpen(found), closeSecondsMax).catch(() => session)
}

/** Receipts without their audit event. */
async function unchained(api: Client, sessions: readonly SessionJson[]): Promise<string[]> {
  const receipts = sessions.flatMap(({ receipt }) => receipt === null ? [] : [receipt.id])
  if (receipts.length === 0) return []
  const query = { kind: 'account.receipt', limit: eventsMax }
  const { events } = await api.get('/audit', { query })
  const chained = new Set(events.map(({ detail }) => String((detail as { receipt?: unknown }).receipt)))
  // Of a shared account's sessions each has the receipt under a number of its own.
  const isChained = (id: string): boolean => chained.has(id.replace(/\.\d+$/, ''))
  return receipts.filter(id => !isChained(id)).map(id => `receipt ${id} has no audit event`)
}

async function verified(api: Client, id: string): Promise<VerifiedJson | undefined> {
  try {
    return await api.get('/sessions/{id}/verify', { params: { id } })
  } catch (thrown) {
    if ((thrown as { code?: string }).code === 'not-found') return undefined
    throw thrown
  }
}

export async function faultsOfAudit(api: Client): Promise<string[]> {
  const { valid, problems } = await api.post('/audit/verify', { body: {} })
  return valid ? [] : [`audit: ${problems.join('; ')}`]
}
