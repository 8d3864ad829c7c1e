// Channel binding `tls-server-end-point` (RFC 5929 section 4): a hash of the server's certificate, made with
// the hash of the certificate's own signature (MD5 and SHA-1 are raised to SHA-256). Both ends of a
// SCRAM-SHA-256-PLUS login put it into their proof, so that a man in the middle with another certificate is
// found out. Only the algorithm identifier of the certificate is read here, with a bounds-checked DER reader;
// trust is judged elsewhere.
import { createHash } from 'node:crypto'
import { WireError } from '../error.ts'

// Object identifiers of signatures, as the hex of their DER content, and the hash to use.
const hashOfSignature = new Map([
  ['2a864886f70d010104', 'sha256'], // md5WithRSA
  ['2a864886f70d010105', 'sha256'], // sha1WithRSA
  ['2a864886f70d01010b', 'sha256'],
  ['2a864886f70d01010c', 'sha384'],
  ['2a864886f70d01010d', 'sha512'],
  ['2a864886f70d01010e', 'sha224'],
  ['2a8648ce3d0401', 'sha256'], // ecdsa-with-SHA1
  ['2a8648ce3d040301', 'sha224'],
  ['2a8648ce3d040302', 'sha256'],
  ['2a8648ce3d040303', 'sha384'],
  ['2a8648ce3d040304', 'sha512'],
  ['2a8648ce380403', 'sha256'], // dsa-with-SHA1
  ['608648016503040301', 'sha224'],
  ['608648016503040302', 'sha256']
])

const rsaPss = '2a864886f70d01010a'

// Hashes by their own identifiers, for RSASSA-PSS where the hash is a parameter.
const hashOfDigest = new Map([
  ['2b0e03021a', 'sha256'], // SHA-1
  ['608648016503040201', 'sha256'],
  ['608648016503040202', 'sha384'],
  ['608648016503040203', 'sha512'],
  ['608648016503040204', 'sha224']
])

const sequence = 0x30
const objectIdentifier = 0x06
const contextZero = 0xa0

interface Element {
  tag: number
  content: Buffer
  rest: Buffer
}

/**
 * The channel binding data for a certificate (DER). Undefined where RFC 5929 does not define it (Ed25519 and
 * other signatures without a hash): channel binding is then not available.
 * @throws WireError for bytes that are not a certificate
 */
export function tlsServerEndPoint(certificate: Buffer): Buffer | undefined {
  const outer = element(certificate, sequence)
  const signed = element(outer.content, sequence)
  const algorithm = element(signed.rest, sequence).content
  const identifier = element(algorithm, objectIdentifier)
  const name = identifier.content.toString('hex')
  const hash = name === rsaPss ? pssHash(identifier.rest) : hashOfSignature.get(name)
  return hash === undefined ? undefined : createHash(hash).update(certificate).digest()
}

/** Parameters of RSASSA-PSS (RFC 4055): `[0] hashAlgorithm`, SHA-1 when absent. */
function pssHash(parameters: Buffer): string | undefined {
  const fields = element(parameters, sequence).content
  if (fields[0] !== contextZero) return 'sha256'
  const algorithm = element(element(fields, contextZero).content, sequence).content
  return hashOfDigest.get(element(algorithm, objectIdentifier).content.toString('hex'))
}

/** One DER element with the wanted tag. */
function element(bytes: Buffer, wanted: number): Element {
  const tag = bytes[0]
  let length = bytes[1]
  if (tag !== wanted || length === undefined) throw new WireError('not a certificate')
  let start = 2
  if (length >= 0x80) {
    const words = length & 0x7f
    // Three bytes of length are 16 MiB: no certificate is larger.
    if (words < 1 || words > 3 || bytes.length < 2 + words) throw new WireError('not a certificate')
    length = bytes.readUIntBE(2, words)
    start += words
  }
  if (bytes.length < start + length) throw new WireError('certificate is cut')
  return { tag, content: bytes.subarray(start, start + length), rest: bytes.subarray(start + length) }
}
