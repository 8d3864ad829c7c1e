// Template text: what may stand between `{{ }}` and `{% %}`, and how a value gets into the text. LiquidJS
// parses and renders, behind an allow-list on the exact source of every hole and tag; its filters and most of
// its tags are gone. The place of a hole decides what may stand there: between SQL tokens `| ident`, `|
// literal`, `| identlist` or a bare whole number, inside quotes a bare inert word, in plain data the string
// itself. Every way through the branches is scanned at save time, so an unused branch cannot hide a mistake.
import { Liquid, TokenKind, Tokenizer } from 'liquidjs'
import { encodeWord } from './percent.ts'
import { dialects } from './sql-dialect.ts'
import type { SqlContext, SqlDialect } from './sql-dialect.ts'
import { UnfitValue, assertWellFormed } from './sql-text.ts'
import type { HolePlace, SqlPiece } from './sql-text.ts'

/**
 * One statement in some SQL. `data`: a value that the plugin quotes itself. `path`: of a URL, a hole is one
 * segment or a piece of one.
 */
export type TextContext = SqlContext | 'data' | 'path'

/**
 * What a hole can print, secrets exposed or masked. Absent or empty: false in a condition, an error in a
 * hole.
 */
export type PlainValue = string | number | readonly string[]

export interface CompiledText {
  /** Variables named in holes and conditions of every branch. */
  uses: ReadonlySet<string>
  /** Variables that must be lists, because `identlist` prints them … */
  lists: ReadonlySet<string>
  /** … and those that must not be, because another hole prints them. */
  words: ReadonlySet<string>
  /** Those that stand bare between SQL tokens: whole numbers only. */
  numbers: ReadonlySet<string>
  problems: readonly string[]
  /** @throws UnfitValue naming the variable, never its value. */
  render(values: Readonly<Record<string, PlainValue | undefined>>): string
}

/** A statement is a screenful; 64 KiB leaves room for generated ones. */
export const textCharactersMax = 65_536
/** Ways through the branches of one text: seven independent conditions. */
export const pathsMax = 128
const holesMax = 256
const listItemsMax = 100
// Rendering is linear; a second means that something is very wrong.
const renderLimitMs = 1000

const variableName = '[a-z][a-z0-9_]{0,62}'
const holeForm = new RegExp(
  `^\\{\\{\\s*(${variableName})\\s*(?:\\|\\s*(ident|literal|identlist|binary)\\s*)?\\}\\}$`
)
const conditionForm = new RegExp(`^(${variableName})(?:\\s*(?:==|!=)\\s*(?:'[\\w .-]*'|"[\\w .-]*"))?$`)
const tagForm = /^\{%\s*(if|elsif|unless|else|endif|endunless|comment|endcomment)\b\s*([^%{}]*?)\s*%\}$/

// Begins and ends with a letter or digit, so that no neighbour can make `--`, `/*` or a quote of it.
const inertForm = /^[A-Za-z0-9_](?:[A-Za-z0-9_.:+@/-]*[A-Za-z0-9_])?$/
const inertNot = /--|\/\/|\.\.|::|@@/
const inertCharactersMax = 128

type SourcePiece = { text: string } | { hole: number }
/** `ways`: one list for each branch; without `else` one of them is empty. */
type Node = SourcePiece | { ways: Node[][] }
interface OpenTag { tag: 'if' | 'unless' | 'comment', ways: Node[][], outer: Node[], otherwise: boolean }

interface Hole { name: string, filter: string | undefined, begin: number, end: number }

/** Checks a text and prepares it; problems are sentences without a path. */
export function compileText(text: string, context: TextContext): CompiledText {
  const reader = new Reader(context)
  const nodes = reader.read(text)
  const { holes, uses, lists, words, problems } = reader
  const places = new Map<number, HolePlace>()
  const dialect = dialectOf(context)
  if (problems.size === 0 && dialect !== undefined) checkPaths(dialect, nodes, holes, places, problems)
  const render = problems.size > 0 ? refuseToRender : renderer(text, holes, places, context, problems)
  const bare = holes.filter(({ filter }, number) => filter === undefined && places.get(number) === 'plain')
  const numbers = new Set(bare.map(hole => hole.name))
  return { uses, lists, words, numbers, problems: [...problems], render }
}

