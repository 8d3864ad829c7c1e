// deadline: 240 s
// A target that fails while an account is being made: it refuses, hangs, breaks off, loses the question or
// the answer, lies. Whatever it does, the person hears a code within the limits of the hooks, other targets
// do not notice, and when the target behaves again nothing is on it that the ledger does not take away (F8,
// F10, F11, R7).
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { ordersDocuments } from '../tool/orders-documents.ts'
import type { PostgresServer } from '../tool/postgres.ts'
import { companyDatabase, startHouse } from './peers/house.ts'
import type { House } from './peers/house.ts'
import { startInjector, successOf } from './peers/injector.ts'
import type { Fault, Injector } from './peers/injector.ts'
import {
  apiOf, faultsOfEvidence, orphansOf, residueOn, rolesOn, untilGone, untilProved
} from './peers/inspector.ts'

// A hook is given up after connecting, one statement, and the look that follows a lost answer.
const codedSecondsMax = 12
const codes = /\[(target-unreachable|target-violation|target-refused|hook-timeout|hook-failed) [0-9a-f]{6}\]/
// Five bytes that are an ErrorResponse with nothing in it; they made a well-known parser loop for ever.
const badBytes = Buffer.from([0x45, 0, 0, 0, 4])
// "Done", for all that travels together, and nothing was.
const falseSuccess = successOf('CREATE ROLE', 'COMMENT', 'COMMIT')

let target: PostgresServer
let injector: Injector
let house: House
let before: Set<string>

// The same server under another name, not through the injector: what one target does must not be felt by
// another.
const otherTarget = (port: number): string => `---
${ordersDocuments({ port, name: 'other' })}---
kind: grant
name: devs-on-other
users: [alice]
credentials: [other-rw]
`

test.before(async () => {
  const company = await companyDatabase('15')
  target = company.server
  injector = await startInjector(target.port)
  before = await rolesOn(target)
  house = await startHouse({
    target: Object.create(target, { port: { value: injector.port } }) as PostgresServer,
    adminPassword: company.adminPassword,
    limits: 'recordingsReserve: 1MiB, hookConnect: 1s, hookStatement: 1s, hookAction: 4s',
    access: otherTarget(target.port)
  })
})
test.after(async () => {
  await house.stop()
  house.clear()
  await injector.stop()
  await target.stop()
})

async function assertRefused(name: string): Promise<void> {
  const startedMs = performance.now()
  const { status, stdout, stderr } = await house.psql("SELECT 'let in'")
  const seconds = (performance.now() - startedMs) / 1000
  assert.is(stdout, '', `${name}: let in`)
  assert.is(status, 2, `${name}: ${stderr}`)
  assert.match(stderr, codes, name)
  assert.ok(seconds < codedSecondsMax, `${name}: heard after ${seconds.toFixed(1)} s`)
}

/** The target behaves again: what it was left with goes, and sessions are possible. */
async function assertRecovers(): Promise<void> {
  await injector.fault({ kind: 'none' })
  await untilGone(target, before, 15)
  // The breaker of a target that failed lets the first one through within its pause.
  for (let attempt = 0; ; attempt++) {
    const { stdout, stderr } = await house.psql("SELECT 'let in'")
    if (stdout === 'let in\n') break
    assert.match(stderr, /target-unreachable/)
    assert.ok(attempt < 20, 'no session is possible any more')
    await new Promise(resolve => setTimeout(resolve, 300))
  }
  await untilGone(target, before, 15)
}

const atCreation = /^CREATE ROLE "jit_/
const faults: [string, Fault][] = [
  ['refuses connections', { kind: 'refuse' }],
  ['accepts connections and hangs', { kind: 'hang' }],
  ['hears everything and says nothing', { kind: 'hang', way: 'to-client' }],
  ['resets connections in the middle of the login', { kind: 'reset', afterBytes: 60 }],
  ['resets connections after some statements', { kind: 'reset', afterBytes: 900 }],
  ['dies before the role is made', { kind: 'drop-request', at: atCreation, then: 'reset' }],
  ['never gets the statement and hangs', { kind: 'drop-request', at: atCreation, then: 'hang' }],
  ['commits and dies before it says so', { kind: 'drop-reply', at: /^COMMIT/, then: 'reset' }],
  ['commits and never says so', { kind: 'drop-reply', at: /^COMMIT/, then: 'hang' }],
  ['answers with five bad bytes', { kind: 'lie', at: atCreation, answer: badBytes, delivered: false }],
  [
    'says that it made the role and did not',
    { kind: 'lie', at: atCreation, answer: falseSuccess, delivered: false }
  ]
]

