// Templates: what an admin writes so that a plugin knows what to send, one YAML file for each action.
// `parseTemplate` accepts or lists every problem with its path; `renderStep` fills one step. The text is all
// there is: a session keeps the text that it opened with and its closing hook parses that again, whatever was
// edited or deleted meanwhile (J11, F35). Nothing here talks to a target, and nothing here knows a plugin's
// verbs: its lint does.
import { createHash } from 'node:crypto'
import { SallyportError } from '../errors.ts'
import { Secret } from '../secret.ts'
import { compiled, isWholeNumber, valueProblems } from './compiled.ts'
import type { PlainValue, TextContext } from './holes.ts'
import { fillHttp, fillLook, httpFields, isList, lookFields, readHttp, readLook } from './http-text.ts'
import type { HttpStep, Look, ReadTools } from './http-text.ts'
import type { Action, Variables } from './plugin.ts'
import { sqlOfPlugin } from './sql-dialect.ts'
import { UnfitValue } from './sql-text.ts'
import { readStrictYaml } from './strict-yaml.ts'

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
  /** How this account is seen, for plugins that cannot know: read only, whatever the action. */
  look: readonly Step[]
  /** Values of a creation that leave with the lease, since only the service knew them. */
  made: readonly string[]
  /** Variables that steps supply to those after them. */
  given: readonly string[]
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
  /** … or a request over HTTP … */
  http?: HttpStep | undefined
  /** … or a verb that the plugin implements. */
  do?: string | undefined
  /** Options of the verb: text with holes. */
  with: Readonly<Record<string, string>>
  /** Error codes of the target that count as success, e.g. `42704`. */
  ignore: readonly string[]
  /** Run in every database that takes connections, after what came before is committed. */
  eachDatabase: boolean
  /** Of a look: what its answer says. */
  look?: Look | undefined
}

export interface RenderedStep {
  http?: HttpStep | undefined
  look?: Look | undefined
  sql?: string | undefined
  /** With the lines that set its variables before it. */
  script?: string | undefined
  do?: string | undefined
  with: Readonly<Record<string, string>>
}

export const stepsMax = 64
const variablesMax = 64

