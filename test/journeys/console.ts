// deadline: 240 s
// An admin's and an auditor's way through the web console, in a real browser against the whole product: log
// in, find a session that stock psql or ssh made, see what was done in it, end one, read the receipt. What
// people and targets typed stays text, whatever it is, and no page breaks its own policy.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Page } from 'playwright-core'
import { authenticator } from '../peers/authenticator.ts'
import { credentialJourneys } from '../peers/console-credentials.ts'
import { excessOf, violationsOn } from '../peers/console-look.ts'
import { pageJourneys } from '../peers/console-pages.ts'
import { logIn, open, pagesDeclared, startConsoleWorld, textWith } from '../peers/console-world.ts'
import type { ConsoleWorld, Visitor } from '../peers/console-world.ts'
import { faintTexts } from '../peers/contrast.ts'
import { accountsOn, alicePassword, until } from '../peers/house.ts'
import { openPsql } from '../peers/psql.ts'
import type { Psql } from '../peers/psql.ts'

let world: ConsoleWorld
let ada: Visitor
/** Of the sessions that `before` makes. */
let hostile: string
let failing: string
/** Stays connected until it is ended from the console. */
let live: Psql | undefined
let terminal: string

const markup = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
const turned = '\u202egnirts'

interface Shown {
  id: string
  protocol: string
  status: string
  receipt: { state: string } | null
}

test.before(async () => {
  world = await startConsoleWorld(pagesDeclared)
  const printed = "printf 'one\\n'; sleep 1; printf '\\033]0;title\\007two <b>bold</b>\\n'; sleep 1"
  const overSsh = world.ssh(printed)
  await world.psql(`SELECT 'needle', '${markup}', '${turned}', E'\\x1b[2J'; CREATE TABLE left_behind (a int)`)
  await world.psql('SELECT 1/0')
  await overSsh
  const sessions = await until(() => world.json<Shown[]>('sessions', 'list'), list => list.length === 3
    && list.every(({ protocol, receipt }) => protocol === 'ssh' || receipt?.state === 'proved-gone'))
  failing = sessions.find(({ protocol }) => protocol === 'postgres')!.id
  hostile = sessions.findLast(({ protocol }) => protocol === 'postgres')!.id
  terminal = sessions.find(({ protocol }) => protocol === 'ssh')!.id
  ada = await world.visitAs('ada')
})
test.after(async () => {
  live?.child.kill()
  await world.end()
})

test('a wrong password is a sentence with a code and a reference', async () => {
  const { page } = await world.visit()
  await page.getByLabel('Name').fill('ada')
  await page.getByLabel('Password').fill('wrong')
  await page.getByRole('button', { name: 'Log in' }).click()
  const alert = await page.getByRole('alert').innerText()
  assert.match(alert, /^Authentication failed\.\s*auth-failed [0-9a-f]{6}\s*$/)
  assert.equal(await page.context().cookies(), [])
})

test('the one-time token of the first start opens the console, once', async () => {
  const token = /sally_[\w-]{43}/.exec(world.log())![0]
  const redeem = async (): Promise<Page> => {
    const { page } = await world.visit()
    await page.getByText('First start').click()
    await page.getByLabel('Token that').fill(token)
    await page.getByRole('button', { name: 'Begin' }).click()
    return page
  }
  await (await redeem()).getByText('first-admin').waitFor()
  assert.match(await (await redeem()).getByRole('alert').innerText(), /auth-failed [0-9a-f]{6}/)
})

test('a one-time code is asked for when it is needed, and logging out ends the cookie', async () => {
  const app = authenticator((await world.sallyport('users', 'enrol', 'otto')).trim())
  await world.sallyport('users', 'confirm', 'otto', await app.next())
  const { page, context } = await world.visit()
  await page.getByLabel('Name').fill('otto')
  await page.getByLabel('Password').fill(alicePassword)
  assert.is(await page.getByLabel('One-time code').count(), 0)
  await page.getByRole('button', { name: 'Log in' }).click()
  await page.getByLabel('One-time code').fill(await app.next())
  await page.keyboard.press('Enter')
  await page.getByRole('button', { name: 'Log out' }).waitFor()
  const [cookie] = await context.cookies()
  assert.equal([cookie?.name, cookie?.httpOnly, cookie?.secure, cookie?.sameSite],
    ['__Host-sallyport', true, true, 'Strict'])
  assert.is(await page.evaluate('document.cookie'), '')
  await page.getByRole('button', { name: 'Log out' }).click()
  await page.getByLabel('Password').waitFor()
  assert.equal(await context.cookies(), [])
})

