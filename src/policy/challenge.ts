// Challenges that nobody has to remember: what somebody is to answer carries its own end and our mark, so
// that a stranger who asks for a million of them takes no room. What has been answered is remembered by the
// store, until it expires: an answer counts once. Pure: a key, a purpose and an instant in.
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'

/** From asking to the answer: people look for their security key. */
export const challengeSeconds = 300
const nonceBytes = 16
const expiryBytes = 6
const markBytes = 16
const challengePattern = /^[A-Za-z0-9_-]{51}$/

export interface Challenge {
  /** Of which there is one. */
  id: string
  expiresAt: Date
}

/** `purpose`: what it may be answered for, e.g. `passkey of alice`; in base64url. */
export function mintChallenge(key: Buffer, purpose: string, now: Date, seconds = challengeSeconds): string {
  const expiry = Buffer.alloc(expiryBytes)
  expiry.writeUIntBE(now.getTime() + seconds * 1000, 0, expiryBytes)
  const head = Buffer.concat([randomBytes(nonceBytes), expiry])
  return Buffer.concat([head, markOf(key, purpose, head)]).toString('base64url')
}

/** Undefined when it is not ours, for something else, or too old. */
export function readChallenge(key: Buffer, purpose: string, text: string, now: Date): Challenge | undefined {
  if (!challengePattern.test(text)) return undefined
  const bytes = Buffer.from(text, 'base64url')
  const head = bytes.subarray(0, nonceBytes + expiryBytes)
  if (!timingSafeEqual(markOf(key, purpose, head), bytes.subarray(head.length))) return undefined
  const expiresAt = new Date(head.readUIntBE(nonceBytes, expiryBytes))
  if (now >= expiresAt) return undefined
  return { id: head.subarray(0, nonceBytes).toString('base64url'), expiresAt }
}

/** Something that only we can make of a text, always the same: names for people, answers that must match. */
export function derived(key: Buffer, purpose: string, text: string): string {
  return createHmac('sha256', key).update(`${purpose}\0${text}`).digest('base64url')
}

function markOf(key: Buffer, purpose: string, head: Buffer): Buffer {
  const mark = createHmac('sha256', key).update(`challenge ${purpose}\0`).update(head).digest()
  return mark.subarray(0, markBytes)
}
