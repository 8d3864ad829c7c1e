// deadline: 300 s
// The embedded store keeps what it acknowledged: strace shows the sync before each acknowledgement, kill -9
// at any moment loses nothing, a full disk refuses instead of lying, one process at a time has the store,
// and its work never holds up the main thread. (A power cut is simulated by tool/power-loss.ts, which needs
// a loop device.)
import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import {
  copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { PGlite } from '@electric-sql/pglite'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SallyportError } from '../src/errors.ts'
import { openDatabase } from '../src/store/database.ts'
import type { Database } from '../src/store/database.ts'
import { sql } from '../src/store/drizzle.ts'
import { freshStorePath, makeFreshStore } from '../src/store/fresh-store.ts'
import { setting } from '../src/store/schema.ts'
import { programOf } from '../tool/services.ts'
import { acknowledged, writtenNumbers } from './peers/store-writer.ts'

const writer = fileURLToPath(new URL('./peers/store-writer.ts', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'sallyport-embedded-'))
const children = new Set<ChildProcess>()
let folders = 0

test.after(() => {
  for (const child of children) child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})

function newFolder(): string {
  return join(folder, String(++folders))
}

interface Writer {
  child: ChildProcess
  output(): string
  /** Resolves when the output matches, or the writer has ended. */
  until(pattern: RegExp): Promise<void>
  ended: Promise<void>
}

function startWriter(dataDir: string, ...words: readonly (string | number)[]): Writer {
  const argv = [writer, dataDir, ...words.map(String)]
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 2] })
  children.add(child)
  let output = ''
  let look = (): void => {}
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    output += text
    look()
  })
  const ended = new Promise<void>(resolve => child.once('close', () => {
    children.delete(child)
    resolve()
  }))
  const until = (pattern: RegExp): Promise<void> => Promise.race([ended, new Promise<void>(resolve => {
    look = () => pattern.test(output) && resolve()
    look()
  })])
  return { child, output: () => output, until, ended }
}

async function refusal(act: Promise<unknown>): Promise<SallyportError> {
  const thrown: unknown = await act.then(() => undefined, (error: unknown) => error)
  assert.is((thrown as SallyportError | undefined)?.code, 'store-unavailable', String(thrown))
  return thrown as SallyportError
}

async function withStore<T>(
  dataDir: string, act: (database: Database, notices: string[]) => Promise<T>
): Promise<T> {
  const notices: string[] = []
  const database = await openDatabase({ store: 'pglite', dataDir, onNotice: line => notices.push(line) })
  try {
    return await act(database, notices)
  } finally {
    await database.close()
  }
}

test('an acknowledged transaction was written to the log and synced before', () => {
  const trace = join(folder, 'trace')
  const dataDir = newFolder()
  const ran = spawnSync(programOf('strace'), [
    '-f', '--seccomp-bpf', '-qq', '-y', '-s', '32', '-o', trace, '-e', 'trace=pwrite64,pwritev,write,fsync',
    process.execPath, writer, dataDir, '20'
  ], { encoding: 'utf8' })
  assert.is(ran.status, 0, ran.stderr)
  const acks = acknowledged(ran.stdout).length
  assert.is(acks, 20)

  let written = false
  let syncedAfterWrite = false
  let proven = 0
  let syncs = 0
  for (const [call, path, text] of completedCalls(readFileSync(trace, 'utf8'))) {
    const isLog = path.includes('/pg_wal/')
    if (isLog && call.startsWith('pwrite')) {
      written = true
      syncedAfterWrite = false
    }
    if (isLog && call === 'fsync') {
      syncs++
      syncedAfterWrite = written
    }
    if (call === 'write' && text.includes('"ack ')) {
      assert.ok(syncedAfterWrite, `acknowledgement ${proven + 1} came before its sync`)
      proven++
      written = syncedAfterWrite = false
    }
  }
  assert.is(proven, acks)
  assert.ok(syncs >= acks, `${syncs} syncs of the log for ${acks} acknowledgements`)
})