test('a session is found by its status and its words, and the hit leads to its moment', async () => {
  const { page } = ada
  await open(world, page, '/console/sessions')
  await page.getByLabel('Status').selectOption('ended')
  await page.getByRole('button', { name: 'Show' }).click()
  await page.waitForURL(/status=ended/)
  await until(() => page.getByRole('link', { name: 'Replay' }).count(), count => count === 3, 10)
  await page.getByLabel('Statements and output that contain').fill('needle')
  await page.getByRole('button', { name: 'Search' }).click()
  await page.getByRole('table', { name: 'Places' }).getByRole('link').first().click()
  await page.waitForURL(new RegExp(`/console/sessions/${hostile}#at=`))
  const current = page.getByRole('list', { name: 'Statements' }).locator('[aria-current=true]')
  assert.match(await current.innerText(), /needle/)
})

test('what somebody typed is text: markup, turned directions, escape sequences (R19, R20)', async () => {
  const { page } = ada
  await open(world, page, `/console/sessions/${hostile}#replay`)
  const text = await textWith(page, /client-closed[^]*End of the recording/)
  assert.ok(text.includes(markup))
  assert.ok(text.includes('\\u202egnirts'), text)
  assert.not.ok(text.includes('\u202e'))
  assert.is(await page.getByRole('main').locator('img, script').count(), 0)
  assert.is(await page.title(), 'Session · Sallyport')
  assert.match(text, /SELECT 1, 1 row, \d+ bytes/)
})

test('an error of the target stands with its statement', async () => {
  const { page } = ada
  await open(world, page, `/console/sessions/${failing}#replay`)
  assert.match(await textWith(page, /22012/), /SELECT 1\/0\s+ERROR 22012 division by zero/)
})