function dialectOf(context: TextContext): SqlDialect | undefined {
  return context === 'data' || context === 'path' ? undefined : dialects[context]
}

function checkPaths(
  dialect: SqlDialect, nodes: Node[], holes: Hole[], places: Map<number, HolePlace>, problems: Set<string>
): void {
  const paths = expand(nodes)
  if (paths === undefined) {
    problems.add(`more than ${pathsMax} ways through the conditions: split the step`)
    return
  }
  for (const path of paths) {
    const scan = dialect.scan(joinText(path))
    for (const problem of scan.problems) problems.add(problem)
    for (const [number, place] of scan.places) {
      if ((places.get(number) ?? place) !== place) {
        problems.add(`{{ ${holes[number]?.name} }} is quoted in one branch only`)
      }
      places.set(number, place)
    }
  }
  for (const [number, place] of places) {
    const { name, filter } = holes[number]!
    if (place !== 'plain' && filter !== undefined) {
      problems.add(`{{ ${name} | ${filter} }} stands inside quotes: the filter brings its own, remove them`)
    }
  }
}

/** The text with the inner filter that belongs to each bare hole, parsed once. */
function renderer(
  text: string, holes: Hole[], places: Map<number, HolePlace>, context: TextContext, problems: Set<string>
): CompiledText['render'] {
  let source = text
  for (const [number, hole] of [...holes.entries()].reverse()) {
    const inSql = places.get(number) === 'plain' ? 'count' : 'inert'
    const bare = context === 'path' ? 'segment' : context === 'data' ? 'datum' : inSql
    // The filter hears the name as well, so that its error can say which variable is unfit.
    const filter = hole.filter === undefined ? bare : `${context}_${hole.filter}`
    const filled = `{{ ${hole.name} | ${filter}: '${hole.name}' }}`
    source = source.slice(0, hole.begin) + filled + source.slice(hole.end)
  }
  let parsed: ReturnType<Liquid['parse']>
  try {
    parsed = engine.parse(source)
  } catch (error) {
    problems.add(firstLine(error))
    return refuseToRender
  }
  return values => {
    const rendered = renderParsed(parsed, scopeOf(values))
    const [problem] = dialectOf(context)?.problems(rendered) ?? []
    if (problem !== undefined) throw new UnfitValue(`with these values, ${problem}`)
    return rendered
  }
}

/** Strings and lists of strings only, without prototype; what is absent or empty is not there at all. */
function scopeOf(
  values: Readonly<Record<string, PlainValue | undefined>>
): Record<string, string | string[]> {
  const scope = Object.create(null) as Record<string, string | string[]>
  for (const [name, value] of Object.entries(values)) {
    if (typeof value === 'string' || typeof value === 'number') scope[name] = String(value)
    else if (value !== undefined && value.length > 0) scope[name] = [...value]
  }
  return scope
}

function renderParsed(parsed: ReturnType<Liquid['parse']>, scope: Record<string, string | string[]>): string {
  try {
    return String(engine.renderSync(parsed, scope))
  } catch (error) {
    const original: unknown = (error as { originalError?: unknown }).originalError
    throw original instanceof UnfitValue ? original : new UnfitValue(firstLine(error))
  }
}

function refuseToRender(): never {
  throw new UnfitValue('the template has problems')
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n', 1)[0] ?? ''
}

/** All ways through the branches, flat; undefined when there are too many. */
function expand(nodes: readonly Node[]): SourcePiece[][] | undefined {
  let paths: SourcePiece[][] = [[]]
  for (const node of nodes) {
    if (!('ways' in node)) {
      for (const path of paths) path.push(node)
      continue
    }
    const longer: SourcePiece[][] = []
    for (const way of node.ways) {
      const inner = expand(way)
      if (inner === undefined) return undefined
      for (const path of paths) for (const tail of inner) longer.push([...path, ...tail])
      if (longer.length > pathsMax) return undefined
    }
    paths = longer
  }
  return paths
}

