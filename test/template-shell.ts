// R16 for the shell: values arrive in scripts as quoted variables. More than 200 hostile values go through sh
// and bash, each comes back exactly or is refused before anything runs, and none has an effect. And what a
// scan of a script finds at save time.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import type { Variables } from '../src/jit/plugin.ts'
import { scanScript } from '../src/jit/shell-text.ts'
import { parseTemplate, renderStep } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'

const shell = suite<{ folder: string }>('shell text')

shell.before(state => {
  state.folder = mkdtempSync(join(tmpdir(), 'sallyport-test-'))
})
shell.after(({ folder }) => {
  rmSync(folder, { recursive: true })
})

function hostileValues(): string[] {
  const cores = ['touch hit', 'id > hit', 'kill -9 $$', ': > hit', 'exit 7', 'rm -rf x > hit']
  const around = [
    ['; ', ''], ["'; ", ";'"], ['"; ', ';"'], ["'\\''; ", '; #'], ['$(', ')'], ['`', '`'], ['${x:-$(', ')}'],
    ['\n', '\n'], ['\r\n', ''], ["'\n", "\n'"], ['&& ', ''], ['| ', ''], ['& ', ' &'], ['\\\n', ''],
    ['} < /dev/null; ', '; {'], ["'} ; ", '; #'], ['EOF\n', '\nEOF'], ['<(', ')'], ['"$(', ')"'],
    ["$'\\n", "'"],
    ['=(', ')'], ['$((', '))'], ['!', '!'], ['*; ', ''], ['x=`', '`'], ['\u0000', ''], ['\ud800; ', ''],
    ['~/; ', ''], ['#\n', ''], ['\t\f\v; ', ''], ['%s\\n; ', ''], ['-n ', ''], ['-e \\n', '']
  ]
  return [
    ...around.flatMap(([before, after]) => cores.map(core => `${before}${core}${after}`)),
    '', ' ', '  a  ', '\n', '\n\n', 'a\n', '\t', "'", "''", "'''",
    '"', '\\', '\\\\', "\\'", '$', '$$', '$IFS', '*', '?',
    '[a]', '~', '~root', '{a,b}', '-', '--', '-rf', '#', '!', '!!', 'Ünï', '数据', '😀', '\u202e', '\ufeff',
    '\u0001', '\u007f', '\u0085', '\u2028',
    '{{ 7 * 7 }}', '{% if x %}', '%s%n', 'x'.repeat(5000), '$JIT_Y',
    '\u001b[31m'
  ]
}

function templateOf(script: string, more = ''): ReturnType<typeof parseTemplate> {
  return parseTemplate(`id: linux/hostile\nplugin: linux\naction: create\ntitle: x
variables: { x: { description: x }, xs: { description: xs, list: true, required: false } ${more} }
steps:\n  - script: ${JSON.stringify(script)}`)
}

function rendered(script: string, values: Variables, masked = false): string {
  const template = templateOf(script)
  return renderStep(template, template.steps[0]!, values, { masked }).script ?? ''
}

function refusal(act: () => unknown): string {
  try {
    act()
  } catch (error) {
    if (error instanceof SallyportError && error.code === 'invalid') {
      return [error.detail, ...error.problems].join('\n')
    }
    throw error
  }
  return ''
}

for (const program of ['sh', 'bash']) {
  shell(`${program}: every value comes back as it is or is refused, and none has an effect`, ({ folder }) => {
    const values = hostileValues()
    assert.ok(values.length >= 200, String(values.length))
    let [exact, refused] = [0, 0]
    for (const value of values) {
      const broken = value.includes('\0') || !value.isWellFormed()
      const script = `printf %s "$JIT_X"; for item in "\${JIT_X}"; do printf '|%s' "$item"; done`
      let text = ''
      if (refusal(() => { text = rendered(script, { x: value }) }) !== '') {
        assert.ok(broken, JSON.stringify(value))
        refused++
        continue
      }
      const ran = spawnSync(program, ['-s'], { input: text, cwd: folder, encoding: 'utf8' })
      assert.equal([ran.status, ran.stdout, ran.stderr], [0, `${value}|${value}`, ''], JSON.stringify(value))
      exact++
    }
    assert.equal(readdirSync(folder), [])
    assert.ok(refused >= 12 && exact >= 200, `${exact} exact, ${refused} refused`)
  })

  shell(`${program}: half of a script runs nothing, and no command reads the rest of it`, ({ folder }) => {
    const text = rendered('cat\ntouch done\necho "$JIT_X"', { x: 'end' })
    for (let length = 0; length < text.trimEnd().length; length++) {
      const ran = spawnSync(program, ['-s'], { input: text.slice(0, length), cwd: folder, encoding: 'utf8' })
      assert.is(ran.stdout, '')
      assert.not(existsSync(join(folder, 'done')), text.slice(0, length))
    }
    const whole = spawnSync(program, ['-s'], { input: text, cwd: folder, encoding: 'utf8' })
    assert.is(whole.stdout, 'end\n')
    rmSync(join(folder, 'done'))
  })

  shell(`${program}: a value cannot be set again`, ({ folder }) => {
    const text = rendered('eval "$(printf "%s=two" "J""IT_X")"; echo "$JIT_X"', { x: 'one' })
    const ran = spawnSync(program, ['-s'], { input: text, cwd: folder, encoding: 'utf8' })
    assert.not.match(ran.stdout, /two/)
    assert.match(ran.stderr, /JIT_X.*(?:read.?only|is read only)/)
  })
}

