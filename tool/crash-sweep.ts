// `npm run crash-sweep`: kills the proxy with SIGKILL at every durable write and every word to the outside of
// one session's life, starts it again on the same data, and looks whether anything outlived it (R2). One life
// is cut at its 1st such call, the next at its 2nd, and so on to the end; strace does the killing, the
// product knows nothing of it. After each: the target has no account of ours within 30 s, what the client saw
// is on record, every recording is whole and sealed, the audit log verifies; at the end the ledger has every
// account proved gone. All lives of a store go on the same data, so the last one starts on some hundred
// crashes.
//   node tool/crash-sweep.ts [--only WORD] [--step N]
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { SessionJson } from '../src/api/client-types.ts'
import { companyDatabase, ran, startHouse, until } from '../test/peers/house.ts'
import type { House, HouseOptions } from '../test/peers/house.ts'
import {
  apiOf, faultsOfEvidence, orphansOf, residueOn, rolesOn, sessionsOf, statementsOf, untilGone, untilProved
} from '../test/peers/inspector.ts'
import { openPsql } from '../test/peers/psql.ts'
import { killAt, threadOf, trace } from '../test/peers/tracer.ts'
import type { ThreadRole } from '../test/peers/tracer.ts'
import type { PostgresServer } from './postgres.ts'
import { freePort, startPostgres } from './postgres.ts'
import { programOf } from './services.ts'

export interface Scenario {
  name: string
  store: 'embedded' | 'postgres'
  login: 'alice+orders-rw' | 'alice+orders-standing'
  thread: ThreadRole
  calls: string
}

/** What became of one killed life. */
export interface Point {
  /** The call at which it was killed. */
  n: number
  killed: boolean
  /** What was on the target when the proxy died; empty when nothing. */
  left: string
  /** How the books have the session; undefined when it never got there. */
  status: string | undefined
  /** From the start of the next process to a target without a trace. */
  seconds: number
  faults: string[]
}

// Syncs are where a write becomes durable. What the main thread writes goes to the client, to the target
// (hooks and session), to a PostgreSQL store, and into the recording: between two of them the outside has not
// changed.
const syncs = 'fsync,fdatasync'
const words = 'write,writev,pwrite64,pwritev,sendto,sendmsg,unlink'

const kinds = { 'creation-deletion': 'alice+orders-rw', 'enable-disable': 'alice+orders-standing' } as const

export const scenarios: readonly Scenario[] = (['embedded', 'postgres'] as const).flatMap(store =>
  (['creation-deletion', 'enable-disable'] as const).flatMap(kind => {
    const places: [string, ThreadRole, string][] = [
      ['syncs of the store', 'store', syncs], ['syncs of recordings', 'pool', syncs],
      ['words to the outside', 'main', words]
    ]
    return places.filter(([, thread]) => store === 'embedded' || thread !== 'store')
      .map(([place, thread, calls]) =>
        ({ name: `${store}, ${kind}, ${place}`, store, login: kinds[kind], thread, calls }))
  }))

// A life has some 200 of them; a sweep that never ends has lost its count.
const pointsMax = 1000
// R2.
const goneSecondsMax = 30
// A life that was not killed is over when the target is clean; then the last rows are written.
const settleMs = 700
// On a busy machine these rows take longer; only a life that was not killed waits so long.
const lastRowsMs = 5000
const psqlSecondsMax = 40
// A start after a crash syncs some 2,000 files before it does anything.
const startPointsMax = 20_000
const startPointsDense = 30
const startPointsApart = 75

/** A company's database, and the product beside it, which dies often. */
export class World {
  readonly target: PostgresServer
  readonly options: HouseOptions
  readonly before: ReadonlySet<string>
  readonly #store: PostgresServer | undefined
  readonly #judged = new Set<string>()
  house: House
  #lives = 0

  private constructor(
    options: HouseOptions, before: ReadonlySet<string>, house: House, store: PostgresServer | undefined
  ) {
    this.target = options.target
    this.options = options
    this.before = before
    this.house = house
    this.#store = store
  }

