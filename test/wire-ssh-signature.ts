// Signatures and certificates as OpenSSH's own tools make them: ssh-keygen signs, we judge.
import { spawnSync } from 'node:child_process'
import { createHash, generateKeyPairSync, sign } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { systemClock } from '../src/clock.ts'
import { isCertificateType, readCertificate, signCertificate } from '../src/wire/ssh/certificate.ts'
import { SshReader, sshFields, sshUint32 } from '../src/wire/ssh/data.ts'
import { blobOf, generateSshKey } from '../src/wire/ssh/key.ts'
import { algorithmsOf, ecdsaSignature, verifySignature } from '../src/wire/ssh/signature.ts'
import { readHostKey, readPrivateKey } from '../src/proxy/ssh/ssh2.ts'
import { programOf } from '../tool/services.ts'

const folder = mkdtempSync(join(tmpdir(), 'sallyport-signature-'))
test.after(() => rmSync(folder, { recursive: true }))

function keygen(...words: string[]): string {
  const done = spawnSync(programOf('ssh-keygen'), words, { encoding: 'utf8', cwd: folder })
  assert.is(done.status, 0, done.stderr)
  return done.stdout
}

function newKey(name: string, ...words: string[]): Buffer {
  keygen('-q', '-t', ...words, '-N', '', '-f', name)
  return blobOf(readFileSync(join(folder, `${name}.pub`), 'utf8'))
}

/** A signature in OpenSSH's file format (PROTOCOL.sshsig): what was signed and the blob. */
function signedBy(name: string, text: string): { data: Buffer, signature: Buffer, algorithm: string } {
  const file = join(folder, 'message')
  writeFileSync(file, text)
  rmSync(`${file}.sig`, { force: true })
  keygen('-q', '-Y', 'sign', '-f', name, '-n', 'test', file)
  const body = readFileSync(`${file}.sig`, 'utf8').replace(/-----.*-----|\n/g, '')
  const reader = new SshReader(Buffer.from(body, 'base64'), 6)
  reader.uint32()
  const [, namespace, reserved, hash, signature] = Array.from({ length: 5 }, () => reader.bytes())
  const digest = createHash(hash!.toString()).update(text).digest()
  const data = Buffer.concat([Buffer.from('SSHSIG'), sshFields(namespace!, reserved!, hash!, digest)])
  return { data, signature: signature!, algorithm: new SshReader(signature!).text() }
}

const kinds: [string, ...string[]][] = [
  ['ed25519'], ['ecdsa', '-b', '256'], ['ecdsa', '-b', '384'], ['ecdsa', '-b', '521'], ['rsa', '-b', '2048']
]
for (const [index, kind] of kinds.entries()) {
  test(`a signature of ssh-keygen holds for its key and text only (${kind.join(' ')})`, () => {
    const blob = newKey(`key${index}`, ...kind)
    const { data, signature, algorithm } = signedBy(`key${index}`, 'hello')
    assert.equal(verifySignature(blob, algorithm, signature, data), {})
    const other = newKey(`other${index}`, ...kind)
    assert.is(verifySignature(other, algorithm, signature, data), undefined)
    assert.is(verifySignature(blob, algorithm, signature, Buffer.concat([data, Buffer.of(0)])), undefined)
    for (let at = 0; at < signature.length; at += 7) {
      const bent = Buffer.from(signature)
      bent[at]! ^= 1
      assert.is(verifySignature(blob, algorithm, bent, data), undefined, `byte ${at}`)
      assert.is(verifySignature(blob, algorithm, signature.subarray(0, at), data), undefined, `cut at ${at}`)
    }
    assert.is(verifySignature(blob, 'ssh-dss', signature, data), undefined)
  })

  test(`as a host key of ours it signs what holds (${kind.join(' ')})`, () => {
    const host = readHostKey(readFileSync(join(folder, `key${index}`), 'utf8'))
    const data = Buffer.from('an exchange hash')
    for (const algorithm of algorithmsOf(host.type)) {
      const made = host.sign(data, algorithm.startsWith('rsa-') ? `sha${algorithm.slice(-3)}` : undefined)
      if (made instanceof Error) throw made
      const signature = sshFields(algorithm, kind[0] === 'ecdsa' ? ecdsaSignature(made) : made)
      assert.equal(verifySignature(host.getPublicSSH(), algorithm, signature, data), {})
    }
  })
}

test('RSA with SHA-1, short RSA keys and unknown kinds are nothing', () => {
  assert.equal(algorithmsOf('ssh-rsa'), ['rsa-sha2-256', 'rsa-sha2-512'])
  assert.equal(algorithmsOf('ssh-dss'), [])
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 1024 })
  const { n, e } = publicKey.export({ format: 'jwk' })
  const bytes = (text?: string): Buffer => Buffer.concat([Buffer.of(0), Buffer.from(text ?? '', 'base64url')])
  const blob = sshFields('ssh-rsa', bytes(e), bytes(n))
  const data = Buffer.from('x')
  const signature = sshFields('rsa-sha2-256', sign('sha256', data, privateKey))
  assert.is(verifySignature(blob, 'rsa-sha2-256', signature, data), undefined)
})

