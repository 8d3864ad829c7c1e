// The specification promises by number, and a test says in its title or in a comment which number it shows:
// `(F16)`, `(R2, F1 to F6)`. Here stand all numbers there are. One that nothing in test/ or tool/ names is a
// promise that nobody looks at; it fails, unless it stands among the exceptions with its reason. So does a
// number that no specification has. `renewal R1` to `renewal R4` are those of the renewal of secrets, `R1`
// and so on those of reliability. Beside it: every refusal that the house knows is known to a test.
import { readFileSync, readdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { errorTable } from '../src/errors.ts'

/** How many numbers each letter has. */
const families = { R: 32, F: 36, J: 16, P: 6, 'renewal R': 4, L: 5, S: 10, D: 5 } as const

/** What no test can show, and why. */
const exceptions: Readonly<Record<string, string>> = {
  F14: 'there is no Redis in the build: nodes talk through the store, so a Redis that is away is nothing'
}

const root = resolve(import.meta.dirname, '..')
const self = 'test/promises.ts'
const numbers = Object.entries(families).flatMap(([letter, count]) =>
  Array.from({ length: count }, (_, index) => `${letter}${index + 1}`))
// A number alone, or the first and the last of several: `F1 to F6`, `R1–R4`, `F24-F26`.
const cited = /(?<![\w-])(renewal )?([RFJPLSD])(\d{1,2})(?:(?: to |[–-])\2(\d{1,2}))?(?![\w-])/g
// A comment, or the brackets at the end of a title.
const places = /(?:^|\s)(?:\/\/|\/?\*\*?) (.*)$|\(((?:renewal )?[RFJPLSD]\d{1,2}[^()'`]*)\)['`],/gm

function citedIn(text: string): string[] {
  return [...text.matchAll(places)].flatMap(([, comment, title]) => [...(comment ?? title)!.matchAll(cited)])
    .flatMap(([, renewal = '', letter, first, last = first]) => Array.from(
      { length: Number(last) - Number(first) + 1 },
      (_, index) => `${renewal}${letter}${Number(first) + index}`))
}

function filesUnder(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile() && /\.(ts|sh)$/.test(entry.name))
    .map(entry => join(entry.parentPath, entry.name))
    .filter(path => path !== join(root, self))
}

const texts = ['test', 'tool'].flatMap(filesUnder).map(path => readFileSync(path, 'utf8'))

test('every number of the specification is named by a test, or stands here with a reason', () => {
  const named = new Set(texts.flatMap(citedIn))
  assert.equal(numbers.filter(each => !named.has(each) && exceptions[each] === undefined), [])
  assert.equal([...named].filter(each => !numbers.includes(each)), [], 'no specification has these')
  assert.equal(Object.keys(exceptions).filter(each => named.has(each)), [], 'no exceptions any more')
})

test('every code of the table of errors is provoked somewhere, and says what it must (R31)', () => {
  const tests = texts.join('\n')
  for (const [code, { client, operator, sqlstate, http }] of Object.entries(errorTable)) {
    assert.ok(new RegExp(`(?<![\\w-])${code}(?![\\w-])`).test(tests), `no test knows ${code}`)
    assert.ok(client.length > 0 && operator.length > 0 && client !== operator, code)
    assert.match(sqlstate, /^[0-9A-Z]{5}$/, code)
    assert.ok(http >= 400 && http < 600, code)
  }
})

test('a number is read from comments and titles, alone and in a row, and nowhere else', () => {
  const cases: [string, string[]][] = [
    ['// R2, F1 to F6.', ['R2', 'F1', 'F2', 'F3', 'F4', 'F5', 'F6']],
    ['  // renewal R1–R3 and R4', ['renewal R1', 'renewal R2', 'renewal R3', 'R4']],
    ["test('it goes (F24-F26, J3)', async () => {", ['F24', 'F25', 'F26', 'J3']],
    ["test('F5 and R2 go', () => {", []], ["key('F5')", []], ['// S3-compatible, MD5, R2D2', []]
  ]
  for (const [text, expected] of cases) assert.equal(citedIn(text), expected, text)
})

test.run()
