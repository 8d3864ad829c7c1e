// SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677; PostgreSQL chapter "SASL Authentication"), both
// ends: our front end is the server of a person's client, our upstream connection is the client of a target.
// Neither end is believed: every message is parsed whole or refused, the server must prove that it knows the
// account, and the number of iterations that a target asks for is bounded. Nothing here touches a socket.
import { randomBytes, timingSafeEqual } from 'node:crypto'
import { WireError } from '../error.ts'
import { rememberedKeys } from './remembered-keys.ts'
import {
  base64, hmac, iterationsMax, keyBytes, parseVerifier, sha256, type ScramKeys
} from './verifier.ts'

export const scramSha256 = 'SCRAM-SHA-256'
export const scramSha256Plus = 'SCRAM-SHA-256-PLUS'

/** One SCRAM message: nonces and salts are some dozens of bytes; a channel binding adds 64. */
const messageBytesMax = 4096

/** As PostgreSQL: 18 bytes, 24 characters. */
const nonceBytes = 18

const nonceMax = 1024

const saltBytesMax = 1024

/** What proves the account: a stored password, or its keys (then no password exists). */
export type ScramSecret =
  | { kind: 'password', password: string }
  | { kind: 'scram-keys', clientKey: Uint8Array, serverKey: Uint8Array }

/** A message as text. Only the user name (which PostgreSQL ignores) and `e=` may hold more than ASCII. */
function messageText(message: Uint8Array): string {
  if (message.length > messageBytesMax) throw new WireError('SCRAM message is too long')
  const text = Buffer.from(message.buffer, message.byteOffset, message.byteLength).toString('utf8')
  if (text.includes('\0')) throw new WireError('SCRAM message with a zero byte')
  return text
}

function exclusiveOr(left: Uint8Array, right: Uint8Array): Buffer {
  return Buffer.from(left.map((byte, index) => byte ^ right[index]!))
}

// RFC 5802: printable, without a comma.
function isNonce(text: string): boolean {
  return text.length <= nonceMax && /^[\x21-\x2b\x2d-\x7e]+$/.test(text)
}

/**
 * The best mechanism that the target offers and we can do; undefined when there is none. PLUS needs a channel
 * binding, so TLS.
 */
export function chooseMechanism(
  offered: readonly string[], channelBinding: Buffer | undefined
): string | undefined {
  if (channelBinding !== undefined && offered.includes(scramSha256Plus)) return scramSha256Plus
  return offered.includes(scramSha256) ? scramSha256 : undefined
}

export interface ScramClientOptions {
  /** One that the target offered: see `chooseMechanism`. */
  mechanism: string
  /** Channel binding data of the target's certificate (`tlsServerEndPoint`); undefined without TLS. */
  channelBinding?: Buffer | undefined
  secret: ScramSecret
  /** Fixed only by tests with published vectors. */
  nonce?: string | undefined
}

/**
 * The client's end of one login. Send `mechanism` and `first`; answer the server's first message with
 * `answer`; believe the server only when `verify` of its final message is true.
 */
export class ScramClient {
  readonly mechanism: string
  readonly first: Buffer
  readonly #gs2: string
  readonly #nonce: string
  readonly #binding: Buffer
  readonly #secret: ScramSecret
  #expected: Buffer | undefined

  constructor({ mechanism, channelBinding, secret, nonce }: ScramClientOptions) {
    const plus = mechanism === scramSha256Plus && channelBinding !== undefined
    this.mechanism = plus ? scramSha256Plus : scramSha256
    // 'y' tells an honest server that somebody took PLUS out of its offer.
    this.#gs2 = plus ? 'p=tls-server-end-point,,' : channelBinding === undefined ? 'n,,' : 'y,,'
    this.#binding = plus ? channelBinding : Buffer.alloc(0)
    this.#nonce = nonce ?? randomBytes(nonceBytes).toString('base64')
    this.#secret = secret
    // The user name is empty: PostgreSQL takes the one of the startup packet.
    this.first = Buffer.from(`${this.#gs2}n=,r=${this.#nonce}`, 'latin1')
  }

