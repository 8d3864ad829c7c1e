// Doubles of Microsoft Entra (token endpoint and Graph) and of Google (token endpoint, IAM and its
// credentials API), as far as our templates go: they check client secrets, signed assertions and bearer
// tokens, names and lifetimes, and hold to the rules that hurt. They are not the clouds: what a role allows,
// they do not know.
import { createPublicKey, generateKeyPairSync, randomBytes, randomUUID, verify } from 'node:crypto'
import { systemClock } from '../../src/clock.ts'
import { startService } from './service.ts'
import type { Asked, Said, Service } from './service.ts'

type Body = Record<string, unknown>

/** Tokens that were drawn, and who is asked for. */
class Tokens {
  readonly #issued = new Set<string>()

  issue(): Said {
    const token = randomBytes(24).toString('base64url')
    this.#issued.add(token)
    return { status: 200, body: { access_token: token, token_type: 'Bearer', expires_in: 3599 } }
  }

  knows({ headers }: Asked): boolean {
    return this.#issued.has((headers.authorization ?? '').replace(/^Bearer /, ''))
  }
}

interface Secret { keyId: string, displayName: string, endDateTime: string }
interface Application extends Body {
  id: string
  appId: string
  passwordCredentials: Secret[]
}

export class Azure {
  readonly tokens = new Tokens()
  readonly client = { id: randomUUID(), secret: 'a secret of the hooks' }
  readonly applications = new Map<string, Application>()
  readonly bin = new Set<string>()
  readonly members = new Set<string>()
  readonly texts = new Map<string, string>()
  throttled = 0
  /** The answer to the next addPassword is lost. */
  lose = false

  addApplication(body: Body = {}): Application {
    const made = { ...body, id: randomUUID(), appId: randomUUID(), passwordCredentials: [] }
    this.applications.set(made.id, made)
    return made
  }

  answer(asked: Asked): Said {
    const { method, path, body } = asked
    if (path === '/tenant-1/oauth2/v2.0/token') return this.#token(new URLSearchParams(body))
    if (!this.tokens.knows(asked)) return refused(401, 'InvalidAuthenticationToken')
    if (this.throttled > 0) {
      this.throttled--
      return { ...refused(429, 'TooManyRequests'), headers: { 'retry-after': '1' } }
    }
    const json = body === '' ? {} : JSON.parse(body) as Body
    const [, , kind = '', id = '', verb = ''] = path.split('/')
    if (kind === 'directory') return { status: this.bin.delete(verb) ? 204 : 404 }
    if (kind === 'servicePrincipals') return { status: 201, body: { id: randomUUID(), ...json } }
    if (kind === 'groups') {
      this.members.add(String(json['@odata.id']))
      return { status: 204 }
    }
    if (kind !== 'applications') return refused(404, 'Request_ResourceNotFound')
    if (id === '' && method === 'POST') return { status: 201, body: this.addApplication(json) }
    if (id === '') return this.#list(asked)
    const application = this.applications.get(id)
    if (application === undefined) return refused(404, 'Request_ResourceNotFound')
    if (verb === 'addPassword') return this.#addPassword(application, json['passwordCredential'] as Body)
    if (verb === 'removePassword') {
      const left = application.passwordCredentials.filter(({ keyId }) => keyId !== json['keyId'])
      const found = left.length < application.passwordCredentials.length
      application.passwordCredentials = left
      return found ? { status: 204 } : refused(400, 'Request_BadRequest')
    }
    if (method !== 'DELETE') return { status: 200, body: application }
    this.applications.delete(id)
    this.bin.add(id)
    return { status: 204 }
  }

  #token(form: URLSearchParams): Said {
    const known = form.get('client_id') === this.client.id && form.get('client_secret') === this.client.secret
      && form.get('scope') === 'https://graph.microsoft.com/.default'
    if (known && form.get('grant_type') === 'client_credentials') return this.tokens.issue()
    return { status: 401, body: { error: 'invalid_client', error_description: 'AADSTS7000215' } }
  }

  #list({ query }: Asked): Said {
    const [, name] = /^displayName eq '([^']*)'$/.exec(query.get('$filter') ?? '') ?? []
    const value = [...this.applications.values()].filter(one => one['displayName'] === name)
    return name === undefined ? refused(400, 'Request_UnsupportedQuery') : { status: 200, body: { value } }
  }

  #addPassword(application: Application, { displayName, endDateTime }: Body): Said {
    const leftMs = Date.parse(String(endDateTime)) - systemClock.now().getTime()
    if (!(leftMs > 0)) return refused(400, 'Request_BadRequest')
    const secret = { keyId: randomUUID(), displayName: String(displayName), endDateTime: String(endDateTime) }
    const secretText = randomBytes(20).toString('base64url')
    this.texts.set(secret.keyId, secretText)
    application.passwordCredentials = [...application.passwordCredentials, secret]
    const lost = this.lose
    this.lose = false
    return { status: 200, body: { ...secret, secretText }, lost }
  }
}

function refused(status: number, code: string): Said {
  return { status, body: { error: { code, message: `${code}, it says` } } }
}

interface Account { email: string, description: string, disabled: boolean, keys: Map<string, string> }

