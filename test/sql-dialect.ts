// What a value becomes in T-SQL and in Oracle's SQL: one token that says the value again, whatever it holds,
// or nothing at all. And what a statement may hold beside: where a hole stands is read as the server reads
// it.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { dialects, foldOracle } from '../src/jit/sql-dialect.ts'
import type { SqlContext } from '../src/jit/sql-dialect.ts'
import { UnfitValue } from '../src/jit/sql-text.ts'

const values = [
  'plain', 'a b', "a'b", "''", "'; DROP LOGIN sa; --", 'a]b', ']]', '] ; KILL 51 --', '[', 'a"b', '""', '--',
  '/*', '*/', '\\', "\\'", '\\\n', '\n', '\0', '\u007f', ';', '@@x', '$(x)', 'ü', '\u02bc', '\uff07',
  '\u2019', '😀', '\ud800', '', ' ', 'x'.repeat(128), 'x'.repeat(129), "'".repeat(8192), 'x'.repeat(8193),
  '"Mixed"',
  '"a"b"', 'A#$1', '1a', '{{ x }}', "q'[x]'", "N'x'", '********', '0x41', '0x4'
]

/** What the server reads in a quoted token of that form; undefined when it is not one token. */
function readBack(token: string, open: string, close: string, doubles: boolean): string | undefined {
  if (!token.startsWith(open) || !token.endsWith(close) || token.length < open.length + 1) return undefined
  const inner = token.slice(open.length, -1)
  const bare = doubles ? inner.replaceAll(close + close, '') : inner
  return bare.includes(close) ? undefined : doubles ? inner.replaceAll(close + close, close) : inner
}

function quoted(context: SqlContext, kind: 'identifier' | 'literal', value: string): string | undefined {
  try {
    return dialects[context][kind](value)
  } catch (error) {
    if (error instanceof UnfitValue) return undefined
    throw error
  }
}

test('a value is one token that says it again, or is refused', () => {
  let said = 0
  for (const [context, kind, open, close, doubles] of [
    ['tsql', 'identifier', '[', ']', true], ['tsql', 'literal', "N'", "'", true],
    ['oracle', 'identifier', '"', '"', false], ['oracle', 'literal', "'", "'", true]
  ] as const) {
    for (const value of values) {
      const token = quoted(context, kind, value)
      if (token === undefined) continue
      said++
      const expected = context === 'oracle' && kind === 'identifier' ? foldOracle(value) : value
      assert.is(readBack(token, open, close, doubles), expected, `${context} ${kind} of ${value}`)
      if (/\\/.test(value)) continue
      assert.equal(dialects[context].problems(`SELECT ${token} FROM x`), [], `${context} ${kind} of ${value}`)
    }
  }
  assert.ok(said > 70, `${said} were said`)
})

test('what a server could read in another way is refused', () => {
  for (const value of ['\n', '\0', '\u007f', '\ud800', '\\\n']) {
    for (const context of ['tsql', 'oracle'] as const) {
      assert.is(quoted(context, 'literal', value), undefined, JSON.stringify(value))
      assert.is(quoted(context, 'identifier', value), undefined, JSON.stringify(value))
    }
  }
  // The server may turn these into quotes, when its character set has no such letters.
  for (const value of ['ü', '\u02bc', '\uff07', '\u2019']) {
    assert.is(quoted('oracle', 'literal', value), undefined)
    assert.is(quoted('oracle', 'identifier', value), undefined)
  }
  for (const value of ['0x4', '0x', '41', '0x41; --', '0xZZ', `0x${'00'.repeat(257)}`]) {
    assert.throws(() => dialects.tsql.binary?.(value), (error: Error) => error instanceof UnfitValue, value)
  }
  assert.is(dialects.tsql.binary?.('0x4A'), '0x4A')
  assert.is(dialects.oracle.binary, undefined)
})

test('the place of a hole is the one that the server sees', () => {
  const place = (context: SqlContext, before: string, after: string): string => {
    const { places, problems } = dialects[context].scan([{ text: before }, { hole: 0 }, { text: after }])
    return problems.length > 0 ? problems.join('; ') : places.get(0) ?? 'none'
  }
  for (const [context, before, after, expected] of [
    ['tsql', 'SELECT ', ' FROM x', /^plain$/], ['tsql', "SELECT N'", "'", /^string$/],
    ['tsql', 'SELECT [', ']', /^identifier$/], ['tsql', 'SELECT "a""', '"', /^identifier$/],
    ['tsql', "SELECT ']", "'", /^string$/], ['tsql', "SELECT [']", '', /touches/],
    ['tsql', 'SELECT @', '', /touches/], ['tsql', 'SELECT ', '#', /touches/],
    ['tsql', 'SELECT ', "'x'", /touches/],
    ['tsql', 'SELECT 1; ', '', /more than one/], ['tsql', 'SELECT -- ', '', /comment/],
    ['oracle', 'SELECT "', '"', /^identifier$/], ['oracle', "SELECT q'[", "]'", /quote touches/],
    ['oracle', 'SELECT [', ']', /^plain$/], ['oracle', 'SELECT ', ';', /semicolon/]
  ] as const) assert.match(place(context, before, after), expected, `${context}: ${before}…${after}`)
})

test.run()
