// Secrets that renew themselves (renewal R1–R4), over both stores with any number of nodes: the new one is
// there before the old one goes, of two nodes one renews, a node that died half way leaves nothing behind,
// and what is still in use is an alarm, not cut off. The ledger is a list here; the rows are the real ones.
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { systemClock } from '../src/clock.ts'
import { SallyportError } from '../src/errors.ts'
import type { LeaseRow } from '../src/lease/store-port.ts'
import type { DynamicSecret } from '../src/policy/secrets.ts'
import type { Declared } from '../src/policy/types.ts'
import { Secret } from '../src/secret.ts'
import { createRenewer } from '../src/secrets/renewal.ts'
import type { Renewer } from '../src/secrets/renewal.ts'
import { sql } from '../src/store/drizzle.ts'
import { createRenewals } from '../src/store/renewals.ts'
import type { Renewals } from '../src/store/renewals.ts'
import { openSecrets } from '../src/store/sealing.ts'
import { storeKinds, storeMaker } from './peers/stores.ts'

const path = 'prod/orders'

interface World {
  renewals: Renewals
  renewer: Renewer
  /** Leases by id, and whether they are live. */
  leases: Map<string, boolean>
  audit: { kind: string, detail: Record<string, unknown> }[]
  sessions: Map<string, number>
  declared: Declared
  failing: boolean
  /** Moves the rows of the secret back in time. */
  older(minutes: number): Promise<void>
  states(): Promise<string[]>
}

function declaredWith(secret: Partial<DynamicSecret> = {}): Declared {
  const whole: DynamicSecret = {
    name: path, environment: 'prod', folder: '', type: 'dynamic', namePrefix: 'jit_', maxTtlSeconds: 7200,
    outputs: [], renewal: { minutes: { ephemeralCredentials: 10 }, overlapSeconds: 300, confirmed: true },
    source: {
      kind: 'target', provider: 'postgres', target: 'orders', authenticationCredential: 'admin',
      create: 'postgres/create-role', delete: 'postgres/delete-role', variables: {}
    },
    ...secret
  }
  return {
    targets: new Map(), credentials: new Map(), users: new Map(), grants: [], environments: new Map(),
    secrets: new Map([[path, whole]]), profiles: new Map(), applications: new Map()
  }
}

