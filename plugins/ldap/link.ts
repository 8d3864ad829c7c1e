// The plugin's connection to a directory, and how an account stands there. Accounts are found by `uid` below
// the target's base, and not by a name that we put together: entries move. The marker is a value of
// `description`; it changes by taking the old value away and adding the new one in one modification, so that
// of two hooks that saw the same marker only one goes on. An account without userPassword is shut: the lock
// of ppolicy alone holds only where a policy with pwdLockout applies, which nobody can see from here.
import { SallyportError } from '../../src/errors.ts'
import type { Access, AccountRef, HookContext } from '../../src/jit/plugin.ts'
import { LdapRefused, connectLdap } from '../../src/wire/ldap/client.ts'
import type { Change, Entry, Filter, LdapClient } from '../../src/wire/ldap/client.ts'
import { passwordOf, unreached } from '../reach.ts'
import { StepFailed, markerText, readMarker } from '../steps.ts'
import type { Marker } from '../steps.ts'

export const result = {
  noSuchAttribute: 16, undefinedType: 17, valueExists: 20, noSuchEntry: 32, noAccess: 50,
  objectClassViolation: 65
} as const

const ppolicyControl = '1.3.6.1.4.1.42.2.27.8.5.1'
/** "Locked until somebody unlocks it" (draft-behera-ldap-password-policy). */
export const lockedForEver = '000001010000Z'

export interface Standing {
  dn: string
  marker: Marker | undefined
  hasPassword: boolean
}

export interface Root {
  bases: readonly string[]
  hasPpolicy: boolean
  version: string
}

export function isRefused(thrown: unknown, ...numbers: readonly number[]): thrown is LdapRefused {
  return thrown instanceof LdapRefused && (numbers.length === 0 || numbers.includes(thrown.number))
}

