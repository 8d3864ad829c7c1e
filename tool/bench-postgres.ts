// The PostgreSQL data path in pairs: the same load directly, through pgbouncer (session pooling, as shipped
// and with 64 KiB buffers) and through our front end with recording on, round after round in one run, so
// that what else the machine does hits all alike. Read the ratios, and CPU before time: on a small machine
// clients and server take the same cores. `npm run bench` takes some twenty minutes, `npm run bench --
// --short` under one; `--only=select,memory` picks parts (select, tx, bulk, blast, memory), `--rounds=1
// --seconds=3 --clients=8` change the plan.
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { query, readyForQuery } from '../src/wire/postgres/messages.ts'
import { openUpstream } from '../src/wire/postgres/upstream.ts'
import type { Upstream } from '../src/wire/postgres/upstream.ts'
import { randomKeys, verifierFromKeys } from '../src/wire/postgres/verifier.ts'
import { fakePassword } from '../test/peers/fake-target.ts'
import { clientPassword } from '../test/peers/pass-through.ts'
import { cpuUs, residentKiB, runProgram, startOwn, startPgbouncer } from './bench-processes.ts'
import type { Process } from './bench-processes.ts'
import { fixed, heading, inRounds, median, say, table } from './bench-report.ts'
import { startPostgres } from './postgres.ts'
import type { PostgresServer } from './postgres.ts'
import { ensurePackages, programOf } from './services.ts'

interface Way {
  name: string
  port: number
  /** The process whose CPU and memory count; undefined: directly. */
  pid: number | undefined
  password: string
}

/** What one run of small transactions gave. */
interface Sample {
  tps: number
  /** Microseconds of the proxy's CPU for each transaction. */
  cpuUs: number | undefined
  p50Us: number
  p99Us: number
}

/** What one large transfer gave: MB/s, and seconds of the proxy's CPU for each GB. */
interface Bulk {
  rate: number
  cpu: number
}

interface Plan {
  seconds: number
  rounds: number
  clients: readonly number[]
  protocols: readonly string[]
  bulkBytes: number
  idle: number
  scale: number
  parts: readonly string[]
}

const parts = ['select', 'tx', 'bulk', 'blast', 'memory']
const long: Plan = {
  seconds: 5, rounds: 3, clients: [1, 8, 32], protocols: ['simple', 'extended', 'prepared'],
  bulkBytes: 1_100_000_000, idle: 2000, scale: 10, parts
}
const short: Plan = {
  seconds: 1, rounds: 1, clients: [8], protocols: ['prepared'], bulkBytes: 150_000_000, idle: 200, scale: 1,
  parts
}

const user = 'bench'
// A column of 100 characters: a message of 111 bytes as a row, of 106 as copied data.
const rowText = `'${'x'.repeat(100)}'`
const rowBytes = 111
const copiedBytes = 106
const ready = readyForQuery('I')
const readInto = Buffer.allocUnsafe(1024 * 1024)
const warmUpSeconds = 2
/** Connections are a hundred times slower than statements. */
const setUpWarmUpFactor = 6
/** What has been freed is given back by then. */
const idleMs = 3000

// ---- small transactions

