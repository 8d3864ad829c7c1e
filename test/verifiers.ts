// What a stranger can learn from the work that a login makes: nothing. For every name a sealed value is
// opened and a verifier made up, whether the user exists, has a password or is only a guess (R13).
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { createVerifiers } from '../src/main/verifiers.ts'
import type { Declared, User } from '../src/policy/types.ts'
import { Secret } from '../src/secret.ts'

const user = (name: string, verifier?: string): [string, User] => [name, {
  name, roles: ['user'], publicKeys: [], disabled: false,
  ...verifier === undefined ? {} : { verifier: { secret: verifier } }
}]

function bench(users: [string, User][]) {
  const work: string[] = []
  const verifierOf = createVerifiers(async ({ secret }) => {
    work.push('opened')
    return new Secret(`real ${secret}`)
  }, name => {
    work.push('made up')
    return `mock ${name}`
  })
  const declared: Declared = {
    targets: new Map(), credentials: new Map(), users: new Map(users), grants: [],
    environments: new Map(), secrets: new Map(), profiles: new Map(), applications: new Map()
  }
  return { work, of: (name: string) => verifierOf(declared, name) }
}

test('every name makes the same work, and only its own verifier is given out', async () => {
  const users = [user('keyed'), user('alice', 'a'), user('bob', 'b')]
  const answers: Record<string, string> = {
    alice: 'real a', bob: 'real b', keyed: 'mock keyed', mallory: 'mock mallory', '': 'mock '
  }
  for (const [name, answer] of Object.entries(answers)) {
    const { work, of } = bench(users)
    assert.is(await of(name), answer)
    assert.equal(work, ['made up', 'opened'], name)
  }
})

test('where nobody has a password there is nothing to open and nothing to find out', async () => {
  const { work, of } = bench([user('keyed')])
  assert.is(await of('keyed'), 'mock keyed')
  assert.is(await of('mallory'), 'mock mallory')
  assert.equal(work, ['made up', 'made up'])
})

test.run()
