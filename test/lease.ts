// The life of one lease, on both stores: intent, account, hold, removal, proof. The target
// (test/peers/lease-target.ts) refuses, lies, hangs and loses answers on command; what must never happen is
// an account that nobody will remove, or a credential that was handed out for an account that the books do
// not call active.
// deadline: 240 s
import { createHash } from 'node:crypto'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Lease } from '../src/lease/ledger.ts'
import { canonicalJson } from '../src/lease/receipt.ts'
import { createGate, LeaseTarget } from './peers/lease-target.ts'
import {
  codeOf, openStore, openWorld, request, stateOf, strangers, stillLimits, until
} from './peers/lease-world.ts'
import type { StoreKind, World } from './peers/lease-world.ts'

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

  promise('an account exists only between issue and release, and a receipt proves it (J15)', async world => {
    const { ledger } = await world.node('one')
    const lease = await ledger.issue(request('create', { owner: { kind: 'session', id: 's1' } }))
    assert.equal(world.target.usable(), [lease.accountName])
    assert.is(lease.inject.kind === 'password' && lease.inject.password.expose(), 'password 1')
    assert.is(await stateOf(world, lease.accountId), 'active')

    await lease.release('session ended')
    assert.equal(world.target.accounts.names(), [])
    assert.is(await stateOf(world, lease.accountId), 'proved-gone')
    const [receipt] = await world.rows('select session, body, signature from receipt')
    const body = canonicalJson(receipt?.body)
    assert.is(receipt?.session, 's1')
    assert.is((receipt?.body as { state: string }).state, 'proved-gone')
    assert.ok(world.verifyReceipt(body, String(receipt?.signature)))
    assert.not(world.verifyReceipt(body.replace('proved-gone', 'removed-xxx'), String(receipt?.signature)))
    const event = world.audit.find(each => each.kind === 'account.receipt')
    assert.is(event?.detail.sha256, createHash('sha256').update(body).digest('hex'))
  })

  promise('the target hears nothing before rows, event and audit of the intent are durable', async world => {
    let seen: readonly unknown[] = []
    world.target.gate = async ({ work, action }) => {
      if (action !== 'create') return
      const id = work.account.accountId
      seen = [
        await stateOf(world, id),
        (await world.rows(`select state from hold where account = '${id}'`))[0]?.state,
        (await world.rows(`select kind from lease_event where account = '${id}'`)).map(row => row.kind),
        world.audit.filter(each => each.subject === id).map(each => each.kind)
      ]
    }
    const { ledger } = await world.node('one')
    await using lease = await ledger.issue(request())
    assert.equal(seen, ['creating', 'pending', ['intended'], ['account.intended']])
    assert.ok(lease.accountName)
  })

  promise('nothing is begun when the audit cannot be written', async world => {
    const { ledger } = await world.node('one')
    world.auditAway = true
    assert.is(await codeOf(ledger.issue(request())), 'store-unavailable')
    world.auditAway = false
    await ledger.pass()
    assert.is(world.target.calls.length, 0)
    // The intent and its event are one transaction.
    assert.equal(await world.rows('select from account'), [])
    assert.equal(await world.rows('select from hold'), [])
  })

  promise('a creation that is refused half-way is undone before the error is thrown', async world => {
    const { ledger } = await world.node('one')
    world.target.mood = ({ action }) => action === 'create' ? { do: 'lie' } : { do: 'obey' }
    assert.is(await codeOf(ledger.issue(request())), 'hook-failed')
    assert.equal(world.target.accounts.names(), [])
    assert.is(world.target.count('create'), 1)
    assert.is((await world.rows('select state from account'))[0]?.state, 'proved-gone')
    assert.is((await world.rows('select state from hold'))[0]?.state, 'failed')
  })

  promise('after a lost answer the account counts as made: removed, and looked for again', async world => {
    const { ledger } = await world.node('one')
    world.target.mood = ({ action }) => action === 'create' ? { do: 'lose-answer' } : { do: 'obey' }
    assert.is(await codeOf(ledger.issue(request())), 'hook-timeout')
    await ledger.idle()
    assert.equal(world.target.accounts.names(), [])
    const [account] = await world.rows('select id, state, verify_left from account')
    assert.equal([account?.state, account?.verify_left], ['removing', 1])
    await until('proved gone', async () => await stateOf(world, String(account?.id)) === 'proved-gone')
    const states = (await world.rows(`select body->>'state' as state from receipt order by created_at`))
    assert.equal(states.map(row => row.state), ['removed', 'proved-gone'])
    assert.ok(world.target.looks > 0)
  })

  promise('an account of that name that is not ours is never touched', async world => {
    const { ledger } = await world.node('one')
    world.target.mood = () => ({ do: 'conflict' })
    assert.is(await codeOf(ledger.issue(request())), 'account-conflict')
    await ledger.idle()
    assert.equal(world.target.calls.map(call => call.action), ['create'])
    assert.is((await world.rows('select state from account'))[0]?.state, 'proved-gone')
    assert.equal(await world.rows('select id from receipt'), [])
  })

  promise('a target away at creation is an error, and absence is confirmed later', async world => {
    const { ledger } = await world.node('one')
    world.target.away = true
    assert.is(await codeOf(ledger.issue(request())), 'target-unreachable')
    const id = String((await world.rows('select id from account'))[0]?.id)
    await until('unreachable', async () => await stateOf(world, id) === 'unreachable')
    world.target.away = false
    await until('proved gone', async () => await stateOf(world, id) === 'proved-gone')
  })

  promise('a failed removal is alarmed at once, tried for ever, and never called done (J16)', async world => {
    const { ledger, log } = await world.node('one')
    const lease = await ledger.issue(request())
    let refusals = 0
    world.target.mood = ({ action }) => action === 'delete' && refusals++ < 12
      ? { do: 'refuse', error: 'owns objects \0 and more' }
      : { do: 'obey' }
    await lease.release('session ended')
    const row = await ledger.show(lease.holdId)
    assert.is(row?.status, 'failed')
    assert.match(row?.lastError ?? '', /owns objects/)
    assert.is(world.audit.filter(each => each.kind === 'account.alarm').length, 1)
    assert.is(log.filter(line => line.includes('could not be removed')).length, 1)
    await until('proved gone', async () => await stateOf(world, lease.accountId) === 'proved-gone')
    assert.is(refusals, 13)
    const receipts = await world.rows(`select body->>'state' as state from receipt order by created_at`)
    assert.equal(receipts.map(each => each.state), ['failed', 'proved-gone'])
    assert.is((await ledger.show(lease.holdId))?.status, 'revoked')
    assert.is(world.audit.filter(each => each.kind === 'account.alarm').length, 1)
  })

  // Promised: J15, J16.
  promise('what cannot be dropped but cannot log in is quarantined, and still retried', async world => {
    const { ledger } = await world.node('one')
    const lease = await ledger.issue(request())
    world.target.mood = ({ action }) => action === 'delete' ? { do: 'quarantine' } : { do: 'obey' }
    await lease.release('session ended')
    assert.is(await stateOf(world, lease.accountId), 'quarantined')
    assert.equal(world.target.usable(), [])
    assert.is((await world.rows(`select body->>'state' as state from receipt`))[0]?.state, 'quarantined')
    world.target.mood = () => ({ do: 'obey' })
    await until('proved gone', async () => await stateOf(world, lease.accountId) === 'proved-gone')
  })

  promise('accounts of a target that was away go as soon as it is back, all of them', async world => {
    // The back-off alone would come back in minutes.
    const { ledger } = await world.node(
      'one', { limits: { retry: { baseMs: 600_000, capMs: 600_000 }, probeMs: 100, tickMs: 50 } }
    )
    const leases = []
    for (let count = 0; count < 5; count++) leases.push(await ledger.issue(request()))
    world.target.away = true
    await Promise.all(leases.map(lease => lease.release('session ended')))
    assert.is((await ledger.gauges()).accounts.unreachable, 5)
    assert.is((await ledger.list({ status: 'revoking', limit: 10 })).length, 5)
    world.target.away = false
    await until('all gone', () => world.target.accounts.names().length === 0)
    await ledger.idle()
    assert.equal(
      (await world.rows('select distinct state from account')).map(row => row.state), ['proved-gone']
    )
  })

  promise('the closing hook is the one of the version that the lease opened with (J11)', async world => {
    const { ledger } = await world.node('one')
    const lease = await ledger.issue(request('create', {}, 1))
    await using later = await ledger.issue(request('create', {}, 2))
    await lease.release('session ended')
    const closed = world.target.effects.find(call => call.action === 'delete')
    assert.is(closed?.work.template.body, 'text of delete 1')
    assert.is(later.accountName === lease.accountName, false)
  })

  // Promised: J5.
  promise('a name is never used twice on a target, not even after its account is long gone', async world => {
    const names = ['jit_1', 'jit_1', 'jit_1', 'jit_2', 'jit_3']
    const { ledger } = await world.node('one', { mintName: () => names.shift() ?? 'jit_9' })
    const first = await ledger.issue(request())
    assert.is(first.accountName, 'jit_1')
    await first.release('session ended')
    await using second = await ledger.issue(request())
    assert.is(second.accountName, 'jit_2')
    assert.is(world.target.count('create', 'jit_1'), 1)
  })

  promise('when every name is taken, issuing ends with an error and leaves no row', async world => {
    const { ledger } = await world.node('one', { mintName: () => 'jit_1' })
    await using lease = await ledger.issue(request())
    assert.is(await codeOf(ledger.issue(request())), 'hook-failed')
    assert.is((await world.rows('select id from hold')).length, 1)
    assert.ok(lease.accountId)
  })

  promise('the dead-man switch falls after the longest lifetime (J16)', async world => {
    const { ledger } = await world.node('one')
    const ask = request('create', { ttlSeconds: 60, maxTtlSeconds: 600 })
    ask.spec.variables.username = 'somebody_else'
    await using lease = await ledger.issue(ask)
    const { variables } = world.target.effects[0]?.work ?? {}
    assert.equal(
      [variables?.username, variables?.account_id, variables?.epoch], [lease.accountName, lease.accountId, 1]
    )
    const aliveMs = Date.parse(String(variables?.expires_at)) - lease.expiresAt.getTime()
    assert.is(Math.round(aliveMs / 1000), 540 + 900)
  })

  promise('a revoked lease is cut and removed at once, and only once (F33, S6)', async world => {
    const { ledger, cut } = await world.node('one')
    const lease = await ledger.issue(request('create', { owner: { kind: 'session', id: 's9' } }))
    assert.is(await ledger.revoke(lease.holdId, 'carol'), true)
    assert.ok(lease.signal.aborted)
    assert.is((lease.signal.reason as { code: string }).code, 'lease-lost')
    assert.equal(cut.map(each => each.session), ['s9'])
    assert.equal(world.target.accounts.names(), [])
    assert.is((await ledger.show(lease.holdId))?.status, 'revoked')
    assert.is(await ledger.revoke(lease.holdId, 'carol'), false)
    await lease.release('session ended')
    assert.is(world.target.count('delete'), 1)
    assert.is(await codeOf(ledger.revoke('no such lease', 'carol')), 'not-found')
  })

  promise('a lease revoked while its account is being made is not handed out', async world => {
    const { ledger } = await world.node('one')
    const gate = createGate()
    world.target.gate = ({ action }) => action === 'create' ? gate.wait() : undefined
    const issuing = codeOf(ledger.issue(request()))
    await gate.reached
    const holdId = String((await world.rows('select id from hold'))[0]?.id)
    assert.is(await ledger.revoke(holdId, 'carol'), true)
    gate.open()
    assert.is(await issuing, 'lease-lost')
    await ledger.idle()
    assert.equal(world.target.accounts.names(), [])
    assert.is((await world.rows('select state from account'))[0]?.state, 'proved-gone')
    assert.is(world.target.count('create'), 1)
  })

  promise('release never throws; what the store could not be told is told later', async world => {
    let away = false
    const { ledger } = await world.node('one', {
      limits: stillLimits,
      through: store => (
        { ...store, end: ask => away ? Promise.reject(new Error('the store is away')) : store.end(ask) }
      )
    })
    const lease = await ledger.issue(request())
    away = true
    await lease.release('session ended')
    assert.equal(world.target.accounts.names(), [])
    assert.is(await stateOf(world, lease.accountId), 'active')
    away = false
    await ledger.pass()
    await ledger.idle()
    assert.is(await stateOf(world, lease.accountId), 'proved-gone')
  })

  promise('an account whose outcome could not be written is given up when the store answers', async world => {
    let away = false
    const { ledger } = await world.node('one', {
      limits: stillLimits,
      through: store => ({
        ...store, settle: (...all) => away ? Promise.reject(
          new Error('the store is away')
        ) : store.settle(...all)
      })
    })
    away = true
    assert.is(await codeOf(ledger.issue(request())), 'store-unavailable')
    away = false
    await ledger.pass()
    await ledger.idle()
    assert.equal(world.target.accounts.names(), [])
    assert.is((await world.rows('select state from account'))[0]?.state, 'proved-gone')
  })

  promise('an outcome that was written though its answer was lost leaves no lease behind', async world => {
    const { ledger } = await world.node('one', {
      limits: stillLimits,
      through: store => ({
        ...store,
        settle: async (...all) => {
          await store.settle(...all)
          throw new Error('the connection broke')
        }
      })
    })
    assert.is(await codeOf(ledger.issue(request())), 'store-unavailable')
    await ledger.pass()
    await ledger.idle()
    assert.equal(world.target.accounts.names(), [])
    assert.is((await world.rows('select state from hold'))[0]?.state, 'failed')
  })

  promise('one target that hangs does not hold up the removals of another', async world => {
    const gate = createGate()
    const { ledger } = await world.node(
      'one', { limits: { releaseWaitMs: 50, perTarget: 2, inAll: 8, tickMs: 20 } }
    )
    world.target.gate = (
      { action, work }
    ) => action === 'delete' && work.spec.target.name === 'slow' ? gate.wait() : undefined
    const slow = request()
    slow.spec.target.name = 'slow'
    const stuck: Lease[] = []
    for (let count = 0; count < 4; count++) {
      stuck.push(
        await ledger.issue({ ...slow, target: 'slow', ttlSeconds: 1, owner: { kind: 'user', id: 'bob' } })
      )
    }
    const quick: Lease[] = []
    for (let count = 0; count < 4; count++) {
      quick.push(await ledger.issue(request('create', { ttlSeconds: 1, owner: { kind: 'user', id: 'bob' } })))
    }
    await until(
      'the quick ones are gone',
      () => quick.every(lease => world.target.accounts.get(lease.accountName) === undefined)
    )
    assert.is(stuck.filter(lease => world.target.accounts.get(lease.accountName) !== undefined).length, 4)
    gate.open()
    await until('all gone', () => world.target.accounts.names().length === 0)
  })

  promise('what is known of a name says whether anybody wants it, and reaping removes it', async world => {
    const { ledger } = await world.node('one')
    const lease = await ledger.issue(request())
    assert.equal((
      await ledger.known('orders', [lease.accountName, 'stranger'])
    ).map(each => [each.name, each.wanted]),
      [[lease.accountName, true]])
    await lease.release('session ended')
    // A store that was restored from a backup, or an effect that landed very late.
    world.target.accounts.set(
      lease.accountName, { accountId: lease.accountId, epoch: 1, enabled: true, verifier: '', expiresAt: '' }
    )
    assert.is((await ledger.known('orders', [lease.accountName]))[0]?.wanted, false)
    assert.is(await ledger.reap(lease.accountId, 'carol'), true)
    await until('gone again', () => world.target.accounts.names().length === 0)
    await until('proved again', async () => await stateOf(world, lease.accountId) === 'proved-gone')
    assert.is(await ledger.reap('no such account', 'carol'), false)
  })

  // Promised: S4.
  promise('history tells everything that happened to a lease, in order, with who did it', async world => {
    const { ledger } = await world.node('one')
    const lease = await ledger.issue(request('create', { owner: { kind: 'user', id: 'bob' }, actor: 'bob' }))
    await ledger.renew(lease.holdId, 60, 'bob')
    assert.is(await codeOf(ledger.renew(lease.holdId, 90_000, 'bob')), 'invalid')
    await ledger.revoke(lease.holdId, 'carol')
    const history = await ledger.history(lease.holdId)
    assert.equal(history.map(event => `${event.kind} ${event.actor}`), [
      'intended bob', 'active system', 'renewed bob', 'renewal-refused bob', 'revoked carol',
      'proved-gone system'
    ])
    const ids = history.map(event => event.id)
    const page = await ledger.history(lease.holdId, { after: ids[1]!, limit: 2 })
    assert.equal(page.map(event => event.id), ids.slice(2, 4))
  })

  promise('what still needs a target or a credential is named', async world => {
    const { ledger } = await world.node('one')
    const lease = await ledger.issue(request())
    assert.equal(
      await ledger.dependants('target', 'orders'), [`account ${lease.accountName} on orders is active`]
    )
    assert.is((await ledger.dependants('credential', 'admin')).length, 1)
    await lease.release('session ended')
    assert.equal(await ledger.dependants('target', 'orders'), [])
  })

  // Promised: F33.
  promise('all leases of a target, up to a thousand, are revoked and gone within 30 seconds', async world => {
    const { ledger } = await world.node('one')
    // The embedded store spends most of its time on issuing them.
    const many = kind === 'postgres' ? 1000 : 200
    const owner = { kind: 'application', id: 'shop' } as const
    const issueSome = async (count: number): Promise<void> => {
      for (; count > 0; count--) await ledger.issue(request('create', { owner }))
    }
    await Promise.all(Array.from({ length: 20 }, () => issueSome(many / 20)))
    const startedMs = performance.now()
    assert.is(await ledger.revokeAll({ target: 'orders' }, 'carol'), many)
    await ledger.idle()
    const seconds = (performance.now() - startedMs) / 1000
    assert.equal(world.target.accounts.names(), [])
    assert.equal(await world.rows(`select id from account where state <> 'proved-gone'`), [])
    assert.ok(seconds < 30, `${seconds} s`)
    process.stdout.write(`${kind}: ${many} leases revoked and proved gone in ${seconds.toFixed(1)} s\n`)
  })

  test(`${kind}: (the store is closed)`, async () => {
    await opened.close()
    assert.ok(opened)
  })
}

test('a target that keeps a request for ever is an answer that was lost', async () => {
  const target = new LeaseTarget()
  target.mood = () => ({ do: 'lose-request' })
  assert.is((await target.run({
    ...request(), account: {
      name: 'x', accountId: 'x', epoch: 1, kind: 'create'
    }, claimEndsMs: Infinity, variables: {},
    template: request().spec.open, inject: undefined, own: undefined
  })).state, 'unknown')
})

test.run()
