// The parts of the ledger that are arithmetic and tables: renewals, waits between retries, statuses, the kept
// secret of a shared account, what a removal's outcome means. No store, no target, no
// time: what is wrong here is wrong everywhere.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { HookResult } from '../src/jit/hook.ts'
import { backoffMs, randomJitter } from '../src/lease/backoff.ts'
import { pack, unpack } from '../src/lease/keep.ts'
import { ledgerLimits } from '../src/lease/limits.ts'
import { bounded, canonicalJson, judge } from '../src/lease/receipt.ts'
import { renewableMs, renewal } from '../src/lease/renew.ts'
import type { Renewable } from '../src/lease/renew.ts'
import { accountStates, holdStates, leaseStatus, moves } from '../src/lease/states.ts'
import { Secret } from '../src/secret.ts'
import { request } from './peers/lease-world.ts'
import type { Claim } from '../src/lease/store-port.ts'

const hour = 3_600_000

function lease(changes: Partial<Renewable> = {}): Renewable {
  return { state: 'active', expiresAtMs: hour, maxAtMs: 2 * hour, ...changes }
}

test('renewing adds to the current expiry, and says how much can still be added (S5)', () => {
  assert.equal(
    renewal(lease(), 60, 1000), { renewed: true, expiresAtMs: hour + 60_000, renewableMs: hour - 60_000 }
  )
})

test('renewing is allowed to the maximum and refused one second beyond it (F21, S5)', () => {
  assert.ok(renewal(lease(), 3599, 0).renewed)
  assert.equal(renewal(lease(), 3600, 0), { renewed: true, expiresAtMs: 2 * hour, renewableMs: 0 })
  assert.equal(
    renewal(lease(), 3601, 0),
    { renewed: false, reason: 'the lease would pass its maximum; 3600 s can still be added' }
  )
})

test('renewing is refused at the instant of expiry and after it, and not a millisecond before (S5)', () => {
  assert.ok(renewal(lease(), 1, hour - 1).renewed)
  assert.equal(renewal(lease(), 1, hour), { renewed: false, reason: 'the lease has expired' })
  assert.equal(renewal(lease(), 1, hour + 1), { renewed: false, reason: 'the lease has expired' })
})

test('what has ended is not renewed, whatever its times say', () => {
  for (const state of ['released', 'expired', 'revoked', 'failed', 'pending'] as const) {
    assert.not(renewal(lease({ state }), 60, 0).renewed, state)
    assert.is(renewableMs(lease({ state }), 0), 0)
  }
})

test('renewing by nothing, less, parts or too much is refused', () => {
  for (const seconds of [0, -1, 0.5, NaN, Infinity, Number.MAX_SAFE_INTEGER]) {
    assert.not(renewal(lease(), seconds, 0).renewed)
  }
})

test('the wait before a retry doubles from one second to five minutes, give or take a half (J16)', () => {
  const { retry } = ledgerLimits
  assert.is(backoffMs(1, retry, 0), 1000)
  assert.equal([backoffMs(1, retry, -0.5), backoffMs(1, retry, 0.5)], [500, 1500])
  assert.equal([2, 3, 4, 8].map(attempt => backoffMs(attempt, retry, 0)), [2000, 4000, 8000, 128_000])
  assert.is(backoffMs(1_000_000, retry, 0.5), 300_000)
  for (let attempt = 1; attempt < 100; attempt++) {
    const waitMs = backoffMs(attempt, retry)
    assert.ok(waitMs >= 500 && waitMs <= retry.capMs, `${attempt}: ${waitMs}`)
  }
})

test('the jitter of the waits is spread over its whole range', () => {
  const drawn = Array.from({ length: 2000 }, randomJitter)
  assert.ok(drawn.every(each => each >= -0.5 && each <= 0.5))
  assert.ok(Math.min(...drawn) < -0.45 && Math.max(...drawn) > 0.45)
})

test('every state can be left, and every state but the first two can be reached', () => {
  const reached = new Set(Object.values(moves).flat())
  for (const state of accountStates) {
    assert.ok(moves[state].length > 0, state)
    // `intended` and `creating` are also how an account begins.
    assert.ok(reached.has(state), state)
  }
})

