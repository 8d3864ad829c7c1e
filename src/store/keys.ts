// The signing key of this installation: Ed25519 (RFC 8032), made at the first start, for audit checkpoints,
// recordings and receipts. Whoever has `signing.pub` can check them without us; whoever reads `signing.key`
// can forge them, so it is created 0600 and refused when others may read it.
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, sign, verify } from 'node:crypto'
import type { KeyObject } from 'node:crypto'
import {
  closeSync, fsyncSync, linkSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeSync
} from 'node:fs'
import { dirname, join } from 'node:path'
import { SallyportError } from '../errors.ts'

export interface Signer {
  /** 16 hex digits of the SHA-256 of the public key (SubjectPublicKeyInfo). */
  readonly keyId: string
  /** PEM, SubjectPublicKeyInfo. */
  readonly publicKey: string
  /** Ed25519 over the bytes: 64 bytes. */
  sign(bytes: Uint8Array): Buffer
}

export interface PublicKey {
  readonly keyId: string
  verify(bytes: Uint8Array, signature: Uint8Array): boolean
}

/**
 * The signer of `folder`; makes `signing.key` (0600) and `signing.pub` when there is none. Throws
 * `internal`.
 */
export function openSigner(folder: string): Signer {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const path = join(folder, 'signing.key')
  const pem = readOwnerOnly(path) ?? createKeyFile(path, () =>
    generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString())
  const privateKey = createPrivateKey(pem)
  if (privateKey.asymmetricKeyType !== 'ed25519') {
    throw new SallyportError('internal', { detail: `${path} is no Ed25519 key` })
  }
  const publicKey = createPublicKey(privateKey)
  const publicPem = publicKey.export({ type: 'spki', format: 'pem' }).toString()
  writePublic(join(folder, 'signing.pub'), publicPem)
  return { keyId: keyIdOf(publicKey), publicKey: publicPem, sign: bytes => sign(null, bytes, privateKey) }
}

/**
 * Every public key of a PEM text, as `signing.pub` holds one; files may be concatenated. Throws `invalid`.
 */
export function readPublicKeys(pem: string): readonly PublicKey[] {
  const blocks = pem.match(/-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----/g) ?? []
  if (blocks.length === 0) throw new SallyportError('invalid', { detail: 'no public key in the PEM text' })
  return blocks.map(block => {
    try {
      const key = createPublicKey(block)
      return { keyId: keyIdOf(key), verify: (bytes, signature) => verify(null, bytes, key, signature) }
    } catch (cause) {
      throw new SallyportError('invalid', { detail: 'a public key that cannot be read', cause })
    }
  })
}

function keyIdOf(publicKey: KeyObject): string {
  const encoded = publicKey.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(encoded).digest('hex').slice(0, 16)
}

function writePublic(path: string, pem: string): void {
  try {
    if (readFileSync(path, 'utf8') === pem) return
  } catch {
    // It is not there yet.
  }
  const file = openSync(path, 'w', 0o644)
  try {
    writeSync(file, pem)
  } finally {
    closeSync(file)
  }
}

/**
 * The text of a key file; undefined when there is none. Throws `internal` when group or others may read it.
 */
export function readOwnerOnly(path: string): string | undefined {
  const mode = statSync(path, { throwIfNoEntry: false })?.mode
  if (mode === undefined) return undefined
  if ((mode & 0o077) !== 0) {
    throw new SallyportError('internal', { detail: `${path} may be read by others: chmod 600` })
  }
  return readFileSync(path, 'utf8')
}

/**
 * Creates a key file, 0600, durable before it is used: a key that a crash takes back makes everything that
 * was sealed or signed with it worthless. Of two processes that do it at once, both end up with the same
 * key.
 */
export function createKeyFile(path: string, make: () => string): string {
  const text = make()
  const unfinished = `${path}.${process.pid}`
  rmSync(unfinished, { force: true })
  const file = openSync(unfinished, 'wx', 0o600)
  try {
    writeSync(file, text)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
  try {
    linkSync(unfinished, path)
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST') throw thrown
  } finally {
    rmSync(unfinished)
  }
  const folder = openSync(dirname(path), 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
  return readOwnerOnly(path) ?? text
}
