// Templates at save time: what a file may say, what every mistake is called, and that whatever could smuggle
// a value or a second statement past the plugin is refused before anybody can use it.
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { shippedPlugins } from '../plugins/shipped.ts'
import { SallyportError } from '../src/errors.ts'
import { createShelf } from '../src/jit/shelf.ts'
import { checkVariables, parseTemplate, renderStep } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'

const shelf = createShelf(shippedPlugins)
const shippedFolder = join(import.meta.dirname, '../templates/postgres')

function text({ sql = 'SELECT 1', variables = '', extra = '', action = 'create' } = {}): string {
  return [
    'id: postgres/mine', 'plugin: postgres', `action: ${action}`, 'title: Mine', variables, 'steps:',
    `  - sql: ${JSON.stringify(sql)}`, extra
  ].filter(line => line !== '').join('\n')
}

/** The problems of a text, at save time with the plugin's lint. */
function problemsOf(source: string): readonly string[] {
  try {
    shelf.admit(source)
    return []
  } catch (error) {
    if (!(error instanceof SallyportError)) throw error
    assert.is(error.code, 'invalid')
    return error.problems
  }
}

test('every shipped template may be saved, has no advice against it, and its file has its name', () => {
  const files = readdirSync(shippedFolder)
  assert.equal(files.sort(), [
    'create-role-with-grant.yaml', 'create-role.yaml', 'delete-role.yaml', 'disable-role.yaml',
    'enable-role.yaml', 'grant-role.yaml', 'revoke-role.yaml'
  ])
  for (const file of files) {
    const { template, warnings } = shelf.admit(readFileSync(join(shippedFolder, file), 'utf8'))
    assert.is(`${template.id}.yaml`, `postgres/${file}`)
    // Privileges on tables have no way beside GRANT, and say what that costs.
    const costs = file === 'create-role-with-grant.yaml' ? 2 : 0
    assert.equal(warnings.filter(warning => !warning.includes('GRANT collides')), [], file)
    assert.is(warnings.length, costs, file)
  }
})

test('a plan shows what would be sent, with secrets masked', () => {
  const { template } = shelf.admit(readFileSync(join(shippedFolder, 'create-role.yaml'), 'utf8'))
  const verifier = new Secret('SCRAM-SHA-256$1:canary')
  const [step] = shelf.plugin('postgres').plan(template, { roles: ['app_rw', 'o"dd'], verifier })
  assert.match(step?.text ?? '', /PASSWORD '\*{8}' .* IN ROLE "sallyport_jit", "app_rw", "o""dd"$/)
  assert.not.match(step?.text ?? '', /canary/)
})

test('the text is all: what is parsed from it again renders the same', () => {
  const source = readFileSync(join(shippedFolder, 'create-role.yaml'), 'utf8')
  const [first, again] = [parseTemplate(source, 3), parseTemplate(parseTemplate(source, 3).text, 3)]
  assert.equal(first, again)
  assert.match(first.sha256, /^[0-9a-f]{64}$/)
  assert.equal(JSON.parse(JSON.stringify(first)), JSON.parse(JSON.stringify(again)))
})

