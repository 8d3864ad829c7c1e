// deadline: 120 s
// An admin declares in the browser what had no form before: people, windows and rules of grants, environments
// and secrets; a person sets up one-time codes with what a camera reads from the page; an orphan on a real
// PostgreSQL is reaped. Who comes late to a session sees how it stands, and a cut line comes back.
import jsqr from 'jsqr'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Locator, Page } from 'playwright-core'
import type { LeaseJson, SessionJson } from '../../src/api/client-types.ts'
import { authenticator } from '../peers/authenticator.ts'
import { excessOf, violationsOn } from '../peers/console-look.ts'
import { logIn, open, startConsoleWorld, textWith } from '../peers/console-world.ts'
import type { ConsoleWorld, Visitor } from '../peers/console-world.ts'
import { faintTexts } from '../peers/contrast.ts'
import { accountsOn, until } from '../peers/house.ts'
import { openPsql } from '../peers/psql.ts'
import type { Psql } from '../peers/psql.ts'

const bobsPassword = 'a longer one of his own'

let world: ConsoleWorld
let ada: Visitor
let page: Page
let live: Psql | undefined

test.before(async () => {
  world = await startConsoleWorld()
  ada = await world.visitAs('ada')
  page = ada.page
})
test.after(async () => {
  live?.child.kill()
  await world.end()
})

async function save(): Promise<void> {
  const button = page.getByRole('button', { name: 'Save' })
  await until(() => button.isEnabled(), is => is, 10)
  await button.click()
}

/** On any screen, in both palettes, for everybody. */
async function isForEverybody(path: string, of = page): Promise<void> {
  assert.equal(await violationsOn(of), [], path)
  for (const [width, height] of [[3840, 2160], [360, 740], [1280, 800]] as const) {
    await of.setViewportSize({ width, height })
    assert.is(await excessOf(of), 0, `${path} is wider than ${width}`)
  }
  for (const colorScheme of ['dark', 'light'] as const) {
    await of.emulateMedia({ colorScheme })
    assert.equal(await of.evaluate(faintTexts), [], `${path} ${colorScheme}`)
  }
}

test('a person is declared with the keyboard alone, and can log in with what was typed', async () => {
  await open(world, page, '/console/access/user')
  await page.getByRole('link', { name: 'New user' }).press('Enter')
  await page.waitForURL('**/access/new/user')
  await page.getByLabel('Name', { exact: true }).focus()
  await page.keyboard.type('bob')
  await page.keyboard.press('Tab')
  await page.keyboard.press('Space')
  for (let presses = 0; presses < 3; presses++) await page.keyboard.press('Tab')
  await page.keyboard.type(bobsPassword)
  await page.keyboard.press('Tab')
  await page.keyboard.type('ssh-nonsense')
  assert.match(await textWith(page, /invalid/), /Public keys[^]*invalid/)
  await page.keyboard.press('Control+A')
  await page.keyboard.press('Delete')
  await page.getByText('It would be created').waitFor()
  assert.not.ok((await page.getByRole('main').innerText()).includes(bobsPassword))
  await isForEverybody('a new user')
  await page.getByRole('button', { name: 'Save' }).focus()
  await page.keyboard.press('Enter')
  await page.waitForURL('**/access/user/bob')
  const { roles, password, publicKeys } = await world.json<Record<string, unknown>>('get', 'user', 'bob')
  assert.equal({ roles, password, publicKeys }, { roles: ['user'], password: '<secret>', publicKeys: [] })
})

