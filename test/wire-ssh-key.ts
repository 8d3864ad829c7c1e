// Keys and data types of SSH, read back by OpenSSH itself.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { WireError } from '../src/wire/error.ts'
import { SshReader, sshFields } from '../src/wire/ssh/data.ts'
import { blobOf, fingerprintOf, generateSshKey, typeOf } from '../src/wire/ssh/key.ts'
import { programOf } from '../tool/services.ts'

const folder = mkdtempSync(join(tmpdir(), 'sallyport-key-'))
test.after(() => rmSync(folder, { recursive: true }))

test('a drawn key is one that ssh-keygen reads, with our public line and fingerprint', () => {
  const { privateKey, publicKey } = generateSshKey()
  const file = join(folder, 'key')
  writeFileSync(file, privateKey, { mode: 0o600 })
  const shown = spawnSync(programOf('ssh-keygen'), ['-y', '-f', file], { encoding: 'utf8' })
  assert.is(shown.stdout.trim(), publicKey, shown.stderr)
  const listed = spawnSync(programOf('ssh-keygen'), ['-l', '-f', file], { encoding: 'utf8' })
  assert.match(listed.stdout, fingerprintOf(blobOf(publicKey)))
  assert.is(typeOf(blobOf(publicKey)), 'ssh-ed25519')
  assert.is.not(generateSshKey().publicKey, publicKey)
})

test('what was packed is read again, and nothing is read past an end', () => {
  const reader = new SshReader(sshFields('name', 7, true, Buffer.of(1, 2), 'a,b', ''))
  assert.equal([reader.text(), reader.uint32(), reader.boolean()], ['name', 7, true])
  assert.equal([[...reader.bytes()], reader.names(), reader.names()], [[1, 2], ['a', 'b'], []])
  assert.is(reader.left, 0)
  for (const bytes of [[], [0, 0, 0], [0, 0, 0, 1], [0xff, 0xff, 0xff, 0xff, 1]]) {
    assert.throws(() => new SshReader(Buffer.from(bytes)).bytes(), (thrown: unknown) =>
      thrown instanceof WireError)
  }
  assert.throws(() => blobOf('ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAA'), (thrown: unknown) =>
    thrown instanceof WireError)
})

test.run()
