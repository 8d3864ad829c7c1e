// The rules of the house, as a test: which room may import which (ARCHITECTURE.md has the table in words),
// how files are written, and what may come from npm. Without it a front end that decides, or a clock that
// makes a lease live for ever, is found by a reader or not at all. The rules are in tool/house.ts; here are
// the table, the run over the whole tree, and each rule tried on planted breaches: a rule that finds nothing
// is not believed.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join, posix, relative, resolve } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Breach, House, Lock, Manifest, Parsed, Room, Source } from '../tool/house.ts'
import {
  circleRules, declaredRules, importRules, layoutRules, packageRules, parse, placeRules, syntaxRules,
  testRules, tokenRules
} from '../tool/house.ts'

const network = ['net', 'tls', 'http', 'https', 'http2', 'dgram', 'dns']
const everything: Room = { rooms: ['*'], packages: ['*'] }

const house: House = {
  errors: {},
  secret: {},
  clock: {},
  input: { packages: ['zod'] },
  'listener-tls': {},
  config: { rooms: ['errors', 'secret', 'input', 'config-operations'], packages: ['zod', 'yaml'] },
  'config-operations': { rooms: ['input'], packages: ['zod'] },
  metrics: {},
  log: { rooms: ['errors', 'secret'], types: ['config'], packages: ['pino'] },
  main: everything,
  wire: {},
  policy: { rooms: ['errors', 'clock', 'secret'], types: ['jit'], packages: ['re2js'], closed: network },
  // What nodes ask each other. A ticket is one of policy's challenges.
  nodes: {
    rooms: ['errors', 'clock', 'input', 'policy/challenge.ts', 'recording/export.ts'], types: ['recording'],
    packages: ['zod']
  },
  // Who may have a secret is policy's to say, what is made for it the ledger's.
  secrets: { rooms: ['errors', 'clock', 'secret', 'policy'], types: ['lease', 'jit'], closed: network },
  lease: { rooms: ['errors', 'clock', 'secret'], types: ['jit'], closed: network },
  jit: { rooms: ['errors', 'clock', 'secret'], packages: ['liquidjs', 'yaml'] },
  // The words for an upstream (src/session/front.ts) carry the types of the plugin contract.
  // Audit events on their way out of the house.
  delivery: { rooms: ['errors', 'clock', 'secret'] },
  session: {
    rooms: ['errors'], types: ['policy', 'lease', 'recording', 'jit', 'clock', 'secret'], closed: network
  },
  recording: { rooms: ['errors', 'clock', 'wire'] },
  // A relay hands frames to the recording that it was given: the kinds of frames are values.
  proxy: {
    rooms: ['wire', 'session', 'errors', 'clock', 'listener-tls', 'recording/recording.ts'],
    types: ['jit/plugin.ts', 'secret'],
    packages: ['ssh2', 'ws']
  },
  // The ledger's words and its arithmetic are pure; the store's part of a move says them in SQL.
  store: {
    rooms: ['errors', 'clock', 'secret', 'lease/renew.ts', 'lease/states.ts'],
    types: ['policy', 'lease', 'session', 'recording', 'nodes'],
    packages: ['drizzle-orm', 'postgres', '@electric-sql/pglite', 'ioredis']
  },
  api: {
    rooms: [
      'secrets', 'session', 'lease', 'policy', 'jit', 'recording', 'nodes', 'errors', 'clock', 'secret',
      'input', 'listener-tls'
    ],
    packages: ['hono', '@hono/node-server', 'zod', 'yaml']
  },
  // Evidence is verified offline, with the public key alone: recordings, audit exports, receipts. `serve` is
  // the one command that is the program itself, and `doctor` must read the configuration that does not start.
  cli: {
    rooms: [
      'recording', 'errors', 'clock', 'config', 'main.ts', 'store/audit-chain.ts', 'store/audit-verify.ts',
      'lease/receipt.ts', 'api/calling.ts'
    ],
    types: ['api'], packages: ['yaml']
  },
  // Runs in browsers. What text of strangers looks like is said once, by the recordings' filter; how an
  // address is made, by the API.
  console: {
    rooms: ['recording/inert.ts', 'api/calling.ts'], types: ['api'], closed: ['*'],
    packages: ['preact', 'htm', '@xterm/xterm', '@xterm/addon-fit', 'asciinema-player']
  },
  // What a plugin is made of: the contract, templates and their quoting, errors, secrets.
  plugins: {
    rooms: [
      'wire', 'errors', 'secret', 'jit/plugin.ts', 'jit/template.ts', 'jit/http-text.ts', 'jit/percent.ts',
      'jit/sql-text.ts', 'jit/sql-dialect.ts', 'jit/grant-text.ts', 'jit/shell-text.ts',
      'jit/typed-password.ts'
    ],
    packages: ['mysql2', 'ioredis', 'ldapts', 'ssh2', 'tedious', 'oracledb']
  },
  test: everything,
  tool: everything
}

