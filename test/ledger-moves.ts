// Every move of the ledger's store, tried from every state: the only changes of state are those of the table
// in src/lease/states.ts, every one of the table really happens, and whoever comes with an epoch or a state
// that is not the account's changes nothing at all. On both stores.
// deadline: 180 s
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { accountStates, leasesListedMax, leaseStatus, moves } from '../src/lease/states.ts'
import type { AccountState } from '../src/lease/states.ts'
import { asked, shown } from '../src/lease/view.ts'
import { openStore, openWorld, request, until } from './peers/lease-world.ts'
import type { StoreKind, World } from './peers/lease-world.ts'
import type { Claim, Claimant, Ended, Intent, LedgerStore, RemovalResult } from '../src/lease/store-port.ts'

type Kind = 'create' | 'enable'

interface Setting {
  state: AccountState
  kind: Kind
  claimed: boolean
  /** A live hold, or none. */
  hold: 'pending' | 'active' | 'none'
}

const claimant: Claimant = { node: 'one', boot: 'b1' }
const epoch = 5

// One statement for each try: there are thousands of them.
async function arrange(world: World, { state, kind, claimed, hold }: Setting): Promise<void> {
  const spec = JSON.stringify(
    { ...request(kind).spec, deadManAt: '2999-01-01T00:00:00Z' }
  ).replaceAll(`'`, `''`)
  const replace = (columns: string): string =>
    columns.split(', ').map(column => `${column} = excluded.${column}`).join(', ')
  const accountColumns =
    'target, name, kind, credential, state, epoch, claimed_by, next_at, spec, verify_left, ended_at'
  const holdColumns = 'account, name, owner_kind, owner, node, boot, state, expires_at, max_at, ended_at'
  await world.rows(`with n as (
      insert into node (id, boot) values ('one', 'b1') on conflict (id) do update set boot = 'b1'
    ), h as (delete from hold where id <> 'h'), r as (delete from receipt), e as (delete from lease_event), a
      as (
      insert into account (id, ${accountColumns}) values ('a', 'orders', 'deploy', '${kind}', 'c', '${state}',
        ${epoch},
        ${claimed ? `'one/b1'` : 'null'}, now() - interval '1 second', '${spec}', 0, null)
      on conflict (id) do update set ${replace(accountColumns)}
    )
    insert into hold (id, ${holdColumns}) values ('h', 'a', 'l', 'session', 's', 'one', 'b1',
      '${hold === 'none' ? 'released' : hold}', now() + interval '1 hour', now() + interval '1 hour',
      ${hold === 'none' ? 'now()' : 'null'})
    on conflict (id) do update set ${replace(holdColumns)}`)
}

function claimOf({ state, kind }: Setting, changes: Partial<Claim> = {}): Claim {
  return {
    accountId: 'a', name: 'deploy', kind, target: 'orders', credential: 'c', state, epoch, attempts: 0,
    verifyLeft: 0,
    spec: request(kind).spec, secret: undefined, holds: [], createdAt: new Date(0), activeAt: undefined,
    wantedUntil: undefined, ...changes
  }
}

function intentOf(changes: Partial<Intent> = {}): Intent {
  return {
    claimant, accountId: 'b', holdId: 'h2', kind: 'enable', target: 'orders', accountName: 'deploy',
    credential: 'c',
    spec: request('enable').spec, leaseName: 'l', owner: {
      kind: 'session', id: 's2'
    }, actor: 'x', ttlMs: 60_000,
    maxTtlMs: 60_000, deadManMs: 60_000, claimMs: 60_000, ...changes
  }
}

function resultOf(state: RemovalResult['state']): RemovalResult {
  return {
    state, nextInMs: 1000, attempts: 1, verifyLeft: 0, error: undefined, event: { kind: state, detail: {} },
    receipts: [{ id: 'r', session: 's', body: '{"state":"x"}', keyId: 'k', signature: 's' }],
    // Its transaction is tried in receipt-event.ts; here a move is one statement.
    audited: undefined
  }
}

const terms = { claimMs: 1000, reassertMs: 1000, secret: undefined }
const failure = { claimMs: 1000, late: true, error: 'no' }
const results = ['proved-gone', 'removing', 'stuck', 'quarantined', 'unreachable'] as const