test('a terminal is replayed, and a jump shows the screen of that moment', async () => {
  const { page } = ada
  await open(world, page, `/console/sessions/${terminal}#at=0.9`)
  const screen = page.getByLabel('Terminal', { exact: true })
  const early = await until(() => screen.innerText(), text => /one/.test(text), 10)
  assert.not.match(early, /two/)
  await open(world, page, '/console/')
  await open(world, page, `/console/sessions/${terminal}#at=1.9`)
  await until(() => screen.innerText(), text => /two <b>bold<\/b>/.test(text), 10)
  await page.getByLabel('Moment').press('Home')
  await until(() => screen.innerText(), text => !/one/.test(text), 10)
  await page.getByRole('button', { name: 'Play' }).click()
  await until(() => screen.innerText(), text => /two <b>/.test(text), 10)
  await page.getByRole('button', { name: 'Commands, files' }).click()
  const events = page.getByRole('list', { name: 'Events' })
  assert.match(await events.innerText(), /exec printf 'one/)
  assert.is(await page.title(), 'Session · Sallyport')
})

test('the recording verifies, and the receipt says who, when, what was left, and who signed', async () => {
  const { page } = ada
  await open(world, page, `/console/sessions/${hostile}`)
  await page.getByRole('button', { name: 'Verify chain and seal' }).click()
  assert.match(await textWith(page, /frames/), /sealed\s+\d+ frames/)
  await page.getByRole('link', { name: 'proved-gone' }).click()
  const text = await textWith(page, /Ed25519/)
  const { signature, keyId } = await world.json<{ signature: string, keyId: string }>(
    'sessions', 'receipt', hostile)
  for (const part of ['alice', 'jit_', 'public.left_behind', 'reassigned', signature, keyId]) {
    assert.ok(text.includes(part), part)
  }
})

test('a live session is watched, a cut line comes back, and an admin ends it', async () => {
  const { page } = ada
  const psql = live = await openPsql(world)
  const { id } = (await world.json<Shown[]>('sessions', 'list')).find(({ status }) => status === 'live')!
  // The first answer is cut after one line; no server can be asked to do that.
  const first = { kind: 'text', atMs: 1, text: "orders=> SELECT 'rea' || 'dy';\r\n" }
  let asked = 0
  await page.route('**/watch?*', async route => asked++ === 0
    ? route.fulfill({ contentType: 'application/x-ndjson', body: `${JSON.stringify(first)}\n` })
    : route.continue())
  await open(world, page, `/console/sessions/${id}#watch`)
  await page.getByText('The line is cut').waitFor()
  psql.type("SELECT 'after the cut';")
  const lane = page.getByRole('list', { name: 'Live statements' })
  const seen = await until(() => lane.innerText(), text => text.includes('after the cut'), 10)
  assert.is(seen.split("SELECT 'rea'").length, 2, 'what was shown before is not shown again')
  assert.is(asked, 2)
  await page.getByRole('button', { name: 'End session' }).click()
  await page.getByRole('button', { name: 'End it at once' }).click()
  await page.getByText('The session has ended.').waitFor()
  await until(() => accountsOn(world.target), found => found === '')
  psql.type('SELECT 1;')
  await psql.leave()
  assert.match(psql.text(), /ended by an administrator \[session-killed/)
  await until(() => page.getByRole('main').innerText(), text => /Reason\s+session-killed/.test(text), 10)
})

test('a live terminal is seen as it is, and ends where it is watched', async () => {
  const { page } = ada
  const session = world.ssh("printf 'live one\\n'; sleep 20; printf 'never'")
  const [newest] = await until(() => world.json<Shown[]>('sessions', 'list'),
    list => list[0]?.status === 'live')
  await open(world, page, `/console/sessions/${newest!.id}#watch`)
  await until(() => page.getByLabel('Live terminal').innerText(), text => text.includes('live one'), 10)
  await page.getByRole('button', { name: 'End session' }).click()
  await page.getByRole('button', { name: 'End it at once' }).click()
  await page.getByText('The session has ended.').waitFor()
  assert.not.match((await session).stdout, /never/)
})

test('another site’s page gets nothing with the cookie (R19)', async () => {
  const { page, context } = ada
  const cookie = (await context.cookies()).map(({ name, value }) => `${name}=${value}`).join('; ')
  const answers = []
  for (const origin of ['https://evil.test', 'null']) {
    const answer = await page.request.post(`${world.url}/api/v1/sessions/${hostile}/kill`,
      { headers: { origin, cookie } })
    answers.push([answer.status(), (await answer.json() as { error: { code: string } }).error.code])
  }
  assert.equal(answers, [[403, 'not-allowed'], [403, 'not-allowed']])
})

credentialJourneys(() => ({ world, page: ada.page }))
pageJourneys(() => ({ world, page: ada.page }))

// Promised: R19.
test('every page fits any screen, is for everybody in light and dark, and keeps its policy', async () => {
  const { page, complaints } = ada
  await page.setViewportSize({ width: 360, height: 740 })
  const [lease] = await world.json<{ id: string }[]>('leases', 'list')
  const pages = [
    '/', '/sessions', `/sessions/${hostile}#replay`, `/sessions/${hostile}/receipt`, '/search?query=needle',
    '/leases', `/leases/${lease!.id}`, '/access', '/access/grant', '/access/profile',
    '/access/grant/asks-first', '/access/new/target', '/access/credential/orders-rw',
    '/access/credential/orders-rw/jit', '/access/credential/orders-standing/try', '/access/new/credential',
    '/requests', '/secrets', '/secrets/prod/orders', '/targets', '/targets/orphans',
    '/templates', '/templates/postgres/create-role', '/audit', '/nothing'
  ]
  for (const path of pages) {
    await open(world, page, `/console${path}`)
    await until(() => page.getByText('Loading …').count(), count => count === 0, 10)
    for (const [width, height] of [[3840, 2160], [360, 740]] as const) {
      await page.setViewportSize({ width, height })
      assert.is(await excessOf(page), 0, `${path} is wider than ${width}`)
    }
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme })
      const found = await violationsOn(page, colorScheme === 'dark' ? 'color-contrast' : undefined)
      assert.equal(found, [], `${path} ${colorScheme}`)
      assert.equal(await page.evaluate(faintTexts), [], `${path} ${colorScheme}`)
    }
    const refused = await page.getByRole('alert').allInnerTexts()
    assert.equal(refused, [], path)
  }
  // A stranger's first question, who they are, and a form that is not right yet are answered so.
  assert.equal(complaints.filter(text => !/status of 40[01]/.test(text)), [])
})

test('the first page ends in lines that work, for an admin and for whoever may connect', async () => {
  const { page } = ada
  await open(world, page, '/console/')
  const text = await textWith(page, /psql 'host/)
  const line = /psql 'host=127\.0\.0\.1 port=\d+ user=(\S+) /.exec(text)!
  assert.is((await world.psql('SELECT 1', { login: line[1]! })).stdout, '1\n')
  const { page: hers } = await world.visit()
  await logIn(hers, 'alice')
  assert.match(await textWith(hers, /ssh -p/), /ssh -p \d+ alice\+web01-admin@web01@127\.0\.0\.1/)
  assert.is(await hers.getByRole('link', { name: 'Audit' }).count(), 0)
})

test.run()
