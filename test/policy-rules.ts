// What the rules of a grant find: tables of statements, commands and paths, and what is decided about each.
// Kinds are read by PostgreSQL's own parser, in the thread in which the product runs it; the rest is pure.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { documentOf, documentSchemas } from '../src/api/documents.ts'
import { systemClock } from '../src/clock.ts'
import { createSqlParser } from '../src/main/sql-parser.ts'
import type { SqlParser } from '../src/main/sql-parser.ts'
import { pathMatcher, patternMatcher, searchedLengthMax } from '../src/policy/pattern.ts'
import { createRulebook, plainPath } from '../src/policy/rules.ts'
import type { FileDirection, FilePlace } from '../src/policy/rules.ts'
import type { SqlKind } from '../src/policy/sql-kinds.ts'
import type { Rule, RuleAction } from '../src/policy/types.ts'

let parser: SqlParser
test.before(() => { parser = createSqlParser(systemClock) })
test.after(() => parser.close())

const sql = (then: RuleAction, more: Partial<Rule> = {}): Rule => ({ on: 'sql', then, ...more })

async function judged(rules: readonly Rule[], text: string): Promise<string> {
  const book = createRulebook(rules).sql!
  const { then, rule, kinds } = book.judge(await parser.parse(text, book.wantsText), text)
  return [then, rule ?? '-', ...kinds].join(' ')
}

async function kindsIn(text: string): Promise<string> {
  const parsed = await parser.parse(text, false)
  return parsed?.map(({ kinds }) => [...kinds].sort().join(' ')).join(' | ') ?? 'unparsed'
}

test('kinds are what PostgreSQL reads, wherever in a statement they stand', async () => {
  const cases: [text: string, kinds: string][] = [
    ['SELECT 1', 'select'],
    ['', ''], ['-- nothing\n', ''], [';;', ''],
    ['DELETE FROM t', 'delete delete-without-where'],
    ['DELETE FROM t WHERE id = 1', 'delete'],
    ['DELETE FROM t WHERE true', 'delete delete-without-where'],
    ['DELETE FROM t WHERE id = $1', 'delete'],
    ['UPDATE t SET a = 1', 'update update-without-where'],
    ['UPDATE t SET a = 1 WHERE id IN (SELECT 1)', 'select update'],
    ['WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone', 'delete delete-without-where select'],
    ['MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE', 'delete merge'],
    ['EXPLAIN ANALYZE TRUNCATE t', 'unparsed'],
    ['EXPLAIN ANALYZE DELETE FROM t', 'delete delete-without-where explain'],
    ['PREPARE p AS UPDATE t SET a = 1', 'prepare update update-without-where'],
    ['EXECUTE p', 'execute'],
    ['drop/* x */\ttable "a b"', 'drop'], ['DROP ROLE x', 'drop drop-role'], ['DROP OWNED BY x', 'drop'],
    ['TRUNCATE t', 'truncate'], ['DROP DATABASE x', 'drop drop-database'],
    ['GRANT SELECT ON t TO b', 'grant'], ['GRANT a TO b', 'grant'], ['REVOKE a FROM b', 'revoke'],
    ['ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO b', 'alter grant'],
    ['CREATE ROLE x', 'create create-role'], ['CREATE USER x', 'create create-role'],
    ['ALTER USER x SUPERUSER', 'alter alter-role'], ['ALTER ROLE x SET a = 1', 'alter alter-role'],
    ['SET ROLE x', 'set set-role'], ['RESET ROLE', 'set set-role'], ['RESET ALL', 'set set-role'],
    ['SET SESSION AUTHORIZATION x', 'set set-role'], ["SET statement_timeout = '1s'", 'set'],
    ['SET "ROLE" = x', 'set set-role'], ['RESET "Session_Authorization"', 'set set-role'],
    ["SELECT ('postgresql.conf'::text).pg_read_file", 'select server-file'],
    ["SELECT x.pg_read_file FROM unnest(ARRAY['a'::text]) x", 'select server-file'],
    ['SELECT pg_read_file, (t).a[1].b, s.t.c FROM t', 'select'],
    ['INSERT INTO t VALUES (1) ON CONFLICT (id) DO UPDATE SET a = 1', 'insert select update'],
    ['INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING', 'insert select'],
    ["SELECT set_config('Role', 'x', false)", 'select set set-role'],
    ["SELECT pg_catalog.set_config('ro' || 'le', 'x', false)", 'select set set-role'],
    ["SELECT set_config('work_mem', '1MB', false)", 'select set'],
    ["COPY t FROM PROGRAM 'id'", 'copy-from copy-program'], ['COPY t TO STDOUT', 'copy-to'],
    ["COPY (SELECT 1) TO '/tmp/x'", 'copy-to select server-file'],
    ["SELECT lo_import('/etc/passwd')", 'select server-file'],
    ["SELECT \"pg_read_file\"('x')", 'select server-file'],
    ['SELECT pg_terminate_backend(1)', 'select server-control'],
    ["SELECT query_to_xml('drop table t', true, true, '')", 'hidden-sql select'],
    ['DO $$ BEGIN END $$', 'do hidden-sql'],
    ["CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", 'create create-function hidden-sql'],
    ['CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC DELETE FROM t; SELECT 1; END',
      'create create-function delete delete-without-where select'],
    ['CREATE VIEW v AS SELECT 1', 'create select'], ['SELECT * INTO x FROM t', 'create select'],
    ['CREATE RULE r AS ON SELECT TO t DO ALSO DELETE FROM u',
      'create create-trigger delete delete-without-where'],
    ['ALTER SYSTEM SET a = 1', 'alter alter-system'], ['BEGIN', 'transaction'],
    ['CREATE SERVER s FOREIGN DATA WRAPPER w', 'create foreign'], ['VACUUM', 'maintenance'],
    ['SELECT 1; DROP TABLE t; SELECT 2', 'select | drop | select'],
    ["SELECT '; DROP TABLE t'", 'select'], ['SELECT $a$; DROP TABLE t$a$', 'select'],
    ['selct 1', 'unparsed'], ["SELECT 'open", 'unparsed'],
    // Two readings: `standard_conforming_strings`, and an encoding whose second bytes are backslashes.
    ["SELECT '\\''; DROP TABLE t; --'", 'unparsed'], ["SELECT E'it\\'s'", 'select'],
    ["SELECT E'é\\''; DROP TABLE t; --'", 'unparsed']
  ]
  for (const [text, kinds] of cases) assert.is(await kindsIn(text), kinds, text)
})