const root = resolve(import.meta.dirname, '..')

function read(path: string): Source {
  return { path, text: readFileSync(join(root, path), 'utf8') }
}

function filesUnder(folder: string, pattern: RegExp): Source[] {
  if (!existsSync(join(root, folder))) return []
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile() && pattern.test(entry.name))
    .map(entry => relative(root, join(entry.parentPath, entry.name)).replaceAll('\\', '/'))
    .sort()
    .map(read)
}

const files = [
  ...['src', 'plugins', 'test', 'tool'].flatMap(folder => filesUnder(folder, /\.ts$/)),
  read('drizzle.config.ts')
].map(parse)
const texts = [
  ...files,
  ...['templates', 'migrations', 'bin', '.ci'].flatMap(folder => filesUnder(folder, /./)),
  // In a second work tree `.git` is a file of git's.
  ...readdirSync(root, { withFileTypes: true }).filter(entry => entry.isFile() && entry.name !== '.git')
    .map(entry => read(entry.name))
]
const manifest = JSON.parse(read('package.json').text) as Manifest
const lock = JSON.parse(read('package-lock.json').text) as Lock

function expectNone(breaches: readonly Breach[]): void {
  if (breaches.length === 0) return
  const error = new Error(`\n${breaches.join('\n')}`)
  // Each breach names its place; uvu would print the message once more as part of the stack.
  error.stack = error.name
  throw error
}

/** `expected` is the start of the one breach that the text holds; undefined when it holds none. */
function expectBreach(
  rule: (file: Parsed) => readonly Breach[], path: string, text: string, expected: string | undefined
): void {
  const found = rule(parse({ path, text }))
  assert.is(found.length, expected === undefined ? 0 : 1, `${path}: ${text}\n${found.join('\n')}`)
  if (expected === undefined) return
  assert.ok(found[0]!.startsWith(`${path}:${expected}`), `${found[0]} is not ${expected}`)
}

test('a room imports only what the table allows', () => {
  assert.ok(files.length > 10, 'there is something to look at')
  expectNone(files.flatMap(file => importRules(house, file)))
})

test('there is no circle of imports', () => {
  expectNone(circleRules(files))
})

test('files keep the house style', () => {
  expectNone(files.flatMap(file => [...layoutRules(file), ...tokenRules(file), ...syntaxRules(file)]))
})

test('no file names a place of one machine', () => {
  expectNone(texts.flatMap(placeRules))
})

test('test files run what they declare, and every test asserts something', () => {
  expectNone(files.flatMap(testRules))
})

test('packages are declared, exact, permissive and locked by hash (R30)', () => {
  expectNone(packageRules(manifest, lock))
  const groups = [manifest.dependencies, manifest.devDependencies, manifest.optionalDependencies]
  const declared = new Set(groups.flatMap(group => Object.keys(group ?? {})))
  expectNone(files.flatMap(file => declaredRules(declared, file)))
})

