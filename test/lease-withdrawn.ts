// Leases of people and applications whose right has ended: however many there are, all of them go, and also
// when nobody declares anything, because a grant ends by the clock or the node that heard of the change died
// before it acted. The ledger and its store are real; the lists are cut short, as the store cuts long ones.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { systemClock } from '../src/clock.ts'
import type { Clock } from '../src/clock.ts'
import type { Ledger } from '../src/lease/ledger.ts'
import type { Rooms } from '../src/main/rooms.ts'
import { openSecretRoom, revokeWithdrawn } from '../src/main/secrets.ts'
import type { SecretDefinition } from '../src/policy/secrets.ts'
import type { Declared, GrantRule, User } from '../src/policy/types.ts'
import type { RenewalStore } from '../src/secrets/renewal.ts'
import { openStore, openWorld, request, stillLimits, until } from './peers/lease-world.ts'
import type { World } from './peers/lease-world.ts'

const path = 'prod/orders'
const pageMax = 2

function declaredWith(grants: readonly GrantRule[]): Declared {
  const user: User = { name: 'alice', roles: ['user'], disabled: false, publicKeys: [] }
  const secret: SecretDefinition = {
    name: path, environment: 'prod', folder: '', type: 'static', keys: ['password']
  }
  return {
    targets: new Map(), credentials: new Map(), grants, environments: new Map(), profiles: new Map(),
    applications: new Map(), users: new Map([['alice', user]]), secrets: new Map([[path, secret]])
  }
}

function grantUntil(notAfter: Date | undefined): GrantRule {
  const end = notAfter === undefined ? {} : { notAfter: notAfter.toISOString() }
  return {
    name: 'alice-on-orders', users: ['alice'], credentials: [], secrets: [path], replication: false, ...end
  }
}

const issued = async (ledger: Ledger, owner: string): Promise<string> =>
  (await ledger.issue(request('create', { credential: path, owner: { kind: 'user', id: owner } }))).holdId

/** As the store does with a thousand. */
function cutShort(ledger: Ledger): Ledger {
  return { ...ledger, list: filter => ledger.list({ ...filter, limit: Math.min(filter.limit, pageMax) }) }
}

const active = async (ledger: Ledger): Promise<number> =>
  (await ledger.list({ status: 'active', limit: 100 })).length

let opened: Awaited<ReturnType<typeof openStore>>
let world: World
const log = { error: () => undefined, warn: () => undefined } as unknown as Rooms['log']

test.before(async () => {
  opened = await openStore('pglite')
  world = await openWorld(opened.database)
})
test.after(async () => {
  await world[Symbol.asyncDispose]()
  await opened.close()
})

test('all leases of a withdrawn grant go, however many there are; the local admin keeps theirs', async () => {
  const { ledger, clock } = await world.node('one', { limits: stillLimits })
  for (const owner of ['alice', 'alice', 'local', 'alice', 'alice', 'alice']) await issued(ledger, owner)
  const room = { ledger: cutShort(ledger), clock, log }
  await revokeWithdrawn({ ...room, declared: async () => declaredWith([grantUntil(undefined)]) })
  assert.is(await active(ledger), 6)
  await revokeWithdrawn({ ...room, declared: async () => declaredWith([]) })
  const left = await ledger.list({ status: 'active', limit: 100 })
  assert.equal(left.map(({ owner }) => owner), ['local'])
  await ledger.revoke(left[0]!.id, 'local')
})

test('a lease goes when its grant has ended by the clock, though nobody declared anything', async () => {
  const { ledger } = await world.node('two', { limits: stillLimits })
  const id = await issued(ledger, 'alice')
  // Everything that is due in a while is due now.
  const clock: Clock = {
    now: () => systemClock.now(), monotonicMs: () => systemClock.monotonicMs(),
    after: (_, act) => systemClock.after(20, act)
  }
  const declared = declaredWith([grantUntil(new Date(systemClock.now().getTime() + 1500))])
  const room = {
    clock, ledger, log, declared: async () => declared, audit: { append: async () => undefined }
  } as unknown as Rooms
  const store = { alive: async () => [] } as unknown as RenewalStore
  const { close } = openSecretRoom(room, store)
  assert.is((await ledger.show(id))?.status, 'active')
  await until('revoked', async () => (await ledger.show(id))?.status === 'revoked')
  await close()
})

test.run()
