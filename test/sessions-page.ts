// The list of sessions over a store with ten thousand: what a page costs is counted in questions to the
// store, rows and bytes, which do not depend on the machine. Over the real store, through the route.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { hashToken, mintToken } from '../src/api/access.ts'
import { createSallyportApi } from '../src/api/routes.ts'
import { systemClock } from '../src/clock.ts'
import type { Database } from '../src/store/database.ts'
import { sql } from '../src/store/drizzle.ts'
import { createReceipts } from '../src/store/receipts.ts'
import { createSessions } from '../src/store/sessions.ts'
import { createMemory } from './peers/api-ports.ts'
import { storeMaker } from './peers/stores.ts'

const sessionsInStore = 10_000
const maker = storeMaker('pglite')
let ask: (path: string) => Promise<{ text: string, ids: string[] }>
let questions = 0

test.before(async () => {
  const { database } = await maker.open()
  await database.run(handle => handle.execute(sql`
    insert into session (id, status, user_name, credential, target, protocol, grant_name, address, node, boot,
      started_at, ended_at, expires_at)
    select 'session' || lpad(n::text, 10, '0'), 'ended', 'user' || n % 50, 'orders-rw', 'target' || n % 20,
      'postgres', 'devs', '192.0.2.1', 'one', 'b1', now() - n * interval '1 minute', now(), now()
    from generate_series(1, ${sessionsInStore}) n`))
  const run: Database['run'] = act => {
    questions++
    return database.run(act)
  }
  const counted = new Proxy(database, {
    get: (of, key) => key === 'run' ? run : Reflect.get(of, key) as unknown
  })
  const { memory, ports } = createMemory()
  const token = mintToken()
  const at = new Date(0)
  memory.tokens.set(hashToken(token), {
    user: 'otto', roles: ['auditor'], oneTime: false, expiresAt: new Date('2100-01-01T00:00:00Z')
  })
  memory.resources.set('user/otto', {
    kind: 'user', name: 'otto', version: 1, createdAt: at, updatedAt: at, updatedBy: 'local',
    spec: { name: 'otto', roles: ['auditor'], publicKeys: [], disabled: false }
  })
  const sessions = createSessions({ database: counted, clock: systemClock, node: 'one', boot: () => 'b1' })
  const receipts = createReceipts(counted)
  const app = createSallyportApi({
    ...ports, sessions: { ...ports.sessions, ...sessions, receipts: ids => receipts.newestOf(ids) }
  }, { localToken: undefined, loginTokenSeconds: 60 })
  ask = async path => {
    questions = 0
    const answer = await app.request(`https://sallyport.test/api/v1${path}`, {
      headers: { host: 'sallyport.test', authorization: `Bearer ${token}` }
    }, { incoming: { socket: { remoteAddress: '192.0.2.7' } } })
    const text = await answer.text()
    return { text, ids: (JSON.parse(text) as { sessions: { id: string }[] }).sessions.map(({ id }) => id) }
  }
})
test.after(() => maker.close())

test('a page of ten thousand sessions is two questions, a hundred rows and some kilobytes', async () => {
  const { text, ids } = await ask('/sessions?limit=100')
  assert.is(ids.length, 100)
  assert.ok(questions <= 3, `${questions} questions`)
  assert.ok(text.length < 64 * 1024, `${text.length} bytes`)
})

test('page after page is every session once, newest first, also of one target', async () => {
  const walk = async (filter: string): Promise<string[]> => {
    const found: string[] = []
    for (let before = ''; ;) {
      const { ids } = await ask(`/sessions?limit=1000${filter}${before}`)
      found.push(...ids)
      if (ids.length < 1000) return found
      before = `&before=${ids.at(-1)!}`
    }
  }
  const all = await walk('')
  assert.is(all.length, sessionsInStore)
  assert.equal(all, all.toSorted(), 'the ids were given from the newest to the oldest')
  assert.is(new Set(all).size, sessionsInStore)
  assert.is((await walk('&target=target7')).length, sessionsInStore / 20)
})

test.run()
