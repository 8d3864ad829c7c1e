// deadline: 240 s
// A person's ways into the web console, in a real browser against the whole product: a passkey of Chromium's
// own virtual authenticator, registered and used without a password and after one; an identity provider in a
// process of its own; and logins that wait elsewhere until they are confirmed there: of the command line, of
// stock psql, of stock ssh.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Page } from 'playwright-core'
import { freePort } from '../../tool/postgres.ts'
import type { PostgresServer } from '../../tool/postgres.ts'
import { programOf } from '../../tool/services.ts'
import { startBrowser, visitor, logIn } from '../peers/console-world.ts'
import type { Visitor } from '../peers/console-world.ts'
import { clientId, clientSecret, startProvider } from '../peers/identity-provider.ts'
import type { Provider } from '../peers/identity-provider.ts'
import { accessDocuments, alicePassword, companyDatabase, startProduct, until } from '../peers/house.ts'
import type { Product } from '../peers/house.ts'

/** Whom the provider makes a user may open something only once they are one. */
const granted = `kind: grant
name: staff-on-orders
users: [carol]
credentials: [orders-rw]
`

/** A program and all that it says. */
function begin(program: string, words: readonly string[], environment: NodeJS.ProcessEnv = {}): Running {
  const child = spawn(program, [...words], { env: { ...product.environment, ...environment }, stdio: 'pipe' })
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => { text += String(chunk) })
  child.stdin.end()
  const ended = once(child, 'close').then(([status]) => status as number)
  return {
    said: () => text, ended,
    link: async () => (await until(async () => /open (\S+) and confirm (\S+)[,:]/.exec(text),
      found => found !== null))![1]!
  }
}

const psql = (user: string, password: string): Running => begin(programOf('psql'), [
  '-XAtq', '-c', "SELECT 'in as ' || left(current_user, 4)",
  `host=127.0.0.1 port=${port} user=${user}+orders-rw dbname=orders`
], { PGPASSWORD: password, PGSSLMODE: 'require' })

interface Running {
  said(): string
  /** The link that it shows. */
  link(): Promise<string>
  ended: Promise<number>
}

type Person = Visitor & { verified(is: boolean): Promise<void> }

interface Entry {
  kind: string
  actor: string
  detail: { method?: string }
}

let target: PostgresServer
let port: number
let sshPort: number
let product: Product
let provider: Provider
let browser: Awaited<ReturnType<typeof startBrowser>>
/** By the name that passkeys need, and as the command line has it. */
let url: string
/** With her passkey, once it is registered. */
let alice: Person
let byAddress: string

test.before(async () => {
  provider = await startProvider('https://localhost/')
  const config = `login: { oidc: { issuer: "${provider.issuer}", clientId: ${clientId}, label: Company login,
  clientSecret: { env: OIDC_SECRET }, groups: { staff: user }, createUsers: true } }`
  const [{ server, adminPassword }, started] = await Promise.all([companyDatabase('15'), startBrowser()])
  target = server
  sshPort = await freePort()
  port = await freePort()
  browser = started
  product = await startProduct({
    listen: `ssh: "127.0.0.1:${sshPort}", postgres: "127.0.0.1:${port}"`,
    access: accessDocuments({ target, adminPassword }), config,
    environment: { OIDC_SECRET: clientSecret, ORDERS_ADMIN_PASSWORD: adminPassword }
  })
  byAddress = readFileSync(join(product.folder, 'data/local-admin.token'), 'utf8').split('\n')[1]!
  url = byAddress.replace('127.0.0.1', 'localhost')
  provider.accounts['s-1'] = { preferred_username: 'carol', groups: ['staff'] }
  await provider.restart(`${url}/login/oidc/callback`)
})
test.after(async () => {
  await Promise.all([browser.close(), product.stop(), provider.end()])
  product.clear()
  await target.stop()
})

