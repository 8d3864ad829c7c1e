// SCRAM secrets as PostgreSQL stores them: `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey` (RFC 5803 in
// the server's own spelling). Whoever has a verifier can check a login but cannot log in with it. For our own
// accounts no password exists at all: 32 random bytes are the ClientKey, one iteration is enough, and only
// the verifier travels (a verifier with 4,096 iterations costs the target 4 ms per CREATE ROLE, one with a
// single iteration 0.24 ms).
import {
  createHmac, createSecretKey, hash, pbkdf2, randomBytes, timingSafeEqual
} from 'node:crypto'
import { promisify } from 'node:util'
import { WireError } from '../error.ts'
import { saslPrepare } from './saslprep.ts'

const deriveKey = promisify(pbkdf2)

export const keyBytes = 32

/** PostgreSQL's default (scram_iterations). */
export const defaultIterations = 4096

/** Salt of PostgreSQL's own verifiers. */
const saltBytes = 16

/**
 * Work that one login may ask of us, towards a target or from a stored verifier: 100,000 rounds are some 40
 * ms of a pool thread. Without a limit a target could keep a thread busy for minutes (CVE-2026-6669).
 */
export const iterationsMax = 100_000

export interface ScramKeys {
  clientKey: Uint8Array
  serverKey: Uint8Array
}

export interface Verifier {
  iterations: number
  salt: Buffer
  /** H(ClientKey) */
  storedKey: Buffer
  serverKey: Buffer
}

export function hmac(key: Uint8Array, data: string | Uint8Array): Buffer {
  // Given the bytes themselves, Node 24 throws and catches an error inside: ten times the hashing.
  return createHmac('sha256', createSecretKey(key)).update(data).digest()
}

export function sha256(data: Uint8Array): Buffer {
  return hash('sha256', data, 'buffer')
}

/** Strict base64: what decodes to other bytes than it was made of is refused. */
export function base64(text: string): Buffer {
  const bytes = Buffer.from(text, 'base64')
  if (text === '' || bytes.toString('base64') !== text) throw new WireError('not base64')
  return bytes
}

/** ClientKey and ServerKey of a password (RFC 5802 section 3); the derivation runs on a pool thread. */
export async function deriveKeys(password: string, salt: Uint8Array, iterations: number): Promise<ScramKeys> {
  const salted = await deriveKey(saslPrepare(password), salt, iterations, keyBytes, 'sha256')
  return { clientKey: hmac(salted, 'Client Key'), serverKey: hmac(salted, 'Server Key') }
}

/** @throws WireError for a text that is not a SCRAM-SHA-256 verifier */
export function parseVerifier(text: string): Verifier {
  const match = /^SCRAM-SHA-256\$([1-9]\d{0,9}):([A-Za-z0-9+/=]{1,1400})\$([^:]{44}):(.{44})$/.exec(text)
  if (match === null) throw new WireError('not a SCRAM-SHA-256 verifier')
  const [, rounds, salt, storedKey, serverKey] = match
  const verifier = {
    iterations: Number(rounds),
    salt: base64(salt!),
    storedKey: base64(storedKey!),
    serverKey: base64(serverKey!)
  }
  if (verifier.storedKey.length !== keyBytes || verifier.serverKey.length !== keyBytes) {
    throw new WireError('keys of a verifier have 32 bytes')
  }
  return verifier
}

export function formatVerifier({ iterations, salt, storedKey, serverKey }: Verifier): string {
  const [first, second, third] = [salt, storedKey, serverKey].map(bytes => bytes.toString('base64'))
  return `SCRAM-SHA-256$${iterations}:${first}$${second}:${third}`
}

export interface VerifierOptions {
  iterations?: number | undefined
  salt?: Uint8Array | undefined
}

/** The verifier of a password. */
export async function makeVerifier(password: string, options: VerifierOptions = {}): Promise<string> {
  const { iterations = defaultIterations, salt = randomBytes(saltBytes) } = options
  return verifierFromKeys(await deriveKeys(password, salt, iterations), { iterations, salt })
}

/**
 * The verifier of keys that were drawn at random: 256 bits need no stretching, so one iteration is the
 * default.
 */
export function verifierFromKeys({ clientKey, serverKey }: ScramKeys, options: VerifierOptions = {}): string {
  if (clientKey.length !== keyBytes || serverKey.length !== keyBytes) {
    throw new WireError('SCRAM keys have 32 bytes')
  }
  const { iterations = 1, salt = randomBytes(saltBytes) } = options
  return formatVerifier({
    iterations, salt: Buffer.from(salt), storedKey: sha256(clientKey), serverKey: Buffer.from(serverKey)
  })
}

/** Keys of an account that has no password. */
export function randomKeys(): { clientKey: Buffer, serverKey: Buffer } {
  return { clientKey: randomBytes(keyBytes), serverKey: randomBytes(keyBytes) }
}

/**
 * The verifier of a user who does not exist: the same for the same name and seed, and nobody has its key. A
 * login against it looks like a wrong password. `iterations` must be what real verifiers have.
 */
export function mockVerifier(
  seedKey: Uint8Array, userName: string, iterations: number = defaultIterations
): string {
  const part = (label: string): Buffer => hmac(seedKey, `${label}\0${userName}`)
  return formatVerifier({
    iterations,
    salt: part('salt').subarray(0, saltBytes),
    storedKey: part('stored'),
    serverKey: part('server')
  })
}

/**
 * True when `password` belongs to `verifier`; compares in constant time.
 * @throws WireError for a bad verifier
 */
export async function verifyPassword(password: string, verifier: string): Promise<boolean> {
  const { iterations, salt, storedKey } = parseVerifier(verifier)
  if (iterations > iterationsMax) throw new WireError(`verifier with ${iterations} iterations`)
  const { clientKey } = await deriveKeys(password, salt, iterations)
  return timingSafeEqual(sha256(clientKey), storedKey)
}
