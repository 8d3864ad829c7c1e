// The SSH data path in pairs: the same load directly, over an OpenSSH bastion in two hops and through our
// front end with recording on, round after round in one run. CPU is that of everything between client and
// target: our process, all processes of the bastion. Read the ratios, and CPU before time: on a small machine
// clients and target take the same cores. `--short` takes a minute or two; `--only=bulk,memory` picks parts
// (bulk, setup, keys, memory), `--rounds=1 --bytes=100000000 --ciphers=aes128 --idle=100` change the plan.
import { spawn } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { systemClock } from '../src/clock.ts'
import { connectTarget } from '../src/proxy/ssh/target.ts'
import type { Target } from '../src/proxy/ssh/target.ts'
import { Secret } from '../src/secret.ts'
import {
  channelOpen, channelRequest, parseOpenConfirmation, sshMessage
} from '../src/wire/ssh/connection.ts'
import { fixed, heading, inRounds, median, percentile, say, table } from './bench-report.ts'
import { ciphers, openEstate } from './bench-ssh-ways.ts'
import type { Estate, Way } from './bench-ssh-ways.ts'
import { ensurePackages, programOf } from './services.ts'

interface Plan {
  rounds: number
  bytes: number
  ciphers: readonly string[]
  setups: number
  keys: number
  /** Idle sessions of ours; a bastion gets a fifth, since each costs it four processes. */
  idle: number
  parts: readonly string[]
}

const parts = ['bulk', 'setup', 'keys', 'memory']
const long: Plan = {
  rounds: 3, bytes: 1_000_000_000, ciphers: Object.keys(ciphers), setups: 30, keys: 1000, idle: 1000, parts
}
const short: Plan = {
  rounds: 1, bytes: 200_000_000, ciphers: ['aes128'], setups: 10, keys: 200, idle: 200, parts
}

/** Sessions that are set up at the same time when it is counted how many there are in a second. */
const setupsAtOnce = 8
const loginsAtOnce = 10
/** What has been freed is given back by then; a client that does not read has got all that it will get. */
const settleMs = 3000
const hugeWindow = 0xffff_ffff
const ordinaryWindow = 2 * 1024 * 1024
const packetBytesMax = 32 * 1024

/** Before set-ups are counted: a server that runs has had them, while processes of OpenSSH are always new. */
const warmingSetups = 100
/** The processes of a bastion have ended by then, and their parents have their time. */
const reapedMs = 200

type Stdio = number | 'ignore' | 'pipe'

/** Runs ssh to its end; milliseconds. */
async function timed(words: readonly string[], input: Stdio = 'ignore'): Promise<number> {
  const started = performance.now()
  const child = spawn(programOf('ssh'), words, { stdio: [input, 'ignore', 'pipe'] })
  let error = ''
  child.stderr?.on('data', (chunk: Buffer) => { error += chunk.toString() })
  const code = await new Promise<number | null>(resolve => child.once('close', resolve))
  if (code !== 0) throw new Error(`ssh exited with ${code}: ${error}`)
  return performance.now() - started
}

// ---- large transfers

/** MB/s, and seconds of CPU between client and target for each GB. */
interface Bulk {
  rate: number
  cpu: number
}

async function transfer(way: Way, words: readonly string[], bytes: number, input?: number): Promise<Bulk> {
  const before = way.cpuUs()
  const tookMs = await timed(words, input)
  // What ends last is still to be reaped when the client is gone.
  await pause(reapedMs)
  return { rate: bytes / 1e3 / tookMs, cpu: (way.cpuUs() - before) / 1e6 / (bytes / 1e9) }
}

/** Goods come from a sparse file, which costs nobody anything. */
async function benchBulk({ ways, target }: Estate, plan: Plan, folder: string): Promise<void> {
  const goods = join(folder, 'goods')
  writeFileSync(goods, '')
  truncateSync(goods, plan.bytes)
  await target.run(`truncate -s ${plan.bytes} /tmp/goods; chmod 644 /tmp/goods`)
  const up = async (way: Way, cipher: string): Promise<Bulk> => {
    const descriptor = openSync(goods, 'r')
    try {
      return await transfer(way, way.words(cipher, 'cat > /dev/null'), plan.bytes, descriptor)
    } finally {
      closeSync(descriptor)
    }
  }
  const down = (way: Way, cipher: string): Promise<Bulk> =>
    transfer(way, way.words(cipher, 'cat /tmp/goods'), plan.bytes)
  for (const cipher of plan.ciphers) {
    for (const [title, measure] of [['down', down], ['up', up]] as const) {
      const samples = await inRounds(ways, plan.rounds, way => measure(way, cipher))
      heading(`${plan.bytes / 1e6} MB ${title}, ${ciphers[cipher]}`)
      table(bulkHead, bulkRows(ways.map(({ name }) => name), samples))
    }
  }
}

