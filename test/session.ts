// The order of a session: what is taken is given back in reverse, and a refusal is said before anything is
// given back. The rooms behind the steps are notes on a list here; their own tests show what they do.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { systemClock } from '../src/clock.ts'
import { SallyportError } from '../src/errors.ts'
import type { Grant } from '../src/policy/authorise.ts'
import type { User } from '../src/policy/types.ts'
import type { Ending, Recording } from '../src/recording/recording.ts'
import type { Claim, Front } from '../src/session/front.ts'
import { createRegistry } from '../src/session/registry.ts'
import { run } from '../src/session/session.ts'
import type { Steps } from '../src/session/session.ts'

const claim: Claim = {
  protocol: 'postgres', login: 'alice+x', replication: false, address: '127.0.0.1', tls: true
}
const target = { name: 't', protocol: 'postgres', host: 'h', port: 1, tls: { mode: 'disable' as const } }
const grant = { maxSessionSeconds: 60, user: { name: 'alice' } } as unknown as Grant

function houseOf(failing: string | undefined): { notes: string[], front: Front<string>, steps: Steps } {
  const notes: string[] = []
  const step = async <Value>(name: string, value: Value): Promise<Value> => {
    notes.push(name)
    if (name === failing) throw new SallyportError('hook-failed')
    return value
  }
  const given = (name: string) => ({ [Symbol.asyncDispose]: async () => { notes.push(name) } })
  const registry = createRegistry(systemClock)
  const ending: Ending = { how: 'ended', reason: 'client-closed' }
  return {
    notes,
    front: {
      claim: () => step('claim', claim),
      prove: () => step('prove', { method: 'password' }),
      tell: () => undefined,
      onLeft: () => () => undefined,
      refuse: async error => { notes.push(`refuse ${error.code}`) },
      connect: () => step('connect', 'upstream'),
      relay: () => step('relay', ending)
    },
    steps: {
      authenticate: async (_claim, prove) => {
        await prove({ verifier: '', publicKeys: [], authorities: [], name: 'alice' })
        return { name: 'alice' } as User
      },
      doors: () => undefined,
      authorise: () => step('authorise', grant),
      approve: () => step('approve', grant),
      open: async () => {
        await step('open', undefined)
        return registry.enter('s1', grant, claim, {
          tell: () => undefined,
          ended: async how => { notes.push(`ended ${how.reason}`) }
        })
      },
      record: async () => Object.assign(await step('record', {}) as unknown as Recording, given('seal')),
      lease: async () => {
        await step('lease', undefined)
        const secret = { kind: 'password' } as never
        const rights = { allowReplication: false, channels: [], copyFiles: false }
        const upstreaming = { target, database: 'd', username: 'u', secret, ...rights }
        return { upstreaming, ...given('release') }
      }
    }
  }
}

test('a session takes and gives back in one order', async () => {
  const { notes, front, steps } = houseOf(undefined)
  const ending = await run(front, steps)
  assert.is(ending.reason, 'client-closed')
  assert.equal(notes, [
    'claim', 'prove', 'authorise', 'approve', 'open', 'record', 'lease', 'connect', 'relay',
    'release', 'seal', 'ended client-closed'
  ])
})

test('whichever step fails, the refusal is said first and only what was taken is given back', async () => {
  const expected: Record<string, string[]> = {
    authorise: ['refuse hook-failed'],
    approve: ['refuse hook-failed'],
    open: ['refuse hook-failed'],
    record: ['refuse hook-failed', 'ended hook-failed'],
    lease: ['refuse hook-failed', 'seal', 'ended hook-failed'],
    connect: ['refuse hook-failed', 'release', 'seal', 'ended hook-failed'],
    relay: ['refuse hook-failed', 'release', 'seal', 'ended hook-failed']
  }
  for (const [failing, after] of Object.entries(expected)) {
    const { notes, front, steps } = houseOf(failing)
    const ending = await run(front, steps)
    assert.is(ending.reason, 'hook-failed', failing)
    assert.equal(notes.slice(notes.indexOf(failing) + 1), after, failing)
  }
})

test('a killed session hears why, and draining waits for its release', async () => {
  const soon = { ...systemClock, after: (delayMs: number, act: () => void) => {
    if (delayMs <= 1) setImmediate(act)
    return () => undefined
  } }
  const registry = createRegistry(soon)
  const heard: string[] = []
  const session = registry.enter('s2', grant, claim, {
    tell: () => undefined,
    ended: async ending => { heard.push(ending.reason) }
  })
  session.signal.addEventListener('abort', () => {
    const reason = session.signal.reason as SallyportError
    session.end({ how: 'cut', reason: reason.code })
    void session[Symbol.asyncDispose]()
  })
  await registry.drain(1)
  assert.equal(heard, ['shutting-down'])
  assert.is(registry.cut('s2', new SallyportError('session-killed')), false)
  assert.throws(() =>
    registry.enter('s3', grant, claim, { tell: () => undefined, ended: async () => undefined }))
})

test('a session is warned before its end and cut at its end, whatever the client does', async () => {
  const timers: { delayMs: number, act: () => void }[] = []
  const clock = {
    ...systemClock,
    after: (delayMs: number, act: () => void) => {
      timers.push({ delayMs, act })
      return () => undefined
    }
  }
  const told: string[] = []
  const hour = { ...grant, maxSessionSeconds: 3600 } as Grant
  const session = createRegistry(clock).enter('s4', hour, claim, {
    tell: line => { told.push(line) },
    ended: async () => undefined
  })
  timers.sort((left, right) => left.delayMs - right.delayMs)
  assert.equal(timers.map(timer => timer.delayMs / 60_000), [45, 55, 59, 60])
  for (const timer of timers) timer.act()
  assert.equal(told, ['15 minutes', '5 minutes', '1 minute'].map(span => `this session ends in ${span}`))
  assert.is((session.signal.reason as SallyportError).code, 'session-expired')
})

test.run()