/** Name, path and text of each system call, in the order in which they ended. */
function* completedCalls(trace: string): Generator<[call: string, path: string, text: string]> {
  const begun = new Map<string, string>()
  for (const line of trace.split('\n')) {
    const [, thread = '', rest = ''] = /^(\d+) +(.*)$/.exec(line) ?? []
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(rest)
    const whole = resumed === null ? rest : (begun.get(thread) ?? '') + (resumed[1] ?? '')
    if (whole.endsWith('<unfinished ...>')) {
      begun.set(thread, whole.slice(0, -'<unfinished ...>'.length))
      continue
    }
    const [, call, path] = /^(\w+)\(\d+<([^>]*)>/.exec(whole) ?? []
    if (call !== undefined && path !== undefined) yield [call, path, whole]
  }
}

test('kill -9 at any moment loses nothing that was acknowledged', async () => {
  const dataDir = newFolder()
  const acks: number[] = []
  for (let round = 0; round < 4; round++) {
    const first = round * 1_000
    const run = startWriter(dataDir, 900, first)
    await run.until(new RegExp(`ack ${first + 3 + round * 11}\\n`))
    run.child.kill('SIGKILL')
    await run.ended
    acks.push(...acknowledged(run.output()))
  }
  assert.ok(acks.length > 40, `${acks.length} acknowledged`)
  const written = await withStore(dataDir, writtenNumbers)
  assert.equal(acks.filter(number => !written.has(number)), [])
})

test('kill -9 during the first start leaves nothing that a later start would believe in', async () => {
  const dataDir = newFolder()
  for (const name of ['store.new/base/1/1249', 'store', 'store.lock']) {
    const run = startWriter(dataDir, 1)
    const path = join(dataDir, name)
    while (!existsSync(path) && run.child.exitCode === null) await new Promise(setImmediate)
    run.child.kill('SIGKILL')
    await run.ended
  }
  await withStore(dataDir, async database => assert.ok(await database.now()))
})

test('a second process is refused, by the name of the first', async () => {
  const dataDir = newFolder()
  const run = startWriter(dataDir)
  await run.until(/ready/)
  const error = await refusal(openDatabase({ store: 'pglite', dataDir }))
  assert.match(error.detail ?? '', new RegExp(`in use by process ${run.child.pid}`))
  run.child.kill('SIGSTOP')
  const again = await refusal(openDatabase({ store: 'pglite', dataDir }))
  assert.match(again.detail ?? '', /in use/, 'not by its age')
  run.child.kill('SIGKILL')
  await run.ended
  await withStore(dataDir, (_database, notices) => {
    assert.match(notices.join(), `taking over the lock of process ${run.child.pid}, which is dead`)
    return Promise.resolve()
  })
})

test('the same process cannot open it twice either', async () => {
  const dataDir = newFolder()
  await withStore(dataDir, async () => {
    assert.match((await refusal(openDatabase({ store: 'pglite', dataDir }))).detail ?? '', /in use/)
  })
})

test('without locks of the file system the named holder still counts; a reused pid does not', async () => {
  const held = newFolder()
  const dataDir = newFolder()
  mkdirSync(dataDir)
  const lock = join(dataDir, 'store.lock')
  await withStore(held, async () => {
    copyFileSync(join(held, 'store.lock'), lock)
    const error = await refusal(openDatabase({ store: 'pglite', dataDir }))
    assert.match(error.detail ?? '', new RegExp(`in use by process ${process.pid}`))
  })
  const holder = JSON.parse(readFileSync(lock, 'utf8')) as Record<string, unknown>
  writeFileSync(lock, JSON.stringify({ ...holder, startTicks: '1' }))
  await withStore(dataDir, async database => assert.ok(await database.now()))
})

for (const [fault, call] of [['ENOSPC', 'pwrite64'], ['EIO', 'fsync']] as const) {
  test(`${call} of the log fails with ${fault}: refused, no false acknowledgement, and it recovers`,
    async () => {
      const dataDir = newFolder()
      await startWriter(dataDir, 5).ended
      const log = join(dataDir, 'store/pg_wal/000000010000000000000001')
      assert.ok(existsSync(log), 'the first segment of the log')
      // The eighth such call of each thread, and all behind it.
      const ran = spawnSync(programOf('strace'), [
        '-f', '--seccomp-bpf', '-qq', '-o', '/dev/null', '-P', log, '-e', `trace=${call}`,
        '-e', `inject=${call}:error=${fault}:when=8+`, process.execPath, writer, dataDir, '20', '100'
      ], { encoding: 'utf8' })
      const acks = acknowledged(ran.stdout)
      assert.match(ran.stdout, /^refused \d+ store-unavailable$/m)
      assert.ok(acks.length > 0 && acks.length < 20, `${acks.length} acknowledged`)
      const written = await withStore(dataDir, writtenNumbers)
      assert.equal([0, 1, 2, 3, 4, ...acks].filter(number => !written.has(number)), [])
    })
}

test('a statement that does not end is given up, and the store starts again', async () => {
  await withStore(newFolder(), async (database, notices) => {
    await database.run(handle => handle.insert(setting).values({ key: 'kept', value: 1 }))
    const error = await refusal(database.transaction(async tx => {
      await tx.insert(setting).values({ key: 'gone', value: 1 })
      await tx.execute(sql`select count(*) from generate_series(1, 1000000000000)`)
    }))
    assert.match(error.detail ?? '', /no answer/)
    assert.equal(await keysWhenBack(database), ['kept'])
    assert.match(notices.join(), /will be started again/)
  })
})

// On a loaded machine the new start may take longer than one call may.
async function keysWhenBack(database: Database): Promise<string[]> {
  try {
    return (await database.run(handle => handle.select().from(setting))).map(({ key }) => key)
  } catch (thrown) {
    if ((thrown as SallyportError).code !== 'store-unavailable') throw thrown
    return keysWhenBack(database)
  }
}

test('a long statement does not hold up the main thread', async () => {
  await withStore(newFolder(), async database => {
    let turns = 0
    let done = false
    const long = sql`select count(*)::int as count from generate_series(1, 2000000)`
    const statement = database.run(handle => handle.execute(long)).finally(() => { done = true })
    while (!done) {
      turns++
      await new Promise(setImmediate)
    }
    assert.is((await statement)[0]?.count, 2_000_000)
    assert.ok(turns > 100, `${turns} turns of the event loop`)
  })
})

test('the prepared empty store is that of the installed version', () => {
  const { version } = createRequire(import.meta.url)('../node_modules/@electric-sql/pglite/package.json') as
    { version: string }
  assert.ok(existsSync(freshStorePath(version)), `run \`node tool/fresh-store.ts\` for PGlite ${version}`)
})

test('without a prepared empty store one is made by initdb', async () => {
  const dataDir = newFolder()
  mkdirSync(dataDir)
  await makeFreshStore(join(dataDir, 'store'), 'none', async () => {
    const scratch = await PGlite.create()
    const tar = await scratch.dumpDataDir('none')
    await scratch.close()
    return new Uint8Array(await tar.arrayBuffer())
  })
  await withStore(dataDir, async database => assert.ok(await database.now()))
})

test('a store of another PostgreSQL version is refused with both versions', async () => {
  const dataDir = newFolder()
  mkdirSync(join(dataDir, 'store'), { recursive: true })
  writeFileSync(join(dataDir, 'store/PG_VERSION'), '17\n')
  const error = await refusal(openDatabase({ store: 'pglite', dataDir }))
  assert.match(error.detail ?? '', /PostgreSQL 17.* embeds 18/)
})

test.run()
