// Shell text of templates. A script holds no holes: values arrive as variables, `"$JIT_USERNAME"`, which a
// generated preamble sets from single-quoted text, so that no value is ever read as shell. What a scan of the
// script can find is found at save time: a value outside of double quotes (it would be split into words), in
// single quotes (it would not be filled in), and constructs that this scan cannot follow. The whole script is
// one compound command without input: a shell that got half of it runs nothing, and no command of it eats the
// rest.
import type { CompiledText, PlainValue } from './holes.ts'
import { UnfitValue, assertWellFormed } from './sql-text.ts'

export interface ScriptScan {
  /** Variables of the template: `JIT_PUBLIC_KEY` is `public_key`. */
  uses: ReadonlySet<string>
  /** Those that stand outside of double quotes somewhere: lists only, since their items are plain words. */
  split: ReadonlySet<string>
  problems: readonly string[]
}

type Place = 'plain' | 'double' | 'command' | 'parameter'

export const scriptCharactersMax = 65_536
const valueCharactersMax = 65_536
const listItemsMax = 100
const nestingMax = 32

const variableForm = /^JIT_([A-Z][A-Z0-9_]{0,62})$/
/** An item of a list: nothing in it that a shell splits, expands or takes for an option. */
const itemForm = /^[A-Za-z0-9_./@:+][A-Za-z0-9_./@:+-]{0,127}$/

/** A word that the shell reads as exactly this value. @throws UnfitValue for NUL and broken Unicode */
export function quoteShell(value: string): string {
  assertWellFormed(value)
  if (value.length > valueCharactersMax) throw new UnfitValue('is too long')
  return `'${value.replaceAll("'", "'\\''")}'`
}

/** `JIT_NAME='value'`, one line for each, and none of them can be set again. */
export function shellVariables(values: Readonly<Record<string, PlainValue>>): string {
  return Object.entries(values).map(([name, value]) => {
    try {
      return `readonly JIT_${name.toUpperCase()}=${quoteShell(plain(value))}\n`
    } catch (error) {
      if (!(error instanceof UnfitValue)) throw error
      throw new UnfitValue(`variable ${name} ${error.message}`)
    }
  }).join('')
}

function plain(value: PlainValue): string {
  if (typeof value === 'string' || typeof value === 'number') return String(value)
  if (value.length > listItemsMax) throw new UnfitValue(`has more than ${listItemsMax} items`)
  if (!value.every(item => itemForm.test(item))) {
    throw new UnfitValue('has an item that is not a plain word (letters, digits, _ . / @ : + -)')
  }
  return value.join(' ')
}

/** Checks a script and prepares it; problems are sentences without a path. */
export function compileScript(text: string): CompiledText {
  const { uses, split, problems } = scanScript(text)
  return {
    uses, lists: split, words: new Set(), numbers: new Set(), problems,
    render(values) {
      if (problems.length > 0) throw new UnfitValue('the template has problems')
      const known: Record<string, PlainValue> = {}
      for (const name of uses) {
        const value = values[name]
        if (value === undefined) throw new UnfitValue(`variable ${name} is missing`)
        known[name] = value
      }
      return `{ exec < /dev/null\n${shellVariables(known)}${text.trimEnd()}\n}\n`
    }
  }
}

/** Looks at a script without running it. */
export function scanScript(text: string): ScriptScan {
  const scanner = new Scanner(text)
  scanner.scan()
  return scanner
}

class Scanner implements ScriptScan {
  readonly uses = new Set<string>()
  readonly split = new Set<string>()
  readonly #problems = new Set<string>()
  readonly #text: string
  #at = 0
  /** Innermost last; parentheses that only group are no place of their own. */
  readonly #places: { place: Place, open: number }[] = [{ place: 'plain', open: 0 }]

  constructor(text: string) {
    this.#text = text
  }

