// An identity provider in a process of its own: oidc-provider as it is published, with one client (us), PKCE
// by S256 demanded of it, and accounts whose claims a test writes into a file. `startProvider` starts it and
// logs people in as a browser would, form by form; run as a program this file is the provider itself.
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { freePort } from '../../tool/postgres.ts'

export const clientId = 'sallyport'
export const clientSecret = 'a secret of the client'

export interface Provider {
  issuer: string
  /** What it says of accounts, by the name that is typed at its login. */
  accounts: Record<string, Record<string, unknown>>
  /** From the address that we send a browser to, back to our callback; the whole address. */
  logIn(address: string, name: string): Promise<string>
  start(): Promise<void>
  /** Starts again, for clients at another address. */
  restart(redirect: string): Promise<void>
  stop(): Promise<void>
  end(): Promise<void>
}

interface Setting {
  issuer: string
  port: number
  redirect: string
  accounts: string
}

export async function startProvider(first: string): Promise<Provider> {
  let redirect = first
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-provider-'))
  const port = await freePort()
  const issuer = `http://127.0.0.1:${port}`
  const accounts: Provider['accounts'] = {}
  const file = join(folder, 'accounts.json')
  let process_: ChildProcess | undefined
  const start = async (): Promise<void> => {
    const setting: Setting = { issuer, port, redirect, accounts: file }
    const child = spawn(process.execPath, [fileURLToPath(import.meta.url), JSON.stringify(setting)],
      { stdio: ['ignore', 'pipe', 'ignore'] })
    process_ = child
    await once(child.stdout!, 'data')
  }
  const stop = async (): Promise<void> => {
    const child = process_
    process_ = undefined
    if (child === undefined) return
    child.kill('SIGTERM')
    await once(child, 'close')
  }
  await start()
  return {
    issuer, accounts, start, stop,
    async restart(to) {
      redirect = to
      writeFileSync(file, JSON.stringify(accounts))
      await stop()
      await start()
    },
    logIn: async (address, name) => {
      writeFileSync(file, JSON.stringify(accounts))
      return throughForms(address, name, redirect)
    },
    async end() {
      await stop()
      rmSync(folder, { recursive: true, force: true })
    }
  }
}

/** Follows the provider, with its cookies, until it sends the browser back to us. */
async function throughForms(address: string, name: string, redirect: string): Promise<string> {
  const cookies = new Map<string, string>()
  let next: { url: string, body?: URLSearchParams } = { url: address }
  for (let step = 0; step < 10; step++) {
    const { url, body } = next
    const answer = await fetch(url, {
      redirect: 'manual', headers: { cookie: [...cookies].map(pair => pair.join('=')).join('; ') },
      ...body === undefined ? {} : { method: 'POST', body }
    })
    for (const line of answer.headers.getSetCookie()) {
      const [pair = ''] = line.split(';')
      cookies.set(pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1))
    }
    const to = answer.headers.get('location')
    if (to?.startsWith(redirect) === true) return to
    const text = await answer.text()
    if (to !== null) next = { url: new URL(to, url).href }
    else if (text.includes('name="login"')) {
      next = { url, body: new URLSearchParams({ prompt: 'login', login: name, password: 'x' }) }
    } else throw new Error(`the provider answers ${answer.status} at ${url}: ${text.slice(0, 300)}`)
  }
  throw new Error('the provider goes round in circles')
}

// ---- the provider itself

interface Library {
  default: new (issuer: string, setting: object) => {
    listen(port: number, host: string, act: () => void): void
  }
}

interface Granting {
  oidc: {
    client: { clientId: string }
    session: { accountId: string }
    provider: { Grant: new (of: object) => { addOIDCScope(scope: string): void, save(): Promise<void> } }
  }
}

function serve({ issuer, port, redirect, accounts }: Setting): void {
  const { default: OidcProvider } = createRequire(import.meta.url)('oidc-provider') as Library
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const provider = new OidcProvider(issuer, {
    clients: [{ client_id: clientId, client_secret: clientSecret, redirect_uris: [redirect] }],
    pkce: { required: () => true },
    claims: { openid: ['sub'], profile: ['preferred_username', 'groups', 'email', 'email_verified'] },
    cookies: { keys: ['a key of this test'] },
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid: 'k' }] },
    findAccount: (_context: unknown, id: string) => ({
      accountId: id,
      claims: () => ({
        sub: id, ...(JSON.parse(readFileSync(accounts, 'utf8')) as Record<string, object>)[id]
      })
    }),
    async loadExistingGrant({ oidc: { client, session, provider: { Grant } } }: Granting) {
      const grant = new Grant({ clientId: client.clientId, accountId: session.accountId })
      grant.addOIDCScope('openid profile')
      await grant.save()
      return grant
    }
  })
  provider.listen(port, '127.0.0.1', () => process.stdout.write('listens\n'))
}

if (import.meta.main) serve(JSON.parse(process.argv[2]!) as Setting)
