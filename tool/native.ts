// Runs after `npm install`: builds ssh2's native crypto for the Node that will run the product, which is the
// one in node_modules and not the one that runs npm; its headers are in the same package. Without a compiler
// or Python the product works with JavaScript crypto, at some three times the CPU for each byte: that is said
// here in one line, and again at each start. ssh2's own install script would build for the wrong Node.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'

const root = resolve(import.meta.dirname, '..')

/**
 * From 24.19 on Node's header for native objects takes back a hook when one is collected, and that aborts
 * the process whenever no JavaScript runs at that moment (nodejs/node#65446, mscdex/ssh2#1511). The binding
 * needs no hook: it is built with the header of before, which is this one without those two calls.
 */
export function withoutHooks(header: string): string {
  return header.replace(/^\s*(?:Add|Remove)CleanupHook\(\);\n/gm, '')
}

/** Undefined when the binding is built; otherwise why not, in one line. */
export function buildSshCrypto(gyp: string | undefined): string | undefined {
  const folder = join(root, 'node_modules/ssh2/lib/protocol/crypto')
  const headers = dirname(dirname(process.execPath))
  if (!existsSync(folder)) return 'ssh2 is not installed'
  if (gyp === undefined) return 'npm gave no node-gyp: run `npm rebuild` or `npm ci`'
  if (!existsSync(join(headers, 'include/node/node.h'))) return `no headers beside ${process.execPath}`
  const opensslMajor = process.versions.openssl.split('.')[0]
  const headerFolder = mkdtempSync(join(tmpdir(), 'sallyport-native-'))
  const header = join(headerFolder, 'node_object_wrap.h')
  const original = join(headers, 'include/node/node_object_wrap.h')
  writeFileSync(header, withoutHooks(readFileSync(original, 'utf8')))
  const words = [gyp, `--nodedir=${headers}`, `--real_openssl_major=${opensslMajor}`, 'rebuild']
  const done = spawnSync(process.execPath, words, {
    cwd: folder, encoding: 'utf8',
    // Its own guard makes it the only one.
    env: { ...process.env, npm_config_nodedir: headers, CXXFLAGS: `-include ${header}` }
  })
  rmSync(headerFolder, { recursive: true, force: true })
  if (done.status === 0) return undefined
  const said = `${done.stdout}\n${done.stderr}`.split('\n').filter(line => /\b(ERR|error)\b/i.test(line))
  return done.error?.message ?? said[0]?.trim() ?? `node-gyp ended with ${done.status}`
}

if (import.meta.main) {
  const why = buildSshCrypto(process.env['npm_config_node_gyp'])
  if (why !== undefined) process.stderr.write(`ssh2 goes without native crypto: ${why}\n`)
}
