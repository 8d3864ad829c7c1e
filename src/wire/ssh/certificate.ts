// OpenSSH certificates (PROTOCOL.certkeys): a public key, signed by an authority, with names and a window.
// Read here for people who log in with one; made here for hosts that clients shall believe and for accounts
// that targets shall let in. What a certificate allows is decided elsewhere; an option that is marked
// critical and not known makes it void.
import { randomBytes } from 'node:crypto'
import { WireError } from '../error.ts'
import { SshReader, sshFields, sshUint32, sshUint64 } from './data.ts'
import { verifySignature } from './signature.ts'

export interface Certificate {
  /** `user` or `host`. */
  kind: 'user' | 'host'
  /** The certified key as a plain blob. */
  key: Buffer
  serial: bigint
  /** What the authority calls it: for the audit. */
  keyId: string
  principals: readonly string[]
  /** Seconds since 1970. */
  validAfter: bigint
  validBefore: bigint
  criticalOptions: ReadonlyMap<string, string>
  extensions: ReadonlyMap<string, string>
  /** Blob of the key that signed it. */
  authority: Buffer
}

const suffix = '-cert-v01@openssh.com'
const kinds = { 1: 'user', 2: 'host' } as const
const principalsMax = 256

/** Blob fields behind the nonce, and the plain type, for each kind of key. */
const layouts: Readonly<Record<string, { type: string, fields: number }>> = {
  [`ssh-ed25519${suffix}`]: { type: 'ssh-ed25519', fields: 1 },
  [`ssh-rsa${suffix}`]: { type: 'ssh-rsa', fields: 2 },
  [`ecdsa-sha2-nistp256${suffix}`]: { type: 'ecdsa-sha2-nistp256', fields: 2 },
  [`ecdsa-sha2-nistp384${suffix}`]: { type: 'ecdsa-sha2-nistp384', fields: 2 },
  [`ecdsa-sha2-nistp521${suffix}`]: { type: 'ecdsa-sha2-nistp521', fields: 2 },
  [`sk-ssh-ed25519-cert-v01@openssh.com`]: { type: 'sk-ssh-ed25519@openssh.com', fields: 2 },
  [`sk-ecdsa-sha2-nistp256-cert-v01@openssh.com`]: { type: 'sk-ecdsa-sha2-nistp256@openssh.com', fields: 3 }
}

/** True for blobs that begin as a certificate that is known here. */
export function isCertificateType(type: string): boolean {
  return Object.hasOwn(layouts, type)
}

/**
 * Reads a certificate and checks its signature. @throws WireError when it is damaged or not signed by the
 * authority that it names
 */
export function readCertificate(blob: Uint8Array): Certificate {
  const reader = new SshReader(blob)
  const layout = layouts[reader.text()]
  if (layout === undefined) throw new WireError('no certificate of OpenSSH')
  reader.bytes()
  const fields = Array.from({ length: layout.fields }, () => reader.bytes())
  const serial = reader.uint64()
  const kind = kinds[reader.uint32() as 1 | 2]
  const keyId = reader.text()
  const principals = listOf(reader.bytes())
  const [validAfter, validBefore] = [reader.uint64(), reader.uint64()]
  const [criticalOptions, extensions] = [optionsOf(reader.bytes()), optionsOf(reader.bytes())]
  reader.bytes()
  const authority = reader.bytes()
  const signedBytes = blob.length - reader.left
  const signature = reader.bytes()
  if (kind === undefined || reader.left > 0) throw new WireError('a damaged certificate')
  const algorithm = new SshReader(signature).text()
  const authorityType = new SshReader(authority).text()
  // A certificate that certifies a certificate would be a chain, which OpenSSH does not have.
  const holds = !isCertificateType(authorityType)
    && verifySignature(authority, algorithm, signature, blob.subarray(0, signedBytes)) !== undefined
  if (!holds) throw new WireError('the certificate is not signed by its authority')
  return {
    kind, key: sshFields(layout.type, ...fields), serial, keyId, principals, validAfter, validBefore,
    criticalOptions, extensions, authority: Buffer.from(authority)
  }
}

function listOf(bytes: Buffer): string[] {
  const reader = new SshReader(bytes)
  const list: string[] = []
  while (reader.left > 0) {
    if (list.length >= principalsMax) throw new WireError('a certificate with too many principals')
    list.push(reader.text())
  }
  return list
}

function optionsOf(bytes: Buffer): Map<string, string> {
  const reader = new SshReader(bytes)
  const options = new Map<string, string>()
  while (reader.left > 0) {
    const name = reader.text()
    const data = reader.bytes()
    options.set(name, data.length === 0 ? '' : new SshReader(data).text())
  }
  return options
}

export interface CertificateRequest {
  kind: Certificate['kind']
  /** Plain ed25519 blob of what is certified. */
  key: Uint8Array
  keyId: string
  serial: bigint
  principals: readonly string[]
  validAfter: Date
  validBefore: Date
  /** Conditions, with their values. */
  criticalOptions?: Readonly<Record<string, string>> | undefined
  /** What it allows. */
  extensions?: readonly string[] | undefined
}

/** An ed25519 key that certifies. */
export interface CertificateSigner {
  getPublicSSH(): Uint8Array
  sign(data: Uint8Array): Uint8Array | Error
}

/** Makes a certificate for an ed25519 key. */
export function signCertificate(authority: CertificateSigner, request: CertificateRequest): Buffer {
  const { kind, key, keyId, principals, validAfter, validBefore } = request
  // A certificate for nobody is one for everybody.
  if (principals.length === 0) throw new WireError('a certificate without a principal')
  const reader = new SshReader(key)
  reader.text()
  const seconds = (date: Date): Buffer => sshUint64(BigInt(Math.floor(date.getTime() / 1000)))
  // OpenSSH asks for both lists in the order of their names.
  const options = Object.entries(request.criticalOptions ?? {}).sort(([one], [other]) => one < other ? -1 : 1)
  const critical = options.flatMap(([name, value]) => [name, sshFields(value)])
  const extensions = [...request.extensions ?? []].sort().flatMap(name => [name, ''])
  const body = Buffer.concat([
    sshFields(`ssh-ed25519${suffix}`, randomBytes(32), reader.bytes()),
    sshUint64(request.serial), sshUint32(kind === 'user' ? 1 : 2), sshFields(keyId, sshFields(...principals)),
    seconds(validAfter), seconds(validBefore),
    sshFields(sshFields(...critical), sshFields(...extensions), '', authority.getPublicSSH())
  ])
  const signature = authority.sign(body)
  if (signature instanceof Error) throw signature
  return Buffer.concat([body, sshFields(sshFields('ssh-ed25519', signature))])
}
