// The API over hooks: which plugins there are, how targets fare, and a proof that is told while it runs,
// whatever comes of it.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { hashToken, mintToken } from '../src/api/access.ts'
import type { ApiPorts } from '../src/api/ports.ts'
import { createSallyportApi } from '../src/api/routes.ts'
import { SallyportError } from '../src/errors.ts'
import type { HookJob, HookResult, Hooks } from '../src/jit/hook.ts'
import { rememberOutcomes } from '../src/jit/last-outcomes.ts'
import { createMemory } from './peers/api-ports.ts'
import type { Memory } from './peers/api-ports.ts'
import { StillClock } from './peers/recordings.ts'

const at = new Date('2026-11-21T10:00:00Z')
const step = (name: string) => ({ name, passed: true, detail: '', milliseconds: 3 })

function bench(change: (ports: ApiPorts) => Partial<ApiPorts> = () => ({})): {
  memory: Memory, ask(method: string, path: string, body?: unknown): Promise<Response>
} {
  const { memory, ports } = createMemory()
  const token = mintToken()
  memory.tokens.set(hashToken(token), { user: 'ada', roles: ['admin'], oneTime: true,
    expiresAt: new Date('2100-01-01T00:00:00Z') })
  const declare = (kind: string, name: string, spec: Record<string, unknown>): unknown =>
    memory.resources.set(`${kind}/${name}`, {
      kind, name, version: 1, createdAt: at, updatedAt: at, updatedBy: 'ada', spec: { name, ...spec }
    })
  declare('user', 'ada', { roles: ['admin'], publicKeys: [], disabled: false })
  declare('target', 'orders', { protocol: 'postgres', host: '::1', port: 5432 })
  declare('credential', 'orders-rw', { target: 'orders', jit: { enabled: true } })
  declare('credential', 'orders-admin', { target: 'orders' })
  memory.tokens.get(hashToken(token))!.oneTime = false
  const options = { localToken: undefined, loginTokenSeconds: 60 }
  const app = createSallyportApi({ ...ports, ...change(ports) }, options)
  return {
    memory,
    ask: async (method, path, body) => app.request(`https://sallyport.test/api/v1${path}`, {
      method, headers: {
        host: 'sallyport.test', authorization: `Bearer ${token}`,
        ...body === undefined ? {} : { 'content-type': 'application/json' }
      }, ...body === undefined ? {} : { body: JSON.stringify(body) }
    }, { incoming: { socket: { remoteAddress: '192.0.2.7' } } })
  }
}

const linesOf = async (answer: Response): Promise<Record<string, unknown>[]> =>
  (await answer.text()).trim().split('\n').map(line => JSON.parse(line) as Record<string, unknown>)

test('plugins are listed with their actions and what they say of J7', async () => {
  const { plugins } = await (await bench().ask('GET', '/plugins')).json() as {
    plugins: { id: string, actions: string[], canEnableItself: boolean, supplies: string[] }[]
  }
  const postgres = plugins.find(({ id }) => id === 'postgres')!
  assert.equal([postgres.canEnableItself, postgres.actions.includes('create')], [false, true])
  assert.ok(postgres.supplies.includes('username'))
})

test('a proof is told step by step, with both of its audit events', async () => {
  const { ask, memory } = bench(() => ({
    prove: async (_credential, signal, told) => {
      for (const name of ['look', 'create', 'delete']) {
        told?.(step(name))
        await new Promise(resolve => setImmediate(resolve))
      }
      return { passed: !signal.aborted, steps: [] }
    }
  }))
  const lines = await linesOf(await ask('POST', '/prove/steps', { credential: 'orders-rw' }))
  assert.equal(lines.map(({ kind, name, passed }) => [kind, name, passed]), [
    ['step', 'look', true], ['step', 'create', true], ['step', 'delete', true], ['end', undefined, true]])
  assert.equal(memory.audit.map(({ kind }) => kind), ['template.proving', 'template.proved'])
})

test('a proof that breaks off says so with its code; one that cannot begin is refused', async () => {
  const { ask } = bench(() => ({
    prove: (_credential, _signal, told) => {
      told?.(step('look'))
      return Promise.reject(new SallyportError('in-use', { problems: ['standing is in use'] }))
    }
  }))
  const [, failed] = await linesOf(await ask('POST', '/prove/steps', { credential: 'orders-rw' }))
  const error = failed!['error'] as { code: string, problems: string[], reference: string }
  assert.equal([failed!['kind'], error.code, error.problems], ['failed', 'in-use', ['standing is in use']])
  assert.match(error.reference, /^[0-9a-f]{6}$/)
  assert.is((await ask('POST', '/prove/steps', { credential: 'orders-admin' })).status, 400)
  assert.is((await ask('POST', '/prove/steps', { credential: 'nothing' })).status, 404)
})

test('a template has its versions, and its declared variables', async () => {
  const { ask, memory } = bench()
  const first = memory.templates.find(({ id }) => id === 'postgres/create-role')!
  const body = first.body.replace(/^title: .*$/m, 'title: Another one')
  assert.is.not(body, first.body)
  assert.is((await ask('PUT', '/templates/postgres/create-role', { body })).status, 200)
  const { versions } = await (await ask('GET', '/templates/postgres/create-role/versions')).json() as {
    versions: { version: number, author: string, body?: string }[]
  }
  assert.equal(versions.map(({ version, author, body: text }) => [version, author, text]),
    [[2, 'ada', undefined], [1, 'sallyport', undefined]])
  const { variables } = await (await ask('GET', '/templates/postgres/create-role')).json() as {
    variables: { name: string, list: boolean, default: unknown }[]
  }
  assert.equal(variables.find(({ name }) => name === 'roles')?.list, true)
})

test('a target has its queue, its breaker and what came of the last action', async () => {
  const clock = new StillClock()
  const result = { state: 'refused', error: 'no such role', tookMs: 12.4 } as HookResult
  const hooks = rememberOutcomes({ run: () => Promise.resolve(result) } as unknown as Hooks, clock)
  await hooks.run({
    action: 'create', pluginId: 'postgres', template: { id: 'postgres/create-role' },
    account: { name: 'jit_1234567' }, access: { target: { name: 'orders' } }
  } as HookJob)
  const queue = {
    target: 'orders', breaker: 'open', failures: 4, lastError: 'refused', running: 1, waiting: 2
  } as const
  const { ask } = bench(({ health }) => ({
    health: { ...health, hooks: () => ({ queues: [queue], last: hooks.lastOutcomes() }) }
  }))
  const { targets } = await (await ask('GET', '/targets/health')).json() as { targets: unknown[] }
  assert.equal(targets, [{
    name: 'orders', protocol: 'postgres', address: '[::1]:5432', breaker: 'open', failures: 4,
    lastError: 'refused', running: 1, waiting: 2,
    last: {
      at: clock.now().toISOString(), action: 'create', plugin: 'postgres', template: 'postgres/create-role',
      account: 'jit_1234567', state: 'refused', error: 'no such role', tookMs: 12
    }
  }])
})

test.run()