shell('a list is plain words, so that it may be split; what is absent is empty', ({ folder }) => {
  const script = 'for x in $JIT_XS; do echo "<$x>"; done; echo "[$JIT_XS]$JIT_X"'
  const run = (values: Variables): string =>
    spawnSync('sh', ['-s'], { input: rendered(script, values), cwd: folder, encoding: 'utf8' }).stdout
  assert.is(run({ x: 'x', xs: ['a', 'b.c', 'd@e:f'] }), '<a>\n<b.c>\n<d@e:f>\n[a b.c d@e:f]x\n')
  assert.is(run({ x: 'x' }), '[]x\n')
  assert.match(refusal(() => rendered(script, { xs: [] })), /variable x is missing/)
  for (const item of ['a b', '*', '-rf', '', "a'b", 'a\nb', '$(id)', '~', 'a?', '[a]', 'é']) {
    assert.match(refusal(() => rendered(script, { x: 'x', xs: ['good', item] })), /variable xs has an item/)
  }
})

shell('secrets are in the script and masked in a plan', () => {
  const values = { x: new Secret('very secret') }
  assert.ok(rendered('echo "$JIT_X"', values).includes("JIT_X='very secret'"))
  const shown = rendered('echo "$JIT_X"', values, true)
  assert.ok(shown.includes("JIT_X='********'") && !shown.includes('very secret'), shown)
})

const refusedScripts: readonly [script: string, problem: RegExp][] = [
  ['echo {{ x }}', /no \{\{ \}\}/],
  ['echo "{{ x }}"', /no \{\{ \}\}/],
  ['{% if x %}id{% endif %}', /no \{\{ \}\}/],
  ['echo \0', /NUL/],
  ['echo $JIT_X', /outside of quotes is split/],
  ['echo ${JIT_X}', /outside of quotes is split/],
  ['echo ${JIT_X:-y}', /outside of quotes is split/],
  ['echo "a"$JIT_X"b"', /outside of quotes is split/],
  ['echo "$(echo $JIT_X)"', /outside of quotes is split/],
  ['echo "$(echo \\"$JIT_X\\")"', /outside of quotes is split/],
  ['echo "$(echo (a) $JIT_X)"', /outside of quotes is split/],
  ['echo ${y:-$JIT_X}', /outside of quotes is split/],
  ["echo '$JIT_X'", /single quotes/],
  ['JIT_X=1', /JIT_X is only read/],
  ['read JIT_X', /JIT_X is only read/],
  ['echo "$JIT_x"', /in capitals/],
  ['echo "$JIT_"', /in capitals/],
  ['echo `id`', /backquotes/],
  ['echo "`id`"', /backquotes/],
  ["echo $'a'", /use printf/],
  ['cat <<EOF\nx\nEOF', /here-documents/],
  ['echo "$(case x in x) echo $JIT_X;; esac)"', /no `case`/],
  ['echo "open', /not closed/],
  ["echo 'open", /not closed/],
  ['echo "$(id"', /not closed/],
  ['x'.repeat(70_000), /longer than/]
]

for (const [script, problem] of refusedScripts) {
  shell(`at save: ${JSON.stringify(script.slice(0, 60))} is refused`, () => {
    assert.match(refusal(() => templateOf(script)), problem)
  })
}

shell('at save: what is fine is let through, and names every variable', () => {
  const script = `
    # a comment about JIT_X and 'quotes
    useradd -c "a $JIT_X \${JIT_Y:-"$JIT_X"}" -- "$JIT_USERNAME"   # it's fine
    for role in $JIT_XS; do usermod -aG "$role" -- "$JIT_USERNAME"; done
    [ "\${#x}" -gt 2 ] && x="$(cat "$JIT_X" | (sed 's/a"b/c/'; echo "(") | wc -l)"
    awk -F: '{ print $1 }' /etc/passwd
    case "$JIT_X" in a) id ;; *) true ;; esac
    echo \\" \\' $# $? $$ $1 \${1} "\\"$JIT_Z\\""`
  const { uses, split, problems } = scanScript(script)
  assert.equal(problems, [])
  assert.equal([...uses].sort(), ['username', 'x', 'xs', 'y', 'z'])
  assert.equal([...split], ['xs'])
})

shell('at save: a step is one of sql, script, http and do', () => {
  const text = (step: string): string =>
    `id: linux/x\nplugin: linux\naction: create\ntitle: x\nsteps:\n  - ${step}`
  for (const step of ['{ script: id, sql: SELECT 1 }', '{ name: x }']) {
    assert.match(refusal(() => parseTemplate(text(step))), /must have one of sql, script, http and do/)
  }
  const each = text('{ script: id, eachDatabase: true }')
  assert.match(refusal(() => parseTemplate(each)), /is for sql steps/)
  assert.match(refusal(() => parseTemplate(text('{ script: id, with: { a: b } }'))), /is for do steps/)
  assert.is(parseTemplate(text('{ script: id }')).steps[0]?.name, 'script')
})

shell.run()