test('the first rule that fits decides, and of several statements the strictest verdict', async () => {
  const rules = [
    sql('allow', { kinds: ['drop'], pattern: '(?i)^drop table scratch' }),
    sql('refuse', { kinds: ['drop', 'truncate'] }),
    sql('end', { kinds: ['copy-program'] }),
    sql('warn', { pattern: '(?i)\\bsalary\\b' })
  ]
  const cases: [text: string, verdict: string][] = [
    ['SELECT 1', 'allow -'],
    ['DROP TABLE scratch', 'allow 1 drop'],
    ['drop /* hidden */\n table scratch', 'allow 1 drop'],
    ['DROP TABLE orders', 'refuse 2 drop'],
    ['DROP TABLE scratch; DROP TABLE orders', 'refuse 2 drop'],
    ['SELECT Salary FROM staff', 'warn 4 select'],
    ['SELECT salary FROM staff; TRUNCATE staff', 'refuse 2 truncate'],
    ["TRUNCATE a; COPY t FROM PROGRAM 'id'", 'end 3 copy-program'],
    ['SELECT /* salary */ 1', 'allow -'],
    ['', 'allow -']
  ]
  for (const [text, verdict] of cases) assert.is(await judged(rules, text), verdict, text)
})

test('what cannot be read is refused where kinds matter, unless a rule names it', async () => {
  const drop = sql('refuse', { kinds: ['drop'] })
  const patternOnly = sql('refuse', { pattern: 'secret' })
  const cases: [what: string, rules: Rule[], verdict: string][] = [
    ['no rule names it', [drop], 'refuse - unparsed'],
    ['one lets it pass', [sql('warn', { kinds: ['unparsed'] }), drop], 'warn 1 unparsed'],
    ['one behind', [drop, sql('end', { kinds: ['unparsed'] })], 'end 2 unparsed'],
    ['a pattern does not excuse it', [sql('allow', { pattern: 'selct' }), drop], 'refuse - unparsed'],
    ['a pattern condemns it', [drop, sql('end', { pattern: 'selct' })], 'end 2 unparsed'],
    ['nobody asked for kinds', [patternOnly], 'allow -'],
    ['nor does this one', [sql('allow', { pattern: 'selct' }), patternOnly], 'allow 1 unparsed']
  ]
  for (const [what, rules, verdict] of cases) assert.is(await judged(rules, 'selct 1'), verdict, what)
})

