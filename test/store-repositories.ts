// What the rooms keep in the store: declared documents with their one change at a time and their cheap
// re-reading, template versions, sessions from opening to end (also while the store is away), receipts and
// tokens. On both stores.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { systemClock } from '../src/clock.ts'
import { SallyportError } from '../src/errors.ts'
import { authorise } from '../src/policy/authorise.ts'
import type { Grant } from '../src/policy/authorise.ts'
import type { Credential, GrantRule, Target, User } from '../src/policy/types.ts'
import { Secret } from '../src/secret.ts'
import type { LiveSession } from '../src/session/registry.ts'
import type { AuditLog } from '../src/store/audit.ts'
import type { Database } from '../src/store/database.ts'
import { eq, sql } from '../src/store/drizzle.ts'
import { createReceipts } from '../src/store/receipts.ts'
import { createReplay } from '../src/store/replay.ts'
import { createResources } from '../src/store/resources.ts'
import type { Resources } from '../src/store/resources.ts'
import { account, node, secretValue, session } from '../src/store/schema.ts'
import { createSessions } from '../src/store/sessions.ts'
import type { Sessions } from '../src/store/sessions.ts'
import { instanceId } from '../src/store/settings.ts'
import { createTemplates, hashOf } from '../src/store/templates.ts'
import type { TemplateText } from '../src/store/templates.ts'
import { createTokens } from '../src/store/tokens.ts'
import { openSecrets } from '../src/store/sealing.ts'
import { storeKinds, storeMaker } from './peers/stores.ts'

const target: Target = {
  name: 'orders', protocol: 'postgres', host: '127.0.0.1', port: 5433, database: 'postgres',
  tls: { mode: 'disable' }
}
const credential: Credential = { name: 'orders-rw', target: 'orders', username: 'app' }
const user: User = { name: 'alice', roles: ['user'], publicKeys: [], disabled: false }
const rule: GrantRule = { name: 'devs', users: ['alice'], credentials: ['orders-rw'], replication: false }

async function codeOf(act: Promise<unknown>): Promise<string> {
  const thrown: unknown = await act.then(() => undefined, (error: unknown) => error)
  return thrown instanceof SallyportError ? thrown.code : String(thrown)
}

function liveSession(id: string, minutes = 60): LiveSession {
  const grant = authorise({
    targets: new Map([['orders', target]]), credentials: new Map([['orders-rw', credential]]),
    users: new Map([['alice', user]]), grants: [rule],
    environments: new Map(), secrets: new Map(), profiles: new Map(), applications: new Map()
  }, user, {
    login: 'alice+orders-rw', database: 'alice+orders-rw', replication: false, protocol: 'postgres'
  }, new Date()) as Grant
  const startedAt = new Date()
  return {
    id, grant, startedAt, expiresAt: new Date(startedAt.getTime() + minutes * 60_000),
    claim: {
      protocol: 'postgres', login: 'alice+orders-rw', database: 'alice+orders-rw', replication: false,
      address: '192.0.2.1', tls: false
    }
  }
}

