// The PostgreSQL data path in pairs: the same load directly, through pgbouncer (session pooling, as shipped
// and with 64 KiB buffers) and through our front end with recording on, round after round in one run, so that
// what else the machine does hits all alike. Read the ratios, and CPU before time: on a small machine clients
// and server take the same cores. `node tool/bench-postgres.ts --short` takes under a minute; without it some
// twenty.
import { spawn } from 'node:child_process'
import { chownSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { randomKeys, verifierFromKeys } from '../src/wire/postgres/verifier.ts'
import { openUpstream } from '../src/wire/postgres/upstream.ts'
import type { Upstream } from '../src/wire/postgres/upstream.ts'
import { fakePassword } from '../test/peers/fake-target.ts'
import { clientPassword } from '../test/peers/pass-through.ts'
import type { PassThroughOptions } from '../test/peers/pass-through.ts'
import { freePort, startPostgres } from './postgres.ts'
import type { PostgresServer } from './postgres.ts'
import { ensurePackages, programOf } from './services.ts'

interface Way {
  name: string
  port: number
  /** The process whose CPU and memory count; undefined: directly. */
  pid: number | undefined
  password: string
}

interface Child {
  port: number
  pid: number
  stop(): Promise<void>
}

/** What one run of one load over one way gave. */
interface Sample {
  tps: number
  /** Microseconds of the proxy's CPU for each transaction. */
  cpuUs: number | undefined
  p50Us: number
  p99Us: number
}

interface Plan {
  seconds: number
  rounds: number
  clients: readonly number[]
  protocols: readonly string[]
  bulkBytes: number
  idle: number
  scale: number
}

const long: Plan = {
  seconds: 5, rounds: 3, clients: [1, 8, 32], protocols: ['simple', 'extended', 'prepared'],
  bulkBytes: 1_100_000_000, idle: 2000, scale: 10
}
const short: Plan = {
  seconds: 1, rounds: 1, clients: [8], protocols: ['prepared'], bulkBytes: 150_000_000, idle: 200, scale: 1
}

const root = resolve(import.meta.dirname, '..')
// Linux counts CPU in ticks of 10 ms.
const tickUs = 10_000
const user = 'bench'

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right)
  return sorted[Math.floor(sorted.length / 2)] ?? NaN
}

/** User and system time of a process, all its threads. */
function cpuUs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ')
  return (Number(fields[11]) + Number(fields[12])) * tickUs
}

function residentKiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
}

interface Finished {
  code: number | null
  out: string
  error: string
}

function runProgram(
  program: string, words: readonly string[], password: string, cwd?: string
): Promise<Finished> {
  return new Promise((done, fail) => {
    const env = { ...process.env, PGPASSWORD: password, PGSSLMODE: 'disable' }
    const child = spawn(program, words, { env, cwd })
    let [out, error] = ['', '']
    child.stdout.on('data', (chunk: Buffer) => { out += chunk.toString() })
    child.stderr.on('data', (chunk: Buffer) => { error += chunk.toString() })
    child.on('error', fail)
    child.on('close', code => done({ code, out, error }))
  })
}

/** One of our own programs that prints its port and ends with its standard input. */
async function startOwn(file: string, options: unknown = {}, flags: readonly string[] = []): Promise<Child> {
  const child = spawn(process.execPath, [...flags, join(root, file)], { stdio: ['pipe', 'pipe', 'inherit'] })
  child.stdin.write(`${JSON.stringify(options)}\n`)
  const line = await new Promise<string>((done, fail) => {
    child.stdout.once('data', (chunk: Buffer) => done(chunk.toString()))
    child.once('exit', () => fail(new Error(`${file} did not start`)))
  })
  const { port, pid } = JSON.parse(line) as { port: number, pid: number }
  const stop = (): Promise<void> => new Promise(done => {
    child.once('exit', () => done())
    child.stdin.end()
  })
  return { port, pid, stop }
}

async function startPgbouncer(
  targetPort: number, password: string, packetBytes: number | undefined
): Promise<Child> {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-pgbouncer-'))
  const port = await freePort()
  const write = (name: string, text: string): string => {
    const path = join(folder, name)
    writeFileSync(path, text, { mode: 0o600 })
    return path
  }
  const users = write('users.txt', `"${user}" "${password}"\n`)
  const config = write('pgbouncer.ini', [
    '[databases]', `* = host=127.0.0.1 port=${targetPort}`, '[pgbouncer]', 'listen_addr = 127.0.0.1',
    `listen_port = ${port}`, 'auth_type = scram-sha-256', `auth_file = ${users}`, 'pool_mode = session',
    'max_client_conn = 5000', 'default_pool_size = 4000', 'unix_socket_dir =', 'log_connections = 0',
    'log_disconnections = 0', 'ignore_startup_parameters = extra_float_digits',
    ...packetBytes === undefined ? [] : [`pkt_buf = ${packetBytes}`], ''
  ].join('\n'))
  // It refuses to run as root.
  const account = process.getuid?.() === 0 ? nobody() : undefined
  if (account !== undefined) {
    for (const path of [folder, users, config]) chownSync(path, account.uid, account.gid)
  }
  const child = spawn(programOf('pgbouncer'), [config], { stdio: ['ignore', 'ignore', 'pipe'], ...account })
  await new Promise<void>((done, fail) => {
    let said = ''
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString()
      if (said.includes('process up')) done()
    })
    child.once('exit', () => fail(new Error(`pgbouncer did not start: ${said}`)))
  })
  const stop = (): Promise<void> => new Promise(done => {
    child.once('exit', () => {
      rmSync(folder, { recursive: true })
      done()
    })
    child.kill('SIGKILL')
  })
  return { port, pid: child.pid!, stop }
}

