// The example plugin, run as an admin's own would be: its template is admitted, accounts live and die in its
// file, and a runner that looks before and after keeps a plugin without fences honest.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { example } from '../plugins/example.ts'
import { systemClock } from '../src/clock.ts'
import { createHooks } from '../src/jit/hooks.ts'
import type { HookJob, HookResult, Hooks } from '../src/jit/hook.ts'
import { proveTemplates } from '../src/jit/prove.ts'
import { createShelf } from '../src/jit/shelf.ts'
import type { Template } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'

interface State {
  folder: string
  file: string
  hooks: Hooks
}

const shelf = createShelf([example])
const create = admitted('create', "[{ do: put, with: { key: '{{ key }}' } }]")
const remove = admitted('delete', '[{ do: drop }]')

function admitted(action: string, steps: string): Template {
  return shelf.admit(
    `id: example/${action}\nplugin: example\naction: ${action}\ntitle: x\nsteps: ${steps}`
  ).template
}

const lines = suite<State>('the example plugin')

lines.before.each(state => {
  state.folder = mkdtempSync(join(tmpdir(), 'sallyport-example-'))
  state.file = join(state.folder, 'accounts')
  writeFileSync(state.file, 'theirs:secret:\n')
  state.hooks = createHooks({ shelf, clock: systemClock, log: () => undefined })
})
lines.after.each(({ folder, hooks }) => {
  hooks.close()
  rmSync(folder, { recursive: true })
})

function job({ file }: State, template: Template, name = 'jit_0000001'): HookJob {
  const { inject, variables } = example.mint()
  return {
    action: template.action, pluginId: 'example', template, inject, variables,
    account: { name, accountId: 'mine', epoch: 1, kind: 'create' },
    access: {
      target: { name: 'file', protocol: 'file', host: file, port: 0, tls: { mode: 'disable' } },
      username: '', secret: { kind: 'password', password: new Secret('') }
    }
  }
}

async function run(state: State, template: Template, name?: string): Promise<HookResult> {
  return await state.hooks.run(job(state, template, name))
}

lines('an account is a line while it lives, and nothing afterwards', async state => {
  assert.is((await run(state, create)).state, 'done')
  assert.match(readFileSync(state.file, 'utf8'), /^theirs:secret:\njit_0000001:[0-9a-f]{32}:mine\n$/)
  assert.equal(await state.hooks.listOwned('example', job(state, create).access), [
    { name: 'theirs', accountId: '' }, { name: 'jit_0000001', accountId: 'mine' }
  ])
  assert.is((await run(state, remove)).state, 'done')
  assert.is(readFileSync(state.file, 'utf8'), 'theirs:secret:\n')
  const again = await run(state, remove)
  assert.equal([again.state, again.changed], ['done', false])
})

lines('an account of somebody else is left alone', async state => {
  assert.is((await run(state, create, 'theirs')).state, 'conflict')
  assert.is((await run(state, remove, 'theirs')).state, 'conflict')
  assert.is(readFileSync(state.file, 'utf8'), 'theirs:secret:\n')
})

lines('a file that is away is a target that cannot be reached', async state => {
  const away = { ...state, file: join(state.folder, 'absent') }
  assert.equal((await run(away, create)).code, 'target-unreachable')
})

lines('its templates are linted and proved', async state => {
  assert.throws(() => admitted('create', '[{ do: fly }]'), (error: unknown) =>
    JSON.stringify((error as { problems: string[] }).problems) === '["fly: put or drop"]')
  const options = {
    hooks: state.hooks, plugin: example, access: job(state, create).access, variables: {}, expiresAt: ''
  }
  const proof = await proveTemplates({ ...options, opening: create, closing: remove })
  assert.equal(proof.steps.map(({ name, passed }) => `${passed} ${name}`), [
    'true the account does not exist yet', 'true example/create', 'true it is there', 'true example/delete',
    'true nothing remains', 'true example/delete again'
  ])
  assert.ok(proof.passed)
  // A deletion that puts the line back is found out, and what it left is named.
  const broken = admitted('delete', '[{ do: put }]')
  const failed = await proveTemplates({ ...options, opening: create, closing: broken })
  assert.is(failed.passed, false)
  assert.match(failed.steps.find(step => !step.passed)?.detail ?? '', /the look says it exists/)
})

lines('it is as short as it says', () => {
  const source = readFileSync(join(import.meta.dirname, '../plugins/example.ts'), 'utf8')
  const code = source.split('\n').filter(line => line.trim() !== '' && !/^(\/\/|import)/.test(line))
  assert.ok(code.length <= 50, `${code.length} lines`)
})

lines.run()
