// Is this signature by this key? Blobs as SSH carries them (RFC 4253, 5656, 8332, 8709; FIDO keys:
// PROTOCOL.u2f in OpenSSH's source), checked by node:crypto. What is not known here is false, never an
// error: whoever sends it is a stranger.
import { createHash, createPublicKey, verify } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { WireError } from '../error.ts'
import { SshReader, sshFields, sshUint32 } from './data.ts'

/** What a FIDO key says of the signature beside it. */
export interface Presence {
  /** Somebody touched the key. */
  touched: boolean
  /** … and proved to the key who they are: PIN or finger. */
  verified: boolean
}

export interface Verdict {
  /** Present for FIDO keys. */
  presence?: Presence | undefined
}

const curves: Readonly<Record<string, { name: string, hash: string, bytes: number }>> = {
  nistp256: { name: 'P-256', hash: 'sha256', bytes: 32 },
  nistp384: { name: 'P-384', hash: 'sha384', bytes: 48 },
  nistp521: { name: 'P-521', hash: 'sha512', bytes: 66 }
}
/** Shorter RSA keys are refused, as OpenSSH does. */
const rsaBitsMin = 2048
const rsaHashes: Readonly<Record<string, string>> = { 'rsa-sha2-256': 'sha256', 'rsa-sha2-512': 'sha512' }
const [touchedFlag, verifiedFlag] = [0x01, 0x04]

/** Key types that are the name of their signature as well. */
const plainTypes = new Set([
  'ssh-ed25519', ...Object.keys(curves).map(name => `ecdsa-sha2-${name}`), 'sk-ssh-ed25519@openssh.com',
  'sk-ecdsa-sha2-nistp256@openssh.com'
])

/** The signature algorithms that a key of this type may be used with; empty for types that are not known. */
export function algorithmsOf(keyType: string): readonly string[] {
  if (keyType === 'ssh-rsa') return Object.keys(rsaHashes)
  return plainTypes.has(keyType) ? [keyType] : []
}

/**
 * Checks a signature blob over `data` by the plain key `blob` (no certificate). Undefined: it does not hold.
 * `algorithm`: what was negotiated for it; the blob must say the same.
 */
export function verifySignature(
  blob: Uint8Array, algorithm: string, signature: Uint8Array, data: Uint8Array
): Verdict | undefined {
  try {
    const key = new SshReader(blob)
    const type = key.text()
    const signed = new SshReader(signature)
    if (!algorithmsOf(type).includes(algorithm) || signed.text() !== algorithm) return undefined
    return type.startsWith('sk-')
      ? verifyFido(type, key, signed, data)
      : verifyPlain(type, key, signed, algorithm, data)
  } catch {
    return undefined
  }
}

function verifyPlain(
  type: string, key: SshReader, signed: SshReader, algorithm: string, data: Uint8Array
): Verdict | undefined {
  const value = signed.bytes()
  if (signed.left > 0) return undefined
  const object = keyObject(type, key)
  if (type === 'ssh-ed25519') return verify(null, data, object, value) ? {} : undefined
  if (type === 'ssh-rsa') {
    const bits = object.asymmetricKeyDetails?.modulusLength ?? 0
    return bits >= rsaBitsMin && verify(rsaHashes[algorithm], data, object, value) ? {} : undefined
  }
  const curve = curves[type.slice('ecdsa-sha2-'.length)]!
  return verifyEcdsa(object, curve, value, data) ? {} : undefined
}

/** PROTOCOL.u2f: the key signs a hash of the application, its flags, its counter and a hash of the data. */
function verifyFido(type: string, key: SshReader, signed: SshReader, data: Uint8Array): Verdict | undefined {
  const ed25519 = type.startsWith('sk-ssh-ed25519')
  const object = ed25519 ? keyObject('ssh-ed25519', key) : keyObject('ecdsa-sha2-nistp256', key)
  const application = key.bytes()
  const value = signed.bytes()
  const flags = signed.byte()
  const counter = signed.uint32()
  if (signed.left > 0) return undefined
  const message = Buffer.concat([
    sha256(application), Buffer.of(flags), sshUint32(counter), sha256(data)
  ])
  const holds = ed25519
    ? verify(null, message, object, value)
    : verifyEcdsa(object, curves['nistp256']!, value, message)
  if (!holds) return undefined
  return { presence: { touched: (flags & touchedFlag) !== 0, verified: (flags & verifiedFlag) !== 0 } }
}

function verifyEcdsa(
  key: KeyObject, { hash, bytes }: { hash: string, bytes: number }, value: Buffer, data: Uint8Array
): boolean {
  const reader = new SshReader(value)
  const [r, s] = [reader.bytes(), reader.bytes()]
  if (reader.left > 0) return false
  const fixed = Buffer.concat([integer(r, bytes), integer(s, bytes)])
  return verify(hash, data, { key, dsaEncoding: 'ieee-p1363' }, fixed)
}

/** The rest of a key blob behind its type, as node:crypto takes it. */
function keyObject(type: string, key: SshReader): KeyObject {
  if (type === 'ssh-ed25519') {
    return fromJwk({ kty: 'OKP', crv: 'Ed25519', x: base64url(key.bytes()) })
  }
  if (type === 'ssh-rsa') {
    const [e, n] = [key.bytes(), key.bytes()]
    return fromJwk({ kty: 'RSA', n: base64url(trimmed(n)), e: base64url(trimmed(e)) })
  }
  const name = key.text()
  const curve = curves[name]
  const point = key.bytes()
  const fits = curve !== undefined && point.length === 1 + 2 * curve.bytes && point[0] === 4
  if (!fits || type !== `ecdsa-sha2-${name}`) {
    throw new WireError('no point of that curve')
  }
  const [x, y] = [point.subarray(1, 1 + curve.bytes), point.subarray(1 + curve.bytes)]
  return fromJwk({ kty: 'EC', crv: curve.name, x: base64url(x), y: base64url(y) })
}

function fromJwk(key: Record<string, string>): KeyObject {
  return createPublicKey({ format: 'jwk', key })
}

/** A positive `mpint` in so many bytes. */
function integer(bytes: Buffer, length: number): Buffer {
  const plain = trimmed(bytes)
  if (plain.length > length) throw new WireError('a number that is too large')
  return Buffer.concat([Buffer.alloc(length - plain.length), plain])
}

function trimmed(bytes: Buffer): Buffer {
  let zeros = 0
  while (zeros < bytes.length - 1 && bytes[zeros] === 0) zeros++
  return bytes.subarray(zeros)
}

const base64url = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url')
const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest()

/** An ECDSA signature as OpenSSL writes it (ASN.1) in the form of RFC 5656. @throws WireError */
export function ecdsaSignature(asn1: Buffer): Buffer {
  // SEQUENCE of two INTEGERs; P-521 needs the long form of the length.
  let at = asn1[1] === 0x81 ? 3 : 2
  const numbers: Buffer[] = []
  while (at + 2 <= asn1.length && numbers.length < 2) {
    const length = asn1[at + 1] ?? 0
    if (asn1[at] !== 0x02 || at + 2 + length > asn1.length) throw new WireError('no signature of ECDSA')
    numbers.push(asn1.subarray(at + 2, at + 2 + length))
    at += 2 + length
  }
  if (numbers.length < 2) throw new WireError('no signature of ECDSA')
  return sshFields(...numbers)
}
