// The words of a client's login (RFC 4252), good and bad, and the keys and certificates for them. Everything
// is made here with node:crypto, so that what is checked is not checked with itself.
import { createHash, generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import { sshFields, sshUint32, sshUint64 } from '../../src/wire/ssh/data.ts'
import type { SshField } from '../../src/wire/ssh/data.ts'
import { SshPeer, dial } from './ssh-peer.ts'

export const loginWords = {
  serviceRequest: 5, serviceAccept: 6, request: 50, failure: 51, success: 52, banner: 53, keyIsGood: 60,
  answer: 61
} as const

/** What a rejected disconnect says: `auth-failed` and so on. */
export function codeIn(text: string | undefined): string | undefined {
  return /\[([a-z-]+) [0-9a-f]{6}\]$/.exec(text ?? '')?.[1]
}

export function serviceRequest(name = 'ssh-userauth'): Buffer {
  return Buffer.concat([Buffer.of(loginWords.serviceRequest), sshFields(name)])
}

export function loginRequest(user: string | Buffer, method: string, ...fields: readonly SshField[]): Buffer {
  const head = sshFields(user, 'ssh-connection', method)
  return Buffer.concat([Buffer.of(loginWords.request), head, sshFields(...fields)])
}

export function passwordRequest(user: string, password: string, changes = false): Buffer {
  return loginRequest(user, 'password', changes, password)
}

export interface TestKey {
  /** Plain blob, or that of a certificate. */
  blob: Buffer
  /** As OpenSSH writes it. */
  line: string
  algorithm: string
  sign(data: Uint8Array, algorithm?: string): Buffer
}

const sha256 = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest()

function keyOf(blob: Buffer, algorithm: string, signer: TestKey['sign'], type = algorithm): TestKey {
  return { blob, line: `${type} ${blob.toString('base64')}`, algorithm, sign: signer }
}

function rawEd25519(key: KeyObject): Buffer {
  return key.export({ type: 'spki', format: 'der' }).subarray(12)
}

export function ed25519Key(): TestKey {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  return keyOf(sshFields('ssh-ed25519', rawEd25519(publicKey)), 'ssh-ed25519',
    (data, algorithm = 'ssh-ed25519') => sshFields(algorithm, sign(null, data, privateKey)))
}

/** A FIDO key of software; `flags`: 1 touched, 4 verified. */
export function fidoKey(flags = 1): TestKey {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const type = 'sk-ssh-ed25519@openssh.com'
  return keyOf(sshFields(type, rawEd25519(publicKey), 'ssh:'), type, data => {
    const tail = Buffer.concat([Buffer.of(flags), sshUint32(7)])
    const message = Buffer.concat([sha256(Buffer.from('ssh:')), tail, sha256(data)])
    return Buffer.concat([sshFields(type, sign(null, message, privateKey)), tail])
  })
}

function mpint(base64: string): Buffer {
  const bytes = Buffer.from(base64, 'base64url')
  return (bytes[0]! & 0x80) === 0 ? bytes : Buffer.concat([Buffer.of(0), bytes])
}

/** Signs with the hash that its algorithm names; `ssh-rsa` is SHA-1. */
export function rsaKey(bits = 2048): TestKey {
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: bits })
  const { n, e } = publicKey.export({ format: 'jwk' })
  const hashes: Record<string, string> = { 'ssh-rsa': 'sha1', 'rsa-sha2-256': 'sha256' }
  return keyOf(sshFields('ssh-rsa', mpint(e!), mpint(n!)), 'rsa-sha2-512',
    (data, algorithm = 'rsa-sha2-512') =>
      sshFields(algorithm, sign(hashes[algorithm] ?? 'sha512', data, privateKey)), 'ssh-rsa')
}

