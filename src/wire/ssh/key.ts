// Keys as OpenSSH writes them: the blob inside `ssh-ed25519 AAAA…`, its fingerprint, and a fresh ed25519 pair
// whose private half is a file that every client reads (PROTOCOL.key in OpenSSH's source; RFC 8709 for the
// key itself). Keys of one session are drawn here; nothing of them is ever written down by us.
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto'
import { WireError } from '../error.ts'
import { SshReader, sshFields, sshUint32 } from './data.ts'

export interface SshKeyPair {
  /** The private key as a file: `-----BEGIN OPENSSH PRIVATE KEY-----` … */
  privateKey: string
  /** One line: `ssh-ed25519 AAAA…`, without a comment. */
  publicKey: string
}

const ed25519 = 'ssh-ed25519'
const keyBytes = 32
// DER of an Ed25519 key (RFC 8410) is a fixed beginning and the 32 bytes.
const spkiHeadBytes = 12
const pkcs8HeadBytes = 16
// Of a cipher that is none.
const blockBytes = 8
const lineCharacters = 70

/** Draws a pair. */
export function generateSshKey(): SshKeyPair {
  const pair = generateKeyPairSync('ed25519')
  const publicBytes = pair.publicKey.export({ type: 'spki', format: 'der' }).subarray(spkiHeadBytes)
  const seed = pair.privateKey.export({ type: 'pkcs8', format: 'der' }).subarray(pkcs8HeadBytes)
  return ed25519Pair(seed, publicBytes)
}

function ed25519Pair(seed: Uint8Array, publicBytes: Uint8Array): SshKeyPair {
  if (seed.length !== keyBytes || publicBytes.length !== keyBytes) throw new WireError('no Ed25519 key')
  const blob = sshFields(ed25519, publicBytes)
  const check = randomBytes(4)
  const inner = Buffer.concat([
    check, check, sshFields(ed25519, publicBytes, Buffer.concat([seed, publicBytes]), '')
  ])
  const padding = Buffer.from(Array.from({ length: -inner.length & (blockBytes - 1) }, (_, n) => n + 1))
  const file = Buffer.concat([
    Buffer.from('openssh-key-v1\0', 'latin1'),
    sshFields('none', 'none', ''), sshUint32(1), sshFields(blob, Buffer.concat([inner, padding]))
  ]).toString('base64')
  const lines = file.match(new RegExp(`.{1,${lineCharacters}}`, 'g')) ?? []
  const [begin, end] = ['BEGIN', 'END'].map(word => `-----${word} OPENSSH PRIVATE KEY-----`)
  return {
    privateKey: [begin, ...lines, end, ''].join('\n'),
    publicKey: `${ed25519} ${blob.toString('base64')}`
  }
}

/** The blob of a line `type base64 comment`. @throws WireError when it is none */
export function blobOf(line: string): Buffer {
  const [type = '', base64 = ''] = line.trim().split(/\s+/)
  const blob = Buffer.from(base64, 'base64')
  if (typeOf(blob) !== type) throw new WireError('no public key of OpenSSH')
  return blob
}

/** The type that a key or certificate blob begins with. @throws WireError */
export function typeOf(blob: Uint8Array): string {
  return new SshReader(blob).bytes().toString('latin1')
}

/** `SHA256:…`, as `ssh-keygen -l` prints it. */
export function fingerprintOf(blob: Uint8Array): string {
  return `SHA256:${createHash('sha256').update(blob).digest('base64').replace(/=+$/, '')}`
}