export class Google {
  readonly tokens = new Tokens()
  readonly accounts = new Map<string, Account>()
  readonly drawn = new Set<string>()
  readonly hooks = { email: 'hooks@project-1.iam.gserviceaccount.com', ...keyPair() }
  /** The next reads of a new account say that there is none. */
  unseenReads = 0
  tokenUri = ''

  /** The file that Google hands out for the hooks' account. */
  keyFile(): string {
    const { email, privateKey } = this.hooks
    return JSON.stringify({
      type: 'service_account', client_email: email, private_key: privateKey, token_uri: this.tokenUri
    })
  }

  answer(asked: Asked): Said {
    const { method, path, body } = asked
    if (path === '/token') return this.#token(new URLSearchParams(body))
    if (!this.tokens.knows(asked)) return this.#refused(401, 'UNAUTHENTICATED')
    const json = body === '' ? {} : JSON.parse(body) as Body
    const [, project = '', name = '', verb = ''] =
      /^\/v1\/projects\/([^/]+)\/serviceAccounts(?:\/([^/:]+)(?:[/:](\w+))?)?$/.exec(path) ?? []
    if (verb === 'generateAccessToken') return this.#draw(json)
    if (name === '' && method === 'POST') return this.#create(project, json)
    const account = this.accounts.get(name)
    if (account === undefined) return this.#refused(404, 'NOT_FOUND')
    if (verb === 'keys' && method === 'POST') return this.#key(account)
    if (verb === 'disable') {
      account.disabled = true
      return { status: 200, body: {} }
    }
    if (method === 'DELETE') {
      this.accounts.delete(name)
      return { status: 200, body: {} }
    }
    if (this.unseenReads > 0) {
      this.unseenReads--
      return this.#refused(404, 'NOT_FOUND')
    }
    return { status: 200, body: { email: account.email, description: account.description } }
  }

  /** RFC 7523: who says so, to whom, until when, and signed. */
  #token(form: URLSearchParams): Said {
    const [head = '', claims = '', signature = ''] = (form.get('assertion') ?? '').split('.')
    const said = JSON.parse(Buffer.from(claims, 'base64url').toString() || '{}') as Body
    const now = systemClock.now().getTime() / 1000
    const account = [...this.accounts.values()].find(({ email }) => email === said['iss'])
    const keys = said['iss'] === this.hooks.email ? [this.hooks.publicKey] : [...account?.keys.values() ?? []]
    const signed = keys.some(key => verify(
      'RSA-SHA256', Buffer.from(`${head}.${claims}`), createPublicKey(key),
      Buffer.from(signature, 'base64url')))
    const fits = said['aud'] === this.tokenUri && Number(said['iat']) <= now + 1 && Number(said['exp']) > now
      && Number(said['exp']) - Number(said['iat']) <= 3600 && account?.disabled !== true
    if (signed && fits) return this.tokens.issue()
    return { status: 400, body: { error: 'invalid_grant', error_description: 'Invalid JWT Signature.' } }
  }

  #draw({ scope, lifetime }: Body): Said {
    const seconds = Number(/^(\d+)s$/.exec(String(lifetime))?.[1])
    if (!Array.isArray(scope) || !(seconds <= 3600)) return this.#refused(400, 'INVALID_ARGUMENT')
    const accessToken = `ya29.${randomBytes(20).toString('base64url')}`
    this.drawn.add(accessToken)
    const expireTime = new Date(systemClock.now().getTime() + seconds * 1000).toISOString()
    return { status: 200, body: { accessToken, expireTime } }
  }

  #create(project: string, { accountId, serviceAccount }: Body): Said {
    const id = String(accountId)
    if (!/^[a-z][a-z0-9-]{4,28}[a-z0-9]$/.test(id)) return this.#refused(400, 'INVALID_ARGUMENT')
    const email = `${id}@${project}.iam.gserviceaccount.com`
    if (this.accounts.has(email)) return this.#refused(409, 'ALREADY_EXISTS')
    const { description } = serviceAccount as Body
    this.accounts.set(email, { email, description: String(description), disabled: false, keys: new Map() })
    return { status: 200, body: { email } }
  }

  #key({ email, keys }: Account): Said {
    const { privateKey, publicKey } = keyPair()
    const id = randomBytes(8).toString('hex')
    keys.set(id, publicKey)
    const file = {
      type: 'service_account', client_email: email, private_key: privateKey, token_uri: this.tokenUri
    }
    const privateKeyData = Buffer.from(JSON.stringify(file)).toString('base64')
    return { status: 200, body: { name: id, privateKeyData } }
  }

  #refused(status: number, word: string): Said {
    return { status, body: { error: { code: status, status: word, message: `${word}, it says` } } }
  }
}

function keyPair(): { privateKey: string, publicKey: string } {
  return generateKeyPairSync('rsa', {
    modulusLength: 2048, publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' }
  })
}

export async function startAzure(): Promise<{ azure: Azure, service: Service }> {
  const azure = new Azure()
  return { azure, service: await startService(['graph.microsoft.com'], asked => azure.answer(asked)) }
}

export async function startGoogle(): Promise<{ google: Google, service: Service }> {
  const google = new Google()
  const service = await startService(['iam.googleapis.com'], asked => google.answer(asked))
  google.tokenUri = `https://127.0.0.1:${service.port}/token`
  return { google, service }
}
