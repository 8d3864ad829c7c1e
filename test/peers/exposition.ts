// Reads Prometheus' text format 0.0.4 as strictly as its own linter: what a lenient reader would forgive
// (a sample before its TYPE, a metric in two places, a bucket that shrinks, a label with a raw newline) is an
// error here. Answers the samples by their names.

export interface Sample {
  name: string
  labels: Readonly<Record<string, string>>
  value: number
}

export interface Exposition {
  types: ReadonlyMap<string, string>
  samples: readonly Sample[]
  /** The value of one series; throws when there is none. */
  value(name: string, labels?: Readonly<Record<string, string>>): number
}

const name = '[a-zA-Z_:][a-zA-Z0-9_:]*'
const label = '[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\[\\\\"n])*"'
const number = '[+-]?(?:Inf|NaN|\\d+(?:\\.\\d+)?(?:[eE][+-]?\\d+)?)'
const helpLine = new RegExp(`^# HELP (${name}) ((?:[^\\\\]|\\\\[\\\\n])+)$`)
const typeLine = new RegExp(`^# TYPE (${name}) (counter|gauge|histogram)$`)
const sampleLine = new RegExp(`^(${name})(?:\\{(${label}(?:,${label})*)\\})? (${number})$`)

/** Throws an Error that names the line. */
export function readExposition(text: string): Exposition {
  if (!text.endsWith('\n')) throw new Error('the last line has no end')
  const types = new Map<string, string>()
  const helps = new Set<string>()
  const samples: Sample[] = []
  const seen = new Set<string>()
  let family = ''
  for (const [at, line] of text.slice(0, -1).split('\n').entries()) {
    const fail = (why: string): never => { throw new Error(`line ${at + 1}: ${why}: ${line}`) }
    const help = helpLine.exec(line)?.[1]
    const [, typed, type] = typeLine.exec(line) ?? []
    if (help !== undefined) {
      if (helps.has(help)) fail('a second HELP')
      helps.add(help)
      family = help
    } else if (typed !== undefined && type !== undefined) {
      if (types.has(typed) || typed !== family) fail('a TYPE that is not after its own HELP, once')
      if (type === 'counter' && !typed.endsWith('_total')) fail('a counter that does not end in _total')
      types.set(typed, type)
    } else {
      const sample = readSample(line) ?? fail('no sample')
      const isPart = types.get(family) === 'histogram'
      const own = isPart ? sample.name.replace(/_(bucket|sum|count)$/, '') : sample.name
      if (own !== family || !types.has(own)) fail('a sample outside of its family')
      const key = `${sample.name}${JSON.stringify(Object.entries(sample.labels).sort())}`
      if (seen.has(key)) fail('a series twice')
      seen.add(key)
      if (types.get(own) !== 'gauge' && !(sample.value >= 0)) fail('a count below zero')
      samples.push(sample)
    }
  }
  for (const [histogram, type] of types) if (type === 'histogram') checkHistogram(histogram, samples)
  return { types, samples, value: (wanted, labels) => valueOf(samples, wanted, labels) }
}

function readSample(line: string): Sample | undefined {
  const [, sampled, pairs = '', value = ''] = sampleLine.exec(line) ?? []
  if (sampled === undefined) return undefined
  const all = [...pairs.matchAll(new RegExp(label, 'g'))].map(([pair]) => pair)
  const labels = Object.fromEntries(all.map(pair => {
    const [key = '', quoted = ''] = [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 2, -1)]
    return [key, quoted.replace(/\\(.)/g, (_, escaped: string) => escaped === 'n' ? '\n' : escaped)]
  }))
  if (Object.keys(labels).length !== all.length) return undefined
  return { name: sampled, labels, value: Number(value.replace('Inf', 'Infinity')) }
}

function checkHistogram(histogram: string, samples: readonly Sample[]): void {
  const groups = Map.groupBy(samples.filter(sample => sample.name === `${histogram}_bucket`),
    ({ labels: { le: _, ...rest } }) => JSON.stringify(rest))
  for (const [group, buckets] of groups) {
    const bounds = buckets.map(({ labels }) => Number((labels['le'] ?? '').replace('Inf', 'Infinity')))
    const rising = (values: number[], strictly: boolean): boolean => values.every((value, at) =>
      at === 0 || (strictly ? value > values[at - 1]! : value >= values[at - 1]!))
    if (!rising(bounds, true) || bounds.at(-1) !== Infinity) throw new Error(`${histogram}: bounds ${bounds}`)
    const counts = buckets.map(({ value }) => value)
    if (!rising(counts, false)) throw new Error(`${histogram}: counts ${counts}`)
    const labels = JSON.parse(group) as Record<string, string>
    const total = valueOf(samples, `${histogram}_count`, labels)
    if (total !== counts.at(-1)) throw new Error(`${histogram}_count ${total}`)
    valueOf(samples, `${histogram}_sum`, labels)
  }
}

function valueOf(
  samples: readonly Sample[], wanted: string, labels: Readonly<Record<string, string>> = {}
): number {
  const found = samples.filter(sample => sample.name === wanted
    && Object.keys(sample.labels).filter(key => key !== 'le').length === Object.keys(labels).length
    && Object.entries(labels).every(([key, value]) => sample.labels[key] === value))
  if (found.length !== 1) throw new Error(`${found.length} series ${wanted} ${JSON.stringify(labels)}`)
  return found[0]!.value
}
