// As whom requests are made: what the credential's secret is decides, never a template. Plain text is a
// password (Basic), or a token for the user name `bearer`. A JSON document is what the vendors hand out: a
// key of a Google service account (a signed JWT is changed for a token, RFC 7523) or the client credentials
// of an application (RFC 6749 section 4.4), in Azure's form or with a `tokenUrl`. The token's address comes
// from that document too, must be https, and its certificate is verified in full.
import { createSign } from 'node:crypto'
import { SallyportError } from '../../src/errors.ts'
import type { Access, HookContext, TargetAddress } from '../../src/jit/plugin.ts'
import { openHttp } from '../../src/wire/http/client.ts'
import type { HttpAnswer } from '../../src/wire/http/client.ts'
import { ConnectionLost } from '../../src/wire/postgres/query.ts'
import { passwordOf, unreached } from '../reach.ts'
import { follow, refusalOf, textOf, valueOf } from './answer.ts'

const jwtSeconds = 300
const tokenCharactersMax = 8192
const googleScope = 'https://www.googleapis.com/auth/cloud-platform'
const graphScope = 'https://graph.microsoft.com/.default'

interface TokenRequest {
  url: string
  form: Record<string, string>
}

/** The value of the `authorization` header. @throws SallyportError */
export async function authorizationOf(access: Access, context: HookContext): Promise<string> {
  const secret = passwordOf(access)
  const { username, target } = access
  if (secret.trimStart().startsWith('{')) {
    return `Bearer ${await fetchToken(tokenRequest(secret, target, context.now()), target, context)}`
  }
  if (/[\0-\x1f\x7f-\uffff]/.test(username + secret)) throw unusable(target, 'is no line of ASCII')
  if (username === 'bearer') return `Bearer ${secret}`
  return `Basic ${Buffer.from(`${username}:${secret}`).toString('base64')}`
}

function unusable({ name }: TargetAddress, why: string): SallyportError {
  return new SallyportError('target-refused', { detail: `${name}: the secret of the login ${why}` })
}

function tokenRequest(secret: string, target: TargetAddress, now: Date): TokenRequest {
  let document: unknown
  try {
    document = JSON.parse(secret)
  } catch {
    throw unusable(target, 'begins as JSON and is none')
  }
  const field = (name: string): string => textOf(follow(document, [{ name }])[0]) ?? ''
  if (field('type') === 'service_account') {
    const url = field('token_uri')
    const assertion = googleAssertion(field('client_email'), url, field('private_key'), target, now)
    return { url, form: { grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion } }
  }
  const id = field('clientId')
  const authority = field('activeDirectoryEndpointUrl') || 'https://login.microsoftonline.com'
  const tenant = field('tenantId')
  if (id === '' || field('clientSecret') === '' || (tenant === '' && field('tokenUrl') === '')) {
    throw unusable(target, 'is JSON without clientId, clientSecret and tokenUrl or tenantId')
  }
  const azure = field('tokenUrl') === ''
  const scope = field('scope') || (azure ? graphScope : '')
  return {
    url: azure
      ? `${authority.replace(/\/+$/, '')}/${encodeURIComponent(tenant)}/oauth2/v2.0/token`
      : field('tokenUrl'),
    form: {
      grant_type: 'client_credentials', client_id: id, client_secret: field('clientSecret'),
      ...scope === '' ? {} : { scope }
    }
  }
}

function googleAssertion(
  email: string, audience: string, privateKey: string, target: TargetAddress, now: Date
): string {
  const seconds = Math.floor(now.getTime() / 1000)
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const claims = { iss: email, scope: googleScope, aud: audience, iat: seconds, exp: seconds + jwtSeconds }
  const text = `${part({ alg: 'RS256', typ: 'JWT' })}.${part(claims)}`
  try {
    return `${text}.${createSign('RSA-SHA256').update(text).sign(privateKey, 'base64url')}`
  } catch {
    throw unusable(target, 'has no private key that signs')
  }
}

/** @throws SallyportError: nothing was sent to the target itself */
async function fetchToken(
  { url, form }: TokenRequest, target: TargetAddress, context: HookContext
): Promise<string> {
  const parsed = URL.canParse(url) ? new URL(url) : undefined
  if (parsed?.protocol !== 'https:') throw unusable(target, 'names no https address for tokens')
  const { hostname, port, pathname, search } = parsed
  const client = openHttp({
    host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 443), signal: context.signal,
    tls: { mode: 'verify-full', ca: target.tls.ca }, connectMs: context.connectTimeoutMs
  })
  try {
    const headers = { 'content-type': 'application/x-www-form-urlencoded', 'accept': 'application/json' }
    const body = new URLSearchParams(form).toString()
    const answer = await client.send(
      { method: 'POST', path: pathname + search, headers, body }, context.statementTimeoutMs
    )
    return tokenIn(answer, target)
  } catch (error) {
    // Whether a token was made there does not matter: nobody has it.
    if (!(error instanceof ConnectionLost)) throw unreached(error, target, context.signal)
    const detail = `${target.name}: no answer from the token endpoint: ${error.message}`
    throw new SallyportError('target-unreachable', { detail })
  } finally {
    client.close()
  }
}

function tokenIn(answer: HttpAnswer, target: TargetAddress): string {
  if (answer.status !== 200) {
    const { status, code } = refusalOf(answer)
    const detail = `${target.name}: the token endpoint answered ${status} ${code}`
    const away = status >= 500 || status === 429
    throw new SallyportError(away ? 'target-unreachable' : 'target-refused', { detail })
  }
  let token: string | undefined
  try {
    token = textOf(follow(valueOf(answer), [{ name: 'access_token' }])[0])
  } catch {
    // No JSON, so no token.
  }
  if (token !== undefined && token.length <= tokenCharactersMax && /^[\x21-\x7e]+$/.test(token)) return token
  throw new SallyportError('target-violation', { detail: `${target.name}: the token endpoint gave no token` })
}
