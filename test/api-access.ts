// Coming in: passwords, tokens, the one-time token of the first start, and the local admin of the machine
// that serves.
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  createFirstAdminToken, createIdentify, hashToken, logIn, mintToken, redeem
} from '../src/api/access.ts'
import {
  localAdminFile, mintLocalToken, publishLocalAdmin, withdrawLocalAdmin
} from '../src/api/local-admin.ts'
import type { ApiPorts } from '../src/api/ports.ts'
import { apply, deleteResource } from '../src/api/resources.ts'
import { SallyportError } from '../src/errors.ts'
import { Secret } from '../src/secret.ts'
import { createMemory } from './peers/api-ports.ts'
import type { Memory } from './peers/api-ports.ts'

const address = '192.0.2.9'

async function house(): Promise<{ memory: Memory, ports: ApiPorts }> {
  const made = createMemory()
  await apply(made.ports, {
    dryRun: false, prune: false, documents: [
      { kind: 'user', name: 'alice', roles: ['auditor'], password: { value: 'correct horse' } },
      { kind: 'user', name: 'keyed', publicKeys: ['ssh-ed25519 AAAA'] },
      { kind: 'user', name: 'gone', password: { value: 'correct horse' }, disabled: true }
    ]
  }, 'local')
  return made
}

const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(() => 'no refusal', (thrown: SallyportError) => thrown.code)

test('a password gets a token, which stands for the user until it expires', async () => {
  const { memory, ports } = await house()
  const issued = await logIn(ports, { name: 'alice', password: new Secret('correct horse') }, address, 3600)
  assert.match(issued.token, /^sally_[A-Za-z0-9_-]{43}$/)
  const identify = createIdentify(ports, undefined)
  const { login, ...caller } = await identify(issued.token, address)
  assert.equal(caller, { name: 'alice', roles: ['auditor'], how: 'token' })
  assert.is(login?.method, 'password')
  assert.not.match(JSON.stringify([...memory.tokens]), new RegExp(issued.token))
  memory.tokens.get(hashToken(issued.token))!.expiresAt = new Date(0)
  assert.is(await codeOf(identify(issued.token, address)), 'auth-required')
})

test('wrong passwords, unknown users, missing passwords and disabled users sound the same', async () => {
  const { memory, ports } = await house()
  const tries = [['alice', 'wrong'], ['mallory', 'x'], ['keyed', 'x'], ['gone', 'correct horse']] as const
  for (const [name, password] of tries) {
    const given = { name, password: new Secret(password) }
    assert.is(await codeOf(logIn(ports, given, address, 60)), 'auth-failed', name)
  }
  const refused = memory.audit.filter(event => event.kind === 'login.refused')
  assert.equal(refused.map(event => [event.actor, (event.detail as { why: string }).why]), [
    ['alice', 'wrong password'], ['mallory', 'unknown user'], ['keyed', 'the user has no password'],
    ['gone', 'the user is disabled']
  ])
  assert.not.match(JSON.stringify(memory.audit), /correct horse/)
})

test('every login that fails asks for the same work, whether the user exists or not', async () => {
  const { ports } = await house()
  const asked: string[] = []
  const { matches } = ports.passwords
  ports.passwords.matches = (verifier, password) => {
    asked.push(verifier.split('$')[1]!.split(':')[0]!)
    return matches(verifier, password)
  }
  for (const name of ['alice', 'mallory', 'keyed']) {
    await codeOf(logIn(ports, { name, password: new Secret('x') }, address, 60))
  }
  assert.equal(asked, ['4096', '4096', '4096'])
})

test('guesses that are made at the same moment are not more than those made one by one', async () => {
  const { ports } = await house()
  let failures = 0
  ports.passwords.admit = () => {
    if (failures >= 5) throw new SallyportError('auth-throttled')
  }
  ports.passwords.tried = (_from, succeeded) => { failures += succeeded ? 0 : 1 }
  const guesses = [...Array<string>(20).fill('x'), 'correct horse']
  const codes = await Promise.all(guesses.map(guess =>
    codeOf(logIn(ports, { name: 'alice', password: new Secret(guess) }, address, 60))))
  assert.is(codes.filter(code => code === 'auth-failed').length, 5)
  assert.is(codes.filter(code => code === 'auth-throttled').length, 16)
})

test('who has failed too often is refused before any work is done', async () => {
  const { memory, ports } = await house()
  memory.throttled = true
  ports.passwords.matches = () => Promise.reject(new Error('nobody was to look at it'))
  const given = { name: 'alice', password: new Secret('correct horse') }
  assert.is(await codeOf(logIn(ports, given, address, 60)), 'auth-throttled')
  assert.is(await codeOf(redeem(ports, mintToken(), address)), 'auth-throttled')
})

test('how a login ended is told to the throttle', async () => {
  const { ports } = await house()
  const tried: boolean[] = []
  ports.passwords.tried = (_from, succeeded) => tried.push(succeeded)
  await codeOf(logIn(ports, { name: 'alice', password: new Secret('x') }, address, 60))
  await logIn(ports, { name: 'alice', password: new Secret('correct horse') }, address, 60)
  await codeOf(redeem(ports, mintToken(), address))
  assert.equal(tried, [false, true, false])
})

