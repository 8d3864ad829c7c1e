// `npm run soak`: sessions at a steady rate for a while, ended in every way there is (they leave, their
// client is killed, an admin ends them, their time is up), and a fault every minute (the proxy is killed and
// starts again, the target is restarted, the target freezes). A session that no fault touched must work; one
// that a fault touched must end with a code or a closed connection; at the end nothing may be left, on the
// target or on the books (R1, R28).
//   node tool/soak.ts [--minutes N] [--rate N] [--fault-seconds N] [--faults kill,restart,…]
//     [--store postgres]
import { readFileSync, readdirSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import pg from 'pg'
import { companyDatabase, ran, startHouse, until } from '../test/peers/house.ts'
import type { House, HouseOptions } from '../test/peers/house.ts'
import {
  apiOf, faultsOfEvidence, orphansOf, residueOn, rolesOn, sessionsOf, untilGone, untilProved
} from '../test/peers/inspector.ts'
import { startPsql } from '../test/peers/psql.ts'
import { roleCredential } from './orders-documents.ts'
import type { PostgresServer } from './postgres.ts'
import { startPostgres } from './postgres.ts'
import { programOf } from './services.ts'

/**
 * The proxy is killed and starts again; the target is restarted, or frozen; the proxy is frozen; the store
 * is restarted (PostgreSQL as the store only).
 */
export type FaultKind = 'kill' | 'restart' | 'freeze' | 'stall' | 'store'

export interface SoakOptions {
  seconds: number
  /** It goes on until it has had so many, up to four times as long: a slow machine gets through fewer. */
  atLeast?: { faults: number, worked: number } | undefined
  /** Sessions begun each second. */
  rate: number
  faultSeconds: number
  faults: readonly FaultKind[]
  store: 'embedded' | 'postgres'
  /** A line from time to time. */
  tell?: ((line: string) => void) | undefined
}

export interface SoakReport {
  sessions: number
  /** By how they ended. */
  byKind: Record<string, number>
  /** Touched by a fault, and not as planned. */
  excused: number
  /** What went wrong without a fault, or ended without a code in spite of one. */
  failed: string[]
  faults: number
  /** From a session's end until its account was seen to be gone; faults included. */
  removalMs: { median: number, p99: number, max: number }
  /** What was left at the end, and what is wrong with the evidence. */
  residue: string[]
  /** From the last session's end to a target without a trace. */
  goneSeconds: number
  rssMiB: { first: number, last: number, max: number }
  /** Of the processes that lived for a minute and longer; undefined when none did. */
  slopeMiBPerHour: number | undefined
  descriptors: { first: number, last: number, max: number }
}

type Kind = 'leaves' | 'bulk' | 'shared' | 'client killed' | 'admin kill' | 'expires'

/** One in so many of the sessions is of this kind. */
const mix: readonly Kind[] = [
  'leaves', 'shared', 'client killed', 'leaves', 'admin kill',
  'bulk', 'leaves', 'client killed', 'expires', 'shared'
]

// How many times as long as asked for, for `atLeast`.
const patience = 4
// After a fault: the proxy's start, the breaker's pause, and who was under way.
const graceMs = 10_000
const psqlSecondsMax = 90
const sampleMs = 5000
const probeMs = 100
// The first minute of a process is its warming up.
const warmMs = 60_000
const freezeMs = 4000
const coded = /\[[a-z-]+ [0-9a-f]{6}\]/
// (The last two: the proxy was away when the admin's command came.)
const closed = new RegExp([
  'the server closed', 'server closed', 'refused', 'EOF', 'terminating connection', 'could not receive',
  'connection to server', 'SSL error', 'ENOENT', 'no Sallyport'
].join('|'), 'i')

const shortLogin = 'alice+orders-short'
const shortCredential = `---
${roleCredential('orders-short', { maxSession: '3s' })}---
kind: grant
name: short
users: [alice]
credentials: [orders-short]
`

interface Sample {
  life: number
  atMs: number
  rssMiB: number
  descriptors: number
}

interface Run {
  kind: Kind
  startedMs: number
  endedMs: number
  worked: boolean
  said: string
}

class Soak {
  readonly #options: SoakOptions
  readonly #house: HouseOptions
  readonly #target: PostgresServer
  readonly #store: PostgresServer | undefined
  readonly #runs: Run[] = []
  readonly #faults: { fromMs: number, toMs: number }[] = []
  readonly #samples: Sample[] = []
  /** Accounts whose session has ended, until they are seen to be gone. */
  readonly #leaving = new Map<string, number>()
  readonly #removalsMs: number[] = []
  #running: House
  #life = 0
  #over = false

  constructor(options: SoakOptions, house: HouseOptions, running: House, store: PostgresServer | undefined) {
    this.#options = options
    this.#house = house
    this.#target = house.target
    this.#store = store
    this.#running = running
  }

  async run(before: ReadonlySet<string>): Promise<SoakReport> {
    const { seconds, tell } = this.#options
    const watching = [this.#sample(), this.#probe()]
    const faulting = this.#fault()
    const beganMs = performance.now()
    const goesOn = (): boolean => {
      const pastSeconds = (performance.now() - beganMs) / 1000
      return pastSeconds < seconds || (pastSeconds < seconds * patience && !this.#triedEnough())
    }
    const open = new Set<Promise<void>>()
    for (let count = 0; goesOn(); count++) {
      const running = this.#session(mix[count % mix.length]!).finally(() => open.delete(running))
      open.add(running)
      await pause(1000 / this.#options.rate)
    }
    await Promise.all(open)
    const endedMs = performance.now()
    this.#over = true
    await faulting
    tell?.('sessions are over: looking what is left')
    const residue: string[] = []
    const note = (thrown: unknown): void => void residue.push(String(thrown))
    await untilGone(this.#target, before).catch(note)
    const goneSeconds = (performance.now() - endedMs) / 1000
    await Promise.all(watching)
    const api = apiOf(this.#running)
    await untilProved(api).catch(note)
    residue.push(...(await residueOn(this.#target, before)).split('\n').filter(line => line !== ''))
    residue.push(...(await orphansOf(api)).orphans.map(({ name, verdict }) => `${name} ${verdict}`))
    residue.push(...await faultsOfEvidence(api))
    for (const { id, account, receipt } of await sessionsOf(api)) {
      if (account !== null && receipt?.state !== 'proved-gone') {
        residue.push(`session ${id}: receipt ${receipt?.state}`)
      }
    }
    return this.#report(residue, goneSeconds)
  }

  async close(): Promise<void> {
    await this.#running.stop()
    this.#running.clear()
    await this.#target.stop()
    await this.#store?.stop()
  }

  // ---- sessions

  async #session(kind: Kind): Promise<void> {
    const startedMs = performance.now()
    let result = { worked: false, said: '' }
    try {
      result = await this.#act(kind)
    } catch (thrown) {
      result.said = String(thrown)
    }
    this.#runs.push({ kind, startedMs, endedMs: performance.now(), ...result })
  }

  #act(kind: Kind): Promise<{ worked: boolean, said: string }> {
    switch (kind) {
      case 'leaves': return this.#whole('alice+orders-rw')
      case 'shared': return this.#whole('alice+orders-standing')
      case 'bulk': return this.#bulk()
      case 'client killed': return this.#held(psql => psql.child.kill('SIGKILL'), undefined)
      case 'admin kill': return this.#held((_psql, account) => this.#kill(account), /\[session-killed/)
      case 'expires': return this.#held(async () => undefined, /\[session-expired/, shortLogin)
    }
  }

  async #psql(sql: string, login: string): Promise<{ stdout: string, stderr: string }> {
    const words = ['-s', 'KILL', String(psqlSecondsMax), programOf('psql'), '-XAtq', '-c', sql]
    return ran('/usr/bin/timeout', [...words, this.#running.connection(login)], this.#running.environment)
  }

  async #whole(login: string): Promise<{ worked: boolean, said: string }> {
    const { stdout, stderr } = await this.#psql("SELECT current_user || ' ' || count(*) FROM orders", login)
    const [account = '', count] = stdout.trim().split(' ')
    this.#left(account)
    return { worked: count === '100', said: stderr }
  }

  async #bulk(): Promise<{ worked: boolean, said: string }> {
    const sql = "SELECT repeat('x', 1000) FROM generate_series(1, 5000)"
    const { stdout, stderr } = await this.#psql(sql, 'alice+orders-rw')
    return { worked: stdout.length === 5000 * 1001, said: stderr }
  }

  /** A session in the middle of a long statement, and what ends it. */
  async #held(
    act: (psql: ReturnType<typeof startPsql>, account: string) => unknown, expected: RegExp | undefined,
    login = 'alice+orders-rw'
  ): Promise<{ worked: boolean, said: string }> {
    const psql = startPsql(this.#running, login)
    const gone = new Promise<void>(resolve => psql.child.once('close', () => resolve()))
    try {
      psql.type("SELECT 'I am ' || current_user; SELECT pg_sleep(600);")
      const text = await Promise.race([psql.sees(/I am \w+/, 30), gone.then(() => psql.text())])
      const account = /I am (\w+)/.exec(text)?.[1]
      if (account === undefined) {
        // Its time runs from the start: where making the account took all of it, that is the end.
        return { worked: login === shortLogin && expected?.test(text) === true, said: text }
      }
      await act(psql, account)
      // psql is waiting for its statement, so it hears of the end at once.
      const seen = expected === undefined ? gone : Promise.race([psql.sees(expected, 30), gone])
      await seen
      this.#left(account)
      return { worked: expected === undefined || expected.test(psql.text()), said: psql.text() }
    } finally {
      psql.child.kill('SIGKILL')
    }
  }

  async #kill(account: string): Promise<void> {
    const api = apiOf(this.#running)
    const { sessions } = await api.get('/sessions', { query: { status: 'live', limit: 100 } })
    const found = sessions.find(session => session.account?.name === account)
    if (found === undefined) {
      throw new Error(`no live session has the account ${account}: the server closed it`)
    }
    const { done } = await api.post('/sessions/{id}/kill', { params: { id: found.id } })
    if (!done) {
      throw new Error(`session ${found.id} of account ${account} is live and not alive: the server closed it`)
    }
  }

  #left(account: string): void {
    if (/^jit_/.test(account)) this.#leaving.set(account, performance.now())
  }

  #triedEnough(): boolean {
    const { faults = 0, worked = 0 } = this.#options.atLeast ?? {}
    return this.#faults.length >= faults && this.#runs.filter(run => run.worked).length >= worked
  }

  // ---- faults

  async #fault(): Promise<void> {
    const { faults, faultSeconds, tell } = this.#options
    if (faults.length === 0) return
    for (let count = 0; ; count++) {
      for (let waited = 0; waited < faultSeconds * 1000; waited += 200) {
        if (this.#over) return
        await pause(200)
      }
      const kind = faults[count % faults.length]!
      const window = { fromMs: performance.now(), toMs: Infinity }
      this.#faults.push(window)
      await this.#inflict(kind)
      window.toMs = performance.now() + graceMs
      tell?.(`${kind}: ${this.#runs.length} sessions so far, ${this.#failed().length} failed`)
    }
  }

  async #inflict(kind: FaultKind): Promise<void> {
    if (kind === 'kill') {
      await this.#running.kill()
      this.#running = await startHouse({ ...this.#house, folder: this.#running.folder })
      this.#life++
      if (!this.#running.log().includes('sallyport serves')) throw new Error(this.#running.log())
    } else if (kind === 'restart') {
      await this.#target.halt()
      await pause(1000)
      await this.#target.resume()
    } else if (kind === 'store') {
      await this.#store?.halt()
      await pause(1000)
      await this.#store?.resume()
    } else {
      const pid = kind === 'freeze' ? this.#target.pid : this.#running.process.pid!
      process.kill(pid, 'SIGSTOP')
      await pause(freezeMs)
      process.kill(pid, 'SIGCONT')
    }
  }

  // ---- looking

  /** Memory and descriptors of the product. */
  async #sample(): Promise<void> {
    while (!this.#over) {
      const pid = this.#running.process.pid
      try {
        const kib = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
        const descriptors = readdirSync(`/proc/${pid}/fd`).length
        if (kib !== undefined) {
          const rssMiB = Number(kib) / 1024
          this.#samples.push({ life: this.#life, atMs: performance.now(), rssMiB, descriptors })
        }
      } catch {
        // It was killed just now.
      }
      await pause(sampleMs)
    }
  }

  /** Sees accounts disappear from the target. */
  async #probe(): Promise<void> {
    let client: pg.Client | undefined
    while (!this.#over || this.#leaving.size > 0) {
      await pause(probeMs)
      try {
        if (client === undefined) {
          client = new pg.Client(this.#target.url())
          client.on('error', () => undefined)
          await client.connect()
        }
        const { rows } = await client.query<{ rolname: string }>(
          "SELECT rolname FROM pg_roles WHERE rolname ~ '^jit_'")
        const there = new Set(rows.map(row => row.rolname))
        for (const [account, atMs] of this.#leaving) {
          if (there.has(account)) continue
          this.#leaving.delete(account)
          this.#removalsMs.push(performance.now() - atMs)
        }
      } catch {
        client = undefined
      }
      // What is still there long after the end is for the final look to name.
      const late = (atMs: number): boolean => performance.now() - atMs > psqlSecondsMax * 1000
      if (this.#over && [...this.#leaving.values()].every(late)) break
    }
    await client?.end().catch(() => undefined)
  }

  #touched({ startedMs, endedMs }: Run): boolean {
    return this.#faults.some(({ fromMs, toMs }) => startedMs < toMs && endedMs > fromMs)
  }

  #failed(): string[] {
    return this.#runs.filter(run => !run.worked).flatMap(run => {
      const said = run.said.trim().slice(-300)
      if (!this.#touched(run)) return [`${run.kind}, without a fault: ${said}`]
      return coded.test(said) || closed.test(said) ? [] : [`${run.kind}, in a fault, without a code: ${said}`]
    })
  }

  #report(residue: string[], goneSeconds: number): SoakReport {
    const removals = this.#removalsMs.sort((one, other) => one - other)
    const at = (share: number): number => Math.round(removals[Math.floor(share * (removals.length - 1))] ?? 0)
    const byKind: Record<string, number> = {}
    for (const { kind } of this.#runs) byKind[kind] = (byKind[kind] ?? 0) + 1
    const failed = this.#failed()
    const range = (read: (sample: Sample) => number): { first: number, last: number, max: number } => {
      const all = this.#samples.map(sample => Math.round(read(sample)))
      return { first: all[0] ?? 0, last: all.at(-1) ?? 0, max: Math.max(0, ...all) }
    }
    return {
      sessions: this.#runs.length, byKind, failed, residue, goneSeconds,
      excused: this.#runs.filter(run => !run.worked).length - failed.length,
      faults: this.#faults.length,
      removalMs: { median: at(0.5), p99: at(0.99), max: at(1) },
      rssMiB: range(({ rssMiB }) => rssMiB),
      slopeMiBPerHour: slope(this.#samples),
      descriptors: range(({ descriptors }) => descriptors)
    }
  }
}

/** Least squares over all lives, each around its own mean; the first minute of a life does not count. */
function slope(samples: readonly Sample[]): number | undefined {
  let [above, below] = [0, 0]
  for (const life of new Set(samples.map(sample => sample.life))) {
    const own = samples.filter(sample => sample.life === life)
    const warm = own.filter(({ atMs }) => atMs - own[0]!.atMs > warmMs)
    const mean = (read: (sample: Sample) => number): number =>
      warm.reduce((sum, sample) => sum + read(sample), 0) / warm.length
    const [meanMs, meanMiB] = [mean(({ atMs }) => atMs), mean(({ rssMiB }) => rssMiB)]
    for (const { atMs, rssMiB } of warm) {
      above += (atMs - meanMs) * (rssMiB - meanMiB)
      below += (atMs - meanMs) ** 2
    }
  }
  return below === 0 ? undefined : above / below * 3_600_000
}

/** Starts everything, runs it, and takes it down again. */
export async function soak(options: SoakOptions): Promise<SoakReport> {
  const { server: target, adminPassword } = await companyDatabase('15')
  const store = options.store === 'postgres' ? await startPostgres({ version: '15' }) : undefined
  const before = await rolesOn(target)
  const house: HouseOptions = {
    target, adminPassword, store: store?.url(), access: shortCredential,
    limits: 'recordingsReserve: 1MiB, hookConnect: 2s, hookStatement: 3s, hookAction: 10s'
  }
  const running = await startHouse(house)
  const soaking = new Soak(options, house, running, store)
  try {
    await until(() => residueOn(target, before), left => left === '')
    return await soaking.run(before)
  } finally {
    await soaking.close()
  }
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '20' }, rate: { type: 'string', default: '3' },
      'fault-seconds': { type: 'string', default: '60' },
      faults: { type: 'string', default: 'kill,restart,freeze,stall' },
      store: { type: 'string', default: 'embedded' }
    }
  })
  const report = await soak({
    seconds: Number(values.minutes) * 60, rate: Number(values.rate),
    faultSeconds: Number(values['fault-seconds']),
    faults: values.faults.split(',').filter(word => word !== '') as FaultKind[],
    store: values.store === 'postgres' ? 'postgres' : 'embedded',
    tell: line => console.error(line)
  })
  console.log(JSON.stringify(report, undefined, 2))
  const passed = report.failed.length === 0 && report.residue.length === 0
  const counts = `${report.failed.length} failed, ${report.residue.length} left`
  console.log(passed ? 'nothing failed, nothing is left' : counts)
  return passed ? 0 : 1
}

if (import.meta.main) process.exit(await main())