function nobody(): { uid: number, gid: number } {
  const entry = readFileSync('/etc/passwd', 'utf8').split('\n').map(line => line.split(':'))
    .find(([name]) => name === 'postgres' || name === 'nobody')
  return { uid: Number(entry?.[2]), gid: Number(entry?.[3]) }
}

// ---- loads

async function pgbench(way: Way, words: readonly string[], plan: Plan, clients: number): Promise<Sample> {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-bench-'))
  try {
    const before = way.pid === undefined ? 0 : cpuUs(way.pid)
    const { code, out, error } = await runProgram(programOf('pgbench'), [
      '-h', '127.0.0.1', '-p', String(way.port), '-U', user, '-n', '-c', String(clients), '-j', '1',
      '-T', String(plan.seconds), '-l', ...words, 'postgres'
    ], way.password, folder)
    if (code !== 0) throw new Error(`pgbench over ${way.name} failed: ${error}`)
    const spent = way.pid === undefined ? undefined : cpuUs(way.pid) - before
    const transactions = Number(/transactions actually processed: (\d+)/.exec(out)?.[1])
    const latencies = readdirSync(folder).flatMap(file =>
      readFileSync(join(folder, file), 'utf8').trimEnd().split('\n').map(line => Number(line.split(' ')[2])))
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
  title: string, ways: readonly Way[], rounds: number, measure: (way: Way) => Promise<Sample>
): Promise<void> {
  const samples = new Map<string, Sample[]>(ways.map(({ name }) => [name, []]))
  for (let round = 0; round < rounds; round++) {
    for (const way of ways) samples.get(way.name)!.push(await measure(way))
  }
  const of = (name: string, key: keyof Sample): number =>
    median(samples.get(name)!.map(sample => sample[key]).filter(value => value !== undefined))
  const [direct, base] = [ways[0]!.name, ways[1]!.name]
  say(`\n### ${title} (load ${loadavg()[0]!.toFixed(1)})`)
  say('| way | tps | tps / pgbouncer | CPU µs/tx | CPU / pgbouncer '
    + '| p50 µs | p99 µs | added p50 | added p99 |')
  say('|---|---|---|---|---|---|---|---|---|')
  for (const { name } of ways) {
    const added = (key: 'p50Us' | 'p99Us'): string => (of(name, key) - of(direct, key)).toFixed(0)
    const cpu = of(name, 'cpuUs')
    say(`| ${[
      name, of(name, 'tps').toFixed(0), (of(name, 'tps') / of(base, 'tps')).toFixed(2),
      Number.isNaN(cpu) ? '-' : cpu.toFixed(1),
      Number.isNaN(cpu) ? '-' : (cpu / of(base, 'cpuUs')).toFixed(2),
      of(name, 'p50Us').toFixed(0), of(name, 'p99Us').toFixed(0), added('p50Us'), added('p99Us')
    ].join(' | ')} |`)
  }
}

async function bulk(
  title: string, ways: readonly Way[], rounds: number, bytes: number, sql: string
): Promise<void> {
  const samples = new Map<string, { rate: number, cpu: number }[]>(ways.map(({ name }) => [name, []]))
  for (let round = 0; round < rounds; round++) {
    for (const way of ways) {
      const before = way.pid === undefined ? NaN : cpuUs(way.pid)
      const started = performance.now()
      const { code, error } = await runProgram(programOf('psql'), [
        '-X', '-q', '-h', '127.0.0.1', '-p', String(way.port), '-U', user, '-d', 'postgres', '-c', sql,
        '-o', '/dev/null', '-v', 'FETCH_COUNT=0'
      ], way.password)
      if (code !== 0) throw new Error(`psql over ${way.name} failed: ${error}`)
      const seconds = (performance.now() - started) / 1000
      const cpu = way.pid === undefined ? NaN : (cpuUs(way.pid) - before) / 1e6
      samples.get(way.name)!.push({ rate: bytes / 1e6 / seconds, cpu: cpu / (bytes / 1e9) })
    }
  }
  bulkTable(title, ways, samples)
}

function bulkTable(
  title: string, ways: readonly Way[], samples: Map<string, { rate: number, cpu: number }[]>
): void {
  say(`\n### ${title} (load ${loadavg()[0]!.toFixed(1)})`)
  say('| way | MB/s | CPU s/GB | CPU / pgbouncer | CPU / tuned |')
  say('|---|---|---|---|---|')
  const cpu = (name: string | undefined): number =>
    median((samples.get(name ?? '') ?? []).map(each => each.cpu))
  for (const { name } of ways) {
    const rate = median(samples.get(name)!.map(each => each.rate))
    const [own, base, tuned] = [cpu(name), cpu(ways[1]?.name), cpu(ways[2]?.name)]
    const cells = Number.isNaN(own)
      ? ['-', '-', '-']
      : [own.toFixed(2), (own / base).toFixed(2), (own / tuned).toFixed(2)]
    say(`| ${[name, rate.toFixed(0), ...cells].join(' | ')} |`)
  }
}

/** A client that reads and throws away: psql would cost more than what is measured. */
async function blastThrough(
  way: Way, bytes: number, rowBytes: number
): Promise<{ rate: number, cpu: number }> {
  const upstream = await login(way)
  const before = way.pid === undefined ? NaN : cpuUs(way.pid)
  const started = performance.now()
  let [got, last] = [0, Buffer.alloc(0)]
  await new Promise<void>((done, fail) => {
    upstream.takeOver((chunk, count) => {
      got += count
      last = Buffer.from(chunk.subarray(Math.max(0, count - 6), count))
      if (count >= 6 && last.equals(Buffer.from([0x5a, 0, 0, 0, 5, 0x49]))) done()
      return true
    })
    upstream.socket.once('close', () => fail(new Error(`${way.name} closed the connection`)))
    const sql = `blast ${bytes} ${rowBytes}`
    upstream.socket.write(Buffer.concat([
      Buffer.from([0x51, 0, 0, 0, 4 + sql.length + 1]), Buffer.from(`${sql}\0`)
    ]))
  })
  const seconds = (performance.now() - started) / 1000
  const cpu = way.pid === undefined ? NaN : (cpuUs(way.pid) - before) / 1e6
  upstream.close()
  return { rate: got / 1e6 / seconds, cpu: cpu / (got / 1e9) }
}

const readInto = Buffer.allocUnsafe(1024 * 1024)

function login(way: Way, mode: 'disable' | 'require' = 'disable'): Promise<Upstream> {
  return openUpstream({
    host: '127.0.0.1', port: way.port, tls: { mode }, user, database: 'postgres',
    secret: () => ({ kind: 'password', password: way.password }), readBuffer: () => readInto,
    timeouts: { connectMs: 20_000, tlsMs: 20_000, loginMs: 20_000 }
  })
}

/** Resident memory that each idle session adds, after it has asked one question. */
async function idleMemory(way: Way, count: number, mode: 'disable' | 'require'): Promise<number> {
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
        upstream.socket.write(Buffer.from('510000000d53454c454354203100', 'hex'))
      })
    }
    open.push(...batch)
  }
  await new Promise(done => setTimeout(done, 3000))
  const each = (residentKiB(way.pid!) - before) / open.length
  for (const upstream of open) upstream.close()
  return each
}

