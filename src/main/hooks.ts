// Joins the ledger to the hook runner: the ledger speaks of accounts and pinned templates, the runner wants
// an address, a login and a parsed template. The authentication credential is looked up at the moment of the
// hook, by name, so that a rotated admin password is used from the next hook on (F34), and a target that
// moved is found; a secret is opened again only when another one stands in its place. Only while the store is
// away a removal goes with what the last hook went with: else every account of a session that ends during the
// outage would stay until its end (F13).
import { SallyportError, asSallyportError } from '../errors.ts'
import type { Access, Injectable, TargetAddress } from '../jit/plugin.ts'
import type { HookJob, HookResult, Hooks as HookRunner } from '../jit/hook.ts'
import { mintFor } from '../jit/shelf.ts'
import type { Shelf } from '../jit/shelf.ts'
import { parseTemplate } from '../jit/template.ts'
import type { Template } from '../jit/template.ts'
import type { Hooks as LedgerHooks, HookWork, PinnedTemplate } from '../lease/ports.ts'
import type { StaticSecret } from '../policy/secrets.ts'
import type { Credential, Declared, SecretReference, Target } from '../policy/types.ts'
import { Secret } from '../secret.ts'
import { baseAddress, openValues } from '../secrets/plan.ts'
import { locate } from './host-keys.ts'
import type { HostKeysOf } from './host-keys.ts'

export interface AccessPorts {
  declared(): Promise<Declared>
  openSecret(reference: SecretReference): Promise<Secret<string>>
  hostKeysOf: HostKeysOf
}

// Parsed templates by their digest: some dozens exist, each used for every session.
const parsedTemplatesMax = 500
// One for each target and credential that authenticates hooks.
const accessesMax = 10_000

export function createLedgerHooks(runner: HookRunner, shelf: Shelf, ports: AccessPorts): LedgerHooks {
  const parsed = new Map<string, Template>()
  const templateOf = (pinned: PinnedTemplate): Template => {
    const known = parsed.get(pinned.sha256)
    if (known !== undefined) return known
    if (parsed.size >= parsedTemplatesMax) parsed.clear()
    const template = parseTemplate(pinned.body, pinned.version)
    parsed.set(pinned.sha256, template)
    return template
  }
  const accesses = new Map<string, { access: Access, basis: string | undefined }>()
  const accessFor = async ({ spec, template, own }: HookWork): Promise<Access> => {
    const removal = template.action === 'delete' || template.action === 'disable'
    const key = JSON.stringify([spec.target.name, spec.authenticationCredential])
    try {
      const { basis, isOwn, open } = await wayOf(ports, spec.target, spec.authenticationCredential, own)
      const last = accesses.get(key)
      if (last !== undefined && basis !== undefined && last.basis === basis) return last.access
      const access = await open()
      if (accesses.size >= accessesMax) accesses.clear()
      if (!isOwn) accesses.set(key, { access, basis })
      return access
    } catch (thrown) {
      const last = accesses.get(key)
      const away = asSallyportError(thrown).code === 'store-unavailable'
      if (!removal || last === undefined || !away) throw thrown
      return last.access
    }
  }
  const jobOf = async (wanted: HookWork, template = templateOf(wanted.template)): Promise<HookJob> => {
    const { spec, template: _pinned, own: _own, ...work } = wanted
    const { action } = template
    return { ...work, action, pluginId: spec.plugin, template, access: await accessFor(wanted) }
  }
  const run = async (work: HookWork, template?: Template): Promise<HookResult> => {
    try {
      return await runner.run(await jobOf(work, template))
    } catch (thrown) {
      return notBegun(asSallyportError(thrown))
    }
  }
  return {
    mint: (plugin, form) => mintFor(shelf.plugin(plugin), form),
    run: work => run(work),
    prolongs: plugin => prolongingOf(shelf, plugin) !== undefined,
    async prolong(work) {
      const text = prolongingOf(shelf, work.spec.plugin)
      if (text === undefined) {
        return notBegun(new SallyportError('invalid', { detail: 'its end cannot be moved' }))
      }
      return text === 'none' ? { ...untouched, state: 'done' } : await run(work, parseTemplate(text))
    },
    verify: async work => runner.verify(await jobOf(work))
  }
}