for (const kind of storeKinds) {
  const on = suite(`renewal on ${kind}`)
  const stores = storeMaker(kind)
  on.after(() => stores.close())

  let opened: ReturnType<typeof stores.open> | undefined

  async function open(): Promise<World> {
    opened ??= stores.open()
    const { database, dataDir } = await opened
    await database.run(handle => handle.execute(sql`truncate renewed_credential, credential_reader`))
    const masterKey = { kind: 'file', file: join(dataDir, 'master.key') } as const
    const audit: World['audit'] = []
    const note = (of: string, detail: Record<string, unknown>): void => void audit.push({ kind: of, detail })
    const renewals = createRenewals(database, await openSecrets({ database, masterKey }), {
      appendIn: (_, of, __, ___, detail) => note(of, detail)
    })
    const world: World = {
      renewals, audit, leases: new Map(), sessions: new Map(), declared: declaredWith(), failing: false,
      renewer: createRenewer({
        clock: systemClock, store: renewals, declared: () => Promise.resolve(world.declared),
        generate: () => {
          if (world.failing) return Promise.reject(new SallyportError('hook-failed'))
          const lease = randomUUID()
          world.leases.set(lease, true)
          const values = [{ key: 'password', masked: true, value: new Secret(`of ${lease}`) }]
          return Promise.resolve({ path, version: undefined, lease, values })
        },
        revoke: lease => {
          const isLive = world.leases.get(lease) === true
          world.leases.set(lease, false)
          return Promise.resolve(isLive)
        },
        leases: () => Promise.resolve(
          [...world.leases].filter(([, isLive]) => isLive).map(([id]) => rowOf(id))),
        lease: id => Promise.resolve(rowOf(id, world.leases.get(id) === true ? 'active' : 'expired')),
        sessionsOf: lease => Promise.resolve(world.sessions.get(lease) ?? 0),
        audit: (of, _, __, detail) => Promise.resolve(note(of, detail)),
        warn: () => undefined
      }),
      older: minutes => database.run(async handle => {
        const back = sql.raw(`interval '${minutes} minutes'`)
        await handle.execute(sql`update renewed_credential
          set created_at = created_at - ${back}, retire_at = retire_at - ${back}`)
      }),
      states: async () => (await renewals.list(path)).map(({ version, state }) => `${version} ${state}`)
    }
    return world
  }

  on('the new credential is there before the old one goes, which goes when its overlap is over', async () => {
    const { renewer, renewals, leases, older, states, audit } = await open()
    await renewer.pass()
    await renewer.pass()
    assert.equal(await states(), ['1 current'])
    const [first] = await renewals.list(path)
    assert.match((await renewals.open(first!)).expose(), new RegExp(`of ${first!.lease}`))
    await older(10)
    await renewer.pass()
    assert.equal(await states(), ['1 retiring', '2 current'])
    assert.equal([...leases.values()], [true, true])
    await renewer.pass()
    assert.equal(await states(), ['1 retiring', '2 current'])
    await older(5)
    await renewer.pass()
    assert.equal(await states(), ['1 retired', '2 current'])
    assert.is(leases.get(first!.lease!), false)
    assert.is((await renewals.list(path))[0]?.secret, null)
    const kinds = audit.map(({ kind: of }) => of)
    assert.equal(kinds, ['secret.renewed', 'secret.renewed', 'secret.retired'])
  })

  on('what is still read or still connected is an alarm, once, and is not cut off', async () => {
    const { renewer, renewals, leases, sessions, older, states, audit } = await open()
    const alarms = (): unknown[] => audit.filter(({ kind: of }) => of === 'secret.still-in-use')
    await renewer.pass()
    const [first] = await renewals.list(path)
    await renewals.noteReader(path, 'application billing', 1)
    sessions.set(first!.lease!, 2)
    await older(10)
    await renewer.pass()
    await older(5)
    await renewer.pass()
    await renewer.pass()
    assert.equal(await states(), ['1 retiring', '2 current'])
    assert.is(leases.get(first!.lease!), true)
    assert.equal(alarms().map(alarm => (alarm as World['audit'][0]).detail), [
      { version: 1, readers: ['application billing'], sessions: 2, lease: first!.lease }
    ])
    await renewals.noteReader(path, 'application billing', 2)
    await renewer.pass()
    assert.is(leases.get(first!.lease!), true)
    sessions.clear()
    await renewer.pass()
    assert.equal(await states(), ['1 retired', '2 current'])
    assert.is(leases.get(first!.lease!), false)
    // An old version that is read once more does not undo the adoption.
    await renewals.noteReader(path, 'application billing', 1)
    assert.equal(await renewals.readersOf(path, 1), [])
  })

  on('of many nodes that find a renewal due exactly one makes it', async () => {
    const { renewer, leases, states } = await open()
    await Promise.all(Array.from({ length: 8 }, () => renewer.pass()))
    assert.equal(await states(), ['1 current'])
    assert.is(leases.size, 1)
  })

  on('a renewal that fails is tried again, one that nobody finishes is given up with its lease', async () => {
    const world = await open()
    const { renewer, renewals, leases, older, states } = world
    world.failing = true
    await renewer.pass()
    assert.equal(await states(), ['1 failed'])
    world.failing = false
    // As a node leaves it that dies between the account and its registration.
    assert.is(await renewals.begin(path, 0), 2)
    leases.set('stray', true)
    await renewer.pass()
    assert.equal(await states(), ['1 failed', '2 pending'])
    await older(3)
    await renewer.pass()
    assert.is(leases.get('stray'), false)
    assert.equal(await states(), ['1 failed', '2 failed', '3 current'])
  })

  on('nothing is renewed before it was confirmed, and what a switch-off leaves runs to its end', async () => {
    const world = await open()
    const { renewer, renewals, leases, states } = world
    const renewal = { minutes: { ephemeralCredentials: 10 }, overlapSeconds: 300, confirmed: false }
    world.declared = declaredWith({ renewal })
    await renewer.pass()
    world.declared = declaredWith({ renewal: { ...renewal, minutes: { credentials: 10 }, confirmed: true } })
    await renewer.pass()
    assert.equal(await states(), [])
    world.declared = declaredWith()
    await renewer.pass()
    world.declared = declaredWith({ renewal: undefined })
    await renewer.pass()
    assert.equal(await states(), ['1 current'])
    leases.set((await renewals.list(path))[0]!.lease!, false)
    await renewer.pass()
    assert.equal(await states(), ['1 retired'])
  })

  on.run()
}

function rowOf(id: string, status: LeaseRow['status'] = 'active'): LeaseRow {
  const at = new Date(0)
  return {
    id, name: 'renewal', account: 'a', accountName: 'jit_1', accountKind: 'create', accountState: 'active',
    target: 'orders', credential: path, ownerKind: 'application', owner: 'sallyport', status,
    holdState: 'active', createdAt: at, expiresAt: at, maxAt: at, endedAt: null, renewals: 0, renewableMs: 0,
    attempts: 0, lastError: null
  }
}
