// An editor marks the line that a problem of a template is about.
import { readFileSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { shippedPlugins } from '../plugins/shipped.ts'
import { asSallyportError } from '../src/errors.ts'
import { createShelf } from '../src/jit/shelf.ts'
import { linesOf } from '../src/jit/template-lines.ts'

const shelf = createShelf(shippedPlugins)
const body = readFileSync(new URL('../templates/postgres/create-role.yaml', import.meta.url), 'utf8')

/** Of a text that lint refuses: each problem, and what stands on its line. */
function marks(text: string): [problem: string, line: string | undefined][] {
  try {
    shelf.admit(text)
  } catch (thrown) {
    const { problems } = asSallyportError(thrown)
    const lines = text.split('\n')
    return linesOf(text, problems).map((line, at) =>
      [problems[at]!, line === undefined ? undefined : lines[line - 1]!.trim()])
  }
  return []
}

test('a problem is marked where it stands', () => {
  const cases: [from: string | RegExp, to: string, problem: RegExp, line: string | undefined][] = [
    ['connection_limit:', 'magic: 1\n  connection_limit:', /magic/, 'magic: 1'],
    ['action: create', 'action: destroy', /^action: /, 'action: destroy'],
    ['name: make the role', 'nam: make the role', /^steps\[0\]/, '- nam: make the role'],
    ['{{ connection_limit }}', '{{ nothing }}', /nothing/, 'CONNECTION LIMIT {{ nothing }}'],
    ['title: Make', 'title: [Make', /at line \d+/, undefined]
  ]
  for (const [from, to, problem, line] of cases) {
    const found = marks(body.replace(from, to)).find(([text]) => problem.test(text))
    assert.ok(found, String(problem))
    if (line !== undefined) assert.is(found[1], line, found[0])
    else assert.ok(found[1] !== undefined)
  }
  assert.equal(marks(body), [])
})

test('what is about the whole text has no line, and no text breaks the marking', () => {
  assert.equal(linesOf('a: 1', ['steps: is missing', 'longer than 65536 bytes']), [undefined, undefined])
  for (const text of ['', '[', '\0', '&a [*a]', '- '.repeat(50_000), '{'.repeat(50_000)]) {
    assert.is(linesOf(text, ['steps[0].sql: x']).length, 1)
  }
})

test.run()
