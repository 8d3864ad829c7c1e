// Templates: what an admin writes so that a plugin knows what to send, one YAML file for each action.
// `parseTemplate` accepts or lists every problem with its path; `renderStep` fills one step. The text is all
// there is: a session keeps the text that it opened with and its closing hook parses that again, whatever was
// edited or deleted meanwhile (J11, F35). Nothing here talks to a target, and nothing here knows a plugin's
// verbs: its lint does.
import { createHash } from 'node:crypto'
import { isAlias, isMap, isPair, isScalar, isSeq, parseAllDocuments, visit } from 'yaml'
import { SallyportError } from '../errors.ts'
import { Secret } from '../secret.ts'
import { compileText } from './holes.ts'
import type { CompiledText, PlainValue, TextContext } from './holes.ts'
import type { Action, Variables } from './plugin.ts'
import { compileScript } from './shell-text.ts'
import { UnfitValue } from './sql-text.ts'

export interface Template {
  /** `plugin/name`, e.g. `postgres/create-role`. */
  id: string
  /** The store's number of this text; 0 for a text that was not saved. */
  version: number
  plugin: string
  action: Action
  title: string
  /**
   * What proves that the account is off: it cannot log in, or (J12, privileges only) it is in none of the
   * roles of the variable `roles`. Says nothing for create and delete.
   */
  proof: 'login' | 'privileges'
  /**
   * What a session presents: the secret whose other half the template sends to the target, or a certificate
   * of our authority, which the target trusts: then it learns of no key. Says nothing for delete and disable.
   */
  injection: 'secret' | 'certificate'
  variables: Readonly<Record<string, VariableDeclaration>>
  steps: readonly Step[]
  /** Run when a creation is refused after something of it was committed; the deletion hook follows anyway. */
  undo: readonly Step[]
  /** Every variable that a hole or a condition names, in any branch. */
  uses: readonly string[]
  /** Those of them that some hole prints bare between SQL tokens: whole numbers only. */
  numbers: readonly string[]
  /** The YAML text, from which all of the above is read again. */
  text: string
  /** SHA-256 of the text, hex. */
  sha256: string
}

/** A variable that the credential must or may supply. The engine's own (`username` …) are not declared. */
export interface VariableDeclaration {
  description: string
  default?: string | number | readonly string[] | undefined
  required: boolean
  secret: boolean
  list: boolean
}

export interface Step {
  name: string
  /** One SQL statement … */
  sql?: string | undefined
  /** … or a script of the shell, which reads values as `"$JIT_NAME"` … */
  script?: string | undefined
  /** … or a verb that the plugin implements. */
  do?: string | undefined
  /** Options of the verb: text with holes. */
  with: Readonly<Record<string, string>>
  /** Error codes of the target that count as success, e.g. `42704`. */
  ignore: readonly string[]
  /** Run in every database that takes connections, after what came before is committed. */
  eachDatabase: boolean
}

export interface RenderedStep {
  sql?: string | undefined
  /** With the lines that set its variables before it. */
  script?: string | undefined
  do?: string | undefined
  with: Readonly<Record<string, string>>
}

/** A template is a page; the largest that ships has 3 KB. */
export const templateBytesMax = 65_536
export const stepsMax = 64
const variablesMax = 64

const actions: readonly string[] = ['create', 'delete', 'enable', 'disable']
const idForm = /^[a-z][a-z0-9-]{0,30}\/[a-z][a-z0-9-]{0,62}$/
const wordForm = /^[a-z][a-z0-9-]{0,62}$/
const variableForm = /^[a-z][a-z0-9_]{0,62}$/
const codeForm = /^[A-Z0-9]{1,12}$/

/**
 * Reads a template.
 * @throws SallyportError('invalid') with one problem for each mistake: `steps[0].sql: more than one statement
 * …`
 */
export function parseTemplate(text: string, version = 0): Template {
  const reader = new TemplateReader()
  const template = reader.read(text, version)
  if (template === undefined || reader.problems.length > 0) {
    throw new SallyportError('invalid', { detail: 'the template has problems', problems: reader.problems })
  }
  return template
}

/**
 * What is wrong with the values that a credential supplies to its two templates: unknown names, missing ones,
 * a list where none is expected. Empty when its hooks can run with them and with what the engine supplies.
 */
export function checkVariables(
  templates: readonly Template[], supplied: Readonly<Record<string, unknown>>
): readonly string[] {
  const problems = new Set<string>()
  for (const [name, value] of Object.entries(supplied)) {
    const users = templates.filter(template => Object.hasOwn(template.variables, name))
    if (users.length === 0) {
      problems.add(`${name}: no such variable in ${templates.map(({ id }) => id).join(' or ')}`)
    }
    for (const template of users) {
      for (const problem of valueProblems(value, template.variables[name]?.list === true)) {
        problems.add(`${name}: ${problem}`)
      }
      if (template.numbers.includes(name) && !isWholeNumber(value)) {
        problems.add(`${name}: must be a whole number`)
      }
    }
  }
  for (const template of templates) {
    for (const [name, { required }] of Object.entries(template.variables)) {
      if (required && supplied[name] === undefined) problems.add(`${name}: is required by ${template.id}`)
    }
  }
  return [...problems]
}

