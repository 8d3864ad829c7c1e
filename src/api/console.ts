// Sends the web console to browsers: one page for every address under `/console/`, and the files that it
// loads, from a table that was read once (main/console.ts). A request never names a file on the disk. What a
// page may do is in its Content-Security-Policy: own scripts, no inline code, nobody's frame, and text that
// somebody typed cannot become markup (trusted types). Only the page that shows a terminal may start the
// player's WebAssembly.
import { gzipSync } from 'node:zlib'
import type { Hono } from 'hono'
import type { Bindings } from './api.ts'

export interface ConsoleFile {
  contentType: string
  body: Uint8Array<ArrayBuffer>
}

export interface ConsoleFiles {
  /** The page; its scripts and styles are at `/console/DIGEST/PATH`. */
  html: string
  /** Of its one inline script, the import map: base64 of SHA-256. */
  inlineSha256: string
  /** Over all files: an address with it never changes what it stands for. */
  digest: string
  /** By path. */
  files: ReadonlyMap<string, ConsoleFile>
}

/** Pages on which the player runs. */
const playerPage = /^\/console\/sessions\/[0-9a-z]+\/?$/
const yearSeconds = 31_536_000

/** Adds the console's addresses; `read` is called when the first browser comes. */
export function serveConsole(app: Hono<{ Bindings: Bindings }>, read: () => ConsoleFiles): void {
  let files: ConsoleFiles | undefined
  const packed = new Map<string, Uint8Array<ArrayBuffer>>()
  app.get('/', context => context.redirect('/console/'))
  app.get('/console', context => context.redirect('/console/'))
  app.get('/console/*', context => {
    files ??= read()
    const [, , digest, ...rest] = context.req.path.split('/')
    const path = rest.join('/')
    const file = digest === files.digest ? files.files.get(path) : undefined
    if (file === undefined) {
      // What looks like a file is one of another version: the page must not come in its place.
      if (/\.\w+$/.test(context.req.path)) return context.notFound()
      return context.body(files.html, 200, pageHeaders(context.req.path, files.inlineSha256))
    }
    const headers = {
      'content-type': file.contentType, 'cache-control': `public, max-age=${yearSeconds}, immutable`,
      etag: `"${files.digest}"`, vary: 'accept-encoding'
    }
    if (context.req.header('if-none-match') === headers.etag) return context.body(null, 304, headers)
    if (!/\bgzip\b/.test(context.req.header('accept-encoding') ?? '')) {
      return context.body(file.body, 200, headers)
    }
    const body = packed.get(path) ?? new Uint8Array(gzipSync(file.body))
    packed.set(path, body)
    return context.body(body, 200, { ...headers, 'content-encoding': 'gzip' })
  })
}

function pageHeaders(path: string, inlineSha256: string): Record<string, string> {
  const plays = playerPage.test(path)
  const policy = [
    "default-src 'self'", `script-src 'self' 'sha256-${inlineSha256}'${plays ? " 'wasm-unsafe-eval'" : ''}`,
    "object-src 'none'", "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'",
    // The player makes its own elements from its own markup.
    ...plays ? [] : ["require-trusted-types-for 'script'", "trusted-types 'none'"]
  ]
  return {
    'content-type': 'text/html; charset=utf-8', 'content-security-policy': policy.join('; '),
    'cross-origin-opener-policy': 'same-origin', 'cross-origin-resource-policy': 'same-origin'
  }
}