// Moves that name an epoch: they must do nothing with another.
const fencedMoves: Record<string, (
  store: LedgerStore, setting: Setting, itsEpoch: number
) => Promise<unknown>> = {
  'settle': (store, _setting, its) => store.settle(claimant, 'a', its, 'h', terms),
  'fail': (store, _setting, its) => store.fail(claimant, 'a', its, 'h', { ...failure, untouched: false }),
  'fail untouched': (store, _setting, its) => store.fail(
    claimant, 'a', its, 'h', { ...failure, untouched: true }
  ),
  'assert': (store, setting, its) =>
    store.asserted(
      claimant, claimOf(setting, { epoch: its }),
      { againInMs: undefined, error: undefined, deadManAt: undefined }
    ),
  ...Object.fromEntries(results.map(result => [`finish ${result}`, (
    store: LedgerStore, setting: Setting, its: number
  ) =>
    store.finish(claimant, claimOf(setting, { epoch: its }), resultOf(result))]))
}

const freeMoves: Record<string, (world: World) => Promise<unknown>> = {
  'join': ({ store }) => store.join(intentOf()),
  'late': ({ store }) => store.late('a', 'x', 'why'),
  'due': ({ store }) => store.due({ claimant, claimMs: 1000, limit: 10, perTarget: 10, room: {} }),
  'due of another target': ({ store }) => store.due(
    { claimant, claimMs: 1000, limit: 10, perTarget: 10, room: { orders: 0 } }
  ),
  'probe': ({ store }) => store.probe(),
  'wake': ({ store }) => store.wake('orders', 10),
  'renew': ({ store }) => store.renew('h', 'x', () => ({ renewed: true, expiresAtMs: 1e13, renewableMs: 0 })),
  'end': ({ store }) => store.end(
    { holdId: 'h', as: 'released', actor: 'x', detail: {}, claimant, claimMs: 9 }
  ),
  'end, revoked': ({ store }) => store.end(
    { holdId: 'h', as: 'revoked', actor: 'x', detail: {}, claimant, claimMs: 9 }
  ),
  'expire': async world => {
    await world.rows(`update hold set expires_at = now() - interval '1 second' where id = 'h'`)
    await world.store.expire(10)
  },
  'sweep after a restart': async world => {
    await world.store.boot({ node: 'one', boot: 'b2' })
    await world.store.sweep(10)
  }
}

function settings(): readonly Setting[] {
  const all: Setting[] = []
  for (const state of accountStates) {
    for (const kind of ['create', 'enable'] as const) {
      for (const claimed of [true, false]) {
        for (const hold of ['pending', 'active', 'none'] as const) all.push({ state, kind, claimed, hold })
      }
    }
  }
  return all
}

async function account(world: World): Promise<string> {
  return JSON.stringify((await world.rows(`select * from account where id = 'a'`))[0])
}

async function state(world: World): Promise<AccountState> {
  return (await world.rows(`select state from account where id = 'a'`))[0]?.state as AccountState
}