test('rules and windows of a grant are rows: a wrong one says so itself, and saved ones count', async () => {
  await open(world, page, '/console/access/grant/devs-on-orders')
  const rule = (number: number): Locator => page.getByRole('group', { name: `rule ${number}`, exact: true })
  await page.getByRole('button', { name: 'Add a rule' }).click()
  assert.is(await page.evaluate('document.activeElement.tagName'), 'SELECT', 'the new row has the focus')
  await rule(1).getByLabel('Pattern').fill('(')
  assert.match(await until(() => rule(1).innerText(), text => /invalid/.test(text), 10), /no pattern/)
  await rule(1).getByLabel('Pattern').fill('')
  await rule(1).getByLabel('Kinds of statements').fill('drop, truncate')
  await page.getByRole('button', { name: 'Add a rule' }).click()
  await rule(2).getByLabel('Then').selectOption('warn')
  await rule(2).getByLabel('About').selectOption('file')
  assert.is(await rule(2).getByLabel('Kinds of statements').count(), 0)
  await rule(2).getByLabel('Path').fill('*.key')
  await page.getByRole('button', { name: 'Move up rule 2' }).click()
  await page.getByRole('button', { name: 'Add a window' }).click()
  const window = page.getByRole('group', { name: 'window 1', exact: true })
  for (const day of ['sat', 'sun']) await window.getByLabel(day).check()
  await window.getByLabel('From').fill('00:00')
  await window.getByLabel('To').fill('24:00')
  await window.getByLabel('Time zone').fill('Mars/Olympus')
  await until(() => window.innerText(), text => /time zone such as/.test(text), 10)
  await window.getByLabel('Time zone').fill('UTC')
  await page.getByRole('table', { name: 'Changes' }).getByText('rules').first().waitFor()
  await isForEverybody('rules of a grant')
  await save()
  await page.getByText('Version 2').waitFor()
  const { rules, windows } = await world.json<{ rules: unknown, windows: unknown }>(
    'get', 'grant', 'devs-on-orders')
  assert.equal(rules, [
    { on: 'file', path: '*.key', then: 'warn' }, { on: 'sql', kind: ['drop', 'truncate'], then: 'refuse' }
  ])
  const days = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun']
  assert.equal(windows, [{ days, from: '00:00', to: '24:00', zone: 'UTC' }])
  const { stdout, stderr } = await world.psql('SELECT 1; DROP TABLE orders')
  assert.match(stderr, /rule-refused|refused/)
  assert.not.match(stdout, /DROP/)
})

test('an environment and a dynamic secret in it are declared, and the secret makes an account', async () => {
  await open(world, page, '/console/access/new/environment')
  await page.getByLabel('Name', { exact: true }).fill('prod')
  await save()
  await page.waitForURL('**/access/environment/prod')
  await open(world, page, '/console/access/new/secret')
  await page.getByLabel('Name', { exact: true }).fill('orders')
  for (const [label, text] of [
    ['Environment', 'prod'], ['Folders', 'apps'], ['Provider (plugin)', 'postgres'], ['Target', 'orders'],
    ['Authentication credential', 'orders-admin'], ['Creation template', 'postgres/create-role'],
    ['Removal template', 'postgres/delete-role'], ['Lifetime', '30s']
  ] as const) await page.getByLabel(label, { exact: true }).fill(text)
  assert.match(await textWith(page, /at least 60s/), /Lifetime[^]*at least 60s[^]*invalid/)
  await page.getByLabel('Lifetime').fill('5m')
  await page.getByLabel(/^roles/).fill('app_rw')
  await page.getByRole('button', { name: 'Add a name' }).click()
  const output = page.getByRole('group', { name: 'name 1', exact: true })
  await output.getByLabel('Value').fill('username')
  await output.getByLabel('Is called').fill('PG USER')
  await until(() => output.innerText(), text => /invalid/.test(text), 10)
  await output.getByLabel('Is called').fill('PGUSER')
  await page.getByText('It would be created').waitFor()
  await isForEverybody('a new secret')
  await save()
  await page.waitForURL('**/access/secret/prod/apps/orders')
  await page.getByRole('link', { name: 'Its values' }).click()
  await page.getByRole('button', { name: 'Generate' }).click()
  const shown = page.getByRole('region', { name: 'Values' })
  assert.match(await until(() => shown.innerText(), text => /PGUSER/.test(text), 10), /jit_\d{7}/)
  assert.match(await accountsOn(world.target), /jit_\d{7}/)
})

test('what a camera reads from the page enrols one-time codes, and an admin takes them away', async () => {
  const { page: his } = await world.visit()
  await logIn(his, 'bob', bobsPassword)
  await open(world, his, '/console/account')
  await his.getByRole('button', { name: 'Set up one-time codes' }).click()
  const code = his.getByRole('img', { name: 'QR code' })
  await isForEverybody('the set-up of one-time codes', his)
  const read = await scanned(his, code)
  const key = await his.getByRole('region', { name: 'Set up' }).locator('dd').first().innerText()
  assert.is(new URL(read).searchParams.get('secret'), key.replaceAll(' ', ''))
  assert.match(read, /^otpauth:\/\/totp\/Sallyport:bob\?/)
  const app = authenticator(read)
  await his.getByLabel('Code that the app shows now').fill('000000')
  await his.keyboard.press('Enter')
  assert.match(await textWith(his, /invalid/), /clock of the device/)
  await his.getByLabel('Code that the app shows now').fill(await app.next())
  await his.keyboard.press('Enter')
  await his.getByText('is asked for at every login').waitFor()
  await his.getByRole('button', { name: 'Log out' }).click()
  const logInAgain = async (): Promise<void> => {
    await his.getByLabel('Name').fill('bob')
    await his.getByLabel('Password').fill(bobsPassword)
    await his.getByRole('button', { name: 'Log in' }).click()
  }
  await logInAgain()
  await his.getByLabel('One-time code').waitFor()
  await open(world, page, '/console/access/user/bob')
  await page.getByText('asked for at every login').waitFor()
  await page.getByRole('button', { name: 'Take them away' }).click()
  await page.getByRole('button', { name: 'bob logs in without a code' }).click()
  await page.getByText('none', { exact: true }).waitFor()
  await his.reload()
  await logInAgain()
  await his.getByRole('navigation', { name: 'Pages' }).waitFor()
})