const bulkHead = ['way', 'MB/s', 'CPU s/GB', 'CPU / two hops', 'time / two hops']

/** Ratios are those of each round, so that what disturbs one round disturbs both of its sides. */
export function bulkRows(names: readonly string[], samples: readonly (readonly Bulk[])[]): string[][] {
  const bastion = samples[1] ?? []
  const ratio = (index: number, key: keyof Bulk): number =>
    median(samples[index]!.map((sample, round) => sample[key] / (bastion[round]?.[key] ?? NaN)))
  return names.map((name, index) => [
    name, fixed(median(samples[index]!.map(({ rate }) => rate)), 0),
    fixed(median(samples[index]!.map(({ cpu }) => cpu)), 2), fixed(ratio(index, 'cpu'), 2),
    fixed(1 / ratio(index, 'rate'), 2)
  ])
}

// ---- setting up

async function benchSetup({ ways }: Estate, plan: Plan): Promise<void> {
  for (let run = 0; run < warmingSetups; run++) await timed(ways[2]!.words('aes128', 'true'))
  const samples = await inRounds(ways, plan.setups, async way => {
    const before = way.cpuUs()
    const tookMs = await timed(way.words('aes128', 'true'))
    await pause(reapedMs)
    return { tookMs, cpuMs: (way.cpuUs() - before) / 1e3 }
  })
  const rates: number[] = []
  for (const way of ways) {
    const started = performance.now()
    let left = plan.setups * 2
    await Promise.all(Array.from({ length: setupsAtOnce }, async () => {
      while (left-- > 0) await timed(way.words('aes128', 'true'))
    }))
    rates.push(plan.setups * 2 / ((performance.now() - started) / 1000))
  }
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length
  const conditions = `ours after ${warmingSetups} others; ${setupsAtOnce} at a time for the rate`
  heading(`${plan.setups} × ssh host true, ${conditions}`)
  table(['way', 'p50 ms', 'CPU ms each', 'a second'], ways.map(({ name }, index) => [
    name, fixed(median(samples[index]!.map(({ tookMs }) => tookMs)), 0),
    fixed(mean(samples[index]!.map(({ cpuMs }) => cpuMs)), 1), fixed(rates[index]!, 1)
  ]))
}

// ---- keystrokes

/** Microseconds from a key to its character, through a terminal with `cat`. */
async function keystrokes(way: Way, count: number): Promise<number[]> {
  const words = way.words('aes128', 'stty raw -echo; echo ready; exec cat', ['-tt'])
  const child = spawn(programOf('ssh'), words, { stdio: ['pipe', 'pipe', 'inherit'] })
  const gone = new Promise<void>(resolve => child.once('close', () => resolve()))
  const heard = (): Promise<unknown> => Promise.race([
    new Promise(resolve => child.stdout.once('data', resolve)),
    gone.then(() => { throw new Error('ssh ended') })
  ])
  await heard()
  await pause(200)
  const tookUs: number[] = []
  for (let key = 0; key < count; key++) {
    const started = performance.now()
    const echo = heard()
    child.stdin.write('k')
    await echo
    tookUs.push((performance.now() - started) * 1000)
  }
  child.kill()
  await gone
  return tookUs
}

async function benchKeys({ ways }: Estate, plan: Plan): Promise<void> {
  const samples = await inRounds(ways, plan.rounds, way => keystrokes(way, plan.keys))
  const of = (index: number, percent: number): number => percentile(samples[index]!.flat(), percent)
  heading(`${plan.keys} keystrokes through a terminal, µs`)
  table(['way', 'p50', 'p99', 'p50 over direct', 'p50 over two hops'], ways.map(({ name }, index) => [
    name, fixed(of(index, 50), 0), fixed(of(index, 99), 0), fixed(of(index, 50) - of(0, 50), 0),
    fixed(of(index, 50) - of(1, 50), 0)
  ]))
}

// ---- memory