/** A value as part of a distinguished name (RFC 4514 section 2.4). */
export function escaped(value: string): string {
  return value
    .replaceAll(/[\\",+;<=>]/g, '\\$&').replaceAll('\0', '\\00')
    .replace(/^[ #]/, '\\$&').replace(/ $/, '\\ ')
}

export class Link {
  readonly #client: LdapClient
  readonly #access: Access
  readonly #context: HookContext
  #root: Root | undefined

  constructor(client: LdapClient, access: Access, context: HookContext) {
    this.#client = client
    this.#access = access
    this.#context = context
  }

  async root(): Promise<Root> {
    if (this.#root !== undefined) return this.#root
    const [entry] = await this.#client.search({
      base: '', scope: 'base', filter: { present: 'objectClass' },
      attributes: ['namingContexts', 'supportedControl', 'vendorName', 'vendorVersion']
    }, this.#limitMs())
    const of = (name: string): readonly string[] => entry?.attributes.get(name) ?? []
    const given = this.#access.target.database ?? ''
    this.#root = {
      bases: given === '' ? of('namingcontexts') : [given],
      hasPpolicy: of('supportedcontrol').includes(ppolicyControl),
      version: [...of('vendorname'), ...of('vendorversion')].join(' ') || 'LDAP 3'
    }
    return this.#root
  }

  /** Entries below the target's base. @throws LdapRefused, ConnectionLost */
  async find(filter: Filter, attributes: readonly string[], namesOnly = false): Promise<Entry[]> {
    const found: Entry[] = []
    for (const base of (await this.root()).bases) {
      found.push(...await this.#client.search(
        { base, scope: 'sub', filter, attributes, namesOnly }, this.#limitMs()))
    }
    return found
  }

  /** True when the entry is there and we may know it. */
  async shows(dn: string): Promise<boolean> {
    return (await this.#names(dn)).length > 0
  }

  /** Undefined when there is no such account. */
  async standing(name: string): Promise<Standing | undefined> {
    const [entry, second] = await this.find({ equal: ['uid', name] }, ['description'])
    if (entry === undefined) return undefined
    if (second !== undefined) throw new StepFailed(`several entries have the uid ${name}`, false)
    const [seen] = await this.#names(entry.dn)
    const marker = (entry.attributes.get('description') ?? []).map(readMarker)
    return {
      dn: entry.dn, marker: marker.find(one => one !== undefined),
      hasPassword: seen?.attributes.has('userpassword') === true || !await this.seesPasswords()
    }
  }

  /**
   * Whether the directory shows us that there is a password: by our own, or by anybody's, since its root has
   * no entry. What cannot be seen counts as there.
   */
  async seesPasswords(): Promise<boolean> {
    const [own] = await this.#names(this.#access.username)
    if (own?.attributes.has('userpassword') === true) return true
    for (const base of own === undefined ? (await this.root()).bases : []) {
      const [any] = await this.#client.search({
        base, scope: 'sub', filter: { present: 'userPassword' }, attributes: ['userPassword'],
        namesOnly: true, entriesMax: 1
      }, this.#limitMs())
      if (any?.attributes.has('userpassword') === true) return true
    }
    return false
  }

  /** Groups in which an entry, or a name, is a member. */
  async groupsOf(dn: string, name: string): Promise<string[]> {
    const byDn: Filter[] = [{ equal: ['member', dn] }, { equal: ['uniqueMember', dn] }]
    const found = await this.find({ or: [...byDn, { equal: ['memberUid', name] }] }, ['1.1'])
    return found.map(entry => entry.dn)
  }

  /** Connections that are bound as the account; undefined when the directory does not show them. */
  async sessions(name: string, dn: string | undefined): Promise<number | undefined> {
    const attribute = 'monitorConnectionAuthzDN'
    let entries: Entry[]
    try {
      entries = await this.#client.search({
        base: 'cn=Connections,cn=Monitor', scope: 'one', filter: { present: attribute },
        attributes: [attribute]
      }, this.#limitMs())
    } catch (error) {
      if (isRefused(error, result.noSuchEntry, result.noAccess)) return undefined
      throw error
    }
    const ours = (bound: string): boolean => {
      const folded = bound.toLowerCase()
      return folded === dn?.toLowerCase() || folded.startsWith(`uid=${escaped(name)},`.toLowerCase())
    }
    return entries.filter(entry => entry.attributes.get(attribute.toLowerCase())?.some(ours) === true).length
  }

  async modify(dn: string, changes: readonly Change[]): Promise<void> {
    this.#context.signal.throwIfAborted()
    await this.#client.modify(dn, changes, this.#limitMs())
  }

  async add(dn: string, attributes: Readonly<Record<string, readonly string[]>>): Promise<void> {
    this.#context.signal.throwIfAborted()
    await this.#client.add(dn, attributes, this.#limitMs())
  }

  async remove(dn: string): Promise<void> {
    this.#context.signal.throwIfAborted()
    try {
      await this.#client.delete(dn, this.#limitMs())
    } catch (error) {
      if (!isRefused(error, result.noSuchEntry)) throw error
    }
  }

  /** Puts our epoch into the marker. @throws StepFailed when somebody else did meanwhile */
  async mark({ dn, marker }: Standing, account: AccountRef): Promise<void> {
    const old = marker === undefined ? undefined : markerText({ ...account, ...marker })
    const fresh = markerText(account)
    if (old === fresh) return
    const changes: Change[] = [{ operation: 'add', attribute: 'description', values: [fresh] }]
    if (old !== undefined) changes.unshift({ operation: 'delete', attribute: 'description', values: [old] })
    try {
      await this.modify(dn, changes)
    } catch (error) {
      if (!isRefused(error, result.noSuchAttribute)) throw error
      throw new StepFailed(`another hook is acting on ${account.name}`)
    }
  }

  close(): void {
    this.#client.close()
  }

  /** Which attributes an entry has, without their values. */
  async #names(dn: string): Promise<Entry[]> {
    try {
      return await this.#client.search({
        base: dn, scope: 'base', filter: { present: 'objectClass' }, attributes: ['userPassword'],
        namesOnly: true
      }, this.#limitMs())
    } catch (error) {
      if (isRefused(error, result.noSuchEntry)) return []
      throw error
    }
  }

  #limitMs(): number {
    return this.#context.statementTimeoutMs
  }
}

/** Logs in as the hook's credential, whose username is a distinguished name. @throws SallyportError */
export async function openLink(access: Access, context: HookContext): Promise<Link> {
  const { target, username } = access
  const password = passwordOf(access)
  const limitMs = context.connectTimeoutMs
  try {
    const client = await connectLdap({
      host: target.host, port: target.port, tls: target.tls, username, password: () => password,
      timeouts: { connectMs: limitMs, tlsMs: limitMs, loginMs: limitMs },
      signal: AbortSignal.any([context.signal, AbortSignal.timeout(limitMs)])
    })
    return new Link(client, access, context)
  } catch (error) {
    throw unreached(error, target, context.signal)
  }
}

/** @throws SallyportError('invalid') for a name that is not one plain word */
export function assertName(name: string): void {
  if (/^[\w.@-]{1,128}$/.test(name)) return
  throw new SallyportError('invalid', { detail: 'the name of the account is not one plain word' })
}
