// Every refusal and failure that leaves the house, in one table with two faces: what the client may hear, and
// what the operator should do. A front end turns `code` into its protocol's words (`sqlstate`, `http`) and
// shows `client` with the reference; the log and the audit show `operator` and the detail under the same
// reference.
import { randomBytes } from 'node:crypto'

interface Entry {
  /** May be shown to anybody: names no target account, rule or address. */
  client: string
  /** The next thing for the operator to look at. */
  operator: string
  sqlstate: string
  http: number
}

const table = {
  // who and what
  'auth-failed': {
    client: 'authentication failed',
    operator: 'wrong password or unknown user; the audit names the user and the address',
    sqlstate: '28P01', http: 401
  },
  'auth-required': {
    client: 'log in first',
    operator: 'the request carried no valid token',
    sqlstate: '28000', http: 401
  },
  'auth-throttled': {
    client: 'too many attempts, try again later',
    operator: 'the source made too many failed logins; it is let in again by itself',
    sqlstate: '28000', http: 429
  },
  'second-factor-required': {
    client: 'a second factor is needed as well',
    operator:
      'the user has a second factor and gave none: where a protocol has no place to ask, they confirm in the '
      + 'console, in time; an admin can take it away with `sallyport users unenrol`',
    sqlstate: '28000', http: 401
  },
  'fresh-login-required': {
    client: 'log in again first: this needs a login of the last quarter of an hour',
    operator: 'what a person changes about their own logins needs a fresh proof, in a browser',
    sqlstate: '28000', http: 403
  },
  'authorization-pending': {
    client: 'nobody has confirmed the login yet',
    operator: 'the person opens the console and confirms the code, or it runs out after ten minutes',
    sqlstate: '28000', http: 400
  },
  'slow-down': {
    client: 'asked too soon: wait longer each time',
    operator: 'the program polls faster than it was told to',
    sqlstate: '28000', http: 400
  },
  'expired-token': {
    client: 'this login was not confirmed in time, or was used; begin again',
    operator: 'a login that waits is confirmed within ten minutes and used once',
    sqlstate: '28000', http: 400
  },
  'access-denied': {
    client: 'the login was turned away',
    operator: 'the person said no, or is no user any more: see the audit',
    sqlstate: '28000', http: 403
  },
  'provider-unavailable': {
    client: 'the identity provider cannot be reached',
    operator: 'discovery or the exchange of the code at `login.oidc.issuer` failed: see the detail',
    sqlstate: '08001', http: 502
  },
  'provider-refused': {
    client: 'the identity provider did not confirm this login; begin again',
    operator: 'state, nonce, issuer, signature or code was not what it must be: see the audit',
    sqlstate: '28000', http: 401
  },
  'no-such-person': {
    client: 'your login is right, and nobody here is meant by it',
    operator: 'no user, no known group, switched off, or bound to another subject: the audit says why',
    sqlstate: '28000', http: 403
  },
  'passkeys-unavailable': {
    client: 'passkeys are not available here',
    operator: 'passkeys are bound to a domain: set `console: { origin: https://NAME:PORT }`',
    sqlstate: '55000', http: 409
  },
  'touch-required': {
    client: 'this login needs your touch on the security key',
    operator: 'the key signed and nobody touched it: `requireTouch: false` on the user lets such keys in',
    sqlstate: '28000', http: 401
  },
  'pin-required': {
    client: 'this login needs the PIN of the security key (made with -O verify-required)',
    operator:
      'the user has `requirePin: true` (or the certificate `verify-required`), and the key asked for none',
    sqlstate: '28000', http: 401
  },
  'auth-timeout': {
    client: 'login took too long',
    operator: 'the client did not finish its login within the grace time',
    sqlstate: '08006', http: 408
  },
  'not-allowed': {
    client: 'access denied',
    operator: 'no grant covers this user and credential: see `sallyport explain`',
    sqlstate: '28000', http: 403
  },
  'outside-window': {
    client: 'access is not open at this hour',
    operator: 'the grant counts at other hours: see its `windows`',
    sqlstate: '28000', http: 403
  },
  'approval-pending': {
    client: 'access waits for approval; connect again when it is there',
    operator: 'nobody has decided the request within `waitFor` of the grant: see `sallyport requests`',
    sqlstate: '28000', http: 403
  },
  'request-denied': {
    client: 'the request for access was denied',
    operator: 'an approver denied it: `sallyport requests show` says who and why',
    sqlstate: '28000', http: 403
  },
  'request-ended': {
    client: 'the request for access has ended',
    operator: 'it was withdrawn, or nobody decided it in time: see `sallyport requests show`',
    sqlstate: '28000', http: 403
  },
  'login-unclear': {
    client: 'the login name does not say which credential; try user+credential',
    operator: 'none or several credentials match: see `sallyport explain`',
    sqlstate: '28000', http: 400
  },
  'tls-required': {
    client: 'this server accepts only TLS connections',
    operator: 'the listener is set to TLS only',
    sqlstate: '28000', http: 426
  },
  // protocol
  'protocol-violation': {
    client: 'protocol violation',
    operator: 'the peer sent bytes that the protocol does not allow here',
    sqlstate: '08P01', http: 400
  },
  'option-refused': {
    client: 'a connection option is not allowed',
    operator: 'a startup option outside the allow-list was asked for',
    sqlstate: '08P01', http: 400
  },
  'replication-refused': {
    client: 'replication connections are not allowed',
    operator: 'set `replication: true` on the grant to allow them',
    sqlstate: '42501', http: 403
  },
  'too-many-connections': {
    client: 'too many connections',
    operator: 'a connection limit was reached: see `limits` in the configuration',
    sqlstate: '53300', http: 503
  },
  // account hooks
  'hook-failed': {
    client: 'the account could not be prepared on the target',
    operator: 'the creation or enable hook was refused by the target: see the session and `sallyport leases`',
    sqlstate: '58000', http: 502
  },
  'hook-timeout': {
    client: 'the target did not answer in time',
    operator: 'the hook reached its time limit; its outcome is being looked up on the target',
    sqlstate: '58000', http: 504
  },
  'account-conflict': {
    client: 'the account could not be prepared on the target',
    operator: 'an account of that name exists on the target and is not ours; it was not touched',
    sqlstate: '58000', http: 409
  },
  'target-unreachable': {
    client: 'the target cannot be reached',
    operator: 'connecting to the target failed or timed out',
    sqlstate: '08001', http: 502
  },
  'target-refused': {
    client: 'the target refused the login',
    operator: 'the target did not accept the injected account',
    sqlstate: '08004', http: 502
  },
  'target-untrusted': {
    client: 'the target could not be verified',
    operator: 'certificate, host key or login proof of the target is wrong; no credential was sent',
    sqlstate: '08004', http: 502
  },
  'target-violation': {
    client: 'the target broke the protocol',
    operator: 'the target sent bytes that the protocol does not allow; the session was cut',
    sqlstate: '08P01', http: 502
  },
  'target-closed': {
    client: 'the target closed the connection',
    operator: 'the target ended the connection',
    sqlstate: '08006', http: 502
  },
  'client-closed': {
    client: 'the connection is closed',
    operator: 'the client closed the connection before the session began',
    sqlstate: '08006', http: 499
  },
  // sessions
  'session-expired': {
    client: 'the session reached its time limit',
    operator: 'the maximum session time of the credential or the grant was reached',
    sqlstate: '57P05', http: 403
  },
  'grant-withdrawn': {
    client: 'the access of this session was withdrawn',
    operator:
      'its user was disabled or removed, or no grant covers it any more; the audit names who changed that',
    sqlstate: '57P01', http: 403
  },
  'session-killed': {
    client: 'the session was ended by an administrator',
    operator: 'ended by `sessions kill`; the audit names by whom',
    sqlstate: '57P01', http: 403
  },
  'node-silent': {
    client: 'the node of this session did not answer',
    operator:
      'the session is on another node, which is not alive, cannot be reached or said nothing in time: the '
      + 'detail says which',
    sqlstate: '57P03', http: 503
  },
  'recorded-elsewhere': {
    client: 'this session was recorded on another node',
    operator:
      'its node has the recording and cannot be asked: set `api: { advertise: https://NAME:PORT }` there, or '
      + 'give all nodes one folder',
    sqlstate: '55000', http: 421
  },
  'rule-refused': {
    client: 'a rule of this access does not allow it',
    operator: 'a rule of the grant refused it, or nobody approved it: the audit names the rule',
    sqlstate: '42501', http: 403
  },
  'rule-ended': {
    client: 'a rule of this access ended the session',
    operator: 'a rule of the grant says `end` for what was done: the audit names the rule',
    sqlstate: '57P01', http: 403
  },
  'lease-lost': {
    client: 'the account of this session was withdrawn',
    operator: 'the lease was revoked or fenced while the session ran',
    sqlstate: '57P01', http: 403
  },
  'shutting-down': {
    client: 'the proxy is shutting down',
    operator: 'the node is stopping; sessions were drained or cut',
    sqlstate: '57P01', http: 503
  },
  // evidence and store
  'recorder-failed': {
    client: 'the session could not be recorded',
    operator: 'the recorder failed (disk full or an I/O error): strict mode ended the session',
    sqlstate: '58030', http: 503
  },
  'disk-reserve': {
    client: 'the session could not be recorded',
    operator: 'free space on the recordings disk is below the reserve',
    sqlstate: '53100', http: 503
  },
  'store-unavailable': {
    client: 'the store is unavailable',
    operator: 'the store refused or did not answer; nothing starts until it does',
    sqlstate: '57P03', http: 503
  },
  'seal-broken': {
    client: 'the secret store refused',
    operator: 'a sealed value could not be opened: wrong master key or damaged store',
    sqlstate: '58000', http: 500
  },
  // administration
  'invalid': {
    client: 'the request is not valid',
    operator: 'see the listed problems',
    sqlstate: '22023', http: 400
  },
  'not-found': {
    client: 'not found',
    operator: 'no such object',
    sqlstate: '42704', http: 404
  },
  'in-use': {
    client: 'still in use',
    operator: 'other objects refer to it: they are listed',
    sqlstate: '55006', http: 409
  },
  'prerequisite-missing': {
    client: 'the secret cannot be issued now',
    operator: 'something that it is made with is missing or switched off: see the listed problems',
    sqlstate: '55000', http: 409
  },
  'conflict': {
    client: 'it was changed meanwhile',
    operator: 'read it again and repeat',
    sqlstate: '40001', http: 409
  },
  'not-as-expected': {
    client: 'it is not what you have read: it was changed meanwhile',
    operator: 'the request named (If-Match) a version that is not the current one: read it again and repeat',
    sqlstate: '40001', http: 412
  },
  'range-unsatisfiable': {
    client: 'there are no such bytes',
    operator: 'a range was asked for that begins after the end',
    sqlstate: '22023', http: 416
  },
  // idempotency keys
  'key-reused': {
    client: 'this idempotency key was used for another request',
    operator: 'a client must draw a new key for each new request',
    sqlstate: '22023', http: 422
  },
  'still-running': {
    client: 'the first request with this idempotency key is still running',
    operator: 'the same request was sent twice at once: it is done once, and a repeat later gets its answer',
    sqlstate: '55000', http: 409
  },
  'already-issued': {
    client: 'it was issued already, and its answer is not kept any longer',
    operator: 'a repeat after more than ten minutes: the name of what was issued is listed',
    sqlstate: '55000', http: 409
  },
  'outcome-unknown': {
    client: 'a request with this idempotency key began, and nobody knows how it ended',
    operator: 'the node or the store failed meanwhile: look at what there is, then use a new key',
    sqlstate: '55000', http: 409
  },
  'limit-reached': {
    client: 'too many, try again later',
    operator: 'a limit of one caller was reached: the detail names it',
    sqlstate: '53400', http: 429
  },
  'internal': {
    client: 'internal error',
    operator: 'a defect: see the log under this reference',
    sqlstate: 'XX000', http: 500
  }
} as const satisfies Record<string, Entry>