test('a call by number passes only by a rule that names it, where kinds matter', () => {
  const call = (...rules: Rule[]): string => {
    const { then, rule } = createRulebook(rules).sql!
      .judge([{ text: '<function call 1>', kinds: ['function-call', 'unparsed'] }], '<function call 1>')
    return `${then} ${rule ?? '-'}`
  }
  const drop = sql('refuse', { kinds: ['drop'] })
  assert.is(call(drop), 'refuse -')
  assert.is(call(sql('allow'), drop), 'refuse -')
  assert.is(call(drop, sql('allow', { kinds: ['function-call'] })), 'allow 2')
  assert.is(call(drop, sql('end')), 'end 2')
  assert.is(call(sql('refuse', { pattern: 'secret' })), 'allow -')
})

test('a pattern that forbids fits a text of two readings, and one that allows does not', async () => {
  const doubtful = ["SELECT '\\''; x --'", "SELECT E'é\\''", '/*'.repeat(2000), 'x'.repeat(300_000)]
  for (const text of doubtful) {
    const shown = text.slice(0, 20)
    assert.is(await judged([sql('refuse', { pattern: 'secret' })], text), 'refuse 1 unparsed', shown)
    assert.is(await judged([sql('approve', { pattern: 'secret' })], text), 'approve 1 unparsed', shown)
    assert.is(await judged([sql('allow', { pattern: '.' })], text), 'allow -', shown)
  }
})

test('hostile texts are unreadable, in time, and the next one is read', async () => {
  const deep = ['1+', 'not ', '(select ', 'case when ', '-- ', "'", '$', '"', '/*', '\\']
  const texts = [
    '/*'.repeat(100_000), 'x'.repeat(300_000),
    ...deep.map(piece => `SELECT ${piece.repeat(100_000)}`.slice(0, 250_000)), '\0', '\ud800'
  ]
  for (const text of texts) {
    // Some of them are read, since the parser's thread has a deep stack.
    assert.match(await kindsIn(text), /^(unparsed|select)$/, text.slice(0, 20))
  }
  assert.is(await kindsIn(texts[0]!), 'unparsed')
  assert.is(await kindsIn('DROP TABLE t'), 'drop')
})

test('random bytes pass only when PostgreSQL reads nothing in them that is refused', async () => {
  let seed = 7
  const random = (below: number): number => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648
    return seed % below
  }
  const words = [
    'drop', 'table', 't', ';', '/*', '*/', '--', "'", '"', '$$', '\\', "e'", '\n', ' ', '(', ')', 'é'
  ]
  const rules = [sql('refuse', { kinds: ['drop'] })]
  const passed = new Set<SqlKind>()
  for (let round = 0; round < 1500; round++) {
    const text = Array.from({ length: random(12) }, () =>
      random(5) === 0 ? String.fromCharCode(random(256)) : words[random(words.length)]).join('')
    const verdict = await judged(rules, text)
    if (verdict !== 'allow -') continue
    for (const { kinds } of (await parser.parse(text, false))!) for (const kind of kinds) passed.add(kind)
  }
  assert.not.ok(passed.has('drop') || passed.has('unparsed'), [...passed].join(' '))
})

test('patterns are matched in linear time, and what is too long is not excused by one', () => {
  const evil = patternMatcher('(a+)+$')
  const startedMs = performance.now()
  assert.not.ok(evil(`${'a'.repeat(searchedLengthMax - 1)}b`))
  assert.ok(performance.now() - startedMs < 2000)
  assert.throws(() => patternMatcher('(a)\\1'), /invalid/)
  assert.throws(() => patternMatcher('('), /invalid/)
  const then = (action: RuleAction): RuleAction =>
    createRulebook([{ on: 'command', then: action, pattern: '^ls$' }])
      .command!('x'.repeat(searchedLengthMax + 1)).then
  const actions: RuleAction[] = ['allow', 'warn', 'refuse', 'end']
  assert.equal(actions.map(then), ['allow', 'allow', 'refuse', 'end'])
})