for (const [name, fault] of faults) {
  test(`a target that ${name} ends in a code, and leaves nothing`, async () => {
    await injector.fault(fault)
    await assertRefused(name)
    if ('at' in fault) assert.ok(injector.hits > 0, 'the fault met nothing')
    await assertRecovers()
  })
}

// The statements of a creation travel together, so all of them were carried out. The answer is lost, and a
// look finds the account with our mark: the person is let in, and it is removed like any other.
const carriedOut: [string, Fault][] = [
  ['dies before it says so', { kind: 'drop-reply', at: atCreation, then: 'reset' }],
  ['answers with five bad bytes', { kind: 'lie', at: atCreation, answer: badBytes, delivered: true }]
]

for (const [name, fault] of carriedOut) {
  test(`a target that makes the role and ${name} is looked at, the account used and gone`, async () => {
    await injector.fault(fault)
    const { stdout, stderr } = await house.psql("SELECT 'let in'")
    assert.is(stdout, 'let in\n', stderr)
    assert.ok(injector.hits > 0, 'the fault met nothing')
    await assertRecovers()
  })
}

test('a target that trickles or is far away is slow, and works', async () => {
  await injector.fault({ kind: 'delay', ms: 20 })
  assert.is((await house.psql("SELECT 'let in'")).stdout, 'let in\n')
  await untilGone(target, before, 20)
  await injector.fault({ kind: 'trickle' }, /^jit_/)
  assert.is((await house.psql("SELECT 'let in'")).stdout, 'let in\n')
  await assertRecovers()
})

test('a target whose server is frozen (SIGSTOP) ends in a code, and is clean soon afterwards', async () => {
  process.kill(target.pid, 'SIGSTOP')
  try {
    await assertRefused('frozen')
  } finally {
    process.kill(target.pid, 'SIGCONT')
  }
  await assertRecovers()
})

test('while one target hangs, sessions on another open and close as always', async () => {
  await injector.fault({ kind: 'hang' })
  const hanging = assertRefused('hanging')
  const startedMs = performance.now()
  for (let turn = 0; turn < 5; turn++) {
    const { stdout, stderr } = await house.psql("SELECT 'let in'", { login: 'alice+other-rw' })
    assert.is(stdout, 'let in\n', stderr)
  }
  assert.ok(performance.now() - startedMs < codedSecondsMax * 1000)
  await hanging
  await assertRecovers()
})

test('a template whose second statement fails lets nobody in, nothing of the first stays (F11)', async () => {
  const template = join(house.folder, 'half.yaml')
  writeFileSync(template, `id: postgres/half
plugin: postgres
action: create
title: Fails half way, in its second transaction
steps:
  - name: make the role
    sql: >-
      CREATE ROLE {{ username | ident }} LOGIN PASSWORD {{ verifier | literal }}
      VALID UNTIL {{ expires_at | literal }} IN ROLE {{ marker_role | ident }}
  - name: in every database
    eachDatabase: true
    sql: GRANT no_such_role TO {{ username | ident }}
`)
  await house.sallyport('templates', 'save', 'postgres/half', template)
  const documents = join(house.folder, 'half-access.yaml')
  writeFileSync(documents, `kind: credential
name: half
target: orders
jit:
  enabled: true
  type: creation-deletion
  useOwnCredential: false
  authenticationCredential: orders-admin
  create: { plugin: postgres, template: postgres/half }
  delete: { plugin: postgres, template: postgres/delete-role }
---
kind: grant
name: half
users: [alice]
credentials: [half]
`)
  await house.sallyport('apply', '-f', documents)
  const { status, stdout, stderr } = await house.psql("SELECT 'let in'", { login: 'alice+half' })
  assert.is(stdout, '')
  assert.is(status, 2)
  assert.match(stderr, /\[hook-failed [0-9a-f]{6}\]/)
  assert.not.match(stderr, /no_such_role/, 'what the target said is for the operator')
  await untilGone(target, before, 15)
})

test('after all of it every account is proved gone, and every refused attempt is on record', async () => {
  const api = apiOf(house)
  await untilProved(api)
  assert.is(await residueOn(target, before), '')
  assert.equal(await faultsOfEvidence(api), [])
  assert.equal((await orphansOf(api)).orphans, [])
})

test.run()
