// One-time codes of people (RFC 6238 over RFC 4226: SHA-1, 6 digits, 30 seconds), as every authenticator app
// makes them. Pure: a secret and an instant in, steps out. Which step has been used before is the store's to
// know; without that a code that somebody looked at could be typed a second time.
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { Secret } from '../secret.ts'

/** RFC 4226 recommends 160 bits: the length of the hash. */
const secretBytes = 20
const digits = 6
const stepSeconds = 30
/** Steps before and after now that are taken as well: clocks differ, and people type slowly. */
const windowSteps = 1
const base32Alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

/** A new secret, in base64: as it is sealed. */
export function mintCodeSecret(): Secret<string> {
  return new Secret(randomBytes(secretBytes).toString('base64'))
}

export function stepAt(instant: Date): number {
  return Math.floor(instant.getTime() / 1000 / stepSeconds)
}

/** The code of a step; `length` is 6 but in the RFC's own vectors, which have 8. */
export function codeOf(secret: Secret<string>, step: number, length = digits): string {
  const counter = Buffer.alloc(8)
  counter.writeBigUInt64BE(BigInt(step))
  const hash = createHmac('sha1', bytesOf(secret)).update(counter).digest()
  const at = hash[hash.length - 1]! & 0xf
  const number = hash.readUInt32BE(at) & 0x7fff_ffff
  return String(number % 10 ** length).padStart(length, '0')
}

/**
 * The step that a code belongs to, of those that count now; undefined when it is wrong. Looks as long
 * whether it is right or not.
 */
export function stepOfCode(secret: Secret<string>, code: string, now: Date): number | undefined {
  // Apps show "123 456", and that is what people type.
  const typed = code.replace(/[ -]/g, '')
  const readable = /^[0-9]{6}$/.test(typed)
  const given = Buffer.from(readable ? typed : '0'.repeat(digits))
  let found: number | undefined
  for (let step = stepAt(now) - windowSteps; step <= stepAt(now) + windowSteps; step++) {
    // Of two steps with the same code the newest counts: then neither can be used again.
    if (timingSafeEqual(Buffer.from(codeOf(secret, step)), given)) found = step
  }
  return readable ? found : undefined
}

/** What an authenticator app reads; it holds the secret, so that it is shown once and stored nowhere. */
export function enrolmentUri(secret: Secret<string>, user: string): string {
  const shared = `secret=${base32(bytesOf(secret))}&issuer=Sallyport`
  const how = `algorithm=SHA1&digits=${digits}&period=${stepSeconds}`
  return `otpauth://totp/Sallyport:${encodeURIComponent(user)}?${shared}&${how}`
}

function bytesOf(secret: Secret<string>): Buffer {
  return Buffer.from(secret.expose(), 'base64')
}

/** RFC 4648 without padding: 20 bytes need none. */
function base32(bytes: Buffer): string {
  let bits = ''
  for (const byte of bytes) bits += byte.toString(2).padStart(8, '0')
  return bits.match(/.{1,5}/g)!.map(five => base32Alphabet[Number.parseInt(five.padEnd(5, '0'), 2)]).join('')
}
