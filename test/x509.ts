// The certificate that a node makes for itself must satisfy the strictest client: OpenSSL's verifier with
// host name and purpose checks, and Node's own reader. The journey with psql and `sslmode=verify-full` is in
// journeys/.
import { execFileSync, spawnSync } from 'node:child_process'
import { X509Certificate, createPrivateKey } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { programOf } from '../tool/services.ts'
import { tlsServerEndPoint } from '../src/wire/postgres/channel-binding.ts'
import { selfSignedCertificate } from '../src/wire/x509.ts'

const validFrom = new Date('2026-01-01T00:00:00Z')
const validUntil = new Date('2056-06-30T12:34:56Z')
const addresses = ['127.0.0.1', '::1', '2001:db8::ff00:42:8329']
const names = ['localhost', 'db-proxy.example.org', '*.apps.example.org', ...addresses]
const request = { commonName: 'sallyport on node-1', names, validFrom, validUntil }

function openssl(...words: string[]): string {
  return execFileSync(programOf('openssl'), words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
}

test('openssl verifies it for every name and as a server, and for nothing else', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sallyport-x509-'))
  try {
    const file = join(folder, 'server.crt')
    writeFileSync(file, selfSignedCertificate(request).certificate)
    const verify = (...words: string[]): number | null => spawnSync(programOf('openssl'), [
      'verify', '-x509_strict', '-attime', '1790000000', '-CAfile', file, '-purpose', 'sslserver',
      ...words, file
    ]).status
    for (const name of ['localhost', 'db-proxy.example.org', 'billing.apps.example.org']) {
      assert.is(verify('-verify_hostname', name), 0, name)
    }
    for (const address of addresses) {
      assert.is(verify('-verify_ip', address), 0, address)
    }
    assert.is.not(verify('-verify_hostname', 'example.org'), 0)
    assert.is.not(verify('-verify_ip', '127.0.0.2'), 0)
    assert.is.not(verify('-purpose', 'sslclient'), 0)
    const text = openssl('x509', '-in', file, '-noout', '-text')
    const until = 'Not After : Jun 30 12:34:56 2056 GMT'
    for (const line of ['ecdsa-with-SHA256', 'CA:FALSE', 'NIST CURVE: P-256', until]) {
      assert.ok(text.includes(line), line)
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('its key belongs to it, survives a renewal, and its serial does not', () => {
  const first = selfSignedCertificate(request)
  const second = selfSignedCertificate({ ...request, privateKey: first.privateKey })
  const [one, two] = [new X509Certificate(first.certificate), new X509Certificate(second.certificate)]
  assert.ok(one.checkPrivateKey(createPrivateKey(first.privateKey)))
  assert.ok(two.verify(one.publicKey))
  assert.is(second.privateKey, first.privateKey)
  assert.is.not(one.serialNumber, two.serialNumber)
  assert.is(one.subject, 'O=Sallyport\nCN=sallyport on node-1')
  assert.is(one.validToDate.toISOString(), '2056-06-30T12:34:56.000Z')
})

test('channel binding has its hash', () => {
  const { certificate } = selfSignedCertificate(request)
  assert.is(tlsServerEndPoint(new X509Certificate(certificate).raw)?.length, 32)
})

test('what is no name, no address or another kind of key is refused', () => {
  for (const name of ['', 'a b', '-a.example', 'a..b', 'x.*.y', 'fe80::1%eth0', 'a\0b', 'x'.repeat(254)]) {
    assert.throws(() => selfSignedCertificate({ ...request, names: [name] }), /name|zone/, name)
  }
  assert.throws(() => selfSignedCertificate({ ...request, names: [] }), /1 to 100 names/)
  assert.throws(() => selfSignedCertificate({ ...request, commonName: 'x'.repeat(65) }), /64 characters/)
  const rsa = openssl('genrsa', '2048')
  assert.throws(() => selfSignedCertificate({ ...request, privateKey: rsa }), /P-256/)
})

test.run()
