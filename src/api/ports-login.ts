// What logging in needs of the other rooms beside passwords and codes (ports.ts): passkeys, and where the
// console is. Answers of browsers are passed on as they came; what they are worth is said here only.
import type { Claims, IdentitySetting } from '../policy/identity.ts'

/** What `navigator.credentials` answered, binary parts in base64url. */
export interface PasskeyAnswer {
  id: string
  rawId: string
  type: string
  response: {
    clientDataJSON: string
    attestationObject?: string | undefined
    authenticatorData?: string | undefined
    signature?: string | undefined
    userHandle?: string | undefined
    transports?: string[] | undefined
  }
  clientExtensionResults: Record<string, unknown>
}

interface Described {
  type: 'public-key'
  id: string
  transports: string[]
}

interface Asked {
  challenge: string
  timeout: number
}

export interface RegistrationAsked extends Asked {
  rp: { id: string, name: string }
  user: { id: string, name: string, displayName: string }
  pubKeyCredParams: { type: 'public-key', alg: number }[]
  excludeCredentials: Described[]
  authenticatorSelection: { residentKey: string, userVerification: string }
}

export interface LoginAsked extends Asked {
  rpId: string
  userVerification: string
  allowCredentials: Described[]
}

export interface PasskeyShown {
  id: string
  name: string
  backedUp: boolean
  createdAt: Date
  lastUsedAt: Date | null
}

/** Every change has its audit event with it. */
export interface PasskeyPort {
  /** Of the pages on which they work; undefined: they cannot, for want of a domain. */
  readonly origin: string | undefined
  list(user: string): Promise<readonly PasskeyShown[]>
  /** Throws `passkeys-unavailable`. */
  beginRegistration(user: string): Promise<RegistrationAsked>
  /** Throws `invalid` when the answer is none, `in-use` when it is known or there are too many. */
  register(user: string, name: string, answer: PasskeyAnswer): Promise<PasskeyShown>
  /** For a name, whoever has it, or for whoever the authenticator knows. */
  beginLogin(user: string | undefined): Promise<LoginAsked>
  /** Whose passkey answered, once; else why it does not count. */
  check(answer: PasskeyAnswer): Promise<
    { user: string, passkey: string } | { user: string | undefined, why: string }>
  /** False when there was none. */
  remove(user: string, id: string, by: string): Promise<boolean>
  removeOf(user: string, by: string): Promise<void>
}

/** Whom an identity provider confirmed, in its words. */
export interface FoundPerson {
  issuer: string
  subject: string
  claims: Claims
}

/** Logging in at an identity provider. */
export interface OidcPort {
  /** On the button. */
  label: string
  /** Of the pages that it begins on and comes back to. */
  origin: string
  /** After which a login ends. */
  sessionSeconds: number
  createUsers: boolean
  setting: IdentitySetting
  /** Where the browser goes, and what it has to bring back. Throws `provider-unavailable`. */
  begin(): Promise<{ address: string, ticket: string }>
  /** Who came back with this query; once. Throws `provider-refused`, `provider-unavailable`. */
  finish(query: string, ticket: string | undefined): Promise<FoundPerson>
}

/** Which user a subject of a provider is. Every change has its audit event with it. */
export interface IdentityPort {
  get(issuer: string, subject: string): Promise<string | undefined>
  /** False when one of the two is bound otherwise. */
  bind(issuer: string, subject: string, user: string): Promise<boolean>
  /** False when there was none. */
  removeOf(user: string, by: string): Promise<boolean>
}

export interface LoginPorts {
  passkeys: PasskeyPort
  /** Undefined: none is declared. */
  oidc: OidcPort | undefined
  identities: IdentityPort
}
