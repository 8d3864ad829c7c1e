// Joins sessions to the ledger: from a credential's JIT setting to the request that the ledger understands.
// The templates are pinned here, at the moment of opening: their text travels with the account, and whatever
// an admin edits or deletes meanwhile, the closing hook is the one that belongs to the opening one (J11,
// F35).
import { SallyportError } from '../errors.ts'
import type { Action, Injectable } from '../jit/plugin.ts'
import { keepsItsSecret } from '../jit/shelf.ts'
import type { Shelf } from '../jit/shelf.ts'
import { parseTemplate } from '../jit/template.ts'
import type { IssueRequest } from '../lease/context.ts'
import type { AccountSpec, PinnedTemplate } from '../lease/ports.ts'
import type { ActionChoice, Credential, JitSetting, Target } from '../policy/types.ts'
import type { LiveSession } from '../session/registry.ts'
import { addressOf, storedSecret } from './hooks.ts'
import type { AccessPorts } from './hooks.ts'

export interface StoredTemplate {
  id: string
  version: number
  plugin: string
  action: string
  body: string
  sha256: string
  active: boolean
}

export interface AccountPorts {
  shelf: Shelf
  /** The newest version. */
  template(id: string): Promise<StoredTemplate | undefined>
}

/** The two actions of a type (J2), opening first. */
export function actionsOf(setting: JitSetting): readonly [Action, Action] {
  return setting.type === 'creation-deletion' ? ['create', 'delete'] : ['enable', 'disable']
}

/** The credential that authenticates the hooks of another (J7). */
export function authenticatorOf(credential: Credential, setting: JitSetting): string {
  return setting.useOwnCredential ? credential.name : setting.authenticationCredential ?? credential.name
}

/** @throws SallyportError `hook-failed` when a template is missing or inactive */
export async function specOf(
  ports: AccountPorts, credential: Credential, setting: JitSetting, target: Target
): Promise<AccountSpec> {
  const [open, close] = actionsOf(setting)
  return {
    plugin: setting.actions[open]?.plugin ?? '',
    target: addressOf(target),
    authenticationCredential: authenticatorOf(credential, setting),
    open: await pin(ports, setting.actions[open], open),
    close: await pin(ports, setting.actions[close], close),
    variables: { ...setting.variables }
  }
}

/** A template as it is now, for an account that keeps to it. Throws `hook-failed`. */
export async function pin(
  ports: Pick<AccountPorts, 'template'>, choice: ActionChoice | undefined, action: Action
): Promise<PinnedTemplate> {
  const stored = choice === undefined ? undefined : await ports.template(choice.template)
  if (choice === undefined || stored === undefined || !stored.active) {
    const detail = `template ${choice?.template ?? `for ${action}`} is missing or not active`
    throw new SallyportError('hook-failed', { detail })
  }
  const { id, version, sha256, body } = stored
  return { id, version, action, plugin: choice.plugin, sha256, body }
}

/** The ledger's request for one session. */
export async function requestOf(
  ports: AccountPorts & Pick<AccessPorts, 'openSecret'>, session: LiveSession, tell: (line: string) => void
): Promise<IssueRequest> {
  const { credential, target, user, maxSessionSeconds } = session.grant
  const setting = credential.jit
  if (setting === undefined) {
    throw new SallyportError('internal', { detail: `${credential.name} has no JIT setting` })
  }
  const shared = setting.type === 'enable-disable'
  const spec = await specOf(ports, credential, setting, target)
  const standing = shared ? await standingOf(ports, credential, spec) : undefined
  const isTyped = target.protocol === 'tcp'
  if (isTyped && shared && standing === undefined) {
    // Whoever was told the password could use it on while the sessions of others keep the account on.
    const detail = `${spec.open.id} gives ${credential.name} a fresh secret, and people would share it`
    throw new SallyportError('not-allowed', { detail })
  }
  return {
    credential: credential.name,
    target: target.name,
    kind: shared ? 'enable' : 'create',
    accountName: shared ? credential.username : undefined,
    namePattern: `${setting.namePrefix}#######`,
    spec,
    standing,
    form: isTyped && !shared ? 'password' : 'keys',
    owner: { kind: 'session', id: session.id },
    actor: user.name,
    address: session.claim.address,
    ttlSeconds: maxSessionSeconds,
    maxTtlSeconds: maxSessionSeconds,
    tell
  }
}

/** The account's own password, where the hook does not give it another one (J12). */
async function standingOf(
  ports: AccountPorts & Pick<AccessPorts, 'openSecret'>, credential: Credential,
  { plugin, open }: AccountSpec
): Promise<Injectable | undefined> {
  if (!keepsItsSecret(ports.shelf.plugin(plugin), parseTemplate(open.body, open.version))) return undefined
  const secret = await storedSecret(ports, credential)
  if (secret !== undefined) return secret
  const detail = `${open.id} leaves the account its own secret, and credential ${credential.name} has none`
  throw new SallyportError('not-allowed', { detail })
}
