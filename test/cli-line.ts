// The command line: every command explains itself, wrong usage ends with exit code 2 before anything was
// done, and nothing that a server or a peer wrote acts on the terminal of whoever looks.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { commonOptions, helpOf, parseCommandLine, UsageError } from '../src/cli/command.ts'
import type { Command } from '../src/cli/command.ts'
import { commands } from '../src/cli/commands.ts'
import { createOutput } from '../src/cli/output.ts'
import type { Output } from '../src/cli/output.ts'
import { run } from '../src/cli/run.ts'

interface Said {
  code: number
  out: string
  err: string
}

async function say(...line: string[]): Promise<Said> {
  let out = ''
  let err = ''
  const code = await run(line, { write: text => { out += text } }, { write: text => { err += text } })
  return { code, out, err }
}

const nameOf = ({ words }: Command): string => words.join(' ')

test('the commands are those of the manual', () => {
  const names = commands.map(nameOf)
  for (const group of [
    'serve', 'apply', 'get', 'delete', 'explain', 'login', 'logout', 'whoami', 'doctor',
    ...['list', 'show', 'watch', 'kill', 'replay', 'export', 'search', 'verify',
      'receipt'].map(verb => `sessions ${verb}`),
    ...['list', 'show', 'renew', 'revoke', 'history'].map(verb => `leases ${verb}`),
    ...['list', 'lint', 'plan', 'prove'].map(verb => `templates ${verb}`), 'orphans scan', 'orphans reap',
    ...['list', 'verify', 'export'].map(verb => `audit ${verb}`)
  ]) assert.ok(names.includes(group), group)
  assert.is(new Set(names).size, names.length)
})

test('every command explains itself with --help and -h, and names its options', async () => {
  for (const command of commands) {
    for (const ask of ['--help', '-h']) {
      const { code, out, err } = await say(...command.words, ask)
      assert.equal([code, err], [0, ''], nameOf(command))
      assert.ok(out.startsWith(`sallyport ${nameOf(command)}`), nameOf(command))
      for (const option of [...Object.keys(command.options ?? {}), 'json', 'config', 'help']) {
        assert.ok(out.includes(`--${option}`), `${nameOf(command)} --${option}`)
      }
    }
  }
  const list = commands.find(each => nameOf(each) === 'sessions list')!
  assert.is((await say('help', 'sessions', 'list')).out, helpOf(list))
})

test('the overview lists every command, a group its own', async () => {
  const all = await say('--help')
  assert.is(all.code, 0)
  for (const command of commands) assert.ok(all.out.includes(`  ${nameOf(command)}`), nameOf(command))
  const { code, out } = await say('sessions', '--help')
  assert.is(code, 0)
  assert.match(out, /sessions verify ID\|FILE/)
  assert.not.match(out, /leases/)
})

test('wrong usage ends with 2, one sentence and the usage, and nothing on standard output', async () => {
  const wrong: [line: string[], sentence: RegExp][] = [
    [[], /say what to do/], [['frobnicate'], /no command "frobnicate"/],
    [['sessions'], /sessions: one of list/],
    [['sessions', 'frobnicate'], /no command "sessions frobnicate"/], [['sessions', 'show'], /ID is missing/],
    [['sessions', 'show', 'a', 'b'], /unexpected argument "b"/], [['sessions', 'show', ''], /ID is empty/],
    [['sessions', 'list', '--frobnicate'], /unknown option '--frobnicate'/],
    [['sessions', 'list', '--limit'], /option '--limit/], [['sessions', 'list', '--json=yes'], /--json/],
    [['sessions', 'list', '--limit', 'many'], /--limit must be a number/],
    [['get', 'things'], /no kind "things"/],
    [['apply'], /--file is missing/], [['leases', 'renew', 'x'], /--ttl is missing/],
    [['templates', 'save', 'nonsense', 'package.json'], /expected PLUGIN\/NAME/],
    [['audit', 'verify', 'package.json'], /--public-key is missing/],
    [['sessions', 'verify', 'package.json'], /--public-key is missing/]
  ]
  for (const [line, sentence] of wrong) {
    const { code, out, err } = await say(...line)
    assert.equal([code, out], [2, ''], line.join(' '))
    assert.match(err, sentence)
    assert.match(err, /usage: sallyport/)
  }
})

test('options may stand before, between and behind the words', () => {
  for (const line of ['--json sessions show x --config f', 'sessions --config f show --json x']) {
    const parsed = parseCommandLine(commands, line.split(' '))
    assert.is(parsed.kind, 'run')
    if (parsed.kind !== 'run') continue
    assert.equal([nameOf(parsed.command), parsed.args], ['sessions show', ['x']])
    assert.equal({ ...parsed.options }, { json: true, config: 'f' })
  }
})

test('an option has the same form in every command', () => {
  const seen = new Map<string, string>()
  for (const command of commands) {
    for (const [name, { type, short }] of Object.entries({ ...command.options, ...commonOptions })) {
      const form = `${type} ${short ?? ''}`
      assert.is(seen.get(name) ?? form, form, `${nameOf(command)} --${name}`)
      seen.set(name, form)
    }
  }
})

test('what follows -- is an argument, also when it looks like an option', () => {
  const parsed = parseCommandLine(commands, ['sessions', 'search', '--', '--drop'])
  assert.equal(parsed.kind === 'run' && parsed.args, ['--drop'])
  assert.throws(() => parseCommandLine(commands, ['sessions', 'search', '--drop']), (thrown: Error) =>
    thrown instanceof UsageError)
})

test('--version prints the version alone', async () => {
  assert.match((await say('--version')).out, /^\d+\.\d+\.\d+\n$/)
})

const hostile = 'a\x1b]52;c;ZQ==\x07b\x9b31mc\u202ed\u200be\r\nf\x00'

function captured(): { out: Output, text: () => string } {
  let text = ''
  const sink = { write: (more: string) => { text += more } }
  return { out: createOutput(sink, sink), text: () => text }
}

const active = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]/

test('lines, tables, lists and asides make hostile characters visible (R20)', () => {
  const { out, text } = captured()
  out.line(hostile)
  out.table(['NAME', hostile], [[hostile, 1], ['b', null]], '')
  out.list([['name', hostile]])
  out.aside(hostile)
  assert.not.match(text(), active)
  assert.match(text(), /\\x1b\]52;c;ZQ==\\x07b\\x9b31mc\\u202ed\\u200be/)
})

test('a table keeps its rows whatever is in a cell', () => {
  const { out, text } = captured()
  out.table(['NAME', 'SIZE'], [['two\nlines\tand a tab', 7], ['', true]], '')
  assert.equal(text().split('\n'), [
    'NAME                   SIZE', 'two\\nlines\\tand a tab  7', '-                      yes', ''
  ])
})

test('JSON escapes what would act on a terminal and stays the same value', () => {
  const { out, text } = captured()
  out.json({ name: hostile, emoji: '🚪' })
  assert.not.match(text(), active)
  assert.equal(JSON.parse(text()), { name: hostile, emoji: '🚪' })
  const lines = captured()
  lines.out.jsonLine({ name: hostile })
  assert.not.match(lines.text(), active)
  assert.is(lines.text().split('\n').length, 2)
})

test.run()
