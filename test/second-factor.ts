// The second factor: the vectors of the RFC, what counts as now, that a code counts once (on any node, after
// a restart, of two at the same moment exactly one), how many may be wrong, and what the steps make of it for
// a front end that has no place to ask. On both stores.
import { suite, test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import { createCodeGuard } from '../src/main/code-guard.ts'
import type { CodeGuard } from '../src/main/code-guard.ts'
import { createSecondFactors } from '../src/main/second-factors.ts'
import type { SecondFactors } from '../src/main/second-factors.ts'
import { codeOf, enrolmentUri, mintCodeSecret, stepAt, stepOfCode } from '../src/policy/one-time-code.ts'
import type { Declared, User } from '../src/policy/types.ts'
import { Secret } from '../src/secret.ts'
import type { Challenge, Claim } from '../src/session/front.ts'
import { createSteps } from '../src/session/steps.ts'
import type { AuditLog } from '../src/store/audit.ts'
import type { Database } from '../src/store/database.ts'
import { secondFactor, secretValue } from '../src/store/schema.ts'
import { openSecrets } from '../src/store/sealing.ts'
import { createSecondFactors as createRows } from '../src/store/second-factors.ts'
import { secretOfUri } from './peers/authenticator.ts'
import { noConsole } from './peers/no-console.ts'
import { handClock } from './peers/raw-postgres.ts'
import { storeKinds, storeMaker } from './peers/stores.ts'

const base64 = (text: string): Secret<string> => new Secret(Buffer.from(text).toString('base64'))
/** What a code is worth is one question, how many may be tried another. */
const unguarded = { begin: () => () => undefined }
const noon = new Date('2026-11-28T12:00:00Z')
const later = (seconds: number): Date => new Date(noon.getTime() + seconds * 1000)

test('codes are those of RFC 6238, and of RFC 4226 for the counters below', () => {
  const secret = base64('12345678901234567890')
  const vectors: [seconds: number, code: string][] = [
    [59, '94287082'], [1111111109, '07081804'], [1111111111, '14050471'], [1234567890, '89005924'],
    [2000000000, '69279037'], [20000000000, '65353130']
  ]
  for (const [seconds, code] of vectors) {
    assert.is(codeOf(secret, stepAt(new Date(seconds * 1000)), 8), code)
    assert.is(codeOf(secret, stepAt(new Date(seconds * 1000))), code.slice(2))
  }
  assert.equal([...Array(10).keys()].map(counter => codeOf(secret, counter)), [
    '755224', '287082', '359152', '969429', '338314', '254676', '287922', '162583', '399871', '520489'
  ])
})

test('one step each way counts, two do not', () => {
  const secret = mintCodeSecret()
  const code = codeOf(secret, stepAt(noon))
  for (const seconds of [-30, -1, 0, 29, 30, 59]) {
    assert.is(stepOfCode(secret, code, later(seconds)), stepAt(noon))
  }
  for (const seconds of [-31, 60, 3600]) assert.is(stepOfCode(secret, code, later(seconds)), undefined)
})

test('a code may have the blanks of the app, and nothing else', () => {
  const secret = mintCodeSecret()
  const code = codeOf(secret, stepAt(noon))
  const spaced = `${code.slice(0, 3)} ${code.slice(3)} `
  assert.is(stepOfCode(secret, spaced, noon), stepAt(noon))
  const wide = code.replace(/./g, digit => String.fromCodePoint(0xff10 + Number(digit)))
  for (const wrong of ['', code.slice(1), `${code}0`, `${code}\0`, wide, `+${code}`, '٠١٢٣٤٥']) {
    assert.is(stepOfCode(secret, wrong, noon), undefined, JSON.stringify(wrong))
  }
})

test('a secret has 160 bits, and the URI carries all of them to the app', () => {
  const secret = mintCodeSecret()
  assert.is(Buffer.from(secret.expose(), 'base64').length, 20)
  assert.is.not(secret.expose(), mintCodeSecret().expose())
  const known = base64('12345678901234567890')
  assert.is(enrolmentUri(known, 'alice'), 'otpauth://totp/Sallyport:alice'
    + '?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Sallyport&algorithm=SHA1&digits=6&period=30')
  assert.is(secretOfUri(enrolmentUri(secret, 'bob')).expose(), secret.expose())
})

// ---- what the steps make of it

/** Whoever is at the other end hears nothing and stays. */
const nobody = { tell: () => undefined, onLeft: () => () => undefined }
const claim: Claim = {
  protocol: 'postgres', login: 'alice+x', replication: false, address: '192.0.2.1', tls: true
}
const alice = { name: 'alice', roles: ['user'], publicKeys: [], disabled: false } as User

function authenticateWith(isEnrolled: boolean, right = '111111'): {
  events: string[], authenticate(front: (challenge: Challenge) => Promise<boolean>): Promise<string>
} {
  const events: string[] = []
  const check = async (code: string): Promise<boolean> => {
    if (code === 'throttled') throw new SallyportError('auth-throttled')
    return code === right
  }
  const ports = {
    userOf: () => 'alice', authorities: [], verifierOf: async () => 'a verifier',
    declared: async () => ({ users: new Map([['alice', alice]]) }) as unknown as Declared,
    secondFactorOf: async () => isEnrolled ? { check } : undefined, confirmations: noConsole,
    audit: async (kind: string, _actor: string, _subject: string, { why }: Record<string, unknown>) => {
      events.push(why === undefined ? kind : `${kind}: ${String(why)}`)
    }
  }
  const steps = createSteps(ports as unknown as Parameters<typeof createSteps>[0])
  return {
    events,
    authenticate: front => steps.authenticate(claim, async challenge =>
      await front(challenge) ? { method: 'password' } : undefined, nobody)
      .then(({ name }) => name, (thrown: SallyportError) => thrown.code)
  }
}

test('a front end that does not ask for the code lets nobody in who has one', async () => {
  const { events, authenticate } = authenticateWith(true)
  assert.is(await authenticate(async () => true), 'second-factor-required')
  assert.is(await authenticate(async () => false), 'auth-failed', 'not before the first factor is proved')
  assert.equal(events, ['login.refused: no second factor', 'login.refused: no proof'])
  const without = authenticateWith(false)
  assert.is(await without.authenticate(async ({ secondFactor: wanted }) => wanted === undefined), 'alice')
})

test('a proof that says it is one, without a right code, is none; a wrong code is on record', async () => {
  const { events, authenticate } = authenticateWith(true)
  const tries = (...codes: string[]) => authenticate(async challenge => {
    for (const code of codes) await challenge.secondFactor!.check(code)
    return true
  })
  assert.is(await tries('222222'), 'second-factor-required')
  assert.is(await tries('222222', '111111'), 'alice')
  assert.equal(events, [
    'second-factor.refused: wrong code', 'login.refused: no second factor',
    'second-factor.refused: wrong code'
  ])
})

test('too many wrong codes end the login with a code of their own, and are on record', async () => {
  const { events, authenticate } = authenticateWith(true, 'throttled')
  assert.is(await authenticate(challenge => challenge.secondFactor!.check('throttled')), 'auth-throttled')
  assert.equal(events, ['second-factor.refused: too many wrong codes'])
})

// ---- how many may be wrong

const wrong = (guard: CodeGuard, user: string, address: string): string => {
  try {
    guard.begin(user, address)
    return 'looked at'
  } catch (thrown) {
    return (thrown as SallyportError).code
  }
}

test('wrong codes of one person are few, from however many places, and never none for good', () => {
  const clock = handClock()
  const guard = createCodeGuard(clock)
  let tries = 0
  for (let minute = 0; minute < 600; minute++) {
    for (let attempt = 0; attempt < 20; attempt++) {
      if (wrong(guard, 'alice', `198.51.${attempt}.${minute % 250}`) === 'looked at') tries++
    }
    assert.is(wrong(guard, `bob-${minute}`, '198.51.1.1'), 'looked at', 'others have a share of their own')
    clock.advance(60_000)
  }
  assert.ok(tries <= 5 + 300, `${tries} tries in ten hours`)
  assert.ok(tries >= 290, `${tries} tries in ten hours`)
})

test('whoever guesses elsewhere does not keep a person out where they have been', () => {
  const guard = createCodeGuard(handClock())
  const [home, elsewhere] = ['192.0.2.7', '198.51.100.1']
  guard.begin('alice', home)()
  for (let guess = 0; guess < 5; guess++) assert.is(wrong(guard, 'alice', elsewhere), 'looked at')
  assert.is(wrong(guard, 'alice', elsewhere), 'auth-throttled')
  guard.begin('alice', home)()
  for (let guess = 0; guess < 5; guess++) assert.is(wrong(guard, 'alice', home), 'looked at')
  assert.is(wrong(guard, 'alice', home), 'auth-throttled', 'a place that is known has a share, not a pass')
})

test('right codes cost nothing, and many at one moment are counted like one after the other', () => {
  const guard = createCodeGuard(handClock())
  for (let login = 0; login < 50; login++) guard.begin('alice', `192.0.2.${login}`)()
  const pending = Array.from({ length: 20 }, () => wrong(guard, 'bob', '198.51.100.1'))
  assert.is(pending.filter(each => each === 'looked at').length, 5)
})

test.run()

// ---- on the stores

for (const kind of storeKinds) {
  const on = suite(kind)
  const stores = storeMaker(kind)
  const events: string[] = []
  type NodeOn = (database: Database, now?: () => Date) => Promise<SecondFactors>
  let open: () => Promise<{ database: Database, again: () => Promise<Database>, nodeOn: NodeOn }>

  on.before(() => {
    open = async () => {
      events.length = 0
      const { database, dataDir, again } = await stores.open()
      const audit: Pick<AuditLog, 'appendIn'> = {
        appendIn: (_tx, what, actor, subject) => { events.push(`${what} ${actor} ${subject}`) }
      }
      const nodeOn: NodeOn = async (door, now = () => noon) => {
        const masterKey = { kind: 'file' as const, file: `${dataDir}/master.key` }
        const secrets = await openSecrets({ database: door, masterKey })
        const rows = createRows(door, secrets, audit)
        return createSecondFactors(rows, async () => now(), unguarded)
      }
      return { database, again, nodeOn }
    }
  })
  on.after(() => stores.close())

  /** A confirmed second factor; its codes by the instant. */
  const enrolled = async (factors: SecondFactors, at = later(-30)): Promise<(instant: Date) => string> => {
    const secret = secretOfUri((await factors.enrol('alice', 'alice'))!)
    const codeAt = (instant: Date): string => codeOf(secret, stepAt(instant))
    assert.is(await factors.confirm('alice', codeAt(at), 'alice'), 'confirmed')
    return codeAt
  }
  const checks = async (factors: SecondFactors, code: string): Promise<boolean> =>
    (await factors.of('alice', '192.0.2.1'))!.check(code)

  on('it is drawn, confirmed by its first code, asked for, and taken away, each on record', async () => {
    const { database, nodeOn } = await open()
    let now = later(-60)
    const factors = await nodeOn(database, () => now)
    assert.is(await factors.of('alice', '192.0.2.1'), undefined)
    assert.is(await factors.confirm('alice', '123456', 'alice'), 'none')
    const lost = secretOfUri((await factors.enrol('alice', 'alice'))!)
    const unconfirmed = await factors.of('alice', '192.0.2.1')
    assert.is(unconfirmed, undefined, 'whoever could not read the picture is not locked out')
    const secret = secretOfUri((await factors.enrol('alice', 'root'))!)
    assert.is(await factors.confirm('alice', codeOf(lost, stepAt(now)), 'alice'), 'wrong')
    assert.is(await factors.confirm('alice', codeOf(secret, stepAt(now)), 'alice'), 'confirmed')
    assert.is(await factors.enrol('alice', 'alice'), undefined, 'a confirmed one stays')
    assert.is(await checks(factors, codeOf(secret, stepAt(now))), false, 'the first code is used up, too')
    now = noon
    assert.is(await checks(factors, codeOf(secret, stepAt(now))), true)
    const rows = await database.run(handle => handle.select().from(secretValue))
    assert.equal(rows.map(row => row.kind), ['user.second-factor'], 'the lost secret is gone')
    assert.not.match(JSON.stringify(rows), new RegExp(secret.expose().slice(0, 12).replaceAll('+', '\\+')))
    assert.is(await factors.remove('alice', 'root'), true)
    assert.is(await factors.remove('alice', 'root'), false)
    assert.is(await factors.of('alice', '192.0.2.1'), undefined)
    assert.equal(await database.run(handle => handle.select().from(secretValue)), [])
    assert.equal(events, [
      'second-factor.enrolled alice alice', 'second-factor.enrolled root alice',
      'second-factor.confirmed alice alice', 'second-factor.removed root alice'
    ])
  })

  on('a code counts once, and none before it counts any more', async () => {
    const { database, nodeOn } = await open()
    const factors = await nodeOn(database)
    const codeAt = await enrolled(factors)
    assert.is(await checks(factors, '000000') || await checks(factors, codeAt(later(-60))), false)
    assert.is(await checks(factors, codeAt(noon)), true)
    assert.is(await checks(factors, codeAt(noon)), false)
    assert.is(await checks(factors, codeAt(later(30))), true, 'a device that is fast')
    assert.is(await checks(factors, codeAt(noon)), false)
  })

  on('a used code is refused after a restart', async () => {
    const { database, again, nodeOn } = await open()
    const factors = await nodeOn(database)
    const codeAt = await enrolled(factors)
    assert.is(await checks(factors, codeAt(noon)), true)
    await database.close()
    const restarted = await nodeOn(await again())
    assert.is(await checks(restarted, codeAt(noon)), false)
    assert.is(await checks(restarted, codeAt(later(30))), true)
  })

  on('of many that bring the same code at one moment exactly one gets in, on whatever node', async () => {
    const { database, again, nodeOn } = await open()
    // The embedded store admits one process: there both nodes are one.
    const first = await nodeOn(database)
    const nodes = [first, await nodeOn(kind === 'postgres' ? await again() : database)]
    const codeAt = await enrolled(first)
    for (const seconds of [0, 30]) {
      const tries = nodes.flatMap(node =>
        Array.from({ length: 8 }, () => checks(node, codeAt(later(seconds)))))
      assert.is((await Promise.all(tries)).filter(Boolean).length, 1)
    }
  })

  on('of two that confirm at one moment one does; of two that enrol one secret is left', async () => {
    const { database, nodeOn } = await open()
    const [one, other] = [await nodeOn(database), await nodeOn(database)]
    const drawn = await Promise.all([one, other, one, other].map(node => node.enrol('alice', 'alice')))
    const rows = await database.run(handle => handle.select().from(secondFactor))
    const sealed = await database.run(handle => handle.select().from(secretValue))
    assert.equal([rows.length, sealed.map(row => row.id)], [1, [rows[0]!.secret]])
    const codes = drawn.filter(uri => uri !== undefined).map(uri => codeOf(secretOfUri(uri), stepAt(noon)))
    const outcomes = await Promise.all(codes.flatMap(code =>
      [one, other].map(node => node.confirm('alice', code, 'alice'))))
    assert.is(outcomes.filter(outcome => outcome === 'confirmed').length, 1, outcomes.join())
  })

  on('a code of an enrolment that was replaced meanwhile does not count', async () => {
    const { database, nodeOn } = await open()
    const factors = await nodeOn(database)
    const codeAt = await enrolled(factors)
    const before = (await factors.of('alice', '192.0.2.1'))!
    await factors.remove('alice', 'root')
    await enrolled(factors)
    const late = await before.check(codeAt(noon)).catch((thrown: unknown) =>
      thrown instanceof SallyportError ? thrown.code : String(thrown))
    assert.is(late, 'seal-broken')
  })

  on.run()
}

