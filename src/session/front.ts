// What a protocol must be able to say. A front end puts these into words and decides nothing: the order, the
// permission and the ending come from the pipeline (session.ts).
import type { SallyportError } from '../errors.ts'
import type { Injectable, TargetAddress } from '../jit/plugin.ts'
import type { ChannelKind } from '../policy/types.ts'
import type { Ending, Recording } from '../recording/recording.ts'
import type { HandOver } from './hand-over.ts'
import type { Judge } from './judge.ts'

export type { ChannelKind, HandOver }

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
  /** How they come, where it is not with a client of their own: through a page of the console. */
  client?: 'web' | undefined
  /** Of somebody whom the API has let in: what it gave them, in the place of a proof on this connection. */
  ticket?: Ticket | undefined
}

/** Counts once, and only from the login that asked for it. */
export interface Ticket {
  text: string
  /** Whose login brings it, and which of theirs; the API says so of every request. */
  user: string
  login: string
}

/**
 * What a proof is held against; a front end asks for what its protocol has. Of the same shape and cost for
 * names that nobody has.
 */
export interface Challenge {
  /** `SCRAM-SHA-256$i:salt$StoredKey:ServerKey`; a made-up one where there is no password. */
  verifier: string
  /** SSH: lines of OpenSSH (`ssh-ed25519 AAAA…`); whoever signs with one of these keys is the person. */
  publicKeys: readonly string[]
  /** SSH: authorities whose certificates for `name` prove the same. */
  authorities: readonly string[]
  /** The user's name, as a certificate must say it. */
  name: string
  /** SSH: what a security key (FIDO) must say of its owner; absent: that it was touched. */
  presence?: PresenceRule | undefined
  /**
   * What has to be proved after the first proof, and is not to be seen before it. A protocol that has no
   * place to ask leaves it alone; what follows from that is not for it to decide.
   */
  secondFactor?: SecondFactor | undefined
}

export interface PresenceRule {
  touch: boolean
  /** PIN or finger, checked by the key. */
  pin: boolean
  /** A right signature of this key says too little; what the person may hear. Throws `store-unavailable`. */
  lacks(code: 'touch-required' | 'pin-required', key: string): Promise<string>
}

export interface SecondFactor {
  /** True when a code is right; that uses it up. Throws `store-unavailable`, `auth-throttled`. */
  check(code: string): Promise<boolean>
}

/** That somebody is who they say, and how they proved it: for the audit. */
export interface Proof {
  /** E.g. `password`, `publickey SHA256:…`. */
  method: string
}

/** Where the upstream connection goes and as whom: the one way in which a secret leaves the lease. */
export interface Upstreaming {
  target: TargetAddress
  database: string | undefined
  username: string
  /** Undefined for TCP: bytes that we do not understand have no place to present it. */
  secret: Injectable | undefined
  /** TCP, where an account was made for this session: how the person gets its login. */
  handOver?: HandOver | undefined
  allowReplication: boolean
  /** SSH: what the grant allows; everything else is refused. */
  channels: readonly ChannelKind[]
  /** SSH: copies of transferred files are kept. */
  copyFiles: boolean
  /** What the grant's rules say to what is done; undefined: it has none. */
  judge?: Judge | undefined
}

/** One credential that a person may open, for those who have to choose. */
export interface Door {
  credential: string
  target: string
  /** Of the target; `port` as well. */
  protocol: string
  port: number
  /** The account's name, where it is a standing one. */
  username: string | undefined
}

/** What stands open to a person who named no credential. */
export interface Doors {
  readonly user: string
  /** As it is now; grants may change while somebody looks at the list. */
  list(): Promise<readonly Door[]>
  /**
   * The name of the SSH target that is meant by a host (its name or its address); undefined: none that is
   * open.
   */
  targetOf(host: string, port: number): Promise<string | undefined>
}

/** Who waits at the other end. */
export interface Person {
  /** One line for the person, where the protocol has a place for it; silently dropped where not. */
  tell(line: string): void
  /** Calls `act` when the client goes away before `connect`, or is gone already; returns how to stop. */
  onLeft(act: () => void): () => void
}

export interface Front<Upstream> extends Person {
  /** Reads what the client claims; answers what the protocol allows before that (TLS, cancel). */
  claim(): Promise<Claim>
  /** Runs the exchange; undefined when the client has not proved who it is. */
  prove(challenge: Challenge): Promise<Proof | undefined>
  /**
   * Present where a protocol has a place to ask (SSH): lets a person who named no credential choose, or come
   * through to a target (`ssh -J`); `enter` runs each as a session of its own. Resolves when the connection
   * is over. Never throws.
   */
  receive?(doors: Doors, enter: (inner: Front<Upstream>) => Promise<Ending>): Promise<Ending>
  /** Says the refusal in the protocol's words and closes. Never throws. */
  refuse(error: SallyportError): Promise<void>
  connect(upstreaming: Upstreaming, signal: AbortSignal): Promise<Upstream>
  /**
   * Passes bytes until a side ends or the signal aborts; on abort it tells the client `signal.reason` and
   * closes both.
   */
  relay(upstream: Upstream, recording: Recording, signal: AbortSignal): Promise<Ending>
}
