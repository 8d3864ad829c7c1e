// Requests for access (D5): what the store makes of the words of several people at once, on both stores; who
// may say them, over the API; and how a grant's document says who is asked.
import { suite, test as plain } from 'uvu'
import * as assert from 'uvu/assert'
import { hashToken, mintToken } from '../src/api/access.ts'
import { documentOf, documentSchemas } from '../src/api/documents.ts'
import { createSallyportApi } from '../src/api/routes.ts'
import type { RequestJson } from '../src/api/client-types.ts'
import { SallyportError } from '../src/errors.ts'
import { problemsOf } from '../src/input.ts'
import type { AuditLog } from '../src/store/audit.ts'
import type { Database } from '../src/store/database.ts'
import { sql } from '../src/store/drizzle.ts'
import { createRequests, withdrawAsked } from '../src/store/requests.ts'
import type { NewRequest, Requests } from '../src/store/requests.ts'
import { createMemory } from './peers/api-ports.ts'
import { storeKinds, storeMaker } from './peers/stores.ts'

const approvers = ['carol', 'dave', 'erin']
const wish = (user: string, more: Partial<NewRequest> = {}): NewRequest => ({
  user, grant: 'devs', credential: 'orders-rw', emergency: false, validForSeconds: 3600, origin: 'test',
  ...more
})
const codeOf = (act: Promise<unknown>): Promise<string> => act.then(() => 'done', (thrown: unknown) => {
  if (thrown instanceof SallyportError) return thrown.code
  throw thrown
})

for (const kind of storeKinds) {
  const test = suite(kind)
  const stores = storeMaker(kind)
  let database: Database
  let requests: Requests
  const events: string[] = []
  const audit: Pick<AuditLog, 'appendIn'> = {
    appendIn: (_tx, what, actor) => { events.push(`${what} by ${actor}`) }
  }

  test.before(async () => {
    database = (await stores.open()).database
    requests = createRequests(database, audit)
  })
  test.after(() => stores.close())

  test('different people are counted, each once, and only those who are approvers now', async () => {
    const { row: { id } } = await requests.create(wish('alice'))
    events.length = 0
    const approve = async (by: string): Promise<string> =>
      (await requests.approve(id, { by, reason: 'ok' }, approvers, 2)).state
    assert.is(await approve('mallory'), 'pending', 'said, and not counted: no approver')
    assert.is(await approve('carol'), 'pending')
    assert.is(await approve('carol'), 'pending', 'again by the same person')
    assert.equal(await requests.validOf('alice'), [])
    assert.is(await approve('dave'), 'approved')
    const [approval] = await requests.validOf('alice')
    assert.equal([approval?.request, approval?.grant, approval?.credential], [id, 'devs', 'orders-rw'])
    const left = approval!.validUntil.getTime() - (await database.now()).getTime()
    assert.ok(left > 3_590_000 && left <= 3_600_000, `${left} ms are left`)
    assert.is(await codeOf(approve('erin')), 'conflict')
    assert.is(await codeOf(requests.deny(id, { by: 'erin' })), 'conflict')
    assert.equal(events, ['mallory', 'carol', 'carol', 'dave'].map(by => `request.approved by ${by}`))
    assert.equal((await requests.get(id))?.decisions.map(({ by }) => by), ['mallory', 'carol', 'dave'])
    assert.is((await requests.withdraw(id, { by: 'dave', reason: 'enough' })).state, 'withdrawn')
    assert.equal(await requests.validOf('alice'), [])
    assert.is(await codeOf(requests.withdraw(id, { by: 'dave' })), 'conflict')
  })

  test('what an interrupted session had asked for is taken back, and nothing else', async () => {
    const keys = ['devs#1/s1/aa', 'devs#12/s1/bb', 'devs#1/s2/aa', 'devs']
    const made = await Promise.all(keys.map(async grant =>
      (await requests.create(wish('ann', { grant }))).row.id))
    await requests.approve(made[1]!, { by: 'carol' }, approvers, 1)
    events.length = 0
    await database.transaction(tx => withdrawAsked(tx, audit, ['s1', 's3', 's1/aa']))
    const states = await Promise.all(made.map(async id => (await requests.get(id))?.state))
    assert.equal(states, ['withdrawn', 'approved', 'pending', 'pending'])
    assert.equal(events, ['request.withdrawn by system'])
  })

  test('of approvals and a denial at the same moment, the request ends one way', async () => {
    for (let round = 0; round < 5; round++) {
      const { row: { id } } = await requests.create(wish(`user${round}`))
      const said = await Promise.all([
        ...['carol', 'dave'].map(by => codeOf(requests.approve(id, { by }, approvers, 2))),
        codeOf(requests.deny(id, { by: 'erin' }))
      ])
      const row = await requests.get(id)
      const valid = await requests.validOf(`user${round}`)
      assert.is(valid.length, row?.state === 'approved' ? 1 : 0)
      assert.is(said[2], row?.state === 'denied' ? 'done' : 'conflict', JSON.stringify([said, row?.state]))
    }
  })

  test('whoever asks twice asks once, and after a denial anew', async () => {
    const made = await Promise.all(Array.from({ length: 5 }, () => requests.create(wish('bob'))))
    assert.is(new Set(made.map(({ row }) => row.id)).size, 1)
    assert.is(made.filter(({ isNew }) => isNew).length, 1)
    const { id } = made[0]!.row
    await requests.deny(id, { by: 'carol' })
    const again = await requests.create(wish('bob'))
    assert.is.not(again.row.id, id)
    await requests.approve(again.row.id, { by: 'carol' }, approvers, 1)
    const third = await requests.create(wish('bob'))
    assert.is(third.row.id, again.row.id, 'what is approved is not asked again')
  })

  test('what nobody decides ends, and what was approved ends at its time', async () => {
    const { row: { id } } = await requests.create(wish('frank'))
    const later = (column: string) => database.run(handle => handle.execute(
      sql.raw(`update access_request set ${column} = now() - interval '1 second' where id = '${id}'`)))
    await later('expires_at')
    events.length = 0
    assert.is(await codeOf(requests.approve(id, { by: 'carol' }, approvers, 1)), 'conflict')
    assert.is((await requests.get(id))?.state, 'expired')
    assert.ok(events.includes('request.expired by system'))
    const fresh = await requests.create(wish('frank', { validForSeconds: 1 }))
    await requests.approve(fresh.row.id, { by: 'carol' }, approvers, 1)
    assert.is((await requests.validOf('frank')).length, 1)
    await database.run(handle => handle.execute(sql`update access_request
      set valid_until = now() - interval '1 second'`))
    assert.is((await requests.validOf('frank')).length, 0)
    const open = await requests.list({ user: 'frank', open: true, limit: 10 })
    assert.equal(open, [])
    const all = await requests.list({ user: 'frank', limit: 10 })
    assert.is(all.length, 2)
    assert.equal(await requests.list({ user: 'frank', limit: 10, before: all[0]!.id }), all.slice(1))
  })

  test('an emergency opens at once, raises an alarm, and is listed until it was reviewed', async () => {
    events.length = 0
    const emergency = wish('grace', { emergency: true, reason: 'the shop is down' })
    const pending = await requests.create(wish('grace'))
    const { row, isNew } = await requests.create(emergency)
    assert.ok(isNew)
    assert.equal(events, ['request.created by grace', 'alarm.emergency-access by grace'])
    assert.equal((await requests.validOf('grace')).map(({ request }) => request), [row.id])
    await database.run(handle => handle.execute(sql`update access_request
      set valid_until = now() - interval '1 second'`))
    const open = async (): Promise<string[]> =>
      (await requests.list({ grants: ['devs'], open: true, limit: 10 })).map(({ id }) => id)
    assert.ok((await open()).includes(row.id), 'it is over, and still to be reviewed')
    assert.is(await codeOf(requests.review(pending.row.id, { by: 'carol' })), 'conflict')
    await requests.review(row.id, { by: 'carol', reason: 'was right' })
    assert.not.ok((await open()).includes(row.id))
    assert.is(await codeOf(requests.review(row.id, { by: 'dave' })), 'conflict')
  })

  test.run()
}