/** A browser with an authenticator that does what its person wants. */
async function withAuthenticator(): Promise<Person> {
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

/** Opens the link of a connection, sees what it is, and lets it in. */
async function confirm(page: Page, link: string, what: string): Promise<void> {
  await page.goto(link)
  await page.getByText(what, { exact: true }).waitFor()
  await press(page, 'Confirm')
  await page.getByText('Confirmed: it goes on over there.').waitFor()
}

test('a passkey is registered and then logs in, without a password and after one', async () => {
  alice = await withAuthenticator()
  const { page, complaints, verified } = alice
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
  const login = begin(process.execPath, [
    join(import.meta.dirname, '../../src/cli/sallyport.ts'), 'login', '--json', '--config',
    join(product.folder, 'sallyport.yaml')
  ], { HOME: join(product.folder, 'home of carol') })
  const link = await login.link()
  const code = link.split('#')[1]!
  assert.is(link, `${url}/console/confirm#${code}`)

  // By the address of the machine: it goes on under the console's name, and ends at the page of the link.
  const { page, complaints } = await visitor(browser, link.replace('localhost', '127.0.0.1'))
  await page.getByRole('link', { name: 'Company login' }).click()
  await page.getByPlaceholder('Enter any login').fill('s-1')
  await page.getByPlaceholder('and password').fill('x')
  await press(page, 'Sign-in')
  await page.getByRole('heading', { name: 'Confirm a login' }).waitFor()
  assert.ok(page.url().startsWith(`${url}/console/confirm`), page.url())
  await page.getByText('From the address').waitFor()
  const facts = await page.getByRole('main').innerText()
  for (const fact of [code, '127.0.0.1', 'sallyport login by', 'carol']) {
    assert.ok(facts.includes(fact), facts)
  }
  await press(page, 'Confirm')
  await page.getByText('Confirmed: it goes on over there.').waitFor()
  assert.is(await login.ended, 0, login.said())
  assert.match(login.said(), /"name": ?"carol"/)
  const entries = await product.json<Entry[]>('audit', 'list')
  const logins = entries.filter(({ kind, actor }) => kind === 'login' && actor === 'carol')
  assert.equal(logins.map(({ detail }) => detail.method).sort(),
    ['confirmed in the console', 'identity provider'])
  // The provider's page looks for fonts elsewhere; ours break no policy.
  assert.equal(complaints.filter(line => /policy|refused/i.test(line)), [])

  // She has no password at all: psql waits for the same page.
  writeFileSync(join(product.folder, 'grant.yaml'), granted)
  await product.sallyport('apply', '-f', join(product.folder, 'grant.yaml'))
  const waiting = psql('carol', '')
  await confirm(page, await waiting.link(), 'postgres as carol+orders-rw')
  assert.is(await waiting.ended, 0, waiting.said())
  assert.match(waiting.said(), /NOTICE: {2}confirmed\n(.*\n)*in as jit_/)
})

test('a passkey holds for psql and ssh as well: they show a link, and wait; no is no', async () => {
  const { page } = alice
  const [sql, refused] = [psql('alice', alicePassword), psql('alice', alicePassword)]
  await confirm(page, await sql.link(), 'postgres as alice+orders-rw')
  assert.is(await sql.ended, 0, sql.said())
  assert.match(sql.said(), /in as jit_/)
  await page.goto(await refused.link())
  await press(page, 'Turn away')
  assert.is(await refused.ended, 2)
  assert.match(refused.said(), /the login was turned away \[access-denied [0-9a-f]{6}\]/)
  const wrong = psql('alice', 'wrong')
  assert.is(await wrong.ended, 2)
  assert.not.match(wrong.said(), /open https/)

  const ssh = begin(programOf('sshpass'), [
    '-e', programOf('ssh'), '-F', 'none', '-p', String(sshPort), '-o', 'StrictHostKeyChecking=no',
    '-o', 'UserKnownHostsFile=/dev/null', '-o', 'PreferredAuthentications=password', 'alice@127.0.0.1'
  ], { SSHPASS: alicePassword })
  await confirm(page, await ssh.link(), 'ssh as alice')
  await ssh.ended
  assert.match(ssh.said(), /sallyport: confirmed/)
  assert.not.match(ssh.said(), /Permission denied/)
})

test.run()
