// Passkeys in the browser: what the server asks goes to `navigator.credentials`, and what comes back goes to
// the server, with the binary parts as base64url on the way. What an answer is worth only the server says.
import type { Answer, BodyOf } from '../api/table.ts'
import { Refusal } from './call.ts'

type Registration = BodyOf<'post', '/users/{name}/passkeys'>['answer']
type Assertion = BodyOf<'post', '/browser/passkey'>
type RegistrationAsked = Answer<'post', '/users/{name}/passkeys/challenge'>
type LoginAsked = Answer<'post', '/browser/passkey/challenge'>
type Described = LoginAsked['allowCredentials'][0]

/** Passkeys are bound to the name in the address: by another one, or without one, there are none. */
export function canUsePasskeys(): boolean {
  return typeof PublicKeyCredential !== 'undefined' && !/^[\d.]+$|^\[/.test(location.hostname)
}

export async function createPasskey(asked: RegistrationAsked): Promise<Registration> {
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

export async function usePasskey(asked: LoginAsked): Promise<Assertion> {
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

function common({ id }: PublicKeyCredential): Omit<Assertion, 'response'> {
  return { id, rawId: id, type: 'public-key', clientExtensionResults: {} }
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
