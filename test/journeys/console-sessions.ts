// deadline: 240 s
// Sessions in the browser, as people have them: a shell on a real sshd and statements on a real PostgreSQL,
// in a page of the console, recorded and proved gone as every other session. A page opens nothing by itself,
// and a line that is cut has ended what it carried.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Locator, Page } from 'playwright-core'
import type { SessionJson } from '../../src/api/client-types.ts'
import { startConsoleWorld } from '../peers/console-world.ts'
import type { ConsoleWorld, Visitor } from '../peers/console-world.ts'
import { faintTexts } from '../peers/contrast.ts'
import { accountsOn, until } from '../peers/house.ts'
import { jitCredential } from '../peers/ssh-house.ts'

// Run in the page.
const colourOfRed = `getComputedStyle([...document.querySelectorAll('.xterm-rows span')]
  .find(({ textContent }) => textContent === 'red')).color`
const pasteTwoLines = `(() => {
  const clipboardData = new DataTransfer()
  clipboardData.setData('text/plain', 'echo one\\x1b[201~\\necho two\\n')
  const paste = new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true })
  document.querySelector('.xterm textarea').dispatchEvent(paste)
})()`

let world: ConsoleWorld
let alice: Visitor
let page: Page
/** The shell that the first test made. */
let first: SessionJson

const grant = (name: string, credential: string, more: string): string => `---
kind: grant
name: ${name}
users: [alice]
credentials: [${credential}]
${more}
`
const access = ['shell', 'mute', 'guarded'].map(name => jitCredential(name)).join('')
  + grant('shells', 'shell', '') + grant('mutes', 'mute', 'channels: [exec]')
  + grant('guardeds', 'guarded', 'approval: { by: [ada], validFor: 1h, waitFor: 60s }')

test.before(async () => {
  world = await startConsoleWorld(access)
  alice = await world.visitAs('alice')
  page = alice.page
  page.on('dialog', dialog => void dialog.accept())
})
test.after(async () => { await world.end() })

async function open(path: string, of = page): Promise<void> {
  await of.goto(`${world.url}/console/${path}`)
  await of.getByRole('main').getByRole('heading', { level: 1 }).waitFor()
}

async function newest(): Promise<SessionJson> {
  const [session] = await world.json<SessionJson[]>('sessions', 'list')
  return session!
}

/** The text of the screen when it has come to contain this. */
async function shows(what: RegExp, screen: Locator = page.locator('.xterm-rows')): Promise<string> {
  return until(() => screen.innerText(), text => what.test(text), 20)
}

/** Fits a telephone and can be read, as it is now. */
async function isLegible(): Promise<void> {
  await page.setViewportSize({ width: 360, height: 740 })
  await page.waitForTimeout(300)
  assert.is(await page.evaluate('document.documentElement.scrollWidth - innerWidth'), 0, 'its width')
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme })
    assert.equal(await page.evaluate(faintTexts), [], colorScheme)
  }
  await page.setViewportSize({ width: 1280, height: 800 })
}

async function openShell(): Promise<void> {
  await open('connect/ssh/shell/web01')
  await page.getByRole('button', { name: 'Open shell' }).click()
  await shows(/jit_\d+@\S+:~\$/)
}

test('a shell in the browser has an account of its own, which is proved gone when it ends', async () => {
  await open('')
  const link = page.locator('a[href="/console/connect/ssh/shell/web01"]')
  await link.click()
  await page.getByRole('button', { name: 'Open shell' }).waitFor()
  assert.equal(await world.json('sessions', 'list'), [], 'an address opens nothing')
  await page.getByRole('button', { name: 'Open shell' }).click()
  await shows(/jit_\d+@\S+:~\$/)
  await page.keyboard.type(`id; printf '\\e[38;2;250;200;10mred\\e[0m\\n'; echo grün 漢字; stty size\r`)
  const text = await shows(/\n\d+ \d+\s/)
  first = await newest()
  assert.match(text, new RegExp(`uid=\\d+\\(${first.account!.name}\\)`))
  assert.match(text, /\ngrün 漢字/)
  assert.is(await page.evaluate(colourOfRed), 'rgb(250, 200, 10)')
  assert.equal([first.status, first.protocol, first.client], ['live', 'ssh', 'web'])
  await isLegible()
  await page.setViewportSize({ width: 800, height: 600 })
  await page.waitForTimeout(300)
  await page.keyboard.type('clear; stty size\r')
  const wide = Number(/\n\d+ (\d+)\s/.exec(text)![1])
  await until(() => page.locator('.xterm-rows').innerText(),
    now => Number(/^\d+ (\d+)\s/m.exec(now)?.[1]) < wide, 10)
  await page.setViewportSize({ width: 1280, height: 800 })
  // Twice what a target may send before the page has said that it was shown.
  await page.keyboard.type("clear; seq 1 100000; echo do''ne\r")
  await shows(/\n100000\s+done/)
  await page.keyboard.type('exit\r')
  await page.getByText('proved-gone').waitFor()
  assert.match(await world.sallyport('sessions', 'list'), /ssh web/)
})

