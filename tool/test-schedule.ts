// Which test file runs next. What a file took in an earlier run is kept in test/costs.txt: its seconds, and
// how many of them it kept a core busy (its own work and that of all that it started). Many files mostly
// wait, for timers, deadlines and processes; those run beside others, as long as the cores have room. Long
// ones go first, so that none runs alone at the end. A file that is not in the list counts as one that is
// busy all the time. `node tool/test.ts --remember [WORD…]` measures, one file at a time, on an idle
// machine.
import { cpus } from 'node:os'

export interface Cost {
  seconds: number
  /** CPU seconds of each: 1 keeps one core busy. */
  busy: number
}

export type Costs = ReadonlyMap<string, Cost>

const unknown: Cost = { seconds: 10, busy: 1 }
// CI has two cores. Two files run at any rate, more only when they all together leave no core overloaded:
// tests with short times would fail by bad luck.
const filesAtOnceMin = 2
const filesAtOnceMax = 4
const busyMax = 2

export function costsIn(text: string): Costs {
  const lines = text.split('\n').filter(line => line !== '' && !line.startsWith('#'))
  return new Map(lines.map(line => {
    const [seconds, busy, path, ...more] = line.trim().split(/ +/)
    const cost = { seconds: Number(seconds), busy: Number(busy) }
    if (path === undefined || more.length > 0 || !(cost.seconds >= 0) || !(cost.busy >= 0)) {
      throw new Error(`costs of tests: '${line}' is not 'seconds busy path'`)
    }
    return [path, cost]
  }))
}

/** Sorted by path, so that a new run changes the lines of what has changed. */
export function costsText(costs: Costs): string {
  const lines = [...costs].sort(([one], [other]) => one < other ? -1 : 1).map(([path, { seconds, busy }]) =>
    `${seconds.toFixed(0).padStart(3)} ${busy.toFixed(1)} ${path}\n`)
  return ['# Seconds, cores kept busy, file. Written by `node tool/test.ts --remember`.\n', ...lines].join('')
}

export function inOrder<T extends { path: string }>(files: readonly T[], costs: Costs): T[] {
  const seconds = ({ path }: T): number => (costs.get(path) ?? unknown).seconds
  return files.toSorted((one, other) => seconds(other) - seconds(one))
}

/** Takes out of the queue what may start beside those that run: the first file for which there is room. */
export function takeNext<T extends { path: string }>(
  queue: T[], running: ReadonlySet<T>, costs: Costs
): T | undefined {
  if (running.size >= filesAtOnceMax) return undefined
  const busyOf = ({ path }: T): number => (costs.get(path) ?? unknown).busy
  const busy = [...running].reduce((sum, file) => sum + busyOf(file), 0)
  const at = queue.findIndex(file => busy + busyOf(file) <= busyMax)
  if (at === -1) return running.size < filesAtOnceMin ? queue.shift() : undefined
  return queue.splice(at, 1)[0]
}

/** Seconds that the cores of this machine were busy since it started. */
export function busySeconds(): number {
  return cpus().reduce((sum, { times: { user, nice, sys, irq } }) => sum + user + nice + sys + irq, 0) / 1000
}
