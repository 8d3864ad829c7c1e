// The console in a real browser: the whole product with a PostgreSQL and an SSH target, stock psql and ssh in
// front of them, and Debian's Chromium, which believes the house's certificate and tells what it complained
// about. Headless, and without its own sandbox only for root, where it cannot have one.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { chromium } from 'playwright-core'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { startLinuxBox } from '../../tool/linux-box.ts'
import { freePort } from '../../tool/postgres.ts'
import type { PostgresServer } from '../../tool/postgres.ts'
import { programOf } from '../../tool/services.ts'
import { accessDocuments, alicePassword, companyDatabase, ran, startProduct, until } from './house.ts'
import type { House, Ran } from './house.ts'
import { boxDocuments } from './ssh-house.ts'

export interface Visitor {
  page: Page
  context: BrowserContext
  /** What the browser printed on its own console: violations of the policy, errors, failed loads. */
  complaints: string[]
}

export interface ConsoleWorld extends House {
  url: string
  target: PostgresServer
  /** One command over stock ssh with a terminal, as alice. */
  ssh(command: string): Promise<Ran>
  /** A browser profile of its own, on the console's first page. */
  visit(): Promise<Visitor>
  /** … logged in. */
  visitAs(name: string): Promise<Visitor>
  end(): Promise<void>
}

/** Everybody's password is alice's. */
const people = `---
kind: user
name: ada
roles: [admin]
password: { env: ALICE_PASSWORD }
---
kind: user
name: otto
roles: [auditor]
password: { env: ALICE_PASSWORD }
---
kind: user
name: oscar
roles: [auditor]
password: { env: ALICE_PASSWORD }
---
kind: grant
name: alice-on-web01
users: [alice]
credentials: [web01-admin]
---
`

/** For the pages: something to look at, part of it hostile. */
export const pagesDeclared = `kind: environment
name: prod
---
kind: secret
name: orders
environment: prod
description: "<img src=x onerror=alert(1)> \\u202Egnirts"
provider: postgres
target: orders
authenticationCredential: orders-admin
create: postgres/create-role
delete: postgres/delete-role
variables: { roles: [app_rw] }
ttl: 15m
maxTtl: 1h
---
kind: grant
name: asks-first
users: [alice]
credentials: [orders-standing]
approval: { by: [ada, oscar], count: 1, validFor: 2h }
---
kind: grant
name: secrets-of-ada
users: [ada]
secrets: [prod/*]
---
`

/** `access`: more documents; PostgreSQL's targets and users are alice's and ada's in any case. */
export async function startConsoleWorld(more = ''): Promise<ConsoleWorld> {
  const [{ server: target, adminPassword }, box, browser] = await Promise.all(
    [companyDatabase('15'), startLinuxBox({}), startBrowser()])
  const [sshPort, port] = [await freePort(), await freePort()]
  const product = await startProduct({
    listen: `ssh: "127.0.0.1:${sshPort}", postgres: "127.0.0.1:${port}"`,
    access: accessDocuments({ target, adminPassword, access: people + boxDocuments(box) + more }),
    environment: { ORDERS_ADMIN_PASSWORD: adminPassword, WEB01_ADMIN_KEY: box.admin.privateKey }
  })
  Object.assign(product.environment, {
    PGPASSWORD: alicePassword, PGSSLMODE: 'verify-full', SSHPASS: alicePassword,
    PGSSLROOTCERT: join(product.folder, 'data/tls/ca.pem')
  })
  const url = readFileSync(join(product.folder, 'data/local-admin.token'), 'utf8').split('\n')[1]!
  const connection = (login = 'alice+orders-rw'): string =>
    `host=127.0.0.1 port=${port} user=${login} dbname=orders`
  const visit = (): Promise<Visitor> => visitor(browser, `${url}/console/`)
  return {
    ...product, url, target, port, connection, visit,
    psql: (sql, { login, words = ['-XAtq'] } = {}) =>
      ran(programOf('psql'), [...words, '-c', sql, connection(login)], product.environment),
    ssh: command => ran(programOf('sshpass'), [
      '-e', programOf('ssh'), '-F', 'none', '-tt', '-p', String(sshPort), '-o', 'StrictHostKeyChecking=no',
      '-o', 'UserKnownHostsFile=/dev/null', '-o', 'LogLevel=ERROR', 'alice+web01-admin@127.0.0.1', command
    ], product.environment),
    async visitAs(name) {
      const guest = await visit()
      await logIn(guest.page, name)
      return guest
    },
    async end() {
      await Promise.all([browser.close(), product.stop()])
      product.clear()
      await Promise.all([target.stop(), box.stop()])
    }
  }
}

/** The flags are for a container: no sandbox for root, no shared memory to speak of. */
export async function startBrowser(): Promise<Browser> {
  const asRoot = process.getuid?.() === 0
  return chromium.launch({
    executablePath: programOf('chromium'), headless: true,
    args: ['--disable-dev-shm-usage', ...asRoot ? ['--no-sandbox'] : []]
  })
}

export async function visitor(browser: Browser, url: string): Promise<Visitor> {
  const viewport = { width: 1280, height: 800 }
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport })
  const page = await context.newPage()
  const complaints: string[] = []
  page.on('console', message => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text())
  })
  page.on('pageerror', error => complaints.push(String(error)))
  await page.goto(url)
  return { page, context, complaints }
}

/** Name and password into the form, until the frame with the menu is there. */
export async function logIn(page: Page, name: string, password = alicePassword): Promise<void> {
  await page.getByLabel('Name').fill(name)
  await page.getByLabel('Password').fill(password)
  await page.getByRole('button', { name: 'Log in' }).click()
  await page.getByRole('navigation', { name: 'Pages' }).waitFor()
}

/** Goes to a page of the console and waits for its heading. */
export async function open({ url }: ConsoleWorld, page: Page, path: string): Promise<void> {
  await page.goto(url + path)
  await page.getByRole('main').getByRole('heading', { level: 1 }).waitFor()
}

/** The text of the page when it has come to contain this. */
export async function textWith(page: Page, what: RegExp): Promise<string> {
  return until(() => page.getByRole('main').innerText(), text => what.test(text), 10)
}
