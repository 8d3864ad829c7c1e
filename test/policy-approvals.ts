// When others have to agree and at which hours a grant counts: tables of what is declared and approved, and
// what is decided. Pure data in, decision out.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import { approversOf } from '../src/policy/approvals.ts'
import type { Approval } from '../src/policy/approvals.ts'
import { authorise, isStillGranted } from '../src/policy/authorise.ts'
import type { Grant } from '../src/policy/authorise.ts'
import type { Declared, GrantRule, User, WeekDay, Window } from '../src/policy/types.ts'
import { isZone, lookAt } from '../src/policy/windows.ts'

const user = (name: string, disabled = false): User => ({ name, roles: ['user'], publicKeys: [], disabled })
const alice = user('alice')
const noon = new Date('2026-11-21T12:00:00Z')
const asks = { by: ['carol', 'dave', 'alice', 'erin'], count: 1, validForSeconds: 3600, waitForSeconds: 60 }
const rule = (name: string, more: Partial<GrantRule> = {}): GrantRule =>
  ({ name, users: ['alice'], credentials: ['orders-rw'], replication: false, ...more })

function declaredOf(...grants: GrantRule[]): Declared {
  return {
    targets: new Map([['orders', {
      name: 'orders', protocol: 'postgres', host: 'h', port: 5432, database: 'postgres',
      tls: { mode: 'disable' }
    }]]),
    credentials: new Map(['orders-rw', 'orders-ro'].map(name => [name, { name, target: 'orders' }])),
    users: new Map([alice, user('carol'), user('dave', true)].map(each => [each.name, each])),
    grants, environments: new Map(), secrets: new Map(), profiles: new Map(), applications: new Map()
  }
}

const approval = (more: Partial<Approval> = {}): Approval => ({
  request: 'req-1', user: 'alice', grant: 'devs', credential: 'orders-rw',
  validUntil: new Date('2026-11-21T12:10:00Z'), ...more
})

const wish = { login: 'alice+orders-rw', replication: false, protocol: 'postgres' }
const decide = (grants: GrantRule[], approvals: Approval[], at = noon) =>
  authorise(declaredOf(...grants), alice, wish, at, approvals)

test('only an approval of this user, grant, credential and hour makes a grant of what asks for one', () => {
  const cases: [what: string, approvals: Approval[], request: string | undefined][] = [
    ['none', [], undefined],
    ['the right one', [approval()], 'req-1'],
    ['of somebody else', [approval({ user: 'bob' })], undefined],
    ['of another grant', [approval({ grant: 'ops' })], undefined],
    ['of another credential', [approval({ credential: 'orders-ro' })], undefined],
    ['one that ends at this moment', [approval({ validUntil: noon })], undefined],
    ['the longer of two',
      [approval(), approval({ request: 'req-2', validUntil: new Date('2026-11-22') })], 'req-2']
  ]
  for (const [what, approvals, request] of cases) {
    const decision = decide([rule('devs', { approval: asks })], approvals)
    if ('approval' in decision) {
      assert.is(request, undefined, what)
      assert.is(decision.rule.name, 'devs')
    } else assert.is(decision.request, request, what)
  }
})

test('a session does not outlive its approval', () => {
  const decision = decide([rule('devs', { approval: asks, maxSessionSeconds: 3600 })], [approval()]) as Grant
  assert.is(decision.maxSessionSeconds, 600)
})

test('a grant that asks nobody goes first, then one that was approved', () => {
  const asking = rule('a-asks', { approval: asks })
  const other = rule('devs', { approval: asks })
  const named = (decision: ReturnType<typeof decide>): string =>
    `${decision.rule.name} ${'approval' in decision ? 'asks' : 'opens'}`
  assert.is(named(decide([asking, rule('z-open')], [])), 'z-open opens')
  assert.is(named(decide([asking, other], [approval()])), 'devs opens')
  assert.is(named(decide([asking, other], [])), 'a-asks asks')
})

test('a session goes on only as long as its approval does', () => {
  const declared = declaredOf(rule('devs', { approval: asks }))
  const grant = decide([rule('devs', { approval: asks })], [approval()]) as Grant
  assert.is(isStillGranted(declared, grant, noon, [approval()]), true)
  assert.is(isStillGranted(declared, grant, noon, []), false)
  assert.is(isStillGranted(declaredOf(rule('devs')), grant, noon, []), true, 'it asks nobody any more')
})

test('approvers are others, declared and not disabled', () => {
  const asked = { user: 'alice', grant: 'devs', credential: 'orders-rw' }
  assert.equal(approversOf(declaredOf(rule('devs', { approval: asks })), asked), ['carol'])
  assert.equal(approversOf(declaredOf(rule('devs')), asked), [])
  assert.equal(approversOf(declaredOf(), asked), [])
})

