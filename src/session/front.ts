// What a protocol must be able to say. A front end puts these into words and decides nothing: the order, the
// permission and the ending come from the pipeline (session.ts).
import type { SallyportError } from '../errors.ts'
import type { Injectable, TargetAddress } from '../jit/plugin.ts'
import type { Ending, Recording } from '../recording/recording.ts'

/** What a client says it is and wants, before any of it is believed. */
export interface Claim {
  protocol: 'postgres' | 'ssh' | 'tcp'
  /** The login name as typed: a user, and perhaps credential and target, in any grammar of D2. */
  login: string
  /** PostgreSQL: `dbname` as typed; may carry the login grammar instead of the user name. */
  database?: string | undefined
  replication: boolean
  /** Address of the socket's peer, without the port. */
  address: string
  tls: boolean
}

/** How a person proves who they are; a front end answers with what its protocol has for it. */
export type Challenge =
  /**
   * SCRAM-SHA-256 with this verifier (`SCRAM-SHA-256$i:salt$StoredKey:ServerKey`); a made-up one for unknown
   * users.
   */
  { kind: 'scram', verifier: string }

/** Where the upstream connection goes and as whom: the one way in which a secret leaves the lease. */
export interface Upstreaming {
  target: TargetAddress
  database: string | undefined
  username: string
  secret: Injectable
  allowReplication: boolean
}

export interface Front<Upstream> {
  /** Reads what the client claims; answers what the protocol allows before that (TLS, cancel). */
  claim(): Promise<Claim>
  /** Runs the exchange; true only when the client has proved knowledge of the secret. */
  prove(challenge: Challenge): Promise<boolean>
  /** One line for the person, where the protocol has a place for it; silently dropped where not. */
  tell(line: string): void
  /** Says the refusal in the protocol's words and closes. Never throws. */
  refuse(error: SallyportError): Promise<void>
  connect(upstreaming: Upstreaming, signal: AbortSignal): Promise<Upstream>
  /**
   * Passes bytes until a side ends or the signal aborts; on abort it tells the client `signal.reason` and
   * closes both.
   */
  relay(upstream: Upstream, recording: Recording, signal: AbortSignal): Promise<Ending>
}