/** Neighbouring texts become one, so that the scanner sees what the server will see. */
function joinText(path: readonly SourcePiece[]): SqlPiece[] {
  const joined: SqlPiece[] = []
  for (const piece of path) {
    const last = joined.at(-1)
    if ('text' in piece && last !== undefined && 'text' in last) last.text += piece.text
    else joined.push({ ...piece })
  }
  return joined
}

/** Reads holes and tags by their exact source, into a tree; collects what is not allowed. */
class Reader {
  readonly holes: Hole[] = []
  readonly uses = new Set<string>()
  readonly lists = new Set<string>()
  readonly words = new Set<string>()
  readonly problems = new Set<string>()
  readonly #dialect: SqlDialect | undefined

  constructor(context: TextContext) {
    this.#dialect = dialectOf(context)
  }

  read(text: string): Node[] {
    if (text.length > textCharactersMax) return this.#give(`longer than ${textCharactersMax} characters`)
    if (text.includes('\0') || !text.isWellFormed()) {
      return this.#give('holds a NUL character or broken Unicode')
    }
    let tokens
    try {
      tokens = new Tokenizer(text).readTopLevelTokens()
    } catch (error) {
      return this.#give(firstLine(error))
    }
    const nodes: Node[] = []
    // The list that is written to, and for each open tag its ways and the list around it.
    const open: OpenTag[] = []
    let list = nodes
    for (const token of tokens) {
      const source = token.input.slice(token.begin, token.end)
      if (token.kind === TokenKind.HTML) list.push({ text: source })
      else if (token.kind === TokenKind.Output) this.#hole(source, token.begin, token.end, list)
      else list = this.#tag(source, list, open)
    }
    if (open.length > 0) this.problems.add(`{% ${open.at(-1)?.tag} %} is not closed`)
    if (this.holes.length > holesMax) this.problems.add(`more than ${holesMax} holes`)
    return nodes
  }

  #give(problem: string): Node[] {
    this.problems.add(problem)
    return []
  }

  #hole(source: string, begin: number, end: number, list: Node[]): void {
    const form = holeForm.exec(source)
    const [, name, filter] = form ?? []
    if (name === undefined) {
      const filters = this.#dialect === undefined ? '' : '{{ name | ident }}, | literal, | identlist or '
      this.problems.add(`${shown(source)}: a hole is ${filters}{{ name }}`)
      return
    }
    if (this.#dialect === undefined && filter !== undefined) {
      this.problems.add(`${shown(source)}: no filter here, the plugin quotes`)
    }
    if (filter === 'binary' && this.#dialect?.binary === undefined) {
      this.problems.add(`${shown(source)}: there are no constants of bytes here`)
    }
    this.uses.add(name)
    if (filter === 'identlist') this.lists.add(name)
    else this.words.add(name)
    list.push({ hole: this.holes.length })
    this.holes.push({ name, filter, begin, end })
  }

  /** Opens, turns or closes a branch; answers the list that is written to from here on. */
  #tag(source: string, list: Node[], open: OpenTag[]): Node[] {
    const [, word, rest = ''] = tagForm.exec(source) ?? []
    const top = open.at(-1)
    const branch = top !== undefined && top.tag !== 'comment' && !top.otherwise
    if (word === 'if' || word === 'unless' || word === 'elsif') this.#condition(source, rest)
    else if (rest !== '') this.problems.add(`${shown(source)}: nothing may follow the word`)
    if (word === 'if' || word === 'unless' || word === 'comment') {
      const way: Node[] = []
      open.push({ tag: word, ways: [way], outer: list, otherwise: false })
      return way
    }
    if ((word === 'elsif' || word === 'else') && branch) {
      top.otherwise = word === 'else'
      const way: Node[] = []
      top.ways.push(way)
      return way
    }
    if (word !== undefined && top !== undefined && word === `end${top.tag}`) {
      open.pop()
      if (top.tag !== 'comment') top.outer.push({ ways: top.otherwise ? top.ways : [...top.ways, []] })
      return top.outer
    }
    const known = word !== undefined && word !== 'elsif' && word !== 'else'
    const what = known ? 'closes nothing' : 'only if, elsif, else, unless and comment are allowed'
    this.problems.add(`${shown(source)}: ${what}`)
    return list
  }

  #condition(source: string, condition: string): void {
    const [, name] = conditionForm.exec(condition) ?? []
    if (name === undefined) {
      this.problems.add(`${shown(source)}: a condition is NAME, NAME == 'word' or NAME != 'word'`)
    }
    else this.uses.add(name)
  }
}

