// Part of the console's journey (journeys/console.ts): templates with their versions, grants, requests and
// who decides on them, targets and orphans, secrets whose values are seen once.
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Locator } from 'playwright-core'
import type { Stage } from './console-credentials.ts'
import { logIn, open, textWith } from './console-world.ts'
import { accountsOn, until } from './house.ts'
import { apiOf } from './inspector.ts'

export function pageJourneys(stage: () => Stage): void {
  test('a template is linted while it is typed, saved as a version, and versions are compared', async () => {
    const { world, page } = stage()
    await open(world, page, '/console/templates/mysql/create-user')
    const area = page.getByLabel('Text', { exact: true })
    const body = await area.inputValue()
    await area.fill(body.replace('action: create', 'action: destroy'))
    await page.getByLabel('Lint').getByText('broken').waitFor()
    const line = await page.getByRole('button', { name: /^line / }).first().innerText()
    await page.getByRole('button', { name: line }).first().click()
    const marked = await page.evaluate(
      'document.activeElement.value.slice(document.activeElement.selectionStart, '
      + 'document.activeElement.selectionEnd)')
    assert.is(marked, 'action: destroy')
    const save = page.getByRole('button', { name: 'Save a new version' })
    assert.is(await save.isDisabled(), true)
    await area.fill(body.replace(/^title: .*$/m, 'title: <b>mine</b>'))
    await page.getByLabel('Lint').getByText('valid').waitFor()
    await save.click()
    await page.getByRole('row', { name: /^2\s+ada/ }).waitFor()
    await page.getByRole('link', { name: 'Compare' }).click()
    const difference = page.getByLabel('Difference', { exact: true })
    assert.match(await difference.locator('ins').innerText(), /^\+ title: <b>mine<\/b>$/)
    assert.is(await difference.locator('del').count(), 1)
  })

  test('a request says who, what, why and until when, and an approver decides on it', async () => {
    const { world, page } = stage()
    const { page: hers } = await world.visit()
    await logIn(hers, 'alice')
    await open(world, hers, '/console/requests')
    await hers.getByText('Ask for access').click()
    await hers.getByLabel('Credential').fill('nothing')
    await hers.getByRole('button', { name: 'Ask', exact: true }).click()
    await hers.getByRole('alert').first().waitFor()
    await hers.getByLabel('Credential').fill('orders-standing')
    await hers.getByLabel('Why').fill('<b>month end</b>')
    await hers.getByLabel('For how long').fill('1h')
    await hers.getByRole('button', { name: 'Ask', exact: true }).click()
    await hers.waitForURL('**/console/requests/*')
    await hers.getByText('Nobody has decided yet.').waitFor()
    assert.is(await hers.getByRole('button', { name: 'Approve' }).count(), 0)
    await page.goto(hers.url())
    const text = await textWith(page, /Your reason/)
    assert.match(text, /alice asks for orders-standing for 1 h 00 min/)
    assert.ok(text.includes('<b>month end</b>'))
    await page.getByLabel('Your reason').fill('as agreed')
    await page.getByRole('button', { name: 'Approve' }).click()
    await page.getByRole('row', { name: /ada\s+approve\s+as agreed/ }).waitFor()
    assert.match(await textWith(hers, /Withdraw[^]*as agreed/), /approved/, 'her page has heard of it')
    await page.getByRole('button', { name: 'Withdraw' }).click()
    assert.match(await textWith(page, /withdrawn/), /withdraw/)
  })

  test('a grant is changed with the change in view; what the form does not show stays', async () => {
    const { world, page } = stage()
    await open(world, page, '/console/access/grant/asks-first')
    await page.getByLabel('Approvers').fill('ada, oscar, nobody')
    const refused = await textWith(page, /There is no user/)
    assert.match(refused, /There is no user "nobody"\.\s+invalid/)
    await page.getByLabel('Approvers').fill('ada, oscar')
    await page.getByLabel('Longest session').fill('90m')
    await page.getByRole('table', { name: 'Changes' }).getByText('maxSession').waitFor()
    await page.getByRole('button', { name: 'Save' }).click()
    await page.getByText('Version 2').waitFor()
    const { maxSession, approval } = await world.json<{ maxSession: string, approval: { by: string[] } }>(
      'get', 'grant', 'asks-first')
    assert.equal([maxSession, approval.by], ['90m', ['ada', 'oscar']])
  })

  test('values of a secret are seen once; its lease is prolonged and ended', async () => {
    const { world, page } = stage()
    await open(world, page, '/console/secrets')
    const row = page.getByRole('row', { name: /prod\/orders/ })
    assert.ok((await row.innerText()).includes('<img src=x onerror=alert(1)> \\u202egnirts'))
    await row.getByRole('link').click()
    await page.getByLabel('Lifetime').fill('2m')
    await page.getByRole('button', { name: 'Generate' }).click()
    const shown = page.getByRole('region', { name: 'Values' })
    await shown.waitFor()
    assert.match(await shown.getByRole('timer').innerText(), /^in 1 min 5\d s$|^in 2 min/)
    const password = page.getByRole('button', { name: 'Show password' })
    assert.match(await shown.innerText(), /•{8}/)
    await password.click()
    assert.not.match(await shown.innerText(), /•{8}/)
    await shown.getByRole('link', { name: 'Its lease' }).click()
    await page.getByLabel('Prolong by').fill('5m')
    await page.getByRole('button', { name: 'Prolong' }).click()
    await page.getByText('1 times').waitFor()
    await page.getByRole('button', { name: 'Revoke' }).click()
    await page.getByRole('button', { name: 'Revoke it at once' }).click()
    assert.match(await textWith(page, /Status\s+revoked/), /renew/)
    await until(() => accountsOn(world.target), found => found === '')
    await page.goBack()
    assert.is(await page.getByRole('region', { name: 'Values' }).count(), 0)
  })

  test('a list that is longer than a page goes on behind a link, filtered as it was', async () => {
    const { world, page } = stage()
    const documents = Array.from({ length: 101 }, (_, at) => ({ kind: 'user', name: `crowd-${1000 + at}` }))
    await apiOf(world).post('/apply', { body: { documents } })
    await open(world, page, '/console/access/user?name=crowd')
    const row = (name: string): Locator => page.getByRole('row', { name })
    await row('crowd-1099').waitFor()
    assert.equal([await row('crowd-1000').count(), await row('ada').count()], [1, 0])
    await page.getByRole('link', { name: 'More users' }).click()
    await row('crowd-1100').waitFor()
    assert.is(await page.getByRole('row').count(), 2, 'its heads, and who was left')
    assert.is(await page.getByRole('link', { name: 'More users' }).count(), 0)
  })

  test('targets say how they fare, and orphans are looked for', async () => {
    const { world, page } = stage()
    await open(world, page, '/console/targets')
    assert.match(await textWith(page, /delete-role/), /orders\s+postgres\s+\S+\s+closed\s+idle\s+done/)
    await page.getByRole('link', { name: 'Orphans' }).click()
    await page.getByRole('button', { name: 'Look on the targets' }).click()
    await page.getByText('No account is left over.').waitFor()
    assert.is(await page.getByRole('button', { name: 'Reap' }).count(), 0)
  })
}