  static async open(kind: Scenario['store']): Promise<World> {
    const { server: target, adminPassword } = await companyDatabase('15')
    const store = kind === 'postgres'
      ? await startPostgres({ version: '15', settings: { fsync: 'on' } })
      : undefined
    const before = await rolesOn(target)
    const options: HouseOptions = {
      target, adminPassword, store: store?.url(), environment: { UV_THREADPOOL_SIZE: '1' }
    }
    const house = await startHouse(options)
    const world = new World(options, before, house, store)
    // A first life: some threads exist only after something was done.
    const { status, stderr } = await world.session('alice+orders-rw')
    if (status !== 0) throw new Error(`psql: ${stderr}`)
    await untilGone(target, before)
    return world
  }

  async close(): Promise<void> {
    await this.house.kill()
    this.house.clear()
    await this.target.stop()
    await this.#store?.stop()
  }

  /** One psql that writes a row of its own and hears of it. */
  async session(
    login: string
  ): Promise<{ status: number | null, stdout: string, stderr: string, mark: string }> {
    const mark = `life ${++this.#lives}`
    const sql = `INSERT INTO orders VALUES (${1000 + this.#lives}, '${mark}') RETURNING 'heard'`
    const words = ['-XAtq', '-c', sql, this.house.connection(login)]
    const limited = [String(psqlSecondsMax), programOf('psql'), ...words]
    return { ...await ran('/usr/bin/timeout', limited, this.house.environment), mark }
  }

  /** Starts the product again on what is left. */
  async restart(): Promise<void> {
    this.house = await startHouse({ ...this.options, folder: this.house.folder })
    const log = this.house.log()
    if (!log.includes('sallyport serves')) throw new Error(`it does not start again:\n${log}`)
  }

  /** One life that is killed at the n-th call of the scenario's thread, and what came after. */
  async point({ login, thread, calls }: Scenario, n: number): Promise<Point> {
    const pid = this.house.process.pid ?? 0
    const tracer = await trace(threadOf(pid, thread), killAt(calls, n))
    const { stdout, mark } = await this.session(login)
    const killed = await this.#over()
    await tracer.detach()
    const left = (await residueOn(this.target, this.before)).replaceAll('\n', ', ')
    const startedMs = performance.now()
    if (killed) {
      await this.house.kill()
      await this.restart()
    }
    const faults: string[] = []
    await untilGone(this.target, this.before, goneSecondsMax)
      .catch((thrown: unknown) => faults.push(String(thrown)))
    const seconds = (performance.now() - startedMs) / 1000
    const { news, wrong } = await this.#judge(mark, stdout.includes('heard'))
    const status = news.map(each => each.status).join() || undefined
    return { n, killed, left, status, seconds, faults: [...faults, ...wrong] }
  }

  /**
   * A start that is killed at its n-th sync, on what a crash in the middle of a session left, and one that is
   * not.
   */
  async recovery(n: number): Promise<Point> {
    const psql = await openPsql(this.house)
    await this.house.kill()
    await psql.leave()
    const left = (await residueOn(this.target, this.before)).replaceAll('\n', ', ')
    const again = { ...this.options, folder: this.house.folder, under: starting(n) }
    this.house = await startHouse(again)
    const killed = !this.house.log().includes('sallyport serves')
    if (killed) await this.house.kill()
    else await endUnder(this.house)
    const startedMs = performance.now()
    await this.restart()
    const faults: string[] = []
    await untilGone(this.target, this.before, goneSecondsMax)
      .catch((thrown: unknown) => faults.push(String(thrown)))
    const seconds = (performance.now() - startedMs) / 1000
    const { news, wrong } = await this.#judge('nothing', false)
    const status = news.map(each => each.status).join() || undefined
    return { n, killed, left, status, seconds, faults: [...faults, ...wrong] }
  }

