// Runs the uvu files of test/, test/journeys/ and test/fuzz/: `node tool/test.ts [WORD…]` takes those whose
// path contains a word. uvu fails open: a throwing `before`, a throwing `after.each`, a forgotten
// `test.run()` and a left-in `test.only` all exit 0, and a hang never ends. So each file is a process of its
// own with a deadline (the file may ask for another: `// deadline: 300 s` in its first lines), and only a
// full count is believed: as many passed as there are, none skipped, exit 0, nothing left running. The last
// line is always `N passed, N failed`.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { delimiter, join, resolve } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { stripVTControlCharacters } from 'node:util'
import { ensurePackages, testNeeds } from './services.ts'
import { folderInMemory, removeFolder } from './test-folder.ts'
import type { Cost, Costs } from './test-schedule.ts'
import { busySeconds, costsIn, costsText, inOrder, takeNext } from './test-schedule.ts'

export interface TestFile {
  path: string
  deadlineSeconds: number
}

/** What is known of a file's process after it ended. */
export interface Ended {
  output: string
  exitCode: number | null
  signal: string | null
  /** It was killed at its deadline. */
  late: boolean
  /** Processes of its group outlived it. */
  leftRunning: boolean
}

export interface Verdict {
  passed: number
  failed: number
  /** Why the file is not believed; empty when everything passed. */
  reasons: string[]
}

const folders = ['test', 'test/journeys', 'test/fuzz']
const deadlineSecondsDefault = 240
// A deadline is asked for at the top of a file, where a reader sees it.
const headLinesMax = 12
const slowestShown = 8
const costsFile = 'test/costs.txt'
// A file's last children may need a moment to be reaped after it has ended.
const leaveGraceMs = 2_000
const leavePollMs = 20
// Most of a short test's time is Node reading our files: what it compiled once is kept for the next process.
// Not under coverage, which it would make less exact.
const compileCache = process.env['NODE_V8_COVERAGE'] === undefined
  ? { NODE_COMPILE_CACHE: join(import.meta.dirname, '../node_modules/.cache/compile') }
  : {}
// The count comes last, so the end of a long output is what matters.
const outputBytesMax = 4 * 1024 * 1024

// Process groups that we started and that still run: to be killed when we are.
const groups = new Set<number>()

/** The test files under `root` whose path contains one of the words (all when there are none). */
export function findFiles(root: string, words: readonly string[]): TestFile[] {
  return folders
    .filter(folder => existsSync(join(root, folder)))
    .flatMap(folder => readdirSync(join(root, folder)).sort().map(name => `${folder}/${name}`))
    .filter(path => path.endsWith('.ts') && (words.length === 0 || words.some(word => path.includes(word))))
    .map(path => ({ path, deadlineSeconds: deadlineOf(readFileSync(join(root, path), 'utf8')) }))
}

/**
 * The deadline that a file asks for in its first lines, or the default. Throws where it asks and is not
 * understood: a comment that was reflowed had given slow files the default for a while.
 */
export function deadlineOf(text: string): number {
  const head = text.split('\n', headLinesMax).join('\n')
  const asked = /^\/\/ deadline: (\d+) s$/m.exec(head)?.[1]
  if (asked === undefined && head.includes('// deadline:')) {
    throw new Error(`'// deadline: N s' must be a line of its own: ${head.slice(0, 60)}`)
  }
  return Number(asked ?? deadlineSecondsDefault)
}

/** Believes only a full count: everything else that may have happened is at least one failure. */
export function judge(ended: Ended, deadlineSeconds: number): Verdict {
  const reasons: string[] = []
  if (ended.late) reasons.push(`still running after ${deadlineSeconds} s`)
  else if (ended.signal !== null) reasons.push(`ended by ${ended.signal}`)
  else if (ended.exitCode !== 0) reasons.push(`exit ${ended.exitCode}`)
  if (ended.leftRunning) reasons.push('left processes running')

  const count = lastCount(ended.output)
  if (count === undefined) reasons.push('no count: it did not reach its end, or runs no tests')
  else if (count.total === 0 && count.skipped === 0) reasons.push('no tests ran')
  if (count !== undefined && count.passed !== count.total) {
    reasons.push(`${count.total - count.passed} of ${count.total} did not pass`)
  }
  if (count !== undefined && count.skipped > 0) reasons.push(`${count.skipped} skipped`)

  const notPassed = count === undefined ? 0 : count.total - count.passed + count.skipped
  return { passed: count?.passed ?? 0, failed: reasons.length === 0 ? 0 : Math.max(1, notPassed), reasons }
}