  /**
   * The final message. A password is stretched on a pool thread.
   * @throws WireError for a server message that is malformed, has another nonce or too many iterations
   */
  async answer(serverFirst: Uint8Array): Promise<Buffer> {
    const text = messageText(serverFirst)
    const match = /^r=([^,]+),s=([^,]+),i=([1-9]\d{0,9})$/.exec(text)
    if (match === null) throw new WireError('malformed SCRAM challenge')
    const [, nonce, saltText, rounds] = match
    if (!isNonce(nonce!) || !nonce!.startsWith(this.#nonce) || nonce!.length === this.#nonce.length) {
      throw new WireError('the SCRAM challenge does not continue our nonce')
    }
    const salt = base64(saltText!)
    if (salt.length > saltBytesMax) throw new WireError('SCRAM salt is too long')
    const iterations = Number(rounds)
    if (iterations > iterationsMax) throw new WireError(`the target asks for ${iterations} SCRAM iterations`)
    const keys = await this.#keys(salt, iterations)
    const binding = Buffer.concat([Buffer.from(this.#gs2, 'latin1'), this.#binding]).toString('base64')
    const withoutProof = `c=${binding},r=${nonce}`
    const bare = this.first.subarray(this.#gs2.length).toString('latin1')
    const signed = `${bare},${text},${withoutProof}`
    const proof = exclusiveOr(keys.clientKey, hmac(sha256(keys.clientKey), signed))
    this.#expected = hmac(keys.serverKey, signed)
    return Buffer.from(`${withoutProof},p=${proof.toString('base64')}`, 'latin1')
  }

  /**
   * True when the server proved that it knows the account; compares in constant time.
   * @throws WireError for a message that is neither a signature nor an error
   */
  verify(serverFinal: Uint8Array): boolean {
    const match = /^(?:v=([^,]+)|e=[^,]*)$/.exec(messageText(serverFinal))
    if (match === null || this.#expected === undefined) throw new WireError('malformed end of SCRAM')
    if (match[1] === undefined) return false
    const signature = base64(match[1])
    return signature.length === keyBytes && timingSafeEqual(signature, this.#expected)
  }

  async #keys(salt: Buffer, iterations: number): Promise<ScramKeys> {
    const secret = this.#secret
    if (secret.kind === 'password') return rememberedKeys(secret.password, salt, iterations)
    if (secret.clientKey.length !== keyBytes || secret.serverKey.length !== keyBytes) {
      throw new WireError('SCRAM keys have 32 bytes')
    }
    return secret
  }
}

export interface ScramServerOptions {
  /** `SCRAM-SHA-256$…`; for unknown users a made-up one (`mockVerifier`), so that both look alike. */
  verifier: string
  /** Channel binding data of our certificate; undefined without TLS, then PLUS is not offered. */
  channelBinding?: Buffer | undefined
  /** Fixed only by tests with published vectors. */
  nonce?: string | undefined
}

/**
 * The server's end of one login. Offer `mechanisms`; `begin` answers the client's first message, `finish` its
 * final one. What is thrown is a client that breaks the rules; a wrong proof is `undefined`.
 */
export class ScramServer {
  readonly mechanisms: readonly string[]
  readonly #verifier: ReturnType<typeof parseVerifier>
  readonly #channelBinding: Buffer | undefined
  readonly #nonceTail: string
  #begun: { gs2: string, binding: Buffer, nonce: string, signed: string } | undefined

  constructor({ verifier, channelBinding, nonce }: ScramServerOptions) {
    this.#verifier = parseVerifier(verifier)
    this.#channelBinding = channelBinding
    this.#nonceTail = nonce ?? randomBytes(nonceBytes).toString('base64')
    this.mechanisms = channelBinding === undefined ? [scramSha256] : [scramSha256Plus, scramSha256]
  }

  /** Answers the client's first message. @throws WireError */
  begin(mechanism: string, clientFirst: Uint8Array): Buffer {
    if (this.#begun !== undefined) throw new WireError('SCRAM was begun already')
    if (!this.mechanisms.includes(mechanism)) throw new WireError('login mechanism was not offered')
    const text = messageText(clientFirst)
    const match = /^(n|y|p=([^,]+)),([^,]*),(n=[^,]*,r=([^,]+)(?:,.*)?)$/s.exec(text)
    if (match === null) throw new WireError('malformed start of SCRAM')
    const [, flag, bindingType, authorisation, bare, clientNonce] = match
    if (authorisation !== '') throw new WireError('login on behalf of another user is not supported')
    const plus = mechanism === scramSha256Plus
    if (plus !== (bindingType !== undefined)) throw new WireError('mechanism and channel binding differ')
    if (plus && bindingType !== 'tls-server-end-point') throw new WireError('unknown channel binding')
    if (flag === 'y' && this.#channelBinding !== undefined) {
      throw new WireError('the client was told that channel binding is not offered')
    }
    if (!isNonce(clientNonce!)) throw new WireError('malformed SCRAM nonce')
    const nonce = clientNonce! + this.#nonceTail
    const { salt, iterations } = this.#verifier
    const serverFirst = `r=${nonce},s=${salt.toString('base64')},i=${iterations}`
    this.#begun = {
      gs2: `${flag},,`,
      binding: plus ? this.#channelBinding! : Buffer.alloc(0),
      nonce,
      signed: `${bare},${serverFirst}`
    }
    return Buffer.from(serverFirst, 'latin1')
  }

  /**
   * The server's final message when the proof is right, else undefined.
   * @throws WireError for a malformed message or another channel or nonce
   */
  finish(clientFinal: Uint8Array): Buffer | undefined {
    const begun = this.#begun
    if (begun === undefined) throw new WireError('SCRAM was not begun')
    const match = /^(c=([^,]+),r=([^,]+)(?:,.*)?),p=([^,]+)$/s.exec(messageText(clientFinal))
    if (match === null) throw new WireError('malformed end of SCRAM')
    const [, withoutProof, binding, nonce, proofText] = match
    const expected = Buffer.concat([Buffer.from(begun.gs2, 'latin1'), begun.binding])
    const given = base64(binding!)
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) {
      throw new WireError('channel binding differs')
    }
    if (nonce !== begun.nonce) throw new WireError('SCRAM nonce differs')
    const proof = base64(proofText!)
    if (proof.length !== keyBytes) throw new WireError('malformed SCRAM proof')
    const { storedKey, serverKey } = this.#verifier
    const signed = `${begun.signed},${withoutProof}`
    const clientKey = exclusiveOr(proof, hmac(storedKey, signed))
    if (!timingSafeEqual(sha256(clientKey), storedKey)) return undefined
    return Buffer.from(`v=${hmac(serverKey, signed).toString('base64')}`, 'latin1')
  }
}