test('the import rule finds a room that reaches too far', () => {
  const cases: [path: string, text: string, expected: string | undefined][] = [
    ['src/wire/b/a.ts', "import { run } from '../../session/session.ts'", '1 wire may not import src/se'],
    ['src/wire/a.ts', "import type { Clock } from '../clock.ts'", '1 wire may not import src/clock.ts'],
    ['src/wire/a.ts', "import { b } from './b.ts'\nimport net from 'node:net'", undefined],
    ['src/policy/a.ts', "\nimport net from 'node:net'", '2 policy may not import node:net'],
    ['src/policy/a.ts', "import { SallyportError } from '../errors.ts'", undefined],
    ['src/lease/a.ts', "import type { Plugin } from '../jit/plugin.ts'", undefined],
    ['src/lease/a.ts', "import { plugin } from '../jit/plugin.ts'", '1 lease may import only types'],
    ['src/lease/a.ts', "import { type Plugin } from '../jit/plugin.ts'", '1 lease may import only types'],
    ['src/session/a.ts', "export { b } from '../store/b.ts'", '1 session may not import src/store/b.ts'],
    ['src/session/a.ts', "type B = import('../store/b.ts').B", '1 session may not import src/store/b.ts'],
    ['src/session/a.ts', "const b = await import('../store/b.ts')", '1 session may not import src/store/'],
    ['src/proxy/b/a.ts', "import { b } from '../../policy/b.ts'", '1 proxy may not import src/policy/b.ts'],
    ['src/proxy/a.ts', "import { frameKind } from '../recording/recording.ts'", undefined],
    ['src/proxy/a.ts', "import { open } from '../recording/writer.ts'", '1 proxy may not import src/rec'],
    ['src/store/a.ts', "import { b } from '../jit/b.ts'", '1 store may not import src/jit/b.ts'],
    ['src/api/a.ts', "import { b } from '../proxy/b.ts'", '1 api may not import src/proxy/b.ts'],
    ['src/cli/a.ts', "import { b } from '../api/b.ts'", '1 cli may import only types of src/api/b.ts'],
    ['src/console/a.ts', "import { join } from 'node:path'", '1 console may not import node:path'],
    ['src/console/a.ts', "import { inert } from '../recording/inert.ts'", undefined],
    ['src/api/a.ts', "import { main } from '../main.ts'", '1 api may not import src/main.ts'],
    ['tool/a.ts', "import { main } from '../src/main.ts'", undefined],
    ['plugins/a.ts', "import type { Plugin } from '../src/jit/plugin.ts'", undefined],
    ['plugins/a.ts', "import type { Shelf } from '../src/jit/shelf.ts'", '1 plugins may not import src/jit/'],
    ['src/lease/a.ts', "import { eq } from 'drizzle-orm/sql'", '1 lease may not import the package drizzle'],
    ['src/store/a.ts', "import { PGlite } from '@electric-sql/pglite/worker'", undefined],
    ['src/api/a.ts', "import pino from 'pino'", '1 api may not import the package pino'],
    ['src/lease/a.ts', "import { b } from './b'", "1 lease imports without the extension: './b.ts'"],
    ['src/attic/a.ts', 'const a = 1', '1 no room `attic`']
  ]
  const rule = (file: Parsed): readonly Breach[] => importRules(house, file)
  for (const [path, text, expected] of cases) expectBreach(rule, path, text, expected)
})

test('the circle rule finds a circle of three and lets circles of types pass', () => {
  const three = [
    { path: 'src/jit/a.ts', text: "import { b } from './b.ts'" },
    { path: 'src/jit/b.ts', text: "import { c } from '../lease/c.ts'" },
    { path: 'src/lease/c.ts', text: "import { a } from '../jit/a.ts'" }
  ]
  assert.equal(circleRules(three.map(parse)), [
    'src/jit/a.ts:1 circle of imports: src/jit/a.ts → src/jit/b.ts → src/lease/c.ts → src/jit/a.ts'
  ])
  const types = three.map(({ path, text }) => ({ path, text: text.replace('import {', 'import type {') }))
  assert.equal(circleRules(types.map(parse)), [])
})