/** Names that a template uses and neither declares nor gets from the engine. */
export function unknownVariables(
  template: Template, engine: Readonly<Record<string, string>>
): readonly string[] {
  return template.uses.filter(
    name => !Object.hasOwn(template.variables, name) && !Object.hasOwn(engine, name)
  )
}

/**
 * Fills the holes of one step. Secrets are exposed here, or shown as `********` with `masked`.
 * @throws SallyportError('invalid') naming the variable that is missing or unfit, never its value
 */
export function renderStep(
  template: Template, step: Step, variables: Variables, { masked = false } = {}
): RenderedStep {
  const values = plainValues(template, variables, masked)
  try {
    const options = Object.entries(step.with).map(
      ([name, text]) => [name, compiled(text, 'data').render(values)] as const
    )
    return {
      sql: step.sql === undefined ? undefined : compiled(step.sql, 'sql').render(values),
      script: step.script === undefined
        ? undefined
        : compiled(step.script, 'shell').render({ ...absentOf(template), ...values }),
      do: step.do,
      with: Object.fromEntries(options)
    }
  } catch (error) {
    if (!(error instanceof UnfitValue)) throw error
    throw new SallyportError('invalid', { detail: `${template.id}, step "${step.name}": ${error.message}` })
  }
}

/** What a script reads of variables that nobody had to supply. */
function absentOf({ variables }: Template): Record<string, PlainValue> {
  const optional = Object.entries(variables).filter(([, { required }]) => !required)
  return Object.fromEntries(optional.map(([name]) => [name, '']))
}

/** The values as text, defaults filled in. */
function plainValues(
  template: Template, variables: Variables, masked: boolean
): Record<string, PlainValue | undefined> {
  const values: Record<string, PlainValue | undefined> = {}
  for (const name of template.uses) {
    const declared = Object.hasOwn(template.variables, name) ? template.variables[name] : undefined
    const value = (Object.hasOwn(variables, name) ? variables[name] : undefined) ?? declared?.default
    const hidden = masked && (value instanceof Secret || declared?.secret === true)
    if (value === undefined) continue
    values[name] = hidden ? '********' : value instanceof Secret ? value.expose() : value
  }
  return values
}

// Texts come back for every session; a few hundred compiled ones are kept, the oldest leaves first.
const compiledMax = 512
const compiledTexts = new Map<string, CompiledText>()

function compiled(text: string, context: TextContext | 'shell'): CompiledText {
  const key = `${context}:${text}`
  const known = compiledTexts.get(key)
  if (known !== undefined) return known
  const made = context === 'shell' ? compileScript(text) : compileText(text, context)
  if (compiledTexts.size >= compiledMax) {
    for (const oldest of compiledTexts.keys()) {
      compiledTexts.delete(oldest)
      break
    }
  }
  compiledTexts.set(key, made)
  return made
}

function valueProblems(value: unknown, list: boolean): string[] {
  if (list) {
    const strings = Array.isArray(value) && value.every(item => typeof item === 'string' && item !== '')
    return strings ? [] : ['must be a list of words']
  }
  if (typeof value === 'number') return Number.isSafeInteger(value) ? [] : ['must be a whole number']
  return typeof value === 'string' || value instanceof Secret ? [] : ['must be a text or a whole number']
}

function isWholeNumber(value: unknown): boolean {
  return /^(?:0|[1-9][0-9]{0,14})$/.test(String(value))
}

type Fields = ReadonlyMap<string, unknown>

/** Reads one document strictly; every mistake becomes a line with its path. */
class TemplateReader {
  readonly problems: string[] = []
  readonly #uses = new Set<string>()
  readonly #lists = new Set<string>()
  /** Outside of quotes in a script. */
  readonly #split = new Set<string>()
  readonly #words = new Set<string>()
  readonly #numbers = new Set<string>()

