// The hook runner with a plugin that does what a test tells it and a clock that a test moves: nothing is
// believed that a look did not show, every wait has an end, a bad target holds up nobody else, and no secret
// gets into a message.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import { createHooks } from '../src/jit/hooks.ts'
import type { HookJob, Hooks } from '../src/jit/hook.ts'
import type { HookLimits } from '../src/jit/hooks.ts'
import { defaultNamePattern, isMintableName, mintName, namePatternProblems } from '../src/jit/names.ts'
import type { Action, Outcome, Plugin, Residue, Verified } from '../src/jit/plugin.ts'
import { createRedactor } from '../src/jit/redact.ts'
import { createShelf } from '../src/jit/shelf.ts'
import { parseTemplate } from '../src/jit/template.ts'
import { Secret } from '../src/secret.ts'

class ManualClock {
  #nowMs = 0
  #timers: { dueMs: number, act: () => void }[] = []

  now(): Date {
    return new Date(this.#nowMs)
  }

  monotonicMs(): number {
    return this.#nowMs
  }

  after(delayMs: number, act: () => void): () => void {
    const timer = { dueMs: this.#nowMs + delayMs, act }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter(other => other !== timer)
    }
  }

  /** Moves on and lets everything that waits for it run. */
  async pass(ms: number): Promise<void> {
    this.#nowMs += ms
    for (const timer of this.#timers.filter(({ dueMs }) => dueMs <= this.#nowMs)) {
      this.#timers = this.#timers.filter(other => other !== timer)
      timer.act()
      await settled()
    }
    await settled()
  }
}

/** Lets everything run that only waits for promises. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise(resolve => setImmediate(resolve))
}

const absent: Verified = { exists: false, enabled: false, ours: false, sessions: 0, residue: [] }
const present: Verified = { exists: true, enabled: true, ours: true, sessions: 0, epoch: 1, residue: [] }
const shut: Verified = { ...present, enabled: false }
const done: Outcome = { state: 'done', changed: true, residue: [] }

type Run = Plugin['run']
type Verify = Plugin['verify']

interface Stage {
  hooks: Hooks
  clock: ManualClock
  log: string[]
  recovered: string[]
}

function stage(
  parts: {
    run?: Run, verify?: Verify, probe?: Plugin['probe'], knock?: Plugin['knock'], fences?: boolean,
    runTogether?: Plugin['runTogether'], verifyTogether?: Plugin['verifyTogether']
  }, limits: Partial<HookLimits> = {}
): Stage {
  const plugin: Plugin = {
    id: 'fake', apiVersion: 1, actions: new Set<Action>(['create', 'delete', 'enable', 'disable']),
    canEnableItself: false, fences: parts.fences ?? true, variables: { username: 'name' },
    lint: () => [], plan: () => [],
    mint: () => ({ inject: { kind: 'password', password: new Secret('x') }, variables: {} }),
    knock: parts.knock ?? (async () => false),
    probe: parts.probe ?? (async () => ({ version: '1', missingRights: [], warnings: [] })),
    run: parts.run ?? (async () => done),
    verify: parts.verify ?? (async () => absent),
    ...parts.runTogether === undefined ? {} : { runTogether: parts.runTogether },
    ...parts.verifyTogether === undefined ? {} : { verifyTogether: parts.verifyTogether },
    listOwned: async () => []
  }
  const clock = new ManualClock()
  const [log, recovered]: [string[], string[]] = [[], []]
  const shelf = createShelf([plugin])
  const options = { shelf, clock, limits, log: (line: string) => log.push(line) }
  return {
    hooks: createHooks({ ...options, onRecovered: target => recovered.push(target) }), clock, log, recovered
  }
}

function job(action: Action, { target = 'one', name = 'jit_1', ...rest }: Partial<HookJob> & {
  target?: string, name?: string
} = {}): HookJob {
  const text = `id: fake/it\nplugin: fake\naction: ${action}\ntitle: x\nsteps: [{ do: it }]`
  return {
    action, pluginId: 'fake', template: parseTemplate(text),
    account: {
      name, accountId: 'a', epoch: 1, kind: action === 'enable' || action === 'disable' ? 'enable' : 'create'
    },
    access: {
      target: { name: target, protocol: 'postgres', host: '127.0.0.1', port: 1, tls: { mode: 'disable' } },
      username: 'admin', secret: { kind: 'password', password: new Secret('admin-password') }
    },
    variables: {}, ...rest
  }
}

/** A promise that a test settles. */
function gate<T>(): { promise: Promise<T>, open: (value: T) => void } {
  let open = (_value: T): void => undefined
  const promise = new Promise<T>(resolve => {
    open = resolve
  })
  return { promise, open }
}

const unreachable = async (): Promise<never> => {
  throw new SallyportError('target-unreachable', { detail: 'no route' })
}

test('done means that a look showed it (J15)', async () => {
  const cases: [Action, Verified, string][] = [
    ['create', present, 'done'], ['create', absent, 'refused'], [
      'create', { ...present, ours: false }, 'refused'
    ],
    ['create', shut, 'refused'], ['enable', present, 'done'], ['enable', shut, 'refused'],
    ['delete', absent, 'done'], ['delete', shut, 'refused'], ['delete', present, 'refused'],
    ['disable', shut, 'done'], ['disable', { ...shut, sessions: 1 }, 'refused'], [
      'disable', present, 'refused'
    ],
    ['disable', absent, 'done']
  ]
  for (const [action, seen, state] of cases) {
    const result = await stage({ verify: async () => seen }).hooks.run(job(action))
    assert.is(result.state, state, `${action} ${JSON.stringify(seen)}`)
    assert.equal(result.seen, seen)
    assert.is(result.retryable, state === 'refused')
  }
})

test('a removal that says done is not believed when nobody could look', async () => {
  const result = await stage({ verify: unreachable }).hooks.run(job('delete'))
  assert.equal([result.state, result.retryable, result.seen], ['unknown', true, undefined])
})

test('a role that is shut and has no session is quarantined', async () => {
  const refused: Outcome = {
    state: 'refused', failedStep: 'drop', error: '2BP01', retryable: true, residue: []
  }
  const result = await stage({ run: async () => refused, verify: async () => shut }).hooks.run(job('delete'))
  assert.equal([result.state, result.quarantined, result.failedStep], ['refused', true, 'drop'])
  const live = stage({ run: async () => refused, verify: async () => ({ ...shut, sessions: 1 }) })
  assert.is((await live.hooks.run(job('delete'))).quarantined, false)
})

test('a lost answer is settled by looking: our own epoch shows that a creation took effect', async () => {
  const lost: Outcome = { state: 'unknown', failedStep: 'make', error: 'closed' }
  const outcome = async (action: Action, seen: Verified): Promise<string> =>
    (await stage({ run: async () => lost, verify: async () => seen }).hooks.run(job(action))).state
  assert.is(await outcome('create', present), 'done')
  assert.is(await outcome('create', { ...present, epoch: 0 }), 'unknown')
  assert.is(await outcome('create', absent), 'unknown')
  assert.is(await outcome('delete', absent), 'done')
  assert.is(await outcome('delete', present), 'unknown')
  assert.is(await outcome('disable', shut), 'done')
})

test('what a plugin throws in the middle may have happened; a failed login or template did not', async () => {
  const thrown = stage({ run: async () => { throw new TypeError('defect') } })
  assert.is((await thrown.hooks.run(job('create'))).state, 'unknown')
  for (const [code, retryable] of [
    ['target-refused', true], ['target-untrusted', true], ['invalid', false]
  ] as const) {
    const { hooks } = stage({ run: async () => { throw new SallyportError(code, { detail: 'why' }) } })
    const result = await hooks.run(job('create'))
    assert.equal([result.state, result.code, result.retryable], ['refused', code, retryable])
  }
  const none = await stage({}).hooks.run({ ...job('create'), pluginId: 'absent' })
  assert.equal([none.state, none.code], ['refused', 'not-found'])
})

test('an account that is not ours is a conflict; one that is absent needs no removal', async () => {
  let ran = 0
  const count: Run = async () => {
    ran++
    return done
  }
  const foreign = stage({ run: count, verify: async () => ({ ...present, ours: false }), fences: false })
  for (const action of ['create', 'delete'] as const) {
    const result = await foreign.hooks.run(job(action))
    assert.equal([result.state, result.code, result.retryable], ['conflict', 'account-conflict', false])
  }
  const gone = await stage({ run: count, fences: false }).hooks.run(job('delete'))
  assert.equal([gone.state, gone.changed, ran], ['done', false, 0])
})

test('a plugin that cannot fence hears what was seen before it runs', async () => {
  const heard: (Verified | undefined)[] = []
  const { hooks } = stage({
    fences: false, verify: async () => present,
    run: async (_access, _template, _account, _variables, context) => {
      heard.push(context.before)
      return done
    }
  })
  assert.is((await hooks.run(job('create'))).state, 'done')
  assert.equal(heard, [present])
})

test('a plugin that never answers is left alone; other targets do not notice (F10, F12)', async () => {
  const { hooks, clock } = stage({
    run: async ({ target }) => target.name === 'hung' ? await new Promise<never>(() => undefined) : done,
    verify: async ({ target }) => target.name === 'hung' ? await new Promise<never>(() => undefined) : absent
  })
  const hung = hooks.run(job('delete', { target: 'hung' }))
  await settled()
  assert.is((await hooks.run(job('delete', { target: 'other' }))).state, 'done')
  await clock.pass(30_000)
  await clock.pass(1000)
  await clock.pass(10_000)
  await clock.pass(1000)
  const result = await hung
  assert.equal([result.state, result.code, result.retryable], ['unknown', 'hook-timeout', true])
  assert.equal(hooks.health().find(({ target }) => target === 'hung')?.running ?? 0, 0)
})

test('the signal reaches the plugin at the limit, and when the session is gone', async () => {
  const reasons: unknown[] = []
  const obedient: Run = async (_access, _template, _account, _variables, { signal }) => {
    await new Promise(resolve => signal.addEventListener('abort', resolve))
    reasons.push(signal.reason)
    return { state: 'unknown', failedStep: 'it', error: 'stopped' }
  }
  const { hooks, clock } = stage({ run: obedient })
  const slow = hooks.run(job('delete'))
  await settled()
  await clock.pass(30_000)
  await slow
  const killed = new AbortController()
  const cut = hooks.run(job('delete', { signal: killed.signal }))
  await settled()
  killed.abort(new SallyportError('session-killed'))
  await cut
  assert.equal(reasons.map(reason => (reason as SallyportError).code), ['hook-timeout', 'session-killed'])
})

test('nothing begins after the claim has lapsed, and the plugin hears how long it lasts', async () => {
  const left: number[] = []
  const { hooks, clock } = stage({
    verify: async () => present,
    run: async (_access, _template, _account, _variables, context) => {
      left.push(context.remainingMs())
      return done
    }
  })
  await clock.pass(1000)
  assert.is((await hooks.run(job('create', { claimEndsMs: 3500 }))).state, 'done')
  assert.is((await hooks.run(job('create'))).state, 'done')
  const late = await hooks.run(job('create', { claimEndsMs: 1000 }))
  assert.equal([late.state, late.code], ['refused', 'hook-timeout'])
  assert.equal(left, [2500, 30_000])
})

test('at most so many actions run on a target, one at a time on an account', async () => {
  const gates: { name: string, open: (value: Outcome) => void }[] = []
  const { hooks } = stage({
    run: async (_access, _template, { name }) => {
      const { promise, open } = gate<Outcome>()
      gates.push({ name, open })
      return await promise
    }
  }, { parallel: 3 })
  const names = ['a', 'a', 'b', 'c', 'd', 'a']
  const runs = names.map(name => hooks.run(job('delete', { name })))
  await settled()
  assert.equal(gates.map(({ name }) => name), ['a', 'b', 'c'])
  assert.equal([hooks.health()[0]?.running, hooks.health()[0]?.waiting], [3, 3])
  for (let index = 0; index < names.length; index++) {
    gates[index]?.open(done)
    await settled()
  }
  assert.equal(gates.map(({ name }) => name), ['a', 'b', 'c', 'a', 'd', 'a'])
  assert.equal((await Promise.all(runs)).map(({ state }) => state), names.map(() => 'done'))
})

test('who waits while a group is under way is in the next; what does not go with it goes alone', async () => {
  const said: string[] = []
  const gates = [gate<void>(), gate<void>()]
  const shared = job('delete')
  const { hooks } = stage({
    async runTogether(_access, _template, errands) {
      const names = errands.map(({ account }) => account.name)
      said.push(`visit ${names.join(' ')}`)
      await gates[said.length - 1]?.promise
      return names.map(name => name === 'jit_3' ? undefined : done)
    },
    async verifyTogether(_access, _template, errands) {
      said.push(`look ${errands.map(({ account }) => account.name).join(' ')}`)
      return errands.map(({ account }) => account.name === 'jit_2' ? undefined : absent)
    },
    run: async (_access, _template, { name }) => {
      said.push(`run ${name}`)
      return done
    },
    verify: async (_access, { name }) => {
      said.push(`look ${name} alone`)
      return absent
    }
  }, { groupsMax: 1, gatherMs: 0 })
  const remove = (name: string, accountId = 'a'): Promise<unknown> =>
    hooks.run({ ...shared, account: { ...shared.account, name, accountId } })
  const all = [remove('jit_1'), remove('jit_2'), remove('jit_3'), remove('jit_2', 'again')]
  // Another login is another group.
  all.push(hooks.run(job('delete', { name: 'jit_9' })))
  await settled()
  assert.equal(said, ['visit jit_1', 'visit jit_9'])
  for (const { open } of gates) open()
  await Promise.all(all)
  const rest = said.slice(2).filter(each => !each.includes('jit_9'))
  assert.equal(rest.slice(0, 4), ['look jit_1', 'visit jit_2 jit_3', 'look jit_2', 'look jit_2 alone'])
  assert.equal(rest.slice(4).sort(), [
    'look jit_2', 'look jit_2 alone', 'look jit_3 alone', 'run jit_3', 'visit jit_2'
  ])
})

test('who comes alone goes at once, a moment later with others; full groups go side by side', async () => {
  const visits: string[] = []
  const { promise, open } = gate<void>()
  const { hooks, clock } = stage({
    async runTogether(_access, _template, errands) {
      visits.push(errands.map(({ account }) => account.name).join(' '))
      if (visits.length === 3) await promise
      return errands.map(() => done)
    },
    verifyTogether: async (_access, _template, errands) => errands.map(() => absent)
  }, { togetherMax: 3, gatherMs: 5, busyMs: 100 })
  const shared = job('delete')
  const remove = (...names: string[]): Promise<unknown> => Promise.all(
    names.map(name => hooks.run({ ...shared, account: { ...shared.account, name } })))
  await remove('a')
  const [b, c] = [remove('b'), remove('c')]
  await clock.pass(4)
  assert.equal(visits, ['a'])
  await clock.pass(1)
  await Promise.all([b, c])
  assert.equal(visits, ['a', 'b c'])
  await clock.pass(100)
  const last = remove('d')
  await settled()
  // The first of them is under way: two are not enough for another, three are.
  const more = remove('e', 'f')
  await settled()
  assert.equal(visits.slice(2), ['d'])
  const full = remove('g')
  await settled()
  assert.equal(visits.slice(2), ['d', 'e f g'])
  open()
  await Promise.all([last, more, full])
})

test('who waits for others when the queue closes, or comes later, is refused', async () => {
  const { hooks, clock } = stage({
    runTogether: async (_access, _template, errands) => errands.map(() => done),
    verifyTogether: async (_access, _template, errands) => errands.map(() => absent)
  })
  const shared = job('delete')
  const remove = (name: string): Promise<unknown> =>
    hooks.run({ ...shared, account: { ...shared.account, name } }).then(({ state, code }) => [state, code])
  assert.equal(await remove('a'), ['done', undefined])
  const waiting = remove('b')
  await settled()
  hooks.close()
  const late = Promise.race([remove('c'), clock.pass(1000).then(() => 'still waits')])
  assert.equal([await waiting, await late], [['refused', 'shutting-down'], ['refused', 'shutting-down']])
})

test('openings and closings take turns', async () => {
  const order: string[] = []
  const { hooks } = stage({
    run: async (_access, template) => {
      order.push(template.action)
      return done
    },
    verify: async (_access, { name }) => name.startsWith('open') ? present : absent
  }, { parallel: 1 })
  const closings = Array.from(
    { length: 4 }, (_, index) => hooks.run(job('delete', { name: `close${index}` }))
  )
  const openings = Array.from({ length: 3 }, (_, index) => hooks.run(job('create', { name: `open${index}` })))
  await Promise.all([...closings, ...openings])
  assert.equal(order, ['delete', 'create', 'delete', 'create', 'delete', 'create', 'delete'])
})

test('who waits can give up, and a queue has an end', async () => {
  const { promise, open } = gate<Outcome>()
  const { hooks } = stage({ run: async () => await promise }, { parallel: 1, waitingMax: 1 })
  const first = hooks.run(job('delete', { name: 'a' }))
  const leaving = new AbortController()
  const second = hooks.run(job('delete', { name: 'b', signal: leaving.signal }))
  const third = await hooks.run(job('delete', { name: 'c' }))
  assert.equal([third.state, third.code], ['refused', 'target-unreachable'])
  leaving.abort(new SallyportError('session-killed'))
  assert.equal((await second).code, 'session-killed')
  open(done)
  assert.is((await first).state, 'done')
})

test('after three connection failures a target rests; a trial lets the others through again', async () => {
  let [tries, answers] = [0, false]
  const { hooks, clock, recovered } = stage({
    run: async ({ target }) => {
      if (target.name === 'one') tries++
      if (target.name === 'one' && !answers) return await unreachable()
      return done
    },
    knock: async () => answers
  })
  for (let index = 0; index < 5; index++) {
    const result = await hooks.run(job('delete'))
    assert.equal([result.state, result.code, result.retryable], ['refused', 'target-unreachable', true])
  }
  assert.is(tries, 3)
  assert.is(hooks.health()[0]?.breaker, 'open')
  assert.is((await hooks.run(job('delete', { target: 'other' }))).state, 'done')
  // Knocking: nobody is there, so nobody is told and nothing is tried.
  await clock.pass(1000)
  assert.equal([recovered, (await hooks.run(job('delete'))).code, tries], [[], 'target-unreachable', 3])
  answers = true
  await clock.pass(4000)
  assert.equal(recovered, ['one'])
  assert.is(hooks.health()[0]?.breaker, 'half-open')
  const results = await Promise.all(['a', 'b', 'c'].map(name => hooks.run(job('delete', { name }))))
  assert.equal(results.map(({ state }) => state), ['done', 'refused', 'refused'])
  assert.is((await hooks.run(job('delete'))).state, 'done')
  assert.equal(hooks.health().filter(({ failures }) => failures > 0), [])
})

test('a pause grows while a target stays away, up to its limit', async () => {
  const { hooks, clock } = stage({ run: unreachable, knock: async () => true })
  for (let index = 0; index < 3; index++) await hooks.run(job('delete'))
  for (const pauseMs of [1000, 2000, 4000, 4000]) {
    await clock.pass(pauseMs - 1)
    assert.is(hooks.health()[0]?.breaker, 'open', String(pauseMs))
    await clock.pass(1)
    assert.is(hooks.health()[0]?.breaker, 'half-open', String(pauseMs))
    await hooks.run(job('delete'))
  }
})

test('a refusal by the target is not a connection failure', async () => {
  const { hooks } = stage(
    { run: async () => { throw new SallyportError('target-refused', { detail: 'password' }) } }
  )
  for (let index = 0; index < 5; index++) await hooks.run(job('delete'))
  assert.equal(hooks.health().map(({ breaker, failures }) => [breaker, failures]), [['closed', 0]])
})

test('no secret gets into results, errors or the log, in any spelling (J14, R14)', async () => {
  const password = 'ca\'na"ry\\word'
  const key = Buffer.from('0123456789abcdef0123456789abcdef')
  const forms = [
    password, Buffer.from(password).toString('base64'), Buffer.from(password).toString('hex'),
    encodeURIComponent(password), password.replaceAll("'", "''"), key.toString('base64'),
    key.toString('base64url'),
    key.toString('hex').toUpperCase(), 'verifier-canary', 'admin-password'
  ]
  const said = `the target said: ${forms.join(' | ')}`
  const residue: Residue[] = [{ kind: 'x', name: said, fate: 'left' }]
  const inject = {
    kind: 'scram-keys', clientKey: new Secret<Uint8Array>(key), serverKey: new Secret<Uint8Array>(key)
  } as const
  const secrets = {
    inject, variables: { verifier: new Secret('verifier-canary'), pass: new Secret(password) }
  }
  const { hooks, log } = stage({
    run: async (_access, _template, _account, _variables, context) => {
      context.log(said)
      return { state: 'refused', failedStep: 'x', error: said, retryable: false, residue }
    },
    verify: async () => { throw new SallyportError('target-refused', { detail: said, problems: [said] }) }
  })
  const results: unknown[] = [await hooks.run(job('delete', secrets))]
  await hooks.verify(job('delete', secrets)).catch((error: unknown) => results.push(String(error), error))
  const withPassword = async (): Promise<never> => {
    const detail = 'wrong: admin-password'
    throw new SallyportError('target-refused', { detail, problems: [detail] })
  }
  await stage({ probe: withPassword }).hooks.probe('fake', job('delete').access)
    .catch((error: unknown) => results.push(String(error), error))
  assert.is(results.length, 5)
  const text = JSON.stringify([results, log])
  assert.match(text, /<secret>/)
  for (const form of forms) {
    assert.not.ok(text.includes(form) || text.includes(JSON.stringify(form).slice(1, -1)), form)
  }
})

test('a redactor leaves short words alone and takes the longest form first', () => {
  const redact = createRedactor(['abc', 'secret', 'secret-and-more'])
  assert.is(redact('abc secret-and-more secret'), 'abc <secret> <secret>')
})

test('names are drawn from a pattern, are many, and fit every target', () => {
  const names = new Set(Array.from({ length: 1000 }, () => mintName()))
  assert.ok(names.size > 990)
  for (const name of names) assert.ok(/^jit_[0-9]{7}$/.test(name) && isMintableName(name), name)
  assert.match(mintName('ops_????????'), /^ops_[a-z0-9]{8}$/)
  assert.equal(namePatternProblems(defaultNamePattern), [])
  for (const pattern of [
    'jit_####', 'Jit_#######', '1#######', 'pg_#######', `j${'#'.repeat(31)}`, 'a b#######', ''
  ]) {
    assert.ok(namePatternProblems(pattern).length > 0, pattern)
    assert.throws(
      () => mintName(pattern), (error: unknown) => error instanceof SallyportError && error.code === 'invalid'
    )
  }
  for (const name of ['', 'Abc', '1a', 'a-b', 'a b', 'pg_x', 'a'.repeat(32), "a'b", 'ä']) {
    assert.not.ok(isMintableName(name), name)
  }
})

test('the shelf takes each plugin once, and only whole pairs of actions', () => {
  const plugin = (actions: Action[], id = 'x'): Plugin => (
    { id, apiVersion: 1, actions: new Set(actions) }
  ) as unknown as Plugin
  assert.throws(
    () => createShelf([plugin(['create', 'delete']), plugin(['create', 'delete'])]), /listed twice/
  )
  assert.throws(() => createShelf([plugin(['create'])]), /half a pair/)
  assert.throws(() => createShelf([plugin(['disable'])]), /half a pair/)
  assert.throws(
    () => createShelf([]).plugin('x'), (error: unknown) => (error as SallyportError).code === 'not-found'
  )
})

test.run()
