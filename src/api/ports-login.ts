// What logging in needs of the other rooms beside passwords and codes (ports.ts): passkeys, and where the
// console is. Answers of browsers are passed on as they came; what they are worth is said here only.

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

export interface LoginPorts {
  passkeys: PasskeyPort
}
