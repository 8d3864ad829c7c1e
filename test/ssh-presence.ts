// Security keys (FIDO) by policy: which of a key's words about its owner, touched and PIN, a login needs. The
// whole product listens; the keys are made of software, since no test has a finger.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SshReader, sshFields } from '../src/wire/ssh/data.ts'
import { freePort } from '../tool/postgres.ts'
import { startProduct } from './peers/house.ts'
import type { Product } from './peers/house.ts'
import {
  certified, codeIn, ed25519Key, fidoKey, loginClient, loginWords, signedRequest
} from './peers/ssh-login.ts'
import type { TestKey } from './peers/ssh-login.ts'

const [touched, verified] = [1, 4]
const keys = {
  nothing: fidoKey(0), touch: fidoKey(touched), both: fidoKey(touched | verified), plain: ed25519Key()
}
const lines = Object.values(keys).map(({ line }) => `"${line}"`).join(', ')
const authority = ed25519Key()
const sshPort = await freePort()
let product: Product

// Whoever is let in comes to a target that is not there: that is another refusal.
const access = `kind: target
name: away
protocol: ssh
address: 127.0.0.1:1
hostKeys: ["${ed25519Key().line}"]
---
kind: credential
name: deploy
target: away
username: deploy
password: { value: never used }
${[['alice', ''], ['bob', 'requireTouch: false'], ['carol', 'requirePin: true']].map(([name, rule]) => `---
kind: user
name: ${name}
publicKeys: [${lines}]
${rule}
`).join('')}---
kind: grant
name: all
users: [alice, bob, carol]
credentials: [deploy]
`

test.before(async () => {
  product = await startProduct({
    listen: `ssh: "127.0.0.1:${sshPort}", postgres: null`, access,
    config: `ssh: { userAuthorities: ["${authority.line}"] }`
  })
})
test.after(async () => {
  await product.stop()
  product.clear()
})

/** The code that the person hears: at the end, or while the login goes on. */
async function outcome(user: string, key: TestKey): Promise<string | undefined> {
  const client = await loginClient(sshPort)
  const { banner, failure } = loginWords
  const { request, data } = signedRequest(`${user}+deploy`, key, client.peer.sessionId)
  client.peer.send(Buffer.concat([request, sshFields(key.sign(data))]))
  const said = await client.peer.until(banner, failure)
  if (said === undefined) return client.refusal()
  const goesOn = said[0] === failure || await client.peer.until(failure) !== undefined
  client.leave()
  return said[0] === banner && goesOn ? codeIn(new SshReader(said.subarray(1)).text().trim()) : 'refused'
}

const letIn = 'target-unreachable'
const cases: readonly [user: string, key: keyof typeof keys, said: string][] = [
  ['alice', 'nothing', 'touch-required'], ['alice', 'touch', letIn], ['alice', 'both', letIn],
  ['alice', 'plain', letIn],
  ['bob', 'nothing', letIn], ['bob', 'touch', letIn],
  ['carol', 'nothing', 'touch-required'], ['carol', 'touch', 'pin-required'], ['carol', 'both', letIn]
]

for (const [user, key, said] of cases) {
  test(`${user}, ${key}: ${said}`, async () => {
    assert.is(await outcome(user, keys[key]), said)
  })
}

test('a certificate that asks for a PIN is nothing without one', async () => {
  const plain = certified(keys.plain, authority, { options: { 'verify-required': '' } })
  assert.is(await outcome('alice', plain), 'pin-required')
})

test('each refusal is in the audit log, with the code and the key', async () => {
  const events = await product.json<{ actor: string, detail: Record<string, string> }[]>(
    'audit', 'list', '--kind', 'login.refused')
  const seen = events.filter(({ detail }) => detail['code'] !== undefined)
    .map(({ actor, detail }) => `${actor} ${detail['code']} ${detail['why']?.slice(0, 7)}`).sort()
  assert.equal(seen, [
    'alice pin-required SHA256:', 'alice touch-required SHA256:', 'carol pin-required SHA256:',
    'carol touch-required SHA256:'
  ])
})

test('what is the default is not shown; what is not, is', async () => {
  const alice = await product.sallyport('get', 'user', 'alice')
  const carol = await product.sallyport('get', 'user', 'carol')
  assert.not.match(alice, /require/)
  assert.match(carol, /^requirePin: true$/m)
})

test.run()
