// The plugin's way to a service: requests of templates, put together from their parts, to the one address
// that the target's record has, signed as its credential. No template reaches any of the two. What comes
// back is an answer as expected, a refusal (nothing happened), or a loss (it may have happened).
import { SallyportError } from '../../src/errors.ts'
import type { HttpStep } from '../../src/jit/http-text.ts'
import { encodeWord } from '../../src/jit/percent.ts'
import type { Access, HookContext } from '../../src/jit/plugin.ts'
import { openHttp } from '../../src/wire/http/client.ts'
import type { HttpAnswer, HttpClient, HttpRequest } from '../../src/wire/http/client.ts'
import { UpstreamError } from '../../src/wire/error.ts'
import { passwordOf, unreached } from '../reach.ts'
import { StepFailed } from '../steps.ts'
import { authorizationOf } from './login.ts'
import { signAws } from './sigv4.ts'

/** How requests are signed: by the secret's own form, or with AWS' signature. */
export type Signing = 'login' | 'aws'

export interface Link {
  /** @throws StepFailed when nothing was sent, ConnectionLost */
  send(step: HttpStep): Promise<HttpAnswer>
  close(): void
}

type Sign = (request: HttpRequest) => Record<string, string>

/** @throws SallyportError when there is no login; nothing was sent to the target then */
export async function openLink(access: Access, context: HookContext, signing: Signing): Promise<Link> {
  const { target } = access
  context.signal.throwIfAborted()
  let client: HttpClient
  try {
    client = openHttp({
      host: target.host, port: target.port, tls: target.tls, connectMs: context.connectTimeoutMs,
      signal: context.signal
    })
  } catch (error) {
    throw unreached(error, target, context.signal)
  }
  try {
    const sign = signing === 'aws' ? awsSigner(access, client, context) : await loginSigner(access, context)
    return {
      send: step => send(client, step, sign, context),
      close: () => client.close()
    }
  } catch (error) {
    client.close()
    throw error
  }
}

async function loginSigner(access: Access, context: HookContext): Promise<Sign> {
  const authorization = await authorizationOf(access, context)
  return () => ({ authorization })
}

/** `iam.amazonaws.com`, `sts.eu-west-1.amazonaws.com`: service and region are in the name. */
function awsSigner(access: Access, client: HttpClient, context: HookContext): Sign {
  const { target, username } = access
  const secret = passwordOf(access)
  const [, service, region = 'us-east-1'] = /^([a-z0-9-]+)(?:\.([a-z0-9-]+))?\.amazonaws\.com(?:\.cn)?$/.exec(
    client.authority) ?? []
  if (service === undefined) {
    const detail = `${target.name}: ${client.authority} is no name of AWS; its \`tls.serverName\` must be one`
    throw new SallyportError('target-refused', { detail })
  }
  const keys = { accessKeyId: username, secretAccessKey: () => secret }
  return request => signAws(
    { ...request, headers: { ...request.headers, host: client.authority } }, keys, { region, service },
    context.now()
  )
}

async function send(
  client: HttpClient, step: HttpStep, sign: Sign, context: HookContext
): Promise<HttpAnswer> {
  context.signal.throwIfAborted()
  const request = requestOf(step)
  try {
    const headers = { ...request.headers, ...sign(request) }
    return await client.send({ ...request, headers }, context.statementTimeoutMs)
  } catch (error) {
    if (error instanceof UpstreamError) throw new Unsent(error)
    throw error
  }
}

/** The connection was not made, so this step did not happen. */
export class Unsent extends StepFailed {
  constructor(cause: UpstreamError) {
    super(cause.message)
    this.cause = cause
  }
}

/** @throws StepFailed for what no request can carry */
export function requestOf({ method, path, query, headers, json, form }: HttpStep): HttpRequest {
  if (path.split('/').some(segment => /^(?:\.|%2e){1,2}$/i.test(segment))) {
    throw new StepFailed('a segment of the path is a way up', false)
  }
  if (!/^\/[\x21-\x7e]*$/.test(path) || /[?#\\]/.test(path)) throw new StepFailed('the path is none', false)
  for (const [name, value] of Object.entries(headers)) {
    if (!/^[\x20-\x7e]*$/.test(value)) {
      throw new StepFailed(`the header ${name} holds what no header may`, false)
    }
  }
  const pairs = encoded(query)
  const type = json !== undefined
    ? { 'content-type': 'application/json' }
    : form === undefined ? {} : { 'content-type': 'application/x-www-form-urlencoded; charset=utf-8' }
  return {
    method, path: pairs === '' ? path : `${path}?${pairs}`, headers: { accept: '*/*', ...headers, ...type },
    body: json === undefined ? encoded(form ?? {}) : JSON.stringify(json)
  }
}

/** RFC 3986, which is what AWS signs and everybody reads. */
function encoded(values: Readonly<Record<string, string>>): string {
  return Object.entries(values).map(([name, value]) => `${encodeWord(name)}=${encodeWord(value)}`).join('&')
}
