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
  }
  clientExtensionResults: Record<string, unknown>
}

interface Described {
  type: 'public-key'
  id: string
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

export interface LoginRequestShown {
  code: string
  /** `token`: whoever confirms is logged in. `session`: a connection of this user goes on. */
  kind: 'token' | 'session'
  address: string
  what: string
  expiresAt: Date
}

export interface LoginRequestAsked {
  kind: 'token' | 'session'
  user?: string | undefined
  address: string
  what: string
}

export interface LoginRequestBegun {
  /** For the program that waits. */
  secret: string
  /** For the person; `link` has it in it. */
  code: string
  page: string
  link: string
  expiresAt: Date
  intervalSeconds: number
}

/** Logins that a person confirms in the console. What is decided is in the audit log. */
export interface LoginRequestPort {
  /** Throws `auth-throttled`, `too-many-connections`. */
  begin(asked: LoginRequestAsked): Promise<LoginRequestBegun>
  /** Who confirmed it, once. Else throws one of the codes of RFC 8628, e.g. `authorization-pending`. */
  redeem(secret: string): Promise<string>
  /** What waits with this code, if it is for this person. Throws `auth-throttled` after many wrong ones. */
  find(code: string, by: string): Promise<LoginRequestShown | undefined>
  /** False when it was decided before. */
  decide(code: string, state: 'approved' | 'denied', by: string): Promise<boolean>
  /** Waits for the decision; an approval counts once. Rejects with the signal's reason. */
  decided(secret: string, signal: AbortSignal): Promise<'approved' | 'denied' | 'expired'>
  removeOf(user: string): Promise<void>
}

export interface LoginPorts {
  requests: LoginRequestPort
  passkeys: PasskeyPort
  /** Undefined: none is declared. */
  oidc: OidcPort | undefined
  identities: IdentityPort
}