for (const kind of storeKinds) {
  const test = suite(kind)
  const stores = storeMaker(kind)
  let database: Database
  let resources: Resources
  const events: string[] = []
  const audit: Pick<AuditLog, 'appendIn'> = {
    appendIn: (tx, what, actor, subject) => {
      assert.ok(database.inTransaction() && tx !== undefined)
      events.push(`${what} ${actor} ${subject}`)
    }
  }

  test.before(async () => {
    const store = await stores.open()
    database = store.database
    process.env.TEST_REPOSITORY_KEY = '5'.repeat(64)
    const secrets = await openSecrets({ database, masterKey: { kind: 'env', name: 'TEST_REPOSITORY_KEY' } })
    resources = createResources(database, secrets, audit)
  })
  test.after(() => stores.close())

  const put = (kindOfIt: string, name: string, spec: object, expected?: number): Promise<void> =>
    resources.change(change => change.put(kindOfIt, name, spec, 'admin', expected))

  // ---- resources

  test('documents are put with a version, listed in order, and read back as they were', async () => {
    await put('target', 'orders', target)
    await put('target', 'orders', { ...target, port: 5434 })
    await put('credential', 'orders-rw', credential)
    const row = await resources.get('target', 'orders')
    assert.equal([row?.version, row?.updatedBy], [2, 'admin'])
    assert.equal(row?.spec, { ...target, port: 5434 })
    assert.ok(row!.updatedAt >= row!.createdAt)
    assert.equal((await resources.list()).map(each => each.name), ['orders-rw', 'orders'])
    assert.equal((await resources.list('target')).map(each => each.name), ['orders'])
    for (const name of ['a_b', 'ab', 'a.b', 'a-b', 'c']) await put('listed', name, {})
    const page = await resources.page('listed', { after: 'a-b', limit: 2, name: 'b' })
    assert.equal(page.map(each => each.name), ['a.b', 'a_b'], 'by bytes, whatever the locale')
    assert.is(await resources.get('target', 'nobody'), undefined)
  })

  test('a text with a NUL is refused as what it is, in a question and in a document', async () => {
    assert.is(await codeOf(resources.get('target', 'a\0b')), 'invalid')
    assert.is(await codeOf(put('target', 'nul', { ...target, database: 'a\0b' })), 'invalid')
    assert.is(await resources.get('target', 'nul'), undefined)
  })

  test('an expected version that is no more, and a new name that exists, are conflicts', async () => {
    await put('grant', 'versioned', rule, 0)
    assert.is(await codeOf(put('grant', 'versioned', rule, 0)), 'conflict')
    await put('grant', 'versioned', rule, 1)
    assert.is(await codeOf(put('grant', 'versioned', rule, 1)), 'conflict')
    assert.is((await resources.get('grant', 'versioned'))?.version, 2)
  })

  test('a change is all or nothing, with its sealed values and audit events', async () => {
    events.length = 0
    const before = (await resources.list()).length
    await resources.change(async change => {
      await change.put('user', 'half', user, 'admin')
      await change.seal('password', new Secret('x'))
      await change.audit('resource.put', 'admin', 'user/half', {})
      assert.is((await change.list()).length, before + 1)
      throw new SallyportError('invalid')
    }).catch(() => {})
    assert.is((await resources.list()).length, before)
    assert.equal(await database.run(handle => handle.select().from(secretValue)), [])
    await resources.change(async change => {
      const reference = await change.seal('password', new Secret('geheim'))
      assert.is((await change.open(reference)).expose(), 'geheim')
      await change.forget(reference)
    })
    assert.equal(await database.run(handle => handle.select().from(secretValue)), [])
    assert.equal(events, ['resource.put admin user/half'])
  })

  test('two changes at once come one after the other', async () => {
    const order: string[] = []
    await Promise.all(['a', 'b', 'c'].map(name => resources.change(async change => {
      order.push(`${name} in`)
      await change.list()
      await new Promise(setImmediate)
      order.push(`${name} out`)
    })))
    for (let at = 0; at < order.length; at += 2) {
      assert.is(order[at]!.replace(' in', ''), order[at + 1]!.replace(' out', ''), order.join())
    }
  })

  test('what is declared is read anew only after a change, by whichever node', async () => {
    await put('user', 'alice', user)
    await put('grant', 'devs', rule)
    const first = await resources.declared()
    assert.is(first.users.get('alice')?.name, 'alice')
    assert.is(first.targets.get('orders')?.port, 5434)
    assert.is(first.credentials.get('orders-rw')?.username, 'app')
    assert.ok(first.grants.some(grant => grant.name === 'devs'))
    assert.is(await resources.declared(), first, 'the same copy')
    const elsewhere = createResources(database, { put: unused, open: unused, remove: unused }, audit)
    await elsewhere.change(change => change.put('user', 'alice', { ...user, disabled: true }, 'admin'))
    const second = await resources.declared()
    assert.is(second.users.get('alice')?.disabled, true)
    await elsewhere.change(change => change.delete('user', 'alice'))
    assert.is((await resources.declared()).users.get('alice'), undefined)
    await elsewhere.change(change => change.list())
    const third = await resources.declared()
    assert.is(await resources.declared(), third, 'a change that changed nothing')
  })

  test('a thousand documents are one change', async () => {
    await resources.change(async change => {
      for (let n = 0; n < 1_000; n++) await change.put('credential', `c${n}`, credential, 'admin')
    })
    assert.is((await resources.declared()).credentials.size, 1_001)
  })

  // ---- templates

  const text: TemplateText = {
    id: 'postgres/create-role', plugin: 'postgres', action: 'create', body: 'one', author: 'build',
    shipped: true
  }

  test('every save is a new version that stays; the same text again is none', async () => {
    const templates = createTemplates(database)
    assert.is((await templates.save(text)).version, 1)
    assert.is((await templates.save(text)).version, 1)
    assert.is((await templates.save({ ...text, body: 'two', author: 'bob', shipped: false })).version, 2)
    assert.is((await templates.save({ ...text, body: 'one', author: 'bob', shipped: false })).version, 3)
    assert.equal((await templates.versions(text.id)).map(({ body }) => body), ['one', 'two', 'one'])
    assert.is((await templates.get(text.id))?.version, 3)
    assert.is((await templates.get(text.id, 2))?.body, 'two')
    assert.is(await templates.get(text.id, 9), undefined)
    assert.is(await templates.get('postgres/none'), undefined)
    await templates.save({ ...text, id: 'linux/create-user', plugin: 'linux' })
    assert.equal((await templates.list()).map(({ id, version }) => `${id} ${version}`),
      ['linux/create-user 1', 'postgres/create-role 3'])
  })

  test('twenty saves at once are twenty versions', async () => {
    const templates = createTemplates(database)
    const id = 'postgres/many'
    const numbers = Array.from({ length: 20 }, (_, n) => n + 1)
    await Promise.all(numbers.map(n => templates.save({ ...text, id, body: `body ${n}` })))
    assert.equal((await templates.versions(id)).map(({ version }) => version), numbers)
  })

  test('a build brings its templates, and leaves alone what an admin has made of them', async () => {
    const templates = createTemplates(database)
    const first = { ...text, body: 'first' }
    const [mine, theirs] = [{ ...first, id: 'postgres/mine' }, { ...first, id: 'postgres/theirs' }]
    assert.equal(await templates.ship([mine, theirs]), [mine.id, theirs.id])
    assert.equal(await templates.ship([mine, theirs]), [])
    assert.ok((await templates.shipped()).has(hashOf(mine.body)))
    await templates.save({ ...mine, body: 'edited', author: 'bob', shipped: false })
    await templates.setActive(theirs.id, false)
    const newer = [{ ...mine, body: 'new' }, { ...theirs, body: 'new' }]
    assert.equal(await templates.ship(newer), [theirs.id])
    assert.is((await templates.get(mine.id))?.body, 'edited')
    const known = await templates.shipped()
    assert.equal(['edited', 'new', 'first'].map(body => known.has(hashOf(body))), [false, true, false])
    assert.is((await templates.get(theirs.id))?.active, false, 'what was switched off stays off')
    assert.is(await codeOf(templates.setActive('postgres/none', true)), 'not-found')
  })

  // ---- sessions

  const sessionsOf = (name: string, boot: string): Sessions =>
    createSessions({ database, clock: systemClock, node: name, boot: () => boot })

  test('a session goes from opening to its end', async () => {
    const sessions = sessionsOf('n1', 'b1')
    await sessions.open(liveSession('s1', 90))
    const opening = await sessions.get('s1')
    assert.is(opening?.status, 'opening')
    assert.is(opening?.user, 'alice')
    assert.is(opening?.database, 'postgres', 'of the target, since the person named none')
    assert.is(opening!.expiresAt!.getTime() - opening!.startedAt.getTime(), 90 * 60_000)
    await sessions.live('s1', { accountId: 'acc', accountName: 'sp_1' })
    await sessions.recorded('s1', { headHash: 'ff', bytes: 2 ** 40, path: 'a/b' })
    await sessions.ended('s1', { how: 'cut', reason: 'session-killed', reference: 'abc123' })
    const ended = await sessions.get('s1')
    assert.is(ended?.status, 'ended')
    assert.is(ended?.reason, 'session-killed abc123')
    assert.is(ended?.accountName, 'sp_1')
    assert.is(ended?.recordingBytes, 2 ** 40)
    assert.instance(ended?.endedAt, Date)
  })

  test('cut before it was live is refused; ended by a peer is ended', async () => {
    const sessions = sessionsOf('n1', 'b1')
    for (const id of ['s2', 's3']) await sessions.open(liveSession(id))
    await sessions.ended('s2', { how: 'cut', reason: 'hook-failed', reference: 'abc123' })
    await sessions.ended('s3', { how: 'ended', reason: 'client-closed' })
    assert.is((await sessions.get('s2'))?.status, 'refused')
    assert.is((await sessions.get('s3'))?.status, 'ended')
  })

  test('a restart closes what earlier boots of this node left open, and nothing else', async () => {
    await sessionsOf('n1', 'old').open(liveSession('s4'))
    await sessionsOf('n1', 'old').open(liveSession('s5'))
    await sessionsOf('n1', 'old').live('s5', undefined)
    await sessionsOf('n2', 'other').open(liveSession('s6'))
    const now = sessionsOf('n1', 'new')
    await now.open(liveSession('s7'))
    const closed = (await now.interruptOlderBoots()).map(({ id }) => id)
    assert.equal(closed.sort(), ['s4', 's5'])
    assert.equal(await Promise.all(['s4', 's5', 's6', 's7'].map(async id => (await now.get(id))?.status)),
      ['interrupted', 'interrupted', 'opening', 'opening'])
    assert.equal(await now.interruptOlderBoots(), [])
  })

  test('sessions of a node that was declared dead are closed', async () => {
    const nodes = [{ id: 'n1', boot: 'new' }, { id: 'n2', boot: 'newer' }]
    await database.run(handle => handle.insert(node).values(nodes))
    const closed = await sessionsOf('n1', 'new').interruptFenced()
    assert.equal(closed.map(({ id }) => id), ['s6'])
  })

  test('a session is written only by the boot that opened it', async () => {
    await sessionsOf('n1', 'older').ended('s7', { how: 'ended', reason: 'client-closed' })
    assert.is((await sessionsOf('n1', 'new').get('s7'))?.status, 'opening')
  })

  test('lists are filtered, newest first, page by page', async () => {
    const sessions = sessionsOf('n3', 'b')
    await database.run(handle => handle.delete(session))
    const ids = Array.from({ length: 25 }, (_, n) => `p${String(n).padStart(2, '0')}`)
    for (const id of ids) await sessions.open(liveSession(id))
    // All at one instant: only the id tells them apart.
    await database.run(handle => handle.update(session).set({ startedAt: sql`date_trunc('hour', now())` })
      .where(sql`id < 'p20'`))
    await database.run(handle => handle.update(session).set({ user: 'bob', status: 'live' })
      .where(eq(session.id, 'p03')))
    const pages: string[] = []
    for (let before: string | undefined; ;) {
      const page = await sessions.list({ before, limit: 7 })
      pages.push(...page.map(({ id }) => id))
      before = page.at(-1)?.id
      if (page.length < 7) break
    }
    assert.equal(pages.toSorted(), ids)
    assert.equal(pages.slice(5), ids.slice(0, 20).reverse())
    const some = async (filter: object): Promise<number> =>
      (await sessions.list({ limit: 100, ...filter })).length
    assert.is(await some({ user: 'bob' }), 1)
    assert.is(await some({ user: 'alice', status: 'live' }), 0)
    assert.is(await some({ target: 'orders', credential: 'orders-rw' }), 25)
    assert.is(await some({ target: 'elsewhere' }), 0)
    const hour = (await sessions.get('p00'))!.startedAt
    assert.is(await some({ until: hour }), 20)
    assert.is(await some({ since: new Date(hour.getTime() + 1) }), 5)
  })

  test('the end of a session is remembered while the store is away, and written later (F13)', async () => {
    let away = false
    const unsteady: Database = {
      ...database,
      run: act => away ? Promise.reject(new SallyportError('store-unavailable')) : database.run(act)
    }
    const sessions = createSessions({ database: unsteady, clock: systemClock, node: 'n4', boot: () => 'b' })
    await sessions.open(liveSession('f1'))
    await sessions.live('f1', undefined)
    away = true
    assert.is(await codeOf(sessions.open(liveSession('f2'))), 'store-unavailable', 'no new session starts')
    const sealed = { headHash: 'aa', bytes: 1, path: 'p' }
    assert.is(await codeOf(sessions.recorded('f1', sealed)), 'store-unavailable')
    const ended = sessions.ended('f1', { how: 'ended', reason: 'client-closed' })
    assert.is(await codeOf(ended), 'store-unavailable')
    assert.is(sessions.waiting(), 2)
    away = false
    while (sessions.waiting() > 0) await new Promise(resolve => setTimeout(resolve, 20))
    const row = await sessions.get('f1')
    assert.is(row?.status, 'ended')
    assert.is(row?.recordingHead, 'aa')
    assert.is(await sessions.get('f2'), undefined)
  })

  test('states of accounts are looked up together', async () => {
    const row = { target: 'orders', kind: 'create', credential: 'c', spec: {} } as const
    await database.run(handle => handle.insert(account).values([
      { ...row, id: 'a1', name: 'sp_1', state: 'removing' },
      { ...row, id: 'a2', name: 'sp_2', state: 'proved-gone' }
    ]))
    const sessions = sessionsOf('n1', 'new')
    const states = await sessions.accountStates(['a1', 'a2', 'a3'])
    assert.equal([...states].sort(), [['a1', 'removing'], ['a2', 'proved-gone']])
    assert.is((await sessions.accountStates([])).size, 0)
  })

  // ---- receipts, tokens, settings

  test('receipts are found by session and account, the newest first where one is wanted', async () => {
    const receipts = createReceipts(database)
    const body = { state: 'proved-gone' }
    const base = { account: 'a1', session: 's1', body, keyId: 'k', signature: 's' }
    await receipts.put({ ...base, id: 'r1' })
    await receipts.put({ ...base, id: 'r1', signature: 'other' })
    await database.transaction(tx => receipts.put({ ...base, id: 'r2' }, tx))
    await receipts.put({ ...base, id: 'r3', session: null })
    await database.run(handle => handle.execute(
      sql`update receipt set created_at = created_at + interval '1 minute' where id = 'r2'`))
    assert.is((await receipts.get('r1'))?.signature, 's')
    assert.equal((await receipts.ofSession('s1')).map(({ id }) => id), ['r1', 'r2'])
    assert.equal((await receipts.ofAccount('a1')).map(({ id }) => id).sort(), ['r1', 'r2', 'r3'])
    const newest = await receipts.newestOf(['s1', 's9'])
    assert.equal([...newest].map(([id, row]) => `${id} ${row.id}`), ['s1 r2'])
    assert.equal(newest.get('s1')?.body, body)
  })

  test('a one-time token lets exactly one of twenty callers in', async () => {
    const tokens = createTokens(database)
    const token = { user: 'admin', roles: ['admin'] as const, expiresAt: inMinutes(5), oneTime: true }
    await tokens.add('hash', token)
    assert.ok(await tokens.hasOneTime())
    const redeemed = await Promise.all(Array.from({ length: 20 }, () => tokens.redeem('hash')))
    assert.equal(redeemed.filter(row => row !== undefined).map(({ user: who }) => who), ['admin'])
    assert.not.ok(await tokens.hasOneTime())
  })

  test('a token is replaced once; those of one login keep its end and go together', async () => {
    const tokens = createTokens(database)
    const login = { method: 'passkey', at: new Date('2026-11-28T12:00:00Z') }
    const expiresAt = inMinutes(5)
    await tokens.add('f1', { user: 'eve', roles: ['user'], expiresAt, oneTime: false, login })
    const tries = ['f2', 'f3', 'f4'].map(by => tokens.supersede('f1', by, ['admin']))
    const won = (await Promise.all(tries)).indexOf(true)
    const next = ['f2', 'f3', 'f4'][won]!
    assert.ok((await tokens.find('f1'))!.supersededAt !== undefined)
    const found = (await tokens.find(next))!
    assert.equal([found.login, found.roles, found.expiresAt, found.supersededAt],
      [login, ['admin'], expiresAt, undefined])
    assert.is(await tokens.supersede(next, 'f5', ['user']), true)
    await tokens.add('other', { user: 'eve', roles: ['user'], expiresAt, oneTime: false })
    await tokens.remove(next)
    for (const hash of ['f1', 'f2', 'f3', 'f4', 'f5']) assert.is(await tokens.find(hash), undefined)
    assert.equal([(await tokens.find('other'))!.login], [undefined], 'a login of its own')
    await tokens.removeOf('eve')
  })

  test('tokens end with their time, a logout and their user; only one-time tokens are redeemed', async () => {
    const tokens = createTokens(database)
    const token = { user: 'bob', roles: ['user'] as const, expiresAt: inMinutes(5), oneTime: false }
    await tokens.add('t1', token)
    await tokens.add('t2', token)
    assert.equal((await tokens.find('t1'))?.roles, ['user'])
    assert.is(await tokens.redeem('t1'), undefined)
    await tokens.remove('t1')
    assert.is(await tokens.find('t1'), undefined)
    await tokens.removeOf('bob')
    assert.is(await tokens.find('t2'), undefined)
    await tokens.add('t3', { ...token, expiresAt: inMinutes(-1), oneTime: true })
    assert.is(await tokens.find('t3'), undefined)
    assert.is(await tokens.redeem('t3'), undefined)
    assert.not.ok(await tokens.hasOneTime())
  })

  test('the installation has one id for ever', async () => {
    const ids = new Set(await Promise.all(Array.from({ length: 5 }, () => instanceId(database))))
    assert.is(ids.size, 1)
    assert.match([...ids][0] ?? '', /^[0-9a-f-]{36}$/)
  })

  test.run()
}

const replayTest = suite('replay')

replayTest('what waits keeps its order; what can never succeed does not block it', async () => {
  let away = true
  const written: number[] = []
  const replay = createReplay(systemClock)
  const write = (number: number) => (): Promise<void> => {
    if (away) return Promise.reject(new SallyportError('store-unavailable'))
    if (number === 2) return Promise.reject(new SallyportError('internal'))
    written.push(number)
    return Promise.resolve()
  }
  for (const number of [1, 2]) assert.is(await codeOf(replay.insist(write(number))), 'store-unavailable')
  away = false
  assert.is(await codeOf(replay.insist(write(3))), 'store-unavailable', 'it waits behind the others')
  await replay.close()
  assert.equal(written, [1, 3])
  await replay.insist(write(4))
  assert.equal(written, [1, 3, 4])
})

replayTest.run()

function inMinutes(minutes: number): Date {
  return new Date(new Date().getTime() + minutes * 60_000)
}

function unused(): never {
  throw new Error('not used here')
}