  read(text: string, version: number): Template | undefined {
    const fields = this.#document(text)
    if (fields === undefined) return undefined
    this.#known('', fields, [
      'id', 'plugin', 'action', 'title', 'proof', 'injection', 'variables', 'steps', 'undo'
    ])
    const id = this.#word(fields, 'id', idForm, 'plugin/name')
    const plugin = this.#word(fields, 'plugin', wordForm, 'a word')
    const action = this.#text(fields, 'action', '')
    if (!actions.includes(action)) this.#problem('action', `must be one of ${actions.join(', ')}`)
    if (plugin !== '' && id !== '' && !id.startsWith(`${plugin}/`)) {
      this.#problem('id', `must begin with ${plugin}/`)
    }
    const proof = this.#one(fields, 'proof', ['login', 'privileges'])
    const injection = this.#one(fields, 'injection', ['secret', 'certificate'])
    const variables = this.#variables(fields.get('variables'))
    const steps = this.#steps('steps', fields.get('steps'))
    const undo = fields.has('undo') ? this.#steps('undo', fields.get('undo')) : []
    for (const [name, { list, default: fallback }] of Object.entries(variables)) {
      if (this.#numbers.has(name) && fallback !== undefined && !isWholeNumber(fallback)) {
        this.#problem(`variables.${name}.default`, 'a bare hole prints it: must be a whole number')
      }
      if (!list && this.#lists.has(name)) {
        this.#problem(`variables.${name}`, 'identlist prints it: set list: true')
      }
      if (list && this.#words.has(name)) {
        this.#problem(`variables.${name}`, 'is a list: print it with | identlist')
      }
    }
    for (const name of this.#split) {
      if (variables[name]?.list === true) continue
      const written = `$JIT_${name.toUpperCase()}`
      this.#problem('steps', `${written} outside of quotes is split into words: write "${written}"`)
    }
    return {
      id, version, plugin, action: action as Action, title: this.#text(fields, 'title', ''),
      proof, injection, variables, steps, undo, uses: [...this.#uses], numbers: [...this.#numbers],
      text, sha256: createHash('sha256').update(text).digest('hex')
    }
  }

  #problem(path: string, problem: string): void {
    this.problems.push(path === '' ? problem : `${path}: ${problem}`)
  }

  /** One mapping in YAML 1.2, without anchors, aliases, tags or repeated keys. */
  #document(text: string): Fields | undefined {
    if (Buffer.byteLength(text) > templateBytesMax) {
      this.#problem('', `longer than ${templateBytesMax} bytes`)
      return undefined
    }
    try {
      const documents = parseAllDocuments(
        text, { version: '1.2', schema: 'core', strict: true, uniqueKeys: true, logLevel: 'silent' }
      )
      const document = Array.isArray(documents) ? documents[0] : undefined
      if (document === undefined || documents.length !== 1) this.#problem('', 'must be one YAML document')
      for (const error of [...document?.errors ?? [], ...document?.warnings ?? []]) {
        this.#problem('', error.message.split('\n', 1)[0] ?? 'not YAML')
      }
      if (document === undefined || this.problems.length > 0) return undefined
      visit(document, (_key, node) => {
        const marked = isMap(node) || isSeq(node) || isScalar(node)
        if (isAlias(node) || (marked && node.anchor !== undefined)) {
          this.#problem('', 'anchors and aliases are not allowed')
        }
        if (marked && node.tag !== undefined) this.#problem('', `the tag ${node.tag} is not allowed`)
        if (isPair(node) && !(isScalar(node.key) && typeof node.key.value === 'string')) {
          this.#problem('', 'every key must be a word')
        }
      })
      if (this.problems.length > 0) return undefined
      return this.#map('', document.toJS({ mapAsMap: true, maxAliasCount: 0 }))
    } catch (error) {
      // Deep nesting ends in a RangeError; whatever it is, it is not a template.
      this.#problem('', `cannot be read as YAML: ${error instanceof Error ? error.message : String(error)}`)
      return undefined
    }
  }

  #map(path: string, value: unknown): Fields | undefined {
    if (value instanceof Map) return value as Fields
    this.#problem(path, 'must be a mapping')
    return undefined
  }

  #known(path: string, fields: Fields, names: readonly string[]): void {
    for (const name of fields.keys()) {
      if (!names.includes(name)) this.#problem(path === '' ? name : `${path}.${name}`, 'unknown key')
    }
  }

  #text(fields: Fields, name: string, path: string): string {
    const value = fields.get(name)
    if (typeof value === 'string' && value.trim() !== '') return value
    this.#problem(path === '' ? name : `${path}.${name}`, 'must be a text')
    return ''
  }

  #word(fields: Fields, name: string, form: RegExp, kind: string): string {
    const value = fields.get(name)
    if (typeof value === 'string' && form.test(value)) return value
    this.#problem(name, `must be ${kind} in lower case`)
    return ''
  }

  /** One of some words; the first when there is none. */
  #one<Word extends string>(fields: Fields, name: string, words: readonly [Word, ...Word[]]): Word {
    const value = fields.get(name) ?? words[0]
    const found = words.find(word => word === value)
    if (found === undefined) this.#problem(name, `must be ${words.join(' or ')}`)
    return found ?? words[0]
  }

  #flag(path: string, fields: Fields, name: string): boolean | undefined {
    const value = fields.get(name)
    if (value === undefined || typeof value === 'boolean') return value
    this.#problem(`${path}.${name}`, 'must be true or false')
    return undefined
  }

  #variables(value: unknown): Record<string, VariableDeclaration> {
    const declared = Object.create(null) as Record<string, VariableDeclaration>
    const fields = value === undefined ? undefined : this.#map('variables', value)
    if ((fields?.size ?? 0) > variablesMax) this.#problem('variables', `more than ${variablesMax}`)
    for (const [name, entry] of fields ?? []) {
      const path = `variables.${name}`
      if (!variableForm.test(name)) this.#problem(path, 'a name is lower case letters, digits and _')
      const inner = this.#map(path, entry)
      if (inner === undefined) continue
      this.#known(path, inner, ['description', 'default', 'required', 'secret', 'list'])
      const list = this.#flag(path, inner, 'list') ?? false
      const fallback = inner.get('default')
      if (fallback !== undefined) {
        for (const problem of valueProblems(fallback, list)) this.#problem(`${path}.default`, problem)
      }
      const secret = this.#flag(path, inner, 'secret') ?? false
      if (secret && fallback !== undefined) this.#problem(`${path}.default`, 'a secret has no default')
      declared[name] = {
        description: this.#text(inner, 'description', path),
        default: fallback as VariableDeclaration['default'],
        required: this.#flag(path, inner, 'required') ?? fallback === undefined, secret, list
      }
    }
    return declared
  }

  #steps(path: string, value: unknown): Step[] {
    if (!Array.isArray(value) || value.length === 0 || value.length > stepsMax) {
      this.#problem(path, `must be a list of 1 to ${stepsMax} steps`)
      return []
    }
    return value.map((entry: unknown, index) => this.#step(`${path}[${index}]`, entry)).filter(
      step => step !== undefined
    )
  }

  #step(path: string, value: unknown): Step | undefined {
    const fields = this.#map(path, value)
    if (fields === undefined) return undefined
    this.#known(path, fields, ['name', 'sql', 'script', 'do', 'with', 'ignore', 'eachDatabase'])
    const verb = fields.get('do')
    const sql = fields.get('sql')
    const script = fields.get('script')
    if ([sql, script, verb].filter(one => one !== undefined).length !== 1) {
      this.#problem(path, 'must have one of sql, script and do')
    }
    if (verb !== undefined && !(typeof verb === 'string' && wordForm.test(verb))) {
      this.#problem(`${path}.do`, 'must be a word')
    }
    if (sql !== undefined) this.#compile(`${path}.sql`, sql, 'sql')
    if (script !== undefined) this.#compile(`${path}.script`, script, 'shell')
    const options: Record<string, string> = {}
    const given = fields.has('with') ? this.#map(`${path}.with`, fields.get('with')) : undefined
    for (const [name, text] of given ?? []) {
      if (!wordForm.test(name)) this.#problem(`${path}.with.${name}`, 'must be a word')
      this.#compile(`${path}.with.${name}`, text, 'data')
      options[name] = String(text)
    }
    const eachDatabase = this.#flag(path, fields, 'eachDatabase') ?? false
    if (sql === undefined && eachDatabase) this.#problem(`${path}.eachDatabase`, 'is for sql steps')
    if (verb === undefined && fields.has('with')) this.#problem(`${path}.with`, 'is for do steps')
    return {
      name: fields.has('name')
        ? this.#text(fields, 'name', path)
        : String(verb ?? (sql === undefined ? 'script' : 'sql')),
      sql: sql === undefined ? undefined : String(sql),
      script: script === undefined ? undefined : String(script),
      do: verb === undefined ? undefined : String(verb),
      with: options, ignore: this.#codes(`${path}.ignore`, fields.get('ignore')), eachDatabase
    }
  }

  #codes(path: string, value: unknown): string[] {
    if (value === undefined) return []
    const isCode = (code: unknown): boolean => typeof code === 'string' && codeForm.test(code)
    if (Array.isArray(value) && value.every(isCode)) return value as string[]
    this.#problem(path, 'must be a list of error codes in quotes')
    return []
  }

  #compile(path: string, text: unknown, context: TextContext | 'shell'): void {
    if (typeof text !== 'string' || text.trim() === '') {
      this.#problem(path, 'must be a text')
      return
    }
    const made = context === 'shell' ? compileScript(text) : compileText(text, context)
    for (const problem of made.problems) this.#problem(path, problem)
    for (const name of made.uses) this.#uses.add(name)
    for (const name of made.lists) (context === 'shell' ? this.#split : this.#lists).add(name)
    for (const name of made.words) this.#words.add(name)
    for (const name of made.numbers) this.#numbers.add(name)
  }
}
