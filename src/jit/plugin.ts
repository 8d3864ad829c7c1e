// The plugin contract, version 1: what a target family must be able to do so that accounts can live and die
// there. A plugin never invents a name (the engine mints it and has it on record before the plugin runs),
// never decides whether something worked (verify looks), and never touches an account that is not ours.
import type { Secret } from '../secret.ts'
import type { Template } from './template.ts'

export type Action = 'create' | 'delete' | 'enable' | 'disable'

/** Where a hook goes and as whom: from the target's and the credential's records, never from a template. */
export interface Access {
  target: TargetAddress
  username: string
  /** A stored password, or keys that were minted by `mint` (enable-disable with `useOwnCredential`). */
  secret: Injectable
}

export interface TargetAddress {
  name: string
  protocol: string
  host: string
  port: number
  /** PostgreSQL: the database where hooks connect. */
  database?: string | undefined
  tls: TlsPolicy
  /** SSH: the only host keys that are believed, `type base64` each; learnt at first sight when absent. */
  hostKeys?: readonly string[] | undefined
}

export interface TlsPolicy {
  mode: 'disable' | 'require' | 'verify-ca' | 'verify-full'
  /** PEM of the authorities to trust; the system's when absent. */
  ca?: string | undefined
  serverName?: string | undefined
}

/** What the proxy presents to the target. Leaves jit only towards connect. */
export type Injectable =
  | { kind: 'password', password: Secret<string> }
  /** SSH: a private key as a file of OpenSSH. */
  | { kind: 'private-key', privateKey: Secret<string>, certify?: Certify | undefined }
  /** Random SCRAM keys (32 bytes each): no password exists. RFC 5802 section 3. */
  | { kind: 'scram-keys', clientKey: Secret<Uint8Array>, serverKey: Secret<Uint8Array> }

/** Who will present a secret: the proxy (`keys`, the default), or whoever it is handed to (`password`). */
export type SecretForm = 'keys' | 'password'

/**
 * SSH: makes the certificate of that key, for connections that the target sees come from this address. Where
 * it is there, the target knows no key of the account, but our authority.
 */
export type Certify = (source: string) => Promise<Uint8Array>

/**
 * A fresh secret for one account: what is injected, and the variables that the template sends to the target.
 */
export interface Minted {
  inject: Injectable
  /** E.g. `verifier` for PostgreSQL. Masked in plans and logs. */
  variables: Record<string, Secret<string>>
}

/**
 * Accounts of `templates prove` have ids that begin so: the marker that one leaves on a shared account binds
 * nobody.
 */
export const proofAccountPrefix = 'proof-'

/** The account as it stands in the ledger. */
export interface AccountRef {
  name: string
  /** Ledger id of the account: the ownership marker on the target carries it. */
  accountId: string
  /** Fencing: raised at each claim; targets that can fence refuse an older one. */
  epoch: number
  kind: 'create' | 'enable'
}

/** What a hook ran with, so that `verify` knows what "on" means (privileges only, J12). */
export interface Pinned {
  template: Template
  variables: Variables
}

/** Values for a template's variables; lists become one quoted item for each element. */
export type Variables = Record<string, string | number | readonly string[] | Secret<string> | undefined>

export interface HookContext {
  signal: AbortSignal
  /** Limits in milliseconds. */
  connectTimeoutMs: number
  statementTimeoutMs: number
  /**
   * Milliseconds until our claim on the account lapses: nothing that we send may take effect later, since
   * another node may have taken over by then. Plugins that fence hand it to the target as a deadline.
   */
  remainingMs(): number
  /** Wall time: for signatures and lifetimes that a service counts on its own clock. */
  now(): Date
  /**
   * For plugins that do not fence: what `verify` saw just before. An account that exists and is ours gets the
   * new secret.
   */
  before?: Verified | undefined
  /**
   * Connections of earlier hooks on this target, for plugins that can clean one of whatever it carries. A
   * look that proves may close them to make room, but takes none.
   */
  kept?: KeptConnections | undefined
  /** One line for the operator's log; secrets are redacted before it is kept. */
  log(line: string): void
}

export interface KeptConnection {
  /** Nothing can be sent any more. */
  isBroken(): boolean
  /** Never throws. */
  close(): Promise<void>
}

export interface KeptConnections {
  /**
   * `slot`: what it was opened for (user, database, settings). `login`: a digest of all that let it in; those
   * of the slot that came in otherwise are closed.
   */
  take(slot: string, login: string): KeptConnection | undefined
  /** Only one that met no error and has no transaction open. */
  give(slot: string, login: string, connection: KeptConnection): void
  /** Closes those that wait; true when there were any. */
  clear(): Promise<boolean>
}

/** One of several actions of the same template that go together. */
export interface Errand {
  account: AccountRef
  variables: Variables
}

export interface Residue {
  /** E.g. `function`, `large-object`, `prepared-transaction`, `role`. */
  kind: string
  /** Where and what, e.g. `database app: public.f()`. */
  name: string
  /** What became of it. */
  fate: 'removed' | 'reassigned' | 'left'
}

/** Values that a service drew at a creation, by the names that the template gives them. */
export type Made = Readonly<Record<string, Secret<string>>> | undefined