/** What a decoder finds in a picture of the element. */
async function scanned(of: Page, element: Locator): Promise<string> {
  const png = (await element.screenshot()).toString('base64')
  const { pixels, width, height } = await of.evaluate(`(async () => {
    const bytes = Uint8Array.from(atob('${png}'), each => each.charCodeAt(0))
    const picture = await createImageBitmap(new Blob([bytes], { type: 'image/png' }))
    const canvas = new OffscreenCanvas(picture.width, picture.height).getContext('2d')
    canvas.drawImage(picture, 0, 0)
    const { data, width, height } = canvas.getImageData(0, 0, picture.width, picture.height)
    return { pixels: [...data], width, height }
  })()`) as { pixels: number[], width: number, height: number }
  return jsqr.default(Uint8ClampedArray.from(pixels), width, height)!.data
}

test('an account that came back is reaped; live ones, and what a stranger made, are not', async () => {
  await world.psql('SELECT 1')
  const isOver = ({ ownerKind, account: { state } }: LeaseJson): boolean =>
    ownerKind === 'session' && state === 'proved-gone'
  const leases = await until(() => world.json<LeaseJson[]>('leases', 'list'), list => list.some(isOver))
  const { id, name } = leases.find(isOver)!.account
  live = await openPsql(world)
  await world.target.psql(`CREATE ROLE ${name} LOGIN; COMMENT ON ROLE ${name}
    IS 'sallyport account=${id} epoch=1'; GRANT ${name} TO sallyport WITH ADMIN OPTION;
    CREATE ROLE jit_7654321 LOGIN; COMMENT ON ROLE jit_7654321
    IS 'sallyport account=00000000-0000-0000-0000-000000000001 epoch=1'`)
  await open(world, page, '/console/targets/orphans')
  await page.getByRole('button', { name: 'Look on the targets' }).click()
  const table = page.getByRole('table', { name: 'Orphans' })
  await table.waitFor()
  const found = await table.innerText()
  assert.match(found, new RegExp(`${name}\\s+orphan`))
  assert.match(found, /jit_7654321\s+foreign/)
  assert.is(found.match(/jit_\d{7}/g)!.length, 2, 'neither the session’s nor the secret’s')
  await page.getByRole('button', { name: 'Reap the orphans' }).click()
  await page.getByRole('button', { name: 'Remove them from the targets' }).click()
  await page.getByText('Reaped:').waitFor()
  await until(() => accountsOn(world.target), there => !there.includes(name) && there.includes('jit_7654321'))
  await world.target.psql('DROP ROLE jit_7654321')
})

test('who comes late to statements sees the last ones, and older ones when asking', async () => {
  const session = await liveSession('postgres')
  for (let at = 0; at < 150; at++) live!.type(`SELECT 'number ${at}.';`)
  await until(() => Promise.resolve(live!.text()), text => text.includes('number 149.'), 10)
  await open(world, page, `/console/sessions/${session.id}#watch`)
  const lane = page.getByRole('list', { name: 'Live statements' })
  const late = await until(() => lane.innerText(), text => text.includes('number 149.'), 10)
  assert.not.ok(late.includes('number 1.'))
  await page.getByRole('button', { name: 'Show older' }).click()
  const all = await until(() => lane.innerText(), text => text.includes('number 1.'), 10)
  assert.is(all.split("'number 100.'").length, 2, 'each once')
  await isForEverybody('live statements')
  live!.type("SELECT 'the last one';")
  await until(() => lane.innerText(), text => text.includes('the last one'), 10)
})