test('commands and files are judged by their own rules only', () => {
  const book = createRulebook([
    { on: 'file', then: 'allow', direction: 'download', path: '/etc/motd' },
    { on: 'file', then: 'refuse', path: '/etc/**' },
    { on: 'file', then: 'warn', direction: 'upload', path: '*.sh' },
    { on: 'command', then: 'refuse', pattern: '^rm -rf' }
  ])
  assert.is(book.sql, undefined)
  assert.is(book.command!('rm -rf /').then, 'refuse')
  assert.is(book.command!('ls; rm -rf /').then, 'allow')
  const cases: [direction: FileDirection, path: string, then: RuleAction][] = [
    ['download', '/etc/motd', 'allow'], ['upload', '/etc/motd', 'refuse'],
    ['download', '/etc/ssh/sshd_config', 'refuse'], ['look', '/etc/ssh', 'refuse'],
    ['download', '/etc', 'allow'], ['download', '/home/../etc//./passwd', 'refuse'],
    ['download', '/etcetera', 'allow'], ['upload', 'run.sh', 'warn'], ['upload', '/tmp/run.sh', 'warn'],
    ['download', '/tmp/run.sh', 'allow'], ['download', '../../etc/passwd', 'refuse'],
    // Behind `..` of a folder that may be a link: it may be in /etc.
    ['upload', 'a/../b.sh', 'refuse'], ['look', 'a/..', 'allow']
  ]
  for (const [direction, path, then] of cases) {
    assert.is(book.file!(direction, path, { home: '/home/al' }).then, then, path)
  }
})

test('a path is judged under every name that may mean it', () => {
  const book = createRulebook([
    { on: 'file', then: 'allow', path: 'open/**' },
    { on: 'file', then: 'refuse', path: '/home/al/secret/**' },
    { on: 'file', then: 'refuse', path: 'notes/*.key' },
    { on: 'file', then: 'refuse', path: '/srv/**/x/*.conf' }
  ])
  const home = '/home/al'
  const cases: [path: string, place: FilePlace, then: RuleAction][] = [
    // With a home that is known: no spelling makes a difference.
    ['secret/a', { home }, 'refuse'], ['./secret//a', { home }, 'refuse'],
    ['x/../secret/a', { home }, 'refuse'], ['../al/secret/a', { home }, 'refuse'],
    ['../../home/al/secret/a', { home }, 'refuse'],
    ['/home/al/notes/a.key', { home }, 'refuse'], ['notes/a.key', { home }, 'refuse'],
    ['/home/al/open/a', { home }, 'allow'], ['../bo/secret/a', { home }, 'allow'],
    ['/home/bo/notes/a.key', { home }, 'allow'], ['../../srv/a/x/b.conf', { home }, 'refuse'],
    ['a.conf', { home: '/srv/a/x' }, 'refuse'], ['home/al/secret/a', { home: '/' }, 'refuse'],
    // Without one what refuses fits wherever the home may be.
    ['secret/a', {}, 'refuse'], ['a', {}, 'refuse'], ['b.conf', {}, 'refuse'], ['open/a', {}, 'allow'],
    ['/x/notes/a.key', {}, 'refuse'], ['/notes/a.key', {}, 'refuse'], ['/x/notes/a.txt', {}, 'allow'],
    ['../a', {}, 'refuse'],
    // A folder that is moved takes with it what is in it.
    ['/home/al', { home, isTree: true }, 'refuse'], ['secret', { home, isTree: true }, 'refuse'],
    ['/home', { home, isTree: true }, 'refuse'], ['/', { home, isTree: true }, 'refuse'],
    ['notes', { home, isTree: true }, 'refuse'], ['/home/bo', { home, isTree: true }, 'allow'],
    ['/srv', { home, isTree: true }, 'refuse'], ['/srv/q/x', { home, isTree: true }, 'refuse'],
    ['secret', { home }, 'allow'], ['docs/a', { home, isVague: true }, 'refuse']
  ]
  for (const [path, place, then] of cases) {
    assert.is(book.file!('download', path, place).then, then, `${path} ${JSON.stringify(place)}`)
  }
})

