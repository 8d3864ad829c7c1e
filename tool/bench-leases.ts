// `npm run bench leases`: what an account costs beside sessions, how fast many of them end. The rooms are
// those of `serve`, over the embedded store or a PostgreSQL one; the target is a real PostgreSQL. A lifecycle
// is issue (intent, CREATE ROLE, outcome) and revoke (ladder, DROP ROLE, look, receipt). CPU is that of our
// process with all its threads: with the embedded store that is the database as well.
//   node tool/bench-leases.ts [--short] [--only=lifecycles,expiry,audit] [--store=embedded,postgres]
import { mkdtempSync, rmSync } from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { localAdminName } from '../src/api/access.ts'
import { systemClock } from '../src/clock.ts'
import { parseConfig } from '../src/config.ts'
import type { Lease } from '../src/lease/ledger.ts'
import { createLog } from '../src/log.ts'
import { specOf } from '../src/main/accounts.ts'
import { openRooms } from '../src/main/rooms.ts'
import type { Rooms } from '../src/main/rooms.ts'
import type { Credential, JitSetting, Target } from '../src/policy/types.ts'
import { Secret } from '../src/secret.ts'
import { sql } from '../src/store/drizzle.ts'
import { fixed, heading, percentile, say, table } from './bench-report.ts'
import { adminRole, startPostgres } from './postgres.ts'
import type { PostgresServer } from './postgres.ts'
import { ensurePackages } from './services.ts'

type StoreKind = 'embedded' | 'postgres'

export interface Plan {
  lifecycles: number
  expiring: number
  events: number
  parts: readonly string[]
  stores: readonly StoreKind[]
}

const long: Plan = {
  lifecycles: 1500, expiring: 10_000, events: 50_000, parts: ['lifecycles', 'expiry', 'audit'],
  stores: ['embedded', 'postgres']
}
export const short: Plan = { ...long, lifecycles: 60, expiring: 100, events: 2_000 }

/** Callers at once: a busy installation, and what the queue of one target takes. */
const callers = 16
const warmUpLifecycles = 100
/** While others end, somebody wants one so often. */
const askMs = 200
const day = 86_400

/** Rooms over a new store, with the two targets declared. */
async function openBench(kind: StoreKind, targets: readonly PostgresServer[]): Promise<{
  rooms: Rooms, close(): Promise<void>
}> {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-bench-leases-'))
  const store = kind === 'postgres' ? await startPostgres({ version: '15' }) : undefined
  const text = `store: ${store?.url() ?? 'pglite'}\nlog: { level: error }\n`
  const rooms = await openRooms(
    parseConfig(text, join(folder, 'sallyport.yaml'), {}, folder), systemClock, createLog('error'))
  await rooms.resources.change(async change => {
    for (const [index, server] of targets.entries()) {
      const { name, password } = await adminRole(
        server, { name: `hooks ${kind}`, kind: 'createrole', groups: ['app_rw'] })
      await change.put('target', `t${index}`, targetOf(index, server), 'bench')
      const secret = await change.seal('credential', new Secret(password))
      const spec = { name: `admin${index}`, target: `t${index}`, username: name, password: secret }
      await change.put('credential', spec.name, spec, 'bench')
    }
  })
  return {
    rooms,
    async close() {
      await rooms.close()
      await store?.stop()
      rmSync(folder, { recursive: true, force: true })
    }
  }
}

function targetOf(index: number, { host, port }: PostgresServer): Target {
  const name = `t${index}`
  return { name, protocol: 'postgres', host, port, database: 'postgres', tls: { mode: 'disable' } }
}

/** Issues a lease of a person, for a day. */
async function issuer(rooms: Rooms, index: number, server: PostgresServer): Promise<() => Promise<Lease>> {
  const target = targetOf(index, server)
  const setting: JitSetting = {
    enabled: true, type: 'creation-deletion', useOwnCredential: false,
    authenticationCredential: `admin${index}`, variables: { roles: ['app_rw'] }, maxSessionSeconds: day,
    namePrefix: 'jit_',
    actions: {
      create: { plugin: 'postgres', template: 'postgres/create-role' },
      delete: { plugin: 'postgres', template: 'postgres/delete-role' }
    }
  }
  const credential: Credential = { name: `rw${index}`, target: target.name, jit: setting }
  const ports = { ...rooms, template: (id: string) => rooms.templates.get(id) }
  const spec = await specOf(ports, credential, setting, target)
  return () => rooms.ledger.issue({
    credential: credential.name, target: target.name, kind: 'create', namePattern: 'jit_#######', spec,
    // Nobody's declaration: leases of people whom nobody declared are revoked.
    owner: { kind: 'user', id: localAdminName }, actor: 'bench', ttlSeconds: day, maxTtlSeconds: day,
    tell: () => undefined
  })
}

/** So many at once until all are done. */
async function crowd(count: number, act: () => Promise<unknown>): Promise<void> {
  let left = count
  const worker = async (): Promise<void> => {
    while (left-- > 0) await act()
  }
  await Promise.all(Array.from({ length: callers }, worker))
}

async function lifecycles(rooms: Rooms, server: PostgresServer, count: number): Promise<string[]> {
  const issue = await issuer(rooms, 0, server)
  const waits: number[] = []
  const one = async (): Promise<void> => {
    const started = performance.now()
    const lease = await issue()
    waits.push(performance.now() - started)
    await rooms.ledger.revoke(lease.holdId, 'bench')
  }
  await crowd(Math.min(warmUpLifecycles, count), one)
  waits.length = 0
  const before = process.cpuUsage()
  const started = performance.now()
  await crowd(count, one)
  await rooms.ledger.idle()
  const seconds = (performance.now() - started) / 1000
  const { user, system } = process.cpuUsage(before)
  const left = Number(await server.psql(`SELECT count(*) FROM pg_roles WHERE rolname ~ '^jit_[0-9]'`))
  if (left > 0) throw new Error(`${left} accounts are left`)
  return [
    fixed(count / seconds, 0), fixed((user + system) / 1000 / count, 2), fixed(percentile(waits, 50), 0),
    fixed(percentile(waits, 99), 0)
  ]
}