  /** True when the product died; false when the life came to its end. */
  async #over(): Promise<boolean> {
    const { process: product } = this.house
    const dead = (): boolean => product.exitCode !== null || product.signalCode !== null
    const over = async (): Promise<boolean> => dead() || await residueOn(this.target, this.before) === ''
    await until(over, yes => yes, goneSecondsMax)
    await until(async () => dead(), over => over, lastRowsMs / 1000).catch(() => undefined)
    return dead()
  }

  async #judge(mark: string, heard: boolean): Promise<{ news: SessionJson[], wrong: string[] }> {
    const api = apiOf(this.house)
    const news = (await sessionsOf(api)).filter(({ id }) => !this.#judged.has(id))
    for (const { id } of news) this.#judged.add(id)
    const wrong = await faultsOfEvidence(api, news)
    const counted = `SELECT count(*) FROM orders WHERE customer = '${mark}'`
    const done = heard || await this.target.psql(counted, 'orders') !== '0'
    if (done) {
      const texts = await Promise.all(news.map(({ id }) => statementsOf(api, id).catch(() => '')))
      if (!texts.some(text => text.includes(mark))) {
        wrong.push(`${mark} reached the target and is not on record`)
      }
    }
    return { news, wrong }
  }

  /** At the end: what the ledger and a scan of the target say. */
  async lastWord(): Promise<string[]> {
    const api = apiOf(this.house)
    const wrong: string[] = []
    await untilProved(api).catch((thrown: unknown) => wrong.push(String(thrown)))
    for (const { id, account, receipt } of await sessionsOf(api)) {
      if (account !== null && receipt?.state !== 'proved-gone') {
        wrong.push(`session ${id}: receipt ${receipt?.state}`)
      }
    }
    const { orphans, unreachable } = await orphansOf(api)
    if (orphans.length + unreachable.length > 0) {
      wrong.push(`orphans: ${JSON.stringify({ orphans, unreachable })}`)
    }
    return [...wrong, ...await faultsOfEvidence(api)]
  }
}

/** How many such calls a whole life makes. */
export async function countCalls(world: World, { login, thread, calls }: Scenario): Promise<number> {
  const tracer = await trace(threadOf(world.house.process.pid ?? 0, thread), ['-e', `trace=${calls}`])
  await world.session(login)
  await untilGone(world.target, world.before)
  await new Promise(resolve => setTimeout(resolve, settleMs))
  await tracer.detach()
  return tracer.lines().length
}

/** `wanted` numbers from 1 to `count`, evenly apart, always the same. */
export function spread(count: number, wanted: number): number[] {
  const apart = Math.max(1, count / wanted)
  return Array.from({ length: Math.min(count, wanted) }, (_, index) => 1 + Math.floor(index * apart))
}

/** Every point of a scenario until a life comes to its end; `step` leaves some out. */
export async function sweep(
  world: World, scenario: Scenario, step: number, tell: (point: Point) => void
): Promise<Point[]> {
  const points: Point[] = []
  for (let n = 1; n < pointsMax; n += step) {
    const point = await world.point(scenario, n)
    tell(point)
    if (!point.killed) return points
    points.push(point)
  }
  throw new Error(`${scenario.name}: still killed at call ${pointsMax}`)
}

/** strace as the parent of a start: it dies at the n-th sync of one of its threads. */
function starting(n: number): string[] {
  return [programOf('strace'), '-f', '-qq', '-o', '/dev/null', ...killAt(syncs, n)]
}

/** Ends a product under strace: the signal is for the product, since strace would only let go of it. */
async function endUnder({ process: tracer, kill }: House): Promise<void> {
  const children = readFileSync(`/proc/${tracer.pid}/task/${tracer.pid}/children`, 'utf8').trim().split(' ')
  for (const child of children) process.kill(Number(child), 'SIGKILL')
  await kill()
}