export function ecdsaKey(): TestKey {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const type = 'ecdsa-sha2-nistp256'
  const { x, y } = publicKey.export({ format: 'jwk' })
  const point = Buffer.concat([Buffer.of(4), Buffer.from(x!, 'base64url'), Buffer.from(y!, 'base64url')])
  return keyOf(sshFields(type, 'nistp256', point), type, data => {
    const fixed = sign('sha256', data, { key: privateKey, dsaEncoding: 'ieee-p1363' })
    const number = (bytes: Buffer): Buffer => mpint(bytes.toString('base64url'))
    return sshFields(type, sshFields(number(fixed.subarray(0, 32)), number(fixed.subarray(32))))
  })
}

export interface CertificateWords {
  principals?: readonly string[]
  /** 1: user, 2: host. */
  kind?: number
  after?: Date
  before?: Date
  options?: Readonly<Record<string, string>>
  /** Says that another authority signed it. */
  claims?: TestKey
}

/** A certificate for an ed25519 key of this authority. */
export function certified(key: TestKey, authority: TestKey, words: CertificateWords = {}): TestKey {
  const type = 'ssh-ed25519-cert-v01@openssh.com'
  const seconds = (date: Date): Buffer => sshUint64(BigInt(Math.floor(date.getTime() / 1000)))
  const options = Object.entries(words.options ?? {})
    .map(([name, value]) => sshFields(name, sshFields(value)))
  const body = Buffer.concat([
    sshFields(type, randomBytes(32), key.blob.subarray(-32)),
    sshUint64(1n), sshUint32(words.kind ?? 1), sshFields('test', sshFields(...words.principals ?? ['alice'])),
    seconds(words.after ?? new Date('2020-01-01')), seconds(words.before ?? new Date('2050-01-01')),
    sshFields(Buffer.concat(options), '', '', (words.claims ?? authority).blob)
  ])
  const blob = Buffer.concat([body, sshFields(authority.sign(body))])
  return keyOf(blob, type, data => key.sign(data))
}

/** What a signature is over (RFC 4252 section 7). */
export function signedRequest(
  user: string, key: TestKey, sessionId: Uint8Array, algorithm = key.algorithm
): { request: Buffer, data: Buffer } {
  const request = loginRequest(user, 'publickey', true, algorithm, key.blob)
  return { request, data: Buffer.concat([sshFields(sessionId), request]) }
}

export class LoginClient {
  readonly peer: SshPeer

  constructor(peer: SshPeer) {
    this.peer = peer
  }

  /** The number of the answer; undefined when the connection was closed instead. */
  async ask(...payloads: readonly Buffer[]): Promise<number | undefined> {
    return (await this.peer.send(...payloads).until(51, 52, 60))?.[0]
  }

  offer(user: string, key: TestKey, algorithm = key.algorithm): Promise<number | undefined> {
    return this.ask(loginRequest(user, 'publickey', false, algorithm, key.blob))
  }

  /** Signs with `signer`, which may be another key than the one that is shown. */
  sign(user: string, key: TestKey, signer: TestKey = key): Promise<number | undefined> {
    const { request, data } = signedRequest(user, key, this.peer.sessionId)
    return this.ask(Buffer.concat([request, sshFields(signer.sign(data))]))
  }

  password(user: string, password: string): Promise<number | undefined> {
    return this.ask(passwordRequest(user, password))
  }

  /** By question and answer. */
  async answer(user: string, password: string): Promise<number | undefined> {
    const asked = await this.ask(loginRequest(user, 'keyboard-interactive', '', ''))
    if (asked !== loginWords.keyIsGood) return asked
    return this.ask(Buffer.concat([Buffer.of(loginWords.answer), sshUint32(1), sshFields(password)]))
  }

  /** What the refusal says to the person. */
  async refusal(): Promise<string | undefined> {
    await this.peer.end()
    return codeIn(this.peer.farewell?.text)
  }

  leave(): void {
    this.peer.socket.destroy()
  }
}

/** Keys are exchanged and the service is granted. */
export async function loginClient(port: number, from?: string): Promise<LoginClient> {
  const peer = await new SshPeer(await dial(port, from)).start().ready()
  await peer.send(serviceRequest()).until(loginWords.serviceAccept)
  return new LoginClient(peer)
}