/** All leases of one target end in the same second, while another target is asked for new ones. */
async function expiry(rooms: Rooms, servers: readonly PostgresServer[], count: number): Promise<string[]> {
  const [issue, other] = await Promise.all(servers.map((server, index) => issuer(rooms, index, server)))
  await crowd(count, issue!)
  const [first] = servers
  const open = async (): Promise<number> => {
    const [row] = await rooms.database.run(handle => handle.execute<{ open: number }>(sql`
      select count(*)::int as open from account where target = 't0' and state <> 'proved-gone'`))
    return Number(row?.open)
  }
  const waits: number[] = []
  let over = false
  const asking = (async (): Promise<void> => {
    while (!over) {
      const started = performance.now()
      const lease = await other!()
      waits.push(performance.now() - started)
      void rooms.ledger.revoke(lease.holdId, 'bench').catch(() => undefined)
      await pause(askMs)
    }
  })()
  await rooms.database.run(handle => handle.execute(sql`
    update hold set expires_at = now() from account a
    where hold.account = a.id and a.target = 't0' and hold.state = 'active'`))
  const before = process.cpuUsage()
  const started = performance.now()
  let left = await open()
  for (; left > 0; left = await open()) await pause(100)
  const seconds = (performance.now() - started) / 1000
  const { user, system } = process.cpuUsage(before)
  over = true
  await asking
  const still = Number(await first!.psql(`SELECT count(*) FROM pg_roles WHERE rolname ~ '^jit_[0-9]'`))
  if (still > 0) throw new Error(`${still} accounts are left`)
  return [
    String(count), fixed(seconds, 1), fixed((user + system) / 1000 / count, 2),
    fixed(percentile(waits, 50), 0), fixed(percentile(waits, 99), 0)
  ]
}

/** Events of many callers, which share their transactions. */
async function audit(rooms: Rooms, count: number): Promise<string[]> {
  const started = performance.now()
  const before = process.cpuUsage()
  let at = 0
  await Promise.all(Array.from({ length: 1000 }, async () => {
    while (at++ < count) await rooms.audit.append('bench', 'bench', 'nothing', { at })
  }))
  const { user, system } = process.cpuUsage(before)
  const seconds = (performance.now() - started) / 1000
  return [fixed(count / seconds, 0), fixed((user + system) / count, 0)]
}

function planOf(words: readonly string[]): Plan {
  const value = (name: string): string | undefined =>
    words.find(word => word.startsWith(`--${name}=`))?.slice(name.length + 3)
  const plan = words.includes('--short') ? short : long
  return {
    lifecycles: Number(value('lifecycles') ?? plan.lifecycles),
    expiring: Number(value('expiring') ?? plan.expiring),
    events: Number(value('events') ?? plan.events),
    parts: value('only')?.split(',') ?? plan.parts,
    stores: (value('store')?.split(',') ?? plan.stores) as StoreKind[]
  }
}

async function startTarget(): Promise<PostgresServer> {
  const server = await startPostgres({ version: '15', settings: { max_connections: 200 } })
  await server.psql('CREATE ROLE app_rw NOLOGIN')
  return server
}

/** Rows of each part's table. Throws when an account is left. */
export async function bench(plan: Plan): Promise<Record<string, string[][]>> {
  const servers = [await startTarget(), await startTarget()]
  const rows: Record<string, string[][]> = { lifecycles: [], expiry: [], audit: [] }
  for (const kind of plan.stores) {
    const { rooms, close } = await openBench(kind, servers)
    try {
      const [first] = servers
      if (plan.parts.includes('lifecycles')) {
        rows['lifecycles']!.push([kind, ...await lifecycles(rooms, first!, plan.lifecycles)])
      }
      if (plan.parts.includes('audit')) rows['audit']!.push([kind, ...await audit(rooms, plan.events)])
      if (plan.parts.includes('expiry')) {
        rows['expiry']!.push([kind, ...await expiry(rooms, servers, plan.expiring)])
      }
    } finally {
      await close()
    }
  }
  for (const server of servers) await server.stop()
  return rows
}

const heads: Readonly<Record<string, { title: string, head: readonly string[] }>> = {
  lifecycles: {
    title: `issue and revoke, ${callers} callers`,
    head: ['store', 'lifecycles/s', 'our CPU ms each', 'issue p50 ms', 'issue p99 ms']
  },
  audit: { title: 'audit, 1,000 callers', head: ['store', 'events/s', 'our CPU µs each'] },
  expiry: {
    title: 'leases that end in one second',
    head: ['store', 'leases', 's until all are proved gone', 'our CPU ms each', 'new lease elsewhere p50 ms',
      'p99 ms']
  }
}

function report(rows: Readonly<Record<string, string[][]>>): void {
  for (const [part, { title, head }] of Object.entries(heads)) {
    if (rows[part]!.length === 0) continue
    heading(title)
    table(head, rows[part]!)
  }
}

if (import.meta.main) {
  ensurePackages(['postgres-15'])
  say(`# Leases, Node ${process.version}, load ${loadavg().map(each => each.toFixed(1)).join(' ')}`)
  report(await bench(planOf(process.argv)))
}
