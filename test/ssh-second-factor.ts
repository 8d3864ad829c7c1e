// The second factor in the words of SSH, message by message: what a stock client never sends, and what a
// connection and its source are charged with.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { SallyportError } from '../src/errors.ts'
import { Login, loginMessage } from '../src/proxy/ssh/login.ts'
import { Mailbox } from '../src/proxy/ssh/mailbox.ts'
import type { Challenge, Proof } from '../src/session/front.ts'
import { makeVerifier } from '../src/wire/postgres/verifier.ts'
import { SshReader, sshFields, sshUint32 } from '../src/wire/ssh/data.ts'
import type { SshField } from '../src/wire/ssh/data.ts'

const verifier = await makeVerifier('right')
const { request, failure, question, answer } = loginMessage
const message = (kind: number, ...fields: readonly SshField[]): Buffer =>
  Buffer.concat([Buffer.of(kind), sshFields(...fields)])
const asks = (method: string, ...more: readonly SshField[]): Buffer =>
  message(request, 'alice+x', 'ssh-connection', method, ...more)
const password = (text: string): Buffer => asks('password', false, text)
const interactive = asks('keyboard-interactive', '', '')
const answers = (...texts: string[]): Buffer =>
  Buffer.concat([Buffer.of(answer), sshUint32(texts.length), sshFields(...texts)])

interface Run {
  sent: string[]
  charged: number
  checked: string[]
  outcome: Proof | undefined | string
}

/** Says these messages one after the other; the right code is 123456. */
async function run(
  messages: readonly Buffer[], { hasSecond = true, throttledAfter = Infinity } = {}
): Promise<Run> {
  const mailbox = new Mailbox('protocol-violation')
  const result: Run = { sent: [], charged: 0, checked: [], outcome: undefined }
  const login = new Login({
    mailbox, address: '192.0.2.1', sessionId: () => Buffer.alloc(32), now: () => new Date(0),
    send: sent => result.sent.push(printed(Buffer.from(sent))),
    admit: () => {
      if (result.charged > throttledAfter) throw new SallyportError('auth-throttled')
    },
    failed: () => { result.charged++ }
  })
  mailbox.push(message(5, 'ssh-userauth'))
  for (const each of messages) mailbox.push(each)
  const challenge: Challenge = {
    verifier, publicKeys: [], authorities: [], name: 'alice',
    secondFactor: !hasSecond ? undefined : {
      async check(code) {
        result.checked.push(code)
        return code === '123456'
      }
    }
  }
  await login.claim()
  // What nobody answers any more ends as if the client had gone.
  const timer = setTimeout(() => mailbox.fail(new SallyportError('client-closed')), 500)
  result.outcome = await login.prove(challenge).catch((thrown: SallyportError) => thrown.code)
  clearTimeout(timer)
  return result
}

function printed(sent: Buffer): string {
  const reader = new SshReader(sent)
  const kind = reader.byte()
  if (kind === failure) return `failure ${reader.text()} ${reader.boolean()}`
  if (kind !== question) return String(kind)
  for (let skipped = 0; skipped < 3; skipped++) reader.text()
  const count = reader.uint32()
  return `question ${count} ${reader.text()}${reader.boolean() ? 'shown' : 'hidden'}`
}

const partial = 'failure keyboard-interactive true'
const still = 'failure keyboard-interactive false'
const all = 'failure publickey,password,keyboard-interactive false'
const asksCode = 'question 1 One-time code: shown'

test('a right password is a partial success, and only a question is left', async () => {
  const { sent, outcome, charged } = await run([password('right'), interactive, answers('123456')])
  assert.equal(sent.slice(1), [partial, asksCode])
  assert.equal([outcome, charged], [{ method: 'password, one-time code' }, 0])
})

test('as an answer it is followed by a second question; the code may be wrong once', async () => {
  const { sent, outcome, charged } = await run(
    [interactive, answers('right'), answers('111111'), interactive, answers('123456')])
  assert.equal(sent.slice(1), ['question 1 Password: hidden', asksCode, still, asksCode])
  assert.equal([outcome, charged], [{ method: 'keyboard-interactive, one-time code' }, 1])
})

test('without a second factor the messages are those of ever', async () => {
  const { sent, outcome } = await run([password('wrong'), password('right')], { hasSecond: false })
  assert.equal([sent.slice(1), outcome], [[all], { method: 'password' }])
})

test('no code is asked for, looked at or spoken of before the first factor is proved', async () => {
  const { sent, checked, outcome } = await run([
    interactive, answers('123456'), interactive, answers('right', '123456'), password('wrong'),
    asks('none'), password('right123456')
  ])
  assert.equal([checked, outcome], [[], 'client-closed'])
  assert.not.ok(sent.some(line => line.includes('code') || line.includes('true')))
})

test('the password does not stand in for the code, nor the code for a method', async () => {
  const { sent, outcome, checked } = await run([
    password('right'), password('right'), password('123456'), asks('one-time-code'), asks('none'),
    interactive, answers(), interactive, answers('123456', '123456')
  ])
  assert.equal(sent.slice(1), [partial, still, still, still, still, asksCode, still, asksCode, still])
  assert.equal([outcome, checked], ['client-closed', ['', '']])
})

test('wrong codes count for the connection together with wrong passwords, and for the source', async () => {
  const tries = Array.from({ length: 9 }, () => [interactive, answers('000000')]).flat()
  const { outcome, charged, checked } = await run([password('wrong'), password('right'), ...tries])
  assert.equal([outcome, charged, checked.length], [undefined, 6, 5])
  const throttled = await run([password('right'), ...tries], { throttledAfter: 2 })
  assert.equal([throttled.outcome, throttled.checked.length], ['auth-throttled', 3])
})

test('what is not an answer, another name, or too long a code is refused', async () => {
  const other = message(request, 'bob+x', 'ssh-connection', 'keyboard-interactive', '', '')
  assert.is((await run([password('right'), other])).outcome, 'protocol-violation')
  assert.is((await run([password('right'), interactive, interactive])).outcome, 'protocol-violation')
  const long = await run([password('right'), interactive, answers('1'.repeat(100_000))])
  assert.equal([long.checked, long.charged], [[], 1])
})

test.run()
