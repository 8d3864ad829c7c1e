// What the Linux plugin says of a template before any host has seen it: the shipped ones are sound, mistakes
// are named with their path, risks are advice, and a plan shows no secret.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { linux } from '../plugins/linux.ts'
import { parseTemplate } from '../src/jit/template.ts'
import { linuxTemplate } from './peers/linux-target.ts'

const lint = suite('linux lint')

function template(action: string, steps: string, more = ''): ReturnType<typeof parseTemplate> {
  const head = `id: linux/mine\nplugin: linux\naction: ${action}\ntitle: x`
  return parseTemplate(`${head}\n${more}\nsteps:\n${steps}`)
}

const make = "  - { do: make-account, with: { until: '{{ expires_at }}' } }\n"

lint('the shipped templates have no problems and no advice', () => {
  const users = ['create-user', 'delete-user', 'enable-user', 'disable-user']
  for (const name of [...users, 'create-user-certificate', 'enable-user-certificate']) {
    const shipped = linuxTemplate(name)
    assert.equal([linux.lint(shipped), linux.advise?.(shipped)], [[], []], name)
  }
  for (const name of ['grant-group', 'revoke-group', 'grant-sudo', 'revoke-sudo']) {
    assert.equal(linux.lint(linuxTemplate(name)), [], name)
  }
})

const mistakes: readonly [action: string, steps: string, more: string, problem: string][] = [
  ['create', '  - { script: id }', '', 'steps[0]: must be make-account'],
  ['create', `${make}  - { sql: SELECT 1 }`, '', 'steps[1].sql: a host has no SQL'],
  ['create', `${make}  - { do: fly }`, '', 'steps[1].do: there is no fly'],
  ['create', '  - { do: make-account }', '', 'steps[0].with.until: make-account needs it'],
  ['create', `${make}  - { do: end-processes, with: { hard: 'yes' } }`, '', 'steps[1].with.hard: '],
  ['enable', '  - { do: add-to-groups }', '', 'variables.roles: a verb takes the groups'],
  ['enable', '  - { do: allow-logins, with: { until: x } }', 'proof: privileges', 'proof: privileges looks'],
  ['enable', '  - { do: add-to-groups }', 'variables: { roles: { description: x } }', 'variables.roles'],
  ['disable', '  - { do: refuse-logins }', 'injection: certificate', 'injection: is for create and enable'],
  ['enable', "  - { do: place-key, with: { key: '{{ public_key }}', until: '{{ expires_at }}' } }",
    'injection: certificate', 'injection: with a certificate the host gets no key']
]

for (const [action, steps, more, problem] of mistakes) {
  lint(`${problem} …`, () => {
    const found = linux.lint(template(action, steps, more))
    assert.ok(found.some(one => one.startsWith(problem)), found.join('\n'))
  })
}

lint('risks are advice', () => {
  const risky = (steps: string, action = 'create'): string =>
    linux.advise?.(template(action, steps)).join('\n') ?? ''
  assert.match(risky(make), /no place-key/)
  assert.match(risky(`${make}  - { script: 'sh -c "$JIT_USERNAME"' }`), /read a value as shell text again/)
  assert.match(risky(`${make}  - { script: 'useradd "$JIT_USERNAME"' }`), /made and removed with/)
  const rule = "  - { do: place-sudo-rule, with: { rule: 'ALL=(ALL) NOPASSWD: ALL' } }"
  assert.match(risky(rule, 'enable'), /is root/)
  const removal = risky('  - { do: end-processes }\n  - { do: refuse-logins }', 'delete')
  for (const advice of [/after refuse-logins/, /no remove-jobs/, /no hand-over-files/, /no remove-account/]) {
    assert.match(removal, advice)
  }
})

lint('a plan shows every step and no secret, and a fresh key is another each time', () => {
  const [first, second] = [linux.mint(), linux.mint()]
  const key = first.variables['public_key']!.expose()
  assert.not.equal(key, second.variables['public_key']!.expose())
  const steps = template('create', `${make}
  - { do: place-key, with: { key: '{{ public_key }}', until: '2030-01-01' } }
  - { script: 'echo "$JIT_PUBLIC_KEY" "$JIT_USERNAME"' }`)
  const planned = linux.plan(steps, { ...first.variables, username: 'jit_1234567' })
  assert.is(planned.length, 3)
  const text = JSON.stringify(planned)
  assert.not.ok(text.includes(key), text)
  assert.ok(text.includes('jit_1234567') && text.includes('********'), text)
})

lint.run()