test('the layout rule finds long lines, long files, barrels and files that do not say what they are', () => {
  expectBreach(layoutRules, 'src/a.ts', `// What.\nconst a = '${'ü'.repeat(98)}'`, undefined)
  expectBreach(layoutRules, 'src/a.ts', `// What.\nconst a = '${'ü'.repeat(99)}'`, '2 111 columns')
  expectBreach(layoutRules, 'src/a.ts', '// What.\nconst a = 1 \n', '2 blank at the end')
  expectBreach(layoutRules, 'src/a.ts', `// What.${'\n'.repeat(450)}`, '451 more than 450 lines')
  expectBreach(layoutRules, 'src/a.ts', 'const a = 1\n', '1 open with what')
  expectBreach(layoutRules, 'tool/a.ts', '#!/usr/bin/env node\n// What.\n', undefined)
  expectBreach(layoutRules, 'src/jit/index.ts', '// What.\n', '1 no barrels')
})

test('the token rule finds semicolons, commas, quotes, tabs and banned words, but not inside strings', () => {
  const cases: [text: string, expected: string | undefined][] = [
    ['const a = 1;', '1 semicolon'],
    ['\nconst a = 1; // one', '2 semicolon'],
    ['interface A {\n  a: string;\n}', '2 semicolon'],
    ['for (let i = 0;\n  i < 3;\n  i++) run()', undefined],
    ["const a = 'SELECT 1;'\nconst b = `SELECT\n1;\n`", undefined],
    ['const a = /;/\n', undefined],
    ['const a = [\n  1,\n]', '2 trailing comma'],
    ['call(1,)', '1 trailing comma'],
    ['const [a, , ] = b', undefined],
    ['const a = "b"', '1 single quotes'],
    ['const a = "it\'s"', undefined],
    ['if (a) {\n\tb()\n}', '2 indent'],
    ['// TODO: later\nconst a = 1', '1 TODO in a comment'],
    ['const a = 1 // FIXME', '1 FIXME in a comment'],
    ['/** @ts-ignore */\nconst a = 1', '1 @ts-ignore'],
    ['const a = 1\n// eslint-disable-next-line', '2 eslint-disable'],
    ["const a = 'TODO // FIXME'", undefined]
  ]
  for (const [text, expected] of cases) expectBreach(tokenRules, 'src/jit/a.ts', text, expected)
})

test('the syntax rule finds default exports, barrels, any, idle parentheses, prints and switches', () => {
  const cases: [path: string, text: string, expected: string | undefined][] = [
    ['src/a.ts', 'export default 1', '1 no default export'],
    ['src/a.ts', '\nexport default function run() {}', '2 no default export'],
    ['src/a.ts', 'switch (a) { default: run() }', undefined],
    ['drizzle.config.ts', 'export default 1', undefined],
    ['src/a.ts', "export * from './b.ts'", '1 no barrels'],
    ['src/a.ts', "export * as b from './b.ts'", '1 no barrels'],
    ['src/a.ts', 'const a = b as any', '1 as any'],
    ['src/a.ts', "const a = 'b as any'", undefined],
    ['src/a.ts', 'const a = (b) => b', '1 write x => x'],
    ['src/a.ts', 'const a = async (b) => b', '1 write x => x'],
    ['src/a.ts', 'const a = (b: number) => b', undefined],
    ['src/a.ts', 'const a = (b): number => b', undefined],
    ['src/a.ts', 'const a = ({ b }) => b\nconst c = (...d) => d\nconst e = (f = 1) => f', undefined],
    ['src/a.ts', 'const a = Math.random()', '1 Math.random'],
    ['src/jit/a.ts', 'console.log(1)', '1 console outside'],
    ['src/cli/a.ts', 'console.log(1)', undefined],
    ['test/a.ts', "test.only('a', () => {})", '1 test.only left in'],
    ['test/a.ts', "sessions.skip('a', () => {})", '1 sessions.skip left in']
  ]
  for (const [path, text, expected] of cases) expectBreach(syntaxRules, path, text, expected)
})

test('the syntax rule finds clocks and timers outside clock.ts', () => {
  const cases: [path: string, text: string, expected: string | undefined][] = [
    ['src/lease/a.ts', 'const a = Date.now()', '1 Date.now()'],
    ['src/lease/a.ts', 'const a = new Date()', '1 new Date()'],
    ['src/lease/a.ts', 'const a = new Date(row.at)', undefined],
    ['src/lease/a.ts', 'const a = Date()', '1 Date()'],
    ['plugins/a.ts', 'setTimeout(run, 10)', '1 setTimeout'],
    ['src/lease/a.ts', "import { setTimeout } from 'node:timers/promises'", '1 setTimeout'],
    ['src/wire/a.ts', 'setTimeout(run, limitMs)', undefined],
    ['src/wire/a.ts', 'const a = Date.now()', '1 Date.now()'],
    ['src/clock.ts', 'const a = new Date()', undefined],
    ['test/a.ts', 'setTimeout(run, 10)', undefined]
  ]
  for (const [path, text, expected] of cases) expectBreach(syntaxRules, path, text, expected)
})