/** How a plugin moves the end of an account; undefined where it cannot, or this build has no such plugin. */
function prolongingOf(shelf: Shelf, plugin: string): string | undefined {
  try {
    return shelf.plugin(plugin).prolong
  } catch {
    return undefined
  }
}

const untouched = { changed: false, retryable: true, residue: [], quarantined: false, tookMs: 0 }

// The store was away, or the credential that authenticates is gone: nothing was sent.
function notBegun({ code, detail }: SallyportError): HookResult {
  return { ...untouched, state: 'refused', code, error: detail }
}

/**
 * Where a hook goes and as whom. @throws SallyportError `not-found` when the credential is not declared any
 * more
 */
export async function accessOf(
  ports: AccessPorts, known: TargetAddress, credentialName: string, own?: Injectable
): Promise<Access> {
  return (await wayOf(ports, known, credentialName, own)).open()
}

/** An access before its secret is opened. */
interface Way {
  /** All that it rests on; undefined where that is a secret which no reference stands for. */
  basis: string | undefined
  /** The secret is the account's own: no other may log in with it. */
  isOwn: boolean
  open(): Promise<Access>
}

async function wayOf(
  ports: AccessPorts, known: TargetAddress, credentialName: string, own: Injectable | undefined
): Promise<Way> {
  const declared = await ports.declared()
  const base = declared.secrets.get(credentialName)
  if (base?.type === 'static') {
    // Where it points is in its sealed values, and the host keys of an SSH target may be learnt meanwhile.
    const isSsh = known.protocol === 'ssh' || base.provider === 'ssh'
    const basis = isSsh ? undefined : JSON.stringify([known, base])
    return { basis, isOwn: false, open: () => baseAccess(ports, known, base) }
  }
  const credential = declared.credentials.get(credentialName)
  const target = await locate(addressOf(declared.targets.get(known.name)) ?? known, ports.hostKeysOf)
  if (credential?.username === undefined) {
    const detail = `credential ${credentialName}, which authenticates the hook`
    throw new SallyportError('not-found', { detail })
  }
  const { username, privateKey, password } = credential
  const reference = privateKey ?? password
  return {
    isOwn: reference === undefined,
    basis: reference === undefined
      ? undefined
      : JSON.stringify([target, username, privateKey === undefined ? 'password' : 'key', reference]),
    async open() {
      const secret = await storedSecret(ports, credential) ?? own
      if (secret !== undefined) return { target, username, secret }
      throw new SallyportError('not-found', { detail: `a secret of credential ${credentialName}` })
    }
  }
}

/** A base secret says both where and as whom; rotated, it counts from the next hook on. */
async function baseAccess(ports: AccessPorts, known: TargetAddress, base: StaticSecret): Promise<Access> {
  const values = await openValues(ports, base)
  const { username, password } = values
  if (username === undefined || password === undefined) {
    throw new SallyportError('not-found', { detail: `user name or password in base secret ${base.name}` })
  }
  const there = base.provider === undefined ? known : baseAddress(base, values)
  const target = await locate(there, ports.hostKeysOf)
  return { target, username, secret: { kind: 'password', password: new Secret(password) } }
}

/** The secret that an admin gave to a credential: a key before a password; undefined when it has none. */
export async function storedSecret(
  { openSecret }: Pick<AccessPorts, 'openSecret'>, { privateKey, password }: Credential
): Promise<Injectable | undefined> {
  if (privateKey !== undefined) return { kind: 'private-key', privateKey: await openSecret(privateKey) }
  if (password !== undefined) return { kind: 'password', password: await openSecret(password) }
  return undefined
}

export function addressOf(target: Target): TargetAddress
export function addressOf(target: Target | undefined): TargetAddress | undefined
export function addressOf(target: Target | undefined): TargetAddress | undefined {
  if (target === undefined) return undefined
  const { name, protocol, host, port, database, tls, hostKeys } = target
  return { name, protocol, host, port, database, tls, ...hostKeys === undefined ? {} : { hostKeys } }
}
