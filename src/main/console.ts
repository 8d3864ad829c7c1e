// The web console's files, read when the first browser comes and kept: our own TypeScript with its types
// taken out (Node does that by itself, so there is no build), and the libraries as they are published. What
// is not in this table is not served. An import map tells the browser where the libraries are.
import { createHash } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ConsoleFile, ConsoleFiles } from '../api/console.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** By the name that our files import. */
const libraries = {
  preact: 'preact/dist/preact.mjs',
  'preact/hooks': 'preact/hooks/dist/hooks.mjs',
  htm: 'htm/dist/htm.module.js'
} as const
/** Loaded by the session's page when there is a terminal to show. */
const player = ['asciinema-player.min.js', 'asciinema-player.css'] as const
/** Loaded by the page that has a shell. */
const xterm = [
  '@xterm/xterm/lib/xterm.mjs', '@xterm/xterm/css/xterm.css', '@xterm/addon-fit/lib/addon-fit.mjs'
]
/** Of other rooms: what text of strangers looks like, and how an address is made, is said once. */
const shared = ['api/calling.ts', 'recording/inert.ts'] as const

const contentTypes: Readonly<Record<string, string>> = {
  ts: 'text/javascript; charset=utf-8', js: 'text/javascript; charset=utf-8',
  mjs: 'text/javascript; charset=utf-8', css: 'text/css; charset=utf-8', svg: 'image/svg+xml'
}

/** Reads at the first call; the same afterwards. */
export function consoleFiles(): () => ConsoleFiles {
  let read: ConsoleFiles | undefined
  return () => read ??= readConsole()
}

function readConsole(): ConsoleFiles {
  const files = new Map<string, ConsoleFile>()
  const add = (path: string, text: string): void => {
    const contentType = contentTypes[path.split('.').at(-1)!]!
    files.set(path, { contentType, body: new Uint8Array(Buffer.from(text)) })
  }
  const own = readdirSync(join(root, 'src/console')).filter(name => /\.(ts|css|svg)$/.test(name)).sort()
  for (const path of [...own.map(name => `console/${name}`), ...shared]) {
    const text = readFileSync(join(root, 'src', path), 'utf8')
    add(path, path.endsWith('.ts') ? withoutTypes(text) : text)
  }
  for (const path of Object.values(libraries)) add(`npm/${path}`, ofPackage(path))
  for (const name of player) add(`player/${name}`, ofPackage(`asciinema-player/dist/bundle/${name}`))
  for (const path of xterm) add(`xterm/${basename(path)}`, ofPackage(path))
  const hash = createHash('sha256')
  for (const [path, { body }] of files) hash.update(path).update(body)
  const digest = hash.digest('hex').slice(0, 16)
  const at = `/console/${digest}`
  const imports = Object.fromEntries(
    Object.entries(libraries).map(([name, path]) => [name, `${at}/npm/${path}`]))
  const inline = JSON.stringify({ imports })
  const inlineSha256 = createHash('sha256').update(inline).digest('base64')
  const modules = [...files.keys()].filter(path =>
    /\.m?[jt]s$/.test(path) && !/^(player|xterm)\//.test(path))
  return { digest, files, html: page(at, inline, modules), inlineSha256 }
}

function ofPackage(path: string): string {
  const text = readFileSync(join(root, 'node_modules', path), 'utf8')
  return text.replace(/\n\/\/# sourceMappingURL=\S+\s*$/, '\n')
}

/** The modules are named in advance: else each is asked for only when the one before has been read. */
function page(at: string, importMap: string, modules: readonly string[]): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Sallyport</title>
<link rel="icon" href="${at}/console/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="${at}/console/style.css">
<script type="importmap">${importMap}</script>
${modules.map(path => `<link rel="modulepreload" href="${at}/${path}">`).join('\n')}
<script type="module" src="${at}/console/main.ts"></script>
</head>
<body>
<div id="root"></div>
<noscript>The console needs JavaScript; the command line tool does not.</noscript>
</body>
</html>
`
}

/** Node calls its own function experimental, on standard error and at every start: we test what comes out. */
function withoutTypes(text: string): string {
  const { emitWarning } = process
  process.emitWarning = () => undefined
  try {
    return stripTypeScriptTypes(text)
  } finally {
    process.emitWarning = emitWarning
  }
}
