// Numbers for Prometheus, in its text format 0.0.4: counters, gauges and histograms, fed where things happen
// and printed when somebody scrapes. Names of people never become labels, and every metric has a limit on its
// series: what comes beyond is added up under `other`, so that nobody who can make up names can make this
// process, or the server that scrapes it, grow.

/** Values of a metric's labels, in the order in which it declares them. */
export type Labels = readonly string[]

export interface Counter {
  add(labels?: Labels, by?: number): void
}

export interface Gauge {
  set(value: number, labels?: Labels): void
  /** Forgets all series: what is not set again is not printed. */
  clear(): void
}

export interface Histogram {
  observe(value: number, labels?: Labels): void
}

export interface Metrics {
  counter(name: string, help: string, labels?: readonly string[]): Counter
  gauge(name: string, help: string, labels?: readonly string[]): Gauge
  /** `bounds`: upper bounds of the buckets, rising, without the last, which is infinite. */
  histogram(name: string, help: string, bounds: readonly number[], labels?: readonly string[]): Histogram
  print(): string
}

/** Series of one metric: more are no figures any more, and cost everybody who keeps them. */
export const seriesMax = 300
const other = 'other'
/** Longest value of a label, in characters. */
const labelCharactersMax = 100

interface Family {
  name: string
  help: string
  type: 'counter' | 'gauge' | 'histogram'
  lines(): string[]
}

interface Distribution {
  counts: number[]
  sum: number
}

export function createMetrics(): Metrics {
  const families: Family[] = []
  const declare = (type: Family['type'], name: string, help: string, lines: () => string[]): void => {
    families.push({ name, help, type, lines })
  }
  const plain = (name: string, labels: readonly string[], series: Series<number>) => (): string[] =>
    series.all().map(([values, value]) => sample(name, labels, values, value))
  return {
    counter(name, help, labels = []) {
      const series = new Series(labels.length, () => 0)
      // A counter without labels is there from the start: zero is a figure.
      if (labels.length === 0) series.change([], value => value)
      declare('counter', name, help, plain(name, labels, series))
      return { add: (values = [], by = 1) => series.change(values, value => value + by) }
    },
    gauge(name, help, labels = []) {
      const series = new Series(labels.length, () => 0)
      declare('gauge', name, help, plain(name, labels, series))
      return {
        set: (value, values = []) => series.change(values, () => value),
        clear: () => series.clear()
      }
    },
    histogram(name, help, bounds, labels = []) {
      const empty = (): Distribution => ({ counts: Array<number>(bounds.length + 1).fill(0), sum: 0 })
      const series = new Series(labels.length, empty)
      if (labels.length === 0) series.change([], value => value)
      declare('histogram', name, help, () => series.all().flatMap(([values, distribution]) =>
        buckets(name, labels, values, bounds, distribution)))
      return {
        observe: (value, values = []) => series.change(values, distribution => {
          const place = bounds.findIndex(bound => value <= bound)
          distribution.counts[place < 0 ? bounds.length : place]! += 1
          distribution.sum += value
          return distribution
        })
      }
    },
    print: () => families.flatMap(({ name, help, type, lines }) => {
      const samples = lines()
      const head = [`# HELP ${name} ${inHelp(help)}`, `# TYPE ${name} ${type}`]
      return samples.length === 0 ? [] : [...head, ...samples]
    }).join('\n') + '\n'
  }
}

class Series<T> {
  readonly #labels: number
  readonly #first: () => T
  readonly #values = new Map<string, { labels: Labels, value: T }>()

  constructor(labels: number, first: () => T) {
    this.#labels = labels
    this.#first = first
  }

  change(labels: Labels, change: (value: T) => T): void {
    const known = this.#find(labels) ?? this.#make(labels)
    known.value = change(known.value)
  }

  clear(): void {
    this.#values.clear()
  }

  all(): (readonly [Labels, T])[] {
    return [...this.#values.values()].map(({ labels, value }) => [labels, value] as const)
  }

  #find(labels: Labels): { value: T } | undefined {
    return this.#values.get(JSON.stringify(labels))
  }

  #make(labels: Labels): { value: T } {
    const full = this.#values.size >= seriesMax && labels.length > 0
    const own = full ? Array<string>(this.#labels).fill(other) : labels
    const known = full ? this.#find(own) : undefined
    if (known !== undefined) return known
    const made = { labels: own, value: this.#first() }
    this.#values.set(JSON.stringify(own), made)
    return made
  }
}

function buckets(
  name: string, labels: readonly string[], values: Labels, bounds: readonly number[],
  { counts, sum }: Distribution
): string[] {
  let upTo = 0
  const lines = [...bounds, Infinity].map((bound, place) => {
    upTo += counts[place] ?? 0
    return sample(`${name}_bucket`, [...labels, 'le'], [...values, numberOf(bound)], upTo)
  })
  return [...lines, sample(`${name}_sum`, labels, values, sum), sample(`${name}_count`, labels, values, upTo)]
}

function sample(name: string, labels: readonly string[], values: Labels, value: number): string {
  const pairs = labels.map((label, place) => `${label}="${inLabel(values[place] ?? '')}"`)
  return `${name}${pairs.length === 0 ? '' : `{${pairs.join(',')}}`} ${numberOf(value)}`
}

function numberOf(value: number): string {
  return value === Infinity ? '+Inf' : value === -Infinity ? '-Inf' : String(value)
}

function inLabel(text: string): string {
  return text.slice(0, labelCharactersMax).toWellFormed()
    .replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
}

function inHelp(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')
}
