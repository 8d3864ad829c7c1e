// Shared accounts (enable-disable): on exactly while somebody holds them, on any node; the last one switches
// off, the next one on again with a new secret; a closing that comes late never ends a newer session. On both
// stores.
// deadline: 180 s
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Secret } from '../src/secret.ts'
import { createGate } from './peers/lease-target.ts'
import {
  codeOf, openStore, openWorld, request, shortLimits, stateOf, strangers, stillLimits, until
} from './peers/lease-world.ts'
import type { StoreKind, World } from './peers/lease-world.ts'

function passwordOf(lease: { inject: { kind: string } }): string {
  const inject = lease.inject as { kind: 'password', password: { expose(): string } }
  return inject.password.expose()
}

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

  promise('two sessions share an account: one hook on, one hook off after the last (J4, J6)', async world => {
    const { ledger } = await world.node('one')
    const first = await ledger.issue(request('enable', { owner: { kind: 'session', id: 's1' } }))
    const second = await ledger.issue(request('enable', { owner: { kind: 'session', id: 's2' } }))
    assert.is(second.accountId, first.accountId)
    assert.is(passwordOf(second), passwordOf(first))
    await first.release('session ended')
    assert.equal(world.target.usable(), ['deploy'])
    assert.is((await ledger.show(first.holdId))?.status, 'revoked')
    await second.release('session ended')
    assert.equal(world.target.usable(), [])
    assert.equal([world.target.count('enable'), world.target.count('disable')], [1, 1])
    assert.ok(world.target.accounts.get('deploy') !== undefined, 'it is never deleted')
    const receipts = await world.rows('select session, body from receipt order by session')
    assert.equal(receipts.map(row => row.session), ['s1', 's2'])
    assert.equal((receipts[0]?.body as { sessions: unknown }).sessions, ['s1', 's2'])
  })

  promise('each time it is switched on it has a new secret, and the old one is forgotten', async world => {
    const { ledger } = await world.node('one')
    const first = await ledger.issue(request('enable'))
    await first.release('session ended')
    assert.is((await world.rows('select secret from account'))[0]?.secret, null)
    await using second = await ledger.issue(request('enable'))
    assert.is(passwordOf(first) === passwordOf(second), false)
    assert.is(second.accountId, first.accountId)
  })

  promise('an account that keeps its secret lends it to its sessions, none is sealed (J12)', async world => {
    const { ledger } = await world.node('one')
    const standing = { kind: 'password', password: new Secret('its own') } as const
    const first = await ledger.issue(request('enable', { standing }))
    const second = await ledger.issue(request('enable', { standing }))
    assert.equal([passwordOf(first), passwordOf(second)], ['its own', 'its own'])
    assert.is((await world.rows('select secret from account'))[0]?.secret, null)
    await first.release('session ended')
    await second.release('session ended')
    assert.equal([world.target.count('enable'), world.target.count('disable')], [1, 1])
  })

  promise('many sessions that begin at once switch on once, and end with off', async world => {
    const [one, two] = [await world.node('one'), await world.node('two')]
    for (let round = 0; round < 3; round++) {
      const issued = await Promise.all(Array.from({ length: 24 }, (_, number) =>
        (number % 2 === 0 ? one : two).ledger.issue(
          request('enable', { owner: { kind: 'session', id: `s${round}-${number}` } })
        )))
      assert.is(new Set(issued.map(passwordOf)).size, 1)
      await Promise.all(issued.map(async (lease, number) => {
        for (let step = 0; step < number % 5; step++) await Promise.resolve()
        await lease.release('session ended')
      }))
      await Promise.all([one.ledger.idle(), two.ledger.idle()])
      assert.equal(world.target.usable(), [])
      assert.is(world.target.count('enable'), round + 1)
      assert.is(world.target.count('disable'), round + 1)
    }
    assert.equal(await world.rows(`select id from hold where state in ('pending', 'active')`), [])
  })

  promise('sessions that come and go at random on two nodes find the account on, every time', async world => {
    const nodes = [await world.node('one'), await world.node('two')]
    let found = 0
    await Promise.all(Array.from({ length: 8 }, async (_, worker) => {
      for (let turn = 0; turn < 12; turn++) {
        const lease = await nodes[(worker + turn) % 2]?.ledger.issue(request('enable'))
        assert.equal(world.target.usable(), ['deploy'], 'off while a session uses it')
        found++
        if ((worker + turn) % 3 === 0) await new Promise(resolve => setImmediate(resolve))
        assert.equal(world.target.usable(), ['deploy'], 'off while a session uses it')
        await lease?.release('session ended')
      }
    }))
    await Promise.all(nodes.map(({ ledger }) => ledger.idle()))
    assert.is(found, 96)
    assert.equal(world.target.usable(), [])
    assert.is(world.target.count('enable'), world.target.count('disable'))
  })

  promise('who comes while it is being switched off waits, and gets a new secret', async world => {
    const { ledger } = await world.node('one')
    const first = await ledger.issue(request('enable'))
    const gate = createGate()
    world.target.gate = ({ action }) => action === 'disable' ? gate.wait() : undefined
    const releasing = first.release('session ended')
    await gate.reached
    const lines: string[] = []
    const joining = ledger.issue(request('enable', { tell: line => void lines.push(line) }))
    await until('it waits', () => lines.some(line => line.startsWith('waiting for account deploy')))
    const id = first.accountId
    const waiting = await world.rows(`select id from hold where account = '${id}' and state = 'pending'`)
    assert.is(waiting.length, 1)
    gate.open()
    await releasing
    await using second = await joining
    assert.equal(world.target.usable(), ['deploy'])
    assert.is(passwordOf(second) === passwordOf(first), false)
    assert.is(world.target.accounts.get('deploy')?.verifier, 'verifier 2')
  })

  promise('who waits too long hears so, and leaves nothing behind', async world => {
    const { ledger } = await world.node(
      'one', { limits: { ...shortLimits, claimMs: 30_000, joinWaitMs: 200, releaseWaitMs: 20 } }
    )
    const first = await ledger.issue(request('enable'))
    const gate = createGate()
    world.target.gate = ({ action }) => action === 'disable' ? gate.wait() : undefined
    await first.release('session ended')
    assert.is(await codeOf(ledger.issue(request('enable'))), 'hook-timeout')
    gate.open()
    await ledger.idle()
    assert.equal(world.target.usable(), [])
    assert.equal(await world.rows(`select id from hold where state in ('pending', 'active')`), [])
  })

  promise('an account whose switching-off is stuck is taken over by the next session', async world => {
    const { ledger } = await world.node('one', { limits: { ...stillLimits } })
    const first = await ledger.issue(request('enable'))
    world.target.mood = ({ action }) => action === 'disable' ? {
      do: 'refuse', error: 'permission denied'
    } : { do: 'obey' }
    await first.release('session ended')
    assert.is(await stateOf(world, first.accountId), 'stuck')
    const second = await ledger.issue(request('enable'))
    assert.is(await stateOf(world, first.accountId), 'active')
    world.target.mood = () => ({ do: 'obey' })
    await second.release('session ended')
    assert.is(await stateOf(world, first.accountId), 'proved-gone')
    assert.equal(world.target.usable(), [])
  })

  promise('a refused switching-on fails that session, and the next one tries by itself', async world => {
    const { ledger } = await world.node('one')
    let refusals = 1
    world.target.mood = ({ action }) => action === 'enable' && refusals-- > 0 ? {
      do: 'refuse', error: 'no'
    } : { do: 'obey' }
    const [first, second] = await Promise.allSettled(
      [ledger.issue(request('enable')), ledger.issue(request('enable'))]
    )
    const codes = [first, second].map(
      each => each.status === 'fulfilled' ? 'issued' : (each.reason as { code: string }).code
    )
    assert.equal(codes.sort(), ['hook-failed', 'issued'])
    for (const each of [first, second]) {
      if (each.status === 'fulfilled') await each.value.release('session ended')
    }
    assert.equal(world.target.usable(), [])
  })

  promise('a shared account may not take the name of one that we made', async world => {
    const { ledger } = await world.node('one')
    await using made = await ledger.issue(request())
    assert.is(
      await codeOf(ledger.issue(request('enable', { accountName: made.accountName }))), 'account-conflict'
    )
    assert.is(world.target.count('enable'), 0)
  })

  promise('the closing hook is the one of the session that switched the account on (J11)', async world => {
    const { ledger } = await world.node('one')
    const first = await ledger.issue(request('enable', {}, 1))
    const second = await ledger.issue(request('enable', {}, 2))
    await first.release('session ended')
    await second.release('session ended')
    assert.is(world.target.effects.at(-1)?.work.template.body, 'text of disable 1')
  })

  promise('the dead-man switch is moved for those who join late, the secret is not', async world => {
    const { ledger } = await world.node('one', { limits: { ...shortLimits, deadManMs: 0 } })
    await using first = await ledger.issue(request('enable', { ttlSeconds: 600, maxTtlSeconds: 600 }))
    const before = world.target.accounts.get('deploy')
    assert.is(Math.round((Date.parse(before?.expiresAt ?? '') - first.expiresAt.getTime()) / 1000), 600)
    // As if the first had begun long ago: the switch falls before the second one's time is up.
    await world.rows(`update account
      set spec = jsonb_set(spec, '{deadManAt}', to_jsonb((now() + interval '5 minutes')::text))`)
    await using second = await ledger.issue(request('enable', { ttlSeconds: 600, maxTtlSeconds: 600 }))
    await until('it was moved', () => world.target.count('enable') === 2)
    await until('it is on the books', async () =>
      (await world.rows(`select id from account
        where (spec->>'deadManAt')::timestamptz > now() + interval '15 minutes'`)).length === 1)
    assert.ok(Date.parse(world.target.accounts.get('deploy')?.expiresAt ?? '') > second.expiresAt.getTime())
    assert.is(world.target.accounts.get('deploy')?.verifier, before?.verifier)
    await using third = await ledger.issue(request('enable', { ttlSeconds: 600, maxTtlSeconds: 600 }))
    assert.is(passwordOf(third), passwordOf(first))
    await ledger.pass()
    await ledger.idle()
    assert.is(world.target.count('enable'), 2)
  })

  promise('the death of a process switches off only what nobody else holds', async world => {
    const one = await world.node('one')
    const two = await world.node('two')
    const first = await one.ledger.issue(request('enable'))
    const second = await two.ledger.issue(request('enable'))
    await one.ledger.stop()
    const again = await world.node('one')
    await until(
      'its hold is released', async () => (await again.ledger.show(first.holdId))?.holdState === 'released'
    )
    await again.ledger.idle()
    assert.equal(world.target.usable(), ['deploy'])
    await second.release('session ended')
    assert.equal(world.target.usable(), [])
  })

  test(`${kind}: (the store is closed)`, async () => {
    await opened.close()
    assert.ok(opened)
  })
}

test.run()
