// What the wire room can throw, and nothing else. A codec that meets bytes which the protocol forbids throws
// a WireError; a client of ours towards a target ends in an UpstreamError whose `kind` says what to do about
// it. Texts that a peer wrote are cut before they land here, so that an error can be logged as it is.

/** Bytes that the protocol does not allow here. The connection they came from cannot be used any more. */
export class WireError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'WireError'
  }
}

/**
 * Why a login at a target failed.
 * - `unreachable`: no connection, or it broke before the login was through.
 * - `untrusted`: certificate or login proof is wrong, TLS was refused, or a weaker login than SCRAM was asked
 *   for.
 * - `refused`: the target answered with an ErrorResponse: see `sqlstate`, `serverMessage`.
 * - `violation`: the target sent what the protocol does not allow.
 * - `timeout`: a step took longer than its limit.
 * - `aborted`: the caller's signal; `cause` is its reason.
 */
export type UpstreamErrorKind = 'unreachable' | 'untrusted' | 'refused' | 'violation' | 'timeout' | 'aborted'

export interface UpstreamErrorDetail {
  /** SQLSTATE and text of the target's ErrorResponse; the text is the target's: do not believe it. */
  sqlstate?: string | undefined
  serverMessage?: string | undefined
  cause?: unknown
}

export class UpstreamError extends Error {
  readonly kind: UpstreamErrorKind
  readonly sqlstate: string | undefined
  readonly serverMessage: string | undefined

  constructor(kind: UpstreamErrorKind, message: string, detail: UpstreamErrorDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause })
    this.name = 'UpstreamError'
    this.kind = kind
    this.sqlstate = detail.sqlstate
    this.serverMessage = detail.serverMessage
  }
}

/** For a caller that must name whatever an opening threw; what is already typed passes. */
export function asUpstreamError(thrown: unknown): UpstreamError {
  if (thrown instanceof UpstreamError) return thrown
  const kind = thrown instanceof WireError ? 'violation' : 'unreachable'
  return new UpstreamError(kind, thrown instanceof Error ? thrown.message : String(thrown), { cause: thrown })
}