async function liveSession(protocol: string): Promise<SessionJson> {
  const list = await until(() => world.json<SessionJson[]>('sessions', 'list'), found =>
    found.some(each => each.status === 'live' && each.protocol === protocol))
  return list.find(each => each.status === 'live' && each.protocol === protocol)!
}

test('who comes late to a terminal sees its screen as it is, and once more after a cut', async () => {
  void world.ssh("seq 1 60000; printf 'here\\n'; sleep 30")
  const { id } = await liveSession('ssh')
  await page.waitForTimeout(1_000)
  // The first answer is cut behind its first line; no server can be asked to do that.
  const screen = { columns: 80, rows: 24, picture: 'before the cut', lane: 1 }
  const first = { kind: 'begin', atMs: 1, count: 1, screen, lanes: [1], lately: [] }
  const asked: string[] = []
  await page.route('**/watch?*', async route => asked.push(route.request().url()) === 1
    ? route.fulfill({ contentType: 'application/x-ndjson', body: `${JSON.stringify(first)}\n` })
    : route.continue())
  await page.clock.install()
  await open(world, page, `/console/sessions/${id}#watch`)
  const place = page.getByLabel('Live terminal')
  await until(() => place.innerText(), text => text.includes('before the cut'), 10)
  await page.getByText('The line is cut').waitFor()
  const shown = await until(() => place.innerText(), text => text.includes('here'), 10)
  assert.match(shown, /\n60000\s/)
  assert.not.match(shown, /\n1000\s|before/)
  // A line that says nothing at all, were it that nothing happens, is dead.
  await page.clock.fastForward(31_000)
  await page.getByText('The line is cut').waitFor()
  await page.clock.fastForward(2_000)
  await page.getByText('Live', { exact: true }).waitFor()
  const queries = asked.map(url => new URL(url).search)
  assert.equal(queries.slice(0, 2), ['?begin=now&after=0', '?begin=now&after=1'])
  assert.is(queries.length, 3)
  await isForEverybody('a live terminal')
  await page.getByRole('button', { name: 'End session' }).click()
  await page.getByRole('button', { name: 'End it at once' }).click()
  await page.getByText('The session has ended.').waitFor()
})

test('a cut line ends a session in the page, which says so and keeps what was typed', async () => {
  const { page: hers } = await world.visitAs('alice')
  let cut: () => Promise<void> = () => Promise.resolve()
  await hers.routeWebSocket(/browser\/socket/, line => {
    const server = line.connectToServer()
    cut = async () => {
      await server.close()
      await line.close({ code: 1001 })
    }
  })
  await open(world, hers, '/console/connect/postgres/orders-rw/orders')
  await hers.getByRole('button', { name: 'Open SQL session' }).click()
  const field = hers.getByRole('textbox', { name: 'Statement' })
  await field.fill('SELECT pg_sleep(60)')
  await hers.getByRole('button', { name: 'Run' }).click()
  await hers.getByText('Runs …').waitFor()
  await field.fill("SELECT 'typed before'")
  await cut()
  assert.match(await hers.getByRole('alert').innerText(), /^The line was cut/)
  await hers.getByText('No answer came').waitFor()
  await hers.getByText('proved-gone').waitFor()
  assert.is(await hers.getByRole('button', { name: 'Run' }).isDisabled(), true)
  await hers.getByRole('button', { name: 'Open another' }).click()
  await until(() => hers.getByRole('button', { name: 'Run' }).isEnabled(), is => is, 10)
  await field.press('Control+Enter')
  assert.match(await textWith(hers, /1 row/), /typed before/)
  await hers.getByRole('button', { name: 'End session' }).click()
  await hers.getByText('proved-gone').waitFor()
  await open(world, hers, '/console/connect/ssh/web01-admin/web01')
  await hers.getByRole('button', { name: 'Open shell' }).click()
  await until(() => hers.locator('.xterm-rows').innerText(), text => /\$|#/.test(text), 10)
  await cut()
  assert.match(await hers.getByRole('alert').innerText(), /^The line was cut/)
  await hers.locator('.xterm textarea').focus()
  await hers.keyboard.press('Tab')
  assert.not.match(String(await hers.evaluate('document.activeElement.className')), /xterm/)
  await hers.getByRole('button', { name: 'Open another' }).click()
  await until(() => hers.locator('.xterm-rows').innerText(), text => /\$|#/.test(text), 10)
  await hers.keyboard.type('echo ba""ck\r')
  await until(() => hers.locator('.xterm-rows').innerText(), text => /\nback/.test(text), 10)
})

test.run()
