// The two addresses of a login at an identity provider: one sends the browser there, the other takes it back.
// They are no routes of the API, since browsers come by links and are sent on; a refusal is a page of its
// own. What the browser keeps meanwhile is a cookie that comes along with the way back (Lax), and opens
// nothing.
import type { Context, Hono } from 'hono'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import { SallyportError, asSallyportError, errorTable } from '../errors.ts'
import type { Bindings } from './api.ts'
import { cookieOf } from './cookie.ts'
import { logInByProvider } from './oidc-people.ts'
import type { ApiPorts } from './ports.ts'
import type { OidcPort } from './ports-login.ts'

const beginPath = '/login/oidc'
const cookieName = '__Host-sallyport-oidc'
const cookieSeconds = 900
const attributes = 'Path=/; Secure; HttpOnly; SameSite=Lax'
/** Pages of ours that somebody may have been on the way to. */
const pagePattern = /^\/console\/[\w/.-]{0,200}(#[\w-]{0,64})?$/

type HonoContext = Context<{ Bindings: Bindings }>

/** Adds the addresses; without a provider there are none. */
export function serveOidc(app: Hono<{ Bindings: Bindings }>, ports: ApiPorts, tokenSeconds: number): void {
  const { oidc } = ports.logins
  if (oidc === undefined) return
  app.get(beginPath, context => answered(ports, context, () => begin(oidc, context)))
  app.get(`${beginPath}/callback`, context => answered(ports, context, async () => {
    const address = addressOf(context)
    ports.passwords.admit(address)
    const { ticket, page } = readCookie(context.req.header('cookie'))
    context.header('set-cookie', `${cookieName}=; Max-Age=0; ${attributes}`)
    const found = await oidc.finish(new URL(context.req.url).search, ticket)
    const ttlSeconds = Math.min(tokenSeconds, oidc.sessionSeconds)
    const { token } = await logInByProvider(ports, oidc, found, address, ttlSeconds)
    context.header('set-cookie', cookieOf(token), { append: true })
    return context.redirect(page)
  }))
}

async function begin(oidc: OidcPort, context: HonoContext): Promise<Response> {
  const wanted = context.req.query('to') ?? ''
  const page = pagePattern.test(wanted) ? wanted : '/console/'
  // The provider sends people back to the console's own name: the cookie must be there.
  if (`https://${context.req.header('host') ?? ''}` !== oidc.origin) {
    const query = page === '/console/' ? '' : `?to=${encodeURIComponent(page)}`
    if (context.req.query('here') === undefined) {
      return context.redirect(`${oidc.origin}${beginPath}${query}${query === '' ? '?' : '&'}here`)
    }
  }
  const { address, ticket } = await oidc.begin()
  const value = `${ticket}.${Buffer.from(page).toString('base64url')}`
  context.header('set-cookie', `${cookieName}=${value}; Max-Age=${cookieSeconds}; ${attributes}`)
  return context.redirect(address)
}

function readCookie(header: string | undefined): { ticket: string | undefined, page: string } {
  const pair = header?.split(';').map(each => each.trim()).find(each => each.startsWith(`${cookieName}=`))
  const [ticket, page = ''] = pair?.slice(cookieName.length + 1).split('.') ?? []
  const wanted = Buffer.from(page, 'base64url').toString('utf8')
  return { ticket, page: pagePattern.test(wanted) ? wanted : '/console/' }
}

async function answered(
  ports: ApiPorts, context: HonoContext, act: () => Promise<Response>
): Promise<Response> {
  try {
    return await act()
  } catch (thrown) {
    const error = asSallyportError(thrown)
    const { code, detail, reference } = error
    const address = addressOf(context)
    // Any page can send its visitors here; only what this browser began counts against its address.
    const isBegun = readCookie(context.req.header('cookie')).ticket !== undefined
    if (isBegun && (code === 'provider-refused' || code === 'no-such-person')) {
      ports.passwords.tried(address, false)
      const said = { protocol: 'https', why: detail, code, reference }
      await ports.audit.append('login.refused', '?', address, said)
    }
    if (errorTable[code].http >= 500) ports.failed(error, `GET ${context.req.path}`)
    return refusalPage(context, error)
  }
}

/** No script and no text but our own sentence. */
function refusalPage(context: HonoContext, error: SallyportError): Response {
  const { client, http } = errorTable[error.code]
  const sentence = `${client.charAt(0).toUpperCase()}${client.slice(1)}.`
  return context.html(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sallyport</title>
<meta name="viewport" content="width=device-width, initial-scale=1"></head>
<body><h1>Not logged in</h1>
<p role="alert">${sentence} <code>${error.code} ${error.reference}</code></p>
<p><a href="/console/">Back to the console</a></p></body></html>
`, http as ContentfulStatusCode)
}

function addressOf(context: HonoContext): string {
  return context.env?.incoming?.socket.remoteAddress ?? ''
}