test('the rule for tests finds what is not run and what asserts nothing', () => {
  const asserting = "test('a', () => { assert.ok(b) })\n"
  const helped = "const look = () => assert.ok(b)\nfunction see() { look() }\ntest('a', see)\ntest.run()"
  expectBreach(testRules, 'test/a.ts', `${asserting}test.run()`, undefined)
  expectBreach(testRules, 'test/journeys/a.ts', asserting, '1 no test.run()')
  expectBreach(testRules, 'test/a.ts', "test('a', () => { go() })\ntest.run()", '1 a test without an assert')
  expectBreach(testRules, 'test/a.ts', helped, undefined)
  expectBreach(testRules, 'test/a.ts', "const s = suite('s')\ns('a', () => { assert.ok(b) })", '1 no s.run()')
  expectBreach(testRules, 'test/a.ts', `const s = suite('s')\ns.run()\n${asserting}`, '1 no test.run()')
  expectBreach(testRules, 'test/peers/a.ts', 'const a = 1', undefined)
})

test('the rule for places finds a path of this machine and a registry', () => {
  const path = ['', 'work', 'main', 'a'].join('/')
  assert.equal(placeRules({ path: 'README.md', text: `a\nsee ${path}` }), [
    `README.md:2 names a place of one machine: ${posix.dirname(path)}`
  ])
  assert.is(placeRules({ path: 'README.md', text: ['registry', 'example', 'org'].join('.') }).length, 1)
  assert.equal(placeRules({ path: 'README.md', text: 'see /work and the registry.' }), [])
})

test('the rule for packages finds ranges, missing hashes, addresses and strict licences', () => {
  const sound = { integrity: 'sha512-a', license: '(MIT OR GPL-3.0)' }
  const check = (version: string, entry: Lock['packages'][string]): readonly Breach[] =>
    packageRules({ dependencies: { a: version } }, { packages: { '': {}, 'node_modules/a': entry } })
  const about = (what: string): string[] => [`package-lock.json:1 node_modules/a ${what}`]
  assert.equal(check('1.2.3-beta.17', sound), [])
  assert.equal(check('npm:typescript@7.0.2', sound), [])
  assert.equal(check('^1.2.3', sound), ['package.json:1 a ^1.2.3: name one exact version'])
  assert.equal(check('latest', sound), ['package.json:1 a latest: name one exact version'])
  assert.equal(check('1.2.3', { license: 'MIT' }), about('has no integrity'))
  assert.equal(check('1.2.3', { ...sound, license: 'AGPL-3.0' }), about('has the licence AGPL-3.0'))
  assert.equal(check('1.2.3', { ...sound, license: 'MIT AND GPL' }), about('has the licence MIT AND GPL'))
  assert.equal(check('1.2.3', { integrity: 'sha512-a' }), about('has the licence (none)'))
  assert.equal(check('1.2.3', { ...sound, license: 'MPL-2.0' }), about('has the licence MPL-2.0'))
  assert.equal(check('1.2.3', { ...sound, license: 'MPL-2.0', dev: true }), [])
  assert.equal(check('1.2.3', { ...sound, hasInstallScript: true }), about('runs when it is installed'))
  const fetched = { ...sound, resolved: 'https://example.org/a' }
  assert.equal(check('1.2.3', fetched), about('names the address that it came from'))
})

test('the rule for declared packages finds one that is there by luck', () => {
  const text = "import a from '@b/c/d'\nimport e from 'e'\nimport f from './f.ts'"
  expectBreach(file => declaredRules(new Set(['e']), file), 'src/a.ts', text, '1 @b/c is not in package.json')
})

test.run()
