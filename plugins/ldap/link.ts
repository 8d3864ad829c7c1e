// An OpenLDAP directory as hooks see it, and how an account stands there. Accounts are found by `uid` below
// the target's base, and not by a name that we put together: entries move. The marker is a value of
// `description`. An account without userPassword is shut: the lock of ppolicy alone holds only where a policy
// with pwdLockout applies, which nobody can see from here.
import type { Access, AccountRef, HookContext } from '../../src/jit/plugin.ts'
import type { Entry, Filter } from '../../src/wire/ldap/client.ts'
import { StepFailed } from '../steps.ts'
import type { Marker } from '../steps.ts'
import { Directory, escaped, isRefused, markerOf, openDirectory, result } from './directory.ts'

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

export class Link extends Directory {
  #root: Root | undefined

  async root(): Promise<Root> {
    if (this.#root !== undefined) return this.#root
    const entry = await this.read('', ['namingContexts', 'supportedControl', 'vendorName', 'vendorVersion'])
    const of = (name: string): readonly string[] => entry?.attributes.get(name) ?? []
    const given = this.access.target.database ?? ''
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
      found.push(...await this.search({ base, scope: 'sub', filter, attributes, namesOnly }))
    }
    return found
  }

  /** True when the entry is there and we may know it. */
  async shows(dn: string): Promise<boolean> {
    return await this.#names(dn) !== undefined
  }

  /** Undefined when there is no such account. */
  async standing(name: string): Promise<Standing | undefined> {
    const [entry, second] = await this.find({ equal: ['uid', name] }, ['description'])
    if (entry === undefined) return undefined
    if (second !== undefined) throw new StepFailed(`several entries have the uid ${name}`, false)
    const seen = await this.#names(entry.dn)
    return {
      dn: entry.dn, marker: markerOf(entry, 'description'),
      hasPassword: seen?.attributes.has('userpassword') === true || !await this.seesPasswords()
    }
  }

  /**
   * Whether the directory shows us that there is a password: by our own, or by anybody's, since its root has
   * no entry. What cannot be seen counts as there.
   */
  async seesPasswords(): Promise<boolean> {
    const own = await this.#names(this.access.username)
    if (own?.attributes.has('userpassword') === true) return true
    for (const base of own === undefined ? (await this.root()).bases : []) {
      const [any] = await this.search({
        base, scope: 'sub', filter: { present: 'userPassword' }, attributes: ['userPassword'],
        namesOnly: true, entriesMax: 1
      })
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
      entries = await this.search({
        base: 'cn=Connections,cn=Monitor', scope: 'one', filter: { present: attribute },
        attributes: [attribute]
      })
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

  /** Puts our epoch into the marker. @throws StepFailed when somebody else did meanwhile */
  async mark(standing: Standing, account: AccountRef): Promise<void> {
    await this.markIn('description', standing, account)
  }

  /** Which attributes an entry has, without their values. */
  async #names(dn: string): Promise<Entry | undefined> {
    return await this.read(dn, ['userPassword'], true)
  }
}

/** Logs in as the hook's credential, whose username is a distinguished name. @throws SallyportError */
export async function openLink(access: Access, context: HookContext): Promise<Link> {
  return await openDirectory(access, context, Link)
}
