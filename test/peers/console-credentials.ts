// Part of the console's journey (journeys/console.ts): an admin sets up JIT for a credential in the browser,
// sees what is wrong at its field and what would change, saves, plans, and proves it on the target.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Page } from 'playwright-core'
import { logIn, open, textWith } from './console-world.ts'
import type { ConsoleWorld } from './console-world.ts'
import { accountsOn, until } from './house.ts'

export interface Stage {
  world: ConsoleWorld
  /** An admin's. */
  page: Page
}

const documentIn = ({ world }: Stage, name: string): Promise<{ jit?: Record<string, unknown> }> =>
  world.json('get', 'credential', name)

export function credentialJourneys(stage: () => Stage): void {
  test('a type has its own fields, and a list offers only what fits its plugin and action', async () => {
    const { world, page } = stage()
    await open(world, page, '/console/access/credential/orders-rw/jit')
    await page.getByLabel('Creation: template').waitFor()
    const templates = (label: string): Promise<string[]> =>
      page.getByLabel(label).locator('option').allInnerTexts()
    assert.equal(await templates('Creation: template'),
      ['choose …', 'postgres/create-role', 'postgres/create-role-with-grant'])
    assert.is(await page.getByLabel('Switching on: template').count(), 0)
    await page.getByLabel('enable-disable').check()
    assert.is(await page.getByLabel('Creation: template').count(), 0)
    await page.getByLabel('Switching on: plugin').selectOption('postgres')
    const [, ...offered] = await templates('Switching on: template')
    assert.equal(offered.sort(), ['postgres/enable-role', 'postgres/grant-role'])
    assert.is(await page.getByLabel('Switching off: plugin').inputValue(), 'postgres', 'the pair follows')
    await page.getByLabel('creation-deletion').check()
    await page.getByText('Nothing to save').waitFor()
  })

  test('what is wrong stands at its field with its code, and nothing can be saved', async () => {
    const { world, page } = stage()
    await open(world, page, '/console/access/credential/orders-standing/jit')
    const own = page.getByLabel('Use own credential to connect')
    await own.check()
    const refused = await textWith(page, /cannot enable/)
    assert.match(refused, /Plugin "postgres" cannot enable an account as that account\.\s+invalid/)
    assert.is(await own.getAttribute('aria-invalid'), 'true')
    await own.uncheck()
    await page.getByLabel('Longest session').fill('<img src=x>')
    assert.match(await textWith(page, /Expected a duration/), /not "<img src=x>"\.\s+invalid/)
    assert.is(await page.getByRole('button', { name: 'Save' }).isDisabled(), true)
    assert.is(await page.getByRole('main').locator('img').count(), 0)
  })

  test('the change is shown before it is saved, and only the keyboard is needed', async () => {
    const { world, page } = stage()
    await open(world, page, '/console/access/credential/orders-rw/jit')
    await page.getByLabel('Longest session').focus()
    await page.keyboard.press('Control+A')
    await page.keyboard.type('2h')
    const row = page.getByRole('table', { name: 'Changes' }).getByRole('row').last()
    await row.waitFor()
    assert.match(await row.innerText(), /jit\.maxSession\s+8h\s+2h/)
    assert.is((await documentIn(stage(), 'orders-rw')).jit?.['maxSession'], '8h', 'a dry run stores nothing')
    for (let presses = 0; presses < 5; presses++) {
      await page.keyboard.press('Tab')
      if (await page.evaluate('document.activeElement.textContent.trim()') === 'Save') break
    }
    await page.keyboard.press('Enter')
    await page.getByText('Version 2').waitFor()
    assert.is((await documentIn(stage(), 'orders-rw')).jit?.['maxSession'], '2h')
  })

  test('a plan masks secrets; a proof runs on the target and is told while it runs', async () => {
    const { world, page } = stage()
    await open(world, page, '/console/access/credential/orders-rw/try')
    assert.match(await textWith(page, /drop the role/), /PASSWORD '\*{8}'/)
    await page.getByRole('button', { name: 'Prove' }).click()
    await page.getByRole('button', { name: 'Run it on the target' }).click()
    await page.getByText('Proved: nothing remained.').waitFor()
    const steps = await page.getByRole('list', { name: 'Steps' }).getByRole('listitem').allInnerTexts()
    assert.is(steps.length, 6)
    assert.ok(steps.every(text => text.startsWith('ok')), steps.join('\n'))
    assert.is(await until(() => accountsOn(world.target), found => found === ''), '')
  })

  test('a new credential is made with its JIT settings, and an auditor only reads them', async () => {
    const { world, page } = stage()
    await open(world, page, '/console/access/new/credential')
    await page.getByLabel('Name', { exact: true }).fill('orders-new')
    await page.getByLabel('Target', { exact: true }).selectOption('orders')
    await page.getByLabel('JIT is enabled').check()
    await page.getByLabel('Creation: plugin').selectOption('postgres')
    await page.getByLabel('Creation: template').selectOption('postgres/create-role')
    await page.getByLabel('Authentication credential').selectOption('orders-admin')
    await page.getByText('It would be created').waitFor()
    await page.getByRole('button', { name: 'Save' }).click()
    await page.waitForURL('**/credential/orders-new/jit')
    assert.equal((await documentIn(stage(), 'orders-new')).jit?.['delete'],
      { plugin: 'postgres', template: 'postgres/delete-role' })
    const { page: his } = await world.visit()
    await logIn(his, 'oscar')
    await open(world, his, '/console/access/credential/orders-new/jit')
    await his.getByText('Only admins change this.').waitFor()
    assert.is(await his.getByLabel('Creation: plugin').isDisabled(), true)
    assert.is(await his.getByRole('button', { name: 'Save' }).count(), 0)
  })
}