async function benchSelects(ways: readonly Way[], plan: Plan): Promise<void> {
  for (const protocol of plan.protocols) {
    for (const clients of plan.clients) {
      await compare(`SELECT, ${protocol}, ${clients} clients`, ways, plan.rounds, way =>
        pgbench(way, ['-S', '-M', protocol], plan, clients))
    }
  }
}

async function benchTransactions(ways: readonly Way[], plan: Plan): Promise<void> {
  await compare('TPC-B, prepared, 8 clients', ways, plan.rounds, way =>
    pgbench(way, ['-M', 'prepared'], plan, 8))
  await compare('connection set-up (-C -S), 8 clients', ways, plan.rounds, way =>
    pgbench(way, ['-C', '-S'], plan, 8))
}

async function benchBulk(ways: readonly Way[], plan: Plan): Promise<void> {
  const line = `repeat('x', 100)`
  const rows = Math.round(plan.bulkBytes / 101)
  await bulk('COPY TO STDOUT', ways, plan.rounds, rows * 101,
    `COPY (SELECT ${line} FROM generate_series(1, ${rows})) TO STDOUT`)
  // FETCH_COUNT 0 would hold it all in psql: single-row mode by \copy is COPY again, so a cursor is used.
  await bulk('large SELECT', ways, plan.rounds, rows * 101,
    `SELECT ${line} FROM generate_series(1, ${Math.min(rows, 3_000_000)})`)
}