// ---- who may say what

interface Answer {
  status: number
  json: RequestJson & { error: { code: string, problems: string[] }, requests: RequestJson[] }
}

function bench(): (who: string, method: 'GET' | 'POST', path: string, body?: unknown) => Promise<Answer> {
  const { memory, ports } = createMemory()
  const at = new Date(0)
  const put = (kind: string, name: string, spec: object): void => {
    memory.resources.set(`${kind}/${name}`, {
      kind, name, spec: { name, ...spec }, version: 1, createdAt: at, updatedAt: at, updatedBy: 'x'
    })
  }
  const tokens = new Map<string, string>()
  for (const [name, role] of [
    ['alice', 'user'], ['bob', 'user'], ['carol', 'user'], ['dave', 'user'], ['ada', 'admin'],
    ['otto', 'auditor']
  ] as const) {
    put('user', name, { roles: [role], publicKeys: [], disabled: false })
    tokens.set(name, mintToken())
    const expiresAt = new Date('2100-01-01T00:00:00Z')
    memory.tokens.set(hashToken(tokens.get(name)!), { user: name, roles: [role], expiresAt, oneTime: false })
  }
  put('credential', 'orders-rw', { target: 'orders' })
  put('credential', 'orders-ro', { target: 'orders' })
  const approval = { by: ['alice', 'carol', 'dave'], count: 2, validForSeconds: 3600, waitForSeconds: 60 }
  put('grant', 'devs', { users: ['alice'], credentials: ['orders-rw'], replication: false, approval })
  put('grant', 'open', { users: ['alice'], credentials: ['orders-ro'], replication: false })
  const app = createSallyportApi(ports, { localToken: undefined, loginTokenSeconds: 60 })
  return async (who, method, path, body) => {
    const answer = await app.request(`https://sallyport.test/api/v1/requests${path}`, {
      method, headers: {
        host: 'sallyport.test', authorization: `Bearer ${tokens.get(who)}`, 'content-type': 'application/json'
      }, ...body === undefined ? {} : { body: JSON.stringify(body) }
    })
    return { status: answer.status, json: await answer.json() as Answer['json'] }
  }
}