/** uvu's closing lines; the last ones, since a test may print what looks like them. */
function lastCount(output: string): { total: number, passed: number, skipped: number } | undefined {
  const pattern = /^ {2}Total: {5}(\d+)\n {2}Passed: {4}(\d+)\n {2}Skipped: {3}(\d+)\n {2}Duration: .*$/gm
  const last = [...stripVTControlCharacters(output).matchAll(pattern)].at(-1)
  if (last === undefined) return undefined
  return { total: Number(last[1]), passed: Number(last[2]), skipped: Number(last[3]) }
}

/** Runs one file in a process group of its own, and kills the whole group at the deadline. */
export async function runFile(root: string, file: TestFile): Promise<Ended> {
  const path = `${join(root, 'node_modules/.bin')}${delimiter}${process.env['PATH']}`
  const child = spawn(process.execPath, [file.path], {
    cwd: root, detached: true, stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...compileCache, PATH: path, FORCE_COLOR: '0' }
  })
  const chunks: Buffer[] = []
  let outputBytes = 0
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      outputBytes += chunk.length
      while (outputBytes - chunks[0]!.length > outputBytesMax) outputBytes -= chunks.shift()!.length
    })
  }
  const closed = once(child, 'close')
  const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
  await once(child, 'spawn')
  const group = child.pid!
  groups.add(group)

  const limit = new AbortController()
  const deadline = wait(file.deadlineSeconds * 1000, 'late' as const, { signal: limit.signal })
  const isLate = await Promise.race([exited, deadline.catch(() => undefined)]) === 'late'
  limit.abort()
  const leftRunning = !isLate && !await groupIsGone(group)
  killGroup(group)
  groups.delete(group)

  const [exitCode, signal] = await exited
  // Whoever left the group may still hold the pipe; what it says later is not ours.
  await Promise.race([closed, wait(leaveGraceMs, undefined, { ref: false })])
  for (const stream of [child.stdout, child.stderr]) stream.destroy()
  return { output: Buffer.concat(chunks).toString('utf8'), exitCode, signal, late: isLate, leftRunning }
}

async function groupIsGone(group: number): Promise<boolean> {
  for (let waitedMs = 0; waitedMs < leaveGraceMs; waitedMs += leavePollMs) {
    if (!groupLives(group)) return true
    await wait(leavePollMs)
  }
  return false
}

function groupLives(group: number): boolean {
  try {
    return process.kill(-group, 0)
  } catch {
    return false
  }
}

function killGroup(group: number): void {
  try {
    process.kill(-group, 'SIGKILL')
  } catch { /* already gone */ }
}

interface Run {
  verdict: Verdict
  costs: Map<string, Cost>
}

