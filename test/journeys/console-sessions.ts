// deadline: 240 s
// Sessions in the browser, as people have them: a shell on a real sshd and statements on a real PostgreSQL,
// in a page of the console, recorded and proved gone as every other session. A page opens nothing by itself,
// and a line that is cut has ended what it carried.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Page } from 'playwright-core'
import type { SessionJson } from '../../src/api/client-types.ts'
import { startConsoleWorld } from '../peers/console-world.ts'
import type { ConsoleWorld, Visitor } from '../peers/console-world.ts'
import { accountsOn, until } from '../peers/house.ts'
import { jitCredential } from '../peers/ssh-house.ts'

let world: ConsoleWorld
let alice: Visitor

const access = `${jitCredential('shell')}${jitCredential('no-shell')}---
kind: grant
name: alice-shells
users: [alice]
credentials: [shell]
---
kind: grant
name: alice-no-shells
users: [alice]
credentials: [no-shell]
channels: [exec]
`

test.before(async () => {
  world = await startConsoleWorld(access)
  alice = await world.visitAs('alice')
})
test.after(async () => {
  await world.end()
})

async function open(page: Page, path: string): Promise<void> {
  await page.goto(`${world.url}/console/${path}`)
  await page.getByRole('main').getByRole('heading', { level: 1 }).waitFor()
}

async function newest(): Promise<SessionJson> {
  const [session] = await world.json<SessionJson[]>('sessions', 'list')
  return session!
}

test('a shell in the browser has an account of its own, which is proved gone when it ends', async () => {
  const { page } = alice
  await open(page, '')
  await page.getByText('alice with shell on web01').waitFor()
  await page.locator('a[href="/console/connect/ssh/shell/web01"]').click()
  await page.waitForURL(/connect\/ssh\/shell\/web01/)
  await page.getByRole('button', { name: 'Open shell' }).click()
  const screen = page.locator('.xterm-rows')
  await until(() => screen.innerText(), text => /[$#]/.test(text), 20)
  await page.keyboard.type('id; echo grün 漢字; stty size\r')
  const text = await until(() => screen.innerText(), shown => /\n\d+ \d+\s/.test(shown), 20)
  console.log(text)
  await page.screenshot({ path: '/tmp/webterm-shell.png' })
  await page.keyboard.type('exit\r')
  await page.getByText('proved-gone').waitFor()
  await page.screenshot({ path: '/tmp/webterm-shell-over.png' })
  console.log(JSON.stringify(await newest()), alice.complaints)
})

test('statements in the browser', async () => {
  const { page } = alice
  await open(page, 'connect/postgres/orders-rw/orders')
  await page.getByRole('button', { name: 'Open SQL session' }).click()
  await page.getByLabel('Statement', { exact: true }).fill('SELECT * FROM orders ORDER BY id')
  await page.getByRole('button', { name: 'Run' }).click()
  await page.getByText('customer 42').waitFor()
  await page.screenshot({ path: '/tmp/webterm-sql.png' })
  console.log(await page.getByRole('main').innerText())
  console.log(alice.complaints, await accountsOn(world.target))
})

test.run()