plain('nobody decides on a request of their own, even where the grant lists them', async () => {
  const ask = bench()
  const wanted = { credential: 'orders-rw', reason: 'ticket 7' }
  const { json: { id, state } } = await ask('alice', 'POST', '', wanted)
  assert.is(state, 'pending')
  const say = async (who: string, part: string): Promise<string> => {
    const { status, json } = await ask(who, 'POST', `/${id}/${part}`, {})
    return status === 200 ? json.state : json.error.code
  }
  for (const part of ['approve', 'deny', 'review']) {
    assert.is(await say('alice', part), 'not-allowed', part)
    // Roles help nobody: only whom the grant names decides.
    assert.is(await say('ada', part), 'not-allowed', part)
    assert.is(await say('otto', part), 'not-allowed', part)
    assert.is(await say('bob', part), 'not-found', part)
  }
  assert.equal([await say('carol', 'approve'), await say('dave', 'approve')], ['pending', 'approved'])
  assert.is(await say('otto', 'withdraw'), 'not-allowed')
  assert.is(await say('bob', 'withdraw'), 'not-found')
  assert.is(await say('alice', 'withdraw'), 'withdrawn')
})

plain('people see their own requests and those that they decide on, auditors all', async () => {
  const ask = bench()
  const { json: { id } } = await ask('alice', 'POST', '', { credential: 'orders-rw' })
  const sees = async (who: string): Promise<number> => (await ask(who, 'GET', '')).json.requests.length
  const all = await Promise.all(['alice', 'carol', 'otto', 'ada', 'bob'].map(sees))
  assert.equal(all, [1, 1, 1, 1, 0])
  assert.is((await ask('bob', 'GET', `/${id}`)).status, 404)
  assert.is((await ask('carol', 'GET', `/${id}`)).json.id, id)
})

plain('people ask for what a grant gives with approval, and what is wrong is said', async () => {
  const ask = bench()
  const refusal = async (who: string, body: object): Promise<string> => {
    const { json: { error } } = await ask(who, 'POST', '', body)
    return [error.code, ...error.problems].join(' ')
  }
  // What does not exist and what is not theirs are refused alike.
  assert.is(await refusal('bob', { credential: 'orders-rw' }), 'not-found')
  assert.is(await refusal('bob', { credential: 'nothing' }), 'not-found')
  assert.match(await refusal('alice', { credential: 'orders-ro' }), /orders-ro needs no approval/)
  assert.match(await refusal('alice', { credential: 'orders-rw', for: '2h' }), /for: is longer than the/)
  const emergency = { credential: 'orders-rw', emergency: true, reason: 'fire' }
  assert.match(await refusal('alice', emergency), /no grant on orders-rw has emergency access/)
  assert.match(await refusal('alice', { credential: 'orders-rw', reason: 'a\u001b[2Jb' }), /one line of text/)
  const { json } = await ask('alice', 'POST', '', { credential: 'orders-rw', for: '30m' })
  assert.is(json.validForSeconds, 1800)
})

// ---- the document

plain('a grant says who is asked and when it is open, and reads back as it was written', () => {
  const document = {
    kind: 'grant', name: 'devs', users: ['alice'], credentials: ['orders-rw'], replication: false,
    approval: { by: ['carol', 'dave'], count: 2, validFor: '2h', waitFor: '90s' }, emergency: true,
    windows: [{ days: ['mon', 'fri'], from: '08:00', to: '18:00', zone: 'Europe/Zurich' }]
  }
  assert.equal(documentOf('grant', documentSchemas.grant.parse(document).spec), document)
  const cases: [more: object, problem: string][] = [
    [{ approval: { by: [] } }, 'approval.by: expected 1 to 100 names'],
    [{ approval: { by: ['carol'], count: 2 } }, 'approval.count: is more than there are approvers'],
    [{ approval: { by: ['alice'] } },
      'approval.count: too few of them are others for alice: nobody approves for oneself'],
    [{ approval: { by: ['carol'], waitFor: '2h' } }, 'approval.waitFor: longer than 1h'],
    [{ approval: undefined }, 'emergency: is for grants with approval: others open at once'],
    [{ secrets: ['prod/*'], windows: undefined }, 'approval: does not go together with secrets'],
    [{ windows: [{ days: ['mon'], from: '8:00', to: '18:00', zone: 'UTC' }] },
      'windows[0].from: expected a time of day such as "08:00"'],
    [{ windows: [{ days: ['mon'], from: '08:00', to: '08:00', zone: 'UTC' }] },
      'windows[0].to: is when it begins'],
    [{ windows: [{ days: ['mon'], from: '08:00', to: '18:00', zone: 'Mars/Olympus' }] },
      'windows[0].zone: expected a time zone such as "Europe/Zurich", not "Mars/Olympus"']
  ]
  for (const [more, problem] of cases) {
    const { error } = documentSchemas.grant.safeParse({ ...document, ...more })
    assert.equal(error === undefined ? [] : problemsOf(error), [problem], JSON.stringify(more))
  }
})

plain.run()
