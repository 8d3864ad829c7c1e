// HTTP in templates: a request as a step, and a look that says how an answer is read. The parts of a request
// are structure, not text: a hole in the path fills one segment and is percent-encoded, a leaf of JSON or of
// a form is data, and there is no place for a host, which is the target's. Values are picked out of answers
// by trails such as `keys[status=Active].id`; nothing else of an answer is used.
import type { TextContext } from './holes.ts'

export type JsonText =
  | string | number | boolean | null | readonly JsonText[] | { readonly [key: string]: JsonText }

/**
 * One step of a way into an answer. `every`: all items; `match`: items whose `key` equals a text, or which
 * equal it themselves.
 */
export interface TrailStep {
  name: string
  every?: boolean
  match?: { key: string, text: string }
}

export type Trail = readonly TrailStep[]

export interface HttpStep {
  method: string
  path: string
  query: Readonly<Record<string, string>>
  headers: Readonly<Record<string, string>>
  json?: JsonText | undefined
  form?: Readonly<Record<string, string>> | undefined
  /** Status codes that count as success. */
  expect: readonly number[]
  /** Variables for later steps; a trail with brackets gives a list. */
  output: Readonly<Record<string, Trail>>
  /** Once for each item of this list, which is `{{ item }}`. */
  each?: string | undefined
}

/** What a look says about the account, by where its trails lead. */
export interface Look {
  /** Status codes that say that there is none. */
  absent: readonly number[]
  exists?: Trail | undefined
  ours?: Trail | undefined
  enabled?: Trail | undefined
  /** Instead of asking: it is there until this instant, whatever anybody does. */
  until?: string | undefined
}

export interface ReadTools {
  problem(path: string, problem: string): void
  compile(path: string, text: unknown, context: TextContext): void
}

/** Fills a text. @throws UnfitValue */
export type Fill = (text: string, context: TextContext) => string

type Fields = ReadonlyMap<string, unknown>

const methods: readonly string[] = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']
/** What is ours to say: framing, where the request goes, and as whom. */
const ownHeaders: readonly string[] = [
  'host', 'authorization', 'content-length', 'content-type', 'transfer-encoding', 'connection', 'expect',
  'te', 'upgrade', 'trailer', 'cookie', 'accept-encoding', 'proxy-authorization'
]
const headerForm = /^[a-z][a-z0-9-]{0,62}$/
const outputForm = /^[a-z][a-z0-9_]{0,62}$/
const segmentForm = /(?:^|\.)([A-Za-z0-9_@$-]{1,64})(?:\[([A-Za-z0-9_@$-]{0,64})(?:=([^\]]{1,200}))?\])?/y
const leavesMax = 200
const depthMax = 8

export const httpFields = ['http', 'path', 'query', 'headers', 'json', 'form', 'expect', 'output', 'each']
export const lookFields = ['absent', 'exists', 'ours', 'enabled', 'until']