const actions: readonly string[] = ['create', 'delete', 'enable', 'disable']
const idForm = /^[a-z][a-z0-9-]{0,30}\/[a-z][a-z0-9-]{0,62}$/
const wordForm = /^[a-z][a-z0-9-]{0,62}$/
const variableForm = /^[a-z][a-z0-9_]{0,62}$/
const codeForm = /^[A-Z0-9]{1,12}$/
const wordCodeForm = /^[A-Za-z0-9_.]{1,64}$/

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
      && !template.given.includes(name)
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
  const fill = (text: string, context: TextContext): string => compiled(text, context).render(values)
  try {
    const options = Object.entries(step.with).map(
      ([name, text]) => [name, compiled(text, 'data').render(values)] as const
    )
    return {
      sql: step.sql === undefined
        ? undefined
        : compiled(step.sql, sqlOfPlugin(template.plugin)).render(values),
      script: step.script === undefined
        ? undefined
        : compiled(step.script, 'shell').render({ ...absentOf(template), ...values }),
      http: step.http === undefined ? undefined : fillHttp(step.http, fill),
      look: step.look === undefined ? undefined : fillLook(step.look, fill),
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
  /** By steps, to later ones; true for lists. */
  readonly #given = new Map<string, boolean>()
  /** Known as soon as the plugin is. */
  #sqlContext = sqlOfPlugin('')
  readonly #tools: ReadTools = {
    problem: (path, problem) => this.#problem(path, problem),
    compile: (path, text, context) => this.#compile(path, text, context)
  }

  read(text: string, version: number): Template | undefined {
    const value = readStrictYaml(text, problem => this.#problem('', problem))
    const fields = this.problems.length > 0 ? undefined : this.#map('', value)
    if (fields === undefined) return undefined
    this.#known('', fields, [
      'id', 'plugin', 'action', 'title', 'proof', 'injection', 'variables', 'steps', 'undo', 'look', 'made'
    ])
    const id = this.#word(fields, 'id', idForm, 'plugin/name')
    const plugin = this.#word(fields, 'plugin', wordForm, 'a word')
    this.#sqlContext = sqlOfPlugin(plugin)
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
    const look = fields.has('look') ? this.#steps('look', fields.get('look'), true) : []
    const made = this.#made(fields.get('made'), action, variables)
    for (const [path, step] of [...steps, ...undo].map((one, index) => [`steps[${index}]`, one] as const)) {
      const each = step.http?.each
      if (each === undefined || this.#given.get(each) === true || variables[each]?.list === true) continue
      this.#problem(`${path}.each`, 'must name a list: of a step before, or a variable with list: true')
    }
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
      proof, injection, variables, steps, undo, look, made, given: [...this.#given.keys()],
      uses: [...this.#uses], numbers: [...this.#numbers],
      text, sha256: createHash('sha256').update(text).digest('hex')
    }
  }

  #problem(path: string, problem: string): void {
    this.problems.push(path === '' ? problem : `${path}: ${problem}`)
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

  /** Names of what leaves with the lease. */
  #made(value: unknown, action: string, variables: Readonly<Record<string, unknown>>): string[] {
    if (value === undefined) return []
    const known = (name: unknown): boolean => typeof name === 'string'
      && (this.#given.get(name) === false || Object.hasOwn(variables, name))
    if (!Array.isArray(value) || !value.every(known)) {
      this.#problem('made', 'must be a list of outputs of the steps that are no lists')
      return []
    }
    if (action !== 'create') this.#problem('made', 'is for create: nothing else hands out a new secret')
    return value as string[]
  }

  #steps(path: string, value: unknown, look = false): Step[] {
    if (!Array.isArray(value) || value.length === 0 || value.length > stepsMax) {
      this.#problem(path, `must be a list of 1 to ${stepsMax} steps`)
      return []
    }
    return value.map((entry: unknown, index) => this.#step(`${path}[${index}]`, entry, look)).filter(
      step => step !== undefined
    )
  }

  #step(path: string, value: unknown, look: boolean): Step | undefined {
    const fields = this.#map(path, value)
    if (fields === undefined) return undefined
    const requests = fields.has('http') ? httpFields : []
    this.#known(path, fields, [
      'name', 'sql', 'script', 'do', 'with', 'ignore', 'eachDatabase', 'http', ...requests,
      ...look ? lookFields : []
    ])
    const verb = fields.get('do')
    const sql = fields.get('sql')
    const script = fields.get('script')
    const ways = [sql, script, verb, fields.get('http'), look ? fields.get('until') : undefined]
    if (ways.filter(one => one !== undefined).length !== 1) {
      const ask = look ? 'http, script and until' : 'sql, script, http and do'
      this.#problem(path, `must have one of ${ask}`)
    }
    if (look && (sql ?? verb) !== undefined) this.#problem(path, 'a look only reads: http, script or until')
    const http = fields.has('http') ? this.#http(path, fields) : undefined
    if (verb !== undefined && !(typeof verb === 'string' && wordForm.test(verb))) {
      this.#problem(`${path}.do`, 'must be a word')
    }
    if (sql !== undefined) this.#compile(`${path}.sql`, sql, this.#sqlContext)
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
        : String(verb ?? (http === undefined ? (sql === undefined ? 'script' : 'sql') : http.method)),
      sql: sql === undefined ? undefined : String(sql),
      script: script === undefined ? undefined : String(script),
      do: verb === undefined ? undefined : String(verb),
      with: options, ignore: this.#codes(`${path}.ignore`, fields.get('ignore'), http !== undefined),
      eachDatabase, http, look: look ? readLook(path, fields, this.#tools) : undefined
    }
  }

  #http(path: string, fields: Fields): HttpStep {
    const step = readHttp(path, fields, this.#tools)
    if (step.each !== undefined) this.#given.set('item', false)
    for (const [name, trail] of Object.entries(step.output)) this.#given.set(name, isList(trail))
    return step
  }

  #codes(path: string, value: unknown, http: boolean): string[] {
    if (value === undefined) return []
    const isCode = (code: unknown): boolean => typeof code === 'string'
      && (http ? wordCodeForm : codeForm).test(code)
    if (Array.isArray(value) && value.every(isCode)) return value as string[]
    this.#problem(path, 'must be a list of error codes in quotes')
    return []
  }

  #compile(path: string, text: unknown, context: TextContext | 'shell'): void {
    if (typeof text !== 'string' || text.trim() === '') {
      this.#problem(path, 'must be a text')
      return
    }
    const made = compiled(text, context)
    for (const problem of made.problems) this.#problem(path, problem)
    for (const name of made.uses) this.#uses.add(name)
    for (const name of made.lists) (context === 'shell' ? this.#split : this.#lists).add(name)
    for (const name of made.words) this.#words.add(name)
    for (const name of made.numbers) this.#numbers.add(name)
  }
}
