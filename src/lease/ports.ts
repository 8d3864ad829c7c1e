// What the ledger needs of the other rooms, as interfaces: main.ts hands the doing in. The store's part is a
// list of atomic moves, each one transaction on the store's own clock; the hooks' part is three verbs towards
// a target. The ledger trusts neither to be there when an account ends, and nothing here can be made to
// forget one.
import type { SallyportError } from '../errors.ts'
import type { HookResult } from '../jit/hook.ts'
import type {
  AccountRef, Action, Injectable, Minted, SecretForm, TargetAddress, Variables, Verified
} from '../jit/plugin.ts'
import type { Secret } from '../secret.ts'

export type AccountKind = AccountRef['kind']

/**
 * A template as it was when the account was opened; its later versions do not matter to this account (J11).
 */
export interface PinnedTemplate {
  id: string
  version: number
  action: Action
  plugin: string
  sha256: string
  /** The whole text: removal must not depend on anything that can be edited or deleted. */
  body: string
}

/**
 * All that removal needs, kept with the account. Holds no secret: the credential that authenticates is a
 * name.
 */
export interface AccountSpec {
  plugin: string
  /** Where the target was at issue; used when the target is not declared any more. */
  target: TargetAddress
  /** Name of the credential that authenticates hooks; its secret is looked up when a hook runs (F34). */
  authenticationCredential: string
  open: PinnedTemplate
  close: PinnedTemplate
  /** Values of the credential for the templates' own variables. */
  variables: Record<string, string | number | readonly string[]>
  /** When the dead-man's switch on the target falls (ISO 8601). Written by the store for shared accounts. */
  deadManAt?: string | undefined
  /** Seconds from the creation to the end of the longest lifetime: when what cannot be removed ends. */
  lifeSeconds?: number | undefined
}

/**
 * One hook: where, as whom, on which account. The credential that authenticates is looked up by whoever runs
 * it.
 */
export interface HookWork {
  spec: AccountSpec
  /** `spec.open` or `spec.close`. */
  template: PinnedTemplate
  account: AccountRef
  variables: Variables
  /** What will be presented to the target: known to the runner only to keep it out of messages. */
  inject: Injectable | undefined
  /**
   * The account's own secret, where it is kept (shared accounts), for plugins that enable themselves (J7).
   */
  own: Injectable | undefined
  /** Monotonic instant at which the claim on the account lapses: nothing may be begun later. */
  claimEndsMs: number
}

/** Towards the target, with limits, a queue and a circuit breaker for each target (jit/hooks.ts). */
export interface Hooks {
  mint(plugin: string, form?: SecretForm): Minted | Promise<Minted>
  /** Acts and looks. Never throws. */
  run(work: HookWork): Promise<HookResult>
  /** Whether the end that a target keeps of an account can be moved, or it keeps none. */
  prolongs(plugin: string): boolean
  /** Moves that end to `expires_at`; nothing else of the account changes. Never throws. */
  prolong(work: HookWork): Promise<HookResult>
  /** Looks, over a fresh connection. Throws when it could not look. */
  verify(work: HookWork): Promise<Verified>
}

export interface ReceiptSigner {
  /** Ed25519 over the bytes; the signature in base64. */
  sign(bytes: Uint8Array): { keyId: string, signature: string }
}

export interface AuditSink {
  /** Resolves when the event is durable. */
  append(kind: string, actor: string, subject: string, detail: Record<string, unknown>): Promise<void>
}

/** The live sessions of this node, and the books of all. */
export interface Sessions {
  cut(session: string, error: SallyportError): void
  /** Ends all, also those without a lease. Returns how many were not ending already. */
  cutAll(error: SallyportError): number
  /** Closes the books of sessions whose process died or was declared dead. */
  closeFenced(): Promise<void>
}

/** Keeps the secret of a shared account, so that a second session can join without a hook. */
export interface SecretBox {
  put(plain: Secret<string>): Promise<string>
  open(id: string): Promise<Secret<string>>
  forget(id: string): Promise<void>
}

export interface LedgerLog {
  info(fields: Record<string, unknown>, message: string): void
  warn(fields: Record<string, unknown>, message: string): void
  error(fields: Record<string, unknown>, message: string): void
}
