// Connections that wait for their person at the console: who has to, who may instead of a password, what they
// are told, and how it ends: confirmed, turned away, too late, left. A front end that says that a proof is to
// come is believed only where one can come, and only when it came.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import type { Declared, User } from '../src/policy/types.ts'
import { inConsole } from '../src/session/confirm.ts'
import type { ConfirmationPort } from '../src/session/confirm.ts'
import type { Challenge, Claim, Proof } from '../src/session/front.ts'
import { createSteps } from '../src/session/steps.ts'

interface Scene {
  passkey?: boolean
  provider?: boolean
  hasPassword?: boolean
  disabled?: boolean
  hasCode?: boolean
  verdict?: Awaited<ReturnType<ConfirmationPort['decided']>>
  /** There is no console. */
  nowhere?: boolean
  /** What the user is by the time of the verdict; `gone`: none. */
  meanwhile?: 'gone' | undefined
}

interface Outcome {
  /** The user's name, or the code of the refusal. */
  is: string
  told: string[]
  asked: string[]
  audited: string[]
  challenge: Challenge
}

const claim: Claim = {
  protocol: 'postgres', login: 'alice+x', replication: false, address: '192.0.2.1', tls: true
}

async function authenticate(
  scene: Scene, prove: (challenge: Challenge) => Promise<Proof | undefined>, leaves = false
): Promise<Outcome> {
  const { passkey = false, provider = false, hasPassword = true, disabled = false, hasCode = false } = scene
  const alice = {
    name: 'alice', roles: ['user'], publicKeys: [], disabled,
    ...hasPassword ? { verifier: { secret: 's' } } : {}
  } as User
  const [told, asked, audited]: string[][] = [[], [], []]
  let isOver = false
  const confirmations: ConfirmationPort = {
    isOpen: scene.nowhere !== true, waitSeconds: 180, waysOf: async () => ({ passkey, provider }),
    async ask(user, { protocol }) {
      asked!.push(`${user} ${protocol}`)
      return { link: 'https://pam.test/console/confirm#ABCD-EFGH', code: 'ABCD-EFGH', secret: 'secret' }
    },
    async decided(secret, waitMs, signal) {
      assert.equal([secret, waitMs], ['secret', 180_000])
      isOver = true
      signal.throwIfAborted()
      return scene.verdict ?? 'approved'
    }
  }
  let challenge: Challenge | undefined
  const steps = createSteps({
    userOf: () => 'alice', authorities: [], verifierOf: async () => 'a verifier',
    declared: async () => ({
      users: new Map(isOver && scene.meanwhile === 'gone' ? [] : [['alice', alice]])
    }) as unknown as Declared,
    secondFactorOf: async () => hasCode ? { check: async (code: string) => code === '111111' } : undefined,
    audit: async (kind: string, _actor: string, _subject: string, { why }: Record<string, unknown>) => {
      audited!.push(`${kind}: ${String(why)}`)
    },
    confirmations
  } as unknown as Parameters<typeof createSteps>[0])
  const is = await steps.authenticate(claim, given => {
    challenge = given
    return prove(given)
  }, {
    tell: line => told!.push(line),
    onLeft(act) {
      if (leaves) act()
      return () => undefined
    }
  }).then(({ name }) => name, (thrown: SallyportError) => thrown.code)
  return { is, told: told!, asked: asked!, audited: audited!, challenge: challenge! }
}

const password = async (): Promise<Proof> => ({ method: 'password' })
const toCome = async (): Promise<Proof> => ({ method: inConsole })

test('a password is enough for whoever has no second factor, and nobody is sent anywhere', async () => {
  for (const scene of [{}, { provider: true }]) {
    const { is, told, asked } = await authenticate(scene, password)
    assert.equal([is, told, asked], ['alice', [], []])
  }
})

test('who has a passkey or a code that was not asked for confirms after the password', async () => {
  for (const scene of [{ passkey: true }, { hasCode: true }]) {
    const { is, told, asked } = await authenticate(scene, password)
    assert.equal([is, asked], ['alice', ['alice postgres']])
    assert.equal(told, [
      'open https://pam.test/console/confirm#ABCD-EFGH and confirm ABCD-EFGH: waiting for up to 3 minutes',
      'confirmed'
    ])
    const unproved = await authenticate(scene, async () => undefined)
    assert.equal([unproved.is, unproved.asked, unproved.told], ['auth-failed', [], []])
  }
  const typed = await authenticate({ hasCode: true, passkey: true }, async challenge => {
    await challenge.secondFactor!.check('111111')
    return password()
  })
  assert.equal([typed.is, typed.asked], ['alice', []], 'a right code is a second factor, too')
})

test('turned away, too late, left, gone: each ends it, with a code of its own', async () => {
  const cases: [scene: Scene, leaves: boolean, is: string][] = [
    [{ verdict: 'denied' }, false, 'access-denied'],
    [{ verdict: 'expired' }, false, 'second-factor-required'],
    [{}, true, 'client-closed'], [{ meanwhile: 'gone' }, false, 'auth-failed'],
    [{ nowhere: true, hasCode: true }, false, 'second-factor-required'],
    [{ nowhere: true }, false, 'second-factor-required'],
    [{ disabled: true }, false, 'second-factor-required']
  ]
  for (const [scene, leaves, expected] of cases) {
    const { is } = await authenticate({ passkey: true, ...scene }, password, leaves)
    assert.is(is, expected, JSON.stringify(scene))
  }
})

test('who has no password confirms instead of it; for everybody else that is no proof', async () => {
  for (const scene of [{ provider: true }, { passkey: true }]) {
    const { is, asked, challenge } = await authenticate({ hasPassword: false, ...scene }, toCome)
    assert.equal([is, asked, challenge.inConsole], ['alice', ['alice postgres'], true])
  }
  const late = await authenticate({ hasPassword: false, provider: true, verdict: 'expired' }, toCome)
  assert.is(late.is, 'second-factor-required')
  const key = async (): Promise<Proof> => ({ method: 'publickey SHA256:x' })
  const signed = await authenticate({ hasPassword: false, provider: true }, key)
  assert.equal([signed.is, signed.asked], ['alice', []], 'a key is a proof of its own')
  for (const scene of [
    { provider: true }, { passkey: true }, { hasPassword: false },
    { hasPassword: false, provider: true, nowhere: true },
    { hasPassword: false, provider: true, disabled: true }
  ]) {
    const { is, asked, challenge } = await authenticate(scene, toCome)
    assert.equal([is, asked, challenge.inConsole], ['auth-failed', [], undefined], JSON.stringify(scene))
  }
})

test.run()
