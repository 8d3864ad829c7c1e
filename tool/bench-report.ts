// How benchmarks run and what they print: rounds in which every way has its turn, medians, tables in
// Markdown.
import { loadavg } from 'node:os'

export function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

export function heading(title: string): void {
  say(`\n### ${title} (load ${loadavg()[0]!.toFixed(1)})`)
}

export function tableOf(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  return [head, head.map(() => '---'), ...rows].map(row => `| ${row.join(' | ')} |`)
}

export function table(head: readonly string[], rows: readonly (readonly string[])[]): void {
  for (const line of tableOf(head, rows)) say(line)
}

/** So many per cent of the values are below it. */
export function percentile(values: readonly number[], percent: number): number {
  const sorted = values.toSorted((left, right) => left - right)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * percent / 100))] ?? NaN
}

export function median(values: readonly number[]): number {
  return percentile(values, 50)
}

export function fixed(value: number, digits: number): string {
  return Number.isNaN(value) ? '-' : value.toFixed(digits)
}

/** Every way once, then again: what disturbs the machine for a while disturbs all. */
export async function inRounds<Way, Value>(
  ways: readonly Way[], rounds: number, measure: (way: Way) => Promise<Value>
): Promise<Value[][]> {
  const samples: Value[][] = ways.map(() => [])
  for (let round = 0; round < rounds; round++) {
    for (const [index, way] of ways.entries()) samples[index]!.push(await measure(way))
  }
  return samples
}
