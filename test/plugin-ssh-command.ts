// deadline: 120 s
// Scripts of templates on a real sshd, as a login without any rights: an account is whatever the template
// says, seen by the look that it declares. Hostile values stay values, and a script that fails or dies is
// judged by looking.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { systemClock } from '../src/clock.ts'
import { createHooks } from '../src/jit/hooks.ts'
import type { HookJob, HookResult, Hooks } from '../src/jit/hook.ts'
import type { Access, AccountRef, Action, Variables, Verified } from '../src/jit/plugin.ts'
import { Secret } from '../src/secret.ts'
import { generateSshKey } from '../src/wire/ssh/key.ts'
import { startLinuxBox } from '../tool/linux-box.ts'
import type { LinuxBox } from '../tool/linux-box.ts'
import { shelf } from './peers/plugin-target.ts'

interface World {
  box: LinuxBox
  hooks: Hooks
  access: Access
  log: string[]
}

const life = suite<World>('ssh-command')
const file = '/home/hooks/accounts of "it"; $HOME'

life.before(async world => {
  world.box = await startLinuxBox()
  const key = generateSshKey()
  await world.box.addUser('hooks', key.publicKey)
  world.log = []
  world.hooks = createHooks({ shelf, clock: systemClock, log: line => world.log.push(line) })
  world.access = {
    target: {
      name: 'appliance', protocol: 'ssh', host: world.box.host, port: world.box.port,
      tls: { mode: 'disable' }, hostKeys: [world.box.hostKey]
    },
    username: 'hooks', secret: { kind: 'private-key', privateKey: new Secret(key.privateKey) }
  }
})
life.after(async ({ hooks, box }) => {
  hooks.close()
  await box.stop()
})

function shipped(action: string): string {
  const path = join(import.meta.dirname, `../templates/ssh-command/${action}-password-file.yaml`)
  return readFileSync(path, 'utf8')
}

const account = (name: string, epoch = 1): AccountRef =>
  ({ name, accountId: `of-${name}`, epoch, kind: 'create' })

function job(
  { access }: World, action: Action, ref: AccountRef, text = shipped(action), more: Variables = {}
): HookJob {
  const { variables } = shelf.plugin('ssh-command').mint()
  return {
    action, pluginId: 'ssh-command', template: shelf.admit(text).template, account: ref, access,
    variables: { file, expires_at: '2099-01-01T00:00:00Z', ...action === 'create' ? variables : {}, ...more }
  }
}

async function run(
  world: World, action: Action, ref: AccountRef, text?: string, more?: Variables
): Promise<HookResult> {
  return await world.hooks.run(job(world, action, ref, text, more))
}

async function look(world: World, ref: AccountRef): Promise<Verified> {
  return await world.hooks.verify(job(world, 'delete', ref))
}

life('an account is what the template says, as the login of the hooks, and is gone', async world => {
  const made = await run(world, 'create', account('jit_1'))
  assert.equal([made.state, made.seen?.ours, made.seen?.enabled], ['done', true, true], made.error)
  const line = await world.box.run(`cat '${file}'; stat -c %U '${file}'`)
  assert.match(line, /^jit_1:ssh-ed25519 \S+.*:sallyport\/of-jit_1\nhooks$/)
  const removed = await run(world, 'delete', account('jit_1', 2))
  assert.equal([removed.state, removed.seen?.exists], ['done', false], removed.error)
  assert.is(await world.box.run(`cat '${file}'`), '')
  assert.is((await run(world, 'delete', account('jit_1', 3))).changed, false)
})

life('an account of that name that is not ours is never touched', async world => {
  await world.box.run(`echo 'jit_2:key:theirs' > '${file}'; chown hooks '${file}'`)
  assert.is((await run(world, 'create', account('jit_2'))).state, 'conflict')
  assert.is((await run(world, 'delete', account('jit_2', 2))).state, 'conflict')
  assert.is(await world.box.run(`cat '${file}'`), 'jit_2:key:theirs')
})

