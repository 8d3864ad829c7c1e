// The console's token in a browser: a cookie that no script can read, that goes over TLS only, and only with
// requests of our own pages. The browser forgets it when it is closed, the store when the token expires.
// SameSite is the browser's promise; that a request really is our own page's is looked at here once more,
// because a cookie is sent whoever made the browser send it.

/** `__Host-`: browsers take it only over TLS, for this host alone, never from a subdomain. */
export const cookieName = '__Host-sallyport'

const attributes = 'Path=/; Secure; HttpOnly; SameSite=Strict'
export const clearedCookie = `${cookieName}=; Max-Age=0; ${attributes}`

export function cookieOf(token: string): string {
  return `${cookieName}=${token}; ${attributes}`
}

/** The token of a `Cookie` header. */
export function tokenOfCookie(header: string | undefined): string | undefined {
  for (const pair of header?.split(';') ?? []) {
    const [name, value] = pair.trim().split('=', 2)
    if (name === cookieName && value !== undefined && /^[\x21-\x7e]{1,200}$/.test(value)) return value
  }
  return undefined
}

/**
 * Whether a page of this very host asks. What changes something needs the `Origin` that browsers send with
 * it; what reads is refused when a newer browser says that the request is another page's.
 */
export function isOwnPage(method: string, headers: Readonly<Record<string, string | undefined>>): boolean {
  if (method !== 'GET' && method !== 'HEAD') return headers['origin'] === `https://${headers['host'] ?? ''}`
  const site = headers['sec-fetch-site']
  return site === undefined || site === 'same-origin'
}