async function pgbench(
  way: Way, words: readonly string[], seconds: number, clients: number
): Promise<Sample> {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-bench-'))
  try {
    const before = way.pid === undefined ? NaN : cpuUs(way.pid)
    const { code, out, error } = await runProgram(programOf('pgbench'), [
      '-h', '127.0.0.1', '-p', String(way.port), '-U', user, '-n', '-c', String(clients), '-j', '1',
      '-T', String(seconds), '-l', ...words, 'postgres'
    ], way.password, folder)
    if (code !== 0) throw new Error(`pgbench over ${way.name} failed: ${error}`)
    const spent = way.pid === undefined ? undefined : cpuUs(way.pid) - before
    const transactions = Number(/transactions actually processed: (\d+)/.exec(out)?.[1])
    const latencies = readdirSync(folder).flatMap(file => {
      const lines = readFileSync(join(folder, file), 'utf8').trimEnd().split('\n')
      return lines.map(line => Number(line.split(' ')[2]))
    })
    latencies.sort((left, right) => left - right)
    return {
      tps: Number(/tps = ([\d.]+)/.exec(out)?.[1]),
      cpuUs: spent === undefined ? undefined : spent / transactions,
      p50Us: latencies[Math.floor(latencies.length * 0.5)] ?? NaN,
      p99Us: latencies[Math.floor(latencies.length * 0.99)] ?? NaN
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

async function compare(
  title: string, ways: readonly Way[], plan: Plan, words: readonly string[], clients: number
): Promise<void> {
  const samples = await inRounds(ways, plan.rounds, way => pgbench(way, words, plan.seconds, clients))
  const of = (index: number, key: keyof Sample): number =>
    median(samples[index]!.map(sample => sample[key]).filter(value => value !== undefined))
  heading(title)
  table([
    'way', 'tps', 'tps / pgbouncer', 'CPU µs/tx', 'CPU / pgbouncer',
    'p50 µs', 'p99 µs', 'added p50', 'added p99'
  ], ways.map(({ name }, index) => [
    name, fixed(of(index, 'tps'), 0), fixed(of(index, 'tps') / of(1, 'tps'), 2),
    fixed(of(index, 'cpuUs'), 1), fixed(of(index, 'cpuUs') / of(1, 'cpuUs'), 2),
    fixed(of(index, 'p50Us'), 0), fixed(of(index, 'p99Us'), 0),
    fixed(of(index, 'p50Us') - of(0, 'p50Us'), 0), fixed(of(index, 'p99Us') - of(0, 'p99Us'), 0)
  ]))
}

/**
 * pgbouncer keeps its connections to the target, and we log in for each session: it stands here once more,
 * told to do the same. Ours runs warm, as a service does: its compilers need some thousand connections.
 */
async function compareSetUp(
  port: number, password: string, ways: readonly Way[], plan: Plan
): Promise<void> {
  const fresh = await startPgbouncer(port, user, password, { server_lifetime: 0 })
  const words = ['-C', '-S']
  await pgbench(ways.at(-1)!, words, plan.seconds * setUpWarmUpFactor, 8)
  const all = [...ways, { name: 'pgbouncer, logs in', port: fresh.port, pid: fresh.pid, password }]
  await compare('a new connection for each SELECT, 8 clients', all, plan, words, 8)
  await fresh.stop()
}

// ---- large transfers

function bulkOf(way: Way, bytes: number, cpuBefore: number, started: number): Bulk {
  const seconds = (performance.now() - started) / 1000
  const cpu = way.pid === undefined ? NaN : (cpuUs(way.pid) - cpuBefore) / 1e6
  return { rate: bytes / 1e6 / seconds, cpu: cpu / (bytes / 1e9) }
}

/** COPY as people run it: psql writes it away. */
async function copyOut(way: Way, bytes: number): Promise<Bulk> {
  const rows = Math.round(bytes / copiedBytes)
  const before = way.pid === undefined ? NaN : cpuUs(way.pid)
  const started = performance.now()
  const { code, error } = await runProgram(programOf('psql'), [
    '-X', '-q', '-h', '127.0.0.1', '-p', String(way.port), '-U', user, '-d', 'postgres', '-o', '/dev/null',
    '-c', `COPY (SELECT ${rowText} FROM generate_series(1, ${rows})) TO STDOUT`
  ], way.password)
  if (code !== 0) throw new Error(`psql over ${way.name} failed: ${error}`)
  return bulkOf(way, rows * copiedBytes, before, started)
}

/**
 * A client that reads and throws away: psql would hold it all in memory and cost more than what is
 * measured.
 */
async function drain(way: Way, sql: string): Promise<Bulk> {
  const upstream = await login(way)
  const before = way.pid === undefined ? NaN : cpuUs(way.pid)
  const started = performance.now()
  let got = 0
  await new Promise<void>((done, fail) => {
    upstream.takeOver((chunk, count) => {
      got += count
      if (count >= ready.length && ready.equals(chunk.subarray(count - ready.length, count))) done()
      return true
    })
    upstream.socket.once('close', () => fail(new Error(`${way.name} closed the connection`)))
    upstream.socket.write(query(sql))
  })
  const sample = bulkOf(way, got, before, started)
  upstream.close()
  return sample
}

async function compareBulk(
  title: string, ways: readonly Way[], plan: Plan, measure: (way: Way) => Promise<Bulk>
): Promise<void> {
  const samples = await inRounds(ways, plan.rounds, measure)
  const cpu = (index: number): number => median(samples[index]!.map(sample => sample.cpu))
  heading(title)
  table(['way', 'MB/s', 'CPU s/GB', 'CPU / pgbouncer', 'CPU / pgbouncer 64K'], ways.map(({ name }, index) => [
    name, fixed(median(samples[index]!.map(sample => sample.rate)), 0), fixed(cpu(index), 2),
    fixed(cpu(index) / cpu(1), 2), fixed(cpu(index) / cpu(2), 2)
  ]))
}

// ---- idle sessions

function login(way: Way, mode: 'disable' | 'require' = 'disable'): Promise<Upstream> {
  return openUpstream({
    host: '127.0.0.1', port: way.port, tls: { mode }, user, database: 'postgres',
    secret: () => ({ kind: 'password', password: way.password }), readBuffer: () => readInto,
    timeouts: { connectMs: 20_000, tlsMs: 20_000, loginMs: 20_000 }
  })
}

/** Resident memory that each idle session adds, after it has asked one question. */
async function idleMemory(way: Way, count: number, mode: 'disable' | 'require'): Promise<string> {
  const open: Upstream[] = []
  const before = residentKiB(way.pid!)
  while (open.length < count) {
    const batch = await Promise.all(Array.from({ length: 20 }, () => login(way, mode)))
    for (const upstream of batch) {
      await new Promise<void>(done => {
        upstream.takeOver(() => {
          done()
          return true
        })
        upstream.socket.write(query('SELECT 1'))
      })
    }
    open.push(...batch)
  }
  await new Promise(done => setTimeout(done, idleMs))
  const each = (residentKiB(way.pid!) - before) / open.length
  for (const upstream of open) upstream.close()
  return fixed(each, 1)
}

// ---- the whole

/** `--short`, and single values over it. */
function planOf(words: readonly string[]): Plan {
  const value = (name: string): string | undefined =>
    words.find(word => word.startsWith(`--${name}=`))?.slice(name.length + 3)
  const plan = words.includes('--short') ? short : long
  return {
    ...plan,
    seconds: Number(value('seconds') ?? plan.seconds),
    rounds: Number(value('rounds') ?? plan.rounds),
    idle: Number(value('idle') ?? plan.idle),
    bulkBytes: Number(value('bytes') ?? plan.bulkBytes),
    clients: value('clients')?.split(',').map(Number) ?? plan.clients,
    protocols: value('protocols')?.split(',') ?? plan.protocols,
    parts: value('only')?.split(',') ?? plan.parts
  }
}

/** Direct first, pgbouncer second: the tables compare with these places. */
function waysOf(port: number, password: string, [shipped, tuned, own]: readonly Process[]): Way[] {
  return [
    { name: 'direct', port, pid: undefined, password },
    { name: 'pgbouncer', port: shipped!.port, pid: shipped!.pid, password },
    { name: 'pgbouncer 64K', port: tuned!.port, pid: tuned!.pid, password },
    { name: 'sallyport', port: own!.port, pid: own!.pid, password: clientPassword }
  ]
}

async function prepare(
  server: PostgresServer, plan: Plan
): Promise<{ password: string, keysBase64: string[] }> {
  const password = 'bench-password'
  await server.psql(`CREATE ROLE ${user} LOGIN SUPERUSER PASSWORD '${password}'`)
  // As every account that is made for a session: it has keys, and no password that would have to be hashed.
  const keys = randomKeys()
  await server.psql(`CREATE ROLE keyed LOGIN SUPERUSER PASSWORD '${verifierFromKeys(keys)}'`)
  const { code, error } = await runProgram(programOf('pgbench'), [
    '-h', '127.0.0.1', '-p', String(server.port), '-U', user, '-i', '-q', '-s', String(plan.scale), 'postgres'
  ], password)
  if (code !== 0) throw new Error(`pgbench -i failed: ${error}`)
  await server.psql('VACUUM ANALYZE')
  return { password, keysBase64: [keys.clientKey.toString('base64'), keys.serverKey.toString('base64')] }
}

async function benchReal(plan: Plan): Promise<void> {
  await using server = await startPostgres({
    version: '15', settings: { max_connections: 200, shared_buffers: '256MB', synchronous_commit: 'off' }
  })
  const { password, keysBase64 } = await prepare(server, plan)
  const target = { host: '127.0.0.1', port: server.port, tls: { mode: 'disable' } }
  const processes = [
    await startPgbouncer(server.port, user, password),
    await startPgbouncer(server.port, user, password, { pkt_buf: 65_536 }),
    await startOwn('test/peers/pass-through.ts', { target, role: 'keyed', password: '', keysBase64 })
  ]
  const ways = waysOf(server.port, password, processes)
  // Compilers need some thousand transactions before they are through.
  for (const way of ways) await pgbench(way, ['-S', '-M', 'extended'], warmUpSeconds, 8)
  for (const protocol of plan.parts.includes('select') ? plan.protocols : []) {
    for (const clients of plan.clients) {
      const title = `SELECT, ${protocol}, ${clients} client${clients === 1 ? '' : 's'}`
      await compare(title, ways, plan, ['-S', '-M', protocol], clients)
    }
  }
  if (plan.parts.includes('tx')) {
    await compare('TPC-B, prepared, 8 clients', ways, plan, ['-M', 'prepared'], 8)
    await compareSetUp(server.port, password, ways, plan)
  }
  if (plan.parts.includes('bulk')) {
    const rows = Math.round(plan.bulkBytes / rowBytes)
    await compareBulk('COPY TO STDOUT with psql', ways, plan, way => copyOut(way, plan.bulkBytes))
    await compareBulk('large SELECT', ways, plan, way =>
      drain(way, `SELECT ${rowText} FROM generate_series(1, ${rows})`))
  }
  for (const each of processes) await each.stop()
}

/** Against a target that costs nothing: what the proxies themselves take. */
async function benchFake(plan: Plan): Promise<void> {
  const fake = await startOwn('test/peers/fake-target.ts')
  const target = { host: '127.0.0.1', port: fake.port, tls: { mode: 'disable' } }
  const processes = [
    await startPgbouncer(fake.port, user, fakePassword),
    await startPgbouncer(fake.port, user, fakePassword, { pkt_buf: 65_536 }),
    await startOwn('test/peers/pass-through.ts', { target, role: user, password: fakePassword })
  ]
  const ways = waysOf(fake.port, fakePassword, processes)
  for (const bytes of plan.parts.includes('blast') ? [100, 8192] : []) {
    await compareBulk(`rows of ${bytes} bytes from a target that costs nothing`, ways, plan, way =>
      drain(way, `blast ${plan.bulkBytes} ${bytes}`))
  }
  if (plan.parts.includes('memory')) {
    const [, shipped, , own] = ways
    const rows = [
      ['pgbouncer', await idleMemory(shipped!, plan.idle, 'disable'), '-'],
      [
        'sallyport', await idleMemory(own!, plan.idle, 'disable'),
        await idleMemory(own!, plan.idle, 'require')
      ]
    ]
    heading(`${plan.idle} idle sessions, KiB each`)
    table(['way', 'plain', 'TLS'], rows)
  }
  for (const each of [...processes, fake]) await each.stop()
}

async function main(): Promise<void> {
  const plan = planOf(process.argv)
  ensurePackages(['postgres-15', 'pgbench', 'psql', 'pgbouncer'])
  const load = loadavg().map(each => each.toFixed(1)).join(' ')
  say(`# PostgreSQL data path, Node ${process.version}, load ${load}`)
  if (plan.parts.some(part => ['select', 'tx', 'bulk'].includes(part))) await benchReal(plan)
  if (plan.parts.some(part => ['blast', 'memory'].includes(part))) await benchFake(plan)
}

await main()