/** A client of our own with one command running: a thousand of ssh's would take more than they measure. */
async function session(estate: Estate, way: Way, command: string, window: number): Promise<Target> {
  const { port, hostKey, username } = way.address
  const target = await connectTarget({
    target: {
      name: way.name, protocol: 'ssh', host: '127.0.0.1', port, tls: { mode: 'disable' }, hostKeys: [hostKey]
    },
    database: undefined, username, allowReplication: false, channels: [], copyFiles: false,
    secret: { kind: 'private-key', privateKey: new Secret(estate.privateKey) }
  }, { connectMs: 30_000, handshakeMs: 30_000, loginMs: 30_000 }, systemClock, new AbortController().signal)
  const { transport } = target
  await new Promise<void>((started, failed) => {
    transport.listen({
      ready: () => undefined, refused: () => undefined, drain: () => undefined, room: () => true,
      closed: () => failed(new Error(`${way.name} closed the connection`)),
      message: payload => {
        if (payload[0] === sshMessage.openConfirmation) {
          transport.send(channelRequest(
            parseOpenConfirmation(payload).sender, 'exec', true, way.wrapped(command)))
        } else if (payload[0] === sshMessage.channelSuccess) started()
      }
    })
    transport.send(channelOpen('session', 0, window, packetBytesMax))
  })
  return target
}

async function idleKiB(estate: Estate, way: Way, count: number): Promise<number> {
  const open: Target[] = []
  const before = way.memoryKiB()
  while (open.length < count) {
    const more = Array.from({ length: loginsAtOnce }, () =>
      session(estate, way, 'exec sleep 600', ordinaryWindow))
    open.push(...await Promise.all(more))
  }
  await pause(settleMs)
  const each = (way.memoryKiB() - before) / open.length
  for (const { transport } of open) transport.destroy()
  await pause(settleMs)
  return each
}

async function unreadKiB(estate: Estate, way: Way): Promise<number> {
  await estate.target.run('truncate -s 1G /tmp/huge; chmod 644 /tmp/huge')
  const before = way.memoryKiB()
  const { transport } = await session(estate, way, 'cat /tmp/huge', hugeWindow)
  transport.pause()
  await pause(settleMs)
  const grown = way.memoryKiB() - before
  transport.destroy()
  return grown
}

async function benchMemory(estate: Estate, plan: Plan): Promise<void> {
  const [, bastion, own] = estate.ways
  const rows: string[][] = []
  for (const [way, count] of [[bastion!, Math.ceil(plan.idle / 5)], [own!, plan.idle]] as const) {
    // What the first sessions bring along stays.
    await idleKiB(estate, way, loginsAtOnce)
    const idle = await idleKiB(estate, way, count)
    rows.push([way.name, String(count), fixed(idle, 0), fixed(await unreadKiB(estate, way) / 1024, 1)])
  }
  heading('memory')
  table(['way', 'idle sessions', 'KiB each', 'MiB for a client that does not read'], rows)
}

// ---- the whole

function planOf(words: readonly string[]): Plan {
  const value = (name: string): string | undefined =>
    words.find(word => word.startsWith(`--${name}=`))?.slice(name.length + 3)
  const plan = words.includes('--short') ? short : long
  const number = (name: 'rounds' | 'bytes' | 'setups' | 'keys' | 'idle'): number =>
    Number(value(name) ?? plan[name])
  return {
    rounds: number('rounds'), bytes: number('bytes'), setups: number('setups'), keys: number('keys'),
    idle: number('idle'), ciphers: value('ciphers')?.split(',') ?? plan.ciphers,
    parts: value('only')?.split(',') ?? plan.parts
  }
}

async function main(): Promise<void> {
  const plan = planOf(process.argv)
  if (!parts.some(part => plan.parts.includes(part))) return
  ensurePackages(['ssh', 'sshd', 'unshare', 'nsenter', 'cron', 'atd', 'getfacl', 'sudo'])
  say(`# SSH data path, Node ${process.version}, load ${loadavg().map(each => each.toFixed(1)).join(' ')}`)
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-bench-'))
  try {
    const key = join(folder, 'id')
    await using estate = await openEstate(key, text => writeFileSync(key, text, { mode: 0o600 }))
    // Compilers need some sessions before they are through.
    for (const way of estate.ways) for (let run = 0; run < 3; run++) await timed(way.words('aes128', 'true'))
    if (plan.parts.includes('bulk')) await benchBulk(estate, plan, folder)
    if (plan.parts.includes('setup')) await benchSetup(estate, plan)
    if (plan.parts.includes('keys')) await benchKeys(estate, plan)
    if (plan.parts.includes('memory')) await benchMemory(estate, plan)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

if (import.meta.main) await main()