test('attacks in the text of a template are refused at save', () => {
  const attacks = [
    'SELECT {{ username | raw }}', 'SELECT {{ username | json }}', 'SELECT {{ 1 | valueOf }}',
    'SELECT {{ username | ident | literal }}', 'SELECT {{ username.constructor }}',
    "SELECT {{ username['x'] }}",
    "SELECT {{ 'text' }}", 'SELECT {{ 1 }}', 'SELECT {{ username',
    '{% raw %}SELECT {{ username }}{% endraw %}',
    "{% assign x = 'a' %}SELECT {{ x | ident }}", '{% capture x %}a{% endcapture %}SELECT 1',
    "{% include 'file' %}SELECT 1", "{% render 'file' %}SELECT 1", '{% echo username | raw %}',
    '{% liquid echo username %}', '{% for x in roles %}{{ x }}{% endfor %}', '{% layout "x" %}SELECT 1',
    '{% if username %}SELECT 1', 'SELECT 1{% endif %}', 'SELECT {{- username | ident -}}',
    '{% if username | raw %}SELECT 1{% endif %}', '{% if a.b %}SELECT 1{% endif %}', '{% # note %}SELECT 1',
    'SELECT 1; DROP TABLE orders', "SELECT ';'; SELECT 1", 'SELECT 1 /* ; */ ; SELECT 2',
    "SELECT '{{ username | literal }}'", 'SELECT "{{ username | ident }}"',
    "SELECT 'a{{ username | literal }}",
    'SELECT $${{ username }}$$', 'DO $x$ BEGIN {{ username | ident }} END $x$', '-- {{ username }}\nSELECT 1',
    '/* {{ username }} */ SELECT 1', 'SELECT E{{ username | literal }}', 'SELECT U&{{ username | ident }}',
    'SELECT x{{ username | ident }}', 'SELECT {{ username | ident }}x', "SELECT {{ username | literal }}'x'",
    'SELECT {{ username | ident }}{{ username | ident }}', "SELECT '{% if username %}'{% endif %}",
    'SELECT {% if username %}x{% endif %}{{ username | ident }}', "SELECT 'a'\n'b'", "SELECT 1'a'",
    "SELECT 'open",
    'SELECT "open', 'SELECT $$open', 'SELECT /* open', 'SELECT {{ username }}',
    'SELECT {{ unknown | ident }}',
    '{% if unknown %}SELECT 1{% endif %}',
    '{% if username %}SELECT 1{% else %}SELECT {{ unknown | ident }}{% endif %}',
    'SELECT 1\0', ''
  ]
  for (const sql of attacks) {
    const problems = problemsOf(text({ sql }))
    const found = problems.some(problem => /^(steps\[0\]\.sql|variables\.unknown|\{\{ user)/.test(problem))
    assert.ok(found, `${sql}: ${problems.join()}`)
  }
})

test('what people write in good faith is accepted', () => {
  const sound = [
    'SELECT {{ username | ident }}', "SELECT '{{ username }}', \"{{ username }}\"",
    'SELECT {{username|literal}};',
    "SELECT E'it\\'s', $$ ; $$, U&'\\0041', B'101', X'FF' -- ; end\n", 'SELECT /* nested /* ; */ */ 1',
    'GRANT x TO {{ username | ident }}{% if roles %}, {{ roles | identlist }}{% endif %}',
    '{% comment %} why {% endcomment %}SELECT 1{% unless roles %} + 1{% endunless %}',
    "SELECT {% if mode == 'fast' %}1{% elsif mode != \"slow\" %}2{% else %}3{% endif %}",
    'SELECT schema.{{ username | ident }}, ({{ username | literal }})', 'SELECT {{ limit }}, -{{ limit }}',
    "DO $body$ BEGIN PERFORM 'a;b'; END $body$"
  ]
  const variables = 'variables: { roles: { description: r, list: true }, mode: { description: m }, '
    + 'limit: { description: l } }'
  for (const sql of sound) assert.equal(problemsOf(text({ sql, variables })), [], sql)
})

test('every mistake in a file is named with its path, all of them at once', () => {
  const problems = problemsOf([
    'id: Postgres/Mine', 'plugin: postgres', 'action: drop', 'titel: typo',
    'variables: { a: { describe: x, list: 3 } }',
    'steps:', '  - { sql: SELECT 1, do: drop-role }', '  - { name: x }',
    '  - { sql: SELECT 1, ignore: [42704] }',
    '  - { do: drop-role, eachDatabase: true }', '  - 7'
  ].join('\n'))
  for (const path of [
    'id:', 'action:', 'titel: unknown key', 'title:', 'variables.a.describe: unknown key',
    'variables.a.list:',
    'variables.a.description:', 'steps[0]: must have one of', 'steps[1]: must have one of',
    'steps[2].ignore:',
    'steps[3].eachDatabase:', 'steps[4]: must be a mapping'
  ]) {
    assert.ok(problems.some(problem => problem.startsWith(path)), `${path} of ${problems.join('\n')}`)
  }
})

test('YAML is strict: no repeated keys, anchors, aliases, tags, second documents or endless nesting', () => {
  const files = [
    `${text()}\ntitle: again`, text({ extra: 'undo: &a [{ sql: SELECT 1 }]' }),
    'a: &a [x]\nb: *a', `${text()}\n---\n${text()}`, text(
      { extra: 'undo: !!set { a }' }
    ), '[1, 2]', 'word', '',
    '['.repeat(20_000), `${text()}\n# ${'x'.repeat(70_000)}`, '%YAML 9.9\n---\na: 1', '? [a]\n: b',
    '"\\ud800": 1'
  ]
  for (const file of files) assert.ok(problemsOf(file).length > 0, file.slice(0, 60))
})

test('a key named __proto__ is an unknown key and changes nothing', () => {
  const problems = problemsOf(`${text()}\n__proto__: { polluted: true }`)
  assert.ok(problems.includes('__proto__: unknown key'))
  assert.is(({} as Record<string, unknown>)['polluted'], undefined)
})

test('too many branches are refused, many steps too', () => {
  const names = Array.from({ length: 8 }, (_, index) => `v${index}`)
  const sql = `SELECT 1 ${names.map(name => `{% if ${name} %}+ 1{% endif %}`).join(' ')}`
  const variables = `variables: { ${names.map(name => `${name}: { description: x }`).join(', ')} }`
  assert.ok(problemsOf(text({ sql, variables })).some(problem => problem.includes('ways through')))
  assert.ok(problemsOf(text({ extra: '  - sql: SELECT 1\n'.repeat(64) })).some(
    problem => problem.startsWith('steps:')
  ))
})

test('the lint refuses what breaks the fence or shows a password, and advises on the rest', () => {
  const refused = [
    'COMMIT', 'begin', 'ROLLBACK', 'SET ROLE app', 'SET SESSION AUTHORIZATION x', 'PREPARE TRANSACTION \'x\'',
    'CREATE DATABASE x', 'ALTER SYSTEM SET a = 1', 'VACUUM', "CREATE ROLE a PASSWORD 'clear'",
    'CREATE USER {{ username | ident }} ENCRYPTED PASSWORD {{ username | literal }}', 'COPY t FROM STDIN'
  ]
  for (const sql of refused) {
    assert.ok(problemsOf(text({ sql })).some(one => one.startsWith('steps[0].sql')), sql)
  }
  assert.ok(problemsOf(text({ extra: '  - do: fly' })).some(
    problem => problem.startsWith('steps[1].do: there is no fly')
  ))
  const unknownOption = text({ extra: '  - { do: drop-role, with: { owner: x } }' })
  assert.ok(problemsOf(unknownOption).some(problem => problem.startsWith('steps[1].with.owner')))
  const advice = (source: string): string => shelf.admit(source).warnings.join('\n')
  const strong = text({ sql: 'CREATE ROLE {{ username | ident }} SUPERUSER', extra: '  - sql: GRANT a TO b' })
  assert.match(advice(strong), /SUPERUSER lets[^]*GRANT collides[^]*VALID UNTIL[^]*CONNECTION LIMIT/)
  assert.not.match(advice(text({ sql: 'CREATE ROLE {{ username | ident }} NOSUPERUSER' })), /SUPERUSER/)
  const short = text({ sql: 'DROP ROLE {{ username | ident }}', action: 'delete' })
  assert.match(advice(short), /no NOLOGIN[^]*terminate-sessions[^]*no wait-for-none[^]*no clean-databases/)
})

test('a template is offered only for a plugin and an action that exist', () => {
  const other = text().replaceAll('postgres', 'mainframe')
  const there = shippedPlugins.map(({ id }) => id).join(', ')
  assert.equal(problemsOf(other), [`plugin: there is no plugin mainframe; there are ${there}`])
  const shadow = text({ variables: 'variables: { username: { description: mine } }' })
  assert.equal(problemsOf(shadow), ['variables.username: is supplied by the engine, do not declare it'])
})

test('the values of a credential are checked against both of its templates', () => {
  const create = parseTemplate(readFileSync(join(shippedFolder, 'create-role.yaml'), 'utf8'))
  const remove = parseTemplate(readFileSync(join(shippedFolder, 'delete-role.yaml'), 'utf8'))
  const grant = parseTemplate(readFileSync(join(shippedFolder, 'grant-role.yaml'), 'utf8'))
  const pair = [create, remove]
  assert.equal(checkVariables(pair, { roles: ['app_rw'], connection_limit: 3, owner: 'x' }), [])
  assert.equal(checkVariables(pair, {}), [])
  assert.equal(checkVariables(pair, { roles: 'app_rw' }), ['roles: must be a list of words'])
  assert.equal(
    checkVariables(pair, { connection_limit: 'many' }), ['connection_limit: must be a whole number']
  )
  assert.equal(checkVariables(pair, { rolse: ['a'] }), [
    'rolse: no such variable in postgres/create-role or postgres/delete-role'
  ])
  assert.equal(checkVariables([grant], {}), ['roles: is required by postgres/grant-role'])
})

test('a missing or unfit value is an error that names the variable, never its value', () => {
  const template = parseTemplate(text({ sql: "SELECT {{ a | literal }}, '{{ b }}'", variables:
    'variables: { a: { description: a }, b: { description: b } }' }))
  const [step] = template.steps
  const failure = (variables: Record<string, string>): string => {
    try {
      renderStep(template, step!, variables)
      return ''
    } catch (error) {
      return String(error)
    }
  }
  assert.match(failure({ b: 'x' }), /undefined variable: a/)
  assert.match(failure({ a: 'x', b: 'canary\'' }), /variable b is not a plain word/)
  assert.not.match(failure({ a: 'x', b: 'canary\'' }), /canary/)
  assert.match(failure({ a: 'canary\0', b: 'x' }), /variable a holds a NUL/)
})

test.run()