/** The request of a step; mistakes are told with their paths. */
export function readHttp(path: string, fields: Fields, tools: ReadTools): HttpStep {
  const method = String(fields.get('http'))
  if (!methods.includes(method)) tools.problem(`${path}.http`, `must be one of ${methods.join(', ')}`)
  const url = fields.get('path') ?? '/'
  tools.compile(`${path}.path`, url, 'path')
  if (!String(url).startsWith('/') || /[?#\\\s]|\/\//.test(String(url).replaceAll(/\{\{.*?\}\}/g, 'x'))) {
    tools.problem(`${path}.path`, 'must begin with / and be no more than a path: the host is the target\'s')
  }
  const headers = texts(`${path}.headers`, fields.get('headers'), tools)
  for (const name of Object.keys(headers)) {
    if (!headerForm.test(name)) tools.problem(`${path}.headers.${name}`, 'must be a name in lower case')
    if (ownHeaders.includes(name)) tools.problem(`${path}.headers.${name}`, 'is not a template\'s to say')
  }
  if (fields.has('json') && fields.has('form')) tools.problem(path, 'must have one of json and form')
  if (method === 'GET' && (fields.has('json') || fields.has('form'))) tools.problem(path, 'GET has no body')
  const form = fields.has('form') ? texts(`${path}.form`, fields.get('form'), tools) : undefined
  const json = fields.has('json')
    ? new JsonReader(tools).read(`${path}.json`, fields.get('json'), 0)
    : undefined
  const each = fields.get('each')
  if (each !== undefined && !(typeof each === 'string' && outputForm.test(each))) {
    tools.problem(`${path}.each`, 'must be the name of a list')
  }
  return {
    method, path: String(url), query: texts(`${path}.query`, fields.get('query'), tools), headers, json, form,
    expect: statuses(`${path}.expect`, fields.get('expect') ?? [200], tools),
    output: outputs(`${path}.output`, fields.get('output'), tools),
    each: typeof each === 'string' ? each : undefined
  }
}

export function readLook(path: string, fields: Fields, tools: ReadTools): Look {
  const trail = (name: string): Trail | undefined =>
    fields.has(name) ? readTrail(`${path}.${name}`, fields.get(name), tools) : undefined
  const until = fields.get('until')
  if (until !== undefined) tools.compile(`${path}.until`, until, 'data')
  return {
    absent: statuses(`${path}.absent`, fields.get('absent') ?? [], tools),
    exists: trail('exists'), ours: trail('ours'), enabled: trail('enabled'),
    until: until === undefined ? undefined : String(until)
  }
}

/** True when it may lead to several values. */
export function isList(trail: Trail): boolean {
  return trail.some(({ every, match }) => every === true || match !== undefined)
}

function outputs(path: string, value: unknown, tools: ReadTools): Record<string, Trail> {
  const found: Record<string, Trail> = {}
  for (const [name, text] of fieldsOf(path, value, tools)) {
    if (!outputForm.test(name)) tools.problem(`${path}.${name}`, 'a name is lower case letters, digits and _')
    found[name] = readTrail(`${path}.${name}`, text, tools)
  }
  return found
}

function readTrail(path: string, value: unknown, tools: ReadTools): Trail {
  const text = typeof value === 'string' ? value : ''
  const steps: TrailStep[] = []
  segmentForm.lastIndex = 0
  let end = 0
  for (let found = segmentForm.exec(text); found !== null; found = segmentForm.exec(text)) {
    const [, name = '', key, match] = found
    end = segmentForm.lastIndex
    if (match !== undefined) tools.compile(path, match, 'data')
    if (match === undefined && key !== undefined && key !== '') break
    steps.push({
      name, ...key === '' && match === undefined ? { every: true } : {},
      ...match === undefined ? {} : { match: { key: key ?? '', text: match } }
    })
  }
  const opened = text.match(/\[/g)?.length ?? 0
  if (steps.length === 0 || end !== text.length || opened !== brackets(steps)) {
    tools.problem(path, 'must be a trail such as user.keys[status=Active].id')
  }
  return steps
}

function brackets(steps: Trail): number {
  return steps.filter(({ every, match }) => every === true || match !== undefined).length
}

function statuses(path: string, value: unknown, { problem }: ReadTools): number[] {
  const isStatus = (one: unknown): boolean =>
    Number.isInteger(one) && Number(one) >= 200 && Number(one) <= 499
  if (Array.isArray(value) && value.every(isStatus)) return value as number[]
  problem(path, 'must be a list of status codes')
  return []
}

function fieldsOf(path: string, value: unknown, { problem }: ReadTools): Fields {
  if (value === undefined || value instanceof Map) return (value ?? new Map()) as Fields
  problem(path, 'must be a mapping')
  return new Map<string, unknown>()
}

function texts(path: string, value: unknown, tools: ReadTools): Record<string, string> {
  const found: Record<string, string> = {}
  for (const [name, text] of fieldsOf(path, value, tools)) {
    const told = typeof text === 'number' ? String(text) : text
    tools.compile(`${path}.${name}`, told, 'data')
    found[name] = String(told)
  }
  return found
}

class JsonReader {
  readonly #tools: ReadTools
  #leaves = 0

  constructor(tools: ReadTools) {
    this.#tools = tools
  }

  read(path: string, value: unknown, depth: number): JsonText {
    if (depth > depthMax || ++this.#leaves > leavesMax) {
      this.#tools.problem(path, `deeper than ${depthMax} or more than ${leavesMax} values`)
      return null
    }
    if (value instanceof Map) {
      return Object.fromEntries([...value as Fields].map(
        ([name, inner]) => [name, this.read(`${path}.${name}`, inner, depth + 1)]))
    }
    if (Array.isArray(value)) {
      return value.map((inner: unknown, index) => this.read(`${path}[${index}]`, inner, depth + 1))
    }
    if (value === null || typeof value === 'number' || typeof value === 'boolean') return value
    this.#tools.compile(path, value, 'data')
    return String(value)
  }
}

/** The same request with every hole filled; a leaf whose conditions left nothing is left out. */
export function fillHttp(step: HttpStep, fill: Fill): HttpStep {
  const { json, form } = step
  return {
    ...step, path: fill(step.path, 'path'), query: fillAll(step.query, fill),
    headers: fillAll(step.headers, fill), json: json === undefined ? undefined : fillJson(json, fill),
    form: form === undefined ? undefined : fillAll(form, fill),
    output: Object.fromEntries(
      Object.entries(step.output).map(([name, trail]) => [name, fillTrail(trail, fill)]))
  }
}

export function fillLook(look: Look, fill: Fill): Look {
  const trail = (one: Trail | undefined): Trail | undefined =>
    one === undefined ? undefined : fillTrail(one, fill)
  return {
    absent: look.absent, exists: trail(look.exists), ours: trail(look.ours), enabled: trail(look.enabled),
    until: look.until === undefined ? undefined : fill(look.until, 'data')
  }
}

function fillAll(all: Readonly<Record<string, string>>, fill: Fill): Record<string, string> {
  const filled = Object.entries(all).map(([name, text]): [string, string] => [name, fill(text, 'data')])
  return Object.fromEntries(filled.filter(([, value]) => value !== ''))
}

function fillTrail(trail: Trail, fill: Fill): Trail {
  return trail.map(({ match, ...step }) =>
    match === undefined ? step : { ...step, match: { ...match, text: fill(match.text, 'data') } })
}

function fillJson(value: JsonText, fill: Fill): JsonText | undefined {
  if (typeof value === 'string') return fill(value, 'data') || undefined
  if (value === null || typeof value !== 'object') return value
  if (Array.isArray(value)) {
    return (value as readonly JsonText[]).map(inner => fillJson(inner, fill))
      .filter(inner => inner !== undefined)
  }
  const filled = Object.entries(value).map(
    ([name, inner]) => [name, fillJson(inner as JsonText, fill)] as const)
  return Object.fromEntries(filled.filter((entry): entry is [string, JsonText] => entry[1] !== undefined))
}