export type Outcome =
  /**
   * `seen`: how the account stands after the commit, where the plugin has looked already. `made`: what only
   * the service knew before (an access key, a token), for the holder of the lease. It is in this answer and
   * nowhere else: when the answer is lost, or anything fails after it, nobody has the secret, and nobody may
   * ask for it again; the account is removed and another one is made under a new name.
   */
  | {
    state: 'done', changed: boolean, residue: readonly Residue[], seen?: Verified | undefined, made?: Made
  }
  /** Exists and is not ours: never touched. */
  | { state: 'conflict', reason: string }
  /** A definite refusal by the target at one step: undo or retry. */
  | { state: 'refused', failedStep: string, error: string, retryable: boolean, residue: readonly Residue[] }
  /** The answer was lost: verify before anything else. */
  | { state: 'unknown', failedStep: string, error: string }

export interface Verified {
  exists: boolean
  /** Can log in now (or could, with the right secret). */
  enabled: boolean
  /** Carries our marker. */
  ours: boolean
  /** The epoch in the marker, where there is one. */
  epoch?: number | undefined
  /** Live sessions or processes of the account. */
  sessions: number
  residue: readonly Residue[]
  /** Nothing can take it away (a token that was handed out): the service ends it at this instant. */
  endsAt?: Date | undefined
}

export interface Probe {
  version: string
  /** Rights that the hook's credential lacks: one sentence each, with the statement that grants it. */
  missingRights: readonly string[]
  warnings: readonly string[]
}

export interface PlannedStep {
  name: string
  /** What would be sent, secrets masked. */
  text: string
}

export interface Owned {
  name: string
  accountId?: string | undefined
}

/**
 * A plugin throws SallyportError('target-unreachable' | 'target-untrusted' | 'target-refused') when it could
 * not log in, and only then: nothing was sent. Everything later is an Outcome.
 */
export interface Plugin {
  readonly id: string
  readonly apiVersion: 1
  readonly actions: ReadonlySet<Action>
  /** `useOwnCredential` with enable-disable is refused unless true (J7). */
  readonly canEnableItself: boolean
  /**
   * True when `run` itself checks ownership, epoch and deadline on the target, together with its effect;
   * otherwise the runner looks before it runs.
   */
  readonly fences: boolean
  /**
   * True when its templates may say `injection: certificate`: what `mint` draws is an ed25519 key, which our
   * user authority certifies for each session.
   */
  readonly certifies?: boolean | undefined
  /**
   * What its templates may have beside sql, script and do: `look` when the plugin cannot know how an account
   * of theirs is seen, `http` steps, and `made`.
   */
  readonly parts?: readonly ('look' | 'http' | 'made')[]
  /** Variables that the engine supplies to every template of this plugin, with a sentence for each. */
  readonly variables: Readonly<Record<string, string>>
  /** Problems of a template, found at save time; empty when it may be used. */
  lint(template: Template): readonly string[]
  /** What is allowed but deserves a second look: shown at save and by `templates lint`. */
  advise?(template: Template): readonly string[]
  /** Dry run: what would be sent, without any network. */
  plan(template: Template, variables: Variables): readonly PlannedStep[]
  /** A fresh secret: the strongest that the proxy itself can present. */
  mint(): Minted
  /**
   * The same as a password, for whoever presents it without us: a person on a TCP target, the holder of a
   * lease. Left out where `mint` gives a password, or where accounts have none.
   */
  mintTyped?(): Promise<Minted>
  /**
   * For leases whose maximum grew: a template (action `enable`) that moves the end which the target keeps of
   * an account to `expires_at`, and does nothing else; `none` where targets keep no end. Left out where an
   * end cannot be moved: there the maximum stays what it was at issue.
   */
  readonly prolong?: string | undefined
  /**
   * True when something accepts connections at the target's address; nothing is said to it. Lets those who
   * wait for a target that was away begin again.
   */
  knock(target: TargetAddress, limitMs: number): Promise<boolean>
  /**
   * `variables`: of one credential, to check its roles as well; `username` is an account to switch on and
   * off, `userAuthority` the key that signs certificates which a template relies on.
   */
  probe(access: Access, context: HookContext, variables?: Variables): Promise<Probe>
  run(
    access: Access, template: Template, account: AccountRef, variables: Variables, context: HookContext
  ): Promise<Outcome>
  /** Built in, read only, over a fresh connection; never a template. */
  verify(access: Access, account: AccountRef, context: HookContext, pinned?: Pinned): Promise<Verified>
  /**
   * Several creations or removals of one template in one visit, for plugins that fence. Undefined for an
   * account means that nothing was done which `run` could not take up: it is run by itself then.
   */
  runTogether?(
    access: Access, template: Template, errands: readonly Errand[], context: HookContext
  ): Promise<readonly (Outcome | undefined)[]>
  /**
   * The look of `verify` at several, over one connection that is opened for it. Undefined for an account that
   * has to be looked at by itself.
   */
  verifyTogether?(
    access: Access, template: Template, errands: readonly Errand[], context: HookContext
  ): Promise<readonly (Verified | undefined)[]>
  listOwned(access: Access, context: HookContext): Promise<readonly Owned[]>
}