for (const kind of ['pglite', 'postgres'] as const satisfies readonly StoreKind[]) {
  let opened: Awaited<ReturnType<typeof openStore>>

  test(`${kind}: accounts move only as the table says, and every move of it happens`, async () => {
    opened = await openStore(kind)
    await using world = await openWorld(opened.database)
    const seen = new Map<string, string>()
    for (const setting of settings()) {
      const acts: [string, () => Promise<unknown>][] = [
        ...Object.entries(freeMoves).map(
          ([name, act]): [string, () => Promise<unknown>] => [name, () => act(world)]
        ),
        ...Object.entries(fencedMoves).map(([name, act]): [string, () => Promise<unknown>] =>
          [name, () => act(world.store, setting, epoch)])
      ]
      for (const [name, act] of acts) {
        await arrange(world, setting)
        const before = await account(world)
        await act()
        const after = await state(world)
        if (before === await account(world)) continue
        const isLegal = after === setting.state || moves[setting.state].includes(after)
        assert.ok(isLegal, `${name} moved ${JSON.stringify(setting)} to ${after}`)
        seen.set(`${setting.state} ${after}`, name)
      }
    }
    const missing = accountStates.flatMap(
      from => moves[from].filter(to => !seen.has(`${from} ${to}`)).map(to => `${from} → ${to}`)
    )
    assert.equal(missing, [], 'moves of the table that nothing makes')
  })

  test(`${kind}: an outcome for an older or newer epoch changes nothing`, async () => {
    await using world = await openWorld(opened.database)
    for (const setting of settings()) {
      await arrange(world, setting)
      const before = await account(world)
      for (const [name, act] of Object.entries(fencedMoves)) {
        for (const its of [epoch - 1, epoch + 1]) {
          await act(world.store, setting, its)
          assert.is(await account(world), before, `${name} with epoch ${its} on ${JSON.stringify(setting)}`)
        }
      }
      assert.equal(await world.rows('select id from receipt'), [])
    }
  })

  test(`${kind}: an outcome counts only from the claimant, in the state that was claimed`, async () => {
    await using world = await openWorld(opened.database)
    const setting: Setting = { state: 'removing', kind: 'create', claimed: true, hold: 'none' }
    await arrange(world, setting)
    const before = await account(world)
    assert.is(
      await world.store.finish({ node: 'two', boot: 'b1' }, claimOf(setting), resultOf('proved-gone')),
      'fenced'
    )
    assert.is(
      await world.store.finish(claimant, claimOf(setting, { state: 'stuck' }), resultOf('proved-gone')),
      'fenced'
    )
    assert.is(await account(world), before)
    assert.is(await world.store.finish(claimant, claimOf(setting), resultOf('proved-gone')), 'done')
    assert.is(await world.store.finish(claimant, claimOf(setting), resultOf('stuck')), 'fenced')
    assert.is(await state(world), 'proved-gone')
  })

  test(`${kind}: a node that was declared dead begins nothing and hands out nothing`, async () => {
    await using world = await openWorld(opened.database)
    await arrange(world, { state: 'creating', kind: 'create', claimed: true, hold: 'pending' })
    await world.store.boot({ node: 'two', boot: 'b' })
    await world.rows(`update node set beat_at = now() - interval '1 hour' where id = 'one'`)
    const beat = await world.store.beat(
      { claimant: { node: 'two', boot: 'b' }, ttlMs: 30_000, declare: true }
    )
    assert.equal(beat, { alive: true, peers: 0, declared: ['one'] })
    assert.is((await world.store.beat({ claimant, ttlMs: 30_000, declare: true })).alive, false)
    assert.is((await world.store.intend(intentOf({ kind: 'create', accountName: 'new' }))).state, 'fenced')
    assert.is((await world.store.join(intentOf({ accountName: 'new2' }))).state, 'fenced')
    const settled = await world.store.settle(claimant, 'a', epoch, 'h', terms)
    assert.is(settled.state, 'withdrawn')
  })

  test(`${kind}: what is asked in one moment is decided as if one came after the other`, async () => {
    await using world = await openWorld(opened.database)
    await world.store.boot(claimant)
    const end = (holdId: string): Promise<Ended> => world.store.end(
      { holdId, as: 'released', actor: 'x', detail: {}, claimant, claimMs: 9000 })
    // Two holds of one shared account, and one of them twice: it is removed once.
    await arrange(world, { state: 'active', kind: 'enable', claimed: false, hold: 'active' })
    await world.rows(`insert into hold (id, account, name, owner_kind, owner, node, boot, state, expires_at,
      max_at) select 'h2', account, name, owner_kind, owner, node, boot, state, expires_at, max_at from hold`)
    const shared = await Promise.all([end('h'), end('h2'), end('h'), end('none')])
    assert.equal(shared.map(({ ended }) => ended).sort(), [false, false, true, true])
    assert.is(shared.filter(({ claim }) => claim !== undefined).length, 1)
    assert.is(shared[3]?.hold, undefined)

    // New accounts: a name that two want is given to one, and each has its own outcome.
    const names = ['n1', 'n2', 'n1', 'n3']
    const made = await Promise.all(names.map((accountName, index) => world.store.intend(intentOf({
      kind: 'create', accountName, accountId: `new${index}`, holdId: `of${index}` }))))
    assert.equal(made.map(({ state }) => state).sort(), ['claimed', 'claimed', 'claimed', 'name-taken'])
    const taken = made.findIndex(({ state }) => state === 'name-taken')
    const settled = await Promise.all(names.map((_, index) =>
      world.store.settle(claimant, `new${index}`, index === 1 ? 7 : 1, `of${index}`, terms)))
    assert.equal(settled.map(({ state }) => state), names.map((_, index) =>
      index === 1 || index === taken ? 'fenced' : 'active'))
    const ends = await Promise.all(names.map((_, index) => end(`of${index}`)))
    const claims = ends.flatMap(({ claim }) => claim === undefined ? [] : [claim])
    assert.is(claims.length, 2)
    const finished = await Promise.all(claims.map((claim, index) => world.store.finish(
      claimant, index === 0 ? claim : { ...claim, epoch: 1 },
      { ...resultOf('proved-gone'), receipts: [] })))
    assert.equal(finished, ['done', 'fenced'])
  })

  if (kind === 'postgres') {
    test('a move that waits for its rows decides by what it then finds', async () => {
      await using world = await openWorld(opened.database)
      await world.store.boot(claimant)
      /** Asks while somebody, who has not locked the account, holds the row of the hold and changes it. */
      const meanwhile = async <T>(change: string, ask: () => Promise<T>): Promise<T> => {
        const [locked, free] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
        const other = world.database.transaction(async tx => {
          await tx.execute(`update hold set ${change} where id = 'h'`)
          locked.resolve()
          await free.promise
        })
        await locked.promise
        const answer = ask()
        await until('it waits', async () => (await world.rows(`select from pg_stat_activity
          where datname = current_database() and wait_event_type = 'Lock'`)).length > 0)
        free.resolve()
        await other
        return await answer
      }
      const end = (): Promise<Ended> => world.store.end({
        holdId: 'h', as: 'expired', actor: 'x', detail: {}, claimant, claimMs: 9000,
        ifExpiresBy: new Date(Date.now() + 90 * 60_000)
      })
      const active = { state: 'active', kind: 'create', claimed: false, hold: 'active' } as const
      await arrange(world, active)
      const renewed = await meanwhile(`expires_at = now() + interval '2 hours'`, end)
      assert.equal([renewed.ended, await state(world)], [false, 'active'])
      assert.ok(renewed.renewed !== undefined && renewed.renewed.leftMs > 100 * 60_000)
      await arrange(world, active)
      const gone = await meanwhile(`state = 'revoked', ended_at = now()`, end)
      assert.equal([gone.ended, gone.hold?.state, gone.claim], [false, 'revoked', undefined])
      await arrange(world, active)
      const ended = await meanwhile(`renewals = 1`, end)
      assert.equal([ended.ended, ended.claim?.accountId, await state(world)], [true, 'a', 'removing'])
      await arrange(world, { state: 'creating', kind: 'create', claimed: true, hold: 'pending' })
      const settled = await meanwhile(`state = 'revoked', ended_at = now()`,
        () => world.store.settle(claimant, 'a', epoch, 'h', terms))
      assert.equal([settled.state, await state(world)], ['withdrawn', 'removing'])
    })
  }

  test(`${kind}: a node is not declared dead while it beats, nor by one that may not`, async () => {
    await using world = await openWorld(opened.database)
    await world.store.boot(claimant)
    await world.store.boot({ node: 'two', boot: 'b' })
    const of = { claimant, ttlMs: 30_000 }
    assert.equal(await world.store.beat({ ...of, declare: true }), { alive: true, peers: 1, declared: [] })
    await world.rows(`update node set beat_at = now() - interval '1 hour' where id = 'two'`)
    assert.equal(await world.store.beat({ ...of, declare: false }), { alive: true, peers: 0, declared: [] })
  })

  test(`${kind}: a filter by status shows what the status column shows, in every combination`, async () => {
    await using world = await openWorld(opened.database)
    for (const accountState of accountStates) {
      for (const hold of ['pending', 'active', 'released', 'expired', 'revoked', 'failed'] as const) {
        await arrange(world, { state: accountState, kind: 'create', claimed: false, hold: 'none' })
        await world.rows(`update hold set state = '${hold}' where id = 'h'`)
        const [record] = await world.store.list(asked({ limit: 10 }))
        const status = record === undefined ? 'no row' : shown(record).status
        assert.is(status, leaseStatus(hold, accountState, false))
        for (const wanted of ['active', 'expired', 'revoked', 'revoking', 'failed']) {
          const found = await world.store.list(asked({ status: wanted, limit: 10 }))
          assert.is(found.length, status === wanted ? 1 : 0)
        }
      }
    }
  })

  test(`${kind}: a list goes on where the page before ended, page by page`, async () => {
    await using world = await openWorld(opened.database)
    await arrange(world, { state: 'active', kind: 'create', claimed: false, hold: 'active' })
    await world.rows(`
      insert into hold select (jsonb_populate_record(h, jsonb_build_object('id', 'p' || n))).*
        from hold h, generate_series(1, ${2 * leasesListedMax}) n`)
    const pages: string[][] = []
    for (let before: string | undefined; pages.at(-1)?.length !== 1 && pages.length < 5;) {
      const page = await world.store.list({ limit: 10 * leasesListedMax, before })
      pages.push(page.map(({ id }) => id))
      before = page.at(-1)?.id
    }
    assert.equal(pages.map(page => page.length), [leasesListedMax, leasesListedMax, 1])
    assert.is(new Set(pages.flat()).size, 2 * leasesListedMax + 1)
    await opened.close()
  })
}

test.run()