  get problems(): readonly string[] {
    return [...this.#problems]
  }

  scan(): void {
    const text = this.#text
    if (text.length > scriptCharactersMax) this.#problem(`longer than ${scriptCharactersMax} characters`)
    else if (text.includes('\0') || !text.isWellFormed()) {
      this.#problem('holds a NUL character or broken Unicode')
    } else if (/\{\{|\{%/.test(text)) {
      this.#problem('no {{ }} and no {% %} in shell text: a value is "$JIT_NAME"')
    } else {
      while (this.#at < text.length) this.#step()
      if (this.#places.length > 1) this.#problem('a quote or a parenthesis is not closed')
    }
  }

  #problem(problem: string): void {
    this.#problems.add(problem)
  }

  #step(): void {
    const { place } = this.#places.at(-1)!
    const rest = this.#text.slice(this.#at, this.#at + 2)
    const [character = ''] = rest
    const unquoted = place === 'plain' || place === 'command'
    if (character === '\\') this.#at += 2
    else if (rest === "$'") this.#refuse("$'…' is not for every sh: use printf", 2)
    else if (character === '`') this.#refuse('no backquotes: use $(…)', 1)
    else if (character === '$') this.#dollar(rest)
    else if (character === '"') this.#quote(place)
    else if (character === "'" && place !== 'double') this.#single()
    else if (unquoted && rest === '<<') this.#refuse('no here-documents: use printf', 2)
    else if (unquoted && character === '#' && this.#beginsWord()) this.#skipTo('\n')
    else if (place === 'parameter' && character === '}') this.#leave()
    else if (place === 'command' && character === '(') this.#parenthesis(1)
    else if (place === 'command' && character === ')') this.#parenthesis(-1)
    else if (/[A-Za-z_]/.test(character)) this.#word(place)
    else this.#at++
  }

  #refuse(problem: string, length: number): void {
    this.#problem(problem)
    this.#at += length
  }

  #enter(place: Place, length: number): void {
    if (this.#places.length > nestingMax) this.#problem('nested too deep')
    this.#places.push({ place, open: 0 })
    this.#at += length
  }

  #leave(): void {
    this.#places.pop()
    this.#at++
  }

  #quote(place: Place): void {
    if (place === 'double') this.#leave()
    else this.#enter('double', 1)
  }

  /** Parentheses within `$(…)`: the one too many closes it. */
  #parenthesis(change: number): void {
    const top = this.#places.at(-1)!
    if (change < 0 && top.open === 0) return this.#leave()
    top.open += change
    this.#at++
  }

  #single(): void {
    const end = this.#text.indexOf("'", this.#at + 1)
    const inner = this.#text.slice(this.#at + 1, end === -1 ? undefined : end)
    if (end === -1) this.#problem('a quote is not closed')
    if (/\bJIT_/.test(inner)) this.#problem('a JIT_ variable in single quotes is not filled in')
    this.#at = end === -1 ? this.#text.length : end + 1
  }

  #skipTo(character: string): void {
    const end = this.#text.indexOf(character, this.#at)
    this.#at = end === -1 ? this.#text.length : end
  }

  #beginsWord(): boolean {
    return this.#at === 0 || /[\s;&|()]/.test(this.#text[this.#at - 1] ?? '')
  }

  #dollar(rest: string): void {
    const braced = rest === '${'
    const [name = ''] = /^[A-Za-z_][A-Za-z0-9_]*/.exec(this.#text.slice(this.#at + (braced ? 2 : 1))) ?? []
    if (name.startsWith('JIT_')) this.#use(name)
    if (rest === '$(') this.#enter('command', 2)
    else if (braced) this.#enter('parameter', 2 + name.length)
    else this.#at += 1 + Math.max(name.length, /^\$[$#?!@*-]/.test(rest) ? 1 : 0)
  }

  #use(name: string): void {
    const [, variable] = variableForm.exec(name) ?? []
    if (variable === undefined) return this.#problem(`${name}: a variable is written JIT_NAME, in capitals`)
    this.uses.add(variable.toLowerCase())
    // The place that splits is the nearest one that is no ${…}; in quotes nothing is split.
    const around = this.#places.findLast(({ place }) => place !== 'parameter')
    if (around?.place !== 'double') this.split.add(variable.toLowerCase())
  }

  #word(place: Place): void {
    const [word = ''] = /^[A-Za-z0-9_]+/.exec(this.#text.slice(this.#at)) ?? []
    this.#at += word.length
    if (word.startsWith('JIT_') && place !== 'double') {
      this.#problem(`${word} is only read, as "$${word}"`)
    }
    if (word === 'case' && place === 'command') {
      this.#problem('no `case` within $(…): its parentheses cannot be counted')
    }
  }
}