test('only an account that is proved gone lets an ended lease look ended', () => {
  for (const hold of holdStates) {
    for (const account of accountStates) {
      const status = leaseStatus(hold, account, false)
      const isLive = hold === 'pending' || hold === 'active'
      assert.is(status === 'active', isLive)
      if (!isLive && account !== 'proved-gone') {
        assert.ok(['revoking', 'failed'].includes(status), `${hold} ${account}`)
      }
    }
  }
  assert.equal(holdStates.map(hold => leaseStatus(hold, 'proved-gone', false)),
    ['active', 'active', 'revoked', 'expired', 'revoked', 'failed'])
  assert.is(leaseStatus('revoked', 'active', true), 'revoked')
})

test('the secret of a shared account comes back as it was put away, of either kind', () => {
  const keys = { clientKey: new Uint8Array([0, 1, 255]), serverKey: new Uint8Array(32).fill(7) }
  const packed = pack({
    inject: {
      kind: 'scram-keys', clientKey: new Secret(keys.clientKey), serverKey: new Secret(keys.serverKey)
    },
    variables: { verifier: new Secret('SCRAM-SHA-256$…') }
  })
  assert.is(String(packed), '<secret>')
  const { inject, variables } = unpack(packed)
  assert.ok(inject.kind === 'scram-keys')
  assert.equal([...inject.clientKey.expose()], [...keys.clientKey])
  assert.equal([...inject.serverKey.expose()], [...keys.serverKey])
  assert.is(variables.verifier?.expose(), 'SCRAM-SHA-256$…')
  const word = unpack(pack({ inject: { kind: 'password', password: new Secret('p "\n') }, variables: {} }))
  assert.is(word.inject.kind === 'password' && word.inject.password.expose(), 'p "\n')
})

test('a kept secret that is damaged is an error that does not quote it', () => {
  try {
    unpack(new Secret('{"inject": sesame'))
    assert.unreachable()
  } catch (thrown) {
    assert.is((thrown as { code: string }).code, 'seal-broken')
    assert.not(String(thrown).includes('sesame'))
  }
})

test('canonical JSON does not depend on the order in which members were written', () => {
  assert.is(
    canonicalJson({ b: [1, { d: null, c: 'x' }], a: undefined, B: true }),
    '{"B":true,"b":[1,{"c":"x","d":null}]}'
  )
})

const claim = {
  accountId: 'a', name: 'n', kind: 'create', target: 't', credential: 'c', state: 'removing', epoch: 2,
  attempts: 0,
  verifyLeft: 0, spec: request().spec, secret: undefined, holds: [], createdAt: new Date(0),
  activeAt: new Date(0),
  wantedUntil: undefined
} as const satisfies Claim
const seen = { exists: true, enabled: true, ours: true, sessions: 0, residue: [] }
const refused: HookResult = {
  state: 'refused', changed: false, code: 'hook-failed', error: 'no', retryable: true, residue: [],
  quarantined: false, tookMs: 1
}

test('a removal counts by what was seen: done, stuck, quarantined, or nobody answered (J15)', () => {
  const state = (
    result: Partial<HookResult>, of: Claim = claim
  ): string => judge(of, { ...refused, ...result }).state
  assert.is(state({ state: 'done' }), 'gone')
  assert.is(state({ seen }), 'stuck')
  assert.is(state({ seen, quarantined: true }), 'quarantined')
  assert.is(state({ code: 'target-unreachable' }), 'unreachable')
  assert.is(state({ state: 'unknown', code: 'hook-timeout' }), 'unreachable')
  assert.is(state({ state: 'unknown', code: 'hook-timeout', seen }), 'stuck')
  // A wrong password or certificate is not silence: somebody must do something.
  assert.is(state({ code: 'target-refused' }), 'stuck')
  assert.is(state({ code: 'target-untrusted' }), 'stuck')
  // Somebody else's account: ours never was, if it was never active; otherwise it is a riddle for a person.
  assert.is(state({ state: 'conflict' }, { ...claim, activeAt: undefined }), 'gone')
  assert.is(state({ state: 'conflict' }), 'stuck')
})

test('what a target says can always be stored, and is never kept without end', () => {
  const { error } = judge(claim, { ...refused, error: `\0\ud800${'x'.repeat(10_000)}`, seen })
  assert.ok(error !== undefined && error.isWellFormed() && !error.includes('\0') && error.length < 2200)
  const many = Array.from(
    { length: 5000 }, (_, number) => ({ kind: 'table', name: `t\0${number}`, fate: 'left' as const })
  )
  const kept = bounded(many)
  assert.is(kept.length, 1001)
  assert.is(kept.at(-1)?.name, '4000 further objects')
  assert.not(kept[0]?.name.includes('\0'))
})

test.run()