/** Runs all, as many at a time as `next` lets start beside those that run. */
async function runAll(
  root: string, files: readonly TestFile[], next: (running: ReadonlySet<TestFile>) => TestFile | undefined
): Promise<Run> {
  const widest = Math.max(...files.map(file => file.path.length))
  const total = { passed: 0, failed: 0, reasons: [] as string[] }
  const costs = new Map<string, Cost>()
  const work = async (file: TestFile): Promise<void> => {
    const [start, busyBefore] = [performance.now(), busySeconds()]
    const ended = await runFile(root, file)
    const verdict = judge(ended, file.deadlineSeconds)
    const seconds = (performance.now() - start) / 1000
    costs.set(file.path, { seconds, busy: (busySeconds() - busyBefore) / seconds })
    const count = `${String(verdict.passed).padStart(4)} passed ${seconds.toFixed(1).padStart(6)} s`
    const line = `${file.path.padEnd(widest)} ${count}`
    const why = `${verdict.failed} failed: ${verdict.reasons.join(', ')}\n${ended.output.trimEnd()}`
    console.log(verdict.failed === 0 ? `  ok  ${line}` : `FAIL  ${line}, ${why}\n`)
    total.passed += verdict.passed
    total.failed += verdict.failed
    if (verdict.failed > 0) total.reasons.push(file.path)
  }
  const running = new Map<TestFile, Promise<void>>()
  for (;;) {
    const file = next(new Set(running.keys()))
    if (file !== undefined) running.set(file, work(file).finally(() => running.delete(file)))
    else if (running.size > 0) await Promise.race(running.values())
    else break
  }

  console.log('\nslowest:')
  const slowest = [...costs].sort(([, one], [, other]) => other.seconds - one.seconds).slice(0, slowestShown)
  for (const [path, { seconds }] of slowest) console.log(`${seconds.toFixed(1).padStart(7)} s  ${path}`)
  if (total.reasons.length > 0) console.log(`\nfailed: ${total.reasons.sort().join(' ')}`)
  return { verdict: total, costs }
}

function knownCosts(root: string): Costs {
  const path = join(root, costsFile)
  return existsSync(path) ? costsIn(readFileSync(path, 'utf8')) : new Map()
}

async function runSideBySide(root: string, files: readonly TestFile[]): Promise<Verdict> {
  const costs = knownCosts(root)
  const queue = inOrder(files, costs)
  return (await runAll(root, files, running => takeNext(queue, running, costs))).verdict
}

/** One by one, since it is the machine's work that is measured. */
async function runAndRemember(root: string, files: readonly TestFile[]): Promise<Verdict> {
  const queue = [...files]
  const { verdict, costs } = await runAll(
    root, files, running => running.size === 0 ? queue.shift() : undefined)
  const there = new Set(findFiles(root, []).map(({ path }) => path))
  const all = [...knownCosts(root), ...costs].filter(([path]) => there.has(path))
  writeFileSync(join(root, costsFile), costsText(new Map(all)))
  return verdict
}

/**
 * `--in FOLDER` runs the tests of another folder: for the tests of this runner. `--remember` measures what
 * the files take, for the order of later runs.
 */
async function main(words: string[]): Promise<number> {
  let root = resolve(import.meta.dirname, '..')
  if (words[0] === '--in' && words[1] !== undefined) root = resolve(words.splice(0, 2)[1]!)
  const remember = words[0] === '--remember' && words.shift() !== undefined
  const unknown = words.find(word => word.startsWith('-'))
  if (unknown !== undefined) {
    console.error(`unknown option ${unknown}; usage: node tool/test.ts [--in FOLDER] [--remember] [WORD…]`)
    return 2
  }
  const files = findFiles(root, words)
  let total: Verdict = { passed: 0, failed: 0, reasons: [] }
  try {
    ensurePackages(testNeeds)
  } catch (error) {
    console.log(error instanceof Error ? error.message : String(error))
    // A few chosen files may not need any of it; those that do fail by themselves.
    if (words.length === 0) total.failed = 1
  }
  if (files.length === 0) console.log(`no test file has one of these words in its path: ${words.join(' ')}`)
  else if (total.failed === 0) total = await (remember ? runAndRemember : runSideBySide)(root, files)
  console.log(`${total.passed} passed, ${total.failed} failed`)
  return total.failed > 0 || total.passed === 0 ? 1 : 0
}

if (import.meta.main) {
  const killAll = (): void => groups.forEach(killGroup)
  // Inherited by all that the tests start.
  const folder = folderInMemory()
  if (folder !== undefined) process.env['TMPDIR'] = folder
  process.on('exit', () => {
    killAll()
    if (folder !== undefined) removeFolder(folder)
  })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(130))
  process.exitCode = await main(process.argv.slice(2))
}
