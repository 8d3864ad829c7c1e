// What happens to a session while its account is still being made: the person goes away, an admin ends it,
// its time is up, the node stops. Whichever it is, nobody gets in, and the account is gone. The creation
// hook is slow here: the role is there at once, and then the hook goes on for seconds.
// deadline: 240 s
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { SessionJson } from '../../src/api/client-types.ts'
import type { PostgresServer } from '../../tool/postgres.ts'
import { programOf } from '../../tool/services.ts'
import { accountsOn, companyDatabase, startHouse, until } from '../peers/house.ts'
import type { House } from '../peers/house.ts'
import { apiOf, sessionsOf } from '../peers/inspector.ts'

const slowTemplate = `id: postgres/slow-role
plugin: postgres
action: create
title: A role, and a while
steps:
  - name: make the role
    sql: >-
      CREATE ROLE {{ username | ident }} LOGIN PASSWORD {{ verifier | literal }}
      VALID UNTIL {{ expires_at | literal }} CONNECTION LIMIT 5 IN ROLE {{ marker_role | ident }}
  - name: take a while
    eachDatabase: true
    sql: SELECT pg_sleep(1.5)
`

const credential = (name: string, maxSession: string): string => `---
kind: credential
name: ${name}
target: orders
jit:
  enabled: true
  type: creation-deletion
  authenticationCredential: orders-admin
  create: { plugin: postgres, template: postgres/slow-role }
  delete: { plugin: postgres, template: postgres/delete-role }
  maxSession: ${maxSession}
`
const access = `${credential('orders-slow', '1h').slice(4)}${credential('orders-brief', '2s')}---
kind: grant
name: devs-on-slow
users: [alice]
credentials: [orders-slow, orders-brief]
`

let target: PostgresServer
let adminPassword: string
let house: House

test.before(async () => {
  ({ server: target, adminPassword } = await companyDatabase('18'))
  house = await startHouse({ target, adminPassword })
  const file = join(house.folder, 'slow-role.yaml')
  writeFileSync(file, slowTemplate)
  await house.sallyport('templates', 'save', 'postgres/slow-role', file)
  writeFileSync(join(house.folder, 'slow.yaml'), access)
  await house.sallyport('apply', '-f', join(house.folder, 'slow.yaml'))
})
test.after(async () => {
  await house.stop()
  house.clear()
  await target.stop()
})

interface Waiting {
  child: ChildProcess
  text(): string
  ended: Promise<number | null>
}

/** A psql whose account has just been made, by a hook that has not come to its end. */
async function midway(login = 'alice+orders-slow'): Promise<Waiting> {
  const words = ['-XAtqc', "SELECT 'inside'", house.connection(login)]
  const child = spawn(programOf('psql'), words, { env: house.environment, stdio: ['ignore', 'pipe', 'pipe'] })
  let text = ''
  child.stdout.on('data', chunk => { text += String(chunk) })
  child.stderr.on('data', chunk => { text += String(chunk) })
  const ended = new Promise<number | null>(resolve => child.once('close', resolve))
  await until(() => accountsOn(target), found => found !== '')
  return { child, text: () => text, ended }
}

const newest = async (): Promise<SessionJson> => (await sessionsOf(apiOf(house)))[0]!

async function assertGone(): Promise<SessionJson> {
  await until(() => accountsOn(target), found => found === '')
  return until(newest, ({ receipt, status }) =>
    receipt?.state === 'proved-gone' && status !== 'live' && status !== 'opening')
}

test('a person who goes away leaves no account, though it is made to its end', async () => {
  const { child } = await midway()
  child.kill('SIGKILL')
  assert.is((await assertGone()).status, 'ended')
})

test('a session that an admin ends meanwhile does not begin', async () => {
  const psql = await midway()
  await house.sallyport('sessions', 'kill', (await newest()).id)
  assert.is(await psql.ended, 2)
  assert.match(psql.text(), /\[session-killed [0-9a-f]{6}\]/)
  assert.not.match(psql.text(), /inside/)
  assert.match((await assertGone()).reason ?? '', /^session-killed/)
})

test('a session whose time is up meanwhile does not begin', async () => {
  const psql = await midway('alice+orders-brief')
  assert.is(await psql.ended, 2)
  assert.match(psql.text(), /\[(session-expired|lease-lost) [0-9a-f]{6}\]/)
  assert.not.match(psql.text(), /inside/)
  await assertGone()
})

test('a node that stops meanwhile takes the account back first', async () => {
  const psql = await midway()
  assert.is(await house.stop(), 0)
  assert.is(await accountsOn(target), '')
  assert.is(await psql.ended, 2)
  assert.not.match(psql.text(), /inside/)
})

test('a node that is killed meanwhile takes it back when it starts again (F3)', async () => {
  house = await startHouse({ target, adminPassword, folder: house.folder })
  const psql = await midway()
  await house.kill()
  await psql.ended
  assert.is.not(await accountsOn(target), '')
  house = await startHouse({ target, adminPassword, folder: house.folder })
  await assertGone()
})

test.run()