/** The first start of all, in an empty folder, killed at its n-th sync; the next one must serve. */
export async function firstStart(n: number): Promise<Point> {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-first-'))
  const places = `postgres: "127.0.0.1:${await freePort()}", http: "127.0.0.1:${await freePort()}"`
  writeFileSync(join(folder, 'sallyport.yaml'), `listen: { ssh: null, ${places} }\n`)
  const options = { target: undefined as unknown as PostgresServer, adminPassword: '', folder }
  const first = await startHouse({ ...options, under: starting(n) })
  const killed = !first.log().includes('sallyport serves')
  if (killed) await first.kill()
  else await endUnder(first)
  const startedMs = performance.now()
  const second = await startHouse(options)
  const faults: string[] = []
  if (!second.log().includes('sallyport serves')) faults.push(`it does not start: ${second.log()}`)
  else faults.push(...await faultsOfEvidence(apiOf(second)))
  const seconds = (performance.now() - startedMs) / 1000
  await second.kill()
  second.clear()
  return { n, killed, left: '', status: undefined, seconds, faults }
}

/**
 * Points of a start: every one of the first, then evenly apart; a start after a crash syncs every file of the
 * store.
 */
async function sweepStarts(
  act: (n: number) => Promise<Point>, step: number, tell: (point: Point) => void
): Promise<Point[]> {
  const points: Point[] = []
  for (let n = 1; n < startPointsMax; n += n < startPointsDense ? step : startPointsApart * step) {
    const point = await act(n)
    tell(point)
    if (!point.killed) return points
    points.push(point)
  }
  throw new Error(`still killed at sync ${startPointsMax}`)
}

/** One line of the table. */
export function summary(name: string, points: readonly Point[]): string {
  const slowest = Math.max(0, ...points.map(({ seconds }) => seconds))
  const withAccount = points.filter(({ left }) => left !== '').length
  const faults = points.filter(each => each.faults.length > 0).length
  const withoutRow = points.filter(({ status }) => status === undefined).length
  const columns = [points.length, withAccount, withoutRow, faults].map(each => String(each).padStart(9))
  return `${name.padEnd(52)}${columns.join('')}${slowest.toFixed(1).padStart(9)} s`
}

const titles = ['kills', 'account', 'no row', 'faults', 'slowest']
export const heading = `${'life'.padEnd(52)}${titles.map(each => each.padStart(9)).join('')}`

interface Progress {
  table: string[]
  faults: number
}

/** Runs one sweep, tells how it goes, and adds its line to the table. */
async function report(
  progress: Progress, name: string, run: (tell: (point: Point) => void) => Promise<Point[]>
): Promise<void> {
  process.stderr.write(`${name}: `)
  const points = await run(({ n, killed, faults }) => {
    const said = killed ? '.' : ` end at ${n}\n`
    process.stderr.write(faults.length > 0 ? `\n${n}: ${faults.join('\n')}\n` : said)
  })
  progress.faults += points.filter(each => each.faults.length > 0).length
  progress.table.push(summary(name, points))
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { only: { type: 'string' }, step: { type: 'string', default: '1' } }
  })
  const isChosen = (name: string): boolean => name.includes(values.only ?? '')
  const step = Number(values.step)
  const progress: Progress = { table: [heading], faults: 0 }
  if (isChosen('first start')) {
    await report(progress, 'first start, syncs', tell => sweepStarts(firstStart, step, tell))
  }
  for (const store of ['embedded', 'postgres'] as const) {
    const mine = scenarios.filter(scenario => scenario.store === store && isChosen(scenario.name))
    const recovery = `${store}, start after a crash, syncs`
    if (mine.length === 0 && !isChosen(recovery)) continue
    const world = await World.open(store)
    for (const scenario of mine) {
      await report(progress, scenario.name, tell => sweep(world, scenario, step, tell))
    }
    if (isChosen(recovery)) {
      await report(progress, recovery, tell => sweepStarts(n => world.recovery(n), step, tell))
    }
    const last = await world.lastWord()
    progress.faults += last.length
    const all = last.length === 0 ? 'every account proved gone, all evidence whole' : last.join('\n')
    progress.table.push(`${store}, at the end: ${all}`)
    await world.close()
  }
  console.log(progress.table.join('\n'))
  console.log(progress.faults === 0 ? 'nothing outlived a crash' : `${progress.faults} faults`)
  return progress.faults === 0 ? 0 : 1
}

if (import.meta.main) process.exit(await main())