test('a second factor is asked for after a right password only, and a code counts once', async () => {
  const { memory, ports } = await house()
  memory.secondFactors.set('alice', { confirmed: true, codes: ['111111', '222222'] })
  const tried: boolean[] = []
  ports.passwords.tried = (_from, succeeded) => tried.push(succeeded)
  const enter = (password: string, code?: string): Promise<string> =>
    codeOf(logIn(ports, { name: 'alice', password: new Secret(password), code }, address, 60))
  assert.is(await enter('wrong'), 'auth-failed')
  assert.is(await enter('wrong', '111111'), 'auth-failed')
  assert.is(await enter('correct horse'), 'second-factor-required')
  assert.is(await enter('correct horse', '000000'), 'auth-failed')
  assert.is(await enter('correct horse', '111111'), 'no refusal', 'the wrong password did not use it up')
  assert.is(await enter('correct horse', '111111'), 'auth-failed')
  // What was only not asked for yet is no failure, and is on record: somebody has the password.
  assert.equal(tried, [false, false, false, true, false])
  assert.equal(memory.audit.filter(({ kind }) => kind === 'second-factor.asked').map(({ actor }) => actor),
    ['alice'])
  assert.equal(memory.audit.filter(({ kind }) => kind === 'login.refused')
    .map(({ detail }) => (detail as { why: string }).why),
  ['wrong password', 'wrong password', 'wrong one-time code', 'wrong one-time code'])
})

test('a factor that is not confirmed yet is not asked for; one of a person who is gone is gone', async () => {
  const { memory, ports } = await house()
  await ports.secondFactors.enrol('alice', 'alice')
  const given = { name: 'alice', password: new Secret('correct horse') }
  assert.is(await codeOf(logIn(ports, given, address, 60)), 'no refusal')
  await deleteResource(ports, 'user', 'alice', 'local')
  assert.is(memory.secondFactors.size, 0)
  await ports.secondFactors.enrol('keyed', 'local')
  const documents = [{ kind: 'user', name: 'gone' }]
  await apply(ports, { documents, dryRun: false, prune: true }, 'local')
  assert.is(memory.secondFactors.size, 0)
})

test('the first start prints a one-time token, which is redeemed once', async () => {
  const { memory, ports } = createMemory()
  const token = await createFirstAdminToken(ports)
  assert.ok(token !== undefined)
  assert.is(await createFirstAdminToken(ports), undefined, 'an unused one is still valid')
  const identify = createIdentify(ports, undefined)
  assert.is(await codeOf(identify(token, address)), 'auth-required', 'it is no bearer token itself')
  const issued = await redeem(ports, token!, address)
  const { name, roles, how } = await identify(issued.token, address)
  assert.equal({ name, roles, how }, { name: 'first-admin', roles: ['admin'], how: 'token' })
  assert.is(await codeOf(redeem(ports, token!, address)), 'auth-failed')
  assert.equal(memory.audit.map(event => event.kind), ['login', 'login.refused'])
})

test('where there is an admin already, no one-time token is made', async () => {
  const { ports } = createMemory()
  const documents = [{ kind: 'user', name: 'root', roles: ['admin'], password: { value: 'x' } }]
  await apply(ports, { documents, dryRun: false, prune: false }, 'local')
  assert.is(await createFirstAdminToken(ports), undefined)
})

test('the local admin comes from this machine only', async () => {
  const { ports } = createMemory()
  const token = mintLocalToken()
  const identify = createIdentify(ports, token)
  for (const from of ['127.0.0.1', '127.1.2.3', '::1', '::ffff:127.0.0.1']) {
    assert.equal(await identify(token.expose(), from), { name: 'local', roles: ['admin'], how: 'local' },
      from)
  }
  for (const from of ['192.0.2.1', '::ffff:192.0.2.1', '2001:db8::1', '', '1127.0.0.1']) {
    assert.is(await codeOf(identify(token.expose(), from)), 'auth-required', from)
  }
  assert.is(await codeOf(identify(mintLocalToken().expose(), '127.0.0.1')), 'auth-required')
  assert.is(await codeOf(createIdentify(ports, undefined)(token.expose(), '127.0.0.1')), 'auth-required')
})

test('the file of the local admin is for its owner alone, and new at each start', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-local-'))
  try {
    const path = join(folder, localAdminFile)
    // What an attacker may have put there before, to be written through.
    writeFileSync(`${path}.new`, 'old', { mode: 0o666 })
    const token = mintLocalToken()
    await publishLocalAdmin(folder, token, { host: '127.0.0.1', port: 8443 })
    assert.is(statSync(path).mode & 0o777, 0o600)
    assert.is(readFileSync(path, 'utf8'), `${token.expose()}\nhttps://127.0.0.1:8443\n`)
    await publishLocalAdmin(folder, mintLocalToken(), { host: '::1', port: 1 })
    assert.not.match(readFileSync(path, 'utf8'), new RegExp(token.expose()))
    assert.match(readFileSync(path, 'utf8'), /https:\/\/\[::1\]:1\n$/)
    await withdrawLocalAdmin(folder)
    assert.throws(() => statSync(path), /ENOENT/)
    await withdrawLocalAdmin(folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test.run()