export type ErrorCode = keyof typeof table

/** The table, for documentation, `doctor` and the test that every code is explained. */
export const errorTable: Readonly<Record<ErrorCode, Entry>> = table

export interface ErrorDetail {
  /** For operators: what exactly happened. Never a secret. */
  detail?: string | undefined
  /** What the client may hear beside the sentence of the table: an id of theirs, an instant. */
  said?: string | undefined
  /** For the caller of an administrative command: one line for each problem, with its path. */
  problems?: readonly string[] | undefined
  cause?: unknown
}

export class SallyportError extends Error {
  readonly code: ErrorCode
  /** Six hex digits that tie what the client heard to what the log says. */
  readonly reference: string
  readonly detail: string | undefined
  readonly said: string | undefined
  readonly problems: readonly string[]

  constructor(code: ErrorCode, { detail, said, problems = [], cause }: ErrorDetail = {}) {
    super(detail === undefined ? code : `${code}: ${detail}`, cause === undefined ? undefined : { cause })
    this.name = 'SallyportError'
    this.code = code
    this.reference = randomBytes(3).toString('hex')
    this.detail = detail
    this.said = said
    this.problems = problems
  }

  /** What the client may hear: the sentence, the code and the reference. */
  get clientMessage(): string {
    const words = [table[this.code].client, ...this.said === undefined ? [] : [this.said]].join(': ')
    return `${words} [${this.code} ${this.reference}]`
  }
}

/** Turns whatever was thrown into an error of the table; what the house does not know is `internal`. */
export function asSallyportError(thrown: unknown, fallback: ErrorCode = 'internal'): SallyportError {
  if (thrown instanceof SallyportError) return thrown
  const detail = thrown instanceof Error ? thrown.message : String(thrown)
  return new SallyportError(fallback, { detail, cause: thrown })
}
