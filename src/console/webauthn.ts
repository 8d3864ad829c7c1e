// Passkeys in the browser: what the server asks goes to `navigator.credentials`, and what comes back goes to
// the server, with the binary parts as base64url on the way. What an answer is worth only the server says.
import { Refusal } from './call.ts'

/** What we send; the server's own words for it are in its route. */
export type Answer = Record<string, unknown>

interface Described {
  type: 'public-key'
  id: string
}

export interface RegistrationAsked {
  challenge: string
  timeout: number
  rp: { id: string, name: string }
  user: { id: string, name: string, displayName: string }
  pubKeyCredParams: { type: 'public-key', alg: number }[]
  excludeCredentials: Described[]
  authenticatorSelection: { residentKey: string, userVerification: string }
}

export interface LoginAsked {
  challenge: string
  timeout: number
  rpId: string
  userVerification: string
  allowCredentials: Described[]
}

/** Passkeys are bound to the name in the address: by another one, or without one, there are none. */
export function canUsePasskeys(): boolean {
  return typeof PublicKeyCredential !== 'undefined' && !/^[\d.]+$|^\[/.test(location.hostname)
}

export async function createPasskey(asked: RegistrationAsked): Promise<Answer> {
  const credential = await answered(navigator.credentials.create({
    publicKey: {
      ...asked, challenge: bytesOf(asked.challenge), user: { ...asked.user, id: bytesOf(asked.user.id) },
      excludeCredentials: asked.excludeCredentials.map(known),
      authenticatorSelection: asked.authenticatorSelection as AuthenticatorSelectionCriteria
    }
  }))
  const response = credential.response as AuthenticatorAttestationResponse
  return {
    ...common(credential), response: {
      clientDataJSON: textOf(response.clientDataJSON), attestationObject: textOf(response.attestationObject)
    }
  }
}

export async function usePasskey(asked: LoginAsked): Promise<Answer> {
  const credential = await answered(navigator.credentials.get({
    publicKey: {
      challenge: bytesOf(asked.challenge), timeout: asked.timeout, rpId: asked.rpId,
      userVerification: asked.userVerification as UserVerificationRequirement,
      allowCredentials: asked.allowCredentials.map(known)
    }
  }))
  const { clientDataJSON, authenticatorData, signature, userHandle } =
    credential.response as AuthenticatorAssertionResponse
  return {
    ...common(credential), response: {
      clientDataJSON: textOf(clientDataJSON), authenticatorData: textOf(authenticatorData),
      signature: textOf(signature), ...userHandle === null ? {} : { userHandle: textOf(userHandle) }
    }
  }
}

async function answered(asking: Promise<Credential | null>): Promise<PublicKeyCredential> {
  const credential = await asking.catch((thrown: unknown) => {
    const name = thrown instanceof DOMException ? thrown.name : ''
    const message = name === 'InvalidStateError'
      ? 'this authenticator has a passkey for you already'
      : name === 'NotAllowedError'
        ? 'the browser got no answer from a passkey: it was put off, or there is none for this name'
        : `the browser cannot use a passkey here (${name === '' ? String(thrown) : name})`
    throw new Refusal({ code: 'passkey', message })
  })
  if (credential === null) throw new Refusal({ code: 'passkey', message: 'the browser gave no passkey' })
  return credential as PublicKeyCredential
}

function common({ id, type }: PublicKeyCredential): Answer {
  return { id, rawId: id, type, clientExtensionResults: {} }
}

function known({ type, id }: Described): PublicKeyCredentialDescriptor {
  return { type, id: bytesOf(id) }
}

function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), letter => letter.charCodeAt(0))
}

function textOf(bytes: ArrayBuffer): string {
  const letters = Array.from(new Uint8Array(bytes), byte => String.fromCharCode(byte)).join('')
  return btoa(letters).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
}