test('a FIDO key says whether it was touched, and signs that too', () => {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const x = Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url')
  const [application, data] = [Buffer.from('ssh:'), Buffer.from('challenge')]
  const blob = sshFields('sk-ssh-ed25519@openssh.com', x, application)
  const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest()
  const signature = (flags: number, claimed = flags): Buffer => {
    const rest = Buffer.concat([Buffer.of(flags), sshUint32(9)])
    const value = sign(null, Buffer.concat([sha256(application), rest, sha256(data)]), privateKey)
    return Buffer.concat([
      sshFields('sk-ssh-ed25519@openssh.com', value), Buffer.of(claimed), sshUint32(9)
    ])
  }
  const judged = (bytes: Buffer): unknown =>
    verifySignature(blob, 'sk-ssh-ed25519@openssh.com', bytes, data)?.presence
  assert.equal(judged(signature(0)), { touched: false, verified: false })
  assert.equal(judged(signature(1)), { touched: true, verified: false })
  assert.equal(judged(signature(5)), { touched: true, verified: true })
  assert.is(judged(signature(0, 1)), undefined, 'a flag that was not signed')
})

test('a user certificate of ssh-keygen is read, one that was changed is not', () => {
  newKey('ca', 'ed25519')
  for (const [index, kind] of [['ed25519'], ['ecdsa', '-b', '256'], ['rsa', '-b', '2048']].entries()) {
    const plain = newKey(`user${index}`, ...kind as [string])
    keygen('-q', '-s', 'ca', '-I', 'alice at work', '-n', 'alice,ops', '-V', '-5m:+10m', '-z', '7',
      '-O', 'source-address=10.0.0.0/8', `user${index}.pub`)
    const blob = blobOf(readFileSync(join(folder, `user${index}-cert.pub`), 'utf8'))
    const certificate = readCertificate(blob)
    assert.equal([certificate.kind, certificate.keyId, certificate.serial], ['user', 'alice at work', 7n])
    assert.equal(certificate.principals, ['alice', 'ops'])
    assert.is(certificate.criticalOptions.get('source-address'), '10.0.0.0/8')
    assert.ok(certificate.key.equals(plain))
    assert.ok(certificate.validBefore - certificate.validAfter >= 899n)
    for (let at = 0; at < blob.length; at += 11) {
      const bent = Buffer.from(blob)
      bent[at]! ^= 4
      assert.throws(() => readCertificate(bent), undefined, `byte ${at}`)
    }
  }
  assert.not(isCertificateType('ssh-ed25519'))
})

test('a host certificate of ours is one that ssh-keygen understands', () => {
  const [host, authority] = [generateSshKey(), generateSshKey()]
  const key = readPrivateKey(authority.privateKey)
  const now = systemClock.now().getTime()
  const blob = signCertificate(key, {
    kind: 'host', key: blobOf(host.publicKey), keyId: 'web01', principals: ['web01', '10.0.0.5'], serial: 3n,
    validAfter: new Date(now - 60_000), validBefore: new Date(now + 3_600_000)
  })
  assert.is(readCertificate(blob).kind, 'host')
  const line = `ssh-ed25519-cert-v01@openssh.com ${blob.toString('base64')}\n`
  writeFileSync(join(folder, 'host-cert.pub'), line)
  const shown = keygen('-L', '-f', 'host-cert.pub')
  assert.match(shown, /host certificate/)
  assert.match(shown, /web01\n\s+10\.0\.0\.5/)
})

test('a user certificate says no more than it was asked to, and never opens every account', () => {
  const [user, authority] = [generateSshKey(), generateSshKey()]
  const request = {
    kind: 'user' as const, key: blobOf(user.publicKey), keyId: 'session 1', principals: ['jit_1'], serial: 1n,
    validAfter: systemClock.now(), validBefore: systemClock.now(),
    criticalOptions: { 'source-address': '10.0.0.5' }, extensions: ['permit-pty', 'permit-agent-forwarding']
  }
  const key = readPrivateKey(authority.privateKey)
  const blob = signCertificate(key, request)
  const { extensions, criticalOptions } = readCertificate(blob)
  assert.equal([...extensions.keys()], ['permit-agent-forwarding', 'permit-pty'])
  assert.equal([...criticalOptions], [['source-address', '10.0.0.5']])
  const line = `ssh-ed25519-cert-v01@openssh.com ${blob.toString('base64')}\n`
  writeFileSync(join(folder, 'account-cert.pub'), line)
  assert.match(keygen('-L', '-f', 'account-cert.pub'), /source-address 10\.0\.0\.5\n/)
  assert.throws(() => signCertificate(key, { ...request, principals: [] }), /without a principal/)
})

test.run()
