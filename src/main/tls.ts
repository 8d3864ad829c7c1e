// Key and certificate of the listeners: the admin's files, or our own, made at the first start and renewed
// before they run out. Our own certificate is its own authority: `data/tls/ca.pem` is what clients name as
// `sslrootcert`.
import { X509Certificate } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import type { Clock } from '../clock.ts'
import type { Config } from '../config.ts'
import { selfSignedCertificate } from '../wire/x509.ts'

/** PEM texts. */
export interface ListenerKeys {
  key: string
  certificate: string
}

const dayMs = 86_400_000
// Some TLS libraries refuse certificates of over 825 days.
const validDays = 820
const renewDays = 60

export function listenerKeys(config: Config, clock: Clock): ListenerKeys {
  const { files, names } = config.tls
  if (files !== undefined) {
    return { key: readFileSync(files.key, 'utf8'), certificate: readFileSync(files.certificate, 'utf8') }
  }
  const folder = join(config.data, 'tls')
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const [keyFile, certificateFile] = [join(folder, 'server.key'), join(folder, 'ca.pem')]
  const wanted = [...new Set(['localhost', '127.0.0.1', '::1', hostname(), ...hostsOf(config), ...names])]
  const existing = existsSync(keyFile) ? readFileSync(keyFile, 'utf8') : undefined
  if (existing !== undefined && existsSync(certificateFile)) {
    const certificate = readFileSync(certificateFile, 'utf8')
    if (serves(new X509Certificate(certificate), wanted, clock)) return { key: existing, certificate }
  }
  const now = clock.now().getTime()
  const made = selfSignedCertificate({
    commonName: `Sallyport ${config.node}`, names: wanted,
    validFrom: new Date(now - dayMs), validUntil: new Date(now + validDays * dayMs),
    ...existing === undefined ? {} : { privateKey: existing }
  })
  writeWhole(keyFile, made.privateKey, 0o600)
  writeWhole(certificateFile, made.certificate, 0o644)
  return { key: made.privateKey, certificate: made.certificate }
}

function hostsOf({ listen }: Config): string[] {
  return Object.values(listen).flatMap(at =>
    at === undefined || /^(0\.0\.0\.0|::)$/.test(at.host) ? [] : [at.host])
}

function serves(certificate: X509Certificate, names: readonly string[], clock: Clock): boolean {
  const left = Date.parse(certificate.validTo) - clock.now().getTime()
  return left > renewDays * dayMs &&
    names.every(name => certificate.checkHost(name) !== undefined || certificate.checkIP(name) !== undefined)
}

function writeWhole(file: string, text: string, mode: number): void {
  writeFileSync(`${file}.new`, text, { mode })
  renameSync(`${file}.new`, file)
}