// ---- days and hours

const weekdays: WeekDay[] = ['mon', 'tue', 'wed', 'thu', 'fri']
const everyDay: WeekDay[] = [...weekdays, 'sat', 'sun']
const window = (days: WeekDay[], from: string, to: string, zone = 'Europe/Zurich'): Window =>
  ({ days, from, to, zone })

test('windows are open by the clocks of their zone, over midnight, and over a change of time', () => {
  const office = [window(weekdays, '08:00', '18:00')]
  const night = [window(['fri'], '22:00', '06:00')]
  const touching = [window(['fri'], '08:00', '24:00'), window(['sat'], '00:00', '04:00')]
  const always = [window(everyDay, '00:00', '24:00')]
  // In 2026 Zurich changes on 29 March (02:00 → 03:00) and on 25 October (03:00 → 02:00).
  const changing = [window(['sun'], '02:30', '04:00')]
  const cases: [what: string, windows: Window[], at: string, expected: string][] = [
    ['a Saturday', office, '2026-11-21T12:00:00Z', 'opens 2026-11-23T07:00:00.000Z'],
    ['in summer', office, '2026-07-03T06:00:00Z', 'closes 2026-07-03T16:00:00.000Z'],
    ['a moment before', office, '2026-07-03T05:59:59Z', 'opens 2026-07-03T06:00:00.000Z'],
    ['at its end', office, '2026-07-03T16:00:00Z', 'opens 2026-07-06T06:00:00.000Z'],
    ['Friday night', night, '2026-11-20T23:00:00Z', 'closes 2026-11-21T05:00:00.000Z'],
    ['Saturday morning', night, '2026-11-21T04:59:59Z', 'closes 2026-11-21T05:00:00.000Z'],
    ['Saturday night', night, '2026-11-21T23:00:00Z', 'opens 2026-11-27T21:00:00.000Z'],
    ['two that touch', touching, '2026-11-20T22:59:00Z', 'closes 2026-11-21T03:00:00.000Z'],
    ['all of the week', always, '2026-11-21T12:00:00Z', 'never closes'],
    ['an hour that is skipped', changing, '2026-03-29T01:15:00Z', 'opens 2026-03-29T01:30:00.000Z'],
    ['the day that is longer', office, '2026-10-26T06:59:00Z', 'opens 2026-10-26T07:00:00.000Z'],
    ['another zone', [window(['sun'], '00:00', '01:00', 'Pacific/Auckland')], '2026-11-21T11:30:00Z',
      'closes 2026-11-21T12:00:00.000Z']
  ]
  for (const [what, windows, at, expected] of cases) {
    const { isOpen, closesAt, opensAt } = lookAt(windows, new Date(at))
    const said = isOpen
      ? closesAt === undefined ? 'never closes' : `closes ${closesAt.toISOString()}`
      : `opens ${opensAt?.toISOString()}`
    assert.is(said, expected, what)
  }
})

test('a name of no zone is none', () => {
  const found = ['Europe/Zurich', 'UTC', 'Mars/Olympus', '', '../x'].filter(isZone)
  assert.equal(found, ['Europe/Zurich', 'UTC'])
})

test('outside its windows a grant is refused with when it opens, and a session ends as they close', () => {
  const open = (at: string, ...more: GrantRule[]) =>
    decide([rule('devs', { windows: [window(weekdays, '08:00', '18:00')] }), ...more], [], new Date(at))
  const refusal = (act: () => unknown): string => {
    try {
      act()
    } catch (thrown) {
      if (thrown instanceof SallyportError) return `${thrown.code} ${thrown.said}`
      throw thrown
    }
    return 'allowed'
  }
  assert.is((open('2026-11-20T16:58:00Z') as Grant).maxSessionSeconds, 120)
  assert.is(refusal(() => open('2026-11-20T17:00:00Z')), 'outside-window it opens 2026-11-23T07:00Z')
  assert.is(refusal(() => open('2026-11-20T17:00:00Z', rule('late'))), 'allowed')
  const grant = open('2026-11-20T16:58:00Z') as Grant
  const declared = declaredOf(rule('devs', { windows: [window(['mon'], '08:00', '18:00')] }))
  assert.is(isStillGranted(declared, grant, new Date('2026-11-20T16:59:00Z')), false)
  const monday = [window(['mon'], '08:00', '18:00')]
  const ended = rule('devs', { windows: monday, notAfter: '2026-11-20T00:00:00Z' })
  assert.is(refusal(() => decide([ended], [])), 'not-allowed undefined')
})

test.run()