life('a step that fails is a refusal with its name; one that is killed is unknown', async world => {
  const text = (steps: string): string =>
    shipped('create').replace(/steps:[\s\S]*?look:/, () => `steps:\n${steps}look:`)
  const failing = text('  - { name: first, script: \'true\' }\n'
    + '  - { name: second, script: \'echo no >&2; exit 3\' }\n')
    + 'undo:\n  - { name: take back, script: \'echo undone > "$JIT_FILE.undo"\' }\n'
  const refused = await run(world, 'create', account('jit_3'), failing)
  assert.equal([refused.state, refused.failedStep, refused.error], ['refused', 'second', 'exit 3: no'])
  assert.is(await world.box.run(`cat '${file}.undo'`), 'undone')
  const dying = text('  - { name: dies, script: \'kill -9 $PPID $$\' }\n')
  const unknown = await run(world, 'create', account('jit_3'), dying)
  assert.equal([unknown.state, unknown.seen?.exists], ['unknown', false])
})

life('no value of a variable is ever shell text', async world => {
  const echo = `id: ssh-command/echo\nplugin: ssh-command\naction: create\ntitle: Echo
variables: { word: { description: d } }
steps: [{ script: 'printf "%s" "$JIT_WORD" > /home/hooks/word' }]
look: [{ script: 'if test -e /home/hooks/word; then echo exists; echo ours; echo enabled; fi' }]\n`
  for (const word of ['$(id)', '`id`', '\'; id; \'', '"\n}\nid', '-n', '\\', 'ü😀', '${HOME}']) {
    await world.box.run('rm -f /home/hooks/word')
    const made = await run(world, 'create', account('jit_4'), echo, { word })
    assert.is(made.state, 'done', made.error)
    assert.is(await world.box.run('cat /home/hooks/word'), word)
  }
})

life('a look that says anything else, or does not come to its end, is no look', async world => {
  const saying = (script: string): string =>
    shipped('delete').replace(/look:[\s\S]*/, () => `look:\n  - script: |\n      ${script}\n`)
  const bads = [
    'echo exists ours; echo gone', 'echo exists; false; echo ours', 'echo exists; echo ours; kill -9 $$'
  ]
  for (const script of bads) {
    const refused = await world.hooks.verify(job(world, 'delete', account('jit_5'), saying(script))).then(
      () => 'looked', (error: { code: string }) => error.code)
    assert.is(refused, 'hook-failed', script)
  }
  const live = saying('echo exists; echo ours; echo sessions 2; echo left cron /etc/cron.d/x y')
  const seen = await world.hooks.verify(job(world, 'delete', account('jit_5'), live))
  assert.equal(seen, {
    exists: true, enabled: false, ours: true, sessions: 2,
    residue: [{ kind: 'cron', name: '/etc/cron.d/x y', fate: 'left' }]
  })
  assert.is((await look(world, account('jit_5'))).exists, false)
})

life('lint wants scripts and a look that says whose the account is', () => {
  const head = 'id: ssh-command/mine\nplugin: ssh-command\naction: create\ntitle: Mine\n'
  const problemsOf = (text: string): string => {
    try {
      return shelf.admit(head + text).warnings.join('\n')
    } catch (error) {
      return (error as { problems: string[] }).problems.join('\n')
    }
  }
  assert.match(problemsOf('steps: [{ script: \'true\' }]'), /look: is missing/)
  const half = 'steps: [{ script: \'true\' }]\nlook: [{ script: echo exists }]'
  assert.match(problemsOf(half), /never says `ours`/)
  const look = 'look: [{ script: \'echo exists; echo ours\' }]'
  assert.match(problemsOf(`steps: [{ do: place-key }]\n${look}`), /write script/)
  assert.match(problemsOf(`steps: [{ http: GET }]\n${look}`), /ssh-command speaks no HTTP/)
})

life('doctor hears what system it is', async ({ hooks, access }) => {
  assert.is((await hooks.probe('ssh-command', access)).version, 'Linux')
})

life.run()
