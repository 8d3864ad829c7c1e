// The native ciphers of ssh2 must survive the collection of garbage: built with the headers of Node 24.19 and
// later as they are, the whole process aborts when one of them is collected while no JavaScript runs.
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { withoutHooks } from '../tool/native.ts'

const header = join(dirname(dirname(process.execPath)), 'include/node/node_object_wrap.h')
const binding = resolve(
  import.meta.dirname, '../node_modules/ssh2/lib/protocol/crypto/build/Release/sshcrypto.node')

test('the header that the binding is built with takes back no hook', () => {
  const changed = withoutHooks(readFileSync(header, 'utf8'))
  assert.not.match(changed, /^\s*(?:Add|Remove)CleanupHook\(\);/m)
  assert.match(changed, /virtual ~ObjectWrap\(\)/)
})

test('the binding, where there is one, calls none', () => {
  const bytes = existsSync(binding) ? readFileSync(binding) : Buffer.alloc(0)
  assert.not.ok(bytes.includes('EnvironmentCleanupHook'), 'built anew: npm rebuild')
})

test.run()
