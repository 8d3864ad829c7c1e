// An authenticator (WebAuthn) with one key, for what a browser cannot be made to do: another origin, a count
// that goes back, no PIN, an answer twice. It is asked as `navigator.credentials` is and answers in the same
// JSON; its key is of P-256, its attestation is none.
import { createHash, generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import type { LoginAsked, PasskeyAnswer, RegistrationAsked } from '../../src/api/ports-login.ts'
import { testOrigin } from './login-ports.ts'

export interface Behaviour {
  origin?: string
  /** What the answer says of its count, instead of one more. */
  counter?: number
  /** Nobody typed a PIN. */
  isUnverified?: boolean
  rpId?: string
  userHandle?: string
}

export interface SecurityKey {
  id: string
  create(asked: RegistrationAsked, behaviour?: Behaviour): PasskeyAnswer
  answer(asked: LoginAsked, behaviour?: Behaviour): PasskeyAnswer
}

const userPresent = 0x01
const userVerified = 0x04
const hasKey = 0x40

/** `counts`: 0 for one that keeps no count, as keychains do. */
export function securityKey({ counts = true } = {}): SecurityKey {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const id = randomBytes(32)
  let counter = 0
  let userHandle: string | undefined

  const head = (rpId: string, flags: number, { counter: given, isUnverified = false }: Behaviour): Buffer => {
    if (counts) counter++
    const bytes = Buffer.alloc(5)
    bytes[0] = flags | userPresent | (isUnverified ? 0 : userVerified)
    bytes.writeUInt32BE(given ?? counter, 1)
    return Buffer.concat([createHash('sha256').update(rpId).digest(), bytes])
  }
  const clientData = (type: string, challenge: string, { origin = testOrigin }: Behaviour): Buffer =>
    Buffer.from(JSON.stringify({ type, challenge, origin, crossOrigin: false }))
  const common = { id: id.toString('base64url'), rawId: id.toString('base64url'), type: 'public-key' }

  return {
    id: common.id,
    create(asked, behaviour = {}) {
      userHandle = asked.user.id
      const { x, y } = publicKey.export({ format: 'jwk' })
      const cose = Buffer.concat([
        // {1: 2 (EC2), 3: -7 (ES256), -1: 1 (P-256), -2: x, -3: y}
        Buffer.from('a5010203262001215820', 'hex'), Buffer.from(x!, 'base64url'),
        Buffer.from('225820', 'hex'), Buffer.from(y!, 'base64url')
      ])
      const authData = Buffer.concat([
        head(behaviour.rpId ?? asked.rp.id, hasKey, behaviour), Buffer.alloc(16),
        Buffer.of(0, id.length), id, cose
      ])
      const attestation = Buffer.concat([
        Buffer.from('a363666d74646e6f6e656761747453746d74a0686175746844617461', 'hex'),
        Buffer.of(0x59, authData.length >> 8, authData.length & 0xff), authData
      ])
      const client = clientData('webauthn.create', asked.challenge, behaviour)
      return {
        ...common, clientExtensionResults: {}, response: {
          clientDataJSON: client.toString('base64url'), attestationObject: attestation.toString('base64url')
        }
      }
    },
    answer(asked, behaviour = {}) {
      const authenticatorData = head(behaviour.rpId ?? asked.rpId, 0, behaviour)
      const client = clientData('webauthn.get', asked.challenge, behaviour)
      const signed = Buffer.concat([authenticatorData, createHash('sha256').update(client).digest()])
      const handle = behaviour.userHandle ?? userHandle
      return {
        ...common, clientExtensionResults: {}, response: {
          clientDataJSON: client.toString('base64url'),
          authenticatorData: authenticatorData.toString('base64url'),
          signature: sign('sha256', signed, privateKey).toString('base64url'),
          ...handle === undefined ? {} : { userHandle: handle }
        }
      }
    }
  }
}
