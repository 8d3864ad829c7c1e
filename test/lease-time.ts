// Time and leases: what ends when, whatever clocks do. Expiry is the store's to decide and the node's to
// enforce: each node counts what is left on its own monotonic clock, so that neither a wall clock that jumps
// nor a store that does not answer prolongs a session. On both stores.
// deadline: 120 s
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { sleep, systemClock } from '../src/clock.ts'
import {
  codeOf, expireAll, openStore, openWorld, request, shortLimits, stateOf, stillLimits, strangers, until
} from './peers/lease-world.ts'
import type { StoreKind, World } from './peers/lease-world.ts'

const dayMs = 86_400_000
const bob = { kind: 'user', id: 'bob' } as const

for (const kind of ['pglite', 'postgres'] as const satisfies readonly StoreKind[]) {
  let opened: Awaited<ReturnType<typeof openStore>>

  const promise = (sentence: string, act: (world: World) => Promise<void>): void => {
    test(`${kind}: ${sentence}`, async () => {
      opened ??= await openStore(kind)
      await using world = await openWorld(opened.database)
      await act(world)
      assert.equal(await strangers(world), [])
    })
  }

  promise('a lease of one second is cut and its account gone within five (R22, S7)', async world => {
    const { ledger, cut } = await world.node('one', { limits: {} })
    const startedMs = performance.now()
    const lease = await ledger.issue(
      request('create', { ttlSeconds: 1, maxTtlSeconds: 1, owner: { kind: 'session', id: 's1' } })
    )
    await until('cut', () => lease.signal.aborted)
    const tookMs = performance.now() - startedMs
    assert.ok(tookMs >= 900 && tookMs < 6000, `${tookMs} ms`)
    assert.is((lease.signal.reason as { code: string }).code, 'session-expired')
    assert.equal(cut.map(each => each.session), ['s1'])
    await until('gone', async () => await stateOf(world, lease.accountId) === 'proved-gone')
    assert.ok(performance.now() - startedMs < 6000)
    assert.is((await ledger.show(lease.holdId))?.status, 'expired')
    assert.is(await codeOf(ledger.renew(lease.holdId, 60, 'bob')), 'invalid')
  })

  promise('a token that nobody can take back expires: no receipt calls it gone before', async world => {
    const { ledger, log } = await world.node('one')
    world.target.tokens = true
    const lease = await ledger.issue(request('create', { ttlSeconds: 2, maxTtlSeconds: 3 }))
    assert.is(lease.made?.['token']?.expose(), `token of ${lease.accountName}`)
    await ledger.revoke(lease.holdId, 'bob')
    assert.is(await stateOf(world, lease.accountId), 'removing')
    assert.is((await ledger.show(lease.holdId))?.status, 'revoking')
    const receipts = async (): Promise<unknown[]> => (await world.rows(
      `select body from receipt where account = '${lease.accountId}' order by created_at`
    )).map(({ body }) => body)
    const [first] = await receipts() as [{ state: string, seen: { endsAt: string } }]
    assert.is(first.state, 'expires')
    await until('gone', async () => await stateOf(world, lease.accountId) === 'proved-gone')
    assert.ok(systemClock.now() >= new Date(first.seen.endsAt))
    const states = (await receipts() as { state: string }[]).map(({ state }) => state)
    assert.equal(states, ['expires', 'proved-gone'])
    assert.equal(world.audit.filter(({ kind }) => kind === 'account.alarm'), [])
    const kept = [world.audit, log, await world.rows('select * from account')]
    assert.not(JSON.stringify(kept).includes('token of'))
  })

  // Promised: F20, R22.
  promise('a lease of thirty days does not end at once, nor after 29 days, but after 30', async world => {
    const { ledger, clock } = await world.node('one')
    const seconds = 30 * 86_400
    const lease = await ledger.issue(request('create', { ttlSeconds: seconds, maxTtlSeconds: seconds }))
    assert.ok(lease.expiresAt.getTime() - clock.now().getTime() > 29.9 * dayMs)
    await new Promise(resolve => setTimeout(resolve, 300))
    assert.is(lease.signal.aborted, false)
    clock.forwardMs = 29 * dayMs
    await new Promise(resolve => setTimeout(resolve, 200))
    assert.is(lease.signal.aborted, false)
    clock.forwardMs = 30 * dayMs
    // The store's clock says that 30 days are left: as if it had been set back. The node's own clock decides.
    await until('cut', () => lease.signal.aborted)
    assert.is((lease.signal.reason as { code: string }).code, 'session-expired')
    await until('gone', () => world.target.accounts.names().length === 0)
  })

  promise('a wall clock that jumps by ten years ends nothing and prolongs nothing (F19)', async world => {
    const { ledger, clock } = await world.node('one')
    const lease = await ledger.issue(request())
    const short = await ledger.issue(request('create', { ttlSeconds: 2, maxTtlSeconds: 2 }))
    for (const jumpMs of [3_600_000, -3_600_000, -3652 * dayMs]) {
      clock.wallMs = jumpMs
      await new Promise(resolve => setTimeout(resolve, 150))
      assert.is(lease.signal.aborted, false)
    }
    await until('the short one is cut in time', () => short.signal.aborted, 3000)
    await lease.release('session ended')
    // The cut comes first; the removal of the short one's account follows it.
    await until('both are gone', () => world.target.accounts.names().length === 0)
  })

  promise('a session whose lease was renewed elsewhere goes on until the new end', async world => {
    const one = await world.node('one', { limits: { ...shortLimits, askMs: 3_600_000 } })
    const two = await world.node('two', { limits: { ...shortLimits, tickMs: 3_600_000 } })
    const lease = await one.ledger.issue(request('create', { ttlSeconds: 600, maxTtlSeconds: 7200 }))
    const renewed = await two.ledger.renew(lease.holdId, 1800, 'bob')
    assert.is(renewed.expiresAt.getTime() - lease.expiresAt.getTime(), 1_800_000)
    assert.is(renewed.renewableMs, 7_200_000 - 2_400_000)
    one.clock.forwardMs = 700_000
    await new Promise(resolve => setTimeout(resolve, 300))
    assert.is(lease.signal.aborted, false)
    one.clock.forwardMs = 2_401_000
    await until('cut', () => lease.signal.aborted)
  })

  promise('a maximum that changed counts from the next renewal on; the target is told first', async world => {
    const { ledger } = await world.node('one', { limits: stillLimits })
    const ask = request('create', { ttlSeconds: 600, maxTtlSeconds: 1200, owner: bob })
    const { holdId, accountName, expiresAt } = await ledger.issue(ask)
    const allow = (seconds: number): void => {
      world.maximumOf = ({ createdAt }) => new Date(createdAt.getTime() + seconds * 1000)
    }
    const left = async (): Promise<number> =>
      Math.round(((await ledger.show(holdId))?.renewableMs ?? 0) / 1000)
    const target = (): number =>
      (Date.parse(world.target.accounts.get(accountName)?.expiresAt ?? '') - expiresAt.getTime()) / 1000
    const graceSeconds = 900
    assert.is(Math.round(target()), 600 + graceSeconds)
    allow(900)
    assert.is(await left(), 300)
    assert.is(await codeOf(ledger.renew(holdId, 301, 'bob')), 'invalid')
    allow(7200)
    assert.is(await left(), 6600)
    // Within what the target was told nothing needs to be said to it.
    await ledger.renew(holdId, 300, 'bob')
    assert.is(world.target.count('enable'), 0)
    world.target.away = true
    assert.is(await codeOf(ledger.renew(holdId, 3600, 'bob')), 'target-unreachable')
    world.target.away = false
    assert.is(await left(), 6300)
    const renewed = await ledger.renew(holdId, 3600, 'bob')
    assert.is(Math.round((renewed.expiresAt.getTime() - expiresAt.getTime()) / 1000), 3900)
    assert.is(Math.round(target()), 6600 + graceSeconds)
    await ledger.renew(holdId, 2700, 'bob')
    assert.is(world.target.count('enable'), 1)
    assert.is(await left(), 0)
    // Shortened below what was given: that is kept, and nothing is added.
    allow(600)
    assert.is(await left(), 0)
    await ledger.revoke(holdId, 'bob')
  })

  promise('where the target cannot move an end, the maximum is the one at issue', async world => {
    const { ledger } = await world.node('one', { limits: stillLimits })
    world.target.movesEnds = false
    const ask = request('create', { ttlSeconds: 600, maxTtlSeconds: 1200, owner: bob })
    const { holdId } = await ledger.issue(ask)
    world.maximumOf = ({ createdAt }) => new Date(createdAt.getTime() + 7_200_000)
    assert.is((await ledger.show(holdId))?.renewableMs, 600_000)
    assert.is(await codeOf(ledger.renew(holdId, 601, 'bob')), 'invalid')
    await ledger.renew(holdId, 600, 'bob')
    await ledger.revoke(holdId, 'bob')
  })

  promise('a session whose lease another node ended is cut within moments', async world => {
    const one = await world.node('one')
    const two = await world.node('two')
    const lease = await one.ledger.issue(request())
    await two.ledger.revoke(lease.holdId, 'carol')
    await until('cut', () => lease.signal.aborted, 2000)
    assert.is((lease.signal.reason as { code: string }).code, 'lease-lost')
    assert.equal(world.target.accounts.names(), [])
  })

  promise('a session is cut at its end even when the store does not answer', async world => {
    let away = false
    const { ledger, cut } = await world.node('one', {
      limits: { ...shortLimits, expiryAskMs: 200 },
      // A store that says nothing at all, not even no.
      through: store => new Proxy(store, {
        get: (real, verb: keyof typeof store) => away ? () => new Promise(
          resolve => { waiting.push(resolve as () => void) }
        ) : real[verb]
      })
    })
    const waiting: (() => void)[] = []
    const lease = await ledger.issue(request('create', { ttlSeconds: 1, maxTtlSeconds: 1 }))
    away = true
    await until('cut', () => lease.signal.aborted, 4000)
    assert.is(cut.length, 1)
    assert.ok(waiting.length > 0)
    away = false
    const next = await world.node('one')
    await until('gone', () => world.target.accounts.names().length === 0)
    await next.ledger.idle()
  })

  promise('a herd of leases that expire in the same instant is gone within 30 seconds', async world => {
    const { ledger } = await world.node('one', { limits: {} })
    const many = kind === 'postgres' ? 1000 : 300
    const owner = { kind: 'application', id: 'shop' } as const
    // The target takes its time, as a real one does.
    world.target.gate = ({ action }) => action === 'delete' ? sleep(systemClock, 10) : undefined
    await Promise.all(Array.from({ length: 20 }, async () => {
      for (let count = 0; count < many / 20; count++) await ledger.issue(request('create', { owner }))
    }))
    await expireAll(world)
    const startedMs = performance.now()
    await until('all gone', () => world.target.accounts.names().length === 0, 30_000)
    const seconds = (performance.now() - startedMs) / 1000
    await ledger.idle()
    assert.is(world.target.count('delete'), many)
    assert.equal(await world.rows(`select id from account where state <> 'proved-gone'`), [])
    process.stdout.write(`${kind}: ${many} leases expired and proved gone in ${seconds.toFixed(1)} s\n`)
  })

  promise('a lease is not issued for no time, for parts of a second, or beyond its maximum', async world => {
    const { ledger } = await world.node('one')
    for (const [ttlSeconds, maxTtlSeconds] of [[0, 10], [-1, 10], [1.5, 10], [20, 10], [10, NaN]] as const) {
      assert.is(await codeOf(ledger.issue(request('create', { ttlSeconds, maxTtlSeconds }))), 'invalid')
    }
    assert.equal(await world.rows('select id from account'), [])
  })

  test(`${kind}: (the store is closed)`, async () => {
    await opened.close()
    assert.ok(opened)
  })
}

test.run()