/** `--short`, and single values over it: `--seconds=5 --clients=8,32 --protocols=prepared --rounds=3`. */
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
    protocols: value('protocols')?.split(',') ?? plan.protocols
  }
}

async function main(): Promise<void> {
  const plan = planOf(process.argv)
  ensurePackages(['postgres-15', 'pgbench', 'psql', 'pgbouncer'])
  const only = process.argv.find(word => word.startsWith('--only='))?.slice(7).split(',')
  const wants = (name: string): boolean => only === undefined || only.includes(name)
  await using server = await startPostgres({
    version: '15', settings: { max_connections: 200, shared_buffers: '256MB', synchronous_commit: 'off' }
  })
  const load = loadavg().map(each => each.toFixed(1)).join(' ')
  say(`# PostgreSQL data path, ${new Date().toISOString()}, Node ${process.version}, load ${load}`)
  const password = await prepare(server, plan)
  const target = { host: '127.0.0.1', port: server.port, tls: { mode: 'disable' as const } }
  // As every account that is made for a session: it has keys, and no password that would have to be hashed.
  const keys = randomKeys()
  await server.psql(`CREATE ROLE keyed LOGIN SUPERUSER PASSWORD '${verifierFromKeys(keys)}'`)
  const keysBase64 = [keys.clientKey.toString('base64'), keys.serverKey.toString('base64')]
  const own = { target, role: 'keyed', password: '', database: 'postgres', keysBase64 }
  const children = [
    await startPgbouncer(server.port, password, undefined),
    await startPgbouncer(server.port, password, 65536),
    await startOwn('test/peers/pass-through.ts', own)
  ]
  const ways: Way[] = [
    { name: 'direct', port: server.port, pid: undefined, password },
    ...['pgbouncer', 'pgbouncer 64K', 'sallyport'].map((name, index) => ({
      name, port: children[index]!.port, pid: children[index]!.pid,
      password: name === 'sallyport' ? clientPassword : password
    }))
  ]
  if (wants('select')) await benchSelects(ways, plan)
  if (wants('tx')) await benchTransactions(ways, plan)
  if (wants('bulk')) await benchBulk(ways, plan)
  for (const child of children) await child.stop()
  await benchFake(plan, wants)
}

/** Against a target that costs nothing: what the proxies themselves take. */
async function benchFake(plan: Plan, wants: (name: string) => boolean): Promise<void> {
  const fake = await startOwn('test/peers/fake-target.ts')
  const own: PassThroughOptions = {
    target: { host: '127.0.0.1', port: fake.port, tls: { mode: 'disable' } },
    role: user, password: fakePassword
  }
  const children = [
    await startPgbouncer(fake.port, fakePassword, undefined),
    await startPgbouncer(fake.port, fakePassword, 65536),
    await startOwn('test/peers/pass-through.ts', own)
  ]
  const ways: Way[] = [
    { name: 'direct', port: fake.port, pid: undefined, password: fakePassword },
    ...['pgbouncer', 'pgbouncer 64K', 'sallyport'].map((name, index) => ({
      name, port: children[index]!.port, pid: children[index]!.pid,
      password: name === 'sallyport' ? clientPassword : fakePassword
    }))
  ]
  for (const rowBytes of wants('blast') ? [100, 8192] : []) {
    const samples = new Map<string, { rate: number, cpu: number }[]>(ways.map(({ name }) => [name, []]))
    for (let round = 0; round < plan.rounds; round++) {
      for (const way of ways) samples.get(way.name)!.push(await blastThrough(way, plan.bulkBytes, rowBytes))
    }
    bulkTable(`rows of ${rowBytes} bytes from a target that costs nothing`, ways, samples)
  }
  if (wants('memory')) {
    say(`\n### ${plan.idle} idle sessions, KiB each`)
    for (const way of ways.slice(1)) {
      if (way.name === 'pgbouncer 64K') continue
      say(`| ${way.name} | plain ${(await idleMemory(way, plan.idle, 'disable')).toFixed(1)} |`)
    }
    say(`| sallyport | TLS ${(await idleMemory(ways.at(-1)!, plan.idle, 'require')).toFixed(1)} |`)
  }
  for (const child of [...children, fake]) await child.stop()
}

async function prepare(server: PostgresServer, plan: Plan): Promise<string> {
  const password = 'bench-password'
  await server.psql(`CREATE ROLE ${user} LOGIN SUPERUSER PASSWORD '${password}'`)
  const { code, error } = await runProgram(programOf('pgbench'), [
    '-h', '127.0.0.1', '-p', String(server.port), '-U', user, '-i', '-q', '-s', String(plan.scale), 'postgres'
  ], password)
  if (code !== 0) throw new Error(`pgbench -i failed: ${error}`)
  await server.psql('VACUUM ANALYZE')
  return password
}

await main()
