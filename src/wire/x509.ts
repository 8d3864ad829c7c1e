// A self-signed certificate (X.509 v3, RFC 5280) for the listeners of a node that was given none. Node can
// read certificates but not make them, and a machine that has only npm has no openssl, so the few DER
// structures that one certificate needs are written here. The key is EC P-256 and signs with SHA-256; every
// client since OpenSSL 1.0 takes that, and channel binding has a hash to work with. A wrong byte here shows
// as `verify-full` failing.
import { createHash, createPublicKey, generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import { isIP } from 'node:net'
import { WireError } from './error.ts'

export interface CertificateRequest {
  /** Shown as the subject and as the issuer. */
  commonName: string
  /** DNS names and IP addresses under which clients reach us; at least one. */
  names: readonly string[]
  validFrom: Date
  validUntil: Date
  /** PEM of an EC P-256 private key to keep (a certificate is renewed, its key stays); drawn when absent. */
  privateKey?: string | undefined
}

export interface SelfSigned {
  /** PEM. Is its own authority: clients name this file as `sslrootcert`. */
  certificate: string
  /** PEM (PKCS #8). */
  privateKey: string
}

// Tags of DER (ITU-T X.690).
const tag = {
  boolean: 0x01, integer: 0x02, bitString: 0x03, octetString: 0x04, objectIdentifier: 0x06, utf8String: 0x0c,
  utcTime: 0x17, generalizedTime: 0x18, sequence: 0x30, set: 0x31
} as const

/** `[n]` of a constructed type, and of a primitive one. */
const explicit = (number: number): number => 0xa0 + number
const implicit = (number: number): number => 0x80 + number

const oid = {
  commonName: '2.5.4.3', organization: '2.5.4.10', ecdsaWithSha256: '1.2.840.10045.4.3.2',
  subjectKeyIdentifier: '2.5.29.14', keyUsage: '2.5.29.15', subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19', extendedKeyUsage: '2.5.29.37', serverAuth: '1.3.6.1.5.5.7.3.1'
} as const

/** RFC 5280: a common name has at most 64 characters. */
const commonNameMax = 64
/** Names in one certificate: an operator lists a handful, and the handshake carries them all. */
const namesMax = 100
/** RFC 5280: at most 20 bytes; 16 random ones never meet again. */
const serialBytes = 16

/**
 * Makes a certificate that is its own authority.
 * @throws WireError for a name that is neither an address nor a DNS name, or a key that is not EC P-256
 */
export function selfSignedCertificate(request: CertificateRequest): SelfSigned {
  const privateKey = request.privateKey ?? generateKeyPairSync('ec', { namedCurve: 'P-256' })
    .privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  const publicKey = publicKeyOf(privateKey)
  const algorithm = sequence(objectIdentifier(oid.ecdsaWithSha256))
  const body = certificateBody(request, publicKey, algorithm)
  const signature = sign('sha256', body, { key: privateKey, dsaEncoding: 'der' })
  const whole = sequence(body, algorithm, bitString(signature))
  return { certificate: pem('CERTIFICATE', whole), privateKey }
}

/** The subjectPublicKeyInfo. */
function publicKeyOf(privateKey: string): Buffer {
  const key = createPublicKey(privateKey)
  if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw new WireError('the key is not EC P-256')
  return key.export({ type: 'spki', format: 'der' })
}

function certificateBody(request: CertificateRequest, publicKey: Buffer, algorithm: Buffer): Buffer {
  const name = distinguishedName(request.commonName)
  const serial = randomBytes(serialBytes)
  // Positive, and without a leading zero byte.
  serial[0] = (serial[0]! & 0x3f) | 0x40
  return sequence(
    element(explicit(0), element(tag.integer, Buffer.from([2]))),
    element(tag.integer, serial),
    algorithm,
    name,
    sequence(time(request.validFrom), time(request.validUntil)),
    name,
    publicKey,
    element(explicit(3), sequence(...extensions(request.names, publicKey)))
  )
}

function distinguishedName(commonName: string): Buffer {
  if (commonName === '' || commonName.length > commonNameMax || !commonName.isWellFormed()) {
    throw new WireError('a common name has 1 to 64 characters')
  }
  const part = (identifier: string, text: string): Buffer =>
    element(tag.set, sequence(objectIdentifier(identifier), element(tag.utf8String, Buffer.from(text))))
  return sequence(part(oid.organization, 'Sallyport'), part(oid.commonName, commonName))
}

function extensions(names: readonly string[], publicKey: Buffer): Buffer[] {
  if (names.length === 0 || names.length > namesMax) {
    throw new WireError(`a certificate has 1 to ${namesMax} names`)
  }
  const critical = element(tag.boolean, Buffer.from([0xff]))
  const extension = (identifier: string, value: Buffer, ...flags: readonly Buffer[]): Buffer =>
    sequence(objectIdentifier(identifier), ...flags, element(tag.octetString, value))
  // The last 65 bytes of the key structure are the point itself; RFC 5280 hashes that.
  const identifier = createHash('sha1').update(publicKey.subarray(-65)).digest()
  return [
    // An end entity: nobody can use this key to vouch for other names.
    extension(oid.basicConstraints, sequence(), critical),
    // digitalSignature is bit 0: seven bits of the byte are unused.
    extension(oid.keyUsage, element(tag.bitString, Buffer.from([7, 0x80])), critical),
    extension(oid.extendedKeyUsage, sequence(objectIdentifier(oid.serverAuth))),
    extension(oid.subjectKeyIdentifier, element(tag.octetString, identifier)),
    extension(oid.subjectAltName, sequence(...names.map(generalName)))
  ]
}

function generalName(name: string): Buffer {
  if (isIP(name) !== 0) return element(implicit(7), addressBytes(name))
  const isLabel = (text: string): boolean => /^(?!-)[A-Za-z0-9_-]{1,63}(?<!-)$/.test(text)
  const labels = name.split('.')
  if (labels[0] === '*') labels.shift()
  if (name.length > 253 || labels.length === 0 || !labels.every(isLabel)) {
    throw new WireError(`${JSON.stringify(name)} is neither an address nor a DNS name`)
  }
  return element(implicit(2), Buffer.from(name, 'latin1'))
}

/** 4 or 16 bytes; the text has passed `isIP`. */
function addressBytes(address: string): Buffer {
  if (isIP(address) === 4) return Buffer.from(address.split('.').map(Number))
  // An address with a zone is one of this machine only; what clients type has none.
  if (address.includes('%')) throw new WireError(`${JSON.stringify(address)} has a zone`)
  const [head = '', tail] = new URL(`http://[${address}]/`).hostname.slice(1, -1).split('::')
  const words = (text: string | undefined): number[] =>
    text === undefined || text === '' ? [] : text.split(':').map(word => parseInt(word, 16))
  const [before, after] = [words(head), words(tail)]
  const all = [...before, ...Array.from({ length: 8 - before.length - after.length }, () => 0), ...after]
  return Buffer.from(all.flatMap(word => [word >>> 8, word & 0xff]))
}

/** UTCTime up to 2049, GeneralizedTime from then on (RFC 5280 section 4.1.2.5). */
function time(at: Date): Buffer {
  const digits = at.toISOString().replace(/\.\d+Z$/, 'Z').replace(/[-:T]/g, '')
  return at.getUTCFullYear() < 2050
    ? element(tag.utcTime, Buffer.from(digits.slice(2), 'latin1'))
    : element(tag.generalizedTime, Buffer.from(digits, 'latin1'))
}

// ---- DER

function sequence(...parts: readonly Uint8Array[]): Buffer {
  return element(tag.sequence, ...parts)
}

function bitString(bytes: Buffer): Buffer {
  return element(tag.bitString, Buffer.alloc(1), bytes)
}

/** Tag, length in its shortest form, content. */
function element(tagByte: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts)
  const { length } = content
  if (length < 0x80) return Buffer.concat([Buffer.from([tagByte, length]), content])
  const size = length < 0x100 ? [length] : [length >>> 8, length & 0xff]
  // What is made here is some kilobytes; the names are limited above.
  if (length > 0xffff) throw new WireError('certificate is too long')
  return Buffer.concat([Buffer.from([tagByte, 0x80 + size.length, ...size]), content])
}

/** Base 128 with the top bit on all bytes but the last; the first two numbers share one. */
function objectIdentifier(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number)
  const bytes = [first * 40 + second, ...rest].flatMap(number => {
    const groups = [number & 0x7f]
    for (let left = number >>> 7; left > 0; left >>>= 7) groups.unshift((left & 0x7f) | 0x80)
    return groups
  })
  return element(tag.objectIdentifier, Buffer.from(bytes))
}

function pem(label: string, bytes: Buffer): string {
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? []
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ''].join('\n')
}
