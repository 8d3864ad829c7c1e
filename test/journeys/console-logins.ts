// deadline: 240 s
// A person's ways into the web console, in a real browser against the whole product: a passkey of Chromium's
// own virtual authenticator, registered and used without a password and after one; an identity provider in a
// process of its own; and from there a login of the command line, which waits until it is confirmed.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Page } from 'playwright-core'
import { startBrowser, visitor, logIn } from '../peers/console-world.ts'
import type { Visitor } from '../peers/console-world.ts'
import { clientId, clientSecret, startProvider } from '../peers/identity-provider.ts'
import type { Provider } from '../peers/identity-provider.ts'
import { alicePassword, startProduct, until } from '../peers/house.ts'
import type { Product } from '../peers/house.ts'

const access = `kind: user
name: alice
password: { env: ALICE_PASSWORD }
`

interface Entry {
  kind: string
  actor: string
  detail: { method?: string }
}

let product: Product
let provider: Provider
let browser: Awaited<ReturnType<typeof startBrowser>>
/** By the name that passkeys need, and as the command line has it. */
let url: string
let byAddress: string

test.before(async () => {
  provider = await startProvider('https://localhost/')
  const config = `login: { oidc: { issuer: "${provider.issuer}", clientId: ${clientId}, label: Company login,
  clientSecret: { env: OIDC_SECRET }, groups: { staff: user }, createUsers: true } }`
  const started = await Promise.all([startProduct({
    listen: 'ssh: null, postgres: null', access, config, environment: { OIDC_SECRET: clientSecret }
  }), startBrowser()])
  product = started[0]
  browser = started[1]
  byAddress = readFileSync(join(product.folder, 'data/local-admin.token'), 'utf8').split('\n')[1]!
  url = byAddress.replace('127.0.0.1', 'localhost')
  provider.accounts['s-1'] = { preferred_username: 'carol', groups: ['staff'] }
  await provider.restart(`${url}/login/oidc/callback`)
})
test.after(async () => {
  await Promise.all([browser.close(), product.stop(), provider.end()])
  product.clear()
})

/** A browser with an authenticator that does what its person wants. */
async function withAuthenticator(): Promise<Visitor & { verified(is: boolean): Promise<void> }> {
  const guest = await visitor(browser, `${url}/console/`)
  const devtools = await guest.context.newCDPSession(guest.page)
  await devtools.send('WebAuthn.enable')
  const { authenticatorId } = await devtools.send('WebAuthn.addVirtualAuthenticator', {
    options: {
      protocol: 'ctap2', transport: 'internal', hasResidentKey: true, hasUserVerification: true,
      isUserVerified: true, automaticPresenceSimulation: true
    }
  })
  return {
    ...guest,
    verified: async is => {
      await devtools.send('WebAuthn.setUserVerified', { authenticatorId, isUserVerified: is })
    }
  }
}

const press = (page: Page, name: string): Promise<void> =>
  page.getByRole('button', { name, exact: true }).click()
const loggedIn = (page: Page): Promise<void> => page.getByRole('button', { name: 'Log out' }).waitFor()

test('a passkey is registered and then logs in, without a password and after one', async () => {
  const { page, complaints, verified } = await withAuthenticator()
  await logIn(page, 'alice')
  await page.getByRole('link', { name: 'alice' }).click()
  await page.getByText('You have none.').waitFor()
  await page.getByLabel('Name of the new passkey').fill('laptop')
  await press(page, 'Register')
  await page.getByRole('cell', { name: 'laptop' }).waitFor()
  await page.getByLabel('Name of the new passkey').fill('again')
  await press(page, 'Register')
  assert.match(await page.getByRole('alert').innerText(), /has a passkey for you already/)

  await press(page, 'Log out')
  await press(page, 'Use a passkey')
  await loggedIn(page)
  assert.is(await page.getByRole('link', { name: 'alice' }).count(), 1)

  await press(page, 'Log out')
  await page.getByLabel('Name').fill('alice')
  await page.getByLabel('Password').fill(alicePassword)
  await press(page, 'Log in')
  await page.getByText('Your passkey is needed as well.').waitFor()
  assert.is(await page.getByLabel('One-time code').count(), 0)
  await verified(false)
  await press(page, 'Use a passkey')
  assert.match(await page.getByRole('alert').innerText(), /got no answer from a passkey/)
  await verified(true)
  await press(page, 'Use a passkey')
  await loggedIn(page)

  await page.goto(`${url}/console/account`)
  await press(page, 'Remove')
  await press(page, 'Remove laptop')
  assert.match(await page.getByRole('alert').innerText(), /your only second factor/)
  const unexpected = complaints.filter(line => !/status of (401|409)/.test(line))
  assert.equal(unexpected, [], 'no page breaks its own policy')
})

test('by its address, which passkeys are not bound to, the console offers none', async () => {
  const { page } = await visitor(browser, `${byAddress}/console/`)
  assert.is(await page.getByRole('button', { name: 'Use a passkey' }).count(), 0)
})

test('the command line shows a code and waits; who logs in at the provider confirms it', async () => {
  const home = join(product.folder, 'home of carol')
  const child = spawn(process.execPath, [
    join(import.meta.dirname, '../../src/cli/sallyport.ts'), 'login', '--json', '--config',
    join(product.folder, 'sallyport.yaml')
  ], { env: { ...product.environment, HOME: home }, stdio: 'pipe' })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => { said += String(chunk) })
  const ended = once(child, 'close')
  const [, link, code] = (await until(async () => /open (\S+) and confirm (\S+),/.exec(said),
    found => found !== null))!
  assert.is(link, `${url}/console/confirm#${code}`)

  // By the address of the machine: it goes on under the console's name, and ends at the page of the link.
  const { page, complaints } = await visitor(browser, link!.replace('localhost', '127.0.0.1'))
  await page.getByRole('link', { name: 'Company login' }).click()
  await page.getByPlaceholder('Enter any login').fill('s-1')
  await page.getByPlaceholder('and password').fill('x')
  await press(page, 'Sign-in')
  await page.getByRole('heading', { name: 'Confirm a login' }).waitFor()
  assert.ok(page.url().startsWith(`${url}/console/confirm`), page.url())
  await page.getByText('From the address').waitFor()
  const facts = await page.getByRole('main').innerText()
  for (const fact of [code!, '127.0.0.1', 'sallyport login by', 'carol']) {
    assert.ok(facts.includes(fact), facts)
  }
  await press(page, 'Confirm')
  await page.getByText('Confirmed: it goes on over there.').waitFor()
  const [status] = await ended as [number]
  assert.is(status, 0, said)
  assert.match(said, /"name": ?"carol"/)
  const entries = await product.json<Entry[]>('audit', 'list')
  const logins = entries.filter(({ kind, actor }) => kind === 'login' && actor === 'carol')
  assert.equal(logins.map(({ detail }) => detail.method).sort(),
    ['confirmed in the console', 'identity provider'])
  // The provider's page looks for fonts elsewhere; ours break no policy.
  assert.equal(complaints.filter(line => /policy|refused/i.test(line)), [])
})

test.run()