/** A piece of the author's text for a problem: short, and on one line. */
function shown(source: string): string {
  const line = source.replaceAll(/\s+/g, ' ')
  return line.length > 60 ? `${line.slice(0, 57)}...` : line
}

/** One engine for all: it holds no state of a template. */
const engine = makeEngine()

function makeEngine(): Liquid {
  const made = new Liquid({
    strictVariables: true, strictFilters: true, ownPropertyOnly: true, lenientIf: true, templates: {},
    parseLimit: 4 * textCharactersMax, renderLimit: renderLimitMs,
    // Every hole carries one of the filters below, which are raw; anything else is a defect here.
    outputEscape: () => { throw new UnfitValue('a hole without a filter') }
  })
  for (const tag of Object.keys(made.tags)) {
    if (!['if', 'unless', 'comment'].includes(tag)) delete made.tags[tag]
  }
  for (const filter of Object.keys(made.filters)) delete made.filters[filter]
  const filters: Record<string, (value: unknown) => string> = {
    inert: value => inert(text(value)),
    count: value => count(text(value)),
    datum: value => datum(text(value)),
    segment: value => segment(text(value))
  }
  for (const [context, { identifier, literal, binary }] of Object.entries(dialects)) {
    filters[`${context}_ident`] = value => identifier(text(value))
    filters[`${context}_literal`] = value => literal(text(value))
    filters[`${context}_identlist`] = value => items(value).map(identifier).join(', ')
    if (binary !== undefined) filters[`${context}_binary`] = value => binary(text(value))
  }
  for (const [filter, handler] of Object.entries(filters)) {
    const act = (value: unknown, name: unknown): string => named(name, () => handler(value))
    made.registerFilter(filter, { raw: true, handler: act })
  }
  return made
}

function named(name: unknown, act: () => string): string {
  try {
    return act()
  } catch (error) {
    if (!(error instanceof UnfitValue)) throw error
    throw new UnfitValue(`variable ${String(name)} ${error.message}`)
  }
}

function text(value: unknown): string {
  if (typeof value !== 'string') throw new UnfitValue('is a list: print it with | identlist')
  return value
}

function items(value: unknown): readonly string[] {
  if (!Array.isArray(value)) throw new UnfitValue('is not a list')
  if (value.length > listItemsMax) throw new UnfitValue(`has more than ${listItemsMax} items`)
  return value.map(text)
}

function inert(value: string): string {
  if (value.length > inertCharactersMax || !inertForm.test(value) || inertNot.test(value)) {
    throw new UnfitValue('is not a plain word: print it with | ident or | literal, without quotes around')
  }
  return value
}

function count(value: string): string {
  if (!/^(?:0|[1-9][0-9]{0,14})$/.test(value)) {
    throw new UnfitValue('is not a whole number: print it with | ident or | literal')
  }
  return value
}

/** Percent-encoded, so that no value is a second segment, a query, or a way up. */
function segment(value: string): string {
  assertWellFormed(value)
  if (value === '') throw new UnfitValue('is empty: a path would lose a segment')
  if (value === '.' || value === '..') throw new UnfitValue('is a way up in a path')
  return encodeWord(value)
}

function datum(value: string): string {
  assertWellFormed(value)
  return value
}
