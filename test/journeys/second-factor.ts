// deadline: 400 s
// A person with a second factor, with stock clients against the whole product: key and code, password and
// code, both within one exchange of questions, a code that is used up, and PostgreSQL, which has no place to
// ask. Whoever has none, or has not proved the first factor, sees nothing of it.
import { spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { programOf } from '../../tool/services.ts'
import { authenticator } from '../peers/authenticator.ts'
import { alicePassword, ran, startProduct } from '../peers/house.ts'
import type { Ran } from '../peers/house.ts'
import { startSshHouse } from '../peers/ssh-house.ts'
import type { SshHouse } from '../peers/ssh-house.ts'

let house: SshHouse
let alice: ReturnType<typeof authenticator>

// A code counts once and the next one comes after half a minute: for most promises there is a person with two
// codes at hand.
const people = ['bob', 'carol', 'dave', 'erin', 'frank', 'grace', 'heidi']
const access = people.map(name => `---
kind: user
name: ${name}
roles: [user]
password: { env: ALICE_PASSWORD }
publicKeys: ["PUBLIC"]
`).join('') + `---
kind: grant
name: all-on-web01
users: [${people.join(', ')}]
credentials: [deploy]
`

const commandLine = join(import.meta.dirname, '../../src/cli/sallyport.ts')

test.before(async () => {
  house = await startSshHouse({ access })
})
test.after(async () => house.end())

/**
 * Stock ssh on a terminal; each `[question, answer]` in turn. What was on the terminal, and the exit status.
 */
async function terminal(words: readonly string[], answers: readonly [RegExp, string][]): Promise<Ran> {
  const script = 'import pty,sys;sys.exit(pty.spawn(sys.argv[1:])>>8)'
  const options = house.options.map(word => word === 'BatchMode=yes' ? 'BatchMode=no' : word)
  const child = spawn(programOf('python3'), [
    '-c', script, programOf('ssh'), ...options, '-p', String(house.sshPort), ...words
  ], { stdio: 'pipe' })
  const left = [...answers]
  let seen = ''
  let fresh = ''
  child.stdout.on('data', chunk => {
    seen += String(chunk)
    fresh += String(chunk)
    if (left[0]?.[0].test(fresh) !== true) return
    child.stdin.write(`${left.shift()![1]}\r`)
    fresh = ''
  })
  child.stdin.on('error', () => undefined)
  const status = await new Promise<number | null>(resolve => child.once('close', resolve))
  assert.is(left.length, 0, `not everything was asked: ${seen}`)
  return { status, stdout: seen, stderr: '' }
}

/** Without the key of the person: by password or by questions. */
const by = (method: string): string[] =>
  ['-o', 'PubkeyAuthentication=no', '-o', `PreferredAuthentications=${method}`]
const to = (name: string): string[] => [`${name}+deploy@127.0.0.1`, 'id -un']
const code = /One-time code: $/

/** The app of a person for whom an admin has enrolled one. */
async function enrolled(name: string): Promise<ReturnType<typeof authenticator>> {
  const app = authenticator((await house.sallyport('users', 'enrol', name)).trim())
  await house.sallyport('users', 'confirm', name, await app.next())
  return app
}

/** `sallyport` as somebody else, with a home folder of their own. */
const sallyport = (home: string, words: readonly string[], given: NodeJS.ProcessEnv = {}): Promise<Ran> =>
  ran(process.execPath, [commandLine, ...words, '--config', join(house.folder, 'sallyport.yaml')],
    { ...house.environment, HOME: join(house.home, home), ...given })

test('without a second factor nobody is asked for one', async () => {
  for (const login of ['alice+deploy', 'bob+deploy']) {
    const { stdout, stderr } = await house.ssh(['id -un'], { login })
    assert.equal([stdout, stderr], ['deploy\n', ''])
  }
})

test('alice enrols herself, and it counts once she has confirmed it', async () => {
  const login = await sallyport('alice', ['login', 'alice'], { SALLYPORT_PASSWORD: alicePassword })
  assert.is(login.status, 0, login.stderr)
  const other = await sallyport('alice', ['users', 'enrol', 'bob'])
  assert.match(other.stderr, /no user "bob"|not found/)
  const { stdout, stderr } = await sallyport('alice', ['users', 'enrol', 'alice'])
  assert.match(stderr, /sallyport users confirm alice CODE/)
  assert.match(stdout, /^otpauth:\/\/totp\/Sallyport:alice\?secret=[A-Z2-7]{32}&/)
  alice = authenticator(stdout.trim())
  assert.is((await house.ssh(['id -un'])).stdout, 'deploy\n', 'not confirmed yet')
  const wrong = await sallyport('alice', ['users', 'confirm', 'alice', '000000'])
  assert.match(wrong.stderr, /code: is not the one of this moment/)
  const confirmed = await sallyport('alice', ['users', 'confirm', 'alice', await alice.next()])
  assert.is(confirmed.status, 0, confirmed.stderr)
  const removal = await sallyport('alice', ['users', 'unenrol', 'alice'])
  assert.is(removal.status, 1, 'whoever finds her terminal cannot take it away')
})

test('key and code open the session; the key alone does not, and a used code does not', async () => {
  const alone = await house.ssh(['id -un'])
  assert.equal([alone.status, alone.stdout], [255, ''])
  assert.match(alone.stderr, /Permission denied \(keyboard-interactive\)/)
  const both = await terminal(to('alice'), [[code, await alice.next()]])
  assert.match(both.stdout, /deploy\r\n$/)
  assert.match(both.stdout, new RegExp(`One-time code: ${alice.shown()}`), 'it is seen while it is typed')
  const used = alice.shown()
  const again = await terminal(to('alice'), [[code, used], [code, used], [code, await alice.next()]])
  assert.match(again.stdout, /deploy\r\n$/, 'the key stays proved while codes are wrong')
  const wrong = await terminal(to('alice'), [[code, used], [code, used], [code, used]])
  assert.is(wrong.status, 255)
  assert.match(wrong.stdout, /Permission denied \(keyboard-interactive\)/)
})

test('password and code open the session, in a request or as two questions', async () => {
  const carol = await enrolled('carol')
  const asked = await terminal([...by('password,keyboard-interactive'), ...to('carol')],
    [[/password: $/, alicePassword], [code, await carol.next()]])
  assert.match(asked.stdout, /deploy\r\n$/)
  const dave = await enrolled('dave')
  const questions = await terminal([...by('keyboard-interactive'), ...to('dave')],
    [[/Password: $/, alicePassword], [code, await dave.next()]])
  assert.match(questions.stdout, /deploy\r\n$/)
})

test('SSH_ASKPASS shows the question, and a program can answer it', async () => {
  const askpass = join(house.home, 'askpass')
  const erin = await enrolled('erin')
  writeFileSync(join(house.home, 'code'), await erin.next())
  writeFileSync(askpass, `#!/bin/sh\necho "$1" >> ${house.home}/asked\ncat ${house.home}/code\n`, {
    mode: 0o700
  })
  const options = house.options.map(word => word === 'BatchMode=yes' ? 'BatchMode=no' : word)
  const { stdout, stderr } = await ran(programOf('ssh'),
    [...options, '-p', String(house.sshPort), ...to('erin')],
    { SSH_ASKPASS: askpass, SSH_ASKPASS_REQUIRE: 'force' })
  assert.is(stdout, 'deploy\n', stderr)
  assert.match(readFileSync(join(house.home, 'asked'), 'utf8'), /One-time code:/)
})

test('whoever has not proved the first factor sees nothing of a second', async () => {
  const seen = []
  for (const name of ['alice', 'bob', 'nobody']) {
    const { stdout } = await terminal(
      [...by('password,keyboard-interactive'), '-o', 'NumberOfPasswordPrompts=1', `${name}+deploy@127.0.0.1`],
      [[/password: $/, 'wrong'], [/Password: $/, 'wrong']])
    seen.push(stdout.replaceAll(name, 'NAME'))
  }
  assert.is(seen[0], seen[1])
  assert.is(seen[0], seen[2])
  assert.match(seen[0]!, /Permission denied \(publickey,password,keyboard-interactive\)/)
  assert.not.match(seen[0]!, /code/)
})

test('login asks for the code', async () => {
  const frank = await enrolled('frank')
  const login = (given: NodeJS.ProcessEnv): Promise<Ran> =>
    sallyport('laptop', ['login', 'frank'], { SALLYPORT_PASSWORD: alicePassword, ...given })
  const without = await login({})
  assert.is(without.status, 1)
  assert.match(without.stderr, /a second factor is needed as well/)
  const given = { SALLYPORT_CODE: await frank.next() }
  const right = await login(given)
  assert.is(right.status, 0, right.stderr)
  assert.match((await login(given)).stderr, /authentication failed/)
})

test('guesses with a stolen password end, at the API and over SSH alike', async () => {
  const heidi = await enrolled('heidi')
  const login = (given: string): Promise<Ran> => sallyport(
    'thief', ['login', 'heidi'], { SALLYPORT_PASSWORD: alicePassword, SALLYPORT_CODE: given })
  for (let guess = 0; guess < 5; guess++) {
    assert.match((await login('000000')).stderr, /auth-failed/)
  }
  assert.match((await login('000000')).stderr, /auth-throttled/)
  const right = await terminal(to('heidi'), [[code, await heidi.next()]])
  assert.is(right.status, 255, 'the share is the same over SSH')
  assert.match(right.stdout, /too many attempts, try again later \[auth-throttled [0-9a-f]{6}\]/)
  const table = await house.sallyport('users', 'list')
  assert.match(table, /^NAME +ROLES +SECOND FACTOR +STATUS$/m)
  assert.match(table, /^heidi +user +confirmed +active$/m)
  assert.match(table, /^bob +user +none/m)
})

test('what happened is on record, and no code or secret is (R14)', async () => {
  const audit = await house.json<{ kind: string, actor: string, subject: string }[]>('audit', 'list')
  const kinds = audit.map(({ kind }) => kind)
  for (const kind of ['second-factor.enrolled', 'second-factor.confirmed', 'second-factor.refused']) {
    assert.ok(kinds.includes(kind), kind)
  }
  assert.not.match(JSON.stringify(audit) + house.log(), /otpauth|"code":"\d{6}"/)
})

test('a used code is refused by the next start, too; an admin takes the factor away', async () => {
  const grace = await enrolled('grace')
  const used = await grace.next()
  assert.match((await terminal(to('grace'), [[code, used]])).stdout, /deploy\r\n$/)
  const { folder, environment } = house
  await house.kill()
  const again = await startProduct({ listen: '', access: '', folder, environment })
  try {
    const once = ['-o', 'NumberOfPasswordPrompts=1', ...to('grace')]
    assert.is((await terminal(once, [[code, used]])).status, 255)
    await again.sallyport('users', 'unenrol', 'grace')
    const { stdout, stderr } = await house.ssh(['id -un'], { login: 'grace+deploy' })
    assert.is(stdout, 'deploy\n', stderr)
  } finally {
    await again.stop()
  }
})

test.run()