// Promised: R20.
test('what a target writes reaches neither clipboard nor links, and a paste stays a paste', async () => {
  await openShell()
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write'])
  await page.evaluate("navigator.clipboard.writeText('mine')")
  const link = '\\e]8;;https://evil.test\\alink\\e]8;;\\a\\n'
  await page.keyboard.type(`printf '\\e]52;c;%s\\a${link}' $(echo evil | base64)\r`)
  await shows(/\nlink/)
  assert.is(await page.evaluate('navigator.clipboard.readText()'), 'mine')
  assert.is(await page.locator('.xterm a').count(), 0)
  await page.keyboard.type('bind "set enable-bracketed-paste on"; clear\r')
  await page.waitForTimeout(300)
  await page.evaluate(pasteTwoLines)
  const text = await shows(/echo two/)
  assert.not.match(text, /^(one|two)\s*$/m, 'nothing was carried out')
  await page.keyboard.press('Shift+Escape')
  assert.is(await page.evaluate('document.activeElement.textContent'), 'End session')
  await page.keyboard.press('Enter')
  await page.getByText('proved-gone').waitFor()
})

test('an auditor replays it, and an admin watches and ends the next one', async () => {
  const ada = (await world.visitAs('ada')).page
  await open(`sessions/${first.id}#at=1.5`, ada)
  await until(() => ada.getByLabel('Terminal', { exact: true }).innerText(), text => /uid=/.test(text), 10)
  await openShell()
  const { id } = await newest()
  await open(`sessions/${id}#watch`, ada)
  await page.keyboard.type('echo seen by ada\r')
  await until(() => ada.getByLabel('Live terminal').innerText(), text => /\nseen by ada/.test(text), 10)
  await ada.getByRole('button', { name: 'End session' }).click()
  await ada.getByRole('button', { name: 'End it at once' }).click()
  assert.match(await page.getByRole('alert').innerText(),
    /^the session was ended by an administrator \[session-killed [0-9a-f]{6}\]$/)
  await page.getByText('proved-gone').waitFor()
})

test('a reload ends the session and begins none; the grant’s channels and approvals count here', async () => {
  await openShell()
  const { id } = await newest()
  await page.reload()
  await page.getByRole('button', { name: 'Open shell' }).waitFor()
  await until(() => world.json<SessionJson>('sessions', 'show', id), ({ receipt }) =>
    receipt?.state === 'proved-gone')
  await open('connect/ssh/mute/web01')
  await page.getByRole('button', { name: 'Open shell' }).click()
  assert.match(await page.getByRole('alert').innerText(), /^access denied \[not-allowed [0-9a-f]{6}\]$/)
  await open('connect/ssh/guarded/web01')
  await page.getByRole('button', { name: 'Open shell' }).click()
  await page.getByRole('list', { name: 'Notices' }).getByText(/request .* needs one approval/).waitFor()
})

test('statements: rows some at a time, an error at its place, cancel, a transaction, no COPY', async () => {
  await open('connect/postgres/orders-rw/orders')
  await page.getByRole('button', { name: 'Open SQL session' }).click()
  const field = page.getByRole('textbox', { name: 'Statement' })
  const newestAnswer = page.getByLabel('Answer').first()
  const run = async (sql: string, what: RegExp): Promise<string> => {
    await field.fill(sql)
    await page.keyboard.press('Control+Enter')
    return until(() => newestAnswer.innerText(), text => text.startsWith(sql) && what.test(text), 10)
  }
  await run('SELECT n, NULL AS nothing FROM generate_series(1, 150) n', /100 rows/)
  await page.getByRole('button', { name: 'More rows' }).click()
  assert.match(await until(() => newestAnswer.innerText(), text => /150 rows/.test(text), 10), /150\s+NULL/)
  await run("SELECT 'ü', nothing FROM orders", /42703/)
  assert.is(await page.locator('mark').innerText(), 'nothing')
  await run('BEGIN', /BEGIN/)
  const state = page.getByLabel('Transaction')
  await until(() => state.innerText(), text => text === 'in a transaction', 5)
  await run('SELECT 1/0', /22012/)
  await until(() => state.innerText(), text => /failed/.test(text), 5)
  await run('ROLLBACK', /ROLLBACK/)
  await run('COPY orders TO STDOUT', /COPY moves files/)
  await run("DO $$ BEGIN RAISE NOTICE 'from <b>there</b>'; END $$", /NOTICE: from <b>there<\/b>[^]*DO/)
  await field.fill('SELECT pg_sleep(60)')
  await page.getByRole('button', { name: 'Run' }).click()
  await newestAnswer.getByText('Runs …').waitFor()
  await page.waitForTimeout(200)
  await page.getByRole('button', { name: 'Cancel' }).click()
  await page.getByText('57014').waitFor()
  const { id, client } = await newest()
  assert.is(client, 'web')
  await isLegible()
  await page.getByRole('button', { name: 'End session' }).click()
  await page.getByText('proved-gone').waitFor()
  assert.is(await accountsOn(world.target), '')
  const recorded = await world.sallyport('sessions', 'replay', id)
  for (const sql of ['generate_series(1, 150)', 'ROLLBACK', 'pg_sleep']) {
    assert.ok(recorded.includes(sql), sql)
  }
  // A stranger's first question, who they are, is answered so; nothing broke the policy of its page.
  assert.equal(alice.complaints.filter(text => !text.includes('status of 401')), [])
})

test.run()