test('a path that links may lead away fits what refuses by its last name, and nothing that allows', () => {
  const refusing = createRulebook([
    { on: 'file', then: 'warn', path: '*.sh' },
    { on: 'file', then: 'refuse', path: '/etc/shadow' }
  ]).file!
  const allowing = createRulebook([
    { on: 'file', then: 'allow', path: '/var/**' }, { on: 'file', then: 'refuse' }
  ]).file!
  const home = '/home/al'
  const cases: [path: string, place: FilePlace, refusing: RuleAction, allowing: RuleAction][] = [
    ['/var/run/../etc/shadow', { home }, 'refuse', 'refuse'], ['/var/log/a', { home }, 'allow', 'allow'],
    ['/proc/self/root/etc/shadow', { home }, 'refuse', 'refuse'],
    ['/proc/1/task/1/cwd/shadow', { home }, 'refuse', 'refuse'],
    ['/var/run/../x', { home }, 'allow', 'refuse'], ['/var/run/../x.sh', { home }, 'warn', 'refuse'],
    ['x/../../../shadow', { home }, 'refuse', 'refuse'], ['../bo/shadow', { home }, 'allow', 'refuse'],
    ['/../home/al/../bo/shadow', { home }, 'allow', 'refuse'], ['/var/run/..', { home }, 'allow', 'refuse'],
    ['/var/run/user/../../etc', { home, isTree: true }, 'refuse', 'refuse'],
    ['/proc/self', { home, isTree: true }, 'refuse', 'refuse'],
    ['/etc/shadow\0', { home }, 'refuse', 'refuse'], ['/var/a\0', { home }, 'refuse', 'refuse']
  ]
  for (const [path, place, ...then] of cases) {
    assert.equal([refusing, allowing].map(file => file('download', path, place).then), then,
      `${path} ${JSON.stringify(place)}`)
  }
})

test('rules are read from a grant, written back alike, and refused where they mean nothing', () => {
  const grant = (rules: unknown): unknown =>
    ({ kind: 'grant', name: 'g', users: ['bob'], credentials: ['c'], rules })
  const given = [
    { on: 'sql', kind: ['drop'], pattern: 'x', then: 'refuse' },
    { on: 'command', then: 'approve', approval: { by: ['carol'], count: 1, validFor: '1h', waitFor: '5m' } },
    { on: 'file', direction: 'upload', path: '/etc/**', then: 'end' }
  ]
  const { spec } = documentSchemas.grant.parse(grant(given))
  assert.equal(documentOf('grant', spec)['rules'], given)
  const wrong: unknown[] = [
    [], [{ on: 'sql', then: 'shrug' }], [{ on: 'sql', kind: ['dorp'], then: 'refuse' }],
    [{ on: 'sql', pattern: '(a)\\1', then: 'refuse' }], [{ on: 'sql', path: '/x', then: 'refuse' }],
    [{ on: 'sql', then: 'approve' }], [{ on: 'file', then: 'approve' }],
    [{ on: 'file', pattern: 'x', then: 'end' }],
    ...['/etc/', '~/x', './x', '/a/../b', '/a//b', '..'].map(path => [{ on: 'file', path, then: 'end' }]),
    [{ on: 'command', then: 'refuse', approval: { by: ['carol'] } }], [{ on: 'tea', then: 'refuse' }]
  ]
  for (const rules of wrong) {
    assert.not.ok(documentSchemas.grant.safeParse(grant(rules)).success, JSON.stringify(rules))
  }
})

test('a glob means itself but for its stars', () => {
  const cases: [glob: string, path: string, fits: boolean][] = [
    ['/a/*.txt', '/a/b.txt', true], ['/a/*.txt', '/a/b/c.txt', false], ['/a/*.txt', '/a/bxtxt', false],
    ['/a/**/z', '/a/z', true], ['/a/**/z', '/a/b/c/z', true], ['/a/**', '/a/', true], ['/a/?', '/a/é', true],
    ['/a/[b](c)+', '/a/[b](c)+', true], ['*.key', '/x/y/id.key', true], ['*.key', 'id.key', true],
    ['/a\n*', '/a\nb', true]
  ]
  for (const [glob, path, fits] of cases) assert.is(pathMatcher(glob)(path), fits, `${glob} ${path}`)
  assert.equal(['/a/../../b', 'a/./b/', '..', 'a/../..', '/', ''].map(plainPath),
    ['/b', 'a/b', undefined, undefined, '/', ''])
})

test.run()
